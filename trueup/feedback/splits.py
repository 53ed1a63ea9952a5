"""Which side of the held-out split a prompt is on: the same one in every collection and frozen set of a workspace.

The first collection that asks about a prompt decides it, by the share that it holds out; all others follow. Were two
to decide for themselves, a model could be tested on prompts that it learnt from by way of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from ..records import Prompt
from ..store import Workspace
from ..store.items import splits
from ..text.formats import group_of, split_by_prompt

Split: TypeAlias = Literal["train", "heldout"]
SPLIT_SEED = 0  # not that of what is asked: a larger share holds out what a smaller one does, and more


def known_sides(workspace: Workspace) -> dict[str, Split]:
    """Group -> the side it is on. One that older collections have on both sides is held out."""
    sides: dict[str, Split] = {}
    for prompt, side in splits(workspace.database):
        group = group_of(prompt)
        if sides.get(group) != "heldout":
            sides[group] = "heldout" if side == "heldout" else "train"
    return sides


def side_of(prompt: Prompt, known: Mapping[str, Split], share: float, seed: int = SPLIT_SEED) -> Split:
    """Where the prompt is, or where a share that is to be held out puts it."""
    group = group_of(prompt)
    return known.get(group) or split_by_prompt(group, share, seed)
