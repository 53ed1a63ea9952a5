"""Correlation within clusters: whether, among the completions of one prompt, the longer one scores higher."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Estimate, Floats, redraws

Ints = NDArray[np.int64]


def within_pearson(x: ArrayLike, y: ArrayLike, clusters: ArrayLike, *, draws: int = 500, seed: int = 0) -> Estimate:
    """Pearson's correlation of what is left of x and y when the mean of their cluster is taken off.

    Whole clusters are redrawn. Where x or y never differs inside a cluster the correlation is 0, and nothing is known.
    """
    member, n_clusters = _numbered(clusters)
    a, b = (_centred(np.asarray(values, dtype=float), member, n_clusters) for values in (x, y))
    sums = np.stack([np.bincount(member, product, n_clusters) for product in (a * b, a * a, b * b)], axis=1)
    value = _correlation(sums.sum(0)[None])[0]
    if np.isnan(value) or n_clusters < 2:
        return Estimate(0.0 if np.isnan(value) else float(value), (-1.0, 1.0), len(a))
    random = np.random.default_rng(seed)
    found = np.concatenate([_correlation(counts @ sums) for counts in redraws(random, n_clusters, draws)])
    low, high = np.nanquantile(found, [0.025, 0.975]).tolist()
    return Estimate(float(value), (low, high), len(a))


def within_spearman(x: ArrayLike, y: ArrayLike, clusters: ArrayLike, *, draws: int = 500, seed: int = 0) -> Estimate:
    """As `within_pearson`, of the places that x and y have inside their cluster: only the order counts."""
    member, _ = _numbered(clusters)
    a, b = (ranks_within(np.asarray(values, dtype=float), member) for values in (x, y))
    return within_pearson(a, b, member, draws=draws, seed=seed)


def ranks_within(values: Floats, member: Ints) -> Floats:
    """Places from 1 inside each cluster; equal values share the mean of theirs."""
    order = np.lexsort((values, member))
    cluster, value = member[order], values[order]
    new_cluster = np.concatenate([[True], cluster[1:] != cluster[:-1]])
    new_value = new_cluster | np.concatenate([[True], value[1:] != value[:-1]])
    place = np.arange(len(order)) - np.flatnonzero(new_cluster)[np.cumsum(new_cluster) - 1] + 1.0
    tied = np.cumsum(new_value) - 1
    ranks = np.empty(len(order))
    ranks[order] = (np.bincount(tied, place) / np.bincount(tied))[tied]
    return ranks


def _centred(values: Floats, member: Ints, n: int) -> Floats:
    assert values.shape == member.shape and np.isfinite(values).all()
    means = np.bincount(member, values, n) / np.bincount(member, minlength=n)
    rest: Floats = values - means[member]
    rest[np.abs(rest) <= 1e-12 * np.abs(values)] = 0.0  # rounding of equal values
    return rest


def _correlation(sums: Floats) -> Floats:
    """From rows of (sum of xy, sum of xx, sum of yy); NaN where one of the two does not vary."""
    below = np.sqrt(sums[:, 1] * sums[:, 2])
    ratio: Floats = np.divide(sums[:, 0], below, out=np.full(len(sums), np.nan), where=below > 0)
    return ratio


def _numbered(clusters: ArrayLike) -> tuple[Ints, int]:
    different, member = np.unique(np.asarray(clusters), return_inverse=True)
    return member.astype(np.int64), len(different)
