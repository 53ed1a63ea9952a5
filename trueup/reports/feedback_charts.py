"""Charts about judgements, from stored figures: plain data in, SVG text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .charts import Row, Series, interval_chart, line_chart

WIDTH = 360  # as wide as a phone: words in a chart that is made smaller cannot be read


def learning_chart(found: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Accuracy against judgements: the fitted curve with its band, the mean of each size, and the prediction."""
    band = found["band"]
    measured = _means(found["points"])
    fitted = Series(
        "fitted",
        [row[0] for row in band],
        [row[1] for row in band],
        [row[2] for row in band],
        [row[3] for row in band],
    )
    seen = Series("measured", list(measured), list(measured.values()))
    title = f"Held-out accuracy, n = {found['heldout_pairs']:,} pairs"
    limit = [(found["fit"]["limit"], "limit")] if found["fit"]["limit"] - band[-1][3] < 0.1 else []
    return line_chart([fitted, seen], "judgements trained on", "accuracy", title, limit, width=width, percent=True)


def people_chart(judges: Sequence[Mapping[str, Any]], what: str, title: str, *, width: int = WIDTH) -> str:
    """One figure of every judge who has it, with its interval: golds right, agreement with the others, first chosen."""
    rows: list[Row] = [
        (each["judge"], each[what]["value"], each[what].get("low"), each[what].get("high"), each[what]["n"])
        for each in judges
        if each.get(what)
    ]
    return interval_chart(rows, 0.5 if what == "position" else None, title=title, width=width) if rows else ""


def undecided_chart(tenths: Sequence[Mapping[str, Any]], *, width: int = WIDTH) -> str:
    """How often nobody was clearly better, over the judgements in order of time, with its band."""
    shares = [each["value"] for each in tenths]
    low, high = ([each[end] for each in tenths] for end in ("low", "high"))
    line = Series("ties, or nearly", [each["last"] for each in tenths], shares, low, high)
    return line_chart(
        [line], "judgements, in time", "share of judgements", "Nobody clearly better", width=width, percent=True
    )


def ratings_chart(rated: Sequence[Mapping[str, Any]], title: str, *, width: int = WIDTH) -> str:
    """Ratings of the models that met one another, with their intervals; 1000 is their mean."""
    rows: list[Row] = [(each["model"], each["value"], each["low"], each["high"], each["n"]) for each in rated]
    return interval_chart(rows, 1000.0, title=title, width=width, percent=False)


def _means(points: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Mean number of judgements -> mean accuracy, of the trainings at each share."""
    by_share: dict[float, list[Mapping[str, Any]]] = {}
    for point in points:
        by_share.setdefault(point["share"], []).append(point)
    groups = (by_share[share] for share in sorted(by_share))
    return {round(_mean(group, "judgements")): _mean(group, "accuracy") for group in groups}


def _mean(points: Sequence[Mapping[str, Any]], key: str) -> float:
    return sum(float(point[key]) for point in points) / len(points)
