"""Both databases for every test of the queue: SQLite in a file, and a PostgreSQL that lives as long as the session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from benchmarks.clusters import Cluster, NoPostgres, temporary_cluster
from trueup.store import Workspace


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One server for all tests; what is in it need not outlive them."""
    yield from running_cluster(durable=False)


@pytest.fixture
def durable_cluster() -> Iterator[Cluster]:
    """A server that writes as PostgreSQL does by default, for tests that kill it."""
    yield from running_cluster(durable=True)


def running_cluster(durable: bool) -> Iterator[Cluster]:
    try:
        with temporary_cluster(durable) as made:
            yield made
    except NoPostgres as missing:
        if os.environ.get("CI"):
            pytest.fail(f"{missing}; in CI the tests on PostgreSQL may not be skipped")
        pytest.skip(f"{missing}, to run the tests on it")


@pytest.fixture(scope="session")
def postgres(cluster) -> str:
    """The URL of a server with an empty `postgres` database, on a unix socket in a temporary folder."""
    return cluster.url()


@pytest.fixture(scope="session")
def new_postgres(cluster):
    """`new_postgres()`: the URL of another empty database on that server."""
    return cluster.new_database


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
