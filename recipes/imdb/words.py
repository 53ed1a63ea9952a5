"""A scorer without a model: praise less blame, for a share of the words. Easy to please, which is soon to be seen."""

from __future__ import annotations

import re

PRAISE = set(
    "beautiful best brilliant charming enjoyed excellent fun funny good great love loved perfect superb".split()
)
BLAME = {*"awful bad boring disappointing dull hate hated horrible poor stupid terrible waste weak worst".split()}


def positive(prompt: str, completion: str) -> float:
    words = re.findall(r"[a-z]+", completion.lower())
    said = sum(word in PRAISE for word in words) - sum(word in BLAME for word in words)
    return said / max(len(words), 1)
