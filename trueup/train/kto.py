"""Kahneman-Tversky optimisation (KTO, arXiv 2402.01306): a policy learnt from thumbs, no comparison needed.

Objective: 1 - sigmoid(beta (r - z)) of a completion that was liked and 1 - sigmoid(beta (z - r)) of one that was not,
r being log(policy / reference) of the completion and z the batch's estimate of KL(policy || reference): the mean
log-ratio of completions that answer another prompt, never below 0 and without gradient. Every thumb weighs the same,
and by default all thumbs up weigh as much as all thumbs down.

Departures: the foreign completion of a prompt is the same in every epoch, so that the reference's log-probabilities are
computed once; and z is that of the whole batch, however it is split for memory.

    trueup train kto --policy SFT_MODEL --data UNPAIRED
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..algo.offline import kto_loss, reference_point
from ..config import KtoConfig
from ..models.language_model import LanguageModel
from ..models.rows import Group, row_tokens
from ..runs.run import Run
from ..text.batches import batch_indices, in_turn
from .cached import reference_logprobs
from .dpo import ROUNDING, Known, Seen, look
from .judged import Judged, Verdict
from .run_loop import Loop


class Thumbed(NamedTuple):
    """A prompt's completions with their thumbs, and a completion that answers another prompt."""

    own: Known
    foreign: Known

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return self.own.item.verdicts


@dataclass(frozen=True)
class Weights:
    up: float
    down: float


def kto(run: Run, config: KtoConfig, policy: LanguageModel, train: list[Judged], heldout: list[Judged]) -> int:
    """Train `policy` in place and leave the best held-out weights in it; returns their step."""
    steps = config.steps or math.ceil(config.epochs * len(train) / config.batch_size)
    loop = Loop(run, [policy], config, steps)
    known = _known(loop, policy, train, heldout)
    weights = weights_of(config, train)
    for step in loop.steps():
        items = [known[i] for i in batch_indices(config.run.seed, step - 1, config.batch_size, len(train))]
        loop.log(**learn(loop, config, weights, policy, items))
        if loop.evaluation_due and heldout:
            found = evaluate(loop, config, weights, policy, known[len(train) :])
            loop.log(**{f"heldout_{name}": value for name, value in found.items()})
            loop.evaluated(-found["loss"])
    return loop.restore_best()


def learn(
    loop: Loop, config: KtoConfig, weights: Weights, policy: LanguageModel, items: Sequence[Thumbed]
) -> dict[str, float]:
    """One optimizer step; the reference point stands before it."""
    point = _point(loop, policy, items)

    def loss_sum(part: Sequence[Thumbed]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return _sums(config, weights, point, look(policy, [each.own for each in part]), part)

    count = sum(len(each.verdicts) for each in items)
    stats = loop.update(
        items, loss_sum, count, lambda each: row_tokens(each.own.item.group), by_length=not policy.layout.packed
    )
    return {**_by_side(stats, items), "point": float(point)}


@torch.no_grad()
def evaluate(
    loop: Loop, config: KtoConfig, weights: Weights, policy: LanguageModel, items: Sequence[Thumbed]
) -> dict[str, float]:
    """Means over thumbs; `kl` is the mean over prompts of KL(reference || policy), as in DPO."""
    point, count = _point(loop, policy, items), sum(len(each.verdicts) for each in items)
    totals: dict[str, float] = {}
    for part in in_turn(len(items), loop.rows_at_once):
        chosen = [items[i] for i in part]
        seen = look(policy, [each.own for each in chosen])
        loss, more = _sums(config, weights, point, seen, chosen)
        kl = torch.stack([s.kl_c.mean() for s in seen]).sum() * count / len(items)
        sums = {"loss": loss, **more, "kl": kl}
        totals = {name: totals.get(name, 0.0) + float(value) / count for name, value in sums.items()}
    return _by_side(totals, items)


def weights_of(config: KtoConfig, items: Sequence[Judged]) -> Weights:
    """As they were set; where they were not, both sides weigh the same in sum, and 1 on average."""
    ups = sum(verdict.right for item in items for verdict in item.verdicts)
    downs = sum(len(item.verdicts) for item in items) - ups
    assert ups and downs, "KTO needs thumbs of both kinds"
    up = config.up_weight or (config.down_weight or (ups + downs) / (2 * downs)) * downs / ups
    return Weights(up, config.down_weight or up * ups / downs)


def _known(loop: Loop, policy: LanguageModel, train: Sequence[Judged], heldout: Sequence[Judged]) -> list[Thumbed]:
    items = [*train, *heldout]
    foreign = [*_foreign(train, policy.context), *_foreign(heldout, policy.context)]
    both: list[Group] = [(item.group[0], [*item.group[1], other]) for item, other in zip(items, foreign, strict=True)]
    found = []
    for item, other, reference in zip(items, foreign, reference_logprobs(loop, policy, both), strict=True):
        own, theirs = reference.split([sum(map(len, item.group[1])), len(other)])
        found.append(Thumbed(Known(item, own), Known(Judged((item.group[0], [other])), theirs)))
    return found


def _foreign(items: Sequence[Judged], context: int) -> list[Sequence[int]]:
    """For each prompt the first completion of the next one, cut where the context ends."""
    following = [*items[1:], *items[:1]]
    return [other.group[1][0][: context - len(item.group[0])] for item, other in zip(items, following, strict=True)]


def _point(loop: Loop, policy: LanguageModel, items: Sequence[Thumbed]) -> torch.Tensor:
    foreign = [each.foreign for each in items]

    @torch.no_grad()
    def ratios(size: int) -> torch.Tensor:
        parts = [look(policy, [foreign[i] for i in part]) for part in in_turn(len(foreign), size)]
        return torch.cat([seen.ratio_c for part in parts for seen in part])

    return reference_point(loop.within_memory(ratios, [row_tokens(each.item.group) for each in foreign]))


def _sums(
    config: KtoConfig, weights: Weights, point: torch.Tensor, seen: Sequence[Seen], items: Sequence[Thumbed]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Over thumbs; the caller divides by their number."""
    each = [(s.ratio_c[v.completion], v.right) for s, item in zip(seen, items, strict=True) for v in item.verdicts]
    ratio = torch.stack([value for value, _ in each])
    up = ratio.new_tensor([right for _, right in each])
    weight = up * weights.up + (1 - up) * weights.down
    loss = (weight * kto_loss(ratio, up, point, config.beta)).sum()
    above = ratio.detach() - point
    agrees = torch.where(above.abs() < ROUNDING, 0.5, ((above > 0) == (up > 0.5)).to(ratio.dtype))
    sides = {"up_ratio": (ratio.detach() * up).sum(), "down_ratio": (ratio.detach() * (1 - up)).sum()}
    return loss, {"accuracy": agrees.sum(), **sides}


def _by_side(means: dict[str, float], items: Sequence[Thumbed]) -> dict[str, float]:
    """Log-ratios of what was liked as a mean over what was liked, and so for the rest: not over all thumbs."""
    rights = [verdict.right for each in items for verdict in each.verdicts]
    shares = {"up_ratio": sum(rights) / len(rights), "down_ratio": 1 - sum(rights) / len(rights)}
    found = {name: value for name, value in means.items() if shares.get(name, 1.0) > 0}
    return {name: value / shares.get(name, 1.0) for name, value in found.items()}
