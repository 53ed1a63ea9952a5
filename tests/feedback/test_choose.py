"""What is chosen, with which probability, and that the probabilities are true."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from trueup.errors import ConfigError, DataError
from trueup.feedback.choose import Candidate, choose, disagreement, entropy
from trueup.records import Prompt

WORDS = "red green blue wood stone river cloud night bread salt".split()


def pool(prompts: int = 40, pairs: int = 3, heldout: int = 8) -> list[Candidate]:
    asked = [Prompt.user(f"{WORDS[i % 10]} {WORDS[i * 7 % 10]} {i}") for i in range(prompts)]
    return [
        Candidate(prompt, (f"a{k}", f"b{k}"), heldout=i < heldout)
        for i, prompt in enumerate(asked)
        for k in range(pairs)
    ]


def scores(candidates, seed: int = 0, scorers: int = 1):
    chance = np.random.default_rng(seed)
    return chance.normal(size=(scorers, len(candidates), 2)) * 2


NEEDS = {"random": 0, "uncertainty": 1, "disagreement": 3, "diversity": 0}


@pytest.mark.parametrize("strategy", NEEDS)
def test_the_rules_that_hold_for_every_strategy(strategy):
    candidates = pool()
    given = scores(candidates, scorers=NEEDS[strategy]) if NEEDS[strategy] else ()
    picks = choose(candidates, 30, strategy, scores=given, seed=3)
    assert len({pick.candidate for pick in picks}) == 30
    assert all(0 < pick.probability <= 1 for pick in picks)
    at_random = [pick for pick in picks if pick.strategy == "random"]
    assert len(at_random) >= 0.2 * 30
    active = [pick for pick in picks if pick.strategy != "random"]
    assert not any(candidates[pick.candidate].heldout for pick in active)
    assert any(candidates[pick.candidate].heldout for pick in at_random)
    per_prompt = Counter(candidates[pick.candidate].prompt.id for pick in active)
    assert set(per_prompt.values()) <= {1}
    assert picks == choose(candidates, 30, strategy, scores=given, seed=3)
    assert picks != choose(candidates, 30, strategy, scores=given, seed=4)
    assert picks[0].why == {"strategy": picks[0].strategy, "probability": round(picks[0].probability, 8)}


@pytest.mark.parametrize("strategy", NEEDS)
def test_weighting_by_the_probability_gives_back_the_whole(strategy):
    """Horvitz-Thompson: each of 1/p over the picks of a stream sums, on average, to what the stream draws from."""
    candidates = pool(prompts=20, pairs=2, heldout=0)
    given = scores(candidates, scorers=NEEDS[strategy]) if NEEDS[strategy] else ()
    value = np.arange(len(candidates), dtype=float)
    estimates = []
    for seed in range(300):
        picks = choose(candidates, 12, strategy, scores=given, seed=seed)
        stream = [pick for pick in picks if pick.strategy == strategy]
        estimates.append(sum(value[pick.candidate] / pick.probability for pick in stream))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - value.sum()) < 4 * error


def test_uncertainty_prefers_scores_that_tie():
    candidates = pool(prompts=60, pairs=1, heldout=0)
    margin = np.linspace(-6, 6, 60)
    table = [[[m / 2, -m / 2] for m in margin]]
    near = [
        abs(margin[pick.candidate])
        for seed in range(20)
        for pick in choose(candidates, 20, "uncertainty", scores=table, seed=seed)
        if pick.strategy == "uncertainty"
    ]
    assert np.mean(near) < 0.6 * np.mean(np.abs(margin))


def test_disagreement_ignores_what_all_find_a_toss_up():
    agreed, split = np.zeros((4, 1)), np.array([[3.0], [-3.0], [3.0], [-3.0]])
    assert disagreement(agreed)[0] == pytest.approx(0, abs=1e-9)
    mean_p = 0.5
    one = -(p := 1 / (1 + np.exp(-3.0))) * np.log(p) - (1 - p) * np.log(1 - p)
    assert disagreement(split)[0] == pytest.approx(-np.log(mean_p) - one)
    assert entropy(np.array([0.0, 800.0, -800.0])) == pytest.approx([np.log(2), 0, 0])


def test_diversity_reaches_every_corner():
    themes = ["the recipe for bread", "the boat in the harbour", "a garden full of roses", "the trains to Vienna"]
    crowd = [Candidate(Prompt.user(f"{themes[0]} number {i}"), ("a", "b")) for i in range(60)]
    rare = [Candidate(Prompt.user(f"{theme} number {i}"), ("a", "b")) for theme in themes[1:] for i in range(2)]
    reached = []
    for seed in range(10):
        picks = choose([*crowd, *rare], 10, "diversity", seed=seed)
        active = [pick.candidate for pick in picks if pick.strategy == "diversity"]
        reached.append(sum(place >= 60 for place in active))
    assert np.mean(reached) > 2, "a uniform choice of 8 would take 0.7 of the 6 rare ones"


@pytest.mark.parametrize("pairs", [1, 3])
def test_more_than_there_is_gives_all_once(pairs):
    candidates = pool(prompts=5, pairs=pairs, heldout=1)
    picks = choose(candidates, 100, "diversity")
    assert sorted(pick.candidate for pick in picks) == list(range(5 * pairs))


def test_where_prompts_run_out_the_rest_is_random():
    candidates = pool(prompts=6, pairs=5, heldout=0)
    picks = choose(candidates, 20, "diversity")
    assert sum(pick.strategy == "diversity" for pick in picks) <= 6 and len(picks) == 20


@pytest.mark.parametrize(
    "problem, strategy, scorers, more",
    [
        ("did you mean 'uncertainty'", "uncertanty", 1, {}),
        ("needs several reward models", "disagreement", 1, {}),
        ("needs a reward model", "uncertainty", 0, {}),
        ("random share is 0.1", "diversity", 0, {"random_share": 0.1}),
    ],
)
def test_what_cannot_be_chosen_by(problem, strategy, scorers, more):
    candidates = pool(prompts=4)
    with pytest.raises(ConfigError, match=problem):
        choose(candidates, 2, strategy, scores=scores(candidates, scorers=scorers) if scorers else (), **more)


# Into a collection, with real reward models


@pytest.fixture
def drafts(workspace):
    from crowd import prompts, texts

    from trueup.loading import put_records

    rows = [
        {"prompt": p.to_json(), "completions": [{"text": t} for t in texts(i, 4)]} for i, p in enumerate(prompts(12))
    ]
    return put_records(workspace, "completions", rows, name="drafts")


def test_chosen_pairs_enter_the_queue_with_why_and_never_twice(workspace, drafts):
    from crowd import open_collection, texts

    from trueup import asking
    from trueup.store import audit, queue

    crowd = open_collection(workspace, items=6, overlap=2, crowd=1)
    found = asking.choose(workspace, "votes", completions=["drafts"], n=20, strategy="diversity", heldout=0.3)
    assert found["added"] == found["chosen"] == 20 and found["random"] >= 4
    drafted = {tuple(sorted(pair)) for i in range(12) for pair in combinations(texts(i, 4), 2)}
    assert found["candidates"] == 72 - sum(tuple(sorted(item.texts)) in drafted for item in crowd.items) < 72
    items = [item for item in queue.items(workspace.database, crowd.id) if "strategy" in item.why]
    assert len(items) == 20 and all(0 < item.why["probability"] <= 1 and item.overlap == 2 for item in items)
    assert {item.why["batch"] for item in items} == {found["batch"]} and not any("rewards" in i.why for i in items)
    assert {item.split for item in items if item.why["strategy"] == "diversity"} == {"train"}
    last = audit.entries(workspace.database)[-1]
    assert (last["action"], last["person"], last["about"]) == ("chose items", "", crowd.id)
    assert last["details"]["artifact"] == items[0].completions and last["details"]["batch"] == found["batch"]
    before = crowd.desk.next(crowd.people[0].id)
    crowd.desk.postpone(crowd.people[0].id, before.assignment)
    asking.choose(workspace, "votes", completions=["drafts"], n=1, first=True, seed=5)
    newest = max(queue.items(workspace.database, crowd.id), key=lambda item: item.position)
    assert crowd.desk.next(crowd.people[0].id).prompt[0]["content"] == newest.prompt.text
    rest = asking.choose(workspace, "votes", completions=["drafts"], n=1000)
    assert rest["added"] == rest["chosen"] == found["candidates"] - 21
    with pytest.raises(Exception, match="every candidate"):
        asking.choose(workspace, "votes", completions=["drafts"], n=1)


def test_several_reward_models_score_the_candidates(workspace, drafts, checkpoint, tmp_path):
    from crowd import open_collection
    from small import QUIET, add_small_data

    from trueup import api, asking
    from trueup.store import queue

    add_small_data(workspace, tmp_path, prompts=10)
    base = str(checkpoint("Llama"))
    for seed in (0, 1):
        settings = {"steps": 1, "model.adapter": "none", "run.seed": seed} | QUIET
        api.reward(workspace, base=base, data="preferences", name=f"reward-{seed}", **settings)
    crowd = open_collection(workspace, items=2, overlap=1, crowd=1, name="votes")
    found = asking.choose(
        workspace, "votes", completions=["drafts"], n=10, strategy="disagreement", rewards=["reward-0", "reward-1"]
    )
    assert found["added"] == 10
    why = [item.why for item in queue.items(workspace.database, crowd.id) if "strategy" in item.why]
    assert {each["strategy"] for each in why} == {"random", "disagreement"}
    scorers = [workspace.get(f"reward-{seed}").id for seed in (0, 1)]
    assert all(each["rewards"] == scorers and each["batch"] == found["batch"] for each in why)


def test_what_is_drawn_at_random_has_its_share_of_calibration_items(workspace, drafts):
    """Agreement on what a strategy picked would be that on the hardest pairs."""
    from crowd import prompts

    from trueup import asking
    from trueup.config import load
    from trueup.feedback.collect import collect
    from trueup.loading import put_records
    from trueup.store import queue

    def completions(number):
        return [
            {"prompt": p.to_json(), "completions": [{"text": f"{number} {j}"} for j in range(3)]} for p in prompts(80)
        ]

    first, more = (put_records(workspace, "completions", completions(number)) for number in (1, 2))
    settings = load("collection", sets=["calibration_share=0.4", "overlap=2"])
    collect(workspace, "c", settings, [first], now=0.0)
    asking.choose(workspace, "c", completions=[more], n=100, strategy="diversity", random_share=0.6)
    found = queue.items(workspace.database, queue.collection(workspace.database, "c").id, limit=999)
    items = [item for item in found if "batch" in item.why]
    roles = Counter((item.why["strategy"], item.role, item.overlap) for item in items)
    assert set(roles) == {("diversity", "main", 2), ("random", "main", 2), ("random", "calibration", 3)}
    assert 12 < roles["random", "calibration", 3] < 40


def test_a_chosen_prompt_is_on_the_side_it_is_on_in_another_collection(workspace, drafts):
    from crowd import open_collection

    from trueup import asking
    from trueup.store import queue

    open_collection(workspace, items=12, overlap=1, crowd=1, heldout=5, name="before")
    crowd = open_collection(workspace, items=1, overlap=1, crowd=1, heldout=1, name="now")
    asking.choose(workspace, "now", completions=["drafts"], n=1000, heldout=0.9)
    sides = {item.prompt.text.split()[1]: item.split for item in queue.items(workspace.database, crowd.id)}
    assert sides == {str(i): "heldout" if i < 5 else "train" for i in range(12)}


# Another order for what waits


def test_what_waits_is_brought_forward_by_a_strategy_with_its_random_share(workspace):
    from crowd import open_collection, reader

    from trueup import asking
    from trueup.store import audit, queue

    crowd = open_collection(workspace, items=40, overlap=1, crowd=2, heldout=8, repeat_share=0)
    crowd.work([reader()], most=6)
    ada, bea = (person.id for person in crowd.people)
    desk = crowd.desk
    held = desk.next(ada)
    found = asking.reorder(workspace, "votes", n=20, strategy="diversity", random_share=0.3, seed=4)
    items = {item.id: item for item in queue.items(workspace.database, crowd.id, limit=99)}
    moved = {item.id: item for item in items.values() if "reordered" in item.why}
    assert found["candidates"] == 34 and found["chosen"] == 20 and found["moved"] == len(moved) >= 19
    assert {item.priority for item in moved.values()} == {1} and all(item.done == 0 for item in moved.values())
    why = [item.why["reordered"] for item in moved.values()]
    assert all(0 < each["probability"] <= 1 and each["batch"] == found["batch"] for each in why)
    assert found["random"] >= 6 and {each["strategy"] for each in why} == {"random", "diversity"}
    assert not any(i.split == "heldout" for i in moved.values() if i.why["reordered"]["strategy"] == "diversity")
    assert audit.entries(workspace.database)[-1]["details"]["batch"] == found["batch"]

    assert desk.view(held.assignment, ada).prompt == held.prompt, "what somebody holds stays theirs"
    desk.answer(ada, held.assignment, "k", {"choice": 1})
    came = []
    while (view := desk.next(bea)) is not None:
        desk.answer(bea, view.assignment, "k", {"choice": 1})
        came.append(view.prompt[0]["content"])
    first = {item.prompt.text for item in moved.values()}
    assert set(came[: len(first)]) == first and len(came) == 33, "they come first, and none is lost or comes twice"
    with pytest.raises(DataError, match="nothing waits"):
        asking.reorder(workspace, "votes", n=1)


def test_what_is_reordered_later_comes_before_what_was_reordered_first(workspace):
    from crowd import open_collection

    from trueup import asking
    from trueup.store import queue

    crowd = open_collection(workspace, items=30, overlap=1, crowd=1)
    for seed in (1, 2):
        found = asking.reorder(workspace, "votes", n=3, seed=seed)
    texts = {
        item.prompt.text
        for item in queue.items(workspace.database, crowd.id)
        if item.why.get("reordered", {}).get("batch") == found["batch"]
    }
    desk, who = crowd.desk, crowd.people[0].id
    came = []
    for _ in range(3):
        view = desk.next(who)
        came.append(view.prompt[0]["content"])
        desk.answer(who, view.assignment, "k", {"choice": 1})
    assert set(came) == texts


def test_single_completions_have_nothing_that_a_score_could_be_unsure_of():
    candidates = [Candidate(Prompt.user(f"p {i}"), ("alone",)) for i in range(4)]
    with pytest.raises(ConfigError, match="compares completions"):
        choose(candidates, 2, "uncertainty", scores=[[[1.0]] * 4])


# Gain over random


def test_the_benchmark_measures_every_strategy_against_random_on_the_same_worlds():
    from benchmarks.choose import compare

    found = compare(seeds=2, rounds=3)
    assert set(found["strategies"]) == set(NEEDS) and found["ceiling"] < 0.9
    for strategy, rows in found["strategies"].items():
        assert [row["votes"] for row in rows] == [20, 40, 60]
        assert rows[0]["gain"] == 0, "the first round is the same random one for all"
        assert all(
            0.55 < row["accuracy"] <= found["ceiling"] and row["ci"][0] <= row["gain"] <= row["ci"][1] for row in rows
        )
        assert strategy != "random" or all(row["gain"] == 0 for row in rows)


@pytest.mark.slow
def test_uncertainty_gains_over_random_once_the_model_knows_a_little():
    """In 60 worlds +0.56 points at 160 votes, 95% interval +0.33 to +0.82; docs/trust.md has the table."""
    from benchmarks.choose import compare

    last = compare(seeds=30)["strategies"]["uncertainty"][-1]
    assert last["ci"][0] > 0
