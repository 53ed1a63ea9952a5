"""Attention over rows that lie one after another without padding: each row by itself, everything else all at once.

transformers lets a model's attention be another function; which rows there are stands beside the call, since families
differ in what they hand on. Only where the trunk was seen to compute the same so (`trunk_layout`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from ..algo.masked import at_least_float32
from .rows import PackedRow

NAME = "trueup_packed"
UNKNOWN = ("softcap", "sliding_window", "s_aux", "position_bias")  # what attention here knows nothing of
_rows: ContextVar[tuple[PackedRow, ...]] = ContextVar("packed rows")


@contextmanager
def row_by_row(trunk: Any, rows: tuple[PackedRow, ...]) -> Iterator[None]:
    """Within, attention of `trunk` goes over these rows of a single long one."""
    config = trunk.config
    before, token = config._attn_implementation, _rows.set(rows)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _rows.reset(token)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    if dropout or attention_mask is not None or any(more.get(name) is not None for name in UNKNOWN):
        raise ValueError("this attention is of a kind that goes not row by row")
    rows, shared_heads = _rows.get(), query.shape[1] // key.shape[1]
    if shared_heads > 1:
        key, value = (heads.repeat_interleave(shared_heads, 1) for heads in (key, value))
    lengths, dtype = [row.length for row in rows], query.dtype
    # In float32 at least: on a CPU the backward pass of attention in 16 bits takes more than twice as long.
    query, key, value = map(at_least_float32, (query, key, value))
    parts = zip(*(heads.split(lengths, 2) for heads in (query, key, value)), rows, strict=True)
    found = [
        scaled_dot_product_attention(q, k, v, row.allow_tt, is_causal=row.allow_tt is None, scale=scaling)
        for q, k, v, row in parts
    ]
    return torch.cat([heads.transpose(1, 2) for heads in found], 1).to(dtype), None


AttentionInterface.register(NAME, _attention)
