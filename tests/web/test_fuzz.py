"""Whatever is sent to whichever route is taken or refused in words: no mistake of the server, nothing half-written."""

# ruff: noqa: F811  (fixtures)

from __future__ import annotations

import re
import time
from urllib.parse import quote, urlencode

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_routes import CASES, World, world  # noqa: F401

from trueup.store import people, schema
from trueup.web.security import SECRET_FILE

TEXT = st.text(max_size=60) | st.sampled_from(
    ["", "\0", "\u202e", "../..", "%00", "-1", "9" * 40, "'", "{{7*7}}", "NaN"]
)
QUERIES = ("after", "before", "next", "token", "done", "from", "at", "unknown")
FORM_FIELDS = sorted({name for case in CASES.values() for name in case.fields} | {"guideline", "status", "next", "old"})
KEYS = sorted(set(CASES) - {"POST /logout"})
EVERYTHING = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def acting(world: World) -> tuple[people.Person, dict[str, str]]:
    """Somebody who may do everything, and something to do it to; made once for all that is tried."""
    if world.nonsense is None or people.person(world.site.db, world.nonsense[0].id).role != "owner":
        owner = world.person("owner")
        world.nonsense = owner, world.objects(owner, world.site.collection, judged=False)
    return world.nonsense


def request(world: World, key: str, query: str = "", **sent):
    person, objects = acting(world)
    method, pattern = key.split()
    client = world.site.client(person)
    if CASES[key].scope:
        token = people.new_token(world.site.db, person.id, CASES[key].scope, time.time(), 60)
        sent["headers"] = {"authorization": f"Bearer {token}"}
    return client.request(method, pattern.format(**objects) + query, **sent)


def check(answer, *said) -> None:
    assert answer.status_code < 500, (*said, answer.text[:500])
    if answer.status_code >= 400 and "json" in answer.headers["content-type"]:
        assert answer.json()["error"], said


@EVERYTHING
@given(key=st.sampled_from(KEYS), query=st.lists(st.tuples(st.sampled_from(QUERIES), TEXT), max_size=4))
def test_no_query_breaks_a_route(world, key, query):
    if key.startswith("GET"):
        words = urlencode(query, errors="replace")
        check(request(world, key, f"?{words}"), key, words)


@EVERYTHING
@given(
    key=st.sampled_from([key for key in KEYS if key.startswith("POST")]),
    fields=st.lists(st.tuples(st.sampled_from(FORM_FIELDS), TEXT), max_size=6),
)
def test_no_form_breaks_a_route(world, key, fields):
    client = world.site.client(acting(world)[0])
    body = urlencode([("token", client.form_token), *fields], errors="replace")
    headers = {"origin": "null", "sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}
    answer = client.post(key.split()[1].format(**acting(world)[1]), content=body.encode(), headers=headers)
    check(answer, key, body)
    if len({name for name, _ in fields}) < len(fields):
        assert answer.status_code == 400, "what is said twice is not guessed at"


@EVERYTHING
@given(
    key=st.sampled_from([key for key in KEYS if key.startswith("POST")]),
    kind=st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", "", "a/b; charset=x"]),
    body=st.binary(max_size=200),
    headers=st.dictionaries(st.sampled_from(["accept", "cookie", "content-encoding", "range", "expect"]), st.text(
        st.characters(min_codepoint=32, max_codepoint=126), max_size=50), max_size=3),
)  # fmt: skip
def test_no_bytes_break_a_route(world, key, kind, body, headers):
    sent = {"content-type": kind, "origin": "http://127.0.0.1", "sec-fetch-site": "same-origin", "x-trueup": "1"}
    check(request(world, key, content=body, headers=sent | headers), key, kind, body, headers)


@EVERYTHING
@given(key=st.sampled_from(KEYS), wild=st.text(min_size=1, max_size=40))
def test_no_id_breaks_a_route(world, key, wild):
    method, pattern = key.split()
    path = re.sub(r"\{\w+\}", quote(wild, safe="", errors="replace"), pattern)
    client = world.site.client(acting(world)[0])
    check(client.get(path) if method == "GET" else client.json(path, **CASES[key].fields), key, path)


@pytest.mark.parametrize(
    "path",
    [
        f"/static/../{SECRET_FILE}",
        f"/static/..%2f{SECRET_FILE}",
        f"/static/%2e%2e/%2e%2e/%2e%2e/{SECRET_FILE}",
        "/static/..\\..\\security.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/../../../../../../etc/passwd",
        "/static/style.css/../../site.py",
        "/static/%5c..%5c",
        "/static/",
        "/static",
        "//evil.example/",
        "/login/../audit",
        "/./audit",
        "/audit/",
        "/AUDIT",
        "/audit;x=1",
        "/audit%20",
        "/c/..%2f..%2faudit",
        "/api/export/../../audit",
        "/%2e%2e/%2e%2e/etc/passwd",
        "*",
    ],
)
def test_no_path_leads_past_the_rights(world, path):
    """As it comes off the wire, without a client that would tidy it up; asked by nobody who is signed in."""
    sent: list[dict] = []
    raw_asgi(world.site.app, path, sent)
    assert sent[0]["status"] in (303, 307, 400, 404, 405), sent[0]["status"]
    body = b"".join(each.get("body", b"") for each in sent[1:])
    secret = world.site.app.state.site.secret.hex().encode()
    assert secret not in body and b"root:" not in body and b"def " not in body
    location = dict(sent[0]["headers"]).get(b"location", b"/").decode()
    assert location.startswith("/") and not location.startswith("//") or location.startswith("http://127.0.0.1/")


def raw_asgi(app, path, sent):
    from urllib.parse import unquote

    from test_security import run_alone

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": unquote(path), "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")], "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip
    run_alone(app(scope, receive, send))


def test_names_that_would_turn_a_page_round_are_refused_and_shown_as_what_they_are(site_of_app):
    owner = site_of_app.client(site_of_app.person("owner", "owner"))
    for name in ("Ada\u202eevoba", "\u2066x", "a\u200bb", "Ada\u00adx", "\ufeffAda", "a\nb", "\u2028", "a\u061cb"):
        token = people.new_invite(site_of_app.db, "viewer", "", time.time(), 3600)
        client = site_of_app.client(None)
        client.get(f"/invite/{token}")
        answer = client.form(f"/invite/{token}", name=name, password="correct horse battery staple")
        assert answer.status_code == 400 or answer.status_code == 303 and name.split() != [name], name
    old = site_of_app.person("before it was checked")
    with site_of_app.db.write() as connection:
        table = schema.person
        connection.execute(sa.update(table).where(table.c.id == old.id).values(name="Ada\u202e<b>evoba"))
    for path in ("/people", f"/people/{old.id}/anonymise", f"/c/{site_of_app.collection}/progress", "/audit"):
        page = owner.get(path).text
        assert "\u202e" not in page and "<b>" not in page, path
    assert "Ada" in owner.get("/people").text
