"""Figures about a collection that are too dear to compute for a page: kept with their time and n."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from . import schema
from .artifacts import plain_json
from .database import Database


def keep(db: Database, collection: str, kind: str, value: Mapping[str, Any], n: int, now: float) -> None:
    """`n` is the number of judgements it was made from. Older figures of the kind stay in the table."""
    table = schema.figure
    row = {"collection": collection, "kind": kind, "made": now, "n": n, "value": plain_json(value, kind)}
    same = (table.c.collection == collection) & (table.c.kind == kind) & (table.c.made == now)
    with db.write() as connection:
        connection.execute(table.delete().where(same))
        connection.execute(table.insert().values(row))


def latest(db: Database, collection: str, kind: str) -> dict[str, Any] | None:
    """The newest of a kind as {value, n, made}."""
    table = schema.figure
    query = sa.select(table.c.value, table.c.n, table.c.made)
    query = query.where(table.c.collection == collection, table.c.kind == kind).order_by(table.c.made.desc())
    with db.read() as connection:
        row = connection.execute(query.limit(1)).mappings().first()
    return None if row is None else dict(row)
