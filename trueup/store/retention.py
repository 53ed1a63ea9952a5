"""What is deleted by itself when its time is over. No judgement ever is."""

from __future__ import annotations

import sqlalchemy as sa

from . import schema
from .database import Database
from .judgements import chunks

DAY = 86_400.0
INVITES_KEPT = 30 * DAY  # for which one that ended can still be seen among the invitations
DRAFTS_KEPT = DAY  # after the lease, so that whoever was at work when a collection closed finds theirs again


def sweep(db: Database, now: float) -> dict[str, int]:
    """Delete sessions and tokens that have ended, invitations that ended a month ago, and drafts of closed collections
    that nobody was at for a day. Returns how many of each. Cheap, and harmless to repeat."""
    gone = {
        "sessions": _delete(db, schema.session, schema.session.c.expires <= now),
        "tokens": _delete(db, schema.token, schema.token.c.expires <= now),
        "invitations": _delete(db, schema.invite, schema.invite.c.expires <= now - INVITES_KEPT),
    }
    return gone | {"drafts": _forget_drafts(db, now)}


def _delete(db: Database, table: sa.Table, which: sa.ColumnElement[bool]) -> int:
    with db.write() as connection:
        return int(connection.execute(table.delete().where(which)).rowcount)


def _forget_drafts(db: Database, now: float) -> int:
    """Found first and deleted after, in short transactions: the search reads all the work of a collection, and nobody
    should have to wait for it."""
    table, collection = schema.assignment, schema.collection
    over = table.c.draft.is_not(None) & (table.c.expires <= now - DRAFTS_KEPT)
    query = sa.select(table.c.id).join(collection, collection.c.id == table.c.collection)
    with db.read() as connection:
        found = connection.scalars(query.where(collection.c.status == "closed", over)).all()
    forgotten = 0
    for chunk in chunks(found):
        with db.write() as connection:  # the condition once more: somebody may have come back to one meanwhile
            done = connection.execute(table.update().where(table.c.id.in_(chunk), over).values(draft=None))
        forgotten += int(done.rowcount)
    return forgotten
