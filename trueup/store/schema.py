"""The tables as the code of today sees them. `migrations` says how a database gets there; a test holds them together.

Only types that SQLite and PostgreSQL share. Times for people are ISO text in UTC, times that are compared with a clock
are seconds since 1970; neither is part of an id.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()


def only(condition: str) -> dict[str, Any]:
    """A partial index: small, because it holds only the rows that somebody looks for."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


schema_version = sa.Table(
    "schema_version",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("applied", sa.Text, nullable=False),
)

artifact = sa.Table(
    "artifact",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("meta", sa.JSON, nullable=False),
    sa.Column("files", sa.JSON, nullable=False),  # {relative path: {sha256, bytes}}
    sa.Column("created", sa.Text, nullable=False),
)

artifact_parent = sa.Table(
    "artifact_parent",
    metadata,
    sa.Column("child", sa.Text, sa.ForeignKey("artifact.id"), primary_key=True),
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("parent", sa.Text, sa.ForeignKey("artifact.id"), nullable=False),
    sa.Index("artifact_parent_parent", "parent"),
)

name = sa.Table(
    "name",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("artifact", sa.Text, sa.ForeignKey("artifact.id"), nullable=False),
)

run = sa.Table(
    "run",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),  # running, done, failed or interrupted
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("versions", sa.JSON, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("started", sa.Text, nullable=False),
    sa.Column("ended", sa.Text, nullable=False),  # empty while running
    sa.Column("name", sa.Text, nullable=False, server_default=""),  # what its result is to be called
)

run_artifact = sa.Table(
    "run_artifact",
    metadata,
    sa.Column("run", sa.Text, sa.ForeignKey("run.id"), primary_key=True),
    sa.Column("direction", sa.Text, primary_key=True),  # in or out
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("artifact", sa.Text, sa.ForeignKey("artifact.id"), nullable=False),
    sa.Index("run_artifact_artifact", "artifact"),
)

# Append-only: what a person said is never changed or removed, not even by `trueup gc`.
judgement = sa.Table(
    "judgement",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False, unique=True),  # the order in which they came
    sa.Column("completions", sa.Text, sa.ForeignKey("artifact.id"), nullable=False),
    sa.Column("judge", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("record", sa.JSON, nullable=False),  # without prompt and texts where an item has them
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("collection", sa.Text, sa.ForeignKey("collection.id")),  # this and the next two: from a queue only
    sa.Column("item", sa.Text, sa.ForeignKey("item.id")),
    sa.Column("assignment", sa.Text, sa.ForeignKey("assignment.id")),
    sa.Column("supersedes", sa.Text),  # the judgement that this one revises
    sa.Index("judgement_completions", "completions", "position"),
    sa.Index("judgement_collection", "collection", "position", **only("collection IS NOT NULL")),
)

# Collections: questions put to people. What a queue counts is kept beside what it is derived from, because a count a
# request would read every row; tests hold the two together.

collection = sa.Table(
    "collection",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("status", sa.Text, nullable=False),  # open or closed
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("guideline", sa.Text, nullable=False),  # the version in force
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("turns", sa.BigInteger, nullable=False),  # places in the queue given out so far
    sa.Column("size", sa.BigInteger, nullable=False),  # items of the roles main and calibration, like the next one
    sa.Column("wanted", sa.BigInteger, nullable=False),  # votes still to give
)

guideline = sa.Table(
    "guideline",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, sa.ForeignKey("collection.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.UniqueConstraint("collection", "number"),
)

acknowledgement = sa.Table(
    "acknowledgement",
    metadata,
    sa.Column("person", sa.Text, primary_key=True),
    sa.Column("guideline", sa.Text, sa.ForeignKey("guideline.id"), primary_key=True),
    sa.Column("at", sa.DOUBLE_PRECISION, nullable=False),
)

# The narrow half of an item, which changes with every hand-out; `item_text` is the wide half, of which no more than
# `why` ever does.
item = sa.Table(
    "item",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, sa.ForeignKey("collection.id"), nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),  # the order in which they came
    sa.Column("content", sa.Text, nullable=False),  # hash of role, prompt and texts
    sa.Column("completions", sa.Text, sa.ForeignKey("artifact.id"), nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("split", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # open, full or quarantined
    sa.Column("reason", sa.Text, nullable=False),  # of the quarantine
    sa.Column(
        "cleared", sa.DOUBLE_PRECISION, nullable=False
    ),  # when a quarantine last ended: older skips no longer count
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("overlap", sa.Integer, nullable=False),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("leased", sa.Integer, nullable=False),
    sa.Column("turn", sa.BigInteger),  # place in the queue; empty while no more votes are to be handed out
    sa.Column("category", sa.Text, nullable=False, server_default=""),  # a `key` of the table `category`, or nothing
    sa.UniqueConstraint("collection", "position"),
    sa.UniqueConstraint("collection", "content"),
    sa.Index("item_queue", "collection", "role", "turn", "category", **only("turn IS NOT NULL")),
    sa.Index("item_role", "collection", "role", "position"),
    sa.Index("item_completions", "completions"),
)

item_text = sa.Table(
    "item_text",
    metadata,
    sa.Column("item", sa.Text, sa.ForeignKey("item.id"), primary_key=True),
    sa.Column("prompt", sa.JSON, nullable=False),
    sa.Column("texts", sa.JSON, nullable=False),
    sa.Column("finished", sa.JSON, nullable=False),
    sa.Column("models", sa.JSON, nullable=False),
    sa.Column("key", sa.JSON(none_as_null=True)),  # the expected answer of a gold
    sa.Column("why", sa.JSON, nullable=False),  # how it was chosen, with which probability
    sa.Column("help", sa.JSON(none_as_null=True)),  # what helpers wrote about it for whoever judges it
)

# What items are about: a row for each name of a combination of them that items have. `size` and `wanted` count the
# items of the combination as those of `collection` count all.
category = sa.Table(
    "category",
    metadata,
    sa.Column("collection", sa.Text, sa.ForeignKey("collection.id"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("wanted", sa.BigInteger, nullable=False),
)

# What a person chose not to be given.
opt_out = sa.Table(
    "opt_out",
    metadata,
    sa.Column("person", sa.Text, primary_key=True),
    sa.Column("category", sa.Text, primary_key=True),
)

# One row an item, person and round: who lets it lapse and comes back finds the same one, with order and draft.
assignment = sa.Table(
    "assignment",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("collection", sa.Text, sa.ForeignKey("collection.id"), nullable=False),
    sa.Column("item", sa.Text, sa.ForeignKey("item.id"), nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # leased, done, skipped, postponed or expired
    sa.Column("counted", sa.Integer, nullable=False),  # 1 when it takes one of the item's wanted votes
    sa.Column("shown", sa.JSON, nullable=False),  # shown[position] = index of the completion displayed there
    sa.Column("guideline", sa.Text, nullable=False),
    sa.Column("issued", sa.DOUBLE_PRECISION, nullable=False),
    sa.Column(
        "expires", sa.DOUBLE_PRECISION, nullable=False
    ),  # when the lease ends, or ended by skipping or postponing
    sa.Column("submitted", sa.DOUBLE_PRECISION),
    sa.Column("draft", sa.JSON(none_as_null=True)),
    sa.Column("judgement", sa.Text, nullable=False),  # the one that stands
    sa.Column("reason", sa.Text, nullable=False),  # of the skip
    sa.Column("helped", sa.JSON(none_as_null=True)),  # helpers whose outputs were shown; null: the item had none
    sa.UniqueConstraint("item", "person", "round"),
    sa.Index("assignment_leased", "collection", "expires", **only("state = 'leased'")),
    sa.Index("assignment_expired", "collection", "person", "expires", **only("state = 'expired'")),
    sa.Index("assignment_postponed", "collection", "person", "expires", **only("state = 'postponed'")),
    sa.Index("assignment_skipped", "collection", "person", **only("state = 'skipped'")),
    sa.Index("assignment_uncounted", "collection", "person", **only("counted = 0")),
    sa.Index("assignment_work", "collection", "person", "submitted", "id", **only("submitted IS NOT NULL")),
)

# How far a person has come: to them, every item of the role with turn <= passed is done, skipped, put aside, or of a
# category that they refuse.
standing = sa.Table(
    "standing",
    metadata,
    sa.Column("collection", sa.Text, sa.ForeignKey("collection.id"), primary_key=True),
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("person", sa.Text, primary_key=True),
    sa.Column("passed", sa.BigInteger, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
)

figure = sa.Table(
    "figure",
    metadata,
    sa.Column("collection", sa.Text, sa.ForeignKey("collection.id"), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("made", sa.DOUBLE_PRECISION, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("value", sa.JSON, nullable=False),
)

# People. Whatever lets somebody in is stored as a hash only.

person = sa.Table(
    "person",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),  # owner, manager, annotator or viewer
    sa.Column("judge", sa.Text, nullable=False, unique=True),  # the pseudonym on their judgements
    sa.Column("collection", sa.Text, nullable=False),  # the only one they may see; empty for all
    sa.Column("active", sa.Integer, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
)

session = sa.Table(
    "session",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("person", sa.Text, sa.ForeignKey("person.id"), nullable=False),
    sa.Column("expires", sa.DOUBLE_PRECISION, nullable=False),
    sa.Index("session_person", "person"),
)

invite = sa.Table(
    "invite",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("collection", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("uses", sa.Integer, nullable=False),  # how often it may still be used
    sa.Column("revoked", sa.Integer, nullable=False),
    sa.Column("expires", sa.DOUBLE_PRECISION, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
)

token = sa.Table(
    "token",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, nullable=False, unique=True),
    sa.Column("person", sa.Text, sa.ForeignKey("person.id"), nullable=False),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("expires", sa.DOUBLE_PRECISION, nullable=False),
    sa.Index("token_person", "person"),
)

# Keyed by an HMAC of the person, without a time: nothing here can be joined to what somebody said.
demographic = sa.Table(
    "demographic",
    metadata,
    sa.Column("answerer", sa.Text, primary_key=True),
    sa.Column("field", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

# Append-only; each row's hash covers the one before, so a changed or missing row shows.
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.DOUBLE_PRECISION, nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
