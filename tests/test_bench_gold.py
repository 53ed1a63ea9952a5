"""`benchmarks gold`: when a curve has reached a win rate, what is timed, and what both sides are given. Without TRL."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import gold_laps
from benchmarks.gold_curves import beside, decided, pooled, reached


def curve(*rates: float, seconds: float = 2.0) -> list[dict]:
    return [{"iteration": i, "seconds": seconds * i, "win_rate": rate} for i, rate in enumerate(rates, 1)]


def test_a_win_rate_is_reached_where_two_evaluations_in_a_row_have_it():
    lucky = curve(0.5, 0.7, 0.5, 0.6, 0.62, 0.5)
    assert reached(lucky, 0.6)["iteration"] == 4, "the first of the two, not the lucky one before"
    assert reached(lucky, 0.7) is None and reached(lucky, 0.5)["iteration"] == 1
    assert reached(curve(0.5, 0.5, 0.9), 0.9) is None, "the last evaluation has none after it"
    assert reached([], 0.5) is None and reached(curve(0.9), 0.5) is None


def test_the_highest_threshold_that_both_reach_decides():
    rows = beside(curve(0.6, 0.7, 0.8, 0.8), curve(0.5, 0.56, 0.66, 0.66, 0.66, seconds=8.0))
    assert [row["threshold"] for row in rows if "ratio" in row] == [0.55, 0.6, 0.65]
    assert rows[0]["ratio"] == 16 / 2 and rows[0]["iterations"] == 2, "TRL's seconds over ours, and so the iterations"
    found = decided(rows)
    assert (found["threshold"], found["ratio"], found["iterations"]) == (0.65, 24 / 4, 1.5)
    assert found["TRL"] == {"iteration": 3, "seconds": 24.0, "win_rate": 0.66}
    assert rows[-1]["trueup"]["iteration"] == 3 and rows[-1]["TRL"] is None
    assert decided(beside(curve(0.5, 0.5), curve(0.9, 0.9))) is None


def test_where_trl_is_faster_the_ratio_says_so():
    (row,) = (row for row in beside(curve(0.5, 0.5, 0.6, 0.6), curve(0.6, 0.6)) if row["threshold"] == 0.6)
    assert row["ratio"] == pytest.approx(1 / 3)


def test_rounds_are_taken_together_at_one_threshold():
    quick, slow = curve(0.7, 0.7), curve(0.5, 0.6, 0.6)
    rounds = [beside(curve(0.6, 0.7, 0.7), quick), beside(quick, slow), beside(curve(0.4, 0.6, 0.6), slow)]
    assert pooled(rounds) == {"threshold": 0.6, "ratio": 1.0, "ratios": [1.0, 2.0, 1.0]}
    assert pooled([rounds[0]])["threshold"] == 0.7
    assert pooled([*rounds, beside(quick, curve(0.1))]) == {"threshold": None, "ratio": None, "ratios": []}


def test_writing_weights_is_on_no_clock(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(gold_laps.time, "process_time", lambda: now[0])
    monkeypatch.setattr(gold_laps.time, "perf_counter", lambda: 3 * now[0])

    def slowly(network: object, file: Path) -> None:
        now[0] += 50

    monkeypatch.setattr(gold_laps, "keep", slowly)
    laps = gold_laps.Laps(str(tmp_path), every=2)
    laps.start()
    for iteration in range(1, 5):
        now[0] += 7
        laps.lap(iteration, None)
    assert [(lap["iteration"], lap["seconds"], lap["wall_seconds"]) for lap in laps.laps] == [(2, 14, 42), (4, 28, 84)]


def test_the_constants_of_a_reward_model_go_into_its_head(tmp_path, encoder):
    import torch
    from safetensors.torch import save_file
    from small import random_network
    from transformers import AutoModelForSequenceClassification

    from benchmarks.gold_material import folded
    from benchmarks.gold_trl import scorer
    from trueup.models.load import classifier
    from trueup.models.reward_model import SequenceReward
    from trueup.models.rows import lay_out

    network = classifier(random_network("Llama"), encoder.pad_id, 1)
    network.save_pretrained(tmp_path / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    model = SequenceReward(plain, encoder)
    model.mean, model.std = [0.7], [2.5]
    save_file(folded(model.head.weight, model.head.bias, 0.7, 2.5), tmp_path / "head.safetensors")
    theirs = scorer({"reward_model": str(tmp_path / "reward"), "head": str(tmp_path / "head.safetensors")})
    tokens = [5, 9, 40, 30, 7, encoder.eos_id]
    with torch.no_grad():
        ours = model.normalised(model(lay_out([(tuple(tokens[:3]), [tuple(tokens[3:])])], encoder.pad_id)))
        hidden = theirs.base_model(torch.tensor([tokens])).last_hidden_state
        assert float(theirs.score(hidden)[0, -1, 0]) == pytest.approx(float(ours), abs=1e-5)
        assert abs(float(ours)) > 1e-3 and not torch.allclose(theirs.score(hidden), plain.score(hidden))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Our side on a world of a few posts: what it was given, what it said, and the recipe."""
    from benchmarks.gold import OURS, Plan, _job
    from benchmarks.gold_material import material
    from benchmarks.gold_trueup import ppo
    from benchmarks.learning import prepared
    from trueup.demonstrate import QUICK

    folder, recipe = tmp_path_factory.mktemp("gold"), replace(QUICK, heldout=8)
    with prepared(str(folder / "world"), recipe, 3) as ws:
        given = material(ws, recipe, 3, folder / "given")
    (folder / "weights").mkdir()
    job = asdict(given) | _job(OURS, recipe, Plan(3), 3) | {"weights": str(folder / "weights")}
    return job, ppo(job), recipe


def test_our_side_keeps_its_weights_after_every_iteration(trained):
    from safetensors.torch import load_file

    job, found, recipe = trained
    laps = found["laps"]
    assert [lap["iteration"] for lap in laps] == [1, 2, 3] and len(found["kl"]) == 3
    assert 0 < laps[0]["seconds"] < laps[1]["seconds"] < laps[2]["seconds"]
    kept = [load_file(lap["weights"]) for lap in laps]
    start = load_file(f"{job['policy']}/model.safetensors")
    assert start.keys() == kept[0].keys() == kept[2].keys(), "TRL's side starts from these and keeps the same names"
    assert all(
        (a["model.embed_tokens.weight"] != b["model.embed_tokens.weight"]).any() for a, b in [kept[:2], kept[1:]]
    )


def test_both_sides_read_the_same_prompts(trained):
    from trueup import loading
    from trueup.config import ModelSettings
    from trueup.models.load import load_encoder
    from trueup.store import Workspace

    job, _, _ = trained
    encoder = load_encoder(job["policy"], ModelSettings(), None)
    with Workspace.open(job["workspace"]) as ws:
        posts = loading.read_prompts(ws.get(job["prompts_id"]))
    tokens = json.loads(Path(job["prompts"]).read_text())
    assert tokens == [list(encoder.prompt(post)) for post in posts] and len(tokens) == 40


def test_kept_weights_are_judged_against_all_that_sft_wrote(trained):
    from benchmarks.gold_seen import Eye
    from trueup.store import Workspace

    job, found, recipe = trained
    with Workspace.open(job["workspace"]) as ws:
        eye = Eye(ws, recipe, 6)
    assert len(eye.prompts) == 6 and {len(each) for each in eye.beside} == {8}
    seen = eye.win_rate(found["laps"][-1]["weights"])
    assert 0 <= seen["ci"][0] <= seen["win_rate"] <= seen["ci"][1] <= 1
    again = Eye(ws, recipe, 6)
    again.beside = [[-1000.0] * 8] * 6
    assert again.win_rate(found["laps"][-1]["weights"])["win_rate"] == 1.0
    again.beside = [[1000.0] * 8] * 6
    assert again.win_rate(found["laps"][-1]["weights"])["win_rate"] == 0.0


def test_trl_gets_scores_on_the_scale_of_the_start(trained):
    """Mean 0 and std 1 on the SFT policy's own completions: what trueup's run measures for itself."""
    import torch
    from safetensors.torch import load_file

    from trueup.config import ModelSettings, Sampling
    from trueup.engines.reward_scorer import RewardScorer
    from trueup.engines.sampler import Sampler
    from trueup.inputs import chain
    from trueup.loading import read_prompts
    from trueup.models.load import load_model, load_reward
    from trueup.store import Workspace

    job, _, recipe = trained
    with Workspace.open(job["workspace"]) as ws:
        posts = read_prompts(ws.get("world-posts"))
        sampler = Sampler(load_model(chain(ws, ws.get("sft")), ModelSettings()))
        model = load_reward(chain(ws, ws.get(job["reward_id"])), ModelSettings())
    head = load_file(job["head"])
    model.network.score = torch.nn.Linear(head["weight"].shape[1], 1)
    model.network.score.load_state_dict(head)
    written = sampler.sample(posts, Sampling(**recipe.sampling), seed=3 + 5, n=1)
    scores = RewardScorer(model).raw(written)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-3)


def test_text_and_chart_show_the_whole_of_both_curves(tmp_path):
    from benchmarks.gold import drawn, text

    full = {"gold": 3.0, "kl": 1.0, "wall_seconds": 1.0}
    sides = {
        name: {"version": f"{name} 1", "laps": [lap | full for lap in laps]}
        for name, laps in {"trueup": curve(0.6, 0.7, 0.7), "TRL": curve(0.5, 0.6, 0.61, seconds=9.0)}.items()
    }
    rows = beside(sides["trueup"]["laps"], sides["TRL"]["laps"])
    found = {"seed": 0, "posts": 9, "rounds": [{"seed": 0, "sides": sides, "thresholds": rows}], **pooled([rows])}
    said = text(found)
    assert "0.60: trueup 2.0 s (iteration 1), TRL 18.0 s (iteration 2): 9.0x in seconds, 2.0x in iterations" in said
    assert "0.70: trueup 4.0 s (iteration 2), TRL never" in said
    assert said.endswith("to 0.60, which both reach in every round: 9.0x (rounds: 9.0)")
    assert said.count("\n   ") == 6 and drawn(found).count("<path") + drawn(found).count("<polyline") >= 2


def test_a_finished_curve_is_kept_and_not_trained_again(trained, monkeypatch):
    from shutil import copy

    from benchmarks import gold as program
    from trueup.store import Workspace

    job, found, recipe = trained
    told: list[dict] = []

    def instead(side: object, given: dict) -> dict:
        told.append(given)
        file = copy(found["laps"][-1]["weights"], given["weights"])
        return {"laps": [{"iteration": 1, "seconds": 5.0, "wall_seconds": 6.0, "weights": file}], "kl": [0.25]}

    monkeypatch.setattr(program, "run_side", instead)
    plan = program.Plan(3, posts=6, batch=8)
    with Workspace.open(job["workspace"]) as ws, program._judging(ws, recipe, plan) as curve_of:
        theirs = program._job(program.TRL, recipe, plan, 3)
        first = curve_of(program.SIDES[program.TRL], theirs)
        assert curve_of(program.SIDES[program.TRL], theirs) == first and len(told) == 1
        curve_of(program.SIDES[program.TRL], theirs | {"seed": 4})
        curve_of(program.SIDES[program.OURS], theirs)
    assert len(told) == 3, "another seed and another side are other trainings"
    (lap,) = first["laps"]
    assert (lap["seconds"], lap["kl"]) == (5.0, 0.25) and 0 <= lap["win_rate"] <= 1 and "weights" not in lap
    assert not any(Path(given["weights"]).exists() for given in told), "weights are gone once they are judged"
    assert told[0]["trl"]["batch"] == 8 and told[0]["head"] != job["head"]
