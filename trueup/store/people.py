"""People: who may do what, how they get in, and the pseudonym under which they judge.

A session, an invitation and a token are 256 random bits that are shown once; only their SHA-256 is stored, so a copy
of the database lets nobody in. Passwords come here as hashes already.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import sqlalchemy as sa

from ..errors import DataError, NotFoundError, WorkspaceError
from . import schema
from .artifacts import plain_json
from .clock import utc_text
from .collections import new_id, plain_text
from .database import Database

PersonRole = Literal["owner", "manager", "annotator", "viewer"]
ROLES: tuple[PersonRole, ...] = ("owner", "manager", "annotator", "viewer")
SCOPES = ("export", "status")  # what a program may be let do
TOKEN_PREFIX = "trueup_"  # by which software that looks for leaked secrets can tell one
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another
LONGEST_NAME = 100
MIN_CELL = 5  # people: fewer than these are never counted out


@dataclass(frozen=True)
class Person:
    """`judge` is the pseudonym on their judgements; `collection` the only one they may see, empty for all."""

    id: str
    name: str
    role: PersonRole
    judge: str
    active: bool
    settings: dict[str, Any]
    created: str
    collection: str = ""


def add_person(
    db: Database, name: str, role: PersonRole, now: float, password_hash: str = "", collection: str = ""
) -> Person:
    with db.write() as connection:
        return _add(connection, name, role, now, password_hash, collection)


def local_owner(db: Database, name: str, now: float) -> Person:
    """Whoever sits at the machine: the first owner, or, the first time, one made by this name."""
    for each in people(db):
        if each.role == "owner" and each.active:
            return each
    return add_person(db, name, "owner", now)


def people(db: Database) -> list[Person]:
    """Everybody, in the order they came."""
    table = schema.person
    with db.read() as connection:
        return [_person(row) for row in connection.execute(sa.select(table).order_by(table.c.created, table.c.id))]


def person(db: Database, id: str) -> Person:
    with db.read() as connection:
        return _person(_row(connection, id))


def set_role(db: Database, id: str, role: PersonRole) -> None:
    assert role in ROLES, role
    with db.write() as connection:
        if role != "owner":
            _keep_an_owner(connection, id)
        _update(connection, id, role=role)


def set_settings(db: Database, id: str, settings: Mapping[str, Any]) -> None:
    """Keys, theme and the like: theirs to choose, so nothing that gives a right is kept there."""
    with db.write() as connection:
        _update(connection, id, settings=plain_json(settings, "settings"))


def deactivate(db: Database, id: str) -> None:
    """They are out at once: sessions and tokens end, and what they hold goes back to the queue."""
    with db.write() as connection:
        _deactivate(connection, id)


def anonymise(db: Database, id: str) -> None:
    """Forget who somebody was. Their judgements stay, under the pseudonym that they always had."""
    with db.write() as connection:
        _deactivate(connection, id)
        _update(connection, id, name=_row(connection, id).judge, password_hash="", settings={})
        _end(connection, schema.opt_out, schema.opt_out.c.person == id)


# Passwords and sessions


def set_password_hash(db: Database, id: str, hash: str) -> None:
    """A new password ends every session: whoever knew the old one is out."""
    with db.write() as connection:
        _update(connection, id, password_hash=hash)
        _end(connection, schema.session, schema.session.c.person == id)


def password_hash(db: Database, name: str) -> tuple[Person, str] | None:
    """An active person with a password, by name."""
    table, name = schema.person, unicodedata.normalize("NFC", name)
    with db.read() as connection:
        row = connection.execute(sa.select(table).where(table.c.name == name, table.c.active == 1)).first()
    return None if row is None or not row.password_hash else (_person(row), row.password_hash)


def new_session(db: Database, person: str, now: float, seconds: float) -> str:
    """The token of a new session. Sessions that have run out are swept away on the way."""
    table, secret = schema.session, _new_secret()
    with db.write() as connection:
        _end(connection, table, table.c.expires <= now)
        connection.execute(table.insert().values(hash=_hash(secret), person=person, expires=now + seconds))
    return secret


def session(db: Database, token: str, now: float) -> Person | None:
    table = schema.session
    query = sa.select(schema.person).join(table, table.c.person == schema.person.c.id)
    good = (table.c.hash == _hash(token)) & (table.c.expires > now) & (schema.person.c.active == 1)
    with db.read() as connection:
        row = connection.execute(query.where(good)).first()
    return None if row is None else _person(row)


def end_session(db: Database, token: str) -> None:
    with db.write() as connection:
        _end(connection, schema.session, schema.session.c.hash == _hash(token))


def end_sessions(db: Database, person: str) -> None:
    with db.write() as connection:
        _end(connection, schema.session, schema.session.c.person == person)


# Invitations


def new_invite(
    db: Database, role: PersonRole, by: str, now: float, seconds: float, uses: int = 1, collection: str = ""
) -> str:
    """The secret part of a link that makes whoever opens it a person with this role."""
    assert role in ROLES and uses >= 1
    secret = _new_secret()
    row = {"id": new_id(), "hash": _hash(secret), "role": role, "collection": collection, "by": by, "uses": uses}
    with db.write() as connection:
        row |= {"revoked": 0, "expires": now + seconds, "created": utc_text(now)}
        connection.execute(schema.invite.insert().values(row))
    return secret


def accept_invite(db: Database, token: str, name: str, now: float, password_hash: str) -> Person:
    """A new person. One message for every invitation that is no good: a guess learns nothing from it."""
    table = schema.invite
    with db.write() as connection:
        good = (table.c.hash == _hash(token)) & (table.c.expires > now) & (table.c.uses > 0) & (table.c.revoked == 0)
        row = connection.execute(sa.select(table).where(good)).first()
        if row is None:
            raise DataError("this invitation cannot be used (any more)", "ask whoever invited you for a new one")
        connection.execute(table.update().where(table.c.id == row.id).values(uses=row.uses - 1))
        return _add(connection, name, row.role, now, password_hash, row.collection)


def invites(db: Database) -> list[dict[str, Any]]:
    """All of them as {id, role, collection, by, uses (left), revoked, expires, created}, newest first."""
    table = schema.invite
    columns = [column for column in table.c if column is not table.c.hash]
    with db.read() as connection:
        rows = connection.execute(sa.select(*columns).order_by(table.c.created.desc(), table.c.id)).mappings()
        return [dict(row) | {"revoked": bool(row["revoked"])} for row in rows]


def revoke_invite(db: Database, id: str) -> None:
    table = schema.invite
    with db.write() as connection:
        if connection.execute(table.update().where(table.c.id == id).values(revoked=1)).rowcount == 0:
            raise NotFoundError(f"no invitation '{id}'")


# Tokens for programs: a scope is "export" or "status" or, for one collection only, "export:ID" or "status:ID"


def new_token(db: Database, person: str, scope: str, now: float, seconds: float, collection: str = "") -> str:
    """A token that stands for a person, for one purpose and for a time."""
    assert scope in SCOPES, scope
    secret = TOKEN_PREFIX + _new_secret()
    row = {"id": new_id(), "hash": _hash(secret), "person": person, "expires": now + seconds}
    row["scope"] = f"{scope}:{collection}" if collection else scope
    with db.write() as connection:
        connection.execute(schema.token.insert().values(row))
    return secret


def token(db: Database, token: str, scope: str, now: float) -> Person | None:
    """Whom a good token stands for. Where it is for one collection only, they see no more than that."""
    table = schema.token
    query = sa.select(schema.person, table.c.scope).join(table, table.c.person == schema.person.c.id)
    good = (table.c.hash == _hash(token)) & (table.c.expires > now) & (schema.person.c.active == 1)
    with db.read() as connection:
        row = connection.execute(query.where(good)).first()
    if row is None:
        return None
    purpose, _, only = row.scope.partition(":")
    found = _person(row)
    return replace(found, collection=only or found.collection) if purpose == scope else None


def tokens(db: Database) -> list[dict[str, Any]]:
    """All of them as {id, person, scope, collection ("": all), expires}, those that end first at the start."""
    table = schema.token
    query = sa.select(table.c.id, table.c.person, table.c.scope, table.c.expires)
    with db.read() as connection:
        rows = connection.execute(query.order_by(table.c.expires, table.c.id)).all()
    scopes = [row.scope.partition(":") for row in rows]
    return [
        row._asdict() | {"scope": scope, "collection": only} for row, (scope, _, only) in zip(rows, scopes, strict=True)
    ]


def revoke_token(db: Database, id: str) -> None:
    table = schema.token
    with db.write() as connection:
        if connection.execute(table.delete().where(table.c.id == id)).rowcount == 0:
            raise NotFoundError(f"no token '{id}'", "`trueup feedback token list` lists them")


# Demographics: voluntary, apart from everything else, only ever seen as counts


def set_demographics(db: Database, secret: bytes, person: str, answers: Mapping[str, str]) -> None:
    """Replace what this person said about themselves. Only who holds `secret` can tell whose answers these are."""
    table, answerer = schema.demographic, _answerer(secret, person)
    rows = [
        {"answerer": answerer, "field": plain_text(name, "a field"), "value": plain_text(value, "an answer")}
        for name, value in answers.items()
        if value
    ]
    with db.write() as connection:
        _end(connection, table, table.c.answerer == answerer)
        if rows:
            connection.execute(table.insert(), rows)


@dataclass(frozen=True)
class Told:
    """What people said to one question: how many gave each answer, and whether there were others."""

    counts: Mapping[str, int]
    others: bool  # answers that too few people gave, or without which theirs could be worked out


def demographics(db: Database, min_cell: int = MIN_CELL) -> dict[str, Told]:
    table = schema.demographic
    with db.read() as connection:
        given = Counter((row.field, row.value) for row in connection.execute(sa.select(table.c.field, table.c.value)))
    fields: dict[str, dict[str, int]] = {}
    for (field, value), n in sorted(given.items()):
        fields.setdefault(field, {})[value] = n
    return {field: _told(counts, min_cell) for field, counts in fields.items()}


def _told(counts: Mapping[str, int], min_cell: int) -> Told:
    """Whoever knows how many people answered can take what is shown from it. What is left then has to be several
    answers, and enough people: answers are kept back, the rarest first, until it is."""
    rarest = sorted(counts, key=lambda value: (counts[value], value))
    kept = [value for value in rarest if counts[value] < min_cell]
    while kept and len(kept) < len(rarest) and (len(kept) < 2 or sum(counts[each] for each in kept) < min_cell):
        kept.append(rarest[len(kept)])
    return Told({value: n for value, n in counts.items() if value not in kept}, bool(kept))


def forget_demographics(db: Database, secret: bytes, person: str) -> None:
    with db.write() as connection:
        _end(connection, schema.demographic, schema.demographic.c.answerer == _answerer(secret, person))


# Inside


def _add(
    connection: sa.Connection, name: str, role: PersonRole, now: float, password_hash: str, collection: str
) -> Person:
    assert role in ROLES, role
    table, name = schema.person, _check_name(name)
    if connection.scalar(sa.select(table.c.id).where(table.c.name == name)):
        raise DataError(f"there is somebody called '{name}' already", "choose another name")
    made = Person(new_id(), name, role, _new_judge(connection), True, {}, utc_text(now), collection)
    row = vars(made) | {"active": 1, "password_hash": password_hash}
    connection.execute(table.insert().values(row))
    return made


def _check_name(name: str) -> str:
    # One spelling of é: a Mac sends another than most, and the name would not be found again.
    name = unicodedata.normalize("NFC", plain_text(" ".join(name.split()), "the name"))
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise DataError("this cannot be a name", f"use 1 to {LONGEST_NAME} visible characters")
    if name.startswith("human:"):
        raise DataError("this cannot be a name: it looks like a pseudonym", "choose another name")
    return name


def _new_judge(connection: sa.Connection) -> str:
    table = schema.person
    while True:
        judge = "human:" + "".join(secrets.choice(LETTERS) for _ in range(6))
        if not connection.scalar(sa.select(table.c.id).where(table.c.judge == judge)):
            return judge


def _row(connection: sa.Connection, id: str) -> sa.Row[Any]:
    row = connection.execute(sa.select(schema.person).where(schema.person.c.id == id)).first()
    if row is None:
        raise NotFoundError(f"no person '{id}'", "look at `trueup feedback people`")
    return row


def _update(connection: sa.Connection, id: str, **columns: Any) -> None:
    _row(connection, id)
    connection.execute(schema.person.update().where(schema.person.c.id == id).values(columns))


def _keep_an_owner(connection: sa.Connection, id: str) -> None:
    table = schema.person
    owners = connection.scalars(sa.select(table.c.id).where(table.c.role == "owner", table.c.active == 1)).all()
    if owners == [id]:
        raise WorkspaceError("this is the last owner", "make somebody else an owner first")


def _deactivate(connection: sa.Connection, id: str) -> None:
    _keep_an_owner(connection, id)
    _update(connection, id, active=0)
    _end(connection, schema.session, schema.session.c.person == id)
    _end(connection, schema.token, schema.token.c.person == id)
    work = schema.assignment
    held = (work.c.person == id) & (work.c.state == sa.literal_column("'leased'"))
    connection.execute(work.update().where(held).values(expires=0.0))  # the next hand-out takes them back


def _end(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> None:
    connection.execute(table.delete().where(which))


def _person(row: sa.Row[Any]) -> Person:
    role = cast("PersonRole", row.role)
    return Person(row.id, row.name, role, row.judge, bool(row.active), row.settings, row.created, row.collection)


def _new_secret() -> str:
    return secrets.token_urlsafe(32)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _answerer(secret: bytes, person: str) -> str:
    return hmac.new(secret, person.encode(), hashlib.sha256).hexdigest()
