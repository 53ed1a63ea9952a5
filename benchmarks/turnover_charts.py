"""What `benchmarks turnover` found over several seeds, drawn.

python -m benchmarks turnover-charts docs/results/turnover-seed-*.json --into docs/results
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from trueup.reports.charts import Series, line_chart

NAMES = {"one": "one model", "mean": "mean of 4", "min": "lowest of 4", "penalised": "mean less variance"}


@click.command("turnover-charts")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--into", type=click.Path(file_okay=False, exists=True, path_type=Path), required=True)
def turnover_charts(files: Sequence[Path], into: Path) -> None:
    """Draw gold against KL as SVG files, from results of `make check`."""
    seeds = [json.loads(file.read_text(encoding="utf-8"))["more"] for file in files]
    for name, svg in drawn(seeds).items():
        (into / f"turnover-{name}.svg").write_text(svg, encoding="utf-8")


def drawn(seeds: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A chart for each kind of judgements and way of optimising: the mean over seeds."""
    found = {}
    for judged, condition in seeds[0]["conditions"].items():
        ways = {"best-of-n": ["best_of_n", "arms"]} | ({"rl": ["rl"]} if "rl" in condition else {})
        for way, place in ways.items():
            arms = [_at(seed["conditions"][judged], place) for seed in seeds]
            title = f"{'Best of n' if way == 'best-of-n' else 'RL'}, {judged}: mean of {len(seeds)} seeds"
            found[f"{way}-{judged.replace(' ', '-')}"] = _chart(arms, title)
    return found


def _at(found: Mapping[str, Any], place: Sequence[str]) -> Mapping[str, Any]:
    for key in place:
        found = found[key]
    return found


def _chart(seeds: Sequence[Mapping[str, Any]], title: str) -> str:
    lines = []
    for arm in seeds[0]:
        kl, gold = (np.mean([seed[arm][key] for seed in seeds], axis=0) for key in ("kl", "gold"))
        lines.append(Series(NAMES[arm], np.sqrt(np.maximum(kl, 0)).tolist(), gold.tolist()))
    return on_white(line_chart(lines, "square root of the KL, nats", "gold score", title, width=460, height=220))


def on_white(svg: str) -> str:
    """A chart that stands by itself, where a page's own colours do not reach it."""
    head, end, body = svg.partition("</desc>")
    return f'{head}{end}<rect width="100%" height="100%" fill="#fff"/>{body}\n'
