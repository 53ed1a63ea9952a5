"""LoRA through peft: several small adapters on one frozen base, the reference being the base with them off."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..config import ModelSettings
from ..errors import ModelError
from .language_model import LanguageModel

AUTO_ABOVE = 100_000_000  # parameters above which `adapter = "auto"` means LoRA


def wants_lora(settings: ModelSettings, parameters: int) -> bool:
    return settings.adapter == "lora" or (settings.adapter == "auto" and parameters > AUTO_ABOVE)


def count_lora(network: Any, rank: int) -> int:
    """How many parameters `add_lora` would add: two matrices beside every linear layer but the vocabulary's."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = network.get_output_embeddings()
    linear = [m for m in network.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    return sum(rank * sum(layer.weight.shape) for layer in linear)


def add_lora(network: Any, settings: ModelSettings, seed: int, task: str | None = "CAUSAL_LM") -> Any:
    """Put fresh LoRA layers into `network` in place and freeze the rest. Returns the peft object that owns them."""
    peft = _peft()
    import torch
    from transformers.pytorch_utils import Conv1D

    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,  # dropout would make ratio noise out of identical weights
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in network.modules()),  # GPT-2's transposed matrices
        task_type=task,
    )
    with torch.random.fork_rng(devices=[]), _hushed():
        torch.manual_seed(seed)
        return peft.get_peft_model(network, config)


def load_lora(network: Any, folder: str) -> Any:
    with _hushed():
        return _peft().PeftModel.from_pretrained(network, folder)


def adapter_names(folders: Sequence[str]) -> list[str]:
    return [f"member{i}" for i in range(len(folders))]


def load_loras(network: Any, folders: Sequence[str]) -> Any:
    """Several adapters on one network, none of them merged; `set_adapter(name)` switches one on."""
    names = adapter_names(folders)
    with _hushed():
        made = _peft().PeftModel.from_pretrained(network, folders[0], adapter_name=names[0])
        for name, folder in zip(names[1:], folders[1:], strict=True):
            made.load_adapter(folder, adapter_name=name)
    return made


@contextmanager
def reference(model: LanguageModel) -> Iterator[None]:
    """The frozen base under the adapter, without a second copy."""
    assert model.adapter is not None, "a fully fine-tuned model has no adapter to switch off"
    with model.adapter.disable_adapter():
        yield


@contextmanager
def merged(model: LanguageModel) -> Iterator[None]:
    """Sample with plain matrices: LoRA folded in for the while, and the base restored bit for bit afterwards.

    `unmerge` would subtract what was added and leave rounding behind, so the base weights are kept aside instead.
    """
    if model.adapter is None:
        yield
        return
    from peft.tuners.lora import LoraLayer

    layers = [m for m in model.network.modules() if isinstance(m, LoraLayer) and not m.disable_adapters]
    kept = [layer.get_base_layer().weight.data.clone() for layer in layers]
    try:
        for layer in layers:
            layer.merge()
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.merged_adapters.clear()
            layer.get_base_layer().weight.data.copy_(weight)


@contextmanager
def _hushed() -> Iterator[None]:
    """What peft and transformers warn each other of is no news to the people who use them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ModelError("LoRA needs the package peft", "pip install 'trueup[lora]', or model.adapter=none") from error
    return peft
