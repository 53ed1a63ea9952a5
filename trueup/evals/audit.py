"""The audit of a reward model: how often it agrees with judgements, how far it can be trusted, and what it likes.

`audit` puts the figures of the files beside this one together. It knows a scorer by its port only, so that a plain
class with a `score` method can be audited as well as a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..config.audit import AuditConfig
from ..errors import DataError
from ..ports import Scorer
from ..records import UNNAMED, Completion, Judgement, Prompt, Score
from ..stats.intervals import Floats
from . import biases, ceilings, leakage, probes
from .assistance import assisted_judges
from .bench import Question, best_of
from .confidence import calibrate
from .disagreement import ByMember, disagreement
from .gate import check_overrides, gate
from .reward import evaluate_objectives
from .scored import Advance, Pairs, pairs_of, score_all, values
from .slices import share, slices
from .verdicts import verdict_figures

WORST = 10
FRAGILE = 0.1  # share of pairs that may change their order for a blank, a double space or a typo
MOVED = 0.05  # standard deviations; more than rounding in a half-precision batch makes
LIKED = 0.2  # correlation of the score with a mark that surely has to be exceeded to be worth a sentence
CHARACTERS = "characters"

Length = Callable[[Completion], int]


def audit(
    scorer: Scorer,
    judgements: Sequence[Judgement],
    config: AuditConfig | None = None,
    *,
    train: Sequence[Judgement] | None = None,
    gold: Scorer | None = None,
    p_true: ceilings.TrueChances | None = None,
    length: Length | None = None,
    length_unit: str = CHARACTERS,
    scale: float = 1.0,
    level: float | None = 0.0,
    by_member: ByMember | None = None,
    fits: probes.Fits = lambda completion: True,
    bench: Sequence[Question] = (),
    policy: Mapping[str, Any] | None = None,
    prompts: Sequence[Prompt] | None = None,
    advance: Advance = lambda n: None,
) -> dict[str, Any]:
    """Every figure of the report, as plain JSON values.

    `train` is what the model learnt from. `p_true` gives the true vote probability of simulated judges, `gold` the true
    score. `length` counts a completion (by default its characters). `scale` turns score differences into the logits of
    training, and `level` added to that a score itself (None: its zero means nothing). `by_member` gives what each
    member of an ensemble says. `fits` says whether the model can read a completion. `policy` and `prompts` are those
    it is meant for.
    """
    config = config or AuditConfig()
    check_overrides(config)
    if not judgements:
        raise DataError("there is no judgement to audit by", "name a preference set with held-out judgements")
    pairs = pairs_of(judgements)
    scores = score_all(scorer, pairs.completions, advance)
    score, decided = values(scores), pairs.decided
    count = length or (lambda completion: len(completion.text))
    long = np.array([count(completion) for completion in pairs.completions], dtype=float)
    best = ceilings.best_possible(pairs, p_true)
    accuracy = share(decided.points(score), decided.prompt, seed=config.seed)
    truth = None if gold is None else values(gold.score(pairs.completions))
    trained_on = None if train is None else {judgement.judge for judgement in train}
    found: dict[str, Any] = {
        "judgements": len(judgements),
        "prompts": int(pairs.prompt_of.max()) + 1,
        "judges": len({judgement.judge for judgement in judgements}),
        "unnamed": all(judgement.judge == UNNAMED for judgement in judgements),
        "pairs": pairs.n,
        "ties": pairs.n - decided.n,
        "equal_sides": pairs.equal,
        "matched": pairs.matched,
        "accuracy": accuracy,
        "ceiling": best,
        "above_ceiling": ceilings.above(accuracy, best),
        "gold": None if truth is None else _by_gold(decided, score, truth),
        "verdicts": None if level is None else verdict_figures(pairs.verdicts, scale * score + level, seed=config.seed),
        "disagreement": None
        if by_member is None
        else disagreement(pairs, score, by_member, truth, advance=advance, seed=config.seed),
        "objectives": _objectives(scorer, judgements, scores),
        "slices": slices(decided, score, long, trained_on),
        "assistance": assisted_judges(judgements, gold, seed=config.seed),
        "calibration": calibrate(pairs, score, scale=scale, seed=config.seed),
        "length": biases.bias(pairs, score, long)
        | {"unit": length_unit, "curve": biases.length_curve(pairs, score, long)},
        "marks": biases.marks(pairs, score),
        "position": biases.position(pairs),
        **_probed(scorer, pairs, scores, score, config, fits, advance),
        "leakage": None if train is None else leakage.leakage(judgements, train),
        "bench": _benched(scorer, bench, count, fits, advance) if bench else None,
        "policy": None if policy is None else dict(policy),
        "prompt_shift": None
        if prompts is None
        else leakage.shift([j.prompt for j in judgements], prompts, seed=config.seed),
        "worst": _worst(decided, score),
        "config": config.model_dump(mode="json"),
    }
    found["gate"] = gate(found, config)
    return found | {"findings": findings(found), "headline": headline(found)}


def headline(found: Mapping[str, Any]) -> str:
    """What came out, in one sentence."""
    accuracy, best, verdict = found["accuracy"], found["ceiling"], found["gate"]
    low, high = accuracy["ci"]
    text = f"It agrees with {accuracy['value']:.1%} of {accuracy['n']:,} judged pairs ({low:.1%} to {high:.1%})"
    if best["value"] is not None:
        text += f", where {best['value']:.1%} is the most that anything could"
    if verdict["failed"]:
        return f"{text}; it fails the gate: {', '.join(verdict['failed'])}."
    over = f", with {', '.join(verdict['overridden'])} overridden" if verdict["overridden"] else ""
    return f"{text}; it passes the gate{over}."


def findings(found: Mapping[str, Any]) -> list[str]:
    """What a reader should not overlook, a sentence each: the conditions that fail, and what no condition is about."""
    said = [each["why"] for each in found["gate"]["conditions"] if each["met"] is False]
    calibration = found["calibration"]
    if calibration["miscalibrated"]:
        said.append(_on_calibration(calibration))
    said += _on_marks(found) + _fragile(found)
    away = found["off_topic"]
    if away["n"] and away["own_prompt_higher"]["ci"][1] < 0.6:
        said.append("it hardly tells whether a completion answers its own prompt or another one")
    spread = away.get("spread")
    if spread and spread["told_apart"] < 0.5:
        said.append("its members disagree no more off topic than on it: their spread warns of nothing")
    said += _on_members(found["disagreement"])
    said += _on_verdicts(found)
    cut = found["probes"]["first half only"].get("whole_is_better")
    if cut and cut["ci"][1] < 0.5:
        said.append("it prefers completions that are cut off in the middle to whole ones")
    if found["equal_sides"]:
        said.append(f"{found['equal_sides']} pairs with two equal sides were left out")
    if found["prompts"] == 1:
        said.append("all pairs are about one prompt: how it does on others is unknown")
    if found["judges"] == 1:
        whose = "nobody noted who judged" if found["unnamed"] else "all judgements are one judge's"
        said.append(f"{whose}: how far others would agree is unknown")
    return [text[:1].upper() + text[1:] + "." for text in said]


def _on_calibration(about: Mapping[str, Any]) -> str:
    advice = f"divide score differences by {about['temperature']:.3g} before they are read as probabilities"
    if about["after"]["nll"] >= about["coin"]["nll"]:
        advice = "at no temperature do its scores foresee more than a coin"
    return (
        f"it is too {about['too']}: its calibration error is {about['ece']:.3f}, and a perfect model would show at "
        f"most {about['null']['high']:.3f}; {advice}"
    )


def _on_marks(found: Mapping[str, Any]) -> list[str]:
    """A mark that the score goes by, and the judges do not."""
    said = []
    for name, about in found["marks"].items():
        value, (low, high), judges = about["pearson"]["value"], about["pearson"]["ci"], about["judges"]
        if max(low, -high) > LIKED and judges * np.sign(value) < abs(value) / 4:
            said.append(
                f"its scores go by {name} (a correlation of {value:+.2f} inside a prompt), and the judges' choice "
                f"hardly does ({judges:+.2f})"
            )
    return said


def _on_members(about: Mapping[str, Any] | None) -> list[str]:
    if about is None or about["spearman"] is None or about["spearman"]["ci"][0] > 0:
        return []
    low, high = about["spearman"]["ci"]
    return [
        f"where its members disagree it is not surely more often wrong (rank correlation {low:+.2f} to {high:+.2f}): "
        "their spread is a poor warning"
    ]


def _on_verdicts(found: Mapping[str, Any]) -> list[str]:
    about, said = found["verdicts"], []
    if found["matched"] and found["matched"] == found["pairs"]:
        said.append(
            f"nobody compared two completions: its {found['matched']} pairs are one called right and one called wrong, "
            "of two prompts where none has both"
        )
    if about and about["accuracy"]["ci"][1] < about["always"]:
        said.append(
            f"a score above 0 agrees with {about['accuracy']['value']:.1%} of {about['n']} verdicts on single "
            f"completions; always saying the same would with {about['always']:.1%}"
        )
    return said


def _of_two(right: Prompt, wrong: Prompt) -> str:
    return f"{right.text}\n\nAnd of the other completion:\n\n{wrong.text}"


def _fragile(found: Mapping[str, Any]) -> list[str]:
    """Changes that should change nothing, and do."""
    said = []
    for name in probes.SMALL:
        flips = found["probes"][name]["flips"]
        if flips and flips["ci"][0] > FRAGILE:
            said.append(f"{flips['value']:.0%} of the pairs change their order for this change: {name}")
    moved = max((v for k, v in found["steady"].items() if k != "n"), default=0.0)
    if moved > MOVED:
        said.append(f"the same text scores differently in another batch, by up to {moved:.2g} standard deviations")
    return said


def completions_to_score(judgements: Sequence[Judgement], config: AuditConfig, *, members: bool = False) -> int:
    """About how many scores an audit takes, for somebody who waits. `members`: whether each of them is asked too."""
    pairs = pairs_of(judgements)
    sample = probes.sampled(pairs, config.probes, config.seed)
    used = len(np.unique(np.concatenate([sample.first, sample.second])))
    alone = min(used, probes.ALONE)
    return (1 + members) * len(pairs.completions) + used * (len(probes.SMALL | probes.LARGE) + 1) + 4 * alone


def _probed(
    scorer: Scorer,
    pairs: Pairs,
    scores: Sequence[Score],
    score: Floats,
    config: AuditConfig,
    fits: probes.Fits,
    advance: Advance,
) -> dict[str, Any]:
    sample = probes.sampled(pairs, config.probes, config.seed)
    return {
        "probes": probes.changed(scorer, sample, score, fits, advance),
        "steady": probes.steady(scorer, sample, score, config.seed, advance),
        "off_topic": probes.off_topic(scorer, sample, scores, fits, config.seed, advance),
    }


def _benched(
    scorer: Scorer, bench: Sequence[Question], count: Length, fits: probes.Fits, advance: Advance
) -> dict[str, Any]:
    kept = [q for q in bench if all(fits(Completion(q.prompt, text)) for text in q.completions)]
    if not kept:
        raise DataError(
            f"none of the {len(bench)} benchmark rows fits the context of the reward model",
            "leave the benchmark out, or use a reward model that reads more",
        )
    found = best_of(scorer, kept, lambda cs: np.array([count(c) for c in cs], dtype=float), advance)
    return found | {"too_long": len(bench) - len(kept)}


def _by_gold(pairs: Pairs, score: Floats, truth: Floats) -> dict[str, Any]:
    """How often the scorer orders a pair as the gold score does: what the judges got wrong does not count here."""
    better = np.sign(pairs.gap(truth))
    ordered = better != 0
    points = (np.sign(pairs.gap(score)) * better + 1) / 2
    return share(points[ordered], pairs.prompt[ordered])


def _objectives(scorer: Scorer, judgements: Sequence[Judgement], scores: Sequence[Score]) -> dict[str, Any]:
    """Of a model with several heads, how often each agrees with the judgements that speak of it."""
    known = [name for name in scores[0].parts if name != probes.SPREAD]
    spoken = [name for name in known if any(judgement.pairs_on(name) for judgement in judgements)]
    return evaluate_objectives(scorer, judgements, spoken) if spoken else {}


def _worst(pairs: Pairs, score: Floats) -> list[dict[str, Any]]:
    """The pairs on which it is most surely wrong, each different pair once."""
    better, worse = pairs.better(), pairs.worse()
    margin = score[worse] - score[better]
    shown: dict[tuple[int, int], dict[str, Any]] = {}
    for row in np.argsort(-margin, kind="stable").tolist():
        if margin[row] <= 0 or len(shown) == WORST:
            break
        one, other = pairs.completions[better[row]], pairs.completions[worse[row]]
        judgement = pairs.judgements[pairs.of[row]]
        about = {
            "prompt": one.prompt.text if one.prompt.id == other.prompt.id else _of_two(one.prompt, other.prompt),
            "chosen": one.text,
            "rejected": other.text,
            "score_chosen": float(score[better[row]]),
            "score_rejected": float(score[worse[row]]),
            "judge": judgement.judge,
            "strength": judgement.meta.get("strength"),
        }
        shown.setdefault((int(better[row]), int(worse[row])), about)
    return list(shown.values())
