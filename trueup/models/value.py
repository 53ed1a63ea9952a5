"""The value model: a small head on the policy's own trunk, reading the state before each completion token."""

from __future__ import annotations

import torch
from torch import nn


class ValueHead(nn.Module):
    """One hidden layer, the last weight zero: the first values are exactly 0, so the first advantages are returns."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._make(width)

    def _make(self, width: int) -> None:
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(hidden.float()))).squeeze(-1)
