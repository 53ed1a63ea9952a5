"""Whether the members of an ensemble disagree where it is wrong: what their spread is worth as a warning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Completion
from ..stats.intervals import Floats, share
from ..stats.ranks import rank_correlation
from .scored import CHUNK, Advance, Pairs, in_parts

ByMember = Callable[[Sequence[Completion]], NDArray[Any]]  # the whole score by each member: (completions, members)
THIRDS = ("least", "middle", "most")


def disagreement(
    pairs: Pairs,
    score: Floats,
    by_member: ByMember,
    truth: Floats | None = None,
    *,
    advance: Advance = lambda n: None,
    seed: int = 0,
) -> dict[str, Any]:
    """Over judged pairs, the rank correlation of how far members differ about a pair with being wrong about it.

    Members differ about a pair by the standard deviation of their score differences: how high each of them puts a whole
    prompt cancels. Wrong is what the judges say, or the `truth` of the gold score, which has no noise of judges in it.
    `accuracy` is that of the pairs on which members differ least, middling and most, a third each.
    """
    members = _members(pairs.completions, by_member, advance)
    decided = pairs.decided
    apart = (members[decided.first] - members[decided.second]).std(1)
    right = decided.points(score)
    if truth is not None:
        right = (np.sign(decided.gap(score)) * np.sign(decided.gap(truth)) + 1) / 2
    found = rank_correlation(apart, 1 - right, decided.prompt, seed=seed)
    third = np.searchsorted(np.quantile(apart, [1 / 3, 2 / 3]), apart, side="left")
    return {
        "members": members.shape[1],
        "n": decided.n,
        "against": "judgements" if truth is None else "gold score",
        "spearman": None if found is None else found.to_json(),
        "accuracy": {
            name: share(right[third == place], decided.prompt[third == place], seed=seed)
            for place, name in enumerate(THIRDS)
        },
    }


def _members(completions: Sequence[Completion], by_member: ByMember, advance: Advance) -> Floats:
    found = []
    for part in in_parts(completions, CHUNK):
        found.append(np.asarray(by_member(part), dtype=float))
        advance(len(part))
    return np.concatenate(found)
