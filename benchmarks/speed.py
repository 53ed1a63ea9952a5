"""trueup and its peers side by side on the same work: ratios of what a second of the processor does.

    python -m benchmarks speed [--quick] [--only ROW]...

Every row is a job of trueup's and one of TRL's (or transformers'), with the same models, data, threads, optimizer steps
and learning rate, each in a process of its own, in turns and in several rounds. Each finished process is kept in
`.bench`: started again, the command goes on where it stopped, until the code changes.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from .lengths import Natural
from .material import sizes_of
from .speed_rows import NOT_MEASURED, Row, Side, Size, rows
from .speed_run import ROOT, Failed, Plan, measured, run_side
from .speed_table import gold_results, judged, text, write_into

RESULTS, PAGE = ROOT / "docs" / "results", ROOT / "docs" / "benchmarks.md"
MACHINE = Side("this machine", "speed_machine", "rates")


def _shape(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        if value:
            sizes_of(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return value


def _range(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    low, _, high = value.partition(":")
    if not (low.isdigit() and high.isdigit() and 0 < int(low) <= int(high)):
        raise click.BadParameter("two numbers of tokens, as 24:40", ctx, param)
    return int(low), int(high)


@click.command()
@click.option("--quick", is_flag=True, help="A small shape, one round: whether it works, not how fast it is.")
@click.option("--only", multiple=True, metavar="ROW", help="This row; may be given several times.")
@click.option("--rounds", type=click.IntRange(1), help="How often each side runs; 3, quickly 1.")
@click.option("--shape", callback=_shape, help="5m, 27m or HIDDENxLAYERSxVOCABULARY, as 384x6x8192; for every row.")
@click.option("--prompt-lengths", default="24:40", show_default=True, callback=_range, help="Tokens, evenly.")
@click.option("--completion-mean", type=click.FloatRange(2), default=30.0, show_default=True, help="Natural lengths.")
@click.option("--completion-lengths", default="5:128", show_default=True, callback=_range, help="What they are cut to.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["fastest", "float32", "bfloat16"]),
    default="fastest",
    show_default=True,
    help="trueup's in ppo-27m.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for speed.json.")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), default=ROOT / ".bench", help="Work folder.")
@click.option("--write-docs", is_flag=True, help="Also put the table into docs/benchmarks.md.")
@click.option("--list", "listing", is_flag=True, help="Show the rows, run nothing.")
@click.option("--json", "as_json", is_flag=True)
def speed(
    quick: bool, only: tuple[str, ...], rounds: int | None, shape: str | None, prompt_lengths: tuple[int, int],
    completion_mean: float, completion_lengths: tuple[int, int], threads: int, dtype: str, out: Path | None, work: Path,
    write_docs: bool, listing: bool, as_json: bool,
) -> None:  # fmt: skip
    """trueup beside TRL: PPO, RLOO, GRPO, reward model, DPO, SFT, sampling, memory."""
    if write_docs and (quick or only):
        raise click.UsageError(
            "the page shows all rows at their size: --write-docs goes with neither --quick nor --only"
        )
    size = Size.quick() if quick else Size()
    if shape:
        size = Size(**vars(size) | {"shape": shape, "large": shape})
    chosen = _chosen(rows(size, Natural(completion_mean, *completion_lengths), dtype), only)
    if listing:
        click.echo("\n".join(_listed(chosen)))
        return
    plan = Plan(size.shape, rounds or (1 if quick else 3), threads, prompt_lengths, completion_mean, work.resolve())
    found = compared(chosen, plan) | {"quick": quick, "only": list(only)}
    usual = not (quick or only) and size.shape == Size().shape  # of another shape nobody looked for gold
    found |= {"gold": gold_results(RESULTS) if usual else []}
    _keep(found, out or (None if quick or only else RESULTS))
    if write_docs:
        write_into(PAGE, found)
    click.echo(json.dumps(found, indent=1) if as_json else text(found))
    sys.exit(0 if found["ok"] else 1)


def compared(chosen: list[Row], plan: Plan) -> dict[str, Any]:
    rates = run_side(MACHINE, {"job": MACHINE.job, "threads": plan.threads})
    try:
        lines = measured(chosen, plan, lambda what: click.echo(what, err=True))
    except Failed as error:
        raise click.ClickException(str(error)) from None
    shapes = {row.name: sizes_of(row.shape or plan.shape) for row in chosen}
    each = {row.name: judged(row, lines[row.name], shapes[row.name], rates) for row in chosen}
    return {
        "shape": plan.shape,
        "rounds": plan.rounds,
        "threads": plan.threads,
        "prompt_lengths": plan.prompt_lengths,
        "completion_mean": plan.completion_mean,
        "machine": rates,
        "at": datetime.now(UTC).strftime("%Y-%m-%d"),
        "minutes": sum(side.get("took", 0) for each in lines.values() for sides in each for side in sides.values())
        / 60,
        "rows": each,
        "ok": all(row["ok"] for row in each.values()),
    }


def _chosen(every: list[Row], only: tuple[str, ...]) -> list[Row]:
    names = [row.name for row in every]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(names)}", param_hint="--only")
    return [row for row in every if not only or row.name in only]


def _listed(chosen: list[Row]) -> list[str]:
    lines = [
        f"{row.name:<16} {row.said}: {' beside '.join(side.name for side in row.sides)}; "
        f"at {'most' if row.memory else 'least'} {row.least:g}, aim {row.aim:g}"
        for row in chosen
    ]
    return lines + [f"{each.name:<16} {each.said}: not measured, {each.why}" for each in NOT_MEASURED]


def _keep(found: dict[str, Any], folder: Path | None) -> None:
    """A part of the rows, or a quick run, is kept only where it is asked for."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "speed.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
