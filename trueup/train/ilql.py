"""Implicit Q-learning on stored completions (ILQL, arXiv 2206.11871): value-based, no sampling, no reward passes.

A critic on the policy's trunk learns what each token was worth: two Q with slowly following targets, and a value that
an expectile loss draws towards the best of what was seen. The score of a completion is the reward of its last token. A
cross-entropy on Q (CQL) keeps tokens low that no completion took.

Departures: Q looks further ahead than one token (`lam`, as in GAE): the reward stands at the end, and one token a step
it would take hundreds of steps to reach the beginning. ILQL samples from the policy's logits plus beta (Q - V), so
every sampler would have to know the critic. Here the policy learns the same tilt (advantage-weighted regression, arXiv
1910.00177, as implicit Q-learning extracts its policy, arXiv 2110.06169): each token of the data is learnt with weight
exp((Q - V) / temperature). What is shipped is an ordinary model, which can be exported, served and trained further; the
critic stays behind.

    trueup train ilql --policy SFT_MODEL --data COMPLETIONS --reward REWARD_MODEL
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..algo.offline import advantage_weights, expectile_loss, td_targets
from ..algo.scale import mean_and_std
from ..config import IlqlConfig
from ..models.critic import Critic
from ..models.language_model import LanguageModel
from ..models.rows import Group, Rows, row_tokens
from ..runs.run import Run
from ..text.batches import batch_indices, in_turn
from .run_loop import Loop


class Rewarded(NamedTuple):
    """A prompt's completions and the reward of each."""

    group: Group
    rewards: tuple[float, ...]


def ilql(run: Run, config: IlqlConfig, policy: LanguageModel, train: list[Rewarded], heldout: list[Rewarded]) -> int:
    """Train `policy` in place and leave the best held-out weights in it; returns their step."""
    steps = config.steps or math.ceil(config.epochs * len(train) / config.batch_size)
    critic = critic_of(policy, config.run.seed)
    loop = Loop(run, [policy, critic], config, steps, head_lr=config.critic_lr)
    mean, std = mean_and_std(torch.tensor([r for item in train for r in item.rewards], dtype=torch.float64))
    if run.resume_folder is None:
        run.event("score scale", "rewards are shifted and scaled", mean=mean, std=std)
    train, heldout = ([scaled(item, mean, std) for item in side] for side in (train, heldout))
    for step in loop.steps():
        items = [train[i] for i in batch_indices(config.run.seed, step - 1, config.batch_size, len(train))]
        loop.log(**learn(loop, config, policy, critic, items))
        critic.follow(config.polyak)
        if loop.evaluation_due and heldout:
            loss = heldout_loss(config, policy, heldout, loop.rows_at_once)
            loop.log(heldout_loss=loss)
            loop.evaluated(-loss)
    return loop.restore_best()


def critic_of(policy: LanguageModel, seed: int) -> Critic:
    vocabulary = policy.network.get_output_embeddings().weight.shape[0]
    return Critic(policy.network.config.get_text_config().hidden_size, vocabulary, seed).to(policy.device)


def scaled(item: Rewarded, mean: float, std: float) -> Rewarded:
    """On the scale of the data, so that `temperature` means the same whatever the scores are."""
    return item._replace(rewards=tuple((reward - mean) / std for reward in item.rewards))


def learn(
    loop: Loop, config: IlqlConfig, policy: LanguageModel, critic: Critic, items: Sequence[Rewarded]
) -> dict[str, float]:
    """One optimizer step of policy and critic together; the policy's weights are those of the critic as it stands."""

    def loss_sum(part: Sequence[Rewarded]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        rows = policy.rows([item.group for item in part])
        hidden = policy.hidden(rows)
        logp = policy.logprobs(rows, hidden=hidden)[rows.mask_cl]
        reward_c = logp.new_tensor([reward for item in part for reward in item.rewards])
        on_critic, advantage, seen = critic_loss(config, critic, rows, hidden, reward_c)
        weight = advantage_weights(advantage, config.temperature, config.max_weight)
        on_policy = -(weight * logp).sum()
        seen |= {"policy_loss": on_policy, "weight": weight.sum(), "token_loss": -logp.sum()}
        return on_policy + config.critic_coefficient * on_critic, seen

    tokens = sum(len(c) for item in items for c in item.group[1])
    return loop.update(items, loss_sum, tokens, lambda item: row_tokens(item.group), by_length=not policy.layout.packed)


def critic_loss(
    config: IlqlConfig, critic: Critic, rows: Rows, hidden: torch.Tensor, reward_c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """The sum over tokens, the advantage of each of them (no gradient), and the parts of the loss."""
    before, token = hidden[rows.before_n], rows.target_n
    value, lower = critic.value(before), critic.lower(before, token)
    value_cl = value.new_zeros(rows.mask_cl.shape).masked_scatter(rows.mask_cl, value.detach())
    wanted = td_targets(reward_c, value_cl, rows.mask_cl, config.gamma, config.lam)[rows.mask_cl]
    advantage = lower - value.detach()
    parts = {
        "q_loss": ((critic.both(before, token) - wanted) ** 2).mean(0).sum(),
        "value_loss": expectile_loss(lower - value, config.expectile).sum(),
        "cql_loss": -torch.stack([head.log_share(before, token) for head in critic.q]).mean(0).sum(),
    }
    total = parts["q_loss"] + parts["value_loss"] + config.cql_coefficient * parts["cql_loss"]
    return total, advantage, {**parts, "value": value.detach().sum(), "advantage": advantage.sum()}


@torch.no_grad()
def heldout_loss(config: IlqlConfig, policy: LanguageModel, items: Sequence[Rewarded], batch: int) -> float:
    """Mean loss of a token, completions weighed by their rewards: a measure that does not move with the critic."""
    total, count = 0.0, 0.0
    for part in in_turn(len(items), batch):
        rows = policy.rows([items[i].group for i in part])
        logp_cl = policy.logprobs(rows)
        reward_c = logp_cl.new_tensor([reward for i in part for reward in items[i].rewards])
        weight_c = advantage_weights(reward_c, config.temperature, config.max_weight)
        total -= float((weight_c * logp_cl.sum(1)).sum())
        count += float((weight_c * rows.mask_cl.sum(1)).sum())
    return total / count
