"""`trueup feedback` and `trueup eval`: who judges completions, and which model is better."""

from __future__ import annotations

import click

from ..config import WinrateConfig
from .command import Group, Result, workspace
from .settings import stage_settings
from .text import artifact_data, artifact_line, named


@click.group(
    cls=Group,
    examples="""
    trueup feedback simulate drafts --name votes
    """,
)
def feedback() -> None:
    """Have completions judged."""


@feedback.command(
    "simulate",
    examples="""
    trueup feedback simulate drafts --name votes
    trueup feedback simulate drafts --seed 3 --pairs-per-prompt 2
    """,
)
@click.argument("completions", metavar="COMPLETIONS")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides who judges what and how."
)
@click.option(
    "--pairs-per-prompt", type=click.IntRange(min=1), default=6, show_default=True, help="Judgements for each prompt."
)
@click.option(
    "--heldout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.15,
    show_default=True,
    help="Share of prompts whose judgements are kept for evaluation.",
)
@click.option("--name", default="", help="A name for the preference set, to use in place of its id.")
def simulate(completions: str, seed: int, pairs_per_prompt: int, heldout: float, name: str) -> Result:
    """Let the simulated people of the built-in world judge a completion set; the result is a preference set."""
    from .. import api

    with workspace() as ws:
        artifact = api.simulate(
            ws, completions=completions, seed=seed, pairs_per_prompt=pairs_per_prompt, name=name, heldout=heldout
        )
        return Result(artifact_data(artifact, ws.names()), artifact_line(artifact, name))


@click.group(
    "eval",
    cls=Group,
    examples="""
    trueup eval winrate tuned sft --prompts heldout --judge gold
    """,
)
def evaluate() -> None:
    """Measure models against one another."""


@evaluate.command(
    "winrate",
    examples="""
    trueup eval winrate tuned sft --prompts heldout --judge gold
    trueup eval winrate tuned sft --prompts heldout --judge judge --best-of 8 --reward judge
    """,
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--prompts", required=True, metavar="ID", help="What both answer.")
@click.option(
    "--judge", required=True, metavar="ID", help="A reward model, or 'gold': the true score of the built-in world."
)
@click.option("--reward", metavar="ID", help="The reward model by which B picks its best of --best-of.")
@stage_settings("winrate")
def winrate(a: str, b: str, prompts: str, judge: str, reward: str | None, config: WinrateConfig) -> Result:
    """How often model A's answer is better than B's; ties count half, with a 95% interval."""
    from .. import api

    with workspace() as ws:
        found = api.winrate(ws, a=a, b=b, prompts=prompts, judge=judge, config=config, reward=reward)
    return Result(found, named(found))
