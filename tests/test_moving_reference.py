"""A reference that follows the policy: by how much, from when, and through rollbacks and settings that do not fit."""

from __future__ import annotations

import itertools

import pytest
import torch
from small import nouns_asked, settings

from trueup import config as configs
from trueup.engines.fake import FakeScorer
from trueup.engines.sampler import Sampler
from trueup.errors import ConfigError
from trueup.train.rl import follow, rl

ROLLOUT = {"prompts_per_step": 4, "samples_per_prompt": 2, "score_scale": "none", "sampling": {"max_new_tokens": 5}}


def weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def run(make_model, train, heldout=(), score=lambda completion: float(len(completion.tokens)), **given):
    policy, reference = make_model(seed=0), make_model(seed=0)
    config = settings("rl", **{**ROLLOUT, "optimizer": {"lr": 1e-2}, "guard": {"rollback": False}, **given})
    done = train(rl, config, policy, reference, Sampler(policy), FakeScorer(score), nouns_asked(), list(heldout))
    return done, policy, reference


def test_it_goes_its_share_of_the_way():
    policy, reference = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    expected = 0.75 * weights(reference) + 0.25 * weights(policy)
    before = weights(policy)
    follow(reference, policy, 0.25)  # type: ignore[arg-type]
    assert torch.allclose(weights(reference), expected) and torch.equal(weights(policy), before)


def test_a_frozen_reference_stays_and_one_that_goes_all_the_way_is_the_policy(make_model, train):
    start = weights(make_model(seed=0))
    _, policy, reference = run(make_model, train, steps=2)
    assert torch.equal(weights(reference), start) and not torch.equal(weights(policy), start)
    moved, policy, reference = run(make_model, train, steps=3, reference_rate=1.0)
    assert torch.equal(weights(reference), weights(policy))
    assert all(row["kl"] == pytest.approx(0.0, abs=1e-4) for row in moved.metrics()), "each step starts at KL 0"


def test_the_kl_of_a_step_is_to_where_the_reference_is_by_then(make_model, train):
    """The first step cannot tell them apart; afterwards one that followed is nearer."""
    frozen, *_ = run(make_model, train, steps=3)
    followed, *_ = run(make_model, train, steps=3, reference_rate=0.5)
    (_, *then), (_, *now) = ([row["kl_k3"] for row in done.metrics()] for done in (frozen, followed))
    assert frozen.metrics()[0]["kl"] == followed.metrics()[0]["kl"] and now[0] < then[0]


def test_it_is_in_the_checkpoint_and_comes_back_with_the_weights(make_model, train):
    """Every score is below the one before: the run ends with the start's weights, and the reference is theirs again."""
    start, fall = weights(make_model(seed=0)), itertools.count()
    guard = {"rollback": False, "evaluation_prompts": 4}
    done, policy, reference = run(
        make_model, train, nouns_asked()[:4], lambda completion: -float(next(fall)), steps=4, reference_rate=0.5,
        kl_coefficient=0.0, guard=guard, run={"evaluate_every": 2},
    )  # fmt: skip
    assert done.best()[0] == 0
    assert torch.equal(weights(policy), start) and torch.equal(weights(reference), start)
    assert all((folder / "follower.safetensors").is_file() for _, folder in done.checkpoints())


def test_with_lora_there_is_nothing_to_move():
    with pytest.raises(ConfigError, match="reference_rate does not fit: with LoRA"):
        configs.load("rl", flags={"reference_rate": 0.1, "model.adapter": "lora"})
    assert configs.load("rl", flags={"reference_rate": 0.1, "model.adapter": "none"}).reference_rate == 0.1
