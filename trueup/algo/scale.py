"""Mean and standard deviation of numbers as a scale to divide by, at any size that a float can have."""

from __future__ import annotations

import math

import torch

NOISE = 1e-12  # a spread that is a smaller part of the numbers than this is what rounding leaves of none


def mean_and_spread(values: torch.Tensor) -> tuple[float, float]:
    """The spread is 0 where nothing but rounding keeps the values apart. Neither squares too large nor too small."""
    largest = float(values.abs().max())
    if largest == 0 or not math.isfinite(largest):
        return (0.0, 0.0) if largest == 0 else (math.nan, math.nan)
    share = values.double() / largest
    spread = float(share.std(correction=0))
    return float(share.mean()) * largest, 0.0 if spread <= max(NOISE, _rounding(values)) else spread * largest


def mean_and_std(values: torch.Tensor) -> tuple[float, float]:
    """Of equal values the std is taken as 1: they have no scale, and dividing by nearly nothing would invent one."""
    mean, spread = mean_and_spread(values)
    return mean, spread or 1.0


def joined(a: tuple[float, float, int], b: tuple[float, float, int]) -> tuple[float, float, int]:
    """Mean, spread and number of two sets as one, from those of each (Chan et al.)."""
    (mean_a, spread_a, n), (mean_b, spread_b, k) = a, b
    share = k / (n + k)
    root = math.sqrt(share * (1 - share))
    apart = mean_b * root - mean_a * root
    spread = math.hypot(spread_a * math.sqrt(1 - share), spread_b * math.sqrt(share), apart)
    mean = mean_a * (1 - share) + mean_b * share
    return mean, 0.0 if spread <= NOISE * abs(mean) else spread, n + k


def _rounding(values: torch.Tensor) -> float:
    return torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0
