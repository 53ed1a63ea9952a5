"""What training a reward model costs as the pairs become more: seconds a token, and memory beyond the pairs themselves.

    python -m benchmarks reward-size

Every size is one pass over its pairs by `trueup train reward`, from reading them to the finished artifact, with a model
so small that what is done with the pairs shows, in a process of its own. Seconds are of the processor. Memory is the
peak beyond what a process holds after its imports and one load of the model. It cannot but hold the pairs: what counts
is how many bytes each further token takes. As text it takes four, as a Python integer forty.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from .material import Material, make

ROOT = Path(__file__).parents[1]
SIZES = "1000,3000,10000,30000"
TIME_RATIO = 1.25  # seconds a token at the largest size, over those at the smallest
BYTES_A_TOKEN = 30.0  # that one token more takes, with all that is known of its pair


def _sizes(ctx: click.Context, param: click.Parameter, value: str) -> list[int]:
    try:
        found = sorted({int(each) for each in value.split(",")})
    except ValueError:
        raise click.BadParameter("not numbers with commas between them", ctx, param) from None
    if len(found) < 2 or found[0] < 1:
        raise click.BadParameter("two different sizes or more are compared", ctx, param)
    return found


@click.command("reward-size")
@click.option("--sizes", default=SIZES, show_default=True, callback=_sizes, help="Numbers of pairs.")
@click.option("--shape", default="tiny", show_default=True, type=click.Choice(["tiny", "5m"]))
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def reward_size(sizes: list[int], shape: str, threads: int, as_json: bool) -> None:
    """Training a reward model on more and more pairs."""
    with tempfile.TemporaryDirectory() as folder:
        material = make(Path(folder), shape, max(sizes))
        rows = [_measured(Path(folder), material, pairs, threads) for pairs in sizes]
    found = judged_by_size(rows) | {"shape": shape, "threads": threads}
    click.echo(json.dumps(found, indent=1) if as_json else _text(found))
    sys.exit(0 if found["ok"] else 1)


def _measured(folder: Path, material: Material, pairs: int, threads: int) -> dict[str, Any]:
    """One size: the first `pairs` rows of the material, brought in here and trained on elsewhere."""
    import trueup

    click.echo(f"{pairs:,} pairs", err=True)
    file, place = folder / f"{pairs}.jsonl", folder / f"w{pairs}"
    lines = material.pairs.read_text().splitlines(keepends=True)[:pairs]
    file.write_text("".join(lines))
    with trueup.Workspace.create(place) as ws:
        data = trueup.add_data(ws, str(file), "preferences", heldout=0.0).artifact
        tokens = _tokens(material, [json.loads(line) for line in lines])
    words = [str(place), str(material.language_model), data.id, str(threads)]
    environment = os.environ | {
        "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRUEUP_QUIET": "1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    program = str(Path(__file__).parent / "reward_sized.py")
    done = subprocess.run([sys.executable, program, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise click.ClickException(f"{pairs} pairs failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"pairs": pairs, "tokens": tokens} | found


def _tokens(material: Material, rows: list[dict[str, str]]) -> int:
    """Those of every prompt once and of both its completions."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(material.language_model / "tokenizer.json"))
    texts = [row[field] for row in rows for field in ("prompt", "chosen", "rejected")]
    return sum(len(each.ids) for each in tokenizer.encode_batch(texts))


def judged_by_size(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sizes beside one another, smallest first."""
    small, large = rows[0], rows[-1]
    each = [row | {"microseconds_a_token": 1e6 * row["cpu_seconds"] / row["tokens"]} for row in rows]
    time_ratio = each[-1]["microseconds_a_token"] / each[0]["microseconds_a_token"]
    growth = (large["mib"] - small["mib"]) * 2**20 / (large["tokens"] - small["tokens"])
    complete = not any(row["left_out"] for row in rows)
    return {
        "sizes": each,
        "time_ratio": time_ratio,
        "bytes_a_token": growth,
        "complete": complete,
        "ok": time_ratio <= TIME_RATIO and growth <= BYTES_A_TOKEN and complete,
    }


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"{row['pairs']:>7,} pairs, {row['tokens']:>10,} tokens: "
        f"{row['cpu_seconds']:7.1f} s, {row['microseconds_a_token']:6.2f} microseconds a token, {row['mib']:5.0f} MiB"
        for row in found["sizes"]
    ]
    lines.append(
        f"at the largest size a token takes {found['time_ratio']:.2f} times as long (at most {TIME_RATIO:g}), and each "
        f"further token {found['bytes_a_token']:.1f} bytes (at most {BYTES_A_TOKEN:g})"
    )
    return "\n".join(lines)
