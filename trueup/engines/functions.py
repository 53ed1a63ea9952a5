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
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ModelError, RunError
from ..records import Completion, Score
from .function_process import UNDER_WAY

TRIES = 3
LOADING = 600.0  # seconds that its file may take to run: it may load a model
LONGEST = 1 << 26  # bytes of one answer
KINDS: dict[str, type] = {"ready": bool, "done": str, "values": list, "problem": str, "error": str}
NO_ANSWER = {"problem": "what came from its process is no answer", "lost": True}
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

    def __init__(self, source: str, time_limit: float = 0.0, resume: str = "") -> None:
        """`resume` is how to go on with the run that it scores for, if it is one."""
        self.source, self.time_limit, self._resume = source, time_limit, resume
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
                raise RunError(said["error"], said.get("hint", ""))
            problem = said["problem"]
        raise RunError(f"the scorer {self.source} failed {TRIES} times in a row: {problem}", self._mending())

    def _mending(self) -> str:
        """A run goes on with the file it was started with: a changed one is another scorer."""
        if not self._resume:
            return "mend it and do the same again; scoring.time_limit says how long a call may take"
        return (
            f"if what it depends on can be mended, do that and go on: {self._resume}; if its file or "
            "scoring.time_limit must change, start a new run, from the model of the last checkpoint if you like, made "
            f"before the file changes: {self._resume} --end-here"
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
        self._process, self._line, self._asked = process, _Line(ours), 0
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
        if {"ready", "done"} & said.keys() or ("values" in said and not _are_numbers(said["values"], len(completions))):
            said = NO_ANSWER
        if "lost" in said:
            self.end()
        return said

    def _exchange(self, what: Any, within: float) -> dict[str, Any]:
        self._asked += 1
        try:
            self._line.ask(self._asked, what, within)
            while (said := self._line.answer(self._asked, within)) == UNDER_WAY:
                pass  # the next call has its own time
            return said
        except TimeoutError:
            return {"problem": f"no answer within {within:g} s", "lost": True}
        except (EOFError, OSError):
            return {"problem": f"its process ended{self._exit_code()}", "lost": True}
        except BaseException:  # Ctrl-C: the call that goes on must not have a second one beside it
            self.end()
            raise

    def _exit_code(self) -> str:
        """In words; empty of one that closed the line and lives on."""
        with suppress(subprocess.TimeoutExpired):
            return f", with exit code {self._process.wait(1)}"
        return ""


class _Line:
    """To the process. The function can write there too: what is no answer must neither hang nor break who reads."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._read = end, bytearray()

    def ask(self, number: int, what: Any, within: float) -> None:
        self._end.settimeout(within or None)
        self._end.sendall(pickle.dumps((number, what)))

    def answer(self, number: int, within: float) -> dict[str, Any]:
        """The one to this question; those to others are thrown away."""
        until = time.monotonic() + within if within else None
        while (said := _answer_in(self._next(until))).pop("to", number) != number:
            pass
        return said

    def close(self) -> None:
        self._end.close()

    def _next(self, until: float | None) -> bytes:
        """The next line. `until` is for all of it: a few bytes now and then are no sign of life."""
        more = self._read
        while b"\n" not in more and len(self._read) < LONGEST:
            self._end.settimeout(_left(until))
            if not (more := bytearray(self._end.recv(1 << 16))):
                raise EOFError
            self._read += more
        line, _, rest = self._read.partition(b"\n")
        self._read = rest
        return bytes(line)


def _answer_in(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return dict(NO_ANSWER)
    if not isinstance(said, dict) or "to" not in said:
        return dict(NO_ANSWER)
    kinds = [kind for kind in KINDS if kind in said]
    sound = len(kinds) == 1 and isinstance(said[kinds[0]], KINDS[kinds[0]])
    return said if sound else dict(NO_ANSWER)


def _are_numbers(values: Sequence[Any], count: int) -> bool:
    return len(values) == count and all(isinstance(value, float) for value in values)


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    if (left := until - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _end(process: subprocess.Popen[bytes], line: _Line) -> None:
    """With whatever the function started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    line.close()
