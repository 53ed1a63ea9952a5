"""A server that runs: what it does every day, and that one slow or strange client is no trouble for the others."""

from __future__ import annotations

import logging
import socket
import threading
import time

import httpx2 as httpx
import pytest
from sites import START_TOKEN

from trueup.errors import WorkspaceError
from trueup.store import people
from trueup.web import security, serve
from trueup.web.serve import Binding, prepare


def test_what_is_over_is_deleted_when_the_server_starts(workspace):
    ann = people.add_person(workspace.database, "ann", "owner", 0.0)
    people.new_token(workspace.database, ann.id, "export", 0.0, 1.0)
    server, _ = prepare(workspace, Binding())
    running = threading.Thread(target=server.run)
    running.start()
    try:
        ends = time.monotonic() + 20
        while people.tokens(workspace.database):
            assert time.monotonic() < ends, "the token of 1970 is still there"
            time.sleep(0.01)
    finally:
        while not server.started:
            time.sleep(0.01)
        server.stop()
        running.join(20)
    assert not running.is_alive()


def test_a_chore_is_done_again_and_again_even_if_it_fails_once(caplog):
    done = threading.Semaphore(0)

    def chore():
        done.release()
        raise WorkspaceError("the disk is full")

    with caplog.at_level(logging.WARNING), serve._every_day(chore, seconds=0.01):
        for _ in range(3):
            assert done.acquire(timeout=10)
    assert "the disk is full" in caplog.text
    assert not [each for each in threading.enumerate() if each.name == "every day"]


# One client is no trouble for the others


@pytest.fixture
def owner(site):
    browser = httpx.Client(base_url=site.url, follow_redirects=True, timeout=20)
    assert browser.get(f"/start?token={START_TOKEN}").status_code == 200
    yield browser
    browser.close()


def connect(site) -> socket.socket:
    host, _, port = site.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def start_of(site, cookie: str, path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: {site.url[7:]}\r\nOrigin: {site.url}\r\nSec-Fetch-Site: same-origin\r\n"
        f"X-Trueup: 1\r\nContent-Type: application/json\r\nCookie: {cookie}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_bodies_that_trickle_in_keep_nobody_waiting_and_hold_no_lock(site, owner, monkeypatch):
    monkeypatch.setattr(security, "BODY_SECONDS", 3.0)
    cookie = f"{site.cookie_name}={owner.cookies[site.cookie_name]}"
    slow = [connect(site) for _ in range(60)]  # more than there are threads
    for each in slow:
        each.sendall(start_of(site, cookie, "/settings", 100) + b"{")
    began = time.monotonic()
    headers = {"origin": site.url, "sec-fetch-site": "same-origin", "x-trueup": "1"}
    for theme in ("dark", "light"):
        assert owner.post("/settings", json={"theme": theme}, headers=headers).status_code == 200, "written meanwhile"
    assert owner.get("/account").status_code == 200
    assert time.monotonic() - began < 2.5, "nobody waited for the slow ones"
    for each in slow:
        assert each.recv(4096).startswith(b"HTTP/1.1 408 "), "and they are not waited for without end"
        each.close()


def test_who_hangs_up_in_the_middle_leaves_nothing_behind(site, owner):
    cookie = f"{site.cookie_name}={owner.cookies[site.cookie_name]}"
    before = people.people(site.db)[0].settings
    for length in (0, 1, 10):
        broken = connect(site)
        broken.sendall(start_of(site, cookie, "/settings", 16) + b'{"theme":"dark"}'[:length])
        broken.close()
    assert owner.get("/account").status_code == 200
    assert people.people(site.db)[0].settings == before


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"A: b\r\n" * 30_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: " + b"a=b; " * 10_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: b\r\n folded\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"\x00" * 1000 + b"\r\n\r\n",
    ],
    ids=lambda head: head[:40].decode("latin-1") + f" ({len(head)})",
)
def test_heads_that_no_browser_sends(site, owner, head):
    """Refused or answered as any other, and the server goes on."""
    strange = connect(site)
    try:
        strange.sendall(head)
        strange.shutdown(socket.SHUT_WR)
        said = strange.recv(65536)
    except OSError:  # it was hung up before all of it had been sent
        said = b""
    finally:
        strange.close()
    assert not said or said[:9] == b"HTTP/1.1 " and said[9:10] in b"34", said[:100]
    assert owner.get("/account").status_code == 200
