"""Memory of this process, for programs that run in other environments too: `trueup.process` needs no other package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # TRL's own environment has no trueup

from trueup.process import peak_mib, resident_mib  # noqa: E402

__all__ = ["peak_mib", "resident_mib"]
