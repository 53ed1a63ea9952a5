"""Many judges at once, in threads and processes, and processes that are killed: no vote too many, nothing lost."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from people_at_work import check_counts, collect, give, take

from trueup.store import Workspace, queue, schema


@pytest.fixture
def ws(shared):
    return shared


# Many at once


def judge_all(ws: Workspace, collection: str, n_judges: int, mishaps: bool = False) -> None:
    """Every judge in a thread with connections of their own, until nothing is left."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(n_judges)

    def work(person: str) -> None:
        chance = random.Random(person)
        try:
            with Workspace.open(ws.path) as own:
                barrier.wait()
                while (held := take(own, collection, person, 1.0)) is not None:
                    if mishaps and chance.random() < 0.2:
                        queue.postpone(own.database, held.id, person, 1.0)
                    else:
                        give(own, held, 1.0)
                        if mishaps and chance.random() < 0.3:
                            assert give(own, held, 1.0).again
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(f"judge{n}",)) for n in range(n_judges)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def check_all_judged(ws: Workspace, collection: str, n_items: int, overlap: int) -> None:
    votes = Counter(about["item"] for _, about in queue.current_judgements(ws.database, collection))
    assert len(votes) == n_items and set(votes.values()) == {overlap}
    with ws.database.read() as connection:
        table = schema.judgement
        query = sa.select(sa.func.count()).select_from(table).where(table.c.collection == collection)
        assert connection.scalar(query) == n_items * overlap
    check_counts(ws, collection)


def test_32_judges_give_exactly_the_votes_that_are_wanted(ws):
    collection = collect(ws, 40, overlap=3)
    judge_all(ws, collection, 32)
    check_all_judged(ws, collection, 40, 3)


def test_many_judges_who_postpone_and_send_twice(ws):
    collection = collect(ws, 20, overlap=3)
    judge_all(ws, collection, 8, mishaps=True)
    judge_all(ws, collection, 8)  # whatever all of them had put aside at the end
    check_all_judged(ws, collection, 20, 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_32_judges_on_1000_items_give_exactly_3000_judgements(ws):
    collection = collect(ws, 1000, overlap=3)
    judge_all(ws, collection, 32)
    check_all_judged(ws, collection, 1000, 3)


def test_threads_of_one_process_share_a_database(ws):
    """As in a web server: one engine, many threads, requests of the same person among them."""
    collection = collect(ws, 12, overlap=1)
    taken, failures = [], []

    def work(person: str) -> None:
        try:
            for _ in range(3):
                taken.append((person, take(ws, collection, person, 1.0).id))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(f"p{n % 4}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(taken) == 36
    assert len({person for person, _ in taken}) == len(set(taken)) == 4, "each holds one assignment, whoever asks"


# Killed at any moment

CLERK = """
import sys
sys.path[:0] = sys.argv[3:]
from people_at_work import give, take
from trueup.store import Workspace
ws, collection = Workspace.open(sys.argv[1]), sys.argv[2]
for round in range(10_000):
    for person in ("ann", "bob", "cid"):
        if (held := take(ws, collection, person, 1.0)) is not None:
            print(give(ws, held).judgement, flush=True)
"""


def acknowledged_before_a_kill(ws: Workspace, collection: str, seconds: float) -> list[str]:
    """Judge as fast as possible in another process, end it without warning, and say what it had acknowledged."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    command = [sys.executable, "-c", CLERK, str(ws.path), collection, *paths]
    clerk = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert clerk.stdout is not None
    said = [clerk.stdout.readline()]  # it has started
    time.sleep(seconds)
    clerk.kill()
    said += clerk.stdout.readlines()
    clerk.wait()
    return [line.strip() for line in said if line.endswith("\n")]


def check_kills(ws: Workspace, kills: int) -> None:
    collection, acknowledged, chance = collect(ws, 5000, overlap=3), [], random.Random(7)
    for _ in range(kills):
        acknowledged += acknowledged_before_a_kill(ws, collection, chance.uniform(0.0, 0.5))
        check_counts(ws, collection)
    stored = [judgement.id for judgement, _ in queue.current_judgements(ws.database, collection)]
    assert len(stored) == len(set(stored)) and len(acknowledged) > kills
    assert set(acknowledged) <= set(stored), "nothing that was acknowledged is lost"
    assert len(stored) <= len(acknowledged) + kills, "and nothing else is there but what a kill kept from being said"


def test_what_was_acknowledged_survives_kills(ws):
    check_kills(ws, 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_20_kills(ws):
    check_kills(ws, 20)
