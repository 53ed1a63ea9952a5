"""Judgements as a reward model learns from them: one element a prompt, each distinct completion once."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..models.rows import Group
from ..records import Judgement, Prompt
from ..text.chat import Encoder

THUMB = "thumb"  # the axis of a verdict on one completion: 1 up, 0 down


class Pair(NamedTuple):
    """i was judged better than j with this probability; how much better from 1 to 3, None if nobody said."""

    i: int
    j: int
    target: float
    objective: int = 0
    strength: float | None = None


class Ranking(NamedTuple):
    """The places of some of the completions; lower is better."""

    completions: tuple[int, ...]
    ranks: tuple[float, ...]
    objective: int = 0


class Verdict(NamedTuple):
    """A completion judged by itself: 1 right, 0 wrong."""

    completion: int
    right: float
    objective: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt, its distinct completions and all that was said of them. `weights`: what it counts to each member."""

    group: Group
    pairs: tuple[Pair, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    weights: tuple[float, ...] = (1.0,)


def judged(
    encoder: Encoder, judgements: Iterable[Judgement], max_tokens: int, objectives: Sequence[str] = ()
) -> tuple[list[Judged], list[Prompt]]:
    """Judgements by prompt, each distinct completion once; and the prompts left out, of which a row is too long.

    With named `objectives` a judgement speaks of those it was made on or rated; without, there is one, and its ranks
    speak of it. Two judges of one pair are two entries among its prompt's pairs: their votes average in the loss.
    """
    by_prompt: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_prompt.setdefault(judgement.prompt.id, []).append(judgement)
    fitting: list[Judged] = []
    long: list[Prompt] = []
    for group in by_prompt.values():
        prompt = group[0].prompt
        said = _said(group, objectives)
        if said is None:
            continue
        made = None if encoder.too_long(prompt, said.texts, max_tokens) else said.encoded(encoder, prompt)
        if made is not None and len(made.group[0]) + max(map(len, made.group[1])) <= max_tokens:
            fitting.append(made)
        else:
            long.append(prompt)
    return fitting, long


def redrawn(items: Sequence[Judged], members: int, seed: int) -> list[Judged]:
    """Each member of an ensemble sees a prompt as often as a redraw with replacement would show it: Poisson(1) times.

    A prompt that no member drew is left to the first: nothing that was judged goes unread.
    """
    if members == 1:
        return list(items)
    drawn = np.random.default_rng([seed, 2310]).poisson(1.0, (len(items), members)).astype(float)
    drawn[drawn.sum(1) == 0, 0] = 1.0
    return [replace(item, weights=tuple(row)) for item, row in zip(items, drawn.tolist(), strict=True)]


@dataclass(frozen=True, slots=True)
class _Said:
    """All that was said of a prompt's distinct completions, before any of it is tokens."""

    place: dict[tuple[str, bool], int]
    pairs: tuple[Pair, ...]
    verdicts: tuple[Verdict, ...]
    rankings: tuple[Ranking, ...]

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.place]

    def encoded(self, encoder: Encoder, prompt: Prompt) -> Judged:
        tokens = [
            packed(encoder.completion(prompt, text, finished=end) or (encoder.eos_id,)) for text, end in self.place
        ]
        return Judged((packed(encoder.prompt(prompt)), tokens), self.pairs, self.verdicts, self.rankings)


def _said(judgements: Sequence[Judgement], objectives: Sequence[str]) -> _Said | None:
    place: dict[tuple[str, bool], int] = {}
    pairs: list[Pair] = []
    verdicts: list[Verdict] = []
    rankings: list[Ranking] = []
    for judgement in judgements:
        finished = judgement.meta.get("finished") or [True] * len(judgement.completions)
        at = [place.setdefault(key, len(place)) for key in zip(judgement.completions, finished, strict=True)]
        for number, name in enumerate(objectives or ("",)):
            pairs += _pairs(at, judgement.pairs_on(name) if objectives else judgement.pairs(), number, judgement.meta)
            rankings += _ranking(at, judgement.places_on(name) if objectives else judgement.ranks, number)
        verdicts += _verdicts(at, judgement, objectives)
    return _Said(place, tuple(pairs), tuple(verdicts), tuple(rankings)) if pairs or verdicts else None


def packed(tokens: Sequence[int]) -> array[int]:
    """Four bytes a token: they stay in memory as long as they are learnt from, and Python's integers take forty."""
    return array("i", tokens)


def _pairs(
    at: Sequence[int], targets: Iterable[tuple[int, int, float]], objective: int, meta: Mapping[str, Any]
) -> list[Pair]:
    said = meta.get("strength")
    strength = float(abs(said)) if isinstance(said, int | float) else None
    return [Pair(at[i], at[j], target, objective, strength) for i, j, target in targets if at[i] != at[j]]


def _ranking(at: Sequence[int], ranks: Sequence[float | None], objective: int) -> list[Ranking]:
    known = {i: rank for i, rank in zip(at, ranks, strict=False) if rank is not None}
    return [Ranking(tuple(known), tuple(known.values()), objective)] if len(known) > 1 else []


def _verdicts(at: Sequence[int], judgement: Judgement, objectives: Sequence[str]) -> list[Verdict]:
    """Thumbs speak of the objective they were given on; without named ones, of the only one."""
    given = judgement.ratings.get(THUMB)
    named = judgement.meta.get("objective", "")
    if given is None or (objectives and named not in objectives):
        return []
    objective = objectives.index(named) if objectives else 0
    return [Verdict(i, right, objective) for i, right in zip(at, given, strict=True) if right is not None]
