"""Judging a demo's own candidates and training again: what is tested on what, and how plainly it is said."""

from __future__ import annotations

import json
import shlex

import pytest
from small import add_small_data

from trueup import api, loading, retraining
from trueup.cli.main import run
from trueup.errors import ConfigError, DataError, NotFoundError, RunError, TrueupError
from trueup.feedback import relabel
from trueup.feedback.desk import Desk
from trueup.feedback.relabel import ENOUGH, FEWEST, compared, parts, points
from trueup.records import Judgement, Prompt
from trueup.store import audit, people, queue
from trueup.store.queue import NewItem


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
    with pytest.raises(DataError, match=f"{FEWEST - 1} prompts that prefer something"):
        parts([said(i) for i in range(FEWEST - 1)] + [said(99, (1, 1))])


def test_points_are_one_for_agreement_a_half_for_equal_scores_and_none_for_ties():
    judgements = [said(1), said(2), said(3), said(4, (1, 1)), said(5, (2, 1))]
    assert points(judgements, [(2, 1), (1, 2), (1, 1), (5, 1), (0, 1)]) == [1, 0, 0.5, 1]
    assert points([said(4, (1, 1))], [(1, 2)]) == []


def test_the_pairs_of_a_ranking_and_the_votes_on_a_prompt_are_one_point():
    """Three rankings of nine have 108 pairs, and are three prompts for all that."""
    ranking = Judgement(Prompt.user("r"), ("a", "b", "c"), (1, 2, 3), "human:abc234", "human")
    assert points([ranking], [(3, 2, 1)]) == [1] and points([ranking], [(2, 3, 1)]) == [pytest.approx(2 / 3)]
    assert points([said(1), said(1, (2, 1)), said(2)], [(2, 1)] * 3) == [0.5, 1]
    nine = Judgement(Prompt.user("n"), tuple("abcdefghi"), tuple(range(1, 10)), "human:abc234", "human")
    with pytest.raises(DataError, match="judgements of 1 prompts that prefer"):
        parts([nine] * 40)


def test_a_comparison_says_whose_with_n_intervals_and_plain_words():
    me = ["human:abc234"]
    few = compared([0.0] * 10, [1.0] * 10, "each half in turn", me)
    assert few["n"] == 10 and not few["enough"] and few["with"] == me
    assert few["verdict"].startswith("Too small to matter: n = 10") and "72% to 100%" in few["verdict"]
    assert few["after"] == {"value": 1.0, "ci": [pytest.approx(0.7225, abs=1e-3), 1.0], "n": 10}
    same = compared([1.0, 0.0] * 60, [0.0, 1.0] * 60, "held out", me)
    assert (same["gained"], same["lost"]) == (60, 60) and "chance" in same["verdict"] and same["enough"]
    more = compared([0.0] * 60 + [1.0] * 60, [1.0] * 120, "held out", me)
    assert more["verdict"] == "The model agrees more than before (+50.0%)."
    assert "less" in compared([1.0] * 120, [0.0] * 120, "held out", me)["verdict"]


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
    relabel.start(workspace, 10**9)
    return judge_some(workspace, people.add_person(workspace.database, "Ada", "owner", 0), 12, longer=True)


def judge_some(workspace, person, n: int, *, longer: bool) -> str:
    clock = iter(range(10**9, 10**9 + 10**6))
    desk = Desk(workspace, relabel.COLLECTION, lambda: float(next(clock)))
    desk.config = desk.config.model_copy(update={"repeat_share": 0.0})  # a repeat comes at random, and is no vote
    for _ in range(n):
        view = desk.next(person.id)
        if view is None:
            break
        first, second = map(len, view.completions)
        desk.answer(person.id, view.assignment, "k", {"choice": -1 if (first > second) == longer else 1})
    return person.judge


def test_a_model_learns_nothing_about_the_prompts_it_is_tested_on(workspace, judged, monkeypatch):
    learnt = []

    def note(ws, row, config, data):
        learnt.append({j.prompt.id for j in loading.read_judgements(data) if j.split == "train"})
        return trained(ws, row, config, data)

    trained = retraining._trained
    monkeypatch.setattr(retraining, "_trained", note)
    found = api.retrain(workspace, relabel.COLLECTION, votes="add", steps=1)
    asked = {j.prompt.id for j in workspace.judgements() if j.source == "human"}
    first, second, kept = learnt
    assert not first & second & asked, "of what people said, each half is closed to one of the two"
    assert len(asked - first) + len(asked - second) == len(asked)
    assert found["known_before"] > 0, "and it says that the model before had the easier test"
    held = {j.prompt.id for j in workspace.judgements() if j.source == "human" and j.split == "heldout"}
    assert held and not held & kept and asked - held <= kept, "the model that stays learns nothing that is held out"
    rows = loading.read_judgements(workspace.get(workspace.get(found["model"]).parents["data"]))
    assert not kept & {j.prompt.id for j in rows if j.split == "heldout"}, "no prompt is on both sides"


def test_retraining_keeps_people_apart_and_tells_how_much_it_knows(workspace, judged):
    added = api.retrain(workspace, relabel.COLLECTION, votes="add", steps=1, name="with-mine")
    mine = [j for j in workspace.judgements() if j.source == "human"]
    train = sum(j.split == "train" for j in mine)
    assert 8 <= added["trained_on"]["human"] == train < added["judgements"] == 12 and added["people"] == 1
    assert added["trained_on"]["imported"] > 9 and added["models_trained"] == 3
    agreement = added["agreement"]
    assert agreement["n"] == 12 == agreement["before"]["n"] and agreement["tested_on"] == "each half in turn"
    assert agreement["with"] == added["judges"] == [judged]
    assert not agreement["enough"] and agreement["verdict"].startswith("Too small to matter: n = 12 prompts")
    model = workspace.get("with-mine")
    assert model.id == added["model"] and model.kind == "reward"
    lineage = workspace.lineage(model)
    counts = {(e["source"], e["judge"]): e["count"] for e in lineage.nodes[model.parents["data"]].judgements}
    assert counts[("human", judged)] == 12
    assert f"judgements, human: 12 ({judged} 12)" in lineage.text()

    alone = api.retrain(workspace, relabel.COLLECTION, votes="only-mine", steps=1)
    assert alone["trained_on"] == {"human": train} and alone["model"] != added["model"]
    assert alone["agreement"]["before"] == agreement["before"]
    json.dumps(alone)


def test_what_is_longer_than_the_model_reads_is_left_out_and_counted(workspace, judged):
    """Found before anything is trained: at the end it would cost all that was."""
    long = NewItem(Prompt.user("the cat"), ("rain " * 200, "red"), workspace.get("candidates").id, (True, True))
    about = queue.collection(workspace.database, relabel.COLLECTION)
    queue.add_items(workspace.database, about.id, [long], 10**9)
    judge_some(workspace, people.people(workspace.database)[0], 60, longer=True)
    said = [j for j in workspace.judgements() if j.source == "human"]
    assert sum("rain " * 200 in j.completions for j in said) == 1
    found = api.retrain(workspace, relabel.COLLECTION, votes="only-mine", steps=1)
    assert found["left_out"]["longer than the reward model reads"] == 1
    assert found["judgements"] == len(said) - 1


def test_whose_votes_is_said_in_text_and_json_and_noted(workspace, judged, capsys):
    """Ada is the owner, so `me`; Bea, who likes short answers, judged some as well."""
    bea = people.add_person(workspace.database, "Bea", "annotator", 1)
    judge_some(workspace, bea, 9, longer=False)
    command = ["--workspace", str(workspace.path), "feedback", "retrain", relabel.COLLECTION, "--steps", "1"]
    assert run([*command, "--votes", "only-mine", "--judge", "me", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["judges"] == found["agreement"]["with"] == [judged]
    assert found["judgements"] == found["agreement"]["n"] == 12 and found["left_out"] == {"by somebody else": 9}
    assert run([*command, "--judge", bea.judge]) == 0
    text = capsys.readouterr().out
    assert f"agreement with {bea.judge} before" in text and f"agreement with {bea.judge} after" in text
    assert "n = 9 prompts" in text and "Too small to matter" in text and judged not in text
    said = audit.entries(workspace.database)[-1]
    assert (said["action"], said["person"]) == ("retrained", "")
    assert said["details"]["judges"] == [bea.judge] and workspace.get(said["details"]["artifact"]).kind == "reward"
    assert workspace.get(said["details"]["frozen"]).meta["judges"] == [bea.judge]
    assert run([*command, "--judge", "human:nobody"]) == 1
    assert "'human:nobody' has judged nothing in this collection" in capsys.readouterr().err


def test_what_cannot_be_trained_is_refused_before_a_run_is_recorded(workspace, judged, monkeypatch):
    def full(path, needed):
        raise RunError("too little space")

    before = list(workspace.run_rows())
    monkeypatch.setattr("trueup.runs.run.check_space", full)
    with pytest.raises(RunError, match="too little space"):
        api.retrain(workspace, relabel.COLLECTION, votes="only-mine", steps=1)
    assert list(workspace.run_rows()) == before


def test_me_is_somebody_only_where_somebody_owns_the_workspace(workspace):
    with pytest.raises(NotFoundError, match="nobody has judged here"):
        retraining.pseudonym(workspace, "me")
    people.add_person(workspace.database, "Bea", "annotator", 0)
    owner = people.add_person(workspace.database, "Ada", "owner", 1)
    assert retraining.pseudonym(workspace, "me") == owner.judge
    assert retraining.pseudonym(workspace, "human:abc234") == "human:abc234"


def test_what_label_says_when_it_ends_works_when_it_is_pasted(workspace, judged, capsys):
    from trueup.cli.label import _what_next

    said = _what_next(workspace)
    assert said.startswith("12 judged. Train the reward model again")
    commands = [shlex.split(line) for line in said.splitlines()[1:]]
    assert [command[0] for command in commands] == ["trueup", "trueup"]
    for command in commands:
        assert run([*command[1:], "--steps", "1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["votes"] == command[-1]


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
