"""Collections: a question put to people, with its rules of hand-out and the versions of its guideline."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from ..errors import DataError, NotFoundError, WorkspaceError, nearest
from . import schema
from .artifacts import check_name, plain_json
from .clock import utc_text
from .database import Database, writing


@dataclass(frozen=True)
class Collection:
    """`guideline` is the id of the version in force; `guidelines` has their texts."""

    id: str
    name: str
    status: Literal["open", "closed"]
    config: Mapping[str, Any]
    guideline: str
    created: str


def create_collection(
    db: Database, name: str, config: Mapping[str, Any], guideline_text: str, now: float
) -> Collection:
    """An empty, open collection. Its name is like an artifact's: easy to type, never mistaken for an id."""
    check_name(name)
    table = schema.collection
    row = {"id": new_id(), "name": name, "status": "open", "config": plain_json(config, "config"), "guideline": ""}
    with db.write() as connection:
        if connection.scalar(sa.select(table.c.id).where(table.c.name == name)):
            raise WorkspaceError(f"there is a collection '{name}' already", "choose another name")
        counts = {"turns": 0, "size": 0, "wanted": 0}
        connection.execute(table.insert().values(**row, **counts, created=utc_text(now)))
        _add_guideline(connection, row["id"], guideline_text, now)
    return collection(db, row["id"])


def collections(db: Database) -> list[Collection]:
    """All of them, oldest first."""
    table = schema.collection
    with db.read() as connection:
        return [_collection(row) for row in connection.execute(sa.select(table).order_by(table.c.created, table.c.id))]


def collection(db: Database, ref: str) -> Collection:
    """By id or by name."""
    table = schema.collection
    with db.read() as connection:
        row = connection.execute(sa.select(table).where((table.c.id == ref) | (table.c.name == ref))).first()
        names = connection.scalars(sa.select(table.c.name)).all() if row is None else []
    if row is None:
        raise NotFoundError(f"no collection '{ref}'{nearest(ref, names)}", "look at `trueup feedback status`")
    return _collection(row)


def set_status(db: Database | sa.Connection, id: str, status: Literal["open", "closed"]) -> None:
    """A closed collection hands out nothing new; what is being judged may still be submitted."""
    assert status in ("open", "closed"), status
    with writing(db) as connection:
        update_collection(connection, id, status=status)


def add_guideline(db: Database | sa.Connection, collection: str, text: str, now: float) -> str:
    """A new version, in force from now on. The same text as the one in force is no new version."""
    with writing(db) as connection:
        return _add_guideline(connection, collection, text, now)


def guidelines(db: Database, collection: str) -> list[dict[str, Any]]:
    """Every version as {id, number, text, created}, oldest first."""
    table = schema.guideline
    query = sa.select(table.c.id, table.c.number, table.c.text, table.c.created)
    with db.read() as connection:
        rows = connection.execute(query.where(table.c.collection == collection).order_by(table.c.number))
        return [dict(row) for row in rows.mappings()]


def acknowledge(db: Database, person: str, guideline: str, now: float) -> None:
    """Note that a person has read this version."""
    table = schema.acknowledgement
    with db.write() as connection:
        if not connection.scalar(sa.select(schema.guideline.c.id).where(schema.guideline.c.id == guideline)):
            raise NotFoundError(f"no guideline '{guideline}'")
        if not _acknowledged(connection, person, guideline):
            connection.execute(table.insert().values(person=person, guideline=guideline, at=now))


def acknowledged(db: Database, person: str, guideline: str) -> bool:
    with db.read() as connection:
        return _acknowledged(connection, person, guideline)


# Inside the store


def new_id() -> str:
    """Random: an id that a person is shown says nothing about how many there are or which comes next."""
    return secrets.token_hex(8)


def update_collection(connection: sa.Connection, id: str, **columns: Any) -> None:
    table = schema.collection
    if connection.execute(table.update().where(table.c.id == id).values(columns)).rowcount == 0:
        raise NotFoundError(f"no collection '{id}'", "look at `trueup feedback status`")


def plain_text(value: str, what: str) -> str:
    """`value` if a database can hold it: no NUL, no half characters."""
    if "\0" in value or any("\ud800" <= each <= "\udfff" for each in value):
        raise DataError(f"{what} holds characters that cannot be stored", "remove NUL and broken characters")
    return value


def _add_guideline(connection: sa.Connection, collection: str, text: str, now: float) -> str:
    table, mine = schema.guideline, schema.guideline.c.collection == collection
    newest = connection.execute(sa.select(table).where(mine).order_by(table.c.number.desc()).limit(1)).first()
    if newest is not None and newest.text == text:
        return str(newest.id)
    identity, number = new_id(), newest.number + 1 if newest is not None else 1
    row = {"id": identity, "collection": collection, "number": number, "text": plain_text(text, "the guideline")}
    update_collection(connection, collection, guideline=identity)
    connection.execute(table.insert().values(**row, created=utc_text(now)))
    return identity


def _acknowledged(connection: sa.Connection, person: str, guideline: str) -> bool:
    table = schema.acknowledgement
    same = (table.c.person == person) & (table.c.guideline == guideline)
    return connection.scalar(sa.select(table.c.at).where(same)) is not None


def _collection(row: sa.Row[Any]) -> Collection:
    return Collection(row.id, row.name, row.status, row.config, row.guideline, row.created)
