"""One job of `benchmarks speed` by TRL: its settings come as JSON, its times go as one line of JSON.

Runs in an environment of TRL's and imports nothing of trueup but its count of this process's memory. PPO needs TRL
1.12, the last release that has it; everything else takes the newer one.
"""

from __future__ import annotations

import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from .job import WARM_UP, Clock, Job, run
from .lengths import part

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NEVER = 10**6
QUIETLY = {
    "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no",
    "disable_tqdm": True, "learning_rate": 1e-5, "lr_scheduler_type": "constant",
}  # fmt: skip


def ppo(job: Job) -> dict[str, Any]:
    """Its trainer reads no setting for 16 bits, only this variable."""
    os.environ["ACCELERATE_MIXED_PRECISION"] = job.get("mixed_precision", "no")
    import trl.experimental.ppo.ppo_trainer  # noqa: F401
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer, written, rows = _prepared(job)
    clock, iterations = Clock(), WARM_UP + job["iterations"]
    prompts = tokenizer(_rows(job["prompts"], "prompt"))["input_ids"]
    if job["samples"] > 1:  # it knows no groups: the same prompts, over and over
        prompts = [prompt for prompt in prompts[: job["prompts_a_step"]] for _ in range(job["samples"])]
    reference = None if job.get("adapter") == "lora" else _writer(job["policy"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            processing_class=tokenizer, model=_writer(job["policy"]), ref_model=reference,
            reward_model=_scorer(job), value_model=_scorer(job), peft_config=_lora(job),
            train_dataset=Dataset.from_dict({"input_ids": prompts}), callbacks=[_ticks(clock)],
            args=PPOConfig(
                output_dir=folder, per_device_train_batch_size=rows, gradient_accumulation_steps=1,
                num_mini_batches=job["minibatches"], num_ppo_epochs=job["epochs"], total_episodes=rows * iterations,
                local_rollout_forward_batch_size=job["sampling_batch"], response_length=job["new_tokens"],
                stop_token="eos" if job["natural"] else None, temperature=1.0, kl_coef=job["kl"],
                num_sample_generations=0, logging_steps=1, seed=job["seed"], **QUIETLY,
            ),
        )  # fmt: skip
        steps = _counted_steps(trainer.optimizer.optimizer)
        trainer.train()
    found = clock.spent(WARM_UP, iterations) | clock.memory()
    return found | _of_rollouts(written, job) | {"updates": steps[0] * job["iterations"] // iterations}


def online(job: Job) -> dict[str, Any]:
    """RLOO and GRPO: a step is one optimizer step, an iteration as many as there are minibatches in all passes."""
    import trl
    from datasets import Dataset

    kinds = {"rloo": (trl.RLOOConfig, trl.RLOOTrainer), "grpo": (trl.GRPOConfig, trl.GRPOTrainer)}
    config, kind = kinds[job["estimator"]]
    tokenizer, written, rows = _prepared(job)
    each, iterations = job["minibatches"] * job["epochs"], WARM_UP + job["iterations"]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = kind(
            model=_writer(job["policy"]), reward_funcs=_scorer(job), reward_processing_classes=tokenizer,
            processing_class=tokenizer, callbacks=[_ticks(clock)],
            train_dataset=Dataset.from_dict({"prompt": _rows(job["prompts"], "prompt")}),
            args=config(
                output_dir=folder, per_device_train_batch_size=rows // job["minibatches"],
                steps_per_generation=job["minibatches"], num_iterations=job["epochs"], num_generations=job["samples"],
                max_completion_length=job["new_tokens"], beta=job["kl"], temperature=1.0,
                max_steps=each * iterations, logging_steps=NEVER, seed=job["seed"], **QUIETLY,
            ),
        )  # fmt: skip
        trainer.train()
    found = clock.spent(each * WARM_UP, each * iterations) | clock.memory()
    return found | _of_rollouts(written, job) | {"updates": each * job["iterations"]}


def reward(job: Job) -> dict[str, Any]:
    import trl

    pairs = [(row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]) for row in _rows(job["pairs"])]
    table = [{"chosen": chosen, "rejected": rejected} for chosen, rejected in pairs]
    return _offline(job, trl.RewardTrainer, trl.RewardConfig, _scorer, table, max_length=1024)


def dpo(job: Job) -> dict[str, Any]:
    import trl

    more = {"max_length": 1024, "beta": job["beta"]}
    return _offline(job, trl.DPOTrainer, trl.DPOConfig, _learner, _rows(job["pairs"]), **more)


def sft(job: Job) -> dict[str, Any]:
    """With prompts and completions apart, its loss is over completions alone, as trueup's."""
    import trl

    found = _offline(
        job, trl.SFTTrainer, trl.SFTConfig, _learner, _rows(job["demonstrations"]), max_length=1024, packing=False
    )
    return found | {"work": found["real_tokens"]}


def _offline(job: Job, kind: Any, config: Any, model: Any, table: list[Any], **more: Any) -> dict[str, Any]:
    """A trainer whose steps are optimizer steps: the losses of its first rows, then the times of its steps."""
    from datasets import Dataset

    tokenizer = _prepared(job, writes=False)[0]
    clock, table = Clock(), table[: job["batch"] * job["steps"]]  # both sides see each of these once
    with tempfile.TemporaryDirectory() as folder:
        trainer = kind(
            model=model(job), processing_class=tokenizer, train_dataset=Dataset.from_list(table),
            callbacks=[_ticks(clock)],
            args=config(
                output_dir=folder, per_device_train_batch_size=job["batch"], max_steps=job["steps"],
                logging_steps=NEVER, seed=job["seed"], **QUIETLY, **more,
            ),
        )  # fmt: skip
        losses, real = _losses(trainer, job), _real_tokens(trainer)
        trainer.train()
    start, end, steps = job["skip"], job["steps"], job["steps"] - job["skip"]
    found = clock.spent(start, end) | clock.memory() | {"work": job["batch"] * steps, "updates": steps}
    return found | {"losses": losses, "real_tokens": sum(real[start:end])}


def _losses(trainer: Any, job: Job) -> list[float]:
    """Of each of the first rows by itself. DPO's from weights that its reference does not have."""
    import torch

    model, norm = trainer.model, getattr(trainer.model, "model", None)
    training, moved = model.training, job.get("moved", 1.0)
    model.eval()
    with torch.no_grad():
        norm.norm.weight.mul_(moved)
        rows = [trainer.train_dataset[i] for i in range(job["batch"])]
        found = [float(trainer.compute_loss(model, trainer.data_collator([row]))) for row in rows]
        norm.norm.weight.div_(moved)
    model.train(training)
    return found


def _real_tokens(trainer: Any) -> list[int]:
    """Of each step from now on: tokens that are no padding."""
    plain, found = trainer.training_step, list[int]()

    def counted(model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        mask = inputs.get("attention_mask")
        found.append(int(mask.sum()) if mask is not None else 0)
        return plain(model, inputs, *given, **named)

    trainer.training_step = counted
    return found


# --- what the jobs share


def _prepared(job: Job, writes: bool = True) -> tuple[Any, list[int], int]:
    """Threads, tokenizer, and what a rollout is: the lengths that will have been written, and its rows."""
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401  what importing costs is not what training costs
    from transformers import AutoTokenizer

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["language_model"], padding_side="left" if writes else "right")
    tokenizer.chat_template = None  # the rows are plain text
    if job.get("adapter") == "lora":
        import peft  # noqa: F401
    if not writes:
        return tokenizer, [], 0
    from .forced import force

    rows, ends = job["prompts_a_step"] * job["samples"], bool(job["natural"])
    written = force(partial(part, job, rows), tokenizer.eos_token_id, tokenizer.pad_token_id, ends=ends)
    return tokenizer, written, rows


def _of_rollouts(written: list[int], job: Job) -> dict[str, Any]:
    """The lengths of the rollouts that were timed."""
    rows = job["prompts_a_step"] * job["samples"]
    timed = written[WARM_UP * rows : (WARM_UP + job["iterations"]) * rows]
    return {"lengths": timed, "work": len(timed)}


def _writer(folder: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _learner(job: Job) -> Any:
    return _writer(job["language_model"])


def _scorer(job: Job) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(job["reward_model"], num_labels=1, dtype=torch.float32)


def _lora(job: Job) -> Any:
    from peft import LoraConfig

    if job.get("adapter") != "lora":
        return None
    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=list(LINEAR))


def _ticks(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class Ticks(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.mark(0)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.mark(state.global_step)

    return Ticks()


def _counted_steps(optimizer: Any) -> list[int]:
    count = [0]

    def counted(*_: Any) -> None:
        count[0] += 1

    optimizer.register_step_post_hook(counted)
    return count


def _rows(path: str, column: str = "") -> list[Any]:
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [row[column] for row in rows] if column else rows


if __name__ == "__main__":
    import trl

    jobs = {"ppo": ppo, "online": online, "reward": reward, "dpo": dpo, "sft": sft}
    run({name: lambda job, do=do: do(job) | {"version": f"TRL {trl.__version__}"} for name, do in jobs.items()})
