"""Rank correlation over rows that hang together in clusters: whether more of one thing goes with more of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .intervals import Estimate, Floats, redraws


def rank_correlation(
    x: ArrayLike, y: ArrayLike, clusters: ArrayLike, *, draws: int = 500, seed: int = 0
) -> Estimate | None:
    """Spearman's, over all rows, with the interval of whole clusters redrawn (places stay those of the whole sample).

    None where x or y never differs. With fewer than two clusters the interval is everything.
    """
    a, b = (_centred_ranks(np.asarray(values, dtype=float)) for values in (x, y))
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    assert a.shape == b.shape == member.shape and len(a)
    k = int(member.max()) + 1
    sums = np.stack([np.bincount(member, each, k) for each in (np.ones_like(a), a, b, a * b, a * a, b * b)], axis=1)
    value = float(_correlation(sums.sum(0)[None])[0])
    if np.isnan(value):
        return None
    if k < 2:
        return Estimate(value, (-1.0, 1.0), len(a))
    found = [_correlation(counts @ sums) for counts in redraws(np.random.default_rng(seed), k, draws)]
    low, high = np.nanquantile(np.concatenate(found), [0.025, 0.975]).tolist()
    return Estimate(value, (low, high), len(a))


def _centred_ranks(values: Floats) -> Floats:
    """Places from the lowest; equal values share the mean of theirs. Centred, so that sums of squares keep digits."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[where]
    centred: Floats = ranks - ranks.mean()
    return centred


def _correlation(sums: Floats) -> Floats:
    """From rows of (n, x, y, xy, xx, yy); NaN where one of the two does not vary."""
    n, x, y, xy, xx, yy = sums.T
    below = np.sqrt(np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0))
    ratio: Floats = np.divide(xy - x * y / n, below, out=np.full(len(n), np.nan), where=below > 0)
    return ratio
