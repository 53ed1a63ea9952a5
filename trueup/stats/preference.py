"""Scores against judgements, and the best that any scorer could do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..records import Judgement
from .intervals import Estimate, Floats, bootstrap_mean, wilson


def judged_pairs(
    judgements: Sequence[Judgement], scores: Sequence[Sequence[float]]
) -> tuple[Floats, Floats, list[str]]:
    """Every judged pair as (score difference, target, prompt id), ready for `accuracy`.

    `scores[k][i]` is the score of `judgements[k].completions[i]`. A target is 1, 0, or 0.5 for a tie.
    """
    rows = [
        (score[i] - score[j], target, judgement.prompt.id)
        for judgement, score in zip(judgements, scores, strict=True)
        for i, j, target in judgement.pairs()
    ]
    margins, targets, prompts = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(margins, dtype=float), np.array(targets, dtype=float), list(prompts)


def pair_accuracy(score_i: ArrayLike, score_j: ArrayLike, target: ArrayLike) -> Floats:
    """For each pair 1 when the scores agree with the judgement, 0 when they disagree, a half for a tie on either side.

    `target` is the probability that i is better. A scorer that gives everything one score gets exactly a half.
    """
    first, second = np.asarray(score_i, dtype=float), np.asarray(score_j, dtype=float)
    judged = np.asarray(target, dtype=float)
    assert first.shape == second.shape == judged.shape and np.isfinite(first).all() and np.isfinite(second).all()
    points: Floats = (np.sign(first - second) * np.sign(judged - 0.5) + 1) / 2
    return points


def accuracy(margins: ArrayLike, targets: ArrayLike, clusters: ArrayLike | None = None, *, seed: int = 0) -> Estimate:
    """Mean `pair_accuracy` over the pairs that were judged better or worse; `n` counts these.

    A judged tie has no right answer: with it, no scorer could reach the `ceiling`. `clusters` is the prompt of each
    pair: pairs of one hang together. Without any pair the answer is a half, with an interval of all from 0 to 1.
    """
    margin, target = np.asarray(margins, dtype=float), np.asarray(targets, dtype=float)
    counted = target != 0.5
    points = pair_accuracy(margin, np.zeros_like(margin), target)[counted]
    if not len(points):
        return Estimate(0.5, (0.0, 1.0), 0)
    return _share(points, None if clusters is None else np.asarray(clusters)[counted], seed)


def ceiling(p: ArrayLike, clusters: ArrayLike | None = None, *, seed: int = 0) -> Estimate:
    """Expected accuracy of the best scorer when the first completion wins with probability `p`: mean(max(p, 1 - p))."""
    chance = np.asarray(p, dtype=float)
    assert len(chance) and ((chance >= 0) & (chance <= 1)).all()
    best = np.maximum(chance, 1 - chance)
    low, high = bootstrap_mean(best, clusters, seed=seed)
    return Estimate(float(best.mean()), (max(low, 0.5), min(high, 1.0)), len(best))


def _share(points: Floats, clusters: ArrayLike | None, seed: int) -> Estimate:
    """A mean of zeros, halves and ones: Wilson's interval, or redrawn clusters where rows are not independent."""
    if clusters is None:
        ci = wilson(float(points.sum()), len(points))
    else:
        low, high = bootstrap_mean(points, clusters, seed=seed)
        ci = max(low, 0.0), min(high, 1.0)
    return Estimate(float(points.mean()), ci, len(points))
