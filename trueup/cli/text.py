"""Results as text: tables, named values, JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..store import Artifact

LINE_SHOWN = 2_000  # characters of a line of a text that is shown


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "nothing here yet") -> str:
    """Drawn by rich on a terminal; elsewhere plain aligned text, one row a line, for grep and cut."""
    cells = [[cell(item) for item in row] for row in rows]
    if not cells:
        return empty
    return _drawn(columns, cells) if sys.stdout.isatty() else _plain(columns, cells)


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(item) for item in row))  # Text: what users wrote is not markup
    console = Console(file=sys.stdout)
    with console.capture() as capture:
        console.print(drawn)
    return capture.get().strip("\n")


def _plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[column.upper() for column in columns], *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def cell(item: Any) -> str:
    """One value on one line."""
    if item is None:
        return "-"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.4g}"
    if isinstance(item, Mapping):
        return ", ".join(f"{key} {cell(inner)}" for key, inner in item.items())
    if isinstance(item, list | tuple):
        return ", ".join(map(cell, item))
    return printable(" ".join(str(item).split()))


def shortened(text: str) -> str:
    """Without the rest of long lines: a prompt of a megabyte buries all others; JSON has all of it."""
    return "\n".join(_cut(line, LINE_SHOWN) for line in text.split("\n"))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def printable(text: str) -> str:
    """Text from a model or a file may hold what moves a terminal's cursor; show the code instead of obeying it."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def named(values: Mapping[str, Any], indent: str = "") -> str:
    """`name  value` lines; a mapping of mappings becomes indented lines below its name."""
    width = max((len(str(name)) for name in values), default=0)
    lines = []
    for name, item in values.items():
        if isinstance(item, Mapping) and item:
            lines += [f"{indent}{name}", named(item, indent + "  ")]
        elif isinstance(item, list | tuple) and any(isinstance(one, Mapping) for one in item):
            lines += [f"{indent}{name}", *(f"{indent}  {cell(one)}" for one in item)]
        else:
            lines.append(f"{indent}{name:<{width}}  {cell(item)}".rstrip())
    return "\n".join(lines)


def to_json(value: Any) -> str:
    """JSON that any parser reads: a number that is not finite becomes null.

    What moves a terminal's cursor or turns the direction of text stands there as its code, which means the same.
    """
    text = json.dumps(jsonable(value), ensure_ascii=False, indent=2, allow_nan=False)
    return text.translate({ord(c): json.dumps(c)[1:-1] for c in set(text) if not (c.isprintable() or c == "\n")})


def jsonable(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return jsonable(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def artifact_data(artifact: Artifact, names: Mapping[str, str]) -> dict[str, Any]:
    """An artifact as one JSON object. `names` is the workspace's name -> id."""
    return {
        "id": artifact.id,
        "kind": artifact.kind,
        "names": [name for name, identity in names.items() if identity == artifact.id],
        "created": artifact.created,
        "path": str(artifact.path),
        "parents": dict(artifact.parents),
        "meta": dict(artifact.meta),
    }


def artifact_line(artifact: Artifact, name: str = "") -> str:
    """`policy 3fd2c8a1b0c4e5f6 'name'`: what a stage that made one says."""
    return f"{artifact.kind} {artifact.id}" + (f" '{name}'" if name else "")


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
