"""Completions judged by themselves, right or wrong: as pairs for what needs pairs, and what a score above 0 says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..config.collection import THUMB
from ..records import Judgement
from ..stats import calibration
from ..stats.intervals import Floats, share


class Verdict(NamedTuple):
    """What one judge said of one completion: its place among the scored ones, its judgement, slot and prompt."""

    completion: int
    judgement: int
    slot: int
    prompt: int
    right: bool


def verdict_of(judgement: Judgement) -> bool | None:
    """Of a judgement of a single completion whether it was called right; None where it says neither."""
    given = judgement.ratings.get(THUMB, ())
    if len(given) != 1 or given[0] is None or given[0] == 0.5:
        return None
    return given[0] > 0.5


def matched(verdicts: Sequence[Verdict], *, across: bool) -> Iterator[tuple[Verdict, Verdict]]:
    """A right one with each wrong one of its prompt.

    `across` is for sets in which nothing else was compared: there, what has no partner in its prompt gets one from
    another, drawn, and each only once. A scorer that learnt verdicts has the same zero for every prompt.
    """
    groups: dict[int, tuple[list[Verdict], list[Verdict]]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.prompt, ([], []))[0 if verdict.right else 1].append(verdict)
    for right, wrong in groups.values():
        yield from ((a, b) for a, b in product(right, wrong) if a.completion != b.completion)
    if across:
        alone = [[v for group in groups.values() if not group[1 - side] for v in group[side]] for side in (0, 1)]
        random = np.random.default_rng(0)
        orders = [random.permutation(len(side)) for side in alone]
        for i, j in zip(*orders, strict=False):
            yield alone[0][i], alone[1][j]


def verdict_figures(verdicts: Sequence[Verdict], logit: Floats, *, seed: int = 0) -> dict[str, Any] | None:
    """Whether a score above 0 means right, and sigmoid(score) how likely; None where no completion stood alone.

    `always` is what calling everything by the commoner name would reach.
    """
    if not verdicts:
        return None
    value = logit[[verdict.completion for verdict in verdicts]]
    right = np.array([verdict.right for verdict in verdicts], dtype=float)
    prompts = np.array([verdict.prompt for verdict in verdicts], dtype=np.int64)
    agreed = (np.sign(value) * np.sign(right - 0.5) + 1) / 2
    chance = calibration.sigmoid(value)
    error, null = calibration.ece(chance, right), calibration.null(chance, seed=seed)
    return {
        "n": len(verdicts),
        "right": float(right.mean()),
        "accuracy": share(agreed, prompts, seed=seed),
        "always": float(max(right.mean(), 1 - right.mean())),
        "nll": calibration.nll(value, right),
        "brier": calibration.brier(chance, right),
        "ece": error,
        "null": null.to_json(),
        "miscalibrated": bool(error > null.high),
    }
