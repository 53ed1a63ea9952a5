"""Where a score stops being worth climbing: what is really gained, against how far one went for the score.

A `Curve` holds a row for each prompt and a column for each amount of optimisation. Its mean over rows is the line that
one draws; redrawing rows, which are whole prompts, says how sure the line and its highest point are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .curves import best_of_n_kl, chances_of_best
from .intervals import Estimate, Floats, Interval, redraws, student_quantile


@dataclass(frozen=True, slots=True)
class Curve:
    """What each prompt got (prompts, points), and how far each point is from the start, in nats or what you like."""

    distance: Floats
    gain: Floats

    def __post_init__(self) -> None:
        assert self.gain.ndim == 2 and self.gain.shape[1:] == self.distance.shape
        assert len(self.gain) > 0 and np.isfinite(self.gain).all()

    def mean(self) -> Floats:
        return np.asarray(self.gain.mean(0))

    def points(self, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> list[Estimate]:
        """The line with its intervals, each for itself."""
        redrawn = _redrawn(self, draws, seed)
        return [_estimate(value, redrawn[:, i], len(self.gain), level) for i, value in enumerate(self.mean().tolist())]

    def smoothed(self, width: int) -> Curve:
        """Each point the mean of itself and the `width - 1` before it: what comes earlier is left out."""
        assert 1 <= width <= len(self.distance)
        window = np.lib.stride_tricks.sliding_window_view
        return Curve(window(self.distance, width).mean(-1), window(self.gain, width, axis=1).mean(-1))


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest point of a curve: its distance, and its height, which is a little flattered by being the highest.

    `turned` is the share of redraws whose highest point is not the last one: how sure it is that the curve turns down
    within what was measured.
    """

    distance: Estimate
    height: Estimate
    turned: float

    def to_json(self) -> dict[str, Any]:
        return {"distance": self.distance.to_json(), "height": self.height.to_json(), "turned": self.turned}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One curve less another over the same prompts: how much later and higher its peak is, and how its end differs."""

    later: Estimate
    higher: Estimate
    end: Estimate

    def to_json(self) -> dict[str, Any]:
        return {"later": self.later.to_json(), "higher": self.higher.to_json(), "end": self.end.to_json()}


def best_of_n_curve(proxy: ArrayLike, gold: ArrayLike, counts: Sequence[int]) -> Curve:
    """For each n of `counts`, the expected gold score of the sample that the proxy likes best among n.

    Rows are prompts, columns their samples. Unbiased, as `best_of_n_mean`: all subsets of n count, none is drawn.
    """
    by_proxy, score = np.atleast_2d(np.asarray(proxy, dtype=float)), np.atleast_2d(np.asarray(gold, dtype=float))
    assert by_proxy.shape == score.shape and all(1 <= n <= by_proxy.shape[1] for n in counts)
    expected = [(np.array(chances_of_best(by_proxy, n)) * score).sum(1) for n in counts]
    return Curve(np.array([best_of_n_kl(n) for n in counts]), np.stack(expected, axis=1))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Several curves over the same prompts and distances as one: what to expect of any one of them."""
    assert all(np.array_equal(each.distance, curves[0].distance) for each in curves)
    return Curve(curves[0].distance, np.mean([each.gain for each in curves], axis=0))


def peak(curve: Curve, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Peak:
    """The first of equally high points counts."""
    redrawn = _redrawn(curve, draws, seed)
    n, top, places = len(curve.gain), int(curve.mean().argmax()), redrawn.argmax(1)
    return Peak(
        _estimate(curve.distance[top], curve.distance[places], n, level),
        _estimate(curve.mean()[top], redrawn.max(1), n, level),
        float((places < len(curve.distance) - 1).mean()),
    )


def compare_curves(a: Curve, b: Curve, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Comparison:
    """A less B. Row i of both is the same prompt, and is redrawn in both at once."""
    assert len(a.gain) == len(b.gain), "the curves are over the same prompts"
    n, lines = len(a.gain), [_redrawn(each, draws, seed) for each in (a, b)]
    places = [each.distance[line.argmax(1)] for each, line in zip((a, b), lines, strict=True)]
    means = [each.mean() for each in (a, b)]
    tops = [each.distance[mean.argmax()] for each, mean in zip((a, b), means, strict=True)]
    return Comparison(
        _estimate(tops[0] - tops[1], places[0] - places[1], n, level),
        _estimate(means[0].max() - means[1].max(), lines[0].max(1) - lines[1].max(1), n, level),
        _estimate(means[0][-1] - means[1][-1], lines[0][:, -1] - lines[1][:, -1], n, level),
    )


def mean_over_runs(values: ArrayLike, level: float = 0.95) -> Estimate:
    """The mean of what independent runs gave, with Student's interval: it is wide for few runs, as it should be."""
    found = np.asarray(values, dtype=float)
    assert found.ndim == 1 and len(found) >= 2
    half = student_quantile(len(found) - 1, level) * found.std(ddof=1) / sqrt(len(found))
    return Estimate(float(found.mean()), (float(found.mean() - half), float(found.mean() + half)), len(found))


def _redrawn(curve: Curve, draws: int, seed: int) -> Floats:
    """(draws, points): the line with prompts redrawn. The same seed redraws the same prompts."""
    n = len(curve.gain)
    return np.concatenate([counts @ curve.gain / n for counts in redraws(np.random.default_rng(seed), n, draws)])


def _estimate(value: float, redrawn: Floats, n: int, level: float) -> Estimate:
    """With one prompt nothing is known of others."""
    low, high = np.quantile(redrawn, [0.5 - level / 2, 0.5 + level / 2]).tolist() if n > 1 else (-np.inf, np.inf)
    interval: Interval = (float(low), float(high))
    return Estimate(float(value), interval, n)


def over_seeds(each: Sequence[Mapping[str, Any]]) -> Estimate:
    """The mean of what seeds said, each a value and its interval. Student's interval, or what the seeds' own intervals
    make of the mean where that is wider: peaks lie on a grid, and three seeds that agree to the digit do not make the
    place certain."""
    student = mean_over_runs([one["value"] for one in each])
    within = hypot(*((one["ci"][1] - one["ci"][0]) / 2 for one in each)) / len(each)
    half = max(within, (student.ci[1] - student.ci[0]) / 2)
    return Estimate(student.value, (student.value - half, student.value + half), len(each))
