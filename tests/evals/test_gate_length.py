"""The gate's length condition goes by the interval: few pairs neither fail a model nor let it pass, by chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trueup.config.audit import AuditConfig
from trueup.evals.gate import CONDITIONS
from trueup.stats.within import within_pearson

CONFIG = AuditConfig()


def found(value: float, low: float, high: float, prompts: int = 100) -> dict[str, Any]:
    pearson = {"value": value, "ci": [low, high], "n": 2 * prompts}
    return {"length": {"pearson": pearson, "judges": 0.1}, "matched": 0, "pairs": prompts, "prompts": prompts}


def measured(prompts: int, slope: float, seed: int) -> dict[str, Any]:
    """Pairs whose scores go by length with this slope, and by much else."""
    random = np.random.default_rng(seed)
    length = random.normal(size=2 * prompts)
    score = slope * length + random.normal(size=2 * prompts)
    estimate = within_pearson(length, score, np.arange(2 * prompts) // 2)
    return found(estimate.value, *estimate.ci, prompts)


def met(about: dict[str, Any]) -> bool | None:
    return CONDITIONS["length"](about, CONFIG)[0]


@pytest.mark.parametrize(
    "about, verdict",
    [
        (found(0.1, 0.0, 0.2), True),
        (found(-0.1, -0.2, 0.0), True),
        (found(0.25, 0.15, 0.35), False),  # it may be more: as with accuracy, what is not shown does not hold
        (found(0.5, 0.4, 0.6), False),
        (found(-0.5, -0.6, -0.4), False),
        (found(0.6, 0.31, 0.95), False),  # wide, and surely above all the same
        (found(0.1, -0.3, 0.4), None),
        (found(0.5, 0.1, 0.8), None),
        (found(0.0, -1.0, 1.0), None),  # equal scores: nothing is known
        (found(1.0, 1.0, 1.0, prompts=3), None),  # three prompts redrawn are the same three
        (found(0.0, 0.0, 0.0, prompts=3), None),
    ],
)
def test_the_interval_decides(about, verdict):
    assert met(about) is verdict


def test_its_reason_has_the_interval_and_says_when_there_are_too_few_pairs():
    why = CONDITIONS["length"](found(0.1, -0.3, 0.4), CONFIG)[3]
    assert "+0.10" in why and "-0.30 to +0.40" in why and "too few pairs to tell" in why
    assert "too few" not in CONDITIONS["length"](found(0.5, 0.4, 0.6), CONFIG)[3]


def test_a_sound_model_is_not_failed_by_few_pairs_and_passes_with_many():
    few = [measured(12, 0.0, seed) for seed in range(40)]
    by_the_point = sum(abs(each["length"]["pearson"]["value"]) >= CONFIG.length_correlation for each in few)
    assert by_the_point > 8, "what the point estimate would have refused"
    assert sum(met(each) is False for each in few) <= 3
    assert all(met(measured(300, 0.0, seed)) for seed in range(10))


def test_a_model_that_goes_by_length_is_not_let_pass_by_few_pairs_and_fails_with_many():
    assert not any(met(measured(12, 0.6, seed)) for seed in range(40))
    assert all(met(measured(300, 0.6, seed)) is False for seed in range(10))
