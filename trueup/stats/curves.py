"""Best-of-n and over-optimisation: how much a proxy score is worth as optimisation goes on.

Gao, Schulman, Hilton 2022 (arXiv 2210.10760): with d = sqrt(KL(policy || initial)), the true score of best-of-n
follows d (a - b d), that of reinforcement learning d (a - b ln d).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import ArrayLike

from .intervals import Floats


def best_of_n_kl(n: int) -> float:
    """Upper bound of KL(best-of-n || one sample) in nats: ln n - (n - 1)/n; reached when no two samples tie."""
    assert n >= 1
    return log(n) - (n - 1) / n


def best_of_n_mean(proxy: ArrayLike, gold: ArrayLike, n: int) -> float:
    """Expected gold score of the sample with the highest proxy score among n, from N >= n samples a prompt.

    Unbiased: averages over all subsets of n instead of drawing some. Rows are prompts; tied samples share their weight.
    """
    by_proxy, score = np.atleast_2d(np.asarray(proxy, dtype=float)), np.atleast_2d(np.asarray(gold, dtype=float))
    samples = by_proxy.shape[1]
    assert by_proxy.shape == score.shape and 1 <= n <= samples
    return float(np.mean([weights @ row for weights, row in zip(chances_of_best(by_proxy, n), score, strict=True)]))


def chances_of_best(proxy: Floats, n: int) -> list[Floats]:
    """The probability that each sample has the highest proxy score among n of its row."""
    samples = proxy.shape[1]
    # all_below[k]: the chance that n samples all come from the k lowest, C(k, n) / C(samples, n)
    k, i = np.arange(samples + 1)[:, None], np.arange(n)
    all_below = np.prod(np.maximum(k - i, 0) / (samples - i), axis=1)
    weights = []
    for row in proxy:
        ordered = np.sort(row)
        below, up_to = np.searchsorted(ordered, row, "left"), np.searchsorted(ordered, row, "right")
        weights.append((all_below[up_to] - all_below[below]) / (up_to - below))
    return weights


@dataclass(frozen=True, slots=True)
class BestOfNFit:
    """R(d) = d (a - b d)."""

    a: float
    b: float
    residual: float  # root mean square, in units of the score

    @property
    def peak(self) -> float | None:
        """The d at which the score is highest; None when the fit never turns down."""
        return self.a / (2 * self.b) if self.b > 0 and self.a > 0 else None

    def at(self, d: ArrayLike) -> Floats:
        x = np.asarray(d, dtype=float)
        return x * (self.a - self.b * x)


LATE = 100.0  # e to that many roots of nats


@dataclass(frozen=True, slots=True)
class RlFit:
    """R(d) = d (a - b ln d)."""

    a: float
    b: float
    residual: float

    @property
    def peak(self) -> float | None:
        """None where it never turns, which at any distance that has a name is the same as very late."""
        return exp(self.a / self.b - 1) if self.b > 0 and self.a / self.b < LATE else None

    def at(self, d: ArrayLike) -> Floats:
        x = np.asarray(d, dtype=float)
        return x * self.a - self.b * _d_log_d(x)


def fit_best_of_n(d: ArrayLike, score: ArrayLike) -> BestOfNFit:
    """Least squares over points (d, gain over the initial policy); at least two different d above 0."""
    x = np.asarray(d, dtype=float)
    return BestOfNFit(*_least_squares(x, np.stack([x, -x * x], axis=1), score))


def fit_rl(d: ArrayLike, score: ArrayLike) -> RlFit:
    """As `fit_best_of_n`, for points along a reinforcement learning run."""
    x = np.asarray(d, dtype=float)
    return RlFit(*_least_squares(x, np.stack([x, -_d_log_d(x)], axis=1), score))


def _least_squares(d: Floats, columns: Floats, score: ArrayLike) -> tuple[float, float, float]:
    gain = np.asarray(score, dtype=float)
    assert d.shape == gain.shape and (d >= 0).all() and len(np.unique(d[d > 0])) >= 2
    (a, b), *_ = np.linalg.lstsq(columns, gain, rcond=None)
    return float(a), float(b), float(np.sqrt(np.mean((columns @ [a, b] - gain) ** 2)))


def _d_log_d(d: Floats) -> Floats:
    """d ln d, which goes to 0 with d."""
    return np.where(d > 0, d * np.log(np.where(d > 0, d, 1.0)), 0.0)
