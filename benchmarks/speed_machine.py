"""How fast this machine multiplies large matrices, in operations a second of the processor."""

from __future__ import annotations

import time
from typing import Any

import torch

from .job import Job, run

WIDTH, TIMES = 2048, 4


def rates(job: Job) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    return {name: _rate(getattr(torch, name)) for name in ("float32", "bfloat16")} | {"torch": torch.__version__}


def _rate(dtype: torch.dtype) -> float:
    """The best of a few tries: what else the machine does can only slow one down."""
    one, other = (torch.randn(WIDTH, WIDTH).to(dtype) for _ in range(2))
    spent = []
    for _ in range(TIMES + 1):
        began = time.process_time()
        one @ other
        spent.append(time.process_time() - began)
    return 2 * WIDTH**3 / min(spent[1:])


if __name__ == "__main__":
    run({"rates": rates})
