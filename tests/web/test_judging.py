"""The judging page in a real browser under its strict policy: what people do with keys, mouse and finger is what is
stored. `conftest.py` holds every page to a clean console and to this server alone.

That nothing is lost: test_saving.py. The texts themselves: test_texts.py. The whole way: test_whole_way.py.
"""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
import sqlalchemy as sa
from judging import answer, current, drag, is_done, is_saved, keys, work
from sites import new_items, playwright

from trueup.feedback import answers
from trueup.store import queue, schema
from trueup.web import security

expect: Any = playwright().expect

FOUR = ("The first text.", "The second text.", "The third text.", "The fourth text.")
AXES = [
    {"name": "help", "low": 1, "high": 7, "anchors": {1: "useless", 7: "perfect"}},
    {"name": "truth", "low": 1, "high": 5},
]


# Each task


def test_arrows_move_along_the_scale(serve, open_page):
    page = work(open_page, serve(texts=[("a", "b")]))
    keys(page, "ArrowRight", "ArrowRight")
    expect(page.get_by_role("radio", name="B better", exact=True)).to_be_checked()
    keys(page, "ArrowLeft", "ArrowLeft", "ArrowLeft")
    expect(page.get_by_role("radio", name="A slightly better", exact=True)).to_be_checked()


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
    expect(page.locator("#below")).to_contain_text("the focus moves on to what is not rated yet")
    keys(page, "7")  # a digit where the focus is, which moves on by itself
    expect(page.locator("#spoken")).to_have_text("help of A: 7. Next: truth of A.")
    keys(page, "5", "6")
    expect(page.get_by_role("group", name="truth of B").get_by_role("radio").first).to_be_focused()
    keys(page, "Shift+Tab", "2")  # Tab goes where it always went; what is rated already can be rated again
    expect(page.locator("#spoken")).to_have_text("help of B: 2. Next: truth of B.")
    keys(page, "Enter")
    expect(page.locator("#state")).to_contain_text("1 of 4 numbers are missing; next: truth of B.")
    keys(page, "1")
    expect(page.locator("#spoken")).to_have_text("truth of B: 1. Nothing is missing.")
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
    expect(page.locator("#state")).to_have_text("You have not changed anything yet: change the text, or skip it.")
    page.get_by_label("Your version of A").fill("The dog sat on a new mat.")
    expect(page.locator(".changes del")).to_have_text(["cat", "the"])
    expect(page.locator(".changes ins")).to_have_text(["dog", "a new"])
    expect(page.locator("#change-count")).to_have_text("Edit distance 5: 2 words out, 3 in.")
    page.keyboard.press("Control+Enter")
    is_done(page)
    assert answer(current(site)[0]) == {"edited": 0, "text": "The dog sat on a new mat."}


def test_what_is_too_long_is_said_before_it_is_sent(serve, open_page):
    site = serve(task="edit", texts=[("The cat sat on the mat.",)])
    page = work(open_page, site)
    sent = []
    page.on("request", lambda request: sent.append(request.url) if request.url.endswith("/answer") else None)
    fill = "(e, text) => { e.value = text; e.dispatchEvent(new Event('input', { bubbles: true })); }"
    version = page.get_by_label("Your version of A")
    version.evaluate(fill, "😀" * (answers.LONGEST_TEXT + 1))
    too_long = "Your version is too long: 200,001 characters, at most 200,000."
    expect(page.locator("#change-count")).to_have_text(too_long)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#state")).to_have_text(too_long)
    version.evaluate(fill, "😀" * answers.LONGEST_TEXT)  # not too long; with this reason too large for a request
    reason = page.locator("#reason")
    reason.evaluate(fill, "x" * 300_000)
    page.keyboard.press("Control+Enter")
    expect(page.locator("#state")).to_contain_text(re.compile(r"too large: 1,1\d\d,\d{3} bytes, at most 1,048,576"))
    assert sent == [] and security.BODY_LIMIT == 1_048_576
    reason.evaluate(fill, "short")
    page.keyboard.press("Control+Enter")
    is_done(page)
    assert len(answer(current(site)[0])["text"]) == answers.LONGEST_TEXT


def test_an_edit_with_the_order_of_the_originals_by_keys_alone(serve, open_page):
    """Rank, then rewrite: the version stands above the originals, and those in the order that was given."""
    site = serve(task="edit", texts=[("The cat sat.", "A dog lay down.")])
    page = work(open_page, site)
    order = page.locator("#order")
    expect(order).to_have_text("Your version will stand above the text it was made from.")
    keys(page, "2", "e")
    expect(page.get_by_label("Your version of A")).to_be_focused()
    keys(page, "End", "!", "2", "Control+Enter")  # digits are text in here
    expect(page.locator("#state")).to_have_text("Give every original a place or none; not placed: B.")
    page.locator("#question").focus()
    keys(page, "ArrowRight", "1", "e")
    expect(page.get_by_label("Your version of B")).to_be_focused()
    expect(page.get_by_role("button", name="Rewrite B")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#spoken")).to_have_text("Best first: your version, then B, then A.")
    keys(page, "Control+End", "!")
    expect(order).to_have_text("Best first: your version, then B, then A.")
    expect(page.locator("#state")).to_have_text("Draft saved")
    page.reload()
    expect(order).to_have_text("Best first: your version, then B, then A.")
    rewritten = page.get_by_label("Your version of B").input_value()
    keys(page, "Enter")
    is_done(page)
    (judgement,) = current(site)
    assert answer(judgement) == {"edited": 1, "text": rewritten, "ranks": [2, 1]}
    ranked = [text for _, text in sorted(zip(judgement.ranks, judgement.completions, strict=True))]
    assert ranked[0] == ranked[1] + "!" == rewritten and judgement.ranks[-1] == 1


def test_the_order_of_the_originals_can_be_taken_back(serve, open_page):
    site = serve(task="edit", texts=[("a text", "another text", "a third text")])
    page = work(open_page, site)
    keys(page, "1", "ArrowRight", "1", "ArrowRight", "ArrowDown", "ArrowDown")
    expect(page.locator("#order")).to_have_text("Best first: your version, then A and B, then C.")
    keys(page, "Backspace")
    expect(page.locator("#order")).to_have_text("Not placed yet: C.")
    page.get_by_role("button", name="No order").click()
    page.get_by_label("Your version of A").fill("mine")
    page.keyboard.press("Control+Enter")
    is_done(page)
    assert answer(current(site)[0]) == {"edited": 0, "text": "mine"}


# What is covered


def test_what_is_sensitive_is_not_in_the_page_before_somebody_asks_for_it(serve, open_page):
    site = serve(texts=[("A gory tale.", "A mild tale.")], sensitive=("gory",))
    page = work(open_page, site)
    place = "AB"[
        page.locator(".text .cover").evaluate(
            "e => [...document.querySelectorAll('.text')].indexOf(e.closest('.text'))"
        )
    ]
    expect(page.locator("#spoken")).to_have_text(f"Covered: {place}.")
    assert "gory" not in page.content(), "neither in what is shown nor in what the script got"
    expect(page.locator("#judging")).to_contain_text("A mild tale.")
    keys(page, "1", "Enter")
    expect(page.locator("#state")).to_have_text(f"Covered: {place}. Show it before you answer, or skip it.")
    keys(page, "d")
    expect(page.locator("ins, del")).to_have_count(0)
    keys(page, "v")
    expect(page.locator("#spoken")).to_have_text(f"Shown: {place}")
    expect(page.locator(".text", has_text="A gory tale.")).to_be_focused()
    expect(page.locator("#state")).to_have_text("Draft saved")
    page.reload()
    expect(page.locator("#judging")).to_contain_text("A gory tale.")
    keys(page, "Enter")
    is_done(page)
    assert answer(current(site)[0]) == {"choice": -3}
    page.get_by_role("link", name="My work").click()
    assert "gory" not in page.content()
    page.get_by_role("link", name="show it").click()
    expect(page.get_by_text("A gory tale.")).to_be_visible()
    expect(page.get_by_role("link", name="show it")).to_have_count(0)


@pytest.mark.parametrize("task", ["edit", "ranking"])
def test_nothing_around_a_covered_text_gives_it_away(serve, open_page, task):
    site = serve(
        task=task,
        texts=[("a gory one", "a gory two", "a gory three")],
        prompts=["Write gory ones."],
        sensitive=("gory",),
    )
    page = work(open_page, site)
    assert "gory" not in page.content()
    said = page.get_by_text("gory")
    assert [each for each in said.all() if each.is_visible()] == []
    expect(page.locator("#rewritten")).to_have_count(int(task == "edit"))
    expect(page.locator("#rewritten")).not_to_be_visible()
    for part in ("the prompt", "B"):
        page.get_by_role("button", name=f"Show {part}").click()
    expect(page.locator("#state")).to_have_text("Covered: A, C.")
    assert len([each for each in said.all() if each.is_visible()]) == 2
    keys(page, "s", "Enter")  # nobody has to look
    is_done(page)
    assert current(site) == []


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


def test_what_was_typed_waits_with_what_is_put_off(serve, open_page):
    page = work(open_page, serve(texts=[("a", "b"), ("c", "d")], repeat_share=0.0))
    first = page.locator("#texts").inner_text()
    page.locator("#reason").fill("half a thought")
    page.get_by_role("button", name="Later").click()  # before the draft was sent
    expect(page.locator("#reason")).to_have_value("")
    keys(page, "p")
    expect(page.locator("#texts")).to_have_text(first, use_inner_text=True)
    expect(page.locator("#reason")).to_have_value("half a thought")


def test_undo_brings_the_last_answer_back_and_supersedes_it(serve, open_page):
    site = serve(texts=[("a", "b"), ("c", "d")], repeat_share=0.0)
    page = work(open_page, site)
    page.locator("#reason").fill("because")
    page.locator("#question").focus()
    keys(page, "2", "Enter")
    expect(page.locator("#progress")).to_contain_text("1 done")
    keys(page, "u")
    expect(page.get_by_role("radio", name="A better", exact=True)).to_be_checked()
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
    expect(page.get_by_role("radio", name="A much better", exact=True)).to_be_checked()
    keys(page, "4", "Enter")
    is_done(page)
    assert [each.meta["answer"]["choice"] for each in current(site)] == [0]


# Keys


def test_keys_can_be_changed_and_stay_changed(serve, open_page):
    site = serve(texts=[("a", "b")])
    page = work(open_page, site)
    keys(page, "?")
    page.get_by_label("Skip, with a reason").press("x")
    page.get_by_label("The choices, from left to right").fill("asdfghjkl")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("would do two things")  # d and f have their own work
    page.get_by_label("The choices, from left to right").fill("qwyaozjkl")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Skip")).to_have_text(re.compile(r"Skip\s+x"))
    page.reload()
    keys(page, "1", "s")
    expect(page.get_by_role("radio", checked=True)).to_have_count(0)
    expect(page.get_by_role("dialog")).to_have_count(0)
    keys(page, "w")
    expect(page.get_by_role("radio", name="A better", exact=True)).to_be_checked()
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


# Guideline, time, what there is to do


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


def test_the_solution_of_a_qualification_item_is_shown_and_none_can_be_skipped(serve, open_page):
    key = {"role": "qualification", "key": {"ranks": [1, 2], "why": "The first is true."}}
    site = serve(texts=[("a", "b")], qualification=1, qualification_pass=0, columns=key)
    gold = {"role": "gold", "key": {"ranks": [1, 2]}}
    queue.add_items(site.db, site.collection, new_items(site.workspace, [("c", "d")], ["Hidden."], **gold), time.time())
    queue.add_items(site.db, site.collection, new_items(site.workspace, [("e", "f")], ["Plain."]), time.time())
    page = work(open_page, site)
    skip = page.get_by_role("button", name="Skip")
    expect(skip).to_have_count(0)
    keys(page, "s")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#state")).to_contain_text("has to be judged before the work begins")
    keys(page, "1", "Enter")
    expect(page.locator("#notice")).to_contain_text("The first is true.")
    expect(skip).to_be_visible()  # golds and ordinary items alike: the view says `skippable` of both


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
