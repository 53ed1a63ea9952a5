"""`trueup label`: the labelling app in the browser."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ConfigError, NotFoundError
from .command import Command, Result, progress, workspace

if TYPE_CHECKING:
    from ..store import Workspace

EXTRA = ("fastapi", "uvicorn", "markdown_it", "nh3", "argon2")
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(
    cls=Command,
    examples="""
    trueup label
    trueup label titles --port 8000 --no-browser
    trueup label --host 0.0.0.0 --name labels.example.org --certificate cert.pem --key key.pem
    """,
)
@click.argument("collection", metavar="[COLLECTION]", required=False)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need accounts first."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to listen on; 0: any that is free.",
)
@click.option("--name", "names", multiple=True, metavar="HOST", help="A host name people reach it by; may be repeated.")
@click.option("--certificate", type=FILE, help="TLS certificate, with its chain, as PEM.")
@click.option("--key", type=FILE, help="The private key of the certificate.")
@click.option("--proxy", default="", metavar="ADDRESS", help="A proxy in front whose X-Forwarded headers are believed.")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def label(
    collection: str | None,
    host: str,
    port: int,
    names: tuple[str, ...],
    certificate: Path | None,
    key: Path | None,
    proxy: str,
    no_browser: bool,
) -> Result:
    """Judge completions in the browser: opens the labelling app on this machine, until Ctrl-C.

    The address holds a start token, so only who sees it gets in. Where a demo left its workspace, its own candidates
    are put up for judging first.
    """
    _check_installed()
    from ..web.serve import Binding, check_binding, prepare

    binding = Binding(host, port, names, certificate, key, proxy)
    with workspace() as ws:
        for line in check_binding(ws, binding):
            progress(line)
        server, address = prepare(ws, binding, _first_page(ws, collection))
        progress(f"open {address}\nCtrl-C stops the server; whatever was submitted is saved")
        browser = not no_browser and binding.is_local_only
        with _opened(ws, address) if browser else nullcontext(), suppress(KeyboardInterrupt):
            server.run()  # Ctrl-C is how one stops a server, and no failure
        return Result({"address": address.partition("?")[0]}, _what_next(ws))


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


@contextmanager
def _opened(ws: Workspace, address: str) -> Iterator[None]:
    """Open the browser on a file that leads there: the command line of a browser can be read by every user of the
    machine, and the address holds the start token."""
    import webbrowser

    page = ws.path / f"open-{secrets.token_hex(8)}.html"
    with open(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(
            f'<!doctype html><meta http-equiv="refresh" content="0; url={address}"><a href="{address}">trueup</a>'
        )
    try:
        webbrowser.open(page.as_uri())
        yield
    finally:
        page.unlink(missing_ok=True)


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the labelling app needs {', '.join(missing)}", 'install them with `pip install "trueup[web]"`'
        )
