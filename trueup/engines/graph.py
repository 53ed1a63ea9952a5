"""The same pass again and again on a GPU: recorded once for each shape, then replayed without Python.

A recording reads and writes fixed memory, so what goes in is copied there first, and what comes out is good until the
next call. A pass that cannot be recorded is run as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..runs.progress import note

Shapes = tuple[torch.Size, ...]


class Replayed:
    """`function` of tensors, without side effects but on memory that stays where it is."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self.function = function
        self.works = True
        self._recorded: dict[Shapes, tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]] = {}

    def __call__(self, *given: torch.Tensor) -> torch.Tensor:
        shapes = tuple(each.shape for each in given)
        if self.works and shapes not in self._recorded:
            try:
                self._recorded[shapes] = self._record(given)
            except RuntimeError as error:
                self.works = False
                note(f"this model's step cannot be recorded as a CUDA graph and runs as it is: {str(error)[:200]}")
        if not self.works:
            return self.function(*given)
        graph, inputs, output = self._recorded[shapes]
        for mine, theirs in zip(inputs, given, strict=True):
            mine.copy_(theirs)
        graph.replay()
        return output.clone()

    def _record(self, given: tuple[torch.Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]:
        inputs = [each.clone() for each in given]
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):  # what libraries set up at their first call must not be in the recording
            self.function(*inputs)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.function(*inputs)
        return graph, inputs, output
