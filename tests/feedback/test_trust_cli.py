"""The commands about trusting and choosing, as somebody types them."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from crowd import always_left, open_collection, prompts, reader

from trueup import asking
from trueup.cli.main import main
from trueup.errors import ConfigError
from trueup.loading import put_records
from trueup.store import Workspace, audit, queue


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("trust") / "workspace"
    with Workspace.create(path) as workspace:
        crowd = open_collection(workspace, items=25, overlap=2, crowd=3)
        crowd.work([reader(0.9), reader(0.9), always_left])
        rows = [{"prompt": p.to_json(), "completions": [{"text": f"draft {j}"} for j in range(3)]} for p in prompts(5)]
        put_records(workspace, "completions", rows, name="drafts")
        asked = [*prompts(30), prompts(1)[0]]
        put_records(workspace, "prompts", [prompt.to_json() for prompt in asked], name="asked")
    return path


@pytest.fixture
def say(folder, capsys):
    def call(*words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["--workspace", str(folder), *words])
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        return said.out if code == 0 else said.err

    return call


def test_plan_turns_agreement_into_work(say):
    text = say("feedback", "plan", "--agreement", "0.73", "--pairs", "5000", "--people", "5")
    assert "6,500 judgements, 108 hours" in text and "83.9%" in text
    assert "20 golds, 15 to pass" in text
    found = json.loads(say("feedback", "plan", "--agreement", "0.73", "--accuracy", "0.9", "--width", "0.03", "--json"))
    assert found["overlap"] == 3 and found["label_accuracy"] > 0.9 and found["half_width"] <= 0.03
    assert "is not one of two judges" in say("feedback", "plan", "--agreement", "0.3", code=1)


def test_plan_refuses_what_contradicts_itself():
    for settings, problem in (
        ({"overlap": 3, "accuracy": 0.9}, "either overlap or accuracy"),
        ({"items": 10, "width": 0.1}, "either items or the width"),
        ({"accuracy": 0.999999999999}, "no overlap reaches"),
    ):
        with pytest.raises(ConfigError, match=problem):
            asking.plan_collection(agreement=0.55, **settings)


def test_quality_is_computed_once_and_shown_again(say):
    assert "no figures" in say("feedback", "quality", "votes", "--stored", code=1)
    text = say("feedback", "quality", "votes")
    assert "Cohen" not in text, "nobody shares thirty items with anybody"
    assert "warning: " in text and "the same key" in text and "percent" in text.lower()
    found = json.loads(say("feedback", "quality", "votes", "--stored", "--json"))
    assert found["since"] == 0 and len(found["value"]["judges"]) == 3
    assert say("runs", "list").count("-quality-") == 1


def test_freeze_says_what_it_left_out_and_is_noted(say, folder):
    text = say("feedback", "freeze", "votes", "--rule", "soft", "--name", "frozen")
    assert "25 rows of 50 votes by 3 judges" in text
    found = json.loads(say("feedback", "freeze", "votes", "--rule", "soft", "--json"))
    assert found["id"] in text and found["splits"] == {"train": 25}
    with Workspace.open(folder) as workspace:
        last = audit.entries(workspace.database)[-1]
        assert last["action"] == "froze" and last["about"] == queue.collection(workspace.database, "votes").id
        assert last["details"] == {"artifact": found["id"], "kind": "preferences", "rule": "soft"}
    assert "judgements, human: 50" in say("lineage", "frozen")
    assert "has no vote to freeze" in say("feedback", "freeze", "votes", "--as", "unpaired", code=1)


def test_an_export_of_what_people_said_is_noted(say, folder, tmp_path):
    made = json.loads(say("feedback", "freeze", "votes", "--rule", "majority", "--json"))["id"]
    say("data", "export", made, str(tmp_path / "votes.jsonl"), "--format", "trl-preference")
    with Workspace.open(folder) as workspace:
        last = audit.entries(workspace.database)[-1]
        assert (last["action"], last["person"]) == ("exported", "")
        assert last["about"] == queue.collection(workspace.database, "votes").id
        assert last["details"] == {"artifact": made, "format": "trl-preference"}, "no text, no path"
        assert audit.verify(workspace.database) == []
    say("data", "export", "asked", str(tmp_path / "asked.jsonl"))
    with Workspace.open(folder) as workspace:
        assert audit.entries(workspace.database)[-1] == last, "prompts are nobody's judgement"


def test_all_that_was_said_goes_from_a_collection_to_a_file(say, folder, tmp_path):
    found = json.loads(say("feedback", "freeze", "votes", "--as", "votes", "--name", "all", "--json"))
    trained = json.loads(say("feedback", "freeze", "votes", "--json"))
    assert found["rows"] == found["votes"] == trained["votes"] + sum(trained["left_out"].values()) > 50
    said = say("data", "export", "all", str(tmp_path / "all.parquet"))
    assert f"{found['rows']} rows as raw" in said and (tmp_path / "all.parquet").stat().st_size > 1000
    assert "leave out --rule" in say("feedback", "freeze", "votes", "--as", "votes", "--rule", "soft", code=1)


def test_freeze_takes_the_votes_of_those_who_were_named(say, folder):
    with Workspace.open(folder) as workspace:
        said = Counter(judgement.judge for judgement in workspace.judgements() if judgement.source == "human")
    (one, _), *_ = said.most_common()
    found = json.loads(say("feedback", "freeze", "votes", "--judge", one, "--json"))
    assert found["people"] == 1 and found["left_out"]["by somebody else"] > 0
    assert "did you mean" in say("feedback", "freeze", "votes", "--judge", one[:-1], code=1)


@pytest.mark.parametrize(
    "words",
    [
        ("--n", "4"),
        ("--n", "4", "--reorder", "--completions", "drafts"),
        ("--n", "4", "--reorder", "--first"),
        ("--n", "4", "--reorder", "--heldout", "0.1"),
        ("--n", "4", "--completions", "drafts", "--strategy", "diverse"),
    ],
)
def test_choosing_says_what_it_needs(say, words):
    assert say("feedback", "choose", "votes", *words, code=2).startswith("error:")


def test_choose_fills_the_collection_and_puts_it_into_another_order(say):
    text = say("feedback", "choose", "votes", "--completions", "drafts", "--n", "4", "--strategy", "diversity")
    assert "4 items added of 15 candidates" in text
    text = say("feedback", "choose", "votes", "--reorder", "--n", "2", "--random-share", "0.5")
    assert "2 items of 4 that wait come first: 2 at random" in text
    wrong = say(
        "feedback", "choose", "votes", "--completions", "drafts", "--n", "4", "--strategy", "uncertainty", code=1
    )
    assert "needs a reward model" in wrong and "--reward" in wrong


def test_coverage_of_a_prompt_set(folder):
    with Workspace.open(folder) as workspace:
        found = asking.coverage(workspace, "asked", topics=2)
        assert (found.prompts, found.exact_copies) == (31, 1)
        assert found.judgements == sum(1 for _ in workspace.judgements()) >= 50 and found.unjudged == 5
        drafted = asking.coverage(workspace, "drafts")
        assert drafted.prompts == 5 and drafted.exact_copies == 0, "a prompt with three drafts is no copy"
