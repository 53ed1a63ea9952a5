"""Collections that simulated people have judged, through the same desk that the pages use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from unittest.mock import patch

from trueup.config.collection import CollectionConfig
from trueup.feedback.desk import Desk, View
from trueup.records import Prompt
from trueup.store import Workspace, people, queue, write_jsonl
from trueup.store.items import NewItem

Judge = Callable[[View, Random], dict[str, Any]]


@dataclass
class Clock:
    """Time that passes only when somebody works."""

    at: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Crowd:
    workspace: Workspace
    id: str
    name: str
    people: list[people.Person]
    items: list[queue.Item]
    clock: Clock = field(default_factory=Clock)

    @property
    def desk(self) -> Desk:
        return Desk(self.workspace, self.id, self.clock, secret=b"secret")

    def work(self, judges: Sequence[Judge], *, most: int = 10_000, seed: int = 0, seconds: float = 20) -> int:
        """Everybody judges in turn until there is nothing left; returns how many answers were given."""
        desk, given = self.desk, 0
        chances = [Random(f"{seed}/{i}") for i in range(len(judges))]
        waiting = list(range(len(judges)))
        while waiting and given < most:
            for i in list(waiting):
                view = desk.next(self.people[i].id)
                if view is None:
                    waiting.remove(i)
                    continue
                self.clock.at += seconds
                payload = judges[i](view, chances[i])
                desk.answer(self.people[i].id, view.assignment, f"{given}", payload)
                given += 1
        return given


def prompts(n: int) -> list[Prompt]:
    return [Prompt.user(f"question {i} about {'the sea' if i % 2 else 'the woods'}") for i in range(n)]


def texts(i: int, k: int = 2) -> tuple[str, ...]:
    """Completion j of a prompt is worth the number in it; the better ones stand anywhere."""
    worth = [(7 * i + 3 * j) % 10 for j in range(k)]
    worth = [w if worth.index(w) == j else w + 10 for j, w in enumerate(worth)]
    return tuple(f"answer {i} worth {w} " + "word " * (w % 3) for w in worth)


def worth(text: str) -> int:
    return int(text.split()[3])


@contextmanager
def the_same_ids_every_time(name: str) -> Iterator[None]:
    """Ids are random, and the order of display hangs on them: a test must not pass or fail by luck."""
    chance = Random(name)
    with patch("secrets.token_hex", lambda n: chance.randbytes(n).hex()), patch("secrets.choice", chance.choice):
        yield


def open_collection(workspace: Workspace, *, name: str = "votes", **settings: Any) -> Crowd:
    with the_same_ids_every_time(name):
        return _open(workspace, name=name, **settings)


def _open(
    workspace: Workspace,
    *,
    items: int = 40,
    k: int = 2,
    overlap: int = 3,
    crowd: int = 4,
    golds: int = 0,
    heldout: int = 0,
    name: str,
    guideline: str = "",
    models: bool = False,
    **settings: Any,
) -> Crowd:
    settings = {"gold_every": 5 if golds else 0, **settings}
    config = CollectionConfig(overlap=overlap, calibration_share=0.0, **settings)
    clock = Clock()
    asked = prompts(items + golds)
    with workspace.staging() as folder:
        rows = [{"prompt": p.to_json(), "completions": [{"text": t} for t in texts(i, k)]} for i, p in enumerate(asked)]
        write_jsonl(folder / "rows.jsonl", rows)
        drafts = workspace.put("completions", folder)
    made = queue.create_collection(workspace.database, name, config.model_dump(mode="json"), guideline, clock.at)
    new = [
        NewItem(
            prompt,
            texts(i, k),
            drafts.id,
            (True,) * k,
            tuple(f"m{(i + j) % k}" for j in range(k)) if models else (),
            role="gold" if i >= items else "main",
            overlap=crowd if i >= items else overlap,
            key={"ranks": list(best_first(texts(i, k)))} if i >= items else None,
            split="heldout" if i < heldout else "train",
        )
        for i, prompt in enumerate(asked)
    ]
    queue.add_items(workspace.database, made.id, new, clock.at)
    known = {person.name: person for person in people.people(workspace.database)}
    owner = known.get("owner") or people.add_person(workspace.database, "owner", "owner", clock.at)
    assert owner
    folk = [
        known.get(f"person {i}") or people.add_person(workspace.database, f"person {i}", "annotator", clock.at)
        for i in range(crowd)
    ]
    return Crowd(workspace, made.id, name, folk, queue.items(workspace.database, made.id), clock)


def best_first(completions: Sequence[str]) -> tuple[int, ...]:
    order = sorted(completions, key=worth, reverse=True)
    return tuple(order.index(text) + 1 for text in completions)


def reader(accuracy: float = 1.0, *, strength: int = 2) -> Judge:
    """Somebody who prefers what is worth more, and errs now and then."""

    def judge(view: View, chance: Random) -> dict[str, Any]:
        first, second = (worth(text) for text in view.completions)
        choice = strength if second > first else -strength
        return {"choice": choice if chance.random() < accuracy else -choice, "active_ms": 9000}

    return judge


def always_left(view: View, chance: Random) -> dict[str, Any]:
    return {"choice": -1}


def ranker(view: View, chance: Random) -> dict[str, Any]:
    return {"ranks": list(best_first(view.completions)), "confirmed": True}
