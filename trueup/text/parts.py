"""One row with several judgements in it, or several completions of which some are no use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from . import columns
from .columns import Columns, Skip

Part: TypeAlias = tuple[str, Columns | Skip]  # where it stands, and its columns or why it is left out


def the_row(where: str, row: Columns) -> Iterator[Part]:
    yield where, row


def instances(where: str, row: Columns) -> Iterator[Part]:
    """The instances of a self-instruct row as rows of their own."""
    given = row.get("instances")
    if not isinstance(given, list) or not given:
        yield where, row
        return
    for number, instance in enumerate(given, 1):
        place = where if len(given) == 1 else f"{where} instance {number}"
        shared = {name: row.get(name) for name in ("instruction", "category")}
        yield place, {**(instance if isinstance(instance, dict) else {}), **shared}


def usable(
    where: str,
    noun: str,
    row: Columns,
    field: str,
    found: Sequence[Columns],
    read: Callable[[Columns], Columns],
) -> Iterator[Part]:
    """The row with those of its completions that can be read; the others are named one by one."""
    good = []
    for number, each in enumerate(found, 1):
        try:
            good.append(read(each))
        except Skip as reason:
            yield f"{where} {noun} {number}", reason
    if len(good) < 2:
        yield where, Skip(f"fewer than two usable {noun}s: nothing to compare")
    else:
        yield where, {**row, field: good}


def together(rows: Sequence[tuple[str, Columns]], field: str) -> dict[str, list[tuple[str, Columns]]]:
    """Rows by what they hold in a field, in the order in which each value is first met."""
    groups: dict[str, list[tuple[str, Columns]]] = {}
    for where, row in rows:
        groups.setdefault(columns.key(row.get(field)), []).append((where, row))
    return groups
