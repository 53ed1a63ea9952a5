"""How the judging page looks: nothing is cut or lies over something else, texts stand whole and side by side, code and
right-to-left text as they should, colours have enough contrast. Whether everybody can use the pages:
test_accessibility.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sites import Site, new_collection, playwright

from trueup.web.site import STATIC, TEMPLATES

expect: Any = playwright().expect

SENTENCE = "The committee met on Tuesday to consider whether the bridge should be closed to lorries. "
LONG = "\n\n".join([SENTENCE * 6] * 22)  # about 2,000 words
WIDE = "Donaudampfschifffahrtsgesellschaftskapitän" * 5 + " " + "https://example.test/" + "a" * 200
CODE = "```python\n" + "x = " + "1 + " * 60 + "1\n```"
AXES = [{"name": "helpfulness", "question": "Does it do what was asked?", "anchors": {1: "useless", 7: "perfect"}}]
TASKS: dict[str, dict[str, Any]] = {
    "pair": {"task": "pair", "texts": [("Short.", LONG)], "criteria": ("true", "short")},
    "wide": {"task": "pair", "texts": [(WIDE, CODE)], "strength": False},
    "ranking": {"task": "ranking", "texts": [tuple(f"{i}: {SENTENCE * (1 + i % 4)}" for i in range(9))]},
    "rating": {"task": "rating", "texts": [("Short.", SENTENCE, SENTENCE * 9)], "axes": AXES},
    "thumbs": {"task": "thumbs", "texts": [(SENTENCE,)], "rationale": "required"},
    "edit": {"task": "edit", "texts": [(SENTENCE * 9, "Short.")]},
}
SIZES = {"phone": (390, 844), "narrowest": (320, 640), "desktop": (1280, 800)}

HERE = Path(__file__).parent
FITTING = (HERE / "fitting.js").read_text()  # what is cut off, overlaps or makes the page scroll sideways
FIRST_LINE = """(block) => {
  const [range, text] = [document.createRange(), block.firstChild];
  const top = (i) => (range.setStart(text, i), range.setEnd(text, i + 1), range.getBoundingClientRect().top);
  let i = 0;
  while (i < text.length && Math.abs(top(i) - top(0)) < 4) i++;
  return i;
}"""


@pytest.fixture
def tasks(serve) -> tuple[Site, dict[str, str]]:
    """One site with a collection for each look."""
    site = serve()
    made = {name: new_collection(site.workspace, name, guideline="", **config) for name, config in TASKS.items()}
    return site, made


def each_task(site: Site, page: Any, collections: dict[str, str]) -> Any:
    for name, collection in collections.items():
        page.goto(f"{site.url}/c/{collection}")
        expect(page.locator("#judging")).to_be_visible()
        yield name


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_cut_or_covered(tasks, open_page, size):
    site, collections = tasks
    width, height = SIZES[size]
    page = open_page(site, site.person(size), width=width, height=height)
    for name in each_task(site, page, collections):
        assert page.evaluate(FITTING) == [], name
        boxes = [page.locator(".text").nth(i).bounding_box() for i in range(page.locator(".text").count())]
        if size == "desktop" and len(boxes) > 1:
            assert abs(boxes[0]["width"] - boxes[1]["width"]) < 1.5 and boxes[0]["height"] == boxes[1]["height"], name
        if size != "desktop" and len(boxes) > 1:
            assert boxes[0]["x"] == boxes[1]["x"] and boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"] - 1, name
        assert page.locator(".dock").bounding_box()["height"] < height / 2


def test_a_short_text_stands_in_lines_that_can_be_read(tasks, open_page):
    site, collections = tasks
    page = open_page(site, site.person("reader"), width=1600, height=900)
    page.goto(f"{site.url}/c/{collections['pair']}")
    line = page.locator(".said p", has_text="committee").first.evaluate(FIRST_LINE)
    assert 55 <= line <= 95


def test_long_texts_are_whole_and_stay_clear_of_the_dock(tasks, open_page):
    site, collections = tasks
    page = open_page(site, site.person("long"))
    page.goto(f"{site.url}/c/{collections['pair']}")
    shown = [len(text.split()) for text in page.locator(".text .said").all_inner_texts()]
    assert max(shown) == len(LONG.split())
    page.locator("#reason").focus()  # below 2,000 words
    reason, dock = page.locator("#reason").bounding_box(), page.locator(".dock").bounding_box()
    assert reason["y"] + reason["height"] <= dock["y"]
    assert dock["y"] + dock["height"] <= 800


def test_a_right_to_left_text_reads_from_the_right(serve, open_page):
    site = serve(texts=[("\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd.", "Hello world.")])
    page = open_page(site, site.person("rtl"))
    page.goto(f"{site.url}/c/{site.collection}")
    directions = page.locator(".text .said p").evaluate_all("all => all.map((e) => getComputedStyle(e).direction)")
    assert sorted(directions) == ["ltr", "rtl"]


def test_code_stands_as_it_is_and_scrolls_by_itself(serve, open_page):
    code = "def f(x):\n    return x  # " + "far " * 60
    site = serve(texts=[(f"So:\n\n```python\n{code}\n```", "Short.")])
    page = open_page(site, site.person("code"))
    page.goto(f"{site.url}/c/{site.collection}")
    for _ in ("formatted", "as typed"):
        block = page.locator("#texts pre code")
        expect(block).to_have_text(re.compile(r"def f\(x\):\n    return x  # far"))
        wide = page.locator("#texts pre").evaluate("(e) => [e.scrollWidth > e.clientWidth, e.tabIndex]")
        assert wide == [True, 0], "it scrolls inside its box, and the keyboard gets there"
        assert page.evaluate(FITTING) == []
        page.keyboard.press("t")


def test_a_text_is_shown_formatted_or_as_it_was_typed_and_that_stays(serve, open_page):
    site = serve(texts=[("It is **bold**.", "Plain.")])
    page = open_page(site, site.person("typist"))
    page.goto(f"{site.url}/c/{site.collection}")
    button = page.get_by_role("button", name="As typed")
    expect(page.locator("#texts strong")).to_have_text("bold")
    expect(button).to_have_attribute("aria-pressed", "false")
    with page.expect_response("**/settings"):
        page.keyboard.press("t")
    expect(page.locator("#texts")).to_contain_text("It is **bold**.")
    expect(button).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.locator("#texts")).to_contain_text("It is **bold**.")
    button.click()
    expect(page.locator("#texts strong")).to_have_text("bold")


def test_colours_follow_the_device_unless_the_person_says_otherwise(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = open_page(site, site.person("night"), color_scheme="dark")
    page.goto(f"{site.url}/c/{site.collection}")
    paper = "() => getComputedStyle(document.body).backgroundColor"
    expect(page.locator("#judging")).to_be_visible()
    assert page.evaluate(paper) == "rgb(23, 22, 20)"
    page.keyboard.press("?")
    page.get_by_label("Colours").select_option("light")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate(paper) == "rgb(253, 252, 249)"
    page.reload()
    assert page.evaluate(paper) == "rgb(253, 252, 249)"


def test_nothing_moves_for_those_who_asked_for_less_motion(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = open_page(site, site.person("calm"), reduced_motion="reduce")
    page.goto(f"{site.url}/c/{site.collection}")
    durations = "all => all.map((e) => getComputedStyle(e).transitionProperty + getComputedStyle(e).animationName)"
    assert set(page.locator("button, .cell, .text").evaluate_all(durations)) <= {"nonenone"}


# Without a browser


def tokens() -> dict[str, tuple[str, str]]:
    css = (STATIC / "style.css").read_text(encoding="utf-8")
    return {name: (a, b) for name, a, b in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", css)}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


TEXT_ON = [
    *((ink, paper) for ink in ("ink", "muted", "accent", "warn") for paper in ("paper", "raised")),
    ("accent-ink", "accent"),
    ("warn", "warn-paper"),
    ("ink", "warn-paper"),
    ("ink", "accent-paper"),
    ("ink", "new"),
    ("ink", "gone"),
]


@pytest.mark.parametrize("ink, paper", TEXT_ON)
def test_text_has_a_contrast_of_four_and_a_half(ink, paper):
    found = tokens()
    for scheme in (0, 1):
        assert contrast(found[ink][scheme], found[paper][scheme]) >= 4.5


def test_edges_of_controls_have_a_contrast_of_three():
    found = tokens()
    assert all(contrast(found["edge"][scheme], found["paper"][scheme]) >= 3 for scheme in (0, 1))


def test_contrast_is_computed_as_wcag_does():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_nothing_of_the_pages_comes_from_elsewhere_or_stands_inline():
    for path in [*STATIC.iterdir(), *TEMPLATES.glob("*.html")]:
        text = path.read_text(encoding="utf-8")
        outside = [url for url in re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text) if "www.w3.org" not in url]
        assert not outside, (path.name, outside)
        assert not re.search(r"""\bstyle=["']|\son\w+=["']|javascript:|innerHTML\s*=|\beval\(|new Function""", text), (
            path.name
        )
