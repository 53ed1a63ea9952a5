"""Charts about judgements, from stored figures: plain data in, SVG text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .charts import Row, Series, interval_chart, line_chart


def learning_chart(found: Mapping[str, Any], *, width: int = 460) -> str:
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


def people_chart(judges: Sequence[Mapping[str, Any]], what: str, title: str, *, width: int = 460) -> str:
    """One figure of every judge who has it, with its interval: golds right, agreement with the others, first chosen."""
    rows: list[Row] = [
        (each["judge"], each[what]["value"], each[what].get("low"), each[what].get("high"), each[what]["n"])
        for each in judges
        if each.get(what)
    ]
    return interval_chart(rows, 0.5 if what == "position" else None, title=title, width=width) if rows else ""


def _means(points: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Size -> the mean accuracy of its trainings, smallest first."""
    by_size: dict[int, list[float]] = {}
    for point in points:
        by_size.setdefault(point["judgements"], []).append(point["accuracy"])
    return {size: sum(values) / len(values) for size, values in sorted(by_size.items())}
