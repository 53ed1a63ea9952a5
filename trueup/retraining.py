"""A reward model trained again with what people said in a collection, beside the judgements it had or in their place.

The settings and the inputs are those of the run that trained the first one. Judgements of people stay marked as theirs,
in the rows and in the lineage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from . import wiring
from .config import ModelSettings, RewardConfig, check
from .errors import ConfigError, TrueupError, nearest
from .evals.reward import as_completions
from .feedback.freeze import Choice, freeze
from .feedback.relabel import VOTES, Votes, compared, parts, points
from .inputs import Ref, chain, find_inputs, note_inputs
from .records import Judgement
from .runs import Run
from .store import Artifact, RunRow, Workspace
from .store.artifacts import check_name

PASSES = 10  # over judgements that are learnt from alone, unless steps say otherwise
FEWEST_STEPS = 20


def retrain(
    ws: Workspace, collection: str, *, votes: Votes = "add", reward: Ref = "reward", steps: int = 0, name: str = ""
) -> dict[str, Any]:
    """The new reward model, and agreement with the people of the collection before and after.

    Agreement is measured on judgements that were not learnt from: held-out ones where there are a hundred, else each
    half by a model trained on the other half, and the model that is kept learns from all.
    """
    if votes not in VOTES:
        raise ConfigError(f"unknown votes '{votes}'{nearest(votes, VOTES)}", "add or only-mine")
    if name:
        check_name(name)
    before = ws.get(reward)
    row = _maker(ws, before)
    frozen = freeze(ws, collection, Choice())
    mine = wiring.read_judgements(frozen.artifact)
    config = _settings(row, steps, mine if votes == "only-mine" else ())
    split, how = parts(mine, config.run.seed)
    models = [
        _trained(ws, row, config, _data(ws, row, part.train, votes, frozen.artifact, part.test, len(split)))
        for part in split
    ]
    kept = models[0]
    if len(split) > 1:
        everything = [replace(judgement, split="train") for judgement in mine]
        kept = _trained(ws, row, config, _data(ws, row, everything, votes, frozen.artifact))
    tested = [judgement for part in split for judgement in part.test]
    after = [point for part, model in zip(split, models, strict=True) for point in _points(ws, model, part.test)]
    if name:
        ws.set_name(name, kept)
    return {
        "model": kept.id,
        "name": name,
        "votes": votes,
        "judgements": len(mine),
        "people": frozen.people,
        "trained_on": _counted(wiring.read_judgements(ws.get(kept.parents["data"]))),
        "left_out": dict(frozen.left_out),
        "steps": config.steps,
        "models_trained": len(models) + (len(split) > 1),
        "agreement": compared(_points(ws, before, tested), after, how),
        "known_before": _known(ws, row, tested),
    }


def _known(ws: Workspace, row: RunRow, tested: Sequence[Judgement]) -> int:
    """Tested judgements about prompts of which the model before had learnt what others said: it had the easier test."""
    old = {each.prompt.id for each in wiring.read_judgements(ws.get(row.inputs["data"])) if each.split == "train"}
    return sum(judgement.prompt.id in old for judgement in tested)


def _maker(ws: Workspace, model: Artifact) -> RunRow:
    """The run that trained a reward model."""
    if model.kind != "reward":
        raise TrueupError(
            f"artifact {model.id} is of kind '{model.kind}', not a reward model", "name one with --reward"
        )
    for row in ws.run_rows():
        if row.stage == "reward" and model.id in row.outputs.values():
            return row
    raise TrueupError(f"no run of this workspace made {model.id}", "train one here first: trueup train reward")


def _settings(row: RunRow, steps: int, alone: Sequence[Judgement]) -> RewardConfig:
    """Those of the first training, in half the steps: two or three models are trained, and the last half of the steps
    is worth a point of accuracy. A few judgements `alone` would be learnt by heart even in those."""
    config = RewardConfig.model_validate(dict(row.config))
    if not steps and config.steps:
        prompts = len({judgement.prompt.id for judgement in alone})
        most = ceil(PASSES * prompts / config.batch_size) if alone else config.steps
        steps = min(config.steps, max(FEWEST_STEPS, min(most, config.steps // 2)))
    return config.model_copy(update={"steps": steps}) if steps else config


def _trained(ws: Workspace, row: RunRow, config: RewardConfig, data: Artifact) -> Artifact:
    refs: dict[str, Ref] = {**row.inputs, "data": data}
    check(config)
    inputs = note_inputs(ws, find_inputs(ws, "reward", refs, config))
    run = Run.start(ws, "reward", config.model_dump(mode="json"), inputs, seed=config.run.seed)
    return wiring.execute(run, config)


def _data(
    ws: Workspace,
    row: RunRow,
    mine: Sequence[Judgement],
    votes: Votes,
    frozen: Artifact,
    tested: Sequence[Judgement] = (),
    parts: int = 1,
) -> Artifact:
    """What to learn from: nothing about the prompts it is tested on, whoever judged them.

    A model that is only there to be tested needs no held-out judgements of others.
    """
    rows = [judgement.to_json() for judgement in mine]
    if votes == "only-mine":
        return wiring.put_records(ws, "preferences", rows, parents={"judgements": frozen}, source="people's judgements")
    old = ws.get(row.inputs["data"])
    closed = {judgement.prompt.id for judgement in tested}
    before = [
        each.to_json()
        for each in wiring.read_judgements(old)
        if (each.split == "train" and each.prompt.id not in closed) or (each.split == "heldout" and parts == 1)
    ]
    parents = {"judgements": old, "added": frozen}
    return wiring.put_records(ws, "preferences", [*before, *rows], parents=parents, source="judgements, some added")


def _points(ws: Workspace, model: Artifact, judgements: Sequence[Judgement]) -> list[float]:
    from .engines.reward_scorer import RewardScorer
    from .models.load import load_reward

    scorer = RewardScorer(load_reward(chain(ws, model), ModelSettings()))
    groups = [as_completions(judgement) for judgement in judgements]
    scores = iter(scorer.score([completion for group in groups for completion in group]))
    return points(judgements, [[next(scores).value for _ in group] for group in groups])


def _counted(judgements: Sequence[Judgement]) -> Mapping[str, int]:
    """Judgements to learn from, by source."""
    counts: dict[str, int] = {}
    for judgement in judgements:
        if judgement.split == "train":
            counts[judgement.source] = counts.get(judgement.source, 0) + 1
    return counts
