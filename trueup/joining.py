"""`trueup data join`: several sets of judgements as one, each on an objective of its own if wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ConfigError
from .inputs import Ref, find_input
from .loading import ROWS, put_records
from .records import Prompt
from .store import JUDGED, Artifact, Workspace, read_jsonl
from .text.formats import group_of


def join_data(ws: Workspace, sets: Sequence[Ref | tuple[str, Ref]], *, name: str = "") -> Artifact:
    """One set of all judgements. `("harmless", SET)` marks those of a set as made on an objective.

    A prompt that is held out in one of them is held out in all, and so is every longer form of its conversation: what a
    reward model is tested on it has not seen.
    """
    named = [each if isinstance(each, tuple) else ("", each) for each in sets]
    found = {f"data{i}": find_input(ws, "data", ref, JUDGED).artifact for i, (_, ref) in enumerate(named)}
    artifacts = {role: artifact for role, artifact in found.items() if artifact is not None}
    kinds = {artifact.kind for artifact in artifacts.values()}
    if len(named) < 2 or len(kinds) > 1:
        raise ConfigError(
            f"{len(named)} set{'s' * (len(named) > 1)} of {' and '.join(sorted(kinds))} cannot be joined",
            "give two or more of one kind: preferences, or unpaired",
        )
    rows = [
        _marked(row, objective)
        for (objective, _), artifact in zip(named, artifacts.values(), strict=True)
        for row in read_jsonl(artifact.path / ROWS)
    ]
    groups = [group_of(Prompt.from_json(row["prompt"])) for row in rows]
    held = {group for group, row in zip(groups, rows, strict=True) if row["split"] == "heldout"}
    rows = [r | {"split": "heldout" if group in held else r["split"]} for group, r in zip(groups, rows, strict=True)]
    return put_records(ws, kinds.pop(), rows, name=name, parents=artifacts)


def _marked(row: Mapping[str, Any], objective: str) -> dict[str, Any]:
    return {**row, "meta": {**row.get("meta", {}), "objective": objective}} if objective else dict(row)
