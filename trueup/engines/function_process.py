"""The process that a user's function scores in: it runs the file once, then answers for as long as somebody asks.

What the function does to its process it does to this one: threads and number types of torch, random numbers, the
working folder, signals, what it prints, `sys.exit`. The run that asks stays as it was.
"""

from __future__ import annotations

import inspect
import json
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from io import TextIOWrapper
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

from ..errors import ModelError, RunError, TrueupError, brief
from ..records import Completion

UNDER_WAY = {"done": "one call"}  # said after each call of a function that is asked about one completion at a time
FORMS = "it takes (prompt, completion) or a list of completions"
PRINTED = 2_000  # characters that a function may print while it is asked once


def serve(handle: int) -> None:
    """On this file descriptor: first whether the function can be used, then an answer to each batch."""
    line, printed = _Line(handle), _Printed(sys.stderr.buffer, errors="backslashreplace", line_buffering=True)
    sys.stdout = sys.stderr = printed
    path, name, text = line.next()
    threading.Thread(target=line.listen, daemon=True).start()
    try:
        function = load(path, name, text)
    except ModelError as error:
        line.say({"error": error.message, "hint": error.hint})
        return
    line.say({"ready": True})
    while True:
        completions = line.next()
        printed.left = PRINTED
        line.say(_answer(function, f"{path}:{name}", completions, lambda: line.say(UNDER_WAY)))


class _Line:
    """To who asks. Each answer carries the number of what it answers.

    A function that forks returns in both processes. Only the one that was started answers, and only it keeps the line
    open.
    """

    def __init__(self, handle: int) -> None:
        os.set_inheritable(handle, False)
        os.register_at_fork(after_in_child=lambda: os.close(handle))
        self._end, self._pid, self._number = socket.socket(fileno=handle), os.getpid(), 0
        self._requests, self._asked = self._end.makefile("rb"), SimpleQueue[tuple[int, Any]]()
        self._asked.put(pickle.load(self._requests))

    def next(self) -> Any:
        self._number, what = self._asked.get()
        return what

    def say(self, what: Mapping[str, Any]) -> None:
        if os.getpid() != self._pid:
            os._exit(0)
        self._end.sendall(json.dumps({"to": self._number, **what}).encode() + b"\n")

    def listen(self) -> None:
        """Beside the function, which may hang: who asks may be gone, and then nobody needs it or what it started."""
        try:
            while True:
                self._asked.put(pickle.load(self._requests))
        finally:
            os.killpg(0, signal.SIGKILL)


class _Printed(TextIOWrapper):
    """What a function prints stands among what the run says, and must not bury it."""

    left = PRINTED

    def write(self, text: str) -> int:
        said, had = text[: max(self.left, 0)], self.left
        self.left -= len(text)
        super().write(said if self.left >= 0 or had <= 0 else f"{said} …\n")
        return len(text)


def load(path: str, name: str, text: bytes) -> Callable[..., Any]:
    """The function of that name in a file that reads so. Files beside it can be imported."""
    module = ModuleType(f"trueup_scorer_{Path(path).stem}")
    module.__file__, sys.modules[module.__name__], sys.argv = path, module, [path]
    sys.path.append(str(Path(path).parent))
    try:
        exec(compile(text, path, "exec"), module.__dict__)
    except BaseException as error:  # whatever a file may do, sys.exit() too
        raise ModelError(f"{path} could not be run: {_named(error)}", "mend it") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ModelError(f"{path} has no function '{name}'", f"it has {', '.join(known) or 'none'}")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ModelError(f"the scorer {path}:{name} is async", "make it a plain function that calls asyncio.run")
    if (count := arguments(function)) not in (1, 2):
        raise ModelError(f"the scorer {path}:{name} takes {count} arguments", FORMS)
    return function  # type: ignore[no-any-return]


def arguments(function: Callable[..., Any]) -> int:
    """How many it has to be given."""
    empty, named = inspect.Parameter.empty, (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ModelError(f"what {function!r} takes cannot be told", FORMS) from error
    return len([each for each in found if each.default is empty and each.kind not in named])


def numbers(values: Any, count: int, source: str) -> list[float]:
    """One a completion, of any type that is a number: of Python, NumPy or torch, True and False too."""
    try:
        if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping | Set):
            raise TypeError(f"a {type(values).__name__} is no list of them")
        found = [_number(value) for value in values]
    except Exception as error:  # whatever was returned is somebody's own
        raise RunError(
            f"the scorer {source} returned no numbers: {_named(error)}",
            f"it has to return one number a completion; {FORMS}",
        ) from error
    if len(found) != count:
        raise RunError(
            f"the scorer {source} returned {len(found)} numbers for {count} completions",
            "it has to return one number a completion, in their order",
        )
    return found


def _number(value: Any) -> float:
    """Text that reads like a number is a mistake all the same."""
    if isinstance(value, str | bytes):
        raise TypeError(f"{value!r:.40} is text")
    return float(value)


def _answer(
    function: Callable[..., Any], source: str, completions: Sequence[Completion], tick: Callable[[], None]
) -> dict[str, Any]:
    """Values; or a `problem`, which may be gone another time; or an `error`, which will not."""
    try:
        values = _called(function, completions, tick)
    except BaseException as error:  # whatever somebody's function may raise: sys.exit() is no answer either
        odd = arguments(function) == 1 and isinstance(error, AttributeError | TypeError)
        return {"problem": _named(error) + (f" ({FORMS}: this one is given the list)" if odd else "")}
    try:
        return {"values": numbers(values, len(completions), source)}
    except TrueupError as error:
        return {"error": error.message, "hint": error.hint}


def _called(function: Callable[..., Any], completions: Sequence[Completion], tick: Callable[[], None]) -> Any:
    if arguments(function) == 1:
        return function(list(completions))
    values = []
    for completion in completions:
        values.append(function(completion.prompt.text, completion.text))
        tick()
    return values


def _named(error: BaseException) -> str:
    try:
        said = brief(str(error))
    except Exception:  # somebody's own class of errors may be broken too
        said = ""
    return f"{type(error).__name__}: {said}".removesuffix(": ")
