"""A tokenizer trained on the spot, and a tokenizer folder that plain transformers opens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..errors import ConfigError, DataError
from .chat import PromptFormat

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
_BYTES = 256


def train_tokenizer(texts: Iterable[str], vocabulary: int, special: tuple[str, ...] = (PAD, BOS, EOS)) -> Tokenizer:
    """A byte-level BPE with at most `vocabulary` tokens: any text has an encoding, equal texts give equal ones."""
    if vocabulary < _BYTES + len(special):
        raise ConfigError(
            f"a vocabulary of {vocabulary} is too small: {_BYTES} bytes and {len(special)} special tokens come first",
            f"set [architecture] vocabulary to {_BYTES + len(special)} or more (1024 is the default)",
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rows = list(texts)
    if not any(rows):
        raise DataError("there is no text to train a tokenizer on", "give pretraining a non-empty data set")
    tokenizer.train_from_iterator(rows, trainer=trainer, length=len(rows))
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path | str, format: PromptFormat) -> None:
    """tokenizer.json, tokenizer_config.json and special_tokens_map.json: `AutoTokenizer.from_pretrained(folder)`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    names = {"bos_token": format.bos, "eos_token": format.eos, "pad_token": format.pad}
    # An ordinary token declared here would become a special one for transformers, and change how text is split.
    special = {key: token for key, token in names.items() if token in added}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": with_system(format),
        "clean_up_tokenization_spaces": False,
        **special,
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", config)
    _write(folder / "special_tokens_map.json", special)


def with_system(format: PromptFormat) -> str:
    """The template with the format's system text inside, so that other tools render the same prompts."""
    if not format.system:
        return format.template
    return (
        "{% if messages[0]['role'] != 'system' %}"
        "{% set messages = [{'role': 'system', 'content': " + json.dumps(format.system) + "}] + messages %}"
        "{% endif %}" + format.template
    )


def _write(path: Path, value: dict[str, object] | dict[str, str]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
