"""Nothing is lost on the judging page: drafts, dead servers, lost receipts, no network, refused answers."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from judging import answer, current, is_done, keys, work
from sites import START_TOKEN, playwright

expect: Any = playwright().expect


def test_a_draft_survives_a_reload_and_another_browser(serve, open_page):
    site = serve(texts=[("a", "b")])
    ada = site.ready(site.person("ada"))
    page = open_page(site, ada)
    page.goto(f"{site.url}/c/{site.collection}")
    page.keyboard.press("6")
    page.locator("#reason").fill("half a sen")
    page.reload()  # at once: the browser's own copy
    expect(page.locator("#reason")).to_have_value("half a sen")
    page.locator("#reason").fill("half a sentence")
    expect(page.locator("#state")).to_have_text("Draft saved")
    other = open_page(site, ada)
    other.goto(f"{site.url}/c/{site.collection}")
    expect(other.locator("#reason")).to_have_value("half a sentence")
    expect(other.get_by_role("radio", name="B better", exact=True)).to_be_checked()


@pytest.fixture
def restartable(serve):
    """`restartable(**seed)`: a site whose server can be taken away and brought back on the same port."""
    from trueup.web import create_app
    from trueup.web.serve import Binding, Server

    class Restartable:
        def __init__(self, **seed: Any) -> None:
            self.site = serve(**seed)
            self.port, self.running = 0, None
            self.start()
            self.site.url = self.running[0].url

        def start(self) -> None:
            server = Server(create_app(self.site.workspace, token=START_TOKEN), Binding(port=self.port))
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            self.port, self.running = server.port, (server, thread)

        def stop(self) -> None:
            server, thread = self.running
            server.stop()
            thread.join(10)

    made: list[Restartable] = []
    yield lambda **seed: made.append(Restartable(**seed)) or made[0]
    for each in made:
        each.stop()


def test_an_answer_outlives_a_dead_server_and_a_closed_page(restartable, open_page):
    server = restartable(texts=[("a", "b")])
    site = server.site
    page = work(open_page, site)
    page.locator("#reason").fill("typed before the crash")
    server.stop()
    page.locator("#question").focus()
    keys(page, "7", "Enter")
    expect(page.locator("#state")).to_contain_text("Not saved yet")
    expect(page.locator("#state")).to_contain_text("next try in")
    page.goto("about:blank")
    server.start()
    page.goto(f"{site.url}/c/{site.collection}")  # the answer that was on its way goes by itself
    is_done(page)
    assert [answer(each) for each in current(site)] == [{"choice": 3, "rationale": "typed before the crash"}]
    page.watched.console.clear()  # the browser itself reports the requests that nobody answered


def test_a_server_that_comes_back_takes_the_answer_without_anybody_doing_anything(restartable, open_page):
    server = restartable(texts=[("a", "b")])
    page = work(open_page, server.site)
    server.stop()
    keys(page, "1", "Enter")
    expect(page.locator("#state")).to_contain_text("Not saved yet")
    server.start()
    is_done(page)
    assert len(current(server.site)) == 1
    page.watched.console.clear()


def test_offline_and_back(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = work(open_page, site)
    page.context.set_offline(True)
    keys(page, "2")
    expect(page.locator("#state")).to_contain_text("Draft not saved on the server yet")
    keys(page, "Enter")
    expect(page.locator("#state")).to_contain_text("Not saved yet")
    page.context.set_offline(False)
    is_done(page)
    assert [answer(each) for each in current(site)] == [{"choice": -2}]
    page.watched.console.clear()


def test_a_lost_receipt_and_a_double_press_make_one_judgement(serve, open_page):
    site = serve(texts=[("a", "b"), ("c", "d")], repeat_share=0.0)
    page = work(open_page, site)
    lost = []

    def lose_the_first(route: Any) -> None:
        if not lost:
            lost.append(route.fetch().status)  # the server has it, the page never hears
            return route.abort()
        return route.continue_()

    page.route("**/answer", lose_the_first)
    keys(page, "1", "Enter", "Enter", "Enter")
    page.get_by_role("button", name="Submit").click(force=True)
    expect(page.locator("#progress")).to_contain_text("1 done")
    assert lost == [200] and len(current(site)) == 1
    page.watched.console.clear()


def test_a_refused_answer_can_be_corrected(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = work(open_page, site)
    page.locator("#reason").fill("x" * 20_001)
    page.locator("#question").focus()
    keys(page, "1", "Enter")
    expect(page.locator("#state")).to_contain_text("rationale is too long")
    page.locator("#reason").fill("short")
    page.keyboard.press("Control+Enter")
    is_done(page)
    page.watched.console.clear()
