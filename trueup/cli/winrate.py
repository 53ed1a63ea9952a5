"""`trueup eval winrate`: which of several models is better, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..config import WinrateConfig
from ..errors import TrueupError
from .command import Command, Result, reward_option, workspace
from .settings import stage_settings
from .team import read_text
from .text import printable, table


@click.command(
    "winrate",
    cls=Command,
    examples="""
    trueup eval winrate tuned sft --prompts heldout --judge gold
    trueup eval winrate tuned sft --prompts heldout --judge judge --best-of 8 --reward judge
    trueup eval winrate tuned dpo sft --prompts heldout --judge people:which --guideline titles.md
    trueup eval winrate tuned sft --prompts heldout --judge http://127.0.0.1:8000/v1#qwen3 --limit 200
    trueup eval winrate tuned http://127.0.0.1:8000/v1#qwen3 --prompts heldout --judge judge
    """,
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.argument("others", metavar="[MORE]...", nargs=-1)
@click.option("--prompts", required=True, metavar="ID", help="What all of them answer.")
@click.option(
    "--judge",
    required=True,
    metavar="JUDGE",
    help="A reward model, a Python function as FILE.py:NAME, a language model (here, or URL#MODEL behind a server), "
    "people:NAME for people in the collection NAME, judgements, or 'gold' in the built-in world.",
)
@click.option(
    "--guideline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What the judge goes by: Markdown that people read, or that is put to a language model.",
)
@reward_option("By what B picks its best of --best-of")
@stage_settings("winrate")
def winrate(
    a: str,
    b: str,
    others: tuple[str, ...],
    prompts: str,
    judge: str,
    guideline: Path | None,
    reward: tuple[str, ...],
    config: WinrateConfig,
) -> Result:
    """How often model A's answer is better than B's; ties count half, with a 95% interval.

    Also between answers of equal length, in slices of the prompts, and how many more pairs would settle it; of more
    than two models every two of them, and Bradley-Terry ratings. A model, a model behind a server or a completion set
    may answer. A language model that judges is asked in both orders. docs/evaluation.md says how to read it.
    """
    from .. import api
    from ..inputs import named_scorers

    given = {"guideline": read_text(guideline)} if guideline else {}
    if given and not judge.startswith("people:"):
        asked = config.asked.model_copy(update=given)
        config, given = config.model_copy(update={"asked": asked}), {}
    with workspace() as ws:
        names = {identity: name for name, identity in ws.names().items()}
        found = api.winrate(
            ws, a=a, b=b, others=others, prompts=prompts, judge=judge, config=config, reward=named_scorers(reward),
            **given,
        )  # fmt: skip
    missing = sum(found.get("missing", {}).values())
    wrong = TrueupError(f"{missing:,} pairs have no verdict", "asked.missing allowed for it") if missing else None
    return Result(found, printable(_text(found, names)), refused=wrong)


def _text(found: Mapping[str, Any], names: Mapping[str, str]) -> str:
    from ..reports import standings

    waiting = found.get("waiting")
    lines = []
    if waiting:
        lines.append(
            f"collection {waiting['collection']}: {waiting['judgements']:,} judgements, {waiting['needed']:,} more are "
            f"needed. People judge in the browser: trueup label {waiting['collection']}"
        )
    if "models" not in found:
        return "\n".join(lines)
    if "ratings" in found:
        lines.append(standings.order(found, names))
        columns = ["rank", "model", "rating", "95% interval", "votes"]
        lines.append(table(columns, standings.rating_rows(found, names)))
        columns = ["pair", "n", "won", "at equal length", "better"]
        lines.append(table(columns, standings.pair_rows(found, names)))
    elif "value" in found:
        a, b = (standings.called(model, names) for model in found["models"])
        lines.append(standings.sentence(found, a, b))
        lines.append(
            f"wins {found['wins']:,}, ties {found['ties']:,}, losses {found['losses']:,}; sign test p = "
            f"{found['p_value']:.2g}; words {found['words_a']:.1f} and {found['words_b']:.1f}"
        )
        if found["slices"]:
            lines.append(table(["slice", "", "n", "won", "95% interval"], standings.slice_rows(found["slices"])))
    else:
        lines.append("Nothing could be compared.")
    lines += standings.remarks(found, names)
    return "\n\n".join([*lines, f"evaluation {found['evaluation']}"])
