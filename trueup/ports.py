"""The three things a stage is handed and never builds: who writes, who scores, who judges.

Fakes of all three are public API (`trueup.engines.fake`): a test swaps the model and keeps everything else real.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from .config import Sampling
from .records import Completion, Judgement, Prompt, Score


class Engine(Protocol):
    """Prompts in, completions out, with the exact log-probability of every token."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int, n: int = 1) -> list[Completion]:
        """`n` completions a prompt, those of one prompt side by side. The same seed gives the same text."""
        ...

    def logprobs(self, completions: Sequence[Completion], temperature: float = 1.0) -> list[list[float]]:
        """Log-probability of each token of given completions (tokenised here if they carry no tokens)."""
        ...


class Scorer(Protocol):
    """Completions in, numbers out: a reward model, several of them, a rule, any Python function."""

    def score(self, completions: Sequence[Completion]) -> list[Score]: ...


class Judge(Protocol):
    """Several completions of one prompt in, a `Judgement` out: people, simulated people, an AI.

    An iterable, because people take their time: judgements come as they are made, in any order.
    """

    def judge(self, items: Iterable[Sequence[Completion]]) -> Iterable[Judgement]: ...
