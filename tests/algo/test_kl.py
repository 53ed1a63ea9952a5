"""The estimators against the exact divergence: a sum over a small vocabulary instead of samples."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.algo import k1, k2, k3, per_token_penalty, safe_exp

POLICY = [0.5, 0.3, 0.15, 0.05]
REFERENCE = [0.25, 0.25, 0.3, 0.2]


def exact_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def log_ratio(p: list[float], q: list[float]) -> torch.Tensor:
    return torch.tensor([math.log(a / b) for a, b in zip(p, q, strict=True)], dtype=torch.float64)


def expectation(p: list[float], x: torch.Tensor) -> float:
    return math.fsum(a * b for a, b in zip(p, x.tolist(), strict=True))


@pytest.mark.parametrize("estimator", [k1, k3])
@pytest.mark.parametrize(("p", "q"), [(POLICY, REFERENCE), (REFERENCE, POLICY)])
def test_k1_and_k3_are_unbiased(estimator, p: list[float], q: list[float]) -> None:  # type: ignore[no-untyped-def]
    assert math.isclose(expectation(p, estimator(log_ratio(p, q))), exact_kl(p, q), rel_tol=1e-9)


def test_k2_is_half_the_square_and_near_the_divergence_when_that_is_small() -> None:
    assert k2(torch.tensor([3.0, -2.0])).tolist() == [4.5, 2.0]
    near = [0.51, 0.29, 0.15, 0.05]
    assert math.isclose(expectation(near, k2(log_ratio(near, POLICY))), exact_kl(near, POLICY), rel_tol=0.02)


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6, width=32))
def test_k3_is_never_negative_and_finite(r: float) -> None:
    value = k3(torch.tensor(r)).item()
    assert 0 <= value < 1e9


def test_k3_of_equal_models_is_exactly_zero() -> None:
    assert k3(torch.zeros(3)).tolist() == [0, 0, 0]


def test_k3_grows_exponentially_where_the_policy_is_too_sure_of_too_little() -> None:
    """r = -2 means the reference likes the token e^2 times more: exp(2) - 1 - 2; the other sign is nearly linear."""
    assert math.isclose(k3(torch.tensor(-2.0)).item(), math.e**2 - 3, rel_tol=1e-6)
    assert math.isclose(k3(torch.tensor(2.0)).item(), math.e**-2 + 1, rel_tol=1e-6)


def test_k3_as_a_loss_has_the_gradient_of_the_reverse_divergence() -> None:
    """Why the KL goes into the reward: E_policy[grad k3] = grad KL(reference || policy) (here: policy - reference)."""
    logits = torch.tensor(POLICY, dtype=torch.float64).log().requires_grad_()
    logp = torch.log_softmax(logits, 0)
    ratios = logp - torch.tensor(REFERENCE, dtype=torch.float64).log()
    (k3(ratios) * torch.tensor(POLICY, dtype=torch.float64)).sum().backward()
    expected = [p - q for p, q in zip(POLICY, REFERENCE, strict=True)]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor(expected, dtype=torch.float64))


def test_safe_exp_is_exp_within_and_constant_beyond_twenty() -> None:
    got = safe_exp(torch.tensor([-1e9, -20.0, 0.0, 1.5, 19.0, 20.0, 21.0, float("inf")], dtype=torch.float64))
    expected = [math.exp(-20), math.exp(-20), 1, math.exp(1.5), math.exp(19)] + [math.exp(20)] * 3
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_bfloat16_is_widened_before_exp() -> None:
    assert safe_exp(torch.tensor([1.0], dtype=torch.bfloat16)).item() == pytest.approx(math.e, rel=1e-6)


def test_penalty_is_policy_minus_reference_clipped_and_masked() -> None:
    logp = torch.tensor([[-1.0, -50.0, -0.5, float("nan")]])
    ref_logp = torch.tensor([[-3.0, -1.0, -40.0, -1.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert per_token_penalty(logp, ref_logp, mask).tolist() == [[2.0, -10.0, 10.0, 0.0]]
    assert per_token_penalty(logp, ref_logp, mask, clip=100.0).tolist() == [[2.0, -49.0, 39.5, 0.0]]
