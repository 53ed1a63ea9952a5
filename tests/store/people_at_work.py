"""A collection to judge, and the shortest way to judge it."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from trueup.records import Judgement, Prompt
from trueup.store import Workspace, queue, schema
from trueup.store.categories import categories
from trueup.store.queue import Assignment, Item, NewItem, Submitted

LEASE = 60.0


def new_items(
    ws: Workspace, n: int, *, first: int = 0, k: int = 2, tags: Sequence[Any] = (None,), **fields: Any
) -> list[NewItem]:
    """`tags`: the categories of the prompts, in turn."""
    completions = ws.put("completions", {"rows": b"some"}).id
    texts = tuple(f"answer {i}" for i in range(k))
    about = [{"category": tag} if (tag := tags[i % len(tags)]) else {} for i in range(n)]
    prompts = [Prompt.user(f"question {first + i}", **about[i]) for i in range(n)]
    return [NewItem(prompt, texts, completions, (True,) * k, **fields) for prompt in prompts]


def collect(ws: Workspace, n: int = 0, **fields: Any) -> str:
    """The id of a new collection of `n` items."""
    made = queue.create_collection(ws.database, f"c{secrets.token_hex(4)}", {"task": "pair"}, "Be fair.", 0.0)
    queue.add_items(ws.database, made.id, new_items(ws, n, **fields), 0.0)
    return made.id


def as_stored(item: Item, person: str, round: int) -> tuple[int, ...]:
    return tuple(range(len(item.texts)))


def take(ws: Workspace, collection: str, person: str, now: float = 0.0, **options: Any) -> Assignment | None:
    options = {"lease": LEASE, "order": as_stored} | options
    return queue.hand_out(ws.database, collection, person, now=now, **options)


def said(held: Assignment, choice: int = -1, **meta: Any) -> Judgement:
    ranks = tuple(range(len(held.item.texts)))
    meta = {"answer": {"choice": choice}} | meta
    return Judgement(held.item.prompt, held.item.texts, ranks, f"human:{held.person}", "human", meta=meta)


def give(ws: Workspace, held: Assignment, now: float = 1.0, key: str = "k", **meta: Any) -> Submitted:
    record = said(held, case=held.id, **meta)
    return queue.submit(ws.database, held.id, held.person, key=key, record=record, now=now)


def positions(*held: Assignment | None) -> list[int | None]:
    return [each and each.item.position for each in held]


def check_counts(ws: Workspace, collection: str) -> None:
    """What the store counts on the way, each beside the rows that it counts."""
    item, work, table = schema.item, schema.assignment, schema.collection
    with ws.database.read() as connection:
        items = connection.execute(sa.select(item).where(item.c.collection == collection)).all()
        given = connection.execute(sa.select(work).where(work.c.collection == collection)).all()
        whole = connection.execute(sa.select(table).where(table.c.id == collection)).one()
        stand = connection.execute(sa.select(schema.standing).where(schema.standing.c.collection == collection)).all()
    role = {each.id: each.role for each in items}
    counted = Counter((each.item, each.state) for each in given if each.counted)
    for each in items:
        assert (each.done, each.leased) == (counted[each.id, "done"], counted[each.id, "leased"])
        assert (each.turn is not None) == (each.state == "open" and each.done + each.leased < each.overlap)
    ordinary = [each for each in items if each.role in ("main", "calibration")]
    assert whole.size == len(ordinary)
    assert whole.wanted == sum(max(0, i.overlap - i.done) for i in ordinary if i.state != "quarantined")
    assert whole.wanted == queue.counts(ws.database, collection)["needed"]
    by_category: dict[str, list[Any]] = {each.category: [] for each in items if each.category}
    for each in ordinary:
        by_category.get(each.category, []).append(each)
    assert {each.key: (each.size, each.wanted) for each in categories(ws.database, [collection])} == {
        key: (len(mine), sum(max(0, i.overlap - i.done) for i in mine if i.state != "quarantined"))
        for key, mine in by_category.items()
    }
    judged = Counter((each.person, role[each.item]) for each in given if each.judgement and each.round == 0)
    assert {(each.person, each.role): each.done for each in stand if each.done} == dict(judged)
    turns = [each.turn for each in items if each.turn is not None]
    assert len(turns) == len(set(turns))
