"""The gold score: how good a title really is, told by a program that knows the truth of the post.

Training never sees it. It is what the demo's win rates are measured with, and it can be computed for any text: text
that no template could have written costs `UNSEEN` a word trigram, so gibberish that happens to name the facts loses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from trueup.errors import DataError
from trueup.records import Completion, Prompt, Score

from . import words

COVERED: Mapping[str, float] = {"who": 1.2, "act": 1.0, "object": 1.1, "reaction": 1.0, "question": 1.1}
FALSE = 1.5
FILLER = 0.6
REPEATED = 0.35
EXCESS = 0.12
UNSEEN = 0.4
NO_END = 1.5
LONGEST = 18  # words that cost nothing
BEST = sum(COVERED.values())

Trigram = tuple[str, str, str]

# Words, and punctuation where no sentence has it (a run of it, or on its own), so that noise counts as words too.
_WORD = re.compile(r"[^\s.,?!]+|(?<!\S)[.,?!]+|[.,?!]{2,}")


@dataclass(frozen=True, slots=True)
class Features:
    """What a reader notices about a title: gold and the simulated people only weigh it differently."""

    covered: frozenset[str]  # slots whose true value is said
    false: int  # values said that are not the truth
    vague: int
    filler: int
    repeated: int  # trigrams said again
    words: int
    excess: int
    unseen: int  # trigrams that no template writes
    asks: bool  # ends with a question mark
    no_end: bool

    def parts(self) -> dict[str, float]:
        parts = {slot: float(slot in self.covered) for slot in words.SLOTS}
        counts = ("false", "vague", "filler", "repeated", "words", "excess", "unseen", "asks", "no_end")
        return parts | {name: float(getattr(self, name)) for name in counts}


def gold_score(prompt: Prompt, text: str, finished: bool = True) -> float:
    """The gold score of `text` as a title for the post in `prompt`; a faithful title has `BEST`, 5.4."""
    return weigh(describe(prompt, text, finished))


def weigh(features: Features) -> float:
    return (
        sum(COVERED[slot] for slot in words.SLOTS if slot in features.covered)
        - FALSE * features.false
        - FILLER * features.filler
        - REPEATED * features.repeated
        - EXCESS * features.excess
        - UNSEEN * features.unseen
        - NO_END * features.no_end
    )


def describe(prompt: Prompt, text: str, finished: bool = True) -> Features:
    """Reads `text` against the truth in `prompt.meta["world"]`. Any string will do, an empty one too."""
    truth = truth_of(prompt)
    spoken = split_words(text)
    said = _said(spoken)
    trigrams = Counter(_trigrams(spoken))
    known = template_trigrams()
    return Features(
        covered=frozenset(slot for slot in words.SLOTS if (slot, truth[slot]) in said),
        false=sum(kind in COVERED and truth[kind] != value for kind, value in set(said)),
        vague=sum(kind == "vague" for kind, _ in said),
        filler=sum(kind == "filler" for kind, _ in said),
        repeated=sum(trigrams.values()) - len(trigrams),
        words=len(spoken),
        excess=max(0, len(spoken) - LONGEST),
        unseen=sum(n for trigram, n in trigrams.items() if trigram not in known),
        asks=text.rstrip().endswith("?"),
        no_end=not finished,
    )


class GoldScorer:
    """The gold score as a `Scorer`, with what it noticed as parts. For measuring; training on it would be cheating."""

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        noticed = [describe(c.prompt, c.text, c.finished) for c in completions]
        return [Score(weigh(features), features.parts()) for features in noticed]


def truth_of(prompt: Prompt) -> Mapping[str, Any]:
    """The five facts of a post of the built-in world."""
    try:
        facts: Mapping[str, Any] = prompt.meta["world"]["facts"]
    except (KeyError, TypeError):
        facts = {}
    if not all(slot in facts for slot in words.SLOTS):
        raise DataError(
            f"prompt {prompt.id} carries no truth of the built-in world",
            "the gold score and the simulated people know only posts made by trueup.world",
        )
    return facts


def split_words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _trigrams(spoken: Sequence[str]) -> Iterator[Trigram]:
    return zip(spoken, spoken[1:], spoken[2:], strict=False)


def _said(spoken: Sequence[str]) -> list[tuple[str, str]]:
    """The known phrases in a text as (kind, phrase), the longest first where several start at one word."""
    phrases = _phrases()
    found, at = [], 0
    while at < len(spoken):
        for length, phrase, kind in phrases.get(spoken[at], ()):
            if tuple(spoken[at : at + length]) == phrase:
                found.append((kind, " ".join(phrase)))
                at += length
                break
        else:
            at += 1
    return found


@cache
def _phrases() -> dict[str, list[tuple[int, tuple[str, ...], str]]]:
    """Every value, vague word and filler by its first word."""
    kinds = {value: slot for family in words.FAMILIES for slot in words.SLOTS for value in family.values(slot)}
    kinds |= dict.fromkeys(words.VAGUE.values(), "vague") | dict.fromkeys(words.FILLERS, "filler")
    by_first: dict[str, list[tuple[int, tuple[str, ...], str]]] = {}
    for text, kind in kinds.items():
        phrase = tuple(text.split())
        by_first.setdefault(phrase[0], []).append((len(phrase), phrase, kind))
    for starts in by_first.values():
        starts.sort(reverse=True)
    return by_first


@cache
def template_trigrams() -> frozenset[Trigram]:
    """Every word trigram that some title can contain: all templates with all values, vague words and fillers."""
    return frozenset(
        trigram
        for family in words.FAMILIES
        for template in words.TITLES + words.PARTIAL_TITLES
        for trigram in _language(_pieces(template, family))
    )


def _pieces(template: str, family: words.Family) -> list[list[tuple[str, ...]]]:
    """A template as a row of choices, each a list of phrases; filler is a choice that may be empty."""
    row: list[list[tuple[str, ...]]] = [_options(words.FILLER_FIRST, optional=True)]
    for piece in re.split(r"(\{\w+\})", template):
        if piece.startswith("{"):
            slot = piece.strip("{}")
            mine = "my " if slot in ("who", "object") else ""
            row.append(_options([mine + value for value in family.values(slot)] + [words.VAGUE[slot]]))
        elif literal := split_words(piece.strip(" .,?")):  # punctuation that opens a piece is not a word of its own
            row.append([tuple(literal)])
    return [*row, _options(words.FILLER_LAST, optional=True)]


def _options(phrases: Sequence[str], optional: bool = False) -> list[tuple[str, ...]]:
    return [tuple(phrase.split()) for phrase in phrases] + ([()] if optional else [])


def _language(row: list[list[tuple[str, ...]]]) -> set[Trigram]:
    """The trigrams of every path through a row of choices, keeping only the last two words of each path."""
    ends: set[tuple[str, ...]] = {()}
    trigrams: set[Trigram] = set()
    for options in row:
        paths = [end + phrase for end in ends for phrase in options]
        trigrams.update(trigram for path in paths for trigram in _trigrams(path))
        ends = {path[-2:] for path in paths}
    return trigrams
