"""Cells of CSV files, which are texts: what lists and objects become there, and what spreadsheets must not run.

A list or an object is its JSON. A text that a spreadsheet would run as a formula, or that would be read back as a list
of messages, gets a quote mark in front; a file of trueup's own loses these marks when it is read, so that nothing is
lost on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from . import strict_json

_FORMULA = re.compile(r"[=+\-@\t\r\n]")
# Columns that hold lists or objects in every shape that has them.
_NESTED = frozenset(
    ("completions", "ranks", "ratings", "targets", "meta", "messages", "instances", "info", "summaries", "extra")
    + ("answers", "metadata", "all_preferences_unprocessed", "individual_preference", "category")
)
# Columns that hold a text, or a conversation: only JSON with roles in it is one.
_EITHER = frozenset(("prompt", "chosen", "rejected", "completion", "context"))


class Cell(str):
    """An empty cell, or one that may stand for a list or an object."""

    __slots__ = ()


def guarded(value: Any) -> Any:
    """What is written into a cell. Numbers stay numbers."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return f"'{value}" if isinstance(value, str) and _takes_mark(value) else value


def read(cell: str, *, marked: bool) -> str:
    """A cell as it was before it was guarded; only a file that was written so (`marked`) has marks to lose."""
    if marked and cell.startswith("'") and _takes_mark(cell[1:]):
        return cell[1:]
    return Cell(cell) if cell[:1] in ("", "[", "{") else cell


def unpacked(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with the lists and objects that its cells stand for, where its columns hold such."""
    found = {name: _unpacked(name, value) for name, value in row.items() if isinstance(value, Cell)}
    return {**row, **found} if found else row


def _unpacked(name: str, cell: Cell) -> Any:
    if name in _NESTED:
        return None if not cell else _value(cell, cell)
    if name in _EITHER and cell and _is_conversation(value := _value(cell, None)):
        return value
    return str(cell)


def _takes_mark(text: str) -> bool:
    """Also a text that has such a mark itself: else it would lose it on the way back."""
    bare = text.lstrip("'")
    return bool(_FORMULA.match(bare)) or (bare.startswith(("[", "{")) and _is_conversation(_value(bare, None)))


def _value(text: str, otherwise: Any) -> Any:
    """The list or object that a text is the JSON of."""
    try:
        value = strict_json.parse(text)
    except ValueError:
        return otherwise
    return value if isinstance(value, list | dict) else otherwise


def _is_conversation(value: Any) -> bool:
    """Messages, a prompt as trueup writes it, or the first message of a tree."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(each, Mapping) and "role" in each for each in value)
    return isinstance(value, Mapping) and ("messages" in value or "role" in value)
