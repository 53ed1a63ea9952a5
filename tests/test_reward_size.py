"""What a reward model's training costs as its data grows: time by the token, memory by the pairs and nothing else."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from small import WORDS, settings

from benchmarks.measured import resident_mib
from benchmarks.reward_size import judged_by_size
from trueup.models.load import new_reward
from trueup.models.rows import row_tokens
from trueup.records import Judgement, Prompt
from trueup.train.judged import judged
from trueup.train.reward import reward

ROOT = Path(__file__).parents[1]


def pairs(count: int) -> list[Judgement]:
    chance = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(chance.randint(low, high)))

    return [
        Judgement(Prompt.user(f"{words(4, 12)} {i}"), (words(3, 9), words(3, 9) + " rain"), (1, 2), "ann", "human")
        for i in range(count)
    ]


def test_ten_times_the_pairs_cost_ten_times_the_tokens(checkpoint, encoder, train):
    """One pass of 200 and of 2,000 pairs: processor time a token, and what the process holds between the two."""
    config = settings("reward", epochs=1.0, batch_size=16, run={"evaluate_every": 10**6}, model={"adapter": "none"})

    def cost(count: int) -> tuple[float, float]:
        model = new_reward("sequence", [str(checkpoint("Llama"))], config.model)
        rows, before, began = pairs(count), resident_mib(), time.process_time()
        items, dropped = judged(encoder, rows, 96)
        train(reward, config, model, items, [])
        assert not dropped and len(items) == count
        took = time.process_time() - began
        return took / sum(row_tokens(item.group) for item in items), resident_mib() - before

    cost(100)  # what only the first run does
    small, large = cost(200), cost(2000)
    assert large[0] < 1.5 * small[0], f"{1e6 * small[0]:.1f} and {1e6 * large[0]:.1f} microseconds a token"
    assert large[1] < small[1] + 30, "MiB: 125 steps leave nothing behind"


def test_what_is_learnt_from_stays_small(encoder):
    """Beyond a fixed sum for each pair a token takes four bytes; as Python integers it took forty."""
    rows, long = pairs(300), " ".join(2 * WORDS)
    longer = [
        Judgement(r.prompt, tuple(f"{text} {long}" for text in r.completions), r.ranks, "ann", "human") for r in rows
    ]

    def held(judgements: list[Judgement]) -> tuple[int, int]:
        judged(encoder, judgements, 4096)  # the encoder keeps prompts that it has met
        sizes = []
        for _ in range(3):  # threads of other tests may allocate meanwhile: the least is ours
            tracemalloc.start()
            items, _ = judged(encoder, judgements, 4096)
            sizes.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
        return min(sizes), sum(row_tokens(item.group) for item in items)

    (bytes_short, short), (bytes_long, many) = held(rows), held(longer)
    assert many > 3 * short and 3 < (bytes_long - bytes_short) / (many - short) < 6


def test_the_benchmark_is_judged_by_time_memory_and_completeness():
    def row(pairs: int, seconds: float, mib: float, left_out: int = 0) -> dict:
        return {"pairs": pairs, "tokens": 150 * pairs, "cpu_seconds": seconds, "mib": mib, "left_out": left_out}

    good = judged_by_size([row(1000, 4.0, 40), row(30000, 120.0, 140)])
    assert good["ok"] and good["time_ratio"] == 1.0 and 20 < good["bytes_a_token"] < 30
    for last in (row(30000, 160.0, 140), row(30000, 120.0, 640), row(30000, 120.0, 140, left_out=1)):
        assert not judged_by_size([row(1000, 4.0, 40), last])["ok"], last


@pytest.mark.slow
def test_the_benchmark_runs():
    command = [sys.executable, "-m", "benchmarks", "reward-size", "--sizes", "20,60", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    found = json.loads(done.stdout)
    assert [row["pairs"] for row in found["sizes"]] == [20, 60] and found["complete"]
    assert all(row["cpu_seconds"] > 0 and row["tokens"] > 100 * row["pairs"] for row in found["sizes"])
