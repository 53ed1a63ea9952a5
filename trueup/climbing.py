"""How far a run was worth climbing: what was kept of its evaluations, before judges that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import ModelSettings, Scoring
from .errors import DataError, NotFoundError
from .evals.overopt import PROXY
from .evals.overopt import overopt as measure
from .inputs import ANY_SCORER, Ref, find_input
from .loading import in_world, prompts_of
from .records import Completion, Prompt
from .runs import Run, track
from .scorers import open_scorer
from .stats.intervals import Floats
from .store import Workspace
from .world import GoldScorer

if TYPE_CHECKING:  # torch loads when a model scores, not when this module does
    from .ports import Scorer

GOLD = "gold"


def overopt(ws: Workspace, run: str, *, judges: Sequence[Ref] = (), threads: int = 0, seed: int = 0) -> dict[str, Any]:
    """Held-out completions of every evaluation of an RL run, before judges it was not trained on.

    A judge is a reward model, a function or `gold`, the true score of the built-in world, which is asked by itself
    where there is one. The first judge decides what to ship.
    """
    loaded = Run.load(ws, run)
    steps, rows = _evaluations(loaded)
    prompts = prompts_of(loaded)
    told: dict[str, Floats] = {PROXY: _numbers(rows, "score")}
    names = [str(judge) for judge in judges]
    if not names and prompts and in_world(list(prompts.values())):
        names = [GOLD]
    for name in names:
        told[name] = _judged(_scorer(ws, name, threads), rows, prompts)
    found = measure(steps, _numbers(rows, "kl"), told, seed=seed)
    kept = {step for step, _ in loaded.checkpoints()}
    return {"run": loaded.id, "shipped": loaded.result.get("best_step"), "kept": sorted(kept), **found}


def _evaluations(run: Run) -> tuple[list[int], list[list[dict[str, Any]]]]:
    """The steps, and of each the completions to the prompts that all of them have, in one order."""
    steps = run.sample_steps(heldout=True)
    by_step = [{row["prompt"]: row for row in run.samples(step, heldout=True)} for step in steps]
    common = sorted(set.intersection(*map(set, by_step))) if by_step else []
    if len(steps) < 2 or not common:
        raise NotFoundError(
            f"run {run.id} kept completions of {len(steps)} evaluations, and two are needed to compare",
            "an RL run with held-out prompts keeps them: run.evaluate_every says how often",
        )
    return steps, [[each[prompt] for prompt in common] for each in by_step]


def _scorer(ws: Workspace, name: str, threads: int) -> Scorer:
    if name == GOLD:
        return GoldScorer()
    from .models.device import use_threads

    use_threads(threads)
    return open_scorer({"": find_input(ws, "judge", name, ANY_SCORER)}, Scoring(), ModelSettings())[0]


def _judged(scorer: Scorer, rows: Sequence[Sequence[dict[str, Any]]], prompts: Mapping[str, Prompt]) -> Floats:
    if missing := {row["prompt"] for row in rows[0]} - {*prompts}:
        raise DataError(
            f"{len(missing)} prompts of the run are not among its data any more",
            "a judge has to read them: put them back",
        )
    values = []
    with track(len(rows), "judge") as advance:
        for each in rows:
            texts = [Completion(prompts[row["prompt"]], row["text"], finished=row["finished"]) for row in each]
            values.append([score.value for score in scorer.score(texts)])
            advance()
    return np.array(values, dtype=float)


def _numbers(rows: Sequence[Sequence[dict[str, Any]]], name: str) -> Floats:
    """Missing ones would make the mean another one at each step: they are an error."""
    values = np.array([[row.get(name) for row in each] for each in rows], dtype=float)
    if not np.isfinite(values).all():
        raise DataError(f"some completions have no {name}", "a scorer failed there: see `trueup runs doctor`")
    return values
