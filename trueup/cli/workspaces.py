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
    trueup init team --database postgresql://ann@db.example.org/trueup
    """,
)
@click.argument("folder", metavar="DIR")
@click.option(
    "--database",
    metavar="URL",
    default="",
    help="An empty PostgreSQL database instead of a SQLite file; its password comes from the environment.",
)
def init(folder: str, database: str) -> Result:
    """Make a workspace in DIR: one database and the folders of its artifacts and runs.

    One person or one machine needs no more than the SQLite file. A team that labels through several servers names a
    PostgreSQL database; DIR then keeps its URL, and the password is read from $TRUEUP_DATABASE_PASSWORD, $PGPASSWORD
    or ~/.pgpass.
    """
    from ..store import Workspace

    with Workspace.create(folder, database) as made:
        data = {"workspace": str(made.path)} | ({"database": made.database.where} if database else {})
        return Result(data, f"workspace {made.path}")


@click.command(
    cls=Command,
    examples="""
    trueup upgrade work
    trueup --workspace work upgrade
    trueup upgrade team --backed-up
    """,
)
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--backed-up", is_flag=True, help="PostgreSQL only: it is backed up already, with pg_dump.")
def upgrade(folder: str | None, backed_up: bool) -> Result:
    """Back up the database of an older workspace, then migrate it to this version of trueup.

    DIR is by default --workspace, $TRUEUP_WORKSPACE or the current folder. A SQLite database is backed up beside
    itself; of a PostgreSQL database you make the backup yourself and say so.
    """
    from ..store import Workspace
    from ..store.workspace import VARIABLE

    where = folder or chosen_workspace() or os.environ.get(VARIABLE) or "."
    before, after = Workspace.upgrade(where, backed_up=backed_up)
    text = f"upgraded from schema {before} to {after}" if before < after else f"schema {after} is the newest already"
    return Result({"workspace": where, "before": before, "after": after}, text)
