"""A dry run finds mistakes, counts memory from configs alone, writes nothing and loads no weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from trueup import Prompt, Workspace, api, loading, planning, wiring
from trueup.config import Architecture, ModelSettings, PromptSettings, Sampling, load
from trueup.errors import ConfigError, ModelError, NotFoundError, TrueupError
from trueup.memory import Lengths, Shape, estimate, measure
from trueup.models.device import Placement
from trueup.models.load import load_config, load_model, load_reward, new_model, new_reward, save_model, save_reward
from trueup.models.value import ValueHead
from trueup.planning import describe_environment, plan_stage
from trueup.records import Completion, Judgement
from trueup.runs import run as run_module
from trueup.text.chat import prompt_format
from trueup.text.tokenizer import EOS, PAD, train_tokenizer
from trueup.train.optimizers import Optimizer

torch.set_num_threads(1)
TINY = Architecture(hidden=32, layers=2, heads=4, mlp=48, vocabulary=300, context=128)
FULL, LORA = ModelSettings(adapter="none"), ModelSettings(adapter="lora", lora_rank=4)


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "work") as made:
        yield made


@pytest.fixture
def base(ws):
    tokenizer = train_tokenizer(["a prompt and its answer"] * 5, 300)
    format = prompt_format(tokenizer, PromptSettings(), eos=EOS, pad=PAD)
    return put(ws, "model", lambda folder: save_model(new_model(TINY, tokenizer, format, 1), folder), {})


def put(ws, kind, save, parents, **meta):
    with ws.staging() as folder:
        save(folder)
        return ws.put(kind, folder, parents=parents, meta=meta)


@pytest.fixture
def demos(ws):
    rows = [{"prompt": Prompt.user("x" * 31).to_json(), "completion": c} for c in ("y" * 14, "z")]
    return loading.put_records(ws, "demonstrations", rows)


@pytest.fixture
def votes(ws):
    rows = [Judgement(Prompt.user("x" * 30), ("aaa", c), (0, 1), "j", "human").to_json() for c in ("bbb", "ccc", "bbb")]
    return loading.put_records(ws, "preferences", rows)


@pytest.fixture
def posts(ws):
    return loading.put_records(ws, "prompts", [Prompt.user("x" * 60).to_json(), Prompt.user("short").to_json()])


def rewarding(ws, base, kind, settings=FULL):
    model = new_reward(kind, wiring.chain(ws, base), settings)
    meta = {"scorer": kind, "adapter": getattr(model, "adapter", None) is not None}
    return put(ws, "reward", lambda folder: save_reward(model, folder), {"base": base}, **meta)


def memory(plan):
    return {part["part"]: part["bytes"] for part in plan["memory"]}


def real_bytes(module):
    return sum(p.numel() * p.element_size() for p in {id(p): p for p in module.parameters()}.values())


# What it says


def test_a_plan_has_the_config_the_inputs_what_is_made_and_its_memory(ws, base, demos):
    config = load("sft", sets=["steps=3", "model.adapter=none"])
    plan = plan_stage(ws, "sft", {"base": base.id[:8], "data": demos.id}, config)
    assert plan["config"] == config.model_dump(mode="json")
    assert plan["inputs"] == {
        "base": {"kind": "model", "id": base.id},
        "data": {"kind": "demonstrations", "id": demos.id, "rows": 2},
    }
    assert plan["makes"] == [{"kind": "model", "parents": {"base": base.id, "data": demos.id}, "adapter": False}]
    assert list(memory(plan)) == [
        *("weights", "gradients", "optimizer", "activations", "workspace", "logits", "allocator", "checkpoint"),
        "process",
    ]
    always = sum(part["bytes"] for part in plan["memory"] if "when" not in part)
    update = sum(part["bytes"] for part in plan["memory"] if part.get("when") == "update")
    step = memory(plan)["gradients"]
    assert plan["memory_total"]["bytes"] == always + max(update, step), "what is not there at once is not added up"
    assert plan["memory_available"]["bytes"] > 2**30
    assert all(part["how"] for part in plan["memory"]) and plan["memory"][0]["size"].endswith(" KiB")
    json.dumps(plan)


def test_weights_gradients_and_optimizer_are_what_training_really_holds(ws, base, demos):
    plan = plan_stage(ws, "sft", {"base": base.id, "data": demos.id}, load("sft", sets=["model.adapter=none"]))
    model = load_model([str(base.path)], FULL, trainable=True)
    stored = load_file(base.path / "model.safetensors")
    assert memory(plan)["weights"] == real_bytes(model) == sum(t.numel() * t.element_size() for t in stored.values())
    check_training(plan, model, load("sft").optimizer)


def check_training(plan, module, settings):
    """Gradients and optimizer state of a real step, but for the step counters."""
    optimizer = Optimizer([module], settings)
    for parameter in optimizer.named.values():
        parameter.grad = torch.ones_like(parameter)
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in optimizer.named.values())
    optimizer.step(1.0)
    state = sum(t.numel() * t.element_size() for t in optimizer.state().values() if t.ndim)
    assert (memory(plan)["gradients"], memory(plan)["optimizer"]) == (gradients, state)


def test_muon_keeps_one_number_a_hidden_matrix(ws, base, demos):
    plan = plan_stage(
        ws, "sft", {"base": base.id, "data": demos.id}, load("sft", sets=["model.adapter=none", "optimizer.name=muon"])
    )
    model = load_model([str(base.path)], FULL, trainable=True)
    check_training(plan, model, load("sft", sets=["optimizer.name=muon"]).optimizer)


@pytest.mark.parametrize(("stage", "optimizer"), [("sft", "adamw"), ("reward", "adamw"), ("reward", "muon")])
def test_lora_trains_the_adapter_only(stage, optimizer, ws, base, demos, votes):
    config = load(stage, sets=["model.adapter=lora", "model.lora_rank=4", f"optimizer.name={optimizer}"])
    plan = plan_stage(ws, stage, {"base": base.id, "data": (demos if stage == "sft" else votes).id}, config)
    chain = wiring.chain(ws, base)
    model = load_model(chain, LORA, trainable=True) if stage == "sft" else new_reward("sequence", chain, LORA)
    learnt = {id(p) for p in model.parameters() if p.requires_grad}
    assert plan["makes"][0]["adapter"] is True
    assert memory(plan)["adapter"] == sum(p.numel() * 4 for p in model.parameters() if id(p) in learnt)
    assert memory(plan)["weights"] + memory(plan)["adapter"] == real_bytes(model)
    check_training(plan, model, config.optimizer)


def test_an_adapter_is_planned_with_its_base_folded_in(ws, base, demos):
    tuned = load_model(wiring.chain(ws, base), LORA, trainable=True)
    adapter = put(ws, "model", lambda folder: save_model(tuned, folder), {"base": base}, adapter=True)
    config = load("sft")
    one, other = (plan_stage(ws, "sft", {"base": a.id, "data": demos.id}, config) for a in (base, adapter))
    assert one["memory"] == other["memory"]


@pytest.mark.parametrize("kind", ["sequence", "features"])
def test_a_reward_model_and_the_frozen_base_that_it_reads(kind, ws, base, votes):
    config = load("reward", sets=[f"kind={kind}", "model.adapter=none"])
    plan = plan_stage(ws, "reward", {"base": base.id, "data": votes.id}, config)
    found = memory(plan)
    model = new_reward(kind, wiring.chain(ws, base), FULL)
    assert found["weights"] + found.get("frozen base", 0) == real_bytes(model)
    assert ("frozen base" in found) == (kind == "features") and plan["makes"][0]["kind"] == "reward"
    check_training(plan, model, config.optimizer)


@pytest.mark.parametrize("kind", ["sequence", "features"])
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_rl_holds_policy_reference_reward_model_and_value_head(kind, adapter, ws, base, posts):
    reward = rewarding(ws, base, kind, LORA)
    config = load("rl", sets=[f"model.adapter={adapter}"])
    plan = plan_stage(ws, "rl", {"policy": base.id, "reward": reward.id, "prompts": posts.id}, config)
    found, weights = memory(plan), real_bytes(load_model([str(base.path)], FULL))
    assert found["weights"] == weights
    assert found["reference"] == (weights if adapter == "none" else 0), "with LoRA it is the policy, adapter off"
    policy = load_model([str(base.path)], LORA, trainable=True) if adapter == "lora" else None
    before = real_bytes(policy) if policy else 0
    loaded = load_reward(wiring.chain(ws, reward), FULL, beside=policy)
    added = real_bytes(policy) - before if policy else 0
    assert found["reward model"] == added + real_bytes(loaded), "an adapter on the policy's base, or a model"
    assert bool(added) == (adapter == "lora" and kind == "sequence")
    assert found["value head"] == 4 * real_bytes(ValueHead(32))
    assert ("adapter" in found) == ("kept while sampling" in found) == (adapter == "lora")
    assert plan["makes"] == [
        {
            "kind": "model",
            "parents": {"base": base.id, "reward": reward.id, "prompts": posts.id},
            "adapter": adapter == "lora",
        }
    ]


def test_what_lora_keeps_aside_while_sampling_is_what_it_sits_on(ws, base, posts):
    from peft.tuners.lora import LoraLayer

    network = load_model(wiring.chain(ws, base), LORA, trainable=True).network
    below = sum(real_bytes(m.get_base_layer()) for m in network.modules() if isinstance(m, LoraLayer))
    reward = rewarding(ws, base, "sequence")
    config = load("rl", sets=["model.adapter=lora"])
    plan = plan_stage(ws, "rl", {"policy": base.id, "reward": reward.id, "prompts": posts.id}, config)
    assert memory(plan)["kept while sampling"] == below > 0


def test_the_cache_is_what_a_real_one_holds(ws, base, posts):
    from transformers import DynamicCache

    config = load("sample", sets=["sampling.batch_size=3", "sampling.max_new_tokens=5"])
    plan = plan_stage(ws, "sample", {"model": base.id, "prompts": posts.id}, config)
    model, cache = load_model([str(base.path)], FULL), DynamicCache()
    with torch.no_grad():
        longest = len(model.encoder.prompt(Prompt.user("x" * 60)))
        model.network(input_ids=torch.zeros(3, longest + 5, dtype=torch.long), past_key_values=cache, use_cache=True)
    real = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    assert memory(plan).items() >= {"weights": real_bytes(model), "sampling cache": real}.items()
    assert list(memory(plan)) == ["weights", "sampling cache", "process"]
    assert plan["makes"][0]["kind"] == "completions" and "adapter" not in plan["makes"][0]


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_what_a_forward_pass_keeps_is_what_is_counted_without_weights(adapter, ws, base, demos):
    """Measured on real rows, of a real model, by what autograd puts aside."""
    config = load("sft", sets=["batch_size=6", f"model.adapter={adapter}"])
    plan = plan_stage(ws, "sft", {"base": base.id, "data": demos.id}, config)
    model = load_model([str(base.path)], config.model, trainable=True)
    prompt = Prompt.user("x" * 31)
    group = (model.encoder.prompt(prompt), [model.encoder.completion(prompt, text) for text in ("y" * 14, "z")])
    batch, kept = model.rows([group] * 6), {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(batch)
        states = sum(size for place, (size, _) in kept.items() if place not in own)
        model.logprobs(batch, hidden=hidden)
    both = sum(size for place, (size, _) in kept.items() if place not in own)
    assert memory(plan)["activations"] == pytest.approx(states, rel=0.1)
    assert both - states <= memory(plan)["logits"]


# Without weights


def test_a_config_alone_is_enough_and_nothing_is_written(ws, base, demos, tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "config.json").write_text((base.path / "config.json").read_text())
    before = [a.id for a in ws.artifacts()]
    plan = plan_stage(ws, "sft", {"base": str(tmp_path / "alone"), "data": demos.id}, load("sft"))
    whole = plan_stage(ws, "sft", {"base": base.id, "data": demos.id}, load("sft"))
    assert plan["memory"][:3] == whole["memory"][:3], "only what rows need is another guess"
    how = "bytes of the longest: there is no tokenizer at hand"
    assert plan["lengths"] == {
        "prompt": 31, "completion": 14, "completions": 2, "row": 31 + 14 + 1, "spread": 0.0, "how": how,
    }  # fmt: skip
    assert plan["inputs"]["base"] == {"kind": "external", "source": str(tmp_path / "alone")}
    assert [a.id for a in ws.artifacts()] == before, "a run would note the model from elsewhere; a plan only looks"


def big(tmp_path, **changes):
    """A model of 8 billion parameters, as far as its config goes."""
    (tmp_path / "big").mkdir()
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "big" / "config.json").write_text(json.dumps(config | changes))
    return str(tmp_path / "big")


def test_lengths_are_those_of_the_models_own_tokenizer(ws, base):
    """A long text of few tokens and a short one of many, found among more rows than are tokenised."""
    encoder = load_model([str(base.path)], FULL).encoder
    prompts = [
        Prompt.user(text) for text in ("a prompt and its answer " * 4, "\u96e8" * 40, *(f"p{i}" for i in range(90)))
    ]
    rows = [{"prompt": p.to_json(), "completion": "z" * (i % 7 + 1)} for i, p in enumerate(prompts)]
    data = loading.put_records(ws, "demonstrations", rows)
    plan = plan_stage(ws, "sft", {"base": base.id, "data": data.id}, load("sft"))
    longest = max(len(encoder.prompt(p)) for p in prompts)
    assert longest == len(encoder.prompt(prompts[1])) > 2 * len(encoder.prompt(prompts[0]))
    whole = [len(encoder.prompt(p)) + i % 7 + 2 for i, p in enumerate(prompts)]
    found = plan["lengths"]
    assert (found["prompt"], found["completions"]) == (longest, 1)
    assert found["completion"] == len(encoder.completion(prompts[0], "z" * 7))
    assert found["how"].startswith("tokens of the longest, among the 64 prompts of the most bytes; the mean row of")
    assert found["row"] == pytest.approx(sum(whole) / len(whole), rel=0.15) and found["spread"] > 0
    made = plan_stage(ws, "pretrain", {"data": data.id}, load("pretrain", sets=["architecture.vocabulary=300"]))
    assert 1 < made["lengths"]["prompt"] < longest, "of a tokenizer like the one that pretraining would make"


def test_a_large_model_is_counted_without_memory_and_gets_lora_by_itself(ws, demos, tmp_path):
    config = load("sft", sets=["model.dtype=bfloat16"])
    plan = plan_stage(ws, "sft", {"base": big(tmp_path), "data": demos.id}, config)
    assert plan["makes"][0]["adapter"] is True
    assert memory(plan)["weights"] == 8_030_261_248 * 2
    # 7 matrices a layer: rank x (in + out)
    a_layer = 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336))
    assert memory(plan)["adapter"] == 32 * a_layer * 4, "LoRA layers are float32 on a bfloat16 base"
    assert plan["memory"][0]["size"] == "15.0 GiB"


def test_only_the_trunk_of_a_reward_model_counts(ws, votes, tmp_path):
    config = load("reward", sets=["model.adapter=none"])
    plan = plan_stage(ws, "reward", {"base": big(tmp_path), "data": votes.id}, config)
    assert memory(plan)["weights"] == (8_030_261_248 - 128256 * 4096 + 4096) * 4
    assert plan["memory"][3]["how"].startswith("8 rows"), "a prompt with all its completions is one row"


def test_pretraining_is_counted_from_its_architecture(ws, demos):
    sets = ["architecture.hidden=32", "architecture.layers=2", "architecture.mlp=48", "architecture.vocabulary=300"]
    plan = plan_stage(ws, "pretrain", {"data": demos.id}, load("pretrain", sets=sets))
    expected = 300 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32
    assert memory(plan)["weights"] == expected * 4
    assert plan["makes"] == [{"kind": "model", "parents": {"data": demos.id}}]


def test_gpt2_has_other_names_for_everything():
    import transformers

    config = transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    found = measure(config, LORA)
    network = transformers.GPT2LMHeadModel(config)
    assert found == Shape(
        parameters=network.num_parameters(), head=0, matrices=2 * 12 * 32 * 32, lora=2 * 4 * 32 * (4 + 2 + 5 + 5),
        width=32, layers=2, mlp=128, cache=2 * 2 * 32, vocabulary=300, context=64,
        rows=2 * (3 * 32 + 32 + 4 * 32 + 32),
    )  # fmt: skip


def test_the_plan_of_a_hub_model_that_cannot_be_reached_says_so(ws, demos, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot read the config of 'nobody/nothing'") as caught:
        plan_stage(ws, "sft", {"base": "nobody/nothing", "data": demos.id}, load("sft"))
    assert "reachable or cached" in caught.value.hint


# Mistakes


@pytest.mark.parametrize(
    ("stage", "inputs", "error", "says"),
    [
        ("sft", {"base": "BASE", "data": "nonsense"}, NotFoundError, "no artifact 'nonsense'"),
        ("sft", {"base": "./nowhere", "data": "DEMOS"}, NotFoundError, "there is no folder ./nowhere"),
        ("winrate", {"a": "BASE", "b": "BASE", "prompts": "POSTS", "judge": "gold"}, TrueupError, "no gold score"),
        (
            "sft",
            {"base": "BASE", "data": "POSTS"},
            TrueupError,
            "is of kind 'prompts', but the input 'data' takes demo",
        ),
        ("sft", {"base": "REWARD", "data": "DEMOS"}, TrueupError, "'base' takes model or external"),
        ("sft", {"data": "DEMOS"}, ConfigError, "needs the input 'base'"),
        ("pretrain", {"data": "DEMOS", "base": "BASE"}, ConfigError, "has no input 'base'"),
        ("reward", {"base": "BASE", "data": "DEMOS"}, TrueupError, "takes preferences"),
        (
            "rl",
            {"policy": "BASE", "reward": "BASE", "prompts": "POSTS"},
            TrueupError,
            "'reward' takes reward or external",
        ),
        (
            "rl",
            {"policy": "BASE", "reward": "FOLDER", "prompts": "POSTS"},
            ModelError,
            "LlamaForCausalLM, not a reward",
        ),
        ("sft", {"base": "CLASSIFIER", "data": "DEMOS"}, ModelError, "scores text and writes none"),
    ],
)
def test_a_plan_finds_wrong_inputs(stage, inputs, error, says, ws, base, demos, posts, tmp_path):
    reward = rewarding(ws, base, "sequence")
    known = {
        "BASE": base.id, "DEMOS": demos.id, "POSTS": posts.id, "REWARD": reward.id, "FOLDER": str(base.path),
        "CLASSIFIER": str(reward.path),
    }  # fmt: skip
    with pytest.raises(error, match=says):
        plan_stage(ws, stage, {role: known.get(ref, ref) for role, ref in inputs.items()}, load(stage))


def test_a_reward_model_from_elsewhere_is_planned_with(ws, base, posts):
    reward = rewarding(ws, base, "sequence")
    plans = [
        plan_stage(ws, "rl", {"policy": base.id, "reward": ref, "prompts": posts.id}, load("rl"))
        for ref in (reward.id, str(reward.path))
    ]
    assert memory(plans[0]) == memory(plans[1])


def test_policy_and_reward_model_must_read_prompts_alike(ws, base, posts):
    tokenizer = train_tokenizer(["a prompt and its answer"] * 5, 300)
    format = prompt_format(tokenizer, PromptSettings(system="Other."), eos=EOS, pad=PAD)
    other = put(ws, "model", lambda folder: save_model(new_model(TINY, tokenizer, format, 1), folder), {})
    inputs = {"policy": base.id, "reward": rewarding(ws, other, "sequence").id, "prompts": posts.id}
    with pytest.raises(ModelError, match="different prompt formats"):
        plan_stage(ws, "rl", inputs, load("rl"))


def test_a_plan_refuses_what_the_run_would_only_find_out_while_loading(ws, base, demos, posts, tmp_path):
    inputs = {"base": base.id, "data": demos.id}
    with pytest.raises(ModelError, match="already has a prompt format, and prompt.system asks for another") as caught:
        plan_stage(ws, "sft", inputs, load("sft", sets=["prompt.system=Be brief."]))
    assert "drop the [prompt] settings" in caught.value.hint
    with pytest.raises(ModelError, match="max_tokens is 129, but the model's context is 128"):
        plan_stage(ws, "sft", inputs, load("sft", sets=["max_tokens=129"]))
    plan_stage(ws, "sft", inputs, load("sft", sets=["max_tokens=128"]))
    small = tmp_path / "small"
    shutil.copytree(base.path, small, copy_function=shutil.copyfile)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"vocab_size": 2}))
    with pytest.raises(ModelError, match="'<eos>' ends completions, but the model has no embedding for it"):
        plan_stage(ws, "sft", {"base": str(small), "data": demos.id}, load("sft"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_before_a_run_is_recorded(ws, base, demos):
    for call in (plan_stage, lambda ws, stage, inputs, config: api.sft(ws, **inputs, config=config)):
        with pytest.raises(ModelError, match="torch sees no GPU"):
            call(ws, "sft", {"base": str(base.path), "data": demos.id}, load("sft", sets=["model.device=cuda"]))
    assert not ws.run_rows() and not [a for a in ws.artifacts() if a.kind == "external"]


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_the_checkpoints_are_estimated_as_the_loop_reckons_them(adapter, ws, base, demos, monkeypatch):
    asked = []

    def check(path, size):
        asked.append(size)
        return size

    monkeypatch.setattr(run_module, "check_space", check)
    api.sft(ws, base=base, data=demos, steps=1, heldout=0.0, model={"adapter": adapter}, run={"tensorboard": False})
    assert len(asked) == 2 and asked[0] == asked[1] > 0


def test_a_config_of_another_stage_or_that_contradicts_itself_is_refused(ws, demos):
    with pytest.raises(ConfigError, match="takes a PretrainConfig"):
        plan_stage(ws, "pretrain", {"data": demos.id}, load("sft"))
    config = load("rl").model_copy(update={"sampling": Sampling(top_p=0.5)})
    with pytest.raises(ConfigError, match=r"sampling.top_p must be 1"):
        plan_stage(ws, "rl", {}, config)


def test_winrate_counts_the_larger_writer_and_the_judges(ws, base, posts, tmp_path):
    reward = rewarding(ws, base, "sequence")
    inputs = {"a": base.id, "b": base.id, "prompts": posts.id, "judge": reward.id, "reward": reward.id}
    plan = plan_stage(ws, "winrate", inputs, load("winrate", sets=["best_of=2"]))
    assert list(memory(plan)) == ["weights", "sampling cache", "judge", "reward model", "process"]
    rows = loading.completion_rows([Completion(Prompt.user("x"), "y")])
    written = loading.put_records(ws, "completions", rows)
    inputs = {"a": written.id, "b": written.id, "prompts": posts.id, "judge": reward.id}
    assert list(memory(plan_stage(ws, "winrate", inputs, load("winrate")))) == ["judge", "process"]


def test_large_logits_are_counted_in_chunks():
    import transformers

    made = transformers.LlamaConfig(
        vocab_size=128_000, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128,
        max_position_embeddings=4096,
    )  # fmt: skip
    config, placement = load("sft"), Placement(torch.device("cpu"), torch.float32, "")
    parts = estimate("sft", config, placement, {"base": measure(made, FULL)}, {}, Lengths(100, 2000))
    logits = next(part.bytes for part in parts if part.name == "logits")
    assert logits == 1024 * 128_000 * 12 < 16 * 2000 * 128_000 * 12


# The command and `trueup env`


def test_a_dry_run_on_the_command_line_loads_no_weights(ws, base, demos, tmp_path):
    """The weights are garbage: whoever opens them, fails."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text((base.path / "config.json").read_text())
    (folder / "model.safetensors").write_bytes(b"garbage")
    line = ["train", "sft", "--base", str(folder), "--data", demos.id, "--steps", "3", "--dry-run", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "trueup", "--workspace", str(ws.path), *line], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (
        plan["config"]["steps"] == 3
        and memory(plan)["weights"] == load_model([str(base.path)], FULL).network.num_parameters() * 4
    )
    assert len(ws.artifacts()) == 2


def test_the_environment_says_where_it_would_compute_and_why(ws, tmp_path, monkeypatch):
    found = describe_environment(ws.path)
    assert found["workspace"] == str(ws.path)
    assert {"trueup", "python", "torch", "transformers", "peft"} <= found["versions"].keys()
    assert found["device"] in ("cpu", "cuda") and found["dtype"] in ("float32", "bfloat16") and found["why"]
    assert found["threads"] >= 1 and found["memory"]["bytes"] > 2**28 and found["device_name"]
    assert set(found["extras"]) == {"lora", "data", "quant"} and found["extras"]["lora"] == "installed"
    assert describe_environment(tmp_path / "nowhere")["workspace"].startswith("none (")
    monkeypatch.setattr(planning, "find_spec", lambda name: None)
    assert describe_environment(ws.path)["extras"]["data"] == (
        "pyarrow, datasets not installed: pip install 'trueup[data]'"
    )


def test_config_of_a_path_that_does_not_exist_is_not_asked_of_the_hub():
    with pytest.raises(ModelError, match="no such model folder"):
        load_config("/nowhere/at/all", ModelSettings())
