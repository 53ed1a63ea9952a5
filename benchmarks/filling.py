"""A collection with any number of judgements in it, written in bulk: through the queue a million would take an hour.

What is written is what the queue would have written: `check` counts the rows with the store's own code.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import sqlalchemy as sa

from trueup.config import CollectionConfig
from trueup.records import Prompt
from trueup.store import Workspace, people, queue, schema
from trueup.store.clock import utc_text

OVERLAP = 3
CHUNK = 20_000
WEEK = 7 * 86_400.0


def fill(ws: Workspace, judgements: int, judges: int, free: int, progress: Any = lambda done: None) -> str:
    """A collection with about `judgements` votes of `judges` people and `free` items that nobody has seen; its id."""
    now = time.time()
    artifact = ws.put("completions", {"rows.jsonl": b'{"made": "by a benchmark"}\n'}).id
    config = CollectionConfig(overlap=OVERLAP, calibration_share=0.0, repeat_share=0.0)
    made = queue.create_collection(ws.database, f"load-{judgements}", config.model_dump(mode="json"), "", now)
    crowd = [people.add_person(ws.database, f"judge {i}", "annotator", now) for i in range(judges)]
    full, position = judgements // OVERLAP, 0
    rows = _items(made.id, artifact, full)
    while part := list(islice(rows, CHUNK // OVERLAP)):
        _write_judged(ws, made, part, crowd, position, now, full)
        position += len(part) * OVERLAP
        progress(position)
    _finish(ws, made.id, crowd, full)
    fresh = (_new(random.Random(-i - 1), artifact) for i in range(free))
    queue.add_items(ws.database, made.id, fresh, now)
    _analyse(ws)
    return made.id


def _new(rng: random.Random, artifact: str) -> queue.NewItem:
    return queue.NewItem(Prompt.user(_text(rng, 60)), _pair(rng), artifact, (True, True), overlap=OVERLAP)


def check(ws: Workspace, collection: str) -> dict[str, Any]:
    return queue.counts(ws.database, collection)


def _items(collection: str, artifact: str, count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for i in range(count):
        rng, identity = random.Random(i), f"item{i:012d}"
        narrow = {
            "id": identity, "collection": collection, "position": i, "content": f"content{i}", "completions": artifact,
            "role": "main", "split": "train", "state": "full", "reason": "", "cleared": 0.0, "priority": 0,
            "overlap": OVERLAP, "done": OVERLAP, "leased": 0, "turn": None,
        }  # fmt: skip
        wide = {
            "item": identity, "prompt": Prompt.user(_text(rng, 60)).to_json(), "texts": list(_pair(rng)),
            "finished": [True, True], "models": [], "key": None, "why": {},
        }  # fmt: skip
        yield narrow, wide


def _write_judged(
    ws: Workspace, made: queue.Collection, part: Any, crowd: Any, position: int, now: float, full: int
) -> None:
    work, said = [], []
    for narrow, _ in part:
        rng = random.Random(f"votes of {narrow['id']}")
        for person in rng.sample(crowd, OVERLAP):
            place = position + len(work)
            submitted = now - WEEK + WEEK * place / (full * OVERLAP)
            choice = rng.choice((-2, -1, 1, 2))
            order, seconds = rng.sample((0, 1), 2), rng.uniform(4, 30)
            ids = {"assignment": f"work{place:012d}", "judgement": f"said{place:012d}"}
            work.append({
                "id": ids["assignment"], "collection": made.id, "item": narrow["id"], "person": person.id, "round": 0,
                "state": "done", "counted": 1, "shown": order, "guideline": made.guideline,
                "issued": submitted - seconds, "expires": submitted + 1800, "submitted": submitted, "draft": None,
                "judgement": ids["judgement"], "reason": "",
            })  # fmt: skip
            better = order[0] if choice < 0 else order[1]
            record = {
                "id": ids["judgement"], "ranks": [1, 2] if better == 0 else [2, 1], "judge": person.judge,
                "source": "human", "split": "train",
                "meta": {
                    "answer": {"choice": choice}, "order": order, "seconds": seconds, "active_seconds": seconds,
                    "item": narrow["id"], "assignment": ids["assignment"], "collection": made.id,
                    "guideline": made.guideline, "round": 0, "role": "main", "surplus": False,
                },
            }  # fmt: skip
            said.append({
                "id": ids["judgement"], "position": place, "completions": narrow["completions"],
                "judge": person.judge, "source": "human", "record": record, "created": utc_text(submitted),
                "collection": made.id, "item": narrow["id"], "assignment": ids["assignment"], "supersedes": None,
            })  # fmt: skip
    with ws.database.write() as connection:
        connection.execute(schema.item.insert(), [narrow for narrow, _ in part])
        connection.execute(schema.item_text.insert(), [wide for _, wide in part])
        connection.execute(schema.assignment.insert(), work)
        connection.execute(schema.judgement.insert(), said)


def _finish(ws: Workspace, collection: str, crowd: Any, full: int) -> None:
    """The counts that the queue keeps beside its rows."""
    table, work = schema.collection, schema.assignment
    with ws.database.write() as connection:
        connection.execute(table.update().where(table.c.id == collection).values(turns=full, size=full, wanted=0))
        query = sa.select(work.c.person, sa.func.count().label("n")).where(work.c.collection == collection)
        done = dict(connection.execute(query.group_by(work.c.person)).tuples().all())
        rows = [
            {"collection": collection, "role": "main", "person": person.id, "passed": full - 1,
             "done": done.get(person.id, 0)}
            for person in crowd
        ]  # fmt: skip
        connection.execute(schema.standing.insert(), rows)


def _analyse(ws: Workspace) -> None:
    """PostgreSQL does this on its own after a while; a plan made for empty tables would be measured otherwise."""
    with ws.database.write() as connection:
        connection.exec_driver_sql("ANALYZE")


def _pair(rng: random.Random) -> tuple[str, str]:
    return _text(rng, 40), _text(rng, 40)


def _text(rng: random.Random, words: int) -> str:
    return " ".join(f"word{rng.randrange(5000)}" for _ in range(words))
