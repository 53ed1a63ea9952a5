"""The records every part of trueup passes around: frozen, without tensors, each readable as one JSON object.

A `Completion` carries its `Prompt`, so engines return, scorers take and judges compare plain flat lists. A human
label, an AI label, a thumbs-up from a served model and an evaluation verdict are all a `Judgement`; only `source`
differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Source = Literal["human", "ai", "simulated", "imported", "rule"]
FAILED = "failed"  # in a completion's meta: why there is no answer, where a server gave none
UNNAMED = "unknown"  # the judge of a row that names none


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a completion answers. `meta` travels with it (tags, the built-in world's truth) and is never rendered."""

    messages: tuple[Message, ...]
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @property
    def id(self) -> str:
        """Content-derived, so the same prompt has the same id in every file it appears in."""
        return digest([[m.role, m.content] for m in self.messages])[:16]

    @property
    def text(self) -> str:
        """The last message: for people to read, not for models (they read `text.chat`)."""
        return self.messages[-1].content

    @classmethod
    def user(cls, content: str, **meta: Any) -> Prompt:
        return cls((Message("user", content),), meta)

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"messages": [{"role": m.role, "content": m.content} for m in self.messages]}
        return row | ({"meta": dict(self.meta)} if self.meta else {})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Prompt:
        return cls(tuple(Message(m["role"], m["content"]) for m in row["messages"]), row.get("meta", {}))


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer to a prompt. `tokens` and `logprobs` (of the sampling distribution) are empty for text from a file.

    `meta` says what else is known of it, such as its score where it is the best of several.
    """

    prompt: Prompt
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finished: bool = True  # ended with a stop token rather than at the length limit
    model: str = ""  # the artifact that wrote it; never shown to a judge
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    def to_json(self, *, logprobs: bool = False) -> dict[str, Any]:
        """Without the prompt: rows of a completion set hold the prompt once for all its completions."""
        row: dict[str, Any] = {"text": self.text, "finished": self.finished}
        if self.model:
            row["model"] = self.model
        if self.tokens:
            row["tokens"] = list(self.tokens)
        if logprobs and self.logprobs:
            row["logprobs"] = list(self.logprobs)
        return row | ({"meta": dict(self.meta)} if self.meta else {})

    @classmethod
    def from_json(cls, prompt: Prompt, row: Mapping[str, Any]) -> Completion:
        return cls(
            prompt,
            row["text"],
            tuple(row.get("tokens", ())),
            tuple(row.get("logprobs", ())),
            row.get("finished", True),
            row.get("model", ""),
            row.get("meta", {}),
        )


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt with a completion to imitate."""

    prompt: Prompt
    completion: str

    def to_json(self) -> dict[str, Any]:
        return {"prompt": self.prompt.to_json(), "completion": self.completion}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Demonstration:
        return cls(Prompt.from_json(row["prompt"]), row["completion"])


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one judge said about the completions of one prompt.

    `ranks[i]` is the place of `completions[i]`: lower is better, equal is a tie. A pairwise choice is a ranking of
    two; a K-way ranking is all its pairs (`pairs`). `ratings[axis][i]` is what `completions[i]` got on an axis, None
    where nothing was said; a thumb is the axis "thumb" with 1 or 0. `targets`, where several judges were made into one,
    holds a soft target for each of `pairs`.
    """

    prompt: Prompt
    completions: tuple[str, ...]
    ranks: tuple[int, ...]
    judge: str
    source: Source
    id: str = ""
    split: Literal["train", "heldout"] = "train"
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)
    ratings: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict, hash=False)
    targets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        k = len(self.completions)
        assert len(self.ranks) == k >= 1
        assert all(len(given) == k for given in self.ratings.values())
        assert len(self.targets) in (0, k * (k - 1) // 2)

    def pairs(self) -> list[tuple[int, int, float]]:
        """All C(K,2) pairs as (i, j, target): target is 1 when i is better, 0 when j is, 0.5 for a tie."""
        pairs = list(combinations(range(len(self.ranks)), 2))
        targets = self.targets or [_preference(self.ranks[i], self.ranks[j]) for i, j in pairs]
        return [(i, j, target) for (i, j), target in zip(pairs, targets, strict=True)]

    def places_on(self, objective: str) -> tuple[float | None, ...]:
        """The places on one objective, lower is better: the ranks where that is what was judged (`meta.objective`),
        else by the ratings on the axis of that name; empty where nothing was said of it."""
        if self.meta.get("objective") == objective:
            return tuple(map(float, self.ranks))
        return tuple(None if given is None else -given for given in self.ratings.get(objective, ()))

    def pairs_on(self, objective: str) -> list[tuple[int, int, float]]:
        """As `pairs`, of one objective."""
        if self.meta.get("objective") == objective:
            return self.pairs()
        placed = [(i, place) for i, place in enumerate(self.places_on(objective)) if place is not None]
        return [(i, j, _preference(a, b)) for (i, a), (j, b) in combinations(placed, 2)]

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": self.id,
            "prompt": self.prompt.to_json(),
            "completions": list(self.completions),
            "ranks": list(self.ranks),
            "judge": self.judge,
            "source": self.source,
            "split": self.split,
        }
        if self.ratings:
            row["ratings"] = {axis: list(given) for axis, given in self.ratings.items()}
        if self.targets:
            row["targets"] = list(self.targets)
        return row | ({"meta": dict(self.meta)} if self.meta else {})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Judgement:
        return cls(
            Prompt.from_json(row["prompt"]),
            tuple(row["completions"]),
            tuple(row["ranks"]),
            row["judge"],
            row["source"],
            row.get("id", ""),
            row.get("split", "train"),
            row.get("meta", {}),
            {axis: tuple(given) for axis, given in row.get("ratings", {}).items()},
            tuple(row.get("targets", ())),
        )


@dataclass(frozen=True, slots=True)
class Score:
    """A scorer's number for one completion, with its named parts where it has several."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`: the one way trueup derives an id from content."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    ).hexdigest()


def by_prompt(completions: Sequence[Completion]) -> list[list[Completion]]:
    """Consecutive completions of one prompt, grouped: what `Engine.sample(..., n=K)` returned, K at a time."""
    groups: list[list[Completion]] = []
    for completion in completions:
        if groups and groups[-1][0].prompt is completion.prompt:
            groups[-1].append(completion)
        else:
            groups.append([completion])
    return groups


def _preference(a: float, b: float) -> float:
    return 1.0 if a < b else 0.0 if a > b else 0.5
