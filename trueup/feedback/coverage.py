"""What a prompt set covers: copies, lengths, topics, and where nobody has judged yet. `trueup data coverage`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..records import Prompt
from . import likeness

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
THIN = 0.5  # a topic with less than this share of the mean judgements a prompt is thin
SHOWN_COPIES = 5  # groups of near duplicates that are spelled out


@dataclass(frozen=True)
class Topic:
    words: tuple[str, ...]
    prompts: int
    judgements: int
    per_prompt: float
    unjudged: int
    thin: bool
    example: str


@dataclass(frozen=True)
class Coverage:
    prompts: int
    exact_copies: int  # rows that repeat an earlier one to the letter
    near_copies: int  # further rows that are nearly an earlier one
    groups: tuple[tuple[str, ...], ...]  # the largest groups of near copies
    words: Mapping[str, int]  # quantile -> words of the last message
    turns: Mapping[str, int]  # number of messages -> prompts
    judgements: int
    unjudged: int
    topics: tuple[Topic, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def describe(prompts: Sequence[Prompt], judged: Mapping[str, int], *, topics: int = 0, seed: int = 0) -> Coverage:
    """`prompts` as they stand in the file, copies included; `judged` maps a prompt's id to its judgements."""
    distinct = list({prompt.id: prompt for prompt in prompts}.values())
    texts = [_whole(prompt) for prompt in distinct]
    copies = likeness.near_duplicates(texts)
    lengths = [len(prompt.text.split()) for prompt in distinct]
    counts = np.array([judged.get(prompt.id, 0) for prompt in distinct])
    largest = sorted(copies, key=len, reverse=True)[:SHOWN_COPIES]
    found = likeness.topics(texts, topics, seed=seed)
    return Coverage(
        prompts=len(prompts),
        exact_copies=len(prompts) - len(distinct),
        near_copies=sum(len(group) - 1 for group in copies),
        groups=tuple(tuple(distinct[i].text for i in group) for group in largest),
        words={f"{q:.0%}": int(value) for q, value in zip(QUANTILES, np.quantile(lengths, QUANTILES), strict=True)},
        turns={str(n): count for n, count in sorted(Counter(len(p.messages) for p in distinct).items())},
        judgements=int(counts.sum()),
        unjudged=int((counts == 0).sum()),
        topics=tuple(_topic(found, topic, distinct, counts) for topic in range(len(found.words))),
    )


def _topic(found: likeness.Topics, topic: int, prompts: Sequence[Prompt], counts: np.ndarray[Any, Any]) -> Topic:
    inside = np.flatnonzero(found.of == topic)
    mine = counts[inside]
    per_prompt, mean = float(mine.mean()), float(counts.mean())
    return Topic(
        words=found.words[topic],
        prompts=len(inside),
        judgements=int(mine.sum()),
        per_prompt=round(per_prompt, 3),
        unjudged=int((mine == 0).sum()),
        thin=mean > 0 and per_prompt < THIN * mean,
        example=prompts[int(inside[0])].text,
    )


def _whole(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages)
