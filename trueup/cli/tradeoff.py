"""`trueup eval tradeoff`: what one objective of a reward model costs another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..config.tradeoff import TradeoffConfig
from .command import Command, Result, workspace
from .settings import stage_settings
from .text import printable, table

ENDS_AND_MIDDLE = (0.0, 0.25, 0.5, 0.75, 1.0)


@click.command(
    "tradeoff",
    cls=Command,
    examples="""
    trueup eval tradeoff judge drafts
    trueup eval tradeoff judge drafts --weights 21 --out tradeoff
    trueup eval tradeoff judge votes --set scoring.objectives='[{name = "helpful"}, {name = "harmless", at_least = 0}]'
    """,
)
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write result.json and card.html here as well."
)
@stage_settings("tradeoff")
def tradeoff(model: str, data: str, out: Path | None, config: TradeoffConfig) -> Result:
    """What one objective of a reward model costs another, when the best completion of each prompt is chosen.

    DATA is a completion set with several of each prompt, or judgements. Writes figures and a page with the frontier of
    every two objectives as an artifact. docs/reward-models.md says how to read it.
    """
    from .. import auditing

    with workspace() as ws:
        found = auditing.tradeoff(ws, model=model, data=data, out=out, config=config)
    where = str(out / auditing.CARD) if out else found["card"]
    return Result(found, _shown(found, where))


def _shown(found: Mapping[str, Any], where: str) -> str:
    from ..reports.tradeoff import headline

    parts = [f"{found['completions']:,} completions of {found['prompts']:,} prompts ({found['taken']})"]
    if found["alone"]:
        parts[0] += f"; left out, prompts with a single completion: {found['alone']:,}"
    if found["too_long"]:
        parts[0] += f"; left out, completions longer than it reads: {found['too_long']:,}"
    for pair in found["pairs"]:
        parts += [printable(headline(pair)), _table(pair)]
    return "\n\n".join([*parts, f"evaluation {found['evaluation']}\ncard {where}"])


def _table(pair: Mapping[str, Any]) -> str:
    """The ends of the frontier and what lies evenly between them, the floors, and the scoring of this run."""
    points = pair["frontier"]
    places = sorted({round(share * (len(points) - 1)) for share in ENDS_AND_MIDDLE})
    rows = [[f"{points[i]['weight']:.2f} {pair['a']}", *_sides(points[i]), ""] for i in places]
    rows += [
        [f"{row['kept']} >= {row['at_least']:g}", *_sides(row), f"{row['held']['value']:.1%}"] for row in pair["floors"]
    ]
    rows += [["as set", *_sides(pair["chosen"]), ""], ["any one", *_sides(pair["any"]), ""]]
    return table(["chosen by", pair["a"], pair["b"], "floor holds"], rows)


def _sides(row: Mapping[str, Any]) -> list[str]:
    return [f"{row[side]['value']:+.2f}" for side in "ab"]
