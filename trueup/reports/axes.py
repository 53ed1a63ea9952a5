"""What a chart needs to know before it draws: round ticks, their labels, how wide a text will be, what must move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

FONT = 12  # px; charts are drawn at the size they are shown, so this is what a reader sees
MINUS = "\u2212"  # as wide as a plus, where a hyphen is easily overlooked
LINE = 15  # px from one line of text to the next


@dataclass(frozen=True, slots=True)
class Scale:
    """Linear, from data [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def step_size(span: float, target: int, *, whole: bool = False) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that cuts `span` into at most `target` steps."""
    raw = span / max(target, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    steps = [factor * power for factor in (1, 2, 2.5, 5, 10)]
    if whole:
        steps = [1.0, *(step for step in steps if step >= 1 and step == int(step)), 10 * power]
    return next(step for step in steps if step >= raw * (1 - 1e-9))


def ticks(low: float, high: float, target: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers inside [low, high]."""
    step = step_size(high - low, target, whole=whole)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [_clean(index * step) for index in range(first, last + 1)]


def ticks_around(low: float, high: float, target: int = 5) -> list[float]:
    """Round numbers of which the first is at or below `low` and the last at or above `high`."""
    step = step_size(high - low, target)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [_clean(index * step) for index in range(first, last + 1)]


def tick_labels(values: Sequence[float], *, percent: bool = False) -> list[str]:
    """All with the same number of decimals: as many as tell neighbours apart."""
    shown = [100 * value if percent else value for value in values]
    step = min((b - a for a, b in pairwise(shown)), default=abs(shown[0]) if shown else 1) or 1
    if max(map(abs, shown), default=0) >= 1e6 or step < 1e-4:
        return [f"{value:.3g}".replace("-", MINUS) for value in shown]
    decimals = next(d for d in range(6) if abs(round(step, d) - step) < 1e-6 * step or d == 5)
    return [f"{value:,.{decimals}f}".replace("-", MINUS) + ("%" if percent else "") for value in shown]


def extent(values: Sequence[float]) -> tuple[float, float]:
    """The range of the finite values; widened if it has no width, because an axis needs one."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    margin = abs(low) * 0.1 or 0.5
    return low - margin, high + margin


def text_width(text: str, size: float = FONT) -> float:
    """An estimate on the wide side, for any sans-serif: the reader's font is not known here."""
    return size * sum(_char_width(char) for char in text)


def wrapped(text: str, width: float, size: float = FONT) -> list[str]:
    """Lines of whole words, each at most `width` pixels; a word that is wider has a line to itself, shortened."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(shortened(word, width, size))
    return lines or [""]


def shortened(text: str, width: float, size: float = FONT) -> str:
    if text_width(text, size) <= width:
        return text
    widths = accumulate((size * _char_width(char) for char in text), initial=size * _char_width("…"))
    fitting = sum(1 for total in widths if total <= width) - 1
    return text[: max(fitting, 0)].rstrip() + "…"


def spread(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Tops of boxes centred as near as may be to `wanted`, in the same order from top to bottom, none overlapping.

    Pushed down where they collide, then up from the bottom edge: for the few labels of a chart that is enough.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    tops = [0.0] * len(wanted)
    edge = low
    for i in order:
        tops[i] = max(wanted[i] - heights[i] / 2, edge)
        edge = tops[i] + heights[i]
    edge = high
    for i in reversed(order):
        tops[i] = min(tops[i], edge - heights[i])
        edge = tops[i]
    return tops


def _clean(value: float) -> float:
    return float(f"{value:.12g}") + 0.0  # 0.30000000000000004 is not a round number, and -0.0 is 0


def _char_width(char: str) -> float:
    if char in "iljI.,:;|!'` ":
        return 0.32
    if char in "mwMW%@" or ord(char) > 0x2E7F:
        return 1.0
    if char in "+=<>~√…" or char == MINUS:
        return 0.86
    return 0.68 if char.isupper() else 0.58
