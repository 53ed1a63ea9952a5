"""Models in and out of folders: any Hugging Face causal LM by local folder or hub id, and what trueup saves.

Everything saved opens in plain transformers or PEFT; beside it lies `prompt_format.json`, which says how messages
become tokens for this model. Weights are safetensors only, and code shipped with a model runs only when asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..config import Architecture, ModelSettings, PromptSettings
from ..errors import ModelError
from ..text.chat import Encoder, PromptFormat, prompt_format
from ..text.segments import SegmentEncoder
from ..text.tokenizer import save_tokenizer
from .adapters import CONFIG_FILE as ADAPTER_FILE
from .adapters import OWN, adapter_names, add_lora, add_stored, load_lora, load_loras, wants_lora
from .device import ON_CPU, Placement, place
from .ensemble import KIND as ENSEMBLE
from .ensemble import AdapterMember, EnsembleReward, members_of
from .language_model import LanguageModel, alike, trunk_layout
from .lean_layers import make_lean
from .quantised import quantise
from .reward_model import (
    PARTS,
    SETTINGS_FILE,
    AdapterReward,
    ClassifierReward,
    FeatureReward,
    RewardModel,
    SequenceReward,
)

FORMAT_FILE = "prompt_format.json"


def new_model(
    architecture: Architecture, tokenizer: Any, format: PromptFormat, seed: int, placement: Placement = ON_CPU
) -> LanguageModel:
    """A model with random weights for a tokenizer made on the spot."""
    from transformers import AutoModelForCausalLM

    encoder = Encoder(tokenizer, format)
    config = new_config(
        architecture, tokenizer.get_vocab_size(), eos_token_id=encoder.eos_id, pad_token_id=encoder.pad_id
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(config, dtype=placement.dtype)
    make_lean(network.to(placement.device))
    return LanguageModel(network, encoder)


def new_config(architecture: Architecture, vocabulary: int, **tokens: int) -> Any:
    from transformers import LlamaConfig, Qwen3Config

    family: Any = Qwen3Config if architecture.qk_norm else LlamaConfig
    return family(
        vocab_size=vocabulary,
        hidden_size=architecture.hidden,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        head_dim=architecture.hidden // architecture.heads,  # Qwen3's own default is 128
        intermediate_size=architecture.mlp,
        max_position_embeddings=architecture.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        **tokens,
    )


def load_model(
    chain: Sequence[str],
    settings: ModelSettings,
    *,
    prompt: PromptSettings | None = None,
    source: str = "",
    trainable: bool = False,
    seed: int = 0,
) -> LanguageModel:
    """A causal LM from `chain`: a folder or hub id with weights, then the PEFT adapters that sit on one another.

    The adapters are folded into the weights: what a stage starts from is one plain model, and its own LoRA layers
    (`trainable`, where `settings` ask for them) sit on that, so switching them off gives back exactly the start. What
    they sit on may be quantised, which comes after all folding: in few bits nothing can be added.
    """
    placement = place(settings)
    network = _chained(chain, settings, placement.dtype)
    encoder = load_encoder(chain[-1], settings, prompt)
    check_words(chain, encoder, settings)
    adapter = None
    if trainable:
        adapter = _with_lora(network, network.get_decoder(), settings, placement, seed, "CAUSAL_LM")
    else:
        network.requires_grad_(False)
    network.to(placement.device)
    try:
        model = LanguageModel(network, encoder, adapter=adapter, source=source)
    except ModelError:
        _check_finite(network, chain)  # numbers that are none look like a head nobody knows
        raise
    model.chain = tuple(chain)
    return model


def _check_finite(network: Any, chain: Sequence[str]) -> None:
    broken = [name for name, weight in network.named_parameters() if not weight.isfinite().all()]
    if broken:
        raise ModelError(
            f"the weights in '{chain[-1]}' hold NaN or infinity: {', '.join(broken[:3])}",
            "it was saved broken, or overflowed in a smaller number type: use an earlier checkpoint of it",
        )


def _with_lora(network: Any, trunk: Any, settings: ModelSettings, placement: Placement, seed: int, task: str) -> Any:
    """Fresh LoRA layers where they are wanted, on a base in few bits where that is; the peft object, or None."""
    check_quantised(settings, network.num_parameters())
    if not wants_lora(settings, network.num_parameters()):
        return None
    if settings.quantise != "none":
        quantise(trunk, settings.quantise, placement.device)
    return add_lora(network, settings, seed, task)


def check_quantised(settings: ModelSettings, parameters: int) -> None:
    """Weights in few bits cannot learn."""
    if settings.quantise != "none" and not wants_lora(settings, parameters):
        raise ModelError(
            f"model.quantise = '{settings.quantise}' needs LoRA, and a model of {parameters:,} parameters has all of "
            "its weights trained unless told otherwise",
            "set model.adapter = 'lora', or leave model.quantise out",
        )


def save_model(model: LanguageModel, folder: Path) -> None:
    """A plain transformers folder, or a PEFT one when only an adapter was trained; tokenizer and format beside it."""
    _save_network(model.network, model.adapter, folder)
    save_encoder(model.encoder, folder)


def load_reward(
    chain: Sequence[str], settings: ModelSettings, *, source: str = "", beside: LanguageModel | None = None
) -> RewardModel:
    """A reward model of any kind, or any sequence-classification checkpoint: an objective for each of its labels.

    A LoRA reward model is a chain: the causal LM it was trained on, then its own adapter with the head. If that
    causal LM is what a LoRA policy `beside` it sits on, it is one more adapter there and no second base is loaded.
    """
    model: RewardModel
    placement, folder = place(settings), chain[-1]
    if beside is not None and shares_base(chain, beside.chain, beside.adapter is not None):
        return _beside(beside, chain, settings, source)
    stored = _read_json(Path(folder) / SETTINGS_FILE)
    if stored.get("kind") == ENSEMBLE:
        model = _ensemble(members_of(folder), settings, beside)
        model.source = source
        return model.to(placement.device).eval()
    encoder = load_encoder(folder, settings, None)
    objectives, members = tuple(stored.get("objectives", ())), stored.get("members", 1)
    if stored.get("kind") == "features":
        trunk, base = (_network("AutoModelForCausalLM", f"{folder}/{n}", settings, placement.dtype) for n in PARTS)
        model = FeatureReward(LanguageModel(trunk, encoder), LanguageModel(base, encoder), objectives, members)
        model.load_heads(Path(folder))
    else:
        if (Path(folder) / ADAPTER_FILE).is_file():
            check_words(chain, encoder, settings)
            outputs = max(1, len(objectives)) * members
            network = classifier(_chained(chain[:-1], settings, placement.dtype), encoder.pad_id, outputs)
            network = load_lora(network, folder).merge_and_unload()
        else:
            network = _network("AutoModelForSequenceClassification", folder, settings, placement.dtype)
            objectives = objectives or labels_of(network.config)
        if reads_last_token(network):
            layout = trunk_layout(network.base_model)
            model = SequenceReward(network, encoder, layout=layout, objectives=objectives, members=members)
        else:
            model = ClassifierReward(network, encoder, objectives)
    model.take(stored)
    model.unweighed = not stored and model.outputs > 1
    model.source = source
    return model.requires_grad_(False).to(placement.device).eval()


def shares_base(chain: Sequence[str], policy: Sequence[str], lora: bool) -> bool:
    """Whether a reward model is an adapter of ours on the very model that a LoRA policy sits on."""
    kind = _read_json(Path(chain[-1]) / SETTINGS_FILE).get("kind")
    return lora and kind == "sequence" and len(chain) > 1 and list(chain[:-1]) == list(policy)


def _beside(policy: LanguageModel, chain: Sequence[str], settings: ModelSettings, source: str) -> RewardModel:
    """One more adapter on the policy's network, and the head that was saved with it."""
    folder, encoder = chain[-1], load_encoder(chain[-1], settings, None)
    check_words(chain, encoder, settings)
    stored, name = _read_json(Path(folder) / SETTINGS_FILE), f"reward{len(policy.adapter.peft_config)}"
    _, saved = add_stored(policy.adapter, name, folder, "score")
    outputs, width = saved["weight"].shape
    head = torch.nn.Linear(width, outputs, bias="bias" in saved, dtype=policy.network.dtype)
    head.load_state_dict(saved)
    model = AdapterReward(policy, encoder, name, head, tuple(stored.get("objectives", ())))
    model.take(stored)
    model.source = source
    return model.requires_grad_(False).to(policy.device).eval()


def _ensemble(
    chains: Sequence[Sequence[str]], settings: ModelSettings, beside: LanguageModel | None = None
) -> RewardModel:
    """Adapters on one base share its weights; any other reward models are loaded one by one."""
    if beside is not None and any(shares_base(c, beside.chain, beside.adapter is not None) for c in chains):
        return EnsembleReward([load_reward(chain, settings, beside=beside) for chain in chains], chains)
    shared = len(chains[0]) > 1 and all(chain[:-1] == chains[0][:-1] for chain in chains)
    if not shared or any(_read_json(Path(chain[-1]) / SETTINGS_FILE).get("kind") != "sequence" for chain in chains):
        return EnsembleReward([load_reward(chain, settings) for chain in chains], chains)
    placement, folders = place(settings), [chain[-1] for chain in chains]
    encoders = [load_encoder(folder, settings, None) for folder in folders]
    stored = [_read_json(Path(folder) / SETTINGS_FILE) for folder in folders]
    objectives, members = tuple(stored[0].get("objectives", ())), stored[0].get("members", 1)
    base = _chained(chains[0][:-1], settings, placement.dtype)
    network = classifier(base, encoders[0].pad_id, max(1, len(objectives)) * members)
    adapter = load_loras(network, folders)
    found = []
    for name, encoder, constants in zip(adapter_names(folders), encoders, stored, strict=True):
        member = AdapterMember(
            network,
            encoder,
            name,
            layout=trunk_layout(network.base_model),
            adapter=adapter,
            objectives=tuple(constants.get("objectives", ())),
            members=constants.get("members", 1),
        )
        member.take(constants)
        found.append(member)
    return EnsembleReward(found, chains).requires_grad_(False)


def labels_of(config: Any) -> tuple[str, ...]:
    """What the outputs of a classifier are called; one output needs no name."""
    return tuple(config.id2label[i] for i in range(config.num_labels)) if config.num_labels > 1 else ()


def new_reward(
    kind: str,
    chain: Sequence[str],
    settings: ModelSettings,
    *,
    features: Sequence[str] = (),
    seed: int = 0,
    objectives: Sequence[str] = (),
    members: int = 1,
) -> RewardModel:
    """A reward model with a fresh head on a causal LM's trunk.

    `features` is the chain of the frozen model whose surprise the features kind reads; by default the trunk's start.
    """
    placement = place(settings)
    whole = settings.model_copy(update={"adapter": "none", "quantise": "none"})
    model = load_model(chain, whole, trainable=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "features":
            base = load_model(features or chain, whole)
            return FeatureReward(model, base, objectives, members).to(placement.device)
        outputs = max(1, len(objectives)) * members
        network = classifier(model.network, model.encoder.pad_id, outputs).to(placement.device)
    adapter = _with_lora(network, network.base_model, settings, placement, seed, "SEQ_CLS")
    made = SequenceReward(
        network,
        model.encoder,
        layout=trunk_layout(network.base_model),
        adapter=adapter,
        objectives=objectives,
        members=members,
    )
    name_outputs(network.config, made)
    return made


def name_outputs(config: Any, model: RewardModel) -> None:
    """Other software reads what an output means in the checkpoint's own config."""
    if model.outputs > 1:
        numbered = [f" {i}" for i in range(model.members)] if model.members > 1 else [""]
        names = [objective + number for objective in model.objectives for number in numbered]
        config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}


def save_reward(model: RewardModel, folder: Path) -> None:
    model.save(folder)
    if isinstance(model, SequenceReward):
        _save_network(model.network, model.adapter, folder)
    save_encoder(model.encoder, folder)


def classifier(network: Any, pad_id: int, outputs: int = 1) -> Any:
    """The sequence-classification form of a causal LM, around the very same trunk: no second copy of the weights."""
    from transformers import AutoModelForSequenceClassification

    config = type(network.config)(**(network.config.to_dict() | {"num_labels": outputs, "pad_token_id": pad_id}))
    config.architectures = None
    with torch.device("meta"):
        shell = AutoModelForSequenceClassification.from_config(config)
    _check_head(shell)
    width = shell.score.in_features
    shell.score = torch.nn.Linear(width, outputs, bias=shell.score.bias is not None, dtype=network.dtype)
    torch.nn.init.normal_(shell.score.weight, std=(width + 1) ** -0.5)  # first scores of order one
    setattr(shell, shell.base_model_prefix, network.get_decoder())
    return shell


def _check_head(network: Any) -> None:
    if not _has_linear_head(network):
        raise ModelError(
            f"{type(network).__name__} has no linear head called 'score'",
            "train on a decoder model (Llama, Qwen, Mistral, GPT-2, ...)",
        )


def _has_linear_head(network: Any) -> bool:
    return isinstance(getattr(network, "score", None), torch.nn.Linear)


@torch.no_grad()
def reads_last_token(network: Any) -> bool:
    """Whether its scores are a linear head on the last token's state: it is asked, on four tokens, not its name."""
    if not _has_linear_head(network):
        return False
    limit, pad = network.get_input_embeddings().weight.shape[0], network.config.pad_token_id
    tokens = torch.tensor([[i % limit for i in (5, 11, 3, 7, 9) if i % limit != pad][:4]], device=network.device)
    states = network.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return alike(network.score(states[:, -1]), network(input_ids=tokens).logits)


def load_encoder(folder: str, settings: ModelSettings, prompt: PromptSettings | None) -> Encoder:
    """Tokenizer and prompt format. A stored format wins: `prompt` may only say what no earlier stage has said."""
    stored = Path(folder) / FORMAT_FILE
    tokenizer = _tokenizer(folder, settings)
    if not stored.is_file() and not tokenizer.chat_template and _reads_pairs(folder, settings):
        return _segments(tokenizer)
    if stored.is_file():
        format = PromptFormat.load(Path(folder))
        if prompt is not None and _changed(format, prompt):
            raise ModelError(
                "this model already has a prompt format, and [prompt] asks for another",
                f"drop the [prompt] settings, or start from a base model without {FORMAT_FILE}",
            )
        return Encoder(tokenizer.backend_tokenizer, format)
    special = {name: getattr(tokenizer, f"{name}_token") or "" for name in ("bos", "eos", "pad")}
    special["eos"] = special["eos"] or tokenizer.sep_token or ""  # an encoder model's text ends with that
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    format = prompt_format(tokenizer.backend_tokenizer, prompt or PromptSettings(), template=template, **special)
    if prompt is None and not format.stops:  # what ends a completion is said once, where a model learns to end
        raise ModelError(
            f"no token ends a completion: the tokenizer has no EOS, in '{folder}'",
            "train it to end first: `trueup train sft --base MODEL --data DEMONSTRATIONS --set "
            "'prompt.stop=[\"TOKEN\"]'`, where TOKEN is a special token of its tokenizer",
        )
    return Encoder(tokenizer.backend_tokenizer, format)


def _segments(tokenizer: Any) -> SegmentEncoder:
    pad, unknown = tokenizer.pad_token_id or 0, tokenizer.unk_token_id
    return SegmentEncoder(
        tokenizer.backend_tokenizer, pad, unknown, typed="token_type_ids" in tokenizer.model_input_names
    )


def _reads_pairs(folder: str, settings: ModelSettings) -> bool:
    """Of a classifier without a template: one whose head is not a decoder's was made for two segments."""
    if (Path(folder) / ADAPTER_FILE).is_file():
        return False
    config = load_config(folder, settings)
    return is_classifier(config) and not _has_linear_head(skeleton(config, settings, scores=True))


def is_classifier(config: Any) -> bool:
    return "SequenceClassification" in next(iter(config.architectures or ()), "")


def check_words(chain: Sequence[str], encoder: Encoder, settings: ModelSettings) -> None:
    """An adapter learnt on the tokens of what it sits on: with others, every score and every word means nothing."""
    if len(chain) < 2:
        return
    words = {number: word for word, number in _tokenizer(chain[0], settings).backend_tokenizer.get_vocab().items()}
    other = [word for word, number in encoder.tokenizer.get_vocab().items() if words.get(number, word) != word]
    if other:
        raise ModelError(
            f"the adapter in '{chain[-1]}' has another tokenizer than its base '{chain[0]}': {len(other):,} tokens "
            f"have the numbers of other ones, such as {min(other)!r}",
            "use the base that the adapter was trained on, with the tokenizer it had",
        )


def save_encoder(encoder: Encoder, folder: Path) -> None:
    save_tokenizer(encoder.tokenizer, folder, encoder.format)
    encoder.format.save(folder)


def load_config(source: str, settings: ModelSettings) -> Any:
    """The config of a folder or hub id: a small file, no weights."""
    from transformers import AutoConfig

    _check_whole(source)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"cannot read the config of '{source}': {_first_line(error)}",
            "give a folder with config.json, or a hub id that is reachable or cached",
        ) from error


def skeleton(config: Any, settings: ModelSettings, *, scores: bool = False) -> Any:
    """The causal LM of a config, or the classifier that `scores`, on torch's meta device: every shape, no memory and no
    weights."""
    import transformers

    what, family, hint = (
        ("classifier", "AutoModelForSequenceClassification", "use a sequence-classification checkpoint")
        if scores
        else ("causal language model", "AutoModelForCausalLM", "use a decoder model (Llama, Qwen, Mistral, Gemma, ...)")
    )
    try:
        with torch.device("meta"):
            return getattr(transformers, family).from_config(config, trust_remote_code=settings.trust_remote_code)
    except (ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"no {what} can be made from a config of type '{config.model_type}': {_first_line(error)}", hint
        ) from error


def count_parameters(config: Mapping[str, Any]) -> int:
    """Parameters of a causal LM from its config alone; tied weights count once."""
    from transformers import AutoConfig

    return skeleton(AutoConfig.for_model(**config), ModelSettings()).num_parameters()


def _chained(chain: Sequence[str], settings: ModelSettings, dtype: torch.dtype) -> Any:
    """The causal LM at the root of the chain with every adapter above it folded in."""
    network = _network("AutoModelForCausalLM", chain[0], settings, dtype)
    for folder in chain[1:]:
        network = load_lora(network, folder).merge_and_unload()
    return network.requires_grad_(True)  # peft froze what an adapter sat on, and folded in it is a plain model again


def _network(kind: str, folder: str, settings: ModelSettings, dtype: torch.dtype) -> Any:
    import transformers

    _check_whole(folder)
    _hush()
    try:
        network, found = getattr(transformers, kind).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with the sizes
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(
            f"cannot load a model from '{folder}': {_first_line(error)}",
            "give a folder with config.json and safetensors weights, or a hub id that is reachable or cached",
        ) from error
    if found["mismatched_keys"]:
        name, stored, wanted = min(found["mismatched_keys"])
        raise ModelError(
            f"the weights in '{folder}' are not those of its config.json: {name} is {_sizes(stored)} where the config "
            f"makes it {_sizes(wanted)}",
            "put back the config it was saved with: vocab_size counts the rows of the embedding",
        )
    if missing := sorted(found["missing_keys"]):  # transformers would go on with random numbers in their place
        raise ModelError(
            f"'{folder}' lacks weights of a {type(network).__name__}: {', '.join(missing[:3])}",
            "a reward model is a sequence-classification checkpoint, every other model a causal language model",
        )
    make_lean(network)
    return network


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _hush() -> None:
    """trueup shows its own progress, and a head that does not exist yet is no news."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _save_network(network: Any, adapter: Any, folder: Path) -> None:
    _hush()
    if adapter is None:
        network.save_pretrained(folder)
        return
    adapter.save_pretrained(folder, selected_adapters=[OWN])  # others beside it are other models
    # What is in it must not depend on where it was trained: peft writes the base's path, and a set in any order.
    path = folder / ADAPTER_FILE
    config = json.loads(path.read_text())
    config |= {"base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card; `trueup export` writes a real one


def _tokenizer(folder: str, settings: ModelSettings) -> Any:
    from transformers import AutoTokenizer

    _check_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"cannot load a tokenizer from '{folder}': {_first_line(error)}", "the folder needs a tokenizer.json"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"the tokenizer of '{folder}' has no fast form", "save it with tokenizer.json first")
    return tokenizer


def _check_folder(folder: str) -> None:
    """A path that does not exist must not be mistaken for a hub id and sent over the network."""
    if folder.startswith((".", "/", "~")) and not Path(folder).expanduser().is_dir():
        raise ModelError(f"no such model folder: {folder}", "check the path; a hub id looks like 'owner/name'")


def _check_whole(folder: str) -> None:
    _check_folder(folder)
    if (Path(folder) / ADAPTER_FILE).is_file():
        raise ModelError(
            f"'{folder}' holds a PEFT adapter, not a whole model",
            "merge it into its base first: `trueup export ID DIR --merge` does that with what trueup trained, "
            "merge_and_unload() of peft with any other; in its workspace its id is enough",
        )


def _changed(format: PromptFormat, prompt: PromptSettings) -> bool:
    return (
        (prompt.template not in ("", format.template))
        or (prompt.system not in ("", format.system))
        or (tuple(prompt.stop) not in ((), tuple(format.stop)))
    )


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
