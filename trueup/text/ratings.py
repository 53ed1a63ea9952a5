"""Data sets in which completions were rated on several axes: UltraFeedback, HelpSteer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from ..records import Judgement
from . import columns
from .columns import Columns, Skip
from .comparisons import turns_of
from .parts import Part, together, usable

HELPSTEER_AXES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
REPAIRED = "overall_score 10 made 1: a known error of the first UltraFeedback"
_WRONG_TEN = "'overall_score' is 10 and its ratings do not bear that out: a known error of the first UltraFeedback"


# UltraFeedback: one row a prompt, its completions inside


def rated_completions(where: str, row: Columns) -> Iterator[Part]:
    try:
        found = columns.objects(row, "completions")
    except Skip as reason:
        yield where, reason
        return
    yield from usable(where, "completion", row, "completions", found, _rated)


def _rated(completion: Columns) -> Columns:
    text, ratings = columns.text(completion, "response"), _axes(completion.get("annotations"))
    score = columns.number(completion, "overall_score", 1, 10)
    repaired = _repaired(score, [rating for rating in ratings.values() if rating is not None])
    return {
        "text": text,
        "ratings": ratings,
        "score": repaired,
        "was": score,
        "model": columns.word(completion, "model"),
    }


def _axes(annotations: Any) -> dict[str, float | None]:
    """What each axis got, None where the judge declined ("N/A")."""
    if not isinstance(annotations, Mapping):
        raise Skip("'annotations' is not an object")
    found: dict[str, float | None] = {}
    for axis, said in annotations.items():
        rating = said.get("Rating") if isinstance(said, Mapping) else None
        found[axis] = None if rating in (None, "", "N/A") else columns.number({axis: rating}, axis, 1, 5)
    return found


def _repaired(score: float, ratings: Sequence[float]) -> float:
    """The first version wrote 10 for many completions that got a 1. Its makers went by the mean rating, as this does:
    at most 2 is a 1, over 4 is a 10, and what lies between was rated anew, which cannot be done here."""
    if score < 10:
        return score
    mean = fmean(ratings) if ratings else 3.0
    if 2 < mean <= 4:
        raise Skip(_WRONG_TEN)
    return 10.0 if mean > 4 else 1.0


def by_overall_score(row: Columns) -> Judgement:
    found = row["completions"]
    axes = dict.fromkeys(axis for each in found for axis in each["ratings"])
    scores = [each["score"] for each in found]
    ratings: dict[str, list[float | None]] = {axis: [each["ratings"].get(axis) for each in found] for axis in axes}
    return columns.judgement(
        {},
        columns.prompt(row, "instruction"),
        [each["text"] for each in found],
        columns.places(scores),
        judge="ultrafeedback",
        ratings={**ratings, "overall_score": scores},
        models=[each["model"] for each in found],
        dataset=row.get("source"),
        repaired=REPAIRED if any(each["was"] != each["score"] for each in found) else None,
    )


# HelpSteer: one row a completion, those of a prompt belong together


def same_prompt(rows: Sequence[tuple[str, Columns]]) -> Iterator[tuple[str, Columns]]:
    for group in together(rows, "prompt").values():
        yield group[0][0], {"prompt": group[0][1].get("prompt"), "rated": group}


def rated_responses(where: str, row: Columns) -> Iterator[Part]:
    """The row of each response says where a bad one stands."""
    good = []
    for place, each in row["rated"]:
        try:
            ratings = {axis: columns.number(each, axis, 0, 4) for axis in HELPSTEER_AXES}
            good.append({"text": columns.text(each, "response"), "ratings": ratings})
        except Skip as reason:
            yield place, reason
    if len(good) >= 2:
        yield where, {**row, "rated": good}
    elif good:
        yield where, Skip("the only rated response to its prompt: nothing to compare")


def by_helpfulness(row: Columns) -> Judgement:
    rated = row["rated"]
    return columns.judgement(
        {},
        turns_of(row, "prompt"),
        [each["text"] for each in rated],
        columns.places([each["ratings"]["helpfulness"] for each in rated]),
        judge="helpsteer",
        ratings={axis: [each["ratings"][axis] for each in rated] for axis in HELPSTEER_AXES},
    )
