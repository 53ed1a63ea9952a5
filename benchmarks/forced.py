"""Completions of given lengths from transformers' `generate`, whoever calls it. Imports nothing of trueup.

A logits processor forbids the end (and padding, which TRL takes for an end) until a row is as long as it has to be, and
then allows nothing but the end; after it the row is left alone. Without an end to write, the length limit stops all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList


class Forced(LogitsProcessor):
    """One call of `generate`: its k-th use is for the k-th new token."""

    def __init__(self, lengths: Sequence[int], eos: int, pad: int, *, ends: bool) -> None:
        self.last = torch.tensor(lengths)
        self.eos, self.pad, self.ends, self.written = eos, pad, ends, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.written += 1
        writing = self.last > self.written if self.ends else torch.ones_like(self.last, dtype=torch.bool)
        due = (self.last == self.written) & self.ends
        scores = scores.clone()
        for token in (self.eos, self.pad):
            scores[:, token] = scores[:, token].masked_fill(writing, -torch.inf)
        scores[due] = -torch.inf
        scores[due, self.eos] = 0.0
        return scores


def force(wanted: Callable[[int, int], Sequence[int]], eos: int, pad: int, *, ends: bool) -> list[int]:
    """From now on `generate` writes the `wanted` tokens, asked with how many rows were written before and how many are
    written now; returns where the lengths of all rows will stand."""
    plain, written = GenerationMixin.generate, list[int]()

    def generate(self: Any, *given: Any, **named: Any) -> Any:
        lengths = wanted(len(written), len(named["input_ids"]))
        processor = Forced(lengths, eos, pad, ends=ends)
        found = plain(self, *given, logits_processor=LogitsProcessorList([processor]), **named)
        tokens = getattr(found, "sequences", found)[:, named["input_ids"].shape[1] :]
        written.extend(realised(tokens, eos))
        return found

    GenerationMixin.generate = generate
    return written


def realised(tokens_bt: torch.Tensor, eos: int) -> list[int]:
    """Tokens of each row up to its first end, the end included."""
    ended = (tokens_bt == eos).long()
    first = torch.where(ended.any(1), ended.argmax(1) + 1, tokens_bt.shape[1])
    return [int(length) for length in first]
