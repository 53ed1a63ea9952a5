"""W&B and MLflow are told what a run logs, by their own libraries, without a network; and cannot end it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from trueup.errors import RunError
from trueup.records import Prompt
from trueup.runs import Run
from trueup.runs.trackers import ROWS, Trackers
from trueup.store import Workspace, read_jsonl

PROMPTS = [Prompt.user(f"question {i}") for i in range(40)]


def installed(name: str) -> Any:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}")


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as made:
        yield made


def prompts(ws):
    rows = "".join(json.dumps(p.to_json()) + "\n" for p in PROMPTS)
    return {"prompts": ws.put("prompts", {"rows.jsonl": rows.encode()})}


def rows(step):
    return [
        {"prompt": p.id, "text": f"answer {i} at {step}", "score": i / 9, "kl": 0.5, "length": 3, "finished": True}
        for i, p in enumerate(PROMPTS)
    ]


def start(ws, *names):
    config = {"run": {"trackers": list(names)}, "optimizer": {"lr": 0.25}}
    return Run.start(ws, "rl", config, prompts(ws), seed=0)


@installed("mlflow")
def test_mlflow_has_metrics_settings_and_a_table_that_grows_over_a_resume(ws, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    run = start(ws, "mlflow")
    run.log(1, {"score": 1.0, "kl": float("nan")})
    run.keep_samples(1, rows(1))
    run.checkpoint(1, lambda folder: (Path(folder) / "x").write_text("x"))
    run.interrupted()
    again = Run.resume(ws, run.id)
    again.log(2, {"score": 2.0})
    again.keep_samples(2, rows(2), heldout=True)
    again.finish({})
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{ws.path / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("trueup").experiment_id])
    assert found.info.run_name == run.id and found.info.status == "FINISHED"
    assert found.data.params["optimizer.lr"] == "0.25" and "kl" not in found.data.metrics
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "score")] == [(1, 1.0), (2, 2.0)]
    kept = json.loads(Path(client.download_artifacts(found.info.run_id, "samples.json", str(tmp_path))).read_text())
    table = [dict(zip(kept["columns"], row, strict=True)) for row in kept["data"]]
    assert [row["kind"] for row in table] == ["rollout"] * ROWS + ["evaluation"] * ROWS
    assert table[0]["prompt"] == "question 0" and table[ROWS]["completion"] == "answer 0 at 2"


@installed("wandb")
def test_wandb_offline_has_metrics_and_a_table(ws, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = start(ws, "wandb")
    run.log(1, {"score": 1.0})
    run.keep_samples(1, rows(1))
    run.log(2, {"score": 2.0})
    run.keep_samples(2, rows(2))
    run.finish({})
    (kept,) = (run.path / "wandb").glob(f"offline-run-*-{run.id}")
    (stored,) = kept.glob("*.wandb")
    assert run.id.encode() in stored.read_bytes() and b"optimizer" in stored.read_bytes()
    tables = [json.loads(path.read_text()) for path in sorted(kept.rglob("*.table.json"))]
    texts = [row[table["columns"].index("completion")] for table in tables for row in table["data"]]
    assert {"answer 0 at 1", "answer 0 at 2"} <= set(texts) and len(texts) == 2 * ROWS, "each step adds its own rows"


def test_a_tracker_that_fails_never_ends_a_run(ws, monkeypatch):
    told = []
    monkeypatch.setattr("trueup.runs.trackers.note", told.append)

    class Broken:
        def __init__(self, *given):
            self.told = 0

        def write(self, step, values):
            raise ConnectionError("nobody there")

    monkeypatch.setattr("trueup.runs.trackers.find_spec", lambda name: True)
    monkeypatch.setattr("trueup.runs.trackers.KINDS", {"wandb": Broken, "mlflow": lambda *given: 1 / 0})
    run = start(ws, "wandb", "mlflow")
    run.log(1, {"score": 1.0})
    run.log(2, {"score": 2.0})
    run.keep_samples(2, rows(2))
    run.finish({})
    assert sorted(told) == [
        "mlflow gets nothing more of this run: ZeroDivisionError: division by zero",
        "wandb gets nothing more of this run: ConnectionError: nobody there",
    ], "once each"
    assert [row["score"] for row in run.metrics()] == [1.0, 2.0] and run.status == "done"


def test_one_that_is_not_installed_is_refused_before_there_is_a_run(ws, monkeypatch):
    monkeypatch.setattr("trueup.runs.trackers.find_spec", lambda name: None)
    with pytest.raises(RunError, match="names wandb, which is not installed") as caught:
        start(ws, "wandb")
    assert "pip install wandb" in caught.value.hint and not list(ws.run_rows())


def test_at_most_so_many_samples_a_step_evenly_chosen(tmp_path, monkeypatch):
    told: list[Any] = []

    class Ear:
        def __init__(self, *given):
            pass

        def samples(self, table):
            told.append(table)

        def close(self, status):
            told.append(status)

    monkeypatch.setattr("trueup.runs.trackers.find_spec", lambda name: True)
    monkeypatch.setattr("trueup.runs.trackers.KINDS", {"wandb": Ear})
    trackers = Trackers(["wandb"], tmp_path, "id", "rl", {}, lambda: {PROMPTS[0].id: "asked"})
    trackers.samples(3, rows(3), heldout=False)
    trackers.samples(3, [], heldout=False)
    trackers.close("done")
    assert len(told) == 2 and len(told[0]) == ROWS and told[1] == "done"
    assert told[0][0] == [3, "rollout", "asked", "answer 0 at 3", 0.0, 0.5, 3] and told[0][1][2] == PROMPTS[2].id


def test_samples_on_disk_are_the_same_with_and_without_a_tracker(ws):
    run = start(ws)
    path = run.keep_samples(1, iter(rows(1)))
    run.finish({})
    assert list(read_jsonl(path)) == rows(1)
