"""From a rollout to advantages, against sums written out by hand."""

from __future__ import annotations

import pytest
import torch

from trueup.config import RlConfig
from trueup.errors import ConfigError
from trueup.train.experience import Experience, with_advantages


def experience(scores: list[float]) -> Experience:
    """Four completions of two tokens, two for each of two prompts; no KL yet, values of zero."""
    zeros = torch.zeros(4, 2)
    mask = torch.ones(4, 2, dtype=torch.bool)
    return Experience([], torch.tensor(scores), mask, zeros, zeros, zeros, zeros, zeros, zeros)


def last_advantages(scores: list[float], **settings: object) -> list[float]:
    config = RlConfig(samples_per_prompt=2, whiten=False, **settings)
    return with_advantages(experience(scores), config, 0.1).advantage_cl[:, -1].tolist()


def test_without_a_baseline_the_score_is_the_advantage():
    assert last_advantages([1.0, 3.0, -2.0, 0.0]) == [1.0, 3.0, -2.0, 0.0]


def test_the_prompt_baseline_is_what_the_others_of_the_same_prompt_scored():
    assert last_advantages([1.0, 3.0, -2.0, 0.0], prompt_baseline=True) == [1 - 3, 3 - 1, -2 - 0, 0 - -2]


def test_a_harder_prompt_changes_no_advantage_under_the_prompt_baseline():
    easy, hard = [1.0, 3.0, 5.0, 4.0], [1.0, 3.0, -5.0, -6.0]
    assert last_advantages(easy, prompt_baseline=True) == last_advantages(hard, prompt_baseline=True)


def test_the_score_that_is_logged_is_the_one_without_baseline():
    seen = with_advantages(experience([1.0, 3.0, -2.0, 0.0]), RlConfig(samples_per_prompt=2, prompt_baseline=True), 0.1)
    assert seen.score_c.tolist() == [1.0, 3.0, -2.0, 0.0]


def test_one_sample_a_prompt_has_no_others_to_compare_with():
    from trueup.config import load

    with pytest.raises(ConfigError, match="prompt_baseline"):
        load("rl", sets=["prompt_baseline=true", "samples_per_prompt=1"])
