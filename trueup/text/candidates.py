"""Completions that wait to be judged, as a file holds them: those of a prompt in one row, or a row each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..records import Completion, Prompt
from . import columns
from .columns import Columns, Skip
from .parts import Part, together


@dataclass(frozen=True)
class Candidates:
    """All that was written for one prompt: a row of a completion set."""

    prompt: Prompt
    written: tuple[Completion, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt.to_json(),
            "completions": [completion.to_json(logprobs=True) for completion in self.written],
        }


def candidates(row: Columns) -> Candidates:
    return _of(columns.prompt(row, "prompt"), row)


def of_conversation(row: Columns) -> Candidates:
    return _of(columns.as_prompt(columns.messages(row, "messages"), columns.storable(row.get("meta"))), row)


def _of(prompt: Prompt, row: Columns) -> Candidates:
    return Candidates(prompt, tuple(Completion(prompt, **each) for each in row["completions"]))


def listed(where: str, row: Columns) -> Iterator[Part]:
    """The row with those of its completions that can be read; the others are named one by one."""
    given = row.get("completions")
    if not isinstance(given, list):
        yield where, Skip("missing 'completions'" if given is None else "'completions' is not a list")
        return
    places = [(f"{where} completion {number}", each) for number, each in enumerate(given, 1)]
    yield from _readable(where, row, places)


def same_prompt(rows: Sequence[tuple[str, Columns]]) -> Iterator[tuple[str, Columns]]:
    """Rows of one completion each as one row a prompt."""
    for group in together(rows, "prompt").values():
        first = group[0][1]
        yield group[0][0], {"prompt": first.get("prompt"), "category": first.get("category"), "written": group}


def one_each(where: str, row: Columns) -> Iterator[Part]:
    yield from _readable(where, row, row["written"])


def _readable(where: str, row: Columns, given: Sequence[tuple[str, Any]]) -> Iterator[Part]:
    good = []
    for place, each in given:
        try:
            good.append(_completion(each))
        except Skip as reason:
            yield place, reason
    if good or not given:
        yield where, {**row, "completions": good} if good else Skip("no completions")


def _completion(given: Any) -> dict[str, Any]:
    """The fields of a completion. An empty one stays: a model may have nothing to say."""
    if isinstance(given, str):
        return {"text": columns.encodable(given, "completion")}
    if not isinstance(given, Mapping):
        raise Skip("a completion is neither a text nor an object with a text")
    read: dict[str, Any] = {"text": _text(given), "model": columns.word(given, "model")}
    if given.get("finished") not in (None, ""):
        read["finished"] = columns.truth(given, "finished")
    if meta := columns.storable(given.get("meta")):
        read["meta"] = meta
    return read | {name: _numbers(given, name) for name in ("tokens", "logprobs") if given.get(name)}


def _text(given: Columns) -> str:
    if "text" in given and "completion" not in given:
        return columns.text(given, "text", empty=True)
    if isinstance(given.get("completion"), list):
        return columns.reply(columns.messages(given, "completion")[-1])
    return columns.text(given, "completion", empty=True)


def _numbers(given: Columns, field: str) -> tuple[Any, ...]:
    whole = field == "tokens"
    value = given[field]
    if not isinstance(value, list) or not all(
        type(each) is int or (not whole and type(each) is float) for each in value
    ):
        raise Skip(f"'{field}' is not a list of {'whole ' * whole}numbers")
    return tuple(value)
