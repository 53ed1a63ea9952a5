"""Does work grow as it should? Time a token from a hundred prompts to thirty thousand, memory over 500 iterations, and
how long a command takes before its first step.

    python -m benchmarks growth [--json]

On a tiny random model, where everything around the arithmetic shows most. Each size runs in a process of its own; a
token's time is what the tokens of a larger size took more than those of the size before it, so that loading a model
does not count. Memory is what the system counts, after every iteration of reinforcement learning.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from .material import make, read_pairs
from .measured import resident_mib

ROOT = Path(__file__).parents[1]
SIZES, ITERATIONS = (100, 1000, 10_000, 30_000), 500
SETTLED = 100  # iterations after which nothing more should be taken
FLAT, LEAK, SOON = 1.25, 0.02, 6.0  # times as much a token; share of the memory; seconds
STAGES = ("sample", "sft")
ONE = {"run.threads": 1, "model.device": "cpu"}


@click.command()
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True, help="Prompts, rising.")
@click.option("--iterations", default=ITERATIONS, show_default=True, type=click.IntRange(4))
@click.option("--json", "as_json", is_flag=True)
def growth(sizes: str, iterations: int, as_json: bool) -> None:
    """Time a token, memory an iteration, and the start of a command."""
    counts = [int(each) for each in sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = str(prepare(place, max(counts)))
        found = judged(
            {stage: _a_token(stage, place, base, counts) for stage in STAGES},
            _child("rl", str(place), base, str(iterations)),
            [_start(place, base) for _ in range(3)],
        )
    click.echo(json.dumps(found, indent=1) if as_json else _text(found))
    sys.exit(0 if found["ok"] else 1)


def judged(times: dict[str, dict[int, float]], rl: dict[str, list[float]], starts: Sequence[float]) -> dict[str, Any]:
    """What has to hold: the last tokens cost no more than the first, memory is flat, a start is soon.

    `rl`: of each iteration what the process held after it, and the CPU seconds until then.
    """
    rise = {stage: list(each.values())[-1] / next(iter(each.values())) for stage, each in times.items()}
    mib, spent = rl["mib"], [after - before for before, after in pairwise(rl["cpu"])]
    few = max(1, len(spent) // 5)
    rise["rl"] = statistics.median(spent[-few:]) / statistics.median(spent[few:][:few])
    settled = statistics.median(mib[len(mib) // 5 :][:20])
    leak = statistics.median(mib[-20:]) / settled - 1
    start = statistics.median(starts)
    return {
        "microseconds_a_token": {stage: {n: 1e6 * s for n, s in each.items()} for stage, each in times.items()},
        "rise": rise,
        "mib": {"settled": settled, "end": mib[-1], "iterations": len(mib), "rise": leak},
        "start_seconds": {"median": start, "all": list(starts)},
        "ok": max(rise.values()) <= FLAT and leak <= LEAK and start < SOON,
    }


def prepare(place: Path, count: int) -> Path:
    """A tiny model, and as many demonstrations with prompts of their own, of about twenty words."""
    made = make(place, "tiny", 256)
    words = [word for row in read_pairs(made.pairs) for word in row["prompt"].split()]
    with (place / "rows.jsonl").open("w") as file:
        for i in range(count):
            start = i * 7 % (len(words) - 24)
            prompt = f"{i} " + " ".join(words[start : start + 16])
            file.write(json.dumps({"prompt": prompt, "completion": " ".join(words[start + 16 : start + 24])}) + "\n")
    return made.language_model


def _a_token(stage: str, place: Path, base: str, counts: Sequence[int]) -> dict[int, float]:
    """CPU seconds of each token more, from one size to the next; of small sizes the least of three, to see them."""
    runs = {
        count: [_child(stage, str(place), base, str(count)) for _ in range(3 if count <= 1000 else 1)]
        for count in counts
    }
    cpu = {count: min(each["cpu"] for each in found) for count, found in runs.items()}
    tokens = {count: found[0]["tokens"] for count, found in runs.items()}
    return {more: (cpu[more] - cpu[less]) / (tokens[more] - tokens[less]) for less, more in pairwise(counts)}


def _child(*words: str) -> dict[str, Any]:
    click.echo(" ".join((words[0], words[-1])), err=True)
    command = [sys.executable, "-m", "benchmarks.growth", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_quiet())
    if done.returncode:
        raise click.ClickException(f"'{words[0]}' failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _start(place: Path, base: str) -> float:
    """Wall seconds of a whole `trueup train sft` of a single step, from the command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("".join((place / "rows.jsonl").open().readline() for _ in range(1)))
        trueup = [sys.executable, "-m", "trueup", "--workspace", f"{folder}/w"]
        quiet = {"env": _quiet(), "check": True, "capture_output": True, "cwd": ROOT}
        subprocess.run([sys.executable, "-m", "trueup", "init", f"{folder}/w"], **quiet)  # type: ignore[call-overload]
        subprocess.run([*trueup, "data", "add", str(rows), "--kind", "demonstrations", "--name", "rows"], **quiet)  # type: ignore[call-overload]
        settings = ["--set", "steps=1", "--set", "batch_size=1", "--set", "run.tensorboard=false"]
        before = time.perf_counter()
        subprocess.run([*trueup, "train", "sft", "--base", base, "--data", "rows", *settings], **quiet)  # type: ignore[call-overload]
        return time.perf_counter() - before


def _quiet() -> dict[str, str]:
    return os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1", "TRUEUP_QUIET": "1",
    }  # fmt: skip


# --- in a process of its own


def _measure(stage: str, place: str, base: str, count: int) -> dict[str, float]:
    """A stage over the first `count` rows, once a few rows have loaded whatever it needs."""
    _work(stage, place, base, 8)
    before = time.process_time()
    tokens = _work(stage, place, base, count)
    return {"cpu": time.process_time() - before, "tokens": tokens}


def _work(stage: str, place: str, base: str, count: int) -> int:
    """The tokens that were written, or learnt from."""
    import trueup

    with tempfile.TemporaryDirectory() as folder, trueup.Workspace.create(Path(folder) / "w") as ws:
        data = trueup.add_data(ws, _first(place, count, folder), "demonstrations", heldout=0.0).artifact
        if stage == "sample":
            return _written(trueup.sample(ws, model=base, prompts=data, **{"sampling.max_new_tokens": 16}, **ONE))
        steps = -(-count // 16)
        settings = {"steps": steps, "batch_size": min(16, count), "run.tensorboard": False, "model.adapter": "none"}
        trueup.sft(ws, base=base, data=data, **ONE, **settings)
        return int(sum(row["tokens"] for row in trueup.Run.load(ws, ws.run_rows()[-1].id).metrics()))


def _first(place: str, count: int, folder: str) -> str:
    with open(f"{place}/rows.jsonl") as file:
        lines = [line for _, line in zip(range(count), file, strict=False)]
    path = Path(folder) / "some.jsonl"
    path.write_text("".join(lines))
    return str(path)


def _written(made: Any) -> int:
    from trueup.loading import read_completions

    return sum(len(completion.tokens) or len(completion.text.split()) for completion in read_completions(made))


def iterations_of_rl(place: str, base: str, iterations: int) -> dict[str, list[float]]:
    """What the process holds after each iteration of reinforcement learning, and the CPU seconds so far."""
    import trueup
    from trueup.runs import Run

    seen: dict[str, list[float]] = {"mib": [], "cpu": []}
    log = Run.log

    def counted(run: Run, step: int, values: Any) -> None:
        log(run, step, values)
        seen["mib"].append(resident_mib())
        seen["cpu"].append(time.process_time())

    Run.log = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, trueup.Workspace.create(Path(folder) / "w") as ws:
        data = trueup.add_data(ws, _first(place, 64, folder), "demonstrations", heldout=0.25).artifact
        reward = f"{Path(base).parent}/reward-model"
        trueup.rl(
            ws, policy=base, reward=reward, prompts=data, steps=iterations, prompts_per_step=4, samples_per_prompt=2,
            minibatches=2, epochs=1, **{"sampling.max_new_tokens": 8, "run.evaluate_every": 25}, **ONE,
            **{"run.checkpoint_every": 50, "run.tensorboard": False, "model.adapter": "none"},
        )  # fmt: skip
    return seen


def _text(found: dict[str, Any]) -> str:
    lines = []
    for stage, each in found["microseconds_a_token"].items():
        costs = ", ".join(f"{n:,}: {us:.0f}" for n, us in each.items())
        lines.append(
            f"{stage}: CPU microseconds a token, up to so many prompts: {costs}; "
            f"{found['rise'][stage]:.2f} times (at most {FLAT})"
        )
    mib, start = found["mib"], found["start_seconds"]
    lines.append(f"rl: an iteration at the end takes {found['rise']['rl']:.2f} times one at the start (at most {FLAT})")
    lines.append(
        f"memory over {mib['iterations']} iterations: {mib['settled']:.0f} MiB, at the end {mib['end']:.0f}: "
        f"{mib['rise']:+.1%} (at most {LEAK:.0%})"
    )
    lines.append(f"from the command to the end of its first step: {start['median']:.1f} s (below {SOON:g})")
    return "\n".join(lines)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    place, base, count = rest
    how = iterations_of_rl if what == "rl" else partial(_measure, what)
    print(json.dumps(how(place, base, int(count))))
