"""How far a collection has come, derived from its rows, and what was said in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..records import Judgement
from . import categories, judgements, schema
from .database import Database
from .items import ORDINARY

_ABOUT = (  # what is told of the item of an answer or of a skip
    schema.item.c.role, schema.item.c.state, schema.item.c.reason, schema.item.c.split, schema.item.c.completions,
    schema.item_text.c.item, schema.item_text.c.prompt, schema.item_text.c.texts, schema.item_text.c.finished,
    schema.item_text.c.models, schema.item_text.c.key, schema.item_text.c.why,
)  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """Where a person is: `done` by role, `today` since a given moment, `left` at most for them to do.

    Read from counts that are kept, so it is cheap enough for every request. `refused` are the keys of categories that
    they chose not to be given, and `withheld` says whether any of it waits for a vote.
    """

    done: Mapping[str, int]
    today: int
    left: int
    refused: frozenset[str] = frozenset()
    withheld: bool = False


def standing(db: Database, collection: str, person: str, since: float) -> Standing:
    mine, whole, work = schema.standing, schema.collection, schema.assignment
    roles = sa.select(mine.c.role, mine.c.done).where(mine.c.collection == collection, mine.c.person == person)
    recent = (work.c.collection == collection) & (work.c.person == person) & (work.c.submitted >= since)
    with db.read() as connection:
        done = {row.role: row.done for row in connection.execute(roles)}
        today = connection.execute(sa.select(sa.func.count()).select_from(work).where(recent)).scalar_one()
        total = connection.execute(sa.select(whole.c.size, whole.c.wanted).where(whole.c.id == collection)).one()
        apart = _refused(connection, collection, person)
    ordinary = sum(done.get(role, 0) for role in ORDINARY) - apart.done
    left = max(0, min(total.wanted - apart.wanted, total.size - apart.size - ordinary))
    return Standing(done, today, left, apart.keys, apart.wanted > 0)


def counts(db: Database, collection: str, now: float | None = None) -> dict[str, Any]:
    """Everything at a glance, counted from the rows. Reads all of them: for a page about a collection, not a request.

    {items: {role: {state: n}}, judgements: n that stand, needed: votes still to give (main and calibration),
    working: people with a lease (a live one, given `now`), people: {person: {done, skipped, surplus, repeats}}}
    """
    with db.read() as connection:
        by_role, needed = _count_items(connection, collection)
        people = _count_people(connection, collection)
        working = connection.execute(_leases(collection, now)).scalar_one()
    judged = sum(each["done"] + each["repeats"] for each in people.values())
    return {"items": by_role, "judgements": judged, "needed": needed, "working": working, "people": people}


def current_judgements(db: Database, collection: str) -> Iterator[tuple[Judgement, dict[str, Any]]]:
    """What stands, whole and in the order it came, each with {person, item, role, round, issued, submitted}.

    By pages, so that a slow reader never keeps a transaction open.
    """
    said, work, item, text = schema.judgement, schema.assignment, schema.item, schema.item_text
    query = sa.select(
        said.c.position, said.c.record, text.c.prompt, text.c.texts, said.c.item,
        work.c.person, item.c.role, work.c.round, work.c.issued, work.c.submitted,
    )  # fmt: skip
    query = query.join_from(said, work, (work.c.id == said.c.assignment) & (work.c.judgement == said.c.id))
    query = query.join(item, item.c.id == said.c.item).join(text, text.c.item == said.c.item)
    for row in judgements.pages(db, query, said.c.collection == collection):
        about = ("person", "item", "role", "round", "issued", "submitted")
        yield judgements.whole(row), {name: row._mapping[name] for name in about}


def every_judgement(db: Database, collection: str) -> Iterator[tuple[Judgement, dict[str, Any]]]:
    """All that was ever said, revised and withdrawn answers too, whole and in the order it came.

    Each with {supersedes, superseded_by, stands, submitted} and what `_ABOUT` names of its item.
    """
    said, work = schema.judgement, schema.assignment
    revised = sa.select(said.c.supersedes, said.c.id).where(said.c.collection == collection, said.c.supersedes != "")
    with db.read() as connection:
        later = {row.supersedes: row.id for row in connection.execute(revised)}
    query = sa.select(
        said.c.position, said.c.id, said.c.record, said.c.supersedes, said.c.created, work.c.judgement,
        work.c.round, *_ABOUT,
    )  # fmt: skip
    query = query.join_from(said, work, work.c.id == said.c.assignment)
    query = query.join(schema.item, schema.item.c.id == said.c.item)
    query = query.join(schema.item_text, schema.item_text.c.item == said.c.item)
    for row in judgements.pages(db, query, said.c.collection == collection):
        about = {column.name: row._mapping[column.name] for column in _ABOUT} | {"round": row.round}
        times = {"supersedes": row.supersedes, "superseded_by": later.get(row.id), "submitted": row.created}
        yield judgements.whole(row), about | times | {"stands": row.judgement == row.id}


def every_skip(db: Database, collection: str) -> Iterator[dict[str, Any]]:
    """Every item that somebody gave up, by person: {judge, skipped_because, order, helped, guideline, issued, expires,
    round} and what `_ABOUT` names of the item. By pages, as above."""
    work, who = schema.assignment, schema.person
    query: sa.Select[Any] = sa.select(
        work.c.id.label("assignment"), work.c.person, who.c.judge, work.c.reason.label("skipped_because"),
        work.c.shown.label("order"), work.c.helped, work.c.guideline, work.c.issued, work.c.expires, work.c.round,
        *_ABOUT,
    )  # fmt: skip
    query = query.join_from(work, who, who.c.id == work.c.person, isouter=True)
    query = query.join(schema.item, schema.item.c.id == work.c.item)
    query = query.join(schema.item_text, schema.item_text.c.item == work.c.item)
    query = query.where(work.c.collection == collection, work.c.state == sa.literal_column("'skipped'"))
    query = query.order_by(work.c.person, work.c.id).limit(judgements.CHUNK)
    last = ("", "")
    while True:
        behind = sa.tuple_(work.c.person, work.c.id) > sa.tuple_(*map(sa.literal, last))
        with db.read() as connection:
            rows = connection.execute(query.where(behind)).all()
        yield from (dict(row._mapping) for row in rows)
        if len(rows) < judgements.CHUNK:
            return
        last = (rows[-1].person, rows[-1].assignment)


@dataclass(frozen=True)
class _Refused:
    """Ordinary work of categories that a person refuses, and how much of it they did before they did so."""

    keys: frozenset[str] = frozenset()
    size: int = 0
    wanted: int = 0
    done: int = 0


def _refused(connection: sa.Connection, collection: str, person: str) -> _Refused:
    """Nothing for almost everybody; for the others it costs a look at each answer that they gave."""
    about, work, item = schema.category, schema.assignment, schema.item
    keys = categories.refused_keys(collection, person)
    if not categories.refuses(connection, person):
        return _Refused()
    counted = sa.select(about.c.key, about.c.size, about.c.wanted).distinct()
    rows = connection.execute(counted.where(about.c.collection == collection, about.c.key.in_(keys))).all()
    mine = (work.c.collection == collection) & (work.c.person == person) & work.c.submitted.is_not(None)
    done = sa.select(sa.func.count()).select_from(work).join(item, item.c.id == work.c.item).where(mine)
    done = done.where(work.c.round == 0, item.c.role.in_(ORDINARY), item.c.category.in_(keys))
    size, wanted = sum(row.size for row in rows), sum(row.wanted for row in rows)
    return _Refused(frozenset(row.key for row in rows), size, wanted, connection.execute(done).scalar_one())


def _count_items(connection: sa.Connection, collection: str) -> tuple[dict[str, dict[str, int]], int]:
    item = schema.item
    missing = sa.case((item.c.done < item.c.overlap, item.c.overlap - item.c.done), else_=0)
    query = sa.select(item.c.role, item.c.state, sa.func.count().label("n"), sa.func.sum(missing).label("missing"))
    by_role: dict[str, dict[str, int]] = {}
    needed = 0
    for row in connection.execute(query.where(item.c.collection == collection).group_by(item.c.role, item.c.state)):
        by_role.setdefault(row.role, {"open": 0, "full": 0, "quarantined": 0})[row.state] = row.n
        if row.role in ORDINARY and row.state != "quarantined":
            needed += int(row.missing)
    return by_role, needed


def _count_people(connection: sa.Connection, collection: str) -> dict[str, dict[str, int]]:
    """Each figure from an index that holds just the rows it counts."""
    work = schema.assignment
    judged = work.c.submitted.is_not(None)
    uncounted = work.c.counted == sa.literal_column("0")
    people: dict[str, dict[str, int]] = {}
    figures = {
        "done": judged,
        "skipped": work.c.state == sa.literal_column("'skipped'"),
        "surplus": uncounted & judged & (work.c.round == 0),
        "repeats": uncounted & judged & (work.c.round > 0),
    }
    for name, which in figures.items():
        query = sa.select(work.c.person, sa.func.count().label("n")).where(work.c.collection == collection, which)
        for row in connection.execute(query.group_by(work.c.person).order_by(work.c.person)):
            people.setdefault(row.person, dict.fromkeys(figures, 0))[name] = row.n
    for each in people.values():
        each["done"] -= each["repeats"]
    return people


def _leases(collection: str, now: float | None) -> sa.Select[Any]:
    work = schema.assignment
    query: sa.Select[Any] = sa.select(sa.func.count(sa.distinct(work.c.person))).where(
        work.c.collection == collection, work.c.state == sa.literal_column("'leased'")
    )
    return query if now is None else query.where(work.c.expires > now)
