"""Over-optimisation in a sentence and in a picture, from what `evals.overopt` found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .charts import Series, line_chart


def verdict(found: Mapping[str, Any]) -> str:
    """What to ship, and whether the score was gamed; with its n."""
    ship, judge = found["ship"], found["judge"]
    about = found["curves"][judge]
    what = "the best of {step:,} (up to {last:,})" if found["way"] == "best-of-n" else "step {step:,} of {last:,}"
    where = f"{what.format(**ship)}, n = {about['n']:,} prompts"
    if judge == "proxy":
        return f"nobody but the score itself judges here; it is highest at {where}: give a --judge"
    words = f"ship {where}: {judge} is highest there, {about['peak']['value']:.3g}"
    if ship["fell"]:
        words += f" and {-about['fallen']['value']:.3g} lower at the end (chance {about['fallen']['chance']:.2g})"
    elif ship["step"] != ship["last"]:
        words += "; that it fell afterwards may be chance"
    if ship["gamed"]:
        words += ", while the score went on rising: it is being gamed"
    if found["shipped"] is not None and found["shipped"] != ship["step"]:
        words += f". The run ships step {found['shipped']:,}"
    return words


def earlier_was_better(found: Mapping[str, Any]) -> str:
    """Where the judge's score fell: as somebody is told who wanted to ship the end."""
    ship, about = found["ship"], found["curves"][found["judge"]]
    what = (
        f"the start, before step 1 of {ship['last']:,},"
        if ship["step"] == 0
        else "step {step:,} of {last:,}".format(**ship)
    )
    gamed = ", while the score it was paid for went on rising: it is being gamed" if ship["gamed"] else ""
    judge = "the true score (gold)" if found["judge"] == "gold" else f"'{found['judge']}'"
    return (
        f"{what[0].upper()}{what[1:]} was better: {judge} is {about['peak']['value']:.3g} there and "
        f"{-about['fallen']['value']:.3g} lower at the end (n = {about['n']:,} prompts){gamed}."
    )


def how_to_ship(found: Mapping[str, Any]) -> str:
    """Where that is another step than the run ships; empty where there is nothing to do."""
    run, step, kept = found["run"], found["ship"]["step"], found["kept"]
    if found["way"] == "best-of-n" or found["judge"] == "proxy" or found["shipped"] == step:
        return ""
    if step == 0:
        return "keep what it started from"
    if step in kept:
        return f"make a model of it: trueup runs ship {run}@{step} --name NAME"
    return (
        f"no weights of step {step:,} are kept: train again with --set run.keep_weights=true, then "
        f"trueup runs ship RUN@{step}"
    )


def overopt_chart(found: Mapping[str, Any], *, width: int = 340) -> str:
    """Every score in its own standing: 0 at the first evaluation, 1 at its highest mean, so that they share an axis."""
    lines = []
    for name, curve in found["curves"].items():
        start, span = curve["mean"][0], max(map(abs, (m - curve["mean"][0] for m in curve["mean"]))) or 1.0
        y, low, high = ([(value - start) / span for value in curve[key]] for key in ("mean", "low", "high"))
        at = [found["distance"][place] for place in curve["places"]]
        lines.append(Series(name, at, y, low, high))
    counts = sorted({curve["n"] for curve in found["curves"].values()})
    n = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    label = f"share of the largest gain, n = {n} prompts, 95% interval"
    return line_chart(lines, "√KL from the start, √nats", label, "What the score was worth", width=width)
