"""The charts of a run: its metrics over the steps and against √KL, alone or beside those of other runs.

Each says its unit, of how many it is a mean where that is known, and what its band is, so that it can be read by itself
in a file of its own. What was logged as a bare number has no band: nothing is left to compute one from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from .charts import Series, line_chart
from .page import METRICS, METRICS_OF
from .wording import capital, is_number

Told = Mapping[str, Any]  # what `reporting.about` says of a run
Columns = Mapping[str, Sequence[Any]]

POINTS = 300  # steps drawn one by one; of more, each point is the mean of as many steps as it takes
TURNS = ("rollback", "stop", "kept")  # kinds of event that are drawn into the curves
FIRST = ("score", "gold", "kl", "length", "loss", "completion_loss", "accuracy", "reward", "entropy", "value_explained")
ROLLOUTS, HELDOUT = "rollouts", "held out"
INTERVAL = "band: 95% interval"
LOGGED = "as logged"  # the unit of what no list here knows, such as somebody's own scorer
NO_MEAN = ("kl_coefficient", "updates", "multiplier_")  # what these begin is set or counted: no mean of so and so many
ROWS = {"pretrain": "prompts", "sft": "demonstrations", "reward": "prompts", "kto": "prompts", "ilql": "prompts"}


@dataclass(frozen=True)
class Chart:
    """A line chart before it is drawn: as SVG on the page, as either in a file."""

    lines: Sequence[Series]
    x_label: str
    y_label: str
    title: str
    percent: bool = False
    moments: Sequence[float] = ()
    run: str = ""  # whose it is
    note: str = ""  # n, and what the band is

    def svg(self, width: int = 340) -> str:
        words = self.x_label, self.y_label, self.title
        more: dict[str, Any] = {"percent": self.percent, "moments": self.moments, "key": self.run, "note": self.note}
        return line_chart(self.lines, *words, width=width, **more)


def charts_of(told: Told) -> Iterator[tuple[str, Chart]]:
    """(name for a file, chart): curves of the metrics, spread over time, and score against KL."""
    metrics = told["metrics"]
    steps = metrics.get("step") or []
    moments = [event["step"] for event in told["events"] if event["kind"] in TURNS and "step" in event]
    plain = [name for name in metrics if name != "step" and not name.startswith("heldout_")]
    alone = [name for name in metrics if name.startswith("heldout_") and name.removeprefix("heldout_") not in plain]
    for metric in in_order(plain + alone):
        drawn = _lines(told, metric)
        lines = [line for line, _ in drawn]
        if sum(len(line.x) for line in lines) < 2 or (metric not in FIRST and _flat(lines)):
            continue
        note = _noted(_n_of(told, metric), _held_n(told, metric), *_bands(drawn))
        yield metric, _of_metric(metric, lines, told, note, moments)
    for metric, title in (("score", "Scores of completions"), ("length", "Lengths of completions")):
        if (spread := told["rollouts"].get(metric)) and len(spread["step"]) > 1:
            fan = Series("", spread["step"], spread["p50"], spread["p10"], spread["p90"])
            note = _noted(f"n = {_counts(spread)} a step", "line: median", "band: middle 80%")
            yield f"spread-{metric}", Chart([fan], "step", METRICS[metric][1], title, run=told["id"], note=note)
    if len(steps) > 1 and metrics.get("kl") and metrics.get("score"):
        for metric in ("score", "gold"):
            if metric in metrics:
                yield f"against-{metric}", _against_kl(told, metric)


def curves_together(runs: Sequence[Told], labels: Sequence[str]) -> list[Markup]:
    """Metrics that at least two of the runs have, each in one chart."""
    drawn = []
    every = dict.fromkeys(name for told in runs for name in told["metrics"] if name != "step")
    for metric in in_order(list(every)):
        found = [
            (label, told, _banded(label, points, _kept(told, metric)))
            for label, told in zip(labels, runs, strict=True)
            if len(points := _known(told["metrics"].get("step") or [], told["metrics"].get(metric) or [])) > 1
        ]
        if len(found) > 1:
            held = metric.startswith("heldout_")
            each = [(label, (_held_n if held else _n_of)(told, metric)) for label, told, _ in found]
            note = _noted(*_n_beside(each), *_bands([line for _, _, line in found]))
            drawn.append(Markup(_of_metric(metric, [line for _, _, (line, _) in found], runs[0], note).svg()))
    return drawn


def curves_note(told: Told) -> str:
    steps = len(told["metrics"].get("step") or [])
    words = ["One run of one seed, as logged: the spread between seeds is not in these lines."]
    if steps > POINTS:
        words.append(f"Each point is the mean of {math.ceil(steps / POINTS)} steps, the band their middle 80%.")
    elif told["rollouts"]:
        words.append("A band or whisker is the 95% interval of a mean, over prompts.")
    if steps:
        without = "A line without one was" if steps > POINTS or told["rollouts"] else "These lines were"
        words.append(f"{without} logged as bare numbers: no interval was kept.")
    if told["rollouts"]:
        words.append("Of scores and lengths of completions: the median, and the middle 80%.")
    if any(event["kind"] in TURNS for event in told["events"]):
        words.append("Upright lines are rollbacks and stops.")
    return " ".join(words)


def in_order(metrics: Sequence[str]) -> list[str]:
    """What one looks at first stands first."""
    return sorted(metrics, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


# --- words -----------------------------------------------------------------------------------------------------------


def named(metric: str, stage: str = "") -> tuple[str, str, bool]:
    """Name, unit, and whether the axis is in percent; of an evaluation that stands alone, the name says so."""
    known = METRICS_OF.get((stage, metric)) or METRICS.get(metric)
    if known:
        return known
    plain = metric.removeprefix("heldout_")
    name, unit, percent = METRICS_OF.get((stage, plain)) or METRICS.get(plain) or _unlisted(plain)
    return f"{name}, held out" if plain != metric else name, unit, percent


def _unlisted(metric: str) -> tuple[str, str, bool]:
    """Parts of a scorer and prices of floors are called as somebody named them."""
    unit = {"score": "score", "judge": "score", "multiplier": "score a unit"}.get(metric.partition("_")[0], LOGGED)
    return metric.replace("_", " "), unit, False


def _of_metric(metric: str, lines: Sequence[Series], told: Told, note: str, moments: Sequence[float] = ()) -> Chart:
    name, unit, percent = named(metric, told["stage"])
    return Chart(lines, "step", unit, capital(name), percent, moments, told["id"], note)


def _noted(*words: str) -> str:
    return "; ".join(filter(None, words))


def _bands(drawn: Iterable[tuple[Series, str]]) -> list[str]:
    """What the bands are, each kind once."""
    return list(dict.fromkeys(words for _, words in drawn if words))


def _n_of(told: Told, metric: str) -> str:
    """Of how many completions, or rows, a step's number is made. Where nobody knows, nothing is said."""
    if metric.startswith("heldout_") or metric.startswith(NO_MEAN):
        return ""
    config, kept = told["config"], told["rollouts"]
    if kept:
        return f"n = {_counts(kept.get(metric) or next(iter(kept.values())))} a step"
    prompts = config.get("prompts_per_step") or config.get("batch_size")
    each = config.get("samples_per_prompt")
    if prompts and each and told["stage"] == "rl":
        return f"n = {prompts * each:,} of {prompts:,} prompts a step"
    return f"n = {prompts:,} {ROWS.get(told['stage'], 'prompts')} a step" if prompts else ""


def _held_n(told: Told, metric: str) -> str:
    """Prompts of an evaluation, if the metric was measured at any."""
    plain = metric.removeprefix("heldout_")
    if f"heldout_{plain}" not in told["metrics"]:
        return ""
    words = "n =" if metric != plain else "held out:"
    if kept := told["evaluations"]:
        return f"{words} {_counts(kept.get(plain) or next(iter(kept.values())))}"
    prompts = told["start"].get("prompts")
    return f"{words} {prompts:,} prompts" if is_number(prompts) else ""


def _n_beside(each: Sequence[tuple[str, str]]) -> list[str]:
    """Said once if it is the same for all."""
    if len({words for _, words in each}) == 1:
        return [each[0][1]]
    return [f"{label}: {words or 'n unknown'}" for label, words in each]


def _counts(kept: Columns) -> str:
    """`128 of 16 prompts`, or `64 prompts` where each was answered once."""
    n, prompts = _range(kept["n"]), _range(kept["prompts"])
    return f"{prompts} prompts" if n == prompts else f"{n} of {prompts} prompts"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


# --- lines -----------------------------------------------------------------------------------------------------------


def _flat(lines: Sequence[Series]) -> bool:
    """What never changed needs no picture: its number stands in the table."""
    return len({y for line in lines for y in line.y}) == 1


def _kept(told: Told, metric: str) -> Columns | None:
    """What the kept completions say of a metric at each step."""
    plain = metric.removeprefix("heldout_")
    found: Columns | None = told["evaluations" if plain != metric else "rollouts"].get(plain)
    return found


def _lines(told: Told, metric: str) -> list[tuple[Series, str]]:
    """A metric over the steps; beside it the same of evaluations, from before the first step on. Each with what its
    band is, in words."""
    metrics = told["metrics"]
    held = metric if metric.startswith("heldout_") else f"heldout_{metric}"
    evaluated = _known(metrics["step"], metrics.get(held) or [])
    if evaluated and is_number(told["start"].get(held)):
        evaluated.insert(0, (0, told["start"][held]))
    lines = []
    if metric != held and (points := _known(metrics["step"], metrics[metric])):
        name = ROLLOUTS if told["rollouts"] else "training"
        lines.append(_banded(name if evaluated else "", points, _kept(told, metric)))
    if evaluated:
        lines.append(_banded(HELDOUT if lines else "", evaluated, _kept(told, held)))
    return lines


def _banded(name: str, points: Sequence[tuple[float, float]], kept: Columns | None) -> tuple[Series, str]:
    """With the interval of the mean where completions were kept; of many steps, their mean and middle 80%."""
    if len(points) > POINTS:
        size = math.ceil(len(points) / POINTS)
        return _binned(name, points), f"point: mean of {size} steps; band: their middle 80%"
    x, y = [step for step, _ in points], [value for _, value in points]
    low, high = _ends(kept, x)
    line = Series(name, x, y, low, high)
    return (line, INTERVAL) if line.band() else (Series(name, x, y), "")


def _ends(kept: Columns | None, steps: Sequence[float]) -> tuple[list[Any], list[Any]]:
    """Both ends of the interval at each of these steps, None where there is none."""
    found = zip(kept["step"], kept["low"], kept["high"], strict=True) if kept else ()
    ends = {step: (low, high) for step, low, high in found}
    pairs = [ends.get(int(step), (None, None)) for step in steps]
    return [low for low, _ in pairs], [high for _, high in pairs]


def _binned(name: str, points: Sequence[tuple[float, float]]) -> Series:
    size = math.ceil(len(points) / POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    ordered = [sorted(value for _, value in part) for part in parts]
    return Series(
        name,
        [sum(step for step, _ in part) / len(part) for part in parts],
        [sum(values) / len(values) for values in ordered],
        [values[round(0.1 * (len(values) - 1))] for values in ordered],
        [values[round(0.9 * (len(values) - 1))] for values in ordered],
    )


def _against_kl(told: Told, metric: str) -> Chart:
    metrics, start, held = told["metrics"], told["start"], f"heldout_{metric}"
    steps = metrics["step"]
    lines = [_on_way(ROLLOUTS, steps, metrics["kl"], metrics[metric], _kept(told, metric), dots=True)]
    if held in metrics and "heldout_kl" in metrics:
        kl = [start.get("heldout_kl"), *metrics["heldout_kl"]]
        values = [start.get(held), *metrics[held]]
        lines.append(_on_way(HELDOUT, [0, *steps], kl, values, _kept(told, held)))
    lines = [line for line in lines if line.x]
    band = "whisker: 95% interval" if any(line.band() for line in lines) else ""
    mark = _at_model(told)
    here = f"dotted: step {told['step']:,}, the model" if mark else ""
    note = _noted(_n_of(told, metric), _held_n(told, metric), band, here)
    name, unit, percent = named(metric, told["stage"])
    return Chart(lines, "√KL, √nats", unit, f"{capital(name)} against √KL", percent, mark, told["id"], note)


def _at_model(told: Told) -> list[float]:
    """Where on the axis of √KL the model is that the page is about."""
    metrics, step = told["metrics"], told["step"]
    if step is None or step not in metrics["step"]:
        return []
    place = metrics["step"].index(step)
    known = [
        metrics[name][place] for name in ("heldout_kl", "kl") if is_number((metrics.get(name) or {place: None})[place])
    ]
    return [math.sqrt(max(known[0], 0.0))] if known else []


def _on_way(
    name: str, steps: Sequence[Any], kl: Sequence[Any], values: Sequence[Any], kept: Columns | None, dots: bool = False
) -> Series:
    """As time went by: where a run goes back, its line does too, so its intervals are whiskers and no band. A KL that
    was estimated below 0 counts as 0."""
    found = [each for each in zip(steps, kl, values, strict=True) if is_number(each[1]) and is_number(each[2])]
    at = [math.sqrt(max(k, 0.0)) for _, k, _ in found]
    if len(found) > POINTS:
        line = _binned(name, [(where, value) for where, (_, _, value) in zip(at, found, strict=True)])
        return Series(name, line.x, line.y, dots=dots)
    return Series(name, at, [v for _, _, v in found], *_ends(kept, [s for s, _, _ in found]), dots=dots, bars=True)


def _known(steps: Sequence[Any], values: Sequence[Any]) -> list[tuple[float, float]]:
    return [(step, value) for step, value in zip(steps, values, strict=False) if is_number(value)]
