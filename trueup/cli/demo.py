"""`trueup demo`: the whole loop on the built-in world, from nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import WorkspaceError
from .command import Command, Result
from .text import cell, table

DEFAULT = "trueup-demo"


@click.command(
    cls=Command,
    examples="""
    trueup demo
    trueup demo /tmp/demo --seed 7 --json
    trueup demo --overopt
    """,
)
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides everything random.")
@click.option("--overopt", is_flag=True, help="Also show over-optimisation: a weak reward model and no KL penalty.")
@click.option("--quick", is_flag=True, help="A much smaller loop: it shows that all works, not how well.")
def demo(folder: str | None, seed: int, overopt: bool, quick: bool) -> Result:
    """Run the whole loop offline on simulated people: pretrain, SFT, judge, reward model, RL, evaluate.

    DIR becomes a workspace like any other; by default ./trueup-demo, or the next free number after it.
    """
    where = Path(folder) if folder else free_folder(Path(DEFAULT))
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        raise WorkspaceError(f"{where} exists and is not empty", "give a new folder: the demo starts from nothing")
    from .. import api

    found = api.demo(where, seed, overopt, quick)
    return Result(found, summary(found))


def free_folder(base: Path) -> Path:
    """`base`, or the first of base-2, base-3, ... that does not exist."""
    number = 1
    path = base
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def summary(found: Mapping[str, Any]) -> str:
    """What the demo ends with: each stage, the win rates, posts side by side, and where to go on."""
    stages = [[s["name"], f"{s['seconds']:.1f}s", s["data"], s["result"]] for s in found["stages"]]
    rates = [[r["name"], f"{r['value']:.3f}", _interval(r["ci"]), r["n"]] for r in found["win_rates"]]
    return "\n\n".join(
        [
            table(["stage", "time", "data", "result"], stages),
            *(_side_by_side(sample) for sample in found["samples"]),
            table(["gold win rate, ties half", "value", "95% interval", "n"], rates),
            found["people"],
            f"{found['seconds']:.0f} seconds, seed {found['seed']}. The whole story: {found['report']}",
            "\n".join(["Next:", *(f"  {line}" for line in found["commands"])]),
        ]
    )


def _interval(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def _side_by_side(sample: Mapping[str, Any]) -> str:
    width = max(len(entry["who"]) for entry in sample["entries"])
    lines = [f"  {e['who']:<{width}}  gold {e['gold']:+.2f}  {cell(e['text'])}" for e in sample["entries"]]
    return "\n".join([cell(sample["post"]), *lines])
