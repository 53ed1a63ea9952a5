"""What helpers say on the judging page: seen for what it is, by chance only, and never as anything but text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from judging import answer, current, is_saved, keys, work
from sites import Site, new_collection, new_items, playwright

from trueup.feedback import quality
from trueup.store import queue

expect: Any = playwright().expect

BAD = "<img src=x onerror=alert(1)><script>alert(2)</script> \u202eback\u202c [a](javascript:alert(3)) **bold**"
HELP = (
    {"helper": "helper A", "kind": "critique", "text": "", "places": ["The left one errs.", "The right one is true."]},
    {"helper": BAD, "kind": "summary", "text": BAD + " <completion 1>", "places": [], "ranks": [2, 1]},
)
TEXTS = [("left text", "right text")]


def panel(page: Any) -> Any:
    return page.locator("details.help")


def test_help_stands_below_the_texts_in_a_panel_of_its_own(serve, open_page):
    site = serve(texts=TEXTS, columns={"help": HELP}, help_share=1.0)
    page = work(open_page, site)
    expect(panel(page)).to_have_attribute("open", "")
    expect(page.get_by_role("heading", name="What helpers say")).to_be_visible()
    expect(panel(page)).to_contain_text("Helpers can be wrong")
    texts, help = page.locator("#texts").bounding_box(), panel(page).bounding_box()
    assert help["y"] >= texts["y"] + texts["height"]
    first = page.locator("#texts .text").nth(0).locator(".said").inner_text()
    mine = "The left one errs." if first == "left text" else "The right one is true."
    expect(panel(page).locator("dt:text-is('A') + dd")).to_have_text(mine)
    letter = "A" if first == "left text" else "B"
    expect(panel(page).locator(".helper").nth(1)).to_contain_text(letter)
    # Hostile words of helpers are words.
    expect(panel(page).locator("img, script, a")).to_have_count(0)
    expect(panel(page)).to_contain_text("<script>alert(2)</script>")
    assert panel(page).locator(".helper .hidden-mark").count() >= 2
    keys(page, "t")
    expect(panel(page).locator("strong")).to_have_count(0)
    keys(page, "3", "Enter")
    is_saved(page)
    (judgement,) = current(site)
    assert judgement.meta["assisted"] == ["helper A", BAD] and judgement.meta["advice"] == {BAD: [2, 1]}
    assert answer(judgement)["help_opened"] is True


def test_closed_help_is_opened_by_hand_or_by_key_and_that_is_noted(serve, open_page):
    site = serve(texts=[*TEXTS, ("c", "d")], columns={"help": HELP[:1]}, help_share=1.0, help_open=False)
    page = work(open_page, site)
    expect(panel(page).locator("dd").first).not_to_be_visible()
    keys(page, "3", "Enter")
    is_saved(page)
    expect(panel(page)).to_have_count(1)
    keys(page, "h")
    expect(panel(page).locator("dd").first).to_be_visible()
    keys(page, "h")
    expect(panel(page).locator("dd").first).not_to_be_visible()
    page.locator("details.help summary").focus()
    page.keyboard.press("Space")
    expect(panel(page).locator("dd").first).to_be_visible()
    expect(page.locator("#state")).to_have_text("Draft saved")
    page.reload()
    expect(panel(page).locator("dd").first).to_be_visible()  # the draft knows that it was open
    keys(page, "3", "Enter")
    expect(page.get_by_role("heading", name="Nothing to judge right now")).to_be_visible()
    assert sorted(answer(each)["help_opened"] for each in current(site)) == [False, True]


def test_covered_help_comes_when_it_is_asked_for(serve, open_page):
    help = ({"helper": "helper A", "kind": "note", "text": "a gory detail", "places": ["", "fine"]},)
    site = serve(texts=TEXTS, columns={"help": help}, help_share=1.0, sensitive=("gory",), help_open=False)
    page = work(open_page, site)
    assert "gory" not in page.content()
    keys(page, "3", "Enter")
    expect(page.locator("#state")).to_contain_text("Covered: what helpers say. Show it before you answer")
    keys(page, "v")
    expect(page.locator("#spoken")).to_contain_text("Shown: what helpers say")
    keys(page, "h")
    expect(panel(page)).to_contain_text("a gory detail")
    expect(panel(page).locator("dd")).to_have_text(["fine"])
    keys(page, "Control+Enter")  # the focus is on the panel
    is_saved(page)


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_long_help_fits_every_screen(serve, open_page, width):
    long = "word " * 400 + "x" * 300 + "\n\n" + "| a | b |\n|---|---|\n| " + "y" * 200 + " | 2 |\n"
    help = ({"helper": "h" * 60, "kind": "critique", "text": long, "places": [long, long]},)
    page = work(open_page, serve(texts=TEXTS, columns={"help": help}, help_share=1.0), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = panel(page).bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width


@pytest.mark.parametrize("shares", [0.0, 1.0])
def test_a_gold_and_an_ordinary_item_with_help_look_alike(serve_app, shares):
    site: Site = serve_app()
    collection = new_collection(
        site.workspace, "mixed", TEXTS, columns={"help": HELP}, gold_every=1, repeat_share=0.0, help_share=shares
    )
    gold = new_items(
        site.workspace, [("gold one", "gold two")], ["Which?"], role="gold", key={"ranks": [1, 2]}, help=HELP
    )
    queue.add_items(site.db, collection, gold, site.clock())
    client = site.client(site.person("judge"))
    client.json(f"/c/{collection}/guideline/seen")
    views = []
    for turn in range(2):
        view = client.get(f"/c/{collection}/next").json()
        views.append(view)
        assert client.json(f"/a/{view['assignment']}/answer", key=str(turn), answer={"choice": 1}).status_code == 200
    assert [len(view["help"]) for view in views] == [2 * int(shares)] * 2
    assert [len(view["rendered"]["help"]) for view in views] == [2 * int(shares)] * 2
    for view in views:
        assert set(map(tuple, map(sorted, view["help"]))) <= {("helper", "kind", "places", "text")}
        told = json.dumps(view)
        for secret in ("secret-model", "ranks", "gold_", '"key"', "advice"):
            assert secret not in told, secret
    mine = client.get(f"/c/{collection}/mine").text
    assert ("You were shown what helper A" in mine) == bool(shares) and "<script>" not in mine.split("<main")[1]


def test_the_quality_page_says_what_help_does(serve_app):
    site: Site = serve_app()
    collection = new_collection(site.workspace, "helped", TEXTS, gold_every=1, repeat_share=0.0, help_share=1.0)
    gold = new_items(site.workspace, [("a", "b")], ["Which?"], role="gold", key={"ranks": [1, 2]}, help=HELP)
    queue.add_items(site.db, collection, gold, site.clock())
    desk, ada = site.app.state.site.desk(collection), site.person("ada")
    while (view := desk.next(ada.id)) is not None:
        desk.answer(ada.id, view.assignment, view.assignment, {"choice": 1})
    quality.keep(site.workspace, collection, quality.compute(site.workspace, collection), site.clock())
    page = site.client(site.person("olga", "owner")).get(f"/c/{collection}/quality").text
    assert "With help judges order" in page and "nobody to compare with" in page
    assert "<script>alert(2)" not in page and "&lt;script&gt;alert(2)" in page
