"""Frozen sets: which votes are in, what the rules make of them, and that the same votes give the same artifact."""

from __future__ import annotations

import math
from itertools import combinations, groupby
from random import Random

import pytest
from crowd import best_first, open_collection, ranker, reader, worth

from trueup import loading
from trueup.errors import ConfigError, DataError
from trueup.feedback import adjudicate, pooling
from trueup.feedback.freeze import Choice, freeze
from trueup.records import Demonstration, Judgement, Prompt
from trueup.store import Workspace, queue, read_jsonl
from trueup.store.items import NewItem
from trueup.text.formats import split_by_prompt


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """24 pairs, three votes each by four people, and four golds."""
    with Workspace.create(tmp_path_factory.mktemp("freeze") / "workspace") as workspace:
        crowd = open_collection(workspace, items=24, golds=4, heldout=5, guideline="Prefer what is worth more.")
        version = queue.collection(workspace.database, crowd.id).guideline
        for person in crowd.people:
            queue.acknowledge(workspace.database, person.id, version, crowd.clock())
        crowd.work([reader(0.9), reader(0.7), reader(0.8), reader(0.9)])
        yield crowd


def rows_of(frozen):
    return list(read_jsonl(frozen.artifact.path / "rows.jsonl"))


def standing(crowd):
    return [
        judgement
        for judgement, about in queue.current_judgements(crowd.workspace.database, crowd.id)
        if about["role"] == "main" and about["round"] == 0
    ]


# Raw votes


def test_raw_keeps_every_vote_whole_and_prompts_together(judged):
    frozen = freeze(judged.workspace, "votes", Choice())
    rows = loading.read_judgements(frozen.artifact)
    said = {judgement.id: judgement for judgement in standing(judged)}
    assert len(rows) == 72 and {row.id for row in rows} == set(said)
    assert all(row == said[row.id] and row.meta["answer"] == said[row.id].meta["answer"] for row in rows)
    prompts = [prompt for prompt, _ in groupby(row.prompt.id for row in rows)]
    assert len(prompts) == len(set(prompts)) == 24
    assert prompts == [item.prompt.id for item in judged.items if item.role == "main"]
    assert frozen.left_out["a check (gold)"] > 0
    assert frozen.votes == 72 and frozen.people == 4


def test_the_meta_says_how_and_the_lineage_lists_who(judged):
    artifact = freeze(judged.workspace, "votes", Choice()).artifact
    assert artifact.kind == "preferences" and artifact.meta["rule"] == "raw"
    assert artifact.meta["guidelines"] == {"1": 72}
    assert sum(artifact.meta["people"].values()) == 72
    assert artifact.meta["splits"] == {"heldout": 15, "train": 57}
    assert artifact.parents == {"completions": judged.items[0].completions}
    node = judged.workspace.lineage(artifact).nodes[artifact.id]
    assert {each["judge"]: each["count"] for each in node.judgements} == artifact.meta["people"]


@pytest.mark.parametrize("rule", pooling.RULES)
def test_the_same_votes_give_the_same_artifact(judged, rule):
    first = freeze(judged.workspace, "votes", Choice(rule=rule))
    again = freeze(judged.workspace, judged.id, Choice(rule=rule))
    assert first.artifact.id == again.artifact.id
    if rule == "raw":
        return
    votes = [row["id"] for row in read_jsonl(first.artifact.path / "votes.jsonl")]
    rows = rows_of(first)
    assert len(rows) == (24 if rule != "helpsteer" else first.rows) and {row["source"] for row in rows} == {"rule"}
    behind = [vote for row in rows for vote in row["meta"]["votes"]]
    assert behind == [vote for vote in votes if vote in set(behind)] and len(set(votes)) == 72
    assert len(behind) + sum(n for why, n in first.left_out.items() if "similar" in why) == 72


def test_one_more_vote_is_another_artifact(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=4, overlap=1, crowd=1)
        crowd.work([reader()], most=2)
        first = freeze(workspace, "votes", Choice())
        crowd.work([reader()], most=1, seed=1)
        second = freeze(workspace, "votes", Choice())
        assert (first.rows, second.rows) == (2, 3) and first.artifact.id != second.artifact.id


def test_rows_say_who_wrote_the_completions_and_how_the_item_was_chosen(tmp_path):
    """Without the probability of having been chosen, nobody could weight an active choice back."""
    why = {"strategy": "uncertainty", "probability": 0.25}
    completions = ("answer 0 worth 1 ", "answer 0 worth 5 ")

    def frozen(task, judge, *choices):
        crowd = open_collection(workspace, name=task, items=1, overlap=2, crowd=2, task=task)
        item = NewItem(
            Prompt.user("q"), completions, crowd.items[0].completions, (True, False), ("one", "two"), overlap=2, why=why
        )
        queue.add_items(workspace.database, crowd.id, [item], crowd.clock())
        crowd.work([judge, judge])
        for choice in choices:
            rows = rows_of(freeze(workspace, task, choice))
            yield [row for row in rows if row["prompt"]["messages"][0]["content"] == "q"]

    with Workspace.create(tmp_path / "workspace") as workspace:
        for rows in frozen("pair", reader(), Choice(), Choice(rule="soft")):
            assert rows and all(row["meta"]["models"] == ["one", "two"] and row["meta"]["why"] == why for row in rows)
        up = {"thumbs": ["up", "up"]}
        unpaired = [Choice("unpaired"), Choice("unpaired", "soft")]
        for rows in frozen("thumbs", lambda view, chance: up, *unpaired):
            said = {row["completions"][0]: row["meta"] for row in rows}
            assert [said[text]["models"] for text in completions] == [["one"], ["two"]]
            assert [said[text]["finished"] for text in completions] == [[True], [False]]
            assert all(meta["why"] == why for meta in said.values())

        def editor(view, chance):
            return {
                "edited": view.completions.index(completions[1]) if view.prompt[0]["content"] == "q" else 0,
                "text": "better",
            }

        pairs, demos = frozen("edit", editor, Choice(), Choice(kind="demonstrations"))
        assert pairs and all(row["meta"]["models"] == ["two", row["judge"]] for row in pairs)
        assert demos and all(row["meta"] == {"models": ["two", row["judge"]], "why": why} for row in demos)


# Splits


def test_a_prompt_is_on_one_side_and_a_new_share_moves_whole_prompts(judged):
    for choice in (Choice(), Choice(heldout=0.4, seed=3), Choice(rule="soft", heldout=0.4, seed=3)):
        sides: dict[str, set[str]] = {}
        for row in loading.read_judgements(freeze(judged.workspace, "votes", choice).artifact):
            sides.setdefault(row.prompt.id, set()).add(row.split)
        assert all(len(side) == 1 for side in sides.values())
        if choice.heldout is not None:
            more = {prompt for prompt in sides if split_by_prompt(prompt, 0.4, 3) == "heldout"}
            there = {item.prompt.id for item in judged.items if item.split == "heldout"}
            assert there - more and {prompt for prompt, side in sides.items() if side == {"heldout"}} == more | there


def test_a_prompt_is_held_out_of_every_set_of_the_workspace(tmp_path):
    """Two collections of a workspace that was filled before there was one side for all."""
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowds = [open_collection(workspace, name=n, items=8, overlap=1, heldout=h) for n, h in (("a", 2), ("b", 5))]
        for crowd in crowds:
            crowd.work([reader()])
        for choice in (Choice(), Choice(heldout=0.0), Choice(heldout=0.3, seed=7), Choice(rule="soft")):
            found = [loading.read_judgements(freeze(workspace, name, choice).artifact) for name in "ab"]
            sides = [{row.prompt.id: row.split for row in rows} for rows in found]
            assert sides[0] == sides[1]
            assert [sides[0][item.prompt.id] for item in crowds[1].items[:5]] == ["heldout"] * 5


def test_only_what_some_people_said(judged):
    one, two = (person.judge for person in judged.people[:2])
    frozen = freeze(judged.workspace, "votes", Choice(judges=(one,)))
    theirs = [judgement for judgement in standing(judged) if judgement.judge == one]
    assert {row["id"] for row in rows_of(frozen)} == {judgement.id for judgement in theirs}
    assert frozen.people == 1 and frozen.artifact.meta["judges"] == [one] and frozen.left_out["by somebody else"] > 0
    both = freeze(judged.workspace, "votes", Choice(judges=(one, two), rule="soft"))
    assert set(both.artifact.meta["people"]) == {one, two}
    with pytest.raises(DataError, match="judged nothing in this collection"):
        freeze(judged.workspace, "votes", Choice(judges=("human:nobody",)))


def test_a_held_out_judge_only_evaluates(judged):
    judge = judged.people[0].judge
    frozen = freeze(judged.workspace, "votes", Choice(heldout_judges=(judge,)))
    rows = loading.read_judgements(frozen.artifact)
    theirs = [row for row in rows if row.judge == judge]
    assert theirs and {row.split for row in theirs} == {"heldout"}
    alone = [row for row in standing(judged) if row.judge == judge and row.split == "train"]
    assert frozen.left_out["a held-out judge on a training prompt"] == len(alone) > 0
    with pytest.raises(DataError, match="judged nothing in this collection"):
        freeze(judged.workspace, "votes", Choice(heldout_judges=("human:nobody",)))


# What is left out


def test_personal_data_is_out_until_somebody_has_looked(tmp_path):
    def flags_the_third(view, chance):
        flags = {"prompt": ["personal data"]} if "question 2" in view.prompt[0]["content"] else {}
        return {**reader()(view, chance), "flags": flags}

    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=4, overlap=1, crowd=1)
        crowd.work([flags_the_third])
        frozen = freeze(workspace, "votes", Choice())
        assert frozen.rows == 3 and frozen.left_out == {"quarantined: flagged: personal data": 1}
        assert not any("question 2" in row["prompt"]["messages"][0]["content"] for row in rows_of(frozen))
        queue.clear(workspace.database, crowd.items[2].id, crowd.clock())
        assert freeze(workspace, "votes", Choice()).rows == 4


def test_what_else_is_asked_about_a_flagged_prompt_stays_in_too(tmp_path):
    """Another pair of the same prompt has the same personal data in it."""
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=3, overlap=1, crowd=1)
        shared = crowd.items[0].prompt
        other = NewItem(shared, ("answer 0 worth 2 ", "answer 0 worth 6 "), crowd.items[0].completions, (True, True))
        queue.add_items(workspace.database, crowd.id, [other], crowd.clock())
        crowd.work([reader()])
        assert freeze(workspace, "votes", Choice()).rows == 4
        queue.quarantine(workspace.database, crowd.items[0].id, "flagged: personal data", crowd.clock())
        frozen = freeze(workspace, "votes", Choice())
        assert frozen.left_out == {
            "quarantined: flagged: personal data": 1,
            "its prompt is in quarantine: personal data": 1,
        }
        assert shared.id not in {row.prompt.id for row in loading.read_judgements(frozen.artifact)}
        queue.clear(workspace.database, crowd.items[0].id, crowd.clock())
        queue.quarantine(workspace.database, crowd.items[0].id, "skipped: too long", crowd.clock())
        assert freeze(workspace, "votes", Choice()).rows == 3, "what is too long for some says nothing of the others"


def test_surplus_and_both_bad_are_counted_and_left_out(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=2, overlap=1, crowd=2)
        desk, (slow, quick) = crowd.desk, crowd.people
        late = desk.next(slow.id)
        crowd.clock.at += 3600
        for key in ("a", "b"):
            view = desk.next(quick.id)
            choice = "both bad" if "question 1" in view.prompt[0]["content"] else 2
            desk.answer(quick.id, view.assignment, key, {"choice": choice})
        assert desk.answer(slow.id, late.assignment, "c", {"choice": 1}).surplus
        frozen = freeze(workspace, "votes", Choice())
        assert frozen.left_out == {"both bad": 1, "surplus": 1} and frozen.rows == 1


def test_a_repeat_of_the_same_person_is_no_second_vote(judged):
    answers = list(queue.current_judgements(judged.workspace.database, judged.id))
    again = sum(about["round"] > 0 for _, about in answers)
    frozen = freeze(judged.workspace, "votes", Choice())
    assert frozen.left_out.get("shown again to the same person", 0) == again
    assert frozen.rows + sum(frozen.left_out.values()) == len(answers)


def test_nothing_to_freeze_says_what_there_was(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=2, overlap=1, crowd=1)
        with pytest.raises(DataError, match="nobody has judged yet"):
            freeze(workspace, "votes", Choice())
        crowd.work([reader()])
        with pytest.raises(DataError, match="2 no text was written"):
            freeze(workspace, "votes", Choice(kind="demonstrations"))


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({"rule": "sof"}, "did you mean 'soft'"),
        ({"kind": "pairs"}, "unknown kind 'pairs'"),
        ({"kind": "demonstrations", "rule": "soft"}, "nothing to aggregate"),
        ({"kind": "unpaired", "rule": "bradley-terry"}, "compares nothing"),
    ],
)
def test_choices_that_mean_nothing(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        Choice(**settings)


# Rules, by hand


def vote(judge: str, ranks: tuple[int, ...], item: str = "i", texts: tuple[str, ...] = ()) -> Judgement:
    completions = texts or tuple(f"text {j}" for j in range(len(ranks)))
    name = f"{item}-{judge}-{ranks}"
    return Judgement(Prompt.user("p"), completions, ranks, judge, "human", id=name, meta={"item": item})


def pooled(votes, rule, known=None):
    return list(pooling.pool(votes, rule, known or {}))


def test_soft_targets_are_counts_with_half_a_vote_on_each_side():
    (row,) = pooled([vote("a", (1, 2)), vote("b", (1, 2)), vote("c", (2, 1)), vote("d", (1, 1))], "soft")
    assert row.targets == (pytest.approx((2 + 0.5 + 0.5) / (4 + 1)),) and row.ranks == (1, 2)
    assert row.pairs() == [(0, 1, row.targets[0])]
    assert row.meta["judges"] == 4 and len(row.meta["votes"]) == 4


def test_a_majority_may_be_a_tie_and_an_even_split_is_one():
    def target(*ranks):
        return pooled([vote(str(i), each) for i, each in enumerate(ranks)], "majority")[0].targets[0]

    assert target((1, 2), (1, 2), (2, 1)) == 1
    assert target((1, 1), (1, 1), (1, 2)) == 0.5
    assert target((1, 2), (2, 1)) == 0.5
    assert target((2, 1), (2, 1), (1, 1)) == 0


def test_bradley_terry_pools_what_was_said_about_a_prompt():
    """a beat b twice and b beat c twice; nobody compared a with c, and yet the strengths are in order."""
    ab, bc = ("a", "b"), ("b", "c")
    votes = [vote(j, (1, 2), "ab", ab) for j in "xy"] + [vote(j, (1, 2), "bc", bc) for j in "xy"]
    first, second = pooled(votes, "bradley-terry")
    assert first.completions == ab and second.completions == bc
    assert 0.9 > first.targets[0] > 0.5 and first.targets == second.targets
    one = pooled([vote("x", (1, 2), "ab", ab)], "bradley-terry")[0].targets[0]
    two = pooled([vote(j, (1, 2), "ab", ab) for j in "xy"], "bradley-terry")[0].targets[0]
    assert 0.5 < one < two
    gap = math.log(two / (1 - two))  # at the optimum 2 - 2 s(g) = prior * g / 2
    assert 2 * (1 - two) == pytest.approx(pooling.PRIOR * gap / 2, abs=1e-4)


def test_dawid_skene_believes_whoever_agrees_with_the_others():
    """Two careful people and three coins: the careful two win where the coins stand together against them."""
    chance, votes, truth = Random(0), [], {}
    for i in range(120):
        truth[f"i{i}"] = right = chance.choice([(1, 2), (2, 1)])
        for judge in ("ann", "ben"):
            votes.append(vote(judge, right if chance.random() < 0.95 else right[::-1], f"i{i}"))
        for judge in ("x", "y", "z"):
            votes.append(vote(judge, chance.choice([(1, 2), (2, 1)]), f"i{i}"))
    known = pooling.truth(pooling.said(votes), 3)

    def right(rule):
        return sum(row.ranks == truth[row.meta["item"]] for row in pooled(votes, rule, known))

    assert right("dawid-skene") > 110 > 105 > right("majority")


def test_rules_do_not_learn_who_likes_the_left_side():
    """Somebody who always takes the first shown agrees with nobody in the item's own coordinates."""
    chance, votes = Random(1), []
    for i in range(200):
        for judge in ("ann", "ben"):
            votes.append(vote(judge, (1, 2) if chance.random() < 0.9 else (2, 1), f"i{i}"))
        shown_first = chance.randrange(2)  # balanced display: either completion, equally often
        votes.append(vote("left", (1, 2) if shown_first == 0 else (2, 1), f"i{i}"))
    known = pooling.truth(pooling.said(votes), 3)
    assert sum(row.targets[0] > 0.5 for row in pooled(votes, "dawid-skene", known)) > 190


def test_rankings_keep_all_their_pairs_and_ties(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=5, k=4, overlap=2, crowd=2, task="ranking")
        crowd.work([ranker, ranker])
        for rule in ("raw", "soft", "bradley-terry"):
            for row in loading.read_judgements(freeze(workspace, "votes", Choice(rule=rule)).artifact):
                assert [(i, j) for i, j, _ in row.pairs()] == list(combinations(range(4), 2))
                assert row.ranks == best_first(row.completions)
                for i, j, target in row.pairs():
                    assert (target > 0.5) == (worth(row.completions[i]) > worth(row.completions[j]))
    (tied,) = pooled([vote("a", (1, 2, 2)), vote("b", (1, 3, 2)), vote("c", (1, 2, 3))], "soft")
    assert tied.targets == pytest.approx([3.5 / 4, 3.5 / 4, 0.5]) and tied.ranks == (1, 2, 2)


# Other kinds


def test_thumbs_become_unpaired_rows_without_the_unsure(tmp_path):
    def thumbs(view, chance):
        return {"thumbs": ["up" if worth(t) > 4 else "unsure" if worth(t) == 4 else "down" for t in view.completions]}

    def grumpy(view, chance):
        return {"thumbs": ["down" for _ in view.completions]}

    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=6, overlap=2, crowd=2, task="thumbs")
        crowd.work([thumbs, grumpy])
        raw = freeze(workspace, "votes", Choice(kind="unpaired"))
        assert raw.artifact.kind == "unpaired" and raw.votes == 12
        given = [Judgement.from_json(row) for row in rows_of(raw)]
        assert len(given) == 24 - sum(worth(t) == 4 for item in crowd.items for t in item.texts)
        assert all(j.ratings["thumb"] in ((0.0,), (1.0,)) and j.ranks == (1,) for j in given)
        soft = [Judgement.from_json(row) for row in rows_of(freeze(workspace, "votes", Choice("unpaired", "soft")))]
        assert {round(j.ratings["thumb"][0], 3) for j in soft} == {0.167, 0.25}, "two downs, one down"
        split = freeze(workspace, "votes", Choice("unpaired", "majority"))
        good = sum(worth(t) > 4 for item in crowd.items for t in item.texts)
        assert split.left_out["as many thumbs up as down"] == good > 0
        assert {row["ratings"]["thumb"][0] for row in rows_of(split)} == {0.0}


def test_edits_are_demonstrations_and_pairs(tmp_path):
    def editor(view, chance):
        return {"edited": 1, "text": view.completions[1] + " and more"}

    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=3, overlap=1, crowd=1, task="edit")
        crowd.work([editor])
        demos = freeze(workspace, "votes", Choice(kind="demonstrations"))
        written = [Demonstration.from_json(row) for row in rows_of(demos)]
        assert demos.artifact.kind == "demonstrations" and len(written) == 3
        assert loading.read_demonstrations(demos.artifact) == written
        pairs = loading.read_judgements(freeze(workspace, "votes", Choice()).artifact)
        for pair, demo in zip(pairs, written, strict=True):
            assert pair.prompt == demo.prompt and pair.completions[1] == demo.completion
            assert pair.pairs() == [(0, 1, 0.0)], "what was rewritten is better than what it was made from"


def test_an_edit_after_a_ranking_is_above_the_chosen_one_above_the_rejected(tmp_path):
    def editor(view, chance):
        places = best_first(view.completions)
        best = places.index(1)
        return {"edited": best, "text": view.completions[best] + " and more", "ranks": list(places)}

    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=3, overlap=1, crowd=1, task="edit")
        crowd.work([editor])
        demos = rows_of(freeze(workspace, "votes", Choice(kind="demonstrations")))
        judged = loading.read_judgements(freeze(workspace, "votes", Choice()).artifact)
        for said, demo in zip(judged, demos, strict=True):
            chosen, rejected = sorted(said.completions[:2], key=worth, reverse=True)
            better = [
                (said.completions[i], said.completions[j])
                if target == 1
                else (said.completions[j], said.completions[i])
                for i, j, target in said.pairs()
            ]
            edited = chosen + " and more"
            assert sorted(better) == sorted([(edited, chosen), (edited, rejected), (chosen, rejected)])
            assert demo["id"] == said.id and demo["completion"] == edited, "the pairs and the demonstration are linked"


# Adjudication


def test_decisions_stand_beside_the_votes(tmp_path):
    def contrary(view, chance):
        return {"choice": -reader()(view, chance)["choice"]}

    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=6, overlap=2, crowd=3)
        crowd.work([reader(), contrary, reader()], most=12)
        before = list(queue.current_judgements(workspace.database, crowd.id))
        found = adjudicate.disputed(workspace, "votes")
        assert len(found) >= 3 and all(each.agreement == 0 and not each.decision for each in found)
        accepted, again, unclear = found[0].item, found[1].item, found[2].item
        right = best_first(accepted.texts)
        made = adjudicate.decide(workspace, "votes", accepted.id[:8], "accept", now=1.0, ranks=right, cause="misread")
        adjudicate.decide(workspace, "votes", again.id, "requeue", now=2.0, more=1)
        adjudicate.decide(workspace, "votes", unclear.id, "ambiguous", now=3.0)
        assert list(queue.current_judgements(workspace.database, crowd.id)) == before, "votes stay votes"
        assert made.judgement.meta["adjudication"]["votes"] == list(made.votes) and not made.unanimous
        states = {item.id: item.state for item in queue.items(workspace.database, crowd.id)}
        assert states[again.id] == "open" and states[accepted.id] == states[unclear.id] == "full"

        frozen = freeze(workspace, "votes", Choice())
        assert frozen.left_out == {"ambiguous by adjudication": 2, "replaced by adjudication": 2}
        (row,) = [row for row in rows_of(frozen) if row["meta"]["item"] == accepted.id]
        assert row["judge"] == adjudicate.COMMAND_LINE and tuple(row["ranks"]) == right
        decided = {each.item.id: each.decision for each in adjudicate.disputed(workspace, "votes")}
        assert decided[accepted.id] == "accept" and decided[unclear.id] == "ambiguous"
        assert adjudicate.decisions(workspace, crowd.id)[accepted.id].cause == "misread"


def test_what_somebody_else_decided_is_not_what_a_person_said(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=3, overlap=1, crowd=1)
        crowd.work([reader()])
        item, judge = crowd.items[0], crowd.people[0].judge
        theirs = best_first(item.texts)
        adjudicate.decide(workspace, "votes", item.id, "accept", now=1.0, ranks=theirs[::-1])
        for judges, who, places in (((), adjudicate.COMMAND_LINE, theirs[::-1]), ((judge,), judge, theirs)):
            rows = rows_of(freeze(workspace, "votes", Choice(judges=judges)))
            assert len(rows) == 3
            (row,) = [row for row in rows if row["meta"]["item"] == item.id]
            assert (row["judge"], tuple(row["ranks"])) == (who, places)


def test_a_decision_does_not_let_personal_data_out(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=2, overlap=1, crowd=1)
        crowd.work([reader()])
        item = crowd.items[0]
        adjudicate.decide(workspace, "votes", item.id, "accept", now=1.0, ranks=best_first(item.texts))
        assert freeze(workspace, "votes", Choice()).rows == 2
        queue.quarantine(workspace.database, item.id, "flagged: personal data", crowd.clock())
        frozen = freeze(workspace, "votes", Choice())
        assert [row["meta"]["item"] for row in rows_of(frozen)] == [crowd.items[1].id]
        assert frozen.left_out["quarantined: flagged: personal data"] == 2


def test_what_cannot_be_decided(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=2, overlap=1, crowd=1)
        item = crowd.items[0].id
        for decision, more, problem in (
            ("accept", {"ranks": (1, 2)}, "nobody has judged"),
            ("acept", {}, "did you mean 'accept'"),
        ):
            with pytest.raises((ConfigError, DataError), match=problem):
                adjudicate.decide(workspace, "votes", item, decision, now=1.0, **more)
        crowd.work([reader()])
        with pytest.raises(ConfigError, match="has 2 completions"):
            adjudicate.decide(workspace, "votes", item, "accept", now=1.0, ranks=(1, 2, 3))
        with pytest.raises(Exception, match="no item 'zzzz'"):
            adjudicate.decide(workspace, "votes", "zzzz", "ambiguous", now=1.0)
