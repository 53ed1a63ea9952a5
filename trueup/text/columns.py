"""The fields of a row. Each function here gives a value or raises `Skip`, which says why the row is no use.

A prompt or a completion is a text, or a list of messages with `role` and `content`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, get_args

from ..records import UNNAMED, Judgement, Message, Prompt, Role
from . import strict_json

Columns: TypeAlias = Mapping[str, Any]

LONGEST_TEXT = 10_000_000  # characters: no context holds more, so a longer text is a mistake in the file
STRONGEST = 3  # how much better one of two can be said to be
LAST_PLACE = 1_000_000  # nobody ranks more; what is larger fits no column of a table
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")


class Skip(Exception):
    """This row is no use; the message says why."""


def judgement(
    row: Columns,
    prompt: Prompt,
    completions: Sequence[str],
    ranks: Sequence[int],
    *,
    judge: str = UNNAMED,
    ratings: Mapping[str, Sequence[float | None]] | None = None,
    **meta: Any,
) -> Judgement:
    """What a foreign row says. Of `meta`, what the row does not say is left out."""
    check_places(ranks)
    if len(completions) > 1 and len({text.strip() for text in completions}) == 1:
        raise Skip("equal sides")
    return Judgement(
        prompt,
        tuple(completions),
        tuple(ranks),
        judge=word(row, "judge") or judge,
        source="imported",
        id=word(row, "id"),
        meta=storable({name: value for name, value in meta.items() if value not in (None, "", [])}),
        ratings={axis: tuple(given) for axis, given in (ratings or {}).items()},
    )


def places(scores: Sequence[float]) -> tuple[int, ...]:
    """Scores as ranks: 1 for the highest, equal for equal ones."""
    order = {score: place for place, score in enumerate(sorted(set(scores), reverse=True), 1)}
    return tuple(order[score] for score in scores)


def check_places(ranks: Sequence[Any]) -> None:
    if any(type(rank) is not int for rank in ranks):
        raise Skip("'ranks' must be whole numbers, the lowest for the best")
    if any(abs(rank) > LAST_PLACE for rank in ranks):
        raise Skip(f"'ranks' must be whole numbers of at most {LAST_PLACE:,}")


# Texts and numbers


def text(row: Columns, field: str, *, empty: bool = False) -> str:
    value = row.get(field)
    if value is None:
        raise Skip(f"missing '{field}'")
    if not isinstance(value, str):
        raise Skip(f"'{field}' is not a text but of type {type(value).__name__}")
    if not empty and not value.strip():
        raise Skip("empty prompt" if field in ("prompt", "instruction", "question") else "empty completion")
    if len(value) > LONGEST_TEXT:
        raise Skip(f"'{field}' is longer than {LONGEST_TEXT:,} characters")
    return encodable(value, field)


def word(row: Columns, field: str) -> str:
    """A name or number as text; empty where there is none."""
    return "" if row.get(field) is None else encodable(str(row[field]), field)


def number(row: Columns, field: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A number, also where it is written as a text, as in every CSV."""
    value = row.get(field)
    if value is None:
        raise Skip(f"missing '{field}'")
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise Skip(f"'{field}' is not a number")
    if not low <= found <= high:
        raise Skip(f"'{field}' is not between {low:g} and {high:g}")
    return found


def whole_number(row: Columns, field: str, low: float = -math.inf, high: float = math.inf) -> int:
    found = number(row, field, low, high)
    if found != int(found):
        raise Skip(f"'{field}' is not a whole number")
    return int(found)


def truth(row: Columns, field: str) -> bool:
    value = row.get(field)
    if value is None:
        raise Skip(f"missing '{field}'")
    known = {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())
    if known is None:
        raise Skip(f"'{field}' is neither true nor false")
    return known


def encodable(value: str, field: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can write half a surrogate pair, which no tokenizer or file takes
        raise Skip(f"bad encoding: '{field}' has half a surrogate pair") from None
    return value


def objects(row: Columns, field: str) -> list[Columns]:
    """A list of objects, also as `datasets` may hand it out: one object of equally long lists."""
    value = row.get(field)
    if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
        if len({len(column) for column in value.values()}) > 1:
            raise Skip(f"the lists in '{field}' differ in length")
        return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]
    if value is None:
        raise Skip(f"missing '{field}'")
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise Skip(f"'{field}' is not a list of objects")
    return value


def storable(value: Any) -> Mapping[str, Any]:
    """Meta as it is kept: an object, or the text of one as tables hold it; anything else is no meta."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = strict_json.parse(value)
        except json.JSONDecodeError:
            return {}
        except ValueError as error:
            raise Skip(f"'meta': {error}") from None
    if not isinstance(value, Mapping):
        return {}
    try:
        encodable(json.dumps(value, ensure_ascii=False, allow_nan=False), "meta")
    except (TypeError, ValueError) as error:  # Python reads NaN from JSON, which no other program takes back
        raise Skip(f"'meta' cannot be stored as JSON: {error}") from None
    return value


# Prompts, completions and conversations


def prompt(row: Columns, field: str) -> Prompt:
    """A text, a list of messages, or a prompt as trueup writes it: {"messages": [...]}."""
    value = row.get(field)
    if isinstance(value, Mapping) and "messages" in value:
        return as_prompt(messages(value, "messages"), storable(value.get("meta")))
    if isinstance(value, list):
        return as_prompt(messages(row, field))
    return Prompt.user(text(row, field))


def tagged(prompt: Prompt, row: Columns) -> Prompt:
    """With the category that its row gives: a text, a number or a list of them. What the prompt says itself stands."""
    tags = row.get("category")
    given = tags if isinstance(tags, list) else [tags]
    if "category" in prompt.meta or not all(isinstance(tag, str | int) and str(tag).strip() for tag in given):
        return prompt
    tags = [encodable(str(tag), "category") for tag in given]
    return replace(prompt, meta={**prompt.meta, "category": tags[0] if len(tags) == 1 else tags}) if tags else prompt


def as_prompt(said: tuple[Message, ...], meta: Mapping[str, Any] | None = None) -> Prompt:
    if not said:
        raise Skip("no prompt before the completion")
    if said[-1].role != "user":
        raise Skip(f"the prompt ends with a message of the {said[-1].role}, not of the user")
    if not said[-1].content.strip():
        raise Skip("empty prompt")
    return Prompt(said, meta or {})


def completion(row: Columns, field: str, prompt: Prompt, *, empty: bool = False) -> str:
    """A text, the assistant's one message, or the whole conversation again if it begins with the very prompt."""
    if not isinstance(row.get(field), list):
        return text(row, field, empty=empty)
    *before, last = messages(row, field)
    if before and tuple(before) != prompt.messages:
        raise Skip(f"'{field}' is a conversation that does not begin with the prompt")
    return reply(last, empty=empty)


def conversation(row: Columns, field: str) -> tuple[Message, ...]:
    return messages(row, field) if isinstance(row.get(field), list) else transcript(text(row, field), field)


def transcript(written: str, field: str) -> tuple[Message, ...]:
    """A conversation as hh-rlhf writes it. The spaces after a speaker's colon belong to the format, not to the text."""
    before, *turns = _TURN.split(written if written.startswith("\n\n") else f"\n\n{written.lstrip()}")
    if before.strip() or not turns:
        raise Skip(f"no prompt: '{field}' is neither messages nor a transcript of {_HUMAN!r} and {_ASSISTANT!r}")
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], said.strip()) for who, said in zip(turns[::2], turns[1::2], strict=True))


def reply(message: Message, *, empty: bool = False) -> str:
    if message.role != "assistant":
        raise Skip(f"the last message is of the {message.role}, not of the assistant")
    if not empty and not message.content.strip():
        raise Skip("empty completion")
    return message.content


def messages(row: Columns, field: str) -> tuple[Message, ...]:
    value = row.get(field)
    if value is None:
        raise Skip(f"missing '{field}'")
    if not isinstance(value, list) or not all(isinstance(m, Mapping) for m in value):
        raise Skip(f"'{field}' is not a list of messages")
    if not value:
        raise Skip(f"'{field}' has no messages")
    for message in value:
        if message.get("role") not in get_args(Role):
            raise Skip(f"'{field}': the role {message.get('role')!r} is not system, user or assistant")
    return tuple(Message(m["role"], text(m, "content", empty=True)) for m in value)


def key(value: Any) -> str:
    """What makes two values of a column the same one."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
