"""Immutable, content-addressed things: how one gets its id, is found again and is listed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..errors import DataError, NotFoundError, WorkspaceError
from ..records import digest
from . import schema

ID_LENGTH = 16
_PREFIX = re.compile(r"[0-9a-f]{4,16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Artifact:
    """A folder of files that never changes, what it is and what it was made from (role -> artifact id)."""

    id: str
    kind: str
    path: Path
    parents: Mapping[str, str]
    meta: Mapping[str, Any]
    created: str

    def __hash__(self) -> int:
        return hash(self.id)


def artifact_id(
    kind: str, meta: Mapping[str, Any], parents: Mapping[str, str], files: Mapping[str, Mapping[str, Any]]
) -> str:
    """Like a git commit: the same content, meta and parents are the same artifact, wherever and whenever made."""
    content = {name: file["sha256"] for name, file in files.items()}
    return digest({"kind": kind, "meta": meta, "parents": parents, "files": content})[:ID_LENGTH]


def plain_json(value: Any, what: str) -> Any:
    """`value` as JSON would give it back. Refuses what JSON cannot hold: NaN, objects, number keys, broken text."""
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise DataError(f"{what}: the key {odd[0]!r} is not text, so it cannot be stored as JSON")
        return {key: plain_json(item, f"{what}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item, what) for item in value]
    try:
        return json.loads(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: {value!r} cannot be stored as JSON: {error}") from error


def check_name(name: str) -> str:
    """A name must be easy to type and must never be mistaken for an id."""
    if not _NAME.fullmatch(name):
        raise WorkspaceError(f"'{name}' cannot be a name", "use letters, digits, '.', '_' and '-'")
    if len(name) == ID_LENGTH and _PREFIX.fullmatch(name):
        raise WorkspaceError(f"'{name}' cannot be a name: it looks like an artifact id", "choose a word")
    return name


def resolve(connection: sa.Connection, ref: str) -> str:
    """The id that `ref` stands for: an id, a name, or the first characters (4 or more) of exactly one id."""
    ids = schema.artifact.c.id
    if found := connection.scalar(sa.select(ids).where(ids == ref)):
        return str(found)
    if found := connection.scalar(sa.select(schema.name.c.artifact).where(schema.name.c.name == ref)):
        return str(found)
    return _by_prefix(connection, ref)


def _by_prefix(connection: sa.Connection, ref: str) -> str:
    ids = schema.artifact.c.id
    matches: list[str] = []
    if _PREFIX.fullmatch(ref):
        matches = [*connection.scalars(sa.select(ids).where(ids.startswith(ref)).order_by(ids))]
    if len(matches) > 1:
        raise NotFoundError(f"'{ref}' is the beginning of {len(matches)} ids: {', '.join(matches)}", "give more of it")
    if not matches:
        raise NotFoundError(f"no artifact '{ref}'{_near(connection, ref)}", "look at `trueup artifacts list`")
    return matches[0]


def _near(connection: sa.Connection, ref: str) -> str:
    names = [*connection.scalars(sa.select(schema.name.c.name)), *connection.scalars(sa.select(schema.artifact.c.id))]
    near = get_close_matches(ref, names, n=3, cutoff=0.5)
    return f" (near: {', '.join(near)})" if near else ""


def load(connection: sa.Connection, folder: Path, ids: Iterable[str] | None = None) -> list[Artifact]:
    """Artifacts with their parents, oldest first; all of them without `ids`."""
    query, parents = sa.select(schema.artifact), sa.select(schema.artifact_parent)
    if ids is not None:
        wanted = list(ids)
        query = query.where(schema.artifact.c.id.in_(wanted))
        parents = parents.where(schema.artifact_parent.c.child.in_(wanted))
    made_from: dict[str, dict[str, str]] = {}
    for row in connection.execute(parents.order_by(schema.artifact_parent.c.role)):
        made_from.setdefault(row.child, {})[row.role] = row.parent
    rows = connection.execute(query.order_by(schema.artifact.c.created, schema.artifact.c.id))
    return [Artifact(r.id, r.kind, folder / r.id, made_from.get(r.id, {}), r.meta, r.created) for r in rows]


def insert(connection: sa.Connection, artifact: Artifact, files: Mapping[str, Mapping[str, Any]]) -> None:
    connection.execute(
        schema.artifact.insert().values(
            id=artifact.id, kind=artifact.kind, meta=artifact.meta, files=files, created=artifact.created
        )
    )
    for role, parent in artifact.parents.items():
        connection.execute(schema.artifact_parent.insert().values(child=artifact.id, role=role, parent=parent))


def files_of(connection: sa.Connection, artifact: str) -> dict[str, dict[str, Any]]:
    """Relative path -> sha256 and size, as they were when the artifact was made."""
    files = connection.scalar(sa.select(schema.artifact.c.files).where(schema.artifact.c.id == artifact))
    assert isinstance(files, dict)
    return files


def point(connection: sa.Connection, name: str, artifact: str) -> None:
    """Let `name` stand for `artifact`, moving it if it stood for another."""
    names = schema.name
    moved = connection.execute(names.update().where(names.c.name == name).values(artifact=artifact))
    if moved.rowcount == 0:
        connection.execute(names.insert().values(name=name, artifact=artifact))
