"""Ratings of models from votes on their completions: Bradley-Terry on counts, with intervals for votes that hang
together, and the same with the difference in length taken out.

Votes of one judge hang together, and so do votes on one prompt: an interval for single votes is too narrow. Redrawing
prompts and judges at once is too wide, for it draws the luck of a single vote three times. So the variance is added up:
that of single votes, and what prompts and what judges add to it (Cameron, Gelbach and Miller 2011).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from .aggregation import components_of
from .agreement import Ints, numbered
from .intervals import Floats, student_quantile

MIDDLE, POINTS = 1000.0, 400.0  # the mean of a component, and what odds of ten to one are worth
PRIOR = 0.1  # precision of strengths around their mean: whoever never lost is not infinitely strong
TWICE_AS_LONG = 1 / 3  # as a difference over the sum
BINS = 20  # of the difference in length, to each side: votes are counted, not kept one by one

POINT = POINTS / log(10)  # points for one unit of log-odds
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
    """`rank` is one more than the models of the same component that are surely better: the interval of their difference
    is above nothing. Two models may be told apart though their own intervals overlap. Of one prompt by one judge there
    are no intervals: nobody is surely better, and all are first."""

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


def leaderboard(contests: Contests, *, length: bool = False, level: float = 0.95) -> Leaderboard:
    """Ratings of all models that met another. With `length` the difference in words is a covariate: ratings are then
    those of answers of equal length."""
    models, place = np.unique(np.concatenate([contests.first, contests.second]), return_inverse=True)
    n = len(models)
    first, second = place[: len(contests)], place[len(contests) :]
    parts, groups = components_of(np.stack([first, second], axis=1), n)
    cells, row = _cells(first, second, contests.longer if length else np.zeros(len(contests)), n)
    design = _design(cells, n, length)

    played, won = (np.bincount(row, w, len(cells)) for w in (np.ones(len(contests)), contests.points))
    best = _fit(design, won.astype(np.float64), played.astype(np.float64), np.zeros(design.shape[1]))
    means = np.bincount(parts, best[:n], len(groups)) / np.bincount(parts, minlength=len(groups))
    value = MIDDLE + POINT * (best[:n] - means[parts])
    noise = _noise(contests, design, row, best)
    centred = np.eye(n) - (parts[:, None] == parts) / np.bincount(parts, minlength=len(groups))[parts]
    half = None if noise is None else noise.along(POINT * np.pad(centred, ((0, 0), (0, int(length))))).half(level)
    votes = np.bincount(first, minlength=n) + np.bincount(second, minlength=n)
    ratings = _ranked(models, value, half, votes, parts, _surely_above(value, noise, n, level))
    slope = None
    if length:
        scale = POINT * TWICE_AS_LONG
        at = float(best[n] * scale)
        ends = noise.along(scale * np.eye(n + 1)[[n]]).half(level) if noise else None
        slope = (at, None, None) if ends is None else (at, at - float(ends[0]), at + float(ends[0]))
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


@dataclass(frozen=True, slots=True)
class _Noise:
    """Covariances of what was fitted: of single votes, and with the votes of one cluster taken as one, each with how
    many clusters there are. One judge alone, or one prompt, says nothing about others and is no cluster."""

    votes: Floats
    clustered: tuple[tuple[Floats, int], ...]

    def along(self, directions: Floats) -> _Variances:
        def of(covariance: Floats) -> Floats:
            found: Floats = np.einsum("ij,jk,ik->i", directions, covariance, directions)
            return np.maximum(found, 0.0)

        return _Variances(of(self.votes), [(of(covariance), count) for covariance, count in self.clustered])


@dataclass(frozen=True, slots=True)
class _Variances:
    votes: Floats
    clustered: list[tuple[Floats, int]]

    def half(self, level: float) -> Floats:
        """Half of each interval: Student's, with the freedom that Welch and Satterthwaite give a sum of variances. What
        clusters add to single votes is at least nothing."""
        more = [(np.maximum(each - self.votes, 0.0), count) for each, count in self.clustered]
        variance = self.votes + sum(added for added, _ in more)
        most = max(count for _, count in self.clustered)
        doubt = self.votes**2 / (most - 1) + sum(added**2 / (count - 1) for added, count in more)
        freedom = variance**2 / np.maximum(doubt, np.finfo(float).tiny)
        students = [student_quantile(each, level) for each in np.clip(freedom.round(), 1, 1000).astype(int).tolist()]
        found: Floats = np.array(students) * np.sqrt(variance)
        return found


def _noise(contests: Contests, design: Floats, row: Ints, found: Floats) -> _Noise | None:
    prompt, prompts = numbered(contests.prompt)
    judge, judges = numbered(contests.judge)
    sides = [(member, n) for member, n in ((prompt, prompts), (judge, judges)) if n > 1]
    if not sides:
        return None
    chance = 1 / (1 + np.exp(-(design @ found)))
    played = np.bincount(row, minlength=len(design))
    curvature = (design.T * (played * chance * (1 - chance))) @ design + PRIOR * np.eye(len(found))
    inverse, missed = np.linalg.inv(curvature), contests.points - chance[row]

    def covariance(member: Ints, n: int) -> Floats:
        pulls = np.stack([np.bincount(member, missed * column[row], n) for column in design.T])
        pulls -= pulls.sum(1, keepdims=True) * np.bincount(member, minlength=n) / len(member)  # what the prior pulls
        found: Floats = n / (n - 1) * inverse @ (pulls @ pulls.T) @ inverse
        return found

    both = numbered(prompt * judges + judge)
    return _Noise(covariance(*both), tuple((covariance(*side), side[1]) for side in sides))


def _surely_above(value: Floats, noise: _Noise | None, n: int, level: float) -> NDArray[np.bool_]:
    """(n, n): whether the model of the row is above that of the column, beyond the doubt about their difference."""
    if noise is None:
        return np.zeros((n, n), dtype=bool)
    i, j = (each.ravel() for each in np.indices((n, n)))
    directions = POINT * (np.eye(n, len(noise.votes))[i] - np.eye(n, len(noise.votes))[j])
    found: NDArray[np.bool_] = (value[i] - value[j] > noise.along(directions).half(level)).reshape(n, n)
    return found


def _ranked(
    models: Ints, value: Floats, half: Floats | None, votes: Ints, parts: Ints, above: NDArray[np.bool_],
) -> tuple[Rating, ...]:  # fmt: skip
    """The largest component first, in it the highest rating."""
    sizes = np.bincount(parts)
    component = {int(part): i for i, part in enumerate(np.argsort(-sizes, kind="stable"))}
    found = [
        Rating(
            int(models[i]),
            float(value[i]),
            None if half is None else float(value[i] - half[i]),
            None if half is None else float(value[i] + half[i]),
            int(votes[i]),
            1 + int((above[:, i] & (parts == parts[i])).sum()),
            component[int(parts[i])],
        )
        for i in range(len(models))
    ]
    return tuple(sorted(found, key=lambda each: (each.component, -each.value, each.model)))
