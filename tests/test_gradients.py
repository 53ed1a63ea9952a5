"""The first gradient of every training stage, written out by hand.

Computed a second time in plain loops, one unpadded row at a time, straight from the formulas of the papers. Whatever a
stage does with layouts, masks, minibatches and micro-batches, that is what must come out.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from small import settings

from trueup.engines.fake import FakeScorer
from trueup.engines.sampler import Sampler
from trueup.errors import RunError
from trueup.models.language_model import LanguageModel
from trueup.models.load import new_reward
from trueup.models.rows import Group
from trueup.models.value import TrunkValue
from trueup.records import Judgement, Prompt
from trueup.train import rl as rl_module
from trueup.train.judged import judged
from trueup.train.pretrain import pretrain
from trueup.train.reward import reward
from trueup.train.rl import rl
from trueup.train.run_loop import Loop
from trueup.train.sft import sft

GROUPS: list[Group] = [
    ((5, 11, 3, 7, 19), [(9, 30, 2), (4, 8, 8, 6, 2)]),
    ((40, 41), [(42, 2)]),
    ((21, 0, 22, 23), [(0, 24, 0, 2)]),  # the pad token as ordinary text
    ((50, 51, 52, 53, 54, 55), [(58, 59, 60, 61, 62, 63, 2), (64, 2), (65, 66, 2)]),
]


def by_hand(modules: list[torch.nn.Module], loss: torch.Tensor) -> dict[str, torch.Tensor]:
    for module in modules:
        module.zero_grad()
    loss.backward()
    named = [(f"{i}.{name}", p) for i, module in enumerate(modules) for name, p in module.named_parameters()]
    return {name: p.grad for name, p in named if p.grad is not None}


def assert_same_gradient(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Up to float32 rounding, which the RMSNorm of transformers and the value head bring in."""
    assert found.keys() == expected.keys()
    scale = max(float(g.abs().max()) for g in expected.values())
    for name in expected:
        assert float((found[name] - expected[name]).abs().max()) <= 1e-6 * scale, name


def alone(model: LanguageModel, prompt, completion, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob of each completion token and the state before it: one row, no padding, straight through the network."""
    tokens, p = torch.tensor([[*prompt, *completion]]), len(prompt)
    states = model.network.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state[0]
    logits = model.network(input_ids=tokens, use_cache=False).logits[0] / temperature
    logprobs = [logits[p + t - 1, token] - logits[p + t - 1].logsumexp(-1) for t, token in enumerate(completion)]
    return torch.stack(logprobs), states[p - 1 : -1]


@pytest.fixture(params=(0, 1, 3))
def micro_batch(request) -> int:
    """0 is the whole batch at once: splitting it must not change the gradient."""
    return request.param


def test_sft_is_the_mean_over_completion_tokens_of_the_whole_batch(make_model, train, gradient, micro_batch):
    """Not a mean of row means, which would weight the tokens of short rows more; prompt tokens are not learnt."""
    model = make_model().double()
    by_hand_model = copy.deepcopy(model)
    train(sft, settings("sft", steps=1, batch_size=4, run={"micro_batch": micro_batch}), model, GROUPS, [])
    logprobs = [alone(by_hand_model, p, c)[0] for p, completions in GROUPS for c in completions]
    assert_same_gradient(gradient(), by_hand([by_hand_model], -torch.cat(logprobs).mean()))


def test_pretraining_is_the_weighted_mean_over_all_tokens(make_model, train, gradient, micro_batch):
    """A prompt with several completions is learnt once; its first token has nothing before it to be predicted from."""
    model = make_model().double()
    by_hand_model = copy.deepcopy(model)
    config = settings("pretrain", steps=1, batch_size=4, completion_weight=3.0, run={"micro_batch": micro_batch})
    run = train(pretrain, config, model, GROUPS, [])
    completions = torch.cat([alone(by_hand_model, p, c)[0] for p, cs in GROUPS for c in cs])
    prompts = torch.cat([alone(by_hand_model, p[:1], p[1:])[0] for p, _ in GROUPS])
    loss = -(prompts.sum() + 3 * completions.sum()) / (len(prompts) + 3 * len(completions))
    assert_same_gradient(gradient(), by_hand([by_hand_model], loss))
    assert run.metrics()[0]["completion_loss"] == pytest.approx(-float(completions.mean().detach()), rel=1e-5)


def test_reward_is_the_mean_over_prompts_of_the_mean_over_pairs(checkpoint, encoder, train, gradient, micro_batch):
    """-log sigmoid(better - worse) for every pair of a ranking; three pairs of a prompt weigh as much as one."""
    rows = [
        Judgement(Prompt.user("the cat"), ("rain", "the old town", "red"), (3, 1, 2), "ann", "human"),
        Judgement(Prompt.user("birds"), ("a mat", "rain"), (1, 1), "ann", "human"),
        Judgement(Prompt.user("a dog"), ("sat", "the house"), (2, 1), "bob", "human"),
    ]
    items, _ = judged(encoder, rows, 96)
    model = new_reward("sequence", [str(checkpoint("Llama"))], settings("reward").model).double()
    by_hand_model = copy.deepcopy(model)
    train(reward, settings("reward", steps=1, batch_size=3, run={"micro_batch": micro_batch}), model, items, [])

    def score(prompt, text):
        tokens = torch.tensor([[*encoder.prompt(prompt), *encoder.completion(prompt, text)]])
        states = by_hand_model.network.base_model(input_ids=tokens).last_hidden_state[0]
        return states[-1] @ by_hand_model.network.score.weight[0]

    losses = []
    for row in rows:
        s = [score(row.prompt, text) for text in row.completions]
        pairs = [
            -(t * torch.log(torch.sigmoid(s[i] - s[j])) + (1 - t) * torch.log(torch.sigmoid(s[j] - s[i])))
            for i, j, t in row.pairs()
        ]
        losses.append(sum(pairs) / len(pairs))
    expected = by_hand([by_hand_model], sum(losses) / len(losses))
    expected["1.weight"] = expected.pop(
        "0.network.score.weight"
    )  # the head has a learning rate, so a place, of its own
    assert_same_gradient(gradient(), expected)


class Critic(TrunkValue):
    """A value head that already says something; a fresh one is zero everywhere and would hide mistakes."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__(width, seed)
        torch.nn.init.normal_(self.outer.weight, std=0.3, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("gamma, lam, whiten, missing", [(1.0, 0.95, True, -1.0), (0.9, 0.5, False, None)])
def test_ppo_by_hand(make_model, train, gradient, micro_batch, monkeypatch, gamma, lam, whiten, missing):
    """Rewards, advantages, returns and both losses in loops over Python floats, from completions to the gradient.

    Two prompts and three places in the rollout: one prompt comes twice, and its completions must keep their own scores.
    """
    monkeypatch.setattr(rl_module, "trunk_value", lambda policy, seed: Critic(32, seed))
    policy, reference = make_model(seed=0).double(), make_model(seed=1).double()
    with torch.no_grad():
        policy.network.lm_head.weight[policy.encoder.eos_id] *= 3  # so that completions end, at different lengths
    model, critic = copy.deepcopy(policy), Critic(32, 0)
    prompts = [Prompt.user("the cat"), Prompt.user("a dog ran")]
    seen = []

    def score(completion):
        seen.append(completion)
        return len(completion.text) / 10

    beta, temperature = 0.3, 0.8
    config = settings(
        "rl", steps=1, prompts_per_step=3, samples_per_prompt=2, epochs=1, minibatches=1, kl_coefficient=beta,
        gamma=gamma, lam=lam, whiten=whiten, missing_eos_score=missing, score_scale="none", value={"coefficient": 0.5},
        sampling={"max_new_tokens": 5, "temperature": temperature}, run={"micro_batch": micro_batch},
    )  # fmt: skip
    run = train(rl, config, policy, reference, Sampler(policy), FakeScorer(score), prompts, [])

    assert len(seen) == 6 and len({len(c.tokens) for c in seen}) > 2 and len({c.finished for c in seen}) == 2
    logprobs, values, advantages, returns, kls, scores = [], [], [], [], [], []
    for completion in seen:
        prompt = model.encoder.prompt(completion.prompt)
        logp, states = alone(model, prompt, completion.tokens, temperature)
        ref = alone(reference, prompt, completion.tokens, temperature)[0]
        value = critic.outer(torch.tanh(critic.inner(states.float())))[:, 0]
        kl = [min(max(p - r, -10.0), 10.0) for p, r in zip(logp.tolist(), ref.tolist(), strict=True)]
        end = len(completion.text) / 10 if completion.finished or missing is None else missing
        rewards = [-beta * k for k in kl]
        rewards[-1] += end
        v, following, advantage = [*value.tolist(), 0.0], 0.0, []
        for t in reversed(range(len(kl))):
            following = rewards[t] + gamma * v[t + 1] - v[t] + gamma * lam * following
            advantage.insert(0, following)
        logprobs += [*logp]
        values += [*value]
        advantages += advantage
        returns += [a + b for a, b in zip(advantage, v, strict=False)]
        kls.append(sum(kl))
        scores.append(end)
    if whiten:
        mean = sum(advantages) / len(advantages)
        spread = math.sqrt(sum((a - mean) ** 2 for a in advantages) / len(advantages))
        advantages = [(a - mean) / (spread + 1e-8) for a in advantages]
    ratios = [torch.exp(p - p.detach()) for p in logprobs]
    on_policy = -sum(a * r for a, r in zip(advantages, ratios, strict=True)) / len(ratios)
    on_value = sum((v - r) ** 2 for v, r in zip(values, returns, strict=True)) / 2 / len(values)
    assert_same_gradient(gradient(), by_hand([model, critic], on_policy + 0.5 * on_value))
    logged = run.metrics()[0]
    assert logged["score"] == pytest.approx(sum(scores) / 6, rel=1e-5)
    assert logged["kl"] == pytest.approx(sum(kls) / 6, rel=1e-5)
    assert logged["length"] == pytest.approx(len(ratios) / 6)
    assert logged["unfinished"] == sum(not completion.finished for completion in seen) / 6
    assert logged["value_loss"] == pytest.approx(float(on_value.detach()), rel=1e-5)


@pytest.mark.parametrize("stage", ("pretrain", "sft", "reward", "rl"))
def test_shards_that_know_the_count_of_all_add_up_to_one_process(
    make_model, checkpoint, encoder, train, monkeypatch, stage
):
    """What data parallelism needs of the loop: each process sums over its shard, all divide by the count of the whole
    batch, and the gradients are added. Shards of unequal size, with rows of unequal length."""
    accumulate, compared = Loop._accumulate, []

    def gradients(loop):
        return {name: p.grad.clone() for name, p in loop.optimizer.named.items() if p.grad is not None}

    def sharded(self, batches, sums, count):
        items, parts = [item for batch in batches for item in batch], []
        for shard in (items[:1], items[1:]):
            totals = accumulate(self, [shard], sums, count)
            parts.append((gradients(self), totals["loss"]))
        totals = accumulate(self, batches, sums, count)
        (one, loss_one), (other, loss_other) = parts
        assert_same_gradient({name: one[name] + other[name] for name in one}, gradients(self))
        assert loss_one + loss_other == pytest.approx(totals["loss"], rel=1e-6)
        compared.append(max(float(g.abs().max()) for g in one.values()))
        return totals

    monkeypatch.setattr(Loop, "_accumulate", sharded)
    if stage in ("pretrain", "sft"):
        train(
            {"pretrain": pretrain, "sft": sft}[stage],
            settings(stage, steps=1, batch_size=4),
            make_model().double(),
            GROUPS,
            [],
        )
    elif stage == "reward":
        prompts = [Prompt.user(text) for text in ("the cat", "birds sang in the old town", "a dog")]
        rows = [Judgement(p, ("rain", "the old town", "red"), (3, 1, 2), "ann", "human") for p in prompts]
        model = new_reward("sequence", [str(checkpoint("Llama"))], settings("reward").model).double()
        train(reward, settings("reward", steps=1, batch_size=3), model, judged(encoder, rows, 96)[0], [])
    else:
        policy, scorer = make_model().double(), FakeScorer(lambda completion: len(completion.text))
        config = settings("rl", steps=1, prompts_per_step=3, samples_per_prompt=2, sampling={"max_new_tokens": 5})
        prompts = [Prompt.user("the cat"), Prompt.user("a dog ran to the red house"), Prompt.user("birds")]
        train(rl, config, policy, make_model(seed=1).double(), Sampler(policy), scorer, prompts, [])
    assert compared and min(compared) > 0, "the first shard has something to teach"


def test_more_than_one_process_is_refused(make_model, train, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="started with WORLD_SIZE=2, but stages run in one process") as caught:
        train(sft, settings("sft", steps=1), make_model(), GROUPS, [])
    assert "without torchrun" in caught.value.hint
