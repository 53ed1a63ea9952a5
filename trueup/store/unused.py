"""What `trueup gc` may remove: artifacts that nothing needs, and folders that a crash left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from ..errors import WorkspaceError
from . import artifacts, schema
from .artifacts import Artifact
from .database import Database
from .files import Lock, is_held, remove, size_of, sync_folder


@dataclass(frozen=True)
class Leftover:
    """Something that may go: an artifact, a folder in artifacts/ without a row, or one of a `put` that never ended."""

    what: Literal["artifact", "orphan", "staging"]
    path: Path
    bytes: int
    artifact: Artifact | None = None


def find(connection: sa.Connection, folder: Path, staging: Path) -> list[Leftover]:
    everything = artifacts.load(connection, folder)
    needed = _needed(connection, everything)
    found = [
        Leftover("artifact", a.path, size_of(a.path) if a.path.exists() else 0, a)
        for a in everything
        if a.id not in needed
    ]
    known = {a.id for a in everything}
    orphans = sorted(path for path in folder.iterdir() if path.name not in known)
    found += [Leftover("orphan", path, size_of(path)) for path in orphans]
    return found + [Leftover("staging", path, size_of(path)) for path in _abandoned(staging)]


def delete(database: Database, folder: Path, staging: Path, those: Sequence[Leftover], trash: Path) -> None:
    """Rows first, folders second: stopped in between, what is left is an orphan that the next gc lists."""
    with database.write() as connection:
        unneeded = {item.path for item in find(connection, folder, staging)}
        chosen = [item for item in those if item.path in unneeded]
        _delete_rows(connection, [item.artifact.id for item in chosen if item.artifact])
    with database.write() as connection:  # nobody can register one of these folders while they are moved away
        known = {a.path for a in artifacts.load(connection, folder)}
        for item in chosen:
            if item.what != "staging" and item.path not in known and item.path.exists():
                os.replace(item.path, trash / item.path.name)
        sync_folder(folder)
    for item in chosen:
        if item.what == "staging":
            _delete_abandoned(item.path)


def _delete_abandoned(path: Path) -> None:
    lock = Lock(path.with_suffix(".lock"))
    if lock.acquire(patience=0):
        remove(path)
        remove(lock.path)
        lock.release()


def _needed(connection: sa.Connection, everything: Sequence[Artifact]) -> set[str]:
    roots = sa.union(
        sa.select(schema.name.c.artifact),
        sa.select(schema.run_artifact.c.artifact),
        sa.select(schema.judgement.c.completions),
        sa.select(schema.item.c.completions),
    )
    parents = {a.id: list(a.parents.values()) for a in everything}
    needed: set[str] = set()
    waiting = list(connection.scalars(roots))
    while waiting:
        if (current := waiting.pop()) not in needed:
            needed.add(current)
            waiting += parents[current]
    return needed


def _abandoned(staging: Path) -> Iterator[Path]:
    """Staging folders whose process is gone, and lock files that outlived their folder."""
    for path in sorted(staging.iterdir()) if staging.is_dir() else ():
        paired = path.suffix == ".lock" and path.with_suffix("").exists()
        if not paired and not is_held(path.with_suffix(".lock")):
            yield path


def _delete_rows(connection: sa.Connection, ids: Sequence[str]) -> None:
    link, table = schema.artifact_parent, schema.artifact
    connection.execute(link.delete().where(link.c.child.in_(ids)))
    children = sa.select(link.c.child).where(link.c.parent.in_(ids))
    if child := connection.scalar(children):
        raise WorkspaceError(f"artifact {child} is made from one of those to delete", "delete both, or neither")
    connection.execute(table.delete().where(table.c.id.in_(ids)))
