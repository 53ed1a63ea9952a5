"""What those who decide read, on every database: which items people differ on, who skipped one, which are noted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from people_at_work import collect, new_items, said, take

from trueup.store import audit, judgements, queue, review
from trueup.store.database import writing


@pytest.fixture
def ws(shared):
    return shared


def vote(ws, collection, person, ranks, now=1.0, **options):
    held = take(ws, collection, person, now, **options)
    queue.submit(ws.database, held.id, person, key="k", record=replace(said(held), ranks=ranks), now=now)
    return held


def differing(ws, collection):
    return {each.item: sorted(each.places) for each in review.differing(ws.database, collection)}


def test_items_with_different_votes_are_found(ws):
    collection = collect(ws, 3, overlap=2)
    for person, places in (("ann", ((1, 2), (1, 2), (1, 1))), ("bob", ((2, 1), (1, 2), (1, 2)))):
        for ranks in places:
            vote(ws, collection, person, ranks)
    first, alike, third = (item.id for item in queue.items(ws.database, collection))
    found = {item: [json.loads(place) for place in places] for item, places in differing(ws, collection).items()}
    assert found == {first: [[1, 2], [2, 1]], third: [[1, 1], [1, 2]]} and alike not in found
    queue.quarantine(ws.database, first, "flagged", 2.0)
    assert list(differing(ws, collection)) == [third], "what is set aside is decided elsewhere"
    assert differing(ws, collect(ws, 1)) == {}


def test_checks_repeats_and_replaced_answers_make_no_difference(ws):
    control = collect(ws, 1, overlap=2, role="control")
    for person, ranks in (("ann", (1, 2)), ("bob", (2, 1))):
        vote(ws, control, person, ranks, role="control")
    assert differing(ws, control) == {}

    collection = collect(ws, 12, overlap=1)
    for now in range(12):
        vote(ws, collection, "ann", (1, 2), now=float(now))
    vote(ws, collection, "ann", (2, 1), now=20.0, repeat=True)
    assert differing(ws, collection) == {}, "the same person again is no second vote"

    collection = collect(ws, 1, overlap=2)
    held = vote(ws, collection, "ann", (1, 2))
    vote(ws, collection, "bob", (2, 1))
    assert len(differing(ws, collection)) == 1
    record = replace(said(held), ranks=(2, 1))
    queue.submit(ws.database, held.id, "ann", key="second", record=record, now=3.0)
    assert differing(ws, collection) == {}, "what stands is what counts"
    (votes,) = review.votes(ws.database, [held.item.id]).values()
    assert [each.ranks for each in votes] == [(2, 1), (2, 1)] and votes[0].prompt == held.item.prompt


def test_votes_and_items_are_read_for_what_was_asked(ws):
    collection = collect(ws, 2, overlap=2)
    held = vote(ws, collection, "ann", (1, 2))
    first, second = queue.items(ws.database, collection)
    assert {item: len(votes) for item, votes in review.votes(ws.database, [second.id, first.id]).items()} == {
        first.id: 1,
        second.id: 0,
    }
    assert review.items(ws.database, collection, [first.id, "0" * 16]) == {first.id: first} and held.item.id == first.id
    assert review.items(ws.database, collect(ws, 1), [first.id]) == {}, "of another collection"
    assert review.beginning_with(ws.database, collection, first.id[:10]) == [first.id]
    assert review.beginning_with(ws.database, collection, "%") == [], "a sign of the database is a letter here"
    assert review.open_ones(ws.database, [first.id, second.id]) == {first.id, second.id}
    vote(ws, collection, "bob", (1, 2))
    assert review.open_ones(ws.database, [first.id, second.id]) == {second.id}


def test_skips_count_from_the_end_of_the_last_quarantine(ws):
    collection = collect(ws, 1, overlap=3)
    for person, now in (("ann", 1.0), ("bob", 2.0)):
        queue.skip(ws.database, take(ws, collection, person, now).id, person, f"{person} cannot", now, 2)
    (item,) = queue.items(ws.database, collection)
    assert review.skips(ws.database, [item.id]) == {
        item.id: [{"person": "ann", "reason": "ann cannot"}, {"person": "bob", "reason": "bob cannot"}]
    }
    queue.clear(ws.database, item.id, 3.0)
    assert review.skips(ws.database, [item.id]) == {item.id: []}


def test_noted_items_are_found_by_the_name_of_the_note(ws):
    collection = collect(ws, 1)
    queue.add_items(ws.database, collection, new_items(ws, 3, first=5, why={"leaks": ["claude"]}), 0.0)
    queue.add_items(ws.database, collection, new_items(ws, 1, first=9, why={"strategy": "random"}), 0.0)
    found = review.noted(ws.database, collection, "leaks")
    assert [item.position for item in found] == [1, 2, 3] and found[0].why == {"leaks": ["claude"]}
    assert [item.position for item in review.noted(ws.database, collection, "leaks", 1, 1)] == [2]
    assert review.count_noted(ws.database, collection, "leaks") == 3
    assert review.count_noted(ws.database, collection, "nothing") == 0


def test_changes_with_a_connection_happen_together_or_not_at_all(ws):
    collection = collect(ws, 1)
    (item,) = queue.items(ws.database, collection)
    before = len(list(ws.judgements()))
    with pytest.raises(ZeroDivisionError), ws.database.write() as connection:
        queue.release(connection, item.id, 3)
        queue.quarantine(connection, item.id, "flagged", 1.0)
        queue.set_status(connection, collection, "closed")
        queue.add_guideline(connection, collection, "Other words.", 1.0)
        judgements.add(connection, [said(take_nothing(item))], item.completions)
        audit.note_within(connection, 1.0, "", "did it all", item.id)
        raise ZeroDivisionError
    assert len(list(ws.judgements())) == before
    assert queue.items(ws.database, collection) == [item]
    assert queue.collection(ws.database, collection).status == "open"
    assert len(queue.guidelines(ws.database, collection)) == 1
    assert audit.entries(ws.database, action="did it all") == []
    with writing(ws.database) as connection:
        queue.release(connection, item.id, 3)
        audit.note_within(connection, 1.0, "", "asked", item.id, collection=collection)
    assert queue.items(ws.database, collection)[0].overlap == 3
    (entry,) = audit.entries(ws.database, action="asked", collection=collection)
    assert entry["about"] == item.id and audit.entries(ws.database, action="asked", collection="other") == []


def take_nothing(item):
    """An assignment that nobody holds, to make a record from."""
    return queue.Assignment("a", item, item.collection, "ann", 0, "leased", (0, 1), "g", 0.0, 1.0, None, None, "")
