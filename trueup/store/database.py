"""One database behind a URL: how it is opened, read, written in transactions and copied.

Everything that differs between SQLite and another database is in this file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..errors import WorkspaceError
from . import migrations
from .files import sync_folder

BUSY_SECONDS = 60


class Database:
    """Short transactions over one engine. A connection is never held across a yield to other code of a stage."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_SECONDS} if sqlite else {})
        if sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A consistent view: what others write meanwhile is not seen."""
        with self._in_plain_words(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """The only writer until the block ends. Refused when somebody upgraded the workspace under us."""
        with self._alone() as connection:
            if migrations.version_of(connection) != migrations.newest():
                raise WorkspaceError(f"{self.where} was upgraded by another trueup meanwhile", "update trueup")
            yield connection

    def migrate(self) -> None:
        with self._alone() as connection:
            migrations.migrate(connection)

    def version(self) -> int:
        with self.read() as connection:
            return migrations.version_of(connection)

    def back_up(self, target: Path) -> None:
        """A whole copy, taken while others may read and write (SQLite's online backup, not a file copy)."""
        temporary = target.with_suffix(".tmp")
        with self.read() as connection, closing(sqlite3.connect(temporary)) as copy:
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # the copy is one file, without a -wal beside it
        os.replace(temporary, target)
        sync_folder(target.parent)

    def close(self) -> None:
        self._engine.dispose()

    @property
    def where(self) -> str:
        return self.url.render_as_string(hide_password=True).removeprefix("sqlite:///")

    @contextmanager
    def _alone(self) -> Iterator[sa.Connection]:
        with self._in_plain_words(), self._engine.execution_options(alone=True).begin() as connection:
            yield connection

    @contextmanager
    def _in_plain_words(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            cause = str(getattr(error, "orig", error))
            for sign, message, hint in _TROUBLES:
                if sign in cause:
                    raise WorkspaceError(f"{self.where}: {message}", hint) from error
            raise


_TROUBLES = (
    ("locked", "somebody else is writing and did not finish", "wait for the other trueup to end, then try again"),
    ("disk is full", "no space left on its disk", "free some space (`trueup gc` lists what nothing needs)"),
    ("not a database", "is no database, or damaged", "restore it from a backup (workspace-v*.db)"),
    ("malformed", "is damaged", "restore it from a backup (workspace-v*.db)"),
    ("readonly", "may not be written", "check who owns the file and its folder"),
    ("unable to open", "cannot be opened", "check that it exists and that you may write there"),
    ("FOREIGN KEY", "an artifact it refers to is no longer there", "look at `trueup artifacts list`"),
)


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not guessed by the driver from each statement
    connection.execute("PRAGMA foreign_keys=ON")
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode=WAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes its lock at once: one that reads first and wants to write later cannot wait for its turn.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("alone") else "BEGIN")
