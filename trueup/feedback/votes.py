"""Everything that was said in a collection, row by row: to look into, to check, to take elsewhere; not to train on.

A set that is trained on leaves out golds, repeats, surplus, both-bad and revised answers. Here they all are, and so are
the items that somebody skipped and what was decided about items. Only what was flagged as personal data stays out.
Whatever is asked of a row is a column of it: who (by pseudonym), what they saw in which order, when, under which
guideline, which models wrote it with which settings, and why it was asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..records import Judgement, Prompt
from ..store import Artifact, Workspace, lineage, queue, read_jsonl, review
from ..store.clock import utc_text
from ..store.files import replacing
from ..text.formats import group_of
from ..text.streams import write_rows
from .adjudicate import Decision, decisions
from .desk import PERSONAL
from .splits import known_sides

KIND, ROWS = "votes", "rows.jsonl"
JUDGEMENT, SKIP, DECISION = "judgement", "skip", "decision"
PERSONAL_OUT = f"set aside: {PERSONAL}"
# Column -> what is in it, in the words of `text.streams`. Every row has all of them, null where it says nothing.
COLUMNS = {
    "what": "text",  # judgement, skip or decision
    "id": "text",
    "judge": "text",
    "source": "text",
    "item": "text",
    "role": "text",  # main, calibration, gold, qualification or control
    "round": "whole",  # above 0: shown again to the same person
    "prompt": "prompt",
    "completions": "texts",
    "ranks": "wholes",
    "ratings": "json",
    "split": "text",
    "stands": "truth",  # neither revised nor withdrawn
    "surplus": "truth",  # came when the item had its votes
    "supersedes": "text",
    "superseded_by": "text",
    "decision": "text",  # the last one about the item
    "submitted": "text",
    "seconds": "number",
    "active_seconds": "number",
    "order": "wholes",  # order[place] is the completion shown there
    "guideline": "whole",  # number of its version
    "answer": "json",  # as it came, by places on the screen
    "flags": "json",
    "assisted": "texts",  # helpers whose outputs were shown; empty where none were, null where the item had none
    "rationale": "text",
    "reason": "text",  # of a skip or a decision
    "quarantined": "text",  # why nobody gets the item any more
    "expected": "wholes",  # the answer to an item with a known one
    "models": "texts",
    "finished": "truths",
    "completion_set": "text",
    "sampling": "json",  # runs that sampled the set: model, seed and settings of each
    "why": "json",  # how the item was chosen: strategy, probability, batch
    "meta": "json",  # what else the judgement notes
}
_TOLD = (
    *("answer", "flags", "assisted", "order", "guideline", "round", "role", "item", "surplus", "supersedes", "seconds"),
)


@dataclass
class Tally:
    """What the rows were, known once they have all been read."""

    rows: Counter[str] = field(default_factory=Counter)  # by what they are
    people: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    guidelines: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    sets: set[str] = field(default_factory=set)


def everything(workspace: Workspace, collection: str, tally: Tally) -> Iterator[dict[str, Any]]:
    """The rows, never held all at once: judgements as they came, then skips by person, then decisions."""
    told = _Telling(workspace, collection)
    for row in chain(told.judgements(), told.skips(), told.decided()):
        if Prompt.from_json(row["prompt"]).id in told.personal:
            tally.left_out[PERSONAL_OUT] += 1
            continue
        tally.rows[row["what"]] += 1
        tally.splits[row["split"]] += 1
        tally.sets.add(row["completion_set"])
        if row["what"] == JUDGEMENT:
            tally.people[row["judge"]] += 1
            tally.guidelines[str(row["guideline"] or "unknown")] += 1
        yield row


def write(artifact: Artifact, target: Path, *, split: str = "", number_judges: bool = False) -> int:
    """A frozen set of votes to a new .jsonl, .jsonl.gz or .parquet file, row by row; returns how many."""
    rows = (row for row in read_jsonl(artifact.path / ROWS) if split in ("", row["split"]))
    with replacing(target) as file:
        return write_rows(file, target, _numbered(rows) if number_judges else rows, COLUMNS)


def check_export(format: str, conversational: bool) -> None:
    if format != "raw" or conversational:
        raise ConfigError(
            "votes are written as they are: they fit no format that others train on",
            "--format raw; or freeze the collection as preferences for the other formats",
        )


def _numbered(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Judges as judge-1, judge-2 and so on; also where one of them stands for a model, as the writer of an edit."""
    numbers: dict[str, str] = {}
    for row in rows:
        if row["judge"]:
            judge = row["judge"]
            row["judge"] = numbers.setdefault(judge, f"judge-{len(numbers) + 1}")
            row["models"] = row["models"] and [row["judge"] if each == judge else each for each in row["models"]]
        yield row


class _Telling:
    """One collection as rows. What is looked up again and again is read once."""

    def __init__(self, workspace: Workspace, collection: str) -> None:
        self.workspace, self.db, self.collection = workspace, workspace.database, collection
        self.decisions = decisions(workspace, collection)
        self.numbers = {each["id"]: each["number"] for each in queue.guidelines(self.db, collection)}
        self.sides = known_sides(workspace)
        self.personal = set(_personal(workspace, collection))
        self.sampling = cache(lambda artifact: list(_sampling(workspace, artifact)))

    def judgements(self) -> Iterator[dict[str, Any]]:
        for said, about in queue.every_judgement(self.db, self.collection):
            meta = said.meta
            yield self._row(JUDGEMENT, said.prompt, about) | {
                **_said(said),
                "stands": about["stands"],
                "surplus": bool(meta.get("surplus")),
                "supersedes": about["supersedes"],
                "superseded_by": about["superseded_by"],
                "submitted": about["submitted"],
                "seconds": meta.get("seconds"),
                "active_seconds": meta.get("active_seconds"),
                "order": meta.get("order"),
                "guideline": self.numbers.get(meta.get("guideline")),
                "answer": meta.get("answer"),
                "flags": meta.get("flags"),
                "assisted": meta.get("assisted"),
                "rationale": (meta.get("answer") or {}).get("rationale"),
                "models": models(said, about["models"]) or None,
                "finished": finished(said, about["finished"]),
                "meta": {name: value for name, value in meta.items() if name not in (*_TOLD, "active_seconds")},
            }

    def skips(self) -> Iterator[dict[str, Any]]:
        for about in queue.every_skip(self.db, self.collection):
            yield self._row(SKIP, Prompt.from_json(about["prompt"]), about) | {
                "id": about["assignment"],
                "judge": about["judge"],
                "source": "human",
                "submitted": utc_text(about["expires"]),
                "seconds": round(max(0.0, about["expires"] - about["issued"]), 3),
                "order": about["order"],
                "assisted": about["helped"],
                "guideline": self.numbers.get(about["guideline"]),
                "reason": about["skipped_because"],
            }

    def decided(self) -> Iterator[dict[str, Any]]:
        for found in _pages(self.decisions):
            items = review.items(self.db, self.collection, found)
            for item in (items[each] for each in found if each in items):
                last = self.decisions[item.id]
                about = {name: getattr(item, name) for name in _OF_ITEM} | {"item": item.id, "round": None}
                yield self._row(DECISION, item.prompt, about) | _decision(last)

    def _row(self, what: str, prompt: Prompt, about: Mapping[str, Any]) -> dict[str, Any]:
        """What every row says of its item."""
        last = self.decisions.get(about["item"])
        return dict.fromkeys(COLUMNS) | {
            "what": what,
            "item": about["item"],
            "role": about["role"],
            "round": about["round"],
            "prompt": prompt.to_json(),
            "completions": list(about["texts"]),
            "split": self.sides.get(group_of(prompt), about["split"]),
            "decision": last.decision if last else None,
            "quarantined": (about["reason"] or "yes") if about["state"] == "quarantined" else None,
            "expected": about["key"]["ranks"] if about["key"] else None,
            "models": list(about["models"]) or None,
            "finished": list(about["finished"]),
            "completion_set": about["completions"],
            "sampling": self.sampling(about["completions"]),
            "why": dict(about["why"]),
        }


_OF_ITEM = ("role", "state", "reason", "split", "completions", "texts", "finished", "models", "key", "why")


def _said(said: Judgement) -> dict[str, Any]:
    ratings = {axis: list(given) for axis, given in said.ratings.items()}
    return {
        "id": said.id,
        "judge": said.judge,
        "source": said.source,
        "completions": list(said.completions),
        "ranks": list(said.ranks),
        "ratings": ratings or None,
    }


def _decision(last: Decision) -> dict[str, Any]:
    """With the answer that was accepted, if one was. A person is named by their pseudonym, which that answer has."""
    accepted = {} if last.judgement is None else _said(last.judgement)
    meta = {"votes": list(last.votes), "unanimous": last.unanimous}
    return accepted | {"submitted": utc_text(last.at), "reason": last.cause, "meta": meta}


def _personal(workspace: Workspace, collection: str) -> Iterator[str]:
    """Ids of prompts that somebody flagged. An item of the qualification is never set aside, so its flags are read."""
    db, after = workspace.database, -1
    while page := queue.items(db, collection, after, state="quarantined"):
        yield from (item.prompt.id for item in page if PERSONAL in item.reason)
        after = page[-1].position
    after = -1
    while page := queue.items(db, collection, after, role="qualification"):
        votes = review.votes(db, [item.id for item in page])
        yield from (item.prompt.id for item in page if any(map(_flags_personal, votes[item.id])))
        after = page[-1].position


def _flags_personal(said: Judgement) -> bool:
    flags = said.meta.get("flags") or {}
    return PERSONAL in chain(flags.get("prompt", ()), *flags.get("completions", ()))


def _sampling(workspace: Workspace, artifact: str) -> Iterator[dict[str, Any]]:
    """The runs behind a completion set: its own, or those of the sets that it was put together from."""
    with workspace.database.read() as connection:
        run = lineage.maker_of(connection, artifact)
    if run is not None:
        settings = dict(run.config.get("sampling", {}))
        about = {"completion_set": artifact, "run": run.id, "model": run.inputs.get("model"), "seed": run.seed}
        yield about | {"per_prompt": run.config.get("per_prompt"), "settings": settings}
        return
    for parent in workspace.get(artifact).parents.values():
        if workspace.get(parent).kind == "completions":
            yield from _sampling(workspace, parent)


def _pages(ids: Mapping[str, Any], size: int = 500) -> Iterator[list[str]]:
    every = sorted(ids)
    yield from (every[start : start + size] for start in range(0, len(every), size))


# Of one vote, for sets that are trained on too


def finished(said: Judgement, of_item: Any) -> list[bool]:
    """What a person wrote is finished; the rest as the item says."""
    edit = said.meta.get("edit")
    if edit is not None and len(said.completions) == 2:
        return [of_item[edit["of"]], True]
    return [*of_item, *([True] if edit is not None else [])]


def models(said: Judgement, of_item: Any) -> list[str]:
    """The model behind each completion; behind what a person wrote stands that person. Empty where none is known."""
    edit = said.meta.get("edit")
    if not of_item or edit is None:
        return list(of_item)
    before = [of_item[edit["of"]]] if len(said.completions) == 2 else list(of_item)
    return [*before, said.judge]
