"""What an export holds in each format, what it leaves out and says so, and that no spreadsheet obeys it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from trueup.errors import ConfigError, DataError
from trueup.records import Demonstration, Judgement, Message, Prompt
from trueup.text.cells import guarded
from trueup.text.views import VIEWS, view
from trueup.text.writers import WRITERS, ending_of

SKY = Prompt.user("The sky is")
TALK = Prompt((Message("user", "hi"), Message("assistant", "hello"), Message("user", "why?")))


def judged(*ranks: int, prompt: Prompt = SKY, **more) -> dict:
    texts = tuple("abcdefghi"[: len(ranks)])
    return Judgement(prompt, texts, ranks, **{"judge": "human:abc234", "source": "human"} | more).to_json()


def rows(kind: str, format: str, *found: dict, **options) -> list[dict]:
    return view(kind, found, format, **options).rows


# --- TRL


def test_a_ranking_becomes_all_its_decided_pairs():
    made = view("preferences", [judged(2, 1, 2)], "trl-preference")
    assert made.rows == [
        {"prompt": "The sky is", "chosen": "b", "rejected": "a"},
        {"prompt": "The sky is", "chosen": "b", "rejected": "c"},
    ]
    assert made.reasons == {"a tie": 1}


def test_strength_becomes_the_margin_where_every_row_has_one():
    strong, slight = judged(1, 2, meta={"strength": -3}), judged(2, 1, meta={"margin": 0.5})
    assert [row["margin"] for row in rows("preferences", "trl-preference", strong, slight)] == [3.0, 0.5]
    made = view("preferences", [strong, judged(1, 2)], "trl-preference")
    assert all("margin" not in row for row in made.rows)
    assert made.notes == {"without a strength, so that no row has a margin": 1}
    both_bad = judged(1, 1, meta={"strength": "both bad"})
    assert view("preferences", [strong, both_bad], "trl-preference").reasons == {"a tie": 1}
    # the strength of a pair says nothing about the pairs of a ranking
    assert "margin" not in rows("preferences", "trl-preference", judged(1, 2, 3, meta={"strength": 2}))[0]


def test_soft_targets_decide_and_are_counted():
    made = view("preferences", [judged(1, 2, targets=(0.25,)), judged(1, 2, targets=(1.0,))], "trl-preference")
    assert [row["chosen"] for row in made.rows] == ["b", "a"]
    assert made.notes == {"with soft targets, of which only the likelier side is kept": 1}


def test_equal_texts_and_single_completions_are_no_pairs():
    same = Judgement(SKY, ("a", "a"), (1, 2), "j", "human").to_json()
    made = view("preferences", [same, judged(1), judged(1, 2)], "trl-preference")
    assert len(made.rows) == 1 and made.reasons == {"equal sides": 1, "one completion: nothing to compare": 1}


def test_conversational_rows():
    (row,) = rows("preferences", "trl-preference", judged(1, 2, prompt=TALK), conversational=True)
    assert row == {
        "prompt": [{"role": m.role, "content": m.content} for m in TALK.messages],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
    }


def test_a_conversation_is_not_made_one_text():
    made = view("preferences", [judged(1, 2, prompt=TALK), judged(1, 2)], "trl-preference")
    assert len(made.rows) == 1 and list(made.reasons) == [
        "a prompt of several messages: only conversational rows hold it"
    ]
    with pytest.raises(DataError) as caught:
        view("preferences", [judged(1, 2, prompt=TALK)], "trl-preference")
    assert "--conversational" in caught.value.hint


def test_thumbs_and_pairs_become_labels():
    up, unsure = judged(1, ratings={"thumb": (1.0,)}), judged(1, ratings={"thumb": (None,)})
    made = view("unpaired", [up, judged(1, ratings={"thumb": (0.0,)}), unsure], "trl-unpaired")
    assert [(row["completion"], row["label"]) for row in made.rows] == [("a", True), ("a", False)]
    assert made.reasons == {"an undecided thumb": 1}
    made = view("preferences", [judged(2, 1), judged(1, 1), judged(1, 2, 3)], "trl-unpaired")
    assert [(row["completion"], row["label"]) for row in made.rows] == [("a", False), ("b", True)]
    assert made.reasons == {"a tie": 1, "neither thumbs nor a pair": 1}


def test_prompt_completion_takes_demonstrations_and_sole_winners():
    shown = Demonstration(SKY, "blue").to_json()
    assert rows("demonstrations", "trl-prompt-completion", shown) == [{"prompt": "The sky is", "completion": "blue"}]
    made = view("preferences", [judged(3, 1, 2), judged(1, 1, 2)], "trl-prompt-completion")
    assert [row["completion"] for row in made.rows] == ["b"]
    assert made.reasons == {"several completions share the first place": 1}


def test_prompts():
    assert rows("prompts", "trl-prompt", SKY.to_json()) == [{"prompt": "The sky is"}]
    assert rows("preferences", "trl-prompt", judged(1, 2)) == [{"prompt": "The sky is"}]


# --- sides, names, refusals


def test_one_side_of_the_split():
    both = [judged(1, 2), judged(2, 1, split="heldout")]
    assert [row["chosen"] for row in rows("preferences", "trl-preference", *both, split="heldout")] == ["b"]
    with pytest.raises(DataError, match="no rows of split 'train'"):
        view("prompts", [SKY.to_json()], "raw", split="train")


def test_judges_can_be_numbered_and_nothing_else_changes():
    given = [judged(1, 2, id="1"), judged(2, 1, judge="human:xyz789", id="2"), judged(1, 2, id="3")]
    numbered = rows("preferences", "raw", *given, number_judges=True)
    assert [row["judge"] for row in numbered] == ["judge-1", "judge-2", "judge-1"]
    assert [row | {"judge": old["judge"]} for row, old in zip(numbered, given, strict=True)] == given
    assert [row["judge"] for row in given] == ["human:abc234", "human:xyz789", "human:abc234"]


@pytest.mark.parametrize(
    ("kind", "format", "says", "hint"),
    [
        ("preferences", "trl-preferences", "(did you mean 'trl-preference'?)", "raw, table"),
        ("prompts", "trl-preference", "prompts cannot be written as trl-preference", "raw, table, trl-prompt"),
        ("model", "raw", "model cannot be written as raw", "kinds of data: prompts"),
    ],
)
def test_formats_that_do_not_fit(kind, format, says, hint):
    with pytest.raises(ConfigError) as caught:
        view(kind, [], format)
    assert says in caught.value.message and hint in caught.value.hint


def test_only_trl_rows_are_conversational():
    with pytest.raises(ConfigError, match="raw rows are not conversational"):
        view("preferences", [judged(1, 2)], "raw", conversational=True)


def test_the_command_knows_all_formats():
    from trueup.cli.data import export

    (option,) = (p for p in export.params if p.name == "view")
    assert list(option.type.choices) == list(VIEWS)


# --- spreadsheets


def written(made) -> list[list[str]]:
    file = io.BytesIO()
    WRITERS[".csv"](file, made)
    return list(csv.reader(io.StringIO(file.getvalue().decode("utf-8-sig"), newline="")))


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", '=HYPERLINK("http://evil","x")', "=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_csv_begins_a_formula(text):
    said = {"answer": {"rationale": text}, "strength": -2}
    ratings = {text: (-1.0, 2.0)}
    row = Judgement(
        Prompt.user(text), (text, "b"), (1, 2), text, "imported", text, meta=said, ratings=ratings
    ).to_json()
    table = written(view("preferences", [row], "table"))
    numbers = {"-2", "-1.0", "2.0", "1", "2"}
    cells = [cell for line in table for cell in line if cell not in numbers]
    assert sum(cell == f"'{text}" for cell in cells) == 9, "id, judge, prompt and rationale twice, the completion once"
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


@pytest.mark.parametrize("value", [-3, -0.5, None, True, "plain", "a=b", "'quoted", "", "[1, 2]", '{"a": 1}', "[oh]"])
def test_other_cells_stay_as_they_are(value):
    assert guarded(value) is value


def test_the_golden_table(tmp_path):
    both = judged(2, 1, prompt=TALK, id="j1", meta={"strength": 2, "answer": {"rationale": "-clear"}}, split="heldout")
    one = judged(1, id="j2", ratings={"thumb": (1.0,)})
    assert written(view("preferences", [both, one], "table")) == [
        "id judge source split prompt completion rank strength rationale".split() + ["rating thumb"],
        [
            "j1",
            "human:abc234",
            "human",
            "heldout",
            "user: hi\n\nassistant: hello\n\nuser: why?",
            "a",
            "2",
            "2",
            "'-clear",
            "",
        ],
        [
            "j1",
            "human:abc234",
            "human",
            "heldout",
            "user: hi\n\nassistant: hello\n\nuser: why?",
            "b",
            "1",
            "2",
            "'-clear",
            "",
        ],
        ["j2", "human:abc234", "human", "train", "The sky is", "a", "1", "", "", "1.0"],
    ]


def test_lists_and_objects_are_json_in_a_csv():
    header, row = written(view("preferences", [judged(1, 2, ratings={"overall": (1.0, None)})], "raw"))
    cells = dict(zip(header, row, strict=True))
    assert json.loads(cells["prompt"]) == SKY.to_json() and cells["completions"] == '["a", "b"]'
    assert (cells["ranks"], cells["ratings"]) == ("[1, 2]", '{"overall": [1.0, null]}')
    _, row = written(view("preferences", [judged(1, 2)], "trl-preference", conversational=True))
    assert row[1] == '[{"role": "assistant", "content": "a"}]'


def test_completions_have_a_table_and_prompts():
    written = [{"text": "blue", "finished": True, "model": "m"}, {"text": "gr", "finished": False}]
    row = {"prompt": SKY.to_json(), "completions": written}
    assert rows("completions", "table", row) == [
        {"prompt": "The sky is", "completion": "blue", "model": "m", "finished": True},
        {"prompt": "The sky is", "completion": "gr", "model": "", "finished": False},
    ]
    assert rows("completions", "trl-prompt", row) == [{"prompt": "The sky is"}]


def test_how_a_path_is_written():
    names = ["a.jsonl", "a.b.JSONL.GZ", "x.csv", "x.parquet", "folder"]
    assert [ending_of(Path(name)) for name in names] == [".jsonl", ".jsonl.gz", ".csv", ".parquet", ""]
    for name in ("a.json", "a.csv.gz", "v1.2"):
        with pytest.raises(DataError, match="are not written"):
            ending_of(Path(name))
