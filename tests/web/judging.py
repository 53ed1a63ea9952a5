"""How the tests of the judging page work it, and what they find stored."""

from __future__ import annotations

import re
from typing import Any

from sites import Site, playwright

from trueup.records import Judgement
from trueup.store import queue

expect: Any = playwright().expect


def current(site: Site) -> list[Judgement]:
    return [judgement for judgement, _ in queue.current_judgements(site.db, site.collection)]


def answer(judgement: Judgement) -> dict[str, Any]:
    """What the browser sent, without times and client."""
    sent = dict(judgement.meta["answer"])
    return {name: value for name, value in sent.items() if name not in ("active_ms", "opened_ms", "client")}


def work(open_page: Any, site: Site, name: str = "ada", **options: Any) -> Any:
    """The judging page of somebody who has read the guideline."""
    page = open_page(site, site.ready(site.person(name)), **options)
    page.goto(f"{site.url}/c/{site.collection}")
    expect(page.locator("#judging, #nothing").locator("visible=true")).to_have_count(1)
    return page


def keys(page: Any, *pressed: str) -> None:
    for key in pressed:
        page.keyboard.press(key)


def is_saved(page: Any) -> None:
    expect(page.locator("#spoken")).to_contain_text("Saved")


def is_done(page: Any) -> None:
    expect(page.get_by_role("heading", name="Nothing to judge right now")).to_be_visible()


def drag(page: Any, letter: str, place: int) -> None:
    chip = page.get_by_role("group", name=re.compile(f"^{letter}: "))
    slot = page.get_by_role("listitem", name=f"Place {place}")
    slot.scroll_into_view_if_needed()
    chip.scroll_into_view_if_needed()
    start, end = chip.bounding_box(), slot.bounding_box()
    page.mouse.move(start["x"] + 15, start["y"] + 15)
    page.mouse.down()
    page.mouse.move(end["x"] + 60, end["y"] + end["height"] / 2, steps=4)
    page.mouse.up()
    expect(slot.get_by_role("group", name=re.compile(f"^{letter}: place {place}"))).to_be_visible()
