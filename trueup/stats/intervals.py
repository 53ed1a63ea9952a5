"""Intervals: Wilson for shares, the clustered bootstrap for means of anything.

Several completions of one prompt are not independent: give their prompt as the cluster and whole clusters are redrawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import inf, pi, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
Floats = NDArray[np.float64]

_CELLS = 2**20  # redraws are made in blocks of this many numbers (8 MB)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure never travels without its interval and the number it rests on."""

    value: float
    ci: Interval
    n: int

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "ci": list(self.ci), "n": self.n}


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share. `successes` may hold halves, for ties."""
    assert 0 <= successes <= n and 0 < level < 1
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, scale = successes / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # exactly 0 and 1 at the ends, where rounding would leave 1e-17
    return 0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half


def bootstrap_mean(
    values: ArrayLike, clusters: ArrayLike | None = None, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of the mean, whole clusters redrawn. With fewer than two clusters nothing is known."""
    sums, sizes = _by_cluster(values, clusters)
    if len(sums) < 2:
        return -inf, inf
    return _percentiles(_redrawn_means(sums, sizes, draws, seed), level)


def clustered_mean(values: ArrayLike, clusters: ArrayLike, level: float = 0.95) -> Estimate:
    """A mean with Student's interval over clusters: what redrawing them says, at a thousandth of its price."""
    sums, sizes = _by_cluster(values, clusters)
    k, n = len(sums), sizes.sum()
    mean = float(sums.sum() / n)
    if k < 2:
        return Estimate(mean, (-inf, inf), int(n))
    error = sqrt(k / (k - 1) * float(((sums - mean * sizes) ** 2).sum())) / n
    half = student_quantile(k - 1, level) * error
    return Estimate(mean, (float(mean - half), float(mean + half)), int(n))


@cache
@cache
def student_quantile(freedom: int, level: float) -> float:
    """The t for which a share `level` of Student's distribution lies between -t and t.

    With t = sqrt(freedom) tan(angle) its density becomes cos(angle) to the power freedom - 1, which ends at pi / 2.
    """
    assert freedom >= 1 and 0 < level < 1
    angle = np.linspace(0, pi / 2, 400_001)
    density = np.cos(angle) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(sqrt(freedom) * np.tan(np.interp(level, below / below[-1], angle)))


def share(points: Floats, clusters: ArrayLike, *, draws: int = 2000, seed: int = 0) -> dict[str, Any]:
    """A mean of zeros, halves and ones, with both intervals: Wilson's, and clusters redrawn.

    `ci` reaches as far as either: redrawing knows that pairs of a prompt hang together, and Wilson that a hundred
    right answers in a hundred are no proof of perfection.
    """
    n = len(points)
    if not n:
        return {"value": None, "ci": [0.0, 1.0], "wilson": [0.0, 1.0], "clustered": [0.0, 1.0], "n": 0}
    plain = wilson(float(points.sum()), n)
    low, high = bootstrap_mean(points, clusters, draws=draws, seed=seed)
    clustered: Interval = (max(low, 0.0), min(high, 1.0))
    ci = [min(plain[0], clustered[0]), max(plain[1], clustered[1])]
    return {"value": float(points.mean()), "ci": ci, "wilson": list(plain), "clustered": list(clustered), "n": n}


def bootstrap_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters_a: ArrayLike | None = None,
    clusters_b: ArrayLike | None = None,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of mean(a) - mean(b) for independent samples. Paired ones: `bootstrap_mean` of a - b."""
    groups = [_by_cluster(a, clusters_a), _by_cluster(b, clusters_b)]
    if min(len(sums) for sums, _ in groups) < 2:
        return -inf, inf
    seeds = np.random.SeedSequence(seed).generate_state(2).tolist()
    one, other = (_redrawn_means(*group, draws, s) for group, s in zip(groups, seeds, strict=True))
    return _percentiles(one - other, level)


def _by_cluster(values: ArrayLike, clusters: ArrayLike | None) -> tuple[Floats, Floats]:
    """Sum and size of each cluster; without clusters each value is one."""
    array = np.asarray(values, dtype=float)
    assert array.ndim == 1 and np.isfinite(array).all()
    if clusters is None:
        return array, np.ones_like(array)
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    assert member.shape == array.shape
    sums = np.bincount(member, weights=array).astype(np.float64)
    return sums, np.bincount(member).astype(np.float64)


def _redrawn_means(sums: Floats, sizes: Floats, draws: int, seed: int) -> Floats:
    random, k = np.random.default_rng(seed), len(sums)
    return np.concatenate([(c @ sums) / (c @ sizes) for c in redraws(random, k, draws)])


def redraws(random: np.random.Generator, k: int, draws: int) -> Iterator[Floats]:
    """How often each of k clusters is in each redraw: rows of counts that sum to k."""
    block = max(1, _CELLS // k)
    for start in range(0, draws, block):
        rows = min(block, draws - start)
        chosen = random.integers(0, k, size=(rows, k)) + np.arange(rows)[:, None] * k
        yield np.bincount(chosen.ravel(), minlength=rows * k).reshape(rows, k).astype(float)


def _percentiles(values: Floats, level: float) -> Interval:
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2]).tolist()
    return float(low), float(high)
