"""The most that any scorer could foresee of judgements, where that is known or can be estimated."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from ..records import Judgement
from ..stats.intervals import bootstrap_mean
from ..stats.planning import accuracy_from_agreement
from ..stats.preference import ceiling
from .scored import Pairs

TrueChances = Callable[[Judgement], list[float]]

KNOWN, ESTIMATED, UNKNOWN = "true vote probabilities", "overlapping votes", "unknown"


def best_possible(pairs: Pairs, p_true: TrueChances | None) -> dict[str, Any]:
    """From the true vote probability of simulated judges; else from pairs that several judges answered; else unknown.

    Two judges who agree with chance A are each right with chance a, A = a^2 + (1 - a)^2, if all pairs are equally
    hard. Where some are harder, the true ceiling is lower than a: it is an upper bound, so that a leak is never
    suspected because pairs differ.
    """
    decided = pairs.decided
    if p_true is not None and not pairs.matched:
        found = ceiling(_chances(decided, p_true), decided.prompt)
        return {"from": KNOWN, "value": found.value, "ci": list(found.ci), "n": found.n}
    agreed, prompts, votes = _overlap(decided)
    if len(set(prompts)) < 2:
        return {"from": UNKNOWN, "value": None, "ci": None, "n": len(agreed)}
    low, high = bootstrap_mean(agreed, prompts)
    value, bottom, top = (accuracy_from_agreement(min(max(a, 0.5), 1.0)) for a in (float(np.mean(agreed)), low, high))
    return {
        "from": ESTIMATED,
        "value": value,
        "ci": [bottom, top],
        "n": len(agreed),
        "agreement": float(np.mean(agreed)),
        "votes": votes,
    }


def above(accuracy: dict[str, Any], best: dict[str, Any]) -> bool | None:
    """Whether a scorer surely foresees more than it could without having seen the answers; None where unknown."""
    return None if best["ci"] is None else bool(accuracy["ci"][0] > best["ci"][1])


def _chances(pairs: Pairs, p_true: TrueChances) -> list[float]:
    """Of every pair, in the order of `Judgement.pairs`; each judgement is asked once."""
    asked: dict[int, dict[tuple[int, int], float]] = {}
    found = []
    for which, i, j in zip(pairs.of.tolist(), pairs.first_slot.tolist(), pairs.second_slot.tolist(), strict=True):
        if which not in asked:
            judgement = pairs.judgements[which]
            each = [(a, b) for a, b, _ in judgement.pairs()]
            asked[which] = dict(zip(each, p_true(judgement), strict=True))
        start = pairs.starts[which]
        found.append(asked[which][i - start, j - start])
    return found


def _overlap(pairs: Pairs) -> tuple[list[float], list[int], int]:
    """Of each pair that two or more judges answered: how many of each two of them agree, and its prompt."""
    said: dict[tuple[int, int], dict[str, bool]] = {}
    prompt: dict[tuple[int, int], int] = {}
    rows = zip(
        pairs.first.tolist(), pairs.second.tolist(), pairs.of.tolist(), pairs.target.tolist(), pairs.prompt.tolist(),
        strict=True,
    )  # fmt: skip
    for first, second, which, target, about in rows:
        pair = (min(first, second), max(first, second))
        said.setdefault(pair, {})[pairs.judgements[which].judge] = (target > 0.5) == (first < second)
        prompt[pair] = about
    several = {pair: list(votes.values()) for pair, votes in said.items() if len(votes) > 1}
    agreed = [float(np.mean([a == b for a, b in combinations(votes, 2)])) for votes in several.values()]
    return agreed, [prompt[pair] for pair in several], sum(map(len, several.values()))
