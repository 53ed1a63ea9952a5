"""How long each completion of a rollout is to be: a function of the seed, so that both sides write the same lengths.

Geometric, as where a model ends with the same probability at every token, and cut to a range. Nothing but the standard
library: other environments read this file too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALIKE = 0.05  # by how much two sides' lengths may differ, as a share


@dataclass(frozen=True)
class Natural:
    """Lengths as an end at every token would give them."""

    mean: float = 30.0
    low: int = 5
    high: int = 128

    def lengths(self, seed: int, iteration: int, rows: int) -> list[int]:
        chance = random.Random(f"{seed}/{iteration}")
        stays = math.log(1 - 1 / self.mean)
        drawn = (math.ceil(math.log(1 - chance.random()) / stays) for _ in range(rows))
        return [min(max(length, self.low), self.high) for length in drawn]


def forced(natural: dict[str, float] | None, length: int, seed: int, iteration: int, rows: int) -> list[int]:
    """Of one rollout: natural ones, or all of the same length."""
    return Natural(**natural).lengths(seed, iteration, rows) if natural else [length] * rows  # type: ignore[arg-type]


def part(told: Mapping[str, Any], rows: int, done: int, count: int) -> list[int]:
    """Of the next `count` rows, after `done` in all: a rollout may be written in several parts."""
    lengths = forced(told["natural"], told["new_tokens"], told["seed"], done // rows, rows)
    return lengths[done % rows : done % rows + count]


def histogram(lengths: Sequence[int], width: int = 16) -> dict[str, int]:
    """How many lie in each range of `width` tokens."""
    found: dict[int, int] = {}
    for length in lengths:
        found[(length - 1) // width] = found.get((length - 1) // width, 0) + 1
    return {f"{i * width + 1}-{(i + 1) * width}": found[i] for i in sorted(found)}


def apart(one: Sequence[int], other: Sequence[int]) -> float:
    """How far two sets of lengths lie apart: of the mean or of the histogram, whichever differs more, as a share."""
    if not one or not other:
        return float(bool(one) != bool(other))
    means = [sum(each) / len(each) for each in (one, other)]
    shares = [{name: n / len(each) for name, n in histogram(each).items()} for each in (one, other)]
    moved = sum(abs(shares[0].get(name, 0) - shares[1].get(name, 0)) for name in shares[0].keys() | shares[1]) / 2
    return max(abs(means[0] - means[1]) / means[1], moved)
