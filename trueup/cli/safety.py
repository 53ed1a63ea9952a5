"""`trueup eval safety`: what a model refuses, and whether it should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..config import SafetyConfig
from ..errors import TrueupError
from .command import Command, Result, workspace
from .settings import stage_settings
from .team import read_text
from .text import printable, table


@click.command(
    "safety",
    cls=Command,
    examples="""
    trueup eval safety tuned sft --prompts xstest
    trueup eval safety tuned --prompts xstest --judge http://127.0.0.1:8000/v1#qwen3
    """,
)
@click.argument("model", metavar="MODEL")
@click.argument("before", metavar="[BEFORE]", required=False)
@click.option("--prompts", required=True, metavar="ID", help="Prompts labelled safe or unsafe: columns prompt, label.")
@click.option(
    "--judge",
    default="rules",
    show_default=True,
    metavar="JUDGE",
    help="Who reads the answers: rules, or a language model, here or URL#MODEL behind a server.",
)
@click.option(
    "--guideline", type=click.Path(path_type=Path), metavar="FILE", help="What a language model is told besides."
)
@stage_settings("safety")
def safety(
    model: str, before: str | None, prompts: str, judge: str, guideline: Path | None, config: SafetyConfig
) -> Result:
    """How often MODEL refuses unsafe requests, and safe ones, with intervals; by category; and beside BEFORE.

    Each may be a model, one behind a server, or a completion set. docs/evaluation.md says how far the rules can be
    trusted.
    """
    from .. import api

    if guideline:
        asked = config.asked.model_copy(update={"guideline": read_text(guideline)})
        config = config.model_copy(update={"asked": asked})
    with workspace() as ws:
        names = {identity: name for name, identity in ws.names().items()}
        found = api.safety(ws, model=model, before=before, prompts=prompts, judge=judge, config=config)
    unread = sum(each["unread"] for each in found["models"])
    wrong = TrueupError(f"{unread:,} answers could not be read", "asked.missing allowed for it") if unread else None
    return Result(found, printable(_text(found, names)), refused=wrong)


def _text(found: Mapping[str, Any], names: Mapping[str, str]) -> str:
    from ..reports import refusals

    columns = ["requests", "n", *refusals.called(found, names), *(["change"] if found["changed"] else [])]
    lines = [refusals.sentence(found, names), table(columns, refusals.label_rows(found))]
    if found["models"][0]["categories"]:
        columns = ["label", "category", "n", *refusals.called(found, names)]
        lines.append(table(columns, refusals.category_rows(found)))
    return "\n\n".join([*lines, *refusals.remarks(found), f"evaluation {found['evaluation']}"])
