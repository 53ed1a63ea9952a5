"""Log-probabilities under the reference, computed once: afterwards no reference has to stay in memory.

The reference is the policy before its first step. What it says of every completion is computed then, written into the
run's folder, and read from there when the run is resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from ..errors import RunError
from ..models.language_model import LanguageModel
from ..models.rows import Group
from ..runs.progress import track
from ..store.files import atomic_write
from ..text.batches import in_turn
from .run_loop import Loop

FILE = "reference.safetensors"


def reference_logprobs(loop: Loop, policy: LanguageModel, groups: Sequence[Group]) -> list[torch.Tensor]:
    """Of each group, the log-probabilities of its completions' tokens, one completion after another (on the CPU)."""
    path, tokens = loop.run.path / FILE, _tokens(groups)
    if not path.is_file():
        _write(path, loop, policy, groups, tokens)
    stored = load_file(path)
    if not torch.equal(stored["tokens"], tokens):
        raise RunError(f"{path} is about other completions than this run's", "start the run anew")
    return list(stored["logprobs"].split([sum(map(len, completions)) for _, completions in groups]))


def _write(path: Path, loop: Loop, policy: LanguageModel, groups: Sequence[Group], tokens: torch.Tensor) -> None:
    if loop.step:
        raise RunError(f"{path} is gone, and the policy is no longer the reference", "start the run anew")

    def look(size: int) -> torch.Tensor:
        return torch.cat(_look(policy, groups, min(size, loop.rows_at_once)))

    found = loop.within_memory(look, [len(prompt) + max(map(len, completions)) for prompt, completions in groups])
    atomic_write(path, save({"tokens": tokens, "logprobs": found}))


@torch.no_grad()
def _look(policy: LanguageModel, groups: Sequence[Group], size: int) -> list[torch.Tensor]:
    found = []
    with track(len(groups), "reference") as advance:
        for part in in_turn(len(groups), size):
            found.append(known_logprobs(policy, [groups[i] for i in part]).cpu())
            advance(len(part))
    return found


def known_logprobs(model: LanguageModel, groups: Sequence[Group], temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities of every completion token of the groups, one after another."""
    rows = model.rows(groups)
    return model.logprobs(rows, temperature)[rows.mask_cl]


def _tokens(groups: Sequence[Group]) -> torch.Tensor:
    return torch.tensor([t for _, completions in groups for c in completions for t in c], dtype=torch.int32)
