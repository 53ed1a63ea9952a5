"""What the offline stages (DPO, KTO, ILQL) and DPO's online rounds are handed, and their result as an artifact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING

from .config import DpoConfig, IlqlConfig, KtoConfig
from .errors import TrueupError
from .evals.reward import as_completions
from .evals.scored import score_all
from .loading import (
    in_world,
    load_policy,
    longest_row,
    read_completions,
    read_judgements,
    read_prompts,
    stored_scores,
)
from .preparing import (
    check_strength,
    count_left_out,
    finish_model,
    hold_out,
    note_audits,
    require,
    say_if_none_held_out,
    split_judgements,
    with_room,
)
from .records import Completion, Prompt
from .runs import Run, track
from .scorers import load_scorer, load_scorers, measured, scored_by
from .store import Artifact
from .store.files import atomic_write
from .text.formats import group_of, split_by_prompt
from .world import GoldScorer

if TYPE_CHECKING:  # torch loads when a stage runs, not when this module does
    from .models.language_model import LanguageModel
    from .ports import Scorer
    from .train.ilql import Rewarded
    from .train.judged import Judged, Pair, Verdict

SCORES = "scores.json"


def dpo(run: Run, config: DpoConfig) -> Artifact:
    """From judgements that are there, or in rounds."""
    from .train.dpo import dpo

    if config.online:
        return _in_rounds(run, config)
    policy = load_policy(run, "policy", config, trainable=True)
    judgements = read_judgements(run.inputs["data"])
    longest = longest_row(config.max_tokens, policy.context)
    train, heldout, dropped = split_judgements(run, policy, judgements, longest, config)
    train, heldout = _with_pairs(run, config, train, heldout)
    check_strength(train, config.strength)
    best = dpo(run, config, policy, train, heldout)
    return finish_model(run, policy, config, best, dropped)


def kto(run: Run, config: KtoConfig) -> Artifact:
    from .train.kto import kto

    policy = load_policy(run, "policy", config, trainable=True)
    judgements = read_judgements(run.inputs["data"])
    longest = longest_row(config.max_tokens, policy.context)
    train, heldout, dropped = split_judgements(run, policy, judgements, longest, config)
    train, thumbed = (_with_thumbs(side, config.sides_as_thumbs) for side in (train, heldout))
    _check_thumbs(run, train)
    best = kto(run, config, policy, train, _of_those_held_out(run, heldout, thumbed, at_least=2))
    return finish_model(run, policy, config, best, dropped)


def ilql(run: Run, config: IlqlConfig) -> Artifact:
    from .train.ilql import ilql

    policy = load_policy(run, "policy", config, trainable=True)
    longest = longest_row(config.max_tokens, policy.context)
    if scored_by(run.inputs)[0] or run.inputs["data"].kind == "completions":
        train, heldout, dropped = _scored(run, config, policy, longest)
    else:
        train, heldout, dropped = _judged(run, config, policy, longest)
    rewards = {reward for item in train for reward in item.rewards}
    if len(rewards) < 2:
        raise TrueupError(
            f"every completion to train on has the same reward ({next(iter(rewards)):g}): there is nothing to learn",
            "use data in which some completions are better than others, or name what is to score it: --reward",
        )
    best = ilql(run, config, policy, train, heldout)
    return finish_model(run, policy, config, best, dropped)


# --- inside


def _judged(
    run: Run, config: IlqlConfig, policy: LanguageModel, longest: int
) -> tuple[list[Rewarded], list[Rewarded], int]:
    """The reward of a judged completion: the share of its comparisons that it won, or of its thumbs that were up."""
    judgements = read_judgements(run.inputs["data"])
    train, heldout, dropped = split_judgements(run, policy, judgements, longest, config)
    rewarded, kept = ([_shares(item) for item in side] for side in (train, heldout))
    return rewarded, kept, dropped


def _shares(item: Judged) -> Rewarded:
    from .train.ilql import Rewarded

    points: dict[int, list[float]] = {}
    for pair in item.pairs:
        points.setdefault(pair.i, []).append(pair.target)
        points.setdefault(pair.j, []).append(1 - pair.target)
    for verdict in item.verdicts:
        points.setdefault(verdict.completion, []).append(verdict.right)
    prompt, completions = item.group
    judged = sorted(points)
    return Rewarded((prompt, [completions[i] for i in judged]), tuple(mean(points[i]) for i in judged))


def _scored(
    run: Run, config: IlqlConfig, policy: LanguageModel, longest: int
) -> tuple[list[Rewarded], list[Rewarded], int]:
    """The reward of a completion is its score: by a scorer, or as it was stored with the completion."""
    from .train.ilql import Rewarded

    encoder = policy.encoder
    written, splits = _written(run, config)
    sides: dict[str, list[Rewarded]] = {"train": [], "heldout": []}
    long: list[Prompt] = []
    for group in _with_scores(run, config, written):
        prompt = group[0][0].prompt
        if encoder.too_long(prompt, [c.text for c, _ in group], longest):
            long.append(prompt)
            continue
        tokens = [encoder.completion(prompt, c.text, finished=c.finished) or (encoder.eos_id,) for c, _ in group]
        item = Rewarded((encoder.prompt(prompt), tokens), tuple(score for _, score in group))
        if len(item.group[0]) + max(map(len, tokens)) <= longest:
            sides[splits[prompt.id]].append(item)
        else:
            long.append(prompt)
    left_out = count_left_out(run, "data", "prompt", longest, len(long), len(splits), long)
    require(run, sides["train"], "no completion is left to train on", left_out, config)
    say_if_none_held_out(run, sides["heldout"])
    return sides["train"], sides["heldout"], len(long)


def _written(run: Run, config: IlqlConfig) -> tuple[list[Completion], dict[str, str]]:
    """Every different completion, and on which side of the split its prompt is."""
    data = run.inputs["data"]
    if data.kind == "completions":
        found = read_completions(data)
        seed = config.run.seed
        splits = {c.prompt.id: split_by_prompt(group_of(c.prompt), config.heldout, seed) for c in found}
    else:
        judgements = read_judgements(data)
        found = [completion for judgement in judgements for completion in as_completions(judgement)]
        splits = {judgement.prompt.id: judgement.split for judgement in judgements}
    return list({(c.prompt.id, c.text, c.finished): c for c in found}.values()), {**splits}


def _with_scores(run: Run, config: IlqlConfig, written: Sequence[Completion]) -> list[list[tuple[Completion, float]]]:
    """By prompt. A scorer is asked once: what it said stays in the run's folder, for when it is resumed."""
    path = run.path / SCORES
    rewards, _ = scored_by(run.inputs)
    if not rewards:
        scores = stored_scores(written)
    elif path.is_file():
        scores = json.loads(path.read_text())
    else:
        scorer = measured(load_scorer(run, rewards, config)[0], written)
        with track(len(written), "score") as advance:
            scores = [score.value for score in score_all(scorer, written, advance)]
        atomic_write(path, json.dumps(scores).encode())
    groups: dict[str, list[tuple[Completion, float]]] = {}
    for completion, score in zip(written, scores, strict=True):
        groups.setdefault(completion.prompt.id, []).append((completion, score))
    return list(groups.values())


def _with_thumbs(items: Sequence[Judged], sides: bool) -> list[Judged]:
    """Prompts with thumbs; the sides of decided pairs are thumbs too, where that is asked for."""
    if sides:
        items = [replace(item, verdicts=(*item.verdicts, *_thumbs(item.pairs))) for item in items]
    return [item for item in items if item.verdicts]


def _thumbs(pairs: Sequence[Pair]) -> list[Verdict]:
    from .train.judged import Verdict

    decided = [pair for pair in pairs if pair.target != 0.5]
    return [each for p in decided for each in (Verdict(p.i, p.target), Verdict(p.j, 1 - p.target))]


def _check_thumbs(run: Run, train: Sequence[Judged]) -> None:
    given = [verdict.right for item in train for verdict in item.verdicts]
    if not given:
        raise TrueupError(
            f"{run.inputs['data'].id} holds no thumbs to train on",
            "KTO learns from completions judged by themselves; comparisons serve with sides_as_thumbs = true",
        )
    if min(given) == max(given):
        kind = "up" if given[0] else "down"
        raise TrueupError(
            f"all {len(given)} thumbs to train on are {kind}: KTO learns from the difference between the two kinds",
            f"add some of the other kind{', or train on what was liked: trueup train sft' * (kind == 'up')}",
        )
    if len(train) < 2:
        raise TrueupError(
            "all thumbs are about one prompt: KTO measures the policy's drift on completions of other prompts",
            "judge completions of more prompts",
        )


def _in_rounds(run: Run, config: DpoConfig) -> Artifact:
    from .engines.sampler import Sampler
    from .train.online_dpo import online_dpo

    policy = load_policy(run, "policy", config, trainable=True)
    reference = None if policy.adapter is not None else load_policy(run, "policy", config)
    scorers = load_scorers(run, config, policy)
    readers = [(policy.encoder, policy.context), *scorers.readers]
    prompts, dropped = with_room(run, read_prompts(run.inputs["prompts"]), readers, config, cut=True)
    train, held = hold_out(run, prompts, config.guard.evaluation_prompts, config.batch_size)
    note_audits(run)
    watched: dict[str, Scorer] = {"gold": GoldScorer()} if in_world(prompts) else {}
    best = online_dpo(
        run, config, policy, reference, Sampler(policy), scorers.scorer, train, held, watched, scorers.judge
    )
    scorers.tell_cut(run)
    return finish_model(run, policy, config, best, dropped)


def _with_pairs(
    run: Run, config: DpoConfig, train: Sequence[Judged], heldout: Sequence[Judged]
) -> tuple[list[Judged], list[Judged]]:
    """Prompts with pairs to learn from; ties are left out and counted where that is asked for."""
    pairs = [pair for item in (*train, *heldout) for pair in item.pairs]
    ties = sum(pair.target == 0.5 for pair in pairs)
    if not any(pair.target != 0.5 for item in train for pair in item.pairs):
        raise TrueupError(
            "every judgement to train on is a tie: there is nothing to learn from"
            if ties
            else "nothing to train on compares one completion with another",
            "judgements that prefer one completion over another are needed; look at the data: trueup data show",
        )
    if ties and config.ties == "skip" and run.resume_folder is None:
        run.tell("ties", f"{ties} of {len(pairs)} judged pairs are ties and left out (ties = 'half' learns from them)")
    left, left_heldout = (_to_learn_from(side, config.ties == "skip") for side in (train, heldout))
    return left, _of_those_held_out(run, heldout, left_heldout)


def _of_those_held_out(run: Run, before: Sequence[Judged], usable: list[Judged], at_least: int = 1) -> list[Judged]:
    """What can be evaluated on, or nothing, which is said unless nothing was held out to begin with."""
    if len(usable) >= at_least:
        return usable
    if before:
        say_if_none_held_out(run, ())
    return []


def _to_learn_from(items: Sequence[Judged], decided: bool) -> list[Judged]:
    found = [replace(item, pairs=tuple(p for p in item.pairs if not (decided and p.target == 0.5))) for item in items]
    return [item for item in found if item.pairs]
