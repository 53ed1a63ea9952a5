"""LoRA without peft's temporaries: the same numbers, forwards and back, and peft itself wherever they would differ."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from trueup.config import ModelSettings
from trueup.models import lean_lora
from trueup.models.adapters import add_fresh, learnt, switched
from trueup.models.load import load_model

LORA = ModelSettings(device="cpu", adapter="lora", lora_rank=4)
GROUPS = [((5, 11, 3, 7), [(9, 30, 2), (4, 8, 2)]), ((40, 6), [(13, 2)])]


@pytest.fixture(params=("Llama", "Qwen2"))  # Qwen2's projections have a bias
def policy(request, checkpoint):
    model = load_model([str(checkpoint(request.param))], LORA, trainable=True, seed=3)
    with torch.no_grad():
        for i, p in enumerate(learnt(model.network, "default")):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return model


def gradients(model):
    model.zero_grad()
    logp = model.logprobs(model.rows(GROUPS))
    logp.sum().backward()
    return logp.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def peft_alone(model):
    """The same weights, computed by peft."""
    other = copy.deepcopy(model)
    for module in other.network.modules():
        module.__dict__.pop("forward", None)
    return other


def test_forwards_and_back_it_is_peft(policy):
    calls = []
    apply = lean_lora._LeanLora.apply
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean_lora._LeanLora, "apply", lambda *given: calls.append(1) or apply(*given))
        found, own = gradients(policy)
    expected, theirs = gradients(peft_alone(policy))
    assert calls, "else peft would be compared with itself"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert own.keys() == theirs.keys() and any("lora_A" in name for name in own)
    for name, gradient in theirs.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_a_copy_computes_with_its_own_weights(policy):
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for p in learnt(other.network, "default"):
            p.zero_()
    before = policy.logprobs(policy.rows(GROUPS))
    assert not torch.allclose(before, other.logprobs(other.rows(GROUPS)))


@pytest.mark.parametrize("name", ("second", None))
def test_another_adapter_or_none_is_used_when_it_is_on(policy, name):
    add_fresh(policy.adapter, "second", seed=9)
    with torch.no_grad():
        for p in learnt(policy.network, "second"):
            p += 0.1
    other = peft_alone(policy)
    with torch.no_grad(), switched(policy.network, name), switched(other.network, name):
        found, expected = (model.logprobs(model.rows(GROUPS)) for model in (policy, other))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def layer_of(policy):
    return next(
        m for m in policy.network.modules() if hasattr(m, "lora_A") and isinstance(m.get_base_layer(), nn.Linear)
    )


def test_what_is_not_plain_is_left_to_peft(policy):
    layer, x = layer_of(policy), torch.randn(2, 3, 32)
    assert lean_lora._only_plain(layer, x) == "default"
    assert lean_lora._only_plain(layer, x.double()) is None, "another type than the matrices'"
    layer.lora_dropout["default"] = nn.Dropout(0.1)
    assert lean_lora._only_plain(layer, x) is None
    layer.lora_dropout["default"] = nn.Identity()
    layer.get_base_layer().weight.requires_grad_(True)
    assert lean_lora._only_plain(layer, x) is None, "its gradient would be lost"
    layer.get_base_layer().weight.requires_grad_(False)
    layer.merge()
    assert lean_lora._only_plain(layer, x) is None


def test_the_gradient_is_that_of_differences():
    torch.manual_seed(0)
    x, w, bias, a, b = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 3, 5), (4, 5), (4,), (2, 5), (4, 2)))
    learns = tuple(t.requires_grad_() for t in (x, a, b))
    assert torch.autograd.gradcheck(lambda x, a, b: lean_lora._LeanLora.apply(x, w, bias, a, b, 1.7), learns)
