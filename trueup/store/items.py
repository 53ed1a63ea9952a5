"""Items: one prompt with its completions inside a collection, and their places in the queue.

A free item (open, with fewer votes and leases than it wants) has a `turn`, the others have none. One that becomes free
again gets a new turn behind the others of its priority, so a person's way through the queue only ever goes forward.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from ..errors import DataError, NotFoundError
from ..records import Prompt, digest
from . import categories, schema
from .artifacts import plain_json
from .collections import new_id, update_collection
from .database import Database, writing
from .judgements import CHUNK, chunks

Role = Literal["main", "calibration", "gold", "qualification", "control"]
State = Literal["open", "full", "quarantined"]
ORDINARY: tuple[Role, ...] = ("main", "calibration")  # the work itself; the other roles watch over it
PRIORITY_STEP = 1 << 40  # more turns than a collection can ever use up
MOST_PRIORITY = 1 << 20
NEVER = -1.0  # a moment before all others
WHOLE = [*schema.item.c, *(column for column in schema.item_text.c if column.name != "item")]  # what `make_item` reads


@dataclass(frozen=True)
class NewItem:
    """What `add_items` takes. `key` is the expected answer of a gold, `why` how the item was chosen.

    `help` is what helpers wrote for whoever judges it: {helper, kind, text, places} each, `places` a text a completion.
    """

    prompt: Prompt
    texts: tuple[str, ...]
    completions: str  # the artifact they come from
    finished: tuple[bool, ...]
    models: tuple[str, ...] = ()
    role: Role = "main"
    overlap: int = 1
    key: Mapping[str, Any] | None = None
    why: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["train", "heldout"] = "train"
    priority: int = 0
    help: tuple[Mapping[str, Any], ...] | None = None

    def __post_init__(self) -> None:
        assert 1 <= len(self.texts) == len(self.finished) and self.overlap >= 1
        assert len(self.models) in (0, len(self.texts))
        assert abs(self.priority) < MOST_PRIORITY, "a priority is a small number"


@dataclass(frozen=True)
class Item(NewItem):
    """`done` counts the votes it wanted and got; `reason` says why it is quarantined."""

    id: str = ""
    collection: str = ""
    position: int = 0
    state: State = "open"
    done: int = 0
    reason: str = ""


def add_items(db: Database, collection: str, items: Iterable[NewItem], now: float) -> int:
    """Put items into the queue; returns how many were new. The same texts of a prompt enter once in each role.

    In short transactions: a long import never keeps people from judging, and one that was cut off can be repeated.
    """
    added = 0
    for chunk in chunks(items):
        rows = {row["content"]: row for row in (_rows(collection, each) for each in chunk)}
        with db.write() as connection:
            added += _insert(connection, collection, rows)
    return added


def items(
    db: Database,
    collection: str,
    after: int = -1,
    limit: int = CHUNK,
    role: Role | None = None,
    state: State | None = None,
) -> list[Item]:
    """In the order they came, those behind position `after`."""
    table = schema.item
    query = whole_item().where(table.c.collection == collection, table.c.position > after)
    if role is not None:
        query = query.where(table.c.role == role)
    if state is not None:
        query = query.where(table.c.state == state)
    with db.read() as connection:
        return [make_item(row) for row in connection.execute(query.order_by(table.c.position).limit(limit))]


def splits(db: Database) -> Iterator[tuple[Prompt, str]]:
    """The prompt of every ordinary item of every collection, with the side of the split it is on."""
    table, text = schema.item, schema.item_text
    query = sa.select(table.c.id, table.c.split, text.c.prompt).join_from(table, text, text.c.item == table.c.id)
    query = query.where(table.c.role.in_(ORDINARY)).order_by(table.c.id).limit(CHUNK)
    last = ""
    while True:
        with db.read() as connection:
            rows = connection.execute(query.where(table.c.id > last)).all()
        yield from ((Prompt.from_json(row.prompt), row.split) for row in rows)
        if len(rows) < CHUNK:
            return
        last = rows[-1].id


def bring_forward(db: Database, collection: str, whys: Mapping[str, Mapping[str, Any]]) -> int:
    """Let these items (id -> why, as it is to stand from now on) come before all that waits, in this order.

    One that somebody has judged meanwhile, or that waits no longer, stays as it is. Returns how many were moved.
    """
    table, moved = schema.item, 0
    with db.read() as connection:
        waits = (table.c.collection == collection) & table.c.turn.is_not(None)
        highest = connection.scalar(sa.select(sa.func.max(table.c.priority)).where(waits))
    priority = max(0, highest or 0) + 1
    assert priority < MOST_PRIORITY
    for chunk in chunks(whys.items()):
        with db.write() as connection:
            moved += _move(connection, collection, dict(chunk), priority)
    return moved


def release(db: Database | sa.Connection, item: str, overlap: int) -> None:
    """Ask for `overlap` votes in all: back into the queue when it has fewer, out of it when it has them."""
    assert overlap >= 1
    with writing(db) as connection:
        change(connection, narrow(connection, item), overlap=overlap)


def quarantine(db: Database | sa.Connection, item: str, reason: str, now: float) -> None:
    """Hand it out to nobody until it is cleared. Who is judging it may finish."""
    with writing(db) as connection:
        change(connection, narrow(connection, item), state="quarantined", reason=reason)


def clear(db: Database | sa.Connection, item: str, now: float) -> None:
    """End a quarantine; the skips that led to it count no longer."""
    with writing(db) as connection:
        change(connection, narrow(connection, item), state="open", reason="", cleared=now)


# Inside the store


def narrow(connection: sa.Connection, item: str) -> sa.Row[Any]:
    row = connection.execute(sa.select(schema.item).where(schema.item.c.id == item)).first()
    if row is None:
        raise NotFoundError(f"no item '{item}'")
    return row


def has_room(item: sa.Row[Any]) -> bool:
    """Whether one more vote would be within what the item wants."""
    return bool(item.done + item.leased < item.overlap)


def change(connection: sa.Connection, item: sa.Row[Any], **columns: Any) -> None:
    """Write an item's columns, and let it enter or leave the queue as they say. The only way an item changes."""
    old = item._asdict()
    new = old | columns
    if new["state"] != "quarantined":
        new["state"] = "full" if new["done"] >= new["overlap"] else "open"
    free = new["state"] == "open" and new["done"] + new["leased"] < new["overlap"]
    if free and item.turn is None:
        new["turn"] = _turns(connection, item.collection, 1) - item.priority * PRIORITY_STEP
        _call_back(connection, item.collection, item.role, new["turn"])
    elif not free:
        new["turn"] = None
    changed = {name: value for name, value in new.items() if value != old[name]}
    if changed:
        connection.execute(schema.item.update().where(schema.item.c.id == item.id).values(changed))
    if item.role in ORDINARY and (more := _wanted(new) - _wanted(old)):
        update_collection(connection, item.collection, wanted=schema.collection.c.wanted + more)
        if item.category:
            categories.want(connection, item.collection, item.category, more)


def whole_item() -> sa.Select[Any]:
    return sa.select(*WHOLE).join_from(schema.item, schema.item_text, schema.item_text.c.item == schema.item.c.id)


def make_item(row: sa.Row[Any]) -> Item:
    return Item(
        prompt=Prompt.from_json(row.prompt),
        texts=tuple(row.texts),
        completions=row.completions,
        finished=tuple(row.finished),
        models=tuple(row.models),
        role=row.role,
        overlap=row.overlap,
        key=row.key,
        why=row.why,
        split=row.split,
        priority=row.priority,
        help=None if row.help is None else tuple(row.help),
        id=row.id,
        collection=row.collection,
        position=row.position,
        state=row.state,
        done=row.done,
        reason=row.reason,
    )


def _rows(collection: str, item: NewItem) -> dict[str, Any]:
    """Both halves of an item's row, without its places."""
    content = digest([item.role, item.prompt.id, sorted(item.texts)])
    wide = {name: asdict(item)[name] for name in ("texts", "finished", "models", "key", "why", "help")}
    wide["prompt"] = item.prompt.to_json()
    identity, names = new_id(), categories.names_of(item.prompt)
    return {
        "content": content,
        "categories": names,
        "wide": {"item": identity} | {name: plain_json(value, f"item.{name}") for name, value in wide.items()},
        "narrow": {
            "id": identity,
            "collection": collection,
            "content": content,
            "completions": item.completions,
            "role": item.role,
            "split": item.split,
            "state": "open",
            "reason": "",
            "cleared": NEVER,
            "priority": item.priority,
            "overlap": item.overlap,
            "done": 0,
            "leased": 0,
            "category": categories.key_of(names),
        },
    }


def _insert(connection: sa.Connection, collection: str, rows: Mapping[str, dict[str, Any]]) -> int:
    table = schema.item
    mine = table.c.collection == collection
    known = set(connection.scalars(sa.select(table.c.content).where(mine, table.c.content.in_(list(rows)))))
    new = [row for content, row in rows.items() if content not in known]
    if not new:
        return 0
    position = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(table.c.position), -1)).where(mine))
    assert position is not None
    turn = _turns(connection, collection, len(new))
    for place, row in enumerate(new):
        row["narrow"]["position"] = position + 1 + place
        row["narrow"]["turn"] = turn + place - row["narrow"]["priority"] * PRIORITY_STEP
    try:
        connection.execute(table.insert(), [row["narrow"] for row in new])
    except sa.exc.IntegrityError as error:
        raise DataError("an item names a completion set that is not in this workspace") from error
    connection.execute(schema.item_text.insert(), [row["wide"] for row in new])
    _enter(connection, collection, new)
    return len(new)


def _move(connection: sa.Connection, collection: str, whys: Mapping[str, Mapping[str, Any]], priority: int) -> int:
    table, text = schema.item, schema.item_text
    query = sa.select(table.c.id, table.c.role).where(table.c.id.in_(list(whys)), table.c.collection == collection)
    roles = {row.id: row.role for row in connection.execute(query.where(table.c.turn.is_not(None), table.c.done == 0))}
    moved = [item for item in whys if item in roles]
    if not moved:
        return 0
    first = _turns(connection, collection, len(moved)) - priority * PRIORITY_STEP
    turns = {item: first + place for place, item in enumerate(moved)}
    new = table.update().where(table.c.id == sa.bindparam("of")).values(turn=sa.bindparam("at"), priority=priority)
    connection.execute(new, [{"of": item, "at": turn} for item, turn in turns.items()])
    new = text.update().where(text.c.item == sa.bindparam("of")).values(why=sa.bindparam("said"))
    connection.execute(new, [{"of": item, "said": plain_json(whys[item], "item.why")} for item in moved])
    for role in {roles[item] for item in moved}:
        _call_back(connection, collection, role, min(turn for item, turn in turns.items() if roles[item] == role))
    return len(moved)


def _enter(connection: sa.Connection, collection: str, new: Sequence[Mapping[str, Any]]) -> None:
    """Count new items, and call back whoever has passed the places they were given."""
    rows = [row["narrow"] for row in new]
    ordinary = [row for row in rows if row["role"] in ORDINARY]
    counts = schema.collection.c
    wanted = counts.wanted + sum(_wanted(row) for row in ordinary)
    update_collection(connection, collection, size=counts.size + len(ordinary), wanted=wanted)
    names = {row["narrow"]["category"]: row["categories"] for row in new if row["categories"]}
    categories.enter(connection, collection, names, {key: _counted(rows, key) for key in names})
    for role in {row["role"] for row in rows}:
        _call_back(connection, collection, role, min(row["turn"] for row in rows if row["role"] == role))


def _counted(rows: Sequence[Mapping[str, Any]], category: str) -> tuple[int, int]:
    mine = [row for row in rows if row["category"] == category and row["role"] in ORDINARY]
    return len(mine), sum(map(_wanted, mine))


def _turns(connection: sa.Connection, collection: str, n: int) -> int:
    """The first of `n` turns that nobody had before."""
    update_collection(connection, collection, turns=schema.collection.c.turns + n)
    table = schema.collection
    return int(connection.execute(sa.select(table.c.turns).where(table.c.id == collection)).scalar_one()) - n


def _call_back(connection: sa.Connection, collection: str, role: str, turn: int) -> None:
    """Nobody may have passed `turn` already: it is free now. Only a higher priority ever moves anybody."""
    table = schema.standing
    passed = (table.c.collection == collection) & (table.c.role == role) & (table.c.passed >= turn)
    connection.execute(table.update().where(passed).values(passed=turn - 1))


def _wanted(item: Mapping[str, Any]) -> int:
    """Votes still to give."""
    return 0 if item["state"] == "quarantined" else max(0, int(item["overlap"]) - int(item["done"]))
