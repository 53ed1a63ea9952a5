"""Products in 16 bits on a CPU, of few different heights.

There oneDNN makes and keeps a program for each shape it meets, about half a megabyte, and gives none back: batches of
ever other lengths made a run of PPO grow by some 20 MiB a step. Filled up with rows of zeros to the next round height
the shapes are few, and what comes out of the real rows is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, pad

HIGH, LOW = 64, 8  # heights are multiples of this; up to `HIGH` rows of that


def rounded(module: nn.Linear, x: Tensor) -> Tensor:
    """`nn.Linear.forward`. Other number types and devices have no such trouble."""
    if x.is_cuda or x.dtype.itemsize > 2 or not filling(x.numel() // x.shape[-1]):
        return nn.Linear.forward(module, x)
    made: Tensor = _Rounded.apply(x, module.weight, module.bias)  # type: ignore[no-untyped-call]
    return made


def filling(rows: int) -> int:
    """How many rows are missing to a round height."""
    return -rows % (HIGH if rows > HIGH else LOW)


class _Rounded(torch.autograd.Function):
    """What is kept for the way back is what came in: the filled up copies come and go."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        flat = x.reshape(-1, x.shape[-1])
        made = linear(_filled(flat), weight, bias)[: len(flat)]
        return made.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        whole = _filled(flat)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = (whole @ weight)[: len(flat)].view_as(x)
        if ctx.needs_input_grad[1]:
            grad_weight = whole.T @ _filled(x.reshape(-1, x.shape[-1]))
        if ctx.needs_input_grad[2]:
            grad_bias = flat.sum(0)
        return grad_x, grad_weight, grad_bias


def _filled(flat: Tensor) -> Tensor:
    return pad(flat, (0, 0, 0, filling(len(flat))))
