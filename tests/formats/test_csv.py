"""CSV files: what is taken back off when they are read, and rows that cannot be read."""

from __future__ import annotations

import csv
import json

import pytest

from trueup.errors import DataError
from trueup.records import Message
from trueup.text.formats import load

ROWS = b"prompt,completion\nwie?,sch\xc3\xb6n\n"


def error(path, kind: str = "demonstrations", **options) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        load(path, kind, **options)
    return caught.value.message, caught.value.hint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.csv"


# --- cells


def test_only_a_file_that_was_written_so_loses_its_marks(path):
    path.write_text("prompt,completion\nhi,'-yes\n", encoding="utf-8-sig")
    assert load(path, "demonstrations").records[0].completion == "-yes"
    path.write_text("prompt,completion\nhi,'-yes\n", encoding="utf-8")
    assert load(path, "demonstrations").records[0].completion == "'-yes"
    path.write_text("prompt,completion\nhi,'yes'\n", encoding="utf-8-sig")
    assert load(path, "demonstrations").records[0].completion == "'yes'"


def written(path, *rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def test_cells_are_read_as_lists_where_lists_are_expected_and_as_texts_elsewhere(path):
    said = json.dumps([{"role": "user", "content": "hi"}])
    written(path, ("prompt", "chosen", "rejected"), (said, "[1, 2]", '{"a": 1}'), ("[sic]", said, "[]"))
    first, second = load(path, "preferences", skip_malformed=True).records, load(path, "preferences").skipped
    assert first[0].prompt.messages == (Message("user", "hi"),) and first[0].completions == ("[1, 2]", '{"a": 1}')
    assert [reason for _, reason in second] == ["the last message is of the user, not of the assistant"]
    written(path, ("prompt", "completions", "ranks"), ("hi", '["a", "b"]', "[2, 1]"), ("ho", "a, b", "[2, 1]"))
    loaded = load(path, "preferences")
    assert loaded.records[0].completions == ("a", "b") and loaded.records[0].ranks == (2, 1)
    assert loaded.skipped == [(f"{path}:3", "'completions' and 'ranks' must be lists")]


def test_a_mapped_column_holds_lists_too(path):
    written(path, ("question", "answers", "places"), ("hi", '["a", "b"]', "[2, 1]"))
    mapping = {"prompt": "question", "completions": "answers", "ranks": "places"}
    assert load(path, "preferences", mapping).records[0].completions == ("a", "b")


def test_a_table_is_for_reading_only_and_says_so(path):
    names = "id judge source split prompt completion rank strength rationale".split()
    written(path, names, ["j", "a", "human", "train", "hi", "yes", "1", "", ""])
    assert "for reading only: export the set with --format raw" in error(path, "preferences")[1]


# --- rows that cannot be read


def test_bad_rows_are_left_out_when_asked_each_with_its_line(path):
    path.write_bytes(
        ROWS
        + b'"two\nlines",\xff\nhi,yes\nhi\nhi,yes,and more\n\nhi,"bad" quote\n"last\none",good\nhi,"never closed\n,\n'
    )
    loaded = load(path, "demonstrations", skip_malformed=True)
    assert [r.completion for r in loaded.records] == ["schön", "yes", "good"]
    places = {where.removeprefix(f"{path}:"): reason for where, reason in loaded.skipped}
    assert list(places) == ["4", "6", "7", "9", "12"]
    assert places["4"].startswith("bad encoding: ") and "not CSV" in places["9"]
    assert places["6"] == "fewer values than columns: 1 for 2" and places["7"] == "more values than columns: 3 for 2"
    assert places["12"].endswith("(the row goes on to line 13)")


@pytest.mark.parametrize("row", [b"hi,\xff\n", b"hi\n", b"hi,yes,and more\n", b'hi,"bad" quote\n'])
def test_one_bad_row_stops_the_import_and_the_hint_names_the_way_out(path, row):
    path.write_bytes(ROWS + row)
    message, hint = error(path)
    assert message.startswith(f"{path}:3: ") and "--skip-malformed" in hint


def test_a_file_of_nothing_but_bad_rows_says_what_is_wrong_with_them(path):
    path.write_bytes(b"prompt,completion\nhi\nho\n")
    message, hint = error(path, skip_malformed=True)
    assert "no usable row among 2: 2 x fewer values than columns" in message and f"{path}:2" in hint


@pytest.mark.parametrize("header", [b"prompt,completion,completion\nhi,yes,no\n", b"prompt,\xff\nhi,yes\n"])
def test_a_header_is_never_skipped(path, header):
    path.write_bytes(header)
    for skip in (False, True):
        assert error(path, skip_malformed=skip)[0].startswith(f"{path}:1: ")


def test_a_column_that_stands_twice_is_named_with_both_places(path):
    path.write_text("prompt,chosen,chosen,rejected\na,b,c,d\n")
    message, _ = error(path, "preferences")
    assert message == f"{path}:1: the column 'chosen' stands twice: as column 2 and as column 3"
    path.write_text("prompt,chosen,rejected,,\na,b,c,,\n")
    assert load(path, "preferences").records[0].completions == ("b", "c"), "columns without a name are nobody's"


def test_a_parquet_column_that_stands_twice(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.Table.from_arrays([arrow.array(["a"])] * 3, names=["prompt", "chosen", "chosen"])
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert "the column 'chosen' stands twice" in error(tmp_path / "rows.parquet", "preferences")[0]


# --- encodings


@pytest.mark.parametrize(
    ("name", "row", "head"),
    [
        ("rows.csv", "wie?,schön\n", "prompt,completion\n"),
        ("rows.jsonl", '{"prompt": "wie?", "completion": "schön"}\n', ""),
        ("rows.json", '{"prompt": "wie?", "completion": "schön"},\n', "["),
    ],
)
def test_one_bad_line_of_a_utf_8_file_is_not_a_reason_to_convert_the_file(tmp_path, name, row, head):
    file = tmp_path / name
    bad = (head + row).encode() + row.encode("latin-1")
    for content in (bad + row.encode(), head.encode() + row.encode("latin-1") + row.encode()):
        file.write_bytes(content)
        message, hint = error(file)
        assert "bad encoding" in message and "iconv" not in hint and "other lines are UTF-8" in hint
    file.write_bytes((head + row + row).encode("latin-1"))
    assert "iconv -f LATIN1" in error(file)[1]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_utf_16_is_named_as_such_when_bad_lines_may_be_skipped(tmp_path, name, encoding):
    text = ROWS.decode() if name.endswith("csv") else '{"prompt": "wie?", "completion": "schön"}\n'
    (tmp_path / name).write_bytes(text.encode(encoding))
    message, hint = error(tmp_path / name, skip_malformed=True)
    assert "UTF-16, not UTF-8" in message and "iconv -f UTF-16" in hint
