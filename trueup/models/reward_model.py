"""Reward models: a trunk and a scalar for a whole completion.

sequence   The trunk with a linear head read at the last real token: an ordinary `AutoModelForSequenceClassification`
           checkpoint that other software opens.
classifier Any other `AutoModelForSequenceClassification` checkpoint (DeBERTa, RoBERTa, ModernBERT, ...), made
           elsewhere and run by its own forward. It only scores.
features   The same trunk with the head summed over the completion's tokens, plus a linear readout of how likely the
           frozen base finds those tokens (sum, minimum, soft counts of surprising ones). A small model's trunk does
           not see by itself whether a summary is faithful; the base's surprise at an unfaithful word tells it. The
           saved format is trueup's own (`reward_model.json` names it) and nothing else opens it.

A model has one output an objective and member of its ensemble. Each carries a `mean` and a `std`: scores are shifted
and scaled by them, so a KL coefficient means the same from model to model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..algo.masked import at_least_float32, zero_outside
from ..text.chat import Encoder
from ..text.segments import SegmentEncoder
from .adapters import switched
from .language_model import LanguageModel, context_of, run_trunk
from .rows import PLAIN, Layout, Rows

FORMAT = "trueup-reward-model"
OVERALL = "overall"  # the objective of a model that has no named ones
SURPRISES = (-4.0, -6.0)  # log-probs below which a token counts as surprising, softly
SETTINGS_FILE = "reward_model.json"
PARTS = ("trunk", "base")  # folders of a features model


class RewardModel(nn.Module):
    """What both kinds share: rows in, raw scores out, one column an output: all members of the first objective, then
    all of the second. `normalised` applies the stored constants."""

    kind = ""

    def __init__(self, encoder: Encoder, context: int, objectives: Sequence[str] = (), members: int = 1) -> None:
        super().__init__()
        self.encoder, self.pad_id, self.context = encoder, encoder.pad_id, context
        self.objectives, self.members = tuple(objectives) or (OVERALL,), members
        self.layout = PLAIN
        self.unweighed = False  # outputs of a classifier made elsewhere, which were never meant to be added up
        self.mean, self.std = [0.0] * self.outputs, [1.0] * self.outputs
        self.source = ""

    @property
    def outputs(self) -> int:
        return len(self.objectives) * self.members

    def forward(self, rows: Rows) -> torch.Tensor:
        """(completions, outputs)"""
        raise AssertionError("a reward model is one of the kinds below")

    def heads(self) -> list[nn.Module]:
        """What is new on top of the pretrained trunk, and may learn at a rate of its own."""
        raise AssertionError("a reward model is one of the kinds below")

    def by_objective(self, raw: torch.Tensor) -> torch.Tensor:
        """(completions, objectives, members)"""
        return raw.reshape(len(raw), len(self.objectives), self.members)

    def normalised(self, raw: torch.Tensor) -> torch.Tensor:
        return (raw - raw.new_tensor(self.mean)) / raw.new_tensor(self.std)

    def settings(self) -> dict[str, Any]:
        several = {"objectives": list(self.objectives), "members": self.members} if self.outputs > 1 else {}
        mean, std = (self.mean, self.std) if several else (self.mean[0], self.std[0])
        return {"format": FORMAT, "version": 1, "kind": self.kind, "mean": mean, "std": std, **several}

    def take(self, settings: Mapping[str, Any]) -> None:
        """The constants that were saved; a checkpoint from elsewhere has none."""
        for name, otherwise in (("mean", 0.0), ("std", 1.0)):
            given = settings.get(name, otherwise)
            setattr(self, name, list(given) if isinstance(given, list) else [float(given)] * self.outputs)

    def save(self, folder: Path) -> None:
        (folder / SETTINGS_FILE).write_text(json.dumps(self.settings(), indent=1, sort_keys=True) + "\n")


class SequenceReward(RewardModel):
    """An `AutoModelForSequenceClassification` network, read at the last real token by mask."""

    kind = "sequence"
    shared = ""  # the name of its adapter, where it is one on a trunk that others use too

    def __init__(
        self,
        network: Any,
        encoder: Encoder,
        *,
        layout: Layout = PLAIN,
        adapter: Any = None,
        objectives: Sequence[str] = (),
        members: int = 1,
    ) -> None:
        encoder.restrict(network.get_input_embeddings().weight.shape[0])
        super().__init__(encoder, context_of(network.config), objectives, members)
        assert network.score.out_features == self.outputs
        self.network = network
        _at_least_float32(network.score)
        self.layout = layout
        self._adapter = [adapter]

    @property
    def adapter(self) -> Any:
        return self._adapter[0]

    @property
    def trunk(self) -> Any:
        return self.network.base_model

    @property
    def head(self) -> nn.Linear:
        return self.network.score

    def forward(self, rows: Rows) -> torch.Tensor:
        at = None if rows.read_n is None else rows.last_c
        return self.head(at_least_float32(run_trunk(self.trunk, rows, at)[rows.last_c]))

    def heads(self) -> list[nn.Module]:
        return [self.head]


def _at_least_float32(head: nn.Module) -> nn.Module:
    """Scores of 16 bits would be coarse."""
    return head.float() if next(head.parameters()).dtype.itemsize < 4 else head


class ClassifierReward(RewardModel):
    """Any other sequence classifier, by its own forward: what lies between its trunk and its scores is its own affair.

    One row a completion. It scores and is not trained further.
    """

    kind = "classifier"

    def __init__(self, network: Any, encoder: Encoder, objectives: Sequence[str] = ()) -> None:
        encoder.restrict(network.get_input_embeddings().weight.shape[0])
        super().__init__(encoder, _positions(network), objectives)
        assert network.config.num_labels == self.outputs
        if network.config.pad_token_id is None:
            network.config.pad_token_id = encoder.pad_id
        self.network, self.pad_id = network, network.config.pad_token_id

    def forward(self, rows: Rows) -> torch.Tensor:
        assert rows.allow_b1tt is None, "its rows hold one completion each"
        given = {"input_ids": rows.tokens_bt, "attention_mask": rows.real_bt.long()}
        if isinstance(self.encoder, SegmentEncoder) and self.encoder.types:
            first, second = self.encoder.types
            starts_b1 = rows.before_cl[:, :1] % rows.tokens_bt.shape[1] + 1
            given["token_type_ids"] = torch.where(
                torch.arange(rows.tokens_bt.shape[1], device=starts_b1.device) < starts_b1, first, second
            )
        return at_least_float32(self.network(**given).logits)

    def heads(self) -> list[nn.Module]:
        return []


def _positions(network: Any) -> int:
    """RoBERTa and its kin count positions from behind their pad id: so many fewer tokens fit."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.num_embeddings) - int(module.padding_idx) - 1
    return context_of(network.config)


class AdapterReward(SequenceReward):
    """An adapter on the trunk of a policy, with a head of its own. It is on for its own pass only."""

    def __init__(
        self, policy: LanguageModel, encoder: Encoder, name: str, head: nn.Linear, objectives: Sequence[str] = ()
    ) -> None:
        names = max(1, len(objectives))
        RewardModel.__init__(self, encoder, policy.context, objectives, head.out_features // names)
        self._trunk = [policy.network.get_decoder()]  # in a list: it is the policy's module
        self.layout, self.shared, self.score = policy.layout, name, _at_least_float32(head)

    @property
    def trunk(self) -> Any:
        return self._trunk[0]

    @property
    def head(self) -> nn.Linear:
        return self.score

    def forward(self, rows: Rows) -> torch.Tensor:
        with switched(self.trunk, self.shared):
            return super().forward(rows)


class FeatureReward(RewardModel):
    """Trunk, summed head, and a linear readout of the frozen base's surprise."""

    kind = "features"

    def __init__(
        self, trunk: LanguageModel, base: LanguageModel, objectives: Sequence[str] = (), members: int = 1
    ) -> None:
        super().__init__(trunk.encoder, min(trunk.context, base.context), objectives, members)
        self.trunk, self.base = trunk, base.requires_grad_(False)
        self.layout = trunk.layout & base.layout
        width = trunk.network.config.hidden_size
        self.token_head = nn.Linear(width, self.outputs)
        self.readout = nn.Linear(2 + len(SURPRISES), self.outputs, bias=False)
        nn.init.normal_(self.token_head.weight, std=1 / math.sqrt(width + 1))
        nn.init.zeros_(self.token_head.bias)
        nn.init.zeros_(self.readout.weight)

    def forward(self, rows: Rows) -> torch.Tensor:
        hidden = self.trunk.hidden(rows, whole=True)
        at_cl = (rows.before_cl + 0).masked_scatter(rows.mask_cl, _token_positions(rows))
        tokens_ocl = self.token_head(at_least_float32(hidden[at_cl])).movedim(-1, 0)
        summed = zero_outside(tokens_ocl, rows.mask_cl.expand_as(tokens_ocl)).sum(-1).T
        return summed / 10 + self.readout(self.features(rows))

    def heads(self) -> list[nn.Module]:
        return [self.token_head, self.readout]

    @torch.no_grad()
    def features(self, rows: Rows) -> torch.Tensor:
        """(c, 4) statistics of the base's token log-probs, scaled to about 1."""
        logp, mask = self.base.logprobs(rows), rows.mask_cl
        surprising = [zero_outside(torch.sigmoid(2 * (limit - logp)), mask).sum(1) for limit in SURPRISES]
        return torch.stack([logp.sum(1) / 10, logp.amin(1) / 5, *surprising], 1)

    def save(self, folder: Path) -> None:
        super().save(folder)
        for part, model in zip(PARTS, (self.trunk, self.base), strict=True):
            model.network.save_pretrained(folder / part)
        heads = {"token_head": self.token_head, "readout": self.readout}
        save_file(
            {f"{k}.{n}": p.detach().contiguous() for k, m in heads.items() for n, p in m.named_parameters()},
            folder / "heads.safetensors",
        )

    def load_heads(self, folder: Path) -> None:
        tensors = load_file(folder / "heads.safetensors")
        for name, module in (("token_head", self.token_head), ("readout", self.readout)):
            module.load_state_dict({k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(name + ".")})


def _token_positions(rows: Rows) -> torch.Tensor:
    """Flat index of each completion token itself (`before_cl` is the one before it), in mask order."""
    counts = rows.mask_cl.sum(1)
    offsets = torch.arange(rows.mask_cl.shape[1], device=counts.device).expand_as(rows.mask_cl)
    return (rows.last_c[:, None] - (counts[:, None] - 1) + offsets)[rows.mask_cl]
