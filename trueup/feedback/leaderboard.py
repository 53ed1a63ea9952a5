"""Ratings of the models whose completions met each other before people, for those who may see what wrote what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..stats.leaderboard import Contests, Leaderboard, leaderboard, most_a_day
from ..store import queue
from .tally import MOST, NONE, PAIR, Tally, said

MOST_A_DAY = 300  # judgements of one person on one day (UTC) that count: nobody decides alone who is best
DAY = 86_400.0


@dataclass(frozen=True)
class Entry:
    """An item in which models meet: numbers of its prompt and of the model behind each completion, and their words."""

    prompt: int
    models: tuple[int, ...]
    words: tuple[int, ...]


@dataclass
class Entries:
    """Items stream by once; kept are those whose completions have different writers, all of them known."""

    models: dict[str, int] = field(default_factory=dict)
    prompts: dict[str, int] = field(default_factory=dict)
    items: dict[str, Entry] = field(default_factory=dict)

    def add(self, item: queue.Item) -> None:
        if len(set(item.models)) < 2 or not all(item.models):
            return
        models = tuple(self.models.setdefault(model, len(self.models)) for model in item.models)
        prompt = self.prompts.setdefault(item.prompt.id, len(self.prompts))
        self.items[item.id] = Entry(prompt, models, tuple(len(text.split()) for text in item.texts))


def ratings(tally: Tally, entries: Entries, rows: NDArray[np.bool_], names: Mapping[str, str]) -> dict[str, Any] | None:
    """Of the judgements in `rows`; None where no two models met. `names`: of artifacts that have one."""
    found, votes = _contests(tally, entries, rows)
    if not len(found):
        return None
    known = [names.get(model, model) for model in entries.models]
    plain, equal = leaderboard(found), leaderboard(found, length=True)
    return {
        "votes": len(found),
        "judges": len(np.unique(found.judge)),
        "prompts": len(np.unique(found.prompt)),
        "capped": votes - len(found),
        "most_a_day": MOST_A_DAY,
        "components": plain.components,
        "models": _rows(plain, known),
        "equal_length": _rows(equal, known),
        "length": dict(zip(("value", "low", "high"), equal.length or (), strict=False)),
    }


def _contests(tally: Tally, entries: Entries, rows: NDArray[np.bool_]) -> tuple[Contests, int]:
    """The votes between two models, and how many there were before anybody's were capped."""
    model, words, prompt = _tables(tally, entries)
    found = said(tally, PAIR, rows)
    first, second = np.divmod(found.unit % (MOST * MOST), MOST)
    item = found.item
    meets = (model[item, first] != NONE) & (model[item, first] != model[item, second])
    capped = np.zeros(len(tally), dtype=bool)
    judged = np.unique(found.row[meets])  # judgements, not the pairs of a ranking
    day = (tally["submitted"][judged] // DAY).astype(np.int64)
    capped[judged] = ~most_a_day(tally["judge"].astype(np.int64)[judged], day, MOST_A_DAY)
    kept = meets & ~capped[found.row] if len(tally) else meets
    item, first, second = item[kept], first[kept], second[kept]
    a, b = words[item, first], words[item, second]
    longer = (a - b) / np.maximum(1, a + b)
    sides = model[item, first], model[item, second]
    return Contests(*sides, (found.value[kept] + 1) / 2, prompt[item], found.judge[kept], longer), int(meets.sum())


def _tables(tally: Tally, entries: Entries) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """By number of an item in the tally: models and words of each completion, and the prompt."""
    model = np.full((len(tally.items), MOST), NONE, dtype=np.int64)
    words = np.zeros((len(tally.items), MOST), dtype=np.int64)
    prompt = np.zeros(len(tally.items), dtype=np.int64)
    for name, number in tally.items.items():
        if (entry := entries.items.get(name)) is not None:
            model[number, : len(entry.models)] = entry.models
            words[number, : len(entry.words)] = entry.words
            prompt[number] = entry.prompt
    return model, words, prompt


def _rows(found: Leaderboard, names: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "model": names[each.model],
            "value": each.value,
            "low": each.low,
            "high": each.high,
            "n": each.n,
            "rank": each.rank,
            "component": each.component,
        }
        for each in found.ratings
    ]
