"""The judgements of a collection as columns of numbers: what quality figures are computed from.

Judgements stream by once and leave a few numbers each, so a million of them fit into a few hundred megabytes whatever
their texts are. All verdicts are in item-fixed coordinates; what was displayed where is a column of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Judgement
from .answers import BOTH_BAD, FLAGS, agreement

ROLES = ("main", "calibration", "gold", "qualification", "control")
WORK = (0, 1)  # the places of the ordinary ones among them
MOST = 16  # completions of an item, with room: a pair of them is one number below MOST * MOST
NONE = -1
PAIR, THUMBS = "", "thumb"  # the first tables of votes; the others are named after axes, and none is called so

Ints = NDArray[np.int64]


Key = Sequence[int]  # the expected places of a gold; empty for other items


@dataclass
class Column:
    """Votes of one kind, in long form: which judgement, about what of its item, which value."""

    judgement: array[int] = field(default_factory=lambda: array("q"))
    part: array[int] = field(default_factory=lambda: array("h"))
    value: array[float] = field(default_factory=lambda: array("d"))

    def add(self, judgement: int, part: int, value: float) -> None:
        self.judgement.append(judgement)
        self.part.append(part)
        self.value.append(value)

    def __len__(self) -> int:
        return len(self.value)


@dataclass
class Tally:
    """One entry a judgement in every column; `NONE` where it does not apply."""

    judges: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    guidelines: dict[str, int] = field(default_factory=dict)
    votes: dict[str, Column] = field(default_factory=dict)
    both_bad: int = 0
    surplus: int = 0
    quarantined: set[str] = field(default_factory=set)  # ids of items
    edited: array[float] = field(default_factory=lambda: array("d"))  # of rewritten completions: item, share changed
    columns: dict[str, array[float]] = field(
        default_factory=lambda: {
            name: array("d")
            for name in (
                "item", "judge", "role", "round", "guideline", "submitted", "seconds", "words",
                "strength", "first", "longer", "gap", "right", "answer", "flags",
            )
        }
    )  # fmt: skip

    def __len__(self) -> int:
        return len(self.columns["item"])

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return np.frombuffer(self.columns[name], dtype=np.float64) if len(self) else np.zeros(0)

    def add(self, judgement: Judgement, about: Mapping[str, Any], key: Key) -> None:
        """Take the numbers out of one judgement."""
        row = len(self)
        meta = judgement.meta
        self.surplus += bool(meta.get("surplus"))
        both_bad = (meta.get("answer") or {}).get("choice") == BOTH_BAD
        self.both_bad += both_bad
        lengths = [len(text.split()) for text in judgement.completions]
        first, longer, gap = _sides(judgement, lengths)
        values = {
            "item": self.items.setdefault(about["item"], len(self.items)),
            "judge": self.judges.setdefault(judgement.judge, len(self.judges)),
            "role": ROLES.index(about["role"]),
            "round": about["round"],
            "guideline": self.guidelines.setdefault(str(meta.get("guideline", "")), len(self.guidelines)),
            "submitted": about["submitted"] or 0.0,
            "seconds": _seconds(meta),
            "words": sum(lengths) + sum(len(message.content.split()) for message in judgement.prompt.messages),
            "strength": _strength(meta),
            "first": first,
            "longer": longer,
            "gap": gap,
            "right": float(agreement(key, judgement) == 1) if key else NONE,
            "answer": _displayed(judgement),
            "flags": _flags(meta),
        }
        for name, value in values.items():
            self.columns[name].append(value)
        if "edit" in meta and about["round"] == 0:
            self.edited.extend((values["item"], _share_changed(judgement, meta["edit"])))
        self._vote(row, judgement)

    def _vote(self, row: int, judgement: Judgement) -> None:
        if "edit" in judgement.meta:  # it compares with a text that nobody else saw
            return
        for (i, a), (j, b) in combinations(enumerate(judgement.ranks), 2):
            self._column(PAIR).add(row, i * MOST + j, (a < b) - (a > b))
        for axis, given in judgement.ratings.items():
            for i, value in enumerate(given):
                if value is not None:
                    self._column(axis).add(row, i, value)

    def _column(self, name: str) -> Column:
        return self.votes.setdefault(name, Column())


@dataclass(frozen=True)
class Said:
    """Votes of one kind as arrays. `unit` is what was judged: an item and the part of it."""

    unit: Ints
    item: Ints
    judge: Ints
    value: NDArray[np.float64]
    row: Ints


def said(tally: Tally, kind: str, rows: NDArray[np.bool_] | None = None) -> Said:
    """The votes of a kind, of all judgements or of those in the mask `rows`."""
    column = tally.votes.get(kind) or Column()
    row = np.array(column.judgement, dtype=np.int64)
    part, value = np.array(column.part, dtype=np.int64), np.array(column.value, dtype=np.float64)
    if rows is not None and len(row):
        kept = rows[row]
        row, part, value = row[kept], part[kept], value[kept]
    item, judge = tally["item"].astype(np.int64)[row], tally["judge"].astype(np.int64)[row]
    return Said(item * MOST * MOST + part, item, judge, value, row)


def tally_of(
    stream: Iterable[tuple[Judgement, Mapping[str, Any]]], keys: Mapping[str, Key], quarantined: Iterable[str] = ()
) -> Tally:
    made = Tally(quarantined=set(quarantined))
    for judgement, about in stream:
        made.add(judgement, about, keys[about["item"]])
    return made


def _flags(meta: Mapping[str, Any]) -> float:
    """What was flagged anywhere in the item, as bits in the order of FLAGS."""
    flags = meta.get("flags")
    if not flags:
        return 0.0
    raised = {flag for given in (flags.get("prompt") or [], *(flags.get("completions") or [])) for flag in given}
    return float(sum(1 << place for place, flag in enumerate(FLAGS) if flag in raised))


def _share_changed(judgement: Judgement, edit: Mapping[str, Any]) -> float:
    """Words replaced, removed or added, over the words of the longer of the two texts."""
    of = edit["of"] if len(judgement.completions) > 2 else 0
    longest = max(len(judgement.completions[place].split()) for place in (of, -1))
    return min(1.0, int(edit["words_changed"]) / max(1, longest))


def _seconds(meta: Mapping[str, Any]) -> float:
    """Time spent looking, else the time since it was handed out."""
    found = meta.get("active_seconds") or meta.get("seconds")
    return NONE if found is None else float(found)


def _strength(meta: Mapping[str, Any]) -> float:
    choice = (meta.get("answer") or {}).get("choice")
    return abs(choice) if isinstance(choice, int | float) else NONE


def _sides(judgement: Judgement, lengths: Sequence[int]) -> tuple[float, float, float]:
    """Of a decided pair: whether what stood first won, whether the longer won, and the difference in words."""
    if len(lengths) != 2 or "edit" in judgement.meta:
        return NONE, NONE, NONE
    a, b = judgement.ranks
    gap = abs(lengths[0] - lengths[1])
    if a == b:
        return NONE, NONE, gap
    winner = 0 if a < b else 1
    order = judgement.meta.get("order")
    first = NONE if not order else float(order[0] == winner)
    longer = NONE if not gap else float((lengths[0] > lengths[1]) == (winner == 0))
    return first, longer, gap


def _displayed(judgement: Judgement) -> float:
    """The answer as the fingers gave it, as one small number: places and ratings in the order of display."""
    if "edit" in judgement.meta:
        return NONE
    number = 0
    for position in judgement.meta.get("order") or range(len(judgement.ranks)):
        number = number * 31 + judgement.ranks[position]
        for given in judgement.ratings.values():
            number = number * 31 + int(given[position] or 0) + 7
    return float(number % 1_000_003)
