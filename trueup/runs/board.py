"""The same metrics for TensorBoard. Its library is loaded only when a run asks for it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import RunError


class Board:
    """Event files in one folder; after a resume TensorBoard forgets the steps that are done again."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        if find_spec("tensorboardX") is None:
            hint = "`pip install tensorboardX`, or switch it off with `--set run.tensorboard=false`"
            raise RunError("run.tensorboard is on, but tensorboardX is not installed", hint)
        purge = resume_step + 1 if resume_step else None
        # The library names files by the second: an attempt resumed at once would overwrite the one before it.
        suffix = f".from-{resume_step:06d}-{secrets.token_hex(2)}"
        writer = import_module("tensorboardX").SummaryWriter
        self._writer: Any = writer(str(folder), purge_step=purge, filename_suffix=suffix)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(name, float(value), step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
