"""How much of a text is said again, and how much of many texts is the same. Over any tokens: ids or words."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

Tokens = Sequence[Hashable]


def ngrams(tokens: Tokens, n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def repetition(tokens: Tokens, n: int = 4) -> float:
    """Share of a text's runs of `n` tokens that it had said before; a text shorter than a run repeats nothing."""
    runs = ngrams(tokens, n)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def distinct(texts: Sequence[Tokens], n: int = 2) -> float:
    """Share of all runs of `n` tokens in many texts that are different ones; 1 where there is no run at all."""
    runs = [run for tokens in texts for run in ngrams(tokens, n)]
    return len(set(runs)) / len(runs) if runs else 1.0


def duplicates(texts: Sequence[Hashable]) -> float:
    """Share of texts that another one before them equals."""
    return 1 - len(set(texts)) / len(texts) if texts else 0.0
