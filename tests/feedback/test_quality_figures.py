"""Figures beside plain agreement: flags, rankings, strengths, skips, quarantine, edits, change in time, models."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest
from crowd import open_collection, ranker, reader
from scipy.stats import kendalltau
from sklearn.metrics import cohen_kappa_score

from trueup import asking
from trueup.cli.quality import _quality_text
from trueup.feedback import quality
from trueup.feedback.leaderboard import MOST_A_DAY, Entries, ratings
from trueup.feedback.tally import Tally
from trueup.records import Judgement, Prompt
from trueup.store import Workspace, queue
from trueup.store.items import Item

FLAGS = ("unsafe", "personal data", "wrong language", "off topic", "broken")


def vote(judge, degree, *, item="i", texts=("a text", "another text"), **meta) -> Judgement:
    ranks = (1, 2) if degree > 0 else (2, 1) if degree < 0 else (1, 1)
    about = {"answer": {"choice": -degree}, "order": [0, 1], "seconds": 10.0} | meta
    return Judgement(Prompt.user(f"about {item}"), texts, ranks, judge, "human", meta=about)


def about(item, at=0.0, role="main", round=0) -> dict:
    return {"item": item, "role": role, "round": round, "submitted": float(at)}


# Flags, strengths and rankings


def test_flags_have_gwets_ac1_wherever_in_the_item_they_were_raised():
    chance, tally, said = Random(0), Tally(), {}
    for i in range(100):
        for judge in "ab":
            raised = chance.random() < (0.8 if i < 10 else 0.02)
            said[i, judge] = raised
            flags = {"prompt": [], "completions": [["unsafe"] if raised else [], []]}
            tally.add(vote(judge, 1, item=f"i{i}", **({"flags": flags} if raised else {})), about(f"i{i}", i), ())
    found = quality.describe(tally, {0: 1})["flags"]
    agreed = np.mean([said[i, "a"] == said[i, "b"] for i in range(100)])
    share = np.mean(list(said.values()))
    assert found["unsafe"]["value"] == pytest.approx((agreed - (c := 2 * share * (1 - share))) / (1 - c))
    assert found["unsafe"]["raised"] == sum(said.values()) and found["unsafe"]["n_items"] == 100
    assert found["unsafe"]["low"] < found["unsafe"]["value"] < found["unsafe"]["high"]
    assert set(found) == set(FLAGS)
    assert found["broken"]["value"] is None and found["broken"]["why"] == "all answers equal"


def test_strength_has_quadratic_kappa_of_each_two_and_of_all():
    chance, tally, said = np.random.default_rng(1), Tally(), []
    for i in range(80):
        truth = chance.integers(-3, 4)
        said.append([int(np.clip(truth + chance.integers(-1, 2), -3, 3)) for _ in "ab"])
        for judge, degree in zip("ab", said[-1], strict=True):
            tally.add(vote(judge, degree, item=f"i{i}"), about(f"i{i}", i), ())
    value = quality.describe(tally, {0: 1})
    expected = cohen_kappa_score(*np.array(said).T, weights="quadratic", labels=range(-3, 4))
    assert value["strength"]["quadratic"]["value"] == pytest.approx(expected)
    (two,) = value["cohen"]
    assert two["quadratic"]["value"] == pytest.approx(expected) and two["value"] < expected


def test_rankings_of_more_than_two_have_kendalls_tau_b():
    chance, tally, taus = np.random.default_rng(2), Tally(), []
    for i in range(40):
        k = 3 + i % 3
        given = [tuple(chance.integers(1, 4, k).tolist()) for _ in "ab"]
        for judge, ranks in zip("ab", given, strict=True):
            texts = tuple(f"text {j}" for j in range(k))
            said = Judgement(Prompt.user("p"), texts, ranks, judge, "human", meta={"order": list(range(k))})
            tally.add(said, about(f"i{i}", i), ())
        if all(len(set(ranks)) > 1 for ranks in given):
            taus.append(kendalltau(*given).statistic)
    found = quality.describe(tally, {0: 1})["rankings"]
    assert found["value"] == pytest.approx(np.mean(taus)) and found["n_items"] == len(taus) < 40


def test_pairs_are_no_rankings():
    tally = Tally()
    for judge in "ab":
        tally.add(vote(judge, 1), about("i"), ())
    value = quality.describe(tally, {0: 1})
    assert value["rankings"] is None and value["strength"] is None and value["edits"] is None


# Time, edits


def test_the_share_of_undecided_answers_by_tenths_in_time():
    """From a tenth of weak preferences to all of them; a tie is one, and so is the lowest strength."""
    chance, tally, weak = Random(3), Tally(), []
    for at in range(1000):
        weak.append(chance.random() < at / 1000)
        degree = chance.choice((0, 1, -1)) if weak[-1] else 2
        tally.add(vote(f"j{at % 3}", degree, item=f"i{at}"), about(f"i{at}", at), ())
    curve = quality.describe(tally, {0: 1})["undecided"]
    assert [each["value"] for each in curve] == pytest.approx([np.mean(weak[t : t + 100]) for t in range(0, 1000, 100)])
    assert (curve[0]["first"], curve[0]["last"], curve[9]["last"]) == (1, 100, 1000)
    assert curve[0]["high"] < curve[9]["low"]
    few = Tally()
    for at in range(150):
        few.add(vote("a", 2, item=f"i{at}"), about(f"i{at}", at), ())
    assert quality.describe(few, {0: 1})["undecided"] is None


def test_without_strengths_only_ties_are_undecided():
    tally = Tally()
    for at in range(200):
        tally.add(vote("a", 0 if at < 100 else 1, item=f"i{at}"), about(f"i{at}", at), ())
    assert [each["value"] for each in quality.describe(tally, {0: 1})["undecided"]] == [1.0] * 5 + [0.0] * 5


def test_how_much_edits_change(tmp_path):
    """Rewritten texts share some words with what they were: the share is counted in words of the longer."""

    def rewrites(view, chance):
        words = view.completions[0].split()
        return {"edited": 0, "text": " ".join(["new", *words[1:]])}

    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=12, k=1, overlap=2, crowd=2, task="edit")
        crowd.work([rewrites, rewrites])
        found = quality.compute(workspace, "votes")["edits"]
        lengths = [len(item.texts[0].split()) for item in crowd.items]
    assert found["n"] == 24 and found["n_items"] == 12
    assert found["value"] == pytest.approx(np.mean([1 / length for length in lengths]))
    assert found["quantiles"]["10%"] == pytest.approx(1 / max(lengths), abs=0.02)


# People


def test_whoever_skips_far_more_than_the_others_is_warned_about(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=60, overlap=1, crowd=4, quarantine_after=50)
        desk = crowd.desk
        for person, skips in ((crowd.people[0].id, 25), (crowd.people[3].id, 2)):
            for _ in range(skips):
                desk.skip(person, desk.next(person).assignment, "unclear")
        crowd.work([reader()] * 3)
        judges = {each["judge"]: each for each in asking.quality(workspace, "votes")["value"]["judges"]}
        first, second, third, never = (judges[person.judge] for person in crowd.people)
    assert first["skips"]["warn"] and first["skips"]["value"] == pytest.approx(25 / (25 + first["n"]))
    assert not second["skips"]["warn"] and second["skips"]["value"] == 0 and third["skips"]["n"] == third["n"]
    assert never["n"] == 0 and never["skips"]["value"] == 1, "who only skipped is there too"


def test_golds_are_tested_in_the_order_in_which_they_were_answered():
    tally, key = Tally(), (1, 2)
    for at in range(14):
        tally.add(vote("good", 1, item=f"g{at}"), about(f"g{at}", at, "gold"), key)
        tally.add(vote("bad", -1, item=f"g{at}"), about(f"g{at}", at, "gold"), key)
    tally.add(vote("good", 1), about("i", 99), ())
    found = {each["judge"]: each["sequential"] for each in quality.describe(tally, {0: 1})["judges"]}
    assert found["bad"]["warn"] and "60% right rather than 84%" in found["bad"]["message"]
    assert not found["good"]["warn"] and "84% right rather than 60%" in found["good"]["message"]


# Quarantine


def test_items_in_quarantine_are_left_out_of_agreement_and_counted():
    """On three items two people differ and flag personal data; on all others they agree."""
    tally = Tally(quarantined={"i0", "i1", "i2"})
    for i in range(30):
        for judge in "ab":
            flags = {"flags": {"prompt": ["personal data"], "completions": [[], []]}} if i < 3 else {}
            first = i % 2 if i >= 3 else judge == "a"
            tally.add(vote(judge, 1 if first else -1, item=f"i{i}", **flags), about(f"i{i}", i), ())
    value = quality.describe(tally, {0: 1})
    assert value["agreement"]["percent"]["value"] == 1 and value["agreement"]["percent"]["n_items"] == 27
    assert value["counts"]["quarantined_items"] == 3 and value["counts"]["left_out_of_agreement"] == 6
    assert value["counts"]["work"] == 60 and value["flags"]["personal data"]["n_items"] == 30
    assert value["flags"]["personal data"]["value"] == 1


# Models


def entry(item, models, texts=("a text", "another text"), prompt=None):
    asked = Prompt.user(prompt or f"about {item}")
    return Item(asked, texts, "drafts", (True,) * len(texts), models, id=item, collection="c")


def judged_models(n=600, judges=6, better=0.75):
    """Model `big` wins three times in four against `small`; `big` is the second completion of every other item."""
    chance, tally, entries = Random(6), Tally(), Entries()
    for i in range(n):
        sides = ("big", "small") if i % 2 else ("small", "big")
        entries.add(entry(f"i{i}", sides))
        first = (chance.random() < better) == (sides[0] == "big")
        tally.add(vote(f"human:{i % judges}", 1 if first else -1, item=f"i{i}"), about(f"i{i}", i), ())
    return tally, entries


def everything(tally):
    return np.ones(len(tally), dtype=bool)


def test_models_are_rated_by_what_people_preferred():
    tally, entries = judged_models()
    found = ratings(tally, entries, everything(tally), {"big": "tuned"})
    best, worst = found["models"]
    assert (best["model"], worst["model"]) == ("tuned", "small") and (best["rank"], worst["rank"]) == (1, 2)
    assert best["value"] - worst["value"] == pytest.approx(400 * np.log10(3), abs=25)
    assert best["n"] == worst["n"] == found["votes"] == 600 and found["prompts"] == 600 and found["judges"] == 6
    assert found["components"] == 1 and found["capped"] == 0
    assert {each["model"] for each in found["equal_length"]} == {"tuned", "small"}
    assert json.loads(json.dumps(found)) == found


def test_with_one_model_or_none_there_is_nothing_to_show():
    tally, entries = Tally(), Entries()
    tally.add(vote("a", 1), about("i"), ())
    for models in ((), ("one", "one"), ("one", "")):
        entries.add(entry("i", models))
    assert ratings(tally, entries, everything(tally), {}) is None


def test_nobody_decides_alone():
    tally, entries = judged_models(n=2 * MOST_A_DAY, judges=1)
    found = ratings(tally, entries, everything(tally), {})
    assert found["votes"] == MOST_A_DAY and found["capped"] == MOST_A_DAY


def test_a_ranking_of_three_models_is_three_votes_of_one_judgement():
    tally, entries = Tally(), Entries()
    texts = ("one", "two words", "three words here")
    for i in range(40):
        entries.add(entry(f"i{i}", ("a", "b", "c"), texts))
        said = Judgement(Prompt.user(f"about i{i}"), texts, (1, 2, 3), f"j{i % 4}", "human", meta={"order": [0, 1, 2]})
        tally.add(said, about(f"i{i}", i), ())
    found = ratings(tally, entries, everything(tally), {})
    assert found["votes"] == 120 and [each["model"] for each in found["models"]] == ["a", "b", "c"]
    assert found["length"]["value"] < 0, "here the shorter always won"


def test_models_from_the_queue_to_the_terminal(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=30, k=3, overlap=2, crowd=2, task="ranking", models=True)
        crowd.work([ranker, ranker])
        queue.quarantine(workspace.database, crowd.items[0].id, "test", 0.0)
        found = asking.quality(workspace, "votes")
    rated = found["value"]["leaderboard"]
    assert rated["votes"] == 29 * 2 * 3 and {each["model"] for each in rated["models"]} == {"m0", "m1", "m2"}
    text = _quality_text(found)
    for words in ("AT EQUAL LENGTH", "m0", "Kendall's tau-b", "SKIPPED", "1 quarantined items"):
        assert words in text
    older = {name: found["value"][name] for name in ("n", "measured_on", "counts", "agreement", "cohen", "slices")}
    older |= {"strength": None, "judges": [], "warnings": []}
    assert "Kendall" not in _quality_text(found | {"value": older}), "figures of an earlier version still open"
