"""Well-known models as the plain numbers of their published config.json, so that nothing is downloaded to plan."""

from __future__ import annotations

from typing import Any

from ..errors import nearest


def _opt(width: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "opt", "vocab_size": 50272, "hidden_size": width, "word_embed_proj_dim": width,
        "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": 4 * width,
        "max_position_embeddings": 2048,
    } | more  # fmt: skip


def _llama(
    kind: str, width: int, layers: int, heads: int, keys: int, mlp: int, vocabulary: int, context: int, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": kind, "vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": keys, "intermediate_size": mlp,
        "max_position_embeddings": context, "tie_word_embeddings": tied,
    }  # fmt: skip


KNOWN: dict[str, dict[str, Any]] = {
    "opt-350m": _opt(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
    "opt-1.3b": _opt(2048, 24, 32),
    "opt-6.7b": _opt(4096, 32, 32),
    "opt-13b": _opt(5120, 40, 40),
    "opt-30b": _opt(7168, 48, 56),
    "opt-66b": _opt(9216, 64, 72),
    "smollm2-135m": _llama("llama", 576, 30, 9, 3, 1536, 49152, 8192, True),
    "qwen2.5-0.5b": _llama("qwen2", 896, 24, 14, 2, 4864, 151936, 32768, True),
    "qwen2.5-1.5b": _llama("qwen2", 1536, 28, 12, 2, 8960, 151936, 131072, True),
    "qwen2.5-7b": _llama("qwen2", 3584, 28, 28, 4, 18944, 152064, 131072, False),
    "llama-3.2-1b": _llama("llama", 2048, 16, 32, 8, 8192, 128256, 131072, True),
    "llama-2-7b": _llama("llama", 4096, 32, 32, 32, 11008, 32000, 4096, False),
    "llama-2-13b": _llama("llama", 5120, 40, 40, 40, 13824, 32000, 4096, False),
    "llama-3-8b": _llama("llama", 4096, 32, 32, 8, 14336, 128256, 8192, False),
    "llama-3-70b": _llama("llama", 8192, 80, 64, 8, 28672, 128256, 8192, False),
    "mistral-7b": _llama("mistral", 4096, 32, 32, 8, 14336, 32768, 32768, False) | {"sliding_window": None},
}


def read_config(model: str) -> Any:
    """The config of a known model by its name, else of a folder or a hub id: a small file, no weights."""
    from transformers import AutoConfig

    from ..config import ModelSettings
    from ..errors import ModelError
    from ..models.load import load_config

    if model.lower() in KNOWN:
        return AutoConfig.for_model(**KNOWN[model.lower()])
    try:
        return load_config(model, ModelSettings())
    except ModelError as error:
        if "/" in model:
            raise
        hint = f"known by name are {', '.join(KNOWN)}; else {error.hint}"
        raise ModelError(f"{error.message}{nearest(model.lower(), KNOWN)}", hint) from error
