"""Pretraining: next-token prediction on prompts and their completions, from random weights.

Objective: minus the log-probability of every token, prompt and completion alike; `completion_weight` can raise the
latter. Departure from common practice: a prompt with several completions is one row (see `models.rows`), so its
tokens are computed and learnt once.

    trueup train pretrain --data DEMONSTRATIONS
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..algo.losses import language_model_loss
from ..config import PretrainConfig
from ..models.language_model import LanguageModel
from ..models.rows import Group, row_tokens
from ..runs.run import Run
from ..text.batches import batch_indices
from .run_loop import Loop


def pretrain(run: Run, config: PretrainConfig, model: LanguageModel, train: list[Group], heldout: list[Group]) -> int:
    """Train `model` in place and leave the best held-out weights in it; returns their step."""
    weight = config.completion_weight

    def loss_sum(groups: Sequence[Group]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rows = model.rows(groups)
        hidden = model.hidden(rows, whole=True)
        on_completions = language_model_loss(model.logprobs(rows, hidden=hidden), rows.mask_cl)
        before, target = rows.prompt_before_bp[rows.prompt_mask_bp], rows.prompt_target_bp[rows.prompt_mask_bp]
        on_prompts = -model.read(hidden[before], target).sum()
        tokens = rows.mask_cl.sum()
        return on_prompts + weight * on_completions, {"completion_loss": on_completions, "tokens": tokens.float()}

    def weigh(groups: Sequence[Group]) -> tuple[float, float]:
        completion_tokens = sum(len(c) for _, completions in groups for c in completions)
        copies = 1 if model.layout.shared else None
        prompt_tokens = sum((len(p) - 1) * (copies or len(completions)) for p, completions in groups)
        return prompt_tokens + weight * completion_tokens, completion_tokens

    loop = Loop(run, [model], config, config.steps)
    for step in loop.steps():
        groups = [train[i] for i in batch_indices(config.run.seed, step - 1, config.batch_size, len(train))]
        total, completion_tokens = weigh(groups)
        stats = loop.update(groups, loss_sum, total, row_tokens)
        loop.log(
            loss=stats["loss"],
            completion_loss=stats["completion_loss"] * total / completion_tokens,
            gradient_norm=stats["gradient_norm"],
        )
        if loop.evaluation_due and heldout:
            loss = heldout_loss(model, heldout, loop.rows_at_once)
            loop.log(heldout_completion_loss=loss)
            loop.evaluated(-loss)
    return loop.restore_best()


@torch.no_grad()
def heldout_loss(model: LanguageModel, groups: Sequence[Group], batch: int) -> float:
    """Mean negative log-probability of a completion token."""
    total, count = 0.0, 0
    for start in range(0, len(groups), batch):
        rows = model.rows(groups[start : start + batch])
        total -= float(model.logprobs(rows).sum())
        count += int(rows.mask_cl.sum())
    return total / count
