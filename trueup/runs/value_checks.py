"""What can be wrong with the value of PPO: its guess of what a completion will be worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .reading import ENOUGH, Finding, Reading, fault, note

HARMFUL = -0.5  # explained variance: returns are clearly better guessed by one constant
WILD = 10.0  # times the loss of a value that is always 0: a value that learns has a fifth of it
AWAY = 1.5  # the same at the end, of a value that began near it
IDLE, PATIENT = 0.01, 100  # explained variance, and steps after which a value that explains nothing is worth a word


def value_runs_away(reading: Reading) -> Finding | None:
    loss, silent = reading.change("value_loss"), _loss_of_zero(reading, reading.late)
    if loss is None or reading.steps < ENOUGH or math.isnan(silent):
        return None
    if reading.values("value_loss").min() >= 0 and loss.last < AWAY * max(silent, loss.first):
        return None
    return fault(
        "value-runs-away",
        f"The value moves away from the returns: its loss went from {loss.first:.3g} to {loss.last:.3g}, where a value "
        f"that is always 0 would have {silent:.2g}.",
        "the sign of the value loss, if it is your own: it is a squared distance, and has to fall",
        "a lower rate for it: --set value.lr=1e-4; or no value at all: --estimator rloo",
        see=("value_loss", "value_explained"),
    )


def value_harmful(reading: Reading) -> Finding | None:
    explained = reading.values("value_explained")[1:]  # before the first update it knows nothing, and does no harm
    losses = reading.values("value_loss")
    if reading.setting("estimator") != "ppo" or len(explained) < 3 or not len(losses):
        return None
    loss, silent = np.median(losses), _loss_of_zero(reading, [*reading.early, *reading.late])
    if np.median(explained) > HARMFUL and not loss > WILD * silent:
        return None
    return fault(
        "value-harmful",
        f"The value is worse than none: its explained variance is {np.median(explained):.3g} (0 is knowing nothing, "
        f"1 everything), its loss {loss:.3g}, where a value that is always 0 would have {silent:.2g}; advantages carry "
        "its mistakes.",
        "a lower rate for it: --set value.lr=1e-4",
        "no value at all: --estimator rloo",
        see=("value_explained", "value_loss", "score"),
    )


def value_idle(reading: Reading) -> Finding | None:
    """Little to explain is common: with a baseline a prompt, or where one token at the end decides the score."""
    if reading.setting("estimator") != "ppo" or reading.setting("prompt_baseline") or reading.steps < PATIENT:
        return None
    explained = reading.end("value_explained")
    if not explained < IDLE:
        return None
    return note(
        "value-idle",
        f"After {reading.steps} steps the value explains {explained:.2g} of the returns.",
        "a rate of its own: --set value.lr=1e-3",
        "or do without: --estimator rloo",
        see=("value_explained", "value_loss"),
    )


def _loss_of_zero(reading: Reading, rows: Sequence[dict[str, Any]]) -> float:
    """Of a value that is always 0: half the mean square of the returns. NaN where there are none."""
    price = float(reading.setting("kl_coefficient") or 0.0)
    paid = [row["score"] - price * row["kl"] for row in rows if None not in (row["score"], row["kl"])]
    return float(np.square(paid).mean()) / 2 if paid else math.nan
