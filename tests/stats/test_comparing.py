"""Two scorers on the same pairs: McNemar against statsmodels, the paired interval against luck."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from trueup.stats.comparing import compare_accuracy, mcnemar_exact


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_that_of_statsmodels(b, c):
    expected = mcnemar([[40, b], [c, 30]], exact=True).pvalue
    assert mcnemar_exact(b, c) == pytest.approx(min(expected, 1.0), rel=1e-9)


def margins(random: np.random.Generator, target: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.where(random.random(len(target)) < right, 1, -1) * np.sign(target - 0.5) * random.random(len(target))


def test_the_difference_is_that_of_the_accuracies_and_counts_add_up():
    a, b = np.array([1.0, -1, 2, 0, 3]), np.array([1.0, 1, -2, 1, 1])
    found = compare_accuracy(a, b, [1, 1, 0, 1, 0.5], ["p", "p", "q", "r", "r"])
    assert (found.a, found.b) == ((1 + 0 + 0 + 0.5) / 4, (1 + 1 + 1 + 1) / 4)
    assert found.difference.value == pytest.approx(found.a - found.b) and found.difference.n == 4
    assert (found.only_a, found.only_b, found.p_value) == (0, 3, 0.25)


def test_equal_scorers_differ_by_nothing():
    a = np.random.default_rng(0).normal(size=50)
    found = compare_accuracy(a, a, np.ones(50), np.arange(50))
    assert found.difference.ci == (0.0, 0.0) and found.p_value == 1.0


def test_the_interval_covers_zero_for_equally_good_scorers_and_not_for_a_better_one():
    """Three pairs a prompt that hang together: prompts that are hard for one are hard for the other."""
    false, missed, small = 0, 0, 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        prompt = np.repeat(np.arange(150), 3)
        target = (random.random(450) < 0.5).astype(float)
        ease = np.repeat(random.uniform(0.4, 0.9, 150), 3)
        a, b = margins(random, target, ease), margins(random, target, ease)
        low, high = compare_accuracy(a, b, target, prompt, seed=seed).difference.ci
        false += not low <= 0 <= high
        worse = margins(random, target, ease - 0.15)
        found = compare_accuracy(a, worse, target, prompt, seed=seed)
        missed += found.difference.ci[0] <= 0
        small += found.p_value < 0.05
    assert false <= 12 and missed <= 5 and small >= 95
