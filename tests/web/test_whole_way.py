"""The whole way in one go, in two browsers at once: the owner invites somebody, they judge by keys, the owner exports
exactly what they said. `conftest.py` aborts and counts every request to another server; none is allowed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from judging import current, drag, keys
from sites import PASSWORD, Site, new_collection, new_items, playwright

from trueup.store import people, queue

expect: Any = playwright().expect

FOUR = ("The first text.", "The second text.", "The third text.", "The fourth text.")
PAIRS = "1234567b14"  # a key for each of ten pairs


@pytest.fixture
def site(serve) -> Site:
    """Ten pairs behind a qualification of two; rankings and an edit beside them."""
    pairs = {"qualification": 2, "repeat_share": 0.0, "guideline": "Be *fair*."}
    made = serve(name="pairs", texts=[(f"one {i}", f"two {i}") for i in range(10)], **pairs)
    key = {"role": "qualification", "key": {"ranks": [1, 2], "why": "The good one."}}
    tests = new_items(made.workspace, [("good", "bad")] * 2, ["Easy.", "As easy."], **key)
    queue.add_items(made.db, made.collection, tests, made.clock())
    others = {
        "rankings": ("ranking", [FOUR, FOUR[:3]]),
        "edits": ("edit", [("The cat sat.", "A cat lay."), ("x", "y")]),
    }
    for name, (task, texts) in others.items():
        new_collection(made.workspace, name, task=task, texts=texts, repeat_share=0.0)
    return made


@pytest.mark.timeout(240)
def test_from_the_start_link_to_the_export(site, open_page):
    owner, guest = open_page(site), open_page(site)
    site.enter(owner)
    join(guest, invitation(owner))
    (ada,) = [each for each in people.people(site.db) if each.name == "Ada"]

    said = judge_ten_pairs(guest, site)
    rank_by_keys_and_by_drag(guest)
    edit_skip_and_undo(guest)

    exported = {name: export(owner, name) for name in ("pairs", "rankings", "edits")}
    for rows in exported.values():
        assert {row["judge"] for row in rows} == {ada.judge} and {row["source"] for row in rows} == {"human"}
        assert "Ada" not in json.dumps(rows)
    pairs = {row["prompt"]["messages"][0]["content"]: row for row in exported["pairs"]}
    assert {prompt: row["meta"]["answer"]["choice"] for prompt, row in pairs.items()} == said
    assert {row["id"] for row in exported["pairs"]} <= {each.id for each in current(site)}
    by_ranks = sorted(
        [sorted(zip(row["ranks"], row["completions"], strict=True)) for row in exported["rankings"]], key=len
    )
    assert [[rank for rank, _ in ranked] for ranked in by_ranks] == [[1, 2, 2], [1, 2, 2, 3]]
    (edit,) = exported["edits"]
    assert edit["completions"][-1] == "Quite another text." and edit["ranks"][-1] == 1
    assert owner.watched.elsewhere == guest.watched.elsewhere == []


def invitation(owner: Any) -> str:
    owner.get_by_role("link", name="People").click()
    owner.get_by_label("Role", exact=True).select_option("annotator")
    owner.get_by_role("button", name="Make a link").click()
    return owner.locator(".secret code").inner_text()


def join(guest: Any, link: str) -> None:
    guest.goto(link)
    guest.get_by_label("Name").fill("Ada")
    guest.get_by_label("Password").fill(PASSWORD)
    keys(guest, "Enter")
    expect(guest.get_by_role("heading", name="Collections")).to_be_visible()


def start(guest: Any, name: str) -> None:
    """The card of a collection, opened by its button."""
    guest.goto(guest.url.split("/c/")[0].rstrip("/") + "/")
    card = guest.locator(".card").filter(has=guest.get_by_role("heading", name=name, exact=True))
    card.get_by_role("link", name="Judge").focus()
    keys(guest, "Enter")


def judge_ten_pairs(guest: Any, site: Site) -> dict[str, int | str]:
    """The guideline, the qualification, ten pairs; by keys alone. Returns choice by prompt."""
    start(guest, "pairs")
    guest.get_by_role("button", name="I have read it").focus()
    keys(guest, "Enter")
    for number in range(2):
        expect(guest.locator("#progress")).to_have_text(f"{number} done, about {12 - number} left")
        keys(guest, "3" if guest.locator(".text .said").first.inner_text() == "good" else "5", "Enter")
        expect(guest.locator("#notice")).to_have_text("Right. The good one.")
    said: dict[str, int | str] = {}
    for number, key in enumerate(PAIRS, 2):
        expect(guest.locator("#progress")).to_have_text(f"{number} done, about {12 - number} left")
        said[guest.locator("#prompt .said").inner_text()] = "both bad" if key == "b" else int(key) - 4
        keys(guest, key, "Enter")
    done(guest)
    assert all(0 < each.meta["active_seconds"] <= each.meta["seconds"] for each in current(site))
    return {prompt: choice for prompt, choice in said.items() if choice != "both bad"}  # which makes no training pair


def rank_by_keys_and_by_drag(guest: Any) -> None:
    start(guest, "rankings")
    for _ in range(2):
        texts = guest.locator(".text")
        expect(texts.first).to_be_visible()
        before = guest.locator("#progress").inner_text()
        if texts.count() == 4:
            keys(guest, "2", "ArrowRight", "1", "ArrowRight", "3", "ArrowRight", "2", "Enter")
        else:
            for letter, place in (("A", 2), ("B", 1), ("C", 2)):
                drag(guest, letter, place)
            guest.get_by_role("button", name="Submit").click()
        expect(guest.locator("#progress")).not_to_have_text(before)
    done(guest)


def edit_skip_and_undo(guest: Any) -> None:
    """One of the two is skipped, the other rewritten, taken back and rewritten again."""
    start(guest, "edits")
    expect(guest.locator("#judging")).to_be_visible()
    if guest.locator(".text .said").first.inner_text() not in ("x", "y"):
        keys(guest, "p")
        expect(guest.locator("#state")).to_have_text("It comes again after the others.")
    keys(guest, "s", "ArrowDown", "Enter")
    expect(guest.locator("#state")).to_have_text("Skipped.")
    keys(guest, "1", "ArrowRight", "2", "e", "Control+A")
    guest.keyboard.type("Another text.")
    keys(guest, "Control+Enter")
    done(guest)
    keys(guest, "u")
    expect(guest.locator("#judging")).to_be_visible()
    expect(guest.locator("#rewritten")).to_have_value("Another text.")
    keys(guest, "ArrowRight", "e", "Control+A")
    guest.keyboard.type("Quite another text.")
    keys(guest, "Control+Enter")
    done(guest)


def export(owner: Any, name: str) -> list[dict[str, Any]]:
    owner.get_by_role("link", name="Collections").click()
    card = owner.locator(".card").filter(has=owner.get_by_role("heading", name=name, exact=True))
    card.get_by_role("link", name="Export").click()
    with owner.expect_download() as started:
        owner.get_by_role("button", name="Export").click()
    assert re.fullmatch(rf"{name}-\w+\.jsonl", started.value.suggested_filename)
    return [json.loads(line) for line in Path(started.value.path()).read_text().splitlines()]


def done(guest: Any) -> None:
    expect(guest.get_by_role("heading", name="Nothing to judge right now")).to_be_visible()
