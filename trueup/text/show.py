"""Rows as the model will see them: template applied, trained tokens marked, lengths, what is cut or dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..records import Prompt
from .chat import Encoder
from .formats import Record, completions_of

OPEN, CLOSE = "⟦", "⟧"
_GREEN, _PLAIN = "\x1b[32m", "\x1b[0m"


@dataclass(frozen=True)
class Shown:
    """One row: its text in stretches, each trained on or not. `dropped`: its last turn and completion do not fit."""

    segments: tuple[tuple[str, bool], ...]
    tokens: int
    truncated: bool = False
    dropped: bool = False

    def text(self, *, ansi: bool = False) -> str:
        """For people: trained text in ⟦brackets⟧, or in green on a terminal."""
        start, end = (_GREEN, _PLAIN) if ansi else (OPEN, CLOSE)
        marked = "".join(f"{start}{_safe(text)}{end}" if trained else _safe(text) for text, trained in self.segments)
        notes = [
            note
            for note, on in (("oldest turns left out", self.truncated), ("does not fit: dropped", self.dropped))
            if on
        ]
        return f"{marked}\n({', '.join([f'{self.tokens} tokens', *notes])})"


@dataclass(frozen=True)
class Summary:
    """Lengths in tokens over the rows that are kept, and the shares of all rows that are not whole."""

    rows: int
    shortest: int
    median: int
    p95: int
    longest: int
    share_truncated: float
    share_dropped: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def show(record: Record, encoder: Encoder, max_tokens: int) -> list[Shown]:
    """One row a completion: a judgement has several, a bare prompt is one row with nothing trained."""
    if isinstance(record, Prompt):
        return [_show_prompt(record, encoder, max_tokens)]
    return [_show_row(record.prompt, text, encoder, max_tokens) for text in completions_of(record)]


def summarise(records: Iterable[Record], encoder: Encoder, max_tokens: int) -> Summary:
    """What `max_tokens` does to these records."""
    rows = [_measure(prompt, text, encoder, max_tokens) for record in records for prompt, text in _texts(record)]
    lengths = [length for length, _ in rows if length]
    low, median, p95, high = _quantiles(lengths)
    cut, dropped = sum(truncated for _, truncated in rows), len(rows) - len(lengths)
    return Summary(len(rows), low, median, p95, high, cut / max(len(rows), 1), dropped / max(len(rows), 1))


def _texts(record: Record) -> list[tuple[Prompt, str | None]]:
    if isinstance(record, Prompt):
        return [(record, None)]
    return [(record.prompt, text) for text in completions_of(record)]


def _measure(prompt: Prompt, text: str | None, encoder: Encoder, max_tokens: int) -> tuple[int, bool]:
    """Length (0: dropped) and whether turns were left out."""
    if text is None:
        fitted = encoder.fit(prompt, max_tokens)
        return (0, False) if fitted is None else (len(encoder.prompt(fitted)), fitted is not prompt)
    row = encoder.encode_row(prompt, text, max_tokens)
    return (0, False) if row is None else (len(row.tokens), row.truncated)


def _show_prompt(prompt: Prompt, encoder: Encoder, max_tokens: int) -> Shown:
    fitted = encoder.fit(prompt, max_tokens)
    tokens = encoder.prompt(fitted or prompt)
    return Shown(((_decode(encoder, tokens), False),), len(tokens), fitted not in (None, prompt), fitted is None)


def _show_row(prompt: Prompt, text: str, encoder: Encoder, max_tokens: int) -> Shown:
    row = encoder.encode_row(prompt, text, max_tokens)
    if row is None:
        whole = encoder.prompt(prompt) + encoder.completion(prompt, text)
        return Shown(((_decode(encoder, whole), False),), len(whole), dropped=True)
    start, rest = row.tokens[: row.completion_start], row.tokens[row.completion_start :]
    return Shown(((_decode(encoder, start), False), (_decode(encoder, rest), True)), len(row.tokens), row.truncated)


def _decode(encoder: Encoder, tokens: Sequence[int]) -> str:
    return str(encoder.tokenizer.decode(list(tokens), skip_special_tokens=False))


def _safe(text: str) -> str:
    """Data must not drive the terminal: control characters are shown, not sent."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _quantiles(lengths: Sequence[int]) -> tuple[int, int, int, int]:
    if not lengths:
        return 0, 0, 0, 0
    low, median, p95, high = np.quantile(lengths, [0, 0.5, 0.95, 1], method="higher").tolist()
    return int(low), int(median), int(p95), int(high)
