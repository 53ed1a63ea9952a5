"""Reductions over tokens, against plain Python loops in float64."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.algo import last_true, masked_mean, masked_sum, masked_var, whiten, zero_outside

masks = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=5)
)


def garbage_outside(mask: torch.Tensor, seed: int = 0, mean: float = 3.0) -> torch.Tensor:
    x = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed)) + mean
    return torch.where(mask, x, torch.tensor(float("nan")))


def inside(x: torch.Tensor, mask: torch.Tensor) -> list[float]:
    return [v for row, keep in zip(x.tolist(), mask.tolist(), strict=True) for v, k in zip(row, keep, strict=True) if k]


@settings(max_examples=50, deadline=None)
@given(masks)
def test_reductions_equal_loops_and_ignore_nan_outside(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows)
    x = garbage_outside(mask)
    kept = inside(x, mask)
    assert math.isclose(masked_sum(x, mask).item(), math.fsum(kept), rel_tol=1e-5)
    if kept:
        assert math.isclose(masked_mean(x, mask).item(), statistics.fmean(kept), rel_tol=1e-5)
        assert math.isclose(masked_var(x, mask).item(), statistics.pvariance(kept), rel_tol=1e-4, abs_tol=1e-9)


def test_the_mean_of_nothing_shows() -> None:
    assert masked_mean(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)).isnan()


def test_half_precision_is_summed_in_float32() -> None:
    ones = torch.ones(1, 3001, dtype=torch.bfloat16)
    total = masked_sum(ones, torch.ones(1, 3001, dtype=torch.bool))
    assert total.dtype == torch.float32
    assert total.item() == 3001  # bfloat16 has no 3001


def test_a_mask_of_another_type_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="bool"):
        zero_outside(torch.ones(2), torch.ones(2))


@settings(max_examples=50, deadline=None)
@given(masks, st.floats(-1e4, 1e4), st.integers(0, 100))
def test_whiten_has_mean_zero_std_one_and_zeros_outside(rows: list[list[bool]], mean: float, seed: int) -> None:
    mask = torch.tensor(rows)
    white = whiten(garbage_outside(mask, seed, mean), mask)
    assert (white[~mask] == 0).all()
    kept = inside(white, mask)
    if len(kept) >= 2:
        assert abs(statistics.fmean(kept)) < 1e-5
        assert math.isclose(statistics.pstdev(kept), 1, abs_tol=1e-3)


def test_whiten_keeps_order_and_shape() -> None:
    white = whiten(torch.tensor([[1.0, 2.0, 99.0], [3.0, 6.0, 99.0]]), torch.tensor([[True, True, False]] * 2))
    # 1, 2, 3, 6: mean 3, population variance (4 + 1 + 0 + 9) / 4 = 3.5
    expected = [[-2 / 3.5**0.5, -1 / 3.5**0.5, 0], [0, 3 / 3.5**0.5, 0]]
    torch.testing.assert_close(white, torch.tensor(expected), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("values", [[5.0], [1000.1] * 7, [-0.3] * 3])
def test_whiten_of_one_element_or_equal_values_is_zero(values: list[float]) -> None:
    x = torch.tensor([values])
    assert whiten(x, torch.ones_like(x, dtype=torch.bool)).abs().max() < 1e-3


def test_whiten_of_an_empty_mask_is_zero() -> None:
    assert (whiten(torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)) == 0).all()


def test_whiten_does_not_see_padding() -> None:
    """More padding, on either side, changes nothing: padded whitening would depend on how rows are batched."""
    x, mask = torch.randn(3, 4), torch.ones(3, 4, dtype=torch.bool)
    pad, out = torch.full((3, 2), 7.0), torch.zeros(3, 2, dtype=torch.bool)
    plain = whiten(x, mask)
    right = whiten(torch.cat([x, pad], 1), torch.cat([mask, out], 1))[:, :4]
    left = whiten(torch.cat([pad, x], 1), torch.cat([out, mask], 1))[:, 2:]
    torch.testing.assert_close(right, plain)
    torch.testing.assert_close(left, plain)


@settings(max_examples=50, deadline=None)
@given(masks)
def test_last_true_equals_a_scan(rows: list[list[bool]]) -> None:
    rows = [row for row in rows if any(row)]
    if rows:
        assert last_true(torch.tensor(rows)).tolist() == [max(i for i, real in enumerate(row) if real) for row in rows]


def test_last_true_for_both_padding_sides() -> None:
    mask = torch.tensor([[True, True, False, False], [False, False, True, True], [False, True, True, False]])
    assert last_true(mask).tolist() == [1, 3, 2]


def test_a_row_without_real_tokens_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        last_true(torch.tensor([[True, False], [False, False]]))
