"""Who is asking: start token, password, invitation, session cookie; and that a form came from our own page."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from ..errors import DataError, NotFoundError
from ..feedback import roles
from ..store import audit, people
from ..store.people import Person
from .security import SAFE_METHODS, Refused, from_own_page, json_body, request_is_secure, same
from .site import Site, Visit

SESSION_SECONDS = 7 * 24 * 3600
SHORTEST, LONGEST = 12, 1000  # characters of a password
MOST_FIELDS = 300  # of a form: a tick for each category, and a few more

_hasher = PasswordHasher()  # argon2id, parameters of RFC 9106
_at_once = threading.Semaphore(2)  # each hash takes 64 MiB: a burst of sign-ins must not take them all
_NOBODY = _hasher.hash(secrets.token_hex(16))  # checked when there is no such name, which then takes as long

NEEDS: dict[Callable[..., Visit], str] = {}  # the permission behind each dependency: the tests read it


def needs(permission: str) -> Any:
    """A dependency that lets in who has this right of `feedback.roles`: the visit.

    Two words beside those rights: "signed in" is enough for one's own account, "anybody" for the way in.
    """
    assert permission in ("anybody", "signed in", *roles.RIGHTS), permission

    def visit(request: Request) -> Visit:
        site: Site = request.app.state.site
        found = _visit(site, request)
        if permission == "anybody":
            return found
        me = found.me
        changing = request.method not in SAFE_METHODS
        site.meter.count("act" if changing else "look", me.id, site.limits.act if changing else site.limits.look)
        if permission != "signed in":
            roles.require(me.role, permission)
        return found

    NEEDS[visit] = permission
    return Depends(visit)


def token_for(scope: str, permission: str) -> Any:
    """A dependency that lets in a program by its token, never by a cookie: the visit of whom the token stands for.

    A token can do nothing that its person could not. One that is unknown, ended, revoked or for something else is the
    same refusal.
    """
    assert scope in people.SCOPES and permission in roles.RIGHTS, (scope, permission)

    def visit(request: Request) -> Visit:
        site: Site = request.app.state.site
        found = Visit(site, request, people.token(site.db, _bearer(request), scope, site.now()), "")
        if not found.may(permission):
            site.meter.count("sign in", found.address, site.limits.sign_in_address)
            hint = "an owner makes one under People"
            raise Refused(401, "this needs a token that is good for it", hint, {"WWW-Authenticate": "Bearer"})
        site.meter.count("look", found.me.id, site.limits.look)
        return found

    NEEDS[visit] = permission
    return Depends(visit)


async def sent(request: Request) -> dict[str, Any]:
    """What a form or our script sent, as plain values. There are no uploads, so there is no other kind of body."""
    raw = await request.body()
    if _is_json(request):
        return json_body(raw)
    try:
        fields = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise Refused(400, "the form cannot be read", "reload the page") from error
    found = dict(fields)
    if len(found) < len(fields):  # which of the two was meant? Nothing of ours sends both
        raise Refused(400, "the form says something twice", "reload the page")
    return found


async def check_forgery(request: Request) -> None:
    """Runs before every route: whatever changes something proves that one of our pages sent it.

    JSON proves it by a header that no form can set and by the browser's own word; a form by its token, which is tied to
    the cookie of this browser.
    """
    if request.method in SAFE_METHODS:
        return
    if _is_json(request):
        if request.headers.get("x-trueup") != "1" or not from_own_page(request.headers):
            raise Refused(403, "this request came from another site", "reload the page")
        return
    if request.headers.get("content-type", "").split(";")[0] != "application/x-www-form-urlencoded":
        raise Refused(415, "a form or JSON is expected here")
    visit = Visit(request.app.state.site, request, None, _cookie(request.app.state.site, request))
    given = (await sent(request)).get("token", "")
    if not visit.cookie or not same(given, visit.form_token):
        raise Refused(403, "this form is not from this browser, or too old", "go back, reload the page, send it again")


def new_router() -> APIRouter:
    """Every module of routes begins with one of these, so that no route can do without the check."""
    return APIRouter(dependencies=[Depends(check_forgery)])


Sent = Annotated[dict[str, Any], Depends(sent)]
Anybody = Annotated[Visit, needs("anybody")]
Signed = Annotated[Visit, needs("signed in")]


# Passwords


def hash_password(password: str, name: str) -> str:
    if not SHORTEST <= len(password) <= LONGEST:
        raise DataError(f"a password has {SHORTEST} to {LONGEST} characters", "four or five random words are good")
    if len(set(password)) < 5 or name.lower() in password.lower():
        raise DataError("this password is easy to guess", "four or five random words are good")
    with _at_once:
        return _hasher.hash(password.encode("utf-8", "replace"))


def check_password(site: Site, name: str, password: str) -> Person | None:
    """The person, if this is their password. Takes as long for a name that nobody has, so it writes nothing."""
    known = people.password_hash(site.db, name)
    person, stored = known if known else (None, _NOBODY)
    try:
        with _at_once:
            _hasher.verify(stored, password[: LONGEST + 1].encode("utf-8", "replace"))
    except (VerificationError, InvalidHashError):
        return None
    return person


def note_failure(site: Site, name: str) -> None:
    """To be called when the answer is on its way: how long a write takes would tell that there is such a name."""
    if known := people.password_hash(site.db, name):
        audit.note(site.db, site.now(), known[0].id, "sign-in failed", known[0].id)


# Sessions


def sign_in(
    visit: Visit, person: Person, way: Literal["start link", "password", "invitation"], answer: Response
) -> None:
    """A new session, never one that was there before: a cookie somebody planted is worth nothing."""
    site = visit.site
    if visit.cookie:
        people.end_session(site.db, visit.cookie)
    audit.note(site.db, site.now(), person.id, "signed in", person.id, way=way)
    token = people.new_session(site.db, person.id, site.now(), SESSION_SECONDS)
    set_cookie(visit, answer, token, SESSION_SECONDS)


def sign_out(visit: Visit, answer: Response) -> None:
    people.end_session(visit.db, visit.cookie)
    audit.note(visit.db, visit.now, visit.me.id, "signed out", visit.me.id)
    answer.delete_cookie(cookie_name(visit.site, visit.request), path="/")


def set_cookie(visit: Visit, answer: Response, value: str, seconds: int | None) -> None:
    secure = request_is_secure(visit.request, visit.site.secure)
    name = cookie_name(visit.site, visit.request)
    # Lax and not Strict: an invitation or a start link opened from a mail or a terminal has to arrive signed in.
    answer.set_cookie(name, value, max_age=seconds, path="/", httponly=True, samesite="lax", secure=secure)


def cookie_name(site: Site, request: Request) -> str:
    prefix = "__Host-" if request_is_secure(request, site.secure) else ""
    return f"{prefix}trueup-{site.name}"


def form_page(visit: Visit, template: str, status: int = 200, **context: Any) -> Response:
    """A page with a form for somebody who is not signed in: the form's token needs a cookie to be tied to."""
    if visit.cookie:
        return visit.page(template, status, **context)
    visit = Visit(visit.site, visit.request, None, secrets.token_urlsafe(32))
    answer = visit.page(template, status, **context)
    set_cookie(visit, answer, visit.cookie, None)
    return answer


def text(fields: Mapping[str, Any], name: str) -> str:
    """A field that has to be there and be text."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise Refused(400, f"the field '{name}' is missing", "reload the page")
    if "\0" in value:
        raise Refused(400, f"the field '{name}' holds characters that cannot be stored", "remove NUL")
    return value


def _visit(site: Site, request: Request) -> Visit:
    cookie = _cookie(site, request)
    person = people.session(site.db, cookie, site.now()) if cookie else None
    return Visit(site, request, person, cookie)


def _cookie(site: Site, request: Request) -> str:
    return request.cookies.get(cookie_name(site, request), "")


def _bearer(request: Request) -> str:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"


def hidden(what: str) -> NotFoundError:
    """What somebody may not see is told from what does not exist by nothing."""
    return NotFoundError(f"no such {what}", "it may have been removed, or it is not yours")
