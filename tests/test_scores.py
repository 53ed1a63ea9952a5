"""The scale that scores are read on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trueup.algo.scale import mean_and_std
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


@pytest.mark.parametrize("size", (1e300, 1e-7, 1e-300))
@pytest.mark.parametrize("kind", ("reference", "running"))
def test_scores_of_any_size_have_a_scale(size, kind):
    values = np.array([1.0, 2.0, 3.0, 6.0])
    scores = scale(kind=kind)
    scores.measure(completions(values * size))
    for part in (values[:2], values[2:]):
        scores(completions(part * size), learning=True)
    expected = (values - values.mean()) / values.std()
    assert scores(completions(values * size)).numpy() == pytest.approx(expected, rel=1e-5)
    assert scores.steady(completions(values * size)).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", (0.1, 0.1e300, -0.1e-300, 0.0))
def test_equal_scores_of_any_size_have_none(value):
    scores = scale(kind="running")
    for _ in range(5):
        found = scores(completions([value] * 7), learning=True)
    assert scores.memory["score_std"] == 1.0 and found.tolist() == pytest.approx([0.0] * 7, abs=abs(value))
    assert mean_and_std(torch.full((7,), value, dtype=torch.float64)) == (pytest.approx(value), 1.0)


def test_parts_of_any_size_have_a_scale():
    es = FakeScorer(lambda c: 1e-7 * c.text.count("e"))
    scorer = CombinedScorer({"es": es, "large": FakeScorer(lambda c: 1e300 * len(c.text))}, Scoring())
    texts = [Completion(PROMPT, text) for text in ("", "e", "eee")]
    scorer.measure(texts)
    assert [score.parts["es"] for score in scorer.score(texts)] == pytest.approx([-1.069, -0.267, 1.336], abs=1e-3)
    assert [score.parts["large"] for score in scorer.score(texts)] == pytest.approx([-1.069, -0.267, 1.336], abs=1e-3)


def test_a_batch_without_numbers_moves_no_multiplier():
    scoring = Scoring(
        objectives=(Objective(name="es", at_least=2.0),), normalise=False, floor="multiplier", multiplier_rate=0.5
    )
    parts = {"es": FakeScorer(lambda c: math.nan if c.text == "?" else c.text.count("e")), "b": FakeScorer(lambda c: 0)}
    scorer = CombinedScorer(parts, scoring)
    scorer.measure([Completion(PROMPT, "e")])
    scorer.score([Completion(PROMPT, "e")])
    assert scorer.adapt() == {"es": 0.5}
    scorer.score([Completion(PROMPT, "?")])
    assert scorer.adapt() == {"es": 0.5}
    scorer.score([Completion(PROMPT, "?"), Completion(PROMPT, "e")])
    assert scorer.adapt() == {"es": 1.0}, "what has a number is what is known"


@pytest.mark.parametrize("floor", ("price", "multiplier"))
def test_what_has_no_weight_spoils_no_score(floor):
    objectives = (Objective(name="es"), Objective(name="broken", weight=0.0))
    scoring = Scoring(objectives=objectives, normalise=False, floor=floor)
    parts = {"es": FakeScorer(lambda c: c.text.count("e")), "broken": FakeScorer(lambda c: math.nan)}
    scorer = CombinedScorer(parts, scoring)
    scorer.measure([Completion(PROMPT, "e")])
    assert [score.value for score in scorer.score([Completion(PROMPT, "ee")])] == [2.0]
