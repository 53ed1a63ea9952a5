"""Help for the judges of a collection: from a file, from what a reward model prefers, or written by a model.

Each becomes outputs of a helper whom people know by a name; `feedback/helping.py` says who is shown them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import auditing, loading
from .collecting import Candidates, sampled
from .errors import ConfigError, DataError
from .feedback.helping import (
    LONGEST,
    Given,
    LeftOut,
    Output,
    for_items,
    give,
    helper_name,
    may_get_help,
    next_name,
    read_outputs,
)
from .inputs import SCORERS, Ref, find_input
from .records import Completion, Prompt
from .runs import track
from .store import Workspace, queue
from .store.items import Item
from .text.columns import Skip

Writing = Literal["critique", "summary"]
TEMPLATES: dict[Writing, str] = {
    "critique": (
        "Below are a request and an answer to it. Name the most serious mistakes of the answer, quoting what is wrong, "
        "or say that you see none. Be brief.\n\nRequest:\n{prompt}\n\nAnswer:\n{completion}"
    ),
    "summary": (
        "Below are a request and an answer to it. Say in one or two sentences what the answer claims and what it "
        "leaves out. Do not judge it.\n\nRequest:\n{prompt}\n\nAnswer:\n{completion}"
    ),
}
SLOTS = re.compile(r"\{(prompt|completion)\}")
SPEAKERS = {"system": "System", "user": "Person", "assistant": "Assistant"}
CLOSE = 0.1  # standard deviations: a reward model that is no surer has no preference worth showing


@dataclass(frozen=True)
class Writer:
    """How a model is asked for a text about each completion. `template` has {prompt} and {completion}."""

    kind: Writing = "critique"
    template: str = ""
    sampling: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0.7, "max_new_tokens": 128})
    seed: int = 0

    @property
    def asked(self) -> str:
        return self.template or TEMPLATES[self.kind]


def help_from_file(ws: Workspace, collection: str, file: str | Path) -> Given:
    """Rows with prompt, helper, kind and text; or, about certain completions, with `completions` and `places`."""
    found, items = _asked(ws, collection)
    left_out = LeftOut()
    outputs = for_items(read_outputs(file, left_out), items, left_out)
    return give(ws, found, items, outputs, left_out, now=time.time(), source={"file": Path(file).name})


def help_from_scores(ws: Workspace, collection: str, reward: Ref, *, helper: str = "", threads: int = 0) -> Given:
    """Which completion a reward model prefers and by how many standard deviations of its scores, in words."""
    found, items = _asked(ws, collection)
    name, left_out = _named(helper, items), LeftOut()
    items = [item for item in items if len(item.texts) > 1]  # of one alone there is nothing to prefer
    values = _scores(ws, items, reward, threads, left_out)
    every = np.array([value for scores in values.values() for value in scores])
    if not len(every) or every.std() == 0:
        why = f"there is nothing to score: {left_out.told()}" if not len(every) else "it gives everything one score"
        raise DataError(f"the reward model has no view to show: {why}", "take another reward model")
    scaled = {item: [value / float(every.std()) for value in scores] for item, scores in values.items()}
    outputs = {item: [view_in_words(name, scores)] for item, scores in scaled.items()}
    source = {"reward": find_input(ws, "reward", reward, SCORERS).name}
    return give(ws, found, items, outputs, left_out, now=time.time(), source=source)


def help_from_writer(
    ws: Workspace,
    collection: str,
    model: Ref,
    writer: Writer = Writer(),
    *,
    helper: str = "",  # noqa: B008
) -> Given:
    """A critique or a summary of each completion by a model, sampled by the ordinary stage."""
    if set(SLOTS.findall(writer.asked)) != {"prompt", "completion"}:
        raise ConfigError("the template needs {prompt} and {completion}", "write both where they belong")
    found, items = _asked(ws, collection)
    name, left_out = _named(helper, items), LeftOut()
    questions = {(item.id, i): _question(writer.asked, item, i) for item in items for i in range(len(item.texts))}
    rows = [prompt.to_json() for prompt in {prompt.id: prompt for prompt in questions.values()}.values()]
    prompts = loading.put_records(ws, "prompts", rows, source=f"asked for a {writer.kind} of each completion")
    candidates = Candidates(per_prompt=1, sampling=writer.sampling)
    made = sampled(ws, model, prompts, candidates, writer.seed, 0)
    said = {each.prompt.id: each.text.strip() for each in loading.read_completions(made)}
    outputs = {}
    for item in items:
        texts = [said.get(questions[item.id, i].id) for i in range(len(item.texts))]
        if whole := list(_whole(texts, left_out)):
            outputs[item.id] = [Output(name, writer.kind, places=tuple(whole))]
    source = {"writer": find_input(ws, "model", model, ("model", "external")).name, "completions": made.id}
    return give(ws, found, items, outputs, left_out, now=time.time(), source=source)


def view_in_words(name: str, scores: Sequence[float]) -> Output:
    """What a reward model prefers, said beside each completion. `scores` are in standard deviations, and never shown
    bare: a number without a scale says nothing."""
    values = [round(score, 6) for score in scores]
    levels = sorted(set(values), reverse=True)
    ranks = tuple(levels.index(value) + 1 for value in values)
    gap = levels[0] - levels[-1]
    if gap < CLOSE and len(values) == 2:
        return Output(name, "score", "It hardly tells the two apart.", ranks=(1, 1))
    best = [f"It prefers this one, by {gap:.1f} standard deviations of its scores.", "It likes this one less."]
    if len(values) == 2:
        return Output(name, "score", places=tuple(best[rank - 1] for rank in ranks), ranks=ranks)
    places = (
        f"Place {rank} of {len(values)}"
        + (f", {levels[0] - value:.1f} standard deviations of its scores below the first." if rank > 1 else ".")
        for rank, value in zip(ranks, values, strict=True)
    )
    return Output(name, "score", places=tuple(places), ranks=ranks)


# Inside


def _asked(ws: Workspace, collection: str) -> tuple[queue.Collection, list[Item]]:
    found = queue.collection(ws.database, collection)
    items = may_get_help(ws, found.id)
    if not items:
        raise DataError(f"'{found.name}' has no item that help could be about", "look at `trueup feedback status`")
    return found, items


def _named(helper: str, items: Sequence[Item]) -> str:
    try:
        return helper_name(helper) if helper else next_name(items)
    except Skip as problem:
        raise ConfigError(f"--helper: {problem}", "people see it, so it names no model") from None


def _scores(
    ws: Workspace, items: Sequence[Item], reward: Ref, threads: int, left_out: LeftOut
) -> dict[str, list[float]]:
    """Item -> its scores; without those of which the model cannot read every completion."""
    completions = [
        Completion(item.prompt, text, finished=end)
        for item in items
        for text, end in zip(item.texts, item.finished, strict=True)
    ]
    found: dict[str, list[float]] = {}
    with track(len(completions), "score") as advance:
        said = _watched(auditing.score(ws, model=reward, completions=completions, threads=threads), advance)
        for item in items:
            values = [next(said)["value"] for _ in item.texts]
            if None in values:
                left_out.add("items with a completion that is longer than the reward model reads")
            else:
                found[item.id] = values
    return found


def _watched(rows: Iterator[dict[str, Any]], advance: Any) -> Iterator[dict[str, Any]]:
    for row in rows:
        advance(1)
        yield row


def _question(template: str, item: Item, index: int) -> Prompt:
    """The template filled in one pass: what a text itself says in braces is left as it is."""
    messages = item.prompt.messages
    said = [each.content if len(messages) == 1 else f"{SPEAKERS[each.role]}: {each.content}" for each in messages]
    parts = {"prompt": "\n\n".join(said), "completion": item.texts[index]}
    return Prompt.user(SLOTS.sub(lambda found: parts[found[1]], template))


def _whole(texts: Sequence[str | None], left_out: LeftOut) -> Iterator[str]:
    """All of an item's texts or none: help with some of its completions would say something by itself."""
    if None in texts:
        left_out.add("items that are longer than the writer reads")
    elif not all(texts):
        left_out.add("items of which the writer said nothing about a completion")
    elif any("\0" in (text or "") for text in texts):
        left_out.add("items with a text that holds NUL, which cannot be stored")
    elif any(len(text or "") > LONGEST for text in texts):
        left_out.add(f"items with a text longer than {LONGEST:,} characters")
    else:
        yield from (text or "" for text in texts)
