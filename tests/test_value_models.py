"""Where the value model lives, and several adapters on one frozen base: each computes what a copy of its own would."""

from __future__ import annotations

import copy
import itertools
import shutil

import pytest
import torch
from small import add_small_data, random_network, settings

import trueup
from trueup.config import ModelSettings, Sampling
from trueup.config import load as load_config
from trueup.engines.fake import FakeScorer
from trueup.engines.reward_scorer import RewardScorer
from trueup.engines.sampler import Sampler
from trueup.errors import ConfigError, ModelError
from trueup.models.adapters import reference, switched
from trueup.models.language_model import LanguageModel, run_trunk
from trueup.models.load import load_model, load_reward, new_reward, save_model, save_reward
from trueup.models.reward_model import AdapterReward, SequenceReward
from trueup.models.rows import Group, Layout
from trueup.models.value import OwnValue, TrunkValue, ValueModel, own_value, reward_value, trunk_value
from trueup.records import Completion, Prompt
from trueup.runs import runs
from trueup.train import rl as rl_module
from trueup.train.rl import rl

LORA = ModelSettings(adapter="lora", lora_rank=4, device="cpu")
PLAIN = ModelSettings(adapter="none", device="cpu")
GROUPS: list[Group] = [((5, 11, 3, 7), [(9, 30, 2), (4, 8, 8, 6, 2)]), ((40, 41), [(42, 2)])]
PROMPTS = [Prompt.user("the cat"), Prompt.user("a dog ran to the red house")]
COMPLETIONS = [Completion(p, text) for p in PROMPTS for text in ("rain", "the old town", "")]


def disturb(parameters, seed: int) -> None:
    """As after some training: what has just been added changes nothing, which would let every test pass."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def learning(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def value_of(where: str, policy: LanguageModel, reward: SequenceReward, model_settings: ModelSettings) -> ValueModel:
    if where == "reward":
        return reward_value(policy, reward, model_settings, seed=0)
    return {"own": own_value, "trunk": trunk_value}[where](policy, 0)


def logprobs(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.logprobs(model.rows(GROUPS))


def values(value: ValueModel, policy: LanguageModel) -> torch.Tensor:
    rows = policy.rows(GROUPS)
    with torch.no_grad():
        return value(rows, policy.hidden(rows))[rows.mask_cl]


@pytest.fixture(params=("Llama", "GPT2"))
def folder(request, checkpoint) -> str:
    return str(checkpoint(request.param))


def trained_policy(folder: str) -> LanguageModel:
    policy = load_model([folder], LORA, trainable=True, seed=1)
    disturb(learning(policy), 7)
    return policy


@pytest.fixture
def policy(folder) -> LanguageModel:
    return trained_policy(folder)


def trained_reward(base: str, model_settings: ModelSettings) -> SequenceReward:
    model = new_reward("sequence", [base], model_settings, seed=3)
    disturb(learning(model), 9)
    model.mean, model.std = [0.4], [1.7]
    return model


@pytest.fixture
def reward(folder, tmp_path) -> tuple[SequenceReward, list[str]]:
    """A LoRA reward model as it was trained, with a base of its own; and the chain to load it from."""
    model = trained_reward(folder, LORA)
    save_reward(model, tmp_path)
    return model, [folder, str(tmp_path)]


def scores(model) -> torch.Tensor:
    return RewardScorer(model).raw(COMPLETIONS)[:, 0]


# --- one base, several adapters


def test_each_role_computes_what_it_would_on_a_copy_of_its_own(policy, folder, reward):
    """Policy, reference, reward and value bit for bit; a reward model merged into its base but for rounding."""
    alone, chain = reward
    on, base = logprobs(policy), logprobs(load_model([folder], PLAIN))
    shared = load_reward(chain, LORA, beside=policy)
    assert isinstance(shared, AdapterReward)
    value = reward_value(policy, shared, LORA, seed=0)
    disturb(value.adapter, 11)
    own = trained_reward(folder, LORA)  # the value's adapter on a base of its own
    disturb([p for p in learning(own) if not any(p is q for q in own.head.parameters())], 11)
    for _ in range(2):  # in any order, again and again
        assert torch.equal(scores(shared), scores(alone))
        values(value, policy)
        assert torch.equal(logprobs(policy), on)
        with reference(policy):
            assert torch.equal(logprobs(policy), base)
    torch.testing.assert_close(scores(shared), scores(load_reward(chain, LORA)), rtol=1e-5, atol=1e-5)
    rows = policy.rows(GROUPS)
    expected = value.head(run_trunk(own.trunk, rows)[rows.before_cl])[rows.mask_cl]
    assert torch.equal(values(value, policy), expected.detach())
    assert not torch.allclose(on, base, atol=0.05)


def test_the_base_is_in_memory_once(policy, reward):
    alone = sum(p.numel() for p in policy.parameters())
    shared = load_reward(reward[1], LORA, beside=policy)
    value = own_value(policy, seed=0)
    everything = {p.data_ptr(): p.numel() for module in (policy, shared, value) for p in module.parameters()}
    adapters = sum(p.numel() for p in policy.parameters() if p.requires_grad) // 2
    heads = sum(p.numel() for head in (shared.head, value.head) for p in head.parameters())
    assert sum(everything.values()) == alone + 2 * adapters + heads
    assert shared.trunk is policy.network.get_decoder()


def test_gradients_reach_only_what_is_trained(policy, reward):
    shared = load_reward(reward[1], LORA, beside=policy)
    value = reward_value(policy, shared, LORA, seed=0)
    disturb(value.adapter, 11)
    of_value = {id(p) for p in value.parameters()}
    assert {id(p) for p in learning(policy)} & of_value == {id(p) for p in value.adapter}
    rows = policy.rows(GROUPS)
    value(rows, policy.hidden(rows)).sum().backward()
    assert all((p.grad is not None) == (id(p) in of_value) for m in (policy, shared, value) for p in m.parameters())
    value.zero_grad()
    policy.logprobs(rows).sum().backward()
    with_gradient = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert with_gradient == {name for name, p in policy.named_parameters() if ".default." in name}
    assert not any(p.requires_grad for p in shared.parameters()), "the reward model is asked, not trained"


def test_after_an_error_the_policy_is_on_again(policy, reward):
    shared, on = load_reward(reward[1], LORA, beside=policy), logprobs(policy)
    with pytest.raises(KeyboardInterrupt), switched(policy.network, shared.shared):
        assert not torch.equal(logprobs(policy), on)
        raise KeyboardInterrupt
    assert torch.equal(logprobs(policy), on)


def test_sampling_folds_in_the_policy_and_nothing_else(policy, reward, folder):
    expected = Sampler(policy).sample(PROMPTS, Sampling(max_new_tokens=6), seed=1, n=2)
    crowded = trained_policy(folder)
    shared = load_reward(reward[1], LORA, beside=crowded)
    value = own_value(crowded, seed=0)
    disturb(value.adapter, 11)
    before = {name: p.clone() for name, p in crowded.named_parameters()}
    assert Sampler(crowded).sample(PROMPTS, Sampling(max_new_tokens=6), seed=1, n=2) == expected
    assert all(torch.equal(p, before[name]) for name, p in crowded.named_parameters())
    assert torch.equal(scores(shared), scores(reward[0]))


def test_what_is_saved_is_the_policy_alone(policy, reward, tmp_path):
    reward_value(policy, load_reward(reward[1], LORA, beside=policy), LORA, seed=0)
    made = tmp_path / "saved"
    made.mkdir()
    save_model(policy, made)
    assert not [path for path in made.iterdir() if path.is_dir()]
    again = load_model([*policy.chain, str(made)], PLAIN)
    torch.testing.assert_close(logprobs(again), logprobs(policy), rtol=1e-4, atol=1e-4)


def test_only_an_adapter_on_the_very_same_model_shares_it(policy, reward, checkpoint, tmp_path):
    other = str(checkpoint("Llama", 5))
    for part in ("lora", "whole"):
        (tmp_path / part).mkdir()
    save_reward(trained_reward(other, LORA), tmp_path / "lora")
    save_reward(trained_reward(other, PLAIN), tmp_path / "whole")
    for chain in ([other, str(tmp_path / "lora")], [str(tmp_path / "whole")]):
        assert not isinstance(load_reward(chain, LORA, beside=policy), AdapterReward)
    whole = load_model([policy.chain[0]], PLAIN, trainable=True)
    assert not isinstance(load_reward(reward[1], LORA, beside=whole), AdapterReward), "it has no adapters"


def test_an_adapter_of_another_shape_is_refused(policy, checkpoint, tmp_path):
    other = "GPT2" if "Llama" in type(policy.network).__name__ else "Llama"
    save_reward(trained_reward(str(checkpoint(other)), LORA), tmp_path)
    for load in (
        lambda: load_reward([policy.chain[0], str(tmp_path)], LORA, beside=policy),
        lambda: load_reward([policy.chain[0], str(tmp_path)], LORA),
    ):
        with pytest.raises(ModelError, match="does not fit the model it is said to sit on") as caught:
            load()
        assert "trained on another base" in caught.value.hint


@pytest.mark.parametrize("changes", ({"num_hidden_layers": 3}, {"intermediate_size": 64}))
def test_an_adapter_of_a_deeper_or_wider_model_of_the_same_kind_is_refused(checkpoint, tmp_path, changes):
    """peft would load the layers that both have and say nothing: scores and words of a model that nobody trained."""
    other = tmp_path / "other"
    shutil.copytree(checkpoint("Llama"), other)
    random_network("Llama", **changes).save_pretrained(other)
    save_model(trained_policy(str(other)), tmp_path)
    with pytest.raises(ModelError, match="does not fit the model it is said to sit on"):
        load_model([str(checkpoint("Llama")), str(tmp_path)], PLAIN)


# --- where values start


@pytest.mark.parametrize("adapter", ("lora", "none"))
def test_an_own_value_starts_at_zero_on_the_policys_states(folder, adapter):
    policy = load_model([folder], LORA if adapter == "lora" else PLAIN, trainable=True, seed=1)
    value = own_value(policy, seed=0)
    assert not values(value, policy).any()
    disturb(value.head.parameters(), 3)
    on_trunk = trunk_value(policy, seed=0)
    on_trunk.load_state_dict(value.head.state_dict())
    assert torch.equal(values(value, policy), values(on_trunk, policy))
    policys, own = logprobs(policy), values(value, policy)
    disturb([p for p in learning(value) if not any(p is q for q in value.head.parameters())], 5)
    assert torch.equal(logprobs(policy), policys) and not torch.equal(values(value, policy), own)


@pytest.mark.parametrize("kind", ("adapter", "whole"))
def test_a_value_from_the_reward_model_starts_as_its_score_of_what_is_there(folder, policy, reward, tmp_path, kind):
    """The value before a token is the score of the text up to it; then on the scale that the run has measured."""
    if kind == "adapter":
        model = load_reward(reward[1], LORA, beside=policy)
    else:
        model = trained_reward(folder, PLAIN).requires_grad_(False)
    before = scores(model)
    value = reward_value(policy, model, LORA, seed=0)
    assert torch.equal(scores(model), before), "the scorer is as it was"
    expected = [
        model.normalised(model(policy.rows([((*prompt, *own[:t])[:-1], [(*prompt, *own[:t])[-1:]])])))[0, 0]
        for prompt, completions in GROUPS
        for own in completions
        for t in range(len(own))
    ]
    torch.testing.assert_close(values(value, policy), torch.stack(expected).detach(), rtol=1e-4, atol=1e-5)
    value.rescale(0.5, 2.0)
    rescaled = (torch.stack(expected).detach() - 0.5) / 2
    torch.testing.assert_close(values(value, policy), rescaled, rtol=1e-4, atol=1e-5)
    disturb(value.adapter, 11)
    assert not torch.allclose(values(value, policy), rescaled, atol=1e-3)
    assert torch.equal(scores(model), before), "and whatever the value learns"


def test_what_a_value_cannot_be_read_from(policy, folder, tokenizer):
    several = new_reward("sequence", [folder], PLAIN, members=2)
    features = new_reward("features", [folder], PLAIN)
    for unfit in (several, features, None):
        with pytest.raises(ModelError, match="one scorer: a reward model of kind 'sequence' with one output"):
            reward_value(policy, unfit, LORA, seed=0)
    other = trained_reward(folder, PLAIN)
    other.encoder = copy.copy(other.encoder)
    other.encoder.tokenizer = type(tokenizer).from_str(tokenizer.to_str().replace("<eos>", "<end>"))
    with pytest.raises(ModelError, match="another tokenizer") as caught:
        reward_value(policy, other, LORA, seed=0)
    assert "'own' or 'trunk'" in caught.value.hint


def test_rows_are_laid_out_as_both_trunks_compute_them(make_model, checkpoint):
    """A trunk with a sliding window computes completions side by side wrongly: then each prompt has rows of its own."""
    policy, reward = make_model(), trained_reward(str(checkpoint("Llama")), PLAIN)
    assert policy.layout.shared and reward.layout.shared
    reward_value(policy, reward, LORA, seed=0)
    assert policy.layout.shared
    other = trained_reward(str(checkpoint("Llama")), PLAIN)
    other.layout = Layout()
    reward_value(policy, other, LORA, seed=0)
    assert policy.layout == Layout()


# --- in the stage


ONE_STEP = {
    "steps": 1, "prompts_per_step": 2, "samples_per_prompt": 2, "epochs": 1, "minibatches": 1, "kl_coefficient": 0.3,
    "gamma": 0.9, "lam": 0.7, "whiten": False, "missing_eos_score": None, "score_scale": "none",
    "sampling": {"max_new_tokens": 5},
}  # fmt: skip


def states_alone(network, tokens, start: int) -> torch.Tensor:
    return network(input_ids=torch.tensor([tokens]), use_cache=False).last_hidden_state[0][start - 1 : -1]


@pytest.mark.parametrize("micro_batch", (0, 1))
def test_the_gradient_of_an_own_value_by_hand(make_model, train, gradient, micro_batch):
    """In float64 and plain loops, one unpadded row at a time: of its whole trunk, its head, and of the policy."""
    policy, before = make_model(seed=0).double(), make_model(seed=1).double()
    value = OwnValue(make_model(seed=2).network.get_decoder(), own_value(policy, 0).head).double()
    disturb(value.head.parameters(), 5)
    model, critic, seen = copy.deepcopy(policy), copy.deepcopy(value), []

    def score(completion):
        seen.append(completion)
        return len(completion.text) / 10

    config = settings("rl", **ONE_STEP, value={"coefficient": 0.5, "model": "own"}, run={"micro_batch": micro_batch})
    scorer, prompts = FakeScorer(score), [Prompt.user("the cat"), Prompt.user("a dog ran")]
    train(rl, config, policy, before, Sampler(policy), scorer, prompts, [], {}, None, (), value)

    on_policy, on_value, count = 0.0, 0.0, sum(len(c.tokens) for c in seen)
    for completion in seen:
        prompt = model.encoder.prompt(completion.prompt)
        whole, p = [*prompt, *completion.tokens], len(prompt)
        v = critic.head(states_alone(critic.trunk, whole, p))
        logp, ref = (
            m.logits(states_alone(m.network.get_decoder(), whole, p)).log_softmax(-1)[range(len(v)), completion.tokens]
            for m in (model, before)
        )
        rewards = [-0.3 * (a - b) for a, b in zip(logp.tolist(), ref.tolist(), strict=True)]
        rewards[-1] += len(completion.text) / 10
        known, advantage = [*v.tolist(), 0.0], 0.0
        for t in reversed(range(len(v))):
            advantage = rewards[t] + 0.9 * known[t + 1] - known[t] + 0.9 * 0.7 * advantage
            on_policy = on_policy - advantage * torch.exp(logp[t] - logp[t].detach())
            on_value = on_value + (v[t] - known[t] - advantage) ** 2 / 2
    ((on_policy + 0.5 * on_value) / count).backward()
    expected = {f"{i}.{name}": p.grad for i, m in enumerate((model, critic)) for name, p in m.named_parameters()}
    expected = {name: grad for name, grad in expected.items() if grad is not None}
    found = gradient()
    assert found.keys() == expected.keys() and any(name.startswith("1.trunk.") for name in expected)
    scale = max(float(grad.abs().max()) for grad in expected.values())
    for name, grad in expected.items():
        assert float((found[name] - grad).abs().max()) <= 1e-6 * scale, name  # RMSNorm itself is float32


@pytest.mark.parametrize("where", ("trunk", "own", "reward"))
@pytest.mark.parametrize("adapter", ("lora", "none"))
def test_while_it_warms_up_only_the_value_learns(checkpoint, train, monkeypatch, where, adapter):
    """The policy, bit for bit; demonstrations wait, and the KL coefficient is not adapted to a KL of nothing."""
    folder = str(checkpoint("Llama"))
    policy = load_model([folder], LORA if adapter == "lora" else PLAIN, trainable=True, seed=1)
    before = load_model([folder], PLAIN) if adapter == "none" else None
    reward = trained_reward(folder, PLAIN).requires_grad_(False)
    value = value_of(where, policy, reward, LORA)
    improve, seen = rl_module.improve, []

    def snapshot() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        own = {id(p) for p in value.parameters()}
        of_policy = [p.detach().clone() for p in policy.parameters() if id(p) not in own]
        return of_policy, [p.detach().clone() for p in value.parameters() if p.requires_grad]

    def watched(loop, *arguments):
        start = snapshot()
        stats = improve(loop, *arguments)
        now = snapshot()
        seen.append([any(not torch.equal(a, b) for a, b in zip(start[i], now[i], strict=True)) for i in range(2)])
        return stats

    monkeypatch.setattr(rl_module, "improve", watched)
    config = settings(
        "rl", **(ONE_STEP | {"steps": 3, "minibatches": 2, "sft_coefficient": 0.5, "kl_target": 1.0, "kl_in": "loss"}),
        kl_estimator="k2", entropy_bonus=0.1, value={"model": where, "warmup_steps": 2}, run={"micro_batch": 1},
    )  # fmt: skip
    scorer = FakeScorer(lambda completion: len(completion.text) / 10)
    demonstrations = [((5, 11), [(9, 2)]), ((7, 8, 9), [(10, 11, 2)])]
    prompts = [Prompt.user("the cat"), Prompt.user("a dog ran")]
    run = train(rl, config, policy, before, Sampler(policy), scorer, prompts, [], {}, None, demonstrations, value)
    assert seen == [[False, True], [False, True], [True, True]], "did the policy move, did the value"
    assert [row["kl_coefficient"] for row in run.metrics()] == [0.3, 0.3, 0.3]
    assert ["sft_loss" in row for row in run.metrics()] == [False, False, True]


def test_the_run_puts_a_value_from_the_reward_model_on_its_scale(checkpoint, train, make_model):
    """Scores are shifted and scaled by what the run measures, and the first values with them: nothing to unlearn."""
    folder = str(checkpoint("Llama"))
    policy, reward = load_model([folder], LORA, trainable=True), trained_reward(folder, PLAIN).requires_grad_(False)
    value, scorer = reward_value(policy, reward, LORA, 0), RewardScorer(reward)
    start = copy.deepcopy(value.head)
    config = settings(
        "rl", **(ONE_STEP | {"score_scale": "reference"}), value={"model": "reward"}, optimizer={"lr": 1e-9}
    )
    run = train(rl, config, policy, None, Sampler(policy), scorer, PROMPTS, [], {}, None, (), value)
    (scale,) = [event for event in run.events() if event["kind"] == "score scale"]
    assert scale["std"] != 1
    torch.testing.assert_close(value.head.outer.weight, start.outer.weight / scale["std"], rtol=1e-4, atol=1e-6)
    bias = (start.outer.bias - scale["mean"]) / scale["std"]
    torch.testing.assert_close(value.head.outer.bias, bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "given, says",
    [
        ({"estimator": "rloo", "value.model": "own"}, "only with estimator = 'ppo'"),
        ({"value.warmup_steps": 40}, "the policy would never learn"),
        ({"value.coefficient": 0, "value.warmup_steps": 2}, "the value is not trained"),
        ({"model.adapter": "none", "model.lora_rank": 8}, "no meaning with model.adapter"),
    ],
)
def test_settings_that_do_not_fit(given, says):
    with pytest.raises(ConfigError, match=says):
        load_config("rl", flags=given)


def test_the_rank_of_a_value_on_the_reward_models_trunk_may_be_chosen():
    config = load_config("rl", flags={"model.adapter": "none", "model.lora_rank": 8, "value.model": "reward"})
    assert config.model.lora_rank == 8


def test_a_trunk_value_needs_no_pass_of_its_own(make_model):
    policy = make_model()
    value, rows = trunk_value(policy, 0), policy.rows(GROUPS)
    assert isinstance(value, TrunkValue) and value.inner.weight.device == policy.device
    hidden = torch.randn_like(policy.hidden(rows))
    disturb(value.parameters(), 3)
    states = hidden[rows.before_cl]
    assert torch.equal(value(rows, hidden), value.outer(torch.tanh(value.inner(states))).squeeze(-1))


def test_a_run_whose_scorer_has_no_trunk_for_the_value_is_refused_before_it_starts(workspace, checkpoint, tmp_path):
    data, base = add_small_data(workspace, tmp_path), str(checkpoint("Llama"))
    quick = {"run": {"threads": 1, "tensorboard": False}, "steps": 1}
    trueup.reward(workspace, base=base, data=data["preferences"], name="judge", kind="features", **quick)
    with pytest.raises(ModelError, match="kind 'sequence' with one output"):
        trueup.rl(workspace, policy=base, reward="judge", prompts=data["prompts"], value={"model": "reward"}, **quick)
    assert [run.stage for run in runs(workspace)] == ["reward"]


def test_a_dry_run_counts_what_a_value_model_learns(workspace, checkpoint, tmp_path):
    """Weight, gradient and two numbers of AdamW: of a head, an adapter and its head, or a trunk and its head."""
    data, base = add_small_data(workspace, tmp_path), str(checkpoint("Llama"))
    quick = {"run": {"threads": 1, "tensorboard": False}, "steps": 1}
    trueup.reward(workspace, base=base, data=data["preferences"], name="judge", model={"adapter": "lora"}, **quick)
    inputs = {"policy": base, "reward": "judge", "prompts": data["prompts"]}
    for adapter, where in itertools.product(("lora", "none"), ("trunk", "own", "reward")):
        config = load_config("rl", flags={"model.adapter": adapter, "value.model": where})
        plan = trueup.plan(workspace, "rl", inputs, config)
        found = {part["part"]: part["bytes"] for part in plan["memory"]}
        policy = load_model([base], config.model, trainable=True)
        reward = load_reward([base, str(workspace.get("judge").path)], config.model, beside=policy)
        value = value_of(where, policy, reward, config.model)
        learnt = sum(p.numel() * p.element_size() for p in learning(value))
        assert found["value head" if where == "trunk" else "value model"] == 4 * learnt, (adapter, where)
