"""Rejection sampling: the best of what a model wrote becomes demonstrations, for SFT to learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from . import loading
from .config import ModelSettings, Scoring
from .errors import ConfigError, DataError
from .evals.scored import score_all
from .inputs import ANY_SCORER, Input, Ref, by_role, find_input, note_inputs
from .records import Completion, Demonstration
from .runs import track
from .scorers import check_scoring, facts_of, measured, open_scorer
from .store import Artifact, Workspace

Keep = Literal["best", "top-share", "threshold"]
Scored = tuple[Completion, float]


def reject(
    ws: Workspace,
    *,
    completions: Ref,
    reward: Ref | Mapping[str, Ref] | None = None,
    keep: Keep = "best",
    share: float | None = None,
    threshold: float | None = None,
    scoring: Scoring = Scoring(),  # noqa: B008
    settings: ModelSettings | None = None,
    threads: int = 0,
    name: str = "",
) -> Artifact:
    """Demonstrations from a completion set: `best` of each prompt, the `top-share` of all, or those from a `threshold`.

    Scores are those of `reward` (a reward model, a Python function, or several by name), or without it those that
    `sample` stored with best-of-n. Cut-off completions are no demonstrations, and equal ones of a prompt count once.
    """
    choose = _chooser(keep, share, threshold)
    found = {"completions": find_input(ws, "completions", completions, ("completions",))}
    rewards = by_role({} if reward is None else {"reward": reward})
    found |= {role: find_input(ws, role, ref, ANY_SCORER) for role, ref in rewards.items()}
    settings = settings or ModelSettings()
    named = {role.partition(".")[2]: found[role] for role in rewards}
    check_scoring(scoring, [facts_of(item, settings, name) for name, item in named.items()])
    artifact = found["completions"].artifact
    assert artifact is not None, "completions are always in the workspace"
    written = loading.read_completions(artifact)
    usable = _different([completion for completion in written if completion.finished and completion.text.strip()])
    if not named:
        scored, too_long = list(zip(usable, loading.stored_scores(usable), strict=True)), 0
    else:
        scored, too_long = _scored(named, usable, scoring, settings, threads)
    kept = choose(scored)
    if not kept:
        raise DataError(
            f"none of the {len(written)} completions is kept: {len(usable)} of them have an end"
            + (f", the highest score is {max(score for _, score in scored):.3f}" if scored else ""),
            "lower the threshold, or sample longer or more completions: sampling.max_new_tokens, per_prompt",
        )
    rows = [Demonstration(completion.prompt, completion.text).to_json() for completion, _ in kept]
    rule = {"keep": keep, "share": share, "threshold": threshold}
    return loading.put_records(
        ws, "demonstrations", rows, name=name, parents=note_inputs(ws, found), source="rejection sampling",
        rejected=len(written) - len(kept), unfinished=sum(not c.finished for c in written), too_long=too_long,
        mean_score=_mean(kept), mean_score_before=_mean(scored),
        **{key: value for key, value in rule.items() if value is not None},
    )  # fmt: skip


def _chooser(keep: str, share: float | None, threshold: float | None) -> Callable[[Sequence[Scored]], list[Scored]]:
    """What chooses; an error where a number is missing, or given and without meaning."""
    if keep not in get_args(Keep):
        raise ConfigError(f"keep is '{keep}', not one of {', '.join(get_args(Keep))}")
    if (share is not None) != (keep == "top-share"):
        raise ConfigError("keep = 'top-share' and a share belong together", "give both, or neither")
    if (threshold is not None) != (keep == "threshold"):
        raise ConfigError("keep = 'threshold' and a threshold belong together", "give both, or neither")
    if share is not None:
        if not 0 < share <= 1:
            raise ConfigError(f"share is {share}, not above 0 and at most 1")
        return lambda scored: top_share(scored, share)
    if threshold is not None:
        return lambda scored: [each for each in scored if each[1] >= threshold]
    return best_of_each


def best_of_each(scored: Sequence[Scored]) -> list[Scored]:
    """The first of the highest scores of each prompt."""
    best: dict[str, Scored] = {}
    for each in scored:
        identity = each[0].prompt.id
        if identity not in best or each[1] > best[identity][1]:
            best[identity] = each
    return list(best.values())


def top_share(scored: Sequence[Scored], share: float) -> list[Scored]:
    """The share of all with the highest scores, at least one, in the order they came."""
    count = max(1, round(share * len(scored)))
    chosen = set(sorted(range(len(scored)), key=lambda i: (-scored[i][1], i))[:count])
    return [each for i, each in enumerate(scored) if i in chosen]


def _scored(
    named: Mapping[str, Input],
    completions: Sequence[Completion],
    scoring: Scoring,
    settings: ModelSettings,
    threads: int,
) -> tuple[list[Scored], int]:
    from .models.device import use_threads

    use_threads(threads)
    scorer, models = open_scorer(named, scoring, settings)
    fitting = [completion for completion in completions if all(each.fits(completion) for each in models)]
    scorer = measured(scorer, fitting)
    with track(len(fitting), "score") as advance:
        scores = score_all(scorer, fitting, advance)
    pairs = [(completion, score.value) for completion, score in zip(fitting, scores, strict=True)]
    return pairs, len(completions) - len(fitting)


def _different(completions: Sequence[Completion]) -> list[Completion]:
    return list({(completion.prompt.id, completion.text): completion for completion in completions}.values())


def _mean(scored: Sequence[Scored]) -> float:
    return round(sum(score for _, score in scored) / len(scored), 6)
