"""What the objectives of a scorer cost one another: the best completion of each prompt, chosen by other weights.

Choosing the best of n is the cheapest way to climb a score, and RL climbs it too: where the frontier of two objectives
is flat, one of them can be had for little of the other; where it is steep, weights decide, and should be chosen by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from ..config.tradeoff import TradeoffConfig
from ..errors import ConfigError, DataError
from ..ports import Scorer
from ..records import Completion
from ..stats.intervals import Floats, bootstrap_mean
from ..stats.within import within_pearson, within_spearman
from .probes import SPREAD
from .scored import Advance, Ints, score_all, values
from .slices import share


@dataclass(frozen=True)
class Choice:
    """The completions to choose from: of each its prompt's number, and what it has on every objective."""

    prompt: Ints
    objectives: dict[str, Floats]
    seed: int

    def of(self, value: Floats, objective: str) -> Floats:
        """Of each prompt what its completion of the highest `value` has on an objective; equal ones share."""
        best = np.full(self.prompt.max() + 1, -np.inf)
        np.maximum.at(best, self.prompt, value)
        chosen = (value >= best[self.prompt]).astype(float)
        found: Floats = np.bincount(self.prompt, chosen * self.objectives[objective]) / np.bincount(self.prompt, chosen)
        return found

    def mean(self, value: Floats, objective: str) -> dict[str, Any]:
        """With the interval of prompts redrawn."""
        points = self.of(value, objective)
        low, high = bootstrap_mean(points, seed=self.seed)
        known = np.isfinite(low)
        return {"value": float(points.mean()), "ci": [low, high] if known else None, "n": len(points)}

    def means(self, value: Floats, pair: tuple[str, str]) -> dict[str, Any]:
        return {side: self.mean(value, name) for side, name in zip("ab", pair, strict=True)}


def tradeoff(
    scorer: Scorer,
    completions: Sequence[Completion],
    config: TradeoffConfig | None = None,
    *,
    price: float,
    advance: Advance = lambda n: None,
) -> dict[str, Any]:
    """Every pair of the objectives that scores have as parts, on the prompts with two completions or more.

    `price` is what a unit below a floor costs, as where the scorer is climbed. A score's own value is what its settings
    make of the objectives: where that choice lies is `chosen`.
    """
    config = config or TradeoffConfig()
    groups = _together(completions)
    several = [group for group in groups if len(group) > 1]
    if not several:
        raise DataError(
            f"none of the {len(groups)} prompts has two completions to choose from",
            "sample several of each prompt: trueup sample --per-prompt 8",
        )
    scores = score_all(scorer, [completion for group in several for completion in group], advance)
    names = [name for name in scores[0].parts if name != SPREAD]
    if len(names) < 2:
        raise ConfigError(
            "this reward model has one objective: there is nothing to trade",
            'train one with several: --set objectives=\'["helpful", "harmless"]\'',
        )
    numbers = np.repeat(np.arange(len(several)), [len(group) for group in several])
    objectives = {name: np.array([score.parts[name] for score in scores]) for name in names}
    choice = Choice(numbers.astype(np.int64), objectives, config.seed)
    return {
        "prompts": len(several),
        "alone": len(groups) - len(several),
        "completions": len(scores),
        "per_prompt": float(np.median([len(group) for group in several])),
        "objectives": names,
        "pairs": [_pair(choice, pair, values(scores), config, price) for pair in combinations(names, 2)],
        "config": config.model_dump(mode="json"),
    }


def _pair(choice: Choice, pair: tuple[str, str], value: Floats, config: TradeoffConfig, price: float) -> dict[str, Any]:
    a, b = (choice.objectives[name] for name in pair)
    weights = np.linspace(0, 1, config.weights)
    return {
        "a": pair[0],
        "b": pair[1],
        "frontier": [{"weight": float(w), **choice.means(w * a + (1 - w) * b, pair)} for w in weights],
        "floors": [_floor(choice, pair, kept, floor, price) for kept in (1, 0) for floor in sorted(set(config.floors))],
        "any": choice.means(np.zeros_like(a), pair),
        "chosen": choice.means(value, pair),
        "pearson": within_pearson(a, b, choice.prompt, seed=config.seed).to_json(),
        "spearman": within_spearman(a, b, choice.prompt, seed=config.seed).to_json(),
        "conflict": _conflict(choice, a, b),
    }


def _floor(choice: Choice, pair: tuple[str, str], kept: int, floor: float, price: float) -> dict[str, Any]:
    """The other objective decides, and every unit below the floor is paid for: a little below may still be chosen."""
    low, other = choice.objectives[pair[kept]], choice.objectives[pair[1 - kept]]
    value = other - price * np.maximum(floor - low, 0)
    above = choice.of(value, pair[kept]) >= floor
    numbers = np.arange(len(above))
    return {
        "kept": pair[kept],
        "at_least": floor,
        **choice.means(value, pair),
        "held": share(above.astype(float), numbers),
    }


def _conflict(choice: Choice, a: Floats, b: Floats) -> dict[str, Any]:
    """Share of the pairs of completions of a prompt that the two objectives put in opposite orders."""
    starts = np.flatnonzero(np.diff(choice.prompt, prepend=-1))
    ends = np.append(starts[1:], len(choice.prompt))
    sides = [pair for start, end in zip(starts, ends, strict=True) for pair in combinations(range(start, end), 2)]
    i, j = np.array(sides).T
    apart = np.sign(a[i] - a[j]) * np.sign(b[i] - b[j])
    ordered = apart != 0
    return share((apart[ordered] < 0).astype(float), choice.prompt[i][ordered])


def _together(completions: Sequence[Completion]) -> list[list[Completion]]:
    """By prompt, wherever they stand; those of a prompt share one object of it, as scorers like it."""
    groups: dict[str, list[Completion]] = {}
    for completion in completions:
        group = groups.setdefault(completion.prompt.id, [])
        group.append(replace(completion, prompt=group[0].prompt if group else completion.prompt))
    return list(groups.values())
