"""Another order for what waits: on every database, with people at work, and nothing lost or handed out twice."""

from __future__ import annotations

from people_at_work import check_counts, collect, give, new_items, positions, take

from trueup.store import queue
from trueup.store.items import bring_forward, splits


def items_of(ws, collection):
    return queue.items(ws.database, collection, limit=10_000)


def test_what_is_brought_forward_comes_next_in_the_order_given(ws):
    collection = collect(ws, 8)
    items = items_of(ws, collection)
    wished = {items[i].id: {"strategy": "random", "n": i} for i in (5, 2, 7)}
    assert bring_forward(ws.database, collection, wished) == 3
    came = []
    while (held := take(ws, collection, "ada")) is not None:
        give(ws, held)
        came.append(held.item.position)
    assert came == [5, 2, 7, 0, 1, 3, 4, 6]
    assert [item.why for item in items_of(ws, collection) if item.why] == [
        {"strategy": "random", "n": i} for i in (2, 5, 7)
    ]
    check_counts(ws, collection)


def test_whoever_has_passed_its_old_place_gets_it_too(ws):
    """With two votes an item: ada is at 4 when 0 and 6 are brought forward; she has judged 0 and is handed 6."""
    collection = collect(ws, 8, overlap=2)
    for _ in range(4):
        give(ws, take(ws, collection, "ada"))
    items = items_of(ws, collection)
    assert bring_forward(ws.database, collection, {items[i].id: {} for i in (0, 6)}) == 1, "0 was judged already"
    assert positions(take(ws, collection, "ada"), take(ws, collection, "bea")) == [6, 6]
    check_counts(ws, collection)


def test_what_is_held_judged_set_aside_or_of_another_collection_stays(ws):
    collection, other = collect(ws, 6), collect(ws, 2)
    held = take(ws, collection, "ada")
    give(ws, take(ws, collection, "bea"))
    items = items_of(ws, collection)
    queue.quarantine(ws.database, items[2].id, "skipped: odd", 0.0)
    strangers = items_of(ws, other)
    wished = {item.id: {"n": 1} for item in [*items[:4], *strangers]}
    assert bring_forward(ws.database, collection, wished) == 1
    assert [item.why for item in items_of(ws, collection)] == [{}, {}, {}, {"n": 1}, {}, {}]
    assert not any(item.why for item in items_of(ws, other))
    give(ws, held)
    assert positions(take(ws, collection, "cid")) == [3]
    check_counts(ws, collection)
    assert bring_forward(ws.database, collection, {}) == 0


def test_the_latest_come_first_also_in_pages(ws, monkeypatch):
    from trueup.store import judgements

    monkeypatch.setattr(judgements, "CHUNK", 2)
    collection = collect(ws, 9)
    ids = [item.id for item in items_of(ws, collection)]
    assert bring_forward(ws.database, collection, {ids[i]: {} for i in (1, 3, 5, 7, 8)}) == 5
    assert bring_forward(ws.database, collection, {ids[i]: {} for i in (4, 3)}) == 2
    came = []
    while (held := take(ws, collection, "ada")) is not None:
        give(ws, held)
        came.append(held.item.position)
    assert came == [4, 3, 1, 5, 7, 8, 0, 2, 6]
    check_counts(ws, collection)


def test_the_sides_of_all_collections_and_of_no_check(ws):
    one, two = collect(ws, 3), collect(ws, 2, first=2, split="heldout")
    queue.add_items(ws.database, two, new_items(ws, 1, first=9, role="gold", key={"ranks": [1, 2]}), 0.0)
    assert one != two
    found = sorted((prompt.text, side) for prompt, side in splits(ws.database))
    assert found == [
        ("question 0", "train"),
        ("question 1", "train"),
        ("question 2", "heldout"),
        ("question 2", "train"),
        ("question 3", "heldout"),
    ]
