"""One stage, from references and settings to its artifact: the way of every stage that `api` offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import config as configs
from . import wiring
from .config import Table
from .errors import ConfigError, DiskFullError
from .inputs import Ref, find_inputs, note_inputs
from .kept_models import shipped
from .runs import Run
from .runs.progress import note
from .store import Artifact, Workspace
from .store.artifacts import check_name


def run_stage(
    ws: Workspace, stage: str, refs: Mapping[str, Ref], config: Table | None, settings: Mapping[str, Any], name: str
) -> Artifact:
    """One stage. Whatever can be known to be wrong is refused before a run is recorded."""
    from .planning import check_run

    chosen = config_of(stage, config, settings)
    if name:
        check_name(name)
    found = find_inputs(ws, stage, {role: shipped(ws, ref) for role, ref in refs.items()}, chosen)
    chosen = settled(chosen)
    check_run(ws, stage, found, chosen)
    inputs = note_inputs(ws, found)
    run = Run.start(ws, stage, chosen.model_dump(mode="json"), inputs, seed=chosen.run.seed, name=name)
    return finished(run, chosen)


def settled(config: Any) -> Any:
    """With what is chosen by measuring: the run's record says it, so a resumed run computes in the same type."""
    from .models.device import fastest

    if config.model.dtype != "fastest":
        return config
    dtype, why = fastest(config.model)
    note(f"model.dtype = {dtype}: {why}")
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": dtype})})


def check_best_of(reward: Any, config: Any) -> None:
    if (reward is None) != (config.best_of == 1):
        raise ConfigError(
            "best_of above 1 needs a reward model or function to choose by, and such a one needs best_of above 1",
            "give both: reward=... and best_of=8",
        )


def finished(run: Run, config: Table) -> Artifact:
    try:
        artifact = wiring.execute(run, config)
    except DiskFullError as error:
        if run.checkpoints():
            error.hint = f"free some space (`trueup gc` lists what nothing needs), then go on: {run.resume_command}"
        raise
    if run.row.name:
        run.workspace.set_name(run.row.name, artifact)
    return artifact


def config_of(stage: str, config: Table | None, settings: Mapping[str, Any]) -> Any:
    cls = configs.CONFIGS[stage]
    if config is None:
        return configs.load(stage, flags=configs.flat(settings))
    if settings:
        raise ConfigError("give either a config or settings by name, not both", "a config already holds every setting")
    if not isinstance(config, cls):
        raise ConfigError(f"stage '{stage}' takes a {cls.__name__}, not a {type(config).__name__}")
    configs.check(config)
    return config
