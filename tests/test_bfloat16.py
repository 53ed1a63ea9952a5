"""In 16 bits: the weights that learn are float32, losses and scores are too, and what is learnt is nearly the same."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import trueup
from trueup.config import ModelSettings, OptimizerSettings
from trueup.models import device
from trueup.models.load import load_model, new_reward
from trueup.runs import runs
from trueup.train.optimizers import Optimizer

GROUPS = [((5, 11, 3, 7), [(9, 30, 2), (4, 8, 2)]), ((40, 6), [(13, 2)])]
SMALL = OptimizerSettings(lr=1e-6, weight_decay=0.0, schedule="constant")


def model_of(checkpoint, dtype):
    return load_model([str(checkpoint("Llama"))], ModelSettings(device="cpu", dtype=dtype), trainable=True)


def learn(model, optimizer, parts):
    for part in parts:
        rows = model.rows(part)
        (-model.logprobs(rows).sum()).backward()
    optimizer.clip()
    optimizer.step(1.0)


@pytest.mark.parametrize("name", ("adamw", "muon"))
def test_steps_too_small_for_16_bits_add_up(checkpoint, name):
    model = model_of(checkpoint, "bfloat16")
    optimizer = Optimizer([model], SMALL.model_copy(update={"name": name, "muon_lr": 1e-6}))
    before = {name: p.detach().clone() for name, p in optimizer.learnt.items()}
    stored = {name: p.detach().clone() for name, p in optimizer.named.items()}
    for _ in range(3):
        learn(model, optimizer, [GROUPS])
    for name, p in optimizer.learnt.items():
        assert p.dtype == torch.float32
        assert torch.equal(optimizer.named[name], p.to(torch.bfloat16)), "the model's own are the exact ones, rounded"
    moved = {name for name, p in optimizer.learnt.items() if not torch.equal(p, before[name])}
    rounded_away = {name for name in moved if torch.equal(optimizer.named[name], stored[name])}
    assert moved and rounded_away, "steps that 16 bits would have lost"


def test_gradients_of_micro_batches_are_summed_in_float32(checkpoint):
    """A hundred equal micro-batches are a hundred times one: a sum in bfloat16 stops growing long before."""
    model = model_of(checkpoint, "bfloat16")
    optimizer = Optimizer([model], SMALL)

    def gradient(times):
        optimizer.zero_grad()
        for _ in range(times):
            model.logprobs(model.rows(GROUPS)).sum().backward()
        assert all(p.grad is None for p in optimizer.named.values()), "kept once, in float32"
        return {name: p.grad.clone() for name, p in optimizer.learnt.items()}

    once, often = gradient(1), gradient(100)
    for name, found in often.items():
        torch.testing.assert_close(found, 100 * once[name], rtol=1e-5, atol=1e-7)


def test_float32_weights_are_learnt_themselves(checkpoint):
    model = model_of(checkpoint, "float32")
    optimizer = Optimizer([model], SMALL)
    assert all(optimizer.learnt[name] is p for name, p in optimizer.named.items())


def test_losses_and_scores_are_float32(checkpoint):
    model = model_of(checkpoint, "bfloat16")
    rows = model.rows(GROUPS)
    assert model.hidden(rows).dtype == torch.bfloat16 and model.logprobs(rows).dtype == torch.float32
    for kind in ("sequence", "features"):
        reward = new_reward(kind, [str(checkpoint("Llama"))], ModelSettings(device="cpu", dtype="bfloat16"))
        assert {p.dtype for head in reward.heads() for p in head.parameters()} == {torch.float32}
        score = reward(rows)
        assert score.dtype == torch.float32 and score.isfinite().all()


def test_logprobs_are_near_those_of_float32(checkpoint):
    exact, rounded = (model_of(checkpoint, dtype) for dtype in ("float32", "bfloat16"))
    found = rounded.logprobs(rounded.rows(GROUPS))
    torch.testing.assert_close(found, exact.logprobs(exact.rows(GROUPS)), rtol=0.02, atol=0.05)


def test_fastest_is_settled_when_the_run_begins(monkeypatch, workspace, checkpoint, tmp_path):
    seconds = {torch.bfloat16: 0.4, torch.float32: 1.0}
    monkeypatch.setattr(device, "_product_seconds", seconds.__getitem__)
    rows = [{"prompt": f"word {i}", "completion": "and another"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = trueup.add_data(workspace, str(tmp_path / "rows.jsonl"), "demonstrations").artifact
    made = trueup.sft(
        workspace, base=str(checkpoint("Llama")), data=data, steps=2, batch_size=2,
        model={"dtype": "fastest", "device": "cpu", "adapter": "none"}, run={"threads": 1, "tensorboard": False},
    )  # fmt: skip
    (run,) = runs(workspace)
    assert run.config["model"]["dtype"] == "bfloat16", "and so it stays when the run is resumed"
    stored = load_file(made.path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    seconds[torch.bfloat16] = 0.9
    assert device.fastest(ModelSettings(device="cpu"))[0] == "float32"


def test_a_product_is_measured():
    assert device._product_seconds(torch.float32) > 0
    dtype, why = device.fastest(ModelSettings(device="cpu"))
    assert dtype in ("float32", "bfloat16") and "of its time in float32" in why
