"""The learning curve: parts that nest, a fit that finds the law it was made with, and a verdict that can say no."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trueup.feedback.learning import Fit, Point, fit_power_law, learning, measure, nested_parts
from trueup.records import Judgement, Prompt


def votes(prompts: int = 40, each: int = 3) -> list[Judgement]:
    return [
        Judgement(
            Prompt.user(f"p{i}"),
            ("a", f"b{k}"),
            (1, 2),
            "human:aaaaaa",
            "human",
            split="heldout" if i % 5 == 0 else "train",
        )
        for i in range(prompts)
        for k in range(each)
    ]


def points(law: Fit, *, heldout: int = 400, seeds: int = 4, noise: int = 0) -> list[Point]:
    """Trainings whose chance to be right follows `law`; the same held-out prompts are easy for all of them."""
    chance = np.random.default_rng(noise)
    ease = chance.random(heldout)
    made = []
    for n in (125, 250, 500, 1000):
        for seed in range(seeds):
            right = (ease + chance.normal(0, 0.02, heldout) < float(law.at(n))).astype(float)
            made.append(Point(n, seed, n / 1000, right, np.ones(heldout)))
    return made


def test_parts_nest_by_whole_prompts_and_hold_no_held_out_vote():
    judgements = votes()
    parts = nested_parts(judgements, seed=1)
    assert [len(part) for part in parts.values()] == [12, 24, 48, 96]
    smaller: set[str] = set()
    for part in parts.values():
        prompts = {j.prompt.id for j in part}
        assert smaller <= prompts and len(part) == 3 * len(prompts)
        assert {j.split for j in part} == {"train"}
        smaller = prompts
    other = nested_parts(judgements, seed=2)
    assert {j.prompt.id for j in other[0.125]} != {j.prompt.id for j in parts[0.125]}


def test_a_point_counts_ties_of_scores_by_half_and_leaves_tied_votes_out():
    prompt, other = Prompt.user("p"), Prompt.user("q")
    judged = [
        Judgement(prompt, ("a", "b"), (1, 2), "j", "human"),
        Judgement(prompt, ("a", "b"), (1, 1), "j", "human"),
        Judgement(other, ("a", "b"), (2, 1), "j", "human"),
    ]
    point = measure(judged, [[1.0, 0.0], [1.0, 0.0], [2.0, 2.0]], trained_on=7, share=1.0, seed=0)
    assert sorted(point.right) == [0.5, 1.0] and point.pairs.sum() == 2 and point.accuracy == 0.75


@pytest.mark.parametrize("law", [Fit(0.8, 1.0, 0.5), Fit(0.72, 2.0, 0.8)])
def test_the_fit_finds_the_law(law):
    sizes = np.array([50, 100, 200, 400, 800])
    found = fit_power_law(sizes, law.at(sizes))
    assert found.at(1600) == pytest.approx(float(law.at(1600)), abs=0.003)
    assert found.limit == pytest.approx(law.limit, abs=0.02)


def test_a_curve_that_falls_is_flat_and_one_above_certainty_stays_below():
    sizes = [100, 200, 400]
    assert fit_power_law(sizes, [0.8, 0.75, 0.7]).scale == 0
    steep = fit_power_law(sizes, [0.7, 0.9, 0.999])
    assert steep.limit <= 1 and float(steep.at(10**9)) <= 1


def test_a_steep_curve_says_yes_and_a_flat_one_no():
    steep = learning(points(Fit(0.95, 3.0, 0.4)), seconds_each=36)
    assert steep.worth_it is True and steep.gain > 0.002 and steep.cost == pytest.approx(1.0)
    assert "1.0 hours" in steep.message and steep.gain_ci[0] <= steep.gain <= steep.gain_ci[1]
    flat = learning(points(Fit(0.7, 0.0, 1.0)))
    assert flat.worth_it is False and flat.gain_ci[1] < 0.002 and flat.cost is None
    assert [row[0] for row in flat.band] == [125, 250, 500, 1000, 1100]


def test_few_held_out_prompts_cannot_tell():
    found = learning(points(Fit(0.75, 1.0, 0.5), heldout=12, seeds=2))
    assert found.worth_it is None and "cannot tell" in found.message
    assert found.heldout == 12 and found.to_json()["gain_ci"] == list(found.gain_ci)


def test_the_interval_holds_the_true_gain():
    law = Fit(0.85, 1.5, 0.45)
    truth = float(law.at(1100) - law.at(1000))
    inside = 0
    for noise in range(20):
        found = learning(points(law, heldout=300, noise=noise))
        inside += found.gain_ci[0] <= truth <= found.gain_ci[1]
    assert inside >= 16


def test_the_chart_shows_what_was_measured_and_what_is_predicted():
    from trueup.reports.feedback_charts import learning_chart, people_chart

    found = learning(points(Fit(0.9, 2.0, 0.4))).to_json()
    svg = learning_chart(found)
    assert svg.startswith("<svg") and "n = 400 pairs" in svg and "1,100" in svg and "<script" not in svg
    assert svg.count("<polyline") >= 2 and "<polygon" in svg
    judges = [{"judge": "human:a<b", "gold": {"value": 0.8, "low": 0.6, "high": 0.9, "n": 20}}, {"judge": "human:c"}]
    people = people_chart(judges, "gold", "Golds right")
    assert "human:a&lt;b" in people and "human:c" not in people
    assert people_chart(judges, "position", "First") == ""


# Through the real reward stage


def test_the_real_stage_draws_the_curve_and_leaves_no_model(workspace, checkpoint, tmp_path):
    from small import QUIET, add_small_data

    from trueup import asking
    from trueup.config import flat
    from trueup.runs import runs

    add_small_data(workspace, tmp_path, prompts=40)
    before = {artifact.id for artifact in workspace.artifacts()}
    settings = flat({"steps": 2, "batch_size": 4, "optimizer": {"lr": 3e-3}, "model": {"adapter": "none"}}) | QUIET
    base = str(checkpoint("Llama"))
    found = asking.learning(workspace, base=base, data="preferences", seeds=2, seconds_each=18, **settings)
    sizes = sorted({point.judgements for point in found.points})
    assert len(found.points) == 8 and len(sizes) == 4 and sizes[0] < sizes[-1]
    assert found.cost == pytest.approx(0.5) and all(0 <= point.accuracy <= 1 for point in found.points)
    made = [run for run in runs(workspace) if run.stage == "learning"]
    assert [run.status for run in made] == ["done"] * 8 and {run.seed for run in made} == {0, 1}
    new = [artifact for artifact in workspace.artifacts() if artifact.id not in before]
    assert [artifact.kind for artifact in new] == ["external"], "the pointer to the base model, and nothing else"


def test_too_little_to_draw_a_curve_from(workspace, checkpoint, tmp_path):
    from small import add_small_data

    from trueup import asking
    from trueup.errors import TrueupError

    add_small_data(workspace, tmp_path, prompts=5)
    with pytest.raises(TrueupError, match="too few for a learning curve|nothing to measure by"):
        asking.learning(workspace, base=str(checkpoint("Llama")), data="preferences", steps=1)


def test_parts_of_one_share_belong_together_though_their_sizes_differ():
    """Whole prompts have unequal numbers of judgements; each share is one place on the curve all the same."""
    uneven = [replace(p, judgements=p.judgements + 3 * p.seed) for p in points(Fit(0.9, 2.0, 0.4), seeds=3)]
    found = learning(uneven)
    assert [row[0] for row in found.band] == [128, 253, 503, 1003, 1103]
    assert found.now == pytest.approx(np.mean([p.accuracy for p in uneven if p.share == 1.0]))
