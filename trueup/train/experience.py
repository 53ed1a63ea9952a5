"""What a rollout becomes before it is learnt from: log-probs, values, KL, rewards, advantages. No gradients here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch

from ..algo.advantages import gae, group_relative, leave_one_out, token_rewards
from ..algo.kl import k3, per_token_penalty
from ..algo.masked import masked_mean, masked_var, whiten, zero_outside
from ..config import RlConfig
from ..models.adapters import reference as adapter_off
from ..models.language_model import LanguageModel
from ..models.rows import Group
from ..models.value import ValueModel
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

    @property
    def kl_k3_cl(self) -> torch.Tensor:
        """KL of each token by the estimate that is never negative."""
        return k3(zero_outside(self.logp_cl - self.reference_cl, self.mask_cl))

    def row_tokens(self, i: int) -> int:
        return sum(map(len, self.tokens[i]))

    def drift(self) -> float:
        """Largest gap between a token's log-prob in the sampler and in the trainer. Should be rounding."""
        return float((self.sampled_cl - self.logp_cl).abs()[self.mask_cl].max())

    def drift_mean(self) -> float:
        """The mean gap: in 16 bits one token may be far off, but not the mean."""
        return self.mean((self.sampled_cl - self.logp_cl).abs())

    def explained_variance(self) -> float | None:
        """1 - Var(return - value) / Var(return); 0 is a value model that knows nothing. None where all returns are
        equal, as without a value model: there is nothing to explain."""
        there = masked_var(self.return_cl, self.mask_cl)
        return float(1 - masked_var(self.return_cl - self.value_cl, self.mask_cl) / there) if there > 1e-12 else None

    def mean(self, values_cl: torch.Tensor) -> float:
        return float(masked_mean(values_cl, self.mask_cl))


@torch.no_grad()
def observe(
    completions: Sequence[Completion],
    score_c: torch.Tensor,
    policy: LanguageModel,
    reference: LanguageModel | None,
    value: ValueModel | None,
    temperature: float,
    batch: int,
) -> Experience:
    """Log-probs under policy and reference, and values. Without a `reference` it is the adapter off.

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
        values = torch.zeros_like(logp)
        if value is not None:
            values = zero_outside(value(rows, hidden), rows.mask_cl)
        parts.append((rows.mask_cl, logp, reference_logp, values))
    mask, logp, reference_logp, values = (_stack([part[i] for part in parts]) for i in range(4))
    empty = torch.zeros_like(logp)
    sampled = empty.masked_scatter(mask, logp.new_tensor([v for c in completions for v in c.logprobs]))
    return Experience(tokens, score_c.to(logp.device), mask, sampled, logp, reference_logp, values, empty, empty)


def with_advantages(experience: Experience, config: RlConfig, kl_coefficient: float) -> Experience:
    """Advantages and returns as the estimator makes them, from the scores and the per-token KL."""
    price = kl_coefficient if config.kl_in == "reward" else 0.0
    penalty = per_token_penalty(
        experience.logp_cl, experience.reference_cl, experience.mask_cl, estimator=config.kl_estimator
    )
    if config.estimator in ("rloo", "grpo"):
        advantages, returns = _compared(experience, config, price * penalty), torch.zeros_like(penalty)
    else:
        advantages, returns = _token_by_token(experience, config, penalty, price)
    if config.whiten if config.whiten is not None else config.estimator in ("ppo", "reinforce++"):
        advantages = whiten(advantages, experience.mask_cl)
    return replace(experience, advantage_cl=advantages, return_cl=returns)


def _token_by_token(
    experience: Experience, config: RlConfig, penalty_cl: torch.Tensor, price: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The KL at every token, the score at the last real one; then GAE, which without values and with lambda 1 is the
    sum of what is still to come."""
    score_c = experience.score_c
    if config.prompt_baseline:  # does not depend on the completion itself, so the expected gradient stays what it was
        score_c = leave_one_out(score_c.view(-1, config.samples_per_prompt)).flatten()
    rewards = token_rewards(score_c, penalty_cl, experience.mask_cl, price)
    lam = config.lam if config.estimator == "ppo" else 1.0
    return gae(rewards, experience.value_cl, experience.mask_cl, config.gamma, lam)


def _compared(experience: Experience, config: RlConfig, price_cl: torch.Tensor) -> torch.Tensor:
    """One advantage for all tokens of a completion: how it did beside the others of its prompt, its KL paid for."""
    paid = (experience.score_c - price_cl.sum(1)).view(-1, config.samples_per_prompt)
    compared = leave_one_out(paid) if config.estimator == "rloo" else group_relative(paid, config.group_std)
    return zero_outside(compared.flatten()[:, None].expand_as(price_cl), experience.mask_cl)


def side_by_side(tokens: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Group]:
    """Neighbours that answer the same prompt as one group, so that they can share its computation. Keeps the order."""
    return [(prompt, [own for _, own in rows]) for prompt, rows in groupby(tokens, key=lambda row: row[0])]


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Blocks of rows of different width, one under the other, padded with zeros (False) on the right."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])
