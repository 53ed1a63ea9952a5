"""`trueup eval overopt`: whether the score of an RL run was worth climbing, and which checkpoint to ship."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .command import Command, Result, workspace
from .text import printable, table


@click.command(
    "overopt",
    cls=Command,
    examples="""
    trueup eval overopt 20261121-0137-rl --judge second-reward
    trueup eval overopt 20261121-0137-rl --judge gold --chart overopt.svg
    """,
)
@click.argument("run", metavar="RUN")
@click.option(
    "--judge", "judges", multiple=True, metavar="ID",
    help="Who was not trained on: a reward model, a function as FILE.py:NAME, or 'gold'. Of several the first decides.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="CPU threads; 0: all cores.")
@click.option("--chart", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The curves as SVG.")
def overopt(run: str, judges: tuple[str, ...], threads: int, chart: Path | None) -> Result:
    """Whether the score of an RL run was worth climbing: what judges say of each evaluation, against √KL.

    Reads the held-out completions that the run kept. Says where each score was highest and how sure it is that it fell
    afterwards, fits the published law with intervals, and names the step to ship. docs/reports.md says how to read it.
    """
    from ..climbing import overopt as measure
    from ..reports.overopt_chart import overopt_chart
    from ..store import atomic_write

    with workspace() as ws:
        found = measure(ws, run, judges=judges, threads=threads)
    if chart:
        atomic_write(chart, overopt_chart(found, width=640).encode())
    return Result(found, _shown(found) + (f"\n\nchart {chart}" if chart else ""))


def _shown(found: Mapping[str, Any]) -> str:
    from ..reports.overopt_chart import verdict

    rows = [
        [step, f"{found['distance'][i]:.2f}", *(_cell(curve, i) for curve in found["curves"].values())]
        for i, step in enumerate(found["steps"])
    ]
    parts = [printable(verdict(found)), table(["step", "√KL", *found["curves"]], rows)]
    laws = [[name, *_law(curve["law"])] for name, curve in found["curves"].items() if curve["law"]]
    if laws:
        fitted = table(["score", "a", "b", "highest at √KL"], laws)
        parts.append(f"gain = d (a - b ln d) with d = √KL\n{fitted}")
    return "\n\n".join(parts)


def _cell(curve: Mapping[str, Any], place: int) -> str:
    return f"{curve['mean'][place]:.3g} [{curve['low'][place]:.3g}, {curve['high'][place]:.3g}]"


def _law(law: Mapping[str, Any]) -> list[str]:
    ends = ["beyond" if end is None else f"{end:.2f}" for end in law["peak_ci"]]
    top = "nowhere" if law["peak"] is None else f"{law['peak']:.2f} [{', '.join(ends)}]"
    each = [f"{law[name]['value']:.2f} [{law[name]['ci'][0]:.2f}, {law[name]['ci'][1]:.2f}]" for name in "ab"]
    return [*each, top]
