"""Any Python function as a scorer: `FILE.py:NAME`, with a time limit and a few tries.

Two forms, told apart by how many arguments the function takes:

    def brevity(prompt: str, completion: str) -> float: ...            # one completion at a time
    def brevity(completions: list[trueup.Completion]) -> list[float]: ...   # all of a batch
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..errors import ModelError, RunError
from ..records import Completion, Score
from .function_process import UNDER_WAY

TRIES = 3
LOADING = 600.0  # seconds that its file may take to run: it may load a model
PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from trueup.engines.function_process import serve
serve(int(sys.argv[1]))
"""


class FunctionScorer:
    """Asks the function in a process of its own, so that a call that hangs can be ended.

    There is never a second call beside one that has not returned: what takes longer than `time_limit` is killed with
    its process, and the file is run anew, as it read when the scorer was made.
    """

    def __init__(self, source: str, time_limit: float = 0.0) -> None:
        self.source, self.time_limit = source, time_limit
        path, _, name = source.rpartition(":")
        self._file = path, name, Path(path).read_bytes()
        self._process = _Process(self._file)

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        """Asked again when it raises, hangs or ends its process; after that it is an error of the run."""
        if not completions:
            return []
        problem = ""
        for _ in range(TRIES):
            if not self._process.alive:
                self._process = _Process(self._file)
            said = self._process.ask(completions, self.time_limit)
            if "values" in said:
                return [Score(value) for value in said["values"]]
            if "error" in said:
                raise RunError(said["error"], said["hint"])
            problem = said["problem"]
        raise RunError(
            f"the scorer {self.source} failed {TRIES} times in a row: {problem}",
            "mend it and resume the run; scoring.time_limit says how long a call may take",
        )

    def close(self) -> None:
        """End its process; it is ended with the scorer too."""
        self._process.end()


def check_function(source: str) -> None:
    """Run the file of `FILE.py:NAME` once, in a process of its own, to see that the function can be asked."""
    FunctionScorer(source).close()


class _Process:
    """A Python of its own that has run the file, and the line to it."""

    def __init__(self, file: tuple[str, str, bytes]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            paths = json.dumps([str(path) for path in sys.path])
            # A session of its own: Ctrl-C is for the run, which ends it; and what it started is ended with it.
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(theirs.fileno()), paths],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2, start_new_session=True,
            )  # fmt: skip
        self._process, self._line = process, Connection(ours.detach())
        self._ended = weakref.finalize(self, _end, process, self._line)
        said = self._exchange(file, LOADING)
        if "ready" not in said:
            self.end()
            raise ModelError(
                said.get("error", f"{file[0]} could not be run: {said.get('problem')}"), said.get("hint", "mend it")
            )

    @property
    def alive(self) -> bool:
        return self._ended.alive

    def end(self) -> None:
        self._ended()

    def ask(self, completions: Sequence[Completion], within: float) -> dict[str, Any]:
        """What it says of them, each call of the function `within` so many seconds; 0 is as long as it takes."""
        said = self._exchange(list(completions), within)
        if said.pop("lost", False):
            self.end()
        return said

    def _exchange(self, what: Any, within: float) -> dict[str, Any]:
        try:
            self._line.send_bytes(pickle.dumps(what))
            while self._line.poll(within or None):
                said: dict[str, Any] = json.loads(self._line.recv_bytes())
                if said != UNDER_WAY:
                    return said
            return {"problem": f"no answer within {within:g} s", "lost": True}
        except (EOFError, OSError):
            return {"problem": f"its process ended{self._exit_code()}", "lost": True}
        except BaseException:  # Ctrl-C: an answer that comes later would be taken for that to another question
            self.end()
            raise

    def _exit_code(self) -> str:
        """In words; empty of one that closed the line and lives on."""
        with suppress(subprocess.TimeoutExpired):
            return f", with exit code {self._process.wait(1)}"
        return ""


def _end(process: subprocess.Popen[bytes], line: Connection) -> None:
    """With whatever the function started."""
    line.close()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
