"""Pairs a second of training a reward model, trueup beside TRL's RewardTrainer.

    python -m benchmarks reward --rounds 3

Both train the same random Llama on the same pairs, with the same batch, optimizer and threads, in turns and in
processes of their own, so that what else the machine does meets both. First both say the loss of the same sixteen pairs
from the same weights: if these differ, the rest means nothing. Work per CPU second decides; wall seconds are shown.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from .material import SHAPES, make
from .peers import trl_python

HERE = Path(__file__).parent
SAME_LOSS = 1e-5


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), default="5m", show_default=True)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Pairs an optimizer step.")
@click.option("--steps", type=click.IntRange(2), default=16, show_default=True)
@click.option("--skip", type=click.IntRange(1), default=3, show_default=True, help="Steps before the clock starts.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--trl", "python", metavar="PYTHON", help="Python of an environment with TRL; by default one is made.")
@click.option("--json", "as_json", is_flag=True)
def reward(
    shape: str, batch: int, steps: int, skip: int, rounds: int, threads: int, python: str | None, as_json: bool
) -> None:
    """Training a reward model, beside TRL."""
    other = python or trl_python("1.16.0")
    programs = {"trueup": (sys.executable, "reward_trueup.py"), "trl": (other, "reward_trl.py")}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder), shape)
        words = [
            str(each) for each in (made.language_model, made.reward_model, made.pairs, batch, steps, skip, threads)
        ]
        for number in range(rounds):
            for name in sorted(programs, reverse=bool(number % 2)):
                click.echo(f"round {number + 1}: {name}", err=True)
                results[name].append(_run(*programs[name], words))
    found = _compared(results) | {"shape": shape, "batch": batch, "threads": threads}
    click.echo(json.dumps(found, indent=1) if as_json else _text(found))
    sys.exit(0 if found["ok"] else 1)


def _run(python: str, program: str, words: list[str]) -> dict[str, Any]:
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRUEUP_QUIET": "1",
        "PYTHONPATH": str(HERE.parent) if program == "reward_trueup.py" else "",
    }  # fmt: skip
    done = subprocess.run([python, str(HERE / program), *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise click.ClickException(f"{program} failed: {done.stderr.strip().splitlines()[-1:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _compared(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    ours, theirs = results["trueup"], results["trl"]
    rates = {name: [each["pairs"] / each["cpu_seconds"] for each in rows] for name, rows in results.items()}
    ratios = [a / b for a, b in zip(rates["trueup"], rates["trl"], strict=True)]
    difference = max(abs(a - b) for a, b in zip(ours[0]["losses"], theirs[0]["losses"], strict=True))
    return {
        "loss_difference": difference,
        "tokens": {name: rows[0]["tokens"] for name, rows in results.items()},
        "ratio": {"median": statistics.median(ratios), "all": ratios},
        "pairs_per_cpu_second": rates,
        "pairs_per_second": {name: [e["pairs"] / e["seconds"] for e in rows] for name, rows in results.items()},
        "mib_beyond_imports": {name: [e["mib"] for e in rows] for name, rows in results.items()},
        "versions": {name: rows[0]["version"] for name, rows in results.items()},
        "ok": difference < SAME_LOSS and ours[0]["tokens"] == theirs[0]["tokens"],
    }


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"loss of the same {found['batch']} pairs differs by at most {found['loss_difference']:.1e}; "
        f"tokens {found['tokens']['trueup']:,} and {found['tokens']['trl']:,}",
        f"ratio of pairs per CPU second: {found['ratio']['median']:.2f} "
        f"({min(found['ratio']['all']):.2f} to {max(found['ratio']['all']):.2f})",
    ]
    for name in ("trueup", "trl"):
        rate, wall = (statistics.median(found[key][name]) for key in ("pairs_per_cpu_second", "pairs_per_second"))
        mib = statistics.median(found["mib_beyond_imports"][name])
        lines.append(
            f"{name} {found['versions'][name]}: {rate:.2f} pairs per CPU second, {wall:.2f} a second, {mib:,.0f} MiB"
        )
    return "\n".join(lines)
