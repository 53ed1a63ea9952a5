"""What spares people: texts about sensitive matters stay covered until whoever judges them asks to see them.

Covered by words that the collection names, never by what other people flagged: that would tell the next judge what the
one before thought.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ..records import Prompt

CATEGORY = "category"  # the tag of a prompt, in its meta, that says what it is about


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
    """A tag is one category or a list of them."""
    tags = prompt.meta.get(CATEGORY, ())
    given = [tags] if isinstance(tags, str) else tags if isinstance(tags, list | tuple) else []
    return not {_plain(word) for word in words}.isdisjoint(_plain(str(tag)) for tag in given)


@lru_cache(maxsize=64)
def _any_of(words: tuple[str, ...]) -> re.Pattern[str] | None:
    """Whole words, in any case; None where there is none."""
    wanted = [re.escape(word.strip()) for word in words if word.strip()]
    return re.compile(rf"(?<!\w)(?:{'|'.join(wanted)})(?!\w)", re.IGNORECASE) if wanted else None


def _plain(word: str) -> str:
    return word.strip().casefold()
