"""What is told of runs: of one, of all that led to an artifact, and how two differ. Figures here, pages in `reports/`.

It reads what the runs left and loads no model: torch is not needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from .auditing import latest_audit
from .climbing import overopt_of
from .config import STAGES, flat
from .errors import NotFoundError, RunError
from .inputs import INPUTS, SCORERS, kind_of_role, scores
from .loading import ROWS, prompts_of
from .runs import Run, diff, runs, track
from .runs.doctor import diagnose
from .runs.history import both_ends, columns, distributions, side_by_side
from .runs.reading import evenly
from .store import Artifact, Node, Workspace, read_jsonl

MEETINGS_SHOWN = 8  # of each kind: won, lost, tied
MEASURES = ("winrate", "safety", "compare", "audit", "tradeoff")  # stages that judge what others made
LEARNS = ("pretrain", "sft", "reward", "rl", "dpo", "kto", "ilql")  # stages that log metrics, step by step
MEASURED = ("a", "b", "other", "model")  # as what


def report(ws: Workspace, refs: Sequence[str]) -> dict[str, Any]:
    """Runs, by their ids, and of artifacts the runs that led to them, with what measured the result: oldest first."""
    chosen: dict[str, Run] = {}
    roots: dict[str, Artifact] = {}
    asked: set[str] = set()  # those that were asked for by themselves, with what they were made from
    for ref in refs:
        run = _run(ws, ref)
        found, made = ([run], _around(run)) if run else _behind(ws, ws.get(ref))
        chosen |= {each.id: each for each in found}
        roots |= {artifact.id: artifact for artifact in made}
        asked |= set() if run else {one for artifact in made for one in ws.lineage(artifact.id).nodes}
    told = []
    with track(len(chosen), "report") as advance:
        for run in sorted(chosen.values(), key=lambda run: (run.row.started, run.id)):
            told.append(about(run, asked))
            advance()
    _note_what_is_elsewhere(ws, told)
    return {
        "runs": told,
        "lineage": _lineage(ws, roots.values()),
        "cost": {key: sum(each["cost"][key] for each in told) for key in ("wall", "cpu", "tokens")},
    }


def _note_what_is_elsewhere(ws: Workspace, told: Sequence[dict[str, Any]]) -> None:
    """How many runs measured what a run made, and are not told of here."""
    here = {each["id"] for each in told}
    others = [run for run in runs(ws) if run.stage in MEASURES and run.id not in here and run.row.status == "done"]
    for each in told:
        made = each["asked"] or [one["id"] for one in each["outputs"] if "@" not in one["role"]]
        each["measured_elsewhere"] = sum(any(_measures(run, of) for of in made) for run in others)


def about(run: Run, asked: Collection[str] = ()) -> dict[str, Any]:
    """All that a page says of one run, as JSON. `step` is that of the model it is about: of one of its outputs that was
    asked for, else of what it made in the end."""
    metrics, events, result = run.metrics(), run.events(), dict(run.result)
    chosen = {role: one for role, one in run.row.outputs.items() if one in asked}
    if "model" in chosen:  # of several the end
        chosen = {"model": chosen["model"]}
    earlier = sorted(int(role.partition("@")[2]) for role in chosen if "@" in role)[-1:]
    chosen = {f"model@{step}": chosen[f"model@{step}"] for step in earlier} or chosen
    step = earlier[0] if earlier else result.get("best_step")
    return {
        "id": run.id,
        "stage": run.stage,
        "name": run.row.name,
        "status": run.status,
        "note": run.row.note,
        "error": run.row.error,
        "seed": run.seed,
        "started": run.row.started,
        "ended": run.row.ended,
        "resume": "" if run.status in ("done", "running") else run.resume_command,
        "inputs": artifacts_of(run.workspace, run.row.inputs),
        "outputs": artifacts_of(run.workspace, run.row.outputs),
        "metrics": columns(metrics),
        "start": next((event for event in events if event.get("kind") == "start"), {}),
        "result": result,
        "events": events,
        "findings": _findings(run),
        "rollouts": distributions(run),
        "evaluations": distributions(run, heldout=True),
        "samples": _with_prompts(side_by_side(run, step, until=earlier[0] if earlier else None), run),
        "meetings": _meetings(run),
        "reward_models": _reward_models(run),
        "overopt": overopt_of(run),
        "missing": _missing(run, metrics),
        "measured_elsewhere": 0,
        "asked": sorted(chosen.values()),
        "step": step,
        "cost": cost_of(run, metrics),
        "config": dict(run.config),
        "changed": _changed(run),
        "versions": dict(run.row.versions),
    }


def difference(ws: Workspace, a: str, b: str) -> dict[str, Any]:
    """What differs between two runs, in words and over time."""
    run_a, run_b = Run.load(ws, a), Run.load(ws, b)
    return {
        "a": about(run_a),
        "b": about(run_b),
        "differences": diff(run_a, run_b) | {"data": _data_apart(ws, run_a, run_b)},
        "samples": _with_prompts(both_ends(run_a, run_b), run_a),
    }


def _data_apart(ws: Workspace, run_a: Run, run_b: Run) -> dict[str, tuple[str, str]]:
    """By role what each was made from where that differs: names, how many rows, and how many judgements by whom."""
    roles = dict.fromkeys([*run_a.row.inputs, *run_b.row.inputs])
    pairs = {role: [run.row.inputs.get(role, "") for run in (run_a, run_b)] for role in roles}
    return {
        role: (_in_words(ws, first), _in_words(ws, second))
        for role, (first, second) in pairs.items()
        if first != second
    }


def _in_words(ws: Workspace, identity: str) -> str:
    if not identity:
        return "not there"
    artifact, root = ws.get(identity), ws.lineage(identity).nodes[identity]
    said = [", ".join(root.names), artifact.kind, identity[:8]]
    if "rows" in artifact.meta:
        said.append(f"{artifact.meta['rows']:,} rows")
    said += [f"{each['count']:,} judgements by {each['judge'] or each['source']}" for each in root.judgements[:3]]
    said += [f"and {len(root.judgements) - 3} more judges"] * (len(root.judgements) > 3)
    settings = root.run["id"] if root.run else ""
    return ", ".join(filter(None, [*said, f"made by {settings}" if settings else ""]))


def _run(ws: Workspace, ref: str) -> Run | None:
    try:
        return Run.load(ws, ref)
    except NotFoundError:
        return None


def _around(run: Run) -> list[Artifact]:
    """The artifacts whose lineage is to be drawn."""
    return [*run.outputs.values()] or [*run.inputs.values()]


def _behind(ws: Workspace, artifact: Artifact) -> tuple[list[Run], list[Artifact]]:
    """The runs that an artifact came from, and those that measured it."""
    nodes = ws.lineage(artifact.id).nodes
    made = {node.run["id"] for node in nodes.values() if node.run}
    found = [run for run in runs(ws) if run.id in made or _measures(run, artifact.id)]
    if not found:
        raise RunError(f"no run made '{artifact.id}' or measured it", "`trueup runs list` shows the runs there are")
    return found, [artifact]


def measuring(ws: Workspace, artifact: str) -> list[Run]:
    """The runs that judged a model, oldest first."""
    found = [run for run in runs(ws) if _measures(run, artifact)]
    return sorted(found, key=lambda run: (run.row.started, run.id))


def _measures(run: Run, artifact: str) -> bool:
    """By itself, or by a completion set that it wrote. Not those in which it was the judge, or chose the best."""
    if run.stage not in MEASURES:
        return False
    measured = [of for role, of in run.row.inputs.items() if kind_of_role(role) in MEASURED]
    return artifact in measured or any(run.workspace.get(of).parents.get("model") == artifact for of in measured)


def artifacts_of(ws: Workspace, ids: Mapping[str, str]) -> list[dict[str, Any]]:
    """What they are and what they are called, by their roles in a run."""
    names = ws.names()
    found = []
    for role, identity in ids.items():
        artifact = ws.get(identity)
        called = sorted(name for name, of in names.items() if of == identity)
        texts = artifact.parents if artifact.kind == "completions" else {}
        found.append(
            {
                "role": role, "id": identity, "kind": artifact.kind, "names": called,
                "written_by": texts.get("model", ""), "chosen": any(kind_of_role(each) == "reward" for each in texts),
            }
        )  # fmt: skip
    return found


def _lineage(ws: Workspace, roots: Iterable[Artifact]) -> list[dict[str, Any]]:
    """Every artifact behind the roots once: what it is, what it was made of, by which run."""
    nodes: dict[str, Node] = {}
    for root in roots:
        nodes |= ws.lineage(root.id).nodes
    return [
        {
            "id": node.id,
            "kind": node.kind,
            "names": list(node.names),
            "sources": dict(node.sources),
            "run": node.run["id"] if node.run else "",
            "stage": node.run["stage"] if node.run else "",
            "judges": [{key: each[key] for key in ("source", "judge", "count")} for each in node.judgements],
        }
        for node in nodes.values()
    ]


def _findings(run: Run) -> list[dict[str, Any]]:
    """What the doctor says; of stages that learn nothing it says nothing."""
    try:
        found = diagnose(run).findings
    except RunError:
        return []
    return [{"code": f.code, "severity": f.severity, "says": f.says, "tries": list(f.tries)} for f in found]


def _with_prompts(samples: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """And what was asked, in words, by the prompt's id."""
    asked = prompts_of(run) if samples["rows"] else {}
    wanted = [row["prompt"] for row in samples["rows"]]
    return {**samples, "prompts": {each: asked[each].text for each in wanted if each in asked}}


def _meetings(run: Run) -> dict[str, Any]:
    """Of an evaluation, answers to read: as many of each kind, evenly from all of them. Of a comparison these are won,
    lost and tied, of refusals right and wrong ones."""
    made = run.row.outputs.get("evaluation") if run.stage in ("winrate", "safety", "compare") else None
    path = run.workspace.get(made).path / ROWS if made else None
    if path is None or not path.is_file():
        return {"of_all": 0, "rows": []}
    if run.stage == "compare":  # it kept only those on which the models differ most
        return {"of_all": run.result.get("prompts", 0), "rows": list(read_jsonl(path))}
    kinds: dict[Any, list[dict[str, Any]]] = {}
    for row in read_jsonl(path):
        kind = row.get("points") if run.stage == "winrate" else (row["label"], row["model"]["reply"])
        kinds.setdefault(kind, []).append(row)
    shown = [row for rows in kinds.values() for row in evenly(rows, MEETINGS_SHOWN)]
    return {"of_all": sum(map(len, kinds.values())), "rows": shown}


def _missing(run: Run, metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What should be there and is not: files of artifacts, metrics of a run that learnt."""
    gone = [
        f"The files of {role} {identity[:8]} are missing."
        for role, identity in {**run.row.inputs, **run.row.outputs}.items()
        if not run.workspace.get(identity).path.is_dir()
    ]
    if run.row.status == "done" and run.stage in LEARNS and not metrics:
        gone.append("Its metrics are missing.")
    return [{"run": run.id, "says": says} for says in gone]


def _reward_models(run: Run) -> list[dict[str, Any]]:
    """The reward models that scored in it: how the run that made each ended, and what its last audit found."""
    found = []
    for role, artifact in run.inputs.items():
        if run.stage not in INPUTS or artifact.kind not in SCORERS or not scores(run.stage, role):
            continue
        maker = next((other for other in runs(run.workspace) if artifact.id in other.row.outputs.values()), None)
        audit = latest_audit(run.workspace, artifact.id)
        found.append(
            {
                "role": role,
                "id": artifact.id,
                "result": dict(maker.result) if maker else {},
                "audit": {key: audit[key] for key in ("evaluation", "gate") if key in audit} if audit else None,
            }
        )
    return found


def cost_of(run: Run, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds, tokens and memory. Tokens of RL are those that were sampled, of other stages those learnt from."""
    timing = run.timing()
    last = timing[-1] if timing else {"wall": 0.0, "cpu": 0.0}
    tokens = sum(row["tokens"] for row in metrics if row.get("tokens"))
    if run.stage == "rl":
        rows = run.config.get("prompts_per_step", 0) * run.config.get("samples_per_prompt", 0)
        tokens = rows * sum(row["length"] for row in metrics if row.get("length"))
    peak = max((row["mib"] for row in timing if row.get("mib")), default=None)
    return {"wall": last["wall"], "cpu": last["cpu"], "tokens": round(tokens), "peak_mib": peak}


def _changed(run: Run) -> dict[str, Any]:
    """Settings that are not the default of today's version."""
    if run.stage not in STAGES:
        return {}
    try:
        defaults = flat(STAGES[run.stage]().model_dump(mode="json"))
    except ValueError:  # a stage without a default for everything
        return {}
    mine = flat(run.config)
    return {key: value for key, value in mine.items() if key in defaults and value != defaults[key]}
