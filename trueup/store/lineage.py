"""Where an artifact comes from: the artifacts and runs behind it, down to the data files and who judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from . import artifacts, run_rows, schema
from .artifacts import Artifact
from .files import human_size, read_jsonl

JUDGED = ("preferences", "unpaired")  # the kinds whose rows are judgements


@dataclass(frozen=True)
class Node:
    """One artifact in a lineage. `sources` is everything it was made from: its parents and its run's inputs."""

    id: str
    kind: str
    names: tuple[str, ...]
    meta: Mapping[str, Any]
    created: str
    files: Mapping[str, int]
    run: Mapping[str, Any] | None
    sources: Mapping[str, str]
    judgements: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Lineage:
    root: str
    nodes: Mapping[str, Node]

    def to_json(self) -> dict[str, Any]:
        return {"root": self.root, "nodes": [asdict(node) for node in self.nodes.values()]}

    def text(self) -> str:
        """A tree for people. An artifact used twice is spelled out once."""
        return "\n".join(self._lines(self.root, "", "", set()))

    def __str__(self) -> str:
        return self.text()

    def _lines(self, identity: str, label: str, indent: str, shown: set[str]) -> Iterator[str]:
        node = self.nodes[identity]
        if identity in shown:
            yield f"{label}{node.kind} {identity} (above)"
            return
        shown.add(identity)
        yield label + _headline(node)
        sources = list(node.sources.items())
        for note in _notes(node):
            yield f"{indent}{'│  ' if sources else '   '}{note}"
        for place, (role, source) in enumerate(sources, 1):
            branch, below = ("└─ ", "   ") if place == len(sources) else ("├─ ", "│  ")
            yield from self._lines(source, f"{indent}{branch}{role}: ", indent + below, shown)


def trace(connection: sa.Connection, folder: Path, root: str) -> Lineage:
    """Follow parents and run inputs from `root`; every artifact is visited once, so a loop cannot trap it."""
    everything = {a.id: a for a in artifacts.load(connection, folder)}
    makers = _makers(connection)
    names: dict[str, list[str]] = {}
    for row in connection.execute(sa.select(schema.name).order_by(schema.name.c.name)):
        names.setdefault(row.artifact, []).append(row.name)
    nodes: dict[str, Node] = {}
    waiting = [root]
    while waiting:
        if (identity := waiting.pop(0)) not in nodes:
            files = artifacts.files_of(connection, identity)
            node = _node(everything[identity], makers.get(identity), tuple(names.get(identity, ())), files)
            nodes[identity] = node
            waiting += node.sources.values()
    return Lineage(root, nodes)


def count_judgements(artifact: Artifact) -> list[dict[str, Any]]:
    """Who made the judgements in a preference set: one entry for each source and judge."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in sorted([*artifact.path.rglob("*.jsonl"), *artifact.path.rglob("*.jsonl.gz")]):
        counts.update((row["source"], row["judge"]) for row in read_jsonl(path) if "judge" in row)
    return [{"source": source, "judge": judge, "count": n} for (source, judge), n in sorted(counts.items())]


def _makers(connection: sa.Connection) -> dict[str, run_rows.RunRow]:
    """Artifact -> the first run that wrote it."""
    makers: dict[str, run_rows.RunRow] = {}
    for run in run_rows.load(connection):
        for artifact in run.outputs.values():
            makers.setdefault(artifact, run)
    return makers


def _node(
    artifact: Artifact, maker: run_rows.RunRow | None, names: tuple[str, ...], files: Mapping[str, Mapping[str, Any]]
) -> Node:
    return Node(
        artifact.id,
        artifact.kind,
        names,
        artifact.meta,
        artifact.created,
        {name: file["bytes"] for name, file in files.items()},
        {"id": maker.id, "stage": maker.stage, "seed": maker.seed, "note": maker.note} if maker else None,
        _sources(artifact, maker),
        tuple(count_judgements(artifact)) if artifact.kind in JUDGED else (),
    )


def _sources(artifact: Artifact, maker: run_rows.RunRow | None) -> dict[str, str]:
    sources = dict(artifact.parents)
    for role, identity in maker.inputs.items() if maker else ():
        if identity not in sources.values() and identity != artifact.id:
            sources[role if role not in sources else f"{role} (run)"] = identity
    return sources


def _headline(node: Node) -> str:
    names = f" '{', '.join(node.names)}'" if node.names else ""
    run = f"  <- run {node.run['id']}, seed {node.run['seed']}" if node.run else ""
    return f"{node.kind} {node.id}{names}{run}"


def _notes(node: Node) -> Iterator[str]:
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for entry in node.judgements:
        by_source.setdefault(entry["source"], []).append(entry)
    for source, entries in by_source.items():
        judges = ", ".join(f"{entry['judge']} {entry['count']}" for entry in entries)
        yield f"judgements, {source}: {sum(entry['count'] for entry in entries)} ({judges})"
    if origin := node.meta.get("source"):  # the file or data set that somebody brought in
        yield f"from: {origin}"
    if not node.sources:
        files = [f"{name} ({human_size(size)})" for name, size in node.files.items()]
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        yield f"files: {', '.join(files[:3])}{more}"
