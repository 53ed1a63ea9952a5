"""How much memory a stage needs, by part, from shapes alone.

Weights, gradients and optimizer state are counted exactly. What a forward pass keeps for the backward one is rough:
its formula stands in each line, and it takes the longest rows of the data for all of them, so it errs on the high
side. The total is the sum, although not everything is there at the same moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .config import ModelSettings
from .models.adapters import count_lora, linear_layers, wants_lora
from .models.device import Placement
from .models.language_model import WHOLE_LOGITS, context_of
from .models.load import check_quantised, skeleton
from .models.quantised import bytes_of


@dataclass(frozen=True)
class Part:
    """Some of the memory. `how` is its formula with the numbers in it."""

    name: str
    bytes: int
    how: str


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
    need = _Need(config, placement.dtype, lengths)
    if stage == "sample":
        parts = [need.weights("weights", models["model"].parameters), need.cache(models["model"])]
        return parts + [need.scorer(role, scorer) for role, scorer in scorers.items()]
    if stage == "winrate":
        return list(_winrate(need, models, scorers))
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
    return parts + list(_forward(need, stage, trained))


def checkpoint_bytes(stage: str, config: Any, placement: Placement, models: Mapping[str, Shape]) -> int:
    """What the checkpoints of a run take: four at most, each the trained weights and two numbers of each beside."""
    trained = trained_model(models)
    need = _Need(config, placement.dtype, Lengths(0, 0))
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
    dtype = torch.float32 if lora else need.dtype
    yield Part("gradients", learnt * dtype.itemsize, f"{learnt:,} trained parameters x {_each(dtype)}")
    muon = muon if need.config.optimizer.name == "muon" else 0
    how = f"AdamW 2 x {learnt - muon:,}" + (f" + Muon {muon:,}" if muon else "")
    yield Part("optimizer", (2 * learnt - muon) * dtype.itemsize, f"({how}) numbers x {_each(dtype)}")


def _beside_the_policy(need: _Need, trained: Shape, lora: bool, scorers: Mapping[str, RewardShape]) -> Iterator[Part]:
    yield from _in_rounds(need, trained, lora, scorers)
    if need.config.estimator == "ppo":
        numbers, bytes_ = _learnt_by_value(need, trained)
        name = "value head" if need.config.value.model == "trunk" else "value model"
        each = bytes_ // numbers
        yield Part(name, bytes_ * 4, f"{numbers:,} parameters x 4 (weight, gradient, 2 of AdamW) x {each} bytes")


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
            yield need.weights("kept while sampling", trained.matrices)
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


def _forward(need: _Need, stage: str, trained: Shape) -> Iterator[Part]:
    """A block of a transformer keeps about 12 vectors of its width and 4 of its MLP's for the backward pass.

    Large logits are made in chunks, and made again in the backward pass, so there are never more than these at once.
    """
    rows, tokens, projected = need.batch(stage, trained)
    numbers = rows * tokens * trained.layers * (12 * trained.width + 4 * trained.mlp)
    how = f"{rows} rows x {tokens} tokens x {trained.layers} layers x (12 x {trained.width} + 4 x {trained.mlp})"
    yield Part("activations", numbers * need.dtype.itemsize, f"{how} x {_each(need.dtype)}, roughly")
    if projected:
        logits = min(rows * projected * trained.vocabulary, max(WHOLE_LOGITS, 1024 * trained.vocabulary))
        yield Part("logits", logits * 12, f"{logits:,} logits at once x 3 copies x 4 bytes, roughly")


@dataclass(frozen=True)
class _Need:
    """What the parts have in common: the settings, the number type and the lengths."""

    config: Any
    dtype: torch.dtype
    lengths: Lengths

    def weights(self, name: str, parameters: int) -> Part:
        return Part(name, parameters * self.dtype.itemsize, f"{parameters:,} parameters x {_each(self.dtype)}")

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
        how = f"{sampling.batch_size} rows x {tokens} tokens x {shape.cache} keys and values x {_each(self.dtype)}"
        return Part("sampling cache", numbers * self.dtype.itemsize, how)

    def batch(self, stage: str, trained: Shape) -> tuple[int, int, int]:
        """The largest forward pass: rows, tokens in each, and how many of these reach the vocabulary."""
        config, lengths = self.config, self.lengths
        if stage == "rl":
            prompts, each = math.ceil(config.prompts_per_step / config.minibatches), config.samples_per_prompt
            answer = config.sampling.max_new_tokens
        elif stage == "dpo" and config.online:
            prompts, each = config.batch_size, config.samples_per_prompt if config.pairs == "all" else 2
            answer = config.sampling.max_new_tokens
        else:
            prompts, each, answer = config.batch_size, lengths.completions, lengths.completion
        limit = getattr(config, "max_tokens", 0) or trained.context
        tokens = min(limit, lengths.prompt + answer)
        projected = {"pretrain": tokens, "reward": 0}.get(stage, min(answer, tokens))
        return (config.run.micro_batch or prompts) * each, tokens, projected


def _each(dtype: torch.dtype) -> str:
    return f"{dtype.itemsize} bytes ({str(dtype).removeprefix('torch.')})"
