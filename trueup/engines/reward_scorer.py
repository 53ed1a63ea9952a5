"""A reward model as a `Scorer`: completions in, normalised scores out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..config import Objective, Scoring
from ..errors import ConfigError, ModelError, nearest
from ..models.reward_model import RewardModel
from ..models.rows import Group, lay_out
from ..records import Completion, Score, by_prompt

PRICE = 10.0  # of one unit (a standard deviation, if normalised) below a floor


class RewardScorer:
    """One number a completion, and what it is made of: `parts` has each objective, and the members' `spread`.

    Each output is (raw - mean) / std with the constants stored in the model, then `scoring` makes them one. What is
    longer than the model reads is an error; with `cut`, as in RL, where text the policy wrote may have more tokens to
    another tokenizer, it is read as far as it fits.
    """

    def __init__(
        self,
        model: RewardModel,
        batch_size: int = 16,
        scoring: Scoring = Scoring(),  # noqa: B008
        cut: bool = False,
    ) -> None:
        self.model = model.eval()
        self.batch_size, self.scoring, self.cut = batch_size, scoring, cut
        self.cut_short = 0  # completions that were read only as far as they fit
        self._chosen = _chosen(model, scoring)

    @torch.no_grad()
    def score(self, completions: Sequence[Completion]) -> list[Score]:
        if not completions:
            return []
        raw = self.raw(completions)
        if self.model.outputs == 1 and not self.scoring.objectives:
            return [Score(float(value)) for value in self._scaled(raw)[:, 0]]
        return self._combined(raw)

    def lowest(self) -> RewardScorer:
        """An ensemble by its least content member: what a policy games is seldom the same in all of them."""
        least = self.scoring.model_copy(update={"ensemble": "min"})
        return RewardScorer(self.model, self.batch_size, least, self.cut)

    @torch.no_grad()
    def by_member(self, completions: Sequence[Completion]) -> torch.Tensor:
        """(completions, members): the whole score by each member alone, which is what they may disagree on."""
        return self._whole(self.raw(completions))

    @torch.no_grad()
    def raw(self, completions: Sequence[Completion]) -> torch.Tensor:
        """(completions, outputs)"""
        groups = [self._tokens(group) for group in by_prompt(completions)]
        device = next(self.model.parameters()).device
        parts = [
            self.model(lay_out(groups[i : i + self.batch_size], self.model.pad_id, self.model.layout).to(device))
            for i in range(0, len(groups), self.batch_size)
        ]
        return torch.cat(parts).float().cpu() if parts else torch.zeros(0, self.model.outputs)

    def fits(self, completion: Completion) -> bool:
        """Whether the model reads it whole."""
        encoder = self.model.encoder
        if encoder.too_long(completion.prompt, [completion.text], self.model.context):
            return False
        tokens = encoder.completion(completion.prompt, completion.text, finished=completion.finished)
        return len(encoder.prompt(completion.prompt)) + max(len(tokens), 1) <= self.model.context

    def _combined(self, raw: torch.Tensor) -> list[Score]:
        """Members are combined last, each a whole reward model of its own: what they disagree on is the whole score.
        A part is what one objective alone would be."""
        whole_cm = self._whole(raw)
        value_c, spread_c = of_members(whole_cm, self.scoring), whole_cm.std(1, correction=0)
        scores_com = self.model.by_objective(self._scaled(raw))
        part_oc = [of_members(scores_com[:, o], self.scoring) for o in range(len(self.model.objectives))]
        return [
            Score(
                float(value_c[c]),
                {name: float(part_oc[o][c]) for o, name in enumerate(self.model.objectives)}
                | ({"spread": float(spread_c[c])} if self.model.members > 1 else {}),
            )
            for c in range(len(value_c))
        ]

    def _whole(self, raw: torch.Tensor) -> torch.Tensor:
        return weigh(self.model.by_objective(self._scaled(raw)), self._chosen)

    def _scaled(self, raw: torch.Tensor) -> torch.Tensor:
        return self.model.normalised(raw) if self.scoring.normalise else raw

    def _tokens(self, group: Sequence[Completion]) -> Group:
        """Encoded here, by the reward model's own tokenizer, from text: the policy's tokens mean nothing to it."""
        encoder = self.model.encoder
        prompt = encoder.prompt(group[0].prompt)
        tokens = [encoder.completion(c.prompt, c.text, finished=c.finished) or (encoder.eos_id,) for c in group]
        room = self.model.context - len(prompt)
        if room < max(map(len, tokens)) and not (self.cut and room > 0):
            raise ModelError(
                f"a prompt and its completion are {len(prompt) + max(map(len, tokens))} tokens to the reward model, "
                f"whose context is {self.model.context}",
                "leave out the longest prompts, lower sampling.max_new_tokens, or use a reward model that reads more",
            )
        self.cut_short += sum(len(each) > room for each in tokens)
        return prompt, [encoder.shortened(each, room) if len(each) > room else each for each in tokens]


def weigh(scores_com: torch.Tensor, chosen: Sequence[tuple[int, Objective]]) -> torch.Tensor:
    """(completions, members): the weighted sum of objectives, less what is lacking to a floor many times over.

    The price of falling below a floor has no jump, so the way back up can be learnt, and is too high for another
    objective to pay.
    """
    total = torch.zeros_like(scores_com[:, 0])
    for o, each in chosen:
        total = total + each.weight * scores_com[:, o]
        if each.at_least is not None:
            total = total - PRICE * (each.at_least - scores_com[:, o]).clamp(min=0)
    return total


def of_members(scores_cm: torch.Tensor, scoring: Scoring) -> torch.Tensor:
    """One number from what the members of an ensemble say (arXiv 2310.02743)."""
    if scoring.ensemble == "min":
        return scores_cm.amin(1)
    mean = scores_cm.mean(1)
    return mean if scoring.ensemble == "mean" else mean - scoring.penalty * scores_cm.var(1, correction=0)


def _chosen(model: RewardModel, scoring: Scoring) -> list[tuple[int, Objective]]:
    """The objectives that count, with their places in the model."""
    places = {name: place for place, name in enumerate(model.objectives)}
    if model.unweighed and not scoring.objectives:
        raise ConfigError(
            f"this classifier has {len(places)} outputs ({', '.join(places)}), and which of them count is not said",
            """name them: --set scoring.objectives='[{name = "...", weight = 1.0}]'""",
        )
    wanted = scoring.objectives or tuple(Objective(name=name) for name in model.objectives)
    if unknown := [each.name for each in wanted if each.name not in places]:
        raise ConfigError(
            f"scoring.objectives names '{unknown[0]}'{nearest(unknown[0], places)}, which the reward model has not",
            f"its objectives are {', '.join(places)}",
        )
    return [(places[each.name], each) for each in wanted]
