"""What a scorer may like for its own sake: length, lists, bold type, hedging, refusing, marks that nobody sees.

Compared inside a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..records import Completion, Judgement
from ..stats.intervals import Floats
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
    "unseen characters": re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]|[ \t]+$", re.MULTILINE),
}
GAPS = 6  # points of the curve of accuracy against the length gap
WORTH_A_WORD = 0.05  # beside a half: a smaller share of first places won spoils no test


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
    """How often what a judge saw earlier was preferred, of the pairs of each judgement. A scorer cannot see this.

    The order of display is what a judgement notes as `order`, else that of its completions. Where the preferred one
    always comes first in the judgements that note nothing, it is the format that says so, and they are left out.
    """
    rows = [_shown(pairs, row) for row in range(pairs.decided.n)]
    shown = [each for each in rows if each is not None]
    noted = sum(each.noted for each in shown)
    if len({each.first_won for each in shown if not each.noted}) == 1:
        shown = [each for each in shown if each.noted]
    n = len(shown)
    if not n:
        return {"value": None, "ci": [0.0, 1.0], "n": n, "noted": noted, "suspected": None}
    won = np.array([each.first_won for each in shown], dtype=float)
    found = share(won, [each.judgement for each in shown])
    surely = found["ci"][0] > 0.5 or found["ci"][1] < 0.5
    suspected = bool(surely and abs(found["value"] - 0.5) >= WORTH_A_WORD)
    return {"value": found["value"], "ci": found["ci"], "n": n, "noted": noted, "suspected": suspected}


class _Shown(NamedTuple):
    """A decided pair as its judge saw it: whether what stood earlier won, and whether the order was noted."""

    first_won: bool
    noted: bool
    judgement: int


def _shown(pairs: Pairs, row: int) -> _Shown | None:
    """None where the two never stood beside each other: verdicts on single completions, matched later."""
    decided = pairs.decided
    which = int(decided.of[row])
    judgement, start = pairs.judgements[which], pairs.starts[which]
    if len(judgement.completions) < 2:
        return None
    order = _noted_order(judgement)
    i, j = (int(slots[row]) - start for slots in (decided.first_slot, decided.second_slot))
    earlier = i < j if order is None else order.index(i) < order.index(j)
    return _Shown(earlier == bool(decided.target[row] > 0.5), order is not None, which)


def _noted_order(judgement: Judgement) -> list[int] | None:
    """Which completion stood at each place; what a file calls an order and is none tells nothing."""
    order, places = judgement.meta.get("order"), range(len(judgement.completions))
    return order if isinstance(order, list) and len(order) == len(places) and all(i in order for i in places) else None


def _of_judges(pairs: Pairs, amount: Floats) -> float:
    """Correlation of the gap in amount with who won, taken as plus and minus one: order-free, so centred at 0."""
    gap, won = pairs.gap(amount), np.sign(pairs.target - 0.5)
    size = float(np.sqrt((gap**2).sum() * len(gap)))
    return float((gap * won).sum() / size) if size else 0.0
