"""The optimizer's fast step is AdamW's plain one, and what it remembers goes where the weights are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trueup.config import OptimizerSettings
from trueup.train.optimizers import Optimizer

SETTINGS = OptimizerSettings(lr=1e-2, weight_decay=0.1, schedule="constant", grad_clip=1e9)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def learn(model, step, times=5):
    x = torch.linspace(-2, 2, 20).view(4, 5)
    for _ in range(times):
        model.zero_grad()
        (model(x) ** 2).sum().backward()
        step()


def test_the_fused_step_is_the_plain_one():
    ours, plain = network(), network()
    optimizer = Optimizer([ours], SETTINGS)
    matrices = [p for p in plain.parameters() if p.ndim > 1]
    groups = [
        {"params": matrices, "weight_decay": SETTINGS.weight_decay},
        {"params": [p for p in plain.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=SETTINGS.lr, betas=SETTINGS.betas, eps=SETTINGS.eps, fused=False, foreach=False)
    learn(ours, lambda: optimizer.step(1.0))
    learn(plain, adam.step)
    start = dict(network().named_parameters())
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert not torch.equal(mine, start[name])
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_loaded_goes_to_the_device_of_its_weight(device):
    """A checkpoint is read into main memory; the weights may be on a GPU."""
    model = network()
    optimizer = Optimizer([model], SETTINGS)
    learn(model, lambda: optimizer.step(1.0), times=1)
    kept = optimizer.state()
    other = Optimizer([network().to(device)], SETTINGS)
    other.load(kept)
    assert {t.device.type for t in other.state().values()} == {device}
