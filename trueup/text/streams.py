"""Rows to a file one after another, a million of them without holding them: JSONL, gzip of it, Parquet.

Parquet needs the type of every column before the first row, so they are given: text, whole, number, truth, texts,
wholes, truths, prompt (messages and meta), or json, an object of open shape that a column holds as its JSON text.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ..errors import DataError
from .sources import package

BATCH = 2_000  # rows that are held at once
Row = Mapping[str, Any]


def write_rows(file: IO[bytes], path: Path, rows: Iterable[Row], columns: Mapping[str, str]) -> int:
    """As the ending of `path` says; returns how many rows there were."""
    return STREAMS[ending_of(path)](file, rows, columns)


def ending_of(path: Path) -> str:
    name = path.name.lower()
    for ending in STREAMS:
        if name.endswith(ending):
            return ending
    hint = f"use {', '.join(list(STREAMS)[:-1])} or {list(STREAMS)[-1]}"
    raise DataError(f"{path}: such rows are not written to files of this ending", hint)


def _jsonl(file: IO[bytes], rows: Iterable[Row], columns: Mapping[str, str]) -> int:
    count = 0
    for row in rows:
        file.write(_json(row).encode() + b"\n")
        count += 1
    return count


def _jsonl_gz(file: IO[bytes], rows: Iterable[Row], columns: Mapping[str, str]) -> int:
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:  # the same rows, the same bytes
        return _jsonl(packed, rows, columns)  # type: ignore[arg-type]


def _parquet(file: IO[bytes], rows: Iterable[Row], columns: Mapping[str, str]) -> int:
    arrow, parquet = package("pyarrow", "Parquet"), package("pyarrow.parquet", "Parquet")
    schema = _schema(arrow, columns)
    waiting, count = iter(rows), 0
    with parquet.ParquetWriter(file, schema) as writer:
        while batch := [_cells(row, columns) for row in islice(waiting, BATCH)]:
            try:
                writer.write_table(arrow.Table.from_pylist(batch, schema=schema))
            except (arrow.ArrowException, OverflowError, UnicodeEncodeError) as error:
                why = str(error).splitlines()[0]
                raise DataError(f"rows do not fit the columns of a table: {why}", "write .jsonl instead") from error
            count += len(batch)
    return count


STREAMS: dict[str, Callable[[IO[bytes], Iterable[Row], Mapping[str, str]], int]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl_gz,
    ".parquet": _parquet,
}


def _schema(arrow: Any, columns: Mapping[str, str]) -> Any:
    text, conversation = arrow.string(), arrow.struct([("role", arrow.string()), ("content", arrow.string())])
    types = {
        "text": text,
        "json": text,
        "whole": arrow.int64(),
        "number": arrow.float64(),
        "truth": arrow.bool_(),
        "texts": arrow.list_(text),
        "wholes": arrow.list_(arrow.int64()),
        "truths": arrow.list_(arrow.bool_()),
        "prompt": arrow.struct([("messages", arrow.list_(conversation)), ("meta", text)]),
    }
    return arrow.schema([(name, types[kind]) for name, kind in columns.items()])


def _cells(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    return {name: _cell(row[name], kind) for name, kind in columns.items()}


def _cell(value: Any, kind: str) -> Any:
    if kind == "json":
        return None if value is None else _json(value)
    if kind == "prompt" and "meta" in value:
        return {**value, "meta": _json(value["meta"])}
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
