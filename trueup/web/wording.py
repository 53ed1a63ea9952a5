"""Answers and figures in words, for pages that people read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..records import Judgement

LETTERS = "ABCDEFGHI"  # what the judging page calls the texts, in the order of display
STRENGTHS = {1: "slightly better", 2: "better", 3: "much better"}
THUMBS = {1.0: "up", 0.0: "down", None: "unsure"}
DECISIONS = {"accept": "Decided", "requeue": "More people were asked", "ambiguous": "Called ambiguous"}
DURATIONS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def said(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a person answered as (what, words), by the letters that the texts had on their screen."""
    lines = [(name, words(answer[key])) for key, (name, words) in _ANSWERS.items() if key in answer]
    for axis, given in answer.get("ratings", {}).items():
        lines.append((axis, _places(given)))
    if answer.get("rationale"):
        lines.append(("Reason", str(answer["rationale"])))
    return lines + _flags(answer.get("flags") or {})


def vote(judgement: Judgement) -> list[tuple[str, str]]:
    """What somebody said as (what, words), by the letters of the item's own order, whatever order they saw.

    The first line is what they chose. In their own words the letters are those of their screen, which is said.
    """
    meta = judgement.meta
    answer = meta.get("answer") or {}
    lines = [("", _chosen(judgement))]
    for axis, given in judgement.ratings.items():
        lines.append((axis, _places([_rated(axis, each) for each in given])))
    if "edit" in meta:
        lines.append((f"Rewrote {LETTERS[meta['edit']['of']]}", judgement.completions[-1]))
    if answer.get("chips"):
        lines.append(("Reasons", ", ".join(answer["chips"])))
    if answer.get("rationale"):
        lines.append(("Reason" + _as_seen(meta.get("order") or ()), str(answer["rationale"])))
    return lines + _flags(meta.get("flags") or {})


def flagged(judgement: Judgement) -> str:
    """What somebody flagged about an item, and in which words; empty where they flagged nothing."""
    flags = _flags(judgement.meta.get("flags") or {})
    reason = (judgement.meta.get("answer") or {}).get("rationale")
    said = "; ".join(f"{what[0].lower()}{what[1:]}: {words}" for what, words in flags)
    return f"{said}. {reason}" if said and reason else said


def decided(ranks: Sequence[int]) -> str:
    """An answer that was accepted, in words."""
    if len(ranks) != 2:
        return _places(list(ranks))
    return "equally good" if ranks[0] == ranks[1] else f"{LETTERS[ranks[0] > ranks[1]]} is better"


def lasting(hours: float) -> str:
    """How long something takes, as exactly as one can know it."""
    for length, name in ((48, "day"), (1.5, "hour"), (0, "minute")):
        if hours >= length:
            return "about " + counted(max(1, round(hours / _HOURS[name])), name)
    raise AssertionError(hours)


def measure(found: Mapping[str, Any] | None, *, percent: bool = False) -> str:
    """A figure with its interval and n; where it is undefined, why."""
    if not found:
        return "–"
    if found.get("value") is None:
        return str(found.get("why") or found.get("message") or "–")
    shown = _number(found["value"], percent)
    if found.get("low") is not None and found.get("high") is not None:
        shown += f" ({_number(found['low'], percent)} to {_number(found['high'], percent)})"
    n = found.get("n_items", found.get("n"))
    return shown if n is None else f"{shown}, n = {n:,}"


def rating(found: Mapping[str, Any]) -> str:
    """Of a model, in whole points with its interval."""
    value, low, high = (None if found[end] is None else f"{found[end]:,.0f}" for end in ("value", "low", "high"))
    interval = f" ({low}\u00a0to\u00a0{high})" if low else ""
    return f"{value}{interval}, n\u00a0=\u00a0{found['n']:,}"


def ago(seconds: float) -> str:
    for length, name in DURATIONS:
        if seconds >= length:
            return f"{counted(int(seconds // length), name)} ago"
    return "just now"


def counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _number(value: float, percent: bool) -> str:
    shown = f"{100 * value:.0f}%" if percent else f"{value:.3g}" if abs(value) >= 10 else f"{value:.2f}"
    return shown.replace("-", "\u2212")


def _chosen(judgement: Judgement) -> str:
    """Of a pair with its strength; of what was only rewritten nothing but that is known."""
    strength = judgement.meta.get("strength")
    if strength is not None:
        return _choice(strength)
    if "edit" in judgement.meta and len(judgement.ranks) == 2:
        return "rewritten"
    return decided(judgement.ranks) if len(judgement.ranks) > 1 else "–"


def _rated(axis: str, value: float | None) -> str:
    if axis == "thumb":
        return THUMBS[value]
    return "–" if value is None else f"{value:g}"


def _as_seen(order: Sequence[int]) -> str:
    """Where somebody's letters were others than those of this page: which were theirs."""
    if list(order) == sorted(order):
        return ""
    if len(order) == 2:
        return " (with A and B the other way round)"
    theirs = ", ".join(f"{LETTERS[place]} was our {LETTERS[index]}" for place, index in enumerate(order))
    return f" (on their screen {theirs})"


def _choice(choice: int | str) -> str:
    if choice == "both bad":
        return "both bad"
    if choice == 0:
        return "equally good"
    assert isinstance(choice, int)
    return f"{LETTERS[choice > 0]} is {STRENGTHS[abs(choice)]}"


def _places(values: list[Any]) -> str:
    return ", ".join(f"{letter}: {value}" for letter, value in zip(LETTERS, values, strict=False))


def _flags(flags: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [("Flags of the prompt", ", ".join(flags.get("prompt") or []))]
    for letter, given in zip(LETTERS, flags.get("completions") or [], strict=False):
        lines.append((f"Flags of {letter}", ", ".join(given)))
    return [line for line in lines if line[1]]


_HOURS = {"day": 24.0, "hour": 1.0, "minute": 1 / 60}
_ANSWERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "choice": ("Choice", _choice),
    "ranks": ("Places", _places),
    "thumbs": ("Thumbs", _places),
    "chips": ("Reasons", ", ".join),
    "edited": ("Rewritten", lambda place: LETTERS[place]),
    "text": ("New text", str),
}
