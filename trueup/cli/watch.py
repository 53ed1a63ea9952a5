"""`trueup watch`: runs as they go, in the browser."""

from __future__ import annotations

import click

from .command import Command, Result, workspace
from .serving import Serve, serves


@click.command(
    cls=Command,
    examples="""
    trueup watch
    trueup watch 20261121-0137-rl --no-browser
    trueup watch --host 0.0.0.0 --name runs.example.org --certificate cert.pem --key key.pem
    """,
)
@click.argument("run", metavar="[RUN]", required=False)
@serves
def watch(run: str | None, serve: Serve) -> Result:
    """Watch runs in the browser, until Ctrl-C: how far they are, their curves, events and latest samples.

    Runs are read from the workspace, so they may go on in any process; one that died is shown as dead. Those who may
    can stop a run and take it up again, put runs beside each other, and ask two models the same. It is the labelling
    app with another first page: the same accounts, and `trueup label` leads here too.
    """
    from ..runs import Run

    with workspace() as ws:
        first = f"/runs/{Run.load(ws, run).id}" if run else "/runs"
        return Result({"address": serve(ws, first)}, "")
