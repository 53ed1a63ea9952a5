"""What trueup says when something is wrong: one `error:` line that says where, one `hint:` line that says what to do.

`assert` is for our own mistakes. Everything a user can cause is a `TrueupError`; the command line prints it and
exits 1. A traceback on a user's screen is a bug of trueup.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TrueupError(Exception):
    """The root of everything trueup raises on purpose. `hint` says what to try next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(TrueupError):
    """A setting that is unknown, of the wrong type, out of range or meaningless for what was chosen."""


class DataError(TrueupError):
    """A data file or row that cannot be used. The message names file and line."""


class WorkspaceError(TrueupError):
    """No workspace, a workspace of another version, or one that somebody else is writing."""


class DiskFullError(WorkspaceError):
    """No space left where something is written."""


class NotFoundError(TrueupError):
    """An artifact, run or name that does not exist."""


class ModelError(TrueupError):
    """A model that cannot be loaded, or does not fit the others it is used with."""


class RunError(TrueupError):
    """A run that cannot start, go on or be resumed."""


class Interrupted(TrueupError):
    """Ctrl-C or SIGTERM: the run has written its checkpoint and stopped."""


def brief(text: str, limit: int = 500, lines: int = 20) -> str:
    """The beginning of somebody else's words, fit to be stored and printed: half a surrogate and NUL are not."""
    whole = text.strip().encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    kept = "\n".join(whole.splitlines()[:lines])[:limit]
    return kept if len(kept) == len(whole) else f"{kept.rstrip()} …"


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` when a known name is close to `word`, else an empty string."""
    match = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""
