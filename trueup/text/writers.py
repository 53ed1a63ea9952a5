"""Rows to files: JSONL, CSV, Parquet, and folders that `datasets.load_from_disk` opens.

None of them loses anything. What CSV has no words for, lists, objects and formulas, is in `cells`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import DataError
from .cells import guarded
from .sources import package
from .views import Cells, View

FOLDER = ""  # the ending of what `datasets` writes
_AS_TEXT = ("ratings", "meta")  # objects whose keys differ from row to row, which a column cannot


def ending_of(path: Path) -> str:
    """How a path is written: its known ending, or none for a folder of `datasets`."""
    name = path.name.lower()
    ending = next((known for known in (*WRITERS, ".jsonl.gz") if name.endswith(known)), path.suffix)
    if ending in WRITERS or ending == FOLDER:
        return ending
    raise DataError(
        f"{path}: files ending in '{path.suffix}' are not written",
        "use .jsonl, .jsonl.gz, .csv or .parquet, or a name without an ending for a folder of `datasets`",
    )


def _write_jsonl(file: IO[bytes], view: View) -> None:
    for number, row in enumerate(view.rows, 1):
        file.write(_line(row, number))


def _write_jsonl_gz(file: IO[bytes], view: View) -> None:
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:  # the same rows, the same bytes
        for number, row in enumerate(view.rows, 1):
            packed.write(_line(row, number))


def _line(row: Cells, number: int) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"row {number} cannot be written as JSON: {error}") from error


def _write_csv(file: IO[bytes], view: View) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")  # the mark tells a spreadsheet that this is UTF-8
    writer = csv.writer(text, lineterminator="\r\n")
    columns = view.columns
    writer.writerow(map(guarded, columns))
    for number, row in enumerate(view.rows, 1):
        try:
            writer.writerow([guarded(row.get(column)) for column in columns])
        except ValueError as error:
            raise DataError(f"row {number} cannot be written as JSON: {error}") from error
    text.detach()


def _write_parquet(file: IO[bytes], view: View) -> None:
    package("pyarrow.parquet", "Parquet").write_table(_arrow_table(view), file)


WRITERS: dict[str, Callable[[IO[bytes], View], None]] = {
    ".jsonl": _write_jsonl,
    ".jsonl.gz": _write_jsonl_gz,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}


def write_folder(folder: Path, view: View) -> None:
    """What `datasets.load_from_disk` opens."""
    datasets = package("datasets", folder)
    datasets.disable_progress_bars()
    datasets.Dataset(_arrow_table(view)).save_to_disk(str(folder))


def _arrow_table(view: View) -> Any:
    arrow = package("pyarrow", "Parquet")
    schema = _schema(arrow, view)
    rows = [_flat(row) if view.format == "raw" else _texts(row, schema, arrow.string()) for row in view.rows]
    try:
        return arrow.Table.from_pylist(rows, schema=schema)
    except (arrow.ArrowException, OverflowError, UnicodeEncodeError) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"these rows do not fit the columns of a table: {why}", "write .jsonl instead") from error


def _flat(row: Cells) -> Cells:
    """Objects of open shape as JSON text, where the reader of raw rows expects it."""
    cells = {name: _json(value) if name in _AS_TEXT else value for name, value in row.items()}
    if isinstance(prompt := row.get("prompt"), dict) and "meta" in prompt:
        cells["prompt"] = {**prompt, "meta": _json(prompt["meta"])}
    return cells


def _texts(row: Cells, schema: Any, text: Any) -> Cells:
    """A column in which some cells are numbers and some words, as strengths are, is one of texts."""
    return {
        name: str(value) if value is not None and schema.field(name).type == text else value
        for name, value in row.items()
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _schema(arrow: Any, view: View) -> Any:
    """The types of the columns. They do not depend on the rows: an empty list or a first null says nothing."""
    text = arrow.string()
    message = arrow.struct([("role", text), ("content", text)])
    conversation = arrow.list_(message)
    known = {
        "messages": conversation,
        "completions": arrow.list_(text),
        "ranks": arrow.list_(arrow.int64()),
        "targets": arrow.list_(arrow.float64()),
        "rank": arrow.int64(),
        "label": arrow.bool_(),
        "margin": arrow.float64(),
    }
    if view.format == "raw":
        known["prompt"] = arrow.struct([("messages", conversation), ("meta", text)])
        if any(isinstance(each, dict) for each in view.rows[0].get("completions", ())):
            known["completions"] = arrow.list_(_completion(arrow))
    elif isinstance(view.rows[0].get("prompt"), list):
        known |= dict.fromkeys(("prompt", "chosen", "rejected", "completion"), conversation)
    return arrow.schema([(name, known.get(name) or _plain_type(arrow, name, view.rows)) for name in view.columns])


def _completion(arrow: Any) -> Any:
    """One of a completion set, with what its model wrote it from."""
    numbers = [("tokens", arrow.list_(arrow.int64())), ("logprobs", arrow.list_(arrow.float64()))]
    return arrow.struct([("text", arrow.string()), ("finished", arrow.bool_()), ("model", arrow.string()), *numbers])


def _plain_type(arrow: Any, name: str, rows: Sequence[Cells]) -> Any:
    """Numbers where all cells that are not empty are numbers; text otherwise."""
    if name in _AS_TEXT or name == "prompt":
        return arrow.string()
    values = [row[name] for row in rows if row.get(name) is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return arrow.float64() if values and numbers else arrow.string()
