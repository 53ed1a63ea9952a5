"""How far the judgements of a collection can be trusted: agreement, and what stands out about single judges.

Computed in a run and kept (`figures.keep`), so that a page opens from stored figures and can say how old they are.
It warns and never deletes: leaving weak judges out has been seen to make reward models worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..stats import agreement as measures
from ..stats import judges as detectors
from ..stats.aggregation import dawid_skene, majority
from ..stats.agreement import Agreement, Votes
from ..stats.judges import Finding
from ..stats.planning import accuracy_from_agreement
from ..store import Workspace, figures, queue
from .adjudicate import every_item
from .tally import NONE, PAIR, ROLES, THUMBS, Tally, said, tally_of

KIND = "quality"  # the name of these figures in the store
FEWEST_SHARED = 30  # votes two people must share for a kappa of theirs
MOST_PAIRS = 45  # pairs of people that are shown: those who share most
MOST_JUDGES = 40  # of whom pairs are looked for: those who judged most
FEWEST = 20  # items a slice must have to be shown
STRENGTHS = ((0, 1.5, "about the same or slightly better"), (1.5, 2.5, "better"), (2.5, 9, "much better"))

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]


def compute(workspace: Workspace, collection: str, *, seed: int = 0) -> dict[str, Any]:
    """Every figure of a collection, from its judgements as they stand. Streams them: texts are not kept."""
    found = queue.collection(workspace.database, collection)
    keys = {item.id: (item.key or {}).get("ranks", ()) for item in every_item(workspace, found.id)}
    tally = tally_of(queue.current_judgements(workspace.database, found.id), keys)
    if not len(tally):
        raise DataError(f"nobody has judged anything in '{found.name}' yet", "`trueup label` opens the app")
    numbers = {each["id"]: each["number"] for each in queue.guidelines(workspace.database, found.id)}
    return describe(tally, {version: numbers.get(name, 0) for name, version in tally.guidelines.items()}, seed=seed)


def keep(workspace: Workspace, collection: str, value: Mapping[str, Any], now: float) -> None:
    figures.keep(workspace.database, collection, KIND, value, value["n"], now)


def summary(workspace: Workspace, collection: str, now: float) -> dict[str, Any] | None:
    """The stored figures with their age in seconds and how many judgements came since; None when there are none."""
    found = queue.collection(workspace.database, collection)
    stored = figures.latest(workspace.database, found.id, KIND)
    if stored is None:
        return None
    judged = queue.counts(workspace.database, found.id)["judgements"]
    return stored | {"age": max(0.0, now - stored["made"]), "since": max(0, judged - stored["n"])}


def describe(tally: Tally, versions: Mapping[int, int], *, seed: int = 0) -> dict[str, Any]:
    """`versions` maps the tally's number of a guideline to the number that people know it by."""
    work = _work(tally)
    names = list(tally.judges)
    axes = [name for name in tally.votes if name != PAIR]
    main = PAIR if PAIR in tally.votes or not axes else axes[0]  # of edits alone nothing agrees or differs
    votes = _votes(tally, main, work)
    overall = _agreement(votes, main, seed)
    people = list(_judges(tally, main, votes, work, names))
    return {
        "n": len(tally),
        "measured_on": "pairs of completions" if main == PAIR else main,
        "counts": _counts(tally, work),
        "agreement": overall,
        "cohen": [*_pairs_of_people(votes, names, seed)],
        "strength": _strength(tally, votes_of=work, seed=seed) if main == PAIR else None,
        "axes": {axis: _agreement(_votes(tally, axis, work), axis, seed) for axis in axes if axis != main},
        "slices": [*_slices(tally, main, work, versions, seed)],
        "implied_accuracy": _implied(overall["percent_without_ties"]["value"]),
        "judges": people,
        "warnings": [*_warnings(overall, people)],
    }


def _work(tally: Tally) -> Mask:
    """The judgements that are the work itself: no checks, nothing shown again."""
    work: Mask = (tally["role"] <= ROLES.index("calibration")) & (tally["round"] == 0)
    return work


def _votes(tally: Tally, kind: str, rows: Mask) -> Votes:
    """As the measures take them; the pairs of one ranking are redrawn together."""
    found = said(tally, kind, rows)
    alone = len(np.unique(found.unit)) == len(np.unique(found.item))
    return Votes.of(found.unit, found.judge, found.value, None if alone else found.item)


def _counts(tally: Tally, work: Mask) -> dict[str, int]:
    role, again = tally["role"], tally["round"] > 0
    checks = {f"{name}s": int(((role == ROLES.index(name)) & ~again).sum()) for name in ("gold", "control")}
    return {
        "work": int(work.sum()),
        "items": len(np.unique(tally["item"][work])),
        "people": len(tally.judges),
        **checks,
        "qualification": int((role == ROLES.index("qualification")).sum()),
        "repeats": int(again.sum()),
        "surplus": tally.surplus,
        "both_bad": tally.both_bad,
    }


# --- agreement


def _agreement(votes: Votes, kind: str, seed: int) -> dict[str, Any]:
    scale = {PAIR: "ordinal", THUMBS: "nominal"}.get(kind, "interval")
    found: dict[str, Agreement] = {
        "percent": measures.percent_agreement(votes, seed=seed),
        "percent_without_ties": measures.percent_agreement(votes, without=0.0 if kind == PAIR else 0.5, seed=seed),
        "alpha": measures.krippendorff_alpha(votes, "nominal", seed=seed),
        "fleiss": measures.fleiss_kappa(votes, seed=seed),
    }
    if scale != "nominal":
        found[f"alpha_{scale}"] = measures.krippendorff_alpha(votes, scale, seed=seed)  # type: ignore[arg-type]
    return {name: each.to_json() for name, each in found.items()}


def _pairs_of_people(votes: Votes, names: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    """Cohen's kappa of every two people who share enough, those who share most first."""
    busiest = np.argsort(-np.bincount(votes.judge, minlength=len(names)), kind="stable")[:MOST_JUDGES]
    unit, number = np.unique(votes.item, return_inverse=True)
    seen = np.zeros((len(busiest), len(unit)), dtype=np.float32)
    for row, judge in enumerate(busiest):
        seen[row, number[votes.judge == judge]] = 1
    shared = np.triu(seen @ seen.T, 1)
    ranked = np.argsort(-shared, axis=None, kind="stable")[:MOST_PAIRS]
    for a, b in (divmod(int(place), len(busiest)) for place in ranked):
        if shared[a, b] >= FEWEST_SHARED:
            two = (int(busiest[a]), int(busiest[b]))
            found = measures.cohen_kappa(votes.by(two), seed=seed)
            yield {"judges": sorted(names[judge] for judge in two), **found.to_json()}


def _strength(tally: Tally, *, votes_of: Mask, seed: int) -> dict[str, Any] | None:
    """Agreement on how much better, from -3 to 3, where strength was asked for."""
    level = tally["strength"]
    found = said(tally, PAIR, votes_of & (level >= 0))
    if not (level > 1).any() or not len(found.value):
        return None
    votes = Votes.of(found.unit, found.judge, found.value * level[found.row])
    return measures.krippendorff_alpha(votes, "interval", seed=seed).to_json()


def _slices(tally: Tally, kind: str, work: Mask, versions: Mapping[int, int], seed: int) -> Iterator[dict[str, Any]]:
    """Agreement where it may differ: by how much lengths differ, how strong the preference, which guideline."""
    for name, label, rows in (
        *_by_length(tally, work),
        *_by_strength(tally, work),
        *_by_version(tally, work, versions),
    ):
        votes = _votes(tally, kind, rows)
        percent = measures.percent_agreement(votes, seed=seed)
        if percent.n_items >= FEWEST:
            alpha = measures.krippendorff_alpha(votes, "nominal", seed=seed)
            yield {"slice": name, "value": label, "percent": percent.to_json(), "alpha": alpha.to_json()}


def _by_length(tally: Tally, work: Mask) -> Iterator[tuple[str, str, Mask]]:
    gap = tally["gap"]
    known = work & (gap != NONE)
    if not known.any():
        return
    edges = np.unique(np.quantile(gap[known], [0, 1 / 3, 2 / 3, 1]).round())
    for low, high, last in zip(edges, edges[1:], edges[1:] == edges[-1], strict=False):
        inside = known & (gap >= low) & ((gap <= high) if last else (gap < high))
        yield "difference in length", f"{low:.0f} to {high if last else high - 1:.0f} words", inside


def _by_strength(tally: Tally, work: Mask) -> Iterator[tuple[str, str, Mask]]:
    """By the mean strength of all votes on the item: a property of the item, or each vote would choose its slice."""
    level = tally["strength"]
    known = work & (level >= 0)
    if not (level > 1).any():
        return
    item = tally["item"].astype(np.int64)
    votes = np.bincount(item[known], minlength=len(tally.items))
    mean = np.bincount(item[known], level[known], len(tally.items)) / np.maximum(votes, 1)
    for low, high, label in STRENGTHS:
        yield "strength of preference", label, known & (mean[item] >= low) & (mean[item] < high)


def _by_version(tally: Tally, work: Mask, versions: Mapping[int, int]) -> Iterator[tuple[str, str, Mask]]:
    if len(versions) > 1:
        for place, number in sorted(versions.items(), key=lambda pair: pair[1]):
            yield "guideline", f"version {number}" if number else "unknown", work & (tally["guideline"] == place)


def _implied(percent: float | None) -> float | None:
    """How often one judge is right, if errors were independent; nothing when people agree less than coins."""
    return None if percent is None or percent < 0.5 else accuracy_from_agreement(percent)


# --- people


@dataclass(frozen=True)
class _Yardsticks:
    """What every judge is compared with."""

    longer: Mask
    decided: Mask
    usual: float  # the share of the commonest answer of all


def _judges(tally: Tally, kind: str, votes: Votes, work: Mask, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One entry a judge, those who judged most first."""
    judge = tally["judge"].astype(np.int64)
    consensus = {f.judge: f for f in detectors.leave_one_out_agreement(votes, names)} if len(votes) else {}
    reliable = _reliability(votes, names, kind)
    controls, repeats = _controls(tally, kind), _repeats(tally, kind, len(names))
    sides = _Yardsticks(tally["longer"] == 1, work & (tally["longer"] != NONE), _commonest(tally, work))
    order = np.lexsort((tally["submitted"], judge))
    starts = np.searchsorted(judge[order], np.arange(len(names) + 1))
    for j in np.argsort(-np.bincount(judge, minlength=len(names)), kind="stable"):
        rows = order[starts[j] : starts[j + 1]]
        name = names[j]
        found = _alone(tally, rows, rows[work[rows]], name, sides)
        if name in consensus:
            found["consensus"] = consensus[name]
        same, n = repeats[j]
        found["consistency"] = detectors.self_consistency(int(same), int(n), judge=name)
        found["drift"] = detectors.drift(controls[j], judge=name)
        answered = {what: each.to_json() for what, each in found.items() if each.n}
        yield {"judge": name, "n": len(rows), "reliability": reliable.get(name), **answered}


def _alone(tally: Tally, rows: Rows, work: Rows, name: str, sides: _Yardsticks) -> dict[str, Finding]:
    """What can be said of a judge from their own rows, in order of time."""
    golds = rows[(tally["role"][rows] == ROLES.index("gold")) & (tally["right"][rows] != NONE)]
    first = tally["first"][work]
    first = first[first != NONE]
    decided = work[sides.decided[work]]
    longer, all_longer = int(sides.longer[decided].sum()), int((sides.longer & sides.decided).sum())
    timed = work[tally["seconds"][work] >= 0]
    return {
        "gold": detectors.gold_accuracy(int(tally["right"][golds].sum()), len(golds), judge=name),
        "position": detectors.position_bias(int(first.sum()), len(first), judge=name),
        "length": detectors.length_bias(
            longer, len(decided), all_longer - longer, int(sides.decided.sum()) - len(decided), judge=name
        ),
        "speed": detectors.speed(tally["seconds"][timed], tally["words"][timed], judge=name),
        "run": detectors.longest_run(tally["answer"][work].tolist(), judge=name, chance=sides.usual),
    }


def _commonest(tally: Tally, work: Mask) -> float:
    """How often the commonest answer is given, in display positions; a half at least, below 1."""
    _, counts = np.unique(tally["answer"][work], return_counts=True)
    return float(np.clip(counts.max(initial=0) / max(1, counts.sum()), 0.5, 0.98))


def _reliability(votes: Votes, names: Sequence[str], kind: str) -> dict[str, dict[str, Any]]:
    """Dawid-Skene, in item-fixed coordinates: how often each judge says what is most likely true."""
    if kind not in (PAIR, THUMBS) or not len(votes):
        return {}
    classes = votes.value + 1 if kind == PAIR else np.round(2 * votes.value)
    found = dawid_skene(Votes(votes.item, votes.judge, classes), 3, tolerance=1e-4, steps=200)
    counts = np.bincount(votes.judge, minlength=len(names))
    pairs = zip(found.judge, found.reliability, strict=True)
    return {names[judge]: {"value": float(value), "n": int(counts[judge])} for judge, value in pairs}


def _controls(tally: Tally, kind: str) -> list[list[bool]]:
    """For each judge whether they said of each control pair what most do, in order of time."""
    found = said(tally, kind, tally["role"] == ROLES.index("control"))
    agreed: list[list[bool]] = [[] for _ in tally.judges]
    if not len(found.value):
        return agreed
    most = majority(Votes.of(found.unit, found.judge, found.value))
    place = np.searchsorted(most.item, found.unit)
    for i in np.argsort(tally["submitted"][found.row], kind="stable"):
        if not most.tied[place[i]]:
            agreed[found.judge[i]].append(bool(found.value[i] == most.value[place[i]]))
    return agreed


def _repeats(tally: Tally, kind: str, judges: int) -> list[tuple[int, int]]:
    """For each judge how many of the answers to items shown again were the same, and how many came again."""
    again = tally["round"] > 0
    first, second = said(tally, kind, ~again), said(tally, kind, again)
    mine, later = (votes.unit * judges + votes.judge for votes in (first, second))
    shared, a, b = np.intersect1d(mine, later, return_indices=True)
    who = shared % judges
    same = first.value[a] == second.value[b]
    return list(zip(np.bincount(who, same, judges), np.bincount(who, minlength=judges), strict=True))


def _warnings(overall: Mapping[str, Any], people: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if overall["percent"]["value"] is None:
        yield f"agreement is undefined: {overall['percent']['why']}"
    for person in people:
        for what, found in person.items():
            if isinstance(found, dict) and found.get("warn"):
                yield f"{person['judge']}, {what}: {found['message']}"
