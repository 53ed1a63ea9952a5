"""A server over a seeded workspace, and a real browser that tells on pages that misbehave.

    def test_something(site, page):
        site.enter(page)                         # through the start link, as the owner
        page.goto(f"{site.url}/c/{site.collection}")

`serve(task="ranking", ...)` makes running sites with other tasks; `open_page(site, person, width=390)` pages for other
people and widths. When a test ends, each page is held to this: nothing was requested from elsewhere, the console stayed
clean, no dialog opened. A test that expects otherwise empties `page.watched.console` and the like itself.

`app`, `site_of_app`, `client` and `seated` are the same without server and browser, for what needs neither.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sites import FLAGS, START_TOKEN, Client, Clock, Site, Watched, new_collection, own_only, playwright

from trueup.store import Workspace, people
from trueup.web.limits import Limits


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.create(tmp_path / "work") as made:
        yield made


@pytest.fixture
def serve(workspace: Workspace) -> Iterator[Callable[..., Site]]:
    """`serve(task="pair", texts=[("a", "b"), ...], prompts=[...], guideline="", **config)`: a running site."""
    from trueup.web import create_app
    from trueup.web.serve import Binding, Server

    running: list[tuple[Server, threading.Thread]] = []

    def start(app: dict[str, Any] | None = None, name: str = "titles", **seed: Any) -> Site:
        clock = Clock()
        collection = new_collection(workspace, name, **seed)
        made = create_app(workspace, token=START_TOKEN, now=clock, **(app or {}))
        server = Server(made, Binding())
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        return Site(workspace, made, server.url, collection, clock)

    yield start
    for server, _ in running:
        server.stop()
    for _, thread in running:
        thread.join(10)


@pytest.fixture
def site(serve: Callable[..., Site]) -> Site:
    """Pairs, with everything at its default."""
    return serve()


@pytest.fixture
def serve_app(workspace: Workspace) -> Callable[..., Site]:
    """`serve_app(limits=None, **seed)`: a site without a socket; `site.client(person)` talks to it."""
    from trueup.web import create_app

    def make(limits: Limits | None = None, name: str = "titles", **seed: Any) -> Site:
        clock = Clock()
        collection = new_collection(workspace, name, **seed)
        made = create_app(workspace, token=START_TOKEN, now=clock, limits=limits)
        return Site(workspace, made, "http://127.0.0.1", collection, clock)

    return make


@pytest.fixture
def site_of_app(serve_app: Callable[..., Site]) -> Site:
    return serve_app()


@pytest.fixture
def app(site_of_app: Site) -> Any:
    return site_of_app.app


@pytest.fixture
def client(site_of_app: Site) -> Client:
    """Somebody who is not signed in."""
    return site_of_app.client(None)


@pytest.fixture
def seated(site_of_app: Site) -> Client:
    """An annotator who is signed in and has read the guideline."""
    return site_of_app.client(site_of_app.ready(site_of_app.person("seated")))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser of the system: nothing is downloaded."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        words = "the page tests need Chromium: `apt-get install chromium` (or put `chromium` on the PATH)"
        assert not os.environ.get("CI"), words
        pytest.skip(words)
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    with playwright().sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """`open_page(site, person=None, width=1280, height=800, **context)`: a watched page in a browser of its own."""
    opened: list[tuple[Any, Watched]] = []

    def make(
        site: Site, person: people.Person | None = None, width: int = 1280, height: int = 800, **options: Any
    ) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(10_000)
        if person is not None:
            context.add_cookies([site.cookie(person)])
        watched = Watched()
        context.route("**/*", lambda route: own_only(route, site.url, watched))
        page = context.new_page()
        page.on("console", lambda message: watched.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: watched.console.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (watched.dialogs.append(dialog.message), dialog.dismiss()))
        page.watched = watched
        opened.append((context, watched))
        return page

    yield make
    for context, _ in opened:
        context.close()
    for _, watched in opened:
        watched.check()


@pytest.fixture
def page(open_page: Callable[..., Any], site: Site) -> Any:
    """A desktop page of `site`, nobody signed in yet."""
    return open_page(site)
