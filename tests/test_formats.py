"""Files to records: every known shape, every reason to skip, every error with its place and its way out."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import sys
from pathlib import Path

import pytest

from trueup.errors import DataError
from trueup.records import Demonstration, Judgement, Message, Prompt
from trueup.text.formats import SHAPES, group_of, load, parse_mapping, split_by_prompt

HI = Prompt.user("hi")


def write(folder: Path, rows: list, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one(folder: Path, kind: str, row: dict, mapping: dict | None = None):
    loaded = load(write(folder, [row]), kind, mapping)
    assert len(loaded.records) == 1 and not loaded.skipped
    return loaded.records[0]


def skipped(folder: Path, kind: str, bad: dict, good: dict) -> str:
    """The reason for which `bad` is skipped, beside a row that is not."""
    path = write(folder, [good, bad])
    loaded = load(path, kind)
    assert len(loaded.records) == 1
    ((where, reason),) = loaded.skipped
    assert where == f"{path}:2"
    return reason


def said(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


TALK = said(("user", "hi"), ("assistant", "hello"), ("user", "why?"))
TALK_PROMPT = Prompt((Message("user", "hi"), Message("assistant", "hello"), Message("user", "why?")))


# --- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "hi"}, HI),
        ({"prompt": TALK}, TALK_PROMPT),
        ({"prompt": TALK_PROMPT.to_json()}, TALK_PROMPT),
        ({"messages": TALK}, TALK_PROMPT),
        ({"instruction": "hi", "instances": [{"input": "", "output": "x"}]}, HI),
        ({"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}]}, Prompt.user("Add.\n\n1 2")),
        ({"instruction": "Add.", "input": "1 2"}, Prompt.user("Add.\n\n1 2")),
        ({"instruction": "hi"}, HI),
    ],
)
def test_prompts(tmp_path, row, prompt):
    assert one(tmp_path, "prompts", row) == prompt


@pytest.mark.parametrize(
    ("row", "record"),
    [
        ({"prompt": "hi", "completion": " yes "}, Demonstration(HI, " yes ")),
        ({"prompt": TALK, "completion": said(("assistant", "yes"))}, Demonstration(TALK_PROMPT, "yes")),
        ({"messages": [*TALK, *said(("assistant", "yes"))]}, Demonstration(TALK_PROMPT, "yes")),
        ({"instruction": "hi", "instances": [{"output": "yes"}]}, Demonstration(HI, "yes")),
        ({"instruction": "hi", "input": "", "output": "yes"}, Demonstration(HI, "yes")),
    ],
)
def test_demonstrations(tmp_path, row, record):
    assert one(tmp_path, "demonstrations", row) == record


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "hi", "chosen": "good", "rejected": "bad"}, HI),
        ({"prompt": TALK, "chosen": said(("assistant", "good")), "rejected": said(("assistant", "bad"))}, TALK_PROMPT),
        (
            {
                "prompt": "hi",  # as UltraFeedback has it: the sides begin with the prompt again
                "chosen": said(("user", "hi"), ("assistant", "good")),
                "rejected": said(("user", "hi"), ("assistant", "bad")),
            },
            HI,
        ),
        (
            {"chosen": [*TALK, *said(("assistant", "good"))], "rejected": [*TALK, *said(("assistant", "bad"))]},
            TALK_PROMPT,
        ),
        (
            {
                "chosen": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant: good",
                "rejected": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: why?\n\nAssistant: bad ",
            },
            TALK_PROMPT,
        ),
    ],
)
def test_preferences(tmp_path, row, prompt):
    judgement = one(tmp_path, "preferences", row)
    assert judgement == Judgement(prompt, ("good", "bad"), (1, 2), "unknown", "imported")


def test_the_judge_and_the_id_are_kept(tmp_path):
    row = {"prompt": "hi", "chosen": "a", "rejected": "b", "judge": "ann", "id": 7}
    judgement = one(tmp_path, "preferences", row)
    assert (judgement.judge, judgement.id, judgement.source) == ("ann", "7", "imported")


def test_rankings(tmp_path):
    row = {"prompt": "hi", "completions": ["a", "b", "c"], "ranks": [2, 1, 2]}
    assert one(tmp_path, "preferences", row).pairs() == [(0, 1, 0.0), (0, 2, 0.5), (1, 2, 1.0)]


def test_what_trueup_writes_is_read_back(tmp_path):
    prompt = Prompt(TALK_PROMPT.messages, {"tag": "x"})
    assert one(tmp_path, "prompts", prompt.to_json()).meta == {"tag": "x"}
    shown = Demonstration(prompt, "yes")
    assert one(tmp_path, "demonstrations", shown.to_json()) == shown
    judged = Judgement(prompt, ("a", "b", "c"), (1, 1, 2), "ann", "human", "j1")
    back = one(tmp_path, "preferences", judged.to_json())
    assert (back.prompt, back.completions, back.ranks, back.judge, back.id) == (prompt, *_of(judged))


def _of(judged: Judgement) -> tuple:
    return judged.completions, judged.ranks, judged.judge, judged.id


def test_instances_are_rows_of_their_own(tmp_path):
    instances = [{"input": "1", "output": "one"}, {"input": "2", "output": ""}, {"input": "3", "output": "three"}]
    path = write(tmp_path, [{"instruction": "Spell.", "instances": instances}])
    loaded = load(path, "demonstrations")
    assert [r.completion for r in loaded.records] == ["one", "three"]
    assert loaded.skipped == [(f"{path}:1 instance 2", "empty completion")]


def test_what_was_recognised_is_said(tmp_path):
    rows = [{"question": "hi", "best": "a", "worst": "b"}]
    mapping = parse_mapping("prompt=question, chosen=best,rejected=worst")
    loaded = load(write(tmp_path, rows), "preferences", mapping)
    assert loaded.recognised == (
        "preferences from prompt+chosen+rejected (a prompt and two completions), "
        "with prompt=question, chosen=best, rejected=worst"
    )
    assert loaded.records[0].prompt == HI


def test_a_mapped_column_hides_one_of_the_same_name(tmp_path):
    row = {"prompt": "not this", "question": "hi", "completion": "yes"}
    assert one(tmp_path, "demonstrations", row, {"prompt": "question"}) == Demonstration(HI, "yes")
    taken = {"instruction": "not this", "input": "hi"}
    assert one(tmp_path, "prompts", taken, {"instruction": "input"}) == HI
    swapped = {"prompt": "bad", "chosen": "hi", "rejected": "good"}
    mapping = {"prompt": "chosen", "chosen": "rejected", "rejected": "prompt"}
    assert one(tmp_path, "preferences", swapped, mapping).completions == ("good", "bad")


# --- reasons to skip ------------------------------------------------------------------------------

PAIR = {"prompt": "hi", "chosen": "a", "rejected": "b"}
SIDES = {"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b"}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"chosen": "  \n"}, "empty completion"),
        ({"rejected": " a "}, "equal sides"),
        ({"prompt": " "}, "empty prompt"),
        ({"chosen": None}, "missing 'chosen'"),
        ({"chosen": 3}, "'chosen' is not a text but of type int"),
        ({"prompt": []}, "'prompt' has no messages"),
        ({"prompt": ["hi"]}, "'prompt' is not a list of messages"),
        ({"prompt": said(("tool", "x"))}, "the role 'tool'"),
        ({"prompt": said(("user", "x"), ("assistant", "y"))}, "the prompt ends with a message of the assistant"),
        ({"prompt": said(("assistant", "x"), ("user", " "))}, "empty prompt"),
        ({"prompt": [{"role": "user"}]}, "missing 'content'"),
        ({"chosen": said(("user", "a"))}, "the last message is of the user"),
        ({"chosen": said(("user", "other"), ("assistant", "a"))}, "does not begin with the prompt"),
        ({"chosen": "half \ud83d"}, "bad encoding"),
    ],
)
def test_pairs_that_are_skipped(tmp_path, changed, reason):
    assert reason in skipped(tmp_path, "preferences", PAIR | changed, PAIR)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"chosen": "\n\nHuman: hi\n\nAssistant: "}, "empty completion"),
        ({"chosen": "\n\nHuman: ho\n\nAssistant: a"}, "differing prompts"),
        ({"chosen": "\n\nHuman: hi\n\nAssistant: x\n\nHuman: hm\n\nAssistant: a"}, "differing prompts"),
        ({"chosen": "\n\nHuman: hi\n\nAssistant: b"}, "equal sides"),
        ({"chosen": "\n\nHuman: hi"}, "differing prompts"),
        ({"chosen": "The sky is blue."}, "neither messages nor a transcript"),
        ({"chosen": "Preface\n\nHuman: hi\n\nAssistant: a"}, "neither messages nor a transcript"),
        ({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}, "no prompt before the completion"),
    ],
)
def test_transcripts_that_are_skipped(tmp_path, changed, reason):
    assert reason in skipped(tmp_path, "preferences", SIDES | changed, SIDES)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ranks": [1]}, "same length"),
        ({"completions": ["a"], "ranks": [1]}, "at least 2"),
        ({"ranks": "1,2"}, "must be lists"),
        ({"ranks": [1.5, 2]}, "whole numbers"),
        ({"ranks": [True, False]}, "whole numbers"),
        ({"completions": ["a", ""]}, "empty completion"),
    ],
)
def test_rankings_that_are_skipped(tmp_path, changed, reason):
    good = {"prompt": "hi", "completions": ["a", "b"], "ranks": [1, 2]}
    assert reason in skipped(tmp_path, "preferences", good | changed, good)


def test_reasons_are_counted(tmp_path):
    bad = [PAIR | {"chosen": ""}, PAIR | {"chosen": "b"}, PAIR | {"rejected": ""}]
    loaded = load(write(tmp_path, [*bad, PAIR]), "preferences")
    assert loaded.reasons == {"empty completion": 2, "equal sides": 1} and len(loaded.records) == 1


def test_a_row_without_a_column_that_others_have(tmp_path):
    assert skipped(tmp_path, "preferences", {"prompt": "hi", "chosen": "a"}, PAIR) == "missing 'rejected'"


# --- errors ---------------------------------------------------------------------------------------


def error(source, kind: str = "preferences", mapping: dict | None = None) -> str:
    with pytest.raises(DataError) as caught:
        load(source, kind, mapping)
    assert "\n" not in caught.value.message + caught.value.hint
    return f"error: {caught.value.message} hint: {caught.value.hint}"


def test_unknown_columns_are_named_with_a_mapping_to_use(tmp_path):
    path = write(tmp_path, [{"question": "hi", "best": "a", "extra": 1}])
    message = error(path)
    assert f"error: {path}: columns 'question', 'best', 'extra' are not preferences" in message
    assert "--map prompt=question,chosen=best,rejected=COLUMN" in message


def test_the_wrong_kind_names_the_right_one(tmp_path):
    assert "as --kind preferences it is chosen+rejected" in error(write(tmp_path, [SIDES]), "demonstrations")


def test_mapping_errors(tmp_path):
    path = write(tmp_path, [{"question": "hi", "best": "a"}])
    assert "no column 'questoin' (did you mean 'question'?)" in error(path, "prompts", {"prompt": "questoin"})
    assert "no field 'promt' (did you mean 'prompt'?)" in error(path, "prompts", {"promt": "question"})
    for text in ("prompt", "prompt=", "=x"):
        with pytest.raises(DataError, match="field=column"):
            parse_mapping(text)


def test_a_line_that_is_not_json_stops_the_import(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(PAIR) + "\n\n{oops\n")
    assert f"{path}:3: not JSON: Expecting property name" in error(path)
    loaded = load(path, "preferences", skip_malformed=True)
    assert len(loaded.records) == 1 and loaded.skipped[0][0] == f"{path}:3"
    assert loaded.skipped[0][1].startswith("not JSON")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"[1]", "a JSON list, not an object"),
        (b'"x"', "a JSON str, not an object"),
        (b'{"prompt": "\xff"}', "bad encoding"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"prompt": ' + b"1" * 10_000 + b"}", "a number with too many digits"),
    ],
    ids=["list", "text", "bytes", "deep", "digits"],
)
def test_lines_that_are_not_rows(tmp_path, line, says):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "hi"}\n' + line + b"\n")
    assert f"{path}:2: {says}" in error(path, "prompts")


def test_files_that_cannot_be_read(tmp_path):
    write(tmp_path, [PAIR], "prefs.jsonl")
    assert "no such file (did you mean 'prefs.jsonl'?)" in error(tmp_path / "pref.jsonl")
    assert "files ending in '.txt' are not read" in error(write(tmp_path, [PAIR], "rows.txt"))
    assert "no rows" in error(write(tmp_path, [], "empty.jsonl"))
    assert "datasets.save_to_disk did not write" in error(tmp_path)
    broken = tmp_path / "cut.jsonl.gz"
    broken.write_bytes(gzip.compress(json.dumps(PAIR).encode() * 100)[:-20])
    assert f"{broken}:1: broken gzip" in error(broken)
    (tmp_path / "plain.jsonl.gz").write_text("{}")
    assert "broken gzip" in error(tmp_path / "plain.jsonl.gz")


def test_no_row_left_is_an_error_with_the_reasons(tmp_path):
    path = write(tmp_path, [PAIR | {"chosen": ""}, PAIR | {"chosen": "b"}, PAIR | {"chosen": ""}])
    message = error(path)
    assert "no usable row among 3: 2 x empty completion; 1 x equal sides" in message
    assert f"the first is {path}:1: empty completion" in message


# --- kinds of file --------------------------------------------------------------------------------


def test_gzip_byte_order_mark_and_json_arrays(tmp_path):
    rows = [PAIR, PAIR | {"chosen": "ä"}]
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "b.JSONL").write_bytes(lines.encode("utf-8-sig"))
    (tmp_path / "c.json").write_text(json.dumps(rows, indent=1))
    expected = load(write(tmp_path, rows), "preferences").records
    for name in ("a.jsonl.gz", "b.JSONL", "c.json"):
        assert load(tmp_path / name, "preferences").records == expected


def test_json_array_errors(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"prompt": "hi"},\n {"prompt" "x"}]')
    assert f"{path}:2: not JSON" in error(path, "prompts")
    path.write_text('{"prompt": "hi"}\n{"prompt": "ho"}')
    assert "must end in .jsonl" in error(path, "prompts")
    path.write_text('{"prompt": "hi"}')
    assert "not an array" in error(path, "prompts")
    path.write_text('[{"prompt": "hi"}, 3]')
    assert f"{path} item 2: not an object" in error(path, "prompts")


def test_csv(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        long = "x" * 200_000
        csv.writer(file).writerows(
            [("prompt", "completion"), ("hi", 'two\nlines, and "quotes"'), ("ho", ""), ("hu", long)]
        )
    loaded = load(path, "demonstrations")
    assert [r.completion for r in loaded.records] == ['two\nlines, and "quotes"', long]
    assert loaded.skipped == [(f"{path}:4", "empty completion")]


def test_csv_errors(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\nhi,yes\nhi,yes,and more\n")
    assert f"{path}:3: more values than columns" in error(path, "demonstrations")
    path.write_text("prompt,completion\nhi,yes\nhi\n")
    assert f"{path}:3: fewer values than columns: 1 for 2" in error(path, "demonstrations")
    path.write_text('prompt,completion\nhi,"never closed\n')
    assert "not CSV" in error(path, "demonstrations")
    path.write_bytes(b"prompt,completion\nhi,yes\nhi,\xff\n")
    assert f"{path}:3: bad encoding" in error(path, "demonstrations")
    path.write_text("prompt,completion\n")
    assert "no rows" in error(path, "demonstrations")
    path.write_text("")
    assert "no rows" in error(path, "demonstrations")


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [PAIR | {"prompt": TALK}, PAIR | {"prompt": TALK, "chosen": None}]
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    loaded = load(path, "preferences")
    assert loaded.records[0].prompt == TALK_PROMPT
    assert loaded.skipped == [(f"{path} row 2", "missing 'chosen'")]
    path.write_bytes(b"PAR1 and then nothing")
    assert "not Parquet" in error(path)


def test_saved_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list([PAIR, PAIR | {"rejected": "a"}])
    made.save_to_disk(str(tmp_path / "one"))
    loaded = load(tmp_path / "one", "preferences")
    assert len(loaded.records) == 1 and loaded.reasons == {"equal sides": 1}
    datasets.DatasetDict(train=made, test=made).save_to_disk(str(tmp_path / "both"))
    assert f"holds the splits test, train hint: name one: {tmp_path / 'both' / 'test'}" in error(tmp_path / "both")
    assert len(load(tmp_path / "both" / "train", "preferences").records) == 1


def test_datasets_by_id(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []

    def fake(name, *config, split):
        asked.append((name, *config, split))
        return [PAIR]

    monkeypatch.setattr(datasets, "load_dataset", fake)
    assert load("hf:who/what:train", "preferences").records
    assert load("hf:who/what:english:test", "preferences").records
    assert asked == [("who/what", "train"), ("who/what", "english", "test")]

    def refuse(*_, **__):
        raise ValueError("no such\nsplit")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    assert "who/what: no such hint" in error("hf:who/what:nope")
    for source in ("hf:who/what", "hf::train", "hf:a:b:c:d", "hf:who/what:"):
        assert "must read hf:NAME:SPLIT" in error(source)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.parquet").write_bytes(b"")
    assert "needs the package pyarrow hint: pip install pyarrow" in error(tmp_path / "rows.parquet")


# --- splits ---------------------------------------------------------------------------------------


def test_splits_depend_on_prompt_and_seed_alone():
    ids = [Prompt.user(str(i)).id for i in range(4000)]
    sides = [split_by_prompt(i, 0.1, seed=3) for i in ids]
    assert sides == [split_by_prompt(i, 0.1, seed=3) for i in ids]
    assert 0.08 < sides.count("heldout") / 4000 < 0.12
    assert sides != [split_by_prompt(i, 0.1, seed=4) for i in ids]
    # a larger share only adds prompts: nothing that was held out comes back into training
    assert all(split_by_prompt(i, 0.3, 3) == "heldout" for i, side in zip(ids, sides, strict=True) if side == "heldout")
    assert {split_by_prompt(i, 0.0, 0) for i in ids} == {"train"} and {split_by_prompt(i, 1.0, 0) for i in ids} == {
        "heldout"
    }


def test_a_conversation_and_its_later_turns_are_one_group():
    """As in hh-rlhf, where a model that learnt from three turns would be tested on one that it has read."""

    def talk(*said: str) -> Prompt:
        return Prompt(tuple(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(said)))

    first = talk("how are you")
    assert group_of(first) == first.id, "prompts of one message are where they always were"
    assert group_of(talk("how are you", "well", "and now")) == first.id == group_of(talk("how are you", "no", "why"))
    assert group_of(talk("who are you", "me", "and now")) != first.id
    told = Prompt((Message("system", "be brief"), Message("user", "how are you")))
    assert group_of(told) == told.id != first.id
    assert group_of(Prompt.user("anything", group="poems")) == "poems"
    alone = Prompt((Message("assistant", "hello"),))
    assert group_of(alone) == alone.id


def test_every_shape_is_tried_before_a_smaller_one_of_its_columns():
    for shapes in SHAPES.values():
        for i, later in enumerate(shapes):
            for earlier in shapes[:i]:
                assert not set(earlier.columns) < set(later.columns), f"{later} is never reached"


# --- real files -----------------------------------------------------------------------------------


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("TRUEUP_REAL_DATA")
    if not folder:
        pytest.skip("TRUEUP_REAL_DATA is not set: the real data sets are not here")
    return Path(folder)


def test_real_hh_rlhf(real):
    for path in sorted((real / "hh-rlhf").glob("*.jsonl.gz")):
        loaded = load(path, "preferences")
        rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        assert len(loaded.records) + len(loaded.skipped) == len(rows)
        assert set(loaded.reasons) == {"empty completion"}
        empty = [n for n, row in enumerate(rows, 1) if any(re.search(r"Assistant:\s*\Z", row[s]) for s in row)]
        assert [where for where, _ in loaded.skipped] == [f"{path}:{n}" for n in empty]
        kept = (row for n, row in enumerate(rows, 1) if n not in empty)
        for judgement, row in zip(loaded.records, kept, strict=True):
            for text, side in zip(judgement.completions, ("chosen", "rejected"), strict=True):
                assert row[side].rpartition("\n\nAssistant:")[2].strip() == text
            speakers = {"user": "Human", "assistant": "Assistant"}
            prompt = "".join(f"\n\n{speakers[m.role]}: {m.content}" for m in judgement.prompt.messages)
            assert _words(row["chosen"]).startswith(_words(prompt))


def _words(text: str) -> str:
    return " ".join(text.split())


def test_real_self_instruct(real):
    loaded = load(real / "self_instruct" / "seed_tasks.jsonl", "demonstrations")
    assert len(loaded.records) == 175 and not loaded.skipped
    assert "self-instruct" in loaded.recognised


def test_real_csv_with_long_texts(real):
    (path,) = (real / "xstest").glob("*completions*.csv")
    assert len(load(path, "demonstrations").records) == 450
