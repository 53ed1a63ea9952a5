"""Was the score worth climbing? What others than the score itself say, against how far one went for it.

Rows are evaluations of a run, or sizes of a best-of-n; columns prompts. The distance is the root of the mean KL, gains
are against the first row, and every interval redraws whole prompts. The laws are those of Gao, Schulman and Hilton
(arXiv 2210.10760): gain = d (a - b ln d) at the distance d for reinforcement learning, d (a - b d) for best-of-n.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ..stats.curves import BestOfNFit, RlFit, best_of_n_kl, chances_of_best, fit_best_of_n, fit_rl
from ..stats.intervals import Floats, redraws

PROXY = "proxy"  # the score that was trained on
DRAWS = 500
CHANCE = 0.05  # below it a fall is called one
LEAST = 4  # evaluations away from the start, below which no law is fitted


Way = Literal["rl", "best-of-n"]
_FIT: dict[Way, Callable[[Floats, Floats], BestOfNFit | RlFit]] = {"rl": fit_rl, "best-of-n": fit_best_of_n}


def best_of_n(scores_pn: Mapping[str, Floats]) -> tuple[list[int], Floats, dict[str, Floats]]:
    """From the scores of N completions a prompt: sizes n, KL and expected scores of the best of n by the proxy, as
    `overopt` takes them. Every subset of n counts, so nothing is drawn; each n is a power of two, and N."""
    proxy = scores_pn[PROXY]
    prompts, most = proxy.shape
    sizes = [*(2**k for k in range(most.bit_length()) if 2**k < most), most]
    chances = [np.array(chances_of_best(proxy, n)) for n in sizes]
    found = {name: np.array([(each * score).sum(1) for each in chances]) for name, score in scores_pn.items()}
    return sizes, np.array([[best_of_n_kl(n)] * prompts for n in sizes]), found


def overopt(
    steps: Sequence[int],
    kl_ep: Floats,
    scores: Mapping[str, Floats],
    *,
    way: Way = "rl",
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Of the proxy and of every judge: the curve, its highest point, and the law. `scores` are (evaluations, prompts).

    `judge` is who decides what to ship: the first one who is not the proxy. A judge may know some evaluations and
    prompts only (people do): the others are NaN, and their curve stands on what they know of whole prompts.
    """
    n = kl_ep.shape[1]
    assert PROXY in scores and all(each.shape == kl_ep.shape == (len(steps), n) for each in scores.values())
    distance = _root(kl_ep.mean(1))
    found = {name: _known_curve(distance, each, kl_ep, level, way, seed) for name, each in scores.items()}
    judges = [name for name in scores if name != PROXY]
    return {
        "n": n,
        "way": way,
        "steps": list(steps),
        "distance": distance.tolist(),
        "curves": found,
        "judge": judges[0] if judges else PROXY,
        "ship": _ship(list(steps), found, judges),
    }


def _known_curve(
    distance: Floats, score_ep: Floats, kl_ep: Floats, level: float, way: Way, seed: int
) -> dict[str, Any]:
    """The curve over the evaluations that were judged, of prompts on which all of these were."""
    places = np.flatnonzero(~np.isnan(score_ep).all(1))
    whole = np.flatnonzero(~np.isnan(score_ep[places]).any(0))
    n, rows = len(whole), np.ix_(places, whole)
    assert n and len(places) > 1 and places[0] == 0, "a curve has a start, and somebody knows it"
    counts = np.concatenate([*redraws(np.random.default_rng(seed), n, DRAWS)]) / n  # (draws, prompts)
    partly = n < score_ep.shape[1] or len(places) < len(distance)
    found = _curve(distance[places], score_ep[rows], kl_ep[rows], counts, level, way)
    return found | {"places": places.tolist(), "n": n} | ({"law": None} if partly else {})


def _curve(distance: Floats, score_ep: Floats, kl_ep: Floats, counts: Floats, level: float, way: Way) -> dict[str, Any]:
    drawn = counts @ score_ep.T  # (draws, evaluations)
    gained = drawn - drawn[:, :1]
    mean = score_ep.mean(1)
    places, top = drawn.argmax(1), int(mean.argmax())
    low, high = _ends(drawn, level)
    return {
        "mean": mean.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "gain": {"value": float(mean[-1] - mean[0]), "ci": [float(end[-1]) for end in _ends(gained, level)]},
        "peak": {"place": top, "value": float(mean[top])},
        "fallen": _fallen(mean, drawn),
        "turned": float((places < len(mean) - 1).mean()),
        "law": _law(distance, mean - mean[0], kl_ep, gained, counts, level, way),
    }


def _fallen(mean: Floats, drawn: Floats) -> dict[str, float]:
    """How far the end is below the highest point, and how often chance alone would look so.

    The highest of many evaluations is above the last one even if all are the same. So the redraws are centred, which
    makes them the same, and the highest of each is held against its last.
    """
    height = float(mean.max() - mean[-1])
    apart = drawn - mean
    by_chance = apart.max(1) - apart[:, -1]
    return {"value": -height, "chance": (1 + int((by_chance >= height).sum())) / (1 + len(drawn))}


def _law(
    distance: Floats, gain: Floats, kl_ep: Floats, gained: Floats, counts: Floats, level: float, way: Way
) -> dict[str, Any] | None:
    """a and b of the law, and where it is highest: None where it never turns, or too little is known."""
    if (distance > 0).sum() < LEAST or len(np.unique(distance[distance > 0])) < LEAST:
        return None
    fit = _FIT[way](distance, gain)
    fits = [_FIT[way](_root(kl_ep @ count), each) for count, each in zip(counts, gained, strict=True)]
    ends = {name: _ends(np.array([getattr(one, name) for one in fits]), level) for name in ("a", "b")}
    peaks = np.array([np.inf if one.peak is None else one.peak for one in fits])
    return {
        "a": {"value": fit.a, "ci": [float(end) for end in ends["a"]]},
        "b": {"value": fit.b, "ci": [float(end) for end in ends["b"]]},
        "residual": fit.residual,
        "peak": fit.peak,
        "peak_ci": [float(end) if np.isfinite(end) else None for end in _ends(peaks, level, method="lower")],
    }


def _ship(steps: list[int], found: Mapping[str, Any], judges: Sequence[str]) -> dict[str, Any]:
    """The evaluation that the judge likes best; and whether the proxy would have gone on beyond it."""
    judge = judges[0] if judges else PROXY
    about = found[judge]
    best, last = about["places"][about["peak"]["place"]], about["places"][-1]
    fell = about["fallen"]["chance"] < CHANCE
    rose = found[PROXY]["mean"][last] > found[PROXY]["mean"][best]
    return {"step": steps[best], "last": steps[last], "fell": bool(fell), "gamed": bool(judges and fell and rose)}


def _root(kl: Floats) -> Floats:
    """A KL that was estimated below 0 counts as 0."""
    return np.sqrt(np.maximum(kl, 0.0))


def _ends(drawn: Floats, level: float, method: Any = "linear") -> tuple[Floats, Floats]:
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2], axis=0, method=method)
    return low, high
