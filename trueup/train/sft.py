"""Supervised fine-tuning on demonstrations (InstructGPT step 1, arXiv 2203.02155).

Objective: minus the log-probability of completion tokens, including the one that ends the completion; prompt tokens
are read, never learnt. The loss is a sum over tokens divided by the token count of the whole batch, so neither
padding nor the split into micro-batches changes the gradient. Ships the checkpoint with the best held-out loss.

    trueup train sft --base MODEL --data DEMONSTRATIONS
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..algo.losses import language_model_loss
from ..config import SftConfig
from ..models.language_model import LanguageModel
from ..models.rows import Group, row_tokens
from ..runs.run import Run
from ..text.batches import batch_indices
from .pretrain import heldout_loss
from .run_loop import Loop


def sft(run: Run, config: SftConfig, model: LanguageModel, train: list[Group], heldout: list[Group]) -> int:
    """Train `model` in place and leave the best held-out weights in it; returns their step."""

    def loss_sum(groups: Sequence[Group]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rows = model.rows(groups)
        return language_model_loss(model.logprobs(rows), rows.mask_cl), {}

    steps = config.steps or math.ceil(config.epochs * len(train) / config.batch_size)
    loop = Loop(run, [model], config, steps)
    for step in loop.steps():
        groups = [train[i] for i in batch_indices(config.run.seed, step - 1, config.batch_size, len(train))]
        tokens = sum(len(c) for _, completions in groups for c in completions)
        stats = loop.update(groups, loss_sum, tokens, row_tokens)
        loop.log(loss=stats["loss"], gradient_norm=stats["gradient_norm"], tokens=tokens)
        if loop.evaluation_due and heldout:
            loss = heldout_loss(model, heldout, loop.rows_at_once)
            loop.log(heldout_loss=loss)
            loop.evaluated(-loss)
    return loop.restore_best()
