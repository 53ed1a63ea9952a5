"""How long one step of a stage takes, phase by phase, on a machine whose speeds are known.

Training computes: products, attention, and bytes moved by everything between them. Sampling reads: for each token all
weights and the keys and values of every row. On a CPU these add up; on a GPU starting operations goes on beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import Sampling
from ..memory import Lengths, RewardShape, Shape, learns_lora, rows_of_step
from ..models.device import Placement
from .calibrate import Measured
from .machines import Machine
from .passes import Pass, Rows, count_pass

STEP_TRAFFIC = 12  # numbers that AdamW and clipping read and write for each one trained
LOGIT_TRAFFIC = 8  # times that logits are read or written in a softmax and its gradient
DRAW_TRAFFIC = 14  # the same where a token is drawn: softmax, double precision, running sums
OPTIMIZER_CALLS = 12  # operations for each tensor trained
TENSORS_A_LAYER = 9


@dataclass(frozen=True)
class Share:
    """How the work of a step is spread: `count` devices, each with its share of the rows; weights whole or in parts."""

    count: int = 1
    sharded: bool = False


def measured_on(trained: Shape, lengths: Lengths) -> Measured:
    """What a machine is measured on for this model and rows of these lengths."""
    width, mlp = trained.width, trained.mlp
    heads = trained.config.get_text_config().num_attention_heads
    matrices = ((width, width), (width, mlp), (mlp, width))
    return Measured(matrices, width, heads, max(16, lengths.prompt + lengths.completion))


def step_seconds(
    stage: str,
    config: Any,
    placement: Placement,
    trained: Shape,
    scorers: Mapping[str, RewardShape],
    lengths: Lengths,
    machine: Machine,
    share: Share = Share(),
) -> dict[str, float]:
    """Seconds of one step by phase. `config` holds what one device does of it."""
    work = _Work(stage, config, placement, trained, lengths, machine)
    found: dict[str, float] = {}
    if stage == "rl":
        found["sampling"] = work.sampling()
        found["scoring"] = work.scoring(scorers)
    if stage == "dpo":
        found["reference"] = work.forward() / max(1.0, config.epochs)
    found["update"] = work.update()
    found["optimizer"] = work.optimizer()
    if share.count > 1:
        found["between devices"] = work.between_devices(share)
    return found


@dataclass(frozen=True)
class _Work:
    stage: str
    config: Any
    placement: Placement
    trained: Shape
    lengths: Lengths
    machine: Machine

    @property
    def lora(self) -> bool:
        return learns_lora(self.stage, self.config, self.trained)

    def update(self) -> float:
        """Every pass over the data of the step; a value model with a trunk of its own passes too."""
        rows, times, projected = rows_of_step(self.stage, self.config, self.placement, self.trained, self.lengths)
        one = self._pass(rows, "lora" if self.lora else "all")
        if self.stage == "rl" and self.config.estimator == "ppo" and self.config.value.model != "trunk":
            one = one + self._pass(rows, "lora" if self.config.value.model == "reward" or self.lora else "all")
        logits = self._logits(projected, passes=2 + (not self.lora or self.trained.head == 0))
        return times * (self._seconds(one) + self._seconds(logits))

    def forward(self) -> float:
        """Once through everything that a step updates on, without a gradient."""
        rows, times, projected = rows_of_step(self.stage, self.config, self.placement, self.trained, self.lengths)
        times = times / (float(self.config.epochs) if self.stage == "rl" else 1.0)
        return times * (self._seconds(self._pass(rows, "nothing")) + self._seconds(self._logits(projected, passes=1)))

    def scoring(self, scorers: Mapping[str, RewardShape]) -> float:
        """Policy, reference and value of every completion, and what scores it, by its size beside the policy's."""
        own = int(self.config.estimator == "ppo" and self.config.value.model != "trunk")
        beside = sum(s.parameters or self.trained.scoring for s in scorers.values()) / self.trained.parameters
        rows, times, _ = rows_of_step(self.stage, self.config, self.placement, self.trained, self.lengths)
        trunk = times / float(self.config.epochs) * self._seconds(self._pass(rows, "nothing"))
        return 2 * self.forward() + (own + beside) * trunk

    def sampling(self) -> float:
        """Prompts are read once each; then every token of a row is a pass over all weights and what it has so far."""
        sampling: Sampling = self.config.sampling
        prompts, each = int(self.config.prompts_per_step), int(self.config.samples_per_prompt)
        at_once = min(sampling.batch_size, prompts * each)
        steps = math.ceil(prompts * each / at_once) * sampling.max_new_tokens
        reading = self._pass(Rows(prompts, max(1, self.lengths.prompt), packed=False), "nothing")
        return self._seconds(reading) + steps * self._token(at_once)

    def _token(self, rows: int) -> float:
        found = self._pass(Rows(rows, 1), "nothing")
        tokens = self.lengths.prompt + self.config.sampling.max_new_tokens / 2
        cache = rows * tokens * self.trained.cache * self.placement.dtype.itemsize
        head = 2.0 * rows * self.trained.width * self.trained.vocabulary
        drawn = rows * self.trained.vocabulary * 4 * DRAW_TRAFFIC
        weights = self.trained.parameters * self.placement.dtype.itemsize
        products = (found.products + head) / self.machine.decoding
        if self.machine.kind == "cuda":
            products = max(products, weights / self.machine.bandwidth)
        moved = (found.moved + cache + drawn) / self.machine.bandwidth
        return self._together(products + moved, found.calls)

    def optimizer(self) -> float:
        """What a step of the optimizer reads and writes."""
        updates = self.config.epochs * self.config.minibatches if self.stage == "rl" else 1
        learnt = self.trained.lora if self.lora else self.trained.parameters
        moved = learnt * 4 * STEP_TRAFFIC / self.machine.bandwidth
        calls = OPTIMIZER_CALLS * TENSORS_A_LAYER * self.trained.layers * (2 if self.lora else 1)
        return updates * self._together(moved, calls)

    def between_devices(self, share: Share) -> float:
        """Sharded weights are gathered for each pass, forwards and backwards; gradients are summed either way."""
        rows, times, _ = rows_of_step(self.stage, self.config, self.placement, self.trained, self.lengths)
        part = (share.count - 1) / share.count
        learnt = self.trained.lora if self.lora else self.trained.parameters
        updates = self.config.epochs * self.config.minibatches if self.stage == "rl" else 1
        sent = 2.0 * learnt * updates
        if share.sharded:
            sent += self.trained.parameters * (2 * times + (2 if self.stage == "rl" else 0))
        return sent * self.placement.dtype.itemsize * part / self.machine.link

    def _pass(self, rows: Rows, trains: str) -> Pass:
        return count_pass(self.trained.config, self.config.model, self.placement.dtype, rows, trains)

    def _logits(self, tokens: float, passes: int) -> Pass:
        """Of the vocabulary; large ones are computed again in the backward pass."""
        numbers = tokens * self.trained.vocabulary
        return Pass(products=2.0 * numbers * self.trained.width * passes, moved=numbers * 4 * LOGIT_TRAFFIC, calls=20)

    def _seconds(self, found: Pass) -> float:
        machine = self.machine
        computed = found.products / machine.products + found.attention / machine.attention
        return self._together(computed + found.moved / machine.bandwidth, found.calls)

    def _together(self, computed: float, calls: float) -> float:
        started = calls * self.machine.call
        return max(computed, started) if self.machine.kind == "cuda" else computed + started
