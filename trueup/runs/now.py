"""What a run is doing at this moment, for whoever looks from outside; and a word from them: stop.

Two small files in its folder, `now.json` and `stop`. A run reads and writes them between steps, so it needs no port and
no signal: whoever can read the workspace can watch it, from another process or another container.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..process import gpu_mib, peak_mib, resident_mib
from .progress import Meter, listeners, meters

EVERY = 1.0  # seconds between two looks: a step may take a millisecond


class Now:
    """The run's side. Nothing of it is kept: both files go when the run ends, and neither may ever end it."""

    def __init__(self, folder: Path, asked: Callable[[], None]) -> None:
        """`asked` is called once somebody wants the run to stop."""
        self._file, self._stop, self._asked = folder / "now.json", folder / "stop", asked
        self._before = len(meters)  # what was going on around the run is not its own progress
        self._looked, self._cpu = -EVERY, time.process_time()
        self._stop.unlink(missing_ok=True)
        listeners.append(self._look)
        self._write(time.monotonic(), ())

    def close(self) -> None:
        if self._look in listeners:
            listeners.remove(self._look)
        for path in (self._file, self._stop):
            path.unlink(missing_ok=True)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < EVERY:
            return
        self._write(now, meters[self._before :])
        if self._stop.exists():
            self._asked()

    def _write(self, now: float, going_on: Sequence[Meter]) -> None:
        cpu = time.process_time()
        told = {
            "pid": os.getpid(),
            "at": time.time(),
            "meters": [_told(meter) for meter in going_on],
            "cores": round((cpu - self._cpu) / (now - self._looked), 2) if going_on else None,
            "mib": round(resident_mib()),
            "peak_mib": round(peak_mib()),
            "gpu_mib": gpu_mib(),
        }
        self._looked, self._cpu = now, cpu
        draft = self._file.with_suffix(".new")
        try:
            draft.write_text(json.dumps(told))
            draft.replace(self._file)
        except OSError:  # a full disk: what the run itself must write will say so
            draft.unlink(missing_ok=True)


def _told(meter: Meter) -> dict[str, Any]:
    left = meter.left
    return {
        "label": meter.label,
        "done": meter.done,
        "total": meter.total,
        "rate": round(meter.rate, 6),
        "left": None if left is None else round(left, 3),
    }


def read_now(folder: Path) -> dict[str, Any] | None:
    """What the run said last, and None of one that says nothing. Believe it of a run that lives, and of no other."""
    try:
        told = json.loads((folder / "now.json").read_bytes())
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def ask_to_stop(folder: Path) -> None:
    (folder / "stop").touch()


def stop_is_asked(folder: Path) -> bool:
    return (folder / "stop").exists()
