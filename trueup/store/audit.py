"""The audit log: who did what, when. Append-only, each entry's hash covers the one before. No text of answers in it.

Anyone who can write the database can rewrite the whole chain; what it shows is that nothing was changed in passing.
Keep the newest hash elsewhere to hold the log to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from ..records import digest
from . import schema
from .artifacts import plain_json
from .database import Database

PAGE = 500


def note(db: Database, now: float, person: str, action: str, about: str, **details: Any) -> None:
    """Add an entry. `person` is an id, empty for the command line."""
    with db.write() as connection:
        note_within(connection, now, person, action, about, **details)


def note_within(connection: sa.Connection, now: float, person: str, action: str, about: str, **details: Any) -> None:
    """Add an entry in the transaction of what it tells of: both happen or neither."""
    table = schema.audit
    last = connection.execute(sa.select(table.c.number, table.c.hash).order_by(table.c.number.desc()).limit(1)).first()
    entry = {
        "number": last.number + 1 if last else 1,
        "at": float(now),
        "person": person,
        "action": action,
        "about": about,
        "details": plain_json(details, "audit"),
    }
    connection.execute(table.insert().values(**entry, hash=_hash(last.hash if last else "", entry)))


def entries(
    db: Database, after: int = 0, limit: int = PAGE, action: str = "", collection: str = ""
) -> list[dict[str, Any]]:
    """Those with a number greater than `after`, oldest first: {number, at, person, action, about, details, hash}.

    `action` leaves only what was done in this way, `collection` only what names this one in its details.
    """
    table = schema.audit
    query = sa.select(table).where(table.c.number > after).order_by(table.c.number).limit(limit)
    if action:
        query = query.where(table.c.action == action)
    if collection:
        query = query.where(table.c.details["collection"].as_string() == collection)
    with db.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def verify(db: Database) -> list[str]:
    """One line for each entry that is missing or does not fit the one before; empty when the chain is whole."""
    problems: list[str] = []
    number, before = 0, ""
    for entry in _all(db):
        if entry["number"] != number + 1:
            problems.append(f"entries {number + 1} to {entry['number'] - 1} are missing")
        if entry["hash"] != _hash(before, entry):
            problems.append(f"entry {entry['number']} was changed, or one before it")
        number, before = entry["number"], entry["hash"]
    return problems


def _all(db: Database) -> Iterator[dict[str, Any]]:
    page = entries(db)
    while page:
        yield from page
        page = entries(db, page[-1]["number"])


def _hash(before: str, entry: dict[str, Any]) -> str:
    return digest([before, {name: value for name, value in entry.items() if name != "hash"}])
