"""What every request passes before it reaches a page: Host, size, origin; and the headers of every answer.

The server trusts nothing for coming from loopback: any page open in a browser can send requests there. So a request
has to name this server (Host, against DNS rebinding), and one that changes something has to come from a page of this
server (Sec-Fetch-Site, Origin, and then a form token or a header that only script of this origin can set).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import math
import os
import secrets
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import TrueupError, WorkspaceError

BODY_SECONDS = 30.0  # for all of it: who sends a byte a minute holds one of the few connections
BODY_LIMIT = 1 << 20  # bytes of a request; the longest guideline or rewritten answer is far below
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS = frozenset({"GET", "HEAD"})
DEEPEST = 30  # objects in objects of a JSON request
SECRET_FILE = "web-secret"
SECRET_BYTES = 32
PACKAGE = Path(__file__).resolve().parents[1]

log = logging.getLogger("trueup.web")

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "x-robots-tag": "noindex, nofollow",
}


class Refused(TrueupError):
    """A request that is not answered, with the HTTP status that says why, and headers that the status calls for."""

    def __init__(self, status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint)
        self.status = status
        self.headers = dict(headers or {})


class SignInNeeded(Refused):
    def __init__(self) -> None:
        super().__init__(401, "nobody is signed in", "sign in, or open the link that `trueup label` printed")


def content_policy(nonce: str) -> str:
    """Nothing loads unless it is ours; script only with this answer's nonce."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self'; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def read_secret(path: Path) -> bytes:
    """The secret of this workspace's server, made on first use; only its owner may read the file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _checked_secret(path)
    with open(descriptor, "w") as file:
        file.write(secrets.token_hex(SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return _checked_secret(path)


def _checked_secret(path: Path) -> bytes:
    hint = f"remove {path} to have a new one made; everybody then has to sign in again"
    if path.stat().st_mode & 0o077:
        raise WorkspaceError(f"{path} can be read by others", f"chmod 600 {path}, or better: {hint}")
    try:
        secret = bytes.fromhex(path.read_text().strip())
    except ValueError as error:
        raise WorkspaceError(f"{path} does not hold a secret of trueup", hint) from error
    if len(secret) != SECRET_BYTES or len(set(secret)) < SECRET_BYTES // 4:
        raise WorkspaceError(f"{path} holds a secret that can be guessed", hint)
    return secret


def keyed(secret: bytes, purpose: str, value: str) -> str:
    """One secret, many uses: what is made for one purpose is worth nothing for another."""
    return hmac.new(secret, f"{purpose}\0{value}".encode(), hashlib.sha256).hexdigest()


def same(a: str, b: str) -> bool:
    """Compared in constant time, whatever characters a request sent."""
    return hmac.compare_digest(a.encode("utf-8", "replace"), b.encode("utf-8", "replace"))


class Guard:
    """The outermost layer of the app: what it refuses, no route sees; what it answers carries every header."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str], secure: bool = False) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts)
        self.secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        nonce = scope.setdefault("state", {})["nonce"] = secrets.token_urlsafe(16)
        answer = _Answer(send, self._headers(scope, nonce))
        try:
            self._check(scope)
            await self.app(scope, _limited(receive), answer)
        except Refused as error:
            await answer.refuse(scope, error)
        except Exception as error:
            log.error("%s %s: %s", scope["method"], _route(scope), _kind_and_place(error))
            await answer.refuse(scope, Refused(500, "the server made a mistake", "what was saved before is safe"))

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _name_of(hosts[0]) not in self.hosts:
            raise Refused(400, "this server does not go by that name", "use the address that `trueup label` printed")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 20 or int(length) > BODY_LIMIT:
            raise Refused(413, f"a request holds at most {BODY_LIMIT:,} bytes", "send less at a time")
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise Refused(404, "there is no such page", "start from the first page")  # a database may not take one
        if scope["method"] in SAFE_METHODS:
            check_embedding(headers)
        else:
            check_origin(headers, f"{scope['scheme']}://{hosts[0]}")

    def _headers(self, scope: Scope, nonce: str) -> dict[str, str]:
        headers = HEADERS | {"content-security-policy": content_policy(nonce)}
        if not scope["path"].startswith("/static/"):
            headers["cache-control"] = "no-store"
        name = _name_of(Headers(scope=scope).get("host", ""))
        if (self.secure or scope["scheme"] == "https") and name not in LOOPBACK:  # there it would bind every port
            headers["strict-transport-security"] = "max-age=31536000"
        return headers


def check_embedding(headers: Mapping[str, str]) -> None:
    """Another site may link here. It may not have us load as its image, frame or script: it would learn from how long
    that takes, or from whether it works."""
    linked = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not linked:
        raise Refused(403, "this page cannot be part of another site", "open it by itself")


def check_origin(headers: Mapping[str, str], own: str) -> None:
    """Refuse what another site had a browser send.

    `Origin: null` is what a browser says of our own forms too, for our pages send no referrer; there Sec-Fetch-Site
    decides, and where that is missing (plain HTTP in a network) the form token does: see `auth.check_forgery`.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    foreign = origin not in (None, "null") and origin.lower() != own.lower()
    if foreign or site not in (None, "same-origin", "none"):
        raise Refused(403, "this request came from another site", "open the page here and do it again")


def from_own_page(headers: Mapping[str, str]) -> bool:
    """Whether the browser itself vouches for the page that sent this (after `check_origin`)."""
    return headers.get("sec-fetch-site") == "same-origin" or headers.get("origin") not in (None, "null")


def wants_json(headers: Mapping[str, str]) -> bool:
    asked = headers.get("accept", "").startswith("application/json")
    return asked or "x-trueup" in headers or "authorization" in headers  # which only programs send


def problem(error: TrueupError) -> dict[str, str]:
    return {"error": error.message, "hint": error.hint}


class _Answer:
    """Sends a response with our headers, and knows whether it is too late for another one."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send = send
        self._headers = headers
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers[name] = value
            if message["status"] in (408, 413):  # the rest of the body may still be on its way: nobody reads it
                headers["connection"] = "close"
        await self._send(message)

    async def refuse(self, scope: Scope, error: Refused) -> None:
        if self.started:  # nothing can be taken back: let the connection break rather than end as if it were whole
            raise ConnectionAbortedError from None
        if wants_json(Headers(scope=scope)):
            body, kind = json.dumps(problem(error)), "application/json"
        else:
            body, kind = f"{error.message}\n{error.hint}\n", "text/plain; charset=utf-8"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body.encode())).encode())]
        await self({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body.encode()})


def _limited(receive: Receive) -> Receive:
    """A body without a declared length is counted as it comes; one that trickles in is not waited for."""
    total, whole = 0, False
    ends = time.monotonic() + BODY_SECONDS

    async def counted() -> Message:
        nonlocal total, whole
        try:  # after the body the same call waits for the client to hang up, which may take as long as it likes
            message = await asyncio.wait_for(receive(), None if whole else ends - time.monotonic())
        except TimeoutError:
            raise Refused(408, "the request took too long to arrive", "send it again") from None
        whole = not message.get("more_body", False)
        total += len(message.get("body", b""))
        if total > BODY_LIMIT:
            raise Refused(413, f"a request holds at most {BODY_LIMIT:,} bytes", "send less at a time")
        return message

    return counted


def _name_of(host: str) -> str:
    """The host without its port: `[::1]:8080` -> `[::1]`."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()


def _route(scope: Scope) -> str:
    """The pattern of the route, never the path itself: a path can hold an invite."""
    return getattr(scope.get("route"), "path", "unknown route")


def _kind_and_place(error: Exception) -> str:
    """What went wrong without its message: messages of libraries quote what they choked on, which is people's text."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(PACKAGE)]
    place = f" in {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def request_is_secure(request: Request, secure: bool) -> bool:
    return secure or request.url.scheme == "https"


def as_refused(error: TrueupError) -> Refused:
    """Errors of the package in the words of HTTP."""
    if isinstance(error, Refused):
        return error
    return Refused(_STATUS.get(type(error).__name__, 400), error.message, error.hint)


_STATUS: dict[str, int] = {"NotAllowed": 403, "NotFoundError": 404, "WorkspaceError": 503}


def json_body(raw: bytes) -> dict[str, Any]:
    """A JSON object, or a refusal; NaN, a bare list and a hundred thousand brackets are refusals."""
    try:
        value = json.loads(raw, parse_constant=_finite, parse_float=_finite)
        _check_depth(value, DEEPEST)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the request is not JSON", "reload the page") from error
    if not isinstance(value, dict):
        raise Refused(400, "the request is not a JSON object", "reload the page")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair: it could neither be stored nor sent back
        raise Refused(400, "the request holds characters that cannot be stored", "remove broken characters") from error
    return value


def _check_depth(value: Any, left: int) -> None:
    """What nests deeper than any answer of ours could not be written again later."""
    if left == 0:
        raise ValueError("nested too deep")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, left - 1)


def _finite(text: str) -> float:
    """NaN, Infinity and 1e999 are no numbers that could be stored or counted."""
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value
