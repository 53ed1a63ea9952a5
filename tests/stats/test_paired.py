"""Whether something fell, against the test it is a form of and against its own promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from trueup.stats.diversity import distinct, duplicates, repetition
from trueup.stats.paired import chance_of_falling


def exact(differences):
    found = permutation_test(
        (np.array(differences), np.zeros(len(differences))), lambda a, b: (a - b).sum(),
        permutation_type="samples", alternative="less", n_resamples=np.inf, vectorized=False,
    )  # fmt: skip
    return found.pvalue


@pytest.mark.parametrize("seed", range(4))
def test_with_few_it_counts_every_flip(seed):
    differences = np.random.default_rng(seed).normal(-0.4, 1, size=9).round(2)
    assert chance_of_falling(differences) == pytest.approx(exact(differences), abs=1e-9)


def test_with_many_it_draws():
    differences = np.random.default_rng(1).normal(-0.3, 1, size=14)
    assert chance_of_falling(differences) == pytest.approx(exact(differences), abs=0.02)


def test_four_prompts_can_never_make_it_sure():
    assert chance_of_falling([-9.0] * 4) == 1 / 16


def test_nothing_changed_is_no_fall():
    assert chance_of_falling([0.0] * 64) == 1.0
    assert chance_of_falling([0.0] * 5) == 1.0


def test_what_is_no_number_is_a_fall():
    assert chance_of_falling([1.0, math.nan, 2.0]) == 0.0


def test_one_in_a_hundred_false_alarms_at_99_percent():
    rng = np.random.default_rng(0)
    alarms = sum(chance_of_falling(rng.standard_t(3, size=64)) < 0.01 for _ in range(600))
    assert alarms <= 14, "binomial: 6 expected, 14 is one in a thousand"


def test_repetition_is_the_share_of_runs_said_before():
    assert repetition("a b c d e f".split()) == 0
    assert repetition("a b c d a b c d".split()) == pytest.approx(1 / 5)
    assert repetition(["x"] * 10) == pytest.approx(6 / 7)
    assert repetition([1, 2, 3]) == 0, "too short to repeat a run of four"


def test_distinct_and_duplicates_look_over_all_texts():
    assert distinct([[1, 2, 3], [1, 2, 4]]) == pytest.approx(3 / 4)
    assert distinct([[1], []]) == 1
    assert duplicates(["a", "b", "a", "a"]) == 0.5
    assert duplicates([]) == 0
