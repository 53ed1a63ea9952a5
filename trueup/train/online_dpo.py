"""DPO in rounds (online DPO, arXiv 2402.04792): the policy writes, a scorer says which is better, the policy learns.

A round is one step: completions are sampled from the present policy, scored, made into pairs (the best of a prompt
against its worst, or all of them), and learnt from as judgements are in `train/dpo.py`. The reference stays what the
policy was at the start. A completion without an end gets a fixed score, since the score of cut text means nothing.

    trueup train dpo --online --policy SFT_MODEL --reward REWARD_MODEL --prompts PROMPTS
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import combinations

import torch

from ..config import DpoConfig
from ..errors import RunError
from ..models.adapters import reference as adapter_off
from ..models.language_model import LanguageModel
from ..models.rows import Group
from ..ports import Engine, Scorer
from ..records import Completion, Prompt, by_prompt
from ..runs.run import Run
from ..text.batches import batch_indices, in_turn
from .cached import known_logprobs
from .dpo import Known, learn
from .guard import Evaluation, Guard
from .judged import Judged, Pair
from .rl import begin
from .run_loop import Loop
from .scores import ScoreScale, said_by
from .seeds import seed_of

SCALED_ON = 128  # prompts that the scale of the scores is measured on


@dataclass(frozen=True)
class Round:
    """What was written, a group a prompt: scores, the reference's log-probabilities, KL(policy || reference), and what
    watched scorers say."""

    groups: list[list[Completion]]
    tokens: list[Group]
    score_c: torch.Tensor
    reference_t: torch.Tensor  # of every token, one completion after another
    kl_c: torch.Tensor  # the sum of a completion's log-ratios (k1), the policy's side as it was sampled
    others: Mapping[str, Sequence[float]]

    @property
    def completions(self) -> list[Completion]:
        return [completion for group in self.groups for completion in group]

    def watched(self, prefix: str = "") -> dict[str, float]:
        return {prefix + name: sum(values) / len(values) for name, values in self.others.items()}


def online_dpo(
    run: Run,
    config: DpoConfig,
    policy: LanguageModel,
    reference: LanguageModel | None,
    engine: Engine,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    heldout: Sequence[Prompt],
    watched: Mapping[str, Scorer] = {},
    judge: Scorer | None = None,
) -> int:
    """Tune `policy` in place and leave the weights with the best held-out objective in it; returns their step.

    Without a `reference` it is the policy with its adapter off. `judge` scores evaluations in place of the scorer that
    is learnt from. `watched` scorers are logged and nothing else.
    """
    steps = config.steps or math.ceil(config.epochs * len(prompts) / config.batch_size)
    loop = Loop(run, [policy], config, steps)
    scale = (config.missing_eos_score, config.score_scale, config.score_clip)
    scores = ScoreScale(scorer, loop.memory, *scale)
    judged = None if judge is None else ScoreScale(judge, loop.memory, *scale, name="judge")
    guard = Guard(config.guard, config.beta, loop)

    def play(chosen: Sequence[Prompt], seed: int, each: int, learning: bool = False) -> Round:
        completions = engine.sample(chosen, config.sampling, seed=seed, n=each)
        score_c = scores(completions, learning=True) if learning else scores.steady(completions)
        check_numbers(score_c)
        groups = by_prompt(completions)
        tokens = policy.groups(groups)
        lengths = [len(prompt) + max(map(len, own)) for prompt, own in tokens]
        temperature = config.sampling.temperature
        seen = loop.within_memory(lambda size: _observe(policy, reference, tokens, temperature, size), lengths)
        return Round(groups, tokens, score_c, seen, _kl(completions, seen), said_by(watched, completions))

    def evaluate() -> tuple[Evaluation, Round]:
        played = play(heldout, seed_of(config, "evaluation", 0), 1)
        loop.log(**{f"heldout_{part}": mean for part, mean in scores.parts.items()})
        judge_c = () if judged is None else judged.steady(played.completions).tolist()
        run.keep_samples(loop.step, _sample_rows(played, config.run.keep_logprobs), heldout=True)
        found = played.completions, played.score_c.tolist(), played.kl_c.tolist(), judge_c
        return Evaluation.of(loop.step, *found), played

    def examine() -> None:
        evaluation, played = evaluate()
        loop.log(**played.watched("heldout_"))
        guard.look(evaluation)

    if not scores.known:
        chosen = [prompts[i] for i in batch_indices(config.run.seed, 0, SCALED_ON, len(prompts))]
        begin(run, engine.sample(chosen, config.sampling, seed=seed_of(config, "constants", 0), n=1), scores, judged)
        if heldout:
            evaluation, played = evaluate()
            found = evaluation.metrics() | played.watched("heldout_")
            run.event("start", "what evaluations are compared with", prompts=len(heldout), **found)
            guard.begin(evaluation)
    for step in loop.steps(examine if heldout else None):
        chosen = [prompts[i] for i in batch_indices(config.run.seed, step - 1, config.batch_size, len(prompts))]
        with loop.unchanged():
            played = play(chosen, seed_of(config, "rollout", step), config.samples_per_prompt, learning=True)
            loop.log(**played.watched())
        known = pairs_of(config, played)
        loop.log(**describe(played, known), **scores.parts)
        for _ in range(config.updates if known else 0):
            loop.log(**learn(loop, config, policy, known, config.sampling.temperature))
        run.keep_samples(step, _sample_rows(played, config.run.keep_logprobs))
    return loop.restore_best()


def pairs_of(config: DpoConfig, played: Round) -> list[Known]:
    """What the scores say of each prompt's completions; where all are equal, nothing is learnt."""
    found: list[Known] = []
    counts = [len(group) for group in played.groups]
    lengths = [sum(map(len, own)) for _, own in played.tokens]
    for scores, (prompt, own), given in zip(
        played.score_c.split(counts), played.tokens, played.reference_t.split(lengths), strict=True
    ):
        values, parts = scores.tolist(), given.split([len(tokens) for tokens in own])
        wanted = _compared(values, config.pairs)
        used = sorted({i for pair in wanted for i in pair})
        place = {i: at for at, i in enumerate(used)}
        pairs = tuple(Pair(place[i], place[j], 1.0) for i, j in wanted)
        if pairs:
            found.append(Known(Judged((prompt, [own[i] for i in used]), pairs), torch.cat([parts[i] for i in used])))
    return found


def _compared(values: Sequence[float], which: str) -> list[tuple[int, int]]:
    """(better, worse); completions with equal scores are not compared."""
    if which == "extremes":
        best, worst = values.index(max(values)), values.index(min(values))
        return [(best, worst)] if values[best] > values[worst] else []
    both = combinations(range(len(values)), 2)
    return [(i, j) if values[i] > values[j] else (j, i) for i, j in both if values[i] != values[j]]


@torch.no_grad()
def _observe(
    policy: LanguageModel, reference: LanguageModel | None, groups: Sequence[Group], temperature: float, size: int
) -> torch.Tensor:
    with nullcontext() if reference is not None else adapter_off(policy):
        model = reference or policy
        parts = [[groups[i] for i in part] for part in in_turn(len(groups), size)]
        return torch.cat([known_logprobs(model, part, temperature) for part in parts])


def _kl(completions: Sequence[Completion], reference_t: torch.Tensor) -> torch.Tensor:
    sampled = reference_t.new_tensor([value for c in completions for value in c.logprobs])
    lengths = [len(completion.tokens) for completion in completions]
    return torch.stack([part.sum() for part in (sampled - reference_t).split(lengths)])


def describe(played: Round, known: Sequence[Known]) -> dict[str, float]:
    completions = played.completions
    return {
        "score": float(played.score_c.mean()),
        "score_std": float(played.score_c.std(correction=0)),
        "kl": float(played.kl_c.mean()),
        "length": sum(len(c.tokens) for c in completions) / len(completions),
        "unfinished": sum(not c.finished for c in completions) / len(completions),
        "pairs": float(sum(len(each.item.pairs) for each in known)),
    }


def check_numbers(score_c: torch.Tensor) -> None:
    """Which of two completions is better cannot be learnt from anything else."""
    wrong = score_c[~score_c.isfinite()]
    if len(wrong):
        raise RunError(
            f"{len(wrong)} of {len(score_c)} scores are not numbers ({float(wrong[0])})",
            "look at what the scorer says of a text: trueup score",
        )


def _sample_rows(played: Round, logprobs: bool) -> list[dict]:
    rows = [
        {"prompt": c.prompt.id, "text": c.text, "finished": c.finished, "length": len(c.tokens), "score": s, "kl": kl,
         **{name: values[i] for name, values in played.others.items()}}
        for i, (c, s, kl) in enumerate(
            zip(played.completions, played.score_c.tolist(), played.kl_c.tolist(), strict=True)
        )
    ]  # fmt: skip
    return [row | more for row, more in zip(rows, _token_rows(played), strict=True)] if logprobs else rows


def _token_rows(played: Round) -> list[dict]:
    """What each token was: its id, and its log-probability under the policy as it was sampled, and the reference."""
    given = played.reference_t.split([len(c.tokens) for c in played.completions])
    return [
        {"tokens": list(c.tokens), "sampler_logprobs": list(c.logprobs), "reference_logprobs": reference.tolist()}
        for c, reference in zip(played.completions, given, strict=True)
    ]
