"""Whether everybody can use the pages: the checks that docs/accessibility.md lists, on every page, at a phone's and a
desktop's width, at a zoom of 200% and in the narrowest window, in light and in dark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import axe_faults
from fastapi.routing import APIRoute
from left_runs import prompts, rl_run
from sites import PASSWORD, Site, new_collection, playwright

from trueup.feedback import learning, quality
from trueup.runs import Run
from trueup.store import figures, people, queue
from trueup.web import auth

expect: Any = playwright().expect

HERE = Path(__file__).parent
USABLE = (HERE / "usable.js").read_text()
CONTRAST = (HERE / "contrast.js").read_text()
FITTING = (HERE / "fitting.js").read_text()

SENTENCE = "The committee met on Tuesday to consider whether the bridge should be closed to lorries. "
TITLED = f"# A heading\n\n### Another\n\n{SENTENCE}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx = 1\n```\n\n> said"
AXES = [{"name": "helpfulness", "question": "Does it do what was asked?", "anchors": {1: "useless", 7: "perfect"}}]
HELP = ({"helper": "helper A", "kind": "critique", "text": TITLED, "places": [SENTENCE, "Fine."]},)
TASKS: dict[str, dict[str, Any]] = {
    "pair": {"task": "pair", "texts": [(TITLED, SENTENCE * 40)], "criteria": ("true", "short")},
    "ranking": {"task": "ranking", "texts": [tuple(f"{i}: {SENTENCE * (1 + i % 4)}" for i in range(9))]},
    "rating": {"task": "rating", "texts": [("Short.", SENTENCE)], "axes": AXES},
    "thumbs": {"task": "thumbs", "texts": [("Short.", SENTENCE)], "rationale": "required"},
    "edit": {"task": "edit", "texts": [(SENTENCE, "Short.")]},
    "covered": {"task": "pair", "texts": [("A grim tale.", "Short.")], "sensitive": ("grim",)},
    "helped": {"task": "pair", "texts": [("Long.", "Short.")], "columns": {"help": HELP}, "help_share": 1.0},
}
SIZES: dict[str, dict[str, Any]] = {
    "phone": {"width": 390, "height": 844},
    "narrowest": {"width": 320, "height": 640},  # a desktop's 1280 at 400%
    "zoomed": {"width": 640, "height": 400, "device_scale_factor": 2},  # a desktop's 1280 by 800 at 200%
    "desktop": {"width": 1280, "height": 800},
}
USUAL = ("phone", "desktop")
# No pages, or opened by the tests in another way.
OTHERWISE = (
    *("/start", "/login", "/invite/{token}", "/c/{collection}", "/c/{collection}/next"),
    "/try/{tried}",  # test_try.py
    *("/runs/beside", "/runs/{run}/now", "/runs/{run}/report"),
    *("/api/export/{collection}", "/api/status/{collection}", "/a/{assignment}/covered"),
)


@dataclass
class World:
    site: Site
    tasks: dict[str, str]
    owner: people.Person
    invite: str
    runs: list[Run]

    def pages(self) -> list[str]:
        """Every other page that somebody who is signed in can open, read from the routes: a new one is checked too."""
        ids = {"collection": self.site.collection, "person": self.owner.id}
        ids["run"] = self.runs[1].id
        ids["item"] = queue.items(self.site.db, self.site.collection)[0].id
        routes = [each for each in self.site.app.routes if isinstance(each, APIRoute) and "GET" in each.methods]
        found = [each.path.format(**ids) for each in routes if each.path not in OTHERWISE]
        return [*found, "/runs/beside?" + "&".join(f"run={run.id}" for run in self.runs)]


@pytest.fixture
def world(serve: Callable[..., Site]) -> World:
    """A workspace in which something has happened, so that no page is empty."""
    site = serve(guideline="# Judge well\n\n## Always\n\nBe *kind*.", texts=[(TITLED, "b"), ("c", "d")], overlap=2)
    desk = site.app.state.site.desk(site.collection)
    owner = site.ready(site.person("olga", "owner"))
    people.set_password_hash(site.db, owner.id, auth.hash_password(PASSWORD, owner.name))
    for person in (owner, site.ready(site.person("ada"))):
        while (view := desk.next(person.id)) is not None:
            desk.answer(person.id, view.assignment, view.assignment, {"choice": -1, "rationale": "clearer"})
    quality.keep(site.workspace, site.collection, quality.compute(site.workspace, site.collection), site.clock())
    keep_a_curve(site)
    made = {name: new_collection(site.workspace, name, **config) for name, config in TASKS.items()}
    token = people.new_invite(site.db, "annotator", owner.id, time.time(), 3600, 1, site.collection)
    ran = [rl_run(site.workspace, note=SENTENCE, inputs={"prompts": prompts(site.workspace, 4)}) for _ in range(2)]
    ran[0].finish({"best_step": 6})
    ran[1].fail("the disk is full")
    return World(site, made, owner, token, ran)


def keep_a_curve(site: Site) -> None:
    chance = np.random.default_rng(0)
    points = [
        learning.Point(n, 0, share, chance.binomial(6, accuracy, 60).astype(float), np.full(60, 6.0))
        for share, n, accuracy in ((0.25, 100, 0.61), (0.5, 200, 0.66), (1.0, 400, 0.69))
    ]
    found = learning.learning(points).to_json()
    figures.keep(site.db, site.collection, learning.KIND, found, 400, site.clock())


def every_page(world: World, open_page: Any, **size: Any) -> Iterator[tuple[str, Any]]:
    """Each page of the app in turn, as (name, page)."""
    site = world.site
    page = open_page(site, world.owner, **size)
    for name, collection in world.tasks.items():
        page.goto(f"{site.url}/c/{collection}")
        expect(page.locator("#judging")).to_be_visible()
        yield name, page
    for path in world.pages():
        assert page.goto(f"{site.url}{path}").status == 200, path
        yield path, page
    page.goto(f"{site.url}/c/{site.collection}")
    expect(page.get_by_role("heading", name="Nothing to judge right now")).to_be_visible()
    yield "nothing left", page
    guest = open_page(site, **size)
    for path in ("/login", f"/invite/{world.invite}", "/invite/none", "/no/such/page"):
        guest.goto(f"{site.url}{path}")
        yield path, guest
        guest.watched.console.clear()  # the browser itself reports what was not found


@pytest.mark.parametrize(
    "size", [*USUAL, *(pytest.param(each, marks=pytest.mark.slow) for each in SIZES.keys() - USUAL)]
)
@pytest.mark.timeout(300)
def test_every_page_can_be_used_by_everybody(world, open_page, size):
    found = {}
    for name, page in every_page(world, open_page, **SIZES[size]):
        checks = {"usable": page.evaluate(USABLE), "fitting": page.evaluate(FITTING)}
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            checks[scheme] = page.evaluate(CONTRAST)
        found |= {f"{name}, {check}": wrong for check, wrong in checks.items() if wrong}
    assert found == {}


@pytest.mark.parametrize("size", USUAL)
@pytest.mark.timeout(300)
def test_axe_finds_nothing_serious_on_any_page(world, open_page, size):
    """Checks written by others, who know other faults than we do."""
    pytest.importorskip("axe_playwright_python", reason="needs `pip install -e .[dev]`")
    found = {}
    for name, page in every_page(world, open_page, **SIZES[size]):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            only = () if scheme == "light" else ("color-contrast",)  # nothing else depends on it
            if wrong := axe_faults(page, only):
                found[f"{name}, {scheme}"] = wrong
    assert found == {}


TABBABLE = """() => {
  const shown = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getClientRects().length > 0;
  const controls = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  window.stops = [...document.querySelectorAll(controls)].filter((node) => shown(node) && node.tabIndex >= 0);
  const groups = stops.map((node) => (node.matches("[type=radio]") ? node.name : node));
  return stops.filter((_, i) => groups.indexOf(groups[i]) === i).length; // a group of radio buttons is one stop
}"""
FOCUSED = """(node) => {
  const drawn = [node, node.closest("label"), node.querySelector("header h2")].some((each) => {
    const style = each && getComputedStyle(each);
    return style && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  });
  const box = node.closest("label") ?? node;
  const { left, right, top, bottom } = box.getClientRects()[0]; // a link may be broken in two
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  const points = [[x, top + 3], [x, bottom - 3], [left + 3, y]].map((each) => document.elementFromPoint(...each));
  const uncovered = points.some((each) => each && box.contains(each));
  return { place: window.stops.indexOf(node), drawn, uncovered, words: node.outerHTML.slice(0, 100) };
}"""


@pytest.mark.parametrize("size", [pytest.param("phone", marks=pytest.mark.slow), "desktop"])
@pytest.mark.timeout(300)
def test_tab_goes_everywhere_in_the_order_of_the_page_and_comes_out_again(world, open_page, size):
    """No trap, no order of its own, and the focus is always seen and never wholly under the dock."""
    for name, page in every_page(world, open_page, **SIZES[size]):
        wanted = page.evaluate(TABBABLE)
        page.evaluate("window.stops[0].focus()")
        places = [0]
        for _ in range(2 * wanted + 5):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement === document.body"):
                break
            found = page.locator(":focus").evaluate(FOCUSED)
            assert found["drawn"] and found["uncovered"], (name, found)
            if found["place"] == 0:
                break
            if found["place"] > 0:  # a browser stops at boxes that scroll, too
                places.append(found["place"])
        assert places == sorted(places) and len(set(places)) == wanted, (name, places, wanted)


def test_what_happens_is_said_to_those_who_cannot_see_it(world, open_page):
    """4.1.3: choices, moves, what is missing, and what was saved reach the polite live region."""
    page = open_page(world.site, world.owner)
    spoken = page.locator("#spoken")
    page.goto(f"{world.site.url}/c/{world.tasks['ranking']}")
    expect(spoken).to_have_attribute("aria-live", "polite")
    page.keyboard.press("2")
    expect(spoken).to_have_text("A: place 2")
    page.keyboard.press("Enter")
    expect(spoken).to_have_text("Not placed yet: B, C, D, E, F, G, H, I.")
    page.goto(f"{world.site.url}/c/{world.tasks['thumbs']}")
    page.keyboard.press("1")
    expect(spoken).to_have_text("A: Good")
    page.goto(f"{world.site.url}/c/{world.tasks['pair']}")
    for key in ("3", "Enter"):
        page.keyboard.press(key)
    expect(spoken).to_contain_text("Saved. 1 today.")


def test_a_dialog_keeps_the_focus_and_gives_it_back(world, open_page):
    page = open_page(world.site, world.owner)
    page.goto(f"{world.site.url}/c/{world.tasks['pair']}")
    opener = page.get_by_role("button", name="Keys")
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    inside = "dialog => dialog.contains(document.activeElement) || document.activeElement === document.body"
    for _ in range(60):
        page.keyboard.press("Tab")
        assert dialog.evaluate(inside)
    page.get_by_label("Skip, with a reason").focus()
    page.keyboard.press("Escape")  # also from a field that takes any key
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()


def test_the_checks_find_faults(world, open_page):
    page = open_page(world.site, world.owner)
    page.goto(f"{world.site.url}/c/{world.tasks['pair']}")
    expect(page.locator("#judging")).to_be_visible()
    assert page.evaluate(USABLE) == page.evaluate(CONTRAST) == page.evaluate(FITTING) == axe_faults(page) == []
    page.evaluate("""() => {
      const main = document.querySelector("main");
      main.prepend(document.createElement("button"));
      main.firstChild.style.cssText = "min-height: 0; padding: 0";
      document.querySelector("#question").before(document.querySelector("#question").cloneNode(true));
      document.body.style.minWidth = "3000px";
      document.querySelector(".cell").style.marginRight = "-40px";
      document.querySelector("[data-action=undo]").setAttribute("aria-label", "Back");
      document.querySelector("[data-action=skip]").tabIndex = 3;
      document.querySelector("#progress").style.color = "#aaa";
      document.querySelector("#criteria").style.opacity = "0.5";
      document.querySelector(".cell:last-child").style.borderColor = "#ddd";
      document.querySelector("#prompt h2").outerHTML = "<h5>Prompt</h5>";
      document.querySelector("fieldset.scale legend").remove();
    }""")
    usable, fitting, contrast = (" ".join(page.evaluate(check)) for check in (USABLE, FITTING, CONTRAST))
    for fault in (
        "no name",
        "small target",
        "id twice",
        "not one h1",
        "inline style",
        "called otherwise",
        "h5 after h1",
    ):
        assert fault in usable, fault
    assert "an order of its own" in usable and "a group without a name" in usable
    assert "sideways" in fitting and "overlap" in fitting
    assert contrast.count("text ") >= 3 and "edge" in contrast
    assert {fault.split(":")[0] for fault in axe_faults(page)} >= {"button-name", "color-contrast"}
