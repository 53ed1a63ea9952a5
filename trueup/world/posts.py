"""Advice-forum posts made by a program: a person, what they did to what, how they took it, and what to do now.

Five key facts make up the truth of a post. Around them stand background, cost, feelings, and people whose advice and
past misdeeds are *not* the story: a summary that grabs the first person or the first piece of advice gets it wrong.
The truth travels in `Prompt.meta["world"]`, which no model ever sees, so that `gold` needs nothing but the prompt.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from trueup.errors import ConfigError, nearest
from trueup.records import Prompt

from . import words

# Every combination of facts belongs to exactly one stream, whatever the seed: what is held out stays held out.
STREAMS = ("pretraining", "demonstrations", "train", "candidates", "judgements", "rl", "heldout", "evaluation")
# Chances of a cost, a feeling, somebody's advice and another incident: what a summary has to pass over.
ASIDES = (0.5, 0.5, 0.5, 0.15)

Key = tuple[str, ...]


class Facts(NamedTuple):
    """What a faithful summary says: `My {who} {act} my {object} and {reaction}, should I {question}?`"""

    who: str
    act: str
    object: str
    reaction: str
    question: str


@dataclass(frozen=True)
class Post:
    """A post, its truth, and the false values that its text mentions (`distractors`, by slot)."""

    text: str
    family: str
    facts: Facts
    distractors: Mapping[str, tuple[str, ...]]

    @property
    def key(self) -> Key:
        """The combination of facts: what streams do not share and `avoid` takes."""
        return (self.family, *self.facts)

    def prompt(self) -> Prompt:
        return Prompt.user(self.text, world={"family": self.family, "facts": self.facts._asdict()})


def make_posts(seed: int, count: int, *, stream: str = "train", avoid: Collection[Key] = ()) -> list[Post]:
    """`count` posts, no two with the same facts, none with facts in `avoid` or of another stream.

    The first posts of a longer list are the posts of a shorter one.
    """
    if stream not in STREAMS:
        raise ConfigError(f"the built-in world has no stream {stream!r}{nearest(stream, STREAMS)}", ", ".join(STREAMS))
    rng = Random(f"{seed}/{stream}")  # a string seed is hashed with sha512: the same in every process
    taken = set(avoid)
    posts = []
    for _ in range(count):
        family, facts = _new_facts(rng, STREAMS.index(stream), taken)
        taken.add((family.name, *facts))
        posts.append(_write(rng, family, facts))
    return posts


def _new_facts(rng: Random, stream: int, taken: Collection[Key]) -> tuple[words.Family, Facts]:
    while True:  # one draw in len(STREAMS) is ours; there are about ten million combinations
        family = rng.choice(words.FAMILIES)
        facts = Facts(*(rng.choice(family.values(slot)) for slot in words.SLOTS))
        key = (family.name, *facts)
        if zlib.crc32("/".join(key).encode()) % len(STREAMS) == stream and key not in taken:
            return family, facts


def _write(rng: Random, family: words.Family, facts: Facts) -> Post:
    distractors = _distractors(rng, family, facts)
    when = rng.choice(words.WHEN)
    fill = facts._asdict() | {
        "they": _pronoun(rng, facts.who),
        "when": when,
        "When": when[0].upper() + when[1:],
        "money": rng.choice(words.MONEY),
        "few": rng.choice(words.FEW),
        "helper": distractors["who"][0],
        "other": distractors["who"][1],
        "act2": distractors["act"][0],
        "object2": distractors["object"][0],
        "reaction2": distractors["reaction"][0],
        "advice": distractors["question"][0],
    }
    text = " ".join(_sentences(rng, family)).format_map(fill)
    return Post(text, family.name, facts, {s: tuple(v for v in vs if v in text) for s, vs in distractors.items()})


def _sentences(rng: Random, family: words.Family) -> list[str]:
    """The sentences of a post in one of its orders. The act comes before the reaction, whose pronoun points back."""
    background, cost = rng.choice(family.background), rng.choice(family.cost)
    happened = [rng.choice(words.EVENT), rng.choice(words.REACTION)]
    asides = [cost, rng.choice(words.FEELING), rng.choice(words.ADVICE), rng.choice(words.INCIDENT)]
    asides = [aside for aside, chance in zip(asides, ASIDES, strict=True) if rng.random() < chance]
    rng.shuffle(asides)
    story = [background, *happened] if rng.random() < 0.5 else [*happened, background]
    if rng.random() < 0.3:
        return [rng.choice(words.QUESTION_FIRST), *story, *asides, rng.choice(words.THANKS)]
    return [*story, *asides, rng.choice(words.QUESTION)]


def _distractors(rng: Random, family: words.Family, facts: Facts) -> dict[str, tuple[str, ...]]:
    people = [p for p in words.PEOPLE if p != facts.who and not {p, facts.who} <= words.PARTNERS]
    helper, other = rng.sample(people, 2)
    while {helper, other} <= words.PARTNERS:
        helper, other = rng.sample(people, 2)
    return {"who": (helper, other)} | {
        slot: (another(rng, family, slot, getattr(facts, slot)),) for slot in words.SLOTS if slot != "who"
    }


def another(rng: Random, family: words.Family, slot: str, value: str) -> str:
    """A value of `slot` other than `value`."""
    while (other := rng.choice(family.values(slot))) == value:
        pass
    return other


def _pronoun(rng: Random, who: str) -> str:
    if who in words.EITHER:
        return rng.choice(("she", "he"))
    return "she" if who in words.FEMALE else "he"
