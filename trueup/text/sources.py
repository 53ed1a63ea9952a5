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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import DataError, nearest
from . import cells, strict_json
from .columns import Columns

HF = "hf:"
LONGEST_LINE = 2**28  # bytes; one line without an end would otherwise fill the memory before anything can be said
_UTF_16 = "the file is UTF-16: save it as UTF-8, as in `iconv -f UTF-16 -t UTF-8`"
_NOT_UTF_8 = "the file must be UTF-8; if it is Latin-1: `iconv -f LATIN1 -t UTF-8`"
_ELSE_UTF_8 = "other lines are UTF-8: mend this one"

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
    for number, line, wrong in _checked_lines(path):
        where = f"{path}:{number}"
        if line.strip():
            yield where, wrong or json_object(where, line)


def json_object(where: str, line: bytes) -> Columns | DataError:
    if wrong := _wrong_encoding(where, line):
        return wrong
    try:
        row = strict_json.parse(line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        why = f"not JSON: {error.msg} at column {error.colno}"
        return DataError(f"{where}: {why}", "each line must be one JSON object; nothing was imported")
    except ValueError as error:
        return DataError(f"{where}: {error}", "mend that line; nothing was imported")
    if isinstance(row, dict):
        return row
    return DataError(f"{where}: a JSON {type(row).__name__}, not an object", "each line must read {...}")


def _json_rows(path: Path) -> Iterator[Row]:
    lines = []
    for _, line, wrong in _checked_lines(path):
        if wrong:
            raise wrong
        lines.append(line)
    try:
        value = strict_json.parse_items(b"".join(lines).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = "a file with one object a line must end in .jsonl" if error.msg == "Extra data" else "mend that line"
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}", hint) from None
    except ValueError as error:
        raise DataError(f"{path}: {error}", "it must be one array of objects") from None
    if not isinstance(value, list):
        raise DataError(f"{path}: a JSON {type(value).__name__}, not an array", "it must read [{...}, {...}]")
    for number, row in enumerate(value, 1):
        where = f"{path} item {number}"
        yield where, row if isinstance(row, dict) else _no_row(where, row)


def _no_row(where: str, item: Any) -> DataError:
    if isinstance(item, ValueError):
        return DataError(f"{where}: {item}", "mend that item")
    return DataError(f"{where}: not an object", "each item must read {...}")


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)  # the module's own limit (128 kB) is shorter than some completions
    lines = _CsvLines(path)
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    while True:
        start = reader.line_num + 1  # a row may span lines: it is named by its first
        where = f"{path}:{start}"
        wrong: DataError | None
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # the reader goes on with the next line
            up_to = f" (the row goes on to line {reader.line_num})" if reader.line_num > start else ""
            wrong = DataError(f"{where}: not CSV: {error}{up_to}", "quote values with commas or line ends")
        else:
            wrong = _wrong_length(where, row, header) if header and row else None
        where, wrong = lines.wrong_here() or (where, wrong)
        if wrong and not header:
            raise wrong
        if wrong:
            yield where, wrong
        elif not header:
            header = _header(where, row, lines.marked)
        elif row:
            yield where, dict(zip(header, (cells.read(cell, marked=lines.marked) for cell in row), strict=True))


class _CsvLines:
    """The lines of a CSV file as texts.

    A line that is not UTF-8 is handed on all the same, with marks in place of what cannot be read: its row has to end
    where it ends. `marked`: the file begins with a byte-order mark, as those do that trueup writes.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, _checked_lines(path)
        self._wrong: tuple[str, DataError] | None = None
        self.marked = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line, wrong = next(self._lines)
        if wrong and not self._wrong:
            self._wrong = f"{self._path}:{number}", wrong
        self.marked |= number == 1 and line.startswith(codecs.BOM_UTF8)
        return line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace")

    def wrong_here(self) -> tuple[str, DataError] | None:
        """Which of the lines since the last call is no text, and why."""
        wrong, self._wrong = self._wrong, None
        return wrong


def _header(where: str, row: Sequence[str], marked: bool) -> list[str]:
    names = [str(cells.read(cell, marked=marked)) for cell in row]
    for column, name in enumerate(names, 1):
        if name.strip() and names.index(name) + 1 < column:
            raise DataError(
                f"{where}: the column '{name}' stands twice: as column {names.index(name) + 1} and as column {column}",
                "give one of them another name",
            )
    return names


def _wrong_length(where: str, row: Sequence[str], header: Sequence[str]) -> DataError | None:
    if len(row) == len(header):
        return None
    what = "more" if len(row) > len(header) else "fewer"
    hint = "quote values that contain commas" if len(row) > len(header) else "an empty value needs its comma, too"
    return DataError(f"{where}: {what} values than columns: {len(row)} for {len(header)}", hint)


def _parquet_rows(path: Path) -> Iterator[Row]:
    arrow, parquet = package("pyarrow", path), package("pyarrow.parquet", path)
    try:
        file = parquet.ParquetFile(path)
        if twice := [name for name, count in Counter(file.schema_arrow.names).items() if count > 1]:
            raise DataError(f"{path}: the column '{twice[0]}' stands twice", "give one of them another name")
        rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
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


def _checked_lines(path: Path) -> Iterator[tuple[int, bytes, DataError | None]]:
    """Lines with their number, and what is wrong with their encoding. A file in UTF-16 is wrong as a whole."""
    hint = ""
    for number, line in _lines(path):
        wrong = _wrong_encoding(f"{path}:{number}", line) if number == 1 else _not_utf_8(f"{path}:{number}", line)
        if wrong and wrong.hint == _UTF_16:
            raise wrong
        if wrong:
            hint = hint or (_ELSE_UTF_8 if _has_utf_8(path) else _NOT_UTF_8)
            wrong = DataError(wrong.message, hint)
        yield number, line, wrong


def _has_utf_8(path: Path) -> bool:
    """Whether lines hold letters beyond ASCII in UTF-8, which next to no text in Latin-1 does by chance."""
    return any(not line.isascii() and _not_utf_8("", line) is None for _, line in _lines(path))


def _wrong_encoding(where: str, line: bytes) -> DataError | None:
    """UTF-16 without a mark is well-formed UTF-8 where all letters are ASCII: every second byte is zero."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or line[:64].count(0) > len(line[:64]) // 3:
        return DataError(f"{where}: bad encoding: UTF-16, not UTF-8", _UTF_16)
    return _not_utf_8(where, line)


def _not_utf_8(where: str, line: bytes) -> DataError | None:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return DataError(f"{where}: bad encoding: {error.reason} at byte {error.start + 1}", _NOT_UTF_8)
    return None
