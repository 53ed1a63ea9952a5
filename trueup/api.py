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
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from . import config as configs
from . import loading
from .config import Table
from .errors import ConfigError, RunError, TrueupError
from .evaluating import compare as compare
from .evaluating import safety as safety
from .evaluating import winrate as winrate
from .feedback.collect import Collected, Filling
from .feedback.relabel import Votes
from .feedback.status import Status
from .inputs import MODELS, Ref, by_role, find_input, resolve_model
from .running import check_best_of, config_of, finished, run_stage
from .runs import Run
from .store import JUDGED, Artifact, Workspace, audit, read_jsonl, saying_disk_full, sync_tree
from .store.artifacts import check_name
from .store.files import replacing
from .store.lineage import count_judgements as said_by
from .text import formats

# --- stages


def pretrain(ws: Workspace, *, data: Ref, config: Table | None = None, name: str = "", **settings: Any) -> Artifact:
    """Train a Llama-style model and its tokenizer from scratch on demonstrations."""
    return run_stage(ws, "pretrain", {"data": data}, config, settings, name)


def sft(
    ws: Workspace, *, base: Ref, data: Ref, config: Table | None = None, name: str = "", **settings: Any
) -> Artifact:
    """Fine-tune `base` on demonstrations; ships the best held-out checkpoint."""
    return run_stage(ws, "sft", {"base": base, "data": data}, config, settings, name)


def sample(
    ws: Workspace,
    *,
    model: Ref,
    prompts: Ref,
    reward: Ref | Mapping[str, Ref] | None = None,
    config: Table | None = None,
    name: str = "",
    **settings: Any,
) -> Artifact:
    """Completions of `model` for a prompt set: a completion set, ready to be judged.

    With `best_of=n` each is the one of n that `reward` scores highest; its meta holds all their scores.
    """
    refs = by_role({"model": model, "prompts": prompts} | ({} if reward is None else {"reward": reward}))
    chosen = config_of("sample", config, settings)
    check_best_of(reward, chosen)
    return run_stage(ws, "sample", refs, chosen, {}, name)


def reward(
    ws: Workspace,
    *,
    base: Ref,
    data: Ref,
    features: Ref | None = None,
    reference: Ref | None = None,
    config: Table | None = None,
    name: str = "",
    **settings: Any,
) -> Artifact:
    """Train a reward model on `base`'s trunk from a preference set.

    `features` is the frozen model whose likelihoods the kind "features" reads; by default `base` itself. Scores get
    mean 0 and std 1 on `reference`, completions or demonstrations; by default on the judged completions.
    """
    optional = {"features": features, "reference": reference}
    refs = {"base": base, "data": data} | {role: ref for role, ref in optional.items() if ref is not None}
    chosen = config_of("reward", config, settings)
    if features is not None and chosen.kind != "features":
        raise ConfigError("features has a meaning only with kind = 'features'", "leave it out, or set the kind")
    return run_stage(ws, "reward", refs, chosen, {}, name)


def rl(
    ws: Workspace,
    *,
    policy: Ref,
    reward: Ref | Mapping[str, Ref],
    prompts: Ref,
    judge: Ref | None = None,
    demonstrations: Ref | None = None,
    config: Table | None = None,
    name: str = "",
    **settings: Any,
) -> Artifact:
    """Tune `policy` against a reward model, with a price on the KL to where it started.

    `reward` is a reward model or a Python function as "FILE.py:NAME", or several of these by name, which
    `scoring.objectives` then weighs; so it is wherever something is scored. `judge` is one kept out of training: the
    guard looks at its score to see whether the other is gamed.
    `demonstrations` are learnt beside the scores, with `sft_coefficient`.
    """
    optional = {"judge": judge, "demonstrations": demonstrations}
    refs = by_role({"policy": policy, "reward": reward, "prompts": prompts})
    refs |= {role: ref for role, ref in optional.items() if ref is not None}
    chosen = config_of("rl", config, settings)
    return run_stage(ws, "rl", refs, chosen, {}, name)


def dpo(
    ws: Workspace,
    *,
    policy: Ref,
    data: Ref | None = None,
    reward: Ref | Mapping[str, Ref] | None = None,
    prompts: Ref | None = None,
    judge: Ref | None = None,
    config: Table | None = None,
    name: str = "",
    **settings: Any,
) -> Artifact:
    """Tune `policy` on judgements, without a reward model.

    With `online=True` it learns from its own completions of `prompts` instead, scored by `reward` step by step, and
    `judge` looks on as in `rl`.
    """
    optional = {"data": data, "reward": reward, "prompts": prompts, "judge": judge}
    refs = by_role({"policy": policy} | {role: ref for role, ref in optional.items() if ref is not None})
    return run_stage(ws, "dpo", refs, config, settings, name)


def kto(
    ws: Workspace, *, policy: Ref, data: Ref, config: Table | None = None, name: str = "", **settings: Any
) -> Artifact:
    """Tune `policy` on thumbs, each given to one completion by itself."""
    return run_stage(ws, "kto", {"policy": policy, "data": data}, config, settings, name)


def ilql(
    ws: Workspace,
    *,
    policy: Ref,
    data: Ref,
    reward: Ref | Mapping[str, Ref] | None = None,
    config: Table | None = None,
    name: str = "",
    **settings: Any,
) -> Artifact:
    """Tune `policy` on stored completions and their rewards, by implicit Q-learning.

    The rewards are the scores of `reward`, asked once; without it the scores stored with completions, or of judgements
    the share of its comparisons that a completion won, or of its thumbs that were up.
    """
    refs = by_role({"policy": policy, "data": data} | ({} if reward is None else {"reward": reward}))
    return run_stage(ws, "ilql", refs, config, settings, name)


def resume(ws: Workspace, run_id: str, *, end_here: bool = False) -> Artifact:
    """Take an interrupted, killed or failed run up at its last checkpoint. The result is what it would have been.

    With `end_here` it trains no further: the result is the model of its best checkpoint, else of its last.
    """
    found = Run.load(ws, run_id)
    if found.stage not in configs.STAGES:
        raise RunError(f"run {found.id} is a {found.stage} run, which keeps no checkpoints", "start it again")
    if end_here and not found.checkpoints():
        raise RunError(f"run {found.id} has no checkpoint to end with", "resume it without ending it, or start anew")
    run = Run.resume(ws, found.id)
    run.goes_on = not end_here
    return finished(run, configs.STAGES[run.stage].model_validate(dict(run.config)))


# --- data


@dataclass(frozen=True)
class DataReport:
    """What became of a data file: every row that was left out is here with its reason.

    `notes` counts what was kept but is worth knowing, such as control characters.
    """

    artifact: Artifact
    rows: int
    skipped: list[tuple[str, str]]
    recognised: str
    notes: Mapping[str, int] = field(default_factory=dict)


def add_data(
    ws: Workspace,
    file: str,
    kind: str,
    mapping: Mapping[str, str] | None = None,
    *,
    format: str = "",
    name: str = "",
    heldout: float | None = None,
    seed: int = 0,
    skip_malformed: bool = False,
    first: int = 0,
) -> DataReport:
    """Read a data file into an artifact. Judgements get their held-out split here, by prompt.

    `format` names the shape of the rows where the columns leave a choice. A tenth of the prompts is held out, or the
    share `heldout`; a raw export keeps the split that it has, unless `heldout` is given. `skip_malformed` leaves out
    rows that cannot be read, which otherwise stop the import; `first` reads only so many.
    """
    if kind not in get_args(formats.Kind):
        raise ConfigError(f"unknown kind of data '{kind}'", ", ".join(get_args(formats.Kind)))
    options: dict[str, Any] = {"format": format, "skip_malformed": skip_malformed, "first": first}
    loaded = formats.load(file, kind, mapping, **options)  # type: ignore[arg-type]
    rows = [{**record.to_json(), **said} for record, said in zip(loaded.records, loaded.beside, strict=True)]
    if kind in ("preferences", "unpaired") and not (loaded.keeps_split and heldout is None):
        share = 0.1 if heldout is None else heldout
        for row, record in zip(rows, loaded.records, strict=True):
            group = formats.group_of(record.prompt)  # type: ignore[union-attr]
            row["split"] = formats.split_by_prompt(group, share, seed)
    source = Path(file).name if Path(file).exists() else file
    notes: dict[str, Any] = ({"notes": loaded.notes} if loaded.notes else {}) | ({"first": first} if first else {})
    artifact = loading.put_records(
        ws, kind, rows, name=name, source=source, recognised=loaded.recognised, skipped=len(loaded.skipped), **notes
    )
    return DataReport(artifact, len(rows), loaded.skipped, loaded.recognised, loaded.notes)


def join_data(ws: Workspace, sets: Sequence[Ref | tuple[str, Ref]], *, name: str = "") -> Artifact:
    """Several sets of judgements as one; `("harmless", SET)` marks those of a set as made on an objective."""
    from .joining import join_data

    return join_data(ws, sets, name=name)


@dataclass(frozen=True)
class ExportReport:
    """What was written, what the format cannot say, and what it says in a weaker form."""

    path: Path
    rows: int
    left_out: list[tuple[str, str]]
    notes: Mapping[str, int]


def export_data(
    ws: Workspace,
    ref: Ref,
    file: str | Path,
    format: str = "raw",
    *,
    conversational: bool = False,
    split: str = "",
    number_judges: bool = False,
    person: str = "",
) -> ExportReport:
    """Write prompts, demonstrations, preferences, thumbs or completions to a new file, or a folder for `datasets`.

    `raw` loses nothing, in any kind of file: added again it gives equal records. Judges are called what they are called
    in the workspace, which for people is a pseudonym; `number_judges` calls them judge-1, judge-2 and so on. What
    people said leaves a trace in the audit log: `person` is the id of who asked for it, empty for whoever sits at the
    machine.
    """
    from .text import views, writers

    artifact = ws.get(ref)
    target = Path(file).expanduser().resolve()
    ending = writers.ending_of(target)
    if target.exists():
        raise TrueupError(f"{target} is there already", "name a new file; an export never writes over anything")
    if not target.parent.is_dir():
        raise TrueupError(f"there is no folder {target.parent}", "make it first")
    if artifact.kind == "votes":
        return _export_votes(ws, artifact, target, format, conversational, split, number_judges, person)
    rows = read_jsonl(artifact.path / loading.ROWS) if artifact.kind in views.VIEWS["raw"] else []
    view = views.view(
        artifact.kind, rows, format, conversational=conversational, split=split, number_judges=number_judges
    )
    if ending == writers.FOLDER:
        with saying_disk_full(target), TemporaryDirectory(prefix=".", dir=target.parent) as room:
            writers.write_folder(Path(room, "made"), view)
            sync_tree(Path(room, "made"))
            os.replace(Path(room, "made"), target)
    else:
        with replacing(target) as new:
            writers.WRITERS[ending](new, view)
    if any(each["source"] == "human" for each in said_by(artifact)):
        about = str(artifact.meta.get("collection", artifact.id))
        audit.note(ws.database, time.time(), person, "exported", about, artifact=artifact.id, format=format)
    return ExportReport(target, len(view.rows), view.left_out, view.notes)


def _export_votes(
    ws: Workspace,
    artifact: Artifact,
    target: Path,
    format: str,
    conversational: bool,
    split: str,
    number_judges: bool,
    person: str,
) -> ExportReport:
    """All that was said in a collection, without holding it."""
    from .feedback import votes

    votes.check_export(format, conversational)
    rows = votes.write(artifact, target, split=split, number_judges=number_judges)
    about = str(artifact.meta["collection"])
    audit.note(ws.database, time.time(), person, "exported", about, artifact=artifact.id, format="votes")
    return ExportReport(target, rows, [], {})


def show_data(ws: Workspace, ref: Ref, *, model: Ref | None = None, rows: int = 5) -> dict[str, Any]:
    """Rows of a data artifact; with a `model`, as it will see them: template applied, trained tokens marked."""
    artifact = ws.get(ref)
    readers: dict[str, Callable[[Artifact], list[Any]]] = {
        "prompts": loading.read_prompts,
        "demonstrations": loading.read_demonstrations,
        "completions": loading.read_drafts,
        **dict.fromkeys(JUDGED, loading.read_judgements),
    }
    if artifact.kind == "votes":
        return _shown_votes(artifact, model, rows)
    records = readers.get(artifact.kind, _no_rows)(artifact)
    found: dict[str, Any] = {"artifact": artifact.id, "kind": artifact.kind, "rows": len(records)}
    if model is None:
        shown = [record.to_json() for record in records[:rows]]
        return found | {"shown": shown, "text": "\n".join(json.dumps(r, indent=1, ensure_ascii=False) for r in shown)}
    from .text.show import show, summarise

    folders = find_input(ws, "model", model, (*MODELS, "reward")).folders
    encoder, longest = loading.load_reader(folders, configs.ModelSettings())
    seen = [row for record in records[:rows] for row in show(record, encoder, longest)]
    summary = summarise(records, encoder, longest).to_json()
    text = "\n\n".join(row.text() for row in seen) + "\n\n" + "  ".join(f"{k} {v}" for k, v in summary.items())
    shown = [
        {"segments": [list(s) for s in row.segments], "tokens": row.tokens, "truncated": row.truncated} for row in seen
    ]
    return found | {"max_tokens": longest, "shown": shown, "summary": summary, "text": text}


def _shown_votes(artifact: Artifact, model: Ref | None, rows: int) -> dict[str, Any]:
    """Rows as they are in the file, without the columns in which they say nothing. No model ever sees them."""
    if model is not None:
        raise TrueupError(f"artifact {artifact.id} holds votes, and no model is trained on these", "leave --model out")
    first = islice(loading.rows_of(artifact), rows)
    shown = [{name: value for name, value in row.items() if value not in (None, "", [], {})} for row in first]
    text = "\n".join(json.dumps(row, indent=1, ensure_ascii=False) for row in shown)
    return {"artifact": artifact.id, "kind": artifact.kind, "rows": artifact.meta["rows"], "shown": shown, "text": text}


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
        what: loading.put_records(ws, kind, rows, name=f"world-{what}", source=f"built-in world, seed {seed}")
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
    """The simulated people of the built-in world judge a completion set; what they said becomes a preference set.

    A prompt that was judged before in this workspace stays on its side of the held-out split, whatever the seed.
    """
    from .feedback.collect import sides_of
    from .feedback.splits import side_of
    from .records import by_prompt
    from .store import JUDGED
    from .world import SimulatedPeople

    if name:
        check_name(name)
    source = ws.get(completions)
    items = by_prompt(loading.read_completions(source))
    if not all("world" in item[0].prompt.meta for item in items):
        raise TrueupError("simulated people can only judge posts of the built-in world", "use `trueup data world`")
    if lone := sum(len(item) < 2 for item in items):
        raise TrueupError(
            f"{lone} of the {len(items)} prompts have one completion only: there is nothing to compare",
            "sample the prompts again with per_prompt of 2 or more",
        )
    known = sides_of(ws, [artifact for kind in JUDGED for artifact in ws.artifacts(kind)])
    sides: dict[str, list[Any]] = {"train": [], "heldout": []}
    for item in items:
        sides[side_of(item[0].prompt, known, heldout, seed)].append(item)
    judgements = [
        judgement
        for split, chosen in sides.items()
        for judgement in SimulatedPeople(
            seed,
            mode="pairs",
            pairs_per_prompt=pairs_per_prompt,
            split=split,  # type: ignore[arg-type]
        ).judge(chosen)
    ]
    stored = ws.add_judgements(judgements, source)
    rows = [judgement.to_json() for judgement in stored]
    return loading.put_records(ws, "preferences", rows, name=name, parents={"completions": source}, source="simulated")


# --- people who judge


def collect(
    ws: Workspace,
    name: str,
    *,
    completions: Sequence[Ref] = (),
    prompts: Ref | None = None,
    models: Sequence[Ref] = (),
    per_prompt: int = 4,
    sampling: Mapping[str, Any] | None = None,
    config: Table | None = None,
    guideline: str = "",
    golds: str | Path = "",
    items_per_prompt: int = 1,
    per_item: int = 0,
    heldout: float = 0.1,
    limit: int = 0,
    seed: int = 0,
    **settings: Any,
) -> Collected:
    """Put completions before people: the collection `name`, made or gone on with. `trueup label` opens it.

    Either `completions` (completion sets, or judgements whose texts are judged anew), or `prompts` and the `models`
    that answer them, `per_prompt` times each; what was sampled before is taken again. `golds` is a file, or a
    collection in which people agreed on some items.
    """
    from .collecting import Candidates, collect_for

    filling = Filling(items_per_prompt, per_item, heldout, limit, seed=seed)
    chosen = config_of("collection", config, settings)
    sampler = Candidates(prompts, tuple(models), per_prompt, dict(sampling or {}))
    return collect_for(ws, name, chosen, tuple(completions), sampler, filling, guideline, str(golds))


def status(ws: Workspace, collection: str) -> Status:
    """How far a collection is, how fast it goes, and how long it would take, with what that assumes."""
    from .feedback.status import status

    return status(ws, collection, time.time())


def retrain(
    ws: Workspace,
    collection: str,
    *,
    votes: Votes = "add",
    judge: str = "",
    reward: Ref = "reward",
    steps: int = 0,
    name: str = "",
) -> dict[str, Any]:
    """Train a reward model again with what people said in a collection: added to what it learnt from, or in its place.

    `judge` takes the votes of one person: a pseudonym, or "me" for the owner of the workspace. Also how often the model
    agreed with those people before and after, on judgements that it did not learn from.
    """
    from .retraining import retrain

    return retrain(ws, collection, votes=votes, judge=judge, reward=reward, steps=steps, name=name)


# --- models in and out


def ensemble(ws: Workspace, models: Sequence[Ref], *, name: str = "") -> Artifact:
    """Make one reward model of several that were trained with different seeds; scores then have a `spread`."""
    from .ensembling import ensemble

    return ensemble(ws, models, name=name)


def export(ws: Workspace, ref: Ref, folder: str | Path, merge: bool = False, base: str = "") -> Path:
    """Write a model as a plain transformers folder, or PEFT one for an adapter, with tokenizer and model card.

    An adapter on a model of the workspace needs `merge`, or the folder or hub id under which others find its `base`.
    """
    from .exporting import export_model
    from .kept_models import shipped

    return export_model(ws, resolve_model(ws, shipped(ws, ref)), Path(folder), merge, base)


def plan(ws: Workspace, stage: str, inputs: Mapping[str, Ref], config: Table) -> dict[str, Any]:
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
