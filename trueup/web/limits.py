"""How often is too often: counts in memory, forgotten when their window ends.

Keys are people's ids or addresses. An address lives here until the first request after its window and nowhere else: no
table and no log holds one.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from .security import Refused

MOST_KEYS = 20_000  # of each kind: a flood from ever new addresses must neither fill the memory nor push names out
IPV6_NETWORK = 64  # bits: whoever has one of these addresses has 2^64 of them


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
    _windows: dict[str, OrderedDict[str, _Window]] = field(default_factory=dict)  # of one kind: as they end
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, who: str, limit: Limit) -> None:
        """Count one more, or refuse it with 429 and the seconds to wait."""
        now = self.now()
        with self._lock:
            self._forget(now)
            windows = self._windows.setdefault(what, OrderedDict())
            window = windows.setdefault(who, _Window(now + limit.seconds))
            if len(windows) > self.most:
                windows.popitem(last=False)  # the oldest, whatever it holds
            window.count += 1
            if window.count > limit.times:
                wait = int(window.ends - now) + 1
                hint = f"wait {wait} seconds, then go on: nothing is lost"
                raise Refused(429, "too many requests", hint, {"Retry-After": str(wait)})

    def forgive(self, what: str, who: str) -> None:
        """A right password clears the wrong ones before it."""
        with self._lock:
            if windows := self._windows.get(what):
                windows.pop(who, None)

    def known(self) -> set[str]:
        """Whom anything is counted for."""
        with self._lock:
            return {who for windows in self._windows.values() for who in windows}

    def _forget(self, now: float) -> None:
        for windows in self._windows.values():
            while windows and next(iter(windows.values())).ends <= now:
                windows.popitem(last=False)


def network_of(address: str) -> str:
    """An address as it is counted: IPv6 by its network, and an IPv4 one in its clothes as what it is."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])  # without the interface of a link-local address
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_NETWORK), strict=False))
