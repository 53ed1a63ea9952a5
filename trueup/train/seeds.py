"""Every random choice is a function of the run's seed, its purpose and the step: nothing to save or restore."""

from __future__ import annotations

import random
from typing import Any


def seed_of(config: Any, purpose: str, step: int) -> int:
    return random.Random(f"{config.run.seed}/{purpose}/{step}").getrandbits(63)
