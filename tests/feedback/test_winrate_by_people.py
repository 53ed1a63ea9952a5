"""A win rate that people decide: blind pairs in the labelling app's own queue, counted as they come."""

from __future__ import annotations

import pytest
from crowd import Clock, Crowd

import trueup
from trueup.errors import ConfigError, DataError
from trueup.loading import put_records
from trueup.records import Prompt
from trueup.store import people, queue

PROMPTS = [Prompt.user(f"question {i}", tags=["sea" if i % 3 else "wood"]) for i in range(24)]
ONE = {"threads": 1}


def completions(ws, name, word):
    rows = [
        {"prompt": p.to_json(), "completions": [{"text": word(i), "finished": True}]} for i, p in enumerate(PROMPTS)
    ]
    return put_records(ws, "completions", rows, name=name)


@pytest.fixture
def ws(workspace):
    put_records(workspace, "prompts", [p.to_json() for p in PROMPTS], name="asked")
    completions(workspace, "good", lambda i: f"good {i}" if i else "the same")
    completions(workspace, "fair", lambda i: f"fair {i}" if i else "the same")
    completions(workspace, "poor", lambda i: f"poor {i}")
    return workspace


def crowd_of(ws, name, n=2):
    people.add_person(ws.database, "owner", "owner", 0.0)
    folk = [people.add_person(ws.database, f"person {i}", "annotator", 0.0) for i in range(n)]
    found = queue.collection(ws.database, name)
    for person in folk:
        queue.acknowledge(ws.database, person.id, found.guideline, Clock().at)
    return Crowd(ws, found.id, name, folk, queue.items(ws.database, found.id), Clock())


def prefers(*order):
    def judge(view, chance):
        places = [order.index(text.split()[0]) for text in view.completions]
        return {"choice": -2 if places[0] < places[1] else 2, "active_ms": 9000}

    return judge


def rate(ws, *models, **given):
    a, b, *others = models
    return trueup.winrate(ws, a=a, b=b, others=others, prompts="asked", judge="people:which", run=ONE, **given)


def test_people_decide_and_are_never_told_which_is_which(ws):
    first = rate(ws, "good", "fair", guideline="Which is nicer?")
    assert first["waiting"]["judgements"] == 0 and "value" not in first
    crowd = crowd_of(ws, "which", 3)
    assert len(crowd.items) == 23, "equal texts are not asked about"
    needed = sum(item.overlap for item in crowd.items)
    assert first["waiting"]["needed"] == needed > 23, "some of them by several people"
    view = crowd.desk.next(crowd.people[0].id)
    assert "good" not in str({**vars(view), "completions": ()}) and ws.get("good").id not in str(vars(view))
    assert {item.split for item in crowd.items} == {"heldout"}, "what is measured is never learnt from"
    crowd.work([prefers("good", "fair")] * 3, most=10)
    found = rate(ws, "good", "fair")
    given = found["waiting"]["judgements"]
    assert (found["wins"], found["ties"], found["losses"]) == (given, 1, 0) and 10 <= given < 23, (
        "the equal pair is a tie"
    )
    assert found["judge"]["waiting"] == 24 - found["prompts"] > 0
    assert found["waiting"] == {"collection": "which", "judgements": given, "needed": needed - given}
    assert found["judge"]["sources"] == {"human": given} and found["verdict"] == "a"
    crowd.work([prefers("good", "fair")] * 3)
    whole = rate(ws, "good", "fair")
    assert (whole["n"], whole["judge"]["waiting"], whole["judge"]["judges"]) == (needed + 1, 0, 3)
    assert whole["prompts"] == 24 and {row["name"] for row in whole["slices"] if row["kind"] == "tag"} == {
        "sea",
        "wood",
    }
    again = rate(ws, "good", "fair")
    assert again["evaluation"] == whole["evaluation"], "the same votes, the same artifact"


def test_three_models_are_brought_into_one_order(ws):
    rate(ws, "good", "fair", "poor")
    crowd = crowd_of(ws, "which")
    assert len(crowd.items) == 23 * 3 + 1, "of the two that wrote the same, one stands for both"
    crowd.work([prefers("good", "the", "fair", "poor")] * 2)
    found = rate(ws, "good", "fair", "poor")
    names = {identity: name for name, identity in ws.names().items()}
    order = [(names[row["model"]], row["rank"]) for row in found["ratings"]]
    assert order == [("good", 1), ("fair", 2), ("poor", 3)] and found["components"] == 1
    assert [pair["verdict"] for pair in found["pairs"]] == ["a", "a", "a"]


def test_votes_about_other_texts_are_no_votes(ws):
    rate(ws, "good", "fair")
    crowd_of(ws, "which").work([prefers("good", "fair")] * 2, most=6)
    with pytest.raises(DataError, match="none of the 6 judgements in .* is about what these models wrote"):
        rate(ws, "poor", "poor2" if completions(ws, "poor2", lambda i: f"poor {i}!") else "")


def test_a_frozen_set_of_judgements_may_judge_by_itself(ws):
    from trueup.feedback.freeze import Choice, freeze

    rate(ws, "good", "fair")
    crowd_of(ws, "which").work([prefers("fair", "good")] * 2)
    votes = freeze(ws, "which", Choice(), name="votes").artifact
    found = trueup.winrate(ws, a="good", b="fair", prompts="asked", judge="votes", run=ONE)
    assert found["losses"] == found["n"] - 1 and found["verdict"] == "b" and found["judge"]["id"] == votes.id
    assert ws.get(found["evaluation"]).parents["verdicts"] == votes.id


def test_what_people_cannot_judge_is_refused_before_they_are_asked(ws):
    with pytest.raises(ConfigError, match="named twice"):
        rate(ws, "good", "good")
    with pytest.raises(ConfigError, match="temperature_b have no meaning"):
        rate(ws, "good", "fair", temperature_b=0.5)
    with pytest.raises(ConfigError, match="a guideline is for people"):
        trueup.winrate(ws, a="good", b="fair", prompts="asked", judge="gold", guideline="Be kind.", run=ONE)
    assert not queue.collections(ws.database)


def test_a_collection_that_was_cut_off_while_it_was_filled_is_completed(ws, monkeypatch):
    real, told = queue.add_items, []

    def cut_off(db, collection, items, now):
        told.append(real(db, collection, list(items)[:5], now))
        raise KeyboardInterrupt

    monkeypatch.setattr("trueup.feedback.collect.queue.add_items", cut_off)
    with pytest.raises(KeyboardInterrupt):
        rate(ws, "good", "fair")
    monkeypatch.undo()
    rate(ws, "good", "fair")
    found = queue.collection(ws.database, "which")
    assert told == [5] and len(queue.items(ws.database, found.id)) == 23


def test_a_collection_with_rules_of_its_own_is_taken_as_it_is(ws):
    from trueup.api import collect

    collect(ws, "which", completions=["good", "fair"], overlap=2)
    assert rate(ws, "good", "fair")["waiting"]["needed"] >= 46


def test_a_model_behind_a_server_may_be_judged_by_people(ws):
    from chat_server import chat_server

    busy = iter([(503, "")])
    with chat_server(lambda question, number: next(busy, f"poor {question}")) as server:
        first = rate(ws, "good", server.url, remote={"tries": 2, "timeout": 9.0})
        crowd_of(ws, "which").work([prefers("good", "the", "poor")] * 2)
        found = rate(ws, "good", server.url, remote={"tries": 2, "timeout": 9.0})
    assert first["waiting"]["judgements"] == 0 and found["losses"] == 0 and found["verdict"] == "a"
    assert len(server.questions) == len(PROMPTS) + 1, "it is asked once, and again where it was busy"
