"""Numbered steps from an empty database to today's schema. A released step is never edited; a change is a new step.

Plain SQL, because a step must keep meaning what it meant when `schema` has long moved on. Where SQL cannot say it, a
function here that uses nothing of today's code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from ..errors import WorkspaceError
from .clock import utc_now

Step = str | Callable[[sa.Connection], None]


def _categories_of_items(connection: sa.Connection) -> None:
    """Step 3: what items are about, from the tag of their prompts, which older versions stored and did not look at."""
    tagged = "SELECT item, CAST(prompt AS TEXT) FROM item_text WHERE CAST(prompt AS TEXT) LIKE '%\"category\"%'"
    if connection.engine.dialect.name == "postgresql":
        tagged = tagged.replace("%", "%%")  # its driver reads a single one as the place of a value
    names: dict[str, list[str]] = {}
    for item, prompt in connection.exec_driver_sql(tagged).all():
        if found := _names(json.loads(prompt).get("meta", {}).get("category")):
            joined = "\n".join(found)
            key = joined if len(joined.encode()) <= 500 else hashlib.sha256(joined.encode()).hexdigest()
            names[key] = found
            connection.execute(sa.text("UPDATE item SET category = :c WHERE id = :i"), {"c": key, "i": item})
    counts = """SELECT collection, category, SUM(CASE WHEN role IN ('main', 'calibration') THEN 1 ELSE 0 END), SUM(CASE
        WHEN role IN ('main', 'calibration') AND state <> 'quarantined' AND overlap > done THEN overlap - done ELSE 0
        END) FROM item WHERE category <> '' GROUP BY collection, category"""
    new = sa.text("INSERT INTO category VALUES (:collection, :key, :name, :size, :wanted)")
    for collection, key, size, wanted in connection.exec_driver_sql(counts).all():
        same = {"collection": collection, "key": key, "size": size, "wanted": wanted}
        connection.execute(new, [same | {"name": name} for name in names[key]])


def _names(tags: Any) -> list[str]:
    given: Iterable[Any] = tags if isinstance(tags, list) else [tags] if isinstance(tags, str | int) else ()
    plain = (" ".join(str(tag).split()).casefold() for tag in given)
    return sorted({"".join(c for c in tag if c.isprintable())[:100].strip() for tag in plain} - {""})


# MIGRATIONS[n - 1] brings a database from schema n - 1 to schema n.
MIGRATIONS: list[tuple[Step, ...]] = [
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
    (
        """CREATE TABLE collection (
            id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, status TEXT NOT NULL, config JSON NOT NULL,
            guideline TEXT NOT NULL, created TEXT NOT NULL, turns BIGINT NOT NULL, size BIGINT NOT NULL,
            wanted BIGINT NOT NULL)""",
        """CREATE TABLE guideline (
            id TEXT NOT NULL PRIMARY KEY, collection TEXT NOT NULL REFERENCES collection (id),
            number INTEGER NOT NULL, text TEXT NOT NULL, created TEXT NOT NULL, UNIQUE (collection, number))""",
        """CREATE TABLE acknowledgement (
            person TEXT NOT NULL, guideline TEXT NOT NULL REFERENCES guideline (id), at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (person, guideline))""",
        """CREATE TABLE item (
            id TEXT NOT NULL PRIMARY KEY, collection TEXT NOT NULL REFERENCES collection (id),
            position BIGINT NOT NULL, content TEXT NOT NULL, completions TEXT NOT NULL REFERENCES artifact (id),
            role TEXT NOT NULL, split TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
            cleared DOUBLE PRECISION NOT NULL, priority INTEGER NOT NULL, overlap INTEGER NOT NULL,
            done INTEGER NOT NULL, leased INTEGER NOT NULL, turn BIGINT,
            UNIQUE (collection, position), UNIQUE (collection, content))""",
        "CREATE INDEX item_queue ON item (collection, role, turn) WHERE turn IS NOT NULL",
        "CREATE INDEX item_role ON item (collection, role, position)",
        "CREATE INDEX item_completions ON item (completions)",
        """CREATE TABLE item_text (
            item TEXT NOT NULL PRIMARY KEY REFERENCES item (id), prompt JSON NOT NULL, texts JSON NOT NULL,
            finished JSON NOT NULL, models JSON NOT NULL, key JSON, why JSON NOT NULL)""",
        """CREATE TABLE assignment (
            id TEXT NOT NULL PRIMARY KEY, collection TEXT NOT NULL REFERENCES collection (id),
            item TEXT NOT NULL REFERENCES item (id), person TEXT NOT NULL, round INTEGER NOT NULL,
            state TEXT NOT NULL, counted INTEGER NOT NULL, shown JSON NOT NULL, guideline TEXT NOT NULL,
            issued DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION NOT NULL, submitted DOUBLE PRECISION,
            draft JSON, judgement TEXT NOT NULL, reason TEXT NOT NULL, UNIQUE (item, person, round))""",
        "CREATE INDEX assignment_leased ON assignment (collection, expires) WHERE state = 'leased'",
        "CREATE INDEX assignment_expired ON assignment (collection, person, expires) WHERE state = 'expired'",
        "CREATE INDEX assignment_postponed ON assignment (collection, person, expires) WHERE state = 'postponed'",
        "CREATE INDEX assignment_skipped ON assignment (collection, person) WHERE state = 'skipped'",
        "CREATE INDEX assignment_uncounted ON assignment (collection, person) WHERE counted = 0",
        "CREATE INDEX assignment_work ON assignment (collection, person, submitted, id) WHERE submitted IS NOT NULL",
        """CREATE TABLE standing (
            collection TEXT NOT NULL REFERENCES collection (id), role TEXT NOT NULL, person TEXT NOT NULL,
            passed BIGINT NOT NULL, done BIGINT NOT NULL, PRIMARY KEY (collection, role, person))""",
        """CREATE TABLE figure (
            collection TEXT NOT NULL REFERENCES collection (id), kind TEXT NOT NULL, made DOUBLE PRECISION NOT NULL,
            n BIGINT NOT NULL, value JSON NOT NULL, PRIMARY KEY (collection, kind, made))""",
        """CREATE TABLE person (
            id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL, judge TEXT NOT NULL UNIQUE,
            collection TEXT NOT NULL, active INTEGER NOT NULL, settings JSON NOT NULL, password_hash TEXT NOT NULL,
            created TEXT NOT NULL)""",
        """CREATE TABLE session (
            hash TEXT NOT NULL PRIMARY KEY, person TEXT NOT NULL REFERENCES person (id),
            expires DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX session_person ON session (person)",
        """CREATE TABLE invite (
            id TEXT NOT NULL PRIMARY KEY, hash TEXT NOT NULL UNIQUE, role TEXT NOT NULL, collection TEXT NOT NULL,
            by TEXT NOT NULL, uses INTEGER NOT NULL, revoked INTEGER NOT NULL, expires DOUBLE PRECISION NOT NULL,
            created TEXT NOT NULL)""",
        """CREATE TABLE token (
            id TEXT NOT NULL PRIMARY KEY, hash TEXT NOT NULL UNIQUE, person TEXT NOT NULL REFERENCES person (id),
            scope TEXT NOT NULL, expires DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX token_person ON token (person)",
        """CREATE TABLE demographic (
            answerer TEXT NOT NULL, field TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (answerer, field))""",
        """CREATE TABLE audit (
            number BIGINT NOT NULL PRIMARY KEY, at DOUBLE PRECISION NOT NULL, person TEXT NOT NULL,
            action TEXT NOT NULL, about TEXT NOT NULL, details JSON NOT NULL, hash TEXT NOT NULL)""",
        "ALTER TABLE run ADD COLUMN name TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE judgement ADD COLUMN collection TEXT REFERENCES collection (id)",
        "ALTER TABLE judgement ADD COLUMN item TEXT REFERENCES item (id)",
        "ALTER TABLE judgement ADD COLUMN assignment TEXT REFERENCES assignment (id)",
        "ALTER TABLE judgement ADD COLUMN supersedes TEXT",
        "CREATE INDEX judgement_collection ON judgement (collection, position) WHERE collection IS NOT NULL",
    ),
    (
        "ALTER TABLE item ADD COLUMN category TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE item_text ADD COLUMN help JSON",
        "ALTER TABLE assignment ADD COLUMN helped JSON",
        """CREATE TABLE category (
            collection TEXT NOT NULL REFERENCES collection (id), key TEXT NOT NULL, name TEXT NOT NULL,
            size BIGINT NOT NULL, wanted BIGINT NOT NULL, PRIMARY KEY (collection, key, name))""",
        "CREATE TABLE opt_out (person TEXT NOT NULL, category TEXT NOT NULL, PRIMARY KEY (person, category))",
        _categories_of_items,
        # Whoever is not to be given a category passes by its items without a look at the table itself.
        "DROP INDEX item_queue",
        "CREATE INDEX item_queue ON item (collection, role, turn, category) WHERE turn IS NOT NULL",
    ),
]


def newest() -> int:
    """The schema this code reads and writes."""
    return len(MIGRATIONS)


def version_of(connection: sa.Connection) -> int:
    """The schema of a database; 0 is one that holds nothing yet."""
    tables = sa.inspect(connection).get_table_names()
    if "schema_version" in tables:
        return version_noted(connection)
    if tables:
        raise WorkspaceError(f"{connection.engine.url.database} was not made by trueup", "name another workspace")
    return 0


def version_noted(connection: sa.Connection) -> int:
    """The schema of a database that trueup made: one short statement, for every transaction that writes."""
    return int(connection.exec_driver_sql("SELECT COALESCE(MAX(version), 0) FROM schema_version").scalar_one())


def migrate(connection: sa.Connection) -> None:
    """Bring a database to today's schema, inside the caller's transaction."""
    if version_of(connection) == 0:
        connection.exec_driver_sql(
            "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL PRIMARY KEY, applied TEXT NOT NULL)"
        )
    for version in range(version_of(connection) + 1, newest() + 1):
        for statement in MIGRATIONS[version - 1]:
            statement(connection) if callable(statement) else connection.exec_driver_sql(statement)
        connection.execute(sa.text("INSERT INTO schema_version VALUES (:v, :t)"), {"v": version, "t": utc_now()})
