"""Is more labelling worth it? Accuracy of a reward model against the number of judgements it was trained on.

The model is trained several times on growing parts of what there is, always held to the same held-out judgements, and
`accuracy = limit - scale * n ^ -rate` is laid through the points. How sure that is comes from drawing held-out prompts
and training runs again, together: the points share their held-out set and are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..records import Judgement, digest
from ..stats.intervals import Interval
from ..stats.preference import judged_pairs, pair_accuracy

KIND = "learning"  # the name of these figures in the store
SHARES = (0.125, 0.25, 0.5, 1.0)
NEXT = 100  # judgements whose gain is predicted
WORTH = 0.002  # accuracy: a gain below this is not worth paying people for, whatever they cost
RATES = np.geomspace(0.1, 2.0, 40)
REDRAWS = 400

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One training: on how many judgements, and how many held-out pairs of each prompt it got right.

    Trainings on the same `share` of the prompts belong together, though their judgements may differ a little in number.
    """

    judgements: int
    seed: int
    share: float
    right: Floats
    pairs: Floats

    @property
    def accuracy(self) -> float:
        return float(self.right.sum() / self.pairs.sum())

    def to_json(self) -> dict[str, Any]:
        return {"judgements": self.judgements, "share": self.share, "seed": self.seed, "accuracy": self.accuracy}


@dataclass(frozen=True)
class Fit:
    limit: float
    scale: float
    rate: float

    def at(self, n: ArrayLike) -> Floats:
        found: Floats = self.limit - self.scale * np.asarray(n, dtype=float) ** -self.rate
        return found


@dataclass(frozen=True)
class Learning:
    """The curve, what the next judgements would add, and what follows from it."""

    points: tuple[Point, ...]
    fit: Fit
    now: float
    gain: float
    gain_ci: Interval
    heldout: int
    band: tuple[tuple[int, float, float, float], ...]  # judgements, fitted, low, high; the last is in the future
    cost: float | None  # of the next judgements, in hours
    worth_it: bool | None  # None: these data cannot tell
    message: str

    def to_json(self) -> dict[str, Any]:
        return {
            "points": [point.to_json() for point in self.points],
            "fit": {"limit": self.fit.limit, "scale": self.fit.scale, "rate": self.fit.rate},
            "accuracy": self.now,
            "heldout_pairs": self.heldout,
            "next": NEXT,
            "gain": self.gain,
            "gain_ci": list(self.gain_ci),
            "band": [list(row) for row in self.band],
            "hours": self.cost,
            "worth_it": self.worth_it,
            "message": self.message,
        }


def nested_parts(judgements: Sequence[Judgement], seed: int) -> dict[float, list[Judgement]]:
    """Growing parts of the training judgements by whole prompts, each inside the next; another seed, other parts."""
    train = [j for j in judgements if j.split == "train"]
    prompts = sorted({j.prompt.id for j in train}, key=lambda prompt: digest([seed, prompt]))
    place = {prompt: i for i, prompt in enumerate(prompts)}
    return {share: [j for j in train if place[j.prompt.id] < max(1, share * len(prompts))] for share in SHARES}


def measure(
    judgements: Sequence[Judgement], scores: Sequence[Sequence[float]], *, trained_on: int, share: float, seed: int
) -> Point:
    """A point of the curve from held-out judgements and their scores; ties have no right answer and are left out."""
    margins, targets, prompts = judged_pairs(judgements, scores)
    counted = targets != 0.5
    points = pair_accuracy(margins, np.zeros_like(margins), targets)[counted]
    _, cluster = np.unique(np.array(prompts)[counted], return_inverse=True)
    right, pairs = np.bincount(cluster, points), np.bincount(cluster)
    return Point(trained_on, seed, share, right.astype(np.float64), pairs.astype(np.float64))


def learning(points: Sequence[Point], *, seconds_each: float | None = None, seed: int = 0) -> Learning:
    """What a set of trainings says. `seconds_each` is how long a judgement takes a person, where that is known."""
    sizes = _sizes(points)
    most = int(sizes.max())
    assert len(np.unique(sizes)) >= 3, "a curve needs three sizes"
    grid = [*sorted({int(size) for size in sizes}), most + NEXT]
    fit = fit_power_law(sizes, [point.accuracy for point in points])
    curves = _redrawn(points, sizes, grid, seed)
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    gains = curves[:, -1] - curves[:, -2]
    gain_ci = (float(np.quantile(gains, 0.025)), float(np.quantile(gains, 0.975)))
    fitted = fit.at(grid)
    cost = None if seconds_each is None else NEXT * seconds_each / 3600
    worth_it, message = _verdict(float(fitted[-1] - fitted[-2]), gain_ci, cost)
    return Learning(
        tuple(points),
        fit,
        now=float(np.mean([point.accuracy for point, size in zip(points, sizes, strict=True) if size == most])),
        gain=float(fitted[-1] - fitted[-2]),
        gain_ci=gain_ci,
        heldout=int(points[0].pairs.sum()),
        band=tuple((n, float(a), float(b), float(c)) for n, a, b, c in zip(grid, fitted, low, high, strict=True)),
        cost=cost,
        worth_it=worth_it,
        message=message,
    )


def _sizes(points: Sequence[Point]) -> Floats:
    """For each training the mean number of judgements at its share."""
    counts: dict[float, list[int]] = {}
    for point in points:
        counts.setdefault(point.share, []).append(point.judgements)
    return np.array([float(round(np.mean(counts[point.share]))) for point in points])


def fit_power_law(n: ArrayLike, accuracy: ArrayLike) -> Fit:
    """Least squares; the curve may not fall and may not pass 1."""
    limit, scale, rate = _fits(np.asarray(n, dtype=float), np.asarray(accuracy, dtype=float)[None])
    return Fit(float(limit[0]), float(scale[0]), float(rate[0]))


def _fits(n: Floats, accuracy: Floats) -> tuple[Floats, Floats, Floats]:
    """Limit, scale and rate for each row of `accuracy`: over a grid of rates the other two are linear."""
    mean = accuracy.mean(axis=1)
    best = (mean, np.zeros_like(mean), np.ones_like(mean))
    error = ((accuracy - mean[:, None]) ** 2).sum(axis=1)
    for rate in RATES:
        z = n**-rate
        limit, scale = _lines(z, accuracy)
        found = ((limit[:, None] - scale[:, None] * z - accuracy) ** 2).sum(axis=1)
        better = found < error - 1e-15
        best = tuple(np.where(better, new, old) for new, old in zip((limit, scale, rate), best, strict=True))
        error = np.where(better, found, error)
    return best


def _lines(z: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Limit and scale of y = limit - scale z for each row, with scale >= 0 and limit <= 1."""
    spread = z - z.mean()
    scale = np.maximum(0.0, -(y @ spread) / (spread @ spread))
    limit = y.mean(axis=1) + scale * z.mean()
    held = np.maximum(0.0, ((1 - y) @ z) / (z @ z))
    return np.minimum(limit, 1.0), np.where(limit > 1, held, scale)


def _redrawn(points: Sequence[Point], sizes: Floats, grid: Sequence[int], seed: int) -> Floats:
    """The fitted curve at `grid` for held-out prompts and training runs drawn again, a row each."""
    chance = np.random.default_rng(seed)
    right, pairs = np.array([point.right for point in points]), np.array([point.pairs for point in points])
    groups = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    rows = []
    for _ in range(REDRAWS):
        prompts = chance.integers(0, right.shape[1], right.shape[1])
        runs = np.concatenate([chance.choice(group, len(group)) for group in groups])
        rows.append(right[runs][:, prompts].sum(axis=1) / pairs[runs][:, prompts].sum(axis=1))
    limit, scale, rate = (column[:, None] for column in _fits(np.sort(sizes), np.array(rows)))
    curves: Floats = limit - scale * np.asarray(grid, dtype=float) ** -rate
    return curves


def _time(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} minutes"


def _verdict(gain: float, ci: Interval, hours: float | None) -> tuple[bool | None, str]:
    price = "" if hours is None else f" for about {_time(hours)} of judging"
    said = (
        f"the next {NEXT} judgements are predicted to add {100 * gain:.2f} points of accuracy "
        f"(95% interval {100 * ci[0]:.2f} to {100 * ci[1]:.2f}){price}"
    )
    if ci[1] < WORTH:
        return False, f"More of the same is not worth it: {said}."
    if ci[0] > WORTH:
        return True, f"More labelling is worth it: {said}."
    return None, f"These data cannot tell whether more labelling is worth it: {said}."
