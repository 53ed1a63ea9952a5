"""Reinforcement learning from a scorer: PPO (arXiv 1707.06347) as InstructGPT uses it (arXiv 2203.02155), and the
estimators that need no value model: RLOO (2402.14740), REINFORCE++ (2501.03262) and GRPO (2402.03300).

Objective: the clipped policy ratio times the advantage, summed over tokens. Reward of a token: minus the KL
coefficient times log(policy / reference); the last one also gets the completion's score. Advantages: GAE with a value
model, whitened over the rollout; or what `estimator` says.

Departures: losses are divided by the token count of the whole minibatch, not averaged a row at a time; advantages are
whitened without adding the mean back; ratios are clipped token by token with every estimator; a completion without
EOS gets a fixed score, since the score of a cut text means nothing; unless told otherwise the value is a head on the
policy's trunk and starts at zero, rather than a model of its own that starts from the reward model.

    trueup train rl --policy SFT_MODEL --reward REWARD_MODEL --prompts PROMPTS
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..algo.kl import adapted
from ..algo.scale import mean_and_spread
from ..config import RlConfig
from ..models.language_model import LanguageModel
from ..models.rows import Group
from ..models.value import ValueModel, trunk_value
from ..ports import Engine, Scorer
from ..records import Completion, Prompt
from ..runs.run import Run
from ..stats.diversity import duplicates
from ..text.batches import batch_indices
from .experience import Experience, observe, with_advantages
from .guard import Evaluation, Guard
from .improve import improve
from .run_loop import Loop
from .scores import ScoreScale, said_by
from .seeds import seed_of

MEASURED = 128  # completions of the reference that the scale of scores is measured on


def rl(
    run: Run,
    config: RlConfig,
    policy: LanguageModel,
    reference: LanguageModel | None,
    engine: Engine,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    heldout: Sequence[Prompt],
    watched: Mapping[str, Scorer] = {},
    judge: Scorer | None = None,
    demonstrations: Sequence[Group] = (),
    value: ValueModel | None = None,
) -> int:
    """Tune `policy` in place and leave the weights with the best held-out value in it; returns their step.

    `judge` scores evaluations in place of the scorer that is trained on. `watched` scorers are only logged: the run
    never learns from, stops on or chooses by them. With ppo and no `value`, it is a head on the policy's trunk.
    """
    if config.estimator == "ppo" and value is None:
        value = trunk_value(policy, config.run.seed)
    modules = [policy] if value is None else [policy, value]
    moving = reference if config.reference_rate else None
    loop = Loop(run, modules, config, config.steps, head_lr=config.value.lr, follower=moving)
    scale = (config.missing_eos_score, config.score_scale, config.score_clip)
    scores = ScoreScale(scorer, loop.memory, *scale)
    judged = None if judge is None else ScoreScale(judge, loop.memory, *scale, name="judge")
    guard = Guard(config.guard, config.kl_coefficient, loop)

    def write(chosen: Sequence[Prompt], seed: int, each: int) -> list[Completion]:
        return engine.sample(chosen, config.sampling, seed=seed, n=each)

    def watch(completions: Sequence[Completion], score_c: torch.Tensor) -> Experience:
        def look(size: int) -> Experience:
            return observe(completions, score_c, policy, reference, value, config.sampling.temperature, size)

        return loop.within_memory(look, [len(completion.tokens) for completion in completions])

    def evaluate() -> tuple[Evaluation, dict[str, float]]:
        completions = write(heldout, seed_of(config, "evaluation", 0), 1)
        score_c = scores.steady(completions)
        loop.log(**{f"heldout_{part}": mean for part, mean in scores.parts.items()})
        judge_c = () if judged is None else judged.steady(completions).tolist()
        seen, said = watch(completions, score_c), said_by(watched, completions)
        run.keep_samples(loop.step, _sample_rows(completions, seen, said, config.run.keep_logprobs), heldout=True)
        evaluation = Evaluation.of(loop.step, completions, score_c.tolist(), seen.kl_c.tolist(), judge_c)
        return evaluation, {f"heldout_{name}": _mean(values) for name, values in said.items()}

    def examine() -> None:
        evaluation, said = evaluate()
        loop.log(**said)
        guard.look(evaluation)  # 6 go on, go back or stop

    if not scores.known:
        chosen = [prompts[i] for i in batch_indices(config.run.seed, 0, MEASURED, len(prompts))]
        begin(run, write(chosen, seed_of(config, "constants", 0), 1), scores, judged)
        if value is not None:
            value.rescale(loop.memory["score_mean"], loop.memory["score_std"])
        if heldout:
            evaluation, said = evaluate()
            found = evaluation.metrics() | said
            run.event("start", "what evaluations are compared with", prompts=len(heldout), **found)
            guard.begin(evaluation)
    for step in loop.steps(examine if heldout else None):
        chosen = [prompts[i] for i in batch_indices(config.run.seed, step - 1, config.prompts_per_step, len(prompts))]
        completions = write(chosen, seed_of(config, "rollout", step), config.samples_per_prompt)  # 1
        with loop.unchanged():
            score_c = scores(completions, learning=True)  # 2
            said = said_by(watched, completions)
            loop.log(**{name: _mean(values) for name, values in said.items()})
        _say_if_flat(loop, score_c)
        seen = watch(completions, score_c)  # 3 log-probs, values, KL
        kl_coefficient = loop.memory.get("kl_coefficient", config.kl_coefficient)
        experience = with_advantages(seen, config, kl_coefficient)  # 4
        loop.between_phases()
        stats = improve(loop, config, experience, policy, value, kl_coefficient, demonstrations)  # 5
        loop.between_phases()
        if moving is not None:
            follow(moving, policy, config.reference_rate)
        loop.log(**describe(experience, completions), **stats, **scores.parts, kl_coefficient=kl_coefficient)
        run.keep_samples(step, _sample_rows(completions, experience, said, config.run.keep_logprobs))
        if config.kl_target is not None and step > config.value.warmup_steps:
            kl = float(experience.kl_c.mean())
            loop.memory["kl_coefficient"] = adapted(kl_coefficient, kl, config.kl_target, 1 / config.kl_horizon)
    return loop.restore_best()


def begin(run: Run, completions: Sequence[Completion], scores: ScoreScale, judged: ScoreScale | None = None) -> None:
    """Before the first step: what scores of the reference are like."""
    for scale in (scores, *([judged] if judged else [])):
        scale.measure(completions)
        mean, std = scale.memory[f"{scale.name}_mean"], scale.memory[f"{scale.name}_std"]
        run.event(f"{scale.name} scale", "scores are shifted and scaled", mean=mean, std=std)


@torch.no_grad()
def follow(reference: LanguageModel, policy: LanguageModel, rate: float) -> None:
    """An exponential moving average of the policy's weights (arXiv 2404.10719), a step on."""
    for mine, theirs in zip(reference.parameters(), policy.parameters(), strict=True):
        mine.lerp_(theirs, rate)


def _say_if_flat(loop: Loop, score_c: torch.Tensor) -> None:
    """Once a run: from equal scores there is nothing to learn, whatever else the metrics show."""
    if "flat" not in loop.memory and len(score_c) > 1 and mean_and_spread(score_c)[1] == 0:
        loop.memory["flat"] = loop.step
        loop.run.tell(
            "flat scores",
            f"all {len(score_c)} completions of step {loop.step} score {float(score_c[0]):.3g}: nothing to learn",
            step=loop.step,
        )


def describe(experience: Experience, completions: Sequence[Completion]) -> dict[str, float | None]:
    """Numbers to watch a rollout by. None is averaged over padding."""
    return {
        "score": float(experience.score_c.mean()),
        "score_std": float(experience.score_c.std(correction=0)),
        "kl": float(experience.kl_c.mean()),
        "kl_k3": experience.mean(experience.kl_k3_cl),
        "entropy": -experience.mean(experience.logp_cl),
        "value_explained": experience.explained_variance(),
        "length": float(experience.mask_cl.sum(1).float().mean()),
        "unfinished": sum(not c.finished for c in completions) / len(completions),
        "duplicates": duplicates([(c.prompt.id, c.tokens) for c in completions]),
        "drift": experience.drift(),
        "drift_mean": experience.drift_mean(),
    }


def _sample_rows(
    completions: Sequence[Completion], experience: Experience, others: Mapping[str, Sequence[float]], logprobs: bool
) -> list[dict[str, Any]]:
    rows = [
        {
            "prompt": c.prompt.id,
            "text": c.text,
            "finished": c.finished,
            "length": len(c.tokens),
            "score": score,
            "kl": kl,
            **{name: values[i] for name, values in others.items()},
        }
        for i, (c, score, kl) in enumerate(
            zip(completions, experience.score_c.tolist(), experience.kl_c.tolist(), strict=True)
        )
    ]
    return [row | more for row, more in zip(rows, _token_rows(experience), strict=True)] if logprobs else rows


def _token_rows(experience: Experience) -> list[dict[str, Any]]:
    """What each token was: its id, and its log-probability under the sampler, the policy and the reference."""
    named = {
        "sampler_logprobs": experience.sampled_cl,
        "logprobs": experience.logp_cl,
        "reference_logprobs": experience.reference_cl,
    }
    return [
        {"tokens": list(tokens)} | {name: values[i, : len(tokens)].tolist() for name, values in named.items()}
        for i, (_, tokens) in enumerate(experience.tokens)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
