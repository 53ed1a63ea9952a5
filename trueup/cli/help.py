"""`trueup feedback help`: what helpers say, given to the judges of a collection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import Command, Result, workspace
from .team import read_text
from .text import counted, printable

if TYPE_CHECKING:
    from ..feedback.helping import Given


@click.command(
    "help",
    cls=Command,
    examples="""
    trueup feedback help titles critiques.jsonl
    trueup feedback help titles --scores reward
    trueup feedback help titles --writer sft --kind critique --max-new-tokens 80
    """,
)
@click.argument("collection", metavar="NAME")
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--scores", metavar="ID", help="A reward model: which completion it prefers, by how much.")
@click.option("--writer", metavar="ID", help="A model that writes about each completion.")
@click.option(
    "--kind", type=click.Choice(["critique", "summary"]), default="critique", show_default=True, help="What it writes."
)
@click.option("--template", type=click.Path(path_type=Path), metavar="FILE", help="How the writer is asked, in words.")
@click.option("--helper", default="", metavar="NAME", help="What people know it by. [default: helper A, B, ...]")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.7, show_default=True, help="Of the writer.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Length limit of the writer."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the writer.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads for --scores [default: all cores]")
def help_judges(
    collection: str,
    file: str | None,
    scores: str | None,
    writer: str | None,
    helper: str,
    threads: int,
    **writing: Any,
) -> Result:
    """Show the judges of a collection what helpers say about its items: from a file, a reward model or a writer.

    A share of them (help_share of the collection) sees it, by chance; `trueup feedback quality` compares the two.
    docs/assistance.md describes the file.
    """
    if sum(source is not None for source in (file, scores, writer)) != 1:
        raise click.UsageError("give one of FILE, --scores and --writer")
    if file is not None and helper:
        raise click.UsageError("--helper has no meaning with a file: its rows name their helpers")
    from .. import helping

    with workspace() as ws:
        if file is not None:
            found = helping.help_from_file(ws, collection, file)
        elif scores is not None:
            found = helping.help_from_scores(ws, collection, scores, helper=helper, threads=threads)
        else:
            found = helping.help_from_writer(ws, collection, str(writer), _writer(**writing), helper=helper)
    return Result(found.to_json(), printable("\n".join(_told(found))))


def _writer(kind: Any, template: Path | None, temperature: float, max_new_tokens: int, seed: int) -> Any:
    from ..helping import Writer

    words = read_text(template) if template else ""
    return Writer(kind, words, {"temperature": temperature, "max_new_tokens": max_new_tokens}, seed)


def _told(found: Given) -> Iterator[str]:
    known = f"; {found.known:,} were there already" if found.known else ""
    yield f"{counted(found.outputs, 'output')} of {', '.join(found.helpers)} given to '{found.name}'{known}"
    (work, all_work), (checks, all_checks) = found.items["work"], found.items["checks"]
    yield f"{work:,} of {counted(all_work, 'item')} and {checks:,} of {counted(all_checks, 'check')} have help"
    yield f"of each {found.share:.0%} of the judgements to come are made with it"
    for why, n in sorted(found.left_out.counts.items()):
        first = found.left_out.first[why]
        yield f"  left out: {n:,} {why}" + (f" (first {first})" if first else "")
    if found.leaks:
        yield f"{counted(found.leaks, 'output')} speak of a model or its maker: look at them"
    yield from (f"warning: {warning}" for warning in found.warnings)
