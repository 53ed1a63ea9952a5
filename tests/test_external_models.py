"""Checkpoints from elsewhere: what transformers saved goes through the whole loop and comes out as what it opens.

The tokenizers are real byte-level BPEs and as awkward as published ones: GPT-2 has no pad token, Qwen's base model pads
with its EOS and ends chat turns with another token.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from small import SENTENCES, VOCABULARY, add_small_data, random_network, settings

from trueup import api
from trueup.config import ModelSettings, PromptSettings, Sampling
from trueup.engines.sampler import Sampler
from trueup.errors import ModelError
from trueup.models.language_model import LanguageModel
from trueup.models.load import load_model, load_reward
from trueup.records import Prompt
from trueup.runs import Run, runs
from trueup.text.tokenizer import train_tokenizer
from trueup.wiring import chain, read_completions, read_demonstrations, read_prompts

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
END = "<|endoftext|>"
TOKENIZERS = {
    "GPT2": ((END,), {"bos_token": END, "eos_token": END}),
    "Qwen2": ((END, "<|im_start|>", "<|im_end|>"), {"eos_token": END, "pad_token": END, "chat_template": CHATML}),
}
STOPS = {"GPT2": {END}, "Qwen2": {END, "<|im_end|>"}}
QUICK = {"threads": 1}
TRAINING = {**QUICK, "tensorboard": False, "evaluate_every": 2, "checkpoint_every": 2}


@pytest.fixture(scope="module", params=("GPT2", "Qwen2"))
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def external(family, tmp_path_factory) -> Path:
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp(family)
    special, names = TOKENIZERS[family]
    tokenizer = train_tokenizer(SENTENCES, VOCABULARY, special)
    random_network(family).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


def run_of(workspace, artifact) -> Run:
    return next(run for run in reversed(runs(workspace)) if artifact.id in {o.id for o in run.outputs.values()})


@pytest.mark.parametrize("adapter", ("none", "lora"))
def test_the_whole_loop(workspace, external, family, adapter, tmp_path):
    """SFT, samples, a reward model, RL, and who wins, on thirty prompts; and all of it in the lineage of the result."""
    model = {"adapter": adapter}
    add_small_data(workspace, tmp_path)
    sft = api.sft(
        workspace, base=str(external), data="demonstrations", model=model, steps=4, optimizer={"lr": 1e-2}, run=TRAINING
    )
    sampling = {"max_new_tokens": 8}
    samples = api.sample(workspace, model=sft, prompts="prompts", per_prompt=2, sampling=sampling, run=QUICK)
    judge = api.reward(workspace, base=sft, data="preferences", model=model, steps=4, run=TRAINING)
    tuned = api.rl(
        workspace, policy=sft, reward=judge, prompts="prompts", model=model, steps=3, prompts_per_step=4,
        samples_per_prompt=2, sampling=sampling, optimizer={"lr": 1e-2}, run=TRAINING,
    )  # fmt: skip
    found = api.winrate(workspace, a=tuned, b=sft, prompts="prompts", judge=judge, sampling=sampling, run=QUICK)

    assert [artifact.meta["adapter"] for artifact in (sft, judge, tuned)] == [adapter == "lora"] * 3
    completions = read_completions(samples)
    assert len(completions) == 60 and all(c.model == sft.id and c.tokens and c.logprobs for c in completions)
    first = run_of(workspace, tuned).metrics()[0]
    assert abs(first["kl"]) < 1e-3 and first["ratio_gap"] < 1e-3 and first["drift"] < 1e-3
    assert found["n"] == 30 and 0 <= found["value"] <= 1
    lineage = workspace.lineage(tuned)
    behind = {(node.kind, *node.names) for node in lineage.nodes.values()}
    assert {("demonstrations", "demonstrations"), ("preferences", "preferences"), ("prompts", "prompts")} <= behind
    assert {sft.id, judge.id, tuned.id} <= set(lineage.nodes) and ("external",) in behind
    stages = {node.run["stage"] for node in lineage.nodes.values() if node.run}
    assert stages == {"sft", "reward", "rl"}
    assert_others_open_it(workspace, tuned, sft, external, adapter)


def assert_others_open_it(workspace, tuned, sft, external, adapter) -> None:
    """Plain transformers, or PEFT on the base, continue a prompt greedily exactly as trueup's sampler does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = load_model(chain(workspace, tuned), settings("sample").model)
    tokenizer = AutoTokenizer.from_pretrained(tuned.path)
    if adapter == "none":
        theirs = AutoModelForCausalLM.from_pretrained(tuned.path)
    else:
        from peft import PeftModel

        theirs = AutoModelForCausalLM.from_pretrained(external)
        for folder in (sft.path, tuned.path):
            theirs = PeftModel.from_pretrained(theirs, folder).merge_and_unload()
    prompts = read_prompts(workspace.get("prompts"))[:4]
    greedy = Sampler(ours).sample(prompts, Sampling(max_new_tokens=8, temperature=0), seed=0)
    for prompt, completion in zip(prompts, greedy, strict=True):
        messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        tokens = rendered if isinstance(rendered, torch.Tensor) else rendered["input_ids"]
        assert tokens[0].tolist() == list(ours.encoder.prompt(prompt)), "the template went along"
        stop = sorted(ours.encoder.stop_ids)
        written = theirs.eval().generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=8, eos_token_id=stop,
            pad_token_id=stop[0],
        )  # fmt: skip
        assert written[0, tokens.shape[1] :].tolist() == list(completion.tokens)


def test_sft_learns_the_completion_and_its_end_and_nothing_else(workspace, external, family, tmp_path, monkeypatch):
    """Every token of a completion, exactly one that ends it, no token of a prompt, and no padding.

    Were padding masked by its id, a pad token equal to EOS would take the end out of the loss: the model would then
    never learn to stop, and nothing in the loss would tell.
    """
    add_small_data(workspace, tmp_path)
    learnt: list[tuple[int, ...]] = []
    logprobs = LanguageModel.logprobs

    def look(self, rows, *arguments, **named):
        if torch.is_grad_enabled():
            for targets, mask in zip(rows.target_cl, rows.mask_cl, strict=True):
                learnt.append(tuple(targets[mask].tolist()))
        return logprobs(self, rows, *arguments, **named)

    monkeypatch.setattr(LanguageModel, "logprobs", look)
    config = settings("sft", epochs=1.0, batch_size=6, heldout=0.0, model={"adapter": "none"})
    api.sft(workspace, base=str(external), data="demonstrations", config=config)
    encoder = load_model([str(external)], config.model).encoder
    demonstrations = read_demonstrations(workspace.get("demonstrations"))
    assert sorted(learnt) == sorted(encoder.completion(d.prompt, d.completion) for d in demonstrations)
    names = {encoder.tokenizer.id_to_token(number): number for number in encoder.stop_ids}
    assert set(names) == STOPS[family]
    for tokens in learnt:
        assert [t in encoder.stop_ids for t in tokens] == [False] * (len(tokens) - 1) + [True]
        assert tokens[-1] == names["<|im_end|>" if family == "Qwen2" else END]
    # Where nothing better is left, the pad token is an ordinary word, which completions may well contain.
    assert encoder.pad_id not in encoder.stop_ids and encoder.pad_note, "people are told which token it became"


@pytest.mark.parametrize("later", ("none", "lora"))
@pytest.mark.parametrize("stage", ("sft", "reward", "rl"))
def test_what_an_adapter_left_is_trained_as_any_model(workspace, checkpoint, tmp_path, stage, later):
    """SFT with LoRA, then another stage with all weights or with LoRA again: the trunk must move either way."""
    add_small_data(
        workspace, tmp_path, prompts=30 if stage != "rl" else 4
    )  # none to hold out: the last step is shipped
    settings = {"run": TRAINING, "optimizer": {"lr": 1e-2}}
    sft = api.sft(
        workspace, base=str(checkpoint("Llama")), data="demonstrations", model={"adapter": "lora"}, steps=3, **settings
    )
    more = {"model": {"adapter": later}, "steps": 3, **settings}
    if stage == "sft":
        made = api.sft(workspace, base=sft, data="demonstrations", **more)
    elif stage == "reward":
        made = api.reward(workspace, base=sft, data="preferences", **more)
    else:
        judge = api.reward(workspace, base=sft, data="preferences", model={"adapter": "lora"}, steps=3, **settings)
        sampling = {"max_new_tokens": 8}
        made = api.rl(
            workspace, policy=sft, reward=judge, prompts="prompts", prompts_per_step=8, sampling=sampling, **more
        )
    load = load_reward if stage == "reward" else load_model
    before = load_model(chain(workspace, sft), ModelSettings()).network.get_decoder()
    network = load(chain(workspace, made), ModelSettings()).network
    after = network.base_model if stage == "reward" else network.get_decoder()
    for (name, old), (_, new) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        if name.endswith("proj.weight"):
            assert not torch.equal(old, new), f"{name} did not learn"


def test_a_token_without_an_embedding_pads_nothing(checkpoint, tmp_path):
    """Published often: a pad token was added to the tokenizer and the model not resized."""
    from transformers import AutoTokenizer

    shutil.copytree(checkpoint("Llama"), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<|new|>"]})
    tokenizer.save_pretrained(tmp_path / "model")
    model = load_model([str(tmp_path / "model")], ModelSettings())
    rows = model.network.get_input_embeddings().weight.shape[0]
    assert model.encoder.vocabulary > rows > model.encoder.pad_id and "no embedding" in model.encoder.pad_note
    prompts = [Prompt.user("the cat"), Prompt.user("a dog ran to the red house")]
    sampled = Sampler(model).sample(prompts, Sampling(max_new_tokens=4), seed=0)
    assert len(sampled) == 2
    assert model.encoder.prompt(Prompt.user("<|new|>")), "what people type is ordinary text"
    with pytest.raises(ModelError, match="no embedding"):
        load_model([str(tmp_path / "model")], ModelSettings(), prompt=PromptSettings(stop=("<|new|>",)))
