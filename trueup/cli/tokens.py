"""`trueup feedback token`: programs that may read the progress or the judgements of collections over the network."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ..errors import DataError
from .command import Group, Result, workspace
from .team import DAY, find_person
from .text import table

if TYPE_CHECKING:
    from ..store import Workspace
    from ..store.people import Person


@click.group(
    "token",
    cls=Group,
    examples="""
    trueup feedback token new --scope export --collection titles
    trueup feedback token list
    """,
)
def token() -> None:
    """Tokens by which programs read from `trueup label` over the network."""


@token.command(
    "new",
    examples="""
    trueup feedback token new --scope status --days 90
    trueup feedback token new --scope export --collection titles
    """,
)
@click.option("--scope", type=click.Choice(("export", "status")), required=True, help="What may be read with it.")
@click.option("--collection", default="", metavar="NAME", help="The only collection it is for [default: all]")
@click.option("--days", type=click.IntRange(1, 365), default=30, show_default=True, help="How long it is good.")
@click.option("--owner", default="", metavar="PERSON", help="Whom it stands for, where there are several owners.")
def new(scope: str, collection: str, days: int, owner: str) -> Result:
    """Make a token and print it, this once: only its hash is stored. It ends with the account of its owner."""
    from ..store import audit, people, queue

    with workspace() as ws:
        person = _owner(ws, owner)
        bound = queue.collection(ws.database, collection).id if collection else ""
        now = time.time()
        secret = people.new_token(ws.database, person.id, scope, now, days * DAY, bound)
        about = bound or "all collections"
        audit.note(ws.database, now, "", "made a token", about, scope=scope, days=days, owner=person.id)
    path = f"/api/{scope}/{collection or 'COLLECTION'}"
    how = f"(a program sends it to {path} in the header `Authorization: Bearer TOKEN`)"
    return Result({"token": secret, "scope": scope, "days": days, "path": path}, f"{secret}\n{how}")


@token.command(
    "list",
    examples="""
    trueup feedback token list
    trueup feedback token list --json
    """,
)
def list_tokens() -> Result:
    """The tokens that are good now, without what would let anybody use them."""
    from ..store import people, queue

    with workspace() as ws:
        now = time.time()
        good = [each for each in people.tokens(ws.database) if each["expires"] > now]
        owners = {each.id: each.name for each in people.people(ws.database)}
        collections = {each.id: each.name for each in queue.collections(ws.database)} | {"": "all"}
    rows = [
        [e["id"], e["scope"], collections[e["collection"]], owners[e["person"]], _in_days(e["expires"] - now)]
        for e in good
    ]
    return Result(good, table(["token", "scope", "collection", "owner", "ends"], rows, empty="no tokens"))


@token.command(
    "revoke",
    examples="""
    trueup feedback token revoke 3f9a0b12c4d5e6f7
    trueup feedback token revoke 3f9a0b12c4d5e6f7 --json
    """,
)
@click.argument("id", metavar="TOKEN")
def revoke(id: str) -> Result:
    """Make a token worthless; `token list` shows their ids."""
    from ..store import audit, people

    with workspace() as ws:
        people.revoke_token(ws.database, id)
        audit.note(ws.database, time.time(), "", "revoked a token", id)
    return Result({"revoked": id}, f"token {id} no longer works")


def _owner(ws: Workspace, who: str) -> Person:
    """The one that is named, else the only one there is."""
    from ..feedback import roles
    from ..store import people

    if who:
        person = find_person(ws, who)
        roles.require(person.role, "manage tokens")
        return person
    owners = [each for each in people.people(ws.database) if each.active and roles.may(each.role, "manage tokens")]
    if len(owners) != 1:
        hint = "choose one with --owner" if owners else "open `trueup label` once: whoever does becomes the owner"
        raise DataError(f"a token stands for an owner, and there are {len(owners)}", hint)
    return owners[0]


def _in_days(seconds: float) -> str:
    return f"in {seconds / DAY:.1f} days"
