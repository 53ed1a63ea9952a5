"""From one score a completion to one advantage a token. Nothing here carries a gradient: these are targets."""

from __future__ import annotations

import torch
from torch import Tensor

from .masked import at_least_float32, last_true, zero_outside


@torch.no_grad()
def token_rewards(score_b: Tensor, kl_bt: Tensor, mask_bt: Tensor, kl_coefficient: float) -> Tensor:
    """The KL penalty at every real token; the score on top at the last real one, found by mask."""
    rewards = zero_outside(-kl_coefficient * at_least_float32(kl_bt), mask_bt)
    rows = torch.arange(len(score_b), device=score_b.device)
    rewards[rows, last_true(mask_bt)] += score_b.to(rewards.dtype)
    return rewards


@torch.no_grad()
def gae(
    rewards_bt: Tensor, values_bt: Tensor, mask_bt: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Advantages and returns by generalised advantage estimation (arXiv 1506.02438, eq. 16); zero outside the mask.

        delta_t = reward_t + gamma * value_{t+1} - value_t
        advantage_t = delta_t + gamma * lam * advantage_{t+1};   return_t = advantage_t + value_t

    t+1 is the next token *in the mask*: whatever stands in padding is skipped, on either side, and past the last
    real token there is nothing to bootstrap from.
    """
    rewards_bt, values_bt = at_least_float32(rewards_bt), at_least_float32(values_bt)
    advantages = torch.zeros_like(rewards_bt)
    next_value = next_advantage = torch.zeros_like(rewards_bt[:, 0])
    for t in reversed(range(rewards_bt.shape[1])):
        real = mask_bt[:, t]
        delta = rewards_bt[:, t] + gamma * next_value - values_bt[:, t]
        next_advantage = torch.where(real, delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(real, values_bt[:, t], next_value)
        advantages[:, t] = zero_outside(next_advantage, real)
    return advantages, advantages + zero_outside(values_bt, mask_bt)


@torch.no_grad()
def leave_one_out(score_bk: Tensor) -> Tensor:
    """Each score minus the mean of the other k - 1 of its prompt (RLOO): an advantage without a value model."""
    k = score_bk.shape[1]
    assert k >= 2, "leave-one-out needs two completions a prompt"
    score_bk = at_least_float32(score_bk)
    return score_bk - (score_bk.sum(dim=1, keepdim=True) - score_bk) / (k - 1)


@torch.no_grad()
def group_relative(score_bk: Tensor, divide: bool = True) -> Tensor:
    """GRPO's advantage (arXiv 2402.03300): each score minus its prompt's mean, by default over its prompt's std.

    Equal scores become 0 and stay 0: rounding is not blown up into a signal.
    """
    wide = score_bk.double()
    apart = wide - wide.mean(dim=1, keepdim=True)
    if divide:
        apart = apart / (wide.std(dim=1, keepdim=True, correction=0) + 1e-4)
    return apart.to(at_least_float32(score_bk).dtype)
