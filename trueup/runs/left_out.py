"""What is too long for a model: left out and counted, said once, and the first of it listed in the run's events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..records import Prompt
from ..store import Artifact
from .run import Run

LISTED = 5
START = 60  # characters of a prompt, enough to find it by


@dataclass(frozen=True)
class LeftOut:
    """`count` of an artifact's `total` rows or prompts (`unit`) are longer than `limit` tokens.

    `first` are some of them, each with the number of its row in the artifact.
    """

    artifact: Artifact
    unit: Literal["row", "prompt"]
    limit: int
    count: int
    total: int
    first: tuple[tuple[int, Prompt], ...] = ()

    def __str__(self) -> str:
        text = f"{self.count} of {self.total} {self.unit}s of {self.artifact.id} left out"
        if not self.first:
            return text
        number, prompt = self.first[0]
        return f"{text}: longer than {self.limit} tokens (first: row {number}, '{start_of(prompt)}')"

    def tell(self, run: Run) -> None:
        """A run that goes on from a checkpoint has said it already."""
        if self.count and run.resume_folder is None:
            rows = [{"row": number, "prompt": p.id, "text": start_of(p)} for number, p in self.first[:LISTED]]
            run.tell("left out", str(self), rows=rows)


def start_of(prompt: Prompt) -> str:
    text = " ".join(prompt.text.split())
    return text if len(text) <= START else f"{text[:START]}..."
