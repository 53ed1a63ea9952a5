"""Estimates of KL(policy || reference) from tokens that the policy sampled (Schulman, "Approximating KL divergence").

Everything takes log_ratio = logp_policy - logp_reference. k1 is unbiased and may be negative: the one for the reward.
k2 is biased and small in variance. k3 is unbiased and never negative: the one to watch. As a loss, k3 has the
gradient of another divergence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .masked import at_least_float32, zero_outside

LOG_RATIO_LIMIT = 20.0


def safe_exp(log_ratio: Tensor) -> Tensor:
    """exp with the log-ratio clipped to +-20, so one outlier token is large instead of infinite."""
    return at_least_float32(log_ratio).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def k1(log_ratio: Tensor) -> Tensor:
    return at_least_float32(log_ratio)


def k2(log_ratio: Tensor) -> Tensor:
    return at_least_float32(log_ratio) ** 2 / 2


def k3(log_ratio: Tensor) -> Tensor:
    """exp(-r) - 1 + r with r clipped to +-20; the last clamp removes rounding below zero."""
    r = at_least_float32(log_ratio).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return (torch.expm1(-r) + r).clamp(min=0)


def per_token_penalty(logp: Tensor, ref_logp: Tensor, mask: Tensor, clip: float = 10.0) -> Tensor:
    """k1 of each token, clipped to +-clip, zero outside the mask: what `token_rewards` subtracts."""
    return zero_outside(k1(at_least_float32(logp) - at_least_float32(ref_logp)).clamp(-clip, clip), mask)
