"""`trueup ensemble`: several reward models become one that also says how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .config import ModelSettings
from .errors import ConfigError
from .inputs import SCORERS, Ref, chain, find_input, note_inputs
from .store import Artifact, Workspace

MEMBER = "model"  # the roles of what an ensemble is made of: model0, model1, ...


def ensemble(ws: Workspace, models: Sequence[Ref], *, name: str = "") -> Artifact:
    """Put reward models that were trained with different seeds side by side; nothing is copied but their addresses."""
    from .models.ensemble import EnsembleReward
    from .models.load import load_reward, save_reward

    if len(models) < 2:
        raise ConfigError("an ensemble has at least two reward models", "train more with other seeds: --seed 1")
    members = note_inputs(ws, {f"{MEMBER}{i}": find_input(ws, "model", ref, SCORERS) for i, ref in enumerate(models)})
    single = [each for artifact in members.values() for each in _single(ws, artifact)]
    if len(set(single)) < len(single):
        raise ConfigError("a reward model is named twice", "the same model always agrees with itself")
    chains = [chain(ws, artifact) for artifact in members.values()]
    made = EnsembleReward([load_reward(each, ModelSettings()) for each in chains], [_addresses(ws, c) for c in chains])
    with ws.staging() as folder:
        save_reward(made, folder)
        return ws.put("reward", folder, parents=members, meta={"scorer": made.kind, "models": len(members)}, name=name)


def _single(ws: Workspace, artifact: Artifact) -> list[str]:
    """The ids of the reward models in it: its own, or those in an ensemble."""
    inside = [parent for role, parent in artifact.parents.items() if role.startswith(MEMBER)]
    return [each for parent in inside for each in _single(ws, ws.get(parent))] or [artifact.id]


def _addresses(ws: Workspace, folders: Sequence[str]) -> list[str]:
    """Folders of artifacts by their id, so that a workspace can move; models from elsewhere as they are."""
    artifacts = ws.path / "artifacts"
    return [path.name if (path := Path(folder)).parent == artifacts else folder for folder in folders]
