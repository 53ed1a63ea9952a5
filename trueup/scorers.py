"""What scores, wherever something is scored: a reward model, a Python function, or several of these by name.

`check_scorers` refuses what cannot work before anything is loaded; `load_scorers` and `load_scorer` hand it to a stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ModelSettings, Scoring
from .errors import ConfigError, nearest
from .inputs import FUNCTION, Input, chain, function_of, scores, stored_kind
from .runs import Run

if TYPE_CHECKING:  # torch loads when something is scored, not when this module does
    from .engines.reward_scorer import RewardScorer
    from .models.language_model import LanguageModel
    from .ports import Scorer
    from .records import Completion
    from .text.chat import Encoder

TAKEN = ("spread", "std")  # what a score and the metrics of a run call other things
CONSTRAINED = ("floor", "multiplier_rate")


# --- before anything is loaded


@dataclass(frozen=True)
class Facts:
    """What files tell of a scorer. `parts` are what `scoring.objectives` may name of it."""

    parts: tuple[str, ...]
    members: int = 1
    is_function: bool = False
    is_named: bool = False
    unweighed: bool = False  # a classifier with outputs that were never meant to be added up


def check_scorers(stage: str, found: Mapping[str, Input], config: Any) -> None:
    """That every function can be asked, and every setting of `[scoring]` has something to apply to."""
    from .engines.functions import check_function

    if not hasattr(config, "scoring"):
        return
    chosen_by, by_themselves = scored_by(role for role in found if scores(stage, role))
    facts = {role: facts_of(found[role], config.model, _name(role)) for role in (*chosen_by, *by_themselves)}
    check_scoring(config.scoring, [facts[role] for role in chosen_by], [facts[role] for role in by_themselves])
    for role in facts:
        if found[role].kind == FUNCTION:
            check_function(found[role].folders[0])


def scored_by(roles: Iterable[str]) -> tuple[list[str], list[str]]:
    """The inputs that `[scoring]` makes one number of, and the judge where it is asked for its own opinion.

    That is beside a scorer that something is learnt from or chosen by; a judge alone is what `[scoring]` is about.
    """
    found = list(roles)
    rewards = [role for role in found if role.partition(".")[0] == "reward"]
    judges = [role for role in found if role == "judge"]
    return (rewards, judges) if rewards else (judges, [])


def facts_of(item: Input, settings: ModelSettings, name: str = "") -> Facts:
    from .engines.combined import part_name
    from .models.reward_model import OVERALL

    if item.kind == FUNCTION:
        return Facts((name or OVERALL,), is_function=True, is_named=bool(name))
    objectives, members, unweighed = _stored(item.folders[-1], settings)
    several = tuple(part_name(name, each) for each in objectives)
    parts = several if len(objectives) > 1 else (name or (*objectives, OVERALL)[0],)
    return Facts(parts, members, is_named=bool(name), unweighed=unweighed)


def check_scoring(scoring: Scoring, chosen_by: Sequence[Facts], by_themselves: Sequence[Facts] = ()) -> None:
    """A setting that would change nothing is refused, and so is the name of an objective that nobody has."""
    default = Scoring()
    for key, why in _idle(scoring, chosen_by, by_themselves).items():
        if getattr(scoring, key) != getattr(default, key):
            raise ConfigError(f"scoring.{key} has no meaning here: {why}", f"leave scoring.{key} out")
    parts = [part for each in chosen_by for part in each.parts]
    if taken := [part for part in parts if part in TAKEN]:
        raise ConfigError(
            f"a score cannot have a part called '{taken[0]}': metrics call something else so",
            "give the scorer another name: NAME=ID",
        )
    if unknown := [each.name for each in scoring.objectives if each.name not in parts]:
        raise ConfigError(
            f"scoring.objectives names '{unknown[0]}', which no scorer has{nearest(unknown[0], parts)}",
            f"there are {', '.join(parts)}",
        )
    _check_outputs(scoring, chosen_by, by_themselves)


def _idle(scoring: Scoring, chosen_by: Sequence[Facts], by_themselves: Sequence[Facts]) -> dict[str, str]:
    """Settings that nothing here listens to, each with the reason."""
    found: dict[str, str] = {}
    if not any(each.members > 1 for each in chosen_by):
        found |= dict.fromkeys(("ensemble", "penalty"), "no scorer is an ensemble, which alone has members")
    if len(chosen_by) == 1 and chosen_by[0].is_function and not chosen_by[0].is_named and not scoring.objectives:
        found["normalise"] = "one function alone is taken as it scores"
    if not any(each.is_function for each in (*chosen_by, *by_themselves)):
        found["time_limit"] = "no scorer is a Python function, which alone may hang"
    if not chosen_by:
        found |= dict.fromkeys(("objectives", "normalise", *CONSTRAINED), "nothing is scored that could be weighed")
    return found


def _check_outputs(scoring: Scoring, chosen_by: Sequence[Facts], by_themselves: Sequence[Facts]) -> None:
    """Which outputs of a classifier count has to be said, and of a judge it cannot be."""
    if not scoring.objectives and (unweighed := [each for each in chosen_by if each.unweighed]):
        raise ConfigError(
            f"this classifier has {len(unweighed[0].parts)} outputs ({', '.join(unweighed[0].parts)}), and which of "
            "them count is not said",
            """name them: --set scoring.objectives='[{name = "...", weight = 1.0}]'""",
        )
    if unweighed := [each for each in by_themselves if each.unweighed]:
        raise ConfigError(
            f"the judge is a classifier with {len(unweighed[0].parts)} outputs ({', '.join(unweighed[0].parts)}), and "
            "which of them count cannot be said of a judge",
            "take a judge with one output, or a Python function that asks it: FILE.py:NAME",
        )


def _stored(folder: str, settings: ModelSettings) -> tuple[tuple[str, ...], int, bool]:
    """Objectives, members, and whether which of the outputs count has to be said."""
    from .models.ensemble import KIND, members_of
    from .models.load import labels_of, load_config
    from .models.reward_model import SETTINGS_FILE

    path = Path(folder) / SETTINGS_FILE
    if stored_kind(folder) == KIND:
        models = [_stored(chain[-1], settings) for chain in members_of(folder)]
        return models[0][0], sum(members for _, members, _ in models), False
    if path.is_file():
        stored = json.loads(path.read_text())
        return tuple(stored.get("objectives", ())), stored.get("members", 1), False
    labels = labels_of(load_config(folder, settings))
    return labels, 1, len(labels) > 1


# --- loaded


@dataclass(frozen=True)
class Scorers:
    """What a policy learns from, who judges its evaluations in its place, and the reward models in both."""

    scorer: Scorer
    judge: Scorer | None
    models: Sequence[RewardScorer]

    @property
    def readers(self) -> list[tuple[Encoder, int]]:
        return read_by(self.models)

    def tell_cut(self, run: Run) -> None:
        if cut_short := sum(each.cut_short for each in self.models):
            run.tell("cut", f"{cut_short} completions were longer than a reward model reads and scored in part")


def load_scorers(run: Run, config: Any, policy: LanguageModel) -> Scorers:
    """What a policy that learns from its own completions is handed.

    Without a judge of its own, the ensembles in what it learns from judge by their least content members.
    """
    rewards, judges = scored_by(run.inputs)
    scorer, models = load_scorer(run, rewards, config, beside=policy, cut=True)
    if judges:
        judge, more = load_scorer(run, judges, config, by_itself=True, beside=policy, cut=True)
        return Scorers(scorer, judge, [*models, *more])
    return Scorers(scorer, _lowest(scorer, models, config.scoring), models)


def load_scorer(
    run: Run,
    roles: Sequence[str],
    config: Any,
    *,
    by_itself: bool = False,
    beside: LanguageModel | None = None,
    cut: bool = False,
) -> tuple[Scorer, list[RewardScorer]]:
    """These inputs of a run as one scorer, and the reward models in it. `by_itself` leaves `[scoring]` out of it."""
    items = {_name(role): as_noted(run, role) for role in roles}
    scoring = Scoring(time_limit=config.scoring.time_limit) if by_itself else config.scoring
    return open_scorer(items, scoring, config.model, beside=beside, cut=cut, resume=run.resume_command)


def open_scorer(
    items: Mapping[str, Input],
    scoring: Scoring,
    settings: ModelSettings,
    *,
    beside: LanguageModel | None = None,
    cut: bool = False,
    resume: str = "",
) -> tuple[Scorer, list[RewardScorer]]:
    """Scorers by name as one; the only one may have the empty name. `resume` goes on with the run they are for."""
    from .engines.combined import CombinedScorer

    combined = _is_combined(items, scoring)
    found: dict[str, Scorer] = {}
    for name, item in items.items():
        facts = facts_of(item, settings, name)
        scorer = _opened(item, scoring, settings, combined, beside, cut, resume)
        found[facts.parts[0] if len(facts.parts) == 1 else name] = scorer
    return CombinedScorer(found, scoring) if combined else scorer, _models(found.values())


def measured(scorer: Scorer, completions: Sequence[Completion]) -> Scorer:
    """Where nothing else says what scores are like, several scorers are brought to one scale on what they score."""
    from .engines.combined import CombinedScorer

    if isinstance(scorer, CombinedScorer) and completions:
        scorer.measure(completions)
    return scorer


def read_by(models: Sequence[RewardScorer]) -> list[tuple[Encoder, int]]:
    """How each of them reads text, and how much of it at once."""
    return [(each.model.encoder, each.model.context) for each in models]


def _is_combined(items: Mapping[str, Input], scoring: Scoring) -> bool:
    """Whether parts are weighed by us: one reward model without a name weighs its own."""
    if list(items) != [""] or scoring.floor == "multiplier":
        return True
    return items[""].kind == FUNCTION and bool(scoring.objectives)


def _opened(
    item: Input,
    scoring: Scoring,
    settings: ModelSettings,
    combined: bool,
    beside: LanguageModel | None,
    cut: bool,
    resume: str,
) -> Scorer:
    from .config import Objective
    from .engines.functions import FunctionScorer
    from .engines.reward_scorer import RewardScorer
    from .models.load import load_reward

    if item.kind == FUNCTION:
        return FunctionScorer(item.folders[0], scoring.time_limit, resume)
    model = load_reward(list(item.folders), settings, source=item.name, beside=beside)
    if combined:  # its parts are weighed elsewhere
        each = tuple(Objective(name=name) for name in model.objectives)
        scoring = scoring.model_copy(update={"objectives": each if len(each) > 1 else ()})
    return RewardScorer(model, scoring=scoring, cut=cut)


def _lowest(scorer: Scorer, models: Sequence[RewardScorer], scoring: Scoring) -> Scorer | None:
    from .engines.combined import CombinedScorer
    from .engines.reward_scorer import RewardScorer

    told_apart = any(each.model.members > 1 for each in models) and scoring.ensemble != "min"
    return scorer.lowest() if told_apart and isinstance(scorer, RewardScorer | CombinedScorer) else None


def _models(scorers: Iterable[Scorer]) -> list[RewardScorer]:
    from .engines.reward_scorer import RewardScorer

    return [each for each in scorers if isinstance(each, RewardScorer)]


def as_noted(run: Run, role: str) -> Input:
    artifact = run.inputs[role]
    is_function = artifact.kind == FUNCTION
    return Input(artifact.kind, artifact, [function_of(artifact)] if is_function else chain(run.workspace, artifact))


def _name(role: str) -> str:
    return role.partition(".")[2]
