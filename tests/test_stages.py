"""The training stages: what must hold in every run, what they learn when the answer is known, and what is shipped."""

from __future__ import annotations

import copy
import math
import random
import zlib
from dataclasses import replace

import pytest
import torch
from small import NOUNS, VOCABULARY, nouns, settings
from small import nouns_asked as prompts
from test_gradients import GROUPS

from trueup.config import Architecture, Sampling
from trueup.engines.fake import FakeScorer
from trueup.engines.reward_scorer import RewardScorer
from trueup.engines.sampler import Sampler
from trueup.errors import RunError
from trueup.evals.reward import evaluate_reward
from trueup.models.adapters import add_lora
from trueup.models.device import use_threads
from trueup.models.language_model import LanguageModel
from trueup.models.load import load_model, new_model, new_reward, save_model
from trueup.models.value import ValueHead
from trueup.records import Judgement, Prompt
from trueup.train import rl as rl_module
from trueup.train.judged import judged
from trueup.train.optimizers import Optimizer, rate
from trueup.train.pretrain import heldout_loss, pretrain
from trueup.train.reward import reward
from trueup.train.rl import rl
from trueup.train.run_loop import Loop
from trueup.train.sft import sft

# --- what must hold in every RL run


def rl_settings(**given):
    sampling = {"max_new_tokens": 8} | given.pop("sampling", {})
    return settings("rl", **({"prompts_per_step": 6, "samples_per_prompt": 4, "sampling": sampling} | given))


def with_lora(model: LanguageModel) -> LanguageModel:
    return LanguageModel(model.network, model.encoder, adapter=add_lora(model.network, settings("rl").model, seed=0))


def test_a_model_whose_logprobs_wander_is_not_trained_on(talker, train, monkeypatch):
    def wandering(*arguments):
        seen = observe(*arguments)
        return replace(seen, logp_cl=seen.logp_cl + 0.02)

    observe = rl_module.observe
    monkeypatch.setattr(rl_module, "observe", wandering)
    policy, length = talker(), FakeScorer(lambda completion: len(completion.tokens))
    with pytest.raises(RunError, match=r"ratio is off by 0\.02 \(limit 0\.01\)"):
        train(rl, rl_settings(steps=1), policy, talker(), Sampler(policy), length, prompts(), [])


@pytest.mark.parametrize("temperature", (0.7, 1.0))
@pytest.mark.parametrize("lora", (False, True))
def test_ratio_one_and_kl_zero_at_the_start(talker, train, lora, temperature):
    """Before the first update of a step the ratio is 1; before the first step the policy is the reference."""
    policy, reference = talker(), talker()
    if lora:
        policy, reference = with_lora(policy), None
    share = FakeScorer(lambda completion: len(set(completion.tokens)))
    config = rl_settings(
        steps=4, sampling={"temperature": temperature}, optimizer={"lr": 3e-3}, run={"evaluate_every": 2}
    )
    run = train(rl, config, policy, reference, Sampler(policy), share, prompts(), prompts()[:3])
    metrics = run.metrics()
    assert abs(metrics[0]["kl"]) < 1e-4
    assert all(row["ratio_gap"] < 1e-4 for row in metrics), "the trainer's log-probs are those that ratios are taken to"
    assert all(row["drift"] < 1e-4 for row in metrics), "the sampler's log-probs are the trainer's"
    assert metrics[-1]["kl"] > 1e-3 and metrics[-1]["updates"] == 4, "and then it moves"


@pytest.mark.parametrize("minibatches", (1, 5, 24))
def test_every_completion_is_learnt_from_once_a_pass(talker, train, monkeypatch, minibatches):
    """Six prompts of four completions in five parts: also where the parts do not come out even."""
    policy, update, parts = talker(), Loop.update, []

    def look(self, items, *rest):
        parts.append(list(items))
        return update(self, items, *rest)

    monkeypatch.setattr(Loop, "update", look)
    guard = {"max_approx_kl": 1e9}
    config = rl_settings(steps=1, epochs=2, minibatches=minibatches, guard=guard, optimizer={"lr": 1e-5})
    run = train(rl, config, policy, talker(), Sampler(policy), FakeScorer(lambda c: len(c.text)), prompts(), [])
    assert run.metrics()[0]["updates"] == len(parts) == 2 * minibatches
    for one_pass in (parts[:minibatches], parts[minibatches:]):
        assert sorted(i for part in one_pass for i in part) == list(range(24))
        assert max(map(len, one_pass)) - min(map(len, one_pass)) <= 1
    assert minibatches == 1 or parts[:minibatches] != parts[minibatches:], "shuffled anew"


def test_passes_end_early_when_the_policy_has_moved_enough(talker, train):
    policy = talker()
    config = rl_settings(steps=2, epochs=4, guard={"max_approx_kl": 1e-3}, optimizer={"lr": 1e-2})
    run = train(rl, config, policy, talker(), Sampler(policy), FakeScorer(lambda c: len(c.text)), prompts(), [])
    stops = [event for event in run.events() if event["kind"] == "early stop"]
    assert [event["step"] for event in stops] == [1, 2]
    assert [row["updates"] for row in run.metrics()] == [event["updates"] for event in stops]
    assert all(event["updates"] < 8 for event in stops)


# --- dropout


@pytest.mark.parametrize("stage", ("pretrain", "sft", "reward", "rl"))
def test_dropout_is_off_in_every_stage(make_model, encoder, train, stage, tmp_path):
    """A model that was pretrained with dropout must train exactly as one without: same bits, weights and metrics."""

    def result(dropout):
        model = make_model("Qwen2", attention_dropout=dropout)
        quick = settings(stage, steps=2, run={"evaluate_every": 1})
        if stage in ("pretrain", "sft"):
            run = train({"pretrain": pretrain, "sft": sft}[stage], quick, model, GROUPS, GROUPS)
        elif stage == "reward":
            save_model(model, tmp_path)
            model = new_reward("sequence", [str(tmp_path)], quick.model)
            pairs = [Judgement(prompt, ("rain", "red"), (1, 2), "ann", "human") for prompt in prompts()[:4]]
            items, _ = judged(encoder, pairs, 96)
            run = train(reward, quick, model, items, items)
        else:
            reference = copy.deepcopy(model)
            scorer = FakeScorer(lambda completion: len(completion.text))
            quick = rl_settings(steps=2, run={"evaluate_every": 1})
            run = train(rl, quick, model, reference, Sampler(model), scorer, prompts(), prompts()[:2])
        return run.metrics(), model.state_dict()

    (metrics, weights), (metrics_without, weights_without) = result(0.5), result(0.0)
    assert metrics == metrics_without
    assert all(torch.equal(weights[name], weights_without[name]) for name in weights)


# --- what is learnt, when the answer is known


@pytest.fixture
def small_llama(tokenizer, encoder) -> LanguageModel:
    shape = Architecture(hidden=32, layers=2, heads=4, mlp=64, vocabulary=VOCABULARY, context=96)
    return new_model(shape, tokenizer, encoder.format, seed=0)


def test_normalised_attention_is_an_ordinary_qwen3_checkpoint(tokenizer, encoder, tmp_path):
    from transformers import AutoModelForCausalLM

    shape = Architecture(hidden=32, layers=2, heads=4, mlp=64, vocabulary=VOCABULARY, context=96, qk_norm=True)
    model = new_model(shape, tokenizer, encoder.format, seed=0)
    assert model.layout.shared  # the probe found the shared-prompt rows exact for it
    model.network.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.arange(1, 20)[None]
    assert again.config.model_type == "qwen3" and again.config.head_dim == 8
    torch.testing.assert_close(again(tokens).logits, model.network(tokens).logits, rtol=0, atol=0)


ANSWERS = {"cat": "red house", "dog": "old town", "birds": "rain", "mat": "sat"}


def lookups(seed: int, count: int) -> list[tuple[Prompt, str]]:
    """One of four words among fillers, and the answer that belongs to it."""
    chance, rows = random.Random(seed), []
    for _ in range(count):
        words = [chance.choice(["the", "a", "on", "of", "to"]) for _ in range(3)]
        key = chance.choice(list(ANSWERS))
        words.insert(chance.randrange(4), key)
        rows.append((Prompt.user(" ".join(words)), ANSWERS[key]))
    return rows


@pytest.mark.parametrize("stage", ("pretrain", "sft"))
def test_a_small_mapping_is_learnt(small_llama, train, stage):
    encoder, heldout = small_llama.encoder, lookups(1, 40)

    def groups(rows):
        return [(encoder.prompt(prompt), [encoder.completion(prompt, answer)]) for prompt, answer in rows]

    if stage == "pretrain":
        config = settings("pretrain", steps=150, batch_size=16, completion_weight=4.0)
    else:
        config = settings("sft", steps=150, batch_size=16, optimizer={"lr": 5e-3})
    before = heldout_loss(small_llama, groups(heldout), 16)
    function = {"pretrain": pretrain, "sft": sft}[stage]
    train(function, config, small_llama, groups(lookups(0, 200)), groups(heldout))
    assert before > 4 and heldout_loss(small_llama, groups(heldout), 16) < 0.15
    greedy = Sampler(small_llama).sample([p for p, _ in heldout], Sampling(temperature=0, max_new_tokens=8), seed=0)
    right = [c.text == answer and c.finished for c, (_, answer) in zip(greedy, heldout, strict=True)]
    assert sum(right) >= 38, "the answer and its end, greedily"


@pytest.mark.parametrize(
    "kind, adapter, lr", [("sequence", "none", 3e-3), ("sequence", "lora", 1e-2), ("features", "none", 3e-3)]
)
def test_a_preference_for_one_word_is_learnt(talker, encoder, train, tmp_path, kind, adapter, lr):
    """People prefer the text with 'rain' in it; on other texts, at least 95 of 100 times, so must the reward model."""
    chance = random.Random(4)

    def judgements(count, split):
        found = []
        while len(found) < count:
            a, b = nouns(chance, 6), nouns(chance, 6)
            if ("rain" in a) != ("rain" in b):
                ranks = (1, 2) if "rain" in a else (2, 1)
                found.append(Judgement(Prompt.user(nouns(chance, 3)), (a, b), ranks, "ann", "human", split=split))
        return found

    train_rows, heldout_rows = judgements(300, "train"), judgements(100, "heldout")
    save_model(talker(), tmp_path)
    config = settings(
        "reward", kind=kind, steps=50, batch_size=16, optimizer={"lr": lr}, run={"evaluate_every": 25},
        model={"adapter": adapter},
    )  # fmt: skip
    model = new_reward(kind, [str(tmp_path)], config.model)
    items, heldout = (judged(encoder, rows, 96)[0] for rows in (train_rows, heldout_rows))
    run = train(reward, config, model, items, heldout)
    found = evaluate_reward(RewardScorer(model), heldout_rows)
    assert found["accuracy"] > 0.95 and found["n"] == 100
    best = max(row.get("heldout_accuracy", 0) for row in run.metrics())
    assert best > 0.95
    scores = RewardScorer(model).score([c for row in train_rows for c in _completions(row)])
    values = torch.tensor([score.value for score in scores])
    assert abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.1, "its scale is set on what it was trained on"


def _completions(row: Judgement):
    from trueup.evals.reward import as_completions

    return as_completions(row)


def share_of(token: int) -> FakeScorer:
    return FakeScorer(lambda completion: sum(t == token for t in completion.tokens) / len(completion.tokens))


@pytest.fixture(scope="module")
def word(tokenizer) -> int:
    """A noun that is one token."""
    ids = [tokenizer.encode(" " + noun).ids for noun in NOUNS]
    return next(found[0] for found in ids if len(found) == 1)


def test_rl_raises_the_share_of_a_token_and_stays_near_the_reference(talker, train, word):
    policy = talker()
    config = rl_settings(
        steps=20, prompts_per_step=8, samples_per_prompt=8, kl_coefficient=0.05, score_scale="none",
        missing_eos_score=None, optimizer={"lr": 1e-3}, run={"evaluate_every": 5},
    )  # fmt: skip
    run = train(rl, config, policy, talker(), Sampler(policy), share_of(word), prompts()[2:], prompts()[:2])
    shares = [row["score"] for row in run.metrics()]
    assert sum(shares[-5:]) / 5 > 2.5 * shares[0], "clearly up"
    assert max(row["kl"] for row in run.metrics()) < 6, "and nats are the price of it"
    evaluated = [row for row in run.metrics() if "heldout_score" in row]
    assert [row["step"] for row in evaluated] == [5, 10, 15, 20]
    best = max(evaluated, key=lambda row: row["heldout_score"] - 0.05 * row["heldout_kl"])
    assert run.result["best_step"] == best["step"], "what is shipped is best by score minus the price of its KL"


def test_what_is_shipped_has_paid_for_its_kl(talker, train):
    """The best checkpoint is best by score minus the price of its KL. Scores of pure noise: each step only drifts."""
    beta, shown = 0.3, 0
    noise = FakeScorer(lambda completion: zlib.crc32(completion.text.encode()) % 97 / 97)
    for seed in range(8):  # where a drift leads is chance: until the three ways of choosing have differed
        config = rl_settings(
            steps=8, kl_coefficient=beta, score_scale="none", missing_eos_score=None,
            optimizer={"lr": 1e-2, "schedule": "constant"}, run={"evaluate_every": 1, "seed": seed},
        )  # fmt: skip
        policy = talker()
        run = train(rl, config, policy, talker(), Sampler(policy), noise, prompts()[2:], prompts()[:2])
        held = {row["step"]: (row["heldout_score"], row["heldout_kl"]) for row in run.metrics()}
        (start,) = (event for event in run.events() if event["kind"] == "start")
        held[0] = (start["heldout_score"], 0.0)
        by_objective = max(held, key=lambda step: held[step][0] - beta * held[step][1])
        assert run.result["best_step"] == by_objective
        shown += by_objective not in (max(held, key=held.get), max(held, key=lambda step: held[step][1]))
        if shown:
            return
    raise AssertionError("all ways of choosing agreed: nothing was shown")


@pytest.mark.parametrize("lora", (False, True))
@pytest.mark.parametrize("beta", (0.5, 1.0))
def test_rl_finds_the_optimum_of_its_objective(make_model, train, beta, lora):
    """With one token a completion it is known in closed form: p(x) = p_reference(x) exp(reward(x) / beta) / Z."""
    policy, reference = make_model(), make_model()
    one = prompts()[:1]
    row = torch.tensor([policy.encoder.prompt(one[0])])

    def distribution(model):
        with torch.no_grad():
            return model.network(input_ids=row).logits[0, -1].double().softmax(-1)

    start = distribution(reference)
    liked = int((start - 0.1).abs().argmin())
    gain = torch.zeros_like(start)
    gain[liked] = 1.0
    best = start * (gain / beta).exp()
    best /= best.sum()
    if lora:
        policy, reference = with_lora(policy), None
    config = rl_settings(
        steps=60, prompts_per_step=1, samples_per_prompt=128, kl_coefficient=beta, score_scale="none", whiten=False,
        missing_eos_score=None, optimizer={"lr": 3e-3, "final_lr": 0.0}, sampling={"max_new_tokens": 1},
    )  # fmt: skip
    train(rl, config, policy, reference, Sampler(policy), share_of(liked), one, [])
    found = distribution(policy)
    assert best[liked] > 1.7 * start[liked]
    assert float(found[liked]) == pytest.approx(float(best[liked]), abs=0.05)
    assert float((found - best).abs().sum()) < 0.2, "and the other tokens keep their proportions"


def test_a_score_for_not_ending_teaches_to_end(talker, train):
    """Everything scores 0, but text without an end -1: soon nearly every completion ends in time."""
    policy = talker()
    config = rl_settings(
        steps=15, prompts_per_step=8, samples_per_prompt=8, kl_coefficient=0.01, score_scale="none",
        missing_eos_score=-1.0, optimizer={"lr": 1e-3}, sampling={"max_new_tokens": 5},
    )  # fmt: skip
    run = train(rl, config, policy, talker(), Sampler(policy), FakeScorer(lambda c: 0.0), prompts(), [])
    unfinished = [row["unfinished"] for row in run.metrics()]
    assert unfinished[0] > 0.5 and sum(unfinished[-5:]) / 5 < 0.15
    assert run.metrics()[0]["score"] == pytest.approx(-unfinished[0])


def test_it_stops_when_the_score_asked_for_is_reached(talker, train, word):
    policy = talker()
    config = rl_settings(
        steps=30, prompts_per_step=8, samples_per_prompt=8, kl_coefficient=0.0, score_scale="none",
        missing_eos_score=None, guard={"stop_score": 0.3}, optimizer={"lr": 1e-3}, run={"evaluate_every": 2},
    )  # fmt: skip
    run = train(rl, config, policy, talker(), Sampler(policy), share_of(word), prompts(), prompts())
    held = [row["heldout_score"] for row in run.metrics() if "heldout_score" in row]
    assert len(run.metrics()) < 30 and held[-1] >= 0.3 and all(score < 0.3 for score in held[:-1])
    (stop,) = [event for event in run.events() if event["kind"] == "stop"]
    assert "guard.stop_score = 0.3" in stop["reason"] and stop["step"] == run.checkpoints()[-1][0]


def test_scores_are_measured_against_the_reference(talker, train):
    """Mean 0 and std 1 at the start, whatever the scorer's own scale, or `kl_coefficient` would mean nothing."""
    policy = talker()
    scorer = FakeScorer(lambda completion: 1000 + 50 * len(completion.tokens))
    config = rl_settings(steps=1, prompts_per_step=10, samples_per_prompt=16, missing_eos_score=None)
    run = train(rl, config, policy, talker(), Sampler(policy), scorer, prompts(), [])
    first = run.metrics()[0]
    assert abs(first["score"]) < 0.3 and first["score_std"] == pytest.approx(1, abs=0.3)


def test_a_scorer_that_says_the_same_of_everything_teaches_nothing(talker, train):
    policy = talker()
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    config = rl_settings(steps=2, whiten=False, kl_coefficient=0.0, missing_eos_score=None)
    run = train(rl, config, policy, talker(), Sampler(policy), FakeScorer(lambda c: 0.1), prompts(), [])
    assert all(abs(row["score"]) < 1e-6 for row in run.metrics())
    moved = max(float((p.detach() - before[name]).abs().max()) for name, p in policy.named_parameters())
    assert moved < 1e-6, "rounding must not be blown up into a reward"


# --- what is shipped


def test_the_best_heldout_checkpoint_is_shipped_not_the_last(small_llama, train):
    """Four demonstrations by heart make the other answers unlikely: the held-out loss falls, then rises."""
    encoder = small_llama.encoder

    def groups(rows):
        return [(encoder.prompt(p), [encoder.completion(p, answer)]) for p, answer in rows]

    config = settings("sft", steps=60, batch_size=4, optimizer={"lr": 5e-3}, run={"evaluate_every": 10})
    heldout = groups(lookups(1, 40))
    run = train(sft, config, small_llama, groups(lookups(0, 4)), heldout)
    losses = {row["step"]: row["heldout_loss"] for row in run.metrics() if "heldout_loss" in row}
    best = min(losses, key=losses.get)
    assert best < 60 and losses[60] > losses[best] + 0.1
    assert run.result["best_step"] == best
    assert heldout_loss(small_llama, heldout, 16) == pytest.approx(losses[best], rel=1e-6)
    kept = [step for step, _ in run.checkpoints()]
    assert kept == sorted({best, 50, 60}), "the last two and the best"


def test_lora_ships_an_adapter_and_leaves_its_base_alone(checkpoint, train):
    folder = [str(checkpoint("Llama"))]
    model = load_model(folder, settings("sft", model={"adapter": "lora"}).model, trainable=True)
    before = {name: p.clone() for name, p in model.network.named_parameters()}
    train(sft, settings("sft", steps=3, optimizer={"lr": 1e-2}), model, GROUPS, GROUPS)
    changed = {name for name, p in model.network.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all("lora_" in name for name in changed)


# --- the optimizer


@pytest.mark.parametrize("schedule, middle, end", [("constant", 1.0, 1.0), ("linear", 0.6, 0.2), ("cosine", 0.6, 0.2)])
def test_the_learning_rate_is_a_function_of_the_step(schedule, middle, end):
    chosen = settings("sft", optimizer={"schedule": schedule, "warmup_steps": 10}).optimizer
    chosen = chosen.model_copy(update={"final_lr": 0.2})
    assert [rate(chosen, step, 110) for step in (1, 5, 10)] == pytest.approx([0.1, 0.5, 1.0])
    assert rate(chosen, 60, 110) == pytest.approx(middle) and rate(chosen, 110, 110) == pytest.approx(end)


def test_muon_takes_hidden_matrices_and_nothing_else(make_model):
    model = make_model()
    optimizer = Optimizer([model, ValueHead(32)], settings("sft", optimizer={"name": "muon"}).optimizer)
    adamw, muon = ({id(p) for group in part.param_groups for p in group["params"]} for part in optimizer.parts)
    for name, parameter in optimizer.named.items():
        hidden = name.startswith("0.") and parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        assert (id(parameter) in muon) == hidden and (id(parameter) in adamw) != hidden, name
    assert len(muon) == 2 * 7


def test_the_gradient_norm_is_clipped(model):
    optimizer = Optimizer([model], settings("sft", optimizer={"grad_clip": 0.5}).optimizer)
    for parameter in optimizer.named.values():
        parameter.grad = torch.ones_like(parameter)
    count = sum(p.numel() for p in optimizer.named.values())
    assert optimizer.clip() == {"gradient_norm": pytest.approx(math.sqrt(count), rel=1e-5)}
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in optimizer.named.values()))
    assert norm == pytest.approx(0.5, rel=1e-4)


def test_gradients_of_a_state_read_often_are_summed_in_one_order() -> None:
    """With several threads torch would add them atomically, in the order the threads come."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        use_threads(4)
        read = torch.randint(0, 50, (40_000,), generator=torch.Generator().manual_seed(0))
        weight = torch.rand(40_000, 32, generator=torch.Generator().manual_seed(1))
        found = []
        for _ in range(12):
            states = torch.ones(50, 32, requires_grad=True)
            (states[read] * weight).sum().backward()
            found.append(states.grad)
        assert all(torch.equal(found[0], other) for other in found)
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
