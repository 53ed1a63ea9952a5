"""How far a stage is: a bar on a terminal, a plain line now and then elsewhere, nothing when asked to be quiet.

All of it on stderr: stdout is for results.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

PLAIN_SECONDS = 5.0
_WARM_UP = 3  # steps before a measured rate is trusted over an estimate given beforehand
_quiet = False
_live: _Bars | None = None

meters: list[Meter] = []  # what is going on in this process, the outermost first
listeners: list[Callable[[], None]] = []  # the last is told of every step: the run that is going on


class Advance(Protocol):
    def __call__(self, n: int = 1, **info: Any) -> None: ...


class Meter:
    """The arithmetic of progress, apart from where it is shown."""

    def __init__(
        self, total: int, label: str, start: int = 0, expected: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.label, self.start, self.expected, self._clock = total, label, start, expected, clock
        self.done = start
        self.info: dict[str, Any] = {}
        self._began = clock()

    def advance(self, n: int, info: dict[str, Any]) -> None:
        self.done += n
        self.info |= info

    @property
    def elapsed(self) -> float:
        return self._clock() - self._began

    @property
    def rate(self) -> float:
        """Steps a second since the start of this attempt; what an earlier attempt did does not count."""
        return (self.done - self.start) / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to go: from `expected` until the rate is known, None when nothing is known."""
        if self.done - self.start >= _WARM_UP and self.rate > 0:
            return max(self.total - self.done, 0) / self.rate
        if self.expected > 0:
            return max(self.expected * (1 - self.start / max(self.total, 1)) - self.elapsed, 0.0)
        return None

    def tail(self) -> str:
        """Everything after the bar: rate, time left, latest info."""
        left = "" if self.left is None or self.done >= self.total else f"{duration(self.left)} left"
        rate = f"{self.rate:.3g}/s" if self.done > self.start else ""
        return "  ".join(part for part in (rate, left, *(f"{k} {_short(v)}" for k, v in self.info.items())) if part)

    def line(self) -> str:
        share = f"{self.done / self.total:4.0%}" if self.total else ""
        return f"{self.label}  {self.done}/{self.total} {share}  {self.tail()}".rstrip()


@contextmanager
def track(total: int, label: str, *, start: int = 0, expected: float = 0.0) -> Iterator[Advance]:
    """Show `label` advancing from `start` to `total`; call what it yields after each step, with news such as a loss.

    `expected` seconds for the whole stage stand in for the time left until the first steps have been measured.
    """
    meter = Meter(total, label, start, expected)
    show = _silent if _is_quiet() else _bar if sys.stderr.isatty() else _plain
    with show(meter) as refresh, _going_on(meter):

        def advance(n: int = 1, **info: Any) -> None:
            meter.advance(n, info)
            refresh()
            if listeners:
                listeners[-1]()

        yield advance


@contextmanager
def _going_on(meter: Meter) -> Iterator[None]:
    meters.append(meter)
    try:
        yield
    finally:
        meters.remove(meter)


def quiet(on: bool = True) -> None:
    """Show no progress in this process (or show it again); $TRUEUP_QUIET=1 does the same from outside."""
    global _quiet
    _quiet = on


def say(line: str) -> None:
    """Something to know before a stage starts."""
    if not _is_quiet():
        print(line, file=sys.stderr, flush=True)


def note(line: str) -> None:
    """Something that whoever watches should know now; above the bar, if there is one."""
    if _is_quiet():
        return
    if _live:
        _live.note(f"note: {line}")
    else:
        print(f"note: {line}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """75 -> '1m15s'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _is_quiet() -> bool:
    return _quiet or os.environ.get("TRUEUP_QUIET", "") not in ("", "0")


@contextmanager
def _silent(_meter: Meter) -> Iterator[Callable[[], None]]:
    yield lambda: None


@contextmanager
def _plain(meter: Meter) -> Iterator[Callable[[], None]]:
    last = 0.0

    def refresh() -> None:
        nonlocal last
        if meter.elapsed - last >= PLAIN_SECONDS:
            last = meter.elapsed
            print(meter.line(), file=sys.stderr, flush=True)

    yield refresh
    print(f"{meter.line()}  in {duration(meter.elapsed)}", file=sys.stderr, flush=True)


@contextmanager
def _bar(meter: Meter) -> Iterator[Callable[[], None]]:
    """Stages within stages share one display, because a terminal can hold only one."""
    global _live
    outermost = _live is None
    bars = _live = _live or _Bars()
    try:
        with bars.showing(meter) as refresh:
            yield refresh
    finally:
        if outermost:
            bars.close()
            _live = None


class _Bars:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[tail]}"),
            console=Console(stderr=True),
        )  # fmt: skip
        self._progress.start()

    @contextmanager
    def showing(self, meter: Meter) -> Iterator[Callable[[], None]]:
        task = self._progress.add_task(meter.label, total=meter.total, completed=meter.done, tail=meter.tail())

        def refresh() -> None:
            self._progress.update(task, completed=meter.done, tail=meter.tail())

        try:
            yield refresh
        finally:
            self._progress.update(task, tail=f"{meter.tail()}  in {duration(meter.elapsed)}")

    def note(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
