"""One job of `benchmarks speed` by trueup: its settings come as JSON, its times go as one line of JSON.

The stages run as they do for everybody, from `trueup.rl(...)` on; the times of their steps are those that every run
writes down. Two things are watched from outside: how long completions have to be, and the rows of every update.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers.models.llama.modeling_llama  # noqa: F401  what importing costs is not what a stage costs

import trueup
import trueup.engines.sampler as engine
import trueup.train.dpo as dpo_stage
import trueup.train.reward as reward_stage
import trueup.train.rl
import trueup.train.sft  # noqa: F401
from trueup.config import DpoConfig, ModelSettings
from trueup.loading import read_demonstrations, read_judgements, read_prompts
from trueup.models.device import place
from trueup.models.load import load_model, load_reward
from trueup.models.rows import Group, lay_out
from trueup.runs import runs
from trueup.train.judged import judged
from trueup.train.run_loop import Loop

from .job import WARM_UP, Clock, Job, run
from .lengths import forced

CPU = ModelSettings(device="cpu")
QUIETLY = {"tensorboard": False, "checkpoint_every": 10**6}
ADAM = {"lr": 1e-5, "betas": (0.9, 0.999), "eps": 1e-8, "schedule": "constant"}


class Forced(engine.Sampler):
    """Writes completions of the lengths that a job asks for. A run samples more than its rollouts: those are kept."""

    def __init__(self, job: Job, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.job, self.lengths, self.ends = job, [], job["natural"] is not None
        self.rollouts: list[list[Any]] = []

    def sample(self, prompts: Sequence[Any], *given: Any, n: int = 1, **named: Any) -> list[Any]:
        job = self.job
        self.lengths = forced(job["natural"], job["new_tokens"], job["seed"], len(self.rollouts), len(prompts) * n)
        found = super().sample(prompts, *given, n=n, **named)
        if (len(prompts), n) == (job["prompts_a_step"], job["samples"]):
            self.rollouts.append(found)
        return found

    def pick(self, logits_nv: torch.Tensor, rows: Sequence[Any], *given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The end where it is due, and before nothing that ends; padding is forbidden because TRL reads it as one."""
        encoder = self.model.encoder
        logits_nv[:, [encoder.eos_id, encoder.pad_id]] = -torch.inf
        token, logprob = super().pick(logits_nv, rows, *given)
        left = torch.tensor([self.lengths[row.index] - len(row.tokens) for row in rows])
        return torch.where((left == 1) & self.ends, encoder.eos_id, token), logprob

    def counts(self, start: int, end: int) -> dict[str, Any]:
        """Of the rollouts that were timed."""
        timed = self.rollouts[start:end]
        asked = [c.prompt for rollout in timed for c in rollout[:: self.job["samples"]]]
        prompts = [len(self.model.encoder.prompt(prompt)) for prompt in asked]
        lengths = [len(c.tokens) for rollout in timed for c in rollout]
        return {"lengths": lengths, "tokens": _tokens(prompts, lengths)}


def rl(job: Job) -> dict[str, Any]:
    """PPO, RLOO, GRPO. The run has one iteration more than is timed: its last one ends with an evaluation."""
    samplers: list[Forced] = []

    def make(*given: Any, **named: Any) -> Forced:
        samplers.append(Forced(job, *given, **named))
        return samplers[-1]

    end = WARM_UP + job["iterations"]
    with _workspace(job) as (ws, clock), patch.object(engine, "Sampler", make):
        prompts = trueup.add_data(ws, job["prompts"], "prompts").artifact
        trueup.rl(
            ws, policy=job["policy"], reward=job.get("reward_artifact") or job["reward_model"], prompts=prompts,
            steps=end + 1, prompts_per_step=job["prompts_a_step"], samples_per_prompt=job["samples"],
            epochs=job["epochs"], minibatches=job["minibatches"], missing_eos_score=None, score_scale="none",
            sampling={"max_new_tokens": job["new_tokens"], "batch_size": job["sampling_batch"]},
            guard={"max_approx_kl": 1e9, "evaluation_prompts": 1}, optimizer=ADAM, model=_model(job),
            run={"threads": job["threads"], "seed": job["seed"], "evaluate_every": end + 1, **QUIETLY}, **job["stage"],
        )  # fmt: skip
        made = runs(ws)[-1]
        updates = sum(row["updates"] for row in made.metrics() if WARM_UP < row["step"] <= end)
        found = _timed(made, WARM_UP, end) | clock.memory()
    (sampler,) = samplers
    counts = sampler.counts(WARM_UP, end)
    return found | counts | {"work": len(counts["lengths"]), "updates": updates, "dtype": _dtype(made)}


def reward(job: Job) -> dict[str, Any]:
    with _workspace(job) as (ws, clock), _seen_rows() as rows:
        data = trueup.add_data(ws, _first_rows(job, "pairs", ws.path), "preferences", heldout=0.0).artifact
        trueup.reward(ws, base=job["language_model"], data=data, **_steps(job))
        found = _timed(runs(ws)[-1], job["skip"], job["steps"]) | clock.memory()
        model = load_reward([job["reward_model"]], CPU)
        items, _ = judged(model.encoder, read_judgements(data), model.context)
    losses = [_reward_loss(model, item) for item in items[: job["batch"]]]
    return found | _of_steps(rows, job) | {"losses": losses}


@torch.no_grad()
def _reward_loss(model: Any, item: Any) -> float:
    rows = lay_out([item.group], model.pad_id, model.layout)
    return float(reward_stage.likelihood_loss(model.by_objective(model(rows)), item))


def dpo(job: Job) -> dict[str, Any]:
    """What the reference says of a pair is computed before the first step: its share of that is charged to each."""
    before, plain = Clock(), dpo_stage.reference_logprobs

    def timed(loop: Loop, policy: Any, groups: Sequence[Group]) -> list[torch.Tensor]:
        before.mark(0)
        known = plain(loop, policy, groups)
        before.mark(1)
        return known

    known_first = patch.object(dpo_stage, "reference_logprobs", timed)
    with _workspace(job) as (ws, clock), _seen_rows() as rows, known_first:
        data = trueup.add_data(ws, _first_rows(job, "pairs", ws.path), "preferences", heldout=0.0).artifact
        trueup.dpo(ws, policy=job["language_model"], data=data, beta=job["beta"], **_steps(job))
        found = _timed(runs(ws)[-1], job["skip"], job["steps"]) | clock.memory()
        model = load_model([job["language_model"]], CPU)
        items, _ = judged(model.encoder, read_judgements(data), model.context)
    counted = _of_steps(rows, job)
    charged = {name: s * counted["work"] / len(items) for name, s in before.spent(0, 1).items()}
    found |= {name: found[name] + seconds for name, seconds in charged.items()}
    return found | counted | {"losses": _dpo_losses(model, items[: job["batch"]], job), "charged": charged}


@torch.no_grad()
def _dpo_losses(model: Any, items: Sequence[Any], job: Job) -> list[float]:
    """Of each pair, from weights that the reference does not have: with the same ones every loss would be log 2."""
    known = [_known(model, item) for item in items]
    model.network.model.norm.weight.mul_(job["moved"])
    config = DpoConfig(beta=job["beta"])
    return [float(dpo_stage.prompt_loss(config, dpo_stage.look(model, [k])[0], k.item)) for k in known]


def _known(model: Any, item: Any) -> Any:
    rows = model.rows([item.group])
    return dpo_stage.Known(item, model.logprobs(rows)[rows.mask_cl])


def sft(job: Job) -> dict[str, Any]:
    with _workspace(job) as (ws, clock), _seen_rows() as rows:
        data = trueup.add_data(ws, _first_rows(job, "demonstrations", ws.path), "demonstrations").artifact
        trueup.sft(ws, base=job["language_model"], data=data, heldout=0.0, **_steps(job))
        found = _timed(runs(ws)[-1], job["skip"], job["steps"]) | clock.memory()
        model, checked = load_model([job["language_model"]], CPU), read_demonstrations(data)[: job["batch"]]
    counted = _of_steps(rows, job)
    counted["work"] = counted["tokens"]["prompt"] + counted["tokens"]["completion"]
    return found | counted | {"losses": [_sft_loss(model, demonstration) for demonstration in checked]}


@torch.no_grad()
def _sft_loss(model: Any, demonstration: Any) -> float:
    encoder, prompt = model.encoder, demonstration.prompt
    rows = model.rows([(encoder.prompt(prompt), [encoder.completion(prompt, demonstration.completion)])])
    return -float(model.logprobs(rows)[rows.mask_cl].mean())


def sampler(job: Job) -> dict[str, Any]:
    clock = Clock()
    torch.set_num_threads(job["threads"])
    with _workspace(job) as (ws, _):
        prompts = read_prompts(trueup.add_data(ws, job["prompts"], "prompts").artifact)[: job["prompts_a_step"]]
    writer = Forced(job, load_model([job["policy"]], CPU))
    settings = trueup.config.Sampling(max_new_tokens=job["new_tokens"], batch_size=job["sampling_batch"])
    for number in range(WARM_UP + job["iterations"]):
        clock.mark(number)
        writer.sample(prompts, settings, seed=job["seed"] + number)
    clock.mark(WARM_UP + job["iterations"])
    counts = writer.counts(WARM_UP, WARM_UP + job["iterations"])
    found = clock.spent(WARM_UP, WARM_UP + job["iterations"]) | clock.memory()
    return found | counts | {"work": sum(counts["lengths"])}


def memory(job: Job) -> dict[str, Any]:
    """One stage of `benchmarks adapters-memory`."""
    from .adapters_memory import measure

    return {"work": 1, **measure(job["stage"], job["workspace"], job["language_model"])}


# --- what the jobs share


@contextmanager
def _workspace(job: Job) -> Iterator[tuple[Any, Clock]]:
    """The one that was made ready for this row, or an empty one for as long as it is used."""
    torch.set_num_threads(job["threads"])
    if job.get("adapter") == "lora":
        import peft  # noqa: F401  what importing costs is not what a stage costs
    if "workspace" in job:
        with trueup.Workspace.open(Path(job["workspace"])) as ws:
            yield ws, Clock()
    else:
        with tempfile.TemporaryDirectory() as folder, trueup.Workspace.create(Path(folder) / "w") as ws:
            yield ws, Clock()


def _first_rows(job: Job, name: str, folder: Path) -> str:
    """A file of as many rows as are learnt from: both sides see each of them once, in an order of their own."""
    kept = folder / f"{name}.jsonl"
    kept.write_text("".join(Path(job[name]).read_text().splitlines(keepends=True)[: job["batch"] * job["steps"]]))
    return str(kept)


@contextmanager
def _seen_rows() -> Iterator[list[list[Group]]]:
    """The rows of every update, as prompts with their completions."""
    plain, seen = Loop.update, list[list[Group]]()

    def update(self: Loop, items: Sequence[Any], *given: Any, **named: Any) -> dict[str, float]:
        seen.append([getattr(getattr(item, "item", item), "group", item) for item in items])
        return plain(self, items, *given, **named)

    with patch.object(Loop, "update", update):
        yield seen


def _of_steps(rows: Sequence[Sequence[Group]], job: Job) -> dict[str, Any]:
    groups = [group for step in rows[job["skip"] : job["steps"]] for group in step]
    completions = [len(c) for _, each in groups for c in each]
    counted = _tokens([len(prompt) for prompt, _ in groups], completions)
    return {"work": len(groups), "tokens": counted, "updates": job["steps"] - job["skip"]}


def _tokens(prompts: Sequence[int], completions: Sequence[int]) -> dict[str, int]:
    numbers = (sum(prompts), sum(completions), len(prompts), len(completions))
    return dict(zip(("prompt", "completion", "prompts", "completions"), numbers, strict=True))


def _timed(made: Any, start: int, end: int) -> dict[str, float]:
    at = {row["step"]: row for row in made.timing()}
    return {f"{name}_seconds": at[end][name] - at[start][name] for name in ("cpu", "wall")}


def _steps(job: Job) -> dict[str, Any]:
    return {
        "steps": job["steps"],
        "batch_size": job["batch"],
        "optimizer": ADAM,
        "model": _model(job),
        "run": {"threads": job["threads"], "seed": job["seed"], **QUIETLY},
    }


def _dtype(made: Any) -> str:
    """What `fastest` came to is in the run's record."""
    return str(place(ModelSettings.model_validate(made.config["model"])).dtype).removeprefix("torch.")


def _model(job: Job) -> dict[str, Any]:
    return {"device": "cpu", "adapter": job.get("adapter", "none"), "dtype": job.get("dtype", "auto")}


if __name__ == "__main__":
    jobs = {"rl": rl, "reward": reward, "dpo": dpo, "sft": sft, "sampler": sampler, "memory": memory}
    about = {"version": f"trueup {trueup.__version__}", "dtype": "float32"}  # unless a job says otherwise
    run({name: lambda job, do=do: about | do(job) for name, do in jobs.items()})
