"""How a config is read: the stage's defaults, a preset, a TOML file, `--set key=value`, flags; later wins.

Every mistake of all of them is reported at once, before a model loads.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import ConfigError, nearest
from . import presets
from .collection import CONFIGS, CollectionConfig
from .keys import NONE, Setting, flat, settings, tables, value
from .rules import contradictions, meaningless
from .schema import Table


@dataclass(frozen=True)
class Given:
    """A value somebody set, and where: `rl.toml:3`, `--set optimizer.lr=1`, `--lr`. `text` is set if it came as one."""

    key: str
    value: Any
    where: str
    text: str | None = None


def load(
    stage: str, file: Path | None = None, sets: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> Table:
    """The effective config of a stage, or of a "collection". `flags` maps dotted keys to values, read as TOML would."""
    if stage not in CONFIGS:
        raise ConfigError(f"unknown stage '{stage}'{nearest(stage, CONFIGS)}", f"the stages are {', '.join(CONFIGS)}")
    cls = CONFIGS[stage]
    given, errors = _gather(cls, file, sets, flags or {})
    known = settings(cls)
    errors += [f"{g.where}: {_unknown(g.key, cls)}" for g in given if g.key not in known]
    explicit = {g.key: _plain(g, known[g.key]) for g in given if g.key in known}
    invalid = _invalid(cls, explicit)
    valid = {key: g for key, g in explicit.items() if key not in invalid}
    below = _preset(cls, stage, valid)
    config = _built(cls, below | valid)
    errors += invalid.values()
    wrong = contradictions(config, valid) or contradictions(config, below)
    errors += [f"{(below | valid)[key].where}: {key} {why}" for key, why in wrong]
    if errors:
        raise _error(stage, errors)
    return config


def check(config: Table) -> None:
    """Raise what `load` would say of a config built in Python: each value that is not the default counts as set."""
    changed = [key for key, s in settings(type(config)).items() if value(config, key) != s.default]
    errors = [f"{key} {why}" for key, why in contradictions(config, changed)]
    if errors:
        raise _error(getattr(config, "stage", ""), errors)


def _error(stage: str, errors: Sequence[str]) -> ConfigError:
    whose = _whose(stage)
    head = f"{len(errors)} settings of {whose} are wrong:\n  " if len(errors) > 1 else ""
    return ConfigError(head + "\n  ".join(errors), f"docs/settings.md lists every setting of {whose}")


def _whose(stage: str) -> str:
    return "a collection" if stage == CollectionConfig.stage else f"stage '{stage}'"


# Where values come from


def _gather(
    cls: type[Table], file: Path | None, sets: Sequence[str], flags: Mapping[str, Any]
) -> tuple[list[Given], list[str]]:
    """Everything that was set, weakest source first, and what could not even be read."""
    given: list[Given] = []
    errors: list[str] = []
    if file is not None:
        try:
            given += _file(cls, file)
        except ConfigError as problem:
            errors.append(problem.message)
    for text in sets:
        key, equals, raw = text.partition("=")
        if equals and key.strip():
            given.append(Given(key.strip(), read_value(raw), f"--set {text}", raw.strip()))
        else:
            errors.append(f"--set {text}: expected key=value, such as optimizer.lr=1e-4")
    for key, raw in flags.items():
        flag = "--" + key.rpartition(".")[2].replace("_", "-")
        is_text = isinstance(raw, str)
        given.append(Given(key, read_value(raw) if is_text else raw, flag, raw if is_text else None))
    return given, errors


def _file(cls: type[Table], file: Path) -> list[Given]:
    """The keys of a TOML file. An empty table sets nothing; a misspelt one is kept, to be complained about."""
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        at = re.search(r"at line (\d+)", str(problem))
        place = f"{file}:{at[1]}" if at else f"{file}:{len(text.splitlines()) or 1}"  # else: at the end of the text
        raise ConfigError(f"{place}: not valid TOML: {problem}") from None
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "not UTF-8 text"
        raise ConfigError(f"{file}: cannot be read: {reason}") from None
    empty = [name for name in tables(cls) if content.get(name) == {}]
    found = flat({name: inner for name, inner in content.items() if name not in empty})
    lines = _lines(text)
    return [Given(key, item, f"{file}:{lines[key]}") for key, item in found.items()]


def _lines(text: str) -> dict[str, int]:
    """The line that each key of a TOML text stands on: the text up to there, read alone, is the first to have it."""
    found: dict[str, int] = {}
    lines, start = text.split("\n"), 1
    for end in range(1, len(lines) + 1):
        try:
            content = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:  # inside a value of several lines
            continue
        for key in flat(content):
            found.setdefault(key, start)
        start = end + 1
    return found


def read_value(text: str) -> Any:
    """A value written on a command line: typed as TOML types it, anything else is text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    return parsed["value"] if list(parsed) == ["value"] else text.strip()


def _preset(cls: type[Table], stage: str, chosen: Mapping[str, Given]) -> dict[str, Given]:
    """What the preset that was chosen sets. It gives way: what has no meaning beside the rest is left out."""
    name = chosen["preset"].value if "preset" in chosen else NONE
    if name == NONE:
        return {}
    estimator = chosen["estimator"].value if "estimator" in chosen else ""
    found = {key: Given(key, item, f"preset {name}") for key, item in presets.values(name, stage, estimator).items()}
    gone = meaningless(_built(cls, found | dict(chosen)))
    return {key: given for key, given in found.items() if key not in gone and key not in chosen}


# What is wrong with them


def _plain(given: Given, setting: Setting) -> Given:
    """The word for `no value` becomes None where the setting allows it, and what came as text stays text if wanted."""
    kind = setting.kind
    if kind.optional and given.value == NONE:
        return replace(given, value=None)
    if kind.base is str and not kind.is_list and given.text is not None and not isinstance(given.value, str):
        return replace(given, value=given.text)
    return given


def _built(cls: type[Table], explicit: Mapping[str, Given]) -> Table:
    """The stage's defaults with `explicit` put over them."""
    # The defaults of the stage, which may differ from those of the shared table's class.
    nested: dict[str, Any] = cls().model_dump(mode="json")
    for key, given in explicit.items():
        table, _, name = key.rpartition(".")
        (nested[table] if table else nested)[name] = given.value
    # Strict, from JSON: "40" is no integer and true is no number, while a list may still fill a tuple.
    return cls.model_validate_json(json.dumps(nested, default=str), strict=True)


def _invalid(cls: type[Table], explicit: Mapping[str, Given]) -> dict[str, str]:
    """One line for each value of the wrong type or out of range, by key."""
    known = settings(cls)
    wrong = [key for key, given in explicit.items() if _not_finite(given.value)]
    try:
        _built(cls, {key: given for key, given in explicit.items() if key not in wrong})
    except ValidationError as problem:
        places = [[str(part) for part in error["loc"]] for error in problem.errors(include_url=False)]
        wrong += [next(k for k in (".".join(parts[:2]), parts[0]) if k in known) for parts in places]
    return {
        key: f"{explicit[key].where}: {key} must be {_expected(known[key])}, not {_shown(explicit[key].value)}"
        for key in dict.fromkeys(wrong)
    }


def _expected(setting: Setting) -> str:
    kind = setting.kind
    if kind.is_list:
        of = f" with {', '.join(kind.base.model_fields)}" if issubclass(kind.base, Table) else ""
        return f"a {setting.type}{of}" + (f", each {setting.range}" if setting.range else "")
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
    word = " or ".join(repr(c) for c in kind.choices) or words[kind.base]
    return " ".join(filter(None, [word, setting.range])) + (f" or '{NONE}'" if kind.optional else "")


def _shown(item: Any) -> str:
    return repr(item) if isinstance(item, str) else json.dumps(item, default=str)


def _not_finite(item: Any) -> bool:
    return isinstance(item, float) and not math.isfinite(item)


def _unknown(key: str, cls: type[Table]) -> str:
    """What to say of a key that the stage does not have: the same name elsewhere, else the nearest one."""
    known = settings(cls)
    name = key.rpartition(".")[2]
    if key in tables(cls):
        return f"{key} is a table: set one of its keys, such as {next(k for k in known if k.startswith(key + '.'))}"
    elsewhere = [k for k, s in known.items() if s.name == name]
    if elsewhere:
        return f"unknown key '{key}' (it is '{elsewhere[0]}')"
    stages = [stage for stage, other in CONFIGS.items() if key in settings(other)]
    if stages:
        return f"unknown key '{key}' in {_whose(getattr(cls, 'stage', ''))} (it belongs to {', '.join(stages)})"
    return f"unknown key '{key}'{nearest_key(key, known)}"


def nearest_key(key: str, known: Mapping[str, Setting]) -> str:
    """The nearest key by spelling, else the one whose description has all the words of it (learning_rate is `lr`)."""
    table, _, name = key.rpartition(".")
    words = [word for word in name.lower().replace("-", "_").split("_") if word]
    described = [k for k, s in known.items() if words and all(word in s.description.lower().split() for word in words)]
    same_table = [k for k in described if k.rpartition(".")[0] == table]
    if described and len(words) > 1:
        return f" (did you mean '{(same_table or described)[0]}'?)"
    by_name = nearest(name, [s.name for s in known.values() if s.table == table])
    return by_name and by_name.replace("mean '", f"mean '{table}." if table else "mean '") or nearest(key, known)
