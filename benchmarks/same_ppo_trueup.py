"""PPO on one rollout as trueup does it, watched: the stage's own functions, from completions to optimizer steps."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trueup.algo.advantages import token_rewards
from trueup.algo.kl import per_token_penalty
from trueup.config import RlConfig
from trueup.engines.fake import FakeScorer
from trueup.models.language_model import LanguageModel
from trueup.models.reward_model import SequenceReward
from trueup.models.rows import lay_out
from trueup.models.value import OwnValue, ValueHead
from trueup.records import Completion, Prompt
from trueup.runs import Run
from trueup.store import Workspace
from trueup.train.experience import Experience, observe, side_by_side, with_advantages
from trueup.train.improve import improve
from trueup.train.run_loop import Loop
from trueup.train.scores import ScoreScale

from .same_ppo_cases import Case, Weights, encoder, network

Array = np.ndarray


class Watched(Loop):
    """A loop that keeps what each update was, and the gradient as the optimizer got it."""

    def __init__(self, run: Run, modules: Sequence[torch.nn.Module], config: RlConfig) -> None:
        super().__init__(run, modules, config, config.steps)
        self.orders: list[list[int]] = []
        self.found: dict[str, Any] = {}
        for part in self.optimizer.parts:
            part.register_step_pre_hook(lambda *_: self._keep_gradient())

    def update(self, items: Sequence[Any], *given: Any, **more: Any) -> dict[str, float]:
        self.orders.append(list(items))
        totals = super().update(items, *given, **more)
        losses = {name: totals[name] for name in ("policy_loss", "value_loss", "loss")}
        self.found |= {f"{len(self.orders) - 1}/{name}": value for name, value in losses.items()}
        return totals

    def _keep_gradient(self) -> None:
        u = len(self.orders) - 1
        self.found |= {
            f"{u}/gradient/{plain(name)}": p.grad.numpy().copy()
            for name, p in self.optimizer.named.items()
            if p.grad is not None
        }


def plain(name: str) -> str:
    """A parameter's name in all three programs."""
    for ours, theirs in (("0.network.model.", "policy/"), ("0.network.", "policy/"), ("1.trunk.", "value/")):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name.replace("1.", "value/", 1)


def run(
    case: Case, weights: Weights, rows: Sequence[Mapping[str, Any]], *, sample_variance: bool = False
) -> tuple[dict[str, Array], list[list[int]]]:
    """What trueup computes, and the rows of each update. `sample_variance` undoes one difference from TRL."""
    torch.set_num_threads(1)
    policy, reference = (LanguageModel(network(role, case, weights), encoder()) for role in ("policy", "reference"))
    value = _value(case, weights)
    config, completions = _config(case), [_completion(row) for row in rows]
    score = _scores(case, weights, completions)
    seen = observe(completions, score, policy, reference, value, case.temperature, len(rows))
    experience = with_advantages(seen, config, case.kl_coefficient)
    if sample_variance:
        n = int(experience.mask_cl.sum())
        experience = replace(experience, advantage_cl=experience.advantage_cl * ((n - 1) / n) ** 0.5)
    with tempfile.TemporaryDirectory() as folder, Workspace.create(Path(folder) / "w") as ws:
        loop, approx_kl = _learn(ws, case, config, experience, policy, value)
    found = loop.found | _observed(case, experience) | {"approx_kl": approx_kl}
    found |= {f"weights/{plain(name)}": p.detach().numpy() for name, p in loop.optimizer.named.items()}
    return {name: np.asarray(each, dtype=np.float64) for name, each in found.items()}, loop.orders


def _learn(
    ws: Workspace, case: Case, config: RlConfig, experience: Experience, policy: LanguageModel, value: OwnValue
) -> tuple[Watched, float]:
    """All passes over the rollout, as the stage's one step."""
    with Run.start(ws, "rl", config.model_dump(mode="json"), {}, seed=0) as kept:
        loop = Watched(kept, [policy, value], config)
        for _ in loop.steps():
            stats = improve(loop, config, experience, policy, value, case.kl_coefficient)
        kept.finish({})
    return loop, stats["approx_kl"]


def _config(case: Case) -> RlConfig:
    given = {
        "steps": 1, "estimator": "ppo", "prompts_per_step": len(case.lengths), "samples_per_prompt": 1,
        "epochs": case.epochs, "minibatches": case.minibatches, "kl_coefficient": case.kl_coefficient,
        "kl_estimator": case.kl_estimator, "clip": case.clip, "gamma": case.gamma, "lam": case.lam,
        "score_scale": "none", "sampling": {"temperature": case.temperature},
        "value": {"model": "own", "coefficient": case.value_coefficient, "clip": case.value_clip},
        "guard": {"max_approx_kl": 1e9}, "optimizer": {**case.optimizer, "schedule": "constant"},
        "model": {"adapter": "none"},
        "run": {"threads": 1, "tensorboard": False, "micro_batch": len(case.lengths) // case.accumulation},
    }  # fmt: skip
    return RlConfig.model_validate(given)  # not read: a case sets everything, what has no effect in it too


def _value(case: Case, weights: Weights) -> OwnValue:
    head = ValueHead(case.shape.hidden)
    named = {name.removeprefix("head."): w for name, w in weights["value"].items() if name.startswith("head.")}
    head.load_state_dict({name: torch.tensor(w) for name, w in named.items()})
    return OwnValue(network("value", case, weights), head)


def _completion(row: Mapping[str, Any]) -> Completion:
    return Completion(
        Prompt.user(row["prompt"]), "", tuple(row["tokens"]), tuple(row["logprobs"]), finished=row["finished"]
    )


@torch.no_grad()
def _scores(case: Case, weights: Weights, completions: Sequence[Completion]) -> torch.Tensor:
    """The reward model's, on the very tokens: the texts of random words need not be read back as the same ones."""
    model = SequenceReward(network("reward", case, weights), encoder())
    tokens = [(model.encoder.prompt(c.prompt), c.tokens) for c in completions]
    raw = model(lay_out(side_by_side(tokens), model.pad_id))[:, 0].tolist()
    by_prompt = {completion.prompt.id: score for completion, score in zip(completions, raw, strict=True)}
    scorer = FakeScorer(lambda completion: by_prompt[completion.prompt.id])
    missing = None if case.missing_eos is None else -case.missing_eos
    return ScoreScale(scorer, {"score_mean": 0.0, "score_std": 1.0}, missing, "none")(completions)


def _observed(case: Case, experience: Experience) -> dict[str, Array]:
    mask = experience.mask_cl
    kl = per_token_penalty(experience.logp_cl, experience.reference_cl, mask, estimator=case.kl_estimator)
    at_tokens = {
        "logprobs": experience.logp_cl,
        "reference_logprobs": experience.reference_cl,
        "kl": kl,
        "rewards": token_rewards(experience.score_c, kl, mask, case.kl_coefficient),
        "values": experience.value_cl,
        "advantages": experience.advantage_cl,
        "returns": experience.return_cl,
    }
    return {name: each[mask].numpy() for name, each in at_tokens.items()} | {"score": experience.score_c.numpy()}
