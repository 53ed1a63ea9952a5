"""The root command, and the one place where errors become exit codes.

0 it worked · 1 `error:` and `hint:` on stderr · 2 wrong usage · 130 Ctrl-C. stdout holds the result and nothing else.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import click

from ..errors import Interrupted, TrueupError, brief
from .artifacts import artifacts, gc, lineage
from .chat import chat
from .command import Group, Result
from .compare import compare
from .data import data
from .demo import demo
from .judging import evaluate, feedback
from .label import label
from .models import ensemble, env, export, sample
from .overopt import overopt
from .plan import plan
from .report import report
from .rewards import reward as audit
from .rewards import rewards, score
from .runs import runs
from .safety import safety
from .text import printable, to_json
from .tradeoff import tradeoff
from .train import train
from .watch import watch
from .workspaces import init, upgrade

PIPE_CLOSED = 141  # what a shell reports for a program that SIGPIPE ended


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    examples="""
    trueup demo
    trueup init work
    trueup --workspace work data add prompts.jsonl --kind prompts
    trueup --workspace work train sft --base HuggingFaceTB/SmolLM2-135M --data demonstrations
    """,
)
@click.option(
    "--workspace",
    metavar="DIR",
    help="The workspace to use; else $TRUEUP_WORKSPACE, else the nearest folder upwards that is one.",
)
@click.version_option(version("trueup"), prog_name="trueup", message="%(prog)s %(version)s")
def root(workspace: str | None) -> None:
    """Tune language models on people's preferences: data, training, judging and evaluation in one workspace."""


evaluate.add_command(compare)
evaluate.add_command(safety)
evaluate.add_command(audit)
evaluate.add_command(rewards)
evaluate.add_command(tradeoff)
evaluate.add_command(overopt)
_WORK = (init, data, train, sample, score, label, feedback, evaluate)
_LOOK = (watch, runs, report, chat, artifacts, lineage, ensemble, export, gc, plan, env, upgrade, demo)
for command in (*_WORK, *_LOOK):
    root.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The `trueup` program."""
    # Idle OpenMP threads that spin make a busy machine many times slower. Read once, when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # but a few microseconds are worth waiting: a third of a small step
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a character gets its code
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing a user does ends in a traceback."""
    try:
        returned = root.main(arguments, prog_name="trueup", standalone_mode=False)
        if isinstance(returned, Result):
            print_result(returned)
            wrong = returned.refused
            return 0 if wrong is None else _fail(wrong, wrong.message, wrong.hint, 1)
        return int(returned or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "trueup"
        return _fail(error, " ".join(error.format_message().split()), f"see `{path} --help`", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except Interrupted as error:
        return _fail(error, error.message, error.hint, 130)
    except TrueupError as error:
        return _fail(error, error.message, error.hint or "TRUEUP_DEBUG=1 shows where this came from", 1)
    except BrokenPipeError:
        _silence_stdout()
        return PIPE_CLOSED
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        hint = "check that it exists, that you may use it, and that its disk has room"
        return _fail(error, f"{place}{error.strerror or error}", hint, 1)
    except Exception as error:
        found = f"{type(error).__name__}: {brief(str(error))} ({_place(error)})"
        return _fail(error, found, "this is a bug of trueup: report it with what TRUEUP_DEBUG=1 prints", 1)


def print_result(result: Result) -> None:
    text = to_json(result.data) if result.as_json else result.text
    if text:
        print(text, flush=True)  # flushed now: a closed pipe must show while it can still be caught


def _fail(error: BaseException, message: str, hint: str, code: int) -> int:
    if os.environ.get("TRUEUP_DEBUG"):
        traceback.print_exception(error)
    for line in message.splitlines() or [""]:  # several mistakes at once: each line stands on its own
        click.echo(f"error: {printable(line.strip())}", err=True)
    if hint:
        click.echo(f"hint: {printable(hint)}", err=True)
    return code


def _place(error: Exception) -> str:
    """The innermost line of trueup on the way to `error`."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path(__file__).parents[1])]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name} line {frame.lineno}"


def _silence_stdout() -> None:
    """Python flushes stdout once more as it exits, and would complain about the closed pipe there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
