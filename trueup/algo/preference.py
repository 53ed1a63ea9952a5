"""What is learnt from judgements: the losses of a reward model, on scores alone.

All of them are built on the Bradley-Terry likelihood, in which i beats j with probability sigmoid(score_i - score_j).
Scores may have further dimensions behind the first (members of an ensemble): each is a model of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from .masked import at_least_float32

Pairs = Sequence[tuple[int, int, float]]  # i, j, probability that i is the better one


def preference_loss(score_i: Tensor, score_j: Tensor, target: Tensor | float) -> Tensor:
    """One loss a pair: -[t log sigmoid(d) + (1-t) log sigmoid(-d)] with d = score_i - score_j.

    `target` is the probability that i is the better one: 1, 0, 0.5 for a tie, or anything between.
    """
    difference = at_least_float32(score_i) - at_least_float32(score_j)
    soft = torch.as_tensor(target, dtype=difference.dtype, device=difference.device).expand_as(difference)
    return binary_cross_entropy_with_logits(difference, soft, reduction="none")


def margin_loss(score_i: Tensor, score_j: Tensor, target: Tensor, margin: Tensor) -> Tensor:
    """`preference_loss` in which the better one has to be ahead by `margin` (Llama 2, arXiv 2307.09288, eq. 2).

    Whichever of the two was judged better: -[t log sigmoid(d - m) + (1-t) log sigmoid(-d - m)].
    """
    difference = at_least_float32(score_i) - at_least_float32(score_j)
    return target * softplus(margin - difference) + (1 - target) * softplus(margin + difference)


def smoothed(target: Tensor, share: float, *, unbiased: bool = False) -> Tensor:
    """Targets when a `share` of the judgements is the wrong way round.

    Plain smoothing moves them towards a half: what is learnt is less sure than it could be. The unbiased form
    (arXiv 2403.00409) moves them away from it, beyond 0 and 1, so that the expected loss over judgements with that
    share of mistakes is the loss without any: ((1-e) l(t) - e l(1-t)) / (1-2e), since the loss is linear in t.
    """
    assert 0 <= share < 0.5
    return (target - share) / (1 - 2 * share) if unbiased else target + share * (1 - 2 * target)


def ranking_loss(scores_k: Tensor, pairs: Pairs) -> Tensor:
    """Mean `preference_loss` over the pairs (i, j, target) of one prompt: every prompt weighs 1, whatever its K."""
    assert pairs, "a ranking without pairs"
    i, j, targets = zip(*pairs, strict=True)
    soft = torch.tensor(targets, dtype=torch.float64).reshape(-1, *[1] * (scores_k.dim() - 1))
    return preference_loss(scores_k[list(i)], scores_k[list(j)], soft).mean(0)


def plackett_luce_loss(scores_k: Tensor, ranks: Sequence[int]) -> Tensor:
    """A whole ranking at once: the best is chosen from all, the next from what is left, and so on; mean over choices.

    Places that are shared count as one choice in which each of them was chosen by an equal share of the vote. For two
    completions this is `preference_loss`, ties and all. Lower ranks are better.
    """
    scores, places = at_least_float32(scores_k), torch.tensor(ranks, device=scores_k.device)
    chosen_from = [(places >= place, places == place) for place in sorted(set(ranks))]
    losses = [
        torch.logsumexp(scores[left], 0) - scores[best].mean(0) for left, best in chosen_from if int(left.sum()) > 1
    ]
    assert losses, "a ranking of one completion says nothing"
    return torch.stack(losses).mean(0)


def verdict_loss(scores: Tensor, right: Tensor) -> Tensor:
    """One loss a completion judged by itself: a score above 0 says that it is right, and sigmoid(score) how likely."""
    logits = at_least_float32(scores)
    labels = right.to(logits.dtype).reshape(-1, *[1] * (logits.dim() - 1)).expand_as(logits)
    return binary_cross_entropy_with_logits(logits, labels, reduction="none")


def centring_loss(score_i: Tensor, score_j: Tensor) -> Tensor:
    """(score_i + score_j)^2, one a pair: pairs alone leave the level of scores open (arXiv 2312.09244, section 5)."""
    return (at_least_float32(score_i) + at_least_float32(score_j)) ** 2
