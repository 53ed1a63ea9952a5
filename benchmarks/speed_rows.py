"""The rows of `benchmarks speed`: what each compares, with which settings, and what is promised of it.

A row is trueup's job and one or more of its peers', with the same settings unless a side says otherwise. Every side
runs in a process of its own and says how much it did in how many seconds of the processor, or how much memory it took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .lengths import Natural

OURS = "trueup"
PPO_TRL, OTHER_TRL = "1.12.0", "1.16.0"  # the last release with a PPOTrainer, and the newest at the time of writing


@dataclass(frozen=True)
class Side:
    """One program: of which environment, which of its jobs, and in what its settings differ from the row's."""

    name: str
    program: str  # beside this file
    job: str
    trl: str = ""  # the version whose environment it needs; trueup's own where it is empty
    settings: Mapping[str, Any] = field(default_factory=dict)
    promised: bool = True  # whether the row's target is against this peer; others are shown beside it


@dataclass(frozen=True)
class Row:
    name: str
    said: str
    unit: str  # what the work is counted in, or MiB
    least: float
    aim: float
    sides: tuple[Side, ...]  # trueup's, then its peers'
    settings: Mapping[str, Any] = field(default_factory=dict)
    shape: str = ""  # where it is not the one that was asked for

    @property
    def memory(self) -> bool:
        """Less is better, and seconds do not count."""
        return self.unit == "MiB"

    @property
    def peers(self) -> tuple[Side, ...]:
        return self.sides[1:]


@dataclass(frozen=True)
class NotMeasured:
    """A row that the table names and this program does not run."""

    name: str
    said: str
    least: float
    aim: float
    why: str


NO_JOB = "needs a GPU, and a job here that uses it"
NOT_MEASURED = (
    NotMeasured("gold", "time to a gold win rate that both reach", 3, 5, "a program of its own"),
    NotMeasured("gpu-sampler", "sampling on a GPU, beside transformers", 5, 0, NO_JOB),
    NotMeasured("gpu-bandwidth", "the same, share of the memory bandwidth", 0.4, 0, NO_JOB),
    NotMeasured("gpu-ppo", "PPO on a GPU, beside TRL 1.12", 4, 0, NO_JOB),
    NotMeasured("gpu-7b-few-bits", "PPO with adapters, 7B in 4 or 8 bits, at most GiB", 24, 0, NO_JOB),
    NotMeasured("gpu-7b", "the same in bf16", 40, 0, NO_JOB),
)


@dataclass(frozen=True)
class Size:
    """What all rows share, and what makes a quick run quick."""

    shape: str = "5m"
    large: str = "27m"
    prompts: int = 64
    iterations: int = 1  # that are timed; the spread comes from the rounds
    steps: int = 16
    skip: int = 3
    sampled: int = 256

    @classmethod
    def quick(cls) -> Size:
        return cls(shape="128x4x2048", large="128x4x2048", prompts=32, steps=8, skip=2, sampled=128)


def _ours(job: str, **settings: Any) -> Side:
    return Side(OURS, "speed_trueup", job, settings=settings)


def _trl(version: str, job: str, name: str = "", **settings: Any) -> Side:
    return Side(f"TRL {version.rpartition('.')[0]}{name}", "speed_trl", job, version, settings)


def _stage(**settings: Any) -> dict[str, Any]:
    return {"stage": {"estimator": "ppo", "kl_coefficient": 0.05} | settings}


def rows(size: Size, natural: Natural, ours_dtype: str = "fastest") -> list[Row]:
    """Every row, in the order of the table. `ours_dtype` is trueup's in the large row."""
    return [*_ppo(size, natural, ours_dtype), *_without_critic(size), *_offline(size), *_others(size, natural)]


def _rollout(size: Size, **settings: Any) -> dict[str, Any]:
    """64 completions in four minibatches, four times: sixteen optimizer steps an iteration, on either side."""
    return {
        "prompts_a_step": size.prompts, "samples": 1, "minibatches": 4, "epochs": 4, "iterations": size.iterations,
        "new_tokens": 48, "natural": None, "sampling_batch": 64, "kl": 0.05,
    } | settings  # fmt: skip


def _ppo(size: Size, natural: Natural, ours_dtype: str) -> list[Row]:
    equal, own = _ours("rl", **_stage(value={"model": "own"})), _ours("rl", **_stage())
    faster = replace(own, settings=own.settings | {"dtype": ours_dtype})
    trl, trl_bf16 = _trl(PPO_TRL, "ppo"), _trl(PPO_TRL, "ppo", " bf16", mixed_precision="bf16")
    lengths = {"natural": vars(natural), "new_tokens": natural.high}
    large = _rollout(size, prompts_a_step=size.prompts // 2, minibatches=2, iterations=1)
    grouped = _rollout(size, prompts_a_step=size.prompts // 4, samples=8, **lengths)
    return [
        Row("ppo-equal", "PPO, 48 tokens, a full critic", "completions", 1.4, 2, (equal, trl), _rollout(size)),
        Row("ppo", "PPO, 48 tokens, our default critic", "completions", 2, 3.5, (own, trl), _rollout(size)),
        Row(
            "ppo-27m", f"PPO at {size.large}, 48 tokens, dtype {ours_dtype}", "completions", 4, 6,
            (faster, replace(trl, name="TRL 1.12 fp32"), replace(trl_bf16, promised=False)), large, size.large,
        ),
        Row(
            "ppo-natural", "PPO, natural lengths", "completions", 4, 6, (own, trl),
            _rollout(size, **lengths),
        ),
        Row("ppo-16x8", "PPO, 16 prompts x 8, natural lengths", "completions", 4, 6, (own, trl), grouped),
    ]  # fmt: skip


def _without_critic(size: Size) -> list[Row]:
    settings = _rollout(size, prompts_a_step=size.prompts // 4, samples=4)
    rloo = (
        _ours("rl", **_stage(estimator="rloo")),
        _trl(OTHER_TRL, "online", estimator="rloo"),
    )
    grpo = (
        _ours("rl", **_stage(estimator="grpo", kl_in="loss", kl_estimator="k3")),
        _trl(OTHER_TRL, "online", estimator="grpo"),
    )
    return [
        Row("rloo", "RLOO, groups of 4, 48 tokens", "completions", 1.5, 2.5, rloo, settings),
        Row("grpo", "GRPO, groups of 4, 48 tokens", "completions", 1.5, 2.5, grpo, settings),
    ]


def _offline(size: Size) -> list[Row]:
    settings = {"batch": 8, "steps": size.steps, "skip": size.skip}
    pairs = settings | {"beta": 0.1, "moved": 1.5}
    return [
        Row("reward", "reward model", "pairs", 2, 3, (_ours("reward"), _trl(OTHER_TRL, "reward")), settings),
        Row("dpo", "DPO", "pairs", 2, 3, (_ours("dpo"), _trl(OTHER_TRL, "dpo")), pairs),
        Row("sft", "SFT, variable lengths", "real tokens", 1.4, 2, (_ours("sft"), _trl(OTHER_TRL, "sft")), settings),
    ]


def _others(size: Size, natural: Natural) -> list[Row]:
    sampling = {
        "prompts_a_step": size.sampled, "samples": 1, "iterations": 1, "sampling_batch": 64,
        "natural": vars(natural), "new_tokens": natural.high,
    }  # fmt: skip
    generate = Side("transformers", "speed_generate", "sampler")
    lora = _rollout(size, prompts_a_step=size.prompts // 2, minibatches=2, epochs=1, iterations=1, adapter="lora")
    beside = Side("LoRA SFT", "speed_trueup", "memory", settings={"stage": "SFT, LoRA"})
    return [
        Row("sampler", "sampling, natural lengths", "tokens", 2.5, 4, (_ours("sampler"), generate), sampling),
        Row(
            "memory-ppo-lora", "peak memory, PPO: one base and adapters", "MiB", 0.5, 0.35,
            (_ours("rl", **_stage(value={"model": "own"})), _trl(PPO_TRL, "ppo", " LoRA")), lora, size.large,
        ),
        Row(
            "memory-rl-sft", "peak memory, RL with adapters beside LoRA SFT", "MiB", 1.3, 1.15,
            (_ours("memory", stage="RL, adapters, value from the reward model"), beside), {}, size.large,
        ),
    ]  # fmt: skip
