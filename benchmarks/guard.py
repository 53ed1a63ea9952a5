"""Does the guard ship what is good, when the scorer is not? On the built-in world.

    python -m benchmarks guard --seed 0 [--json]

A reward model that saw few judgements is climbed without any price on the KL, twice: once unguarded to the end, once
under the guard, with the demo's own reward model as the judge that is kept out of training. Gold is measured on the
same held-out posts at every evaluation, and nothing reads it. What counts: how much of the way from SFT to the best
that the unguarded run ever was, by gold, the guard's checkpoint keeps; and where the unguarded run ends.

The sizes were found on seed 7: there gold rises from 2.2 to 3.8 within four steps and is below SFT's after forty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from trueup import api
from trueup.demonstrate import QUICK, Recipe
from trueup.runs import Run, runs
from trueup.store import Workspace
from trueup.world import GoldScorer

from .learning import prepared

STEPS, EVERY, POSTS, WEAK_STEPS = 40, 2, 160, 24
DECISIONS = ("rollback", "over-optimisation", "stop")


@click.command()
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--workspace", type=click.Path(file_okay=False), help="Keep the world here, or go on with it.")
@click.option("--quick", is_flag=True, help="Small sizes, to see that it works: figures mean nothing.")
@click.option("--json", "as_json", is_flag=True)
def guard(seed: int, workspace: str | None, quick: bool, as_json: bool) -> None:
    """What the guard ships when a weak reward model is climbed without a KL penalty."""
    recipe = QUICK if quick else Recipe()
    with prepared(workspace, recipe, seed) as ws:
        weak = _weak(ws, recipe, seed, quick)
        free = _climbed(ws, weak, recipe, seed, quick, rollback=False)
        held = _climbed(ws, weak, recipe, seed, quick, rollback=True)
        start = _gold_of_sft(ws, free, recipe)
        found = judged(start, gold_of(free), gold_of(held), int(held.result["best_step"]), seed) | {"n": posts_of(free)}
        found["decisions"] = [event for event in held.events() if event["kind"] in DECISIONS]
    click.echo(json.dumps(found, indent=1) if as_json else _text(found))


def judged(
    start: float, free: Mapping[int, float], held: Mapping[int, float], shipped: int, seed: int
) -> dict[str, Any]:
    """Gold at the start, at the unguarded run's peak and end, and of what was shipped; as shares of the way up."""
    peak = max(free, key=lambda step: free[step])
    gain = free[peak] - start
    gold = start if shipped == 0 else held[shipped]
    return {
        "seed": seed,
        "sft": start,
        "peak": {"step": peak, "gold": free[peak]},
        "unguarded_end": free[max(free)],
        "shipped": {"step": shipped, "gold": gold},
        "kept": (gold - start) / gain if gain > 0 else None,
        "curve": [[step, value] for step, value in sorted(free.items())],
    }


def _weak(ws: Workspace, recipe: Recipe, seed: int, quick: bool) -> str:
    settings = {key: value for key, value in recipe.weak_reward.items() if key != "run"}
    steps = settings["steps"] if quick else WEAK_STEPS
    model = api.reward(
        ws, base="sft", data="judgements", kind="sequence", **{**settings, "steps": steps},
        run={"seed": seed, "threads": 1, "evaluate_every": steps},
    )  # fmt: skip
    return model.id


def _climbed(ws: Workspace, weak: str, recipe: Recipe, seed: int, quick: bool, *, rollback: bool) -> Run:
    settings = {
        "steps": 4 if quick else STEPS,
        "kl_coefficient": 0.0,
        "missing_eos_score": None,
        "value": {"coefficient": 0.5, "clip": 0.0, "lr": 5e-3},
        "optimizer": {"lr": 1e-3},
        "sampling": dict(recipe.sampling),
        "run": {"seed": seed, "threads": 1, "tensorboard": False, "evaluate_every": EVERY},
        "guard": {"rollback": rollback, "stop_gamed": rollback, "max_approx_kl": 10.0, "evaluation_prompts": POSTS},
    }
    if quick:
        settings |= {"prompts_per_step": 4, "samples_per_prompt": 2}
    api.rl(ws, policy="sft", reward=weak, prompts="world-posts", judge="reward", **settings)
    return runs(ws)[-1]


def gold_of(run: Run) -> dict[int, float]:
    """At every evaluation."""
    return {int(row["step"]): row["heldout_gold"] for row in run.metrics() if "heldout_gold" in row}


def posts_of(run: Run) -> int:
    """How many its evaluations are made on."""
    (start,) = [event for event in run.events() if event["kind"] == "start"]
    return int(start["prompts"])


def _gold_of_sft(ws: Workspace, run: Run, recipe: Recipe) -> float:
    """On the very posts of the evaluations, by the very sample: what the run saw before its first step."""
    from trueup import loading
    from trueup.config import ModelSettings, Sampling
    from trueup.engines.sampler import Sampler
    from trueup.inputs import chain
    from trueup.models.load import load_model
    from trueup.train.seeds import seed_of

    posts = sorted(loading.read_prompts(ws.get("world-posts")), key=lambda prompt: prompt.id)[: posts_of(run)]
    config = api.configs.RlConfig.model_validate(dict(run.config))
    sampler = Sampler(load_model(chain(ws, ws.get("sft")), ModelSettings()))
    sampling = Sampling(**recipe.sampling)
    written = sampler.sample(posts, sampling, seed=seed_of(config, "evaluation", 0), n=1)
    scores = GoldScorer().score(written)
    return sum(score.value for score in scores) / len(scores)


def _text(found: Mapping[str, Any]) -> str:
    kept = "no way up" if found["kept"] is None else f"{found['kept']:.0%} of the way kept"
    peak, shipped = found["peak"], found["shipped"]
    return (
        f"seed {found['seed']}, {found['n']} held-out posts: gold {found['sft']:.2f} (SFT), {peak['gold']:.2f} at its "
        f"peak (step {peak['step']}), {found['unguarded_end']:.2f} at the end unguarded; shipped {shipped['gold']:.2f} "
        f"(step {shipped['step']}), {kept}"
    )
