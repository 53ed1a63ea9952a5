"""JSON as data files hold it, without what Python would let pass: a key that stands twice, nesting without end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

DEEPEST = 500  # levels: Python itself gives up near 1000, wherever in the program that happens to be
_BETWEEN = re.compile(r"[\s,]*")


def parse(text: str) -> Any:
    """The value, or a ValueError that says what is wrong, of which a `json.JSONDecodeError` knows the place."""
    value = _decoded(text, _no_key_twice)
    if text.count("{") + text.count("[") > DEEPEST and _deeper_than(value, DEEPEST):
        raise ValueError(_TOO_DEEP)
    return value


def parse_items(text: str) -> Any:
    """The value too; where it is an array, an item that is wrong is the ValueError that says so."""
    try:
        return parse(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        if not text.lstrip().startswith("["):
            raise
    return list(_one_by_one(text))


_TOO_DEEP = f"nested too deeply: more than {DEEPEST} levels"


def _one_by_one(text: str) -> Iterator[Any]:
    decoder, position = json.JSONDecoder(), text.index("[") + 1
    for _ in _decoded(text, dict):
        between = _BETWEEN.match(text, position)
        assert between is not None  # it matches nothing at all, too
        _, position = decoder.raw_decode(text, between.end())
        try:
            yield parse(text[between.end() : position])
        except ValueError as error:
            yield ValueError(f"{error} (line {text.count(chr(10), 0, between.end()) + 1})")


def _decoded(text: str, of_pairs: Any) -> Any:
    try:
        return json.loads(text, object_pairs_hook=of_pairs)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        if "integer string conversion" in str(error):  # Python's own limit
            raise ValueError("a number with too many digits") from None
        raise


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{twice}' stands twice in one object")
    return found


def _deeper_than(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        level = [inner for each in level if isinstance(each, Mapping | list) for inner in _inside(each)]
        if not level:
            return False
    return True


def _inside(value: Mapping[str, Any] | list[Any]) -> Iterator[Any]:
    yield from value.values() if isinstance(value, Mapping) else value
