"""Reward models of several objectives and several members: what each learns, and how they become one score."""

from __future__ import annotations

import json
import random

import pytest
import torch
from small import settings

from trueup.config import ModelSettings, Objective, Scoring
from trueup.engines.reward_scorer import PRICE, RewardScorer, of_members, weigh
from trueup.evals.reward import evaluate_objectives
from trueup.models.load import load_reward, new_reward, save_reward
from trueup.models.rows import lay_out
from trueup.records import Completion, Judgement, Prompt
from trueup.train.judged import Pair, Ranking, Verdict, judged, redrawn
from trueup.train.reward import likelihood_loss, reward

NOUNS = ["cat", "dog", "birds", "mat", "rain", "red", "house", "town", "old", "sat"]
PLAIN = ModelSettings(adapter="none", device="cpu")
KINDS = ("sequence", "features")


def nouns(chance: random.Random, n: int) -> str:
    return " ".join(chance.choice(NOUNS) for _ in range(n))


def on(objective: str, wanted: str, count: int, seed: int, split: str = "train") -> list[Judgement]:
    """Judgements made on one objective: the text with the wanted word in it is better."""
    chance, found = random.Random(seed), []
    while len(found) < count:
        a, b = nouns(chance, 5), nouns(chance, 5)
        if (wanted in a) != (wanted in b):
            ranks = (1, 2) if wanted in a else (2, 1)
            prompt, meta = Prompt.user(nouns(chance, 3)), {"objective": objective}
            found.append(Judgement(prompt, (a, b), ranks, "ann", "human", split=split, meta=meta))  # type: ignore[arg-type]
    return found


# --- what is read from a judgement


PROMPT = Prompt.user("the cat")


def test_a_judgement_speaks_of_what_it_was_made_on_and_of_what_it_rates():
    made_on = Judgement(PROMPT, ("a", "b"), (2, 1), "ann", "human", meta={"objective": "true"})
    assert made_on.pairs_on("true") == [(0, 1, 0.0)] and made_on.pairs_on("short") == []
    ratings = {"true": (5.0, 2.0, 5.0), "short": (1.0, None, 3.0)}
    rated = Judgement(PROMPT, ("a", "b", "c"), (1, 1, 1), "ann", "human", ratings=ratings)
    assert rated.pairs_on("true") == [(0, 1, 1.0), (0, 2, 0.5), (1, 2, 0.0)]
    assert rated.pairs_on("short") == [(0, 2, 0.0)], "what was not rated is not compared"
    assert rated.places_on("short") == (-1.0, None, -3.0) and rated.places_on("kind") == ()


def test_one_element_holds_all_that_was_said_of_a_prompt(encoder):
    rows = [
        Judgement(PROMPT, ("rain", "red"), (1, 2), "ann", "human", meta={"objective": "true", "strength": -3}),
        Judgement(PROMPT, ("rain", "red"), (1, 1), "bob", "human", ratings={"short": (1.0, 4.0)}),
        Judgement(PROMPT, ("old",), (1,), "cy", "human", ratings={"thumb": (0.0,)}, meta={"objective": "short"}),
        Judgement(PROMPT, ("old",), (1,), "di", "human", ratings={"thumb": (1.0,)}, meta={"objective": "kind"}),
    ]
    ((only,), dropped) = judged(encoder, rows, 96, ("true", "short"))
    assert dropped == [] and len(only.group[1]) == 3
    assert only.pairs == (Pair(0, 1, 1.0, 0, 3.0), Pair(0, 1, 0.0, 1, None))
    assert only.verdicts == (Verdict(2, 0.0, 1),), "a verdict on an objective the model has not is not learnt"
    assert only.rankings == (Ranking((0, 1), (1.0, 2.0), 0), Ranking((0, 1), (-1.0, -4.0), 1))


def test_every_member_draws_its_own_prompts(encoder):
    items, _ = judged(encoder, [Judgement(Prompt.user(n), ("a", "b"), (1, 2), "x", "human") for n in NOUNS], 96)
    drawn = redrawn(items * 200, 3, seed=1)
    weights = torch.tensor([item.weights for item in drawn])
    assert weights.mean(0).tolist() == pytest.approx([1.0] * 3, abs=0.1)
    assert len({tuple(column) for column in weights.T.tolist()}) == 3
    assert (weights.sum(1) > 0).all(), "no judged prompt goes unread"
    assert drawn == redrawn(items * 200, 3, seed=1) and redrawn(items, 1, seed=1) == items


# --- one score out of many


def test_objectives_are_weighed_and_a_floor_is_dear():
    """(completion, objective, member): helpful and harmless of two members."""
    scores = torch.tensor([[[2.0, 1.0], [0.5, 0.0]], [[3.0, 3.0], [-1.0, -0.5]]])
    helpful, harmless = Objective(name="helpful", weight=2.0), Objective(name="harmless", weight=0.5)
    assert weigh(scores, [(0, helpful), (1, harmless)]).tolist() == [[4.25, 2.0], [5.5, 5.75]]
    floor = Objective(name="harmless", weight=0.0, at_least=0.0)
    assert weigh(scores, [(0, helpful), (1, floor)]).tolist() == [[4.0, 2.0], [6.0 - PRICE, 6.0 - PRICE / 2]]


def test_members_become_one_by_mean_lowest_or_caution():
    scores = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert of_members(scores, Scoring()).tolist() == [2.0, 2.0]
    assert of_members(scores, Scoring(ensemble="min")).tolist() == [1.0, 2.0]
    assert of_members(scores, Scoring(ensemble="penalised", penalty=0.5)).tolist() == [1.5, 2.0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_is_saved_with_its_name_and_constants(checkpoint, kind, tmp_path):
    from transformers import AutoModelForSequenceClassification

    names = ("helpful", "harmless")
    model = new_reward(kind, [str(checkpoint("Llama"))], PLAIN, seed=3, objectives=names, members=2)
    model.mean, model.std = [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]
    if kind == "features":
        torch.nn.init.normal_(model.readout.weight)
    save_reward(model, tmp_path)
    again = load_reward([str(tmp_path)], PLAIN)
    assert (again.objectives, again.members, again.mean, again.std) == (names, 2, model.mean, model.std)
    groups = [((5, 11, 3), [(9, 30, 2), (4, 8, 2)])]
    rows = lay_out(groups, model.pad_id, model.layout)
    with torch.no_grad():
        scores = model(rows)
        assert scores.shape == (2, 4) and torch.equal(again(rows), scores)
    if kind == "sequence":
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        assert list(theirs.config.id2label.values()) == ["helpful 0", "helpful 1", "harmless 0", "harmless 1"]
        logits = theirs(input_ids=torch.tensor([[5, 11, 3, 9, 30, 2]])).logits.detach()
        torch.testing.assert_close(logits[0], scores[0], rtol=1e-4, atol=1e-5)


def test_one_output_is_saved_as_it_always_was(checkpoint, tmp_path):
    """Reward models of earlier versions open, and theirs open ours."""
    model = new_reward("sequence", [str(checkpoint("Llama"))], PLAIN)
    model.mean, model.std = [0.7], [2.5]
    save_reward(model, tmp_path)
    stored = json.loads((tmp_path / "reward_model.json").read_text())
    assert stored == {"format": "trueup-reward-model", "version": 1, "kind": "sequence", "mean": 0.7, "std": 2.5}


# --- what is learnt


def test_a_planted_trade_off_is_recovered(checkpoint, encoder, train):
    """Half the judgements want 'rain', the others 'red', and say so. Each head learns its own; weights choose."""
    names = ("rainy", "red")
    rows = on("rainy", "rain", 250, 1) + on("red", "red", 250, 2)
    held = on("rainy", "rain", 60, 3, "heldout") + on("red", "red", 60, 4, "heldout")
    config = settings("reward", steps=60, batch_size=32, optimizer={"lr": 3e-3}, model={"adapter": "none"})
    config = config.model_copy(update={"objectives": names})
    model = new_reward("sequence", [str(checkpoint("Llama"))], config.model, objectives=names)
    items, heldout = (judged(encoder, some, 96, names)[0] for some in (rows, held))
    train(reward, config, model, items, heldout)
    found = evaluate_objectives(RewardScorer(model), held, names)
    assert {name: each["n"] for name, each in found.items()} == {"rainy": 60, "red": 60}
    assert min(each["value"] for each in found.values()) > 0.9

    rainy, red = Completion(PROMPT, "old rain cat dog mat"), Completion(PROMPT, "old red cat dog mat")

    def prefers_rain(*objectives: Objective) -> bool:
        first, second = RewardScorer(model, scoring=Scoring(objectives=objectives)).score([rainy, red])
        assert set(first.parts) == set(names)
        return first.value > second.value

    assert prefers_rain(Objective(name="rainy"), Objective(name="red", weight=0.1))
    assert not prefers_rain(Objective(name="rainy", weight=0.1), Objective(name="red"))
    assert not prefers_rain(Objective(name="rainy", weight=2.0), Objective(name="red", weight=0.0, at_least=1.0))


def test_members_agree_on_what_they_were_shown_and_differ_elsewhere(checkpoint, encoder, train):
    config = settings("reward", steps=40, members=4, batch_size=32, optimizer={"lr": 3e-3}, model={"adapter": "none"})
    model = new_reward("sequence", [str(checkpoint("Llama"))], config.model, members=4)
    rows = on("", "rain", 200, 1)
    items, _ = judged(encoder, rows, 96)
    train(reward, config, model, items, [])
    scorer = RewardScorer(model)
    shown = scorer.score([Completion(row.prompt, text) for row in rows[:50] for text in row.completions])
    assert all(set(score.parts) == {"overall", "spread"} for score in shown)
    assert len({round(value, 6) for value in model.mean}) == 4, "each member has constants of its own"
    by_member = model.by_objective(model.normalised(scorer.raw([Completion(rows[0].prompt, "rain rain")])))
    assert by_member.shape == (1, 1, 4) and float(by_member.std()) > 0
    right = sum(a.value > b.value for a, b in zip(shown[::2], shown[1::2], strict=True) if a.value != b.value)
    wanted = sum(row.ranks == (1, 2) for row in rows[:50])
    assert abs(right - wanted) <= 5


def test_thumbs_alone_teach_a_scorer(checkpoint, encoder, train):
    chance = random.Random(5)
    texts = [nouns(chance, 5) for _ in range(300)]
    rows = [
        Judgement(Prompt.user(nouns(chance, 3)), (t,), (1,), "ann", "human", ratings={"thumb": (float("rain" in t),)})
        for t in texts
    ]
    config = settings("reward", steps=60, batch_size=32, optimizer={"lr": 3e-3}, model={"adapter": "none"})
    model = new_reward("sequence", [str(checkpoint("Llama"))], config.model)
    items, _ = judged(encoder, rows[:250], 96)
    run = train(reward, config, model, items, judged(encoder, rows[250:], 96)[0])
    assert max(row.get("heldout_accuracy", 0) for row in run.metrics()) > 0.9
    (up, down) = RewardScorer(model).raw([Completion(PROMPT, "old rain cat"), Completion(PROMPT, "old town cat")])
    assert float(up) > 0 > float(down), "above 0 is right"


# --- how it is trained


def first_losses(train, checkpoint, encoder, rows, **given) -> float:
    prompts = len({row.prompt.id for row in rows})
    config = settings("reward", steps=1, batch_size=prompts, model={"adapter": "none"}, **given)
    model = new_reward("sequence", [str(checkpoint("Llama"))], config.model)
    items, _ = judged(encoder, rows, 96)
    return train(reward, config, model, items, []).metrics()[0]["loss"]


def test_settings_change_the_loss_as_written_out(train, checkpoint, encoder):
    """One pair with strength 2, from the raw scores of the untrained model."""
    import math

    row = Judgement(PROMPT, ("old rain", "town"), (1, 2), "ann", "human", meta={"strength": -2})
    model = new_reward("sequence", [str(checkpoint("Llama"))], PLAIN)
    a, b = RewardScorer(model).raw([Completion(PROMPT, t) for t in row.completions])[:, 0].tolist()

    def nll(d: float) -> float:
        return math.log1p(math.exp(-d))

    expected = {
        (): nll(a - b),
        (("strength", "small-margin"),): nll(a - b - 2 / 3),
        (("strength", "large-margin"),): nll(a - b - 2),
        (("strength", "weight"),): 2 * nll(a - b),
        (("wrong_share", 0.2),): 0.8 * nll(a - b) + 0.2 * nll(b - a),
        (("wrong_share", 0.2), ("unbiased", True)): (0.8 * nll(a - b) - 0.2 * nll(b - a)) / 0.6,
        (("centring", 0.5),): nll(a - b) + 0.5 * (a + b) ** 2,
        (("loss", "plackett-luce"),): nll(a - b),
    }
    for given, loss in expected.items():
        assert first_losses(train, checkpoint, encoder, [row], **dict(given)) == pytest.approx(loss, rel=1e-4), given


def test_the_order_of_prompts_judgements_and_sides_is_no_matter(train, checkpoint, encoder):
    rows = on("", "rain", 12, 1)
    rows += [Judgement(row.prompt, row.completions, row.ranks[::-1], "bob", "human") for row in rows[:4]]
    turned = [Judgement(r.prompt, r.completions[::-1], r.ranks[::-1], r.judge, "human") for r in reversed(rows)]
    losses = [first_losses(train, checkpoint, encoder, each) for each in (rows, turned)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_what_is_held_out_is_measured_without_margin_or_smoothing(encoder):
    ((item,), _) = judged(encoder, [Judgement(PROMPT, ("a", "b"), (1, 2), "x", "human", meta={"strength": 3})], 96)
    scores = torch.tensor([[[0.4]], [[0.1]]])
    assert float(likelihood_loss(scores, item)) == pytest.approx(0.554355, abs=1e-5)


def test_it_ends_when_the_held_out_loss_stops_falling(checkpoint, encoder, train):
    """Held-out judgements the wrong way round: the better it learns, the worse their loss."""
    rows, held = on("", "rain", 60, 1), on("", "rain", 20, 2, "heldout")
    upside_down = [Judgement(r.prompt, r.completions[::-1], r.ranks, "x", "human", split="heldout") for r in held]
    config = settings(
        "reward", steps=200, patience=2, optimizer={"lr": 3e-3}, run={"evaluate_every": 5}, model={"adapter": "none"}
    )
    model = new_reward("sequence", [str(checkpoint("Llama"))], config.model)
    items, heldout = (judged(encoder, some, 96)[0] for some in (rows, upside_down))
    run = train(reward, config, model, items, heldout)
    (stop,) = [event for event in run.events() if event["kind"] == "stop"]
    assert stop["step"] < 200 and "2 evaluations" in str(stop)
    losses = {row["step"]: row["heldout_loss"] for row in run.metrics() if "heldout_loss" in row}
    assert min(losses, key=losses.__getitem__) == stop["step"] - 10 == run.result["best_step"]


def test_a_held_out_loss_that_is_no_number_is_no_progress():
    """Not even as the first one, when there is nothing to compare it with."""
    from types import SimpleNamespace

    from trueup.train.reward import _stop_when_no_better

    stops: list[str] = []
    loop = SimpleNamespace(memory={}, stop=stops.append)
    for loss in (float("nan"), 0.7, float("nan"), 0.8):
        _stop_when_no_better(loop, loss, 2)  # type: ignore[arg-type]
    assert loop.memory == {"lowest": 0.7, "waited": 2} and len(stops) == 1


def test_scores_get_their_scale_from_the_reference(checkpoint, encoder, train):
    config = settings("reward", steps=5, model={"adapter": "none"})
    items, _ = judged(encoder, on("", "rain", 40, 1), 96)
    models = [new_reward("sequence", [str(checkpoint("Llama"))], config.model) for _ in range(2)]
    texts = [nouns(random.Random(i), 4) for i in range(40)]
    group = (encoder.prompt(PROMPT), [encoder.completion(PROMPT, text) for text in texts])
    train(reward, config, models[0], items, [], [group])
    train(reward, config, models[1], items, [])
    scores = torch.tensor([s.value for s in RewardScorer(models[0]).score([Completion(PROMPT, t) for t in texts])])
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert models[0].mean != models[1].mean
