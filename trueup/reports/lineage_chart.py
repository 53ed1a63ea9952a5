"""What an artifact was made of, as a picture: sources above, what was made of them below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from .charts import drawing, label_of

HIGH, BETWEEN, GAP = 42, 40, 10  # of a box, between two rows, between two boxes
WIDEST, NARROWEST = 210, 104
CLEAR = 6  # room that a line needs to pass between two boxes

Node = Mapping[str, Any]
Box = tuple[float, float, float]  # left, top, width


def lineage_chart(nodes: Sequence[Node], *, width: int = 340) -> str:
    """Every artifact a box with its name, its kind and the stage that made it; lines go down to what it is part of."""
    boxes, bottom = _placed(nodes, width)
    lines = [
        _line(boxes[source], boxes[node["id"]], boxes.values(), width)
        for node in nodes for source in node["sources"].values() if source in boxes
    ]  # fmt: skip
    said = "; ".join(f"{_name(node)} from {_sources(node, nodes)}" for node in nodes if node["sources"])
    drawn = [_box(node, boxes[node["id"]]) for node in nodes]
    return drawing(width, bottom, "Lineage", said or "one artifact, made of nothing else here", [*lines, *drawn])


def levels(nodes: Sequence[Node]) -> list[list[Node]]:
    """Rows of the picture: an artifact stands below everything it was made of, as near to it as that allows."""
    by_id = {node["id"]: node for node in nodes}
    depth: dict[str, int] = {}

    def deep(identity: str, above: frozenset[str] = frozenset()) -> int:
        if identity not in depth:
            sources = [each for each in by_id[identity]["sources"].values() if each in by_id and each not in above]
            depth[identity] = 1 + max((deep(each, above | {identity}) for each in sources), default=-1)
        return depth[identity]

    for identity in by_id:
        deep(identity)
    users: dict[str, list[str]] = {}
    for node in nodes:
        for source in node["sources"].values():
            users.setdefault(source, []).append(node["id"])
    for identity in sorted(by_id, key=lambda each: -depth[each]):  # what comes from nowhere stands just above its use
        if not by_id[identity]["sources"] and users.get(identity):
            depth[identity] = min(depth[user] for user in users[identity]) - 1
    rows: list[list[Node]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for node in nodes:
        rows[depth[node["id"]]].append(node)
    return [row for row in rows if row]


def _placed(nodes: Sequence[Node], width: int) -> tuple[dict[str, Box], float]:
    """Each box near the middle of what it was made of; a row that is too full goes on in another line."""
    fitting = max(1, int((width + GAP) // (NARROWEST + GAP)))
    boxes: dict[str, Box] = {}
    top = 4.0
    for row in levels(nodes):
        ordered = sorted(row, key=lambda node: _middle_of_sources(node, boxes, width))
        for start in range(0, len(ordered), fitting):
            line = ordered[start : start + fitting]
            wide = min(WIDEST, (width - GAP * (len(line) - 1)) / len(line) - 2)
            step = width / len(line)
            boxes |= {node["id"]: (step * (i + 0.5) - wide / 2, top, wide) for i, node in enumerate(line)}
            top += HIGH + (GAP if start + fitting < len(ordered) else BETWEEN)
    return boxes, top - BETWEEN + 4


def _middle_of_sources(node: Node, boxes: Mapping[str, Box], width: int) -> float:
    middles = [boxes[each][0] + boxes[each][2] / 2 for each in node["sources"].values() if each in boxes]
    return sum(middles) / len(middles) if middles else width / 2


def _line(above: Box, below: Box, boxes: Iterable[Box], width: int) -> str:
    """Down from one to the other, past the boxes between them and never behind one, where there is room."""
    x1, y1, x2, y2 = above[0] + above[2] / 2, above[1] + HIGH, below[0] + below[2] / 2, below[1]
    tops = sorted({top for _, top, _ in boxes if y1 < top and top + HIGH < y2})
    path, x, y = f"M{x1:.1f},{y1:.1f}", x1, y1
    for top in tops:
        past = _free(x + (x2 - x) * (top - y) / (y2 - y), [box for box in boxes if box[1] == top], width)
        path += _curve(x, y, past, top) + f" L{past:.1f},{top + HIGH:.1f}"
        x, y = past, top + HIGH
    path += _curve(x, y, x2, y2)
    return f'<path d="{path}" fill="none" stroke="var(--muted,#66625c)" stroke-width="1.2" opacity="0.6"/>'


def _curve(x1: float, y1: float, x2: float, y2: float) -> str:
    half = (y2 - y1) / 2
    return f" C{x1:.1f},{y1 + half:.1f} {x2:.1f},{y2 - half:.1f} {x2:.1f},{y2:.1f}"


def _free(wanted: float, row: Sequence[Box], width: int) -> float:
    """The place nearest to the wanted one at which a line can pass a row of boxes."""
    sides = [0.0, *(end for left, _, wide in sorted(row) for end in (left, left + wide)), float(width)]
    gaps = [(low, high) for low, high in pairwise(sides) if high - low > CLEAR]
    gaps = [gap for gap in gaps if not any(left < sum(gap) / 2 < left + wide for left, _, wide in row)]
    if not gaps:
        return wanted  # the row is full: behind a box, then
    places = [min(max(wanted, low + CLEAR / 2), high - CLEAR / 2) for low, high in gaps]
    return min(places, key=lambda place: abs(place - wanted))


def _box(node: Node, box: Box) -> str:
    left, top, wide = box
    made = node["stage"] or "given"
    judged = sum(each["count"] for each in node["judges"])
    kind = f"{node['kind']} · {made}" + (f" · n = {judged:,}" if judged else "")
    frame = (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{HIGH}" rx="6" '
        f'fill="var(--raised,#f5f2eb)" stroke="var(--rule,#d6d1c6)"/>'
    )
    middle = left + wide / 2
    return frame + label_of(_name(node), kind, middle, top + HIGH / 2, wide - 12)


def _name(node: Node) -> str:
    return str(node["names"][0] if node["names"] else node["id"][:8])


def _sources(node: Node, nodes: Sequence[Node]) -> str:
    names = {each["id"]: _name(each) for each in nodes}
    return ", ".join(f"{names.get(of, of[:8])} ({role})" for role, of in node["sources"].items())
