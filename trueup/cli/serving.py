"""Serving the web app from the command line: the options that each such command has, and the one way to run it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError
from .command import progress

if TYPE_CHECKING:
    from ..store import Workspace

EXTRA = ("fastapi", "uvicorn", "markdown_it", "nh3", "argon2")
FILE = click.Path(dir_okay=False, path_type=Path)
OPTIONS = (
    click.option(
        "--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need accounts first."
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=0,
        show_default=True,
        help="Port to listen on; 0: any that is free.",
    ),
    click.option(
        "--name", "names", multiple=True, metavar="HOST", help="A host name people reach it by; may be repeated."
    ),
    click.option("--certificate", type=FILE, help="TLS certificate, with its chain, as PEM."),
    click.option("--key", type=FILE, help="The private key of the certificate."),
    click.option(
        "--proxy", default="", metavar="ADDRESS", help="A proxy in front whose X-Forwarded headers are believed."
    ),
    click.option("--no-browser", is_flag=True, help="Only print the address."),
)
Serve = Callable[["Workspace", str], str]


def serves(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets `serve(workspace, first page)`, which returns the address once it is over."""

    @wraps(command)
    def asked(*args: Any, no_browser: bool, **given: Any) -> Any:
        where = {name: given.pop(name) for name in ("host", "port", "names", "certificate", "key", "proxy")}
        _check_installed()

        def serve(ws: Workspace, first: str) -> str:
            return _serve(ws, first, where, not no_browser)

        return command(*args, serve=serve, **given)

    for option in reversed(OPTIONS):
        asked = option(asked)
    return asked


def _serve(ws: Workspace, first: str, where: dict[str, Any], browser: bool) -> str:
    from ..web.serve import Binding, check_binding, prepare

    binding = Binding(**where)
    for line in check_binding(ws, binding):
        progress(line)
    server, address = prepare(ws, binding, first)
    progress(f"open {address}\nCtrl-C stops the server; whatever was submitted is saved")
    with _opened(ws, address) if browser and binding.is_local_only else nullcontext(), suppress(KeyboardInterrupt):
        server.run()  # Ctrl-C is how one stops a server, and no failure
    return address.partition("?")[0]


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
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise ConfigError(f"the web app needs {', '.join(missing)}", 'install them with `pip install "trueup[web]"`')
