"""Nothing that was acknowledged is lost: the server is killed again and again while people answer, and PostgreSQL too.

Each judge keeps the key of an answer until the server said it has it, as the page's script does, and sends it again to
the next server. Then every acknowledged judgement must be there, none twice, and no item may have too many.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from people_at_work import check_counts

from trueup.config import CollectionConfig
from trueup.records import Prompt
from trueup.store import Workspace, people, queue

SERVER = Path(__file__).parents[1] / "fixtures" / "label_server.py"
OVERLAP, JUDGES = 3, 6


class Killable:
    """A process of the web server; `port` is that of the one that lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, SERVER, self.folder], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port, self.name = self.process.stdout.readline().split()
        self.port = int(port)

    def kill(self) -> None:
        self.process.kill()  # SIGKILL: it can clean up nothing
        self.process.wait()

    def replace(self) -> None:
        self.kill()
        self.start()


class Judge(threading.Thread):
    """Answers until told to stop, and notes what the server acknowledged."""

    def __init__(self, server: Killable, session: str, collection: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.server, self.session, self.collection = server, session, collection
        self.random, self.stop = random.Random(seed), threading.Event()
        self.acknowledged: list[str] = []
        self.repeated = 0  # answers that a server had stored and could not acknowledge any more
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.judge()
        except BaseException as error:
            self.error = error

    def judge(self) -> None:
        view = self.insist("GET", f"/c/{self.collection}/next")
        while view and "assignment" in view and not self.stop.is_set():
            answer = {"choice": self.random.choice((-3, -1, 1, 2)), "active_ms": 5}
            body = {"key": secrets.token_hex(16), "answer": answer}
            reply = self.insist("POST", f"/a/{view['assignment']}/answer", body)
            self.acknowledged.append(reply["receipt"]["judgement"])
            self.repeated += reply["receipt"]["again"]
            view = reply["next"]

    def insist(self, method: str, path: str, body: Any = None) -> Any:
        """The same request until some server answers it."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                status, raw = self.request(method, path, body)
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
                continue
            if status == 503:  # the database is away: told in words, and worth another try
                assert json.loads(raw)["error"], raw
                time.sleep(0.05)
                continue
            assert status == 200, (status, raw)
            return json.loads(raw)
        raise AssertionError("no server for a minute")

    def request(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        port = self.server.port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        headers = {
            "Origin": f"http://127.0.0.1:{port}",
            "Sec-Fetch-Site": "same-origin",
            "X-Trueup": "1",
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Cookie": f"trueup-{self.server.name}={self.session}",
        }
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


def label_through_kills(ws: Workspace, items: int, kills: Callable[[Killable], Sequence[Callable[[], None]]]) -> str:
    """`kills(server)`: what is done to the server or its database, one after the other at random moments under load.

    Returns what came of it, in words and numbers.
    """
    collection, sessions = put_before_judges(ws, items)
    server = Killable(ws.path)
    judges = [Judge(server, session, collection, i) for i, session in enumerate(sessions)]
    for judge in judges:
        judge.start()
    blows, chance, began = kills(server), random.Random(items), time.monotonic()
    try:
        for blow in blows:
            wait_for_answers(judges, 5)  # under load, not while starting
            time.sleep(chance.uniform(0.0, 0.3))
            blow()
        wait_for_answers(judges, 5)
        for judge in judges:
            judge.stop.set()
        for judge in judges:
            judge.join(90)
    finally:
        server.kill()
    assert [judge.error for judge in judges if judge.error] == [] and not any(judge.is_alive() for judge in judges)
    acknowledged = [each for judge in judges for each in judge.acknowledged]
    assert len(acknowledged) >= 5 * len(blows)
    stored = check_that_nothing_is_lost(ws, collection, acknowledged)
    return (
        f"{len(blows)} kills in {time.monotonic() - began:.0f} s: {len(acknowledged)} answers acknowledged, "
        f"{sum(judge.repeated for judge in judges)} of them at the second try, {stored} stored"
    )


def put_before_judges(ws: Workspace, items: int) -> tuple[str, list[str]]:
    """A collection of items that are wanted three times each, and the sessions of six people."""
    now = time.time()
    artifact = ws.put("completions", {"rows.jsonl": b"{}\n"}).id
    config = CollectionConfig(overlap=OVERLAP, calibration_share=0.0, repeat_share=0.0)
    made = queue.create_collection(ws.database, "killed", config.model_dump(mode="json"), "", now)
    new = (
        queue.NewItem(Prompt.user(f"prompt {i}"), (f"one {i}", f"two {i}"), artifact, (True, True), overlap=OVERLAP)
        for i in range(items)
    )
    queue.add_items(ws.database, made.id, new, now)
    persons = [people.add_person(ws.database, f"judge {i}", "annotator", now) for i in range(JUDGES)]
    return made.id, [people.new_session(ws.database, each.id, now, 3600) for each in persons]


def wait_for_answers(judges: Sequence[Judge], more: int) -> None:
    before, ends = sum(len(judge.acknowledged) for judge in judges), time.monotonic() + 90
    while sum(len(judge.acknowledged) for judge in judges) < before + more:
        assert [judge.error for judge in judges if judge.error] == []
        assert all(judge.is_alive() for judge in judges), "the work ended before the kills: give more items"
        assert time.monotonic() < ends, "no answer for a minute and a half"
        time.sleep(0.01)


def check_that_nothing_is_lost(ws: Workspace, collection: str, acknowledged: Sequence[str]) -> int:
    """Every acknowledged answer is there, none twice, nothing else beside; returns how many."""
    assert len(acknowledged) == len(set(acknowledged))
    stored = list(queue.current_judgements(ws.database, collection))
    ids = Counter(said.id for said, _ in stored)
    assert set(ids) == set(acknowledged) and set(ids.values()) == {1}, "everybody was told of their last answer too"
    assert Counter((about["item"], about["person"]) for _, about in stored).most_common(1)[0][1] == 1
    assert max(Counter(about["item"] for _, about in stored).values()) <= OVERLAP, "no lease ran out: none is surplus"
    assert queue.counts(ws.database, collection)["judgements"] == len(ids)
    check_counts(ws, collection)
    return len(ids)


@pytest.mark.timeout(180)
def test_what_was_acknowledged_survives_two_kills(ws):
    label_through_kills(ws, 400, lambda server: [server.replace] * 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_twenty_kills_on_sqlite(tmp_path):
    with Workspace.create(tmp_path / "ws") as ws:
        print(label_through_kills(ws, 2000, lambda server: [server.replace] * 20))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_twenty_kills_and_five_of_postgres_itself(durable_cluster, tmp_path):
    """The web server is killed, or PostgreSQL under it, or both at once, and each time what is dead comes back."""

    def kills(server: Killable) -> list[Callable[[], None]]:
        def both() -> None:
            server.kill()
            durable_cluster.kill()
            server.start()

        return [server.replace] * 9 + [durable_cluster.kill] * 4 + [both] + [server.replace] * 11

    with Workspace.create(tmp_path / "ws", durable_cluster.new_database()) as ws:
        print(label_through_kills(ws, 2000, kills))
