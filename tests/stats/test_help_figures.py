"""Help and its figures: who is more often right, how surely, and who follows a helper into its mistakes."""

from __future__ import annotations

from random import Random

import pytest

from trueup.records import Judgement, Prompt
from trueup.stats.assistance import Answer, answers_of, assistance, compare


def crowd(n: int, alone: float, helped: float, seed: int = 0, each: int = 4) -> list[Answer]:
    """So many prompts, each judged by `each` with help and as many without."""
    chance = Random(seed)
    return [
        Answer(f"p{i}", 1 if chance.random() < (helped if assisted else alone) else -1, ("h",) if assisted else ())
        for i in range(n)
        for assisted in [True, False] * each
    ]


def test_a_gain_is_seen_and_no_gain_is_not():
    found = assistance(crowd(60, alone=0.65, helped=0.85))
    assert found["verdict"] == "higher" and found["difference"]["ci"][0] > 0
    assert found["assisted"]["n"] == found["alone"]["n"] == 240
    assert found["difference"]["value"] == pytest.approx(found["assisted"]["value"] - found["alone"]["value"])
    assert assistance(crowd(60, alone=0.85, helped=0.65))["verdict"] == "lower"
    assert assistance(crowd(60, alone=0.75, helped=0.75, seed=3))["verdict"] == "no difference seen"


def test_the_interval_covers_as_often_as_it_says():
    """Prompts differ in how hard they are: an interval that took answers as independent would be another one."""
    inside, trials = 0, 150
    for seed in range(trials):
        chance = Random(seed)
        answers = []
        for i in range(40):
            hard = chance.choice([0.5, 0.95])
            for assisted in [True, False] * 3:
                right = chance.random() < hard - 0.1 * (not assisted)
                answers.append(Answer(f"p{i}", 1 if right else -1, ("h",) if assisted else ()))
        low, high = compare([a.said == 1 for a in answers], answers, seed=seed)["difference"]["ci"]
        inside += low <= 0.1 <= high
    assert 0.90 <= inside / trials <= 0.99


def test_prompts_are_redrawn_whole_and_with_both_sides():
    """Two kinds of prompt, on one of which everybody is right: that hangs both sides together, and cancels out."""
    answers = [Answer(f"p{i}", 1 if i % 2 else -1, helpers) for i in range(40) for helpers in [(), ("h",)] * 5]
    found = assistance(answers)
    assert found["difference"] == {"value": 0.0, "ci": [0.0, 0.0], "n": 200}
    assert found["assisted"]["clustered"][1] - found["assisted"]["clustered"][0] > 0.2


@pytest.mark.parametrize("answers", [crowd(4, 0.5, 0.9), crowd(30, 0.5, 0.9)[:30], crowd(2, 0.5, 1.0, each=30)])
def test_too_few_are_called_too_few(answers):
    assert assistance(answers)["verdict"] == "too few"


def test_with_nobody_on_one_side_there_is_no_difference_to_speak_of():
    found = assistance([each for each in crowd(40, 0.5, 0.9) if each.helpers])
    assert found["difference"] == {"value": None, "ci": [-1.0, 1.0], "n": 0} and found["verdict"] == "too few"
    assert found["alone"]["value"] is None


def follower(n: int, follows: float, seed: int = 0) -> list[Answer]:
    """A helper that is wrong on every third pair; with it people say what it says so often, else they are right."""
    chance, answers = Random(seed), []
    for i in range(n):
        right = i % 3 > 0
        for assisted in [True, False] * 3:
            says = (1 if right else -1) if assisted and chance.random() < follows else 1
            answers.append(Answer(f"p{i}", says, ("h",) if assisted else (), {"h": right}))
    return answers


def test_who_follows_a_wrong_helper_is_told_from_who_would_have_been_wrong_alone():
    (found,) = assistance(follower(60, follows=0.7))["helpers"]
    assert found["helper"] == "h" and found["right"]["value"] == pytest.approx(2 / 3)
    wrong = found["when_wrong"]
    assert wrong["alone"]["value"] == 0 and 0.55 < wrong["assisted"]["value"] < 0.85 and wrong["verdict"] == "higher"
    assert found["when_right"]["assisted"]["value"] == 1
    (careful,) = assistance(follower(60, follows=0.0))["helpers"]
    assert careful["when_wrong"]["assisted"]["value"] == 0 and careful["when_wrong"]["verdict"] == "no difference seen"


def test_another_helper_s_audience_is_not_compared_with():
    answers = [Answer("p", 1, ("other",), {"h": True, "other": True}), Answer("p", -1, (), {"h": True, "other": True})]
    found = {each["helper"]: each for each in assistance(answers)["helpers"]}
    assert found["h"]["followed"]["assisted"]["n"] == 0 and found["other"]["followed"]["assisted"]["n"] == 1


def judged(ranks, **meta) -> Judgement:
    return Judgement(Prompt.user("q"), ("a", "b", "c"), ranks, "j", "human", meta=meta)


def test_answers_are_taken_from_the_better_to_the_worse_side():
    said = list(answers_of(judged((1, 1, 2), assisted=["h"], advice={"h": [2, 1, 1]}), (3, 2, 1)))
    assert [each.said for each in said] == [0, -1, -1]  # b over a, c over a, c over b
    assert [dict(each.views) for each in said] == [{"h": True}, {"h": True}, {}]
    assert all(each.helpers == ("h",) for each in said)
    assert [each.said for each in answers_of(judged((1, 2, 3), assisted=[]), (1, 1, 2))] == [1, 1]


def test_what_is_not_noted_counts_on_neither_side():
    assert list(answers_of(judged((1, 2, 3)), (1, 2, 3))) == []
    assert list(answers_of(judged((1, 2, 3), assisted="yes"), (1, 2, 3))) == []


@pytest.mark.parametrize("advice", [None, "h", {"h": [1]}, {"h": ["x", 1, 2]}, {"h": "123"}, [1, 2, 3]])
def test_advice_that_orders_nothing_is_none(advice):
    assert all(each.views == {} for each in answers_of(judged((1, 2, 3), assisted=[], advice=advice), (1, 2, 3)))
