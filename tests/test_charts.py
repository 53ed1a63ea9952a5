"""Charts as SVG text: true to the numbers, readable, and inert whatever stands in a name."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reports import PAYLOADS, Tags

from trueup.reports import Series, axes, histogram, interval_chart, line_chart


def svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.replace(' xmlns="http://www.w3.org/2000/svg"', ""))


def texts(chart: str) -> list[tuple[float, float, str]]:
    found = svg(chart).iter("text")
    return [(float(one.get("x", 0)), float(one.get("y", 0)), one.text or "") for one in found]


def points(line: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.get("points", "").split())]


def data_lines(chart: str) -> list[list[tuple[float, float]]]:
    return [points(line) for line in svg(chart).iter("polyline") if line.get("stroke-width") == "1.8"]


# --- axes ------------------------------------------------------------------------------------------------------------

ranges = st.tuples(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(ranges, st.integers(3, 8))
def test_ticks_are_round_evenly_spaced_and_few(bounds: tuple[float, float], target: int) -> None:
    low, high = bounds
    inside, around = axes.ticks(low, high, target), axes.ticks_around(low, high, target)
    slack = 1e-6 * (high - low)
    assert all(low - slack <= tick <= high + slack for tick in inside)
    assert around[0] <= low + slack and around[-1] >= high - slack
    assert set(inside) <= set(around) and len(inside) <= target + 1
    step = around[1] - around[0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - nice) for nice in (1, 2, 2.5, 5)) < 1e-3
    assert around == pytest.approx([around[0] + i * step for i in range(len(around))], abs=1e-6 * step * len(around))


def test_ticks_read_as_a_person_would_write_them() -> None:
    assert axes.tick_labels(axes.ticks(0, 1)) == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert axes.tick_labels(axes.ticks_around(-8.3, 1.0)) == [*(f"{axes.MINUS}{i}" for i in (10, 8, 6, 4, 2)), "0", "2"]
    assert axes.tick_labels(axes.ticks(0, 12_000, 4)) == ["0", "5,000", "10,000"]
    assert axes.tick_labels([0.0, 0.25, 0.5], percent=True) == ["0%", "25%", "50%"]
    assert axes.ticks(1, 4, 12, whole=True) == [1, 2, 3, 4]  # no half steps of training


def test_an_axis_without_width_gets_one() -> None:
    assert axes.extent([3.0, 3.0]) == pytest.approx((2.7, 3.3))
    assert axes.extent([0.0]) == (-0.5, 0.5)
    assert axes.extent([]) == (0, 1)
    assert axes.extent([math.nan, 1.0, math.inf, 2.0]) == (1, 2)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(10, 30)), max_size=8))
def test_spread_boxes_never_overlap_and_keep_their_order(boxes: list[tuple[float, int]]) -> None:
    wanted, heights = [y for y, _ in boxes], [float(h) for _, h in boxes]
    room = max(100.0, sum(heights))
    tops = axes.spread(wanted, heights, 0, room)
    order = sorted(range(len(boxes)), key=lambda i: tops[i])
    for above, below in pairwise(order):
        assert tops[above] + heights[above] <= tops[below] + 1e-6
        assert wanted[above] <= wanted[below]
    assert all(top >= -1e-6 and top + height <= room + 1e-6 for top, height in zip(tops, heights, strict=True))


def test_a_label_with_room_stands_at_its_line() -> None:
    assert axes.spread([20, 70], [10, 10], 0, 100) == [15, 65]


# --- charts ----------------------------------------------------------------------------------------------------------


def test_a_line_runs_through_its_numbers() -> None:
    """Oracle: where the axis labels say a value is."""
    chart = line_chart([Series("a", [10, 20, 30], [2, 4, 0])], "step", "nats", "Loss")
    x_at = {text: x for x, _, text in texts(chart) if text in ("10", "20", "30")}
    y_at = {text: y for _, y, text in texts(chart) if text in ("0", "2", "4")}
    (line,) = data_lines(chart)
    baseline = 12 * 0.35
    expected = [(x_at[str(x)], y_at[str(y)] - baseline) for x, y in ((10, 2), (20, 4), (30, 0))]
    for place, wanted in zip(line, expected, strict=True):
        assert place == pytest.approx(wanted, abs=0.2)
    assert line[1][1] < line[0][1] < line[2][1]  # up is more


def test_none_is_passed_over_and_nan_is_a_gap() -> None:
    steps = list(range(5))
    assert [len(run) for run in data_lines(line_chart([Series("a", steps, [1, None, 2, None, 3])], "", "", ""))] == [3]
    broken = data_lines(line_chart([Series("a", steps, [1, 2, math.nan, 3, 4])], "", "", ""))
    assert [len(run) for run in broken] == [2, 2]


def test_a_long_line_is_thinned_but_keeps_its_spike() -> None:
    values = [1.0] * 20_000
    values[12_345] = 9.0
    (line,) = data_lines(line_chart([Series("a", list(range(20_000)), values)], "step", "", ""))
    assert len(line) <= 300
    assert sum(y < min(line[0][1], line[-1][1]) - 50 for _, y in line) == 1


def test_a_band_encloses_its_line() -> None:
    chart = line_chart([Series("a", [0, 1], [2, 3], [1, 2], [3, 4])], "", "", "")
    (band,) = [points(one) for one in svg(chart).iter("polygon")]
    (line,) = data_lines(chart)
    high, low = band[:2], band[:1:-1]
    assert all(top[1] < middle[1] < bottom[1] for top, middle, bottom in zip(high, line, low, strict=True))


@pytest.mark.parametrize("width", [340, 470, 820])
def test_names_at_the_ends_never_overlap(width: int) -> None:
    series = [Series(f"method number {i}", [0, 1], [0, 1 + i / 1000]) for i in range(9)]
    chart = line_chart(series, "step", "points", "Nine lines that end together", [(1.0, "the ceiling")], width=width)
    named = sorted(y for x, y, text in texts(chart) if x > width * 0.6 and re.search("method|number|ceiling", text))
    assert len(named) >= 10
    assert named[0] >= next(y for _, y, text in texts(chart) if text == "points") + 12  # the plot grew; no name rose
    assert all(below - above >= 12 for above, below in pairwise(named))


@pytest.mark.parametrize("width", [340, 820])
def test_no_text_leaves_its_chart(width: int) -> None:
    series = [Series("an uncommonly long name for one line", [0, 12_000], [-1234.5, 0.5])]
    rows = [("an uncommonly long name for one comparison of two models", 0.5, 0.4, 0.6, 123_456)] * 2
    for chart in (
        line_chart(series, "step", "points", "A title that goes on for longer than a phone is wide", width=width),
        interval_chart(
            rows, reference_label="an even match", title="Wins", marks=[1.0, 1.0], mark_label="ceiling", width=width
        ),
        histogram([1, 2, 2, 3, 9.9], "gold", "Scores of some length, all in one title for once", width=width),
    ):
        root = svg(chart)
        for one in root.iter("text"):
            x, size = float(one.get("x", 0)), axes.text_width(one.text or "", float(one.get("font-size", 12)))
            left = x - {"start": 0, "middle": size / 2, "end": size}[one.get("text-anchor", "start")]
            assert left >= -1 and left + size <= width + 1, one.text
            assert 0 < float(one.get("y", 0)) <= float(root.get("height", 0))


def test_a_chart_says_what_it_shows_to_those_who_cannot_see_it() -> None:
    chart = line_chart([Series("RL", [0, 40], [1.5, 4.25])], "step", "points", "Gold score", [(5.4, "the most")])
    root = svg(chart)
    ids = (root.get("aria-labelledby") or "").split()
    assert root.get("role") == "img"
    assert [root.find("title").get("id"), root.find("desc").get("id")] == ids  # type: ignore[union-attr]
    assert root.findtext("title") == "Gold score"
    described = root.findtext("desc") or ""
    assert "RL: from 1.5 at 0 to 4.25 at 40" in described and "the most at 5.4" in described


def test_an_interval_lies_where_the_axis_says() -> None:
    chart = interval_chart([("RL vs SFT", 0.9, 0.8, 1.0, 300)], 0.5, domain=(0, 1), width=820)
    x_at = {text: x for x, _, text in texts(chart)}
    zero, one = x_at["0%"], x_at["100%"]
    (dot,) = svg(chart).iter("circle")
    assert float(dot.get("cx", 0)) == pytest.approx(zero + 0.9 * (one - zero), abs=0.2)
    (whisker,) = [line for line in svg(chart).iter("line") if line.get("stroke-width") == "2.4"]
    assert float(whisker.get("x1", 0)) == pytest.approx(zero + 0.8 * (one - zero), abs=0.2)
    assert float(whisker.get("x2", 0)) == pytest.approx(one, abs=0.2)
    (even,) = [line for line in svg(chart).iter("line") if line.get("stroke-dasharray")]
    assert float(even.get("x1", 0)) == pytest.approx((zero + one) / 2, abs=0.2)
    assert "90.0% [80.0, 100.0], n = 300" in x_at


def test_an_interval_that_was_not_measured_is_not_drawn() -> None:
    chart = interval_chart([("a", 0.9, None, None, 300)])
    assert not [line for line in svg(chart).iter("line") if line.get("stroke-width") == "2.4"]
    assert any(text == "90.0%, n = 300" for _, _, text in texts(chart))


def test_a_histogram_counts_every_value_once() -> None:
    values = [0.0, 0.5, 1.0, 1.0, 1.5, 2.0, math.nan]  # the last edge belongs to the last bin; NaN is no value
    chart = histogram(values, "gold", "Scores", bins=2, domain=(0, 2))
    heights = [float(bar.get("height", 0)) for bar in svg(chart).iter("rect")]
    assert heights == pytest.approx([65 if h == min(heights) else 130 for h in heights], rel=0.01) and len(heights) == 2
    assert heights[1] == 2 * heights[0]  # [0, 1) holds two, [1, 2] four
    assert {"mean 1 ± 0.57", "texts, of n = 6"} <= {text for _, _, text in texts(chart)}


def test_charts_without_data_say_so() -> None:
    assert "nothing was measured" in line_chart([Series("a", [], [])], "step", "nats", "Loss")
    assert "n = 0" in histogram([], "gold", "Scores")


def test_hostile_names_in_charts_stay_text() -> None:
    for payload in PAYLOADS:
        charts = line_chart([Series(payload, [0, 1], [0, 1])], payload, payload, payload, [(1, payload)])
        charts += interval_chart([(payload, 0.5, 0.4, 0.6, 1)], title=payload, x_label=payload)
        allowed = {"svg", "title", "desc", "text", "line", "polyline", "polygon", "circle", "rect"}
        assert {tag for tag, _ in Tags(charts).tags} <= allowed
        assert "\u202e" not in charts and "\ud800" not in charts
