"""The end of `trueup demo` in a terminal: what happened, how long it took, five posts, where the page is, what next.

Everything is handed to rich as `Text`, never as markup, with hidden characters spelled out: a completion cannot colour
the screen, move the cursor or ring the bell. Piped into a file it is plain text of 80 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from . import wording
from .visible import clipped, visible

POST_LIMIT, TEXT_LIMIT = 320, 400  # characters: a screen is no place for a runaway completion


def print_summary(result: Mapping[str, Any], page: Path | str, console: Console | None = None) -> None:
    """The same dict as the page, for the screen; sections that were not measured are left out."""
    console = console or Console(highlight=False)
    write = _Writer(console)
    for block in (
        _paragraph(write, wording.headline(result), f"{wording.SIMULATED} {result.get('people', '')}"),
        _stages(write, result) if result.get("stages") else None,
        _win_rates(write, result["win_rates"]) if result.get("win_rates") else None,
        _reward_models(write, result["reward_models"]) if result.get("reward_models") else None,
        *(_sample(write, *numbered) for numbered in enumerate(result.get("samples") or (), 1)),
    ):
        if block is not None:
            console.print(block, highlight=False)
            console.print()
    # Unwrapped, so that a path or a command can be copied whole.
    console.print(write("The whole story, one page:", "bold"))
    console.print(write(f"  {page}"), soft_wrap=True)
    if commands := result.get("commands"):
        console.print()
        console.print(write("Next:", "bold"))
        for command in commands:
            console.print(write(f"  {command}"), soft_wrap=True)


class _Writer:
    """Text that this console can show: no hidden characters, none that its encoding lacks."""

    def __init__(self, console: Console) -> None:
        self.encoding = console.encoding or "ascii"

    def __call__(self, text: object, style: str = "") -> Text:
        shown = visible(text).expandtabs(4)
        return Text(shown.encode(self.encoding, "backslashreplace").decode(self.encoding), style=style)


def _paragraph(write: _Writer, first: str, second: str) -> RenderableType:
    return Group(write(first, "bold"), Text(), write(second.strip()))


def _table(write: _Writer, title: str, *columns: str, right: Sequence[int] = ()) -> Table:
    table = Table(
        title=write(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )
    table.box = box.ASCII2 if write.encoding == "ascii" else table.box
    for index, column in enumerate(columns):
        numeric = index in right
        table.add_column(write(column), justify="right" if numeric else "left", no_wrap=numeric)
    return table


def _stages(write: _Writer, result: Mapping[str, Any]) -> Table:
    table = _table(write, "Stages", "stage", "time", "data", "result", right=(1,))
    for stage in result["stages"]:
        cells = (stage["name"], wording.duration(stage["seconds"]), stage.get("data", ""), stage.get("result", ""))
        table.add_row(*map(write, cells))
    table.add_row(*map(write, ("in all", wording.duration(wording.total_seconds(result)))))
    return table


def _win_rates(write: _Writer, rates: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("by gold score, held-out posts", "won", "95% interval", "n")
    table = _table(write, "Win rates (ties half)", *columns, right=(1, 2, 3))
    for rate in rates:
        ci = wording.percent_range(rate.get("ci"))
        table.add_row(*map(write, (rate["name"], wording.percent(rate["value"]), ci, wording.number(rate["n"]))))
    return table


def _reward_models(write: _Writer, models: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("reward model", "accuracy", "95% interval", "ceiling", "by gold", "n")
    table = _table(write, "Accuracy on held-out judgements", *columns, right=(1, 2, 3, 4, 5))
    for model in models:
        shares = [wording.percent(model.get(key)) for key in ("ceiling", "gold_accuracy")]
        accuracy, ci = wording.percent(model["accuracy"]), wording.percent_range(model.get("ci"))
        table.add_row(*map(write, (model["name"], accuracy, ci, *shares, wording.number(model["n"]))))
    return table


def _sample(write: _Writer, number: int, sample: Mapping[str, Any]) -> RenderableType:
    """The post, and under it what each wrote, side by side with its gold score."""
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
    said = []
    for entry in sample["entries"]:
        gold = wording.points(entry.get("gold"))
        table.add_column(write(entry["who"] + (f"  (gold {gold})" if gold else "")), ratio=1, overflow="fold")
        said.append(write(clipped(str(entry["text"]), TEXT_LIMIT)))
    table.add_row(*said)
    post = write(clipped(str(sample["post"]), POST_LIMIT), "dim")
    return Group(write(f"Post {number}", "bold"), post, Padding(table, (0, 0, 0, 2)))
