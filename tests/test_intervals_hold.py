"""Intervals hold a planted truth about as often as they say: `python -m benchmarks coverage` in few worlds."""

from __future__ import annotations

import json
import re
from math import sqrt
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.coverage import NOMINAL, SIMULATIONS, Simulation, coverage, line, measured

ROOT = Path(__file__).parents[1]
WORLDS = 300


@pytest.mark.parametrize("simulation", SIMULATIONS, ids=lambda each: each.name)
def test_intervals_hold_about_as_often_as_they_say(simulation: Simulation) -> None:
    """Give or take what so few worlds can tell: three standard errors."""
    worlds = WORLDS // 2 if {"ratings", "law"} & set(re.findall(r"\w+", simulation.name)) else WORLDS
    found = measured(simulation, [simulation.world(seed) for seed in range(worlds)])
    slack = 3 * sqrt(0.05 * 0.95 / worlds)
    assert simulation.bounds[0] - slack <= found["value"] <= simulation.bounds[1] + slack, found


@pytest.mark.parametrize(("every", "met"), [(5, False), (10, False), (20, True), (50, False)])
def test_intervals_that_hold_too_seldom_or_too_often_are_missed(every: int, met: bool) -> None:
    found = measured(Simulation("planted", lambda seed: [], NOMINAL), [[bool(i % every)] for i in range(1000)])
    assert found["met"] is met and ("MISSED" in line(found)) is not met
    assert found["ci"][0] < found["value"] < found["ci"][1]


def test_several_intervals_of_a_world_are_no_more_worlds() -> None:
    alone = measured(Simulation("planted", lambda seed: []), [[bool(i % 20)] for i in range(400)])
    four = measured(Simulation("planted", lambda seed: []), [[bool(i % 20)] * 4 for i in range(400)])
    assert four["n"] == 400
    assert four["ci"][1] - four["ci"][0] == pytest.approx(alone["ci"][1] - alone["ci"][0], rel=0.1)


def test_the_command_prints_what_it_found() -> None:
    done = CliRunner().invoke(coverage, ["--worlds", "20", "--only", "KL of", "--json"])
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and [row["name"] for row in found["rows"]] == ["KL of 40 prompts"]
    assert CliRunner().invoke(coverage, ["--only", "nothing of that name"]).exit_code == 2


def test_the_table_of_the_page_is_what_was_measured() -> None:
    kept = json.loads((ROOT / "docs" / "results" / "coverage.json").read_text())
    page = (ROOT / "docs" / "evaluation.md").read_text()
    assert [row["name"] for row in kept["figures"]] == [each.name for each in SIMULATIONS]
    for row in kept["figures"]:
        low, high = row["ci"]
        assert f"| {row['name']} | {row['value']:.1%} | {low:.1%} to {high:.1%} |" in page
        assert row["n"] == 1000 and row["met"]
