"""`trueup plan`: what the stages of tuning a model would take on a machine, before there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch

from ..config import ModelSettings, load
from ..errors import ConfigError
from ..memory import SAMPLING, Lengths, Part, RewardShape, Shape, estimate, measure, peak
from ..models.device import Placement, place
from ..planning import described_part
from ..store import human_size
from .calibrate import this_machine
from .durations import Share, measured_on, step_seconds
from .known import read_config
from .machines import Machine, known_gpu

METHODS = ("sft", "reward", "dpo", "kto", "ppo", "rloo", "grpo")
LOOP = ("sft", "reward", "ppo")  # what `all` stands for
DIVIDED = {
    *("weights", "exact weights", "adapter", "gradients", "optimizer"),
    *("reference", "reward model", "value model", "value head"),
}
NOT_BUILT = "training over several devices is not built yet: this is what it would take with data parallel training"


@dataclass(frozen=True)
class Wish:
    """What is to be done, and on what. `model` and `reward_model` are names, folders or hub ids."""

    model: str
    method: str = "all"
    gpu: str = "this"
    count: int = 1
    sharded: bool = False
    reward_model: str = ""
    adapter: str = "auto"
    quantise: str = "none"
    dtype: str = "auto"
    value: str = "trunk"
    rows: int = 10_000  # prompts, demonstrations or judgements
    epochs: float = 1.0
    batch: int = 64  # of them a step, over all devices
    micro_batch: int = 0  # of them at once on a device; 0 takes the largest that fits
    samples: int = 1
    passes: int = 1
    minibatches: int = 1
    prompt_tokens: int = 256
    completion_tokens: int = 256
    price: float = 0.0  # of one device and hour
    calibrate: bool = False


def plan(wish: Wish) -> dict[str, Any]:
    """Each stage's memory, time and cost, and what to change where it does not fit."""
    if wish.count > 1 and wish.gpu in ("cpu", "this"):
        raise ConfigError(
            f"--count {wish.count} of '{wish.gpu}' is not known: how fast this machine's devices reach each other",
            "name a known GPU with --gpu, or plan for one device",
        )
    methods = LOOP if wish.method == "all" else (wish.method,)
    stages = [_planned(Stage(wish, method)) for method in methods]
    hours = sum(stage["hours"] for stage in stages)
    machine = Stage(wish, methods[0]).machine
    found: dict[str, Any] = {
        "model": wish.model,
        "machine": {"name": machine.name, "count": wish.count, "memory": _size(machine.memory), "how": machine.how},
        "stages": stages,
        "hours": hours,
    }
    if wish.price:
        found["cost"] = hours * wish.price * wish.count
    if wish.count > 1:
        found["note"] = NOT_BUILT + (", its weights and optimizer in parts (ZeRO-3, FSDP)" if wish.sharded else "")
    return found


class Stage:
    """One stage of a wish, as its own config class has it, on one of the devices."""

    def __init__(self, wish: Wish, method: str) -> None:
        self.wish, self.method = wish, method
        self.name = "rl" if method in ("ppo", "rloo", "grpo") else method

    @cached_property
    def placement(self) -> Placement:
        wish = self.wish
        if wish.gpu in ("cpu", "this"):
            return place(self._model_settings())
        dtype = torch.bfloat16 if wish.dtype == "auto" else getattr(torch, wish.dtype)
        return Placement(torch.device("cuda"), dtype, "a known GPU")

    def _model_settings(self) -> ModelSettings:
        wish, device = self.wish, "cpu" if self.wish.gpu == "cpu" else "auto"
        return ModelSettings.model_validate(
            {"adapter": wish.adapter, "quantise": wish.quantise, "dtype": wish.dtype, "device": device}
        )

    @cached_property
    def trained(self) -> Shape:
        return _shape(self.wish.model, self._model_settings())

    @cached_property
    def scorers(self) -> dict[str, RewardShape]:
        if self.name != "rl":
            return {}
        if not self.wish.reward_model:
            return {"reward": RewardShape(self.trained.scoring)}
        return {"reward": RewardShape(_shape(self.wish.reward_model, self._model_settings()).scoring)}

    @property
    def lengths(self) -> Lengths:
        each = {"reward": 2, "dpo": 2}.get(self.name, 1)
        return Lengths(self.wish.prompt_tokens, self.wish.completion_tokens, each)

    @property
    def samples(self) -> int:
        """Completions a prompt; without a value model they are compared with one another."""
        return self.wish.samples if self.method == "ppo" else max(2, self.wish.samples)

    @property
    def batch(self) -> int:
        """Of one device."""
        return math.ceil(self.wish.batch / self.wish.count)

    @property
    def steps(self) -> int:
        return math.ceil(self.wish.rows * self.wish.epochs / self.wish.batch)

    def config(self, micro_batch: int) -> Any:
        """So many rows at once; where completions are sampled, as many at once as fit, but for halving."""
        whole = self._config(micro_batch, 1)
        if self.name != "rl":
            return whole
        halved = (self._config(micro_batch, 2**n) for n in range(self.batch.bit_length() + 4))
        return next(filter(self._sampling_fits, halved), whole)

    def _sampling_fits(self, config: Any) -> bool:
        parts = self._estimate(config)
        most = sum(part.bytes for part in parts if not part.phases or SAMPLING in part.phases)
        return most <= self.machine.memory

    def _config(self, micro_batch: int, halves: int) -> Any:
        wish = self.wish
        values: dict[str, Any] = {"run.micro_batch": micro_batch}
        if self.name == "rl":
            each = self.samples
            values |= {
                "estimator": self.method, "prompts_per_step": self.batch, "samples_per_prompt": each,
                "epochs": wish.passes, "minibatches": min(wish.minibatches, self.batch), "value.model": wish.value,
                "sampling.max_new_tokens": wish.completion_tokens, "run.micro_batch": micro_batch * each,
                "sampling.batch_size": max(1, self.batch * each // halves),
            }  # fmt: skip
        else:
            values |= {"batch_size": self.batch, "epochs": wish.epochs}
        settings = self._model_settings()
        values |= {f"model.{name}": getattr(settings, name) for name in ("adapter", "quantise", "dtype", "device")}
        return load(self.name, sets=[f"{key}={value}" for key, value in values.items()])

    def parts(self, micro_batch: int) -> list[Part]:
        return self._estimate(self.config(micro_batch))

    def _estimate(self, config: Any) -> list[Part]:
        role = "policy" if self.name in ("rl", "dpo", "kto") else "base"
        found = estimate(self.name, config, self.placement, {role: self.trained}, self.scorers, self.lengths)
        return list(self._divided(found)) if self.wish.sharded and self.wish.count > 1 else found

    def _divided(self, parts: Sequence[Part]) -> Iterator[Part]:
        """In parts over the devices; sampling needs the weights in one piece."""
        for part in parts:
            if part.name not in DIVIDED:
                yield part
                continue
            how = f"({part.how}) / {self.wish.count} devices"
            yield replace(part, bytes=math.ceil(part.bytes / self.wish.count), how=how)
        if self.name == "rl":
            size = self.trained.parameters * self.placement.dtype.itemsize
            yield Part("gathered weights", size, "whole while sampling", ("sampling",))

    @cached_property
    def machine(self) -> Machine:
        if self.wish.gpu not in ("cpu", "this"):
            return known_gpu(self.wish.gpu, str(self.placement.dtype).removeprefix("torch."))
        shapes = measured_on(self.trained, self.lengths)
        return this_machine(shapes, self._model_settings(), again=self.wish.calibrate)

    def needs(self, micro_batch: int) -> int:
        return peak(self.parts(micro_batch))[0]

    def largest(self) -> int:
        """The most rows at once that fit, or 0."""
        if (
            self.needs(self.batch) <= self.machine.memory
        ):  # looked at first: in one go, no gradients are there beside it
            return self.batch
        if self.needs(1) > self.machine.memory:
            return 0
        low, high = 1, self.batch
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.needs(middle) <= self.machine.memory else (low, middle - 1)
        return low

    def seconds(self, micro_batch: int) -> dict[str, float]:
        config, share = self.config(micro_batch), Share(self.wish.count, self.wish.sharded)
        return step_seconds(
            self.name, config, self.placement, self.trained, self.scorers, self.lengths, self.machine, share
        )


@lru_cache(maxsize=32)
def _shape(model: str, settings: ModelSettings) -> Shape:
    return measure(read_config(model), settings)


def _planned(stage: Stage) -> dict[str, Any]:
    largest = stage.largest()
    rows = stage.wish.micro_batch or largest or 1
    parts = stage.parts(rows)
    most, phase = peak(parts)
    seconds = stage.seconds(rows)
    hours = stage.steps * sum(seconds.values()) / 3600
    found: dict[str, Any] = {
        "stage": stage.method,
        "adapter": any(part.name == "adapter" for part in parts),
        "memory": [described_part(part) for part in parts],
        "memory_total": {**_size(most), "when": phase},
        "fits": most <= stage.machine.memory,
        "largest_batch": largest,
        "rows_at_once": rows,
        "steps": stage.steps,
        "step_seconds": seconds,
        "hours": hours,
    }
    if not found["fits"]:
        found["to_change"] = list(_changes(stage))
    if stage.wish.price:
        found["cost"] = hours * stage.wish.price * stage.wish.count
    return found


Change = Callable[[Wish, Stage], dict[str, Any] | None]  # what is then asked for; None where it changes nothing


def _changes(stage: Stage) -> Iterator[dict[str, Any]]:
    """One after the other, each on top of those before it, what costs least first, until it fits."""
    wish = replace(stage.wish, micro_batch=1)
    least = Stage(wish, stage.method).needs(1) + 1
    for what, change in CHANGES:
        changed = change(wish, stage)
        tried = Stage(replace(wish, **changed or {}), stage.method)
        if changed is None or tried.needs(1) >= least:  # nothing would be gained
            continue
        wish, least = tried.wish, tried.needs(1)
        fits = least <= tried.machine.memory
        yield {"change": what.format(wish=wish), "needs": _size(least), "fits": fits}
        if fits:
            return


def _one_row(wish: Wish, stage: Stage) -> dict[str, Any] | None:
    return {"micro_batch": 1} if stage.wish.micro_batch > 1 else None


def _sixteen_bits(wish: Wish, stage: Stage) -> dict[str, Any] | None:
    return {"dtype": "bfloat16"} if stage.placement.dtype.itemsize == 4 else None


def _in_parts(wish: Wish, stage: Stage) -> dict[str, Any] | None:
    return {"sharded": True} if wish.count > 1 and not wish.sharded else None


def _lora(wish: Wish, stage: Stage) -> dict[str, Any] | None:
    return None if any(part.name == "adapter" for part in stage.parts(1)) else {"adapter": "lora"}


def _few_bits(kind: str) -> Change:
    def change(wish: Wish, stage: Stage) -> dict[str, Any] | None:
        return None if wish.quantise in (kind, "nf4") else {"quantise": kind, "adapter": "lora"}

    return change


def _shorter(wish: Wish, stage: Stage) -> dict[str, Any] | None:
    return {"completion_tokens": wish.completion_tokens // 2} if wish.completion_tokens >= 64 else None


def _more(count: int) -> Change:
    def change(wish: Wish, stage: Stage) -> dict[str, Any] | None:
        at_hand = wish.gpu in ("cpu", "this")
        return None if at_hand or wish.count >= count else {"count": count, "sharded": True}

    return change


CHANGES: tuple[tuple[str, Change], ...] = (
    ("one row at once: --micro-batch 1", _one_row),
    ("weights in 16 bits: --dtype bfloat16", _sixteen_bits),
    ("weights and optimizer in parts over the {wish.count} devices: --sharded", _in_parts),
    ("LoRA in place of all weights: --adapter lora", _lora),
    ("the base in 8 bits: --quantise int8", _few_bits("int8")),
    ("the base in 4 bits: --quantise nf4", _few_bits("nf4")),
    ("completions of half the length: --completion-tokens {wish.completion_tokens}", _shorter),
    *((f"more devices: --count {count} --sharded", _more(count)) for count in (2, 4, 8, 16, 32, 64)),
)


def _size(count: int) -> dict[str, Any]:
    return {"bytes": count, "size": human_size(count)}
