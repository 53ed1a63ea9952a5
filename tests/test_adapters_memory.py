"""What RL with adapters needs of memory beside LoRA SFT: the program that measures it, and the count it reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks.adapters_memory import ADAPTERS, BATCH, COMPLETION, PROMPT, ROWS, SFT, _measured, compared, prepare

ROOT = Path(__file__).parents[1]
OWN, REWARD = "RL, adapters, value its own", "RL, adapters, value from the reward model"


def stage(mib: float, tokens: float = 2048.0) -> dict[str, float]:
    return {"mib": mib, "raw_mib": mib + 400, "tokens": tokens}


def test_a_stage_is_measured_on_as_many_tokens_as_every_other(tmp_path):
    """At a size that says nothing about memory: a stage that learnt less would look cheap."""
    base = prepare(tmp_path, "tiny")
    tokenizer = Tokenizer.from_file(f"{base}/tokenizer.json")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    lengths = {tuple(len(tokenizer.encode(row[side]).ids) for side in ("prompt", "completion")) for row in rows}
    assert lengths == {(PROMPT, COMPLETION - 1)} and len(rows) == ROWS, "and the token that ends it"
    found = _measured(REWARD, tmp_path / "w", base)
    assert found["tokens"] == pytest.approx(BATCH * (PROMPT + COMPLETION), rel=0.05)
    assert 0 < found["mib"] < found["raw_mib"]


def test_what_decides_is_the_highest_of_those_that_share_a_base():
    rows = {SFT: stage(1000), **{row: stage(1100) for row in ADAPTERS}, "SFT, all weights": stage(3000)}
    assert compared(rows)["ok"] and compared(rows)["highest"] == pytest.approx(1.1)
    assert not compared(rows | {OWN: stage(1310)})["ok"]
    assert not compared(rows | {OWN: stage(900, tokens=1900)})["ok"], "less work is no saving"


HOLD_AND_CALL = """
import subprocess, sys
held = b"x" * (300 << 20)
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""
TAKE_AND_LET_GO = """
import json
from trueup.process import peak_mib, resident_mib
start = resident_mib(), peak_mib()
held = b"x" * (64 << 20)
grown = resident_mib()
del held
print(json.dumps([*start, grown, resident_mib(), peak_mib()]))
"""


def test_the_peak_is_the_most_that_this_process_held_whatever_its_parent_held():
    """Linux notes it for a child: 300 MiB would stand in every figure taken from `ru_maxrss`."""
    command = [sys.executable, "-c", HOLD_AND_CALL, TAKE_AND_LET_GO]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    before, first, grown, after, peak = json.loads(done.stdout)
    assert 0 < before <= first < 60, "a bare interpreter"
    assert 60 < grown - before < 70 and after < grown - 60 and abs(peak - grown) < 5
