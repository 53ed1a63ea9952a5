"""Is one of two measured the same way lower than the other, or is it chance? And by how much do two shares differ?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .intervals import Interval, wilson
from .winrate import sign_test

_DRAWS = 4000


def chance_of_falling(differences: ArrayLike, seed: int = 0) -> float:
    """The chance that a mean at least this low comes about if each difference may as well have the other sign.

    A sign-flip test: it asks nothing of how the differences are spread, and with few of them it can never be sure
    (4 differences: 1/16 at best).
    """
    found = np.asarray(differences, dtype=float)
    assert found.ndim == 1 and len(found) > 0
    if not np.isfinite(found).all():
        return 0.0  # what is no number is as low as it gets
    if len(found) <= 12:
        signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * len(found))).reshape(len(found), -1).T
        return float((signs @ found <= found.sum() + 1e-12 * np.abs(found).sum()).mean())
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(_DRAWS, len(found)))
    return float((1 + (signs @ found <= found.sum()).sum()) / (1 + _DRAWS))


@dataclass(frozen=True, slots=True)
class Change:
    """Of a share, on the same cases: after less before. `more` cases became so, `fewer` ceased to be."""

    difference: float
    ci: Interval
    n: int
    more: int
    fewer: int
    p_value: float  # of McNemar's exact test

    def to_json(self) -> dict[str, Any]:
        return {
            "difference": self.difference, "ci": list(self.ci), "n": self.n, "more": self.more, "fewer": self.fewer,
            "p_value": self.p_value,
        }  # fmt: skip


def change_of(before: Sequence[bool], after: Sequence[bool], level: float = 0.95) -> Change:
    """Newcombe's interval for paired shares (Statistics in Medicine 1998, method 10): it does not shrink to nothing
    where no case changed, as redrawing would."""
    n = len(before)
    assert n == len(after) > 0
    both = sum(a and b for a, b in zip(before, after, strict=True))
    more, fewer = sum(after) - both, sum(before) - both
    neither = n - both - more - fewer
    now, then = sum(after) / n, sum(before) / n
    (low_now, high_now), (low_then, high_then) = wilson(sum(after), n, level), wilson(sum(before), n, level)
    product = float(both * neither - more * fewer)
    product = max(product - n / 2, 0.0) if product > 0 else product
    scale = sqrt(sum(after) * sum(before) * (n - sum(after)) * (n - sum(before)))
    hang = product / scale if scale else 0.0
    difference = now - then

    def reach(one: float, other: float) -> float:
        return sqrt(max(0.0, one * one - 2 * hang * one * other + other * other))

    ci = difference - reach(now - low_now, high_then - then), difference + reach(high_now - now, then - low_then)
    return Change(difference, (max(ci[0], -1.0), min(ci[1], 1.0)), n, more, fewer, sign_test(more, fewer))
