"""One model against others, as evaluations found it: whichever of the two was named first, by itself or by what it
wrote."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import wording
from .standings import at_equal_length, called, only_by_length
from .wording import is_number

Told = Mapping[str, Any]

RELATED = {
    "shaped": "had a part in making it",
    "cousins": "learnt from the same judgements as the score that made it",
}


@dataclass(frozen=True)
class Meeting:
    """Rates are those of the model that is looked at, ties half."""

    rival: str
    judge: Told
    value: float
    ci: tuple[float, float]
    n: int
    equal: float | None  # the same between answers of equal length
    equal_ci: tuple[float, float] | None
    by_length: bool  # at equal length it would not surely have ended so
    related: str  # how the judge is no stranger to the model; empty of one that is
    with_start: bool = False  # the rival is what it was tuned from, answering once
    more: int = 0  # about so many pairs more would settle it
    way: str = ""  # how the model answered where that is not by itself: "best of 8"
    seen: bool = False  # on prompts that it was trained on

    @property
    def verdict(self) -> str:
        return "better" if self.ci[0] > 0.5 else "worse" if self.ci[1] < 0.5 else "undecided"

    @property
    def counts(self) -> bool:
        """A judge that had a part in making the model cannot speak for it; where it speaks against it, it is heard."""
        return self.related != RELATED["shaped"] or self.verdict == "worse"

    @property
    def is_open(self) -> bool:
        """Whether it leaves open who is better."""
        return self.verdict != "worse" and not self.reversed and not self.settles and not self.related

    @property
    def settles(self) -> bool:
        """That it is better, by somebody who had no part in it and not by its length alone."""
        return self.verdict == "better" and not (self.by_length or self.related or self.way or self.seen)

    @property
    def reversed(self) -> bool:
        """Won by length, and surely lost without it."""
        return self.verdict == "better" and self.equal_ci is not None and self.equal_ci[1] < 0.5

    def says(self, names: Mapping[str, str]) -> str:
        against = f"against {quoted(self.rival, names)}, by the {judge_words(self.judge, names)}"
        rate = f"{wording.percent(self.value)} of {self.n:,} pairs (95% interval {wording.percent_range(self.ci)})"
        if self.by_length:
            which = at_equal_length(self.equal_ci or (0.0, 1.0))
            but = f", but with answers of equal length {self.equal_words}, {which}"
        else:
            but = (
                f"; about {self.more:,} more pairs would settle it" if self.verdict == "undecided" and self.more else ""
            )
        where = ", on prompts that it was trained on" if self.seen else ""
        way = f"Its {self.way}" if self.way else "It"
        return f"{way} won {rate} {against}{where}: {self.verdict}{but}."

    @property
    def equal_words(self) -> str:
        return wording.percent(self.equal) + (f" ({wording.percent_range(self.equal_ci)})" if self.equal_ci else "")


def quoted(model: str, names: Mapping[str, str]) -> str:
    """In a sentence, where a name may be a word like any other."""
    name, comma, how = called(model, names).partition(",")
    return f"'{name}'{comma}{how}"


def judge_words(judge: Told, names: Mapping[str, str]) -> str:
    kind = judge.get("kind")
    if kind == "gold":
        return "true score (gold) of the built-in world"
    if kind == "verdicts":
        return wording.listed([f"{n:,} {source} judgements" for source, n in judge["sources"].items()])
    if kind == "model":
        return f"language model {names.get(judge['id'], judge['model'])}"
    scorer = str(judge.get("id", ""))
    return f"score of {names.get(scorer, scorer[:8] or 'an unknown judge')}"


def meetings(told: Told, made: Collection[str], start: str = "", trained_on: Collection[str] = ()) -> Iterator[Meeting]:
    """Of a run that compared models; `made` are the ids of the one that is looked at, `start` that of what it was tuned
    from, `trained_on` those of what it learnt on."""
    if told["stage"] not in ("winrate", "compare") or told["status"] != "done":
        return
    ours, starts = sides(told, made), sides(told, {start}) if start else set()
    judge = told["result"].get("judge") or {}
    seen = any(one["role"] == "prompts" and one["id"] in trained_on for one in told["inputs"])
    chosen = {one["id"] for one in told["inputs"] if one.get("chosen")}  # the best of several
    for a, b, found in _pairs(told):
        first, second = identity(a) in ours, identity(b) in ours
        if first == second or not is_number(found.get("value")) or not found.get("ci"):
            continue
        own, rival = (a, b) if first else (b, a)
        related = [words for key, words in RELATED.items() if identity(own) in judge.get(key, ())]
        controlled = found.get("length_controlled") or {}
        equal, equal_ci = controlled.get("value"), controlled.get("ci")
        yield Meeting(
            rival, judge, _turned(found["value"], first), _ends(found["ci"], first), found["n"],
            None if equal is None else _turned(equal, first), equal_ci and _ends(equal_ci, first),
            only_by_length(found), related[0] if related else "", rival in starts - chosen,
            found.get("pairs_to_settle") or 0, _way(own, chosen), seen,
        )  # fmt: skip


def sides(told: Told, made: Collection[str]) -> set[str]:
    """Of the inputs that answer those that are the model, or were written by it."""
    return {one["id"] for one in told["inputs"] if is_of(one, made)}


def is_of(one: Told, made: Collection[str]) -> bool:
    return one["id"] in made or one["written_by"] in made


def identity(model: str) -> str:
    """Of a model in a result: without how it answered."""
    return model.partition(",")[0]


def _pairs(told: Told) -> Iterator[tuple[str, str, Told]]:
    result = told["result"]
    models: Sequence[Any] = result.get("models") or []
    if told["stage"] == "compare":  # each against the first
        yield from ((each["model"], models[0]["model"], each["won"]) for each in models[1:] if "won" in each)
    elif "pairs" in result:
        yield from ((pair["a"], pair["b"], pair) for pair in result["pairs"])
    else:
        roles = {one["role"]: one["id"] for one in told["inputs"]}  # where the result does not name them
        yield (*(models or (roles.get("a", ""), roles.get("b", ""))), result)


def _way(model: str, chosen: Collection[str]) -> str:
    how = model.partition(",")[2].strip()
    return how or ("best of several" if identity(model) in chosen else "")


def _ends(ci: Sequence[float], ours_first: bool) -> tuple[float, float]:
    low, high = ci
    return (low, high) if ours_first else (1 - high, 1 - low)


def _turned(rate: float, ours_first: bool) -> float:
    return rate if ours_first else 1 - rate
