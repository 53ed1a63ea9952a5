"""Judging: thin over `feedback.desk`, which decides what comes next and stores what was said.

What the script of the page gets is a view as JSON: all of `desk.View`, and beside it `rendered`, the same texts as
safe HTML: {"prompt": [a message each], "completions": [...], "help": [{text, places}]}. Nothing else about an item
leaves the server, and a text that is covered only by its own route, when somebody asks for it.
Where there is no next view, `waiting` says why, in the words of `desk.Progress`; "" when everything is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from starlette.responses import Response

from ..errors import DataError, NotFoundError
from ..feedback.desk import Desk, View
from ..records import digest
from ..store import audit, people, queue
from ..store.queue import Assignment, Collection
from . import categories, markdown, wording
from .auth import Sent, Signed, hidden, needs, new_router, text
from .site import Visit, as_json, goto

router = new_router()
Judging = Annotated[Visit, needs("judge")]

MINE_A_PAGE = 20
ROLES = {"system": "System", "user": "Person", "assistant": "Assistant"}  # as the judging page calls them


@router.get("/")
def collections(visit: Signed) -> Response:
    """The collections of this person; straight to the work where there is only one thing to do."""
    shown = [each for each in queue.collections(visit.db) if visit.me.collection in ("", each.id)]
    open_ones = [each for each in shown if each.status == "open"]
    if visit.me.role == "annotator" and len(open_ones) == 1:
        return goto(f"/c/{open_ones[0].id}")
    return visit.page("collections.html", collections=shown)


@router.get("/c/{collection}")
def judge(visit: Judging, collection: str) -> Response:
    """The judging page; before it, once each: the content warning and the guideline in force."""
    found = collection_of(visit, collection)
    if _warning(found) and visit.me.settings.get("warned", {}).get(found.id) != digest(_warning(found))[:8]:
        offered = categories.listed(visit, [found.id])
        return visit.page("warning.html", collection=found, warning=_warning(found), categories=offered)
    if guideline_of(visit, found)["text"].strip() and not _has_read(visit, found):
        return goto(f"/c/{found.id}/guideline")
    come = _next(visit, _desk(visit, found))
    return visit.page("judge.html", collection=found, view=come["next"], waiting=come["waiting"])


@router.post("/c/{collection}/warning")
def warned(visit: Judging, collection: str, fields: Sent) -> Response:
    """They were told what they may meet and want to go on. Kept with the words they saw: new words ask again."""
    found = collection_of(visit, collection)
    if "listed" in fields:
        categories.save(visit, fields)
    before = visit.me.settings.get("warned", {})
    settings = visit.me.settings | {"warned": before | {found.id: digest(_warning(found))[:8]}}
    people.set_settings(visit.db, visit.me.id, settings)
    return goto(f"/c/{found.id}")


@router.get("/c/{collection}/next")
def next_view(visit: Judging, collection: str) -> Response:
    """The view itself or, without one, {"waiting": why}."""
    come = _next(visit, _desk(visit, collection_of(visit, collection)))
    return as_json(come["next"] or {"waiting": come["waiting"]})


@router.post("/a/{assignment}/answer")
def answer(visit: Judging, assignment: str, fields: Sent) -> Response:
    held = assignment_of(visit, assignment)
    desk = _desk(visit, held.collection)
    revises = text(fields, "revises") if "revises" in fields else None
    receipt, view = desk.answer_and_next(visit.me.id, held.id, text(fields, "key"), _object(fields, "answer"), revises)
    if held.judgement and not (receipt.again or receipt.elsewhere):
        audit.note(visit.db, visit.now, visit.me.id, "revised a judgement", receipt.judgement)
    return as_json({"receipt": receipt.to_json()} | _come(visit, desk, view))


@router.get("/a/{assignment}/covered")
def covered(visit: Judging, assignment: str, part: int = 0) -> Response:
    """A text that no view holds, because somebody has to ask for it: the prompt (0), one of the completions (1 ...), or
    behind them all that helpers say, as {"texts": [one a message], "rendered": [the same as safe HTML]}."""
    held = assignment_of(visit, assignment)
    said = _desk(visit, held.collection).uncover(visit.me.id, held.id, part)
    texts = [message["content"] for message in said]
    return as_json({"texts": texts, "rendered": [str(markdown.render(each)) for each in texts]})


@router.post("/a/{assignment}/draft")
def draft(visit: Judging, assignment: str, fields: Sent) -> Response:
    """`seq` is the script's own: it comes back, so that a late answer to an early draft can be told from the last."""
    held = assignment_of(visit, assignment)
    _desk(visit, held.collection).draft(visit.me.id, held.id, _object(fields, "draft"))
    return as_json({"seq": fields.get("seq")})


@router.post("/a/{assignment}/renew")
def renew(visit: Judging, assignment: str) -> Response:
    held = assignment_of(visit, assignment)
    return as_json({"held": _desk(visit, held.collection).renew(visit.me.id, held.id)})


@router.post("/a/{assignment}/skip")
def skip(visit: Judging, assignment: str, fields: Sent) -> Response:
    held = assignment_of(visit, assignment)
    desk = _desk(visit, held.collection)
    desk.skip(visit.me.id, held.id, text(fields, "reason"))
    return as_json(_next(visit, desk))


@router.post("/a/{assignment}/postpone")
def postpone(visit: Judging, assignment: str) -> Response:
    held = assignment_of(visit, assignment)
    desk = _desk(visit, held.collection)
    desk.postpone(visit.me.id, held.id)
    return as_json(_next(visit, desk))


@router.post("/a/{assignment}/revise")
def revise(visit: Judging, assignment: str) -> Response:
    """One's own earlier answer again, to be changed; from the script, or from the button on the page of own work."""
    held = assignment_of(visit, assignment)
    view = _desk(visit, held.collection).revise(visit.me.id, held.id)
    return as_json({"view": as_sent(view)}) if "x-trueup" in visit.request.headers else goto(f"/c/{held.collection}")


@router.post("/c/{collection}/undo")
def undo(visit: Judging, collection: str) -> Response:
    return as_json({"view": as_sent(_desk(visit, collection_of(visit, collection)).undo(visit.me.id))})


@router.get("/c/{collection}/mine")
def mine(visit: Judging, collection: str, before: str = "", show: str = "") -> Response:
    """What this person judged, newest first, as they saw it: in their order, and without what they were not told.

    What is covered is not in the page, but for the one assignment that they ask to `show`.
    """
    found = collection_of(visit, collection)
    last = assignment_of(visit, before).id if before else None
    work = _desk(visit, found).history(visit.me.id, MINE_A_PAGE + 1, last, show)
    shown = [(each, wording.said(each.answer)) for each in work[:MINE_A_PAGE]]
    older = work[MINE_A_PAGE - 1].assignment if len(work) > MINE_A_PAGE else ""
    return visit.page(
        "mine.html", collection=found, work=shown, before=before, older=older, letters=wording.LETTERS, roles=ROLES
    )


@router.get("/c/{collection}/guideline")
def guideline(visit: Signed, collection: str) -> Response:
    found = collection_of(visit, collection)
    now = guideline_of(visit, found)
    versions = queue.guidelines(visit.db, found.id) if visit.may("manage collections") else []
    return visit.page(
        "guideline.html", collection=found, guideline=now, versions=versions, read=_has_read(visit, found)
    )


@router.post("/c/{collection}/guideline/seen")
def guideline_seen(visit: Judging, collection: str, fields: Sent) -> Response:
    """Noted for the version they saw, which `guideline` names; a newer one will be asked about again."""
    found = collection_of(visit, collection)
    seen = fields.get("guideline", found.guideline)
    if seen not in [each["id"] for each in queue.guidelines(visit.db, found.id)]:
        raise hidden("guideline")
    queue.acknowledge(visit.db, visit.me.id, seen, visit.now)
    return goto(f"/c/{found.id}") if "token" in fields else as_json({})


# What other modules of routes use too


def collection_of(visit: Visit, ref: str) -> Collection:
    """By id or name. One that this person may not see is the same error as one that does not exist."""
    try:
        found = queue.collection(visit.db, ref)
    except NotFoundError:
        raise hidden("collection") from None  # the store's own words would name others
    if visit.me.collection not in ("", found.id):
        raise hidden("collection")
    return found


def assignment_of(visit: Visit, id: str) -> Assignment:
    """The person's own. Somebody else's is the same error as one that does not exist."""
    return queue.assignment(visit.db, id, visit.me.id)


def guideline_of(visit: Visit, collection: Collection) -> Mapping[str, Any]:
    """The version in force."""
    return next(each for each in queue.guidelines(visit.db, collection.id) if each["id"] == collection.guideline)


def as_sent(view: View | None) -> dict[str, Any] | None:
    if view is None:
        return None
    plain = view.to_json()
    rendered = {
        "prompt": [str(markdown.render(message["content"])) for message in plain["prompt"]],
        "completions": [str(markdown.render(each)) for each in plain["completions"]],
        "help": [_rendered_help(each) for each in plain["help"]],
    }
    return plain | {"rendered": rendered}


# Inside


def _rendered_help(output: Mapping[str, Any]) -> dict[str, Any]:
    places = [str(markdown.render(each)) for each in output["places"]]
    return {"text": str(markdown.render(output["text"])), "places": places}


def _desk(visit: Visit, collection: Collection | str) -> Desk:
    return visit.site.desk(collection if isinstance(collection, str) else collection.id)


def _next(visit: Visit, desk: Desk) -> dict[str, Any]:
    return _come(visit, desk, desk.next(visit.me.id))


def _come(visit: Visit, desk: Desk, view: View | None) -> dict[str, Any]:
    return {"next": as_sent(view), "waiting": "" if view else desk.progress(visit.me.id).waiting}


def _warning(collection: Collection) -> str:
    return str(collection.config.get("warning", "")).strip()


def _has_read(visit: Visit, collection: Collection) -> bool:
    return queue.acknowledged(visit.db, visit.me.id, collection.guideline)


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if not isinstance(value, dict):
        raise DataError(f"'{name}' has to be an object", "reload the page")
    return value
