"""Which rows come when: pure functions of the seed and the step, so a resumed run needs no data state."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random


def order(seed: int, epoch: int, n: int) -> list[int]:
    """A permutation of 0..n-1, another one each epoch."""
    return list(_order(seed, epoch, n))


def batch_indices(seed: int, step: int, batch_size: int, n: int) -> list[int]:
    """The rows of one step. Epochs follow one another without a gap: a batch may end one and begin the next."""
    assert n > 0 and batch_size > 0 and step >= 0
    start = step * batch_size
    return [_order(seed, i // n, n)[i % n] for i in range(start, start + batch_size)]


def in_turn(n: int, size: int) -> list[list[int]]:
    """0..n-1 in order, `size` at a time."""
    return [list(range(start, min(start + size, n))) for start in range(0, n, size)]


def alike(lengths: Sequence[int], size: int, padding: float) -> list[list[int]]:
    """Indices in batches of similar length, at most `size` in one and at most this share of it padding."""
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        last = batches[-1] if batches else []
        if last and len(last) < size and padding_share(lengths, [[*last, i]]) <= padding:
            last.append(i)
        else:
            batches.append([i])
    return batches


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """How much of the batches would be padding, each as wide as its longest row."""
    whole = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / whole


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, n: int) -> tuple[int, ...]:
    rows = list(range(n))
    Random(f"{seed} {epoch}").shuffle(rows)
    return tuple(rows)
