"""Scores against judgements, judges against each other, and the best that any scorer could do."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from ..records import Judgement
from .intervals import Estimate, Floats, bootstrap_mean, wilson

_NEWTON_STEPS = 100


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


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two judges of one item agree: over all, and for each two judges with the number of shared items."""

    overall: Estimate
    pairs: Mapping[tuple[str, str], tuple[float, int]]


def agreement(
    items: Sequence[Hashable], judges: Sequence[str], verdicts: ArrayLike, *, seed: int = 0
) -> Agreement | None:
    """Percent agreement over all items that two judges share; a tie agrees by half with either side.

    One row a verdict: 1 (the first is better), 0 (the second is), 0.5. None when no two judges share an item. A judge's
    repeated verdicts on an item are averaged.
    """
    table, names = _verdict_table(items, judges, np.asarray(verdicts, dtype=float))
    points, clusters, pairs = [], [], {}
    for a, b in combinations(range(len(names)), 2):
        shared = np.flatnonzero(~np.isnan(table[a]) & ~np.isnan(table[b]))
        agreed = 1 - np.abs(table[a, shared] - table[b, shared])
        if len(shared):
            pairs[names[a], names[b]] = (float(agreed.mean()), len(shared))
        points.append(agreed)
        clusters.append(shared)
    if not pairs:
        return None
    return Agreement(_share(np.concatenate(points), np.concatenate(clusters), seed), pairs)


def bradley_terry(wins: ArrayLike, regularisation: float = 0.01) -> Floats:
    """Strengths with mean 0: P(i beats j) = sigmoid(strength_i - strength_j). `wins[i, j]`: how often i beat j.

    A tie is half a win for each. `regularisation` is a Gaussian prior's precision (a penalty of half of it times the
    squared strengths); it must be positive, or someone who never lost would be infinitely strong.
    """
    won = np.asarray(wins, dtype=float)
    k = len(won)
    assert won.shape == (k, k) and (won >= 0).all() and regularisation > 0
    games = won + won.T
    strength: Floats = np.zeros(k)
    for _ in range(_NEWTON_STEPS):
        expected = 1 / (1 + np.exp(-np.clip(strength[:, None] - strength[None, :], -500, 500)))
        gradient = (won - games * expected).sum(1) - regularisation * strength
        weight = games * expected * (1 - expected)
        curvature = np.diag(weight.sum(1)) - weight + regularisation * np.eye(k)
        step = np.linalg.solve(curvature, gradient)
        strength = strength + step / max(1.0, float(np.abs(step).max()))  # a full step may overshoot far from the top
        if np.abs(step).max() < 1e-10:
            break
    centred: Floats = strength - strength.mean()
    return centred


def _share(points: Floats, clusters: ArrayLike | None, seed: int) -> Estimate:
    """A mean of zeros, halves and ones: Wilson's interval, or redrawn clusters where rows are not independent."""
    if clusters is None:
        ci = wilson(float(points.sum()), len(points))
    else:
        low, high = bootstrap_mean(points, clusters, seed=seed)
        ci = max(low, 0.0), min(high, 1.0)
    return Estimate(float(points.mean()), ci, len(points))


def _verdict_table(items: Sequence[Hashable], judges: Sequence[str], verdicts: Floats) -> tuple[Floats, list[str]]:
    """Judges x items, NaN where a judge has not seen an item."""
    assert len(items) == len(judges) == len(verdicts)
    names = sorted(set(judges))
    row = np.array([names.index(judge) for judge in judges], dtype=int)
    place = {item: i for i, item in enumerate(dict.fromkeys(items))}
    column = np.array([place[item] for item in items], dtype=int)
    total, count = np.zeros((len(names), len(place))), np.zeros((len(names), len(place)))
    np.add.at(total, (row, column), verdicts)
    np.add.at(count, (row, column), 1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0), names
