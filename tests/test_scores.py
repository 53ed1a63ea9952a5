"""The scale that scores are read on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trueup.config import Objective, Scoring
from trueup.engines.combined import CombinedScorer
from trueup.engines.fake import FakeScorer
from trueup.errors import RunError
from trueup.records import Completion, Prompt
from trueup.train.scores import ScoreScale

PROMPT = Prompt.user("the cat")


def completions(values, finished=True):
    return [Completion(PROMPT, str(value), finished=finished) for value in values]


def scale(memory=None, kind="reference", clip=None, missing_eos=None):
    scorer = FakeScorer(lambda completion: float(completion.text))
    return ScoreScale(scorer, {} if memory is None else memory, missing_eos, kind, clip)


def test_the_reference_has_mean_0_and_std_1():
    scores = scale()
    scores.measure(completions([1, 2, 3, 6]))
    found = scores(completions([1, 2, 3, 6])).numpy()
    assert found.mean() == pytest.approx(0, abs=1e-6) and found.std() == pytest.approx(1, abs=1e-6)
    assert scores(completions([3]))[0] == pytest.approx(0)


def test_a_running_scale_is_that_of_everything_so_far():
    """Taken in part by part, and kept in the memory: another object goes on where one stopped."""
    values = np.random.default_rng(0).normal(5, 3, size=60).round(4)
    memory: dict = {}
    scores = scale(memory, kind="running")
    scores.measure(completions([100.0]))
    for part in np.split(values, [7, 8, 30]):
        scores = scale(memory, kind="running")
        found = scores(completions(part), learning=True)
    assert memory["score_mean"] == pytest.approx(values.mean()) and memory["score_std"] == pytest.approx(values.std())
    assert found.numpy() == pytest.approx((values[30:] - values.mean()) / values.std(), abs=1e-5)
    before = dict(memory)
    scores(completions([1e6]))
    assert memory == before, "an evaluation is measured on the scale and does not move it"


def test_one_score_alone_has_no_spread_to_divide_by():
    memory: dict = {}
    scores = scale(memory, kind="running")
    scores.measure(completions([5.0]))
    assert scores(completions([7.0]), learning=True).tolist() == [0.0]
    scores(completions([9.0]), learning=True)
    assert (memory["score_mean"], memory["score_std"]) == (8.0, 1.0)


def test_scores_are_cut_at_the_ends_and_text_without_an_end_gets_its_own():
    scores = scale(clip=1.5, kind="none", missing_eos=-9.0)
    scores.measure([])
    assert scores(completions([-4, 0.5, 4])).tolist() == [-1.5, 0.5, 1.5]
    assert scores(completions([4], finished=False)).tolist() == [-9.0], "not cut: it was set on purpose"


def test_what_is_no_number_is_left_out_of_a_scale():
    memory: dict = {}
    scores = scale(memory)
    scores.measure(completions([1, math.nan, 3, math.inf]))
    assert (memory["score_mean"], memory["score_std"]) == (2.0, 1.0)
    running = scale(memory, kind="running")
    running(completions([math.nan, 5.0, 7.0]), learning=True)
    assert memory["score_seen"] == 2 and math.isfinite(memory["score_mean"])


def test_a_scorer_that_never_gives_a_number_is_said_so():
    with pytest.raises(RunError, match="no finite number for any of 3 completions"):
        scale().measure(completions([math.nan] * 3))


def test_the_price_of_a_floor_moves_no_evaluation():
    """A multiplier that grew changes what is learnt from; two evaluations of one policy stay equal."""
    objectives = (Objective(name="long"), Objective(name="es", weight=0.0, at_least=1.0))
    scoring = Scoring(objectives=objectives, normalise=False, floor="multiplier", multiplier_rate=0.5)
    parts = {"long": FakeScorer(lambda c: float(len(c.text))), "es": FakeScorer(lambda c: float(c.text.count("e")))}
    scores = ScoreScale(CombinedScorer(parts, scoring), {}, None, "none")
    below, above = ([Completion(Prompt.user("x"), text) for text in texts] for texts in (("aaa", "ae"), ("eee", "ae")))
    scores.measure(below)
    start = scores.steady(below).tolist()
    assert start == [3 - 10.0, 2.0], "ten for each e that is lacking, as long as the mean lacks some"
    for _ in range(5):
        scores(below, learning=True)
    assert scores.parts["multiplier_es"] > 1 and scores(below).tolist() != pytest.approx([3.0, 2.0])
    assert scores.steady(below).tolist() == start
    assert scores.steady(above).tolist() == [3.0, 2.0]
    assert scores.parts == {"score_long": 2.5, "score_es": 2.0}


def test_a_steady_scale_is_the_one_of_the_start_whatever_runs():
    for kind, expected in (("reference", [1.0, -1.0]), ("running", [1.0, -1.0]), ("none", [7.0, 3.0])):
        scores = scale(kind=kind)
        scores.measure(completions([3.0, 7.0]))
        scores(completions([100.0, 300.0]), learning=True)
        assert scores.steady(completions([7.0, 3.0])).tolist() == expected
