"""`make check`: a target that is missed shows everywhere, what is done is not done again, and changed code is new."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def loaded():
    spec = importlib.util.spec_from_file_location("check", ROOT / "scripts" / "check.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


check = loaded()


def rate(wins: int, ties: int, n: int) -> dict:
    return {"value": (wins + ties / 2) / n, "ci": [0.1, 0.9], "n": n, "wins": wins, "ties": ties}


def demo_result(seed: int = 0, wins: int = 280) -> dict:
    return {
        "seed": seed,
        "win_rate": {
            "rl_vs_sft": rate(wins, 4, 320), "rl_vs_sft_greedy": rate(250, 0, 320), "rl_vs_best_of_n": rate(161, 0, 320)
        },
        "reward_model": {"accuracy": 0.66, "ceiling": 0.72, "ci": [0.6, 0.7], "n": 500},
        "reward_models": [], "kl": 8.0, "cpu_seconds": 300.0, "stages": [], "seconds": 200.0, "peak_memory_mib": 900,
    }  # fmt: skip


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Two checks that count how often they run; the second misses its target."""
    ran: list[str] = []

    def outcome(name: str, value: float):
        def run(settings):
            ran.append(name)
            return check.Outcome([check.Figure("share", value, "at least 0.5", value >= 0.5, (0.1, 0.9), 10)], "cmd", 3)

        return run

    monkeypatch.setattr(check, "use_two_cores", lambda: 2)
    monkeypatch.setattr(
        check,
        "CHECKS",
        tuple(
            check.Check(n, f"promise {n}", 1, outcome(n, v), ("trueup",), alone=True)
            for n, v in (("good", 0.7), ("poor", 0.2))
        ),
    )
    return ran


def test_the_demo_is_judged_by_every_target():
    good = check.judge_demo(demo_result(), "cmd")
    assert good.met and len(good.figures) == 7
    for change in (
        {"seconds": 241.0},
        {"peak_memory_mib": 2048},
        {"reward_model": demo_result()["reward_model"] | {"accuracy": 0.64}},
        {"win_rate": demo_result(wins=259)["win_rate"]},
        {"win_rate": demo_result()["win_rate"] | {"rl_vs_best_of_n": rate(160, 0, 320)}},
        {"win_rate": demo_result()["win_rate"] | {"rl_vs_sft_greedy": rate(239, 0, 320)}},
    ):
        judged = check.judge_demo(demo_result() | change, "cmd")
        assert not judged.met and sum(not figure.met for figure in judged.figures) == 1, change


def test_over_optimisation_needs_a_better_proxy_and_a_worse_gold():
    weak = {"proxy": [0.0, 1.0, 2.1], "gold": [1.0, 1.2, 0.9], "n": 128}
    assert check.judge_overopt(weak, "cmd").met
    assert not check.judge_overopt(weak | {"proxy": [0.2, 1.0, 2.1]}, "cmd").met
    assert not check.judge_overopt(weak | {"gold": [1.0, 1.2, 1.1]}, "cmd").met


def test_what_is_done_is_not_done_again_and_a_miss_stays_a_miss(fake, tmp_path, capsys):
    arguments = ["--results", str(tmp_path)]
    assert check.main(arguments) == 1 and fake == ["good", "poor"]
    first = capsys.readouterr().out
    assert "missed: poor" in first and "MISSED" in first and "at least 0.5" in first
    assert check.main(arguments) == 1 and fake == ["good", "poor"]
    assert capsys.readouterr().out == first
    assert check.main([*arguments, "--only", "good"]) == 0 and fake == ["good", "poor"]
    assert check.main([*arguments, "--only", "good", "--again"]) == 0 and fake == ["good", "poor", "good"]


def test_a_result_says_what_it_is_and_how_it_was_got(fake, tmp_path):
    check.main(["--results", str(tmp_path), "--only", "good"])
    found = json.loads((tmp_path / "good.json").read_text())
    assert found["name"] == "good" and found["met"] is True and found["command"] == "cmd" and found["seed"] == 3
    assert found["figures"] == [
        {
            "name": "share",
            "value": 0.7,
            "target": "at least 0.5",
            "met": True,
            "ci": [0.1, 0.9],
            "n": 10,
            "spread": None,
        }
    ]
    assert found["seconds"] >= 0 and {"trueup", "torch", "python"} <= found["versions"].keys()
    assert [file.name for file in tmp_path.iterdir()] == ["good.json"]


def test_other_code_makes_a_result_stale(fake, tmp_path, monkeypatch):
    arguments = ["--results", str(tmp_path), "--only", "good"]
    check.main(arguments)
    monkeypatch.setattr(check, "source_digest", lambda places: "another")
    check.main(arguments)
    assert fake == ["good", "good"]


def test_the_digest_sees_every_file_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "trueup").mkdir()
    (tmp_path / "trueup" / "a.py").write_text("1")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    before = check.source_digest(("trueup",))
    (tmp_path / "trueup" / "a.py").write_text("2")
    assert check.source_digest(("trueup",)) != before


def test_what_could_not_be_judged_is_missed_and_tried_again(fake, tmp_path, monkeypatch, capsys):
    broken = check.Check(
        "broken", "x", 1, lambda settings: (fake.append("broken"), check.Outcome(problem="exit 1"))[1], ("trueup",)
    )
    monkeypatch.setattr(check, "CHECKS", (broken,))
    for _ in range(2):
        assert check.main(["--results", str(tmp_path)]) == 1
        assert "exit 1" in capsys.readouterr().out
    assert fake == ["broken", "broken"]


def test_seeds_are_pooled_over_posts(tmp_path, monkeypatch):
    settings = check.Settings(tmp_path)
    assert check.pooled(settings).problem.startswith("this code has no result of demo-seed-0, ")
    wins = iter((280, 270, 290))
    monkeypatch.setattr(check, "run_demo", lambda s, seed, *o: (demo_result(seed, next(wins)), "cmd", ""))
    for one in check.CHECKS[:3]:
        check.run_and_keep(one, settings, 2)
    figure = check.pooled(settings).figures[0]
    assert figure.n == 960 and figure.value == pytest.approx((840 + 6) / 960)
    assert figure.ci[0] < figure.value < figure.ci[1] and figure.ci[1] - figure.ci[0] < 0.05
    assert figure.spread == pytest.approx(10 / 320) and figure.met


def test_quick_figures_never_stand_among_the_real_ones(capsys):
    with pytest.raises(SystemExit):
        check.main(["--quick"])
    assert "--results" in capsys.readouterr().err


def test_the_checks_have_distinct_names_and_are_listed(tmp_path, capsys):
    names = [one.name for one in check.CHECKS]
    assert len(set(names)) == len(names) and {"demo-seed-0", "demo-pooled", "overopt", "resume"} <= set(names)
    alone = sum(one.minutes for one in check.CHECKS if one.alone)
    in_pairs = sum(one.minutes for one in check.CHECKS if not one.alone) / check.CORES
    assert alone + in_pairs <= 120
    assert check.main(["--list", "--results", str(tmp_path)]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names


def test_what_promises_a_time_runs_by_itself_and_the_rest_in_pairs(monkeypatch, tmp_path):
    running, most, lock = [], {}, threading.Lock()
    together = threading.Barrier(2, timeout=20)

    def outcome(name: str, alone: bool):
        def run(settings):
            with lock:
                running.append(name)
                most[name] = len(running)
            if not alone:
                together.wait()  # passes only if both are at it at once
                with lock:
                    most[name] = len(running)
                together.wait()
            with lock:
                running.remove(name)
            return check.Outcome([check.Figure("one", 1, "1", True)])

        return run

    made = [("a", False), ("clock", True), ("b", False)]
    monkeypatch.setattr(check, "use_two_cores", lambda: 2)
    monkeypatch.setattr(
        check, "CHECKS", tuple(check.Check(n, n, 1, outcome(n, alone), ("trueup",), alone=alone) for n, alone in made)
    )
    assert check.main(["--results", str(tmp_path)]) == 0
    assert most == {"a": 2, "clock": 1, "b": 2}


def learning_result(ppo: float = 0.9, kept: float | None = 0.9, rollbacks: int = 0, off: float = 0.1) -> dict:
    rows = [{"method": m, "over_sampled": {"value": v, "ci": [0.8, 0.95], "n": 1000}} for m, v in
            (("ppo", ppo), ("ppo-bf16", 0.9), ("rloo", 0.85), ("dpo", 0.81))]  # fmt: skip
    return {
        "learning": {"rows": rows},
        "guard": {"kept": kept, "n": 160, "unguarded_end": 1.0, "sft": 2.0},
        "steady": {
            "passes": {
                "steps": 200, "rollbacks": rollbacks, "approx_kl": {"largest": 0.05, "limit": 0.1},
                "gold": {"share": 0.96, "n": 160},
            },
            "target": {"off": off, "rollouts": 50},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    "worse", [{"ppo": 0.79}, {"kept": 0.84}, {"kept": None}, {"rollbacks": 1}, {"off": 0.21}, {"off": -0.21}]
)
def test_learning_is_judged_by_what_is_promised(worse):
    assert check.judge_learning(learning_result(), "cmd", 0).met
    missed = [
        figure.name for figure in check.judge_learning(learning_result(**worse), "cmd", 0).figures if not figure.met
    ]
    assert len(missed) == 1


def test_methods_are_pooled_over_posts(tmp_path):
    settings = check.Settings(tmp_path)
    for seed, ppo in enumerate((0.86, 0.88, 0.93)):
        (real,) = [one for one in check.CHECKS if one.name == f"learning-seed-{seed}"]
        found = check.judge_learning(learning_result(ppo), "cmd", seed)
        one = check.Check(real.name, "x", 1, lambda s, found=found: found, real.rests_on)
        check.run_and_keep(one, settings, 2)
    ppo = check.learning_pooled(settings).figures[0]
    assert ppo.value == pytest.approx(0.89) and ppo.n == 3000 and ppo.met
    assert ppo.ci[1] - ppo.ci[0] < 0.03
