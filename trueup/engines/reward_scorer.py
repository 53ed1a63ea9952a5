"""A reward model as a `Scorer`: completions in, normalised scores out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import ModelError
from ..models.reward_model import RewardModel
from ..models.rows import Group, lay_out
from ..records import Completion, Score, by_prompt


class RewardScorer:
    """Scores are (raw - mean) / std with the constants stored in the model."""

    def __init__(self, model: RewardModel, batch_size: int = 16) -> None:
        self.model = model.eval()
        self.batch_size = batch_size

    @torch.no_grad()
    def score(self, completions: Sequence[Completion]) -> list[Score]:
        return [Score(float(value)) for value in self.model.normalised(self.raw(completions))]

    @torch.no_grad()
    def raw(self, completions: Sequence[Completion]) -> torch.Tensor:
        groups = [self._tokens(group) for group in by_prompt(completions)]
        device = next(self.model.parameters()).device
        parts = [
            self.model(
                lay_out(groups[i : i + self.batch_size], self.model.pad_id, shared=self.model.shares_prompts).to(device)
            )
            for i in range(0, len(groups), self.batch_size)
        ]
        return torch.cat(parts).float().cpu() if parts else torch.zeros(0)

    def _tokens(self, group: Sequence[Completion]) -> Group:
        """Encoded here, by the reward model's own tokenizer, from text: the policy's tokens mean nothing to it."""
        encoder = self.model.encoder
        prompt = encoder.prompt(group[0].prompt)
        tokens = [encoder.completion(c.prompt, c.text, finished=c.finished) or (encoder.eos_id,) for c in group]
        self._check_length(len(prompt) + max(map(len, tokens)))
        return prompt, tokens

    def _check_length(self, longest: int) -> None:
        if longest > self.model.context:
            raise ModelError(
                f"a prompt and its completion are {longest} tokens to the reward model, whose context is "
                f"{self.model.context}",
                "leave out the longest prompts, lower sampling.max_new_tokens, or use a reward model that reads more",
            )
