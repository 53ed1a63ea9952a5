"""A raw export that is added again gives equal records, in every kind of file; a TRL export gives the same pairs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trueup
from trueup.api import export_data
from trueup.errors import TrueupError
from trueup.loading import put_records
from trueup.records import Judgement, Message, Prompt
from trueup.store import Workspace, read_jsonl
from trueup.text.formats import load
from trueup.text.views import view
from trueup.text.writers import WRITERS, write_folder

# Any text that UTF-8 holds: with line ends of every kind, zero bytes, directions, formulas.
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBER = st.none() | st.floats(-10, 10) | st.integers(-10, 10)
META = st.dictionaries(TEXT, st.recursive(NUMBER | TEXT | st.booleans(), st.lists, max_leaves=4), max_size=3)
PROMPTS = st.builds(
    Prompt,
    st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), min_size=1, max_size=3).map(
        tuple
    ),
    META,
)


@st.composite
def judgements(draw, most: int = 4) -> Judgement:
    k = draw(st.integers(1, most))
    values = st.lists(NUMBER, min_size=k, max_size=k).map(tuple)
    targets = draw(st.sampled_from([0, k * (k - 1) // 2]))
    return Judgement(
        draw(PROMPTS),
        tuple(draw(st.lists(TEXT, min_size=k, max_size=k))),
        tuple(draw(st.lists(st.integers(-5, 9), min_size=k, max_size=k))),
        draw(TEXT),
        draw(st.sampled_from(["human", "ai", "simulated", "imported", "rule"])),
        "",
        draw(st.sampled_from(["train", "heldout"])),
        draw(META),
        draw(st.dictionaries(TEXT, values, max_size=2)),
        tuple(draw(st.lists(st.floats(0, 1), min_size=targets, max_size=targets))),
    )


def there_and_back(folder: Path, rows: list[dict], kind: str, ending: str) -> list[dict]:
    path = folder / f"rows{ending}"
    made = view(kind, rows, "raw")
    if ending:
        with path.open("wb") as file:
            WRITERS[ending](file, made)
    else:
        write_folder(path, made)
    loaded = load(path, kind)
    assert not loaded.skipped and loaded.keeps_split == (kind in ("preferences", "unpaired"))
    return [record.to_json() for record in loaded.records]


QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".parquet"])
@QUICK
@given(found=st.lists(judgements(), min_size=1, max_size=4))
def test_judgements_come_back_equal(found, ending, tmp_path_factory):
    rows = [{**one.to_json(), "id": str(number)} for number, one in enumerate(found)]
    back = there_and_back(tmp_path_factory.mktemp("trip"), rows, "preferences", ending)
    assert back == rows
    assert [json.dumps(row) for row in back] == [json.dumps(row) for row in rows], "1 and 1.0 stay apart"


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
@QUICK
@given(found=st.lists(judgements(most=1), min_size=1, max_size=3))
def test_thumbs_come_back_equal(found, ending, tmp_path_factory):
    rows = [one.to_json() for one in found]
    assert there_and_back(tmp_path_factory.mktemp("trip"), rows, "unpaired", ending) == rows


WORDS = TEXT.filter(str.strip)
# What a spreadsheet would run, what carries our own mark already, and what reads like a list of messages.
SAID = '[{"role": "user", "content": "hi"}]'
FORMULAS = st.builds(
    "{}{}{}".format,
    st.text("'", max_size=3),
    st.sampled_from([*"=+-@\t\r\n", SAID, '{"messages": []}', "[1]", "{", "\n\x00\x00"]),
    TEXT | st.just(""),
).filter(str.strip)
ASKED = st.builds(
    lambda before, last, meta: Prompt((*before, Message("user", last)), meta),
    st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=2).map(tuple),
    WORDS,
    META,
)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
@QUICK
@given(prompt=ASKED, completion=WORDS | FORMULAS, beside=st.booleans())
def test_demonstrations_and_prompts_come_back_equal(prompt, completion, beside, ending, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trip")
    shown = {"prompt": prompt.to_json(), "completion": completion}
    said = {"judge": "human:abc234", "source": "human", "id": "j1", "split": "train"} if beside else {}
    said |= {"meta": {"models": ["m", None], "why": {"probability": 0.5}}} if beside else {}
    made = view("demonstrations", [shown | said], "raw")
    with (folder / f"demos{ending}").open("wb") as file:
        WRITERS[ending](file, made)
    loaded = load(folder / f"demos{ending}", "demonstrations")
    assert [{**r.to_json(), **b} for r, b in zip(loaded.records, loaded.beside, strict=True)] == [shown | said]
    assert there_and_back(folder, [prompt.to_json()], "prompts", ending) == [prompt.to_json()]


COMPLETION = st.fixed_dictionaries(
    {"text": TEXT | FORMULAS, "finished": st.booleans()},
    optional={
        "model": WORDS,
        "tokens": st.lists(st.integers(0, 2**31), min_size=1, max_size=3),
        "logprobs": st.lists(st.floats(-9, 0), min_size=1, max_size=3),
    },
)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
@QUICK
@given(prompt=ASKED, found=st.lists(COMPLETION, min_size=1, max_size=3))
def test_completions_come_back_equal(prompt, found, ending, tmp_path_factory):
    rows = [{"prompt": prompt.to_json(), "completions": found}]
    assert there_and_back(tmp_path_factory.mktemp("trip"), rows, "completions", ending) == rows


@pytest.mark.parametrize("conversational", [False, True])
@pytest.mark.parametrize(
    ("source", "format", "kind"),
    [
        ("preferences", "trl-preference", "preferences"),
        ("preferences", "trl-unpaired", "unpaired"),
        ("preferences", "trl-prompt-completion", "demonstrations"),
        ("preferences", "trl-prompt-completion", "completions"),
        ("preferences", "trl-prompt", "prompts"),
    ],
)
def test_a_csv_of_trl_rows_says_what_their_jsonl_says(source, format, kind, conversational, tmp_path):
    rows = [*some(3), Judgement(Prompt.user(SAID), ("=1+1", "'-a"), (2, 1), "j", "human").to_json()]
    found = []
    for ending in (".jsonl", ".csv"):
        with (tmp_path / f"rows{ending}").open("wb") as file:
            WRITERS[ending](file, view(source, rows, format, conversational=conversational))
        loaded = load(tmp_path / f"rows{ending}", kind)
        assert not loaded.skipped
        found.append([record.to_json() for record in loaded.records])
    assert found[0] == found[1] and SAID in json.dumps(found[1]).replace('\\"', '"')


@pytest.mark.parametrize("conversational", [False, True])
@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
@QUICK
@given(data=st.data())
def test_trl_pairs_come_back_as_the_pairs_of_the_ranking(ending, conversational, data, tmp_path_factory):
    texts = data.draw(st.lists(WORDS | FORMULAS, min_size=2, max_size=4, unique_by=str.strip))
    ranks = data.draw(
        st.lists(st.integers(1, 4), min_size=len(texts), max_size=len(texts)).filter(lambda r: len({*r}) > 1)
    )
    prompt = data.draw(ASKED if conversational else (WORDS | FORMULAS).map(Prompt.user))
    judgement = Judgement(prompt, tuple(texts), tuple(ranks), "j", "human")
    path = tmp_path_factory.mktemp("trip") / f"rows{ending}"
    with path.open("wb") as file:
        WRITERS[ending](
            file, view("preferences", [judgement.to_json()], "trl-preference", conversational=conversational)
        )
    pairs = [(texts[i], texts[j]) if t else (texts[j], texts[i]) for i, j, t in judgement.pairs() if t != 0.5]
    loaded = load(path, "preferences")
    assert [record.completions for record in loaded.records] == pairs and not loaded.skipped
    assert {record.prompt for record in loaded.records} == {prompt}


# --- in a workspace


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as made:
        yield made


def some(count: int) -> list[dict]:
    order = {"order": [1, 0], "answer": {"choice": -2}, "strength": -2}
    return [
        Judgement(
            Prompt.user(f"question {number}", topic="t"),
            ("a", "b"),
            (1, 2),
            f"human:abc{number % 3}",
            "human",
            f"j{number}",
            "heldout" if number % 4 == 0 else "train",
            order,
            {"overall": (5.0, None)},
            (0.75,),
        ).to_json()
        for number in range(count)
    ]


@pytest.mark.parametrize("name", ["votes.jsonl", "votes.jsonl.gz", "votes.csv", "votes.parquet", "votes"])
def test_an_export_added_again_is_the_same_set(ws, tmp_path, name):
    artifact = put_records(ws, "preferences", some(20))
    report = export_data(ws, artifact, tmp_path / name)
    assert report.rows == 20 and not report.left_out
    again = trueup.add_data(ws, str(report.path), "preferences").artifact
    rows = [list(read_jsonl(each.path / "rows.jsonl")) for each in (artifact, again)]
    assert rows[0] == rows[1] == some(20)


def test_heldout_draws_the_split_anew_only_when_asked(ws, tmp_path):
    report = export_data(ws, put_records(ws, "preferences", some(20)), tmp_path / "votes.jsonl")
    again = trueup.add_data(ws, str(report.path), "preferences", heldout=0.0).artifact
    assert {row["split"] for row in read_jsonl(again.path / "rows.jsonl")} == {"train"}


def test_thumbs_can_be_added_and_exported(ws, tmp_path):
    path = tmp_path / "thumbs.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"p{i}", "completion": "c", "label": i % 2 == 0}) + "\n" for i in range(40))
    )
    artifact = trueup.add_data(ws, str(path), "unpaired").artifact
    assert artifact.kind == "unpaired"
    assert {row["split"] for row in read_jsonl(artifact.path / "rows.jsonl")} == {"train", "heldout"}
    report = export_data(ws, artifact, tmp_path / "out.jsonl", "trl-unpaired")
    assert list(read_jsonl(report.path)) == list(read_jsonl(path))


def test_what_datasets_and_pandas_see(ws, tmp_path):
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    artifact = put_records(ws, "preferences", some(3))
    folder = export_data(ws, artifact, tmp_path / "folder", "trl-preference", conversational=True).path
    (first, *_) = datasets.load_from_disk(str(folder))
    assert first["chosen"] == [{"role": "assistant", "content": "a"}] and first["margin"] == 2.0
    frame = pandas.read_parquet(export_data(ws, artifact, tmp_path / "table.parquet", "table").path)
    assert list(frame["rank"]) == [1, 2] * 3 and list(frame["rating overall"])[0] == 5.0
    assert frame["strength"].tolist() == [-2.0] * 6


def test_words_and_numbers_in_one_column_are_words(ws, tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = some(2)
    rows[1]["meta"] = {"strength": "both bad"}
    report = export_data(ws, put_records(ws, "preferences", rows), tmp_path / "table.parquet", "table")
    assert pandas.read_parquet(report.path)["strength"].tolist() == ["-2", "-2", "both bad", "both bad"]


def test_an_export_never_writes_over_anything_and_leaves_no_rests(ws, tmp_path):
    artifact = put_records(ws, "preferences", some(2))
    for name in ("votes.jsonl", "votes"):
        export_data(ws, artifact, tmp_path / name)
        with pytest.raises(TrueupError, match="is there already"):
            export_data(ws, artifact, tmp_path / name)
    with pytest.raises(TrueupError, match="there is no folder"):
        export_data(ws, artifact, tmp_path / "no" / "votes.jsonl")
    rows = [Judgement(Prompt.user("a"), ("b", "c"), (1, 2**70), "j", "human").to_json()]
    for name in ("huge.parquet", "huge"):
        with pytest.raises(TrueupError, match="do not fit"):
            export_data(ws, put_records(ws, "preferences", rows), tmp_path / name)
    rows = [Judgement(Prompt.user("a"), ("b", "c"), (1, 2), "j", "human").to_json() | {"meta": {"x": float("nan")}}]
    for ending in ("csv", "jsonl"):
        with (tmp_path / "ws" / "nan").open("wb") as file, pytest.raises(TrueupError, match="row 1 cannot be written"):
            WRITERS[f".{ending}"](file, view("preferences", rows, "raw"))
    assert sorted(os.listdir(tmp_path)) == ["votes", "votes.jsonl", "ws"]


def test_a_person_is_a_pseudonym_in_every_export(ws, tmp_path):
    from trueup.store.people import add_person

    person = add_person(ws.database, "Ada Lovelace", "annotator", 1.0)
    rows = [row | {"judge": person.judge} for row in some(3)]
    artifact = put_records(ws, "preferences", rows)
    for format in ("raw", "table", "trl-preference"):
        text = export_data(ws, artifact, tmp_path / f"{format}.jsonl", format).path.read_text(encoding="utf-8")
        assert "Ada" not in text and "Lovelace" not in text and (person.judge in text) == (format in ("raw", "table"))
    numbered = export_data(ws, artifact, tmp_path / "numbered.jsonl", number_judges=True).path
    assert {row["judge"] for row in read_jsonl(numbered)} == {"judge-1"}
