"""Where a score stops being worth climbing: best-of-n against all subsets, planted peaks, intervals that keep their
level, and Student's distribution against scipy."""

from __future__ import annotations

from itertools import combinations
from math import inf

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.stats import best_of_n_kl, best_of_n_mean, bootstrap_mean
from trueup.stats.overoptimisation import (
    Curve,
    best_of_n_curve,
    compare_curves,
    mean_curve,
    mean_over_runs,
    peak,
    student_quantile,
)

DISTANCE = np.array([0.0, 0.5, 1.0, 1.5, 2.0])


def hill(top: float, prompts: int, noise: float, seed: int, between: float = 0.0) -> Curve:
    """Curves whose mean is highest at `top`, with noise at each point and a height of each prompt's own."""
    random = np.random.default_rng(seed)
    own = np.random.default_rng(99).normal(0, between, (prompts, 1)) if between else 0.0
    return Curve(DISTANCE, -((DISTANCE - top) ** 2) + own + random.normal(0, noise, (prompts, len(DISTANCE))))


# --- best of n


def best_by_hand(proxy: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The average over every subset of n, and over its highest samples where several are equally high."""
    picks = []
    for chosen in combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in chosen)
        picks.append(np.mean([gold[i] for i in chosen if proxy[i] == top]))
    return float(np.mean(picks))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 3), st.integers(0, 10_000))
def test_the_curve_is_the_average_over_all_subsets_of_each_prompt(samples, prompts, seed):
    random = np.random.default_rng(seed)
    proxy, gold = random.integers(0, 4, (prompts, samples)), random.normal(size=(prompts, samples))
    counts = list(range(1, samples + 1))
    found = best_of_n_curve(proxy, gold, counts)
    expected = [[best_by_hand(p, g, n) for n in counts] for p, g in zip(proxy, gold, strict=True)]
    assert found.gain == pytest.approx(np.array(expected))
    assert found.distance == pytest.approx([best_of_n_kl(n) for n in counts])
    assert found.mean() == pytest.approx([best_of_n_mean(proxy, gold, n) for n in counts])


def test_a_scorer_that_says_nothing_chooses_by_chance_at_every_n():
    gold = np.random.default_rng(0).normal(size=(4, 64))
    found = best_of_n_curve(np.zeros((4, 64)), gold, [1, 7, 64])
    assert found.gain == pytest.approx(np.repeat(gold.mean(1)[:, None], 3, axis=1))


# --- curves


def test_the_intervals_of_a_line_are_those_of_its_means():
    curve = hill(1.0, 30, 1.0, seed=1)
    for i, point in enumerate(curve.points(seed=5)):
        assert point.value == pytest.approx(curve.gain[:, i].mean()) and point.n == 30
        assert point.ci == pytest.approx(bootstrap_mean(curve.gain[:, i], seed=5))


def test_smoothing_takes_the_mean_of_a_point_and_those_before_it():
    curve = hill(1.0, 3, 1.0, seed=2)
    found = curve.smoothed(3)
    for t in range(3):
        assert found.distance[t] == pytest.approx(np.mean(DISTANCE[t : t + 3]))
        for row in range(3):
            assert found.gain[row, t] == pytest.approx(np.mean([curve.gain[row, t + k] for k in range(3)]))
    assert curve.smoothed(1).gain == pytest.approx(curve.gain)


def test_several_curves_as_one_keep_their_prompts():
    one, other = hill(1.0, 6, 1.0, seed=3), hill(2.0, 6, 1.0, seed=4)
    assert mean_curve([one, other]).gain == pytest.approx((one.gain + other.gain) / 2)
    with pytest.raises(AssertionError):
        mean_curve([one, Curve(DISTANCE + 1, other.gain)])


@pytest.mark.parametrize("gain", [np.zeros((3, 4)), np.zeros((0, 5)), np.full((2, 5), np.nan), np.zeros(5)])
def test_what_is_no_curve_is_refused(gain):
    with pytest.raises(AssertionError):
        Curve(DISTANCE, gain)


# --- peaks


def test_a_planted_peak_is_found_and_its_turn_is_certain():
    found = peak(hill(1.0, 200, 0.5, seed=0))
    assert found.distance.value == 1.0 and found.distance.ci == (1.0, 1.0) and found.turned == 1.0
    assert found.height.value == pytest.approx(0.0, abs=0.1) and found.height.ci[0] < 0 < found.height.ci[1]


def test_a_curve_that_still_rises_has_its_peak_at_the_end_and_has_not_turned():
    found = peak(hill(2.0, 200, 0.5, seed=0))
    assert found.distance.value == 2.0 and found.turned < 0.05


def test_an_unclear_peak_has_a_wide_interval():
    found = peak(hill(1.25, 20, 2.0, seed=0))
    assert found.distance.ci[0] <= 0.5 and found.distance.ci[1] == 2.0 and 0.1 < found.turned < 1


def test_of_one_prompt_nothing_is_known():
    found = peak(Curve(DISTANCE, np.array([[0.0, 1.0, 3.0, 2.0, 1.0]])))
    assert found.distance.value == 1.0 and found.distance.ci == (-inf, inf)


def test_a_later_and_a_higher_peak_are_told_apart():
    a, b = hill(1.5, 100, 0.3, seed=1), hill(0.5, 100, 0.3, seed=2)
    found = compare_curves(a, b)
    assert found.later.value == 1.0 and found.later.ci == (1.0, 1.0)
    assert found.higher.ci[0] < 0 < found.higher.ci[1]
    assert found.end.value == pytest.approx(a.gain[:, -1].mean() - b.gain[:, -1].mean())
    assert found.end.ci[0] < (0.5**2 - 1.5**2) * -1 < found.end.ci[1]
    raised = compare_curves(Curve(DISTANCE, b.gain + 1), b)
    assert raised.higher.ci == pytest.approx((1.0, 1.0)) and raised.later.ci == (0.0, 0.0)


def test_a_curve_does_not_differ_from_itself():
    found = compare_curves(hill(1.0, 50, 2.0, seed=7), hill(1.0, 50, 2.0, seed=7))
    assert {each.ci for each in (found.later, found.higher, found.end)} == {(0.0, 0.0)}


def test_what_prompts_share_does_not_blur_the_difference():
    """Prompts differ by ten times what the curves do; both curves have the same prompts."""
    a, b = (hill(1.0, 40, 0.1, seed, between=10.0) for seed in (1, 2))
    low, high = compare_curves(Curve(DISTANCE, a.gain + 0.2), b).end.ci
    assert 0 < low < 0.2 < high and high - low < 0.2
    assert np.diff(a.points()[-1].ci)[0] > 3


def test_the_interval_of_the_end_keeps_its_level():
    missed = 0
    for seed in range(150):
        low, high = compare_curves(hill(1.0, 40, 1.0, seed), hill(1.0, 40, 1.0, seed + 1000), draws=400).end.ci
        missed += not low <= 0 <= high
    assert 1 <= missed <= 18  # 5% of 150 is 7.5


# --- few runs


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 60])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_the_quantile_is_that_of_scipy(freedom, level):
    assert student_quantile(freedom, level) == pytest.approx(scipy.stats.t.ppf(0.5 + level / 2, freedom), rel=1e-7)


def test_the_mean_over_runs_has_students_interval():
    values = [0.3, -0.1, 0.7]
    found = mean_over_runs(values)
    expected = scipy.stats.t.interval(0.95, 2, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert (found.value, found.n) == (pytest.approx(0.3), 3) and found.ci == pytest.approx(expected)
    assert mean_over_runs([2.0, 2.0]).ci == (2.0, 2.0)
