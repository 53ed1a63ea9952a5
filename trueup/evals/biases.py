"""What a scorer may like for its own sake: length, lists, bold type, hedging, refusing. Compared inside a prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..records import Completion
from ..stats.intervals import Floats
from ..stats.judges import position_bias
from ..stats.within import within_pearson, within_spearman
from .scored import Pairs
from .slices import share

_HEDGES = (
    "perhaps|maybe|possibly|probably|i think|i believe|i guess|it seems|it depends|might|not sure|in general|"
    "generally|usually|arguably|some people|to some extent"
)
_REFUSALS = (
    "i can't|i cannot|i can not|i won't|i will not|i'm sorry|i am sorry|i apologi[sz]e|i'm unable|i am unable|"
    "i'm not able|i am not able|as an ai|not comfortable|against my|i must decline"
)
MARKS: dict[str, re.Pattern[str]] = {
    "list items": re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE),
    "bold": re.compile(r"\*\*\S[^*\n]*\*\*|__\S[^_\n]*__"),
    "headings": re.compile(r"^#{1,6}[ \t]+\S", re.MULTILINE),
    "code": re.compile(r"^[ \t]*```|`[^`\n]+`", re.MULTILINE),
    "hedges": re.compile(rf"\b(?:{_HEDGES})\b", re.IGNORECASE),
    "refusals": re.compile(rf"\b(?:{_REFUSALS})\b", re.IGNORECASE),
}
GAPS = 6  # points of the curve of accuracy against the length gap


def bias(pairs: Pairs, score: Floats, amount: Floats) -> dict[str, Any]:
    """How the score goes with an amount (length, marks) inside a prompt, and how far the amount alone foresees.

    `judges` is the same correlation for what was preferred: a scorer that follows its judges is not biased by itself.
    """
    decided = pairs.decided
    gap = decided.gap(amount) * np.sign(decided.target - 0.5)  # of the preferred one over the other
    right = decided.points(score)
    most = share(decided.points(amount), decided.prompt)
    where = {"more": gap > 0, "less": gap < 0}
    return {
        "pearson": within_pearson(amount, score, pairs.prompt_of).to_json(),
        "spearman": within_spearman(amount, score, pairs.prompt_of).to_json(),
        "judges": _of_judges(decided, amount),
        "chosen_has": {name: share(right[here], decided.prompt[here]) for name, here in where.items()},
        "always_most": most,
        "always_least": {"value": 1 - most["value"], "ci": [1 - most["ci"][1], 1 - most["ci"][0]], "n": most["n"]},
        "differing": int((gap != 0).sum()),
    }


def marks(pairs: Pairs, score: Floats) -> dict[str, dict[str, Any]]:
    """`bias` of every mark by which at least one pair differs."""
    found = {name: bias(pairs, score, counted(pairs.completions, name)) for name in MARKS}
    return {name: about for name, about in found.items() if about["differing"]}


def counted(completions: Sequence[Completion], mark: str) -> Floats:
    return np.array([len(MARKS[mark].findall(completion.text)) for completion in completions], dtype=float)


def length_curve(pairs: Pairs, score: Floats, length: Floats) -> list[dict[str, Any]]:
    """Accuracy against how much longer the preferred completion is, in bins of equally many pairs."""
    decided = pairs.decided
    gap = decided.gap(length) * np.sign(decided.target - 0.5)
    right = decided.points(score)
    edges = np.unique(np.quantile(gap, np.linspace(0, 1, GAPS + 1)))
    place = np.searchsorted(edges[1:-1], gap, side="right")
    return [
        {"gap": float(gap[here].mean()), **share(right[here], decided.prompt[here], draws=400)}
        for here in (place == number for number in range(max(len(edges) - 1, 1)))
        if here.any()
    ]


def position(pairs: Pairs) -> dict[str, Any]:
    """How often what a judge saw first was preferred, of single pairs. A scorer tested on such judgements is not.

    The order of display is what a judgement notes as `order`, else that of its completions; in a set in which the
    preferred one always comes first, it is the format that says so, and nothing is known.
    """
    first, noted = [], 0
    for judgement in pairs.judgements:
        if len(judgement.ranks) != 2 or judgement.ranks[0] == judgement.ranks[1]:
            continue
        order = judgement.meta.get("order")
        shown_first = order[0] if order else 0
        noted += bool(order)
        first.append(judgement.ranks[shown_first] < judgement.ranks[1 - shown_first])
    chosen, n = sum(first), len(first)
    if n == 0 or (not noted and chosen in (0, n)):
        return {"value": None, "ci": [0.0, 1.0], "n": n, "noted": noted, "suspected": None}
    found = position_bias(chosen, n)
    return {"value": chosen / n, "ci": [found.low, found.high], "n": n, "noted": noted, "suspected": found.warn}


def _of_judges(pairs: Pairs, amount: Floats) -> float:
    """Correlation of the gap in amount with who won, taken as plus and minus one: order-free, so centred at 0."""
    gap, won = pairs.gap(amount), np.sign(pairs.target - 0.5)
    size = float(np.sqrt((gap**2).sum() * len(gap)))
    return float((gap * won).sum() / size) if size else 0.0
