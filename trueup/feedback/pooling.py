"""Several votes made into one: soft targets, majority, HelpSteer's rule, Bradley-Terry, and what weighs judges.

Every rule works in item-fixed coordinates: completion i against completion j as the item lists them, never as somebody
saw them displayed. Otherwise it would learn who likes the left side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..records import Judgement, digest
from ..stats.aggregation import (
    bradley_terry,
    crowd_bradley_terry,
    dawid_skene,
    mace,
    soft_target,
    three_most_similar,
)
from ..stats.agreement import Votes

Rule = Literal["raw", "soft", "majority", "helpsteer", "bradley-terry", "crowd-bradley-terry", "dawid-skene", "mace"]
RULES: tuple[Rule, ...] = get_args(Rule)
OF_THUMBS: tuple[Rule, ...] = ("raw", "soft", "majority", "dawid-skene", "mace")  # the others compare

LEARNT: tuple[Rule, ...] = ("crowd-bradley-terry", "dawid-skene", "mace")

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


def learnt(votes: Iterable[Judgement], rule: Rule, *, thumbs: bool = False) -> Truth:
    """What a rule has to know of all votes of a set before it can pool those on one prompt: how likely each class is,
    by what each judge turns out to be worth. Nothing for the rules that look at one prompt at a time."""
    if rule == "crowd-bradley-terry":
        return _preferred(votes)
    if rule in ("dawid-skene", "mace"):
        return truth((said_of_thumbs if thumbs else said)(votes), 2 if thumbs else 3, rule)
    return {}


def truth(everything: Iterable[Said], classes: int, rule: Rule = "dawid-skene") -> Truth:
    places: dict[Any, int] = {}
    judges: dict[str, int] = {}
    rows = [
        (places.setdefault(what, len(places)), judges.setdefault(who, len(judges)), value)
        for what, who, value in everything
    ]
    found = (mace if rule == "mace" else dawid_skene)(Votes.of(*zip(*rows, strict=True)), classes)
    return {what: found.posterior[place] for what, place in places.items()}


def pool(
    votes: Sequence[Judgement], rule: Rule, known: Truth, left_out: Counter[str] | None = None
) -> Iterator[Judgement]:
    """The votes of one prompt as one judgement for each item, with a target for every pair. `left_out` counts the votes
    on items of which a rule makes nothing, by reason."""
    if rule == "helpsteer":
        yield from _by_degree(votes, Counter() if left_out is None else left_out)
        return
    target = _targets(votes, rule, known)
    for (_, completions), group in grouped(votes).items():
        pairs = combinations(range(len(completions)), 2)
        targets = tuple(round(target(group, i, j), 6) for i, j in pairs)
        yield _made(group, rule, _places(len(completions), targets), targets=targets)


def pool_thumbs(votes: Sequence[Judgement], rule: Rule, known: Truth) -> Iterator[Judgement]:
    """The thumbs of one prompt as one judgement for each completion, rated with the share or the chance of an up."""
    for what, group in grouped(votes).items():
        counts = Counter(thumb(vote) for vote in group)
        if rule in ("dawid-skene", "mace"):
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
        if rule in LEARNT:
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


def _preferred(votes: Iterable[Judgement]) -> Truth:
    """Bradley-Terry within each prompt, with the reliability of judges from all prompts together: for each pair how
    likely a judge who always says what they mean prefers either."""
    texts: dict[tuple[str, str], int] = {}
    judges: dict[str, int] = {}
    pairs: list[tuple[int, int, float, int]] = []
    asked: dict[Any, tuple[int, int]] = {}
    for vote in votes:
        judge, prompt = judges.setdefault(vote.judge, len(judges)), vote.prompt.id
        place = [texts.setdefault((prompt, text), len(texts)) for text in vote.completions]
        for i, j, target in vote.pairs():
            asked[(*_group(vote), i, j)] = place[i], place[j]
            if place[i] != place[j]:
                pairs.append((place[i], place[j], target, judge))
    strength = crowd_bradley_terry(pairs, len(texts), PRIOR).strengths.value
    chances = ((what, float(1 / (1 + np.exp(strength[j] - strength[i])))) for what, (i, j) in asked.items())
    return {what: np.array([1 - first, 0.0, first]) for what, first in chances}


# HelpSteer's rule


def _by_degree(votes: Sequence[Judgement], left_out: Counter[str]) -> Iterator[Judgement]:
    """Each pair by the mean of the three most similar votes on how much better; ratings likewise, axis by axis.

    An item is left out with fewer than three votes, where on some pair the three still lie more than two steps apart,
    and where in the end nothing is preferred.
    """
    for (_, completions), group in grouped(votes).items():
        pairs = list(combinations(range(len(completions)), 2))
        decided = len(group) == 1 and "adjudication" in group[0].meta  # it stands for the votes, and for itself
        means = [_mean_degree([_degree(vote, i, j) for vote in group], decided) for i, j in pairs]
        found = [degree for degree in means if degree is not None]
        if why := _no_degree(3 if decided else len(group), len(found) < len(means), any(found)):
            left_out[why] += len(group)
            continue
        targets = tuple(0.5 if not degree else float(degree > 0) for degree in found)
        made = _made(group, "helpsteer", _places(len(completions), targets), targets=targets, ratings=_ratings(group))
        yield replace(made, meta={**made.meta, "degrees": [round(degree, 6) for degree in found]})


def _mean_degree(degrees: Sequence[float], decided: bool) -> float | None:
    return degrees[0] if decided else three_most_similar(degrees)


def _no_degree(votes: int, apart: bool, preferred: bool) -> str:
    if votes < 3:
        return "fewer than three votes on the item"
    if apart:
        return "no three votes on the item are similar"
    return "" if preferred else "nothing is preferred by the three most similar votes"


def _degree(vote: Judgement, i: int, j: int) -> float:
    """How much better the first is: as was said of a pair, by ratings where there are some, else by one step."""
    strength = vote.meta.get("strength")
    if isinstance(strength, int | float) and len(vote.completions) == 2:
        return -float(strength)  # above 0 it speaks for the second
    rated = [_gap(vote.ratings[axis], i, j) for axis in _axes(vote)]
    known = [gap for gap in rated if gap is not None]
    return sum(known) / len(known) if known else 2 * _verdict(vote, i, j) - 1


def _axes(vote: Judgement) -> Sequence[str]:
    """The axes that speak for the whole."""
    return ("overall",) if "overall" in vote.ratings else tuple(vote.ratings)


def _gap(given: Sequence[float | None], i: int, j: int) -> float | None:
    first, second = given[i], given[j]
    return None if first is None or second is None else first - second


def _ratings(group: Sequence[Judgement]) -> dict[str, tuple[float | None, ...]]:
    """None where the three most similar ratings of a completion lie too far apart."""
    found: dict[str, tuple[float | None, ...]] = {}
    for axis in group[0].ratings:
        columns = zip(*(vote.ratings[axis] for vote in group), strict=True)
        found[axis] = tuple(three_most_similar([v for v in column if v is not None]) for column in columns)
    return found


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
