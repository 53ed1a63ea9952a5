"""Two scorers on the same judged pairs: which foresees more, and could it be luck?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .intervals import Estimate, bootstrap_mean
from .preference import pair_accuracy
from .winrate import sign_test


@dataclass(frozen=True, slots=True)
class Paired:
    """The accuracy of A minus that of B. `only_a` pairs A foresaw better than B, `only_b` the other way round."""

    difference: Estimate
    a: float
    b: float
    only_a: int
    only_b: int
    p_value: float

    def to_json(self) -> dict[str, Any]:
        return {
            "difference": self.difference.to_json(),
            "a": self.a,
            "b": self.b,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "p_value": self.p_value,
        }


def compare_accuracy(
    margins_a: ArrayLike, margins_b: ArrayLike, targets: ArrayLike, clusters: ArrayLike, *, seed: int = 0
) -> Paired:
    """Difference on the pairs that were judged better or worse: whole prompts (`clusters`) are redrawn with both.

    McNemar's test counts pairs. Where a prompt has many, trust the interval: it knows that they hang together.
    """
    a, b, target = (np.asarray(rows, dtype=float) for rows in (margins_a, margins_b, targets))
    counted = target != 0.5
    assert counted.any(), "no pair was judged better or worse"
    zero = np.zeros(int(counted.sum()))
    points_a, points_b = (pair_accuracy(rows[counted], zero, target[counted]) for rows in (a, b))
    apart = points_a - points_b
    low, high = bootstrap_mean(apart, np.asarray(clusters)[counted], seed=seed)
    only_a, only_b = int((apart > 0).sum()), int((apart < 0).sum())
    difference = Estimate(float(apart.mean()), (max(low, -1.0), min(high, 1.0)), len(apart))
    return Paired(
        difference, float(points_a.mean()), float(points_b.mean()), only_a, only_b, mcnemar_exact(only_a, only_b)
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided chance of a split at least this uneven among the pairs on which two scorers differ, were they equal."""
    return sign_test(only_a, only_b)
