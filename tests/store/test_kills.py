"""Nothing that was acknowledged is lost: the server is killed again and again while people answer.

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
from pathlib import Path
from typing import Any

import pytest

from trueup.config import CollectionConfig
from trueup.records import Prompt
from trueup.store import people, queue

SERVER = Path(__file__).parents[1] / "fixtures" / "label_server.py"
OVERLAP, JUDGES = 3, 6


class Killable:
    """A server process; `port` is that of the one that lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, SERVER, self.folder], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port, self.name = self.process.stdout.readline().split()
        self.port = int(port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Judge(threading.Thread):
    """Answers until told to stop, and notes what the server acknowledged."""

    def __init__(self, server: Killable, session: str, collection: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.server, self.session, self.collection = server, session, collection
        self.random, self.stop = random.Random(seed), threading.Event()
        self.acknowledged: list[str] = []
        self.repeated = 0
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
            assert status in (200, 204), (status, raw)
            return json.loads(raw) if status == 200 else None
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


def label_through_kills(ws, kills: int, items: int) -> None:
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
    sessions = [people.new_session(ws.database, each.id, now, 3600) for each in persons]
    server = Killable(ws.path)
    judges = [Judge(server, session, made.id, i) for i, session in enumerate(sessions)]
    for judge in judges:
        judge.start()
    chance = random.Random(kills)
    try:
        for _ in range(kills):
            before = sum(len(judge.acknowledged) for judge in judges)
            while sum(len(judge.acknowledged) for judge in judges) < before + 5:  # under load, not while starting
                assert any(judge.is_alive() for judge in judges), "the work ended before the kills: give more items"
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.3))
            server.kill()
            server.start()
        for judge in judges:
            judge.stop.set()
        for judge in judges:
            judge.join(90)
    finally:
        server.kill()
    assert [judge.error for judge in judges if judge.error] == []
    acknowledged = [each for judge in judges for each in judge.acknowledged]
    assert len(acknowledged) == len(set(acknowledged)) >= 5 * kills
    stored = list(queue.current_judgements(ws.database, made.id))
    ids = Counter(said.id for said, _ in stored)
    assert set(acknowledged) <= set(ids) and set(ids.values()) == {1}
    assert Counter((about["item"], about["person"]) for _, about in stored).most_common(1)[0][1] == 1
    assert max(Counter(about["item"] for _, about in stored).values()) <= OVERLAP
    assert len(ids) - len(acknowledged) <= kills * JUDGES, "what was stored and not acknowledged was under way"
    assert queue.counts(ws.database, made.id)["judgements"] == len(ids)


@pytest.mark.timeout(180)
def test_what_was_acknowledged_survives_two_kills(ws):
    label_through_kills(ws, kills=2, items=400)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_twenty_kills(ws):
    label_through_kills(ws, kills=20, items=4000)
