"""One database behind a URL: how it is opened, read, written in transactions and copied.

Everything that differs between SQLite and PostgreSQL is in this file. Both have one writer at a time: SQLite by its
own lock, PostgreSQL by an advisory lock that each writing transaction takes first. So the same code is correct on
both, without a retry anywhere, and transactions are short enough that nobody waits for long.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..errors import WorkspaceError
from . import migrations
from .files import sync_folder

BUSY_SECONDS = 60
PASSWORD = "TRUEUP_DATABASE_PASSWORD"
ADVISORY_LOCK = 0x74727565  # "true": advisory locks are numbers, one space of them for each database
CACHE_KIB = 64 * 1024  # of the one writer: the indexes of a million judgements
POOL = {"pool_size": 8, "max_overflow": 24}  # a web server reads from up to 40 threads at once


class Database:
    """Short transactions over one engine. A connection is never held across a yield to other code of a stage.

    Safe to use from several threads at once. One transaction inside another is a mistake.
    """

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        self._reader, self._writer = _sqlite(self.url) if self.is_sqlite else _postgres(self.url)
        self._turn = threading.Lock()  # threads queue here, not in the database, where waiting is sleeping

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A consistent view: what others write meanwhile is not seen."""
        with self._in_plain_words(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """The only writer until the block ends. Refused when somebody upgraded the workspace under us."""
        with self._alone() as connection:
            if migrations.version_noted(connection) != migrations.newest():
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
        if not self.is_sqlite:
            raise WorkspaceError(f"{self.where} is not backed up by trueup", "use `pg_dump`")
        temporary = target.with_suffix(".tmp")
        with self.read() as connection, closing(sqlite3.connect(temporary)) as copy:
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # the copy is one file, without a -wal beside it
        os.replace(temporary, target)
        sync_folder(target.parent)

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    @property
    def where(self) -> str:
        return public(self.url).removeprefix("sqlite:///")

    @contextmanager
    def _alone(self) -> Iterator[sa.Connection]:
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise WorkspaceError(f"{self.where}: {_BUSY[0]}", _BUSY[1])
        try:
            with self._in_plain_words(), self._writer.begin() as connection:
                if not self.is_sqlite:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
                yield connection
        finally:
            self._turn.release()

    @contextmanager
    def _in_plain_words(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DBAPIError, sqlite3.Error) as error:
            cause = getattr(error, "orig", error)
            for sign, (message, hint) in _TROUBLES.items():
                if sign in str(cause) or sign == getattr(cause, "sqlstate", None):
                    raise WorkspaceError(f"{self.where}: {message}", hint) from error
            if isinstance(error, sa.exc.OperationalError) and not self.is_sqlite:
                reason = str(cause).strip().splitlines()
                raise WorkspaceError(f"{self.where}: {reason[-1] if reason else cause}", _UNREACHABLE) from error
            raise


@contextmanager
def writing(db: Database | sa.Connection) -> Iterator[sa.Connection]:
    """A transaction of its own or, given a connection, part of the one that is under way: both happen or neither."""
    if isinstance(db, sa.Connection):
        yield db
    else:
        with db.write() as connection:
            yield connection


def public(url: sa.URL) -> str:
    """The URL as it may be shown and stored: without a password."""
    plain = url._replace(password=None)  # `set` takes None for "as it is"
    if plain.get_backend_name() == "postgresql":
        plain = plain.set(drivername="postgresql")
    return plain.render_as_string(hide_password=False)


_BUSY = ("somebody else is writing and did not finish", "wait for the other trueup to end, then try again")
_FULL = ("no space left on its disk", "free some space (`trueup gc` lists what nothing needs)")
_DAMAGED = "restore it from a backup (workspace-v*.db)"
_GONE = ("an artifact it refers to is no longer there", "look at `trueup artifacts list`")
_DENIED = ("its user may not do this", "ask who runs the database for the right to create and write tables")
_PASSWORD = ("refuses the user or the password", f"set ${PASSWORD} or $PGPASSWORD, or write ~/.pgpass")
_UNREACHABLE = "check that PostgreSQL runs there, and the URL in workspace.toml"

# Signs: words of SQLite, and the codes of PostgreSQL, whose words are in its own language.
_TROUBLES = {
    "locked": _BUSY,
    "55P03": _BUSY,
    "disk is full": _FULL,
    "53100": _FULL,
    "not a database": ("is no database, or damaged", _DAMAGED),
    "malformed": ("is damaged", _DAMAGED),
    "readonly": ("may not be written", "check who owns the file and its folder"),
    "unable to open": ("cannot be opened", "check that it exists and that you may write there"),
    "FOREIGN KEY": _GONE,
    "23503": _GONE,
    "42501": _DENIED,
    "28P01": _PASSWORD,
    "28000": _PASSWORD,
    "password authentication failed": _PASSWORD,
    "no password supplied": _PASSWORD,
}


def _checked(url: str) -> sa.URL:
    """A URL of one of the two databases, PostgreSQL's with the password from the environment."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise WorkspaceError(f"'{url}' is no database URL", "like postgresql://user@host/name") from error
    if parsed.get_backend_name() == "sqlite":
        return parsed
    if parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise WorkspaceError(f"trueup cannot use a database of kind '{parsed.drivername}'", "use postgresql://...")
    if hidden := [name for name in parsed.query if "password" in name]:
        raise WorkspaceError(f"a password in the option '{hidden[0]}' of the URL", f"set ${PASSWORD} instead")
    parsed = parsed.set(drivername="postgresql+psycopg")
    if password := os.environ.get(PASSWORD):
        parsed = parsed.set(password=password)
    return parsed


# Each of the two functions gives an engine that reads and one that writes.


def _sqlite(url: sa.URL) -> tuple[sa.Engine, sa.Engine]:
    """The writer is one connection that stays: another one's cache is worth nothing after each commit."""
    reader = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS}, **POOL)
    writer = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_size=1, max_overflow=0)
    for engine, begin in ((reader, "BEGIN"), (writer, "BEGIN IMMEDIATE")):
        sa.event.listen(engine, "connect", _prepare_sqlite)
        # A writer takes its lock at once: one that reads first and wants to write later cannot wait for its turn.
        sa.event.listen(engine, "begin", lambda connection, how=begin: connection.exec_driver_sql(how))
    sa.event.listen(writer, "connect", lambda connection, _: connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}"))
    return reader, writer


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by the engine, not guessed by the driver
    connection.execute("PRAGMA foreign_keys=ON")
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # a commit is on disk: what was acknowledged survives a power cut


def _postgres(url: sa.URL) -> tuple[sa.Engine, sa.Engine]:
    """A reader wants one snapshot for all its statements. Each statement of a writer must see what was committed

    before it, thus all that was written before it got the lock: a snapshot would date from before the wait.
    """
    patience = {"options": f"-c lock_timeout={round(BUSY_SECONDS * 1000)}", "connect_timeout": 10}
    try:
        engine = sa.create_engine(url, connect_args=patience, pool_pre_ping=True, **POOL)
    except ImportError as error:
        raise WorkspaceError("PostgreSQL needs a driver", "pip install 'trueup[postgres]'") from error
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True), engine
