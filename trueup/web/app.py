"""The labelling app over one workspace, as an ASGI application."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from ..errors import TrueupError
from ..store import Workspace
from . import account, categories, collections, decisions, export, judging, people, programs, runs, trying
from .limits import Limits
from .security import LOOPBACK, SECRET_FILE, Guard, Refused, SignInNeeded, as_refused, problem, read_secret, wants_json
from .site import STATIC, Site, Visit


def create_app(
    workspace: Workspace,
    *,
    secret_file: Path | None = None,
    hosts: Iterable[str] = LOOPBACK,
    token: str | None = None,
    secure: bool = False,
    limits: Limits | None = None,
    now: Callable[[], float] = time.time,
) -> FastAPI:
    """`hosts`: the names this server answers to. `token`: of the start link; None leaves passwords and invitations.
    `secure`: reached by HTTPS only, whatever the connection looks like from here."""
    secret = read_secret(secret_file or workspace.path / SECRET_FILE)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.site = Site(workspace, secret, now, token, secure, limits or Limits())
    for routes in (judging, collections, decisions, export, people, programs, account, categories, runs, trying):
        app.routes.extend(routes.router.routes)  # one flat list, which the tests hold to the rights
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(TrueupError, _refuse)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(RequestValidationError, _bad_address)
    app.add_middleware(Guard, hosts=tuple(hosts), secure=secure)
    return app


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, TrueupError)
    refused = as_refused(error)
    answer = _refusal(request, refused)
    answer.headers.update(refused.headers)
    return answer


def _refusal(request: Request, refused: Refused) -> Response:
    if wants_json(request.headers):
        return JSONResponse(problem(refused), refused.status)
    if isinstance(refused, SignInNeeded) and request.method == "GET":
        return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)
    site: Site = request.app.state.site
    # Without the person: who is asking was not settled when some of these errors come up.
    return Visit(site, request, None, "").page("problem.html", refused.status, error=problem(refused))


def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return _refuse(request, Refused(405, "this cannot be done here"))
    return _refuse(request, Refused(error.status_code, "there is no such page", "start from the first page"))


def _bad_address(request: Request, error: Exception) -> Response:
    return _refuse(request, Refused(400, "the address of this page is not right", "start from the first page"))
