"""LoRA: a small adapter on a frozen base, whose reference is the base itself with the adapter switched off."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from trueup.config import ModelSettings, Sampling
from trueup.engines.sampler import Sampler
from trueup.errors import ModelError
from trueup.models.adapters import add_lora, merged, reference, wants_lora
from trueup.models.language_model import LanguageModel
from trueup.models.load import load_model, save_model
from trueup.models.rows import Group
from trueup.records import Prompt

LORA = ModelSettings(adapter="lora", lora_rank=4, device="cpu")
PLAIN = ModelSettings(adapter="none", device="cpu")
GROUPS: list[Group] = [((5, 11, 3, 7), [(9, 30, 2), (4, 8, 8, 6, 2)]), ((40, 41), [(42, 2)])]
PROMPTS = [Prompt.user("the cat"), Prompt.user("a dog ran to the red house")]


def disturb(model: LanguageModel, seed: int = 7) -> None:
    """As after some training: LoRA starts as no change at all, which would let every test below pass."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def logprobs(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.logprobs(model.rows(GROUPS))


@pytest.fixture(params=("Llama", "GPT2"))
def folder(request, checkpoint) -> str:
    """GPT-2 is here because it keeps its matrices transposed (Conv1D)."""
    return str(checkpoint(request.param))


@pytest.fixture
def base(folder) -> LanguageModel:
    return load_model([folder], PLAIN)


@pytest.fixture
def tuned(folder) -> LanguageModel:
    """The same checkpoint with a LoRA adapter that has learnt something."""
    model = load_model([folder], LORA, trainable=True, seed=1)
    disturb(model)
    return model


def test_only_the_adapter_learns(tuned):
    learns = {name for name, p in tuned.network.named_parameters() if p.requires_grad}
    assert learns and all("lora_" in name for name in learns)
    assert not any("lm_head" in name for name in learns), "the vocabulary projection stays as it is"
    frozen = [name for name, p in tuned.network.named_parameters() if "lora_" not in name and p.requires_grad]
    assert not frozen
    layers = tuned.network.config.num_hidden_layers
    assert len(learns) == 2 * layers * (4 if "GPT2" in type(tuned.network).__name__ else 7), (
        "every linear layer has A, B"
    )


def test_a_fresh_adapter_changes_nothing(folder, base):
    assert torch.equal(logprobs(load_model([folder], LORA, trainable=True)), logprobs(base))


def test_the_seed_decides_how_an_adapter_starts(folder):
    def start(seed):
        model = load_model([folder], LORA, trainable=True, seed=seed)
        return torch.cat([p.flatten() for n, p in model.network.named_parameters() if "lora_A" in n])

    assert torch.equal(start(1), start(1)) and not torch.equal(start(1), start(2))


def test_adapter_off_is_the_base_bit_for_bit(tuned, base):
    on = logprobs(tuned)
    with reference(tuned):
        assert torch.equal(logprobs(tuned), logprobs(base))
    assert torch.equal(logprobs(tuned), on), "and on again it is what it was"
    assert not torch.allclose(on, logprobs(base), atol=0.05)
    assert all(p.requires_grad for n, p in tuned.network.named_parameters() if "lora_" in n)


def test_adapter_off_is_the_base_bit_for_bit_after_sampling_too(tuned, base):
    """The sampler folds LoRA into the base and takes it out again. Subtracting would leave rounding behind."""
    on = logprobs(tuned)
    weights = {name: p.clone() for name, p in tuned.network.named_parameters()}
    for seed in range(3):
        Sampler(tuned).sample(PROMPTS, Sampling(max_new_tokens=6), seed=seed)
    assert all(torch.equal(p, weights[name]) for name, p in tuned.network.named_parameters())
    assert torch.equal(logprobs(tuned), on)
    with reference(tuned):
        assert torch.equal(logprobs(tuned), logprobs(base))


def test_the_base_comes_back_after_an_error_as_well(tuned, base):
    with pytest.raises(KeyboardInterrupt), merged(tuned):
        raise KeyboardInterrupt
    with reference(tuned):
        assert torch.equal(logprobs(tuned), logprobs(base))


def test_folded_in_it_computes_the_same(tuned):
    """So the sampler's log-probs are the trainer's, though they come from other matrices."""
    with merged(tuned):
        inside = logprobs(tuned)
    torch.testing.assert_close(inside, logprobs(tuned), rtol=1e-4, atol=1e-4)
    for completion in Sampler(tuned).sample(PROMPTS, Sampling(max_new_tokens=8, temperature=0.7), seed=1, n=2):
        (again,) = Sampler(tuned).logprobs([completion], 0.7)
        assert again == pytest.approx(completion.logprobs, abs=1e-4)


def test_gradients_flow_through_the_adapter_after_sampling(tuned):
    Sampler(tuned).sample(PROMPTS, Sampling(max_new_tokens=4), seed=0)
    tuned.logprobs(tuned.rows(GROUPS)).sum().backward()
    for name, p in tuned.network.named_parameters():
        assert (p.grad is not None and p.grad.abs().sum() > 0) == ("lora_" in name), name


def test_saved_and_loaded_it_is_the_same_model(tuned, folder, tmp_path):
    save_model(tuned, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "prompt_format.json"} <= names
    assert not names & {"model.safetensors", "README.md"}
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    chain = [folder, str(tmp_path)]
    torch.testing.assert_close(logprobs(load_model(chain, PLAIN)), logprobs(tuned), rtol=1e-4, atol=1e-4)


def test_an_adapter_upon_an_adapter_has_the_first_one_as_its_reference(tuned, base, folder, tmp_path):
    """LoRA RL on a LoRA SFT model: with the RL adapter off it must be the SFT model, not the bare base."""
    save_model(tuned, tmp_path)
    chain = [folder, str(tmp_path)]
    sft = logprobs(load_model(chain, PLAIN))
    policy = load_model(chain, LORA, trainable=True, seed=5)
    assert torch.equal(logprobs(policy), sft)
    disturb(policy, seed=8)
    Sampler(policy).sample(PROMPTS, Sampling(max_new_tokens=4), seed=0)
    with reference(policy):
        assert torch.equal(logprobs(policy), sft)
    assert not torch.allclose(sft, logprobs(base), atol=0.05)
    assert not torch.allclose(logprobs(policy), sft, atol=0.05)


@pytest.mark.parametrize(
    "adapter, parameters, lora",
    [("auto", 99_999_999, False), ("auto", 100_000_001, True), ("none", 10**10, False), ("lora", 10, True)],
)
def test_when_lora_is_used(adapter, parameters, lora):
    assert wants_lora(ModelSettings(adapter=adapter), parameters) == lora


def test_a_model_without_adapter_has_none_to_switch_off(model):
    with pytest.raises(AssertionError, match="no adapter"), reference(model):
        pass
    with merged(model):  # nothing to fold in, nothing to undo
        assert model.network is not None


def test_without_peft_the_error_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match="LoRA needs the package peft") as found:
        add_lora(model.network, LORA, seed=0)
    assert "trueup[lora]" in found.value.hint
