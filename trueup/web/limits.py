"""How often is too often: counts in memory, forgotten when their window ends.

Keys are people's ids or addresses. An address lives here for as long as its window and nowhere else: no table and no
log holds one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from .security import Refused

MOST_KEYS = 20_000  # a flood from ever new addresses must not fill the memory


@dataclass(frozen=True)
class Limit:
    """At most `times` in `seconds`."""

    times: int
    seconds: float


@dataclass(frozen=True)
class Limits:
    """What a person or an address may do. A whole class behind one address signs in within a minute or two."""

    sign_in_address: Limit = Limit(60, 300)  # passwords, start tokens and invites tried from one address
    sign_in_name: Limit = Limit(8, 900)  # passwords tried for one name, from anywhere
    act: Limit = Limit(600, 60)  # requests that change something, a person: ten a second
    look: Limit = Limit(1200, 60)  # pages, a person
    export: Limit = Limit(20, 3600)
    invite: Limit = Limit(200, 3600)


@dataclass
class _Window:
    ends: float
    count: int = 0


@dataclass
class Meter:
    """Counts by (what, who). Windows are fixed: simple, bounded, and at most twice the limit around a boundary."""

    now: Callable[[], float] = time.monotonic
    most: int = MOST_KEYS
    _windows: OrderedDict[tuple[str, str], _Window] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, who: str, limit: Limit) -> None:
        """Count one more, or refuse it with 429 and the seconds to wait."""
        now = self.now()
        with self._lock:
            window = self._windows.get((what, who))
            if window is None or window.ends <= now:
                window = self._windows[what, who] = _Window(now + limit.seconds)
                self._windows.move_to_end((what, who))
                self._forget(now)
            window.count += 1
            if window.count > limit.times:
                wait = int(window.ends - now) + 1
                raise Refused(429, "too many requests", f"wait {wait} seconds, then go on: nothing is lost")

    def forgive(self, what: str, who: str) -> None:
        """A right password clears the wrong ones before it."""
        with self._lock:
            self._windows.pop((what, who), None)

    def _forget(self, now: float) -> None:
        """Windows that ended, oldest first; when there are too many, the oldest whatever they hold."""
        while self._windows:
            oldest = next(iter(self._windows))
            if self._windows[oldest].ends > now and len(self._windows) <= self.most:
                return
            del self._windows[oldest]
