"""Reward modelling from judgements (Bradley-Terry; InstructGPT step 2, arXiv 2203.02155).

Objective: -[t log sigmoid(d) + (1-t) log sigmoid(-d)], d = score_i - score_j, for every judged pair of a prompt; the
mean over a prompt's pairs, so each prompt weighs the same. All pairs of a prompt stand in one batch element and each
distinct completion is computed once: shuffled apart, the correlated pairs overfit in a single pass.

A model with several objectives learns each from the judgements made on it; one with several members teaches each head
a draw of the prompts of its own. Completions judged by themselves (thumbs) are learnt from beside the pairs.

    trueup train reward --base SFT_MODEL --data PREFERENCES
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..algo.preference import (
    centring_loss,
    margin_loss,
    plackett_luce_loss,
    preference_loss,
    smoothed,
    verdict_loss,
)
from ..algo.scale import mean_and_std
from ..config import RewardConfig
from ..models.reward_model import RewardModel
from ..models.rows import Group, lay_out, row_tokens
from ..runs.run import Run
from ..text.batches import batch_indices
from .judged import Judged, Pair, Verdict, redrawn
from .run_loop import Loop

Scores = Callable[[Sequence[Group]], list[torch.Tensor]]  # (completions, objectives, members) of each prompt


def reward(
    run: Run,
    config: RewardConfig,
    model: RewardModel,
    train: list[Judged],
    heldout: list[Judged],
    reference: Sequence[Group] = (),
) -> int:
    """Train `model` in place, leave the best held-out weights in it and set its constants; returns their step.

    The constants are those of `reference`, completions that were not chosen for being judged; else of what was judged.
    """
    device = next(model.parameters()).device

    def scores(groups: Sequence[Group]) -> list[torch.Tensor]:
        rows = lay_out(groups, model.pad_id, model.layout).to(device)
        return [model.by_objective(raw) for raw in model(rows).split([len(group[1]) for group in groups])]

    def loss_sum(items: Sequence[Judged]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        found = scores([item.group for item in items])
        losses = [_loss(config, s, item) for s, item in zip(found, items, strict=True)]
        right = [_share_right(s.detach(), item) for s, item in zip(found, items, strict=True)]
        return torch.stack(losses).sum(), {"accuracy": torch.tensor(right).sum()}

    @torch.no_grad()
    def evaluate(items: Sequence[Judged], batch: int) -> tuple[float, float]:
        total, right = 0.0, 0.0
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            found = scores([item.group for item in part])
            total += float(torch.stack([likelihood_loss(s, i) for s, i in zip(found, part, strict=True)]).sum())
            right += sum(_share_right(s, item) for s, item in zip(found, part, strict=True))
        return total / len(items), right / len(items)

    steps = config.steps or math.ceil(config.epochs * len(train) / config.batch_size)
    items_of = redrawn(train, model.members, config.run.seed)
    loop = Loop(run, [model, *model.heads()], config, steps, head_lr=config.head_lr)
    for step in loop.steps():
        items = [items_of[i] for i in batch_indices(config.run.seed, step - 1, config.batch_size, len(train))]
        stats = loop.update(
            items, loss_sum, len(items), lambda item: row_tokens(item.group), by_length=not model.layout.packed
        )
        loop.log(loss=stats["loss"], accuracy=stats["accuracy"], gradient_norm=stats["gradient_norm"])
        if loop.evaluation_due and heldout:
            loss, accuracy = evaluate(heldout, loop.rows_at_once)
            loop.log(heldout_loss=loss, heldout_accuracy=accuracy)
            loop.evaluated(-loss)
            _stop_when_no_better(loop, loss, config.patience)
    best = loop.restore_best()
    _set_constants(model, scores, reference or [item.group for item in train[:256]], loop.rows_at_once)
    return best


def _stop_when_no_better(loop: Loop, loss: float, patience: int) -> None:
    """`memory` goes into checkpoints, so a resumed run has as much patience left as the one it goes on from."""
    if loss < loop.memory.get("lowest", math.inf):
        loop.memory |= {"lowest": loss, "waited": 0}
        return
    loop.memory["waited"] = loop.memory.get("waited", 0) + 1  # the first one may be no number at all
    if patience and loop.memory["waited"] >= patience:
        loop.stop(f"the held-out loss has not fallen for {patience} evaluations")


def _loss(config: RewardConfig, scores_kom: torch.Tensor, item: Judged) -> torch.Tensor:
    """What is trained on: mean over what was said of the prompt, then over the members that drew it."""
    if config.loss == "plackett-luce":
        losses = [plackett_luce_loss(scores_kom[list(r.completions), r.objective], r.ranks) for r in item.rankings]
        each_xm = torch.stack(losses) if losses else scores_kom.new_zeros(0, scores_kom.shape[2])
    else:
        each_xm = _pair_losses(config, scores_kom, item.pairs)
    each_xm = torch.cat([each_xm, _verdict_losses(scores_kom, item.verdicts)])
    return (each_xm.mean(0) * each_xm.new_tensor(item.weights)).mean()


def likelihood_loss(scores_kom: torch.Tensor, item: Judged) -> torch.Tensor:
    """How unlikely the judgements are to the model: no margin, no smoothing, every member alike."""
    pairs = _pair_losses(RewardConfig(), scores_kom, item.pairs)
    return torch.cat([pairs, _verdict_losses(scores_kom, item.verdicts)]).mean()


def _pair_losses(config: RewardConfig, scores_kom: torch.Tensor, pairs: Sequence[Pair]) -> torch.Tensor:
    """(pairs, members)"""
    if not pairs:
        return scores_kom.new_zeros(0, scores_kom.shape[2])
    i, j, targets, objectives, strengths = map(list, zip(*pairs, strict=True))
    score_i, score_j = scores_kom[i, objectives], scores_kom[j, objectives]
    target = torch.tensor(targets, dtype=score_i.dtype, device=score_i.device)[:, None]
    if config.wrong_share:
        target = smoothed(target, config.wrong_share, unbiased=config.unbiased)
    if config.strength.endswith("margin"):
        whole = 1.0 if config.strength == "large-margin" else 3.0
        margin = score_i.new_tensor([(strength or 0.0) / whole for strength in strengths])[:, None]
        losses = margin_loss(score_i, score_j, target, margin)
    else:
        losses = preference_loss(score_i, score_j, target)
    if config.strength == "weight":
        losses = losses * losses.new_tensor([strength or 1.0 for strength in strengths])[:, None]
    if config.centring:
        losses = losses + config.centring * centring_loss(score_i, score_j)
    return losses


def _verdict_losses(scores_kom: torch.Tensor, verdicts: Sequence[Verdict]) -> torch.Tensor:
    """(verdicts, members)"""
    if not verdicts:
        return scores_kom.new_zeros(0, scores_kom.shape[2])
    completions, right, objectives = map(list, zip(*verdicts, strict=True))
    return verdict_loss(scores_kom[completions, objectives], scores_kom.new_tensor(right))


@torch.no_grad()
def _set_constants(model: RewardModel, scores: Scores, groups: Sequence[Group], batch: int) -> None:
    """Mean 0 and std 1 of every output, stored with the model: the scale the KL coefficient is measured in."""
    found = [s for start in range(0, len(groups), batch) for s in scores(groups[start : start + batch])]
    by_output = torch.cat(found).flatten(1).unbind(1)
    model.mean, model.std = map(list, zip(*map(mean_and_std, by_output), strict=True))


def _share_right(scores_kom: torch.Tensor, item: Judged) -> float:
    """Share of what was said that the scores agree with; an equal score, or a tie among people, is half right."""
    values = scores_kom.mean(2).tolist()
    points = [_agrees(values[p.i][p.objective] - values[p.j][p.objective], p.target) for p in item.pairs]
    points += [_agrees(values[v.completion][v.objective], v.right) for v in item.verdicts]
    return sum(points) / len(points)


def _agrees(score: float, target: float) -> float:
    return 0.5 + 0.5 * _sign(score) * _sign(target - 0.5)


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
