"""Calibration against scikit-learn and SciPy, its null band against luck, and correlation inside clusters.

Figures to expect of a perfectly calibrated predictor with 15 bins: an error of 0.12 on 100 rows, 0.07 on 300, 0.04 on
1,000.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as oracle
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from statsmodels.stats.proportion import proportion_confint

from trueup.stats import calibration
from trueup.stats.within import ranks_within, within_pearson, within_spearman

few = settings(max_examples=60, deadline=None)


def perfect(n: int, seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Margins, and outcomes that come true exactly as often as they say."""
    random = np.random.default_rng(seed)
    margin = random.normal(size=n) * spread
    return margin, (random.random(n) < calibration.sigmoid(margin)).astype(float)


@few
@given(st.integers(5, 300), st.integers(0, 10_000))
def test_nll_brier_and_bins_are_those_of_scikit_learn(n, seed):
    margin, outcome = perfect(n, seed)
    p = calibration.sigmoid(margin)
    assert calibration.nll(margin, outcome) == pytest.approx(log_loss(outcome, p, labels=[0, 1]), rel=1e-9)
    assert calibration.brier(p, outcome) == pytest.approx(brier_score_loss(outcome, p), rel=1e-9)
    seen, predicted = calibration_curve(outcome, p, n_bins=15)
    found = calibration.reliability(p, outcome)
    assert [each.seen for each in found] == pytest.approx(list(seen))
    assert [each.predicted for each in found] == pytest.approx(list(predicted))
    weighted = sum(each.n * abs(each.seen - each.predicted) for each in found) / n
    assert calibration.ece(p, outcome) == pytest.approx(weighted) and sum(each.n for each in found) == n
    for each in found:
        assert each.ci == pytest.approx(proportion_confint(each.seen * each.n, each.n, method="wilson"), abs=1e-9)


def test_bins_of_equal_mass_hold_equally_many_and_keep_equal_predictions_together():
    margin, outcome = perfect(1500, 0)
    p = calibration.sigmoid(margin)
    found = calibration.reliability(p, outcome, mass=True)
    assert {each.n for each in found} == {100}
    by_hand = sum(
        abs(p[rows].mean() - outcome[rows].mean()) * len(rows) for rows in np.array_split(np.argsort(p), 15)
    ) / len(p)
    assert calibration.ece(p, outcome, mass=True) == pytest.approx(by_hand)
    assert len(calibration.reliability(np.full(40, 0.7), np.ones(40), mass=True)) == 1


def test_soft_targets_of_zero_and_one_are_hard_ones_and_margins_may_be_huge():
    assert calibration.nll([800.0, -800.0], [1, 0]) == 0.0 and calibration.nll([-800.0], [1]) == 800.0
    assert calibration.nll([0.3], [0.25]) == pytest.approx(
        -0.25 * math.log(1 / (1 + math.exp(-0.3))) - 0.75 * math.log(1 / (1 + math.exp(0.3)))
    )
    assert calibration.sigmoid([1000.0, -1000.0]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("n", "expected"), [(100, 0.123), (300, 0.073), (1000, 0.040)])
def test_a_perfect_predictor_shows_the_known_error_and_the_null_says_so(n, expected):
    shown = []
    for seed in range(60):
        p = np.random.default_rng(seed).random(n)
        outcome = (np.random.default_rng(1000 + seed).random(n) < p).astype(float)
        shown.append(calibration.ece(p, outcome))
    assert np.mean(shown) == pytest.approx(expected, abs=0.006)
    assert calibration.null(p, draws=300).mean == pytest.approx(np.mean(shown), abs=0.006)


def test_the_null_band_is_crossed_by_one_perfect_predictor_in_twenty():
    alarms, outside, bins = 0, 0, 0
    for seed in range(300):
        margin, outcome = perfect(250, seed)
        p = calibration.sigmoid(margin)
        null = calibration.null(p, draws=200, seed=seed)
        alarms += calibration.ece(p, outcome) > null.high
        for each, (low, high) in zip(calibration.reliability(p, outcome), null.bands, strict=True):
            outside += not low <= each.seen <= high
            bins += 1
    assert 4 <= alarms <= 28, "5% of 300, with room for three standard deviations"
    assert outside / bins < 0.06


def test_the_null_is_the_exact_distribution_of_one_bin():
    """Twenty rows of 0.5: the error is |k - 10| / 20 with k binomial."""
    null = calibration.null(np.full(20, 0.5), draws=4000)
    k = np.arange(21)
    assert null.mean == pytest.approx((oracle.binom.pmf(k, 20, 0.5) * np.abs(k - 10) / 20).sum(), abs=0.004)
    assert null.high in (0.2, 0.25)


@few
@given(st.integers(20, 400), st.integers(0, 10_000), st.floats(0.2, 8))
def test_the_temperature_is_the_likeliest_one(n, seed, factor):
    margin, outcome = perfect(n, seed, spread=1.5)
    margin = margin * factor
    right = (np.sign(margin) == np.sign(outcome - 0.5)).mean()
    found = calibration.fit_temperature(margin, outcome)
    best = optimize.minimize_scalar(
        lambda log_t: calibration.nll(margin / math.exp(log_t), outcome), bounds=(-9, 9), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    if 0.55 < right < 0.99:
        assert math.log(found) == pytest.approx(best.x, abs=1e-4)
    assert calibration.nll(margin / found, outcome) <= best.fun + 1e-9


def test_the_temperature_undoes_a_factor_on_rows_it_was_not_fitted_on():
    margin, outcome = perfect(20_000, 1)
    found = calibration.fit_temperature(3 * margin[::2], outcome[::2])
    assert found == pytest.approx(3, rel=0.1)
    p = calibration.sigmoid(3 * margin[1::2] / found)
    assert calibration.ece(p, outcome[1::2]) < calibration.null(p, draws=200).high
    raw = calibration.sigmoid(3 * margin[1::2])
    assert calibration.ece(raw, outcome[1::2]) > 3 * calibration.null(raw, draws=200).high


def test_a_temperature_without_a_best_one_stays_in_its_range():
    margin = np.array([1.0, -2.0, 0.5, -0.1])
    assert calibration.fit_temperature(margin, margin > 0) == pytest.approx(0.9e-4)
    assert calibration.fit_temperature(margin, margin < 0) == pytest.approx(0.9e4)
    assert calibration.fit_temperature(np.zeros(3), [1, 0, 1]) == 1.0


# Inside clusters


@few
@given(st.integers(3, 60), st.integers(0, 10_000))
def test_correlation_within_clusters_is_that_of_centred_values(n, seed):
    random = np.random.default_rng(seed)
    cluster = random.integers(0, max(2, n // 3), n)
    x, y = random.integers(0, 5, n).astype(float), random.normal(size=n)
    ranks = {"x": np.empty(n), "y": np.empty(n)}
    centred = {"x": x.copy(), "y": y.copy()}
    for name in np.unique(cluster):
        here = cluster == name
        for key, values in (("x", x), ("y", y)):
            ranks[key][here] = oracle.rankdata(values[here])
            centred[key][here] -= values[here].mean()
    assert ranks_within(x, cluster) == pytest.approx(ranks["x"])
    if min(np.ptp(centred["x"]), np.ptp(centred["y"])) > 1e-9:
        found = within_pearson(x, y, cluster, draws=50)
        assert found.value == pytest.approx(oracle.pearsonr(centred["x"], centred["y"]).statistic, abs=1e-9)
        by_rank = {key: values.copy() for key, values in ranks.items()}
        for name in np.unique(cluster):
            for values in by_rank.values():
                values[cluster == name] -= values[cluster == name].mean()
        assert within_spearman(x, y, cluster, draws=50).value == pytest.approx(
            oracle.pearsonr(by_rank["x"], by_rank["y"]).statistic, abs=1e-9
        )


def test_what_differs_between_prompts_only_is_no_correlation_within():
    cluster = np.repeat(np.arange(50), 2)
    found = within_pearson(cluster.astype(float), cluster * 2.0, cluster)
    assert found.value == 0.0 and found.ci == (-1.0, 1.0)


def test_the_interval_of_a_correlation_covers_it():
    covered = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        cluster = np.repeat(np.arange(120), 2)
        x = random.normal(size=240)
        y = 0.5 * x + math.sqrt(0.75) * random.normal(size=240) + np.repeat(random.normal(size=120), 2)
        low, high = within_pearson(x, y, cluster, draws=200, seed=seed).ci
        covered += low <= 0.5 <= high
    assert covered >= 87
