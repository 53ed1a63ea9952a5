"""The inputs of a stage: what a name, an id, a folder or a hub id stands for, and whether the stage can use it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import IlqlConfig, ModelSettings, PromptSettings
from .errors import ConfigError, ModelError, NotFoundError, TrueupError
from .store import JUDGED, Artifact, Workspace

Ref = str | Artifact

MODELS, SCORERS = ("model", "external"), ("reward", "external")
REMOTE = "remote"  # a model behind a server, as http://127.0.0.1:8000/v1#MODEL
WRITERS = (*MODELS, REMOTE)
FUNCTION = "function"  # a scorer that is a Python function: FILE.py:NAME
ANY_SCORER = (*SCORERS, FUNCTION)
PROMPTS = ("prompts", "demonstrations", *JUDGED, "completions")
INPUTS: dict[str, dict[str, tuple[str, ...]]] = {  # stage -> input -> the kinds of artifact it may be
    "pretrain": {"data": ("demonstrations",)},
    "sft": {"base": MODELS, "data": ("demonstrations",)},
    "sample": {"model": WRITERS, "prompts": PROMPTS, "reward": ANY_SCORER},
    "reward": {
        "base": MODELS,
        "data": ("preferences", "unpaired"),
        "features": MODELS,
        "reference": ("completions", "demonstrations"),
    },
    "rl": {
        "policy": MODELS,
        "reward": ANY_SCORER,
        "prompts": PROMPTS,
        "judge": ANY_SCORER,
        "demonstrations": ("demonstrations",),
    },
    "dpo": {
        "policy": MODELS,
        "data": ("preferences",),
        "reward": ANY_SCORER,
        "prompts": PROMPTS,
        "judge": ANY_SCORER,
    },
    "kto": {"policy": MODELS, "data": ("unpaired", "preferences")},
    "ilql": {"policy": MODELS, "data": ("completions", "preferences", "unpaired"), "reward": ANY_SCORER},
    "winrate": {
        "a": (*WRITERS, "completions"),
        "b": (*WRITERS, "completions"),
        "other": (*WRITERS, "completions"),
        "prompts": PROMPTS,
        "judge": ANY_SCORER,
        "asked": WRITERS,
        "verdicts": ("preferences",),
        "reward": ANY_SCORER,
    },
    "compare": {
        "a": (*WRITERS, "completions"),
        "other": (*WRITERS, "completions"),
        "prompts": PROMPTS,
        "judge": ANY_SCORER,
        "asked": WRITERS,
        "verdicts": ("preferences",),
        "reference": MODELS,
        "text": ("demonstrations",),
        "measure": ANY_SCORER,
    },
    "safety": {
        "model": (*WRITERS, "completions"),
        "before": (*WRITERS, "completions"),
        "prompts": PROMPTS,
        "asked": WRITERS,
    },
}
_PATHS = (".", "/", "~")  # a reference that begins so is a path, and no hub id
OPTIONAL = {
    *(("rl", "judge"), ("rl", "demonstrations")),
    *(("reward", "features"), ("reward", "reference")),
    *(("winrate", role) for role in ("other", "judge", "asked", "verdicts", "reward")),
    *(("compare", role) for role in ("judge", "asked", "verdicts", "reference", "text", "measure")),
    *(("safety", "before"), ("safety", "asked")),
    *(("sample", "reward"), ("ilql", "reward")),
    *(("dpo", "data"), ("dpo", "reward"), ("dpo", "prompts"), ("dpo", "judge")),
}


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
    given = {role if role in roles else kind_of_role(role) for role in refs}
    unknown = [role for role in refs if role not in roles and kind_of_role(role) not in roles]
    missing = [role for role in roles if role not in given and (stage, role) not in OPTIONAL]
    if unknown or missing:
        what = f"has no input '{unknown[0]}'" if unknown else f"needs the input '{missing[0]}'"
        raise ConfigError(f"stage '{stage}' {what}", f"its inputs are {', '.join(roles)}")
    judges = [role for role in ("judge", "asked", "verdicts") if role in refs]
    if len(judges) > 1:
        raise ConfigError(f"only one can judge, not {' and '.join(judges)}", "run it again for another judge")
    if stage == "dpo":
        _check_online(refs, config)
    gold = {"judge"} if stage == "winrate" and refs.get("judge") == "gold" else set()
    found = {
        role: find_input(workspace, role, ref, roles[kind_of_role(role)])
        for role, ref in refs.items()
        if role not in gold
    }
    for role, item in found.items():
        if item.kind == "external":
            _check_elsewhere(item.folders[0], config.model, scores=scores(stage, role))
    _check_asked(found, config)
    for role, item in found.items():
        if stage in ("rl", "dpo") and scores(stage, role) and item.kind != FUNCTION:
            _check_formats(found["policy"], item)
    if stage == "rl":
        _check_mixed("demonstrations" in refs, config)
    if stage == "ilql":
        _check_ilql(found, config)
    if stage == "sft":
        _check_prompt(found["base"], config.prompt)
    return found


def kind_of_role(role: str) -> str:
    """A stage may have several scorers, each with a name of its own: `reward.NAME`; and more models than two."""
    kind, _, _ = role.partition(".")
    return kind if kind in ("reward", "other", "measure") else role


def scores(stage: str, role: str) -> bool:
    """Whether this input is something that scores."""
    return set(SCORERS) <= set(INPUTS[stage][kind_of_role(role)])


def named_scorers(given: Sequence[str]) -> str | dict[str, str] | None:
    """`["judge"]` as the one scorer, `["help=judge", "short=./rules.py:short"]` as several by name; of none, None."""
    if not given:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return given[0]
    found: dict[str, str] = {}
    for each in given:
        name, _, ref = each.partition("=")
        if not name.isidentifier() or not ref or name in found:
            raise ConfigError(f"'{each}' is no scorer with a name of its own", "of several, each is given as NAME=ID")
        found[name] = ref
    return found


def by_role(refs: Mapping[str, Ref | Mapping[str, Ref]]) -> dict[str, Ref]:
    """References by input, several scorers as inputs of their own: `reward.NAME`."""
    found: dict[str, Ref] = {}
    for role, given in refs.items():
        if isinstance(given, Mapping):
            found |= {f"{role}.{name}": ref for name, ref in given.items()}
        else:
            found[role] = given
    return found


def _check_asked(found: Mapping[str, Input], config: Any) -> None:
    """What is set for a language model that judges, for a server, or for other texts would do nothing without it."""
    needed = (
        ("asked", "asked" in found, "a language model as the judge"),
        ("remote", any(item.kind == REMOTE for item in found.values()), "a model behind a server"),
        ("text_limit", "text" in found, "other texts to read: --text"),
    )
    for name, there, what in needed:
        if not there and getattr(config, name, None) != getattr(type(config)(), name, None):
            raise ConfigError(f"{name} has a meaning only with {what}", f"name one, or leave {name} out")


def _check_mixed(has_demonstrations: bool, config: Any) -> None:
    """Demonstrations are learnt from with a weight, and a weight needs demonstrations."""
    if has_demonstrations != (config.sft_coefficient > 0):
        raise ConfigError(
            "sft_coefficient above 0 needs demonstrations, and demonstrations need it above 0",
            "give both, or neither",
        )


def _check_ilql(found: Mapping[str, Input], config: IlqlConfig) -> None:
    """What is set for data of another kind, or for a scorer that is not there, would do nothing."""
    if found["data"].kind != "completions" and config.heldout != IlqlConfig().heldout:
        raise ConfigError(
            "heldout has no meaning here: judgements keep their own split",
            "say it when they are added: trueup data add FILE --kind preferences --heldout 0.1",
        )
    if "reward" not in found and config.scoring != IlqlConfig().scoring:
        raise ConfigError("[scoring] has a meaning only with --reward", "name a reward model, or leave it out")


def is_remote(ref: object) -> bool:
    return isinstance(ref, str) and ref.startswith(("http://", "https://"))


def find_input(workspace: Workspace, role: str, ref: Ref, kinds: Sequence[str]) -> Input:
    if REMOTE in kinds and isinstance(ref, str) and is_remote(ref):
        from .engines.remote import address

        url, model = address(ref)
        return Input(REMOTE, None, [f"{url}#{model}"])
    if FUNCTION in kinds and isinstance(ref, str) and (function := _function(ref)):
        return Input(FUNCTION, None, [function])
    try:
        artifact = workspace.get(ref)
    except NotFoundError as error:
        if "external" not in kinds or not isinstance(ref, str):
            raise
        if source := _elsewhere(ref):
            return Input("external", None, [source])
        if ref.startswith(_PATHS):
            raise NotFoundError(f"there is no folder {ref}", "check the path of the model") from None
        hint = "`trueup artifacts list` lists artifacts; a model on the hub is OWNER/NAME, one in a folder ./NAME"
        hint = f"`trueup runs ship {ref}` makes a model of a checkpoint" if "@" in ref else hint
        raise NotFoundError(error.message, hint) from None
    if artifact.kind not in kinds:
        called = artifact.id if isinstance(ref, Artifact) else ref
        raise TrueupError(
            f"'{called}' is of kind '{artifact.kind}', but the input '{role}' takes {' or '.join(kinds)}",
            "see `trueup artifacts list`",
        )
    if artifact.kind == REMOTE:
        return Input(REMOTE, artifact, [artifact.meta["source"]])
    is_model = artifact.kind in (*MODELS, *SCORERS)
    return Input(artifact.kind, artifact, chain(workspace, artifact) if is_model else ())


def note_inputs(workspace: Workspace, found: Mapping[str, Input]) -> dict[str, Artifact]:
    """The inputs as artifacts; a model from elsewhere gets one that points to it.

    The pointer holds no weights, only where they are and what they looked like: if they change, that is an error.
    """
    return {role: item.artifact or _note(workspace, item) for role, item in found.items()}


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
    return ref if "/" in ref and not ref.startswith(_PATHS) else ""


def _note(workspace: Workspace, item: Input) -> Artifact:
    (source,) = item.folders
    if item.kind == REMOTE:
        return workspace.put(REMOTE, _pointer(source, {}), meta={"source": source})
    looked = _look_at_function(source) if item.kind == FUNCTION else _look(Path(source))
    return workspace.put(item.kind, _pointer(source, looked), meta={"source": source})


def _function(ref: str) -> str:
    """`FILE.py:NAME` with the whole path of a file that is there; empty of anything else."""
    path, _, name = ref.rpartition(":")
    if ref.endswith(".py"):
        raise NotFoundError(f"'{ref}' names no function", f"a Python function as a scorer is FILE.py:NAME, {ref}:NAME")
    if not (path.endswith(".py") and name.isidentifier()):
        return ""
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise NotFoundError(f"there is no file {file}", "a Python function as a scorer is FILE.py:NAME")
    return f"{file}:{name}"


def function_of(artifact: Artifact) -> str:
    """`FILE.py:NAME` of a function that a run noted; an error if the file says something else by now."""
    pointer = json.loads((artifact.path / "source.json").read_text())
    source: str = pointer["source"]
    if not Path(source.rpartition(":")[0]).is_file() or _look_at_function(source) != pointer["files"]:
        raise ModelError(
            f"{source.rpartition(':')[0]} is not what it was when the run was started",
            "put it back to go on with this run, or to make the model of its checkpoint: `trueup runs resume RUN "
            "--end-here`; a new run may start from that, with the file as it is now",
        )
    return source


def _look_at_function(source: str) -> dict[str, Any]:
    path = Path(source.rpartition(":")[0])
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


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
    """Policy and reward model must read prompts in one format. Asked of their files, before anything is loaded.

    A reward model with another tokenizer has special tokens, and so a template, of its own: it reads text, not tokens.
    """
    found = [_stored_format(item.folders[-1]) for item in (policy, reward)]
    words = [_stored_tokenizer(item.folders[-1]) for item in (policy, reward)]
    if None not in found and None not in words and words[0] != words[1]:
        found = [{"system": (each or {}).get("system", "")} for each in found]
    if None not in found and found[0] != found[1]:
        raise ModelError(
            f"policy {policy.name} and reward model {reward.name} were trained with different prompt formats",
            "train the reward model on this policy's SFT model, so that both read prompts alike",
        )


def _check_prompt(base: Input, asked: PromptSettings) -> None:
    """A model that has a prompt format keeps it: [prompt] may only say what no earlier stage has said."""
    stored = _stored_format(base.folders[-1]) or {}
    given = {"template": asked.template, "system": asked.system, "stop": list(asked.stop)}
    if other := [key for key, value in given.items() if stored and value and value != stored.get(key)]:
        raise ModelError(
            f"{base.name} already has a prompt format, and prompt.{other[0]} asks for another",
            "drop the [prompt] settings, or start from a base model without prompt_format.json",
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


def _check_online(refs: Mapping[str, Ref], config: Any) -> None:
    """Rounds make their own judgements; without them they have to be there."""
    wanted, also = (("policy", "reward", "prompts"), {"judge"}) if config.online else (("policy", "data"), set())
    if {kind_of_role(role) for role in refs} - also != set(wanted):
        how = "with online rounds" if config.online else "without online rounds"
        raise ConfigError(f"DPO {how} takes {', '.join(wanted)}", "online learns from a scorer, else from data")


def _stored_format(folder: str) -> dict[str, Any] | None:
    path = Path(folder) / "prompt_format.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _stored_tokenizer(folder: str) -> str | None:
    path = Path(folder) / "tokenizer.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
