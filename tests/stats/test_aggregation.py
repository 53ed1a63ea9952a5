"""Aggregators against choix, crowd-kit, SciPy's optimiser and sums over all orders."""

from __future__ import annotations

from itertools import combinations, permutations
from math import log

import choix
import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import MACE, DawidSkene, MajorityVote, NoisyBradleyTerry, OneCoinDawidSkene
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from trueup.records import Judgement, Prompt
from trueup.stats import (
    Votes,
    bradley_terry,
    crowd_bradley_terry,
    dawid_skene,
    mace,
    majority,
    one_coin,
    plackett_luce,
    soft_target,
    three_most_similar,
)

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.PandasChangeWarning")  # crowd-kit is older than pandas 3
few = settings(max_examples=40, deadline=None)


def crowd(seed: int, accuracies: list[float], items: int = 200, classes: int = 2, seen: float = 1.0):
    """Votes of judges who are right that often, and the truth."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, items)
    rows = [
        (i, j, truth[i] if random.random() < right else (truth[i] + random.integers(1, classes)) % classes)
        for i in range(items)
        for j, right in enumerate(accuracies)
        if random.random() < seen
    ]
    return Votes.of(*zip(*rows, strict=True)), truth


def frame(votes: Votes) -> pd.DataFrame:
    return pd.DataFrame({"task": votes.item, "worker": votes.judge, "label": votes.value.astype(int)})


# Majorities and soft targets


@few
@given(st.integers(0, 10_000))
def test_majority_by_counting(seed):
    votes, _ = crowd(seed, [0.7] * 4, items=20, classes=3, seen=0.6)
    found = majority(votes)
    for item, value, tied, share, n in zip(found.item, found.value, found.tied, found.share, found.n, strict=True):
        said = votes.value[votes.item == item].tolist()
        most = max(said.count(x) for x in said)
        leaders = {x for x in said if said.count(x) == most}
        assert n == len(said) and share == pytest.approx(most / n) and tied == (len(leaders) > 1)
        assert np.isnan(value) if tied else {value} == leaders
    assert sorted(found.item) == sorted(set(votes.item.tolist()))


def test_majority_does_not_depend_on_who_came_first():
    assert majority(Votes.of([5, 5], [0, 1], [1, -1])).tied.tolist() == [True]
    assert majority(Votes.of([5, 5], [0, 1], [-1, 1])).tied.tolist() == [True]
    assert majority(Votes.of([5, 5, 5], [0, 1, 2], [1, -1, -1])).value.tolist() == [-1]
    assert len(majority(Votes.of([], [], [])).item) == 0


def test_majority_is_crowd_kits_where_nothing_is_tied():
    votes, _ = crowd(1, [0.8, 0.7, 0.6], items=300, classes=2)
    theirs = MajorityVote().fit_predict(frame(votes))
    assert majority(votes).value.tolist() == theirs.sort_index().tolist()


def test_soft_targets():
    assert soft_target(2, 0, 3, a=0) == pytest.approx(2 / 3)
    assert soft_target(1, 1, 2, a=0) == pytest.approx(0.75)
    assert soft_target([1, 0, 0], [0, 1, 0], [1, 1, 0]).tolist() == [0.75, 0.5, 0.5]
    assert soft_target(0, 0, 0, a=0) == 0.5
    with pytest.raises(AssertionError):
        soft_target(3, 0, 2)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.floats(0, 5))
def test_a_soft_target_and_its_mirror_sum_to_one(wins, ties, losses, a):
    n = wins + ties + losses
    assert soft_target(wins, ties, n, a) + soft_target(losses, ties, n, a) == pytest.approx(1)


def test_three_most_similar_by_hand():
    """The rule of HelpSteer's data: three closest, their mean; too far apart, or too few, is no answer."""
    assert three_most_similar([3, 3, 2, -3, 0]) == pytest.approx(8 / 3)
    assert three_most_similar([1, 1, -3]) is None and three_most_similar([1, -1, 0]) == 0
    assert three_most_similar([2, 2]) is None and three_most_similar([]) is None
    assert three_most_similar([0, 1, 2, 3]) == 1.5, "two threes are as close: neither is preferred"


@given(st.lists(st.integers(-3, 3), max_size=6), st.randoms())
def test_three_most_similar_knows_no_order_and_no_side(values, random):
    found = three_most_similar(values)
    shuffled = random.sample(values, len(values))
    mirrored = three_most_similar([-value for value in shuffled])
    assert mirrored is None if found is None else mirrored == pytest.approx(-found)
    closest = min((max(three) - min(three) for three in combinations(values, 3)), default=9)
    assert (found is None) == (closest > 2)


# Strengths


@few
@given(st.integers(2, 7), st.integers(0, 10_000), st.sampled_from([0.02, 0.2, 2.0]))
def test_bradley_terry_is_choixs(n, seed, prior):
    random = np.random.default_rng(seed)
    games = [tuple(map(int, random.choice(n, 2, replace=False))) for _ in range(30)]
    theirs = choix.opt_pairwise(n, games, alpha=prior / 2, tol=1e-12)
    found = bradley_terry([(winner, loser, 1.0) for winner, loser in games], n, prior)
    gaps = np.subtract.outer(theirs, theirs)
    for component in found.components:
        for i, j in combinations(component, 2):
            assert found.value[i] - found.value[j] == pytest.approx(gaps[i, j], abs=1e-4)


@few
@given(st.integers(2, 6), st.integers(0, 10_000), st.sampled_from([0.01, 0.1, 5.0]))
def test_bradley_terry_with_soft_targets_is_the_maximum_of_its_likelihood(n, seed, prior):
    random = np.random.default_rng(seed)
    rows = [(*map(int, random.choice(n, 2, replace=False)), random.choice([0, 0.25, 0.5, 1])) for _ in range(20)]

    def loss(strength):
        gaps = np.array([strength[i] - strength[j] for i, j, _ in rows])
        targets = np.array([target for *_, target in rows])
        return (np.logaddexp(0, -gaps) + (1 - targets) * gaps).sum() + prior / 2 * (strength**2).sum()

    best = optimize.minimize(loss, np.zeros(n), tol=1e-12)
    found = bradley_terry(rows, n, prior)
    for component in found.components:
        members = list(component)
        assert found.value[members] == pytest.approx(best.x[members] - best.x[members].mean(), abs=2e-3)


def test_bradley_terry_by_hand():
    two = bradley_terry([(0, 1, 1.0)] * 75 + [(0, 1, 0.0)] * 25, 2, 1e-9)
    assert two.value[0] - two.value[1] == pytest.approx(log(3), abs=1e-5)
    assert bradley_terry([(0, 1, 0.75)] * 100, 2, 1e-9).value == pytest.approx(two.value)
    assert bradley_terry([(0, 1, 0.5)], 2).value.tolist() == [0, 0], "a tie is half a win for each"
    assert bradley_terry([], 3).value.tolist() == [0, 0, 0]


def test_never_beaten_is_not_infinite():
    """choix without regularisation fails here."""
    found = bradley_terry([(0, 1, 1.0), (1, 2, 1.0)] * 1000, 3, 1e-3)
    assert np.isfinite(found.value).all() and found.value[0] > found.value[1] > found.value[2]
    with pytest.raises(AssertionError):
        bradley_terry([(0, 1, 1.0)], 2, 0.0)


def test_components_are_said():
    found = bradley_terry([(4, 2, 1.0), (0, 1, 1.0), (2, 5, 0.0)], 6)
    assert found.components == ((2, 4, 5), (0, 1), (3,)) and not found.connected
    for component in found.components:
        assert found.value[list(component)].mean() == pytest.approx(0, abs=1e-12)
    chain = bradley_terry([(i, i + 1, 1.0) for i in reversed(range(50))], 51)
    assert chain.connected and chain.components == (tuple(range(51)),)


@few
@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_names_of_items_do_not_matter(seed, names):
    random = np.random.default_rng(seed)
    rows = [(*map(int, random.choice(5, 2, replace=False)), float(random.integers(0, 2))) for _ in range(15)]
    found, renamed = bradley_terry(rows, 5), bradley_terry([(names[i], names[j], t) for i, j, t in rows], 5)
    assert renamed.value[list(names)] == pytest.approx(found.value, abs=1e-8)
    mirrored = bradley_terry([(j, i, 1 - t) for i, j, t in rows], 5)
    assert mirrored.value == pytest.approx(found.value, abs=1e-8)


@few
@given(st.integers(3, 6), st.integers(0, 10_000), st.sampled_from([0.02, 0.5]))
def test_plackett_luce_is_choixs(n, seed, prior):
    random = np.random.default_rng(seed)
    rankings = [tuple(random.permutation(n)[: random.integers(2, n + 1)].tolist()) for _ in range(15)]
    theirs = choix.opt_rankings(n, rankings, alpha=prior / 2, tol=1e-12)
    found = plackett_luce([[(item,) for item in ranking] for ranking in rankings], n, prior)
    gaps = np.subtract.outer(theirs, theirs)
    for component in found.components:
        for i, j in combinations(component, 2):
            assert found.value[i] - found.value[j] == pytest.approx(gaps[i, j], abs=1e-4)


def orders(ranking: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """All strict rankings that a ranking with ties stands for."""
    if not ranking:
        return [()]
    return [(*head, *tail) for head in permutations(ranking[0]) for tail in orders(ranking[1:])]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_a_tie_is_the_mean_over_its_orders(seed):
    random = np.random.default_rng(seed)
    rankings = []
    for _ in range(6):
        places = random.integers(1, 4, 5)
        rankings.append([tuple(np.flatnonzero(places == p).tolist()) for p in sorted(set(places))])

    def loss(strength):
        total = 0.0
        for ranking in rankings:
            likelihoods = []
            for order in orders(ranking):
                rest = [np.logaddexp.reduce(strength[list(order[at:])]) for at in range(len(order))]
                likelihoods.append(strength[list(order)].sum() - np.sum(rest))
            total -= np.mean(likelihoods)
        return total + 0.1 / 2 * (strength**2).sum()

    best = optimize.minimize(loss, np.zeros(5), tol=1e-10)
    assert plackett_luce(rankings, 5, 0.1).value == pytest.approx(best.x - best.x.mean(), abs=1e-3)


def test_rankings_of_two_are_pairs():
    ranking = Judgement(Prompt.user("p"), ("a", "b"), (1, 2), "j", "human")
    tie = Judgement(Prompt.user("p"), ("a", "b"), (1, 1), "j", "human")
    pairs = [*ranking.pairs(), *tie.pairs()]
    assert plackett_luce([[(0,), (1,)], [(0, 1)]], 2).value == pytest.approx(bradley_terry(pairs, 2).value)
    assert plackett_luce([], 2).components == ((0,), (1,))
    assert plackett_luce([[(0, 1, 2)]], 4).components == ((0, 1, 2), (3,))


# Reliability


ALL_STEPS = -np.inf  # crowd-kit's own rule stops as soon as its bound falls, which is not convergence


@pytest.mark.parametrize(("seed", "classes", "steps"), [(0, 2, 1), (1, 3, 4), (2, 2, 12)])
def test_dawid_skene_goes_crowd_kits_way_step_by_step(seed, classes, steps):
    votes, _ = crowd(seed, [0.9, 0.8, 0.75, 0.6, 0.7], items=120, classes=classes, seen=0.9)
    theirs = DawidSkene(n_iter=steps, tol=ALL_STEPS).fit(frame(votes))
    found = dawid_skene(votes, classes, smoothing=0, tolerance=0, steps=steps)
    assert found.steps == steps and not found.converged
    assert found.posterior == pytest.approx(theirs.probas_.sort_index()[list(range(classes))].to_numpy(), abs=1e-8)
    fitted = dawid_skene(votes, classes, smoothing=0, tolerance=0, steps=steps + 1)  # they fit once more at the end
    expected = [[[theirs.errors_.loc[(j, d), c] for d in range(classes)] for c in range(classes)] for j in range(5)]
    assert fitted.confusion == pytest.approx(np.array(expected), abs=1e-8)
    assert fitted.prior == pytest.approx(theirs.priors_.sort_index().to_numpy(), abs=1e-8)


@pytest.mark.parametrize(("seed", "classes", "steps"), [(3, 2, 1), (4, 3, 4), (5, 2, 12)])
def test_one_coin_goes_crowd_kits_way_step_by_step(seed, classes, steps):
    votes, _ = crowd(seed, [0.9, 0.8, 0.75, 0.6, 0.7], items=120, classes=classes, seen=0.9)
    theirs = OneCoinDawidSkene(n_iter=steps, tol=ALL_STEPS).fit(frame(votes))
    found = one_coin(votes, classes, smoothing=0, tolerance=0, steps=steps)
    assert found.posterior == pytest.approx(theirs.probas_.sort_index()[list(range(classes))].to_numpy(), abs=1e-8)
    fitted = one_coin(votes, classes, smoothing=0, tolerance=0, steps=steps + 1)
    assert fitted.reliability == pytest.approx(theirs.skills_.sort_index().to_numpy(), abs=1e-8)


@few
@given(st.integers(0, 10_000), st.sampled_from([dawid_skene, one_coin]))
def test_where_it_stops_it_would_stay(seed, model):
    votes, _ = crowd(seed, [0.9, 0.8, 0.75, 0.6, 0.7], items=60)
    found = model(votes, 2, tolerance=1e-10, steps=20_000)
    assert found.converged
    further = model(votes, 2, tolerance=0, steps=found.steps + 200)
    assert further.posterior == pytest.approx(found.posterior, abs=1e-5)


def test_one_coin_ranks_judges_as_mace_does():
    """MACE has another model (a judge guesses or knows); it sees the same order."""
    votes, _ = crowd(3, [0.95, 0.85, 0.75, 0.65, 0.5], items=400)
    theirs = MACE(n_restarts=3, random_state=0).fit(frame(votes))
    knows = theirs.spamming_[:, 1] if theirs.spamming_[0, 1] > theirs.spamming_[-1, 1] else theirs.spamming_[:, 0]
    assert np.argsort(-knows).tolist() == np.argsort(-one_coin(votes, 2).reliability).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("model", [dawid_skene, one_coin])
def test_reliability_is_found_and_beats_the_majority(model):
    accuracies = [0.95, 0.95, 0.55, 0.5, 0.55]
    votes, truth = crowd(7, accuracies, items=1000)
    found = model(votes, 2)
    assert found.reliability == pytest.approx(accuracies, abs=0.05)
    assert (found.answer == truth).mean() > (majority(votes).value == truth).mean() + 0.05
    assert found.posterior.sum(1) == pytest.approx(1) and found.item.tolist() == list(range(1000))


def test_smoothing_keeps_a_judge_of_three_votes_from_being_infallible():
    votes, _ = crowd(8, [0.9, 0.9, 0.9], items=50)
    new = Votes.of([*votes.item, 0, 1, 2], [*votes.judge, *[9] * 3], [*votes.value, *majority(votes).value[:3]])
    assert one_coin(new, 2, smoothing=0).reliability[3] > 0.99
    assert one_coin(new, 2).reliability[3] == pytest.approx(3.5 / 4, abs=0.02)
    assert one_coin(new, 2).judge.tolist() == [0, 1, 2, 9]


@few
@given(st.integers(0, 10_000), st.permutations(range(3)), st.permutations(range(5)))
def test_renaming_classes_and_judges_renames_the_answer(seed, classes, judges):
    votes, _ = crowd(seed, [0.9, 0.8, 0.7, 0.6, 0.8], items=60, classes=3)
    renamed = Votes(votes.item, np.array(judges)[votes.judge], np.array(classes, dtype=float)[votes.value.astype(int)])
    for model in (dawid_skene, one_coin):
        found, other = model(votes, 3), model(renamed, 3)
        assert other.posterior[:, list(classes)] == pytest.approx(found.posterior, abs=1e-6)
        assert other.reliability[list(judges)] == pytest.approx(found.reliability, abs=1e-6)


def test_in_display_positions_it_learns_who_likes_the_left():
    """Why votes are put back first: five lazy judges who press the left key look reliable as long as they are not."""
    random = np.random.default_rng(9)
    truth, shown_first = random.integers(0, 2, 400), random.integers(0, 2, (7, 400))
    good = np.where(random.random((2, 400)) < 0.9, truth, 1 - truth)  # in the item's coordinates
    lazy = shown_first[2:]  # whatever is shown first, in the item's coordinates
    said = np.vstack([good, lazy])
    item, judge = np.tile(np.arange(400), 7), np.repeat(np.arange(7), 400)
    put_back = dawid_skene(Votes.of(item, judge, said.ravel()), 2)
    as_shown = dawid_skene(Votes.of(item, judge, (said == shown_first).astype(int).ravel()), 2)
    assert put_back.reliability[:2].min() > 0.8 > put_back.reliability[2:].max() + 0.1
    assert as_shown.reliability[2:].min() > 0.95 > as_shown.reliability[:2].max() + 0.3


def test_three_hundred_thousand_votes_of_thirty_judges():
    random = np.random.default_rng(0)
    item = np.repeat(np.arange(100_000), 3)
    judge, truth = random.integers(0, 10, 300_000) + np.tile([0, 10, 20], 100_000), random.integers(0, 2, 100_000)
    value = np.where(random.random(300_000) < 0.8, truth[item], 1 - truth[item])
    found = one_coin(Votes.of(item, judge, value), 2)
    assert found.converged and found.reliability == pytest.approx(np.full(30, 0.8), abs=0.02)


# Habits, and judges of comparisons


class StartedFrom(MACE):
    """crowd-kit's, from a given start instead of the best of random ones. It takes labels and workers in the order in
    which they come in one place and sorted in another, so they have to come sorted."""

    def _initialize(self, n_workers, n_labels):
        self.spamming_, self.thetas_ = start


start: tuple[np.ndarray, np.ndarray]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_mace_arrives_crowd_kits_stays(seed):
    global start
    votes, _ = crowd(seed, [0.95, 0.85, 0.75, 0.65, 0.5], items=200, seen=0.9)
    found = mace(votes, 2, smoothing=0.01, tolerance=1e-12, steps=20_000)  # theirs is smoothed by 0.01
    knows = found.confusion[:, 1, 1] - found.confusion[:, 0, 1]
    habit = np.stack([found.confusion[:, 1, 0], found.confusion[:, 0, 1]], axis=1) / (1 - knows[:, None])
    start = np.stack([1 - knows, knows], axis=1), habit
    table = frame(votes).sort_values(["label", "worker", "task"])
    theirs = StartedFrom(n_restarts=1, n_iter=5, method="em").fit(table)
    assert found.posterior == pytest.approx(theirs.probas_.sort_index()[[0, 1]].to_numpy(), abs=1e-6)
    assert theirs.spamming_[:, 1] == pytest.approx(knows, abs=1e-6)
    start = np.full((5, 2), 0.5), np.full((5, 2), 0.5)
    from_the_middle = StartedFrom(n_restarts=1, n_iter=150, method="em").fit(table)
    assert np.argsort(from_the_middle.spamming_[:, 1]).tolist() == np.argsort(knows).tolist()


def test_mace_finds_who_presses_a_key_and_which():
    random = np.random.default_rng(5)
    truth = random.integers(0, 3, 1500)
    knows, habits = [0.9, 0.6, 0.0], [[0.2, 0.3, 0.5], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]
    said = [
        np.where(random.random(1500) < know, truth, random.choice(3, 1500, p=habit))
        for know, habit in zip([*knows, 0.7, 0.7], [*habits, habits[0], habits[0]], strict=True)
    ]
    votes = Votes.of(np.tile(np.arange(1500), 5), np.repeat(np.arange(5), 1500), np.concatenate(said))
    found = mace(votes, 3)
    assert found.converged and (found.answer == truth).mean() > 0.9 and found.prior.tolist() == [1 / 3] * 3
    for judge in range(3):
        expected = knows[judge] * np.eye(3) + (1 - knows[judge]) * np.array(habits[judge])
        assert found.confusion[judge] == pytest.approx(expected, abs=0.06)


def comparisons(seed, meant, n_items=12, votes=400, ties=0.0):
    """Rows of `crowd_bradley_terry`: judge k says what the strengths say with chance `meant[k]`, else the opposite."""
    random = np.random.default_rng(seed)
    strength = random.normal(0, 1.2, n_items)
    rows = []
    for judge, right in enumerate(meant):
        for _ in range(votes):
            i, j = random.choice(n_items, 2, replace=False).tolist()
            first = random.random() < 1 / (1 + np.exp(strength[j] - strength[i]))
            target = 0.5 if random.random() < ties else float(first == (random.random() < right))
            rows.append((i, j, target, judge))
    return rows, strength - strength.mean()


def test_crowd_bradley_terry_finds_strengths_and_who_means_them():
    meant = [0.98, 0.9, 0.9, 0.5, 0.15]
    rows, strength = comparisons(3, meant, votes=1500)
    found = crowd_bradley_terry(rows, 12)
    assert found.converged and found.judge.tolist() == [0, 1, 2, 3, 4]
    assert found.reliability == pytest.approx(meant, abs=0.05)
    assert found.strengths.value == pytest.approx(strength, abs=0.3)
    plain = bradley_terry([row[:3] for row in rows], 12)
    assert np.abs(found.strengths.value - strength).max() < np.abs(plain.value - strength).max() / 2


@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_crowd_bradley_terry_is_the_maximum_of_its_posterior(ties):
    """The likelihood written out with the prior, and SciPy's optimiser on it."""
    rows, _ = comparisons(4, [0.95, 0.8, 0.6], n_items=5, votes=60, ties=ties)
    i, j, target, judge = (np.array(column) for column in zip(*rows, strict=True))

    def loss(at):
        strength, right = at[:5], 1 / (1 + np.exp(-at[5:]))
        first = 1 / (1 + np.exp(strength[j] - strength[i]))
        one = right[judge] * first + (1 - right[judge]) * (1 - first)
        votes = target * np.log(one) + (1 - target) * np.log(1 - one)
        return -votes.sum() + 0.05 * (strength**2).sum() - (4 * np.log(right) + np.log(1 - right)).sum()

    best = optimize.minimize(loss, np.r_[np.zeros(5), np.ones(3)], tol=1e-12).x
    found = crowd_bradley_terry(rows, 5, tolerance=1e-9, steps=50_000)
    assert found.strengths.value == pytest.approx(best[:5] - best[:5].mean(), abs=1e-3)
    assert found.reliability == pytest.approx(1 / (1 + np.exp(-best[5:])), abs=1e-3)


def test_crowd_kits_noisy_bradley_terry_likes_our_answer():
    """Its model is the same where nobody has a side (bias 0) and nobody means the opposite: `reliability` r is its
    skill 2r - 1. Its own likelihood of our strengths is as good as that of its own."""
    rows, _ = comparisons(6, [0.97, 0.9, 0.75], n_items=8, votes=500)
    table = pd.DataFrame(
        [(f"w{k}", f"i{i}", f"i{j}", f"i{i if target else j}") for i, j, target, k in rows],
        columns=["worker", "left", "right", "label"],
    )
    theirs = NoisyBradleyTerry(n_iter=200).fit(table)
    found = crowd_bradley_terry(rows, 8, prior=1e-3, honest=(4e-3, 1e-3))
    i, j, target, judge = (np.array(column) for column in zip(*rows, strict=True))
    data = np.stack([i, j, np.where(target == 1, i, j)], axis=1) + 1

    def likelihood(strength, skill):
        x = np.r_[0.0, strength, np.zeros(3), np.log(skill / (1 - skill))]
        return -NoisyBradleyTerry._compute_log_likelihood(x, data, judge, 8, 3, 0.0)

    ours = likelihood(found.strengths.value, 2 * found.reliability - 1)
    score = np.array([theirs.scores_[f"i{item}"] for item in range(8)])
    skills = np.array([theirs.skills_[f"w{k}"] for k in range(3)]).clip(1e-6, 1 - 1e-6)
    assert ours >= likelihood(np.log(score / (1 - score)), skills) - 0.5
    assert np.corrcoef(score, 1 / (1 + np.exp(-found.strengths.value)))[0, 1] > 0.95


def test_judges_are_shared_by_components_and_components_are_said():
    """Two prompts that nothing joins: what a judge is worth on one counts on the other."""
    rows, _ = comparisons(7, [0.95, 0.9, 0.9, 0.15], n_items=6, votes=400)
    apart = [(6, 7, 1.0, 0), (6, 7, 1.0, 1), (6, 7, 0.0, 3)]
    found = crowd_bradley_terry([*rows, *apart], 9)
    assert found.strengths.components == (tuple(range(6)), (6, 7), (8,))
    assert found.strengths.value[8] == 0 and found.strengths.value[6] == -found.strengths.value[7]
    alone = crowd_bradley_terry([*rows, *apart[:2]], 9)
    assert found.strengths.value[6] > alone.strengths.value[6], "who is mostly wrong speaks for the first"


def test_many_small_comparisons_are_quick():
    random = np.random.default_rng(0)
    item = np.repeat(np.arange(20_000), 3)
    first = random.random(20_000)[item] < 0.5
    judge = random.integers(0, 20, 60_000)
    target = np.where(random.random(60_000) < 0.85, first, ~first).astype(float)
    found = crowd_bradley_terry(zip(2 * item, 2 * item + 1, target, judge, strict=True), 40_000)
    assert found.converged and len(found.strengths.components) == 20_000
    assert np.ptp(found.reliability) < 0.06


@few
@given(st.integers(0, 10_000), st.permutations(range(3)), st.permutations(range(5)))
def test_renaming_changes_nothing_for_mace(seed, classes, judges):
    votes, _ = crowd(seed, [0.9, 0.8, 0.7, 0.6, 0.8], items=60, classes=3)
    renamed = Votes(votes.item, np.array(judges)[votes.judge], np.array(classes, dtype=float)[votes.value.astype(int)])
    found, other = mace(votes, 3), mace(renamed, 3)
    assert other.posterior[:, list(classes)] == pytest.approx(found.posterior, abs=1e-6)
    assert other.reliability[list(judges)] == pytest.approx(found.reliability, abs=1e-6)
