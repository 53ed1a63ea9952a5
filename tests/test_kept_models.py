"""Models that a workspace keeps: artifacts and checkpoints, found by name and loaded as they would be shipped."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from small import add_small_data

from trueup import api
from trueup.config import Sampling, SftConfig
from trueup.engines.sampler import Sampler
from trueup.errors import ModelError, NotFoundError, RunError, TrueupError
from trueup.kept_models import find_kept, kept_checkpoints, kept_models, load_kept, ship, shipped
from trueup.records import Prompt
from trueup.runs import Run, runs
from trueup.store import remove

QUIET = {"threads": 1, "tensorboard": False, "checkpoint_every": 1}
FAST = {"steps": 2, "optimizer": {"lr": 3e-2, "warmup_steps": 0}, "run": QUIET}
LORA, WHOLE = {"adapter": "lora", "device": "cpu"}, {"adapter": "none", "device": "cpu"}
ROWS = [((5, 11, 3, 7), [(9, 30, 2), (4, 8, 8, 6, 2)]), ((40, 41), [(42, 2)])]
SCORER = "def brevity(prompt, completion):\n    return -float(len(completion))\n"


@pytest.fixture
def data(workspace, tmp_path):
    return add_small_data(workspace, tmp_path)


def logprobs(model):
    with torch.no_grad():
        return model.logprobs(model.rows(ROWS))


def greedy(model):
    said = Sampler(model).sample([Prompt.user("the cat")], Sampling(max_new_tokens=8, temperature=0.0), seed=0)
    return said[0].text


def check_same(ws, artifact, ref):
    """The checkpoint of the step that was shipped, as a model, is the model."""
    kept, shipped = load_kept(ws, ref, "cpu"), load_kept(ws, artifact.id, "cpu")
    assert torch.equal(logprobs(kept), logprobs(shipped)) and greedy(kept) == greedy(shipped)
    assert not any(p.requires_grad for p in kept.parameters()) and kept.adapter is None and kept.source == ref
    run, was = Run.load(ws, ref.partition("@")[0]), dict(ws.names())
    result = dict(run.result)
    assert ship(ws, ref).id == artifact.id, "known to be"
    ws.update_run(run.id, result={})
    assert ship(ws, ref).id == artifact.id, "and made again"
    ws.update_run(run.id, result=result)
    assert list(Run.load(ws, run.id).row.outputs) == ["model"] and ws.names() == was
    return kept


def shipped_of(run):
    return f"{run.id}@{run.result['best_step']}"


@pytest.mark.parametrize("settings", (WHOLE, LORA), ids=("whole", "lora"))
@pytest.mark.parametrize("stage", ("sft", "dpo", "kto", "ilql"))
def test_a_checkpoint_is_the_model_that_was_made_of_it(workspace, data, checkpoint, stage, settings):
    start = api.resolve_model(workspace, str(checkpoint("Llama", 1)))
    given = {
        "sft": {"base": start, "data": "demonstrations", "heldout": 0.0},
        "dpo": {"policy": start, "data": "preferences"},
        "kto": {"policy": start, "data": "preferences", "sides_as_thumbs": True},
        "ilql": {"policy": start, "data": "preferences"},
    }[stage]
    made = getattr(api, stage)(workspace, **given, **FAST, model=settings)
    (run,) = runs(workspace)
    kept = check_same(workspace, made, shipped_of(run))
    others = [step for step, _ in run.checkpoints() if step != run.result["best_step"]]
    assert others, "there is another checkpoint to tell it from"
    other = load_kept(workspace, f"{run.id}@{others[0]}", "cpu")
    assert not torch.equal(logprobs(other), logprobs(kept))


@pytest.mark.parametrize("settings", (WHOLE, LORA), ids=("whole", "lora"))
@pytest.mark.parametrize("value", ("trunk", "own"))
def test_of_reinforcement_learning_the_policy_is_loaded_and_nothing_beside_it(
    workspace, checkpoint, tmp_path, settings, value
):
    (tmp_path / "scorer.py").write_text(SCORER)
    (tmp_path / "few.jsonl").write_text('{"prompt": "the cat"}\n{"prompt": "a dog"}\n')  # too few to hold any out
    api.add_data(workspace, str(tmp_path / "few.jsonl"), "prompts", name="few")
    made = api.rl(
        workspace, policy=str(checkpoint("Llama", 1)), reward=f"{tmp_path / 'scorer.py'}:brevity", prompts="few",
        prompts_per_step=2, samples_per_prompt=2, sampling={"max_new_tokens": 4}, value={"model": value},
        kl_coefficient=0.0, **FAST, model=settings,
    )  # fmt: skip
    (run,) = runs(workspace)
    kept = check_same(workspace, made, f"{run.id}@2")
    assert not torch.equal(logprobs(kept), logprobs(load_kept(workspace, f"{run.id}@1", "cpu")))


def test_pretraining_and_a_chain_of_adapters_on_it(workspace, data):
    shape = {"hidden": 32, "layers": 2, "heads": 4, "mlp": 64, "vocabulary": 320, "context": 96}
    base = api.pretrain(workspace, data="demonstrations", architecture=shape, heldout=0.0, name="base", **FAST)
    first = api.sft(workspace, base="base", data="demonstrations", heldout=0.0, **FAST, model=LORA)
    second = api.sft(workspace, base=first, data="demonstrations", heldout=0.0, **FAST, model=LORA, name="tuned")
    for run, artifact in zip(runs(workspace), (base, first, second), strict=True):
        check_same(workspace, artifact, shipped_of(run))
    assert find_kept(workspace, "tuned").ref == second.id and "tuned (sft" in find_kept(workspace, "tuned").words
    assert [each.ref for each in kept_models(workspace)] == [second.id, base.id, first.id], "named ones come first"
    assert find_kept(workspace, "tuned").made_from == {f"model {second.id[:8]}": second.id}


KEEP = {**FAST, "steps": 6, "run": {**QUIET, "evaluate_every": 1, "keep_weights": True}}


@pytest.mark.parametrize("settings", (WHOLE, LORA), ids=("whole", "lora"))
def test_of_every_evaluation_a_model_can_be_made(workspace, data, checkpoint, settings):
    made = api.sft(
        workspace, base=str(checkpoint("Llama", 1)), data="demonstrations", heldout=0.3, name="tuned",
        **KEEP, model=settings,
    )  # fmt: skip
    (run,) = runs(workspace)
    assert list(run.weights()) == [1, 2, 3, 4, 5, 6] and len(run.checkpoints()) < 4
    shared = [folder / "weights.safetensors" for _, folder in run.checkpoints()]
    kept = [run.weights()[step] / "weights.safetensors" for step, _ in run.checkpoints()]
    assert [a.stat().st_ino for a in shared] == [b.stat().st_ino for b in kept], "no byte is there twice"
    early = ship(workspace, f"{run.id}@2", "early")
    assert torch.equal(logprobs(load_kept(workspace, "early")), logprobs(load_kept(workspace, f"{run.id}@2")))
    assert not torch.equal(logprobs(load_kept(workspace, "early")), logprobs(load_kept(workspace, "tuned")))
    assert early.meta == made.meta and early.parents == made.parents and workspace.get("tuned").id == made.id
    assert Run.load(workspace, run.id).row.outputs == {"model": made.id, "model@2": early.id}
    assert workspace.lineage(early.id).nodes[early.id].run["id"] == run.id


def test_without_being_asked_a_run_keeps_no_more_than_it_did(workspace, data, checkpoint):
    settings = {**KEEP, "run": {**KEEP["run"], "keep_weights": False}}
    api.sft(workspace, base=str(checkpoint("Llama", 1)), data="demonstrations", heldout=0.3, **settings, model=WHOLE)
    (run,) = runs(workspace)
    assert list(run.weights()) == [step for step, _ in run.checkpoints()] and not (run.path / "weights").exists()
    with pytest.raises(NotFoundError, match="step 1 of .* is gone") as error:
        ship(workspace, f"{run.id}@1")
    assert "run.keep_weights" in error.value.hint


def test_commands_take_a_checkpoint_as_it_is(workspace, data, checkpoint, monkeypatch, tmp_path):
    (tmp_path / "scorer.py").write_text(SCORER)
    base = str(checkpoint("Llama", 1))
    api.sft(workspace, base=base, data="demonstrations", heldout=0.3, name="tuned", **KEEP, model=LORA)
    (run,) = runs(workspace)
    api.winrate(
        workspace, a=f"{run.id}@1", b=f"{run.id}@4", prompts="demonstrations",
        judge=f"{tmp_path / 'scorer.py'}:brevity", sampling={"max_new_tokens": 4}, limit=4, run={"threads": 1},
    )  # fmt: skip
    models = [ship(workspace, f"{run.id}@{step}").id for step in (1, 4)]
    assert [runs(workspace)[-1].row.inputs[role] for role in ("a", "b")] == models
    api.sft(workspace, base=f"{run.id}@2", data="demonstrations", **FAST, heldout=0.0, model=WHOLE)
    api.export(workspace, f"{run.id}@3", tmp_path / "out", merge=True)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    with pytest.raises(NotFoundError) as error:
        api.plan(workspace, "sft", {"base": f"{run.id}@2", "data": "demonstrations"}, SftConfig())
    assert "runs ship" in error.value.hint, "a plan writes nothing"


def test_a_damaged_spare_copy_ends_no_run_and_one_that_is_gone_is_said(workspace):
    run = Run.start(workspace, "sft", {"run": {"keep_weights": True}}, {}, seed=0)

    def write(folder):
        (folder / "weights.safetensors").write_text("w")

    run.checkpoint(1, write, score=1.0)
    for name in ("checkpoint.json", "weights.safetensors"):
        (run.weights()[1] / name).unlink()
        run.checkpoint(2, write, score=2.0)
        assert set(run.weights()) == {1, 2}
        remove(run._weights.all()[0][1])
        run.checkpoint(1, write, score=1.0)
    state = run.checkpoints()[0][1] / "checkpoint.json"
    state.write_text(state.read_text().replace("1.0", '"x"'))
    assert [each.ref for each in kept_checkpoints(workspace)], "a score that is no number takes nobody else away"
    with pytest.raises(NotFoundError, match="the checkpoint of step 5"):
        shipped(workspace, f"{run.id}@5")
    with pytest.raises(NotFoundError, match="names no step"):
        ship(workspace, run.id)
    run.interrupted()


def test_the_card_of_an_earlier_step_tells_of_that_step(workspace, data, checkpoint, tmp_path):
    api.sft(
        workspace, base=str(checkpoint("Llama", 1)), data="demonstrations", heldout=0.3, name="tuned",
        **KEEP, model=WHOLE,
    )  # fmt: skip
    (run,) = runs(workspace)
    for ref, folder in ((f"{run.id}@2", "early"), ("tuned", "end")):
        api.export(workspace, ref, tmp_path / folder)
    early, end = ((tmp_path / folder / "README.md").read_text() for folder in ("early", "end"))
    loss = {row["step"]: row["heldout_loss"] for row in run.metrics()}
    assert "It is step 2 of that run" in early and "of that run, and not" not in end
    assert f"{loss[2]:.4g}"[:5] in early and "best_step" not in early and "best_step" in end


@pytest.mark.parametrize("ref", ("nobody@3", "./folder@3", "http://127.0.0.1:9/v1#m@3", "owner/name@3", "tuned"))
def test_other_references_stay_what_they_are(workspace, ref):
    assert shipped(workspace, ref) is ref


def test_killed_between_a_checkpoint_and_the_weights_that_stay(workspace):
    run = Run.start(workspace, "sft", {"run": {"keep_weights": True}}, {}, seed=0)

    def write(folder, text):
        (folder / "weights.safetensors").write_text(text)

    for step in (1, 2, 3):
        run.checkpoint(step, lambda folder, step=step: write(folder, f"w{step}"), score=float(step))
    run.checkpoint(4, lambda folder: write(folder, "w4"))
    assert list(run.weights()) == [1, 2, 3, 4]
    assert [step for step, _ in run._weights.all()] == [1, 2, 3], "of evaluations"
    remove(run._weights.all()[2][1])
    (run._weights.all()[1][1] / "weights.safetensors").unlink()  # a link: the checkpoint's own file stays
    run._close()
    again = Run.resume(workspace, run.id)
    assert [step for step, _ in again._weights.all()] == [1, 2, 3]
    again.checkpoint(3, lambda folder: write(folder, "another w3"), score=3.0)
    assert (again.weights()[3] / "weights.safetensors").read_text() == "another w3", "what was done again counts"
    again.interrupted()


@pytest.fixture
def going_on(workspace):
    """A run that is not done, with checkpoints of which one is the best."""
    artifact = workspace.put("model", {"x": b"x"})
    run = Run.start(workspace, "sft", {"run": {}}, {"base": artifact}, seed=0, name="later")

    def write(folder):
        (folder / "weights.safetensors").write_bytes(b"no weights")

    for step, score in ((1, -1.0), (2, -0.5), (3, -0.75), (4, None)):
        run.checkpoint(step, write, score=score)
    yield run
    run.interrupted()


def test_checkpoints_of_a_run_that_goes_on_are_told_with_step_score_and_which_is_best(workspace, going_on):
    Run.start(workspace, "reward", {"run": {}}, {}, seed=0).interrupted()  # writes no text
    found = kept_checkpoints(workspace)
    assert [each.ref for each in found] == [f"{going_on.id}@{step}" for step in (4, 3, 2)]
    last, other, best = (each.words for each in found)
    assert "sft 'later'" in last and going_on.id in last and "step 4" in last and "going on" in last
    assert "held-out score -0.75" in other and "best" not in other and "held-out score -0.5, best" in best
    (base,) = workspace.artifacts("model")
    assert found[0].made_from == {f"base of {going_on.id}": base.id} and found[0].meta == {
        "run": going_on.id,
        "step": 4,
    }


def test_what_is_pruned_between_two_looks_is_passed_over_or_said(workspace, going_on, monkeypatch):
    (_, gone), (_, half), _ = going_on.checkpoints()
    remove(gone)
    (half / "checkpoint.json").unlink()
    assert [each.ref for each in kept_checkpoints(workspace)] == [f"{going_on.id}@4"]
    for step in (1, 2, 3):
        with pytest.raises(NotFoundError, match=f"step {step} of {going_on.id} is gone"):
            find_kept(workspace, f"{going_on.id}@{step}")
    with pytest.raises(NotFoundError, match="step 2 of .* is gone"):
        load_kept(workspace, f"{going_on.id}@2")
    with pytest.raises(RunError, match="damaged"):
        load_kept(workspace, f"{going_on.id}@3")


TRAINING = """
import sys
from trueup import Workspace, api
with Workspace.open(sys.argv[1]) as ws:
    quick = {"threads": 1, "tensorboard": False, "checkpoint_every": 1}
    api.sft(ws, base=sys.argv[2], data="demonstrations", heldout=0.0, steps=14, model={"adapter": "none"}, run=quick)
"""


@pytest.mark.timeout(120)
def test_while_a_run_goes_on_in_another_process_its_checkpoints_can_be_loaded(workspace, data, checkpoint):
    """It prunes them all the while: each is whole, or said to be gone."""
    words = [sys.executable, "-c", TRAINING, str(workspace.path), str(checkpoint("Llama", 1))]
    training = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    loaded, gone = set(), 0
    while training.poll() is None:
        for kept in kept_checkpoints(workspace):
            try:
                load_kept(workspace, kept.ref, "cpu")
                loaded |= {kept.ref} if "going on" in kept.words else set()
            except NotFoundError as error:
                gone += "is gone" in error.message
                assert "is gone" in error.message
    assert training.returncode == 0 and len(loaded) >= 2, (loaded, gone)
    assert all("going on" not in kept.words for kept in kept_checkpoints(workspace))


def test_a_damaged_checkpoint_is_not_loaded(workspace, going_on):
    (_, folder) = going_on.checkpoints()[-1]
    (folder / "weights.safetensors").write_bytes(b"other weights")
    with pytest.raises(RunError, match="is damaged"):
        load_kept(workspace, f"{going_on.id}@4")


def test_weights_of_another_shape_are_refused(workspace, data, checkpoint, monkeypatch):
    api.sft(workspace, base=str(checkpoint("Llama", 1)), data="demonstrations", heldout=0.0, **FAST, model=WHOLE)
    (run,) = runs(workspace)
    workspace.update_run(run.id, config={**run.config, "model": {**run.config["model"], "adapter": "lora"}})
    with pytest.raises(ModelError, match="does not fit what its run started from"):
        load_kept(workspace, f"{run.id}@2")


@pytest.mark.parametrize("ref", ("nothing", "x@1", "http://127.0.0.1:1/v1#m", "owner/name", "./folder", "@", ""))
def test_only_what_the_workspace_knows_can_be_named(workspace, ref):
    with pytest.raises(NotFoundError):
        find_kept(workspace, ref)


def test_other_kinds_and_odd_steps_are_refused(workspace, going_on):
    with pytest.raises(TrueupError, match="not 'model'"):
        find_kept(workspace, workspace.put("prompts", {"rows.jsonl": b"{}"}).id)
    for step in ("", "x", "-1", "4 ", "9" * 30, "\N{SUPERSCRIPT TWO}"):
        with pytest.raises(NotFoundError, match="is no step"):
            find_kept(workspace, f"{going_on.id}@{step}")
