"""Every measure against another library on random ragged votes, on votes known by hand, and against its symmetries."""

from __future__ import annotations

import csv
import os
import time
from itertools import combinations
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from trueup.stats import (
    Agreement,
    Votes,
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    kendall_tau_b,
    krippendorff_alpha,
    mace,
    mean_by_item,
    percent_agreement,
    quadratic_kappa,
    ranking_votes,
)

few = settings(max_examples=60, deadline=None)
MEASURES = {
    "percent": percent_agreement,
    "fleiss": fleiss_kappa,
    "nominal": krippendorff_alpha,
    "ordinal": lambda votes, **more: krippendorff_alpha(votes, "ordinal", **more),
    "interval": lambda votes, **more: krippendorff_alpha(votes, "interval", **more),
    "ac1": gwet_ac1,
}
CHANCE_CORRECTED = {name: measure for name, measure in MEASURES.items() if name != "percent"}


def grid_of(seed: int, items: int = 25, judges: int = 4, values: int = 4, missing: float = 0.3) -> np.ndarray:
    """Items x judges, NaN where nothing was said; judges follow a truth half the time."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, values, (items, 1))
    said = np.where(random.random((items, judges)) < 0.5, truth, random.integers(0, values, (items, judges)))
    return np.where(random.random(said.shape) < missing, np.nan, said.astype(float))


def votes_of(grid: np.ndarray) -> Votes:
    item, judge = np.nonzero(~np.isnan(grid))
    return Votes.of(item, judge, grid[item, judge])


def point(measure, votes: Votes) -> float | None:
    return measure(votes, draws=0).value


# Oracles


@few
@given(st.integers(0, 10_000), st.sampled_from(["nominal", "ordinal", "interval"]), st.sampled_from([0.0, 0.3, 0.7]))
def test_alpha_is_krippendorffs(seed, level, missing):
    grid = grid_of(seed, missing=missing)
    try:
        expected = krippendorff.alpha(reliability_data=grid.T, level_of_measurement=level)
    except ValueError:  # nothing to compare, or all equal
        expected = None
    found = krippendorff_alpha(votes_of(grid), level, draws=0)
    assert found.value == (None if expected is None else pytest.approx(expected, abs=1e-9))


def test_alpha_of_the_table_in_krippendorffs_paper():
    """Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, part C and D: 4 observers, 12 units."""
    unknown = np.nan
    table = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, unknown, unknown, unknown],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, unknown, 3],
            [unknown, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, unknown],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, unknown],
        ]
    )
    votes = votes_of(table.T)
    assert krippendorff_alpha(votes).value == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(votes, "ordinal").value == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(votes, "interval").value == pytest.approx(0.849, abs=5e-4)
    assert krippendorff_alpha(votes).n_items == 11 and krippendorff_alpha(votes).n_judges == 4


@few
@given(st.integers(0, 10_000), st.sampled_from([None, "linear", "quadratic"]))
def test_cohen_is_scikit_learns(seed, weights):
    grid = grid_of(seed, judges=2, values=3, missing=0.2)
    both = grid[~np.isnan(grid).any(1)].astype(int)
    expected = cohen_kappa_score(both[:, 0], both[:, 1], labels=[0, 1, 2], weights=weights)
    found = cohen_kappa(votes_of(grid), weights, draws=0)
    assert found.value == pytest.approx(expected, abs=1e-12) and found.n_items == len(both)


def test_cohens_weights_are_distances_of_values_not_of_places():
    """scikit-learn numbers the labels; a scale of 1, 2, 7 has a far end."""
    a, b = [1, 2, 7, 7, 2, 1], [1, 2, 7, 2, 1, 1]
    votes = Votes.of([*range(6)] * 2, [0] * 6 + [1] * 6, a + b)
    costs = np.subtract.outer([1, 2, 7], [1, 2, 7]) ** 2
    table = np.zeros((3, 3))
    for x, y in zip(a, b, strict=True):
        table[[1, 2, 7].index(x), [1, 2, 7].index(y)] += 1
    by_chance = np.outer(table.sum(1), table.sum(0)) / 6
    assert cohen_kappa(votes, "quadratic").value == pytest.approx(1 - (table * costs).sum() / (by_chance * costs).sum())


@few
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_fleiss_is_statsmodels(seed, judges):
    grid = grid_of(seed, judges=judges, missing=0)
    expected = statsmodels_fleiss(aggregate_raters(grid.astype(int))[0])
    assert point(fleiss_kappa, votes_of(grid)) == pytest.approx(expected, abs=1e-12)


@few
@given(st.integers(0, 10_000))
def test_percent_and_ac1_are_their_definitions(seed):
    grid = grid_of(seed)
    rows = [row[~np.isnan(row)] for row in grid]
    rows = [row for row in rows if len(row) >= 2]
    pairs = [a == b for row in rows for a, b in combinations(row, 2)]
    assert point(percent_agreement, votes_of(grid)) == pytest.approx(np.mean(pairs))
    values = sorted({x for row in rows for x in row})
    share = np.array([np.mean([np.mean(row == value) for row in rows]) for value in values])
    by_chance = (share * (1 - share)).sum() / (len(values) - 1)
    observed = np.mean([np.mean([a == b for a, b in combinations(row, 2)]) for row in rows])
    assert point(gwet_ac1, votes_of(grid)) == pytest.approx((observed - by_chance) / (1 - by_chance))


def test_ac1_stays_high_where_kappa_collapses():
    """Gwet 2008: 118 of 125 items both positive, 5 and 2 split, none both negative: AC1 0.94, kappa below 0."""
    pairs = [(1, 1)] * 118 + [(1, 0)] * 5 + [(0, 1)] * 2
    votes = votes_of(np.array(pairs, dtype=float))
    share = (2 * 118 + 7) / 250
    by_chance = 2 * share * (1 - share)
    assert point(gwet_ac1, votes) == pytest.approx((118 / 125 - by_chance) / (1 - by_chance))
    assert point(gwet_ac1, votes) == pytest.approx(0.940, abs=1e-3)
    assert point(cohen_kappa, votes) < 0


@few
@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 4))
def test_tau_b_is_the_mean_of_scipys(seed, k, judges):
    random = np.random.default_rng(seed)
    ranks = random.integers(1, 4, (6, judges, k)).astype(float)
    expected = [
        kendalltau(ranks[i, a], ranks[i, b]).statistic for i in range(6) for a, b in combinations(range(judges), 2)
    ]
    defined = [tau for tau in expected if not np.isnan(tau)]
    item, judge = np.indices((6, judges)).reshape(2, -1)
    found = kendall_tau_b(item, judge, ranks.reshape(-1, k), draws=0)
    if defined:
        assert found.value == pytest.approx(np.mean(defined), abs=1e-9)
    else:
        assert found == Agreement(None, why="all answers equal")


def test_tau_b_of_items_with_different_numbers_of_completions():
    ranks = np.array([[1, 2, np.nan], [2, 1, np.nan], [1, 2, 3], [1, 3, 2]])
    found = kendall_tau_b([0, 0, 1, 1], [0, 1, 0, 1], ranks)
    assert found.value == pytest.approx((-1 + 1 / 3) / 2) and found.n_items == 2 and found.n_judges == 2
    with pytest.raises(AssertionError, match="different completions"):
        kendall_tau_b([0, 0], [0, 1], [[1, 2, np.nan], [1, 2, 3]])


# What is undefined says so


@pytest.mark.parametrize("measure", CHANCE_CORRECTED.values(), ids=CHANCE_CORRECTED)
@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
def test_all_answers_equal_is_neither_nought_nor_one(measure, value):
    found = measure(votes_of(np.full((5, 3), value)))
    assert (found.value, found.low, found.high, found.why) == (None, None, None, "all answers equal")
    assert found.n_items == 5 and found.n_judges == 3


def test_two_judges_of_one_mind_and_two_who_never_agree():
    assert cohen_kappa(votes_of(np.full((5, 2), 1.0))).why == "all answers equal"
    assert point(percent_agreement, votes_of(np.full((5, 2), 1.0))) == 1.0, "percent agreement is defined there"
    never = votes_of(np.array([[0.0, 1.0]] * 5))
    assert point(cohen_kappa, never) == 0.0 and point(percent_agreement, never) == 0.0


@pytest.mark.parametrize("measure", [*MEASURES.values(), cohen_kappa])
def test_nothing_shared(measure):
    assert measure(Votes.of([0, 1, 2], [0, 1, 2], [1, 1, 0])) == Agreement(
        None, why="no item has answers from two judges"
    )
    assert measure(Votes.of([], [], [])).why == "no item has answers from two judges"


def test_fleiss_refuses_ragged_votes_and_cohen_three_judges():
    found = fleiss_kappa(Votes.of([0, 0, 1, 1, 1], [0, 1, 0, 1, 2], [1, 0, 1, 1, 0]))
    assert found.value is None and "2 to 3 votes" in found.why and found.n_items == 2
    three = votes_of(grid_of(0, judges=3, missing=0))
    assert cohen_kappa(three).value is None and "two judges" in cohen_kappa(three).why
    assert cohen_kappa(three.by([0, 2]), draws=0).n_judges == 2


def test_too_few_differing_answers_have_a_value_but_no_interval():
    grid = np.zeros((40, 2))
    grid[0, 0] = 1.0
    found = krippendorff_alpha(votes_of(grid))
    assert found.value is not None and found.low is None and "too few" in found.why
    one = krippendorff_alpha(Votes.of([0, 0], [0, 1], [0, 1]))
    assert one.value == 0.0 and one.low is None and one.why == "one item has no interval"


# Symmetries


@few
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_names_and_order_do_not_matter(seed, shuffle):
    votes = votes_of(grid_of(seed, missing=0.2))
    item, judge, row = list(range(25)), list(range(4)), list(range(len(votes)))
    for names in (item, judge, row):
        shuffle.shuffle(names)
    renamed = Votes(np.array(item)[votes.item] * 10**9, np.array(judge)[votes.judge], votes.value)
    for measure in MEASURES.values():
        assert point(measure, renamed.where(np.array(row))) == (
            None if point(measure, votes) is None else pytest.approx(point(measure, votes))
        )


@few
@given(st.integers(0, 10_000))
def test_swapping_labels_changes_nothing(seed):
    """Nominal measures do not know what a value is called; ordinal and interval ones know it up to a reflection."""
    grid = grid_of(seed)
    votes, renamed = (
        votes_of(grid),
        votes_of(np.array([2.0, 0.0, 3.0, 1.0, np.nan])[np.nan_to_num(grid, nan=4).astype(int)]),
    )
    for name in ("percent", "nominal", "ac1"):
        assert point(MEASURES[name], renamed) == pytest.approx(point(MEASURES[name], votes))
    for name in ("ordinal", "interval"):
        assert point(MEASURES[name], votes_of(-grid)) == pytest.approx(point(MEASURES[name], votes))
    assert point(MEASURES["interval"], votes_of(0.1 * grid + 7)) == pytest.approx(point(MEASURES["interval"], votes))
    assert point(MEASURES["ordinal"], votes_of(np.exp(grid))) == pytest.approx(point(MEASURES["ordinal"], votes))


def test_display_positions_have_to_be_taken_back_first():
    """Judges who agree look as if they did not while their answers are still positions; put back, they agree."""
    random = np.random.default_rng(3)
    better = np.repeat(random.choice([-1, 1], 200), 2)
    swapped = random.choice([-1, 1], 400)
    item, judge = np.repeat(np.arange(200), 2), np.tile([0, 1], 200)
    shown = better * swapped
    assert point(percent_agreement, Votes.of(item, judge, shown * swapped)) == 1.0
    assert point(percent_agreement, Votes.of(item, judge, shown)) == pytest.approx(0.5, abs=0.1)


def test_a_later_vote_replaces_the_earlier():
    first = Votes.of([0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0])
    revised = Votes.of([0, 0, 1, 1, 0], [0, 1, 0, 1, 1], [1, 0, 0, 0, 1])
    assert point(percent_agreement, first) == 0.5 and point(percent_agreement, revised) == 1.0
    assert revised.latest().value.tolist() == [1, 0, 0, 1]


def test_ties_in_and_out():
    votes = Votes.of([0, 0, 1, 1, 2, 2], [0, 1] * 3, [1, 1, 0, 1, 0, 0])
    assert percent_agreement(votes).value == pytest.approx(2 / 3)
    assert percent_agreement(votes, without=0).value == 1.0 and percent_agreement(votes, without=0).n_items == 1


def test_rankings_as_votes_on_pairs():
    votes = ranking_votes([7, 7], [0, 1], [[1, 2, 2], [1, 3, 2]])
    assert votes.value.tolist() == [1, 1, 0, 1, 1, -1] and votes.cluster.tolist() == [7] * 6
    assert point(percent_agreement, votes) == pytest.approx(2 / 3)
    assert point(lambda v, **more: percent_agreement(v, without=0, **more), votes) == 1.0
    assert len(ranking_votes([0], [0], [[1, 2, np.nan]])) == 1


def test_votes_by_name():
    votes, items, judges = Votes.named(["x", "y", "x"], ["bo", "bo", "al"], [1, 0, 1])
    assert items == ["x", "y"] and judges == ["al", "bo"]
    assert votes.item.tolist() == [0, 1, 0] and votes.judge.tolist() == [1, 1, 0]


# Intervals


def slow_redraws(votes: Votes, measure, draws: int, seed: int) -> tuple[float, float]:
    """The same bootstrap as people would write it: draw items, write their votes out, measure again."""
    random, items = np.random.default_rng(seed), np.unique(votes.item)
    rows = {int(i): np.flatnonzero(votes.item == i) for i in items}
    values = []
    for _ in range(draws):
        drawn = [rows[int(i)] for i in random.choice(items, len(items))]
        names = np.repeat(np.arange(len(drawn)), [len(r) for r in drawn])
        row = np.concatenate(drawn)
        values.append(point(measure, Votes(names, votes.judge[row], votes.value[row])))
    return tuple(np.quantile([v for v in values if v is not None], [0.025, 0.975]))


@pytest.mark.parametrize("name", MEASURES)
def test_the_interval_is_that_of_the_bootstrap_written_out(name):
    votes = votes_of(grid_of(5, items=80, missing=0))
    found = MEASURES[name](votes, draws=4000, seed=1)
    low, high = slow_redraws(votes, MEASURES[name], 500, 2)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.035)
    assert found.low < found.value < found.high
    assert MEASURES[name](votes, draws=30, seed=1) == MEASURES[name](votes, draws=30, seed=1)
    assert MEASURES[name](votes, draws=30, seed=1) != MEASURES[name](votes, draws=30, seed=2)


def test_the_interval_of_cohen():
    votes = votes_of(grid_of(6, items=80, judges=2, missing=0))
    found = cohen_kappa(votes, "quadratic", draws=4000)
    low, high = slow_redraws(votes, lambda v, **more: cohen_kappa(v, "quadratic", **more), 500, 2)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.035)


def test_the_interval_covers_as_often_as_it_says():
    covered = 0
    for trial in range(200):
        random = np.random.default_rng(trial)
        truth = random.integers(0, 2, (100, 1))
        said = np.where(random.random((100, 3)) < 0.85, truth, 1 - truth).astype(float)
        found = percent_agreement(votes_of(said), draws=400, seed=trial)
        covered += found.low <= 0.85**2 + 0.15**2 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_items_of_one_cluster_are_redrawn_together():
    """Ten pairs of a ranking that all go one way are one observation, not ten."""
    random = np.random.default_rng(4)
    agree = np.repeat(random.random(40) < 0.7, 10)
    item, cluster = np.arange(400), np.repeat(np.arange(40), 10)
    columns = np.repeat(item, 2), np.tile([0, 1], 400), np.stack([agree, np.ones(400)], 1).ravel()
    alone, together = Votes.of(*columns), Votes.of(*columns, np.repeat(cluster, 2))
    one, other = percent_agreement(alone), percent_agreement(together)
    assert one.value == other.value
    assert 2.2 < (other.high - other.low) / (one.high - one.low) < 4.2  # the root of ten
    for measure in (cohen_kappa, krippendorff_alpha, MEASURES["interval"]):
        assert measure(together, draws=50).low is not None


def test_a_million_votes_take_about_a_second():
    random = np.random.default_rng(0)
    items = 333_333
    item, judge = (
        np.repeat(np.arange(items), 3),
        np.tile([0, 1, 2], items) + 3 * np.repeat(random.integers(0, 10, items), 3),
    )
    value = np.where(
        random.random(3 * items) < 0.7, random.integers(-3, 4, items)[item], random.integers(-3, 4, 3 * items)
    )
    votes = Votes.of(item, judge, value)
    start = time.process_time()
    found = krippendorff_alpha(votes, "ordinal")
    assert time.process_time() - start < 4, "with its interval; about half a second on a quiet machine"
    assert found.n_items == items and found.high - found.low < 0.01


# Degrees, and means


@few
@given(st.integers(0, 10_000), st.integers(2, 7))
def test_quadratic_kappa_of_two_is_scikit_learns(seed, values):
    grid = grid_of(seed, judges=2, values=values, missing=0.2)
    both = grid[~np.isnan(grid).any(1)]
    expected = cohen_kappa_score(*both.T, weights="quadratic", labels=range(values)) if len(both) else np.nan
    found = point(quadratic_kappa, votes_of(grid))
    assert found is None if np.isnan(expected) else found == pytest.approx(expected, abs=1e-9)


@few
@given(st.integers(0, 10_000))
def test_quadratic_kappa_of_several_is_pooled_over_each_two(seed):
    """Written out: each two judges on what they share, chance from the habits of each on all they share."""
    grid = grid_of(seed, judges=4)
    grid = grid[(~np.isnan(grid)).sum(1) > 1]
    seen, chance = [], []
    for a, b in combinations(range(4), 2):
        x, y = grid[:, a], grid[:, b]
        both = ~np.isnan(x) & ~np.isnan(y)
        seen += ((x - y) ** 2)[both].tolist()
        x, y = x[~np.isnan(x)], y[~np.isnan(y)]
        chance += [np.mean((x[:, None] - y[None]) ** 2)] * int(both.sum())
    assert point(quadratic_kappa, votes_of(grid)) == pytest.approx(1 - np.mean(seen) / np.mean(chance), abs=1e-9)


def test_quadratic_kappa_has_an_interval_and_is_undefined_where_cohens_is():
    found = quadratic_kappa(votes_of(grid_of(0, items=200, judges=2)))
    cohens = cohen_kappa(votes_of(grid_of(0, items=200, judges=2)), "quadratic")
    assert (found.low, found.high) == pytest.approx((cohens.low, cohens.high), abs=0.03)
    assert quadratic_kappa(votes_of(np.full((5, 2), 3.0))).why == "all answers equal"
    assert quadratic_kappa(votes_of(np.eye(3))).value is not None
    assert quadratic_kappa(Votes.of([0, 1], [0, 1], [1, 2])).why == "no item has answers from two judges"


def test_a_mean_redraws_items_and_one_value_each_is_enough():
    items, per_item = 400, np.random.default_rng(0).integers(0, 2, 400)
    item, value = np.repeat(np.arange(items), 5), np.repeat(per_item, 5)  # the five of an item are one and the same
    found = mean_by_item(item, value)
    assert found.value == pytest.approx(value.mean()) and found.n_items == items
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15), "not that of 2,000 values"
    assert mean_by_item([], []).why == "no answers" and mean_by_item([1], [2]).value == 2


# Real people


@pytest.mark.skipif("TRUEUP_REAL_DATA" not in os.environ, reason="TRUEUP_REAL_DATA names no folder of real data")
def test_two_real_annotators():
    """XSTest: 450 completions, each put by two people into compliance, refusal or partial refusal."""
    path = Path(os.environ["TRUEUP_REAL_DATA"]) / "xstest" / "xstest_v2_completions_llama2new.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["annotation_1", "annotation_2"]
    grid = np.array([[float(row[name].split("_")[0]) for name in names] for row in rows])
    votes = votes_of(grid)
    agreed = percent_agreement(votes)
    assert agreed.value == np.mean([row["agreement"] == "TRUE" for row in rows]) == pytest.approx(431 / 450)
    assert cohen_kappa(votes, draws=0).value == pytest.approx(cohen_kappa_score(*grid.T), abs=1e-12)
    assert point(fleiss_kappa, votes) == pytest.approx(statsmodels_fleiss(aggregate_raters(grid.astype(int))[0]))
    for level in ("nominal", "ordinal", "interval"):
        expected = krippendorff.alpha(reliability_data=grid.T, level_of_measurement=level)
        assert krippendorff_alpha(votes, level, draws=0).value == pytest.approx(expected, abs=1e-9)
    quadratic = cohen_kappa_score(*grid.T, weights="quadratic")
    assert cohen_kappa(votes, "quadratic", draws=0).value == pytest.approx(quadratic, abs=1e-12)
    assert quadratic_kappa(votes, draws=0).value == pytest.approx(quadratic, abs=1e-12)
    share = np.array([(grid == value).mean() for value in np.unique(grid)])
    by_chance = (share * (1 - share)).sum() / (len(share) - 1)
    assert point(gwet_ac1, votes) == pytest.approx((431 / 450 - by_chance) / (1 - by_chance))
    assert agreed.low < agreed.value < agreed.high and agreed.n_items == 450 and agreed.n_judges == 2
    decided = np.array([float(row["final_label"].split("_")[0]) for row in rows])
    alike = grid[:, 0] == grid[:, 1]
    found = mace(Votes.of(votes.item, votes.judge, np.searchsorted(np.unique(grid), votes.value)), 3)
    assert (np.unique(grid)[found.answer] == decided)[alike].all() and found.reliability.min() > 0.9
