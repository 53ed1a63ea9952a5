"""Small worlds with a planted truth, drawn from a seed: who wins, what judges like, how a score climbs."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from trueup.evals.matches import Match
from trueup.records import Completion, Prompt
from trueup.stats.leaderboard import Contests

Floats = NDArray[np.float64]


def matches(rates: Sequence[float], votes: int, random: Random) -> list[Match]:
    """Pairs that the first side wins at the rate of their prompt, each judged by so many."""
    found = []
    for i, own in enumerate(rates):
        pair = Completion(Prompt.user(str(i)), "x"), Completion(Prompt.user(str(i)), "y")
        found += [Match(0, 1, *pair, float(random.random() < own), "j") for _ in range(votes)]
    return found


def rates_around(rate: float, prompts: int, random: Random) -> list[float]:
    """What people say of a prompt hangs together: each prompt has a rate of its own around the common one."""
    return [min(1.0, max(0.0, random.gauss(0, 0.25) + rate)) for _ in range(prompts)]


def mean_of_rates_around(rate: float) -> float:
    return float(np.clip(np.random.default_rng(0).normal(rate, 0.25, 200_000), 0, 1).mean())


def judged(
    n: int, better: float, per_length: float, seed: int, mean: float = 0.3, prompts: int | None = None
) -> tuple[Floats, Floats]:
    """Points of pairs in which A is `better` by so many logits at equal length, and how much longer it is, by `mean` of
    both on average."""
    random = np.random.default_rng(seed)
    shared = random.normal(0, 1, prompts or n)[np.arange(n) % (prompts or n)] if prompts else 0.0
    difference = np.clip(random.normal(mean, 0.25, n), -1, 1)
    chance = 1 / (1 + np.exp(-(better + per_length * difference + shared)))
    return (random.random(n) < chance).astype(float), difference


def contests(
    n: int = 4000,
    strength: Sequence[float] = (1.0, 0.3, -0.2, -1.1),
    *,
    ties: float = 0.0,
    length: float = 0.0,
    prompts: int = 500,
    judges: int = 8,
    habit: float = 0.0,
    seed: int = 0,
) -> Contests:
    """Votes by the model of ratings itself; `length` is the gain in log-odds of nothing but length, `habit` how much
    judges differ in what they like."""
    chance, strong = np.random.default_rng(seed), np.array(strength)
    first = chance.integers(0, len(strong), n)
    second = (first + chance.integers(1, len(strong), n)) % len(strong)
    prompt, judge = chance.integers(0, prompts, n), chance.integers(0, judges, n)
    longer = chance.uniform(-0.6, 0.6, n)
    likes = chance.normal(0, habit, (judges, len(strong)))
    gap = strong[first] - strong[second] + length * longer + likes[judge, first] - likes[judge, second]
    points = (chance.random(n) < 1 / (1 + np.exp(-gap))).astype(float)
    points[chance.random(n) < ties] = 0.5
    return Contests(first, second, points, prompt, judge, longer)


# --- a climb

DISTANCE = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5])
STEPS = [0, 10, 20, 30, 40, 50, 60, 70]
A, B = 2.0, 1.6
PEAK = float(np.exp(A / B - 1))  # 1.28


def law(d: Floats) -> Floats:
    return d * A - B * np.where(d > 0, d * np.log(np.where(d > 0, d, 1.0)), 0.0)


def climb(seed: int, prompts: int = 120, noise: float = 0.5) -> tuple[Floats, dict[str, Floats]]:
    """KL and scores: a proxy that rises for ever, gold that follows the law; each prompt has a level of its own."""
    random = np.random.default_rng(seed)
    kl = DISTANCE[:, None] ** 2 * random.gamma(25, 1 / 25, prompts)
    level = random.normal(0, 1, prompts)
    gold = law(DISTANCE)[:, None] + level + random.normal(0, noise, (len(DISTANCE), prompts))
    proxy = 1.5 * DISTANCE[:, None] + level + random.normal(0, noise, (len(DISTANCE), prompts))
    return kl, {"proxy": proxy, "gold": gold}
