"""Does help make judges more often right, and do they follow it where it is wrong?

The unit is a pair of completions whose right order is known. Whether somebody was shown the help has to be chance:
then those who judged the same pairs without it say what would have happened without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..records import Judgement
from .intervals import Floats, redraws, share

FEWEST = 20  # judged pairs on each side
FEWEST_PROMPTS = 8  # with fewer, redrawing them says little
DRAWS = 2000

Verdict = Literal["higher", "lower", "no difference seen", "too few"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a judge said of one pair whose right order is known: 1 that order, -1 the other one, 0 a tie.

    `helpers` are those whose outputs were shown. `views` says of every helper that orders the pair, shown or not,
    whether its order is the right one.
    """

    prompt: str
    said: int
    helpers: tuple[str, ...] = ()
    views: Mapping[str, bool] = field(default_factory=dict)

    def follows(self, helper: str) -> bool:
        return self.said == (1 if self.views[helper] else -1)


def helpers_of(judgement: Judgement) -> tuple[str, ...] | None:
    """Whose help its judge was shown. None where that is not noted: not to be noted is not to be without."""
    noted = judgement.meta.get("assisted")
    return tuple(map(str, noted)) if isinstance(noted, list | tuple) else None


def answers_of(judgement: Judgement, right: Sequence[float]) -> Iterator[Answer]:
    """One for every pair of which `right` (places, lower is better) decides the order, from the better to the worse.

    Nothing where it is not noted whether the judge had help.
    """
    names, ranks, advice = helpers_of(judgement), judgement.ranks, _advice(judgement)
    if names is None:
        return
    for i, j in combinations(range(len(right)), 2):
        if right[i] != right[j]:
            better, worse = (i, j) if right[i] < right[j] else (j, i)
            said = (ranks[worse] > ranks[better]) - (ranks[worse] < ranks[better])
            views = {name: by[better] < by[worse] for name, by in advice.items() if by[i] != by[j]}
            yield Answer(judgement.prompt.id, said, names, views)


def _advice(judgement: Judgement) -> dict[str, Sequence[float]]:
    """Helper -> the order it advises, where that is an order of these completions: a file may hold anything."""
    given = judgement.meta.get("advice")
    return {
        str(name): by
        for name, by in (given.items() if isinstance(given, Mapping) else ())
        if isinstance(by, list | tuple)
        and len(by) == len(judgement.completions)
        and all(isinstance(place, int | float) for place in by)
    }


def assistance(answers: Sequence[Answer], *, seed: int = 0) -> dict[str, Any]:
    """How often judges are right with help and without, and what each helper that orders pairs does to them."""
    right = compare([each.said == 1 for each in answers], answers, seed=seed)
    names = sorted({name for each in answers for name in each.views})
    return {**right, "helpers": [reliance(answers, name, seed=seed) for name in names]}


def reliance(answers: Sequence[Answer], helper: str, *, seed: int = 0) -> dict[str, Any]:
    """How often judges say what one helper says. Without help some do too: only the difference is the helper's doing.

    `when_wrong` is over-reliance: the helper is wrong, and the judge with it.
    """
    about = [each for each in answers if helper in each.views and (helper in each.helpers or not each.helpers)]
    found: dict[str, Any] = {"helper": helper, "right": _accuracy(about, helper, seed)}
    for name, kept in (
        ("followed", about),
        ("when_right", [each for each in about if each.views[helper]]),
        ("when_wrong", [each for each in about if not each.views[helper]]),
    ):
        found[name] = compare([each.follows(helper) for each in kept], kept, seed=seed)
    return found


def compare(points: Sequence[bool], answers: Sequence[Answer], *, seed: int = 0) -> dict[str, Any]:
    """A share among the assisted and among the others, and the difference with whole prompts redrawn."""
    point = np.array(points, dtype=float)
    helped = np.array([bool(each.helpers) for each in answers], dtype=bool)
    _, prompt = np.unique([each.prompt for each in answers] or np.zeros(0, dtype=str), return_inverse=True)
    sides = {"assisted": helped, "alone": ~helped}
    found: dict[str, Any] = {name: share(point[side], prompt[side], seed=seed) for name, side in sides.items()}
    found["difference"] = _difference(point, helped, prompt, seed)
    found["prompts"] = int(prompt.max(initial=-1)) + 1
    found["verdict"] = _verdict(found)
    return found


def _difference(point: Floats, helped: NDArray[np.bool_], prompt: NDArray[np.intp], seed: int) -> dict[str, Any]:
    """Assisted minus alone. A prompt is redrawn with all that was said of it, by both."""
    n = int(min(helped.sum(), (~helped).sum()))
    if not n:
        return {"value": None, "ci": [-1.0, 1.0], "n": 0}
    prompts = int(prompt.max()) + 1
    value = float(point[helped].mean() - point[~helped].mean())
    apart = _redrawn(point[helped], prompt[helped], prompts, seed) - _redrawn(
        point[~helped], prompt[~helped], prompts, seed
    )
    apart = apart[np.isfinite(apart)]  # a redraw may hold nobody of one side
    if prompts < 2 or not len(apart):
        return {"value": value, "ci": [-1.0, 1.0], "n": n}
    low, high = np.quantile(apart, [0.025, 0.975]).tolist()
    return {"value": value, "ci": [low, high], "n": n}


def _redrawn(point: Floats, prompt: NDArray[np.intp], prompts: int, seed: int) -> Floats:
    """The mean in every redraw; the same seed redraws the same prompts, whichever side is asked for."""
    random = np.random.default_rng(seed)
    sums, sizes = np.bincount(prompt, point, prompts), np.bincount(prompt, minlength=prompts)
    with np.errstate(invalid="ignore"):
        return np.concatenate([(c @ sums) / (c @ sizes) for c in redraws(random, prompts, DRAWS)])


def _verdict(found: Mapping[str, Any]) -> Verdict:
    """Of the assisted. What is good about a higher share depends on what was counted."""
    if found["difference"]["n"] < FEWEST or found["prompts"] < FEWEST_PROMPTS:
        return "too few"
    low, high = found["difference"]["ci"]
    return "higher" if low > 0 else "lower" if high < 0 else "no difference seen"


def _accuracy(answers: Sequence[Answer], helper: str, seed: int) -> dict[str, Any]:
    """Of the helper itself, a pair counted once for each answer about it, so that it stands beside what judges did."""
    points = np.array([each.views[helper] for each in answers], dtype=float)
    _, prompt = np.unique([each.prompt for each in answers] or np.zeros(0, dtype=str), return_inverse=True)
    return share(points, prompt, seed=seed)
