"""`--dry-run` and `trueup env`: what a run would do and need, and where it would compute. No weights are loaded."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import wiring
from .config import STAGES, ModelSettings, Table, check
from .errors import ConfigError, WorkspaceError
from .inputs import INPUTS, MODELS, SCORERS, Input, find_inputs, stored_kind
from .records import Prompt
from .runs.versions import installed_versions
from .store import Workspace, human_size

if TYPE_CHECKING:  # torch loads when something is counted, not when this module is imported
    import torch

    from .memory import Lengths, Shape

MAKES = {"sample": "completions", "reward": "reward", "winrate": "evaluation"}  # every other stage makes a model
EXTRAS = {"lora": ("peft",), "data": ("pyarrow", "datasets")}  # as in pyproject.toml
CHARACTERS_PER_TOKEN = 3  # fewer than most tokenizers manage in most text: an estimate should err on the high side


def plan_stage(ws: Workspace, stage: str, inputs: Mapping[str, str], config: Table) -> dict[str, Any]:
    """The effective config, the inputs as found, what would be made, and an estimate of the memory it takes.

    Raises what the run itself would raise of its settings and inputs. Nothing is written.
    """
    if not isinstance(config, STAGES[stage]):
        raise ConfigError(f"stage '{stage}' takes a {STAGES[stage].__name__}, not a {type(config).__name__}")
    check(config)
    found = find_inputs(ws, stage, inputs, config)
    return {
        "stage": stage,
        "config": config.model_dump(mode="json"),
        "inputs": {role: _described(item) for role, item in found.items()},
        **_needs(stage, found, config),
    }


def _needs(stage: str, found: Mapping[str, Input], config: Any) -> dict[str, Any]:
    """What would be made and the memory for it: the part that imports torch."""
    from .memory import estimate, learns_lora
    from .models.device import place

    placement = place(config.model)
    models = _models(stage, found, config)
    scorers = {role: _scorer(item, config.model) for role, item in found.items() if _scores(stage, role)}
    made: dict[str, Any] = {"kind": MAKES.get(stage, "model"), "parents": _parents(found)}
    if stage in ("sft", "reward", "rl"):
        made["adapter"] = learns_lora(stage, config, models["policy" if stage == "rl" else "base"])
    parts = estimate(stage, config, placement, models, scorers, _lengths(found))
    return {
        "makes": [made],
        "memory": [{"part": part.name, **_size(part.bytes), "how": part.how} for part in parts],
        "memory_total": _size(sum(part.bytes for part in parts)),
        "memory_available": {"device": str(placement.device), **_size(_memory_of(placement.device))},
    }


def _described(item: Input) -> dict[str, Any]:
    rows = item.artifact.meta.get("rows") if item.artifact else None
    return {"kind": item.kind, "id" if item.artifact else "source": item.name} | ({"rows": rows} if rows else {})


def _parents(found: Mapping[str, Input]) -> dict[str, str]:
    return {"base" if role == "policy" else role: item.name for role, item in found.items()}


# --- shapes and lengths


def _models(stage: str, found: Mapping[str, Input], config: Any) -> dict[str, Shape]:
    """The language models by input. Adapters are folded in when they load: what counts is the root of the chain."""
    from .memory import measure
    from .models.load import new_config

    if stage == "pretrain":
        architecture = config.architecture
        return {"base": measure(new_config(architecture, architecture.vocabulary), config.model)}
    return {
        role: _writer(item.folders[0], config.model)
        for role, item in found.items()
        if item.kind in MODELS and not _scores(stage, role)
    }


def _scores(stage: str, role: str) -> bool:
    return INPUTS[stage][role] == SCORERS


def _writer(source: str, settings: ModelSettings) -> Shape:
    from .memory import measure
    from .models.load import load_config

    return measure(load_config(source, settings), settings)


def _scorer(item: Input, settings: ModelSettings) -> int:
    """Parameters of a reward model of either kind."""
    return _scoring(item.folders, settings)


def _scoring(chain: Sequence[str], settings: ModelSettings) -> int:
    from .memory import measure
    from .models.ensemble import members_of
    from .models.load import load_config
    from .models.reward_model import PARTS

    kind = stored_kind(chain[-1])
    if kind == "ensemble":
        members = members_of(chain[-1])
        one_base = len(members[0]) > 1 and all(each[:-1] == members[0][:-1] for each in members)
        return _scoring(members[0], settings) if one_base else sum(_scoring(each, settings) for each in members)
    if kind == "features":
        trunk, base = (_writer(f"{chain[0]}/{part}", settings) for part in PARTS)
        return trunk.with_features + base.parameters
    return measure(load_config(chain[0], settings), settings).scoring


def _lengths(found: Mapping[str, Input]) -> Lengths:
    """Tokens estimated from characters: a plan needs no tokenizer."""
    from .memory import Lengths

    answers = _answers(found)
    texts = [text for _, each in answers.values() for text in each]
    return Lengths(
        prompt=max((_tokens("".join(m.content for m in prompt.messages)) for prompt, _ in answers.values()), default=0),
        completion=max(map(_tokens, texts), default=0),
        completions=max((len(each) for _, each in answers.values()), default=1),
    )


def _answers(found: Mapping[str, Input]) -> dict[str, tuple[Prompt, set[str]]]:
    """The prompts of the data, and the completions to learn from, each once."""
    (artifact,) = (item.artifact for role, item in found.items() if role in ("data", "prompts"))
    assert artifact is not None, "data is always in the workspace"
    if "prompts" in found:
        return {prompt.id: (prompt, set()) for prompt in wiring.read_prompts(artifact)}
    answers: dict[str, tuple[Prompt, set[str]]] = {}
    if artifact.kind == "demonstrations":
        for demonstration in wiring.read_demonstrations(artifact):
            answers.setdefault(demonstration.prompt.id, (demonstration.prompt, set()))[1].add(demonstration.completion)
    else:
        for judgement in wiring.read_judgements(artifact):
            answers.setdefault(judgement.prompt.id, (judgement.prompt, set()))[1].update(judgement.completions)
    return answers


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


# --- where it would compute


def describe_environment(workspace: str | Path | None = None) -> dict[str, Any]:
    """Versions, device and number type with the reason for them, memory, and what else is there or not."""
    from .models.device import cores, place

    placement = place(ModelSettings())
    return {
        "versions": installed_versions(),
        "device": str(placement.device),
        "device_name": _name_of(placement.device),
        "dtype": str(placement.dtype).removeprefix("torch."),
        "why": placement.why,
        "threads": cores(),
        "memory": _size(_memory_of(placement.device)),
        "extras": {extra: _installed(extra, modules) for extra, modules in EXTRAS.items()},
        "workspace": _found(workspace),
    }


def _name_of(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _memory_of(device: torch.device) -> int:
    """All of it: the GPU's, or the machine's."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _installed(extra: str, modules: Sequence[str]) -> str:
    lacking = [module for module in modules if find_spec(module) is None]
    return f"{', '.join(lacking)} not installed: pip install 'trueup[{extra}]'" if lacking else "installed"


def _found(workspace: str | Path | None) -> str:
    """Where it is, or why there is none: not having one yet is no error here."""
    try:
        with Workspace.find(workspace) as ws:
            return str(ws.path)
    except WorkspaceError as error:
        return f"none ({error.message})"


def _size(count: int) -> dict[str, Any]:
    return {"bytes": count, "size": human_size(count)}
