"""The labelling app: pages for people who judge, over the queue of `trueup.feedback`.

It comes with `pip install "trueup[web]"`; `create_app` is an ASGI application, `trueup label` serves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    """Loaded when used: FastAPI is an extra, and nobody should wait for it to see `--help`."""
    if name == "create_app":
        from .app import create_app

        return create_app
    raise AttributeError(name)
