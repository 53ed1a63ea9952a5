"""Checkpoint folders of one run: each complete or not there; the last two and the best are kept, or all."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..store import describe_files, differing_files, remove, saying_disk_full, sync_folder, sync_tree

KEPT = 2
WEIGHTS = "weights.safetensors"
_STATE = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder says of itself: its files, and how long the run's streams were when it was made."""

    step: int
    score: float | None
    files: Mapping[str, Mapping[str, Any]]
    streams: Mapping[str, int]
    samples: tuple[str, ...]


class Checkpoints:
    """The folder checkpoints/ of a run. Names that begin with a dot are unfinished or on their way out."""

    def __init__(self, folder: Path, most: int | None = KEPT) -> None:
        self.folder, self.most = folder, most

    def write(
        self,
        step: int,
        fill: Callable[[Path], None],
        score: float | None,
        streams: Mapping[str, int],
        samples: tuple[str, ...],
    ) -> Path:
        """Fill a hidden folder, make it durable, then give it its name: a kill at any point leaves no half of one."""
        hidden, final = self.folder / f".new-{_name(step)}", self.folder / _name(step)
        with saying_disk_full(self.folder):
            self.folder.mkdir(exist_ok=True)
            remove(hidden)
            hidden.mkdir()
            try:
                fill(hidden)
                score = score if score is not None and math.isfinite(score) else None
                state = Checkpoint(step, score, describe_files(hidden), streams, samples)
                (hidden / _STATE).write_text(json.dumps(asdict(state), indent=1))
                sync_tree(hidden)
            except BaseException:
                remove(hidden)
                raise
            self._drop(final)  # the same step once more, after a resume
            hidden.replace(final)
            sync_folder(self.folder)
        self._prune()
        return final

    def all(self) -> list[tuple[int, Path]]:
        """(step, folder), earliest first."""
        folders = self.folder.glob("step-*") if self.folder.is_dir() else ()
        named = [(path, re.fullmatch(r"step-([0-9]{6,})", path.name)) for path in folders]
        return sorted((int(found[1]), path) for path, found in named if found)

    def last(self) -> tuple[int, Path] | None:
        return self.all()[-1] if self.all() else None

    def best(self) -> tuple[int, Path] | None:
        """The one with the highest score, the earlier one of equals; None when none has a score."""
        scored = [(state.score, -step) for step, folder in self.all() if (state := read(folder)).score is not None]
        return (-max(scored)[1], self.folder / _name(-max(scored)[1])) if scored else None

    def clean(self) -> None:
        """Remove what a kill left unfinished, and what it left too many of."""
        for path in self.folder.glob(".*") if self.folder.is_dir() else ():
            remove(path)
        self._prune()

    def _prune(self) -> None:
        if self.most is None:
            return
        best = self.best()
        for step, folder in self.all()[: -self.most]:
            if best is None or step != best[0]:
                self._drop(folder)

    def _drop(self, folder: Path) -> None:
        """Take the name away first: a kill halfway must not leave a folder that looks complete."""
        if folder.exists():
            doomed = folder.with_name(f".old-{folder.name}")
            remove(doomed)
            folder.replace(doomed)
            remove(doomed)


def weights_of(folder: Path) -> Callable[[Path], None]:
    """What fills another folder with a checkpoint's weights: the same file under a second name, where that can be."""

    def fill(other: Path) -> None:
        try:
            os.link(folder / WEIGHTS, other / WEIGHTS)
        except OSError:
            shutil.copyfile(folder / WEIGHTS, other / WEIGHTS)

    return fill


def read(folder: Path) -> Checkpoint:
    """What a checkpoint says of itself."""
    try:
        state = json.loads((folder / _STATE).read_bytes())
        found = Checkpoint(**(state | {"samples": tuple(state["samples"])}))
        if not isinstance(found.step, int) or not isinstance(found.score, int | float | None):
            raise TypeError
        return found
    except FileNotFoundError as error:
        raise _damaged(folder, f"{_STATE}: missing") from error
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, f"{_STATE}: changed") from error


def check(folder: Path) -> Checkpoint:
    """Read a checkpoint and make sure that its files are what they were."""
    state = read(folder)
    wrong = [line for line in differing_files(folder, state.files) if line != f"{_STATE}: added"]
    if wrong:
        raise _damaged(folder, ", ".join(wrong[:3]))
    return state


def _damaged(folder: Path, what: str) -> RunError:
    return RunError(
        f"the checkpoint {folder} is damaged ({what})", f"delete {folder} to go on from those that are left"
    )


def _name(step: int) -> str:
    return f"step-{step:06d}"
