"""`trueup eval reward`, `trueup eval rewards` and `trueup score`: what a reward model is worth, and what it says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..config.audit import AuditConfig, ScoreConfig
from ..errors import DataError, TrueupError
from .command import Command, Result, lines_instead, workspace
from .settings import stage_settings
from .text import counted, jsonable, printable, table


@click.command(
    "reward",
    cls=Command,
    examples="""
    trueup eval reward judge votes
    trueup eval reward judge votes --gate --policy sft --prompts posts --out audit
    trueup eval reward judge votes --gate --set overrides='["length"]'
    trueup eval reward judge votes --bench rewardbench.jsonl --json
    """,
)
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA")
@click.option("--train", metavar="ID", help="The set it learnt from. [default: what its lineage says]")
@click.option("--policy", metavar="ID", help="The model to be tuned against it: have both grown from one base?")
@click.option("--prompts", metavar="ID", help="The prompts it will be used on: are they like those of DATA?")
@click.option("--bench", metavar="FILE", help="Best-of-n rows as well: prompt, chosen, rejected (a list), subset.")
@click.option("--gate", is_flag=True, help="Exit with 1 where a condition fails that is not overridden.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write result.json and card.html here as well."
)
@stage_settings("audit")
def reward(
    model: str,
    data: str,
    train: str | None,
    policy: str | None,
    prompts: str | None,
    bench: str | None,
    gate: bool,
    out: Path | None,
    config: AuditConfig,
) -> Result:
    """Audit a reward model on held-out judgements: how often it is right, how sure, what it likes, what breaks it.

    Writes figures and a report card as an artifact. docs/reward-models.md says how to read it.
    """
    from .. import auditing

    with workspace() as ws:
        found = auditing.audit(
            ws, model=model, data=data, train=train, policy=policy, prompts=prompts, bench=bench, out=out, config=config
        )
    where = str(out / auditing.CARD) if out else found["card"]
    failed = found["gate"]["failed"]
    refused = None
    if gate and failed:
        why = {each["name"]: each["why"] for each in found["gate"]["conditions"]}
        refused = TrueupError(
            f"the reward model fails {len(failed)} of {len(why)} conditions:\n  "
            + "\n  ".join(f"{name}: {why[name]}" for name in failed),
            f"read {where}; what may fail is named in overrides: --set overrides='{json.dumps(failed)}'",
        )
    return Result(found, _audited(found, where), refused=refused)


def _audited(found: Mapping[str, Any], where: str) -> str:
    from ..reports.assistance import assistance_lines

    rows = [[each["name"], _verdict(each), each["why"]] for each in found["gate"]["conditions"]]
    parts = [
        found["headline"],
        f"{found['judgements']:,} judgements ({found['split']}), {counted(found['ties'], 'tie')}"
        + (f"; {found['too_long']:,} are longer than it reads and were left out" if found["too_long"] else ""),
        table(["condition", "verdict", "found"], rows),
        _objectives(found),
        _slices(found),
        "\n".join(map(printable, assistance_lines(found["assistance"]))) if found["assistance"] else "",
    ]
    if bench := found["bench"]:
        parts.append(
            f"best of several: {bench['value']:.3f} {_range(bench['ci'])}, n={bench['n']}; chance "
            f"{bench['chance']:.3f}, longest {bench['longest']:.3f}, shortest {bench['shortest']:.3f}"
            + (f"; {bench['too_long']:,} rows are longer than it reads and were left out" if bench["too_long"] else "")
        )
    parts.append("\n".join(f"- {printable(finding)}" for finding in found["findings"]))
    parts.append(f"evaluation {found['evaluation']}\ncard {where}")
    return "\n\n".join(filter(None, parts))


def _objectives(found: Mapping[str, Any]) -> str:
    rows = [[name, f"{each['value']:.3f}", _range(each["ci"]), each["n"]] for name, each in found["objectives"].items()]
    return table(["objective by itself", "accuracy", "interval", "n"], rows) if rows else ""


def _slices(found: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{each['kind']}: {each['name']}",
            f"{each['value']:.3f}",
            _range(each["ci"]),
            f"{each['longest']:.3f}",
            each["n"],
        ]
        for each in found["slices"]
    ]
    return table(["slice", "accuracy", "interval", "longest", "n"], rows) if rows else ""


def _verdict(condition: Mapping[str, Any]) -> str:
    if condition["met"] is None:
        return "unknown"
    return "met" if condition["met"] else "overridden" if condition["overridden"] else "failed"


def _range(ci: Any) -> str:
    return f"[{ci[0]:.3f}, {ci[1]:.3f}]"


@click.command(
    "rewards",
    cls=Command,
    examples="""
    trueup eval rewards judge-1 judge-2 votes
    trueup eval rewards jury judge votes --json
    trueup eval rewards lower higher votes --show 20
    """,
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.argument("data", metavar="DATA")
@click.option("--show", type=click.IntRange(min=0), default=5, show_default=True, help="Pairs to list of a kind.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the interval's redraws.")
@stage_settings("score")
def rewards(a: str, b: str, data: str, show: int, seed: int, config: ScoreConfig) -> Result:
    """Which of two reward models foresees more of the same held-out judgements, and where they part.

    To check a model A, let B be one that learnt from judges who had help: listed are the pairs B orders the other way.
    """
    from .. import auditing

    with workspace() as ws:
        found = auditing.compare_rewards(ws, a=a, b=b, data=data, seed=seed, shown=show, **_read_by(config))
    return Result(found, _compared(a, b, found))


def _compared(a: str, b: str, found: Mapping[str, Any]) -> str:
    difference = found["difference"]
    rows = [[name, f"{found[key]['value']:.3f}", _range(found[key]["ci"])] for name, key in ((a, "a"), (b, "b"))]
    return "\n\n".join(
        [
            table(["reward model", "accuracy", "interval"], rows),
            f"difference {difference['value']:+.3f} {_range(difference['ci'])}, n={found['n']} pairs "
            f"({found['split']})\nMcNemar p={found['p_value']:.3g}: only A right on {found['only_a']}, only B on "
            f"{found['only_b']}; the same order on {found['same_order']:.1%}",
            "where they part most (margin of the preferred one, in std):\n" + _pairs(found["apart"]),
            _opposed(found["opposed"]),
        ]
    )


def _opposed(found: Mapping[str, Any]) -> str:
    """What B would have A look at again."""
    if not found["n"]:
        return "they order no pair differently"
    right, longer = found["b_right"], found["a_takes_longer"]
    length = f"; A takes the longer one in {longer['value']:.1%} {_range(longer['ci'])}" if longer["n"] else ""
    return (
        f"ordered differently: {counted(found['n'], 'pair')}, in {right['value']:.1%} {_range(right['ci'])} of which "
        f"the judges side with B{length}; the surest first:\n" + _pairs(found["pairs"])
    )


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [f"{each['margin_a']:+.2f}", f"{each['margin_b']:+.2f}", _short(each["chosen"]), _short(each["rejected"])]
        for each in pairs
    ]
    return table(["A", "B", "preferred", "other"], rows)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


@click.command(
    "score",
    cls=Command,
    examples="""
    trueup score judge completions.jsonl
    trueup score judge - --json
    trueup score judge --prompt "What makes bread rise?" --completion "Yeast."
    trueup score jury completions.jsonl --set scoring.ensemble=min
    trueup score ./rules.py:brevity completions.jsonl
    """,
)
@click.argument("model", metavar="MODEL")
@click.argument("file", metavar="[FILE|-]", required=False)
@click.option("--prompt", help="One prompt, instead of a file.")
@click.option("--completion", "completions", multiple=True, help="A completion of it; may be repeated.")
@stage_settings("score")
def score(
    model: str, file: str | None, prompt: str | None, completions: tuple[str, ...], config: ScoreConfig
) -> Result:
    """What a scorer gives completions: the score, its objectives, and how far an ensemble disagrees.

    MODEL is a reward model, or a Python function as FILE.py:NAME.

    A row has `prompt` (a text or messages) and `completion`, or a list `completions`. `-` reads JSON lines from stdin.
    With --json there is one JSON object a line, as soon as it is known.
    """
    from .. import auditing
    from ..runs import track

    if (file is None) == (prompt is None) or (prompt is None) != (not completions):
        raise click.UsageError("give a file (or - for stdin), or --prompt with --completion")
    as_json = lines_instead()
    rows = _given(prompt, completions) if prompt is not None else _read(str(file))
    shown: list[list[Any]] = []
    with workspace() as ws:
        asked, about = _split(rows)
        with track(len(asked), "score") as advance:
            for (where, completion), said in zip(
                about, auditing.score(ws, model=model, completions=asked, **_read_by(config)), strict=True
            ):
                advance(1)
                if as_json:
                    click.echo(
                        json.dumps(jsonable({"row": where, "completion": completion, **said}), ensure_ascii=False)
                    )
                shown.append([where, said["value"], said["parts"], said.get("note", ""), _short(completion)])
    return Result(None, "" if as_json else _scored(shown))


def _read_by(config: ScoreConfig) -> dict[str, Any]:
    return {"settings": config.model, "scoring": config.scoring, "threads": config.threads}


def _scored(shown: list[list[Any]]) -> str:
    names = list(dict.fromkeys(name for _, _, parts, _, _ in shown for name in parts))
    rows = [
        [where, "-" if value is None else f"{value:+.4f}", *(parts.get(name) for name in names), note or text]
        for where, value, parts, note, text in shown
    ]
    return table(["row", "score", *names, "completion"], rows)


def _split(rows: Iterator[tuple[str, Any]]) -> tuple[list[Any], list[tuple[str, str]]]:
    asked, about = [], []
    for where, completion in rows:
        asked.append(completion)
        about.append((where, completion.text))
    if not asked:
        raise DataError("there is nothing to score", "give rows with a prompt and a completion")
    return asked, about


def _given(prompt: str, completions: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    from ..records import Completion, Prompt

    if not prompt.strip():
        raise DataError("the prompt is empty", "say something to be answered")
    asked = Prompt.user(prompt)
    return ((str(number), Completion(asked, text)) for number, text in enumerate(completions, 1))


def _read(file: str) -> Iterator[tuple[str, Any]]:
    """Every completion with its place. A row that cannot be scored is an error that says which and why."""
    from .. import auditing
    from ..text.columns import Skip
    from ..text.sources import read_rows

    for place, row in read_rows(file) if file != "-" else _stdin():
        if isinstance(row, DataError):
            raise row
        try:
            found = auditing.completions_of(row)
        except Skip as problem:
            raise DataError(
                f"{place}: {problem}", 'a row reads {"prompt": "...", "completion": "..."}, or "completions": [...]'
            ) from None
        number = place.rpartition(":")[2]
        for i, completion in enumerate(found, 1):
            yield (number if len(found) == 1 else f"{number}.{i}"), completion


def _stdin() -> Iterator[tuple[str, Any]]:
    from ..text.sources import json_object

    for number, line in enumerate(sys.stdin.buffer, 1):
        if line.strip():
            yield f"stdin:{number}", json_object(f"stdin:{number}", line)
