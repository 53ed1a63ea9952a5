"""Runs as they go: which there are, one of them, several beside each other; stop one, take one up again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.responses import Response

from .. import watching
from ..errors import NotFoundError
from ..kept_models import STARTS
from ..reports import run_charts, run_page
from ..reports.page import STAGES
from ..reports.wording import duration, number, percent
from ..runs import Run
from ..store import audit
from .auth import Sent, hidden, needs, new_router, text
from .security import Refused
from .site import Visit, as_json, goto

router = new_router()
Looking = Annotated[Visit, needs("see runs")]
Steering = Annotated[Visit, needs("steer runs")]

CURVES_SHOWN = 6  # before one asks for the others
EVENTS_SHOWN = 12
STATUS = {
    "running": "running",
    "done": "done",
    "failed": "failed",
    "interrupted": "stopped",
    "dead": "dead: its process is gone",
}


@router.get("/runs")
def listed(visit: Looking, page: int = 1) -> Response:
    _check_may_look(visit)
    found = watching.listed(visit.site.workspace, max(1, page))
    words = {each["id"]: _standing_words(each) for each in found["going"] + found["ended"]}
    last = {each["id"]: _last_words(each) for each in found["going"] + found["ended"]}
    return visit.page(
        "runs.html", found=found, words=words, last=last, names=STATUS, stages=STAGES, most=watching.MOST_BESIDE
    )


@router.get("/runs/beside")
def beside(visit: Looking) -> Response:
    """Those that the address names: `?run=ID&run=ID`."""
    _check_may_look(visit)
    asked = visit.request.query_params.getlist("run")
    ids = [_run(visit, each).id for each in asked[: watching.MOST_BESIDE + 1]]  # one too many is refused there
    found = watching.beside(visit.site.workspace, ids, visit.site.teller)
    labels = [str(place) for place in range(1, len(found["runs"]) + 1)]
    curves = run_charts.curves_together(found["runs"], labels)
    return visit.page(
        "beside.html",
        found=found,
        labels=labels,
        views=[run_page.view(told) for told in found["runs"]],
        words=[_standing_words(each) for each in found["standing"]],
        shown=curves[:CURVES_SHOWN],
        more=curves[CURVES_SHOWN:],
        names=STATUS,
        number=lambda value: "–" if value is None else number(value),
    )


@router.get("/runs/{run}")
def one(visit: Looking, run: str) -> Response:
    found = _run(visit, run)
    state, told = visit.site.teller.tell(found)
    view = run_page.view(told)
    return visit.page(
        "run.html",
        run=view,
        state=state,
        told=told,
        now=_now(visit, found),
        standing=watching.standing(found),
        shown=view["curves"][:CURVES_SHOWN],
        more=view["curves"][CURVES_SHOWN:],
        events=view["events"][::-1][:EVENTS_SHOWN],
        all_events=len(told["events"]),
        newest=run_page.newest(told["latest"]),
        tries=_tries(visit, found),
        log=watching.log_of(found) if told["status"] in ("failed", "interrupted", "dead") else "",
        names=STATUS,
    )


@router.get("/runs/{run}/now")
def now(visit: Looking, run: str) -> Response:
    """What changes every second, as safe HTML; and what the rest of the page tells of, so that it is fetched only when
    there is more to tell."""
    found = _run(visit, run)
    return as_json({"html": str(_now(visit, found)), "state": visit.site.teller.tell(found)[0] + _asked(found)})


@router.get("/runs/{run}/report")
def report(visit: Looking, run: str) -> Response:
    """The page that `trueup report` writes, to keep or to send."""
    from ..reporting import report as told

    found = _run(visit, run)
    page = run_page.runs_page(told(visit.site.workspace, [found.id]))
    named = {"content-disposition": f'attachment; filename="{found.id}.html"'}
    return Response(page.encode("utf-8", "replace"), media_type="text/html; charset=utf-8", headers=named)


@router.post("/runs/{run}/stop")
def stop(visit: Steering, run: str) -> Response:
    found = _run(visit, run)
    found.ask_to_stop()
    audit.note(visit.db, visit.now, visit.me.id, "asked a run to stop", found.id)
    return goto(f"/runs/{found.id}", "run-stop")


@router.post("/runs/{run}/resume")
def resume(visit: Steering, run: str, fields: Sent) -> Response:
    found, how = _run(visit, run), text(fields, "how")
    if how not in ("go on", "end here"):
        raise Refused(400, "a run goes on or ends here")
    watching.go_on(found, end_here=how == "end here")
    audit.note(visit.db, visit.now, visit.me.id, "took a run up again", found.id, how=how)
    return goto(f"/runs/{found.id}", "run-resume")


def _check_may_look(visit: Visit) -> None:
    """Whoever is here for one collection has no business with runs."""
    if visit.me.collection:
        raise hidden("run")


def _run(visit: Visit, ref: str) -> Run:
    """By its whole id."""
    _check_may_look(visit)
    try:
        found = Run.load(visit.site.workspace, ref)
    except NotFoundError:
        raise hidden("run") from None  # the store's own words would name others
    if found.id != ref:
        raise hidden("run")
    return found


def _tries(visit: Visit, run: Run) -> str:
    """Its last two checkpoints, as the page for trying models takes them; empty where there is nothing to try."""
    steps = [step for step, _ in run.checkpoints()][-2:]
    if not visit.may("try models") or run.stage not in STARTS or not steps:
        return ""
    return urlencode({"a": f"{run.id}@{steps[0]}", "b": f"{run.id}@{steps[-1]}"})


def _now(visit: Visit, run: Run) -> Markup:
    standing = watching.standing(run)
    template = visit.site.templates.get_template("run_now.html")
    return Markup(template.render(standing=standing, words=_standing_words(standing), names=STATUS))


def _asked(run: Run) -> str:
    return " stopping" if run.stop_asked else ""


def _standing_words(standing: Mapping[str, Any]) -> dict[str, Any]:
    """How far it is and what it takes, in words."""
    meters = [
        {
            "label": meter["label"],
            "done": meter["done"],
            "total": meter["total"],
            "share": f"{meter['done']:,} of {meter['total']:,}",
            "left": "" if meter["left"] is None else f"{duration(meter['left'])} left",
        }
        for meter in standing["meters"]
    ]
    taken = [f"{standing['mib']:,} MiB of memory"] if standing["mib"] else []
    taken += [f"{standing['gpu_mib']:,} MiB of the GPU"] if standing["gpu_mib"] else []
    taken += [f"{standing['cores']:.1f} processors busy"] if standing["cores"] is not None else []
    taken += [f"process {standing['pid']}"] if standing["pid"] else []
    silent = f"no word for {duration(standing['silent'])}" if standing["seems_stuck"] else ""
    return {"meters": meters, "taken": taken, "silent": silent}


def _last_words(told: Mapping[str, Any]) -> str:
    """What stands beside a run in the list: its last metrics, or what came of it."""
    if told["found"]:
        return str(told["found"])
    found = []
    for name, value in told["last"]:
        words, _, share = run_charts.named(name, told["stage"])
        found.append(f"{words} {percent(value) if share else number(value)}")
    return " · ".join(found)
