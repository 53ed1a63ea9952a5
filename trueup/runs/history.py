"""A run over time, as a report tells it: metrics as columns, what completions were like at a step, and completions to
the same prompt before and after.

Much is kept of a long run. What is read of its samples is bounded: steps evenly from the first to the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..stats.diversity import repetition
from ..stats.intervals import clustered_mean, wilson
from .reading import evenly, is_number
from .run import Run

STEPS_READ = 200  # steps whose samples are read for their distributions
SHOWN = 48  # prompts of which completions are shown side by side
NEWEST = 6  # completions of the newest step that are shown while a run goes on
EACH = 8  # of these, of every kind that is looked for: risen most, fallen most, ...
SHARES = ("unfinished",)  # 0 or 1 a completion
LEVELS = {"p10": 0.1, "p50": 0.5, "p90": 0.9}

NOTHING: Mapping[str, Any] = {"of": "", "of_all": 0, "rows": []}

Columns = dict[str, list[Any]]


def columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Each metric at every logged step, None where it was not logged; `step` is one of them."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def distributions(run: Run, *, heldout: bool = False) -> dict[str, Columns]:
    """Of score, length, KL and whatever number else samples hold, and of what can be told from them, at each step that
    was read: mean with its 95% interval, median and outer tenths, how many completions and of how many prompts.

    Completions to one prompt hang together, so the interval is that of the prompts' means.
    """
    found: dict[str, Columns] = {}
    for step in evenly(run.sample_steps(heldout=heldout), STEPS_READ):
        rows = [row | _derived(row) for row in run.samples(step, heldout=heldout)]
        for name in dict.fromkeys(name for row in rows for name in row):
            known = [row for row in rows if is_number(row.get(name)) and not isinstance(row[name], bool)]
            if known:
                _append(found.setdefault(name, {}), {"step": step, **_spread(known, name)})
    return found


def _derived(row: Mapping[str, Any]) -> dict[str, float]:
    """As training logs them: whether it has no end, and, where its tokens were kept, how much it repeats itself."""
    found = {} if row.get("finished") is None else {"unfinished": float(not row["finished"])}
    return found | ({"repetition": repetition(row["tokens"])} if isinstance(row.get("tokens"), list) else {})


def side_by_side(run: Run, best_step: int | None = None, until: int | None = None) -> dict[str, Any]:
    """Completions to the same prompts at different times: of evaluations where there are two, else of rollouts. What
    came after the step `until` is left out.

    Which prompts: those whose completions differ most in what is measured, and evenly chosen ones.
    """
    heldout, rollouts = (
        [step for step in run.sample_steps(heldout=which) if until is None or step <= until] for which in (True, False)
    )
    if len(heldout) > 1:
        steps = sorted({heldout[0], *({best_step} & {*heldout} if best_step is not None else ()), heldout[-1]})
        return _chosen([_by_prompt(run, [step], heldout=True) for step in steps], "held-out prompts")
    early, late = _ends(rollouts)
    if not early:
        return dict(NOTHING)
    return _chosen([_by_prompt(run, early), _by_prompt(run, late[::-1])], "prompts of rollouts")


def of_now(run: Run) -> dict[str, Any]:
    """Some of the newest completions: of an evaluation if it is as new as the last rollout, evenly by their score."""
    newest = [(steps[-1], heldout) for heldout in (False, True) if (steps := run.sample_steps(heldout=heldout))]
    if not newest:
        return {"step": None, "of": "", "of_all": 0, "rows": []}
    step, heldout = max(newest)
    rows = run.samples(step, heldout=heldout)
    rows.sort(key=lambda row: -row["score"] if is_number(row.get("score")) else math.inf)
    of = "the last evaluation" if heldout else "the last rollout"
    return {"step": step, "of": of, "of_all": len(rows), "rows": evenly(rows, NEWEST)}


def both_ends(run_a: Run, run_b: Run) -> dict[str, Any]:
    """What two runs wrote to the same prompts at their last evaluation, or in their last rollouts."""
    for heldout, of in ((True, "held-out prompts"), (False, "prompts of rollouts")):
        steps = [run.sample_steps(heldout=heldout) for run in (run_a, run_b)]
        if all(steps):
            ends = zip((run_a, run_b), steps, strict=True)
            found = [_by_prompt(run, each[-1:], heldout=heldout) for run, each in ends]
            if {*found[0]} & {*found[1]}:
                return _chosen(found, of)
    return dict(NOTHING)


def _chosen(found: Sequence[Mapping[str, Any]], of: str) -> dict[str, Any]:
    common = [prompt for prompt in found[0] if all(prompt in each for each in found[1:])]
    if not common:  # nothing to compare with: what was written last, alone
        found, common = found[-1:], list(found[-1])
    rows = [{"prompt": prompt, "entries": [each[prompt] for each in found]} for prompt in common]
    kept = {row["prompt"]: row for row in evenly(rows, SHOWN - 4 * EACH)}
    for name, sign in (("score", 1), ("score", -1), ("length", 1), ("kl", 1)):
        known = [row for row in rows if all(is_number(entry.get(name)) for entry in row["entries"])]
        known.sort(key=lambda row: -sign * _grown(row["entries"], name))
        kept |= {row["prompt"]: row for row in known[:EACH]}
    shown = [row for row in rows if row["prompt"] in kept]
    return {"of": of, "of_all": len(rows), "rows": shown}


def _grown(entries: Sequence[Mapping[str, Any]], name: str) -> float:
    first = entries[0][name] if len(entries) > 1 else 0.0
    return float(entries[-1][name] - first)


def _by_prompt(run: Run, steps: Sequence[int], *, heldout: bool = False) -> dict[str, dict[str, Any]]:
    """Of each prompt the first completion that comes along, with its step."""
    found: dict[str, dict[str, Any]] = {}
    for step in steps:
        for row in run.samples(step, heldout=heldout):
            found.setdefault(row["prompt"], {"step": step, **row})
    return found


def _ends(steps: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """The first and the last steps of a run: a third of it each, but at most 20."""
    count = min(20, max(1, len(steps) // 3))
    return steps[:count], steps[-count:]


def _spread(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    values = np.array([row[name] for row in rows], dtype=float)
    mean = clustered_mean(values, [row["prompt"] for row in rows])
    low, high = ((end if math.isfinite(end) else None) for end in mean.ci)
    if name in SHARES and low is not None and high is not None:
        # none of a hundred is no proof of none: as far as either interval reaches, as in `stats.intervals.share`
        least, most = wilson(float(values.sum()), len(values))
        low, high = max(0.0, min(low, least)), min(1.0, max(high, most))
    tenths = {key: float(np.quantile(values, level)) for key, level in LEVELS.items()}
    prompts = len({row["prompt"] for row in rows})
    return {"mean": mean.value, "low": low, "high": high, **tenths, "n": mean.n, "prompts": prompts}


def _append(table: Columns, row: Mapping[str, Any]) -> None:
    for name, value in row.items():
        table.setdefault(name, []).append(value)
