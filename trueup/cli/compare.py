"""`trueup eval compare`: models on one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ..config import CompareConfig
from ..errors import ConfigError, TrueupError
from .command import Command, Result, workspace
from .settings import stage_settings
from .text import printable, table


@click.command(
    "compare",
    cls=Command,
    examples="""
    trueup eval compare sft dpo tuned --prompts heldout --judge second-reward --reference sft
    trueup eval compare sft best-of-8 tuned --prompts heldout --judge gold --reference sft --text demos
    trueup eval compare sft tuned --prompts heldout --measure toxic=./toxic-classifier --measure short=rules.py:short
    """,
)
@click.argument("first", metavar="FIRST")
@click.argument("others", metavar="OTHER...", nargs=-1, required=True)
@click.option("--prompts", required=True, metavar="ID", help="What all of them answer.")
@click.option(
    "--judge",
    default="",
    metavar="JUDGE",
    help="As in `trueup eval winrate`, but for people:NAME; without one nobody judges.",
)
@click.option("--reference", metavar="ID", help="The model that KL is measured to, such as the SFT model.")
@click.option("--text", metavar="ID", help="Demonstrations of other work: how much more they surprise a model.")
@click.option(
    "--measure",
    "measures",
    multiple=True,
    metavar="NAME=ID",
    help="A further scorer: a classifier, a reward model or FILE.py:NAME.",
)
@stage_settings("compare")
def compare(
    first: str,
    others: tuple[str, ...],
    prompts: str,
    judge: str,
    reference: str | None,
    text: str | None,
    measures: tuple[str, ...],
    config: CompareConfig,
) -> Result:
    """Models on one table, each beside FIRST: wins, KL, length, variety, repetition, refusals, what it forgot, cost.

    Each may be a model, one behind a server, or a completion set: `trueup sample --best-of 8` makes one of best-of-n.
    Answers to the prompts on which they differ most stand in `trueup report RUN`.
    """
    from .. import api
    from ..inputs import named_scorers

    named = named_scorers(measures)
    if isinstance(named, str):
        raise ConfigError(f"'{named}' has no name to stand on the table", "give it one: --measure NAME=ID")
    with workspace() as ws:
        names = {identity: name for name, identity in ws.names().items()}
        found = api.compare(
            ws, [first, *others], prompts=prompts, judge=judge, reference=reference, text=text, measures=named,
            config=config,
        )  # fmt: skip
    missing = sum(found["judge"].get("missing", {}).values())
    wrong = TrueupError(f"{missing:,} pairs have no verdict", "asked.missing allowed for it") if missing else None
    return Result(found, printable(_text(found, names)), refused=wrong)


def _text(found: Mapping[str, Any], names: Mapping[str, str]) -> str:
    from ..reports import besides

    lines = [besides.sentence(found, names), table(besides.columns(found, names), besides.rows(found))]
    return "\n\n".join([*lines, *besides.remarks(found, names), f"evaluation {found['evaluation']}"])
