"""`trueup label` as a process of its own: what it prints, whom it lets in, how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from sites import PASSWORD, Clock, Site, new_collection, playwright

from trueup.store import Workspace, people
from trueup.web import auth


def ctrl_c_stops() -> None:
    """As in a terminal: what a shell starts in the background ignores it, and so would all that pytest starts there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(workspace: Workspace) -> Iterator[Any]:
    """`start("--port", "0")`: the process, and what it said until the server was there."""
    running: list[subprocess.Popen[str]] = []

    def make(*options: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "trueup", "--workspace", str(workspace.path), "label", *options]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
            preexec_fn=ctrl_c_stops,
        )  # fmt: skip
        running.append(process)
        said = ""
        for line in process.stderr:  # type: ignore[union-attr]
            said += line
            if "Ctrl-C stops" in line:
                break
        return process, said

    yield make
    for process in running:
        process.kill()
        process.communicate()


def address_in(said: str) -> str:
    return re.search(r"open (http\S+)", said).group(1)  # type: ignore[union-attr]


def test_it_opens_on_loopback_and_ends_quietly(workspace, start):
    collection = new_collection(workspace, "titles")
    process, said = start("--no-browser")
    address = address_in(said)
    assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/start\?token=[\w-]{{43}}&next=/c/{collection}", address)
    with httpx.Client(follow_redirects=True) as browser:
        assert browser.get(address.partition("/start")[0] + "/").url.path == "/login"
        page = browser.get(address)
        assert page.status_code == 200 and 'id="view"' in page.text
        assert "token=" not in str(page.url)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", ""), "no request, no token and no text is logged"


def test_the_browser_is_led_by_a_file_and_not_by_its_command_line(workspace, start, tmp_path):
    seen = tmp_path / "seen"
    process, said = start(BROWSER=f"sh -c 'echo %s > {seen}' ")
    token = re.search(r"token=([\w-]+)", said).group(1)  # type: ignore[union-attr]
    while not (seen.exists() and seen.read_text().endswith("\n")):
        assert process.poll() is None
    opened = seen.read_text().strip()
    assert opened.startswith("file://") and token not in opened
    page = Path(opened.removeprefix("file://"))
    assert token in page.read_text() and page.stat().st_mode & 0o077 == 0
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert not page.exists()


def test_other_hosts_need_accounts(workspace, start):
    process, said = start("--host", "0.0.0.0", "--name", "labels.example.org", "--no-browser")
    assert process.wait(timeout=30) == 1
    assert "refusing to serve on 0.0.0.0" in said and "hint: start `trueup label` without --host" in said
    person = people.add_person(workspace.database, "ada", "owner", 0.0)
    people.set_password_hash(workspace.database, person.id, auth.hash_password(PASSWORD, "ada"))
    process, said = start("--host", "0.0.0.0", "--name", "labels.example.org", "--no-browser")
    assert "warning: others can reach this server" in said and "in the clear" in said
    address = address_in(said)
    assert "token" not in address
    local = address.replace("labels.example.org", "127.0.0.1")
    for host, status in (("labels.example.org", 303), ("127.0.0.1", 303), ("0.0.0.0", 400), ("evil.example", 400)):
        assert httpx.get(local, headers={"host": host}).status_code == status, host


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["no-such-collection"], "no collection 'no-such-collection'"),
        (["--certificate", __file__], "a certificate goes with its key"),
        (["--certificate", __file__, "--key", "/no/such/key.pem"], "there is no file /no/such/key.pem"),
        (["--host", "203.0.113.1", "--no-browser"], "refusing to serve on 203.0.113.1"),
    ],
)
def test_mistakes_are_said_in_words(workspace, start, options, message):
    process, said = start(*options)
    assert process.wait(timeout=30) == 1 and f"error: {message}" in said and "hint:" in said


def test_a_draft_survives_a_killed_server_and_a_reload(workspace, start, open_page):
    """Killed, not stopped: once with the draft on the server, once with it nowhere but in the browser."""
    expect: Any = playwright().expect
    collection = new_collection(workspace, "titles", texts=[("a", "b")])
    process, said = start("--no-browser")
    page = open_page(Site(workspace, None, address_in(said).partition("/start")[0], collection, Clock()))
    page.goto(address_in(said))
    reason, state = page.locator("#reason"), page.locator("#state")
    reason.fill("half a sen")
    expect(state).to_have_text("Draft saved")
    port = re.search(r":(\d+)/", page.url).group(1)  # type: ignore[union-attr]
    process.kill()
    process.wait()
    reason.fill("half a sentence, typed while nobody listened")
    expect(state).to_contain_text("this browser keeps it")
    for step in ("the browser's own", "the server's"):
        process, _ = start("--no-browser", "--port", port)
        page.reload()
        expect(reason).to_have_value("half a sentence, typed while nobody listened")
        if step == "the browser's own":
            page.get_by_role("radio", name="B much better").check()  # any change sends it all
            expect(state).to_have_text("Draft saved")
            page.evaluate("localStorage.clear()")
        process.kill()
        process.wait()
    page.goto("about:blank")  # or a last one would fail after the next line
    page.watched.console.clear()  # the browser itself reports the requests that nobody answered


def test_who_judged_a_demo_is_told_how_to_train_with_it(serve_app):
    from trueup.cli.label import _what_next

    site = serve_app(name="relabel")
    assert _what_next(site.workspace) == ""
    client = site.client(site.ready(site.person("ada")))
    view = client.get(f"/c/{site.collection}/next").json()
    client.json(f"/a/{view['assignment']}/answer", key="1", answer={"choice": 1})
    said = _what_next(site.workspace)
    assert said.startswith("1 judged.") and "feedback retrain relabel --votes add" in said
