"""Reductions over the tokens that count. The one place where a mask meets a sum.

A mask is True where a token counts. What stands outside it never reaches a result, not even NaN or infinity.
"""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32, float64 stays: log-probs, KL and losses are never computed in 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    return zero_outside(at_least_float32(x), mask).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask. The mean of nothing is NaN, so that it shows."""
    return masked_sum(x, mask) / mask.sum()


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Population variance over the mask (divided by n), in two passes, so a large mean costs no precision."""
    x = at_least_float32(x)
    return masked_mean((x - masked_mean(x, mask)) ** 2, mask)


def whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Mean 0 and standard deviation 1 over the whole mask, zero outside; equal values become 0.

    The mean is not added back. In float64 inside: the rounding of a large mean divided by a tiny spread would
    otherwise become a signal of its own.
    """
    wide = x.double()
    spread = masked_var(wide, mask).sqrt()
    return zero_outside((wide - masked_mean(wide, mask)) / (spread + eps), mask).to(at_least_float32(x).dtype)


def last_true(mask_bt: Tensor) -> Tensor:
    """Index of the last True of each row: the last real token, on whichever side the padding is."""
    assert mask_bt.any(dim=1).all(), "a row without any real token"
    positions = torch.arange(mask_bt.shape[1], device=mask_bt.device)
    return torch.where(mask_bt, positions, -1).amax(dim=1)


def zero_outside(x: Tensor, mask: Tensor) -> Tensor:
    """`x` in the mask, 0 elsewhere. A product with the mask would let NaN through."""
    assert mask.dtype == torch.bool, f"a mask is bool, not {mask.dtype}"
    return torch.where(mask, x, 0.0)
