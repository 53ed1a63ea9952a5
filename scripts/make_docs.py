"""Writes docs/commands.md and docs/settings.md from the commands and the config schema themselves.

`make docs` runs it; tests/test_cli.py fails when a page is not what this would write.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from trueup.cli.main import root
from trueup.config import reference

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 100
NOTE = "<!-- Written by scripts/make_docs.py (`make docs`). Change the code, not this page. -->"

COMMANDS = """\
# Commands

stdout holds the result, stderr the progress. Every command takes `--json`. Exit codes: 0 it worked, 1 an error
(`error:` says where, `hint:` what to do), 2 wrong usage, 130 Ctrl-C. `TRUEUP_DEBUG=1` adds the traceback to an error,
`TRUEUP_QUIET=1` hides progress. Artifacts are named by id, by the beginning of an id, or by name; a model may also be
a local folder or the id of one on the Hugging Face hub.
"""

SETTINGS = """\
# Settings

The settings of each stage, in order of strength: the stage's defaults, a preset, a TOML file (`--config FILE`),
`--set KEY=VALUE`, flags. A stage's own settings stand at the top of the file and are flags of its command; those of
shared tables stand under `[table]`, or in `--set table.key=value`. The word `none` stands for no value. An unknown
key, a wrong value and a setting without meaning for what was chosen are errors, all reported at once before a model
loads. `--dry-run` shows what a command would use.

A preset (`--preset 7b-lora`, or `preset = "7b-lora"` in a file) holds settings that suit a size of model, with LoRA or
with all weights. It gives way: a value of it that has no meaning beside what you set is left out. The presets are the
files in `trueup/config/presets`; beside each value stands whether it was measured here, or where it was published. The
config of a run names the preset and holds every value as it came to be. [Recipes](recipes.md) start from them.
"""


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    help_pages = "\n".join(f"## `{name}`\n\n```text\n{text}\n```\n" for name, text in helps(root, "trueup", None))
    return {
        DOCS / "commands.md": f"{NOTE}\n\n{COMMANDS}\n{help_pages}",
        DOCS / "settings.md": f"{NOTE}\n\n{SETTINGS}\n{reference()}",
    }


def helps(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """(name, help page) of a command and of all below it."""
    last = name.split()[-1]
    context = click.Context(command, parent, info_name=last, terminal_width=WIDTH, help_option_names=["-h", "--help"])
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from helps(command.commands[child], f"{name} {child}", context)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path)
