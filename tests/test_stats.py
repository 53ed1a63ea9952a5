"""Every figure against something computed another way: scipy, enumeration, simulation, or a value known by hand."""

from __future__ import annotations

from itertools import combinations
from math import comb, e, exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as oracle

from trueup.records import Judgement, Prompt
from trueup.stats import (
    accuracy,
    best_of_n_kl,
    best_of_n_mean,
    bootstrap_difference,
    bootstrap_mean,
    ceiling,
    fit_best_of_n,
    fit_rl,
    judged_pairs,
    pair_accuracy,
    sign_test,
    wilson,
    winrate,
)

few = settings(max_examples=60, deadline=None)


# --- intervals ------------------------------------------------------------------------------------


@few
@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n, share, level):
    successes = round(share * n)
    expected = oracle.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_takes_halves_and_knows_nothing_of_no_trials():
    low, high = wilson(50.5, 100)
    assert wilson(50, 100)[0] < low < wilson(51, 100)[0] and wilson(50, 100)[1] < high < wilson(51, 100)[1]
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0


@pytest.mark.parametrize("share", [0.5, 0.7, 0.85])
def test_wilson_covers_the_truth_as_often_as_it_says(share):
    n, trials = 200, 4000
    drawn = np.random.default_rng(1).binomial(n, share, trials)
    bounds = {int(k): wilson(int(k), n) for k in set(drawn)}
    covered = np.mean([bounds[int(k)][0] <= share <= bounds[int(k)][1] for k in drawn])
    assert 0.93 <= covered <= 0.97


def test_clustered_bootstrap_covers_where_independent_rows_would_not():
    random, truth = np.random.default_rng(2), 0.0
    clustered = independent = 0
    for trial in range(300):
        shared = np.repeat(random.normal(size=60), 5)
        values = truth + shared + 0.3 * random.normal(size=300)
        low, high = bootstrap_mean(values, np.repeat(np.arange(60), 5), draws=400, seed=trial)
        clustered += low <= truth <= high
        low, high = bootstrap_mean(values, draws=400, seed=trial)
        independent += low <= truth <= high
    assert 0.90 <= clustered / 300 <= 0.98
    assert independent / 300 < 0.75


def test_bootstrap_agrees_with_the_normal_interval_and_with_scipy():
    values = np.random.default_rng(3).normal(2, 3, 500)
    half = 1.96 * values.std(ddof=1) / 500**0.5
    assert bootstrap_mean(values, draws=8000) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    theirs = oracle.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=1).confidence_interval
    assert bootstrap_mean(values, draws=8000) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_bootstrap_weighs_rows_not_clusters_and_uses_whole_clusters():
    # two clusters only: every redraw is one of three, so the ends are the means of the clusters themselves
    assert bootstrap_mean([1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]) == (1.0, 5.0)
    assert bootstrap_mean([1.0, 2.0], ["a", "a"]) == (-np.inf, np.inf)
    sizes = np.tile([1, 9], 100)
    low, high = bootstrap_mean(np.repeat(sizes, sizes), np.repeat(np.arange(200), sizes))
    assert low < 8.2 < high and low > 6  # rows: (1 + 81) / 10; clusters alone would give 5


def test_bootstrap_is_seeded_and_does_not_depend_on_block_size(monkeypatch):
    values = np.arange(50.0)
    whole = bootstrap_mean(values, seed=4)
    assert whole == bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)
    monkeypatch.setattr("trueup.stats.intervals._CELLS", 1000)
    assert bootstrap_mean(values, seed=4) == whole


def test_bootstrap_of_a_difference():
    random = np.random.default_rng(5)
    a, b = random.normal(1, 1, 400), random.normal(0, 2, 900)
    half = 1.96 * (a.var(ddof=1) / 400 + b.var(ddof=1) / 900) ** 0.5
    middle = a.mean() - b.mean()
    assert bootstrap_difference(a, b, draws=8000) == pytest.approx((middle - half, middle + half), abs=0.02)
    same = bootstrap_difference(a, a, draws=2000)
    assert same[0] < 0 < same[1]  # two samples, drawn apart: not the zero width of a paired difference


# --- win rates ------------------------------------------------------------------------------------


@few
@given(st.integers(0, 700), st.integers(0, 700))
def test_sign_test_is_scipys(wins, losses):
    expected = oracle.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_sign_test_of_very_many_pairs():
    assert sign_test(50_300, 49_700) == pytest.approx(oracle.binomtest(50_300, 100_000).pvalue, rel=1e-6)
    assert sign_test(60_000, 40_000) == pytest.approx(0.0, abs=1e-300)


def test_win_rate_counts_ties_half():
    found = winrate([1, 2, 3, 4], [0, 2, 5, 1])
    assert (found.value, found.wins, found.ties, found.losses, found.n) == (0.625, 2, 1, 1, 4)
    assert found.ci == wilson(2.5, 4)
    assert found.p_value == oracle.binomtest(2, 3).pvalue
    assert set(found.to_json()) == {"value", "ci", "n", "wins", "ties", "losses", "p_value"}


def test_win_rate_tolerance_and_symmetry():
    random = np.random.default_rng(6)
    a, b = random.normal(size=200), random.normal(size=200)
    assert winrate(a, b).value == pytest.approx(1 - winrate(b, a).value)
    assert winrate(a, b, tolerance=100).ties == 200 and winrate(a, b, tolerance=100).value == 0.5
    assert winrate([1.0], [0.5], tolerance=0.5).ties == 1
    assert winrate([1.0], [0.9], tolerance=0.05).wins == 1 and winrate([1.0], [0.9], tolerance=0.2).ties == 1


def test_clusters_widen_the_interval_and_soften_the_test():
    random = np.random.default_rng(7)
    better = np.repeat(random.random(40) < 0.65, 10).astype(float)  # all ten pairs of a prompt go one way
    alone, together = winrate(better, 1 - better), winrate(better, 1 - better, np.repeat(np.arange(40), 10))
    assert together.value == alone.value
    assert np.ptp(together.ci) > 2 * np.ptp(alone.ci)
    assert together.p_value > alone.p_value
    one = winrate([1, 1], [0, 0], ["p", "p"])
    assert one.ci == (0.0, 1.0)


# --- preferences ----------------------------------------------------------------------------------


def test_a_constant_scorer_is_right_exactly_half_the_time():
    targets = [1, 0, 1, 1, 0.5, 0, 1]
    assert accuracy(np.full(7, 3.0) - 3.0, targets).value == 0.5


def test_accuracy_against_a_plain_loop():
    random = np.random.default_rng(8)
    margins, targets = random.integers(-2, 3, 300), random.choice([0, 0.5, 1], 300)
    points = judged = 0.0
    for margin, target in zip(margins, targets, strict=True):
        judged += target != 0.5
        if target != 0.5 and margin == 0:
            points += 0.5
        elif target != 0.5 and (margin > 0) == (target == 1):
            points += 1
    found = accuracy(margins, targets)
    assert found.value == pytest.approx(points / judged) and found.n == judged
    assert found.ci == wilson(points, int(judged))
    assert accuracy([1, 2], [0.5, 0.5], ["p", "q"]).to_json() == {"value": 0.5, "ci": [0.0, 1.0], "n": 0}
    assert pair_accuracy([2, 1, 1], [1, 2, 1], [0.9, 0.9, 0.9]).tolist() == [1.0, 0.0, 0.5]


def test_judged_pairs_of_a_ranking():
    ranking = Judgement(Prompt.user("p"), ("a", "b", "c"), (1, 2, 2), "j", "human")
    margins, targets, prompts = judged_pairs([ranking], [[3.0, 1.0, 2.0]])
    assert margins.tolist() == [2.0, 1.0, -1.0] and targets.tolist() == [1.0, 1.0, 0.5]
    assert prompts == [ranking.prompt.id] * 3
    assert accuracy(margins, targets, prompts).value == 1.0
    assert judged_pairs([], [])[0].shape == (0,)


def test_ceiling_is_the_accuracy_of_the_scorer_that_knows_the_odds():
    random = np.random.default_rng(9)
    p = random.random(20_000)
    says = random.random(20_000) < p
    found = ceiling(p)
    assert found.value == pytest.approx(np.mean((p > 0.5) == says), abs=0.01)
    assert found.ci[0] < found.value < found.ci[1] and found.n == 20_000
    assert ceiling([0.5, 0.5]).value == 0.5 and ceiling([0.0, 1.0]).value == 1.0


# --- curves ---------------------------------------------------------------------------------------


def test_best_of_n_kl_is_the_divergence_of_the_highest_of_n():
    assert best_of_n_kl(1) == 0
    u = (np.arange(200_000) + 0.5) / 200_000  # the highest of n uniform samples has density n u^(n-1)
    for n in (2, 4, 16):
        density = n * u ** (n - 1)
        assert best_of_n_kl(n) == pytest.approx(np.mean(density * np.log(density)), abs=1e-4)


@few
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_best_of_n_mean_is_the_average_over_all_subsets(samples, n, seed):
    n = min(n, samples)
    random = np.random.default_rng(seed)
    proxy, gold = random.integers(0, 4, (2, samples)), random.normal(size=(2, samples))
    expected = []
    for proxies, golds in zip(proxy, gold, strict=True):
        picks = [
            np.mean([golds[i] for i in chosen if proxies[i] == max(proxies[list(chosen)])])
            for chosen in combinations(range(samples), n)
        ]
        assert len(picks) == comb(samples, n)
        expected.append(np.mean(picks))
    assert best_of_n_mean(proxy, gold, n) == pytest.approx(np.mean(expected))


def test_best_of_n_mean_of_one_and_of_all():
    proxy, gold = [[1.0, 3.0, 2.0]], [[10.0, 20.0, 60.0]]
    assert best_of_n_mean(proxy, gold, 1) == pytest.approx(30.0)
    assert best_of_n_mean(proxy, gold, 3) == pytest.approx(20.0)


def test_fits_find_the_curve_and_its_peak():
    d = np.array([0.0, 0.3, 0.7, 1.0, 2.0, 3.0, 5.0])
    bon = fit_best_of_n(d, d * (1.2 - 0.2 * d))
    assert (bon.a, bon.b, bon.residual) == pytest.approx((1.2, 0.2, 0.0), abs=1e-9)
    assert bon.peak == pytest.approx(3.0)
    rl = fit_rl(d, [0.0, *(x * (0.9 - 0.4 * log(x)) for x in d[1:])])
    assert (rl.a, rl.b, rl.residual) == pytest.approx((0.9, 0.4, 0.0), abs=1e-9)
    assert rl.peak == pytest.approx(exp(0.9 / 0.4 - 1))
    for fit in (bon, rl):  # the peak is where the curve is highest
        grid = np.linspace(0.01, 12, 20_000)
        assert grid[np.argmax(fit.at(grid))] == pytest.approx(fit.peak, abs=1e-3)


def test_a_curve_that_never_turns_down_has_no_peak():
    d = np.array([1.0, 2.0, 3.0])
    assert fit_best_of_n(d, d * (1 + 0.1 * d)).peak is None
    assert fit_rl(d, d * (1 + 0.1 * np.log(d))).peak is None


def test_fit_of_noisy_points_is_the_least_squares_one():
    random = np.random.default_rng(11)
    d = np.linspace(0.2, 4, 30)
    y = d * (1 - 0.3 * np.log(d)) + 0.1 * random.normal(size=30)
    (a, b), _ = optimize.curve_fit(lambda x, a, b: x * (a - b * np.log(x)), d, y)
    fit = fit_rl(d, y)
    assert (fit.a, fit.b) == pytest.approx((a, b), abs=1e-5)
    assert fit.residual == pytest.approx(np.sqrt(np.mean((fit.at(d) - y) ** 2)))
    assert fit.at(e) == pytest.approx(e * (fit.a - fit.b))
