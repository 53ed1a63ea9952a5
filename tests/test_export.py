"""Exports open in plain transformers and PEFT and compute what the model in the workspace computes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from trueup import Prompt, Workspace, exporting, inputs, loading, wiring
from trueup.config import Architecture, ModelSettings, PromptSettings, RewardConfig, SftConfig
from trueup.engines.reward_scorer import RewardScorer
from trueup.errors import ModelError, TrueupError
from trueup.exporting import caution, export_model
from trueup.models.adapters import count_lora
from trueup.models.load import load_config, load_model, load_reward, new_model, new_reward, save_model, save_reward
from trueup.records import Completion, Judgement
from trueup.runs import Run
from trueup.text.chat import prompt_format
from trueup.text.tokenizer import EOS, PAD, train_tokenizer

torch.set_num_threads(1)
TINY = Architecture(hidden=32, layers=2, heads=2, mlp=48, vocabulary=300, context=128)
FULL, LORA = ModelSettings(adapter="none"), ModelSettings(adapter="lora", lora_rank=4, lora_alpha=6)
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}({{ m.content }}) {% elif m.role == 'user' %}Q {{ m.content }}"
    "{% else %} A{{ m.content }}{{ eos_token }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} A{% endif %}"
)
TEXTS = ["why is the sky blue", "because blue light scatters", "how", "it depends on many things"]


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "work") as made:
        yield made


@pytest.fixture
def base(ws):
    """A full model, its pad token declared to be EOS as so many are: trueup pads with another."""
    tokenizer = train_tokenizer(TEXTS * 5, TINY.vocabulary)
    format = prompt_format(tokenizer, PromptSettings(template=TEMPLATE, system="Be brief."), eos=EOS, pad=EOS)
    return put(
        ws, "model", lambda folder: save_model(new_model(TINY, tokenizer, format, 1), folder), {}, stage="pretrain"
    )


def put(ws, kind, save, parents, **meta):
    with ws.staging() as folder:
        save(folder)
        return ws.put(kind, folder, parents=parents, meta=meta)


def disturb(module, seed):
    """Stands for training: every weight that may learn moves."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module


def tuned(ws, below, seed, settings=LORA):
    """A model trained on `below`: an adapter, unless the settings ask for full weights."""
    model = disturb(load_model(wiring.chain(ws, below), settings, trainable=True, seed=seed), seed)
    is_adapter = model.adapter is not None
    return put(ws, "model", lambda f: save_model(model, f), {"base": below}, stage="sft", adapter=is_adapter)


def rewarding(ws, below, settings=LORA, kind="sequence"):
    model = disturb(new_reward(kind, wiring.chain(ws, below), settings, seed=3), 5)
    model.mean, model.std = [0.25], [1.5]
    is_adapter = getattr(model, "adapter", None) is not None
    parents, meta = {"base": below}, {"stage": "reward", "adapter": is_adapter, "scorer": kind}
    return put(ws, "reward", lambda f: save_reward(model, f), parents, **meta)


IDS = torch.tensor([[5, 40, 271, 9, 88, 123, 7, 260]]) % 270


@torch.no_grad()
def ours(ws, artifact):
    model = load_model(wiring.chain(ws, artifact), ModelSettings())
    return model.network(input_ids=IDS).logits


@torch.no_grad()
def theirs(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=IDS).logits


def differ(one, other):
    return float((one - other).abs().max()) > 0.05


# Language models


def test_a_full_model_opens_in_transformers_with_equal_logits_template_and_stop_tokens(ws, base, tmp_path):
    from transformers import AutoTokenizer, GenerationConfig

    full = tuned(ws, base, 1, FULL)
    folder = export_model(ws, full, tmp_path / "deep" / "out", merge=False)
    assert folder == tmp_path / "deep" / "out"
    assert torch.equal(theirs(folder), ours(ws, full)) and differ(theirs(folder), ours(ws, base))
    model = load_model([str(full.path)], FULL)
    prompt = Prompt.user(TEXTS[0])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": TEXTS[0]}]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == list(
        model.encoder.prompt(prompt)
    )
    config = GenerationConfig.from_pretrained(folder)
    assert {config.eos_token_id} == model.encoder.stop_ids and config.pad_token_id == model.encoder.pad_id
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]
    assert all(os.stat(p).st_mode & stat.S_IWUSR for p in folder.rglob("*")), "an export is the user's to change"
    assert [p.name for p in folder.parent.iterdir()] == ["out"], "nothing temporary is left"


def test_an_export_goes_back_into_trueup_unchanged(ws, base, tmp_path):
    folder = export_model(ws, base, tmp_path / "out", merge=False)
    again = inputs.resolve_model(ws, str(folder))
    assert torch.equal(ours(ws, again), ours(ws, base))
    assert wiring.chain(ws, again) == [str(folder)]
    assert load_model([str(folder)], FULL).encoder.format == load_model([str(base.path)], FULL).encoder.format


def test_several_stop_tokens_all_end_generation(ws, tmp_path):
    tokenizer = train_tokenizer(TEXTS * 5, 300, special=(PAD, "<end>", EOS))
    format = prompt_format(tokenizer, PromptSettings(stop=("<end>",)), eos=EOS, pad=PAD)
    model = put(ws, "model", lambda folder: save_model(new_model(TINY, tokenizer, format, 1), folder), {})
    folder = export_model(ws, model, tmp_path / "out", merge=False)
    config = json.loads((folder / "generation_config.json").read_text())
    assert config["eos_token_id"] == [1, 2] and config["pad_token_id"] == 0


def test_a_merged_adapter_opens_in_transformers_with_equal_logits(ws, base, tmp_path):
    adapter = tuned(ws, base, 1)
    folder = export_model(ws, adapter, tmp_path / "out", merge=True)
    torch.testing.assert_close(theirs(folder), ours(ws, adapter), atol=1e-5, rtol=1e-5)
    assert differ(theirs(folder), ours(ws, base)) and not (folder / "adapter_config.json").exists()
    assert len({p.stat().st_mode for p in folder.iterdir()}) == 1, "weights may be read by whoever may read the card"
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def with_peft(base_folder, folder):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), folder).eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits, model


def test_an_adapter_opens_in_peft_with_equal_logits(ws, base, tmp_path):
    adapter = tuned(ws, base, 1)
    below = export_model(ws, base, tmp_path / "base", merge=False)
    folder = export_model(ws, adapter, tmp_path / "out", merge=False, base=str(below))
    logits, model = with_peft(base.path, folder)
    torch.testing.assert_close(logits, ours(ws, adapter), atol=1e-5, rtol=1e-5)
    assert differ(logits, ours(ws, base))
    torch.testing.assert_close(theirs(folder), logits, atol=1e-5, rtol=1e-5)  # it finds its base by itself
    assert (folder / "tokenizer.json").is_file() and not (folder / "config.json").exists()
    assert model.peft_config["default"].base_model_name_or_path == str(below)
    assert f"Its base is `{below}`" in (folder / "README.md").read_text() and caution(folder) == ""


def test_an_adapter_on_a_model_of_the_workspace_is_not_exported_without_a_base_that_others_find(ws, base, tmp_path):
    adapter = tuned(ws, base, 1)
    with pytest.raises(ModelError, match=f"sits on {base.id}, which is in the workspace") as caught:
        export_model(ws, adapter, tmp_path / "out", merge=False)
    assert "--merge" in caught.value.hint and "--base DIR" in caught.value.hint
    for artifact, merge in ((adapter, True), (base, False)):
        with pytest.raises(TrueupError, match="has no base to name"):
            export_model(ws, artifact, tmp_path / "out", merge=merge, base="owner/name")
    assert not (tmp_path / "out").exists()
    folder = export_model(ws, adapter, tmp_path / "out", merge=False, base="owner/name")
    assert header((folder / "README.md").read_text())["base_model"] == "owner/name"


def test_adapters_on_adapters_are_joined_exactly(ws, base, tmp_path):
    """Three of them, of different rank and scale."""
    first = tuned(ws, base, 1)
    second = tuned(ws, first, 2, ModelSettings(adapter="lora", lora_rank=3, lora_alpha=10))
    third = tuned(ws, second, 3, ModelSettings(adapter="lora", lora_rank=1, lora_alpha=0.5))
    assert len(wiring.chain(ws, third)) == 4
    folder = export_model(ws, third, tmp_path / "out", merge=False, base="owner/name")
    logits, model = with_peft(base.path, folder)
    torch.testing.assert_close(logits, ours(ws, third), atol=2e-5, rtol=1e-5)
    assert differ(logits, ours(ws, second)) and differ(ours(ws, second), ours(ws, first))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 8) and model.peft_config["default"].r == 8
    merged = export_model(ws, third, tmp_path / "merged", merge=True)
    torch.testing.assert_close(theirs(merged), logits, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": True}, "use_rslora"),
        ({"rank_pattern": {"q": 2}}, "rank_pattern"),
    ],
)
def test_adapters_that_do_not_add_up_are_refused_with_a_way_out(changed, why):
    plain = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "bias": "none"}
    tensors = {"q.lora_A.weight": torch.ones(1, 2), "q.lora_B.weight": torch.ones(2, 1)}
    with pytest.raises(ModelError, match=why) as caught:
        exporting.join_adapters([plain, plain | changed], [tensors, tensors])
    assert "--merge" in caught.value.hint
    other = {name.replace("q", "k"): tensor for name, tensor in tensors.items()}
    with pytest.raises(ModelError, match="different layers"):
        exporting.join_adapters([plain, plain], [tensors, other])
    with pytest.raises(ModelError, match="not a plain LoRA matrix"):
        exporting.join_adapters([plain, plain], [tensors | {"q.magnitude": torch.ones(2)}] * 2)


def test_an_adapter_on_a_model_from_elsewhere_names_it(ws, base, tmp_path):
    elsewhere = export_model(ws, base, tmp_path / "elsewhere", merge=False)
    adapter = tuned(ws, inputs.resolve_model(ws, str(elsewhere)), 1)
    folder = export_model(ws, adapter, tmp_path / "out", merge=False)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(elsewhere) and caution(folder) == ""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder).eval()  # finds its base by itself
    with torch.no_grad():
        torch.testing.assert_close(network(input_ids=IDS).logits, ours(ws, adapter), atol=1e-5, rtol=1e-5)
    card = (folder / "README.md").read_text()
    assert f"Its base is `{elsewhere}`" in card and "base_model:" not in card, "a path is no model on the hub"


def test_what_is_stored_of_an_adapter_depends_neither_on_where_its_base_lay_nor_on_chance(ws, base):
    stored = json.loads((tuned(ws, base, 1).path / "adapter_config.json").read_text())
    assert stored["base_model_name_or_path"] is None
    assert stored["target_modules"] == sorted(stored["target_modules"]) and len(stored["target_modules"]) == 14


def test_lora_is_counted_as_it_is_made(ws, base):
    model = load_model([str(base.path)], FULL)
    learnt = load_model([str(base.path)], LORA, trainable=True)
    assert count_lora(model.network, 4) == sum(p.numel() for p in learnt.parameters() if p.requires_grad) > 0


# Reward models


def pairs():
    prompts = [Prompt.user(text) for text in TEXTS]
    return [Completion(p, text, finished=not text.startswith("how")) for p in prompts for text in TEXTS]


def raw_scores_in_transformers(folder, completions):
    """As somebody without trueup would do it: template, tokenizer, a batch padded by it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = []
    for completion in completions:
        messages = [{"role": "user", "content": completion.prompt.text}]
        start = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        texts.append(start + completion.text + (EOS if completion.finished else ""))
    inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    assert (inputs["attention_mask"] == 0).any(), "the batch must be padded to prove anything"
    with torch.no_grad():
        return model(**inputs).logits[:, 0]


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_a_reward_model_opens_as_a_classifier_with_the_same_raw_scores(settings, ws, base, tmp_path):
    below = tuned(ws, base, 7) if settings is LORA else base  # so that its chain holds another adapter
    reward = rewarding(ws, below, settings)
    folder = export_model(ws, reward, tmp_path / "out", merge=False)
    completions = pairs()
    expected = RewardScorer(load_reward(wiring.chain(ws, reward), ModelSettings())).raw(completions)[:, 0]
    assert float(expected.std()) > 0.1
    found = raw_scores_in_transformers(folder, completions)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert json.loads((folder / "tokenizer_config.json").read_text())["pad_token"] == PAD, "not EOS: it is read there"
    assert json.loads((folder / "reward_model.json").read_text())["mean"] == 0.25


def test_a_reward_model_without_a_pad_token_to_spare_has_none_in_its_export(ws, base, tmp_path):
    """Padding with EOS would have transformers read the score in the padding."""
    tokenizer = train_tokenizer(TEXTS * 5, 300, special=(EOS,))
    format = prompt_format(tokenizer, PromptSettings(), eos=EOS, pad=EOS)
    below = put(ws, "model", lambda folder: save_model(new_model(TINY, tokenizer, format, 1), folder), {})
    folder = export_model(ws, rewarding(ws, below), tmp_path / "out", merge=False)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    assert "one text at a time" in (folder / "README.md").read_text()


def test_a_features_reward_model_is_copied_and_says_that_others_cannot_open_it(ws, base, tmp_path):
    reward = rewarding(ws, base, kind="features")
    folder = export_model(ws, reward, tmp_path / "out", merge=True)
    completions = pairs()
    one, other = (RewardScorer(load_reward([str(f)], ModelSettings())).raw(completions) for f in (folder, reward.path))
    assert torch.equal(one, other)
    assert "only trueup opens it" in caution(folder)
    card = (folder / "README.md").read_text()
    assert "**Other software cannot open this folder.**" in card and "library_name: trueup" in card


# The card


def header(card):
    """The YAML at its top, of which the card uses `key: value` and one list."""
    top = card.split("---\n")[1]
    tags = re.findall(r"^- (.+)$", top, re.M)
    return dict(re.findall(r"^(\w+): (.+)$", top, re.M)) | {"tags": tags}


def by_a_run(ws, stage, config, inputs, make, result):
    with Run.start(ws, stage, config.model_dump(mode="json"), inputs, seed=11) as run:
        artifact = make()
        run.output("model", artifact)
        run.finish(result)
    return artifact


def judged_by(ws, source, number):
    prompt = Prompt.user("p")
    rows = [Judgement(prompt, (f"a{i}", "b"), (0, 1), "someone", source).to_json() for i in range(number)]
    return loading.put_records(ws, "preferences", rows, source="votes.jsonl")


def test_a_card_tells_what_it_is_where_it_comes_from_and_how_it_was_made(ws, base, tmp_path):
    data = loading.put_records(ws, "demonstrations", [{"x": 1}], source="demos.jsonl")
    made = by_a_run(
        ws,
        "sft",
        SftConfig(steps=7),
        {"base": base, "data": data},
        lambda: tuned(ws, base, 1),
        {"heldout_loss": 1.23456},
    )
    ws.set_name("my-sft", made)
    card = (export_model(ws, made, tmp_path / "out", merge=True) / "README.md").read_text()
    assert header(card) | {"tags": None} == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "license": "unknown", "tags": None,
    }  # fmt: skip
    assert header(card)["tags"] == ["trueup", "rlhf", "sft"]
    assert "\n# my-sft\n" in card and made.id in card and "merged into its base" in card
    assert "(Be brief.) Q What makes bread rise? A\n```" in card and f"ends with `{EOS}`" in card
    assert ws.lineage(made).text() in card and "from: demos.jsonl" in card
    assert "steps = 7" in card and "seed 11" in card and "| heldout_loss | 1.235 |" in card
    assert "No judgements went into it." in card and "simulated" not in card
    assert str(tmp_path) not in card and str(Path.home()) not in card


def test_a_card_says_when_the_people_were_simulated(ws, base, tmp_path):
    def card(*sources):
        data = {f"data{i}": judged_by(ws, *source) for i, source in enumerate(sources)}
        config = RewardConfig(epochs=len(data))
        reward = by_a_run(ws, "reward", config, {"base": base, **data}, lambda: rewarding(ws, base), {"accuracy": None})
        folder = tmp_path / "-".join(source for source, _ in sources)
        return (export_model(ws, reward, folder, merge=False) / "README.md").read_text()

    only = card(("simulated", 1200))
    assert "| simulated | 1,200 |" in only and "simulated people: programs, not persons" in only
    assert "| accuracy | unknown |" in only and "taste and the errors of its judges" in only


def test_a_card_with_judgements_of_people_and_programs_counts_both(ws, base, tmp_path):
    data = {"a": judged_by(ws, "simulated", 3), "b": judged_by(ws, "human", 4)}
    reward = by_a_run(ws, "reward", RewardConfig(), {"base": base, **data}, lambda: rewarding(ws, base), {})
    card = (export_model(ws, reward, tmp_path / "out", merge=False) / "README.md").read_text()
    assert "| simulated | 3 |" in card and "| human | 4 |" in card
    assert "No person gave them." in card and "programs, not persons" not in card


def test_the_hub_is_told_the_base_only_when_it_is_on_the_hub(ws, base, tmp_path, monkeypatch):
    elsewhere = export_model(ws, base, tmp_path / "elsewhere", merge=False)
    adapter = tuned(ws, inputs.resolve_model(ws, str(elsewhere)), 1)
    full = tuned(ws, adapter, 2, FULL)
    on_full = tuned(ws, full, 3)
    monkeypatch.setattr(exporting, "_source", lambda artifact: "owner/it-1.5" if artifact.kind == "external" else "")

    def told(artifact, below=""):
        card = (export_model(ws, artifact, tmp_path / artifact.id, merge=False, base=below) / "README.md").read_text()
        assert ("Training began with `owner/it-1.5`." in card) == (artifact is not adapter)
        found = header(card)
        return found["library_name"], found["base_model"], found["base_model_relation"]

    assert told(adapter) == ("peft", "owner/it-1.5", "adapter")
    assert told(full) == ("transformers", "owner/it-1.5", "finetune")
    assert told(on_full, "./full") == ("peft", "owner/it-1.5", "finetune"), "what it sits on is not on the hub"


def index(card):
    """The hub's table of results, read as the hub reads it."""
    return yaml.safe_load(card.split("---\n")[1]).get("model-index")


def judged_run(ws, stage, inputs, result):
    run = Run.start(ws, stage, {}, inputs, seed=0)
    run.finish(result)
    return run


def test_a_card_without_an_evaluation_says_so(ws, base, tmp_path):
    other = tuned(ws, base, 3)
    judged_run(ws, "winrate", {"a": other, "b": tuned(ws, base, 4)}, {"value": 0.9, "ci": [0.8, 0.95], "n": 90})
    with pytest.raises(RuntimeError), Run.start(ws, "winrate", {}, {"a": base, "b": other}, seed=0):
        raise RuntimeError("the server is gone")
    card = (export_model(ws, base, tmp_path / "out", merge=False) / "README.md").read_text()
    assert "No evaluation of it is in the workspace that it comes from." in card and "nothing was measured" in card
    assert index(card) is None and "90.0%" not in card, "neither others' results nor runs that failed"


def test_a_card_tells_who_won_against_whom_judged_by_whom(ws, base, tmp_path):
    model, rival, hostile = tuned(ws, base, 1), tuned(ws, base, 2), tuned(ws, base, 5)
    ws.set_name("sft", rival)
    wrote = ws.put("completions", {"rows.jsonl": b"{}"}, parents={"model": model})
    asked = ws.put("prompts", {"prompts.jsonl": b"{}"})
    ws.set_name("heldout", asked)
    equal = {"value": 0.55, "ci": [0.45, 0.65], "n": 200}
    won = {"value": 0.25, "ci": [0.2, 0.3], "n": 200, "verdict": "b", "length_controlled": equal, "slices": []}
    bad = 'm": [x]\n- y | z <img src=x> \u2028\u202e'
    judge = {"kind": "model", "id": hostile.id, "model": f"http://h/v1#{bad}"}
    people = {"kind": "verdicts", "id": "v", "sources": {"human": 1200}, "judges": 3}
    result = {"models": [rival.id, f"{wrote.id}, greedy"], "missing": {}, "findings": [], **won}
    judged_run(ws, "winrate", {"a": rival, "b": wrote, "prompts": asked, "asked": hostile}, {**result, "judge": judge})
    table = [{"model": rival.id}, {"model": model.id, "won": {**won, "value": 0.8, "ci": [0.7, 0.9], "verdict": "a"}}]
    told = {"models": table, "judge": people, "prompts": 200, "dropped": 0, "findings": []}
    judged_run(ws, "compare", {"a": rival, "other.1": model, "prompts": asked}, told)
    refused = {"refused": 0.875, "ci": [0.7, 0.95], "n": 40, "partly": 1}
    about = {"model": model.id, "labels": {"unsafe": refused}, "categories": [], "unread": 0, "unfinished": 0}
    safe = {"models": [about], "changed": {}, "judge": {"kind": "rules"}, "findings": [], "unlabelled": 0, "dropped": 0}
    judged_run(ws, "safety", {"model": model, "prompts": asked}, safe)
    card = (export_model(ws, model, tmp_path / "out", merge=True) / "README.md").read_text()
    assert "| sft | 75.0% | 70.0 to 80.0% | 200 | 45.0% |" in card, "seen from this model, whichever was named first"
    assert "| sft | 80.0% | 70.0 to 90.0% | 200 | 55.0% |" in card
    assert "| unsafe | 87.5% | 70.0 to 95.0% | 40 |" in card and "refused 87.5% of 40 unsafe requests" in card
    assert "Judged by three judges: 1,200 human judgements." in card and "asked in both orders" in card
    assert "<img" not in card.split("---\n", 2)[2] and "\u202e" not in card
    assert "no more was measured than is said above" in card
    (found,) = index(card)
    assert found["name"] == model.id
    metrics = [(each["dataset"]["name"], *each["metrics"]) for each in found["results"]]
    assert [(where, m["type"], m["value"], m["args"]["n"]) for where, m in metrics] == [
        ("heldout", "win-rate", 0.75, 200), ("heldout", "win-rate", 0.8, 200), ("heldout", "refusal-rate", 0.875, 40),
    ]  # fmt: skip
    assert metrics[0][1]["args"] == {"n": 200, "ci_low": 0.7, "ci_high": 0.8}
    assert 'm": [x] - y | z <img src=x>' in metrics[0][1]["name"] and "against sft, ties half" in metrics[0][1]["name"]


@pytest.mark.parametrize("failed", [[], ["length"]])
def test_a_card_tells_the_audit_of_a_reward_model_and_of_what_learnt_from_it(failed, ws, base, tmp_path):
    reward = rewarding(ws, base)
    conditions = [{"name": "length", "met": not failed, "value": 0.1, "limit": 0.2, "why": "length alone explains 10%"}]
    words = "It agrees with 70.0% of 300 judged pairs (65.0% to 75.0%)."
    accuracy = {"value": 0.7, "ci": [0.65, 0.75], "n": 300}
    audit = {"headline": words, "gate": {"conditions": conditions}, "accuracy": accuracy}
    stored = {"result.json": json.dumps(audit).encode()}
    ws.put("evaluation", stored, parents={"model": reward}, meta={"stage": "audit"})
    made = put(ws, "model", lambda folder: save_model(load_model([str(base.path)], FULL), folder),
               {"base": base, "reward": reward}, stage="rl")  # fmt: skip
    card = (export_model(ws, made, tmp_path / "rl", merge=False) / "README.md").read_text()
    assert "of this model itself that says nothing" in card and "agrees with 70.0% of 300" in card
    assert f"| length | {'failed' if failed else 'met'} | length alone explains 10% |" in card
    assert "No evaluation of it is in the workspace" in card and index(card) is None
    card = (export_model(ws, reward, tmp_path / "reward", merge=False) / "README.md").read_text()
    (result,) = index(card)[0]["results"]
    assert (result["task"]["type"], result["metrics"][0]["value"]) == ("text-classification", 0.7)
    assert "No evaluation" not in card and "It agrees with 70.0%" in card


def test_a_card_leaves_out_what_only_watches_a_run(ws, base, tmp_path):
    result = {"heldout_score": 1.5, "ratio_gap": 1e-6, "drift": 0.01, "objectives": {"kind": {"accuracy": 0.75}}}
    made = by_a_run(ws, "sft", SftConfig(), {"base": base}, lambda: tuned(ws, base, 1), result)
    card = (export_model(ws, made, tmp_path / "out", merge=True) / "README.md").read_text()
    assert "| heldout_score | 1.5 |" in card and "| objectives.kind.accuracy | 0.75 |" in card
    assert "ratio_gap" not in card and "drift" not in card


@pytest.mark.parametrize("form", ["model", "adapter", "reward"])
def test_the_code_on_a_card_runs(form, ws, base, tmp_path):
    elsewhere = export_model(ws, base, tmp_path / "elsewhere", merge=False)
    below = inputs.resolve_model(ws, str(elsewhere))
    artifact = {"model": base, "adapter": tuned(ws, below, 1), "reward": rewarding(ws, below)}[form]
    folder = export_model(ws, artifact, tmp_path / "out", merge=False)
    code = (folder / "README.md").read_text().split("```python\n")[1].split("\n```")[0]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace('folder = "."', f"folder = {str(folder)!r}"), {})
    if form == "reward":
        from trueup.model_card import EXAMPLE, REPLY

        model = load_reward(wiring.chain(ws, artifact), ModelSettings())
        expected = RewardScorer(model).score([Completion(EXAMPLE, REPLY)])[0].value
        assert float(printed.getvalue()) == pytest.approx(expected, abs=1e-4)


# What must not happen


@pytest.mark.parametrize("there", ["file in it", "file"])
def test_an_export_never_mixes_with_what_is_there(there, ws, base, tmp_path):
    out = tmp_path / "out"
    mine = out if there == "file" else out / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("precious")
    with pytest.raises(TrueupError, match="is a file" if there == "file" else "is not empty"):
        export_model(ws, base, out, merge=False)
    assert mine.read_text() == "precious"


def test_an_empty_folder_is_taken(ws, base, tmp_path):
    (tmp_path / "out").mkdir()
    assert (export_model(ws, base, tmp_path / "out", merge=False) / "README.md").is_file()


def test_an_export_that_fails_leaves_nothing(ws, base, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "model_card", fail)
    with pytest.raises(TrueupError, match="no space left"):
        export_model(ws, base, tmp_path / "exports", merge=False)
    assert [p.name for p in tmp_path.iterdir()] == ["work"]


def test_data_is_not_exported(ws, tmp_path):
    with pytest.raises(ModelError, match="not a model"):
        export_model(ws, judged_by(ws, "human", 1), tmp_path / "out", merge=False)
    assert not (tmp_path / "out").exists()


# Loading: weights that are not there are an error, not random numbers


def test_a_language_model_is_not_mistaken_for_a_reward_model(ws, base):
    with pytest.raises(ModelError, match=r"lacks weights .* score.weight"):
        load_reward([str(base.path)], ModelSettings())


def test_a_model_with_a_missing_layer_is_refused(ws, base, tmp_path):
    folder = export_model(ws, base, tmp_path / "out", merge=False)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="layers.1.mlp.up_proj"):
        load_model([str(folder)], FULL)


def test_an_adapter_is_not_mistaken_for_a_whole_model(ws, base, tmp_path):
    folder = export_model(ws, tuned(ws, base, 1), tmp_path / "out", merge=False, base="owner/name")
    with pytest.raises(ModelError, match="PEFT adapter"):
        load_config(str(folder), FULL)
    with pytest.raises(ModelError, match="PEFT adapter") as caught:
        load_model([str(folder)], FULL)
    assert "merge" in caught.value.hint
