"""A collection from prompts and models: candidates are sampled by the ordinary stage, then put before people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import config as configs
from . import loading, wiring
from .config import CollectionConfig, SampleConfig
from .errors import ConfigError, DataError, NotFoundError
from .feedback.collect import Collected, Filling, check_question, collect, first_prompts
from .feedback.golds import agreed_golds, read_golds
from .inputs import PROMPTS, Ref, find_input, find_inputs, is_remote, note_inputs
from .kept_models import shipped
from .planning import check_run
from .runs import Run
from .store import Artifact, Workspace
from .store.items import NewItem

MOST = 9  # completions that can be shown together


@dataclass(frozen=True)
class Candidates:
    """What is to be sampled: `per_prompt` completions of each model for each prompt."""

    prompts: Ref | None = None
    models: tuple[Ref, ...] = ()
    per_prompt: int = 4
    sampling: Mapping[str, Any] = field(default_factory=dict)
    remote: Mapping[str, Any] = field(default_factory=dict)  # how a model behind a server is asked


def collect_for(
    ws: Workspace,
    name: str,
    config: CollectionConfig,
    completions: Sequence[Ref],
    candidates: Candidates,
    filling: Filling,
    guideline: str,
    golds: str,
) -> Collected:
    _check_sources(completions, candidates)
    checks = _golds(ws, golds, config)
    check_question(ws, name, config, checks, filling)
    sets = list(completions)
    if candidates.prompts is not None:
        prompts, drawn = _drawn(ws, candidates.prompts, filling)
        sets = [sampled(ws, model, prompts, candidates, filling.seed, i) for i, model in enumerate(candidates.models)]
        filling = replace(filling, limit=0, drawn=drawn)
    return collect(ws, name, config, sets, now=time.time(), guideline=guideline, golds=checks, filling=filling)


def _check_sources(completions: Sequence[Ref], candidates: Candidates) -> None:
    sampled = candidates.prompts is not None or bool(candidates.models)
    if bool(completions) == sampled or (candidates.prompts is None) != (not candidates.models):
        raise ConfigError(
            "what is to be judged comes either from completion sets, or from prompts and the models that answer them",
            "--completions SET, or --prompts PROMPTS --model MODEL",
        )
    if sampled and not 2 <= candidates.per_prompt * len(candidates.models) <= MOST:
        raise ConfigError(
            f"{len(candidates.models)} models with {candidates.per_prompt} completions a prompt each: "
            f"a prompt gets 2 to {MOST} in all",
            "change --per-prompt",
        )


def _golds(ws: Workspace, golds: str, config: CollectionConfig) -> list[NewItem]:
    if not golds:
        return []
    path = Path(golds)
    if path.is_file():
        return read_golds(ws, path, config)
    try:
        return agreed_golds(ws, golds, config)
    except NotFoundError:
        raise DataError(f"'{golds}' is neither a file of golds nor a collection", "give one of the two") from None


def _drawn(ws: Workspace, prompts: Ref, filling: Filling) -> tuple[Artifact, float]:
    """The prompts that are asked about, and their share of all: nothing is sampled in vain."""
    artifact = find_input(ws, "prompts", prompts, PROMPTS).artifact
    assert artifact is not None  # prompts are never taken from elsewhere
    everything = loading.read_prompts(artifact)
    if not filling.limit or filling.limit >= len(everything):
        return artifact, 1.0
    rows = [prompt.to_json() for prompt in first_prompts(everything, filling.limit, filling.seed)]
    made = loading.put_records(ws, "prompts", rows, parents={"prompts": artifact}, source="drawn for a collection")
    return made, len(rows) / len(everything)


def sampled(ws: Workspace, model: Ref, prompts: Artifact, candidates: Candidates, seed: int, number: int) -> Artifact:
    """A completion set by one model; the one that an earlier call made, if it is the same."""
    flags = {"per_prompt": candidates.per_prompt, "run": {"seed": seed + number}}
    flags |= {"sampling": dict(candidates.sampling)} if candidates.sampling else {}
    flags |= {"remote": dict(candidates.remote)} if candidates.remote and is_remote(model) else {}
    config = configs.load("sample", flags=configs.flat(flags))
    assert isinstance(config, SampleConfig)
    found = find_inputs(ws, "sample", {"model": shipped(ws, model), "prompts": prompts}, config)
    inputs = note_inputs(ws, found)
    settings = config.model_dump(mode="json")
    ids = {role: artifact.id for role, artifact in inputs.items()}
    for row in ws.run_rows():
        if (row.stage, row.status, dict(row.inputs), dict(row.config)) == ("sample", "done", ids, settings):
            return ws.get(row.outputs["completions"])
    check_run(ws, "sample", found, config)
    return wiring.execute(Run.start(ws, "sample", settings, inputs, seed=config.run.seed), config)
