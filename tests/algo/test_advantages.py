"""Rewards, advantages and returns against the definitions, written as loops over unpadded lists."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.algo import gae, leave_one_out, token_rewards, whiten

NAN = float("nan")
unit = st.floats(0, 1, width=32)
rows_of_tokens = st.lists(
    st.lists(st.tuples(st.floats(-3, 3, width=32), st.floats(-3, 3, width=32)), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
)
Rows = list[list[tuple[float, float]]]


def loop_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """Equation 16 as it is printed: for every t, the sum over l of (gamma lam)^l delta_{t+l}."""
    n = len(rewards)
    deltas = [rewards[t] + (gamma * values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
    return [math.fsum((gamma * lam) ** step * deltas[t + step] for step in range(n - t)) for t in range(n)]


def padded(rows: list[list[float]], side: str, fill: float, extra: int = 1) -> torch.Tensor:
    width = max(map(len, rows)) + extra
    gaps = [[fill] * (width - len(row)) for row in rows]
    joined = [row + gap if side == "right" else gap + row for row, gap in zip(rows, gaps, strict=True)]
    return torch.tensor(joined, dtype=torch.float64)


def batch(rows: Rows, side: str, fill: float = NAN) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = padded([[1.0] * len(row) for row in rows], side, 0.0).bool()
    return (*(padded([[token[i] for token in row] for row in rows], side, fill) for i in range(2)), mask)


def unpad(x: torch.Tensor, mask: torch.Tensor) -> list[list[float]]:
    return [row[keep].tolist() for row, keep in zip(x, mask, strict=True)]


@settings(max_examples=80, deadline=None)
@given(rows_of_tokens, unit, unit, st.sampled_from(["left", "right"]))
def test_gae_equals_the_printed_sum_on_either_padding_side(rows: Rows, gamma: float, lam: float, side: str) -> None:
    rewards, values, mask = batch(rows, side)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()
    for row, got, got_return in zip(rows, unpad(advantages, mask), unpad(returns, mask), strict=True):
        expected = loop_gae([r for r, _ in row], [v for _, v in row], gamma, lam)
        assert got == pytest.approx(expected, abs=1e-9)
        assert got_return == pytest.approx([a + v for a, (_, v) in zip(expected, row, strict=True)], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(rows_of_tokens, unit)
def test_lambda_one_is_discounted_return_minus_value(rows: Rows, gamma: float) -> None:
    rewards, values, mask = batch(rows, "right")
    advantages, returns = gae(rewards, values, mask, gamma, 1.0)
    for row, got, got_return in zip(rows, unpad(advantages, mask), unpad(returns, mask), strict=True):
        future = [math.fsum(gamma**k * r for k, (r, _) in enumerate(row[t:])) for t in range(len(row))]
        assert got_return == pytest.approx(future, abs=1e-9)
        assert got == pytest.approx([f - v for f, (_, v) in zip(future, row, strict=True)], abs=1e-9)


def test_lambda_zero_is_one_step_of_temporal_difference() -> None:
    advantages, _ = gae(
        torch.tensor([[1.0, 2.0, 4.0]]),
        torch.tensor([[0.5, 1.5, 2.5]]),
        torch.ones(1, 3, dtype=torch.bool),
        gamma=0.5,
        lam=0.0,
    )
    assert advantages.tolist() == [[1 + 0.75 - 0.5, 2 + 1.25 - 1.5, 4 - 2.5]]


def test_nothing_is_bootstrapped_past_the_end() -> None:
    """The value standing in padding is huge: if it leaked, the last token would see it."""
    rewards, values = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.2, 0.3, 1e6]])
    advantages, returns = gae(rewards, values, torch.tensor([[True, True, False]]), 1.0, 0.95)
    assert returns[0, 1].item() == pytest.approx(1.0)
    assert advantages[0, 1].item() == pytest.approx(0.7)


def test_a_gap_in_the_mask_is_skipped() -> None:
    """Tokens that somebody else wrote in the middle of a row do not cut the credit for what came before."""
    values = torch.tensor([[0.1, 9.0, 9.0, 0.4]])
    rewards = torch.tensor([[0.0, 7.0, 7.0, 1.0]])
    advantages, _ = gae(rewards, values, torch.tensor([[True, False, False, True]]), 0.9, 0.8)
    packed, _ = gae(rewards[:, [0, 3]], values[:, [0, 3]], torch.ones(1, 2, dtype=torch.bool), 0.9, 0.8)
    torch.testing.assert_close(advantages[:, [0, 3]], packed)


@settings(max_examples=40, deadline=None)
@given(rows_of_tokens, st.integers(0, 4))
def test_advantages_do_not_depend_on_padding_side_or_batch_split(rows: Rows, cut: int) -> None:
    """Also after whitening: the same tokens, padded left or right, in one batch or in two, learn the same."""

    def flat(parts: list[Rows], side: str) -> tuple[torch.Tensor, torch.Tensor]:
        advantages, masks = [], []
        for part in parts:
            rewards, values, mask = batch(part, side)
            advantages.append(gae(rewards, values, mask, 1.0, 0.95)[0][mask])
            masks.append(mask)
        joined = torch.cat(advantages)
        return joined, whiten(joined, torch.ones_like(joined, dtype=torch.bool))

    plain, white = flat([rows], "right")
    for parts in ([rows], [part for part in (rows[:cut], rows[cut:]) if part]):
        for side in ("left", "right"):
            other, other_white = flat(parts, side)
            torch.testing.assert_close(other, plain)
            torch.testing.assert_close(other_white, white)
    rewards, values, mask = batch(rows, "left")
    torch.testing.assert_close(whiten(gae(rewards, values, mask, 1.0, 0.95)[0], mask)[mask], white)


def test_gae_is_a_target_without_gradient() -> None:
    values = torch.zeros(1, 2, requires_grad=True)
    advantages, returns = gae(torch.ones(1, 2), values, torch.ones(1, 2, dtype=torch.bool))
    assert not advantages.requires_grad and not returns.requires_grad


def test_rewards_are_the_penalty_everywhere_and_the_score_at_the_last_real_token() -> None:
    kl = torch.tensor([[1.0, 2.0, NAN, NAN], [NAN, NAN, 0.5, -0.5], [NAN, 3.0, 3.0, NAN]])
    mask = ~kl.isnan()
    rewards = token_rewards(torch.tensor([10.0, 20.0, 30.0]), kl, mask, kl_coefficient=0.1)
    expected = [[-0.1, -0.2 + 10, 0, 0], [0, 0, -0.05, 0.05 + 20], [0, -0.3, -0.3 + 30, 0]]
    torch.testing.assert_close(rewards, torch.tensor(expected))


@settings(max_examples=40, deadline=None)
@given(rows_of_tokens, st.floats(0, 1, width=32), st.sampled_from(["left", "right"]))
def test_the_undiscounted_return_is_score_minus_penalty_to_go(rows: Rows, coefficient: float, side: str) -> None:
    """The whole path from score to return, with gamma = lambda = 1, is a sum one can do by hand."""
    kl, values, mask = batch(rows, side)
    scores = torch.arange(len(rows), dtype=torch.float64) - 1.5
    _, returns = gae(token_rewards(scores, kl, mask, coefficient), values, mask, 1.0, 1.0)
    for row, score, got in zip(rows, scores.tolist(), unpad(returns, mask), strict=True):
        expected = [score - coefficient * math.fsum(k for k, _ in row[t:]) for t in range(len(row))]
        assert got == pytest.approx(expected, abs=1e-9)


def test_a_pad_inside_the_row_does_not_catch_the_score() -> None:
    """The mask decides, not the token: a row whose last real token is its EOS keeps the score there."""
    mask = torch.tensor([[True, True, True]])
    assert token_rewards(torch.tensor([5.0]), torch.zeros(1, 3), mask, 0.1).tolist() == [[0, 0, 5.0]]


def test_leave_one_out_equals_a_loop() -> None:
    scores = [[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]
    expected = [[s - (sum(row) - s) / 2 for s in row] for row in scores]
    assert leave_one_out(torch.tensor(scores)).tolist() == expected == [[-3.0, -1.5, 4.5], [-1.5, -1.5, 3.0]]
