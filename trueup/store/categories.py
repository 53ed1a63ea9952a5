"""What items are about, and who chose not to be given what.

The categories of an item are the tag of its prompt: one name or a list of them. Items with the same names have the same
`key`; how many of them there are, and how many votes they want, is kept beside the rows that it is counted from, as it
is for whole collections. Whoever refuses one of the names is given none of these items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..records import Prompt
from . import schema
from .database import Database

TAG = "category"  # in the meta of a prompt
LONGEST_NAME = 100
LONGEST_KEY = 500  # bytes: what is longer does not fit into an index of PostgreSQL


@dataclass(frozen=True)
class Category:
    """One combination of names in a collection: `size` items of the ordinary work that want `wanted` more votes."""

    key: str
    names: tuple[str, ...]
    size: int
    wanted: int


def names_of(prompt: Prompt) -> tuple[str, ...]:
    tags = prompt.meta.get(TAG)
    given: Iterable[Any] = tags if isinstance(tags, list | tuple) else [tags] if isinstance(tags, str | int) else ()
    return tuple(sorted({plain_name(str(tag)) for tag in given} - {""}))


def category_of(prompt: Prompt) -> str:
    """The key of an item about this prompt; nothing where it has no tag."""
    return key_of(names_of(prompt))


def plain_name(tag: str) -> str:
    """One spelling of a category, which can be shown and stored whatever the tag holds."""
    words = " ".join(tag.split()).casefold()
    return "".join(c for c in words if c.isprintable())[:LONGEST_NAME].strip()


def key_of(names: Sequence[str]) -> str:
    joined = "\n".join(names)
    return joined if len(joined.encode()) <= LONGEST_KEY else hashlib.sha256(joined.encode()).hexdigest()


def categories(db: Database, collections: Sequence[str]) -> list[Category]:
    """Those of these collections, by key; a combination that several have is there several times."""
    table = schema.category
    query = sa.select(table).where(table.c.collection.in_(collections))
    found: dict[tuple[str, str], Category] = {}
    with db.read() as connection:
        for row in connection.execute(query.order_by(table.c.collection, table.c.key, table.c.name)):
            before = found.get((row.collection, row.key))
            names = (*(before.names if before else ()), row.name)
            found[row.collection, row.key] = Category(row.key, names, row.size, row.wanted)
    return list(found.values())


def refused_names(db: Database) -> dict[str, set[str]]:
    """Person -> the categories that they chose not to be given; only who chose some."""
    table = schema.opt_out
    found: dict[str, set[str]] = {}
    with db.read() as connection:
        for row in connection.execute(sa.select(table)):
            found.setdefault(row.person, set()).add(row.category)
    return found


def refused_by(db: Database, person: str) -> set[str]:
    """The names that a person chose not to be given."""
    table = schema.opt_out
    with db.read() as connection:
        return set(connection.scalars(sa.select(table.c.category).where(table.c.person == person)))


def refused_in(db: Database, collection: str, person: str) -> frozenset[str]:
    """The keys of a collection that a person is not to be given."""
    with db.read() as connection:
        return frozenset(connection.scalars(refused_keys(collection, person)))


def waiting(db: Database, collection: str, keys: Sequence[str]) -> dict[str, int]:
    """Key -> items of the ordinary work that wait for somebody to take them."""
    table = schema.item
    query = sa.select(table.c.category, sa.func.count().label("n")).where(table.c.collection == collection)
    query = query.where(table.c.role.in_(("main", "calibration")), table.c.turn.is_not(None))
    with db.read() as connection:
        rows = connection.execute(query.where(table.c.category.in_(keys)).group_by(table.c.category)).all()
    return {row.category: row.n for row in rows}


# Inside the store


def refuses(connection: sa.Connection, person: str) -> bool:
    query = sa.select(schema.opt_out.c.category).where(schema.opt_out.c.person == person).limit(1)
    return connection.scalar(query) is not None


def refused_keys(collection: str, person: str) -> sa.Select[tuple[str]]:
    """The keys of a collection of which a person refuses a name."""
    table, theirs = schema.category, schema.opt_out
    query = sa.select(table.c.key).join(theirs, theirs.c.category == table.c.name)
    return query.where(table.c.collection == collection, theirs.c.person == person)


def keys_of(collection: str, names: Sequence[str]) -> sa.Select[tuple[str]]:
    table = schema.category
    return sa.select(table.c.key).where(table.c.collection == collection, table.c.name.in_(names))


def is_refused(connection: sa.Connection, item: sa.Row[Any], person: str) -> bool:
    if not item.category:
        return False
    same = refused_keys(item.collection, person).where(schema.category.c.key == item.category)
    return connection.scalar(same.limit(1)) is not None


def choose(connection: sa.Connection, person: str, choices: Mapping[str, bool]) -> list[str]:
    """Note what a person is not to be given (True) or may be given (False); returns what they refused until now."""
    table = schema.opt_out
    mine = table.c.person == person
    before = set(connection.scalars(sa.select(table.c.category).where(mine)))
    if new := [name for name, refused in choices.items() if refused and name not in before]:
        connection.execute(table.insert(), [{"person": person, "category": name} for name in new])
    welcome = [name for name, refused in choices.items() if not refused and name in before]
    connection.execute(table.delete().where(mine, table.c.category.in_(welcome)))
    return welcome


def enter(
    connection: sa.Connection,
    collection: str,
    names: Mapping[str, Sequence[str]],
    counts: Mapping[str, tuple[int, int]],
) -> None:
    """Count new items: `counts` has how many there are of each key, and how many votes they want."""
    table = schema.category
    for key, (size, wanted) in counts.items():
        same = (table.c.collection == collection) & (table.c.key == key)
        more = {"size": table.c.size + size, "wanted": table.c.wanted + wanted}
        if connection.execute(table.update().where(same).values(more)).rowcount == 0:
            row = {"collection": collection, "key": key, "size": size, "wanted": wanted}
            connection.execute(table.insert(), [row | {"name": name} for name in names[key]])


def want(connection: sa.Connection, collection: str, key: str, more: int) -> None:
    """So many more votes are wanted, or fewer."""
    table = schema.category
    same = (table.c.collection == collection) & (table.c.key == key)
    assert connection.execute(table.update().where(same).values(wanted=table.c.wanted + more)).rowcount > 0
