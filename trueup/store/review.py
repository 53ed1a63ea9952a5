"""What somebody who decides about items reads: which ones people differ on, what was said of one, why one was skipped.

The texts of items are long and there may be a million judgements, so whatever looks at all of a collection leaves the
texts where they are and lets the database sort out; texts are read for the few items of a page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from ..records import Judgement
from . import judgements, schema
from .database import Database
from .items import ORDINARY, Item, make_item, whole_item

SEPARATOR = ";"  # between the places of two votes: no list of numbers has one


class Differing(NamedTuple):
    """An item whose votes are not all the same, with the places that each of them gave, as JSON."""

    item: str
    places: tuple[str, ...]


def differing(db: Database, collection: str) -> list[Differing]:
    """Every ordinary item with two different votes, by id. What is shown again to the same person is no second vote.

    Takes half a second for 100,000 judgements and five for a million, on SQLite.
    """
    said, work, item = schema.judgement, schema.assignment, schema.item
    places = said.c.record["ranks"].as_string()
    query = (
        sa.select(item.c.id, sa.func.aggregate_strings(places, SEPARATOR).label("places"))
        .join_from(said, work, (work.c.id == said.c.assignment) & (work.c.judgement == said.c.id))
        .join(item, item.c.id == said.c.item)
        .where(said.c.collection == collection, work.c.round == 0)
        .where(item.c.role.in_(ORDINARY), item.c.state != "quarantined")
        .group_by(item.c.id)
        .having(sa.func.min(places) != sa.func.max(places))
        .order_by(item.c.id)
    )
    with db.read() as connection:
        rows = connection.execute(query).all()
    return [Differing(row.id, tuple(row.places.split(SEPARATOR))) for row in rows]


def open_ones(db: Database, items: Iterable[str]) -> set[str]:
    """Those of these items that still want votes."""
    table = schema.item
    found: set[str] = set()
    for chunk in judgements.chunks(items):
        with db.read() as connection:
            query = sa.select(table.c.id).where(table.c.id.in_(chunk), table.c.state == "open")
            found.update(connection.scalars(query))
    return found


def votes(db: Database, items: Sequence[str]) -> dict[str, list[Judgement]]:
    """What stands about each of these items, whole and in the order it came."""
    said, work, text = schema.judgement, schema.assignment, schema.item_text
    query: sa.Select[Any] = (
        sa.select(said.c.item, said.c.record, text.c.prompt, text.c.texts)
        .join_from(work, said, said.c.id == work.c.judgement)
        .join(text, text.c.item == work.c.item)
        .where(work.c.item.in_(items), work.c.round == 0)
        .order_by(said.c.position)
    )
    found: dict[str, list[Judgement]] = {item: [] for item in items}
    with db.read() as connection:
        for row in connection.execute(query):
            found[row.item].append(judgements.whole(row))
    return found


def items(db: Database, collection: str, ids: Sequence[str]) -> dict[str, Item]:
    """Those of these ids that are in the collection."""
    query = whole_item().where(schema.item.c.collection == collection, schema.item.c.id.in_(ids))
    with db.read() as connection:
        return {row.id: make_item(row) for row in connection.execute(query)}


def beginning_with(db: Database, collection: str, start: str) -> list[str]:
    """Ids of items of the collection that begin like this."""
    table = schema.item
    query = sa.select(table.c.id).where(table.c.collection == collection, table.c.id.startswith(start, autoescape=True))
    with db.read() as connection:
        return list(connection.scalars(query.order_by(table.c.id)))


def skips(db: Database, items: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Who skipped each of these items since its last quarantine ended, as {person, reason}."""
    work, item = schema.assignment, schema.item
    query = sa.select(work.c.item, work.c.person, work.c.reason).join(item, item.c.id == work.c.item)
    query = query.where(work.c.item.in_(items), work.c.state == "skipped", work.c.expires > item.c.cleared)
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in items}
    with db.read() as connection:
        for row in connection.execute(query.order_by(work.c.expires, work.c.id)):
            found[row.item].append({"person": row.person, "reason": row.reason})
    return found


def noted(db: Database, collection: str, note: str, after: int = -1, limit: int = 500) -> list[Item]:
    """Items in whose `why` something stands under this name, in the order they came, behind position `after`."""
    query = whole_item().where(_is_noted(collection, note), schema.item.c.position > after)
    with db.read() as connection:
        return [make_item(row) for row in connection.execute(query.order_by(schema.item.c.position).limit(limit))]


def count_noted(db: Database, collection: str, note: str) -> int:
    item, text = schema.item, schema.item_text
    query = sa.select(sa.func.count()).join_from(item, text, text.c.item == item.c.id)
    with db.read() as connection:
        return connection.execute(query.where(_is_noted(collection, note))).scalar_one()


def _is_noted(collection: str, note: str) -> sa.ColumnElement[bool]:
    return sa.and_(schema.item.c.collection == collection, schema.item_text.c.why[note].as_string().is_not(None))
