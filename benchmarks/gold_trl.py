"""TRL's side of `benchmarks gold`: its PPOTrainer on the prompts, policy and reward model of a job.

Runs in TRL 1.12's environment, the last that has PPO, and imports nothing of trueup. A job is one line of JSON.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from .gold_laps import Laps
from .job import Job, run
from .speed_trl import QUIETLY


def ppo(job: Job) -> dict[str, Any]:
    import torch
    import trl
    import trl.experimental.ppo.ppo_trainer  # noqa: F401  what importing costs is not what training costs
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["policy"], padding_side="left")
    prompts, laps, given = json.loads(Path(job["prompts"]).read_text()), Laps(job["weights"], job["every"]), job["trl"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            processing_class=tokenizer, model=_writer(job), ref_model=_writer(job), reward_model=scorer(job),
            value_model=scorer(job), train_dataset=Dataset.from_dict({"input_ids": prompts}),
            args=PPOConfig(**QUIETLY | {
                "output_dir": folder, "per_device_train_batch_size": given["batch"], "gradient_accumulation_steps": 1,
                "num_mini_batches": given["minibatches"], "num_ppo_epochs": given["epochs"],
                "total_episodes": given["batch"] * job["iterations"],
                "local_rollout_forward_batch_size": given["batch"], "response_length": job["new_tokens"],
                "stop_token": "eos", "missing_eos_penalty": given["missing_eos"], "temperature": job["temperature"],
                "kl_coef": given["kl"], "vf_coef": given["value_coefficient"], "whiten_rewards": given["whiten"],
                "cliprange_value": given["value_clip"], "learning_rate": given["lr"],
                "lr_scheduler_type": given["schedule"], "adam_beta2": given["beta2"], "adam_epsilon": given["epsilon"],
                "num_sample_generations": 0, "logging_steps": 1, "seed": job["seed"],
            }),
        )  # fmt: skip
        trainer.add_callback(_ticks(laps, trainer))
        trainer.train()
    return {"laps": laps.laps, "kl": _kl(trainer), "version": f"TRL {trl.__version__}"}


def scorer(job: Job) -> Any:
    """The reward model with its constants in the head: TRL takes what it says as it is."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(job["reward_model"], num_labels=1, dtype=torch.float32)
    head = load_file(job["head"])
    network.score = torch.nn.Linear(head["weight"].shape[1], 1)
    network.score.load_state_dict(head)
    return network


def _writer(job: Job) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(job["policy"], dtype=torch.float32)


def _ticks(laps: Laps, trainer: Any) -> Any:
    from transformers import TrainerCallback

    class Ticks(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            laps.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            laps.lap(state.global_step, trainer.policy_model)

    return Ticks()


def _kl(trainer: Any) -> list[float]:
    """Nats a completion in each rollout."""
    return [row["objective/kl"] for row in trainer.state.log_history if "objective/kl" in row]


if __name__ == "__main__":
    run({"ppo": ppo})
