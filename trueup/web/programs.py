"""What programs may ask for, by a token in the header and never by a cookie; and the tokens, which owners make."""

from __future__ import annotations

from typing import Annotated

from starlette.responses import Response

from ..feedback.freeze import Choice, Kind
from ..feedback.status import status
from ..store import audit, people
from ..store.people import SCOPES
from .auth import Sent, hidden, needs, new_router, text, token_for
from .export import as_file
from .judging import collection_of
from .people import DAY, VALID_DAYS, people_page
from .security import Refused
from .site import Visit, as_json, goto

router = new_router()
FORMATS: tuple[Kind, ...] = ("preferences", "votes")
Exporting = Annotated[Visit, token_for("export", "export")]
Watching = Annotated[Visit, token_for("status", "see progress")]
Granting = Annotated[Visit, needs("manage tokens")]


@router.get("/api/export/{collection}")
def export(visit: Exporting, collection: str, format: str = "preferences") -> Response:
    """One JSON object a line, as on the page of exports: `preferences`, a row a vote to train on, or `votes`, all that
    was said."""
    found = collection_of(visit, collection)
    if format not in FORMATS:
        raise Refused(400, "there is no such format", f"format is one of {', '.join(FORMATS)}")
    return as_file(visit, found, Choice(format), "raw")


@router.get("/api/status/{collection}")
def how_far(visit: Watching, collection: str) -> Response:
    """What `trueup feedback status --json` prints, without names of people."""
    found = collection_of(visit, collection)
    told = status(visit.site.workspace, found.id, visit.now, leaks=False).to_json()
    workers = [{name: value for name, value in each.items() if name != "name"} for each in told["people"]]
    return as_json(told | {"people": workers})


@router.post("/tokens")
def new_token(visit: Granting, fields: Sent) -> Response:
    """The token is shown in the answer to this and never again: only its hash is kept."""
    site, me = visit.site, visit.me
    scope, only, days = text(fields, "scope"), text(fields, "collection"), text(fields, "days")
    if scope not in SCOPES or days not in map(str, VALID_DAYS):
        raise Refused(400, "there is no such token", "choose from the lists of the page")
    bound = collection_of(visit, only).id if only else ""
    site.meter.count("invite", me.id, site.limits.invite)
    token = people.new_token(site.db, me.id, scope, site.now(), int(days) * DAY, bound)
    audit.note(site.db, site.now(), me.id, "made a token", bound or "all collections", scope=scope, days=int(days))
    return people_page(visit, token=token)


@router.post("/tokens/{token_id}/revoke")
def revoke_token(visit: Granting, token_id: str) -> Response:
    if token_id not in [each["id"] for each in people.tokens(visit.db)]:
        raise hidden("token")
    people.revoke_token(visit.db, token_id)
    audit.note(visit.db, visit.now, visit.me.id, "revoked a token", token_id)
    return goto("/people", "token")
