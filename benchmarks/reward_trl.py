"""Train a reward model with TRL's RewardTrainer for a few steps and print one JSON line.

Runs in TRL's own environment: nothing of trueup is imported but the two functions beside it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
from measured import peak_mib, resident_mib  # noqa: E402


def main(language_model: str, reward_model: str, pairs: str, batch: int, steps: int, skip: int, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    import trl
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

    with open(pairs) as file:
        rows = [json.loads(line) for line in file]
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    tokenizer.chat_template = None  # the rows are plain text
    before = resident_mib()
    model = AutoModelForSequenceClassification.from_pretrained(reward_model, num_labels=1, dtype=torch.float32)
    table = [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in rows]
    marks = {}

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]
            marks[state.global_step] = (time.process_time(), time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.RewardTrainer(
            model=model, processing_class=tokenizer, train_dataset=Dataset.from_list(table), callbacks=[Clock()],
            args=trl.RewardConfig(
                output_dir=folder, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
                per_device_train_batch_size=batch, max_steps=steps, learning_rate=1e-5, lr_scheduler_type="constant",
                max_length=1024, save_strategy="no", logging_steps=10**6, disable_tqdm=True, seed=0,
            ),
        )  # fmt: skip
        losses = [_loss(trainer, [row]) for row in list(trainer.train_dataset)[:batch]]
        tokens = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in trainer.train_dataset)
        trainer.train()
    (cpu, wall), (cpu_end, wall_end) = marks[skip], marks[steps]
    found = {
        "pairs": batch * (steps - skip),
        "cpu_seconds": cpu_end - cpu,
        "seconds": wall_end - wall,
        "mib": peak_mib() - before,
        "losses": losses,
        "tokens": tokens,
        "version": trl.__version__,
    }
    print(json.dumps(found))


def _loss(trainer, rows) -> float:  # type: ignore[no-untyped-def]
    import torch

    trainer.model.eval()
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, trainer.data_collator(rows)))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:8]))
