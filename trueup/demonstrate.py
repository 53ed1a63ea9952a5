"""`trueup demo`: the whole loop on the built-in world, from an empty folder to a model tuned on people's preferences.

Every stage below is the one that users call, through the same API, on the same kind of workspace. What is special is
only the recipe: sizes and rates that make a model of a million parameters learn in a few minutes on a laptop.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trueup

from . import api, loading
from .inputs import chain
from .process import peak_mib
from .records import by_prompt
from .reports import demo_page
from .runs import Run, runs
from .stats.curves import best_of_n_kl, best_of_n_mean
from .store import Artifact, Workspace
from .world import GoldScorer

PEOPLE = "The people in this demo are simulated: five programmed personas with their own tastes and mistakes."
NOTES = [
    "The headroom is designed in: the demonstrations contain wrong facts, filler and repetition, and the simulated "
    "people dislike that. The size of the gain says that the loop works, not how much it would gain elsewhere.",
    "Sharpening alone explains a part of such a gain. That is why greedy SFT and best-of-8 by the same reward model "
    "stand beside SFT sampled at temperature 1.",
    "Held out means new combinations of the same templates and words.",
    "The gold score knows the truth about each post. It is only measured: nothing learns from it, stops on it or "
    "chooses by it.",
]
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ 'TL;DR: ' + message.content + eos_token }}"
    "{% else %}{{ 'POST: ' + message.content + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'TL;DR:' }}{% endif %}"
)
BEST_OF = 8


@dataclass(frozen=True)
class Recipe:
    """Sizes of the data and settings of the stages. `QUICK` is the same loop at a size for tests: it learns little."""

    pretraining: int = 2900
    demonstrations: int = 1024
    candidates: int = 1400
    posts: int = 800
    heldout: int = 320
    pairs_per_prompt: int = 6
    sampling: Mapping[str, Any] = field(default_factory=lambda: {"max_new_tokens": 32, "batch_size": 128})
    pretrain: Mapping[str, Any] = field(
        default_factory=lambda: {
            "steps": 350,
            "batch_size": 8,
            "completion_weight": 30.0,  # copying is learnt from the titles; the posts' own tokens would drown them
            "architecture": {"qk_norm": True},
            "optimizer": {"name": "muon", "lr": 2e-2, "muon_lr": 0.05, "warmup_steps": 20, "final_lr": 0.0},
            "run": {"evaluate_every": 70, "checkpoint_every": 350},
        }
    )
    sft: Mapping[str, Any] = field(
        default_factory=lambda: {
            "steps": 60,
            "optimizer": {"lr": 1e-3, "warmup_steps": 5},
            "run": {"evaluate_every": 20},
        }
    )
    reward: Mapping[str, Any] = field(
        default_factory=lambda: {
            "steps": 140,
            "head_lr": 0.02,
            "optimizer": {"name": "muon", "lr": 2e-3, "muon_lr": 0.02, "warmup_steps": 5},
            "run": {"evaluate_every": 140},
        }
    )
    plain_reward_steps: int = 45  # the plain head is shown beside the other, with the same settings
    rl: Mapping[str, Any] = field(
        default_factory=lambda: {
            "steps": 40,
            "epochs": 1,  # a second pass over a rollout gained nothing here; more rollouts for its time did
            "kl_coefficient": 0.05,
            # the value head starts from nothing and has far to go
            "value": {"coefficient": 0.5, "clip": 0.0, "lr": 5e-3},
            "prompt_baseline": True,
            "optimizer": {"lr": 8e-4},
            # One evaluation, at the end: choosing among checkpoints by a few dozen posts would be choosing by noise.
            "run": {"evaluate_every": 40, "checkpoint_every": 20},
        }
    )
    weak_reward: Mapping[str, Any] = field(
        default_factory=lambda: {
            "steps": 12,
            "head_lr": 0.02,
            "optimizer": {"name": "muon", "lr": 2e-3, "muon_lr": 0.02},
            "run": {"evaluate_every": 12},
        }
    )
    overopt: Mapping[str, Any] = field(
        default_factory=lambda: {
            "steps": 32,
            "kl_coefficient": 0.0,
            "missing_eos_score": None,
            "guard": {"rollback": False, "max_approx_kl": 10.0},
            "value": {"coefficient": 0.5, "clip": 0.0, "lr": 5e-3},
            "optimizer": {"lr": 2e-3},
            "run": {"evaluate_every": 16, "checkpoint_every": 32},
        }
    )


QUICK = Recipe(
    pretraining=60,
    demonstrations=48,
    candidates=24,
    posts=40,
    heldout=16,
    pairs_per_prompt=3,
    sampling={"max_new_tokens": 12, "batch_size": 64},
    pretrain={"steps": 12, "batch_size": 4, "optimizer": {"name": "muon", "lr": 1e-2}, "architecture": {
        "hidden": 32, "layers": 2, "heads": 2, "mlp": 64, "vocabulary": 512}},
    sft={"steps": 4, "batch_size": 8},
    reward={"steps": 4, "batch_size": 4},
    plain_reward_steps=4,
    weak_reward={"steps": 2, "batch_size": 4},
    rl={"steps": 3, "prompts_per_step": 4, "samples_per_prompt": 2, "guard": {"evaluation_prompts": 4}},
    overopt={"steps": 3, "prompts_per_step": 4, "samples_per_prompt": 2, "kl_coefficient": 0.0,
             "guard": {"evaluation_prompts": 4}},
)  # fmt: skip


def run_demo(folder: Path, *, seed: int = 0, overopt: bool = False, quick: bool = False) -> dict[str, Any]:
    """Everything afresh in a new folder; returns what the page and the terminal show, ready for JSON."""
    recipe = QUICK if quick else Recipe()
    with Workspace.create(folder) as workspace:
        result = _Demo(workspace, recipe, seed).run(overopt)
    page = folder / "demo.html"
    result |= {"workspace": str(folder), "report": str(page), "commands": _commands(folder)}
    result |= {"seconds": round(_seconds_since_start(), 1), "cpu_seconds": round(time.process_time(), 1)}
    result["peak_memory_mib"] = round(peak_mib())
    page.write_text(demo_page(result), encoding="utf-8")
    (folder / "demo.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return result


class _Demo:
    """The loop, stage by stage, noting what each took and gave."""

    def __init__(self, workspace: Workspace, recipe: Recipe, seed: int) -> None:
        self.ws, self.recipe, self.seed = workspace, recipe, seed
        self.stages: list[dict[str, Any]] = []

    def run(self, overopt: bool) -> dict[str, Any]:
        recipe, seed = self.recipe, self.seed
        with self._stage("world") as note:
            data = api.make_world(
                self.ws, seed, recipe.pretraining, recipe.demonstrations, recipe.candidates, recipe.heldout,
                posts=recipe.posts,
            )  # fmt: skip
            note(f"{recipe.pretraining} posts, {recipe.demonstrations} demonstrations", "English from templates")
        with self._stage("pretrain") as note:
            base = self._train("pretrain", recipe.pretrain, data=data["pretraining"], prompt={"template": TEMPLATE})
            note(*self._loss(base, "heldout_completion_loss"))
        with self._stage("sft") as note:
            sft = self._train("sft", recipe.sft, base=base, data=data["demonstrations"])
            note(*self._loss(sft, "heldout_loss"))
        with self._stage("sample") as note:
            drafts = self._sample(sft, data["candidates"], "candidates", per_prompt=4)
            note(f"{recipe.candidates} posts", f"{4 * recipe.candidates} completions")
        with self._stage("judge") as note:
            votes = api.simulate(
                self.ws,
                completions=drafts,
                seed=seed,
                pairs_per_prompt=recipe.pairs_per_prompt,
                name="judgements",
                heldout=0.25,  # enough judgements that the accuracy is known to about a point
            )
            note("candidates", f"{votes.meta['rows']} judgements by 5 simulated people")
        with self._stage("reward") as note:
            model = self._train("reward", recipe.reward, base=sft, data=votes, features=base, kind="features")
            accuracy = self._result(model)
            note(f"{votes.meta['rows']} judgements", _accuracy_text(accuracy))
        with self._stage("reward, plain head") as note:
            plain = self._train(
                "reward",
                {**recipe.reward, "steps": recipe.plain_reward_steps},
                base=sft,
                data=votes,
                kind="sequence",
                as_name="reward-plain",
            )
            plain_accuracy = self._result(plain)
            note(f"{votes.meta['rows']} judgements", _accuracy_text(plain_accuracy))
        with self._stage("rl") as note:
            policy = self._train(
                "rl", recipe.rl, policy=sft, reward=model, prompts=data["posts"], sampling=dict(recipe.sampling)
            )
            rollouts = len(self._run_of(policy).metrics())
            note(f"{rollouts} rollouts", f"held-out KL {self._kl(policy):.2f} nats a summary")
        with self._stage("evaluate") as note:
            tuned = self._sample(policy, data["heldout"], "heldout-rl")
            sampled = self._sample(sft, data["heldout"], "heldout-sft", per_prompt=BEST_OF)
            greedy = self._sample(sft, data["heldout"], "heldout-greedy", temperature=0.0)
            rates = self._win_rates(tuned, sampled, greedy, data["heldout"], model)
            note(f"{recipe.heldout} held-out posts", _rate_text(rates["rl_vs_sft"]))
        over = self._over_optimisation(policy, sampled, model)
        if overopt:
            with self._stage("over-optimisation") as note:
                over["weak"] = self._exhibit(sft, votes, data["posts"])
                note(
                    "weak reward model, KL off", f"gold {over['weak']['gold'][0]:.2f} -> {over['weak']['gold'][-1]:.2f}"
                )
        return {
            "seed": seed,
            "n_heldout": recipe.heldout,
            "people": PEOPLE,
            "notes": NOTES,
            "stages": self.stages,
            "reward_model": accuracy,
            "reward_models": [
                {"name": "with likelihood features (used for RL)", **accuracy},
                {"name": "plain head at the last token", **plain_accuracy},
            ],
            "win_rate": rates,
            "win_rates": [
                {"name": name, **rates[key]}
                for key, name in (
                    ("rl_vs_sft", "RL vs SFT sampled"),
                    ("rl_vs_sft_greedy", "RL vs SFT greedy"),
                    ("rl_vs_best_of_n", f"RL vs best-of-{BEST_OF}"),
                )
            ],
            "kl": self._kl(policy),
            "over_optimisation": over,
            "gold_scores": self._gold_scores({"SFT": sampled, "SFT greedy": greedy, "after RL": tuned}),
            "samples": self._samples(sampled, tuned, data["heldout"]),
            "curves": self._curves({"pretrain": base, "sft": sft, "reward": model, "rl": policy}),
            "lineage": self.ws.lineage(policy).text().splitlines(),
            "settings": {r.stage: r.config for r in runs(self.ws) if r.stage in ("pretrain", "sft", "reward", "rl")},
            "versions": dict(self._run_of(policy).row.versions),
        }

    # Stages

    def _train(self, stage: str, settings: Mapping[str, Any], *, as_name: str = "", **more: Any) -> Artifact:
        run = {"seed": self.seed, **settings.get("run", {})}
        inputs = {k: v for k, v in more.items() if isinstance(v, Artifact)}
        chosen = {**settings, **{k: v for k, v in more.items() if k not in inputs}, "run": run}
        made: Artifact = getattr(api, stage)(self.ws, **inputs, name=as_name or stage, **chosen)
        return made

    def _sample(self, model: Artifact, prompts: Artifact, name: str, per_prompt: int = 1, **sampling: Any) -> Artifact:
        return api.sample(
            self.ws,
            model=model,
            prompts=prompts,
            name=name,
            per_prompt=per_prompt,
            sampling={**self.recipe.sampling, **sampling},
            run={"seed": self.seed + 1},
        )

    def _win_rates(
        self, tuned: Artifact, sampled: Artifact, greedy: Artifact, prompts: Artifact, model: Artifact
    ) -> dict[str, Any]:
        beside: dict[str, dict[str, Any]] = {
            "rl_vs_sft": {"b": sampled},
            "rl_vs_sft_greedy": {"b": greedy},
            "rl_vs_best_of_n": {"b": sampled, "reward": model, "best_of": BEST_OF},
        }
        return {key: api.winrate(self.ws, a=tuned, prompts=prompts, **other) for key, other in beside.items()}

    def _exhibit(self, sft: Artifact, votes: Artifact, prompts: Artifact) -> dict[str, Any]:
        """Over-optimisation: a reward model that saw a tenth of the judgements, and no KL penalty."""
        weak = self._train("reward", self.recipe.weak_reward, base=sft, data=votes, kind="sequence", as_name="weak")
        policy = self._train(
            "rl",
            self.recipe.overopt,
            policy=sft,
            reward=weak,
            prompts=prompts,
            sampling=dict(self.recipe.sampling),
            as_name="rl-overopt",
        )
        return self._against_kl(policy)

    # What the page shows

    def _over_optimisation(self, policy: Artifact, sampled: Artifact, model: Artifact) -> dict[str, Any]:
        """Proxy and gold against sqrt(KL): the RL run's rollouts, and best-of-n on held-out posts."""
        run = self._run_of(policy)
        scale = next(e for e in run.events() if e["kind"] == "score scale")
        with self._stage_run(model) as scorer:
            groups = by_prompt(loading.read_completions(sampled))
            proxy = [[(s.value - scale["mean"]) / scale["std"] for s in scorer.score(group)] for group in groups]
        gold = [[s.value for s in GoldScorer().score(group)] for group in groups]
        counts = [n for n in (1, 2, 4, 8) if n <= BEST_OF]
        best = {
            "n": counts,
            "sqrt_kl": [math.sqrt(best_of_n_kl(n)) for n in counts],
            "proxy": [best_of_n_mean(proxy, proxy, n) for n in counts],
            "gold": [best_of_n_mean(proxy, gold, n) for n in counts],
        }
        return {**self._against_kl(policy), "best_of_n": best}

    def _against_kl(self, policy: Artifact) -> dict[str, Any]:
        run = self._run_of(policy)
        steps = run.metrics()
        config = run.config
        return {
            "n": config["prompts_per_step"] * config["samples_per_prompt"],
            "sqrt_kl": [math.sqrt(max(step["kl"], 0.0)) for step in steps],
            "proxy": [step["score"] for step in steps],
            "gold": [step["gold"] for step in steps],
        }

    def _gold_scores(self, sets: Mapping[str, Artifact]) -> list[dict[str, Any]]:
        firsts = {name: [g[0] for g in by_prompt(loading.read_completions(a))] for name, a in sets.items()}
        return [{"name": name, "values": [s.value for s in GoldScorer().score(c)]} for name, c in firsts.items()]

    def _samples(self, sampled: Artifact, tuned: Artifact, prompts: Artifact, count: int = 5) -> list[dict[str, Any]]:
        """The first held-out posts: not chosen."""
        sides = {"SFT": sampled, "after RL": tuned}
        by_id = {
            who: {g[0].prompt.id: g[0] for g in by_prompt(loading.read_completions(a))} for who, a in sides.items()
        }
        shown = []
        for prompt in loading.read_prompts(prompts)[:count]:
            entries = [(who, found[prompt.id]) for who, found in by_id.items()]
            golds = GoldScorer().score([completion for _, completion in entries])
            shown.append(
                {
                    "post": prompt.text,
                    "entries": [
                        {"who": who, "text": completion.text, "gold": gold.value}
                        for (who, completion), gold in zip(entries, golds, strict=True)
                    ],
                }
            )
        return shown

    def _curves(self, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
        kept = {
            "pretrain": ("completion_loss", "heldout_completion_loss"),
            "sft": ("loss", "heldout_loss"),
            "reward": ("loss", "heldout_loss", "accuracy", "heldout_accuracy"),
            "rl": ("score", "gold", "kl", "value_explained", "length", "entropy", "heldout_score", "heldout_gold"),
        }
        curves = {}
        for stage, artifact in artifacts.items():
            rows = self._run_of(artifact).metrics()
            curves[stage] = {"step": [row["step"] for row in rows]} | {
                name: [row.get(name) for row in rows] for name in kept[stage]
            }
        return curves

    def _kl(self, policy: Artifact) -> float:
        """KL of the shipped policy to its start on held-out prompts, in nats a completion."""
        run = self._run_of(policy)
        start = next(event for event in run.events() if event["kind"] == "start")
        rows = [{"step": 0, **start}, *run.metrics()]
        return float(next(row["heldout_kl"] for row in rows if row["step"] == run.result["best_step"]))

    # Small things

    def _run_of(self, artifact: Artifact) -> Run:
        return next(run for run in runs(self.ws) if artifact.id in run.row.outputs.values())

    def _result(self, artifact: Artifact) -> dict[str, Any]:
        return dict(self._run_of(artifact).result)

    def _loss(self, artifact: Artifact, key: str) -> tuple[str, str]:
        run = self._run_of(artifact)
        values = [row[key] for row in run.metrics() if key in row]
        return f"{len(run.metrics())} steps", f"held-out loss {values[-1]:.2f}" if values else "no held-out loss"

    @contextmanager
    def _stage_run(self, model: Artifact) -> Iterator[Any]:
        from .config import ModelSettings
        from .engines.reward_scorer import RewardScorer
        from .models.load import load_reward

        yield RewardScorer(load_reward(chain(self.ws, model), ModelSettings()))

    @contextmanager
    def _stage(self, name: str) -> Iterator[Callable[[str, str], None]]:
        """Time a stage; the body says what went in and what came out."""
        began, cpu = time.perf_counter(), time.process_time()
        entry: dict[str, Any] = {"name": name}

        def note(data: str, result: str) -> None:
            entry.update(data=data, result=result)

        yield note
        entry["seconds"] = round(time.perf_counter() - began, 2)
        entry["cpu_seconds"] = round(time.process_time() - cpu, 2)
        self.stages.append(entry)


def _accuracy_text(result: Mapping[str, Any]) -> str:
    if "accuracy" not in result:
        return "no held-out judgement"
    low, high = result["ci"]
    ceiling = f", ceiling {result['ceiling']:.3f}" if result.get("ceiling") else ""
    return f"accuracy {result['accuracy']:.3f} [{low:.3f}, {high:.3f}], n={result['n']}{ceiling}"


def _rate_text(rate: Mapping[str, Any]) -> str:
    low, high = rate["ci"]
    return f"RL over SFT {rate['value']:.3f} [{low:.3f}, {high:.3f}], n={rate['n']}"


def _commands(folder: Path) -> list[str]:
    where = f"--workspace {folder}"
    return [
        f"trueup {where} label",
        f"trueup {where} lineage rl",
        f"trueup {where} export rl ./my-model",
    ]


def _seconds_since_start() -> float:
    """Wall time since this process began; from its first Python line where the system does not tell."""
    try:
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - int(stat[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time() - trueup.IMPORTED
