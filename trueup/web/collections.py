"""A collection seen from above: progress, quality, its guideline, opening and closing, export."""

from __future__ import annotations

from typing import Annotated, Any

from markupsafe import Markup
from starlette.responses import Response

from ..feedback import adjudicate, learning, quality
from ..feedback.status import status
from ..reports.assistance import assistance_lines
from ..reports.feedback_charts import learning_chart, people_chart, ratings_chart, undecided_chart
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
    ("sequential", "Golds, as soon as they tell", True),
    ("consensus", "Agrees with the others", True),
    ("reliability", "Reliability (Dawid-Skene)", True),
    ("position", "Chose the first", True),
    ("length", "Chose the longer", True),
    ("consistency", "Same answer again", True),
    ("speed", "Words a second", False),
    ("run", "Longest run of one answer", False),
    ("drift", "Drift on controls", False),
    ("skips", "Skipped", True),
)
CHARTS = (("gold", "Golds right"), ("consensus", "Agreement with the others"), ("position", "Chose the first shown"))
LONGEST_GUIDELINE = 200_000  # characters
MOST_COUNTED = 100_000  # judgements; comparing more than these takes longer than a page that is opened often may


@router.get("/c/{collection}/progress")
def progress(visit: Looking, collection: str) -> Response:
    found = collection_of(visit, collection)
    now = status(visit.site.workspace, found.id, visit.now, leaks=False)
    return visit.page(
        "progress.html",
        collection=found,
        now=now,
        left="unknown" if now.hours_left is None else wording.lasting(now.hours_left) if now.needed else "nothing",
        aside=sum(states["quarantined"] for states in now.items.values()),
        disputed=_disputed(visit, found.id, now.judgements),
    )


@router.get("/c/{collection}/quality")
def quality_page(visit: Assessing, collection: str) -> Response:
    """Opens from figures that a run computed and kept: it costs nothing, and it says how old they are."""
    found = collection_of(visit, collection)
    stored = quality.summary(visit.site.workspace, found.id, visit.now)
    value = stored["value"] if stored else {}
    by_judge = {each["judge"]: each["name"] for each in names_of(visit).values()}
    return visit.page(
        "quality.html",
        collection=found,
        stored=stored,
        found={name: each for name, each in value.items() if name != "leaderboard"},
        models=_models(visit, value.get("leaderboard")),
        undecided=Markup(undecided_chart(value["undecided"])) if value.get("undecided") else "",
        names=by_judge,
        helped=assistance_lines(value["assistance"]) if value.get("assistance") else [],
        raised=[(flag, each) for flag, each in value.get("flags", {}).items() if each["raised"]],
        measure=wording.measure,
        rating=wording.rating,
        age=wording.ago(stored["age"]) if stored else "",
        since=wording.counted(stored["since"], "judgement") if stored and stored["since"] else "none",
        measures=AGREEMENT,
        findings=FINDINGS,
        charts=_charts(value["judges"]) if stored else [],
        curve=_curve(visit, found.id),
    )


def _disputed(visit: Visit, collection: str, judgements: int) -> str:
    """How many items wait to be decided; nothing where that takes long, or is none of this person's business."""
    if judgements > MOST_COUNTED or not visit.may("adjudicate"):
        return ""
    docket = adjudicate.docket(visit.site.workspace, collection, visit.site.differing(collection))
    return f"{len(docket.open):,}"


def _charts(judges: list[dict[str, Any]]) -> list[Markup]:
    """Where people would rather look than read: everybody side by side, with intervals."""
    drawn = (people_chart(judges, key, title) for key, title in CHARTS)
    return [Markup(svg) for svg in drawn if svg]  # every label in it is escaped by the chart


def _models(visit: Visit, rated: dict[str, Any] | None) -> dict[str, Any] | None:
    """Which model people prefer: for those who may know what wrote what, and nobody else."""
    if not rated or not visit.may("see judgements"):
        return None
    groups = [[each for each in rated["models"] if each["component"] == i] for i in range(rated["components"])]
    charts = [Markup(ratings_chart(group, "Rating, with 95% interval")) for group in groups]
    equal = {each["model"]: each for each in rated["equal_length"]}
    return rated | {"charts": charts, "equal": equal}


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
    with visit.db.write() as connection:
        version = queue.add_guideline(connection, found.id, words, visit.now)
        if version != found.guideline:
            audit.note_within(connection, visit.now, visit.me.id, "changed the guideline", found.id, version=version)
    return goto(f"/c/{found.id}/guideline", "guideline")


@router.post("/c/{collection}/status")
def set_status(visit: Managing, collection: str, fields: Sent) -> Response:
    found, status = collection_of(visit, collection), text(fields, "status")
    if status not in ("open", "closed"):
        raise Refused(400, "a collection is open or closed")
    with visit.db.write() as connection:
        queue.set_status(connection, found.id, status)  # type: ignore[arg-type]
        audit.note_within(connection, visit.now, visit.me.id, "opened" if status == "open" else "closed", found.id)
    return goto(f"/c/{found.id}/progress", "status")


def names_of(visit: Visit) -> dict[str, dict[str, Any]]:
    """Person -> how they are called here: by name for those who manage people, by pseudonym for the others."""
    named = visit.may("invite")
    return {each.id: {"judge": each.judge, "name": each.name if named else ""} for each in people.people(visit.db)}
