"""What can be wrong with a scorer, as the rollouts that it scored show it: before asking what the policy made of it.

All of it is seen in what the run kept. A scorer that is wrong everywhere alike is not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .reading import Finding, Reading, fault

Row = dict[str, Any]

SAME = 1e-6  # standard deviation of scores that are all one number
SCALE = (1 / 3, 3.0)  # of the standard deviation that ought to be 1: 128 samples measure it to within a tenth
BARE_SCALE = (0.01, 30.0)  # the same with score_scale = "none", where it may be anything usual
PROMPTS = 8  # groups of one prompt that all have one score: fewer may have it by chance, where scores are 0 or 1
REPEATED = 10  # texts that were scored more than once: enough to tell noise from rounding
NOISE = 0.5  # share of the variance of scores that is there among equal texts
MOVED, SURE = 0.25, 3.0  # how far the score of one text went, in units of the spread at the start, and how surely
NEAR = (1e-3, 0.5)  # nats a completion: up to there half of what is written the reference might have written too
BEYOND = 2.0  # times what a policy so near the reference can gain
GAP = 0.5  # share of the distance to a floor that is still there at the end
GROWN = 1.3  # times the multiplier of half-way


def score_not_finite(reading: Reading) -> Finding | None:
    missing = reading.missing("score")
    if not missing:
        return None
    return fault(
        "score-not-finite",
        f"At {missing} of {reading.steps} steps the scorer gave something that is no finite number; "
        "nothing was learnt there.",
        "ask the scorer about such texts: `trueup score`; `trueup runs samples RUN` shows them",
        "mend the scorer: a number for every text, also an empty one",
        see=("score", "gradient_norm"),
    )


def score_constant(reading: Reading) -> Finding | None:
    rows = reading.scored([*reading.early, *reading.late])
    if not rows or max(np.std(scores) for scores in _scores_by(rows, "step").values()) > SAME:
        return None
    return fault(
        "score-constant",
        f"The scorer says {rows[0]['score']:.4g} of every one of {len(rows)} completions: it prefers nothing, so "
        "there is nothing to learn.",
        "ask it about two different texts: `trueup score`",
        "does it read the completion, or only the prompt?",
        see=("score", "score_std"),
    )


def score_by_prompt(reading: Reading) -> Finding | None:
    """Within one step: a scale that runs gives another number later."""
    rows = reading.scored([*reading.early, *reading.late])
    texts = Counter((step, prompt) for step, prompt, _ in _scores_by(rows, "step", "prompt", "text"))
    groups = [scores for key, scores in _scores_by(rows, "step", "prompt").items() if texts[key] > 1]
    if len(groups) < PROMPTS or max(np.std(scores) for scores in groups) > SAME or score_constant(reading):
        return None
    return fault(
        "score-by-prompt",
        f"The scorer tells prompts apart, and never two completions of one prompt: in all {len(groups)} groups of "
        "different completions the scores are equal. There is nothing to learn.",
        "does it read the completion at all? Ask it about two completions of one prompt: `trueup score`",
        see=("score", "score_std"),
    )


def score_random(reading: Reading) -> Finding | None:
    """Rounding too gives one text many scores: a little apart."""
    apart = ("step", "prompt", "text") if _changes_by_design(reading) else ("prompt", "text")
    repeated = [each for each in _scores_by(reading.scored(reading.spread), *apart).values() if len(each) > 1]
    if len(repeated) < REPEATED or score_drifts(reading):
        return None
    among = float(np.mean([np.var(scores, ddof=1) for scores in repeated]))
    whole = float(np.var(np.concatenate(repeated), ddof=1))
    if among < max(NOISE * whole, (MOVED * reading.unit) ** 2):
        return None
    return fault(
        "score-random",
        f"One text gets many scores: {len(repeated)} texts were scored more than once, and {among / whole:.0%} of the "
        "variance of their scores is between equal texts.",
        "ask the scorer twice about the same text: `trueup score`",
        "a function that draws at random, or a model with dropout on?",
        see=("score", "score_std"),
    )


def score_drifts(reading: Reading) -> Finding | None:
    if _changes_by_design(reading):
        return None
    says = _other_scores_later(reading) or _more_than_near_texts_can(reading)
    if not says:
        return None
    return fault(
        "score-drifts",
        f"The scorer changes while the policy learns: {says}.",
        "ask it about the same texts at two times: `trueup score`",
        "does it count calls, read a clock, or learn from what it sees? A score must depend on prompt and completion "
        "alone",
        see=("score", "heldout_score", "kl"),
    )


def score_scale(reading: Reading) -> Finding | None:
    spread = reading.of_samples(reading.scored(reading.first_samples), "score")
    chosen = reading.setting("score_scale") or "none"
    low, high = BARE_SCALE if chosen == "none" else SCALE
    if len(spread) < 16 or low <= spread.std() <= high:
        return None
    return fault(
        "score-scale",
        f"Scores of the first rollout have a standard deviation of {spread.std():.3g} with score_scale = '{chosen}', "
        f"outside {low:.2g} to {high:.2g}: `kl_coefficient` does not mean what it should.",
        "--set score_scale=reference",
        "are the prompts of training like those the scale was measured on? Does the scorer change while it runs?",
        see=("score", "score_std"),
    )


def floor_unreachable(reading: Reading) -> Finding | None:
    floors = reading.setting("scoring.objectives") or []
    out_of_reach = (_out_of_reach(reading, each["name"], each["at_least"]) for each in floors if _has_floor(each))
    return next(filter(None, out_of_reach), None)


def _out_of_reach(reading: Reading, name: str, floor: float) -> Finding | None:
    """The multiplier only ever grew in the second half, and what it pays for came no nearer."""
    price, part = f"multiplier_{name}", f"score_{name}"
    multipliers, reached, change = reading.values(price), reading.values(part), reading.change(part)
    half = len(multipliers) // 2
    if half < 5 or change is None or reached[half:].max() >= floor:
        return None
    grew = (np.diff(multipliers[half:]) >= 0).all() and multipliers[-1] > GROWN * multipliers[half]
    if not grew or floor - change.last < GAP * (floor - change.first):
        return None
    return fault(
        "floor-unreachable",
        f"The floor of '{name}' is {floor:g} and its mean is {change.last:.3g}, no nearer than at the start "
        f"({change.first:.3g}): its multiplier grows without end, to {multipliers[-1]:.3g}, and buys nothing.",
        "a floor that some completions do reach: `trueup eval tradeoff` says what is to be had",
        "floors are in standard deviations of the reference, unless scoring.normalise = false",
        see=(price, part, "score"),
    )


def _has_floor(objective: Row) -> bool:
    return objective.get("at_least") is not None


def _scores_by(rows: Sequence[Row], *keys: str) -> dict[tuple[Any, ...], list[float]]:
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row["score"])
    return found


def _changes_by_design(reading: Reading) -> bool:
    """By a multiplier, or by a scale that runs: that says nothing of the scorer."""
    return bool(reading.setting("scoring.floor") == "multiplier" or reading.setting("score_scale") == "running")


def _other_scores_later(reading: Reading) -> str:
    """The same texts, written early and late."""
    rows, middle = reading.scored(reading.spread), reading.steps / 2
    early = _scores_by([row for row in rows if row["step"] <= middle], "prompt", "text")
    late = _scores_by([row for row in rows if row["step"] > middle], "prompt", "text")
    moved = [float(np.mean(late[text]) - np.mean(early[text])) for text in early if text in late]
    if len(moved) < REPEATED:
        return ""
    mean, error = float(np.mean(moved)), float(np.std(moved, ddof=1)) / math.sqrt(len(moved))
    if abs(mean) < max(MOVED * reading.unit, SURE * error):
        return ""
    return f"{len(moved)} texts that were written in both halves of the run got {mean:+.3g} more in the second one"


def _more_than_near_texts_can(reading: Reading) -> str:
    """Pinsker: means of a score under two policies differ by at most its range times sqrt(KL / 2)."""
    score, kl = reading.change("score"), reading.values("kl")
    if score is None or not len(kl) or not NEAR[0] < kl.max() < NEAR[1]:
        return ""
    rows = reading.scored([*reading.early, *reading.late])
    widest = max((float(np.ptp(scores)) for scores in _scores_by(rows, "step").values()), default=0.0)
    most = widest * math.sqrt(float(kl.max()) / 2)
    if abs(score.by) < max(BEYOND * most, MOVED * reading.unit) or abs(score.sure) < SURE:
        return ""
    return (
        f"the mean score went from {score.first:.3g} to {score.last:.3g} at a KL of {kl.max():.2g} nats, where no "
        f"policy can gain more than {most:.2g}"
    )
