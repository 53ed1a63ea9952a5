"""Running the rows of `benchmarks speed`: every side in a process of its own, in turns, and what is finished is kept.

A finished process is one JSON line in a file whose name is a digest of all that it depends on: row, side, round,
settings, shape, threads and the source of trueup and of these programs. Started again, the command goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .peers import trl_python
from .speed_material import Places, adapters, places
from .speed_rows import Row, Side

HERE = Path(__file__).parent
ROOT = HERE.parent
MEASURING = (
    "adapters_memory", "forced", "job", "lengths", "material", "measured", "speed_generate", "speed_material",
    "speed_trl", "speed_trueup",
)  # fmt: skip
Line = dict[str, Any]


class Failed(Exception):
    """A side's program ended without a line: its last words."""


@dataclass(frozen=True)
class Plan:
    """What is measured besides the rows themselves."""

    shape: str
    rounds: int
    threads: int
    prompt_lengths: tuple[int, int]
    completion_mean: float
    folder: Path  # where finished lines and the material are kept

    def material(self, row: Row) -> Places:
        return places(self.folder / "material", row.shape or self.shape, self.prompt_lengths, self.completion_mean)


def measured(rows: Sequence[Row], plan: Plan, say: Callable[[str], None]) -> dict[str, list[dict[str, Line]]]:
    """Of each row, of each round, what each side said. The sides take turns in who begins."""
    found: dict[str, list[dict[str, Line]]] = {row.name: [{} for _ in range(plan.rounds)] for row in rows}
    source = source_digest()
    turns = [
        (number, row, side)
        for number in range(plan.rounds)
        for row in rows
        for side in (row.sides if number % 2 == 0 else row.sides[::-1])
    ]
    for done, (number, row, side) in enumerate(turns, 1):
        where = f"[{done}/{len(turns)}] round {number + 1}, {row.name}: {side.name}"
        found[row.name][number][side.name] = _kept_or_run(
            row, side, number, plan, source, lambda what, at=where: say(at + what)
        )
        if source_digest() != source:
            raise Failed("the code was changed while it was measured: start again")
    return found


def key(row: Row, side: Side, number: int, plan: Plan, source: str) -> str:
    """All that a line depends on."""
    sizes = (row.shape or plan.shape, plan.threads, plan.prompt_lengths, plan.completion_mean)
    told = json.dumps([row.name, asdict(side), dict(row.settings), number, sizes, source], sort_keys=True, default=str)
    return f"{row.name}-{number}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def source_digest() -> str:
    """Of the code that is measured and that measures; how figures are shown changes none of them."""
    sha = hashlib.sha256()
    for file in sorted([*(ROOT / "trueup").rglob("*.py"), *(HERE / f"{name}.py" for name in MEASURING)]):
        sha.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return sha.hexdigest()


def _kept_or_run(row: Row, side: Side, number: int, plan: Plan, source: str, say: Callable[[str], None]) -> Line:
    file = plan.folder / "lines" / f"{key(row, side, number, plan, source)}.json"
    if file.is_file():
        say(", as kept")
        kept: Line = json.loads(file.read_text())
        return kept
    say("")
    began = time.monotonic()
    try:
        line = run_side(side, told(row, side, number, plan))
    except Failed as error:  # the others are measured all the same; next time this one is tried again
        say(" FAILED")
        return {"problem": str(error)}
    line["took"] = round(time.monotonic() - began, 1)
    say(f" took {line['took']:.0f} s")
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(line))
    part.replace(file)
    return line


def told(row: Row, side: Side, number: int, plan: Plan) -> dict[str, Any]:
    """A job as its program reads it."""
    material = plan.material(row)
    job = asdict(material) | dict(row.settings) | dict(side.settings)
    job |= {"job": side.job, "threads": plan.threads, "seed": number}
    job["policy"] = material.ending_model if job.get("natural") else material.language_model
    if row.memory and side.program == "speed_trueup":
        job |= adapters(Path(material.language_model).parent, row.shape or plan.shape)
    return job


def run_side(side: Side, job: dict[str, Any]) -> Line:
    python = trl_python(side.trl) if side.trl else sys.executable
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(job["threads"]), "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1", "TRUEUP_QUIET": "1", "PYTHONPATH": "",
    }  # fmt: skip
    command = [python, "-m", f"benchmarks.{side.program}", json.dumps(job)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise Failed(done.stderr.strip()[-2000:])
    line: Line = json.loads(done.stdout.splitlines()[-1])
    return line
