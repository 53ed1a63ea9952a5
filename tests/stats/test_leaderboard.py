"""Ratings of models: against choix, against SciPy, on simulated models whose strength and judges are known."""

from __future__ import annotations

from math import log

import choix
import numpy as np
import pytest
from scipy import optimize

from benchmarks.worlds import contests
from trueup.stats import bradley_terry
from trueup.stats.leaderboard import MIDDLE, POINTS, Contests, leaderboard, most_a_day

POINT = POINTS / log(10)


def values(found) -> list[float]:
    return [each.value for each in sorted(found.ratings, key=lambda each: each.model)]


@pytest.mark.parametrize("ties", [0.0, 0.2])
def test_counts_give_what_single_votes_give(ties):
    votes = contests(600, ties=ties)
    rows = zip(votes.first, votes.second, votes.points, strict=True)
    expected = MIDDLE + POINT * bradley_terry(rows, 4, 0.1).value
    assert values(leaderboard(votes)) == pytest.approx(expected, abs=1e-4)


def test_without_ties_they_are_choixs():
    votes = contests(800)
    won = [(i, j) if p == 1 else (j, i) for i, j, p in zip(votes.first, votes.second, votes.points, strict=True)]
    theirs = choix.opt_pairwise(4, [(int(i), int(j)) for i, j in won], alpha=0.05, tol=1e-12)
    assert values(leaderboard(votes)) == pytest.approx(MIDDLE + POINT * (theirs - theirs.mean()), abs=1e-2)


def test_known_strengths_are_found_and_lie_in_their_intervals():
    strength = np.array([1.0, 0.3, -0.2, -1.1])
    found = leaderboard(contests(20_000, strength, ties=0.0))
    for each in found.ratings:
        truth = MIDDLE + POINT * (strength[each.model] - strength.mean())
        assert each.low < each.value < each.high and each.low - 5 < truth < each.high + 5
    assert [each.model for each in found.ratings] == [0, 1, 2, 3]
    assert [each.rank for each in found.ratings] == [1, 2, 3, 4] and found.components == 1
    assert sum(each.n for each in found.ratings) == 2 * 20_000


def test_equal_models_share_a_rank():
    found = leaderboard(contests(1000, (0.5, 0.5, -1.5)))
    assert sorted((each.model, each.rank) for each in found.ratings) == [(0, 1), (1, 1), (2, 3)]


def test_length_is_taken_out():
    """Model 0 is no better, only longer: the plain rating believes it, that of equal length does not."""
    votes = contests(8000, (0.0, 0.0), length=2.0)
    sides = np.where(votes.first == 0, 1, -1)
    longer = np.abs(votes.longer) * sides  # 0 is always the longer
    chance = np.random.default_rng(1)
    points = (chance.random(8000) < 1 / (1 + np.exp(-2.0 * longer))).astype(float)
    votes = Contests(votes.first, votes.second, points, votes.prompt, votes.judge, longer)
    plain, equal = leaderboard(votes), leaderboard(votes, length=True)
    assert {each.model: each.rank for each in plain.ratings} == {0: 1, 1: 2} and plain.length is None
    assert all(each.rank == 1 for each in equal.ratings)
    value, low, high = equal.length
    assert low < value < high and low < 2.0 / 3 * POINT < high


def test_the_regression_is_scipys_maximum():
    votes = contests(300, length=1.0)
    bins = np.round(votes.longer * 20) / 20

    def loss(at):
        gap = at[votes.first] - at[votes.second] + at[4] * bins
        return (np.logaddexp(0, gap) - votes.points * gap).sum() + 0.05 * at @ at

    best = optimize.minimize(loss, np.zeros(5), tol=1e-12).x
    found = leaderboard(votes, length=True)
    assert values(found) == pytest.approx(MIDDLE + POINT * (best[:4] - best[:4].mean()), abs=0.05)
    assert found.length == (pytest.approx(best[4] * POINT / 3, abs=0.05), *found.length[1:])


def test_equal_models_are_told_apart_as_seldom_as_it_says():
    """Ranks: of two equally good models one is surely above the other in five of a hundred worlds, not in fifty."""
    told = [
        {each.rank for each in leaderboard(contests(400, (0.0, 0.0), prompts=100, judges=6, seed=seed)).ratings}
        for seed in range(300)
    ]
    apart = np.mean([ranks == {1, 2} for ranks in told])
    assert apart <= 0.08, apart


def test_the_doubt_about_judges_sees_that_few_people_decided():
    """Three judges with tastes of their own: votes as if independent would be far too sure."""

    def width(votes):
        (best, *_) = leaderboard(votes).ratings
        return best.high - best.low

    alone = contests(3000, habit=0.8, judges=3)
    apart = Contests(alone.first, alone.second, alone.points, alone.prompt, np.arange(3000), alone.longer)
    assert width(alone) > 2 * width(apart)


def test_components_stand_apart_and_have_ranks_of_their_own():
    first, second = np.array([0, 0, 1, 5] * 30), np.array([1, 2, 2, 6] * 30)
    points = np.array([1, 1, 0.5, 1] * 30)
    rows = np.arange(120)
    found = leaderboard(Contests(first, second, points, rows, rows % 7, np.zeros(120)))
    assert found.components == 2
    assert {each.model: each.component for each in found.ratings} == {0: 0, 1: 0, 2: 0, 5: 1, 6: 1}
    assert [each.rank for each in found.ratings if each.component == 1] == [1, 2]
    for component in (0, 1):
        assert np.mean([e.value for e in found.ratings if e.component == component]) == pytest.approx(MIDDLE)


def test_one_judge_on_one_prompt_has_no_interval_and_whoever_never_lost_a_finite_rating():
    one = Contests(np.zeros(9, int), np.ones(9, int), np.ones(9), np.zeros(9, int), np.zeros(9, int), np.zeros(9))
    best, worst = leaderboard(one).ratings
    assert (
        best.low is None and best.high is None and MIDDLE < best.value < MIDDLE + 1000 and best.rank == worst.rank == 1
    )


def test_nobody_counts_more_than_so_often_a_day():
    judge, day = np.array([7, 7, 3, 7, 7, 3, 7]), np.array([1, 1, 1, 1, 2, 2, 1])
    assert most_a_day(judge, day, 2).tolist() == [True, True, True, False, True, True, False]
    assert most_a_day(np.zeros(0, int), np.zeros(0, int), 2).tolist() == []
