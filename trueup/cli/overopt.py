"""`trueup eval overopt`: whether the score of an RL run was worth climbing, and which checkpoint to ship."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .command import Command, Result, workspace
from .team import read_text
from .text import printable, table


@click.command(
    "overopt",
    cls=Command,
    examples="""
    trueup eval overopt 20261121-0137-rl --judge second-reward
    trueup eval overopt 20261121-0137-rl --judge gold --judge minimum --chart overopt.svg
    trueup eval overopt 20261121-0137-rl --judge people:worth-it --guideline titles.md
    trueup eval overopt sixteen --reward reward --judge second-reward
    """,
)
@click.argument("run", metavar="RUN|COMPLETIONS")
@click.option(
    "--judge", "judges", multiple=True, metavar="ID",
    help="Who was not trained on: a reward model, a function as FILE.py:NAME, 'gold', or 'minimum' of the run's own "
    "ensemble; 'people:NAME' asks people, in the collection NAME. Of several the first decides.",
)  # fmt: skip
@click.option("--reward", metavar="ID", help="Of a completion set: by what the best of n is chosen.")
@click.option("--guideline", type=click.Path(path_type=Path), metavar="FILE", help="Of people: what they judge by.")
@click.option("--limit", type=click.IntRange(2), default=50, show_default=True, help="Of people: how many prompts.")
@click.option("--threads", type=click.IntRange(0), default=0, show_default=True, help="CPU threads; 0: all cores.")
@click.option("--chart", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The curves as SVG.")
def overopt(
    run: str,
    judges: tuple[str, ...],
    reward: str | None,
    guideline: Path | None,
    limit: int,
    threads: int,
    chart: Path | None,
) -> Result:
    """Whether the score of an RL run, or of a best-of-n, was worth climbing: what judges say, against √KL.

    Reads the held-out completions that the run kept, or a set with several completions to each prompt. Says where each
    score was highest and how sure it is that it fell afterwards, fits the published law with intervals, and names what
    to ship. docs/reports.md says how to read it.
    """
    from ..climbing import overopt as measure
    from ..reports.overopt_chart import overopt_chart
    from ..store import atomic_write

    with workspace() as ws:
        words = read_text(guideline) if guideline else ""
        found = measure(ws, run, judges=judges, reward=reward, guideline=words, limit=limit, threads=threads)
    if chart:
        atomic_write(chart, overopt_chart(found, width=640).encode())
    return Result(found, _shown(found) + (f"\n\nchart {chart}" if chart else ""))


def _shown(found: Mapping[str, Any]) -> str:
    from ..reports.overopt_chart import how_to_ship, verdict

    rows = [
        [step, f"{found['distance'][i]:.2f}", *(_cell(curve, i) for curve in found["curves"].values())]
        for i, step in enumerate(found["steps"])
    ]
    first = "n" if found["way"] == "best-of-n" else "step"
    way = how_to_ship(found)
    parts = [printable(verdict(found)) + (f"\n{way}" if way else ""), table([first, "√KL", *found["curves"]], rows)]
    laws = [[name, *_law(curve["law"])] for name, curve in found["curves"].items() if curve["law"]]
    if laws:
        fitted = table(["score", "a", "b", "highest at √KL"], laws)
        law = "d (a - b d)" if found["way"] == "best-of-n" else "d (a - b ln d)"
        parts.append(f"gain = {law} with d = √KL\n{fitted}")
    else:
        away = sum(distance > 0 for distance in found["distance"])
        parts.append(f"No law is fitted: that takes four evaluations away from the start, and there are {away}.")
    parts += [_asked(name, each) for name, each in found["people"].items()]
    return "\n\n".join(parts)


def _asked(name: str, told: Mapping[str, Any]) -> str:
    """How far people have come: they compare with the start, so a half is no better than it."""
    steps = ", ".join(map(str, told["steps"]))
    words = (
        f"{name}: the share of prompts on which they prefer the texts of step {steps} to the start's; "
        f"{told['judged']} of {told['prompts']} prompts are judged whole, {told['judgements']} judgements"
    )
    go_on = f", {told['needed']} still wanted: trueup label {told['collection']}, then the same command again"
    return printable(words + (go_on if told["needed"] else ""))


def _cell(curve: Mapping[str, Any], evaluation: int) -> str:
    if evaluation not in curve["places"]:
        return "-"
    place = curve["places"].index(evaluation)
    return f"{curve['mean'][place]:.3g} [{curve['low'][place]:.3g}, {curve['high'][place]:.3g}]"


def _law(law: Mapping[str, Any]) -> list[str]:
    ends = ["beyond" if end is None else f"{end:.2f}" for end in law["peak_ci"]]
    top = "nowhere" if law["peak"] is None else f"{law['peak']:.2f} [{', '.join(ends)}]"
    each = [f"{law[name]['value']:.2f} [{law[name]['ci'][0]:.2f}, {law[name]['ci'][1]:.2f}]" for name in "ab"]
    return [*each, top]
