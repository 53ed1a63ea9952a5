"""Models on one table, in words and rows: the same on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from . import standings, wording
from .charts import interval_chart
from .page import TEXT_LIMIT, both
from .visible import clipped
from .wording import is_number

Found = Mapping[str, Any]
# What stands in a row: key, heading, unit, whether it is a share; in the order in which it is read.
MEANS = (
    ("won", "won against the first", "pairs won, ties half", True),
    ("equal", "the same at equal length", "pairs won, ties half", True),
    ("score", "judge's score", "", False),
    ("kl", "KL to the reference", "nats a completion", False),
    ("words", "length", "words", False),
    ("repetition", "repeated", "runs of four words that a text had before", True),
    ("refused", "refused", "answers", True),
    ("surprise", "surprise of other text", "bits a byte", False),
    ("surprise_change", "more than the first", "bits a byte", False),
)
PLAIN = (
    ("distinct_2", "distinct pairs of words", True), ("distinct_3", "distinct threes", True),
    ("self_bleu", "self-BLEU", False), ("duplicates", "said before", True), ("unfinished", "did not end", True),
    ("tokens_sampled", "tokens sampled for an answer", False), ("cpu_seconds", "CPU time to make it*", False),
    ("wall_seconds", "time to make it*", False), ("tokens_behind", "tokens behind it*", False),
)  # fmt: skip


def columns(found: Found, names: Mapping[str, str]) -> list[str]:
    return ["", *(standings.called(each["model"], names) for each in found["models"])]


def rows(found: Found) -> list[list[str]]:
    """A measure a row, a model a column: there are few models, and many measures."""
    models, made = [_with_equal_length(each) for each in found["models"]], []
    for key, heading, unit, share in MEANS:
        if any(key in each or key in each.get("not_measured", {}) for each in models):
            cells = (_mean(each.get(key), share) or each.get("not_measured", {}).get(key, "") for each in models)
            made.append([_headed(heading, unit), *cells])
    for name in sorted({name for each in models for name in each.get("measures", ())}):
        made.append([name, *(_mean(each.get("measures", {}).get(name), False) for each in models)])
    for key, heading, share in PLAIN:
        if any(each.get(key) is not None for each in models):
            made.append([heading, *(_plain(key, each.get(key), share) for each in models)])
    return made


def _with_equal_length(model: Found) -> Found:
    equal = (model.get("won") or {}).get("length_controlled") or {}
    return {**model, "equal": equal} if equal.get("value") is not None else model


def sentence(found: Found, names: Mapping[str, str]) -> str:
    """Who won most against the first; without a judge, what was compared."""
    called = columns(found, names)[1:]
    rated = [(each["won"], name) for each, name in zip(found["models"], called, strict=True) if "won" in each]
    if not rated:
        return f"{wording.listed(called)} on {found['prompts']:,} prompts; nobody judged."
    best, name = max(rated, key=lambda one: float(one[0]["value"]))
    won = f"won {wording.percent(best['value'])} of {best['n']:,} pairs ({wording.percent_range(best['ci'])})"
    if best["verdict"] == "b":
        return f"None is better than {called[0]}: {name}, the best of the others, {won}."
    if best["verdict"] == "undecided":
        return f"Undecided against {called[0]}: {name}, the best of the others, {won}."
    how = "beyond chance, but undecided at equal length" if standings.only_by_length(best) else "beyond chance"
    return f"{name} did best against {called[0]}: it {won}, {how}."


def remarks(found: Found, names: Mapping[str, str]) -> list[str]:
    said = [f"{standings.called(each['model'], names)} {each['says']}." for each in found["findings"]]
    judge = found["judge"]
    if any(each.get("cpu_seconds") is not None for each in found["models"]):
        said.append("* Of the first all that went into it; of the others what went into them beyond that.")
    about = {"judge": judge, "findings": judge.get("findings", ()), "missing": judge.get("missing", {})}
    return said + standings.remarks({**about, "dropped": found["dropped"]}, names)


def section(told: Found) -> dict[str, Any] | None:
    """Of a run that put models on one table; None of any other, and of one without a result."""
    found = told["result"]
    if told["stage"] != "compare" or "models" not in found:
        return None
    names = standings.names_in(told)
    called = columns(found, names)[1:]
    drawn = []
    for key, heading, unit, share in MEANS:
        known = [
            (name, one[key]["value"], *(one[key]["ci"] or (None, None)), one[key]["n"] or 0)
            for name, one in zip(called, found["models"], strict=True)
            if is_number((one.get(key) or {}).get("value"))
        ]
        if known:
            drawn.append(_chart(key, known, _headed(heading, unit), share))
    return {
        "columns": columns(found, names),
        "rows": rows(found),
        "charts": drawn,
        "remarks": remarks(found, names),
        "samples": _samples(told["meetings"], called),
    }


def _chart(key: str, drawn: Sequence[Any], title: str, share: bool) -> object:
    even = {"won": 0.5, "surprise_change": 0.0}.get(key)
    draw = partial(
        interval_chart, drawn, even, title=wording.capital(title), x_label="with 95% interval", percent=share,
        reference_label="even" if key == "won" else "",
    )  # fmt: skip
    return both(draw, wide=640)


def _samples(answers: Found, called: Sequence[str]) -> dict[str, Any] | None:
    if not answers["rows"]:
        return None
    made = []
    for row in answers["rows"]:
        entries = [
            {
                "who": name,
                "text": clipped(answer["text"], TEXT_LIMIT),
                "measured": f"score {answer['score']:.2f}" if is_number(answer.get("score")) else "",
            }
            for name, answer in zip(called, row["answers"], strict=True)
        ]
        prompt = clipped(row["prompt"]["messages"][-1]["content"], TEXT_LIMIT)
        made.append({"prompt": prompt, "kinds": [], "entries": entries})
    return {"of_all": answers["of_all"], "rows": made, "filters": []}


def _headed(heading: str, unit: str) -> str:
    return f"{heading} ({unit})" if unit else heading


def _mean(one: Found | None, share: bool) -> str:
    if one is None:
        return ""
    if one.get("ci") is None:
        return f"{wording.number(one['value'])} ({one.get('how', 'no interval')})"
    if share:
        return f"{wording.percent(one['value'])} ({wording.percent_range(one['ci'])})"
    low, high = one["ci"]
    return f"{wording.number(one['value'])} ({wording.number(low)} to {wording.number(high)})"


def _plain(key: str, value: float | None, share: bool) -> str:
    if value is None:
        return ""
    if key in ("cpu_seconds", "wall_seconds"):
        return wording.duration(value)
    return wording.percent(value) if share else wording.number(value)
