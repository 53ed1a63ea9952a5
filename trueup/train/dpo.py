"""Direct preference optimisation from judgements (arXiv 2305.18290): no reward model, no sampling.

Objective: the Bradley-Terry likelihood of every judged pair, as in reward modelling, where the score of a completion is
beta times log(policy / reference), summed over its tokens; the mean over a prompt's pairs, so each prompt weighs the
same. A prompt and each of its distinct completions are computed once. `loss` has IPO and the hinge beside it.

The log-probability of better completions falls as well, only less than that of worse ones: the loss sees their
difference alone. `sft_coefficient` holds it up.

    trueup train dpo --policy SFT_MODEL --data PREFERENCES
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import NamedTuple

import torch

from ..algo.kl import k3
from ..algo.offline import dpo_loss, hinge_loss, ipo_loss
from ..algo.preference import smoothed
from ..config import DpoConfig
from ..models.language_model import LanguageModel
from ..models.rows import row_tokens
from ..runs.run import Run
from ..text.batches import batch_indices
from .cached import reference_logprobs
from .judged import Judged, Pair
from .run_loop import Loop

ROUNDING = 1e-3  # nats: differences below say nothing about what the policy prefers


class Known(NamedTuple):
    """What was judged, and the reference's log-probabilities of its completions' tokens, one after another."""

    item: Judged
    reference: torch.Tensor


@dataclass(frozen=True)
class Seen:
    """What the policy makes of one prompt's completions, a number each."""

    ratio_c: torch.Tensor  # log(policy / reference)
    logp_c: torch.Tensor
    length_c: torch.Tensor
    kl_c: torch.Tensor  # KL(reference || policy), as if the reference had written the completion


def dpo(run: Run, config: DpoConfig, policy: LanguageModel, train: list[Judged], heldout: list[Judged]) -> int:
    """Train `policy` in place and leave the best held-out weights in it; returns their step."""
    steps = config.steps or math.ceil(config.epochs * len(train) / config.batch_size)
    loop = Loop(run, [policy], config, steps)
    known = known_items(loop, policy, [*train, *heldout])
    for step in loop.steps():
        items = [known[i] for i in batch_indices(config.run.seed, step - 1, config.batch_size, len(train))]
        loop.log(**learn(loop, config, policy, items))
        if loop.evaluation_due and heldout:
            found = evaluate(config, policy, known[len(train) :], loop.rows_at_once)
            loop.log(**{f"heldout_{name}": value for name, value in found.items()})
            loop.evaluated(-found["loss"])
    return loop.restore_best()


def known_items(loop: Loop, policy: LanguageModel, items: Sequence[Judged]) -> list[Known]:
    return list(map(Known, items, reference_logprobs(loop, policy, [item.group for item in items])))


def learn(
    loop: Loop, config: DpoConfig, policy: LanguageModel, items: Sequence[Known], temperature: float = 1.0
) -> dict[str, float]:
    """One optimizer step on what was judged of these prompts."""

    def loss_sum(part: Sequence[Known]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        seen = look(policy, part, temperature)
        losses = [prompt_loss(config, s, known.item) for s, known in zip(seen, part, strict=True)]
        return torch.stack(losses).sum(), _sums(config, seen, part)

    apart = not policy.layout.packed
    return loop.update(items, loss_sum, len(items), lambda known: row_tokens(known.item.group), by_length=apart)


def look(policy: LanguageModel, items: Sequence[Known], temperature: float = 1.0) -> list[Seen]:
    rows = policy.rows([known.item.group for known in items])
    logp_cl, mask_cl = policy.logprobs(rows, temperature), rows.mask_cl
    given = torch.cat([known.reference for known in items]).to(logp_cl)
    ratio_cl = logp_cl - torch.zeros_like(logp_cl).masked_scatter(mask_cl, given)
    columns = (ratio_cl.sum(1), logp_cl.sum(1), mask_cl.sum(1), k3(-ratio_cl.detach()).sum(1))
    counts = [len(known.item.group[1]) for known in items]
    return list(starmap(Seen, zip(*(column.split(counts) for column in columns), strict=True)))


def prompt_loss(config: DpoConfig, seen: Seen, item: Judged) -> torch.Tensor:
    """What is trained on: the mean over a prompt's pairs."""
    loss = pair_losses(config, _ratios(config, seen), item.pairs).mean()
    if config.sft_coefficient:
        better = _preferred(-seen.logp_c / seen.length_c, item.pairs)
        loss = loss + config.sft_coefficient * better
    return loss


def pair_losses(config: DpoConfig, ratio_c: torch.Tensor, pairs: Sequence[Pair]) -> torch.Tensor:
    i, j, targets, _, strengths = map(list, zip(*pairs, strict=True))
    difference = ratio_c[i] - ratio_c[j]
    target = smoothed(difference.new_tensor(targets), config.wrong_share, unbiased=config.unbiased)
    strength = difference.new_tensor([s or 0.0 for s in strengths])
    if config.loss == "ipo":
        losses = ipo_loss(difference, target, config.beta)
    elif config.loss == "hinge":
        losses = hinge_loss(difference, target, config.beta)
    else:
        whole = {"small-margin": 1 / 3, "large-margin": 1.0}.get(config.strength, 0.0)
        losses = dpo_loss(difference, target, config.beta, whole * strength)
    return losses * difference.new_tensor([s or 1.0 for s in strengths]) if config.strength == "weight" else losses


@torch.no_grad()
def evaluate(config: DpoConfig, policy: LanguageModel, items: Sequence[Known], batch: int) -> dict[str, float]:
    """Means over prompts. The loss has no margin and no smoothing: only how unlikely the judgements are."""
    plain = config.model_copy(update={"wrong_share": 0.0, "unbiased": False, "strength": "ignore"})
    totals: dict[str, float] = {}
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        seen = look(policy, part)
        losses = [pair_losses(plain, _ratios(plain, s), k.item.pairs).mean() for s, k in zip(seen, part, strict=True)]
        sums = {"loss": torch.stack(losses).sum(), **_sums(plain, seen, part)}
        sums["kl"] = torch.stack([s.kl_c.mean() for s in seen]).sum()
        totals = {name: totals.get(name, 0.0) + float(value) for name, value in sums.items()}
    return {name: total / len(items) for name, total in totals.items()}


def _sums(config: DpoConfig, seen: Sequence[Seen], items: Sequence[Known]) -> dict[str, torch.Tensor]:
    """Over prompts; the caller divides. `margin` is the difference of implied rewards, better minus worse."""
    both = list(zip(seen, (known.item.pairs for known in items), strict=True))
    return {
        "accuracy": torch.tensor([_share_right(s.ratio_c.detach(), pairs) for s, pairs in both]).sum(),
        "margin": torch.stack([_margin(config.beta * _ratios(config, s).detach(), pairs) for s, pairs in both]).sum(),
        "chosen_logp": torch.stack([_preferred(s.logp_c.detach(), pairs) for s, pairs in both]).sum(),
        "rejected_logp": torch.stack([_preferred(s.logp_c.detach(), pairs, worse=True) for s, pairs in both]).sum(),
    }


def _ratios(config: DpoConfig, seen: Seen) -> torch.Tensor:
    return seen.ratio_c / seen.length_c if config.per_token else seen.ratio_c


def _preferred(value_c: torch.Tensor, pairs: Sequence[Pair], worse: bool = False) -> torch.Tensor:
    """Mean over pairs of the better side's value, or the worse side's; of soft targets, in their proportion."""
    i, j, targets, *_ = map(list, zip(*pairs, strict=True))
    share = value_c.new_tensor(targets)
    share = 1 - share if worse else share
    return (share * value_c[i] + (1 - share) * value_c[j]).mean()


def _margin(reward_c: torch.Tensor, pairs: Sequence[Pair]) -> torch.Tensor:
    return _preferred(reward_c, pairs) - _preferred(reward_c, pairs, worse=True)


def _share_right(ratio_c: torch.Tensor, pairs: Sequence[Pair]) -> float:
    """Share of the pairs that the implied rewards order as they were judged; equal ones are half right."""
    values = ratio_c.tolist()
    return sum(_agrees(values[pair.i] - values[pair.j], pair.target) for pair in pairs) / len(pairs)


def _agrees(difference: float, target: float) -> float:
    if abs(difference) < ROUNDING or target == 0.5:
        return 0.5
    return float((difference > 0) == (target > 0.5))
