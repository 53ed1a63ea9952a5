"""A frozen base in few bits: int8, or nf4 (arXiv 2305.14314) through bitsandbytes, for LoRA to learn beside.

Only storage is small: for each product a matrix is made whole in the compute type and let go again, forwards and
backwards alike. The layers that bitsandbytes brings compute otherwise without a gradient than with one (activations
of 8 bits, matrices of bfloat16), so that the same weights would give the sampler, the old and the new log-probs
different numbers, by more than PPO's ratio may be off.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ..errors import ModelError

BLOCK = 64  # weights that share a scale in nf4; the scales themselves have 8 bits, in blocks of 256


class FewBits(nn.Linear):
    """A frozen linear layer whose matrix is stored in few bits."""

    def __init__(self, weight: torch.Tensor, bias: nn.Parameter | None) -> None:
        nn.Module.__init__(self)  # and not Linear's own, which would make a whole matrix first
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(self._packed(weight), requires_grad=False)
        self.bias = bias

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        """The matrix as it is computed with."""
        raise AssertionError("a quantised layer is one of the kinds below")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = _Product.apply(x, self)
        return product if self.bias is None else product + self.bias.to(product.dtype)

    def _packed(self, weight: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a quantised layer is one of the kinds below")


class Int8(FewBits):
    """One scale a row: its largest weight is 127."""

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        return self.weight.to(dtype) * self.scale.to(dtype)

    def _packed(self, weight: torch.Tensor) -> torch.Tensor:
        wide = weight.float()
        self.register_buffer("scale", wide.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127)
        return (wide / self.scale).round().to(torch.int8)


class Nf4(FewBits):
    """16 levels that are even shares of a normal distribution, and a scale for each block."""

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        blocks = _bitsandbytes().functional.dequantize_4bit(self.weight.data, self._levels[0])
        size = self.out_features * self.in_features
        return blocks.flatten()[:size].view(self.out_features, self.in_features).to(dtype)

    def _packed(self, weight: torch.Tensor) -> torch.Tensor:
        flat = nn.functional.pad(weight.flatten(), (0, -weight.numel() % BLOCK))
        # A block a row: on a CPU, rows that are no whole number of blocks come back with each other's scales (0.50.2).
        packed, levels = _bitsandbytes().functional.quantize_4bit(
            flat.view(-1, BLOCK), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
        )
        self._levels = [levels]  # in a list: it is neither a tensor nor a module, and copies by itself
        return packed

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Scales follow the weights to another device."""
        made = super()._apply(fn, recurse)
        self._levels = [copy.copy(self._levels[0])]
        self._levels[0].to(self.weight.device)
        return made


class _Product(torch.autograd.Function):
    """x times the matrix, keeping neither for the backward pass: x gets a gradient, the matrix never does."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: FewBits) -> torch.Tensor:
        ctx.layer = layer
        return x @ layer.whole(x.dtype).T

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad @ ctx.layer.whole(grad.dtype), None


KINDS: dict[str, type[FewBits]] = {"int8": Int8, "nf4": Nf4}


def quantise(network: Any, kind: str, device: torch.device) -> Any:
    """Every matrix between hidden states in few bits, in place and on its device; embeddings and heads stay whole."""
    from transformers.pytorch_utils import Conv1D

    make, head = KINDS[kind], network.get_output_embeddings()
    check_installed(kind)
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Linear | Conv1D) and layer is not head:
                matrix = layer.weight.data.to(device)
                matrix = matrix.T if isinstance(layer, Conv1D) else matrix  # GPT-2's are transposed
                setattr(parent, name, make(matrix, layer.bias))
    return network


def bytes_of(kind: str, matrices: int, rows: int) -> int:
    """What `matrices` weights take, in matrices of `rows` rows in all."""
    if kind == "int8":
        return matrices + 4 * rows
    scales = -(-matrices // BLOCK)
    return matrices // 2 + scales + 4 * -(-scales // 256)


def hush_bitsandbytes() -> None:
    """It complains of lacking fast kernels that nothing here calls; peft loads it wherever it is installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def check_installed(kind: str) -> None:
    if kind == "nf4" and find_spec("bitsandbytes") is None:
        raise ModelError(
            "model.quantise = 'nf4' needs the package bitsandbytes", "pip install 'trueup[quant]', or take 'int8'"
        )


def _bitsandbytes() -> Any:
    hush_bitsandbytes()
    import bitsandbytes

    return bitsandbytes
