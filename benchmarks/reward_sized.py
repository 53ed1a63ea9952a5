"""Train a reward model on one set of pairs, whole, and print one JSON line: `benchmarks reward-size` runs this."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.measured import peak_mib, resident_mib


def main(workspace: str, language_model: str, data: str, threads: int) -> None:
    import torch

    import trueup
    import trueup.train.reward  # noqa: F401  (what importing costs is not what training costs)
    from trueup.config import ModelSettings
    from trueup.models.load import load_model

    torch.set_num_threads(threads)
    load_model([language_model], ModelSettings(device="cpu", adapter="none"))  # so that its code is imported too
    before = resident_mib()
    with trueup.Workspace.open(Path(workspace)) as ws:
        cpu, wall = time.process_time(), time.perf_counter()
        made = trueup.reward(
            ws, base=language_model, data=data, epochs=1.0, batch_size=16, model={"adapter": "none", "device": "cpu"},
            optimizer={"lr": 1e-4, "schedule": "constant"},
            run={"threads": threads, "tensorboard": False, "checkpoint_every": 10**6, "evaluate_every": 10**6},
        )  # fmt: skip
        found = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - wall}
        result = next(row.result for row in ws.run_rows() if made.id in row.outputs.values())
    print(json.dumps(found | {"mib": peak_mib() - before, "left_out": result["dropped"]}))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
