"""A config class seen as a flat list of settings with dotted keys: what the loader checks, the docs print and the
command line offers. Everything is read from the schema; nothing is declared here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from pydantic.fields import FieldInfo

from .schema import Table

NONE = "none"  # TOML has no null: a setting that may be None takes this word


@dataclass(frozen=True)
class Kind:
    """What an annotation says: `base` is int, float, bool, str, dict or a Table; a list has a `length` (0: any)."""

    base: Any
    choices: tuple[str, ...] = ()
    optional: bool = False
    is_list: bool = False
    length: int = 0
    limits: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One setting: `key` is `lr` or `optimizer.lr`, `default` the stage's own."""

    key: str
    default: Any
    description: str
    kind: Kind
    range: str

    @property
    def table(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]

    @property
    def type(self) -> str:
        """The type in words: `integer`, `muon or adamw`, `number or none`, `list of 2 numbers`."""
        kind = self.kind
        words = {int: "integer", float: "number", bool: "true or false", str: "text"}
        word = " or ".join(kind.choices) or words.get(kind.base, "table")
        if kind.is_list:
            word = f"list of {kind.length} {word}s" if kind.length else f"list of {word}s"
        return f"{word} or {NONE}" if kind.optional else word


def settings(stage: type[Table]) -> dict[str, Setting]:
    """Every setting of a stage by its dotted key, the stage's own first, in the order of the schema."""
    own: dict[str, Setting] = {}
    shared: dict[str, Setting] = {}
    for name, field in stage.model_fields.items():
        if isinstance(field.default, Table):
            for inner, info in type(field.default).model_fields.items():
                key = f"{name}.{inner}"
                shared[key] = _setting(key, info, getattr(field.default, inner))
        else:
            own[name] = _setting(name, field, field.default)
    return own | shared


def tables(stage: type[Table]) -> dict[str, type[Table]]:
    """The shared tables a stage has, by name."""
    return {name: type(f.default) for name, f in stage.model_fields.items() if isinstance(f.default, Table)}


def value(config: Table, key: str) -> Any:
    """The value at a dotted key."""
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return found


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optimizer": {"lr": 1}}` as `{"optimizer.lr": 1}`."""
    result: dict[str, Any] = {}
    for name, inner in nested.items():
        key = f"{prefix}{name}"
        result |= flat(inner, f"{key}.") if isinstance(inner, Mapping) and inner else {key: inner}
    return result


def _setting(key: str, field: FieldInfo, default: Any) -> Setting:
    kind = _kind(field.annotation)
    return Setting(key, default, field.description or "", kind, _range([*kind.limits, *field.metadata]))


def _kind(annotation: Any) -> Kind:
    """Reads the kinds of annotation that the schema uses; another one is our mistake."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        (inner,) = [a for a in args if a is not NoneType]
        return replace(_kind(inner), optional=NoneType in args)
    if origin is Annotated:
        inner_kind = _kind(args[0])
        return replace(inner_kind, limits=(*inner_kind.limits, *args[1:]))
    if origin is tuple:
        return replace(_kind(args[0]), is_list=True, length=0 if args[-1] is Ellipsis else len(args))
    if origin is Literal:
        return Kind(str, choices=args)
    if origin is dict or issubclass(annotation, Table):
        return Kind(origin or annotation)
    assert annotation in (int, float, bool, str), annotation
    return Kind(annotation)


def _range(limits: list[Any]) -> str:
    """Bounds in words: `at least 1`, `0 to 1`, `above 0, at most 1`."""
    found: dict[type, Any] = {}
    for limit in limits:
        for one in getattr(limit, "metadata", [limit]):  # Field(ge=0) inside Annotated keeps its bounds in `metadata`
            found[type(one)] = one
    low, above, high, below = (found.get(kind) for kind in (bounds.Ge, bounds.Gt, bounds.Le, bounds.Lt))
    if low and high:
        return f"{low.ge} to {high.le}"
    lowest = [low and f"at least {low.ge}", above and f"above {above.gt}"]
    highest = [high and f"at most {high.le}", below and f"below {below.lt}"]
    return ", ".join(word for word in lowest + highest if word)
