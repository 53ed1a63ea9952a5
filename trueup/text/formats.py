"""Files to records. What is recognised is written in one table (`SHAPES`); nothing else is guessed.

Sources: `.jsonl`, `.json` (one array), `.csv` (each also with `.gz`), `.parquet`, a folder written by
`datasets.save_to_disk`, and `hf:NAME[:CONFIG]:SPLIT`.

A source is read whole or not at all: a line that is not JSON, or not UTF-8, is an error that names file and line. A row
that is well formed but no use (an empty completion, two equal sides) is skipped, counted and listed. A prompt or a
completion is a string, or a list of messages with `role` and `content`; columns that no shape names are ignored.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ..errors import DataError, nearest
from ..records import Demonstration, Judgement, Message, Prompt, Role

Kind = Literal["prompts", "demonstrations", "preferences"]
Record: TypeAlias = Prompt | Demonstration | Judgement
Columns = Mapping[str, Any]

HF = "hf:"
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_LONGEST_FIELD = 2**30  # the csv module's own limit (128 kB) is shorter than some completions


@dataclass(frozen=True)
class Loaded:
    """What came out of a source: the records, every row that did not and why, and how the rows were understood."""

    records: list[Record]
    skipped: list[tuple[str, str]]
    recognised: str

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were skipped for each reason, the commonest first."""
        return dict(Counter(reason for _, reason in self.skipped).most_common())


@dataclass(frozen=True)
class Shape:
    """A set of columns that trueup knows how to read."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Columns], Record]
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{'+'.join(self.columns)} ({self.name})"


class _Skip(Exception):
    """This row is no use; the message says why."""


def load(
    source: Path | str, kind: Kind, mapping: Mapping[str, str] | None = None, *, skip_malformed: bool = False
) -> Loaded:
    """Records of one kind. `mapping` says which column holds which field: {"prompt": "question", "chosen": "best"}.

    `skip_malformed` counts lines that are not JSON or not UTF-8 instead of refusing the file.
    """
    mapping, rows, skipped = dict(mapping or {}), [], []
    for where, row in read_rows(source):
        if isinstance(row, DataError):
            if not skip_malformed:
                raise row
            skipped.append((where, row.message.removeprefix(f"{where}: ")))
        else:
            rows.append((where, row))
    if not rows:
        raise DataError(f"{source}: there are no rows in it", "see `trueup data add --help` for what a file looks like")
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    shape = _recognise(str(source), kind, columns, mapping)
    records: list[Record] = []
    for where, row in rows:
        for place, part in _parts(where, _renamed(row, mapping), shape):
            try:
                records.append(shape.read(part))
            except _Skip as reason:
                skipped.append((place, str(reason)))
    loaded = Loaded(records, skipped, _told(kind, shape, mapping))
    if not records:
        raise _nothing_left(source, loaded)
    return loaded


def parse_mapping(text: str) -> dict[str, str]:
    """'prompt=question,chosen=best' as a mapping from field to column."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not (field.strip() and column.strip()) for field, _, column in pairs):
        raise DataError(
            f"--map {text}: every part must read field=column", "for example --map prompt=question,chosen=best"
        )
    return {field.strip(): column.strip() for field, _, column in pairs}


def split_by_prompt(prompt_id: str, share: float, seed: int) -> Literal["train", "heldout"]:
    """Which side a prompt is on, from its id alone: all rows of a prompt, in every file, are on one side."""
    number = int.from_bytes(hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()[:8], "big")
    return "heldout" if number < share * 2**64 else "train"


# --- rows of a source: (where, columns), or (where, the error that this line is) ------------------

Row = tuple[str, Columns | DataError]


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
            yield where, _json_object(where, line)


def _json_object(where: str, line: bytes) -> Columns | DataError:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return DataError(f"{where}: bad encoding: {error.reason}", "the file must be UTF-8")
    except (ValueError, RecursionError) as error:
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        return DataError(f"{where}: not JSON: {why}", "each line must be one JSON object; nothing was imported")
    if isinstance(row, dict):
        return row
    return DataError(f"{where}: a JSON {type(row).__name__}, not an object", "each line must read {...}")


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        value = json.loads(b"".join(line for _, line in _lines(path)).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: bad encoding: {error.reason}", "the file must be UTF-8") from None
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
    csv.field_size_limit(_LONGEST_FIELD)
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
    arrow, parquet = _package("pyarrow", path), _package("pyarrow.parquet", path)
    try:
        batches = parquet.ParquetFile(path).iter_batches()
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield f"{path} row {number}", row
    except (arrow.ArrowException, OSError) as error:
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
    datasets = _package("datasets", name)
    try:
        for number, row in enumerate(open_dataset(datasets), 1):
            yield f"{name} row {number}", row
    except Exception as error:  # the package raises whatever its many backends raise
        raise DataError(f"{name}: {_first_line(error)}", "check name, config, split and network") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _package(name: str, source: Path | str) -> Any:
    """Only the sources that need a large package load it."""
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise DataError(f"{source}: reading it needs the package {package}", f"pip install {package}") from None


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
            for number, line in enumerate(file, 1):
                yield number, line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: broken gzip: {error}", "copy or download the file again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}", "check who may read it") from None


def _text_lines(path: Path) -> Iterator[str]:
    for number, line in _lines(path):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: bad encoding: {error.reason}", "the file must be UTF-8") from None


# --- a row to a record ----------------------------------------------------------------------------


def _read_prompt(row: Columns) -> Prompt:
    return _prompt(row, "prompt")


def _read_conversation_prompt(row: Columns) -> Prompt:
    return _as_prompt(_messages(row, "messages"), _meta(row.get("meta")))


def _read_instruction(row: Columns) -> Prompt:
    instruction, given = _text(row, "instruction"), _text(row, "input", empty=True) if row.get("input") else ""
    return Prompt.user(f"{instruction}\n\n{given}" if given.strip() else instruction)


def _read_demonstration(row: Columns) -> Demonstration:
    prompt = _prompt(row, "prompt")
    return Demonstration(prompt, _completion(row, "completion", prompt))


def _read_conversation(row: Columns) -> Demonstration:
    *before, last = _messages(row, "messages")
    return Demonstration(_as_prompt(tuple(before)), _reply(last))


def _read_instruction_output(row: Columns) -> Demonstration:
    return Demonstration(_read_instruction(row), _text(row, "output"))


def _read_pair(row: Columns) -> Judgement:
    prompt = _prompt(row, "prompt")
    return _pair(row, prompt, _completion(row, "chosen", prompt), _completion(row, "rejected", prompt))


def _read_implicit_pair(row: Columns) -> Judgement:
    """Both sides are whole conversations; the prompt is what they share: everything but their last message."""
    (*before, chosen), (*others, rejected) = (_whole(row, side) for side in ("chosen", "rejected"))
    if before != others:
        raise _Skip("differing prompts")
    return _pair(row, _as_prompt(tuple(before)), _reply(chosen), _reply(rejected))


def _read_ranking(row: Columns) -> Judgement:
    completions, ranks = row.get("completions"), row.get("ranks")
    if not isinstance(completions, list) or not isinstance(ranks, list):
        raise _Skip("'completions' and 'ranks' must be lists")
    if not len(completions) == len(ranks) >= 2:
        raise _Skip("'completions' and 'ranks' must have the same length, at least 2")
    if any(type(rank) is not int for rank in ranks):
        raise _Skip("'ranks' must be whole numbers, the lowest for the best")
    texts = tuple(_text({"completions": c}, "completions") for c in completions)
    return _judgement(row, _prompt(row, "prompt"), texts, tuple(ranks))


_PAIR = ("judge", "id")
SHAPES: dict[Kind, tuple[Shape, ...]] = {
    "prompts": (
        Shape("a text or messages", ("prompt",), _read_prompt),
        Shape("a conversation that ends with the user", ("messages",), _read_conversation_prompt, ("meta",)),
        Shape("self-instruct", ("instruction", "instances"), _read_instruction),
        Shape("an instruction, with its input if there is one", ("instruction",), _read_instruction, ("input",)),
    ),
    "demonstrations": (
        Shape("a prompt and its completion", ("prompt", "completion"), _read_demonstration),
        Shape("a conversation that ends with the assistant", ("messages",), _read_conversation),
        Shape("self-instruct", ("instruction", "instances"), _read_instruction_output),
        Shape("an instruction and its output", ("instruction", "output"), _read_instruction_output, ("input",)),
    ),
    "preferences": (
        Shape(
            "completions with places, the lowest for the best", ("prompt", "completions", "ranks"), _read_ranking, _PAIR
        ),
        Shape("a prompt and two completions", ("prompt", "chosen", "rejected"), _read_pair, _PAIR),
        Shape(
            "two whole conversations, as messages or as hh-rlhf transcripts; the prompt is what they share",
            ("chosen", "rejected"),
            _read_implicit_pair,
            _PAIR,
        ),
    ),
}
"""In order: the first shape of a kind whose columns are all there is the one that is read."""


def _recognise(source: str, kind: Kind, columns: Sequence[str], mapping: Mapping[str, str]) -> Shape:
    fields = sorted({f for shape in SHAPES[kind] for f in shape.columns + shape.optional})
    found = ", ".join(map(repr, columns)) or "none"
    for field, column in mapping.items():
        if field not in fields:
            raise DataError(
                f"--map: {kind} have no field '{field}'{nearest(field, fields)}", f"fields: {', '.join(fields)}"
            )
        if column not in columns:
            raise DataError(f"{source}: there is no column '{column}'{nearest(column, columns)}", f"columns: {found}")
    names = {f for f in columns if f not in mapping.values()} | set(mapping)
    shape = next((shape for shape in SHAPES[kind] if names.issuperset(shape.columns)), None)
    if shape is None:
        raise DataError(f"{source}: columns {found} are not {kind}", _map_hint(kind, columns, names))
    return shape


# Words that datasets use for our fields: only ever suggested, never taken.
_SUGGEST = {
    "prompt": ("prompt", "question", "query", "input", "instruction", "post", "text", "problem"),
    "completion": ("completion", "response", "answer", "output", "summary", "target", "reply", "solution"),
    "chosen": ("chosen", "best", "better", "preferred", "winner", "response_a", "positive"),
    "rejected": ("rejected", "worst", "worse", "loser", "response_b", "negative"),
}


def _map_hint(kind: Kind, columns: Sequence[str], names: set[str]) -> str:
    others = [(k, s) for k in get_args(Kind) if k != kind for s in SHAPES[k] if names.issuperset(s.columns)]
    wanted = {"prompts": ("prompt",), "demonstrations": ("prompt", "completion")}.get(
        kind, ("prompt", "chosen", "rejected")
    )
    lower = {c.lower(): c for c in columns}
    guess = {f: next((lower[w] for w in _SUGGEST[f] if w in lower), "COLUMN") for f in wanted if f not in columns}
    other = f"; as --kind {others[0][0]} it is {others[0][1]}" if others else ""
    known = "; ".join("+".join(s.columns) for s in SHAPES[kind])
    return f"name the columns, as in --map {','.join(f'{f}={c}' for f, c in guess.items())}{other} (known: {known})"


def _told(kind: Kind, shape: Shape, mapping: Mapping[str, str]) -> str:
    mapped = ", ".join(f"{field}={column}" for field, column in mapping.items())
    return f"{kind} from {shape}" + (f", with {mapped}" if mapped else "")


def _nothing_left(source: Path | str, loaded: Loaded) -> DataError:
    reasons = "; ".join(f"{count} x {reason}" for reason, count in list(loaded.reasons.items())[:3])
    where, why = loaded.skipped[0]
    return DataError(f"{source}: no usable row among {len(loaded.skipped)}: {reasons}", f"the first is {where}: {why}")


def _renamed(row: Columns, mapping: Mapping[str, str]) -> Columns:
    if not mapping:
        return row
    kept = {key: value for key, value in row.items() if key not in mapping.values() and key not in mapping}
    return kept | {field: row[column] for field, column in mapping.items() if column in row}


def _parts(where: str, row: Columns, shape: Shape) -> Iterator[tuple[str, Columns]]:
    """The row itself, or the instances of a self-instruct row as rows of their own."""
    instances = row.get("instances")
    if "instances" not in shape.columns or not isinstance(instances, list) or not instances:
        yield where, row
        return
    for number, instance in enumerate(instances, 1):
        place = where if len(instances) == 1 else f"{where} instance {number}"
        yield place, {**(instance if isinstance(instance, dict) else {}), "instruction": row.get("instruction")}


def _pair(row: Columns, prompt: Prompt, chosen: str, rejected: str) -> Judgement:
    if chosen.strip() == rejected.strip():
        raise _Skip("equal sides")
    return _judgement(row, prompt, (chosen, rejected), (1, 2))


def _judgement(row: Columns, prompt: Prompt, completions: tuple[str, ...], ranks: tuple[int, ...]) -> Judgement:
    judge, name = _word(row, "judge") or "unknown", _word(row, "id")
    return Judgement(prompt, completions, ranks, judge=judge, source="imported", id=name)


def _prompt(row: Columns, field: str) -> Prompt:
    """A text, a list of messages, or a prompt as trueup writes it: {"messages": [...]}."""
    value = row.get(field)
    if isinstance(value, Mapping) and "messages" in value:
        return _as_prompt(_messages(value, "messages"), _meta(value.get("meta")))
    if isinstance(value, list):
        return _as_prompt(_messages(row, field))
    return Prompt.user(_text(row, field))


def _as_prompt(messages: tuple[Message, ...], meta: Mapping[str, Any] | None = None) -> Prompt:
    if not messages:
        raise _Skip("no prompt before the completion")
    if messages[-1].role != "user":
        raise _Skip(f"the prompt ends with a message of the {messages[-1].role}, not of the user")
    if not messages[-1].content.strip():
        raise _Skip("empty prompt")
    return Prompt(messages, meta or {})


def _completion(row: Columns, field: str, prompt: Prompt) -> str:
    """A text, the assistant's one message, or the whole conversation again if it begins with the very prompt."""
    if not isinstance(row.get(field), list):
        return _text(row, field)
    *before, last = _messages(row, field)
    if before and tuple(before) != prompt.messages:
        raise _Skip(f"'{field}' is a conversation that does not begin with the prompt")
    return _reply(last)


def _whole(row: Columns, field: str) -> tuple[Message, ...]:
    return _messages(row, field) if isinstance(row.get(field), list) else _transcript(_text(row, field), field)


def _transcript(text: str, field: str) -> tuple[Message, ...]:
    """A conversation as hh-rlhf writes it. The spaces after a speaker's colon belong to the format, not to the text."""
    before, *turns = _TURN.split(text if text.startswith("\n\n") else f"\n\n{text.lstrip()}")
    if before.strip() or not turns:
        raise _Skip(f"no prompt: '{field}' is neither messages nor a transcript of {_HUMAN!r} and {_ASSISTANT!r}")
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], said.strip()) for who, said in zip(turns[::2], turns[1::2], strict=True))


def _reply(message: Message) -> str:
    if message.role != "assistant":
        raise _Skip(f"the last message is of the {message.role}, not of the assistant")
    if not message.content.strip():
        raise _Skip("empty completion")
    return message.content


def _messages(row: Columns, field: str) -> tuple[Message, ...]:
    value = row.get(field)
    if value is None:
        raise _Skip(f"missing '{field}'")
    if not isinstance(value, list) or not all(isinstance(m, Mapping) for m in value):
        raise _Skip(f"'{field}' is not a list of messages")
    if not value:
        raise _Skip(f"'{field}' has no messages")
    for message in value:
        if message.get("role") not in get_args(Role):
            raise _Skip(f"'{field}': the role {message.get('role')!r} is not system, user or assistant")
    return tuple(Message(m["role"], _text(m, "content", empty=True)) for m in value)


def _text(row: Columns, field: str, *, empty: bool = False) -> str:
    value = row.get(field)
    if value is None:
        raise _Skip(f"missing '{field}'")
    if not isinstance(value, str):
        raise _Skip(f"'{field}' is not a text but of type {type(value).__name__}")
    if not empty and not value.strip():
        raise _Skip("empty prompt" if field in ("prompt", "instruction") else "empty completion")
    return _encodable(value, field)


def _word(row: Columns, field: str) -> str:
    """A name or number as text; empty where there is none."""
    return "" if row.get(field) is None else _encodable(str(row[field]), field)


def _encodable(text: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write half a surrogate pair, which no tokenizer or file takes
        raise _Skip(f"bad encoding: '{field}' has half a surrogate pair") from None
    return text


def _meta(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        return {}
    try:
        _encodable(json.dumps(value, ensure_ascii=False, allow_nan=False), "meta")
    except (TypeError, ValueError) as error:  # Python reads NaN from JSON, which no other program takes back
        raise _Skip(f"'meta' cannot be stored as JSON: {error}") from None
    return value
