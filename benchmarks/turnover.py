"""Is an ensemble of four reward models over-optimised later than one model? On the built-in world.

    python -m benchmarks turnover --seed 0 [--json]

Posts, SFT and judgements are those of `trueup demo`, of fewer posts. Four reward models of kind `sequence` learn from
the same judgements, one pass each, with other first heads and another order of the data; side by side they are what
`trueup ensemble` makes. "One" is what to expect of one of the four, used alone. All of it is done twice: with the
judgements as they are, and with a quarter of them the wrong way round (as in arXiv 2310.02743).

Best-of-n: many completions of SFT a held-out post, scored by all four models; what the best of n by the mean, the
lowest or the penalised mean of the members is worth by gold, against the KL of best-of-n. Reinforcement learning: PPO
without KL penalty against one model, the mean and the lowest; gold of its rollouts against KL.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from trueup import api, loading
from trueup.config import ModelSettings, Sampling, Scoring
from trueup.demonstrate import QUICK, TEMPLATE, Recipe
from trueup.inputs import chain
from trueup.records import Completion, Judgement, Prompt, by_prompt
from trueup.runs import Run, runs
from trueup.stats.overoptimisation import Curve, best_of_n_curve, compare_curves, mean_curve, peak
from trueup.store import Artifact, Workspace
from trueup.world import GoldScorer

Floats = NDArray[np.float64]

JUDGEMENTS = {"as judged": 0.0, "a quarter flipped": 0.25}
SCORINGS = {name: Scoring(ensemble=name) for name in ("mean", "min", "penalised")}
CLIMBED = ("one", "mean", "min")  # by reinforcement learning
WIDTH = 4  # rollouts whose mean is a point of the curve of reinforcement learning
TOGETHER = 16  # completions that a scorer reads beside one another; attention grows with their square


@dataclass(frozen=True)
class Sizes:
    """How much of everything. Chosen before any of the reported seeds was run, on another one."""

    members: int = 4
    judged: int = 520  # posts; a quarter of them is held out
    heldout: int = 160  # posts for best-of-n
    samples: int = 128  # completions of each
    rollouts: int = 28

    @property
    def counts(self) -> list[int]:
        """Every n at which best-of-n is looked at: 1, 2, 3, 4, 6, 8, 12, ..."""
        steps = sorted({2**i for i in range(20)} | {3 * 2**i for i in range(20)})
        return [n for n in steps if n <= self.samples]


SMALL = Sizes(members=2, judged=24, heldout=8, samples=16, rollouts=5)
# At its size nearly every title is cut off: a fixed score for those would leave nothing to climb.
TINY = replace(QUICK, overopt={**QUICK.overopt, "missing_eos_score": None})


class Measurement:
    """One seed, from an empty workspace to its figures."""

    def __init__(self, ws: Workspace, seed: int, sizes: Sizes, recipe: Recipe) -> None:
        self.ws, self.seed, self.sizes, self.recipe = ws, seed, sizes, recipe

    def run(self) -> dict[str, Any]:
        data = api.make_world(
            self.ws, self.seed, self.recipe.pretraining, self.recipe.demonstrations, self.sizes.judged,
            self.sizes.heldout, posts=self.recipe.posts,
        )  # fmt: skip
        sft, votes = self._judged(data)
        texts, gold = self._sampled(sft, loading.read_prompts(data["heldout"]))
        conditions, juries = {}, {}
        for name, share in JUDGEMENTS.items():
            models = [self._reward(sft, self._flipped(votes, share), name, k) for k in range(self.sizes.members)]
            juries[name] = {"one": models[0], "jury": api.ensemble(self.ws, models)}
            said("best of n, " + name)
            conditions[name] = {
                "reward_models": [_run_of(self.ws, model).result for model in models],
                "best_of_n": best_of_n(member_scores(self.ws, juries[name]["jury"], texts), gold, self.sizes.counts),
            }
        conditions["as judged"]["rl"] = self._climbed(sft, juries["as judged"], data["posts"])
        return {"seed": self.seed, "sizes": asdict(self.sizes), "conditions": conditions}

    def _judged(self, data: Mapping[str, Artifact]) -> tuple[Artifact, Artifact]:
        base = self._train("pretrain", self.recipe.pretrain, data=data["pretraining"], prompt={"template": TEMPLATE})
        sft = self._train("sft", self.recipe.sft, base=base, data=data["demonstrations"])
        said("candidates and judgements")
        drafts = api.sample(
            self.ws, model=sft, prompts=data["candidates"], per_prompt=4, sampling=dict(self.recipe.sampling),
            run={"seed": self.seed + 1, "threads": 1},
        )  # fmt: skip
        pairs = self.recipe.pairs_per_prompt
        return sft, api.simulate(self.ws, completions=drafts, seed=self.seed, pairs_per_prompt=pairs, heldout=0.25)

    def _flipped(self, votes: Artifact, share: float) -> Artifact:
        """The same set with a share of what is trained on turned round; the same ones for every model."""
        if share == 0:
            return votes
        rows = [turned.to_json() for turned in flipped(loading.read_judgements(votes), share, self.seed)]
        return loading.put_records(self.ws, "preferences", rows, parents={"judgements": votes}, source="simulated")

    def _reward(self, sft: Artifact, votes: Artifact, name: str, member: int) -> Artifact:
        said(f"reward model {member + 1} of {self.sizes.members}, {name}")
        settings = {
            **self.recipe.reward, "kind": "sequence", "steps": 0, "epochs": 1,
            "run": {"seed": 100 * self.seed + member, "evaluate_every": 1000},
        }  # fmt: skip
        return self._train("reward", settings, base=sft, data=votes)

    def _sampled(self, sft: Artifact, prompts: Sequence[Prompt]) -> tuple[list[list[Completion]], Floats]:
        """Completions of SFT for every held-out post, and what they are worth."""
        from trueup.engines.sampler import Sampler
        from trueup.models.load import load_model

        said(f"{self.sizes.samples} completions of {len(prompts)} posts")
        model = load_model(chain(self.ws, sft), ModelSettings())
        sampling = Sampling(**{**self.recipe.sampling, "batch_size": self.sizes.samples})
        completions = Sampler(model).sample(prompts, sampling, seed=self.seed + 2, n=self.sizes.samples)
        texts = by_prompt(completions)
        return texts, np.array([[score.value for score in GoldScorer().score(group)] for group in texts])

    def _climbed(self, sft: Artifact, scorers: Mapping[str, Artifact], posts: Artifact) -> dict[str, Any]:
        """PPO without KL penalty, as the demo's exhibit of over-optimisation does it."""
        prompts = {prompt.id: prompt for prompt in loading.read_prompts(posts)}
        curves, shown = {}, {}
        for arm in CLIMBED:
            said(f"{self.sizes.rollouts} rollouts, {arm}")
            scoring = {} if arm == "one" else {"scoring": {"ensemble": arm}}
            steps = self.sizes.rollouts
            settings = {**self.recipe.overopt, "steps": steps, "run": dict.fromkeys(RARELY, steps), **scoring}
            policy = self._train(
                "rl", settings, policy=sft, reward=scorers["one" if arm == "one" else "jury"], prompts=posts,
                sampling=dict(self.recipe.sampling),
            )  # fmt: skip
            run = _run_of(self.ws, policy)
            curves[arm] = rollout_curve(run, prompts).smoothed(WIDTH)
            shown[arm] = {key: _column(run, key) for key in ("kl", "score", "gold", "length")}
        return {arm: described(curves[arm], curves["one"]) | {"rollouts": shown[arm]} for arm in CLIMBED}

    def _train(self, stage: str, settings: Mapping[str, Any], **more: Any) -> Artifact:
        """One thread: the figures are then the same on every machine of a kind, however many cores it has."""
        run = {"seed": self.seed, **settings.get("run", {}), "threads": 1}
        inputs = {role: given for role, given in more.items() if isinstance(given, Artifact)}
        chosen = {**settings, **{key: given for key, given in more.items() if key not in inputs}, "run": run}
        made: Artifact = getattr(api, stage)(self.ws, **inputs, **chosen)
        return made


RARELY = ("evaluate_every", "checkpoint_every")


# --- the arithmetic


def flipped(judgements: Sequence[Judgement], share: float, seed: int) -> list[Judgement]:
    """A share of the judgements to train on with the order the other way round; held-out ones stay as they are."""
    chance = random.Random(f"{seed}/flipped")
    turn = [chance.random() < share and judgement.split == "train" for judgement in judgements]
    return [
        replace(judgement, ranks=tuple(max(judgement.ranks) + 1 - rank for rank in judgement.ranks))
        if turned
        else judgement
        for judgement, turned in zip(judgements, turn, strict=True)
    ]


def member_scores(ws: Workspace, jury: Artifact, texts: Sequence[Sequence[Completion]]) -> Floats:
    """(posts, completions, members). A text that a post got several times is read once: equal texts tie exactly."""
    from trueup.engines.reward_scorer import RewardScorer
    from trueup.models.load import load_reward

    scorer = RewardScorer(load_reward(chain(ws, jury), ModelSettings()))
    different = [list({(c.text, c.finished): c for c in group}.values()) for group in texts]
    found: dict[tuple[str, str, bool], list[float]] = {}
    for start in range(0, max(map(len, different)), TOGETHER):
        some = [c for group in different for c in group[start : start + TOGETHER]]
        for c, values in zip(some, scorer.by_member(some).tolist(), strict=True):
            found[c.prompt.id, c.text, c.finished] = values
    return np.array([[found[c.prompt.id, c.text, c.finished] for c in group] for group in texts])


def best_of_n(scores: Floats, gold: Floats, counts: Sequence[int]) -> dict[str, Any]:
    """Each way of choosing: its curve, and how it differs from one member's. `scores`: (posts, completions, members)"""
    chosen_by = {name: combined(scores, scoring) for name, scoring in SCORINGS.items()}
    members = [scores[:, :, k] for k in range(scores.shape[2])]
    curves = {"one": mean_curve([best_of_n_curve(proxy, gold, counts) for proxy in members])}
    curves |= {name: best_of_n_curve(proxy, gold, counts) for name, proxy in chosen_by.items()}
    proxies = {"one": members} | {name: [proxy] for name, proxy in chosen_by.items()}
    found = {arm: described(curve, curves["one"]) for arm, curve in curves.items()}
    for arm, each in proxies.items():
        found[arm]["proxy"] = mean_curve([best_of_n_curve(proxy, proxy, counts) for proxy in each]).mean().tolist()
    return {
        "n": list(counts),
        "arms": found,
        "alone": [peak(best_of_n_curve(p, gold, counts)).to_json() for p in members],
    }


def combined(scores: Floats, scoring: Scoring) -> Floats:
    import torch

    from trueup.engines.reward_scorer import of_members

    posts, completions, members = scores.shape
    flat = of_members(torch.tensor(scores.reshape(-1, members)), scoring)
    return np.asarray(flat.numpy()).reshape(posts, completions)


def rollout_curve(run: Run, prompts: Mapping[str, Prompt]) -> Curve:
    """Gold of every rollout, a row for each of its prompts: the mean over the prompt's completions."""
    gold = []
    for step in range(1, len(run.metrics()) + 1):
        rows = run.samples(step)
        texts = [Completion(prompts[row["prompt"]], row["text"], finished=row["finished"]) for row in rows]
        gold.append([np.mean([s.value for s in GoldScorer().score(group)]) for group in by_prompt(texts)])
    return Curve(np.array(_column(run, "kl")), np.array(gold).T)


def described(curve: Curve, one: Curve) -> dict[str, Any]:
    points = curve.points()
    return {
        "kl": curve.distance.tolist(),
        "gold": [point.value for point in points],
        "low": [point.ci[0] for point in points],
        "high": [point.ci[1] for point in points],
        "peak": peak(curve).to_json(),
        "against_one": compare_curves(curve, one).to_json(),
    }


def _run_of(ws: Workspace, artifact: Artifact) -> Run:
    return next(run for run in runs(ws) if artifact.id in run.row.outputs.values())


def _column(run: Run, key: str) -> list[float]:
    return [row[key] for row in run.metrics()]


# --- the command


def measure(seed: int, sizes: Sizes, recipe: Recipe) -> dict[str, Any]:
    from trueup.models.device import use_threads

    use_threads(1)
    began, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, Workspace.create(Path(folder) / "turnover") as ws:
        found = Measurement(ws, seed, sizes, recipe).run()
    return found | {"seconds": round(time.monotonic() - began), "cpu_seconds": round(time.process_time() - cpu)}


@click.command()
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--quick", is_flag=True, help="A tiny size, to try the program itself: its figures mean nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value instead of text.")
def turnover(seed: int, quick: bool, as_json: bool) -> None:
    """Whether an ensemble of reward models is over-optimised later than one model: about eleven minutes."""
    found = measure(seed, *((SMALL, TINY) if quick else (Sizes(), Recipe())))
    print(json.dumps(found, indent=1) if as_json else text_of(found))


def text_of(found: Mapping[str, Any]) -> str:
    lines = [f"{'':<34}{'peak at, nats':>26}{'later than one, nats':>28}{'gold at the end, over one':>30}"]
    for name, condition in found["conditions"].items():
        arms = {"best of n": condition["best_of_n"]["arms"], "rl": condition.get("rl", {})}
        for way, each in arms.items():
            for arm, figures in each.items():
                against = figures["against_one"]
                shown = [figures["peak"]["distance"], against["later"], against["end"]]
                cells = "".join(f"{_cell(each):>28}" for each in shown)
                lines.append(f"{f'{name}, {way}, {arm}':<34}{cells}")
    return "\n".join(lines)


def _cell(estimate: Mapping[str, Any]) -> str:
    low, high = estimate["ci"]
    return f"{estimate['value']:.2f} [{low:.2f}, {high:.2f}]"


def said(words: str) -> None:
    """What is going on, for whoever waits."""
    print(words, file=sys.stderr, flush=True)
