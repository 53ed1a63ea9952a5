"""How often A beats B on the same prompts: ties count half, with an interval and a sign test."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, comb
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .intervals import Floats, Interval, bootstrap_mean, wilson

_EXACT = 1000  # up to here the sign test counts in whole numbers


@dataclass(frozen=True, slots=True)
class WinRate:
    value: float
    ci: Interval
    n: int
    wins: int
    ties: int
    losses: int
    p_value: float

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "ci": list(self.ci),
            "n": self.n,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "p_value": self.p_value,
        }


def winrate(
    score_a: ArrayLike,
    score_b: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    tolerance: float = 0.0,
    level: float = 0.95,
    seed: int = 0,
) -> WinRate:
    """Share of pairs in which A scores higher; scores closer than `tolerance` tie.

    With `clusters` (the prompt of each pair) the interval redraws prompts, and the sign test counts prompts, not pairs.
    """
    a, b = np.asarray(score_a, dtype=float), np.asarray(score_b, dtype=float)
    assert a.shape == b.shape and a.ndim == 1 and len(a) > 0 and np.isfinite(a).all() and np.isfinite(b).all()
    signs = np.where(np.abs(a - b) <= tolerance, 0, np.sign(a - b))
    points = (signs + 1) / 2
    wins, losses = int((signs > 0).sum()), int((signs < 0).sum())
    if clusters is None:
        ci, p_value = wilson(float(points.sum()), len(a), level), sign_test(wins, losses)
    else:
        low, high = bootstrap_mean(points, clusters, level=level, seed=seed)
        ci, p_value = (max(low, 0.0), min(high, 1.0)), _clustered_sign_test(signs, clusters)
    return WinRate(float(points.mean()), ci, len(a), wins, len(a) - wins - losses, losses, p_value)


def pairs_to_settle(rate: WinRate, level: float = 0.95) -> int | None:
    """How many pairs more would put a half outside the interval, if the rate stayed what it is; 0 if it is outside.

    None where no number would: at exactly a half. Pairs that hang together, by prompt, count for as much as they do in
    the rate's own interval.
    """
    if not rate.ci[0] <= 0.5 <= rate.ci[1]:
        return 0
    if rate.value == 0.5:
        return None
    low, high = wilson(rate.value * rate.n, rate.n, level)
    worth = min(1.0, (high - low) / (rate.ci[1] - rate.ci[0])) ** 2  # of a pair, beside an independent one
    z = NormalDist().inv_cdf(0.5 + level / 2)
    off = abs(rate.value - 0.5)
    independent = z * z / 4 / (off * off)  # where Wilson's interval ends at a half
    return max(1, ceil(independent / worth) - rate.n)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact probability of a split at least this uneven, if each side were as likely; ties left out."""
    n, fewer = wins + losses, min(wins, losses)
    if n <= _EXACT:
        ways: int = sum(comb(n, k) for k in range(fewer + 1))
        return min(1.0, float(2 * ways / 2**n))
    k = np.arange(1, fewer + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log((n - k + 1) / k))]) - n * np.log(2)
    total = float(np.exp(logs).sum())
    return min(1.0, 2 * total)


def _clustered_sign_test(signs: Floats, clusters: ArrayLike) -> float:
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    balance = np.bincount(member, weights=signs)
    return sign_test(int((balance > 0).sum()), int((balance < 0).sum()))
