"""What judgements to test on share with those that were learnt from, and how far two sets of prompts are apart."""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..records import Judgement, Prompt
from ..stats.intervals import Floats, wilson

NGRAM = 8  # words
COMMON = 20  # an n-gram in more training prompts than this is a phrase of the task, not a sign of copying
ENOUGH = 4  # telling n-grams, at least, to speak of likeness
ALIKE = 0.8  # of the telling n-grams of a prompt, in one and the same training prompt
LONG = 8  # words; shorter completions recur by nature
OPENING = 5  # words; a shorter opening of a conversation recurs as well
EXAMPLES = 5
FEATURES = 4096
_WORD = re.compile(r"\w+")


def leakage(heldout: Sequence[Judgement], train: Sequence[Judgement]) -> dict[str, Any]:
    """Shares of held-out judgements whose prompt, or all of whose completions, stand in the training set.

    same prompt   the same words, whatever case and spacing
    same opening  one conversation continues the other
    alike         most of its telling 8-word runs stand in one training prompt
    completions   every one of its completions (of eight words or more) was judged in training
    """
    known = _Known(train)
    found = [known.seen(judgement) for judgement in heldout]
    n = len(heldout)
    shares = {
        what: {"value": sum(what in each for each in found) / n, "n": n}
        for what in ("same prompt", "same opening", "alike", "completions")
    }
    leaked = [judgement for judgement, each in zip(heldout, found, strict=True) if each]
    prompts = list(dict.fromkeys(judgement.prompt.text for judgement in leaked))
    return {
        "value": len(leaked) / n,
        "ci": list(wilson(len(leaked), n)),
        "n": n,
        "train": len(train),
        **{what.replace(" ", "_"): about for what, about in shares.items()},
        "examples": prompts[:EXAMPLES],
    }


class _Known:
    """What a training set holds, ready to be looked up."""

    def __init__(self, train: Sequence[Judgement]) -> None:
        prompts = {judgement.prompt.id: judgement.prompt for judgement in train}
        self.texts = {_plain(prompt) for prompt in prompts.values()}
        self.openings = {opening for text in self.texts for opening in _openings(text)}
        self.completions = {_words(text) for judgement in train for text in judgement.completions}
        self.having: dict[int, list[int]] = defaultdict(list)
        for number, prompt in enumerate(prompts.values()):
            for gram in _grams(prompt):
                if len(self.having[gram]) <= COMMON:
                    self.having[gram].append(number)

    def seen(self, judgement: Judgement) -> set[str]:
        text = _plain(judgement.prompt)
        said = [_words(completion) for completion in judgement.completions]
        found = {
            "same prompt": text in self.texts,
            "same opening": text in self.openings or any(opening in self.texts for opening in _openings(text)),
            "alike": self._alike(judgement.prompt),
            "completions": all(len(words) >= LONG and words in self.completions for words in said),
        }
        return {what for what, is_so in found.items() if is_so}

    def _alike(self, prompt: Prompt) -> bool:
        places = [self.having.get(gram, []) for gram in _grams(prompt)]
        telling = [numbers for numbers in places if len(numbers) <= COMMON]
        if len(telling) < ENOUGH:
            return False
        counts = Counter(number for numbers in telling for number in numbers)
        return bool(counts) and max(counts.values()) >= ALIKE * len(telling)


def shift(ours: Sequence[Prompt], theirs: Sequence[Prompt], *, most: int = 2000, seed: int = 0) -> dict[str, Any]:
    """How well a simple reader of words tells two sets of prompts apart: the area under its curve, 0.5 where it cannot.

    It learns on one half of each and is tested on the other, both ways round.
    """
    random = np.random.default_rng(seed)
    sides = []
    for prompts in (ours, theirs):
        different = sorted({_plain(prompt)[-1][1]: None for prompt in prompts})
        chosen = random.permutation(len(different))[:most]
        sides.append(_features([different[i] for i in chosen]))
    a, b = sides
    if min(len(a), len(b)) < 2:
        return {"auc": None, "n": [len(a), len(b)]}
    areas = []
    for side in (0, 1):
        weights = a[side::2].mean(0) - b[side::2].mean(0)
        areas.append(_area(a[1 - side :: 2] @ weights, b[1 - side :: 2] @ weights))
    return {"auc": float(np.mean(areas)), "n": [len(a), len(b)]}


def _area(high: Floats, low: Floats) -> float:
    """How often one of the first is above one of the second, ties half."""
    apart = np.sign(high[:, None] - low[None, :])
    return float((apart / 2 + 0.5).mean())


def _features(texts: Sequence[str]) -> Floats:
    rows = np.zeros((len(texts), FEATURES))
    for row, text in zip(rows, texts, strict=True):
        for word, count in Counter(text.split()).items():
            row[zlib.crc32(word.encode("utf-8", "surrogatepass")) % FEATURES] += np.log1p(count)
    length = np.sqrt((rows**2).sum(1, keepdims=True))
    return rows / np.where(length > 0, length, 1.0)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower()))


def _plain(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, " ".join(message.content.lower().split())) for message in prompt.messages)


def _openings(text: tuple[tuple[str, str], ...]) -> Iterable[tuple[tuple[str, str], ...]]:
    """Shorter forms of a conversation that end with the user; everybody begins with a word or two of greeting."""
    return (
        text[:end]
        for end in range(1, len(text))
        if text[end - 1][0] == "user" and sum(len(said.split()) for _, said in text[:end]) >= OPENING
    )


def _grams(prompt: Prompt) -> set[int]:
    words = [word for message in prompt.messages if message.role != "system" for word in _words(message.content)]
    return {hash(tuple(words[i : i + NGRAM])) for i in range(len(words) - NGRAM + 1)}  # within one process only
