"""Data sets in which a public voted: answers of Stack Exchange, comments of Reddit (SHP)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..records import Judgement
from . import columns
from .columns import Columns, Skip
from .parts import Part, usable


def vote_score(upvotes: int, accepted: bool = False) -> int:
    """log2(1 + upvotes) to the nearest whole number, plus 1 if accepted; -1 for more votes against than for."""
    return -1 if upvotes < 0 else round(math.log2(1 + upvotes)) + accepted


def scored_answers(where: str, row: Columns) -> Iterator[Part]:
    """A question with those of its answers that have a text and a score."""
    try:
        answers = columns.objects(row, "answers")
    except Skip as reason:
        yield where, reason
        return
    yield from usable(where, "answer", row, "answers", answers, _scored)


def _scored(answer: Columns) -> Columns:
    text = columns.text(answer, "text")
    accepted = bool(answer.get("selected") or answer.get("accepted"))
    if answer.get("upvotes") is None:
        return {"text": text, "score": columns.whole_number(answer, "pm_score"), "id": answer.get("answer_id")}
    score = vote_score(columns.whole_number(answer, "upvotes"), accepted)
    if answer.get("pm_score") not in (None, score):
        raise Skip("'pm_score' is not the score that its upvotes give")
    return {"text": text, "score": score, "id": answer.get("answer_id")}


def answers_by_votes(row: Columns) -> Judgement:
    """One ranking of all answers. Who wrote them is left out: these are people's names."""
    answers, about = row["answers"], row.get("metadata")
    scores = [answer["score"] for answer in answers]
    return columns.judgement(
        {},
        columns.prompt(row, "question"),
        [answer["text"] for answer in answers],
        columns.places(scores),
        judge="stack-exchange",
        ratings={"score": [float(score) for score in scores]},
        question=row.get("qid"),
        answers=[answer["id"] for answer in answers if answer["id"] is not None],
        pages=about if isinstance(about, list) else None,
    )


def later_and_higher(row: Columns) -> Judgement:
    """SHP: of two comments the later has the higher score. An earlier one could owe its score to being seen longer."""
    label = columns.whole_number(row, "labels", 0, 1)
    better, worse = ("A", "B") if label == 1 else ("B", "A")
    sides = columns.text(row, "human_ref_A"), columns.text(row, "human_ref_B")
    if sides[0].strip() == sides[1].strip():
        raise Skip("equal sides")
    if _known(row, "score_A", "score_B") and not row[f"score_{better}"] > row[f"score_{worse}"]:
        raise Skip("'labels' does not name the comment with the higher score (1 is A)")
    written = "created_at_utc_A", "created_at_utc_B"
    if _known(row, *written) and row[f"created_at_utc_{better}"] < row[f"created_at_utc_{worse}"]:
        raise Skip("the comment with the higher score is the earlier one: it was seen longer")
    return columns.judgement(
        {},
        columns.prompt(row, "history"),
        sides,
        (1, 2) if label == 1 else (2, 1),
        judge="shp",
        **{name: row.get(name) for name in ("post_id", "domain", "score_ratio", "seconds_difference")},
        ratings={"score": (float(row["score_A"]), float(row["score_B"]))} if _known(row, "score_A", "score_B") else {},
    )


def _known(row: Columns, *fields: str) -> bool:
    """Whether these columns are there, as numbers."""
    return all(row.get(field) is not None and columns.number(row, field) is not None for field in fields)
