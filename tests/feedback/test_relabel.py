"""Judging a demo's own candidates and training again: what is tested on what, and how plainly it is said."""

from __future__ import annotations

import json

import pytest
from small import add_small_data

from trueup import api, retraining, wiring
from trueup.errors import ConfigError, DataError, TrueupError
from trueup.feedback import relabel
from trueup.feedback.desk import Desk
from trueup.feedback.relabel import ENOUGH, FEWEST, compared, parts, points
from trueup.records import Judgement, Prompt
from trueup.store import people


def said(i: int, ranks=(1, 2), split: str = "train") -> Judgement:
    return Judgement(Prompt.user(f"question {i}"), ("a", "b"), ranks, "human:abc234", "human", f"j{i}", split)


# The arithmetic


def test_few_judgements_are_each_tested_by_a_model_that_did_not_learn_from_them():
    judgements = [said(i // 2, split="heldout" if i % 3 else "train") for i in range(40)]
    found, how = parts(judgements)
    assert how == "each half in turn" and len(found) == 2
    assert sorted(j.id + str(j.ranks) for part in found for j in part.test) == sorted(
        j.id + str(j.ranks) for j in judgements
    )
    for part in found:
        prompts = [{j.prompt.id for j in side} for side in (part.train, part.test)]
        assert not prompts[0] & prompts[1] and all(len(side) == 10 for side in prompts)
        assert {j.split for j in part.train} == {"train"}


def test_with_a_hundred_held_out_those_are_the_test():
    judgements = [said(i, split="heldout" if i < ENOUGH else "train") for i in range(150)]
    ((part,), how) = parts(judgements)
    assert how == "held out" and len(part.test) == ENOUGH and len(part.train) == 50
    assert len(parts(judgements[1:])[0]) == 2
    assert len(parts([said(i, (1, 1), "heldout") for i in range(200)] + judgements[-50:])[0]) == 2


def test_too_few_to_train_on_is_an_error_that_counts_only_what_prefers_something():
    with pytest.raises(DataError, match=f"{FEWEST - 1} judgements that prefer something"):
        parts([said(i) for i in range(FEWEST - 1)] + [said(99, (1, 1))])


def test_points_are_one_for_agreement_a_half_for_equal_scores_and_none_for_ties():
    judgements = [said(1), said(2), said(3), said(4, (1, 1)), said(5, (2, 1))]
    assert points(judgements, [(2, 1), (1, 2), (1, 1), (5, 1), (0, 1)]) == [1, 0, 0.5, 1]
    assert points([said(4, (1, 1))], [(1, 2)]) == []


def test_a_comparison_has_n_intervals_and_plain_words():
    few = compared([0.0] * 10, [1.0] * 10, "each half in turn")
    assert few["n"] == 10 and not few["enough"] and "too few" in few["verdict"] and "72% to 100%" in few["verdict"]
    assert few["after"] == {"value": 1.0, "ci": [pytest.approx(0.7225, abs=1e-3), 1.0], "n": 10}
    same = compared([1.0, 0.0] * 60, [0.0, 1.0] * 60, "held out")
    assert (same["gained"], same["lost"]) == (60, 60) and "chance" in same["verdict"] and same["enough"]
    more = compared([0.0] * 60 + [1.0] * 60, [1.0] * 120, "held out")
    assert more["verdict"] == "The model agrees more than before (+50.0%)."
    assert "less" in compared([1.0] * 120, [0.0] * 120, "held out")["verdict"]


# The whole of it, on models of a few weights


@pytest.fixture
def judged(workspace, checkpoint):
    """A workspace as a demo leaves it, in which a person who likes long answers has judged 12 of its candidates."""
    add_small_data(workspace, workspace.path, prompts=24)
    base = str(checkpoint("Llama"))
    api.sample(
        workspace,
        model=base,
        prompts="prompts",
        name="candidates",
        per_prompt=3,
        sampling={"max_new_tokens": 6},
        run={"threads": 1},
    )
    api.reward(
        workspace, base=base, data="preferences", name="reward", steps=2, run={"threads": 1, "tensorboard": False}
    )
    clock = iter(range(10**9, 10**9 + 10**6))
    desk = Desk(workspace, relabel.start(workspace, 10**9), lambda: float(next(clock)))
    person = people.add_person(workspace.database, "Ada", "owner", 0)
    for _ in range(12):
        view = desk.next(person.id)
        first, second = map(len, view.completions)
        desk.answer(person.id, view.assignment, "k", {"choice": -1 if first > second else 1})
    return person.judge


def test_a_model_learns_nothing_about_the_prompts_it_is_tested_on(workspace, judged, monkeypatch):
    learnt = []

    def note(ws, row, config, data):
        learnt.append({j.prompt.id for j in wiring.read_judgements(data) if j.split == "train"})
        return trained(ws, row, config, data)

    trained = retraining._trained
    monkeypatch.setattr(retraining, "_trained", note)
    found = api.retrain(workspace, relabel.COLLECTION, votes="add", steps=1)
    asked = {j.prompt.id for j in workspace.judgements() if j.source == "human"}
    first, second, kept = learnt
    assert not first & second & asked and asked <= kept, "of what people said, each half is closed to one of the two"
    assert len(asked - first) + len(asked - second) == len(asked)
    assert found["known_before"] > 0, "and it says that the model before had the easier test"


def test_retraining_keeps_people_apart_and_tells_how_much_it_knows(workspace, judged):
    added = api.retrain(workspace, relabel.COLLECTION, votes="add", steps=1, name="with-mine")
    assert added["trained_on"]["human"] == added["judgements"] == 12 and added["people"] == 1
    assert added["trained_on"]["imported"] > 12 and added["models_trained"] == 3
    agreement = added["agreement"]
    assert agreement["n"] == 12 == agreement["before"]["n"] and agreement["tested_on"] == "each half in turn"
    assert not agreement["enough"] and "12 judgements are too few" in agreement["verdict"]
    model = workspace.get("with-mine")
    assert model.id == added["model"] and model.kind == "reward"
    lineage = workspace.lineage(model)
    counts = {(e["source"], e["judge"]): e["count"] for e in lineage.nodes[model.parents["data"]].judgements}
    assert counts[("human", judged)] == 12 and sum(n for (source, _), n in counts.items() if source == "imported") == 24
    assert f"judgements, human: 12 ({judged} 12)" in lineage.text()

    alone = api.retrain(workspace, relabel.COLLECTION, votes="only-mine", steps=1)
    assert alone["trained_on"] == {"human": 12} and alone["model"] != added["model"]
    assert alone["agreement"]["before"] == agreement["before"]
    json.dumps(alone)


def test_training_again_takes_half_the_steps_and_less_for_few_judgements(workspace, judged):
    from trueup import retraining

    row = retraining._maker(workspace, workspace.get("reward"))
    row.config["steps"] = 8
    assert retraining._settings(row, 0, ()).steps == 8
    row.config["steps"] = 140
    ten, thousand = [said(i) for i in range(10)], [said(i) for i in range(1000)]
    assert [retraining._settings(row, 0, mine).steps for mine in ((), ten, thousand)] == [70, 20, 70]
    assert retraining._settings(row, 7, ten).steps == 7


def test_what_cannot_be_trained_again_is_said(workspace, judged):
    with pytest.raises(ConfigError, match="unknown votes 'mine'"):
        api.retrain(workspace, relabel.COLLECTION, votes="mine")  # type: ignore[arg-type]
    with pytest.raises(TrueupError, match="not a reward model"):
        api.retrain(workspace, relabel.COLLECTION, reward="candidates")
