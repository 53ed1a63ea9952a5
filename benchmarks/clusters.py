"""A PostgreSQL of one's own: a temporary cluster on a unix socket, for the benchmark and for the tests of the store.

Nothing that runs already is touched, nothing listens on a port, and nothing stays behind.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PLACES = (Path("/usr/lib/postgresql"), Path("/usr/local/pgsql"), Path("/opt/homebrew/opt"))
# For what does not outlive its test: nothing needs to reach the disk.
QUICK = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
CONNECTIONS = "-c max_connections=200"
RESTART_SECONDS = 60.0


class NoPostgres(Exception):
    """What is missing, and how to get it."""


class Cluster:
    """A running server with an empty database `postgres` in `folder`."""

    def __init__(self, folder: Path, durable: bool) -> None:
        self.folder = folder
        self.control, initdb = _program("pg_ctl"), _program("initdb")
        self.options = f"{CONNECTIONS} {'' if durable else QUICK} -k {folder} -c listen_addresses=''"
        made = ["-U", "trueup", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8"]
        _as_postgres([initdb, "-D", self.data, *made])
        self.start()

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://trueup@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The URL of another empty database."""
        import psycopg

        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # a name that was made here
        return self.url(name)

    def start(self) -> None:
        command = [self.control, "-D", self.data, "-w", "-s", "-l", str(self.folder / "log"), "-o", self.options]
        _as_postgres([*command, "start"])

    def stop(self) -> None:
        _as_postgres([self.control, "-D", self.data, "-w", "-s", "-m", "immediate", "stop"])

    def kill(self) -> None:
        """kill -9 of the postmaster, as when the memory runs out; then as an administrator would, start it again.

        Its children notice and go on their own; until the last one is gone a new server refuses to start.
        """
        postmaster = int(Path(self.data, "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        ends = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return self.start()
            except RuntimeError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)


@contextmanager
def temporary_cluster(durable: bool = True) -> Iterator[Cluster]:
    """Raises `NoPostgres` where the programs or the driver are missing. `durable`: as PostgreSQL is by default."""
    if find_spec("psycopg") is None:
        raise NoPostgres("install the driver: pip install 'trueup[postgres]'")
    _program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="trueup-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        cluster = Cluster(folder, durable)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    """Debian keeps the server's programs out of the PATH."""
    found = shutil.which(name)
    for place in PLACES:
        found = found or next((str(path) for path in sorted(place.glob(f"*/bin/{name}"), reverse=True)), None)
    if found is None:
        raise NoPostgres("install PostgreSQL (Debian: apt-get install postgresql)")
    return found


def _as_postgres(command: list[str]) -> None:
    """PostgreSQL refuses to run as root: then the user that its package made runs it."""
    demote = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(demote + command, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
