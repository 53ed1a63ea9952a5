"""The queue of a collection: who is handed which item, for how long, and what becomes of it.

The contract, tested on every database: votes and live leases of an item never exceed its overlap; a person has one
assignment an item and round; a lease that ran out frees the item, and yet no answer is ever thrown away: a late one
counts when the item still wants a vote, otherwise it is kept and marked surplus. Each function is one short
transaction of the only writer, and `now` is given, so time can be injected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import sqlalchemy as sa

from ..errors import DataError, NotFoundError
from ..records import Judgement, digest
from . import categories, judgements, schema
from . import items as item_rows
from .artifacts import ID_LENGTH, plain_json
from .assignments import Assignment, AssignmentState, load_assignment, make_assignment, whole_assignment
from .clock import utc_text
from .collections import (
    Collection,
    acknowledge,
    acknowledged,
    add_guideline,
    collection,
    collections,
    create_collection,
    guidelines,
    new_id,
    plain_text,
    set_status,
)
from .database import Database
from .items import ORDINARY, Item, NewItem, Role, add_items, clear, items, quarantine, release
from .progress import Standing, counts, current_judgements, every_judgement, every_skip, standing

__all__ = [
    "Assignment",
    "Collection",
    "Item",
    "NewItem",
    "Standing",
    "Submitted",
    "acknowledge",
    "acknowledged",
    "add_guideline",
    "add_items",
    "assignment",
    "clear",
    "collection",
    "collections",
    "counts",
    "create_collection",
    "current_judgements",
    "every_judgement",
    "every_skip",
    "guidelines",
    "hand_out",
    "holding",
    "items",
    "opt_out",
    "own_work",
    "postpone",
    "quarantine",
    "release",
    "renew",
    "save_draft",
    "set_status",
    "skip",
    "standing",
    "submit",
    "take_back",
]

Order = Callable[[Item, str, int], tuple[int, ...]]
Helped = Callable[[Item, str], tuple[str, ...] | None]  # helpers whose outputs a person is shown; None: it has none
JUST_JUDGED = 10  # a repeat is never one of these: it would be answered from memory
LONGEST_KEY = 200
BEFORE_ALL = -(1 << 62)


@dataclass(frozen=True)
class Submitted:
    judgement: str
    surplus: bool
    again: bool  # this very answer had come before
    elsewhere: bool = False  # another one had come meanwhile and stands; this one is kept as a draft


@dataclass(frozen=True)
class _Wish:
    """What `hand_out` was asked for, and what an assignment that it makes will say."""

    collection: str
    person: str
    roles: Sequence[str]
    round: int
    now: float
    expires: float
    guideline: str
    order: Order
    helped: Helped
    refuses: bool  # there are categories that the person chose not to be given


def hand_out(
    db: Database,
    collection: str,
    person: str,
    *,
    now: float,
    lease: float,
    order: Order,
    role: Role | None = None,
    repeat: bool = False,
    helped: Helped = lambda item, person: None,
) -> Assignment | None:
    """What the person holds already; else what they let lapse; else the next free item; else what they postponed.

    `role` None means the ordinary work. `repeat` asks for one of their own earlier items instead, in round 1; it takes
    no vote of the item. What somebody chose not to be given they get in none of these ways, unless they hold it because
    they took their own answer back. None when there is nothing.
    """
    roles = ORDINARY if role is None else (role,)
    with db.write() as connection:
        _let_lapse(connection, collection, now)
        if (held := _held(connection, collection, person, now)) is not None:
            return load_assignment(connection, held)
        if (guideline := _guideline_if_open(connection, collection)) is None:
            return None
        refuses = categories.refuses(connection, person)
        wish = _Wish(collection, person, roles, int(repeat), now, now + lease, guideline, order, helped, refuses)
        found = _put_aside(connection, wish, "expired")
        found = found or (_new_repeat if repeat else _new)(connection, wish)
        return found or _put_aside(connection, wish, "postponed")


def holding(db: Database, collection: str, person: str, now: float) -> Assignment | None:
    """The live assignment of a person, the one they turned to last if they took an earlier one back."""
    with db.read() as connection:
        found = _held(connection, collection, person, now)
        return None if found is None else load_assignment(connection, found)


def assignment(db: Database, id: str, person: str) -> Assignment:
    """One of the person's own. Somebody else's is the same error as none at all."""
    with db.read() as connection:
        return load_assignment(connection, _mine(connection, id, person).id)


def save_draft(db: Database, assignment: str, person: str, draft: Mapping[str, Any], now: float) -> None:
    """Keep an unfinished answer. A draft that arrives after the answer itself changes nothing."""
    table = schema.assignment
    plain = plain_json(draft, "draft")
    with db.write() as connection:
        if _mine(connection, assignment, person).state != "done":
            connection.execute(table.update().where(table.c.id == assignment).values(draft=plain))


def renew(db: Database, assignment: str, person: str, now: float, lease: float) -> Assignment:
    """The lease from now on. One that ran out lives again while the item still wants a vote; see the state returned."""
    with db.write() as connection:
        row = _mine_now(connection, assignment, person, now)
        if row.state == "leased":
            _set(connection, row, "leased", expires=now + lease)
        elif row.state == "expired" and _may_resume(connection, row):
            _set(connection, row, "leased", expires=now + lease, counted=int(row.round == 0))
        return load_assignment(connection, assignment)


def submit(
    db: Database, assignment: str, person: str, *, key: str, record: Judgement, now: float, revises: str | None = None
) -> Submitted:
    """Store an answer. The same `key` again changes nothing; another key revises: the new judgement supersedes.

    `revises`, if given, is the judgement that stood when the person was shown the item. Where it no longer is the one
    that stands, they answered in another tab: that answer is not superseded by one that does not know of it.
    """
    if not 0 < len(key) <= LONGEST_KEY:
        raise DataError("an answer without a proper key", "reload the page")
    identity = digest([assignment, key])[:ID_LENGTH]
    with db.write() as connection:
        row = _mine_now(connection, assignment, person, now)
        before = judgements.meta_of(connection, identity)
        if revises is not None and _elsewhere(row, before, record, revises):
            return _keep_as_draft(connection, row, record)
        if before is not None:
            return Submitted(identity, before["surplus"], again=True)
        item = _item(connection, row.item)
        counted = _counts(row, item)
        surplus = row.round == 0 and not counted
        _store(connection, row, item, replace(record, id=identity), surplus, now)
        _set(connection, row, "done", item, counted=counted, judgement=identity, submitted=now, draft=None)
        if not row.judgement:
            _count_done(connection, row, 1)
    return Submitted(identity, surplus, again=False)


def skip(db: Database, assignment: str, person: str, reason: str, now: float, quarantine_after: int) -> None:
    """Give an item up for good. After as many people as `quarantine_after` did, nobody gets it any more."""
    with db.write() as connection:
        row = _mine_now(connection, assignment, person, now)
        if row.state == "skipped":
            return
        _refuse_answered(row)
        reason = plain_text(reason, "the reason")
        _set(connection, row, "skipped", expires=now, judgement="", submitted=None, reason=reason)
        if row.judgement:  # taken back first: the answer is withdrawn
            _count_done(connection, row, -1)
        item = item_rows.narrow(connection, row.item)
        if item.state != "quarantined" and _skips(connection, item) >= quarantine_after:
            item_rows.change(connection, item, state="quarantined", reason=f"skipped: {reason}")


def postpone(db: Database, assignment: str, person: str, now: float) -> None:
    """Put an item aside; it comes again after the others, if nobody else was quicker."""
    with db.write() as connection:
        row = _mine_now(connection, assignment, person, now)
        if row.state in ("postponed", "skipped"):
            return
        _refuse_answered(row)
        _set(connection, row, "done" if row.judgement else "postponed", expires=now)


def take_back(db: Database, assignment: str, person: str, now: float, lease: float = 1800) -> Assignment:
    """Undo a submit: leased again, the old answer as its draft. The judgement stands until another supersedes it."""
    with db.write() as connection:
        row = _mine_now(connection, assignment, person, now)
        if row.state == "done":
            given = judgements.meta_of(connection, row.judgement)
            assert given is not None
            draft = row.draft or given.get("answer")  # a draft that outlived its lease is the newer of the two
            _set(connection, row, "leased", issued=now, expires=now + lease, draft=draft)
        elif not (row.state == "leased" and row.judgement):
            raise DataError("there is no answer to take back", "judge it first")
        return load_assignment(connection, assignment)


def own_work(
    db: Database, collection: str, person: str, limit: int, before: str | None = None, role: Role | None = None
) -> list[Assignment]:
    """What a person has judged, newest first; `before` is the id of the last assignment of the page before."""
    table = schema.assignment
    place = sa.tuple_(table.c.submitted, table.c.id)
    mine = (table.c.collection == collection) & (table.c.person == person) & (table.c.submitted.is_not(None))
    query = whole_assignment().where(mine).order_by(table.c.submitted.desc(), table.c.id.desc()).limit(limit)
    if role is not None:
        query = query.where(schema.item.c.role == role)
    with db.read() as connection:
        if before is not None:
            last = _mine(connection, before, person)
            query = query.where(place < sa.tuple_(sa.literal(last.submitted), sa.literal(last.id)))
        return [make_assignment(row) for row in connection.execute(query)]


def opt_out(db: Database, person: str, choices: Mapping[str, bool], now: float) -> None:
    """Which categories a person is not to be given (True) or may be given (False); those not named stay as they are.

    What they hold of it goes back into the queue. What they said of it stands, and a draft or late answer is kept.
    """
    table = schema.assignment
    held = sa.select(table).where(table.c.person == person, _is("leased"))
    with db.write() as connection:
        welcome = categories.choose(connection, person, choices)
        for row in connection.execute(held).all():
            if categories.is_refused(connection, item_rows.narrow(connection, row.item), person):
                _set(connection, row, "done" if row.judgement else "expired", expires=now)
        standings = sa.select(schema.standing).where(schema.standing.c.person == person)
        for stands in connection.execute(standings).all() if welcome else ():
            _turn_back(connection, stands, welcome)


# Finding something to hand out


def _held(connection: sa.Connection, collection: str, person: str, now: float) -> str | None:
    table = schema.assignment
    query = sa.select(table.c.id).where(
        table.c.collection == collection, _is("leased"), table.c.expires > now, table.c.person == person
    )
    return connection.scalar(query.order_by(table.c.issued.desc(), table.c.id).limit(1))


def _put_aside(connection: sa.Connection, wish: _Wish, state: Literal["expired", "postponed"]) -> Assignment | None:
    """Lease again what a person let lapse (the last one first) or postponed (the first one first), if it is free."""
    table, item = schema.assignment, schema.item
    query = sa.select(table).join(item, item.c.id == table.c.item).where(_of(wish), _is(state))
    query = query.where(item.c.role.in_(wish.roles), table.c.round == wish.round)
    query = query.where(item.c.turn.is_not(None) if wish.round == 0 else item.c.state != "quarantined")
    if wish.refuses:
        query = query.where(_welcome(wish))
    first = table.c.expires.desc() if state == "expired" else table.c.expires
    row = connection.execute(query.order_by(first, table.c.id).limit(1)).first()
    if row is None:
        return None
    times: dict[str, Any] = {"issued": wish.now, "expires": wish.expires}
    _set(connection, row, "leased", counted=int(wish.round == 0), guideline=wish.guideline, **times)
    return load_assignment(connection, row.id)


def _new(connection: sa.Connection, wish: _Wish) -> Assignment | None:
    """The first free item behind what the person has passed, of whichever role has the earlier turn."""
    found = {role: _next_free(connection, wish, role) for role in wish.roles}
    chosen = min((each for each in found.values() if each), key=lambda each: int(each.turn), default=None)
    if wish.refuses:
        for role, each in found.items():
            _pass_refused(connection, wish, role, each)
    if chosen is None:
        return None
    _pass(connection, wish, chosen.role, chosen.turn)
    return _lease(connection, wish, chosen.id)


def _pass(connection: sa.Connection, wish: _Wish, role: str, turn: int) -> None:
    table = schema.standing
    if connection.execute(table.update().where(_stands(wish, role)).values(passed=turn)).rowcount == 0:
        row = {"collection": wish.collection, "role": role, "person": wish.person, "passed": turn}
        connection.execute(table.insert().values(**row, done=0))


def _pass_refused(connection: sa.Connection, wish: _Wish, role: str, found: sa.Row[Any] | None) -> None:
    """What they refuse is looked at once: before what was found for them, or all that waits where nothing was."""
    item = schema.item
    before = sa.select(sa.func.max(item.c.turn)).where(_waits_for(wish, role))
    turn = connection.scalar(before) if found is None else found.turn - 1
    if turn is not None:
        _pass(connection, wish, role, turn)


def _next_free(connection: sa.Connection, wish: _Wish, role: str) -> sa.Row[Any] | None:
    item, theirs = schema.item, schema.assignment
    own = sa.select(theirs.c.id).where(theirs.c.item == item.c.id, theirs.c.person == wish.person, theirs.c.round == 0)
    # As a value and not as EXISTS: a planner may turn EXISTS into a join over everything the person ever did.
    unseen = own.correlate(item).scalar_subquery().is_(None)
    query: sa.Select[Any] = sa.select(item.c.id, item.c.role, item.c.turn).order_by(item.c.turn).limit(1)
    if wish.refuses:
        query = query.where(_welcome(wish))
    return connection.execute(query.where(_waits_for(wish, role), unseen)).first()


def _waits_for(wish: _Wish, role: str) -> sa.ColumnElement[bool]:
    """Free items behind what the person has passed."""
    item = schema.item
    passed = sa.select(schema.standing.c.passed).where(_stands(wish, role)).scalar_subquery()
    here = (item.c.collection == wish.collection) & (item.c.role == role)
    return here & (item.c.turn > sa.func.coalesce(passed, BEFORE_ALL))


def _welcome(wish: _Wish) -> sa.ColumnElement[bool]:
    """Items of no category that the person chose not to be given."""
    return schema.item.c.category.not_in(categories.refused_keys(wish.collection, wish.person))


def _turn_back(connection: sa.Connection, stands: sa.Row[Any], names: Sequence[str]) -> None:
    """A person has passed by what they refused: what they may be given after all lies behind them."""
    table, item = schema.standing, schema.item
    mine = (item.c.collection == stands.collection) & (item.c.role == stands.role) & (item.c.turn <= stands.passed)
    mine &= item.c.category.in_(categories.keys_of(stands.collection, names))
    first = connection.scalar(sa.select(sa.func.min(item.c.turn)).where(mine))
    if first is not None:
        them = (table.c.collection == stands.collection) & (table.c.role == stands.role)
        new = table.update().where(them, table.c.person == stands.person).values(passed=first - 1)
        connection.execute(new)


def _stands(wish: _Wish, role: str) -> sa.ColumnElement[bool]:
    table = schema.standing
    return (table.c.collection == wish.collection) & (table.c.role == role) & (table.c.person == wish.person)


def _new_repeat(connection: sa.Connection, wish: _Wish) -> Assignment | None:
    """One of the person's earlier items, from anywhere in their time so far, that was not repeated before."""
    table, again = schema.assignment, schema.assignment.alias()
    mine = _of(wish) & table.c.submitted.is_not(None) & (table.c.round == 0)
    times = sa.select(table.c.submitted).where(mine)
    first = connection.scalar(times.order_by(table.c.submitted).limit(1))
    last = connection.scalar(times.order_by(table.c.submitted.desc()).offset(JUST_JUDGED).limit(1))
    if first is None or last is None:
        return None
    repeated = sa.select(again.c.id).where(again.c.item == table.c.item, again.c.person == wish.person)
    unrepeated = repeated.where(again.c.round == 1).correlate(table).scalar_subquery().is_(None)
    query = sa.select(table.c.item).join(schema.item, schema.item.c.id == table.c.item)
    query = query.where(mine, _is("done"), schema.item.c.role.in_(wish.roles), unrepeated)
    query = query.where(schema.item.c.state != "quarantined")
    if wish.refuses:
        query = query.where(_welcome(wish))
    query = query.order_by(table.c.submitted, table.c.id).limit(1)
    point = first + (last - first) * int(digest([wish.person, wish.now])[:8], 16) / 0xFFFFFFFF
    for start, end in ((point, last), (first, point)):
        item = connection.scalar(query.where(table.c.submitted >= start, table.c.submitted <= end))
        if item is not None:
            return _lease(connection, wish, item)
    return None


def _lease(connection: sa.Connection, wish: _Wish, item: str) -> Assignment:
    row = _item(connection, item)
    whole = item_rows.make_item(row)
    shown = wish.order(whole, wish.person, wish.round)
    assert sorted(shown) == list(range(len(whole.texts))), f"{shown} is no order of {len(whole.texts)} completions"
    lease: dict[str, Any] = {
        "id": new_id(),
        "collection": wish.collection,
        "person": wish.person,
        "round": wish.round,
        "state": "leased",
        "guideline": wish.guideline,
        "issued": wish.now,
        "expires": wish.expires,
        "submitted": None,
        "draft": None,
        "judgement": "",
    }
    helped = wish.helped(whole, wish.person)
    stored = {"item": item, "counted": int(wish.round == 0), "shown": list(shown), "reason": ""}
    stored["helped"] = None if helped is None else list(helped)
    connection.execute(schema.assignment.insert().values(lease | stored))
    if wish.round == 0:
        item_rows.change(connection, row, leased=row.leased + 1)
    return Assignment(item=whole, order=tuple(shown), helped=helped, **lease)


# What becomes of an assignment


def _set(
    connection: sa.Connection, row: sa.Row[Any], state: AssignmentState, item: sa.Row[Any] | None = None, **columns: Any
) -> None:
    """An assignment in its new state, and its item's counts with it. The only way an assignment changes state."""
    table = schema.assignment
    old = row._asdict()
    new = old | columns | {"state": state}
    connection.execute(table.update().where(table.c.id == row.id).values(state=state, **columns))
    leased = _is_counted(new, "leased") - _is_counted(old, "leased")
    done = _is_counted(new, "done") - _is_counted(old, "done")
    if leased or done:
        item = item or item_rows.narrow(connection, row.item)
        item_rows.change(connection, item, leased=item.leased + leased, done=item.done + done)


def _is_counted(row: Mapping[str, Any], state: str) -> int:
    return int(row["counted"] and row["state"] == state)


def _let_lapse(connection: sa.Connection, collection: str, now: float) -> bool:
    """End the leases that have run out. An answer that was taken back and not replaced stands again."""
    table = schema.assignment
    over = sa.select(table).where(table.c.collection == collection, _is("leased"), table.c.expires <= now)
    rows = connection.execute(over.order_by(table.c.expires, table.c.id)).all()
    for row in rows:
        _set(connection, row, "done" if row.judgement else "expired")
    return bool(rows)


def _counts(row: sa.Row[Any], item: sa.Row[Any]) -> int:
    """Whether an answer now is one of the votes that the item wants. A live lease has its vote reserved."""
    return int(row.counted if row.state in ("leased", "done") or row.round > 0 else item_rows.has_room(item))


def _may_resume(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    item = item_rows.narrow(connection, row.item)
    if categories.is_refused(connection, item, row.person):
        return False
    return bool(item.turn is not None if row.round == 0 else item.state != "quarantined")


def _elsewhere(row: sa.Row[Any], before: Mapping[str, Any] | None, record: Judgement, revises: str) -> bool:
    """Two tabs may share a draft and with it the key, so what came by the same key must be the same answer."""
    return bool(row.judgement != revises if before is None else before.get("answer") != record.meta.get("answer"))


def _keep_as_draft(connection: sa.Connection, row: sa.Row[Any], record: Judgement) -> Submitted:
    _set(connection, row, row.state, draft=record.meta["answer"])
    given = judgements.meta_of(connection, row.judgement)
    assert given is not None
    return Submitted(row.judgement, given["surplus"], again=False, elsewhere=True)


def _refuse_answered(row: sa.Row[Any]) -> None:
    if row.state == "done":
        raise DataError("this was judged already", "take the answer back first")


def _skips(connection: sa.Connection, item: sa.Row[Any]) -> int:
    """Different people who skipped it since a quarantine was last cleared: each has one assignment of round 0."""
    table = schema.assignment
    query = sa.select(sa.func.count(sa.distinct(table.c.person))).where(table.c.item == item.id, _is("skipped"))
    return int(connection.execute(query.where(table.c.expires > item.cleared)).scalar_one())


def _store(
    connection: sa.Connection, row: sa.Row[Any], item: sa.Row[Any], record: Judgement, surplus: bool, now: float
) -> None:
    meta = {**record.meta, "surplus": surplus} | ({"supersedes": row.judgement} if row.judgement else {})
    origin = {"collection": row.collection, "item": row.item, "assignment": row.id, "supersedes": row.judgement or None}
    judgements.append(connection, replace(record, meta=meta), item, origin, utc_text(now))


# Rows


def _item(connection: sa.Connection, id: str) -> sa.Row[Any]:
    """Both halves."""
    return connection.execute(item_rows.whole_item().where(schema.item.c.id == id)).one()


def _is(state: AssignmentState) -> sa.ColumnElement[bool]:
    # Spelled out instead of bound: a partial index is used only for a condition known when the query is planned.
    return schema.assignment.c.state == sa.literal_column(f"'{state}'")


def _mine(connection: sa.Connection, id: str, person: str) -> sa.Row[Any]:
    table = schema.assignment
    row = connection.execute(sa.select(table).where(table.c.id == id, table.c.person == person)).first()
    if row is None:
        raise NotFoundError(f"no assignment '{id}'", "go back to the start page")
    return row


def _mine_now(connection: sa.Connection, id: str, person: str, now: float) -> sa.Row[Any]:
    """One of the person's own, after every lease that has run out by now was ended."""
    row = _mine(connection, id, person)
    return _mine(connection, id, person) if _let_lapse(connection, row.collection, now) else row


def _of(wish: _Wish) -> sa.ColumnElement[bool]:
    table = schema.assignment
    return (table.c.collection == wish.collection) & (table.c.person == wish.person)


def _guideline_if_open(connection: sa.Connection, collection: str) -> str | None:
    table = schema.collection
    row = connection.execute(sa.select(table.c.status, table.c.guideline).where(table.c.id == collection)).first()
    if row is None:
        raise NotFoundError(f"no collection '{collection}'", "look at `trueup feedback status`")
    return str(row.guideline) if row.status == "open" else None


def _count_done(connection: sa.Connection, row: sa.Row[Any], more: int) -> None:
    if row.round > 0:
        return
    table, item = schema.standing, schema.item
    role = sa.select(item.c.role).where(item.c.id == row.item).scalar_subquery()
    mine = (table.c.collection == row.collection) & (table.c.role == role) & (table.c.person == row.person)
    counted = connection.execute(table.update().where(mine).values(done=table.c.done + more))
    assert counted.rowcount == 1, "whoever was handed an item has a standing"
