"""The value model: what is still to come, read from the state before each completion token.

trunk    a small head on the policy's own trunk: no further pass, and no further model
reward   the reward model's trunk under an adapter of its own, with the reward model's head to start from
own      a model of its own, a copy of the policy at the start; with LoRA an adapter of its own on the policy's base

Each is called with rows and the policy's states of these rows, which only the first one reads.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..config import ModelSettings
from ..errors import ModelError
from .adapters import OWN, add_copy, add_fresh, add_lora, learnt, switch_off, switched
from .language_model import LanguageModel, run_trunk
from .reward_model import RewardModel, SequenceReward
from .rows import Rows

VALUE = "value"  # the name of its adapter


class ValueModel(nn.Module):
    """What the kinds share. Values are (completions, tokens), and may be anything outside the mask."""

    apart = True  # it has a pass of its own, and does not read the policy's states

    def forward(self, rows: Rows, hidden: torch.Tensor | None) -> torch.Tensor:
        raise AssertionError("a value model is one of the kinds below")

    def rescale(self, mean: float, std: float) -> None:
        """Scores are going to be (score - mean) / std: a head that starts at zero is right on every scale."""


class ValueHead(nn.Module):
    """One hidden layer, the last weight zero: the first values are exactly 0, so the first advantages are returns."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._make(width)

    def _make(self, width: int) -> None:
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.to(self.inner.weight.dtype)
        return self.outer(torch.tanh(self.inner(hidden))).squeeze(-1)


class ScoreHead(nn.Module):
    """A reward model's head, its constants folded in: what it says of a text is the model's normalised score."""

    def __init__(self, model: SequenceReward) -> None:
        super().__init__()
        score, ((mean,), (std,)) = model.head, (model.mean, model.std)
        self.outer = nn.Linear(score.in_features, 1)
        with torch.no_grad():
            self.outer.weight.copy_(score.weight / std)
            self.outer.bias.fill_(((0.0 if score.bias is None else float(score.bias)) - mean) / std)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.outer(hidden.to(self.outer.weight.dtype)).squeeze(-1)

    @torch.no_grad()
    def rescale(self, mean: float, std: float) -> None:
        self.outer.weight.div_(std)
        self.outer.bias.sub_(mean).div_(std)


class TrunkValue(ValueHead, ValueModel):
    """A head on the policy's trunk."""

    apart = False

    def forward(self, rows: Rows, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden[rows.before_cl])


class OwnValue(ValueModel):
    """A trunk of its own, all of it trained."""

    def __init__(self, trunk: Any, head: ValueHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, rows: Rows, hidden: torch.Tensor | None) -> torch.Tensor:
        return self.head(run_trunk(self.trunk, rows, rows.read_n)[rows.before_cl])


class AdapterValue(ValueModel):
    """An adapter of its own on a frozen trunk that others use too; it is on for its own pass only."""

    def __init__(self, trunk: Any, name: str, adapter: Sequence[nn.Parameter], head: ValueHead | ScoreHead) -> None:
        super().__init__()
        self._trunk = [trunk]  # in a list: it is somebody else's module
        self.name, self.head, self.adapter = name, head, nn.ParameterList(adapter)
        self.adapter.requires_grad_(True)

    def forward(self, rows: Rows, hidden: torch.Tensor | None) -> torch.Tensor:
        (trunk,) = self._trunk
        with switched(trunk, self.name):
            return self.head(run_trunk(trunk, rows, rows.read_n)[rows.before_cl])

    def rescale(self, mean: float, std: float) -> None:
        if isinstance(self.head, ScoreHead):
            self.head.rescale(mean, std)


def trunk_value(policy: LanguageModel, seed: int) -> ValueModel:
    return TrunkValue(_width(policy), seed).to(policy.device)


def own_value(policy: LanguageModel, seed: int) -> ValueModel:
    """What it starts from is the policy as it is now."""
    trunk, head = policy.network.get_decoder(), ValueHead(_width(policy), seed)
    if policy.adapter is None:
        return OwnValue(copy.deepcopy(trunk), head).to(policy.device)
    return AdapterValue(trunk, VALUE, add_fresh(policy.adapter, VALUE, seed + 1), head).to(policy.device)


def reward_value(policy: LanguageModel, reward: RewardModel | None, settings: ModelSettings, seed: int) -> ValueModel:
    """Where the reward model is an adapter on the policy's base, the value's starts as a copy of that one."""
    model = _fit_for_value(policy, reward)
    if model.shared:
        added = add_copy(policy.adapter, VALUE, model.shared)
        return AdapterValue(policy.network.get_decoder(), VALUE, added, ScoreHead(model)).to(policy.device)
    policy.layout &= model.layout  # rows that both compute correctly
    add_lora(model.trunk, settings, seed + 1, task=None)
    model.requires_grad_(False)
    switch_off(model.network)  # scores go on being the reward model's own
    return AdapterValue(model.trunk, OWN, learnt(model.trunk, OWN), ScoreHead(model)).to(policy.device)


def no_trunk_for_value() -> ModelError:
    return ModelError(
        "value.model = 'reward' needs one scorer: a reward model of kind 'sequence' with one output",
        "take value.model = 'own' or 'trunk', which work with any scorer",
    )


def _fit_for_value(policy: LanguageModel, reward: RewardModel | None) -> SequenceReward:
    if not isinstance(reward, SequenceReward) or reward.outputs > 1:
        raise no_trunk_for_value()
    same = reward.encoder.tokenizer.get_vocab() == policy.encoder.tokenizer.get_vocab()
    if not same or reward.encoder.format != policy.encoder.format:
        raise ModelError(
            "value.model = 'reward' reads the policy's tokens, and the reward model has another tokenizer or format",
            "use a reward model trained on the policy's base, or value.model = 'own' or 'trunk'",
        )
    return reward


def _width(policy: LanguageModel) -> int:
    return int(policy.network.config.get_text_config().hidden_size)
