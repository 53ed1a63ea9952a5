"""Memory of this process, for programs that run in other environments too: the standard library alone."""

from __future__ import annotations

import resource
import sys


def peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def resident_mib() -> float:
    """What it holds now; where the system does not tell, the most it ever held."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))
    except FileNotFoundError:
        return peak_mib()
