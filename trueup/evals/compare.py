"""Two models on the same prompts: who wins, by how much it could be luck, and what they wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..ports import Scorer
from ..records import Completion
from ..stats.winrate import WinRate, winrate
from .scored import score_all


@dataclass(frozen=True)
class Comparison:
    """`a` over `b`, ties half; with both texts of each prompt and their scores."""

    rate: WinRate
    rows: list[dict[str, Any]]
    mean_a: float
    mean_b: float

    def to_json(self) -> dict[str, Any]:
        return {**self.rate.to_json(), "mean_a": self.mean_a, "mean_b": self.mean_b}


def compare(a: Sequence[Completion], b: Sequence[Completion], scorer: Scorer) -> Comparison:
    """One completion a prompt from each, in the same order of prompts; the higher score wins."""
    assert [c.prompt.id for c in a] == [c.prompt.id for c in b], "both must answer the same prompts"
    score_a, score_b = ([s.value for s in score_all(scorer, side)] for side in (a, b))
    rows = [
        {"prompt": x.prompt.to_json(), "a": x.text, "b": y.text, "score_a": s, "score_b": t}
        for x, y, s, t in zip(a, b, score_a, score_b, strict=True)
    ]
    prompts = [c.prompt.id for c in a]
    # Where each prompt occurs once, Wilson's interval has the right width, even at 0 or 1; redrawing prompts has not.
    rate = winrate(score_a, score_b, prompts if len(set(prompts)) < len(prompts) else None)
    return Comparison(rate, rows, sum(score_a) / len(a), sum(score_b) / len(b))


def best_of(completions: Sequence[Completion], scorer: Scorer, n: int) -> list[Completion]:
    """Of every n completions of a prompt the one that the scorer likes most: the first, among equals.

    Its meta says of how many it is the best, its own score, and those of all.
    """
    values = [score.value for score in score_all(scorer, completions)]
    assert len(values) % n == 0, "completions come n at a time"
    return [_best(completions[start : start + n], values[start : start + n]) for start in range(0, len(values), n)]


def _best(completions: Sequence[Completion], scores: Sequence[float]) -> Completion:
    best = max(range(len(scores)), key=lambda i: scores[i])
    found = {"best_of": len(scores), "score": scores[best], "scores": list(scores)}
    return replace(completions[best], meta={**completions[best].meta, **found})
