"""Ratings of models from votes on their completions: Bradley-Terry on counts, with intervals that redraw whole prompts
and whole judges, and the same with the difference in length taken out.

Votes of one judge hang together, and so do votes on one prompt. Intervals that redraw single votes are too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from .aggregation import components_of
from .agreement import Ints, numbered
from .intervals import Floats

MIDDLE, POINTS = 1000.0, 400.0  # the mean of a component, and what odds of ten to one are worth
PRIOR = 0.1  # precision of strengths around their mean: whoever never lost is not infinitely strong
TWICE_AS_LONG = 1 / 3  # as a difference over the sum
BINS = 20  # of the difference in length, to each side: votes are counted, not kept one by one

_DRAWS, _FEWEST_DRAWS, _MOST_WEIGHED = 1000, 200, 2 * 10**8
_NEWTON_STEPS = 100


@dataclass(frozen=True, slots=True)
class Contests:
    """One row a vote between two models: who stood first and second, what the first got (1, 0, or 0.5 for a tie), on
    which prompt, by whom, and how much longer the first was: its words less the other's, over the sum of both."""

    first: Ints
    second: Ints
    points: Floats
    prompt: Ints
    judge: Ints
    longer: Floats

    def __post_init__(self) -> None:
        assert (self.first != self.second).all() and np.isin(self.points, (0, 0.5, 1)).all()
        assert (np.abs(self.longer) <= 1).all()

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True)
class Rating:
    """`rank` is one more than the models of the same component that are surely better: that stay above whatever is
    redrawn, a share `level` of the time. Two models may be told apart though their intervals overlap, since a redraw
    moves both. Without redraws nobody is surely better, and all are first."""

    model: int
    value: float
    low: float | None
    high: float | None
    n: int
    rank: int
    component: int


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The best first, component by component. `length`, where it was taken out: how many points of rating an answer
    gained by being twice as long as the other, and the interval of that."""

    ratings: tuple[Rating, ...]
    components: int
    length: tuple[float, float | None, float | None] | None


def leaderboard(
    contests: Contests, *, length: bool = False, draws: int = _DRAWS, level: float = 0.95, seed: int = 0
) -> Leaderboard:
    """Ratings of all models that met another. With `length` the difference in words is a covariate: ratings are then
    those of answers of equal length."""
    models, place = np.unique(np.concatenate([contests.first, contests.second]), return_inverse=True)
    n = len(models)
    first, second = place[: len(contests)], place[len(contests) :]
    parts, groups = components_of(np.stack([first, second], axis=1), n)
    cells, row = _cells(first, second, contests.longer if length else np.zeros(len(contests)), n)
    design = _design(cells, n, length)

    def fitted(weight: Floats, start: Floats) -> Floats:
        played, won = (np.bincount(row, w, len(cells)) for w in (weight, weight * contests.points))
        return _fit(design, won.astype(np.float64), played.astype(np.float64), start)

    def rated(found: Floats) -> Floats:
        strength = found[:n]
        means = np.bincount(parts, strength, len(groups)) / np.bincount(parts, minlength=len(groups))
        return MIDDLE + POINTS / log(10) * (strength - means[parts])

    best = fitted(np.ones(len(contests)), np.zeros(design.shape[1]))
    draws = min(draws, max(_FEWEST_DRAWS, _MOST_WEIGHED // max(1, len(contests)))) if draws else 0
    redrawn = [fitted(weight, best) for weight in _redraws(contests, draws, seed)]
    drawn = [rated(each) for each in redrawn]
    low, high = _bounds(drawn, level)
    votes = np.bincount(first, minlength=n) + np.bincount(second, minlength=n)
    ratings = _ranked(models, rated(best), low, high, votes, parts, _surely_above(drawn, n, level))
    slope = None
    if length:
        below, above = _bounds([each[n:] for each in redrawn], level)
        scale = POINTS / log(10) * TWICE_AS_LONG
        ends = [None if end is None else float(end[0] * scale) for end in (below, above)]
        slope = (float(best[n] * scale), ends[0], ends[1])
    return Leaderboard(ratings, len(groups), slope)


def most_a_day(judge: Ints, day: Ints, most: int) -> NDArray[np.bool_]:
    """The first `most` rows of each judge on each day, in the order in which they stand: nobody decides alone."""
    key = numbered(judge)[0] * (int(day.max(initial=0)) - int(day.min(initial=0)) + 1) + day - day.min(initial=0)
    order = np.argsort(key, kind="stable")
    grouped = key[order]
    starts = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]])) if len(key) else np.zeros(0, int)
    place = np.arange(len(key)) - np.repeat(starts, np.diff(np.append(starts, len(key))))
    kept = np.zeros(len(key), dtype=bool)
    kept[order] = place < most
    return kept


def _cells(first: Ints, second: Ints, longer: Floats, n: int) -> tuple[Ints, Ints]:
    """The different rows (first, second, difference in length), and which of them each vote is in."""
    width = 2 * BINS + 1
    bins = np.round(longer * BINS).astype(np.int64) + BINS
    keys, row = np.unique((first * n + second) * width + bins, return_inverse=True)
    return np.stack([keys // width // n, keys // width % n, keys % width - BINS], axis=1), row


def _design(cells: Ints, n: int, length: bool) -> Floats:
    design = np.zeros((len(cells), n + length))
    at = np.arange(len(cells))
    design[at, cells[:, 0]] = 1
    design[at, cells[:, 1]] = -1
    if length:
        design[:, n] = cells[:, 2] / BINS
    return design


def _fit(design: Floats, won: Floats, played: Floats, start: Floats) -> Floats:
    """Newton's method for a logistic regression with a normal prior; concave, so halved steps always arrive."""

    def value(at: Floats) -> float:
        score = design @ at
        return float(won @ score - played @ np.logaddexp(0, score) - PRIOR / 2 * at @ at)

    found, now = start, value(start)
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(design @ found)))
        gradient = design.T @ (won - played * chance) - PRIOR * found
        curvature = (design.T * (played * chance * (1 - chance))) @ design + PRIOR * np.eye(len(found))
        step = np.linalg.solve(curvature, gradient)
        if np.abs(step).max(initial=0.0) < 1e-8:
            break
        size = 1.0
        while (after := value(found + size * step)) < now and size > 1e-6:
            size /= 2
        found, now = found + size * step, after
    return found


def _redraws(contests: Contests, draws: int, seed: int) -> Iterator[Floats]:
    """How often each vote comes when prompts and judges are drawn anew, each on their own: the product of both. One
    judge alone, or one prompt, says nothing about others and is not redrawn."""
    random = np.random.default_rng(seed)
    sides = [(member, n) for member, n in (numbered(contests.prompt), numbered(contests.judge)) if n > 1]
    for _ in range(draws if sides else 0):
        weight = np.ones(len(contests))
        for member, n in sides:
            weight *= np.bincount(random.integers(0, n, n), minlength=n)[member]
        yield weight


def _bounds(redrawn: list[Floats], level: float) -> tuple[Floats | None, Floats | None]:
    if not redrawn:
        return None, None
    low, high = np.quantile(np.array(redrawn), [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return low, high


def _surely_above(drawn: list[Floats], n: int, level: float) -> NDArray[np.bool_]:
    """(n, n): whether the model of the row is above that of the column, beyond what redraws say of their difference."""
    if not drawn:
        return np.zeros((n, n), dtype=bool)
    ratings = np.array(drawn)
    found = [np.quantile(ratings[:, [i]] - ratings, 0.5 - level / 2, axis=0) > 0 for i in range(n)]
    return np.array(found)


def _ranked(
    models: Ints, value: Floats, low: Floats | None, high: Floats | None, votes: Ints, parts: Ints,
    above: NDArray[np.bool_],
) -> tuple[Rating, ...]:  # fmt: skip
    """The largest component first, in it the highest rating."""
    sizes = np.bincount(parts)
    component = {int(part): i for i, part in enumerate(np.argsort(-sizes, kind="stable"))}
    found = [
        Rating(
            int(models[i]),
            float(value[i]),
            None if low is None else float(low[i]),
            None if high is None else float(high[i]),
            int(votes[i]),
            1 + int((above[:, i] & (parts == parts[i])).sum()),
            component[int(parts[i])],
        )
        for i in range(len(models))
    ]
    return tuple(sorted(found, key=lambda each: (each.component, -each.value, each.model)))
