"""What a person thinks of replies that were made for them, as a judgement like all others.

Whoever talks to models, in a terminal or in a browser, has been shown something already when they judge it. So that
`trueup feedback freeze` makes a set of it all the same, it goes the ordinary way after the fact: an item in a
collection, handed to that person and answered through the desk, in the order in which they saw it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .config import CollectionConfig, TaskKind
from .errors import DataError
from .feedback.collect import open_collection
from .feedback.desk import Desk, View
from .records import Completion, Prompt
from .store import Workspace, queue, write_jsonl
from .store.items import Item, NewItem

QUESTIONS = {
    "thumbs": "Is this reply good?",
    "pair": "Which reply is better?",
    "edit": "Rewrite the reply as it ought to be.",
}
_one_at_a_time = threading.Lock()  # two people who vote in one process must not be handed each other's item

Payload = Callable[[Sequence[int]], Mapping[str, Any]]  # an answer, from the places on the desk of what was shown


class AlreadySaid(DataError):
    """The same prompt with the same replies was judged before; that judgement stands."""


@dataclass(frozen=True)
class Reply:
    """`writer` stands with the judgement: the artifact that wrote it, or RUN@STEP of a checkpoint. `made_from` is where
    its lineage goes on: role -> artifact."""

    said: Completion
    writer: str
    made_from: Mapping[str, str]


@dataclass(frozen=True)
class Occasion:
    """Where replies were shown: `source` is the command or page, `name` how its collections begin."""

    source: str
    name: str
    about: Mapping[str, Any] = field(default_factory=dict)  # goes with the prompt and is never rendered


def prefers(place: int | None) -> Payload:
    """Of two: the one shown at `place`, or neither."""
    return lambda order: {"choice": 0 if place is None else -1 if order[0] == place else 1}


def vote(
    ws: Workspace,
    occasion: Occasion,
    task: TaskKind,
    replies: Sequence[Reply],
    payload: Payload,
    *,
    person: str,
    key: str,
    shown: float,
    now: Callable[[], float],
) -> str:
    """What `person` says of the replies, in the order in which they saw them and after the time they looked at them,
    since `shown`; returns the id of the judgement. The same `key` again changes nothing."""
    config = CollectionConfig(
        task=task, question=QUESTIONS[task], calibration_share=0.0, gold_every=0, repeat_share=0.0, overlap=1
    )
    item = as_item(ws, occasion, replies)
    with _one_at_a_time:
        collection = open_collection(ws, f"{occasion.name}-{task}", config, "", now())
        queue.add_items(ws.database, collection.id, [item], shown)
        view = _own(_AsShown(ws, collection.id, item.texts, lambda: shown), person, item)
        desk = Desk(ws, collection.id, now)
        order = [item.texts.index(text) for text in view.completions]
        return desk.answer(person, view.assignment, key, payload(order)).judgement


def as_item(ws: Workspace, occasion: Occasion, replies: Sequence[Reply]) -> NewItem:
    """The replies as a completion set of one row, and the item that leads back to it."""
    prompt = Prompt(replies[0].said.prompt.messages, dict(occasion.about))
    row = {"prompt": prompt.to_json(), "completions": [reply.said.to_json() for reply in replies]}
    parents = {role: artifact for reply in replies for role, artifact in reply.made_from.items()}
    with ws.staging() as folder:
        write_jsonl(folder / "rows.jsonl", [row])
        meta = {"rows": 1, "source": occasion.source}
        artifact = ws.put("completions", folder, parents=parents, meta=meta)
    return NewItem(
        prompt,
        tuple(reply.said.text for reply in replies),
        artifact.id,
        tuple(reply.said.finished for reply in replies),
        tuple(reply.writer for reply in replies),
        why={"strategy": occasion.source, "probability": 1.0},
    )


class _AsShown(Desk):
    """A desk that notes the order in which something was seen before it came here."""

    def __init__(self, ws: Workspace, collection: str, texts: Sequence[str], now: Callable[[], float]) -> None:
        super().__init__(ws, collection, now)
        self._texts = texts

    def _order(self, person: str) -> Callable[[Item, str, int], tuple[int, ...]]:
        def order(item: Item, person: str, round: int) -> tuple[int, ...]:
            if sorted(item.texts) != sorted(self._texts):  # left open by somebody else
                return tuple(range(len(item.texts)))
            left = list(range(len(item.texts)))
            return tuple(left.pop(next(i for i, j in enumerate(left) if item.texts[j] == t)) for t in self._texts)

        return order


def _own(desk: Desk, person: str, item: NewItem) -> View:
    """The view of this very item: one that was left open, by a kill in between, is passed over."""
    while (view := desk.next(person)) is not None:
        if sorted(view.completions) == sorted(item.texts) and view.prompt[-1]["content"] == item.prompt.text:
            return view
        desk.skip(person, view.assignment, "left open")
    if queue.collection(desk.db, desk.id).status == "closed":
        raise DataError(f"the collection {desk.name} is closed", f"trueup feedback close {desk.name} --reopen")
    raise AlreadySaid(
        "somebody said that of this reply already",
        "that judgement stands; whoever gave it sees and changes it in trueup label, under My work",
    )
