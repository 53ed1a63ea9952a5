"""The page of a demo: one HTML file that loads nothing, runs nothing and says its n.

Everything printed goes through `_shown`: escaped, and hidden characters spelled out. Only what this module marked as
markup (its own charts, its own word marks) passes as it is. The page's own policy forbids script and network too.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined
from markupsafe import Markup, escape

from . import wording
from .axes import MINUS
from .charts import Series, histogram, interval_chart, line_chart
from .visible import clipped, code_point, parts

HERE = Path(__file__).parent
EQUALS = "\u00a0=\u00a0"  # a line that ends in "n =" reads badly
POST_LIMIT, TEXT_LIMIT = 2000, 1200  # characters of model text shown
MARKED_WORDS = 300  # comparing words takes quadratic time: longer texts are shown without marks
BLANKS = re.compile(r"[ \t\n]+")  # str.split would swallow hidden separators
SECTIONS = {  # in the order of the page, by the key of the context that fills them
    "win_rates": ("win-rates", "Win rates"),
    "reward_models": ("reward-model", "Reward model"),
    "exhibits": ("over-optimisation", "Gold and proxy"),
    "gold_scores": ("gold-scores", "Gold scores"),
    "samples": ("samples", "Samples"),
    "curves": ("curves", "Training curves"),
    "stages": ("stages", "Stages"),
    "lineage": ("lineage", "Lineage"),
    "settings": ("settings", "Settings"),
    "commands": ("next", "How to go on"),
}
STAGES = {
    "pretrain": "Pretraining", "sft": "SFT", "reward": "Reward model", "rl": "RL", "dpo": "DPO", "kto": "KTO",
    "ilql": "ILQL", "sample": "Sampling", "winrate": "Win rate", "safety": "Safety", "compare": "Comparison",
    "audit": "Audit",
}  # fmt: skip
METRICS = {  # name, unit, and whether the axis is in percent
    "loss": ("loss", "nats a token", False),
    "accuracy": ("accuracy", "pairs ordered as judged", True),
    "score": ("proxy", "reward model score", False),
    "gold": ("gold score", "points", False),
    "judge": ("judge's score", "reward model score", False),
    "kl": ("KL from SFT", "nats a completion", False),
    "value_explained": ("explained by the value head", "share of variance", True),
    "length": ("length", "tokens a completion", False),
    "entropy": ("entropy", "nats a token", False),
    "finished": ("ended by themselves", "share of completions", True),
    "completion_loss": ("loss of completions", "nats a token", False),
    "token_loss": ("loss, each token alike", "nats a token", False),
    "sft_loss": ("loss on demonstrations", "nats a token", False),
    "tokens": ("learnt from", "tokens a step", False),
    "score_std": ("spread of scores", "standard deviation", False),
    "kl_k3": ("KL from SFT, by k3", "nats a token", False),
    "kl_loss": ("KL in the loss", "nats a token", False),
    "policy_entropy": ("entropy of the whole distribution", "nats a token", False),
    "unfinished": ("without an end", "share of completions", True),
    "duplicates": ("said before in the same step", "share of completions", True),
    "clip_fraction": ("clipped", "share of tokens", True),
    "gradient_norm": ("gradient norm", "length before clipping", False),
    "value_gradient_norm": ("gradient norm of the value model", "length before clipping", False),
    "approx_kl": ("KL from the policy that wrote", "nats a token", False),
    "kl_coefficient": ("price of the KL", "score a nat", False),
    "policy_loss": ("policy loss", "advantage a token, clipped", False),
    "value_loss": ("value loss", "squared score", False),
    "drift": ("gap between sampler and trainer", "nats a token, the largest", False),
    "drift_mean": ("gap between sampler and trainer, mean", "nats a token", False),
    "ratio_max": ("largest ratio to the old policy", "times as likely", False),
    "ratio_gap": ("first ratio less 1", "as a ratio, the largest", False),
    "updates": ("updates", "optimizer steps a rollout", False),
    "pairs": ("pairs learnt from", "pairs a step", False),
    "margin": ("margin of implied rewards", "nats times beta", False),
    "chosen_logp": ("log-probability of the better", "nats a completion", False),
    "rejected_logp": ("log-probability of the worse", "nats a completion", False),
    "up_ratio": ("log-ratio of what was liked", "nats a completion", False),
    "down_ratio": ("log-ratio of what was not", "nats a completion", False),
    "point": ("reference point", "nats a completion", False),
    "q_loss": ("loss of Q", "squared deviations of the reward", False),
    "cql_loss": ("loss that keeps Q low elsewhere", "nats a token", False),
    "value": ("value", "standard deviations of the reward", False),
    "advantage": ("advantage", "standard deviations of the reward", False),
    "weight": ("weight of a token", "times", False),
    "heldout_repetition": ("repetition, held out", "share of four-token runs said before", True),
    "heldout_distinct": ("different runs, held out", "share of all two-token runs", True),
}
METRICS_OF = {  # where a stage means something else by the same name
    ("reward", "loss"): ("loss", "nats a pair", False),
    ("dpo", "loss"): ("loss", "a pair, by its objective", False),
    ("kto", "loss"): ("loss", "a thumb, from 0 to 1", False),
    ("kto", "accuracy"): ("accuracy", "thumbs on the right side", True),
    ("ilql", "loss"): ("loss", "a token, policy and critic", False),
    ("ilql", "policy_loss"): ("policy loss", "weighted nats a token", False),
    ("ilql", "value_loss"): ("value loss", "squared deviations of the reward", False),
}


def demo_page(result: Mapping[str, Any]) -> str:
    """The page for one demo result; its keys are listed in `trueup.reports`, and what is missing is left out."""
    context = {
        "seed": result.get("seed"),
        "seconds": wording.duration(wording.total_seconds(result)) if wording.total_seconds(result) else "",
        "cpu_seconds": wording.duration(result["cpu_seconds"]) if result.get("cpu_seconds") else "",
        "headline": EQUALS.join(wording.headline(result).split(" = ")),
        "simulated": wording.SIMULATED,
        "people": result.get("people", ""),
        "win_rates": _win_rates(result.get("win_rates") or []),
        "reward_models": _reward_models(result.get("reward_models") or []),
        "exhibits": _exhibits(result.get("over_optimisation") or {}),
        "gold_scores": _gold_scores(result.get("gold_scores") or []),
        "samples": [_sample(sample) for sample in result.get("samples") or []],
        "samples_title": wording.capital(wording.counted(len(result.get("samples") or []), "post")),
        "curves": _curves(result.get("curves") or {}),
        "stages": [{"data": "", "result": "", **stage} for stage in result.get("stages") or []],
        "lineage": _lines(result.get("lineage")),
        "settings": flat_rows(result.get("settings") or {}),
        "versions": flat_rows(result.get("versions") or {}),
        "notes": result.get("notes") or [],
        "commands": _lines(result.get("commands")),
    }
    filled = {key for key, value in context.items() if value}
    if filled & {"versions", "notes"}:
        filled.add("settings")  # they share a section
    context["sections"] = [SECTIONS[key] for key in SECTIONS if key in filled]
    return environment().get_template("demo.html").render(css=styles("page.css"), **context)


def styles(*names: str) -> Markup:
    """Style sheets of this folder, to stand in a page."""
    return Markup("\n".join((HERE / name).read_text("utf-8") for name in names))


@cache
def environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (wording.percent, wording.percent_range, wording.number, wording.duration):
        environment.filters[write.__name__] = write
    return environment


def _shown(value: object) -> object:
    """Escaped, with hidden characters spelled out where they stand."""
    if isinstance(value, Markup | Undefined):  # an undefined name raises when it is printed
        return value
    text = "" if value is None else str(value)
    return Markup("").join(_spelled(run) if hidden else escape(run) for run, hidden in parts(text))


def _spelled(char: str) -> Markup:
    name = unicodedata.name(char, "control character")
    return Markup('<span class="hidden-char" title="{}">{}</span>').format(name, code_point(char))


# --- sections --------------------------------------------------------------------------------------------------------


def _win_rates(rates: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not rates:
        return None
    rows = [(rate["name"], rate["value"], *_ends(rate.get("ci")), rate["n"]) for rate in rates]
    draw = partial(
        interval_chart,
        rows,
        title="Share of held-out posts won, by gold score",
        x_label="posts won (ties half), with 95% interval",
        reference_label="even",
        domain=(0, 1),
    )
    return {"rows": rates, "chart": both(draw, wide=820)}


def _reward_models(models: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not models:
        return None
    blank = {"kind": "", "ci": None, "ceiling": None, "gold_accuracy": None, "gold_ci": None}
    table = [{**blank, **model} for model in models]
    for model in table:
        model["share"] = model["accuracy"] / model["ceiling"] if model["ceiling"] else None
    rows = [(model["name"], model["accuracy"], *_ends(model["ci"]), model["n"]) for model in table]
    known = [v for model in table for v in (model["accuracy"], model["ceiling"], *(model["ci"] or ())) if v is not None]
    draw = partial(
        interval_chart,
        rows,
        title="Accuracy on held-out judgements",
        x_label="judgements foreseen, with 95% interval",
        reference_label="a coin",
        marks=[model["ceiling"] for model in table],
        mark_label="ceiling",
        domain=(min(0.5, *known), max(0.5, *known)),
    )
    return {"rows": table, "chart": both(draw, wide=820)}


def _exhibits(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not found:
        return []
    exhibits = [_exhibit("The policy of this demo", found)] if found.get("sqrt_kl") else []
    if weak := found.get("weak"):
        exhibits.append(_exhibit("A weak reward model, KL penalty off", weak))
    return exhibits


def _exhibit(title: str, curve: Mapping[str, Any]) -> dict[str, Any]:
    best = curve.get("best_of_n") or {}
    charts = []
    for metric, name, unit in (("proxy", "Proxy", "reward model score"), ("gold", "Gold", "points")):
        lines = [_series("RL", curve, "sqrt_kl", metric)]
        lines += [_series("best of n", best, "sqrt_kl", metric)] if best else []
        draw = partial(line_chart, lines, "√KL from SFT, √nats", unit, f"{name} against √KL")
        charts.append(both(draw, wide=470))
    return {"title": title, "text": _moved(curve), "charts": charts, "caption": _exhibit_caption(curve, best)}


def _moved(curve: Mapping[str, Any]) -> str:
    rows = zip(curve["sqrt_kl"], curve["proxy"], curve["gold"], strict=True)
    measured = [row for row in rows if all(value is not None and math.isfinite(value) for value in row)]
    if not measured:
        return "No point has gold, proxy and KL."
    kl, proxy, gold = zip(*measured, strict=True)
    top = max(range(len(gold)), key=lambda i: gold[i])
    where = "at the end" if top == len(gold) - 1 else f"at √KL {kl[top]:.2f}"
    text = (
        f"From √KL {kl[0]:.2f} to {kl[-1]:.2f} the proxy went from {proxy[0]:.2f} to {proxy[-1]:.2f} and gold from "
        f"{gold[0]:.2f} to {gold[-1]:.2f} points; gold was highest, {gold[top]:.2f}, {where}."
    )
    return text.replace(" -", f" {MINUS}")


def _exhibit_caption(curve: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    n = f"n = {curve['n']:,} completions a point" if curve.get("n") else "completions a point not recorded"
    band = "bands are 95% intervals" if curve.get("gold_low") else "no interval was measured"
    tried = (
        f" Best of n takes the highest proxy of n = {', '.join(map(str, best['n']))} SFT samples."
        if best.get("n")
        else ""
    )
    return f"One seed; {n}; {band}.{tried}"


def _gold_scores(groups: Sequence[Mapping[str, Any]]) -> list[Markup]:
    every = [value for group in groups for value in group["values"]]
    return [
        Markup(
            histogram(group["values"], "gold score, points", group["name"], domain=(min(every), max(every)), color=i)
        )
        for i, group in enumerate(groups)
        if group["values"]
    ]


def _curves(curves: Mapping[str, Mapping[str, Any]]) -> list[Markup]:
    known = [*STAGES, *sorted(set(curves) - set(STAGES))]
    return [chart for stage in known if curves.get(stage) for chart in _stage_charts(stage, curves[stage])]


def _stage_charts(stage: str, curve: Mapping[str, Any]) -> list[Markup]:
    """A chart a metric; the held-out loss shares that of the loss it is to be compared with."""
    charts = []
    for metric, values in curve.items():
        if not isinstance(values, list) or metric in ("step", "heldout_loss") or metric.endswith(("_low", "_high")):
            continue
        if metric.startswith("heldout_") and sum(value is not None for value in values) < 2:
            continue  # one evaluation is a number of the tables above, not a curve
        known = METRICS_OF.get((stage, metric)) or METRICS.get(metric)
        name, unit, percent = known or (metric.replace("_", " "), "", False)
        count = f"n = {wording.number(curve['n'])} a step" if curve.get("n") else ""
        lines = [_series("", curve, "step", metric)]  # the title names a line that is alone
        if metric == "loss" and curve.get("heldout_loss"):
            lines = [_series("training", curve, "step", "loss"), _series("held out", curve, "step", "heldout_loss")]
        title = f"{STAGES.get(stage, wording.capital(stage))}: {name}"
        y_label = ", ".join(filter(None, (unit, count)))
        charts.append(Markup(line_chart(lines, "step", y_label, title, percent=percent)))
    return charts


def _sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    entries = sample["entries"]
    texts = [clipped(str(entry["text"]), TEXT_LIMIT) for entry in entries]
    shown: list[object] = list(texts)
    if len(texts) > 1:
        shown = [marked(texts[0], texts[1], "del"), *(marked(text, texts[0], "ins") for text in texts[1:])]
    return {
        "post": clipped(str(sample["post"]), POST_LIMIT),
        "entries": [
            {"who": entry["who"], "text": text, "gold": wording.points(entry.get("gold"))}
            for entry, text in zip(entries, shown, strict=True)
        ],
    }


def marked(text: str, other: str, tag: str) -> object:
    """`text` with the runs of words that `other` has not in `tag`; case and punctuation make no other word."""
    words, others = BLANKS.split(text), BLANKS.split(other)
    if max(len(words), len(others)) > MARKED_WORDS:
        return text
    runs = []
    for kind, start, end, _, _ in SequenceMatcher(None, _bare(words), _bare(others), autojunk=False).get_opcodes():
        if start < end:
            run = Markup(_shown(" ".join(words[start:end])))
            runs.append(run if kind == "equal" else Markup(f"<{tag}>{run}</{tag}>"))
    return Markup(" ").join(runs)


def _bare(words: Sequence[str]) -> list[str]:
    return [word.lower().strip(string.punctuation) or word for word in words]


# --- small pieces ----------------------------------------------------------------------------------------------------


def both(draw: Callable[..., str], wide: int, narrow: int = 340) -> Markup:
    """A chart drawn twice, each at the size it is read: the style sheet shows one of them."""
    return Markup(f'<div class="wide">{draw(width=wide)}</div><div class="narrow">{draw(width=narrow)}</div>')


def _series(label: str, curve: Mapping[str, Any], x: str, y: str) -> Series:
    return Series(label, curve[x], curve[y], curve.get(f"{y}_low"), curve.get(f"{y}_high"))


def _ends(ci: Sequence[float] | None) -> tuple[float | None, float | None]:
    return (ci[0], ci[1]) if ci else (None, None)


def _lines(lines: Sequence[str] | str | None) -> str:
    return lines if isinstance(lines, str) else "\n".join(lines or ())


def flat_rows(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as `optimizer.lr` rows."""
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        rows += (
            flat_rows(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else [(f"{prefix}{key}", wording.number(value))]
        )
    return rows
