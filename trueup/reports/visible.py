"""Text from a model, made safe to look at: characters that hide, reorder or steer are spelled out.

Escaping stops markup. It does not stop a right-to-left override that makes a sentence read backwards, a terminal
escape that moves the cursor, or zero-width text that only the next model sees.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import groupby

# Letters by category, blank by design; and the selectors that can smuggle bytes after any character.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800")
_SELECTORS = range(0xE0100, 0xE01F0)
# Cc control, Cf format (bidi, zero width, tags), Cs half a surrogate pair (cannot be written as UTF-8),
# Zl and Zp separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def is_hidden(char: str) -> bool:
    """Whether a reader could not see this character, or it changes how its neighbours are seen."""
    if char in "\n\t":
        return False
    return unicodedata.category(char) in _HIDDEN or char in _BLANK or ord(char) in _SELECTORS


def parts(text: str) -> Iterator[tuple[str, bool]]:
    """`text` in runs that are plain (False), and its hidden characters one by one (True)."""
    for hidden, run in groupby(text, key=is_hidden):
        if hidden:
            yield from ((char, True) for char in run)
        else:
            yield "".join(run), False


def code_point(char: str) -> str:
    return f"U+{ord(char):04X}"


def visible(text: object) -> str:
    """Plain text with every hidden character written as `<U+202E>`."""
    return "".join(f"<{code_point(run)}>" if hidden else run for run, hidden in parts(str(text)))


def clipped(text: str, limit: int) -> str:
    """At most `limit` characters, and how many were left out."""
    return text if len(text) <= limit else f"{text[:limit].rstrip()}… ({len(text) - limit:,} more characters)"
