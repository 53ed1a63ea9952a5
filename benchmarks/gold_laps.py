"""Seconds of one side of `benchmarks gold`, and the policy's weights at the end of an iteration, to be judged later.

Runs in TRL's environment too and imports nothing of trueup.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


class Laps:
    """A clock of the processor that stands still while weights are written."""

    def __init__(self, folder: str, every: int) -> None:
        self.folder, self.every = Path(folder), every
        self.laps: list[dict[str, Any]] = []
        self.cpu = self.wall = 0.0
        self.since = (0.0, 0.0)

    def start(self) -> None:
        self.since = (time.process_time(), time.perf_counter())

    def lap(self, iteration: int, network: Any) -> None:
        """The end of an iteration. What stands between two calls is counted, what this call does is not."""
        cpu, wall = self.since
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall
        if iteration % self.every == 0:
            file = self.folder / f"{iteration:04}.safetensors"
            keep(network, file)
            now = {"iteration": iteration, "seconds": self.cpu, "wall_seconds": self.wall, "weights": str(file)}
            self.laps.append(now)
        self.start()


def keep(network: Any, file: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: weight.detach().contiguous() for name, weight in network.named_parameters()}, file)
