"""The rows of the run table and what a run read and wrote. `trueup.runs` gives them a life."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import sqlalchemy as sa

from ..errors import NotFoundError, brief
from . import schema

ERROR_KEPT = 5_000  # characters: a scorer's error may hold all that it was asked about


@dataclass(frozen=True)
class RunRow:
    """What the database knows of one run; `inputs` and `outputs` are role -> artifact id."""

    id: str
    stage: str
    status: str
    config: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    note: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    started: str = ""
    ended: str = ""
    name: str = ""  # what its result is to be called
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


def insert(connection: sa.Connection, row: RunRow) -> None:
    columns = {key: value for key, value in asdict(row).items() if key not in ("inputs", "outputs")}
    connection.execute(schema.run.insert().values(columns))
    for role, artifact in row.inputs.items():
        link(connection, row.id, "in", role, artifact)


def update(connection: sa.Connection, run: str, **columns: Any) -> None:
    if "error" in columns:
        columns["error"] = brief(columns["error"], ERROR_KEPT)
    changed = connection.execute(schema.run.update().where(schema.run.c.id == run).values(columns))
    assert changed.rowcount == 1, run


def link(connection: sa.Connection, run: str, direction: str, role: str, artifact: str) -> None:
    """Note that a run read (`in`) or wrote (`out`) an artifact; a resumed run may write a role again."""
    table = schema.run_artifact
    same = (table.c.run == run) & (table.c.direction == direction) & (table.c.role == role)
    if connection.execute(table.update().where(same).values(artifact=artifact)).rowcount == 0:
        connection.execute(table.insert().values(run=run, direction=direction, role=role, artifact=artifact))


def newest(
    connection: sa.Connection,
    *,
    status: str = "",
    without: Collection[str] = (),
    offset: int = 0,
    most: int | None = None,
) -> list[RunRow]:
    """Runs, newest first: those of a status, without some, so many of them from a place on."""
    query = sa.select(schema.run.c.id).order_by(schema.run.c.started.desc(), schema.run.c.id.desc())
    query = query.where(schema.run.c.status == status) if status else query
    query = query.where(schema.run.c.id.not_in(without)) if without else query
    return load(connection, list(connection.scalars(query.offset(offset).limit(most))))[::-1]


def count(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(schema.run)).scalar_one()


def load(connection: sa.Connection, ids: Sequence[str] | None = None) -> list[RunRow]:
    """Runs, oldest first: all of them, or those with exactly these ids."""
    query, links = sa.select(schema.run), sa.select(schema.run_artifact).order_by(schema.run_artifact.c.role)
    if ids is not None:
        query, links = query.where(schema.run.c.id.in_(ids)), links.where(schema.run_artifact.c.run.in_(ids))
    ends: dict[tuple[str, str], dict[str, str]] = {}
    for row in connection.execute(links):
        ends.setdefault((row.run, row.direction), {})[row.role] = row.artifact
    rows = connection.execute(query.order_by(schema.run.c.started, schema.run.c.id)).mappings()
    return [
        replace(RunRow(**row), inputs=ends.get((row["id"], "in"), {}), outputs=ends.get((row["id"], "out"), {}))
        for row in rows
    ]


def find(connection: sa.Connection, ref: str) -> RunRow:
    """The run whose id is `ref` or, alone among all, begins with it."""
    ids = list(connection.scalars(sa.select(schema.run.c.id).order_by(schema.run.c.id)))
    matches = [ref] if ref in ids else [each for each in ids if ref and each.startswith(ref)]
    if len(matches) > 1:
        shown = ", ".join(matches[:5]) + (", ..." if len(matches) > 5 else "")
        raise NotFoundError(f"'{ref}' is the beginning of {len(matches)} runs: {shown}", "give more of it")
    if not matches:
        near = get_close_matches(ref, ids, n=3, cutoff=0.5)
        suffix = f" (near: {', '.join(near)})" if near else ""
        raise NotFoundError(f"no run '{ref}'{suffix}", "look at `trueup runs list`")
    return load(connection, matches[:1])[0]
