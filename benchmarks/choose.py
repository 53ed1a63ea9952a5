"""Is choosing what to ask better than asking at random? On the simulated people of the built-in world.

    python -m benchmarks choose [--seeds 10] [--json]

A linear reward model on what `world.gold.describe` notices stands in for a language model: thousands of trainings in a
minute instead of days. It learns from votes of all five personas, taken in rounds: a strategy chooses the next pairs,
people vote, the model is fitted again. The same frozen test pairs, drawn at random, measure every strategy; its gain is
its accuracy less that of random choice with the same seed and as many votes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from trueup.feedback.choose import STRATEGIES, Candidate, Strategy, choose
from trueup.records import Completion
from trueup.stats import bootstrap_mean
from trueup.world import PERSONAS, World, demonstration, describe, vote_probability

POSTS, DRAFTS, TEST_POSTS = 150, 4, 300
ERROR = 0.25  # of the drafts: good and bad ones, so that there is something to learn
ROUND, ROUNDS = 20, 8
MEMBERS = 5  # of the ensemble
NEEDED: dict[Strategy, int] = {"random": 0, "uncertainty": 1, "disagreement": MEMBERS + 1, "diversity": 0}  # scorers
PENALTY = 0.3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Pairs of drafts: the difference of their features, and how likely a person takes the first."""

    candidates: list[Candidate]
    difference: Floats
    features: Floats  # pairs x 2 x features
    chance: Floats


def draw_pairs(seed: int, stream: str, posts: int, each: int) -> Pairs:
    chance = Random(f"{seed}/{stream}")
    candidates, features, votes = [], [], []
    for post in World(seed).posts(stream, posts):
        prompt = post.prompt()
        drafts = list(dict.fromkeys(demonstration(post, chance, ERROR) for _ in range(DRAFTS)))
        seen = {text: list(describe(prompt, text).parts().values()) for text in drafts}
        pairs = list(combinations(drafts, 2))
        for a, b in chance.sample(pairs, min(each, len(pairs))):
            candidates.append(Candidate(prompt, (a, b)))
            features.append([seen[a], seen[b]])
            one, other = Completion(prompt, a), Completion(prompt, b)
            votes.append(np.mean([vote_probability(persona, one, other) for persona in PERSONAS]))
    both = np.array(features)
    return Pairs(candidates, both[:, 0] - both[:, 1], both, np.array(votes))


def fit(difference: Floats, wins: Floats, weight: Floats | None = None) -> Floats:
    """Logistic regression with a quadratic penalty, by Newton's method."""
    n, k = difference.shape
    rows = np.ones(n) if weight is None else weight
    beta: Floats = np.zeros(k)
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(difference @ beta, -30, 30)))
        gradient = difference.T @ (rows * (wins - p)) - PENALTY * beta
        curvature = (difference * (rows * p * (1 - p))[:, None]).T @ difference + PENALTY * np.eye(k)
        step = np.linalg.solve(curvature, gradient)
        beta = beta + step
        if np.abs(step).max() < 1e-8:
            break
    return beta


def accuracy(beta: Floats, test: Pairs) -> float:
    """How often a vote goes as the model says, in expectation over the people."""
    margin = test.difference @ beta
    return float(np.where(margin > 0, test.chance, np.where(margin < 0, 1 - test.chance, 0.5)).mean())


def run(strategy: Strategy, seed: int, pool: Pairs, test: Pairs, rounds: int = ROUNDS) -> list[float]:
    """Accuracy after each round of votes. The first round is random, and the same for all strategies."""
    chance = np.random.default_rng(seed)
    voted = chance.random(len(pool.chance)) < pool.chance  # what would be said of each pair, whoever asks for it
    asked: list[int] = []
    curve = []
    for number in range(rounds):
        left = [i for i in range(len(pool.candidates)) if i not in set(asked)]
        candidates = [pool.candidates[i] for i in left]
        now = strategy if number else "random"
        scores = _scores(pool, asked, voted, left, seed + number) if number else []
        picks = choose(candidates, ROUND, now, scores=scores[: NEEDED[now]], seed=seed * 1000 + number)
        asked += [left[pick.candidate] for pick in picks]
        curve.append(accuracy(fit(pool.difference[asked], voted[asked].astype(float)), test))
    return curve


def _scores(pool: Pairs, asked: Sequence[int], voted: NDArray[Any], left: Sequence[int], seed: int) -> list[Any]:
    """The fitted model first, then members fitted on votes drawn again."""
    chance = np.random.default_rng(seed)
    wins = voted[asked].astype(float)
    weights = [None, *(chance.multinomial(len(asked), np.ones(len(asked)) / len(asked)) for _ in range(MEMBERS))]
    models = [fit(pool.difference[asked], wins, None if w is None else w.astype(float)) for w in weights]
    return [pool.features[left] @ beta for beta in models]


def compare(seeds: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """For each strategy its accuracy and its gain over random, with an interval over seeds, at each number of votes."""
    curves: dict[str, list[list[float]]] = {strategy: [] for strategy in STRATEGIES}
    best = []
    for seed in range(seeds):
        pool, test = draw_pairs(seed, "candidates", POSTS, 6), draw_pairs(seed, "heldout", TEST_POSTS, 1)
        best.append(float(np.maximum(test.chance, 1 - test.chance).mean()))
        for strategy in STRATEGIES:
            curves[strategy].append(run(strategy, seed, pool, test, rounds))
    random = np.array(curves["random"])
    found = {}
    for strategy, rows in curves.items():
        gains = np.array(rows) - random
        found[strategy] = [
            {
                "votes": ROUND * (number + 1),
                "accuracy": float(np.mean([row[number] for row in rows])),
                "gain": float(gains[:, number].mean()),
                "ci": list(bootstrap_mean(gains[:, number], seed=number)),
            }
            for number in range(rounds)
        ]
    return {"seeds": seeds, "ceiling": float(np.mean(best)), "strategies": found}


@click.command("choose")
@click.option("--seeds", type=click.IntRange(min=2), default=10, show_default=True, help="Worlds to average over.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of text.")
def choose_benchmark(seeds: int, as_json: bool) -> None:
    """What strategies of choosing pairs gain over asking at random, on simulated people."""
    found = compare(seeds)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['seeds']} seeds; the best possible model is right {found['ceiling']:.1%} of the time")
    print(f"{'strategy':<14}{'votes':>6}{'accuracy':>10}{'gain over random, points':>34}")
    for strategy, rows in found["strategies"].items():
        for row in rows[1::2]:
            gain, (low, high) = 100 * row["gain"], (100 * each for each in row["ci"])
            words = "" if strategy == "random" else f"{gain:+.2f} ({low:+.2f} to {high:+.2f})"
            print(f"{strategy:<14}{row['votes']:>6}{row['accuracy']:>10.1%}{words:>34}")


if __name__ == "__main__":
    choose_benchmark()
