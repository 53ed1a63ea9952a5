"""What was measured of one model, for its card: in words, as a table, and as the hub's `model-index`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import besides, standings, wording
from .contest import who_judged
from .headlines import headline
from .meetings import identity, meetings, sides
from .refusals import remarks as on_refusals
from .visible import visible
from .wording import is_number

Told = Mapping[str, Any]
STAGES = ("winrate", "compare", "safety")  # of language models; a reward model has audits

_MARKUP = re.compile(r"[\\`*<>\[\]|&~#!]")
_NOT_YAML = re.compile("[\ufffe\uffff]")  # characters that YAML takes in no form
_TITLES = {"winrate": "Win rate", "compare": "Comparison", "safety": "Refusals"}


def is_told(told: Told) -> bool:
    """Whether it measured anything: it ended, and has a result."""
    return told["stage"] in STAGES and told["status"] == "done" and bool(told["result"])


def lines(told: Told, model: str) -> Iterator[str]:
    """Markdown of one run that measured the model: what came out, who judged, each rate, what to know of it."""
    names, result = standings.names_in(told), told["result"]
    judge = _who(told, names)
    yield f"### {_TITLES[told['stage']]}, run `{told['id']}`"
    yield plain(" ".join(filter(None, (headline(told), judge))))
    found = [*meetings(told, {model})]
    if found:
        yield _table(
            ("this model against", "pairs won, ties half", "95% interval", "pairs", "at equal length"),
            [
                (
                    standings.called(r.rival, names),
                    wording.percent(r.value),
                    wording.percent_range(r.ci),
                    f"{r.n:,}",
                    wording.percent(r.equal),
                )
                for r in found
            ],
        )
    if told["stage"] == "safety":
        yield _table(
            ("requests", "refused, in part or in all", "95% interval", "requests"),
            [
                (label, wording.percent(one["refused"]), wording.percent_range(one["ci"]), f"{one['n']:,}")
                for label, one in _refused(told, model).items()
            ],
        )
    if "models" in result and (known := _remarks(told, names)):
        yield "\n".join(f"- {plain(each)}" for each in known)


def audit_lines(name: str, audit: Told) -> Iterator[str]:
    """Markdown of the last audit of a reward model."""
    yield f"### Audit of {plain(name)}, `{audit['evaluation']}`"
    yield plain(audit.get("headline", "")) or "It was audited."
    conditions = [
        (one["name"], {True: "met", False: "failed", None: "not measured"}[one["met"]], one.get("why", ""))
        for one in audit["gate"]["conditions"]
    ]
    if conditions:
        yield _table(("condition", "", "why"), conditions)


# --- the hub's model-index


def model_index(name: str, measured: Sequence[Told], model: str, audit: Told | None) -> list[str]:
    """Lines of YAML: each rate, each share of refusals, and a reward model's accuracy. None where none has a number."""
    results = [entry for told in measured for entry in _entries(told, model)]
    if audit is not None and is_number(audit["accuracy"]["value"]):
        about = audit["accuracy"]
        metric = _metric("accuracy", about["value"], "Held-out judgements it foresees", about["n"], about["ci"])
        results.append(_entry("text-classification", "held-out judgements", "judgements", metric))
    if not results:
        return []
    # JSON is YAML, and quotes whatever a name holds.
    return ["model-index:", f"  - name: {_quoted(name)}", "    results:", *(f"      - {one}" for one in results)]


def _entries(told: Told, model: str) -> Iterator[str]:
    asked = next((one for one in told["inputs"] if one["role"] == "prompts"), None)
    where = (asked["names"][0] if asked["names"] else asked["id"][:8]) if asked else "prompts of the completion sets"
    which = asked["id"] if asked else "unknown"
    names = standings.names_in(told)
    for rate in meetings(told, {model}):
        rival = standings.called(rate.rival, names)
        way = f" of its {rate.way}" if rate.way else ""
        called = " ".join(filter(None, (f"Win rate{way} against {rival}, ties half.", _who(told, names))))
        yield _entry("text-generation", where, which, _metric("win-rate", rate.value, called, rate.n, rate.ci))
    if told["stage"] == "safety":
        for label, one in _refused(told, model).items():
            called = f"Share of {label} requests refused"
            metric = _metric("refusal-rate", one["refused"], called, one["n"], one["ci"])
            yield _entry("text-generation", where, which, metric)


def _metric(kind: str, value: float, name: str, n: int, ci: Sequence[float]) -> Told:
    low, high = (round(end, 4) for end in ci)
    return {"type": kind, "value": round(value, 4), "name": name, "args": {"n": n, "ci_low": low, "ci_high": high}}


def _entry(task: str, name: str, kind: str, metric: Told) -> str:
    title = task.replace("-", " ").capitalize()
    entry = {"task": {"type": task, "name": title}, "dataset": {"name": name, "type": kind}, "metrics": [metric]}
    return _quoted(entry)


def _quoted(value: Any) -> str:
    """JSON that YAML reads as the same: hidden characters are spelled out, the others stand as they are."""
    if isinstance(value, str):
        return json.dumps(_one_line(value), ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(key)}: {_quoted(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    return json.dumps(value)


# --- inside


def _refused(told: Told, model: str) -> Mapping[str, Any]:
    ours = sides(told, {model})
    one = next((each for each in told["result"].get("models", ()) if identity(each["model"]) in ours), None)
    labels: Mapping[str, Any] = one["labels"] if one else {}
    return labels


def _remarks(told: Told, names: Mapping[str, str]) -> list[str]:
    if told["stage"] == "safety":
        return on_refusals(told["result"])
    return (besides.remarks if told["stage"] == "compare" else standings.remarks)(told["result"], names)


def _who(told: Told, names: Mapping[str, str]) -> str:
    judge = told["result"].get("judge") or {}
    if judge.get("kind") in (None, "none", "rules"):  # what rules can read is told among the remarks
        return ""
    if str(judge.get("model", "")).startswith(("/", ".", "~")):  # a card goes to others: not where a folder lies here
        judge = {**judge, "model": judge["model"].rstrip("/").rpartition("/")[2]}
    return who_judged(judge, names)


def plain(text: str) -> str:
    """Text that stays text in Markdown, whatever a name in it holds."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", _one_line(text))


def _one_line(text: str) -> str:
    return _NOT_YAML.sub("\ufffd", visible(" ".join(text.split())))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    drawn = [columns, ["---"] * len(columns), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in drawn)
