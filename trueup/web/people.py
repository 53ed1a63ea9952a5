"""People and invitations, and the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from starlette.responses import Response

from ..errors import WorkspaceError
from ..feedback import roles
from ..store import audit, people, queue
from ..store.people import ROLES, SCOPES, PersonRole
from .account import DEMOGRAPHICS
from .auth import Sent, hidden, needs, new_router, text
from .judging import collection_of
from .security import Refused
from .site import Visit, goto

router = new_router()
Inviting = Annotated[Visit, needs("invite")]
Owning = Annotated[Visit, needs("manage people")]
Auditing = Annotated[Visit, needs("audit")]

DAY = 24 * 3600.0
VALID_DAYS = (1, 3, 7, 30)
MOST_USES = 100
AUDIT_A_PAGE = 200


@router.get("/people")
def everybody(visit: Inviting) -> Response:
    return people_page(visit)


@router.post("/invites")
def invite(visit: Inviting, fields: Sent) -> Response:
    """The link is shown in the answer to this and never again: only its hash is kept."""
    site, me = visit.site, visit.me
    role = _role(text(fields, "role"))
    if not roles.may_invite(me.role, role):
        raise Refused(403, f"you cannot invite somebody as {role}", "an owner can")
    only = text(fields, "collection")
    scope = collection_of(visit, only).id if only else me.collection
    if scope and role == "owner":
        raise Refused(400, "an owner is an owner of everything", "choose all collections, or another role")
    days, uses = _number(fields, "days", VALID_DAYS), _number(fields, "uses", range(1, MOST_USES + 1))
    site.meter.count("invite", me.id, site.limits.invite)
    token = people.new_invite(site.db, role, me.id, site.now(), days * DAY, uses, scope)
    audit.note(site.db, site.now(), me.id, "invited", scope or "all collections", role=role, days=days, uses=uses)
    return people_page(visit, link=str(visit.request.url_for("invite_page", token=token)))


@router.post("/invites/{invite}/revoke")
def revoke(visit: Inviting, invite: str) -> Response:
    if invite not in [each["id"] for each in _invites(visit)]:
        raise hidden("invitation")
    people.revoke_invite(visit.db, invite)
    audit.note(visit.db, visit.now, visit.me.id, "revoked an invitation", invite)
    return goto("/people", "revoked")


@router.post("/people/{person}/role")
def set_role(visit: Owning, person: str, fields: Sent) -> Response:
    found, role = people.person(visit.db, person), _role(text(fields, "role"))
    if found.collection and role == "owner":
        raise Refused(
            409, "this person sees one collection, and an owner is an owner of everything", "invite them anew"
        )
    with _keeping_an_owner():
        people.set_role(visit.db, found.id, role)
    people.end_sessions(visit.db, found.id)  # what they hold open was drawn for the old role
    audit.note(visit.db, visit.now, visit.me.id, "changed a role", found.id, old=found.role, new=role)
    return goto("/people", "role")


@router.post("/people/{person}/deactivate")
def deactivate(visit: Owning, person: str) -> Response:
    found = people.person(visit.db, person)
    with _keeping_an_owner():
        people.deactivate(visit.db, found.id)
    audit.note(visit.db, visit.now, visit.me.id, "deactivated", found.id)
    return goto("/people", "deactivated")


@router.get("/people/{person}/anonymise")
def ask_anonymise(visit: Owning, person: str) -> Response:
    """It cannot be undone, so it is asked on a page of its own."""
    return visit.page("anonymise.html", other=people.person(visit.db, person))


@router.post("/people/{person}/anonymise")
def anonymise(visit: Owning, person: str) -> Response:
    found = people.person(visit.db, person)
    with _keeping_an_owner():
        people.anonymise(visit.db, found.id)
    people.forget_demographics(visit.db, visit.site.secret, found.id)
    audit.note(visit.db, visit.now, visit.me.id, "anonymised", found.id)
    return goto("/people", "anonymised")


@router.get("/audit")
def audit_log(visit: Auditing, after: int = 0) -> Response:
    after = min(max(after, 0), 1 << 62)
    entries = audit.entries(visit.db, after, AUDIT_A_PAGE)
    names = {each.id: each.name for each in people.people(visit.db)}
    later = entries[-1]["number"] if len(entries) == AUDIT_A_PAGE else 0
    return visit.page("audit.html", entries=entries, names=names, later=later)


@router.post("/audit/verify")
def verify_audit(visit: Auditing) -> Response:
    """Reads the whole log, so it is asked for and not done on every look."""
    return visit.page("audit_checked.html", problems=audit.verify(visit.db))


@contextmanager
def _keeping_an_owner() -> Iterator[None]:
    """The store keeps the last owner; here that is a conflict, not a broken workspace."""
    try:
        yield
    except WorkspaceError as error:
        raise Refused(409, error.message, error.hint) from None


def people_page(visit: Visit, link: str = "", token: str = "") -> Response:
    """`link` and `token`: what was made just now, to be shown this once."""
    collections = queue.collections(visit.db)
    everybody = people.people(visit.db)
    return visit.page(
        "people.html",
        link=link,
        token_made=token,
        people=[each for each in everybody if visit.me.collection in ("", each.collection)],
        invites=_invites(visit),
        collections=[each for each in collections if visit.me.collection in ("", each.id)],
        collection_names={each.id: each.name for each in collections},
        may_invite=[each for each in ROLES if roles.may_invite(visit.me.role, each)],
        roles=ROLES,
        days=VALID_DAYS,
        now=visit.now,
        questions=DEMOGRAPHICS,
        demographics=people.demographics(visit.db) if visit.may("manage people") else {},
        tokens=people.tokens(visit.db) if visit.may("manage tokens") else [],
        scopes=SCOPES,
        names={each.id: each.name for each in everybody},
        min_cell=people.MIN_CELL,
    )


def _invites(visit: Visit) -> list[dict[str, Any]]:
    """Those that this person may see; one who is bound to a collection sees those of that collection."""
    return [each for each in people.invites(visit.db) if visit.me.collection in ("", each["collection"])]


def _role(value: str) -> PersonRole:
    if value not in ROLES:
        raise Refused(400, "there is no such role", f"choose one of {', '.join(ROLES)}")
    return value


def _number(fields: dict[str, Any], name: str, allowed: range | tuple[int, ...]) -> int:
    value = text(fields, name)
    if not (value.isascii() and value.isdecimal()) or len(value) > 9 or int(value) not in allowed:
        raise Refused(400, f"'{name}' cannot be {value[:20]!r}")
    return int(value)
