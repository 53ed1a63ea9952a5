"""Ctrl-C asks a run to stop after its step; a second one stops it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_requested = threading.Event()
_active = False


@contextmanager
def graceful() -> Iterator[Callable[[], bool]]:
    """Inside the block the first SIGINT or SIGTERM only sets what `stop_requested` tells; the next one raises.

    A block inside a block shares the outer one. Python delivers signals to the main thread alone, so elsewhere the
    block changes nothing.
    """
    global _active
    if _active or threading.current_thread() is not threading.main_thread():
        yield stop_requested
        return
    before = {number: signal.signal(number, _on_signal) for number in _SIGNALS}
    _active = True
    try:
        yield stop_requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _active = False
        _requested.clear()


def stop_requested() -> bool:
    """Whether somebody asked the run to stop. The loop looks between steps, checkpoints and leaves."""
    return _requested.is_set()


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _requested.is_set():
        raise KeyboardInterrupt
    _requested.set()
    os.write(2, b"\nstopping after this step; once more to stop at once\n")  # print is not safe in a signal handler
