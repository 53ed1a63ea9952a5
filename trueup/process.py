"""What this process has taken of the machine's memory, by the system's own count. The standard library alone."""

from __future__ import annotations

import resource
import sys


def peak_mib() -> float:
    """The most it ever held. Linux counts what its parent held into `ru_maxrss`, so that is asked only elsewhere."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or peak / (2**20 if sys.platform == "darwin" else 2**10)


def resident_mib() -> float:
    """What it holds now; where the system does not tell, the most it ever held."""
    return _status("VmRSS") or peak_mib()


def gpu_mib() -> int | None:
    """What this process has taken on its GPU, if it has taken anything. Loads nothing: who uses one has torch."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.memory_reserved() / 2**20)


def _status(key: str) -> float | None:
    try:
        with open("/proc/self/status") as file:
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith(key)), None)
    except FileNotFoundError:
        return None
