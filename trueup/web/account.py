"""Signing in and out, and what a person decides about themselves."""

from __future__ import annotations

import re
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import Response

from ..errors import DataError
from ..store import audit, people
from . import auth
from .auth import Anybody, Sent, Signed, text
from .categories import listed, own_collections
from .security import Refused, same
from .site import Visit, as_json, goto

router = auth.new_router()

OWN_PATH = re.compile(r"/(?!/)[\w/-]*", re.ASCII)
SETTINGS: dict[str, tuple[Any, ...]] = {  # the settings with a closed list of values; `keymap` is checked apart
    "theme": ("auto", "light", "dark"),
    "single_keys": (True, False),
    "rendered": (True, False),
}
MOST_KEYS = 60
# Voluntary, coarse on purpose: a precise answer finds a person in a small group.
DEMOGRAPHICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "age": ("Age", ("18 to 24", "25 to 34", "35 to 44", "45 to 54", "55 to 64", "65 or more")),
    "gender": ("Gender", ("woman", "man", "another")),
    "education": ("Highest education", ("school", "vocational training", "university", "doctorate")),
    "english": ("English", ("first language", "fluent", "learning")),
    "region": ("Where you grew up", ("Africa", "Asia", "Europe", "North America", "South America", "Oceania")),
}


@router.get("/start")
def start(visit: Anybody, token: str = "", next: str = "/") -> Response:
    """The link that `trueup label` printed: its token becomes a session of the owner."""
    site = visit.site
    site.meter.count("sign in", visit.address, site.limits.sign_in_address)
    if site.start_token is None or not same(token, site.start_token):
        raise Refused(403, "this start link is not (any more) the one of this server", "use the link printed last")
    answer = goto(own_path(next))
    auth.sign_in(visit, people.local_owner(site.db, "owner", site.now()), "start link", answer)
    return answer


@router.get("/login")
def login_page(visit: Anybody, next: str = "/") -> Response:
    return (
        goto(own_path(next)) if visit.person else auth.form_page(visit, "login.html", next=own_path(next), problem="")
    )


@router.post("/login")
def login(visit: Anybody, fields: Sent) -> Response:
    site, name = visit.site, " ".join(text(fields, "name").split())
    site.meter.count("sign in", visit.address, site.limits.sign_in_address)
    site.meter.count("sign in as", who := name.lower()[: people.LONGEST_NAME], site.limits.sign_in_name)
    back = own_path(str(fields.get("next", "/")))
    person = auth.check_password(site, name, text(fields, "password"))
    if person is None:
        problem = "That name and password do not fit together."
        refused = auth.form_page(visit, "login.html", 403, next=back, problem=problem)
        refused.background = BackgroundTask(auth.note_failure, site, name)
        return refused
    site.meter.forgive("sign in as", who)
    answer = goto(back)
    auth.sign_in(visit, person, "password", answer)
    return answer


@router.post("/logout")
def logout(visit: Signed) -> Response:
    answer = goto("/login")
    auth.sign_out(visit, answer)
    return answer


@router.get("/invite/{token}")
def invite_page(visit: Anybody, token: str) -> Response:
    """Looking at an invitation uses nothing up: mail programs open links on their own."""
    return auth.form_page(visit, "invite.html", invite=token, problem="", name="")


@router.post("/invite/{token}")
def accept(visit: Anybody, token: str, fields: Sent) -> Response:
    site, name = visit.site, text(fields, "name")
    site.meter.count("sign in", visit.address, site.limits.sign_in_address)
    try:
        hashed = auth.hash_password(text(fields, "password"), name)
        person = people.accept_invite(site.db, token, name, site.now(), hashed)
    except DataError as error:
        problem = f"{error.message}: {error.hint}."
        return auth.form_page(visit, "invite.html", 400, invite=token, problem=problem, name=name)
    audit.note(site.db, site.now(), person.id, "accepted an invitation", person.id, role=person.role)
    answer = goto("/")
    auth.sign_in(visit, person, "invitation", answer)
    return answer


@router.get("/account")
def account(visit: Signed) -> Response:
    return _account(visit)


@router.post("/account/password")
def set_password(visit: Signed, fields: Sent) -> Response:
    """Who has one already must say it: an unlocked screen is not enough to take an account over."""
    site, me = visit.site, visit.me
    site.meter.count("sign in as", me.name.lower(), site.limits.sign_in_name)
    if people.password_hash(site.db, me.name) and not auth.check_password(site, me.name, text(fields, "old")):
        auth.note_failure(site, me.name)
        return _account(visit, 403, "That is not the present password.")
    try:
        hashed = auth.hash_password(text(fields, "new"), me.name)
    except DataError as error:
        return _account(visit, 400, f"{error.message}: {error.hint}.")
    people.set_password_hash(site.db, me.id, hashed)
    audit.note(site.db, site.now(), me.id, "set a password", me.id)
    answer = goto("/account", "password")
    auth.sign_in(visit, me, "password", answer)
    return answer


@router.post("/settings")
def settings(visit: Signed, fields: Sent) -> Response:
    """From the judging page as JSON, from the account page as a form."""
    chosen = dict(visit.me.settings) | read_settings(fields)
    people.set_settings(visit.db, visit.me.id, chosen)
    return goto("/account", "saved") if "token" in fields else as_json({"settings": chosen})


@router.get("/account/demographics")
def demographics(visit: Signed) -> Response:
    return visit.page("demographics.html", questions=DEMOGRAPHICS)


@router.post("/account/demographics")
def set_demographics(visit: Signed, fields: Sent) -> Response:
    answers = {}
    for name, (label, options) in DEMOGRAPHICS.items():
        given = text(fields, name)
        if given and given not in options:
            raise Refused(400, f"'{label}' has no such answer", "choose one of the list, or none")
        answers[name] = given
    people.set_demographics(visit.db, visit.site.secret, visit.me.id, answers)
    return goto("/account", "saved")


@router.post("/account/demographics/forget")
def forget_demographics(visit: Signed) -> Response:
    people.forget_demographics(visit.db, visit.site.secret, visit.me.id)
    return goto("/account", "forgotten")


def own_path(path: str) -> str:
    """A path of this server or "/": never a way out to another one."""
    return path if OWN_PATH.fullmatch(path) else "/"


def read_settings(fields: dict[str, Any]) -> dict[str, Any]:
    """The settings among `fields`; a form says "yes" and "no" where JSON says true and false."""
    words = {"yes": True, "no": False}
    found: dict[str, Any] = {}
    for name, allowed in SETTINGS.items():
        if name in fields:
            value = words.get(fields[name], fields[name]) if isinstance(fields[name], str) else fields[name]
            if not isinstance(value, str | bool) or value not in allowed:
                raise Refused(400, f"the setting '{name}' has no such value")
            found[name] = value
    if "keymap" in fields:
        found["keymap"] = _keymap(fields["keymap"])
    return found


def _keymap(value: Any) -> dict[str, str]:
    """Action -> key, both short text. Which actions there are is the script's business."""
    if not isinstance(value, dict) or len(value) > MOST_KEYS:
        raise Refused(400, "the keymap has to be an object of keys")
    if not all(isinstance(each, str) and len(each) <= 40 for pair in value.items() for each in pair):
        raise Refused(400, "the keymap has to hold short texts")
    return value


def _account(visit: Visit, status: int = 200, problem: str = "") -> Response:
    has_password = people.password_hash(visit.db, visit.me.name) is not None
    offered = listed(visit, own_collections(visit)) if visit.may("judge") else {}
    known = {"problem": problem, "has_password": has_password, "shortest": auth.SHORTEST}
    return visit.page("account.html", status, categories=offered, **known)
