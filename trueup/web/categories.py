"""What a person chose not to be given: on the account page, and before the work where a warning stands there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from starlette.responses import Response

from ..store import categories, queue
from .auth import Sent, needs, new_router, text
from .security import Refused
from .site import Visit, goto

router = new_router()
Judging = Annotated[Visit, needs("judge")]

MOST_LISTED = 200  # categories on a page: the ones with the most items


@router.post("/account/categories")
def choose(visit: Judging, fields: Sent) -> Response:
    save(visit, fields)
    return goto("/account", "saved")


def listed(visit: Visit, collections: Sequence[str]) -> dict[str, bool]:
    """Categories of these collections, and those refused already: name -> whether this person refuses it."""
    sizes: Counter[str] = Counter()
    for each in categories.categories(visit.db, collections):
        sizes.update(dict.fromkeys(each.names, 1 + each.size))
    refused = categories.refused_by(visit.db, visit.me.id)
    most = {name for name, _ in sizes.most_common(MOST_LISTED)}
    return {name: name in refused for name in sorted(most | refused)} if sizes or refused else {}


def own_collections(visit: Visit) -> list[str]:
    return [each.id for each in queue.collections(visit.db) if visit.me.collection in ("", each.id)]


def save(visit: Visit, fields: dict[str, Any]) -> None:
    """A form says which categories it `listed`, and names those that were ticked by their place: one that it did not
    show stays as it is."""
    shown = _names(text(fields, "listed"))
    there = {name for each in categories.categories(visit.db, own_collections(visit)) for name in each.names}
    known = there | categories.refused_by(visit.db, visit.me.id)
    choices = {name: f"refuse-{place}" in fields for place, name in enumerate(shown) if name in known}
    queue.opt_out(visit.db, visit.me.id, choices, visit.now)


def _names(sent: str) -> list[str]:
    try:
        names = json.loads(sent)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(400, "the form cannot be read", "reload the page")
    return names
