"""The options of a stage, made from its config class: no setting is declared a second time here."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ..config import CONFIGS, load
from ..config.keys import Setting, settings

SHORTCUTS = ("run.seed", "run.threads", "optimizer.lr")  # settings of shared tables that have a flag of their own
Function = Callable[..., Any]


def stage_settings(stage: str) -> Callable[[Function], Function]:
    """Adds `--config`, `--set` and a flag for each of the stage's own settings; the function receives `config`."""

    def decorate(function: Function) -> Function:
        @wraps(function)
        def with_config(config_file: Path | None, sets: tuple[str, ...], **options: Any) -> Any:
            given = {key: options.pop(_parameter(key)) for key in flags}
            flags_given = {key: value for key, value in given.items() if value is not None}
            return function(config=load(stage, config_file, sets, flags_given), **options)

        decorated: Function = with_config
        for setting in reversed(list(flags.values())):
            decorated = _flag(setting)(decorated)
        decorated = _SET(decorated)
        return _CONFIG(decorated)

    known = settings(CONFIGS[stage])
    # A list has no flag: it is written in a file, or as --set criteria='["true", "short"]'.
    flags = {key: s for key, s in known.items() if (not s.table and not s.kind.is_list) or key in SHORTCUTS}
    return decorate


_CONFIG = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file with settings; docs/settings.md lists them all.",
)
_SET = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set any one setting, such as optimizer.lr=1e-4. Stronger than --config; may be repeated.",
)


def _parameter(key: str) -> str:
    """The name under which click hands a setting over: an identifier that no input has."""
    return "setting_" + key.replace(".", "__")


def _flag(setting: Setting) -> Callable[[Function], Function]:
    name = setting.name.replace("_", "-")
    declaration = f"--{name}/--no-{name}" if setting.kind.base is bool else f"--{name}"
    about = "; ".join(filter(None, [setting.range, f"default {_shown(setting.default)}"]))
    return click.option(
        declaration,
        _parameter(setting.key),
        default=None,
        metavar=_metavar(setting),
        # Not converted by click: `load` reports every wrong value of file, --set and flags at once.
        type=None if setting.kind.base is bool else str,
        help=f"{setting.description} [{about}]",
    )


def _metavar(setting: Setting) -> str | None:
    if setting.kind.base is bool:
        return None
    if setting.kind.choices:
        return "|".join(setting.kind.choices)
    return {int: "INTEGER", float: "NUMBER", str: "TEXT"}[setting.kind.base]


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "none" if default is None else str(default)
