"""LoRA's two small products beside the big one, without what peft makes on the way.

peft adds `scale * B(A(x))` to the layer's output by three tensors as large as that output; in a heap they leave holes
that nothing else fits, which at 27M parameters was as much memory again as the whole pass needs. Here the product is
added in place, and only the input and `A(x)` are kept for the way back.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def make_lean(layers: list[Any]) -> None:
    """Layers of peft's plain LoRA on a plain linear layer compute leanly wherever that is the same."""
    from peft.tuners.lora.layer import Linear

    for layer in layers:
        if type(layer) is Linear and type(layer.get_base_layer()) is nn.Linear:
            layer.forward = MethodType(_forward, layer)


def _forward(layer: Any, x: Tensor, *args: Any, **more: Any) -> Tensor:
    name = _only_plain(layer, x)
    if name is None or args or more:
        found: Tensor = type(layer).forward(layer, x, *args, **more)
        return found
    base = layer.get_base_layer()
    a, b = layer.lora_A[name], layer.lora_B[name]
    made: Tensor = _LeanLora.apply(x, base.weight, base.bias, a.weight, b.weight, layer.scaling[name])  # type: ignore[no-untyped-call]
    return made


def _only_plain(layer: Any, x: Tensor) -> str | None:
    """The one adapter that is on, if there is nothing to it but two matrices of the input's type."""
    if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return None
    (name,) = layer.active_adapters
    learns = any(p.requires_grad for p in layer.get_base_layer().parameters())
    if name not in layer.lora_A or name in layer.lora_variant or learns:
        return None
    a, b = layer.lora_A[name], layer.lora_B[name]
    plain = isinstance(layer.lora_dropout[name], nn.Identity) and a.bias is None and b.bias is None
    same = a.weight.dtype == b.weight.dtype == x.dtype == layer.get_base_layer().weight.dtype
    return name if plain and same else None


class _LeanLora(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        x_nd = x.flatten(0, -2)
        low_nr = x_nd @ a.T
        made = torch.nn.functional.linear(x_nd, weight, bias).addmm_(low_nr, b.T, alpha=scale)
        ctx.save_for_backward(x_nd, low_nr, weight, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return made.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_nd, low_nr, weight, a, b = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        low = (grad @ b).mul_(ctx.scale)
        on_x = (grad @ weight).addmm_(low, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        on_a = low.T @ x_nd if ctx.needs_input_grad[3] else None
        on_b = (grad.T @ low_nr).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        return on_x, None, None, on_a, on_b, None
