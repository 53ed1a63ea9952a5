"""`trueup runs`: what was executed, with which settings, how it went, and how to go on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from ..errors import NotFoundError, TrueupError
from .command import Group, Result, workspace
from .text import artifact_data, artifact_line, cell, counted, jsonable, named, printable, table

if TYPE_CHECKING:
    from ..records import Prompt
    from ..runs import Run
    from ..runs.doctor import Diagnosis

EVENTS_SHOWN = 10
BARS, PLAIN_BARS, CURVE_WIDTH = "▁▂▃▄▅▆▇█", "_.-=+*#@", 32


@click.group(
    cls=Group,
    examples="""
    trueup runs list
    trueup runs show 20261121-0137-rl-5f0c
    """,
)
def runs() -> None:
    """Look at runs, compare them, take one up again."""


@runs.command(
    "list",
    examples="""
    trueup runs list
    trueup runs list --stage rl --json
    """,
)
@click.option("--stage", help="Only those of one stage.")
def list_runs(stage: str | None) -> Result:
    """List runs, oldest first."""
    from .. import runs as library

    with workspace() as ws:
        found = [_summary(run) for run in library.runs(ws) if stage in (None, run.stage)]
    rows = [[r["id"], r["stage"], r["status"], r["seed"], r["started"][:19], r["outputs"]] for r in found]
    return Result(found, table(["id", "stage", "status", "seed", "started", "made"], rows, "no runs yet"))


@runs.command(
    "show",
    examples="""
    trueup runs show 20261121-0137-rl
    trueup runs show 20261121-0137-rl --json
    """,
)
@click.argument("run_id", metavar="RUN")
def show(run_id: str) -> Result:
    """Print one run: settings, inputs, outputs, result, its last metrics and events."""
    from ..runs import Run

    with workspace() as ws:
        run = Run.load(ws, run_id)
        about = _summary(run) | {
            "path": str(run.path),
            "config": dict(run.config),
            "versions": dict(run.row.versions),
        }
        metrics, events = run.metrics(), run.events()
    last = {name: item for row in metrics for name, item in row.items()}  # the last value of each
    text = named({key: item for key, item in about.items() if item not in ("", {}, None)} | {"last metrics": last})
    if events:
        older = f" (the last {EVENTS_SHOWN} of {len(events)})" if len(events) > EVENTS_SHOWN else ""
        text += f"\nevents{older}\n" + "\n".join(f"  {cell(event)}" for event in events[-EVENTS_SHOWN:])
    return Result(about | {"metrics": metrics, "events": events}, text)


@runs.command(
    "diff",
    examples="""
    trueup runs diff 20261121-0137-rl 20261121-0240-rl
    """,
)
@click.argument("a", metavar="RUN_A")
@click.argument("b", metavar="RUN_B")
def diff(a: str, b: str) -> Result:
    """Print what differs between two runs: settings, inputs, versions, results."""
    from .. import runs as library

    with workspace() as ws:
        run_a, run_b = library.Run.load(ws, a), library.Run.load(ws, b)
        found = library.diff(run_a, run_b)
    rows = [[part, key, *pair] for part, keys in found.items() for key, pair in keys.items()]
    text = table(["part", "key", run_a.id, run_b.id], rows, "no difference")
    return Result({"a": run_a.id, "b": run_b.id, "differences": found}, text)


@runs.command(
    "resume",
    examples="""
    trueup runs resume 20261121-0137-rl-5f0c
    trueup runs resume 20261121-0137-rl-5f0c --end-here
    """,
)
@click.argument("run_id", metavar="RUN")
@click.option(
    "--end-here", is_flag=True, help="Train no further: make its model of the best checkpoint, else the last."
)
def resume(run_id: str, end_here: bool) -> Result:
    """Go on with a run that was interrupted, failed or killed, from its last checkpoint."""
    from .. import api

    with workspace() as ws:
        artifact = api.resume(ws, run_id, end_here=end_here)
        return Result(artifact_data(artifact, ws.names()), artifact_line(artifact))


@runs.command(
    "ship",
    examples="""
    trueup runs ship 20261121-0137-rl-5f0c@40
    trueup runs ship 20261121-0137-rl-5f0c@40 --name earlier
    """,
)
@click.argument("checkpoint", metavar="RUN@STEP")
@click.option("--name", default="", metavar="NAME", help="What the model is to be called.")
def ship(checkpoint: str, name: str) -> Result:
    """Make a model of a checkpoint that a run keeps, such as the step that `trueup eval overopt` names.

    A run keeps its last two checkpoints and the best; with --set run.keep_weights=true the weights of every evaluation.
    Commands that evaluate, sample or talk to models take RUN@STEP as it is.
    """
    from ..kept_models import ship as make

    with workspace() as ws:
        artifact = make(ws, checkpoint, name)
        return Result(artifact_data(artifact, ws.names()), artifact_line(artifact, name))


@runs.command(
    "samples",
    examples="""
    trueup runs samples 20261121-0137-rl
    trueup runs samples 20261121-0137-rl --step 40 --rows 20
    trueup runs samples 20261121-0137-rl --heldout
    """,
)
@click.argument("run_id", metavar="RUN")
@click.option("--step", type=click.IntRange(min=0), help="The step to show; by default the last one with samples.")
@click.option("--rows", type=click.IntRange(min=1), default=5, show_default=True, help="How many samples to show.")
@click.option("--heldout", is_flag=True, help="Those of evaluations, on held-out prompts; step 0 is before the first.")
def samples(run_id: str, step: int | None, rows: int, heldout: bool) -> Result:
    """Print what the policy of a run was asked at a step, what it wrote, its score and its KL.

    With the setting run.keep_logprobs, its tokens and their log-probabilities too.
    """
    from ..loading import prompts_of
    from ..runs import Run

    with workspace() as ws:
        run = Run.load(ws, run_id)
        steps = run.sample_steps(heldout=heldout)
        chosen = steps[-1] if step is None and steps else step
        if chosen is None or chosen not in steps:
            kept = f"it has them at steps {cell(steps)}" if steps else "only RL runs keep samples"
            raise NotFoundError(f"run {run.id} has no samples" + ("" if step is None else f" of step {step}"), kept)
        asked = prompts_of(run)
        shown = [_with_prompt({"step": chosen, **row}, asked) for row in run.samples(chosen, heldout=heldout)[:rows]]
    return Result({"run": run.id, "steps": steps, "samples": shown}, _listed(chosen, shown))


def _with_prompt(row: Mapping[str, Any], asked: Mapping[str, Prompt]) -> dict[str, Any]:
    prompt = asked.get(row.get("prompt", ""))
    if prompt is None:
        return {**row}
    return {"step": row["step"], "prompt": row["prompt"], "prompt_text": prompt.text, **row}


@runs.command(
    "doctor",
    examples="""
    trueup runs doctor 20261121-0137-rl
    trueup runs doctor 20261121-0137-rl --gate --json
    """,
)
@click.argument("run_id", metavar="RUN")
@click.option("--gate", is_flag=True, help="Exit with 1 where there is a fault.")
def doctor(run_id: str, gate: bool) -> Result:
    """Say in words what is wrong with a run and what to try, the cause before what follows from it.

    docs/doctor.md says what each finding means.
    """
    from ..runs.doctor import doctor as examine

    with workspace() as ws:
        found = examine(ws, run_id)
    refused = None
    if gate and found.faults:
        first = found.faults[0]
        refused = TrueupError(
            f"run {found.run} has {counted(len(found.faults), 'fault')}: {first.says}", first.tries[0]
        )
    return Result({**jsonable(found), "sound": found.sound}, _diagnosis(found), refused=refused)


def _diagnosis(found: Diagnosis) -> str:
    word = "no fault found" if found.sound else counted(len(found.faults), "fault") + ", the cause first"
    parts = [f"run {found.run} ({found.stage}, {found.status}, {counted(found.steps, 'step')}): {word}"]
    parts += ["\n".join([f"{each.severity} {each.code}", f"  {printable(each.says)}",
                         *(f"  try: {printable(way)}" for way in each.tries)]) for each in found.findings]  # fmt: skip
    if found.curves:
        rows = [[name, _sparkline(curve), curve[0], curve[-1]] for name, curve in found.curves.items()]
        parts.append(table(["metric", "over the run", "first", "last"], rows))
    return "\n\n".join(parts)


def _sparkline(values: Sequence[float]) -> str:
    """A curve in one line of text: the lowest value is the lowest sign, each sign the mean of a part of the run."""
    signs = BARS if _shows(BARS) else PLAIN_BARS
    low, high, width = min(values), max(values), min(len(values), CURVE_WIDTH)
    edges = [len(values) * i // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    places = [(mean - low) / (high - low) if high > low else 0.0 for mean in means]
    return "".join(signs[min(int(place * len(signs)), len(signs) - 1)] for place in places)


def _shows(signs: str) -> bool:
    try:
        signs.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _listed(step: int | None, rows: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n".join([f"step {step}", *(named({k: v for k, v in row.items() if k != "step"}) for row in rows)])


def _summary(run: Run) -> dict[str, Any]:
    row = run.row
    return {
        "id": row.id,
        "stage": row.stage,
        "status": run.status,
        "seed": row.seed,
        "started": row.started,
        "ended": row.ended,
        "note": row.note,
        "inputs": dict(row.inputs),
        "outputs": dict(row.outputs),
        "result": dict(row.result),
        "error": row.error,
    }
