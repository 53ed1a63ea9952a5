"""The one place that asks what time it is. Times are stored for people and never take part in an id."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def utc_text(seconds: float) -> str:
    """A moment given in seconds since 1970, in the same words as `utc_now`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def stamp() -> str:
    """For file names: 20261121-0137."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M")
