"""LoRA through peft: several small adapters on one frozen base, the reference being the base with them off.

One network carries the adapters of several roles: the policy's, the value's, a reward model's. The policy's is on
unless a role is `switched` on for its own pass, and what learns is decided once, never by what is on.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ..config import ModelSettings
from ..errors import ModelError
from .language_model import LanguageModel
from .lean_lora import make_lean
from .quantised import FewBits, hush_bitsandbytes

AUTO_ABOVE = 100_000_000  # parameters above which `adapter = "auto"` means LoRA
OWN = "default"  # peft's name for the adapter that a network is trained with and saved with
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


def wants_lora(settings: ModelSettings, parameters: int) -> bool:
    return settings.adapter == "lora" or (settings.adapter == "auto" and parameters > AUTO_ABOVE)


def count_lora(network: Any, rank: int) -> int:
    """How many parameters `add_lora` would add: two matrices beside every linear layer but the vocabulary's."""
    return sum(rank * sum(layer.weight.shape) for layer in linear_layers(network))


def linear_layers(network: Any) -> list[Any]:
    """Those between hidden states."""
    from transformers.pytorch_utils import Conv1D

    head = network.get_output_embeddings()
    return [m for m in network.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]


def add_lora(network: Any, settings: ModelSettings, seed: int, task: str | None = "CAUSAL_LM") -> Any:
    """Put fresh LoRA layers into `network` in place and freeze the rest. Returns the peft object that owns them."""
    peft = _peft()
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
        made = peft.get_peft_model(network, config)
    make_lean(_layers(network))
    return made


def add_fresh(adapter: Any, name: str, seed: int) -> list[nn.Parameter]:
    """One more adapter of the same shape as the network's own, changing nothing yet; returns its parameters."""
    config = _peft().LoraConfig(**(adapter.peft_config[OWN].to_dict() | {"inference_mode": False}))
    return _add(adapter, name, config, seed)


def add_stored(adapter: Any, name: str, folder: str, extra: str) -> tuple[list[nn.Parameter], dict[str, torch.Tensor]]:
    """One more adapter, as it was saved, but for the layer `extra`, whose weights are returned beside it."""
    config = _peft().LoraConfig(**(stored_config(folder) | {"modules_to_save": None, "inference_mode": False}))
    with _fitting(folder):
        added = _add(adapter, name, config, seed=0)
        tensors = load_file(Path(folder) / WEIGHTS_FILE)
        beside = {key.rpartition(".")[2]: t for key, t in tensors.items() if f".{extra}." in key}
        lora = {key: tensor for key, tensor in tensors.items() if f".{extra}." not in key}
        found = _peft().set_peft_model_state_dict(adapter, lora, adapter_name=name)
    _check_all_there([key for key in found.missing_keys if f".{name}." in key] or found.unexpected_keys, folder)
    return added, beside


def add_copy(adapter: Any, name: str, of: str) -> list[nn.Parameter]:
    """One more adapter that starts as another one is."""
    config = _peft().LoraConfig(**(adapter.peft_config[of].to_dict() | {"inference_mode": False}))
    added = _add(adapter, name, config, seed=0)
    with torch.no_grad():
        for mine, other in zip(added, learnt(adapter, of), strict=True):
            mine.copy_(other)
    return added


def learnt(network: Any, name: str) -> list[nn.Parameter]:
    """The parameters of one adapter, in the order of the layers they sit beside."""
    return [p for key, p in network.named_parameters() if f".{name}." in key and ".lora_" in key]


def stored_config(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / CONFIG_FILE).read_text())
    return found


def count_stored(folder: str) -> int:
    """Parameters of a saved adapter, its head among them; only the file's first lines are read."""
    from safetensors import safe_open

    with safe_open(Path(folder) / WEIGHTS_FILE, "pt") as tensors:
        return sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118


def load_lora(network: Any, folder: str) -> Any:
    with _hushed(), _fitting(folder):
        made = _peft().PeftModel.from_pretrained(network, folder)
    _check_fits(made, OWN, folder)
    return made


def adapter_names(folders: Sequence[str]) -> list[str]:
    return [f"member{i}" for i in range(len(folders))]


def load_loras(network: Any, folders: Sequence[str]) -> Any:
    """Several adapters on one network, none of them merged; `set_adapter(name)` switches one on."""
    made = None
    for name, folder in zip(adapter_names(folders), folders, strict=True):
        made = put_on(network, made, name, folder)
    return made


def put_on(network: Any, adapter: Any, name: str, folder: str) -> Any:
    """A stored adapter on a network, beside those of `adapter` where it has some; returns peft's object."""
    _check_readable(folder)
    with _hushed(), _fitting(folder):
        if adapter is None:
            adapter = _peft().PeftModel.from_pretrained(network, folder, adapter_name=name)
        else:
            adapter.load_adapter(folder, adapter_name=name)
    _check_fits(adapter, name, folder)
    return adapter


@contextmanager
def switched(network: nn.Module, name: str | None) -> Iterator[None]:
    """One adapter on for the while, or with None the bare base; then as before, whatever happens in between.

    peft's own `set_adapter` would also freeze every other adapter, and switching back on unfreeze this one.
    """
    layers = _layers(network)
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = name is None
            if name is not None:
                layer._active_adapter = [name]
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled


def switch_off(network: nn.Module) -> None:
    """The bare base from now on, but where an adapter is `switched` on."""
    for layer in _layers(network):
        layer._disable_adapters = True


@contextmanager
def reference(model: LanguageModel) -> Iterator[None]:
    """The frozen base under the adapter, without a second copy."""
    assert model.adapter is not None, "a fully fine-tuned model has no adapter to switch off"
    with switched(model.network, None):
        yield


@contextmanager
def merged(model: LanguageModel) -> Iterator[None]:
    """Sample with plain matrices: LoRA folded in for the while, and the base restored bit for bit afterwards.

    `unmerge` would subtract what was added and leave rounding behind, so the base weights are kept aside instead. A
    base of few bits stays as it is: folded in and rounded again it would be another policy.
    """
    if model.adapter is None:
        yield
        return
    layers = [m for m in _layers(model.network) if not isinstance(m.get_base_layer(), FewBits)]
    layers = [layer for layer in layers if not layer.disable_adapters]
    kept = [layer.get_base_layer().weight.data.clone() for layer in layers]
    try:
        for layer in layers:
            layer.merge()
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.merged_adapters.clear()
            layer.get_base_layer().weight.data.copy_(weight)


def _add(adapter: Any, name: str, config: Any, seed: int) -> list[nn.Parameter]:
    """What learns elsewhere goes on learning: peft would freeze it. The new one is told by who asked for it."""
    learns = {id(p) for p in adapter.parameters() if p.requires_grad}
    with torch.random.fork_rng(devices=[]), _hushed():
        torch.manual_seed(seed)
        adapter.add_adapter(name, config)
    for parameter in adapter.parameters():
        parameter.requires_grad_(id(parameter) in learns)
    return learnt(adapter, name)


def _check_fits(adapter: Any, name: str, folder: str) -> None:
    """peft only warns of layers that an adapter lacks or that the model has not, and goes on with what fits."""
    from safetensors import safe_open

    with safe_open(Path(folder) / WEIGHTS_FILE, "pt") as tensors:
        stored = set(tensors.keys())
    wanted = set(_peft().get_peft_model_state_dict(adapter, adapter_name=name, save_embedding_layers=False))
    _check_all_there(sorted(key for key in wanted ^ stored if ".lora_" in key), folder)


def _check_all_there(odd: Sequence[str], folder: str) -> None:
    if odd:
        raise _does_not_fit(folder, f"{odd[0]} is in only one of them")


@contextmanager
def _fitting(folder: str) -> Iterator[None]:
    """What peft and torch say of an adapter whose matrices have another shape than the model's."""
    try:
        yield
    except (ValueError, KeyError) as error:
        raise _does_not_fit(folder, _first_line(error)) from error
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise _does_not_fit(folder, str(error).strip().splitlines()[-1].strip()) from error


def _check_readable(folder: str) -> None:
    """Before anything is changed for it: peft takes a missing file for a hub's, and a torn one for a bug."""
    from safetensors import SafetensorError, safe_open

    try:
        stored_config(folder)
        with safe_open(Path(folder) / WEIGHTS_FILE, "pt") as tensors:
            broken = [key for key in tensors.keys() if not tensors.get_tensor(key).isfinite().all()]  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"the adapter in '{folder}' cannot be read: {_first_line(error)}", "it may be damaged"
        ) from error
    if broken:
        raise ModelError(f"the adapter in '{folder}' holds NaN or infinity: {broken[0]}", "use an earlier one")


def _does_not_fit(folder: str, why: str) -> ModelError:
    return ModelError(
        f"the adapter in '{folder}' does not fit the model it is said to sit on: {why}",
        "it was trained on another base: use that one",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _layers(network: nn.Module) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in network.modules() if isinstance(module, LoraLayer)]


@contextmanager
def _hushed() -> Iterator[None]:
    """What peft and transformers warn each other of is no news to the people who use them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # GPT-2's transposed matrices, which peft sets right
        yield


def _peft() -> Any:
    hush_bitsandbytes()
    try:
        import peft
    except ImportError as error:
        raise ModelError("LoRA needs the package peft", "pip install 'trueup[lora]', or model.adapter=none") from error
    return peft
