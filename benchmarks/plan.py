"""What a plan says beside what was measured: memory and time of a step, for every stage, at two shapes.

    python -m benchmarks plan
    python -m benchmarks plan --json --out docs/results/plan.json

Every row is one stage through the public API in a process of its own, for a few steps. Memory is the most that the
process ever held beyond what it held after its imports, by the system's count. A step's time is seconds of the
processor shared out over the threads, the median of the steps between the first and the last. The plan is made in
another process, from the model's config and the data.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from .adapters_memory import prepare
from .measured import peak_mib, resident_mib

ROOT = Path(__file__).parents[1]
STEPS, BATCH, NEW = 5, 16, 64
MEMORY_WITHIN, TIME_WITHIN = 0.15, 0.30

ALL, LORA = {"model.adapter": "none"}, {"model.adapter": "lora"}
RL = {"minibatches": 1, "epochs": 1, "sampling.max_new_tokens": NEW, "sampling.batch_size": BATCH}
PPO = RL | {"prompts_per_step": BATCH, "samples_per_prompt": 1}
GROUPS = RL | {"prompts_per_step": BATCH // 4, "samples_per_prompt": 4}
UPDATES = PPO | {"minibatches": 4, "epochs": 4, "sampling.batch_size": 64}  # as `benchmarks speed` has them
ROWS: dict[str, tuple[str, str, dict[str, Any]]] = {  # the stage, its reward model, its settings
    "SFT": ("sft", "", ALL | {"batch_size": BATCH}),
    "SFT, LoRA": ("sft", "", LORA | {"batch_size": BATCH}),
    "reward": ("reward", "", ALL | {"batch_size": BATCH}),
    "DPO": ("dpo", "", ALL | {"batch_size": BATCH}),
    "PPO": ("rl", "whole", ALL | PPO),
    "PPO, own critic": ("rl", "whole", ALL | PPO | {"value.model": "own"}),
    "PPO, adapters": ("rl", "adapter", LORA | PPO | {"value.model": "own"}),
    "RLOO": ("rl", "whole", ALL | GROUPS | {"estimator": "rloo"}),
    "GRPO": ("rl", "whole", ALL | GROUPS | {"estimator": "grpo"}),
    "PPO, 64 prompts, 16 updates": ("rl", "whole", ALL | UPDATES | {"prompts_per_step": 64}),
    "PPO, 16 prompts x 8, 16 updates": (
        "rl",
        "whole",
        ALL | UPDATES | {"prompts_per_step": 16, "samples_per_prompt": 8},
    ),
    "RLOO, 16 updates": (
        "rl",
        "whole",
        ALL | UPDATES | {"prompts_per_step": 16, "samples_per_prompt": 4, "estimator": "rloo"},
    ),
    "PPO, bfloat16, 32 prompts, 8 updates": (
        "rl",
        "whole",
        ALL | UPDATES | {"prompts_per_step": 32, "minibatches": 2, "model.dtype": "bfloat16"},
    ),
    "PPO, adapters, 32 prompts, 2 updates": (
        "rl",
        "adapter",
        LORA | UPDATES | {"prompts_per_step": 32, "minibatches": 2, "epochs": 1, "value.model": "own"},
    ),
    "SFT, bfloat16": ("sft", "", ALL | {"batch_size": BATCH, "model.dtype": "bfloat16"}),
    "PPO, bfloat16": ("rl", "whole", ALL | PPO | {"model.dtype": "bfloat16"}),
    "SFT, 2 threads": ("sft", "", ALL | {"batch_size": BATCH, "run.threads": 2}),
    "PPO, 2 threads": ("rl", "whole", ALL | PPO | {"run.threads": 2}),
}

SMALL, LONG = "5m", ("PPO, 64 prompts, 16 updates", "PPO, 16 prompts x 8, 16 updates", "RLOO, 16 updates")
LARGE = ("PPO, bfloat16, 32 prompts, 8 updates", "PPO, adapters, 32 prompts, 2 updates")  # as the benchmark has at 27M


@click.command("plan")
@click.option("--shapes", default="5m,27m", show_default=True, help="With commas between them.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(ROWS)), metavar="ROW", help="Of the rows, this one; again."
)
@click.option("--json", "as_json", is_flag=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the result there as JSON as well.")
def plan(shapes: str, only: Sequence[str], as_json: bool, out: Path | None) -> None:
    """Predicted memory and time of every stage, beside measured."""
    elsewhere = {True: LARGE, False: LONG}  # rows that take too long at one shape, or mean little at the other
    asked = [
        (shape, [row for row in only or ROWS if row not in elsewhere[shape == SMALL]]) for shape in shapes.split(",")
    ]
    found = beside([row for shape, rows in asked for row in _of_shape(shape, rows)])
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")
    click.echo(json.dumps(found, indent=1) if as_json else _text(found))
    sys.exit(0 if found["ok"] else 1)


def beside(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How far each prediction is from what was measured, as a share of that."""
    each = [
        dict(row) | {f"{what}_off": row["predicted"][what] / row["measured"][what] - 1 for what in ("mib", "seconds")}
        for row in rows
    ]
    furthest = {what: max(abs(row[f"{what}_off"]) for row in each) for what in ("mib", "seconds")}
    ok = furthest["mib"] <= MEMORY_WITHIN and furthest["seconds"] <= TIME_WITHIN
    return {"rows": each, "furthest": furthest, "ok": ok}


def _of_shape(shape: str, rows: Sequence[str]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        base = prepare(Path(folder), shape)
        words = [str(Path(folder) / "w"), base]
        measured = {row: _run("measured", row, words) for row in rows}
        return [
            {"shape": shape, "row": row, "measured": found, "predicted": _run("predicted", row, words)}
            for row, found in measured.items()
        ]


def _run(what: str, row: str, words: Sequence[str]) -> dict[str, float]:
    click.echo(f"{row}: {what}", err=True)
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1", "TRUEUP_QUIET": "1", "TRUEUP_CACHE": str(Path(words[0]).parent / "machines"),
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.plan", what, row, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise click.ClickException(f"'{row}' failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    click.echo(f"  {found['mib']:,.0f} MiB, {found['seconds']:.2f} s a step", err=True)
    return found


def _asked(row: str, base: str) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The stage, its inputs and its settings."""
    stage, reward, settings = ROWS[row]
    run = {"run.threads": 1, "run.tensorboard": False, "run.evaluate_every": 10**6, "model.device": "cpu"}
    inputs = {
        "sft": {"base": base, "data": "rows"},
        "reward": {"base": base, "data": "pairs"},
        "dpo": {"policy": base, "data": "pairs"},
        "rl": {"policy": base, "reward": reward, "prompts": "rows"},
    }[stage]
    return stage, inputs, run | {"steps": STEPS} | settings


def measured(row: str, workspace: str, base: str) -> dict[str, float]:
    """The stage itself, in this process."""
    import peft  # noqa: F401  what importing costs is not what a stage costs
    import transformers.models.llama.modeling_llama  # noqa: F401

    import trueup
    import trueup.train.dpo
    import trueup.train.reward
    import trueup.train.rl
    import trueup.train.sft  # noqa: F401

    stage, inputs, settings = _asked(row, base)
    before = resident_mib()
    with trueup.Workspace.open(Path(workspace)) as ws:
        getattr(trueup, stage)(ws, **inputs, **settings)
        peak = peak_mib()
        at = {line["step"]: line["cpu"] for line in trueup.Run.load(ws, ws.run_rows()[-1].id).timing()}
    steps = [at[step] - at[step - 1] for step in range(2, STEPS)]  # the last one also evaluates
    threads: int = settings.get("run.threads", 1)
    return {"mib": peak - before, "seconds": statistics.median(steps) / threads}


def predicted(row: str, workspace: str, base: str) -> dict[str, float]:
    """The plan of the same stage, from its config and data."""
    import trueup
    from trueup.config import load
    from trueup.planning import plan_stage, stage_seconds

    stage, inputs, settings = _asked(row, base)
    config = load(stage, sets=[f"{key}={json.dumps(value)}" for key, value in settings.items()])
    with trueup.Workspace.open(Path(workspace)) as ws:
        memory = plan_stage(ws, stage, inputs, config)["memory_total"]["bytes"] / 2**20
        phases = stage_seconds(ws, stage, inputs, config)
    once = phases.pop("reference", 0.0)  # before the first step
    return {"mib": memory, "seconds": sum(phases.values()), "before": once} | phases


def _text(found: dict[str, Any]) -> str:
    lines = [f"{'':35} {'MiB':>8} {'planned':>8} {'off':>6}   {'s a step':>12} {'planned':>8} {'off':>6}"]
    for row in found["rows"]:
        said, was = row["predicted"], row["measured"]
        lines.append(
            f"{row['shape'] + ' ' + row['row']:35} {was['mib']:8,.0f} {said['mib']:8,.0f} {row['mib_off']:+6.0%}   "
            f"{was['seconds']:12.2f} {said['seconds']:8.2f} {row['seconds_off']:+6.0%}"
        )
    furthest = found["furthest"]
    lines.append(
        f"memory is off by at most {furthest['mib']:.0%} (at most {MEMORY_WITHIN:.0%}), "
        f"time by {furthest['seconds']:.0%} (at most {TIME_WITHIN:.0%})"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps({"measured": measured, "predicted": predicted}[sys.argv[1]](*sys.argv[2:])))
