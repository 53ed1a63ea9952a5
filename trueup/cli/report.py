"""`trueup report`: runs as one page to read or to send, and what differs between two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError, TrueupError
from .command import Command, Result, workspace

if TYPE_CHECKING:
    from ..reports.run_charts import Chart


@click.command(
    "report",
    cls=Command,
    examples="""
    trueup report 20261121-0137-rl
    trueup report summariser --out summariser.html
    trueup report summariser --plots plots --png
    trueup report --diff 20261121-0137-rl 20261121-0240-rl
    """,
)
@click.argument("refs", metavar="RUN|MODEL...", nargs=-1, required=True)
@click.option("--diff", is_flag=True, help="What differs between two runs: settings, sources, results, curves, texts.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The page; else named after the first.",
)
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write every chart there as SVG, too.",
)
@click.option("--png", is_flag=True, help="With --plots: as PNG as well.")
def report(refs: tuple[str, ...], diff: bool, out: Path | None, plots: Path | None, png: bool) -> Result:
    """Write runs as one HTML file: what was done and from what, curves, texts side by side, events and cost.

    A run is told alone; of a model or other artifact, all runs that led to it and measured it. The file loads nothing
    and runs nothing, so it can be sent. docs/reports.md says how to read it.
    """
    from .. import reporting
    from ..reports.run_page import charts, difference_page, runs_page
    from ..store import atomic_write

    if diff and (len(refs) != 2 or plots):
        raise ConfigError("--diff takes two runs, and writes no plots", "trueup report --diff RUN RUN")
    if png and not plots:
        raise ConfigError("--png says how plots are written, and --plots where", "--plots DIR --png")
    with workspace() as ws:
        found = reporting.difference(ws, *refs) if diff else reporting.report(ws, refs)
    page = out or Path(f"{refs[0]}.html")
    atomic_write(page, (difference_page(found) if diff else runs_page(found)).encode())
    drawn = write_plots(charts(found), plots, png) if plots else []
    text = f"page {page}" + (f"\nplots {plots} ({len(drawn)})" if plots else "")
    return Result({"page": str(page), "plots": [str(path) for path in drawn], **found}, text, refused=_odd(found))


def _odd(found: Mapping[str, Any]) -> TrueupError | None:
    """The page is written all the same, and says it too."""
    told = found.get("runs") or [found["a"], found["b"]]
    gone = [f"run {each['run']}: {each['says']}" for run in told for each in run["missing"]]
    broken = [f"run {run['id']} is {run['status']}" for run in told if run["status"] in ("failed", "dead")]
    if not gone + broken:
        return None
    return TrueupError(f"the page tells of what is broken: {(gone + broken)[0]}", "look at the page")


def write_plots(drawn: Mapping[str, Chart], folder: Path, as_png: bool) -> list[Path]:
    from ..reports.raster import png
    from ..store import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, chart in drawn.items():
        for suffix, data in (("svg", chart.svg(width=480).encode()), *([("png", png(chart))] if as_png else [])):
            written.append(folder / f"{name}.{suffix}")
            atomic_write(written[-1], data)
    return written
