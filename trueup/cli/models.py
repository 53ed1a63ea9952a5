"""`trueup sample`, `export` and `env`: using a model, taking it elsewhere, and where it would run."""

from __future__ import annotations

import click

from ..config import SampleConfig
from .command import Command, Result, chosen_workspace, progress, reward_option, workspace
from .settings import stage_settings
from .text import artifact_data, artifact_line, named


@click.command(
    cls=Command,
    examples="""
    trueup sample --model sft --prompts posts --per-prompt 4 --name drafts
    trueup sample --model sft --prompts posts --set sampling.temperature=0
    trueup sample --model sft --prompts posts --best-of 8 --reward judge --name best
    trueup sample --model sft --prompts posts --best-of 8 --reward help=judge --reward short=./rules.py:brevity
    """,
)
@click.option("--model", required=True, metavar="MODEL", help="Who writes: an artifact, a folder or a hub id.")
@click.option("--prompts", required=True, metavar="ID", help="What to answer.")
@reward_option("With --best-of, what says which is best")
@click.option("--name", default="", help="A name for the completion set, to use in place of its id.")
@stage_settings("sample")
def sample(model: str, prompts: str, reward: tuple[str, ...], name: str, config: SampleConfig) -> Result:
    """Let a model answer prompts; the completions become an artifact. With --best-of only the best of n is kept."""
    from .. import api
    from ..inputs import named_scorers

    scorer = named_scorers(reward)
    with workspace() as ws:
        artifact = api.sample(ws, model=model, prompts=prompts, reward=scorer, config=config, name=name)
        return Result(artifact_data(artifact, ws.names()), artifact_line(artifact, name))


@click.command(
    cls=Command,
    examples="""
    trueup ensemble judge1 judge2 judge3 judge4 --name jury
    trueup ensemble monday tuesday
    """,
)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--name", default="", help="A name for the ensemble, to use in place of its id.")
def ensemble(models: tuple[str, ...], name: str) -> Result:
    """Make one reward model of several that were trained with different seeds; it also says how far they agree.

    LoRA reward models on one base share its weights in memory.
    """
    from .. import api

    with workspace() as ws:
        artifact = api.ensemble(ws, models, name=name)
        return Result(artifact_data(artifact, ws.names()), artifact_line(artifact, name))


@click.command(
    cls=Command,
    examples="""
    trueup export tuned ./tuned-model
    trueup export tuned ./tuned-model --merge
    trueup export tuned ./tuned-adapter --base ./base-model
    """,
)
@click.argument("ref", metavar="ID")
@click.argument("folder", metavar="DIR")
@click.option("--merge", is_flag=True, help="Merge a LoRA adapter into its base: one plain transformers model.")
@click.option("--base", default="", metavar="MODEL", help="What an adapter is to call its base: a folder or a hub id.")
def export(ref: str, folder: str, merge: bool, base: str) -> Result:
    """Write a model as a plain transformers or PEFT folder, with tokenizer, chat template and model card."""
    from .. import api
    from ..exporting import caution

    with workspace() as ws:
        written = api.export(ws, ref, folder, merge, base)
    note = caution(written)
    if note:
        progress(f"note: {note}")
    return Result({"folder": str(written), "note": note}, str(written))


@click.command(
    cls=Command,
    examples="""
    trueup env
    trueup env --json
    """,
)
def env() -> Result:
    """Print versions, the device and the number type that `auto` would choose here and why, and the workspace."""
    from .. import api

    found = api.environment(chosen_workspace())
    return Result(found, named(found))
