"""Serving the app: who may be let near it, and one process of uvicorn."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from ..errors import ConfigError, TrueupError, WorkspaceError
from ..store import Workspace, retention
from ..store import people as store
from .app import create_app
from .security import LOOPBACK

MOST_CONNECTIONS = 500
DAY = 86_400.0

log = logging.getLogger("trueup.web")


@dataclass(frozen=True)
class Binding:
    """Where the server listens and by which names it may be called there."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: any that is free
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    proxy: str = ""  # the address of a proxy whose X-Forwarded-For and -Proto are believed

    @property
    def is_local(self) -> bool:
        """Reachable from this machine only, as far as the address says."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_local_only(self) -> bool:
        """No other machine gets here: neither by the address nor through a proxy that passes requests on."""
        return self.is_local and not self.proxy and not self.names

    @property
    def hosts(self) -> tuple[str, ...]:
        own = () if self.is_local or _is_wildcard(self.host) else (_bracketed(self.host),)
        return (*LOOPBACK, *own, *self.names)

    @property
    def scheme(self) -> str:
        return "https" if self.certificate else "http"


def check_binding(workspace: Workspace, binding: Binding) -> list[str]:
    """Refuse to be reachable by others without accounts; what to warn about when it is allowed."""
    if bool(binding.certificate) != bool(binding.key):
        raise ConfigError("a certificate goes with its key", "give both --certificate and --key")
    for file in (binding.certificate, binding.key):
        if file and not file.is_file():
            raise ConfigError(f"there is no file {file}", "--certificate and --key name PEM files")
    if binding.is_local_only:
        return []
    if not any(store.password_hash(workspace.database, each.name) for each in store.people(workspace.database)):
        where = binding.host if not binding.is_local else ", ".join(binding.names) or f"the proxy {binding.proxy}"
        raise WorkspaceError(
            f"refusing to serve on {where}: nobody has an account with a password yet",
            "start `trueup label` without --host, set a password under Account, then start it again",
        )
    if _is_wildcard(binding.host) and not binding.names:
        raise ConfigError(
            f"{binding.host} means every address of this machine, and none is a name the server can check",
            "add --name with the host name or address that people will type",
        )
    warnings = ["warning: others can reach this server; whoever has a password or an invitation gets in"]
    if not binding.certificate and not binding.proxy:
        warnings.append("warning: without --certificate passwords and answers cross the network in the clear")
    return warnings


class Server:
    """The app behind a socket that is open already, so its address is known before the first request."""

    def __init__(
        self,
        app: ASGIApp,
        binding: Binding,
        chore: Callable[[], object] = lambda: None,
        last: Callable[[], object] = lambda: None,
    ) -> None:
        """`chore` is done when the server starts and every day that it runs, `last` when it has ended."""
        self.binding = binding
        self.chore, self.last = chore, last
        self._socket = _listen(binding)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # paths hold invitations
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=bool(binding.proxy),
            forwarded_allow_ips=binding.proxy or [],
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=5,
            ssl_certfile=binding.certificate,
            ssl_keyfile=binding.key,
        )
        self._server = uvicorn.Server(config)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        names = self.binding.names or ((self.binding.host,) if not _is_wildcard(self.binding.host) else LOOPBACK[:1])
        return f"{self.binding.scheme}://{_bracketed(names[0])}:{self.port}"

    @property
    def started(self) -> bool:
        return self._server.started

    def run(self) -> None:
        """Until Ctrl-C or `stop`."""
        try:
            with _every_day(self.chore):
                self._server.run(sockets=[self._socket])
        finally:
            self.last()

    def stop(self) -> None:
        self._server.should_exit = True


def prepare(workspace: Workspace, binding: Binding, first: str = "/") -> tuple[Server, str]:
    """A server that may be run, and the address that opens its page `first`: with a start token where only this
    machine gets in."""
    token = secrets.token_urlsafe(32) if binding.is_local_only else None
    app = create_app(workspace, hosts=binding.hosts, token=token, secure=binding.certificate is not None)
    models = app.state.site.models  # who still waits for their answer must not keep the server from ending
    server = Server(app, binding, lambda: retention.sweep(workspace.database, time.time()), models.close)
    return server, f"{server.url}/start?token={token}&next={first}" if token else f"{server.url}{first}"


@contextmanager
def _every_day(chore: Callable[[], object], seconds: float = DAY) -> Iterator[None]:
    """Beside the requests, and never in their way: what goes wrong is tried again the next day."""
    ended = threading.Event()

    def work() -> None:
        while True:
            try:
                chore()
            except TrueupError as error:
                log.warning("what is over was not deleted today: %s", error.message)
            if ended.wait(seconds):
                return

    worker = threading.Thread(target=work, name="every day", daemon=True)
    worker.start()
    try:
        yield
    finally:
        ended.set()
        worker.join(5)  # what it does is short; the database must not be closed under it


def _listen(binding: Binding) -> socket.socket:
    family = socket.AF_INET6 if ":" in binding.host else socket.AF_INET
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((binding.host, binding.port))
        made.listen()  # from here on a browser waits instead of being turned away
    except (OSError, OverflowError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot listen on {binding.host} port {binding.port}: {reason}", "choose another --port or --host"
        ) from error
    made.set_inheritable(False)
    return made


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
