"""Losses against the papers' formulas as Python loops, and gradients against what they must be."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.algo import language_model_loss, policy_loss, preference_loss, ranking_loss, value_loss

NAN = float("nan")
small = st.floats(-1.5, 1.5, width=32)
tokens = st.lists(st.tuples(small, small, small, st.booleans()), min_size=1, max_size=12)


def row(values: list[float]) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def everywhere(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def loop_policy_objective(ratio: float, advantage: float, low: float, high: float) -> float:
    """min(r A, clip(r, 1 - low, 1 + high) A), equation 7 of the PPO paper: to be maximised."""
    bounded = 1 - low if ratio < 1 - low else 1 + high if ratio > 1 + high else ratio
    return min(ratio * advantage, bounded * advantage)


@settings(max_examples=80, deadline=None)
@given(tokens, st.sampled_from([(0.2, 0.2), (0.2, 0.28), (0.1, 0.5)]))
def test_policy_loss_equals_the_printed_objective(
    rows: list[tuple[float, float, float, bool]], clip: tuple[float, float]
) -> None:
    logp, old, advantages = (row([r[i] if r[3] else NAN for r in rows]) for i in range(3))
    mask = torch.tensor([[r[3] for r in rows]])
    expected = -math.fsum(loop_policy_objective(math.exp(p - q), a, *clip) for p, q, a, real in rows if real)
    loss, _ = policy_loss(logp, old, advantages, mask, *clip)
    assert loss.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("ratio", "advantage", "learns"),
    [
        (1.19, 2.0, True),
        (1.21, 2.0, False),  # already likelier than the clip allows: no reason to push on
        (0.81, -2.0, True),
        (0.79, -2.0, False),
        (0.5, 2.0, True),  # too unlikely although good: the clip must not stop the way back
        (1.5, -2.0, True),  # too likely although bad
    ],
)
def test_the_gradient_is_zero_only_beyond_the_clip_in_the_direction_of_gain(
    ratio: float, advantage: float, learns: bool
) -> None:
    logp = row([math.log(ratio)]).requires_grad_()
    loss, diagnostics = policy_loss(logp, row([0.0]), row([advantage]), torch.tensor([[True]]), 0.2, 0.2)
    loss.backward()
    assert logp.grad is not None
    assert logp.grad.item() == pytest.approx(-advantage * ratio if learns else 0.0)
    assert diagnostics["clip_fraction"].item() == (not learns)


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_bounds_stand_at_one_plus_high_and_one_minus_low(low: float, high: float, sign: float) -> None:
    """The loss follows the ratio up to the bound and is flat after it, for both signs of the advantage."""
    bound = 1 + high if sign > 0 else 1 - low
    for step, flat in ((-1e-3, False), (1e-3, True)):
        ratio = bound + sign * step
        loss, diagnostics = policy_loss(
            row([math.log(ratio)]), row([0.0]), row([sign]), torch.tensor([[True]]), low, high
        )
        assert loss.item() == pytest.approx(-sign * (bound if flat else ratio), abs=1e-12)
        assert bool(diagnostics["clip_fraction"]) is flat


def test_at_ratio_one_the_gradient_is_the_plain_policy_gradient() -> None:
    logp, advantages = row([-1.0, -2.0, -0.3]).requires_grad_(), row([0.5, -1.0, 2.0])
    loss, diagnostics = policy_loss(logp, logp.detach(), advantages, everywhere(advantages))
    loss.backward()
    torch.testing.assert_close(logp.grad, -advantages)
    assert diagnostics["ratio_gap"].item() == 0 and diagnostics["approx_kl"].item() == 0
    assert diagnostics["ratio_max"].item() == diagnostics["ratio_mean"].item() == 1


def test_policy_diagnostics_by_hand() -> None:
    """Ratios 1.5, 0.5, 1 count; the fourth, 100, is padding."""
    ratios, advantages = [1.5, 0.5, 1.0, 100.0], row([1.0, 1.0, 1.0, 1.0])
    mask = torch.tensor([[True, True, True, False]])
    _, got = policy_loss(row([math.log(r) for r in ratios]), row([0.0] * 4), advantages, mask)
    expected_kl = math.fsum(r - 1 - math.log(r) for r in ratios[:3]) / 3
    expected = {"tokens": 3, "clip_fraction": 1 / 3, "approx_kl": expected_kl, "ratio_mean": 1.0}
    expected |= {"ratio_max": 1.5, "ratio_gap": 0.5}
    assert {name: value.item() for name, value in got.items()} == pytest.approx(expected)


def test_approximate_kl_is_of_the_old_policy_against_the_new() -> None:
    """Tokens come from the old policy, so its probabilities weigh the sum: 100 tokens in its proportions."""
    old, new = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]
    drawn = [0] * 50 + [1] * 30 + [2] * 20
    logp, old_logp = (row([math.log(p[v]) for v in drawn]) for p in (new, old))
    _, got = policy_loss(logp, old_logp, torch.zeros_like(logp), everywhere(logp))
    exact = math.fsum(p * math.log(p / q) for p, q in zip(old, new, strict=True))
    assert got["approx_kl"].item() == pytest.approx(exact)


def test_one_outlier_is_large_but_finite() -> None:
    logp = row([-1.0, 500.0]).requires_grad_()
    loss, diagnostics = policy_loss(logp, row([-1.0, -500.0]), row([1.0, -1.0]), torch.tensor([[True, True]]))
    loss.backward()
    assert loss.isfinite() and logp.grad is not None and logp.grad.isfinite().all()
    assert all(value.isfinite() for value in diagnostics.values())


def test_nan_in_the_padding_reaches_neither_loss_nor_gradient() -> None:
    mask, filled = torch.tensor([[True, False]]), row([0.1, NAN])
    x = row([0.2, NAN]).requires_grad_()
    for loss in (
        policy_loss(x, filled, filled, mask)[0],
        value_loss(x, filled, filled, mask, clip=0.2),
        value_loss(x, filled, filled, mask, clip=0.0),
        language_model_loss(x, mask),
    ):
        (grad,) = torch.autograd.grad(loss, x)
        assert loss.isfinite() and grad[0, 0] != 0 and grad[0, 1] == 0


def test_bfloat16_inputs_give_float32_losses() -> None:
    x = torch.tensor([[0.5, 1.0]], dtype=torch.bfloat16)
    mask = everywhere(x)
    losses = [policy_loss(x, x, x, mask)[0], value_loss(x, x, x, mask), language_model_loss(x, mask)]
    losses += [preference_loss(x, x, 1.0), ranking_loss(x[0], [(0, 1, 1.0)])]
    assert {loss.dtype for loss in losses} == {torch.float32}


def test_shapes_that_would_broadcast_are_refused() -> None:
    x, column = torch.zeros(2, 3), torch.zeros(2, 1)
    with pytest.raises(AssertionError):
        policy_loss(x, x, column, everywhere(x))
    with pytest.raises(AssertionError):
        value_loss(x, x, column, everywhere(x))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=8, max_size=8), st.integers(0, 1000))
def test_eight_micro_batches_of_one_give_the_gradient_of_one_of_eight(lengths: list[int], seed: int) -> None:
    """Sums over a global token count: rows of any length weigh their tokens, however they are split."""
    generator = torch.Generator().manual_seed(seed)
    x, old, advantages, returns = (torch.randn(8, 6, generator=generator, dtype=torch.float64) for _ in range(4))
    mask = torch.arange(6) < torch.tensor(lengths).unsqueeze(1)
    count = sum(lengths)

    def gradient(splits: list[slice]) -> torch.Tensor:
        parameter = torch.tensor([0.7, -0.2], dtype=torch.float64, requires_grad=True)
        for part in splits:
            logp = parameter[0] * x[part] + parameter[1]
            policy, _ = policy_loss(logp, old[part], advantages[part], mask[part])
            value = value_loss(logp, old[part], returns[part], mask[part])
            ((policy + 0.1 * value + language_model_loss(logp, mask[part])) / count).backward()
        assert parameter.grad is not None
        return parameter.grad

    torch.testing.assert_close(gradient([slice(i, i + 1) for i in range(8)]), gradient([slice(0, 8)]))


@settings(max_examples=80, deadline=None)
@given(tokens, st.sampled_from([0.0, 0.2, 0.5]))
def test_value_loss_equals_the_papers_formula(rows: list[tuple[float, float, float, bool]], clip: float) -> None:
    def one(value: float, old: float, target: float) -> float:
        near = min(max(value, old - clip), old + clip)
        return 0.5 * (max((value - target) ** 2, (near - target) ** 2) if clip else (value - target) ** 2)

    values, old, returns = (row([r[i] if r[3] else NAN for r in rows]) for i in range(3))
    loss = value_loss(values, old, returns, torch.tensor([[r[3] for r in rows]]), clip)
    assert loss.item() == pytest.approx(math.fsum(one(*r[:3]) for r in rows if r[3]), abs=1e-9)


@pytest.mark.parametrize(
    ("value", "target", "gradient"),
    [
        (0.1, 1.0, -0.9),  # inside the range: plain regression
        (0.5, 1.0, 0.0),  # moved 0.5 towards the target already: stop
        (0.5, -1.0, 1.5),  # moved away from the target: come back
        (-0.5, -1.0, 0.0),
        (-0.5, 1.0, -1.5),
    ],
)
def test_value_gradient_stops_beyond_the_clip_only_towards_the_target(
    value: float, target: float, gradient: float
) -> None:
    values = row([value]).requires_grad_()
    value_loss(values, row([0.0]), row([target]), torch.tensor([[True]]), clip=0.2).backward()
    assert values.grad is not None and values.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize("target", [1.0, 0.0, 0.5, 0.7])
@pytest.mark.parametrize("difference", [-3.0, 0.0, 0.4, 5.0])
def test_preference_loss_equals_bradley_terry(difference: float, target: float) -> None:
    score = torch.tensor([difference + 1], dtype=torch.float64, requires_grad=True)
    loss = preference_loss(score, torch.ones(1, dtype=torch.float64), target)
    better = math.exp(score.item()) / (math.exp(score.item()) + math.e)  # p(i beats j) from the two strengths
    assert loss.item() == pytest.approx(-target * math.log(better) - (1 - target) * math.log(1 - better))
    loss.sum().backward()
    assert score.grad is not None and score.grad.item() == pytest.approx(better - target)


def test_preference_loss_of_a_hopeless_mistake_is_linear_not_infinite() -> None:
    assert preference_loss(torch.tensor([-500.0]), torch.tensor([500.0]), 1.0).item() == 1000.0
    assert preference_loss(torch.tensor([500.0]), torch.tensor([-500.0]), 1.0).item() == 0.0


def test_a_tie_pulls_scores_together_and_a_constant_model_pays_log_two() -> None:
    assert preference_loss(torch.zeros(3), torch.zeros(3), torch.tensor([1.0, 0.0, 0.5])).tolist() == pytest.approx(
        [math.log(2)] * 3
    )
    score = torch.tensor([1.0], requires_grad=True)
    preference_loss(score, torch.zeros(1), 0.5).backward()
    assert score.grad is not None and score.grad.item() > 0  # descent lowers the higher one


def test_a_prompt_weighs_one_whatever_its_number_of_pairs() -> None:
    scores = torch.tensor([2.0, -1.0, 0.5, 0.0], dtype=torch.float64)
    pairs = [(i, j, 1.0 if i < j - 1 else 0.3) for i in range(4) for j in range(i + 1, 4)]
    hand = [
        -t * math.log(1 / (1 + math.exp(b - a))) - (1 - t) * math.log(1 / (1 + math.exp(a - b)))
        for a, b, t in ((scores[i].item(), scores[j].item(), t) for i, j, t in pairs)
    ]
    assert ranking_loss(scores, pairs).item() == pytest.approx(sum(hand) / 6)
    assert ranking_loss(scores, pairs * 3).item() == pytest.approx(sum(hand) / 6)


def test_ranking_loss_pushes_the_better_score_up() -> None:
    scores = torch.zeros(3, requires_grad=True)
    ranking_loss(scores, [(0, 1, 1.0), (0, 2, 1.0), (1, 2, 1.0)]).backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([-1 / 3, 0, 1 / 3])


def test_a_ranking_without_pairs_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        ranking_loss(torch.zeros(2), [])


def test_language_model_loss_is_the_weighted_sum() -> None:
    logp = row([-1.0, -2.0, -4.0, -math.inf])
    assert language_model_loss(logp, torch.tensor([[True, False, True, False]])).item() == 5.0
    assert language_model_loss(logp, row([0.5, 1.0, 2.0, 0.0])).item() == 10.5
