"""A reward model trained again with what people said in a collection, beside the judgements it had or in their place.

The settings and the inputs are those of the run that trained the first one. Judgements of people stay marked as theirs,
in the rows and in the lineage.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any

from . import loading, wiring
from .config import ModelSettings, RewardConfig, check
from .errors import ConfigError, NotFoundError, TrueupError, nearest
from .evals.reward import as_completions
from .feedback.freeze import Choice, freeze
from .feedback.relabel import VOTES, Votes, compared, parts, points
from .inputs import Ref, chain, find_inputs, note_inputs
from .planning import check_run
from .records import Judgement
from .runs import Run
from .store import Artifact, RunRow, Workspace, audit, people, queue
from .store.artifacts import check_name

if TYPE_CHECKING:  # torch loads when models are trained
    from .engines.reward_scorer import RewardScorer

ME = "me"
PASSES = 10  # over judgements that are learnt from alone, unless steps say otherwise
FEWEST_STEPS = 20
MOST_HELDOUT = 300  # judgements of others that the new model is held to: enough to choose a checkpoint by, and quick


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
    """The new reward model, and agreement with the people of the collection, or with one `judge`, before and after.

    Agreement is measured on judgements that were not learnt from: held-out ones where there are a hundred, else each
    half by a model trained on the other half. The model that is kept learns from all that are not held out.
    """
    if votes not in VOTES:
        raise ConfigError(f"unknown votes '{votes}'{nearest(votes, VOTES)}", "add or only-mine")
    if name:
        check_name(name)
    before = ws.get(reward)
    row = _maker(ws, before)
    about = queue.collection(ws.database, collection)
    frozen = freeze(ws, about.id, Choice(judges=(pseudonym(ws, judge),) if judge else ()))
    reader = _scorer(ws, before)
    said = loading.read_judgements(frozen.artifact)
    mine = [judgement for judgement in said if all(map(reader.fits, as_completions(judgement)))]
    if not mine:
        raise TrueupError(
            f"all {len(said)} judgements are about texts longer than the {reader.model.context} tokens that the reward "
            "model reads",
            "train one on a model with a longer context first: trueup train reward",
        )
    whose = sorted({judgement.judge for judgement in mine})
    config = _settings(row, steps, mine if votes == "only-mine" else ())
    split, how = parts(mine, config.run.seed)
    shelf = _Shelf(ws, votes, ws.get(row.inputs["data"]), frozen.artifact)
    whole = len(split) == 1
    models = [_trained(ws, row, config, shelf.data(part.train, part.test, others=whole)) for part in split]
    heldout = [judgement for judgement in mine if judgement.split == "heldout"]
    kept = models[0] if whole else _trained(ws, row, config, shelf.data(mine, heldout))
    tested = [judgement for part in split for judgement in part.test]
    after = [point for part, model in zip(split, models, strict=True) for point in _points(ws, model, part.test)]
    if name:
        ws.set_name(name, kept)
    noted = {"artifact": kept.id, "votes": votes, "judges": whose, "reward": before.id, "frozen": frozen.artifact.id}
    audit.note(ws.database, time.time(), "", "retrained", about.id, **noted)
    return {
        "model": kept.id,
        "name": name,
        "votes": votes,
        "judges": whose,
        "judgements": len(mine),
        "people": frozen.people,
        "trained_on": _counted(loading.read_judgements(ws.get(kept.parents["data"]))),
        "left_out": dict(frozen.left_out)
        | ({"longer than the reward model reads": len(said) - len(mine)} if len(mine) < len(said) else {}),
        "steps": config.steps,
        "models_trained": len(models) + (not whole),
        "agreement": compared(_points(ws, before, tested), after, how, whose),
        "known_before": sum(judgement.prompt.id in shelf.learnt_before for judgement in tested),
    }


def pseudonym(ws: Workspace, judge: str) -> str:
    """`me` is whom the start link of `trueup label` signs in: the first owner."""
    if judge != ME:
        return judge
    owners = [each for each in people.people(ws.database) if each.role == "owner" and each.active]
    if not owners:
        raise NotFoundError("nobody has judged here through `trueup label`", "name a pseudonym in place of 'me'")
    return owners[0].judge


@dataclass(frozen=True)
class _Shelf:
    """The judgements that the model before learnt from, and the set that was frozen of what people said."""

    ws: Workspace
    votes: Votes
    old: Artifact
    frozen: Artifact

    @cached_property
    def before(self) -> list[Judgement]:
        return loading.read_judgements(self.old)

    @cached_property
    def learnt_before(self) -> set[str]:
        """Prompts of which the model before knew what others had said: it has the easier test."""
        return {judgement.prompt.id for judgement in self.before if judgement.split == "train"}

    def data(self, mine: Sequence[Judgement], closed: Sequence[Judgement], *, others: bool = True) -> Artifact:
        """What to learn from: nothing about the prompts of `closed`, whoever judged them, and nothing held out about
        prompts that are learnt from. A model that is only there to be tested needs nothing that `others` hold out."""
        rows = [judgement.to_json() for judgement in mine]
        if self.votes == "only-mine":
            parents: dict[str, Artifact] = {"judgements": self.frozen}
            return loading.put_records(self.ws, "preferences", rows, parents=parents, source="people's judgements")
        shut = {judgement.prompt.id for judgement in closed}
        learnt = {judgement.prompt.id for judgement in mine if judgement.split == "train"}
        train = [each for each in self.before if each.split == "train" and each.prompt.id not in shut]
        heldout = [each for each in self.before if each.split == "heldout" and each.prompt.id not in learnt]
        kept = [each.to_json() for each in (*train, *heldout[: MOST_HELDOUT if others else 0])]
        parents = {"judgements": self.old, "added": self.frozen}
        return loading.put_records(
            self.ws, "preferences", [*kept, *rows], parents=parents, source="judgements, some added"
        )


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
    found = find_inputs(ws, "reward", refs, config)
    check_run(ws, "reward", found, config)
    inputs = note_inputs(ws, found)
    run = Run.start(ws, "reward", config.model_dump(mode="json"), inputs, seed=config.run.seed)
    return wiring.execute(run, config)


def _scorer(ws: Workspace, model: Artifact) -> RewardScorer:
    from .engines.reward_scorer import RewardScorer
    from .models.load import load_reward

    return RewardScorer(load_reward(chain(ws, model), ModelSettings()))


def _points(ws: Workspace, model: Artifact, judgements: Sequence[Judgement]) -> list[float]:
    scorer = _scorer(ws, model)
    groups = [as_completions(judgement) for judgement in judgements]
    scores = iter(scorer.score([completion for group in groups for completion in group]))
    return points(judgements, [[next(scores).value for _ in group] for group in groups])


def _counted(judgements: Sequence[Judgement]) -> Mapping[str, int]:
    """Judgements to learn from, by source."""
    return dict(Counter(judgement.source for judgement in judgements if judgement.split == "train"))
