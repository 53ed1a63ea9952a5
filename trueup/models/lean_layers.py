"""Norms and rotary positions of the Llama kind in fewer and smaller steps than transformers takes on a CPU.

There each small operation goes through memory, and wakes the other threads, once more. Written out with their gradients
both take half as long, and keep less for the way back. Used only where a layer was seen to compute the same; in float32
what comes out is the same to the last bit.
"""

from __future__ import annotations

import copy
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..algo.masked import at_least_float32
from .rounded import rounded

TURN = "apply_rotary_pos_emb"  # transformers' name for it, in every family that has it


def make_lean(trunk: nn.Module) -> None:
    """Layers that compute what is written here do it so on a CPU from now on; all others stay as they are."""
    for module in trunk.modules():
        if type(module).__name__.endswith("RMSNorm") and _is_norm(module):
            module.forward = MethodType(_norm, module)
        elif type(module) is nn.Linear:
            module.forward = MethodType(rounded, module)  # type: ignore[assignment]
        elif "forward" not in vars(module) and _turns(module):
            module.forward = _turning_lean(module)


def _norm(module: Any, x: Tensor) -> Tensor:
    if x.is_cuda or x.dtype != module.weight.dtype:  # of two types what comes out would be the wider one
        found: Tensor = type(module).forward(module, x)
        return found
    made: Tensor = _RmsNorm.apply(x, module.weight, _epsilon(module))  # type: ignore[no-untyped-call]
    return made


def _epsilon(module: Any) -> float:
    return float(getattr(module, "variance_epsilon", getattr(module, "eps", 0.0)))


class _RmsNorm(torch.autograd.Function):
    """y = w x / sqrt(mean(x^2) + epsilon), in float32 at least."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = at_least_float32(x)
        inverse = wide.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (wide * inverse).to(x.dtype).mul_(weight)  # step by step transformers': bit for bit the same

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """With n = x r: dx = r (g w - n mean(g w n)), dw = the sum of g n."""
        x, weight, inverse = ctx.saved_tensors
        width = x.shape[-1]
        wide, grad, scale = at_least_float32(x), at_least_float32(grad), at_least_float32(weight)
        both = (grad * wide).reshape(-1, width)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = torch.mv(both.T, inverse.reshape(-1)).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            along = torch.mv(both, scale).view_as(inverse).mul_(inverse.pow(3)).div_(-width)
            grad_x = (grad * scale).mul_(inverse).addcmul_(wide, along).to(x.dtype)
        return grad_x, grad_weight, None


@torch.no_grad()
def _is_norm(module: Any) -> bool:
    """Gemma's adds one to its weight, others scale otherwise: the layer itself is asked."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.dim() != 1 or len([*module.parameters()]) != 1:
        return False
    stand_in = copy.deepcopy(module).to_empty(device="cpu").float()
    stand_in.weight.copy_(_noise(len(weight)))
    return _same(stand_in, (_noise(2, 3, len(weight)),), lambda x: _norm(stand_in, x))


class _Turn(torch.autograd.Function):
    """Queries and keys, turned by their positions; the gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        return _turned(query, cos, sin), _turned(key, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned_back(query, cos, sin), _turned_back(key, cos, sin), None, None


def turn(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    """transformers' function of the same arguments."""
    waves = (cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim))
    made: tuple[Tensor, Tensor] = _Turn.apply(query, key, *waves)  # type: ignore[no-untyped-call]
    return made


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The first half of a head's width and the second are the two coordinates of each of its points."""
    half = x.shape[-1] // 2
    made = x * cos
    made[..., :half].sub_(x[..., half:] * sin[..., :half])
    made[..., half:].add_(x[..., :half] * sin[..., half:])
    return made


def _turned_back(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    made = x * cos
    made[..., :half].addcmul_(x[..., half:], sin[..., half:])
    made[..., half:].addcmul_(x[..., :half], sin[..., :half], value=-1)
    return made


def _turns(module: nn.Module) -> bool:
    """Does its method turn queries and keys, by a function that does what is written here?"""
    method = type(module).forward
    if not isinstance(method, FunctionType) or TURN not in method.__code__.co_names:
        return False
    angle = _noise(2, 5, 4)
    waves = [torch.cat([wave, wave], -1) for wave in (angle.cos(), angle.sin())]
    return _same(method.__globals__[TURN], (_noise(2, 3, 5, 8), _noise(2, 1, 5, 8), *waves), turn)


def _turning_lean(module: nn.Module) -> MethodType:
    """Its own method, for which that one function is another. Nothing else in the process changes."""
    method: Any = type(module).forward
    theirs = method.__globals__[TURN]

    def turn_whole(query: Tensor, key: Tensor, cos: Tensor, *more: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Some families turn the beginning of a head only."""
        how = theirs if query.is_cuda or cos.shape[-1] != query.shape[-1] else turn
        made: tuple[Tensor, Tensor] = how(query, key, cos, *more, **named)
        return made

    known = method.__globals__ | {TURN: turn_whole}
    lean = FunctionType(method.__code__, known, method.__name__, method.__defaults__, method.__closure__)
    lean.__kwdefaults__ = method.__kwdefaults__
    return MethodType(lean, module)


def _noise(*shape: int) -> Tensor:
    """The same each time, without touching torch's own."""
    return torch.sin(torch.arange(1.0, 1 + torch.Size(shape).numel()) ** 2).view(shape)


def _same(theirs: Any, given: tuple[Tensor, ...], ours: Any) -> bool:
    try:
        expected, found = theirs(*given), ours(*given)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
        return False
    if isinstance(expected, Tensor):
        expected, found = (expected,), (found,)
    return all(torch.allclose(mine, other, 1e-5, 1e-5) for mine, other in zip(found, expected, strict=True))
