"""What speed is measured on, made on the spot and the same on every machine: words, a tokenizer, a random Llama.

Lengths are what decides: prompts of 20 to 120 tokens and completions of 5 to 80, evenly. The words are Python's own
help texts, so nothing is downloaded.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHAPES = {  # parameters with the 2,048 tokens of the vocabulary
    "tiny": {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64},
    "5m": {"hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 704},
    "27m": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1408},
}
VOCABULARY = 2048
HEADS = 8
TEMPLATE = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"


@dataclass(frozen=True)
class Material:
    """Folders of the same random weights, as a language model and as a reward model, and a file of pairs."""

    language_model: Path
    reward_model: Path
    pairs: Path


def sizes_of(shape: str) -> dict[str, int]:
    """Of a shape by name, or written as HIDDENxLAYERSxVOCABULARY."""
    if shape in SHAPES:
        return {"vocab_size": VOCABULARY, **SHAPES[shape]}
    written = re.fullmatch(r"(\d+)x(\d+)x(\d+)", shape)
    hidden, layers, vocabulary = map(int, written.groups()) if written else (0, 0, 0)
    if not hidden or hidden % (2 * HEADS) or not layers or vocabulary < 512:
        raise ValueError(
            f"{shape!r} is no shape: {', '.join(SHAPES)}, or HIDDENxLAYERSxVOCABULARY with a hidden size in multiples "
            f"of {2 * HEADS} and 512 tokens or more, as 384x6x8192"
        )
    mlp = -(-hidden * 11 // 4 // 64) * 64
    return {"vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": mlp}


def make(folder: Path, shape: str = "5m", rows: int = 1024, seed: int = 0) -> Material:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

    sizes = sizes_of(shape)
    tokenizer = _tokenizer(sizes["vocab_size"])
    made = Material(folder / "language-model", folder / "reward-model", folder / "pairs.jsonl")
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = LlamaConfig(
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=1024, tie_word_embeddings=True,
        **ends, **sizes,
    )  # fmt: skip
    torch.manual_seed(seed)
    writer = AutoModelForCausalLM.from_config(config)
    config.num_labels = 1
    judge = AutoModelForSequenceClassification.from_config(config)
    judge.base_model.load_state_dict(writer.base_model.state_dict())
    for model, where in ((writer, made.language_model), (judge, made.reward_model)):
        model.save_pretrained(where)
        tokenizer.save_pretrained(where)
    write_rows(made.pairs, _pairs(tokenizer, rows, seed))
    return made


def read_pairs(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def stretches(tokenizer: Any, seed: int) -> Callable[[int, int], str]:
    """Pieces of text of about so many tokens, from anywhere in the words."""
    chance, tokens = random.Random(seed), tokenizer(_words())["input_ids"]

    def stretch(low: int, high: int) -> str:
        n = chance.randint(low, high)
        start = chance.randrange(len(tokens) - n)
        return str(tokenizer.decode(tokens[start : start + n])).strip()

    return stretch


def _pairs(tokenizer: Any, rows: int, seed: int) -> list[dict[str, str]]:
    stretch = stretches(tokenizer, seed)

    def pair() -> dict[str, str]:
        # A space between prompt and completion: no token spans the border, whoever puts the two together.
        return {"prompt": stretch(20, 120), "chosen": " " + stretch(5, 80), "rejected": " " + stretch(5, 80)}

    return [pair() for _ in range(rows)]


def _words() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def _tokenizer(vocabulary: int) -> Any:
    from transformers import PreTrainedTokenizerFast

    from trueup.text.tokenizer import EOS, PAD, train_tokenizer

    made = train_tokenizer(_words().splitlines(), vocabulary)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=EOS, pad_token=PAD, chat_template=TEMPLATE)
