"""OpenAssistant's conversation trees: each turn of a prompter has replies, and people ranked these.

A tree comes as one nested row, or as one row a message that names its parent. A message that was deleted or failed its
review takes what hangs below it along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..records import Demonstration, Judgement, Message, Prompt
from . import columns
from .columns import Columns, Skip
from .parts import Part, together

_UNUSABLE = ("aborted_low_grade", "halted_by_moderator")  # trees that the moderators gave up
_ROLES: Mapping[str, Any] = {"prompter": "user", "assistant": "assistant"}


def from_messages(rows: Sequence[tuple[str, Columns]]) -> Iterator[tuple[str, Columns | Skip]]:
    """Rows of messages as rows of trees. The place of a tree is that of its first message."""
    for tree, group in together(rows, "message_tree_id").items():
        nodes: dict[str, dict[str, Any]] = {}
        known = []
        for where, row in group:
            try:
                name, _ = columns.word(row, "message_id"), columns.word(row, "parent_id")
            except Skip as reason:
                yield where, reason
                continue
            if name in nodes:
                yield where, Skip("a message with this id was there before")
            else:
                nodes[name] = {**row, "replies": []}
                known.append((where, nodes[name]))
        if known:
            yield from _joined(tree, nodes, known)


def _joined(tree: str, nodes: Mapping[str, Any], known: Sequence[tuple[str, Columns]]) -> Iterator[Any]:
    """Hangs every message below the one that it answers; yields the tree."""
    roots, tops = [], []
    for where, node in known:
        parent = columns.word(node, "parent_id")
        if parent in nodes:
            nodes[parent]["replies"].append(node)
            continue
        tops.append(node)
        if parent:
            yield where, Skip("the message that it answers is not in the file")
        else:
            roots.append((where, {"message_tree_id": tree, "tree_state": node.get("tree_state"), "prompt": node}))
    if not roots:
        yield known[0][0], Skip("a tree without its first message")
        return
    reached = _below(tops)
    yield from (
        (where, Skip("it answers itself, by way of others")) for where, node in known if id(node) not in reached
    )
    yield from roots


def _below(waiting: list[Any]) -> set[int]:
    """The messages under these, and themselves: what answers itself in a circle hangs below nothing."""
    reached = set()
    while waiting:
        node = waiting.pop()
        reached.add(id(node))
        waiting += node["replies"]
    return reached


def rankings(where: str, row: Columns) -> Iterator[Part]:
    """Every turn of a prompter whose replies were ranked."""
    return _or_say(where, (part for place, turn in prompter_turns(where, row) for part in _ranked(where, place, turn)))


def _or_say(where: str, parts: Iterator[Part]) -> Iterator[Part]:
    """A tree of which nothing at all is left is named too."""
    found = False
    for part in parts:
        found = True
        yield part
    if not found:
        yield where, Skip("nobody replied")


def _ranked(where: str, place: str, turn: Columns | Skip) -> Iterator[Part]:
    if isinstance(turn, Skip):
        yield place, turn
        return
    replies = [node for node in turn["replies"] if _trouble(node) is None]
    ranked = [node for node in replies if _has_rank(node)]
    if len(ranked) >= 2:
        yield from (
            (_place(where, node), Skip("the ranking omits this reply")) for node in replies if not _has_rank(node)
        )
        yield place, {**turn, "replies": ranked}
    elif len(replies) >= 2:
        yield place, Skip("fewer than two of the replies have a rank")
    elif turn["replies"]:
        yield place, Skip("fewer than two usable replies: nothing to compare")


def _has_rank(node: Columns) -> bool:
    rank = node.get("rank")
    return type(rank) is int and abs(rank) < columns.LAST_PLACE


def ranking(turn: Columns) -> Judgement:
    node, replies = turn["node"], turn["replies"]
    models = [columns.word(reply, "model_name") for reply in replies]
    return columns.judgement(
        {},
        prompt(turn),
        [columns.text(reply, "text") for reply in replies],
        [reply["rank"] + 1 for reply in replies],
        judge="oasst",
        message=node.get("message_id"),
        replies=[columns.word(reply, "message_id") for reply in replies],
        models=models if any(models) else None,
    )


def best_path(where: str, row: Columns) -> Iterator[Part]:
    """The turns that are reached by following the best reply each time, with that reply."""
    return _or_say(where, _best_replies(where, row))


def _best_replies(where: str, row: Columns) -> Iterator[Part]:
    on_path = {id(row.get("prompt"))}
    for place, turn in prompter_turns(where, row):
        if isinstance(turn, Skip):
            yield place, turn
        elif id(turn["node"]) in on_path and turn["replies"]:
            best = _best([node for node in turn["replies"] if _trouble(node) is None])
            if isinstance(best, Mapping):
                on_path |= {id(node) for node in _replies(best)}
                yield place, {**turn, "best": best}
            else:
                yield place, best


def _best(replies: Sequence[Columns]) -> Columns | Skip:
    ranked = sorted((node for node in replies if _has_rank(node)), key=lambda node: node["rank"])
    if ranked:
        return ranked[0]
    if len(replies) == 1:
        return replies[0]
    return Skip("several replies without a rank: the best is not known" if replies else "no usable reply")


def demonstration(turn: Columns) -> Demonstration:
    return Demonstration(prompt(turn), columns.text(turn["best"], "text"))


def prompt(turn: Columns) -> Prompt:
    about = {"language": turn["node"].get("lang"), "tree": turn["tree"]}
    return columns.as_prompt(turn["said"], columns.storable({name: value for name, value in about.items() if value}))


def prompter_turns(where: str, row: Columns) -> Iterator[Part]:
    """Every turn of a prompter, in the order of the file, with what was said up to it; and every unusable message."""
    if row.get("tree_state") in _UNUSABLE:
        yield where, Skip(f"the tree is '{row['tree_state']}'")
        return
    try:
        tree = columns.word(row, "message_tree_id")
    except Skip as reason:
        yield where, reason
        return
    found = False
    waiting: list[tuple[tuple[Message, ...], Any]] = [((), row.get("prompt"))]
    while waiting:  # a stack, not a recursion: a conversation may be longer than Python's stack is deep
        before, node = waiting.pop()
        if trouble := _trouble(node):
            found = True
            yield _place(where, node), trouble
            continue
        said = (*before, Message(_ROLES[node["role"]], node["text"]))
        replies = _replies(node)
        if node["role"] == "prompter":
            found = True
            yield _place(where, node), {"said": said, "node": node, "replies": replies, "tree": tree}
        waiting += [(said, reply) for reply in reversed(replies)]
    if not found:
        yield where, Skip("nobody asks anything in it")


def _trouble(node: Any) -> Skip | None:
    """Why a message is no use."""
    if not isinstance(node, Mapping):
        return Skip("a message that is not an object")
    if node.get("deleted"):
        return Skip("deleted")
    if node.get("review_result") is False:
        return Skip("it failed its review")
    if not isinstance(node.get("role"), str) or node["role"] not in _ROLES:
        return Skip(f"the role {node.get('role')!r} is neither prompter nor assistant")
    try:
        columns.text(node, "text")
    except Skip as reason:
        return reason
    return None


def _replies(node: Columns) -> list[Any]:
    replies = node.get("replies")
    return replies if isinstance(replies, list) else []


def _place(where: str, node: Any) -> str:
    name = node.get("message_id") if isinstance(node, Mapping) else None
    return f"{where} message {name}" if name else where
