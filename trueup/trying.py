"""Models that answer in a process of their own, beside a server that must go on: the side of the server.

The other side is `trying_process`. It is started when somebody first asks, takes half of the cores at most, and ends
with the server, after ten idle minutes, or when an answer takes too long. Nothing here loads torch.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import Sampling
from .errors import ModelError, NotFoundError, TrueupError
from .kept_models import Kept
from .records import Completion, Prompt
from .voting import Reply

LONGEST = 1 << 24  # bytes of one answer
PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from trueup.trying_process import serve
serve(int(sys.argv[1]), **json.loads(sys.argv[3]))
"""


class NoAnswer(TrueupError):
    """Not now: the models are busy, took too long or are gone. The next question may be answered."""


@dataclass(frozen=True)
class TryingSettings:
    seconds: float = (
        120.0  # for an answer, with loading its models, and as long again for waiting until it is one's turn
    )
    idle: float = 600.0  # after so many without a question the process ends, and its memory is free
    threads: int = 0  # of the CPU; 0: half of the cores
    waiting: int = 4  # people who may wait at once: each holds a thread of the server
    models: int = 2  # that are held in memory
    device: str = "cpu"  # a GPU is left to those who train

    @property
    def cores(self) -> int:
        """Half of those that this process may use, unless told otherwise."""
        mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, mine // 2)


@dataclass(frozen=True)
class Said:
    text: str
    finished: bool


@dataclass
class Asked:
    """Two replies, in the order in which they are shown, that wait for what the person thinks of them.

    `chosen` is the pair of models in the order in which they were chosen, for the next question.
    """

    prompt: Prompt
    sampling: Sampling
    shown: float  # when
    chosen: tuple[str, str]
    models: tuple[Kept, Kept]
    said: tuple[Said, Said]
    seeds: tuple[int, int]
    voted: str = ""
    known: bool = False  # which was which: the person has been told
    voting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def alike(self) -> bool:
        """Neither can be better."""
        return self.said[0].text == self.said[1].text

    @property
    def replies(self) -> list[Reply]:
        """As a judgement knows them."""
        drawn = {"temperature": self.sampling.temperature, "max_new_tokens": self.sampling.max_new_tokens}
        return [
            Reply(
                Completion(
                    self.prompt, said.text, finished=said.finished, model=model.ref,
                    meta={"seed": seed, **drawn, **model.meta},
                ), model.ref, model.made_from,
            )
            for model, said, seed in zip(self.models, self.said, self.seeds, strict=True)
        ]  # fmt: skip


class Waiting:
    """Replies that nobody has voted on: in memory only, so that nothing is stored before somebody says so."""

    def __init__(self, most: int = 200, a_person: int = 20) -> None:
        self.most, self.a_person = most, a_person
        self._kept: OrderedDict[tuple[str, str], Asked] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, person: str, asked: Asked) -> str:
        """Under a name that only who asked can use. The oldest make room."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._kept[person, token] = asked
            own = [key for key in self._kept if key[0] == person]
            for key in own[: -self.a_person]:
                del self._kept[key]
            while len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return token

    def get(self, person: str, token: str) -> Asked:
        with self._lock:
            found = self._kept.get((person, token))
        if found is None:
            raise NotFoundError("these replies are no longer kept", "ask again: they wait for a vote in memory only")
        return found


class Models:
    """Asks one thing at a time, whoever asks."""

    def __init__(self, workspace: Path, settings: TryingSettings = TryingSettings()) -> None:  # noqa: B008 - frozen
        self.workspace, self.settings = workspace, settings
        self._process: _Process | None = None
        self._closed = False
        self._turn, self._waiting = threading.Lock(), threading.Semaphore(settings.waiting + 1)

    def ask(self, models: Sequence[str], prompt: Prompt, sampling: Sampling, seeds: Sequence[int]) -> list[Said]:
        """What each of them (`kept_models`) says to the prompt."""
        if not self._waiting.acquire(blocking=False):
            raise NoAnswer("too many people are asking at once", "ask again in a minute")
        try:
            if not self._turn.acquire(timeout=self.settings.seconds):
                raise NoAnswer("the models are still answering somebody else", "ask again in a minute")
            try:
                question = {
                    "models": list(models), "prompt": prompt.to_json(), "sampling": sampling.model_dump(mode="json"),
                    "seeds": list(seeds),
                }  # fmt: skip
                return [Said(**each) for each in self._asked(question)["said"]]
            finally:
                self._turn.release()
        finally:
            self._waiting.release()

    def close(self) -> None:
        """For good: whoever waits for an answer is told at once."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()

    def _asked(self, question: dict[str, Any]) -> dict[str, Any]:
        until = time.monotonic() + self.settings.seconds
        answer = self._exchange(question, until)
        if answer is None:  # it had ended by itself, idle, at this very moment
            answer = self._exchange(question, until)
        if answer is None:
            raise NoAnswer("the process that holds the models does not start", "look at what the server printed")
        if "error" in answer:
            if answer.get("ends"):
                self._end()
            raise ModelError(answer["error"], answer.get("hint", ""))
        return answer

    def _exchange(self, question: dict[str, Any], until: float) -> dict[str, Any] | None:
        """None where the process ended without fault: it was idle for too long."""
        if not self._closed and (self._process is None or not self._process.alive):
            self._process = _Process(self.workspace, self.settings)
        process = self._process
        if self._closed or process is None:
            self._end()
            raise NoAnswer("the server is ending", "start it again")
        try:
            return process.ask(question, until)
        except TimeoutError:
            process.end()
            raise NoAnswer(
                f"no answer within {self.settings.seconds:g} seconds: the models were stopped",
                "ask for fewer new tokens, or smaller models; loading large ones takes its time too",
            ) from None
        except (OSError, EOFError):
            if (code := process.exit_code()) == 0:
                return None
            why = ": memory may have run out" if code == -signal.SIGKILL else ""
            raise NoAnswer(
                f"the process that holds the models ended{f' ({_named(code)})' if code else ''}{why}",
                "ask again: it is started anew; if it ends each time, the models are too large for this machine",
            ) from None
        except (ValueError, RecursionError):
            process.end()
            raise NoAnswer("what came from the models is no answer", "ask again: they are started anew") from None
        except BaseException:  # Ctrl-C: an answer that comes late must not be taken for the next one
            process.end()
            raise


class _Process:
    """A Python of its own, and the line to it: a question is one line of JSON, and so is its answer."""

    def __init__(self, workspace: Path, settings: TryingSettings) -> None:
        ours, theirs = socket.socketpair()
        threads = str(settings.cores)
        quiet = {"TRUEUP_QUIET": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": threads}
        given = {
            "workspace": str(workspace), "threads": settings.cores, "idle": settings.idle, "models": settings.models,
            "device": settings.device,
        }  # fmt: skip
        with theirs:
            words = [str(theirs.fileno()), json.dumps([str(path) for path in sys.path]), json.dumps(given)]
            # A session of its own: Ctrl-C is for the server, which then closes the line.
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, *words], env={**os.environ, **quiet},
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2, start_new_session=True,
            )  # fmt: skip
        self._process, self._line, self._read = process, ours, bytearray()
        self._ended = weakref.finalize(self, _end, process, ours)

    @property
    def alive(self) -> bool:
        return bool(self._ended.alive) and self._process.poll() is None

    @property
    def id(self) -> int:
        return self._process.pid

    def end(self) -> None:
        self._ended()

    def exit_code(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        code = self._process.poll()
        self.end()
        return code

    def ask(self, question: dict[str, Any], until: float) -> dict[str, Any]:
        self._line.settimeout(_left(until))
        self._line.sendall(json.dumps(question).encode() + b"\n")
        answer = json.loads(self._next(until))
        if not isinstance(answer, dict) or not {"said", "error"} & answer.keys():
            raise ValueError("no answer")
        return answer

    def _next(self, until: float) -> bytes:
        while b"\n" not in self._read:
            self._line.settimeout(_left(until))
            more = self._line.recv(1 << 16)
            if not more:
                raise EOFError
            self._read += more
            if len(self._read) > LONGEST:
                raise ValueError("too long")
        line, _, self._read = self._read.partition(b"\n")
        return bytes(line)


def _left(until: float) -> float:
    if (left := until - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _named(code: int) -> str:
    """An exit code in words."""
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _end(process: subprocess.Popen[bytes], line: socket.socket) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    line.close()
