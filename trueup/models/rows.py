"""How prompts and completions lie in a batch. One forward pass, three layouts, the same answer.

plain    one row a completion: prompt, completion, padding on the right.
shared   one row a prompt: the prompt once, then its K completions side by side. A block mask lets each completion
         see the prompt and itself only, and each starts at the position after the prompt, so every completion is
         computed exactly as if it stood alone. Saves (K-1)/K of the prompt's work.
packed   the rows of either, one after another in a single long row without any padding. Everything but attention works
         token by token and sees one large matrix; attention goes row by row (`models/packed.py`).

Either way the caller gets completions as a grid: C completions in the order given, L tokens wide, right-padded.
`before_cl` says which hidden state stands before each token (it predicts the token and carries the state's value),
`last_c` which one stands at the last token (a reward head reads there).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import accumulate
from typing import Any

import numpy as np
import torch

Group = tuple[Sequence[int], Sequence[Sequence[int]]]  # a prompt's tokens, and those of its completions


@dataclass(frozen=True)
class Layout:
    """How a model lets rows lie: what it was seen to compute correctly, and gains by."""

    shared: bool = False  # the completions of a prompt stand behind it in one row
    packed: bool = False  # all rows lie in a single long one
    trimmed: bool = False  # the last block finishes only the positions that are read

    def __and__(self, other: Layout) -> Layout:
        """What two models that read the same rows both compute correctly."""
        return Layout(*(mine and theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


PLAIN = Layout()
WORTH_TRIMMING = 0.85  # of the positions: picking some out and putting them back takes time as well


@dataclass(frozen=True)
class Rows:
    tokens_bt: torch.Tensor
    positions_bt: torch.Tensor
    real_bt: torch.Tensor  # False on padding
    allow_b1tt: torch.Tensor | None  # block mask of the shared layout; None means causal over `real_bt`
    target_cl: torch.Tensor
    mask_cl: torch.Tensor
    before_cl: torch.Tensor  # flat index into b*t
    before_n: (
        torch.Tensor
    )  # the same and `target_n` where `mask_cl` is True, in its order: a GPU need not be asked where
    target_n: torch.Tensor
    last_c: torch.Tensor
    prompt_target_bp: torch.Tensor  # prompt tokens after the first, for losses on prompts (pretraining)
    prompt_mask_bp: torch.Tensor
    prompt_before_bp: torch.Tensor
    read_n: torch.Tensor | None = None  # where the states before completion tokens stand, if only these are finished
    packed: tuple[PackedRow, ...] = ()  # of the packed layout: its rows, in their order

    def to(self, device: torch.device | str) -> Rows:
        def moved(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(PackedRow(row.length, moved(row.allow_tt)) for row in value)
            return None if value is None else value.to(device)

        return Rows(**{f.name: moved(getattr(self, f.name)) for f in fields(self)})


@dataclass(frozen=True)
class PackedRow:
    length: int
    allow_tt: torch.Tensor | None  # who may look at whom; None means at everything before


def row_tokens(group: Group) -> int:
    """Tokens of a prompt and its completions side by side."""
    prompt, completions = group
    return len(prompt) + sum(map(len, completions))


def lay_out(groups: Sequence[Group], pad_id: int, layout: Layout = PLAIN) -> Rows:
    """Lay the groups out in rows. A prompt needs at least one token and a completion at least one."""
    shared, packed = layout.shared, layout.packed
    assert groups and all(prompt and all(completions) for prompt, completions in groups)
    rows = groups if shared else [(prompt, [c]) for prompt, completions in groups for c in completions]
    lengths = [*map(row_tokens, rows)]
    height, width = (1, sum(lengths)) if packed else (len(rows), max(lengths))
    starts = [0, *accumulate(lengths)] if packed else range(0, height * width, width)
    count = sum(len(completions) for _, completions in rows)
    longest = max(len(c) for _, completions in rows for c in completions)
    longest_prompt = max(len(prompt) for prompt, _ in rows)

    tokens = np.full(height * width, pad_id, dtype=np.int64)
    positions = np.zeros(height * width, dtype=np.int64)
    branch = np.full(height * width, -1, dtype=np.int64)  # 0 prompt, 1.. completions, -1 padding
    target = np.full((count, longest), pad_id, dtype=np.int64)
    mask = np.zeros((count, longest), dtype=bool)
    before = np.zeros((count, longest), dtype=np.int64)
    last = np.zeros(count, dtype=np.int64)
    prompt_target = np.full((len(rows), longest_prompt - 1), pad_id, dtype=np.int64)
    prompt_mask = np.zeros((len(rows), longest_prompt - 1), dtype=bool)
    prompt_before = np.zeros((len(rows), longest_prompt - 1), dtype=np.int64)

    which = 0
    for r, (prompt, completions) in enumerate(rows):
        p, at = len(prompt), starts[r]
        tokens[at : at + p], positions[at : at + p], branch[at : at + p] = prompt, np.arange(p), 0
        prompt_target[r, : p - 1], prompt_mask[r, : p - 1] = prompt[1:], True
        prompt_before[r, : p - 1] = at + np.arange(p - 1)
        at = end = at + p
        for b, completion in enumerate(completions, start=1):
            n = len(completion)
            tokens[at : at + n], branch[at : at + n] = completion, b
            positions[at : at + n] = np.arange(p, p + n)
            target[which, :n], mask[which, :n] = completion, True
            before[which, 0] = end - 1
            before[which, 1:n] = np.arange(at, at + n - 1)
            last[which] = at + n - 1
            at, which = at + n, which + 1

    read = np.unique(before[mask])
    branch_bt, branches = branch.reshape(height, width), any(len(c) > 1 for _, c in rows)
    allow = _block_mask(branch_bt)[:, None] if branches and not packed else None
    return Rows(
        *map(torch.from_numpy, (tokens.reshape(height, width), positions.reshape(height, width), branch_bt >= 0)),
        torch.from_numpy(allow) if allow is not None else None,
        *map(torch.from_numpy, (target, mask, before, before[mask], target[mask], last)),
        *map(torch.from_numpy, (prompt_target, prompt_mask, prompt_before)),
        read_n=torch.from_numpy(read) if layout.trimmed and len(read) <= WORTH_TRIMMING * sum(lengths) else None,
        packed=tuple(_packed_rows(branch, rows, lengths)) if packed else (),
    )


def _packed_rows(branch: np.ndarray, rows: Sequence[Group], lengths: Sequence[int]) -> Iterator[PackedRow]:
    start = 0
    for (_, completions), length in zip(rows, lengths, strict=True):
        own = branch[None, start : start + length]
        yield PackedRow(length, torch.from_numpy(_block_mask(own)[0]) if len(completions) > 1 else None)
        start += length


def _block_mask(branch: np.ndarray) -> np.ndarray:
    """True where query i may look at key j: j not after i, and j in the prompt or in i's own completion."""
    width = branch.shape[1]
    same = branch[:, :, None] == branch[:, None, :]
    to_prompt = (branch[:, None, :] == 0) & (branch[:, :, None] > 0)
    causal = np.tri(width, dtype=bool)
    allow = (same | to_prompt) & causal
    allow |= np.eye(width, dtype=bool)  # padding looks at itself: a row without any key would be NaN
    return allow
