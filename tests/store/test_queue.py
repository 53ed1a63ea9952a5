"""The contract of hand-out, on every database: nobody twice, nothing lost, never more votes than wanted."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from people_at_work import LEASE, collect, give, new_items, positions, said, take

from trueup.errors import DataError, NotFoundError, WorkspaceError
from trueup.records import Message, Prompt
from trueup.store import Workspace, judgements, queue, schema
from trueup.store.queue import NewItem


@pytest.fixture
def ws(shared):
    return shared


# Collections and guidelines


def test_a_collection_is_found_by_id_and_name(ws):
    made = queue.create_collection(ws.database, "helpful", {"task": "pair", "axes": ("a",)}, "Be fair.", 1.5)
    assert queue.collection(ws.database, "helpful") == queue.collection(ws.database, made.id) == made
    assert (made.status, made.config, made.created[:21]) == (
        "open",
        {"task": "pair", "axes": ["a"]},
        "1970-01-01T00:00:01.5",
    )
    assert made in queue.collections(ws.database)
    with pytest.raises(WorkspaceError, match="already"):
        queue.create_collection(ws.database, "helpful", {}, "", 0.0)
    with pytest.raises(WorkspaceError, match="cannot be a name"):
        queue.create_collection(ws.database, "a b", {}, "", 0.0)
    with pytest.raises(NotFoundError, match="did you mean 'helpful'"):
        queue.collection(ws.database, "helpfull")


def test_a_closed_collection_hands_out_nothing_new_and_loses_nothing(ws):
    collection = collect(ws, 2)
    held = take(ws, collection, "ann")
    queue.set_status(ws.database, collection, "closed")
    assert take(ws, collection, "bob") is None
    assert take(ws, collection, "ann") == held
    assert not give(ws, held).surplus
    assert take(ws, collection, "ann", 2.0) is None
    queue.set_status(ws.database, collection, "open")
    assert take(ws, collection, "ann", 2.0) is not None
    with pytest.raises(NotFoundError, match="no collection"):
        queue.set_status(ws.database, "nothing", "open")
    with pytest.raises(NotFoundError, match="no collection"):
        take(ws, "nothing", "ann")


def test_guidelines_have_versions_that_people_acknowledge(ws):
    db, collection = ws.database, collect(ws, 3)
    first = queue.collection(db, collection).guideline
    assert queue.add_guideline(db, collection, "Be fair.", 1.0) == first, "the same text is no new version"
    before = take(ws, collection, "ann")
    second = queue.add_guideline(db, collection, "Be fair and kind.", 2.0)
    assert queue.collection(db, collection).guideline == second != first
    assert [(g["id"], g["number"], g["text"]) for g in queue.guidelines(db, collection)] == [
        (first, 1, "Be fair."),
        (second, 2, "Be fair and kind."),
    ]
    assert (before.guideline, take(ws, collection, "bob").guideline) == (first, second)
    queue.acknowledge(db, "ann", first, 3.0)
    queue.acknowledge(db, "ann", first, 4.0)
    assert queue.acknowledged(db, "ann", first)
    assert not queue.acknowledged(db, "ann", second) and not queue.acknowledged(db, "bob", first)
    with pytest.raises(NotFoundError):
        queue.acknowledge(db, "ann", "nothing", 5.0)
    with pytest.raises(DataError, match="cannot be stored"):
        queue.add_guideline(db, collection, "a\0b", 6.0)


# Items


def test_items_come_back_as_they_went_in(ws):
    collection = collect(ws)
    prompt = Prompt((Message("system", "s"), Message("user", "naïve ✓ \0 \u202e")), {"topic": "x"})
    item = new_items(ws, 1, k=3)[0]
    item = replace(item, prompt=prompt, models=("m1", "", "m2"), finished=(True, False, True), role="gold", overlap=7)
    item = replace(
        item, key={"ranks": [1, 2, 3], "why": "it is"}, why={"probability": 0.2}, split="heldout", priority=3
    )
    assert queue.add_items(ws.database, collection, [item], 0.0) == 1
    (found,) = queue.items(ws.database, collection)
    assert {name: getattr(found, name) for name in vars(item)} == vars(item)
    assert found.prompt.meta == {"topic": "x"}
    assert (found.collection, found.position, found.state, found.done) == (collection, 0, "open", 0)


def test_the_same_item_enters_once_in_each_role(ws):
    db, collection = ws.database, collect(ws)
    items = new_items(ws, 1100)
    assert queue.add_items(db, collection, iter(items[:700]), 0.0) == 700
    assert queue.add_items(db, collection, [*items, items[0]], 0.0) == 400
    turned = [replace(item, texts=item.texts[::-1]) for item in items[:5]]
    assert queue.add_items(db, collection, turned, 0.0) == 0
    assert queue.add_items(db, collection, [replace(item, role="gold") for item in items[:5]], 0.0) == 5
    assert queue.counts(db, collection)["items"] == {
        "main": {"open": 1100, "full": 0, "quarantined": 0},
        "gold": {"open": 5, "full": 0, "quarantined": 0},
    }
    seen, page = [], queue.items(db, collection, limit=400)
    while page:
        seen += page
        page = queue.items(db, collection, after=page[-1].position, limit=400)
    assert [item.position for item in seen] == list(range(1105))
    assert [item.prompt for item in seen[:1100]] == [item.prompt for item in items]
    assert len(queue.items(db, collection, role="gold")) == 5
    assert queue.items(db, collection, state="full") == []


def test_an_item_of_no_completion_set_is_refused_whole(ws):
    collection = collect(ws)
    items = new_items(ws, 3)
    with pytest.raises(DataError, match="not in this workspace"):
        queue.add_items(ws.database, collection, [*items[:2], replace(items[2], completions="0" * 16)], 0.0)
    assert queue.items(ws.database, collection) == []
    with pytest.raises(NotFoundError, match="no collection"):
        queue.add_items(ws.database, "nothing", items, 0.0)


# Hand-out


def test_items_come_in_order_each_to_as_many_as_it_wants(ws):
    collection = collect(ws, 2, overlap=2)
    held = [take(ws, collection, person) for person in ("ann", "bob", "cid", "dot", "eve")]
    assert positions(*held) == [0, 0, 1, 1, None]
    assert take(ws, collection, "ann") == held[0], "what a person holds, they are given again"
    assert queue.holding(ws.database, collection, "ann", 1.0) == held[0]
    assert queue.holding(ws.database, collection, "ann", LEASE) is None
    give(ws, held[0])
    assert queue.holding(ws.database, collection, "ann", 1.0) is None
    assert take(ws, collection, "ann", 1.0) is None, "the other item has its two leases"


def test_the_order_shown_is_asked_for_once_and_kept(ws):
    collection, asked = collect(ws, 1, k=3), []

    def order(item, person, round):
        asked.append((item.position, person, round))
        return (2, 0, 1)

    held = take(ws, collection, "ann", order=order)
    assert held.order == (2, 0, 1) and asked == [(0, "ann", 0)]
    assert take(ws, collection, "ann", LEASE + 1, order=order).order == (2, 0, 1), "the same after a lapse"
    assert len(asked) == 1
    with pytest.raises(AssertionError, match="no order"):
        take(ws, collect(ws, 1), "ann", order=lambda *_: (0, 0))


def test_roles_have_queues_of_their_own_and_ordinary_work_is_two_of_them(ws):
    db, collection = ws.database, collect(ws)
    queue.add_items(db, collection, new_items(ws, 2, role="gold", overlap=1000), 0.0)
    queue.add_items(db, collection, new_items(ws, 1, first=2, role="calibration", overlap=2), 0.0)
    queue.add_items(db, collection, new_items(ws, 1, first=3), 0.0)
    queue.add_items(db, collection, new_items(ws, 1, first=4, role="calibration", overlap=2), 0.0)
    for now, (role, position) in enumerate([(None, 2), ("gold", 0), (None, 3), (None, 4), ("gold", 1), ("gold", None)]):
        held = take(ws, collection, "ann", float(now), role=role)
        assert positions(held) == [position]
        if held:
            give(ws, held, float(now))
    assert take(ws, collection, "bob", 9.0, role="qualification") is None
    assert queue.standing(db, collection, "ann", 3.0) == queue.Standing({"calibration": 2, "gold": 2, "main": 1}, 2, 0)


def test_higher_priority_comes_first_even_when_it_comes_later(ws):
    db, collection = ws.database, collect(ws, 3, overlap=2)
    give(ws, take(ws, collection, "ann"))
    give(ws, take(ws, collection, "ann"))
    queue.add_items(db, collection, new_items(ws, 2, first=3, priority=5), 0.0)
    queue.add_items(db, collection, new_items(ws, 1, first=5, priority=-5), 0.0)
    order = []
    while (held := take(ws, collection, "ann")) is not None:
        order.append(held.item.position)
        give(ws, held)
    assert order == [3, 4, 2, 5]


def test_somebody_elses_assignment_is_as_good_as_none(ws):
    db, collection = ws.database, collect(ws, 1)
    held = take(ws, collection, "ann")
    errors = set()
    for id, person in ((held.id, "bob"), ("0" * 16, "bob")):
        for act in (
            lambda id, person: queue.assignment(db, id, person),
            lambda id, person: queue.save_draft(db, id, person, {}, 1.0),
            lambda id, person: queue.renew(db, id, person, 1.0, LEASE),
            lambda id, person: queue.submit(db, id, person, key="k", record=said(held), now=1.0),
            lambda id, person: queue.skip(db, id, person, "", 1.0, 3),
            lambda id, person: queue.postpone(db, id, person, 1.0),
            lambda id, person: queue.take_back(db, id, person, 1.0),
        ):
            with pytest.raises(NotFoundError) as caught:
                act(id, person)
            errors.add(caught.value.message.replace(id, "ID"))
    assert errors == {"no assignment 'ID'"}
    assert queue.assignment(db, held.id, "ann") == held


# Leases


def test_a_lease_that_ran_out_frees_the_item(ws):
    collection = collect(ws, 1)
    assert positions(take(ws, collection, "ann", 0.0), take(ws, collection, "bob", LEASE - 0.1)) == [0, None]
    assert positions(take(ws, collection, "bob", LEASE)) == [0]
    assert take(ws, collection, "ann", LEASE + 1) is None


def test_who_comes_back_after_a_lapse_finds_item_order_and_draft(ws):
    db, collection = ws.database, collect(ws, 3)
    held = take(ws, collection, "ann", order=lambda *_: (1, 0))
    queue.save_draft(db, held.id, "ann", {"text": "half an ans"}, 5.0)
    assert positions(take(ws, collection, "bob", 200.0)) == [1]
    again = take(ws, collection, "ann", 201.0)
    assert (again.id, again.order, again.draft) == (held.id, (1, 0), {"text": "half an ans"})
    assert (again.state, again.issued, again.expires) == ("leased", 201.0, 201.0 + LEASE)


def test_renewing_keeps_a_lease_and_revives_one_while_there_is_room(ws):
    db, collection = ws.database, collect(ws, 1)
    held = take(ws, collection, "ann")
    assert queue.renew(db, held.id, "ann", 50.0, LEASE).expires == 50.0 + LEASE
    assert take(ws, collection, "bob", 100.0) is None
    assert queue.renew(db, held.id, "ann", 120.0, LEASE).state == "leased"
    assert positions(take(ws, collection, "bob", 500.0)) == [0]
    assert queue.renew(db, held.id, "ann", 501.0, LEASE).state == "expired", "bob has it now"


def test_a_late_answer_counts_while_a_vote_is_wanted_and_is_kept_as_surplus_otherwise(ws):
    collection = collect(ws, 2)
    late, later = take(ws, collection, "ann"), take(ws, collection, "bob")
    assert give(ws, late, 1000.0) == queue.Submitted(give(ws, late, 1001.0).judgement, False, again=False)
    third = take(ws, collection, "cid", 1002.0)
    assert third.item.id == later.item.id
    assert give(ws, later, 1003.0).surplus, "cid holds the only vote that is wanted"
    assert not give(ws, third, 1004.0).surplus
    stored = {
        about["person"]: judgement.meta["surplus"]
        for judgement, about in queue.current_judgements(ws.database, collection)
    }
    assert stored == {"ann": False, "bob": True, "cid": False}
    counts = queue.counts(ws.database, collection)
    assert counts["judgements"] == 3 and counts["needed"] == 0 and counts["people"]["bob"]["surplus"] == 1


# Submitting


def test_submitting_twice_stores_once(ws):
    collection = collect(ws, 1)
    held = take(ws, collection, "ann")
    first = give(ws, held, 1.0, key="a")
    again = give(ws, held, 2.0, key="a")
    assert (first.again, again.again, again.judgement) == (False, True, first.judgement)
    assert len(list(queue.current_judgements(ws.database, collection))) == 1
    for key in ("", "x" * 201):
        with pytest.raises(DataError, match="proper key"):
            give(ws, held, 3.0, key=key)


def test_a_revision_supersedes_and_nothing_is_overwritten(ws):
    db, collection = ws.database, collect(ws, 1)
    held = take(ws, collection, "ann")
    first, second = give(ws, held, 1.0, key="a", choice=-1), give(ws, held, 2.0, key="b", choice=2)
    assert give(ws, held, 3.0, key="a") == replace(first, again=True), "a retry of the old one changes nothing"
    ((current, about),) = queue.current_judgements(db, collection)
    assert (current.id, current.meta["answer"], current.meta["supersedes"]) == (
        second.judgement,
        {"choice": 2},
        first.judgement,
    )
    assert about == {
        "person": "ann", "item": held.item.id, "role": "main", "round": 0, "issued": 0.0, "submitted": 2.0,
    }  # fmt: skip
    (old,) = ws.judgements([first.judgement])
    assert old.meta["answer"] == {"choice": -1}
    assert queue.counts(db, collection)["judgements"] == 1
    assert queue.standing(db, collection, "ann", 0.0).done == {"main": 1}


def test_all_that_was_ever_said_is_given_back_with_what_became_of_it(ws):
    db, collection = ws.database, collect(ws, 2)
    held = take(ws, collection, "ann")
    first, second = give(ws, held, 1.0, key="a", choice=-1), give(ws, held, 2.0, key="b", choice=2)
    other = take(ws, collection, "ann", 3.0)
    withdrawn = give(ws, other, 4.0, key="c")
    queue.take_back(db, other.id, "ann", 5.0)
    queue.skip(db, other.id, "ann", "broken", 6.0, 3)
    told = [(said.id, about["superseded_by"], about["stands"]) for said, about in queue.every_judgement(db, collection)]
    assert told == [
        (first.judgement, second.judgement, False),
        (second.judgement, None, True),
        (withdrawn.judgement, None, False),
    ]
    assert len(list(queue.current_judgements(db, collection))) == 1


def test_all_skips_are_given_back_page_by_page(ws, monkeypatch):
    monkeypatch.setattr(judgements, "CHUNK", 2)
    db, collection = ws.database, collect(ws, 3, overlap=9)
    for person in ("ann", "bob"):
        for n in range(3):
            queue.skip(db, take(ws, collection, person, n).id, person, f"{person} {n}", n + 0.5, 9)
    give(ws, take(ws, collection, "cea"))
    found = list(queue.every_skip(db, collection))
    assert sorted(each["skipped_because"] for each in found) == [
        f"{who} {n}" for who in ("ann", "bob") for n in range(3)
    ]
    assert [each["person"] for each in found] == ["ann"] * 3 + ["bob"] * 3
    assert all(each["expires"] - each["issued"] == 0.5 and each["texts"] for each in found)


def test_judgements_are_kept_without_the_texts_and_given_back_with_them(ws):
    db, collection = ws.database, collect(ws, 1)
    held = take(ws, collection, "ann")
    record = replace(said(held), ratings={"overall": (5.0, None)}, split="heldout")
    id = queue.submit(db, held.id, "ann", key="k", record=record, now=1.0).judgement
    with db.read() as connection:
        row = connection.execute(sa.select(schema.judgement).where(schema.judgement.c.id == id)).one()
    assert "question" not in json.dumps(row.record) and "answer 0" not in json.dumps(row.record)
    assert row.completions == held.item.completions
    wanted = replace(record, id=id)
    ((current, _),) = queue.current_judgements(db, collection)
    for found in (
        current,
        *ws.judgements([id]),
        [j for j in ws.judgements(completions=row.completions) if j.id == id][0],
    ):
        assert found == wanted and found.meta == {**record.meta, "surplus": False}


def test_an_edited_text_is_stored_with_the_judgement(ws):
    db, collection = ws.database, collect(ws, 1)
    held = take(ws, collection, "ann")
    edited = replace(said(held), completions=(*held.item.texts, "a better one"), ranks=(2, 3, 1))
    id = queue.submit(db, held.id, "ann", key="k", record=edited, now=1.0).judgement
    assert next(ws.judgements([id])).completions[2] == "a better one"
    with pytest.raises(AssertionError, match="another prompt"):
        queue.submit(db, held.id, "ann", key="l", record=replace(edited, prompt=Prompt.user("other")), now=1.0)
    with pytest.raises(DataError):
        queue.submit(db, held.id, "ann", key="m", record=replace(edited, meta={"x": float("nan")}), now=1.0)


def test_drafts_survive_and_end_with_the_answer(ws):
    db, collection = ws.database, collect(ws, 1)
    held = take(ws, collection, "ann")
    queue.save_draft(db, held.id, "ann", {"rationale": "because \0 ✓"}, 1.0)
    assert queue.assignment(db, held.id, "ann").draft == {"rationale": "because \0 ✓"}
    give(ws, held)
    queue.save_draft(db, held.id, "ann", {"late": 1}, 2.0)
    assert queue.assignment(db, held.id, "ann").draft is None
    with pytest.raises(DataError, match="draft"):
        queue.save_draft(db, held.id, "ann", {"x": "\ud800"}, 3.0)


# Skipping, postponing, taking back


def test_a_skipped_item_goes_to_others_and_never_back(ws):
    db, collection = ws.database, collect(ws, 2)
    held = take(ws, collection, "ann")
    queue.skip(db, held.id, "ann", "broken", 1.0, 3)
    queue.skip(db, held.id, "ann", "broken", 1.0, 3)
    assert positions(take(ws, collection, "ann", 2.0)) == [1]
    assert positions(take(ws, collection, "bob", 2.0)) == [0]
    give(ws, take(ws, collection, "ann", 2.0), 3.0)
    assert take(ws, collection, "ann", 999.0) is None
    counts = queue.counts(db, collection)
    assert counts["people"]["ann"] == {"done": 1, "skipped": 1, "surplus": 0, "repeats": 0} and counts["needed"] == 1


def test_after_skips_by_different_people_an_item_is_quarantined(ws):
    db, collection = ws.database, collect(ws, 1)
    for person in ("ann", "bob", "cid"):
        queue.skip(db, take(ws, collection, person).id, person, "broken", 1.0, 3)
    (item,) = queue.items(db, collection, state="quarantined")
    assert item.reason == "skipped: broken"
    assert take(ws, collection, "dot") is None and queue.counts(db, collection)["needed"] == 0
    queue.clear(db, item.id, 2.0)
    held = take(ws, collection, "dot", 2.0)
    queue.skip(db, held.id, "dot", "", 3.0, 3)
    assert queue.items(db, collection)[0].state == "open", "older skips count no longer"


def test_quarantine_keeps_what_is_being_judged(ws):
    db, collection = ws.database, collect(ws, 1, overlap=3)
    held, other = take(ws, collection, "ann"), take(ws, collection, "bob")
    queue.quarantine(db, held.item.id, "personal data", 1.0)
    assert take(ws, collection, "cid") is None
    assert not give(ws, held).surplus
    assert queue.items(db, collection)[0].state == "quarantined"
    queue.clear(db, held.item.id, 2.0)
    assert positions(take(ws, collection, "cid", 2.0)) == [0]
    assert take(ws, collection, "dot", 2.0) is None
    assert other.id == take(ws, collection, "bob", 2.0).id


def test_postponed_items_come_after_the_others_the_first_one_first(ws):
    db, collection = ws.database, collect(ws, 4)
    order = []
    for now in range(20):
        if (held := take(ws, collection, "ann", float(now))) is None:
            break
        order.append(held.item.position)
        if now in (0, 1):
            queue.save_draft(db, held.id, "ann", {"n": now}, float(now))
            queue.postpone(db, held.id, "ann", float(now))
        else:
            assert held.draft == ({"n": held.item.position} if held.item.position < 2 else None)
            give(ws, held, float(now))
    assert order == [0, 1, 2, 3, 0, 1]
    assert queue.counts(db, collection)["needed"] == 0


def test_a_postponed_item_is_anybodys(ws):
    collection = collect(ws, 1)
    held = take(ws, collection, "ann")
    queue.postpone(ws.database, held.id, "ann", 1.0)
    assert positions(take(ws, collection, "bob", 1.0)) == [0]
    assert take(ws, collection, "ann", 2.0) is None
    assert give(ws, held, 3.0).surplus, "but what ann says all the same is kept"


def test_taking_back_gives_the_answer_as_a_draft_and_loses_nothing(ws):
    db, collection = ws.database, collect(ws, 3)
    held = take(ws, collection, "ann")
    first = give(ws, held, 1.0, key="a", choice=3)
    following = take(ws, collection, "ann", 2.0)
    undone = queue.take_back(db, held.id, "ann", 3.0, LEASE)
    assert (undone.state, undone.draft, undone.judgement) == ("leased", {"choice": 3}, first.judgement)
    assert take(ws, collection, "ann", 4.0).id == held.id, "first what was taken back, then the one before"
    assert [j.id for j, _ in queue.current_judgements(db, collection)] == [first.judgement], "it stands meanwhile"
    second = give(ws, held, 5.0, key="b")
    assert take(ws, collection, "ann", 6.0).id == following.id
    assert [j.id for j, _ in queue.current_judgements(db, collection)] == [second.judgement]
    with pytest.raises(DataError, match="no answer to take back"):
        queue.take_back(db, following.id, "ann", 7.0)


def test_an_answer_taken_back_and_forgotten_stands_again(ws):
    db, collection = ws.database, collect(ws, 1)
    held = take(ws, collection, "ann")
    first = give(ws, held, 1.0)
    queue.take_back(db, held.id, "ann", 2.0, LEASE)
    assert take(ws, collection, "bob", 999.0) is None
    assert queue.assignment(db, held.id, "ann").state == "done"
    queue.take_back(db, held.id, "ann", 1000.0, LEASE)
    queue.postpone(db, held.id, "ann", 1001.0)
    assert queue.assignment(db, held.id, "ann").state == "done"
    queue.take_back(db, held.id, "ann", 1002.0, LEASE)
    queue.skip(db, held.id, "ann", "on second thoughts", 1003.0, 3)
    assert list(queue.current_judgements(db, collection)) == [], "a skip withdraws it"
    assert [j.id for j in ws.judgements([first.judgement])] == [first.judgement]
    assert positions(take(ws, collection, "bob", 1004.0)) == [0]
    assert queue.standing(db, collection, "ann", 0.0).done == {"main": 0}


def test_what_was_answered_is_neither_skipped_nor_postponed(ws):
    db, collection = ws.database, collect(ws, 1)
    held = take(ws, collection, "ann")
    give(ws, held)
    with pytest.raises(DataError, match="judged already"):
        queue.skip(db, held.id, "ann", "", 2.0, 3)
    with pytest.raises(DataError, match="judged already"):
        queue.postpone(db, held.id, "ann", 2.0)
    assert queue.assignment(db, held.id, "ann").state == "done"


def test_own_work_pages_newest_first(ws):
    db, collection = ws.database, collect(ws, 7)
    queue.add_items(db, collection, new_items(ws, 1, first=7, role="gold"), 0.0)
    for now in (1.0, 2.0, 2.0, 2.0, 3.0, 4.0):
        give(ws, take(ws, collection, "ann", now), now)
    give(ws, take(ws, collection, "bob", 5.0), 5.0)
    give(ws, take(ws, collection, "ann", 6.0, role="gold"), 6.0)
    every = queue.own_work(db, collection, "ann", 100)
    assert positions(*every)[:3] == [7, 5, 4] and len(every) == 7
    paged = queue.own_work(db, collection, "ann", 3)
    while more := queue.own_work(db, collection, "ann", 2, before=paged[-1].id):
        paged += more
    assert paged == every
    assert positions(*queue.own_work(db, collection, "ann", 9, role="gold")) == [7]


def test_repeats_are_own_older_items_and_take_no_vote(ws):
    db, collection = ws.database, collect(ws, 14, overlap=2)
    for now in range(12):
        assert take(ws, collection, "ann", float(now), repeat=True) is None or now == 11
        if now < 11:
            give(ws, take(ws, collection, "ann", float(now)), now + 0.5)
    held = queue.holding(db, collection, "ann", 11.0)
    assert (held.round, held.item.position) == (1, 0), "all others are among the last ten"
    before = queue.counts(db, collection)
    done = give(ws, held, 12.0)
    after = queue.counts(db, collection)
    assert not done.surplus and after["needed"] == before["needed"]
    assert after["people"]["ann"] == {"done": 11, "skipped": 0, "surplus": 0, "repeats": 1}
    assert after["judgements"] == before["judgements"] + 1
    assert positions(take(ws, collection, "ann", 13.0)) == [11]
    rounds = Counter(about["round"] for _, about in queue.current_judgements(db, collection))
    assert rounds == {0: 11, 1: 1}


def test_a_quarantined_item_is_not_shown_again_either(ws):
    db, collection = ws.database, collect(ws, 13)
    for now in range(12):
        give(ws, take(ws, collection, "ann", float(now)), now + 0.5)
    first, second = queue.items(db, collection)[:2]
    for each in (first, second):  # all others were judged just now
        queue.quarantine(db, each.id, "flagged", 20.0)
    assert take(ws, collection, "ann", 20.0, repeat=True) is None
    queue.clear(db, second.id, 20.0)
    held = take(ws, collection, "ann", 20.0, repeat=True)
    assert (held.round, held.item.id) == (1, second.id)
    queue.quarantine(db, second.id, "flagged", 21.0)
    late = 20.0 + LEASE + 1
    assert queue.renew(db, held.id, "ann", late, LEASE).state == "expired"
    assert take(ws, collection, "ann", late, repeat=True) is None
    queue.clear(db, second.id, late)
    assert take(ws, collection, "ann", late, repeat=True).id == held.id


def test_release_asks_for_more_votes_or_for_no_more(ws):
    db, collection = ws.database, collect(ws, 1)
    held = take(ws, collection, "ann")
    give(ws, held)
    assert queue.items(db, collection)[0].state == "full" and take(ws, collection, "bob", 2.0) is None
    queue.release(db, held.item.id, 3)
    assert queue.counts(db, collection)["needed"] == 2
    assert positions(take(ws, collection, "bob", 2.0), take(ws, collection, "ann", 2.0)) == [0, None]
    queue.release(db, held.item.id, 1)
    assert queue.items(db, collection)[0].state == "full" and queue.counts(db, collection)["needed"] == 0
    assert take(ws, collection, "cid", 2.0) is None
    with pytest.raises(NotFoundError):
        queue.release(db, "nothing", 2)


def test_gc_keeps_what_a_queue_asks_about(ws):
    used = ws.put("completions", {"rows": b"used by the queue"})
    lone = ws.put("completions", {"rows": b"used by nobody"})
    collection = collect(ws)
    queue.add_items(ws.database, collection, [NewItem(Prompt.user("q"), ("a", "b"), used.id, (True, True))], 0.0)
    ws.delete(ws.unused())
    assert used.id in {a.id for a in ws.artifacts()} and lone.id not in {a.id for a in ws.artifacts()}


# What is counted beside the rows, and what a request may cost


def test_no_statement_of_a_request_reads_a_whole_table(workspace):
    """On SQLite, whose planner decides without statistics: a small table shows what a big one does."""
    db, collection = workspace.database, collect(workspace, 30, overlap=2)
    with recorded(workspace) as statements:
        for person in ("ann", "bob"):
            for now in range(15):
                give(workspace, take(workspace, collection, person, float(now)), float(now))
                queue.standing(db, collection, person, 0.0)
                queue.own_work(db, collection, person, 5)
            queue.postpone(db, take(workspace, collection, person, 20.0).id, person, 20.0)
            queue.skip(db, take(workspace, collection, person, 20.0).id, person, "", 20.0, 1)
            give(workspace, take(workspace, collection, person, 20.0, repeat=True), 21.0)
            queue.holding(db, collection, person, 1000.0)
            take(workspace, collection, person, 1000.0, role="gold")
    with db.read() as connection:
        plans = {
            statement: [row[3] for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)]
            for statement, parameters in statements.items()
            if "schema_version" not in statement
        }
    assert len(plans) > 20
    assert {s: plan for s, plan in plans.items() if any(step.startswith("SCAN") for step in plan)} == {}
    searches = [step for statement, plan in plans.items() if "ORDER BY item.turn" in statement for step in plan]
    assert "SEARCH item USING INDEX item_queue (collection=? AND role=? AND turn>?)" in searches
    assert not any("TEMP B-TREE" in step for step in searches), "the first free item, not the first of all sorted"


@contextmanager
def recorded(ws: Workspace):
    """Every different statement that is sent, with the parameters of one time."""
    statements: dict[str, tuple] = {}

    def note(connection, cursor, statement, parameters, context, many):
        if statement.startswith(("SELECT", "UPDATE", "INSERT", "DELETE")) and not many:
            statements[statement] = parameters

    for engine in (ws.database._reader, ws.database._writer):
        sa.event.listen(engine, "before_cursor_execute", note)
    yield statements
    for engine in (ws.database._reader, ws.database._writer):
        sa.event.remove(engine, "before_cursor_execute", note)


def test_a_long_past_is_not_walked_over_again(ws):
    """A judge who has done many still-open items starts behind them: the place they have passed is kept."""
    collection = collect(ws, 60, overlap=9)
    for now in range(40):
        give(ws, take(ws, collection, "ann", float(now)), float(now))
    with ws.database.read() as connection:
        row = connection.execute(sa.select(schema.standing).where(schema.standing.c.collection == collection)).one()
        last = connection.scalar(
            sa.select(schema.item.c.turn).where(schema.item.c.collection == collection, schema.item.c.position == 39)
        )
    assert row.passed == last and row.done == 40
