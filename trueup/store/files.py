"""Files that are either whole or not there: atomic writes, JSONL, hashes, locks, and a full disk said plainly."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from ..errors import DataError, DiskFullError


@contextmanager
def saying_disk_full(where: Path) -> Iterator[None]:
    """A full disk is the user's news, not a traceback. Libraries hide the errno, so their text is read too."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(error):
            hint = "free some space (`trueup gc` lists what nothing needs), then do the same again"
            raise DiskFullError(f"no space left on the disk that holds {where}", hint) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file opened beside `path` that takes its place when the block ends well and vanishes when it does not."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with saying_disk_full(path):
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def atomic_write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """One JSON object a line; gzip when the name ends in .gz. Returns the number of rows.

    The same rows give the same bytes: a gzip header would carry the time and the file name, so both are left out.
    """
    count = 0
    with replacing(path) as raw, _compressed(raw, path) as file:
        for count, row in enumerate(rows, 1):
            file.write(_line(row, path, count))
    return count


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file (.gz too). Empty lines are skipped; a line that is no JSON object is an error."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(cast("Iterable[bytes]", file), 1):
                if line.strip():
                    yield _row(line, path, number)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}") from error


@contextmanager
def _compressed(raw: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    if path.suffix != ".gz":
        yield raw
        return
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        yield cast("IO[bytes]", file)


def _line(row: Any, path: Path, number: int) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:  # ValueError: NaN, or half of a surrogate pair that UTF-8 cannot hold
        raise DataError(f"row {number} for {path.name} cannot be written as JSON: {error}") from error


def _row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}:{number}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
    return row


def list_files(folder: Path) -> list[str]:
    """The relative paths of all files below `folder`, sorted: the order in which they are hashed."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Relative path -> sha256 and size: what an artifact's or a checkpoint's content is known by."""
    return {
        name: {"sha256": hash_file(folder / name), "bytes": (folder / name).stat().st_size}
        for name in list_files(folder)
    }


def differing_files(folder: Path, expected: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong with a folder that should hold `expected`: missing, changed and added files, by name."""
    present = set(list_files(folder)) if folder.is_dir() else set()
    missing = [f"{name}: missing" for name in sorted(set(expected) - present)]
    changed = [
        f"{name}: changed"
        for name in sorted(set(expected) & present)
        if (folder / name).stat().st_size != expected[name]["bytes"]
        or hash_file(folder / name) != expected[name]["sha256"]
    ]
    return missing + changed + [f"{name}: added" for name in sorted(present - set(expected))]


def hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    return sum(child.lstat().st_size for child in path.rglob("*") if not child.is_dir())


def human_size(size: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; a rename is only safe from a power cut after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make a folder and everything below it durable."""
    for path in (folder, *folder.rglob("*")):
        sync_folder(path)  # opening read-only is enough to fsync a file as well


def remove(path: Path) -> None:
    """A file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Lock:
    """An flock on a file: the kernel lets go of it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, patience: float = 0.5) -> bool:
        """False when another holder keeps it. `patience` outlasts the instant in which `is_held` looks."""
        deadline = time.monotonic() + patience
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            if _try_flock(descriptor, fcntl.LOCK_EX) and _is_still(self.path, descriptor):
                break
            os.close(descriptor)
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())  # for people who wonder who holds it
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def held_here(self) -> bool:
        return self._descriptor is not None


def is_held(path: Path) -> bool:
    """Whether some living process holds the lock file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _try_flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the locked file is still the one at `path`: a holder that removes it leaves us an unseen one."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _try_flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
