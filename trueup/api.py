"""trueup from Python: every stage as a function with the name it has on the command line.

    import trueup

    with trueup.Workspace.create("work") as ws:
        demos = trueup.add_data(ws, "demos.jsonl", "demonstrations").artifact
        sft = trueup.sft(ws, base="HuggingFaceTB/SmolLM2-135M", data=demos)

A reference is an artifact, its id, the beginning of its id, or a name; a model may also be a local folder or a hub id.
Settings come as a config object (`trueup.SftConfig(...)`) or by name: `trueup.sft(ws, ..., steps=100,
optimizer={"lr": 1e-4})`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import config as configs
from . import wiring
from .config import Table
from .errors import ConfigError, TrueupError
from .runs import Run
from .store import Artifact, Workspace
from .text import formats

Ref = str | Artifact


# --- stages


def pretrain(ws: Workspace, *, data: Ref, config: Table | None = None, name: str = "", **settings: Any) -> Artifact:
    """Train a Llama-style model and its tokenizer from scratch on demonstrations."""
    return _run(ws, "pretrain", {"data": ws.get(data)}, config, settings, name)


def sft(
    ws: Workspace, *, base: Ref, data: Ref, config: Table | None = None, name: str = "", **settings: Any
) -> Artifact:
    """Fine-tune `base` on demonstrations; ships the best held-out checkpoint."""
    inputs = {"base": wiring.resolve_model(ws, base), "data": ws.get(data)}
    return _run(ws, "sft", inputs, config, settings, name)


def sample(
    ws: Workspace, *, model: Ref, prompts: Ref, config: Table | None = None, name: str = "", **settings: Any
) -> Artifact:
    """Completions of `model` for a prompt set: a completion set, ready to be judged."""
    inputs = {"model": wiring.resolve_model(ws, model), "prompts": ws.get(prompts)}
    return _run(ws, "sample", inputs, config, settings, name)


def reward(
    ws: Workspace,
    *,
    base: Ref,
    data: Ref,
    features: Ref | None = None,
    config: Table | None = None,
    name: str = "",
    **settings: Any,
) -> Artifact:
    """Train a reward model on `base`'s trunk from a preference set.

    `features` is the frozen model whose likelihoods the kind "features" reads; by default `base` itself.
    """
    inputs = {"base": wiring.resolve_model(ws, base), "data": ws.get(data)}
    if features is not None:
        inputs["features"] = wiring.resolve_model(ws, features)
    return _run(ws, "reward", inputs, config, settings, name)


def rl(
    ws: Workspace,
    *,
    policy: Ref,
    reward: Ref,
    prompts: Ref,
    config: Table | None = None,
    name: str = "",
    **settings: Any,
) -> Artifact:
    """Tune `policy` against a reward model with PPO and a KL penalty to where it started."""
    inputs = {
        "policy": wiring.resolve_model(ws, policy),
        "reward": wiring.resolve_model(ws, reward),
        "prompts": ws.get(prompts),
    }
    wiring.check_formats(ws, inputs["policy"], inputs["reward"])
    return _run(ws, "rl", inputs, config, settings, name)


def winrate(
    ws: Workspace,
    *,
    a: Ref,
    b: Ref,
    prompts: Ref,
    judge: Ref = "gold",
    reward: Ref | None = None,
    config: Table | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """How often `a`'s answer beats `b`'s on the same prompts, ties half. Either may be a completion set.

    `judge` is a reward model kept out of training, or "gold" in the built-in world. `reward` chooses B's best of n.
    """
    inputs = {
        "a": wiring.resolve_model(ws, a, or_completions=True),
        "b": wiring.resolve_model(ws, b, or_completions=True),
        "prompts": ws.get(prompts),
    }
    if judge != "gold":
        inputs["judge"] = wiring.resolve_model(ws, judge)
    chosen = _config("winrate", config, settings)
    if (reward is None) != (chosen.best_of == 1):
        raise ConfigError(
            "best_of above 1 needs a reward model to choose by, and a reward model needs best_of above 1",
            "give both: reward=... and best_of=8",
        )
    if reward is not None:
        inputs["reward"] = wiring.resolve_model(ws, reward)
    artifact = _run(ws, "winrate", inputs, chosen, {}, "")
    return json.loads((artifact.path / "result.json").read_text()) | {"evaluation": artifact.id}


def resume(ws: Workspace, run_id: str) -> Artifact:
    """Take an interrupted, killed or failed run up at its last checkpoint. The result is what it would have been."""
    run = Run.resume(ws, run_id)
    return wiring.execute(run, configs.STAGES[run.stage].model_validate(dict(run.config)))


# --- data


@dataclass(frozen=True)
class DataReport:
    """What became of a data file: every row that was left out is here with its reason."""

    artifact: Artifact
    rows: int
    skipped: list[tuple[str, str]]
    recognised: str


def add_data(
    ws: Workspace,
    file: str,
    kind: str,
    mapping: Mapping[str, str] | None = None,
    *,
    name: str = "",
    heldout: float = 0.1,
    seed: int = 0,
) -> DataReport:
    """Read a data file into an artifact. Preferences get their held-out split here, by prompt."""
    if kind not in ("prompts", "demonstrations", "preferences"):
        raise ConfigError(f"unknown kind of data '{kind}'", "prompts, demonstrations or preferences")
    loaded = formats.load(file, kind, mapping)  # type: ignore[arg-type]
    rows = [record.to_json() for record in loaded.records]
    if kind == "preferences":
        for row, record in zip(rows, loaded.records, strict=True):
            row["split"] = formats.split_by_prompt(record.prompt.id, heldout, seed)  # type: ignore[union-attr]
    source = Path(file).name if Path(file).exists() else file
    artifact = wiring.put_records(
        ws, kind, rows, name=name, source=source, recognised=loaded.recognised, skipped=len(loaded.skipped)
    )
    return DataReport(artifact, len(rows), loaded.skipped, loaded.recognised)


def show_data(ws: Workspace, ref: Ref, *, model: Ref | None = None, rows: int = 5) -> dict[str, Any]:
    """Rows of a data artifact; with a `model`, as it will see them: template applied, trained tokens marked."""
    artifact = ws.get(ref)
    records: list[Any] = {
        "prompts": wiring.read_prompts,
        "demonstrations": wiring.read_demonstrations,
        "preferences": wiring.read_judgements,
    }.get(artifact.kind, _no_rows)(artifact)
    found: dict[str, Any] = {"artifact": artifact.id, "kind": artifact.kind, "rows": len(records)}
    if model is None:
        shown = [record.to_json() for record in records[:rows]]
        return found | {"shown": shown, "text": "\n".join(json.dumps(r, indent=1, ensure_ascii=False) for r in shown)}
    from .models.load import load_encoder
    from .text.show import show, summarise

    settings = configs.ModelSettings()
    folder = wiring.chain(ws, wiring.resolve_model(ws, model))[-1]
    encoder, longest = load_encoder(folder, settings, None), wiring.context_of(folder)
    seen = [row for record in records[:rows] for row in show(record, encoder, longest)]
    summary = summarise(records, encoder, longest).to_json()
    text = "\n\n".join(row.text() for row in seen) + "\n\n" + "  ".join(f"{k} {v}" for k, v in summary.items())
    shown = [
        {"segments": [list(s) for s in row.segments], "tokens": row.tokens, "truncated": row.truncated} for row in seen
    ]
    return found | {"max_tokens": longest, "shown": shown, "summary": summary, "text": text}


def _no_rows(artifact: Artifact) -> list[Any]:
    raise TrueupError(f"artifact {artifact.id} is of kind '{artifact.kind}': not data", "see `trueup artifacts list`")


def make_world(
    ws: Workspace,
    seed: int = 0,
    pretraining: int = 3000,
    demonstrations: int = 2000,
    prompts: int = 1000,
    heldout: int = 300,
    posts: int | None = None,
) -> dict[str, Artifact]:
    """The data of the built-in world as artifacts: posts to summarise, made by a program. Its people are simulated.

    `prompts` is how many posts there are to judge completions of, `posts` how many for RL (as many by default).
    """
    from .world import World

    world = World(seed)
    titles = [
        {"prompt": prompt.to_json(), "completion": title}
        for prompt, each in world.pretraining(pretraining)
        for title in each
    ]
    sets = {
        "pretraining": ("demonstrations", titles),
        "demonstrations": ("demonstrations", [d.to_json() for d in world.demonstrations(demonstrations)]),
        "candidates": ("prompts", [p.to_json() for p in world.prompts("candidates", prompts)]),
        "posts": ("prompts", [p.to_json() for p in world.prompts("rl", prompts if posts is None else posts)]),
        "heldout": ("prompts", [p.to_json() for p in world.prompts("heldout", heldout)]),
    }
    return {
        what: wiring.put_records(ws, kind, rows, name=f"world-{what}", source=f"built-in world, seed {seed}")
        for what, (kind, rows) in sets.items()
        if rows
    }


def simulate(
    ws: Workspace,
    *,
    completions: Ref,
    seed: int = 0,
    pairs_per_prompt: int = 6,
    heldout: float = 0.15,
    name: str = "",
) -> Artifact:
    """The simulated people of the built-in world judge a completion set; what they said becomes a preference set."""
    from .records import by_prompt
    from .world import SimulatedPeople

    source = ws.get(completions)
    items = by_prompt(wiring.read_completions(source))
    if not all("world" in item[0].prompt.meta for item in items):
        raise TrueupError("simulated people can only judge posts of the built-in world", "use `trueup data world`")
    sides: dict[str, list[Any]] = {"train": [], "heldout": []}
    for item in items:
        sides[formats.split_by_prompt(item[0].prompt.id, heldout, seed)].append(item)
    judgements = [
        judgement
        for split, chosen in sides.items()
        for judgement in SimulatedPeople(
            seed, mode="pairs", pairs_per_prompt=pairs_per_prompt, split=split  # type: ignore[arg-type]
        ).judge(chosen)
    ]
    stored = ws.add_judgements(judgements, source)
    rows = [judgement.to_json() for judgement in stored]
    return wiring.put_records(ws, "preferences", rows, name=name, parents={"completions": source}, source="simulated")


# --- models in and out


def export(ws: Workspace, ref: Ref, folder: str | Path, merge: bool = False) -> Path:
    """Write a model as a plain transformers folder, or PEFT one for an adapter, with tokenizer and model card."""
    from .exporting import export_model

    return export_model(ws, wiring.resolve_model(ws, ref), Path(folder), merge)


def plan(ws: Workspace, stage: str, inputs: Mapping[str, str], config: Table) -> dict[str, Any]:
    """What a run would do: its effective config, the artifacts it would make, and memory from parameter counts."""
    from .planning import plan_stage

    return plan_stage(ws, stage, inputs, config)


def environment(workspace: str | Path | None = None) -> dict[str, Any]:
    """Versions, where trueup would compute, in which type and why, and which workspace it finds."""
    from .planning import describe_environment

    return describe_environment(workspace)


def demo(folder: str | Path, seed: int = 0, overopt: bool = False, quick: bool = False) -> dict[str, Any]:
    """The whole loop on the built-in world, in a new folder."""
    from .demonstrate import run_demo

    return run_demo(Path(folder), seed=seed, overopt=overopt, quick=quick)


# --- inside


def _run(
    ws: Workspace,
    stage: str,
    inputs: Mapping[str, Artifact],
    config: Table | None,
    settings: Mapping[str, Any],
    name: str,
) -> Artifact:
    chosen = _config(stage, config, settings)
    run = Run.start(ws, stage, chosen.model_dump(mode="json"), inputs, seed=chosen.run.seed)
    artifact = wiring.execute(run, chosen)
    if name:
        ws.set_name(name, artifact)
    return artifact


def _config(stage: str, config: Table | None, settings: Mapping[str, Any]) -> Any:
    cls = configs.STAGES[stage]
    if config is None:
        return configs.load(stage, flags=configs.flat(settings))
    if settings:
        raise ConfigError("give either a config or settings by name, not both", "config=... already holds every setting")
    if not isinstance(config, cls):
        raise ConfigError(f"stage '{stage}' takes a {cls.__name__}, not a {type(config).__name__}")
    return config
