"""The arithmetic of `benchmarks gold`: from two curves of the win rate to one ratio of seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

THRESHOLDS = (0.55, 0.60, 0.65, 0.70, 0.75, 0.80)
IN_A_ROW = 2  # evaluations: one alone may be luck
Lap = Mapping[str, Any]  # of one evaluation its iteration, seconds and win rate


def reached(curve: Sequence[Lap], threshold: float) -> Lap | None:
    """The first evaluation at the threshold or above whose next one is so too."""
    for i in range(len(curve) - IN_A_ROW + 1):
        if all(lap["win_rate"] >= threshold for lap in curve[i : i + IN_A_ROW]):
            return curve[i]
    return None


def beside(ours: Sequence[Lap], theirs: Sequence[Lap]) -> list[dict[str, Any]]:
    """Each threshold: who got there, after how many iterations and seconds, and the ratio where both did."""
    found = []
    for threshold in THRESHOLDS:
        a, b = reached(ours, threshold), reached(theirs, threshold)
        row = {"threshold": threshold, "trueup": _told(a), "TRL": _told(b)}
        if a and b:
            row |= {name: b[key] / a[key] for name, key in (("ratio", "seconds"), ("iterations", "iteration"))}
        found.append(row)
    return found


def decided(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The highest threshold that both reached."""
    return next((row for row in reversed(rows) if "ratio" in row), None)


def over_worlds(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several worlds, each decided at its own threshold: the middle ratio, the smallest, the largest."""
    each = [row for world in found for done in world["rounds"] if (row := done["decided"])]
    ratios = sorted(row["ratio"] for row in each)
    seconds = {name: median(row[name]["seconds"] for row in each) for name in ("trueup", "TRL")} if each else {}
    return {"n": len(each), "ratios": ratios, "ratio": median(ratios) if each else None, "seconds": seconds}


def pooled(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The highest threshold that both reached in every round, and the middle one of the rounds' ratios there."""
    for rows in reversed(list(zip(*rounds, strict=True))):
        if all("ratio" in row for row in rows):
            ratios = [row["ratio"] for row in rows]
            return {"threshold": rows[0]["threshold"], "ratio": median(ratios), "ratios": ratios}
    return {"threshold": None, "ratio": None, "ratios": []}


def _told(lap: Lap | None) -> dict[str, Any] | None:
    return None if lap is None else {key: lap[key] for key in ("iteration", "seconds", "win_rate")}
