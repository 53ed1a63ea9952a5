"""What both sides of `benchmarks gold` are given: one world's SFT policy, prompts and plain reward model.

TRL adds up whatever its reward model says. So that a KL coefficient means the same on both sides, it gets the reward
model with two scales in its head: the constants stored with it, and mean 0 and standard deviation 1 on the SFT policy's
own completions, which is what trueup's run measures for itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup import api, loading
from trueup.config import ModelSettings, Sampling
from trueup.demonstrate import Recipe
from trueup.inputs import chain
from trueup.records import Completion
from trueup.store import Workspace

PLAIN = "reward-plain"
MEASURED = 128  # completions, as many as trueup's run takes


@dataclass(frozen=True)
class Given:
    """Folders and files that both programs read, and the names of the same things in the workspace."""

    workspace: str
    policy: str
    reward_model: str
    head: str
    prompts: str
    policy_id: str
    reward_id: str
    prompts_id: str


def material(ws: Workspace, recipe: Recipe, seed: int, folder: Path) -> Given:
    folder.mkdir(parents=True, exist_ok=True)
    plain = plain_reward(ws, recipe, seed)
    head, prompts = folder / "head.safetensors", folder / "prompts.json"
    write_head(ws, plain, recipe, seed, head)
    encoder = _policy(ws).encoder
    posts = loading.read_prompts(ws.get("world-posts"))
    prompts.write_text(json.dumps([list(encoder.prompt(post)) for post in posts]))
    return Given(
        str(ws.path), chain(ws, ws.get("sft"))[-1], chain(ws, ws.get(plain))[-1], str(head), str(prompts),
        "sft", plain, "world-posts",
    )  # fmt: skip


def plain_reward(ws: Workspace, recipe: Recipe, seed: int) -> str:
    """The demo's reward model with the plain head: made once a workspace."""
    if PLAIN not in ws.names():
        settings: Mapping[str, Any] = {**recipe.reward, "steps": recipe.plain_reward_steps}
        run = {**settings.get("run", {}), "seed": seed, "threads": 1, "tensorboard": False}
        api.reward(ws, base="sft", data="judgements", kind="sequence", name=PLAIN, **{**settings, "run": run})
    return PLAIN


def write_head(ws: Workspace, reward: str, recipe: Recipe, seed: int, file: Path) -> None:
    from safetensors.torch import save_file

    from trueup.algo.scale import mean_and_std
    from trueup.engines.reward_scorer import RewardScorer
    from trueup.models.load import load_reward

    model: Any = load_reward(chain(ws, ws.get(reward)), ModelSettings())
    mean, std = mean_and_std(RewardScorer(model).raw(_written(ws, recipe, seed))[:, 0].double())
    save_file(folded(model.head.weight, model.head.bias, mean, std), file)


def folded(weight: Any, bias: Any, mean: float, std: float) -> dict[str, Any]:
    """A linear head that says (raw - mean) / std."""
    start = weight.new_zeros(len(weight)) if bias is None else bias
    return {"weight": (weight / std).detach().contiguous(), "bias": ((start - mean) / std).detach().contiguous()}


def _written(ws: Workspace, recipe: Recipe, seed: int) -> Sequence[Completion]:
    """What the SFT policy itself writes to the first posts."""
    from trueup.engines.sampler import Sampler

    posts = loading.read_prompts(ws.get("world-posts"))[:MEASURED]
    found: list[Completion] = Sampler(_policy(ws)).sample(posts, Sampling(**recipe.sampling), seed=seed + 5, n=1)
    return found


def _policy(ws: Workspace) -> Any:
    from trueup.models.load import load_model

    return load_model(chain(ws, ws.get("sft")), ModelSettings())
