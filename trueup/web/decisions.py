"""Deciding about single items: what people disagree on, what is set aside, what names its writer.

Whoever decides reads as blind as who judged: no model, no expected answer, the texts in the item's own order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Annotated, Any

from markupsafe import Markup
from starlette.responses import Response

from ..feedback import adjudicate
from ..feedback.adjudicate import Disputed
from ..feedback.leaks import LeakFinder
from ..feedback.status import LEAKS
from ..feedback.welfare import covered
from ..store import queue, review
from ..store.queue import Collection, Item
from . import wording
from .auth import Sent, hidden, needs, new_router, text
from .collections import names_of
from .judging import collection_of
from .markdown import render, shown
from .security import Refused
from .site import Visit, goto

router = new_router()
Names = Mapping[str, Mapping[str, Any]]  # what `names_of` gives
Deciding = Annotated[Visit, needs("adjudicate")]

A_PAGE = 10  # items: each is shown with all its texts
MOST_MORE = 20  # people that can be asked at once about one item
PAIR = {"first": (1, 2), "tie": (1, 1), "second": (2, 1)}  # buttons of a pair, and the places they stand for


@router.get("/c/{collection}/disputed")
def disputed(visit: Deciding, collection: str, page: int = 1, decided: bool = False, blind: bool = False) -> Response:
    """What people disagree on, the most disputed first; or what was decided, the latest first.

    `blind` leaves out who said what. Once something is decided, everybody who decides may see it.
    """
    found = collection_of(visit, collection)
    kept = adjudicate.kept_differing(visit.site.workspace, found.id)
    docket = adjudicate.docket(visit.site.workspace, found.id, kept.items if kept else visit.site.differing(found.id))
    ids = docket.decided if decided else docket.open
    pages = max(1, ceil(len(ids) / A_PAGE))
    page = min(max(page, 1), pages)
    cases = adjudicate.cases(visit.site.workspace, found.id, ids[(page - 1) * A_PAGE : page * A_PAGE])
    names = names_of(visit)
    return visit.page(
        "disputed.html",
        collection=found,
        cases=[
            _case(found, case, names, visit.me.judge, blind and not decided)
            for case in cases
            if decided or case.item.state != "quarantined"  # it was set aside a moment ago
        ],
        letters=wording.LETTERS,
        ties=found.config.get("ties", True),
        causes=adjudicate.CAUSES,
        most_more=MOST_MORE,
        here_page=page,
        pages=pages,
        open=len(docket.open),
        closed=len(docket.decided),
        decided=decided,
        blind=blind,
        kept=kept,
        age=wording.ago(visit.now - kept.made) if kept else "",
    )


@router.post("/c/{collection}/items/{item}/decide")
def decide(visit: Deciding, collection: str, item: str, fields: Sent) -> Response:
    """What the button says: an answer to accept, more people to ask, or that it can be seen either way."""
    found = collection_of(visit, collection)
    about, how = item_of(visit, found, item), text(fields, "decision")
    chosen: dict[str, Any] = {"cause": _cause(fields)}
    if how == "requeue":
        chosen["more"] = _whole(fields, "more", MOST_MORE)
    elif how != "ambiguous":
        chosen["ranks"] = _places(fields, about, how)
    verdict: Any = how if how in ("requeue", "ambiguous") else "accept"
    chosen |= {"now": visit.now, "person": visit.me.id, "judge": visit.me.judge}
    adjudicate.decide(visit.site.workspace, found.id, about.id, verdict, **chosen)
    kept = {name: fields[name] for name in ("page", "blind", "decided") if _is_number(fields.get(name))}
    query = "&".join(f"{name}={value}" for name, value in kept.items())
    done = {"requeue": "asked-again", "ambiguous": "ambiguous", "accept": "accepted"}[verdict]
    return goto(f"/c/{found.id}/disputed" + (f"?{query}" if query else ""), done)


@router.get("/c/{collection}/quarantined")
def quarantined(visit: Deciding, collection: str, after: int = -1) -> Response:
    """What nobody is handed, and why. What somebody has looked at and kept out stays in the list, marked as that."""
    found = collection_of(visit, collection)
    items = queue.items(visit.db, found.id, _place(after), A_PAGE + 1, state="quarantined")
    ids = [item.id for item in items[:A_PAGE]]
    skips, votes = review.skips(visit.db, ids), review.votes(visit.db, ids)
    names = names_of(visit)
    listed = [
        _shown(found, item)
        | {
            "reason": item.reason[:1].upper() + item.reason[1:],
            "kept": item.reason.startswith(adjudicate.KEPT_OUT),
            "role": item.role if visit.may("see judgements") else "",
            "why": [
                *((_by_id(names, skip["person"]), f"skipped it: {skip['reason']}") for skip in skips[item.id]),
                *((_by_judge(names, vote.judge), said) for vote in votes[item.id] if (said := wording.flagged(vote))),
            ],
        }
        for item in items[:A_PAGE]
    ]
    later = items[A_PAGE - 1].position if len(items) > A_PAGE else None
    return visit.page("quarantined.html", collection=found, items=listed, letters=wording.LETTERS, later=later)


@router.post("/c/{collection}/items/{item}/let-back")
def let_back(visit: Deciding, collection: str, item: str) -> Response:
    found = collection_of(visit, collection)
    about = item_of(visit, found, item)
    if about.state != "quarantined":
        raise Refused(409, "this item is not in quarantine", "somebody let it back meanwhile")
    adjudicate.let_back(visit.site.workspace, found.id, about.id, now=visit.now, person=visit.me.id)
    return goto(f"/c/{found.id}/quarantined", "let-back")


@router.post("/c/{collection}/items/{item}/keep-out")
def keep_out(visit: Deciding, collection: str, item: str, fields: Sent) -> Response:
    """From the page of what is set aside, where it stays; or from that of texts that name their writer."""
    found = collection_of(visit, collection)
    about, page = item_of(visit, found, item), text(fields, "from")
    if page not in ("quarantined", "leaks"):
        raise Refused(400, "there is no such page", "reload the page")
    reason = "names its writer" if page == "leaks" and about.state != "quarantined" else ""
    if not reason and about.state != "quarantined":
        raise Refused(409, "this item is not in quarantine", "somebody let it back meanwhile")
    workspace, me = visit.site.workspace, visit.me.id
    adjudicate.keep_out(workspace, found.id, about.id, now=visit.now, reason=reason, person=me)
    return goto(f"/c/{found.id}/{page}", "kept-out")


@router.get("/c/{collection}/leaks")
def leaks(visit: Deciding, collection: str, after: int = -1) -> Response:
    """Texts in which a model or its maker is named, as they stand, with the words marked."""
    found = collection_of(visit, collection)
    items = review.noted(visit.db, found.id, LEAKS, _place(after), A_PAGE + 1)
    listed = [
        _shown(found, item) | {"words": item.why[LEAKS], "out": item.state == "quarantined", "marked": _marked(item)}
        for item in items[:A_PAGE]
    ]
    later = items[A_PAGE - 1].position if len(items) > A_PAGE else None
    return visit.page("leaks.html", collection=found, items=listed, letters=wording.LETTERS, later=later)


def item_of(visit: Visit, collection: Collection, id: str) -> Item:
    """One of this collection. Another's is the same error as one that does not exist."""
    found = review.items(visit.db, collection.id, [id]).get(id)
    if found is None:
        raise hidden("item")
    return found


# Inside


def _case(collection: Collection, case: Disputed, names: Names, me: str, blind: bool) -> dict[str, Any]:
    votes = [
        {
            "who": f"Person {number}" if blind else _by_judge(names, vote.judge),
            "mine": vote.judge == me and not blind,
            "said": wording.vote(vote),
        }
        for number, vote in enumerate(case.votes, 1)
    ]
    return _shown(collection, case.item) | {
        "agreement": case.agreement,
        "votes": votes,
        "missing": max(0, case.item.overlap - case.item.done),
        "decided": _decided(case, names),
    }


def _decided(case: Disputed, names: Names) -> dict[str, Any] | None:
    made = case.decided
    if made is None:
        return None
    words = wording.DECISIONS[made.decision]
    answer = f": {wording.decided(made.judgement.ranks)}" if made.judgement else ""
    who = _by_id(names, made.person) if made.person else "on the command line"
    since = {vote.id for vote in case.votes} - set(made.votes)
    return {"words": words + answer, "who": who, "at": made.at, "cause": made.cause, "since": len(since)}


def _shown(collection: Collection, item: Item) -> dict[str, Any]:
    sensitive: Sequence[str] = collection.config.get("sensitive", ())
    return {
        "id": item.id,
        "number": item.position + 1,
        "messages": item.prompt.messages,
        "texts": item.texts,
        "rendered": [render(each) for each in item.texts],
        "covered": any(covered(sensitive, item.prompt, item.texts)),
    }


def _by_id(names: Names, person: str) -> str:
    return _by_judge(names, names[person]["judge"]) if person in names else person


def _by_judge(names: Names, judge: str) -> str:
    """Pseudonym, and for those who may know it the name."""
    name = next((each["name"] for each in names.values() if each["judge"] == judge), "")
    return f"{name} ({judge})" if name and name != judge else judge


def _marked(item: Item) -> list[Markup]:
    """Each text, escaped, with every place marked that names a writer."""
    find = LeakFinder(item.why[LEAKS])
    return [_with_marks(each, find.places(each)) for each in item.texts]


def _with_marks(words: str, places: Sequence[tuple[int, int]]) -> Markup:
    parts, last = [], 0
    for start, end in places:
        parts += [shown(words[last:start]), Markup("<mark>{}</mark>").format(shown(words[start:end]))]
        last = end
    return Markup("").join([*parts, shown(words[last:])])


def _cause(fields: Mapping[str, Any]) -> str:
    """One of the list, some words, or both: what comes before the colon can be counted."""
    chosen, words = text(fields, "cause"), text(fields, "words").strip()
    if chosen and chosen not in adjudicate.CAUSES:
        raise Refused(400, "there is no such cause", "choose from the list of the page")
    return ": ".join(filter(None, (chosen, words)))


def _places(fields: Mapping[str, Any], item: Item, how: str) -> tuple[int, ...]:
    if how in PAIR and len(item.texts) == 2:
        return PAIR[how]
    if how != "places":
        raise Refused(400, "there is no such decision", "use a button of the page")
    given = [_whole(fields, f"place-{index}", len(item.texts)) for index in range(len(item.texts))]
    levels = sorted(set(given))
    return tuple(levels.index(place) + 1 for place in given)  # without gaps: 1, 3, 3 says the same as 1, 2, 2


def _whole(fields: Mapping[str, Any], name: str, most: int) -> int:
    value = fields.get(name)
    if not _is_number(value) or not 1 <= int(str(value)) <= most:
        raise Refused(400, f"'{name}' has to be a whole number from 1 to {most}", "go back and choose one")
    return int(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 8


def _place(after: int) -> int:
    return min(max(after, -1), 1 << 62)
