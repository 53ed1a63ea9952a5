"""The least that a row's arithmetic can take: its matrix products at the rate that this machine reaches in a large one.

Counted from the model's shape and the real tokens of trueup's own way: no padding, and a prompt once for all its
completions. A backward pass is two forward ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRAINING = 3  # a forward and a backward pass, in forward passes


def passes(job: str, settings: Mapping[str, Any]) -> tuple[float, float]:
    """How often the tokens go through the trunk, and those of completions through the projection, in forward passes."""
    if job == "rl":  # sampled, scored, looked at by policy and reference, then learnt from
        own = settings["stage"].get("value", {}).get("model") == "own"
        learnt = TRAINING * settings["epochs"]
        return 4 + learnt + own * (1 + learnt), 3 + learnt
    return {
        "reward": (TRAINING, 0),
        "dpo": (TRAINING + 1, TRAINING + 1),
        "sft": (TRAINING, TRAINING),
        "sampler": (1, 1),
    }[job]


def operations(shape: Mapping[str, int], tokens: Mapping[str, int], trunk: float, head: float) -> float:
    """Additions and multiplications of `trunk` and `head` passes."""
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    weights = layers * (4 * hidden**2 + 3 * hidden * shape["intermediate_size"])
    both = tokens["prompt"] + tokens["completion"]
    attention = 4 * layers * hidden * looks(tokens)
    return trunk * (2 * weights * both + attention) + head * 2 * hidden * shape["vocab_size"] * tokens["completion"]


def looks(tokens: Mapping[str, int]) -> float:
    """How many pairs of tokens attention compares, from the mean lengths."""
    prompt = tokens["prompt"] / tokens["prompts"]
    completion = tokens["completion"] / tokens["completions"]
    return tokens["prompts"] * prompt**2 / 2 + tokens["completions"] * (completion * prompt + completion**2 / 2)


def floor_seconds(
    job: str, settings: Mapping[str, Any], shape: Mapping[str, int], tokens: Mapping[str, int], rate: float
) -> float:
    """Seconds of one core at `rate` operations a second."""
    return operations(shape, tokens, *passes(job, settings)) / rate
