"""Append-only JSONL files of a run that can be cut back to an earlier length, so that a resumed run continues them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..store import saying_disk_full

TAIL = 1 << 16  # bytes: no line of metrics is longer


class Stream:
    """One open file. A line is written whole at once; only a kill can tear it, and `cut` removes what it tore."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self.size = os.fstat(self._descriptor).st_size

    def append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(finite(row), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with saying_disk_full(self.path):
            try:
                _write_whole(self._descriptor, line)
            except OSError:
                os.ftruncate(self._descriptor, self.size)
                raise
        self.size += len(line)

    def cut(self, size: int) -> None:
        """Forget everything after the first `size` bytes."""
        if size > self.size:
            message = f"{self.path} is shorter ({self.size} bytes) than the checkpoint says ({size})"
            raise RunError(message, "the file was changed from outside; start a new run")
        os.ftruncate(self._descriptor, size)
        self.size = size

    def cut_torn_line(self) -> None:
        self.cut(self.path.read_bytes().rfind(b"\n") + 1)

    def sync(self) -> None:
        with saying_disk_full(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def read_stream(path: Path) -> list[dict[str, Any]]:
    """All complete lines; one that is just being written is not there yet."""
    try:
        complete, _, torn = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}", "look at who may read it") from error
    rows = [_row(line, path, number) for number, line in enumerate(complete.splitlines(), 1)]
    if torn and not torn.startswith(b"{"):
        raise _damaged(path, len(rows) + 1)
    return rows


def last_row(path: Path) -> dict[str, Any]:
    """The last complete line, without reading what came before it; empty where there is none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            lines = file.read().rpartition(b"\n")[0].splitlines()
    except OSError:  # not there, or not to be read by whoever looks
        return {}
    try:
        row = json.loads(lines[-1]) if lines else {}
    except (
        ValueError,
        RecursionError,
    ):  # longer than what was read of it, or damaged: whoever reads all of it will say so
        return {}
    return row if isinstance(row, dict) else {}


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _damaged(path, number) from error
    if not isinstance(row, dict):
        raise _damaged(path, number)
    return row


def _damaged(path: Path, number: int) -> RunError:
    return RunError(
        f"{path}:{number} is damaged: no line that a run wrote",
        "put the file back from a copy, or start a new run; timing.jsonl alone may be deleted",
    )


def finite(value: Any) -> Any:
    """`value` for JSON, which has no NaN and no infinity: they become null. Numbers of NumPy become plain ones."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def _write_whole(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
