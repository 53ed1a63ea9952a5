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
from ..store import people as people_store
from .adjudicate import every_item
from .answers import FLAGS
from .assistance import HelpedGolds
from .leaderboard import Entries, ratings
from .tally import MOST, NONE, PAIR, ROLES, THUMBS, Tally, said, tally_of

KIND = "quality"  # the name of these figures in the store
FEWEST_SHARED = 30  # votes two people must share for a kappa of theirs
MOST_PAIRS = 45  # pairs of people that are shown: those who share most
MOST_JUDGES = 40  # of whom pairs are looked for: those who judged most
FEWEST = 20  # items a slice must have to be shown, judgements of a tenth in its curve
TENTHS = 10
STRENGTHS = ((0, 1.5, "about the same or slightly better"), (1.5, 2.5, "better"), (2.5, 9, "much better"))

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]


def compute(workspace: Workspace, collection: str, *, seed: int = 0) -> dict[str, Any]:
    """Every figure of a collection, from its judgements as they stand. Streams them: texts are not kept."""
    found = queue.collection(workspace.database, collection)
    keys: dict[str, Sequence[int]] = {}
    entries, golds, quarantined = Entries(), HelpedGolds(), set()
    for item in every_item(workspace, found.id):
        keys[item.id] = (item.key or {}).get("ranks", ())
        entries.add(item)
        golds.add(item)
        if item.state == "quarantined":
            quarantined.add(item.id)
    tally = tally_of(queue.current_judgements(workspace.database, found.id), keys, quarantined)
    if not len(tally):
        raise DataError(f"nobody has judged anything in '{found.name}' yet", "`trueup label` opens the app")
    numbers = {each["id"]: each["number"] for each in queue.guidelines(workspace.database, found.id)}
    versions = {version: numbers.get(name, 0) for name, version in tally.guidelines.items()}
    names = {artifact: name for name, artifact in workspace.names().items()}
    figures_of_all = describe(tally, versions, skips=_skips(workspace, found.id), seed=seed)
    board = ratings(tally, entries, _shared(tally), names)
    assistance = golds.figures(queue.current_judgements(workspace.database, found.id), seed=seed)
    return figures_of_all | {"leaderboard": board, "assistance": assistance}


def _skips(workspace: Workspace, collection: str) -> dict[str, int]:
    """Judge -> items they skipped and did not come back to."""
    judges = {each.id: each.judge for each in people_store.people(workspace.database)}
    counts = queue.counts(workspace.database, collection)["people"]
    return {judges[person]: each["skipped"] for person, each in counts.items() if each["skipped"]}


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


def describe(
    tally: Tally, versions: Mapping[int, int], *, skips: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, Any]:
    """`versions` maps the tally's number of a guideline to the number that people know it by."""
    work, shared = _work(tally), _shared(tally)
    names = list(tally.judges)
    axes = [name for name in tally.votes if name != PAIR]
    main = PAIR if PAIR in tally.votes or not axes else axes[0]  # of edits alone nothing agrees or differs
    votes = _votes(tally, main, shared)
    overall = _agreement(votes, main, seed)
    strengths = _strengths(tally, shared) if main == PAIR else None
    people = list(_judges(tally, main, votes, work, names, skips or {}))
    return {
        "n": len(tally),
        "measured_on": "pairs of completions" if main == PAIR else main,
        "counts": _counts(tally, work),
        "agreement": overall,
        "rankings": _rankings(tally, shared, seed),
        "cohen": [*_pairs_of_people(votes, strengths, names, seed)],
        "strength": _strength(strengths, seed),
        "axes": {axis: _agreement(_votes(tally, axis, shared), axis, seed) for axis in axes if axis != main},
        "flags": _flags(tally, work, seed),
        "undecided": _undecided(tally, work, seed),
        "edits": _edits(tally, seed),
        "slices": [*_slices(tally, main, shared, versions, seed)],
        "implied_accuracy": _implied(overall["percent_without_ties"]["value"]),
        "judges": people,
        "warnings": [*_warnings(overall, people)],
    }


def _work(tally: Tally) -> Mask:
    """The judgements that are the work itself: no checks, nothing shown again."""
    work: Mask = (tally["role"] <= ROLES.index("calibration")) & (tally["round"] == 0)
    return work


def _shared(tally: Tally) -> Mask:
    """What agreement is measured on: the work, without items in quarantine, which nothing will be made of."""
    aside = np.array([item in tally.quarantined for item in tally.items], dtype=bool)
    return _work(tally) & ~aside[tally["item"].astype(np.int64)] if aside.any() else _work(tally)


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
        "people": len(np.unique(tally["judge"])),
        **checks,
        "qualification": int((role == ROLES.index("qualification")).sum()),
        "repeats": int(again.sum()),
        "surplus": tally.surplus,
        "both_bad": tally.both_bad,
        "quarantined_items": len(tally.quarantined),
        "left_out_of_agreement": int((work & ~_shared(tally)).sum()),
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


def _rankings(tally: Tally, rows: Mask, seed: int) -> dict[str, Any] | None:
    """Kendall's tau-b of rankings of more than two completions; a place is one more than the better ones."""
    found = said(tally, PAIR, rows)
    first, second = np.divmod(found.unit % (MOST * MOST), MOST)
    k = int(second.max(initial=0)) + 1
    if k < 3:
        return None
    judged, row = np.unique(found.row, return_inverse=True)
    worse = np.where(found.value > 0, second, first)
    decided = (found.value != 0).astype(float)
    places = np.bincount(row * k + worse, decided, len(judged) * k).reshape(-1, k)
    placed = np.bincount(np.concatenate([row * k + first, row * k + second]), minlength=len(judged) * k)
    ranks = np.where(placed.reshape(-1, k) > 0, places, np.nan)
    item, judge = tally["item"][judged], tally["judge"][judged]
    return measures.kendall_tau_b(item, judge, ranks, seed=seed).to_json()


def _pairs_of_people(
    votes: Votes, strengths: Votes | None, names: Sequence[str], seed: int
) -> Iterator[dict[str, Any]]:
    """Cohen's kappa of every two people who share enough, those who share most first; with quadratic weights too where
    strength was asked for."""
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
            degree = None if strengths is None else measures.cohen_kappa(strengths.by(two), "quadratic", seed=seed)
            more = {} if degree is None else {"quadratic": degree.to_json()}
            yield {"judges": sorted(names[judge] for judge in two), **found.to_json(), **more}


def _strengths(tally: Tally, rows: Mask) -> Votes | None:
    """How much better, from -3 to 3, where strength was asked for."""
    level = tally["strength"]
    found = said(tally, PAIR, rows & (level >= 0))
    if not (level > 1).any() or not len(found.value):
        return None
    return Votes.of(found.unit, found.judge, found.value * level[found.row])


def _strength(votes: Votes | None, seed: int) -> dict[str, Any] | None:
    if votes is None:
        return None
    alpha = measures.krippendorff_alpha(votes, "interval", seed=seed)
    return alpha.to_json() | {"quadratic": measures.quadratic_kappa(votes, seed=seed).to_json()}


def _flags(tally: Tally, work: Mask, seed: int) -> dict[str, dict[str, Any]]:
    """Gwet's AC1 of each flag, raised anywhere in an item or not. Of all items, also those in quarantine: a flag of
    personal data is what put them there, and without them it would seem that nobody ever raises it."""
    raised = tally["flags"].astype(np.int64)[work]
    item, judge = tally["item"][work], tally["judge"][work]
    found = {}
    for place, flag in enumerate(FLAGS):
        said_so = raised >> place & 1
        votes = Votes.of(item, judge, said_so)
        found[flag] = measures.gwet_ac1(votes, seed=seed).to_json() | {"raised": int(said_so.sum())}
    return found


def _undecided(tally: Tally, work: Mask, seed: int) -> list[dict[str, Any]] | None:
    """How often nobody is much better, by tenths of the judgements in order of time: ties, and the weakest preference
    where strength was asked for. When models get better and more alike it grows, and judgements are worth less."""
    level = tally["strength"]
    if (work & (level >= 0)).any():
        row = np.flatnonzero(work & (level >= 0))
        weak = (level[row] <= (1 if (level > 1).any() else 0)).astype(float)
    else:
        found = said(tally, PAIR, work)
        row, weak = found.row, (found.value == 0).astype(float)
    if len(row) < TENTHS * FEWEST:
        return None
    order = np.argsort(tally["submitted"][row], kind="stable")
    tenths, before = np.array_split(order, TENTHS), 0
    curve = []
    for part in tenths:
        share = measures.mean_by_item(tally["item"][row[part]], weak[part], seed=seed).to_json()
        curve.append(share | {"first": before + 1, "last": before + len(part)})
        before += len(part)
    return curve


def _edits(tally: Tally, seed: int) -> dict[str, Any] | None:
    """How much of a completion people rewrote: the mean share of words, and how the shares are spread."""
    item, share = np.array(tally.edited, dtype=np.float64).reshape(-1, 2).T
    if not len(share):
        return None
    spread = {f"{q}%": float(np.quantile(share, q / 100)) for q in (10, 25, 50, 75, 90)}
    return measures.mean_by_item(item, share, seed=seed).to_json() | {"n": len(share), "quantiles": spread}


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


def _judges(
    tally: Tally, kind: str, votes: Votes, work: Mask, names: Sequence[str], skips: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """One entry a judge, those who judged most first; whoever only skipped comes last."""
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
        found["skips"] = _skipping(name, len(rows), skips, len(tally))
        answered = {what: each.to_json() for what, each in found.items() if each.n}
        yield {"judge": name, "n": len(rows), "reliability": reliable.get(name), **answered}

    for name in sorted(skips):
        if name not in tally.judges:
            alone = _skipping(name, 0, skips, len(tally)).to_json()
            yield {"judge": name, "n": 0, "reliability": None, "skips": alone}


def _skipping(name: str, judged: int, skips: Mapping[str, int], judgements: int) -> Finding:
    mine = skips.get(name, 0)
    return detectors.skip_rate(mine, judged, sum(skips.values()) - mine, judgements - judged, judge=name)


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
        "sequential": detectors.sequential_gold_test(
            (tally["right"][golds] == 1).tolist(), judge=name, false_fail=detectors.ALARM
        ),
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
