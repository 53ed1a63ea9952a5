"""One-sentence titles for posts: the clean ones, and the ones people in a hurry write.

`demonstration` is where the headroom of the world is designed in. Supervised fine-tuning imitates its faults at the
rates below; a policy that learns from judgements can drop them. Nothing else separates the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from trueup.errors import ConfigError

from . import words
from .posts import Post, another

ERROR = 0.08  # a fact: another value in its place
DISTRACTOR = 0.6  # an error: the wrong value is one that the post mentions
VAGUE = 0.15  # a demonstration: one fact becomes "someone", "something" ...
FILLER = 0.40  # a demonstration: "basically", "you know" ...
REPEATED = 0.08  # a demonstration: a phrase said twice
PARTIAL = 0.75  # a demonstration: one or two facts left out, and mostly who it was left vague

_FAMILIES = {family.name: family for family in words.FAMILIES}


def faithful(post: Post, rng: Random) -> str:
    """A clean title with all five facts, in one of several wordings, at most 18 words."""
    return wordings(post, rng, 1)[0]


def wordings(post: Post, rng: Random, count: int) -> list[str]:
    """`count` faithful titles that say the same in different words."""
    if not 1 <= count <= len(words.TITLES):
        raise ConfigError(f"asked for {count} wordings of a title: there are {len(words.TITLES)}")
    return [render(template, post.facts._asdict()) for template in rng.sample(words.TITLES, count)]


def casual(post: Post, rng: Random) -> str:
    """True but careless: facts left out or vague, filler. Every word of a demonstration, without its errors."""
    return _careless(post.facts._asdict(), rng)


def demonstration(post: Post, rng: Random, error: float = ERROR) -> str:
    """What an imperfect demonstrator writes: careless, with facts mixed up and, now and then, a phrase said twice."""
    return _careless({slot: _mixed_up(post, slot, rng, error) for slot in words.SLOTS}, rng, REPEATED)


def _careless(facts: Mapping[str, str], rng: Random, repeated: float = 0.0) -> str:
    vague = rng.choice(words.SLOTS) if rng.random() < VAGUE else ""
    template = rng.choice(words.TITLES)
    if rng.random() < PARTIAL:
        template = rng.choices(words.PARTIAL_TITLES, words.PARTIAL_WEIGHTS)[0]
        if template == words.USUAL:
            vague = "who"
    if rng.random() < repeated:
        phrase = "{act} {object}" if "{act}" in template else "{reaction}"
        template = template.replace(phrase, f"{phrase}, {phrase}")
    filler = rng.choice(words.FILLERS) if rng.random() < FILLER else ""
    return render(template, facts, vague=vague, filler=filler)


def render(template: str, facts: Mapping[str, str], *, vague: str = "", filler: str = "") -> str:
    """A title from its parts. `vague` names the slot that is left vague; `filler` is one of `words.FILLERS`."""
    phrases = {**facts, "who": f"my {facts['who']}", "object": f"my {facts['object']}"}
    if vague:
        phrases[vague] = words.VAGUE[vague]
    title = template.format_map(phrases)
    if filler in words.FILLER_LAST:
        title = f"{title[:-1]}, {filler}{title[-1]}"
    elif filler:
        title = f"{filler}, {title[0].lower()}{title[1:]}"
    return title[0].upper() + title[1:]


def _mixed_up(post: Post, slot: str, rng: Random, error: float) -> str:
    truth = str(getattr(post.facts, slot))
    if rng.random() >= error:
        return truth
    if post.distractors[slot] and rng.random() < DISTRACTOR:
        return rng.choice(post.distractors[slot])
    return another(rng, _FAMILIES[post.family], slot, truth)
