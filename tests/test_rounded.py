"""Products in 16 bits on a CPU: few shapes, and the same numbers."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from trueup.models import rounded as module
from trueup.models.lean_layers import make_lean
from trueup.models.rounded import HIGH, LOW, filling, rounded


def layer(bias: bool = True, dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(24, 40, bias=bias).to(dtype)


@pytest.mark.parametrize("shape", [(1, 24), (3, 24), (2, 5, 24), (1, 97, 24), (130, 24), (64, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_a_linear_layer_forwards_and_back(shape, bias):
    mine, plain = layer(bias), layer(bias)
    x, y = (torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_() for _ in "ab")
    seen, expected = rounded(mine, x), plain(y)
    weight = torch.randn_like(expected)
    (seen * weight).sum().backward()
    (expected * weight).sum().backward()
    assert seen.shape == expected.shape
    for one, other in zip(
        (seen, x.grad, *(p.grad for p in mine.parameters())), (expected, y.grad, *(p.grad for p in plain.parameters())),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2 * float(other.abs().max()))


def test_gradients_against_differences(monkeypatch):
    mine = layer(dtype=torch.float64)
    x = torch.randn(5, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: module._Rounded.apply(*given), (x, mine.weight, mine.bias))


def test_heights_are_few():
    heights = {rows + filling(rows) for rows in range(1, 1000)}
    assert heights == {*range(LOW, HIGH + 1, LOW), *range(2 * HIGH, 1024 + 1, HIGH)}


def test_other_number_types_take_the_plain_way(monkeypatch):
    monkeypatch.setattr(module, "_Rounded", None)
    for dtype in (torch.float32, torch.float64):
        mine = layer(dtype=dtype)
        assert torch.equal(rounded(mine, torch.ones(3, 24, dtype=dtype)), mine(torch.ones(3, 24, dtype=dtype)))


def test_models_have_it(make_model):
    network = make_model("Llama").network.bfloat16()
    make_lean(network)
    linear = [each for each in network.modules() if type(each) is nn.Linear]
    assert linear and all(each.forward.__func__ is rounded for each in linear)


def test_a_frozen_weight_gets_no_gradient():
    mine = layer().requires_grad_(False)
    x = torch.randn(3, 24).bfloat16().requires_grad_()
    rounded(mine, x).sum().backward()
    assert x.grad is not None and mine.weight.grad is None


GROWTH = """
import torch
from torch import nn
from trueup.models.rounded import rounded
from trueup.process import resident_mib
torch.set_num_threads(1)
layers = [nn.Linear(128, 352).bfloat16(), nn.Linear(352, 128).bfloat16()]
how = {how}
def go(rows):
    x = torch.zeros(rows, 128, dtype=torch.bfloat16)
    for layer in layers:
        x = how(layer, x)
with torch.no_grad():
    go(640)
    before = resident_mib()
    for rows in range(513, 640):
        go(rows)
print(resident_mib() - before)
"""


def test_memory_does_not_grow_with_every_new_length():
    """What it is for; beside it the plain layer, which may one day need none of it."""
    grown = {}
    for how in ("rounded", "nn.Linear.forward"):
        done = subprocess.run([sys.executable, "-c", GROWTH.format(how=how)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        grown[how] = float(re.findall(r"[-.\d]+", done.stdout)[-1])
    assert grown["rounded"] < 20, grown
