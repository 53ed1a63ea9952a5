"""How much memory a stage needs, by part, from a model's config alone: what `--dry-run` and `trueup plan` go by.

Weights, gradients and optimizer state are counted exactly; what a pass keeps for the backward one is counted on the
model's own code (`sizing.passes`). Not everything is there at the same moment: a part says in which phases it is, and
what a stage needs is the largest sum of one phase. What an allocator and the process take beside was measured, and
stands in a line of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from .config import ModelSettings
from .errors import ModelError
from .models.adapters import count_lora, linear_layers, wants_lora
from .models.device import Placement
from .models.language_model import WHOLE_LOGITS, context_of
from .models.load import check_quantised, skeleton
from .models.quantised import bytes_of
from .sizing.passes import Pass, Rows, count_pass

SAMPLING, SCORING, UPDATE, STEP = "sampling", "scoring", "update", "step"
FOLDED = "kept while sampling"  # weights without LoRA folded in
# Measured beside what is alive, as a share of the activations. On a CPU glibc keeps freed blocks, and a block does not
# always fit where another was: the less with LoRA, which puts small ones between the large. On a GPU torch keeps less.
KEPT_BY_ALLOCATOR = {("cpu", False): 0.13, ("cpu", True): 0.24, ("cuda", False): 0.06, ("cuda", True): 0.06}
SECOND_PASS = 3  # times as much, where a value model's pass finds the blocks of the policy's
LEFT_BEHIND = 0.6  # of what sampling and scoring took, on a CPU: what does not fit the update and counts beside it
PROCESS = {"cpu": 28 * 2**20, "cuda": 600 * 2**20}  # libraries loaded late, tokenizer, database; CUDA's own context


@dataclass(frozen=True)
class Part:
    """Some of the memory. `how` is its formula with the numbers in it, `phases` when it is there: else always."""

    name: str
    bytes: int
    how: str
    phases: tuple[str, ...] = ()


def peak(parts: Sequence[Part]) -> tuple[int, str]:
    """The most that is there at once, and in which phase; empty where there is none but what is always there."""
    phases = list(dict.fromkeys(phase for part in parts for phase in part.phases)) or [""]
    sums = {phase: sum(p.bytes for p in parts if not p.phases or phase in p.phases) for phase in phases}
    highest = max(sums, key=lambda phase: sums[phase])
    return sums[highest], highest


@dataclass(frozen=True)
class Shape:
    """A causal LM as far as memory goes."""

    parameters: int
    head: int  # of these, in the vocabulary projection and nowhere else
    matrices: int  # of these, in matrices between hidden states: what Muon updates, LoRA sits beside, few bits hold
    lora: int  # what LoRA layers would add
    width: int
    layers: int
    mlp: int
    cache: int  # keys and values kept of one token while sampling
    vocabulary: int
    context: int
    rows: int = 0  # of all the matrices between hidden states
    config: Any = field(default=None, compare=False, repr=False)  # what passes are counted on

    @property
    def scoring(self) -> int:
        """Parameters of the same trunk as a reward model of kind sequence: one number instead of a vocabulary."""
        return self.parameters - self.head + self.width

    @property
    def with_features(self) -> int:
        """Parameters that a reward model of kind features trains: all, a head for each token, and a readout of four."""
        return self.parameters + self.width + 1 + 4


@dataclass(frozen=True)
class RewardShape:
    """A reward model: `parameters` loaded for it alone, and those of adapters on the policy's base, in float32."""

    parameters: int
    adapters: int = 0


@dataclass(frozen=True)
class Lengths:
    """The longest of the data, in tokens, and the most completions that a prompt has."""

    prompt: int
    completion: int
    completions: int = 1
    row: float = 0.0  # mean tokens of a prompt with its completions, where that is known: it decides without padding
    spread: float = 0.0  # standard deviation of the same


def measure(config: Any, settings: ModelSettings) -> Shape:
    """The shape of a causal LM, counted on the model itself without its weights."""
    network, text = skeleton(config, settings), config.get_text_config()
    head, inputs = network.get_output_embeddings(), network.get_input_embeddings()
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)} | {id(head.weight)}
    heads = text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Shape(
        parameters=network.num_parameters(),
        head=0 if head.weight is inputs.weight else sum(p.numel() for p in head.parameters()),
        matrices=sum(p.numel() for p in network.parameters() if p.ndim == 2 and id(p) not in embeddings),
        rows=sum(layer.out_features if isinstance(layer, nn.Linear) else layer.nf for layer in linear_layers(network)),
        lora=count_lora(network, settings.lora_rank),
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        mlp=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        cache=2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads) * head_width,
        vocabulary=head.weight.shape[0],
        context=context_of(config),
        config=config,
    )


def trained_model(models: Mapping[str, Shape]) -> Shape:
    """The one that a stage trains, of the language models it is given."""
    return models["policy"] if "policy" in models else models["base"]


def learns_lora(stage: str, config: Any, trained: Shape) -> bool:
    """Whether a run of the stage would train LoRA layers rather than all weights; in few bits it has to."""
    if stage == "pretrain" or (stage == "reward" and config.kind == "features"):
        return False
    parameters = trained.scoring if stage == "reward" else trained.parameters
    check_quantised(config.model, parameters)
    return wants_lora(config.model, parameters)


def estimate(
    stage: str,
    config: Any,
    placement: Placement,
    models: Mapping[str, Shape],
    scorers: Mapping[str, RewardShape],
    lengths: Lengths,
) -> list[Part]:
    """The parts, in the order of what is loaded first.

    `models` are the language models by input ("base" is also what pretraining makes); `scorers` are the reward models
    by input.
    """
    need = _Need(config, placement, lengths)
    process = [need.process()]
    if stage == "sample":
        parts = [need.weights("weights", models["model"].parameters), need.cache(models["model"])]
        return parts + [need.scorer(role, scorer) for role, scorer in scorers.items()] + process
    if stage in ("winrate", "safety", "compare"):
        return [*_winrate(need, models, scorers), *process]
    trained = trained_model(models)
    lora = learns_lora(stage, config, trained)
    parts = list(_training(need, stage, trained, lora))
    if stage == "reward" and config.kind == "features":
        parts.append(need.weights("frozen base", models.get("features", trained).parameters))
    if stage == "rl":
        parts += _beside_the_policy(need, trained, lora, scorers)
    if stage == "dpo" and config.online:
        parts += _in_rounds(need, trained, lora, scorers)
    if stage == "ilql":
        parts += _critic(need, trained, scorers)
    parts += _forward(need, stage, trained, lora)
    return [*parts, *_left_behind(need, parts), *_read_back(need, parts), *process]


def rows_of_step(
    stage: str, config: Any, placement: Placement, trained: Shape, lengths: Lengths
) -> tuple[Rows, float, float]:
    """The rows of one pass of a step, how many such passes it makes, and how many tokens of each become logits."""
    need = _Need(config, placement, lengths)
    rows, projected = need.batch(stage, trained)
    updates = config.epochs * config.minibatches if stage == "rl" else 1
    return rows, updates * need.micro_batches(stage), projected


def checkpoint_bytes(stage: str, config: Any, placement: Placement, models: Mapping[str, Shape]) -> int:
    """What the checkpoints of a run take: four at most, each the trained weights and two numbers of each beside."""
    trained = trained_model(models)
    need = _Need(config, placement, Lengths(0, 0))
    parts = _training(need, stage, trained, learns_lora(stage, config, trained))
    learnt = next(part.bytes for part in parts if part.name == "gradients")
    return 4 * 3 * (learnt + (_learnt_by_value(need, trained)[1] if stage == "rl" else 0))


def _training(need: _Need, stage: str, trained: Shape, lora: bool) -> Iterator[Part]:
    whole, head = trained.parameters, 0
    if stage == "reward":
        whole, head = (trained.scoring, trained.width) if need.config.kind == "sequence" else (trained.with_features, 0)
    quantised = need.config.model.quantise if lora else "none"
    yield need.weights("weights", whole) if quantised == "none" else need.few_bits(quantised, whole, trained)
    learnt, muon = whole, trained.matrices
    if lora:
        learnt, muon = trained.lora + head, trained.lora  # a copy of the head learns with them
        yield Part("adapter", learnt * 4, f"{learnt:,} parameters x 4 bytes (float32, whatever the rest is)")
    if need.dtype.itemsize < 4 and not lora:
        yield Part(
            "exact weights", learnt * 4, f"{learnt:,} trained parameters x 4 bytes (float32, of what is rounded)"
        )
    dtype = torch.float32  # what learns is exact, whatever the model computes in
    phases = (
        (UPDATE, STEP) if need.two_passes(stage) or need.micro_batches(stage) > 1 else (STEP,)
    )  # of a pass that came before
    yield Part("gradients", learnt * dtype.itemsize, f"{learnt:,} trained parameters x {_each(dtype)}", phases)
    muon = muon if need.config.optimizer.name == "muon" else 0
    how = f"AdamW 2 x {learnt - muon:,}" + (f" + Muon {muon:,}" if muon else "")
    yield Part("optimizer", (2 * learnt - muon) * dtype.itemsize, f"({how}) numbers x {_each(dtype)}")


def _beside_the_policy(need: _Need, trained: Shape, lora: bool, scorers: Mapping[str, RewardShape]) -> Iterator[Part]:
    yield from _in_rounds(need, trained, lora, scorers)
    if need.config.estimator == "ppo":
        numbers, bytes_ = _learnt_by_value(need, trained)
        name = "value head" if need.config.value.model == "trunk" else "value model"
        rounded = bytes_ if bytes_ < numbers * 4 else 0
        how = f"{numbers:,} parameters x 4 (weight, gradient, 2 of AdamW) x 4 bytes (float32)"
        yield Part(name, numbers * 16 + rounded, how + (" + the same, rounded" if rounded else ""))


def _learnt_by_value(need: _Need, trained: Shape) -> tuple[int, int]:
    """What a value model learns, in numbers and bytes: its head is small, an adapter or a trunk of its own is not."""
    config = need.config
    if config.estimator != "ppo":
        return 0, 0
    head = trained.width**2 + 2 * trained.width + 1
    if config.value.model == "reward":
        return trained.lora + trained.width + 1, 4 * (trained.lora + trained.width + 1)
    if config.value.model == "own" and not learns_lora("rl", config, trained):
        numbers = trained.parameters - trained.head + head
        return numbers, numbers * need.dtype.itemsize
    numbers = head + (trained.lora if config.value.model == "own" else 0)
    return numbers, 4 * numbers


def _in_rounds(need: _Need, trained: Shape, lora: bool, scorers: Mapping[str, RewardShape]) -> Iterator[Part]:
    """What writes and scores the completions of a round, and the reference they are held to."""
    if lora:
        yield Part("reference", 0, "the policy with its adapter off")
        if need.config.model.quantise == "none":  # in few bits nothing is folded in, so nothing is kept aside
            yield need.weights(FOLDED, trained.matrices, (SAMPLING,))
    else:
        yield need.weights("reference", trained.parameters)
    for role, scorer in scorers.items():
        yield need.scorer(role, scorer)
    yield need.cache(trained)


def _critic(need: _Need, trained: Shape, scorers: Mapping[str, RewardShape]) -> Iterator[Part]:
    """Two Q, their targets, and the value; the reward model scores before anything is trained, and goes."""
    one = trained.width**2 + trained.width + (trained.width + 1) * trained.vocabulary
    value = trained.width**2 + 2 * trained.width + 1
    numbers = 2 * one * 5 + value * 4
    how = f"2 Q of {one:,} parameters x 5 (weight, gradient, 2 of AdamW, target) + value {value:,} x 4"
    yield Part("critic", numbers * 4, f"({how}) x 4 bytes")
    for role, scorer in scorers.items():
        yield need.scorer(role, scorer)


def _winrate(need: _Need, models: Mapping[str, Shape], scorers: Mapping[str, RewardShape]) -> Iterator[Part]:
    """The models write one after the other; stored completions need none."""
    if models:
        largest = max(models.values(), key=lambda shape: shape.parameters)
        yield need.weights("weights", largest.parameters)
        yield need.cache(largest)
    for role, scorer in scorers.items():
        yield need.scorer(role, scorer)


def _forward(need: _Need, stage: str, trained: Shape, lora: bool) -> Iterator[Part]:
    """What an update keeps for its backward pass, what comes and goes beside it, and what the allocator keeps of both.

    Large logits are made in chunks, and made again in the backward pass, so there are never more than these at once.
    """
    rows, projected = need.batch(stage, trained)
    found, known = need.count(trained, rows, "lora" if lora else "all")
    how = f"{rows.count:g} rows x {rows.tokens:,.0f} tokens x {found.kept / rows.all_tokens:,.0f} bytes, {known}"
    yield Part("activations", round(found.kept), how, (UPDATE,))
    yield Part("workspace", round(found.working), "the most that comes and goes in the backward pass", (UPDATE,))
    if projected:
        yield need.logits(projected, trained, UPDATE)
    if stage == "rl" or (stage == "dpo" and need.config.online):
        yield from _seen(need, trained, rows)
    share = KEPT_BY_ALLOCATOR[need.placement.device.type, lora]
    if need.two_passes(stage) and not lora:  # with adapters, what the first left is given back before the second
        share *= SECOND_PASS
    how = f"{share:g} x activations: what the allocator keeps of freed blocks, as measured"
    yield Part("allocator", round(share * found.kept), how, (UPDATE,))


def _seen(need: _Need, trained: Shape, rows: Rows) -> Iterator[Part]:
    """A whole rollout's log-probabilities, computed at once unless `run.micro_batch` says otherwise."""
    config = need.config
    prompts = config.prompts_per_step if need.config.stage == "rl" else config.batch_size
    at_once = Rows(min(config.run.micro_batch or prompts, prompts), rows.tokens, rows.packed)
    found, _ = need.count(trained, at_once, "nothing")
    yield Part("scoring pass", round(found.working), f"{at_once.count:g} rows without a gradient", (SCORING,))
    tokens = at_once.count * config.samples_per_prompt * config.sampling.max_new_tokens
    yield replace(need.logits(tokens, trained, SCORING), name="scoring logits")


def _left_behind(need: _Need, parts: Sequence[Part]) -> Iterator[Part]:
    """On a CPU freed blocks are kept, and those of sampling and scoring are of other sizes than an update's."""
    before = sum(part.bytes for part in parts if part.phases in ((SAMPLING,), (SCORING,)) and part.name != FOLDED)
    if before and need.placement.device.type == "cpu" and any(UPDATE in part.phases for part in parts):
        how = f"{LEFT_BEHIND:g} x what sampling and scoring took, freed but of no use: as measured"
        yield Part("left behind", round(LEFT_BEHIND * before), how, (UPDATE, STEP))


def _read_back(need: _Need, parts: Sequence[Part]) -> Iterator[Part]:
    """The best checkpoint is mapped when it is read back, and on a CPU what was freed by then still counts."""
    if need.placement.device.type == "cpu":
        learnt = next(part.bytes for part in parts if part.name == "gradients")
        yield Part("checkpoint", learnt, "the best weights as they are read back, a mapped file")


@dataclass(frozen=True)
class _Need:
    """What the parts have in common: the settings, the number type and the lengths."""

    config: Any
    placement: Placement
    lengths: Lengths

    @property
    def dtype(self) -> torch.dtype:
        return self.placement.dtype

    def process(self) -> Part:
        how = "libraries, tokenizer and database, as measured"
        return Part("process", PROCESS[self.placement.device.type], how)

    def weights(self, name: str, parameters: int, phases: tuple[str, ...] = ()) -> Part:
        return Part(name, parameters * self.dtype.itemsize, f"{parameters:,} parameters x {_each(self.dtype)}", phases)

    def count(self, shape: Shape, rows: Rows, trains: str) -> tuple[Pass, str]:
        """A pass, and how it is known: of families that cannot run without weights, by a rule for all transformers."""
        try:
            return count_pass(shape.config, self.config.model, self.dtype, rows, trains), "as counted on the model"
        except ModelError:
            kept = rows.all_tokens * shape.layers * (16 * shape.width + 5 * shape.mlp) * self.dtype.itemsize
            wide = 4 * rows.all_tokens * shape.mlp * self.dtype.itemsize
            return Pass(
                kept if trains != "nothing" else 0, wide
            ), "roughly: the model cannot be counted without weights"

    def logits(self, tokens: float, shape: Shape, phase: str) -> Part:
        count = round(min(tokens * shape.vocabulary, max(WHOLE_LOGITS, 1024 * shape.vocabulary)))
        copies = 3 if phase == UPDATE else 2
        return Part("logits", count * 4 * copies, f"{count:,} logits at once x {copies} copies x 4 bytes", (phase,))

    def few_bits(self, kind: str, parameters: int, shape: Shape) -> Part:
        """Matrices between hidden states in few bits; embeddings, norms and heads as they are."""
        rest = parameters - shape.matrices
        stored = bytes_of(kind, shape.matrices, shape.rows)
        how = f"{shape.matrices:,} parameters in {kind} with their scales + {rest:,} x {_each(self.dtype)}"
        return Part("weights", stored + rest * self.dtype.itemsize, how)

    def scorer(self, role: str, scorer: RewardShape) -> Part:
        name = "judge" if role == "judge" else "reward model"
        if not scorer.adapters:
            return self.weights(name, scorer.parameters)
        how = f"{scorer.adapters:,} parameters x 4 bytes (an adapter on the policy's base)"
        if scorer.parameters:
            how += f" + {scorer.parameters:,} x {_each(self.dtype)}"
        return Part(name, scorer.adapters * 4 + scorer.parameters * self.dtype.itemsize, how)

    def cache(self, shape: Shape) -> Part:
        sampling = self.config.sampling
        tokens = min(shape.context, self.lengths.prompt + sampling.max_new_tokens)
        numbers = sampling.batch_size * tokens * shape.cache
        dtype = torch.float32 if self.placement.device.type == "cpu" and self.dtype.itemsize < 4 else self.dtype
        how = f"{sampling.batch_size} rows x {tokens} tokens x {shape.cache} keys and values x {_each(dtype)}"
        return Part("sampling cache", numbers * dtype.itemsize, how, (SAMPLING,))

    def two_passes(self, stage: str) -> bool:
        """Whether a value model with a pass of its own learns after the policy."""
        return bool(stage == "rl" and self.config.estimator == "ppo" and self.config.value.model != "trunk")

    def micro_batches(self, stage: str) -> int:
        prompts = self._prompts(stage)
        return math.ceil(prompts / self._at_once(stage))

    def _prompts(self, stage: str) -> int:
        """Prompts of one update, each with its completions."""
        config = self.config
        return int(math.ceil(config.prompts_per_step / config.minibatches) if stage == "rl" else config.batch_size)

    def _at_once(self, stage: str) -> int:
        """Prompts of one pass; RL and DPO's rounds count `run.micro_batch` in completions, at least a prompt's own."""
        prompts, size = self._prompts(stage), self.config.run.micro_batch
        if stage == "rl" and size:
            size = max(1, size // self.config.samples_per_prompt)
        return min(size or prompts, prompts)

    def batch(self, stage: str, trained: Shape) -> tuple[Rows, float]:
        """The rows of the largest pass, and how many of their tokens reach the vocabulary."""
        config, lengths = self.config, self.lengths
        each, answer = lengths.completions, lengths.completion
        if stage == "rl" or (stage == "dpo" and config.online):
            each = 2 if stage == "dpo" and config.pairs == "extremes" else config.samples_per_prompt
            answer = config.sampling.max_new_tokens
        prompts = self._at_once(stage)
        limit: int = getattr(config, "max_tokens", 0) or trained.context
        on_cpu, shared = self.placement.device.type == "cpu", not getattr(trained.config, "sliding_window", None)
        one = min(limit, lengths.prompt + answer)
        row = one + (each - 1) * (answer if shared else one)
        rows = Rows(prompts, row, packed=on_cpu) if shared else Rows(prompts * each, one)
        if on_cpu and shared and lengths.row:  # without padding, what decides is the mean; the batch may be above it
            sampled = each * answer if stage == "rl" or getattr(config, "online", False) else 0
            mean = lengths.row + sampled + 2 * lengths.spread / math.sqrt(prompts)
            rows = Rows(prompts, min(row, mean), packed=True)
        projected = {"pretrain": row, "reward": 0}.get(stage, each * min(answer, one))
        return rows, prompts * projected


def _each(dtype: torch.dtype) -> str:
    return f"{dtype.itemsize} bytes ({str(dtype).removeprefix('torch.')})"
