"""`trueup demo`: the whole loop on the built-in world, from nothing."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..errors import Interrupted, WorkspaceError
from .command import Command, Result

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

    try:
        found = api.demo(where, seed, overopt, quick)
    except Interrupted as stopped:
        hint = f"start a new demo; of this one only the run can go on: {stopped.hint}"
        raise Interrupted(stopped.message, hint) from None
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
    from rich.console import Console

    from ..reports import print_summary

    on_screen = sys.stdout.isatty()
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=on_screen, width=None if on_screen else 80, highlight=False)
    print_summary(found, found["report"], console)
    return shown.getvalue().rstrip()
