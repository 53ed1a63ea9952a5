"""The losses of a reward model against likelihoods written out in plain Python, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from trueup.algo import (
    centring_loss,
    margin_loss,
    plackett_luce_loss,
    preference_loss,
    ranking_loss,
    smoothed,
    verdict_loss,
)

SCORES = [1.3, -0.4, 0.2, 2.5]


def doubles(*values: float, **more) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, **more)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("target", [1.0, 0.0, 0.5, 0.8])
@pytest.mark.parametrize("margin", [0.0, 1 / 3, 3.0])
def test_a_margin_has_to_be_won_by_whoever_was_better(target, margin):
    a, b = 0.7, -0.1
    by_hand = -target * math.log(sigmoid(a - b - margin)) - (1 - target) * math.log(sigmoid(b - a - margin))
    found = margin_loss(doubles(a), doubles(b), doubles(target), doubles(margin))
    assert found.item() == pytest.approx(by_hand)
    if margin == 0:
        assert found.item() == pytest.approx(preference_loss(doubles(a), doubles(b), target).item())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_smoothing_and_its_unbiased_form_are_what_their_papers_say(share):
    a, b = doubles(0.9), doubles(-0.5)
    right, wrong = (preference_loss(a, b, t).item() for t in (1.0, 0.0))
    plain = preference_loss(a, b, smoothed(doubles(1.0), share)).item()
    assert plain == pytest.approx((1 - share) * right + share * wrong)
    unbiased = preference_loss(a, b, smoothed(doubles(1.0), share, unbiased=True)).item()
    assert unbiased == pytest.approx(((1 - share) * right - share * wrong) / (1 - 2 * share))


def test_the_unbiased_form_expects_the_loss_without_mistakes():
    a, b, share = doubles(0.9), doubles(-0.5), 0.25
    of = {t: preference_loss(a, b, smoothed(doubles(t), share, unbiased=True)).item() for t in (0.0, 1.0)}
    assert (1 - share) * of[1.0] + share * of[0.0] == pytest.approx(preference_loss(a, b, 1.0).item())


def test_a_ranking_is_chosen_place_by_place():
    """Oracle: the probability of the order is the product of softmax choices from what is left."""
    ranks = (2, 4, 3, 1)
    strengths = [math.exp(s) for s in SCORES]
    order = sorted(range(4), key=lambda i: ranks[i])
    chance = math.prod(strengths[i] / sum(strengths[j] for j in order[k:]) for k, i in enumerate(order))
    assert plackett_luce_loss(doubles(*SCORES), ranks).item() == pytest.approx(-math.log(chance) / 3)


def test_the_chances_of_all_orders_add_up_to_one():
    losses = [plackett_luce_loss(doubles(*SCORES), order).item() * 3 for order in itertools.permutations(range(4))]
    assert sum(math.exp(-loss) for loss in losses) == pytest.approx(1)


@pytest.mark.parametrize("ranks, target", [((1, 2), 1.0), ((2, 1), 0.0), ((1, 1), 0.5)])
def test_of_two_the_whole_order_is_the_pair(ranks, target):
    scores = doubles(0.3, 1.1, requires_grad=True)
    pair = preference_loss(scores[0], scores[1], target)
    assert plackett_luce_loss(scores, ranks).item() == pytest.approx(pair.item())


def test_shared_places_pull_together():
    scores = doubles(2.0, 0.0, -1.0, requires_grad=True)
    plackett_luce_loss(scores, (1, 1, 3)).backward()
    assert scores.grad is not None and scores.grad[0] > 0 > scores.grad[1], "descent lowers the higher of the tied"


def test_a_ranking_of_one_is_our_mistake():
    with pytest.raises(AssertionError):
        plackett_luce_loss(doubles(1.0), (1,))


def test_a_verdict_is_the_likelihood_of_right_and_wrong():
    found = verdict_loss(doubles(1.2, -0.7), doubles(1.0, 0.0))
    assert found.tolist() == pytest.approx([-math.log(sigmoid(1.2)), -math.log(1 - sigmoid(-0.7))])


def test_centring_minds_the_level_and_not_the_difference():
    assert centring_loss(doubles(3.0, 1.0), doubles(-3.0, 1.5)).tolist() == [0.0, 6.25]


def test_members_are_models_of_their_own():
    """Columns behind the first dimension never meet."""
    members = torch.tensor([[0.1, 2.0], [0.4, -1.0], [-0.3, 0.0]], dtype=torch.float64)
    pairs = [(0, 1, 1.0), (0, 2, 0.5), (1, 2, 0.0)]
    alone = [ranking_loss(members[:, m], pairs).item() for m in range(2)]
    assert ranking_loss(members, pairs).tolist() == pytest.approx(alone)
    orders = [plackett_luce_loss(members[:, m], (1, 3, 2)).item() for m in range(2)]
    assert plackett_luce_loss(members, (1, 3, 2)).tolist() == pytest.approx(orders)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype):
    scores = torch.tensor(SCORES, dtype=dtype)
    for loss in (
        plackett_luce_loss(scores, (1, 2, 3, 4)),
        margin_loss(scores[:2], scores[2:], torch.ones(2), torch.ones(2)),
        verdict_loss(scores, torch.ones(4)),
        centring_loss(scores[:2], scores[2:]),
    ):
        assert loss.dtype == torch.float32
