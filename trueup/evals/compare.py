"""Which of several models is better, how far that may be luck, at equal length, for which prompts, in what order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..ports import Scorer
from ..records import Completion
from ..stats.intervals import share
from ..stats.leaderboard import Contests, leaderboard
from ..stats.length_control import LengthControlled, length_controlled, longer
from ..stats.winrate import WinRate, pairs_to_settle, winrate
from .matches import Match
from .scored import score_all
from .slices import DRAWS, prompt_slices

SURELY, AT_LEAST = 0.9, 0.8  # the longer answer wins so often, and surely more often than the second
FEW_JUDGES = 10  # fewer do not show how far people differ
FEWEST = 15  # decided meetings, below which nothing is said of a judge


@dataclass(frozen=True)
class Comparison:
    """Of two models' meetings: `a` over `b`, ties half, and between answers of equal length."""

    matches: Sequence[Match]

    def __post_init__(self) -> None:
        assert self.matches and all(match.points is not None for match in self.matches)
        assert len({(match.first, match.second) for match in self.matches}) == 1, "of two models"

    @cached_property
    def points(self) -> np.ndarray:
        return np.array([match.points for match in self.matches], dtype=float)

    @cached_property
    def prompts(self) -> list[str]:
        return [match.a.prompt.id for match in self.matches]

    @cached_property
    def clusters(self) -> list[str] | None:
        """Where each prompt occurs once, Wilson's interval has the right width, even at 0 or 1; redraws have not."""
        return self.prompts if len(set(self.prompts)) < len(self.prompts) else None

    @cached_property
    def rate(self) -> WinRate:
        return winrate(self.points, 1 - self.points, self.clusters)

    @cached_property
    def words(self) -> tuple[list[int], list[int]]:
        return [len(m.a.text.split()) for m in self.matches], [len(m.b.text.split()) for m in self.matches]

    @cached_property
    def controlled(self) -> LengthControlled:
        return length_controlled(self.points, longer(*self.words), self.clusters)

    @property
    def verdict(self) -> str:
        """Who is better beyond chance: `a`, `b` or `undecided`."""
        low, high = self.rate.ci
        return "a" if low > 0.5 else "b" if high < 0.5 else "undecided"

    def slices(self) -> list[dict[str, Any]]:
        """The rate in each slice of prompts of more than one level."""
        kinds = prompt_slices([match.a.prompt for match in self.matches])
        prompts = np.array(self.prompts)
        return [
            {"kind": kind, "name": name, **_told(share(self.points[rows], prompts[rows], draws=DRAWS))}
            for kind, members in kinds.items()
            for name, rows in members.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """`pairs_to_settle`: how many more would decide it at this rate; None at exactly a half, where none would."""
        words = dict(zip(("words_a", "words_b"), (float(np.mean(each)) for each in self.words), strict=True))
        scores = [match.scores for match in self.matches if match.scores is not None]
        means = dict(zip(("mean_a", "mean_b"), np.mean(scores, axis=0).tolist(), strict=True)) if scores else {}
        return (
            self.rate.to_json()
            | {
                "verdict": self.verdict,
                "pairs_to_settle": pairs_to_settle(self.rate),
                "prompts": len(set(self.prompts)),
            }
            | means
            | words
            | {"length_controlled": self.controlled.to_json(), "slices": self.slices()}
        )


def summary(models: Sequence[str], matches: Sequence[Match], judge: Mapping[str, Any]) -> dict[str, Any]:
    """Of two models how they compare; of more every two of them, and all in one order.

    Meetings without a verdict are counted by their reason and left out of all else. `judge` is what is known of who
    judged, to which is added what their verdicts say of them.
    """
    decided = [match for match in matches if match.points is not None]
    missing = dict(Counter(match.why for match in matches if match.points is None))
    found: dict[str, Any] = {"models": list(models), "missing": missing}
    about = {**judge, "longer": went_by_length(decided)}
    found |= {"judge": about, "findings": findings(decided, about)}
    pairs = []
    for first, second in sorted({(match.first, match.second) for match in decided}):
        met = [match for match in decided if (match.first, match.second) == (first, second)]
        pairs.append({"a": models[first], "b": models[second], **Comparison(met).to_json()})
    if len(models) == 2:
        return (pairs[0] if pairs else {}) | found
    return found | {"pairs": pairs} | (ranked(models, decided) if decided else {})


def ranked(models: Sequence[str], matches: Sequence[Match]) -> dict[str, Any]:
    """Bradley-Terry ratings, the best first. Models that never met, not even through others, cannot be ordered: they
    are in different components."""
    judges = {name: i for i, name in enumerate(dict.fromkeys(match.judge for match in matches if match.judge))}
    prompts = {name: i for i, name in enumerate(dict.fromkeys(match.a.prompt.id for match in matches))}
    contests = Contests(
        np.array([match.first for match in matches]),
        np.array([match.second for match in matches]),
        np.array([match.points for match in matches], dtype=float),
        np.array([prompts[match.a.prompt.id] for match in matches]),
        # Equal texts tie without anybody's help. Whoever was asked would have said so: they are dealt out among them.
        np.array([judges.get(match.judge, place % max(1, len(judges))) for place, match in enumerate(matches)]),
        longer(*zip(*((len(m.a.text.split()), len(m.b.text.split())) for m in matches), strict=True)),
    )
    rated = leaderboard(contests)
    rows = [
        {"model": models[each.model], "rating": each.value, "ci": [each.low, each.high], "rank": each.rank, "n": each.n,
         "component": each.component}
        for each in rated.ratings
    ]  # fmt: skip
    return {"ratings": rows, "components": rated.components}


def went_by_length(matches: Sequence[Match]) -> dict[str, Any]:
    """How often the longer answer won, of the meetings that somebody won and whose answers differ in length: in words
    or in characters, whichever tells more."""
    found = [_longer_won(matches, unit, size) for unit, size in (("words", _words), ("characters", len))]
    return max(found, key=lambda each: abs(each["value"] - 0.5) if each["n"] else -1.0)


def _longer_won(matches: Sequence[Match], unit: str, size: Callable[[str], int]) -> dict[str, Any]:
    rows = []
    for match in matches:
        difference = size(match.a.text) - size(match.b.text)
        if difference and match.points != 0.5:
            rows.append((match.a.prompt.id, float((difference > 0) == (match.points == 1))))
    return _told(share(np.array([won for _, won in rows]), [prompt for prompt, _ in rows], draws=DRAWS)) | {"in": unit}


def _words(text: str) -> int:
    return len(text.split())


def findings(matches: Sequence[Match], judge: Mapping[str, Any]) -> list[str]:
    """What everybody should know before they believe the verdicts."""
    found = []
    order = judge.get("order")
    if order and order["by_place"]:
        found.append(
            f"the judge goes by the place: the response that stood first won {order['first']['value']:.0%} of "
            f"{order['first']['n']:,} verdicts ({_range(order['first'])}), and only {order['same']['value']:.0%} of "
            "pairs got the same verdict in both orders; the others count as ties"
        )
    found += _by_length(judge["longer"])
    judges = {match.judge for match in matches if match.judge}
    if 1 < len(judges) < FEW_JUDGES and len({(match.first, match.second) for match in matches}) > 1:
        found.append(f"{len(judges)} people judged: if their tastes differ, intervals of the ratings are too narrow")
    if len(matches) >= FEWEST and all(match.points == 0.5 for match in matches):
        found.append("every pair is a tie: these verdicts tell nothing apart")
    return found


def _by_length(about: Mapping[str, Any]) -> list[str]:
    """Of the verdicts, not of what the judge had in mind: what is better is often longer."""
    if about["n"] < FEWEST:
        return []
    longer = about["value"] > 0.5
    part, sure = (about["value"], about["ci"][0]) if longer else (1 - about["value"], 1 - about["ci"][1])
    if part <= SURELY or sure <= AT_LEAST:
        return []
    return [
        f"the verdicts go by length: the {'longer' if longer else 'shorter'} response, in {about['in']}, won "
        f"{part:.0%} of {about['n']:,} decided pairs; believe the rate at equal length, if any"
    ]


def best_of(completions: Sequence[Completion], scorer: Scorer, n: int) -> list[Completion]:
    """Of every n completions of a prompt the one that the scorer likes most: the first, among equals.

    Its meta says of how many it is the best, its own score, and those of all.
    """
    values = [score.value for score in score_all(scorer, completions)]
    assert len(values) % n == 0, "completions come n at a time"
    return [_best(completions[start : start + n], values[start : start + n]) for start in range(0, len(values), n)]


def _best(completions: Sequence[Completion], scores: Sequence[float]) -> Completion:
    best = max(range(len(scores)), key=lambda i: scores[i])
    found = {"best_of": len(scores), "score": scores[best], "scores": list(scores)}
    return replace(completions[best], meta={**completions[best].meta, **found})


def _told(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("value", "ci", "n")}


def _range(found: Mapping[str, Any]) -> str:
    low, high = found["ci"]
    return f"{low:.0%} to {high:.0%}"
