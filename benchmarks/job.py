"""What every program of `benchmarks speed` does: read its job, time it, say one line of JSON.

Nothing but the standard library, for programs that run in other environments too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any

from .measured import peak_mib, resident_mib

Job = dict[str, Any]
WARM_UP = 1  # iterations before the clock starts


class Clock:
    """Seconds of the processor and of the wall at numbered moments, and the memory before anything was loaded."""

    def __init__(self) -> None:
        self.before = resident_mib()
        self.marks: dict[int, tuple[float, float]] = {}

    def mark(self, number: int) -> None:
        self.marks[number] = (time.process_time(), time.perf_counter())

    def spent(self, start: int, end: int) -> dict[str, float]:
        (cpu, wall), (cpu_end, wall_end) = self.marks[start], self.marks[end]
        return {"cpu_seconds": cpu_end - cpu, "wall_seconds": wall_end - wall}

    def memory(self) -> dict[str, float]:
        return {"mib": peak_mib() - self.before, "raw_mib": peak_mib()}


def run(jobs: Mapping[str, Callable[[Job], dict[str, Any]]]) -> None:
    """Do the job that the first argument describes; whatever is printed on the way goes to stderr."""
    job: Job = json.loads(sys.argv[1])
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    with redirect_stdout(sys.stderr):
        found = jobs[job["job"]](job)
    print(json.dumps(found | {"load": os.getloadavg()[0]}))  # what else the machine did: it explains wall seconds
