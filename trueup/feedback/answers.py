"""What a person said about an item: checked field by field, turned from places on a screen to completions.

A browser speaks of places (0 is the completion shown first), a judgement of completions. The raw answer is kept beside
what is made of it, so nothing is lost by this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import combinations
from typing import Any

from ..config.collection import THUMB, CollectionConfig, TaskKind
from ..errors import DataError, nearest
from ..records import Judgement
from ..store.collections import plain_text
from ..store.queue import Assignment

FLAGS = ("unsafe", "personal data", "wrong language", "off topic", "broken")
THUMBS: dict[str, float | None] = {"up": 1.0, "unsure": None, "down": 0.0}
BOTH_BAD = "both bad"
STRONGEST = 3
LONGEST_TEXT = 200_000  # characters of a rewritten completion
LONGEST_NOTE = 20_000  # of a rationale
LONGEST_MS = 10**12  # of a time; what is longer is no time, and may be no float
MOST_CHIPS = 20
SHARED_FIELDS = ("rationale", "flags", "active_ms", "opened_ms", "client", "help_opened")
FIELDS: dict[TaskKind, tuple[str, ...]] = {
    "pair": ("choice",),
    "ranking": ("ranks", "order_changed", "confirmed"),
    "rating": ("ratings",),
    "thumbs": ("thumbs", "chips"),
    "edit": ("edited", "text", "ranks"),
}


@dataclass(frozen=True)
class Answer:
    """An answer that fits its task. Everything in it but `payload` goes by places on the screen."""

    task: TaskKind
    places: tuple[int, ...]  # rank of what was shown at each place, 1 is best
    payload: Mapping[str, Any]  # as it came
    given: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)  # axis -> number at each place
    choice: int | str = ""  # of a pair
    edited: int = -1  # the place of the completion that was rewritten
    text: str = ""  # what it was rewritten to
    flagged: tuple[tuple[str, ...], ...] = ()  # flags of the prompt, then of each place

    def ranks(self, order: Sequence[int]) -> tuple[int, ...]:
        """By completion, as the item lists them."""
        return _unshuffled(self.places, order)

    def ratings(self, order: Sequence[int]) -> dict[str, tuple[float | None, ...]]:
        return {axis: _unshuffled(values, order) for axis, values in self.given.items()}

    @property
    def flags(self) -> set[str]:
        """Everything that was flagged, wherever."""
        return {flag for each in self.flagged for flag in each}


def read_answer(config: CollectionConfig, k: int, payload: Mapping[str, Any]) -> Answer:
    """The answer in `payload` about `k` completions, or an error that names the field."""
    if not isinstance(payload, Mapping):
        raise DataError("the answer is not a JSON object", "reload the page")
    known = (*FIELDS[config.task], *SHARED_FIELDS)
    for name in payload:
        if name not in known:
            raise _wrong(str(name), f"is no field of an answer to a {config.task} task{nearest(str(name), known)}")
    answer = READERS[config.task](config, k, payload)
    _check_shared(payload)
    answer = _with_flags(answer, k, payload)
    if _reason_missing(config, answer):
        raise _wrong("rationale", "is asked for: say why")
    return answer


def to_judgement(answer: Answer, assignment: Assignment, judge: str, now: float) -> Judgement:
    """The record that is stored; the store adds its id, and whether it was surplus."""
    item, order, payload = assignment.item, assignment.order, answer.payload
    seconds = max(0.0, now - assignment.issued)
    active = min(seconds, payload.get("active_ms", 0) / 1000) if "active_ms" in payload else None
    meta: dict[str, Any] = {
        "answer": dict(payload),
        "task": answer.task,
        "collection": assignment.collection,
        "item": item.id,
        "assignment": assignment.id,
        "order": list(order),
        "guideline": assignment.guideline,
        "seconds": round(seconds, 3),
        "active_seconds": None if active is None else round(active, 3),
        "round": assignment.round,
        "role": item.role,
    }
    texts, ranks = item.texts, answer.ranks(order)
    if answer.task == "pair":
        meta["strength"] = _strength(answer.choice, order)
    if answer.task == "edit":
        texts, ranks, meta["edit"] = _with_edit(answer, item.texts, order)
    if answer.flags:
        meta["flags"] = {
            "prompt": list(answer.flagged[0]),
            "completions": [list(each) for each in _unshuffled(answer.flagged[1:], order)],
        }
    return Judgement(
        item.prompt, texts, ranks, judge, "human", split=item.split, meta=meta, ratings=answer.ratings(order)
    )


def agreement(key: Sequence[int], judgement: Judgement) -> float:
    """How far a judgement says what a gold expects: the share of its decided pairs that are ordered alike.

    Where the key decides nothing, a tie everywhere is right. An answer "both bad" decides nothing.
    """
    decided = [(i, j) for i, j in combinations(range(len(key)), 2) if key[i] != key[j]]
    ranks = judgement.ranks
    if not decided:
        return float(len(set(ranks[: len(key)])) == 1)
    alike = [(key[i] < key[j]) == (ranks[i] < ranks[j]) and ranks[i] != ranks[j] for i, j in decided]
    return sum(alike) / len(alike)


# What the tasks say


def _pair(config: CollectionConfig, k: int, payload: Mapping[str, Any]) -> Answer:
    assert k == 2, "a pair has two completions"
    choice: Any = payload.get("choice")
    if choice == BOTH_BAD and config.both_bad:
        return Answer("pair", (1, 1), payload, choice=BOTH_BAD)
    most = STRONGEST if config.strength else 1
    lowest = 0 if config.ties else 1
    if not _is_whole(choice) or not lowest <= abs(choice) <= most:
        words = f"a whole number from -{most} to {most}" + ("" if config.ties else " and not 0")
        raise _wrong("choice", f"must be {words}" + (f", or '{BOTH_BAD}'" if config.both_bad else ""))
    places = (1, 2) if choice < 0 else (2, 1) if choice > 0 else (1, 1)
    return Answer("pair", places, payload, choice=choice)


def _ranking(config: CollectionConfig, k: int, payload: Mapping[str, Any]) -> Answer:
    for name in ("order_changed", "confirmed"):
        if not isinstance(payload.get(name, False), bool):
            raise _wrong(name, "must be true or false")
    return Answer("ranking", _places(payload.get("ranks"), k, config.ties), payload)


def _rating(config: CollectionConfig, k: int, payload: Mapping[str, Any]) -> Answer:
    ratings: Any = payload.get("ratings")
    names = [axis.name for axis in config.scales]
    if not isinstance(ratings, Mapping) or set(ratings) != set(names):
        raise _wrong("ratings", f"must have every axis and no other: {', '.join(names)}")
    given: dict[str, tuple[float | None, ...]] = {}
    for axis in config.scales:
        numbers = ratings[axis.name]
        if not _is_list(numbers, k) or not all(_is_whole(n) and axis.low <= n <= axis.high for n in numbers):
            expected = f"must hold {k} whole numbers from {axis.low} to {axis.high}, one a completion"
            raise _wrong(f"ratings.{axis.name}", expected)
        given[axis.name] = tuple(float(n) for n in numbers)
    return Answer("rating", _ranked(_overall(config, given, k)), payload, given)


def _thumbs(config: CollectionConfig, k: int, payload: Mapping[str, Any]) -> Answer:
    thumbs: Any = payload.get("thumbs")
    chips: Any = payload.get("chips", [])
    if not _is_list(thumbs, k) or not all(isinstance(each, str) and each in THUMBS for each in thumbs):
        raise _wrong("thumbs", f"must hold {k} of {', '.join(THUMBS)}, one a completion")
    if not _is_list(chips) or len(chips) > MOST_CHIPS or not all(isinstance(each, str) for each in chips):
        raise _wrong("chips", f"must be a list of at most {MOST_CHIPS} words")
    for chip in chips:
        _text(chip, "chips", 100)
    values = tuple(THUMBS[each] for each in thumbs)
    return Answer("thumbs", _ranked([0.5 if value is None else value for value in values]), payload, {THUMB: values})


def _edit(config: CollectionConfig, k: int, payload: Mapping[str, Any]) -> Answer:
    edited: Any = payload.get("edited")
    text: Any = payload.get("text")
    if not _is_whole(edited) or not 0 <= edited < k:
        raise _wrong("edited", f"must be the place of a completion, from 0 to {k - 1}")
    if not isinstance(text, str) or not text.strip():
        raise _wrong("text", "must be the rewritten completion")
    _text(text, "text", LONGEST_TEXT)
    places = _places(payload["ranks"], k, ties=True) if "ranks" in payload else (1,) * k
    return Answer("edit", places, payload, edited=edited, text=text)


READERS: dict[TaskKind, Callable[[CollectionConfig, int, Mapping[str, Any]], Answer]] = {
    "pair": _pair,
    "ranking": _ranking,
    "rating": _rating,
    "thumbs": _thumbs,
    "edit": _edit,
}


# What every answer may have


def _check_shared(payload: Mapping[str, Any]) -> None:
    for name in ("active_ms", "opened_ms"):
        if not _is_whole(payload.get(name, 0)) or not 0 <= payload.get(name, 0) <= LONGEST_MS:
            raise _wrong(name, "must be a whole number of milliseconds, at least 0")
    if not isinstance(payload.get("help_opened", False), bool):
        raise _wrong("help_opened", "must be true or false")
    for name, longest in (("rationale", LONGEST_NOTE), ("client", 200)):
        value = payload.get(name, "")
        if not isinstance(value, str):
            raise _wrong(name, "must be text")
        _text(value, name, longest)


def _with_flags(answer: Answer, k: int, payload: Mapping[str, Any]) -> Answer:
    flags = payload.get("flags", {})
    if not isinstance(flags, Mapping) or set(flags) - {"prompt", "completions"}:
        raise _wrong("flags", "must have 'prompt' and 'completions' and nothing else")
    each = flags.get("completions", [[]] * k)
    if not _is_list(each, k):
        raise _wrong("flags.completions", f"must hold {k} lists, one a completion")
    found = tuple(_flags_of(one, where) for one, where in _flag_fields(flags.get("prompt", []), each))
    values = {**vars(answer), "flagged": found}
    return Answer(**values)


def _flag_fields(prompt: Any, each: Sequence[Any]) -> list[tuple[Any, str]]:
    return [(prompt, "flags.prompt"), *((one, f"flags.completions.{i}") for i, one in enumerate(each))]


def _flags_of(value: Any, where: str) -> tuple[str, ...]:
    if not _is_list(value) or not all(isinstance(flag, str) and flag in FLAGS for flag in value):
        raise _wrong(where, f"must be a list of flags: {', '.join(FLAGS)}")
    return tuple(dict.fromkeys(value))


def _reason_missing(config: CollectionConfig, answer: Answer) -> bool:
    if str(answer.payload.get("rationale", "")).strip():
        return False
    strong = _is_whole(answer.choice) and abs(int(answer.choice)) == STRONGEST
    return config.rationale == "required" or (
        config.rationale == "when strong or flagged" and (strong or bool(answer.flags))
    )


# From places to completions


def _unshuffled(shown: Sequence[Any], order: Sequence[int]) -> tuple[Any, ...]:
    """order[place] is the completion shown there; `shown` goes by places, the result by completions."""
    assert sorted(order) == list(range(len(shown))), (order, shown)
    found: list[Any] = [None] * len(shown)
    for value, completion in zip(shown, order, strict=True):
        found[completion] = value
    return tuple(found)


def _strength(choice: int | str, order: Sequence[int]) -> int | str:
    """Of a pair: above 0 the second completion of the item is better, below 0 the first; however they were shown."""
    return choice if isinstance(choice, str) else choice if order[0] == 0 else -choice


def _with_edit(
    answer: Answer, texts: tuple[str, ...], order: Sequence[int]
) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
    """Texts and ranks with the rewritten completion, which its writer holds to be better than what it was made from.

    Without a ranking nothing is known of the completions that were left alone: they are not in the judgement.
    """
    index = order[answer.edited]
    old, new = texts[index], answer.text
    if new.strip() == old.strip():
        raise _wrong("text", "is the completion as it was: change it, or skip the item")
    before, after = old.split(), new.split()
    steps = [step for step in SequenceMatcher(None, before, after).get_opcodes() if step[0] != "equal"]
    words = sum(max(end - start, end_after - start_after) for _, start, end, start_after, end_after in steps)
    about = {"of": index, "words_changed": words, "steps": [list(step) for step in steps]}
    if "ranks" in answer.payload:
        return (*texts, new), (*(rank + 1 for rank in answer.ranks(order)), 1), about
    return (old, new), (2, 1), about


def _places(ranks: Any, k: int, ties: bool) -> tuple[int, ...]:
    """Ranks without gaps: 1, 2, 2, 4 says the same as 1, 2, 2, 3."""
    if not _is_list(ranks, k) or not all(_is_whole(rank) and 1 <= rank <= k for rank in ranks):
        raise _wrong("ranks", f"must place all {k} completions: {k} whole numbers from 1 to {k}")
    if not ties and len(set(ranks)) < k:
        raise _wrong("ranks", "must not have ties: each completion gets a place of its own")
    levels = sorted(set(ranks))
    return tuple(levels.index(rank) + 1 for rank in ranks)


def _ranked(values: Sequence[float]) -> tuple[int, ...]:
    """Ranks of numbers of which more is better."""
    levels = sorted(set(values), reverse=True)
    return tuple(levels.index(value) + 1 for value in values)


def _overall(config: CollectionConfig, given: Mapping[str, Sequence[float | None]], k: int) -> list[float]:
    """What ranks the completions of a rating: the axis `overall` if there is one, else the mean of all, each 0 to 1."""
    if "overall" in given:
        return [value or 0.0 for value in given["overall"]]
    shares = [[((v or 0.0) - axis.low) / (axis.high - axis.low) for v in given[axis.name]] for axis in config.scales]
    return [round(sum(share[i] for share in shares) / len(shares), 9) for i in range(k)]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: Any, k: int | None = None) -> bool:
    return isinstance(value, list | tuple) and (k is None or len(value) == k)


def _text(value: str, name: str, longest: int) -> None:
    if len(value) > longest:
        raise _wrong(name, f"is too long: {len(value):,} characters, at most {longest:,}")
    plain_text(value, f"the answer: {name}")


def _wrong(name: str, what: str) -> DataError:
    return DataError(f"the answer: {name} {what}", "nothing was saved; correct it and submit again")
