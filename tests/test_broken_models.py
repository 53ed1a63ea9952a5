"""Models that cannot be what they say: each is told by what is wrong with it, and by what can be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small import SENTENCES, VOCABULARY, random_network

from trueup import running
from trueup.config import ModelSettings, PromptSettings
from trueup.errors import DiskFullError, ModelError, WorkspaceError
from trueup.models.load import load_model
from trueup.runs import Run
from trueup.store import Workspace
from trueup.store.files import saying_disk_full
from trueup.text.tokenizer import train_tokenizer

ON_CPU = ModelSettings(device="cpu", dtype="float32")


@pytest.fixture
def folder(tmp_path):
    """`folder(network)`: a checkpoint of it, with a tokenizer that has an EOS unless told otherwise."""
    from transformers import PreTrainedTokenizerFast

    def make(network, **special) -> Path:
        tokenizer = train_tokenizer(SENTENCES, VOCABULARY, ("<pad>", "<bos>", "<eos>"))
        network.save_pretrained(tmp_path)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **special).save_pretrained(tmp_path)
        return tmp_path

    return make


def test_weights_that_are_no_numbers_are_said(folder):
    network = random_network("Llama")
    with torch.no_grad():
        network.model.layers[1].mlp.up_proj.weight[3, 3] = torch.nan
    with pytest.raises(ModelError, match=r"hold NaN or infinity: .*layers\.1\.mlp\.up_proj"):
        load_model([str(folder(network, eos_token="<eos>"))], ON_CPU)


def test_a_config_of_other_shapes_than_the_weights_is_said(folder):
    path = folder(random_network("Llama"), eos_token="<eos>")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"vocab_size": VOCABULARY + 7}))
    with pytest.raises(ModelError, match=f"is {VOCABULARY} x 32 where the config makes it {VOCABULARY + 7} x 32"):
        load_model([str(path)], ON_CPU)


def test_without_an_eos_the_way_is_through_sft(folder):
    """Only there can [prompt] stop be said: the stages after it refuse the setting."""
    path = str(folder(random_network("Llama")))
    with pytest.raises(ModelError, match="has no EOS") as found:
        load_model([path], ON_CPU)
    assert "trueup train sft" in found.value.hint and 'prompt.stop=["TOKEN"]' in found.value.hint
    with pytest.raises(ModelError, match="no token ends a completion"):
        load_model([path], ON_CPU, prompt=PromptSettings())
    assert load_model([path], ON_CPU, prompt=PromptSettings(stop=("<eos>",))).encoder.stop_ids


def test_an_adapter_alone_is_told_how_to_become_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds a PEFT adapter") as found:
        load_model([str(tmp_path)], ON_CPU)
    assert "trueup export ID DIR --merge" in found.value.hint


def test_a_disk_that_fills_while_training_names_the_way_on(tmp_path, monkeypatch):
    def execute(run, config):
        with run:
            if kept:
                run.checkpoint(1, lambda folder: (folder / "weights").write_bytes(b"x"))
            with saying_disk_full(tmp_path):
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(running.wiring, "execute", execute)
    with Workspace.create(tmp_path / "ws") as workspace:
        for kept in (True, False):
            run = Run.start(workspace, "rl", {}, {}, seed=0)
            with pytest.raises(DiskFullError) as found:
                running.finished(run, None)
            assert isinstance(found.value, WorkspaceError)
            assert (run.resume_command in found.value.hint) == kept, "with no checkpoint there is nothing to go on from"
