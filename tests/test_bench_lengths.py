"""Lengths that both sides of a benchmark write: functions of the seed, inside their limits, the same everywhere."""

from __future__ import annotations

import pytest
import torch

from benchmarks.forced import Forced, realised
from benchmarks.lengths import ALIKE, Natural, apart, forced, histogram, part

EOS, PAD = 2, 0


def test_natural_lengths_follow_the_seed_the_iteration_and_the_limits():
    natural = Natural(mean=30, low=5, high=128)
    first = natural.lengths(0, 0, 64)
    assert first == natural.lengths(0, 0, 64)
    assert first != natural.lengths(0, 1, 64) and first != natural.lengths(1, 0, 64)
    many = natural.lengths(0, 0, 20_000)
    assert min(many) == 5 and max(many) == 128, "cut at both ends"
    assert sum(many) / len(many) == pytest.approx(30, abs=0.6)
    assert sum(length <= 20 for length in many) / len(many) == pytest.approx(1 - (29 / 30) ** 20, abs=0.02), "geometric"


def test_a_rollout_is_forced_to_natural_lengths_or_to_one():
    assert forced(None, 48, 0, 0, 3) == [48, 48, 48]
    assert forced({"mean": 30.0, "low": 5, "high": 128}, 128, 7, 2, 9) == Natural().lengths(7, 2, 9)


def test_a_rollout_may_be_written_in_parts():
    told = {"natural": {"mean": 30.0, "low": 5, "high": 128}, "new_tokens": 128, "seed": 3}
    whole = [Natural().lengths(3, iteration, 100) for iteration in (0, 1)]
    written = [part(told, 100, done, count) for done, count in ((0, 64), (64, 36), (100, 64), (164, 36))]
    assert [written[0] + written[1], written[2] + written[3]] == whole


def test_lengths_lie_apart_by_mean_or_by_histogram():
    assert apart([10, 20, 30], [30, 10, 20]) == 0
    assert apart([10] * 10, [11] * 10) > ALIKE, "the mean"
    assert apart([20] * 10, [4, 36] * 5) > ALIKE, "equal means, other shapes"
    assert apart([], [3]) == 1 and apart([], []) == 0
    assert histogram([1, 16, 17, 40]) == {"1-16": 2, "17-32": 1, "33-48": 1}


def test_generate_may_not_end_before_its_time_and_has_to_then():
    """By hand, as `generate` calls it: once for each new token, the scores of every row."""
    processor, written = Forced([2, 3], EOS, PAD, ends=True), []
    for _ in range(4):
        scores = processor(torch.zeros(2, 1, dtype=torch.long), torch.tensor([[5.0, 1.0, 4.0, 0.0]] * 2))
        written.append(scores.argmax(1))
    tokens = torch.stack(written, 1)
    assert tokens.tolist() == [[1, EOS, PAD, PAD], [1, 1, EOS, PAD]], "left alone once it has ended"
    assert realised(tokens, EOS) == [2, 3]


def test_where_all_are_of_one_length_nothing_ends():
    processor = Forced([2, 2], EOS, PAD, ends=False)
    for _ in range(3):
        scores = processor(torch.zeros(2, 1, dtype=torch.long), torch.tensor([[5.0, 1.0, 4.0, 0.0]] * 2))
        assert scores.argmax(1).tolist() == [1, 1] and scores[0, EOS] == -torch.inf
    assert realised(torch.tensor([[1, 3, 3]]), EOS) == [3]
