"""What a model refuses, in words and rows: the same on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from . import standings, wording
from .charts import interval_chart
from .page import TEXT_LIMIT, both
from .visible import clipped

Found = Mapping[str, Any]
_KINDS = {
    "complied-unsafe": "did what is unsafe", "refused-safe": "refused what is safe",
    "refused-unsafe": "refused what is unsafe", "complied-safe": "did what is safe",
}  # fmt: skip


def called(found: Found, names: Mapping[str, str]) -> list[str]:
    return [standings.called(each["model"], names) for each in found["models"]]


def sentence(found: Found, names: Mapping[str, str]) -> str:
    labels, name = found["models"][0]["labels"], called(found, names)[0]
    said = [f"{wording.percent(each['refused'])} of {each['n']:,} {label} requests" for label, each in labels.items()]
    return f"{name} refused {wording.listed(said)}."


def label_rows(found: Found) -> list[list[str]]:
    rows = []
    for label, first in found["models"][0]["labels"].items():
        row = [label, f"{first['n']:,}", *(_share(each["labels"].get(label)) for each in found["models"])]
        if change := found["changed"].get(label):
            low, high = (100 * end for end in change["ci"])
            points = f"{100 * change['difference']:+.1f} points ({low:+.1f} to {high:+.1f})"
            row.append(f"{points}; {change['more']:,} more, {change['fewer']:,} fewer, p = {change['p_value']:.2g}")
        rows.append(row)
    return rows


def category_rows(found: Found) -> list[list[str]]:
    others = [{(one["label"], one["name"]): one for one in each["categories"]} for each in found["models"]]
    return [
        [one["label"], one["name"], f"{one['n']:,}", *(_share(of.get((one["label"], one["name"]))) for of in others)]
        for one in found["models"][0]["categories"]
    ]


def remarks(found: Found) -> list[str]:
    said = [wording.capital(each) + "." for each in found["findings"]]
    if found["judge"]["kind"] == "rules":
        said.append(
            "Answers were read by rules: words of refusal in their first sentences, in English. They agree with people "
            "in about nine of ten answers, and do not see whether an answer that complies does harm."
        )
    missing = found["judge"].get("missing")
    if missing:
        reasons = "; ".join(f"{n:,} {why}" for why, n in missing.items())
        said.append(f"{sum(missing.values()):,} answers could not be read and are left out: {reasons}.")
    for each in found["models"]:
        if each["unfinished"]:
            said.append(f"{each['unfinished']:,} answers of {each['model'][:8]} ended at the length limit.")
    for key, words in (("unlabelled", "without a label"), ("dropped", "too long for one of the models")):
        if found[key]:
            said.append(f"Prompts {words}, left out: {found[key]:,}.")
    return said


def section(told: Found) -> dict[str, Any] | None:
    """Of a run that measured refusals; None of any other, and of one without a result."""
    found = told["result"]
    if told["stage"] != "safety" or "models" not in found:
        return None
    names = standings.names_in(told)
    labels = [
        (f"{label}: {name}", each["labels"][label])
        for label in found["models"][0]["labels"]
        for name, each in zip(called(found, names), found["models"], strict=True)
        if label in each["labels"]
    ]
    tags = [(f"{one['label']}: {clipped(one['name'], 40)}", one) for one in found["models"][0]["categories"]]
    return {
        "remarks": remarks(found),
        "labels": _drawn(labels, "Share of requests refused", 820),
        "tags": _drawn(tags, f"{called(found, names)[0]}, by category", 640) if tags else None,
        "changes": [row for row in label_rows(found) if len(row) > 2 + len(found["models"])],
        "samples": _samples(told["meetings"], called(found, names)),
    }


def _drawn(named: Sequence[tuple[str, Found]], title: str, wide: int) -> object:
    rows = [(name, one["refused"], *one["ci"], one["n"]) for name, one in named]
    draw = partial(
        interval_chart, rows, None, title=title, x_label="refused, in part or in all, with 95% interval", domain=(0, 1)
    )
    return both(draw, wide=wide)


def _samples(answers: Found, names: Sequence[str]) -> dict[str, Any] | None:
    """Those that are wrong first: what was done and is unsafe, what was refused and is safe."""
    if not answers["rows"]:
        return None
    rows: list[dict[str, Any]] = []
    for row in answers["rows"]:
        kind = f"{'complied' if row['model']['reply'] == 'complied' else 'refused'}-{row['label']}"
        entries = [
            {"who": name, "text": clipped(row[role]["text"], TEXT_LIMIT), "measured": row[role]["reply"] or "not read"}
            for role, name in zip(("model", "before"), names, strict=False)
        ]
        prompt = clipped(row["prompt"]["messages"][-1]["content"], TEXT_LIMIT)
        rows.append({"prompt": f"{row['label']}: {prompt}", "kinds": [kind], "entries": entries})
    rows.sort(key=lambda row: [*_KINDS].index(row["kinds"][0]))
    counts = {kind: sum(kind in row["kinds"] for row in rows) for kind in _KINDS}
    shown = [(kind, _KINDS[kind], count) for kind, count in counts.items() if count]
    return {"of_all": answers["of_all"], "rows": rows, "filters": shown}


def _share(one: Found | None) -> str:
    if one is None:
        return ""
    part = f", {one['partly']:,} in part" if one["partly"] else ""
    return f"{wording.percent(one['refused'])} ({wording.percent_range(one['ci'])}){part}"
