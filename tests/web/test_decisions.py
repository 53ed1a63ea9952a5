"""The pages of those who decide: what people disagree on, what is set aside, what names its writer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sites import Client, Site, new_collection, new_items, playwright

from trueup import asking
from trueup.feedback import adjudicate
from trueup.feedback.freeze import Choice, freeze
from trueup.records import Judgement, Prompt
from trueup.store import audit, queue
from trueup.web import wording

expect: Any = playwright().expect
HERE = Path(__file__).parent
USABLE, FITTING = (HERE / "usable.js").read_text(), (HERE / "fitting.js").read_text()
PAIRS = (("left 0", "right 0"), ("left 1", "right 1"), ("left 2", "right 2"))


@pytest.fixture
def disputes(serve_app: Any) -> Site:
    """Two votes on each of three pairs: opposed on the first, a tie against one on the second, alike on the third."""
    site = serve_app(texts=PAIRS, columns={"overlap": 2}, repeat_share=0.0)
    for name, choices in (("Ada", (-2, -1, 1)), ("Bea", (3, 0, 1))):
        judge(site, name, choices, rationale=f"{name} says <b>so</b>")
    return site


def judge(site: Site, name: str, choices: tuple[int, ...], **more: Any) -> Client:
    """`choices` by item, below 0 where its first text is better, whatever the order of display."""
    client = site.client(site.ready(site.person(name)))
    while "assignment" in (view := client.get(f"/c/{site.collection}/next").json()):
        choice = choices[int(view["completions"][0][-1])]
        turned = view["completions"][0].startswith("right")
        answer = {"choice": -choice if turned else choice, **more}
        client.json(f"/a/{view['assignment']}/answer", key="k", answer=answer)
    return client


def manager(site: Site, name: str = "Olga") -> Client:
    return site.client(site.person(name, "manager"))


def items(site: Site) -> list[queue.Item]:
    return queue.items(site.db, site.collection)


def decide(client: Client, item: queue.Item, decision: str, **fields: str) -> Any:
    path = f"/c/{item.collection}/items/{item.id}/decide"
    return client.form(path, **{"decision": decision, "cause": "", "words": "", **fields})


def sections(page: str) -> dict[str, str]:
    """Item -> its part of the page, in the order of the page."""
    parts = re.findall(r'<section class="card case" aria-labelledby="item-(\w+)">(.*?)</section>', page, re.DOTALL)
    return dict(parts)


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


# Disputed items


def test_the_most_disputed_comes_first_with_everything_that_was_said(disputes):
    page = manager(disputes).get(f"/c/{disputes.collection}/disputed").text
    first, second, _ = items(disputes)
    found = sections(page)
    assert list(found) == [first.id, second.id], "what all agree on is not there"
    text = words(found[first.id])
    assert "0% agreement, 2 votes" in text and "50% agreement" in words(found[second.id])
    assert "left 0" in text and "right 0" in text and first.prompt.text in text
    assert "A is better" in text and "B is much better" in text
    assert "Ada (human:" in text and "&lt;b&gt;so&lt;/b&gt;" in found[first.id] and "<b>so</b>" not in page
    assert "secret-model" not in page and "Decided: 0" in page


def test_blind_shows_who_said_what_only_after_the_decision(disputes):
    client, first = manager(disputes), items(disputes)[0]
    path = f"/c/{disputes.collection}/disputed"
    page = client.get(f"{path}?blind=1").text
    assert "Person 1" in page and "Person 2" in page and "human:" not in page
    answer = decide(client, first, "first", blind="1", page="1")
    assert answer.headers["location"] == f"{path}?page=1&blind=1&done=accepted"
    page = client.get(answer.headers["location"]).text
    assert first.id not in page and "human:" not in page and "in place of the votes" in page
    assert "human:" in client.get(f"{path}?decided=1&blind=1").text


@pytest.mark.parametrize(("button", "ranks"), [("first", (1, 2)), ("tie", (1, 1)), ("second", (2, 1))])
def test_a_button_is_an_answer_that_freezing_takes(disputes, button, ranks):
    client, first = manager(disputes), items(disputes)[0]
    cause = {"cause": adjudicate.CAUSES[0], "words": "which year"}
    assert decide(client, first, button, **cause).headers["location"].endswith("done=accepted")
    made = adjudicate.decisions(disputes.workspace, disputes.collection)[first.id]
    assert made.judgement is not None and made.judgement.ranks == ranks
    assert (made.judgement.judge, made.person) == (client.person.judge, client.person.id)
    assert made.cause == f"{adjudicate.CAUSES[0]}: which year" and len(made.votes) == 2
    frozen = freeze(disputes.workspace, disputes.collection, Choice())
    rows = [json.loads(line) for line in (frozen.artifact.path / "rows.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["meta"]["item"] == first.id]
    assert tuple(row["ranks"]) == ranks and row["judge"] == client.person.judge
    page = client.get(f"/c/{disputes.collection}/disputed?decided=1").text
    assert list(sections(page)) == [first.id] and "which year" in page and "Decide again" in page


def test_who_is_asked_again_comes_back_when_they_still_disagree(disputes):
    client, first = manager(disputes), items(disputes)[0]
    path = f"/c/{disputes.collection}/disputed"
    assert decide(client, first, "requeue", more="1").headers["location"] == f"{path}?done=asked-again"
    assert items(disputes)[0].overlap == 3 and first.id not in client.get(path).text
    assert "1 more vote is on the way" in words(client.get(f"{path}?decided=1").text)
    judge(disputes, "Cid", (-1, 0, 1))
    found = sections(client.get(path).text)
    assert first.id in found and "3 votes" in found[first.id] and "Votes that came since: 1" in found[first.id]
    assert first.id not in client.get(f"{path}?decided=1").text


def test_ambiguous_leaves_an_item_out(disputes):
    client, first = manager(disputes), items(disputes)[0]
    decide(client, first, "ambiguous")
    assert freeze(disputes.workspace, disputes.collection, Choice()).left_out == {"ambiguous by adjudication": 2}
    decide(client, first, "second")
    assert "ambiguous by adjudication" not in freeze(disputes.workspace, disputes.collection, Choice()).left_out


def test_a_decision_and_its_note_happen_together_or_not_at_all(disputes, monkeypatch):
    """No answer without an entry in the log, and no votes asked for that nobody is known to have asked for."""
    client, first = manager(disputes), items(disputes)[0]
    queue.quarantine(disputes.db, items(disputes)[2].id, "skipped: no", 0.0)
    monkeypatch.setattr(audit, "_hash", lambda *_: 1 / 0)
    before = items(disputes), len(list(disputes.workspace.judgements()))
    guideline = queue.collection(disputes.db, disputes.collection)
    actions = [
        lambda: decide(client, first, "first"),
        lambda: decide(client, first, "requeue", more="2"),
        lambda: client.form(f"/c/{disputes.collection}/items/{items(disputes)[2].id}/let-back"),
        lambda: client.form(f"/c/{disputes.collection}/items/{first.id}/keep-out", **{"from": "leaks"}),
        lambda: client.form(f"/c/{disputes.collection}/status", status="closed"),
        lambda: client.form(f"/c/{disputes.collection}/guideline", text="# New"),
    ]
    for action in actions:
        assert action().status_code == 500
    assert (items(disputes), len(list(disputes.workspace.judgements()))) == before
    assert queue.collection(disputes.db, disputes.collection) == guideline


@pytest.mark.parametrize(
    "fields",
    [
        {"decision": "third"},
        {"decision": "places", "place-0": "1"},
        {"decision": "places", "place-0": "1", "place-1": "9"},
        {"decision": "requeue", "more": "0"},
        {"decision": "requeue", "more": "1e3"},
        {"decision": "requeue"},
        {"decision": "first", "cause": "because"},
        {"decision": "first", "words": "x" * 600},
        {"decision": "first", "words": "a\0b"},
    ],
)
def test_what_is_no_decision_is_refused_in_words(disputes, fields):
    client, first = manager(disputes), items(disputes)[0]
    answer = client.form(f"/c/{disputes.collection}/items/{first.id}/decide", **{"cause": "", "words": "", **fields})
    assert answer.status_code == 400 and 'role="alert"' in answer.text
    assert adjudicate.decisions(disputes.workspace, disputes.collection) == {} and items(disputes)[0] == first


def test_nothing_is_decided_about_what_nobody_judged(serve_app):
    site = serve_app(texts=PAIRS)
    answer = decide(manager(site), items(site)[0], "first")
    assert answer.status_code == 400 and "nobody has judged" in answer.text


def test_a_ranking_is_decided_by_places(serve_app):
    site = serve_app(task="ranking", texts=[("a0", "b0", "c0")], columns={"overlap": 2}, repeat_share=0.0)
    for name, order in (("Ada", "abc"), ("Bea", "cba")):
        client = site.client(site.ready(site.person(name)))
        view = client.get(f"/c/{site.collection}/next").json()
        ranks = [order.index(text[0]) + 1 for text in view["completions"]]
        client.json(f"/a/{view['assignment']}/answer", key="k", answer={"ranks": ranks, "confirmed": True})
    client, item = manager(site), items(site)[0]
    text = words(client.get(f"/c/{site.collection}/disputed").text)
    assert "A: 1, B: 2, C: 3" in text and "A: 3, B: 2, C: 1" in text
    assert decide(client, item, "first").status_code == 400, "that button is for pairs"
    decide(client, item, "places", **{"place-0": "2", "place-1": "3", "place-2": "2"})
    made = adjudicate.decisions(site.workspace, site.collection)[item.id]
    assert made.judgement is not None and made.judgement.ranks == (1, 2, 1), "without gaps"


def test_many_disputes_come_by_pages(serve_app):
    texts = [(f"left {n}", f"right {n}") for n in range(12)]
    site = serve_app(texts=texts, columns={"overlap": 2}, repeat_share=0.0)
    for name, choice in (("Ada", -1), ("Bea", 1)):
        client = site.client(site.ready(site.person(name)))
        while "assignment" in (view := client.get(f"/c/{site.collection}/next").json()):
            turned = view["completions"][0].startswith("right")
            answer = {"choice": -choice if turned else choice}
            client.json(f"/a/{view['assignment']}/answer", key="k", answer=answer)
    client, path = manager(site), f"/c/{site.collection}/disputed"
    one, two = (sections(client.get(f"{path}?page={page}").text) for page in (1, 2))
    assert len(one) == 10 and len(two) == 2 and not one.keys() & two.keys()
    assert sections(client.get(f"{path}?page=99999999999999999999999").text) == two, "there is nothing behind the last"
    assert sections(client.get(f"{path}?page=-3").text) == one
    assert "Page 2 of 2" in client.get(f"{path}?page=2").text
    assert client.get(f"{path}?page=x").status_code == 400


def test_what_takes_long_to_read_is_kept_for_a_while_but_decisions_show_at_once(disputes, monkeypatch):
    from trueup.web import site as module

    client, first = manager(disputes), items(disputes)[0]
    path = f"/c/{disputes.collection}/disputed"
    monkeypatch.setattr(module, "SLOW", 0.0)
    monkeypatch.setattr(module, "KEPT_FOR", 1e6)
    assert "To decide: 2" in client.get(path).text
    monkeypatch.setattr(module.review, "differing", lambda *_: 1 / 0)
    decide(client, first, "first")
    page = client.get(path).text
    assert "To decide: 1" in page and first.id not in page
    queue.quarantine(disputes.db, items(disputes)[1].id, "skipped", 0.0)
    assert sections(client.get(path).text) == {}, "set aside a moment ago"


def test_of_very_many_judgements_the_page_opens_from_what_quality_kept(disputes, monkeypatch):
    client, path = manager(disputes), f"/c/{disputes.collection}/disputed"
    looked = client.get(path).text
    asking.quality(disputes.workspace, disputes.collection)
    assert adjudicate.kept_differing(disputes.workspace, disputes.collection) is None, "few: the page looks for itself"
    monkeypatch.setattr(adjudicate, "MANY", 5)
    asking.quality(disputes.workspace, disputes.collection)
    disputes.clock.offset = 620
    monkeypatch.setattr(adjudicate.review, "differing", lambda *_: 1 / 0)
    page = client.get(path).text
    assert list(sections(page)) == list(sections(looked)) and "As it was 10 minutes ago" in page and ", of " not in page
    decide(client, items(disputes)[0], "first")
    assert "To decide: 1" in client.get(path).text
    assert "As it was" not in client.get(f"{path}?decided=1").text


def test_what_is_kept_is_what_people_disagree_on_most(disputes, monkeypatch):
    monkeypatch.setattr(adjudicate, "MANY", 5)
    monkeypatch.setattr(adjudicate, "MOST_KEPT", 1)
    asking.quality(disputes.workspace, disputes.collection)
    page = manager(disputes).get(f"/c/{disputes.collection}/disputed").text
    assert list(sections(page)) == [items(disputes)[0].id] and "the 1 items that people disagree on most, of 2" in page


def test_only_this_collections_decisions_count(disputes):
    other = new_collection(disputes.workspace, "other", PAIRS, columns={"overlap": 2})
    client = manager(disputes)
    decide(client, items(disputes)[0], "ambiguous")
    audit.note(disputes.db, 1.0, "", "exported", other, collection=other)
    assert adjudicate.decisions(disputes.workspace, other) == {}
    assert list(adjudicate.decisions(disputes.workspace, disputes.collection)) == [items(disputes)[0].id]


# What is set aside


def test_what_is_set_aside_says_why_and_goes_back_or_stays_out(serve_app):
    site = serve_app(texts=PAIRS[:2], columns={"overlap": 3}, quarantine_after=2, repeat_share=0.0)
    for name, reason in (("Ada", "not <i>my</i> language"), ("Bea", "cannot read this")):
        client = site.client(site.ready(site.person(name)))
        view = client.get(f"/c/{site.collection}/next").json()
        client.json(f"/a/{view['assignment']}/skip", reason=reason)
    view = client.get(f"/c/{site.collection}/next").json()
    flags = {"prompt": ["personal data"], "completions": [[], []]}
    answer = {"choice": 1, "rationale": "a phone number", "flags": flags}
    client.json(f"/a/{view['assignment']}/answer", key="k", answer=answer)
    skipped, flagged = items(site)
    boss, path = manager(site), f"/c/{site.collection}/quarantined"
    found = sections(boss.get(path).text)
    assert list(found) == [skipped.id, flagged.id]
    text = words(found[skipped.id])
    assert "not &lt;i&gt;my&lt;/i&gt; language" in text and "Bea (human:" in text and "cannot read this" in text
    text = words(found[flagged.id])
    assert "Flagged: personal data" in text and "flags of the prompt: personal data. a phone number" in text

    answer = boss.form(f"/c/{site.collection}/items/{skipped.id}/let-back")
    assert answer.headers["location"] == f"{path}?done=let-back"
    answer = boss.form(f"/c/{site.collection}/items/{flagged.id}/keep-out", **{"from": "quarantined"})
    assert answer.headers["location"] == f"{path}?done=kept-out"
    back, out = items(site)
    assert (back.state, out.state, out.reason) == ("open", "quarantined", "kept out: flagged: personal data")
    found = sections(boss.get(path).text)
    assert list(found) == [flagged.id] and "Keep it out" not in found[flagged.id]
    noted = [(entry["action"], entry["about"], entry["person"]) for entry in audit.entries(site.db)][-2:]
    boss_id = boss.person.id
    assert noted == [("cleared a quarantine", skipped.id, boss_id), ("kept out", flagged.id, boss_id)]
    assert "phone number" not in json.dumps(audit.entries(site.db))
    assert audit.verify(site.db) == []


def test_what_was_let_back_meanwhile_is_a_conflict(serve_app):
    site = serve_app(texts=PAIRS)
    client, path = manager(site), f"/c/{site.collection}/items/{items(site)[0].id}"
    assert client.form(f"{path}/let-back").status_code == 409
    assert client.form(f"{path}/keep-out", **{"from": "quarantined"}).status_code == 409
    assert client.form(f"{path}/keep-out", **{"from": "elsewhere"}).status_code == 400
    assert items(site)[0].state == "open"


def test_what_is_set_aside_comes_by_pages(serve_app):
    site = serve_app(texts=[(f"left {n}", f"right {n}") for n in range(12)])
    for item in items(site):
        queue.quarantine(site.db, item.id, "skipped: no", 0.0)
    client, path = manager(site), f"/c/{site.collection}/quarantined"
    page = client.get(path).text
    (later,) = re.findall(r"after=(\d+)", page)
    assert len(sections(page)) == 10 and len(sections(client.get(f"{path}?after={later}").text)) == 2
    assert "Nothing is set aside" in client.get(f"{path}?after=999999999999999999999999").text


# Texts that name their writer


def test_texts_that_name_their_writer_are_marked_and_can_be_kept_out(serve_app):
    site = serve_app(texts=PAIRS[:1])
    texts = ("As ChatGPT, I <u>like</u> it. chatgpt does.", "Nothing here.")
    leak = new_items(site.workspace, [texts], ["Who are you?"], why={"strategy": "random", "leaks": ["chatgpt"]})
    queue.add_items(site.db, site.collection, leak, site.clock())
    clean, named = items(site)
    client, path = manager(site), f"/c/{site.collection}/leaks"
    page = client.get(path).text
    assert list(sections(page)) == [named.id] and clean.id not in page
    assert "As <mark>ChatGPT</mark>, I &lt;u&gt;like&lt;/u&gt; it. <mark>chatgpt</mark> does." in page
    answer = client.form(f"/c/{site.collection}/items/{named.id}/keep-out", **{"from": "leaks"})
    assert answer.headers["location"] == f"{path}?done=kept-out"
    assert items(site)[1].reason == "kept out: names its writer"
    page = client.get(path).text
    assert "It is set aside" in page and "Keep it out" not in page
    assert named.id in client.get(f"/c/{site.collection}/quarantined").text


# The way there


def test_progress_counts_what_is_to_be_decided(disputes):
    queue.quarantine(disputes.db, items(disputes)[2].id, "skipped: no", 0.0)
    page = words(manager(disputes).get(f"/c/{disputes.collection}/progress").text)
    assert "What people disagree on 2 " in page and "What nobody is handed 1 " in page
    assert "Time left nothing" in page and "seconds a judgement" in page
    viewer = disputes.client(disputes.person("Vera", "viewer"))
    assert "disagree" not in viewer.get(f"/c/{disputes.collection}/progress").text


def test_sensitive_texts_are_covered_for_those_who_decide_too(serve_app):
    site = serve_app(texts=PAIRS[:1], sensitive=("left",))
    queue.quarantine(site.db, items(site)[0].id, "skipped: no", 0.0)
    assert "it may be upsetting" in manager(site).get(f"/c/{site.collection}/quarantined").text


# What a vote says, in words


def said(ranks: tuple[int, ...], **meta: Any) -> list[tuple[str, str]]:
    ratings = meta.pop("ratings", {})
    texts = tuple("abc"[: len(ranks)])
    return wording.vote(Judgement(Prompt.user("p"), texts, ranks, "human:x", "human", meta=meta, ratings=ratings))


def test_a_vote_is_told_in_the_items_own_order():
    assert said((2, 1), strength=3, order=[1, 0]) == [("", "B is much better")]
    assert said((1, 1), strength="both bad") == [("", "both bad")]
    assert said((1, 2)) == [("", "A is better")], "an old record, without a strength"
    reason = {"answer": {"rationale": "A is wrong"}}
    assert said((1, 2), order=[0, 1], **reason)[1] == ("Reason", "A is wrong")
    assert said((1, 2), order=[1, 0], **reason)[1] == ("Reason (with A and B the other way round)", "A is wrong")
    turned = said((1, 2, 3), order=[2, 0, 1], **reason)
    assert turned[0] == ("", "A: 1, B: 2, C: 3")
    assert turned[1][0] == "Reason (on their screen A was our C, B was our A, C was our B)"
    assert said((1, 1), ratings={"thumb": (1.0, None)})[1] == ("thumb", "A: up, B: unsure")
    assert said((1, 2), ratings={"tone": (7.0, 2.0)})[1] == ("tone", "A: 7, B: 2")
    assert ("Flags of B", "unsafe") in said((1, 2), flags={"prompt": [], "completions": [[], ["unsafe"]]})


@pytest.mark.parametrize(
    ("hours", "words"),
    [(0.001, "about 1 minute"), (0.5, "about 30 minutes"), (2.2, "about 2 hours"), (100, "about 4 days")],
)
def test_a_duration_is_told_as_exactly_as_it_is_known(hours, words):
    assert wording.lasting(hours) == words


# In a browser


def test_a_dispute_is_decided_by_keyboard_and_freezing_takes_it(serve, open_page):
    site = serve(texts=PAIRS[:1], columns={"overlap": 2}, repeat_share=0.0)
    for name, choice in (("Ada", -2), ("Bea", 3)):
        judge(site, name, (choice,))
    page = open_page(site, site.person("Olga", "manager"))
    page.goto(f"{site.url}/c/{site.collection}/progress")
    page.get_by_role("link", name="What people disagree on").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("What people disagree on")
    page.get_by_label("Why they disagree").focus()
    page.keyboard.type("a matter")
    page.keyboard.press("Tab")
    page.keyboard.type("short ones")
    page.keyboard.press("Enter")
    expect(page.get_by_label("In your words")).to_have_value("short ones")  # Enter in a field decides nothing
    assert adjudicate.decisions(site.workspace, site.collection) == {}
    while page.locator(":focus").inner_text() != "B is better":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Decided")
    expect(page.get_by_text("Nobody disagrees")).to_be_visible()
    (made,) = adjudicate.decisions(site.workspace, site.collection).values()
    assert made.cause == "a matter of taste: short ones"
    frozen = freeze(site.workspace, site.collection, Choice())
    (row,) = [json.loads(line) for line in (frozen.artifact.path / "rows.jsonl").read_text().splitlines()]
    assert row["ranks"] == [2, 1] and row["meta"]["adjudication"]["cause"] == made.cause


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (390, "dark"), (1280, "light")])
def test_the_pages_of_those_who_decide_fit_and_can_be_used(serve, open_page, width, scheme):
    long = "https://example.test/" + "a" * 200
    site = serve(texts=[(f"{long} 0", "right 0"), *PAIRS[1:]], columns={"overlap": 2}, repeat_share=0.0)
    texts = (f"As ChatGPT, I like it. {long}", "Nothing here. " * 40)
    leak = new_items(site.workspace, [texts], ["Who are you?"], why={"leaks": ["chatgpt"]}, role="control")
    queue.add_items(site.db, site.collection, leak, site.clock())
    for name, choices in (("Ada Lovelace", (-2, -1, 1)), ("Bea", (3, 0, 1))):
        judge(site, name, choices, rationale="It says the same thing twice.")
    queue.quarantine(site.db, items(site)[2].id, "flagged: personal data", 0.0)
    decide(manager(site), items(site)[1], "ambiguous", words="both have a point")
    page = open_page(site, site.person("Oda", "owner"), width=width, height=800, color_scheme=scheme)
    for path in ("progress", "disputed", "disputed?blind=1", "disputed?decided=1", "quarantined", "leaks"):
        page.goto(f"{site.url}/c/{site.collection}/{path}")
        for opened in page.locator("summary").all():
            opened.click()
        assert page.evaluate(FITTING) == [], path
        assert page.evaluate(USABLE) == [], path
        expect(page.locator(".case").first if path != "progress" else page.locator(".facts")).to_be_visible()
