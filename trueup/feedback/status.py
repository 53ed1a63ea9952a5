"""How far a collection is, how fast it goes, and when it would be done, with what that assumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from ..config import CollectionConfig
from ..store import Workspace, categories, queue, review
from ..store import people as people_store
from ..store.people import MIN_CELL
from .golds import too_few

RECENT = 20  # judgements of a person that their pace is taken from
MOST_PEOPLE = 25  # who is asked for it: those who judged most
LEAKS = "leaks"  # under which the `why` of an item holds the words of it that name its writer


@dataclass(frozen=True)
class Worker:
    """A person's share of the work, by pseudonym."""

    judge: str
    name: str
    done: int
    skipped: int
    surplus: int
    repeats: int
    seconds: float | None  # median of their latest judgements


@dataclass(frozen=True)
class Status:
    id: str
    name: str
    state: str
    task: str
    guideline: int  # number of the version in force
    items: Mapping[str, Mapping[str, int]]  # role -> state -> items
    judgements: int
    needed: int
    working: int  # people who hold an item now
    people: tuple[Worker, ...]
    seconds: float | None  # a judgement, median over people
    hours_left: float | None
    assumption: str
    leaks: int  # items with a completion that names its writer
    warning: str = ""  # what the settings of the collection will not do
    nobody_takes: Mapping[str, int] = field(default_factory=dict)  # category -> items: all who work here refuse it
    opted_out: Mapping[str, int] = field(default_factory=dict)  # category -> people, where these are not too few to say

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def status(workspace: Workspace, collection: str, now: float, *, leaks: bool = True) -> Status:
    """Counted from the rows, not from counters. With `leaks` every item is read for the words that name its writer."""
    db = workspace.database
    found = queue.collection(db, collection)
    counts = queue.counts(db, found.id, now)
    people = _people(workspace, found.id, counts["people"])
    paces = [each.seconds for each in people if each.seconds is not None]
    pace = median(paces) if paces else None
    hours, assumption = _time_left(counts["needed"], pace, counts["working"])
    versions = queue.guidelines(db, found.id)
    refused = _refused(workspace, found.id, counts["people"])
    return Status(
        id=found.id,
        name=found.name,
        state=found.status,
        task=str(found.config["task"]),
        guideline=next(each["number"] for each in versions if each["id"] == found.guideline),
        items=counts["items"],
        judgements=counts["judgements"],
        needed=counts["needed"],
        working=counts["working"],
        people=people,
        seconds=pace,
        hours_left=hours,
        assumption=assumption,
        leaks=review.count_noted(db, found.id, LEAKS) if leaks else 0,
        warning=too_few(CollectionConfig.model_validate(dict(found.config))),
        nobody_takes=_nobody_takes(workspace, found.id, refused),
        opted_out=_opted_out(workspace, found.id, refused),
    )


def leaking(workspace: Workspace, collection: str) -> list[dict[str, Any]]:
    """Items whose completions name a model or its maker, for a manager: {item, position, words}."""
    found: list[dict[str, Any]] = []
    while page := review.noted(workspace.database, collection, LEAKS, found[-1]["position"] if found else -1):
        found += [{"item": item.id, "position": item.position, "words": item.why[LEAKS]} for item in page]
    return found


def _refused(workspace: Workspace, collection: str, judged: Mapping[str, Any]) -> list[set[str]]:
    """What each person who works here chose not to be given: annotators, and others once they have judged."""
    chose = categories.refused_names(workspace.database)
    return [
        chose.get(each.id, set())
        for each in people_store.people(workspace.database)
        if each.active and each.collection in ("", collection) and (each.role == "annotator" or each.id in judged)
    ]


def _nobody_takes(workspace: Workspace, collection: str, refused: Sequence[set[str]]) -> dict[str, int]:
    """Items that wait for nobody, by category; those of several at once by all their names."""
    if not any(refused):
        return {}
    found = categories.categories(workspace.database, [collection])
    left = {each.key: each for each in found if all(names.intersection(each.names) for names in refused)}
    waiting = categories.waiting(workspace.database, collection, list(left))
    return {" and ".join(left[key].names): n for key, n in sorted(waiting.items())}


def _opted_out(workspace: Workspace, collection: str, refused: Sequence[set[str]]) -> dict[str, int]:
    """Fewer than a few are never counted out: whoever knows the people could tell who it is."""
    here = {name for each in categories.categories(workspace.database, [collection]) for name in each.names}
    counts = Counter(name for names in refused for name in names & here)
    return {name: n for name, n in sorted(counts.items()) if n >= MIN_CELL}


def _people(workspace: Workspace, collection: str, counts: Mapping[str, Mapping[str, int]]) -> tuple[Worker, ...]:
    known = {each.id: each for each in people_store.people(workspace.database)}
    busiest = sorted(counts, key=lambda person: (-counts[person]["done"], person))
    return tuple(
        Worker(
            judge=known[person].judge,
            name=known[person].name,
            seconds=_pace(workspace, collection, person) if place < MOST_PEOPLE else None,
            **{name: counts[person][name] for name in ("done", "skipped", "surplus", "repeats")},
        )
        for place, person in enumerate(busiest)
    )


def _pace(workspace: Workspace, collection: str, person: str) -> float | None:
    """From hand-out to submit. The median, because an item left open over lunch says nothing."""
    work = queue.own_work(workspace.database, collection, person, RECENT)
    seconds = [each.submitted - each.issued for each in work if each.submitted is not None]
    took = [each for each in seconds if each > 0]  # one that is open again was issued after it was submitted
    return round(median(took), 1) if took else None


def _time_left(needed: int, pace: float | None, working: int) -> tuple[float | None, str]:
    if needed == 0:
        return 0.0, "every item has its judgements"
    if pace is None:
        return None, "nobody has judged yet"
    people = max(1, working)
    who = f"{people} {'person works' if people == 1 else 'people work'} without a pause" + (
        "" if working else " (nobody does now)"
    )
    return round(needed * pace / people / 3600, 2), f"if {who} and a judgement takes {pace:g} s, as lately"
