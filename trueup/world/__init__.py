"""The built-in world: posts, titles, a gold score and people to judge, made by a program from a seed.

Posts in the style of an advice forum are to be summarised in one sentence. Everything is closed and known, so the
whole loop can be run and *measured* in minutes on a laptop, without downloading anything.

What is designed in: the demonstrators are imperfect (`summaries.demonstration`: 8% of facts wrong, 15% vague, 40%
filler, 8% repetition; 75% leave something out, and most of these say "someone" for who it was) and the simulated
people mostly dislike that. A policy that imitates the demonstrations therefore has headroom that preferences can win.
The size of a gain here says that the loop works; it says nothing about how much RLHF would gain elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from trueup.records import Demonstration, Prompt

from .gold import BEST, Features, GoldScorer, describe, gold_score
from .people import (
    PERSONAS,
    Persona,
    SimulatedPeople,
    ceiling,
    expected_agreement,
    p_true,
    persona_named,
    utility,
    vote_probability,
)
from .posts import STREAMS, Facts, Post, make_posts
from .summaries import casual, demonstration, faithful, wordings

__all__ = [
    "BEST",
    "PERSONAS",
    "STREAMS",
    "Facts",
    "Features",
    "GoldScorer",
    "Persona",
    "Post",
    "SimulatedPeople",
    "World",
    "ceiling",
    "demonstration",
    "describe",
    "expected_agreement",
    "faithful",
    "gold_score",
    "make_posts",
    "p_true",
    "persona_named",
    "utility",
    "vote_probability",
    "wordings",
]


@dataclass(frozen=True)
class World:
    """Everything a seed makes. Streams never share a combination of facts; asking for more only adds at the end."""

    seed: int = 0

    def posts(self, stream: str, count: int) -> list[Post]:
        return make_posts(self.seed, count, stream=stream)

    def prompts(self, stream: str, count: int) -> list[Prompt]:
        return [post.prompt() for post in self.posts(stream, count)]

    def pretraining(self, count: int, titles: int = 4) -> list[tuple[Prompt, list[str]]]:
        """Posts, each with `titles` true titles, a quarter of them careless: where a model learns to write and copy.

        True on purpose: trained on wrong facts from the start, a small model hardly learns to copy at all.
        """
        rng = Random(f"{self.seed}/titles")
        plain = titles - titles // 4
        return [
            (post.prompt(), wordings(post, rng, plain) + [casual(post, rng) for _ in range(titles - plain)])
            for post in self.posts("pretraining", count)
        ]

    def demonstrations(self, count: int) -> list[Demonstration]:
        """What supervised fine-tuning imitates, faults and all."""
        rng = Random(f"{self.seed}/demonstrators")
        return [Demonstration(post.prompt(), demonstration(post, rng)) for post in self.posts("demonstrations", count)]
