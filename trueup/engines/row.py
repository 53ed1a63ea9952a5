"""One completion while it is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..config import Sampling

# Logits (n, v), the rows they belong to and a uniform number for each, in; tokens (n) and their log-probabilities, out.
Pick = Callable[[torch.Tensor, Sequence["Row"], torch.Tensor, Sampling], tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Row:
    """`index` is its place in the answer; with `seed` it decides the row's random draws."""

    index: int
    prompt: tuple[int, ...]
    limit: int  # tokens it may have
    seed: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False

    @property
    def done(self) -> bool:
        return self.finished or len(self.tokens) == self.limit

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)

    def take(self, token: int, logprob: float, stops: Collection[int]) -> None:
        """The next token; a row that is done but not yet out of the batch takes no more."""
        if not self.done:
            self.tokens.append(token)
            self.logprobs.append(logprob)
            self.finished = token in stops

    def restart(self) -> None:
        self.tokens, self.logprobs, self.finished = [], [], False

    def draws(self) -> np.ndarray:
        """Its uniform numbers, from a stream of its own: (seed, index) decides, nothing else."""
        return np.random.Generator(np.random.Philox(key=[self.seed, self.index])).random(self.limit)
