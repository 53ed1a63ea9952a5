"""The losses over tokens: each returns the SUM over the mask; the caller divides by the token count of the whole batch.

A mean per micro-batch would weight the tokens of short micro-batches more, and make the gradient depend on how the
batch was split. Inputs are zeroed outside the mask before anything else: zeroing the loss alone would turn a NaN in
the padding into a NaN gradient (0 * NaN).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kl import k3, safe_exp
from .masked import at_least_float32, masked_mean, zero_outside


def policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped objective (arXiv 1707.06347, eq. 7), negated and summed over the mask, and its diagnostics.

    Diagnostics are detached and of this call's tokens: means `clip_fraction`, `approx_kl` (k3 of the old policy
    against the new) and `ratio_mean`, to be weighted by `tokens` across calls; maxima `ratio_max` and `ratio_gap`
    (largest |ratio - 1|, zero to rounding before the first update).
    """
    assert logp.shape == old_logp.shape == advantages.shape == mask.shape, "shapes that broadcast hide mistakes"
    log_ratio = zero_outside(at_least_float32(logp) - at_least_float32(old_logp), mask)
    advantages = zero_outside(advantages, mask)
    ratio = safe_exp(log_ratio)
    free = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(free, clipped).sum()
    return loss, _policy_diagnostics(log_ratio.detach(), ratio.detach(), (clipped > free).detach(), mask)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float = 0.2) -> Tensor:
    """Half the squared error, summed over the mask. With `clip` > 0 the larger of the free and the clipped error.

    The clipped value stays within +-clip of the rollout's, so one update cannot move the critic further than that
    for a gain; 0 turns clipping off.
    """
    assert values.shape == old_values.shape == returns.shape == mask.shape, "shapes that broadcast hide mistakes"
    values = at_least_float32(values)
    error = zero_outside(values - returns, mask) ** 2
    if clip > 0:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, zero_outside(near - returns, mask) ** 2)
    return 0.5 * error.sum()


def language_model_loss(logp: Tensor, weight: Tensor) -> Tensor:
    """Minus the weighted sum of token log-probs; `weight` is a mask or a weight a token, and 0 means absent."""
    return -(zero_outside(at_least_float32(logp), weight != 0) * weight).sum()


def _policy_diagnostics(log_ratio: Tensor, ratio: Tensor, clipped: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {
        "tokens": mask.sum(),
        "clip_fraction": masked_mean(clipped, mask),
        "approx_kl": masked_mean(k3(-log_ratio), mask),
        "ratio_mean": masked_mean(ratio, mask),
        "ratio_max": zero_outside(ratio, mask).amax(),
        "ratio_gap": (ratio - 1).abs().amax(),  # the ratio is 1 outside the mask
    }
