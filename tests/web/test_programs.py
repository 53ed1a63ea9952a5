"""Tokens for programs: made and revoked by owners, good for one thing, and never mixed up with a browser's session."""

from __future__ import annotations

import json
import re
import time

import pytest
from sites import new_collection

from trueup.store import audit, people
from trueup.web.limits import Limit, Limits


def ask(site, token, path, **headers):
    """As a program does: no cookie, no header of a browser."""
    return site.client(None).get(path, headers={"authorization": f"Bearer {token}"} | headers)


def made(site, owner, scope="export", collection="", days="1"):
    answer = owner.form("/tokens", scope=scope, collection=collection, days=days)
    assert answer.status_code == 200, answer.text
    return re.search(r"<code>(trueup_[\w-]{43})</code>", answer.text).group(1)


@pytest.fixture
def owner(site_of_app):
    return site_of_app.client(site_of_app.person("Olga", "owner"))


@pytest.fixture
def judged(site_of_app, seated):
    """An answer, and who gave it."""
    view = seated.get(f"/c/{site_of_app.collection}/next").json()
    seated.json(f"/a/{view['assignment']}/answer", key="1", answer={"choice": 1})
    return seated.person


def test_a_program_gets_what_its_token_is_for(site_of_app, owner, judged):
    export, status = made(site_of_app, owner), made(site_of_app, owner, "status")
    answer = ask(site_of_app, export, "/api/export/titles")
    (row,) = map(json.loads, answer.text.splitlines())
    assert answer.status_code == 200 and row["judge"] == judged.judge and judged.name not in answer.text
    answer = ask(site_of_app, status, f"/api/status/{site_of_app.collection}")
    assert answer.json()["judgements"] == 1 and answer.json()["people"][0]["judge"] == judged.judge
    assert judged.name not in answer.text and judged.id not in answer.text
    refused = ask(site_of_app, status, "/api/export/titles")
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    assert ask(site_of_app, export, "/api/status/titles").status_code == 401


def test_a_program_gets_votes_where_it_asks_for_them(site_of_app, owner, seated, judged):
    view = seated.get(f"/c/{site_of_app.collection}/next").json()
    seated.json(f"/a/{view['assignment']}/skip", reason="not in my language")
    token = made(site_of_app, owner)
    answer = ask(site_of_app, token, "/api/export/titles?format=votes")
    rows = list(map(json.loads, answer.text.splitlines()))
    assert [(row["what"], row["reason"]) for row in rows] == [("judgement", None), ("skip", "not in my language")]
    assert {row["judge"] for row in rows} == {judged.judge} and judged.id not in answer.text
    preferences = ask(site_of_app, token, "/api/export/titles?format=preferences").text
    assert preferences == ask(site_of_app, token, "/api/export/titles").text and len(preferences.splitlines()) == 1
    assert ask(site_of_app, token, "/api/export/titles?format=pickle").status_code == 400


def test_every_token_that_is_no_good_is_the_same_refusal(site_of_app, owner, judged):
    revoked = made(site_of_app, owner)
    (id,) = [each["id"] for each in people.tokens(site_of_app.db)]
    assert owner.form(f"/tokens/{id}/revoke").status_code == 303
    left = site_of_app.person("left", "owner")
    gone = people.new_token(site_of_app.db, left.id, "export", time.time(), 3600)
    people.deactivate(site_of_app.db, left.id)
    fallen = site_of_app.person("fallen", "owner")
    less = people.new_token(site_of_app.db, fallen.id, "export", time.time(), 3600)
    people.set_role(site_of_app.db, fallen.id, "viewer")
    late = made(site_of_app, owner)
    good = made(site_of_app, owner, days="30")
    site_of_app.clock.offset = 2 * 86_400
    said = set()
    for token in (revoked, gone, less, late, "trueup_" + "x" * 43, "", good + "x", good[:-1], "é"):
        for path in ("/api/export/titles", "/api/export/nothing"):
            answer = ask(site_of_app, token.encode(), path) if token == "é" else ask(site_of_app, token, path)
            said.add((answer.status_code, answer.text))
    assert len(said) == 1 and said.pop()[0] == 401
    assert ask(site_of_app, good, "/api/export/titles").status_code == 200


def test_a_foreign_and_a_missing_collection_are_the_same_to_a_program(site_of_app, owner, judged):
    other = new_collection(site_of_app.workspace, "other")
    for scope in ("export", "status"):
        token = made(site_of_app, owner, scope, site_of_app.collection)
        assert ask(site_of_app, token, f"/api/{scope}/titles").status_code == 200
        answers = [ask(site_of_app, token, f"/api/{scope}/{name}") for name in (other, "other", "0" * 16)]
        assert {(each.status_code, each.text) for each in answers} == {(404, answers[0].text)}


def test_a_session_is_no_token_and_a_token_no_session(site_of_app, owner, judged):
    assert owner.get("/api/export/titles").status_code == 401
    assert owner.get("/api/export/titles", headers={"authorization": f"Bearer {owner.cookie}"}).status_code == 401
    token = made(site_of_app, owner)
    for path in ("/people", f"/c/{site_of_app.collection}/export", "/audit"):
        assert ask(site_of_app, token, path).status_code == 401, path
    planted = site_of_app.client(None)
    planted.plant(token)
    assert planted.get("/account").status_code == 303
    assert site_of_app.client(None).get(f"/api/export/titles?token={token}").status_code == 401
    basic = {"authorization": f"Basic {token}"}
    assert site_of_app.client(None).get("/api/export/titles", headers=basic).status_code == 401


def test_a_page_of_another_site_cannot_use_one(site_of_app, owner, judged):
    token = made(site_of_app, owner)
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
    assert ask(site_of_app, token, "/api/export/titles", **headers).status_code == 403


def test_tokens_are_noted_and_shown_once(site_of_app, owner, judged):
    token = made(site_of_app, owner, collection=site_of_app.collection)
    page = owner.get("/people").text
    assert token not in page and "the judgements" in page and "Revoke" in page
    ask(site_of_app, token, "/api/export/titles")
    (listed,) = people.tokens(site_of_app.db)
    owner.form(f"/tokens/{listed['id']}/revoke")
    told = [(each["action"], each["person"], each["about"]) for each in audit.entries(site_of_app.db)]
    me = owner.person.id
    collection = site_of_app.collection
    assert told == [
        ("made a token", me, collection),
        ("exported", me, collection),
        ("revoked a token", me, listed["id"]),
    ]
    manager = site_of_app.client(site_of_app.person("boss", "manager"))
    assert "Tokens for programs" not in manager.get("/people").text
    assert people.session(site_of_app.db, token, time.time()) is None


@pytest.mark.parametrize(
    "fields", [{"scope": "everything"}, {"days": "365"}, {"days": "-1"}, {"collection": "nothing"}]
)
def test_a_token_is_from_the_lists_of_the_page(site_of_app, owner, fields):
    good = {"scope": "export", "collection": "", "days": "1"}
    assert owner.form("/tokens", **good | fields).status_code in (400, 404)
    assert people.tokens(site_of_app.db) == []


def test_a_program_that_asks_too_often_waits(serve_app):
    site = serve_app(Limits(look=Limit(2, 60), sign_in_address=Limit(4, 60), export=Limit(1, 60)))
    olga, otto = (site.person(name, "owner") for name in ("Olga", "Otto"))
    one, two = (people.new_token(site.db, each.id, "status", time.time(), 3600) for each in (olga, otto))
    answers = [ask(site, one, "/api/status/titles") for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert 0 < int(answers[-1].headers["retry-after"]) <= 3600 and "retry-after" not in answers[0].headers
    assert ask(site, two, "/api/status/titles").status_code == 200
    assert [ask(site, "guess", "/api/status/titles").status_code for _ in range(5)] == [401] * 4 + [429]
    export = people.new_token(site.db, otto.id, "export", time.time(), 3600)
    assert [ask(site, export, "/api/export/titles").status_code for _ in range(2)] == [400, 429], (
        "nothing to export yet"
    )


def test_a_token_never_sees_more_than_its_person(site_of_app):
    """Were one made for somebody who is bound to a collection, it would be bound to it too."""
    other = new_collection(site_of_app.workspace, "other")
    bound = site_of_app.person("bound", "manager", site_of_app.collection)
    token = people.new_token(site_of_app.db, bound.id, "status", time.time(), 3600)
    assert people.token(site_of_app.db, token, "status", time.time()) == bound
    assert ask(site_of_app, token, f"/api/status/{other}").status_code == 404
