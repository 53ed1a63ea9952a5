"""Answers and figures in words, for pages that people read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LETTERS = "ABCDEFGHI"  # what the judging page calls the texts, in the order of display
STRENGTHS = {1: "slightly better", 2: "better", 3: "much better"}
DURATIONS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def said(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a person answered as (what, words), by the letters that the texts had on their screen."""
    lines = [(name, words(answer[key])) for key, (name, words) in _ANSWERS.items() if key in answer]
    for axis, given in answer.get("ratings", {}).items():
        lines.append((axis, _places(given)))
    if answer.get("rationale"):
        lines.append(("Reason", str(answer["rationale"])))
    return lines + _flags(answer.get("flags") or {})


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


_ANSWERS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "choice": ("Choice", _choice),
    "ranks": ("Places", _places),
    "thumbs": ("Thumbs", _places),
    "chips": ("Reasons", ", ".join),
    "edited": ("Rewritten", lambda place: LETTERS[place]),
    "text": ("New text", str),
}
