"""Two models on the same prompts: who wins, by how much it could be luck, and what they wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..ports import Scorer
from ..records import Completion
from ..stats.length_control import LengthControlled, length_controlled, longer
from ..stats.winrate import WinRate, pairs_to_settle, winrate
from .scored import score_all


@dataclass(frozen=True)
class Comparison:
    """`a` over `b`, ties half, and between answers of equal length; with both texts of each prompt and their scores."""

    rate: WinRate
    controlled: LengthControlled
    rows: list[dict[str, Any]]
    mean_a: float
    mean_b: float
    words_a: float
    words_b: float

    def to_json(self) -> dict[str, Any]:
        """`pairs_to_settle`: how many more would decide it at this rate; None at exactly a half, where none would."""
        means = {"mean_a": self.mean_a, "mean_b": self.mean_b, "words_a": self.words_a, "words_b": self.words_b}
        settled = {"pairs_to_settle": pairs_to_settle(self.rate)}
        return self.rate.to_json() | settled | means | {"length_controlled": self.controlled.to_json()}


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
    clusters = prompts if len(set(prompts)) < len(prompts) else None
    rate = winrate(score_a, score_b, clusters)
    words_a, words_b = ([len(c.text.split()) for c in side] for side in (a, b))
    points = [(s > t) + (s == t) / 2 for s, t in zip(score_a, score_b, strict=True)]
    controlled = length_controlled(points, longer(words_a, words_b), clusters)
    n = len(a)
    means = (sum(score_a) / n, sum(score_b) / n, sum(words_a) / n, sum(words_b) / n)
    return Comparison(rate, controlled, rows, *means)


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
