"""Help for judges: what helpers (a critic, a summary, another reward model) say about an item, and who is shown it.

People know a helper by the name it was given. Which model it is, which models wrote the completions and whether an item
checks them stay hidden. Who is shown help is chance, fixed for each item and person: the judgements made without it say
what those made with it would have been.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..config import CollectionConfig
from ..errors import DataError, nearest
from ..records import Prompt, digest
from ..store import Workspace, audit, queue
from ..store.help import give_help
from ..store.items import ORDINARY, Item
from ..text import columns
from ..text.columns import Columns, Skip
from ..text.sources import read_rows
from .adjudicate import every_item
from .leaks import LeakFinder

Kind = Literal["critique", "summary", "score", "note"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FIELDS = ("prompt", "helper", "kind", "text", "completions", "places", "ranks")
HINT = 'a row: {"prompt": ..., "helper": "helper A", "kind": "critique", "text": ...}, or "completions" with "places"'
LONGEST = 20_000  # characters of one text
LONGEST_NAME = 60
UNEVEN = 0.1  # difference in the share of items with help from which it tells golds from other items
LETTERS = "ABCDEFGHI"
NAMED = re.compile(r"<completion ([1-9])>")  # how a text names a completion that people see under a letter


@dataclass(frozen=True)
class Output:
    """What one helper says of one item: of all of it (`text`), of each completion (`places`), in which order it puts
    them (`ranks`, lower is better; nobody is shown it). Places go as the item lists its completions."""

    helper: str
    kind: Kind
    text: str = ""
    places: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"helper": self.helper, "kind": self.kind, "text": self.text}
        found = {"places": list(self.places), "ranks": list(self.ranks)}
        return row | {name: value for name, value in found.items() if value}

    @property
    def said(self) -> str:
        return "\n".join((self.helper, self.text, *self.places))


@dataclass(frozen=True)
class Row:
    """An output as a file has it: about a prompt, and about these completions of it where it names them."""

    where: str
    prompt: Prompt
    completions: tuple[str, ...]
    output: Output


@dataclass
class LeftOut:
    """What could not be used: how often for each reason, and where first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, why: str, where: str = "") -> None:
        self.counts[why] += 1
        self.first.setdefault(why, where)

    def told(self) -> str:
        return "; ".join(f"{n:,} {why}" for why, n in self.counts.most_common(3))


@dataclass(frozen=True)
class Given:
    """What became of outputs. `leaks` are texts that speak of a model or its maker, `share` of judgements see help."""

    collection: str
    name: str
    helpers: tuple[str, ...]
    outputs: int
    known: int
    items: Mapping[str, tuple[int, int]]  # "work" and "checks": items with help, and all of them
    left_out: LeftOut
    leaks: int
    share: float
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        left_out = {why: {"n": n, "first": self.left_out.first[why]} for why, n in self.left_out.counts.items()}
        return plain | {"items": {kind: list(counts) for kind, counts in self.items.items()}, "left_out": left_out}


# Who is shown what


def helpers_for(item: Item, person: str, config: CollectionConfig) -> tuple[str, ...] | None:
    """The helpers whose outputs this person is shown with this item; None where there is nothing to show.

    The qualification asks what somebody can do alone.
    """
    if not item.help or item.role == "qualification":
        return None
    draw = int(digest([item.collection, item.id, person, "help"])[:12], 16) / 16**12
    return tuple(dict.fromkeys(each["helper"] for each in item.help)) if draw < config.help_share else ()


def shown_help(item: Item, helpers: Sequence[str] | None, order: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """What these helpers say, completions by the letters and in the order in which somebody sees them."""
    letters = {index: LETTERS[place] for place, index in enumerate(order)}

    def lettered(text: str) -> str:
        return NAMED.sub(lambda found: letters.get(int(found[1]) - 1, found[0]), text)

    return tuple(
        {
            "helper": each["helper"],
            "kind": each["kind"],
            "text": lettered(each["text"]),
            "places": [lettered(each["places"][index]) for index in order] if each.get("places") else [],
        }
        for each in item.help or ()
        if each["helper"] in (helpers or ())
    )


def noted(item: Item, helpers: Sequence[str] | None) -> dict[str, Any]:
    """What a judgement notes: whose help was shown, and which order each helper advises, whether it was shown or not.

    Nothing where the item had no help: then there was nothing to be without.
    """
    if helpers is None:
        return {}
    advice = {each["helper"]: each["ranks"] for each in item.help or () if each.get("ranks")}
    return {"assisted": list(helpers)} | ({"advice": advice} if advice else {})


# Giving help


def may_get_help(workspace: Workspace, collection: str) -> list[Item]:
    return [
        item
        for item in every_item(workspace, collection)
        if item.state != "quarantined" and item.role != "qualification"
    ]


def next_name(items: Iterable[Item]) -> str:
    """What the next helper is called where nobody names it: "helper A", then B, and so on."""
    taken = {each["helper"] for item in items for each in item.help or ()}
    free = (f"helper {chr(ord('A') + i)}" for i in range(26))
    name = next((name for name in free if name not in taken), "")
    if not name:
        raise DataError("every letter has its helper already", "name this one: --helper NAME")
    return name


def give(
    workspace: Workspace,
    collection: queue.Collection,
    items: Sequence[Item],
    outputs: Mapping[str, Sequence[Output]],
    left_out: LeftOut,
    *,
    now: float,
    source: Mapping[str, Any],
) -> Given:
    """Add outputs (item -> of its helpers). `source` says for the audit log where they come from."""
    names = _names_of_writers(workspace, items)
    kept = {item.id: list(_blind(outputs[item.id], names, left_out)) for item in items if item.id in outputs}
    kept = {item: said for item, said in kept.items() if said}
    if not kept:
        raise DataError(f"there is nothing to show: {left_out.told() or 'no output fits an item'}", HINT)
    asked = sum(map(len, kept.values()))
    new = give_help(workspace.database, {item: [each.to_json() for each in said] for item, said in kept.items()})
    helpers = tuple(sorted({each.helper for said in kept.values() for each in said}))
    audit.note(workspace.database, now, "", "gave help", collection.id, helpers=list(helpers), outputs=new, **source)
    counts = {
        "work": _with_help(items, kept, ORDINARY),
        "checks": _with_help(items, kept, ("gold", "control")),
    }
    config = CollectionConfig.model_validate(dict(collection.config))
    find = LeakFinder()
    leaks = sum(bool(find(each.said)) for said in kept.values() for each in said)
    golds = _with_help(items, kept, ("gold",))
    told = tuple(_warnings(counts, golds, config))
    return Given(
        collection.id, collection.name, helpers, new, asked - new, counts, left_out, leaks, config.help_share, told
    )


def _with_help(items: Sequence[Item], new: Mapping[str, Any], roles: Sequence[str]) -> tuple[int, int]:
    mine = [item for item in items if item.role in roles]
    return sum(bool(item.help) or item.id in new for item in mine), len(mine)


def _warnings(counts: Mapping[str, tuple[int, int]], golds: tuple[int, int], config: CollectionConfig) -> Iterator[str]:
    (work, all_work), (checks, all_checks) = counts["work"], counts["checks"]
    if all_checks and abs(checks / all_checks - work / max(1, all_work)) > UNEVEN:
        yield (
            f"{checks:,} of {all_checks:,} checks have help, and {work:,} of {all_work:,} other items: "
            "who sees help can guess which items check them; give it to all"
        )
    if not golds[0]:
        yield "no gold has help: how often people are right with it and without it will not be known"
    if config.help_share in (0, 1):
        shown = "everybody" if config.help_share else "nobody"
        yield f"help_share is {config.help_share:g}: {shown} is shown help, and there is nothing to compare with"


def _names_of_writers(workspace: Workspace, items: Sequence[Item]) -> set[str]:
    """What the models behind the completions are called, in small letters."""
    models = {model for item in items for model in item.models}
    named = [name for name, artifact in workspace.names().items() if artifact in models]
    return {name.lower() for name in (*named, *models) if len(name) > 3}


def _blind(outputs: Sequence[Output], names: set[str], left_out: LeftOut) -> Iterator[Output]:
    """Without those that name a model whose completions are judged."""
    find = LeakFinder(names)
    for each in outputs:
        if names.intersection(find(each.said)):
            left_out.add("outputs that name a model which wrote a completion")
        else:
            yield each


# From a file


def read_outputs(file: Path | str, left_out: LeftOut) -> list[Row]:
    """The rows of a file. One that cannot be used is counted with its reason."""
    found: list[Row] = []
    for where, row in read_rows(file):
        if isinstance(row, DataError):
            left_out.add("rows that cannot be read", where)
            continue
        try:
            found.append(_read(where, row))
        except Skip as problem:
            left_out.add(f"rows: {problem}", where)
    if not found and not left_out.counts:
        raise DataError(f"{file}: there are no rows in it", HINT)
    return found


def for_items(rows: Sequence[Row], items: Sequence[Item], left_out: LeftOut) -> dict[str, list[Output]]:
    """Item -> what the rows say of it. A row without completions is about every item of its prompt."""
    by_prompt: dict[str, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(row.prompt.id, []).append(row)
    used: set[str] = set()
    outputs: dict[str, list[Output]] = {}
    for item in items:
        for row in by_prompt.get(item.prompt.id, ()):
            if not row.completions or sorted(row.completions) == sorted(item.texts):
                outputs.setdefault(item.id, []).append(_placed(row, item))
                used.add(row.where)
    prompts = {item.prompt.id for item in items}
    for row in rows:
        if row.where not in used:
            known = row.prompt.id in prompts
            why = "rows: no item shows just these completions" if known else "rows: no item has this prompt"
            left_out.add(why, row.where)
    return outputs


def _placed(row: Row, item: Item) -> Output:
    """With everything that goes by completions as the item lists them."""
    said = row.output
    if not row.completions:
        return said
    there = [row.completions.index(text) for text in item.texts]  # completion of the item -> of the row
    number = {place: index for index, place in enumerate(there)}

    def renumbered(text: str) -> str:
        return NAMED.sub(lambda found: f"<completion {number[int(found[1]) - 1] + 1}>", text)

    return replace(
        said,
        text=renumbered(said.text),
        places=tuple(renumbered(said.places[place]) for place in there) if said.places else (),
        ranks=tuple(said.ranks[place] for place in there) if said.ranks else (),
    )


def _read(where: str, row: Columns) -> Row:
    if strange := [name[:LONGEST_NAME] for name in row if name not in FIELDS]:
        raise Skip(f"'{strange[0]}' is no field of theirs{nearest(strange[0], FIELDS)}")
    prompt, word = columns.prompt(row, "prompt"), columns.word(row, "kind")
    kind = next((each for each in KINDS if each == word), None)
    if kind is None:
        raise Skip(f"'kind' is none of {', '.join(KINDS)}")
    texts = _texts(row, "completions")
    if len(set(texts)) < len(texts):
        raise Skip("two of 'completions' are the same")
    output = Output(
        helper_name(columns.text(row, "helper", empty=True)),
        kind,
        _plain(row, "text", empty=True) if row.get("text") is not None else "",
        tuple(text if text.strip() else "" for text in _texts(row, "places", len(texts), empty=True)),
        _ranks(row, len(texts)),
    )
    if not output.text.strip() and not any(output.places):
        raise Skip("neither 'text' nor 'places' says anything")
    numbers = {int(found) for found in NAMED.findall(output.said)}
    if numbers - set(range(1, len(texts) + 1)):
        raise Skip("a text names a completion that is not in 'completions'")
    return Row(where, prompt, texts, output)


def helper_name(name: str) -> str:
    """A name that people may see. Raises `Skip`."""
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise Skip(f"'helper' is no name: a few words, at most {LONGEST_NAME} characters")
    return name


def _texts(row: Columns, name: str, count: int | None = None, *, empty: bool = False) -> tuple[str, ...]:
    """A list of `count` texts, or where that is not given of as many as can have a letter."""
    value = row.get(name)
    if value is None:
        return ()
    sizes = range(1, len(LETTERS) + 1) if count is None else (count,)
    if not isinstance(value, list) or not value or len(value) not in sizes:
        raise Skip(f"'{name}' is no list with a text for each of 'completions'")
    return tuple(_plain({name: each}, name, empty=empty) for each in value)


def _plain(row: Columns, name: str, *, empty: bool = False) -> str:
    text = columns.text(row, name, empty=empty)
    if len(text) > LONGEST and name != "completions":
        raise Skip(f"'{name}' is longer than {LONGEST:,} characters")
    if "\0" in text:
        raise Skip(f"'{name}' holds NUL, which cannot be stored")
    return text


def _ranks(row: Columns, count: int) -> tuple[int, ...]:
    value = row.get("ranks")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) != count or not count:
        raise Skip("'ranks' is no list with a number for each of 'completions'")
    columns.check_places(value)
    return tuple(value)
