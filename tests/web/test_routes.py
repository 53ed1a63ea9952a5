"""Every route, for every role, on one's own objects and on other people's; and what pages say to whom.

The table below is written by hand and the routes are read from the app: one that is not in the table fails.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sites import PASSWORD, Clock, Site, new_collection, new_items

from trueup.records import Message, Prompt
from trueup.runs import Run
from trueup.store import Workspace, audit, figures, people, queue
from trueup.web import create_app
from trueup.web.limits import Limit, Limits

ROLES = {"O": "owner", "M": "manager", "A": "annotator", "V": "viewer", "-": None}
MANY = Limit(1_000_000, 60)
GENEROUS = Limits(MANY, MANY, MANY, MANY, MANY, MANY)


@dataclass
class World:
    """Two collections that know nothing of each other, and somebody else in both."""

    site: Site
    other: str  # the second collection
    numbers: Iterator[int] = field(default_factory=count)
    exported: frozenset[str] = frozenset()  # items with a vote that stays: there is something to export
    nonsense: tuple[people.Person, dict[str, str]] | None = None  # who sends it, to what

    def person(self, role: str, collection: str = "") -> people.Person:
        made = self.site.person(f"{role} {next(self.numbers)}", role, "" if role == "owner" else collection)
        for each in (self.site.collection, self.other):
            queue.acknowledge(self.site.db, made.id, queue.collection(self.site.db, each).guideline, time.time())
        return made

    def assignment(self, person: people.Person, collection: str, *, judged: bool = False) -> str:
        desk = self.site.app.state.site.desk(collection)
        view = desk.next(person.id)
        if judged:
            desk.answer(person.id, view.assignment, secrets.token_hex(8), {"choice": -1})
        return view.assignment

    def invite(self, collection: str) -> str:
        before = {each["id"] for each in people.invites(self.site.db)}
        people.new_invite(self.site.db, "annotator", "", time.time(), 3600, 1, collection)
        (new,) = {each["id"] for each in people.invites(self.site.db)} - before
        return new

    def token(self, collection: str) -> str:
        """The id of a new one for programs."""
        before = {each["id"] for each in people.tokens(self.site.db)}
        people.new_token(self.site.db, self.person("owner").id, "status", time.time(), 3600, collection)
        (new,) = {each["id"] for each in people.tokens(self.site.db)} - before
        return new

    def run(self) -> str:
        """One that is over: there is nothing to stop, and nothing to go on with."""
        run = Run.start(self.site.workspace, "sft", {}, {}, seed=0)
        run.finish({})
        return run.id

    def item(self, collection: str) -> str:
        """One that nobody is handed, so that there is something to decide about it."""
        item = next(each for each in queue.items(self.site.db, collection, limit=2) if each.id not in self.exported)
        queue.quarantine(self.site.db, item.id, "skipped: unreadable", time.time())
        return item.id

    def objects(self, person: people.Person | None, collection: str, *, judged: bool) -> dict[str, str]:
        """What stands in a path: own objects for somebody of `collection`."""
        someone = self.person("annotator", collection)
        judges = person is not None and person.role != "viewer"
        return {
            "collection": collection,
            "assignment": self.assignment(person if judges and person else someone, collection, judged=judged),
            "item": self.item(collection),
            "person": someone.id,
            "invite": self.invite(collection),
            "token_id": self.token(collection),
            "tried": "nobody-has-it",
            "run": self.run(),
            "token": people.new_invite(self.site.db, "annotator", "", time.time(), 3600),
        }


@dataclass(frozen=True)
class Case:
    """Who may, and what is sent. `json`: by our script, else by a form; `scope`: by a program."""

    who: str
    fields: dict[str, Any] = field(default_factory=dict)
    json: bool = False
    scope: str = ""  # asked for by a program, whose token is for this
    judged: bool = False  # needs an assignment that was answered
    ok: tuple[int, ...] = (200, 204, 303)


ANYBODY, SIGNED, JUDGES, LEADS, LOOKS = "OMAV-", "OMAV", "OMA", "OM", "OMV"
NO_ANSWERS = {"age": "", "gender": "", "education": "", "english": "", "region": ""}
CASES = {
    "GET /": Case(SIGNED),
    "GET /c/{collection}": Case(JUDGES),
    "POST /c/{collection}/warning": Case(JUDGES),
    "GET /c/{collection}/next": Case(JUDGES),
    "POST /a/{assignment}/answer": Case(JUDGES, {"key": "k", "answer": {"choice": 1}}, json=True),
    "GET /a/{assignment}/covered": Case(JUDGES),
    "POST /a/{assignment}/draft": Case(JUDGES, {"seq": 1, "draft": {"choice": 1}}, json=True),
    "POST /a/{assignment}/renew": Case(JUDGES, json=True),
    "POST /a/{assignment}/skip": Case(JUDGES, {"reason": "not in my language"}, json=True),
    "POST /a/{assignment}/postpone": Case(JUDGES, json=True),
    "POST /a/{assignment}/revise": Case(JUDGES, json=True, judged=True),
    "POST /c/{collection}/undo": Case(JUDGES, json=True),
    "GET /c/{collection}/mine": Case(JUDGES),
    "GET /c/{collection}/guideline": Case(SIGNED),
    "POST /c/{collection}/guideline/seen": Case(JUDGES, json=True),
    "GET /c/{collection}/progress": Case(LOOKS),
    "GET /c/{collection}/quality": Case(LOOKS),
    "POST /c/{collection}/guideline": Case(LEADS, {"text": "Be fair."}),
    "POST /c/{collection}/status": Case(LEADS, {"status": "open"}),
    "GET /c/{collection}/disputed": Case(LEADS),
    "POST /c/{collection}/items/{item}/decide": Case(
        LEADS, {"decision": "requeue", "more": "1", "cause": "", "words": ""}
    ),
    "GET /c/{collection}/quarantined": Case(LEADS),
    "POST /c/{collection}/items/{item}/let-back": Case(LEADS),
    "POST /c/{collection}/items/{item}/keep-out": Case(LEADS, {"from": "leaks"}),
    "GET /c/{collection}/leaks": Case(LEADS),
    "GET /c/{collection}/export": Case(LEADS),
    "POST /c/{collection}/export": Case(LEADS, {"kind": "preferences", "rule": "raw", "format": "raw"}),
    "GET /api/export/{collection}": Case(LEADS, scope="export"),
    "GET /api/status/{collection}": Case(LOOKS, scope="status"),
    "POST /tokens": Case("O", {"scope": "export", "collection": "", "days": "1"}),
    "POST /tokens/{token_id}/revoke": Case("O"),
    "GET /people": Case(LEADS),
    "POST /invites": Case(LEADS, {"role": "viewer", "collection": "", "days": "1", "uses": "1"}),
    "POST /invites/{invite}/revoke": Case(LEADS),
    "POST /people/{person}/role": Case("O", {"role": "viewer"}),
    "POST /people/{person}/deactivate": Case("O"),
    "GET /people/{person}/anonymise": Case("O"),
    "POST /people/{person}/anonymise": Case("O"),
    # Runs belong to no collection, and everybody here but the owner to one. Others: test_watch.py
    "GET /runs": Case("O"),
    "GET /runs/beside": Case("O", ok=(400,)),
    "GET /runs/{run}": Case("O"),
    "GET /runs/{run}/now": Case("O"),
    "GET /runs/{run}/report": Case("O"),
    "POST /runs/{run}/stop": Case("O", ok=(400,)),
    "POST /runs/{run}/resume": Case("O", {"how": "go on"}, ok=(400,)),
    "GET /audit": Case("O"),
    "POST /audit/verify": Case("O"),
    "GET /start": Case(ANYBODY, ok=(403,)),  # without its token
    "GET /login": Case(ANYBODY),
    "POST /login": Case(ANYBODY, {"name": "nobody at all", "password": PASSWORD}, ok=(403,)),
    "POST /logout": Case(SIGNED),
    "GET /invite/{token}": Case(ANYBODY),
    "POST /invite/{token}": Case(ANYBODY, {"name": "<new>", "password": PASSWORD}),
    "GET /account": Case(SIGNED),
    "POST /account/password": Case(SIGNED, {"new": PASSWORD}),
    "POST /settings": Case(SIGNED, {"theme": "dark"}, json=True),
    "GET /account/demographics": Case(SIGNED),
    "POST /account/demographics": Case(SIGNED, NO_ANSWERS),
    "POST /account/demographics/forget": Case(SIGNED),
    # Models belong to no collection either; what is asked here is no prompt, and nobody has such replies.
    "GET /try": Case("O"),
    "POST /try": Case(
        "O", {"a": "", "b": "", "system": "", "prompt": "", "temperature": "0", "max_new_tokens": "8"}, ok=(400,)
    ),
    "GET /try/{tried}": Case("O", ok=(404,)),
    "POST /try/{tried}": Case("O", {"choice": "first"}, ok=(404,)),
    "POST /account/categories": Case(JUDGES, {"listed": "[]"}),
}
OBJECTS = ("{run}", "{collection}", "{assignment}", "{item}", "{person}", "{invite}", "{token_id}")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    texts = [(f"first {n}", f"second {n}") for n in range(400)]
    config = {"texts": texts, "columns": {"overlap": 50}, "gold_every": 0, "repeat_share": 0.0}
    with Workspace.create(tmp_path_factory.mktemp("routes") / "work") as workspace:
        one, two = (new_collection(workspace, name, **config) for name in ("one", "two"))
        clock = Clock()
        app = create_app(workspace, token="the-start-token", now=clock, limits=GENEROUS)
        made = World(Site(workspace, app, "http://127.0.0.1", one, clock), two)
        for collection in (one, two):  # something to export
            made.assignment(made.person("annotator"), collection, judged=True)
        made.exported = frozenset(judgement.meta["item"] for judgement in workspace.judgements())
        yield made


def send(world: World, person: people.Person | None, key: str, case: Case, objects: dict[str, str]) -> Any:
    method, pattern = key.split()
    client, path = world.site.client(None if case.scope else person), pattern.format(**objects)
    fields = {name: f"new {next(world.numbers)}" if value == "<new>" else value for name, value in case.fields.items()}
    if case.scope:
        token = people.new_token(world.site.db, person.id, case.scope, time.time(), 60) if person else "trueup_guessed"
        return client.get(path, headers={"authorization": f"Bearer {token}"})
    if method == "GET":
        return client.get(path)
    if case.json:
        return client.json(path, **fields)
    if person is None:
        client.get("/login")
    return client.form(path, **fields)


def turned_away(answer: Any) -> bool:
    """Not signed in: sent to the sign-in page, or told so."""
    return answer.status_code == 401 or answer.headers.get("location", "").startswith("/login?next=")


def test_the_table_holds_every_route(world):
    routes = {
        f"{method} {route.path}"
        for route in world.site.app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert routes == set(CASES), "a new route needs a line in the table"
    others = {getattr(route, "path", "") for route in world.site.app.routes if not isinstance(route, APIRoute)}
    assert others == {"/static"}


@pytest.mark.parametrize("key", CASES)
def test_each_role_gets_what_is_its_own(world, key):
    case = CASES[key]
    for letter, role in ROLES.items():
        person = world.person(role, world.site.collection) if role else None
        objects = world.objects(person, world.site.collection, judged=case.judged)
        answer = send(world, person, key, case, objects)
        if letter in case.who:
            assert answer.status_code in case.ok and not turned_away(answer), (role, answer.status_code, answer.text)
        elif role is None:
            assert turned_away(answer), answer.status_code
        else:
            assert answer.status_code in ((401,) if case.scope else (403, 404)), (role, answer.status_code)


@pytest.mark.parametrize("key", [key for key in CASES if any(each in key for each in OBJECTS)])
def test_nobody_gets_what_is_another_tenants(world, key):
    """Objects of the other collection; and of somebody else in one's own collection where they belong to a person."""
    case = CASES[key]
    for letter, role in ROLES.items():
        if role is None or letter not in case.who:
            continue
        person = world.person(role, world.site.collection)
        foreign = world.objects(None, world.other, judged=case.judged)
        if role != "owner" or "{assignment}" in key:  # an owner owns every collection, and nobody's work
            assert send(world, person, key, case, foreign).status_code == 404, role
        if "{assignment}" in key:
            neighbour = world.objects(None, world.site.collection, judged=case.judged)
            assert send(world, person, key, case, neighbour).status_code == 404, role


@pytest.mark.parametrize("key", [key for key in CASES if any(each in key for each in OBJECTS)])
@pytest.mark.parametrize("wild", ["0" * 16, "'", "%00", "..", "x" * 300, "%F0%9F%92%A9", "1 OR 1=1", "__proto__"])
def test_ids_that_nobody_has_are_not_found(world, key, wild):
    case = CASES[key]
    objects = dict.fromkeys(("run", "collection", "assignment", "item", "person", "invite", "token_id"), wild)
    answer = send(world, world.person("owner"), key, case, objects)
    # A path of dots is resolved by the client before it is sent; where it leads is again a page of ours.
    assert answer.status_code in (404, 405) or (wild == ".." and answer.status_code < 500), answer.status_code


def test_a_foreign_thing_and_no_thing_are_told_apart_by_nothing(world):
    person = world.person("annotator", world.site.collection)
    client = world.site.client(person)
    foreign, missing = client.get(f"/c/{world.other}"), client.get("/c/0000000000000000")
    clean = [re.sub(r'nonce="[^"]*"', "", each.text) for each in (foreign, missing)]
    assert clean[0] == clean[1]
    theirs = world.objects(None, world.other, judged=False)["assignment"]
    said = [client.json(f"/a/{id}/renew").text.replace(id, "") for id in (theirs, "0" * 16)]
    assert said[0] == said[1]
    assert "two" not in client.get("/").text


@pytest.mark.parametrize("key", [key for key in CASES if "{item}" in key])
def test_an_item_of_another_collection_is_not_found_under_ones_own(world, key):
    """Both belong to the owner, who would have the right; the item is still none of that collection."""
    objects = {"collection": world.site.collection, "item": world.item(world.other)}
    answer = send(world, world.person("owner"), key, CASES[key], objects)
    assert answer.status_code == 404
    states = {each.id: each.state for each in queue.items(world.site.db, world.other, limit=2)}
    assert states[objects["item"]] == "quarantined", "nothing was done to it"


def test_own_work_cannot_be_paged_into_somebody_elses(world):
    neighbour = world.person("annotator", world.site.collection)
    theirs = world.assignment(neighbour, world.site.collection, judged=True)
    client = world.site.client(world.person("annotator", world.site.collection))
    assert client.get(f"/c/{world.site.collection}/mine?before={theirs}").status_code == 404


# What reaches the browser (U3, S12, S15)


SECRETS = ("secret-model", "gold", "qualification", '"role": "main"', "probability", "models", "calibration")


def test_a_gold_looks_like_any_other_item(site_of_app):
    """The same prompt and texts as a gold and as an ordinary item: pages and JSON differ in nothing but ids."""
    assert seen_of_an_item(site_of_app, "main") == seen_of_an_item(site_of_app, "gold")


def seen_of_an_item(site: Site, role: str) -> list[Any]:
    """All that a browser gets on the way to an item, at it and after it."""
    collection = new_collection(site.workspace, f"with-{role}", [("x", "y")], gold_every=1, repeat_share=0.0)
    key = {"ranks": [1, 2], "why": "it is so"} if role == "gold" else None
    item = new_items(site.workspace, [("left text", "right text")], ["Which?"], role=role, key=key)
    queue.add_items(site.db, collection, item, time.time())
    client = site.client(site.ready(site.person(f"judge of {role}")))
    seen = []
    while (page := client.get(f"/c/{collection}")) and "left text" not in page.text:
        view = client.get(f"/c/{collection}/next").json()
        client.json(f"/a/{view['assignment']}/answer", key="k", answer={"choice": 1})
        assert not seen and view["mine"]["done"] == 0, "two items, and the other one came first"
    view = client.get(f"/c/{collection}/next").json()
    receipt = client.json(f"/a/{view['assignment']}/answer", key="k", answer={"choice": 1}).json()["receipt"]
    mine = client.get(f"/c/{collection}/mine").text
    section = next(each.split("</section>")[0] for each in mine.split("<section") if "left text" in each)
    for text in (page.text, section):
        seen.append(neutral(text, client, collection, view, f"with-{role}"))
    return [*seen, list(page.headers), view["mine"] | {"done": 0, "left": 0}, sorted(receipt), receipt["gold_feedback"]]


def neutral(text: str, client: Any, collection: str, view: dict[str, Any], name: str) -> str:
    """Without what has to differ: ids, nonce, token, time, which of the two texts comes first."""
    for value in (collection, view["assignment"], view["guideline"]["id"], name, client.form_token, client.person.id):
        text = text.replace(value, "X")
    text = text.replace(client.person.judge, "X").replace("left text", "T").replace("right text", "T")
    text = re.sub(r'"(done|left)": ?\d+', "", text)
    return re.sub(r'nonce="[^"]*"|<time.*?</time>', "", text)


def test_no_answer_of_the_server_names_a_model_or_a_gold(site_of_app):
    collection = new_collection(site_of_app.workspace, "mixed", gold_every=2, repeat_share=0.0)
    gold = new_items(
        site_of_app.workspace, [("a", "b")], ["Which?"], role="gold", key={"ranks": [1, 2]}, why={"probability": 0.25}
    )
    queue.add_items(site_of_app.db, collection, gold, time.time())
    person = site_of_app.person("judge")
    client = site_of_app.client(person)
    client.json(f"/c/{collection}/guideline/seen")
    texts = [client.get("/").text, client.get(f"/c/{collection}").text]
    for turn in range(4):
        answer = client.get(f"/c/{collection}/next")
        texts.append(answer.text)
        if "assignment" not in answer.json():
            break
        view = answer.json()
        assert set(view) == {
            *("assignment", "kind", "question", "criteria", "axes", "ties", "both_bad", "strength", "rationale"),
            *("prompt", "completions", "covered", "skippable", "flags", "guideline", "draft", "warning", "mine"),
            *("help", "help_open", "revises", "rendered"),
        }
        texts.append(client.json(f"/a/{view['assignment']}/answer", key=str(turn), answer={"choice": 1}).text)
    texts += [client.get(f"/c/{collection}/mine").text, client.json(f"/c/{collection}/undo").text]
    assert turn == 4 - 1 and queue.counts(site_of_app.db, collection)["people"][person.id]["done"] == 4
    everything = "\n".join(texts).replace("gold_feedback", "")
    assert [each for each in SECRETS if each in everything] == []


# Pages one by one


def test_a_covered_text_leaves_the_server_only_when_it_is_asked_for(serve_app):
    site = serve_app(texts=[("a **gory** tale", "mild")], sensitive=("gory",), repeat_share=0.0)
    client = site.client(site.ready(site.person("judge")))
    view = client.get(f"/c/{site.collection}/next").json()
    path, part = f"/a/{view['assignment']}", view["covered"].index(True)
    sent = [
        client.get(f"/c/{site.collection}"),
        client.json(f"{path}/postpone"),
        client.get(f"/c/{site.collection}/next"),
    ]
    sent += [client.json(f"{path}/answer", key="k", answer={"choice": 1}), client.get(f"/c/{site.collection}/mine")]
    sent += [client.json(f"{path}/revise"), client.json(f"/c/{site.collection}/undo")]
    assert [each.status_code for each in sent] == [200] * len(sent)
    assert not any("gory" in each.text for each in sent) and "mild" in sent[0].text
    found = client.get(f"{path}/covered?part={part}").json()
    assert found == {"texts": ["a **gory** tale"], "rendered": ["<p>a <strong>gory</strong> tale</p>\n"]}
    assert client.get(f"{path}/covered").json()["texts"] == [view["prompt"][0]["content"]]
    codes = [client.get(f"{path}/covered?part={n}").status_code for n in ("3", "-1", "9" * 40, "x")]
    assert codes == [404, 404, 404, 400]
    page = client.get(f"/c/{site.collection}/mine?show={view['assignment']}").text
    assert "<strong>gory</strong>" in page and "gory" not in client.get(f"/c/{site.collection}/mine?show=other").text


def test_own_work_shows_the_whole_conversation(serve_app):
    turns = (Message("system", "Be *brief*."), Message("user", "Who won?"), Message("assistant", "Ada did."))
    prompt = Prompt((*turns, Message("user", "And second?")))
    site = serve_app(texts=[("Bea.", "Cea.")], prompts=[prompt])
    client = site.client(site.ready(site.person("judge")))
    view = client.get(f"/c/{site.collection}/next").json()
    client.json(f"/a/{view['assignment']}/answer", key="k", answer={"choice": 1})
    page = client.get(f"/c/{site.collection}/mine").text
    said = ["<h4>System</h4>", "Be <em>brief</em>.", "<h4>Person</h4>", "Who won?", "<h4>Assistant</h4>", "Ada did."]
    places = [page.index(each) for each in [*said, "And second?", "<h3>A</h3>"]]
    assert places == sorted(places)


def test_the_way_of_a_new_annotator(site_of_app):
    """Warning, guideline, work; each asked once, and again when its words change."""
    collection = new_collection(
        site_of_app.workspace, "careful", guideline="# Be *fair*\n\n<b>no html</b>", warning="Some texts are **cruel**."
    )
    client = site_of_app.client(site_of_app.person("new", collection=collection))
    assert client.get("/").headers["location"] == f"/c/{collection}"
    assert "<strong>cruel</strong>" in client.get(f"/c/{collection}").text
    assert client.form(f"/c/{collection}/warning").headers["location"] == f"/c/{collection}"
    assert client.get(f"/c/{collection}").headers["location"] == f"/c/{collection}/guideline"
    page = client.get(f"/c/{collection}/guideline").text
    assert "<em>fair</em>" in page and "&lt;b&gt;no html&lt;/b&gt;" in page and "Publish" not in page
    shown = re.search(r'name="guideline" value="(\w+)"', page).group(1)
    assert client.form(f"/c/{collection}/guideline/seen", guideline=shown).status_code == 303
    assert 'id="view"' in client.get(f"/c/{collection}").text

    manager = site_of_app.client(site_of_app.person("boss", "manager"))
    assert manager.form(f"/c/{collection}/guideline", text="# Be fairer\r\n").status_code == 303
    assert client.get(f"/c/{collection}").headers["location"] == f"/c/{collection}/guideline"
    assert client.form(f"/c/{collection}/guideline/seen", guideline=shown).status_code == 303
    assert client.get(f"/c/{collection}").status_code == 303, "the old version was read, not the new one"
    versions = manager.get(f"/c/{collection}/guideline").text
    assert "Version 2" in versions and "Version 1" in versions and "Publish" in versions
    assert [each["text"] for each in queue.guidelines(site_of_app.db, collection)][1] == "# Be fairer\n"
    assert "changed the guideline" in [entry["action"] for entry in audit.entries(site_of_app.db)]


@pytest.mark.parametrize(
    ("why", "config", "role"),
    [
        ("", {}, "main"),
        ("daily limit", {"per_day": 1}, "main"),
        ("qualification", {"qualification": 1}, "qualification"),
        ("closed", {}, "main"),
    ],
)
def test_who_has_nothing_to_judge_is_told_why(serve_app, why, config, role):
    key = {"ranks": [1, 2]} if role == "qualification" else None
    site = serve_app(texts=[("x", "y")], columns={"role": role, "key": key}, repeat_share=0.0, **config)
    client = site.client(site.ready(site.person("judge")))
    path = f"/c/{site.collection}"
    view = client.get(f"{path}/next").json()
    if why == "closed":
        queue.set_status(site.db, site.collection, "closed")
    wrong = 3 if view["completions"] == ["x", "y"] else -3
    answer = client.json(f"/a/{view['assignment']}/answer", key="k", answer={"choice": wrong}).json()
    assert (answer["next"], answer["waiting"]) == (None, why)
    assert client.get(f"{path}/next").json() == {"waiting": why}
    assert f'data-waiting="{why}"' in client.get(path).text


def test_a_guideline_has_an_end(seated, site_of_app):
    manager = site_of_app.client(site_of_app.person("boss", "manager"))
    path = f"/c/{site_of_app.collection}/guideline"
    assert manager.form(path, text="x" * 200_001).status_code == 413
    assert manager.form(path, text="a\0b").status_code == 400


def test_a_revision_is_noted_and_the_text_is_not(seated, site_of_app):
    view = seated.get(f"/c/{site_of_app.collection}/next").json()
    first = seated.json(
        f"/a/{view['assignment']}/answer", key="1", answer={"choice": -2, "rationale": "because"}
    ).json()
    assert seated.form(f"/a/{view['assignment']}/revise").headers["location"] == f"/c/{site_of_app.collection}"
    again = seated.json(f"/a/{view['assignment']}/answer", key="2", answer={"choice": 3, "rationale": "on reflection"})
    assert again.json()["receipt"]["judgement"] != first["receipt"]["judgement"]
    (entry,) = audit.entries(site_of_app.db)
    assert (entry["action"], entry["person"]) == ("revised a judgement", seated.person.id)
    assert "reflection" not in json.dumps(entry)
    page = seated.get(f"/c/{site_of_app.collection}/mine").text
    assert "B is much better" in page and "on reflection" in page and "because" not in page


def test_a_draft_and_an_answer_that_make_no_sense_are_refused_in_words(seated, site_of_app):
    view = seated.get(f"/c/{site_of_app.collection}/next").json()
    path = f"/a/{view['assignment']}"
    for body in (
        {},
        {"answer": []},
        {"answer": {"choice": 9}, "key": "k"},
        {"answer": {"choice": 1}},
        {"answer": {}, "key": 1},
    ):
        answer = seated.json(f"{path}/answer", **body)
        assert answer.status_code == 400 and answer.json()["error"] and "Traceback" not in answer.text
    assert seated.json(f"{path}/draft", seq=1).status_code == 400
    assert seated.json(f"{path}/draft", seq=5, draft={"choice": 2}).json() == {"seq": 5}
    assert seated.get(f"/c/{site_of_app.collection}/next").json()["draft"]["choice"] == 2


def test_settings_are_a_closed_list(seated):
    answer = seated.json("/settings", theme="dark", single_keys=False, keymap={"skip": "x"}, role="owner", active=1)
    assert answer.json()["settings"] == {"theme": "dark", "single_keys": False, "keymap": {"skip": "x"}}
    bad = ({"theme": "pink"}, {"theme": True}, {"single_keys": "maybe"}, {"keymap": []}, {"keymap": {"a": 1}})
    for each in (*bad, {"theme": ["dark"]}, {"keymap": {str(n): "x" for n in range(100)}}):
        assert seated.json("/settings", **each).status_code == 400, each
    assert seated.form("/settings", theme="light", single_keys="yes").headers["location"] == "/account?done=saved"
    assert 'data-theme="light"' in seated.get("/account").text


def test_progress_counts_and_names_people_only_to_those_who_lead(seated, site_of_app):
    view = seated.get(f"/c/{site_of_app.collection}/next").json()
    seated.json(f"/a/{view['assignment']}/answer", key="1", answer={"choice": 0})
    path = f"/c/{site_of_app.collection}/progress"
    manager, viewer = (site_of_app.client(site_of_app.person(role, role)) for role in ("manager", "viewer"))
    page = manager.get(path).text
    assert (
        "<dt>Judgements</dt><dd>1</dd>" in page
        and "Time left" in page
        and seated.person.judge in page
        and seated.person.name in page
    )
    page = viewer.get(path).text
    assert seated.person.judge in page and seated.person.name not in page and "Close" not in page
    assert "disputed" not in page and "quarantined" not in page, "whoever only looks is shown no way to decide"
    assert manager.form(f"/c/{site_of_app.collection}/status", status="closed").status_code == 303
    held = seated.get(f"/c/{site_of_app.collection}/next").json()["assignment"]
    answer = seated.json(f"/a/{held}/answer", key="2", answer={"choice": 0})
    assert answer.status_code == 200 and answer.json()["next"] is None, "what is held may still be submitted"
    assert "Open it again" in manager.get(path).text


def test_the_quality_page_opens_from_what_was_kept(serve_app, monkeypatch):
    from trueup.feedback import quality

    site_of_app = serve_app(columns={"overlap": 3})
    viewer = site_of_app.client(site_of_app.person("viewer", "viewer"))
    path = f"/c/{site_of_app.collection}/quality"
    assert "No figures have been computed yet" in viewer.get(path).text
    judges = [site_of_app.client(site_of_app.ready(site_of_app.person(f"somebody {n}"))) for n in range(3)]
    for turn, client in enumerate(judges):
        view = client.get(f"/c/{site_of_app.collection}/next").json()
        client.json(f"/a/{view['assignment']}/answer", key="1", answer={"choice": 1})
        if turn == 1:
            now = site_of_app.clock()
            value = quality.compute(site_of_app.workspace, site_of_app.collection)
            quality.keep(site_of_app.workspace, site_of_app.collection, value, now)
    monkeypatch.setattr(quality, "compute", lambda *_, **__: 1 / 0)
    site_of_app.clock.offset = 40 * 60 + 5
    page = viewer.get(path).text
    assert "Computed 40 minutes ago" in page and "from 2 judgements; 1 judgement came since" in page
    assert judges[0].person.judge in page and judges[0].person.name not in page
    assert figures.latest(site_of_app.db, site_of_app.collection, quality.KIND)["n"] == 2
    manager = site_of_app.client(site_of_app.person("manager", "manager"))
    assert judges[0].person.name in manager.get(path).text


def test_the_quality_page_draws_people_and_the_learning_curve(serve_app):
    from trueup.feedback import learning

    site = serve_app()
    viewer = site.client(site.person("viewer", "viewer"))
    path = f"/c/{site.collection}/quality"
    assert "trueup feedback learning" in viewer.get(path).text
    sizes = ((0.25, 100, 0.61), (0.5, 200, 0.66), (1.0, 400, 0.69))
    pairs, chance = np.full(60, 6.0), np.random.default_rng(0)
    points = [
        learning.Point(n, seed, share, chance.binomial(6, accuracy, 60).astype(float), pairs)
        for seed in (0, 1)
        for share, n, accuracy in sizes
    ]
    found = learning.learning(points)
    figures.keep(site.db, site.collection, learning.KIND, found.to_json(), 400, site.clock())
    page = viewer.get(path).text
    assert "judgements trained on" in page and found.message.split(":")[0] in page and "<svg" in page


def test_an_export_holds_pseudonyms_and_is_noted(seated, site_of_app):
    view = seated.get(f"/c/{site_of_app.collection}/next").json()
    path = f"/c/{site_of_app.collection}/export"
    manager = site_of_app.client(site_of_app.person("boss", "manager"))
    raw = {"kind": "preferences", "rule": "raw", "format": "raw"}
    empty = manager.form(path, **raw)
    assert empty.status_code == 400 and "<h1>Export" in empty.text
    seated.json(f"/a/{view['assignment']}/answer", key="1", answer={"choice": 1, "rationale": "=1+1"})
    answer = manager.form(path, **raw)
    assert answer.status_code == 200
    disposition = answer.headers["content-disposition"]
    assert re.fullmatch(r'attachment; filename="titles-\w+\.jsonl"', disposition), disposition
    (row,) = map(json.loads, answer.text.splitlines())
    assert row["judge"] == seated.person.judge and row["source"] == "human"
    assert seated.person.name not in answer.text and seated.person.id not in answer.text
    table = manager.form(path, **raw | {"format": "table"})
    assert "'=1+1" in table.text and table.headers["content-disposition"].endswith('.csv"')
    (entry, _) = audit.entries(site_of_app.db)
    assert (entry["action"], entry["person"]) == ("exported", manager.person.id)
    for name, value in (("kind", "../etc"), ("rule", "x"), ("format", "pickle")):
        assert manager.form(path, **raw | {name: value}).status_code == 400
    assert manager.form(path, **raw | {"kind": "demonstrations", "rule": "majority"}).status_code == 400


def test_votes_leave_out_nothing_that_was_said(seated, site_of_app):
    """What the other exports leave out: an answer that was revised, both-bad, and a skip."""
    view = seated.get(f"/c/{site_of_app.collection}/next").json()
    path = f"/a/{view['assignment']}"
    seated.json(f"{path}/answer", key="1", answer={"choice": 1})
    seated.json(f"{path}/revise")
    other = seated.json(f"{path}/answer", key="2", answer={"choice": "both bad"}).json()["next"]
    seated.json(f"/a/{other['assignment']}/skip", reason="not in my language")
    manager = site_of_app.client(site_of_app.person("boss", "manager"))
    form = {"kind": "votes", "rule": "raw", "format": "raw"}
    page = manager.get(f"/c/{site_of_app.collection}/export").text
    assert 'value="votes"' in page and "every skip with its reason" in page and "everything" not in page
    answer = manager.form(f"/c/{site_of_app.collection}/export", **form)
    rows = list(map(json.loads, answer.text.splitlines()))
    told = [(row["what"], (row["answer"] or {}).get("choice"), row["reason"]) for row in rows]
    assert told == [("judgement", 1, None), ("judgement", "both bad", None), ("skip", None, "not in my language")]
    assert {row["judge"] for row in rows} == {seated.person.judge}
    assert seated.person.name not in answer.text and seated.person.id not in answer.text
    for wrong in ({"format": "table"}, {"rule": "soft"}):
        refused = manager.form(f"/c/{site_of_app.collection}/export", **form | wrong)
        assert refused.status_code == 400 and 'role="alert"' in refused.text
    annotator = seated.form(f"/c/{site_of_app.collection}/export", **form)
    assert annotator.status_code == 403


def test_what_is_flagged_as_personal_stays_out_of_an_export(seated, site_of_app):
    manager = site_of_app.client(site_of_app.person("boss", "manager"))
    flags = {"prompt": ["personal data"], "completions": [[], []]}
    for turn in range(2):
        view = seated.get(f"/c/{site_of_app.collection}/next").json()
        said = {"choice": 1, "flags": flags} if turn == 0 else {"choice": 1}
        seated.json(f"/a/{view['assignment']}/answer", key="1", answer=said)
        if turn == 0:
            private = view["prompt"][0]["content"]
    answer = manager.form(f"/c/{site_of_app.collection}/export", kind="preferences", rule="raw", format="raw")
    assert answer.status_code == 200 and len(answer.text.splitlines()) == 1 and private not in answer.text


def test_a_person_bound_to_a_collection_sees_people_of_it_only(site_of_app):
    other = new_collection(site_of_app.workspace, "elsewhere")
    site_of_app.person("visible", collection=site_of_app.collection)
    site_of_app.person("invisible", collection=other)
    manager = site_of_app.client(site_of_app.person("boss", "manager", site_of_app.collection))
    page = manager.get("/people").text
    assert "visible" in page.replace("invisible", "") and "invisible" not in page and "elsewhere" not in page
    answer = manager.form("/invites", role="viewer", collection="", days="1", uses="1")
    assert answer.status_code == 200
    assert [each["collection"] for each in people.invites(site_of_app.db)] == [site_of_app.collection]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
FIELDS = sorted({name for case in CASES.values() for name in case.fields} | {"guideline", "status", "keymap", "next"})


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    key=st.sampled_from([key for key in CASES if key.startswith("POST") and key != "POST /logout"]),
    fields=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=5),
    answer=st.dictionaries(st.sampled_from(["choice", "ranks", "rationale", "flags", "active_ms", "text"]), ANYTHING),
)
def test_no_body_whatever_breaks_a_route(world, key, fields, answer):
    """Whatever is sent is taken or refused in words: no mistake of the server, and no half-written state."""
    if world.nonsense is None:
        owner = world.person("owner")
        world.nonsense = owner, world.objects(owner, world.site.collection, judged=False)
    body = {"key": "k", **fields, **({"answer": answer} if "answer" in key else {})}
    reply = send(world, world.nonsense[0], key, Case("O", body, json=True), world.nonsense[1])
    assert reply.status_code < 500, (key, body, reply.text)
    if reply.status_code >= 400:
        assert 'role="alert"' in reply.text or reply.json()["error"]


def test_a_page_that_does_not_exist_says_so_in_the_way_it_was_asked(client):
    page = client.get("/nope")
    assert page.status_code == 404 and "<h1>" in page.text
    assert client.get("/nope", headers={"x-trueup": "1"}).json()["error"]
    assert client.get("/", headers={"accept": "application/json"}).status_code == 401
