"""Peak memory of RL with adapters on one base, beside that of LoRA SFT on the same base.

    python -m benchmarks adapters-memory

Every row is one stage in a process of its own, and all of them do the same updates: 16 rows of 64 prompt and 64
completion tokens, from a random model. What counts is the most the process ever held beyond what it held after its
imports, by the system's count; the raw peak stands beside. Everything that belongs to a run is in it: loading,
sampling, scoring, the evaluation of held-out prompts, checkpoints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from .material import SHAPES, make, read_pairs
from .measured import peak_mib, resident_mib

ROOT = Path(__file__).parents[1]
ROWS, PROMPT, COMPLETION = 96, 64, 64
BATCH, STEPS = 16, 3
RATIO = 1.3  # of RL with adapters to LoRA SFT

LORA, WHOLE = {"model.adapter": "lora"}, {"model.adapter": "none"}
SFT = "SFT, LoRA"
ADAPTERS = {  # the reward model, and the settings of RL
    "RL, adapters, value on the trunk": ("adapter", LORA),
    "RL, adapters, value its own": ("adapter", LORA | {"value.model": "own"}),
    "RL, adapters, value from the reward model": ("adapter", LORA | {"value.model": "reward"}),
}
BESIDE = {
    "RL, adapters, a reward model with a base of its own": ("whole", LORA | {"value.model": "reward"}),
    "SFT, all weights": ("", WHOLE),
    "RL, all weights, value on the trunk": ("whole", WHOLE),
    "RL, all weights, value its own": ("whole", WHOLE | {"value.model": "own"}),
}
STAGES: dict[str, tuple[str, dict[str, Any]]] = {SFT: ("", LORA)} | ADAPTERS | BESIDE


@click.command("adapters-memory")
@click.option("--shape", default="27m", show_default=True, type=click.Choice(list(SHAPES)))
@click.option("--only-adapters", is_flag=True, help="Without the rows that train all weights or load a second base.")
@click.option("--json", "as_json", is_flag=True)
def adapters_memory(shape: str, only_adapters: bool, as_json: bool) -> None:
    """Memory of RL with adapters, beside LoRA SFT."""
    rows = [SFT, *ADAPTERS, *([] if only_adapters else BESIDE)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = prepare(place, shape)
        found = compared({row: _measured(row, place / "w", base) for row in rows}) | {"shape": shape}
    click.echo(json.dumps(found, indent=1) if as_json else _text(found))
    sys.exit(0 if found["ok"] else 1)


def compared(stages: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Each stage against LoRA SFT; what has to hold is said of those that share one base."""
    least = stages[SFT]["mib"]
    each = {row: stage | {"ratio": stage["mib"] / least} for row, stage in stages.items()}
    highest = max(each[row]["ratio"] for row in ADAPTERS if row in each)
    tokens = [stage["tokens"] for stage in stages.values()]
    same = max(tokens) - min(tokens) <= 0.05 * max(tokens)
    return {"stages": each, "highest": highest, "same_tokens": same, "ok": highest <= RATIO and same}


def prepare(folder: Path, shape: str) -> str:
    """A base, rows of exactly as many tokens, and two reward models on it: an adapter, and one of whole weights."""
    import trueup

    made = make(folder, shape, ROWS)
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in _rows(made.language_model, made.pairs))
    )
    with trueup.Workspace.create(folder / "w") as ws:
        trueup.add_data(ws, str(folder / "rows.jsonl"), "demonstrations", name="rows")
        trueup.add_data(ws, str(made.pairs), "preferences", name="pairs")
        for name, adapter in (("adapter", "lora"), ("whole", "none")):
            trueup.reward(
                ws, base=str(made.language_model), data="pairs", name=name, steps=1, batch_size=2,
                model={"adapter": adapter, "device": "cpu"}, run={"threads": 1, "tensorboard": False},
            )  # fmt: skip
    return str(made.language_model)


def _rows(model: Path, pairs: Path) -> list[dict[str, str]]:
    """Demonstrations of one length: the end of a completion is its last token."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    text = " ".join(row["prompt"] for row in read_pairs(pairs))
    stream = tokenizer.encode(text).ids
    found: list[dict[str, str]] = []
    for start in range(0, len(stream) - PROMPT - COMPLETION, 7):
        ids = stream[start : start + PROMPT], stream[start + PROMPT : start + PROMPT + COMPLETION - 1]
        prompt, completion = (tokenizer.decode(part) for part in ids)
        if [len(tokenizer.encode(each).ids) for each in (prompt, completion)] == [PROMPT, COMPLETION - 1]:
            found.append({"prompt": prompt, "completion": completion})
    assert len(found) >= ROWS, f"{len(found)} rows of {PROMPT} and {COMPLETION} tokens"
    return found[:ROWS]


def _measured(row: str, workspace: Path, base: str) -> dict[str, float]:
    click.echo(row, err=True)
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRUEUP_QUIET": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.adapters_memory", row, str(workspace), base]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise click.ClickException(f"'{row}' failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(row: str, workspace: str, base: str) -> dict[str, float]:
    """One stage in this process."""
    import peft  # noqa: F401  what importing costs is not what a stage costs
    import transformers.models.llama.modeling_llama  # noqa: F401

    import trueup
    import trueup.train.rl
    import trueup.train.sft  # noqa: F401

    reward, settings = STAGES[row]
    run = {"run.threads": 1, "run.tensorboard": False, "model.device": "cpu", "steps": STEPS}
    before = resident_mib()
    with trueup.Workspace.open(Path(workspace)) as ws:
        if reward:
            rollout = {"prompts_per_step": BATCH, "samples_per_prompt": 1, "minibatches": 1, "epochs": 1}
            sampling = {"sampling.max_new_tokens": COMPLETION, "sampling.batch_size": BATCH}
            trueup.rl(ws, policy=base, reward=reward, prompts="rows", **rollout, **sampling, **run, **settings)
        else:
            trueup.sft(ws, base=base, data="rows", batch_size=BATCH, **run, **settings)
        metrics = trueup.Run.load(ws, ws.run_rows()[-1].id).metrics()
    counted = [step["length"] * BATCH if reward else step["tokens"] for step in metrics]
    tokens = sum(counted) / len(counted) + BATCH * PROMPT
    return {"mib": peak_mib() - before, "raw_mib": peak_mib(), "tokens": tokens}


def _text(found: dict[str, Any]) -> str:
    lines = [f"{'MiB':52} beyond imports  raw peak  tokens an update  of LoRA SFT"]
    for row, stage in found["stages"].items():
        mib, raw, tokens, ratio = (stage[key] for key in ("mib", "raw_mib", "tokens", "ratio"))
        lines.append(f"{row:52} {mib:14,.0f} {raw:9,.0f} {tokens:17,.0f} {ratio:12.2f}")
    lines.append(f"RL with adapters takes at most {found['highest']:.2f} times what LoRA SFT takes (at most {RATIO:g})")
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
