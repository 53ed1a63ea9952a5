"""Killed at any moment and resumed, a run ends as if nothing had happened: the same bits, in every file.

Each stage runs once undisturbed. Then it runs in processes that kill themselves with SIGKILL (no handler, no flush) at
chosen calls and are resumed with `trueup runs resume`; weights, optimizer, metrics, events and samples are compared
by hash, and the artifact by its id, which is a hash of its content.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fixtures import dying_stage
from small import add_small_data

from trueup import api
from trueup.runs import Run, runs
from trueup.store import Workspace, describe_files

# Forked from a process that has imported everything once: a stage then starts in a moment.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["fixtures.dying_stage", "peft", "transformers.models.llama.modeling_llama"])

QUIET = {"run.threads": 1, "run.tensorboard": "false"}
OFTEN = {"run.evaluate_every": 4, "run.checkpoint_every": 3}
ROLLOUT = {
    "prompts_per_step": 4,
    "samples_per_prompt": 3,
    "guard.evaluation_prompts": 4,
    "sampling.max_new_tokens": 6,
    "sampling.temperature": 0.9,
    "optimizer.lr": 3e-3,
}
FINISHED = {"missing_eos_score": "none"}  # texts of six tokens seldom end: what scores do is seen only without it
# The price of KL is so high, and the steps so long, that every evaluation is worse than the start.
FALLING = {"kl_coefficient": 5.0, "optimizer.lr": 3e-2, "guard.confidence": 0.55, "guard.max_approx_kl": 100.0}
INPUTS = {
    "sft": {"base": "BASE", "data": "demonstrations"},
    "reward": {"base": "sft", "data": "preferences"},
    "rl": {"policy": "sft", "reward": "judge", "prompts": "prompts"},
    "rl-lora": {"policy": "sft", "reward": "judge", "prompts": "prompts"},
    "rl-own": {"policy": "sft", "reward": "judge", "prompts": "prompts"},
    "rl-reward": {"policy": "sft", "reward": "adapter", "prompts": "prompts"},
    "rl-own-lora": {"policy": "sft", "reward": "judge", "prompts": "prompts"},
    "rl-reward-full": {"policy": "sft", "reward": "judge", "prompts": "prompts", "demonstrations": "demonstrations"},
    "rl-few-bits": {"policy": "sft", "reward": "adapter", "prompts": "prompts"},
    "rl-floors": {"policy": "sft", "reward": ("help=judge", "FUNCTION"), "prompts": "prompts"},
    "rl-rloo": {"policy": "sft", "reward": "judge", "prompts": "prompts", "judge": "judge"},
    "rl-grpo": {"policy": "sft", "reward": "judge", "prompts": "prompts", "demonstrations": "demonstrations"},
    "rl-reinforce": {"policy": "sft", "reward": "judge", "prompts": "prompts"},
    "dpo": {"policy": "sft", "data": "preferences"},
    "dpo-online": {"policy": "sft", "reward": "judge", "prompts": "prompts"},
    "kto": {"policy": "sft", "data": "preferences"},
    "ilql": {"policy": "sft", "data": "preferences", "reward": "judge"},
}
SETTINGS = {
    "sft": {"steps": 9, "batch_size": 4, "heldout": 0.2, "optimizer.name": "muon", **OFTEN},
    "reward": {"steps": 9, "batch_size": 4, "model.adapter": "lora", **OFTEN},
    "rl": {"steps": 8, **ROLLOUT, **OFTEN},
    "rl-lora": {
        "steps": 4, "model.adapter": "lora", **ROLLOUT, "run.evaluate_every": 2, "run.checkpoint_every": 1,
    },
    "rl-own": {
        "steps": 5, "value.model": "own", "value.lr": 1e-3, **ROLLOUT, **FINISHED, "run.evaluate_every": 2,
        "run.checkpoint_every": 2,
    },
    # On one base: the policy's adapter, the reward model's, and the value's, which starts as that one and learns first.
    "rl-reward": {
        "steps": 5, "value.model": "reward", "value.warmup_steps": 2, "model.adapter": "lora", **ROLLOUT, **FINISHED,
        "run.evaluate_every": 3, "run.checkpoint_every": 1,
    },
    "rl-own-lora": {
        "steps": 5, "value.model": "own", "value.warmup_steps": 1, "model.adapter": "lora", "kl_target": 0.5,
        "score_scale": "running", **ROLLOUT, **FINISHED, "run.evaluate_every": 2, "run.checkpoint_every": 2,
    },
    "rl-reward-full": {
        "steps": 5, "value.model": "reward", "value.warmup_steps": 1, "sft_coefficient": 0.1, **ROLLOUT, **FINISHED,
        "run.evaluate_every": 2, "run.checkpoint_every": 2,
    },
    "rl-few-bits": {
        "steps": 5, "value.model": "reward", "model.adapter": "lora", "model.quantise": "int8", **ROLLOUT, **FINISHED,
        "run.evaluate_every": 2, "run.checkpoint_every": 2,
    },
    # Two scorers, one of them a Python function with a floor whose multiplier moves.
    "rl-floors": {
        "steps": 5, "scoring.objectives": '[{name="help"}, {name="brief", weight=0.0, at_least=0.2}]',
        "scoring.floor": "multiplier", "scoring.multiplier_rate": 0.5, **ROLLOUT, **FINISHED, "run.evaluate_every": 2,
        "run.checkpoint_every": 2,
    },
    # Between them: every estimator, a coefficient that is adapted, a running scale, and runs that go back.
    "rl-rloo": {
        "steps": 8, "estimator": "rloo", "kl_target": 0.5, "score_scale": "running", **ROLLOUT, **OFTEN, **FALLING,
    },
    "rl-grpo": {
        "steps": 8, "estimator": "grpo", "kl_in": "loss", "kl_estimator": "k3", "sft_coefficient": 0.1, **ROLLOUT,
        **OFTEN,
    },
    "rl-reinforce": {
        "steps": 8, "estimator": "reinforce++", "entropy_bonus": 0.01, "reference_rate": 0.2, **ROLLOUT, **OFTEN,
        **FALLING, "guard.remedy": "raise-kl",
    },
    "dpo": {"steps": 9, "batch_size": 4, "optimizer.lr": 3e-3, **OFTEN},
    "dpo-online": {
        "online": "true", "steps": 6, "batch_size": 4, "samples_per_prompt": 3, "updates": 2,
        "guard.evaluation_prompts": 4,
        "missing_eos_score": "none",
        "sampling.max_new_tokens": 6, "sampling.temperature": 0.9, "optimizer.lr": 3e-3, **OFTEN,
    },
    "kto": {
        "sides_as_thumbs": "true", "steps": 9, "batch_size": 4, "optimizer.lr": 3e-3, "model.adapter": "lora", **OFTEN,
    },
    "ilql": {"steps": 9, "batch_size": 4, "optimizer.lr": 3e-3, **OFTEN},
}  # fmt: skip


GUARDED = ("rl", "dpo-online")  # what these names begin with is evaluated before its first step
GO_BACK = ("rl-rloo", "rl-reinforce")

# Says how brief a text is, unless a file beside it tells it to break at a call, or to hang there.
RULES = """
import time
from pathlib import Path

beside, calls = Path(__file__).parent, []

def brief(completions):
    calls.append(1)
    if (beside / "trouble").exists():
        kind, call = (beside / "trouble").read_text().split()
        if kind == "breaks" and len(calls) == int(call):
            raise OSError("away")
        if len(calls) >= int(call) + (kind == "breaks"):
            (beside / "reached").touch()
            time.sleep(600)
    return [-len(completion.text) for completion in completions]
"""


@dataclass(frozen=True)
class Trace:
    """All that a run left and that must not depend on how often it was killed."""

    artifact: str
    result: dict
    files: dict[str, dict]

    @classmethod
    def of(cls, run: Run) -> Trace:
        (artifact,) = run.outputs.values()
        kept = ("metrics.jsonl", "events.jsonl", "samples/", "checkpoints/")
        files = {name: found for name, found in describe_files(run.path).items() if name.startswith(kept)}
        return cls(artifact.id, dict(run.result), files)


class Stages:
    """The stages of one workspace, run in processes of their own, each once undisturbed for comparison."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.rules = folder.parent / "rules.py"
        self.rules.write_text(RULES)
        self.references = {"BASE": str(base), "FUNCTION": f"brief={self.rules}:brief"}
        self.said = folder.parent / "stderr.txt"  # of the last command line
        self._undisturbed: dict[str, Trace] = {}

    def command(self, stage: str) -> list[str]:
        words = ["train", stage.partition("-")[0]]
        for role, refs in INPUTS[stage].items():
            for ref in (refs,) if isinstance(refs, str) else refs:
                words += [f"--{role}", self.references.get(ref, ref)]
        for key, value in (SETTINGS[stage] | QUIET).items():
            words += ["--set", f"{key}={value}"]
        return words

    def call(self, arguments: list[str], moment: str = "", count: int = 1, number: int = signal.SIGKILL) -> int:
        """Run one `trueup` command line; its exit code, negative when it was killed."""
        process = self.start(arguments, moment, count, number)
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def start(self, arguments: list[str], *death: Any) -> Any:
        whole = ["--workspace", str(self.folder), *arguments]
        process = PROCESSES.Process(target=dying_stage.run_and_die, args=(whole, self.said, *death))
        process.start()
        return process

    def last_run(self) -> str:
        with Workspace.open(self.folder) as workspace:
            return runs(workspace)[-1].id

    def trace(self, run_id: str) -> Trace:
        with Workspace.open(self.folder) as workspace:
            run = Run.load(workspace, run_id)
            assert run.status == "done"
            return Trace.of(run)

    def undisturbed(self, stage: str) -> Trace:
        if stage not in self._undisturbed:
            assert self.call(self.command(stage)) == 0
            self._undisturbed[stage] = self.trace(self.last_run())
        return self._undisturbed[stage]

    def killed(self, stage: str, deaths: list[tuple[str, int]]) -> str:
        """Start a stage and kill it, resume it and kill it again, ...; its run's id."""
        (moment, count), *more = deaths
        assert self.call(self.command(stage), moment, count) == -signal.SIGKILL, f"never came: {moment} ({count})"
        run_id = self.last_run()
        for moment, count in more:
            assert self.call(["runs", "resume", run_id], moment, count) == -signal.SIGKILL, f"never came: {moment}"
        return run_id


@pytest.fixture(scope="module")
def stages(tmp_path_factory, checkpoint) -> Iterator[Stages]:
    folder = tmp_path_factory.mktemp("resume")
    with Workspace.create(folder / "w") as workspace:
        add_small_data(workspace, folder)
        base = checkpoint("Llama")
        quick = {"steps": 2, "run": {"threads": 1, "tensorboard": False}}
        api.sft(workspace, base=str(base), data="demonstrations", name="sft", **quick)
        api.reward(workspace, base="sft", data="preferences", name="judge", **quick)
        lora = quick | {"model.adapter": "lora"}
        api.reward(workspace, base="sft", data="preferences", name="adapter", **lora)
    yield Stages(folder / "w", base)


def assert_same(found: Trace, expected: Trace) -> None:
    assert found.files.keys() == expected.files.keys()
    changed = [name for name in expected.files if found.files[name] != expected.files[name]]
    assert not changed, f"not the same bits: {changed}"
    assert (found.artifact, found.result) == (expected.artifact, expected.result)


def test_what_is_compared_is_worth_comparing(stages):
    """Checkpoints with weights and optimizer, every step's metrics, samples, and the scale of the scores."""
    files = stages.undisturbed("rl").files
    assert {"metrics.jsonl", "events.jsonl", "samples/step-000001.jsonl.gz", "samples/step-000008.jsonl.gz"} <= set(
        files
    )
    kept = {name.split("/")[1] for name in files if name.startswith("checkpoints/")}
    assert {"step-000006", "step-000008"} <= kept <= {"step-000004", "step-000006", "step-000008"}
    for name in ("weights.safetensors", "optimizer.safetensors", "loop.json"):
        assert f"checkpoints/step-000008/{name}" in files
    assert files["metrics.jsonl"]["bytes"] > 1000 and files["events.jsonl"]["bytes"] > 0
    with Workspace.open(stages.folder) as workspace:
        (run,) = [run for run in runs(workspace) if run.stage == "rl" and run.status == "done"][:1]
        assert run.metrics()[-1]["kl"] > 0.01, "the policy must have moved, or resuming would prove nothing"


def test_rl_killed_three_times_is_as_if_it_never_was(stages):
    """Inside an epoch, inside the write of a checkpoint, inside an evaluation; then taken up by a fresh interpreter."""
    expected = stages.undisturbed("rl")
    chance = random.Random(1)
    deaths = [("inside an epoch", chance.randint(14, 20)), ("inside a checkpoint", 2), ("inside an evaluation", 1)]
    run_id = stages.killed("rl", deaths)
    resume = ["-m", "trueup", "--workspace", str(stages.folder), "runs", "resume", run_id]
    done = subprocess.run([sys.executable, *resume], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert expected.artifact in done.stdout
    assert_same(stages.trace(run_id), expected)


@pytest.mark.parametrize("stage, moment, count", [
    ("sft", "inside an optimizer step", random.Random(2).randint(5, 9)),
    ("reward", "inside an epoch", random.Random(3).randint(2, 9)),
    ("rl-lora", "inside a line of metrics", 4),
    pytest.param("rl-own", "inside an epoch", 11, marks=pytest.mark.slow),
    pytest.param("rl-own-lora", "inside an optimizer step", 9, marks=pytest.mark.slow),
    ("rl-reward", "inside a checkpoint", 3),
    pytest.param("rl-few-bits", "inside an epoch", 9, marks=pytest.mark.slow),
    pytest.param("rl-floors", "inside the start evaluation", 1, marks=pytest.mark.slow),
    ("rl", "after the model is stored, before it is the run's", 1),
    ("dpo", "inside an epoch", random.Random(4).randint(5, 9)),
    ("dpo-online", "inside an epoch", random.Random(5).randint(5, 10)),
    pytest.param("kto", "inside an optimizer step", random.Random(6).randint(4, 9), marks=pytest.mark.slow),
    ("ilql", "inside a checkpoint", 3),
    ("rl-rloo", "inside a rollback", 2),
    pytest.param("rl-grpo", "inside an epoch", random.Random(4).randint(15, 25), marks=pytest.mark.slow),
    pytest.param("rl-reinforce", "inside a checkpoint", 4, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_stage_killed_once_is_as_if_it_never_was(stages, stage, moment, count):
    expected = stages.undisturbed(stage)
    run_id = stages.killed(stage, [(moment, count)])
    assert stages.call(["runs", "resume", run_id]) == 0
    assert_same(stages.trace(run_id), expected)


def test_the_runs_that_are_killed_do_go_back(stages):
    for stage in GO_BACK:
        stages.undisturbed(stage)
        with Workspace.open(stages.folder) as workspace:
            found = [run for run in runs(workspace) if run.config.get("estimator", "").startswith(stage[3:])]
            assert sum(event["kind"] == "rollback" for event in found[0].events()) >= 2


@pytest.mark.parametrize("trouble", ("hangs 6", "breaks 6"))
def test_killed_while_a_scorer_hangs_or_is_asked_again(stages, trouble):
    """From outside, as people do with a run that does not move: in the first try, or in the one after a failed one."""
    expected = stages.undisturbed("rl-floors")
    mark, reached = stages.rules.with_name("trouble"), stages.rules.with_name("reached")
    mark.write_text(trouble)
    process = stages.start(stages.command("rl-floors"))
    while process.is_alive() and not reached.exists():
        time.sleep(0.02)
    assert reached.exists(), stages.said.read_text()
    process.kill()
    process.join()
    for path in (mark, reached):
        path.unlink()
    run_id = stages.last_run()
    assert process.exitcode == -signal.SIGKILL
    assert stages.call(["runs", "resume", run_id]) == 0
    assert_same(stages.trace(run_id), expected)


def test_killed_between_the_weights_and_the_optimizer_of_a_rollback_and_again_while_a_checkpoint_is_read(stages):
    expected = stages.undisturbed("rl-reinforce")
    half_way = ("half-way through reading a checkpoint", 1)
    run_id = stages.killed("rl-reinforce", [half_way, half_way])
    assert stages.call(["runs", "resume", run_id]) == 0
    assert_same(stages.trace(run_id), expected)


def can_come(stage: str, moment: str) -> bool:
    if moment == "inside the start evaluation":
        return stage.startswith(GUARDED)
    if moment == "inside an evaluation":
        return stage not in GO_BACK  # all of theirs are worse than the start, and none gets a checkpoint
    return stage in GO_BACK or moment not in ("inside a rollback", "half-way through reading a checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage, moment",
    [(stage, moment) for moment in dying_stage.MOMENTS for stage in SETTINGS if can_come(stage, moment)],
)
def test_at_every_kind_of_moment(stages, stage, moment):
    """Each kind of moment at a random count, twice in a row, for every stage where it can come."""
    expected = stages.undisturbed(stage)
    chance = random.Random(f"{stage} {moment}")
    first = 2 if moment == "inside a line of metrics" else 1  # the very first is written before there is a run
    deaths = [(moment, 1 if moment in dying_stage.AT_THE_END else chance.randint(first, first + 1)), (moment, 1)]
    run_id = stages.killed(stage, deaths)
    assert stages.call(["runs", "resume", run_id]) == 0
    assert_same(stages.trace(run_id), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("stage", ("rl", "rl-rloo", "rl-grpo", "rl-reinforce"))
def test_every_estimator_at_a_random_update(stages, stage, seed):
    """Those that go back may stop early: fewer updates are sure to come."""
    expected = stages.undisturbed(stage)
    last = 12 if stage in GO_BACK else 30
    run_id = stages.killed(stage, [("inside an optimizer step", random.Random(f"{stage} {seed}").randint(1, last))])
    assert stages.call(["runs", "resume", run_id]) == 0
    assert_same(stages.trace(run_id), expected)


@pytest.mark.parametrize("stage", ("sft", "rl"))
def test_ctrl_c_writes_a_checkpoint_says_how_to_go_on_and_exits_130(stages, stage):
    expected = stages.undisturbed(stage)
    code = stages.call(stages.command(stage), "inside an epoch", 6, signal.SIGINT)
    run_id, said = stages.last_run(), stages.said.read_text()
    assert code == 130
    assert (
        f"hint: trueup --workspace {stages.folder} runs resume {run_id}\n" in said
        and "the checkpoint is written" in said
    )
    with Workspace.open(stages.folder) as workspace:
        run = Run.load(workspace, run_id)
        stopped, _ = run.checkpoints()[-1]
        assert run.status == "interrupted" and stopped == len(run.metrics()), "at the end of the step it was in"
    assert stages.call(["runs", "resume", run_id]) == 0
    found = stages.trace(run_id)
    extra = f"checkpoints/step-{stopped:06d}/"  # pruned again unless it was among the last two
    comparable = {name: f for name, f in found.files.items() if not name.startswith(extra) or name in expected.files}
    assert_same(Trace(found.artifact, found.result, comparable), expected)


def test_a_finished_run_cannot_be_resumed(stages):
    stages.undisturbed("sft")
    with Workspace.open(stages.folder) as workspace:
        (done, *_) = [run.id for run in runs(workspace) if run.status == "done"]
    assert stages.call(["runs", "resume", done]) == 1
    assert f"error: run {done} is finished" in stages.said.read_text()


def test_a_damaged_checkpoint_is_an_error_that_names_it(stages):
    """Better no model than one from half of a file."""
    run_id = stages.killed("sft", [("inside an epoch", 8)])
    with Workspace.open(stages.folder) as workspace:
        _, folder = Run.load(workspace, run_id).checkpoints()[-1]
    path = folder / "weights.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    assert stages.call(["runs", "resume", run_id]) == 1
    assert "is damaged (weights.safetensors: changed)" in stages.said.read_text()


def test_nothing_in_a_checkpoint_tells_the_time(stages):
    """Or two equal runs would have different ones."""
    stages.undisturbed("rl")
    with Workspace.open(stages.folder) as workspace:
        done = [run for run in runs(workspace) if run.stage == "rl" and run.status == "done"]
        (run, *_) = [run for run in done if (run.config["steps"], run.config["estimator"]) == (8, "ppo")]
        state = json.loads((run.checkpoints()[-1][1] / "loop.json").read_text())
    assert set(state) == {"step", "skipped", "micro_batch", "stopped", "learnt", "memory", "torch_random"}
    assert set(state["memory"]) == {"score_mean", "score_std", "score_start", "start", "good", "good_value", "flat"}
