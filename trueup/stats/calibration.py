"""Does a probability of 0.8 come true eight times in ten? Scores of predictions, and how far luck alone takes them.

The expected calibration error is biased upwards: a perfect predictor shows 0.12 on a hundred rows. So it never stands
alone here: `null` draws outcomes from the predictions themselves, and says what a perfect predictor would have shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import Floats, Interval, wilson

BINS = 15
DRAWS = 500
_WIDEST = 1e4  # of a temperature, as a multiple of the mean margin: beyond it there is no best one

Ints = NDArray[np.int64]
Draw = Callable[[np.random.Generator], Floats]


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows whose predictions are alike: what was predicted on average, and how often it came true."""

    low: float
    high: float
    n: int
    predicted: float
    seen: float
    ci: Interval

    def to_json(self) -> dict[str, Any]:
        return {
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "predicted": self.predicted,
            "seen": self.seen,
            "ci": list(self.ci),
        }


@dataclass(frozen=True, slots=True)
class Null:
    """What a perfectly calibrated predictor shows with the same predictions: 19 times in 20 at most `high`."""

    mean: float
    high: float
    bands: tuple[Interval, ...]  # of each filled bin: where `seen` lies 19 times in 20

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "high": self.high}


def sigmoid(margins: ArrayLike) -> Floats:
    margin = np.asarray(margins, dtype=float)
    small = np.exp(-np.abs(margin))
    chance: Floats = np.where(margin >= 0, 1 / (1 + small), small / (1 + small))
    return chance


def nll(margins: ArrayLike, targets: ArrayLike) -> float:
    """Mean cross-entropy, in nats, of targets (0, 1 or between) under sigmoid(margin). A coin has ln 2."""
    margin, target = _rows(margins, targets)
    return float((np.logaddexp(0.0, margin) - target * margin).mean())


def brier(p: ArrayLike, y: ArrayLike) -> float:
    """Mean squared distance of predictions from outcomes. A coin has 1/4."""
    chance, outcome = _rows(p, y)
    return float(((chance - outcome) ** 2).mean())


def ece(p: ArrayLike, y: ArrayLike, *, bins: int = BINS, low: float = 0.0, mass: bool = False) -> float:
    """Mean over the rows of |predicted - seen| of their bin. Bins cut [low, 1] evenly, or with `mass` the rows."""
    chance, outcome = _rows(p, y)
    return float(np.abs(_sums(places(chance, bins, low, mass), outcome - chance)).sum() / len(chance))


def reliability(p: ArrayLike, y: ArrayLike, *, bins: int = BINS, low: float = 0.0, mass: bool = False) -> list[Bin]:
    """The filled bins, each with Wilson's interval of how often its predictions came true."""
    chance, outcome = _rows(p, y)
    place = places(chance, bins, low, mass)
    found = []
    for number in np.unique(place).tolist():
        here = place == number
        n, seen = int(here.sum()), float(outcome[here].sum())
        edges = (low + (1 - low) * number / bins, low + (1 - low) * (number + 1) / bins)
        if mass:
            edges = (float(chance[here].min()), float(chance[here].max()))
        found.append(Bin(*edges, n, float(chance[here].mean()), seen / n, wilson(seen, n)))
    return found


def null(
    p: ArrayLike,
    *,
    bins: int = BINS,
    low: float = 0.0,
    mass: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
    draw: Draw | None = None,
) -> Null:
    """Outcomes drawn anew from the predictions, `draws` times: the error that luck alone makes.

    `draw` makes one set of outcomes where rows are not independent, such as the pairs of one ranking.
    """
    chance = np.asarray(p, dtype=float)
    place = places(chance, bins, low, mass)
    sizes = np.maximum(np.bincount(place), 1)
    predicted = np.bincount(place, chance) / sizes
    random = np.random.default_rng(seed)
    one = draw or (lambda random: (random.random(len(chance)) < chance).astype(float))
    apart = np.stack([_sums(place, one(random) - chance) for _ in range(draws)])
    errors = np.abs(apart).sum(1) / len(chance)
    lows, highs = np.quantile(apart / sizes, [0.025, 0.975], axis=0) + predicted
    bands = tuple((float(lows[b]), float(highs[b])) for b in np.unique(place).tolist())
    return Null(float(errors.mean()), float(np.quantile(errors, 0.95)), bands)


def places(p: Floats, bins: int = BINS, low: float = 0.0, mass: bool = False) -> Ints:
    """The bin of each row. Equal predictions share a bin, also where bins are to hold equally many rows."""
    assert len(p) and bins >= 1 and ((p >= low) & (p <= 1)).all()
    if mass:
        edges = np.quantile(p, np.arange(1, bins) / bins)
        return np.searchsorted(edges, p, side="left").astype(np.int64)
    return np.minimum((p - low) / (1 - low) * bins, bins - 1).astype(np.int64)


def fit_temperature(margins: ArrayLike, targets: ArrayLike) -> float:
    """The T that makes sigmoid(margin / T) likeliest: above 1 margins were too confident, below 1 too timid.

    Where no T is best (margins without relation to the targets, or without a single mistake) it is at the end of a
    range of four powers of ten around the mean margin.
    """
    margin, target = _rows(margins, targets)
    size = float(np.abs(margin).mean())
    if size == 0:
        return 1.0
    low, high = 1 / (_WIDEST * size), _WIDEST / size  # of the slope 1 / T, in which the loss is convex

    def pull(slope: float) -> float:
        return float((margin * (sigmoid(slope * margin) - target)).sum())

    if pull(low) >= 0:
        return 1 / low
    if pull(high) <= 0:
        return 1 / high
    slope = min(max(1.0, low), high)
    for _ in range(200):
        chance = sigmoid(slope * margin)
        gradient = float((margin * (chance - target)).sum())
        low, high = (low, slope) if gradient > 0 else (slope, high)
        bend = float((margin**2 * chance * (1 - chance)).sum())
        newton = slope - gradient / bend if bend > 0 else math.inf
        after = newton if low < newton < high else math.sqrt(low * high)
        if abs(after - slope) <= 1e-12 * slope:
            break
        slope = after
    return 1 / slope


def _sums(place: Ints, values: Floats) -> Floats:
    return np.bincount(place, values).astype(np.float64)


def _rows(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    one, other = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    assert one.shape == other.shape and one.ndim == 1 and len(one)
    assert np.isfinite(one).all() and ((other >= 0) & (other <= 1)).all()
    return one, other
