"""Records as rows for other software: lossless (`raw`), for a spreadsheet (`table`), or as TRL's trainers read them.

A view leaves out what its format cannot say (a tie is no pair, an undecided thumb no label) and names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..errors import ConfigError, DataError, nearest
from ..records import Completion, Demonstration, Judgement, Prompt

Cells: TypeAlias = dict[str, Any]
Found: TypeAlias = Iterator[Cells | str]  # rows of one record, and why something of it is left out
THUMB = "thumb"


@dataclass(frozen=True)
class View:
    """The rows of an export. `left_out` is (record, reason); `notes` counts what is there in a weaker form."""

    format: str
    rows: list[Cells]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, int]:
        return dict(Counter(reason for _, reason in self.left_out).most_common())

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))


def view(
    kind: str,
    rows: Iterable[Mapping[str, Any]],
    format: str = "raw",
    *,
    conversational: bool = False,
    split: str = "",
    number_judges: bool = False,
) -> View:
    """The rows of an artifact of this kind in a format. `split` takes one side only.

    A prompt of several messages is only said in a conversational row: it would be a guess how to make it one text.
    `number_judges` calls the judges judge-1, judge-2 and so on, in the order in which they come.
    """
    reading = _reading(kind, format)
    if conversational and not format.startswith("trl-"):
        raise ConfigError(f"{format} rows are not conversational", "conversational goes with the trl formats")
    chosen = [dict(row) for row in rows if split in ("", row.get("split", ""))]
    if not chosen:
        raise DataError(f"there are no rows of split '{split}'", "train or heldout; prompts have none")
    if number_judges:
        _number_judges(chosen)
    made = View(format, [])
    for number, row in enumerate(chosen, 1):
        name = str(row.get("id") or f"row {number}")
        for found in reading(row):
            cells = found if isinstance(found, str) else _laid_out(found, conversational)
            if isinstance(cells, str):
                made.left_out.append((name, cells))
            else:
                made.rows.append(cells)
    if not made.rows:
        raise _nothing(kind, made)
    if format in ("trl-preference", "trl-unpaired") and (soft := sum(map(_is_soft, chosen))):
        made.notes["with soft targets, of which only the likelier side is kept"] = soft
    return _with_margins(made) if format == "trl-preference" else made


def _is_soft(row: Mapping[str, Any]) -> bool:
    return any(target not in (0, 0.5, 1) for target in row.get("targets", ()))


def _reading(kind: str, format: str) -> Callable[[Mapping[str, Any]], Found]:
    if format not in VIEWS:
        raise ConfigError(f"unknown format '{format}'{nearest(format, VIEWS)}", f"formats: {', '.join(VIEWS)}")
    if kind not in VIEWS[format]:
        fitting = [name for name, kinds in VIEWS.items() if kind in kinds]
        hint = f"formats for {kind}: {', '.join(fitting)}" if fitting else f"kinds of data: {', '.join(VIEWS['raw'])}"
        raise ConfigError(f"{kind} cannot be written as {format}", hint)
    return VIEWS[format][kind]


def _number_judges(rows: list[Cells]) -> None:
    numbers: dict[str, str] = {}
    for row in rows:
        if "judge" in row:
            row["judge"] = numbers.setdefault(row["judge"], f"judge-{len(numbers) + 1}")


def _nothing(kind: str, made: View) -> DataError:
    reasons = "; ".join(f"{count} x {reason}" for reason, count in list(made.reasons.items())[:3])
    hint = "use --conversational" if SEVERAL in made.reasons else f"formats: {', '.join(VIEWS)}"
    return DataError(f"nothing in these {kind} can be written as {made.format}: {reasons}", hint)


# --- one record as rows


def _raw(row: Mapping[str, Any]) -> Found:
    yield dict(row)


def _pairs(row: Mapping[str, Any]) -> Found:
    """All decided pairs of a ranking."""
    judgement = Judgement.from_json(row)
    if len(judgement.completions) < 2:
        yield "one completion: nothing to compare"
    for i, j, target in judgement.pairs():
        better, worse = (i, j) if target > 0.5 else (j, i)
        if target == 0.5:
            yield "a tie"
        elif judgement.completions[better] == judgement.completions[worse]:
            yield "equal sides"
        else:
            chosen, rejected = judgement.completions[better], judgement.completions[worse]
            yield {
                "prompt": judgement.prompt,
                "chosen": chosen,
                "rejected": rejected,
                "margin": _margin(judgement),
            }


def _margin(judgement: Judgement) -> float | None:
    """How much better the better of two is: what somebody said, or a margin that came with the data."""
    for said in (judgement.meta.get("strength"), judgement.meta.get("margin")):
        if isinstance(said, int | float) and not isinstance(said, bool) and len(judgement.completions) == 2:
            return abs(float(said))
    return None


def _with_margins(made: View) -> View:
    """A trainer reads the column in all rows or in none."""
    without = sum(row["margin"] is None for row in made.rows)
    if without:
        for row in made.rows:
            del row["margin"]
        if without < len(made.rows):
            made.notes["without a strength, so that no row has a margin"] = without
    return made


def _labels(row: Mapping[str, Any]) -> Found:
    """Thumbs as they are; a decided pair without thumbs is one liked and one disliked completion."""
    judgement = Judgement.from_json(row)
    thumbs = judgement.ratings.get(THUMB)
    if thumbs is not None:
        for text, liked in zip(judgement.completions, thumbs, strict=True):
            yield from _labelled(judgement, text, liked)
    elif len(judgement.completions) != 2:
        yield "neither thumbs nor a pair"
    elif (target := judgement.pairs()[0][2]) == 0.5:
        yield "a tie"
    else:
        for text, liked in zip(judgement.completions, (target, 1 - target), strict=True):
            yield from _labelled(judgement, text, liked)


def _labelled(judgement: Judgement, text: str, liked: float | None) -> Found:
    if liked is None or liked == 0.5:
        yield "an undecided thumb"
    else:
        yield {"prompt": judgement.prompt, "completion": text, "label": liked > 0.5}


def _best(row: Mapping[str, Any]) -> Found:
    """The one completion that nobody else of its ranking equals."""
    judgement = Judgement.from_json(row)
    best = min(judgement.ranks)
    if len(judgement.completions) < 2:
        yield "one completion: nothing to compare"
    elif judgement.ranks.count(best) > 1:
        yield "several completions share the first place"
    else:
        yield {"prompt": judgement.prompt, "completion": judgement.completions[judgement.ranks.index(best)]}


def _shown(row: Mapping[str, Any]) -> Found:
    shown = Demonstration.from_json(row)
    yield {"prompt": shown.prompt, "completion": shown.completion}


def _asked(row: Mapping[str, Any]) -> Found:
    yield {"prompt": Prompt.from_json(row if "messages" in row else row["prompt"])}


def _table_judgement(row: Mapping[str, Any]) -> Found:
    """One flat row a completion, for people who read with a spreadsheet."""
    judgement = Judgement.from_json(row)
    about = {"id": judgement.id, "judge": judgement.judge, "source": judgement.source, "split": judgement.split}
    answer = judgement.meta.get("answer")
    said = answer.get("rationale", "") if isinstance(answer, Mapping) else ""
    for i, (text, rank) in enumerate(zip(judgement.completions, judgement.ranks, strict=True)):
        ratings = {f"rating {axis}": given[i] for axis, given in judgement.ratings.items()}
        cells = {"prompt": _as_text(judgement.prompt), "completion": text, "rank": rank, **ratings}
        yield {**about, **cells, "strength": judgement.meta.get("strength"), "rationale": said}


def _table_completions(row: Mapping[str, Any]) -> Found:
    prompt = Prompt.from_json(row["prompt"])
    for each in row["completions"]:
        written = Completion.from_json(prompt, each)
        yield {
            "prompt": _as_text(prompt),
            "completion": written.text,
            "model": written.model,
            "finished": written.finished,
        }


def _table_demonstration(row: Mapping[str, Any]) -> Found:
    shown = Demonstration.from_json(row)
    yield {"prompt": _as_text(shown.prompt), "completion": shown.completion}


def _table_prompt(row: Mapping[str, Any]) -> Found:
    yield {"prompt": _as_text(Prompt.from_json(row))}


VIEWS: Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], Found]]] = {
    "raw": dict.fromkeys(("prompts", "demonstrations", "preferences", "unpaired", "completions"), _raw),
    "table": {
        "prompts": _table_prompt,
        "demonstrations": _table_demonstration,
        "preferences": _table_judgement,
        "unpaired": _table_judgement,
        "completions": _table_completions,
    },
    "trl-preference": {"preferences": _pairs},
    "trl-unpaired": {"preferences": _labels, "unpaired": _labels},
    "trl-prompt-completion": {"demonstrations": _shown, "preferences": _best},
    "trl-prompt": dict.fromkeys(("prompts", "demonstrations", "preferences", "unpaired", "completions"), _asked),
}
"""Format -> kind of artifact -> what a row of it becomes."""


# --- prompts in rows

SEVERAL = "a prompt of several messages: only conversational rows hold it"


def _laid_out(cells: Cells, conversational: bool) -> Cells | str:
    """A prompt as a text or as messages, and what answers it in the same way."""
    prompt = cells.get("prompt")
    if not isinstance(prompt, Prompt):
        return cells
    if not conversational:
        single = len(prompt.messages) == 1 and prompt.messages[0].role == "user"
        return {**cells, "prompt": prompt.text} if single else SEVERAL
    replies: Cells = {
        name: _said("assistant", cells[name]) for name in ("chosen", "rejected", "completion") if name in cells
    }
    return {**cells, "prompt": [m for said in prompt.messages for m in _said(said.role, said.content)], **replies}


def _said(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def _as_text(prompt: Prompt) -> str:
    """For people to read: speakers are named where there are several messages."""
    messages: Sequence[Any] = prompt.messages
    if len(messages) == 1 and messages[0].role == "user":
        return prompt.text
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)
