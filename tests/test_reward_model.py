"""Reward models: where the score is read, what is learnt from judgements, and what is saved.

Oracles: transformers' own sequence classifier on one unpadded row, and the Bradley-Terry likelihood written out.
"""

from __future__ import annotations

import json
import math

import pytest
import torch

from trueup.algo import preference_loss, ranking_loss
from trueup.algo.scale import mean_and_std
from trueup.config import ModelSettings, Objective, OptimizerSettings, Scoring
from trueup.engines.reward_scorer import RewardScorer
from trueup.errors import ConfigError, ModelError
from trueup.evals.reward import evaluate_reward
from trueup.models.load import load_reward, new_reward, save_reward
from trueup.models.reward_model import SURPRISES, RewardModel
from trueup.models.rows import Group, Layout, lay_out
from trueup.records import Completion, Judgement, Prompt
from trueup.train.judged import Pair, judged, packed
from trueup.train.optimizers import Optimizer

PLAIN = ModelSettings(adapter="none", device="cpu")
LORA = ModelSettings(adapter="lora", lora_rank=4, device="cpu")
PAD = 0
GROUPS: list[Group] = [
    ((5, 11, 3, 7, 19), [(9, 30, 2), (4, 8, 8, 6, 2), (13, 2)]),
    ((21, PAD, 22), [(PAD, 24, PAD, 25)]),  # the pad id as ordinary text
    ((40,), [(41, PAD)]),  # and as the very last token
]
PROMPT = Prompt.user("the cat")
FAMILIES = ("Llama", "GPT2", "Qwen2")
KINDS = [("sequence", PLAIN), ("sequence", LORA), ("features", PLAIN)]


def flat(groups):
    return [(list(prompt), list(completion)) for prompt, completions in groups for completion in completions]


def raw(model: RewardModel, groups=GROUPS, layout: Layout | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model(lay_out(groups, model.pad_id, model.layout if layout is None else layout))


def disturbed(kind: str, folder, settings=PLAIN) -> RewardModel:
    """A reward model as after some training: everything that learns has moved."""
    model = new_reward(kind, [str(folder)], settings, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.mean, model.std = [0.7], [2.5]
    return model


def judgement(*texts: str, ranks=(1, 2), judge="ann", prompt=PROMPT, **meta) -> Judgement:
    return Judgement(prompt, texts, tuple(ranks), judge, "human", meta=meta)


# Where the score is read


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", (False, True))
def test_the_head_reads_the_last_real_token(checkpoint, family, shared):
    """Found by mask: looking for a pad id would stop too early in the second row and too late in the third."""
    model = disturbed("sequence", checkpoint(family)).double()
    found = raw(model, layout=Layout(shared))
    for score, (prompt, completion) in zip(found, flat(GROUPS), strict=True):
        with torch.no_grad():
            states = model.network.base_model(input_ids=torch.tensor([prompt + completion])).last_hidden_state
            assert float(score) == pytest.approx(float(states[0, -1] @ model.network.score.weight[0]), rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_reads_the_saved_model_alike(checkpoint, family, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model = disturbed("sequence", checkpoint(family))
    save_reward(model, tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    for score, (prompt, completion) in zip(raw(model), flat(GROUPS), strict=True):
        if PAD not in (*prompt, *completion):
            expected = theirs(input_ids=torch.tensor([prompt + completion])).logits.detach()
            assert expected.shape == (1, 1) and float(score) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("kind, settings", KINDS)
@pytest.mark.parametrize("other_pad", (1, 24, 2))
def test_the_pad_id_is_no_matter(checkpoint, kind, settings, other_pad):
    """Not even the EOS id, nor one that stands in the text."""
    model = disturbed(kind, checkpoint("Llama"), settings)
    scores = raw(model)
    model.pad_id = other_pad
    torch.testing.assert_close(raw(model), scores, rtol=1e-5, atol=1e-5)


def test_features_are_a_sum_over_tokens_and_the_base_s_surprise(checkpoint):
    """The head summed over completion tokens, plus statistics of how likely the frozen base finds each of them."""
    model = disturbed("features", checkpoint("Llama")).double()
    head, readout = model.token_head, model.readout.weight[0].detach()
    for score, (prompt, completion) in zip(raw(model), flat(GROUPS), strict=True):
        tokens, p = torch.tensor([prompt + completion]), len(prompt)
        states = model.trunk.network.get_decoder()(input_ids=tokens).last_hidden_state[0, p:]
        per_token = [float(states[t] @ head.weight[0] + head.bias[0]) for t in range(len(completion))]
        logits = model.base.network(input_ids=tokens).logits[0]
        surprise = [float(logits[p + t - 1].log_softmax(-1)[token]) for t, token in enumerate(completion)]
        soft_counts = [sum(1 / (1 + math.exp(-2 * (limit - s))) for s in surprise) for limit in SURPRISES]
        features = [sum(surprise) / 10, min(surprise) / 5, *soft_counts]
        expected = sum(per_token) / 10 + sum(float(w) * f for w, f in zip(readout, features, strict=True))
        assert float(score) == pytest.approx(expected, rel=1e-8)


# What is new, what learns


def test_first_scores_are_of_order_one(checkpoint):
    """The head starts as N(0, 1/(width + 1)): larger, and the first losses would be hundreds."""
    weights = [new_reward("sequence", [str(checkpoint("Llama"))], PLAIN, seed=s).network.score.weight for s in range(8)]
    assert float(torch.cat(weights).detach().std()) * math.sqrt(33) == pytest.approx(1, abs=0.15)
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("kind, settings", KINDS)
def test_what_learns(checkpoint, kind, settings):
    model = new_reward(kind, [str(checkpoint("Llama"))], settings)
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    heads = {id(p) for head in model.heads() for p in head.parameters() if p.requires_grad}
    assert heads, "the head always learns"
    assert not any(name.startswith("base.") for name in learns), "the base whose surprise is read stays frozen"
    of_trunk = {n for n, p in model.named_parameters() if p.requires_grad and id(p) not in heads}
    assert of_trunk and all("lora_" in name for name in of_trunk) == (settings is LORA)


@pytest.mark.parametrize("kind, settings", KINDS)
def test_the_head_has_a_learning_rate_of_its_own(checkpoint, kind, settings):
    model = new_reward(kind, [str(checkpoint("Llama"))], settings)
    optimizer = Optimizer([model, *model.heads()], OptimizerSettings(lr=1e-5), head_lr=1e-2)
    rates = {id(p): group["lr"] for part in optimizer.parts for group in part.param_groups for p in group["params"]}
    heads = {id(p) for head in model.heads() for p in head.parameters()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rates.pop(id(parameter)) == (1e-2 if id(parameter) in heads else 1e-5), name
    assert not rates, "every parameter once"


def test_no_second_copy_of_the_trunk(checkpoint):
    """The classifier is built around the very trunk it was given: a 7B model must not be in memory twice."""
    from trueup.models.load import classifier, load_model

    policy = load_model([str(checkpoint("Llama"))], PLAIN)
    network = classifier(policy.network, PAD)
    assert network.base_model is policy.network.get_decoder()
    assert all(p.device.type == "cpu" for p in network.parameters()), "nothing is left on the meta device"


# In and out of folders


@pytest.mark.parametrize("family", ("Llama", "GPT2"))
@pytest.mark.parametrize("kind, settings", KINDS)
def test_saved_and_loaded_it_gives_the_same_scores(checkpoint, family, kind, settings, tmp_path):
    model = disturbed(kind, checkpoint(family), settings)
    save_reward(model, tmp_path)
    chain = [str(checkpoint(family)), str(tmp_path)] if settings is LORA else [str(tmp_path)]
    again = load_reward(chain, PLAIN, source="abcd")
    torch.testing.assert_close(raw(again), raw(model), rtol=1e-4, atol=1e-4)
    assert (again.kind, again.mean, again.std, again.source) == (kind, [0.7], [2.5], "abcd")
    assert not any(p.requires_grad for p in again.parameters()) and not again.training
    assert json.loads((tmp_path / "reward_model.json").read_text())["format"] == "trueup-reward-model"
    if settings is LORA:
        size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
        assert size < 4 * sum(p.numel() for p in model.network.base_model.parameters()), "only the adapter and the head"


def test_a_classifier_made_elsewhere_is_a_reward_model(checkpoint, tmp_path):
    """Mean 0 and std 1 until somebody measures them."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = checkpoint("Qwen2")
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    model = load_reward([str(tmp_path)], PLAIN)
    scores = RewardScorer(model).score([Completion(PROMPT, "the red house"), Completion(PROMPT, "rain")])
    assert (model.mean, model.std) == ([0.0], [1.0]) and scores[0].value != scores[1].value


def test_a_classifier_with_labels_has_to_be_told_which_of_them_counts(checkpoint, tmp_path):
    """A good answer is not the sum of 'hostile' and 'kind'."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, names = checkpoint("Qwen2"), {0: "hostile", 1: "kind"}
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, id2label=names).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    model = load_reward([str(tmp_path)], PLAIN)
    assert model.objectives == ("hostile", "kind")
    with pytest.raises(ConfigError, match="hostile, kind"):
        RewardScorer(model)
    completions = [Completion(PROMPT, "rain"), Completion(PROMPT, "the red house")]
    scorer = RewardScorer(model, scoring=Scoring(objectives=(Objective(name="kind"),)))
    assert [s.value for s in scorer.score(completions)] == pytest.approx(scorer.raw(completions)[:, 1].tolist())
    with pytest.raises(ConfigError, match="did you mean 'kind'"):
        RewardScorer(model, scoring=Scoring(objectives=(Objective(name="kin"),)))


# As a scorer


@pytest.fixture
def scorer(checkpoint) -> RewardScorer:
    return RewardScorer(disturbed("sequence", checkpoint("Llama")))


def test_scores_are_shifted_and_scaled_by_the_stored_constants(scorer):
    completions = [Completion(PROMPT, text) for text in ("the red house", "rain", "a")]
    expected = (scorer.raw(completions)[:, 0] - 0.7) / 2.5
    assert [s.value for s in scorer.score(completions)] == pytest.approx(expected.tolist(), rel=1e-6)


def test_order_and_batch_size_do_not_matter(scorer):
    prompts = [PROMPT, Prompt.user("a dog ran to the red house"), Prompt.user("birds")]
    completions = [Completion(p, text) for p in prompts for text in ("the red house sat", "rain", "old")]
    whole = scorer.raw(completions)[:, 0].tolist()
    scorer.batch_size = 1
    assert scorer.raw(completions)[:, 0].tolist() == pytest.approx(whole, abs=1e-5)
    mixed = completions[::2] + completions[1::2]  # neighbours no longer share a prompt
    assert scorer.raw(mixed)[:, 0].tolist() == pytest.approx(whole[::2] + whole[1::2], abs=1e-5)
    assert scorer.score([]) == []


def test_text_that_was_cut_off_is_read_without_an_end(scorer):
    """The tokens of the policy mean nothing to it: it encodes the text itself, with EOS only if the text had ended."""
    encoder = scorer.model.encoder
    ended, cut = Completion(PROMPT, "rain", tokens=(1, 2, 3)), Completion(PROMPT, "rain", finished=False)
    prompt = encoder.prompt(PROMPT)
    tokens = encoder.completion(PROMPT, "rain")
    expected = raw(scorer.model, [(prompt, [tokens]), (prompt, [tokens[:-1]])])
    assert scorer.raw([ended, cut])[:, 0].tolist() == pytest.approx(expected[:, 0].tolist(), abs=1e-5)
    assert tokens[-1] == encoder.eos_id and abs(expected[0] - expected[1]) > 1e-3


def test_an_empty_completion_has_a_score_too(scorer):
    """A policy may say nothing, and may even be cut off before it has said anything."""
    scores = scorer.score([Completion(PROMPT, ""), Completion(PROMPT, "", finished=False)])
    assert all(math.isfinite(score.value) for score in scores)


def test_a_row_longer_than_the_model_reads_is_an_error(scorer):
    with pytest.raises(ModelError, match=r"\d+ tokens to the reward model, whose context is 96"):
        scorer.score([Completion(PROMPT, "rain"), Completion(PROMPT, "the old town " * 60)])


def test_in_rl_a_row_too_long_is_read_as_far_as_it_fits(scorer):
    """The policy counted its own tokens: what it wrote may be longer to another tokenizer, and must not end the run."""
    long = Completion(PROMPT, "the old town " * 60)
    scorer.cut = True
    cut, whole = scorer.raw([long, Completion(PROMPT, "rain")])[:, 0].tolist()
    prompt = scorer.model.encoder.prompt(PROMPT)
    tokens = scorer.model.encoder.completion(PROMPT, long.text)[: scorer.model.context - len(prompt)]
    assert cut == pytest.approx(float(raw(scorer.model, [(prompt, [tokens])])), abs=1e-5)
    assert scorer.cut_short == 1 and whole == pytest.approx(float(scorer.raw([Completion(PROMPT, "rain")])), abs=1e-5)


def test_a_constant_reward_model_is_right_exactly_half_of_the_time(scorer):
    """Ties are worth half: counting them as right or wrong would flatter or slander it."""
    torch.nn.init.zeros_(scorer.model.network.score.weight)
    judgements = [judgement(f"rain {i}", "the old town", ranks=(1 + i % 2, 2 - i % 2)) for i in range(31)]
    assert evaluate_reward(scorer, judgements)["accuracy"] == 0.5


# What is learnt from judgements


def test_the_loss_is_the_bradley_terry_likelihood():
    for i, j, target in [(0.3, -1.2, 1.0), (0.3, -1.2, 0.0), (2.0, 2.0, 0.5), (-40.0, 40.0, 0.7)]:
        p = 1 / (1 + math.exp(-(i - j)))
        expected = -(target * math.log(p) + (1 - target) * math.log1p(-p)) if abs(i - j) < 30 else 0.7 * 80
        found = preference_loss(*torch.tensor([i, j], dtype=torch.float64), target)
        assert float(found) == pytest.approx(expected, rel=1e-9)


def test_a_hard_choice_is_a_soft_one_of_certainty():
    a, b = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(preference_loss(a, b, torch.ones(50)), -torch.nn.functional.logsigmoid(a - b))
    torch.testing.assert_close(preference_loss(a, b, torch.zeros(50)), preference_loss(b, a, torch.ones(50)))


def test_a_ranking_is_the_mean_over_all_its_pairs():
    """InstructGPT's 1/C(K,2): a prompt with nine completions must not count 36 times one with two."""
    scores = torch.tensor([0.5, -0.3, 1.1, 0.0], dtype=torch.float64)
    pairs = judgement("a", "b", "c", "d", ranks=(2, 4, 1, 2)).pairs()
    assert len(pairs) == 6 and (0, 3, 0.5) in pairs
    expected = sum(float(preference_loss(scores[i], scores[j], t)) for i, j, t in pairs) / 6
    assert float(ranking_loss(scores, pairs)) == pytest.approx(expected, rel=1e-12)


def test_judgements_of_one_prompt_become_one_element(encoder):
    """Each distinct completion once, every judged pair kept: two people who disagree are two entries."""
    other = Prompt.user("birds")
    rows = [
        judgement("rain", "the old town", judge="ann"),
        judgement("the old town", "rain", judge="bob"),  # bob sees them the other way round, and prefers the town
        judgement("red", "rain", ranks=(2, 1)),
        judgement("rain", "the cat", prompt=other),
    ]
    (first, second), dropped = judged(encoder, rows, 96)
    texts = ["rain", "the old town", "red"]
    assert dropped == []
    assert first.group == (packed(encoder.prompt(PROMPT)), [packed(encoder.completion(PROMPT, t)) for t in texts])
    assert first.pairs == (Pair(0, 1, 1.0), Pair(1, 0, 1.0), Pair(2, 0, 0.0))
    assert second.group[0] == packed(encoder.prompt(other)) and second.pairs == (Pair(0, 1, 1.0),)


def test_cut_off_text_is_another_completion_than_the_same_text_ended(encoder):
    ((only,), _) = judged(encoder, [judgement("rain", "rain", finished=[True, False])], 96)
    ended, cut = only.group[1]
    assert [*ended] == [*cut, encoder.eos_id] and only.pairs == (Pair(0, 1, 1.0),)


def test_what_cannot_be_learnt_from_is_left_out(encoder):
    """Equal texts say nothing; a row too long is counted, never cut."""
    long = judgement("rain", "the old town " * 60)
    assert judged(encoder, [judgement("rain", "rain"), long], 96) == ([], [PROMPT])


def test_equal_scores_have_no_scale():
    """Dividing by a spread of nearly nothing would turn rounding into a reward of thousands."""
    assert mean_and_std(torch.tensor([1.0, 3.0])) == (2.0, 1.0)
    mean, std = mean_and_std(torch.full((7,), 0.1))
    assert (mean, std) == (pytest.approx(0.1), 1.0)
