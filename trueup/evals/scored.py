"""Judged pairs with what a scorer says of them: the rows that every figure of an audit is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..ports import Scorer
from ..records import Completion, Judgement, Score
from ..stats.intervals import Floats
from ..stats.preference import pair_accuracy
from .reward import as_completions
from .verdicts import Verdict, matched, verdict_of

Ints = NDArray[np.int64]
Advance = Callable[[int], object]

CHUNK = 256  # completions between two looks at the progress


@dataclass(frozen=True)
class Pairs:
    """Every judged pair of different completions. Each different completion stands in `completions` once.

    `first` and `second` are places in `completions`, `of` in `judgements`, `slots` count the places of all judgements
    one after another. `target` is the probability that the first is better: 1, 0, a half for a tie, or soft.
    """

    judgements: Sequence[Judgement]
    completions: Sequence[Completion]
    first: Ints
    second: Ints
    of: Ints
    first_slot: Ints
    second_slot: Ints
    target: Floats
    prompt: Ints
    prompt_of: Ints  # the prompt of each of `completions`
    equal: int  # pairs left out because their two sides are the same completion
    verdicts: tuple[Verdict, ...] = ()  # on completions judged by themselves
    matched: int = 0  # pairs that nobody compared: a right one and a wrong one

    @property
    def n(self) -> int:
        return len(self.target)

    @cached_property
    def starts(self) -> list[int]:
        """The slot of each judgement's first completion."""
        return [0, *accumulate(len(judgement.completions) for judgement in self.judgements)]

    @cached_property
    def decided(self) -> Pairs:
        """Without the ties: these have no right answer."""
        return self.where(self.target != 0.5)

    def where(self, kept: NDArray[np.bool_]) -> Pairs:
        columns = ("first", "second", "of", "first_slot", "second_slot", "target", "prompt")
        return replace(self, **{name: getattr(self, name)[kept] for name in columns})

    def gap(self, values: Floats) -> Floats:
        """`values`, one for each completion, as first minus second."""
        found: Floats = values[self.first] - values[self.second]
        return found

    def points(self, values: Floats) -> Floats:
        """1 where the higher value was preferred, 0 where the lower one was, a half where they are equal."""
        gap = self.gap(values)
        return pair_accuracy(gap, np.zeros_like(gap), self.target)

    def better(self) -> Ints:
        return np.where(self.target > 0.5, self.first, self.second)

    def worse(self) -> Ints:
        return np.where(self.target > 0.5, self.second, self.first)


def pairs_of(judgements: Sequence[Judgement]) -> Pairs:
    """Verdicts on single completions become pairs too: of one prompt, and where nothing was compared of any two."""
    groups = _different(judgements)
    completions = [completion for group in groups.values() for completion in group]
    places = {_key(completion): place for place, completion in enumerate(completions)}
    numbers = {identity: number for number, identity in enumerate(groups)}
    rows: list[tuple[int, ...]] = []
    targets: list[float] = []
    verdicts: list[Verdict] = []
    equal, start = 0, 0
    for which, judgement in enumerate(judgements):
        there = [places[_key(completion)] for completion in as_completions(judgement)]
        for i, j, target in judgement.pairs():
            if there[i] == there[j]:
                equal += 1
                continue
            rows.append((there[i], there[j], which, start + i, start + j, numbers[judgement.prompt.id]))
            targets.append(target)
        if (right := verdict_of(judgement)) is not None:
            verdicts.append(Verdict(there[0], which, start, numbers[judgement.prompt.id], right))
        start += len(there)
    made = list(matched(verdicts, across=not rows))
    rows += [(a.completion, b.completion, a.judgement, a.slot, b.slot, a.prompt) for a, b in made]
    targets += [1.0] * len(made)
    if all(target == 0.5 for target in targets):
        raise DataError(
            f"none of the {len(judgements)} judgements prefers one completion over another: nothing can be measured",
            "audit on judgements that are not all ties, or call some right and some wrong: trueup data show",
        )
    first, second, of, first_slot, second_slot, prompt = np.array(rows, dtype=np.int64).T
    prompt_of = np.array([numbers[completion.prompt.id] for completion in completions], dtype=np.int64)
    given = np.array(targets, dtype=float)
    return Pairs(
        judgements, completions, first, second, of, first_slot, second_slot, given, prompt, prompt_of, equal,
        tuple(verdicts), len(made),
    )  # fmt: skip


def _different(judgements: Sequence[Judgement]) -> dict[str, list[Completion]]:
    """Each different completion by its prompt's id. Those of a prompt share one object of it: scorers read it once."""
    groups: dict[str, list[Completion]] = {}
    seen: set[tuple[str, str, bool]] = set()
    for completion in (c for judgement in judgements for c in as_completions(judgement)):
        if (key := _key(completion)) in seen:
            continue
        seen.add(key)
        group = groups.setdefault(key[0], [])
        group.append(replace(completion, prompt=group[0].prompt if group else completion.prompt))
    return groups


def score_all(scorer: Scorer, completions: Sequence[Completion], advance: Advance = lambda n: None) -> list[Score]:
    """Scores in parts, so that somebody may watch; the completions of one prompt are never parted."""
    scores: list[Score] = []
    for part in in_parts(completions, CHUNK):
        found = scorer.score(part)
        assert len(found) == len(part), "a scorer gives one score a completion"
        scores += found
        advance(len(part))
    if not all(np.isfinite(score.value) for score in scores):
        raise DataError(
            f"{sum(not np.isfinite(score.value) for score in scores)} of {len(scores)} scores are not numbers",
            "of a function: it has to return finite numbers; of a reward model: look at the run that trained it",
        )
    return scores


def values(scores: Sequence[Score]) -> Floats:
    return np.array([score.value for score in scores], dtype=float)


def in_parts(completions: Iterable[Completion], size: int) -> Iterator[list[Completion]]:
    """About `size` at a time, never parting the completions of one prompt object, which are computed together."""
    part: list[Completion] = []
    for completion in completions:
        if len(part) >= size and completion.prompt is not part[-1].prompt:
            yield part
            part = []
        part.append(completion)
    if part:
        yield part


def _key(completion: Completion) -> tuple[str, str, bool]:
    return completion.prompt.id, completion.text, completion.finished
