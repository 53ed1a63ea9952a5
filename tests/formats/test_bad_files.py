"""What may be wrong with a file or a row: said with its place, counted, and nothing half-imported."""

from __future__ import annotations

import json

import pytest

from trueup.errors import DataError
from trueup.text import columns, sources
from trueup.text.formats import SHAPES, formats_of, load
from trueup.text.votes import vote_score

PAIR = {"prompt": "wie?", "chosen": "schön", "rejected": "nö"}


def lines(*rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def error(path, kind: str = "preferences", **options) -> str:
    with pytest.raises(DataError) as caught:
        load(path, kind, **options)
    return f"{caught.value.message} | {caught.value.hint}"


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", lines(PAIR)),
        ("rows.json", json.dumps([PAIR], ensure_ascii=False)),
        ("rows.csv", "prompt,chosen,rejected\nwie?,a,b\n"),
    ],
)
def test_utf_16_is_named_in_the_first_line(tmp_path, name, text, encoding):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    said = error(path)
    assert said.startswith(f"{path}:1: bad encoding: UTF-16") and "iconv -f UTF-16" in said


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("rows.jsonl", lines({"prompt": "a", "chosen": "b", "rejected": "c"}, PAIR), 2),
        ("rows.json", '[{"prompt": "a",\n "chosen": "b", "rejected": "c"},\n {"prompt": "schön"}]', 3),
        ("rows.csv", "prompt,chosen,rejected\nwhy?,a,b\nwie?,schön,nein\n", 3),
    ],
)
def test_latin_1_is_named_with_line_and_byte(tmp_path, name, text, line):
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    said = error(path)
    place = text.encode("latin-1").splitlines()[line - 1].index(b"\xf6") + 1
    assert said.startswith(f"{path}:{line}: bad encoding: ") and f"at byte {place}" in said
    assert "iconv -f LATIN1" in said


def test_a_mixed_file_can_be_read_without_its_bad_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(PAIR).encode() + lines(PAIR).encode("latin-1") + b"{oops\n" + lines(PAIR).encode())
    assert ":2: bad encoding" in error(path)
    loaded = load(path, "preferences", skip_malformed=True)
    assert len(loaded.records) == 2
    assert [where for where, _ in loaded.skipped] == [f"{path}:2", f"{path}:3"]
    assert loaded.skipped[0][1].startswith("bad encoding: ")


# --- characters that hide, and fields that are too long


def test_control_and_bidi_characters_stay_and_are_counted(tmp_path):
    rows = [
        {"prompt": "a", "chosen": "red\x1b[31m", "rejected": "b"},
        {"prompt": "a", "chosen": "x\u202eevil\u202c", "rejected": "b\x00"},
        {"prompt": "tab\tand\r\nline ends", "chosen": "are", "rejected": "ordinary"},
    ]
    (tmp_path / "rows.jsonl").write_text(lines(*rows), encoding="utf-8", newline="")
    loaded = load(tmp_path / "rows.jsonl", "preferences")
    assert [record.completions for record in loaded.records] == [(row["chosen"], row["rejected"]) for row in rows]
    assert loaded.notes == {
        "with control characters": 2,
        "with characters that change the direction of writing": 1,
    }


def test_a_huge_field_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "LONGEST_TEXT", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(PAIR, PAIR | {"chosen": "x" * 1001}), encoding="utf-8")
    assert load(path, "preferences").skipped == [(f"{path}:2", "'chosen' is longer than 1,000 characters")]


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LONGEST_LINE", 2**20)
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(PAIR) + json.dumps(PAIR | {"chosen": "x" * 2**21}), encoding="utf-8")
    assert error(path).startswith(f"{path}:2: a line of more than 1 MiB")
    table = tmp_path / "rows.csv"
    table.write_text('prompt,completion\na,"' + "x\n" * 2**20, encoding="utf-8")
    assert "not CSV: field larger than field limit" in error(table, "demonstrations")


# --- ids, labels, numbers


def test_the_second_row_of_an_id_is_left_out_with_the_place_of_the_first(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [PAIR | {"id": 7}, PAIR | {"id": 8}, PAIR | {"id": "7", "chosen": "anders"}, PAIR, PAIR]
    path.write_text(lines(*rows), encoding="utf-8")
    loaded = load(path, "preferences")
    assert [record.id for record in loaded.records] == ["7", "8", "", ""]
    assert loaded.skipped == [(f"{path}:3", f"the id '7' stands at {path}:1 already")]


@pytest.mark.parametrize(
    ("label", "reason"),
    [("yes", "neither true nor false"), (0.5, "neither true nor false"), ("", "neither true nor false")],
)
def test_labels_are_not_guessed(tmp_path, label, reason):
    path = tmp_path / "rows.jsonl"
    good = {"prompt": "a", "completion": "b", "label": 0}
    path.write_text(lines(good, good | {"label": label}), encoding="utf-8")
    loaded = load(path, "unpaired")
    assert loaded.records[0].ratings == {"thumb": (0.0,)} and loaded.records[0].ranks == (1,)
    assert reason in loaded.skipped[0][1]


@pytest.mark.parametrize("bad", [float("nan"), True, "3 stars", [3], 5, -1])
def test_ratings_are_numbers_of_their_scale(tmp_path, bad):
    axes = {"correctness": 3, "coherence": 3, "complexity": 3, "verbosity": 3}
    rows = [
        {"prompt": "a", "response": text, "helpfulness": h, **axes} for text, h in (("b", 4), ("c", "1"), ("d", bad))
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(*rows), encoding="utf-8")
    loaded = load(path, "preferences")
    assert loaded.records[0].completions == ("b", "c") and loaded.records[0].ratings["helpfulness"] == (4.0, 1.0)
    ((where, reason),) = loaded.skipped
    assert where == f"{path}:3" and reason.startswith("'helpfulness' is not")


@pytest.mark.parametrize(
    ("upvotes", "accepted", "score"),
    [(0, False, 0), (1, False, 1), (2, False, 2), (3, True, 3), (100, False, 7), (-1, False, -1), (-5, True, -1)],
)
def test_the_score_of_votes(upvotes, accepted, score):
    assert vote_score(upvotes, accepted) == score


# --- formats by name


def test_a_format_that_does_not_exist_or_does_not_fit(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(PAIR), encoding="utf-8")
    said = error(path, format="hh-rhlf")
    assert "no format 'hh-rhlf' (did you mean 'hh-rlhf'?)" in said and "oasst" in said
    assert "it holds unpaired" in error(path, format="trl-unpaired")
    assert "are not oasst | it needs message_tree_id+prompt or" in error(path, format="oasst")
    assert error(path, "unpaired").endswith(
        "(known: " + "; ".join("+".join(s.columns) for s in SHAPES["unpaired"]) + ")"
    )


def test_every_format_has_one_name_and_every_name_a_shape():
    for kind, shapes in SHAPES.items():
        assert all(shape.formats and shape.about for shape in shapes)
        assert len({str(shape) for shape in shapes}) == len(shapes)
        assert set(formats_of(kind)) == {name for shape in shapes for name in shape.formats}


# --- rows that only look like records of ours

RAW = {
    "id": "j1",
    "prompt": {"messages": [{"role": "user", "content": "a"}]},
    "completions": ["b", "c"],
    "ranks": [1, 2],
    "judge": "human:abc234",
    "source": "human",
    "split": "heldout",
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"prompt": "a"}, "'prompt' is not an object with messages"),
        ({"prompt": {"messages": [{"role": "tool", "content": "a"}]}}, "without a role"),
        ({"prompt": {"messages": [{"role": "user", "content": 3}]}}, "'prompt' is not a text"),
        ({"completions": "bc"}, "'completions' is not a list"),
        ({"completions": []}, "2 'ranks' for 0"),
        ({"ranks": [1]}, "1 'ranks' for 2"),
        ({"ranks": [1, None]}, "whole numbers"),
        ({"judge": None}, "'judge' is not a text"),
        ({"source": "god"}, "'source' is 'god'"),
        ({"split": "test"}, "'split' is 'test'"),
        ({"ratings": {"overall": [1]}}, "'ratings' of 'overall'"),
        ({"ratings": {"overall": [1, "2"]}}, "'ratings' of 'overall'"),
        ({"ratings": "{"}, "'ratings' is not JSON"),
        ({"targets": [0.5, 0.5]}, "one for each pair"),
        ({"targets": [1.5]}, "numbers from 0 to 1"),
        ({"meta": []}, "'meta' is not an object"),
    ],
)
def test_a_raw_row_that_was_changed(tmp_path, changed, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(RAW, RAW | {"id": "j2"} | changed), encoding="utf-8")
    loaded = load(path, "preferences")
    assert len(loaded.records) == 1 and loaded.records[0].split == "heldout"
    assert reason in loaded.skipped[0][1]


def test_rankings_are_not_thumbs(tmp_path):
    path = tmp_path / "rows.jsonl"
    thumb = RAW | {"completions": ["b"], "ranks": [1], "ratings": {"thumb": [1]}}
    path.write_text(lines(thumb, thumb | {"completions": ["c"]}, RAW), encoding="utf-8")
    loaded = load(path, "unpaired")
    assert len(loaded.records) == 2, "one person's thumbs on two completions share an id"
    assert loaded.skipped == [(f"{path}:3", "2 completions: use --kind preferences")]


# --- rows of a shape that nobody would think of: named like any other, the rest is read

TURN = {"role": "prompter", "text": "why?", "lang": "en", "message_tree_id": "t", "tree_state": "ready_for_export"}
SAID = {"role": "assistant", "lang": "en", "message_tree_id": "t", "tree_state": "ready_for_export", "parent_id": "a"}
TREE = [
    TURN | {"message_id": "a", "parent_id": None, "rank": None},
    SAID | {"message_id": "b", "text": "so", "rank": 0},
    SAID | {"message_id": "c", "text": "thus", "rank": 1},
]
SIGNED = {"prompt": "why?", "response_1": "so", "response_2": "thus", "preference_strength": 1}
SIGNED |= {"preference_statement": "", "all_preferences_unprocessed": []}


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (TREE, TREE[1] | {"message_id": "\ud800"}, "bad encoding: 'message_id'"),
        (TREE, TREE[1] | {"message_id": "d", "parent_id": "\ud800"}, "bad encoding: 'parent_id'"),
        (TREE, TREE[1] | {"message_id": "d", "role": ["assistant"]}, "the role ['assistant']"),
        (TREE, TREE[1] | {"message_id": "d", "parent_id": "d"}, "it answers itself"),
        (TREE, TREE[0] | {"message_tree_id": "\ud800"}, "bad encoding: 'message_tree_id'"),
        (TREE, TREE[1] | {"message_id": "d", "message_tree_id": "u", "parent_id": None}, "nobody asks anything in it"),
        ([SIGNED], SIGNED | {"preference_strength": 10**400}, "'preference_strength' is not a number"),
    ],
)
def test_a_row_of_a_strange_shape_is_left_out_and_named(tmp_path, good, bad, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*good, bad]))
    loaded = load(path, "preferences")
    assert len(loaded.records) == 1
    ((where, why),) = loaded.skipped
    assert where.startswith(f"{path}:{1 if why.startswith('the role') else len(good) + 1}") and why.startswith(reason)


def test_votes_that_are_no_list_are_no_votes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(SIGNED | {"all_preferences_unprocessed": 1e308}))
    assert "votes" not in load(path, "preferences").records[0].meta


# --- JSON that Python reads without a word


@pytest.mark.parametrize("inside", ['"rejected": "d"', '"meta": {"a": 1, "a": 2}'])
def test_a_key_that_stands_twice_is_refused_or_skipped_with_its_line(tmp_path, inside):
    good = json.dumps(PAIR)
    bad = good.replace("}", f", {inside}}}")
    path, array = tmp_path / "rows.jsonl", tmp_path / "rows.json"
    path.write_text(f"{good}\n{bad}\n{good}\n")
    array.write_text(f"[{good},\n {bad} , {good}]")
    key = "rejected" if "rejected" in inside else "a"
    for file, place, line in ((path, f"{path}:2", ""), (array, f"{array} item 2", " (line 2)")):
        why = f"the key '{key}' stands twice in one object{line}"
        assert error(file).startswith(f"{place}: {why} | ")
        loaded = load(file, "preferences", skip_malformed=True)
        assert len(loaded.records) == 2 and loaded.skipped == [(place, why)]


@pytest.mark.parametrize("depth", [501, 100_000])
def test_nesting_without_end_is_said_in_words_of_ours(tmp_path, depth):
    deep = '{"prompt": "a", "chosen": "b", "rejected": "c", "meta": ' + "[" * depth + "]" * depth + "}"
    path, array = tmp_path / "rows.jsonl", tmp_path / "rows.json"
    path.write_text(lines(PAIR) + deep)
    array.write_text(f"[{json.dumps(PAIR)}, {deep}]")
    assert error(path).startswith(f"{path}:2: nested too deeply: more than 500 levels")
    assert len(load(path, "preferences", skip_malformed=True).records) == 1
    assert "nested too deeply" in error(array) and "recursion" not in error(array)
    shallow = deep.replace("[" * depth, "[" * 400).replace("]" * depth, "]" * 400)
    path.write_text(shallow)
    assert len(load(path, "preferences").records) == 1


def test_meta_in_a_text_is_read_as_strictly(tmp_path):
    path = tmp_path / "rows.jsonl"
    deep, twice = '{"a":' * 600 + "1" + "}" * 600, '{"a": 1, "a": 2}'
    rows = [RAW, *(RAW | {"id": str(i), "meta": meta} for i, meta in enumerate((deep, twice)))]
    path.write_text(lines(*rows))
    reasons = [reason for _, reason in load(path, "preferences").skipped]
    assert [reason.partition(":")[0] for reason in reasons] == ["'meta'", "'meta'"]
    assert "nested too deeply" in reasons[0] and "stands twice" in reasons[1]


# --- rankings that contradict themselves


@pytest.mark.parametrize(
    ("completions", "ranks", "kept"),
    [
        (["a", "a", "b"], [1, 1, 2], ((("a", "b"), (1, 2)), "")),
        (["a", "b", "a ", "c"], [1, 2, 3, 4], ((("b", "c"), (2, 4)), "several places")),
        (["same", "same"], [1, 2], (None, "equal sides")),
        (["same", " same", "same\n"], [1, 1, 1], (None, "equal sides")),
        (["a", "b", "a"], [1, 2, 3], (None, "one text has several places")),
    ],
)
def test_one_text_at_several_places(tmp_path, completions, ranks, kept):
    path = tmp_path / "rows.jsonl"
    good = {"prompt": "p", "completions": ["x", "y"], "ranks": [1, 2]}
    path.write_text(lines(good, {"prompt": "p", "completions": completions, "ranks": ranks}))
    loaded = load(path, "preferences")
    expected, why = kept
    assert [(j.completions, j.ranks) for j in loaded.records[1:]] == ([expected] if expected else [])
    assert why in " ".join([*loaded.reasons, *loaded.notes]) and bool(loaded.reasons or loaded.notes) == bool(why)


def test_rated_copies_of_one_text_are_equal_sides(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"question": "why?", "answers": [{"text": "so", "pm_score": 1}, {"text": b, "pm_score": 0}]}
        for b in ("no", "so")
    ]
    path.write_text(lines(*rows))
    assert load(path, "preferences").skipped == [(f"{path}:2", "equal sides")]


@pytest.mark.parametrize("rank", [10**30, -(10**30), 1_000_001])
@pytest.mark.parametrize("base", [RAW, {"prompt": "a", "completions": ["b", "c"]}])
def test_places_that_no_table_holds_are_unusable(tmp_path, rank, base):
    path = tmp_path / "rows.jsonl"
    path.write_text(lines(base | {"ranks": [1, 1_000_000]}, base | {"id": "j2", "ranks": [1, rank]}))
    loaded = load(path, "preferences")
    assert len(loaded.records) == 1
    assert loaded.skipped == [(f"{path}:2", "'ranks' must be whole numbers of at most 1,000,000")]
