"""Reward modelling from judgements (Bradley-Terry; InstructGPT step 2, arXiv 2203.02155).

Objective: -[t log sigmoid(d) + (1-t) log sigmoid(-d)], d = score_i - score_j, for every judged pair of a prompt; the
mean over a prompt's pairs, so each prompt weighs the same. All pairs of a prompt stand in one batch element and each
distinct completion is computed once: shuffled apart, the correlated pairs overfit in a single pass.

    trueup train reward --base SFT_MODEL --data PREFERENCES
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from ..algo.losses import ranking_loss
from ..config import RewardConfig
from ..models.reward_model import RewardModel
from ..models.rows import Group, lay_out, row_tokens
from ..records import Judgement
from ..runs.run import Run
from ..text.batches import batch_indices
from ..text.chat import Encoder
from .run_loop import Loop


@dataclass(frozen=True)
class Judged:
    """One prompt, its distinct completions, and every judged pair of them: (i, j, probability that i is better)."""

    group: Group
    pairs: tuple[tuple[int, int, float], ...]


Scores = Callable[[Sequence[Judged]], list[torch.Tensor]]  # of the completions of each prompt


def judged(encoder: Encoder, judgements: Iterable[Judgement], max_tokens: int) -> tuple[list[Judged], int]:
    """Judgements by prompt, each distinct completion once. Also how many prompts have a row too long and are left out.

    Two judges of one pair are two entries among its prompt's pairs: their votes average in the loss.
    """
    by_prompt: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_prompt.setdefault(judgement.prompt.id, []).append(judgement)
    made = [_judged(encoder, group) for group in by_prompt.values()]
    fitting = [
        m for m in made if m and len(m.group[0]) + max(len(completion) for completion in m.group[1]) <= max_tokens
    ]
    return fitting, sum(m is not None for m in made) - len(fitting)


def _judged(encoder: Encoder, judgements: Sequence[Judgement]) -> Judged | None:
    place: dict[tuple[str, bool], int] = {}
    pairs: list[tuple[int, int, float]] = []
    for judgement in judgements:
        finished = judgement.meta.get("finished") or [True] * len(judgement.completions)
        at = [place.setdefault(key, len(place)) for key in zip(judgement.completions, finished, strict=True)]
        pairs += [(at[i], at[j], target) for i, j, target in judgement.pairs() if at[i] != at[j]]
    if not pairs:
        return None
    prompt = judgements[0].prompt
    tokens = [encoder.completion(prompt, text, finished=end) or (encoder.eos_id,) for text, end in place]
    return Judged((encoder.prompt(prompt), tokens), tuple(pairs))


def reward(run: Run, config: RewardConfig, model: RewardModel, train: list[Judged], heldout: list[Judged]) -> int:
    """Train `model` in place, leave the best held-out weights in it and set its constants; returns their step."""
    device = next(model.parameters()).device

    def scores(items: Sequence[Judged]) -> list[torch.Tensor]:
        rows = lay_out([item.group for item in items], model.pad_id, shared=model.shares_prompts).to(device)
        return list(model(rows).split([len(item.group[1]) for item in items]))

    def loss_sum(items: Sequence[Judged]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        found = scores(items)
        losses = [ranking_loss(s, item.pairs) for s, item in zip(found, items, strict=True)]
        right = [_share_right(s.detach(), item.pairs) for s, item in zip(found, items, strict=True)]
        return torch.stack(losses).sum(), {"accuracy": torch.tensor(right).sum()}

    @torch.no_grad()
    def evaluate(items: Sequence[Judged], batch: int) -> tuple[float, float]:
        total, right = 0.0, 0.0
        for start in range(0, len(items), batch):
            loss, more = loss_sum(items[start : start + batch])
            total, right = total + float(loss), right + float(more["accuracy"])
        return total / len(items), right / len(items)

    steps = config.steps or math.ceil(config.epochs * len(train) / config.batch_size)
    loop = Loop(run, [model, *model.heads()], config, steps, head_lr=config.head_lr)
    for step in loop.steps():
        items = [train[i] for i in batch_indices(config.run.seed, step - 1, config.batch_size, len(train))]
        stats = loop.update(items, loss_sum, len(items), lambda item: row_tokens(item.group))
        loop.log(loss=stats["loss"], accuracy=stats["accuracy"], gradient_norm=stats["gradient_norm"])
        if loop.evaluation_due and heldout:
            loss, accuracy = evaluate(heldout, loop.rows_at_once)
            loop.log(heldout_loss=loss, heldout_accuracy=accuracy)
            loop.evaluated(-loss)
    best = loop.restore_best()
    _set_constants(model, scores, train[:256], loop.rows_at_once)
    return best


def mean_and_std(scores: torch.Tensor) -> tuple[float, float]:
    """Of equal scores the std is taken as 1: they have no scale, and dividing by nearly nothing would invent one."""
    mean, std = float(scores.double().mean()), float(scores.double().std(correction=0))
    return mean, 1.0 if std < 1e-6 else std


@torch.no_grad()
def _set_constants(model: RewardModel, scores: Scores, items: Sequence[Judged], batch: int) -> None:
    """Mean 0 and std 1 over judged completions, stored with the model: the scale the KL coefficient is measured in."""
    values = torch.cat([s for start in range(0, len(items), batch) for s in scores(items[start : start + batch])])
    model.mean, model.std = mean_and_std(values)


def _share_right(scores: torch.Tensor, pairs: Sequence[tuple[int, int, float]]) -> float:
    """Share of pairs whose order the scores get right; an equal score, or a tie among people, is half right."""
    values = scores.tolist()
    points = [0.5 + 0.5 * _sign(values[i] - values[j]) * _sign(target - 0.5) for i, j, target in pairs]
    return sum(points) / len(points)


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
