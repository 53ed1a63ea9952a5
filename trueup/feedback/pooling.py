"""Several votes made into one: soft targets, majority, Bradley-Terry, Dawid-Skene.

Every rule works in item-fixed coordinates: completion i against completion j as the item lists them, never as somebody
saw them displayed. Otherwise it would learn who likes the left side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..records import Judgement, digest
from ..stats.aggregation import bradley_terry, dawid_skene, soft_target
from ..stats.agreement import Votes

Rule = Literal["raw", "soft", "majority", "bradley-terry", "dawid-skene"]
RULES: tuple[Rule, ...] = get_args(Rule)

THUMB = "thumb"
PRIOR = 0.1  # of Bradley-Terry: without one, whoever never lost would be infinitely strong

Group = tuple[str, tuple[str, ...]]  # an item and its completions: an edited item has others for each editor
Said = tuple[Any, str, int]  # what was judged, by whom, as which class
Truth = Mapping[Any, NDArray[np.float64]]  # what was judged -> how likely each class is
Target = Callable[[Sequence[Judgement], int, int], float]


def grouped(votes: Iterable[Judgement]) -> dict[Group, list[Judgement]]:
    groups: dict[Group, list[Judgement]] = {}
    for vote in votes:
        groups.setdefault(_group(vote), []).append(vote)
    return groups


def said(votes: Iterable[Judgement]) -> Iterator[Said]:
    """Each vote as a class for every pair it is about: 0 the second is better, 1 a tie, 2 the first is better."""
    for vote in votes:
        for i, j, target in vote.pairs():
            yield (*_group(vote), i, j), vote.judge, round(2 * target)


def said_of_thumbs(votes: Iterable[Judgement]) -> Iterator[Said]:
    """Each thumb as a class: 0 down, 1 up."""
    for vote in votes:
        yield _group(vote), vote.judge, int(thumb(vote))


def truth(everything: Iterable[Said], classes: int) -> Truth:
    """Dawid-Skene over all votes of a set: how likely each class is, by what each judge turns out to be worth."""
    places: dict[Any, int] = {}
    judges: dict[str, int] = {}
    rows = [
        (places.setdefault(what, len(places)), judges.setdefault(who, len(judges)), value)
        for what, who, value in everything
    ]
    found = dawid_skene(Votes.of(*zip(*rows, strict=True)), classes)
    return {what: found.posterior[place] for what, place in places.items()}


def pool(votes: Sequence[Judgement], rule: Rule, known: Truth) -> Iterator[Judgement]:
    """The votes of one prompt as one judgement for each item, with a target for every pair."""
    target = _targets(votes, rule, known)
    for (_, completions), group in grouped(votes).items():
        pairs = combinations(range(len(completions)), 2)
        targets = tuple(round(target(group, i, j), 6) for i, j in pairs)
        yield _made(group, rule, _places(len(completions), targets), targets=targets)


def pool_thumbs(votes: Sequence[Judgement], rule: Rule, known: Truth) -> Iterator[Judgement]:
    """The thumbs of one prompt as one judgement for each completion, rated with the share or the chance of an up."""
    for what, group in grouped(votes).items():
        counts = Counter(thumb(vote) for vote in group)
        if rule == "dawid-skene":
            value = float(known[what][1])
        else:
            value = _leading(counts) if rule == "majority" else float(soft_target(counts[1.0], 0, len(group)))
        yield _made(group, rule, (1,), ratings={THUMB: (round(value, 6),)})


def thumb(vote: Judgement) -> float:
    value = vote.ratings[THUMB][0]
    assert value is not None
    return value


def _group(vote: Judgement) -> Group:
    return str(vote.meta["item"]), vote.completions


def _targets(votes: Sequence[Judgement], rule: Rule, known: Truth) -> Target:
    """What a rule makes of the votes on one pair of an item: the probability that the first is better."""
    strength = _strengths(votes) if rule == "bradley-terry" else {}

    def target(group: Sequence[Judgement], i: int, j: int) -> float:
        if rule == "dawid-skene":
            _, tie, first = known[(*_group(group[0]), i, j)]
            return float(first + tie / 2)
        if rule == "bradley-terry":
            texts = group[0].completions
            return float(1 / (1 + np.exp(strength[texts[j]] - strength[texts[i]])))
        counts = Counter(_verdict(vote, i, j) for vote in group)
        if rule == "majority":
            return _leading(counts)
        return float(soft_target(counts[1.0], counts[0.5], len(group)))

    return target


def _verdict(vote: Judgement, i: int, j: int) -> float:
    better, worse = vote.ranks[i], vote.ranks[j]
    return 1.0 if better < worse else 0.0 if better > worse else 0.5


def _leading(counts: Counter[float]) -> float:
    """What most say, a tie being an answer too; an even split stays one."""
    most = max(counts.values())
    leaders = [value for value, count in counts.items() if count == most]
    return leaders[0] if len(leaders) == 1 else 0.5


def _strengths(votes: Sequence[Judgement]) -> dict[str, float]:
    """Bradley-Terry over everything said about one prompt: pairs and rankings of it inform one another."""
    place = {text: i for i, text in enumerate(dict.fromkeys(text for vote in votes for text in vote.completions))}
    pairs = [
        (place[vote.completions[i]], place[vote.completions[j]], target)
        for vote in votes
        for i, j, target in vote.pairs()
        if vote.completions[i] != vote.completions[j]
    ]
    found = bradley_terry(pairs, len(place), PRIOR)
    return {text: float(found.value[i]) for text, i in place.items()}


def _places(k: int, targets: Sequence[float]) -> tuple[int, ...]:
    """Ranks that fit the targets: by the mean chance of beating the others, equal ones tied."""
    wins = np.zeros(k)
    for (i, j), target in zip(combinations(range(k), 2), targets, strict=True):
        wins[i] += target
        wins[j] += 1 - target
    levels = sorted({round(float(w), 6) for w in wins}, reverse=True)
    return tuple(levels.index(round(float(w), 6)) + 1 for w in wins)


def _made(group: Sequence[Judgement], rule: Rule, ranks: tuple[int, ...], **more: Any) -> Judgement:
    first, ids = group[0], [vote.id for vote in group]
    kept = {key: first.meta[key] for key in ("collection", "item", "finished", "models", "why") if key in first.meta}
    return Judgement(
        first.prompt,
        first.completions,
        ranks,
        judge=rule,
        source="rule",
        id=digest([rule, ids])[:16],
        split=first.split,
        meta=kept | {"votes": ids, "judges": len({vote.judge for vote in group})},
        **more,
    )
