"""The sampler's job of `benchmarks speed` by transformers' own `generate`, in trueup's environment."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from .forced import force
from .job import WARM_UP, Clock, Job, run
from .lengths import part


def sampler(job: Job) -> dict[str, Any]:
    """Batches in the order of the prompts; one pass before the clock starts."""
    clock = Clock()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["policy"], padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(job["policy"], dtype=torch.float32).eval()
    rows = Path(job["prompts"]).read_text().splitlines()[: job["prompts_a_step"]]
    texts, size = [json.loads(row)["prompt"] for row in rows], job["sampling_batch"]
    wanted, ends = partial(part, job, len(texts)), bool(job["natural"])
    written = force(wanted, tokenizer.eos_token_id, tokenizer.pad_token_id, ends=ends)
    for number in range(WARM_UP + job["iterations"]):
        clock.mark(number)
        for start in range(0, len(texts), size):
            batch = tokenizer(texts[start : start + size], padding=True, return_tensors="pt")
            network.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=True, top_k=0,
                temperature=1.0, max_new_tokens=job["new_tokens"],
            )  # fmt: skip
    clock.mark(WARM_UP + job["iterations"])
    lengths = written[WARM_UP * len(texts) :]
    found = clock.spent(WARM_UP, WARM_UP + job["iterations"]) | clock.memory()
    return found | {"lengths": lengths, "work": sum(lengths)}


if __name__ == "__main__":
    run({"sampler": lambda job: sampler(job) | {"version": f"transformers {transformers.__version__}"}})
