"""What can be wrong with reinforcement learning, as its metrics, events and samples show it.

Most fundamental first: numbers that are none, then arithmetic that does not hold (ratio, drift, KL), then scores, then
steps, then what a policy does to its scorer. What is found earlier explains what is found later.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..stats.within import within_pearson
from .loss_checks import HIGHER, RATE, SURE, Check, ended_badly, evaluation_was_due, loss_not_finite, too_short
from .reading import Finding, Reading, fault, note
from .scorer_checks import (
    SAME,
    floor_unreachable,
    score_by_prompt,
    score_constant,
    score_drifts,
    score_not_finite,
    score_random,
    score_scale,
)
from .value_checks import value_harmful, value_idle, value_runs_away

# Arithmetic. Rounding in float32 is 1e-6; in 16 bits, kernels of sampler and trainer differ by about 0.01 on average.
DRIFT = 0.02  # mean gap of a token's log-probability: a sampler with top_p = 0.95 would be off by more
START_KL = 0.005  # nats a token before the first update: a gap of 0.1 in every token
ZERO_KL = 0.1  # times what one rollout moved: a policy that moves is further than that from what does not
NEGATIVE_KL = 0.05  # nats a completion below zero, and surely so: the mean of log-ratios may be negative by chance
# Texts at the start
CUT = 0.5  # share of completions without an end, from the start: most of what is scored is half a text
ENDLESS = 0.3  # by how much that share may grow
# Steps
BIG_STEPS = 10  # the first steps, when the rate is highest
STOPPED = 0.5  # share of them that ended early
JUMP = 1.0  # nats a token in one step: the policy writes another language after it
STILL_KL, STILL_STEP = 1e-5, 1e-6  # nats a token from the reference, and from one update to the next: no movement
GRADIENT = 10.0  # times optimizer.grad_clip: the norm is nearly all clipped away
# What is learnt, in units of the standard deviation of scores at the start
FALLEN = 0.25
FELL_BACK = 0.5  # each time the guard went back, on average: a policy that only wanders loses less
LITTLE = 0.3
LONG, MOVED, GAINED = 10, 1.0, 0.1  # steps, nats a completion, part of what so much KL can buy
TURNED = 0.5  # by how much a judge's score may fall from its best: 64 prompts measure it to within 0.13
# KL
DOMINANT = 2.0  # the spread of what KL costs over the spread of scores: advantages are mostly KL
NEGLIGIBLE = 0.02  # share of the gained score that KL took back
FAR, FAR_TEXT = 0.25, 10.0  # nats a token, nats a completion: where published runs have long turned over
OFF_TARGET = 2.0  # times or parts of kl_target
# Texts
LONGER, GOES_WITH = 1.3, 0.5  # growth of the length, correlation of score and length within prompts
REPEATED, ONE_TEXT = 0.5, 0.5  # share of repeated four-token runs; share of completions that are one text


def ratio(reading: Reading) -> Finding | None:
    told = [event["gap"] for event in reading.told("ratio")]
    gap = max([*told, *reading.values("ratio_gap")], default=0.0)
    if not told and gap <= (reading.setting("clip") or 0.0):
        return None
    return fault(
        "ratio-not-one",
        f"Before the first update of a rollout the ratio was off by {gap:.2g}, and it has to be 1: the same weights "
        "gave the same tokens two probabilities.",
        "does the model compute something random (dropout, routing), or do its log-probabilities depend on the batch?",
        "with 16 bits: --set model.dtype=float32",
        see=("ratio_gap", "drift"),
    )


def drift(reading: Reading) -> Finding | None:
    gap = reading.values("drift_mean")
    if not len(gap) or np.median(gap) <= DRIFT:
        return None
    return fault(
        "sampler-disagrees",
        f"Sampler and trainer differ by {np.median(gap):.2g} in a token's log-probability, on average: what is written "
        "does not come from the policy that is trained.",
        "same temperature in both, no top_p or top_k, no penalties in the engine",
        "the engine's weights: are they the policy's present ones?",
        see=("drift_mean", "drift"),
    )


def kl_at_start(reading: Reading) -> Finding | None:
    if not reading.rows or reading.rows[0].get("step") != 1:
        return None
    kl, length = reading.rows[0].get("kl"), reading.rows[0].get("length")
    a_token = max(abs(kl or 0.0) / max(length or 1.0, 1.0), reading.rows[0].get("kl_k3") or 0.0)
    if a_token <= START_KL:
        return None
    return fault(
        "kl-at-start",
        f"Before the first update the policy is already {a_token:.2g} nats a token from the reference, and it has to "
        "be 0: the reference is not the model that the policy started from.",
        "same weights and same temperature for both",
        "with LoRA the reference is the adapter switched off: does the adapter start at zero?",
        see=("kl", "kl_k3"),
    )


def kl_negative(reading: Reading) -> Finding | None:
    kl = reading.of_samples(reading.late, "kl")
    if len(kl) < 2:
        return None
    mean, error = float(kl.mean()), float(kl.std() / math.sqrt(len(kl)))
    if mean > -NEGATIVE_KL or mean > -SURE * error:
        return None
    return fault(
        "kl-negative",
        f"The KL of the last {len(kl)} completions is {mean:.2g} ± {error:.1g} nats, and no KL is below 0: tokens do "
        "not come from the policy, or policy and reference are the wrong way round.",
        "an engine must sample at the policy's temperature, without top_p, top_k or penalties",
        "log(policy / reference), in this order",
        see=("kl", "kl_k3", "drift_mean"),
    )


def kl_stays_zero(reading: Reading) -> Finding | None:
    """Between two rollouts nothing but `reference_rate` may move the reference."""
    if reading.setting("reference_rate") or not _moves_at_no_kl(reading):
        return None
    return fault(
        "kl-stays-zero",
        "The policy moves, and its KL to the reference stays 0: the reference moves with it, so nothing holds the "
        "policy near where it started.",
        "is the reference the very model that is trained? It has to be a frozen copy, or the adapter switched off",
        "is the KL computed of policy and reference, or of the policy and itself?",
        see=("kl", "approx_kl", "score"),
    )


def _moves_at_no_kl(reading: Reading) -> bool:
    """By the first rollout that moved the policy; with one update a rollout that says nothing, and the score tells."""
    rows = [row for row in reading.rows if "kl" in row]
    moved = next((i for i, row in enumerate(rows) if (row.get("approx_kl") or 0.0) > STILL_STEP), None)
    if moved is None:
        score, kl = reading.change("score"), reading.values("kl")
        if score is None or reading.steps < LONG or float(abs(kl).max()) >= STILL_KL:
            return False
        return abs(score.sure) > SURE and abs(score.by) > LITTLE * reading.unit
    later = [abs(row["kl"] or 0.0) for row in rows[moved + 1 :]]
    return len(later) >= 3 and max(later) < ZERO_KL * rows[moved]["approx_kl"]


def cut_texts(reading: Reading) -> Finding | None:
    share = reading.values("unfinished")
    if not len(share) or share[0] <= CUT:
        return None
    limit = reading.setting("sampling.max_new_tokens")
    return fault(
        "texts-cut",
        f"At the start {share[0]:.0%} of completions had no end after {limit} tokens: the limit decides their score, "
        "not their content.",
        f"a higher limit: --set sampling.max_new_tokens={2 * limit}",
        "does the policy know how to end at all? SFT on demonstrations teaches it",
        see=("unfinished", "length"),
    )


def steps_too_long(reading: Reading) -> Finding | None:
    first = min(BIG_STEPS, reading.steps)
    stopped = {event["step"] for event in reading.told("early stop") if event["step"] <= first}
    jumps = np.diff(_nats_a_token(reading.rows[: first + 1]))
    largest = float(jumps.max()) if len(jumps) else 0.0
    if first < 2 or (len(stopped) <= STOPPED * first and largest <= JUMP):
        return None
    said = [f"{len(stopped)} of the first {first} rollouts ended early, over guard.max_approx_kl"] if stopped else []
    said += [f"one step moved the policy by {largest:.2g} nats a token"] if largest > JUMP else []
    back = len(reading.told("rollback"))
    said += [f"the guard went back {_times(back)}"] if back else []
    return fault(
        "steps-too-long",
        "Steps are too long: " + "; ".join(said) + ".",
        RATE.format(reading.setting("optimizer.lr") / 10),
        "fewer passes over a rollout: --set epochs=1",
        see=("approx_kl", "clip_fraction", "kl", "score"),
    )


def _nats_a_token(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Not by `kl_k3`: one token that the policy would hardly write can be most of its mean."""
    known = [row for row in rows if None not in (row.get("kl"), row.get("length"))]
    return [row["kl"] / max(row["length"], 1.0) for row in known]


def nothing_moves(reading: Reading) -> Finding | None:
    kl, step = reading.values("kl_k3"), reading.values("approx_kl")
    if len(kl) < 5 or kl.max() > STILL_KL or (len(step) and step.max() > STILL_STEP) or _moves_at_no_kl(reading):
        return None
    return fault(
        "nothing-moves",
        f"In {reading.steps} steps the policy got no further than {kl.max():.1g} nats a token from where it started.",
        HIGHER.format(reading.setting("optimizer.lr") * 100),
        "are the right weights trained? See model.adapter in `trueup runs show RUN`",
        see=("approx_kl", "kl_k3", "score", "gradient_norm"),
    )


def score_falls(reading: Reading) -> Finding | None:
    says = _falls(reading) or _falls_each_time(reading)
    if not says:
        return None
    return fault(
        "score-falls",
        f"{says}: it learns the opposite of what it is paid for.",
        "the sign of the score: does a better text get the higher number? `trueup score`",
        "in an estimator of your own: the sign of the advantage, and does each stand beside its completion?",
        see=("score", "heldout_score", "kl", "unfinished"),
    )


def _falls(reading: Reading) -> str:
    score = reading.change("score")
    if score is None or score.sure > -SURE:
        return ""
    began = reading.values("score")[0]
    if score.last > began - FALLEN * reading.unit:
        return ""
    return f"The score it is trained on fell from {began:.3g} to {score.last:.3g}"


def _falls_each_time(reading: Reading) -> str:
    """Where the guard goes back, the score begins anew each time and shows no trend: what was taken back does."""
    back = reading.of_samples(_taken_back(reading), "heldout_score")
    start, gained = _start(reading), _gained(reading)
    if len(back) < 2 or start is None or gained is None or gained > FALLEN * reading.unit:
        return ""
    fell = start - float(back.mean())
    if fell < FELL_BACK * reading.unit:
        return ""
    return (
        f"The guard took back {_times(len(back))} what was learnt: there the held-out score was {back.mean():.3g} on "
        f"average, after {start:.3g} before the first step"
    )


def kl_too_tight(reading: Reading) -> Finding | None:
    score, price = reading.change("score"), _price(reading)
    if score is None or reading.setting("kl_target") is not None or score.by > LITTLE * reading.unit:
        return None
    kl, scores = (reading.of_samples(reading.late, name) for name in ("kl", "score"))
    if reading.steps < 5 or len(kl) < 2 or not SAME < DOMINANT * scores.std() < price * kl.std():
        return None
    return fault(
        "kl-too-tight",
        f"With {_price_name(reading)} = {price:g} what KL costs differs by {price * kl.std():.2g} among completions, "
        f"their scores by {scores.std():.2g}: it learns to stay (score {score.first:.2g} to {score.last:.2g}).",
        f"a lower one: --set {_price_name(reading)}={price / 10:g}",
        "or say what KL it may have: --kl-target 4",
        see=("kl", "score", "gradient_norm"),
    )


def moves_without_gain(reading: Reading) -> Finding | None:
    says = "" if reading.steps < LONG or score_falls(reading) else _away_for_nothing(reading) or _never_better(reading)
    if not says:
        return None
    return fault(
        "moves-without-gain",
        f"{says}. What it learns from is not what was scored.",
        "do advantages stand beside the completions they belong to, and with their sign, in an estimator of your own?",
        "does the scorer say the same of the same text twice? `trueup score`",
        RATE.format(reading.setting("optimizer.lr") / 3) + ", or more completions a step, if scores are noisy",
        see=("score", "kl", "heldout_score"),
    )


def _away_for_nothing(reading: Reading) -> str:
    score, kl = reading.change("score"), reading.change("kl")
    if score is None or kl is None or kl.last < MOVED or kl.sure < SURE or score.by > _bought(reading, kl.last):
        return ""
    return (
        f"The policy went {kl.last:.2g} nats a completion away and gained nothing: the score was {score.first:.2g} and "
        f"is {score.last:.2g}"
    )


def _never_better(reading: Reading) -> str:
    """Where the guard goes back, score and KL begin anew each time and show no trend: evaluations do."""
    back, start, gained = len(_taken_back(reading)), _start(reading), _gained(reading)
    score, farthest = reading.change("score"), float(max(reading.values("kl"), default=0.0))
    if start is None or gained is None or score is None or (back < 2 and farthest < MOVED):
        return ""
    bought = _bought(reading, farthest)
    if gained > bought or (score.sure > SURE and score.by > bought):
        return ""
    said = f"The guard took back {_times(back)} what was learnt. " if back else ""
    return (
        f"{said}At most {farthest:.2g} nats a completion away, the best of {len(reading.values('heldout_score'))} "
        f"evaluations has a score of {start + gained:.3g}, after {start:.3g} before the first step"
    )


def _bought(reading: Reading, kl: float) -> float:
    """At the least: a mean score may rise by sqrt(2 KL) standard deviations, and a tenth of it is what noise gains."""
    return min(GAINED * math.sqrt(2 * max(kl, 0.0)), LITTLE) * reading.unit


def _taken_back(reading: Reading) -> list[dict[str, Any]]:
    """Evaluations that were worse: the run went back and on, or back and to its end."""
    return [*reading.told("rollback"), *reading.told("worse")]


def _start(reading: Reading) -> float | None:
    """The held-out score before the first step."""
    found = reading.start.get("heldout_score")
    return found if found is not None and math.isfinite(found) else None


def _gained(reading: Reading) -> float | None:
    """By the best evaluation, over the one before the first step."""
    start, held = _start(reading), reading.values("heldout_score")
    return None if start is None or not len(held) else float(held.max()) - start


def gamed(reading: Reading) -> Finding | None:
    judge, score = reading.values("heldout_judge"), reading.values("heldout_score")
    if not len(judge) or len(judge) != len(score):
        return None
    best = int(judge.argmax())
    turned = judge[best] - judge[-1] > TURNED and score[-1] > score[best]
    if not turned and not reading.told("over-optimisation"):
        return None
    return fault(
        "scorer-gamed",
        f"The judge, which is not trained on, fell from {judge[best]:.3g} to {judge[-1]:.3g} while the score went from "
        f"{score[best]:.3g} to {score[-1]:.3g}: the policy games the scorer.",
        _closer(reading),
        "people judge what it writes now, and teach a new scorer: `trueup feedback collect`, `trueup feedback retrain`",
        "several reward models and their lowest: --set scoring.ensemble=min",
        see=("heldout_judge", "heldout_score", "heldout_kl"),
    )


def overfits_prompts(reading: Reading) -> Finding | None:
    held, score = reading.values("heldout_score"), reading.change("score")
    if score is None or len(held) < 2 or score.sure < SURE or score.by < LITTLE * reading.unit:
        return None
    best = max(reading.start.get("heldout_score") or -math.inf, _best_that_stood(reading))
    last = float(held[-2:].mean())
    spread = max(reading.unit, float(reading.of_samples(reading.late, "score").std()))
    if best - last <= SURE * spread * math.sqrt(2 / reading.start.get("prompts", 32)):
        return None
    seen = len({row["prompt"] for row in [*reading.early, *reading.late]})
    return fault(
        "overfits-prompts",
        f"The score rose from {score.first:.3g} to {score.last:.3g}, but fell from {best:.3g} to {last:.3g} on "
        f"held-out prompts: it learns the {seen} prompts of training, not the task.",
        "more prompts, of more kinds",
        "fewer steps, or a higher kl_coefficient",
        see=("score", "heldout_score"),
    )


def _best_that_stood(reading: Reading) -> float:
    """Of the evaluations before the last two, those that were not taken back."""
    back = {event["step"] for event in reading.told("rollback")}
    held = [row for row in reading.rows if row.get("heldout_score") is not None][:-2]
    return max((row["heldout_score"] for row in held if row["step"] not in back), default=-math.inf)


def length_hacked(reading: Reading) -> Finding | None:
    score, length = reading.change("score"), reading.change("length")
    if score is None or length is None or score.sure < SURE or length.last < LONGER * length.first:
        return None
    rows = reading.scored([*reading.early, *reading.late])
    if len(rows) < 16:
        return None
    clusters = [f"{row['step']}/{row['prompt']}" for row in rows]
    goes = within_pearson([row["length"] for row in rows], [row["score"] for row in rows], clusters)
    if goes.value < GOES_WITH:
        return None
    return fault(
        "length-hacked",
        f"It is paid for length: score and length rise together ({length.first:.3g} to {length.last:.3g} tokens), and "
        f"among completions of one prompt they correlate by {goes.value:.2f} ({goes.ci[0]:.2f} to {goes.ci[1]:.2f}).",
        "what the scorer makes of length: `trueup eval reward`",
        "a scorer that takes the length off, or a price on it",
        "a lower limit: --set sampling.max_new_tokens, with missing_eos_score below what texts usually get",
        see=("length", "score", "unfinished"),
    )


def kl_too_loose(reading: Reading) -> Finding | None:
    kl, token, score = (reading.change(name) for name in ("kl", "kl_k3", "score"))
    if kl is None or score is None or reading.setting("kl_target") is not None or kl.sure < SURE:
        return None
    far = kl.last > FAR_TEXT or (token is not None and token.last > FAR)
    gained, price = score.by, _price(reading) * kl.last
    if not far or price > NEGLIGIBLE * max(gained, 0.0):
        return None
    return fault(
        "kl-too-loose",
        f"In rollouts the KL rose to {kl.last:.3g} nats a completion, which cost {price:.2g} where the score gained "
        f"{gained:.2g}: nothing holds the policy near what people judged.",
        f"--set {_price_name(reading)}=0.1",
        "or say what KL it may have: --kl-target 4; or where it is to stop: --set guard.max_kl=10",
        see=("kl", "kl_k3", "score", "entropy"),
    )


def collapsed(reading: Reading) -> Finding | None:
    repeated = reading.values("heldout_repetition")
    if len(repeated) and repeated[-1] > REPEATED:
        says = f"{repeated[-1]:.0%} of the four-token runs of a held-out completion were said before."
    elif _varied(reading) < (reading.setting("guard.min_distinct") or 0.0):
        says = f"{_varied(reading):.0%} is left of the variety that held-out completions began with."
    elif (share := _commonest(reading.late)) > ONE_TEXT >= 2 * _commonest(reading.early):
        says = f"{share:.0%} of the last completions are one and the same text, whatever the prompt."
    else:
        return None
    return fault(
        "collapsed",
        f"The policy has collapsed: {says}",
        _closer(reading),
        "keep it varied: --set entropy_bonus=0.01",
        "does the scorer like repetition? `trueup score`",
        see=("entropy", "duplicates", "heldout_repetition", "heldout_distinct"),
    )


def _varied(reading: Reading) -> float:
    """The share of distinct two-token runs of held-out completions, at its lowest, in parts of the start's."""
    begun, distinct = reading.start.get("heldout_distinct"), reading.values("heldout_distinct")
    return float(distinct.min()) / begun if begun and len(distinct) else 1.0


def endless(reading: Reading) -> Finding | None:
    share = reading.change("unfinished")
    if share is None or share.by <= ENDLESS:
        return None
    return fault(
        "endless",
        f"Completions without an end went from {share.first:.0%} to {share.last:.0%}.",
        "a price on not ending: --set missing_eos_score=-1",
        f"a higher limit: --set sampling.max_new_tokens={2 * reading.setting('sampling.max_new_tokens')}",
        see=("unfinished", "length"),
    )


def kl_off_target(reading: Reading) -> Finding | None:
    target, kl, price = reading.setting("kl_target"), reading.change("kl"), reading.values("kl_coefficient")
    if target is None or kl is None or not len(price) or 1 / OFF_TARGET <= kl.last / target <= OFF_TARGET:
        return None
    return fault(
        "kl-off-target",
        f"The KL of the last steps is {kl.last:.3g} nats a completion, kl_target = {target:g}; the coefficient went "
        f"from {price[0]:.3g} to {price[-1]:.3g} in {reading.steps} steps.",
        f"start there: --set kl_coefficient={price[-1]:.3g}",
        "let it move faster: --set kl_horizon=1; or more steps",
        see=("kl", "kl_coefficient"),
    )


# Worth knowing


def went_back(reading: Reading) -> Finding | None:
    told = reading.told("rollback")
    if not told:
        return None
    return note(
        "went-back",
        f"The guard went back {_times(len(told))}; the last time at step {told[-1]['step']}.",
        "what it saw: `trueup runs show RUN`",
        see=("heldout_score", "heldout_kl"),
    )


def score_flat(reading: Reading) -> Finding | None:
    score = reading.change("score")
    if score is None or reading.steps < 10 or abs(score.sure) > SURE:
        return None
    return note(
        "score-flat",
        f"The score did not rise: {score.first:.3g} at the beginning, {score.last:.3g} at the end.",
        "more steps, or more completions a step",
        HIGHER.format(reading.setting("optimizer.lr") * 3),
        see=("score", "kl"),
    )


def gradient_clipped(reading: Reading) -> Finding | None:
    norms, limit = reading.values("gradient_norm"), reading.setting("optimizer.grad_clip") or 1.0
    if not len(norms) or np.median(norms) <= GRADIENT * limit:
        return None
    return note(
        "gradient-clipped",
        f"The gradient's norm is {np.median(norms):.3g}, optimizer.grad_clip = {limit:g}: it is cut at every step.",
        "scores on a scale of about 1: --set score_scale=reference",
        see=("gradient_norm",),
    )


def evaluation_missing(reading: Reading) -> Finding | None:
    if not evaluation_was_due(reading) or reading.told("start") or len(reading.values("heldout_score")):
        return None
    return note(
        "evaluation-missing",
        "There were no evaluations on held-out prompts: nothing guards the run, and the last policy is shipped.",
        "more prompts: a fifth of them is held out, if there are any to spare",
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _price_name(reading: Reading) -> str:
    return "beta" if reading.stage == "dpo" else "kl_coefficient"


def _price(reading: Reading) -> float:
    return float(reading.setting(_price_name(reading)) or 0.0)


def _closer(reading: Reading) -> str:
    return f"stay nearer to the reference: --set {_price_name(reading)}={2 * (_price(reading) or 0.05):g}"


def _commonest(rows: list[dict[str, Any]]) -> float:
    """Share of the commonest text, where there are prompts enough to tell collapse from one right answer."""
    if len({row["prompt"] for row in rows}) < 4:
        return 0.0
    return Counter(row["text"].strip() for row in rows).most_common(1)[0][1] / len(rows)


RL_CHECKS: tuple[Check, ...] = (
    score_not_finite, loss_not_finite, ratio, drift, kl_at_start, kl_negative,
    kl_stays_zero, cut_texts,
    score_constant, score_by_prompt, score_drifts, score_random, score_scale, floor_unreachable,
    steps_too_long, nothing_moves, value_runs_away, value_harmful, score_falls, kl_too_tight, moves_without_gain,
    gamed, overfits_prompts, length_hacked, kl_too_loose, collapsed, endless, kl_off_target,
    went_back, score_flat, value_idle, gradient_clipped, evaluation_missing, too_short, ended_badly,
)  # fmt: skip
