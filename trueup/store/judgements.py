"""The append-only table of what every judge said, whoever or whatever the judge is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa

from ..errors import NotFoundError
from ..records import Judgement, digest
from . import schema
from .artifacts import ID_LENGTH, plain_json
from .clock import utc_now
from .database import Database

CHUNK = 500  # a transaction: small enough that a person labelling beside a big import hardly waits
T = TypeVar("T")


def add(database: Database, judgements: Iterable[Judgement], completions: str) -> list[Judgement]:
    """Store judgements of the completion set `completions` (an id); returns them with their ids."""
    stored: list[Judgement] = []
    for chunk in _chunks(judgements):
        named = [replace(j, id=judgement_id(j, completions)) for j in chunk]
        with database.write() as connection:
            _insert_new(connection, named, completions)
        stored += named
    return stored


def judgement_id(judgement: Judgement, completions: str) -> str:
    """From its content, so adding it twice stores it once. Who asks the same judge again notes it in `meta`."""
    record = plain_json(judgement.to_json(), "judgement")
    del record["id"]
    return digest([completions, record])[:ID_LENGTH]


def with_ids(database: Database, ids: Sequence[str]) -> Iterator[Judgement]:
    """In the order asked for."""
    table = schema.judgement
    for chunk in _chunks(ids):
        with database.read() as connection:
            rows = connection.execute(sa.select(table.c.id, table.c.record).where(table.c.id.in_(chunk)))
            records = {row.id: row.record for row in rows}
        for each in chunk:
            if each not in records:
                raise NotFoundError(f"no judgement '{each}' in this workspace")
            yield Judgement.from_json(records[each])


def of_completions(database: Database, completions: str | None) -> Iterator[Judgement]:
    """All judgements, or those of one completion set, in the order they came."""
    table, last = schema.judgement, -1
    query = sa.select(table.c.position, table.c.record).order_by(table.c.position).limit(CHUNK)
    if completions is not None:
        query = query.where(table.c.completions == completions)
    while True:  # by pages, so that a slow reader never keeps a transaction open
        with database.read() as connection:
            rows = connection.execute(query.where(table.c.position > last)).all()
        if not rows:
            return
        for row in rows:
            yield Judgement.from_json(row.record)
        last = rows[-1].position


def _insert_new(connection: sa.Connection, judgements: Sequence[Judgement], completions: str) -> None:
    table = schema.judgement
    ids = [j.id for j in judgements]
    known = set(connection.scalars(sa.select(table.c.id).where(table.c.id.in_(ids))))
    position = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(table.c.position), -1))) or 0
    rows: dict[str, dict[str, Any]] = {}
    for judgement in judgements:
        if judgement.id not in known and judgement.id not in rows:
            rows[judgement.id] = _row(judgement, completions, position + 1 + len(rows))
    if rows:
        connection.execute(table.insert(), list(rows.values()))


def _row(judgement: Judgement, completions: str, position: int) -> dict[str, Any]:
    return {
        "id": judgement.id,
        "position": position,
        "completions": completions,
        "judge": judgement.judge,
        "source": judgement.source,
        "record": judgement.to_json(),
        "created": utc_now(),
    }


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
