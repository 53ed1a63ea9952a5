"""Answers of several models to the same prompts, met two by two, and what somebody said of each meeting."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..ports import Scorer
from ..records import Completion, Judgement
from .scored import score_all

Sides = Sequence[Sequence[Completion]]  # of each model one completion a prompt, all in the same order of prompts


@dataclass(frozen=True)
class Match:
    """`points` is 1 where the answer of model `first` is the better one, 0 where that of `second` is, a half for a tie,
    and None where nobody said. Equal texts tie, whoever judges."""

    first: int
    second: int
    a: Completion
    b: Completion
    points: float | None
    judge: str = ""
    scores: tuple[float, float] | None = None
    why: str = ""  # there is no verdict

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "prompt": self.a.prompt.to_json(),
            "first": self.first,
            "second": self.second,
            "a": self.a.text,
            "b": self.b.text,
            "points": self.points,
        }
        if self.scores is not None:
            row |= dict(zip(("score_a", "score_b"), self.scores, strict=True))
        return row | ({"judge": self.judge} if self.judge else {}) | ({"why": self.why} if self.why else {})


def meetings(sides: Sides, last: bool = False) -> Iterator[tuple[int, int, Completion, Completion]]:
    """Every two models on every prompt; with `last` every other one and the last."""
    assert len({tuple(c.prompt.id for c in side) for side in sides}) == 1, "all must answer the same prompts"
    for i, j in combinations(range(len(sides)), 2):
        if j == len(sides) - 1 or not last:
            yield from ((i, j, a, b) for a, b in zip(sides[i], sides[j], strict=True))


def by_scores(sides: Sides, scorer: Scorer, last: bool = False) -> list[Match]:
    """The higher score wins. Each completion is scored once."""
    scores = [[score.value for score in score_all(scorer, side)] for side in sides]
    found, size = [], len(sides[0])
    for place, (i, j, a, b) in enumerate(meetings(sides, last)):
        s, t = scores[i][place % size], scores[j][place % size]
        found.append(Match(i, j, a, b, (s > t) + (s == t) / 2, scores=(s, t)))
    return found


@dataclass(frozen=True)
class Judged:
    """`waiting` counts meetings nobody has judged yet, `elsewhere` verdicts about texts that no model wrote, `sources`
    those that count by who gave them."""

    matches: list[Match]
    waiting: int
    elsewhere: int
    sources: dict[str, int]


def by_judgements(sides: Sides, judgements: Sequence[Judgement], last: bool = False) -> Judged:
    """What people said of these very texts, each person for themselves. A text is known by its prompt and its words."""
    said: defaultdict[tuple[str, str, str], list[tuple[float, str, str]]] = defaultdict(list)
    for judgement in judgements:
        words = [text.strip() for text in judgement.completions]
        for i, j, target in judgement.pairs():
            points = 1.0 if target > 0.5 else 0.0 if target < 0.5 else 0.5
            said[judgement.prompt.id, words[i], words[j]].append((points, judgement.judge, judgement.source))
    matches: list[Match] = []
    sources: Counter[str] = Counter()
    waiting, used = 0, set()
    for i, j, a, b in meetings(sides, last):
        one, other = a.text.strip(), b.text.strip()
        if one == other:
            matches.append(Match(i, j, a, b, 0.5))
            continue
        keys = (a.prompt.id, one, other), (a.prompt.id, other, one)
        used |= set(keys)
        found = [*said.get(keys[0], ()), *((1 - points, *who) for points, *who in said.get(keys[1], ()))]
        waiting += not found
        matches += [Match(i, j, a, b, points, judge) for points, judge, _ in found]
        sources.update(source for _, _, source in found)
    elsewhere = sum(len(votes) for key, votes in said.items() if key not in used)
    return Judged(matches, waiting, elsewhere, dict(sorted(sources.items())))
