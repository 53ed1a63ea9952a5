"""`trueup export`: a model of the workspace as a folder that other software opens.

What an artifact becomes:

model            a plain transformers folder: `AutoModelForCausalLM.from_pretrained`
LoRA adapter     a PEFT folder (`PeftModel.from_pretrained(base, folder)`), or merged a plain transformers folder
reward model     of kind sequence: a plain transformers folder, `AutoModelForSequenceClassification.from_pretrained`
                 of kind features: a copy that only trueup opens, which its card and `caution` say

Everything has its tokenizer with the chat template, its prompt format and a model card beside it. Weights are
safetensors. The folder appears as a whole or not at all.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ModelSettings
from .errors import ModelError, TrueupError
from .inputs import MODELS, chain
from .model_card import Base, Form, model_card
from .runs.progress import note
from .store import Artifact, Workspace, remove, saying_disk_full, sync_folder, sync_tree

if TYPE_CHECKING:  # torch loads when a model is exported, not when this module is imported
    from torch import Tensor

CARD = "README.md"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GENERATION_CONFIG = "generation_config.json"
# Parts of a LoRA config that must have these values for two adapters to add up exactly.
PLAIN_LORA = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
    "trainable_token_indices": None,
}


def export_model(ws: Workspace, artifact: Artifact, folder: Path, merge: bool, base: str = "") -> Path:
    """Write `artifact` into a new or empty `folder`; returns its full path. `merge` always gives whole weights.

    `base` is what an adapter is to call the model it sits on: where others find that is not known here.
    """
    target = folder.expanduser().resolve()
    _refuse_what_is_there(target)
    form = form_of(artifact, merge)
    if (bits := artifact.meta.get("quantised")) and form != "adapter":
        note(f"it learnt beside a base in {bits}, and is merged into the whole one: near, not equal")
    below = _named(artifact, base_of(ws, artifact), form, base)
    with _appearing(target) as made:
        _WRITE[form](ws, artifact, made)
        if form == "adapter":
            _name_base(made, below)
        card = model_card(ws, artifact, form, made, below)
        (made / CARD).write_text(card, encoding="utf-8")
    return target


def form_of(artifact: Artifact, merge: bool) -> Form:
    if artifact.meta.get("scorer") == "ensemble":
        members = ", ".join(artifact.parents.values())
        raise ModelError(f"artifact {artifact.id} is an ensemble: it has no weights of its own", f"export {members}")
    if artifact.kind == "reward":
        return "features" if artifact.meta.get("scorer") == "features" else "reward"
    if artifact.kind not in MODELS:
        raise ModelError(f"artifact {artifact.id} is of kind '{artifact.kind}', not a model", "`trueup artifacts list`")
    return "adapter" if artifact.meta.get("adapter") and not merge else "model"


def caution(folder: Path) -> str:
    """What to know before an exported folder is opened elsewhere; empty when there is nothing to know."""
    if _read(folder / "reward_model.json").get("kind") == "features":
        return "a reward model of kind 'features' has a format of its own: only trueup opens it"
    return ""


# --- the forms


def _write_model(ws: Workspace, artifact: Artifact, made: Path) -> None:
    if _is_whole(artifact):
        _copy_files(artifact, made)
    else:
        from .models.load import load_model, save_model

        # Merged in float32 and stored so: in bfloat16 most of what an adapter learnt would be rounded away.
        save_model(load_model(chain(ws, artifact), _settings(ws, artifact)), made)
    _tell_where_to_stop(made)


def _write_reward(ws: Workspace, artifact: Artifact, made: Path) -> None:
    if _is_whole(artifact):
        _copy_files(artifact, made)
    else:
        from .models.load import load_reward, save_reward

        save_reward(load_reward(chain(ws, artifact), _settings(ws, artifact)), made)
    _pad_as_the_model_does(made)


def _write_features(ws: Workspace, artifact: Artifact, made: Path) -> None:
    _copy_files(artifact, made)


def _write_adapter(ws: Workspace, artifact: Artifact, made: Path) -> None:
    from safetensors.torch import load_file, save_file

    from .models.load import load_encoder, save_encoder

    adapters = chain(ws, artifact)[1:]
    configs = [_read(Path(folder) / ADAPTER_CONFIG) for folder in adapters]
    tensors = [load_file(Path(folder) / ADAPTER_WEIGHTS) for folder in adapters]
    config, joined = (configs[0], tensors[0]) if len(adapters) == 1 else join_adapters(configs, tensors)
    save_file(joined, made / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    _dump(made / ADAPTER_CONFIG, config)
    save_encoder(load_encoder(adapters[-1], _settings(ws, artifact), None), made)


_WRITE = {"model": _write_model, "adapter": _write_adapter, "reward": _write_reward, "features": _write_features}


# --- adapters on adapters


def join_adapters(
    configs: Sequence[Mapping[str, Any]], tensors: Sequence[Mapping[str, Tensor]]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One LoRA adapter that does exactly what several do on top of one another.

    s1 B1 A1 + s2 B2 A2 = [s1 B1, s2 B2] [A1; A2]: ranks add, and with alpha = rank the joined scale is 1.
    """
    import torch

    for config in configs:
        if different := [key for key, plain in PLAIN_LORA.items() if (config.get(key) or plain) != plain]:
            _refuse_to_join(f"one of them sets {different[0]}")
    if any(tensor.keys() != tensors[0].keys() for tensor in tensors):
        _refuse_to_join("they change different layers")
    scales = [config["lora_alpha"] / config["r"] for config in configs]
    joined: dict[str, Tensor] = {}
    for key in tensors[0]:
        parts = [tensor[key] for tensor in tensors]
        if ".lora_A." in key:
            joined[key] = torch.cat(parts, 0)
        elif ".lora_B." in key:
            joined[key] = torch.cat([part * scale for part, scale in zip(parts, scales, strict=True)], 1)
        else:
            _refuse_to_join(f"'{key}' is not a plain LoRA matrix")
    rank = sum(config["r"] for config in configs)
    return {**configs[-1], "r": rank, "lora_alpha": rank}, joined


def _refuse_to_join(why: str) -> None:
    raise ModelError(
        f"this adapter sits on other adapters, and they cannot be joined into one exactly: {why}",
        "export it with --merge: one plain transformers model",
    )


# --- what a model rests on


def base_of(ws: Workspace, artifact: Artifact) -> Base:
    root = artifact
    while root.meta.get("adapter"):
        root = ws.get(root.parents["base"])
    first = root
    while "base" in first.parents:
        first = ws.get(first.parents["base"])
    return Base(root.id, _source(root), _source(first))


def _named(artifact: Artifact, below: Base, form: Form, base: str) -> Base:
    """An adapter has to name its base, or nothing opens it; nothing else has one to name."""
    if base and form != "adapter":
        raise TrueupError(
            f"artifact {artifact.id} is exported with all its weights: it has no base to name", "leave out --base"
        )
    if form == "adapter" and not (base or below.source):
        raise ModelError(
            f"the adapter {artifact.id} sits on {below.root}, which is in the workspace, where nothing else finds it",
            f"--merge gives whole weights; or `trueup export {below.root} DIR` and name that folder with --base DIR",
        )
    return replace(below, source=base) if base else below


def _name_base(made: Path, below: Base) -> None:
    _dump(made / ADAPTER_CONFIG, _read(made / ADAPTER_CONFIG) | {"base_model_name_or_path": below.source})


def _source(artifact: Artifact) -> str:
    return str(_read(artifact.path / "source.json")["source"]) if artifact.kind == "external" else ""


def _is_whole(artifact: Artifact) -> bool:
    return artifact.kind != "external" and not artifact.meta.get("adapter")


def _settings(ws: Workspace, artifact: Artifact) -> ModelSettings:
    """On the CPU, in float32; a model's own code runs only if it was allowed to run when the artifact was made."""
    run = ws.lineage(artifact).nodes[artifact.id].run
    allowed = run and ws.run_row(run["id"]).config.get("model", {}).get("trust_remote_code", False)
    return ModelSettings(device="cpu", dtype="float32", trust_remote_code=bool(allowed))


# --- files


def _refuse_what_is_there(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise TrueupError(f"{target} is a file", "name a new folder")
    if target.is_dir() and any(target.iterdir()):
        raise TrueupError(f"{target} is not empty", "name a new folder; an export never mixes with other files")


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block ends well and vanishes when it does not."""
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    with saying_disk_full(target):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            _open_to_others(temporary)
            sync_tree(temporary)
            os.replace(temporary, target)  # fails, as it should, if `target` has been filled meanwhile
            sync_folder(target.parent)
        except BaseException:
            remove(temporary)
            raise


def _open_to_others(folder: Path) -> None:
    """safetensors writes files that nobody else may read; all get the rights that a new file has here."""
    usual = (folder / CARD).stat().st_mode
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(usual)


def _copy_files(artifact: Artifact, made: Path) -> None:
    # `copyfile` takes the content only: the artifact's files are read-only, the export's are not.
    shutil.copytree(artifact.path, made, copy_function=shutil.copyfile, dirs_exist_ok=True)


def _tell_where_to_stop(made: Path) -> None:
    """`generate` of transformers ends completions where trueup does: at EOS and at the template's own end of a turn."""
    from .models.load import load_encoder

    encoder = load_encoder(str(made), ModelSettings(), None)
    stops = sorted(encoder.stop_ids)
    config = _read(made / GENERATION_CONFIG)
    config.pop("_from_model_config", None)  # else transformers may make it anew and lose what is set here
    stop: int | list[int] = stops[0] if len(stops) == 1 else stops
    _dump(made / GENERATION_CONFIG, config | {"eos_token_id": stop, "pad_token_id": encoder.pad_id})


def _pad_as_the_model_does(made: Path) -> None:
    """transformers reads the score before the padding, which it knows by the model's pad id.

    A tokenizer that pads with another token (EOS, often) would have it read in the padding. One that has no token to
    spare must not pad at all: better an error than a wrong score.
    """
    from .models.load import load_encoder

    encoder = load_encoder(str(made), ModelSettings(), None)
    added = encoder.tokenizer.get_added_tokens_decoder()
    pad = {"pad_token": added[encoder.pad_id].content} if encoder.pad_id in added else {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        config = _read(made / name)
        config.pop("pad_token", None)
        _dump(made / name, config | pad)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _dump(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
