"""Push given rollouts through TRL's own PPOTrainer and write down what it computed.

Runs in TRL's environment and imports nothing of trueup. TRL's lines do all of the work: only what comes in is given
(the completions in place of sampling, the order of minibatches in place of a shuffle), and what comes out is read from
the variables of `PPOTrainer.train` while it runs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
import numpy as np
import torch
import trl.experimental.ppo.ppo_trainer as ppo
from datasets import Dataset
from safetensors.numpy import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

LOSSES = ("policy_loss", "value_loss", "loss")
LOGS = {"policy/approxkl_avg": "approx_kl", "val/ratio": "ratio", "policy/entropy_avg": "entropy"}


class ValueHead(torch.nn.Module):
    """TRL's critic takes any head. This is the one that the rollout's case has weights for."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        for name in ("inner", "outer"):
            weight, bias = (torch.tensor(weights[f"head.{name}.{kind}"]) for kind in ("weight", "bias"))
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
            linear.load_state_dict({"weight": weight, "bias": bias})
            setattr(self, name, linear)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.tanh(self.inner(hidden)))


class Watched:
    """One case: a trainer made of its folder, and what its `train` had in hand."""

    def __init__(self, folder: Path, scratch: str) -> None:
        told = json.loads((folder / "case.json").read_text())
        self.case, self.rows, self.orders = told["case"], told["rows"], told["orders"]
        self.found: dict[str, object] = {}
        self.update, self.losses, self.real_logs = 0, [], []
        self.trainer = self._trainer(folder, scratch)

    def run(self) -> dict[str, np.ndarray]:
        each_epoch = len(self.orders) // self.case["epochs"]
        epochs = [sum(self.orders[i : i + each_epoch], []) for i in range(0, len(self.orders), each_epoch)]
        np.random.permutation = lambda count: np.array(epochs.pop(0))
        ppo.batch_generation = self._given
        backward = self.trainer.accelerator.backward

        def look_first(loss: torch.Tensor) -> None:
            self._look(sys._getframe(1).f_locals)
            backward(loss)

        self.trainer.accelerator.backward = look_first
        self.trainer.optimizer.optimizer.register_step_pre_hook(lambda *_: self._keep_gradient())
        self.trainer.train()
        self._keep_logs()
        for name, parameter in self.trainer.model.named_parameters():
            self.found[f"weights/{plain(name)}"] = parameter.detach()
        return {name: np.asarray(each, dtype=np.float64) for name, each in self.found.items()}

    def _trainer(self, folder: Path, scratch: str) -> PPOTrainer:
        case, count = self.case, len(self.rows)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", padding_side="left")
        prompts, pad = [{"input_ids": row["prompt_tokens"]} for row in self.rows], DataCollatorWithPadding(tokenizer)

        policy, reference = (AutoModelForCausalLM.from_pretrained(folder / n) for n in ("policy", "reference"))
        reward, value = (AutoModelForSequenceClassification.from_pretrained(folder / "reward") for _ in range(2))
        weights = load_file(folder / "value.safetensors")
        value.model.load_state_dict({n: torch.tensor(w) for n, w in weights.items() if not n.startswith("head.")})
        value.score = ValueHead(weights)
        optimizer = case["optimizer"]
        config = PPOConfig(
            output_dir=scratch, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
            save_strategy="no", disable_tqdm=True, num_sample_generations=0, total_episodes=count, logging_steps=1,
            per_device_train_batch_size=count // case["accumulation"], local_rollout_forward_batch_size=count,
            gradient_accumulation_steps=case["accumulation"], num_ppo_epochs=case["epochs"],
            num_mini_batches=case["minibatches"], stop_token="eos", missing_eos_penalty=case["missing_eos"],
            response_length=max(len(row["tokens"]) for row in self.rows), temperature=case["temperature"],
            kl_coef=case["kl_coefficient"], kl_estimator=case["kl_estimator"], cliprange=case["clip"],
            cliprange_value=case["value_clip"], vf_coef=case["value_coefficient"], gamma=case["gamma"],
            lam=case["lam"], whiten_rewards=False, learning_rate=optimizer["lr"], lr_scheduler_type="constant",
            adam_beta1=optimizer["betas"][0], adam_beta2=optimizer["betas"][1], adam_epsilon=optimizer["eps"],
            weight_decay=0.0, max_grad_norm=optimizer["grad_clip"], optim="adamw_torch",
        )  # fmt: skip
        # A batch more than is used: on the last one accelerate ends every accumulation at once.
        data = Dataset.from_list(prompts * 2)
        return PPOTrainer(
            args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward,
            value_model=value, train_dataset=data, data_collator=lambda _: pad(prompts),
        )  # fmt: skip

    def _given(self, model, queries, size, pad, generation):  # type: ignore[no-untyped-def]
        """In place of sampling: the completions, and the policy's logits for them as sampling divides them."""
        assert [[t for t in query if t != pad] for query in queries.tolist()] == [r["prompt_tokens"] for r in self.rows]
        width = max(len(row["tokens"]) for row in self.rows)
        written = [row["tokens"] + [pad] * (width - len(row["tokens"])) for row in self.rows]
        both = torch.cat([queries, torch.tensor(written)], dim=1)
        return both, ppo.forward(model, both, pad).logits[:, queries.shape[1] - 1 : -1] / generation.temperature

    def _look(self, seen: dict) -> None:
        """Just before a gradient: `seen` are the variables of `train`."""
        if "score" not in self.found:
            self._keep_rollout(seen)
        self.losses.append([float(seen[name].detach()) for name in ("pg_loss", "vf_loss", "loss")])
        logits, real = seen["logits"].detach(), ~seen["padding_mask"][seen["micro_batch_inds"]]
        entropy = logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)
        step = seen["logprobs_diff"].detach()[real]
        self.real_logs.append([float((step**2 / 2).mean()), float(step.exp().mean()), float(entropy[real].mean())])

    def _keep_rollout(self, seen: dict) -> None:
        real, reach = ~seen["padding_mask"], ~seen["padding_mask_p1"]
        at_tokens = {
            "logprobs": "logprobs", "reference_logprobs": "ref_logprobs", "kl": "kl", "rewards": "rewards",
            "values": "values", "advantages": "advantages", "returns": "returns",
        }  # fmt: skip
        self.found |= {name: seen[theirs][real] for name, theirs in at_tokens.items()}
        behind = reach & ~real
        if behind.any():
            self.found |= {f"{name}_behind": seen[name][behind] for name in ("rewards", "values", "returns")}
        self.found["score"] = seen["scores"]

    def _keep_gradient(self) -> None:
        """As the optimizer got it, with the means over the micro-batches that it was gathered from."""
        for name, parameter in self.trainer.model.named_parameters():
            self.found[f"{self.update}/gradient/{plain(name)}"] = parameter.grad.clone()
        means = np.mean(self.losses, axis=0)
        self.found |= {f"{self.update}/{n}": m for n, m in zip(LOSSES, means, strict=True)}
        self.update, self.losses = self.update + 1, []

    def _keep_logs(self) -> None:
        (logged,) = (row for row in self.trainer.state.log_history if "val/ratio" in row)
        self.found |= {f"log/{name}": logged[theirs] for theirs, name in LOGS.items()}
        means = np.mean(self.real_logs, axis=0)
        self.found |= {f"real/{name}": mean for name, mean in zip(LOGS.values(), means, strict=True)}


def plain(name: str) -> str:
    """A parameter's name in all three programs."""
    for theirs, ours in (
        ("policy.model.", "policy/"), ("policy.", "policy/"), ("value_model.model.", "value/"),
        ("value_model.score.", "value/head."),
    ):  # fmt: skip
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise ValueError(name)


def main(folders: list[str]) -> None:
    import accelerate
    import transformers
    import trl

    torch.set_num_threads(1)
    permutation, generation = np.random.permutation, ppo.batch_generation
    for folder in folders:
        with tempfile.TemporaryDirectory() as scratch:
            save_file(Watched(Path(folder), scratch).run(), Path(folder) / "trl.safetensors")
        np.random.permutation, ppo.batch_generation = permutation, generation
    made = {module.__name__: module.__version__ for module in (trl, torch, transformers, accelerate)}
    print(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1:])
