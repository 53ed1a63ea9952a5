"""The inputs of a stage: what a name, an id, a folder or a hub id stands for, and whether the stage can use it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import ModelSettings
from .errors import ConfigError, ModelError, NotFoundError, TrueupError
from .store import JUDGED, Artifact, Workspace

Ref = str | Artifact

MODELS, SCORERS = ("model", "external"), ("reward", "external")
PROMPTS = ("prompts", "demonstrations", *JUDGED, "completions")
INPUTS: dict[str, dict[str, tuple[str, ...]]] = {  # stage -> input -> the kinds of artifact it may be
    "pretrain": {"data": ("demonstrations",)},
    "sft": {"base": MODELS, "data": ("demonstrations",)},
    "sample": {"model": MODELS, "prompts": PROMPTS},
    "reward": {
        "base": MODELS,
        "data": ("preferences", "unpaired"),
        "features": MODELS,
        "reference": ("completions", "demonstrations"),
    },
    "rl": {"policy": MODELS, "reward": SCORERS, "prompts": PROMPTS},
    "winrate": {
        "a": (*MODELS, "completions"),
        "b": (*MODELS, "completions"),
        "prompts": PROMPTS,
        "judge": SCORERS,
        "reward": SCORERS,
    },
}
OPTIONAL = {("reward", "features"), ("reward", "reference"), ("winrate", "judge"), ("winrate", "reward")}


@dataclass(frozen=True)
class Input:
    """An input of a stage: an artifact, or a model from elsewhere that a run notes as one."""

    kind: str
    artifact: Artifact | None
    folders: Sequence[str] = ()  # of a model: whole weights, then the adapters on them

    @property
    def name(self) -> str:
        return self.artifact.id if self.artifact else self.folders[0]


def find_inputs(workspace: Workspace, stage: str, refs: Mapping[str, Ref], config: Any) -> dict[str, Input]:
    """Every input of a stage, or an error if one is missing, unknown, or of a kind that the stage cannot use.

    Nothing is written, and of models no more than their configs is read: a run that cannot work is never recorded.
    """
    roles = INPUTS[stage]
    unknown = [role for role in refs if role not in roles]
    missing = [role for role in roles if role not in refs and (stage, role) not in OPTIONAL]
    if unknown or missing:
        what = f"has no input '{unknown[0]}'" if unknown else f"needs the input '{missing[0]}'"
        raise ConfigError(f"stage '{stage}' {what}", f"its inputs are {', '.join(roles)}")
    gold = {"judge"} if refs.get("judge") == "gold" else set()
    found = {role: find_input(workspace, role, ref, roles[role]) for role, ref in refs.items() if role not in gold}
    for role, item in found.items():
        if item.kind == "external":
            _check_elsewhere(item.folders[0], config.model, scores=roles[role] == SCORERS)
    if stage == "rl":
        _check_formats(found["policy"], found["reward"])
    return found


def find_input(workspace: Workspace, role: str, ref: Ref, kinds: Sequence[str]) -> Input:
    try:
        artifact = workspace.get(ref)
    except NotFoundError:
        source = _elsewhere(ref) if "external" in kinds and isinstance(ref, str) else ""
        if not source:
            raise
        return Input("external", None, [source])
    if artifact.kind not in kinds:
        called = artifact.id if isinstance(ref, Artifact) else ref
        raise TrueupError(
            f"'{called}' is of kind '{artifact.kind}', but the input '{role}' takes {' or '.join(kinds)}",
            "see `trueup artifacts list`",
        )
    is_model = artifact.kind in (*MODELS, *SCORERS)
    return Input(artifact.kind, artifact, chain(workspace, artifact) if is_model else ())


def note_inputs(workspace: Workspace, found: Mapping[str, Input]) -> dict[str, Artifact]:
    """The inputs as artifacts; a model from elsewhere gets one that points to it.

    The pointer holds no weights, only where they are and what they looked like: if they change, that is an error.
    """
    return {role: item.artifact or _note(workspace, item.folders[0]) for role, item in found.items()}


def resolve_model(workspace: Workspace, ref: Ref) -> Artifact:
    """A model of the workspace, or a local folder or hub id, which gets an artifact that points to it."""
    from .models.load import load_config

    found = find_input(workspace, "model", ref, (*MODELS, "reward"))
    if found.artifact is None and not stored_kind(found.folders[0]):
        load_config(found.folders[0], ModelSettings())  # an error if there is no such model
    return note_inputs(workspace, {"model": found})["model"]


def chain(workspace: Workspace, artifact: Artifact) -> list[str]:
    """Folders to load in order: weights first, then the adapters that sit on one another."""
    if artifact.kind == "external":
        pointer = json.loads((artifact.path / "source.json").read_text())
        if pointer["files"] and _look(Path(pointer["source"])) != pointer["files"]:
            raise ModelError(
                f"the model in {pointer['source']} is not the one it was when it was first used",
                "name the folder again to use it as it is now; older results keep pointing to what it was",
            )
        return [pointer["source"]]
    below = chain(workspace, workspace.get(artifact.parents["base"])) if artifact.meta.get("adapter") else []
    return [*below, str(artifact.path)]


def _elsewhere(ref: str) -> str:
    """A model outside the workspace: a local folder, or what reads like a hub id."""
    path = Path(ref).expanduser()
    if path.is_dir():
        return str(path.resolve())
    return ref if "/" in ref and not ref.startswith((".", "/", "~")) else ""


def _note(workspace: Workspace, source: str) -> Artifact:
    return workspace.put("external", _pointer(source, _look(Path(source))), meta={"source": source})


def _check_elsewhere(source: str, settings: ModelSettings, *, scores: bool) -> None:
    """A model from elsewhere has to be there, and to be what its input takes: its config tells."""
    from .models.load import load_config

    if scores and stored_kind(source):
        return
    config = load_config(source, settings)
    made_for = next(iter(config.architectures or ()), "")
    if not scores and "Classification" in made_for:
        raise ModelError(f"'{source}' is a {made_for}: it scores text and writes none", "name a causal language model")
    if scores and made_for and "SequenceClassification" not in made_for:
        raise ModelError(f"'{source}' is a {made_for}, not a reward model", "train one: trueup train reward")


def stored_kind(folder: str) -> str:
    """The kind of a reward model in a form of its own, `features` or `ensemble`; empty of what others open too."""
    from .models.reward_model import SETTINGS_FILE

    path = Path(folder) / SETTINGS_FILE
    kind = json.loads(path.read_text()).get("kind", "") if path.is_file() else ""
    return "" if kind == "sequence" else str(kind)


def _check_formats(policy: Input, reward: Input) -> None:
    """Policy and reward model must read prompts in one format. Asked of their files, before anything is loaded."""
    found = [_stored_format(item.folders[-1]) for item in (policy, reward)]
    if None not in found and found[0] != found[1]:
        raise ModelError(
            f"policy {policy.name} and reward model {reward.name} were trained with different prompt formats",
            "train the reward model on this policy's SFT model, so that both read prompts alike",
        )


def _pointer(source: str, files: Mapping[str, Any]) -> dict[str, bytes]:
    return {"source.json": json.dumps({"source": source, "files": files}, indent=1, sort_keys=True).encode()}


def _look(folder: Path) -> dict[str, Any]:
    """Sizes of the weights, digests of the small files: enough to notice a change without reading all."""

    def mark(path: Path) -> str:
        if path.stat().st_size > 2**22:
            with path.open("rb") as file:
                start = file.read(2**16)
            return f"{path.stat().st_size} {hashlib.sha256(start).hexdigest()}"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {p.name: mark(p) for p in files if p.suffix in (".json", ".safetensors", ".jinja", ".model")}


def _stored_format(folder: str) -> dict[str, Any] | None:
    path = Path(folder) / "prompt_format.json"
    return json.loads(path.read_text()) if path.is_file() else None
