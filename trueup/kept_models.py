"""The models that a workspace keeps and that write text: artifacts, and checkpoints of runs, finished or going on.

A checkpoint holds what its run trained and nothing else, so it is loaded onto what the run started from. The run may
be going on in another process and keeps few checkpoints: one that was there a moment ago may be gone, which is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .config import STAGES, ModelSettings
from .errors import ModelError, NotFoundError, TrueupError
from .inputs import Ref, chain
from .loading import read_demonstrations
from .preparing import store_model
from .runs import Run, checkpoints
from .store import Artifact, RunRow, Workspace
from .store.artifacts import check_name
from .wiring import untrained

if TYPE_CHECKING:  # torch loads when a model does, not when this module does
    import torch

    from .models.language_model import LanguageModel

CHECKPOINT = re.compile(r"(\S+)@([0-9]+)")
STARTS = {"pretrain": "", "sft": "base", "rl": "policy", "dpo": "policy", "kto": "policy", "ilql": "policy"}
OF_THE_MODEL = "0."  # how the names of its parameters begin in a checkpoint; those of heads beside it do otherwise
MOST_MODELS, MOST_RUNS = 200, 50  # that are offered; older ones can be named


@dataclass(frozen=True)
class Kept:
    """`ref` is the id of an artifact, or RUN@STEP; `words` what people call it; `made_from` is role -> artifact, where
    the lineage of what it writes goes on."""

    ref: str
    words: str
    made_from: Mapping[str, str]

    @property
    def meta(self) -> dict[str, Any]:
        """What stands with a completion by a checkpoint: no artifact says which run wrote it."""
        run, _, step = self.ref.partition("@")
        return {"run": run, "step": int(step)} if step else {}


def kept_models(ws: Workspace) -> list[Kept]:
    """Models that have a name, then the others, newest first."""
    names, newest = _names(ws), ws.artifacts("model")[::-1]
    found = sorted(newest, key=lambda each: each.id not in names)
    return [_of_artifact(each, names) for each in found[:MOST_MODELS]]


def kept_checkpoints(ws: Workspace) -> list[Kept]:
    """Of the newest runs first, the last step of each first."""
    found: list[Kept] = []
    runs = [row for row in reversed(ws.run_rows()) if row.stage in STARTS]
    for row in runs[:MOST_RUNS]:
        states = _states(ws, row)
        found += [_of_checkpoint(ws, row, states, step) for step in sorted(states, reverse=True)]
    return found


def find_kept(ws: Workspace, ref: str) -> Kept:
    """A model by id or name, or a checkpoint as RUN@STEP."""
    if "@" in ref:
        row, step = _row_and_step(ws, ref)
        states = _states(ws, row)
        if step not in states:
            raise _gone(row.id, step)
        return _of_checkpoint(ws, row, states, step)
    artifact = ws.get(ref)
    if artifact.kind != "model":
        raise TrueupError(f"{artifact.id} is of kind '{artifact.kind}', not 'model'", "choose one of the list")
    return _of_artifact(artifact, _names(ws))


def load_kept(ws: Workspace, ref: str, device: str = "auto") -> LanguageModel:
    """Ready to be sampled from: adapters are folded in, and nothing will be trained."""
    if "@" in ref:
        return _load_checkpoint(ws, *_row_and_step(ws, ref), device)
    from .models.load import load_model

    artifact = ws.get(ref)
    return load_model(chain(ws, artifact), ModelSettings(device=device), source=artifact.id)


def ship(ws: Workspace, ref: str, name: str = "") -> Artifact:
    """A model of a checkpoint, RUN@STEP, such as its run makes of the best: the same artifact where it is the best."""
    from .models.load import save_model

    if name:
        check_name(name)
    row, step = _row_and_step(ws, ref)
    run = Run(ws, row)
    if row.outputs.get("model") and step == row.result.get("best_step"):
        made = ws.get(row.outputs["model"])
    else:
        model = _as_trained(ws, row, step, "cpu")
        is_adapter = model.adapter is not None
        made = store_model(run, "model", lambda folder: save_model(model, folder), is_adapter)
        if made.id != row.outputs.get("model"):
            ws.add_run_output(row.id, f"model@{step}", made.id)
    if name:
        ws.set_name(name, made)
    return made


def shipped(ws: Workspace, ref: Ref) -> Ref:
    """Any reference; one to a checkpoint becomes one to a model of it."""
    if isinstance(ref, str) and (found := CHECKPOINT.fullmatch(ref)):
        try:
            ws.run_row(found[1])
        except NotFoundError:  # a folder or a server may be called so, too
            return ref
        return ship(ws, ref)
    return ref


# --- inside


def _load_checkpoint(ws: Workspace, row: RunRow, step: int, device: str) -> LanguageModel:
    from .models.language_model import LanguageModel

    model = _as_trained(ws, row, step, device)
    network = model.network if model.adapter is None else model.adapter.merge_and_unload()
    return LanguageModel(network.requires_grad_(False), model.encoder, source=f"{row.id}@{step}")


def _as_trained(ws: Workspace, row: RunRow, step: int, device: str) -> LanguageModel:
    """What the run started from, as the run itself loads it, with the weights of the checkpoint.

    A base in few bits is loaded whole, as the model that the run makes will be.
    """
    from .models.load import load_model

    tensors = _read_weights(Run(ws, row), step)  # first: while the base loads it may be pruned
    run, config = Run(ws, row), STAGES[row.stage].model_validate(dict(row.config))
    own: Any = config.model  # type: ignore[attr-defined]
    settings = own.model_copy(update={"device": device, "quantise": "none"})
    if role := STARTS[row.stage]:
        start, prompt = run.inputs[role], getattr(config, "prompt", None)
        model = load_model(chain(ws, start), settings, prompt=prompt, trainable=True, seed=row.seed)
    else:
        data = read_demonstrations(run.inputs["data"])
        model = untrained(data, config.model_copy(update={"model": settings}))  # type: ignore[arg-type]
    _put(tensors, model, f"{row.id}@{step}")
    return model


def _read_weights(run: Run, step: int) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = run.weights().get(step)
    if folder is None:
        raise _gone(run.id, step)
    try:
        checkpoints.check(folder)
        found = load_file(folder / checkpoints.WEIGHTS)
    except (TrueupError, OSError, SafetensorError):
        if folder.is_dir():
            raise
        raise _gone(run.id, step) from None
    return {key: tensor for key, tensor in found.items() if key.startswith(OF_THE_MODEL)}


def _put(tensors: Mapping[str, torch.Tensor], model: LanguageModel, what: str) -> None:
    import torch

    learns = {f"{OF_THE_MODEL}{name}": p for name, p in model.named_parameters() if p.requires_grad}
    odd = learns.keys() ^ tensors.keys() or {name for name, p in learns.items() if p.shape != tensors[name].shape}
    if odd:
        raise ModelError(
            f"the checkpoint {what} does not fit what its run started from: {min(odd)}",
            "another version of trueup or of its packages made it: end the run there with the one that did, "
            f"`trueup runs resume {what.partition('@')[0]} --end-here`",
        )
    with torch.no_grad():
        for name, parameter in learns.items():
            parameter.copy_(tensors[name])


def _row_and_step(ws: Workspace, ref: str) -> tuple[RunRow, int]:
    run, at, step = ref.rpartition("@")
    if not at:
        raise NotFoundError(f"'{ref}' names no step", "a checkpoint is RUN@STEP")
    row = ws.run_row(run)
    if row.stage not in STARTS:
        raise TrueupError(f"what a {row.stage} run keeps writes no text", f"one of {', '.join(STARTS)} does")
    if not (step.isascii() and step.isdecimal() and len(step) < 12):
        raise NotFoundError(f"'{step}' is no step of a run", "a checkpoint is RUN@STEP")
    return row, int(step)


def _states(ws: Workspace, row: RunRow) -> dict[int, checkpoints.Checkpoint]:
    return dict(_readable(Run(ws, row)))


def _readable(run: Run) -> Iterator[tuple[int, checkpoints.Checkpoint]]:
    """What a run that is going on takes away between two looks is passed over."""
    for step, folder in run.weights().items():
        try:
            yield step, checkpoints.read(folder)
        except (TrueupError, OSError):
            continue


def _of_artifact(artifact: Artifact, names: Mapping[str, str]) -> Kept:
    name, stage = names.get(artifact.id), artifact.meta.get("stage")
    made = f" ({stage}, {artifact.created[:10]})" if stage else f" ({artifact.created[:10]})"
    short = artifact.id[:8]
    words = f"{name}{made}" if name else f"{short}{made}"
    return Kept(artifact.id, words, {f"model {short}": artifact.id})


def _of_checkpoint(ws: Workspace, row: RunRow, states: Mapping[int, checkpoints.Checkpoint], step: int) -> Kept:
    scored = {s: (state.score, -s) for s, state in states.items() if state.score is not None}
    said = [f"{row.stage} '{row.name}'" if row.name else row.stage, f"run {row.id}", f"step {step:,}"]
    if (score := states[step].score) is not None:
        said.append(f"held-out score {score:.4g}")
    said += ["best"] * (bool(scored) and step == max(scored, key=scored.__getitem__))
    said += ["going on"] * (row.status == "running" and Run(ws, row).status == "running")
    return Kept(f"{row.id}@{step}", ", ".join(said), {f"{role} of {row.id}": id for role, id in row.inputs.items()})


def _names(ws: Workspace) -> dict[str, str]:
    """Artifact -> its name."""
    return {artifact: name for name, artifact in ws.names().items()}


def _gone(run: str, step: int) -> NotFoundError:
    return NotFoundError(
        f"the checkpoint of step {step} of {run} is gone",
        "a run keeps its last two checkpoints and the best, and with run.keep_weights those of every evaluation",
    )
