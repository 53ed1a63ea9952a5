"""A run writes down what it did, can be killed at any moment, and goes on as if nothing had happened."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from trueup.errors import DataError, Interrupted, NotFoundError, RunError, WorkspaceError
from trueup.records import Prompt
from trueup.runs import (
    Run,
    checkpoints,
    diff,
    duration,
    graceful,
    progress,
    quiet,
    runs,
    stop_requested,
    streams,
    track,
)
from trueup.runs.checkpoints import Checkpoints
from trueup.runs.left_out import LeftOut
from trueup.store import Workspace

ROOT = Path(__file__).parents[1]
TOY = Path(__file__).parent / "fixtures" / "toy_run.py"


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace:
        yield workspace


@pytest.fixture
def run(ws):
    return Run.start(ws, "sft", {"steps": 3, "run": {"seed": 1}}, {}, seed=1)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def weights(text: str):
    return lambda folder: (folder / "weights").write_text(text)


# The record


def test_the_life_of_a_run(ws):
    data = ws.put("data", {"a": b"1"})
    run = Run.start(ws, "sft", {"steps": 3, "betas": (0.9, 0.95)}, {"data": data}, seed=4, note="first try")
    assert run.id.split("-")[2] == "sft" and run.path == ws.path / "runs" / run.id
    assert (run.resume_step, run.resume_folder, run.status) == (0, None, "running")
    run.log(1, {"loss": 0.1})
    policy = ws.put("policy", {"w": b"2"}, parents={"data": data})
    run.output("policy", policy)
    run.finish({"loss": 0.5})
    seen = Run.load(ws, run.id[:-1])
    assert (seen.id, seen.stage, seen.seed, seen.status) == (run.id, "sft", 4, "done")
    assert seen.config == {"steps": 3, "betas": [0.9, 0.95]} and seen.row.note == "first try"
    assert seen.inputs == {"data": data} and seen.outputs == {"policy": policy}
    assert seen.result == {"loss": 0.5} and seen.row.started < seen.row.ended
    assert seen.row.versions["numpy"] == version("numpy") and seen.row.versions["python"].startswith("3.")
    assert ws.lineage(policy).nodes[policy.id].run["id"] == run.id
    with pytest.raises(AssertionError):
        seen.log(2, {"loss": 1.0})
    with pytest.raises(NotFoundError, match="near: "):
        Run.load(ws, run.id[:-4] + "zzzz")


def test_a_prefix_of_several_runs_is_an_error(ws):
    for _ in range(2):
        Run.start(ws, "sft", {}, {}, seed=0).finish({})
    assert len(runs(ws)) == 2
    with pytest.raises(NotFoundError, match="beginning of 2 runs"):
        Run.load(ws, runs(ws)[0].id[:4])


def test_config_and_result_must_be_json(ws, run):
    with pytest.raises(DataError, match="config.x"):
        Run.start(ws, "sft", {"x": float("nan")}, {}, seed=0)
    with pytest.raises(DataError, match="result"):
        run.finish({"x": object()})
    assert run.status == "running"
    assert [path.name for path in (ws.path / "runs").iterdir()] == [run.id]


@pytest.mark.parametrize(
    "error, status",
    [(ValueError("bad"), "failed"), (KeyboardInterrupt(), "interrupted"), (Interrupted("x"), "interrupted")],
)
def test_a_block_notes_how_it_ended(ws, error, status):
    with pytest.raises(type(error)), Run.start(ws, "sft", {}, {}, seed=0) as run:
        raise error
    assert run.status == status
    assert run.row.error == ("ValueError: bad" if status == "failed" else "")
    resumed = Run.resume(ws, run.id)
    assert (resumed.status, resumed.row.error) == ("running", "")
    resumed.finish({})


def test_who_may_resume(ws, run):
    with pytest.raises(RunError, match=f"is running .process {os.getpid()}."):
        Run.resume(ws, run.id)
    run.finish({})
    with pytest.raises(RunError, match="finished"):
        Run.resume(ws, run.id)
    assert Run.load(ws, run.id).status == "done"


def test_diff(ws):
    one, two = ws.put("data", {"a": b"1"}), ws.put("data", {"a": b"2"})
    a = Run.start(ws, "sft", {"steps": 3, "optimizer": {"lr": 1.0, "eps": 1}}, {"data": one}, seed=0)
    b = Run.start(ws, "sft", {"steps": 3, "optimizer": {"lr": 2.0, "eps": 1}, "new": []}, {"data": two}, seed=0)
    a.finish({"loss": 1})
    b.finish({"loss": 2})
    assert diff(Run.load(ws, a.id), Run.load(ws, b.id)) == {
        "config": {"optimizer.lr": (1.0, 2.0), "new": (None, [])},
        "inputs": {"data": (one.id, two.id)},
        "versions": {},
        "result": {"loss": (1, 2)},
    }


def test_a_resumed_run_still_gives_its_result_the_name_it_was_to_have(ws, tmp_path, monkeypatch):
    from trueup import api, wiring

    data = tmp_path / "demos.jsonl"
    data.write_text('{"prompt": "a question", "completion": "an answer"}\n')
    made = api.add_data(ws, str(data), "demonstrations").artifact

    def finished(run, config):
        run.finish({})
        return ws.put("model", {"weights": b"1"})

    def stopped(run, config):
        raise Interrupted("stopped at step 1")

    monkeypatch.setitem(wiring.EXECUTE, "pretrain", stopped)
    with pytest.raises(Interrupted):
        api.pretrain(ws, data=made, name="base")
    (row,) = [run.row for run in runs(ws) if run.stage == "pretrain"]
    assert row.name == "base" and "base" not in ws.names()
    monkeypatch.setitem(wiring.EXECUTE, "pretrain", finished)
    assert api.resume(ws, row.id).id == ws.get("base").id


def test_need_space(run, monkeypatch, capsys):
    monkeypatch.delenv("TRUEUP_QUIET")
    run.need_space(3 << 20)
    assert re.search(r"checkpoints take up to 3\.0 MiB of the .* that are free", capsys.readouterr().err)
    with pytest.raises(RunError, match=r"may need 1024\.0 TiB of disk"):
        run.need_space(1 << 50)


# Streams


def test_metrics_are_deterministic_and_times_are_elsewhere(run):
    run.log(1, {"loss": 0.1 + 0.2, "n": np.int64(3), "x": np.float32(0.1), "bad": math.nan, "worse": -math.inf})
    assert (run.path / "metrics.jsonl").read_text() == (
        '{"step": 1, "loss": 0.30000000000000004, "n": 3, "x": 0.10000000149011612, "bad": null, "worse": null}\n'
    )
    run.event("skipped", "the loss is not finite", step=2)
    assert run.events() == [{"kind": "skipped", "reason": "the loss is not finite", "step": 2}]
    assert [row["step"] for row in run.timing()] == [0, 1] and {"wall", "cpu", "at"} < set(run.timing()[1])


def test_a_reader_does_not_see_a_half_line(ws, run):
    run.log(1, {"loss": 1})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "lo')
    assert Run.load(ws, run.id).metrics() == [{"step": 1, "loss": 1}]


def test_a_full_disk_leaves_whole_lines(run, monkeypatch):
    run.log(1, {"loss": 1})
    write = os.write

    def full(descriptor, data):
        write(descriptor, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(streams.os, "write", full)
        with pytest.raises(WorkspaceError, match="no space left"):
            run.log(2, {"loss": 2})
    run.log(2, {"loss": 2})
    assert [row["step"] for row in run.metrics()] == [1, 2]
    assert (run.path / "metrics.jsonl").read_bytes().count(b"\n") == 2


def test_samples_are_bit_reproducible(ws, run):
    other = Run.start(ws, "sft", {}, {}, seed=1)
    rows = [{"text": "a\nb", "score": 0.5}, {"text": "é", "score": math.nan}]
    for each in (run, other):
        each.keep_samples(10, iter(rows))
        time.sleep(0.01)
    path = run.path / "samples" / "step-000010.jsonl.gz"
    assert path.read_bytes() == (other.path / "samples" / path.name).read_bytes()
    assert [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()] == run.samples(10)
    assert run.samples(10) == [{"text": "a\nb", "score": 0.5}, {"text": "é", "score": None}]
    run.keep_samples(2, [{"text": "c"}])
    assert [row["step"] for row in run.samples()] == [2, 10, 10]


# Checkpoints


def test_the_last_two_and_the_best_are_kept(run):
    for step, score in enumerate([0.1, 0.9, 0.9, math.nan, None, 0.3], 1):
        run.checkpoint(step, weights(f"w{step}"), score=score)
    assert [step for step, _ in run.checkpoints()] == [2, 5, 6]
    best = run.best()
    assert best is not None and best[0] == 2 and (best[1] / "weights").read_text() == "w2"
    state = json.loads((best[1] / "checkpoint.json").read_text())
    assert (state["step"], state["score"], state["files"]["weights"]["bytes"]) == (2, 0.9, 2)
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == ["step-000002", "step-000005", "step-000006"]


def test_without_scores_there_is_no_best(run):
    assert run.best() is None and run.checkpoints() == []
    run.checkpoint(1, weights("w"))
    assert run.best() is None


def test_a_checkpoint_that_fails_leaves_the_ones_before(run):
    run.checkpoint(1, weights("w1"))

    def fail(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise RuntimeError("PytorchStreamWriter failed: No space left on device")

    with pytest.raises(WorkspaceError, match="no space left"):
        run.checkpoint(2, fail)
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["step-000001"]


def test_the_same_step_can_be_written_again(run):
    run.checkpoint(1, weights("old"))
    run.checkpoint(1, weights("new"))
    ((_, folder),) = run.checkpoints()
    assert (folder / "weights").read_text() == "new"


def test_resume_cuts_everything_after_the_checkpoint(ws, run):
    run.log(1, {"loss": 1})
    run.event("a", "before")
    run.keep_samples(1, [{"text": "a"}])
    run.checkpoint(1, weights("w"))
    run.log(2, {"loss": 2})
    run.event("b", "after")
    run.keep_samples(2, [{"text": "b"}])
    (run.path / "samples" / ".half.tmp").write_text("half")
    run.interrupted()
    resumed = Run.resume(ws, run.id)
    assert resumed.resume_step == 1 and resumed.resume_folder == run.path / "checkpoints" / "step-000001"
    assert resumed.metrics() == [{"step": 1, "loss": 1}]
    assert [event["kind"] for event in resumed.events()] == ["a"]
    assert [p.name for p in (run.path / "samples").iterdir()] == ["step-000001.jsonl.gz"]
    resumed.log(2, {"loss": 2})
    assert resumed.metrics()[1] == {"step": 2, "loss": 2}
    walls = [row["wall"] for row in resumed.timing()]
    assert walls == sorted(walls) and len(walls) == 5  # both attempts count


def test_resume_without_a_checkpoint_begins_again(ws, run):
    run.log(1, {"loss": 1})
    run.fail("no reason")
    resumed = Run.resume(ws, run.id)
    assert (resumed.resume_step, resumed.resume_folder, resumed.metrics()) == (0, None, [])


def test_a_damaged_checkpoint_is_not_used(ws, run):
    for step in (1, 2):
        run.log(step, {"loss": step})
        run.checkpoint(step, weights("w"))
    run.interrupted()
    folder = run.checkpoints()[-1][1]
    (folder / "weights").write_text("W")
    with pytest.raises(RunError, match="damaged .weights: changed") as caught:
        Run.resume(ws, run.id)
    assert str(folder) in caught.value.hint
    assert Run.load(ws, run.id).status == "interrupted"
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert Run.resume(ws, run.id).metrics() == [{"step": 1, "loss": 1}]


@pytest.mark.parametrize("content", (None, b"", b"\0" * 90, b'{"step": 2, "sco', b"[]", b"{}"))
def test_a_checkpoint_that_no_longer_says_what_it_is_is_named(ws, run, content):
    for step in (1, 2):
        run.checkpoint(step, weights("w"))
    run.interrupted()
    state = run.checkpoints()[-1][1] / "checkpoint.json"
    state.unlink() if content is None else state.write_bytes(content)
    with pytest.raises(RunError, match="step-000002 is damaged .checkpoint.json: (missing|changed)") as caught:
        Run.resume(ws, run.id)
    assert f"delete {state.parent}" in caught.value.hint


def test_folders_that_are_no_checkpoints_are_left_alone_and_empty_ones_are_named(ws, run):
    run.checkpoint(1, weights("w"))
    run.interrupted()
    (run.path / "checkpoints" / "step-abc").mkdir()
    resumed = Run.resume(ws, run.id)
    assert resumed.checkpoints() == run.checkpoints() and resumed.resume_step == 1
    resumed.interrupted()
    (run.path / "checkpoints" / "step-000099").mkdir()
    with pytest.raises(RunError, match="step-000099 is damaged"):
        Run.resume(ws, run.id)


def test_a_damaged_best_checkpoint_is_noticed_when_a_run_goes_on_and_before_it_ships(ws, run):
    for step, score in ((1, 0.9), (2, 0.1), (3, 0.2)):
        run.checkpoint(step, weights("w"), score=score)
    run.interrupted()
    folder = run.path / "checkpoints" / "step-000001"
    (folder / "weights").write_text("W")
    for act in (lambda: Run.resume(ws, run.id), run.best):
        with pytest.raises(RunError, match="step-000001 is damaged .weights: changed"):
            act()
    shutil.rmtree(folder)
    best = Run.resume(ws, run.id).best()
    assert best is not None and best[0] == 3


def test_a_resumed_run_keeps_no_more_checkpoints_than_any(ws, run, monkeypatch):
    """Killed before the ones that are too many were removed."""
    with monkeypatch.context() as killed:
        killed.setattr(Checkpoints, "_prune", lambda self: None)
        for step in range(1, 6):
            run.checkpoint(step, weights("w"), score=-step)
    run.interrupted()
    assert [step for step, _ in Run.resume(ws, run.id).checkpoints()] == [1, 4, 5]


@pytest.mark.parametrize("name", ("metrics.jsonl", "events.jsonl"))
def test_a_stream_of_zeros_is_named_before_anything_is_trained_and_where_it_is_read(ws, run, name):
    run.log(1, {"loss": 1})
    run.event("a", "b")
    run.checkpoint(1, weights("w"))
    run.interrupted()
    path = run.path / name
    path.write_bytes(b"\0" * path.stat().st_size)
    reads = run.metrics if name == "metrics.jsonl" else run.events
    for act in (reads, lambda: Run.resume(ws, run.id)):
        with pytest.raises(RunError, match=f"{name}:1 is damaged"):
            act()
    path.write_bytes(b"[1]\n")
    with pytest.raises(RunError, match=f"{name}:1 is damaged"):
        reads()


def test_a_stream_that_lost_lines_is_not_continued(ws, run):
    run.log(1, {"loss": 1})
    run.checkpoint(1, weights("w"))
    run.interrupted()
    (run.path / "metrics.jsonl").write_bytes(b"")
    with pytest.raises(RunError, match="shorter"):
        Run.resume(ws, run.id)


# Killed


def toy(ws: Workspace, name: str, *death: object) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(TOY), str(ws.path), str(ws.path / name), *map(str, death)]
    return subprocess.Popen(command, env=environment)


def deterministic(run: Run) -> dict[str, bytes]:
    kept = ("metrics.jsonl", "events.jsonl", "samples/", "checkpoints/")
    return {name: data for name, data in files_of(run.path).items() if name.startswith(kept)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    ws = Workspace.create(tmp_path_factory.mktemp("undisturbed") / "ws")
    assert toy(ws, "id").wait() == 0
    return Run.load(ws, (ws.path / "id").read_text())


def test_killed_at_random_moments_equals_undisturbed(ws, undisturbed):
    moments = random.Random(11)
    for _ in range(6):
        assert toy(ws, "id", "after", moments.randrange(1, 60)).wait() == -signal.SIGKILL
        assert runs(ws)[0].status == "dead"
    assert len(runs(ws)[0].metrics()) > 0
    assert toy(ws, "id").wait() == 0
    (run,) = runs(ws)
    assert run.status == "done" and run.result == undisturbed.result
    assert deterministic(run) == deterministic(undisturbed)


def test_killed_at_the_worst_moments_equals_undisturbed(ws, undisturbed):
    moments = ["inside line", "inside checkpoint", "before name", "before pruning", "inside line"]
    torn = []
    for moment, step in zip(moments, (3, 8, 8, 16, 22), strict=True):
        assert toy(ws, "id", moment, step).wait() == -signal.SIGKILL, moment
        torn.append(not (runs(ws)[0].path / "metrics.jsonl").read_bytes().endswith(b"\n"))
    assert torn == [True, False, False, False, True]
    assert toy(ws, "id").wait() == 0
    (run,) = runs(ws)
    assert deterministic(run) == deterministic(undisturbed)
    assert [row["step"] for row in run.metrics()] == [*range(1, 101)]


def test_half_a_checkpoint_is_ignored(ws):
    assert toy(ws, "id", "inside checkpoint", 8).wait() == -signal.SIGKILL
    (run,) = runs(ws)
    assert (run.path / "checkpoints" / ".new-step-000008" / "half.txt").exists()
    assert [step for step, _ in run.checkpoints()] == [4]
    resumed = Run.resume(ws, run.id)
    assert resumed.resume_step == 4
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["step-000004"]


def test_a_doomed_folder_never_looks_complete(run, monkeypatch):
    """Pruning is killed between two files of a folder: what is left must not be taken for a checkpoint."""
    run.checkpoint(1, weights("w1"))
    run.checkpoint(2, weights("w2"))

    def half(folder: Path) -> None:
        if folder.name.startswith(".old-") and folder.exists():
            (folder / "weights").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "remove", half)
    with pytest.raises(KeyboardInterrupt):
        run.checkpoint(3, weights("w3"))
    assert [step for step, _ in run.checkpoints()] == [2, 3]


# TensorBoard


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) in the order written, read with tensorboardX's own protocol buffers."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def test_tensorboard_gets_the_finite_values(ws):
    run = Run.start(ws, "sft", {"run": {"tensorboard": True}}, {}, seed=0)
    run.log(1, {"loss": 0.5, "bad": math.nan})
    run.checkpoint(1, weights("w"))
    run.interrupted()
    resumed = Run.resume(ws, run.id)
    resumed.log(2, {"loss": 0.25})
    resumed.finish({})
    assert len(list((run.path / "tensorboard").iterdir())) == 2
    assert sorted(scalars(run.path / "tensorboard")) == [("loss", 1, 0.5), ("loss", 2, 0.25)]


def test_tensorboard_asked_for_but_missing(ws, monkeypatch):
    monkeypatch.setattr("trueup.runs.board.find_spec", lambda name: None)
    with pytest.raises(RunError, match="tensorboardX is not installed"):
        Run.start(ws, "sft", {"run": {"tensorboard": True}}, {}, seed=0)
    assert runs(ws) == [] and list((ws.path / "runs").iterdir()) == []


# Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_estimate_comes_from_what_was_expected_then_from_the_rate():
    clock = Clock()
    meter = progress.Meter(100, "sft", start=20, expected=50.0, clock=clock)
    assert meter.left == 40.0  # a fifth was done by an earlier attempt
    clock.now = 4.0
    meter.advance(1, {})
    assert meter.left == 36.0
    meter.advance(3, {"loss": 1.23456})
    assert meter.rate == 1.0 and meter.left == 76.0
    assert meter.line() == "sft  24/100  24%  1/s  1m16s left  loss 1.235"
    assert progress.Meter(5, "rl", clock=clock).left is None
    assert progress.Meter(0, "rl", clock=clock).line() == "rl  0/0"


def test_plain_lines_come_now_and_then_and_at_the_end(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    monkeypatch.setattr(progress.Meter.__init__, "__defaults__", (0, 0.0, clock))
    monkeypatch.delenv("TRUEUP_QUIET", raising=False)
    with track(12, "sft") as advance:
        for _ in range(12):
            clock.now += 1
            advance(loss=0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[1] for line in err.splitlines()] == ["5/12", "10/12", "12/12"]
    assert err.splitlines()[-1].endswith("loss 0.5  in 12s")


def test_quiet(capsys, monkeypatch):
    monkeypatch.setenv("TRUEUP_QUIET", "1")
    with track(1, "sft") as advance:
        advance()
    monkeypatch.delenv("TRUEUP_QUIET")
    quiet()
    with track(1, "sft") as advance:
        advance()
    assert capsys.readouterr().err == ""
    quiet(False)
    with track(1, "sft") as advance:
        advance()
    assert "sft  1/1 100%" in capsys.readouterr().err


def test_a_note_is_one_line_unless_there_should_be_none(run, capsys, monkeypatch):
    monkeypatch.delenv("TRUEUP_QUIET", raising=False)
    run.tell("memory", "8 rows are too many", rows=4)
    assert capsys.readouterr().err == "note: sft: 8 rows are too many\n"
    monkeypatch.setenv("TRUEUP_QUIET", "1")
    run.tell("memory", "4 rows are too many")
    assert capsys.readouterr().err == ""
    run.finish({})
    assert run.events() == [
        {"kind": "memory", "reason": "8 rows are too many", "rows": 4},
        {"kind": "memory", "reason": "4 rows are too many"},
    ]


def test_what_was_left_out_is_said_once_and_not_again_by_a_resumed_run(ws, run, capsys, monkeypatch):
    monkeypatch.delenv("TRUEUP_QUIET", raising=False)
    data = ws.put("prompts", {"rows.jsonl": b""})
    long = [(number, Prompt.user(f"prompt {number} " + "x" * 99)) for number in range(3, 10)]
    left_out = LeftOut(data, "prompt", 50, 7, 12, tuple(long))
    LeftOut(data, "prompt", 50, 0, 12).tell(run)
    left_out.tell(run)
    said = f"7 of 12 prompts of {data.id} left out: longer than 50 tokens (first: row 3, 'prompt 3 {'x' * 51}...')"
    assert capsys.readouterr().err == f"note: sft: {said}\n"
    run.resume_folder = run.path
    left_out.tell(run)
    assert capsys.readouterr().err == ""
    run.finish({})
    (event,) = run.events()
    assert event["reason"] == said and [row["row"] for row in event["rows"]] == [3, 4, 5, 6, 7]
    assert event["rows"][0]["prompt"] == long[0][1].id


def test_how_to_go_on_names_the_workspace_only_where_it_would_not_be_found(run, ws, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRUEUP_WORKSPACE", "")
    named = f"trueup --workspace {ws.path} runs resume {run.id}"
    assert run.resume_command == named
    monkeypatch.chdir(ws.path / "runs")
    assert run.resume_command == f"trueup runs resume {run.id}"
    Workspace.create(tmp_path / "other").close()
    monkeypatch.setenv("TRUEUP_WORKSPACE", str(tmp_path / "other"))
    assert run.resume_command == named, "the environment would lead elsewhere"
    run.finish({})


def test_bars_on_a_terminal(tmp_path):
    """Nested stages on a real pseudo-terminal, and a note above their bars; stdout stays clean."""
    import pty

    code = (
        "from trueup.runs.progress import note, track\n"
        "with track(2, 'demo') as outer:\n"
        "    with track(3, 'sft') as inner:\n"
        "        for i in range(3): inner(loss=0.25)\n"
        "        note('a [b]row[/b] is left out')\n"
        "    outer(2)\n"
    )
    master, slave = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "TRUEUP_QUIET"}
    environment |= {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=slave, env=environment)
    shown = b""
    reader = threading.Thread(target=lambda: (process.wait(), os.close(slave)))
    reader.start()
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    reader.join()
    os.close(master)
    assert process.returncode == 0 and process.stdout is not None and process.stdout.read() == b""
    process.stdout.close()
    text = shown.decode()
    assert re.search(r"note: a \[b\]row\[/b\] is left out\s*\r\n", text), "a line of its own"
    assert "demo" in text and "2/2" in text and "3/3" in text and "loss 0.25" in text


def test_duration():
    assert [duration(s) for s in (0.4, 59.6, 75, 3700)] == ["0s", "1m00s", "1m15s", "1h01m"]


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops(number, capfd):
    before = signal.getsignal(number)
    with graceful() as asked:
        with graceful():
            assert not stop_requested()
            os.kill(os.getpid(), number)
            assert stop_requested()
        assert asked()  # the inner block does not swallow it
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(1)
    assert not stop_requested() and signal.getsignal(number) is before
    assert "stopping after this step" in capfd.readouterr().err


def test_graceful_in_a_thread_changes_nothing():
    seen = []

    def work() -> None:
        with graceful() as asked:
            seen.append((asked(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]
