"""Several reward models as one: what they disagree on, none of them knows.

Each was trained by itself, with a seed and an order of its own, so each is resumed, audited and replaced by itself.
Adapters on one base share its weights in memory: k of them cost one trunk and k times a few megabytes, and k passes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from ..text.chat import Encoder
from .reward_model import FORMAT, SETTINGS_FILE, RewardModel, SequenceReward
from .rows import Layout, Rows

KIND = "ensemble"
Chain = Sequence[str]


class EnsembleReward(RewardModel):
    """The outputs of its models side by side; each keeps its own constants."""

    kind = KIND

    def __init__(self, models: Sequence[RewardModel], chains: Sequence[Chain]) -> None:
        first = models[0]
        _check_alike(models)
        super().__init__(
            first.encoder, min(m.context for m in models), first.objectives, sum(m.members for m in models)
        )
        self.models, self.chains = nn.ModuleList(models), [list(chain) for chain in chains]
        self.layout = reduce(Layout.__and__, (m.layout for m in models))
        self.mean, self.std = (self._side_by_side([getattr(m, name) for m in models]) for name in ("mean", "std"))

    def forward(self, rows: Rows) -> torch.Tensor:
        return torch.cat([m.by_objective(m(rows)) for m in self.models], 2).flatten(1)  # type: ignore[operator]

    def heads(self) -> list[nn.Module]:
        return []

    def settings(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": 1, "kind": self.kind, "models": self.chains}

    def _side_by_side(self, constants: Sequence[Sequence[float]]) -> list[float]:
        """In the order of outputs: all members of the first objective, then all of the second."""
        k = len(self.objectives)
        return [value for o in range(k) for each in constants for value in each[o * len(each) // k :][: len(each) // k]]


class AdapterMember(SequenceReward):
    """One adapter on a trunk that others use too: it is switched on for its own pass."""

    def __init__(self, network: Any, encoder: Encoder, name: str, **about: Any) -> None:
        super().__init__(network, encoder, **about)
        self.name = name

    def forward(self, rows: Rows) -> torch.Tensor:
        self.adapter.set_adapter(self.name)
        return super().forward(rows)


def members_of(folder: str) -> list[list[str]]:
    """The chains to load of an ensemble's folder; an artifact's id stands for its folder beside this one."""
    stored = json.loads((Path(folder) / SETTINGS_FILE).read_text())
    beside = Path(folder).parent
    return [[str(beside / ref) if (beside / ref).is_dir() else ref for ref in chain] for chain in stored["models"]]


def _check_alike(models: Sequence[RewardModel]) -> None:
    first = models[0]
    for other in models[1:]:
        same_words = other.encoder.tokenizer.to_str() == first.encoder.tokenizer.to_str()
        if other.objectives != first.objectives:
            raise ModelError(
                f"reward models of one ensemble have the same objectives: {', '.join(first.objectives)} is not "
                f"{', '.join(other.objectives)}",
                "train them with the same `objectives`",
            )
        if not same_words or other.encoder.format != first.encoder.format:
            raise ModelError(
                "reward models of one ensemble read text alike, and these have other tokenizers or prompt formats",
                "train them on the same base",
            )
