"""One more vote where the votes so far decide nothing: overlap goes to the items that need it."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

from ..config import CollectionConfig
from ..store import Workspace, audit, queue
from ..store.items import ORDINARY
from .adjudicate import decisions

Pair = tuple[int, int]


def undecided(workspace: Workspace, collection: str) -> list[queue.Item]:
    """Items that have all their votes, and a pair of completions with as many votes one way as the other.

    Where everybody said that two are equally good, that is the answer and no lack of one. So is what somebody with the
    say decided, accepted or called ambiguous: another vote would change nothing.
    """
    closed = {item for item, made in decisions(workspace, collection).items() if made.decision != "requeue"}
    balance: dict[str, dict[Pair, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for judgement, about in queue.current_judgements(workspace.database, collection):
        if about["role"] in ORDINARY and about["round"] == 0 and "edit" not in judgement.meta:
            for i, j in combinations(range(len(judgement.ranks)), 2):
                a, b = judgement.ranks[i], judgement.ranks[j]
                balance[about["item"]][i, j][0] += (a < b) - (a > b)
                balance[about["item"]][i, j][1] += a != b
    open_questions = {
        item for item, pairs in balance.items() if any(decided and not lead for lead, decided in pairs.values())
    }
    return [item for item in _full(workspace, collection) if item.id in open_questions - closed]


def top_up(workspace: Workspace, collection: str, now: float) -> int:
    """Ask one person more about each undecided item, up to the collection's `max_overlap`. Returns how many items."""
    found = queue.collection(workspace.database, collection)
    most = CollectionConfig.model_validate(dict(found.config)).max_overlap
    asked = [item for item in undecided(workspace, found.id) if item.done < most]
    for item in asked:
        queue.release(workspace.database, item.id, item.done + 1)
    if asked:
        audit.note(workspace.database, now, "", "asked for more votes", found.id, items=len(asked))
    return len(asked)


def _full(workspace: Workspace, collection: str) -> list[queue.Item]:
    found, after = [], -1
    while page := queue.items(workspace.database, collection, after, state="full"):
        found += [item for item in page if item.role in ORDINARY]
        after = page[-1].position
    return found
