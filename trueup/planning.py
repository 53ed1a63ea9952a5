"""`--dry-run` and `trueup env`: what a run would do and need, and where it would compute. No weights are loaded."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from . import loading
from .config import STAGES, ModelSettings, StageConfig, Table, check
from .errors import ConfigError, WorkspaceError
from .inputs import FUNCTION, MODELS, Input, Ref, find_inputs, scores, stored_kind
from .preparing import few_prompts, how_many_held_out
from .records import Prompt
from .runs.progress import note
from .runs.versions import installed_versions
from .scorers import check_scorers
from .store import Workspace, human_size

if TYPE_CHECKING:  # torch loads when something is counted, not when this module is imported
    import torch

    from .memory import Lengths, Part, RewardShape, Shape
    from .text.chat import Encoder

MAKES = {
    "sample": "completions",
    "reward": "reward",
    "winrate": "evaluation",
    "safety": "evaluation",
    "compare": "evaluation",
}  # every other stage makes a model
EXTRAS = {"lora": ("peft",), "data": ("pyarrow", "datasets"), "quant": ("bitsandbytes",)}  # as in pyproject.toml
SAMPLED = 64  # prompts that are tokenised to know the longest: those of the most bytes


def plan_stage(ws: Workspace, stage: str, inputs: Mapping[str, Ref], config: Table) -> dict[str, Any]:
    """The effective config, the inputs as found, what would be made, and an estimate of the memory it takes.

    Raises what the run itself would raise of its settings and inputs. Nothing is written.
    """
    if not isinstance(config, STAGES[stage]):
        raise ConfigError(f"stage '{stage}' takes a {STAGES[stage].__name__}, not a {type(config).__name__}")
    check(config)
    found = find_inputs(ws, stage, inputs, config)
    models = _models(stage, found, config)
    _check_possible(stage, found, config, models)
    _note_few_prompts(stage, found, config)
    return {
        "stage": stage,
        "config": config.model_dump(mode="json"),
        "inputs": {role: _described(item) for role, item in found.items()},
        **_needs(stage, found, config, models),
    }


def stage_seconds(
    ws: Workspace, stage: str, inputs: Mapping[str, Ref], config: Table, again: bool = False
) -> dict[str, float]:
    """Seconds of a step by phase, on this machine: it is measured for that, once or `again`, which takes seconds."""
    from .memory import trained_model
    from .models.device import place
    from .sizing.calibrate import this_machine
    from .sizing.durations import measured_on, step_seconds

    found = find_inputs(ws, stage, inputs, config)
    models = _models(stage, found, config)
    settings, trained = config.model, trained_model(models)  # type: ignore[attr-defined]
    lengths, _ = _lengths(stage, found, config, models)
    threads = config.run.threads  # type: ignore[attr-defined]
    machine = this_machine(measured_on(trained, lengths), settings, threads=threads, again=again)
    scorers = _scorers(stage, found, config, models)
    return step_seconds(stage, config, place(settings), trained, scorers, replace(lengths, spread=0.0), machine)


def _scorers(
    stage: str, found: Mapping[str, Input], config: Any, models: Mapping[str, Shape]
) -> dict[str, RewardShape]:
    from .memory import learns_lora, trained_model

    policy = found["policy"].folders if stage in ("rl", "dpo") else ()
    lora = bool(policy) and learns_lora(stage, config, trained_model(models))
    return {
        role: _scorer(item.folders, config.model, policy, lora)
        for role, item in found.items()
        if scores(stage, role) and item.kind != FUNCTION
    }


def _needs(stage: str, found: Mapping[str, Input], config: Any, models: Mapping[str, Shape]) -> dict[str, Any]:
    """What would be made and the memory for it: the part that imports torch."""
    from .memory import estimate, learns_lora, peak, trained_model
    from .models.device import place

    placement, scorers = place(config.model), _scorers(stage, found, config, models)
    made: dict[str, Any] = {"kind": MAKES.get(stage, "model"), "parents": _parents(found)}
    if isinstance(config, StageConfig) and stage != "pretrain":
        made["adapter"] = learns_lora(stage, config, trained_model(models))
    lengths, how = _lengths(stage, found, config, models)
    parts = estimate(stage, config, placement, models, scorers, lengths)
    most, phase = peak(parts)
    return {
        "makes": [made],
        "lengths": {**asdict(lengths), "how": how},
        "memory": [described_part(part) for part in parts],
        "memory_total": {**_size(most), "when": phase or "always"},
        "memory_available": {"device": str(placement.device), **_size(_memory_of(placement.device))},
    }


def described_part(part: Part) -> dict[str, Any]:
    """A part of the memory as a plan shows it; `when` is left out where it is always there."""
    when = {"when": " and ".join(part.phases)} if part.phases else {}
    return {"part": part.name, **_size(part.bytes), **when, "how": part.how}


def _note_few_prompts(stage: str, found: Mapping[str, Input], config: Any) -> None:
    """What the run itself would say when it has read them, of those that are not too long."""
    if stage not in ("rl", "dpo") or "prompts" not in found:
        return
    there = len(_answers({"prompts": found["prompts"]}))
    learnt_on = there - how_many_held_out(there, config.guard.evaluation_prompts)
    if few := few_prompts(learnt_on, config.prompts_per_step if stage == "rl" else config.batch_size):
        note(few)


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
        if item.kind in MODELS and not scores(stage, role)
    }


def _writer(source: str, settings: ModelSettings) -> Shape:
    from .memory import measure
    from .models.load import load_config

    return measure(load_config(source, settings), settings)


def _scorer(chain: Sequence[str], settings: ModelSettings, policy: Sequence[str], lora: bool) -> RewardShape:
    """A reward model of any kind, as it is loaded beside a policy."""
    from .memory import RewardShape
    from .models.adapters import count_stored
    from .models.ensemble import members_of
    from .models.load import shares_base

    chains = members_of(chain[-1]) if stored_kind(chain[-1]) == "ensemble" else [chain]
    sharing = [each for each in chains if shares_base(each, policy, lora)]
    if not sharing:
        return RewardShape(_scoring(chain, settings))
    apart = sum(_scoring(each, settings) for each in chains if each not in sharing)
    return RewardShape(apart, sum(count_stored(each[-1]) for each in sharing))


def _scoring(chain: Sequence[str], settings: ModelSettings) -> int:
    from .memory import measure
    from .models.ensemble import members_of
    from .models.load import is_classifier, load_config, skeleton
    from .models.reward_model import PARTS

    kind = stored_kind(chain[-1])
    if kind == "ensemble":
        members = members_of(chain[-1])
        one_base = len(members[0]) > 1 and all(each[:-1] == members[0][:-1] for each in members)
        return _scoring(members[0], settings) if one_base else sum(_scoring(each, settings) for each in members)
    if kind == "features":
        trunk, base = (_writer(f"{chain[0]}/{part}", settings) for part in PARTS)
        return trunk.with_features + base.parameters
    config = load_config(chain[0], settings)
    if is_classifier(config):
        return int(skeleton(config, settings, scores=True).num_parameters())
    return measure(config, settings).scoring


def _lengths(stage: str, found: Mapping[str, Input], config: Any, models: Mapping[str, Shape]) -> tuple[Lengths, str]:
    """The longest prompt and completion in tokens, and how that is known."""
    from .memory import Lengths

    answers = sorted(_answers(found).values(), key=_bytes, reverse=True)
    completions = max((len(texts) for _, texts in answers), default=1)
    encoder = _encoder(stage, found, config, models, answers[:SAMPLED])
    if encoder is None:
        longest = [sum(len(m.content.encode()) for m in prompt.messages) for prompt, _ in answers]
        replies = [len(text.encode()) for _, texts in answers for text in texts]
        rows = [count + sum(len(t.encode()) for t in texts) for count, (_, texts) in zip(longest, answers, strict=True)]
        how = "bytes of the longest: there is no tokenizer at hand"
    else:
        longest = [len(encoder.prompt(prompt)) for prompt, _ in answers[:SAMPLED]]
        replies = [len(encoder.completion(prompt, text)) for prompt, texts in answers[:SAMPLED] for text in texts]
        rows = [_row_tokens(encoder, answer) for answer in answers[:: max(1, len(answers) // SAMPLED)]]
        how = f"tokens of the longest, among the {len(longest)} prompts of the most bytes; the mean row of {len(rows)}"
    row, spread = (fmean(rows), pstdev(rows)) if rows else (0.0, 0.0)
    return Lengths(max(longest, default=0), max(replies, default=0), completions, row, spread), how


def _row_tokens(encoder: Encoder, answer: tuple[Prompt, set[str]]) -> int:
    prompt, texts = answer
    return len(encoder.prompt(prompt)) + sum(len(encoder.completion(prompt, text)) for text in sorted(texts))


def _encoder(
    stage: str,
    found: Mapping[str, Input],
    config: Any,
    models: Mapping[str, Shape],
    answers: Sequence[tuple[Prompt, set[str]]],
) -> Encoder | None:
    """What will turn the data into tokens: pretraining makes its own; other models have theirs, if only a config."""
    from .models.load import load_encoder
    from .text.chat import Encoder, prompt_format
    from .text.tokenizer import EOS, PAD, train_tokenizer

    if stage == "pretrain":
        texts = [text for prompt, replies in answers for text in (prompt.text, *sorted(replies))]
        tokenizer = train_tokenizer(texts, config.architecture.vocabulary)
        return Encoder(tokenizer, prompt_format(tokenizer, config.prompt, eos=EOS, pad=PAD))
    role = next(iter(models), None)
    if role is None or _lacks_tokenizer(found[role].folders[-1]):
        return None
    encoder = load_encoder(found[role].folders[-1], config.model, getattr(config, "prompt", None))
    encoder.restrict(models[role].vocabulary)
    return encoder


def _lacks_tokenizer(folder: str) -> bool:
    """Whether it is a folder with none of the files that a tokenizer is made of."""
    names = ("tokenizer*", "vocab*", "*.model")
    return Path(folder).is_dir() and not any(path for name in names for path in Path(folder).glob(name))


def _bytes(answer: tuple[Prompt, set[str]]) -> int:
    prompt, replies = answer
    return sum(len(m.content.encode()) for m in prompt.messages) + max((len(r.encode()) for r in replies), default=0)


def _answers(found: Mapping[str, Input]) -> dict[str, tuple[Prompt, set[str]]]:
    """The prompts of the data, and the completions to learn from, each once."""
    (artifact,) = (item.artifact for role, item in found.items() if role in ("data", "prompts"))
    assert artifact is not None, "data is always in the workspace"
    if "prompts" in found:
        return {prompt.id: (prompt, set()) for prompt in loading.read_prompts(artifact)}
    answers: dict[str, tuple[Prompt, set[str]]] = {}
    if artifact.kind == "demonstrations":
        for demonstration in loading.read_demonstrations(artifact):
            answers.setdefault(demonstration.prompt.id, (demonstration.prompt, set()))[1].add(demonstration.completion)
    elif artifact.kind == "completions":
        for completion in loading.read_completions(artifact):
            answers.setdefault(completion.prompt.id, (completion.prompt, set()))[1].add(completion.text)
    else:
        for judgement in loading.read_judgements(artifact):
            answers.setdefault(judgement.prompt.id, (judgement.prompt, set()))[1].update(judgement.completions)
    return answers


# --- what a run would find out too late


def check_run(ws: Workspace, stage: str, found: Mapping[str, Input], config: Any) -> None:
    """Refuse a run that can be known to fail, before it is recorded.

    It asks again for its disk once everything is loaded: here the checkpoints are estimated, as the memory is.
    """
    from .memory import checkpoint_bytes
    from .models.device import place
    from .runs.run import check_space

    trains = isinstance(config, StageConfig)
    models = _models(stage, found, config) if trains else {}
    _check_possible(stage, found, config, models)
    if trains:
        check_space(ws.path, checkpoint_bytes(stage, config, place(config.model), models))


def _check_possible(stage: str, found: Mapping[str, Input], config: Any, models: Mapping[str, Shape]) -> None:
    """The device has to be there, the longest row within the context, and prompts have a gold score if that judges."""
    from .memory import trained_model
    from .models.device import place
    from .models.quantised import check_installed

    place(config.model)
    if isinstance(config, StageConfig):
        check_installed(config.model.quantise)
    check_scorers(stage, found, config)
    if stage == "rl" and config.estimator == "ppo" and config.value.model == "reward":
        _check_value(found)
    if stage == "winrate" and not {"judge", "asked", "verdicts"} & found.keys():
        artifact = found["prompts"].artifact
        assert artifact is not None, "prompts are always in the workspace"
        prompts = loading.read_prompts(artifact)
        loading.require_gold(prompts[: config.limit or len(prompts)])
    if getattr(config, "max_tokens", 0):
        loading.longest_row(config.max_tokens, trained_model(models).context)


def _check_value(found: Mapping[str, Input]) -> None:
    """What a value model on the reward model's trunk needs, as far as files tell; loading it asks for the rest."""
    from .models.value import no_trunk_for_value

    alone = found.get("reward")  # one with a name of its own is brought to a scale of its own
    if alone is None or alone.kind == FUNCTION or stored_kind(alone.folders[-1]):
        raise no_trunk_for_value()


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
