"""Does a long run stay on course? On the built-in world: many passes over each rollout, and a KL held at a target.

    python -m benchmarks steady --seed 0 [--json]

Four passes over each rollout for 200 rollouts, under the guard as it is by default: it must never have to go back, the
approximate KL of a rollout's passes must stay under its limit, and the last policy must be about as good, by gold, as
the best there was. Then a run whose KL coefficient is adapted to a target: the KL of its last 50 rollouts must lie at
the target. Gold is measured on held-out posts at every evaluation, and nothing reads it.

The sizes were found on seed 7 and kept for the seeds that judge them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from trueup import api
from trueup.demonstrate import QUICK, Recipe
from trueup.runs import Run, runs
from trueup.store import Workspace

from .guard import gold_of, posts_of
from .learning import prepared

POSTS, LAST = 160, 50
LONG: Mapping[str, Any] = {
    "steps": 200,
    "epochs": 4,
    "optimizer": {"lr": 2e-4},
    "guard": {"evaluation_prompts": POSTS},
    "run": {"evaluate_every": 20, "checkpoint_every": 100},
}
HELD: Mapping[str, Any] = {"steps": 100, "kl_target": 2.0, "run": {"evaluate_every": 50, "checkpoint_every": 50}}


@click.command()
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--workspace", type=click.Path(file_okay=False), help="Keep the world here, or go on with it.")
@click.option("--quick", is_flag=True, help="Small sizes, to see that it works: figures mean nothing.")
@click.option("--json", "as_json", is_flag=True)
def steady(seed: int, workspace: str | None, quick: bool, as_json: bool) -> None:
    """Whether long runs stay on course: four passes a rollout for 200 rollouts, and a KL held at its target."""
    recipe = QUICK if quick else Recipe()
    with prepared(workspace, recipe, seed) as ws:
        found = {
            "seed": seed,
            "passes": course(_tuned(ws, recipe, seed, LONG, quick)),
            "target": held(_tuned(ws, recipe, seed, HELD, quick)),
        }
    click.echo(json.dumps(found, indent=1) if as_json else _text(found))


def _tuned(ws: Workspace, recipe: Recipe, seed: int, settings: Mapping[str, Any], quick: bool) -> Run:
    """The demo's reinforcement learning with other settings."""
    chosen = {**recipe.rl, **settings, "sampling": dict(recipe.sampling)}
    chosen["run"] = {**chosen.get("run", {}), "seed": seed, "threads": 1, "tensorboard": False}
    if quick:
        chosen |= {"steps": 4}
        chosen["run"] |= {"evaluate_every": 2}
    api.rl(ws, policy="sft", reward="reward", prompts="world-posts", **chosen)
    return runs(ws)[-1]


def course(run: Run) -> dict[str, Any]:
    """Whether the run went back, how far its passes moved the policy, and where gold ended."""
    metrics, events = list(run.metrics()), run.events()
    gold = gold_of(run)
    moved = [row["approx_kl"] for row in metrics if "approx_kl" in row]
    best, final = max(gold.values()), gold[max(gold)]
    limit = run.config["guard"]["max_approx_kl"]
    return {
        "steps": int(metrics[-1]["step"]),
        "passes": run.config["epochs"],
        "rollbacks": sum(event["kind"] == "rollback" for event in events),
        "early_stops": sum(event["kind"] == "early stop" for event in events),
        "approx_kl": {"largest": max(moved), "mean": sum(moved) / len(moved), "limit": limit},
        "gold": {"best": best, "final": final, "share": final / best, "n": posts_of(run)},
        "shipped": int(run.result["best_step"]),
        "curve": [[step, value] for step, value in gold.items()],
    }


def held(run: Run) -> dict[str, Any]:
    """The KL of the last rollouts beside the target."""
    kl: Sequence[float] = [row["kl"] for row in run.metrics() if "kl" in row]
    last, target = kl[-LAST:], float(run.config["kl_target"])
    mean = sum(last) / len(last)
    return {"target": target, "mean": mean, "rollouts": len(last), "off": mean / target - 1, "curve": kl}


def _text(found: Mapping[str, Any]) -> str:
    passes, target = found["passes"], found["target"]
    gold, moved = passes["gold"], passes["approx_kl"]
    return (
        f"seed {found['seed']}, {passes['steps']} rollouts of {passes['passes']} passes: "
        f"{passes['rollbacks']} rollbacks; "
        f"approximate KL at most {moved['largest']:.3f} (limit {moved['limit']}); gold {gold['final']:.2f} at the end, "
        f"{gold['best']:.2f} at its best ({gold['share']:.0%}, n = {gold['n']})\n"
        f"KL held at {target['target']}: {target['mean']:.2f} nats over the last {target['rollouts']} rollouts "
        f"({target['off']:+.0%})"
    )
