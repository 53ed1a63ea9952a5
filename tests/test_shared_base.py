"""Adapters on one base: who writes is switched, the base is in memory once, and each writes as it would alone."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_adapters import GROUPS, LORA, PLAIN, PROMPTS, disturb

from trueup.config import Sampling
from trueup.engines import shared_base
from trueup.engines.shared_base import Bases, Writer
from trueup.errors import ModelError
from trueup.models.load import load_model, save_model

GREEDY = Sampling(max_new_tokens=12, temperature=0)


@pytest.fixture(params=("Llama", "GPT2"))
def folder(request, checkpoint) -> str:
    return str(checkpoint(request.param))


@pytest.fixture
def adapters(folder, tmp_path) -> list[str]:
    """Two that have learnt different things."""
    made = []
    for seed in (1, 2):
        model = load_model([folder], LORA, trainable=True, seed=seed)
        disturb(model, seed)
        made.append(str(tmp_path / f"adapter-{seed}"))
        save_model(model, tmp_path / f"adapter-{seed}")
    return made


def said(writer: Writer) -> tuple[list[str], torch.Tensor]:
    found = writer.sample(PROMPTS, GREEDY, seed=0)
    return [each.text for each in found], torch.tensor(sum(writer.logprobs(found), []))


def alone(chain: list[str]) -> tuple[list[str], torch.Tensor]:
    """As the models that stages load: adapters folded in."""
    from trueup.engines.sampler import Sampler

    sampler = Sampler(load_model(chain, PLAIN))
    found = sampler.sample(PROMPTS, GREEDY, seed=0)
    return [each.text for each in found], torch.tensor(sum(sampler.logprobs(found), []))


def test_each_writes_as_it_would_alone_in_whatever_order(folder, adapters):
    bases = Bases(PLAIN)
    chains = [[folder], *([folder, each] for each in adapters)]
    writers = [bases.writer(chain) for chain in chains]
    expected = [alone(chain) for chain in chains]
    assert len({tuple(texts) for texts, _ in expected}) == 3, "or a mix-up would pass"
    for turn in (0, 1, 2, 1, 0, 2):
        texts, logprobs = said(writers[turn])
        assert texts == expected[turn][0]
        torch.testing.assert_close(logprobs, expected[turn][1], atol=1e-4, rtol=1e-4)
    assert torch.equal(said(writers[0])[1], expected[0][1]), "the bare base is what it is without adapters, bit for bit"


def test_the_base_is_loaded_once_and_goes_when_nobody_needs_it(folder, adapters, monkeypatch):
    loaded = []
    monkeypatch.setattr(shared_base, "load_model", lambda *a: loaded.append(a) or load_model(*a))
    bases = Bases(PLAIN)
    writers = [bases.writer([folder, adapters[0]]), bases.writer([folder])]
    writers[0] = bases.writer([folder, adapters[1]])
    back = bases.writer([folder, adapters[0]])
    assert len(loaded) == 1 and len({id(each.base) for each in (*writers, back)}) == 1
    assert set(back.base._names) == set(adapters), "one that comes again is not loaded again"
    whole = bases.writer([*[folder, adapters[0]], adapters[1]])  # on what the first one makes of the base: another base
    assert len(loaded) == 2 and whole.base is not back.base
    gone = weakref.ref(back.base.model)
    del writers, back
    gc.collect()
    assert gone() is None and bases.writer([folder, adapters[0], adapters[1]]).base is whole.base


def test_who_else_asks_in_between_changes_nothing(folder, adapters):
    """A switch that stayed on would speak through the next one."""
    writer = Bases(PLAIN).writer([folder, adapters[0]])
    with torch.no_grad():
        rows = writer.model.rows(GROUPS)
        before = writer.model.logprobs(rows)
        said(writer)
        assert torch.equal(writer.model.logprobs(rows), before)


def cut(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def narrower(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 3}))


def not_a_number(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({key: tensor * float("nan") for key, tensor in tensors.items()}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cannot be read"),
        (narrower, "does not fit"),
        (not_a_number, "holds NaN or infinity"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "cannot be read"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
    ],
)
def test_an_adapter_that_is_damaged_is_no_matter_to_others(folder, adapters, tmp_path, damage, words, first):
    broken = tmp_path / "broken"
    copytree(adapters[0], broken)
    damage(broken)
    bases = Bases(PLAIN)
    before = bases.writer([folder] if first else [folder, adapters[0]])
    with pytest.raises(ModelError, match=words):
        bases.writer([folder, str(broken)])
    after = bases.writer([folder, adapters[1]])
    assert said(before)[0] == alone([folder] if first else [folder, adapters[0]])[0]
    assert said(after)[0] == alone([folder, adapters[1]])[0]
