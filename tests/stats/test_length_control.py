"""Who would win between answers of equal length: planted preferences come back, and intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.worlds import judged
from trueup.stats.length_control import length_controlled, longer
from trueup.stats.winrate import pairs_to_settle, winrate


def test_a_planted_preference_for_length_is_taken_out():
    """A is no better, only longer: it wins two thirds, and half at equal length."""
    points, difference = judged(4000, 0.0, 3.0, seed=1)
    assert points.mean() > 0.65
    found = length_controlled(points, difference)
    assert found.value == pytest.approx(0.5, abs=0.03) and found.ci[0] < 0.5 < found.ci[1]
    assert found.slope == pytest.approx(3.0, abs=0.4) and found.slope_ci[0] > 2 and found.n == 4000


def test_what_has_nothing_to_do_with_length_stays():
    points, difference = judged(4000, 0.8, 0.0, seed=2)
    found = length_controlled(points, difference)
    assert found.value == pytest.approx(1 / (1 + np.exp(-0.8)), abs=0.03)
    assert found.slope_ci[0] < 0 < found.slope_ci[1]


def test_sides_changed_over_the_answer_is_the_other_way_round():
    points, difference = judged(300, 0.5, 1.0, seed=3)
    one, other = length_controlled(points, difference), length_controlled(1 - points, -difference)
    assert one.value == pytest.approx(1 - other.value) and one.slope == pytest.approx(other.slope)


def test_pairs_of_one_prompt_widen_the_interval():
    points, difference = judged(800, 0.3, 0.0, seed=4, prompts=80)
    prompts = np.arange(800) % 80
    alone, together = length_controlled(points, difference), length_controlled(points, difference, prompts)
    assert together.value == alone.value
    assert together.ci[1] - together.ci[0] > 1.3 * (alone.ci[1] - alone.ci[0])


@pytest.mark.parametrize("points", [[1.0] * 40, [0.0] * 40, [0.5] * 40])
def test_one_sided_votes_and_equal_lengths_have_an_answer(points):
    found = length_controlled(points, np.zeros(40))
    assert found.ci[0] <= found.value <= found.ci[1] and 0 < found.value < 1 and found.slope == 0
    assert abs(found.value - points[0]) < 0.05


def test_where_one_side_was_always_longer_nobody_can_tell():
    """Twice as long in every pair, and 90% of wins: that may be length, or not."""
    always = length_controlled([1.0] * 360 + [0.0] * 40, [1 / 3] * 400)
    sometimes = length_controlled([1.0] * 360 + [0.0] * 40, [1 / 3, -1 / 3] * 200)
    assert always.ci[1] - always.ci[0] > 0.3 > 0.1 > sometimes.ci[1] - sometimes.ci[0]


def test_one_prompt_says_nothing_about_others():
    found = length_controlled([1, 0, 1], [0.1, 0.0, -0.2], ["a", "a", "a"])
    assert found.ci == (0.0, 1.0) and found.slope_ci == (-np.inf, np.inf)


def test_how_much_longer():
    assert longer([3, 0, 5, 0], [1, 4, 5, 0]).tolist() == [0.5, -1.0, 0.0, 0.0]


# How many more pairs


def test_so_many_pairs_more_settle_it_and_one_fewer_does_not():
    a, b = np.repeat([1.0, 0.0], [55, 45]), np.repeat([0.0, 1.0], [55, 45])
    rate = winrate(a, b)
    more = pairs_to_settle(rate)
    assert rate.ci[0] < 0.5 and more is not None
    for n, settled in ((100 + more + 1, True), (100 + more - 1, False)):
        from trueup.stats.intervals import wilson

        assert (wilson(0.55 * n, n)[0] > 0.5) == settled


def test_nothing_more_is_needed_where_it_is_settled_and_nothing_helps_at_a_half():
    assert pairs_to_settle(winrate([1] * 50, [0] * 50)) == 0
    assert pairs_to_settle(winrate([1, 0] * 20, [0, 1] * 20)) is None


def test_pairs_that_hang_together_count_for_less():
    points = np.repeat([1, 0, 1, 0, 1, 1, 0, 1, 0, 1], 10).astype(float)
    apart, together = winrate(points, 1 - points), winrate(points, 1 - points, np.repeat(np.arange(10), 10))
    assert together.ci[0] < 0.5 < together.ci[1]
    more = pairs_to_settle(together)
    assert more is not None and more > 3 * max(1, pairs_to_settle(apart) or 0)
