"""`trueup feedback` and `trueup eval`: who judges completions, and which model is better."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..config import CollectionConfig
from .command import Group, Result, workspace
from .help import help_judges
from .quality import ASKING
from .settings import stage_settings
from .team import TEAM, read_text
from .text import artifact_data, artifact_line, counted, named, table
from .tokens import token
from .winrate import winrate

if TYPE_CHECKING:
    from ..feedback.status import Status


@click.group(
    cls=Group,
    examples="""
    trueup feedback collect --name titles --prompts posts --model sft --per-prompt 4
    trueup feedback status titles
    trueup feedback freeze titles --name votes
    """,
)
def feedback() -> None:
    """Have completions judged: by people in a collection, or by simulated ones."""


@feedback.command(
    "collect",
    examples="""
    trueup feedback collect --name titles --completions drafts --guideline titles.md
    trueup feedback collect --name titles --prompts posts --model sft --model tuned --per-prompt 2 --overlap 3
    trueup feedback collect --name ranked --completions drafts --task ranking --config ranked.toml --golds golds.jsonl
    """,
)
@click.option("--name", required=True, help="The collection's name; the same name again goes on with it.")
@click.option(
    "--completions", multiple=True, metavar="ID", help="A completion set, or judgements whose texts are judged anew."
)
@click.option("--prompts", metavar="ID", help="Instead: prompts that are to be answered now.")
@click.option("--model", "models", multiple=True, metavar="ID", help="Who answers them; may be repeated, stays hidden.")
@click.option(
    "--per-prompt", type=click.IntRange(min=1), default=4, show_default=True, help="Completions of each --model."
)
@click.option("--temperature", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Of the sampling.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Length limit when sampling."
)
@click.option(
    "--guideline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Markdown that everybody reads before they judge; another text is a new version.",
)
@click.option(
    "--golds",
    default="",
    metavar="FILE|NAME",
    help="Items with a known answer, the first ones for the qualification; or a collection in which people agreed.",
)
@click.option(
    "--items-per-prompt", type=click.IntRange(min=1), default=1, show_default=True, help="Such as pairs of a prompt."
)
@click.option(
    "--per-item",
    type=click.IntRange(0, 9),
    default=0,
    help="Completions shown together [default: 2 in a pair, else all]",
)
@click.option(
    "--heldout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of prompts whose judgements are kept for evaluation.",
)
@click.option("--limit", type=click.IntRange(min=0), default=0, help="How many of the prompts [default: all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides everything random.")
@stage_settings("collection")
def collect(
    name: str,
    completions: tuple[str, ...],
    prompts: str | None,
    models: tuple[str, ...],
    per_prompt: int,
    temperature: float,
    max_new_tokens: int,
    guideline: Path | None,
    golds: str,
    items_per_prompt: int,
    per_item: int,
    heldout: float,
    limit: int,
    seed: int,
    config: CollectionConfig,
) -> Result:
    """Put completions before people. The models that wrote them stay hidden; `trueup label` opens the collection."""
    from .. import api

    with workspace() as ws:
        made = api.collect(
            ws,
            name,
            completions=completions,
            prompts=prompts,
            models=models,
            per_prompt=per_prompt,
            sampling={"temperature": temperature, "max_new_tokens": max_new_tokens},
            config=config,
            guideline=read_text(guideline) if guideline else "",
            golds=golds,
            items_per_prompt=items_per_prompt,
            per_item=per_item,
            heldout=heldout,
            limit=limit,
            seed=seed,
        )
    return Result(made.to_json(), named(made.to_json()) + f"\n\ntrueup label {name}")


@feedback.command(
    "status",
    examples="""
    trueup feedback status
    trueup feedback status titles --json
    """,
)
@click.argument("collection", metavar="[NAME]", required=False)
def status(collection: str | None) -> Result:
    """Progress of a collection: items, judgements, people, time left. Without a name, of all of them in a line each."""
    from .. import api
    from ..feedback import status as progress
    from ..store import queue

    with workspace() as ws:
        if collection is not None:
            found = api.status(ws, collection)
            return Result(found.to_json(), _status_text(found))
        now = time.time()
        every = [progress.status(ws, each.id, now, leaks=False) for each in queue.collections(ws.database)]
    rows = [[each.name, each.state, each.task, each.judgements, each.needed, each.working] for each in every]
    columns = ["name", "state", "task", "judgements", "needed", "working"]
    text = table(columns, rows, empty="no collection yet: `trueup feedback collect` makes one")
    return Result([each.to_json() for each in every], text)


@feedback.command(
    "retrain",
    examples="""
    trueup feedback retrain relabel --votes add --name reward-mine
    trueup feedback retrain relabel --votes only-mine --judge me
    trueup feedback retrain titles --judge human:abc234 --steps 40
    """,
)
@click.argument("collection", metavar="NAME")
@click.option(
    "--votes",
    type=click.Choice(["add", "only-mine"]),
    default="add",
    show_default=True,
    help="Add people's judgements to those the model learnt from, or learn from theirs alone.",
)
@click.option(
    "--judge", default="", metavar="JUDGE", help="One person's votes: a pseudonym, or 'me' [default: all people]"
)
@click.option("--reward", default="reward", show_default=True, metavar="ID", help="The reward model to train again.")
@click.option(
    "--steps", type=click.IntRange(min=0), default=0, help="Optimizer steps [default: half of the first time]"
)
@click.option("--name", default="", help="A name for the new reward model.")
def retrain(collection: str, **settings: Any) -> Result:
    """Train a reward model again with what people said, and see whether it agrees with them more than before.

    Agreement is measured on judgements that it did not learn from: held-out ones where there are a hundred, else each
    half by a model that learnt from the other half.
    """
    from .. import api

    with workspace() as ws:
        found = api.retrain(ws, collection, **settings)
    agreement = found["agreement"]
    whose = _whose(agreement["with"])
    lines = [
        named({key: value for key, value in found.items() if key not in ("agreement", "judges")}),
        "",
        *(_share(whose, when, agreement[when]) for when in ("before", "after")),
        f"tested on {agreement['tested_on']}: n = {agreement['n']} prompts, {agreement['gained']} gained, "
        f"{agreement['lost']} lost",
        f"of {found['known_before']} tested judgements the model before knew what others said about the prompt",
        agreement["verdict"],
    ]
    return Result(found, "\n".join(lines))


def _whose(judges: Sequence[str]) -> str:
    return judges[0] if len(judges) == 1 else f"{len(judges)} people"


def _share(whose: str, when: str, found: dict[str, Any]) -> str:
    low, high = found["ci"]
    return f"agreement with {whose} {when:<6}  {found['value']:.3f} [{low:.3f}, {high:.3f}], n={found['n']}"


def _status_text(found: Status) -> str:
    items = [
        [role, *(states[state] for state in ("open", "full", "quarantined"))] for role, states in found.items.items()
    ]
    people = [
        [each.judge, each.name, each.done, each.skipped, each.repeats, each.surplus, each.seconds]
        for each in found.people
    ]
    left = "unknown" if found.hours_left is None else f"{found.hours_left:g} hours"
    parts = [
        f"collection {found.name} ({found.id}), {found.state}, task {found.task}, guideline version {found.guideline}",
        table(["items", "open", "full", "quarantined"], items),
        f"judgements {found.judgements}, still needed {found.needed}, people at work {found.working}",
        table(
            ["judge", "name", "done", "skipped", "repeats", "surplus", "seconds"], people, empty="nobody has judged yet"
        ),
        f"time left: {left} ({found.assumption})",
    ]
    if found.warning:
        parts.append(f"warning: {found.warning}")
    parts += [f"no one takes category {name}: {counted(n, 'item')}" for name, n in found.nobody_takes.items()]
    if found.leaks:
        parts.append(
            f"{found.leaks} items have a completion that names a model or its maker: look at them (see --json)"
        )
    return "\n\n".join(parts)


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


for command in (*ASKING, help_judges, *TEAM, token):
    feedback.add_command(command)


@click.group(
    "eval",
    cls=Group,
    examples="""
    trueup eval winrate tuned sft --prompts heldout --judge gold
    """,
)
def evaluate() -> None:
    """Measure models against one another."""


evaluate.add_command(winrate)
