"""Log-probabilities against Python loops, gradients against finite differences, memory against a count."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from trueup.algo import chunked_logprobs, chunked_logprobs_and_entropy, entropy, token_logprobs


def loop_logprob(logits: list[float], token: int, temperature: float) -> float:
    scaled = [z / temperature for z in logits]
    top = max(scaled)
    return scaled[token] - top - math.log(math.fsum(math.exp(z - top) for z in scaled))


def loop_entropy(logits: list[float], temperature: float) -> float:
    logps = [loop_logprob(logits, v, temperature) for v in range(len(logits))]
    return -math.fsum(math.exp(p) * p for p in logps if p > -math.inf)


def random(*shape: int, seed: int = 0, **kwargs: Any) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(**kwargs)


class Watch(TorchDispatchMode):
    """Notes the most elements any operation ever allocated (views share memory and do not count)."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        for out in result if isinstance(result, tuple | list) else [result]:
            if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in inputs:
                self.largest = max(self.largest, out.numel())
        return result


@contextmanager
def watched() -> Iterator[Watch]:
    with Watch() as watch:
        yield watch


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("chunk", [1, 3, 4, 100])
def test_token_logprobs_equal_a_loop(temperature: float, chunk: int) -> None:
    logits, tokens = random(3, 4, 7, dtype=torch.float32), torch.arange(12).view(3, 4) % 7
    got = token_logprobs(logits, tokens, temperature, chunk=chunk)
    assert got.dtype == torch.float32 and got.shape == tokens.shape
    for b in range(3):
        for t in range(4):
            expected = loop_logprob(logits[b, t].tolist(), int(tokens[b, t]), temperature)
            assert math.isclose(got[b, t].item(), expected, abs_tol=2e-6)


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_token_logprobs_gradient_equals_finite_differences(chunk: int) -> None:
    logits, tokens = random(2, 4, 5).requires_grad_(), torch.tensor([[0, 4, 1], [2, 2, 3]])
    assert gradcheck(lambda x: token_logprobs(x[:, :-1], tokens, 0.7, chunk=chunk), logits)


def test_log_probabilities_of_all_tokens_sum_to_one() -> None:
    logits = random(6, 9, dtype=torch.float32).unsqueeze(1).expand(6, 9, 9)
    tokens = torch.arange(9).expand(6, 9)
    torch.testing.assert_close(token_logprobs(logits, tokens, 1.3).exp().sum(1), torch.ones(6))


def test_bfloat16_logits_are_widened_before_the_softmax() -> None:
    logits = random(5, 50, dtype=torch.bfloat16)
    got = token_logprobs(logits, torch.arange(5))
    for n in range(5):
        assert math.isclose(got[n].item(), loop_logprob(logits[n].tolist(), n, 1.0), abs_tol=2e-6)


def test_large_logits_lose_no_precision_and_minus_infinity_is_allowed() -> None:
    shifted = token_logprobs(torch.tensor([[10000.0, 9990.0, float("-inf")]]), torch.tensor([0]))
    assert math.isclose(shifted.item(), -math.log1p(math.exp(-10)), rel_tol=1e-3)


def test_empty_and_scalar_shapes() -> None:
    assert token_logprobs(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).shape == (0,)
    assert math.isclose(token_logprobs(torch.zeros(4), torch.tensor(2)).item(), -math.log(4), rel_tol=1e-6)


def test_token_logprobs_expand_one_chunk_at_a_time() -> None:
    logits, tokens = random(4, 65, 32, dtype=torch.bfloat16).requires_grad_(), torch.zeros(4, 64, dtype=torch.long)
    with watched() as watch:
        logp = token_logprobs(logits[:, :-1], tokens, 0.9, chunk=16)
    assert watch.largest == max(16 * 32, logp.numel())
    logp.sum().backward()
    assert logits.grad is not None and logits.grad.dtype == torch.bfloat16


def test_greedy_has_no_log_probabilities() -> None:
    with pytest.raises(AssertionError):
        token_logprobs(torch.zeros(1, 2), torch.tensor([0]), temperature=0.0)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_entropy_equals_a_loop(temperature: float) -> None:
    logits = random(2, 3, 6)
    logits[0, 0, 2] = -math.inf
    got = entropy(logits, temperature, chunk=2)
    for b in range(2):
        for t in range(3):
            assert math.isclose(got[b, t].item(), loop_entropy(logits[b, t].tolist(), temperature), rel_tol=1e-9)


def test_entropy_of_the_uniform_is_log_of_the_vocabulary() -> None:
    assert math.isclose(entropy(torch.full((1, 20), 3.0)).item(), math.log(20), rel_tol=1e-6)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunked_logprobs_equal_a_loop(chunk: int) -> None:
    hidden, weight, bias, tokens = random(9, 4), random(7, 4, seed=1), random(7, seed=2), torch.arange(9) % 7
    logp, spread = chunked_logprobs_and_entropy(hidden, weight, tokens, 0.7, bias, chunk)
    for n in range(9):
        logits = [
            math.fsum(a * b for a, b in zip(hidden[n].tolist(), row, strict=True)) + offset
            for row, offset in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        assert math.isclose(logp[n].item(), loop_logprob(logits, int(tokens[n]), 0.7), rel_tol=1e-9)
        assert math.isclose(spread[n].item(), loop_entropy(logits, 0.7), rel_tol=1e-9)
    torch.testing.assert_close(chunked_logprobs(hidden, weight, tokens, 0.7, bias, chunk), logp, rtol=0, atol=0)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunked_gradients_equal_finite_differences(chunk: int) -> None:
    inputs = [random(6, 3), random(5, 3, seed=1), random(5, seed=2)]
    tokens = torch.tensor([0, 4, 1, 2, 2, 3])
    assert gradcheck(
        lambda h, w, b: chunked_logprobs(h, w, tokens, 0.7, b, chunk), [x.requires_grad_() for x in inputs]
    )


@pytest.mark.parametrize("trained", ["hidden", "weight"])
def test_a_frozen_side_gets_no_gradient(trained: str) -> None:
    sides = {"hidden": random(6, 3), "weight": random(5, 3, seed=1)}
    sides[trained].requires_grad_()
    tokens = torch.tensor([0, 4, 1, 2, 2, 3])
    logp, spread = chunked_logprobs_and_entropy(sides["hidden"], sides["weight"], tokens, chunk=4)
    assert logp.requires_grad and not spread.requires_grad
    logp.sum().backward()
    assert {name for name, side in sides.items() if side.grad is not None} == {trained}


def test_chunked_logprobs_never_hold_all_logits() -> None:
    hidden, weight = random(64, 8, dtype=torch.float32).requires_grad_(), random(128, 8, seed=1, dtype=torch.float32)
    weight.requires_grad_()
    with watched() as watch:
        chunked_logprobs(hidden, weight, torch.zeros(64, dtype=torch.long), 0.9, chunk=16).sum().backward()
    assert watch.largest == max(16 * 128, weight.numel(), hidden.numel())


def test_bfloat16_weight_gradient_is_summed_in_float32() -> None:
    """Many chunks that add the same small gradient: a bfloat16 sum would stop growing."""
    hidden = torch.ones(2048, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    chunked_logprobs(hidden, weight, torch.zeros(2048, dtype=torch.long), chunk=1).sum().backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [1024.0, -1024.0]  # 2048 tokens, (1 - 1/2) each
