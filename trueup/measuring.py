"""Models on one table: who wins against the first, how far each moved, what it writes like and forgot, its cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .comparing import judged, sides_of
from .config import CompareConfig, Scoring
from .errors import ModelError
from .evals.compare import Comparison, findings, went_by_length
from .evals.matches import Match
from .evals.measures import (
    bits_a_byte,
    furthest_apart,
    kl_of,
    kl_of_best,
    least_alike,
    mean,
    of_answers,
    surprise,
)
from .evals.measures import findings as findings_of_measures
from .evals.scored import score_all
from .inputs import chain
from .loading import in_world, load_policy, load_reader, read_demonstrations, read_prompts
from .questioning import check_missing
from .records import Completion, Demonstration
from .reporting import cost_of
from .runs import Run, runs, track
from .scorers import as_noted, open_scorer
from .store import Artifact
from .writing import answered, concluded, is_here, with_room_for

if TYPE_CHECKING:
    from .models.language_model import LanguageModel

SHOWN = 24  # prompts whose answers stand on the page


def compare(run: Run, config: CompareConfig) -> Artifact:
    """The stage. Model `a` is the one that all others are held against."""
    from .models.device import use_threads

    use_threads(config.run.threads)
    roles = sides_of(run.inputs)
    prompts = read_prompts(run.inputs["prompts"])[: config.limit or None]
    prompts, dropped = with_room_for(run, roles, prompts, config)
    sides = [
        answered(run, role, config, prompts, config.sampling, config.run.seed + place)
        for place, role in enumerate(roles)
    ]
    models = [{"model": run.inputs[role].id, **of_answers(mine)} for role, mine in zip(roles, sides, strict=True)]
    matches, judge = _judge(run, config, sides, in_world(prompts))
    _add_rates(models, matches)
    scores = _add_scores(models, matches, len(roles))
    _add_distances(run, config, models, roles, sides)
    _add_surprise(run, config, models, roles)
    _add_measures(run, config, models, sides)
    _add_cost(run, models, roles)
    result = {
        "models": models, "judge": judge, "prompts": len(prompts), "dropped": dropped,
        "findings": findings_of_measures(models),
    }  # fmt: skip
    chosen = furthest_apart(scores, SHOWN) if scores else least_alike([[c.text for c in s] for s in sides], SHOWN)
    return concluded(run, [_row(place, sides, scores) for place in chosen], result)


def _judge(
    run: Run, config: CompareConfig, sides: Sequence[Sequence[Completion]], world: bool
) -> tuple[list[Match], dict[str, Any]]:
    """Every other model against the first; nobody has to judge."""
    if not ({"judge", "asked", "verdicts"} & run.inputs.keys() or world):
        return [], {"kind": "none"}
    found, about = judged(run, config, [*sides[1:], sides[0]], last=True)
    matches = [replace(match, first=match.first + 1, second=0) for match in found]
    missing = dict(Counter(match.why for match in matches if match.points is None))
    check_missing(run, config, missing, len(matches), "pairs")
    decided = [match for match in matches if match.points is not None]
    about = {**about, "longer": went_by_length(decided)}
    return matches, {**about, "missing": missing, "findings": findings(decided, about)}


def _add_rates(models: list[dict[str, Any]], matches: Sequence[Match]) -> None:
    """How often each other model won against the first."""
    for place, model in enumerate(models):
        met = [match for match in matches if match.first == place and match.points is not None]
        if met:
            found = Comparison(met).to_json()
            model["won"] = {key: found[key] for key in ("value", "ci", "n", "verdict", "p_value", "length_controlled")}


def _add_scores(models: list[dict[str, Any]], matches: Sequence[Match], count: int) -> list[list[float]]:
    """Of each model the judge's scores, where it gives any: of the first they stand beside those of the second."""
    if not matches or any(match.scores is None for match in matches):
        return []
    rows: list[list[float]] = [[] for _ in range(count)]
    prompts = [match.a.prompt.id for match in matches if match.first == 1]
    for match in matches:
        assert match.scores is not None
        rows[match.first].append(match.scores[0])
        if match.first == 1:
            rows[0].append(match.scores[1])
    for model, scores in zip(models, rows, strict=True):
        model["score"] = mean(scores, prompts)
    return rows


def _add_distances(
    run: Run, config: CompareConfig, models: list[dict[str, Any]], roles: Sequence[str],
    sides: Sequence[Sequence[Completion]],
) -> None:  # fmt: skip
    """KL to the reference, of models whose weights and tokens are at hand; of a best of n what it can be at most."""
    if "reference" not in run.inputs:
        return
    from .engines.sampler import Sampler

    own: dict[int, list[list[float]]] = {}
    words = load_reader(chain(run.workspace, run.inputs["reference"]), config.model)[0].tokenizer.to_str()
    for place, (role, mine) in enumerate(zip(roles, sides, strict=True)):
        drawn = {c.meta.get("best_of", 1) for c in mine}
        if len(drawn) == 1 and drawn != {1}:
            models[place]["kl"] = kl_of_best(drawn.pop())
        elif is_here(run, role):
            model = load_policy(run, role, config)
            if model.encoder.tokenizer.to_str() == words:
                own[place] = Sampler(model).logprobs(mine)
            else:
                models[place]["not_measured"] = {"kl": "writes with other tokens"}
        else:
            models[place]["not_measured"] = {"kl": "weights are not here"}
    if not own:
        return
    reference = Sampler(load_policy(run, "reference", config))
    for place, logprobs in own.items():
        prompts = [completion.prompt.id for completion in sides[place]]
        models[place]["kl"] = kl_of(logprobs, reference.logprobs(sides[place]), prompts)


def _add_surprise(run: Run, config: CompareConfig, models: list[dict[str, Any]], roles: Sequence[str]) -> None:
    """How surprising other text is to each model: what it has forgotten shows there."""
    if "text" not in run.inputs:
        return
    demonstrations = read_demonstrations(run.inputs["text"])[: config.text_limit or None]
    here = [(place, role) for place, role in enumerate(roles) if is_here(run, role)]
    readers = [load_reader(chain(run.workspace, run.inputs[role]), config.model) for _, role in here]
    fitting = [each for each in demonstrations if all(_fits(each, *reader) for reader in readers)]
    if not fitting:
        raise ModelError("no text fits into the context of every model", "shorten the texts of --text")
    if len(fitting) < len(demonstrations):
        run.tell("long text", f"{len(demonstrations) - len(fitting)} of {len(demonstrations)} texts are too long")
    texts = [each.completion for each in fitting]
    first = None
    with track(len(here), "read") as advance:
        for place, role in here:
            bits = bits_a_byte(_logprobs(load_policy(run, role, config), fitting), texts)
            models[place]["surprise"] = surprise(bits, texts)
            first = bits if place == 0 else first
            if place and first is not None:
                models[place]["surprise_change"] = surprise(bits - first, texts)
            advance()


def _logprobs(model: LanguageModel, demonstrations: Sequence[Demonstration]) -> list[list[float]]:
    from .engines.sampler import Sampler

    return Sampler(model).logprobs([Completion(each.prompt, each.completion) for each in demonstrations])


def _fits(each: Demonstration, encoder: Any, context: int) -> bool:
    return len(encoder.prompt(each.prompt)) + len(encoder.completion(each.prompt, each.completion)) <= context


def _add_measures(
    run: Run, config: CompareConfig, models: list[dict[str, Any]], sides: Sequence[Sequence[Completion]]
) -> None:
    """The mean of each further scorer: a classifier of toxicity, a rule of one's own."""
    for role in (role for role in run.inputs if role.startswith("measure.")):
        scorer, _ = open_scorer({"": as_noted(run, role)}, Scoring(), config.model)
        for model, mine in zip(models, sides, strict=True):
            values = [score.value for score in score_all(scorer, mine)]
            model.setdefault("measures", {})[role.removeprefix("measure.")] = mean(values, [c.prompt.id for c in mine])


def _add_cost(run: Run, models: list[dict[str, Any]], roles: Sequence[str]) -> None:
    """What went into each model, and of the others not into the first too: time, processor time, tokens learnt from or
    sampled in the runs that led to it."""
    made = {id: each for each in runs(run.workspace) for id in each.row.outputs.values()}
    behind = [_runs_behind(run, role, made) for role in roles]
    for model, mine in zip(models, behind, strict=True):
        own = [each for identity, each in mine.items() if mine is behind[0] or identity not in behind[0]]
        spent = [cost_of(each, each.metrics()) for each in own if each.timing()]
        for name, key in (("cpu_seconds", "cpu"), ("wall_seconds", "wall"), ("tokens_behind", "tokens")):
            model[name] = (
                sum(each[key] for each in spent) if spent else None
            )  # of what came from elsewhere nobody knows


def _runs_behind(run: Run, role: str, made: Mapping[str, Run]) -> dict[str, Run]:
    nodes = run.workspace.lineage(run.inputs[role].id).nodes
    return {made[identity].id: made[identity] for identity in nodes if identity in made}


def _row(place: int, sides: Sequence[Sequence[Completion]], scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    answers = [
        {"text": mine[place].text} | ({"score": scores[i][place]} if scores else {}) for i, mine in enumerate(sides)
    ]
    return {"prompt": sides[0][place].prompt.to_json(), "answers": answers}
