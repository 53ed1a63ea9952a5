"""What comes next for a person: the qualification first, then a check when one is due, else ordinary work.

Golds, controls and repeats come once in a block of items, at a place in it that a keyed hash chooses: never regular,
and the same on every look. What a person sees of their own progress counts all of it alike: from a count that stands
still after an answer, one could tell that the item was a check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ..config.collection import CollectionConfig
from ..store.items import ORDINARY, Role
from ..store.progress import Standing
from ..store.queue import JUST_JUDGED
from .order import keyed

Check = Literal["gold", "control"]
CHECKS: tuple[Check, ...] = get_args(Check)


@dataclass(frozen=True)
class Turn:
    """What to ask the queue for; `role` None is ordinary work."""

    role: Role | None = None
    repeat: bool = False


@dataclass(frozen=True)
class Schedule:
    """The way of one person through a collection, as a function of what they have done."""

    config: CollectionConfig
    secret: bytes
    who: str
    checks: Mapping[Role, int]  # how many of each kind the collection has
    standing: Standing
    qualified: bool
    repeated: bool = False  # the last thing they judged was a repeat

    def turns(self) -> list[Turn]:
        """In this order; each stands in for the ones before it when the queue has none."""
        if not self.qualified:
            return [Turn("qualification")]
        if self.standing.left <= 0:
            return [Turn()]  # what they hold or let lapse; no more checks of work that is done
        due = [Turn(role) for role in CHECKS if self._seen(role) < self._planned(role, self.ordinary + 1)]
        return [*due, *[Turn(repeat=True)] * self._repeat_due(), Turn()]

    @property
    def repeat_place(self) -> bool:
        """Whether a repeat comes at this place, so that it matters what was judged last."""
        return bool(self._repeat_every) and self._repeats(self.ordinary + 1) > self._repeats(self.ordinary)

    @property
    def ordinary(self) -> int:
        return sum(self.standing.done.get(role, 0) for role in ORDINARY)

    @property
    def done(self) -> int:
        """Everything they judged, checks and all."""
        checks = sum(n for role, n in self.standing.done.items() if role not in ORDINARY)
        return self.ordinary + checks + self._repeats_done()

    @property
    def left(self) -> int:
        """Everything still to come, at most: each answer makes it one less."""
        total = self.ordinary + max(0, self.standing.left)
        checks = sum(max(0, self._planned(role, total) - self._seen(role)) for role in CHECKS)
        repeats = max(0, self._repeats(total) - self._repeats_done())
        first = min(self.config.qualification, self.checks.get("qualification", 0))
        tests = 0 if self.qualified else max(0, first - self._seen("qualification"))
        return total - self.ordinary + checks + repeats + tests

    def _repeat_due(self) -> bool:
        return self.repeat_place and not self.repeated

    def _repeats_done(self) -> int:
        return self._repeats(self.ordinary + 1 if self.repeated else self.ordinary)

    def _seen(self, role: Role) -> int:
        return self.standing.done.get(role, 0)

    def _planned(self, role: Check, items: int) -> int:
        """Checks of a kind that come within the first `items` items."""
        every = self.config.gold_every if role == "gold" else self.config.control_every
        return min(self.checks.get(role, 0), self._within(role, every, items))

    def _repeats(self, items: int) -> int:
        """Repeats that come within the first `items` items; what was judged just now would be answered from memory."""
        early = self._within("repeat", self._repeat_every, min(items, JUST_JUDGED + 1))
        return self._within("repeat", self._repeat_every, items) - early

    @property
    def _repeat_every(self) -> int:
        return round(1 / self.config.repeat_share) if self.config.repeat_share else 0

    def _within(self, purpose: str, every: int, items: int) -> int:
        if not every:
            return 0
        blocks, rest = divmod(items, every)
        return blocks + (keyed(self.secret, purpose, self.who, blocks) % every < rest)
