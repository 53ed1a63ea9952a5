"""The append-only table of what every judge said, whoever or whatever the judge is.

A judgement that came from a queue is stored without its prompt and texts, which its item has: a million judgements
of long texts stay small. Whoever reads judgements gets them whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa

from ..errors import NotFoundError
from ..records import Judgement, Prompt, digest
from . import schema
from .artifacts import ID_LENGTH, plain_json
from .clock import utc_now
from .database import Database, writing

CHUNK = 500  # a transaction: small enough that a person labelling beside a big import hardly waits
T = TypeVar("T")


def add(database: Database | sa.Connection, judgements: Iterable[Judgement], completions: str) -> list[Judgement]:
    """Store judgements of the completion set `completions` (an id); returns them with their ids."""
    stored: list[Judgement] = []
    for chunk in chunks(judgements):
        named = [replace(j, id=judgement_id(j, completions)) for j in chunk]
        with writing(database) as connection:
            _insert_new(connection, named, completions)
        stored += named
    return stored


def append(
    connection: sa.Connection, judgement: Judgement, item: sa.Row[Any], origin: Mapping[str, Any], created: str
) -> None:
    """Store what was said about an item of a queue; `origin` fills the columns that say where it came from."""
    assert judgement.prompt.messages == _messages(item.prompt), "the record is of another prompt"
    record = plain_json(judgement.to_json(), "judgement")
    del record["prompt"]
    if record["completions"] == item.texts:
        del record["completions"]  # they differ where a person wrote one of their own
    row = _row(judgement, item.completions, 0, record) | dict(origin) | {"created": created}
    newest = sa.select(sa.func.coalesce(sa.func.max(schema.judgement.c.position), -1)).scalar_subquery()
    connection.execute(schema.judgement.insert().values(row | {"position": newest + 1}))


def meta_of(connection: sa.Connection, id: str) -> dict[str, Any] | None:
    """What a judgement's record notes besides what was said; None when there is no such judgement."""
    table = schema.judgement
    record = connection.scalar(sa.select(table.c.record).where(table.c.id == id))
    return None if record is None else record.get("meta", {})


def judgement_id(judgement: Judgement, completions: str) -> str:
    """From its content, so adding it twice stores it once. Who asks the same judge again notes it in `meta`."""
    record = plain_json(judgement.to_json(), "judgement")
    del record["id"]
    return digest([completions, record])[:ID_LENGTH]


def with_ids(database: Database, ids: Sequence[str]) -> Iterator[Judgement]:
    """In the order asked for."""
    for chunk in chunks(ids):
        with database.read() as connection:
            rows = connection.execute(_whole().where(schema.judgement.c.id.in_(chunk)))
            found = {row.id: whole(row) for row in rows}
        for each in chunk:
            if each not in found:
                raise NotFoundError(f"no judgement '{each}' in this workspace")
            yield found[each]


def of_completions(database: Database, completions: str | None) -> Iterator[Judgement]:
    """All judgements, or those of one completion set, in the order they came, superseded ones too."""
    only = None if completions is None else schema.judgement.c.completions == completions
    for row in pages(database, _whole(), only):
        yield whole(row)


def pages(database: Database, query: sa.Select[Any], only: sa.ColumnElement[bool] | None = None) -> Iterator[Any]:
    """The rows of a query over judgements in the order they came, without a transaction that stays open.

    `only` says which judgements, by columns of their own. The end of a page is looked up among these first: with a
    limit on the whole query, PostgreSQL joined and sorted all of a million rows for every page.
    """
    place, last = schema.judgement.c.position, -1
    ends = sa.select(place).order_by(place).limit(CHUNK)
    if only is not None:
        ends, query = ends.where(only), query.where(only)
    query = query.order_by(place)
    while True:
        with database.read() as connection:
            page = connection.scalars(ends.where(place > last)).all()
            rows = connection.execute(query.where(place.between(page[0], page[-1]))).all() if page else []
        yield from rows
        if len(page) < CHUNK:
            return
        last = page[-1]


def whole(row: sa.Row[Any]) -> Judgement:
    """A record with the prompt and texts that its item keeps for it."""
    kept = {} if row.prompt is None else {"prompt": row.prompt, "completions": row.texts}
    return Judgement.from_json(kept | row.record)


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _whole() -> sa.Select[Any]:
    table, text = schema.judgement, schema.item_text
    columns = (table.c.id, table.c.position, table.c.record, text.c.prompt, text.c.texts)
    return sa.select(*columns).join_from(table, text, text.c.item == table.c.item, isouter=True)


def _insert_new(connection: sa.Connection, judgements: Sequence[Judgement], completions: str) -> None:
    table = schema.judgement
    ids = [j.id for j in judgements]
    known = set(connection.scalars(sa.select(table.c.id).where(table.c.id.in_(ids))))
    position = _newest(connection)
    rows: dict[str, dict[str, Any]] = {}
    for judgement in judgements:
        if judgement.id not in known and judgement.id not in rows:
            rows[judgement.id] = _row(judgement, completions, position + 1 + len(rows), judgement.to_json())
    if rows:
        connection.execute(table.insert(), list(rows.values()))


def _newest(connection: sa.Connection) -> int:
    newest = connection.scalar(sa.select(sa.func.max(schema.judgement.c.position)))
    return -1 if newest is None else int(newest)


def _row(judgement: Judgement, completions: str, position: int, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": judgement.id,
        "position": position,
        "completions": completions,
        "judge": judgement.judge,
        "source": judgement.source,
        "record": record,
        "created": utc_now(),
    }


def _messages(prompt: Mapping[str, Any]) -> tuple[Any, ...]:
    return Prompt.from_json(prompt).messages
