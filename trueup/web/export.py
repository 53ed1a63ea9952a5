"""Judgements out of the workspace: frozen into an artifact first, so that what left can always be named again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from ..errors import TrueupError
from ..feedback.freeze import KINDS, Choice, freeze
from ..feedback.pooling import RULES
from ..feedback.votes import KIND as VOTES
from ..feedback.votes import check_export
from ..store.queue import Collection
from .auth import Sent, needs, new_router, text
from .judging import collection_of
from .security import Refused
from .site import Visit

router = new_router()
Exporting = Annotated[Visit, needs("export")]

# Format -> (words, ending). A closed list: no part of a file's name comes from a request.
FORMATS = {
    "raw": ("all fields, one JSON object a line", ".jsonl"),
    "table": ("a spreadsheet, one line a text (CSV)", ".csv"),
    "trl-preference": ("preference pairs for TRL", ".jsonl"),
    "trl-unpaired": ("texts with a thumb for TRL", ".jsonl"),
    "trl-prompt-completion": ("prompts with the best text for TRL", ".jsonl"),
}
KIND_WORDS = {
    "preferences": "preferences: what was judged in the ordinary work, to train on",
    "unpaired": "unpaired: each text with its thumb, to train on",
    "demonstrations": "demonstrations: what people wrote, to train on",
    "votes": "votes: all that was said, with checks, revisions, skips and decisions",
}
RULE_WORDS = {
    "raw": "a row each, as they were given",
    "soft": "shares of the votes",
    "majority": "the majority of the votes",
    "helpsteer": "the three most similar votes (HelpSteer)",
    "bradley-terry": "Bradley-Terry",
    "crowd-bradley-terry": "Bradley-Terry, judges by how reliable they are",
    "dawid-skene": "Dawid-Skene: judges by how they err",
    "mace": "MACE: judges by how often they only press keys",
}


@router.get("/c/{collection}/export")
def export_page(visit: Exporting, collection: str) -> Response:
    return _page(visit, collection)


@router.post("/c/{collection}/export")
def export(visit: Exporting, collection: str, fields: Sent) -> Response:
    """Under pseudonyms, without what is quarantined for personal data."""
    found = collection_of(visit, collection)
    kind, rule, format = (text(fields, name) for name in ("kind", "rule", "format"))
    if kind not in KINDS or rule not in RULES or format not in FORMATS:
        raise Refused(400, "there is no such export", "choose from the lists of the page")
    try:
        if kind == VOTES:
            check_export(format, conversational=False)
        return as_file(visit, found, Choice(kind, rule), format)
    except Refused:
        raise
    except TrueupError as error:
        return _page(visit, collection, 400, f"{error.message}: {error.hint}" if error.hint else error.message)


def as_file(visit: Visit, collection: Collection, choice: Choice, format: str) -> Response:
    """The file, which is gone from the server when it was sent. The audit log says that it left."""
    site = visit.site
    site.meter.count("export", visit.me.id, site.limits.export)
    folder = Path(tempfile.mkdtemp(prefix="trueup-export-"))
    try:
        artifact, path = _write(visit, collection.id, choice, format, folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    name = f"{collection.name}-{artifact}{path.suffix}"
    return FileResponse(
        path, media_type="application/octet-stream", filename=name, background=BackgroundTask(shutil.rmtree, folder)
    )


def _write(visit: Visit, collection: str, choice: Choice, format: str, folder: Path) -> tuple[str, Path]:
    from .. import api

    artifact = freeze(visit.site.workspace, collection, choice).artifact
    path = folder / f"export{FORMATS[format][1]}"
    api.export_data(visit.site.workspace, artifact, path, format, person=visit.me.id)  # which notes it, too
    return artifact.id, path


def _page(visit: Visit, collection: str, status: int = 200, problem: str = "") -> Response:
    found = collection_of(visit, collection)
    rules = {rule: RULE_WORDS[rule] for rule in RULES}
    kinds = {kind: KIND_WORDS[kind] for kind in KINDS}
    return visit.page(
        "export.html", status, collection=found, problem=problem, kinds=kinds, rules=rules, formats=FORMATS
    )
