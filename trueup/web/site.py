"""What the routes share: the workspace, the secret, the clock, who is asking, and how a page is made."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from ..feedback import roles
from ..feedback.desk import Desk
from ..store import Workspace, review
from ..store.database import Database
from ..store.people import Person
from ..store.review import Differing
from ..trying import Models, Waiting
from ..watching import Teller
from .limits import Limits, Meter, network_of
from .markdown import raw, render, shown
from .security import SignInNeeded, keyed

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"

DESK_SECONDS = 60.0
SLOW = 1.0  # seconds: what takes longer to read is kept for a while
KEPT_FOR = 20  # times as long as it took, so that it is never more than a small part of the server's work
# What a page may say after a form was sent; the address names the entry, never the words.
NOTICES = {
    "saved": "Saved.",
    "password": "The password is set. Other sessions of yours were signed out.",
    "revoked": "The invite no longer works.",
    "token": "The token no longer works.",
    "role": "The role is changed; the person has to sign in again.",
    "deactivated": "The person can no longer sign in. Their judgements stay.",
    "anonymised": "Name and account are gone. The judgements stay, under the pseudonym.",
    "forgotten": "What you told about yourself is deleted.",
    "guideline": "There is a new version of the guideline; people see it before their next judgement.",
    "status": "The collection has changed.",
    "accepted": "Decided. A set that is frozen takes your answer in place of the votes.",
    "asked-again": "More people are asked. The item comes back here if they still disagree.",
    "ambiguous": "Called ambiguous: a set that is frozen leaves it out and counts it.",
    "let-back": "The item is back in the queue.",
    "run-stop": "Asked to stop. It ends after its step, writes a checkpoint and can be taken up again.",
    "run-resume": "Started again in a process of its own. It takes a few seconds until it is at work.",
    "kept-out": "The item stays out: nobody is handed it, and no frozen set has it.",
}


@dataclass
class Site:
    """One server over one workspace."""

    workspace: Workspace
    secret: bytes
    now: Callable[[], float]
    start_token: str | None = None
    secure: bool = False
    limits: Limits = field(default_factory=Limits)
    meter: Meter = field(default_factory=Meter)
    teller: Teller = field(default_factory=Teller)

    def __post_init__(self) -> None:
        self.templates = _environment()
        self.models, self.tried = Models(self.workspace.path), Waiting()
        self._desks: dict[str, tuple[float, Desk]] = {}
        self._differing: dict[str, tuple[float, list[Differing]]] = {}
        # Cookies do not know ports: servers of two workspaces on one machine must not overwrite each other's.
        self.name = hashlib.sha256(keyed(self.secret, "cookie", "name").encode()).hexdigest()[:8]

    @property
    def db(self) -> Database:
        return self.workspace.database

    def desk(self, collection: str) -> Desk:
        """A desk remembers what it counted, which spares every request the counting; a minute later it looks again."""
        made, desk = self._desks.get(collection, (0.0, None))
        if desk is None or not 0 <= self.now() - made < DESK_SECONDS:
            desk = Desk(self.workspace, collection, self.now, secret=self.secret)
            self._desks[collection] = (self.now(), desk)
        return desk

    def differing(self, collection: str) -> list[Differing]:
        """What people disagree on. Of a million judgements that is kept for a minute or two, of few not at all."""
        until, kept = self._differing.get(collection, (0.0, []))
        if time.monotonic() < until:
            return kept
        began = time.monotonic()
        found = review.differing(self.db, collection)
        took = time.monotonic() - began
        if took > SLOW:
            self._differing[collection] = (time.monotonic() + KEPT_FOR * took, found)
        return found


@dataclass(frozen=True)
class Visit:
    """One request: to which site, from whom."""

    site: Site
    request: Request
    person: Person | None
    cookie: str  # the session's, or where nobody is signed in, the one that ties a form to this browser

    @property
    def me(self) -> Person:
        if self.person is None:
            raise SignInNeeded()
        return self.person

    @property
    def db(self) -> Database:
        return self.site.db

    @property
    def now(self) -> float:
        return self.site.now()

    def may(self, what: str) -> bool:
        return self.person is not None and roles.may(self.person.role, what)

    @property
    def form_token(self) -> str:
        return keyed(self.site.secret, "form", self.cookie)

    @property
    def address(self) -> str:
        """Of the client, as it is counted; of the client behind a proxy only where the server trusts that proxy."""
        return network_of(self.request.client.host) if self.request.client else ""

    def page(self, template: str, status: int = 200, **context: Any) -> Response:
        """An HTML page. Every template gets what `base.html` needs:

        `nonce` for script tags · `person` (None before sign-in; .name .role .settings) · `links`: [(href, label)] of
        the navigation this person may use · `here`: the path · `form_token`: for the hidden field `token` of every
        form · `notice`: one line to show, or "" · `may(what)`.
        """
        known = {
            "nonce": self.request.state.nonce,
            "person": self.person,
            "settings": dict(self.person.settings) if self.person else {},
            "links": self.links(),
            "here": self.request.url.path,
            "form_token": self.form_token,
            "notice": NOTICES.get(self.request.query_params.get("done", ""), ""),
            "may": self.may,
        }
        text = self.site.templates.get_template(template).render(known | context)
        return HTMLResponse(text.encode("utf-8", "replace"), status)

    def links(self) -> list[tuple[str, str]]:
        if self.person is None:
            return []
        entries = [
            ("/", "Collections", True),
            ("/runs", "Runs", self.may("see runs") and not self.person.collection),
            ("/try", "Try models", self.may("try models") and not self.person.collection),
            ("/people", "People", self.may("invite")),
            ("/audit", "Audit log", self.may("audit")),
            ("/account", "Account", True),
        ]
        return [(href, label) for href, label, shown_ in entries if shown_]


def time_tag(moment: float | str) -> Markup:
    """A moment, from seconds since 1970 or from the store's text, in UTC for people and for programs."""
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else datetime.fromtimestamp(moment, UTC)
    machine, people = at.isoformat(timespec="seconds"), f"{at:%Y-%m-%d %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(machine, people)


def goto(path: str, done: str = "") -> RedirectResponse:
    assert path.startswith("/") and not path.startswith("//") and (not done or done in NOTICES)
    joint = "&" if "?" in path else "?"
    return RedirectResponse(f"{path}{joint}done={done}" if done else path, status_code=303)


def as_json(value: Mapping[str, Any], status: int = 200) -> JSONResponse:
    return JSONResponse(dict(value), status)


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": shown, "markdown": render, "raw": raw, "time": time_tag}
    return made
