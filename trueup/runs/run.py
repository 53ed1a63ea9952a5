"""One execution of a stage: what went in, how it went, what came out, and where it can be taken up again.

Two kinds of files: `metrics.jsonl`, `events.jsonl`, `samples/` and the checkpoints are deterministic (a killed and
resumed run leaves the same bytes as an undisturbed one); `timing.jsonl`, TensorBoard and the database hold the times.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Any, Literal

from ..errors import Interrupted, RunError, WorkspaceError
from ..process import peak_mib
from ..records import Prompt
from ..store import (
    Artifact,
    Lock,
    RunRow,
    Workspace,
    human_size,
    is_held,
    plain_json,
    read_jsonl,
    remove,
    saying_disk_full,
    stamp,
    utc_now,
    write_jsonl,
)
from . import checkpoints
from .board import Board
from .checkpoints import WEIGHTS, Checkpoints, weights_of
from .now import Now, ask_to_stop, read_now, stop_is_asked
from .progress import note, say
from .streams import Stream, finite, read_stream
from .trackers import Trackers
from .versions import installed_versions

Status = Literal["running", "done", "failed", "interrupted", "dead"]
STREAMS = ("metrics.jsonl", "events.jsonl")  # deterministic: cut back to the checkpoint on resume


class Run:
    """Made by `start`, `resume` (both write and hold the run's lock) or `load` (reads only).

    As a context manager it notes how it ended: an exception as failed, Ctrl-C as interrupted.
    """

    resume_step: int = 0
    resume_folder: Path | None = None
    goes_on: bool = True  # False: what it has learnt so far is all it will learn
    stops_itself: bool = False  # True: its stage looks at `stop_asked` when it can stop; else it is stopped at once

    def __init__(self, workspace: Workspace, row: RunRow) -> None:
        self.workspace = workspace
        self.row = row
        self.path = workspace.run_folder(row.id)
        self._checkpoints = Checkpoints(self.path / "checkpoints")
        self._weights = Checkpoints(self.path / "weights", most=None)
        self._lock = Lock(self.path / "lock")
        self._streams: dict[str, Stream] = {}
        self._board: Board | None = None
        self._now: Now | None = None
        self._trackers = Trackers((), self.path, row.id, row.stage, {})
        self._earlier = (0.0, 0.0)  # wall and CPU seconds of the attempts before this one

    # Beginnings

    @classmethod
    def start(
        cls,
        workspace: Workspace,
        stage: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        *,
        seed: int,
        note: str = "",
        name: str = "",
    ) -> Run:
        """A new run, with its effective config; TensorBoard files are written when config has run.tensorboard.

        `name` is what its result is to be called, kept here so that a resumed run still knows.
        """
        config = plain_json(config, "config")
        identity = _new_folder(workspace, stage)
        row = RunRow(
            identity, stage, "running", config, seed, installed_versions(), note, started=utc_now(), name=name,
            inputs={role: artifact.id for role, artifact in inputs.items()},
        )  # fmt: skip
        run = cls(workspace, row)
        try:
            run._take_lock()  # before the row: nobody may see a run that seems dead
            run._open()
            workspace.add_run(row)
        except BaseException:
            run._close()
            remove(run.path)
            raise
        return run

    @classmethod
    def resume(cls, workspace: Workspace, ref: str) -> Run:
        """Take a run up at its last checkpoint. Whatever it wrote after that is cut off, to be written again."""
        run = cls.load(workspace, ref)
        run._take_lock()
        try:
            run.row = workspace.run_row(run.id)  # again, now that nobody else can change it
            if run.row.status == "done":
                raise RunError(f"run {run.id} is finished", "start a new run to change something")
            run._rewind()
            run._open()
        except BaseException:
            run._close()
            raise
        workspace.update_run(run.id, status="running", error="", ended="")
        return run

    @classmethod
    def load(cls, workspace: Workspace, ref: str) -> Run:
        """For reading, by id or the beginning of exactly one id."""
        return cls(workspace, workspace.run_row(ref))

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock.held_here and isinstance(error, KeyboardInterrupt | Interrupted):
            self.interrupted()
        elif self._lock.held_here and error is not None:
            self.fail(error)
        assert not self._lock.held_here, "a run ends with finish, fail or interrupted"

    # What it is

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def stage(self) -> str:
        return self.row.stage

    @property
    def config(self) -> Mapping[str, Any]:
        return self.row.config

    @property
    def seed(self) -> int:
        return self.row.seed

    @property
    def inputs(self) -> dict[str, Artifact]:
        return {role: self.workspace.get(artifact) for role, artifact in self.row.inputs.items()}

    @property
    def outputs(self) -> dict[str, Artifact]:
        return {role: self.workspace.get(artifact) for role, artifact in self._fresh_row().outputs.items()}

    @property
    def result(self) -> Mapping[str, Any]:
        return self._fresh_row().result

    @property
    def status(self) -> Status:
        """`dead`: it says it is running, but no process holds its lock."""
        alive = is_held(self._lock.path)  # asked first: a run that ends in between is then seen as ended, not dead
        recorded: Status = self._fresh_row().status  # type: ignore[assignment]
        return "dead" if recorded == "running" and not alive else recorded

    @property
    def resume_command(self) -> str:
        """How to go on with it from here: the workspace is named unless this folder or the environment tells it."""
        named = "" if _is_found(self.workspace) else f"--workspace {quote(str(self.workspace.path))} "
        return f"trueup {named}runs resume {self.id}"

    # Seen from another process

    def now(self) -> dict[str, Any] | None:
        """How far it is, when it last said so, and what it takes of the machine. None unless it runs."""
        told = read_now(self.path) if self.status == "running" else None
        return told if told and str(told["pid"]) == self._lock.path.read_text() else None  # not of who died before

    def ask_to_stop(self) -> None:
        """It will end as interrupted, after its step if it learns in steps, and can be taken up again."""
        if self.status != "running":
            raise RunError(f"run {self.id} is not running: it is {self.status}", "there is nothing to stop")
        ask_to_stop(self.path)

    @property
    def stop_asked(self) -> bool:
        return stop_is_asked(self.path)

    # While it runs

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics. The values must be deterministic; when they came is written elsewhere."""
        self._stream("metrics.jsonl").append({"step": step, **values})
        wall, cpu = self._spent()
        spent = {"wall": wall, "cpu": cpu, "mib": round(peak_mib()), "at": utc_now()}
        self._stream("timing.jsonl").append({"step": step, **spent})
        if self._board:
            self._board.write(step, values)
        self._trackers.write(step, values)

    def event(self, kind: str, reason: str, **data: Any) -> None:
        """Something worth knowing that is no number: a skipped step, a smaller micro-batch, an early stop."""
        self._stream("events.jsonl").append({"kind": kind, "reason": reason, **data})

    def tell(self, kind: str, reason: str, **data: Any) -> None:
        """An event that whoever watches the run should know at once: a line on stderr, too."""
        self.event(kind, reason, **data)
        note(f"{self.stage}: {reason}")

    def keep_samples(self, step: int, rows: Iterable[Mapping[str, Any]], *, heldout: bool = False) -> Path:
        """Texts of this step's rollout, or of its evaluation, compressed; the same rows give the same bytes."""
        assert self._lock.held_here, "only a started or resumed run writes"
        path = self._samples / f"{_kind(heldout)}-{step:06d}.jsonl.gz"
        with saying_disk_full(path):
            path.parent.mkdir(exist_ok=True)
        kept = [finite(row) for row in rows]
        write_jsonl(path, kept)
        self._trackers.samples(step, kept, heldout)
        return path

    def checkpoint(self, step: int, write: Callable[[Path], None], *, score: float | None = None) -> Path:
        """Let `write` fill a folder and keep it as a resume point; the higher the score, the better.

        Log everything of the step first: a resumed run keeps what was logged before this call and nothing after.
        """
        for stream in self._streams.values():
            stream.sync()
        if self._board:
            self._board.flush()
        sizes = {name: self._stream(name).size for name in STREAMS}
        samples = tuple(path.name for heldout in (False, True) for path in self._sample_files(heldout))
        made = self._checkpoints.write(step, write, score, sizes, samples)
        self._keep_weights()
        return made

    def _keep_weights(self) -> None:
        """Of every evaluation, where that is wanted. A kill may have come between a checkpoint and this."""
        if not self.config.get("run", {}).get("keep_weights"):
            return
        there = dict(self._weights.all())
        for step, folder in self._checkpoints.all():
            state = checkpoints.read(folder)
            if state.score is not None and not _holds(there.get(step), state.files[WEIGHTS]):
                self._weights.write(step, weights_of(folder), state.score, state.streams, state.samples)

    def need_space(self, size: int) -> None:
        """Say what checkpoints take, and refuse to start what cannot end: `size` bytes must be free."""
        free = check_space(self.path, size)
        say(f"{self.stage}: checkpoints take up to {human_size(size)} of the {human_size(free)} that are free")

    # Endings

    def output(self, role: str, artifact: Artifact) -> None:
        assert self._lock.held_here, "only a started or resumed run writes"
        self.workspace.add_run_output(self.id, role, artifact.id)

    def finish(self, result: Mapping[str, Any]) -> None:
        self._end("done", result=plain_json(result, "result"))

    def fail(self, error: BaseException | str) -> None:
        """Resumable all the same: its checkpoints stay."""
        self._end("failed", error=error if isinstance(error, str) else _worded(error))

    def interrupted(self) -> None:
        self._end("interrupted")

    # What it left

    def checkpoints(self) -> list[tuple[int, Path]]:
        """(step, folder), earliest first."""
        return self._checkpoints.all()

    def weights(self) -> dict[int, Path]:
        """Step -> a folder with the weights that the run had there."""
        found = {**dict(self._checkpoints.all()), **dict(self._weights.all())}  # what stays before what is pruned
        return dict(sorted(found.items()))

    def best(self) -> tuple[int, Path] | None:
        """The checkpoint with the highest score, after making sure that its files are what they were."""
        best = self._checkpoints.best()
        if best is not None:
            checkpoints.check(best[1])
        return best

    def metrics(self) -> list[dict[str, Any]]:
        return read_stream(self.path / "metrics.jsonl")

    def events(self) -> list[dict[str, Any]]:
        return read_stream(self.path / "events.jsonl")

    def timing(self) -> list[dict[str, Any]]:
        """At each logged step wall and CPU seconds, summed over attempts, and the most memory the process has held.

        Steps done twice are there twice.
        """
        return read_stream(self.path / "timing.jsonl")

    def samples(self, step: int | None = None, *, heldout: bool = False) -> list[dict[str, Any]]:
        """Rows kept at one step, or all of them with their step; of rollouts, or of evaluations."""
        if step is not None:
            return list(read_jsonl(self._samples / f"{_kind(heldout)}-{step:06d}.jsonl.gz"))
        return [{"step": _step_of(path), **row} for path in self._sample_files(heldout) for row in read_jsonl(path)]

    def sample_steps(self, *, heldout: bool = False) -> list[int]:
        return [_step_of(path) for path in self._sample_files(heldout)]

    # Inside

    @property
    def _samples(self) -> Path:
        return self.path / "samples"

    def _sample_files(self, heldout: bool) -> list[Path]:
        return sorted(self._samples.glob(f"{_kind(heldout)}-[0-9]*[0-9].jsonl.gz"), key=_step_of)

    def _fresh_row(self) -> RunRow:
        self.row = self.workspace.run_row(self.id)
        return self.row

    def _take_lock(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if not self._lock.acquire():
            holder = self._lock.path.read_text()
            raise RunError(f"run {self.id} is running (process {holder})", "wait for it to end, or stop it")

    def _open(self) -> None:
        with saying_disk_full(self.path):
            self._streams = {name: Stream(self.path / name) for name in (*STREAMS, "timing.jsonl")}
        timing = self._stream("timing.jsonl")
        timing.cut_torn_line()
        if past := self.timing():
            self._earlier = (past[-1]["wall"], past[-1]["cpu"])
        self._began = (time.monotonic(), time.process_time())
        wall, cpu = self._earlier
        timing.append({"step": self.resume_step, "wall": wall, "cpu": cpu, "at": utc_now()})
        if self.config.get("run", {}).get("tensorboard"):
            self._board = Board(self.path / "tensorboard", self.resume_step)
        self._now = Now(self.path, self._stop_if_asked)
        names = self.config.get("run", {}).get("trackers", ())
        self._trackers = Trackers(names, self.path, self.id, self.stage, self.config, self._prompt_texts)

    def _stop_if_asked(self) -> None:
        if not self.stops_itself:
            raise Interrupted("stopped, as somebody asked", self.resume_command)

    def _rewind(self) -> None:
        """Back to the last complete checkpoint, or to the very beginning. What the run will need later is looked at
        now: better than training on to the end and finding it damaged there."""
        self._checkpoints.clean()
        self._weights.clean()
        self._keep_weights()
        sizes, samples = dict.fromkeys(STREAMS, 0), set[str]()
        last, best = self._checkpoints.last(), self._checkpoints.best()
        if best is not None and best != last:
            checkpoints.check(best[1])
        if last is not None:
            self.resume_step, self.resume_folder = last
            state = checkpoints.check(self.resume_folder)
            sizes, samples = dict(state.streams), set(state.samples)
        for name, size in sizes.items():
            stream = Stream(self.path / name)
            stream.cut(size)
            stream.close()
            read_stream(self.path / name)
        for path in self._samples.iterdir() if self._samples.is_dir() else ():
            if path.name not in samples:
                remove(path)

    def _stream(self, name: str) -> Stream:
        assert self._lock.held_here, "only a started or resumed run writes"
        return self._streams[name]

    def _prompt_texts(self) -> dict[str, str]:
        """By id: what the samples of this run answer, where it has prompts."""
        prompts = self.row.inputs.get("prompts")
        path = self.workspace.get(prompts).path / "rows.jsonl" if prompts else None
        if path is None or not path.is_file():
            return {}
        found = (Prompt.from_json(row.get("prompt", row)) for row in read_jsonl(path))
        return {prompt.id: prompt.text for prompt in found}

    def _spent(self) -> tuple[float, float]:
        wall, cpu = time.monotonic() - self._began[0], time.process_time() - self._began[1]
        return round(self._earlier[0] + wall, 4), round(self._earlier[1] + cpu, 4)

    def _end(self, status: Status, **columns: Any) -> None:
        assert self._lock.held_here, "only a started or resumed run ends"
        try:
            for stream in self._streams.values():
                stream.sync()
        except BaseException as error:  # a disk too full for the streams may still have room to say so
            status, columns = "failed", {"error": _worded(error)}
            raise
        finally:
            try:
                self.workspace.update_run(self.id, status=status, ended=utc_now(), **columns)
            finally:
                self._close(status)

    def _close(self, status: Status = "failed") -> None:
        for stream in self._streams.values():
            stream.close()
        self._streams = {}
        if self._board:
            self._board.close()
            self._board = None
        self._trackers.close(status)
        if self._now:
            self._now.close()
            self._now = None
        self._lock.release()


def _new_folder(workspace: Workspace, stage: str) -> str:
    """The id of a run that there was not yet: short ids of one minute may be the same."""
    while True:
        identity = f"{stamp()}-{stage}-{secrets.token_hex(2)}"
        with saying_disk_full(workspace.path), suppress(FileExistsError):
            workspace.run_folder(identity).mkdir(parents=True)
            return identity


def check_space(path: Path, size: int) -> int:
    """What is free on the disk of `path`; an error unless that is at least `size` bytes."""
    free = shutil.disk_usage(path).free
    if free < size:
        message = f"the run may need {human_size(size)} of disk, {path} has {human_size(free)} left"
        raise RunError(message, "free some space (`trueup gc` lists what nothing needs) or use another disk")
    return free


def _worded(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _is_found(workspace: Workspace) -> bool:
    """Whether a command that names no workspace would use this one."""
    try:
        with Workspace.find() as found:
            return found.path == workspace.path
    except WorkspaceError:
        return False


def _kind(heldout: bool) -> str:
    return "heldout" if heldout else "step"


def _step_of(path: Path) -> int:
    return int(path.name.removesuffix(".jsonl.gz").rpartition("-")[2])


def _holds(folder: Path | None, weights: Mapping[str, Any]) -> bool:
    """Whether a spare copy is there; one that somebody damaged is made again and ends no run."""
    try:
        return folder is not None and checkpoints.read(folder).files[WEIGHTS] == weights
    except (RunError, KeyError):
        return False


def runs(workspace: Workspace) -> list[Run]:
    """All runs, oldest first."""
    return [Run(workspace, row) for row in workspace.run_rows()]


def diff(run_a: Run, run_b: Run) -> dict[str, dict[str, tuple[Any, Any]]]:
    """What differs between two runs: dotted key -> (of a, of b), None where one of them has no such key."""
    return {
        part: _differences(_flat(getattr(run_a.row, part)), _flat(getattr(run_b.row, part)))
        for part in ("config", "inputs", "versions", "result")
    }


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = list(a) + [key for key in b if key not in a]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_leaves(value, ""))


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else key)
    elif prefix:
        yield prefix, value
