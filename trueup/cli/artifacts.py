"""`trueup artifacts`, `lineage` and `gc`: what the workspace holds, where it came from, what may go."""

from __future__ import annotations

import click

from ..errors import WorkspaceError
from .command import Command, Group, Result, progress, workspace
from .text import artifact_data, counted, named, table


@click.group(
    cls=Group,
    examples="""
    trueup artifacts list
    trueup artifacts show sft
    """,
)
def artifacts() -> None:
    """Look at what the workspace holds: data, models, results."""


@artifacts.command(
    "list",
    examples="""
    trueup artifacts list
    trueup artifacts list --kind policy --json
    """,
)
@click.option("--kind", help="Only those of one kind.")
def list_artifacts(kind: str | None) -> Result:
    """List artifacts, oldest first."""
    with workspace() as ws:
        names = ws.names()
        found = [artifact_data(artifact, names) for artifact in ws.artifacts(kind)]
    rows = [[a["id"], a["kind"], a["names"], a["created"][:19], a["parents"]] for a in found]
    return Result(found, table(["id", "kind", "names", "created", "made from"], rows, "no artifacts yet"))


@artifacts.command(
    "show",
    examples="""
    trueup artifacts show sft
    trueup artifacts show 3fd2c8a1 --json
    """,
)
@click.argument("ref", metavar="ID")
def show(ref: str) -> Result:
    """Print one artifact: what it is, what it was made from, its files."""
    with workspace() as ws:
        found = artifact_data(ws.get(ref), ws.names()) | {"files": ws.files(ref)}
    sizes = {name: f"{file['bytes']:,} bytes" for name, file in found["files"].items()}
    return Result(found, named(found | {"files": sizes}))


@artifacts.command(
    "name",
    examples="""
    trueup artifacts name 3fd2c8a1 best
    """,
)
@click.argument("ref", metavar="ID")
@click.argument("name", metavar="NAME")
def set_name(ref: str, name: str) -> Result:
    """Let NAME stand for an artifact from now on, whatever it stood for before."""
    with workspace() as ws:
        before = ws.names().get(name)
        ws.set_name(name, ref)
        now = ws.names()[name]
    moved = f" (it stood for {before})" if before not in (None, now) else ""
    return Result({"name": name, "artifact": now, "before": before}, f"{name} is {now}{moved}")


@artifacts.command(
    "verify",
    examples="""
    trueup artifacts verify sft
    trueup artifacts verify
    """,
)
@click.argument("refs", metavar="[ID]...", nargs=-1)
def verify(refs: tuple[str, ...]) -> Result:
    """Hash the files of artifacts (all, if none is named) and compare with what they were when they were made."""
    with workspace() as ws:
        chosen = [ws.get(ref) for ref in refs] or ws.artifacts()
        wrong = {artifact.id: problems for artifact in chosen if (problems := ws.verify(artifact))}
    if wrong:
        lines = [f"\n  {identity}: {problem}" for identity, problems in wrong.items() for problem in problems]
        raise WorkspaceError(
            f"{len(wrong)} of {counted(len(chosen), 'artifact')} changed since it was made:{''.join(lines)}",
            "restore the files from a backup, or make the artifact again",
        )
    return Result({"verified": [artifact.id for artifact in chosen]}, f"{counted(len(chosen), 'artifact')} as made")


@click.command(
    cls=Command,
    examples="""
    trueup lineage tuned
    trueup lineage votes --judgements
    trueup lineage tuned --json
    """,
)
@click.argument("ref", metavar="ID")
@click.option("--judgements", is_flag=True, help="Name every judgement by its id, not only how many there are.")
def lineage(ref: str, judgements: bool) -> Result:
    """Show what an artifact was made from, down to the data files and who judged.

    --json always has the ids of all judgements.
    """
    with workspace() as ws:
        found = ws.lineage(ref)
    return Result(found.to_json(), found.text(judgements=judgements))


@click.command(
    cls=Command,
    examples="""
    trueup gc
    trueup gc --yes
    """,
)
@click.option("--yes", is_flag=True, help="Delete what is listed.")
def gc(yes: bool) -> Result:
    """List what no run, no name and no lineage needs, and what crashes left behind. Deletes only with --yes."""
    from ..store import human_size

    with workspace() as ws:
        unused = ws.unused()
        if yes:
            ws.delete(unused)
    items = [
        {
            "what": item.what,
            "kind": item.artifact.kind if item.artifact else None,
            "id": item.artifact.id if item.artifact else None,
            "path": str(item.path),
            "bytes": item.bytes,
        }
        for item in unused
    ]
    total = sum(item.bytes for item in unused)
    rows = [
        [i["what"], i["kind"], i["id"] or i["path"], human_size(item.bytes)]
        for i, item in zip(items, unused, strict=True)
    ]
    if items:
        verdict = "deleted" if yes else "may go; `trueup gc --yes` deletes them"
        progress(f"{counted(len(items), 'leftover')}, {human_size(total)}: {verdict}")
    return Result(
        {"deleted": yes, "bytes": total, "leftovers": items},
        table(["what", "kind", "which", "size"], rows, "nothing to delete"),
    )
