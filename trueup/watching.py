"""What the live page tells of runs: which there are, how far one is, several beside each other; going on with one.

Everything is read from the workspace, so a run may be in any process, or in none any more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import STAGES, flat
from .errors import ConfigError, RunError, brief
from .loading import prompts_of
from .records import digest
from .reporting import LEARNS, about, artifacts_of
from .reports.headlines import headline
from .runs import Run
from .runs.history import of_now
from .runs.run import STREAMS
from .runs.streams import last_row
from .store import Workspace

A_PAGE = 40  # runs listed at once
MOST_BESIDE = 6  # as many as there are colours
SILENT = 300.0  # seconds without a word, after which a page says so
KEPT_FOR = 20  # times as long as telling took: watching must not cost a run its processor
MOST_KEPT = 16  # runs
LOG = "resumed.log"  # what a run that was taken up from a page printed
LOG_SHOWN = 2_000  # characters of it
SHOWN = (
    "heldout_score",
    "score",
    "gold",
    "kl",
    "heldout_loss",
    "loss",
    "accuracy",
)  # in a list, the first two of these


def listed(ws: Workspace, page: int = 1) -> dict[str, Any]:
    """The runs, newest first; those that go on stand before all others."""
    going = [run for row in ws.newest_runs(status="running") if (run := Run(ws, row)).status == "running"]
    alive, of_all = [run.id for run in going], ws.count_runs()
    pages = max(1, -(-(of_all - len(alive)) // A_PAGE))
    page = max(1, min(page, pages))
    ended = ws.newest_runs(without=alive, offset=(page - 1) * A_PAGE, most=A_PAGE)
    return {
        "going": [_card(run) for run in going] if page == 1 else [],
        "ended": [_card(Run(ws, row)) for row in ended],
        "page": page,
        "pages": pages,
        "of_all": of_all,
    }


def standing(run: Run) -> dict[str, Any]:
    """How a run is at this moment."""
    status = run.status
    now = run.now() if status == "running" else None
    silent = max(0.0, time.time() - now["at"]) if now else None
    meters = list(now["meters"]) if now else []
    if meters and meters[0]["left"] is not None:  # it was said a while ago
        meters[0] = meters[0] | {"left": max(0.0, meters[0]["left"] - (silent or 0.0))}
    return {
        "status": status,
        "meters": meters,
        "silent": silent,
        "seems_stuck": silent is not None and silent > SILENT,
        "cores": now["cores"] if now else None,
        "mib": now["mib"] if now else None,
        "gpu_mib": now["gpu_mib"] if now else None,
        "pid": now["pid"] if now else None,
        "stop_asked": status == "running" and run.stop_asked,
        "learns": run.stage in STAGES and bool(run.checkpoints()),
        "can_go_on": status in ("dead", "failed", "interrupted"),
    }


def _card(run: Run) -> dict[str, Any]:
    """One run whose files are damaged must not take the list of all others away."""
    try:
        return _brief(run)
    except Exception as error:
        why = f"its files cannot be read: {type(error).__name__}: {brief(str(error), 200, 2)}"
        row = run.row
        return {
            "id": run.id, "stage": run.stage, "name": row.name, "note": row.note, "started": row.started,
            "ended": row.ended, "error": why, "step": None, "last": [], "found": "", "status": "failed", "meters": [],
            "silent": None, "seems_stuck": False, "cores": None, "mib": None, "gpu_mib": None, "pid": None,
            "stop_asked": False, "learns": False, "can_go_on": False,
        }  # fmt: skip


def _brief(run: Run) -> dict[str, Any]:
    last = last_row(run.path / STREAMS[0])
    shown = [(name, last[name]) for name in SHOWN if isinstance(last.get(name), int | float)]
    return {
        "id": run.id,
        "stage": run.stage,
        "name": run.row.name,
        "note": run.row.note,
        "started": run.row.started,
        "ended": run.row.ended,
        "error": run.row.error,
        "step": step if isinstance(step := last.get("step"), int) else None,
        "last": shown[:2],
        "found": _found(run),
        **standing(run),
    }


def _found(run: Run) -> str:
    """Of a run that learns nothing what came of it, in a sentence."""
    if run.row.status != "done" or run.stage in LEARNS:
        return ""
    told = {
        "status": "done", "stage": run.stage, "result": dict(run.row.result), "config": dict(run.config), "metrics": {},
        "start": {}, "inputs": artifacts_of(run.workspace, run.row.inputs),
    }  # fmt: skip
    return headline(told)


# --- one run


@dataclass
class Teller:
    """`reporting.about` of runs that may be going on. What takes a second to tell is told anew after twenty."""

    _kept: OrderedDict[str, tuple[str, float, dict[str, Any]]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, run: Run) -> tuple[str, dict[str, Any]]:
        """What a page says of it, with a name for this state of it."""
        with self._lock:
            state = _state(run)
            known, until, told = self._kept.get(run.id, ("", 0.0, {}))
            if known == state or (known.split(" ")[:1] == state.split(" ")[:1] and time.monotonic() < until):
                self._kept.move_to_end(run.id)
                return known, told
            began = time.monotonic()
            told = _told(run)
            self._kept[run.id] = state, time.monotonic() + KEPT_FOR * (time.monotonic() - began), told
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return state, told


def _told(run: Run) -> dict[str, Any]:
    """A run that is taken up again cuts its files back while they are read here: once more, then."""
    for _ in range(5):
        with suppress(FileNotFoundError):
            return about(run) | {"latest": _latest(run)}
        time.sleep(0.05)
    return about(run) | {"latest": _latest(run)}


def _state(run: Run) -> str:
    """Changes whenever there is something new to tell; its first word is the status."""
    marks: list[Any] = []
    for path in (*(run.path / name for name in STREAMS), run.path / "samples", run.path / "checkpoints"):
        try:
            found = path.stat()
            marks.append((found.st_size, found.st_mtime_ns))
        except FileNotFoundError:
            marks.append(None)
    return f"{run.status} {digest(marks)[:16]}"


def _latest(run: Run) -> dict[str, Any]:
    """Of the newest completions that were kept some to read, with what was asked."""
    found = of_now(run)
    asked = prompts_of(run) if found["rows"] else {}
    return {**found, "prompts": {key: prompt.text for key, prompt in asked.items()}}


# --- several


def beside(ws: Workspace, ids: Sequence[str], teller: Teller) -> dict[str, Any]:
    """Two to six runs: what each is, their metrics, and the settings and inputs in which they differ."""
    chosen = list({run.id: run for run in (Run.load(ws, each) for each in ids)}.values())
    if not 2 <= len(chosen) <= MOST_BESIDE:
        raise ConfigError(f"two to {MOST_BESIDE} runs can stand beside each other", f"{len(chosen)} chosen")
    told = [teller.tell(run)[1] for run in chosen]
    return {
        "runs": told,
        "standing": [standing(run) for run in chosen],
        "differ": {
            "settings": _differing([flat(run.config) for run in chosen]),
            "made from": _differing([dict(run.row.inputs) for run in chosen]),
            "versions": _differing([dict(run.row.versions) for run in chosen]),
            "result": _differing([flat(dict(run.result)) for run in chosen]),
        },
    }


def _differing(tables: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for table in tables for key in table)
    found = {key: [table.get(key) for table in tables] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


# --- going on


def go_on(run: Run, *, end_here: bool = False) -> None:
    """Take a run up again in a process of its own, which outlives whoever asked for it."""
    if run.status not in ("dead", "failed", "interrupted"):
        raise RunError(f"run {run.id} is {run.status}", "only one that was cut off can go on")
    command = [sys.executable, "-m", "trueup", "--workspace", str(run.workspace.path), "runs", "resume", run.id]
    spoken = {key: value for key, value in os.environ.items() if key != "TRUEUP_QUIET"}  # into its log
    with open(run.path / LOG, "ab") as log:
        started = subprocess.Popen(
            command + ["--end-here"] * end_here, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            cwd=run.workspace.path, env=spoken, start_new_session=True,
        )  # fmt: skip
    threading.Thread(target=started.wait, daemon=True).start()  # or it would stay as a zombie once it has ended


def log_of(run: Run) -> str:
    """The end of what a run printed that was taken up from a page; empty of any other."""
    path: Path = run.path / LOG
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_SHOWN))
        return file.read().decode("utf-8", "replace")
