"""Best of several: one completion is right, the others are wrong, and the right one should score highest.

In the style of RewardBench, from a local file: rows with a prompt, `chosen`, a list `rejected` and a `subset`. A right
completion that shares the highest score with others gets its share of one point, so that a scorer that gives everything
one score has exactly chance. The total is the unweighted mean over subsets.

Rows with several right completions, whose id says `ref:N` or `tied:N`, are the Ties task of RewardBench 2: a scorer
should put every right answer above every wrong one, and care less about which right one it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from ..ports import Scorer
from ..records import Completion, Prompt
from ..stats.intervals import Floats
from .scored import Advance, score_all, values

TIES = "ties"
DRAWS = 2000


@dataclass(frozen=True)
class Question:
    """The first `right` of the completions are right."""

    prompt: Prompt
    completions: tuple[str, ...]
    right: int
    subset: str
    id: str = ""


def best_of(
    scorer: Scorer, questions: Sequence[Question], length: Any, advance: Advance = lambda n: None, seed: int = 0
) -> dict[str, Any]:
    """The total and every subset, beside what always taking the longest or the shortest would reach.

    `length` is a function from completions to numbers.
    """
    completions = [Completion(question.prompt, text) for question in questions for text in question.completions]
    score, longest = values(score_all(scorer, completions, advance)), length(completions)
    ours, most, least = (_grouped(questions, each) for each in (score, longest, -longest))
    subsets = list(dict.fromkeys(question.subset for question in questions))
    found = {name: _subset(name, questions, ours, most, least) for name in subsets}
    low, high = _interval(questions, ours, subsets, seed)
    return {
        "value": float(np.mean([about["value"] for about in found.values()])),
        "ci": [low, high],
        "n": len(questions),
        "chance": float(np.mean([about["chance"] for about in found.values()])),
        "longest": float(np.mean([about["longest"] for about in found.values()])),
        "shortest": float(np.mean([about["shortest"] for about in found.values()])),
        "subsets": found,
    }


def questions_of(rows: Iterable[tuple[str, Question | str]]) -> list[Question]:
    """The questions of a file; a row that is none is an error that names its place."""
    found = []
    for where, question in rows:
        if isinstance(question, str):
            raise DataError(
                f"{where}: {question}", "a row needs prompt, chosen and rejected; subset where there are several"
            )
        found.append(question)
    if not found:
        raise DataError("the benchmark has no rows", "one JSON object a line: prompt, chosen, rejected, subset")
    return found


def credit(scores: Floats, right: int) -> float:
    """The share of the highest scores that is right."""
    top = scores == scores.max()
    return float(top[:right].sum() / top.sum())


def ties_score(questions: Sequence[Question], scores: Sequence[Floats]) -> float | None:
    """RewardBench 2: 0.3 for right above wrong where one is right (`ref`), 0.3 where several are (`tied`), and 0.4 for
    right answers being nearer to one another than to the wrong ones. None where ids pair nothing."""
    ref, tied = (_by_number(questions, scores, kind) for kind in ("ref", "tied"))
    both = sorted(ref.keys() & tied.keys())
    if not both:
        return None
    above = {kind: {n: s[:k].min() - s[k:].max() for n, (s, k) in rows.items()} for kind, rows in
             (("ref", ref), ("tied", tied))}  # fmt: skip
    within = {n: s[:k].max() - s[:k].min() for n, (s, k) in tied.items()}
    kept = [above["tied"][n] > within[n] for n in both]
    kept_in_both = [min(above["ref"][n], above["tied"][n]) > within[n] for n in both]
    margins = [_margin(min(above["ref"][n], above["tied"][n]), within[n]) for n in both]
    parts = [np.mean([gap > 0 for gap in above[kind].values()]) for kind in ("tied", "ref")]
    return float(
        0.3 * parts[0] + 0.3 * parts[1] + 0.2 * np.mean(kept) + 0.2 * np.mean(kept_in_both) + 0.01 * np.mean(margins)
    )


def _margin(above: float, within: float) -> float:
    """How much clearer right is from wrong than right from right, from -1 to 1."""
    if within == 0:
        return 0.0 if above == 0 else float(np.sign(above))
    return float(np.tanh(above / within - 1))


def _by_number(questions: Sequence[Question], scores: Sequence[Floats], kind: str) -> dict[str, tuple[Floats, int]]:
    found = {}
    for question, score in zip(questions, scores, strict=True):
        said, _, number = question.id.partition(":")
        if said == kind and number:
            found[number] = (score, question.right)
    return found


def _subset(
    name: str, questions: Sequence[Question], ours: list[Floats], most: list[Floats], least: list[Floats]
) -> dict[str, Any]:
    rows = [i for i, question in enumerate(questions) if question.subset == name]
    asked = [questions[i] for i in rows]

    def total(scores: list[Floats]) -> float:
        mine = [scores[i] for i in rows]
        tied = ties_score(asked, mine) if name.lower() == TIES else None
        return (
            tied if tied is not None else float(np.mean([credit(s, q.right) for s, q in zip(mine, asked, strict=True)]))
        )

    return {
        "value": total(ours),
        "n": len(rows),
        "chance": float(np.mean([question.right / len(question.completions) for question in asked])),
        "longest": total(most),
        "shortest": total(least),
        "tied": name.lower() == TIES and ties_score(asked, [ours[i] for i in rows]) is not None,
    }


def _interval(
    questions: Sequence[Question], scores: list[Floats], subsets: Sequence[str], seed: int
) -> tuple[float, float]:
    """Questions redrawn inside their subset."""
    random = np.random.default_rng(seed)
    total = np.zeros(DRAWS)
    for name in subsets:
        points = [credit(s, q.right) for s, q in zip(scores, questions, strict=True) if q.subset == name]
        different, counts = np.unique(points, return_counts=True)
        total += random.multinomial(len(points), counts / len(points), DRAWS) @ different / len(points)
    low, high = np.quantile(total / len(subsets), [0.025, 0.975]).tolist()
    return float(low), float(high)


def _grouped(questions: Sequence[Question], scores: Floats) -> list[Floats]:
    ends = np.cumsum([len(question.completions) for question in questions])
    return np.split(scores, ends[:-1])
