"""From many votes to one answer: majorities, soft targets, strengths, and answers weighed by how reliable judges are.

Votes are in the item's own coordinates. In display positions Dawid and Skene's model would learn who prefers the left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .agreement import Ints, Votes, numbered, one_each
from .intervals import Floats

_NEWTON_STEPS = 200
_TINY = 1e-300  # a chance that is not quite zero, for logarithms
_LARGEST_TIE = 12  # 4095 choices; people rank nine completions at most

_ByClass = list[tuple[Ints, Ints]]  # for each class the items and the judges of its votes


@dataclass(frozen=True, slots=True)
class Majority:
    """One row an item, items ascending. `tied` where two or more values lead together: `value` is NaN, nobody won."""

    item: Ints
    value: Floats
    tied: NDArray[np.bool_]
    share: Floats  # of the leading value, or of each of them
    n: Ints


def majority(votes: Votes) -> Majority:
    """The value that most judges gave each item; an even split stays one."""
    given = votes.latest()
    numbers, n_items = numbered(given.item)
    values, place = np.unique(given.value, return_inverse=True)
    width = max(1, len(values))
    pair, place = np.unique(numbers * width + place, return_inverse=True)  # only pairs of item and value that occur
    count = np.bincount(place, minlength=len(pair))
    owner = pair // width
    most = np.zeros(n_items, dtype=np.int64)
    np.maximum.at(most, owner, count)
    leads = count == most[owner]
    tied = np.bincount(owner[leads], minlength=n_items) > 1
    value = np.full(n_items, np.nan)
    value[owner[leads]] = values[pair[leads] % width]
    value[tied] = np.nan
    n = np.bincount(numbers, minlength=n_items)
    return Majority(one_each(given.item, numbers, n_items), value, tied, most / np.maximum(n, 1), n)


def three_most_similar(values: Sequence[float], widest: float = 2.0) -> float | None:
    """HelpSteer's rule: the mean of the three ratings that lie closest together; None where they spread over more than
    `widest`, or where there are fewer than three: two that agree may be chance.

    Where several threes are equally close, the mean of their means: the answer does not hang on the order.
    """
    if len(values) < 3:
        return None
    ordered = sorted(values)
    threes = [ordered[i : i + 3] for i in range(len(ordered) - 2)]
    closest = min(three[2] - three[0] for three in threes)
    means = [sum(three) / 3 for three in threes if three[2] - three[0] == closest]
    return sum(means) / len(means) if closest <= widest else None


def soft_target(wins: ArrayLike, ties: ArrayLike, n: ArrayLike, a: float = 0.5) -> Floats:
    """The chance that the first is preferred, from counts: (wins + ties / 2 + a) / (n + 2a).

    `a` votes are added for each side, so that one vote does not become certainty. With a = 0 and no votes: one half.
    """
    won, even, of = (np.asarray(x, dtype=float) for x in (wins, ties, n))
    assert a >= 0 and (won >= 0).all() and (even >= 0).all() and (won + even <= of).all()
    total = of + 2 * a
    target: Floats = np.divide(won + even / 2 + a, total, out=np.full(np.shape(total), 0.5), where=total > 0)
    return target


# Strengths


@dataclass(frozen=True, slots=True)
class Strengths:
    """`value[i]`: log-strength with mean 0 within each component; P(i beats j) is the sigmoid of their difference.

    `components`: which items were compared with one another, directly or through others, the largest first. Strengths
    of two components have nothing to do with each other.
    """

    value: Floats
    components: tuple[tuple[int, ...], ...]

    @property
    def connected(self) -> bool:
        return len(self.components) == 1


def bradley_terry(pairs: Iterable[tuple[int, int, float]], n: int, prior: float = 0.1) -> Strengths:
    """Strengths of n items from rows (i, j, target), as `Judgement.pairs` gives them: 1 i won, 0 j won, 0.5 a tie.

    `prior` is the precision of a normal prior (a penalty of half of it times the squared strengths). It must be
    positive, or an item that never lost would be infinitely strong.
    """
    rows = np.array(list(pairs), dtype=float).reshape(-1, 3)
    i, j, target = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 2]
    assert ((i >= 0) & (i < n) & (j >= 0) & (j < n) & (i != j)).all() and ((target >= 0) & (target <= 1)).all()
    won = (np.bincount(i, target, n) + np.bincount(j, 1 - target, n)).astype(float)
    pair, games = np.unique(np.minimum(i, j) * n + np.maximum(i, j), return_counts=True)
    return _strengths(won, np.stack([pair // n, pair % n], axis=1), games.astype(float), prior)


def plackett_luce(rankings: Iterable[Sequence[Sequence[int]]], n: int, prior: float = 0.1) -> Strengths:
    """Strengths of n items from rankings: groups of items, the best first; the items of a group are tied.

    A tie stands for all orders of its items, each with equal weight in the log-likelihood. Of two items that is half a
    win for each, and rankings of two give what `bradley_terry` gives.
    """
    won = np.zeros(n)
    choices: dict[tuple[int, ...], float] = {}
    for ranking in rankings:
        items = [item for group in ranking for item in group]
        assert len(set(items)) == len(items) and all(0 <= item < n for item in items)
        for place, group in enumerate(ranking):
            worse = tuple(item for later in ranking[place + 1 :] for item in later)
            for chosen_from, weight in _choices(tuple(group), worse):
                choices[chosen_from] = choices.get(chosen_from, 0.0) + weight
        for item in items:
            won[item] += 1
    widest = max(map(len, choices), default=1)
    members = np.array([c + (-1,) * (widest - len(c)) for c in choices], dtype=np.int64).reshape(-1, widest)
    return _strengths(won, members, np.array(list(choices.values())), prior)


def _choices(group: tuple[int, ...], worse: tuple[int, ...]) -> Iterable[tuple[tuple[int, ...], float]]:
    """What the items of a group were chosen from, over all their orders: each part of the group, with all that is
    worse. Parts of one size come equally often."""
    t = len(group)
    assert 1 <= t <= _LARGEST_TIE
    for size in range(1, t + 1):
        for part in combinations(group, size):
            yield tuple(sorted(part + worse)), 1 / comb(t, size)


def _strengths(won: Floats, members: Ints, weight: Floats, prior: float) -> Strengths:
    """Newton's method for won . strength - sum of weight * log(sum of exp over the members), less the penalty.

    `members` are rows of item numbers, -1 where a row has fewer. The function is concave: there is one answer.
    """
    assert prior > 0
    n, present = len(won), members >= 0
    strength: Floats = np.zeros(n)
    value = _log_likelihood(strength, won, members, weight, prior)
    for _ in range(_NEWTON_STEPS):
        share = _chosen(strength, members)
        pull = share * weight[:, None]
        gradient = won - np.bincount(members[present], pull[present], n) - prior * strength
        step = np.linalg.solve(_curvature(members, share, pull, n, prior), gradient)
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
        size = 1.0
        while (now := _log_likelihood(strength + size * step, won, members, weight, prior)) < value and size > 1e-6:
            size /= 2  # a full step may overshoot far from the top
        strength, value = strength + size * step, now
    return _by_component(strength, members)


def _chosen(strength: Floats, members: Ints) -> Floats:
    """The chance of each member to be the one chosen of its row."""
    exponent = np.where(members >= 0, strength[members], -np.inf)
    power = np.exp(exponent - exponent.max(1, keepdims=True, initial=-np.inf))
    share: Floats = power / power.sum(1, keepdims=True)
    return share


def _log_likelihood(strength: Floats, won: Floats, members: Ints, weight: Floats, prior: float) -> float:
    exponent = np.where(members >= 0, strength[members], -np.inf)
    top = exponent.max(1, initial=-np.inf)
    logs = top + np.log(np.exp(exponent - top[:, None]).sum(1))
    return float(won @ strength - weight @ logs - prior / 2 * strength @ strength)


def _curvature(members: Ints, share: Floats, pull: Floats, n: int, prior: float) -> Floats:
    present = members >= 0
    diagonal = np.bincount(members[present], pull[present], n) + prior
    width = members.shape[1]
    matrix: Floats = np.zeros((n, n))
    for a in range(width):
        for b in range(width):
            both = present[:, a] & present[:, b]
            cell = members[both, a] * n + members[both, b]
            matrix -= np.bincount(cell, pull[both, a] * share[both, b], n * n).reshape(n, n)
    return matrix + np.diag(diagonal)


def _by_component(strength: Floats, members: Ints) -> Strengths:
    numbers, groups = components_of(members, len(strength))
    sizes = np.bincount(numbers, minlength=len(groups))
    centred = strength - (np.bincount(numbers, strength, len(groups)) / np.maximum(sizes, 1))[numbers]
    return Strengths(centred, tuple(sorted(groups, key=lambda group: (-len(group), group))))


def components_of(members: Ints, n: int) -> tuple[Ints, list[tuple[int, ...]]]:
    """The component of each of n items, and the items of each; `members` are rows of items compared with each other."""
    label = np.arange(n)
    edges = np.concatenate([members[:, [0, c]] for c in range(1, members.shape[1])] or [np.zeros((0, 2), np.int64)])
    edges = edges[(edges >= 0).all(1)]
    while True:  # every item takes the lowest number among its neighbours until nothing changes
        lowest = label.copy()
        np.minimum.at(lowest, edges[:, 0], label[edges[:, 1]])
        np.minimum.at(lowest, edges[:, 1], label[edges[:, 0]])
        lowest = lowest[lowest]
        if (lowest == label).all():
            break
        label = lowest
    numbers, groups = numbered(label)
    ordered = np.argsort(numbers, kind="stable")
    parts = np.split(ordered, np.cumsum(np.bincount(numbers, minlength=groups))[:-1]) if n else []
    return numbers, [tuple(part.tolist()) for part in parts]


# Answers weighed by reliability


@dataclass(frozen=True, slots=True)
class Consensus:
    """What the answers most likely are, and how reliable each judge is, estimated together.

    `posterior[i, c]`: the chance that class c is right for `item[i]`. `confusion[j, c, d]`: how often `judge[j]` says d
    where c is right. `reliability[j]`: how often that judge is right.
    """

    item: Ints
    posterior: Floats
    judge: Ints
    reliability: Floats
    confusion: Floats
    prior: Floats
    steps: int
    converged: bool

    @property
    def answer(self) -> Ints:
        best: Ints = self.posterior.argmax(1)
        return best


def dawid_skene(
    votes: Votes, n_classes: int, *, smoothing: float = 1.0, tolerance: float = 1e-6, steps: int = 500
) -> Consensus:
    """Dawid and Skene 1979: every judge has a confusion matrix of their own; expectation maximisation from majorities.

    `smoothing` votes are added to each row of a confusion matrix, spread evenly, so that nobody is thought infallible
    after three answers; 0 is the original.
    """
    return _consensus(votes, n_classes, _confusions, smoothing, tolerance, steps)


def one_coin(
    votes: Votes, n_classes: int, *, smoothing: float = 1.0, tolerance: float = 1e-6, steps: int = 500
) -> Consensus:
    """The same with one number a judge: how often they are right, their mistakes spread evenly over the other classes.

    Needs far fewer votes a judge than `dawid_skene`.
    """
    return _consensus(votes, n_classes, _coins, smoothing, tolerance, steps)


def mace(
    votes: Votes, n_classes: int, *, smoothing: float = 1.0, tolerance: float = 1e-6, steps: int = 500
) -> Consensus:
    """Hovy and others 2013 (MACE): a judge either knows the answer, or gives one by habit whatever is right.

    For judges of whom some press keys: such a habit says nothing about the answer, where `dawid_skene` would still read
    something into it. `smoothing` votes are added to what each judge knows and to their habit; all classes are taken
    as equally likely before anybody votes, as in the paper.
    """
    return _consensus(votes, n_classes, _Habits(), smoothing, tolerance, steps, uniform=True)


def _consensus(
    votes: Votes,
    n_classes: int,
    fit: Callable[[Floats, float], Floats],
    smoothing: float,
    tolerance: float,
    steps: int,
    uniform: bool = False,
) -> Consensus:
    given = votes.latest()
    said = given.value.astype(np.int64)
    assert len(given) and n_classes >= 2 and (said == given.value).all() and smoothing >= 0 and steps >= 1
    assert ((said >= 0) & (said < n_classes)).all()
    (item, n_items), (judge, n_judges) = numbered(given.item), numbered(given.judge)
    by_class = [(item[said == d], judge[said == d]) for d in range(n_classes)]
    counts = np.stack([np.bincount(items, minlength=n_items) for items, _ in by_class], axis=1)
    posterior: Floats = counts / counts.sum(1, keepdims=True)
    converged, step = False, 0
    while not converged and step < steps:
        step += 1
        prior = np.full(n_classes, 1 / n_classes) if uniform else posterior.mean(0)
        joint = _joint(posterior, by_class, n_judges)
        confusion: Floats = fit(joint, smoothing)
        updated = _posterior(np.log(np.maximum(confusion, _TINY)), prior, by_class, n_items)
        converged = bool(np.abs(updated - posterior).max() < tolerance)
        posterior = updated
    right = np.einsum("c,jcc->j", prior, confusion)
    items, judges = one_each(given.item, item, n_items), one_each(given.judge, judge, n_judges)
    return Consensus(items, posterior, judges, right, confusion, prior, step, converged)


def _joint(posterior: Floats, by_class: _ByClass, n_judges: int) -> Floats:
    """Expected votes [judge, right class, class said]."""
    joint = np.empty((n_judges, len(by_class), len(by_class)))
    for d, (items, judges) in enumerate(by_class):
        for c in range(len(by_class)):
            joint[:, c, d] = np.bincount(judges, posterior[items, c], n_judges)
    return joint


def _posterior(log_confusion: Floats, prior: Floats, by_class: _ByClass, n_items: int) -> Floats:
    logs = np.tile(np.log(np.maximum(prior, _TINY)), (n_items, 1))
    for d, (items, judges) in enumerate(by_class):
        for c in range(len(by_class)):
            logs[:, c] += np.bincount(items, log_confusion[judges, c, d], n_items)
    power = np.exp(logs - logs.max(1, keepdims=True))
    posterior: Floats = power / power.sum(1, keepdims=True)
    return posterior


def _confusions(joint: Floats, smoothing: float) -> Floats:
    k = joint.shape[2]
    row = joint.sum(2, keepdims=True)
    no_votes = np.full_like(joint, 1 / k)
    confusion: Floats = np.divide(joint + smoothing / k, row + smoothing, out=no_votes, where=row + smoothing > 0)
    return confusion


def _coins(joint: Floats, smoothing: float) -> Floats:
    k = joint.shape[2]
    right, total = np.einsum("jcc->j", joint), joint.sum((1, 2))
    chance = ((right + smoothing / k) / (total + smoothing))[:, None, None]
    confusion: Floats = np.where(np.eye(k, dtype=bool), chance, (1 - chance) / (k - 1))
    return confusion


@dataclass
class _Habits:
    """The fit of `mace`: the state of each judge, from one step to the next."""

    knows: Floats | None = None  # how often
    habit: Floats | None = None  # [judge, class]: what they say when they do not

    def __call__(self, joint: Floats, smoothing: float) -> Floats:
        judges, k = joint.shape[0], joint.shape[2]
        if self.knows is None or self.habit is None:
            self.knows, self.habit = np.full(judges, 0.5), np.full((judges, k), 1 / k)
        known, habit = self.knows[:, None], self.habit
        either = known + (1 - known) * habit
        by_knowing = np.einsum("jdd->jd", joint) * np.divide(known, either, out=np.zeros_like(either), where=either > 0)
        by_habit = joint.sum(1) - by_knowing
        knew, guessed = by_knowing.sum(1), by_habit.sum(1)
        self.knows = (knew + smoothing / 2) / (knew + guessed + smoothing)
        no_habit = np.full_like(habit, 1 / k)
        total = (guessed + smoothing)[:, None]
        self.habit = np.divide(by_habit + smoothing / k, total, out=no_habit, where=total > 0)
        spread: Floats = (1 - self.knows)[:, None, None] * self.habit[:, None, :]
        return spread + self.knows[:, None, None] * np.eye(k)


# Strengths and reliability together


@dataclass(frozen=True, slots=True)
class JudgedStrengths:
    """`strengths` of items, and for each `judge` how often they press the key that they mean (`reliability`)."""

    strengths: Strengths
    judge: Ints
    reliability: Floats
    steps: int
    converged: bool


def crowd_bradley_terry(
    pairs: Iterable[tuple[int, int, float, int]],
    n: int,
    prior: float = 0.1,
    *,
    honest: tuple[float, float] = (4.0, 1.0),
    tolerance: float = 1e-5,
    steps: int = 1000,
) -> JudgedStrengths:
    """Chen and others 2013 (crowd-BT): rows (i, j, target, judge); judge k says what they mean with a chance of their
    own, and else the opposite. One half is a coin, and below it somebody has the question the wrong way round.

    `honest` are votes (meant, not meant) that every judge is credited with: without them all strengths and all judges
    could be turned round together. `prior` is that of `bradley_terry`. Expectation maximisation, in which each step
    moves strengths by a bound on their curvature: the posterior density never falls.
    """
    rows = np.array(list(pairs), dtype=float).reshape(-1, 4)
    assert prior > 0 and min(honest) > 0 and ((rows[:, 2] >= 0) & (rows[:, 2] <= 1)).all()
    won = np.concatenate([rows[:, [0, 1, 2, 3]], np.stack([*rows.T[[1, 0]], 1 - rows[:, 2], rows[:, 3]], axis=1)])
    won = won[won[:, 2] > 0]  # a tie is half a win for each
    better, worse, weight = won[:, 0].astype(np.int64), won[:, 1].astype(np.int64), won[:, 2]
    judges, judge = np.unique(won[:, 3].astype(np.int64), return_inverse=True)
    members = rows[:, :2].astype(np.int64)
    solve = _bounded_steps(members, n, prior)
    of = np.bincount(judge, weight, len(judges))
    strength: Floats = np.zeros(n)
    meant: Floats = np.full(len(judges), honest[0] / sum(honest))
    converged, step = False, 0
    while not converged and step < steps:
        step += 1
        chance = 1 / (1 + np.exp(strength[worse] - strength[better]))
        as_meant = meant[judge] * chance
        honestly = as_meant / (as_meant + (1 - meant[judge]) * (1 - chance))
        pull = weight * (honestly - chance)
        moved = solve(np.bincount(better, pull, n) - np.bincount(worse, pull, n) - prior * strength)
        updated = (np.bincount(judge, weight * honestly, len(judges)) + honest[0]) / (of + sum(honest))
        change = max(np.abs(moved).max(initial=0.0), np.abs(updated - meant).max(initial=0.0))
        strength, meant, converged = strength + moved, updated, bool(change < tolerance)
    return JudgedStrengths(_by_component(strength, members), judges, meant, step, converged)


def _bounded_steps(pairs: Ints, n: int, prior: float) -> Callable[[Floats], Floats]:
    """Solves for a step against the steepest curvature that pairs can have: a quarter each, and the prior's.

    By components of one size together: a set of prompts has very many small ones.
    """
    numbers, groups = components_of(pairs, n)
    place = np.zeros(n, dtype=np.int64)
    by_size: dict[int, list[tuple[int, ...]]] = {}
    row = np.zeros(len(groups), dtype=np.int64)  # of a component among those of its size
    for number, group in enumerate(groups):
        place[list(group)] = np.arange(len(group))
        alike = by_size.setdefault(len(group), [])
        row[number] = len(alike)
        alike.append(group)
    sizes = np.array([len(group) for group in groups], dtype=np.int64)
    parts = []
    for size, alike in by_size.items():
        items = np.array(alike, dtype=np.int64)
        i, j = pairs[sizes[numbers[pairs[:, 0]]] == size].T if len(pairs) else np.zeros((2, 0), dtype=np.int64)
        at = row[numbers[i]] * size
        cells = (at + place[i]) * size + place[j], (at + place[j]) * size + place[i]
        met = np.bincount(np.concatenate(cells), minlength=len(alike) * size * size).reshape(-1, size, size) / 4
        curvature = np.eye(size) * (met.sum(2)[:, :, None] + prior) - met
        parts.append((items, np.linalg.inv(curvature)))

    def solve(gradient: Floats) -> Floats:
        step: Floats = np.zeros(n)
        for items, inverse in parts:
            step[items] = np.einsum("gij,gj->gi", inverse, gradient[items])
        return step

    return solve
