"""Items on which people disagree, and what somebody with the say decided about them.

A decision is an entry of the audit log that names the votes it was made on, so nothing is overwritten: votes stay
votes. An accepted answer is a judgement of its own; a set that is frozen takes it in place of the votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple, get_args

from ..errors import ConfigError, DataError, NotFoundError, nearest
from ..records import Judgement
from ..store import Workspace, audit, queue
from ..store.items import ORDINARY

Verdict = Literal["accept", "requeue", "ambiguous"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ACTION = "adjudicate"
COMMAND_LINE = "human:adjudicator"  # whose judgement it is where nobody is logged in


@dataclass(frozen=True)
class Decision:
    """The last word on an item. `judgement` is the accepted answer, `votes` what it was decided on."""

    item: str
    decision: Verdict
    votes: tuple[str, ...]
    unanimous: bool
    cause: str
    judgement: Judgement | None = None


class Vote(NamedTuple):
    """As much of a judgement as disagreement needs: a million of them fit into memory."""

    judge: str
    ranks: tuple[int, ...]
    id: str


@dataclass(frozen=True)
class Disputed:
    """An item whose votes contradict one another. `agreement` is over all pairs of votes; a tie agrees by half."""

    item: queue.Item
    votes: tuple[Vote, ...]
    agreement: float
    decision: str

    def to_json(self) -> dict[str, Any]:
        return {
            "item": self.item.id,
            "position": self.item.position,
            "agreement": round(self.agreement, 4),
            "votes": [{"judge": vote.judge, "ranks": list(vote.ranks), "id": vote.id} for vote in self.votes],
            "decision": self.decision,
            "prompt": self.item.prompt.text,
            "completions": list(self.item.texts),
        }


def disputed(workspace: Workspace, collection: str, *, below: float = 1.0, limit: int = 20) -> list[Disputed]:
    """Items with at least two votes that agree by less than `below`, the most disputed first."""
    found = queue.collection(workspace.database, collection)
    votes = _votes(workspace, found.id)
    shares = {item: agreement(given) for item, given in votes.items() if len(given) > 1}
    worst = sorted((item for item, share in shares.items() if share < below), key=lambda item: (shares[item], item))
    decided = decisions(workspace, found.id)
    chosen = dict.fromkeys(worst[:limit])
    items = {item.id: item for item in every_item(workspace, found.id) if item.id in chosen}
    return [Disputed(items[i], tuple(votes[i]), shares[i], decided[i].decision if i in decided else "") for i in chosen]


def agreement(votes: Sequence[Vote]) -> float:
    """Mean over pairs of votes and pairs of completions: 1 the same, 0 opposite, a half where one of them ties."""
    said = [[(a > b) - (a < b) for a, b in combinations(vote.ranks, 2)] for vote in votes]
    points = [1 - abs(x - y) / 2 for a, b in combinations(said, 2) for x, y in zip(a, b, strict=False)]
    return sum(points) / len(points) if points else 1.0


def decide(
    workspace: Workspace,
    collection: str,
    item: str,
    decision: Verdict,
    *,
    now: float,
    ranks: Sequence[int] = (),
    more: int = 1,
    cause: str = "",
    person: str = "",
    judge: str = COMMAND_LINE,
) -> Decision:
    """Accept an answer (`ranks`), ask `more` people, or call the item ambiguous. Who decided is `person`, an id."""
    if decision not in VERDICTS:
        raise ConfigError(f"unknown decision '{decision}'{nearest(decision, VERDICTS)}", ", ".join(VERDICTS))
    db = workspace.database
    found = queue.collection(db, collection)
    about = _item(workspace, found.id, item)
    votes = _votes(workspace, found.id).get(about.id, [])
    if not votes and decision != "requeue":
        raise DataError(f"nobody has judged item {about.id} yet", "adjudication needs votes to decide on")
    ids = tuple(vote.id for vote in votes)
    made = Decision(about.id, decision, ids, len(votes) > 1 and agreement(votes) == 1, cause)
    details: dict[str, Any] = {"collection": found.id, "decision": decision, "votes": list(ids)}
    if decision == "accept":
        judgement = _accepted(workspace, found.id, about, made, tuple(ranks), judge)
        made = Decision(about.id, decision, ids, made.unanimous, cause, judgement)
        details["judgement"] = judgement.id
    elif decision == "requeue":
        queue.release(db, about.id, about.done + more)
    audit.note(db, now, person, ACTION, about.id, **details, unanimous=made.unanimous, cause=cause)
    return made


def decisions(workspace: Workspace, collection: str) -> dict[str, Decision]:
    """The last decision on each item that has one; an item that went back into the queue is open again."""
    last = {
        entry["about"]: entry["details"]
        for entry in _entries(workspace)
        if entry["action"] == ACTION and entry["details"]["collection"] == collection
    }
    accepted = [about["judgement"] for about in last.values() if "judgement" in about]
    answers = {judgement.id: judgement for judgement in workspace.judgements(accepted)}
    return {
        item: Decision(
            item,
            about["decision"],
            tuple(about["votes"]),
            about["unanimous"],
            about["cause"],
            answers.get(about.get("judgement", "")),
        )
        for item, about in last.items()
    }


def every_item(workspace: Workspace, collection: str) -> Iterator[queue.Item]:
    after = -1
    while page := queue.items(workspace.database, collection, after=after):
        yield from page
        after = page[-1].position


def _votes(workspace: Workspace, collection: str) -> dict[str, list[Vote]]:
    """What stands about each ordinary item; an item shown again to the same person has one vote of theirs."""
    votes: dict[str, list[Vote]] = {}
    for judgement, about in queue.current_judgements(workspace.database, collection):
        if about["role"] in ORDINARY and about["round"] == 0:
            vote = Vote(judgement.judge, judgement.ranks, judgement.id)
            votes.setdefault(about["item"], []).append(vote)
    return votes


def _item(workspace: Workspace, collection: str, ref: str) -> queue.Item:
    """By id, or by the beginning of exactly one."""
    found = [item for item in every_item(workspace, collection) if item.id.startswith(ref)] if ref else []
    if len(found) != 1:
        many = f"'{ref}' is the beginning of {len(found)} items" if found else f"no item '{ref}' in this collection"
        raise NotFoundError(many, "`trueup feedback adjudicate` without an item lists those people disagree on")
    return found[0]


def _accepted(
    workspace: Workspace, collection: str, item: queue.Item, made: Decision, ranks: tuple[int, ...], judge: str
) -> Judgement:
    """The answer as a judgement of whoever decided, with what it was decided on."""
    if len(ranks) != len(item.texts) or any(rank < 1 for rank in ranks):
        raise ConfigError(
            f"item {item.id} has {len(item.texts)} completions: accepting needs a place for each, from 1",
            "for example 1,2: the first is better; 1,1 is a tie",
        )
    about = {"votes": list(made.votes), "unanimous": made.unanimous, "cause": made.cause}
    meta = {"collection": collection, "item": item.id, "role": item.role, "adjudication": about}
    record = Judgement(item.prompt, item.texts, ranks, judge=judge, source="human", split=item.split, meta=meta)
    (stored,) = workspace.add_judgements([record], item.completions)
    return stored


def _entries(workspace: Workspace) -> Iterator[dict[str, Any]]:
    after = 0
    while page := audit.entries(workspace.database, after):
        yield from page
        after = page[-1]["number"]
