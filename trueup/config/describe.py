"""A config as text: the effective TOML of a run, and the reference of all settings (docs/settings.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticUndefined

from .audit import AuditConfig, ScoreConfig
from .collection import Axis, CollectionConfig
from .keys import NONE, Setting, settings, tables, value
from .rules import RULES, applies, idle
from .schema import Objective, Table
from .stages import STAGES
from .tradeoff import TradeoffConfig


def as_toml(config: Table) -> str:
    """The effective config. `load` reads it back equal: what has no effect in it is left out, as a comment."""
    silent = idle(config)
    lines: list[str] = []
    table = ""
    for key, setting in settings(type(config)).items():
        if setting.table != table:
            table = setting.table
            lines += ["", f"[{table}]"]
        found = value(config, key)
        if key in silent and found == setting.default:
            lines.append(f"# {setting.name}: {silent[key]}")
        else:
            lines.append(f"{setting.name} = {toml_value(found)}")
    return "\n".join(lines).lstrip() + "\n"


def toml_value(item: Any) -> str:
    """A value as TOML writes it; None as the word that stands for it."""
    if item is None:
        return f'"{NONE}"'
    if isinstance(item, str):
        # JSON escapes are TOML escapes, except that TOML wants DEL escaped and knows no surrogate pairs.
        return json.dumps(item, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(item, Table):
        return toml_value(item.model_dump(exclude_defaults=True))
    if isinstance(item, dict):
        return "{" + ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in item.items()) + "}"
    if isinstance(item, tuple):
        return "[" + ", ".join(toml_value(one) for one in item) + "]"
    return json.dumps(item) if isinstance(item, bool) else repr(item)


def _key(key: object) -> str:
    return str(key) if re.fullmatch(r"[A-Za-z0-9_-]+", str(key)) else toml_value(str(key))


def reference() -> str:
    """Markdown tables of every setting of every stage, with the rules that join them."""
    stages = STAGES | {each.stage: each for each in (AuditConfig, TradeoffConfig, ScoreConfig)}
    parts = [_stage(name, cls) for name, cls in stages.items()]
    shared = {name: cls for stage in stages.values() for name, cls in tables(stage).items()}
    parts += [_shared(name, cls) for name, cls in shared.items()]
    parts += [_listed("scoring.objectives", Objective)]
    parts += [_collection()]
    return "\n\n".join(parts) + "\n"


def _stage(name: str, cls: type[Table]) -> str:
    found = settings(cls)
    own = [s for s in found.values() if not s.table]
    lines = [f"## Stage `{name}`", "", _sentence(cls), "", *_rows(own)]
    lines += ["", f"Shared tables: {', '.join(f'[`[{t}]`](#table-{t})' for t in tables(cls))}."]
    different = [
        f"`{key} = {toml_value(s.default)}`"
        for key, s in found.items()
        if s.table and s.default != tables(cls)[s.table].model_fields[s.name].default
    ]
    if different:
        lines += ["", f"Defaults of its own: {', '.join(different)}."]
    return "\n".join([*lines, *_rules(cls)])


def _rules(cls: type[Table]) -> list[str]:
    rules = [rule for rule in RULES if applies(rule, cls)]
    lines = [f"- {', '.join(f'`{key}`' for key in rule.keys)}: {rule.why}" for rule in rules]
    return ["", "Errors, when set on purpose:", "", *lines] if rules else []


def _shared(name: str, cls: type[Table]) -> str:
    return "\n".join([f"## Table `{name}`", "", _sentence(cls), "", *_rows(settings(cls).values())])


def _collection() -> str:
    """Not a stage: nothing runs. People answer."""
    lines = ["## Collections", "", _sentence(CollectionConfig), "", *_rows(settings(CollectionConfig).values())]
    lines += _rules(CollectionConfig)
    return "\n".join([*lines, "", _listed("axes", Axis)])


def _listed(key: str, cls: type[Table]) -> str:
    """A table of which there may be several, in a list."""
    return "\n".join([f"### Table `[[{key}]]`", "", _sentence(cls), "", *_rows(settings(cls).values())])


def _rows(found: Iterable[Setting]) -> list[str]:
    lines = ["| setting | type | range | default | what it is |", "|---|---|---|---|---|"]
    for s in found:
        default = "required" if s.default is PydanticUndefined else f"`{toml_value(s.default)}`"
        cells = [f"`{s.key}`", s.type, s.range, default, s.description]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def _sentence(cls: type[Table]) -> str:
    return " ".join((cls.__doc__ or "").split())
