"""What the tests of models and training are made of: few words, few weights, few steps."""

from __future__ import annotations

from typing import Any

WORDS = "the cat sat on a mat and the dog ran to the red house while birds sang of rain in the old town".split()
SENTENCES = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
VOCABULARY = 320
NOUNS = ["cat", "dog", "birds", "mat", "rain", "red", "house", "town", "old", "sat"]


# One thread: with two on a busy machine, small tensors are many times slower. No TensorBoard: nobody will look.
QUIET = {"run.threads": 1, "run.tensorboard": False}


def settings(stage: str, **given: Any) -> Any:
    """A stage's config: `settings("rl", steps=4, sampling={"temperature": 0.7})`."""
    from trueup import config as configs

    quiet = {key: value for key, value in QUIET.items() if stage not in ("sample", "winrate") or key == "run.threads"}
    return configs.load(stage, flags=quiet | configs.flat(given))


def nouns_asked() -> list[Any]:
    """What the `talker` was taught to answer."""
    from trueup.records import Prompt

    return [Prompt.user(word) for word in NOUNS]


def nouns(chance: Any, count: int) -> str:
    return " ".join(chance.choice(NOUNS) for _ in range(count))


def random_network(family: str, seed: int = 0, **changes: Any) -> Any:
    """A causal LM of some family in which every weight matters: no zero bias, no norm that does nothing."""
    import torch
    import transformers

    torch.set_num_threads(1)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 96,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if family == "GPT2":
        shape = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96} | {
            key: shape[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = getattr(transformers, f"{family}Config")(**(shape | changes))
        network = transformers.AutoModelForCausalLM.from_config(config)
        for name, parameter in network.named_parameters():
            around = 1.0 if "norm" in name or ".ln_" in name else 0.0
            torch.nn.init.normal_(parameter, mean=around * name.endswith("weight"), std=0.25)
    return network.eval()


def add_small_data(workspace: Any, folder: Any, prompts: int = 30) -> dict[str, str]:
    """Prompts, demonstrations and preferences of a few words each, through data files; returns their names."""
    import json
    from random import Random

    from trueup import api

    chance = Random(0)

    def words(count: int) -> str:
        return " ".join(chance.choice(WORDS) for _ in range(count))

    asked = [f"{words(3)} {i}" for i in range(prompts)]
    files = {
        "prompts": [{"prompt": prompt} for prompt in asked],
        "demonstrations": [{"prompt": prompt, "completion": words(4)} for prompt in asked],
        "preferences": [{"prompt": prompt, "chosen": words(3) + " rain", "rejected": words(5)} for prompt in asked],
    }
    for kind, rows in files.items():
        path = folder / f"{kind}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        api.add_data(workspace, str(path), kind, name=kind, heldout=0.2)
    return {kind: kind for kind in files}
