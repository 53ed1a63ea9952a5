"""What can be wrong with a stage that makes a loss fall: pretrain, sft, reward, dpo, kto, ilql.

Most fundamental first: what is found earlier explains what is found later.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .reading import ENOUGH, Finding, Reading, fault, note

Check = Callable[[Reading], Finding | None]

RISEN, LEAPT = 1.3, 2.0  # a loss this much above where it began, surely so or at once: steps jump over what they seek
FEW_EVALUATIONS = 3  # below that, "from the first evaluation on" says nothing
OVERFIT = 1.02  # a held-out loss this much above its first or its lowest one: more than batches differ by
FLAT = 0.995  # a held-out loss that has not fallen by half a percent has not fallen
SURE = 3.0  # standard errors
CHANCE = math.log(2)  # the loss of a pair by tossing a coin
BELOW_CHANCE = 0.4  # an accuracy that no coin of a few hundred pairs gives
PAIRED = ("reward", "dpo")  # stages whose loss starts at that of a coin
HELDOUT = {"pretrain": "heldout_completion_loss"}
RATE, HIGHER = "a lower rate: --set optimizer.lr={:g}", "a higher rate: --set optimizer.lr={:g}"


def heldout_of(reading: Reading) -> str:
    return HELDOUT.get(reading.stage, "heldout_loss")


def loss_not_finite(reading: Reading) -> Finding | None:
    skips = len({event["step"] for event in reading.told("skip")})
    if not skips:
        return None
    return fault(
        "loss-not-finite",
        f"At {skips} of {max(reading.steps, skips)} steps an update was skipped: loss or gradient was not finite.",
        RATE.format(reading.setting("optimizer.lr") / 10),
        "look at the data of those steps; `trueup runs show RUN` lists them",
        "with 16 bits: --set model.dtype=float32",
        see=("loss", "gradient_norm"),
    )


def loss_rises(reading: Reading) -> Finding | None:
    loss, values = reading.change("loss"), reading.values("loss")
    if loss is None or values[0] <= 0:
        return None
    leapt = reading.steps >= ENOUGH and np.median(values[1:]) > LEAPT * values[0]
    if not leapt and (loss.sure < SURE or loss.last < RISEN * loss.first):
        return None
    return fault(
        "steps-too-long",
        f"The loss it trains on was {values[0]:.3g} at the first step and {loss.last:.3g} at the last ones.",
        RATE.format(reading.setting("optimizer.lr") / 10),
        "a rate that rises slowly: --set optimizer.warmup_steps=20",
        see=("loss", "gradient_norm"),
    )


def overfits(reading: Reading) -> Finding | None:
    """Rising from the first evaluation on: what is shipped has learnt for that long only."""
    name = heldout_of(reading)
    losses = reading.values(name)
    if len(losses) < FEW_EVALUATIONS or losses[1:].min() <= FLAT * losses[0] or losses[-1] < OVERFIT * losses[0]:
        return None
    return fault(
        "overfits",
        f"The held-out loss rose from the first evaluation on, from {losses[0]:.4g} to {losses[-1]:.4g}: "
        "it learns its rows by heart.",
        RATE.format(reading.setting("optimizer.lr") / 3),
        "fewer passes over the data, or more data",
        "fewer trained weights: --set model.adapter=lora",
        "look earlier, so that an earlier model can be shipped: --set run.evaluate_every=5",
        see=("loss", name),
    )


def order_reversed(reading: Reading) -> Finding | None:
    accuracy = reading.values("heldout_accuracy")
    if not len(accuracy) or accuracy.max() >= BELOW_CHANCE or reading.steps < 10:
        return None
    return fault(
        "order-reversed",
        f"Held-out accuracy is {accuracy[-1]:.2f}, worse than a coin: what it learns is the opposite of what is asked.",
        "look at some rows: are better and worse the right way round? `trueup data show DATA`",
        "are the held-out rows of the same people and prompts as the others?",
        see=("heldout_accuracy", "heldout_loss"),
    )


def nothing_learnt(reading: Reading) -> Finding | None:
    loss, held = reading.change("loss"), reading.values(heldout_of(reading))
    if loss is None or reading.steps < 10 or loss.sure < -1:
        return None
    if len(held) > 1 and held.min() < FLAT * held[0]:
        return None
    if reading.stage in PAIRED and len(held) and held.min() < 0.98 * CHANCE:
        return None
    return fault(
        "nothing-learnt",
        f"The loss was {loss.first:.4g} at first and {loss.last:.4g} at last: {reading.steps} steps taught it nothing.",
        HIGHER.format(reading.setting("optimizer.lr") * 10),
        "more steps, or larger batches if the loss is noisy",
        "can it be learnt at all? Look at some rows: `trueup data show DATA`",
        see=("loss", heldout_of(reading), "gradient_norm"),
    )


def overfits_late(reading: Reading) -> Finding | None:
    name = heldout_of(reading)
    losses = reading.values(name)
    if len(losses) < FEW_EVALUATIONS or losses[-1] < OVERFIT * losses.min():
        return None
    return note(
        "overfits-late",
        f"The held-out loss was lowest, {losses.min():.4g}, before the end, where it is {losses[-1]:.4g}; "
        "the best checkpoint is what is shipped.",
        "fewer steps would do",
        see=("loss", name),
    )


def chosen_falls(reading: Reading) -> Finding | None:
    """Known of DPO: its loss sees a difference alone, and both sides may fall."""
    chosen = reading.change("chosen_logp")
    if chosen is None or chosen.sure > -SURE or chosen.by > -0.2 * abs(chosen.first):
        return None
    return note(
        "chosen-falls",
        f"The log-probability of better completions fell from {chosen.first:.3g} to {chosen.last:.3g}.",
        "hold it up: --set sft_coefficient=1",
        "stay nearer to the start: a higher beta",
        see=("chosen_logp", "rejected_logp", "margin"),
    )


def evaluation_was_due(reading: Reading) -> bool:
    every = reading.setting("run.evaluate_every")
    return reading.run.status == "done" or reading.steps >= every


def evaluation_missing(reading: Reading) -> Finding | None:
    if not evaluation_was_due(reading) or any(key.startswith("heldout_") for row in reading.rows for key in row):
        return None
    return note(
        "evaluation-missing",
        "Nothing was held out, so nobody can tell learning from learning by heart.",
        "of demonstrations: --set heldout=0.05",
        "of judgements, when they are added: `trueup data add FILE --kind preferences --heldout 0.1`",
    )


def too_short(reading: Reading) -> Finding | None:
    if not reading.steps or reading.steps >= 10:
        return None
    return note("short", f"It has {reading.steps} steps: too few to see a trend in.")


def ended_badly(reading: Reading) -> Finding | None:
    status = reading.run.status
    if status not in ("failed", "dead", "interrupted"):
        return None
    error = reading.run.row.error
    return note(
        "unfinished-run",
        f"The run is {status}" + (f": {error}" if error else "") + ".",
        f"take it up again: `{reading.run.resume_command}`",
    )


LOSS_CHECKS: tuple[Check, ...] = (
    loss_not_finite, loss_rises, order_reversed, overfits, nothing_learnt, overfits_late, chosen_falls,
    evaluation_missing, too_short, ended_badly,
)  # fmt: skip
