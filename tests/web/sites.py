"""What the web tests share: a site under test, a client for it, and what is held against a page."""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.testclient import TestClient

from trueup.records import Prompt
from trueup.store import Workspace, people, queue
from trueup.web.security import keyed

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_TOKEN = "a-start-token-of-the-tests"
PASSWORD = "correct horse battery staple"
TEXTS = (  # of one prompt each, from short to long
    ("A short title.", "Another, rather longer title for the same post."),
    ("The cat sat on the mat.", "A cat was sitting on a mat."),
    ("Yes.", "No, for three reasons: it is late, it rains, and nobody asked."),
)


def playwright() -> Any:
    """Playwright's module. Without it the tests of pages are skipped; in CI, where it has to be, they fail."""
    name = "playwright.sync_api"
    if os.environ.get("CI"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason="the page tests need `pip install -e .[dev]`")


@dataclass
class Clock:
    """Time that a test can move."""

    offset: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@dataclass
class Site:
    """A workspace with one collection behind a running server."""

    workspace: Workspace
    app: Any
    url: str
    collection: str
    clock: Clock

    @property
    def db(self) -> Any:
        return self.workspace.database

    @property
    def start_url(self) -> str:
        return f"{self.url}/start?token={START_TOKEN}"

    @property
    def cookie_name(self) -> str:
        return f"trueup-{self.app.state.site.name}"

    def enter(self, page: Any) -> None:
        """Through the start link, as the owner who started the server."""
        page.goto(self.start_url)

    def person(self, name: str, role: str = "annotator", collection: str = "") -> people.Person:
        return people.add_person(self.db, name, role, self.clock(), collection=collection)  # type: ignore[arg-type]

    def session(self, person: people.Person) -> str:
        return people.new_session(self.db, person.id, self.clock(), 3600)

    def client(self, person: people.Person | None) -> Client:
        """A browser without a window: keeps its cookies, does not follow redirects."""
        return Client(self, person)

    def cookie(self, person: people.Person) -> dict[str, Any]:
        """For `context.add_cookies`."""
        return {"name": self.cookie_name, "value": self.session(person), "url": self.url, "httpOnly": True}

    def ready(self, person: people.Person) -> people.Person:
        """Has read the guideline, so that the judging page opens at once."""
        guideline = queue.collection(self.db, self.collection).guideline
        queue.acknowledge(self.db, person.id, guideline, self.clock())
        return person


@dataclass
class Watched:
    """What a page did that a page of ours never does."""

    elsewhere: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def check(self) -> None:
        assert self.elsewhere == [], "requests to other servers"
        assert self.dialogs == [], "dialogs"
        assert self.console == [], "console"


def new_items(
    workspace: Workspace, texts: Sequence[tuple[str, ...]], prompts: Sequence[str | Prompt] = (), **columns: Any
) -> list[queue.NewItem]:
    """One item for each tuple of texts; `columns` go into all of them."""
    artifact = workspace.put("completions", {"completions.jsonl": repr((texts, prompts)).encode()})
    prompts = prompts or [f"Write a title for post {index}." for index in range(len(texts))]
    return [
        queue.NewItem(
            prompt if isinstance(prompt, Prompt) else Prompt.user(prompt),
            each,
            artifact.id,
            (True,) * len(each),
            ("secret-model",) * len(each),
            **columns,
        )
        for prompt, each in zip(prompts, texts, strict=True)
    ]


def new_collection(
    workspace: Workspace,
    name: str,
    texts: Sequence[tuple[str, ...]] = TEXTS,
    prompts: Sequence[str | Prompt] = (),
    guideline: str = "",
    columns: dict[str, Any] | None = None,
    **config: Any,
) -> str:
    """A collection with one item for each tuple of texts; returns its id."""
    from trueup.config.collection import CollectionConfig

    settings = CollectionConfig(**config).model_dump(mode="json")
    made = queue.create_collection(workspace.database, name, settings, guideline, time.time())
    queue.add_items(workspace.database, made.id, new_items(workspace, texts, prompts, **(columns or {})), time.time())
    return made.id


class Client(TestClient):
    """Requests as a browser would send them from our own pages, where a test does not say otherwise."""

    def __init__(self, site: Site, person: people.Person | None) -> None:
        super().__init__(site.app, base_url="http://127.0.0.1", follow_redirects=False)
        self.site = site
        self.person = person
        if person is not None:
            self.plant(site.session(person))

    def plant(self, token: str) -> None:
        self.cookies.set(self.site.cookie_name, token, domain="127.0.0.1")

    @property
    def cookie(self) -> str:
        return self.cookies.get(self.site.cookie_name) or ""

    @property
    def form_token(self) -> str:
        """As it stands in every form of this browser."""
        return keyed(self.site.app.state.site.secret, "form", self.cookie)

    def form(self, path: str, **fields: Any) -> Any:
        headers = {"origin": "null", "sec-fetch-site": "same-origin"}
        return self.post(path, data={"token": self.form_token, **fields}, headers=headers)

    def json(self, path: str, **payload: Any) -> Any:
        headers = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin", "x-trueup": "1"}
        return self.post(path, json=payload, headers=headers)

    def sign_in(self, name: str, password: str) -> Any:
        page = self.get("/login")
        token = re.search(r'name="token" value="(\w+)"', page.text)
        assert token or page.status_code == 303, page.text
        return self.form("/login", name=name, password=password)


def own_only(route: Any, url: str, watched: Watched) -> None:
    if route.request.url.startswith(url + "/"):
        route.continue_()
    else:
        watched.elsewhere.append(route.request.url)
        route.abort()
