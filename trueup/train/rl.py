"""Reinforcement learning from a scorer: PPO (arXiv 1707.06347) as InstructGPT uses it (arXiv 2203.02155).

Objective: the clipped policy ratio times the advantage, summed over tokens. Reward of a token: minus `kl_coefficient`
times log(policy / reference); the last one also gets the completion's score. Advantages: GAE with a value head on the
policy's trunk, whitened over the rollout.

Departures: losses are divided by the token count of the whole minibatch, not averaged a row at a time; advantages are
whitened without adding the mean back; a completion without EOS gets a fixed score, since the score of a cut text
means nothing; the value head starts at zero rather than from the reward model.

    trueup train rl --policy SFT_MODEL --reward REWARD_MODEL --prompts PROMPTS
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from ..algo.losses import policy_loss, value_loss
from ..config import RlConfig
from ..errors import RunError
from ..models.language_model import LanguageModel
from ..models.value import ValueHead
from ..ports import Engine, Scorer
from ..records import Completion, Prompt
from ..runs.run import Run
from ..text.batches import batch_indices
from .experience import Experience, observe, side_by_side, with_advantages
from .reward import mean_and_std
from .run_loop import Loop

RATIO_LIMIT = 0.01  # rounding in float32 stays a hundred times below


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
) -> int:
    """Tune `policy` in place and leave the weights with the best held-out objective in it; returns their step.

    `watched` scorers are only logged: the run never learns from, stops on or chooses by them.
    """
    value_head = ValueHead(policy.network.config.get_text_config().hidden_size, config.run.seed).to(policy.device)
    loop = Loop(run, [policy, value_head], config, config.steps, head_lr=config.value_lr)
    if "score_mean" not in loop.memory:
        loop.memory |= _score_constants(config, engine, scorer, prompts)
        run.event(
            "score scale", "scores are shifted and scaled", mean=loop.memory["score_mean"], std=loop.memory["score_std"]
        )

    def rollout(chosen: Sequence[Prompt], seed: int, each: int) -> tuple[list[Completion], torch.Tensor]:
        completions = engine.sample(chosen, config.sampling, seed=seed, n=each)  # 1 write
        return completions, _scores(config, scorer, completions, loop.memory)  # 2 score

    def watch(completions: Sequence[Completion], score_c: torch.Tensor) -> Experience:
        def look(size: int) -> Experience:  # 3 log-probs, values, KL
            return observe(completions, score_c, policy, reference, value_head, config.sampling.temperature, size)

        return loop.within_memory(look, [len(completion.tokens) for completion in completions])

    for step in loop.steps():
        chosen = [prompts[i] for i in batch_indices(config.run.seed, step - 1, config.prompts_per_step, len(prompts))]
        completions, score_c = rollout(chosen, _seed(config, "rollout", step), config.samples_per_prompt)
        experience = with_advantages(watch(completions, score_c), config)  # 4
        stats = improve(loop, config, experience, policy, value_head)  # 5
        loop.log(**describe(experience, completions), **stats)
        loop.log(**{name: _mean(scorer_.score(completions)) for name, scorer_ in watched.items()})
        run.keep_samples(step, _sample_rows(completions, experience))
        if loop.evaluation_due and heldout:
            completions, score_c = rollout(heldout, _seed(config, "evaluation", 0), 1)
            score, kl = float(score_c.mean()), float(watch(completions, score_c).kl_c.mean())
            loop.log(heldout_score=score, heldout_kl=kl)
            loop.log(**{f"heldout_{name}": _mean(s.score(completions)) for name, s in watched.items()})
            loop.evaluated(score - config.kl_coefficient * kl)
            if config.stop_score is not None and score >= config.stop_score:
                loop.stop(f"the held-out score {score:.3f} reached stop_score {config.stop_score}")
    return loop.restore_best()


def improve(
    loop: Loop, config: RlConfig, experience: Experience, policy: LanguageModel, value_head: ValueHead
) -> dict[str, float]:
    """Several passes over one rollout in minibatches; ends early when the policy has moved enough."""
    each, total = config.samples_per_prompt, len(experience.tokens)
    prompts = list(range(total // each))
    borders = [total * i // config.minibatches for i in range(config.minibatches + 1)]
    updates: list[dict[str, float]] = []
    gaps: list[float] = []

    def loss_sum(chosen: Sequence[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rows = policy.rows(side_by_side([experience.tokens[i] for i in chosen]))
        at, mask = torch.tensor(chosen, device=policy.device), rows.mask_cl
        width = mask.shape[1]
        hidden = policy.hidden(rows)
        logp = policy.logprobs(rows, config.sampling.temperature, hidden)
        values = value_head(hidden[rows.before_cl])
        old_logp, old_value, advantage, returns = (
            t[at, :width]
            for t in (experience.logp_cl, experience.value_cl, experience.advantage_cl, experience.return_cl)
        )
        on_policy, seen = policy_loss(logp, old_logp, advantage, mask, config.clip, config.clip)
        on_value = value_loss(values, old_value, returns, mask, config.value_clip)
        tokens = mask.sum()
        sums = {"policy_loss": on_policy, "value_loss": on_value}
        sums |= {key: seen[key] * tokens for key in ("approx_kl", "clip_fraction")}
        gaps.append(float(seen["ratio_gap"]))
        return on_policy + config.value_coefficient * on_value, sums

    for epoch in range(config.epochs):
        random.Random(_seed(config, f"epoch {epoch}", loop.step)).shuffle(prompts)
        order = [i * each + k for i in prompts for k in range(each)]  # completions of a prompt stay side by side
        for start, end in pairwise(borders):
            chosen = order[start:end]
            gaps.clear()
            tokens = float(sum(len(experience.tokens[i][1]) for i in chosen))
            updates.append(loop.update(chosen, loss_sum, tokens, experience.row_tokens) | {"ratio_gap": max(gaps)})
            if len(updates) == 1:
                _check_first_ratio(max(gaps), policy)
            if updates[-1]["approx_kl"] > config.max_approx_kl:
                loop.run.event("early stop", "approximate KL over its limit", step=loop.step, updates=len(updates))
                return _summary(updates)
    return _summary(updates)


def _check_first_ratio(gap: float, policy: LanguageModel) -> None:
    """Before any update of a rollout the ratio is 1. bf16 is spared: there the batch size alone moves it."""
    if gap > RATIO_LIMIT and next(policy.parameters()).dtype == torch.float32:
        raise RunError(
            f"the same weights gave log-probabilities whose ratio is off by {gap:.2g} (limit {RATIO_LIMIT})",
            "the model computes something random or remembers earlier batches: PPO cannot learn from such ratios",
        )


def describe(experience: Experience, completions: Sequence[Completion]) -> dict[str, float]:
    """Numbers to watch a rollout by. None is averaged over padding."""
    return {
        "score": float(experience.score_c.mean()),
        "score_std": float(experience.score_c.std(correction=0)),
        "kl": float(experience.kl_c.mean()),
        "entropy": -experience.mean(experience.logp_cl),
        "value_explained": experience.explained_variance(),
        "length": float(experience.mask_cl.sum(1).float().mean()),
        "unfinished": sum(not c.finished for c in completions) / len(completions),
        "drift": experience.drift(),
    }


def _scores(
    config: RlConfig, scorer: Scorer, completions: Sequence[Completion], constants: Mapping[str, float]
) -> torch.Tensor:
    """Scores on the reference's scale. Text that was cut off gets a fixed one: a score of half a text means nothing."""
    raw = torch.tensor([score.value for score in scorer.score(completions)], dtype=torch.float32)
    scores = (raw - constants["score_mean"]) / constants["score_std"]
    if config.missing_eos_score is None:
        return scores
    finished = torch.tensor([completion.finished for completion in completions])
    return torch.where(finished, scores, config.missing_eos_score)


def _score_constants(config: RlConfig, engine: Engine, scorer: Scorer, prompts: Sequence[Prompt]) -> dict[str, float]:
    """Mean and std of the score on the reference's own completions, measured before the first step."""
    if not config.normalise_scores:
        return {"score_mean": 0.0, "score_std": 1.0}
    chosen = [prompts[i] for i in batch_indices(config.run.seed, 0, 128, len(prompts))]
    completions = engine.sample(chosen, config.sampling, seed=_seed(config, "constants", 0), n=1)
    values = torch.tensor([s.value for s in scorer.score(completions)], dtype=torch.float64)
    return dict(zip(("score_mean", "score_std"), mean_and_std(values), strict=True))


def _summary(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the updates of a step; the ratio gap is the first update's: before it, the ratio must be 1."""
    keys = ("policy_loss", "value_loss", "approx_kl", "clip_fraction", "gradient_norm")
    means = {key: sum(update[key] for update in updates) / len(updates) for key in keys}
    return means | {"ratio_gap": updates[0]["ratio_gap"], "updates": float(len(updates))}


def _sample_rows(completions: Sequence[Completion], experience: Experience) -> list[dict]:
    return [
        {
            "prompt": c.prompt.id,
            "text": c.text,
            "finished": c.finished,
            "length": len(c.tokens),
            "score": score,
            "kl": kl,
        }
        for c, score, kl in zip(completions, experience.score_c.tolist(), experience.kl_c.tolist(), strict=True)
    ]


def _mean(scores: Sequence) -> float:
    return sum(score.value for score in scores) / len(scores)


def _seed(config: RlConfig, purpose: str, step: int) -> int:
    """Every random choice is a function of the run's seed, its purpose and the step: nothing to save or restore."""
    return random.Random(f"{config.run.seed}/{purpose}/{step}").getrandbits(63)
