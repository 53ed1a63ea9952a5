"""Judged pairs, or prompts, in slices: by strength, task, judge and the like, so that an average hides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..records import Judgement, Prompt
from ..stats.assistance import helpers_of
from ..stats.intervals import Floats, share
from .scored import Pairs

__all__ = ["prompt_slices", "share", "slices", "tags_of"]

LARGEST = 12  # slices of one kind; the rest is one called "others"
DRAWS = 400
TAGS = ("tags", "tag", "category", "task", "topic", "subset", "language")
OTHERS = "others"
GAPS = ("small", "medium", "large")
LENGTHS = ("short", "middling", "long")


def slices(
    pairs: Pairs, score: Floats, length: Floats, trained_on: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Accuracy in each slice of more than one level, beside what always preferring the longer one would reach.

    `trained_on` are the judges that the model learnt from: the others are held out.
    """
    right, longer = pairs.points(score), pairs.points(length)
    found = []
    for kind, labels in _kinds(pairs, length, trained_on).items():
        members = _members(labels)
        for name, rows in _largest(members).items():
            if len(members) > 1:
                about = share(right[rows], pairs.prompt[rows], draws=DRAWS)
                always = float(longer[rows].mean())
                found.append({"kind": kind, "name": name, **about, "longest": always, "shortest": 1 - always})
    return found


def prompt_slices(prompts: Sequence[Prompt]) -> dict[str, dict[str, list[int]]]:
    """Kind of slice -> its name -> places in `prompts`; of kinds with more than one level."""
    words = np.array([sum(len(m.content.split()) for m in prompt.messages) for prompt in prompts], dtype=float)
    kinds: dict[str, list[tuple[str, ...]]] = {
        "tag": [tags_of(prompt.meta) for prompt in prompts],
        "turns": [(str(sum(m.role == "user" for m in prompt.messages)),) for prompt in prompts],
        "prompt length": [(name,) for name in _terciles(words, LENGTHS)],
    }
    found = {kind: _members(labels) for kind, labels in kinds.items()}
    return {kind: _largest(members) for kind, members in found.items() if len(members) > 1}


def _members(labels: Sequence[tuple[str, ...]]) -> dict[str, list[int]]:
    members: dict[str, list[int]] = {}
    for row, mine in enumerate(labels):
        for label in mine:
            members.setdefault(label, []).append(row)
    return members


def _kinds(pairs: Pairs, length: Floats, trained_on: Collection[str] | None) -> dict[str, list[tuple[str, ...]]]:
    """Kind of slice -> the labels of every pair, none where nothing is known."""
    said = [pairs.judgements[which] for which in pairs.of.tolist()]
    kinds: dict[str, list[tuple[str, ...]]] = {
        "strength": [_strength(judgement) for judgement in said],
        "tag": [tags_of(judgement.prompt.meta) for judgement in said],
        "length gap": [(name,) for name in _terciles(np.abs(pairs.gap(length)))],
        "completions": [(str(len(judgement.completions)),) for judgement in said],
        "turns": [(str(sum(m.role == "user" for m in judgement.prompt.messages)),) for judgement in said],
        "objective": [_named(judgement.meta, "objective") for judgement in said],
        "source": [(judgement.source,) for judgement in said],
        "split": [(judgement.split,) for judgement in said],
        "help": [_help(judgement) for judgement in said],
        "group": [_named(judgement.meta, "group") for judgement in said],
        "judge": [(judgement.judge,) for judgement in said],
    }
    if trained_on is not None:
        kinds["judges"] = [("in training" if j.judge in trained_on else "held out",) for j in said]
    return kinds


def _largest(members: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """In order of name, numbers by size; the smallest together where there are many."""
    common = {name for name, _ in Counter({name: len(rows) for name, rows in members.items()}).most_common(LARGEST)}
    kept = {name: members[name] for name in sorted(common, key=_order)}
    rest = [row for name, rows in members.items() if name not in common for row in rows]
    return kept | ({OTHERS: rest} if rest else {})


def _order(name: str) -> tuple[int, float, str]:
    for known in (GAPS, LENGTHS):
        if name in known:
            return (known.index(name), 0.0, "")
    return (0, float(name), "") if name.isdecimal() else (0, 0.0, name)


def _terciles(sizes: Floats, names: Sequence[str] = GAPS) -> Iterator[str]:
    low, high = np.quantile(sizes, [1 / 3, 2 / 3]).tolist()
    for value in sizes.tolist():
        yield names[0 if value <= low else 1 if value <= high else 2]


def _strength(judgement: Judgement) -> tuple[str, ...]:
    said = judgement.meta.get("strength")
    if isinstance(said, bool) or not isinstance(said, int | float):
        return ()
    return (f"{abs(said):g}",)


def tags_of(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """What a prompt is about, as it says itself."""
    found: list[str] = []
    for key in TAGS:
        said = meta.get(key) or ()
        several = said if isinstance(said, list | tuple) else (said,)
        found += [tag for tag in several if isinstance(tag, str)]
    return tuple(dict.fromkeys(found))


def _help(judgement: Judgement) -> tuple[str, ...]:
    """Whether the judge was shown what helpers said; nothing where nobody noted it."""
    helpers = helpers_of(judgement)
    return () if helpers is None else ("with help",) if helpers else ("without help",)


def _named(meta: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return (str(meta[key]),) if meta.get(key) else ()
