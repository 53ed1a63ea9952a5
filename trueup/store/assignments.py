"""Assignments: an item in the hands of a person, as it is read from its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from . import items as item_rows
from . import schema
from .items import Item

AssignmentState = Literal["leased", "done", "skipped", "postponed", "expired"]


@dataclass(frozen=True)
class Assignment:
    """An item leased to a person. `order[position]` is the index of the completion shown there, `helped` names the
    helpers whose outputs are shown: None where the item had none when it was handed out."""

    id: str
    item: Item
    collection: str
    person: str
    round: int
    state: AssignmentState
    order: tuple[int, ...]
    guideline: str
    issued: float
    expires: float
    submitted: float | None
    draft: dict[str, Any] | None
    judgement: str
    helped: tuple[str, ...] | None = None


def whole_assignment() -> sa.Select[Any]:
    """Assignments with both halves of their items; the columns that both have are told apart by a prefix."""
    table, item, text = schema.assignment, schema.item, schema.item_text
    query = sa.select(*(column.label(f"a_{column.name}") for column in table.c), *item_rows.WHOLE)
    return query.join_from(table, item, item.c.id == table.c.item).join(text, text.c.item == item.c.id)


def load_assignment(connection: sa.Connection, id: str) -> Assignment:
    return make_assignment(connection.execute(whole_assignment().where(schema.assignment.c.id == id)).one())


def make_assignment(row: sa.Row[Any]) -> Assignment:
    return Assignment(
        row.a_id,
        item_rows.make_item(row),
        row.a_collection,
        row.a_person,
        row.a_round,
        row.a_state,
        tuple(row.a_shown),
        row.a_guideline,
        row.a_issued,
        row.a_expires,
        row.a_submitted,
        row.a_draft,
        row.a_judgement,
        None if row.a_helped is None else tuple(row.a_helped),
    )
