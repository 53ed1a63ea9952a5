"""The rows of a source, each with its place: files, folders of `datasets` and data sets of the hub.

Sources: `.jsonl`, `.json` (one array), `.csv` (each also with `.gz`), `.parquet`, a folder written by
`datasets.save_to_disk`, and `hf:NAME[:CONFIG]:SPLIT`. Text is UTF-8, with or without a byte-order mark.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import DataError, nearest
from .columns import Columns

HF = "hf:"
LONGEST_LINE = 2**28  # bytes; one line without an end would otherwise fill the memory before anything can be said
_UTF_16 = "the file is UTF-16: save it as UTF-8, as in `iconv -f UTF-16 -t UTF-8`"
_NOT_UTF_8 = "the file must be UTF-8; if it is Latin-1: `iconv -f LATIN1 -t UTF-8`"

Row: TypeAlias = tuple[str, Columns | DataError]  # where it stands, and its columns or what is wrong with it


def read_rows(source: Path | str) -> Iterator[Row]:
    if str(source).startswith(HF):
        return _hub_rows(str(source))
    path = Path(source)
    if path.is_dir():
        return _saved_dataset_rows(path)
    if not path.is_file():
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{path}: no such file{nearest(path.name, there)}", "give a path, or hf:NAME:SPLIT for a dataset"
        )
    ending = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()
    reader = _READERS.get(ending.removesuffix(".gz"))
    if reader is None or ending == ".parquet.gz":
        raise DataError(
            f"{path}: files ending in '{ending}' are not read", "convert it to .jsonl, .json, .csv or .parquet"
        )
    return reader(path)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if line.strip():
            yield where, json_object(where, line)


def json_object(where: str, line: bytes) -> Columns | DataError:
    if wrong := _wrong_encoding(where, line):
        return wrong
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        return DataError(f"{where}: not JSON: {why}", "each line must be one JSON object; nothing was imported")
    if isinstance(row, dict):
        return row
    return DataError(f"{where}: a JSON {type(row).__name__}, not an object", "each line must read {...}")


def _json_rows(path: Path) -> Iterator[Row]:
    lines = []
    for number, line in _lines(path):
        if wrong := _wrong_encoding(f"{path}:{number}", line):
            raise wrong
        lines.append(line)
    try:
        value = json.loads(b"".join(lines).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = "a file with one object a line must end in .jsonl" if error.msg == "Extra data" else "mend that line"
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}", hint) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}", "it must be one array of objects") from None
    if not isinstance(value, list):
        raise DataError(f"{path}: a JSON {type(value).__name__}, not an array", "it must read [{...}, {...}]")
    for number, row in enumerate(value, 1):
        where = f"{path} item {number}"
        yield where, row if isinstance(row, dict) else DataError(f"{where}: not an object", "each item must read {...}")


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)  # the module's own limit (128 kB) is shorter than some completions
    reader = csv.DictReader(_text_lines(path), strict=True)
    try:
        while reader.fieldnames:  # a row may span lines: it is named by its first
            where = f"{path}:{reader.line_num + 1}"
            row = next(reader, None)
            if row is None:
                return
            # DictReader puts surplus values under the key None; values that are missing are None, like JSON's null
            surplus = DataError(f"{where}: more values than columns", "quote values that contain commas")
            yield where, surplus if None in row else row
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.line_num}: not CSV: {error}", "quote values with commas or line ends"
        ) from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    arrow, parquet = package("pyarrow", path), package("pyarrow.parquet", path)
    try:
        batches = parquet.ParquetFile(path).iter_batches()
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield f"{path} row {number}", row
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not Parquet: {_first_line(error)}", "was it written to the end?") from None


def _saved_dataset_rows(path: Path) -> Iterator[Row]:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(p.name for p in path.iterdir() if p.is_dir())
        raise DataError(
            f"{path}: holds the splits {', '.join(splits)}", f"name one: {path / splits[0]}" if splits else ""
        )
    if not (path / "state.json").is_file():
        raise DataError(f"{path}: a folder that datasets.save_to_disk did not write", "name a file in it")
    yield from _dataset_rows(str(path), lambda datasets: datasets.load_from_disk(str(path)))


def _hub_rows(source: str) -> Iterator[Row]:
    name, *config, split = source.removeprefix(HF).split(":") if source.count(":") > 1 else ("", "")
    if not name or not split or len(config) > 1:
        raise DataError(
            f"{source}: must read {HF}NAME:SPLIT or {HF}NAME:CONFIG:SPLIT", f"as in {HF}stanfordnlp/imdb:train"
        )
    return _dataset_rows(name, lambda datasets: datasets.load_dataset(name, *config, split=split))


def _dataset_rows(name: str, open_dataset: Callable[[Any], Any]) -> Iterator[Row]:
    datasets = package("datasets", name)
    try:
        for number, row in enumerate(open_dataset(datasets), 1):
            yield f"{name} row {number}", row
    except Exception as error:  # the package raises whatever its many backends raise
        raise DataError(f"{name}: {_first_line(error)}", "check name, config, split and network") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def package(name: str, about: Path | str) -> Any:
    """Only what needs a large package loads it."""
    try:
        return import_module(name)
    except ImportError:
        missing = name.partition(".")[0]
        raise DataError(f"{about}: this needs the package {missing}", f"pip install {missing}") from None


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise DataError(
                        f"{path}:{number}: a line of more than {LONGEST_LINE >> 20} MiB",
                        "a record has to be shorter; is there a line end between the rows?",
                    )
                yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: broken gzip: {error}", "copy or download the file again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}", "check who may read it") from None


def _text_lines(path: Path) -> Iterator[str]:
    for number, line in _lines(path):
        if wrong := _wrong_encoding(f"{path}:{number}", line):
            raise wrong
        yield line.decode("utf-8-sig" if number == 1 else "utf-8")


def _wrong_encoding(where: str, line: bytes) -> DataError | None:
    """UTF-16 without a mark is well-formed UTF-8 where all letters are ASCII: every second byte is zero."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or line[:64].count(0) > len(line[:64]) // 3:
        return DataError(f"{where}: bad encoding: UTF-16, not UTF-8", _UTF_16)
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return DataError(f"{where}: bad encoding: {error.reason} at byte {error.start + 1}", _NOT_UTF_8)
    return None
