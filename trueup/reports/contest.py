"""Models compared, on the page: rates with intervals, ratings, slices, what to know of the judge, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from . import standings, wording
from .charts import interval_chart
from .page import TEXT_LIMIT, both, marked
from .visible import clipped
from .wording import is_number

_HOW = {"won": "the first won", "lost": "the second won", "tied": "a tie", "unjudged": "no verdict"}


def contest(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of a run that compared models; None of any other, and of one that has no result."""
    result = told["result"]
    if told["stage"] != "winrate" or "models" not in result:
        return None
    names = standings.names_in(told)
    pairs = result.get("pairs") or ([{**result, "a": result["models"][0], "b": result["models"][1]}])
    pairs = [pair for pair in pairs if is_number(pair.get("value"))]
    return {
        "who": who_judged(result["judge"], names),
        "remarks": standings.remarks(result, names),
        "rates": _rates(pairs, names),
        "ratings": standings.rating_rows(result, names) if result.get("ratings") else [],
        "slices": [(_title(pair, names), _slices(pair)) for pair in pairs if pair["slices"]],
        "pairs": standings.pair_rows({"pairs": pairs}, names),
        "samples": _samples(told["meetings"], result["models"], names),
    }


def who_judged(judge: Mapping[str, Any], names: Mapping[str, str]) -> str:
    kind = judge.get("kind")
    if kind == "gold":
        return "Judged by the true score of the built-in world."
    if kind == "model":
        return f"Judged by the language model {names.get(judge['id'], judge['model'])}, asked in both orders."
    if kind == "verdicts":
        said = wording.listed([f"{n:,} {source}" for source, n in judge["sources"].items()])
        return f"Judged by {wording.counted(judge['judges'], 'judge')}: {said} judgements."
    return f"Judged by the score of {names.get(judge.get('id', ''), judge.get('id', 'a function'))}."


def _title(pair: Mapping[str, Any], names: Mapping[str, str]) -> str:
    return f"{standings.called(pair['a'], names)} over {standings.called(pair['b'], names)}"


def _rates(pairs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> object:
    """Each rate, and below it the same between answers of equal length."""
    rows = []
    for pair in pairs:
        equal = pair["length_controlled"]
        rows.append((_title(pair, names), pair["value"], *pair["ci"], pair["n"]))
        rows.append(("… at equal length", equal["value"], *equal["ci"], equal["n"]))
    return _intervals(rows, "Share of pairs won", 820) if rows else None


def _slices(pair: Mapping[str, Any]) -> object:
    rows = [
        (f"{one['kind']}: {clipped(one['name'], 40)}", one["value"], *one["ci"], one["n"]) for one in pair["slices"]
    ]
    return _intervals(rows, "In slices of the prompts", 640)


def _intervals(rows: Sequence[Any], title: str, wide: int) -> object:
    draw = partial(
        interval_chart, rows, title=title, x_label="pairs won (ties half), with 95% interval", reference_label="even",
        domain=(0, 1),
    )  # fmt: skip
    return both(draw, wide=wide)


def _samples(meetings: Mapping[str, Any], models: Sequence[str], names: Mapping[str, str]) -> dict[str, Any] | None:
    if not meetings["rows"]:
        return None
    rows = [_sample(row, models, names) for row in meetings["rows"]]
    counts = {kind: sum(kind in row["kinds"] for row in rows) for kind in _HOW}
    return {
        "of_all": meetings["of_all"],
        "rows": rows,
        "filters": [(kind, _HOW[kind], count) for kind, count in counts.items() if count],
    }


def _sample(row: Mapping[str, Any], models: Sequence[str], names: Mapping[str, str]) -> dict[str, Any]:
    kind = {1.0: "won", 0.0: "lost", 0.5: "tied", None: "unjudged"}[row["points"]]
    texts = [clipped(row[side], TEXT_LIMIT) for side in "ab"]
    entries = []
    for side, text, other, tag in (("a", *texts, "del"), ("b", *reversed(texts), "ins")):
        model = models[row["first" if side == "a" else "second"]]
        won = (kind, side) in (("won", "a"), ("lost", "b"))
        score = row.get(f"score_{side}")
        entries.append(
            {
                "who": standings.called(model, names) + (", better" if won else ""),
                "text": marked(text, other, tag),
                "measured": f"score {score:.2f}" if is_number(score) else row.get("why", ""),
            }
        )
    prompt = clipped(row["prompt"]["messages"][-1]["content"], TEXT_LIMIT)
    return {"prompt": prompt, "kinds": [kind], "entries": entries}
