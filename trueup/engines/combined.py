"""Several scorers as one: each on a scale of its own, weighed, some of them held above a floor."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..algo.scale import mean_and_std
from ..config import Objective, Scoring
from ..errors import ConfigError, nearest
from ..ports import Scorer
from ..records import Completion, Score
from .reward_scorer import PRICE, RewardScorer, weigh

SPREAD = "spread"  # what an ensemble disagrees on is no objective


class CombinedScorer:
    """Parts are the scorers by name; one with several objectives has a part `NAME.OBJECTIVE` for each of these.

    Each part is brought to mean 0 and std 1 on completions that `measure` is given, if `scoring.normalise`. A floor is
    a price on what falls below it, or with `scoring.floor = "multiplier"` a Lagrange multiplier on the part itself: it
    rises while the mean of a batch is below the floor and falls while it is above, never below 0.
    """

    def __init__(self, scorers: Mapping[str, Scorer], scoring: Scoring) -> None:
        self.scorers, self.scoring = dict(sorted(scorers.items())), scoring  # a resumed run is told no other order
        self.memory: MutableMapping[str, Any] = {}
        self._seen: dict[str, float] = {}  # the mean of each part in the last batch

    def remember(self, memory: MutableMapping[str, Any]) -> None:
        """Keep scales and multipliers in there: in what a run saves and loads."""
        self.memory = memory

    def measure(self, completions: Sequence[Completion]) -> None:
        """Take the scale of every part from these."""
        parts = self._parts(completions)
        if self.scoring.normalise:
            self.memory["scales"] = {name: _scale_of(values) for name, values in parts.items()}
        self.memory["multipliers"] = {each.name: 0.0 for each in self._floors(list(parts))}

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        return self._weighed(completions, self.memory.get("multipliers", {}))

    def steady(self, completions: Sequence[Completion]) -> list[Score]:
        """Scores at prices that never move, to compare one time with another: where a multiplier holds a floor, ten a
        unit for as long as the mean of the batch is below it."""
        found = self._weighed(completions, {})
        if self.scoring.floor != "multiplier" or not found:
            return found
        low = [each for each in self._floors(list(self._seen)) if self._seen[each.name] < (each.at_least or 0.0)]
        missing_c = [sum((each.at_least or 0.0) - score.parts[each.name] for each in low) for score in found]
        return [replace(score, value=score.value - PRICE * m) for score, m in zip(found, missing_c, strict=True)]

    def _weighed(self, completions: Sequence[Completion], multipliers: Mapping[str, float]) -> list[Score]:
        if not completions:
            return []
        parts = {name: self._scaled(name, values) for name, values in self._parts(completions).items()}
        names = list(parts)
        self._seen = {name: float(values[values.isfinite()].mean()) for name, values in parts.items()}
        chosen = [(place, each) for place, each in _chosen(names, self.scoring) if _counts(each)]
        if self.scoring.floor == "multiplier":
            chosen = [(place, self._freed(each)) for place, each in chosen if each.weight]
        value_c = weigh(torch.stack([parts[name] for name in names], 1)[:, :, None], chosen)[:, 0]
        for name, multiplier in multipliers.items():
            if multiplier and self.scoring.floor == "multiplier":
                value_c = value_c + multiplier * parts[name]
        return [
            Score(float(value_c[c]), {name: float(parts[name][c]) for name in names}) for c in range(len(completions))
        ]

    def adapt(self) -> dict[str, float]:
        """Move each multiplier by how far the last batch was from its floor, where that is known; returns them."""
        multipliers: dict[str, float] = self.memory.get("multipliers", {})
        if self.scoring.floor == "multiplier":
            for each in self._floors(list(self._seen)):
                assert each.at_least is not None
                lacking = each.at_least - self._seen[each.name]
                if math.isfinite(lacking):
                    multipliers[each.name] = max(0.0, multipliers[each.name] + self.scoring.multiplier_rate * lacking)
        return dict(multipliers)

    def _floors(self, names: Sequence[str]) -> list[Objective]:
        return [each for _, each in _chosen(names, self.scoring) if each.at_least is not None]

    @staticmethod
    def _freed(each: Objective) -> Objective:
        return each.model_copy(update={"at_least": None})

    def lowest(self) -> CombinedScorer:
        """The same with every ensemble by its least content member."""
        least = {name: s.lowest() if isinstance(s, RewardScorer) else s for name, s in self.scorers.items()}
        return CombinedScorer(least, self.scoring)

    def _parts(self, completions: Sequence[Completion]) -> dict[str, torch.Tensor]:
        """Whoever gives a scorer a name means its parts by it, however the scorer calls them."""
        parts: dict[str, list[float]] = {}
        for name, scorer in self.scorers.items():
            scores = scorer.score(completions)
            inner = [key for key in scores[0].parts if key != SPREAD]
            if len(inner) > 1:
                parts |= {part_name(name, key): [score.parts[key] for score in scores] for key in inner}
            else:
                parts[name] = [score.parts[inner[0]] if inner else score.value for score in scores]
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in parts.items()}

    def _scaled(self, name: str, values: torch.Tensor) -> torch.Tensor:
        mean, std = self.memory.get("scales", {}).get(name, (0.0, 1.0))
        return (values - mean) / std


def part_name(scorer: str, objective: str) -> str:
    """What one of several objectives of a scorer is called; of the one scorer without a name, as it calls it itself."""
    return f"{scorer}.{objective}" if scorer else objective


def _chosen(names: Sequence[str], scoring: Scoring) -> list[tuple[int, Objective]]:
    """The parts that count, by place."""
    if not scoring.objectives:
        return [(place, Objective(name=name)) for place, name in enumerate(names)]
    for each in scoring.objectives:
        if each.name not in names:
            raise ConfigError(
                f"scoring.objectives names '{each.name}', which no scorer has{nearest(each.name, names)}",
                f"there are {', '.join(names)}",
            )
    return [(names.index(each.name), each) for each in scoring.objectives]


def _counts(each: Objective) -> bool:
    """What has no weight and no floor is only looked at: no number at all is no harm there."""
    return each.weight != 0 or each.at_least is not None


def _scale_of(values: torch.Tensor) -> tuple[float, float]:
    """Of the finite ones."""
    finite = values[values.isfinite()]
    return mean_and_std(finite) if len(finite) else (0.0, 1.0)
