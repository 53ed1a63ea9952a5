"""The gold win rate of kept weights over SFT: outside of what is timed, and by one sampler for both sides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trueup import loading
from trueup.config import ModelSettings, Sampling
from trueup.demonstrate import Recipe
from trueup.inputs import chain
from trueup.records import Completion, by_prompt
from trueup.stats.winrate import winrate
from trueup.store import Workspace
from trueup.world import GoldScorer

SEED = 4321  # of every evaluation, so that curves differ by their weights


class Eye:
    """Holds what every evaluation shares: the posts, and how good the SFT policy's own completions to them are."""

    def __init__(self, ws: Workspace, recipe: Recipe, posts: int) -> None:
        from trueup.engines.sampler import Sampler
        from trueup.models.device import use_threads
        from trueup.models.load import load_model

        use_threads(1)
        self.model = load_model(chain(ws, ws.get("sft")), ModelSettings())
        self.sampler, self.sampling = Sampler(self.model), Sampling(**recipe.sampling)
        groups = by_prompt(loading.read_completions(ws.get("answers")))[:posts]
        self.prompts = [group[0].prompt for group in groups]
        self.beside = [_gold(group) for group in groups]

    def win_rate(self, weights: str) -> dict[str, Any]:
        """Each post's completion against all that the SFT policy wrote to it; ties count half."""
        self._take(weights)
        gold = _gold(self.sampler.sample(self.prompts, self.sampling, seed=SEED, n=1))
        pairs = [(mine, theirs, i) for i, mine in enumerate(gold) for theirs in self.beside[i]]
        mine, theirs, post = zip(*pairs, strict=True)
        rate = winrate(mine, theirs, post)
        return {"win_rate": rate.value, "ci": list(rate.ci), "gold": sum(gold) / len(gold)}

    def _take(self, file: str) -> None:
        import torch
        from safetensors.torch import load_file

        stored: Mapping[str, Any] = load_file(file)
        own = dict(self.model.network.named_parameters())
        assert stored.keys() == own.keys(), "both sides train the same network"
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(stored[name])


def _gold(completions: list[Completion]) -> list[float]:
    return [score.value for score in GoldScorer().score(completions)]
