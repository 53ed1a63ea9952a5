"""The order of display: balanced over the people of an item and the items of a person, swapped when shown again."""

from __future__ import annotations

from collections import Counter

import pytest

from trueup.feedback.order import display_order
from trueup.records import Prompt
from trueup.store.items import Item


def item(position: int, k: int = 2) -> Item:
    texts = tuple(f"text {i}" for i in range(k))
    return Item(Prompt.user("x"), texts, "set", (True,) * k, id=f"i{position}", collection="c", position=position)


def shown(position: int, person: int, k: int = 2, secret: bytes = b"s", round: int = 0) -> tuple[int, ...]:
    return display_order(secret, item(position, k), person, round)


@pytest.mark.parametrize("k", [2, 3, 4, 9])
def test_over_people_and_over_items_each_completion_stands_equally_often_at_each_place(k):
    size = 6 * k
    for position in range(size):
        places = Counter(o for person in range(size) for o in enumerate(shown(position, person, k)))
        assert set(places.values()) == {size // k}
    for person in range(5):
        places = Counter(o for position in range(size) for o in enumerate(shown(position, person, k)))
        assert set(places.values()) == {size // k}


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_every_order_shows_everything_and_comes_back_the_same(k):
    for position in range(20):
        order = shown(position, 3, k)
        assert sorted(order) == list(range(k)) and order == shown(position, 3, k)
        assert shown(position, 3, k, round=1) == order[::-1]


def test_without_the_secret_nothing_can_be_told_from_the_position():
    """A person's lefts in even positions: about half, and other ones under another secret."""
    lefts = {secret: [shown(2 * i, 0, secret=secret)[0] for i in range(400)] for secret in (b"a", b"b")}
    for each in lefts.values():
        assert 150 < sum(each) < 250
    same = sum(a == b for a, b in zip(*lefts.values(), strict=True))
    assert 150 < same < 250
