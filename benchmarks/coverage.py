"""Do intervals hold the truth as often as they say? Worlds with a planted truth, drawn again and again.

    python -m benchmarks coverage --worlds 1000 [--only WORDS] [--json]

Each row is one kind of interval that trueup shows of an evaluation, at sizes that people have. World number i is drawn
from seed i. An interval that is called 95% should hold the truth in 93 to 97 of a hundred worlds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from random import Random
from typing import Any

import click
import numpy as np

from trueup.evals.compare import Comparison
from trueup.evals.measures import kl_of, surprise
from trueup.evals.overopt import overopt
from trueup.stats.intervals import clustered_mean, wilson
from trueup.stats.leaderboard import leaderboard
from trueup.stats.length_control import length_controlled
from trueup.stats.paired import change_of

from .worlds import PEAK, STEPS, A, B, climb, contests, judged, matches, mean_of_rates_around, rates_around

NOMINAL = (0.93, 0.97)
CAREFUL = (0.93, 0.99)  # a share near 0 or 1 cannot be met exactly: the interval is the wider one
FEW_JUDGES = (0.85, 0.97)  # three or five people do not show how far people differ, which is said where it is shown


@dataclass(frozen=True)
class Simulation:
    """`world(seed)` draws one and says of each of its intervals whether it held."""

    name: str
    world: Callable[[int], Sequence[bool]]
    bounds: tuple[float, float] = NOMINAL


def one_vote(rate: float, seed: int) -> list[bool]:
    return [_in(rate, Comparison(matches([rate] * 150, 1, Random(seed))).rate.ci)]


def three_votes(rate: float, seed: int) -> list[bool]:
    random = Random(seed)
    found = Comparison(matches(rates_around(rate, 120, random), 3, random))
    return [_in(_mean_around(rate), found.rate.ci)]


def equal_length(seed: int) -> list[bool]:
    return [_in(0.6, length_controlled(*judged(200, np.log(1.5), 2.0, seed)).ci)]


def ratings(judges: int, habit: float, seed: int) -> list[bool]:
    truth = _ratings_of_all(habit)
    found = leaderboard(contests(900, prompts=150, judges=judges, habit=habit, seed=seed)).ratings
    return [each.low <= truth[each.model] <= each.high for each in found]


def kl(seed: int) -> list[bool]:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    truth = 6 * float((p * np.log(p / q)).sum())
    drawn = np.random.default_rng(seed).choice(3, size=(40, 6), p=p)
    found = kl_of(np.log(p)[drawn].tolist(), np.log(q)[drawn].tolist(), [str(i) for i in range(40)])
    return [_in(truth, found["ci"])]


def other_text(seed: int) -> list[bool]:
    random = np.random.default_rng(seed)
    texts = ["x" * n for n in random.integers(5, 60, 50)]
    return [_in(2.0, surprise(random.normal(2.0, 0.5, 50), texts)["ci"])]


def refusals(then: float, more: float, fewer: float, seed: int) -> list[bool]:
    random = Random(seed)
    before = [random.random() < then for _ in range(80)]
    after = [(not random.random() < fewer) if was else random.random() < more for was in before]
    return [_in((1 - then) * more - then * fewer, change_of(before, after).ci)]


def band(prompts: int, seed: int) -> list[bool]:
    """Two completions a prompt, which hang together."""
    random = np.random.default_rng(seed)
    values = np.repeat(random.normal(size=prompts), 2) + 0.3 * random.normal(size=2 * prompts)
    return [_in(0.0, clustered_mean(values, np.repeat(np.arange(prompts), 2)).ci)]


def turning_point(seed: int) -> list[bool]:
    distances, scores = climb(seed, prompts=60)
    found = overopt(STEPS, distances, scores, seed=seed)["curves"]["gold"]["law"]
    low, high = found["peak_ci"]
    return [_in(A, found["a"]["ci"]), _in(B, found["b"]["ci"]), low <= PEAK and (high is None or high >= PEAK)]


SIMULATIONS = (
    *(Simulation(f"win rate of {r}, 150 prompts, one vote each", partial(one_vote, r)) for r in (0.3, 0.5, 0.9)),
    *(Simulation(f"win rate of {r}, 120 prompts, three votes each", partial(three_votes, r)) for r in (0.3, 0.5, 0.9)),
    Simulation("win rate at equal length, 200 pairs", equal_length),
    *(Simulation(f"ratings, 900 votes, {n} judge{'s' * (n > 1)}", partial(ratings, n, 0.0)) for n in (1, 5, 20)),
    Simulation("ratings, 900 votes, 20 judges of strong tastes", partial(ratings, 20, 0.5)),
    *(
        Simulation(f"ratings, 900 votes, {n} judges of strong tastes", partial(ratings, n, 0.5), FEW_JUDGES)
        for n in (5, 3)
    ),
    Simulation("KL of 40 prompts", kl),
    Simulation("surprise by 50 other texts", other_text),
    *(
        Simulation(f"change of refusals, {more:.0%} more and {fewer:.0%} fewer, 80 prompts",
                   partial(refusals, then, more, fewer), CAREFUL)
        for then, more, fewer in ((0.3, 0.2, 0.1), (0.05, 0.05, 0.5), (0.9, 0.5, 0.05))
    ),
    *(Simulation(f"band of a chart, {n} prompts of two completions", partial(band, n)) for n in (12, 64)),
    Simulation("law of over-optimisation, 60 prompts: a, b and peak", turning_point),
)  # fmt: skip


@click.command()
@click.option("--worlds", default=1000, show_default=True, type=click.IntRange(1), help="Of each kind.")
@click.option("--only", default="", metavar="WORDS", help="Kinds whose name holds these words.")
@click.option("--json", "as_json", is_flag=True)
def coverage(worlds: int, only: str, as_json: bool) -> None:
    """How often intervals hold a planted truth, kind by kind."""
    chosen = [each for each in SIMULATIONS if only in each.name]
    if not chosen:
        raise click.UsageError(f"no kind's name holds '{only}': " + "; ".join(each.name for each in SIMULATIONS))
    rows = []
    for each in chosen:
        rows.append(measured(each, [each.world(seed) for seed in range(worlds)]))
        click.echo(line(rows[-1]), err=as_json)
    if as_json:
        click.echo(json.dumps({"worlds": worlds, "rows": rows}, indent=1))


def measured(simulation: Simulation, held: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """The share that held, as a figure beside what was asked. Intervals of one world hang together, so worlds are what
    is counted."""
    flat, each = [one for world in held for one in world], len(held[0])
    ci = wilson(sum(flat), len(flat)) if each == 1 else clustered_mean(flat, np.repeat(np.arange(len(held)), each)).ci
    value, (least, most) = float(np.mean(flat)), simulation.bounds
    return {"name": simulation.name, "value": value, "target": f"{least:.0%} to {most:.0%}",
            "met": least <= value <= most, "ci": list(ci), "n": len(held)}  # fmt: skip


def line(row: Mapping[str, Any]) -> str:
    low, high = row["ci"]
    missed = "" if row["met"] else "  MISSED"
    return f"{row['name']:<58} {row['value']:.1%} [{low:.1%}, {high:.1%}], n={row['n']:,}  {row['target']}{missed}"


def _in(truth: float, ci: Sequence[float]) -> bool:
    low, high = ci
    return bool(low <= truth <= high)


@cache
def _mean_around(rate: float) -> float:
    return mean_of_rates_around(rate)


@cache
def _ratings_of_all(habit: float) -> tuple[float, ...]:
    """What all judges there could be would say, which is not the mean of the tastes of a few."""
    everybody = contests(300_000, prompts=100_000, judges=50_000, habit=habit, seed=99)
    return tuple(each.value for each in sorted(leaderboard(everybody).ratings, key=lambda each: each.model))
