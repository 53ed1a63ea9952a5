"""Scores as reinforcement learning reads them: on one scale, cut at its ends, and a fixed one for text without an end.

The scale is mean 0 and standard deviation 1: on samples of the reference, measured once before the first step, or
running, on everything that was scored so far. So `kl_coefficient` means the same for any scorer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Literal

import torch

from ..algo.scale import joined, mean_and_spread, mean_and_std
from ..engines.combined import CombinedScorer
from ..errors import RunError
from ..ports import Scorer
from ..records import Completion, Score

Values = torch.Tensor


def said_by(watched: Mapping[str, Scorer], completions: Sequence[Completion]) -> dict[str, list[float]]:
    """What watched scorers say of each: kept beside the texts, logged, and never learnt from."""
    return {name: [score.value for score in each.score(completions)] for name, each in watched.items()}


class ScoreScale:
    """One scorer's scale. What it must remember stands in the run's memory, so that a resumed run has it too."""

    def __init__(
        self,
        scorer: Scorer,
        memory: MutableMapping[str, Any],
        missing_eos: float | None,
        kind: Literal["reference", "running", "none"] = "reference",
        clip: float | None = None,
        name: str = "score",
    ) -> None:
        self.scorer, self.memory, self.name = scorer, memory, name
        self.missing_eos, self.kind, self.clip = missing_eos, kind, clip
        self.parts: dict[str, float] = {}  # of several scorers or objectives: the mean of each in the last batch
        if isinstance(scorer, CombinedScorer):
            scorer.remember(memory.setdefault(f"{name}_parts", {}))

    @property
    def known(self) -> bool:
        return f"{self.name}_mean" in self.memory

    def measure(self, completions: Sequence[Completion]) -> None:
        """Mean 0 and std 1 on these, the reference's own. A running scale starts at nothing."""
        if isinstance(self.scorer, CombinedScorer):
            self.scorer.measure(completions)
        found = 0.0, 1.0
        if self.kind != "none":
            raw = self._raw(completions, self.scorer.score)
            if not raw.isfinite().any():
                raise RunError(
                    f"the scorer gave no finite number for any of {len(raw)} completions of the reference",
                    "look at what it says of a text: trueup score",
                )
            found = mean_and_std(raw[raw.isfinite()])
        mean, std = found if self.kind == "reference" else (0.0, 1.0)
        self.memory.update({f"{self.name}_mean": mean, f"{self.name}_std": std, f"{self.name}_start": list(found)})

    def __call__(self, completions: Sequence[Completion], learning: bool = False) -> Values:
        """A score a completion; while `learning`, a running scale takes them in first."""
        raw = self._raw(completions, self.scorer.score)
        if learning and self.kind == "running":
            self._take_in(raw)
        if learning and isinstance(self.scorer, CombinedScorer):
            self.parts |= {f"multiplier_{name}": value for name, value in self.scorer.adapt().items()}
        return self._finished(completions, (raw - self.memory[f"{self.name}_mean"]) / self.memory[f"{self.name}_std"])

    def steady(self, completions: Sequence[Completion]) -> Values:
        """The same on a scale that never moves, the reference's, whatever moves in training: neither a running scale
        nor the price of a floor. So evaluations can be compared with one another."""
        scorer = self.scorer.steady if isinstance(self.scorer, CombinedScorer) else self.scorer.score
        mean, std = self.memory[f"{self.name}_start"]
        return self._finished(completions, (self._raw(completions, scorer) - mean) / std)

    def _finished(self, completions: Sequence[Completion], scores: Values) -> Values:
        """Cut, and with the fixed score where there is no end."""
        scores = scores.float()
        if self.clip is not None:
            scores = scores.clamp(-self.clip, self.clip)
        if self.missing_eos is None:
            return scores
        finished = torch.tensor([completion.finished for completion in completions])
        return torch.where(finished, scores, self.missing_eos)

    def _raw(self, completions: Sequence[Completion], score: Callable[[Sequence[Completion]], list[Score]]) -> Values:
        found = score(completions)
        names = found[0].parts if found else ()
        self.parts = {f"{self.name}_{part}": sum(each.parts[part] for each in found) / len(found) for part in names}
        return torch.tensor([each.value for each in found], dtype=torch.float64)

    def _take_in(self, raw: Values) -> None:
        """Mean and spread of all so far; what is no number is left out."""
        raw = raw[raw.isfinite()]
        if not len(raw):
            return
        known = [self.memory.get(f"{self.name}_{what}", 0) for what in ("mean", "spread", "seen")]
        found = *mean_and_spread(raw), len(raw)
        mean, spread, seen = joined((known[0], known[1], known[2]), found) if known[2] else found
        now = {"mean": mean, "spread": spread, "seen": seen, "std": spread or 1.0}
        self.memory.update({f"{self.name}_{what}": value for what, value in now.items()})
