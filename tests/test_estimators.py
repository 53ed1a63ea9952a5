"""The first gradient of every estimator and of everything that is mixed in, written out by hand.

In loops over Python floats, one unpadded row at a time, from the papers' formulas; `test_gradients.py` does PPO.
"""

from __future__ import annotations

import copy
import math
import statistics

import pytest
import torch
from small import nouns_asked, settings
from test_gradients import GROUPS, alone, assert_same_gradient, by_hand

from trueup.algo.kl import adapted
from trueup.engines.fake import FakeScorer
from trueup.engines.sampler import Sampler
from trueup.records import Prompt
from trueup.train.rl import rl

BETA, TEMPERATURE, EACH = 0.3, 0.8, 3
PROMPTS = [Prompt.user("the cat"), Prompt.user("a dog ran")]


@pytest.fixture(params=(0, 2))
def micro_batch(request) -> int:
    return request.param


class Seen:
    """A first step of RL, and all its completions once more: log-probs under policy and reference, token by token."""

    def __init__(self, make_model, train, gradient, demonstrations=(), **given) -> None:
        policy, reference = make_model(seed=0).double(), make_model(seed=1).double()
        with torch.no_grad():
            policy.network.lm_head.weight[policy.encoder.eos_id] *= 3  # so that completions end, at different lengths
        self.model, self.completions = copy.deepcopy(policy), []
        config = settings(
            "rl", steps=1, prompts_per_step=2, samples_per_prompt=EACH, epochs=1, minibatches=1, kl_coefficient=BETA,
            missing_eos_score=None, score_scale="none", sampling={"max_new_tokens": 5, "temperature": TEMPERATURE},
            **given,
        )  # fmt: skip
        self.run = train(
            rl, config, policy, reference, Sampler(policy), FakeScorer(self._score), PROMPTS, [], {}, None,
            demonstrations,
        )  # fmt: skip
        self.gradient = gradient()
        self.scores = [len(c.text) / 10 for c in self.completions]
        self.logps, self.references, self.states = [], [], []
        for c in self.completions:
            prompt = self.model.encoder.prompt(c.prompt)
            logp, states = alone(self.model, prompt, c.tokens, TEMPERATURE)
            self.logps.append(logp)
            self.states.append(states)
            self.references.append(alone(reference, prompt, c.tokens, TEMPERATURE)[0].detach())
        assert len({len(c.tokens) for c in self.completions}) > 2, "rows of different length, or nothing is shown"

    def _score(self, completion):
        self.completions.append(completion)
        return len(completion.text) / 10

    @property
    def kls(self) -> list[list[float]]:
        pairs = zip(self.logps, self.references, strict=True)
        return [[min(max(p - r, -10.0), 10.0) for p, r in zip(a.tolist(), b.tolist(), strict=True)] for a, b in pairs]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.logps))

    def policy_loss(self, advantages: list[list[float]]) -> torch.Tensor:
        """The ratio is 1, so clipping does nothing: minus the advantage times the ratio."""
        terms = [
            -a * torch.exp(p - p.detach())
            for row, logp in zip(advantages, self.logps, strict=True)
            for a, p in zip(row, logp, strict=True)
        ]
        return sum(terms) / self.tokens

    def check(self, loss: torch.Tensor) -> None:
        assert_same_gradient(self.gradient, by_hand([self.model], loss))


def whitened(rows: list[list[float]]) -> list[list[float]]:
    flat = [x for row in rows for x in row]
    mean, spread = statistics.fmean(flat), statistics.pstdev(flat)
    return [[(x - mean) / (spread + 1e-8) for x in row] for row in rows]


def groups(values: list[float]) -> list[list[float]]:
    return [values[i : i + EACH] for i in range(0, len(values), EACH)]


@pytest.mark.parametrize("whiten", (None, True))
def test_rloo(make_model, train, gradient, micro_batch, whiten):
    seen = Seen(make_model, train, gradient, estimator="rloo", whiten=whiten, run={"micro_batch": micro_batch})
    paid = [score - BETA * sum(kl) for score, kl in zip(seen.scores, seen.kls, strict=True)]
    apart = [own - (sum(group) - own) / (EACH - 1) for group in groups(paid) for own in group]
    advantages = [[a] * len(logp) for a, logp in zip(apart, seen.logps, strict=True)]
    seen.check(seen.policy_loss(whitened(advantages) if whiten else advantages))
    assert "value_loss" not in seen.run.metrics()[0], "there is no value model"


@pytest.mark.parametrize("divide", (True, False))
def test_grpo(make_model, train, gradient, micro_batch, divide):
    """With its KL in the loss as k3, as DeepSeek has it; with and without the division by the group's std."""
    seen = Seen(
        make_model, train, gradient, estimator="grpo", group_std=divide, kl_in="loss", kl_estimator="k3",
        run={"micro_batch": micro_batch},
    )  # fmt: skip
    apart = []
    for group in groups(seen.scores):
        spread = statistics.pstdev(group) + 1e-4 if divide else 1.0
        apart += [(own - statistics.fmean(group)) / spread for own in group]
    loss = seen.policy_loss([[a] * len(logp) for a, logp in zip(apart, seen.logps, strict=True)])
    k3 = [torch.exp(r - p) - 1 - (r - p) for a, b in zip(seen.logps, seen.references, strict=True)
          for p, r in zip(a, b, strict=True)]  # fmt: skip
    seen.check(loss + BETA * sum(k3) / seen.tokens)
    assert seen.run.metrics()[0]["kl_loss"] == pytest.approx(float(sum(k3).detach()) / seen.tokens, rel=1e-5)


@pytest.mark.parametrize("gamma", (1.0, 0.9))
def test_reinforce_plus_plus(make_model, train, gradient, gamma):
    """What is still to come, discounted, then whitened over the whole rollout."""
    seen = Seen(make_model, train, gradient, estimator="reinforce++", gamma=gamma)
    advantages = []
    for score, kl in zip(seen.scores, seen.kls, strict=True):
        rewards = [-BETA * k for k in kl]
        rewards[-1] += score
        advantages.append([
            sum(gamma**n * reward for n, reward in enumerate(rewards[t:])) for t in range(len(rewards))
        ])  # fmt: skip
    seen.check(seen.policy_loss(whitened(advantages)))


@pytest.mark.parametrize("estimator", ("k2", "k3"))
def test_other_estimates_of_the_kl_in_the_reward(make_model, train, gradient, estimator):
    seen = Seen(make_model, train, gradient, estimator="reinforce++", kl_estimator=estimator)
    prices = {"k2": lambda r: r * r / 2, "k3": lambda r: math.exp(-r) - 1 + r}
    advantages = []
    for score, logp, ref in zip(seen.scores, seen.logps, seen.references, strict=True):
        rewards = [-BETA * min(prices[estimator](float(r)), 10.0) for r in logp.detach() - ref]
        rewards[-1] += score
        advantages.append([sum(rewards[t:]) for t in range(len(rewards))])
    seen.check(seen.policy_loss(whitened(advantages)))


def test_entropy_and_demonstrations_beside(make_model, train, gradient, micro_batch):
    """The whole distribution's entropy at each token, and the mean loss of demonstrations, however they are split."""
    texts = [(prompt, completions[:1]) for prompt, completions in GROUPS[:1]]
    seen = Seen(
        make_model, train, gradient, texts, estimator="rloo", entropy_bonus=0.2, sft_coefficient=0.7,
        run={"micro_batch": micro_batch},
    )  # fmt: skip
    paid = [score - BETA * sum(kl) for score, kl in zip(seen.scores, seen.kls, strict=True)]
    apart = [own - (sum(group) - own) / (EACH - 1) for group in groups(paid) for own in group]
    loss = seen.policy_loss([[a] * len(logp) for a, logp in zip(apart, seen.logps, strict=True)])
    entropy = 0
    for states in seen.states:
        logits = seen.model.network.lm_head(states) / TEMPERATURE
        p = logits.softmax(-1)
        entropy = entropy - (p * p.log()).sum()
    ((prompt, (answer,)),) = texts
    on_text = -alone(seen.model, prompt, answer)[0].mean()
    seen.check(loss - 0.2 * entropy / seen.tokens + 0.7 * on_text)
    logged = seen.run.metrics()[0]
    assert logged["sft_loss"] == pytest.approx(float(on_text.detach()), rel=1e-5)
    assert logged["policy_entropy"] == pytest.approx(float(entropy.detach()) / seen.tokens, rel=1e-5)


# --- the coefficient that is adapted


def test_the_coefficient_goes_up_above_the_target_and_down_below_it():
    assert adapted(0.1, kl=2.0, target=2.0, share=0.1) == 0.1
    assert adapted(0.1, kl=2.2, target=2.0, share=0.1) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert adapted(0.1, kl=99.0, target=2.0, share=0.1) == pytest.approx(0.1 * 1.02), "never more than a fifth"
    assert adapted(0.1, kl=-1.0, target=2.0, share=0.1) == pytest.approx(0.1 * 0.98)


@pytest.mark.parametrize("start", (0.4, 2.0))
def test_a_target_is_kept(talker, train, start):
    """A scorer that pays without end, from a coefficient that is too small and from one that is too large."""
    policy = talker()
    config = settings(
        "rl", steps=60, estimator="rloo", prompts_per_step=8, samples_per_prompt=8, kl_coefficient=start,
        kl_target=1.0, kl_horizon=2.0, missing_eos_score=None, score_scale="none",
        optimizer={"lr": 1e-3, "schedule": "constant"}, sampling={"max_new_tokens": 6},
    )  # fmt: skip
    likes = FakeScorer(lambda c: c.text.count("e"))
    rows = train(rl, config, policy, talker(), Sampler(policy), likes, nouns_asked(), []).metrics()
    assert statistics.fmean(row["kl"] for row in rows[-30:]) == pytest.approx(1.0, rel=0.35)
    assert rows[0]["kl_coefficient"] == start and 0.5 < rows[-1]["kl_coefficient"] < 1.2, "where it would have to be"
