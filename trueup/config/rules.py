"""Settings that contradict one another. An option without meaning for what was chosen is an error, never ignored.

Types and ranges are the schema's business; a rule here looks at several settings at once. It speaks only when one of
its `keys` was set on purpose, so defaults never complain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from .collection import MOST_LEVELS, THUMB, CollectionConfig, sound_axes
from .schema import GuardSettings, Sampling, Scoring, Table, ValueSettings

_COLLECTION = (CollectionConfig.stage,)
_SCORES = ("rl", "dpo", "ilql", "sample", "winrate", "compare", "audit", "score", "tradeoff")
_LEARNS_FROM_SCORES = ("rl", "dpo")  # step by step, from its own completions
_OFFLINE = ("dpo", "kto", "ilql")
_ALL = ("pretrain", "sft", "sample", "reward", "rl", *_OFFLINE, "winrate", "safety", "compare")
_ANSWERS = ("sample", "winrate", "safety", "compare")  # nothing is trained
_GROUPED = ("rloo", "grpo")


@dataclass(frozen=True)
class Rule:
    """`keys` are wrong or without meaning in `stages` when `broken(config)`."""

    keys: tuple[str, ...]
    broken: Callable[[Any], bool]
    why: str
    stages: tuple[str, ...] = _ALL
    together: bool = False  # about how the keys fit together: one mistake, not one a key


def _value_has_lora(config: Any) -> bool:
    """The value's adapter on the reward model's trunk is LoRA whatever the policy trains."""
    return getattr(config, "estimator", "") == "ppo" and bool(config.value.model == "reward")


def _one_update(config: Any) -> bool:
    return bool(config.epochs == config.minibatches == 1)


RULES: tuple[Rule, ...] = (
    Rule(
        ("optimizer.muon_lr",),
        lambda c: c.optimizer.name != "muon",
        "has a meaning only with optimizer.name = 'muon'",
    ),
    Rule(
        ("optimizer.final_lr",),
        lambda c: c.optimizer.schedule == "constant",
        "has no meaning with optimizer.schedule = 'constant'",
    ),
    Rule(
        ("optimizer.warmup_steps",),
        lambda c: 0 < c.steps <= c.optimizer.warmup_steps,
        "does not fit: the rate would still be rising at the last of `steps`",
        ("pretrain", "sft", "reward", "rl", *_OFFLINE),
    ),
    Rule(
        ("model.lora_rank", "model.lora_alpha"),
        lambda c: c.model.adapter == "none" and not _value_has_lora(c),
        "has no meaning with model.adapter = 'none'",
        ("sft", "reward", "rl", *_OFFLINE),
    ),
    Rule(
        ("model.quantise", "model.adapter"),
        lambda c: c.model.quantise != "none" and c.model.adapter == "none",
        "does not fit: weights in few bits cannot learn, so model.quantise needs LoRA",
        ("sft", "reward", "rl", *_OFFLINE),
        together=True,
    ),
    Rule(
        ("reference_rate", "model.adapter"),
        lambda c: c.reference_rate > 0 and c.model.adapter == "lora",
        "does not fit: with LoRA the reference is the policy without its adapter, and cannot move",
        ("rl",),
        together=True,
    ),
    Rule(
        ("model.quantise",),
        lambda c: c.model.quantise != "none" and c.kind == "features",
        "does not fit: a reward model of kind 'features' trains all its weights, and in few bits they cannot learn",
        ("reward",),
    ),
    Rule(
        ("model.adapter",),
        lambda c: c.model.adapter == "lora",
        "cannot be 'lora' in pretraining: it trains every weight of a new model",
        ("pretrain",),
    ),
    Rule(
        ("model.lora_rank", "model.lora_alpha", "model.quantise", "model.trust_remote_code"),
        lambda c: True,
        "has no meaning in pretraining: it loads no model and trains every weight",
        ("pretrain",),
    ),
    Rule(
        ("model.adapter", "model.lora_rank", "model.lora_alpha", "model.quantise"),
        lambda c: True,
        "has no meaning here: nothing is trained",
        (*_ANSWERS, "audit", "score"),
    ),
    Rule(
        (
            "run.checkpoint_every",
            "run.evaluate_every",
            "run.micro_batch",
            "run.max_skipped",
            "run.tensorboard",
            "run.trackers",
        ),
        lambda c: True,
        "has no meaning here: nothing is trained",
        _ANSWERS,
    ),
    Rule(
        ("epochs",),
        lambda c: c.steps > 0,
        "has no meaning when steps is set: give one of the two",
        ("sft", "reward", *_OFFLINE),
    ),
    Rule(
        ("unbiased",),
        lambda c: c.unbiased and c.wrong_share == 0,
        "has a meaning only with wrong_share above 0",
        ("reward", "dpo"),
    ),
    Rule(
        ("strength", "wrong_share", "centring"),
        lambda c: c.loss == "plackett-luce",
        "has a meaning only with loss = 'bradley-terry': it is about pairs",
        ("reward",),
    ),
    Rule(
        ("objectives",),
        lambda c: len(set(c.objectives)) != len(c.objectives) or not all(name.strip() for name in c.objectives),
        "must be names, each once",
        ("reward",),
    ),
    Rule(
        ("objectives",),
        lambda c: "spread" in c.objectives,
        "cannot name one 'spread': that is what a score calls the disagreement of an ensemble",
        ("reward",),
    ),
    Rule(
        ("model.adapter", "model.lora_rank", "model.lora_alpha"),
        lambda c: c.kind == "features" and c.model.adapter != "none",
        "has no meaning with kind = 'features', which trains all its weights",
        ("reward",),
    ),
    Rule(
        ("scoring.objectives",),
        lambda c: (
            len({each.name for each in c.scoring.objectives}) != len(c.scoring.objectives)
            or (len(c.scoring.objectives) > 0 and all(each.weight == 0 for each in c.scoring.objectives))
        ),
        "must name each objective once and leave one with a weight",
        _SCORES,
    ),
    Rule(
        ("scoring.penalty",),
        lambda c: c.scoring.ensemble != "penalised",
        "has a meaning only with scoring.ensemble = 'penalised'",
        _SCORES,
    ),
    Rule(
        ("heldout",),
        lambda c: c.heldout == 1,
        "leaves nothing to train on: it must be below 1",
        ("pretrain", "sft", "ilql"),
    ),
    Rule(
        ("run.keep_logprobs",),
        lambda c: not getattr(c, "online", False),
        "has a meaning only in RL and in online rounds of DPO",
        tuple(stage for stage in _ALL if stage != "rl"),
    ),
    Rule(
        ("run.evaluate_every",),
        lambda c: c.heldout == 0,
        "has no meaning with heldout = 0: there is nothing to evaluate on",
        ("pretrain", "sft", "ilql"),
    ),
    Rule(
        ("architecture.hidden", "architecture.heads"),
        lambda c: c.architecture.hidden % (2 * c.architecture.heads) != 0,
        "does not fit: a head needs an even width, so architecture.hidden must be a multiple of 2 x architecture.heads",
        ("pretrain",),
        together=True,
    ),
    Rule(
        ("architecture.vocabulary",),
        lambda c: c.architecture.vocabulary < 272,
        "must be at least 272: the 256 bytes and the special tokens come first",
        ("pretrain",),
    ),
    Rule(
        ("sampling.temperature",),
        lambda c: c.sampling.temperature == 0,
        "must be above 0 in RL: a greedy policy explores nothing",
        ("rl",),
    ),
    Rule(
        ("sampling.top_p",),
        lambda c: c.sampling.top_p != 1,
        "must be 1 in RL: rollouts have to come from the very distribution that is trained",
        ("rl",),
    ),
    Rule(
        ("sampling.min_new_tokens",),
        lambda c: c.sampling.min_new_tokens > 0,
        "must be 0 in RL: rollouts have to come from the very distribution that is trained",
        ("rl",),
    ),
    Rule(
        ("sampling.min_new_tokens", "sampling.max_new_tokens"),
        lambda c: c.sampling.min_new_tokens > c.sampling.max_new_tokens,
        "does not fit: min_new_tokens is above max_new_tokens",
        _ANSWERS,
        together=True,
    ),
    Rule(
        ("sampling.top_k",),
        lambda c: c.sampling.top_k != 0,
        "must be 0 in RL: rollouts have to come from the very distribution that is trained",
        ("rl",),
    ),
    Rule(
        ("value.clip", "value.lr", "value.warmup_steps"),
        lambda c: c.estimator == "ppo" and c.value.coefficient == 0,
        "has no meaning with value.coefficient = 0: the value is not trained",
        ("rl",),
    ),
    Rule(
        ("value.model",),
        lambda c: c.estimator == "ppo" and c.value.model == "own" and c.value.coefficient == 0,
        "has no meaning with value.coefficient = 0: a model of its own starts at zero and would stay there",
        ("rl",),
    ),
    Rule(
        ("clip", "clip_high", "guard.max_approx_kl"),
        _one_update,
        "has no meaning with epochs = 1 and minibatches = 1: at the only update of a rollout every ratio is 1",
        ("rl",),
    ),
    Rule(
        ("value.clip",),
        lambda c: _one_update(c) and c.estimator == "ppo" and c.value.coefficient > 0,
        "has no meaning with epochs = 1 and minibatches = 1: at the only update of a rollout the value has not moved",
        ("rl",),
    ),
    Rule(
        ("value.warmup_steps",),
        lambda c: c.estimator == "ppo" and c.value.warmup_steps >= c.steps,
        "does not fit: the policy would never learn; it must be below steps",
        ("rl",),
    ),
    Rule(
        (*(f"value.{name}" for name in ValueSettings.model_fields), "lam", "prompt_baseline"),
        lambda c: c.estimator != "ppo",
        "has a meaning only with estimator = 'ppo', which has a value model",
        ("rl",),
    ),
    Rule(
        ("gamma",),
        lambda c: c.estimator in _GROUPED,
        "has no meaning with estimator = 'rloo' or 'grpo': all tokens of a completion have one advantage",
        ("rl",),
    ),
    Rule(
        ("group_std",),
        lambda c: c.estimator != "grpo",
        "has a meaning only with estimator = 'grpo'",
        ("rl",),
    ),
    Rule(
        ("whiten",),
        lambda c: c.estimator == "reinforce++" and c.whiten is False,
        "must not be false with estimator = 'reinforce++': whitening over the rollout is its baseline",
        ("rl",),
    ),
    Rule(
        ("estimator", "samples_per_prompt"),
        lambda c: c.estimator in _GROUPED and c.samples_per_prompt < 2,
        "does not fit: rloo and grpo compare a prompt's completions, so samples_per_prompt must be 2 or more",
        ("rl",),
        together=True,
    ),
    Rule(
        ("prompt_baseline",),
        lambda c: c.estimator == "ppo" and c.prompt_baseline and c.samples_per_prompt < 2,
        "needs samples_per_prompt of 2 or more: the baseline is what the prompt's other completions scored",
        ("rl",),
    ),
    Rule(
        ("kl_in", "kl_estimator"),
        lambda c: c.kl_in == "loss" and c.kl_estimator == "k1",
        "does not fit: as a loss k1 has no gradient on average; take kl_estimator = 'k2' or 'k3'",
        ("rl",),
        together=True,
    ),
    Rule(
        ("kl_in", "kl_estimator"),
        lambda c: c.kl_coefficient == 0 and c.kl_target is None,
        "has no meaning with kl_coefficient = 0",
        ("rl",),
        together=True,
    ),
    Rule(
        ("kl_horizon",),
        lambda c: c.kl_target is None,
        "has no meaning without kl_target: the coefficient stays as it is",
        ("rl",),
    ),
    Rule(
        ("kl_target", "kl_coefficient"),
        lambda c: c.kl_target is not None and c.kl_coefficient == 0,
        "does not fit: the coefficient is adapted by multiplying it, so kl_coefficient must be above 0",
        ("rl",),
        together=True,
    ),
    Rule(
        (
            *("guard.remedy", "guard.max_rollbacks"),
            *("guard.max_repetition", "guard.min_distinct", "guard.max_length_factor"),
        ),
        lambda c: not c.guard.rollback,
        "has no meaning with guard.rollback = false",
        ("rl", "dpo"),
    ),
    Rule(
        ("guard.confidence",),
        lambda c: not c.guard.rollback and not c.guard.stop_gamed,
        "has no meaning with guard.rollback = false and guard.stop_gamed = false: nothing is compared",
        ("rl", "dpo"),
    ),
    Rule(
        ("guard.remedy",),
        lambda c: c.guard.rollback and c.guard.max_rollbacks == 0,
        "has no meaning with guard.max_rollbacks = 0: the run stops where it would go back",
        ("rl",),
    ),
    Rule(
        ("guard.remedy", "kl_coefficient"),
        lambda c: c.guard.rollback and c.guard.remedy == "raise-kl" and c.kl_coefficient == 0,
        "does not fit: twice no KL is no KL; take guard.remedy = 'lower-lr' or a kl_coefficient above 0",
        ("rl",),
        together=True,
    ),
    Rule(
        ("scoring.floor", "scoring.multiplier_rate"),
        lambda c: True,
        "has a meaning only in RL and in online rounds of DPO",
        tuple(stage for stage in _SCORES if stage not in _LEARNS_FROM_SCORES),
    ),
    Rule(
        ("scoring.time_limit",),
        lambda c: True,
        "has no meaning here: only Python functions have a time limit, and here reward models are looked at",
        ("audit", "tradeoff"),
    ),
    Rule(
        ("scoring.floor",),
        lambda c: (
            c.scoring.floor == "multiplier"
            and getattr(c, "online", True)
            and all(each.at_least is None for each in c.scoring.objectives)
        ),
        "needs an objective with at_least in scoring.objectives: that is the floor",
        _LEARNS_FROM_SCORES,
    ),
    Rule(
        ("scoring.multiplier_rate",),
        lambda c: c.scoring.floor != "multiplier" and getattr(c, "online", True),
        "has a meaning only with scoring.floor = 'multiplier'",
        _LEARNS_FROM_SCORES,
    ),
    Rule(
        ("value.model", "scoring.objectives", "scoring.normalise"),
        lambda c: (
            c.estimator == "ppo"
            and c.value.model == "reward"
            and (bool(c.scoring.objectives) or not c.scoring.normalise)
        ),
        "does not fit: with value.model = 'reward' the first values are the reward model's own score, as it is",
        ("rl",),
        together=True,
    ),
    Rule(
        ("minibatches", "prompts_per_step", "samples_per_prompt"),
        lambda c: c.minibatches > c.prompts_per_step * c.samples_per_prompt,
        "does not fit: a rollout has prompts_per_step x samples_per_prompt completions, fewer than minibatches",
        ("rl",),
        together=True,
    ),
    Rule(
        ("sampling.top_p", "sampling.top_k"),
        lambda c: c.sampling.temperature == 0,
        "has no meaning with sampling.temperature = 0: greedy decoding takes the likeliest token",
        _ANSWERS,
    ),
    Rule(
        ("per_prompt", "sampling.temperature"),
        lambda c: c.sampling.temperature == 0 and c.per_prompt > 1,
        "does not fit: greedy completions are all the same, so per_prompt must be 1 with sampling.temperature = 0",
        ("sample",),
        together=True,
    ),
    Rule(
        ("best_of", "sampling.temperature"),
        lambda c: c.sampling.temperature == 0 and c.best_of > 1,
        "does not fit: greedy completions are all the same, so best_of must be 1 with sampling.temperature = 0",
        ("winrate",),
        together=True,
    ),
    Rule(
        ("samples_per_prompt", "pairs", "updates", "score_scale", "score_clip", "missing_eos_score"),
        lambda c: not c.online,
        "has a meaning only with online = true: otherwise the judgements are there already",
        ("dpo",),
    ),
    Rule(
        tuple(f"guard.{name}" for name in GuardSettings.model_fields),
        lambda c: not c.online,
        "has a meaning only with online = true: otherwise the held-out loss decides",
        ("dpo",),
    ),
    Rule(
        ("guard.max_approx_kl", "guard.remedy"),
        lambda c: c.online,
        "has no meaning in DPO: there are no passes to end early, and no KL in a reward to raise",
        ("dpo",),
    ),
    Rule(
        tuple(f"sampling.{name}" for name in Sampling.model_fields),
        lambda c: not c.online,
        "has a meaning only with online = true: otherwise nothing is sampled",
        ("dpo",),
    ),
    Rule(
        tuple(f"scoring.{name}" for name in Scoring.model_fields),
        lambda c: not c.online,
        "has a meaning only with online = true: otherwise nothing is scored",
        ("dpo",),
    ),
    Rule(
        ("ties", "strength", "max_tokens"),
        lambda c: c.online,
        "has no meaning with online = true: a score says only which completion is better",
        ("dpo",),
    ),
    Rule(
        ("strength",),
        lambda c: c.strength.endswith("margin") and c.loss != "sigmoid",
        "can be a margin only with loss = 'sigmoid'",
        ("dpo",),
    ),
    Rule(
        ("sampling.temperature",),
        lambda c: c.online and c.sampling.temperature == 0,
        "must be above 0 in online rounds: greedy completions are all the same",
        ("dpo",),
    ),
    Rule(
        ("sampling.top_p", "sampling.top_k", "sampling.min_new_tokens"),
        lambda c: c.online and (c.sampling.top_p != 1 or c.sampling.top_k != 0 or c.sampling.min_new_tokens > 0),
        "must be off in online rounds: completions have to come from the very distribution that is trained",
        ("dpo",),
    ),
    Rule(
        ("best_of", "sampling.temperature"),
        lambda c: c.sampling.temperature == 0 and c.best_of > 1,
        "does not fit: greedy completions are all the same, so best_of must be 1 with sampling.temperature = 0",
        ("sample",),
        together=True,
    ),
    Rule(
        ("axes",),
        lambda c: c.task != "rating",
        "has a meaning only with task = 'rating'",
        _COLLECTION,
    ),
    Rule(
        ("axes",),
        lambda c: not sound_axes(c),
        f"need names of their own (not '{THUMB}'), low below high, fewer than {MOST_LEVELS} steps, anchors on a level",
        _COLLECTION,
    ),
    Rule(
        ("ties",),
        lambda c: c.task not in ("pair", "ranking"),
        "has a meaning only with task = 'pair' or 'ranking'",
        _COLLECTION,
    ),
    Rule(
        ("both_bad", "strength"),
        lambda c: c.task != "pair",
        "has a meaning only with task = 'pair'",
        _COLLECTION,
    ),
    Rule(
        ("overlap", "max_overlap"),
        lambda c: c.overlap > c.max_overlap,
        "does not fit: overlap is more than max_overlap, the most people an item may go to",
        _COLLECTION,
        together=True,
    ),
    Rule(
        ("qualification_pass",),
        lambda c: c.qualification == 0,
        "has no meaning with qualification = 0: there is nothing to pass",
        _COLLECTION,
    ),
    Rule(
        ("question",),
        lambda c: not c.question.strip(),
        "must say something: it is what people answer",
        _COLLECTION,
    ),
)


def applies(rule: Rule, stage: type[Table]) -> bool:
    """Whether a stage has the rule: it is named by it and has the settings it speaks of."""
    known = stage.model_fields
    return getattr(stage, "stage", "") in rule.stages and all(key.partition(".")[0] in known for key in rule.keys)


def contradictions(config: Table, explicit: Collection[str]) -> list[tuple[str, str]]:
    """(key, why) for every rule that is broken and touched by a key somebody set on purpose."""
    found = []
    for rule in RULES:
        touched = [key for key in rule.keys if key in explicit]
        if touched and applies(rule, type(config)) and rule.broken(config):
            found += [(key, rule.why) for key in (touched[:1] if rule.together else touched)]
    return found


def meaningless(config: Table) -> set[str]:
    """Keys that have no effect or do not fit, where the fault is each key's own and not of several together."""
    broken = [r for r in RULES if not r.together and applies(r, type(config)) and r.broken(config)]
    return {key for rule in broken for key in rule.keys}


def idle(config: Table) -> dict[str, str]:
    """Keys that have no effect in this config, each with the reason."""
    broken = [rule for rule in RULES if applies(rule, type(config)) and rule.broken(config)]
    return {key: rule.why for rule in broken for key in rule.keys}
