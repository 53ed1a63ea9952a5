"""Exact chances of so many successes in n trials, or in a part of trials that were made already."""

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


def drawn_at_least(k: int, drawn: int, marked: int, total: int) -> float:
    """The chance of k or more marked ones among `drawn` of `total` of which `marked` are (hypergeometric)."""
    assert 0 <= drawn <= total and 0 <= marked <= total
    lowest, most = max(0, drawn - (total - marked)), min(drawn, marked)
    if k <= lowest or k > most:
        return 1.0 if k <= lowest else 0.0
    logs = [_log_ways(marked, i) + _log_ways(total - marked, drawn - i) for i in range(k, most + 1)]
    top = max(logs)
    return min(1.0, exp(top - _log_ways(total, drawn)) * sum(exp(x - top) for x in logs))


def _log_ways(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
