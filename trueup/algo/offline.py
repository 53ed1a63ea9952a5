"""What is learnt without a reward model in the loop: the losses of DPO, KTO and implicit Q-learning.

A log-ratio is log(policy / reference) of a whole completion; beta times it is the reward that the policy implies. The
losses of a pair take the difference d of two log-ratios and the probability that the first completion is the better
one, and are linear in that probability: `smoothed` targets give their conservative and their robust forms.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .masked import at_least_float32, zero_outside


def dpo_loss(difference: Tensor, target: Tensor, beta: float, margin: Tensor | float = 0.0) -> Tensor:
    """-[t log sigmoid(beta d - m) + (1-t) log sigmoid(-beta d - m)] (arXiv 2305.18290, eq. 7; margin: 2402.10571)."""
    reward = beta * at_least_float32(difference)
    return target * softplus(margin - reward) + (1 - target) * softplus(margin + reward)


def ipo_loss(difference: Tensor, target: Tensor, beta: float) -> Tensor:
    """Squared distance of d to 1 / (2 beta), a gap to reach and not to widen (arXiv 2310.12036, eq. 17)."""
    gap, wide = 1 / (2 * beta), at_least_float32(difference)
    return target * (wide - gap) ** 2 + (1 - target) * (wide + gap) ** 2


def hinge_loss(difference: Tensor, target: Tensor, beta: float) -> Tensor:
    """Nothing once the better one is ahead by 1 / beta (SLiC, arXiv 2305.10425, on log-ratios as 2309.06657 has it)."""
    reward = beta * at_least_float32(difference)
    return target * (1 - reward).clamp(min=0) + (1 - target) * (1 + reward).clamp(min=0)


def reference_point(foreign_ratio: Tensor) -> Tensor:
    """KTO's estimate of KL(policy || reference): mean log-ratio of completions of other prompts, never below 0.

    Without gradient: the loss must not push it about (arXiv 2402.01306).
    """
    return at_least_float32(foreign_ratio).detach().mean().clamp(min=0)


def kto_loss(ratio: Tensor, up: Tensor, point: Tensor, beta: float) -> Tensor:
    """1 - sigmoid(beta (log-ratio - point)) of what was liked, 1 - sigmoid(beta (point - log-ratio)) of what was not.

    arXiv 2402.01306, without its weights; `up` is 1 or 0, or the share of judges that liked it.
    """
    gain = torch.sigmoid(beta * (at_least_float32(ratio) - point))
    return up * (1 - gain) + (1 - up) * gain


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """Squares, those of errors above zero weighed by the expectile and the others by the rest (arXiv 2110.06169)."""
    wide = at_least_float32(error)
    return torch.where(wide > 0, expectile, 1 - expectile) * wide**2


def td_targets(reward_c: Tensor, value_cl: Tensor, mask_cl: Tensor, gamma: float, lam: float = 0.0) -> Tensor:
    """What Q of each token should be: of the last one, the completion's reward; of the others, what follows.

    What follows is `lam` parts the next token's own target and the rest the value after this token: 0 looks one token
    ahead, 1 at the reward alone. `value_cl` stands before each token, so the value after one is its right neighbour's.
    """
    value_cl, count = zero_outside(value_cl, mask_cl), mask_cl.sum(1)
    targets = torch.zeros_like(value_cl)
    following = reward_c.to(value_cl.dtype)
    for t in reversed(range(mask_cl.shape[1])):
        if t + 1 < mask_cl.shape[1]:
            ahead = gamma * ((1 - lam) * value_cl[:, t + 1] + lam * following)
            following = torch.where(count == t + 1, reward_c.to(value_cl.dtype), ahead)
        targets[:, t] = following
    return zero_outside(targets, mask_cl)


def advantage_weights(advantage: Tensor, temperature: float, limit: float) -> Tensor:
    """exp(advantage / temperature), at most `limit` (arXiv 2006.09359): how much of a token is learnt."""
    return (at_least_float32(advantage) / temperature).clamp(max=20.0).exp().clamp(max=limit)
