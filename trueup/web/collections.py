"""A collection seen from above: progress, quality, its guideline, opening and closing, export."""

from __future__ import annotations

from typing import Annotated, Any

from markupsafe import Markup
from starlette.responses import Response

from ..feedback import learning, quality
from ..reports.feedback_charts import learning_chart, people_chart
from ..store import audit, figures, people, queue
from . import wording
from .auth import Sent, needs, new_router, text
from .judging import collection_of
from .security import Refused
from .site import Visit, goto

router = new_router()
Looking = Annotated[Visit, needs("see progress")]
Managing = Annotated[Visit, needs("manage collections")]

Assessing = Annotated[Visit, needs("see quality")]

AGREEMENT = (  # key of the figures, words, and whether it is a share
    ("percent", "Same answer", True),
    ("percent_without_ties", "Same answer, ties left out", True),
    ("alpha", "Krippendorff's alpha", False),
    ("alpha_ordinal", "Krippendorff's alpha, ordinal", False),
    ("alpha_interval", "Krippendorff's alpha, interval", False),
    ("fleiss", "Fleiss' kappa", False),
)
FINDINGS = (
    ("gold", "Golds right", True),
    ("consensus", "Agrees with the others", True),
    ("reliability", "Reliability (Dawid-Skene)", True),
    ("position", "Chose the first", True),
    ("length", "Chose the longer", True),
    ("consistency", "Same answer again", True),
    ("speed", "Words a second", False),
    ("run", "Longest run of one answer", False),
    ("drift", "Drift on controls", False),
)
CHARTS = (("gold", "Golds right"), ("consensus", "Agreement with the others"), ("position", "Chose the first shown"))
LONGEST_GUIDELINE = 200_000  # characters


@router.get("/c/{collection}/progress")
def progress(visit: Looking, collection: str) -> Response:
    found = collection_of(visit, collection)
    counts = queue.counts(visit.db, found.id, visit.now)
    return visit.page("progress.html", collection=found, counts=counts, who=names_of(visit))


@router.get("/c/{collection}/quality")
def quality_page(visit: Assessing, collection: str) -> Response:
    """Opens from figures that a run computed and kept: it costs nothing, and it says how old they are."""
    found = collection_of(visit, collection)
    stored = quality.summary(visit.site.workspace, found.id, visit.now)
    by_judge = {each["judge"]: each["name"] for each in names_of(visit).values()}
    return visit.page(
        "quality.html",
        collection=found,
        stored=stored,
        found=stored["value"] if stored else {},
        names=by_judge,
        measure=wording.measure,
        age=wording.ago(stored["age"]) if stored else "",
        since=wording.counted(stored["since"], "judgement") if stored and stored["since"] else "none",
        measures=AGREEMENT,
        findings=FINDINGS,
        charts=_charts(stored["value"]["judges"]) if stored else [],
        curve=_curve(visit, found.id),
    )


def _charts(judges: list[dict[str, Any]]) -> list[Markup]:
    """Where people would rather look than read: everybody side by side, with intervals."""
    drawn = (people_chart(judges, key, title) for key, title in CHARTS)
    return [Markup(svg) for svg in drawn if svg]  # every label in it is escaped by the chart


def _curve(visit: Visit, collection: str) -> dict[str, Any] | None:
    stored = figures.latest(visit.db, collection, learning.KIND)
    if stored is None:
        return None
    age = wording.ago(visit.now - stored["made"])
    return {"chart": Markup(learning_chart(stored["value"])), "message": stored["value"]["message"], "age": age}


@router.post("/c/{collection}/guideline")
def new_guideline(visit: Managing, collection: str, fields: Sent) -> Response:
    found, words = collection_of(visit, collection), text(fields, "text").replace("\r\n", "\n")
    if len(words) > LONGEST_GUIDELINE:
        raise Refused(413, f"a guideline has at most {LONGEST_GUIDELINE:,} characters", "nobody reads a longer one")
    version = queue.add_guideline(visit.db, found.id, words, visit.now)
    audit.note(visit.db, visit.now, visit.me.id, "changed the guideline", found.id, version=version)
    return goto(f"/c/{found.id}/guideline", "guideline")


@router.post("/c/{collection}/status")
def set_status(visit: Managing, collection: str, fields: Sent) -> Response:
    found, status = collection_of(visit, collection), text(fields, "status")
    if status not in ("open", "closed"):
        raise Refused(400, "a collection is open or closed")
    queue.set_status(visit.db, found.id, status)  # type: ignore[arg-type]
    audit.note(visit.db, visit.now, visit.me.id, "opened" if status == "open" else "closed", found.id)
    return goto(f"/c/{found.id}/progress", "status")


def names_of(visit: Visit) -> dict[str, dict[str, Any]]:
    """Person -> how they are called here: by name for those who manage people, by pseudonym for the others."""
    named = visit.may("invite")
    return {each.id: {"judge": each.judge, "name": each.name if named else ""} for each in people.people(visit.db)}
