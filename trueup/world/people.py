"""Simulated people: five personas who read the same titles, care about different things, and make mistakes.

A persona has a utility: its own weights over what `gold.describe` notices. It prefers one title to another with the
Bradley-Terry probability of their utilities, `1 / (1 + exp(-(u_a - u_b) / noise))`, and ranks more than two by adding
Gumbel noise (Plackett-Luce), which gives every pair of the ranking exactly that probability. So what the best possible
reward model could reach on their judgements, the `ceiling`, is known and not estimated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import Literal

from trueup.errors import ConfigError, DataError, nearest
from trueup.records import Completion, Judgement, Prompt, digest

from . import words
from .gold import Features, describe


@dataclass(frozen=True)
class Persona:
    """What one kind of person likes (positive) and dislikes (negative) in a title, and how much they err."""

    name: str
    facts: Mapping[str, float]
    likes: Mapping[str, float] = field(default_factory=dict)
    noise: float = 1.0


def _facts(*weights: float) -> dict[str, float]:
    return dict(zip(words.SLOTS, weights, strict=True))


CAREFUL = Persona(
    "careful",  # checks every fact against the post
    _facts(1.0, 1.0, 1.0, 1.0, 1.0),
    {"false": -2.0, "vague": -0.5, "filler": -0.4, "repeated": -0.4, "excess": -0.1, "unseen": -0.4, "no_end": -1.5},
    noise=0.95,
)
SKIMMER = Persona(
    "skimmer",  # looks for who did what, and reads no further
    _facts(1.6, 1.2, 1.5, 0.4, 0.4),
    {"false": -0.9, "vague": -0.8, "filler": -0.3, "repeated": -0.3, "excess": -0.15, "unseen": -0.4, "no_end": -1.0},
    noise=0.95,
)
WARM = Persona(
    "warm",  # wants the feelings and the question, and does not mind a chatty tone
    _facts(1.0, 0.6, 0.6, 1.5, 1.5),
    {"false": -1.2, "vague": -0.3, "filler": 0.1, "repeated": -0.4, "unseen": -0.4, "no_end": -1.2, "asks": 0.5},
    noise=0.95,
)
TERSE = Persona(
    "terse",  # the facts in as few words as possible
    _facts(1.2, 1.2, 1.2, 1.0, 1.0),
    {"false": -1.4, "vague": -0.3, "filler": -1.2, "repeated": -0.8, "words": -0.15, "unseen": -0.4, "no_end": -1.0},
    noise=0.95,
)
HASTY = Persona(
    "hasty",  # clicks quickly: the same tastes as most, much more noise
    _facts(1.0, 0.8, 1.0, 0.8, 0.8),
    {"false": -1.2, "filler": -0.5, "repeated": -0.4, "excess": -0.1, "unseen": -0.5, "no_end": -1.2},
    noise=1.5,
)
PERSONAS = (CAREFUL, SKIMMER, WARM, TERSE, HASTY)

Mode = Literal["ranking", "pairs"]
_PREFIX = "simulated:"


def utility(persona: Persona, prompt: Prompt, text: str, finished: bool = True) -> float:
    """How much `persona` likes `text`, before any error."""
    return _weigh(persona, describe(prompt, text, finished))


def vote_probability(persona: Persona, a: Completion, b: Completion) -> float:
    """The probability that `persona` prefers `a` to `b`, two completions of one prompt."""
    return _prefers(
        persona,
        utility(persona, a.prompt, a.text, a.finished),
        utility(persona, b.prompt, b.text, b.finished),
    )


def persona_named(name: str) -> Persona:
    """The persona called `name`, with or without `simulated:` in front."""
    known = {persona.name: persona for persona in PERSONAS}
    short = name.removeprefix(_PREFIX)
    if short not in known:
        raise DataError(f"no simulated person is called {short!r}{nearest(short, known)}", ", ".join(known))
    return known[short]


class SimulatedPeople:
    """The personas as a `Judge`. What they say depends on the seed and on what they read, never on the order.

    In `ranking` mode `judges_per_item` personas each rank all completions of an item. In `pairs` mode
    `pairs_per_prompt` different pairs of an item are judged, each by one persona drawn for it. Identical texts tie.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        mode: Mode = "ranking",
        judges_per_item: int = 1,
        pairs_per_prompt: int = 6,
        personas: Sequence[Persona] = PERSONAS,
        split: Literal["train", "heldout"] = "train",
    ) -> None:
        if not 1 <= judges_per_item <= len(personas):
            raise ConfigError(f"judges_per_item is {judges_per_item}: there are {len(personas)} simulated people")
        if mode not in ("ranking", "pairs"):
            raise ConfigError(f"unknown judging mode {mode!r}", "ranking, pairs")
        self.seed, self.mode, self.split = seed, mode, split
        self.judges_per_item, self.pairs_per_prompt = judges_per_item, pairs_per_prompt
        self.personas = tuple(personas)

    def judge(self, items: Iterable[Sequence[Completion]]) -> Iterator[Judgement]:
        for item in items:
            if len(item) < 2:
                raise DataError("simulated people compare, and were given fewer than two completions of a prompt")
            rng = self._rng(item, "who judges")
            if self.mode == "ranking":
                for persona in rng.sample(self.personas, self.judges_per_item):
                    yield self._rank(persona, item)
            else:
                pairs = [pair for pair in combinations(item, 2) if pair[0].text != pair[1].text]
                for pair in rng.sample(pairs, min(self.pairs_per_prompt, len(pairs))):
                    yield self._rank(rng.choice(self.personas), pair)

    def _rank(self, persona: Persona, item: Sequence[Completion]) -> Judgement:
        rng = self._rng(item, persona.name)
        felt: dict[str, float] = {}  # by text: a person cannot tell two identical titles apart
        for c in item:
            if c.text not in felt:
                felt[c.text] = utility(persona, c.prompt, c.text, c.finished) / persona.noise + _gumbel(rng)
        places = {value: place for place, value in enumerate(sorted(set(felt.values()), reverse=True), start=1)}
        return Judgement(
            prompt=item[0].prompt,
            completions=tuple(c.text for c in item),
            ranks=tuple(places[felt[c.text]] for c in item),
            judge=_PREFIX + persona.name,
            source="simulated",
            id=digest([self.seed, persona.name, *_content(item)])[:16],
            split=self.split,
            meta={} if all(c.finished for c in item) else {"finished": [c.finished for c in item]},
        )

    def _rng(self, item: Sequence[Completion], purpose: str) -> Random:
        return Random(digest([self.seed, purpose, *_content(item)]))


def p_true(judgement: Judgement) -> list[float]:
    """For each of `judgement.pairs()`, the true probability that its persona prefers the first of the pair."""
    persona = persona_named(judgement.judge)
    finished = judgement.meta.get("finished") or [True] * len(judgement.completions)
    felt = [
        utility(persona, judgement.prompt, text, end) for text, end in zip(judgement.completions, finished, strict=True)
    ]
    return [_prefers(persona, felt[i], felt[j]) for i, j, _ in judgement.pairs()]


def ceiling(judgements: Iterable[Judgement]) -> float:
    """The accuracy that knowing every persona's utilities would have on these judgements, in expectation.

    A reward model sees neither who judges nor the noise, so it stays below; ties, which it cannot get right, are out.
    """
    best = [
        max(p, 1 - p)
        for judgement in judgements
        for p, (_, _, target) in zip(p_true(judgement), judgement.pairs(), strict=True)
        if target != 0.5
    ]
    if not best:
        raise DataError("no judgement of simulated people has a pair that is not a tie")
    return sum(best) / len(best)


def expected_agreement(pairs: Iterable[tuple[Completion, Completion]], personas: Sequence[Persona] = PERSONAS) -> float:
    """How often two different personas agree on these pairs, in expectation."""
    agree = [
        one * two + (1 - one) * (1 - two)
        for a, b in pairs
        for one, two in combinations([vote_probability(persona, a, b) for persona in personas], 2)
    ]
    if not agree:
        raise DataError("agreement needs at least one pair of completions and two personas")
    return sum(agree) / len(agree)


def _weigh(persona: Persona, features: Features) -> float:
    noticed = features.parts()
    return sum(weight * noticed[name] for name, weight in (*persona.facts.items(), *persona.likes.items()))


def _prefers(persona: Persona, a: float, b: float) -> float:
    gap = (a - b) / persona.noise
    return 1 / (1 + math.exp(-gap)) if gap >= 0 else 1 - 1 / (1 + math.exp(gap))


def _gumbel(rng: Random) -> float:
    return -math.log(rng.expovariate(1.0) or 1e-300)


def _content(item: Sequence[Completion]) -> list[object]:
    return [item[0].prompt.id, [[c.text, c.finished] for c in item]]
