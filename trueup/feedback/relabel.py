"""Judging a demo's own candidates, and what came of it: does a reward model agree more with the person than before?

The arithmetic of it. `trueup.retraining` trains the models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ..config import CollectionConfig
from ..errors import DataError, NotFoundError
from ..records import Judgement
from ..stats.intervals import wilson
from ..stats.preference import pair_accuracy
from ..stats.winrate import sign_test
from ..store import Workspace
from ..text.formats import split_by_prompt
from .collect import Filling, collect

COLLECTION = "relabel"
CANDIDATES = "candidates"  # what a demo calls the completions that its simulated people judged
ENOUGH = 100  # prompts; with fewer an agreement is known to 10 points at best
FEWEST = 8  # prompts; fewer cannot be split into something to learn from and something to be tested on
FOLDS = 2
HELDOUT = 0.3

Votes = Literal["add", "only-mine"]
VOTES: tuple[Votes, ...] = get_args(Votes)


def start(workspace: Workspace, now: float | None = None) -> str:
    """The name of the collection made of the workspace's own candidates; made on the first call, then left as it is."""
    try:
        source = workspace.get(CANDIDATES)
    except NotFoundError:
        raise NotFoundError(
            f"this workspace has no completions called '{CANDIDATES}'", "make a collection: trueup feedback collect"
        ) from None
    # One person judges, so nothing is shared, and nobody has to explain anything.
    config = CollectionConfig(question="Which answer is better?", calibration_share=0.0, rationale="optional")
    moment = time.time() if now is None else now
    filling = Filling(heldout=HELDOUT)
    return collect(workspace, COLLECTION, config, [source], now=moment, filling=filling).collection.name


@dataclass(frozen=True)
class Part:
    """Judgements to learn from, and those on which the result is tested."""

    train: list[Judgement]
    test: list[Judgement]


def parts(judgements: Sequence[Judgement], seed: int = 0) -> tuple[list[Part], str]:
    """How to test on what was not learnt from: the held-out prompts if there are enough, else each half in turn."""
    decided = _decided(judgements)
    if decided < FEWEST:
        raise DataError(
            f"judgements of {decided} prompts that prefer something are too few to train on: {FEWEST} are the least",
            "judge some more: trueup label",
        )
    heldout = [each for each in judgements if each.split == "heldout"]
    if _decided(heldout) >= ENOUGH:
        return [Part([each for each in judgements if each.split == "train"], heldout)], "held out"
    halves: dict[int, list[Judgement]] = {fold: [] for fold in range(FOLDS)}
    for fold, group in enumerate(_by_prompt(judgements, seed)):
        halves[fold % FOLDS] += group
    found = [Part([j for k in halves if k != fold for j in halves[k]], halves[fold]) for fold in halves]
    return [Part([replace(j, split="train") for j in part.train], part.test) for part in found], "each half in turn"


def points(judgements: Sequence[Judgement], scores: Sequence[Sequence[float]]) -> list[float]:
    """For every prompt on which somebody decided something, how far the scores agree: from 0 to 1.

    Of each decided pair 1 if they agree, a half if they are equal; over all pairs of the prompt the mean. The pairs of
    one ranking hang together: counted one by one, three rankings of nine would pass for a hundred judgements.
    """
    said: dict[str, list[float]] = {}
    for judgement, score in zip(judgements, scores, strict=True):
        pairs = [(score[i], score[j], target) for i, j, target in judgement.pairs() if target != 0.5]
        if pairs:
            said.setdefault(judgement.prompt.id, []).extend(map(float, pair_accuracy(*zip(*pairs, strict=True))))
    return [sum(each) / len(each) for each in said.values()]


def compared(before: Sequence[float], after: Sequence[float], how: str, whose: Sequence[str]) -> dict[str, Any]:
    """Agreement with these people before and after on the same prompts, and in words whether that says anything."""
    assert len(before) == len(after) > 0 and whose
    gained = sum(b < a for b, a in zip(before, after, strict=True))
    lost = sum(b > a for b, a in zip(before, after, strict=True))
    found = {"before": _share(before), "after": _share(after), "gained": gained, "lost": lost}
    found |= {"p_value": sign_test(gained, lost), "with": list(whose), "n": len(after), "tested_on": how}
    return found | {"enough": len(after) >= ENOUGH, "verdict": _verdict(found)}


def _share(points: Sequence[float]) -> dict[str, Any]:
    return {"value": sum(points) / len(points), "ci": list(wilson(sum(points), len(points))), "n": len(points)}


def _verdict(found: dict[str, Any]) -> str:
    n, change = found["n"], found["after"]["value"] - found["before"]["value"]
    if n < ENOUGH:
        low, high = found["after"]["ci"]
        return (
            f"Too small to matter: n = {n} prompts, so agreement lies anywhere from {low:.0%} to {high:.0%}. "
            f"With {ENOUGH} or more this begins to mean something."
        )
    if found["p_value"] >= 0.05:
        return "No difference that chance would not make as well."
    return f"The model agrees {'more' if change > 0 else 'less'} than before ({change:+.1%})."


def _decided(judgements: Sequence[Judgement]) -> int:
    """Prompts on which somebody preferred something."""
    return len({judgement.prompt.id for judgement in judgements if len(set(judgement.ranks)) > 1})


def _by_prompt(judgements: Sequence[Judgement], seed: int) -> list[list[Judgement]]:
    """In an order that the seed decides; judgements of one prompt are never on two sides."""
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(judgement.prompt.id, []).append(judgement)
    side = {prompt: split_by_prompt(prompt, 0.5, seed) for prompt in groups}
    return [groups[prompt] for prompt in sorted(groups, key=lambda prompt: (side[prompt], prompt))]
