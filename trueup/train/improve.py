"""Several passes over one rollout: the policy's clipped loss, the value's, and what else is mixed in."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from ..algo.kl import kl_loss
from ..algo.losses import language_model_loss, policy_loss, value_loss
from ..config import RlConfig
from ..errors import RunError
from ..models.language_model import LanguageModel
from ..models.rows import Group, Rows, row_tokens
from ..models.value import ValueModel
from ..text.batches import batch_indices
from .experience import Experience, side_by_side
from .run_loop import Loop, LossSum
from .seeds import seed_of

RATIO_LIMIT = 0.01  # rounding in float32 stays a hundred times below


def improve(
    loop: Loop,
    config: RlConfig,
    experience: Experience,
    policy: LanguageModel,
    value: ValueModel | None,
    kl_coefficient: float,
    demonstrations: Sequence[Group] = (),
) -> dict[str, float]:
    """Several passes over one rollout in minibatches; ends early when the policy has moved enough."""
    each, total = config.samples_per_prompt, len(experience.tokens)
    prompts = list(range(total // each))
    borders = [total * i // config.minibatches for i in range(config.minibatches + 1)]
    policy_learns = loop.step > config.value.warmup_steps
    demonstrations = demonstrations if policy_learns else ()
    objective = _Objective(config, experience, policy, value, kl_coefficient, policy_learns)
    updates: list[dict[str, float]] = []
    for epoch in range(config.epochs):
        random.Random(seed_of(config, f"epoch {epoch}", loop.step)).shuffle(prompts)
        order = [i * each + k for i in prompts for k in range(each)]  # completions of a prompt stay side by side
        for start, end in pairwise(borders):
            chosen = order[start:end]
            mixed = _some(demonstrations, config, (loop.step - 1) * config.epochs * config.minibatches + len(updates))
            tokens = objective.begin(chosen, mixed)
            found = loop.update([*chosen, *mixed], objective.sums, tokens, objective.row_tokens)
            updates.append(found | {key: float(widest) for key, widest in objective.widest.items()})
            if len(updates) == 1:
                _check_first_ratio(loop, updates[0]["ratio_gap"], policy)
            if updates[-1]["approx_kl"] > config.guard.max_approx_kl:
                loop.run.event("early stop", "approximate KL over its limit", step=loop.step, updates=len(updates))
                return _summary(updates)
    return _summary(updates)


class _Objective:
    """The loss of some completions of a rollout, and of demonstrations beside them, as a sum over tokens."""

    def __init__(
        self,
        config: RlConfig,
        experience: Experience,
        policy: LanguageModel,
        value: ValueModel | None,
        kl_coefficient: float,
        policy_learns: bool,
    ) -> None:
        self.config, self.experience, self.policy, self.value = config, experience, policy, value
        self.kl_coefficient, self.policy_learns = kl_coefficient, policy_learns
        self.widest: dict[str, torch.Tensor] = {}
        apart = value is not None and value.apart and policy_learns
        self.sums: list[LossSum] = [self.loss_sum, self.value_sum] if apart else [self.loss_sum]

    def begin(self, chosen: Sequence[int], mixed: Sequence[Group]) -> float:
        """What is to be one update; returns how many tokens of the rollout it counts."""
        self.widest = {key: torch.zeros((), device=self.policy.device) for key in ("ratio_gap", "ratio_max")}
        self.tokens = sum(len(self.experience.tokens[i][1]) for i in chosen)
        self.mixed_tokens = sum(len(c) for _, completions in mixed for c in completions)
        return float(self.tokens)

    def row_tokens(self, item: int | Group) -> int:
        return self.experience.row_tokens(item) if isinstance(item, int) else row_tokens(item)

    def loss_sum(self, items: Sequence[int | Group]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chosen = [item for item in items if isinstance(item, int)]
        mixed = [item for item in items if not isinstance(item, int)]
        loss, sums = self._on_rollout(chosen) if chosen else (torch.zeros((), device=self.policy.device), {})
        if mixed:
            rows = self.policy.rows(mixed)
            on_text = language_model_loss(self.policy.logprobs(rows), rows.mask_cl) / self.mixed_tokens * self.tokens
            loss, sums = loss + self.config.sft_coefficient * on_text, sums | {"sft_loss": on_text}
        return loss, sums

    def _on_rollout(self, chosen: Sequence[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Where only the value learns, the policy's losses are still known but nothing flows back from them."""
        rows = self.policy.rows(side_by_side([self.experience.tokens[i] for i in chosen]))
        at = torch.tensor(chosen, device=self.policy.device)
        with torch.set_grad_enabled(self.policy_learns):
            hidden = self.policy.hidden(rows)
            loss, sums = self._of_policy(rows, hidden, at)
        if self.value is not None and len(self.sums) == 1:
            sums["value_loss"] = self._of_value(rows, hidden, at)
            loss = loss + self.config.value.coefficient * sums["value_loss"]
        return loss, sums

    def value_sum(self, items: Sequence[int | Group]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """By itself, where it has a pass of its own: with the policy's, twice as much would be kept for going back."""
        chosen = [item for item in items if isinstance(item, int)]
        if not chosen:
            return torch.zeros((), device=self.policy.device, requires_grad=True), {}
        rows = self.policy.rows(side_by_side([self.experience.tokens[i] for i in chosen]))
        loss = self._of_value(rows, None, torch.tensor(chosen, device=self.policy.device))
        return self.config.value.coefficient * loss, {"value_loss": loss}

    def _of_value(self, rows: Rows, hidden: torch.Tensor | None, at: torch.Tensor) -> torch.Tensor:
        assert self.value is not None
        mask, seen, width = rows.mask_cl, self.experience, rows.mask_cl.shape[1]
        old, returns = seen.value_cl[at, :width], seen.return_cl[at, :width]
        return value_loss(self.value(rows, hidden), old, returns, mask, self.config.value.clip)

    def _of_policy(
        self, rows: Rows, hidden: torch.Tensor, at: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        config, seen, policy, mask = self.config, self.experience, self.policy, rows.mask_cl
        width, temperature = mask.shape[1], config.sampling.temperature
        logp = policy.logprobs(rows, temperature, hidden)
        clips = config.clip, config.clip_high or config.clip
        loss, found = policy_loss(logp, seen.logp_cl[at, :width], seen.advantage_cl[at, :width], mask, *clips)
        sums = {"policy_loss": loss} | {key: found[key] * mask.sum() for key in ("approx_kl", "clip_fraction")}
        self.widest = {key: torch.maximum(widest, found[key].detach()) for key, widest in self.widest.items()}
        if config.kl_in == "loss" and self.kl_coefficient:
            sums["kl_loss"] = kl_loss(logp, seen.reference_cl[at, :width], mask, config.kl_estimator)
            loss = loss + self.kl_coefficient * sums["kl_loss"]
        if config.entropy_bonus:
            sums["policy_entropy"] = _entropy(policy, rows, hidden, temperature)
            loss = loss - config.entropy_bonus * sums["policy_entropy"]
        return loss, sums


def _entropy(policy: LanguageModel, rows: Rows, hidden: torch.Tensor, temperature: float) -> torch.Tensor:
    """Summed over the tokens: of the whole distribution, not only of what was sampled."""
    return policy.entropy(hidden[rows.before_n], temperature).sum()


def _some(demonstrations: Sequence[Group], config: RlConfig, update: int) -> list[Group]:
    """As many demonstrations as an update has prompts."""
    if not demonstrations:
        return []
    count = max(1, config.prompts_per_step // config.minibatches)
    return [demonstrations[i] for i in batch_indices(config.run.seed, update, count, len(demonstrations))]


def _check_first_ratio(loop: Loop, gap: float, policy: LanguageModel) -> None:
    """Before any update of a rollout the ratio is 1. bf16 is spared: there the batch size alone moves it."""
    if gap > RATIO_LIMIT and next(policy.parameters()).dtype == torch.float32:
        loop.run.event("ratio", "not 1 before the first update", step=loop.step, gap=gap)
        raise RunError(
            f"the same weights gave log-probabilities whose ratio is off by {gap:.2g} (limit {RATIO_LIMIT})",
            "the model computes something random or remembers earlier batches: PPO cannot learn from such ratios",
        )


def _summary(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the updates of a step; the ratio gap is the first update's: before it, the ratio must be 1."""
    keys = [key for key in updates[0] if key not in ("loss", "ratio_gap", "ratio_max")]
    means = {key: sum(update[key] for update in updates) / len(updates) for key in keys}
    return means | {
        "ratio_gap": updates[0]["ratio_gap"],
        "ratio_max": max(update["ratio_max"] for update in updates),
        "updates": float(len(updates)),
    }
