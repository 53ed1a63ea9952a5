"""Time a token, memory an iteration, the start of a command: what is judged, and at a size for every day."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import growth

ROOT = Path(__file__).parents[1]


def test_what_has_to_hold():
    flat, starts = {"sft": {1000: 1e-5, 30_000: 1.1e-5}}, [4.0, 5.0, 20.0]

    def rl(mib=(400.0,) * 100, cpu=range(100)):
        return {"mib": [*mib], "cpu": [*map(float, cpu)]}

    found = growth.judged(flat, rl(), starts)
    assert found["ok"] and found["rise"] == {"sft": pytest.approx(1.1), "rl": 1}
    assert found["start_seconds"]["median"] == 5.0
    assert not growth.judged({"sft": {1000: 1e-5, 30_000: 1.5e-5}}, rl(), starts)["ok"]
    assert not growth.judged(flat, rl(400.0 + 0.2 * i for i in range(100)), starts)["ok"], "it leaks"
    assert not growth.judged(flat, rl(cpu=[i * i for i in range(100)]), starts)["ok"], "each takes longer than the last"
    settling = growth.judged(flat, rl([300.0] * 5 + [400.0] * 95), starts)
    assert settling["mib"]["rise"] == 0, "what is taken in the first iterations is no leak"
    assert not growth.judged(flat, rl(), [7.0, 5.0, 9.0])["ok"]


def test_a_token_costs_what_a_larger_size_costs_more(monkeypatch, tmp_path):
    spent = {10: {"cpu": 2.0, "tokens": 100}, 20: {"cpu": 3.0, "tokens": 300}, 2000: {"cpu": 4.0, "tokens": 700}}
    monkeypatch.setattr(growth, "_child", lambda *words: spent[int(words[-1])])
    assert growth._a_token("sft", tmp_path, "", [10, 20, 2000]) == {20: 1 / 200, 2000: 1 / 400}


def test_rl_takes_no_more_memory_with_every_iteration(tmp_path):
    """In a process of its own; 500 iterations are what `python -m benchmarks growth` runs."""
    base = growth.prepare(tmp_path, 64)
    command = [sys.executable, "-m", "benchmarks.growth", "rl", str(tmp_path), str(base), "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=growth._quiet(), check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    mib, cpu = found["mib"], found["cpu"]
    assert len(mib) == 40 and mib[-1] <= 1.02 * mib[9]
    assert len(cpu) == 40 and cpu == sorted(cpu) and cpu[0] < cpu[-1]


@pytest.mark.parametrize("stage", growth.STAGES)
def test_a_stage_reads_as_many_rows_as_it_is_told(tmp_path, stage):
    base = growth.prepare(tmp_path, 24)
    few, more = (growth._measure(stage, str(tmp_path), str(base), count) for count in (8, 24))
    assert few["cpu"] > 0 and 2 * few["tokens"] < more["tokens"] < 4 * few["tokens"]
