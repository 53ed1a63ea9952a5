"""What a person chooses not to be given, as pages ask for it; and one person with two tabs."""

from __future__ import annotations

import html
import json
import re

import pytest
from judging import current, expect, keys, work
from sites import Client, Site

from trueup.feedback.status import status
from trueup.records import Prompt
from trueup.store import queue
from trueup.store.categories import refused_by

TAGS = ("Violence", ["violence", "<b>illness</b>"], None)
PROMPTS = [Prompt.user(f"Question {i}", **({"category": tag} if tag else {})) for i, tag in enumerate(TAGS)]
ILL = "<b>illness</b>"


@pytest.fixture
def site(serve_app) -> Site:
    return serve_app(prompts=PROMPTS, warning="Some of this is **upsetting**.", overlap=2)


def names(page: str) -> list[str]:
    """What the form lists, as it will send it back."""
    return json.loads(html.unescape(re.search(r"name=\"listed\" value='([^']*)'", page).group(1)))


def ticked(page: str) -> list[str]:
    return [names(page)[int(place)] for place in re.findall(r'name="refuse-(\d+)" value="yes" checked', page)]


def choose(client: Client, path: str, *refused: str) -> None:
    listed = names(client.get("/account").text)
    boxes = {f"refuse-{place}": "yes" for place, name in enumerate(listed) if name in refused}
    assert client.form(path, listed=json.dumps(listed), **boxes).status_code == 303


def prompts_given(client: Client, site: Site) -> list[str]:
    """What comes, judged until nothing does."""
    found = []
    while "assignment" in (view := client.get(f"/c/{site.collection}/next").json()):
        found.append(view["prompt"][0]["content"])
        client.json(f"/a/{view['assignment']}/answer", key=view["assignment"], revises="", answer={"choice": 1})
    return [*found, view["waiting"]]


def test_before_the_work_one_says_what_not_to_be_given(site):
    client = site.client(site.ready(site.person("ada")))
    page = client.get(f"/c/{site.collection}").text
    assert names(page) == sorted([ILL, "violence"]) and ticked(page) == []
    assert "&lt;b&gt;illness" in page and ILL not in page
    choose(client, f"/c/{site.collection}/warning", ILL)
    assert prompts_given(client, site) == ["Question 0", "Question 2", "categories"]
    assert ticked(client.get("/account").text) == [ILL]


def test_a_changed_mind_holds_for_what_comes_and_releases_nothing(site):
    client = site.client(site.ready(site.person("ada")))
    assert client.get(f"/c/{site.collection}/next").json()["prompt"][0]["content"] == "Question 0"
    choose(client, "/account/categories", "violence")
    assert prompts_given(client, site) == ["Question 2", "categories"], "what was held is given back"
    choose(client, "/account/categories")
    assert prompts_given(client, site) == ["Question 0", "Question 1", ""]
    choose(client, "/account/categories", "violence")
    assert len(current(site)) == 3
    mine = client.get(f"/c/{site.collection}/mine").text
    assert mine.count("Covered, it may be upsetting") == 2 and "Question 2" in mine and "Question 1" not in mine
    earlier = client.json(f"/c/{site.collection}/undo").json()["view"]
    assert earlier["prompt"][0]["content"] == "Question 2", "undo passes by what they no longer want to see"


def test_a_form_changes_only_what_it_listed_and_what_there_is(site):
    ada = site.person("ada")
    client = site.client(ada)
    choose(client, "/account/categories", ILL)
    client.form("/account/categories", listed=json.dumps(["violence", "made up"]), **{"refuse-0": "y", "refuse-1": "y"})
    assert refused_by(site.db, ada.id) == {ILL, "violence"}
    for listed in ("", "{}", "[1]", "[" * 100_000):
        assert client.form("/account/categories", listed=listed).status_code == 400
    assert "What not to be given" not in site.client(site.person("vic", "viewer")).get("/account").text


def test_who_leads_sees_what_waits_for_nobody_and_no_small_number(site):
    crowd = [site.client(site.person(f"ann {i}")) for i in range(5)]
    boss = site.client(site.person("boss", "manager"))
    for client in crowd[:4]:
        choose(client, "/account/categories", ILL, "violence")
    found = status(site.workspace, site.collection, site.clock())
    assert (found.nobody_takes, found.opted_out) == ({}, {}), "one takes it; and four people are too few to count"
    assert "violence" not in boss.get(f"/c/{site.collection}/progress").text
    choose(crowd[4], "/account/categories", "violence")
    found = status(site.workspace, site.collection, site.clock())
    assert found.nobody_takes == {"violence": 1, f"{ILL} and violence": 1} and found.opted_out == {"violence": 5}
    page = boss.get(f"/c/{site.collection}/progress").text
    assert re.search("no one takes category violence: 1 item[;<]", page) and "violence: 5 people" in page
    assert ILL not in page and "illness&lt;/b&gt; and violence: 1 item;" in page
    choose(crowd[4], "/account/categories")
    assert status(site.workspace, site.collection, site.clock()).nobody_takes == {}


def test_a_qualification_that_somebody_refuses_does_not_let_them_in(serve_app):
    site = serve_app(prompts=PROMPTS[2:], texts=[("a", "b")], qualification=1)
    tagged = Prompt.user("Test", category="violence")
    (made,) = queue.items(site.db, site.collection)
    item = queue.NewItem(
        tagged, ("c", "d"), made.completions, (True, True), role="qualification", key={"ranks": [1, 2]}
    )
    queue.add_items(site.db, site.collection, [item], 0.0)
    client = site.client(site.ready(site.person("ada")))
    choose(client, "/account/categories", "violence")
    assert prompts_given(client, site) == ["categories"]
    choose(client, "/account/categories")
    assert prompts_given(client, site)[0] == "Test"


# Two tabs of one browser


def test_the_second_of_two_tabs_is_told_and_goes_on(serve, open_page):
    site = serve(texts=[("One.", "Two."), ("Three.", "Four.")])
    first = work(open_page, site)
    second = first.context.new_page()
    second.goto(first.url)
    expect(second.locator("#judging")).to_be_visible()
    for page, which in ((first, "first"), (second, "second")):
        page.get_by_role("textbox").fill(f"said in the {which} tab")
        page.locator("#question").focus()
        keys(page, "2", "Enter")
        expect(page.locator("#spoken")).to_contain_text("another tab" if page is second else "Saved")
    (stands,) = current(site)
    assert stands.meta["answer"]["rationale"] == "said in the first tab"
    expect(second.locator("#judging")).to_be_visible()
    (done,) = queue.own_work(site.db, site.collection, next(iter(queue.counts(site.db, site.collection)["people"])), 9)
    assert done.draft["rationale"] == "said in the second tab", "it is there when they change the judgement"
