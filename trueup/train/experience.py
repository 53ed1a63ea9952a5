"""What a rollout becomes before it is learnt from: log-probs, values, KL, rewards, advantages. No gradients here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch

from ..algo.advantages import gae, leave_one_out, token_rewards
from ..algo.kl import per_token_penalty
from ..algo.masked import masked_mean, masked_var, whiten
from ..config import RlConfig
from ..models.adapters import reference as adapter_off
from ..models.language_model import LanguageModel
from ..models.rows import Group
from ..models.value import ValueHead
from ..records import Completion


@dataclass(frozen=True)
class Experience:
    """A rollout in tensors: completions (c) by tokens (l), right-padded; `mask` is True on tokens sampled."""

    tokens: list[tuple[Sequence[int], Sequence[int]]]  # of each completion's prompt, and its own
    score_c: torch.Tensor
    mask_cl: torch.Tensor
    sampled_cl: torch.Tensor  # log-probs as the sampler saw them
    logp_cl: torch.Tensor  # the same, recomputed by the trainer: what ratios are measured against
    reference_cl: torch.Tensor
    value_cl: torch.Tensor
    advantage_cl: torch.Tensor
    return_cl: torch.Tensor

    @property
    def kl_c(self) -> torch.Tensor:
        """KL of each completion: the sum of log-ratios over its tokens (k1)."""
        return per_token_penalty(self.logp_cl, self.reference_cl, self.mask_cl).sum(1)

    def row_tokens(self, i: int) -> int:
        return sum(map(len, self.tokens[i]))

    def drift(self) -> float:
        """Largest gap between a token's log-prob in the sampler and in the trainer. Should be rounding."""
        return float((self.sampled_cl - self.logp_cl).abs()[self.mask_cl].max())

    def explained_variance(self) -> float:
        """1 - Var(return - value) / Var(return); 0 is a value model that knows nothing."""
        unexplained = masked_var(self.return_cl - self.value_cl, self.mask_cl)
        return float(1 - unexplained / masked_var(self.return_cl, self.mask_cl).clamp(min=1e-8))

    def mean(self, values_cl: torch.Tensor) -> float:
        return float(masked_mean(values_cl, self.mask_cl))


@torch.no_grad()
def observe(
    completions: Sequence[Completion],
    score_c: torch.Tensor,
    policy: LanguageModel,
    reference: LanguageModel | None,
    value_head: ValueHead,
    temperature: float,
    batch: int,
) -> Experience:
    """Log-probs under policy and reference, and values: one pass each. Without a `reference` it is the adapter off.

    `batch` completions go through at once. Both log-probs are taken at the sampling temperature, else the KL would
    start above zero.
    """
    tokens = [(policy.encoder.prompt(c.prompt), policy.tokens(c)) for c in completions]
    parts: list[tuple[torch.Tensor, ...]] = []
    for start in range(0, len(tokens), batch):
        rows = policy.rows(side_by_side(tokens[start : start + batch]))
        hidden = policy.hidden(rows)
        logp = policy.logprobs(rows, temperature, hidden)
        if reference is not None:
            reference_logp = reference.logprobs(rows, temperature)
        else:
            with adapter_off(policy):
                reference_logp = policy.logprobs(rows, temperature)
        values = torch.where(rows.mask_cl, value_head(hidden[rows.before_cl]), 0.0)
        parts.append((rows.mask_cl, logp, reference_logp, values))
    mask, logp, reference_logp, values = (_stack([part[i] for part in parts]) for i in range(4))
    empty = torch.zeros_like(logp)
    sampled = empty.masked_scatter(mask, logp.new_tensor([v for c in completions for v in c.logprobs]))
    return Experience(tokens, score_c.to(logp.device), mask, sampled, logp, reference_logp, values, empty, empty)


def with_advantages(experience: Experience, config: RlConfig) -> Experience:
    """Per-token KL penalty, the score at the last real token, GAE, and whitening over the whole rollout."""
    score_c = experience.score_c
    if config.prompt_baseline:  # does not depend on the completion itself, so the expected gradient stays what it was
        score_c = leave_one_out(score_c.view(-1, config.samples_per_prompt)).flatten()
    penalty = per_token_penalty(experience.logp_cl, experience.reference_cl, experience.mask_cl)
    rewards = token_rewards(score_c, penalty, experience.mask_cl, config.kl_coefficient)
    advantages, returns = gae(rewards, experience.value_cl, experience.mask_cl, config.gamma, config.lam)
    if config.whiten:
        advantages = whiten(advantages, experience.mask_cl)
    return replace(experience, advantage_cl=advantages, return_cl=returns)


def side_by_side(tokens: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Group]:
    """Neighbours that answer the same prompt as one group, so that they can share its computation. Keeps the order."""
    return [(prompt, [own for _, own in rows]) for prompt, rows in groupby(tokens, key=lambda row: row[0])]


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Blocks of rows of different width, one under the other, padded with zeros (False) on the right."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])
