"""Exact chances of so many successes in n trials, for any n."""

from __future__ import annotations

from math import exp, lgamma, log, log1p


def at_least(k: int, n: int, chance: float) -> float:
    """The chance of k or more successes in n trials."""
    assert n >= 0 and 0 <= chance <= 1
    if k <= 0 or k > n:
        return 1.0 if k <= 0 else 0.0
    if chance in (0.0, 1.0):
        return chance
    logs = [
        lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(chance) + (n - i) * log1p(-chance)
        for i in range(k, n + 1)
    ]
    top = max(logs)
    return min(1.0, exp(top) * sum(exp(x - top) for x in logs))


def at_most(k: int, n: int, chance: float) -> float:
    """The chance of k or fewer successes in n trials."""
    return at_least(n - k, n, 1 - chance)
