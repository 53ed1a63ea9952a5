"""Judges with help and without, held to what is known to be right: a gold score, or the places that a row expects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ports import Scorer
from ..records import Judgement
from ..stats.assistance import answers_of, assistance, helpers_of
from .reward import as_completions


def assisted_judges(
    judgements: Sequence[Judgement], gold: Scorer | None = None, *, seed: int = 0
) -> dict[str, Any] | None:
    """How often the judges are right with help and without. None where it is not noted who had help, or nothing is
    known to be right. A judgement may hold the right places as `meta.expected`; else the gold score decides."""
    noted = [judgement for judgement in judgements if helpers_of(judgement) is not None]
    answers = [answer for each in noted if (right := _right(each, gold)) for answer in answers_of(each, right)]
    if not answers:
        return None
    helped = sum(bool(helpers_of(judgement)) for judgement in noted)
    return assistance(answers, seed=seed) | {"judgements": len(noted), "helped": helped, "opened": helped}


def _right(judgement: Judgement, gold: Scorer | None) -> Sequence[float]:
    """Places, lower is better; empty where nobody knows."""
    expected: Any = judgement.meta.get("expected")
    listed = isinstance(expected, list | tuple) and len(expected) == len(judgement.completions)
    if listed and all(isinstance(place, int | float) for place in expected):
        return list(expected)
    return [-score.value for score in gold.score(as_completions(judgement))] if gold is not None else ()
