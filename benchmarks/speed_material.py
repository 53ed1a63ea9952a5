"""What the rows of `benchmarks speed` work on, made once for a shape and kept: models, prompts, demonstrations."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .material import make, read_pairs, stretches, write_rows

HERE = Path(__file__).parent
MADE_BY = ("material.py", "speed_material.py", "adapters_memory.py")  # what is kept was made by this very code
ROWS = 1024
CONSTANT = 0.3  # of the dimension that makes a model end; small beside what the other dimensions add up to


@dataclass(frozen=True)
class Places:
    """Paths, as the programs of both sides get them."""

    language_model: str
    reward_model: str
    ending_model: str  # the language model, made to end with the same probability at every token
    pairs: str
    demonstrations: str
    prompts: str


def places(folder: Path, shape: str, prompt_lengths: tuple[int, int], mean: float) -> Places:
    """The material for these sizes; what an earlier call has made is there already."""
    code = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in MADE_BY)).hexdigest()[:8]
    kept, ready = folder / f"{shape}-{prompt_lengths[0]}-{prompt_lengths[1]}-{mean:g}-{code}", "places.json"
    if not (kept / ready).is_file():
        kept.mkdir(parents=True, exist_ok=True)
        (kept / ready).write_text(json.dumps(asdict(_make(kept, shape, prompt_lengths, mean))))
    return Places(**json.loads((kept / ready).read_text()))


def _make(folder: Path, shape: str, prompt_lengths: tuple[int, int], mean: float) -> Places:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = make(folder, shape, ROWS)
    tokenizer = AutoTokenizer.from_pretrained(made.language_model)
    ending, prompts, demonstrations = folder / "ending-model", folder / "prompts.jsonl", folder / "demonstrations.jsonl"
    network = AutoModelForCausalLM.from_pretrained(made.language_model)
    pairs = read_pairs(made.pairs)
    let_end(network, tokenizer.eos_token_id, 1 / mean, [tokenizer(row["prompt"])["input_ids"] for row in pairs[:64]])
    network.save_pretrained(ending)
    tokenizer.save_pretrained(ending)
    write_rows(prompts, ({"prompt": prompt} for prompt in _prompts(tokenizer, prompt_lengths)))
    write_rows(demonstrations, ({"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs))
    paths = (made.language_model, made.reward_model, ending, made.pairs, demonstrations, prompts)
    return Places(*(str(path) for path in paths))


def _prompts(tokenizer: Any, lengths: tuple[int, int]) -> list[str]:
    """As many tokens when they are read again as when they were cut out."""
    stretch, found = stretches(tokenizer, seed=1), dict[str, None]()
    while len(found) < ROWS:
        text = stretch(*lengths)
        if lengths[0] <= len(tokenizer(text)["input_ids"]) <= lengths[1]:
            found[text] = None
    return list(found)


def let_end(network: Any, eos: int, share: float, rows: Sequence[Sequence[int]]) -> None:
    """Change a Llama's weights so that the end comes with about this probability after every token.

    The first dimension of its states becomes a constant: every embedding has it, and no layer writes there. The
    embedding of the end, which is also its row of the projection, has twice as much; how much that adds to its logit is
    then the final norm's weight alone, which is set by what the network says of `rows`.
    """
    import torch

    trunk = network.model
    with torch.no_grad():
        trunk.embed_tokens.weight[:, 0] = CONSTANT
        trunk.embed_tokens.weight[eos, 0] = 2 * CONSTANT
        for layer in trunk.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0
        states = torch.cat([trunk(torch.tensor([row])).last_hidden_state[0] for row in rows])
        adds = float(states[:, 0].mean()) * CONSTANT  # by as much as the norm's weight, which is 1
        states[:, 0] = 0
        logits = network.lm_head(states)
        plain = logits[:, eos] - torch.cat([logits[:, :eos], logits[:, eos + 1 :]], 1).logsumexp(1)
        wanted = torch.tensor(share).logit() - plain.mean()
        trunk.norm.weight[0] = float(wanted) / adds


def adapters(folder: Path, shape: str) -> dict[str, str]:
    """What the rows about adapters need besides: the same language model, and in a workspace a reward model that is an
    adapter on it."""
    from .adapters_memory import prepare

    made, ready = folder / "adapters", folder / "adapters" / "ready"
    if not ready.is_file():
        shutil.rmtree(made, ignore_errors=True)  # of a try that was cut off
        made.mkdir()
        ready.write_text(prepare(made, shape))
    base = ready.read_text()
    return {"workspace": str(made / "w"), "language_model": base, "policy": base, "reward_artifact": "adapter"}
