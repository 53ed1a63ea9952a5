"""What objectives cost one another, as one HTML file from the JSON of `evals.tradeoff`, loading and running nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from . import wording
from .axes import MINUS
from .charts import Series, line_chart
from .page import both, environment, styles


def tradeoff_page(found: Mapping[str, Any], model: str, data: str) -> str:
    """`model` and `data` are what the two are called."""
    unit = "standard deviations" if found["config"]["scoring"]["normalise"] else "raw score"
    page = environment().overlay()
    page.filters = {**page.filters, "mean": mean}
    return page.get_template("tradeoff.html").render(
        css=styles("page.css"),
        model=model,
        data=data,
        basis=_basis(found),
        unit=unit,
        pairs=[_pair(each, number, unit) for number, each in enumerate(found["pairs"])],
    )


def mean(about: Mapping[str, Any]) -> str:
    """`+0.52 (+0.40 to +0.63)`"""
    return _signed(about["value"]) + (f" ({' to '.join(map(_signed, about['ci']))})" if about["ci"] else "")


def headline(pair: Mapping[str, Any]) -> str:
    """What one pair of objectives comes to, in two sentences."""
    conflict, ends = pair["conflict"], (pair["frontier"][-1], pair["frontier"][0])
    text = "No two completions of a prompt differ on both."
    if conflict["value"] is not None:
        text = (
            f"{pair['a']} and {pair['b']} put {conflict['value']:.1%} of the pairs in opposite orders "
            f"({wording.percent_range(conflict['ci'])})."
        )
    chosen = [
        f"by {name} alone is worth {_signed(end['a']['value'])} on {pair['a']} and {_signed(end['b']['value'])} on "
        f"{pair['b']}"
        for name, end in zip((pair["a"], pair["b"]), ends, strict=True)
    ]
    return f"{wording.capital(text)} The best {chosen[0]}; the best {chosen[1]}."


def _basis(found: Mapping[str, Any]) -> str:
    text = (
        f"{found['completions']:,} completions of {found['prompts']:,} prompts, {found['per_prompt']:g} of each in the "
        "middle. Of each prompt the best one is chosen, by other weights each time."
    )
    return text + (f" {found['alone']:,} prompts with a single completion were left out." if found["alone"] else "")


def _pair(pair: Mapping[str, Any], number: int, unit: str) -> dict[str, Any]:
    return {
        **pair,
        "id": f"pair-{number + 1}",
        "headline": headline(pair),
        "plane": _plane(pair, unit),
        "weights": _weights(pair, unit),
        "correlation": (
            f"Inside a prompt they correlate by {mean(pair['pearson'])}, by rank {mean(pair['spearman'])}."
        ),
    }


def _plane(pair: Mapping[str, Any], unit: str) -> Markup:
    kept = {name: [row for row in pair["floors"] if row["kept"] == name] for name in (pair["b"], pair["a"])}
    lines = [_line("by weights", pair["frontier"])]
    lines += [_line(f"{name} kept", sorted(rows, key=_of_a), band=False) for name, rows in kept.items()]
    lines += [_line("as set", [pair["chosen"]]), _line("any one", [pair["any"]])]
    title = f"{pair['b']} against {pair['a']}"
    draw = partial(line_chart, lines, f"{pair['a']}, {unit}", f"{pair['b']}, {unit}", title, height=260)
    return both(draw, wide=500)


def _weights(pair: Mapping[str, Any], unit: str) -> Markup:
    at = [row["weight"] for row in pair["frontier"]]
    lines = [_series(pair[side], at, [row[side] for row in pair["frontier"]]) for side in "ab"]
    draw = partial(line_chart, lines, f"weight of {pair['a']}", unit, "Both by weight", height=260)
    return both(draw, wide=500)


def _line(label: str, rows: Sequence[Mapping[str, Any]], *, band: bool = True) -> Series:
    """In the plane of the two objectives, with the interval of the one that points up."""
    return _series(label, [_of_a(row) for row in rows], [row["b"] for row in rows], band=band)


def _of_a(row: Mapping[str, Any]) -> float:
    return float(row["a"]["value"])


def _series(label: str, at: Sequence[float], rows: Sequence[Mapping[str, Any]], *, band: bool = True) -> Series:
    seen = [row["value"] for row in rows]
    if not band or any(row["ci"] is None for row in rows):
        return Series(label, at, seen)
    return Series(label, at, seen, [row["ci"][0] for row in rows], [row["ci"][1] for row in rows])


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)
