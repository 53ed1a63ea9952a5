"""Runs seen from another process: how far they are, whether they live, and a word that stops them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from left_runs import prompts, rl_run
from small import add_small_data

from trueup import api, watching
from trueup.errors import ConfigError, Interrupted, RunError
from trueup.runs import Run, runs, track
from trueup.store import Workspace

SLOW = {"steps": 100_000, "batch_size": 2, "run.threads": 1, "run.tensorboard": "false", "run.checkpoint_every": 1000}


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace:
        yield workspace


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    ends = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.05)
    return found


def test_a_run_says_how_far_it_is_and_what_it_takes(ws):
    run = Run.start(ws, "sample", {}, {}, seed=0)
    seen = Run.load(ws, run.id)
    assert seen.now()["meters"] == [] and seen.now()["pid"] == os.getpid()
    with track(50, "outer") as advance:
        advance(10)
        run._now._looked -= 1  # as if a second had gone by
        with track(4, "inner") as inside:
            inside()
            now = seen.now()
            assert [(m["label"], m["done"], m["total"]) for m in now["meters"]] == [("outer", 10, 50), ("inner", 1, 4)]
            assert now["mib"] > 10 and now["cores"] >= 0 and time.time() - now["at"] < 10
    run.finish({})
    assert seen.now() is None and not (run.path / "now.json").exists()


def test_progress_around_a_run_is_not_its_own(ws):
    with track(3, "around") as around, Run.start(ws, "sample", {}, {}, seed=0) as run:
        run._now._looked -= 1
        around()
        assert Run.load(ws, run.id).now()["meters"] == []
        run.finish({})


def test_a_stage_without_steps_is_stopped_where_it_is(ws):
    with pytest.raises(Interrupted, match="somebody asked"), Run.start(ws, "sample", {}, {}, seed=0) as run:
        Run.load(ws, run.id).ask_to_stop()
        with track(9, "sample") as advance:
            for _ in range(9):
                run._now._looked -= 1
                advance()
    assert run.status == "interrupted" and not run.stop_asked
    with pytest.raises(RunError, match="not running"):
        Run.load(ws, run.id).ask_to_stop()


def test_a_full_disk_under_its_progress_ends_no_run(ws, monkeypatch):
    with Run.start(ws, "sample", {}, {}, seed=0) as run, track(2, "sample") as advance:
        run._now._looked -= 1
        monkeypatch.setattr("pathlib.Path.write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        advance()
        monkeypatch.undo()
        run.finish({})
    assert run.status == "done"


@pytest.fixture
def training(ws, checkpoint, tmp_path):
    """`training()`: SFT in another process that would go on for minutes."""
    add_small_data(ws, tmp_path)
    started: list[subprocess.Popen[bytes]] = []

    def start() -> tuple[Run, subprocess.Popen[bytes]]:
        settings = [part for key, value in SLOW.items() for part in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "trueup", "--workspace", str(ws.path), "train", "sft"]
        command += ["--base", str(checkpoint("Llama")), "--data", "demonstrations", *settings]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(process)
        until(lambda: runs(ws))
        run = runs(ws)[-1]
        until(lambda: (run.now() or {}).get("meters") and run.now()["meters"][0]["done"] > 5)
        return run, process

    yield start
    for process in started:
        process.kill()
        process.wait()
    for run in runs(ws):
        if run.status == "running":
            os.kill(int(run.path.joinpath("lock").read_text()), signal.SIGKILL)


def test_a_run_in_another_process_is_watched_stopped_killed_and_taken_up_again(ws, training):
    run, process = training()
    standing = watching.standing(run)
    assert standing["status"] == "running" and standing["pid"] == process.pid and standing["mib"] > 50
    assert standing["meters"][0]["total"] == 100_000 and standing["meters"][0]["left"] > 10
    assert watching.listed(ws)["going"][0]["last"], "its last metrics"
    run.ask_to_stop()
    assert process.wait(30) == 130 or process.returncode > 0
    assert run.status == "interrupted"
    (step,) = [step for step, _ in run.checkpoints()]
    assert step == len(run.metrics()) > 5, "it wrote a checkpoint of its last step"

    watching.go_on(run)
    until(lambda: run.status == "running" and (run.now() or {"meters": []})["meters"])
    with pytest.raises(RunError, match="running"):
        watching.go_on(run)
    os.kill(run.now()["pid"], signal.SIGKILL)
    until(lambda: run.status == "dead")
    standing = watching.standing(run)
    assert standing["can_go_on"] and standing["meters"] == [] and standing["learns"]
    assert watching.listed(ws)["going"] == [] and watching.listed(ws)["ended"][0]["status"] == "dead"

    watching.go_on(run, end_here=True)
    until(lambda: run.status == "done")
    assert run.outputs["model"] and run.result["best_step"] == step
    assert "as asked" in watching.log_of(run)


def test_what_a_resumed_run_failed_of_is_in_its_log(ws, training, checkpoint):
    run, _ = training()
    run.ask_to_stop()
    until(lambda: run.status == "interrupted")
    for _, folder in run.checkpoints():
        (folder / "weights.safetensors").write_bytes(b"")
    watching.go_on(run)
    until(lambda: "damaged" in watching.log_of(run))
    assert run.status == "interrupted"


def test_a_run_is_told_anew_when_there_is_more_and_not_more_often_than_is_cheap(ws, monkeypatch):
    run, teller = rl_run(ws, inputs={"prompts": prompts(ws, 4)}), watching.Teller()
    asked: list[str] = []
    monkeypatch.setattr(watching, "_told", lambda run: asked.append(run.id) or {"n": len(asked)})
    first = teller.tell(run)
    assert teller.tell(run) == first and len(asked) == 1
    run.event("note", "something new")
    state, told = teller.tell(run)
    assert told == {"n": 2} and state != first[0]
    monkeypatch.setattr(watching, "_told", lambda run: time.sleep(0.2) or asked.append(run.id) or {"n": len(asked)})
    run.event("note", "and again")
    assert teller.tell(run)[1] == {"n": 3}
    run.event("note", "so soon")
    assert teller.tell(run)[1] == {"n": 3}, "telling took long: not yet again"
    run.finish({})
    assert teller.tell(run)[1] == {"n": 4}, "but an end is told at once"


def test_the_newest_samples_are_from_the_highest_score_to_the_lowest(ws):
    run = rl_run(ws, inputs={"prompts": prompts(ws, 4)})
    found = watching.Teller().tell(run)[1]["latest"]
    assert (found["step"], found["of"], found["of_all"]) == (12, "the last evaluation", 4)
    assert [row["score"] for row in found["rows"]] == [9, 8, 7, 6]


def test_runs_beside_each_other_differ_in_what_differs(ws):
    made = [rl_run(ws, steps=steps) for steps in (6, 12, 12)]
    for run in made:
        run.finish({"best_step": 6})
    found = watching.beside(ws, [run.id for run in made], watching.Teller())
    assert [len(told["metrics"]["step"]) for told in found["runs"]] == [6, 12, 12]
    assert found["differ"] == {"settings": {}, "made from": {}, "versions": {}, "result": {}}
    other = Run.start(ws, "rl", {"optimizer": {"lr": 0.5}}, {}, seed=3)
    found = watching.beside(ws, [made[0].id, other.id], watching.Teller())
    assert found["differ"]["settings"]["optimizer.lr"] == [0.25, 0.5]
    assert found["differ"]["result"] == {"best_step": [6, None]}
    for few in ([made[0].id], [made[0].id] * 3):
        with pytest.raises(ConfigError, match="two to 6"):
            watching.beside(ws, few, watching.Teller())


def test_runs_are_listed_page_by_page_and_those_that_go_on_first(ws):
    ended = []
    for _ in range(watching.A_PAGE + 3):
        ended.append(Run.start(ws, "sample", {}, {}, seed=0))
        ended[-1].finish({})
    going = Run.start(ws, "sft", {}, {}, seed=0)
    pages = [watching.listed(ws, page) for page in (1, 2)]
    assert [each["id"] for each in pages[0]["going"]] == [going.id] and pages[1]["going"] == []
    listed = [each["id"] for page in pages for each in page["ended"]]
    assert len(pages[0]["ended"]) == watching.A_PAGE and pages[0]["pages"] == 2
    assert sorted(listed) == sorted(run.id for run in ended)
    going.finish({})


@pytest.mark.parametrize("line", ['{"step": "x"}', "[" * 60_000, '{"step": 1', "null"])
def test_one_damaged_run_takes_no_other_from_the_list(ws, line, monkeypatch):
    good, bad = rl_run(ws), rl_run(ws)
    good.finish({"best_step": 12}), bad.finish({"best_step": 12})
    with open(bad.path / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    found = {each["id"]: each for each in watching.listed(ws)["ended"]}
    assert found[good.id]["step"] == 12 and found[bad.id]["step"] is None
    real = watching.standing
    monkeypatch.setattr(watching, "standing", lambda run: real(run) if run.id == good.id else [][0])
    found = {each["id"]: each for each in watching.listed(ws)["ended"]}
    assert found[good.id]["status"] == "done" and "cannot be read: IndexError" in found[bad.id]["error"]
    assert found[bad.id].keys() == found[good.id].keys()


def test_watching_needs_no_torch(ws):
    rl_run(ws).finish({})
    program = (
        "import sys\nfrom trueup import watching\nfrom trueup.store import Workspace\n"
        "from trueup.web import create_app\n"
        f"ws = Workspace.find({str(ws.path)!r})\n"
        "create_app(ws, token='x')\nfrom trueup.runs import runs\nrun = runs(ws)[0]\n"
        "watching.Teller().tell(run)\nwatching.listed(ws)\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "False", found.stderr


def test_half_a_file_is_no_word(ws):
    run = Run.start(ws, "sample", {}, {}, seed=0)
    for junk in ("", "{", "[]", "null"):
        (run.path / "now.json").write_text(junk)
        assert run.now() is None and watching.standing(run)["meters"] == []
    (run.path / "now.json").write_text(json.dumps({"pid": 1, "at": 0, "meters": []}))
    assert run.now() is None, "of somebody who died before"
    run.finish({})


def test_a_run_in_a_thread_is_stopped_too(ws, checkpoint, tmp_path):
    """A loop in a thread of a notebook has no signals; asking works all the same."""
    import threading

    add_small_data(ws, tmp_path)
    failed: list[Exception] = []

    def work() -> None:
        try:
            api.sft(ws, base=str(checkpoint("Llama")), data="demonstrations", **SLOW_IN_PYTHON)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: runs(ws) and (runs(ws)[0].now() or {"meters": []})["meters"])
    runs(ws)[0].ask_to_stop()
    thread.join(60)
    assert isinstance(failed[0], Interrupted) and runs(ws)[0].checkpoints()


SLOW_IN_PYTHON = {
    "steps": 100_000,
    "batch_size": 2,
    "run": {"threads": 1, "tensorboard": False, "checkpoint_every": 1000},
}
