"""What was measured of one model, for its card: in words, as a table, and as the hub's `model-index`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import besides, standings, wording
from .contest import who_judged
from .headlines import headline
from .refusals import remarks as on_refusals
from .visible import visible
from .wording import is_number

Told = Mapping[str, Any]
STAGES = ("winrate", "compare", "safety")  # of language models; a reward model has audits

_MARKUP = re.compile(r"[\\`*<>\[\]|&~#!]")
_NOT_YAML = re.compile("[\ufffe\uffff]")  # characters that YAML takes in no form
_TITLES = {"winrate": "Win rate", "compare": "Comparison", "safety": "Refusals"}


@dataclass(frozen=True)
class Rate:
    """How often the model won against another, ties half."""

    rival: str
    judge: str
    value: float
    ci: tuple[float, float]
    n: int
    equal: float | None  # the same between answers of equal length


def is_told(told: Told) -> bool:
    """Whether it measured anything: it ended, and has a result."""
    return told["stage"] in STAGES and told["status"] == "done" and bool(told["result"])


def lines(told: Told, model: str) -> Iterator[str]:
    """Markdown of one run that measured the model: what came out, who judged, each rate, what to know of it."""
    names, result = standings.names_in(told), told["result"]
    judge = _who(told, names)
    yield f"### {_TITLES[told['stage']]}, run `{told['id']}`"
    yield plain(" ".join(filter(None, (headline(told), judge))))
    found = rates(told, model)
    if found:
        yield _table(
            ("this model against", "pairs won, ties half", "95% interval", "pairs", "at equal length"),
            [
                (r.rival, wording.percent(r.value), wording.percent_range(r.ci), f"{r.n:,}", wording.percent(r.equal))
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


def rates(told: Told, model: str) -> list[Rate]:
    """Of the model against each other one, whichever of the two was named first."""
    result, names = told["result"], standings.names_in(told)
    ours = _ours(told, model)
    judge = _who(told, names)
    if told["stage"] == "compare":
        pairs = _against_first(result)
    elif told["stage"] == "winrate":
        first, second = (list(result.get("models", ())) or _by_role(told))[:2]
        pairs = result.get("pairs") or [{"a": first, "b": second, **result}]
    else:
        pairs = []
    found = []
    for pair in pairs:
        is_a, is_b = (_identity(pair[side]) in ours for side in "ab")
        if (is_a or is_b) and is_number(pair.get("value")) and pair.get("ci"):
            equal = (pair.get("length_controlled") or {}).get("value")
            rival = standings.called(pair["b" if is_a else "a"], names)
            low, high = pair["ci"]
            turned = (pair["value"], (low, high), equal)
            if not is_a:
                turned = (1 - pair["value"], (1 - high, 1 - low), None if equal is None else 1 - equal)
            found.append(Rate(rival, judge, turned[0], turned[1], pair["n"], turned[2]))
    return found


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
    for rate in rates(told, model):
        called = " ".join(filter(None, (f"Win rate against {rate.rival}, ties half.", rate.judge)))
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


def _ours(told: Told, model: str) -> set[str]:
    """The ids by which the model took part: its own, and those of completion sets that it wrote."""
    return {one["id"] for one in told["inputs"] if model in (one["id"], one["written_by"])}


def _identity(label: str) -> str:
    return label.partition(",")[0]


def _by_role(told: Told) -> list[str]:
    """The models of a run that does not name them in its result."""
    found = {one["role"]: one["id"] for one in told["inputs"]}
    return [found.get("a", ""), found.get("b", "")]


def _against_first(result: Told) -> list[dict[str, Any]]:
    first, *others = result.get("models") or [{"model": ""}]
    return [{"a": each["model"], "b": first["model"], **each["won"]} for each in others if "won" in each]


def _refused(told: Told, model: str) -> Mapping[str, Any]:
    ours = _ours(told, model)
    one = next((each for each in told["result"].get("models", ()) if _identity(each["model"]) in ours), None)
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
