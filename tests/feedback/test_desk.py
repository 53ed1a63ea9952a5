"""The desk: what people are handed, in which order, what they may see of it, and what becomes of their answers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from trueup.config import load
from trueup.errors import DataError, NotFoundError
from trueup.feedback.collect import MANY
from trueup.feedback.desk import Desk, Progress
from trueup.feedback.welfare import covered
from trueup.records import Prompt
from trueup.store import people, queue

SECRET = b"nobody knows this"
PAIR = {"choice": -2}


class Clock:
    def __init__(self, now: float = 86_400.0 * 20_000 + 3600) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(workspace, clock):
    """`make("gold_every=5", main=20, gold=4)`: a desk over a collection of as many items of each role."""
    source = workspace.put("completions", {"rows.jsonl": b"{}\n"})

    def made(*sets: str, guideline: str = "", main: int = 4, k: int = 2, **others: int) -> Desk:
        config = load("collection", sets=sets)
        found = queue.create_collection(
            workspace.database, "titles", config.model_dump(mode="json"), guideline, clock()
        )
        for role, n in {"main": main, **others}.items():
            overlap = config.overlap if role == "main" else MANY
            new = (replace(new_item(role, i, k, source.id), overlap=overlap) for i in range(n))
            queue.add_items(workspace.database, found.id, new, clock())
        return Desk(workspace, found.id, clock, secret=SECRET)

    return made


def new_item(role: str, i: int, k: int, source: str) -> queue.NewItem:
    """The first text is always the better one; models, scores and keys would be told by their words."""
    texts = tuple(f"{'good' if j == 0 else 'bad'} answer {role[0]}{i} {j}" for j in range(k))
    key = {"ranks": [1] + [2] * (k - 1), "why": "the first is KEYWORD"} if role in ("gold", "qualification") else None
    models = tuple(f"MODEL{j}" for j in range(k))
    why = {"strategy": "STRATEGY", "probability": 0.5}
    return queue.NewItem(
        Prompt.user(f"question {role[0]}{i}", SCORE=3), texts, source, (True,) * k, models, role=role, key=key, why=why
    )  # fmt: skip


@pytest.fixture
def person(workspace, clock):
    return people.add_person(workspace.database, "Ada", "annotator", clock()).id


def best(view) -> dict[str, int]:
    """What somebody says who knows."""
    return {"choice": -2 if view.completions[0].startswith("good") else 2}


def worst(view) -> dict[str, int]:
    return {"choice": -best(view)["choice"]}


def work(desk: Desk, person: str, n: int = 1000, say=best) -> list[str]:
    """Judge up to n items; returns what they were: "m3" for main item 3."""
    seen = []
    for _ in range(n):
        view = desk.next(person)
        if view is None:
            break
        seen.append(view.prompt[0]["content"].split()[1])
        desk.answer(person, view.assignment, f"key {view.assignment}", say(view))
    return seen


# Blindness


def test_a_gold_a_repeat_and_a_normal_item_look_alike_and_tell_nothing(make, person):
    desk = make("gold_every=3", "repeat_share=0.1", main=30, gold=8, guideline="# Read me")
    queue.acknowledge(desk.db, person, queue.collection(desk.db, desk.id).guideline, 0)
    sent = {}
    for _ in range(45):
        view = desk.next(person)
        if view is None:
            break
        receipt = desk.answer(person, view.assignment, "k", best(view))
        assignment = queue.assignment(desk.db, view.assignment, person)
        sent.setdefault((assignment.item.role, assignment.round), []).append((view.to_json(), receipt.to_json()))
    assert {("main", 0), ("gold", 0), ("main", 1)} == set(sent)
    shapes = {shape(pair) for pairs in sent.values() for pair in pairs}
    assert len(shapes) == 1
    for view, receipt in (pair for pairs in sent.values() for pair in pairs):
        assert [set(message) for message in view["prompt"]] == [{"role", "content"}] and not receipt["gold_feedback"]
        text = json.dumps(
            [view | {"prompt": [message["content"] for message in view["prompt"]]}, list(receipt.values())]
        )
        for word in ("MODEL", "SCORE", "STRATEGY", "KEYWORD", "gold", "role", "key", "main", "calibration", "round"):
            assert word not in text, word


def shape(value) -> str:
    """Keys and types, without content. The number of messages and texts is the same in all items here."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{shape(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(shape, value)) + "]"
    return type(value).__name__


def test_own_progress_cannot_tell_a_check_from_work(make, person):
    """Alone in a collection: each answer makes done one more and left one less, whatever the item was."""
    desk = make("gold_every=4", "repeat_share=0.1", main=40, gold=20)
    seen = []
    while (view := desk.next(person)) is not None:
        seen.append((view.mine["done"], view.mine["left"]))
        receipt = desk.answer(person, view.assignment, "k", best(view))
        assert receipt.left == view.mine["left"] - 1
    assert [done for done, _ in seen] == list(range(len(seen)))
    assert [left for _, left in seen] == list(range(len(seen), 0, -1))
    assert len(seen) - 40 - 10 in (2, 3)  # of four repeats: those that would come too early fall away


# What comes next


def test_golds_come_once_in_a_block_at_places_that_are_not_regular_and_differ_by_person(make, workspace, clock):
    desk = make("gold_every=5", "repeat_share=0", "overlap=3", "max_overlap=3", main=100, gold=20)
    places = []
    for name in ("Ada", "Bea"):
        who = people.add_person(workspace.database, name, "annotator", clock()).id
        seen = work(desk, who)
        assert len(seen) == 120 and Counter(each[0] for each in seen) == {"m": 100, "g": 20}
        assert len(set(seen)) == 120
        mains = [sum(s[0] == "m" for s in seen[:i]) for i, each in enumerate(seen) if each[0] == "g"]
        assert [m // 5 for m in mains] == list(range(20))
        assert len({m % 5 for m in mains}) > 2
        places.append(mains)
    assert places[0] != places[1]


def test_without_golds_left_the_work_goes_on(make, person):
    assert Counter(each[0] for each in work(make("gold_every=2", "repeat_share=0", main=20, gold=3), person)) == {
        "m": 20,
        "g": 3,
    }


def test_repeats_come_later_once_each_with_sides_swapped(make, person):
    desk = make("repeat_share=0.2", main=60)
    seen = work(desk, person)
    again = [name for name, n in Counter(seen).items() if n == 2]
    assert 8 <= len(again) <= 12 and max(Counter(seen).values()) == 2
    for name in again:
        first, second = [i for i, each in enumerate(seen) if each == name]
        assert second - first > queue.JUST_JUDGED
    past = {}
    for each in desk.history(person, 100):
        past.setdefault(each.prompt[-1]["content"], []).append(each.completions)
    assert all(shown[0] == shown[1][::-1] for shown in past.values() if len(shown) == 2)


def test_a_skipped_repeat_does_not_stop_the_work(make, person):
    desk = make("repeat_share=0.2", main=30)
    for _ in range(60):
        view = desk.next(person)
        if view is None:
            break
        if queue.assignment(desk.db, view.assignment, person).round:
            desk.skip(person, view.assignment, "seen before")
        else:
            desk.answer(person, view.assignment, "k", best(view))
    assert desk.next(person) is None and desk.progress(person).left == 0


def test_next_gives_back_what_is_held_with_its_draft_and_its_order(make, person):
    desk = make()
    view = desk.next(person)
    desk.draft(person, view.assignment, {"choice": 1, "rationale": "half a thou"})
    assert desk.next(person) == desk.view(view.assignment, person)
    assert desk.next(person).completions == view.completions
    assert desk.next(person).draft == {"choice": 1, "rationale": "half a thou"}


# Qualification


def test_qualification_comes_first_explains_itself_and_lets_in_who_passes(make, person):
    desk = make("qualification=4", "qualification_pass=0.75", main=3, qualification=4)
    for turn in range(4):
        view = desk.next(person)
        assert view.prompt[0]["content"].startswith("question q") and view.mine["left"] == 3 + 4 - turn
        receipt = desk.answer(person, view.assignment, "k", worst(view) if turn == 0 else best(view))
        right = "Another answer was expected." if turn == 0 else "Right."
        assert receipt.gold_feedback == f"{right} the first is KEYWORD"
    assert [name[0] for name in work(desk, person)] == ["m"] * 3


def test_who_fails_waits_and_new_qualification_items_are_another_try(make, person, clock):
    desk = make("qualification=2", main=3, qualification=2)
    assert len(work(desk, person, say=worst)) == 2
    assert desk.next(person) is None and desk.progress(person).waiting == "qualification"
    more = (
        new_item("qualification", i, 2, item.completions) for i in (7, 8) for item in queue.items(desk.db, desk.id)[:1]
    )
    queue.add_items(desk.db, desk.id, more, clock())
    desk = Desk(desk.workspace, desk.id, clock, secret=SECRET)
    assert [name[0] for name in work(desk, person)] == list("qqmmm")


def test_an_answer_whose_solution_was_shown_stands(make, person):
    desk = make("qualification=1", main=1, qualification=1)
    view = desk.next(person)
    first = desk.answer(person, view.assignment, "k", worst(view))
    assert desk.answer(person, view.assignment, "k", worst(view)).again
    for change in (
        lambda: desk.answer(person, view.assignment, "k2", best(view)),
        lambda: desk.undo(person),
        lambda: desk.revise(person, view.assignment),
    ):
        with pytest.raises(DataError, match="solution"):
            change()
    (past,) = desk.history(person)
    assert not past.editable and first.gold_feedback


def test_nobody_gets_past_a_qualification_by_skipping_or_flagging_it_away(make, person, workspace, clock):
    desk = make("qualification=2", "quarantine_after=1", main=1, qualification=2)
    flagged = {"flags": {"prompt": ["personal data"]}}
    view = desk.next(person)
    with pytest.raises(DataError, match="before the work begins"):
        desk.skip(person, view.assignment, "too hard")
    desk.answer(person, view.assignment, "k", best(view) | flagged)
    other = people.add_person(workspace.database, "Bob", "annotator", clock()).id
    assert [name[0] for name in work(desk, other)] == list("qqm")


def test_a_check_that_was_set_aside_is_none_that_is_still_to_come(make, person, clock):
    desk = make("gold_every=2", "repeat_share=0", main=4, gold=2)
    for gold in queue.items(desk.db, desk.id, role="gold"):
        queue.quarantine(desk.db, gold.id, "skipped", clock())
    assert [name[0] for name in work(desk, person)] == ["m"] * 4
    assert desk.progress(person).left == 0


# The guideline


def test_a_guideline_has_to_be_read_and_a_new_version_again(make, person, clock):
    desk = make(guideline="# First", main=3)
    view = desk.next(person)
    assert view.guideline["number"] == 1 and not view.guideline["seen"]
    with pytest.raises(DataError, match="guideline"):
        desk.answer(person, view.assignment, "k", PAIR)
    queue.acknowledge(desk.db, person, view.guideline["id"], clock())
    assert desk.next(person).guideline["seen"]
    newer = queue.add_guideline(desk.db, desk.id, "# Second", clock())
    # What was begun under the first version may still be given under it.
    receipt = desk.answer(person, view.assignment, "k", PAIR)
    (said,) = desk.workspace.judgements([receipt.judgement])
    assert said.meta["guideline"] == view.guideline["id"] != newer
    view = desk.next(person)
    assert view.guideline == {"id": newer, "number": 2, "seen": False}
    with pytest.raises(DataError, match="guideline"):
        desk.answer(person, view.assignment, "k", PAIR)


def test_who_read_the_newest_version_need_not_look_for_an_older_one(make, person, clock):
    desk = make(guideline="# First")
    view = desk.next(person)
    queue.acknowledge(desk.db, person, queue.add_guideline(desk.db, desk.id, "# Second", clock()), clock())
    assert desk.answer(person, view.assignment, "k", PAIR).judgement


# Answers


def test_an_answer_counts_once_however_often_it_is_sent_and_another_one_revises(make, person):
    desk = make(main=2)
    view = desk.next(person)
    first = desk.answer(person, view.assignment, "a", {"choice": -1})
    again = desk.answer(person, view.assignment, "a", {"choice": -1})
    assert again.judgement == first.judgement and again.again and not first.again
    other = desk.answer(person, view.assignment, "b", {"choice": 3})
    (current,) = [said for said, _ in queue.current_judgements(desk.db, desk.id)]
    assert current.id == other.judgement and current.meta["supersedes"] == first.judgement
    assert (first.done_today, first.left, other.left) == (1, 1, 1)


def test_undo_goes_back_one_by_one_and_ends(make, person):
    desk = make("repeat_share=0", main=3)
    seen = work(desk, person)
    back = [desk.undo(person) for _ in range(4)]
    assert [view and view.prompt[0]["content"].split()[1] for view in back] == [*reversed(seen), None]
    assert back[0].draft["choice"] == best(back[0])["choice"]
    assert desk.next(person).assignment == back[2].assignment


def test_answers_may_be_changed_until_the_collection_is_closed(make, person):
    desk = make(main=2)
    view, held = desk.next(person), None
    desk.answer(person, view.assignment, "a", {"choice": -1})
    held = desk.next(person)
    queue.set_status(desk.db, desk.id, "closed")
    assert desk.answer(person, view.assignment, "a", {"choice": -1}).again
    for change in (
        lambda: desk.answer(person, view.assignment, "b", {"choice": 3}),
        lambda: desk.undo(person),
        lambda: desk.revise(person, view.assignment),
    ):
        with pytest.raises(DataError, match="closed"):
            change()
    assert desk.answer(person, held.assignment, "c", {"choice": 3}).judgement
    assert desk.next(person) is None and desk.progress(person).waiting == "closed"


def test_what_was_taken_back_before_the_end_cannot_be_changed_after_it(make, person):
    desk = make(main=1)
    view = desk.next(person)
    first = desk.answer(person, view.assignment, "a", {"choice": -1})
    assert desk.undo(person).assignment == view.assignment
    queue.set_status(desk.db, desk.id, "closed")
    with pytest.raises(DataError, match="closed"):
        desk.answer(person, view.assignment, "b", {"choice": 3})
    assert [said.id for said, _ in queue.current_judgements(desk.db, desk.id)] == [first.judgement]


def test_the_daily_limit_ends_the_day_and_not_the_next(make, person, clock):
    desk = make("per_day=2", main=5)
    assert len(work(desk, person)) == 2
    assert desk.progress(person) == Progress(done=2, left=3, today=2, per_day=2, waiting="daily limit")
    clock.now += 86_400
    assert len(work(desk, person)) == 2


def test_what_was_put_aside_neither_slips_past_the_daily_limit_nor_is_lost(make, person, clock):
    desk = make("per_day=2", "repeat_share=0", main=4)
    late = desk.next(person)
    desk.postpone(person, late.assignment)
    answered = desk.next(person)
    desk.answer(person, answered.assignment, "a", PAIR)
    held = desk.next(person)
    with pytest.raises(DataError, match="in a day"):  # the last place of the day is taken by what is being judged
        desk.answer(person, late.assignment, "b", {"choice": 3, "rationale": "half a thought"})
    desk.answer(person, held.assignment, "c", PAIR)
    assert desk.next(person) is None and desk.progress(person).today == 2
    with pytest.raises(DataError, match="in a day") as refused:
        desk.answer(person, late.assignment, "b", {"choice": 3, "rationale": "half a thought"})
    assert "after midnight" in refused.value.hint and desk.progress(person).today == 2
    clock.now += 86_400
    desk.answer(person, desk.next(person).assignment, "d", PAIR)
    again = desk.next(person)
    assert again.assignment == late.assignment and again.draft["rationale"] == "half a thought"
    assert desk.answer(person, late.assignment, "e", PAIR).done_today == 2


def test_the_daily_limit_keeps_nobody_from_revising_and_a_revision_is_work_of_its_day(make, person, clock):
    desk = make("per_day=2", "repeat_share=0", main=6)
    work(desk, person)
    view = desk.undo(person)
    assert desk.next(person).assignment == view.assignment
    desk.answer(person, view.assignment, "again", {"choice": 3})
    assert desk.progress(person).today == 2 and desk.next(person) is None
    clock.now += 86_400
    desk.answer(person, desk.undo(person).assignment, "the day after", {"choice": 1})
    assert desk.progress(person).today == 1 and len(work(desk, person)) == 1


def test_what_was_taken_back_and_put_aside_at_the_limit_still_stands(make, person):
    desk = make("per_day=1", main=2)
    work(desk, person)
    desk.postpone(person, desk.undo(person).assignment)
    assert desk.next(person) is None and len(list(queue.current_judgements(desk.db, desk.id))) == 1


def test_personal_data_sets_the_item_aside(make, person):
    desk = make(main=2)
    view = desk.next(person)
    flags = {"prompt": [], "completions": [["personal data"], []]}
    desk.answer(person, view.assignment, "a", {"choice": 1, "flags": flags})
    (item,) = queue.items(desk.db, desk.id, state="quarantined")
    assert (
        item.reason == "flagged: personal data"
        and item.id == queue.assignment(desk.db, view.assignment, person).item.id
    )


def test_an_answer_that_arrives_twice_sets_nothing_aside_again(make, person, clock):
    """The manager has looked meanwhile: only something new may undo that."""
    desk = make(main=2)
    view = desk.next(person)
    said = {"choice": 1, "flags": {"prompt": ["personal data"]}}
    desk.answer(person, view.assignment, "a", said)
    (item,) = queue.items(desk.db, desk.id, state="quarantined")
    queue.clear(desk.db, item.id, clock())
    assert desk.answer(person, view.assignment, "a", said).again
    assert not queue.items(desk.db, desk.id, state="quarantined")
    desk.answer(person, view.assignment, "b", said)
    assert queue.items(desk.db, desk.id, state="quarantined")


def test_a_wrong_answer_saves_nothing(make, person):
    desk = make()
    view = desk.next(person)
    with pytest.raises(DataError, match="choice"):
        desk.answer(person, view.assignment, "a", {"choice": 9})
    assert desk.next(person).assignment == view.assignment and desk.history(person) == []


def test_skip_needs_a_reason_and_postpone_comes_back_last(make, person):
    desk = make("repeat_share=0", main=3)
    view = desk.next(person)
    for reason in ("", "   ", "x" * 501, "a\0b"):
        with pytest.raises(DataError):
            desk.skip(person, view.assignment, reason)
    desk.skip(person, view.assignment, "cannot read it")
    later = desk.next(person)
    desk.postpone(person, later.assignment)
    seen = work(desk, person)
    assert len(seen) == 2 and seen[-1] == later.prompt[0]["content"].split()[1]


def test_renew_says_whether_the_item_is_still_theirs(make, workspace, person, clock):
    desk = make("lease_minutes=1", "calibration_share=0", main=1)
    view = desk.next(person)
    assert desk.renew(person, view.assignment)
    clock.now += 120
    other = people.add_person(workspace.database, "Bea", "annotator", clock()).id
    assert desk.next(other) is not None and not desk.renew(person, view.assignment)
    assert desk.answer(person, view.assignment, "late", PAIR).surplus


# What is covered


def test_sensitive_texts_are_covered_in_the_order_of_display_and_in_own_work(make, person):
    desk = make("sensitive=['BAD']", main=1)
    view = desk.next(person)
    assert view.covered == (False, *(text == "" for text in view.completions)) and sum(view.covered) == 1
    part = view.covered.index(True)
    (message,) = desk.uncover(person, view.assignment, part)
    assert message["content"].startswith("bad") and "bad answer" not in json.dumps(view.to_json())
    (other,) = desk.uncover(person, view.assignment, 3 - part)
    assert other["content"] == view.completions[2 - part]
    assert desk.uncover(person, view.assignment, 0) == view.prompt
    for nothing in (-1, 3):
        with pytest.raises(NotFoundError):
            desk.uncover(person, view.assignment, nothing)
    desk.answer(person, view.assignment, "a", PAIR)
    (past,) = desk.history(person)
    assert past.covered and past.prompt == past.completions == ()
    (past,) = desk.history(person, uncovered=view.assignment)
    assert not past.covered and {text.split()[0] for text in past.completions} == {"good", "bad"}


def test_a_covered_prompt_covers_what_answers_it_and_what_was_written_of_it(make, person):
    desk = make("task=edit", "sensitive=['question']", main=1, k=1)
    view = desk.next(person)
    assert view.covered == (True, True) and view.prompt == ({"role": "user", "content": ""},)
    assert view.completions == ("",)
    desk.answer(person, view.assignment, "a", {"edited": 0, "text": "a better one"})
    assert desk.history(person)[0].answer == {"edited": 0}
    assert desk.history(person, uncovered=view.assignment)[0].answer["text"] == "a better one"


def test_only_the_qualification_cannot_be_skipped(make, person):
    desk = make("qualification=1", "qualification_pass=0", "gold_every=1", main=2, qualification=1, gold=1)
    said = []
    while (view := desk.next(person)) is not None:
        said.append((view.prompt[0]["content"].split()[1], view.skippable))
        desk.answer(person, view.assignment, "k", best(view))
    assert sorted(said) == [("g0", True), ("m0", True), ("m1", True), ("q0", False)]


def test_how_far_somebody_is_is_read_once_for_an_answer_and_the_next_item(make, person, monkeypatch):
    desk = make("repeat_share=0", main=3)
    view = desk.next(person)
    read, standing = [], queue.standing
    monkeypatch.setattr(queue, "standing", lambda *told, **more: read.append(1) or standing(*told, **more))
    receipt, view = desk.answer_and_next(person, view.assignment, "a", PAIR)
    assert len(read) == 1 and receipt.left == view.mine["left"] == 2 and view.mine["done"] == 1
    assert desk.next(person).assignment == view.assignment


def test_without_sensitive_words_nothing_is_covered(make, person):
    desk = make(main=1)
    view = desk.next(person)
    assert view.covered == (False, False, False)
    desk.answer(person, view.assignment, "a", PAIR)
    assert not desk.history(person)[0].covered


@pytest.mark.parametrize(
    ("words", "meta", "expected"),
    [
        (("blood",), {}, (False, True, False)),  # in any case
        (("blo",), {}, (False, False, False)),  # whole words only
        (("the weather",), {}, (True, True, True)),  # in the prompt: what answers it is about it
        (("harm",), {"category": "Harm"}, (True, True, True)),  # the tag of the prompt
        (("harm",), {"category": ["news", "harm"]}, (True, True, True)),
        (("harm",), {"category": 7}, (False, False, False)),
        ((" ", ""), {"category": ""}, (False, False, False)),
        (("c++", "(odd)"), {}, (False, False, True)),  # words are no patterns
    ],
)
def test_what_is_sensitive(words, meta, expected):
    assert covered(words, Prompt.user("About the weather?", **meta), ("Blood!", "It is (odd).")) == expected


# Whose work it is


def test_nobody_reaches_the_work_of_another_person_or_collection(make, workspace, person, clock):
    desk = make(main=2)
    view = desk.next(person)
    stranger = people.add_person(workspace.database, "Bea", "annotator", clock()).id
    source = queue.items(desk.db, desk.id)[0].completions
    found = queue.create_collection(desk.db, "other", load("collection").model_dump(mode="json"), "", clock())
    queue.add_items(desk.db, found.id, [new_item("main", 99, 2, source)], clock())
    elsewhere = Desk(workspace, "other", clock)
    for where, who in ((desk, stranger), (elsewhere, person)):
        for reach in (
            lambda where, who: where.view(view.assignment, who),
            lambda where, who: where.answer(who, view.assignment, "k", PAIR),
            lambda where, who: where.draft(who, view.assignment, {}),
            lambda where, who: where.renew(who, view.assignment),
            lambda where, who: where.skip(who, view.assignment, "no"),
            lambda where, who: where.postpone(who, view.assignment),
            lambda where, who: where.revise(who, view.assignment),
            lambda where, who: where.uncover(who, view.assignment, 0),
        ):
            with pytest.raises(NotFoundError):
                reach(where, who)


def test_history_shows_what_was_seen_and_said(make, person):
    desk = make("repeat_share=0", main=3)
    view = desk.next(person)
    desk.answer(person, view.assignment, "a", {"choice": 3, "rationale": "why not"})
    work(desk, person)
    first = desk.history(person)[-1]
    assert (first.prompt, first.completions) == (view.prompt, view.completions)
    assert first.answer == {"choice": 3, "rationale": "why not"}
    assert first.editable and first.assignment == view.assignment
    assert [p.assignment for p in desk.history(person, 1, before=desk.history(person)[1].assignment)] == [
        first.assignment
    ]


def test_an_edit_after_a_ranking_stands_above_everything(make, person):
    """Edited > chosen > rejected, whatever the order of display."""
    desk = make("task=edit", "repeat_share=0", main=3)
    while (view := desk.next(person)) is not None:
        ranks = [1 if text.startswith("good") else 2 for text in view.completions]
        answer = {"edited": ranks.index(1), "text": "best of all", "ranks": ranks}
        receipt = desk.answer(person, view.assignment, "a", answer)
        (said,) = desk.workspace.judgements([receipt.judgement])
        ordered = [text.split()[0] for _, text in sorted(zip(said.ranks, said.completions, strict=True))]
        assert ordered == ["best", "good", "bad"] and said.meta["edit"]["of"] == 0


@pytest.mark.parametrize("task", ["ranking", "rating", "thumbs", "edit"])
def test_the_other_tasks_go_the_same_way(make, person, task):
    answers = {
        "ranking": {"ranks": [3, 1, 2]},
        "rating": {"ratings": {"overall": [1, 7, 3]}},
        "thumbs": {"thumbs": ["down", "up", "unsure"]},
        "edit": {"edited": 1, "text": "all anew"},
    }
    desk = make(f"task={task}", main=2, k=3)
    view = desk.next(person)
    assert view.kind == task and len(view.completions) == 3 and bool(view.axes) == (task == "rating")
    receipt = desk.answer(person, view.assignment, "a", answers[task])
    (said,) = desk.workspace.judgements([receipt.judgement])
    better = view.completions[1]
    assert task == "edit" or said.ranks[said.completions.index(better)] == 1
    assert task != "edit" or (said.completions, said.ranks) == ((better, "all anew"), (2, 1))


# Two tabs of one person


def test_the_second_answer_of_another_tab_is_kept_as_a_draft_and_supersedes_nothing(make, person):
    desk = make()
    view = desk.next(person)
    assert view.revises == ""
    first = desk.answer(person, view.assignment, "tab 1", {"choice": 1}, "")
    second = desk.answer(person, view.assignment, "tab 2", {"choice": -2, "rationale": "worth keeping"}, "")
    assert (second.judgement, second.elsewhere, second.again) == (first.judgement, True, False)
    assert len(list(queue.every_judgement(desk.db, desk.id))) == 1
    changed = desk.revise(person, view.assignment)
    assert (changed.draft["rationale"], changed.revises) == ("worth keeping", first.judgement)
    third = desk.answer(person, view.assignment, "tab 2b", {"choice": 2}, changed.revises)
    assert not third.elsewhere and third.judgement != first.judgement
    stale = desk.answer(person, view.assignment, "tab 1b", {"choice": 0}, first.judgement)
    assert (stale.elsewhere, stale.judgement) == (True, third.judgement), "both tabs were changing it"


def test_tabs_that_share_a_draft_share_its_key_and_still_lose_nothing(make, person):
    desk = make()
    view = desk.next(person)
    first = desk.answer(person, view.assignment, "shared", {"choice": 1}, "")
    again = desk.answer(person, view.assignment, "shared", {"choice": 1}, "")
    assert (again.judgement, again.again, again.elsewhere) == (first.judgement, True, False), "the answer got lost"
    other = desk.answer(person, view.assignment, "shared", {"choice": 3}, "")
    assert (other.judgement, other.again, other.elsewhere) == (first.judgement, False, True)
    assert queue.assignment(desk.db, view.assignment, person).draft == {"choice": 3}


def test_a_second_tab_on_the_qualification_learns_nothing_and_changes_nothing(make, person):
    desk = make("qualification=1", qualification=1)
    view = desk.next(person)
    desk.answer(person, view.assignment, "tab 1", worst(view), "")
    receipt = desk.answer(person, view.assignment, "tab 2", best(view), "")
    assert receipt.elsewhere and receipt.gold_feedback == "" and desk.next(person) is None
