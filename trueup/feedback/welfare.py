"""What spares people: texts about sensitive matters stay covered until whoever judges them asks to see them.

Covered by words that the collection names, never by what other people flagged: that would tell the next judge what the
one before thought.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ..records import Prompt
from ..store.categories import names_of, plain_name


def covered(words: Sequence[str], prompt: Prompt, texts: Sequence[str]) -> tuple[bool, ...]:
    """Whether the prompt, then each text, is covered. Under a sensitive prompt all is: what answers it is about it."""
    pattern = _any_of(tuple(words))
    if pattern is None:
        return (False,) * (1 + len(texts))
    said = "\n".join(message.content for message in prompt.messages)
    if _tagged(words, prompt) or pattern.search(said):
        return (True,) * (1 + len(texts))
    return (False, *(pattern.search(text) is not None for text in texts))


def _tagged(words: Sequence[str], prompt: Prompt) -> bool:
    return not {plain_name(word) for word in words}.isdisjoint(names_of(prompt))


@lru_cache(maxsize=64)
def _any_of(words: tuple[str, ...]) -> re.Pattern[str] | None:
    """Whole words, in any case; None where there is none."""
    wanted = [re.escape(word.strip()) for word in words if word.strip()]
    return re.compile(rf"(?<!\w)(?:{'|'.join(wanted)})(?!\w)", re.IGNORECASE) if wanted else None
