"""Reward models of the ecosystem whose head is not a decoder's: read as two segments, scored by their own forward.

The oracle is transformers itself: `model(**tokenizer(prompt, completion, return_tensors="pt"))`, one row at a time.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from small import SENTENCES, add_small_data, random_network, settings
from tokenizers import processors

from trueup import api, auditing
from trueup.cli.main import main
from trueup.config import ModelSettings, Objective, Scoring
from trueup.config.audit import AuditConfig
from trueup.engines.reward_scorer import RewardScorer
from trueup.errors import ModelError
from trueup.models.load import load_encoder, load_reward, new_reward, reads_last_token
from trueup.models.reward_model import ClassifierReward, SequenceReward
from trueup.records import Completion, Message, Prompt
from trueup.text.segments import SegmentEncoder
from trueup.text.tokenizer import train_tokenizer

PLAIN = ModelSettings(adapter="none", device="cpu")
ASKED = Prompt.user("the cat sat on a mat")
TALK = Prompt((Message("user", "the cat"), Message("assistant", "sat"), Message("user", "where?")))
TEXTS = ("the red house", "rain", "birds sang of rain in the old town " * 2, "a")
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
MARKS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
LETTERS = [*string.ascii_lowercase, *string.digits, *"?!.,[]"]


def deberta_tokenizer() -> Any:
    pieces = [(mark, 0.0) for mark in MARKS[:4]]
    return transformers.DebertaV2Tokenizer(
        vocab=[*pieces, ("▁", -2.0), ("▁the", -3.0), ("at", -3.0), *((c, -4.0) for c in LETTERS)], unk_id=3
    )


def bert_tokenizer() -> Any:
    words = [*MARKS, "the", "cat", *LETTERS, *(f"##{c}" for c in LETTERS)]
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def bytewise(*special: str, **names: str) -> Any:
    made = train_tokenizer(SENTENCES, 320, special)
    ids = {mark: made.token_to_id(mark) for mark in special}
    first, last = names["cls_token"], names["sep_token"]
    middle = f"{last} {last}" if first == "<s>" else last  # RoBERTa has two between the segments
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {middle} $B {last}", special_tokens=[*ids.items()]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_input_names=["input_ids", "attention_mask"], **names
    )


def roberta_tokenizer() -> Any:
    return bytewise("<s>", "<pad>", "</s>", cls_token="<s>", sep_token="</s>", eos_token="</s>", pad_token="<pad>")


def modernbert_tokenizer() -> Any:
    return bytewise("[PAD]", "[CLS]", "[SEP]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")


MODERN = {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2}
RELATIVE = {"relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}  # fmt: skip
FAMILIES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "DebertaV2": (deberta_tokenizer, {**RELATIVE, "type_vocab_size": 0}),
    "Bert": (bert_tokenizer, {}),
    "Roberta": (roberta_tokenizer, {"max_position_embeddings": 98, "type_vocab_size": 1}),
    "ModernBert": (modernbert_tokenizer, MODERN),
    "DistilBert": (bert_tokenizer, {}),
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Callable[..., Path]:
    """`classifier("Roberta")`: the folder of a classifier in the hub's layout, every weight of which matters."""
    made: dict[str, Path] = {}

    def save(family: str, **changes: Any) -> Path:
        key = json.dumps([family, changes], default=str, sort_keys=True)
        if key in made:
            return made[key]
        make, extra = FAMILIES[family]
        tokenizer = make()
        shape = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24} if family == "DistilBert" else SHAPE
        config = getattr(transformers, f"{family}Config")(
            vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id,
            **(shape | {"max_position_embeddings": 96, "num_labels": 1} | extra | changes),
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = transformers.AutoModelForSequenceClassification.from_config(config)
            for name, weight in network.named_parameters():
                around = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
                torch.nn.init.normal_(weight, mean=around, std=0.3)
        made[key] = folder = tmp_path_factory.mktemp(family)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


def theirs(folder: Path, prompt: str, text: str) -> torch.Tensor:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return network(**tokenizer(prompt, text, return_tensors="pt")).logits[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_transformers(classifier, family):
    """In one batch, with padding, beside other prompts: the same numbers as one row at a time."""
    folder = classifier(family)
    model = load_reward([str(folder)], PLAIN)
    assert isinstance(model, ClassifierReward) and isinstance(model.encoder, SegmentEncoder)
    other = Prompt.user("a dog")
    completions = [Completion(p, text) for p in (ASKED, other) for text in TEXTS]
    found = RewardScorer(model).score(completions)
    expected = [float(theirs(folder, c.prompt.text, c.text)) for c in completions]
    assert [score.value for score in found] == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_their_tokenizer(classifier, family):
    folder = classifier(family)
    encoder, tokenizer = load_encoder(str(folder), PLAIN, None), transformers.AutoTokenizer.from_pretrained(folder)
    for text in (*TEXTS, "", "Wörter 漢字 !!"):
        found = (*encoder.prompt(ASKED), *encoder.completion(ASKED, text))
        assert list(found) == tokenizer([ASKED.text], [text])["input_ids"][0], text


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mark_that_somebody_typed_is_text(classifier, family):
    """Else a completion could end its own segment, or begin another one."""
    encoder = load_encoder(str(classifier(family)), PLAIN, None)
    plain = encoder.completion(ASKED, "the cat")
    for mark in ("[SEP]", "[CLS]", "</s>", "<s>", "[PAD]", "<pad>"):
        tokens = encoder.completion(ASKED, f"the {mark} cat")
        assert sum(token in encoder._marks for token in tokens) == sum(token in encoder._marks for token in plain) == 1


def test_messages_of_a_conversation_stand_one_after_another(classifier):
    folder = classifier("Roberta")
    (found,) = RewardScorer(load_reward([str(folder)], PLAIN)).score([Completion(TALK, "here")])
    assert found.value == pytest.approx(float(theirs(folder, "the cat\n\nsat\n\nwhere?", "here")), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_context_is_filled_to_the_last_token_and_no_further(classifier, family):
    """RoBERTa counts positions from behind its pad id: 98 embeddings hold 96 tokens."""
    model = load_reward([str(classifier(family))], PLAIN)
    scorer, encoder = RewardScorer(model), model.encoder
    assert model.context == 96
    used = len(encoder.prompt(ASKED)) + len(encoder.completion(ASKED, ""))
    text = "?" * (96 - used)
    text = text[: len(text) - (len(encoder.completion(ASKED, text)) + len(encoder.prompt(ASKED)) - 96)]
    full, over = Completion(ASKED, text), Completion(ASKED, text + "?")
    assert scorer.fits(full) and not scorer.fits(over)
    assert scorer.score([full])[0].value == pytest.approx(float(theirs_of(model, full)), abs=1e-5)
    with pytest.raises(ModelError, match="whose context is 96"):
        scorer.score([over])
    scorer.cut = True
    assert scorer.score([over])[0].value == pytest.approx(scorer.score([full])[0].value, abs=1e-5), "its end stays"


def theirs_of(model: Any, completion: Completion) -> torch.Tensor:
    return theirs(Path(model.network.config._name_or_path), completion.prompt.text, completion.text)


def test_labels_have_to_be_named(classifier):
    folder = classifier("Roberta", num_labels=2, id2label={0: "hostile", 1: "kind"})
    model = load_reward([str(folder)], PLAIN)
    assert model.objectives == ("hostile", "kind")
    scorer = RewardScorer(model, scoring=Scoring(objectives=(Objective(name="kind"),)))
    assert scorer.score([Completion(ASKED, "rain")])[0].value == pytest.approx(
        float(theirs(folder, ASKED.text, "rain")[1]), abs=1e-5
    )


def test_a_chat_template_is_used_where_there_is_one(classifier, tmp_path):
    """One segment, as the template writes it, ended by [SEP]."""
    source, folder = classifier("ModernBert"), tmp_path / "with-template"
    network = transformers.AutoModelForSequenceClassification.from_pretrained(source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = (
        "[CLS]{% for m in messages %}{{ m.role + ': ' + m.content + '[SEP]' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (found,) = RewardScorer(load_reward([str(folder)], PLAIN)).score([Completion(TALK, "here")])
    talk = [{"role": m.role, "content": m.content} for m in TALK.messages] + [{"role": "assistant", "content": "here"}]
    rendered = tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        expected = network.eval()(input_ids=rendered["input_ids"], attention_mask=rendered["attention_mask"]).logits
    assert found.value == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("family", ("Llama", "GPT2", "Qwen2", "Mistral", "Gemma"))
def test_a_decoder_s_linear_head_goes_on_being_read_at_the_last_token(checkpoint, tmp_path, family):
    folder = checkpoint(family)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    network.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    model = load_reward([str(tmp_path)], PLAIN)
    assert isinstance(model, SequenceReward)
    encoder = model.encoder
    tokens = torch.tensor([[*encoder.prompt(ASKED), *encoder.completion(ASKED, "rain")]])
    (found,) = RewardScorer(model).score([Completion(ASKED, "rain")])
    assert found.value == pytest.approx(float(network(input_ids=tokens).logits.detach()), abs=1e-5)


def test_a_head_of_that_name_that_does_something_else_is_not_taken_for_one(checkpoint):
    """Nothing is concluded from a name: a head after a pooler, or one that reads the first token, is found out."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint("Llama"), num_labels=1).eval()
    assert reads_last_token(network)
    network.score.register_forward_hook(lambda module, given, made: made.flip(1))
    assert not reads_last_token(network)


# What is refused


def test_a_base_without_a_trained_head_is_refused(classifier, tmp_path):
    folder = classifier("Roberta")
    transformers.AutoModel.from_pretrained(folder).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="lacks weights of a RobertaForSequenceClassification: classifier"):
        load_reward([str(tmp_path)], PLAIN)


def test_it_is_no_base_to_train_on(workspace, classifier, tmp_path):
    add_small_data(workspace, tmp_path, prompts=6)
    folder = str(classifier("DebertaV2"))
    with pytest.raises(ModelError, match="it scores text and writes none"):
        api.reward(workspace, base=folder, data="preferences", config=settings("reward", steps=1))
    with pytest.raises(ModelError):
        new_reward("sequence", [folder], PLAIN)


def test_a_tokenizer_without_marks_for_two_texts_is_refused(classifier, tmp_path):
    folder = classifier("Roberta")
    transformers.AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path)
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(SENTENCES, 320), pad_token="<pad>")
    bare.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no marks around two texts"):
        load_reward([str(tmp_path)], PLAIN)


# In the commands and in RL


def test_it_is_scored_audited_put_in_an_ensemble_and_climbed(workspace, classifier, tmp_path, capsys):
    add_small_data(workspace, tmp_path, prompts=12)
    folder, quick = str(classifier("DebertaV2")), {"threads": 1, "tensorboard": False}
    (said,) = auditing.score(workspace, model=folder, completions=[Completion(ASKED, "rain")], threads=1)
    assert said["value"] == pytest.approx(float(theirs(Path(folder), ASKED.text, "rain")), abs=1e-5)
    found = auditing.audit(workspace, model=folder, data="preferences", config=AuditConfig(threads=1, probes=4))
    assert found["pairs"] and found["steady"]["alone"] < 1e-4
    other = str(classifier("DebertaV2", num_hidden_layers=1))
    jury = api.ensemble(workspace, [folder, other])
    (both,) = auditing.score(workspace, model=jury.id, completions=[Completion(ASKED, "rain")], threads=1)
    assert both["parts"]["spread"] > 0
    policy = tmp_path / "policy"
    random_network("Llama").save_pretrained(policy)
    names = {"eos_token": "<eos>", "pad_token": "<pad>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(SENTENCES, 320), **names).save_pretrained(
        policy
    )
    climb = {"steps": 1, "prompts_per_step": 2, "samples_per_prompt": 2, "sampling": {"max_new_tokens": 40}}
    api.rl(
        workspace, policy=str(policy), reward=folder, prompts="prompts", run=quick, guard={"evaluation_prompts": 2},
        **climb,
    )  # fmt: skip
    line = ["train", "rl", "--policy", str(policy), "--reward", folder, "--prompts", "prompts", "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main(["--workspace", str(workspace.path), *line])
    assert not ended.value.code, capsys.readouterr().err
