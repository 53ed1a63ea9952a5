"""The same metrics, and samples as tables that grow, for Weights & Biases and MLflow, where a run asks for them.

What a tracker does wrong never ends a run: it is said once, and the tracker gets nothing more. Where they send things
is theirs to say (`WANDB_MODE`, `MLFLOW_TRACKING_URI`); without a word MLflow writes into the workspace.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..errors import RunError
from .progress import note

PROJECT = "trueup"
ROWS = 16  # samples of a step that go into a table, evenly chosen: they are there to be read
COLUMNS = ("step", "kind", "prompt", "completion", "score", "kl", "length")


class Tracker(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None: ...
    def samples(self, rows: Sequence[Sequence[Any]]) -> None: ...
    def close(self, status: str) -> None: ...


class Wandb:
    """One run of the same id, also after a resume."""

    def __init__(self, folder: Path, identity: str, stage: str, config: Mapping[str, Any]) -> None:
        wandb = import_module("wandb")
        os.environ.setdefault("WANDB_SILENT", "true")
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), id=identity, name=identity, group=stage, job_type=stage,
            config=dict(config), dir=str(folder), resume="allow",
        )  # fmt: skip
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._table = wandb.Table(columns=list(COLUMNS), log_mode="INCREMENTAL")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def samples(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            self._table.add_data(*row)
        self._run.log({"samples": self._table})

    def close(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "done" else 1)


class Mlflow:
    """One run, found again after a resume by the tag that holds our id."""

    def __init__(self, folder: Path, identity: str, stage: str, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        mlflow = import_module("mlflow")
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it makes
        home = folder.parents[1]  # the workspace
        tracking = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"
        self._client = mlflow.MlflowClient(tracking_uri=tracking)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        files = None if "MLFLOW_TRACKING_URI" in os.environ else (home / "mlflow").as_uri()
        where = experiment.experiment_id if experiment else self._client.create_experiment(name, files)
        known = self._client.search_runs([where], f"tags.`trueup.run` = '{identity}'")
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {"trueup.run": identity, "trueup.stage": stage}
            self._id = self._client.create_run(where, run_name=identity, tags=tags).info.run_id
            for key, value in _flat(config):
                self._client.log_param(self._id, key, str(value)[:500])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        entities = import_module("mlflow.entities")
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [entities.Metric(name, value, now, step) for name, value in values.items()])

    def samples(self, rows: Sequence[Sequence[Any]]) -> None:
        columns = {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}
        self._client.log_table(self._id, columns, "samples.json")  # appends to what is there

    def close(self, status: str) -> None:
        ended = {"done": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED")
        self._client.set_terminated(self._id, ended)


KINDS: dict[str, Callable[[Path, str, str, Mapping[str, Any]], Tracker]] = {"wandb": Wandb, "mlflow": Mlflow}


class Trackers:
    """Those that a run asked for, each told the same. `prompts` are asked for once, when the first samples come."""

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        identity: str,
        stage: str,
        config: Mapping[str, Any],
        prompts: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._prompts, self._open = prompts, dict[str, Tracker]()
        if missing := [name for name in names if find_spec(name) is None]:
            raise RunError(
                f"run.trackers names {missing[0]}, which is not installed",
                f"`pip install {missing[0]}`, or leave it out",
            )
        for name in names:
            self._say(name, self._begin, name, folder, identity, stage, config)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        finite = {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
        for name in list(self._open):
            self._say(name, self._open[name].write, step, finite)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]], heldout: bool) -> None:
        if not self._open or not rows:
            return
        count, kind = min(ROWS, len(rows)), "evaluation" if heldout else "rollout"
        table = []
        for row in (rows[i * len(rows) // count] for i in range(count)):
            prompt = self._texts.get(row["prompt"], row["prompt"])
            table.append([step, kind, prompt, row["text"], row.get("score"), row.get("kl"), row.get("length")])
        for name in list(self._open):
            self._say(name, self._open[name].samples, table)

    def close(self, status: str) -> None:
        for name in list(self._open):
            self._say(name, self._open[name].close, status)
        self._open = {}

    @cached_property
    def _texts(self) -> Mapping[str, str]:
        return self._prompts()

    def _begin(self, name: str, folder: Path, identity: str, stage: str, config: Mapping[str, Any]) -> None:
        self._open[name] = KINDS[name](folder, identity, stage, config)

    def _say(self, name: str, say: Callable[..., object], *given: Any) -> None:
        try:
            say(*given)
        except Exception as error:  # whatever somebody else's service raises: the run is worth more
            self._open.pop(name, None)
            note(f"{name} gets nothing more of this run: {type(error).__name__}: {error}")


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found
