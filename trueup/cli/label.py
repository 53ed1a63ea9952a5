"""`trueup label`: the labelling app in the browser."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from ..errors import NotFoundError
from .command import Command, Result, progress, workspace
from .serving import Serve, serves

if TYPE_CHECKING:
    from ..store import Workspace


@click.command(
    cls=Command,
    examples="""
    trueup label
    trueup label titles --port 8000 --no-browser
    trueup label --host 0.0.0.0 --name labels.example.org --certificate cert.pem --key key.pem
    """,
)
@click.argument("collection", metavar="[COLLECTION]", required=False)
@serves
def label(collection: str | None, serve: Serve) -> Result:
    """Judge completions in the browser: opens the labelling app on this machine, until Ctrl-C.

    The address holds a start token, so only who sees it gets in. Where a demo left its workspace, its own candidates
    are put up for judging first.
    """
    with workspace() as ws:
        address = serve(ws, _first_page(ws, collection))
        return Result({"address": address}, _what_next(ws))


def _what_next(ws: Workspace) -> str:
    """For whoever judged a demo's own candidates: how to see what came of it."""
    from ..feedback import relabel
    from ..store import queue

    made = [each for each in queue.collections(ws.database) if each.name == relabel.COLLECTION]
    judged = queue.counts(ws.database, made[0].id)["judgements"] if made else 0
    if not judged:
        return ""
    trueup = f"trueup --workspace {shlex.quote(str(ws.path))}"
    retrain = f"{trueup} feedback retrain {relabel.COLLECTION} --votes"
    few = f" At least {relabel.FEWEST} that prefer something are needed; go on with\n  {trueup} label\n"
    then = "Then train" if judged < relabel.FEWEST else " Train"
    return (
        f"{judged} judged.{few if judged < relabel.FEWEST else ''}{then} the reward model again with them:\n"
        f"  {retrain} add\n  {retrain} only-mine"
    )


def _first_page(ws: Workspace, collection: str | None) -> str:
    """The path of the collection that was named, or of the only one; where a demo left none, one is made of its
    candidates."""
    from ..feedback import relabel
    from ..store import queue

    known = [each.name for each in queue.collections(ws.database) if each.status == "open"]
    if collection is None and not known:
        try:
            known = [relabel.start(ws)]
        except NotFoundError:
            progress("there is no collection yet: `trueup feedback collect` makes one")
    chosen = collection or (known[0] if len(known) == 1 else "")
    return f"/c/{queue.collection(ws.database, chosen).id}" if chosen else "/"
