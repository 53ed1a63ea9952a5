"""A frozen base of few bits: near the whole one, the same with and without a gradient, and LoRA learns beside it."""

from __future__ import annotations

import copy
import sys
from importlib.util import find_spec

import pytest
import torch
from small import add_small_data, settings

import trueup
from trueup.config import ModelSettings, Sampling
from trueup.config import load as load_config
from trueup.engines.sampler import Sampler
from trueup.errors import ConfigError, ModelError
from trueup.memory import Lengths, estimate, measure
from trueup.models.adapters import merged, reference
from trueup.models.device import place
from trueup.models.language_model import LanguageModel
from trueup.models.load import load_model, load_reward, new_reward, save_model, save_reward
from trueup.models.quantised import FewBits, Int8, Nf4, quantise
from trueup.models.rows import Group
from trueup.models.value import own_value
from trueup.records import Prompt
from trueup.runs import runs
from trueup.train.sft import sft

PLAIN = ModelSettings(adapter="none", device="cpu")
GROUPS: list[Group] = [((5, 11, 3, 7), [(9, 30, 2), (4, 8, 8, 6, 2)]), ((40, 41), [(42, 2)])]
PROMPTS = [Prompt.user("the cat"), Prompt.user("a dog ran to the red house")]
STEP = {"int8": 0.5 / 127, "nf4": 0.16}  # half the widest step between levels, as a share of the largest weight
NEAR = {"int8": 0.05, "nf4": 0.5}  # log-probs, in nats, on average: random weights are harder to round than learnt ones

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="the extra 'quant' is not installed")
KINDS = ["int8", pytest.param("nf4", marks=needs_bitsandbytes)]


def lora(kind: str) -> ModelSettings:
    return ModelSettings(adapter="lora", lora_rank=4, device="cpu", quantise=kind)


def disturb(model: LanguageModel, seed: int = 7) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def logprobs(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.logprobs(model.rows(GROUPS))


@pytest.fixture(params=("Llama", "GPT2"))
def folder(request, checkpoint) -> str:
    """GPT-2 is here because it keeps its matrices transposed (Conv1D), and has biases."""
    return str(checkpoint(request.param))


@pytest.mark.parametrize("kind", KINDS)
def test_every_matrix_between_hidden_states_is_stored_small_and_near(folder, kind):
    whole, small = load_model([folder], PLAIN), load_model([folder], lora(kind), trainable=True)
    matrices = {name: p for name, p in whole.network.named_parameters() if p.ndim == 2}
    layers = {name: m for name, m in small.network.named_modules() if isinstance(m, FewBits)}
    for name, layer in layers.items():
        plain = matrices.pop(name.replace(".base_layer", "") + ".weight").detach()
        plain = plain if plain.shape == layer.whole(torch.float32).shape and "c_" not in name else plain.T
        error = (layer.whole(torch.float32) - plain).abs().max()
        assert 0 < error < STEP[kind] * plain.abs().max(), name
        bits = 8 * layer.weight.numel() * layer.weight.element_size() / plain.numel()
        assert bits == {"int8": 8, "nf4": 4}[kind] and layer.whole(torch.bfloat16).dtype == torch.bfloat16
    assert all("embed" in name or "lm_head" in name or "wte" in name or "wpe" in name for name in matrices), matrices
    assert len(layers) == 2 * (4 if "GPT2" in folder else 7)


@pytest.mark.parametrize("kind", KINDS)
def test_logprobs_are_near_those_of_the_whole_base(folder, kind):
    whole, small = logprobs(load_model([folder], PLAIN)), logprobs(load_model([folder], lora(kind), trainable=True))
    assert 0 < (whole - small).abs().mean() < NEAR[kind]
    rounded = load_model([folder], PLAIN)  # exactly those of a plain model with the rounded matrices
    layers = dict(quantise(copy.deepcopy(rounded.network.get_decoder()), kind, torch.device("cpu")).named_modules())
    with torch.no_grad():
        for name, layer in rounded.network.get_decoder().named_modules():
            if isinstance(layers.get(name), FewBits):
                matrix = layers[name].whole(torch.float32)
                layer.weight.copy_(matrix.T if type(layer).__name__ == "Conv1D" else matrix)
    torch.testing.assert_close(small, logprobs(rounded), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_the_same_with_a_gradient_as_without(folder, kind):
    """And beside other rows as alone: what bitsandbytes itself computes would be off by more than PPO allows."""
    model = load_model([folder], lora(kind), trainable=True)
    disturb(model)
    learning = model.logprobs(model.rows(GROUPS))
    assert learning.requires_grad and torch.equal(learning.detach(), logprobs(model))
    alone = [model.logprobs(model.rows([(p, [c])]))[0] for p, cs in GROUPS for c in cs]
    for row, one in zip(learning, alone, strict=True):
        torch.testing.assert_close(row[: len(one)], one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_adapter_are_those_beside_the_rounded_matrices(folder, kind):
    model = load_model([folder], lora(kind), trainable=True)
    disturb(model)
    plain = copy.deepcopy(model)
    for parent in list(plain.network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, FewBits):
                whole = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
                whole.weight, whole.bias = torch.nn.Parameter(layer.whole(torch.float32)), layer.bias
                setattr(parent, name, whole)
    for each in (model, plain):
        each.logprobs(each.rows(GROUPS)).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found and all("lora_" in name for name in found)
    for name, parameter in plain.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_leaves_the_base_as_it_is(folder, kind):
    """Folded in and rounded again it would be another policy: the log-probs are those of the trainer."""
    model = load_model([folder], lora(kind), trainable=True)
    disturb(model)
    before = {name: p.clone() for name, p in model.named_parameters()}
    on = logprobs(model)
    with merged(model):
        assert torch.equal(logprobs(model), on)
    for completion in Sampler(model).sample(PROMPTS, Sampling(max_new_tokens=6), seed=1, n=2):
        (again,) = Sampler(model).logprobs([completion])
        assert again == pytest.approx(completion.logprobs, abs=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    with reference(model):
        assert torch.equal(logprobs(model), logprobs(load_model([folder], lora(kind), trainable=True)))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_learns_and_is_merged_into_the_whole_base(folder, kind, train, tmp_path):
    """Into the matrices as they were before rounding: near the model that was trained, knowing what that learnt."""
    model = load_model([folder], lora(kind), trainable=True)
    config = settings(
        "sft", steps=12, batch_size=2, optimizer={"lr": 2e-2}, model={"adapter": "lora", "quantise": kind}
    )
    run = train(sft, config, model, GROUPS, [])
    losses = [row["loss"] for row in run.metrics()]
    assert losses[-1] < 0.7 * losses[0]
    save_model(model, tmp_path)
    whole = load_model([folder, str(tmp_path)], PLAIN)
    assert not any(isinstance(module, FewBits) for module in whole.modules())
    change = logprobs(whole) - logprobs(load_model([folder], PLAIN))
    learnt = logprobs(model) - logprobs(load_model([folder], lora(kind), trainable=True))
    assert learnt.sum() > 1 and 0.5 < change.sum() / learnt.sum() < 1.5
    again = load_model([folder, str(tmp_path)], lora(kind), trainable=True)  # folded in first, and rounded after it
    assert 0 < (logprobs(again) - logprobs(whole)).abs().mean() < NEAR[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_learns_beside_a_base_of_few_bits(folder, kind, tmp_path):
    """Its head stays whole, and beside a policy on the same base its scores are those it was trained with."""
    model = new_reward("sequence", [folder], lora(kind), seed=1)
    disturb(model)
    assert type(model.head).__name__ == "ModulesToSaveWrapper" and sum(isinstance(m, FewBits) for m in model.modules())
    save_reward(model, tmp_path)
    policy = load_model([folder], lora(kind), trainable=True, seed=2)
    shared = load_reward([folder, str(tmp_path)], lora(kind), beside=policy)
    rows = policy.rows(GROUPS)
    with torch.no_grad():
        assert torch.equal(shared(rows), model(rows))
    value = own_value(policy, seed=0)
    value(rows, policy.hidden(rows)).sum().backward()
    assert {name for name, p in policy.named_parameters() if p.grad is not None} <= {
        name for name, _ in policy.named_parameters() if ".value." in name
    }


def test_an_nf4_matrix_follows_its_weights(folder):
    pytest.importorskip("bitsandbytes", reason="the extra 'quant' is not installed")
    layer = Nf4(torch.randn(8, 64), None)
    copied = copy.deepcopy(layer).double().to("cpu")
    assert copied.weight.dtype == torch.uint8 and torch.equal(copied.whole(torch.float32), layer.whole(torch.float32))
    x = torch.randn(3, 64, dtype=torch.float64)
    torch.testing.assert_close(copied(x), x @ layer.whole(torch.float64).T)


def test_a_row_of_zeros_stays_zero():
    layer = Int8(torch.tensor([[0.0, 0.0], [1.0, -127.0]]), None)
    assert torch.equal(layer.whole(torch.float32), torch.tensor([[0.0, 0.0], [1.0, -127.0]]))


def test_without_bitsandbytes_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match="needs the package bitsandbytes") as caught:
        load_model([folder], lora("nf4"), trainable=True)
    assert "trueup[quant]" in caught.value.hint
    assert load_model([folder], lora("int8"), trainable=True).adapter is not None, "which needs no package"


def test_a_run_that_lacks_it_is_refused_before_it_starts(workspace, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    data = add_small_data(workspace, tmp_path)
    model = {"adapter": "lora", "quantise": "nf4"}
    with pytest.raises(ModelError, match="needs the package bitsandbytes"):
        trueup.sft(workspace, base=str(checkpoint("Llama")), data=data["demonstrations"], model=model)
    with pytest.raises(ModelError, match="needs LoRA"):
        trueup.sft(workspace, base=str(checkpoint("Llama")), data=data["demonstrations"], model={"quantise": "int8"})
    assert not runs(workspace)


@pytest.mark.parametrize("stage", ("sft", "reward", "rl", "dpo", "kto", "ilql"))
def test_few_bits_need_lora(stage, folder):
    with pytest.raises(ConfigError, match="weights in few bits cannot learn"):
        load_config(stage, flags={"model.quantise": "int8", "model.adapter": "none"})
    assert load_config(stage, flags={"model.quantise": "int8", "model.adapter": "lora"}).model.quantise == "int8"


def test_a_small_model_is_not_trained_whole_in_few_bits_by_default(folder):
    """`auto` means all weights below 100M parameters: said before the run, and by the loader too."""
    automatic = ModelSettings(device="cpu", quantise="int8")
    for load in (
        lambda: load_model([folder], automatic, trainable=True),
        lambda: new_reward("sequence", [folder], automatic),
    ):
        with pytest.raises(ModelError, match="needs LoRA") as caught:
            load()
        assert "model.adapter = 'lora'" in caught.value.hint
    assert load_model([folder], automatic).adapter is None, "what is only asked is loaded whole"


@pytest.mark.parametrize("kind", KINDS)
def test_memory_counts_few_bits(kind, checkpoint):
    config = load_config("sft", flags={"model.adapter": "lora", "model.quantise": kind})
    model = load_model([str(checkpoint("GPT2"))], lora(kind), trainable=True)
    real = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
    real += sum(layer.scale.numel() * 4 for layer in model.modules() if isinstance(layer, Int8))
    for layer in model.modules():
        if isinstance(layer, Nf4):
            (levels,) = layer._levels
            real += levels.absmax.numel() + 4 * levels.state2.absmax.numel()
    shape = measure(model.network.config, lora(kind))
    weights = estimate("sft", config, place(PLAIN), {"base": shape}, {}, Lengths(8, 8))[0]
    assert weights.name == "weights" and weights.bytes == pytest.approx(real, rel=0.01) and kind in weights.how


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_loop_in_few_bits(workspace, checkpoint, tmp_path, kind):
    """SFT, a reward model and RL, each beside a base in few bits; then whole weights out of it, with a word on that."""
    data = add_small_data(workspace, tmp_path)
    quick = {"steps": 1, "run": {"threads": 1, "tensorboard": False}, "model": {"adapter": "lora", "quantise": kind}}
    trueup.sft(workspace, base=str(checkpoint("Llama")), data=data["demonstrations"], name="sft", **quick)
    trueup.reward(workspace, base="sft", data=data["preferences"], name="judge", **quick)
    rollout = {
        "prompts_per_step": 2, "samples_per_prompt": 2, "sampling": {"max_new_tokens": 4}, "value": {"model": "reward"},
        "guard": {"evaluation_prompts": 2},
    }  # fmt: skip
    trueup.rl(workspace, policy="sft", reward="judge", prompts=data["prompts"], name="tuned", **quick, **rollout)
    (row,) = runs(workspace)[-1].metrics()
    assert row["drift"] < 1e-3 and row["ratio_gap"] < 1e-3, "sampler, old and new log-probs are of one model"
    trueup.export(workspace, "tuned", tmp_path / "out", merge=True)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert f"beside a base in {kind}" in (tmp_path / "out" / "README.md").read_text()
    assert {workspace.get(name).meta["quantised"] for name in ("sft", "judge", "tuned")} == {kind}
    told = [event["reason"] for event in runs(workspace)[-1].events() if event["kind"] == "folded"]
    assert len(told) == 1 and "the whole base" in told[0], "SFT learnt beside few bits, and RL starts from whole ones"


@needs_bitsandbytes
@pytest.mark.parametrize("shape", [(32, 32), (48, 32), (8, 64), (3, 5), (128, 96)])
def test_nf4_of_any_shape(shape):
    """Rows that are no whole number of blocks of 64, too: bitsandbytes 0.50 alone mixes up their scales on a CPU."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    error = (Nf4(matrix, None).whole(torch.float32) - matrix).abs()
    assert error.max() < STEP["nf4"] * matrix.abs().max() and error.mean() < 0.1
