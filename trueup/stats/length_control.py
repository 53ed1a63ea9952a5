"""A win rate as it would be if both sides wrote answers of the same length (the idea of arXiv 2404.04475).

Longer answers win more often, whatever they say. A logistic regression of who won on the difference in length tells the
two apart: its constant is the answer, its slope what length was worth. Ties are half a win.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .intervals import Floats, Interval

RIDGE = 0.1  # of the normal prior on both numbers: a side that never lost is not infinitely good
_STEPS = 50


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """`value` is the share of wins between answers of equal length; `slope` by how much the log odds of a win rise when
    the other side's answer is of no length at all."""

    value: float
    ci: Interval
    slope: float
    slope_ci: Interval
    n: int

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "ci": list(self.ci),
            "slope": self.slope,
            "slope_ci": list(self.slope_ci) if np.isfinite(self.slope_ci).all() else None,
            "n": self.n,
        }


def longer(length_a: ArrayLike, length_b: ArrayLike) -> Floats:
    """How much longer each answer of A is than B's, as a share of both: from -1 to 1, 0 where both are empty."""
    a, b = np.asarray(length_a, dtype=float), np.asarray(length_b, dtype=float)
    assert a.shape == b.shape and (a >= 0).all() and (b >= 0).all()
    both = a + b
    difference: Floats = np.divide(a - b, both, out=np.zeros_like(both), where=both > 0)
    return difference


def length_controlled(
    points: ArrayLike, longer: ArrayLike, clusters: ArrayLike | None = None, *, level: float = 0.95
) -> LengthControlled:
    """`points` are 1 where A won, 0 where B did and a half for a tie; `clusters` the prompt of each pair.

    The interval is the wider of two: what the regression itself knows, which is little where A was longer in every
    pair, and what the spread between prompts tells.
    """
    won, difference = np.asarray(points, dtype=float), np.asarray(longer, dtype=float)
    assert won.shape == difference.shape and won.ndim == 1 and len(won) > 0
    assert np.isin(won, (0, 0.5, 1)).all() and (np.abs(difference) <= 1).all()
    design = np.stack([np.ones_like(difference), difference], 1)
    found = _fit(design, won)
    chance = _share(design @ found)
    known = np.linalg.inv(_curvature(design, chance))
    _, member = np.unique(np.arange(len(won)) if clusters is None else np.asarray(clusters), return_inverse=True)
    n = int(member.max()) + 1
    pull = np.stack([np.bincount(member, (won - chance) * each, n) for each in design.T], 1)
    between = known @ (pull.T @ pull) @ known * n / max(1, n - 1)
    spread = np.sqrt(np.maximum(np.diag(known), np.diag(between)))
    ends = NormalDist().inv_cdf(0.5 + level / 2) * spread if n > 1 else np.full(2, np.inf)
    low, high = found - ends, found + ends
    share = _share(np.array([found[0], low[0], high[0]]))
    return LengthControlled(
        float(share[0]), (float(share[1]), float(share[2])), float(found[1]), (float(low[1]), float(high[1])), len(won)
    )


def _share(log_odds: Floats) -> Floats:
    found: Floats = np.exp(-np.logaddexp(0, -log_odds))
    return found


def _curvature(design: Floats, chance: Floats) -> Floats:
    found: Floats = (design.T * (chance * (1 - chance))) @ design + RIDGE * np.eye(2)
    return found


def _fit(design: Floats, won: Floats) -> Floats:
    """Newton's method for constant and slope; concave, and with the prior never flat. Steps are cut where the curve is
    too flat to know."""
    found = np.zeros(2)
    for _ in range(_STEPS):
        chance = _share(design @ found)
        step = np.linalg.solve(_curvature(design, chance), design.T @ (won - chance) - RIDGE * found)
        found = found + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-9:
            break
    return found
