"""The report card of a reward model: one HTML file from the JSON of an audit, loading nothing and running nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup

from . import wording
from .assistance import assistance_lines
from .axes import MINUS
from .charts import Row, Series, interval_chart, line_chart
from .page import both, environment, styles
from .visible import clipped

SHOWN = 1200  # characters of a prompt or a completion
SLICES_DRAWN = 24
SECTIONS = {
    "gate": "The gate",
    "accuracy": "Accuracy",
    "calibration": "Calibration",
    "length": "Length and marks",
    "robustness": "Robustness",
    "leakage": "Leakage",
    "best-of-several": "Best of several",
    "mistakes": "Worst mistakes",
    "settings": "Settings",
}
SHARED = {
    "same_prompt": "the same prompt",
    "same_opening": "the opening of the same conversation",
    "alike": "a prompt nearly alike",
    "completions": "all completions",
}


def reward_card(found: Mapping[str, Any], model: str, data: str) -> str:
    """The page for what `evals.audit` found. `model` and `data` are what the two are called."""
    absent = {
        "leakage": not found["leakage"],
        "best-of-several": not found["bench"],
        "mistakes": not found["worst"],
    }
    page = environment().overlay()
    page.filters = {**page.filters, "signed": signed}
    return page.get_template("card.html").render(
        css=styles("page.css"),
        model=model,
        data=data,
        headline=found["headline"],
        basis=_basis(found),
        findings=found["findings"],
        sections=[(key, title) for key, title in SECTIONS.items() if not absent.get(key)],
        conditions=[{**each, "verdict": _verdict(each)} for each in found["gate"]["conditions"]],
        accuracy=_accuracy(found),
        ceiling=ceiling_words(found["ceiling"]),
        verdicts=verdict_words(found["verdicts"]),
        objectives=[objective_words(name, about) for name, about in found["objectives"].items()],
        slices=found["slices"],
        helped=assistance_lines(found["assistance"]) if found["assistance"] else [],
        calibration=_calibration(found["calibration"]),
        length=_length(found),
        probes=[{"name": name, **about} for name, about in found["probes"].items()],
        steady=_steady(found),
        leakage=_leakage(found["leakage"]),
        bench=_bench(found["bench"]),
        worst=[_mistake(each) for each in found["worst"]],
        settings=[
            (key, wording.number(value)) for key, value in found["config"].items() if not isinstance(value, dict)
        ],
    )


def signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}".replace("-", MINUS)


def ceiling_words(best: Mapping[str, Any]) -> str:
    if best["value"] is None:
        return "The most that anything could reach is unknown: no two judges were asked about the same pair."
    where = f"{best['value']:.1%} ({wording.percent_range(best['ci'])})"
    if best["from"] == "true vote probabilities":
        return f"The most that anything could reach is {where}: the judges are simulated and their noise is known."
    return (
        f"The most that anything could reach is about {where}, from {best['n']:,} pairs that several judges answered, "
        f"who agree on {best['agreement']:.1%}; it is an upper bound, as if every pair were equally hard."
    )


def verdict_words(about: Mapping[str, Any] | None) -> str:
    if not about:
        return ""
    share, most = about["accuracy"], about["null"]["high"]
    return (
        f"Of {about['n']:,} verdicts on single completions {about['right']:.1%} are “right”. A score above 0 agrees "
        f"with {share['value']:.1%} of them ({wording.percent_range(share['ci'])}); always saying the commoner one "
        f"would with {about['always']:.1%}. Read as the chance of being right, scores have a calibration error of "
        f"{about['ece']:.3f}, where a perfect model would show at most {most:.3f}."
    )


def objective_words(name: str, about: Mapping[str, Any]) -> str:
    return (
        f"Its objective “{name}” by itself agrees with {about['value']:.1%} ({wording.percent_range(about['ci'])}) of "
        f"{about['n']:,} pairs that were judged on it."
    )


def _members(about: Mapping[str, Any]) -> list[str]:
    """Whether the members of an ensemble disagree where it is wrong."""
    shares = {name: each["value"] for name, each in about["accuracy"].items() if each["n"]}
    listed = ", ".join(f"{value:.1%} where they differ {name}" for name, value in shares.items())
    found = about["spearman"]
    text = "nothing varies" if found is None else f"{signed(found['value'])} ({' to '.join(map(signed, found['ci']))})"
    return [
        f"By rank, how far its {about['members']} members differ about a pair correlates with being wrong about it by "
        f"{text}, by the {about['against']}. It is right on {listed}."
    ]


def _basis(found: Mapping[str, Any]) -> str:
    whose = "judges whom nobody named" if found["unnamed"] else wording.counted(found["judges"], "judge")
    return (
        f"{found['judgements']:,} judgements of {whose} about "
        f"{found['prompts']:,} prompts: {found['pairs']:,} pairs, {found['ties']:,} of them ties, and "
        f"{found['equal_sides']:,} more with two equal sides left out."
    )


def _verdict(condition: Mapping[str, Any]) -> str:
    if condition["met"] is None:
        return "unknown"
    return "met" if condition["met"] else "overridden" if condition["overridden"] else "failed"


def _accuracy(found: Mapping[str, Any]) -> Markup:
    whole = {"kind": "", "name": "all pairs", **found["accuracy"], "longest": found["length"]["always_most"]["value"]}
    largest = sorted(found["slices"], key=lambda each: -each["n"])[:SLICES_DRAWN]
    shown = [whole, *(each for each in found["slices"] if each in largest)]
    rows: list[Row] = [
        (": ".join(filter(None, (each["kind"], each["name"]))), each["value"], *each["ci"], each["n"]) for each in shown
    ]
    draw = partial(
        interval_chart,
        rows,
        title="Accuracy by slice",
        x_label="pairs ordered as judged, with 95% interval",
        reference_label="a coin",
        marks=[each["longest"] for each in shown],
        mark_label="always longest",
    )
    return both(draw, wide=820)


def _calibration(about: Mapping[str, Any]) -> dict[str, Any]:
    after = about["after"]
    verdict = "more than luck explains" if about["miscalibrated"] else "no more than luck explains"
    text = (
        f"The calibration error is {about['ece']:.3f}, {verdict}: a perfect model would show "
        f"{about['null']['mean']:.3f} on average and at most {about['null']['high']:.3f}. The temperature that "
        f"fits is {about['temperature']:.3g}."
    )
    rows = [
        ("calibration error", *(f"{part['ece']:.3f}" for part in (about, after)), ""),
        ("a perfect model, at most", *(f"{part['null']['high']:.3f}" for part in (about, after)), ""),
        ("with equally full bins", *(f"{part['equal_mass']['ece']:.3f}" for part in (about, after)), ""),
        ("NLL, nats", *(f"{part['nll']:.3f}" for part in (about, after)), f"{about['coin']['nll']:.3f}"),
        ("Brier score", *(f"{part['brier']:.3f}" for part in (about, after)), f"{about['coin']['brier']:.3f}"),
    ]
    named = (("As it is", about), (f"After temperature {about['temperature']:.3g}", after))
    return {"text": text, "rows": rows, "charts": [_reliability(part, title) for title, part in named]}


def _reliability(about: Mapping[str, Any], title: str) -> Markup:
    bins = about["reliability"]
    sure = [each["predicted"] for each in bins]
    null = [each["null"] for each in bins]
    perfect = Series("perfect", sure, sure, [low for low, _ in null], [high for _, high in null])
    seen = [each["ci"] for each in bins]
    observed = Series(
        "seen", sure, [each["seen"] for each in bins], [low for low, _ in seen], [high for _, high in seen]
    )
    draw = partial(line_chart, [perfect, observed], "how sure the model is", "judges agree", title, percent=True)
    return both(draw, wide=470)


def _length(found: Mapping[str, Any]) -> dict[str, Any]:
    length, unit = found["length"], found["length"]["unit"]
    longest, shortest = (length[key]["value"] for key in ("always_most", "always_least"))
    text = (
        f"Inside a prompt, score and length (in {unit}) correlate by {signed(length['pearson']['value'])}; the "
        f"judges’ own choice and length by {signed(length['judges'])}. Always preferring the longer completion would "
        f"be right on {longest:.1%} of the pairs, the shorter one on {shortest:.1%}."
    )
    curve = length["curve"]
    ends = [each["ci"] for each in curve]
    line = Series(
        "",
        [each["gap"] for each in curve],
        [each["value"] for each in curve],
        [low for low, _ in ends],
        [high for _, high in ends],
    )
    label = f"preferred completion longer by, {unit}"
    draw = partial(line_chart, [line], label, "accuracy", "Accuracy by length gap", [(0.5, "a coin")], percent=True)
    rows = [{"name": f"length, {unit}", **length}, *({"name": name, **row} for name, row in found["marks"].items())]
    return {"text": text, "chart": both(draw, wide=640), "rows": rows}


def _steady(found: Mapping[str, Any]) -> list[str]:
    steady, away = found["steady"], found["off_topic"]
    about = found["disagreement"]
    cut = found["probes"]["first half only"].get("whole_is_better")
    lines = []
    if steady["n"]:
        lines.append(
            f"The same {steady['n']} texts move by at most {steady['alone']:.2g} standard deviations when they are "
            f"scored one by one, {steady['other_order']:.2g} in another order, and {steady['duplicates']:.2g} twice in "
            "one call."
        )
    if cut:
        lines.append(
            f"A whole completion scores above its own first half in {cut['value']:.1%} of {cut['n']:,} cases "
            f"({wording.percent_range(cut['ci'])})."
        )
    if away["n"]:
        own = away["own_prompt_higher"]
        lines.append(
            f"A completion scores higher under its own prompt than under another in {own['value']:.1%} of {own['n']:,} "
            f"cases ({wording.percent_range(own['ci'])})."
        )
    if spread := away.get("spread"):
        lines.append(
            f"The members of the ensemble disagree by {spread['in']:.2g} on their own ground and by "
            f"{spread['out']:.2g} off topic; the higher spread is the one off topic in "
            f"{spread['told_apart']:.1%} of cases."
        )
    return lines + (_members(about) if about else [])


def _leakage(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not found:
        return None
    listed = ", ".join(f"{words} for {found[key]['value']:.1%}" for key, words in SHARED.items())
    text = (
        f"{found['value']:.1%} of the {found['n']:,} judgements ({wording.percent_range(found['ci'])}) share something "
        f"with the {found['train']:,} of training: {listed}."
    )
    return {"text": text, "examples": [clipped(str(text), SHOWN) for text in found["examples"]]}


def _bench(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not found:
        return None
    total = (
        f"{found['value']:.1%} ({wording.percent_range(found['ci'])}, n = {found['n']:,}); chance "
        f"{found['chance']:.1%}, always longest {found['longest']:.1%}, always shortest {found['shortest']:.1%}."
    )
    if found["too_long"]:
        total += f" {found['too_long']:,} rows are longer than the model reads and were left out."
    return {"rows": [{"name": name, **row} for name, row in found["subsets"].items()], "total": total}


def _mistake(pair: Mapping[str, Any]) -> dict[str, Any]:
    texts: Sequence[str] = ("prompt", "chosen", "rejected")
    return {**pair, **{key: clipped(str(pair[key]), SHOWN) for key in texts}}
