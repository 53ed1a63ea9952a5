"""Which method gains how much, at what price? Every method from one SFT model, on the built-in world.

    python -m benchmarks learning --seed 0 [--methods ppo,rloo,dpo] [--json]

The world, SFT, judgements and reward model are those of `trueup demo`, with more held-out posts. Each method tunes the
same SFT model in a process of its own, so its peak memory is its own. The gold score decides on the held-out posts;
nothing learns from it. Greedy SFT and best-of-8 by the same reward model stand beside: what needs no training at all.
Every method has one recipe here, found on seed 7 and kept for the seeds that judge it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from trueup import api
from trueup.demonstrate import BEST_OF, QUICK, TEMPLATE, Recipe
from trueup.runs import runs
from trueup.store import Workspace

from .measured import peak_mib

HELDOUT = 1000
ROOT = Path(__file__).parents[1]
PPO_ONLY = ("prompt_baseline", "value")


def methods(recipe: Recipe) -> dict[str, tuple[str, dict[str, Any]]]:
    """Of each method its stage and what it is given beyond inputs and seed."""
    ppo = {**recipe.rl, "sampling": dict(recipe.sampling)}
    others = {key: value for key, value in ppo.items() if key not in PPO_ONLY}
    offline = {"optimizer": {"lr": 1e-3}, "beta": 0.3}
    return {
        "ppo": ("rl", ppo),
        "ppo-bf16": ("rl", ppo | {"model": {"dtype": "bfloat16"}}),  # does it learn the same?
        "rloo": ("rl", others | {"estimator": "rloo"}),
        "reinforce++": ("rl", others | {"estimator": "reinforce++"}),
        "grpo": ("rl", others | {"estimator": "grpo"}),
        "dpo": ("dpo", offline),
        "kto": ("kto", offline | {"sides_as_thumbs": True}),
    }


@click.command()
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option(
    "--methods", "names", default="ppo,ppo-bf16,rloo,dpo", show_default=True, help="Which, with commas between."
)
@click.option("--heldout", default=HELDOUT, show_default=True, type=click.IntRange(2), help="Posts that judge.")
@click.option("--workspace", type=click.Path(file_okay=False), help="Keep the world here, or go on with it.")
@click.option("--quick", is_flag=True, help="Small sizes, to see that it works: figures mean nothing.")
@click.option("--json", "as_json", is_flag=True)
@click.option("--one", hidden=True, help="Tune by one method in the workspace here: what the processes run.")
def learning(
    seed: int, names: str, heldout: int, workspace: str | None, quick: bool, as_json: bool, one: str | None
) -> None:
    """What each method gains over SFT in the built-in world, and what it costs."""
    recipe = replace(QUICK if quick else Recipe(), heldout=heldout if not quick else QUICK.heldout)
    if one:
        with Workspace.open(Path.cwd()) as ws:
            click.echo(json.dumps(_tuned(ws, one, recipe, seed)))
        return
    chosen = names.split(",")
    if unknown := [name for name in chosen if name not in methods(recipe)]:
        raise click.BadParameter(f"no method '{unknown[0]}': {', '.join(methods(recipe))}")
    with prepared(workspace, recipe, seed) as ws:
        made = {name: _apart(ws.path, name, seed, quick, heldout) for name in chosen}
        rows = [{"method": name, **cost, **_gains(ws, cost["model"], recipe, seed)} for name, cost in made.items()]
        rows += _without_training(ws, recipe, seed)
    found = {"seed": seed, "heldout": recipe.heldout, "rows": rows}
    click.echo(json.dumps(found, indent=1) if as_json else _text(found))


@contextmanager
def prepared(folder: str | None, recipe: Recipe, seed: int) -> Iterator[Workspace]:
    """A workspace with the demo's recipe up to the reward model: the one that is there already, or a new one."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(folder or Path(scratch) / "w").resolve()
        there = path.exists()
        with Workspace.open(path) if there else Workspace.create(path) as ws:
            if "answers" not in ws.names():  # the last of it
                _prepare(ws, recipe, seed)
            yield ws


def _prepare(ws: Workspace, recipe: Recipe, seed: int) -> None:
    """The demo's recipe up to the reward model, and SFT's answers to the held-out posts."""
    run = {"seed": seed, "threads": 1}

    def train(stage: str, settings: Mapping[str, Any], **more: Any) -> Any:
        return getattr(api, stage)(ws, name=stage, **{**settings, **more, "run": {**settings.get("run", {}), **run}})

    data = api.make_world(
        ws, seed, recipe.pretraining, recipe.demonstrations, recipe.candidates, recipe.heldout, posts=recipe.posts
    )
    base = train("pretrain", recipe.pretrain, data=data["pretraining"], prompt={"template": TEMPLATE})
    sft = train("sft", recipe.sft, base=base, data=data["demonstrations"])
    drafts = api.sample(
        ws, model=sft, prompts=data["candidates"], per_prompt=4, sampling=dict(recipe.sampling),
        run={"seed": seed + 1, "threads": 1},
    )  # fmt: skip
    votes = api.simulate(
        ws, completions=drafts, seed=seed, pairs_per_prompt=recipe.pairs_per_prompt, name="judgements", heldout=0.25
    )
    train("reward", recipe.reward, base=sft, data=votes, features=base, kind="features")
    api.sample(
        ws, model=sft, prompts=data["heldout"], name="answers", per_prompt=BEST_OF, sampling=dict(recipe.sampling),
        run={"seed": seed + 1, "threads": 1},
    )  # fmt: skip


def _tuned(ws: Workspace, name: str, recipe: Recipe, seed: int) -> dict[str, Any]:
    """One method, and what it took."""
    stage, settings = methods(recipe)[name]
    inputs = {"policy": "sft"} | (
        {"reward": "reward", "prompts": "world-posts"} if stage == "rl" else {"data": "judgements"}
    )
    run = {**settings.get("run", {}), "seed": seed, "threads": 1, "tensorboard": False}
    wall, cpu = time.monotonic(), time.process_time()
    model = getattr(api, stage)(ws, **inputs, **{**settings, "run": run})
    done = runs(ws)[-1]
    tokens = sum(row.get("length", 0.0) for row in done.metrics())
    if stage == "rl":
        tokens *= done.config["prompts_per_step"] * done.config["samples_per_prompt"]
    return {
        "model": model.id,
        "seconds": round(time.monotonic() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_mib": round(peak_mib()),
        "sampled_tokens": round(tokens),
        "best_step": done.result["best_step"],
    }


def _apart(folder: Path, name: str, seed: int, quick: bool, heldout: int) -> dict[str, Any]:
    words = ["--one", name, "--seed", str(seed), "--heldout", str(heldout), *(["--quick"] if quick else [])]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "learning", *words],
        cwd=folder, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise click.ClickException(f"{name} ended with exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _gains(ws: Workspace, model: str, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Against SFT sampled, greedy, and its best of eight; and the KL of its answers."""
    common = {"prompts": "world-heldout", "sampling": dict(recipe.sampling), "run": {"seed": seed + 2, "threads": 1}}
    beside: dict[str, dict[str, Any]] = {
        "over_sampled": {"b": "answers"},
        "over_greedy": {"b": "sft", "temperature_b": 0.0},
        "over_best_of": {"b": "answers", "reward": "reward", "best_of": BEST_OF},
    }
    rates = {key: api.winrate(ws, a=model, **other, **common) for key, other in beside.items()}
    return {
        **{key: {"value": rate["value"], "ci": rate["ci"], "n": rate["n"]} for key, rate in rates.items()},
        "gold": rates["over_sampled"]["mean_a"],
        "kl": _kl(ws, model, recipe, seed),
    }


def _kl(ws: Workspace, model: str, recipe: Recipe, seed: int) -> float:
    """Nats an answer, against SFT: the mean log-ratio of what the model itself wrote."""
    from trueup import loading
    from trueup.config import ModelSettings
    from trueup.engines.sampler import Sampler
    from trueup.inputs import chain
    from trueup.models.load import load_model

    drafts = api.sample(
        ws, model=model, prompts="world-heldout", sampling=dict(recipe.sampling), run={"seed": seed + 3, "threads": 1}
    )
    written = [completion for completion in loading.read_completions(drafts) if completion.tokens]
    reference = Sampler(load_model(chain(ws, ws.get("sft")), ModelSettings()))
    known = reference.logprobs(written)
    return sum(sum(c.logprobs) - sum(ref) for c, ref in zip(written, known, strict=True)) / len(written)


def _without_training(ws: Workspace, recipe: Recipe, seed: int) -> list[dict[str, Any]]:
    """SFT itself, greedy and its best of eight by the reward model, over SFT sampled (another sample of it)."""
    common = {"prompts": "world-heldout", "sampling": dict(recipe.sampling), "run": {"seed": seed + 2, "threads": 1}}
    again = api.sample(
        ws, model="sft", prompts="world-heldout", sampling=dict(recipe.sampling), run={"seed": seed + 4, "threads": 1}
    )
    beside: dict[str, dict[str, Any]] = {
        "SFT greedy": {"b": "sft", "temperature_b": 0.0},
        f"SFT best of {BEST_OF}": {"b": "answers", "reward": "reward", "best_of": BEST_OF},
    }
    rows = []
    for name, other in beside.items():
        rate = api.winrate(ws, a=again, **other, **common)
        low, high = rate["ci"]
        over = {"value": 1 - rate["value"], "ci": [1 - high, 1 - low], "n": rate["n"]}
        rows.append({"method": name, "over_sampled": over, "gold": rate["mean_b"]})
    return rows


def _text(found: Mapping[str, Any]) -> str:
    lines = [f"seed {found['seed']}, {found['heldout']} held-out posts, gold over SFT sampled"]
    for row in found["rows"]:
        rate = row["over_sampled"]
        line = (
            f"{row['method']:14} {rate['value']:.3f} [{rate['ci'][0]:.3f}, {rate['ci'][1]:.3f}]  gold {row['gold']:.2f}"
        )
        if "cpu_seconds" in row:
            line += f"  KL {row['kl']:.1f}  {row['cpu_seconds']:.0f} CPU s  {row['peak_mib']} MiB"
        lines.append(line)
    return "\n".join(lines)
