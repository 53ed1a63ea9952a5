"""Models small enough to be built in a moment: random weights, real architectures, a real tokenizer.

Fixtures import torch only when a test asks for them, so that the torch-free tests start as fast as before.
"""

from __future__ import annotations

import os

# Before torch is imported anywhere: idle OpenMP threads that spin make a busy machine many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRUEUP_QUIET", "1")

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small import SENTENCES, VOCABULARY, nouns, nouns_asked, random_network, settings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from trueup.models.language_model import LanguageModel
    from trueup.text.chat import Encoder


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    from trueup.text.tokenizer import train_tokenizer

    return train_tokenizer(SENTENCES, VOCABULARY)


@pytest.fixture(scope="session")
def encoder(tokenizer) -> Encoder:
    from trueup.config import PromptSettings
    from trueup.text.chat import Encoder, prompt_format
    from trueup.text.tokenizer import EOS, PAD

    return Encoder(tokenizer, prompt_format(tokenizer, PromptSettings(), eos=EOS, pad=PAD))


@pytest.fixture(scope="session")
def make_model(encoder):
    """`make_model("Qwen2", seed=1)`: a fresh LanguageModel with random weights."""

    def make(family: str = "Llama", seed: int = 0, **changes: Any) -> LanguageModel:
        from trueup.models.language_model import LanguageModel

        return LanguageModel(random_network(family, seed, **changes), encoder)

    return make


@pytest.fixture
def model(make_model) -> LanguageModel:
    return make_model()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tokenizer):
    """`checkpoint("GPT2")`: the folder of a checkpoint as transformers itself saves it, with a real tokenizer.json."""
    folders: dict[tuple[str, int], Path] = {}

    def save(family: str, seed: int = 0) -> Path:
        from transformers import PreTrainedTokenizerFast

        if (family, seed) not in folders:
            folder = folders[family, seed] = tmp_path_factory.mktemp(f"{family}-{seed}")
            random_network(family, seed).save_pretrained(folder)
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>").save_pretrained(
                folder
            )
        return folders[family, seed]

    return save


@pytest.fixture
def workspace(tmp_path):
    from trueup.store import Workspace

    with Workspace.create(tmp_path / "workspace") as made:
        yield made


@pytest.fixture
def train(workspace):
    """`train(sft, config, model, ...)`: call a stage's function with a run of its own; returns the finished run."""
    from trueup.runs import Run

    def call(stage: Callable[..., int], config: Any, *arguments: Any) -> Run:
        run = Run.start(workspace, config.stage, config.model_dump(mode="json"), {}, seed=config.run.seed)
        with run:
            run.finish({"best_step": stage(run, config, *arguments)})
        return run

    return call


@pytest.fixture
def gradient(monkeypatch) -> Callable[[], dict[str, Any]]:
    """The gradient of the first optimizer step, before it is clipped."""
    from trueup.train.optimizers import Optimizer

    seen: list[dict[str, Any]] = []
    clip = Optimizer.clip

    def look(self):
        seen.append({name: p.grad.clone() for name, p in self.learnt.items() if p.grad is not None})
        return clip(self)

    monkeypatch.setattr(Optimizer, "clip", look)
    return lambda: seen[0]


@pytest.fixture(scope="session")
def talker(tokenizer, encoder, tmp_path_factory) -> Callable[[], LanguageModel]:
    """A model that says a few random nouns and stops: something for RL to have a preference about."""
    import copy
    import random

    from trueup.config import Architecture
    from trueup.models.load import new_model
    from trueup.runs import Run
    from trueup.store import Workspace
    from trueup.train.pretrain import pretrain

    chance = random.Random(3)
    rows = [
        (encoder.prompt(prompt), [encoder.completion(prompt, nouns(chance, chance.randint(2, 8)))])
        for prompt in nouns_asked() * 30
    ]
    shape = Architecture(hidden=32, layers=2, heads=4, mlp=64, vocabulary=VOCABULARY, context=96)
    model = new_model(shape, tokenizer, encoder.format, seed=0)
    config = settings("pretrain", steps=120, batch_size=16)
    workspace = Workspace.create(tmp_path_factory.mktemp("talker") / "w")
    with workspace, Run.start(workspace, "pretrain", {}, {}, seed=0) as run:
        pretrain(run, config, model, rows, [])
        run.finish({})
    return lambda: copy.deepcopy(model)
