"""`trueup plan`: memory, time and cost of tuning a model on a machine, from its config alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from .command import Command, Result
from .text import printable, table

METHODS = ("all", "sft", "reward", "dpo", "kto", "ppo", "rloo", "grpo")
COUNT = click.IntRange(min=1)


@click.command(
    "plan",
    cls=Command,
    examples="""
    trueup plan --model llama-3-8b --gpu h100
    trueup plan --model ./my-model --method sft --gpu this --rows 5000
    trueup plan --model opt-13b --reward-model opt-350m --method ppo --gpu a100-80g --count 8 --sharded --price 4
    """,
)
@click.option("--model", required=True, metavar="MODEL", help="A known model such as llama-3-8b, a folder or a hub id.")
@click.option("--method", type=click.Choice(METHODS), default="all", show_default=True, help="all: sft, reward, ppo.")
@click.option("--gpu", default="this", show_default=True, help="Such as h100 or a100-80g; this or cpu are measured.")
@click.option("--count", type=COUNT, default=1, show_default=True, help="Devices, each with its share of the batch.")
@click.option("--sharded", is_flag=True, help="Weights and optimizer in parts over the devices, as ZeRO-3 and FSDP do.")
@click.option("--reward-model", default="", metavar="MODEL", help="What scores; by default the model's own size.")
@click.option("--adapter", type=click.Choice(["auto", "none", "lora"]), default="auto", show_default=True)
@click.option("--quantise", type=click.Choice(["none", "int8", "nf4"]), default="none", show_default=True)
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True)
@click.option("--value", type=click.Choice(["trunk", "own", "reward"]), default="trunk", help="The value model of PPO.")
@click.option("--rows", type=COUNT, default=10_000, show_default=True, help="Prompts, demonstrations or judgements.")
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--batch", type=COUNT, default=64, show_default=True, help="Rows a step, over all devices.")
@click.option("--micro-batch", type=click.IntRange(min=0), default=0, help="Rows at once [default: the most that fit]")
@click.option("--samples", type=COUNT, default=1, show_default=True, help="Completions a prompt, in RL.")
@click.option("--passes", type=COUNT, default=1, show_default=True, help="Passes over each rollout, in RL.")
@click.option("--minibatches", type=COUNT, default=1, show_default=True, help="Optimizer steps a pass, in RL.")
@click.option("--prompt-tokens", type=COUNT, default=256, show_default=True)
@click.option("--completion-tokens", type=COUNT, default=256, show_default=True)
@click.option("--price", type=click.FloatRange(min=0), default=0.0, help="Of one device and hour, in any currency.")
@click.option("--calibrate", is_flag=True, help="Measure this machine again; it is done once by itself.")
def plan(**asked: Any) -> Result:
    """What tuning a model would take on a machine: memory by part, seconds a step, hours, cost, the largest batch.

    No weights are downloaded. docs/plan.md says what the estimate counts and how near it comes.
    """
    from ..sizing.plan import Wish
    from ..sizing.plan import plan as made

    found = made(Wish(**asked))
    return Result(found, printable("\n\n".join(_shown(found))))


def _shown(found: Mapping[str, Any]) -> Iterator[str]:
    machine = found["machine"]
    yield f"{found['model']} on {machine['count']} x {machine['name']}, {machine['memory']['size']} ({machine['how']})"
    for stage in found["stages"]:
        yield "\n".join(_stage(stage))
    cost = f", cost {found['cost']:,.0f}" if "cost" in found else ""
    yield f"in all {found['hours']:,.2f} hours{cost}" + (f"\nnote: {found['note']}" if "note" in found else "")


def _stage(stage: Mapping[str, Any]) -> Iterator[str]:
    total = stage["memory_total"]
    trains = "LoRA" if stage["adapter"] else "all weights"
    yield f"{stage['stage']} ({trains}): {total['size']} in the phase '{total['when']}', {_fits(stage)}"
    yield table(["part", "size", "when"], [[p["part"], p["size"], p.get("when", "always")] for p in stage["memory"]])
    seconds = ", ".join(f"{phase} {value:.3g} s" for phase, value in stage["step_seconds"].items())
    yield f"a step: {seconds}; {stage['steps']:,} steps take {stage['hours']:,.2f} hours" + (
        f" and cost {stage['cost']:,.0f}" if "cost" in stage else ""
    )
    for change in stage.get("to_change", ()):
        verdict = "fits" if change["fits"] else "does not fit yet"
        yield f"change: {change['change']}: {change['needs']['size']}, {verdict}"


def _fits(stage: Mapping[str, Any]) -> str:
    if not stage["largest_batch"]:
        return "which does not fit, with one row at once neither"
    verdict = "which fits" if stage["fits"] else "which does not fit"
    return f"{verdict}; {stage['rows_at_once']:,} rows at once, at most {stage['largest_batch']:,}"
