"""What `same-ppo` compares: settings, random models, and rollouts that trueup's sampler wrote.

Weights are a function of a name and a seed by Python's own random numbers, so that they are the same on every machine
and with every version of torch.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from trueup.config import PromptSettings, Sampling
from trueup.records import Completion, Prompt
from trueup.text.chat import Encoder, prompt_format

WORDS = (
    "the a cat dog bird birds two horse rain some wind house town hill road door river sat ran sang slept went to from "
    "on in over red old small big and but then now never here"
).split()
PROMPTS = (
    "the cat", "a small dog ran to", "rain", "two birds sang in the old", "then the horse", "some wind",
    "the red house on the hill", "now",
)  # fmt: skip
TEMPLATE = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
UNKNOWN, PAD, EOS = "<unk>", "<pad>", "<eos>"
ROLES = ("policy", "reference", "value", "reward")
LONGEST = 7  # tokens of a completion
DRAWS, ATTEMPTS = 200, 16  # completions a prompt to choose from at once, and how often
UNLIMITED = 1e9  # as a gradient norm
Weights = dict[str, dict[str, np.ndarray]]  # by role, and by the name inside the trunk

# How long each completion is and whether it ended with EOS: without padding, and as rollouts are.
FULL = tuple((LONGEST, i % 2 == 0) for i in range(len(PROMPTS)))
UNEVEN = ((2, True), (4, True), (7, False), (7, True), (1, True), (5, True), (3, True), (7, False))


@dataclass(frozen=True)
class Shape:
    hidden: int = 16
    layers: int = 2
    heads: int = 4
    key_heads: int = 2
    norm_eps: float = 1e-6
    vocabulary: int = len(WORDS) + 3

    @property
    def mlp(self) -> int:
        return 3 * self.hidden // 2

    @property
    def config(self) -> dict[str, Any]:
        """As transformers names it."""
        return {
            "hidden_size": self.hidden, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads, "intermediate_size": self.mlp, "rms_norm_eps": self.norm_eps,
            "vocab_size": self.vocabulary, "max_position_embeddings": 64, "bos_token_id": None,
            "pad_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Settings that mean the same to all three programs. Adam's epsilon is large on purpose: Adam divides each entry
    of a gradient by its own size, which with a small one makes a step out of rounding."""

    name: str
    lengths: tuple[tuple[int, bool], ...] = UNEVEN
    shape: Shape = Shape()
    tied: bool = False
    temperature: float = 0.8
    kl_estimator: str = "k1"
    kl_coefficient: float = 0.1
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    value_coefficient: float = 0.1
    missing_eos: float | None = None
    epochs: int = 2
    minibatches: int = 2
    accumulation: int = 1
    optimizer: Mapping[str, Any] = field(
        default_factory=lambda: {"lr": 0.003, "betas": (0.9, 0.95), "eps": 0.1, "grad_clip": UNLIMITED}
    )
    sharpness: float = 1.0  # of the reference: far above 1 it finds some tokens of the policy all but impossible
    apart: tuple[str, ...] = ()  # quantities in which trueup and TRL are meant to differ here

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))


# What depends on where the score is put; with lambda 1 what the policy learns from does not.
LEARNT = ("policy loss", "gradient of the policy", "weights of the policy", "advantages", "returns")
BEHIND = ("rewards", "value loss", "whole loss", "gradient of the value", "weights of the value")


def cases(shape: Shape) -> list[Case]:
    limited = {"lr": 0.003, "betas": (0.9, 0.95), "eps": 0.1, "grad_clip": 0.25}
    return [
        Case("no padding", FULL, shape, gamma=0.99),
        Case("uneven, lambda 1", UNEVEN, shape, True, 1.0, "k3", lam=1.0, apart=BEHIND),
        Case("uneven", UNEVEN, shape, missing_eos=1.0, optimizer=limited, apart=(*BEHIND, *LEARNT, "score")),
        Case("uneven, accumulated", shape=shape, epochs=1, minibatches=1, accumulation=2, apart=(*BEHIND, *LEARNT)),
        Case("far away", shape=shape, epochs=1, sharpness=6.0, apart=("KL", *BEHIND, *LEARNT)),
    ]  # fmt: skip


def random_weights(case: Case, seed: int) -> Weights:
    """The reference is on the way from the policy to a model of its own, as after some training."""
    made = {role: _of_role(role, case, seed) for role in ROLES}
    for name, own in made["reference"].items():
        made["reference"][name] = (made["policy"][name] + own) / 2
    if not case.tied:
        made["reference"]["lm_head.weight"] *= case.sharpness
    return made


def _of_role(role: str, case: Case, seed: int) -> dict[str, np.ndarray]:
    s = case.shape
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (s.vocabulary, s.hidden), "norm.weight": (s.hidden,)}
    keys = s.hidden // s.heads * s.key_heads
    for i in range(s.layers):
        shapes |= {f"layers.{i}.{name}.weight": (s.hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"layers.{i}.self_attn.{p}_proj.weight": (s.hidden, s.hidden) for p in "qo"}
        shapes |= {f"layers.{i}.self_attn.{p}_proj.weight": (keys, s.hidden) for p in "kv"}
        shapes |= {f"layers.{i}.mlp.{p}_proj.weight": (s.mlp, s.hidden) for p in ("gate", "up")}
        shapes[f"layers.{i}.mlp.down_proj.weight"] = (s.hidden, s.mlp)
    shapes |= {
        "policy": {} if case.tied else {"lm_head.weight": (s.vocabulary, s.hidden)},
        "reference": {} if case.tied else {"lm_head.weight": (s.vocabulary, s.hidden)},
        "value": {
            "head.inner.weight": (s.hidden, s.hidden), "head.inner.bias": (s.hidden,),
            "head.outer.weight": (1, s.hidden), "head.outer.bias": (1,),
        },
        "reward": {"score.weight": (1, s.hidden)},
    }[role]  # fmt: skip
    return {name: _random(f"{seed}/{role}/{name}", shape) for name, shape in shapes.items()}


def _random(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Less the wider the model is; the weights of a norm around 1."""
    chance, around, reach = random.Random(name), 1.0 if "norm" in name else 0.0, 3.2 / math.sqrt(shape[-1])
    values = [around + reach * (chance.random() - 0.5) for _ in range(int(np.prod(shape)))]
    return np.array(values, dtype=np.float32).reshape(shape)


def encoder() -> Encoder:
    """A word a token. The tokens of PAD and EOS are those that `Shape.config` names."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate((UNKNOWN, PAD, EOS, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([UNKNOWN, PAD, EOS])
    return Encoder(tokenizer, prompt_format(tokenizer, PromptSettings(template=TEMPLATE), eos=EOS, pad=PAD))


def network(role: str, case: Case, weights: Weights) -> Any:
    """The model of a role as transformers has it: the trunk alone where the head is our own."""
    import torch
    import transformers

    family = {"value": transformers.LlamaModel, "reward": transformers.LlamaForSequenceClassification}.get(
        role, transformers.LlamaForCausalLM
    )
    config = transformers.LlamaConfig(**case.shape.config, tie_word_embeddings=case.tied, num_labels=1)
    made = family(config)
    within = "" if role == "value" else "model."
    heads = ("lm_head.", "score.")
    named = {n if n.startswith(heads) else within + n: torch.tensor(w) for n, w in weights[role].items()}
    if case.tied and role in ("policy", "reference"):
        named["lm_head.weight"] = named["model.embed_tokens.weight"]
    made.load_state_dict({name: tensor for name, tensor in named.items() if not name.startswith("head.")})
    return made.eval()


def write_rollout(case: Case, weights: Weights, seed: int) -> list[dict[str, Any]]:
    """For each prompt the first of many completions that is as long as the case asks for."""
    from trueup.engines.sampler import Sampler
    from trueup.models.language_model import LanguageModel

    policy = LanguageModel(network("policy", case, weights), encoder())
    sampling = Sampling(max_new_tokens=LONGEST, temperature=case.temperature)
    prompts = [Prompt.user(text) for text in PROMPTS]
    found: dict[int, Completion] = {}
    for attempt in range(ATTEMPTS):
        written = Sampler(policy).sample(prompts, sampling, seed=seed * ATTEMPTS + attempt, n=DRAWS)
        for i, completion in enumerate(written):
            if _fits(completion, case.lengths[i // DRAWS], policy.encoder.pad_id):
                found.setdefault(i // DRAWS, completion)
    if len(found) < len(prompts):
        raise click.ClickException("the policy hardly ever writes completions of the wanted lengths: another --seed")
    return [
        {
            "prompt": text, "prompt_tokens": list(policy.encoder.prompt(prompts[i])), "tokens": list(found[i].tokens),
            "finished": found[i].finished, "logprobs": list(found[i].logprobs),
        }
        for i, text in enumerate(PROMPTS)
    ]  # fmt: skip


def _fits(completion: Completion, wanted: tuple[int, bool], pad_id: int) -> bool:
    """TRL takes the first PAD for the end of the text, so completions that hold it as a word are left out."""
    return (len(completion.tokens), completion.finished) == wanted and pad_id not in completion.tokens


def save(folder: Path, case: Case, weights: Weights, rows: Sequence[Any], orders: Sequence[Sequence[int]]) -> None:
    """All that TRL needs, as files that transformers and safetensors read."""
    from safetensors.numpy import save_file
    from transformers.utils import logging

    from trueup.text.tokenizer import save_tokenizer

    logging.disable_progress_bar()
    for role in ("policy", "reference", "reward"):
        network(role, case, weights).save_pretrained(folder / role)
    save_file(weights["value"], folder / "value.safetensors")
    made = encoder()
    save_tokenizer(made.tokenizer, folder / "tokenizer", made.format)
    told = {"case": case.to_json(), "rows": list(rows), "orders": [list(order) for order in orders]}
    (folder / "case.json").write_text(json.dumps(told))
