"""Candidates that somebody brings: a file of completions, or judgements whose texts are to be judged anew."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

import trueup
from trueup import asking
from trueup.config import load
from trueup.errors import DataError, TrueupError
from trueup.feedback.desk import Desk
from trueup.feedback.freeze import Choice, freeze
from trueup.model_card import _sources
from trueup.store import people, queue, read_jsonl

NOW = 1_700_000_000.0
SOLO = load("collection", sets=["calibration_share=0", "repeat_share=0"])


def lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def add(workspace, tmp_path):
    """`add(kind, row, ...)`: what became of a file of these rows."""

    def made(kind: str, *rows, name: str = "rows.jsonl", **options):
        (tmp_path / name).write_text(rows[0] if isinstance(rows[0], str) else lines(*rows))
        return trueup.add_data(workspace, str(tmp_path / name), kind, **options)

    return made


def rows_of(artifact) -> list[dict]:
    return list(read_jsonl(artifact.path / "rows.jsonl"))


def items_of(workspace, name: str) -> list[queue.Item]:
    return queue.items(workspace.database, queue.collection(workspace.database, name).id, limit=1000)


def judge_all(workspace, name: str) -> list:
    """One person says that the left one is better, and sees what the pages see."""
    desk, who = Desk(workspace, name, lambda: NOW), people.add_person(workspace.database, "Ada", "annotator", NOW).id
    seen = []
    while (view := desk.next(who)) is not None:
        seen.append(view)
        desk.answer(who, view.assignment, "k", {"choice": -1})
    return seen


# --- a file of completions

ASKED = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": "hi", "completions": ["a", {"text": "b", "model": "m", "finished": False}]}],
        [{"messages": ASKED, "completions": [{"text": "a"}, {"text": "b", "model": "m", "finished": False}]}],
        [
            {"prompt": "hi", "completion": "a"},
            {"prompt": "hi", "completion": [{"role": "assistant", "content": "b"}], "model": "m", "finished": False},
        ],
    ],
    ids=["texts and objects", "messages", "one row each"],
)
def test_the_same_set_comes_out_of_every_shape(add, rows):
    report = add("completions", *rows)
    assert report.artifact.kind == "completions" and not report.skipped
    b = {"text": "b", "finished": False, "model": "m"}
    assert rows_of(report.artifact) == [
        {"prompt": {"messages": ASKED}, "completions": [{"text": "a", "finished": True}, b]}
    ]


def test_a_csv_of_one_row_each_is_grouped_by_prompt(add):
    text = "question,reply,model,finished\nhi,a,m,true\nho,c,m,\nhi,b,n,false\n"
    found = add("completions", text, name="rows.csv", mapping={"prompt": "question", "completion": "reply"})
    assert [[c["text"] for c in row["completions"]] for row in rows_of(found.artifact)] == [["a", "b"], ["c"]]
    assert [c["finished"] for row in rows_of(found.artifact) for c in row["completions"]] == [True, False, True]


def test_what_is_no_completion_is_named_one_by_one(add, tmp_path):
    good = {"prompt": "hi", "completions": ["a"]}
    bad = ["b", 3, {"text": None}, {"text": "c", "finished": "perhaps"}, {"text": "d", "tokens": ["x"]}]
    report = add("completions", good, {"prompt": "hi", "completions": bad}, good | {"completions": []})
    assert len(rows_of(report.artifact)) == 2
    assert dict(report.skipped) == {
        f"{tmp_path}/rows.jsonl:2 completion 2": "a completion is neither a text nor an object with a text",
        f"{tmp_path}/rows.jsonl:2 completion 3": "missing 'text'",
        f"{tmp_path}/rows.jsonl:2 completion 4": "'finished' is neither true nor false",
        f"{tmp_path}/rows.jsonl:2 completion 5": "'tokens' is not a list of whole numbers",
        f"{tmp_path}/rows.jsonl:3": "no completions",
    }
    report = add("completions", {"prompt": "hi", "completions": ["", "a"]})
    assert report.notes == {"with an empty completion, which nobody will be asked about": 1}
    with pytest.raises(DataError, match="no usable row"):
        add("completions", {"prompt": "hi", "completions": [3]})


def test_own_candidates_are_shown_judged_and_lead_back_to_their_file(workspace, add):
    models = [{"text": "short", "model": "gadget-7"}, {"text": "I, gadget-7, am long", "model": "other"}]
    source = add("completions", *({"prompt": f"q{i}", "completions": models} for i in range(3))).artifact
    shown = trueup.show_data(workspace, source)
    assert shown["rows"] == 6 and "am long" in shown["text"]
    made = trueup.collect(workspace, "c", completions=[source], config=SOLO)
    assert (made.items, made.leaks) == (3, 3), "a text that says the name of a model of the file is pointed out"
    assert {frozenset(item.models) for item in items_of(workspace, "c")} == {frozenset(("gadget-7", "other"))}
    for view in judge_all(workspace, "c"):
        assert "other" not in json.dumps(asdict(view), default=str), "nobody sees who wrote what"
    frozen = freeze(workspace, "c", Choice()).artifact
    lineage = workspace.lineage(frozen)
    assert frozen.parents == {"completions": source.id} and lineage.nodes[source.id].meta["source"] == "rows.jsonl"


# --- judgements, judged anew

VOTES = [
    {"prompt": "q0", "completions": ["a", "b", "c"], "ranks": [1, 2, 3], "judge": "old-judge"},
    {"prompt": "q0", "completions": ["c", "d"], "ranks": [1, 2], "judge": "old-judge"},
    *({"prompt": f"q{i}", "completions": ["a", "b"], "ranks": [2, 1], "judge": "old-judge"} for i in range(1, 30)),
]


def test_what_was_judged_is_judged_anew_and_nothing_old_is_shown(workspace, add):
    votes = add("preferences", *VOTES, name="votes.jsonl", seed=7, heldout=0.3).artifact
    made = trueup.collect(workspace, "c", completions=[votes], config=SOLO, items_per_prompt=9)
    assert made.items == 6 + 29 and made.left_out["completions that repeat another or are empty"] == 0
    items = items_of(workspace, "c")
    assert trueup.collect(workspace, "c", completions=[votes], config=SOLO, items_per_prompt=9).added == 0
    sides = {row["prompt"]["messages"][0]["content"]: row["split"] for row in rows_of(votes)}
    assert {item.prompt.text: item.split for item in items} == sides and set(sides.values()) == {"train", "heldout"}
    seen = judge_all(workspace, "c")
    assert len(seen) == 35 and not any("old-judge" in json.dumps(asdict(view), default=str) for view in seen)
    assert all(item.key is None and "ranks" not in json.dumps(item.why) for item in items)

    frozen = freeze(workspace, "c", Choice()).artifact
    source = workspace.get(items[0].completions)
    assert source.kind == "completions" and source.parents == {"texts": votes.id}
    assert frozen.parents == {"completions": source.id}
    lineage = workspace.lineage(frozen)
    assert {node.kind for node in lineage.nodes.values()} == {
        "preferences",
        "completions",
    } and votes.id in lineage.nodes
    assert _sources(lineage) == {"human": 35}, "the old judgements are no part of what a model learns from these"
    assert not any(row["judge"] == "old-judge" for row in rows_of(frozen))


def test_who_wrote_a_judged_text_and_whether_it_was_cut_off_stay_known(workspace, add):
    row = {"id": "j", "prompt": {"messages": ASKED}, "completions": ["a", "b"], "ranks": [1, 2], "judge": "x"}
    row |= {"source": "human", "split": "train", "meta": {"finished": [True, False], "models": ["one", "two"]}}
    votes = add(
        "preferences", row, row | {"id": "k", "prompt": {"messages": [ASKED[0] | {"content": "ho"}]}, "meta": {}}
    )
    trueup.collect(workspace, "c", completions=[votes.artifact], config=SOLO)
    known, unknown = sorted(items_of(workspace, "c"), key=lambda item: item.prompt.text)
    assert {(text, m, f) for text, m, f in zip(known.texts, known.models, known.finished, strict=True)} == {
        ("a", "one", True),
        ("b", "two", False),
    }
    assert set(unknown.models) == {unknown.completions} and all(unknown.finished)


def test_thumbs_give_candidates_too_and_other_kinds_are_refused_with_a_way(workspace, add):
    thumbs = add("unpaired", *({"prompt": "q", "completion": text, "label": True} for text in "abc")).artifact
    assert trueup.collect(workspace, "c", completions=[thumbs], config=SOLO, items_per_prompt=9).items == 3
    prompts = add("prompts", {"prompt": "q"}).artifact
    with pytest.raises(TrueupError) as caught:
        trueup.collect(workspace, "d", completions=[prompts], config=SOLO)
    assert "is of kind 'prompts'" in caught.value.message and "data add FILE --kind completions" in caught.value.hint


def test_a_strategy_chooses_among_judged_texts_on_their_side_of_the_split(workspace, add):
    votes = add("preferences", *VOTES, name="votes.jsonl", seed=7, heldout=0.3).artifact
    drafts = add("completions", {"prompt": "first", "completions": ["x", "y"]}).artifact
    trueup.collect(workspace, "c", completions=[drafts], config=SOLO)
    found = asking.choose(workspace, "c", completions=[votes], n=35)
    assert found["added"] == 35
    sides = {row["prompt"]["messages"][0]["content"]: row["split"] for row in rows_of(votes)}
    assert {item.prompt.text: item.split for item in items_of(workspace, "c") if item.prompt.text in sides} == sides
