"""`trueup init` and `trueup upgrade`: the life of a workspace."""

from __future__ import annotations

import os

import click

from .command import Command, Result, chosen_workspace


@click.command(
    cls=Command,
    examples="""
    trueup init work
    trueup init .
    """,
)
@click.argument("folder", metavar="DIR")
def init(folder: str) -> Result:
    """Make a workspace in DIR: one database and the folders of its artifacts and runs."""
    from ..store import Workspace

    with Workspace.create(folder) as made:
        return Result({"workspace": str(made.path)}, f"workspace {made.path}")


@click.command(
    cls=Command,
    examples="""
    trueup upgrade work
    trueup --workspace work upgrade
    """,
)
@click.argument("folder", metavar="[DIR]", required=False)
def upgrade(folder: str | None) -> Result:
    """Back up the database of an older workspace, then migrate it to this version of trueup.

    DIR is by default --workspace, $TRUEUP_WORKSPACE or the current folder.
    """
    from ..store import Workspace
    from ..store.workspace import VARIABLE

    where = folder or chosen_workspace() or os.environ.get(VARIABLE) or "."
    before, after = Workspace.upgrade(where)
    text = f"upgraded from schema {before} to {after}" if before < after else f"schema {after} is the newest already"
    return Result({"workspace": where, "before": before, "after": after}, text)
