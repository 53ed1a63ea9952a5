"""A run as its doctor reads it: settings, metrics over time, events, and some of what was sampled early and late."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config import STAGES, flat
from .run import Run

Floats = NDArray[np.float64]
T = TypeVar("T")
Severity = Literal["fault", "note"]
SHARE = 5  # the beginning and the end of a run are a fifth of its steps each
LOOKED_AT = 5  # steps whose samples are read, of the beginning and of the end
SPREAD = 40  # steps whose samples are read, of all
ENOUGH = 6  # steps below which nothing is said of a change


@dataclass(frozen=True)
class Finding:
    """One thing that a run shows: in words, with its numbers, and what to try. A `note` is worth knowing, no more."""

    code: str
    severity: Severity
    says: str
    tries: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()  # where it can be seen


def fault(code: str, says: str, *tries: str, see: Sequence[str] = ()) -> Finding:
    return Finding(code, "fault", says, tries, tuple(see))


def note(code: str, says: str, *tries: str, see: Sequence[str] = ()) -> Finding:
    return Finding(code, "note", says, tries, tuple(see))


@dataclass(frozen=True)
class Change:
    """From the beginning of a run to its end. `sure` is the difference in standard errors, 0 where too little is known.

    The error comes from the jumps between neighbouring steps, which a trend hardly touches.
    """

    first: float
    last: float
    sure: float

    @property
    def by(self) -> float:
        return self.last - self.first


class Reading:
    """What checks may ask of a run. Numbers that are missing or not finite are left out of every figure."""

    def __init__(self, run: Run) -> None:
        self.run, self.stage = run, run.stage
        self.rows, self.events = run.metrics(), run.events()
        self._settings = flat(run.config)
        self._defaults = flat(STAGES[run.stage]().model_dump(mode="json")) if run.stage in STAGES else {}

    @property
    def steps(self) -> int:
        return len(self.rows)

    def setting(self, key: str) -> Any:
        """As the run had it; what its version did not know yet is what would be the default now."""
        return self._settings.get(key, self._defaults.get(key))

    def values(self, name: str) -> Floats:
        return np.array([row[name] for row in self.rows if is_number(row.get(name))], dtype=float)

    def missing(self, name: str) -> int:
        """Steps at which it was logged, but was no number."""
        return sum(name in row and not is_number(row[name]) for row in self.rows)

    def change(self, name: str) -> Change | None:
        values = self.values(name)
        if not len(values):
            return None
        part = math.ceil(len(values) / SHARE)
        first, last = float(values[:part].mean()), float(values[-part:].mean())
        if len(values) < ENOUGH:
            return Change(first, last, 0.0)
        error = float(np.diff(values).std()) / math.sqrt(part)  # a jump has the noise of two steps, and so has `by`
        return Change(first, last, (last - first) / max(error, 1e-12))

    def beginning(self, name: str) -> float:
        """NaN where it was never logged; so is `end`. No comparison with NaN holds, so no check finds anything."""
        found = self.change(name)
        return math.nan if found is None else found.first

    def end(self, name: str) -> float:
        found = self.change(name)
        return math.nan if found is None else found.last

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    @cached_property
    def start(self) -> dict[str, Any]:
        """The evaluation before the first step; empty where nothing was held out."""
        return next(iter(self.told("start")), {})

    @cached_property
    def early(self) -> list[dict[str, Any]]:
        return self._samples(self.run.sample_steps()[:LOOKED_AT])

    @cached_property
    def late(self) -> list[dict[str, Any]]:
        return self._samples(self.run.sample_steps()[-LOOKED_AT:])

    @cached_property
    def first_samples(self) -> list[dict[str, Any]]:
        return self._samples(self.run.sample_steps()[:1])

    @cached_property
    def spread(self) -> list[dict[str, Any]]:
        """From the first step to the last, evenly, where texts that come back are looked for."""
        return self._samples(evenly(self.run.sample_steps(), SPREAD))

    def of_samples(self, rows: Sequence[dict[str, Any]], name: str) -> Floats:
        return np.array([row[name] for row in rows if is_number(row.get(name))], dtype=float)

    def scored(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those whose score is the scorer's: not the fixed one of a completion without an end."""
        if self.setting("missing_eos_score") is not None:
            rows = [row for row in rows if row["finished"]]
        return [row for row in rows if is_number(row["score"])]

    @cached_property
    def unit(self) -> float:
        """How far apart scores were at the start: what a change of the score is measured in."""
        spread = self.of_samples(self.scored(self.first_samples), "score")
        return float(spread.std()) if len(spread) > 1 and spread.std() > 1e-6 else 1.0

    def _samples(self, steps: Sequence[int]) -> list[dict[str, Any]]:
        return [{"step": step, **row} for step in steps for row in self.run.samples(step)]


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of them, evenly from the first to the last, with both."""
    if len(items) <= count:
        return list(items)
    places = np.linspace(0, len(items) - 1, count).round().astype(int).tolist()
    return [items[place] for place in places]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
