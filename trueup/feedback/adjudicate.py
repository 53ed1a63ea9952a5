"""Items on which people disagree, items that are set aside, and what somebody with the say decided about them.

A decision is an entry of the audit log that names the votes it was made on, so nothing is overwritten: votes stay
votes. An accepted answer is a judgement of its own; a set that is frozen takes it in place of the votes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal, get_args

from ..errors import ConfigError, DataError, NotFoundError, nearest
from ..records import Judgement
from ..store import Workspace, audit, figures, judgements, queue, review

Verdict = Literal["accept", "requeue", "ambiguous"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ACTION = "adjudicate"
COMMAND_LINE = "human:adjudicator"  # whose judgement it is where nobody is logged in
KEPT_OUT = "kept out"  # how the reason of a quarantine begins that somebody has looked at and left as it is
# Why people disagree. The first four ask for something to be done: to the guideline, the people or the prompts.
CAUSES = (
    "the guideline does not say",
    "the guideline was read in different ways",
    "somebody overlooked something",
    "the prompt can be read in different ways",
    "it takes knowledge that not everybody has",
    "both are about as good",
    "a matter of taste",
)
LONGEST_CAUSE = 500
KIND = "differing"  # the name under which what people disagree on is kept in the store
MANY = 100_000  # judgements; where there are no more, a page looks for itself
MOST_KEPT = 10_000  # items
Places = tuple[int, ...]


@dataclass(frozen=True)
class Decision:
    """The last word on an item. `judgement` is the accepted answer, `votes` what it was decided on."""

    item: str
    decision: Verdict
    votes: tuple[str, ...]
    unanimous: bool
    cause: str
    judgement: Judgement | None = None
    person: str = ""  # who decided; empty on the command line
    at: float = 0.0


@dataclass(frozen=True)
class Disputed:
    """An item whose votes contradict one another. `agreement` is over all pairs of votes; a tie agrees by half."""

    item: queue.Item
    votes: tuple[Judgement, ...]
    agreement: float
    decided: Decision | None

    @property
    def decision(self) -> str:
        return self.decided.decision if self.decided else ""

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


@dataclass(frozen=True)
class Docket:
    """What there is to decide in a collection, by id: `open` the most disputed first, `decided` the latest first.

    What went back into the queue is to be decided again when it has its votes and they still differ.
    """

    open: tuple[str, ...]
    decided: tuple[str, ...]


def docket(workspace: Workspace, collection: str, differing: Sequence[review.Differing] | None = None) -> Docket:
    """Without the texts, so that a page can be opened at any size; `cases` has the items themselves.

    `differing`: what was read a moment ago, where reading it takes long; what was decided is read in any case.
    """
    found = review.differing(workspace.database, collection) if differing is None else differing
    last = _last_entries(workspace, collection)
    asked = {item for item, entry in last.items() if entry["details"]["decision"] == "requeue"}
    again = asked.intersection(each.item for each in found) - review.open_ones(workspace.database, asked)
    latest = sorted(last.keys() - again, key=lambda item: -last[item]["number"])
    return Docket(tuple(i for i in _most_disputed(found, 1.0) if i in again or i not in last), tuple(latest))


def cases(workspace: Workspace, collection: str, ids: Sequence[str]) -> list[Disputed]:
    """These items with all that was said about them, in this order."""
    items, votes = review.items(workspace.database, collection, ids), review.votes(workspace.database, ids)
    decided = _made(workspace, {i: e for i, e in _last_entries(workspace, collection).items() if i in items})
    return [
        Disputed(items[i], tuple(votes[i]), agreement([vote.ranks for vote in votes[i]]), decided.get(i))
        for i in ids
        if i in items
    ]


@dataclass(frozen=True)
class Kept:
    """What people disagreed on when it was last looked for: the items that they did so most, of `total`."""

    items: tuple[review.Differing, ...]
    total: int
    made: float


def keep_differing(workspace: Workspace, collection: str, n: int, now: float) -> None:
    """Of many judgements (`n`) this takes seconds, so it is done with the figures of quality and not for a page."""
    if n <= MANY:
        return
    found = {each.item: each for each in review.differing(workspace.database, collection)}
    ids = _most_disputed(list(found.values()), 1.0)
    value = {"items": [[i, list(found[i].places)] for i in ids[:MOST_KEPT]], "total": len(ids)}
    figures.keep(workspace.database, collection, KIND, value, n, now)


def kept_differing(workspace: Workspace, collection: str) -> Kept | None:
    stored = figures.latest(workspace.database, collection, KIND)
    if stored is None:
        return None
    items = tuple(review.Differing(item, tuple(places)) for item, places in stored["value"]["items"])
    return Kept(items, stored["value"]["total"], stored["made"])


def disputed(workspace: Workspace, collection: str, *, below: float = 1.0, limit: int = 20) -> list[Disputed]:
    """Items with at least two votes that agree by less than `below`, the most disputed first, decided or not."""
    found = queue.collection(workspace.database, collection)
    ids = _most_disputed(review.differing(workspace.database, found.id), below)[:limit]
    return cases(workspace, found.id, ids)


def agreement(votes: Sequence[Places]) -> float:
    """Mean over pairs of votes and pairs of completions: 1 the same, 0 opposite, a half where one of them ties."""
    said = [[(a > b) - (a < b) for a, b in combinations(ranks, 2)] for ranks in votes]
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
    votes = review.votes(db, [about.id])[about.id]
    if not votes and decision != "requeue":
        raise DataError(f"nobody has judged item {about.id} yet", "adjudication needs votes to decide on")
    ids = tuple(vote.id for vote in votes)
    unanimous = len(votes) > 1 and agreement([vote.ranks for vote in votes]) == 1
    made = Decision(about.id, decision, ids, unanimous, _short(cause), person=person, at=now)
    details: dict[str, Any] = {"collection": found.id, "decision": decision, "votes": list(ids)}
    accepted = _accepted(found.id, about, made, tuple(ranks), judge) if decision == "accept" else None
    with db.write() as connection:
        if accepted is not None:
            (accepted,) = judgements.add(connection, [accepted], about.completions)
            details["judgement"] = accepted.id
        elif decision == "requeue":
            queue.release(connection, about.id, about.done + more)
        details |= {"unanimous": unanimous, "cause": made.cause}
        audit.note_within(connection, now, person, ACTION, about.id, **details)
    return Decision(about.id, decision, ids, unanimous, made.cause, accepted, person, now)


def decisions(workspace: Workspace, collection: str) -> dict[str, Decision]:
    """The last decision on each item that has one; an item that went back into the queue is open again."""
    return _made(workspace, _last_entries(workspace, collection))


# --- what is set aside


def let_back(workspace: Workspace, collection: str, item: str, *, now: float, person: str = "") -> str:
    """End a quarantine: the item is handed out again, and frozen. Returns why it was there."""
    about = _aside(workspace, collection, item)
    with workspace.database.write() as connection:
        queue.clear(connection, item, now)
        details = {"collection": collection, "reason": about.reason}
        audit.note_within(connection, now, person, "cleared a quarantine", item, **details)
    return about.reason


def keep_out(
    workspace: Workspace, collection: str, item: str, *, now: float, reason: str = "", person: str = ""
) -> str:
    """Put an item into quarantine for `reason`, or leave one there that somebody has looked at. Returns the reason."""
    about = _item(workspace, collection, item)
    was = reason or about.reason
    if about.reason.startswith(KEPT_OUT):
        return about.reason
    if not was:
        raise NotFoundError(f"item '{item}' is not in quarantine", "it was let back meanwhile; say why to keep it out")
    why = f"{KEPT_OUT}: {was}"
    with workspace.database.write() as connection:
        queue.quarantine(connection, item, why, now)
        audit.note_within(connection, now, person, "kept out", item, collection=collection, reason=was)
    return why


def every_item(workspace: Workspace, collection: str) -> Iterator[queue.Item]:
    after = -1
    while page := queue.items(workspace.database, collection, after=after):
        yield from page
        after = page[-1].position


# --- inside


def _most_disputed(differing: Sequence[review.Differing], below: float) -> list[str]:
    shares = {each.item: _agreement_of(tuple(sorted(each.places))) for each in differing}
    return sorted((item for item, share in shares.items() if share < below), key=lambda item: (shares[item], item))


@lru_cache(maxsize=4096)
def _agreement_of(votes: tuple[str, ...]) -> float:
    """Thousands of items have votes alike, and their order changes nothing."""
    return agreement([tuple(json.loads(vote)) for vote in votes])


def _last_entries(workspace: Workspace, collection: str) -> dict[str, dict[str, Any]]:
    """The newest entry of the audit log about each item that somebody decided."""
    last: dict[str, dict[str, Any]] = {}
    after = 0
    while page := audit.entries(workspace.database, after, action=ACTION, collection=collection):
        last |= {entry["about"]: entry for entry in page}
        after = page[-1]["number"]
    return last


def _made(workspace: Workspace, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Decision]:
    accepted = [entry["details"]["judgement"] for entry in entries.values() if "judgement" in entry["details"]]
    answers = {judgement.id: judgement for judgement in workspace.judgements(accepted)}
    made = {}
    for item, entry in entries.items():
        said = entry["details"]
        made[item] = Decision(
            item,
            said["decision"],
            tuple(said["votes"]),
            said["unanimous"],
            said["cause"],
            answers.get(said.get("judgement", "")),
            entry["person"],
            entry["at"],
        )
    return made


def _item(workspace: Workspace, collection: str, ref: str) -> queue.Item:
    """By id, or by the beginning of exactly one."""
    found = review.beginning_with(workspace.database, collection, ref) if ref else []
    if len(found) != 1:
        many = f"'{ref}' is the beginning of {len(found)} items" if found else f"no item '{ref}' in this collection"
        raise NotFoundError(many, "`trueup feedback adjudicate` without an item lists those people disagree on")
    return review.items(workspace.database, collection, found)[found[0]]


def _aside(workspace: Workspace, collection: str, item: str) -> queue.Item:
    found = review.items(workspace.database, collection, [item]).get(item)
    if found is None or found.state != "quarantined":
        raise NotFoundError(f"item '{item}' is not in quarantine", "--quarantined lists what is")
    return found


def _accepted(collection: str, item: queue.Item, made: Decision, ranks: Places, judge: str) -> Judgement:
    """The answer as a judgement of whoever decided, with what it was decided on."""
    if len(ranks) != len(item.texts) or any(rank < 1 for rank in ranks):
        raise ConfigError(
            f"item {item.id} has {len(item.texts)} completions: accepting needs a place for each, from 1",
            "for example 1,2: the first is better; 1,1 is a tie",
        )
    about = {"votes": list(made.votes), "unanimous": made.unanimous, "cause": made.cause}
    meta = {"collection": collection, "item": item.id, "role": item.role, "adjudication": about}
    return Judgement(item.prompt, item.texts, ranks, judge=judge, source="human", split=item.split, meta=meta)


def _short(cause: str) -> str:
    cause = cause.strip()
    if len(cause) > LONGEST_CAUSE:
        raise DataError(f"a cause has at most {LONGEST_CAUSE} characters", "say it in a sentence")
    return cause
