"""How far a score was worth climbing, by RL or by best-of-n: before judges that nothing was trained on."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .config import ModelSettings, Scoring
from .errors import ConfigError, DataError, NotFoundError
from .evals.matches import by_judgements
from .evals.overopt import PROXY, best_of_n
from .evals.overopt import overopt as measure
from .inputs import ANY_SCORER, Ref, find_input
from .loading import completion_rows, in_world, prompts_of, put_records, read_completions
from .records import Completion, Prompt
from .runs import Run, track
from .scorers import as_noted, open_scorer
from .stats.intervals import Floats
from .store import Workspace, atomic_write
from .world import GoldScorer

if TYPE_CHECKING:  # torch loads when a model scores, not when this module does
    from .ports import Scorer

GOLD = "gold"


MINIMUM = "minimum"  # of the run's own ensemble: its least content member
KEPT_AS = "overopt.json"  # in the run's folder: it says nothing that could not be found again
PEOPLE = "people:"  # before the name of a collection: its people judge
PLACES_JUDGED = 4  # evaluations that people compare with the start: each costs one judgement a prompt
PROMPTS_JUDGED = 50


def overopt(
    ws: Workspace,
    run: str,
    *,
    judges: Sequence[Ref] = (),
    reward: Ref | None = None,
    guideline: str = "",
    limit: int = PROMPTS_JUDGED,
    threads: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Held-out completions of every evaluation of an RL run, before judges it was not trained on; or of a completion
    set with several to each prompt, what the best of n by `reward` is worth to them.

    A judge is a reward model, a function or `gold`, the true score of the built-in world, which is asked by itself
    where there is one; `minimum` is the least content member of the run's own ensemble. `people:NAME` are people in the
    collection NAME: they compare what evaluations wrote to `limit` prompts with what the start wrote, and the same call
    tells at any time what they have said so far. The first judge decides what to ship.
    """
    if _is_a_set(ws, run):
        return _of_a_set(ws, run, judges, reward, threads, seed)
    if reward is not None:
        raise ConfigError("a run has its own reward model", "--reward chooses the best of n in a completion set")
    loaded = Run.load(ws, run)
    steps, rows = _evaluations(loaded)
    prompts = prompts_of(loaded)
    texts = [_completions(each, prompts) for each in rows]
    told: dict[str, Floats] = {PROXY: _numbers(rows, "score")}
    kl, asked = _numbers(rows, "kl"), {}
    for name in _names(judges, list(prompts.values())):
        if name.startswith(PEOPLE):
            asked[name] = before_people(loaded, name.removeprefix(PEOPLE), steps, kl, texts, guideline, limit)
            if (verdicts := asked[name].verdicts) is not None:
                told[name] = verdicts
            continue
        scorer = _minimum(loaded, threads) if name == MINIMUM else _scorer(ws, name, threads)
        told[name] = _judged(scorer, texts)
    found = measure(steps, kl, told, seed=seed)
    people = {name: each.progress for name, each in asked.items()}
    shipped = loaded.result.get("best_step")
    result = {"run": loaded.id, "shipped": shipped, "kept": list(loaded.weights()), "people": people, **found}
    atomic_write(loaded.path / KEPT_AS, json.dumps(result, indent=1).encode())  # reports of the run tell of it
    return result


def overopt_of(run: Run) -> dict[str, Any] | None:
    """What was last found of a run; None where nobody asked."""
    path = run.path / KEPT_AS
    try:
        found: dict[str, Any] | None = json.loads(path.read_bytes()) if path.is_file() else None
    except ValueError:  # torn, or changed from outside: it can be asked for again
        return None
    return found


def _is_a_set(ws: Workspace, ref: str) -> bool:
    try:
        return ws.get(ref).kind == "completions"
    except NotFoundError:
        return False


def _of_a_set(
    ws: Workspace, ref: str, judges: Sequence[Ref], reward: Ref | None, threads: int, seed: int
) -> dict[str, Any]:
    if reward is None:
        raise ConfigError("of a completion set one has to say what chose the best", "--reward REWARD")
    artifact = ws.get(ref)
    groups: dict[str, list[Completion]] = {}
    for completion in read_completions(artifact):
        groups.setdefault(completion.prompt.id, []).append(completion)
    fewest = min(map(len, groups.values()))
    if fewest < 2:
        raise DataError(
            f"completion set {artifact.id} has one completion to some prompt: the best of one is no choice",
            "sample more, and keep all: trueup sample --per-prompt 16",
        )
    texts = [each[:fewest] for each in groups.values()]  # by prompt
    names = _names(judges, [each[0].prompt for each in texts])
    if any(name.startswith(PEOPLE) for name in names):
        raise ConfigError("people judge what an RL run wrote, not the best of n", "trueup eval winrate compares sets")
    scorers = {PROXY: _scorer(ws, str(reward), threads)} | {name: _scorer(ws, name, threads) for name in names}
    sizes, kl, told = best_of_n({name: _judged(scorer, texts) for name, scorer in scorers.items()})
    found = measure(sizes, kl, told, way="best-of-n", seed=seed)
    return {"run": artifact.id, "shipped": None, "kept": sizes, "people": {}, **found}


def _names(judges: Sequence[Ref], prompts: Sequence[Prompt]) -> list[str]:
    names = [str(judge) for judge in judges]
    return names or ([GOLD] if prompts and in_world(prompts) else [])


def _minimum(run: Run, threads: int) -> Scorer:
    from .engines.reward_scorer import RewardScorer
    from .models.device import use_threads

    use_threads(threads)
    scorer = None
    if "reward" in run.inputs:
        scorer, _ = open_scorer({"": as_noted(run, "reward")}, Scoring(), ModelSettings())
    if not isinstance(scorer, RewardScorer) or scorer.model.members < 2:
        raise ConfigError("the run's reward model is no ensemble: it has no least content member", "name another judge")
    return scorer.lowest()


# --- people


@dataclass(frozen=True)
class Asked:
    """`verdicts` as scores: 1 where people preferred an evaluation's text to the start's, 0 where they did not, a half
    for ties and for the start; NaN where nobody said. None while no prompt has them all."""

    verdicts: Floats | None
    progress: dict[str, Any]


def before_people(
    run: Run,
    name: str,
    steps: Sequence[int],
    kl_ep: Floats,
    texts: Sequence[Sequence[Completion]],
    guideline: str,
    limit: int,
) -> Asked:
    """Puts the start's and some evaluations' texts before people, two by two, and reads what they have said."""
    from .comparing import into_collection, said_in

    places = _spread_out(kl_ep)
    chosen = range(min(limit, len(texts[0])))
    sets = {
        place: put_records(
            run.workspace, "completions", completion_rows([texts[place][i] for i in chosen]),
            parents={"prompts": run.inputs["prompts"]}, source=f"run {run.id}, evaluation at step {steps[place]}",
        )
        for place in (0, *places)
    }  # fmt: skip
    for place in places:
        into_collection(run.workspace, name, [sets[0], sets[place]], run.seed, guideline)
    votes, progress = said_in(run.workspace, name)
    verdicts = np.full((len(steps), len(texts[0])), np.nan)
    if votes:
        verdicts[0, chosen] = 0.5
    column = {texts[0][i].prompt.id: i for i in chosen}
    for place in places if votes else ():
        sides = [[texts[of][i] for i in chosen] for of in (place, 0)]
        found: defaultdict[int, list[float]] = defaultdict(list)
        for match in by_judgements(sides, votes).matches:
            if match.points is not None:
                found[column[match.a.prompt.id]].append(match.points)
        for i, points in found.items():
            verdicts[place, i] = float(np.mean(points))
    judged = ~np.isnan(verdicts[[0, *places]]).any(0)
    progress |= {"steps": [steps[place] for place in places], "prompts": len(chosen), "judged": int(judged.sum())}
    return Asked(verdicts if judged.sum() > 1 else None, progress)


def _spread_out(kl_ep: Floats) -> list[int]:
    """The evaluations that people judge: the last, and others evenly by their distance from the start."""
    distance = np.sqrt(np.maximum(kl_ep.mean(1), 0.0))
    wanted = np.linspace(0, distance[-1], PLACES_JUDGED + 1)[1:]
    nearest = {1 + int(np.abs(distance[1:] - each).argmin()) for each in wanted}
    return sorted({*nearest, len(distance) - 1})


# --- what a run left


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


def _completions(rows: Sequence[dict[str, Any]], prompts: Mapping[str, Prompt]) -> list[Completion]:
    if missing := {row["prompt"] for row in rows} - {*prompts}:
        raise DataError(
            f"{len(missing)} prompts of the run are not among its data any more",
            "a judge has to read them: put them back",
        )
    return [Completion(prompts[row["prompt"]], row["text"], finished=row["finished"]) for row in rows]


def _judged(scorer: Scorer, texts: Sequence[Sequence[Completion]]) -> Floats:
    values = []
    with track(len(texts), "judge") as advance:
        for each in texts:
            values.append([score.value for score in scorer.score(each)])
            advance()
    return np.array(values, dtype=float)


def _numbers(rows: Sequence[Sequence[dict[str, Any]]], name: str) -> Floats:
    """Missing ones would make the mean another one at each step: they are an error."""
    values = np.array([[row.get(name) for row in each] for each in rows], dtype=float)
    if not np.isfinite(values).all():
        raise DataError(f"some completions have no {name}", "a scorer failed there: see `trueup runs doctor`")
    return values
