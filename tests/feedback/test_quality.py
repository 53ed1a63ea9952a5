"""Figures of a collection whose people are known: what is measured, who is warned about, what is stored."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from crowd import always_left, open_collection, ranker, reader, worth

from trueup import asking
from trueup.errors import DataError, NotFoundError
from trueup.feedback import quality
from trueup.feedback.tally import PAIR, Tally, said
from trueup.records import Judgement, Prompt
from trueup.runs import Run, runs
from trueup.store import Workspace, people, queue


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Four people who read and one who does not, on 60 pairs and 12 golds."""
    with Workspace.create(tmp_path_factory.mktemp("quality") / "workspace") as workspace:
        crowd = open_collection(workspace, items=60, golds=12, overlap=3, crowd=5)
        crowd.work([reader(0.95), reader(0.85), reader(0.95), reader(0.9), always_left])
        crowd.value = asking.quality(workspace, "votes")
        yield crowd


def by_judge(crowd):
    """Person by person, in the order in which they came."""
    found = {each["judge"]: each for each in crowd.value["value"]["judges"]}
    return [found[person.judge] for person in crowd.people]


def test_everything_that_was_asked_for_is_there(judged):
    value = judged.value["value"]
    assert value["counts"]["work"] == 180 and value["counts"]["items"] == 60 and value["counts"]["people"] == 5
    assert value["counts"]["golds"] > 20
    assert value["n"] == len(list(queue.current_judgements(judged.workspace.database, judged.id)))
    for name in ("percent", "percent_without_ties", "alpha", "alpha_ordinal", "fleiss"):
        found = value["agreement"][name]
        assert found["low"] < found["value"] < found["high"] and found["n_items"] == 60, name
    assert value["strength"]["n_items"] == 60 and 0.5 < value["implied_accuracy"] < 1
    assert json.loads(json.dumps(value)) == value


def test_agreement_is_what_counting_pairs_of_votes_gives(judged):
    votes: dict[str, list[tuple[int, ...]]] = {}
    for judgement, about in queue.current_judgements(judged.workspace.database, judged.id):
        if about["role"] == "main" and about["round"] == 0:
            votes.setdefault(about["item"], []).append(judgement.ranks)
    pairs = [a == b for given in votes.values() for i, a in enumerate(given) for b in given[i + 1 :]]
    assert judged.value["value"]["agreement"]["percent"]["value"] == pytest.approx(np.mean(pairs))


def test_whoever_does_not_read_stands_out_and_is_only_warned_about(judged):
    *careful, lazy = by_judge(judged)
    assert lazy["position"]["value"] == 1 and lazy["position"]["warn"]
    assert lazy["run"]["warn"] and lazy["run"]["value"] > 20
    assert lazy["reliability"]["value"] < min(each["reliability"]["value"] for each in careful)
    assert lazy["gold"]["value"] < 0.8 and lazy["gold"]["low"] < lazy["gold"]["value"] < lazy["gold"]["high"]
    assert not any(each[what]["warn"] for each in careful for what in ("position", "run", "gold"))
    assert any(lazy["judge"] in warning and "position" in warning for warning in judged.value["value"]["warnings"])
    still = {j.judge for j, _ in queue.current_judgements(judged.workspace.database, judged.id)}
    assert lazy["judge"] in still, "figures remove nothing"


def test_speed_is_words_over_seconds_spent_looking(judged):
    (first, *_) = by_judge(judged)
    words = [
        sum(len(text.split()) for text in (*j.completions, j.prompt.text))
        for j, about in queue.current_judgements(judged.workspace.database, judged.id)
        if j.judge == first["judge"] and about["role"] == "main" and about["round"] == 0
    ]
    assert first["speed"]["value"] == pytest.approx(np.median(words) / 9)


def test_the_run_is_an_ordinary_one_and_the_figures_are_kept_with_their_age(judged):
    (run,) = [run for run in runs(judged.workspace) if run.stage == "quality"]
    assert run.status == "done" and run.result["n"] == judged.value["n"]
    now = judged.value["made"] + 3600
    stored = quality.summary(judged.workspace, "votes", now)
    assert stored["value"] == judged.value["value"] and stored["age"] == pytest.approx(3600) and stored["since"] == 0


def test_summary_counts_what_came_since(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=6, overlap=1, crowd=1)
        assert quality.summary(workspace, "votes", 0.0) is None
        with pytest.raises(DataError, match="nobody has judged"):
            asking.quality(workspace, "votes")
        (failed,) = runs(workspace)
        assert Run.load(workspace, failed.id).status == "failed"
        crowd.work([reader()], most=2)
        asking.quality(workspace, "votes")
        crowd.work([reader()], most=3, seed=1)
        assert quality.summary(workspace, "votes", time.time())["since"] == 3
        with pytest.raises(NotFoundError):
            quality.summary(workspace, "votse", 0.0)


def test_unanimous_answers_are_undefined_not_perfect(tmp_path):
    """Everybody always finds the same completion of the item better: there is nothing to agree beyond."""

    def second_of_item(view, chance):
        texts = list(view.completions)
        return {"choice": 1 if worth(texts[1]) > worth(texts[0]) else -1}

    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=4, overlap=2, crowd=2)
        keep = [item for item in crowd.items if worth(item.texts[1]) > worth(item.texts[0])]
        for item in crowd.items:
            if item not in keep:
                queue.quarantine(workspace.database, item.id, "test", 0.0)
        crowd.work([second_of_item, second_of_item])
        found = asking.quality(workspace, "votes")["value"]["agreement"]
        assert found["percent"]["value"] == 1
        for name in ("alpha", "alpha_ordinal", "fleiss"):
            assert found[name]["value"] is None and found[name]["why"] == "all answers equal"


def test_rankings_and_ratings_are_measured_on_their_own_scales(tmp_path):
    def rate(view, chance):
        return {"ratings": {"overall": [min(7, 1 + worth(t) // 3 + chance.randrange(2)) for t in view.completions]}}

    with Workspace.create(tmp_path / "workspace") as workspace:
        ranking = open_collection(workspace, items=8, k=3, overlap=2, crowd=2, task="ranking", name="ranking")
        ranking.work([ranker, ranker])
        value = asking.quality(workspace, "ranking")["value"]
        assert value["agreement"]["percent"]["value"] == 1 and value["agreement"]["percent"]["n_items"] == 24
        assert value["strength"] is None and "position" not in value["judges"][0]
        rating = open_collection(workspace, items=12, overlap=2, crowd=2, task="rating", name="rating")
        rating.work([rate, rate])
        axis = asking.quality(workspace, "rating")["value"]["axes"]["overall"]
        assert axis["alpha_interval"]["n_items"] == 24 and axis["alpha_interval"]["value"] > 0.5


def test_self_consistency_and_position_of_repeats(tmp_path):
    """Items come again with the sides swapped: whoever always presses left contradicts themselves every time."""
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=40, overlap=2, crowd=2, repeat_share=0.25)
        crowd.work([reader(), always_left])
        value = asking.quality(workspace, "votes")["value"]
        assert value["counts"]["repeats"] >= 8
        found = {each["judge"]: each["consistency"] for each in value["judges"]}
        careful, lazy = (found[person.judge] for person in crowd.people)
        assert careful["value"] == 1 and careful["n"] >= 4
        assert lazy["value"] == 0 and lazy["warn"]


# The tally, on records made by hand


def record(judge: str, ranks: tuple[int, ...], *, order=(0, 1), choice=1, guideline="g1", **meta) -> Judgement:
    about = {"answer": {"choice": choice}, "order": list(order), "guideline": guideline, "seconds": 10.0} | meta
    return Judgement(Prompt.user("a question"), ("short", "a longer text"), ranks, judge, "human", meta=about)


def about(item: str, at: float, role: str = "main", round: int = 0) -> dict:
    return {"item": item, "role": role, "round": round, "submitted": at}


def test_verdicts_are_in_item_coordinates_and_display_is_a_column_of_its_own():
    tally = Tally()
    tally.add(record("x", (1, 2), order=(0, 1)), about("i", 1), ())
    tally.add(record("y", (1, 2), order=(1, 0)), about("i", 2), ())
    tally.add(record("z", (1, 1)), about("i", 3), ())
    votes = said(tally, PAIR)
    assert votes.value.tolist() == [1, 1, 0] and len(set(votes.unit)) == 1
    assert tally["first"].tolist() == [1, 0, -1]
    assert tally["longer"].tolist() == [0, 0, -1] and tally["gap"].tolist() == [2, 2, 2]
    assert tally["answer"][0] != tally["answer"][1]


def test_drift_follows_control_pairs_in_time():
    """Three steady people and one who turns at half time; controls of all four."""
    tally = Tally()
    for at in range(60):
        for judge in "abcd":
            turned = judge == "d" and at >= 30
            tally.add(record(f"human:{judge}", (2, 1) if turned else (1, 2)), about(f"c{at}", at, "control"), ())
    tally.add(record("human:a", (1, 2)), about("i", 99), ())
    found = {each["judge"]: each for each in quality.describe(tally, {0: 1})["judges"]}
    assert found["human:d"]["drift"]["warn"] and found["human:d"]["drift"]["value"] == -1
    assert not any(found[f"human:{judge}"]["drift"]["warn"] for judge in "abc")


def test_slices_by_guideline_length_and_strength():
    """Under the second version people agree; by length and strength each item is in one slice."""
    chance = np.random.default_rng(0)
    tally = Tally()
    for i in range(200):
        version = "g1" if i < 100 else "g2"
        for judge in "ab":
            right = version == "g2" or chance.random() < 0.6
            vote = record(f"human:{judge}", (1, 2) if right else (2, 1), guideline=version, choice=1 + i % 3)
            texts = ("word " * (1 + i % 9), "word")
            vote = Judgement(vote.prompt, texts, vote.ranks, vote.judge, "human", meta=vote.meta)
            tally.add(vote, about(f"i{i}", i), ())
    value = quality.describe(tally, {0: 1, 1: 2})
    by_name: dict[str, list] = {}
    for each in value["slices"]:
        by_name.setdefault(each["slice"], []).append(each)
    before, after = by_name["guideline"]
    assert (before["value"], after["value"]) == ("version 1", "version 2")
    assert before["percent"]["high"] < after["percent"]["value"] == 1
    for name in ("difference in length", "strength of preference"):
        assert sum(each["percent"]["n_items"] for each in by_name[name]) == 200
    (kappa,) = value["cohen"]
    assert kappa["judges"] == ["human:a", "human:b"] and kappa["n_items"] == 200


def test_a_judgement_leaves_a_few_numbers():
    tally = Tally()
    vote = record("human:a", (1, 2))
    for i in range(2000):
        tally.add(vote, about(f"i{i}", i), ())
    size = sum(column.itemsize * len(column) for column in tally.columns.values())
    votes = tally.votes[PAIR]
    size += sum(len(column) * column.itemsize for column in (votes.judgement, votes.part, votes.value))
    assert size / 2000 < 160, "bytes a judgement: a million fit into memory"


def test_people_who_left_keep_their_votes(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=5, overlap=1, crowd=1)
        crowd.work([reader()])
        people.anonymise(workspace.database, crowd.people[0].id)
        (judge,) = asking.quality(workspace, "votes")["value"]["judges"]
        assert judge["n"] == 5 and judge["judge"].startswith("human:")


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"task": "edit", "k": 1}, {"edited": 0, "text": "a better one"}),
        ({"task": "thumbs", "k": 1}, {"thumbs": ["unsure"]}),
    ],
)
def test_where_nothing_can_agree_the_other_figures_are_there(tmp_path, settings, answer):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=6, overlap=2, crowd=2, **settings)
        crowd.work([lambda view, chance: answer | {"active_ms": 5000}] * 2)
        value = quality.compute(workspace, "votes")
    assert value["n"] == 12 and value["agreement"]["percent"]["value"] is None
    assert [each["speed"]["n"] for each in value["judges"]] == [6, 6]


def test_an_axis_may_be_called_a_pair(tmp_path):
    def rates(view, chance):
        return {"ratings": {"pair": [1, 7], "tone": [3, 3]}}

    with Workspace.create(tmp_path / "workspace") as workspace:
        axes = [{"name": "pair"}, {"name": "tone"}]
        crowd = open_collection(workspace, items=6, overlap=2, crowd=2, task="rating", axes=axes)
        crowd.work([rates, rates])
        value = quality.compute(workspace, "votes")
    assert set(value["axes"]) == {"pair", "tone"} and value["measured_on"] == "pairs of completions"
