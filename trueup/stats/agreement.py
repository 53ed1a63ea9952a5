"""How far judges agree, with intervals that redraw items: the votes on one item hang together.

Every measure is a function of sums over items. Items with the same votes are put together first, so that a redraw of
300,000 items is a draw of how often each of a few dozen patterns comes, which is the same in distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Floats

Ints = NDArray[np.int64]
Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["linear", "quadratic"]

ALL_EQUAL = "all answers equal"
NOTHING_SHARED = "no item has answers from two judges"
NO_ANSWERS = "no answers"
TOO_FEW = "too few differing answers for an interval"

_CELLS = 2**21  # redraws are made in blocks of about this many numbers (16 MB)
_MOST_WEIGHED = 2 * 10**8  # votes weighed in all redraws of a measure that needs them one by one
_FEWEST_DRAWS = 200
_MOST_UNDEFINED = 0.05  # of the redraws; beyond it the rest say too little about the whole


@dataclass(frozen=True, slots=True)
class Votes:
    """One row a vote: what `judge` said of `item`, in the item's own coordinates and never in display positions.

    `cluster` says which items are redrawn together (the pairs of one ranking); without it each item stands alone. A
    judge's later vote on an item replaces the earlier one in every measure.
    """

    item: Ints
    judge: Ints
    value: Floats
    cluster: Ints | None = None

    def __post_init__(self) -> None:
        n = len(self.value)
        assert self.item.shape == self.judge.shape == self.value.shape == (n,) and np.isfinite(self.value).all()
        assert self.cluster is None or self.cluster.shape == (n,)

    @classmethod
    def of(cls, item: ArrayLike, judge: ArrayLike, value: ArrayLike, cluster: ArrayLike | None = None) -> Votes:
        """From anything that NumPy takes for whole numbers and numbers."""
        whole = [np.asarray(column, dtype=np.int64) for column in (item, judge)]
        redrawn = None if cluster is None else np.asarray(cluster, dtype=np.int64)
        return cls(whole[0], whole[1], np.asarray(value, dtype=np.float64), redrawn)

    @classmethod
    def named(
        cls, items: Sequence[Hashable], judges: Sequence[str], values: ArrayLike
    ) -> tuple[Votes, list[Hashable], list[str]]:
        """From names: the votes, and the name that stands behind each number of an item and of a judge."""
        places = {name: i for i, name in enumerate(dict.fromkeys(items))}
        people = {name: i for i, name in enumerate(sorted(set(judges)))}
        votes = cls.of([places[item] for item in items], [people[judge] for judge in judges], values)
        return votes, list(places), list(people)

    def __len__(self) -> int:
        return len(self.value)

    def where(self, kept: NDArray[np.bool_]) -> Votes:
        cluster = None if self.cluster is None else self.cluster[kept]
        return Votes(self.item[kept], self.judge[kept], self.value[kept], cluster)

    def by(self, judges: Collection[int]) -> Votes:
        """The votes of these judges only."""
        return self.where(np.isin(self.judge, list(judges)))

    def latest(self) -> Votes:
        """One vote for each judge and item: the last in order."""
        if not len(self):
            return self
        key = self.item * (int(self.judge.max()) + 1) + self.judge
        ordered = np.sort(key)
        if (ordered[1:] != ordered[:-1]).all():
            return self
        _, from_end = np.unique(key[::-1], return_index=True)
        kept = np.zeros(len(key), dtype=bool)
        kept[len(key) - 1 - from_end] = True
        return self.where(kept)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A measure with its interval. `value` is None where the measure is undefined, and `why` says why; `low` and `high`
    are None where there is no interval. `n_items` counts items with at least two votes, `n_judges` who gave them."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n_items: int = 0
    n_judges: int = 0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        names = ("value", "low", "high", "n_items", "n_judges", "why")
        return {name: getattr(self, name) for name in names}


def percent_agreement(
    votes: Votes, *, without: float | None = None, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Agreement:
    """The share of all pairs of votes on one item that are equal.

    `without`: a value whose votes are left out, 0 for ties.
    """
    table = _Table.of(votes if without is None else votes.where(votes.value != without))

    def measure(times: Floats) -> Floats:
        return _ratio(times @ table.equal_pairs, times @ (table.votes * (table.votes - 1)))

    return _estimate(table, measure, draws, level, seed)


def cohen_kappa(
    votes: Votes, weights: Weights | None = None, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Agreement:
    """Agreement of two judges beyond what their own habits would give by chance.

    With `weights` a disagreement counts by its distance, or its square, on the scale of the values themselves. More
    than two judges are refused: choose two with `Votes.by`, or use `krippendorff_alpha`.
    """
    shared = _shared(votes.latest())
    judges = np.unique(shared.judge)
    if len(judges) > 2:
        return Agreement(None, n_judges=len(judges), why="Cohen's kappa compares two judges")
    if not len(shared):
        return Agreement(None, why=NOTHING_SHARED)
    order = np.lexsort((shared.judge, shared.item))  # now every two rows are one item: the first judge's, the second's
    values, place = np.unique(shared.value[order], return_inverse=True)
    joint = place[0::2] * len(values) + place[1::2]
    cells = np.bincount(joint, minlength=len(values) ** 2)
    cost = _cost(values, weights)
    redrawn = None if shared.cluster is None else shared.cluster[order][0::2]
    table = _Table(np.empty((len(cells), 0)), cells, joint, values, redrawn, len(joint), 2)

    def measure(times: Floats) -> Floats:
        both = times.reshape(-1, len(values), len(values))
        by_chance = np.einsum("ri,ij,rj->r", both.sum(2), cost, both.sum(1)) / both.sum((1, 2))
        return 1 - _ratio((both * cost).sum((1, 2)), by_chance)

    return _estimate(table, measure, draws, level, seed)


def quadratic_kappa(votes: Votes, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Agreement:
    """Cohen's kappa with quadratic weights, pooled over each two judges who share items: of two it is `cohen_kappa`.

    One minus the mean squared distance of two votes on one item, over what the habits of the two would give by chance.
    Each two judges count by the items they share; these weights are how work was handed out, and stay in redraws.
    Of hundreds of thousands of votes there are fewer redraws: here items cannot be put together by kinds.
    """
    shared = _shared(votes.latest())
    if not len(shared):
        return Agreement(None, why=NOTHING_SHARED)
    (item, n_items), (judge, n_judges) = numbered(shared.item), numbered(shared.judge)
    x = shared.value - shared.value.mean()
    m, s, q = (np.bincount(item, w, n_items) for w in (np.ones_like(x), x, x * x))
    distance, pairs = m * q - s * s, m * (m - 1) / 2
    first, second, met = _meetings(item, judge, n_judges)
    spread = float(np.ptp(shared.value)) ** 2

    def measure(times: Floats) -> float:
        weight = times[item]
        n, total, squares = (np.bincount(judge, w, n_judges) for w in (weight, weight * x, weight * x * x))
        mean, square = (np.divide(part, n, out=np.zeros(n_judges), where=n > 0) for part in (total, squares))
        both = met * ((n[first] > 0) & (n[second] > 0))
        by_chance = both @ (square[first] + square[second] - 2 * mean[first] * mean[second])
        if not both.sum() or by_chance <= 1e-12 * both.sum() * spread:
            return np.nan
        return float(1 - (times @ distance) / (times @ pairs) / (by_chance / both.sum()))

    draws = min(draws, max(_FEWEST_DRAWS, _MOST_WEIGHED // len(x)))
    redrawn = None if shared.cluster is None else one_each(shared.cluster, item, n_items)
    return _weighed(measure, redrawn, n_items, n_judges, draws, level, seed)


def fleiss_kappa(votes: Votes, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Agreement:
    """Agreement beyond chance where every item has the same number of votes; ragged votes leave it undefined."""
    given = votes.latest()
    sizes = np.bincount(numbered(given.item)[0])
    if len(sizes) and np.ptp(sizes):
        why = f"items have {sizes.min()} to {sizes.max()} votes, and Fleiss' kappa needs the same number on each"
        return Agreement(None, n_items=int(_Table.of(given).n_items), n_judges=numbered(given.judge)[1], why=why)
    table = _Table.of(given)
    pairs = table.votes * (table.votes - 1)

    def measure(times: Floats) -> Floats:
        share = _shares(times @ table.counts)
        by_chance = (share**2).sum(1)
        observed = _ratio(times @ (table.equal_pairs / pairs), times.sum(1))
        return _ratio(observed - by_chance, np.where((share > 0).sum(1) > 1, 1 - by_chance, 0.0))

    return _estimate(table, measure, draws, level, seed)


def krippendorff_alpha(
    votes: Votes, level: Level = "nominal", *, draws: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Agreement:
    """One minus observed over expected disagreement: any number of judges, any number of votes on an item.

    The ordinal distance of two values is that of their mean ranks among all votes, so ordinal alpha is the interval
    alpha of mean ranks, and no matrix of values by values is needed.
    """
    if level == "interval":
        return _interval_alpha(votes, draws, confidence, seed)
    table = _Table.of(votes)
    per_vote = 1 / (table.votes - 1)

    def nominal(times: Floats) -> Floats:
        given = times @ table.counts
        n = given.sum(1)
        observed = times @ ((table.votes**2 - (table.counts**2).sum(1)) * per_vote)
        return 1 - _ratio(observed * (n - 1), n**2 - (given**2).sum(1))

    def ordinal(times: Floats) -> Floats:
        given = times @ table.counts
        n = given.sum(1)
        rank = np.cumsum(given, 1) - given / 2 - n[:, None] / 2  # the mean rank of all votes is 0
        spread = table.votes[:, None] * (table.counts @ (rank**2).T) - (table.counts @ rank.T) ** 2
        observed = np.einsum("rp,pr->r", times, spread * per_vote[:, None])
        return 1 - _ratio(observed * (n - 1), n * (given * rank**2).sum(1))

    return _estimate(table, nominal if level == "nominal" else ordinal, draws, confidence, seed)


def gwet_ac1(votes: Votes, *, draws: int = 1000, level: float = 0.95, seed: int = 0) -> Agreement:
    """Agreement beyond chance that stays meaningful where nearly all answers are the same (flags).

    Chance is that of a guess where one is needed: the mean over values of p(1 - p), times k / (k - 1).
    """
    table = _Table.of(votes)
    k = len(table.values)

    def measure(times: Floats) -> Floats:
        items = times.sum(1)
        share = (times @ (table.counts / table.votes[:, None])) / items[:, None]
        observed = times @ (table.equal_pairs / (table.votes * (table.votes - 1))) / items
        by_chance = (share * (1 - share)).sum(1) / max(k - 1, 1)
        return _ratio(observed - by_chance, np.where((share > 0).sum(1) > 1, 1 - by_chance, 0.0))

    return _estimate(table, measure, draws, level, seed)


def kendall_tau_b(
    item: ArrayLike,
    judge: ArrayLike,
    ranks: ArrayLike,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Mean tau-b over each two judges of one item, who ranked the same completions, ties allowed.

    `ranks` is a table, one row a ranking, NaN where an item has fewer completions than the table has columns. Tau-b is
    the cosine of two rankings' pairwise signs. A judge who put all in one place has no signs and is left out there.
    """
    signs, placed = _signs(np.asarray(ranks, dtype=float))
    length = np.sqrt((signs**2).sum(1))
    votes = Votes.of(item, judge, np.arange(len(length))).latest()
    if not len(_shared(votes)):
        return Agreement(None, why=NOTHING_SHARED)
    votes = _shared(votes.where(length[votes.value.astype(np.int64)] > 0))
    if not len(votes):
        return Agreement(None, why=ALL_EQUAL)
    row = votes.value.astype(np.int64)
    numbers, n_items = numbered(votes.item)
    _assert_same_completions(placed[row], numbers)
    unit = signs[row] / length[row, None]
    total = np.stack([np.bincount(numbers, column, n_items) for column in unit.T], axis=1)
    size = np.bincount(numbers, minlength=n_items)
    features = np.stack([(total**2).sum(1) - size, size * (size - 1)], axis=1)
    table = _Table.of_features(features, None, n_items, numbered(votes.judge)[1])

    def measure(times: Floats) -> Floats:
        return _ratio(times @ table.counts[:, 0], times @ table.counts[:, 1])

    return _estimate(table, measure, draws, level, seed)


def mean_by_item(
    item: ArrayLike, value: ArrayLike, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Agreement:
    """The mean of values with an interval that redraws items; `n_items` counts them all, one value is enough."""
    values, items = np.asarray(value, dtype=np.float64), _whole(item)
    assert values.shape == items.shape and np.isfinite(values).all()
    if not len(values):
        return Agreement(None, why=NO_ANSWERS)
    numbers, n_items = numbered(items)
    features = np.stack([np.bincount(numbers, values, n_items), np.bincount(numbers, minlength=n_items)], axis=1)
    table = _Table.of_features(features, None, n_items, 0)

    def measure(times: Floats) -> Floats:
        return _ratio(times @ table.counts[:, 0], times @ table.counts[:, 1])

    return _estimate(table, measure, draws, level, seed)


def ranking_votes(item: ArrayLike, judge: ArrayLike, ranks: ArrayLike) -> Votes:
    """Rankings as votes on all pairs of completions: 1 the first is better, 0 a tie, -1 the second is.

    The pairs of one item are redrawn together. With it every measure of votes can be had of rankings.
    """
    signs, placed = _signs(np.asarray(ranks, dtype=float))
    items, pairs = np.asarray(item, dtype=np.int64), signs.shape[1]
    judged = placed.ravel()
    return Votes(
        (items[:, None] * pairs + np.arange(pairs)).ravel()[judged],
        np.repeat(np.asarray(judge, dtype=np.int64), pairs)[judged],
        signs.ravel()[judged],
        np.repeat(items, pairs)[judged],
    )


# Items with the same votes, put together


@dataclass(frozen=True, slots=True)
class _Table:
    """Items in kinds that are interchangeable: `counts[p, v]` votes for `values[v]`, on `times[p]` items.

    `kind` is the row of each item, `cluster` what each item is redrawn with; they are needed for clusters only.
    """

    counts: Floats
    times: Ints
    kind: Ints
    values: Floats
    cluster: Ints | None
    n_items: int
    n_judges: int

    @classmethod
    def of(cls, votes: Votes) -> _Table:
        """The items that have at least two votes."""
        shared = _shared(votes.latest())
        if not len(shared):
            return cls(np.zeros((0, 0)), _whole([]), _whole([]), np.zeros(0), None, 0, 0)
        numbers, n_items = numbered(shared.item)
        values, place = np.unique(shared.value, return_inverse=True)
        counts = np.bincount(numbers * len(values) + place, minlength=n_items * len(values))
        cluster = None if shared.cluster is None else one_each(shared.cluster, numbers, n_items)
        table = cls.of_features(counts.reshape(n_items, -1), cluster, n_items, numbered(shared.judge)[1])
        return replace(table, values=values)

    @classmethod
    def of_features(cls, features: NDArray[Any], cluster: Ints | None, n_items: int, n_judges: int) -> _Table:
        order = np.lexsort(features.T)
        ordered = features[order]
        new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(1)])
        kind = np.empty(len(order), dtype=np.int64)
        kind[order] = np.cumsum(new) - 1
        rows = ordered[new].astype(float)
        return cls(rows, np.bincount(kind), kind, np.zeros(0), cluster, n_items, n_judges)

    @property
    def votes(self) -> Floats:
        total: Floats = self.counts.sum(1)
        return total

    @property
    def equal_pairs(self) -> Floats:
        pairs: Floats = (self.counts * (self.counts - 1)).sum(1)
        return pairs

    def redraws(self, draws: int, seed: int) -> Iterator[Floats]:
        """How often each kind of item comes when all items, or clusters, are drawn anew: blocks of rows."""
        random = np.random.default_rng(seed)
        if self.cluster is None:
            block = max(1, _CELLS // len(self.times))
            for start in range(0, draws, block):
                rows = min(block, draws - start)
                yield random.multinomial(self.n_items, self.times / self.n_items, rows).astype(float)
            return
        member, n = numbered(self.cluster)
        for _ in range(draws):
            drawn = np.bincount(random.integers(0, n, n), minlength=n)
            yield np.bincount(self.kind, drawn[member], len(self.times))[None].astype(float)


def _estimate(table: _Table, measure: Callable[[Floats], Floats], draws: int, level: float, seed: int) -> Agreement:
    """`measure` turns rows of how often each kind of item came into one value a row, NaN where it is undefined."""
    if table.n_items == 0:
        return Agreement(None, why=NOTHING_SHARED)
    found = Agreement(None, n_items=table.n_items, n_judges=table.n_judges)
    value = float(measure(table.times[None].astype(float))[0])
    if np.isnan(value):
        return replace(found, why=ALL_EQUAL)
    found = replace(found, value=value)
    clusters = table.n_items if table.cluster is None else numbered(table.cluster)[1]
    if draws == 0:
        return found
    if clusters < 2:
        return replace(found, why="one item has no interval")
    values = np.concatenate([measure(times) for times in table.redraws(draws, seed)])
    if np.isnan(values).mean() > _MOST_UNDEFINED:
        return replace(found, why=TOO_FEW)
    low, high = np.nanquantile(values, [0.5 - level / 2, 0.5 + level / 2]).tolist()
    return replace(found, low=low, high=high)


def _weighed(
    measure: Callable[[Floats], float],
    cluster: Ints | None,
    n_items: int,
    n_judges: int,
    draws: int,
    level: float,
    seed: int,
) -> Agreement:
    """`_estimate` for a measure that takes how often each single item came."""
    found = Agreement(None, n_items=n_items, n_judges=n_judges)
    value = measure(np.ones(n_items))
    if np.isnan(value):
        return replace(found, why=ALL_EQUAL)
    found = replace(found, value=value)
    member, n = (np.arange(n_items), n_items) if cluster is None else numbered(cluster)
    if draws == 0 or n < 2:
        return replace(found, why="one item has no interval" if draws else "")
    random = np.random.default_rng(seed)
    drawn = (np.bincount(random.integers(0, n, n), minlength=n)[member].astype(float) for _ in range(draws))
    values = np.array([measure(times) for times in drawn])
    if np.isnan(values).mean() > _MOST_UNDEFINED:
        return replace(found, why=TOO_FEW)
    low, high = np.nanquantile(values, [0.5 - level / 2, 0.5 + level / 2]).tolist()
    return replace(found, low=low, high=high)


def _meetings(item: Ints, judge: Ints, n_judges: int) -> tuple[Ints, Ints, Floats]:
    """Each two judges who share items, and how many they share."""
    order = np.lexsort((judge, item))
    item, judge = item[order], judge[order]
    met = []
    for apart in range(1, int(np.bincount(item).max())):  # votes of one item stand side by side
        same = item[apart:] == item[:-apart]
        met.append(judge[:-apart][same] * n_judges + judge[apart:][same])
    pair, shared = np.unique(np.concatenate(met), return_counts=True)
    return pair // n_judges, pair % n_judges, shared.astype(float)


def _interval_alpha(votes: Votes, draws: int, level: float, seed: int) -> Agreement:
    """From number, sum and sum of squares of each item's votes, however many different values there are."""
    shared = _shared(votes.latest())
    if not len(shared):
        return Agreement(None, why=NOTHING_SHARED)
    numbers, n_items = numbered(shared.item)
    x = shared.value - shared.value.mean()
    if not np.ptp(shared.value):
        x = np.zeros_like(x)
    m, s, q = (np.bincount(numbers, w, n_items) for w in (np.ones_like(x), x, x * x))
    cluster = None if shared.cluster is None else one_each(shared.cluster, numbers, n_items)
    features = np.stack([m, s, q], axis=1)
    table = _Table.of_features(features, cluster, n_items, numbered(shared.judge)[1])
    within = (table.counts[:, 0] * table.counts[:, 2] - table.counts[:, 1] ** 2) / (table.counts[:, 0] - 1)

    def measure(times: Floats) -> Floats:
        n, total, squares = (times @ table.counts).T
        spread = n * squares - total**2
        spread[spread <= 1e-12 * n * squares] = 0.0  # rounding of equal values
        return 1 - _ratio((times @ within) * (n - 1), spread)

    return _estimate(table, measure, draws, level, seed)


# Small parts


def _whole(values: ArrayLike) -> Ints:
    return np.asarray(values, dtype=np.int64)


def _ratio(above: Floats, below: Floats) -> Floats:
    """NaN where there is nothing to divide by: undefined."""
    ratio: Floats = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return ratio


def _shares(counts: Floats) -> Floats:
    shares: Floats = counts / counts.sum(1, keepdims=True)
    return shares


def numbered(ids: Ints) -> tuple[Ints, int]:
    """Any ids as 0 .. n - 1 in their order."""
    if len(ids) and ids.min() >= 0 and ids.max() < 4 * len(ids) + 1000:  # without sorting
        seen = np.zeros(int(ids.max()) + 1, dtype=np.int64)
        seen[ids] = 1
        place = np.cumsum(seen) - 1
        return place[ids], int(seen.sum())
    different, numbers = np.unique(ids, return_inverse=True)
    return numbers, len(different)


def one_each(ids: Ints, numbers: Ints, n: int) -> Ints:
    """What stands behind each number of `numbered`."""
    each = np.zeros(n, dtype=np.int64)
    each[numbers] = ids
    return each


def _shared(votes: Votes) -> Votes:
    """The votes on items that have at least two."""
    numbers, n = numbered(votes.item)
    return votes.where(np.bincount(numbers, minlength=n)[numbers] >= 2)


def _cost(values: Floats, weights: Weights | None) -> Floats:
    distance = np.abs(values[:, None] - values[None, :])
    cost: Floats = (distance > 0).astype(float) if weights is None else distance
    return cost**2 if weights == "quadratic" else cost


def _signs(ranks: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """For each two columns 1 where the first is better (a lower rank), 0 for a tie; and whether both were placed."""
    assert ranks.ndim == 2
    first, second = np.array(list(combinations(range(ranks.shape[1]), 2)), dtype=np.int64).reshape(-1, 2).T
    gap = ranks[:, second] - ranks[:, first]
    placed = ~np.isnan(gap)
    return np.sign(np.where(placed, gap, 0.0)), placed


def _assert_same_completions(placed: NDArray[np.bool_], numbers: Ints) -> None:
    by_item = np.zeros((int(numbers.max()) + 1, placed.shape[1]), dtype=bool)
    by_item[numbers] = placed
    assert (by_item[numbers] == placed).all(), "the judges of one item ranked different completions"
