"""Numbers that are not finite and memory that is too small: what a run does about them, and what it says."""

from __future__ import annotations

import copy
import json
import math
import shutil

import pytest
import torch
from small import add_small_data, settings

from trueup import api, inputs
from trueup.cli import main as cli
from trueup.engines.fake import FakeScorer
from trueup.engines.sampler import Sampler
from trueup.errors import ModelError, RunError
from trueup.models.language_model import LanguageModel
from trueup.models.load import load_model, new_reward
from trueup.models.reward_model import SequenceReward
from trueup.models.rows import Group
from trueup.records import Judgement, Prompt
from trueup.runs import Run, runs
from trueup.train.judged import judged
from trueup.train.reward import reward
from trueup.train.rl import rl
from trueup.train.sft import sft

GROUPS: list[Group] = [((5, 11, 3, 7 + i), [(9, 30 + i, 2)]) for i in range(12)]
PROMPTS = [Prompt.user(word) for word in ("cat", "dog", "birds", "mat", "rain", "red")]


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def nan_at(monkeypatch, calls) -> None:
    """The model's log-probs are NaN in some of its forward passes."""
    logprobs, made = LanguageModel.logprobs, []

    def broken(self, *arguments, **named):
        made.append(1)
        return logprobs(self, *arguments, **named) * (math.nan if len(made) in calls else 1.0)

    monkeypatch.setattr(LanguageModel, "logprobs", broken)


def sft_settings(**given):
    return settings("sft", **({"steps": 6, "batch_size": 4, "optimizer": {"lr": 1e-2}} | given))


def rl_settings(**given):
    small = {"steps": 3, "prompts_per_step": 4, "samples_per_prompt": 2, "sampling": {"max_new_tokens": 6}}
    return settings("rl", **(small | {"score_scale": "none", "missing_eos_score": None} | given))


# --- not finite


def test_a_step_with_a_nan_loss_is_skipped_and_counted(make_model, train, monkeypatch):
    model = make_model()
    nan_at(monkeypatch, {3})
    run = train(sft, sft_settings(run={"checkpoint_every": 1}), model, GROUPS, [])
    (skip,) = run.events()
    assert (skip["kind"], skip["step"], skip["loss"]) == ("skip", 3, "nan")
    assert [row["loss"] is None for row in run.metrics()] == [False, False, True, False, False, False]
    assert all(torch.isfinite(p).all() for p in model.parameters()), "the NaN never reached the weights"
    assert len(run.metrics()) == 6, "and the run went on"


def test_a_skipped_step_changes_neither_weights_nor_optimizer(make_model, train, monkeypatch):
    """Six steps of which the last two are NaN leave what the first four did, Adam's memory included."""
    model = make_model()
    nan_at(monkeypatch, {5, 6})
    config = sft_settings(run={"checkpoint_every": 1})
    run = train(sft, config, model, GROUPS, [])
    (_, before), (_, after) = run.checkpoints()[-2:]
    for name in ("weights.safetensors", "optimizer.safetensors"):
        assert (before / name).read_bytes() == (after / name).read_bytes()


def test_an_infinite_gradient_is_skipped_though_the_loss_is_finite(make_model, train, monkeypatch):
    model = make_model()
    before = weights(model)

    class Exploding(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * math.inf

    logprobs = LanguageModel.logprobs
    monkeypatch.setattr(LanguageModel, "logprobs", lambda self, *a, **k: Exploding.apply(logprobs(self, *a, **k)))
    run = train(sft, sft_settings(steps=2), model, GROUPS, [])
    assert [event["kind"] for event in run.events()] == ["skip", "skip"]
    assert all(row["loss"] is not None for row in run.metrics())
    assert same(weights(model), before)


def test_too_many_skips_end_the_run_and_keep_its_last_good_checkpoint(make_model, train, monkeypatch, workspace):
    model = make_model()
    nan_at(monkeypatch, {*range(4, 99)})
    with pytest.raises(RunError, match="3 steps had a non-finite loss or gradient .the last: step 6") as found:
        train(sft, sft_settings(steps=50, run={"checkpoint_every": 2, "max_skipped": 2}), model, GROUPS, [])
    (run,) = runs(workspace)
    assert f"the weights of step 4 are kept in {run.path}/checkpoints/step-000004" in found.value.message
    assert f"trueup --workspace {workspace.path} runs resume {run.id} --end-here" in found.value.hint
    assert run.status == "failed" and len([e for e in run.events() if e["kind"] == "skip"]) == 3
    step, folder = run.checkpoints()[-1]
    from safetensors.torch import load_file

    assert step == 4 and all(torch.isfinite(t).all() for t in load_file(folder / "weights.safetensors").values())


def test_a_skip_is_said_when_it_first_comes_and_counted_at_the_end(make_model, train, monkeypatch, capsys):
    monkeypatch.setenv("TRUEUP_QUIET", "0")
    nan_at(monkeypatch, {2, 3, 5})
    train(sft, sft_settings(), make_model(), GROUPS, [])
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")] == [
        "note: sft: step 2 skipped: loss or gradient not finite (1 of at most 10)",
        "note: sft: 3 steps in all were skipped: loss or gradient not finite",
    ]


def test_too_many_skips_before_any_checkpoint_leave_one_and_its_model_can_be_had(
    workspace, checkpoint, tmp_path, monkeypatch, capsys
):
    """Of four steps the first two are good; the run gives up, and what it had learnt becomes a model all the same."""
    add_small_data(workspace, tmp_path)
    given = {"base": str(checkpoint("Llama")), "data": "demonstrations", "optimizer": {"lr": 1e-2}, "heldout": 0.0}
    quiet = {"threads": 1, "tensorboard": False}
    expected = api.sft(workspace, steps=2, **given, model={"adapter": "none"}, run=quiet)
    with monkeypatch.context() as broken:
        nan_at(broken, {3, 4})
        line = (
            f"--workspace {workspace.path} train sft --base {given['base']} --data demonstrations --steps 4 --lr 0.01"
        )
        line += " --threads 1 --heldout 0 --name tuned --set optimizer.schedule=constant --set model.adapter=none"
        line += " --set run.tensorboard=false --set run.max_skipped=1"
        capsys.readouterr()
        assert cli.run(line.split()) == 1
    error, hint = capsys.readouterr().err.splitlines()
    run = runs(workspace)[-1]
    assert (
        f"2 steps had a non-finite loss or gradient (the last: step 4); the weights of step 3 are kept in {run.path}"
        in (error)
    )
    command = hint.split("`")[1]
    assert command == f"trueup --workspace {workspace.path} runs resume {run.id} --end-here"
    assert cli.run(command.split()[1:]) == 0
    made = workspace.get("tuned")
    run = runs(workspace)[-1]
    assert run.status == "done" and run.result["best_step"] == 3 and run.events()[-1]["kind"] == "end"
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]
    start, two, three = (
        weights(load_model(inputs.chain(workspace, a), settings("sft").model))
        for a in (inputs.resolve_model(workspace, given["base"]), expected, made)
    )
    assert not same(start, three) and all(torch.isfinite(t).all() for t in three.values())
    assert three.keys() == two.keys()


def test_a_run_without_a_checkpoint_cannot_be_ended(workspace):
    config = settings("sft")
    run = Run.start(workspace, "sft", config.model_dump(mode="json"), {}, seed=0)
    run.fail("killed")
    with pytest.raises(RunError, match="has no checkpoint to end with"):
        api.resume(workspace, run.id, end_here=True)


@pytest.mark.parametrize("broken", (math.nan, math.inf, -math.inf))
def test_a_score_that_is_no_number_spoils_one_step_of_rl_and_no_weight(make_model, train, broken):
    """One among the scores makes every whitened advantage NaN: policy and value head skip together."""
    policy, rollouts = make_model(), []

    class OnceBroken(FakeScorer):
        def score(self, completions):
            rollouts.append(weights(policy))
            self.broken = len(rollouts) == 2
            return super().score(completions)

    scorer = OnceBroken(lambda c: broken if scorer.broken and c.prompt is completions_of else len(c.text))
    completions_of = PROMPTS[3]
    config = rl_settings(prompts_per_step=6, run={"checkpoint_every": 1})
    run = train(rl, config, policy, make_model(), Sampler(policy), scorer, PROMPTS, [])
    skips = [event for event in run.events() if event["kind"] == "skip"]
    assert skips and {event["step"] for event in skips} == {2}
    assert [row["score"] is None for row in run.metrics()] == [False, True, False]
    assert not same(rollouts[0], rollouts[1]) and same(rollouts[1], rollouts[2]), "step 2 changed nothing"
    assert all(torch.isfinite(p).all() for p in policy.parameters())


def test_scores_that_are_all_above_nothing_teach_what_those_around_nothing_teach(make_model, train):
    """Else a scorer that never says no would make everything that was written more likely."""

    def learnt(offset):
        policy = make_model()
        config = rl_settings(score_scale="reference")
        scorer = FakeScorer(lambda completion: len(completion.text) + offset)
        train(rl, config, policy, make_model(), Sampler(policy), scorer, PROMPTS, [])
        return weights(policy)

    start, around, above = weights(make_model()), learnt(-10.0), learnt(1000.0)
    for name, weight in around.items():
        moved = float((weight - start[name]).abs().max())
        assert float((weight - above[name]).abs().max()) <= 1e-3 * moved, name


# --- models that are not what a run needs


def elsewhere(checkpoint, folder):
    """A copy of a checkpoint that may be spoilt."""
    return shutil.copytree(checkpoint("Llama"), folder / "base")


RUN = {"threads": 1, "tensorboard": False, "checkpoint_every": 1}


def test_a_policy_whose_tokenizer_has_no_end_is_refused_and_one_without_a_pad_is_not(workspace, checkpoint, tmp_path):
    """A completion could never finish; without a pad token any other token pads, for padding is masked everywhere."""
    add_small_data(workspace, tmp_path)
    folder = elsewhere(checkpoint, tmp_path)
    names = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in names.items() if k != "eos_token"}))
    rules = tmp_path / "rules.py"
    rules.write_text("def brief(prompt, completion): return -len(completion)\n")
    given = {"policy": str(folder), "reward": f"{rules}:brief", "prompts": "prompts"}
    with pytest.raises(ModelError, match="no token ends a completion: the tokenizer has no EOS") as found:
        api.rl(workspace, **given, steps=1, run=RUN)
    assert "trueup train sft" in found.value.hint
    assert runs(workspace)[-1].status == "failed" and not runs(workspace)[-1].outputs
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in names.items() if k != "pad_token"}))
    assert api.rl(workspace, **given, steps=1, sampling={"max_new_tokens": 4}, run=RUN).kind == "model"


@pytest.mark.parametrize("adapter", ("lora", "none"))
def test_a_run_whose_base_changed_on_disk_is_not_resumed_and_keeps_its_checkpoint(
    workspace, checkpoint, tmp_path, monkeypatch, adapter
):
    """An adapter means nothing on other weights; put back as it was, the run goes on from where it had come."""
    add_small_data(workspace, tmp_path)
    folder = elsewhere(checkpoint, tmp_path)
    given = {"base": str(folder), "data": "demonstrations", "model": {"adapter": adapter}, "heldout": 0.0, "steps": 4}
    with monkeypatch.context() as broken:
        nan_at(broken, {3, 4})
        with pytest.raises(RunError, match="non-finite"):
            api.sft(workspace, **given, run=RUN | {"max_skipped": 1})
    run, path = runs(workspace)[-1], folder / "model.safetensors"
    whole, kept = path.read_bytes(), run.checkpoints()
    path.write_bytes(whole[:-4] + b"\1\2\3\4")
    with pytest.raises(ModelError, match="is not the one it was when it was first used"):
        api.resume(workspace, run.id)
    assert kept and Run.load(workspace, run.id).checkpoints() == kept
    path.write_bytes(whole)
    assert api.resume(workspace, run.id).meta["adapter"] == (adapter == "lora")


# --- out of memory


def breaks_above(monkeypatch, rows: int, cls=LanguageModel) -> None:
    """Stands in for a GPU that holds `rows` rows at once and no more."""
    logprobs = cls.logprobs

    def limited(self, laid, *arguments, **named):
        if len(laid.mask_cl) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return logprobs(self, laid, *arguments, **named)

    monkeypatch.setattr(cls, "logprobs", limited)


def test_out_of_memory_halves_the_micro_batch_and_does_the_same_step(make_model, train, monkeypatch, capsys):
    """8, 4, then 2 rows at once; each halving is said once, and the result is that of a run told so from the start."""
    expected, found = make_model(), make_model()
    often = {"evaluate_every": 2}
    small = train(sft, sft_settings(batch_size=8, run={"micro_batch": 2, **often}), expected, GROUPS, GROUPS)
    breaks_above(monkeypatch, 2)
    monkeypatch.setenv("TRUEUP_QUIET", "0")
    run = train(sft, sft_settings(batch_size=8, run=often), found, GROUPS, GROUPS)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: sft: {event['reason']}" for event in run.events()]
    assert [event["reason"] for event in run.events()] == [
        "memory ran out with 8 rows at once; going on with 4",
        "memory ran out with 4 rows at once; going on with 2",
    ]
    assert run.metrics() == small.metrics() and same(weights(found), weights(expected))


def test_in_rl_too_even_where_nothing_is_learnt(make_model, train, monkeypatch):
    """Log-probs under policy and reference are taken of the whole rollout: the first place to run out."""
    expected, found = make_model(), make_model()
    scorer = FakeScorer(lambda completion: len(completion.text))
    config = rl_settings(run={"micro_batch": 2})
    small = train(rl, config, expected, make_model(), Sampler(expected), scorer, PROMPTS, [])
    breaks_above(monkeypatch, 2)
    config = rl_settings()
    run = train(rl, config, found, make_model(), Sampler(found), scorer, PROMPTS, [])
    halvings = [event["reason"] for event in run.events() if event["kind"] == "memory"]
    assert [reason[-15:] for reason in halvings] == ["going on with 4", "going on with 2"]
    assert run.metrics() == small.metrics() and same(weights(found), weights(expected))


def test_what_a_halved_run_remembers_is_in_its_checkpoint(make_model, train, monkeypatch):
    """Resumed, it must not start at the full batch again and take other roundings."""
    import json

    breaks_above(monkeypatch, 2)
    run = train(sft, sft_settings(batch_size=8), make_model(), GROUPS, [])
    assert json.loads((run.checkpoints()[-1][1] / "loop.json").read_text())["micro_batch"] == 2


def test_a_cpu_that_runs_out_has_only_a_message(make_model, train, monkeypatch):
    logprobs = LanguageModel.logprobs

    def limited(self, laid, *arguments, **named):
        if len(laid.mask_cl) > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1024 bytes.")
        return logprobs(self, laid, *arguments, **named)

    monkeypatch.setattr(LanguageModel, "logprobs", limited)
    run = train(sft, sft_settings(), make_model(), GROUPS, [])
    assert [event["kind"] for event in run.events()] == ["memory"]


LIMITS = {"sft": "max_tokens", "reward": "max_tokens", "rl": "sampling.max_new_tokens"}


@pytest.mark.parametrize("stage, setting", LIMITS.items())
def test_a_single_row_that_does_not_fit_names_its_length_and_a_setting(
    make_model, train, monkeypatch, checkpoint, encoder, stage, setting
):
    model = make_model()
    with pytest.raises(RunError, match="one row at a time, the longest of (\\d+) tokens: CUDA out of memory") as found:
        if stage == "sft":
            breaks_above(monkeypatch, 0)
            longer = ((5, 6, 7), [tuple(range(3, 40))])
            train(sft, sft_settings(batch_size=13), model, [*GROUPS, longer], [])
        elif stage == "reward":
            classifier = new_reward("sequence", [str(checkpoint("Llama"))], settings("reward").model)

            def full(self, rows):
                raise torch.OutOfMemoryError("CUDA out of memory.")

            monkeypatch.setattr(SequenceReward, "forward", full)
            items, _ = judged(encoder, [Judgement(PROMPTS[0], ("rain", "the old town"), (1, 2), "a", "human")], 96)
            train(reward, settings("reward", steps=1), classifier, items, [])
        else:
            breaks_above(monkeypatch, 0)
            train(rl, rl_settings(), model, make_model(), Sampler(model), FakeScorer(lambda c: 0.0), PROMPTS, [])
    assert f"lower {setting}," in found.value.hint
    if stage == "sft":
        assert "the longest of 40 tokens" in found.value.message


def test_other_errors_are_not_mistaken_for_memory(make_model, train, monkeypatch, workspace):
    def broken(self, *arguments, **named):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(LanguageModel, "logprobs", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(sft, sft_settings(), make_model(), GROUPS, [])
    (run,) = runs(workspace)
    assert run.events() == [] and run.status == "failed"


def test_nothing_is_kept_alive_by_a_failed_attempt(make_model, train, monkeypatch):
    """The error of the failed attempt holds its tensors: they must be gone before the next one asks for memory."""
    import gc
    import weakref

    logprobs, held, alive = LanguageModel.logprobs, [], []

    def limited(self, laid, *arguments, **named):
        if held:
            alive.append(held[-1]() is not None)
        found = logprobs(self, laid, *arguments, **named)
        if len(laid.mask_cl) > 2:
            held.append(weakref.ref(laid.tokens_bt))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    monkeypatch.setattr(LanguageModel, "logprobs", limited)
    gc.collect()
    gc.disable()  # a collector that happens to run would hide what is wrong
    try:
        train(sft, sft_settings(steps=1), make_model(), GROUPS, [])
    finally:
        gc.enable()
    assert alive and not any(alive)


# --- not a bad moment: two runs side by side


def test_the_same_settings_give_the_same_bits(make_model, train):
    """Everything random is a function of the seed and the step."""

    def result(seed):
        policy = make_model()
        scorer = FakeScorer(lambda completion: len(completion.text))
        config = rl_settings(run={"seed": seed, "evaluate_every": 2})
        run = train(rl, config, policy, copy.deepcopy(policy), Sampler(policy), scorer, PROMPTS, PROMPTS[:2])
        return run.metrics(), run.samples(), weights(policy)

    one, two, other = result(1), result(1), result(2)
    assert one[:2] == two[:2] and same(one[2], two[2])
    assert one[1] != other[1]
