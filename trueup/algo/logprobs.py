"""Log-probabilities of given tokens, exact and in float32, without a second copy of the logits.

Vocabularies are large: one float32 row of 128k entries is half a megabyte, and the naive `log_softmax` keeps one for
every position until backward. Here positions go through in chunks, forward and backward, and only what cannot be
recomputed is kept. Gradients are exact: d log p(y) / d logit(v) = (1[v = y] - p(v)) / temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .masked import at_least_float32


def token_logprobs(logits_xv: Tensor, tokens_x: Tensor, temperature: float = 1.0, chunk: int = 1024) -> Tensor:
    """log softmax(logits / temperature) at `tokens`, for any leading shape; at least float32.

    `chunk` positions are expanded at once. A slice such as `logits[:, :-1]` is never copied as a whole.
    """
    assert temperature > 0, "greedy decoding has no log-probabilities"
    assert logits_xv.shape[:-1] == tokens_x.shape, f"{tuple(logits_xv.shape)} logits, {tuple(tokens_x.shape)} tokens"
    logp: Tensor = _TokenLogprobs.apply(logits_xv, tokens_x, temperature, chunk)  # type: ignore[no-untyped-call]
    return logp


@torch.no_grad()
def entropy(logits_xv: Tensor, temperature: float = 1.0, chunk: int = 1024) -> Tensor:
    """Entropy of softmax(logits / temperature) in nats, for watching a run: no gradient."""
    assert temperature > 0
    out = logits_xv.new_empty(logits_xv.shape[:-1], dtype=at_least_float32(logits_xv[..., :0]).dtype)
    for block in _blocks(out.shape, chunk):
        out[block] = _entropy(_scaled(logits_xv[block], temperature))
    return out


def entropy_of(logits: Callable[[Tensor], Tensor], hidden_nd: Tensor, temperature: float, chunk: int = 1024) -> Tensor:
    """Entropy of softmax(logits(hidden) / temperature) at each position, with its gradient.

    In chunks whose logits are computed again in the backward pass, so that N x V of them are never held.
    """

    def spread(part: Tensor) -> Tensor:
        return _entropy(_scaled(logits(part), temperature))

    blocks = [hidden_nd[block] for block in _blocks(hidden_nd.shape[:1], chunk)]
    return torch.cat([checkpoint(spread, part, use_reentrant=False) for part in blocks])


def chunked_logprobs(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    tokens_n: Tensor,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    chunk: int = 1024,
) -> Tensor:
    """`token_logprobs(hidden @ weight.T + bias, tokens, temperature)` without ever holding N x V logits.

    Backward recomputes each chunk of logits. Gradients reach hidden, weight and bias where they are asked for.
    """
    assert temperature > 0
    found = _ChunkedLogprobs.apply(hidden_nd, weight_vd, bias, tokens_n, temperature, chunk, False)  # type: ignore[no-untyped-call]
    logp: Tensor = found[0]
    return logp


def chunked_logprobs_and_entropy(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    tokens_n: Tensor,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    chunk: int = 1024,
) -> tuple[Tensor, Tensor]:
    """As `chunked_logprobs`, with the entropy at each position from the same pass (no gradient through it)."""
    assert temperature > 0
    logp, spread = _ChunkedLogprobs.apply(hidden_nd, weight_vd, bias, tokens_n, temperature, chunk, True)  # type: ignore[no-untyped-call]
    return logp, spread


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_xv: Tensor, tokens_x: Tensor, temperature: float, chunk: int) -> Tensor:
        ctx.save_for_backward(logits_xv, tokens_x)
        ctx.temperature, ctx.chunk = temperature, chunk
        out = logits_xv.new_empty(tokens_x.shape, dtype=at_least_float32(logits_xv[..., :0]).dtype)
        for block in _blocks(tokens_x.shape, chunk):
            out[block] = _gathered(_scaled(logits_xv[block], temperature), tokens_x[block])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_x: Tensor) -> tuple[Tensor | None, ...]:
        logits_xv, tokens_x = ctx.saved_tensors
        grad_xv = torch.empty_like(logits_xv)
        for block in _blocks(tokens_x.shape, ctx.chunk):
            scaled = _scaled(logits_xv[block], ctx.temperature)
            grad_xv[block] = _logits_gradient(scaled, tokens_x[block], grad_x[block], ctx.temperature)
        return grad_xv, None, None, None


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_nd: Tensor,
        weight_vd: Tensor,
        bias: Tensor | None,
        tokens_n: Tensor,
        temperature: float,
        chunk: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(hidden_nd, weight_vd, bias, tokens_n)
        ctx.temperature, ctx.chunk = temperature, chunk
        logp = hidden_nd.new_empty(tokens_n.shape, dtype=at_least_float32(hidden_nd[:0]).dtype)
        spread = torch.empty_like(logp) if with_entropy else None
        for block in _blocks(tokens_n.shape, chunk):
            scaled = _scaled(_logits(hidden_nd[block], weight_vd, bias), temperature)
            logp[block] = _gathered(scaled, tokens_n[block])
            if spread is not None:
                spread[block] = _entropy(scaled)
        if spread is not None:
            ctx.mark_non_differentiable(spread)
        return logp, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_n: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_nd, weight_vd, bias, tokens_n = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_nd) if wants_hidden else None
        # Summed over chunks in float32: a bfloat16 sum would lose the later chunks.
        grad_weight = torch.zeros_like(weight_vd, dtype=grad_n.dtype) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=grad_n.dtype) if wants_bias else None
        for block in _blocks(tokens_n.shape, ctx.chunk):
            scaled = _scaled(_logits(hidden_nd[block], weight_vd, bias), ctx.temperature)
            grad_logits = _logits_gradient(scaled, tokens_n[block], grad_n[block], ctx.temperature)
            if grad_bias is not None:
                grad_bias += grad_logits.sum(dim=0)
            narrow = grad_logits.to(hidden_nd.dtype)
            if grad_hidden is not None:
                grad_hidden[block] = narrow @ weight_vd
            if grad_weight is not None:
                grad_weight += narrow.T @ hidden_nd[block]
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight_vd.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *(None,) * 4,
        )


def _logits(hidden_nd: Tensor, weight_vd: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(hidden_nd, weight_vd, bias)


def _scaled(logits_xv: Tensor, temperature: float) -> Tensor:
    wide = at_least_float32(logits_xv)
    return wide if temperature == 1.0 else wide / temperature


def _gathered(scaled_xv: Tensor, tokens_x: Tensor) -> Tensor:
    return torch.log_softmax(scaled_xv, dim=-1).gather(-1, tokens_x.unsqueeze(-1)).squeeze(-1)


def _entropy(scaled_xv: Tensor) -> Tensor:
    """`entr` is -p log p with 0 log 0 = 0, so tokens ruled out with -inf logits are no NaN."""
    spread: Tensor = torch.special.entr(torch.softmax(scaled_xv, dim=-1)).sum(dim=-1)
    return spread


def _logits_gradient(scaled_xv: Tensor, tokens_x: Tensor, grad_x: Tensor, temperature: float) -> Tensor:
    grad_xv = torch.softmax(scaled_xv, dim=-1).mul_(-grad_x.unsqueeze(-1))
    grad_xv.scatter_add_(-1, tokens_x.unsqueeze(-1), grad_x.unsqueeze(-1).to(grad_xv.dtype))
    return grad_xv.div_(temperature)


def _blocks(shape: Sequence[int], chunk: int) -> Iterator[tuple[slice, ...]]:
    """Indices that tile `shape` with at most `chunk` positions each. Nothing is flattened, so views stay views."""
    inner = prod(shape[1:])
    if not shape or 0 in shape:
        yield ()
    elif inner <= chunk:
        rows = chunk // inner
        yield from ((slice(start, start + rows),) for start in range(0, shape[0], rows))
    else:
        for row in range(shape[0]):
            yield from ((slice(row, row + 1), *rest) for rest in _blocks(shape[1:], chunk))
