"""Charts as SVG text: pure functions, no script, no font, nothing to load.

Colours are CSS variables with the light palette as fallback, so a page's dark mode reaches into them. The series
colours are those of Okabe and Ito, told apart by people with any common colour vision; the dash differs too, and
lines are named beside their ends rather than in a legend.
"""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard, TypeVar

from .axes import FONT, LINE, Scale, extent, shortened, spread, text_width, tick_labels, ticks, ticks_around, wrapped
from .visible import visible
from .wording import capital, number

INK, MUTED, GRID, PAPER = "var(--ink,#1c1b19)", "var(--muted,#66625c)", "var(--grid,#e4e0d8)", "var(--paper,#fff)"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
TITLE = 13.5
BOLD = 1.06  # times as wide
POINTS_DRAWN = 300  # about one a pixel; the rest could not be seen and would make the page heavy


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, points, and a band where there is an interval.

    None was not measured at that step and is passed over; NaN or infinity was measured, and is a gap in the line.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    dots: bool = False  # places that no line should join
    bars: bool = False  # an interval is a whisker of its point: for a line that may turn back

    def __post_init__(self) -> None:
        assert len(self.x) == len(self.y)
        assert (self.low is None) == (self.high is None)
        assert self.low is None or self.high is None or len(self.low) == len(self.high) == len(self.x)

    def band(self) -> list[tuple[float, float, float]]:
        if self.low is None or self.high is None:
            return []
        rows = zip(self.x, self.low, self.high, strict=True)
        return [(at, low, high) for at, low, high in rows if _is_number(low) and _is_number(high)]

    def values(self) -> list[float]:
        return [value for value in (*self.y, *(self.low or ()), *(self.high or ())) if _is_number(value)]


Row = tuple[str, float, float | None, float | None, int]
Point = TypeVar("Point", bound=tuple[float, ...])


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    title: str,
    reference_lines: Sequence[tuple[float, str]] = (),
    *,
    width: int = 340,
    height: int = 190,
    percent: bool = False,
    moments: Sequence[float] = (),
    key: str = "",
    note: str = "",
) -> str:
    """Lines with bands over one x axis. `height` is that of the plot; the words around it take what they need.

    `note` stands under the title: what is to be known where the chart stands alone.

    `moments` are places on the x axis at which something happened: a vertical line each. Where two charts of a page may
    be the same in every line, their `key` tells them apart.
    """
    drawn = [one for one in series if any(map(_is_number, one.y))]
    y_ticks = ticks_around(*extent([v for one in drawn for v in one.values()] + [y for y, _ in reference_lines]))
    y_names = tick_labels(y_ticks, percent=percent)
    names = [
        wrapped(label, width * 0.27) for label in [s.label for s in drawn] + [label for _, label in reference_lines]
    ]
    heights = [LINE * len(lines) for lines in names]

    head, top = _title(title, y_label, width, note)
    left = max(map(text_width, y_names)) + 8
    right = width - _room_for(names)
    bottom = top + max(height, sum(heights))
    x_values = [x for one in drawn for x in one.x]
    x = Scale(*extent(x_values), left, right)
    y = Scale(y_ticks[0], y_ticks[-1], bottom, top)

    body = [head, _y_grid(y, y_ticks, y_names, left, right), _x_axis(x, x_values, x_label, bottom, right)]
    body += [_reference(y(value), left, right) for value, _ in reference_lines]
    body += [_stroke(x(at), top, x(at), bottom, MUTED, 1, "2 2") for at in moments if x.low <= at <= x.high]
    body += [_band(one, x, y, index) for index, one in enumerate(drawn)]
    body += [_line(one, x, y, index) for index, one in enumerate(drawn)]
    ends = [_end(one, x, y) for one in drawn] + [(right, y(value)) for value, _ in reference_lines]
    tops = spread([end_y for _, end_y in ends], heights, top - LINE / 2, bottom + LINE / 2)
    for index, (end, box, lines) in enumerate(zip(ends, tops, names, strict=True)):
        body.append(_end_label(end, right, box, lines, index if index < len(drawn) else None) if any(lines) else "")
    if not drawn:
        body.append(_text((left + right) / 2, (top + bottom) / 2, "nothing was measured", MUTED, "middle"))
    return _svg(width, bottom + 40, title, _describe_lines(drawn, x_label, y_label, reference_lines, note), body, key)


def interval_chart(
    rows: Sequence[Row],
    reference: float | None = 0.5,
    *,
    title: str = "",
    x_label: str = "",
    reference_label: str = "",
    marks: Sequence[float | None] = (),
    mark_label: str = "",
    width: int = 340,
    percent: bool = True,
    domain: tuple[float, float] | None = None,
) -> str:
    """A dot with its whisker a row, lying down, and the numbers beside it.

    `marks[i]` is a bar of row i's own, such as its ceiling.
    """
    stacked = width < 480  # too narrow for label, plot and numbers beside each other
    numbers = [_numbers(row, percent) for row in rows]
    known = [v for row in rows for v in row[1:4] if _is_number(v)] + [v for v in (reference, *marks) if _is_number(v)]
    x_ticks = ticks_around(*(domain or extent(known)))
    x_names = tick_labels(x_ticks, percent=percent)
    label_width = 0 if stacked else min(max(text_width(row[0]) for row in rows), width * 0.3)
    numbers_width = 0 if stacked else max(map(text_width, numbers)) + 8
    left, right = label_width + text_width(x_names[0]) / 2, width - numbers_width - text_width(x_names[-1]) / 2
    x = Scale(x_ticks[0], x_ticks[-1], left, right)

    head, top = _title(title, "", width)
    named = [
        (at, name) for at, name in ((reference, reference_label), _first(marks, mark_label)) if name and _is_number(at)
    ]
    key, top = _key(x, named, top, width)
    step = 50 if stacked else 34
    bottom = top + step * len(rows) + 4
    body = [head, key, _x_names(x, x_ticks, x_names, bottom, x_label)]
    for index, row in enumerate(rows):
        middle = top + step * index + (34 if stacked else step / 2)
        above, below = (middle - 13, middle + 14) if stacked else (middle - step / 2, middle + step / 2)
        body += [_stroke(x(value), above, x(value), below, GRID) for value in x_ticks]
        body += [_stroke(x(reference), above, x(reference), below, INK, 1.2, "3 3")] if reference is not None else []
        mark = marks[index] if index < len(marks) else None
        body += [_mark(x(mark), middle)] if _is_number(mark) else []
        body += [_whisker(row, x, middle), _row_words(row[0], numbers[index], middle, label_width, stacked, width)]
    described = "; ".join(f"{row[0]}: {words}" for row, words in zip(rows, numbers, strict=True))
    return _svg(width, bottom + 40, title, described, body)


def histogram(
    values: Sequence[float],
    x_label: str,
    title: str,
    *,
    width: int = 340,
    height: int = 130,
    bins: int = 20,
    domain: tuple[float, float] | None = None,
    color: int = 0,
) -> str:
    """How often, in bins with round edges; the mean is marked, with its 95% interval.

    Give two charts the same `domain` to compare them.
    """
    finite = [value for value in values if _is_number(value)]
    edges = ticks_around(*(domain or extent(finite)), bins)
    counts = [0] * (len(edges) - 1)
    for value in finite:
        place = int((value - edges[0]) / (edges[1] - edges[0]) + 1e-9)
        counts[min(max(place, 0), len(counts) - 1)] += 1
    y_ticks = [tick for tick in ticks_around(0, max([*counts, 1]), 4) if tick == int(tick)]
    y_names = tick_labels(y_ticks)
    head, top = _title(title, f"texts, of n = {len(finite):,}", width)
    left, bottom = max(map(text_width, y_names)) + 8, top + height
    x, y = Scale(edges[0], edges[-1], left, width - 12), Scale(y_ticks[0], y_ticks[-1], bottom, top)
    body = [head, _y_grid(y, y_ticks, y_names, left, width - 12)]
    for edge, after, count in zip(edges, edges[1:], counts, strict=False):
        body.append(_bar(x(edge) + 0.5, x(after) - 0.5, y(count), bottom, color) if count else "")
    body.append(_x_axis(x, edges, x_label, bottom, width - 12))
    described = f"n = {len(finite)}"
    if finite:
        mean, words = _mean(finite)
        described += f", {words}"
        anchor = "end" if x(mean) + text_width(words) + 6 > width else "start"
        body.append(_stroke(x(mean), top - 4, x(mean), bottom, INK, 1.2, "3 3"))
        body.append(_text(x(mean) + (-5 if anchor == "end" else 5), top + 7, words, INK, anchor, halo=True))
    return _svg(width, bottom + 40, title, described, body)


def drawing(width: float, height: float, title: str, description: str, body: Sequence[str]) -> str:
    """A picture of another module's, with a name and a description for those who do not see it."""
    return _svg(width, height, title, description, body)


def label_of(first: str, second: str, x: float, y: float, width: float) -> str:
    """Two lines around a point, the second one quieter, as long as there is room."""
    above = _text(x, y - LINE / 2, shortened(first, width), INK, "middle")
    return above + _text(x, y + LINE / 2 + 1, shortened(second, width), MUTED, "middle")


# --- the parts -------------------------------------------------------------------------------------------------------


def _svg(width: float, height: float, title: str, description: str, body: Sequence[str], key: str = "") -> str:
    inner = "".join(body)
    name = (
        "c" + hashlib.sha256(f"{width}{key}{visible(title)}{inner}".encode()).hexdigest()[:10]
    )  # ids must differ within a page
    return (
        f'<svg class="chart" role="img" aria-labelledby="{name}t {name}d" viewBox="0 0 {_n(width)} {_n(height)}" '
        f'width="{_n(width)}" height="{_n(height)}" xmlns="http://www.w3.org/2000/svg" font-size="{FONT}" '
        f'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">'
        f'<title id="{name}t">{_escaped(title)}</title><desc id="{name}d">{_escaped(description)}</desc>{inner}</svg>'
    )


def _title(title: str, y_label: str, width: float, note: str = "") -> tuple[str, float]:
    """The title over what is to be noted over the y label, and where the plot may begin."""
    lines = wrapped(title, width, TITLE * BOLD) if title else []
    words = [
        f'<text x="0" y="{_n(14 + 17 * i)}" font-size="{TITLE}" font-weight="600" fill="{INK}">{_escaped(line)}</text>'
        for i, line in enumerate(lines)
    ]
    top = 17.0 * len(lines) + 4
    for line in wrapped(note, width) if note else ():
        words.append(_text(0, top + 8, line, MUTED))
        top += LINE
    if y_label:
        words.append(_text(0, top + 9, shortened(y_label, width), MUTED))
        top += 19
    return "".join(words), top + 10


def _y_grid(y: Scale, values: Sequence[float], names: Sequence[str], left: float, right: float) -> str:
    return "".join(
        _stroke(left, y(value), right, y(value), GRID) + _text(left - 6, y(value), name, MUTED, "end")
        for value, name in zip(values, names, strict=True)
    )


def _x_axis(x: Scale, values: Sequence[float], label: str, bottom: float, right: float) -> str:
    whole = all(float(value).is_integer() for value in values if math.isfinite(value))
    at = ticks(x.low, x.high, max(2, int((x.end - x.start) / 48)), whole=whole)
    marks = "".join(
        _stroke(x(value), bottom, x(value), bottom + 4, MUTED) + _text(x(value), bottom + 14, name, MUTED, "middle")
        for value, name in zip(at, tick_labels(at), strict=True)
    )
    return (
        _stroke(x.start, bottom, x.end, bottom, MUTED)
        + marks
        + _text((x.start + right) / 2, bottom + 31, shortened(label, right - x.start), MUTED, "middle")
    )


def _x_names(x: Scale, values: Sequence[float], names: Sequence[str], bottom: float, label: str) -> str:
    at = "".join(_text(x(value), bottom + 11, name, MUTED, "middle") for value, name in zip(values, names, strict=True))
    return at + _text((x.start + x.end) / 2, bottom + 29, shortened(label, x.end - x.start), MUTED, "middle")


def _band(one: Series, x: Scale, y: Scale, index: int) -> str:
    band = _thinned(one.band())
    if one.bars:
        return "".join(_upright(x(at), y(low), y(high), _color(index)) for at, low, high in band)
    if len(band) < 2:
        return ""
    upper = [f"{_n(x(at))},{_n(y(high))}" for at, _, high in band]
    lower = [f"{_n(x(at))},{_n(y(low))}" for at, low, _ in reversed(band)]
    return f'<polygon points="{" ".join(upper + lower)}" fill="{_color(index)}" opacity="0.16"/>'


def _upright(x: float, low: float, high: float, color: str) -> str:
    places = f'x1="{_n(x)}" y1="{_n(low)}" x2="{_n(x)}" y2="{_n(high)}"'
    return f'<line {places} stroke="{color}" stroke-width="1.2" opacity="0.4"/>'


def _line(one: Series, x: Scale, y: Scale, index: int) -> str:
    dash = f' stroke-dasharray="{DASHES[index % len(DASHES)]}"' if index % len(DASHES) else ""
    drawn = []
    for run in _runs(one):
        if len(run) == 1 or one.dots:
            drawn += [_dot(x(at), y(value), 2.5, _color(index)) for at, value in _thinned(run)]
            continue
        places = " ".join(f"{_n(x(at))},{_n(y(value))}" for at, value in _thinned(run))
        drawn.append(
            f'<polyline points="{places}" fill="none" stroke="{_color(index)}" stroke-width="1.8" '
            f'stroke-linejoin="round" stroke-linecap="round"{dash}/>'
        )
    return "".join(drawn)


def _end(one: Series, x: Scale, y: Scale) -> tuple[float, float]:
    at, value = _runs(one)[-1][-1]
    return x(at), y(value)


def _end_label(end: tuple[float, float], right: float, top: float, lines: Sequence[str], index: int | None) -> str:
    """A name to the right of the plot and a thin leader to the point it names. `index` is None for a reference."""
    middle = top + LINE * len(lines) / 2
    color = MUTED if index is None else _color(index)
    leader = (
        f'<polyline points="{_n(end[0])},{_n(end[1])} {_n(right + 4)},{_n(end[1])} {_n(right + 12)},{_n(middle)} '
        + (f'{_n(right + 19)},{_n(middle)}" fill="none" stroke="{color}" stroke-width="1" opacity="0.75"/>')
    )
    dot = "" if index is None else _dot(*end, 2.6, color)
    words = [
        _text(right + 22, top + LINE * (i + 0.5), line, MUTED if index is None else INK) for i, line in enumerate(lines)
    ]
    return leader + dot + "".join(words)


def _room_for(names: Sequence[Sequence[str]]) -> float:
    """The margin that the names at the ends of lines take."""
    widest = max((text_width(line) for lines in names for line in lines), default=0)
    return widest + 26 if widest else 12


def _reference(y: float, left: float, right: float) -> str:
    return _stroke(left, y, right, y, MUTED, 1.2, "3 3")


def _key(x: Scale, named: Sequence[tuple[float, str]], top: float, width: float) -> tuple[str, float]:
    """The names of the reference line and of the marks, over the plot at their place; and where the rows may begin."""
    drawn, taken = "", 0.0  # the right edge of what this line of names holds
    for value, name in sorted(named):
        half = text_width(name) / 2
        middle = min(max(x(value), half), width - half)
        if drawn and middle - half < taken + 8:
            top += LINE
        drawn += _text(middle, top + 3, name, MUTED, "middle")
        taken = middle + half
    return drawn, top + (14 if drawn else 0)


def _whisker(row: Row, x: Scale, middle: float) -> str:
    _, value, low, high, _ = row
    drawn = ""
    if _is_number(low) and _is_number(high):
        drawn = _stroke(x(low), middle, x(high), middle, _color(0), 2.4)
        drawn += "".join(_stroke(x(at), middle - 4, x(at), middle + 4, _color(0), 1.6) for at in (low, high))
    return drawn + (_dot(x(value), middle, 5, _color(0)) if _is_number(value) else "")


def _row_words(label: str, numbers: str, middle: float, label_width: float, stacked: bool, width: float) -> str:
    if stacked:
        name = shortened(label, width - text_width(numbers) - 12)
        return _text(0, middle - 22, name) + _text(width, middle - 22, numbers, INK, "end")
    lines = wrapped(label, label_width + 1)
    lines = lines if len(lines) <= 2 else [lines[0], shortened(" ".join(lines[1:]), label_width)]
    first = middle - LINE * (len(lines) - 1) / 2
    words = "".join(_text(0, first + LINE * i, line) for i, line in enumerate(lines))
    return words + _text(width, middle, numbers, INK, "end")


def _numbers(row: Row, percent: bool) -> str:
    """`91.2% [87.5, 94.1]  n = 300`"""
    _, value, low, high, n = row
    write: Callable[[float], str] = (lambda v: f"{100 * v:.1f}") if percent else number
    shown = write(value) + ("%" if percent else "") if _is_number(value) else "not measured"
    interval = f" [{write(low)}, {write(high)}]" if _is_number(low) and _is_number(high) else ""
    return f"{shown}{interval}, n = {n:,}"


def _mean(values: Sequence[float]) -> tuple[float, str]:
    """The mean, and in words with its 95% interval (normal, from the standard error) where two values allow one."""
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return mean, f"mean {number(mean)}"
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, f"mean {number(mean)} ± {1.96 * math.sqrt(variance / n):.2g}"


def _first(marks: Sequence[float | None], name: str) -> tuple[float | None, str]:
    return next((mark for mark in marks if _is_number(mark)), None), name


def _mark(x: float, middle: float) -> str:
    return _stroke(x, middle - 8, x, middle + 8, _color(1), 3)


def _bar(left: float, right: float, top: float, bottom: float, index: int) -> str:
    box = f'x="{_n(left)}" y="{_n(top)}" width="{_n(max(right - left, 0.5))}" height="{_n(bottom - top)}"'
    return f'<rect {box} fill="{_color(index)}" opacity="0.75"/>'


def _stroke(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    places = f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"'
    return f'<line {places} stroke="{color}" stroke-width="{_n(width)}"{dashes}/>'


def _dot(x: float, y: float, radius: float, color: str) -> str:
    return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{color}"/>'


def _text(x: float, y: float, text: str, color: str = INK, anchor: str = "start", *, halo: bool = False) -> str:
    """Text with its middle at height `y`. A halo keeps it readable over lines."""
    around = f' stroke="{PAPER}" stroke-width="4" paint-order="stroke"' if halo else ""
    at = f'x="{_n(x)}" y="{_n(y + FONT * 0.35)}"'
    return f'<text {at} fill="{color}" text-anchor="{anchor}"{around}>{_escaped(text)}</text>'


def _color(index: int) -> str:
    index %= len(OKABE_ITO)
    return f"var(--series-{index + 1},{OKABE_ITO[index]})"


def _escaped(text: str) -> str:
    return html.escape(visible(text))


def _n(value: float) -> str:
    """A coordinate: a tenth of a pixel is enough."""
    return f"{value:.1f}".removesuffix(".0")


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _runs(one: Series) -> list[list[tuple[float, float]]]:
    """The stretches of a line between gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in zip(one.x, one.y, strict=True):
        if _is_number(value) and _is_number(at):
            runs[-1].append((at, value))
        elif value is not None and runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most `POINTS_DRAWN`: of each bucket the lowest and the highest, so that no spike is lost."""
    if len(points) <= POINTS_DRAWN:
        return list(points)
    size = math.ceil(2 * len(points) / (POINTS_DRAWN - 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        bucket = range(start, min(start + size, len(points)))
        kept |= {min(bucket, key=lambda i: points[i][1]), max(bucket, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _describe_lines(
    series: Sequence[Series], x_label: str, y_label: str, reference_lines: Sequence[tuple[float, str]], note: str
) -> str:
    said = [f"{y_label} against {x_label}.", *([f"{capital(note)}."] if note else [])]
    for one in series:
        first, last = _runs(one)[0][0], _runs(one)[-1][-1]
        start, end = (f"{number(value)} at {number(at)}" for at, value in (first, last))
        said.append(f"{one.label}: from {start} to {end}.")
    return " ".join(said + [f"{label} at {number(value)}." for value, label in reference_lines])
