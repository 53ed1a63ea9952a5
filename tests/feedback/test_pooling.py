"""Rules that weigh judges or look at how much better: HelpSteer's, MACE, Bradley-Terry with reliabilities."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from trueup.feedback import pooling
from trueup.records import Judgement, Prompt

PAIR = ("a text", "another text")


def said(judge, degree, item="i", **more):
    """A vote on a pair: above 0 the first is better, by so much. Stored strengths speak for the second above 0."""
    ranks = (1, 2) if degree > 0 else (2, 1) if degree < 0 else (1, 1)
    meta = {"item": item, "strength": -degree} | more
    return Judgement(Prompt.user(f"about {item}"), PAIR, ranks, judge, "human", id=f"{item}-{judge}", meta=meta)


def helpsteer(*votes):
    left_out: Counter[str] = Counter()
    return list(pooling.pool(votes, "helpsteer", {}, left_out)), dict(left_out)


def test_helpsteer_takes_the_three_most_similar():
    (row,), left_out = helpsteer(*(said(str(i), degree) for i, degree in enumerate((3, 3, 2, -3, 0))))
    assert row.targets == (1.0,) and row.ranks == (1, 2) and not left_out
    assert row.meta["degrees"] == [pytest.approx(8 / 3, abs=1e-6)] and len(row.meta["votes"]) == 5


@pytest.mark.parametrize(
    ("degrees", "why"),
    [
        ((2, 2), "fewer than three votes on the item"),
        ((3, 0, -3), "no three votes on the item are similar"),
        ((1, -1, 0), "nothing is preferred by the three most similar votes"),
    ],
)
def test_helpsteer_counts_what_it_drops(degrees, why):
    rows, left_out = helpsteer(*(said(str(i), degree) for i, degree in enumerate(degrees)))
    assert rows == [] and left_out == {why: len(degrees)}


def test_what_was_decided_by_adjudication_stands_alone():
    (row,), left_out = helpsteer(said("boss", -1, adjudication={"votes": []}))
    assert row.targets == (0.0,) and not left_out


def test_helpsteer_on_ratings_pools_every_axis_and_prefers_by_the_overall_one():
    def rated(judge, overall, tone):
        ratings = {"overall": overall, "tone": tone}
        return Judgement(Prompt.user("p"), PAIR, (1, 1), judge, "human", meta={"item": "i"}, ratings=ratings)

    (row,), _ = helpsteer(rated("x", (5, 4), (1, 1)), rated("y", (6, 4), (4, 1)), rated("z", (5, 4), (7, 1)))
    assert row.targets == (1.0,) and row.ratings["tone"] == (None, 1.0)
    assert row.ratings["overall"] == (pytest.approx(16 / 3), 4.0)


def test_helpsteer_keeps_all_pairs_of_a_ranking_and_its_ties():
    texts = ("a", "b", "c")
    votes = [
        Judgement(Prompt.user("p"), texts, ranks, str(i), "human", meta={"item": "i"})
        for i, ranks in enumerate([(1, 2, 2), (1, 2, 3), (1, 3, 2)])
    ]
    (row,), _ = helpsteer(*votes)
    assert row.targets == (1.0, 1.0, 0.5) and row.ranks == (1, 2, 2)


@pytest.fixture(scope="module")
def crowd():
    """Two careful people, two who press the first key, and one who has the question the wrong way round."""
    chance, votes, truth = Random(3), [], {}
    for i in range(250):
        right = truth[f"i{i}"] = chance.choice((1, -1))
        for judge in ("ann", "ben"):
            votes.append(said(judge, right if chance.random() < 0.92 else -right, f"i{i}"))
        votes += [said(judge, 1 if chance.random() < 0.95 else right, f"i{i}") for judge in ("keys", "key")]
        votes.append(said("turned", -right if chance.random() < 0.92 else right, f"i{i}"))
    return votes, truth


@pytest.mark.parametrize("rule", ["mace", "crowd-bradley-terry", "dawid-skene"])
def test_rules_that_weigh_judges_beat_the_majority_where_few_read(crowd, rule):
    votes, truth = crowd
    known = pooling.learnt(iter(votes), rule)

    def right(rule):
        rows = pooling.pool(votes, rule, known)
        return sum((row.targets[0] > 0.5) == (truth[row.meta["item"]] > 0) for row in rows)

    assert right(rule) > right("majority") + 25 and right(rule) > (225 if rule == "dawid-skene" else 200)


def test_mace_pools_thumbs_too_and_rules_of_one_prompt_learn_nothing(crowd):
    chance = Random(4)
    votes = [
        Judgement(
            Prompt.user("p"), (f"text {i}",), (1,), judge, "human", meta={"item": f"i{i}"},
            ratings={"thumb": (float(i % 2) if chance.random() < accuracy else 1.0,)},
        )
        for i in range(80)
        for judge, accuracy in (("ann", 0.95), ("ben", 0.9), ("always up", 0.0))
    ]  # fmt: skip
    known = pooling.learnt(iter(votes), "mace", thumbs=True)
    rows = list(pooling.pool_thumbs(votes, "mace", known))
    assert sum((pooling.thumb(row) > 0.5) == (int(row.meta["item"][1:]) % 2 == 1) for row in rows) > 74
    for rule in ("soft", "majority", "bradley-terry", "helpsteer"):
        assert pooling.learnt(iter(crowd[0]), rule) == {}


def test_texts_of_one_prompt_inform_one_another_and_those_of_others_do_not():
    def vote(prompt, texts, ranks, judge):
        about = {"item": prompt + "".join(texts)}
        return Judgement(Prompt.user(prompt), texts, ranks, judge, "human", meta=about)

    votes = [vote("p", pair, (1, 2), judge) for pair in (("a", "b"), ("b", "c")) for judge in "xyz"]
    votes.append(vote("p", ("a", "c"), (1, 1), "x"))
    alone = vote("q", ("a", "c"), (1, 1), "x")
    known = pooling.learnt(iter([*votes, alone]), "crowd-bradley-terry")
    assert known["pac", ("a", "c"), 0, 1][2] > 0.8 and known["qac", ("a", "c"), 0, 1][2] == pytest.approx(0.5)
