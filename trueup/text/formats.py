"""Files to records. What is recognised is written in one table (`SHAPES`); nothing else is guessed.

A source is read whole or not at all: a line that is not JSON, or not UTF-8, is an error that names file and line. A row
that is well formed but no use (an empty completion, two equal sides) is skipped, counted and listed; what is kept but
worth knowing (control characters, a repaired score) is counted too. Columns that no shape names are ignored.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ..errors import DataError, nearest
from ..records import Demonstration, Judgement, Prompt
from . import candidates, cells, columns, comparisons, ratings, raw, trees, votes
from .candidates import Candidates
from .columns import Columns, Skip
from .parts import Part, instances, the_row
from .sources import read_rows

Kind = Literal["prompts", "demonstrations", "preferences", "unpaired", "completions"]
Record: TypeAlias = Prompt | Demonstration | Judgement | Candidates
Placed: TypeAlias = tuple[str, Columns | Skip]

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Loaded:
    """What came out of a source: the records, every row that did not and why, and how the rows were understood.

    `notes` counts what was kept but is worth knowing. `beside[i]` is what a raw export holds of record i beside it.
    """

    records: list[Record]
    skipped: list[tuple[str, str]]
    recognised: str
    notes: dict[str, int] = field(default_factory=dict)
    keeps_split: bool = False
    beside: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were skipped for each reason, the commonest first."""
        return dict(Counter(reason for _, reason in self.skipped).most_common())


@dataclass(frozen=True)
class Shape:
    """A set of columns that trueup knows how to read. `formats` are the names by which it can be asked for."""

    formats: tuple[str, ...]
    about: str
    columns: tuple[str, ...]
    read: Callable[[Columns], Record]
    optional: tuple[str, ...] = ()
    parts: Callable[[str, Columns], Iterator[Part]] = the_row  # for rows that hold several records
    gather: Callable[[Sequence[tuple[str, Columns]]], Iterator[Placed]] | None = None  # for records of several rows
    beside: Callable[[Columns], Mapping[str, Any]] | None = None

    def __str__(self) -> str:
        return f"{'+'.join(self.columns)} ({self.about})"


def load(
    source: Path | str,
    kind: Kind,
    mapping: Mapping[str, str] | None = None,
    *,
    format: str = "",
    skip_malformed: bool = False,
    first: int = 0,
) -> Loaded:
    """Records of one kind. `mapping` says which column holds which field: {"prompt": "question", "chosen": "best"}.

    `format` is the name of a shape; without it the columns decide. `skip_malformed` counts rows that cannot be read
    instead of refusing the file: lines that are not JSON or not UTF-8, rows of CSV that are too long or too short.
    `first` stops after so many rows; 0 reads all.
    """
    mapping, rows, skipped = dict(mapping or {}), [], []
    for where, row in islice(read_rows(source), first or None):
        if isinstance(row, DataError):
            if not skip_malformed:
                raise DataError(row.message, f"{row.hint}; or leave such rows out, counted: --skip-malformed")
            skipped.append((where, row.message.removeprefix(f"{where}: ")))
        else:
            rows.append((where, row))
    if not rows and skipped:
        raise _nothing_left(source, skipped)
    if not rows:
        raise DataError(f"{source}: there are no rows in it", "see `trueup data add --help` for what a file looks like")
    names = list(dict.fromkeys(key for _, row in rows for key in row))
    shape = _recognise(str(source), kind, names, mapping, format)
    named = [(where, cells.unpacked(_renamed(row, mapping))) for where, row in rows]
    loaded = _read_all(named, shape, _told(kind, shape, mapping))
    loaded.skipped[:0] = skipped
    if not loaded.records:
        raise _nothing_left(source, loaded.skipped)
    return loaded


def _read_all(rows: list[tuple[str, Columns]], shape: Shape, told: str) -> Loaded:
    """Nobody has two judgements by one id: the later of two rows is left out, whatever it says."""
    loaded = Loaded([], [], told, keeps_split="raw" in shape.formats and "split" in shape.columns)
    notes: Counter[str] = Counter()
    seen: dict[tuple[str, ...], str] = {}
    for where, part in _parts(rows, shape):
        try:
            if isinstance(part, Skip):
                raise part
            record = _tagged(shape.read(part), part)
            if (identity := _identity(record)) and (first := seen.setdefault(identity, where)) != where:
                raise Skip(f"the id '{identity[0]}' stands at {first} already")
        except Skip as reason:
            loaded.skipped.append((where, str(reason)))
        else:
            loaded.records.append(record)
            loaded.beside.append(shape.beside(part) if shape.beside else {})
            notes.update(_worth_knowing(record))
    loaded.notes.update(notes.most_common())
    return loaded


def _parts(rows: list[tuple[str, Columns]], shape: Shape) -> Iterator[Placed]:
    for where, row in shape.gather(rows) if shape.gather else rows:
        if isinstance(row, Skip):
            yield where, row
        else:
            yield from shape.parts(where, row)


def _tagged(record: Record, row: Columns) -> Record:
    """Prompts of every kind of record keep what their row says they are about."""
    if "category" not in row:
        return record
    if isinstance(record, Prompt):
        return columns.tagged(record, row)
    return replace(record, prompt=columns.tagged(record.prompt, row))


def _identity(record: Record) -> tuple[str, ...]:
    """Thumbs that one person gave to several completions at once come as judgements of one id."""
    if not isinstance(record, Judgement) or not record.id:
        return ()
    return (record.id, *record.completions) if len(record.completions) == 1 else (record.id,)


def _worth_knowing(record: Record) -> Iterator[str]:
    """What is kept as it is, and counted: some of it hides from the eye, or moves a terminal's cursor."""
    said = [m.content for m in (record if isinstance(record, Prompt) else record.prompt).messages]
    said += completions_of(record)
    if any(map(_CONTROL.search, said)):
        yield "with control characters"
    if any(map(_BIDI.search, said)):
        yield "with characters that change the direction of writing"
    if isinstance(record, Candidates) and not all(map(str.strip, completions_of(record))):
        yield "with an empty completion, which nobody will be asked about"
    if isinstance(record, Judgement):
        yield from (str(record.meta[name]) for name in ("repaired", "contradiction") if name in record.meta)


def completions_of(record: Record) -> Sequence[str]:
    """The texts that answer its prompt."""
    if isinstance(record, Candidates):
        return [completion.text for completion in record.written]
    if isinstance(record, Demonstration):
        return [record.completion]
    return record.completions if isinstance(record, Judgement) else ()


def parse_mapping(text: str) -> dict[str, str]:
    """'prompt=question,chosen=best' as a mapping from field to column."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if any(not (field.strip() and column.strip()) for field, _, column in pairs):
        raise DataError(
            f"--map {text}: every part must read field=column", "for example --map prompt=question,chosen=best"
        )
    return {field.strip(): column.strip() for field, _, column in pairs}


def group_of(prompt: Prompt) -> str:
    """What has to stay on one side: the group that its data set put it into, else all prompts that open alike.

    One conversation often stands in a data set several times, each time a turn longer: a model that learnt from one of
    them has read most of the others.
    """
    roles = [message.role for message in prompt.messages]
    opening = Prompt(prompt.messages[: roles.index("user") + 1]) if "user" in roles else prompt
    return str(prompt.meta.get("group", opening.id))


def split_by_prompt(group: str, share: float, seed: int) -> Literal["train", "heldout"]:
    """Which side a group (see `group_of`) is on, from its name alone: so are all its rows, in every file."""
    number = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8], "big")
    return "heldout" if number < share * 2**64 else "train"


# --- how single rows are read


def _read_prompt(row: Columns) -> Prompt:
    return columns.prompt(row, "prompt")


def _read_labelled(row: Columns) -> Prompt:
    """XSTest's `type` says what a prompt is about."""
    prompt, label = columns.prompt(row, "prompt"), str(row.get("label", "")).strip().lower()
    if label not in ("safe", "unsafe"):
        raise Skip("'label' is neither safe nor unsafe (--format trl-prompt reads the prompts alone)")
    tagged = columns.tagged(prompt, {"category": row.get("type")})
    return replace(tagged, meta={**tagged.meta, "label": label})


def _read_conversation_prompt(row: Columns) -> Prompt:
    return columns.as_prompt(columns.messages(row, "messages"), columns.storable(row.get("meta")))


def _read_instruction(row: Columns) -> Prompt:
    instruction, given = columns.text(row, "instruction"), ""
    if row.get("input"):
        given = columns.text(row, "input", empty=True)
    return Prompt.user(f"{instruction}\n\n{given}" if given.strip() else instruction)


def _read_demonstration(row: Columns) -> Demonstration:
    prompt = columns.prompt(row, "prompt")
    return Demonstration(prompt, columns.completion(row, "completion", prompt))


def _read_conversation(row: Columns) -> Demonstration:
    *before, last = columns.messages(row, "messages")
    return Demonstration(columns.as_prompt(tuple(before)), columns.reply(last))


def _read_instruction_output(row: Columns) -> Demonstration:
    return Demonstration(_read_instruction(row), columns.text(row, "output"))


_SAID = ("judge", "id")
_PAIRED = (*_SAID, "margin", "strength")
_TREE, _FLAT_TREE = ("message_tree_id", "prompt"), ("message_tree_id", "message_id", "parent_id", "text", "role")
_TREES, _FLAT_TREES = "OpenAssistant's trees", "OpenAssistant's trees, one row a message"
SHAPES: dict[Kind, tuple[Shape, ...]] = {
    "prompts": (
        Shape(("oasst",), _TREES, _TREE, trees.prompt, parts=trees.prompter_turns),
        Shape(
            ("oasst",), _FLAT_TREES, _FLAT_TREE, trees.prompt, parts=trees.prompter_turns, gather=trees.from_messages
        ),
        Shape(("safety",), "prompts labelled safe or unsafe", ("prompt", "label"), _read_labelled, ("type",)),
        Shape(("trl-prompt",), "a text or messages", ("prompt",), _read_prompt),
        Shape(
            ("messages", "raw"),
            "a conversation that ends with the user",
            ("messages",),
            _read_conversation_prompt,
            ("meta",),
        ),
        Shape(("self-instruct",), "self-instruct", ("instruction", "instances"), _read_instruction, parts=instances),
        Shape(
            ("instructions",),
            "an instruction, with its input if there is one",
            ("instruction",),
            _read_instruction,
            ("input",),
        ),
    ),
    "demonstrations": (
        Shape(
            ("raw",),
            "as the app writes them",
            ("prompt", "completion", *raw.BESIDE),
            raw.demonstration,
            beside=raw.beside,
        ),
        Shape(("oasst",), _TREES, _TREE, trees.demonstration, parts=trees.best_path),
        Shape(
            ("oasst",), _FLAT_TREES, _FLAT_TREE, trees.demonstration, parts=trees.best_path, gather=trees.from_messages
        ),
        Shape(
            ("trl-prompt-completion", "raw"),
            "a prompt and its completion",
            ("prompt", "completion"),
            _read_demonstration,
        ),
        Shape(("messages",), "a conversation that ends with the assistant", ("messages",), _read_conversation),
        Shape(
            ("self-instruct",),
            "self-instruct",
            ("instruction", "instances"),
            _read_instruction_output,
            parts=instances,
        ),
        Shape(
            ("instructions",),
            "an instruction and its output",
            ("instruction", "output"),
            _read_instruction_output,
            ("input",),
        ),
    ),
    "preferences": (
        Shape(("raw",), "as trueup writes them", raw.JUDGEMENT, raw.judgement, ("ratings", "targets", "meta")),
        Shape(("oasst",), _TREES, _TREE, trees.ranking, parts=trees.rankings),
        Shape(("oasst",), _FLAT_TREES, _FLAT_TREE, trees.ranking, parts=trees.rankings, gather=trees.from_messages),
        Shape(
            ("ranking",),
            "completions with places, the lowest for the best",
            ("prompt", "completions", "ranks"),
            comparisons.ranking,
            _SAID,
        ),
        Shape(
            ("trl-preference",),
            "a prompt and two completions",
            ("prompt", "chosen", "rejected"),
            comparisons.pair,
            _PAIRED,
        ),
        Shape(
            ("hh-rlhf",),
            "two whole conversations, as messages or as hh-rlhf transcripts; the prompt is what they share",
            ("chosen", "rejected"),
            comparisons.whole_conversations,
            _PAIRED,
        ),
        Shape(
            ("trl-preference",),
            "two whole conversations or texts; the prompt is what they share",
            ("chosen", "rejected"),
            comparisons.shared_beginning,
            _PAIRED,
        ),
        Shape(
            ("summarize-from-feedback",),
            "two summaries of a post, with who chose",
            ("info", "summaries", "choice"),
            comparisons.two_summaries,
            ("worker", "batch", "split", "extra"),
        ),
        Shape(
            ("stack-exchange",),
            "a question and its answers, ranked by votes",
            ("question", "answers"),
            votes.answers_by_votes,
            ("qid", "metadata"),
            parts=votes.scored_answers,
        ),
        Shape(
            ("shp",),
            "two comments, of which the later has the higher score",
            ("history", "human_ref_A", "human_ref_B", "labels"),
            votes.later_and_higher,
        ),
        Shape(
            ("ultrafeedback",),
            "completions rated on several axes, ranked by their overall score",
            ("instruction", "completions"),
            ratings.by_overall_score,
            parts=ratings.rated_completions,
        ),
        Shape(
            ("helpsteer2",),
            "two responses with a signed strength, positive for the second",
            ("prompt", "response_1", "response_2", "preference_strength"),
            comparisons.signed_pair,
        ),
        Shape(
            ("helpsteer3",),
            "two responses to a conversation with a signed strength, positive for the second",
            ("context", "response1", "response2", "overall_preference"),
            comparisons.signed_pair_in_context,
        ),
        Shape(
            ("helpsteer",),
            "responses rated from 0 to 4, ranked by helpfulness; one row a response",
            ("prompt", "response", *ratings.HELPSTEER_AXES),
            ratings.by_helpfulness,
            parts=ratings.rated_responses,
            gather=ratings.same_prompt,
        ),
    ),
    "unpaired": (
        Shape(("raw",), "as trueup writes them", raw.JUDGEMENT, raw.one_completion, ("ratings", "targets", "meta")),
        Shape(
            ("trl-unpaired",),
            "a prompt, a completion and whether it was liked",
            ("prompt", "completion", "label"),
            comparisons.thumb,
            _SAID,
        ),
    ),
    "completions": (
        Shape(
            ("raw",),
            "a prompt and its completions: texts, or objects with text, model and finished",
            ("prompt", "completions"),
            candidates.candidates,
            parts=candidates.listed,
        ),
        Shape(
            ("messages",),
            "a conversation that ends with the user, and completions of it",
            ("messages", "completions"),
            candidates.of_conversation,
            ("meta",),
            parts=candidates.listed,
        ),
        Shape(
            ("trl-prompt-completion",),
            "one row a completion; those of a prompt belong together",
            ("prompt", "completion"),
            candidates.candidates,
            ("model", "finished"),
            parts=candidates.one_each,
            gather=candidates.same_prompt,
        ),
    ),
}
"""In order: the first shape of a kind whose columns are all there is the one that is read."""


def formats_of(kind: Kind) -> list[str]:
    """The names that `format` may have."""
    return list(dict.fromkeys(name for shape in SHAPES[kind] for name in shape.formats))


def _recognise(source: str, kind: Kind, names: Sequence[str], mapping: Mapping[str, str], format: str) -> Shape:
    shapes = _asked_for(kind, format)
    fields = sorted({"category", *(f for shape in shapes for f in shape.columns + shape.optional)})
    found = ", ".join(map(repr, names)) or "none"
    for wanted, column in mapping.items():
        if wanted not in fields:
            raise DataError(
                f"--map: {kind} have no field '{wanted}'{nearest(wanted, fields)}", f"fields: {', '.join(fields)}"
            )
        if column not in names:
            raise DataError(f"{source}: there is no column '{column}'{nearest(column, names)}", f"columns: {found}")
    there = {f for f in names if f not in mapping.values()} | set(mapping)
    shape = next((shape for shape in shapes if there.issuperset(shape.columns)), None)
    if shape is None and format:
        raise DataError(
            f"{source}: columns {found} are not {format}",
            f"it needs {' or '.join('+'.join(s.columns) for s in shapes)}",
        )
    if shape is None:
        raise DataError(f"{source}: columns {found} are not {kind}", _map_hint(kind, names, there))
    return shape


def _asked_for(kind: Kind, format: str) -> list[Shape]:
    found = [shape for shape in SHAPES[kind] if not format or format in shape.formats]
    if found:
        return found
    others = [other for other in get_args(Kind) if format in formats_of(other)]
    hint = f"it holds {' or '.join(others)}" if others else f"formats of {kind}: {', '.join(formats_of(kind))}"
    raise DataError(f"{kind} have no format '{format}'{nearest(format, formats_of(kind))}", hint)


# Words that datasets use for our fields: only ever suggested, never taken.
_SUGGEST = {
    "prompt": ("prompt", "question", "query", "input", "instruction", "post", "text", "problem"),
    "completion": ("completion", "response", "answer", "output", "summary", "target", "reply", "solution"),
    "chosen": ("chosen", "best", "better", "preferred", "winner", "response_a", "positive"),
    "rejected": ("rejected", "worst", "worse", "loser", "response_b", "negative"),
    "label": ("label", "liked", "thumb", "thumbs", "feedback", "rating", "vote"),
}
_WANTED: Mapping[Kind, tuple[str, ...]] = {
    "prompts": ("prompt",),
    "demonstrations": ("prompt", "completion"),
    "preferences": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "completions": ("prompt", "completion"),
}
_TABLE = {"judge", "source", "split", "prompt", "completion", "rank", "strength", "rationale"}


def _map_hint(kind: Kind, names: Sequence[str], there: set[str]) -> str:
    if there >= _TABLE:
        return "this is a table, which is for reading only: export the set with --format raw to add it again"
    others = [(k, s) for k in get_args(Kind) if k != kind for s in SHAPES[k] if there.issuperset(s.columns)]
    wanted = _WANTED[kind]
    lower = {c.lower(): c for c in names}
    guess = {f: next((lower[w] for w in _SUGGEST[f] if w in lower), "COLUMN") for f in wanted if f not in names}
    other = f"; as --kind {others[0][0]} it is {others[0][1]}" if others else ""
    known = "; ".join("+".join(s.columns) for s in SHAPES[kind])
    return f"name the columns, as in --map {','.join(f'{f}={c}' for f, c in guess.items())}{other} (known: {known})"


def _told(kind: Kind, shape: Shape, mapping: Mapping[str, str]) -> str:
    mapped = ", ".join(f"{field}={column}" for field, column in mapping.items())
    return f"{kind} from {shape}" + (f", with {mapped}" if mapped else "")


def _nothing_left(source: Path | str, skipped: list[tuple[str, str]]) -> DataError:
    reasons = "; ".join(f"{count} x {reason}" for reason, count in Counter(why for _, why in skipped).most_common(3))
    where, why = skipped[0]
    return DataError(f"{source}: no usable row among {len(skipped)}: {reasons}", f"the first is {where}: {why}")


def _renamed(row: Columns, mapping: Mapping[str, str]) -> Columns:
    if not mapping:
        return row
    kept = {key: value for key, value in row.items() if key not in mapping.values() and key not in mapping}
    return kept | {field: row[column] for field, column in mapping.items() if column in row}
