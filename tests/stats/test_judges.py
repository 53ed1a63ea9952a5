"""Detectors: figures and thresholds against SciPy and statsmodels, and what each does at its edges.

How often they warn on simulated judges is measured in tests/feedback/test_rehearsal.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint, proportions_ztest

from trueup.stats import (
    Votes,
    drift,
    gold_accuracy,
    leave_one_out_agreement,
    length_bias,
    longest_run,
    position_bias,
    self_consistency,
    sequential_decision,
    sequential_gold_test,
    skip_rate,
    speed,
)

few = settings(max_examples=60, deadline=None)


@few
@given(st.integers(1, 200), st.data())
def test_shares_have_wilsons_interval_and_exact_thresholds(n, data):
    k = data.draw(st.integers(0, n))
    low, high = proportion_confint(k, n, method="wilson")
    golds, again, sides = gold_accuracy(k, n), self_consistency(k, n), position_bias(k, n)
    for found in (golds, again, sides):
        assert (found.value, found.low, found.high) == pytest.approx((k / n, low, high), abs=1e-9) and found.n == n
    assert golds.warn == (oracle.binom.cdf(k, n, 0.84) < 0.01)
    assert again.warn == (oracle.binom.cdf(k, n, 0.7) < 0.01)
    assert sides.warn == (oracle.binomtest(k, n).pvalue < 0.01 and abs(k / n - 0.5) >= 0.05)


def test_an_expected_share_can_be_given():
    assert gold_accuracy(12, 20).warn and not gold_accuracy(12, 20, expected=0.7).warn
    assert not self_consistency(12, 20).warn and self_consistency(12, 20, expected=0.9).warn
    assert gold_accuracy(12, 20, judge="human:abc123").judge == "human:abc123"
    assert gold_accuracy(12, 20).message == "12 of 20 golds right, 84% expected"


def test_a_tiny_bias_is_no_warning_however_sure():
    assert oracle.binomtest(51_500, 100_000).pvalue < 1e-9
    assert not position_bias(51_500, 100_000).warn and position_bias(51_500, 100_000, smallest=0.01).warn
    assert position_bias(30, 100).warn and position_bias(70, 100).warn, "to either side"


@few
@given(st.integers(5, 200), st.integers(20, 2000), st.data())
def test_length_bias_is_the_two_sample_z_test(n, others_n, data):
    k, others = data.draw(st.integers(1, n - 1)), data.draw(st.integers(1, others_n - 1))
    found = length_bias(k, n, others, others_n)
    p = proportions_ztest([k, others], [n, others_n], alternative="larger")[1]
    assert found.warn == (p < 0.01 and k / n - others / others_n >= 0.05)


def test_longer_is_no_fault_where_the_others_prefer_it_too():
    assert not length_bias(80, 100, 800, 1000).warn and length_bias(80, 100, 600, 1000).warn
    assert not length_bias(40, 100, 600, 1000).warn, "preferring the shorter is another matter"
    assert not length_bias(10, 10, 100, 100).warn


def test_nothing_seen_yet_is_no_finding():
    empty = [
        gold_accuracy(0, 0),
        sequential_gold_test([]),
        position_bias(0, 0),
        length_bias(0, 0, 5, 9),
        length_bias(5, 9, 0, 0),
        speed([], []),
        longest_run([]),
        self_consistency(0, 0),
        drift([True]),
    ]
    assert all((f.value, f.low, f.high, f.n, f.warn) == (None, None, None, 0, False) and f.message for f in empty)
    assert leave_one_out_agreement(Votes.of([], [], [])) == []
    assert set(empty[0].to_json()) == {"judge", "value", "low", "high", "n", "warn", "message"}


# Golds one after the other


def test_walds_test_by_hand():
    """Each right answer weighs log(0.84 / 0.6), each wrong one log(0.16 / 0.4); log 19 decides."""
    assert sequential_decision([True] * 8) == "undecided" and sequential_decision([True] * 9) == "pass"
    assert sequential_decision([False] * 3) == "undecided" and sequential_decision([False] * 4) == "fail"
    assert sequential_decision([False] * 4 + [True] * 50) == "fail", "once decided it stays so"
    found = sequential_gold_test([False] * 4, judge="x")
    assert found.warn and found.value == 0.0 and found.judge == "x"
    assert not sequential_gold_test([True] * 9).warn and not sequential_gold_test([True]).warn


@pytest.mark.parametrize(("accuracy", "wrong", "most"), [(0.84, "fail", 0.06), (0.6, "pass", 0.06)])
def test_walds_test_errs_as_seldom_as_promised_and_stops_early(accuracy, wrong, most):
    random = np.random.default_rng(0)
    answers = random.random((2000, 200)) < accuracy
    decisions = [sequential_decision(row.tolist()) for row in answers]
    assert np.mean([d == wrong for d in decisions]) < most and decisions.count("undecided") < 5
    early = [sequential_decision(row.tolist()) != "undecided" for row in answers[:, :20]]
    assert np.mean(early) > 0.6


# The others


def test_leave_one_out_by_a_plain_loop():
    random = np.random.default_rng(1)
    rows = [(i, j, random.integers(0, 3)) for i in range(40) for j in range(5) if random.random() < 0.8]
    votes = Votes.of(*zip(*rows, strict=True))
    agreed: dict[int, list[bool]] = {}
    for item, judge, value in rows:
        others = [v for i, j, v in rows if i == item and j != judge]
        most = max(map(others.count, others), default=0)
        leaders = {v for v in others if others.count(v) == most}
        if len(leaders) == 1:
            agreed.setdefault(judge, []).append(value in leaders)
    found = {int(f.judge): f for f in leave_one_out_agreement(votes)}
    assert {j: (f.value, f.n) for j, f in found.items()} == {j: (np.mean(x), len(x)) for j, x in agreed.items()}


def test_the_odd_one_out_is_named():
    random = np.random.default_rng(2)
    truth = random.integers(0, 2, (200, 1))
    said = np.where(random.random((200, 5)) < 0.85, truth, 1 - truth)
    said[:, 3] = random.integers(0, 2, 200)
    item, judge = np.indices(said.shape).reshape(2, -1)
    found = leave_one_out_agreement(Votes.of(item, judge, said.ravel()), ["a", "b", "c", "odd", "e"])
    assert [f.judge for f in found if f.warn] == ["odd"] and all(f.low < f.value < f.high for f in found)
    two = leave_one_out_agreement(Votes.of(item, judge, said.ravel()).by([0, 3]))
    assert not any(f.warn for f in two), "of two who differ nobody knows who is odd"


@few
@given(st.integers(0, 1000))
def test_neither_names_of_values_nor_order_of_rows_matter(seed):
    random = np.random.default_rng(seed)
    item, judge = np.indices((12, 4)).reshape(2, -1)
    value, order = random.integers(0, 3, 48), random.permutation(48)
    votes, other = Votes.of(item, judge, value), Votes.of(item[order], judge[order], np.array([5, -1, 2])[value][order])
    assert leave_one_out_agreement(votes) == leave_one_out_agreement(other)


# Speed


@few
@given(st.integers(9, 300), st.integers(0, 100))
def test_the_median_has_its_exact_interval(n, seed):
    """As order statistics give it: the outermost values that leave 2.5% on either side."""
    rates = np.sort(np.random.default_rng(seed).uniform(1, 5, n))
    found = speed(1 / rates, np.ones(n))
    below = int(oracle.binom.ppf(0.025, n, 0.5)) - (oracle.binom.cdf(oracle.binom.ppf(0.025, n, 0.5), n, 0.5) > 0.025)
    assert found.value == pytest.approx(np.median(rates))
    assert (found.low, found.high) == pytest.approx((rates[below], rates[n - 1 - below]))


def test_faster_than_anybody_reads():
    assert speed([2.0] * 10, [100] * 10).warn and not speed([25.0] * 10, [100] * 10).warn
    assert not speed([2.0] * 3, [100] * 3).warn, "three answers prove nothing"
    assert speed([2.0] * 3, [100] * 3).low is None
    assert not speed([2.0] * 10 + [30.0] * 10, [100] * 20).warn, "half of them were read"
    assert np.isfinite(speed([0.0] * 10, [100] * 10).value)


# Runs


def longest(keys: np.ndarray) -> int:
    run = best = 1
    for before, after in zip(keys, keys[1:], strict=False):
        run = run + 1 if before == after else 1
        best = max(best, run)
    return best


@pytest.mark.parametrize(("n", "sides"), [(20, 2), (100, 2), (100, 4), (1000, 2)])
def test_the_bound_on_runs_holds_and_is_not_far_off(n, sides):
    random = np.random.default_rng(3)
    runs = [longest(row) for row in random.integers(0, sides, (1500, n))]
    fewest = next(k for k in range(1, n + 1) if longest_run(([0] * k + [1, 0] * n)[:n], chance=1 / sides).warn)
    assert np.mean(np.array(runs) >= fewest) <= 0.013
    assert np.mean(np.array(runs) >= fewest - 2) > 0.008, "two fewer would come too often"


def test_runs_of_keys():
    assert longest_run([1, 1, 2, 2, 2, 1]).value == 3 and not longest_run([1, 1, 2, 2, 2, 1]).warn
    assert longest_run([-1] * 15).warn and not longest_run([-1] * 5).warn
    assert longest_run(["left", "right"] * 50).value == 1 and longest_run([0]).value == 1
    assert not longest_run([0] * 15, chance=0.9).warn, "where most pairs are ties, ties in a row are nothing odd"


# Drift


def test_drift_finds_the_moment():
    found = drift([True] * 40 + [False, True] * 20)
    assert found.warn and found.value == pytest.approx(-0.5, abs=0.03) and found.n == 80
    assert "went from 100% (40)" in found.message
    low, high = confint_proportions_2indep(20, 40, 40, 40, method="newcomb")
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_no_drift_where_there_is_none():
    assert not drift([True, False] * 30).warn and not drift([True] * 50).warn and not drift([False] * 50).warn
    assert not drift([False] * 20 + [True] * 20).warn, "getting better is no reason to warn"


def test_drift_warns_of_steady_judges_as_seldom_as_promised():
    random = np.random.default_rng(4)
    warned = [drift((random.random(40) < 0.8).tolist(), draws=499, seed=trial).warn for trial in range(600)]
    assert oracle.binomtest(sum(warned), 600, 0.01, alternative="greater").pvalue > 0.01


def test_drift_is_seeded_and_does_not_depend_on_block_size(monkeypatch):
    rows = [(np.random.default_rng(trial).random(60) < np.linspace(0.95, 0.5, 60)).tolist() for trial in range(20)]
    whole = [drift(hits, seed=1) for hits in rows]
    monkeypatch.setattr("trueup.stats.judges._CELLS", 700)
    assert [drift(hits, seed=1) for hits in rows] == whole
    assert len({found.warn for found in whole}) == 2


@few
@given(st.integers(0, 30), st.integers(0, 60), st.integers(0, 40), st.integers(1, 200))
def test_skips_are_fishers_exact_test(skipped, judged, others_skipped, others_judged):
    found = skip_rate(skipped, judged, others_skipped, others_judged)
    if skipped + judged == 0:
        assert found.value is None and not found.warn
        return
    table = [[skipped, judged], [others_skipped, others_judged]]
    chance = oracle.fisher_exact(table, alternative="greater").pvalue
    n, others = skipped + judged, others_skipped / (others_skipped + others_judged)
    assert found.value == skipped / n and found.n == n
    assert found.warn == (chance < 0.01 and skipped / n - others >= 0.05)


def test_skips_of_one_judge_alone_and_a_difference_that_is_sure_but_small():
    assert skip_rate(5, 5, 0, 0).value == 0.5 and not skip_rate(50, 0, 0, 0).warn
    assert not skip_rate(400, 9600, 0, 10_000).warn, "four points are not worth a warning, however sure"
    assert skip_rate(30, 70, 20, 980).warn and not skip_rate(2, 98, 20, 980).warn
    assert "skipped 30 of 100 (30%), the others 2%" in skip_rate(30, 70, 20, 980).message
