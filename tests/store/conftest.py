"""Both databases for every test of the queue: SQLite in a file, and a PostgreSQL that lives as long as the session."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from trueup.store import Workspace

PLACES = (Path("/usr/lib/postgresql"), Path("/usr/local/pgsql"), Path("/opt/homebrew/opt"))
INSTALL = "install PostgreSQL (Debian: apt-get install postgresql) to run the tests on it"
# Nothing here outlives the tests, so nothing needs to reach the disk; durability is tested where it is the point.
QUICK = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=200"


def program(name: str) -> str | None:
    """Debian keeps the server's programs out of the PATH."""
    found = shutil.which(name)
    for place in PLACES:
        found = found or next((str(path) for path in sorted(place.glob(f"*/bin/{name}"), reverse=True)), None)
    return found


def as_postgres(command: list[str]) -> None:
    """PostgreSQL refuses to run as root: then the user that its package made runs it."""
    demote = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(demote + command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server with an empty `postgres` database, on a unix socket in a temporary folder."""
    initdb, control = program("initdb"), program("pg_ctl")
    try:
        import psycopg  # noqa: F401
    except ImportError:
        initdb = None
    if initdb is None or control is None:
        if os.environ.get("CI"):
            pytest.fail(INSTALL + " and `pip install 'trueup[postgres]'`; in CI these tests may not be skipped")
        pytest.skip(INSTALL)
    folder = Path(tempfile.mkdtemp(prefix="trueup-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data = str(folder / "data")
        as_postgres([initdb, "-D", data, "-U", "trueup", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8"])
        options = f"{QUICK} -k {folder} -c listen_addresses=''"
        as_postgres([control, "-D", data, "-w", "-s", "-l", str(folder / "log"), "-o", options, "start"])
        try:
            yield f"postgresql://trueup@/postgres?host={folder}"
        finally:
            as_postgres([control, "-D", data, "-w", "-s", "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_postgres(postgres):
    """`new_postgres()`: the URL of another empty database on that server."""
    import psycopg

    def create() -> str:
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgres.replace("/postgres?", f"/{name}?")

    return create


@pytest.fixture
def empty_postgres(empty_database) -> str:
    """The URL of an empty database, the same one each time: making a new one takes longer than emptying it."""
    import psycopg

    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return empty_database


@pytest.fixture(scope="session")
def empty_database(new_postgres) -> str:
    return new_postgres()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared(request, tmp_path_factory) -> Iterator[Workspace]:
    """One workspace for a module's tests: each makes collections of its own."""
    url = request.getfixturevalue("new_postgres")() if request.param == "postgres" else ""
    with Workspace.create(tmp_path_factory.mktemp("shared") / "ws", url) as made:
        if made.database.is_sqlite:
            without_waiting_for_the_disk(made)
        yield made


def without_waiting_for_the_disk(ws: Workspace) -> None:
    for engine in (ws.database._reader, ws.database._writer):
        engine.dispose()
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))


@pytest.fixture(params=["sqlite", "postgres"])
def ws(request, tmp_path) -> Iterator[Workspace]:
    """A workspace of its own, for tests that look at a whole database."""
    url = request.getfixturevalue("empty_postgres") if request.param == "postgres" else ""
    with Workspace.create(tmp_path / "ws", url) as made:
        yield made
