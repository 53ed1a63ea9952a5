"""What helpers say about items, kept beside their texts: it is added to and never changed, for somebody may have judged
with it already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from . import schema
from .artifacts import plain_json
from .database import Database
from .judgements import chunks

Output = Mapping[str, Any]  # {helper, kind, text, places, ranks}


def give_help(db: Database, outputs: Mapping[str, Sequence[Output]]) -> int:
    """Add outputs (item -> of its helpers); returns how many were new. A helper says one thing of a kind about an item:
    what it says again is left out. In short transactions, so that nobody who judges has to wait."""
    given = 0
    for chunk in chunks(outputs.items()):
        with db.write() as connection:
            given += _give(connection, dict(chunk))
    return given


def _give(connection: sa.Connection, outputs: Mapping[str, Sequence[Output]]) -> int:
    text, given = schema.item_text, 0
    query = sa.select(text.c.item, text.c.help).where(text.c.item.in_(list(outputs)))
    for row in connection.execute(query).all():
        known = list(row.help or ())
        before = len(known)
        for each in outputs[row.item]:
            if all((each["helper"], each["kind"]) != (said["helper"], said["kind"]) for said in known):
                known.append(plain_json(each, "item.help"))
        if more := len(known) - before:
            connection.execute(text.update().where(text.c.item == row.item).values(help=known))
            given += more
    return given
