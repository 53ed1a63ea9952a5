"""The texts on the judging page: hostile ones are text, differences by word are right and quick, places add up."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from judging import keys, work
from sites import playwright

expect: Any = playwright().expect


def test_hostile_text_is_text(serve, open_page):
    bad = "<img src=x onerror=alert(1)><script>alert(2)</script> \u202eback\u202c [a](javascript:alert(3)) ![i](http://x.test/i.png)"
    page = work(open_page, serve(texts=[(bad, "**bold**")], prompts=["</script><script>alert(4)</script>"]))
    for _ in ("formatted", "as typed", "compared"):
        expect(page.locator("#texts img, #texts script, #texts a, #prompt script")).to_have_count(0)
        expect(page.locator("#texts .hidden-mark")).to_have_text(["U+202E", "U+202C"])
        expect(page.locator("#texts")).to_contain_text("<script>alert(2)</script>")
        keys(page, "t" if page.locator("#texts strong").count() else "d")
    expect(page.locator("#prompt")).to_contain_text("<script>alert(4)</script>")


def test_differences_by_word(serve, open_page):
    page = work(open_page, serve(texts=[("It rains in Spain today.", "It rains in Rome today, again.")]))
    keys(page, "d")
    marked = page.locator("#texts ins, #texts del")
    assert sorted(marked.all_inner_texts()) == [", again", "Rome", "Spain"]
    keys(page, "d")
    expect(marked).to_have_count(0)


@pytest.fixture
def modules(site, open_page):
    """A page of this server without a policy, so that a test can call the functions of our modules."""
    page = open_page(site)
    page.route(
        "**/modules", lambda route: route.fulfill(content_type="text/html", body="<!doctype html><title>t</title>")
    )
    page.goto(f"{site.url}/modules")
    page.watched.console.clear()
    return page


def test_what_differs_is_as_little_as_can_be(modules):
    draw = random.Random(7)
    texts = [" ".join(draw.choices("abcd", k=draw.randrange(14))) for _ in range(400)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    compare = """async (pairs) => {
      const { differences } = await import("/static/text.js");
      return pairs.map(([a, b]) => differences(a, b));
    }"""
    for (a, b), found in zip(pairs, modules.evaluate(compare, pairs), strict=True):
        assert ["".join(run for run, _ in found[side]) for side in ("left", "right")] == [a, b]
        kept = [
            [word for run, changed in found[side] if not changed for word in run.split()] for side in ("left", "right")
        ]
        assert kept[0] == kept[1] and len(kept[0]) == longest_common(a.split(), b.split())


def longest_common(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        before = row
        row = [0]
        for j, other in enumerate(b):
            row.append(before[j] + 1 if word == other else max(before[j + 1], row[j]))
    return row[-1]


PLACED = [  # places, who, where to, whether ties are allowed, places after
    ([None, 1, 2], 0, 1, True, [1, 1, 2]),  # beside the one that is there
    ([3, 1, 2], 0, 1, False, [1, 3, 2]),  # they change places
    ([None, 1, 2], 0, 1, False, [1, 2, 3]),  # those below move down
    ([None, 1, 3], 0, 1, False, [1, 2, 3]),  # as far as there is a gap
    ([None, 3, 2], 0, 2, False, [2, None, 3]),  # or out, at the end
    ([1, 2, 3], 1, None, False, [1, None, 3]),
]


def test_where_texts_go_when_one_is_placed(modules):
    put = "async (all) => { const m = await import('/static/ranking.js'); return all.map((each) => m.put(...each)); }"
    assert modules.evaluate(put, [list(case[:4]) for case in PLACED]) == [case[4] for case in PLACED]


def test_two_long_texts_are_compared_at_once_and_shown_whole(serve, open_page):
    words = [f"word{i % 700}" for i in range(2000)]
    other = [*words[:900], "inserted", *words[901:], "end"]
    page = work(open_page, serve(texts=[(" ".join(words), " ".join(other))]))
    keys(page, "d")
    assert sorted(page.locator("#texts ins, #texts del").all_inner_texts()) == ["end", "inserted", "word200"]
    assert sorted(len(each.split()) for each in page.locator(".text .said").all_inner_texts()) == [2000, 2001]
    page.keyboard.press("d")
    far = work(open_page, serve(name="far", texts=[("a " * 9000, "b " * 9000)]), name="bo")
    started = time.monotonic()
    keys(far, "d")
    expect(far.locator("#state")).to_contain_text("too little in common")
    assert time.monotonic() - started < 5
