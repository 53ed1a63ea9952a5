"""Models before a judge: who answers, who judges, and what came of it. `wiring` hands its stage over to here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .config import CollectionConfig, WinrateConfig
from .errors import ConfigError, DataError
from .evals.asked import Pair, both_orders, places, read_verdict, verdict_on
from .evals.compare import best_of, summary
from .evals.matches import Match, Sides, by_judgements, by_scores, meetings
from .inputs import ANY_SCORER, PROMPTS, REMOTE, WRITERS, Ref, find_input, is_remote
from .loading import put_records, read_judgements, read_prompts, require_gold
from .questioning import asked, check_missing, who_was_asked
from .records import Completion, Judgement, Prompt
from .runs import Run
from .scorers import load_scorer, measured, scored_by
from .store import Artifact, Workspace
from .world import GoldScorer
from .writing import answered, concluded, with_room_for

PEOPLE = "people:"  # before the name of a collection: its people judge
JUDGES = (*ANY_SCORER, "model", REMOTE, "preferences")  # kinds of what may be named as the judge
EVALUATES = 1 - 1e-9  # the share of prompts whose votes are held out: all, since what is measured is never learnt from


def winrate(run: Run, config: WinrateConfig) -> Artifact:
    """The stage: every model answers, every two of them meet on every prompt, and somebody judges."""
    from .models.device import use_threads

    use_threads(config.run.threads)
    prompts = read_prompts(run.inputs["prompts"])
    prompts = prompts[: config.limit or len(prompts)]
    roles = sides_of(run.inputs)
    if not {"judge", "asked", "verdicts"} & run.inputs.keys():
        require_gold(prompts)
    prompts, dropped = with_room_for(run, roles, prompts, config)
    sides = [_answers(run, role, config, prompts, config.run.seed + place) for place, role in enumerate(roles)]
    matches, about = judged(run, config, sides)
    check_missing(run, config, Counter(m.why for m in matches if m.points is None), len(matches), "pairs")
    models = [_label(run.inputs[role].id, role, config) for role in roles]
    result = summary(models, matches, about) | {"dropped": dropped}
    return concluded(run, (match.to_json() for match in matches), result)


def sides_of(roles: Mapping[str, Any]) -> list[str]:
    """Of the inputs those that answer, in the order in which they were named."""
    others = sorted((role for role in roles if role.startswith("other.")), key=lambda role: int(role[6:]))
    return [role for role in ("a", "b") if role in roles] + others


def with_judge(ws: Workspace, judge: Ref) -> dict[str, Ref]:
    """What was named as the judge, as the input it is: a scorer, a model that is asked, or verdicts that are there."""
    if isinstance(judge, str) and judge == "gold":
        return {}
    if is_remote(judge):
        return {"asked": judge}
    found = find_input(ws, "judge", judge, JUDGES)
    if found.kind == "preferences":
        return {"verdicts": judge}
    writes = found.kind in ("model", REMOTE) or (found.kind == "external" and _writes(found.folders[0]))
    return {"asked" if writes else "judge": judge}


def _writes(source: str) -> bool:
    """Whether a model from elsewhere writes text, by its config."""
    from .config import ModelSettings
    from .inputs import stored_kind
    from .models.load import load_config

    if stored_kind(source):
        return False
    made_for = next(iter(load_config(source, ModelSettings()).architectures or ()), "")
    return "Classification" not in made_for


# --- who answers


def _answers(run: Run, role: str, config: WinrateConfig, prompts: Sequence[Prompt], seed: int) -> list[Completion]:
    """One completion a prompt: sampled now, or the first of a set; of B the best of n where that is asked."""
    each = config.best_of if role == "b" else 1
    sampling = config.sampling
    if role == "b" and config.temperature_b is not None:
        sampling = sampling.model_copy(update={"temperature": config.temperature_b})
    found = answered(run, role, config, prompts, sampling, seed, each)
    if each == 1:
        return found
    scorer, _ = load_scorer(run, scored_by(run.inputs)[0], config)
    return best_of(found, measured(scorer, found), each)


def _label(identity: str, role: str, config: WinrateConfig) -> str:
    """A model by its id, and by how it answered where that differs from the others."""
    if role == "b" and config.best_of > 1:
        return f"{identity}, best of {config.best_of}"
    if role == "b" and config.temperature_b is not None:
        return f"{identity}, {'greedy' if not config.temperature_b else f'temperature {config.temperature_b:g}'}"
    return identity


# --- who judges


def judged(run: Run, config: Any, sides: Sides, last: bool = False) -> tuple[list[Match], dict[str, Any]]:
    """Every meeting with its verdict, and what is known of who gave it. With `last`, those of the last model alone."""
    if "verdicts" in run.inputs:
        return _by_people(run, sides, last)
    if "asked" in run.inputs:
        return _by_asking(run, config, sides, last)
    if "judge" not in run.inputs:
        return by_scores(sides, measured(GoldScorer(), [c for side in sides for c in side]), last), {"kind": "gold"}
    judge, _ = load_scorer(run, ["judge"], config, by_itself="judge" in scored_by(run.inputs)[1])
    found = by_scores(sides, measured(judge, [c for side in sides for c in side]), last)
    return found, {"kind": "score", "id": run.inputs["judge"].id, **_relations(run)}


def _relations(run: Run) -> dict[str, list[str]]:
    """`shaped` are the models that this judge had a part in making: trained against it or chosen by it, or by a part of
    it. `cousins` were made by a score that learnt from judgements which this judge learnt from, too."""
    behind = {role: run.workspace.lineage(artifact).nodes for role, artifact in run.inputs.items()}
    scores = {role: {node.id for node in nodes.values() if node.kind == "reward"} for role, nodes in behind.items()}
    judge = scores["judge"] | {run.inputs["judge"].id}
    learnt = _judgements(behind["judge"])
    shaped = [role for role in sides_of(run.inputs) if judge & behind[role].keys()]
    others = [role for role in sides_of(run.inputs) if role not in shaped and scores[role]]
    cousins = [
        role
        for role in others
        if any(learnt & _judgements(run.workspace.lineage(score).nodes) for score in sorted(scores[role]))
    ]
    return {
        "shaped": [run.inputs[role].id for role in shaped],
        "cousins": [run.inputs[role].id for role in cousins],
    }


def _judgements(nodes: Mapping[str, Any]) -> set[str]:
    return {node.id for node in nodes.values() if node.kind in ("preferences", "unpaired")}


def _by_people(run: Run, sides: Sides, last: bool) -> tuple[list[Match], dict[str, Any]]:
    judgements = read_judgements(run.inputs["verdicts"])
    found = by_judgements(sides, judgements, last)
    if not any(match.judge for match in found.matches):
        raise DataError(
            f"none of the {len(judgements)} judgements in {run.inputs['verdicts'].id} is about what these models wrote",
            "name the completion sets that were judged, or have these models judged: --judge people:NAME",
        )
    people = {match.judge for match in found.matches} - {""}
    about = {
        "kind": "verdicts",
        "id": run.inputs["verdicts"].id,
        "sources": found.sources,
        "judges": len(people),
        "waiting": found.waiting,
        "elsewhere": found.elsewhere,
    }
    return found.matches, about


def _by_asking(run: Run, config: Any, sides: Sides, last: bool) -> tuple[list[Match], dict[str, Any]]:
    met = list(meetings(sides, last))
    pairs: list[Pair] = [(a, b) for _, _, a, b in met if a.text.strip() != b.text.strip()]
    found = asked(run, config, both_orders(pairs, config.asked.guideline), read_verdict)
    matches = []
    for i, j, a, b in met:
        equal = a.text.strip() == b.text.strip()
        points, why = (0.5, "") if equal else verdict_on((a, b), found)
        matches.append(Match(i, j, a, b, points, why=why))
    return matches, who_was_asked(run) | {"order": places(pairs, found)}


# --- people


def before_people(
    ws: Workspace, name: str, models: Sequence[Ref], prompts: Ref, config: WinrateConfig, guideline: str = ""
) -> tuple[list[Artifact], Artifact | None, dict[str, Any]]:
    """What the models wrote, as completion sets, in the collection `name`, which is made if it is not there; and the
    votes in it, frozen as they were given, None while there are none. Also how far people have come."""
    from .collecting import Candidates, sampled

    if config.best_of > 1 or config.temperature_b is not None:
        raise ConfigError(
            "people judge completion sets: best_of and temperature_b have no meaning here",
            "make the set first: trueup sample --best-of 8 --reward REWARD, and name it as a model",
        )
    every = find_input(ws, "prompts", prompts, PROMPTS).artifact
    assert every is not None, "prompts are always in the workspace"
    chosen = _first(ws, every, config.limit)
    said = config.model_dump(mode="json")
    how = Candidates(per_prompt=1, sampling=said["sampling"], remote=said["remote"])
    sets = []
    for place, model in enumerate(models):
        found = find_input(ws, "a", model, (*WRITERS, "completions"))
        stored = found.artifact if found.kind == "completions" else None
        sets.append(stored or sampled(ws, model, chosen, how, config.run.seed, place))
    if len({artifact.id for artifact in sets}) < len(sets):
        raise ConfigError("the same completions are named twice", "people would compare them with themselves")
    into_collection(ws, name, sets, config.run.seed, guideline)
    frozen, progress = _frozen(ws, name)
    return sets, frozen, progress


def into_collection(ws: Workspace, name: str, sets: Sequence[Artifact], seed: int, guideline: str = "") -> None:
    """Every two different answers to a prompt, before people; the collection is made if it is not there. All of it is
    held out."""
    from .feedback.collect import Filling, collect
    from .store import queue

    pairs = len(sets) * (len(sets) - 1) // 2
    filling = Filling(items_per_prompt=pairs, heldout=EVALUATES, seed=seed)
    there = next((each for each in queue.collections(ws.database) if each.name == name), None)
    settings = CollectionConfig.model_validate(dict(there.config)) if there else CollectionConfig(task="pair")
    if settings.task == "pair":  # pairs that are there already enter once, so what was cut off is completed
        collect(ws, name, settings, sets, now=time.time(), guideline=guideline, filling=filling)


def said_in(ws: Workspace, name: str) -> tuple[list[Judgement], dict[str, Any]]:
    """What people have said in a collection so far, and how far they have come."""
    frozen, progress = _frozen(ws, name)
    return (read_judgements(frozen) if frozen else []), progress


def _frozen(ws: Workspace, name: str) -> tuple[Artifact | None, dict[str, Any]]:
    """The votes as they were given, so the same votes are the same artifact; None while there are none."""
    from .feedback.freeze import Choice, freeze
    from .feedback.status import status
    from .store import queue

    about = status(ws, queue.collection(ws.database, name).id, time.time(), leaks=False)
    progress = {"collection": name, "judgements": about.judgements, "needed": about.needed}
    return (freeze(ws, name, Choice(rule="raw")).artifact if about.judgements else None), progress


def _first(ws: Workspace, prompts: Artifact, limit: int) -> Artifact:
    if not limit:
        return prompts
    rows = [prompt.to_json() for prompt in read_prompts(prompts)[:limit]]
    return put_records(ws, "prompts", rows, parents={"prompts": prompts}, source=f"the first {limit}")
