"""How soon is the policy as good, by gold, beside TRL's PPO? In seconds of the processor, on the built-in world.

    python -m benchmarks gold --seed 0 [--rounds 3] [--json]
    python -m benchmarks gold --seed 7 --search [--only "1 x 32"]

Both sides tune the same SFT policy on the same prompts against the same plain-head reward model, each in a process of
its own, in turns, one thread, float32. Weights are kept after every iteration and judged outside: one completion to
each held-out post, by trueup's sampler for both, whose gold score is held against those of SFT's own completions.

The figure is the ratio of the training seconds until the win rate has reached, twice in a row, the highest threshold
that both reach. trueup has the demo's recipe. TRL has the best of `SEARCHED`, which were tried on seed 7.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from trueup.demonstrate import QUICK, Recipe
from trueup.reports.charts import Series, line_chart
from trueup.store import Workspace

from .gold_curves import THRESHOLDS, beside, decided, pooled
from .gold_material import material
from .gold_seen import Eye
from .job import Job
from .learning import HELDOUT, prepared
from .speed_rows import OURS, PPO_TRL, Side
from .speed_run import run_side, source_digest

TRL = "TRL"
POSTS = 300
MEASURING = ("laps", "material", "seen", "trl", "trueup")  # the files beside this one that a curve depends on
APART = 100  # between the seeds of two rounds
SIDES = {OURS: Side(OURS, "gold_trueup", "ppo"), TRL: Side(TRL, "gold_trl", "ppo", PPO_TRL)}
ITERATIONS = 40
# Of TRL's PPO; what is not named has TRL's own default.
SETTINGS: Mapping[str, Any] = {
    "batch": 128, "minibatches": 32, "epochs": 1, "lr": 2e-4, "schedule": "constant", "kl": 0.05, "missing_eos": 1.0,
    "value_coefficient": 0.1, "value_clip": 10.0, "whiten": False, "beta2": 0.999, "epsilon": 1e-8,
}  # fmt: skip
TWICE = {"epochs": 2, "minibatches": 2}
SEARCHED: Mapping[str, Mapping[str, Any]] = {
    "lr 2e-4, 1 x 32": {},
    "lr 2e-4, 1 x 64": {"minibatches": 64},
    "lr 3e-4, 1 x 32": {"lr": 3e-4},
    "lr 3e-4, 1 x 16": {"lr": 3e-4, "minibatches": 16},
    "lr 5e-4, 1 x 32": {"lr": 5e-4},
    "lr 5e-4, 1 x 16": {"lr": 5e-4, "minibatches": 16},
    "lr 7e-4, 1 x 8": {"lr": 7e-4, "minibatches": 8},
    "lr 1e-3, 1 x 4": {"lr": 1e-3, "minibatches": 4},
    "lr 2e-3, 1 x 4": {"lr": 2e-3, "minibatches": 4},
    "lr 1e-3, 2 x 2": {**TWICE, "lr": 1e-3},
    "lr 1e-3, 2 x 2, value clip 0.2": {**TWICE, "lr": 1e-3, "value_clip": 0.2},
    "lr 2e-3, 2 x 2": {**TWICE, "lr": 2e-3},
    "lr 1e-3, 2 x 2, batch 64": {**TWICE, "lr": 1e-3, "batch": 64},
    "lr 3e-4, 4 x 4, value clip 0.2": {"lr": 3e-4, "epochs": 4, "minibatches": 4, "value_clip": 0.2},
}


@dataclass(frozen=True)
class Plan:
    seed: int
    rounds: int = 1
    iterations: int = ITERATIONS  # of TRL's; trueup's are in the recipe
    posts: int = POSTS
    batch: int = SETTINGS["batch"]

    def seeds(self) -> list[int]:
        """Of the trainings, one a round."""
        return [self.seed + APART * number for number in range(self.rounds)]


@click.command()
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the world, and of the training.")
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help="Trainings of each side.")
@click.option("--iterations", default=ITERATIONS, show_default=True, type=click.IntRange(1), help="Of TRL's.")
@click.option("--posts", default=POSTS, show_default=True, type=click.IntRange(2), help="Held-out posts that judge.")
@click.option("--workspace", type=click.Path(file_okay=False), help="Keep the world here, or go on with it.")
@click.option("--search", is_flag=True, help="TRL alone, with each of the settings that were tried.")
@click.option("--only", default="", metavar="WORDS", help="Of --search, the settings with these words in their name.")
@click.option("--chart", type=click.Path(dir_okay=False, path_type=Path), help="Write the curves here, as SVG.")
@click.option("--quick", is_flag=True, help="Small sizes, to see that it works: figures mean nothing.")
@click.option("--json", "as_json", is_flag=True)
def gold(
    seed: int, rounds: int, iterations: int, posts: int, workspace: str | None, search: bool, only: str,
    chart: Path | None, quick: bool, as_json: bool,
) -> None:  # fmt: skip
    """Seconds to a gold win rate over SFT that both reach, beside TRL's PPO."""
    if quick and search:
        raise click.UsageError("what was tried says something at its size only: --search does not go with --quick")
    recipe = QUICK if quick else Recipe(heldout=HELDOUT)
    plan = Plan(seed, rounds, 3, posts, batch=16) if quick else Plan(seed, rounds, iterations, posts)
    with prepared(workspace, recipe, seed) as ws:
        found = searched(ws, recipe, plan, only) if search else compared(ws, recipe, plan)
    if chart:
        chart.write_text(drawn(found), encoding="utf-8")
    click.echo(json.dumps(found, indent=1) if as_json else text(found))


def compared(ws: Workspace, recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """Of each round both curves and where they cross the thresholds; and what is taken from all rounds together."""
    done: list[dict[str, Any]] = []
    with _judging(ws, recipe, plan) as curve_of:
        for number, seed in enumerate(plan.seeds()):
            order = list(SIDES) if number % 2 == 0 else list(SIDES)[::-1]
            sides = {name: curve_of(SIDES[name], _job(name, recipe, plan, seed)) for name in order}
            rows = beside(sides[OURS]["laps"], sides[TRL]["laps"])
            done.append({"seed": seed, "sides": sides, "thresholds": rows, "decided": decided(rows)})
    return {"seed": plan.seed, "posts": plan.posts, "rounds": done, **pooled([each["thresholds"] for each in done])}


def searched(ws: Workspace, recipe: Recipe, plan: Plan, only: str) -> dict[str, Any]:
    """TRL's curve with each of the settings that were tried."""
    job = _job(TRL, recipe, plan, plan.seed)
    with _judging(ws, recipe, plan) as curve_of:
        curves = {
            name: curve_of(SIDES[TRL], job | {"trl": {**job["trl"], **changed}})
            for name, changed in SEARCHED.items()
            if only in name
        }
    return {"seed": plan.seed, "posts": plan.posts, "rounds": [{"seed": plan.seed, "sides": curves}]}


@contextmanager
def _judging(ws: Workspace, recipe: Recipe, plan: Plan) -> Iterator[Callable[[Side, Job], dict[str, Any]]]:
    """One training in a process of its own, and then the win rate of each of its laps."""
    eye = Eye(ws, recipe, plan.posts)
    with tempfile.TemporaryDirectory() as scratch:
        given = asdict(material(ws, recipe, plan.seed, Path(scratch)))

        def curve_of(side: Side, job: Job) -> dict[str, Any]:
            file = ws.path / "gold" / f"{_key(side, job, plan.posts)}.json"
            click.echo(f"{side.name}, seed {job['seed']}{', as kept' * file.is_file()}", err=True)
            if not file.is_file():
                with tempfile.TemporaryDirectory(dir=scratch) as weights:
                    line = run_side(side, given | job | {"weights": weights})
                    line["laps"] = [_judged(lap, eye, line["kl"]) for lap in line["laps"]]
                _keep(file, line)
            kept: dict[str, Any] = json.loads(file.read_text())
            return kept

        yield curve_of


def _key(side: Side, job: Job, posts: int) -> str:
    """All that a curve depends on beside the world: a command that was stopped goes on after its last curve."""
    sources = [source_digest(), *(Path(__file__).with_name(f"gold_{name}.py").read_text() for name in MEASURING)]
    told = json.dumps([side.name, job, posts, sources], sort_keys=True)
    return f"{side.name}-{job['seed']}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _keep(file: Path, line: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(line))
    part.replace(file)


def _judged(lap: Job, eye: Eye, kl: Sequence[float]) -> Job:
    seen = {"iteration": lap["iteration"], "seconds": lap["seconds"], "wall_seconds": lap["wall_seconds"]}
    return seen | {"kl": kl[lap["iteration"] - 1]} | eye.win_rate(lap["weights"])


def _job(side: str, recipe: Recipe, plan: Plan, seed: int) -> Job:
    """What a side's program reads beside the material."""
    job: Job = {"job": "ppo", "threads": 1, "seed": seed, "every": 1}
    if side == OURS:
        run = {**recipe.rl.get("run", {}), "seed": seed, "threads": 1, "tensorboard": False}
        return job | {"rl": {**recipe.rl, "sampling": dict(recipe.sampling), "run": run}}
    return job | {
        "trl": {**SETTINGS, "batch": plan.batch}, "iterations": plan.iterations,
        "new_tokens": recipe.sampling["max_new_tokens"], "temperature": 1.0,
    }  # fmt: skip


def text(found: Mapping[str, Any]) -> str:
    lines = [f"world {found['seed']}, {found['posts']} held-out posts, gold win rate over SFT sampled at temperature 1"]
    for each in found["rounds"]:
        lines.append(f"\nseed {each['seed']}")
        for name, side in each["sides"].items():
            lines += [f"{name}, {side['version']}", "  iteration  CPU s  win rate  gold   KL"]
            lines += [_lap_line(lap) for lap in side["laps"]]
        lines += [_threshold_line(row) for row in each.get("thresholds", ())]
    return "\n".join([*lines, *_verdict(found)])


def _lap_line(lap: Mapping[str, Any]) -> str:
    return f"  {lap['iteration']:9} {lap['seconds']:6.1f} {lap['win_rate']:9.3f} {lap['gold']:5.2f} {lap['kl']:4.1f}"


def _threshold_line(row: Mapping[str, Any]) -> str:
    sides = (f"{name} {_when(row[name])}" for name in SIDES)
    ratio = f": {row['ratio']:.1f}x in seconds, {row['iterations']:.1f}x in iterations" if "ratio" in row else ""
    return f"{row['threshold']:.2f}: {', '.join(sides)}{ratio}"


def _when(lap: Mapping[str, Any] | None) -> str:
    return "never" if lap is None else f"{lap['seconds']:.1f} s (iteration {lap['iteration']})"


def _verdict(found: Mapping[str, Any]) -> list[str]:
    if "ratios" not in found:
        return []
    if found["ratio"] is None:
        return ["", f"no win rate of {THRESHOLDS[0]} or more that both reach in every round"]
    each = ", ".join(f"{ratio:.1f}" for ratio in found["ratios"])
    return ["", f"to {found['threshold']:.2f}, which both reach in every round: {found['ratio']:.1f}x (rounds: {each})"]


def drawn(found: Mapping[str, Any]) -> str:
    """All curves over the seconds of the processor."""
    several = len(found["rounds"]) > 1
    lines = [
        Series(
            f"{name}, {each['seed']}" if several else name,
            [lap["seconds"] for lap in side["laps"]],
            [lap["win_rate"] for lap in side["laps"]],
        )
        for each in found["rounds"]
        for name, side in each["sides"].items()
    ]
    return line_chart(lines, "CPU seconds", "gold win rate", "Over SFT sampled", width=480, height=260, percent=True)
