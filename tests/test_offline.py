"""DPO, KTO and implicit Q-learning: first gradients by hand, what must not change them, what they learn, what ships."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from small import add_small_data, settings
from test_gradients import alone, assert_same_gradient, by_hand

from trueup import api, rejecting
from trueup.cli.main import run as command_line
from trueup.config import DpoConfig
from trueup.engines.fake import FakeScorer
from trueup.engines.sampler import Sampler
from trueup.errors import ConfigError, RunError, TrueupError
from trueup.models.adapters import add_lora
from trueup.models.language_model import LanguageModel
from trueup.records import Completion, Judgement, Prompt
from trueup.runs import Run, runs
from trueup.train import cached
from trueup.train import dpo as dpo_module
from trueup.train import kto as kto_module
from trueup.train.dpo import Known, dpo, evaluate, pair_losses
from trueup.train.ilql import Rewarded, critic_of, ilql
from trueup.train.judged import Judged, Pair, Verdict, judged
from trueup.train.kto import Weights, kto, weights_of
from trueup.train.online_dpo import Round, online_dpo, pairs_of
from trueup.train.run_loop import Loop

ROWS = [
    Judgement(Prompt.user("the cat"), ("rain", "the old town", "red"), (3, 1, 2), "ann", "human"),
    Judgement(Prompt.user("birds of rain"), ("a mat", "rain in the town"), (1, 2), "ann", "human"),
    Judgement(Prompt.user("birds of rain"), ("a mat", "rain in the town"), (2, 1), "bob", "human"),
    Judgement(Prompt.user("birds of rain"), ("a mat", "the dog"), (1, 2), "bob", "human"),
    Judgement(Prompt.user("a dog"), ("sat", "the house"), (1, 1), "bob", "human"),
]
QUIET = {"threads": 1, "tensorboard": False}


@pytest.fixture
def items(encoder) -> list[Judged]:
    return judged(encoder, ROWS, 96)[0]


@pytest.fixture
def references(items) -> list[torch.Tensor]:
    """Not the policy's own: then no log-ratio is 0, and nothing is right by accident."""
    chance = torch.Generator().manual_seed(1)
    sizes = [sum(map(len, item.group[1])) for item in items]
    return [-6 + torch.rand(size, generator=chance, dtype=torch.float64) for size in sizes]


def with_lora(model: LanguageModel) -> LanguageModel:
    return LanguageModel(model.network, model.encoder, adapter=add_lora(model.network, settings("dpo").model, seed=0))


def ratios_by_hand(model: LanguageModel, item: Judged, reference: torch.Tensor) -> list[torch.Tensor]:
    prompt, completions = item.group
    parts = reference.split([len(c) for c in completions])
    return [(alone(model, prompt, c)[0] - part).sum() for c, part in zip(completions, parts, strict=True)]


# The first gradient


@pytest.mark.parametrize("micro_batch", (0, 1, 2))
@pytest.mark.parametrize("loss", ("sigmoid", "ipo", "hinge"))
def test_dpo_is_the_mean_over_prompts_of_the_mean_over_pairs(
    make_model,
    train,
    gradient,
    items,
    references,
    monkeypatch,
    loss,
    micro_batch,
):
    """A ranking is all its pairs, two judges of one pair are two entries, and a tie says that neither is better."""
    monkeypatch.setattr(dpo_module, "reference_logprobs", lambda *_: references)
    model = make_model().double()
    second = copy.deepcopy(model)
    beta, wrong = 0.3, 0.1
    config = settings("dpo", steps=1, batch_size=3, loss=loss, beta=beta, wrong_share=wrong, ties="half",
                      sft_coefficient=0.5, run={"micro_batch": micro_batch})  # fmt: skip
    train(dpo, config, model, items, [])
    by_loss = {
        "sigmoid": lambda d: -torch.log(torch.sigmoid(beta * d)),
        "ipo": lambda d: (d - 1 / (2 * beta)) ** 2,
        "hinge": lambda d: torch.relu(1 - beta * d),
    }[loss]
    losses = []
    for item, reference in zip(items, references, strict=True):
        ratio = ratios_by_hand(second, item, reference)
        nll = [-alone(second, item.group[0], c)[0].mean() for c in item.group[1]]
        pairs = []
        for i, j, target, *_ in item.pairs:
            t = (1 - wrong) * target + wrong * (1 - target)
            pair = t * by_loss(ratio[i] - ratio[j]) + (1 - t) * by_loss(ratio[j] - ratio[i])
            pairs.append(pair + 0.5 * (target * nll[i] + (1 - target) * nll[j]))
        losses.append(torch.stack(pairs).mean())
    assert [len(item.pairs) for item in items] == [3, 3, 1]
    assert_same_gradient(gradient(), by_hand([second], torch.stack(losses).mean()))


def thumbed(items: list[Judged]) -> list[Judged]:
    """The first completion of a prompt was liked, the others were not; somebody disagreed about the last."""
    return [
        replace(item, verdicts=(*(Verdict(i, float(i == 0)) for i in range(len(item.group[1]))), Verdict(1, 1.0)))
        for item in items
    ]


@pytest.mark.parametrize("micro_batch", (0, 1, 2))
def test_kto_is_the_mean_over_thumbs_around_one_point_of_the_whole_batch(
    make_model,
    train,
    gradient,
    items,
    monkeypatch,
    micro_batch,
):
    chance = torch.Generator().manual_seed(2)

    def references(loop, policy, groups):
        sizes = [sum(map(len, completions)) for _, completions in groups]
        found.extend(-9 + torch.rand(size, generator=chance, dtype=torch.float64) for size in sizes)
        return found

    found: list[torch.Tensor] = []
    monkeypatch.setattr(kto_module, "reference_logprobs", references)
    model, items = make_model().double(), thumbed(items)
    second, beta = copy.deepcopy(model), 0.2
    config = settings("kto", steps=1, batch_size=3, beta=beta, up_weight=1.5, down_weight=0.5,
                      run={"micro_batch": micro_batch})  # fmt: skip
    run = train(kto, config, model, items, [])
    foreign_ratios, losses = [], []
    for k, item in enumerate(items):
        stranger = items[(k + 1) % 3].group[1][0]
        own, theirs = found[k].split([sum(map(len, item.group[1])), len(stranger)])
        foreign_ratios.append((alone(second, item.group[0], stranger)[0].detach() - theirs).sum())
    point = torch.stack(foreign_ratios).mean().clamp(min=0)
    assert point > 0, "or the test would not see it"
    for k, item in enumerate(items):
        ratio = ratios_by_hand(second, item, found[k][: sum(map(len, item.group[1]))])
        for completion, right, _ in item.verdicts:
            gap = beta * (ratio[completion] - point)
            losses.append(1.5 * (1 - torch.sigmoid(gap)) if right else 0.5 * (1 - torch.sigmoid(-gap)))
    assert_same_gradient(gradient(), by_hand([second], torch.stack(losses).mean()))
    assert run.metrics()[0]["point"] == pytest.approx(float(point), rel=1e-6)


@pytest.mark.parametrize("micro_batch", (0, 1, 2))
def test_ilql_is_the_sum_of_its_parts_over_the_tokens_of_the_batch(
    make_model,
    train,
    gradient,
    items,
    monkeypatch,
    micro_batch,
):
    """The policy's weights and the targets of Q and of the value carry no gradient."""
    torch.manual_seed(5)
    model = make_model().double()
    critic = critic_of(model, 0).double()
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    monkeypatch.setattr("trueup.models.critic.QHead.features", lambda self, h: torch.tanh(self.inner(h)))
    monkeypatch.setattr("trueup.models.value.ValueHead.forward",
                        lambda self, h: self.outer(torch.tanh(self.inner(h))).squeeze(-1))  # fmt: skip
    monkeypatch.setattr("trueup.train.ilql.critic_of", lambda policy, seed: critic)
    second, judge = copy.deepcopy(model), copy.deepcopy(critic)
    rows = [
        Rewarded(item.group, tuple(float(k + i) for i in range(len(item.group[1])))) for k, item in enumerate(items)
    ]
    config = settings(
        "ilql", steps=1, batch_size=3, gamma=0.9, lam=0.7, expectile=0.8, cql_coefficient=0.2, temperature=2.0,
        critic_coefficient=0.7, run={"micro_batch": micro_batch},
    )  # fmt: skip
    train(ilql, config, model, rows, [])
    rewards = torch.tensor([r for row in rows for r in row.rewards], dtype=torch.float64)
    mean, std = rewards.mean(), rewards.std(correction=0)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in rows:
        for completion, reward in zip(row.group[1], row.rewards, strict=True):
            logp, states = alone(second, row.group[0], completion)
            value = judge.value(states)
            targets = [float((reward - mean) / std)]
            for after in reversed(value[1:].tolist()):
                targets.insert(0, 0.9 * (0.3 * after + 0.7 * targets[0]))
            for t, token in enumerate(completion):
                q = [head.outer(torch.tanh(head.inner(states[t]))) for head in judge.q]
                slow = min(head.outer(torch.tanh(head.inner(states[t])))[token].item() for head in judge.target)
                wanted = targets[t]
                error = slow - value[t]
                on_critic = sum((each[token] - wanted) ** 2 for each in q) / 2
                on_critic = on_critic + (0.8 if error > 0 else 0.2) * error**2
                on_critic = on_critic - 0.2 * sum(torch.log_softmax(each, -1)[token] for each in q) / 2
                weight = min(math.exp((slow - float(value[t])) / 2.0), 20.0)
                total, count = total - weight * logp[t] + 0.7 * on_critic, count + 1
    assert_same_gradient(gradient(), by_hand([second, judge], total / count))


# What must hold at the start


@pytest.mark.parametrize("lora", (False, True))
def test_at_the_start_nothing_is_preferred(make_model, train, items, lora):
    """The loss of a coin, half right, no margin, no KL: whether an adapter or everything is trained."""
    model = with_lora(make_model()) if lora else make_model()
    decided = [item for item in items if item.pairs[0].target != 0.5]
    run = train(dpo, settings("dpo", steps=1, batch_size=2, run={"evaluate_every": 1}), model, decided, decided)
    first = run.metrics()[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["accuracy"] == 0.5 and first["margin"] == pytest.approx(0, abs=1e-5)
    assert first["heldout_kl"] >= 0


def test_an_adapter_and_whole_weights_start_from_the_same_numbers(make_model, train, items):
    firsts = [
        train(dpo, settings("dpo", steps=1, batch_size=3), model, items, []).metrics()[0]
        for model in (make_model(), with_lora(make_model()))
    ]
    for name in ("loss", "accuracy", "chosen_logp", "rejected_logp"):
        assert firsts[0][name] == pytest.approx(firsts[1][name], abs=1e-4), name


def test_plain_forms_are_the_general_ones_at_zero(items):
    ratio = torch.tensor([0.4, -1.2, 2.0], dtype=torch.float64)
    plain = pair_losses(DpoConfig(), ratio, items[0].pairs)
    for same in (DpoConfig(wrong_share=0.0, unbiased=True), DpoConfig(strength="large-margin"),
                 DpoConfig(strength="weight")):  # fmt: skip
        torch.testing.assert_close(pair_losses(same, ratio, items[0].pairs), plain), "nobody said how strongly"
    strong = [pair._replace(strength=3.0) for pair in items[0].pairs]
    torch.testing.assert_close(pair_losses(DpoConfig(strength="weight"), ratio, strong), 3 * plain)
    assert (pair_losses(DpoConfig(strength="small-margin"), ratio, strong) > plain).all()


def test_figures_do_not_depend_on_how_a_set_is_batched_or_ordered(make_model, items, references):
    model = make_model()
    known = [Known(item, reference.float()) for item, reference in zip(items, references, strict=True)]
    config = DpoConfig(beta=0.3)
    whole = evaluate(config, model, known, 3)
    for other in (evaluate(config, model, known, 1), evaluate(config, model, known[::-1], 2)):
        assert other == pytest.approx(whole, rel=1e-5)


# The reference, computed once


def test_the_reference_is_written_once_and_is_what_the_policy_was(make_model, workspace, items, monkeypatch):
    model = make_model()
    groups = [item.group for item in items]
    with Run.start(workspace, "dpo", {}, {}, seed=0) as run:
        loop = Loop(run, [model], settings("dpo", steps=1), 1)
        found = cached.reference_logprobs(loop, model, groups)
        for group, flat in zip(groups, found, strict=True):
            by_itself = torch.cat([alone(model, group[0], c)[0] for c in group[1]])
            torch.testing.assert_close(flat, by_itself, rtol=0, atol=5e-6)
        monkeypatch.setattr(cached, "known_logprobs", None)  # whoever asks the model again fails
        again = cached.reference_logprobs(loop, model, groups)
        assert all(map(torch.equal, again, found))
        with pytest.raises(RunError, match="about other completions"):
            cached.reference_logprobs(loop, model, groups[:1])
        (run.path / cached.FILE).unlink()
        loop.step = 1
        with pytest.raises(RunError, match="no longer the reference"):
            cached.reference_logprobs(loop, model, groups)
        run.finish({})


# What is learnt


def lesson(encoder, count: int, word: str = "rain") -> list[Judged]:
    """Whatever the prompt, the completion with the word is the better one."""
    places = ["the cat", "a dog", "birds", "the old town", "red house", "a mat", "the rain", "of birds"]
    rows = [
        Judgement(Prompt.user(f"{places[k % 8]} {places[k // 8]}"), (f"{places[(k + 3) % 8]} {word}", places[k % 8]),
                  (1, 2), "ann", "human")
        for k in range(count)
    ]  # fmt: skip
    return judged(encoder, rows, 96)[0]


FAST = {"optimizer": {"lr": 1e-3}, "run": {"evaluate_every": 20}}


def test_a_taste_is_learnt_and_carries_over_to_other_prompts(make_model, train, encoder):
    rows = lesson(encoder, 48)
    run = train(dpo, settings("dpo", steps=20, batch_size=8, **FAST), make_model(), rows[:36], rows[36:])
    last = run.metrics()[-1]
    assert last["heldout_accuracy"] >= 0.9 and last["heldout_loss"] < 0.5 and last["heldout_margin"] > 0.5
    assert last["heldout_kl"] > 0


def test_ipo_comes_to_rest_at_its_gap_where_dpo_goes_on(make_model, train, encoder):
    rows, margins = lesson(encoder, 2), {}
    for loss in ("ipo", "sigmoid"):
        config = settings("dpo", steps=60, batch_size=2, loss=loss, beta=0.2, optimizer={"lr": 1e-3})
        margins[loss] = train(dpo, config, make_model(), rows, []).metrics()[-1]["margin"]
    assert margins["ipo"] == pytest.approx(0.5, abs=0.1), "beta times 1 / (2 beta)"
    assert margins["sigmoid"] > 1.0


def test_better_completions_fall_too_unless_they_are_learnt_beside(make_model, train, encoder):
    rows = lesson(encoder, 24)
    logps = [
        train(dpo, settings("dpo", steps=20, batch_size=8, sft_coefficient=c, **FAST), make_model(), rows, [])
        .metrics()[-1]["chosen_logp"]
        for c in (0.0, 1.0)
    ]  # fmt: skip
    assert logps[1] > logps[0] + 1


def test_kto_learns_from_thumbs_alone(make_model, train, encoder):
    rows = [replace(item, pairs=(), verdicts=(Verdict(0, 1.0), Verdict(1, 0.0))) for item in lesson(encoder, 48)]
    rows = [replace(item, verdicts=item.verdicts[k % 2 :][:1]) for k, item in enumerate(rows)]
    run = train(kto, settings("kto", steps=24, batch_size=8, **FAST), make_model(), rows[:36], rows[36:])
    last = run.metrics()[-1]
    assert last["heldout_accuracy"] >= 0.9 and last["heldout_up_ratio"] > last["heldout_down_ratio"] + 1


def test_sides_of_kto_weigh_the_same_unless_said_otherwise(items):
    three_to_one = [replace(items[0], verdicts=tuple(Verdict(0, float(k < 3)) for k in range(4)))]
    assert weights_of(settings("kto"), three_to_one) == Weights(2 / 3, 2.0)
    assert weights_of(settings("kto", up_weight=1.0), three_to_one) == Weights(1.0, 3.0)
    assert weights_of(settings("kto", up_weight=1.0, down_weight=1.0), three_to_one) == Weights(1.0, 1.0)


def test_ilql_prefers_what_was_rewarded(make_model, train, encoder):
    rows = [Rewarded(item.group, (1.0, 0.0)) for item in lesson(encoder, 48)]
    model = make_model()
    before = copy.deepcopy(model)
    config = settings("ilql", steps=30, batch_size=8, critic_lr=1e-2, **FAST)
    run = train(ilql, config, model, rows[:36], rows[36:])

    def gap(model: LanguageModel) -> float:
        each = [[float(alone(model, row.group[0], c)[0].sum()) for c in row.group[1]] for row in rows[36:]]
        return sum(better - worse for better, worse in each) / len(each)

    assert gap(model) > gap(before) + 2
    first, last = run.metrics()[0], run.metrics()[-1]
    assert last["q_loss"] < first["q_loss"] and last["heldout_loss"] < first["token_loss"]


# Online rounds


def test_extremes_and_all_pairs_of_what_was_scored(model):
    prompt = Prompt.user("the cat")
    groups = [[Completion(prompt, text, (k, 2)) for k, text in enumerate("abc")]] * 2
    tokens = [((5, 6), [c.tokens for c in group]) for group in groups]
    scores = torch.tensor([0.5, 2.0, -1.0, 1.0, 1.0, 1.0])
    played = Round(groups, tokens, scores, torch.arange(12.0), torch.zeros(6), {})
    (known,) = pairs_of(DpoConfig(online=True), played)
    assert known.item.group == ((5, 6), [(1, 2), (2, 2)]) and known.item.pairs == (Pair(0, 1, 1.0),)
    assert known.reference.tolist() == [2, 3, 4, 5], "of those two, and equal scores teach nothing"
    (known,) = pairs_of(DpoConfig(online=True, pairs="all"), played)
    assert known.item.pairs == (Pair(1, 0, 1.0), Pair(0, 2, 1.0), Pair(1, 2, 1.0))


@pytest.mark.parametrize("lora", (False, True))
def test_rounds_raise_the_score_and_measure_how_far_the_policy_went(make_model, train, lora):
    """From the same start an adapter and whole weights see the same first round."""
    policy, reference = make_model(), make_model()
    if lora:
        policy, reference = with_lora(policy), None
    share = FakeScorer(lambda c: sum(token < 160 for token in c.tokens) / len(c.tokens))
    prompts = [Prompt.user(f"{a} {b}") for a in ("the cat", "a dog", "birds") for b in ("sat", "ran", "old", "red")]
    config = settings(
        "dpo", online=True, steps=14, batch_size=6, samples_per_prompt=8, pairs="all", missing_eos_score=None,
        sampling={"max_new_tokens": 5}, optimizer={"lr": 1e-2}, beta=0.03, run={"evaluate_every": 14},
    )  # fmt: skip
    run = train(online_dpo, config, policy, reference, Sampler(policy), share, prompts, prompts[:3], {"gold": share})
    metrics = run.metrics()
    assert metrics[0]["kl"] == pytest.approx(0, abs=1e-3) and metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert metrics[-1]["kl"] > 0.1
    if not lora:  # which learns slower than a test has time for
        assert sum(row["gold"] for row in metrics[-3:]) / 3 > metrics[0]["gold"] + 0.1
    assert {"heldout_score", "heldout_kl", "heldout_gold"} <= set(metrics[-1])
    rows = run.samples(14)
    assert len(rows) == 48 and {"prompt", "text", "score", "kl", "gold"} <= set(rows[0])
    assert sum(row["gold"] for row in rows) / 48 == pytest.approx(metrics[-1]["gold"]), (
        "beside each text what was logged"
    )
    (start,) = [event for event in run.events() if event["kind"] == "start"]
    assert start["prompts"] == 3 and {"heldout_score", "heldout_gold"} <= start.keys()


def test_a_scorer_that_gives_no_numbers_stops_the_run_and_keeps_what_was(make_model, train, workspace):
    policy, said = make_model(), []

    def breaking(completion):
        said.append(completion)
        return float("nan") if len(said) > 160 else len(completion.tokens)

    config = settings("dpo", online=True, steps=19, batch_size=2, samples_per_prompt=2, missing_eos_score=None,
                      sampling={"max_new_tokens": 4}, run={"checkpoint_every": 100})  # fmt: skip
    with pytest.raises(RunError, match="scores are not numbers"):
        train(
            online_dpo, config, policy, make_model(), Sampler(policy), FakeScorer(breaking), [Prompt.user("a")] * 4, []
        )
    run = runs(workspace)[-1]
    assert [step for step, _ in run.checkpoints()] == [len(run.metrics())] != [0], (
        "the last sound step, whatever is due"
    )


# From a workspace


@pytest.fixture
def ready(workspace, tmp_path, checkpoint):
    """A workspace with small data, a policy of random weights and a judge."""
    add_small_data(workspace, tmp_path, prompts=20)
    api.sft(workspace, base=str(checkpoint("Llama")), data="demonstrations", name="sft", steps=1, run=QUIET)
    return workspace


def last_run(workspace) -> Run:
    return runs(workspace)[-1]


def add_preferences(workspace, folder, rows: list[dict]) -> str:
    path = folder / "own.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return api.add_data(workspace, str(path), "preferences", name="own", heldout=0.2).artifact.id


def raw(k: int, ranks: list[int]) -> dict:
    return Judgement(Prompt.user(f"the cat {k}"), ("rain", "a dog"), tuple(ranks), "ann", "human").to_json()


def test_ties_are_counted_and_left_out_or_learnt(ready, tmp_path):
    data = add_preferences(ready, tmp_path, [raw(k, [1, 1] if k % 4 == 0 else [1, 2]) for k in range(20)])
    made = api.dpo(ready, policy="sft", data=data, steps=1, run=QUIET)
    assert made.meta["stage"] == "dpo" and set(made.parents) == {"base", "data"}
    (event,) = [event for event in last_run(ready).events() if event["kind"] == "ties"]
    assert event["reason"].startswith("5 of 20 judged pairs are ties and left out")
    api.dpo(ready, policy="sft", data=data, steps=1, ties="half", run=QUIET)
    assert not [event for event in last_run(ready).events() if event["kind"] == "ties"]


def test_only_ties_teach_nothing(ready, tmp_path):
    data = add_preferences(ready, tmp_path, [raw(k, [1, 1]) for k in range(20)])
    for ties in ("skip", "half"):
        with pytest.raises(TrueupError, match="every judgement to train on is a tie"):
            api.dpo(ready, policy="sft", data=data, ties=ties, run=QUIET)


def test_prompts_too_long_are_counted_and_nothing_left_is_an_error(ready):
    with pytest.raises(TrueupError, match="no judgement is left to train on; 20 of 20 prompts") as caught:
        api.dpo(ready, policy="sft", data="preferences", max_tokens=5, run=QUIET)
    assert "raise max_tokens" in str(caught.value.hint)


def test_inputs_of_rounds_and_of_judgements_are_not_mixed(ready):
    with pytest.raises(ConfigError, match="with online rounds takes policy, reward, prompts"):
        api.dpo(ready, policy="sft", data="preferences", online=True)
    with pytest.raises(ConfigError, match="without online rounds takes policy, data"):
        api.dpo(ready, policy="sft", reward="sft", prompts="prompts")


def test_kto_wants_thumbs_of_both_kinds(ready, tmp_path):
    with pytest.raises(TrueupError, match="holds no thumbs") as caught:
        api.kto(ready, policy="sft", data="preferences", run=QUIET)
    assert "sides_as_thumbs" in str(caught.value.hint)
    api.kto(ready, policy="sft", data="preferences", sides_as_thumbs=True, steps=1, run=QUIET)
    rows = [{"prompt": f"the cat {k}", "completion": "rain", "label": True} for k in range(12)]
    path = tmp_path / "ups.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    ups = api.add_data(ready, str(path), "unpaired").artifact
    with pytest.raises(TrueupError, match="thumbs to train on are up"):
        api.kto(ready, policy="sft", data=ups, run=QUIET)


@pytest.fixture
def judge(ready):
    api.reward(ready, base="sft", data="preferences", name="judge", steps=2, run=QUIET)
    return "judge"


def test_the_best_of_n_says_of_how_many_and_keeps_all_scores(ready, judge, tmp_path):
    sampling = {"max_new_tokens": 5}
    made = api.sample(ready, model="sft", prompts="prompts", reward=judge, best_of=3, per_prompt=2, sampling=sampling,
                      name="best", run={"threads": 1})  # fmt: skip
    from trueup.loading import read_completions

    found = read_completions(made)
    assert len(found) == 40 and set(made.parents) == {"model", "prompts", "reward"}
    for completion in found:
        meta = completion.meta
        assert meta["best_of"] == 3 and len(meta["scores"]) == 3 and meta["score"] == max(meta["scores"])
    with pytest.raises(ConfigError, match="best_of above 1 needs a reward model"):
        api.sample(ready, model="sft", prompts="prompts", best_of=3)
    api.export_data(ready, "best", tmp_path / "best.jsonl")
    back = api.add_data(ready, str(tmp_path / "best.jsonl"), "completions").artifact
    assert [c.meta for c in read_completions(back)] == [c.meta for c in found], "out and in again"


def test_rejection_sampling_keeps_what_was_asked_and_says_where_from(ready, judge, capsys):
    drafts = api.sample(ready, model="sft", prompts="prompts", per_prompt=4, sampling={"max_new_tokens": 40},
                        name="drafts", run={"threads": 1})  # fmt: skip
    from trueup.loading import read_completions, read_demonstrations

    written = [c for c in read_completions(drafts) if c.finished and c.text.strip()]
    assert len({c.prompt.id for c in written}) > 3, "enough to choose from"
    best = rejecting.reject(ready, completions="drafts", reward=judge, threads=1)
    assert best.parents == {"completions": drafts.id, "reward": ready.get(judge).id}
    assert best.meta["rows"] == len({c.prompt.id for c in written}) == len(read_demonstrations(best))
    assert best.meta["mean_score"] >= best.meta["mean_score_before"]
    top = rejecting.reject(ready, completions="drafts", reward=judge, keep="top-share", share=0.2, threads=1)
    assert top.meta["rows"] == round(0.2 * len({(c.prompt.id, c.text) for c in written}))
    assert top.meta["mean_score"] >= best.meta["mean_score"] - 1e-6
    command = ["--workspace", str(ready.path), *"data reject drafts --reward judge --threads 1 --name demos".split()]
    assert command_line(command) == 0 and ready.get("demos").id == best.id, "the same content, the same artifact"
    assert f"{80 - best.meta['rows']} rejected" in capsys.readouterr().out
    with pytest.raises(TrueupError, match="none of the 80 completions is kept"):
        rejecting.reject(ready, completions="drafts", reward=judge, keep="threshold", threshold=1e9, threads=1)
    with pytest.raises(TrueupError, match="have no score stored with them"):
        rejecting.reject(ready, completions="drafts")
    for wrong in ({"keep": "top-share"}, {"share": 0.5}, {"keep": "top-share", "share": 0.0}, {"keep": "threshold"}):
        with pytest.raises(ConfigError):
            rejecting.reject(ready, completions="drafts", reward=judge, **wrong)


def test_ilql_takes_rewards_from_a_scorer_from_storage_and_from_judgements(ready, judge):
    given = {"steps": 1, "run": QUIET}
    made = api.ilql(ready, policy="sft", data="preferences", reward=judge, **given)
    assert (last_run(ready).path / "scores.json").is_file() and set(made.parents) == {"base", "data", "reward"}
    api.ilql(ready, policy="sft", data="preferences", **given)
    (scale,) = [event for event in last_run(ready).events() if event["kind"] == "score scale"]
    assert (scale["mean"], scale["std"]) == (0.5, 0.5), "each pair is one that won and one that lost"
    best = api.sample(ready, model="sft", prompts="prompts", reward=judge, best_of=2, sampling={"max_new_tokens": 5},
                      run={"threads": 1})  # fmt: skip
    api.ilql(ready, policy="sft", data=best, heldout=0.3, **given)
    with pytest.raises(ConfigError, match="heldout has no meaning here: judgements keep their own split"):
        api.ilql(ready, policy="sft", data="preferences", heldout=0.3, **given)
    with pytest.raises(ConfigError, match="scoring. has a meaning only with --reward"):
        api.ilql(ready, policy="sft", data=best, scoring={"ensemble": "min"}, **given)
    plain = api.sample(ready, model="sft", prompts="prompts", sampling={"max_new_tokens": 5}, run={"threads": 1})
    with pytest.raises(TrueupError, match="have no score stored with them"):
        api.ilql(ready, policy="sft", data=plain, **given)


def test_what_ilql_ships_is_an_ordinary_model(ready, tmp_path):
    from transformers import AutoModelForCausalLM

    made = api.ilql(ready, policy="sft", data="preferences", steps=1, name="tuned", run=QUIET)
    names = {path.name for path in made.path.iterdir()}
    assert "model.safetensors" in names and not any("critic" in name or "head" in name for name in names)
    AutoModelForCausalLM.from_pretrained(api.export(ready, "tuned", tmp_path / "out"))


@pytest.mark.parametrize("stage", ("dpo", "kto", "ilql"))
def test_a_plan_counts_memory_and_trains_nothing(ready, stage):
    config = settings(stage, **({"sides_as_thumbs": True} if stage == "kto" else {}))
    before = len(runs(ready))
    plan = api.plan(ready, stage, {"policy": "sft", "data": "preferences"}, config)
    parts = {part["part"] for part in plan["memory"]}
    assert {"weights", "gradients", "optimizer"} <= parts and "reference" not in parts
    assert ("critic" in parts) == (stage == "ilql") and len(runs(ready)) == before
