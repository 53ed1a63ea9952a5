"""`trueup data`: prompts, demonstrations and judgements come in and go out here, and can be looked at."""

from __future__ import annotations

from collections import Counter

import click

from ..config.audit import ScoreConfig
from .command import Group, Result, reward_option, workspace
from .quality import coverage
from .settings import stage_settings
from .text import artifact_data, artifact_line, counted, printable, shortened, table

SHOWN_SKIPPED = 20


@click.group(
    cls=Group,
    examples="""
    trueup data add demonstrations.jsonl --kind demonstrations --name demos
    trueup data show demos --model HuggingFaceTB/SmolLM2-135M
    trueup data export votes votes.jsonl
    """,
)
def data() -> None:
    """Add data files to the workspace, look at them, write them for other software."""


def _mapping(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [pair.partition("=") for value in values for pair in value.split(",")]
    if wrong := [field for field, equals, column in pairs if not (field.strip() and equals and column.strip())]:
        raise click.BadParameter(f"'{wrong[0]}' is not FIELD=COLUMN, such as prompt=question", ctx, param)
    fields = [field.strip() for field, _, _ in pairs]
    if twice := [field for field in fields if fields.count(field) > 1]:
        raise click.BadParameter(f"'{twice[0]}' is mapped twice", ctx, param)
    return {field.strip(): column.strip() for field, _, column in pairs}


@data.command(
    "add",
    examples="""
    trueup data add prompts.jsonl --kind prompts
    trueup data add answers.csv --kind demonstrations --map prompt=question,completion=answer
    trueup data add votes.parquet --kind preferences --map prompt=question,chosen=best,rejected=worst --name votes
    trueup data add trees.jsonl.gz --kind preferences --format oasst --name rankings
    trueup data add drafts.csv --kind completions --name drafts
    """,
)
@click.argument("file")
@click.option(
    "--kind",
    required=True,
    type=click.Choice(["prompts", "demonstrations", "preferences", "unpaired", "completions"]),
    help="What each row is; unpaired: one completion that somebody liked or did not; completions: still to be judged.",
)
@click.option(
    "--format",
    "shape",
    default="",
    metavar="NAME",
    help="Which data set's columns they are: hh-rlhf, trl-preference, oasst, ... Without it the columns decide.",
)
@click.option(
    "--map",
    "mapping",
    multiple=True,
    callback=_mapping,
    metavar="FIELD=COLUMN,...",
    help="Which column holds which field, where the names differ. Nothing is guessed.",
)
@click.option(
    "--heldout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of prompts whose judgements are kept for evaluation.  [default: 0.1; a raw export keeps its own]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides which those are.")
@click.option(
    "--skip-malformed",
    is_flag=True,
    help="Leave out and count what cannot be read: lines that are not JSON or UTF-8, CSV rows too long or too short.",
)
@click.option("--first", type=click.IntRange(min=1), help="Read no more than the first so many rows.")
@click.option("--name", default="", help="A name for the artifact, to use in place of its id.")
@click.pass_context
def add(
    ctx: click.Context,
    file: str,
    kind: str,
    shape: str,
    mapping: dict[str, str],
    heldout: float | None,
    seed: int,
    skip_malformed: bool,
    first: int | None,
    name: str,
) -> Result:
    """Read FILE (JSONL, CSV, Parquet, or the id of a Hugging Face data set) into an artifact.

    Rows that cannot be used are left out, counted and listed. If the file itself is broken, nothing is imported.
    """
    given = [o for o in ("heldout", "seed") if ctx.get_parameter_source(o) is click.core.ParameterSource.COMMANDLINE]
    if given and kind not in ("preferences", "unpaired"):
        raise click.UsageError(f"--{given[0]} has a meaning only with --kind preferences or unpaired", ctx)
    from .. import api

    with workspace() as ws:
        report = api.add_data(
            ws,
            file,
            kind,
            mapping,
            format=shape,
            name=name,
            heldout=heldout,
            seed=seed,
            skip_malformed=skip_malformed,
            first=first or 0,
        )
        found = artifact_data(report.artifact, ws.names())
    skipped = [{"where": where, "reason": reason} for where, reason in report.skipped]
    reasons = dict(Counter(reason for _, reason in report.skipped).most_common())
    found |= {"rows": report.rows, "recognised": report.recognised, "notes": dict(report.notes)}
    found |= {"skipped": skipped, "reasons": reasons}
    lines = [f"{artifact_line(report.artifact, name)}: {counted(report.rows, 'row')}, {len(skipped):,} skipped"]
    lines.append(f"  read as {report.recognised}")
    lines += [f"  {count:,} {note}" for note, count in report.notes.items()]
    lines += [f"  skipped {row['where']}: {row['reason']}" for row in skipped[:SHOWN_SKIPPED]]
    if len(skipped) > SHOWN_SKIPPED:
        lines.append(f"  and {len(skipped) - SHOWN_SKIPPED:,} more (--json lists them all); of all:")
        lines += [f"  {count:,} x {reason}" for reason, count in reasons.items()]
    return Result(found, printable("\n".join(lines)))


@data.command(
    "export",
    examples="""
    trueup data export votes votes.jsonl
    trueup data export votes pairs.parquet --format trl-preference --conversational --split train
    trueup data export votes votes.csv --format table
    """,
)
@click.argument("ref", metavar="ID")
@click.argument("file")
@click.option(
    "--format",
    "view",
    default="raw",
    show_default=True,
    type=click.Choice(["raw", "table", "trl-preference", "trl-unpaired", "trl-prompt-completion", "trl-prompt"]),
    help="raw loses nothing; table is one flat row a completion, to read and not to add again; the others are TRL's.",
)
@click.option("--conversational", is_flag=True, help="Prompts and completions as messages, not as texts (TRL formats).")
@click.option("--split", type=click.Choice(["train", "heldout"]), help="Only this side of the split.")
@click.option(
    "--number-judges", is_flag=True, help="Call the judges judge-1, judge-2, ... in place of their pseudonyms."
)
def export(ref: str, file: str, view: str, conversational: bool, split: str | None, number_judges: bool) -> Result:
    """Write a data artifact to a new FILE: .jsonl, .jsonl.gz, .csv, .parquet, or no ending for a `datasets` folder.

    What a format cannot say is left out and counted: a tie is no pair.
    """
    from .. import api

    with workspace() as ws:
        report = api.export_data(
            ws, ref, file, view, conversational=conversational, split=split or "", number_judges=number_judges
        )
    reasons = dict(Counter(reason for _, reason in report.left_out).most_common())
    found = {"path": str(report.path), "format": view, "rows": report.rows, "notes": dict(report.notes)}
    lines = [f"{report.path}: {counted(report.rows, 'row')} as {view}, {len(report.left_out):,} left out"]
    lines += [f"  {count:,} {note}" for note, count in report.notes.items()]
    lines += [f"  {count:,} x {reason}" for reason, count in reasons.items()]
    return Result({**found, "left_out": len(report.left_out), "reasons": reasons}, printable("\n".join(lines)))


@data.command(
    "join",
    examples="""
    trueup data join helpful=votes1 harmless=votes2 --name both
    trueup data join monday tuesday --name week
    """,
)
@click.argument("sets", metavar="[OBJECTIVE=]ID...", nargs=-1, required=True)
@click.option("--name", default="", help="A name for the joined set, to use in place of its id.")
def join(sets: tuple[str, ...], name: str) -> Result:
    """Make one set of several sets of judgements, each marked as made on an objective if you name one.

    A prompt that is held out in one of them is held out in the joined set.
    """
    from .. import api

    named = [
        (objective, ref) if equals else given for given in sets for objective, equals, ref in [given.partition("=")]
    ]
    with workspace() as ws:
        artifact = api.join_data(ws, named, name=name)
        return Result(artifact_data(artifact, ws.names()), artifact_line(artifact, name))


@data.command(
    "contrast",
    examples="""
    trueup data contrast demos drafts --name shown
    """,
)
@click.argument("demonstrations", metavar="DEMONSTRATIONS")
@click.argument("completions", metavar="COMPLETIONS")
@click.option(
    "--heldout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of prompts whose judgements are kept for evaluation.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides which those are.")
@click.option("--name", default="", help="A name for the set, to use in place of its id.")
def contrast(demonstrations: str, completions: str, heldout: float, seed: int, name: str) -> Result:
    """Make judgements of demonstrations: each is better than every completion of its prompt in a completion set.

    Nobody compared the two, so a reward model learns to tell who wrote a text. docs/reward-models.md says when that
    misleads.
    """
    from ..contrasting import contrast_data

    with workspace() as ws:
        made = contrast_data(ws, demonstrations, completions, heldout=heldout, seed=seed, name=name)
        found = artifact_data(made.artifact, ws.names())
    unused = {
        "completions of prompts without a demonstration": made.undemonstrated,
        "demonstrations of prompts without a completion": made.unanswered,
        "completions that are a demonstration word for word": made.equal,
    }
    lines = [f"{artifact_line(made.artifact, name)}: {counted(made.judgements, 'judgement')}"]
    lines += [f"  left out, {what}: {count:,}" for what, count in unused.items() if count]
    return Result({**found, "judgements": made.judgements, "left_out": unused}, "\n".join(lines))


@data.command(
    "show",
    examples="""
    trueup data show demos
    trueup data show demos --model 3fd2c8a1 --rows 3
    """,
)
@click.argument("ref", metavar="ID")
@click.option("--model", metavar="MODEL", help="Show rows as this model sees them: an artifact, a folder or a hub id.")
@click.option("--rows", type=click.IntRange(min=0), default=5, show_default=True, help="How many rows to show.")
def show(ref: str, model: str | None, rows: int) -> Result:
    """Print rows of a data artifact as a model sees them: template applied, trained tokens marked, lengths."""
    from .. import api

    with workspace() as ws:
        found = api.show_data(ws, ref, model=model, rows=rows)
    return Result(found, printable(shortened(found["text"])))


@data.command(
    "reject",
    examples="""
    trueup data reject drafts --reward judge --name best
    trueup data reject drafts --reward judge --keep top-share --share 0.1
    trueup data reject drafts --reward judge --keep threshold --threshold 1.0
    """,
)
@click.argument("completions", metavar="COMPLETIONS")
@reward_option("What scores them, where scores that are stored with them are not to be taken")
@click.option(
    "--keep",
    type=click.Choice(["best", "top-share", "threshold"]),
    default="best",
    show_default=True,
    help="The best of each prompt, the best share of all, or every one from a score on.",
)
@click.option("--share", type=float, help="With top-share: how much is kept, such as 0.1.")
@click.option("--threshold", type=float, help="With threshold: the lowest score that is kept.")
@click.option("--name", default="", help="A name for the demonstrations, to use in place of their id.")
@stage_settings("score")
def reject(
    completions: str,
    reward: tuple[str, ...],
    keep: str,
    share: float | None,
    threshold: float | None,
    name: str,
    config: ScoreConfig,
) -> Result:
    """Make demonstrations of the best of what a model wrote (rejection sampling), for `trueup train sft`."""
    from .. import rejecting
    from ..inputs import named_scorers

    with workspace() as ws:
        artifact = rejecting.reject(
            ws,
            completions=completions,
            reward=named_scorers(reward),
            keep=keep,  # type: ignore[arg-type]
            share=share,
            threshold=threshold,
            scoring=config.scoring,
            settings=config.model,
            threads=config.threads,
            name=name,
        )
        found, meta = artifact_data(artifact, ws.names()), artifact.meta
    line = f"{artifact_line(artifact, name)}: {counted(meta['rows'], 'row')}, {meta['rejected']:,} rejected"
    line += f"; mean score {meta['mean_score']:.3f}, of all {meta['mean_score_before']:.3f}"
    return Result(found, line)


@data.command(
    "world",
    examples="""
    trueup data world
    trueup data world --seed 7 --prompts 500
    """,
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides every word.")
@click.option(
    "--pretraining", type=click.IntRange(min=0), default=3000, show_default=True, help="Posts to pretrain on."
)
@click.option(
    "--demonstrations", type=click.IntRange(min=0), default=2000, show_default=True, help="Posts with one summary each."
)
@click.option(
    "--prompts",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Posts to have judged completions of.",
)
@click.option("--posts", type=click.IntRange(min=0), help="Posts to train on with RL; by default as many as --prompts.")
@click.option(
    "--heldout", type=click.IntRange(min=0), default=300, show_default=True, help="Posts kept for evaluation."
)
def world(seed: int, pretraining: int, demonstrations: int, prompts: int, posts: int | None, heldout: int) -> Result:
    """Write the data of the built-in world: posts to summarise, made by a program. The people in it are simulated."""
    from .. import api

    with workspace() as ws:
        made = api.make_world(ws, seed, pretraining, demonstrations, prompts, heldout, posts)
        names = ws.names()
    text = table(["what", "kind", "id"], [[what, artifact.kind, artifact.id] for what, artifact in made.items()])
    return Result({what: artifact_data(artifact, names) for what, artifact in made.items()}, text)


data.add_command(coverage)
