"""The page of runs: one of them, all that led to an artifact, or two beside each other. From what `reporting` found.

Like every page here it loads nothing and runs nothing: the filters of the samples are the style sheet's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from . import besides, refusals, wording
from .charts import Series, line_chart
from .contest import contest
from .headlines import headline, status_words
from .lineage_chart import lineage_chart
from .page import METRICS, STAGES, TEXT_LIMIT, both, environment, flat_rows, marked, styles
from .shipping import before_shipping
from .visible import clipped
from .wording import is_number

Told = Mapping[str, Any]  # what `reporting.about` says of a run

POINTS = 300  # steps drawn one by one; of more, each point is the mean of as many steps as it takes
EVENTS_SHOWN = 60
TURNS = ("rollback", "stop", "kept")  # kinds of event that are drawn into the curves
FIRST = ("score", "gold", "kl", "length", "loss", "completion_loss", "accuracy", "reward", "entropy", "value_explained")
_PARTS = {"config": "Settings", "inputs": "Made from", "result": "Result", "versions": "Versions"}
ROLLOUTS, HELDOUT = "rollouts", "held out"


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

    def svg(self, width: int = 340) -> str:
        words = self.x_label, self.y_label, self.title
        return line_chart(self.lines, *words, percent=self.percent, moments=self.moments, key=self.run, width=width)


def runs_page(found: Mapping[str, Any]) -> str:
    """The page for what `reporting.report` returns."""
    runs = [view(told, i) for i, told in enumerate(found["runs"])]
    title = runs[0]["title"] if len(runs) == 1 else f"{wording.counted(len(runs), 'run')}: {_last_name(found)}"
    return _rendered(
        title=title,
        lead=runs[-1]["headline"] if len(runs) == 1 else _loop_headline(found["runs"]),
        runs=runs,
        shipping=before_shipping(found["runs"]),
        lineage=_lineage(found["lineage"]),
        cost={key: _cost_words(key, value) for key, value in found["cost"].items()} if len(runs) > 1 else None,
        differences=None,
    )


def difference_page(found: Mapping[str, Any]) -> str:
    """The page for what `reporting.difference` returns: what differs, and the curves of both in one picture."""
    a, b = found["a"], found["b"]
    parts = [
        {"title": title, "rows": [(key, *map(_value, pair)) for key, pair in found["differences"][part].items()]}
        for part, title in _PARTS.items()
    ]
    same = [title.lower() for part, title in _PARTS.items() if not found["differences"][part]]
    return _rendered(
        title=f"{_title(a)} beside {_title(b)}",
        lead=f"First: {headline(a)} Second: {headline(b)}",
        runs=[],
        shipping={},
        lineage=None,
        cost=None,
        differences={
            "names": (f"first, {a['id']}", f"second, {b['id']}"),
            "parts": [part for part in parts if part["rows"]],
            "same": wording.listed(same) if same else "",
            "curves": curves_together([a, b], ["first", "second"]),
            "samples": _samples(found["samples"], ("first, ", "second, ")),
        },
    )


def charts(found: Mapping[str, Any]) -> dict[str, Chart]:
    """Every chart of the page's runs, by a name for its file."""
    return {f"{told['id']}-{name}": chart for told in found["runs"] for name, chart in _charts(told)}


def _rendered(**context: Any) -> str:
    return environment().get_template("runs.html").render(css=styles("page.css", "runs.css"), **context)


def view(told: Told, number: int = 0) -> dict[str, Any]:
    """All that a page shows of one run, in words and charts."""
    drawn = dict(_charts(told))
    curves = [Markup(chart.svg()) for name, chart in drawn.items() if not name.startswith("against-")]
    against = [both(chart.svg, wide=470) for name, chart in drawn.items() if name.startswith("against-")]
    return {
        "number": number,
        "id": told["id"],
        "title": _title(told),
        "stage": STAGES.get(told["stage"], wording.capital(told["stage"])),
        "status": told["status"],
        "headline": headline(told),
        "resume": told["resume"],
        "note": told["note"],
        "facts": _facts(told),
        "inputs": told["inputs"],
        "outputs": told["outputs"],
        "findings": told["findings"],
        "events": [_event(event) for event in told["events"][:EVENTS_SHOWN]],
        "events_left": max(0, len(told["events"]) - EVENTS_SHOWN),
        "curves": curves,
        "curves_note": _curves_note(told),
        "against": against,
        "contest": contest(told),
        "refusals": refusals.section(told),
        "besides": besides.section(told),
        "samples": _samples(told["samples"], best=told["result"].get("best_step")),
        "reward_models": [_reward_model(each) for each in told["reward_models"]],
        "figures": _figures(told["metrics"]),
        "result": flat_rows(told["result"]),
        "cost": {_COSTS[key]: _cost_words(key, value) for key, value in told["cost"].items() if value},
        "changed": flat_rows(told["changed"]),
        "settings": flat_rows(told["config"]),
        "versions": flat_rows(told["versions"]),
    }


# --- words -----------------------------------------------------------------------------------------------------------

_COSTS = {"wall": "time", "cpu": "CPU time", "tokens": "tokens", "peak_mib": "most memory held"}


def _title(told: Told) -> str:
    stage = STAGES.get(told["stage"], wording.capital(told["stage"]))
    return " · ".join(filter(None, (stage, told["name"], told["id"])))


def _last_name(found: Mapping[str, Any]) -> str:
    root = found["lineage"][0] if found["lineage"] else {"names": [], "id": ""}
    return str(root["names"][0] if root["names"] else root["id"])


def _loop_headline(runs: Sequence[Told]) -> str:
    """What came of it: the last comparison, else the last run that learnt something."""
    judged = [told for told in runs if told["stage"] == "winrate" and told["status"] == "done"]
    learnt = [told for told in runs if told["metrics"]]
    return headline((judged or learnt or list(runs))[-1])


def _facts(told: Told) -> list[tuple[str, str]]:
    steps = told["metrics"].get("step") or []
    return [
        ("status", status_words(told)),
        ("started", f"{told['started'][:19].replace('T', ' ')} UTC"),
        ("seed", str(told["seed"])),
        *([("steps", f"{steps[-1]:,}")] if steps else []),
        *([("best step", f"{told['result']['best_step']:,}")] if "best_step" in told["result"] else []),
    ]


def _cost_words(key: str, value: float) -> str:
    if key in ("wall", "cpu"):
        return wording.duration(value)
    return f"{value:,.0f} MiB" if key == "peak_mib" else f"{value:,.0f}"


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    known = {"kind", "reason", "step"}
    more = ", ".join(f"{key} {_value(value)}" for key, value in event.items() if key not in known)
    return {"step": event.get("step", ""), "kind": event["kind"], "reason": event["reason"], "more": clipped(more, 400)}


def _value(value: Any) -> str:
    return "not there" if value is None else wording.number(value)


def _reward_model(model: Mapping[str, Any]) -> dict[str, Any]:
    result, audit = model["result"], model["audit"]
    accuracy = ""
    if result.get("accuracy") is not None:
        accuracy = (
            f"{wording.percent(result['accuracy'])} ({wording.percent_range(result.get('ci'))}, n = {result['n']:,})"
        )
    conditions = audit["gate"]["conditions"] if audit else []
    return {
        "role": model["role"],
        "id": model["id"],
        "accuracy": accuracy or "not measured",
        "ceiling": wording.percent(result.get("ceiling")) or "unknown",
        "audited": bool(audit),
        "passed": bool(audit and audit["gate"]["passed"]),
        "conditions": [
            {"name": each["name"], "why": each["why"], "verdict": _VERDICTS[each["met"]]}
            for each in conditions
        ],
    }  # fmt: skip


_VERDICTS = {True: "met", False: "failed", None: "unknown"}


def _figures(metrics: Mapping[str, Sequence[Any]]) -> list[tuple[str, ...]]:
    """Every metric: first, last, lowest, highest and how often, as they stand in the stream."""
    rows = []
    for name, values in metrics.items():
        known = [value for value in values if is_number(value)]
        if name != "step" and known:
            rows.append((name, *map(repr, (known[0], known[-1], min(known), max(known))), f"{len(known):,}"))
    return rows


# --- charts ----------------------------------------------------------------------------------------------------------


def _charts(told: Told) -> Iterator[tuple[str, Chart]]:
    """(name for a file, chart): curves of the metrics, spread over time, and score against KL."""
    metrics = told["metrics"]
    steps = metrics.get("step") or []
    moments = [event["step"] for event in told["events"] if event["kind"] in TURNS and "step" in event]
    plain = [name for name in metrics if name != "step" and not name.startswith("heldout_")]
    alone = [name for name in metrics if name.startswith("heldout_") and name.removeprefix("heldout_") not in plain]
    for metric in _in_order(plain + alone):
        lines = _lines(told, metric)
        if sum(len(line.x) for line in lines) < 2:
            continue
        yield metric, _of_metric(metric, lines, told, moments)
    for metric, title in (("score", "Scores of completions"), ("length", "Lengths of completions")):
        if (spread := told["rollouts"].get(metric)) and len(spread["step"]) > 1:
            n = f"{min(spread['n']):,}" if min(spread["n"]) == max(spread["n"]) else f"{min(spread['n']):,} or more"
            fan = Series("", spread["step"], spread["p50"], spread["p10"], spread["p90"])
            unit = f"{METRICS[metric][1]}, n = {n} a step"
            yield f"spread-{metric}", Chart([fan], "step", unit, f"{title}: middle 80%", run=told["id"])
    if len(steps) > 1 and metrics.get("kl") and metrics.get("score"):
        for metric in ("score", "gold"):
            if metric in metrics:
                lines = _against_kl(told, metric)
                title = f"{wording.capital(METRICS[metric][0])} against √KL"
                yield f"against-{metric}", Chart(lines, "√KL, √nats", METRICS[metric][1], title, run=told["id"])


def _in_order(metrics: Sequence[str]) -> list[str]:
    """What one looks at first stands first."""
    return sorted(metrics, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def _of_metric(metric: str, lines: Sequence[Series], told: Told, moments: Sequence[float] = ()) -> Chart:
    name, unit, percent = METRICS.get(metric, (metric.replace("_", " "), "", False))
    unit = "nats a pair" if (told["stage"], metric) == ("reward", "loss") else unit
    return Chart(lines, "step", unit, wording.capital(name), percent, moments, told["id"])


def _lines(told: Told, metric: str) -> list[Series]:
    """A metric over the steps; beside it the same of evaluations, from before the first step on."""
    metrics = told["metrics"]
    held = metric if metric.startswith("heldout_") else f"heldout_{metric}"
    evaluated = _known(metrics["step"], metrics.get(held) or [])
    if evaluated and is_number(told["start"].get(held)):
        evaluated.insert(0, (0, told["start"][held]))
    lines = []
    if metric != held and (points := _known(metrics["step"], metrics[metric])):
        name = ROLLOUTS if told["rollouts"] else "training"
        lines.append(_banded(name if evaluated else "", points, told["rollouts"].get(metric)))
    if evaluated:
        name = HELDOUT if lines else ""
        lines.append(_banded(name, evaluated, told["evaluations"].get(metric.removeprefix("heldout_"))))
    return lines


def _banded(name: str, points: Sequence[tuple[float, float]], spread: Mapping[str, Sequence[Any]] | None) -> Series:
    """With the interval of the mean where completions were kept; of many steps, their mean and middle 80%."""
    if len(points) > POINTS:
        return _binned(name, points)
    ends: dict[int, tuple[Any, Any]] = {}
    if spread:
        ends = {step: pair for step, *pair in zip(spread["step"], spread["low"], spread["high"], strict=True)}  # type: ignore[misc]
    x, y = [step for step, _ in points], [value for _, value in points]
    if not ends:
        return Series(name, x, y)
    pairs = [ends.get(int(step), (None, None)) for step in x]
    return Series(name, x, y, [low for low, _ in pairs], [high for _, high in pairs])


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


def _against_kl(told: Told, metric: str) -> list[Series]:
    metrics, start = told["metrics"], told["start"]
    found = [Series(ROLLOUTS, *_ordered(metrics["kl"], metrics[metric]), dots=True)]
    if f"heldout_{metric}" in metrics and "heldout_kl" in metrics:
        kl = [start.get("heldout_kl"), *metrics["heldout_kl"]]
        values = [start.get(f"heldout_{metric}"), *metrics[f"heldout_{metric}"]]
        found.append(Series(HELDOUT, *_ordered(kl, values)))
    return [one for one in found if one.x]


def _ordered(kl: Sequence[Any], values: Sequence[Any]) -> tuple[list[float], list[float | None]]:
    """As time went by: where a run goes back, its line does too. A KL that was estimated below 0 counts as 0."""
    pairs = [(math.sqrt(max(k, 0.0)), v) for k, v in zip(kl, values, strict=True) if is_number(k) and is_number(v)]
    if len(pairs) > POINTS:
        line = _binned("", pairs)
        return list(line.x), list(line.y)
    return [k for k, _ in pairs], [v for _, v in pairs]


def curves_together(runs: Sequence[Told], labels: Sequence[str]) -> list[Markup]:
    """Metrics that at least two of the runs have, each in one chart."""
    drawn = []
    every = dict.fromkeys(name for told in runs for name in told["metrics"] if name != "step")
    for metric in _in_order(list(every)):
        lines = [
            _banded(label, points, None)
            for label, told in zip(labels, runs, strict=True)
            if len(points := _known(told["metrics"].get("step") or [], told["metrics"].get(metric) or [])) > 1
        ]
        if len(lines) > 1:
            drawn.append(Markup(_of_metric(metric, lines, runs[0]).svg()))
    return drawn


def _curves_note(told: Told) -> str:
    steps = len(told["metrics"].get("step") or [])
    words = ["One run of one seed, as logged: the spread between seeds is not in these lines."]
    if steps > POINTS:
        words.append(f"Each point is the mean of {math.ceil(steps / POINTS)} steps, the band their middle 80%.")
    elif told["rollouts"]:
        words.append("A band is the 95% interval of a mean, over prompts; a line without one was logged without.")
    if told["rollouts"]:
        words.append("Of scores and lengths of completions: the median, and the middle 80%.")
    if any(event["kind"] in TURNS for event in told["events"]):
        words.append("Upright lines are rollbacks and stops.")
    return " ".join(words)


def _known(steps: Sequence[Any], values: Sequence[Any]) -> list[tuple[float, float]]:
    return [(step, value) for step, value in zip(steps, values, strict=False) if is_number(value)]


# --- samples ---------------------------------------------------------------------------------------------------------

_KINDS = {  # what a filter of the samples shows
    "rose": "score rose", "fell": "score fell", "longer": "longer", "shorter": "shorter", "unfinished": "did not end",
}  # fmt: skip


def _samples(found: Mapping[str, Any], sides: Sequence[str] = (), best: int | None = None) -> dict[str, Any] | None:
    if not found["rows"]:
        return None
    rows = [_row(row, sides, best, found["prompts"].get(row["prompt"], "")) for row in found["rows"]]
    counts = {kind: sum(kind in row["kinds"] for row in rows) for kind in _KINDS}
    return {
        "of": found["of"],
        "of_all": found["of_all"],
        "rows": rows,
        "filters": [(kind, _KINDS[kind], count) for kind, count in counts.items() if count],
    }


def _row(row: Mapping[str, Any], sides: Sequence[str], best: int | None, prompt: str) -> dict[str, Any]:
    entries = row["entries"]
    texts = [clipped(str(entry["text"]), TEXT_LIMIT) for entry in entries]
    shown: list[object] = list(texts)
    if len(texts) > 1:
        shown = [marked(texts[0], texts[-1], "del"), *(marked(text, texts[0], "ins") for text in texts[1:])]
    return {
        "prompt": clipped(prompt or f"prompt {row['prompt']}", TEXT_LIMIT),
        "kinds": _kinds(entries),
        "entries": [
            {"who": side + _moment(entry["step"], best), "text": text, "measured": _measured(entry)}
            for side, text, entry in zip(sides or [""] * len(entries), shown, entries, strict=True)
        ],
    }


def newest(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """What `watching` found of the newest completions: what was asked, what was written, how it was measured."""
    return [
        {
            "prompt": clipped(found["prompts"].get(row["prompt"], "") or f"prompt {row['prompt']}", TEXT_LIMIT),
            "text": clipped(str(row["text"]), TEXT_LIMIT),
            "measured": _measured(row),
        }
        for row in found["rows"]
    ]


def _moment(step: int, best: int | None) -> str:
    return f"step {step:,}" + (", before" if step == 0 else ", best" if step == best else "")


def _kinds(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    first, last = entries[0], entries[-1]
    kinds = [] if last.get("finished", True) else ["unfinished"]
    for name, up, down in (("score", "rose", "fell"), ("length", "longer", "shorter")):
        if len(entries) > 1 and is_number(first.get(name)) and is_number(last.get(name)) and first[name] != last[name]:
            kinds.append(up if last[name] > first[name] else down)
    return kinds


def _measured(entry: Mapping[str, Any]) -> str:
    words = [f"score {entry['score']:.2f}"] if is_number(entry.get("score")) else []
    words += [f"KL {entry['kl']:.1f}"] if is_number(entry.get("kl")) else []
    words += [f"{entry['length']} tokens"] if is_number(entry.get("length")) else []
    return " · ".join([*words, *([] if entry.get("finished", True) else ["did not end"])])


def _lineage(nodes: Sequence[Mapping[str, Any]]) -> Markup | None:
    return both(partial(lineage_chart, nodes), wide=1000) if len(nodes) > 1 else None
