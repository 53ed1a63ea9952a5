"""A run that broke off and was taken up, on whatever device there is: a GPU within a stated tolerance, a CPU exactly.

The kills of `test_resume.py` run on a CPU. Here the run breaks off by an error, in the process itself, so that a GPU
need not be handed to another one.
"""

from __future__ import annotations

import pytest
import torch
from small import add_small_data

from trueup import api
from trueup.runs import runs
from trueup.train.run_loop import Loop

# docs/resume.md states it: what a step after resuming logs, beside the undisturbed run's.
TOLERANCE = {"score": 0.05, "kl_k3": 0.01, "entropy": 0.02, "length": 0.5, "policy_loss": 0.05}
SETTINGS = {
    "steps": 6, "prompts_per_step": 4, "samples_per_prompt": 4, "missing_eos_score": None,
    "sampling": {"max_new_tokens": 6, "batch_size": 16}, "optimizer": {"lr": 1e-3},
    "guard": {"evaluation_prompts": 4},
    "run": {"threads": 1, "tensorboard": False, "checkpoint_every": 2, "evaluate_every": 3},
}  # fmt: skip


def test_a_run_that_broke_off_goes_on_as_if_it_had_not(workspace, checkpoint, tmp_path, monkeypatch):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add_small_data(workspace, tmp_path)
    model = {"adapter": "none", "device": device, "dtype": "float32"}
    quick = {"steps": 2, "model": model, "run": {"threads": 1, "tensorboard": False}}
    api.sft(workspace, base=str(checkpoint("Llama")), data="demonstrations", name="sft", **quick)
    api.reward(workspace, base="sft", data="preferences", name="judge", **quick)

    def train() -> None:
        api.rl(workspace, policy="sft", reward="judge", prompts="prompts", **{**SETTINGS, "model": model})

    train()
    undisturbed = runs(workspace)[-1].metrics()
    with monkeypatch.context() as broken:
        update, done = Loop.update, []

        def breaks(self, *given, **named):
            done.append(1)
            if len(done) == 18:  # four updates a step: in the midst of the fifth
                raise OSError("the machine went away")
            return update(self, *given, **named)

        broken.setattr(Loop, "update", breaks)
        with pytest.raises(OSError, match="went away"):
            train()
    run = runs(workspace)[-1]
    assert run.status == "failed" and run.checkpoints()[-1][0] == 4
    api.resume(workspace, run.id)
    resumed = runs(workspace)[-1].metrics()
    assert len(resumed) == len(undisturbed) == 6
    if device == "cpu":
        assert resumed == undisturbed
        return
    assert resumed[:4] == undisturbed[:4]
    for now, then in zip(resumed[4:], undisturbed[4:], strict=True):
        for name, most in TOLERANCE.items():
            assert now[name] == pytest.approx(then[name], abs=most), name
