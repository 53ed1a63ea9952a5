"""The tables as the code of today sees them. `migrations` says how a database gets there; a test holds them together.

Only types that SQLite and PostgreSQL share. Times are ISO text in UTC: for people, never part of an id.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

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
    sa.Column("record", sa.JSON, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Index("judgement_completions", "completions", "position"),
)
