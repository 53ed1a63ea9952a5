"""The judging page in a real browser under its strict policy: what people do with keys, mouse and finger is what is
stored, and nothing they did is lost. `conftest.py` holds every page to a clean console and to this server alone."""

from __future__ import annotations

import random
import re
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa
from sites import START_TOKEN, Site, new_items, playwright

from trueup.records import Judgement
from trueup.store import queue, schema

expect: Any = playwright().expect

FOUR = ("The first text.", "The second text.", "The third text.", "The fourth text.")
AXES = [
    {"name": "help", "low": 1, "high": 7, "anchors": {1: "useless", 7: "perfect"}},
    {"name": "truth", "low": 1, "high": 5},
]


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


# Each task


def test_ten_pairs_by_keyboard_alone(serve, open_page):
    site = serve(texts=[(f"one {i}", f"two {i}") for i in range(10)], repeat_share=0.0)
    page = work(open_page, site)
    wanted: dict[str, int | str] = {}
    for number, key in enumerate("1234567b14"):
        expect(page.locator("#progress")).to_have_text(f"{number} done, about {10 - number} left")
        wanted[page.locator("#prompt .said").inner_text()] = "both bad" if key == "b" else int(key) - 4
        keys(page, key, "Enter")
    is_done(page)
    stored = current(site)
    assert {each.prompt.text: each.meta["answer"]["choice"] for each in stored} == wanted
    assert all(0 < each.meta["active_seconds"] <= each.meta["seconds"] for each in stored)


def test_arrows_move_along_the_scale(serve, open_page):
    page = work(open_page, serve(texts=[("a", "b")]))
    keys(page, "ArrowRight", "ArrowRight")
    expect(page.get_by_role("radio", name="B is better")).to_be_checked()
    keys(page, "ArrowLeft", "ArrowLeft", "ArrowLeft")
    expect(page.get_by_role("radio", name="A is slightly better")).to_be_checked()


def test_a_pair_without_strength_ties_and_both_bad_offers_two_answers(serve, open_page):
    site = serve(texts=[("a", "b")], strength=False, ties=False, both_bad=False)
    page = work(open_page, site)
    expect(page.get_by_role("radio")).to_have_count(2)
    keys(page, "2", "Enter")
    is_done(page)
    assert answer(current(site)[0]) == {"choice": 1}


def test_a_ranking_with_ties_by_keys(serve, open_page):
    site = serve(task="ranking", texts=[FOUR])
    page = work(open_page, site)
    keys(page, "2", "ArrowRight", "1", "ArrowRight", "4", "Enter")
    expect(page.locator("#state")).to_have_text("Not placed yet: D.")
    assert current(site) == []
    keys(page, "ArrowRight", "2", "ArrowUp", "ArrowDown", "Enter")
    is_done(page)
    judgement = current(site)[0]
    assert answer(judgement) == {"ranks": [2, 1, 3, 2], "order_changed": True, "confirmed": False}
    shown = [judgement.completions.index(FOUR[i]) for i in judgement.meta["order"]]
    assert [judgement.ranks[i] for i in shown] == [2, 1, 3, 2]


def test_a_ranking_by_buttons_keeps_the_focus_on_what_was_moved(serve, open_page):
    site = serve(task="ranking", texts=[FOUR[:3]], ties=False)
    page = work(open_page, site)
    for letter in "ABC":
        page.get_by_role("button", name=f"Move {letter} up").click()
    up = page.get_by_role("button", name="Move C up")
    up.focus()
    keys(page, "Enter", "Enter")
    expect(up).to_be_focused()
    expect(page.locator("#spoken")).to_have_text("C: place 1")
    page.get_by_role("button", name="Submit").click()
    is_done(page)
    assert answer(current(site)[0])["ranks"] == [2, 3, 1]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_ranking_by_dragging(serve, open_page, width):
    site = serve(task="ranking", texts=[FOUR[:3]])
    page = work(open_page, site, width=width)
    for letter, place in (("A", 2), ("B", 1), ("C", 2)):
        drag(page, letter, place)
    page.get_by_role("button", name="Submit").click()
    is_done(page)
    assert answer(current(site)[0])["ranks"] == [2, 1, 2]


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


def test_the_order_of_display_as_a_ranking_has_to_be_meant(serve, open_page):
    site = serve(task="ranking", texts=[FOUR[:2]])
    page = work(open_page, site)
    keys(page, "1", "ArrowRight", "2", "Enter")
    expect(page.locator("#state")).to_contain_text("Submit once more")
    keys(page, "Enter")
    is_done(page)
    assert answer(current(site)[0]) == {"ranks": [1, 2], "order_changed": False, "confirmed": True}


def test_ratings_on_two_axes(serve, open_page):
    site = serve(task="rating", texts=[("a", "b")], axes=AXES)
    page = work(open_page, site)
    expect(page.locator(".anchors").first).to_have_text("1 useless7 perfect")
    keys(page, "7", "Tab", "5", "Tab", "6")  # a digit where the focus is: help of A, truth of A, flags, help of B
    page.get_by_role("group", name="help of B").get_by_role("radio", name="2", exact=True).check()
    keys(page, "Enter")
    expect(page.locator("#state")).to_contain_text("1 of 4 numbers are missing; next: truth of B.")
    page.get_by_role("group", name="truth of B").get_by_role("radio", name="1", exact=True).check()
    keys(page, "Enter")
    is_done(page)
    assert answer(current(site)[0])["ratings"] == {"help": [7, 2], "truth": [5, 1]}


def test_thumbs_with_chips(serve, open_page):
    site = serve(task="thumbs", texts=[("a", "b")])
    page = work(open_page, site)
    keys(page, "1", "ArrowRight", "2")
    page.get_by_role("checkbox", name="too long").check()
    keys(page, "Enter")
    is_done(page)
    assert answer(current(site)[0]) == {"thumbs": ["up", "down"], "chips": ["too long"]}


def test_an_edit_shows_its_differences_and_has_to_change_something(serve, open_page):
    site = serve(task="edit", texts=[("The cat sat on the mat.",)])
    page = work(open_page, site)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#state")).to_have_text("You have not changed anything yet.")
    page.get_by_label("Your version of A").fill("The dog sat on a new mat.")
    expect(page.locator(".changes del")).to_have_text(["cat", "the"])
    expect(page.locator(".changes ins")).to_have_text(["dog", "a new"])
    page.keyboard.press("Control+Enter")
    is_done(page)
    assert answer(current(site)[0]) == {"edited": 0, "text": "The dog sat on a new mat."}


# Reason, flags, skip, undo


def test_a_reason_is_asked_for_where_the_collection_says_so(serve, open_page):
    site = serve(texts=[("a", "b")], rationale="when strong or flagged")
    page = work(open_page, site)
    keys(page, "7", "Enter")
    expect(page.locator("#reason")).to_be_focused()
    page.keyboard.type("bus 17")  # digits and letters are text here, no shortcuts
    page.keyboard.press("Control+Enter")
    is_done(page)
    assert answer(current(site)[0]) == {"choice": 3, "rationale": "bus 17"}


def test_flags_on_the_prompt_and_on_a_text(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = work(open_page, site)
    keys(page, "f", "Space", "f", "f", "Tab", "Space")
    keys(page, "3", "Enter")
    is_done(page)
    assert answer(current(site)[0])["flags"] == {"prompt": ["unsafe"], "completions": [[], ["personal data"]]}


def test_skipping_asks_why_and_later_does_not(serve, open_page):
    site = serve(texts=[("a", "b"), ("c", "d")], repeat_share=0.0)
    page = work(open_page, site)
    first = page.locator("#texts").inner_text()
    keys(page, "p")
    expect(page.locator("#state")).to_have_text("It comes again after the others.")
    keys(page, "s", "ArrowDown", "Enter")
    expect(page.locator("#state")).to_have_text("Skipped.")
    expect(page.locator("#texts")).to_have_text(first, use_inner_text=True)
    keys(page, "1", "Enter")
    is_done(page)
    assert len(current(site)) == 1


def test_undo_brings_the_last_answer_back_and_supersedes_it(serve, open_page):
    site = serve(texts=[("a", "b"), ("c", "d")], repeat_share=0.0)
    page = work(open_page, site)
    page.locator("#reason").fill("because")
    page.locator("#question").focus()
    keys(page, "2", "Enter")
    expect(page.locator("#progress")).to_contain_text("1 done")
    keys(page, "u")
    expect(page.get_by_role("radio", name="A is better")).to_be_checked()
    expect(page.locator("#reason")).to_have_value("because")
    keys(page, "6", "Enter")
    is_saved(page)
    (judgement,) = current(site)
    assert answer(judgement) == {"choice": 2, "rationale": "because"}
    with site.db.read() as connection:
        all_of_them = connection.execute(sa.select(schema.judgement.c.record)).scalars().all()
    assert [record["meta"]["answer"]["choice"] for record in all_of_them] == [-2, 2]


def test_revising_from_the_page_of_own_work(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = work(open_page, site)
    keys(page, "1", "Enter")
    is_done(page)
    page.get_by_role("link", name="My work").click()
    page.get_by_role("button", name="Change this judgement").click()
    expect(page.locator("#judging")).to_be_visible()
    expect(page.get_by_role("radio", name="A is much better")).to_be_checked()
    keys(page, "4", "Enter")
    is_done(page)
    assert [each.meta["answer"]["choice"] for each in current(site)] == [0]


# Nothing is lost


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
    expect(other.get_by_role("radio", name="B is better")).to_be_checked()


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


# Keys


def test_keys_can_be_changed_and_stay_changed(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = work(open_page, site)
    keys(page, "?")
    page.get_by_label("Skip, with a reason").press("x")
    page.get_by_label("The choices, from left to right").fill("asdfghjkl")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("would do two things")  # d and f have their own work
    page.get_by_label("The choices, from left to right").fill("qweaozjkl")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Skip")).to_have_text(re.compile(r"Skip\s+x"))
    page.reload()
    keys(page, "1", "s")
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    expect(page.get_by_role("dialog")).to_have_count(0)
    keys(page, "w")
    expect(page.get_by_role("radio", name="A is better")).to_be_checked()
    keys(page, "x")
    expect(page.get_by_role("dialog", name="Skip")).to_be_visible()


def test_single_keys_can_be_switched_off(serve, open_page):
    page = work(open_page, serve(texts=[("a", "b")]))
    keys(page, "?")
    page.get_by_label("Keys of a single character work").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    keys(page, "1", "u", "s", "?")
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator(".steps kbd")).to_have_count(0)
    keys(page, "ArrowRight", "Enter")  # longer keys still work
    is_done(page)


def test_keys_of_an_input_method_and_held_keys_do_nothing(serve, open_page):
    site = serve(texts=[("a", "b"), ("c", "d")], repeat_share=0.0)
    page = work(open_page, site)
    composed = "e => document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', isComposing: true, bubbles: true}))"
    page.locator("body").evaluate(composed)
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    keys(page, "Control+1", "Alt+2")
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    keys(page, "3")
    page.keyboard.down("Enter")
    page.keyboard.down("Enter")  # repeats: held down, it must not submit the next one
    expect(page.locator("#progress")).to_contain_text("1 done")
    expect(page.locator("#state")).not_to_contain_text("Choose")
    page.keyboard.up("Enter")


# Texts, guideline


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


def test_a_new_guideline_is_read_before_the_next_item(serve, open_page):
    site = serve(texts=[("a", "b"), ("c", "d")], guideline="Be kind.", repeat_share=0.0)
    page = work(open_page, site)
    keys(page, "g")
    expect(page.get_by_role("dialog", name="Guideline, version 1")).to_contain_text("Be kind.")
    keys(page, "Escape", "1")
    queue.add_guideline(site.db, site.collection, "Be **kinder**.", site.clock())
    keys(page, "Enter")
    expect(page.get_by_role("heading", name=re.compile("^Guideline of"))).to_be_visible()
    page.get_by_role("button", name="I have read it").click()
    expect(page.locator("#judging")).to_be_visible()
    keys(page, "2", "Enter")
    is_done(page)
    assert len({each.meta["guideline"] for each in current(site)}) == 2


def test_time_counts_while_somebody_is_there_and_the_lease_is_kept(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = open_page(site, site.ready(site.person("ada")))
    page.clock.install()
    renewed = []
    page.on("request", lambda request: renewed.append(request.url) if request.url.endswith("/renew") else None)
    page.goto(f"{site.url}/c/{site.collection}")
    expect(page.locator("#judging")).to_be_visible()
    page.clock.run_for(100_000)
    keys(page, "2")
    with page.expect_request("**/renew"):  # a beat, half a minute after the key
        page.clock.run_for(30_000)
    kept = len(renewed)
    page.clock.run_for(1_000_000)  # nobody there: nothing more is kept for them
    keys(page, "Enter")
    is_done(page)
    assert len(renewed) == kept
    sent = current(site)[0].meta["answer"]
    assert 1_130_000 <= sent["opened_ms"] < 1_145_000
    assert 120_000 <= sent["active_ms"] < 125_000  # a minute after the start and a minute after the key


def test_the_solution_of_a_qualification_item_is_shown(serve, open_page):
    key = {"role": "qualification", "key": {"ranks": [1, 2], "why": "The first is true."}}
    site = serve(texts=[("a", "b")], qualification=1, columns=key)
    page = work(open_page, site)
    keys(page, "1", "Enter")
    expect(page.locator("#notice")).to_contain_text("The first is true.")


def test_who_has_reached_the_daily_limit_is_told_so(serve, open_page):
    page = work(open_page, serve(per_day=1))
    keys(page, "1", "Enter")
    is_done(page)
    for look in (lambda: None, page.get_by_role("button", name="Look again").click, page.reload):
        look()
        expect(page.locator("#why")).to_have_text(re.compile("in a day"))


def test_looking_again_finds_what_came_since(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = work(open_page, site)
    keys(page, "1", "Enter")
    is_done(page)
    queue.add_items(site.db, site.collection, new_items(site.workspace, [("c", "d")], ["Another prompt."]), time.time())
    page.get_by_role("button", name="Look again").click()
    expect(page.locator("#prompt")).to_contain_text("Another prompt.")
