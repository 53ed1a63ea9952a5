"""What to ask next: at random, where the reward model is unsure, where several disagree, or spread out.

Whatever the strategy, a share of at least 20% is drawn at random, and from held-out prompts nothing else is: figures
about a reward model that are taken on what a strategy picked flatter or slander it. Every pick notes with what
probability it was to be picked, so that estimates can be weighted back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, nearest
from ..records import Prompt
from . import likeness

Strategy = Literal["random", "uncertainty", "disagreement", "diversity"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
RANDOM_SHARE = 0.2
SHARPNESS = 3.0  # how much the logarithm of the odds of being asked rises with a standard deviation of worth
LEAST = -5.0  # nothing is less than 1/150 as likely as the best: weights of 1 / probability have to stay usable

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """Something one could ask: completions of a prompt. Those of one prompt belong together."""

    prompt: Prompt
    texts: tuple[str, ...]
    heldout: bool = False


@dataclass(frozen=True)
class Pick:
    """A candidate by its place, and why it was picked."""

    candidate: int
    strategy: Strategy
    probability: float

    @property
    def why(self) -> dict[str, Any]:
        return {"strategy": self.strategy, "probability": round(self.probability, 8)}


def choose(
    candidates: Sequence[Candidate],
    n: int,
    strategy: Strategy,
    *,
    scores: Sequence[Sequence[Sequence[float]]] = (),
    random_share: float = RANDOM_SHARE,
    seed: int = 0,
) -> list[Pick]:
    """`n` candidates, fewer when there are fewer. `scores[m][c][k]` is scorer m's score of text k of candidate c.

    Random picks come from all candidates alike; the strategy then takes at most one candidate a prompt, from prompts
    that are not held out, and where there are too few prompts for it more is drawn at random. The order is mixed, so
    that whoever stops early has a fair share of both.
    """
    _check(strategy, random_share, len(scores), n)
    if strategy in ("uncertainty", "disagreement") and any(len(c.texts) < 2 for c in candidates):
        raise ConfigError(f"{strategy} compares completions, and some candidates have only one", "random or diversity")
    heldout = np.array([c.heldout for c in candidates], dtype=bool)
    aside, training = np.flatnonzero(heldout), np.flatnonzero(~heldout)
    n = min(n, len(candidates))
    if strategy == "random":
        aside, training, random_share = training[:0], np.arange(len(candidates)), 1.0
    n_aside = round(n * len(aside) / max(len(candidates), 1))
    n_random = int(np.ceil((n - n_aside) * random_share - 1e-9))
    value = _value(candidates, strategy, scores)
    while True:
        chance = np.random.default_rng(seed)
        picks = [*_at_random(aside, n_aside, chance), *_at_random(training, n_random, chance)]
        taken = {pick.candidate for pick in picks}
        left = [int(i) for i in training if int(i) not in taken]
        missed = 1 - n_random / max(len(training), 1)  # the probability of not being among the random ones
        found = _actively(candidates, left, n - len(picks), strategy, value, chance)
        picks += [Pick(each, strategy, probability * missed) for each, probability in found]
        if len(picks) == n:
            return [picks[i] for i in chance.permutation(n)]
        n_random += n - len(picks)


def _check(strategy: str, random_share: float, scorers: int, n: int) -> None:
    if strategy not in STRATEGIES:
        raise ConfigError(f"unknown strategy '{strategy}'{nearest(strategy, STRATEGIES)}", ", ".join(STRATEGIES))
    if not RANDOM_SHARE <= random_share <= 1:
        raise ConfigError(
            f"the random share is {random_share:g}: it must be from {RANDOM_SHARE:g} to 1",
            "only what was drawn at random can say how good a reward model is",
        )
    if strategy == "uncertainty" and scorers < 1:
        raise ConfigError("uncertainty needs a reward model", "name one with --reward")
    if strategy == "disagreement" and scorers < 2:
        raise ConfigError(
            f"disagreement needs several reward models, and was given {scorers}", "--reward for each, or an ensemble"
        )
    if n < 1:
        raise ConfigError(f"cannot choose {n} candidates", "ask for at least one")


def _at_random(places: NDArray[np.int64], n: int, chance: np.random.Generator) -> list[Pick]:
    n = min(n, len(places))
    return [Pick(int(i), "random", n / len(places)) for i in chance.permutation(places)[:n]]


def _actively(
    candidates: Sequence[Candidate],
    left: Sequence[int],
    n: int,
    strategy: Strategy,
    value: Values,
    chance: np.random.Generator,
) -> list[tuple[int, float]]:
    """At most one candidate a prompt, each with its probability."""
    by_prompt: dict[str, list[int]] = {}
    for i in left:
        by_prompt.setdefault(candidates[i].prompt.id, []).append(i)
    n = min(n, len(by_prompt))
    if n <= 0:
        return []
    groups = list(by_prompt.values())
    drawn = [_one_of(group, value, chance) for group in groups]
    if strategy == "diversity":
        texts = [candidates[group[0]].prompt.text for group in groups]
        return [(drawn[i][0], drawn[i][1] * share) for i, share in _one_each(texts, n, chance)]
    log_weight = np.array([value[candidate] for candidate, _ in drawn])
    return [(drawn[i][0], drawn[i][1] * share) for i, share in _weighted(log_weight, n, chance)]


def _one_of(group: Sequence[int], value: Values, chance: np.random.Generator) -> tuple[int, float]:
    """A candidate of one prompt, likelier the higher its value."""
    weight = np.exp(value[group] - value[group].max())
    share = weight / weight.sum()
    place = int(chance.choice(len(group), p=share))
    return group[place], float(share[place])


def _weighted(log_weight: Values, n: int, chance: np.random.Generator) -> list[tuple[int, float]]:
    """`n` places without replacement, by weight (Gumbel top-k), with the chance of each of having been among them.

    Given the threshold, the largest key that was not taken, each is in independently of the others, with the
    probability that its key exceeds the threshold: weighting by its inverse is unbiased (Kool et al. 2019).
    """
    if n == len(log_weight):
        return [(i, 1.0) for i in range(n)]
    keys = log_weight + chance.gumbel(size=len(log_weight))
    order = np.argsort(-keys, kind="stable")
    threshold = keys[order[n]]
    return [(int(i), float(-np.expm1(-np.exp(log_weight[i] - threshold)))) for i in order[:n]]


def _one_each(texts: Sequence[str], n: int, chance: np.random.Generator) -> list[tuple[int, float]]:
    """`n` texts far apart: k-means++ chooses centres, and one text is drawn from those nearest to each."""
    features = likeness.hashed_features(texts)
    centres = likeness.spread_out(features, n, chance)
    nearest_to = likeness.nearest_row(features, features[centres])
    nearest_to[centres] = np.arange(n)  # a copy of a centre must not leave the centre's own group empty
    members = [np.flatnonzero(nearest_to == place) for place in range(n)]
    return [(int(chance.choice(group)), 1 / len(group)) for group in members]


# --- what a strategy finds worth asking, as the logarithm of a weight


def _value(candidates: Sequence[Candidate], strategy: Strategy, scores: Sequence[Sequence[Sequence[float]]]) -> Values:
    if strategy in ("random", "diversity"):
        return np.zeros(len(candidates))
    raw = np.array([_worth(strategy, [each[c] for each in scores]) for c in range(len(candidates))])
    spread = float(raw.std())
    return np.zeros(len(raw)) if spread == 0 else np.maximum(SHARPNESS * (raw - raw.max()) / spread, LEAST)


def _worth(strategy: Strategy, scores: Sequence[Sequence[float]]) -> float:
    """The mean over all pairs of a candidate's texts."""
    table = np.asarray(scores, dtype=float)  # scorers x texts
    first, second = np.triu_indices(table.shape[1], 1)
    margins = table[:, first] - table[:, second]
    worth = entropy(margins.mean(axis=0)) if strategy == "uncertainty" else disagreement(margins)
    return float(worth.mean())


def entropy(margin: Values) -> Values:
    """Of the vote that a margin predicts, in nats: highest at 0, where the scores tie."""
    p = 1 / (1 + np.exp(-np.clip(margin, -500, 500)))
    q = 1 - p
    return -(
        np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0) + np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0)
    )


def disagreement(margins: Values) -> Values:
    """What a vote would tell about which scorer is right (BALD): entropy of the mean vote less the mean entropy.

    Unlike the entropy it is low where all agree that it is a toss-up. `margins` is scorers x pairs.
    """
    p = 1 / (1 + np.exp(-np.clip(margins, -500, 500)))
    mean = np.clip(p.mean(axis=0), 1e-12, 1 - 1e-12)
    found: Values = entropy(np.log(mean / (1 - mean))) - entropy(margins).mean(axis=0)
    return found
