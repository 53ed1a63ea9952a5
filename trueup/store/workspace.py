"""A workspace: a folder with one database, `artifacts/` and `runs/`. Nothing else in trueup knows where things lie."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from ..errors import WorkspaceError
from ..records import Judgement
from . import artifacts, migrations, run_rows, schema
from . import judgements as judgement_rows
from . import lineage as lineages
from . import unused as leftovers
from .artifacts import Artifact
from .clock import stamp, utc_now
from .database import PASSWORD, Database, public
from .files import (
    Lock,
    atomic_write,
    describe_files,
    differing_files,
    list_files,
    remove,
    saying_disk_full,
    sync_folder,
    sync_tree,
)
from .run_rows import RunRow

DATABASE = "workspace.db"
SETTINGS = "workspace.toml"  # instead, where the database is a PostgreSQL elsewhere
FOLDERS = ("artifacts", "runs", ".staging")
VARIABLE = "TRUEUP_WORKSPACE"
_EMPTY: Mapping[str, Any] = {}


class Workspace:
    """Open one with `create`, `open` or `find`. Safe to use from several processes at once."""

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self.database = database

    # Life of a workspace

    @classmethod
    def create(cls, path: str | Path, database: str = "") -> Workspace:
        """A new workspace in a folder that holds none; other files in the folder are left alone.

        `database` is the URL of an empty PostgreSQL database; without one it is a SQLite file in the folder.
        """
        folder = _absolute(path)
        if (folder / DATABASE).exists() or (folder / SETTINGS).exists():
            raise WorkspaceError(f"{folder} is a workspace already", "use it as it is, or choose another folder")
        opened = Database(database or _url(folder))
        if database and opened.version() > 0:
            raise WorkspaceError(f"{opened.where} holds a workspace already", "name an empty database")
        with saying_disk_full(folder), _saying_not_writable(folder):
            for child in FOLDERS:
                (folder / child).mkdir(parents=True, exist_ok=True)
                if any((folder / child).iterdir()):  # `gc` would take somebody else's files for leftovers
                    raise WorkspaceError(f"{folder / child} is in the way", "choose another folder, or move it away")
            if database:
                atomic_write(folder / SETTINGS, _settings(opened))
            else:
                (folder / DATABASE).touch(exist_ok=False)
        opened.migrate()
        sync_folder(folder)
        return cls(folder, opened)

    @classmethod
    def open(cls, path: str | Path) -> Workspace:
        """An existing workspace of exactly this schema; it is never migrated silently."""
        folder = _absolute(path)
        database = _open_database(folder, path)
        try:
            _check_version(folder, database.version())
        except WorkspaceError:
            database.close()
            raise
        return cls(folder, database)

    @classmethod
    def find(cls, explicit: str | Path | None = None, start: Path | None = None) -> Workspace:
        """The one named, else $TRUEUP_WORKSPACE, else the nearest folder upwards of `start` that holds one."""
        if chosen := explicit or os.environ.get(VARIABLE):
            return cls.open(chosen)
        here = _absolute(start or Path.cwd())
        for folder in (here, *here.parents):
            if _is_workspace(folder):
                return cls.open(folder)
        raise WorkspaceError(f"no workspace in {here} or above", f"make one with `trueup init DIR` or set ${VARIABLE}")

    @classmethod
    def upgrade(cls, path: str | Path, *, backed_up: bool = False) -> tuple[int, int]:
        """Back the database up beside itself, then migrate it. Returns the old and the new schema.

        A PostgreSQL database is migrated only when the caller says that it is backed up already.
        """
        folder = _absolute(path)
        database = _open_database(folder, path)
        before, after = database.version(), migrations.newest()
        if before > after:
            _check_version(folder, before)
        if before < after:
            _back_up(database, folder, before, backed_up)
            database.migrate()
        database.close()
        return before, after

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Artifacts

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A temporary folder on the same disk, for `put` to take over. Whatever is left in it is removed after."""
        folder = self._staging / secrets.token_hex(8)
        lock = Lock(folder.with_suffix(".lock"))  # tells `unused` that somebody is still at work in it
        with saying_disk_full(self.path):
            self._staging.mkdir(exist_ok=True)
            held = lock.acquire()
            assert held, folder
            try:
                folder.mkdir()
                yield folder
            finally:
                remove(folder)
                lock.path.unlink(missing_ok=True)
                lock.release()

    def put(
        self,
        kind: str,
        folder_or_files: Path | Mapping[str, bytes],
        *,
        parents: Mapping[str, str | Artifact] = _EMPTY,
        meta: Mapping[str, Any] = _EMPTY,
        name: str = "",
    ) -> Artifact:
        """Store a folder (one from `staging` is moved, any other copied) or named bytes as an artifact.

        The same content, meta and parents give the same artifact, stored once. Other processes see all of it or
        nothing: files reach the disk first, then the folder gets its name and its row in one transaction.
        """
        if name:
            artifacts.check_name(name)
        meta = artifacts.plain_json(meta, "meta")
        made_from = {role: self.get(parent).id for role, parent in parents.items()}
        with saying_disk_full(self.path), self._staged(folder_or_files) as folder:
            files = describe_files(folder)
            assert kind and files, "an artifact has a kind and at least one file"
            _freeze(folder)
            identity = artifacts.artifact_id(kind, meta, made_from, files)
            artifact = Artifact(identity, kind, self._artifacts / identity, made_from, meta, utc_now())
            with self.database.write() as connection:
                self._register(connection, artifact, files, folder)
                if name:
                    artifacts.point(connection, name, identity)
        return self.get(identity)

    def get(self, ref: str | Artifact) -> Artifact:
        """By id, by name, or by the first four or more characters of one id."""
        with self.database.read() as connection:
            identity = artifacts.resolve(connection, ref.id if isinstance(ref, Artifact) else ref)
            return artifacts.load(connection, self._artifacts, [identity])[0]

    def artifacts(self, kind: str | None = None) -> list[Artifact]:
        """All artifacts, or those of one kind, oldest first."""
        with self.database.read() as connection:
            return [a for a in artifacts.load(connection, self._artifacts) if kind is None or a.kind == kind]

    def set_name(self, name: str, ref: str | Artifact) -> None:
        """Let `name` stand for an artifact from now on, whatever it stood for before."""
        artifacts.check_name(name)
        identity = self.get(ref).id
        with self.database.write() as connection:
            artifacts.point(connection, name, identity)

    def names(self) -> dict[str, str]:
        """Name -> artifact id."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(schema.name).order_by(schema.name.c.name))
            return {row.name: row.artifact for row in rows}

    def files(self, ref: str | Artifact) -> dict[str, dict[str, Any]]:
        """Relative path -> {sha256, bytes}, as they were when the artifact was made."""
        artifact = self.get(ref)
        with self.database.read() as connection:
            return artifacts.files_of(connection, artifact.id)

    def verify(self, ref: str | Artifact) -> list[str]:
        """Hash the files again; one line for each that is missing, changed or added. Empty when all is well."""
        return differing_files(self.get(ref).path, self.files(ref))

    # Judgements, lineage, leftovers

    def add_judgements(self, judgements: Iterable[Judgement], completions: str | Artifact) -> list[Judgement]:
        """Store judgements of a completion set; returns them with ids. The same one twice is stored once."""
        return judgement_rows.add(self.database, judgements, self.get(completions).id)

    def judgements(
        self, ids: Sequence[str] | None = None, *, completions: str | Artifact | None = None
    ) -> Iterator[Judgement]:
        """Those with these ids (in that order), those of one completion set, or all, in the order they came."""
        assert ids is None or completions is None, "either by id or by completion set"
        if ids is not None:
            return judgement_rows.with_ids(self.database, ids)
        return judgement_rows.of_completions(self.database, None if completions is None else self.get(completions).id)

    def lineage(self, ref: str | Artifact) -> lineages.Lineage:
        """Everything an artifact was made from, down to the data and the people who judged."""
        root = self.get(ref)
        with self.database.read() as connection:
            return lineages.trace(connection, self._artifacts, root.id)

    def unused(self) -> list[leftovers.Leftover]:
        """What no run, no judgement, no name and no lineage of anything kept needs, and what a crash left behind."""
        with self.database.read() as connection:
            return leftovers.find(connection, self._artifacts, self._staging)

    def delete(self, those: Iterable[leftovers.Leftover]) -> None:
        """Remove leftovers for good. Whatever has come into use since `unused` looked is kept."""
        with self.staging() as trash:
            leftovers.delete(self.database, self._artifacts, self._staging, list(those), trash)

    # Runs: their rows and folders. `trueup.runs.Run` is what the rest of trueup uses.

    def run_folder(self, run: str) -> Path:
        return self.path / "runs" / run

    def add_run(self, row: RunRow) -> None:
        with self.database.write() as connection:
            run_rows.insert(connection, row)

    def update_run(self, run: str, **columns: Any) -> None:
        with self.database.write() as connection:
            run_rows.update(connection, run, **columns)

    def add_run_output(self, run: str, role: str, artifact: str) -> None:
        with self.database.write() as connection:
            run_rows.link(connection, run, "out", role, artifact)

    def run_row(self, ref: str) -> RunRow:
        """By id or the beginning of exactly one id."""
        with self.database.read() as connection:
            return run_rows.find(connection, ref)

    def run_rows(self) -> list[RunRow]:
        with self.database.read() as connection:
            return run_rows.load(connection)

    def newest_runs(
        self, *, status: str = "", without: Collection[str] = (), offset: int = 0, most: int | None = None
    ) -> list[RunRow]:
        """Newest first, and no more of them than asked for."""
        with self.database.read() as connection:
            return run_rows.newest(connection, status=status, without=without, offset=offset, most=most)

    def count_runs(self) -> int:
        with self.database.read() as connection:
            return run_rows.count(connection)

    # Inside

    @property
    def _artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def _staging(self) -> Path:
        return self.path / ".staging"

    def _staged(self, content: Path | Mapping[str, bytes]) -> AbstractContextManager[Path]:
        if isinstance(content, Path) and content.resolve().is_relative_to(self._staging):
            return _as_it_is(content)
        return self._copied(content)

    @contextmanager
    def _copied(self, content: Path | Mapping[str, bytes]) -> Iterator[Path]:
        with self.staging() as outer:
            folder = outer / "content"
            if isinstance(content, Path):
                _copy(content, folder)
            else:
                _write_all(content, folder)
            yield folder

    def _register(
        self, connection: sa.Connection, artifact: Artifact, files: Mapping[str, Mapping[str, Any]], folder: Path
    ) -> None:
        """Inside the write transaction, so that neither a second `put` nor `delete` can come in between."""
        known = artifacts.load(connection, self._artifacts, [artifact.id])
        if not known:
            remove(artifact.path)  # a crash right here once left a folder without a row
        if not artifact.path.exists():
            os.replace(folder, artifact.path)
            sync_folder(self._artifacts)
        if not known:
            artifacts.insert(connection, artifact, files)


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / DATABASE}"


def _is_workspace(folder: Path) -> bool:
    return (folder / DATABASE).is_file() or (folder / SETTINGS).is_file()


def _open_database(folder: Path, path: str | Path) -> Database:
    """The database of a workspace's folder, which errors call by the `path` that the user gave."""
    if not _is_workspace(folder):
        raise WorkspaceError(f"{folder} is not a workspace", f"make one with `trueup init {path}`")
    return Database(_stored_url(folder / SETTINGS) if (folder / SETTINGS).is_file() else _url(folder))


def _stored_url(settings: Path) -> str:
    try:
        url = tomllib.loads(settings.read_text(encoding="utf-8")).get("database")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        url = None
    if not isinstance(url, str):
        raise WorkspaceError(f"{settings} names no database", 'it has one line: database = "postgresql://..."')
    return url


def _settings(database: Database) -> bytes:
    where = f"# A password is never kept here: set ${PASSWORD} or $PGPASSWORD, or write ~/.pgpass."
    return f"{where}\ndatabase = {json.dumps(public(database.url), ensure_ascii=False)}\n".encode()


def _back_up(database: Database, folder: Path, version: int, backed_up: bool) -> None:
    if database.is_sqlite:
        with saying_disk_full(folder):
            database.back_up(folder / f"workspace-v{version}-{stamp()}-{secrets.token_hex(2)}.db")
    elif not backed_up:
        hint = "back it up with `pg_dump`, then say so: `trueup upgrade --backed-up`"
        raise WorkspaceError(f"{database.where} has schema {version} and trueup cannot back it up", hint)


def _check_version(folder: Path, version: int) -> None:
    if version > migrations.newest():
        raise WorkspaceError(
            f"{folder} was made by a newer trueup (schema {version}, this one knows {migrations.newest()})",
            "update trueup",
        )
    if version < migrations.newest():
        raise WorkspaceError(
            f"{folder} has schema {version}, this trueup needs {migrations.newest()}",
            f"`trueup upgrade {folder}` backs it up and migrates it",
        )


@contextmanager
def _saying_not_writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise WorkspaceError(
            f"cannot make a workspace in {folder}: {error.strerror}", "choose another folder"
        ) from error


@contextmanager
def _as_it_is(folder: Path) -> Iterator[Path]:
    yield folder


def _copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise WorkspaceError(f"{source} is not a folder", "an artifact is made from a folder of files")
    shutil.copytree(source, target, copy_function=shutil.copyfile)  # follows links: a model cache is full of them


def _write_all(content: Mapping[str, bytes], folder: Path) -> None:
    for name, data in content.items():
        relative = PurePosixPath(name)
        assert name and not relative.is_absolute() and ".." not in relative.parts, name
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / relative).write_bytes(data)


def _freeze(folder: Path) -> None:
    """Read-only and safely on disk, before the folder is given its final name."""
    for name in list_files(folder):
        if (folder / name).is_symlink():
            raise WorkspaceError(f"{folder / name} is a link", "an artifact holds its files itself")
        (folder / name).chmod(0o444)
    sync_tree(folder)
