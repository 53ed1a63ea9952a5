"""The tables that people plan with, digit by digit, and the plan made from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as oracle

from trueup.errors import ConfigError
from trueup.stats import (
    accuracy_from_agreement,
    gold_pass_rate,
    golds_needed,
    half_width,
    items_for,
    kappa_from_agreement,
    majority_accuracy,
    overlap_for,
    plan,
)
from trueup.stats.binomial import at_least, at_most

# agreement of two judges, accuracy of one, kappa, accuracy of the majority of 3 and of 5
IMPLIED = [
    (0.63, 0.755, 0.26, 0.849, 0.902),
    (0.657, 0.780, 0.31, 0.876, 0.926),
    (0.73, 0.839, 0.46, 0.931, 0.968),
    (0.77, 0.867, 0.54, 0.952, 0.981),
]


@pytest.mark.parametrize(("agreement", "one", "kappa", "three", "five"), IMPLIED)
def test_what_agreement_implies(agreement, one, kappa, three, five):
    accuracy = accuracy_from_agreement(agreement)
    assert round(accuracy, 3) == one
    assert round(kappa_from_agreement(agreement), 2) == kappa
    assert round(majority_accuracy(accuracy, 3), 3) == three
    assert round(majority_accuracy(accuracy, 5), 3) == five


@given(st.floats(0.5, 1))
def test_agreement_and_accuracy_are_inverse(accuracy):
    assert accuracy_from_agreement(accuracy**2 + (1 - accuracy) ** 2) == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("agreement", [0.49, 1.01, -1])
def test_no_judge_agrees_less_than_coins(agreement):
    with pytest.raises(ConfigError, match="expected agreement"):
        accuracy_from_agreement(agreement)


def test_majorities_by_enumeration():
    for n in range(1, 8):
        votes = np.array(np.meshgrid(*[[0, 1]] * n)).reshape(n, -1)
        chance = np.prod(np.where(votes, 0.7, 0.3), axis=0)
        right = np.where(votes.sum(0) * 2 == n, 0.5, votes.sum(0) * 2 > n)
        assert majority_accuracy(0.7, n) == pytest.approx((chance * right).sum())
    assert majority_accuracy(1.0, 4) == 1.0 and majority_accuracy(0.5, 9) == pytest.approx(0.5)


# golds, right answers needed; in percent: coins that pass, of those right on 84%, of those right on 70%
GOLDS = [(20, 15, 2, 91, 42), (30, 20, 5, 99.5, 73)]


@pytest.mark.parametrize(("golds", "needed", "coin", "good", "weak"), GOLDS)
def test_rules_of_golds(golds, needed, coin, good, weak):
    assert golds_needed(golds) == needed
    assert round(100 * gold_pass_rate(0.5, golds, needed)) == coin
    assert 100 * gold_pass_rate(0.84, golds, needed) == pytest.approx(good, abs=0.5)
    assert round(100 * gold_pass_rate(0.7, golds, needed)) == weak


@pytest.mark.parametrize(("golds", "rejected"), [(8, 37), (10, 49)])
def test_few_golds_reject_good_judges(golds, rejected):
    assert round(100 * (1 - gold_pass_rate(0.84, golds, golds_needed(golds)))) == rejected


def test_four_golds_cannot_keep_coins_out():
    assert golds_needed(4) is None and golds_needed(5) == 5


@given(st.integers(0, 300), st.data(), st.floats(0, 1))
def test_binomial_tails_are_scipys(n, data, chance):
    k = data.draw(st.integers(-1, n + 1))
    assert at_least(k, n, chance) == pytest.approx(oracle.binom.sf(k - 1, n, chance), abs=1e-9)
    assert at_most(k, n, chance) == pytest.approx(oracle.binom.cdf(k, n, chance), abs=1e-9)


def test_binomial_tails_of_many_trials():
    assert at_most(49_000, 100_000, 0.5) == pytest.approx(oracle.binom.cdf(49_000, 100_000, 0.5), rel=1e-6)


@pytest.mark.parametrize(("n", "points"), [(200, 6.4), (400, 4.5), (1000, 2.8), (5000, 1.3)])
def test_half_widths_at_seventy_percent(n, points):
    assert round(100 * half_width(0.7, n), 1) == points
    assert items_for(half_width(0.7, n), 0.7) in (n, n + 1)


def test_overlap_for_a_wanted_accuracy():
    assert overlap_for(0.73, 0.8) == 1 and overlap_for(0.73, 0.93) == 3 and overlap_for(0.73, 0.96) == 5
    assert overlap_for(0.5, 0.9) is None
    with pytest.raises(ConfigError, match="plus or minus 0"):
        items_for(0)


def test_a_plan_counts_the_work():
    found = plan(0.73, 1000, 1, 4, calibration_share=0.15, calibration_overlap=3, seconds=90)
    assert found.judgements == 850 + 450 and found.judgements_a_person == 325
    assert found.hours == pytest.approx(32.5) and found.hours_a_person == pytest.approx(8.125)
    assert round(found.judge_accuracy, 3) == round(found.label_accuracy, 3) == 0.839
    assert found.heldout_items == 100 and found.half_width == pytest.approx(half_width(found.judge_accuracy, 100))
    assert found.agreement_half_width == pytest.approx(half_width(0.73, 150))
    three = plan(0.73, 1000, 3, 4)
    assert three.judgements == 3000 and round(three.label_accuracy, 3) == 0.931
    assert three.agreement_half_width == pytest.approx(half_width(0.73, 1000))
    assert plan(0.73, 10, 1, 1, calibration_share=0).agreement_half_width is None
    assert set(found.to_json()) >= {"items", "overlap", "people", "hours", "label_accuracy", "half_width"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"items": 0}, "items is 0"),
        ({"people": 2}, "3 judges an item"),
        ({"calibration_share": 1.5}, "calibration_share is 1.5"),
        ({"heldout": -0.1}, "heldout is -0.1"),
        ({"seconds": 0}, "seconds is 0"),
        ({"agreement": 0.4}, "expected agreement"),
    ],
)
def test_a_plan_that_cannot_be(changes, said):
    with pytest.raises(ConfigError, match=said):
        plan(**({"agreement": 0.73, "items": 100, "overlap": 1, "people": 5} | changes))
