"""The losses of the offline methods against their papers' formulas, written out in plain Python in float64."""

from __future__ import annotations

import math

import pytest
import torch

from trueup.algo import smoothed
from trueup.algo.offline import (
    advantage_weights,
    dpo_loss,
    expectile_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    reference_point,
    td_targets,
)

GAPS = [-3.2, -0.4, 0.0, 0.7, 5.1]
BETA = 0.3


def doubles(*values: float, **more) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, **more)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dpo_by_hand(gap: float, target: float) -> float:
    return -target * math.log(sigmoid(BETA * gap)) - (1 - target) * math.log(sigmoid(-BETA * gap))


def ipo_by_hand(gap: float, target: float) -> float:
    return target * (gap - 1 / (2 * BETA)) ** 2 + (1 - target) * (-gap - 1 / (2 * BETA)) ** 2


def hinge_by_hand(gap: float, target: float) -> float:
    return target * max(0.0, 1 - BETA * gap) + (1 - target) * max(0.0, 1 + BETA * gap)


LOSSES = [(dpo_loss, dpo_by_hand), (ipo_loss, ipo_by_hand), (hinge_loss, hinge_by_hand)]


@pytest.mark.parametrize("target", [1.0, 0.0, 0.5, 0.8])
@pytest.mark.parametrize(("loss", "by_hand"), LOSSES)
def test_a_pair_loses_what_its_paper_says(loss, by_hand, target):
    found = loss(doubles(*GAPS), torch.full((5,), target, dtype=torch.float64), BETA)
    assert found.tolist() == pytest.approx([by_hand(gap, target) for gap in GAPS], rel=1e-12)


@pytest.mark.parametrize(("loss", "by_hand"), LOSSES)
def test_gradients_are_those_of_the_formulas(loss, by_hand):
    gaps, step = doubles(*GAPS, requires_grad=True), 1e-6
    loss(gaps, doubles(1, 0, 0.8, 1, 0.3), BETA).sum().backward()
    for gap, target, slope in zip(GAPS, (1, 0, 0.8, 1, 0.3), gaps.grad.tolist(), strict=True):
        difference = by_hand(gap + step, target) - by_hand(gap - step, target)
        assert slope == pytest.approx(difference / (2 * step), abs=1e-6)


@pytest.mark.parametrize(("loss", "by_hand"), LOSSES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_conservative_and_robust_forms_of_every_loss(loss, by_hand, share):
    """cDPO mixes both labels; robust DPO (arXiv 2403.00409) expects, over wrong labels, the loss without."""
    gaps, one = doubles(*GAPS), torch.ones(5, dtype=torch.float64)
    right, wrong = loss(gaps, one, BETA), loss(gaps, 1 - one, BETA)
    torch.testing.assert_close(loss(gaps, smoothed(one, share), BETA), (1 - share) * right + share * wrong)
    robust = [loss(gaps, smoothed(t, share, unbiased=True), BETA) for t in (one, 1 - one)]
    torch.testing.assert_close(robust[0], ((1 - share) * right - share * wrong) / (1 - 2 * share))
    torch.testing.assert_close((1 - share) * robust[0] + share * robust[1], right)


def test_a_margin_has_to_be_won_by_whoever_was_better():
    found = dpo_loss(doubles(2.0, 2.0), doubles(1, 0), BETA, doubles(0.5, 0.5))
    assert found.tolist() == pytest.approx([-math.log(sigmoid(BETA * 2 - 0.5)), -math.log(sigmoid(-BETA * 2 - 0.5))])


def test_where_each_loss_is_content():
    """DPO never is, IPO at a gap of 1 / (2 beta), the hinge from 1 / beta on."""
    at, one = doubles(1 / (2 * BETA), 1 / BETA, 100.0), torch.ones(3, dtype=torch.float64)
    assert (dpo_loss(at, one, BETA) > 0).all()
    assert ipo_loss(at, one, BETA)[0] == 0 and (ipo_loss(at, one, BETA)[1:] > 0).all()
    assert hinge_loss(at, one, BETA)[0] > 0 and hinge_loss(at, one, BETA)[1:].tolist() == [0, 0]


def test_half_precision_is_widened():
    assert dpo_loss(torch.tensor([0.1], dtype=torch.bfloat16), torch.ones(1), BETA).dtype == torch.float32


# KTO


@pytest.mark.parametrize("point", [0.0, 1.7])
@pytest.mark.parametrize("up", [1.0, 0.0, 0.25])
def test_kto_values_gains_and_losses_around_the_reference_point(up, point):
    found = kto_loss(doubles(*GAPS), torch.full((5,), up, dtype=torch.float64), doubles(point), BETA)
    expected = [
        up * (1 - sigmoid(BETA * (gap - point))) + (1 - up) * (1 - sigmoid(BETA * (point - gap))) for gap in GAPS
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_reference_point_is_a_mean_never_below_zero_and_no_gradient_goes_through_it():
    ratios = doubles(1.0, -0.5, 2.0, requires_grad=True)
    assert reference_point(ratios).item() == pytest.approx(2.5 / 3)
    assert reference_point(-ratios).item() == 0
    assert not reference_point(ratios).requires_grad


# Implicit Q-learning


def test_an_expectile_weighs_what_was_underestimated():
    assert expectile_loss(doubles(2.0, -2.0, 0.0), 0.9).tolist() == pytest.approx([0.9 * 4, 0.1 * 4, 0])
    assert expectile_loss(doubles(2.0, -2.0), 0.5).tolist() == [2, 2]


def test_the_minimum_of_the_expectile_loss_lies_between_mean_and_maximum():
    seen, value = doubles(0.0, 1.0, 2.0), doubles(0.0, requires_grad=True)
    found = []
    for expectile in (0.5, 0.9, 0.999):
        optimizer = torch.optim.LBFGS([value], max_iter=100)

        def loss(expectile=expectile, optimizer=optimizer):
            optimizer.zero_grad()
            total = expectile_loss(seen - value, expectile).sum()
            total.backward()
            return total

        for _ in range(5):
            optimizer.step(loss)
        found.append(value.item())
    assert found[0] == pytest.approx(1.0, abs=1e-6) and found[0] < found[1] < found[2] < 2.0
    assert found[2] > 1.99


def test_targets_of_q_that_look_further_ahead():
    """With lam = 1 the values do not matter; in between, a target is made of the one that follows, back to front."""
    values, mask = doubles(1, 2, 3, 4).view(1, 4), torch.tensor([[True, True, True, False]])
    assert td_targets(doubles(10), values, mask, 0.5, 1.0).tolist() == [[2.5, 5, 10, 0]]
    second = 0.5 * (0.2 * 3 + 0.8 * 10)
    first = 0.5 * (0.2 * 2 + 0.8 * second)
    assert td_targets(doubles(10), values, mask, 0.5, 0.8)[0].tolist() == pytest.approx([first, second, 10, 0])


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_targets_of_q_are_the_value_that_follows_and_the_reward_at_the_last_token(gamma):
    values = doubles(*range(1, 9)).view(2, 4)
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    nan_outside = torch.where(mask, values, float("nan"))
    found = td_targets(doubles(10, 20), nan_outside, mask, gamma)
    assert found.tolist() == [[2 * gamma, 3 * gamma, 10, 0], [20, 0, 0, 0]]


def test_weights_of_advantages_are_exponential_and_bounded():
    found = advantage_weights(doubles(-1.0, 0.0, 1.0, 1e9), 0.5, 5.0)
    assert found.tolist() == pytest.approx([math.exp(-2), 1.0, 5.0, 5.0])
