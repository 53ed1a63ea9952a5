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


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


def per_token_penalty(
    logp: Tensor, ref_logp: Tensor, mask: Tensor, clip: float = 10.0, estimator: str = "k1"
) -> Tensor:
    """The KL of each token, clipped to +-clip, zero outside the mask: what `token_rewards` subtracts.

    With k1 the expected sum is the KL; k2 and k3 only resemble it where the two are close.
    """
    return ESTIMATORS[estimator](_log_ratio(logp, ref_logp, mask)).clamp(-clip, clip)


def kl_loss(logp: Tensor, ref_logp: Tensor, mask: Tensor, estimator: str) -> Tensor:
    """The KL as a loss on the policy, summed over the mask. k2 has the gradient of the KL itself on tokens that the
    policy just sampled; k3's is of another divergence that is smallest at the same place."""
    return ESTIMATORS[estimator](_log_ratio(logp, ref_logp, mask)).sum()


def adapted(coefficient: float, kl: float, target: float, share: float) -> float:
    """The next KL coefficient (arXiv 1909.08593): up when the KL is above its target, down when it is below.

    One look moves it by at most a fifth of `share`, so a single odd rollout cannot upset it.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coefficient * (1.0 + error * share)


def _log_ratio(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    return zero_outside(at_least_float32(logp) - at_least_float32(ref_logp), mask)
