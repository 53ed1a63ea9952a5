"""Records as trueup itself writes them, read back without losing or changing anything.

Nothing is judged by its use here: an empty completion was judged by somebody, and stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from ..records import Demonstration, Judgement, Message, Prompt, Role, Source
from . import columns, strict_json
from .columns import Columns, Skip

JUDGEMENT = ("id", "prompt", "completions", "ranks", "judge", "source", "split")
BESIDE = ("judge", "source", "id", "split")  # what the app writes beside a demonstration: who wrote it, and where

BOTH_BAD = "both bad"  # what the app writes for a strength where neither of two was any good


def judgement(row: Columns) -> Judgement:
    texts = [_text(each, "completions") for each in _list(row, "completions")]
    ranks = _list(row, "ranks")
    if not texts or len(texts) != len(ranks):
        raise Skip(f"{len(ranks)} 'ranks' for {len(texts)} 'completions'")
    columns.check_places(ranks)
    _beside(row)
    return Judgement(
        _prompt(row),
        tuple(texts),
        tuple(ranks),
        row["judge"],
        row["source"],
        row["id"],
        row["split"],
        _meta(row, len(texts)),
        _ratings(row, len(texts)),
        _targets(row, len(texts)),
    )


def one_completion(row: Columns) -> Judgement:
    found = judgement(row)
    if len(found.completions) != 1:
        raise Skip(f"{len(found.completions)} completions: use --kind preferences")
    return found


def demonstration(row: Columns) -> Demonstration:
    beside(row)
    return Demonstration(_prompt(row), _text(row.get("completion"), "completion"))


def beside(row: Columns) -> dict[str, Any]:
    """Who wrote a demonstration, on which side of the split it is, and what else is noted of it."""
    meta = _object(row, "meta")
    return _beside(row) | ({"meta": dict(meta)} if meta else {})


def _beside(row: Columns) -> dict[str, str]:
    for field in BESIDE:
        _text(row.get(field), field)
    if row["source"] not in get_args(Source):
        raise Skip(f"'source' is {row['source']!r}, not one of {', '.join(get_args(Source))}")
    if row["split"] not in ("train", "heldout"):
        raise Skip(f"'split' is {row['split']!r}, neither train nor heldout")
    return {field: row[field] for field in BESIDE}


def _prompt(row: Columns) -> Prompt:
    value = row.get("prompt")
    if not isinstance(value, Mapping) or not isinstance(value.get("messages"), list) or not value["messages"]:
        raise Skip("'prompt' is not an object with messages")
    for message in value["messages"]:
        if not isinstance(message, Mapping) or message.get("role") not in get_args(Role):
            raise Skip("'prompt' has a message without a role of system, user or assistant")
    said = tuple(Message(m["role"], _text(m.get("content"), "prompt")) for m in value["messages"])
    return Prompt(said, _object(value, "meta"))


def _meta(row: Columns, count: int) -> Mapping[str, Any]:
    """What training reads of it has to be sound. It makes a margin or a weight of a strength: one of a hundred would
    drown all other judgements."""
    meta = _object(row, "meta")
    said, finished = meta.get("strength"), meta.get("finished")
    if said not in (None, BOTH_BAD) and not (_is_number(said) and abs(said) <= columns.STRONGEST):
        raise Skip(f"'strength' is not a number from -{columns.STRONGEST} to {columns.STRONGEST}")
    if finished and not (
        isinstance(finished, list) and len(finished) == count and all(type(each) is bool for each in finished)
    ):
        raise Skip("'finished' is not true or false for each completion")
    return meta


def _ratings(row: Columns, count: int) -> dict[str, tuple[float | None, ...]]:
    ratings = _object(row, "ratings")
    for axis, given in ratings.items():
        if not isinstance(given, list) or len(given) != count or not all(v is None or _is_number(v) for v in given):
            raise Skip(f"'ratings' of '{axis}' are not one number or null for each completion")
    return {axis: tuple(given) for axis, given in ratings.items()}


def _targets(row: Columns, count: int) -> tuple[float, ...]:
    targets = row.get("targets") or []
    if not isinstance(targets, list) or not all(_is_number(value) and 0 <= value <= 1 for value in targets):
        raise Skip("'targets' are not numbers from 0 to 1")
    if len(targets) not in (0, count * (count - 1) // 2):
        raise Skip("'targets' are not one for each pair of completions")
    return tuple(targets)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _list(row: Columns, field: str) -> list[Any]:
    value = row.get(field)
    if not isinstance(value, list):
        raise Skip(f"'{field}' is not a list")
    return value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise Skip(f"'{field}' is not a text")
    return columns.encodable(value, field)


def _object(row: Columns, field: str) -> Mapping[str, Any]:
    """An object; tables hold it as text, since every row may have other keys."""
    value = row.get(field)
    if isinstance(value, str):
        try:
            value = strict_json.parse(value)
        except json.JSONDecodeError:
            raise Skip(f"'{field}' is not JSON") from None
        except ValueError as error:
            raise Skip(f"'{field}': {error}") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Skip(f"'{field}' is not an object")
    return columns.storable(value)
