"""Numbered steps from an empty database to today's schema. A released step is never edited; a change is a new step.

Plain SQL, because a step must keep meaning what it meant when `schema` has long moved on.
"""

from __future__ import annotations

import sqlalchemy as sa

from ..errors import WorkspaceError
from .clock import utc_now

# MIGRATIONS[n - 1] brings a database from schema n - 1 to schema n.
MIGRATIONS: list[tuple[str, ...]] = [
    (
        """CREATE TABLE artifact (
            id TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, meta JSON NOT NULL, files JSON NOT NULL,
            created TEXT NOT NULL)""",
        """CREATE TABLE artifact_parent (
            child TEXT NOT NULL REFERENCES artifact (id), role TEXT NOT NULL,
            parent TEXT NOT NULL REFERENCES artifact (id), PRIMARY KEY (child, role))""",
        "CREATE INDEX artifact_parent_parent ON artifact_parent (parent)",
        """CREATE TABLE name (
            name TEXT NOT NULL PRIMARY KEY, artifact TEXT NOT NULL REFERENCES artifact (id))""",
        """CREATE TABLE run (
            id TEXT NOT NULL PRIMARY KEY, stage TEXT NOT NULL, status TEXT NOT NULL, config JSON NOT NULL,
            seed BIGINT NOT NULL, versions JSON NOT NULL, note TEXT NOT NULL, result JSON NOT NULL,
            error TEXT NOT NULL, started TEXT NOT NULL, ended TEXT NOT NULL)""",
        """CREATE TABLE run_artifact (
            run TEXT NOT NULL REFERENCES run (id), direction TEXT NOT NULL, role TEXT NOT NULL,
            artifact TEXT NOT NULL REFERENCES artifact (id), PRIMARY KEY (run, direction, role))""",
        "CREATE INDEX run_artifact_artifact ON run_artifact (artifact)",
        """CREATE TABLE judgement (
            id TEXT NOT NULL PRIMARY KEY, position BIGINT NOT NULL UNIQUE,
            completions TEXT NOT NULL REFERENCES artifact (id), judge TEXT NOT NULL, source TEXT NOT NULL,
            record JSON NOT NULL, created TEXT NOT NULL)""",
        "CREATE INDEX judgement_completions ON judgement (completions, position)",
    ),
]


def newest() -> int:
    """The schema this code reads and writes."""
    return len(MIGRATIONS)


def version_of(connection: sa.Connection) -> int:
    """The schema of a database; 0 is one that holds nothing yet."""
    tables = sa.inspect(connection).get_table_names()
    if "schema_version" in tables:
        return int(connection.exec_driver_sql("SELECT COALESCE(MAX(version), 0) FROM schema_version").scalar_one())
    if tables:
        raise WorkspaceError(f"{connection.engine.url.database} was not made by trueup", "name another workspace")
    return 0


def migrate(connection: sa.Connection) -> None:
    """Bring a database to today's schema, inside the caller's transaction."""
    if version_of(connection) == 0:
        connection.exec_driver_sql(
            "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL PRIMARY KEY, applied TEXT NOT NULL)"
        )
    for version in range(version_of(connection) + 1, newest() + 1):
        for statement in MIGRATIONS[version - 1]:
            connection.exec_driver_sql(statement)
        connection.execute(sa.text("INSERT INTO schema_version VALUES (:v, :t)"), {"v": version, "t": utc_now()})
