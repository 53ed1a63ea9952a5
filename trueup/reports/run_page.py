"""The page of runs: one of them, all that led to an artifact, or two beside each other. From what `reporting` found.

Like every page here it loads nothing and runs nothing: the filters of the samples are the style sheet's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from ..runs.reading import evenly
from . import besides, refusals, wording
from .contest import contest
from .headlines import headline, status_words
from .lineage_chart import lineage_chart
from .overopt_chart import overopt_chart
from .overopt_chart import verdict as overopt_verdict
from .page import STAGES, TEXT_LIMIT, both, environment, flat_rows, marked, styles
from .run_charts import Chart, Told, charts_of, curves_note, curves_together
from .shipping import before_shipping
from .visible import clipped
from .wording import is_number

EVENTS_SHOWN = 60
MEASURES = ("winrate", "compare", "safety", "audit")
SIMULATED = "The people who judged are simulated: it shows that the loop works, not what your material would gain."
FIRST_LOOK = 3  # texts before and after that stand at the top
_PARTS = {"config": "Settings", "data": "Data", "result": "Result", "versions": "Versions"}


def runs_page(found: Mapping[str, Any]) -> str:
    """The page for what `reporting.report` returns."""
    runs = _called([view(told, i) for i, told in enumerate(found["runs"])])
    shipping = _shipping(found["runs"], {run["id"]: run for run in runs})
    title = runs[0]["title"] if len(runs) == 1 else f"{wording.counted(len(runs), 'run')}: {_last_name(found)}"
    return _rendered(
        title=title,
        lead=_lead(found["runs"], shipping),
        runs=runs,
        sections=_to_be_read(found["runs"], runs, shipping),
        shipping=shipping,
        simulated=SIMULATED if _simulated(found["lineage"]) else "",
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
        sections=[],
        shipping={},
        simulated="",
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
    return {f"{told['id']}-{name}": chart for told in found["runs"] for name, chart in charts_of(told)}


def _rendered(**context: Any) -> str:
    return environment().get_template("runs.html").render(css=styles("page.css", "runs.css"), **context)


def view(told: Told, number: int = 0) -> dict[str, Any]:
    """All that a page shows of one run, in words and charts."""
    drawn = dict(charts_of(told))
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
        "curves_note": curves_note(told),
        "against": against,
        "overopt": _overopt(told),
        "contest": contest(told),
        "refusals": refusals.section(told),
        "besides": besides.section(told),
        "samples": _samples(told["samples"], best=told["step"]),
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


def _called(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With a word for each to be found by: its stage, numbered where there are several."""
    stages = [run["stage"] for run in runs]
    for place, run in enumerate(runs):
        several = stages.count(run["stage"]) > 1
        run["called"] = run["stage"] + (f" {stages[: place + 1].count(run['stage'])}" if several else "")
    return runs


def _lead(runs: Sequence[Told], shipping: Mapping[str, Any]) -> str:
    """Whether to ship; of runs that made no model, what the last of them found."""
    if shipping:
        return str(shipping["verdict"])
    judged = [told for told in runs if told["stage"] == "winrate" and told["status"] == "done"]
    return headline((judged or list(runs))[-1])


def _shipping(runs: Sequence[Told], views: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """With what one would rather look at than read: reward against KL, which then stands here and not with its run, and
    a few texts before and after."""
    found = before_shipping(runs)
    if not found:
        return {}
    view = views[found["run"]]
    samples = view["samples"] or {"rows": [], "of_all": 0, "of": ""}
    both_ends = [row for row in samples["rows"] if len(row["entries"]) > 1]
    curves, view["against"] = view["against"], []
    weightiest = next(iter(found["against"] or found["first"]), None)  # which stands above the lists
    lists = [(key, also if weightiest in found[key] else title, [each for each in found[key] if each is not weightiest])
             for key, title, also in _LISTS]  # fmt: skip
    return {
        **found,
        "tries": weightiest["tries"] if weightiest else (),
        "lists": [each for each in lists if each[2]],
        "curves": curves,
        "samples": evenly(both_ends, FIRST_LOOK),
        "samples_of": f"{samples['of_all']:,} {samples['of']}",
    }


_LISTS = (
    ("against", "Against it", "Also against it"),
    ("first", "To settle first", "Also to settle first"),
    ("known", "Good to know", ""),
)


def _overopt(told: Told) -> dict[str, Any] | None:
    """What `trueup eval overopt` last said of it."""
    found = told["overopt"]
    if not found:
        return None
    says = wording.capital(overopt_verdict(found))
    return {"says": says, "chart": both(partial(overopt_chart, found), wide=640)}


def _to_be_read(
    runs: Sequence[Told], views: Sequence[dict[str, Any]], shipping: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """First the run that made the model, then those that measured it, then what came before, the latest first."""
    made = [view for view in views if view["id"] == shipping.get("run")]
    measured = [view for told, view in zip(runs, views, strict=True) if told["stage"] in MEASURES]
    return [*made, *measured, *(view for view in reversed(views) if view not in made and view not in measured)]


def _simulated(lineage: Sequence[Mapping[str, Any]]) -> bool:
    return any(judge["source"] == "simulated" for node in lineage for judge in node["judges"])


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
    return f"step {step:,}" + (", before" if step == 0 else ", the model" if step == best else "")


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
