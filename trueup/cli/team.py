"""`trueup feedback`: the people of a workspace, the guideline of a collection, opening and closing it, adjudication."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, DataError, NotFoundError, nearest
from .command import Command, Group, Result, workspace
from .text import named, table

if TYPE_CHECKING:
    from ..store import Workspace
    from ..store.people import Person

ROLES = ("owner", "manager", "annotator", "viewer")
DAY = 86_400.0
MOST_USES = 100
WEB_SECRET = "web-secret"  # web.security.SECRET_FILE, which only the web extra can import


@click.group(
    "people",
    cls=Group,
    examples="""
    trueup feedback people list
    trueup feedback people role Ada manager
    """,
)
def people() -> None:
    """Who may judge, manage and look."""


@people.command(
    "list",
    examples="""
    trueup feedback people list
    trueup feedback people list --json
    """,
)
def list_people() -> Result:
    """Everybody with role and pseudonym, and the invitations that are still open."""
    from ..store import people as store

    with workspace() as ws:
        everybody, now = store.people(ws.database), time.time()
        invites = [each for each in store.invites(ws.database) if _is_open(each, now)]
    rows = [[each.name, each.role, each.judge, each.collection or "all", each.active] for each in everybody]
    text = table(["name", "role", "pseudonym", "collections", "active"], rows, empty="nobody yet")
    if invites:
        open_ones = [[each["id"], each["role"], each["uses"], _in_days(each["expires"] - now)] for each in invites]
        text += "\n\n" + table(["invitation", "role", "uses left", "ends"], open_ones)
    return Result({"people": [vars(each) for each in everybody], "invitations": invites}, text)


@people.command(
    "role",
    examples="""
    trueup feedback people role Ada manager
    trueup feedback people role human:abc234 viewer
    """,
)
@click.argument("who", metavar="PERSON")
@click.argument("role", type=click.Choice(ROLES))
def change_role(who: str, role: Any) -> Result:
    """Give somebody another role."""
    from ..store import audit
    from ..store import people as store

    with workspace() as ws:
        person = find_person(ws, who)
        store.set_role(ws.database, person.id, role)
        store.end_sessions(ws.database, person.id)  # what they hold open was drawn for the old role
        audit.note(ws.database, time.time(), "", "changed a role", person.id, role=role)
    return Result({"person": person.id, "role": role}, f"{person.name} is {role} now")


@people.command(
    "deactivate",
    examples="""
    trueup feedback people deactivate Ada
    trueup feedback people deactivate Ada --anonymise
    """,
)
@click.argument("who", metavar="PERSON")
@click.option("--anonymise", is_flag=True, help="Also forget the name for good. The judgements stay.")
def deactivate(who: str, anonymise: bool) -> Result:
    """Let somebody in no longer. What they judged stays, under their pseudonym."""
    from ..store import audit
    from ..store import people as store

    with workspace() as ws:
        person = find_person(ws, who)
        secret = _web_secret(ws) if anonymise else None  # first: one that cannot be read must not leave half of it done
        (store.anonymise if anonymise else store.deactivate)(ws.database, person.id)
        if secret is not None:
            store.forget_demographics(ws.database, secret, person.id)
        audit.note(ws.database, time.time(), "", "anonymised" if anonymise else "deactivated", person.id)
    done = "is forgotten" if anonymise else "can no longer sign in"
    return Result({"person": person.id, "anonymised": anonymise}, f"{person.judge} {done}; the judgements stay")


@people.command(
    "revoke",
    examples="""
    trueup feedback people revoke 3f9a0b12c4d5e6f7
    trueup feedback people revoke 3f9a0b12c4d5e6f7 --json
    """,
)
@click.argument("invitation", metavar="INVITATION")
def revoke(invitation: str) -> Result:
    """Make an invitation worthless; `people list` shows the open ones."""
    from ..store import audit
    from ..store import people as store

    with workspace() as ws:
        store.revoke_invite(ws.database, invitation)
        audit.note(ws.database, time.time(), "", "revoked an invitation", invitation)
    return Result({"revoked": invitation}, f"invitation {invitation} no longer works")


@click.command(
    "invite",
    cls=Command,
    examples="""
    trueup feedback invite
    trueup feedback invite --role owner --days 1
    trueup feedback invite --collection titles --uses 20
    """,
)
@click.option("--role", type=click.Choice(ROLES), default="annotator", show_default=True, help="What they become.")
@click.option("--collection", default="", metavar="NAME", help="The only collection they may see [default: all]")
@click.option("--days", type=click.IntRange(1, 90), default=7, show_default=True, help="How long it may be used.")
@click.option("--uses", type=click.IntRange(1, MOST_USES), default=1, show_default=True, help="By how many people.")
@click.option("--address", default="", metavar="URL", help="Where the app is reached, to print the whole link.")
def invite(role: Any, collection: str, days: int, uses: int, address: str) -> Result:
    """Make an invitation and print it, this once: only its hash is stored."""
    from ..store import audit, queue
    from ..store import people as store

    if role == "owner" and collection:
        raise click.UsageError("an owner is an owner of everything: leave --collection out, or choose another role")
    with workspace() as ws:
        scope = queue.collection(ws.database, collection).id if collection else ""
        now = time.time()
        secret = store.new_invite(ws.database, role, "", now, days * DAY, uses, scope)
        audit.note(ws.database, now, "", "invited", scope or "all collections", role=role, days=days, uses=uses)
    link = f"{address.rstrip('/')}/invite/{secret}"
    where = "" if address else "\n(put it behind the address at which people reach `trueup label`)"
    return Result({"link": link, "role": role, "days": days, "uses": uses}, link + where)


@click.command(
    "guideline",
    cls=Command,
    examples="""
    trueup feedback guideline titles
    trueup feedback guideline titles titles.md
    """,
)
@click.argument("collection", metavar="NAME")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
def guideline(collection: str, file: Path | None) -> Result:
    """Print the guideline in force, or put a new version in force: everybody reads it before they go on."""
    from ..store import audit, queue

    with workspace() as ws:
        found = queue.collection(ws.database, collection)
        if file is not None:
            text, now = read_text(file), time.time()
            with ws.database.write() as connection:
                version = queue.add_guideline(connection, found.id, text, now)
                if version != found.guideline:
                    audit.note_within(connection, now, "", "changed the guideline", found.id, version=version)
            found = queue.collection(ws.database, found.id)
        versions = queue.guidelines(ws.database, found.id)
    current = next(each for each in versions if each["id"] == found.guideline)
    text = current["text"] if file is None else f"version {current['number']} is in force"
    return Result(current | {"versions": len(versions)}, text or "there is no guideline yet")


@click.command(
    "close",
    cls=Command,
    examples="""
    trueup feedback close titles
    trueup feedback close titles --reopen
    """,
)
@click.argument("collection", metavar="NAME")
@click.option("--reopen", is_flag=True, help="Hand out again.")
def close(collection: str, reopen: bool) -> Result:
    """End a collection: nothing more is handed out, and answers can no longer be changed."""
    from ..store import audit, queue

    with workspace() as ws:
        found = queue.collection(ws.database, collection)
        with ws.database.write() as connection:
            queue.set_status(connection, found.id, "open" if reopen else "closed")
            audit.note_within(connection, time.time(), "", "opened" if reopen else "closed", found.id)
    state = "open" if reopen else "closed"
    return Result({"collection": found.id, "state": state}, f"{found.name} is {state}")


@click.command(
    "top-up",
    cls=Command,
    examples="""
    trueup feedback top-up titles
    trueup feedback top-up titles --json
    """,
)
@click.argument("collection", metavar="NAME")
def top_up(collection: str) -> Result:
    """Ask one person more about each item whose votes decide nothing, up to the collection's max_overlap."""
    from ..feedback.topup import top_up

    with workspace() as ws:
        items = top_up(ws, collection, time.time())
    return Result({"items": items}, f"{items} items are asked about once more")


@click.command(
    "adjudicate",
    cls=Command,
    examples="""
    trueup feedback adjudicate titles
    trueup feedback adjudicate titles 3f9a --accept 2,1 --cause wrong-year
    trueup feedback adjudicate titles 3f9a --requeue 2
    """,
)
@click.argument("collection", metavar="NAME")
@click.argument("item", metavar="[ITEM]", required=False)
@click.option("--accept", metavar="PLACES", help="The right answer: a place for each completion, such as 2,1 or 1,1.")
@click.option("--requeue", type=click.IntRange(min=1), metavar="N", help="Ask so many people more.")
@click.option("--ambiguous", is_flag=True, help="It can be seen either way: freezing leaves it out.")
@click.option("--clear", is_flag=True, help="End the quarantine of a skipped or flagged item.")
@click.option("--quarantined", is_flag=True, help="List instead what nobody is handed, and why.")
@click.option("--cause", default="", help="Why people disagree, in words.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Longest list.")
def adjudicate(
    collection: str,
    item: str | None,
    accept: str | None,
    requeue: int | None,
    ambiguous: bool,
    clear: bool,
    quarantined: bool,
    cause: str,
    limit: int,
) -> Result:
    """List the items on which people disagree, or decide one. Votes stay as they are; a decision stands beside them."""
    from ..feedback import adjudicate as deciding

    verdicts = {"accept": accept, "requeue": requeue, "ambiguous": ambiguous, "clear": clear}
    chosen: list[Any] = [word for word, given in verdicts.items() if given]
    if item is None:
        if chosen or cause:
            raise click.UsageError("name the ITEM that is to be decided")
        with workspace() as ws:
            return _quarantined(ws, collection, limit) if quarantined else _disputed(ws, collection, limit)
    if len(chosen) != 1 or quarantined:
        raise click.UsageError("choose one of --accept, --requeue, --ambiguous and --clear")
    with workspace() as ws:
        if clear:
            return _cleared(ws, collection, item)
        places, now = _places(accept or ""), time.time()
        made = deciding.decide(ws, collection, item, chosen[0], now=now, ranks=places, more=requeue or 1, cause=cause)
    data = {"item": made.item, "decision": made.decision, "votes": list(made.votes), "unanimous": made.unanimous}
    return Result(data, named(data))


TEAM = (top_up, adjudicate, guideline, close, people, invite)


def find_person(ws: Workspace, who: str) -> Person:
    """By name, pseudonym or id."""
    from ..store import people as store

    everybody = store.people(ws.database)
    for each in everybody:
        if who in (each.name, each.judge, each.id):
            return each
    known = [each.name for each in everybody]
    raise NotFoundError(
        f"nobody is called '{who}'{nearest(who, known)}", "`trueup feedback people list` lists everybody"
    )


# Inside


def _web_secret(ws: Workspace) -> bytes | None:
    """Without one nobody has said anything about themselves, and none is made for this."""
    path = ws.path / WEB_SECRET
    if not path.exists():
        return None
    try:
        from ..web.security import read_secret
    except ImportError as error:
        hint = "without it, what this person said about themselves would stay: pip install 'trueup[web]'"
        raise ConfigError(f"this needs the web app ({error.name} is not installed)", hint) from None
    return read_secret(path)


def _disputed(ws: Workspace, collection: str, limit: int) -> Result:
    from ..feedback.adjudicate import disputed

    found = disputed(ws, collection, limit=limit)
    rows = [
        [each.item.id, each.agreement, len(each.votes), each.decision or None, each.item.prompt.text[:60]]
        for each in found
    ]
    text = table(["item", "agreement", "votes", "decided", "prompt"], rows, empty="nobody disagrees")
    return Result([each.to_json() for each in found], text)


def _quarantined(ws: Workspace, collection: str, limit: int) -> Result:
    from ..store import queue

    found = queue.items(ws.database, queue.collection(ws.database, collection).id, limit=limit, state="quarantined")
    rows = [[each.id, each.reason, each.done, each.prompt.text[:60]] for each in found]
    text = table(["item", "reason", "votes", "prompt"], rows, empty="nothing is in quarantine")
    names = ("item", "reason", "votes", "prompt")
    return Result([dict(zip(names, row, strict=True)) for row in rows], text)


def _cleared(ws: Workspace, collection: str, item: str) -> Result:
    from ..feedback.adjudicate import let_back
    from ..store import queue

    was = let_back(ws, queue.collection(ws.database, collection).id, item, now=time.time())
    return Result({"item": item, "was": was}, f"{item} is handed out again; it was {was}")


def _places(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise click.UsageError(f"--accept {text}: expected places such as 2,1") from None


def _is_open(invite: dict[str, Any], now: float) -> bool:
    return not invite["revoked"] and invite["uses"] > 0 and invite["expires"] > now


def _in_days(seconds: float) -> str:
    return f"in {seconds / DAY:.1f} days"


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", "save it as UTF-8") from None
