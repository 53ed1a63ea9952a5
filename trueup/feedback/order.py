"""In which order the completions of an item are shown to a person: balanced, not merely random.

Every order is a rotation of an order that belongs to a few neighbouring items. Over the people of an item, and over
the items that a person gets in turn, each completion stands equally often at each place; of a pair, as often left as
right. Nobody without the secret can tell which comes next.
"""

from __future__ import annotations

import hashlib
import hmac

from ..store.items import Item


def display_order(secret: bytes, item: Item, person_number: int, round: int) -> tuple[int, ...]:
    """order[place] is the index of the completion shown there. `round` 1, an item shown again, is the other way round.

    `person_number` counts the people of the workspace: neighbours see the items of a pair in opposite orders.
    """
    k = len(item.texts)
    block, offset = divmod(item.position, k)
    base = sorted(range(k), key=lambda i: keyed(secret, "order", item.collection, block, i))
    turn = (offset + person_number) % k
    order = tuple(base[turn:] + base[:turn])
    return order[::-1] if round % 2 else order


def keyed(secret: bytes, *about: object) -> int:
    message = "\0".join(map(str, about)).encode()
    return int.from_bytes(hmac.new(secret, message, hashlib.sha256).digest()[:8], "big")
