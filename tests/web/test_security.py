"""What every request passes: Host, origin, size, rate, headers, secret, log. No browser is needed for these."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from sites import START_TOKEN
from starlette.testclient import TestClient

from trueup.errors import ConfigError, WorkspaceError
from trueup.store import people, queue
from trueup.web import auth, create_app, security
from trueup.web.limits import Limit, Limits, Meter, network_of
from trueup.web.security import BODY_LIMIT, SECRET_FILE, Refused, read_secret
from trueup.web.serve import Binding, Server, check_binding, prepare

ROOT = Path(__file__).resolve().parents[2]
NOBODY_KNOWS = "pW4!kkq-unguessable"


# S1: where it may be reached


def run_alone(work):
    """In a thread of its own: where a browser test ran before, this one has a running event loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _awaited(work)).result()


async def _awaited(work):
    return await work


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "labels.example.org", ""])
def test_other_hosts_are_refused_without_accounts(workspace, host):
    people.add_person(workspace.database, "no password", "owner", 0.0)
    with pytest.raises(WorkspaceError, match="refusing to serve") as error:
        check_binding(workspace, Binding(host, names=("labels.example.org",)))
    assert "set a password" in error.value.hint


@pytest.mark.parametrize("binding", [Binding(proxy="127.0.0.1"), Binding(names=("labels.example.org",))])
def test_a_proxy_or_a_public_name_is_no_less_than_another_host(workspace, binding):
    with pytest.raises(WorkspaceError, match="refusing to serve"):
        check_binding(workspace, binding)


def test_with_an_account_other_hosts_are_served_with_a_warning_and_without_a_start_token(workspace):
    people.add_person(workspace.database, "ada", "owner", 0.0, password_hash="$argon2id$...")
    warnings = check_binding(workspace, Binding("0.0.0.0", names=("labels.example.org",)))
    assert any("others can reach" in line for line in warnings) and any("in the clear" in line for line in warnings)
    server, address = prepare(workspace, Binding("127.0.0.1", names=("labels.example.org",)))
    server._socket.close()
    assert "token" not in address and "labels.example.org" in address
    with pytest.raises(ConfigError, match="every address"):
        check_binding(workspace, Binding("0.0.0.0"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.4.5"])
def test_loopback_needs_no_account_and_warns_of_nothing(workspace, host):
    assert check_binding(workspace, Binding(host)) == []


def test_the_default_is_loopback_with_a_fresh_start_token(workspace):
    first, second = (prepare(workspace, Binding()) for _ in range(2))
    for server, address in (first, second):
        server._socket.close()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/start\?token=[\w-]{43}&next=/", address)
    assert first[1].split("token=")[1] != second[1].split("token=")[1]


def test_a_taken_port_is_an_error_in_words(workspace):
    server = Server(None, Binding())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot listen"):
        Server(None, Binding(port=server.port))  # type: ignore[arg-type]
    server._socket.close()


# S2: loopback is not trusted


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::2]", "a:b:c"]
)
def test_a_wrong_host_is_refused(client, host):
    answer = client.get("/login", headers={"host": host})
    assert answer.status_code == 400 and "content-security-policy" in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8123", "LOCALHOST:1", "[::1]:8000", "[::1]"])
def test_the_own_names_are_answered_on_every_port(client, host):
    assert client.get("/login", headers={"host": host}).status_code == 200


def test_two_host_headers_are_refused(app):
    sent = []
    headers = [(b"host", b"127.0.0.1"), (b"host", b"evil.example")]
    call_asgi(app, "GET", "/login", headers, sent)
    assert sent[0]["status"] == 400


# S3: no default secrets


def test_the_secret_is_made_on_the_first_run_for_its_owner_only(tmp_path):
    old = os.umask(0)
    try:
        made = read_secret(tmp_path / SECRET_FILE)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600
    assert len(made) == 32 and read_secret(tmp_path / SECRET_FILE) == made
    assert read_secret(tmp_path / "other") != made


@pytest.mark.parametrize("content", ["", "change-me", "00" * 32, "ab" * 32, "1234", "xyz" * 30])
def test_a_secret_that_can_be_guessed_is_refused(tmp_path, content):
    path = tmp_path / SECRET_FILE
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(WorkspaceError, match="secret"):
        read_secret(path)


def test_a_secret_that_others_can_read_is_refused(tmp_path):
    read_secret(tmp_path / SECRET_FILE)
    (tmp_path / SECRET_FILE).chmod(0o640)
    with pytest.raises(WorkspaceError, match="read by others"):
        read_secret(tmp_path / SECRET_FILE)


def test_the_code_holds_no_secret():
    given = re.compile(r"""(secret|password|token|api_key)\w*\s*[:=]\s*["'][^"'{}\s]{6,}["']""", re.IGNORECASE)
    found = {
        f"{path.name}: {match.group()}"
        for path in (ROOT / "trueup" / "web").glob("*.py")
        for match in given.finditer(path.read_text())
    }
    assert found == {'security.py: SECRET_FILE = "web-secret"'}


# S6: forged requests


OWN = "http://127.0.0.1"
ORIGINS = {
    None,
    OWN,
    "null",
    "http://evil.example",
    "https://127.0.0.1",
    "http://127.0.0.1:9",
    "http://127.0.0.1.evil.example",
}
SITES = {None, "same-origin", "none", "same-site", "cross-site", "nonsense"}
FORGED = sorted(product(ORIGINS, SITES), key=repr)


@pytest.mark.parametrize(("origin", "site"), FORGED)
def test_json_needs_the_word_of_the_browser_and_our_header(seated, origin, site):
    headers = {"origin": origin, "sec-fetch-site": site, "x-trueup": "1"}
    headers = {name: value for name, value in headers.items() if value is not None}
    allowed = site in (None, "same-origin", "none") and origin in (None, "null", OWN)
    allowed = allowed and (site == "same-origin" or origin == OWN)
    answer = seated.post("/settings", json={"theme": "dark"}, headers=headers)
    assert answer.status_code == (200 if allowed else 403), answer.text
    del headers["x-trueup"]
    assert seated.post("/settings", json={"theme": "dark"}, headers=headers).status_code == 403


@pytest.mark.parametrize(("origin", "site"), FORGED)
def test_a_form_needs_its_token_and_must_not_come_from_elsewhere(seated, origin, site):
    headers = {"origin": origin, "sec-fetch-site": site}
    headers = {name: value for name, value in headers.items() if value is not None}
    allowed = site in (None, "same-origin", "none") and origin in (None, "null", OWN)
    good = {"theme": "dark", "token": seated.form_token}
    answer = seated.post("/settings", data=good, headers=headers, follow_redirects=False)
    assert answer.status_code == (303 if allowed else 403), answer.text
    for token in ("", "x", seated.form_token[:-1], "é" * 64):
        assert seated.post("/settings", data={"theme": "dark", "token": token}, headers=headers).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_may_link_here_and_not_load_us(seated, site):
    for mode, dest, status in (
        ("navigate", "document", 200),
        ("navigate", "iframe", 403),
        ("no-cors", "image", 403),
        ("no-cors", "script", 403),
        ("cors", "empty", 403),
    ):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
        assert seated.get("/account", headers=headers).status_code == status, (mode, dest)
        assert seated.get("/static/icon.svg", headers=headers).status_code == status, (mode, dest)


def test_a_token_of_another_browser_is_worth_nothing(app, site_of_app, seated):
    other = site_of_app.client(site_of_app.person("eve"))
    answer = other.post("/settings", data={"theme": "dark", "token": seated.form_token})
    assert answer.status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", ""])
def test_other_kinds_of_body_are_refused(seated, kind):
    answer = seated.post("/settings", content=b"theme=dark", headers={"content-type": kind, "origin": OWN})
    assert answer.status_code == 415


def test_every_route_checks_for_forgery_and_names_one_right(app):
    """No route can be added without both."""
    for route in app.routes:
        if isinstance(route, APIRoute):
            calls = [dependency.call for dependency in route.dependant.dependencies]
            assert calls.count(auth.check_forgery) == 1, route.path
            assert sum(call in auth.NEEDS for call in calls) == 1, route.path


def test_looking_changes_nothing(app):
    """GET is safe: what changes something is POST. The start link is the one exception, and it needs its token."""
    changing = re.compile(
        r"audit\.note|people\.(set|add|new|end|revoke|deactivate|anonymise)|queue\.(set|add|submit|skip)"
    )
    for route in app.routes:
        if isinstance(route, APIRoute) and route.methods == {"GET"} and route.path != "/start":
            assert not changing.search(inspect.getsource(route.endpoint)), route.path
        elif isinstance(route, APIRoute):
            assert route.methods in ({"POST"}, {"GET"})


# S8: headers


def test_headers_of_every_kind_of_answer(client, seated):
    answers = {
        "page": seated.get("/account"),
        "json": seated.post("/settings", json={}, headers={"x-trueup": "1", "origin": OWN}),
        "static": client.get("/static/style.css"),
        "sign-in": client.get("/", follow_redirects=False),
        "no page": client.get("/nope"),
        "no host": client.get("/", headers={"host": "x"}),
        "too large": client.post("/login", content=b"x" * (BODY_LIMIT + 1)),
        "method": client.put("/login", headers={"origin": OWN}),
    }
    for name, answer in answers.items():
        headers = dict(answer.headers)
        assert "server" not in headers and "x-powered-by" not in headers
        policy = re.sub(r"'nonce-[\w-]{22}'", "'nonce-N'", headers.pop("content-security-policy"))
        assert policy == (
            "default-src 'none'; script-src 'nonce-N'; style-src 'self'; img-src 'self'; font-src 'self'; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ), name
        assert {
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }.items() <= headers.items(), name
        assert headers.get("cache-control") == (None if name == "static" else "no-store"), name


def test_the_nonce_is_new_each_time_and_the_one_in_the_page(seated, site_of_app):
    queue.acknowledge(site_of_app.db, seated.person.id, queue.collection(site_of_app.db, "titles").guideline, 0.0)
    answers = [seated.get(f"/c/{site_of_app.collection}") for _ in range(2)]
    nonces = [re.search(r"'nonce-([\w-]+)'", each.headers["content-security-policy"]).group(1) for each in answers]
    assert nonces[0] != nonces[1]
    for answer, nonce in zip(answers, nonces, strict=True):
        assert f'nonce="{nonce}"' in answer.text


def test_https_says_to_stay_there_but_not_for_the_whole_machine(workspace):
    app = create_app(workspace, hosts=("labels.example.org", "localhost"))
    headers = {
        url: TestClient(app, base_url=url).get("/login").headers.get("strict-transport-security", "")
        for url in ("https://labels.example.org", "https://localhost", "http://labels.example.org")
    }
    assert [each.startswith("max-age=") for each in headers.values()] == [True, False, False]


def test_nothing_describes_the_api(client):
    for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
        assert client.get(path).status_code == 404


# S9: rates and sizes


def test_a_declared_and_an_undeclared_huge_body_are_refused(app, client, seated):
    assert client.post("/login", content=b"x" * (BODY_LIMIT + 1)).status_code == 413

    def chunks():
        for _ in range(BODY_LIMIT // 65536 + 2):
            yield b"x" * 65536

    headers = {"content-type": "application/json", "x-trueup": "1", "origin": OWN}
    assert seated.post("/settings", content=chunks(), headers=headers).status_code == 413
    assert client.post("/login", content=b"", headers={"content-length": "-5"}).status_code in (400, 413)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"1", b"{", b'{"a": NaN}', b'{"a": 1e999}', b"[" * 200_000, b"\xff", b'"x"']
    + [b'{"keymap": {"\\ud800": "x"}}', b'{"a": "\\udc00"}'],
)
def test_json_that_is_no_object_is_refused(seated, body):
    headers = {"content-type": "application/json", "x-trueup": "1", "origin": OWN}
    answer = seated.post("/settings", content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]


def test_a_draft_cannot_hold_what_could_not_be_sent_back(seated, site_of_app):
    path = f"/c/{site_of_app.collection}/next"
    headers = {"content-type": "application/json", "x-trueup": "1", "origin": OWN}
    body = b'{"seq": 1, "draft": {"\\ud83d": 1}}'
    draft = f"/a/{seated.get(path).json()['assignment']}/draft"
    assert seated.post(draft, content=body, headers=headers).status_code == 400
    assert seated.get(path).status_code == 200


def test_no_nul_reaches_a_database(client, seated, site_of_app, monkeypatch):
    """PostgreSQL refuses one anywhere in a text; SQLite takes it."""
    assert client.sign_in("ada\0", "some long password").status_code == 400
    monkeypatch.setattr(type(site_of_app.db), "read", None)
    for path in ("/c/%00", "/people/a%00b/anonymise", f"/c/{site_of_app.collection}/mine?before=%00"):
        assert seated.get(path).status_code == 404


def test_a_body_that_trickles_in_is_not_waited_for(app, site_of_app, monkeypatch):
    monkeypatch.setattr(security, "BODY_SECONDS", 0.05)
    sent = []

    async def receive():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message):
        sent.append(message)

    headers = {"host": "127.0.0.1", "content-type": "application/x-www-form-urlencoded", "origin": OWN}
    scope = {
        "type": "http", "method": "POST", "path": "/login", "raw_path": b"/login", "query_string": b"",
        "scheme": "http", "http_version": "1.1", "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }  # fmt: skip
    run_alone(asyncio.wait_for(app(scope, receive, send), 5))
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]


def test_a_key_of_a_window_is_short(site_of_app):
    client = site_of_app.client(None)
    client.sign_in("x" * 500_000, "some long password")
    meter = site_of_app.app.state.site.meter
    assert max(map(len, meter.known())) <= people.LONGEST_NAME


def test_passwords_cannot_be_tried_in_bursts(app, site_of_app):
    client = site_of_app.client(None)
    statuses = [client.sign_in("ada", f"wrong password {index}").status_code for index in range(10)]
    assert statuses == [403] * 8 + [429] * 2
    refused = client.sign_in("ada", "again")
    assert "wait" in refused.text
    assert client.sign_in("grace", "other name").status_code == 403


def test_one_address_cannot_try_many_names(serve_app):
    small = serve_app(Limits(sign_in_address=Limit(5, 60)))
    client = small.client(None)
    assert [client.sign_in(f"name {index}", "wrong").status_code for index in range(7)] == [403] * 5 + [429] * 2
    assert client.get(f"/start?token={START_TOKEN}").status_code == 429


def test_a_person_who_asks_too_often_waits(serve_app):
    small = serve_app(Limits(act=Limit(3, 60), look=Limit(4, 60)))
    ada, bob = (small.client(small.person(name)) for name in ("ada", "bob"))
    headers = {"x-trueup": "1", "origin": OWN}
    assert [ada.post("/settings", json={}, headers=headers).status_code for _ in range(5)] == [200] * 3 + [429] * 2
    assert bob.post("/settings", json={}, headers=headers).status_code == 200
    assert [bob.get("/account").status_code for _ in range(6)] == [200] * 4 + [429] * 2


def test_windows_end_and_are_forgotten():
    now = [0.0]
    meter = Meter(lambda: now[0], most=10)
    for _ in range(2):
        for _ in range(3):
            meter.count("look", "ada", Limit(3, 60))
        with pytest.raises(Refused):
            meter.count("look", "ada", Limit(3, 60))
        now[0] += 60
    for index in range(1000):
        meter.count("look", f"10.0.0.{index}", Limit(3, 60))
    assert len(meter.known()) <= 10
    meter.count("export", "an hour", Limit(3, 3600))
    now[0] += 60
    meter.count("act", "last", Limit(3, 60))
    assert meter.known() == {"an hour", "last"}, "an address lives no longer than its window"


def test_ever_new_addresses_do_not_make_wrong_passwords_forgotten():
    meter = Meter(lambda: 0.0, most=10)
    meter.count("sign in as", "ada", Limit(1, 60))
    for index in range(1000):
        meter.count("sign in", f"10.0.0.{index}", Limit(1, 60))
    with pytest.raises(Refused):
        meter.count("sign in as", "ada", Limit(1, 60))


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_ipv6_address_counts_with_its_network(address, counted):
    assert network_of(address) == counted


def test_a_change_of_the_ipv6_address_is_no_new_start(serve_app):
    small = serve_app(Limits(sign_in_address=Limit(3, 60)))

    def start_from(address):
        client = TestClient(small.app, base_url="http://127.0.0.1", client=(address, 5))
        return client.get("/start?token=wrong").status_code

    assert [start_from(f"2001:db8:1:2::{index}") for index in range(5)] == [403] * 3 + [429] * 2
    assert start_from("2001:db8:1:3::1") == 403, "a neighbour is somebody else"


def burst_of_sign_ins(site):
    client = site.client(None)
    return lambda: client.sign_in(f"name {secrets.token_hex(4)}", "wrong")


def burst_of_acceptances(site):
    client = site.client(None)
    client.get("/login")
    path = f"/invite/{secrets.token_urlsafe(32)}"
    return lambda: client.form(path, name="Mallory", password="a guess at a good password")


def burst_of_exports(site):
    client = site.client(site.person("boss", "manager"))
    fields = {"kind": "preferences", "rule": "raw", "format": "raw"}
    return lambda: client.form(f"/c/{site.collection}/export", **fields)


def burst_of_answers(site):
    client = site.client(site.ready(site.person("judge")))
    assignment = client.get(f"/c/{site.collection}/next").json()["assignment"]
    return lambda: client.json(f"/a/{assignment}/answer", key="one", answer={"choice": 1})


@pytest.mark.parametrize(
    ("burst", "limit", "taken"),
    [
        (burst_of_sign_ins, "sign_in_address", 403),
        (burst_of_acceptances, "sign_in_address", 400),
        (burst_of_exports, "export", 400),  # nothing to export yet
        (burst_of_answers, "act", 200),
    ],
)
def test_a_burst_reaches_its_limit_and_recovers_when_the_window_ends(serve_app, burst, limit, taken):
    site = serve_app(Limits(**{limit: Limit(3, 60)}))
    now = [1000.0]
    site.app.state.site.meter.now = lambda: now[0]
    send = burst(site)
    assert [send().status_code for _ in range(5)] == [taken] * 3 + [429] * 2
    now[0] += 59
    assert "wait 1 s" in send().text.replace("wait 2 s", "wait 1 s")
    now[0] += 1
    assert [send().status_code for _ in range(4)] == [taken] * 3 + [429]


def test_a_forwarded_address_is_believed_only_from_the_proxy():
    plain, behind = Server(None, Binding()), Server(None, Binding(proxy="10.0.0.1"))  # type: ignore[arg-type]
    assert plain._server.config.proxy_headers is False
    assert behind._server.config.proxy_headers and behind._server.config.forwarded_allow_ips == "10.0.0.1"
    for server in (plain, behind):
        server._socket.close()


@pytest.mark.parametrize(
    ("proxy", "sender", "counted"),
    [
        ("", "127.0.0.1", "127.0.0.1"),
        ("10.0.0.1", "10.0.0.1", "203.0.113.7"),  # the last one that the proxy itself did not make up
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
    ],
)
def test_a_burst_cannot_hide_behind_a_header(app, proxy, sender, counted):
    server = Server(app, Binding(proxy=proxy))
    server._socket.close()
    server._server.config.load()
    client = TestClient(server._server.config.loaded_app, base_url="http://127.0.0.1", client=(sender, 5))
    client.get("/start?token=wrong", headers={"x-forwarded-for": "198.51.100.1, 203.0.113.7"})
    assert app.state.site.meter.known() == {counted}


# What it says when something breaks


def test_a_mistake_of_ours_tells_nothing_to_anybody(app, site_of_app, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise ValueError(f"a library quotes what it choked on: {NOBODY_KNOWS}")

    monkeypatch.setattr(queue, "collections", broken)
    client = site_of_app.client(site_of_app.person("ada", "owner"))
    with caplog.at_level(logging.DEBUG):
        answer = client.get("/")
    assert answer.status_code == 500 and NOBODY_KNOWS not in answer.text
    assert "content-security-policy" in answer.headers
    assert NOBODY_KNOWS not in caplog.text
    assert "GET /: ValueError" in caplog.text


def test_the_log_holds_no_invitation(app, site_of_app, monkeypatch, caplog):
    monkeypatch.setattr(auth, "form_page", lambda *_, **__: 1 / 0)
    with caplog.at_level(logging.DEBUG):
        assert site_of_app.client(None).get(f"/invite/{NOBODY_KNOWS}").status_code == 500
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("trueup")]
    assert ours == [line for line in ours if NOBODY_KNOWS not in line] and "/invite/{token}" in ours[0]


def test_there_are_no_web_sockets(app):
    sent: list[dict] = []

    async def run() -> None:
        async def send(message):
            sent.append(message)

        await app({"type": "websocket", "path": "/", "headers": [], "query_string": b""}, None, send)

    run_alone(run())
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_no_page_loads_anything_from_elsewhere():
    """Templates, script and style name no other server."""
    remote = re.compile(r"""(?:src|href|url|import|fetch|action)\s*[=(:]?\s*["'(]*\s*(?:https?:)?//""", re.IGNORECASE)
    files = [path for path in (ROOT / "trueup" / "web").rglob("*") if path.suffix in (".html", ".js", ".css", ".svg")]
    assert len(files) > 10
    assert [path.name for path in files if remote.search(path.read_text())] == []


def test_no_template_switches_escaping_off():
    for path in (ROOT / "trueup" / "web" / "templates").glob("*.html"):
        assert not re.search(r"\|\s*safe|autoescape", path.read_text()), path.name


def test_no_inline_script_or_style():
    """The policy would stop them, and the console would not be clean."""
    inline = re.compile(r"\son\w+\s*=|\sstyle\s*=|<style|<script(?![^>]*(nonce=|application/json))", re.IGNORECASE)
    for path in (ROOT / "trueup" / "web" / "templates").glob("*.html"):
        assert not inline.search(path.read_text()), path.name


def call_asgi(app, method, path, headers, sent):
    async def run():
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": headers}
        scope |= {"query_string": b"", "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1)}
        await app(scope | {"server": ("127.0.0.1", 80), "root_path": ""}, receive, send)

    run_alone(run())


def test_the_policy_names_no_unsafe_source():
    assert not re.search(r"unsafe|\*|data:|https?:", security.content_policy("N"))
