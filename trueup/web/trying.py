"""A prompt of one's own to two models, checkpoints of runs that are going on among them, side by side; and a vote."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import Annotated, Any

from starlette.responses import Response

from .. import voting
from ..config import Sampling
from ..errors import DataError, TrueupError
from ..feedback.roles import NotAllowed
from ..kept_models import Kept, find_kept, kept_checkpoints, kept_models
from ..records import Message, Prompt
from ..trying import Asked, NoAnswer
from .auth import Sent, needs, new_router, text
from .judging import ROLES
from .security import Refused, as_refused, problem
from .site import Visit, goto

router = new_router()
Trying = Annotated[Visit, needs("try models")]

LONGEST_PROMPT = 20_000  # characters
MOST_NEW_TOKENS, HOTTEST = 2048, 5.0
NAME = "try"  # how the collection begins that votes go into
PLACES: Mapping[str, int | None] = {"first": 0, "second": 1, "same": None}
SAID = {"first": "The first is better.", "second": "The second is better.", "same": "They are equally good."}


@dataclass(frozen=True)
class Typed:
    """What stands in the form."""

    a: str = ""
    b: str = ""
    system: str = ""
    prompt: str = ""
    temperature: str = "0.7"
    max_new_tokens: str = "256"


@router.get("/try")
def form(visit: Trying, a: str = "", b: str = "", again: str = "") -> Response:
    """`again` names replies of one's own: the same models and settings, for another prompt."""
    _check_whole(visit)
    if not again:
        return _form(visit, Typed(a, b))
    try:
        before = visit.site.tried.get(visit.me.id, again)
    except TrueupError:
        return _form(visit, Typed(a, b))
    drawn, first = before.sampling, before.prompt.messages[0]
    system = first.content if first.role == "system" else ""
    return _form(visit, Typed(*before.chosen, system, "", f"{drawn.temperature:g}", str(drawn.max_new_tokens)))


@router.post("/try")
def ask(visit: Trying, fields: Sent) -> Response:
    """Returns when both have answered, which may take as long as the limit; what was typed is never lost."""
    _check_whole(visit)
    typed = Typed(**{name: text(fields, name).replace("\r\n", "\n") for name in Typed.__dataclass_fields__})
    try:
        return goto(f"/try/{visit.site.tried.add(visit.me.id, _asked(visit, typed))}")
    except NoAnswer as error:
        return _form(visit, typed, 503, error)
    except TrueupError as error:
        return _form(visit, typed, as_refused(error).status, error)


@router.get("/try/{tried}")
def replies(visit: Trying, tried: str) -> Response:
    _check_whole(visit)
    return _replies(visit, tried, visit.site.tried.get(visit.me.id, tried))


@router.post("/try/{tried}")
def vote(visit: Trying, tried: str, fields: Sent) -> Response:
    """Stored once, however often it is sent: the first choice stands."""
    _check_whole(visit)
    asked, choice = visit.site.tried.get(visit.me.id, tried), text(fields, "choice")
    if choice not in PLACES:
        raise Refused(400, "there is no such choice", "choose one of the buttons")
    if asked.alike:
        raise Refused(400, "both said the same: neither is better", "ask something else")
    with asked.voting:
        try:
            if not asked.voted:
                _vote(visit, tried, asked, choice)
                asked.voted, asked.known = choice, True
        except TrueupError as error:
            asked.known = asked.known or isinstance(error, voting.AlreadySaid)
            return _replies(visit, tried, asked, as_refused(error).status, error)
    return goto(f"/try/{tried}")


# Inside


def _check_whole(visit: Visit) -> None:
    """Models are nothing of one collection."""
    if visit.me.collection:
        raise NotAllowed("whoever works in one collection cannot try models", "ask an owner of the workspace")


def _asked(visit: Visit, typed: Typed) -> Asked:
    ws, prompt, sampling = visit.site.workspace, _prompt(typed), _sampling(typed)
    models = [find_kept(ws, ref) for ref in (typed.a, typed.b)]
    seeds = [secrets.randbelow(1 << 31) for _ in models]
    said = visit.site.models.ask([each.ref for each in models], prompt, sampling, seeds)
    order = SystemRandom().sample((0, 1), 2)
    first, second = ((models[i], said[i], seeds[i]) for i in order)
    chosen = (models[0].ref, models[1].ref)
    return Asked(prompt, sampling, visit.now, chosen, *zip(first, second, strict=True))  # type: ignore[arg-type]


def _prompt(typed: Typed) -> Prompt:
    if not typed.prompt.strip():
        raise DataError("there is no prompt", "type one")
    for what, words in (("prompt", typed.prompt), ("system message", typed.system)):
        if len(words) > LONGEST_PROMPT:
            raise DataError(f"a {what} has at most {LONGEST_PROMPT:,} characters, not {len(words):,}", "shorten it")
    system = (Message("system", typed.system),) if typed.system.strip() else ()
    return Prompt((*system, Message("user", typed.prompt)), {"source": NAME})


def _sampling(typed: Typed) -> Sampling:
    try:
        temperature, limit = float(typed.temperature), int(typed.max_new_tokens)
    except ValueError:
        raise DataError("temperature and length are numbers", "0.7 and 256 are usual") from None
    if not (math.isfinite(temperature) and 0 <= temperature <= HOTTEST):
        raise DataError(f"a temperature is a number from 0 to {HOTTEST:g}", "0 takes the likeliest token each time")
    if not 1 <= limit <= MOST_NEW_TOKENS:
        raise DataError(f"a reply may have 1 to {MOST_NEW_TOKENS:,} tokens", "256 are about 200 words")
    return Sampling(temperature=temperature, max_new_tokens=limit)


def _vote(visit: Visit, tried: str, asked: Asked, choice: str) -> None:
    occasion = voting.Occasion(NAME, NAME, asked.prompt.meta)
    voting.vote(
        visit.site.workspace, occasion, "pair", asked.replies, voting.prefers(PLACES[choice]),
        person=visit.me.id, key=f"{NAME} {tried}", shown=asked.shown, now=visit.site.now,
    )  # fmt: skip


def _form(visit: Visit, typed: Typed, status: int = 200, error: TrueupError | None = None) -> Response:
    ws = visit.site.workspace
    groups = {"Models": kept_models(ws), "Checkpoints of runs": kept_checkpoints(ws)}
    known = {each.ref: each for group in groups.values() for each in group}
    chosen: dict[str, str] = {}
    for place, name in enumerate(("a", "b")):
        ref = getattr(typed, name)
        if ref and ref not in known:
            try:
                other = find_kept(ws, ref)  # by its name, or one that is too old to be offered
                ref = other.ref
                if ref not in known:
                    known[ref], groups["Named"] = other, [*groups.get("Named", []), other]
            except TrueupError as missing:
                error, status, ref = error or missing, max(status, as_refused(missing).status), ""
        chosen[name] = ref or _default(list(known.values()), place)
    return visit.page(
        "try.html", status, typed=replace(typed, **chosen), groups={k: g for k, g in groups.items() if g},
        problem=None if error is None else problem(error), longest=LONGEST_PROMPT, most_tokens=MOST_NEW_TOKENS,
        hottest=HOTTEST, limit=visit.site.models.settings.seconds,
    )  # fmt: skip


def _default(known: list[Kept], place: int) -> str:
    return known[min(place, len(known) - 1)].ref if known else ""


def _replies(visit: Visit, tried: str, asked: Asked, status: int = 200, error: TrueupError | None = None) -> Response:
    one_model = asked.models[0].ref == asked.models[1].ref
    known = asked.known or asked.alike
    context: dict[str, Any] = {
        "said": asked.said,
        "words": [each.words for each in asked.models] if known else [],  # before that they are not in the page
        "one_model": one_model,
        "alike": asked.alike,
        "vote": SAID.get(asked.voted, ""),
        "limit": asked.sampling.max_new_tokens,
    }
    return visit.page(
        "tried.html", status, tried=tried, prompt=asked.prompt.messages, roles=ROLES,
        problem=None if error is None else problem(error), collection=f"{NAME}-pair", **context,
    )  # fmt: skip
