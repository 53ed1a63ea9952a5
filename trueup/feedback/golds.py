"""Items with a known answer: from a file, or those on which people agreed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from ..config import CollectionConfig
from ..errors import DataError
from ..records import Message, Prompt
from ..stats.judges import GOOD
from ..stats.planning import gold_pass_rate
from ..store import Artifact, Workspace, queue, write_jsonl
from ..store.items import ORDINARY, NewItem
from ..text.sources import read_rows

MANY = 1_000_000  # votes that a check may get: everybody is to see it
ENOUGH = 3  # people who have to agree before an item can check others
TELLING = 20  # golds that tell somebody who reads from somebody who does not
TELLING_RIGHT = 15  # of them, to pass
DOUBTFUL = 0.7  # right answers of somebody whose work is worth little
HINT = 'a row: {"prompt": ..., "completions": [...], "ranks": [1, 2], "why": "..."}, or chosen and rejected'


def too_few(config: CollectionConfig) -> str:
    """What a qualification of so few items is worth, in numbers; empty where there is none, or where it has enough."""
    n = config.qualification
    if not 0 < n < TELLING:
        return ""
    needed = ceil(config.qualification_pass * n - 1e-9)
    coin, doubtful, good = _pass_rates(n, needed)
    enough = _pass_rates(TELLING, TELLING_RIGHT)
    return (
        f"a qualification of {n} items, {needed} right to pass, cannot tell a good judge from a poor one: a coin "
        f"passes {coin:.0%} of the time, somebody right {DOUBTFUL:.0%} of the time {doubtful:.0%}, somebody right "
        f"{GOOD:.0%} of the time {good:.0%}; with {TELLING} items and {TELLING_RIGHT} right it would be "
        f"{enough[0]:.0%}, {enough[1]:.0%} and {enough[2]:.0%}"
    )


def read_golds(workspace: Workspace, file: Path, config: CollectionConfig) -> list[NewItem]:
    """The golds of a file, the first ones for the qualification. One bad row and none is taken: they check people."""
    rows = [_read(where, row, config) for where, row in read_rows(file)]
    if not rows:
        raise DataError(f"{file}: there are no rows in it", HINT)
    with workspace.staging() as folder:
        write_jsonl(folder / "rows.jsonl", (_as_completions(prompt, texts) for prompt, texts, _ in rows))
        source = workspace.put("completions", folder, meta={"rows": len(rows), "source": file.name, "golds": True})
    return with_roles((_gold(source, *row) for row in rows), config)


def agreed_golds(workspace: Workspace, collection: str, config: CollectionConfig) -> list[NewItem]:
    """Items of a collection on which at least three people said the same, and no tie: hidden checks from now on."""
    found = queue.collection(workspace.database, collection)
    said: dict[str, set[tuple[int, ...]]] = {}
    judges: dict[str, set[str]] = {}
    for judgement, about in queue.current_judgements(workspace.database, found.id):
        if about["role"] in ORDINARY and about["round"] == 0 and "edit" not in judgement.meta:
            said.setdefault(about["item"], set()).add(judgement.ranks)
            judges.setdefault(about["item"], set()).add(judgement.judge)
    agreed = {i: next(iter(ranks)) for i, ranks in said.items() if len(ranks) == 1 and len(judges[i]) >= ENOUGH}
    agreed = {item: ranks for item, ranks in agreed.items() if len(set(ranks)) == len(ranks) > 1}
    if not agreed:
        raise DataError(
            f"in collection '{found.name}' there is no item on which {ENOUGH} people agree without a tie",
            "give golds in a file, or wait until more has been judged",
        )
    golds = list(_from_items(workspace, found.id, agreed, judges))
    fitting = [gold for gold in golds if _fits(len(gold.texts), config)]
    if golds and not fitting:
        raise DataError(
            f"none of the {len(golds)} items on which people agree in '{found.name}' fits a {config.task} task",
            "take a collection of the same task, or give golds in a file",
        )
    return with_roles(fitting, config)


def with_roles(golds: Iterable[NewItem], config: CollectionConfig) -> list[NewItem]:
    """The first ones are the qualification, the others are hidden in the work."""
    made = list(golds)
    wanted = config.qualification + (1 if config.gold_every else 0)
    if len(made) < wanted:
        raise DataError(
            f"there are {len(made)} golds, and {wanted} are needed: qualification = {config.qualification}"
            + (", and at least one to hide in the work" if config.gold_every else ""),
            "add golds, or lower `qualification`",
        )
    if config.qualification == len(made) and not config.gold_every:
        return [_with_role(each, "qualification") for each in made]
    return [_with_role(each, "qualification" if i < config.qualification else "gold") for i, each in enumerate(made)]


# Inside


def _pass_rates(golds: int, needed: int) -> list[float]:
    return [gold_pass_rate(accuracy, golds, needed) for accuracy in (0.5, DOUBTFUL, GOOD)]


def _with_role(item: NewItem, role: Any) -> NewItem:
    return NewItem(**vars(item) | {"role": role})


def _gold(source: Artifact, prompt: Prompt, texts: tuple[str, ...], key: Mapping[str, Any]) -> NewItem:
    return NewItem(prompt, texts, source.id, (True,) * len(texts), role="gold", overlap=MANY, key=key)


def _from_items(
    workspace: Workspace, collection: str, agreed: Mapping[str, tuple[int, ...]], judges: Mapping[str, set[str]]
) -> Iterator[NewItem]:
    after = -1
    while page := queue.items(workspace.database, collection, after):
        for item in page:
            if item.id in agreed and item.state != "quarantined":
                key = {"ranks": list(agreed[item.id]), "why": f"{len(judges[item.id])} people agreed on this"}
                kept = (item.prompt, item.texts, item.completions, item.finished, item.models)
                yield NewItem(*kept, role="gold", overlap=MANY, key=key)
        after = page[-1].position


def _read(where: str, row: Any, config: CollectionConfig) -> tuple[Prompt, tuple[str, ...], dict[str, Any]]:
    if isinstance(row, DataError):
        raise row
    try:
        prompt = _prompt(row.get("prompt"))
        pair = "chosen" in row
        texts = [row["chosen"], row["rejected"]] if pair else row["completions"]
        ranks = [1, 2] if pair else row["ranks"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: not a gold: {error or 'it has no prompt'}", HINT) from None
    k = len(texts) if isinstance(texts, list) else 0
    if not _fits(k, config) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{where}: these are no completions for a {config.task} task", HINT)
    if not isinstance(ranks, list) or len(ranks) != k or not all(type(rank) is int and rank > 0 for rank in ranks):
        raise DataError(f"{where}: 'ranks' must be a whole number for each completion, 1 for the best", HINT)
    why = row.get("why", "")
    if not isinstance(why, str):
        raise DataError(f"{where}: 'why' must be text", HINT)
    return prompt, tuple(texts), {"ranks": ranks, "why": why}


def _fits(k: int, config: CollectionConfig) -> bool:
    """Of a single completion every answer would be right."""
    return k == 2 if config.task == "pair" else 2 <= k <= 9


def _prompt(value: Any) -> Prompt:
    """A text, a list of messages, or a prompt as trueup writes it."""
    if isinstance(value, str) and value.strip():
        return Prompt.user(value)
    messages: Sequence[Any] = value["messages"] if isinstance(value, Mapping) else value
    prompt = Prompt(tuple(Message(each["role"], each["content"]) for each in messages))
    roles = ("system", "user", "assistant")
    if not prompt.messages or not all(m.role in roles and isinstance(m.content, str) for m in prompt.messages):
        raise ValueError(f"its prompt is {json.dumps(value, default=str)[:60]}")
    return prompt


def _as_completions(prompt: Prompt, texts: Sequence[str]) -> dict[str, Any]:
    return {"prompt": prompt.to_json(), "completions": [{"text": text, "finished": True} for text in texts]}
