"""What every trueup command has: examples on its help page, `--json`, and a result that is printed in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from ..errors import TrueupError

if TYPE_CHECKING:
    from ..store import Workspace

_JSON = "trueup.json"


@dataclass(frozen=True)
class Result:
    """What a command found: `data` for `--json`, `text` for people. With `refused` it is printed, and the exit is 1."""

    data: Any
    text: str
    as_json: bool = False
    refused: TrueupError | None = None


class Command(click.Command):
    """A command returns a `Result`; `cli.main` prints it on stdout. Everything else goes to stderr."""

    def __init__(self, *args: Any, examples: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.params.append(
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                expose_value=False,
                callback=lambda ctx, _, value: ctx.meta.__setitem__(_JSON, value),
                help="Print one JSON value instead of text.",
            )
        )

    def invoke(self, ctx: click.Context) -> Result:
        result = super().invoke(ctx)
        assert isinstance(result, Result), self.name
        return replace(result, as_json=bool(ctx.meta.get(_JSON)))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)


class Group(click.Group):
    """A noun whose commands are its verbs."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, examples: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the work, not of the alphabet


def write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    """Line by line: click would join the lines to a paragraph."""
    with formatter.section("Examples"):
        for line in examples.strip().splitlines():
            formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


def reward_option(about: str, required: bool = False) -> Callable[[Any], Any]:
    """`--reward`, the same wherever something is scored; what it was given is read by `inputs.named_scorers`."""
    how = "a reward model, or a Python function as FILE.py:NAME; of several, NAME=ID each."
    return click.option("--reward", required=required, multiple=True, metavar="ID", help=f"{about}: {how}")


def json_wanted() -> bool:
    """Whether stdout is to hold one JSON value and nothing else."""
    return bool(click.get_current_context().meta.get(_JSON, False))


def lines_instead() -> bool:
    """Whether `--json` was given, to a command that then prints JSON lines itself as they come."""
    return bool(click.get_current_context().meta.pop(_JSON, False))


@contextmanager
def workspace() -> Iterator[Workspace]:
    """The workspace of `--workspace`, $TRUEUP_WORKSPACE or the nearest folder upwards that is one."""
    from ..store import Workspace

    with Workspace.find(chosen_workspace()) as found:
        yield found


def chosen_workspace() -> str | None:
    """What `--workspace` said."""
    chosen: str | None = click.get_current_context().find_root().params["workspace"]
    return chosen


def progress(line: str) -> None:
    """A word about how it goes, for people: on stderr, so that stdout holds nothing but the result."""
    click.echo(line, err=True)
