"""Norms and rotary positions written out: transformers' numbers, forwards and back, or transformers itself."""

from __future__ import annotations

import copy

import pytest
import torch

from trueup.config import ModelSettings
from trueup.models import lean_layers
from trueup.models.load import load_model

CPU = ModelSettings(device="cpu")
GROUPS = [((5, 11, 3, 7), [(9, 30, 2), (4, 8, 2)]), ((40, 6), [(13, 2)])]


def theirs(model):
    """The same weights, computed by transformers alone."""
    other = copy.deepcopy(model)
    for module in other.network.modules():
        module.__dict__.pop("forward", None)
    return other


def lean_names(model):
    found = {type(module).__name__ for module in model.network.modules() if "forward" in vars(module)}
    return found - {"Linear"}  # of another kind: `models/rounded.py`


def gradients(model):
    model.zero_grad()
    logp = model.logprobs(model.rows(GROUPS))
    logp.sum().backward()
    return logp.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def moved(model):
    """Norms begin as ones, where a missing weight would not be seen."""
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)).to(p.dtype)
    return model


@pytest.mark.parametrize(
    ("family", "lean"),
    [
        ("Llama", {"LlamaRMSNorm", "LlamaAttention"}),
        ("Qwen2", {"Qwen2RMSNorm", "Qwen2Attention"}),
        ("Qwen3", {"Qwen3RMSNorm", "Qwen3Attention"}),
        ("Mistral", {"MistralRMSNorm", "MistralAttention"}),
        ("Gemma", {"GemmaAttention"}),  # its norm adds one to its weight
        ("GPTNeoX", {"GPTNeoXAttention"}),  # turns the beginning of a head only: its own function is called
        ("GPT2", set()),
    ],
)
def test_forwards_and_back_it_is_transformers(checkpoint, family, lean):
    model = moved(load_model([str(checkpoint(family))], CPU, trainable=True))
    assert lean_names(model) == lean
    found, own = gradients(model)
    expected, plain = gradients(theirs(model))
    assert torch.equal(found, expected)
    assert own.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3"])
def test_in_16_bits_it_is_no_farther_from_what_is_exact(checkpoint, family):
    """Rounded at other places, no number is the same; so both are held against float32."""
    model = moved(load_model([str(checkpoint(family))], CPU.model_copy(update={"dtype": "bfloat16"}), trainable=True))
    exact = theirs(model)
    exact.network.float()
    (logp, own), (plain_logp, plain), (exact_logp, true) = map(gradients, (model, theirs(model), exact))

    def off(found, name=None):
        return float((found - (exact_logp if name is None else true[name])).norm())

    assert lean_names(model) and off(logp) <= 1.5 * off(plain_logp)
    assert sum(off(own[n], n) for n in true) <= 1.1 * sum(off(plain[n], n) for n in true)


def test_gradients_of_both_against_differences():
    x, weight = torch.randn(2, 3, 8, dtype=torch.float64), torch.rand(8, dtype=torch.float64)
    for each in (x, weight):
        each.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: lean_layers._RmsNorm.apply(*given, 1e-6), (x, weight))
    query, key = (torch.randn(2, heads, 5, 8, dtype=torch.float64, requires_grad=True) for heads in (3, 1))
    angle = torch.randn(2, 5, 4, dtype=torch.float64)
    cos, sin = (torch.cat([wave, wave], -1) for wave in (angle.cos(), angle.sin()))
    assert torch.autograd.gradcheck(lambda q, k: lean_layers.turn(q, k, cos, sin), (query, key))


def test_a_frozen_norm_gets_no_gradient_but_passes_it_on():
    x, weight = torch.randn(3, 8, requires_grad=True), torch.rand(8)
    lean_layers._RmsNorm.apply(x, weight, 1e-6).sum().backward()
    assert x.grad is not None and weight.grad is None


def test_a_copy_computes_with_its_own_weights(checkpoint):
    model = load_model([str(checkpoint("Llama"))], CPU)
    other, rows = copy.deepcopy(model), model.rows(GROUPS)
    before = model.logprobs(rows)
    with torch.no_grad():
        for name, p in other.named_parameters():
            if "norm" in name or "q_proj" in name:
                p.mul_(3)
    assert torch.equal(model.logprobs(rows), before)
    assert not torch.allclose(other.logprobs(rows), before)


def test_nothing_changes_for_other_models_in_the_process(checkpoint):
    from transformers.models.llama import modeling_llama

    before = modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaAttention.forward
    load_model([str(checkpoint("Llama"))], CPU)
    assert before == (modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaAttention.forward)


def test_a_norm_of_another_kind_stays_as_it_is():
    class OtherRMSNorm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.eps = torch.nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x):
            return x / (x.abs().mean(-1, keepdim=True) + self.eps) * self.weight

    class GatedRMSNorm(OtherRMSNorm):
        def forward(self, x, gate):
            return x * gate

    for kind in (OtherRMSNorm, GatedRMSNorm):
        layer = kind()
        lean_layers.make_lean(layer)
        assert "forward" not in vars(layer)


def test_a_turn_of_another_kind_stays_as_it_is(checkpoint, monkeypatch):
    """Some families take neighbouring numbers for a point's coordinates, not the two halves."""
    from transformers.models.llama import modeling_llama

    def interleaved(q, k, cos, sin, unsqueeze_dim=1):
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        other = [torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2) for x in (q, k)]
        return q * cos + other[0] * sin, k * cos + other[1] * sin

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", interleaved)
    model = load_model([str(checkpoint("Llama"))], CPU)
    assert "LlamaAttention" not in lean_names(model)
