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
JUDGEMENT = "judgement"  # in sets of votes: rows that are one; others are skips and decisions


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

    def text(self, *, judgements: bool = False) -> str:
        """A tree for people. An artifact used twice is spelled out once. With `judgements` each of them is named."""
        return "\n".join(self._lines(self.root, "", "", set(), judgements))

    def __str__(self) -> str:
        return self.text()

    def _lines(self, identity: str, label: str, indent: str, shown: set[str], named: bool) -> Iterator[str]:
        node = self.nodes[identity]
        if identity in shown:
            yield f"{label}{node.kind} {identity} (above)"
            return
        shown.add(identity)
        yield label + _headline(node)
        sources = list(node.sources.items())
        for note in _notes(node, named):
            yield f"{indent}{'│  ' if sources else '   '}{note}"
        for place, (role, source) in enumerate(sources, 1):
            branch, below = ("└─ ", "   ") if place == len(sources) else ("├─ ", "│  ")
            yield from self._lines(source, f"{indent}{branch}{role}: ", indent + below, shown, named)


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
    """Who made the judgements in a set: for each source and judge how many different ones, and their ids.

    Several rows may come from one judgement, as where each completion got a thumb; one without an id is one by itself.
    """
    named: dict[tuple[str, str], dict[str, None]] = {}
    nameless: Counter[tuple[str, str]] = Counter()
    for path in sorted([*artifact.path.rglob("*.jsonl"), *artifact.path.rglob("*.jsonl.gz")]):
        for row in read_jsonl(path):
            if "judge" in row and row.get("what", JUDGEMENT) == JUDGEMENT:
                who = (row["source"], row["judge"])
                ids = named.setdefault(who, {})
                if row.get("id"):
                    ids[row["id"]] = None
                else:
                    nameless[who] += 1
    return [
        {"source": who[0], "judge": who[1], "count": len(ids) + nameless[who], "ids": list(ids)}
        for who, ids in sorted(named.items())
    ]


def maker_of(connection: sa.Connection, artifact: str) -> run_rows.RunRow | None:
    """The first run that wrote it."""
    link, run = schema.run_artifact, schema.run
    query = sa.select(run.c.id).join_from(link, run, run.c.id == link.c.run)
    query = query.where(link.c.artifact == artifact, link.c.direction == "out").order_by(run.c.started, run.c.id)
    first = connection.scalar(query.limit(1))
    return None if first is None else run_rows.load(connection, [first])[0]


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
        tuple(count_judgements(artifact)) if _is_judged(artifact) else (),
    )


def _is_judged(artifact: Artifact) -> bool:
    """Demonstrations from a file were judged by nobody; those from a collection are judgements too."""
    from_people = artifact.kind == "demonstrations" and "collection" in artifact.meta
    return from_people or artifact.kind in (*JUDGED, "votes")


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


def _notes(node: Node, named: bool) -> Iterator[str]:
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for entry in node.judgements:
        by_source.setdefault(entry["source"], []).append(entry)
    for source, entries in by_source.items():
        judges = ", ".join(f"{entry['judge']} {entry['count']}" for entry in entries)
        yield f"judgements, {source}: {sum(entry['count'] for entry in entries)} ({judges})"
        for entry in entries if named else ():
            yield from (f"  {entry['judge']} {identity}" for identity in entry["ids"])
    if origin := node.meta.get("source"):  # the file or data set that somebody brought in
        yield f"from: {origin}"
    if not node.sources:
        files = [f"{name} ({human_size(size)})" for name, size in node.files.items()]
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        yield f"files: {', '.join(files[:3])}{more}"
