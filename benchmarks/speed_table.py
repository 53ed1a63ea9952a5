"""What the lines of both sides come to: ratios with their spread, checks, the share of the floor; and their table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from .floor import floor_seconds
from .gold_curves import over_worlds
from .lengths import ALIKE, apart, histogram
from .speed_rows import NOT_MEASURED, Row, Side

SAME_LOSS = 1e-5
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
Line = Mapping[str, Any]


def judged(
    row: Row, rounds: Sequence[Mapping[str, Line]], shape: Mapping[str, int], rates: Mapping[str, float]
) -> dict[str, Any]:
    """One row: each side's figures, trueup against each peer, and whether both did the same work."""
    problems = [f"{name}: {line['problem']}" for each in rounds for name, line in each.items() if "problem" in line]
    found: dict[str, Any] = {"said": row.said, "unit": row.unit, "shape": dict(shape), "problems": problems}
    if not problems:
        ours = row.sides[0].name
        found["sides"] = {side.name: _side(row, side, rounds, shape, rates) for side in row.sides}
        found["against"] = {
            peer.name: {**against(row, ours, peer.name, rounds), "promised": peer.promised} for peer in row.peers
        }
        found["checks"] = {peer.name: checks(rounds, ours, peer.name) for peer in row.peers}
        problems += [f"{peer}: {said}" for peer, each in found["checks"].items() for said in each["problems"]]
    return found | {"ok": not problems, "target": {"at least": row.least, "aim": row.aim, "less": row.memory}}


def against(row: Row, ours: str, peer: str, rounds: Sequence[Mapping[str, Line]]) -> dict[str, Any]:
    """Round by round: how much more trueup does in a second of the processor; of memory, how much it takes."""
    pairs = [(each[ours], each[peer]) for each in rounds]
    if row.memory:
        return {"ratio": spread([mine["mib"] / theirs["mib"] for mine, theirs in pairs])} | _met(row, pairs)
    cpu, wall = (
        spread([mine["work"] / mine[seconds] * theirs[seconds] / theirs["work"] for mine, theirs in pairs])
        for seconds in ("cpu_seconds", "wall_seconds")
    )
    return {"ratio": cpu, "wall": wall} | reached(row, cpu["median"])


def _met(row: Row, pairs: Sequence[tuple[Line, Line]]) -> dict[str, Any]:
    return reached(row, median(mine["mib"] / theirs["mib"] for mine, theirs in pairs))


def reached(row: Row, ratio: float) -> dict[str, Any]:
    """Of memory less is better."""
    sign = -1 if row.memory else 1
    return {"met": sign * ratio >= sign * row.least, "aim_met": sign * ratio >= sign * row.aim}


def spread(values: Sequence[float]) -> dict[str, Any]:
    return {"median": median(values), "low": min(values), "high": max(values), "all": list(values)}


def checks(rounds: Sequence[Mapping[str, Line]], ours: str, peer: str) -> dict[str, Any]:
    """That both did the same: the mean loss of the same rows, lengths of completions, optimizer steps."""
    mine = rounds[0][ours]
    found: dict[str, Any] = {}
    problems = []
    if "losses" in mine:
        both = [zip(each[ours]["losses"], each[peer]["losses"], strict=True) for each in rounds]
        apart_rb = [[a - b for a, b in pairs] for pairs in both]
        found["loss_difference"] = max(abs(mean(apart_b)) for apart_b in apart_rb)
        found["loss_difference_of_a_row"] = max(abs(each) for apart_b in apart_rb for each in apart_b)
        if found["loss_difference"] > SAME_LOSS:
            problems.append(f"losses of the same rows differ by {found['loss_difference']:.1e}")
    if "lengths" in mine:
        found["lengths_apart"] = max(apart(each[ours]["lengths"], each[peer]["lengths"]) for each in rounds)
        found["lengths"] = {name: _lengths([each[name] for each in rounds]) for name in (ours, peer)}
        if found["lengths_apart"] > ALIKE:
            problems.append(f"lengths of completions differ by {found['lengths_apart']:.0%}")
    steps = {(each[ours]["updates"], each[peer]["updates"]) for each in rounds if "updates" in mine}
    problems += [f"{a:g} optimizer steps against {b:g}" for a, b in steps if a != b]
    return found | {"problems": problems}


def _lengths(lines: Sequence[Line]) -> dict[str, Any]:
    every = [length for line in lines for length in line["lengths"]]
    return {"mean": sum(every) / len(every), "histogram": histogram(every)}


def _side(
    row: Row, side: Side, rounds: Sequence[Mapping[str, Line]], shape: Mapping[str, int], rates: Mapping[str, float]
) -> dict[str, Any]:
    lines = [each[side.name] for each in rounds]
    found = {"version": lines[0]["version"], "mib": [line["mib"] for line in lines]}
    found["raw_mib"] = [line["raw_mib"] for line in lines]
    if row.memory:
        return found
    rate = [line["work"] / line["cpu_seconds"] for line in lines]
    wall = [line["work"] / line["wall_seconds"] for line in lines]
    share = median(floor_a_unit(row, each, shape, rates) * r for each, r in zip(rounds, rate, strict=True))
    return found | {"a_cpu_second": spread(rate), "a_second": spread(wall), "floor_share": share}


def floor_a_unit(row: Row, sides: Mapping[str, Line], shape: Mapping[str, int], rates: Mapping[str, float]) -> float:
    """Seconds that one unit of a row's work takes at least, by what trueup did; the same for every side."""
    ours = row.sides[0]
    line = sides[ours.name]
    settings = dict(row.settings) | dict(ours.settings)
    seconds = floor_seconds(ours.job, settings, shape, line["tokens"], rates[line["dtype"]])
    return seconds / float(line["work"])


# --- to be read


HEAD = ("work", "counted in", "ratio", "smallest to largest", "wall", "at least", "aim", "", "trueup", "peer", "floor")


def cells(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table: a line for each comparison of each row. Time to gold has a program of its own and its own results."""
    worlds = found.get("gold", [])
    lines = [each for name, row in found["rows"].items() for each in _lines(name, row)]
    rest = [
        (
            each.said,
            "",
            "not measured",
            each.why,
            "",
            f"{each.least:g}",
            f"{each.aim:g}" if each.aim else "",
            "",
            "",
            "",
            "",
        )
        for each in NOT_MEASURED
        if each.name not in found["rows"] and not (each.name == "gold" and worlds)
    ]
    return lines + ([_gold_line(over_worlds(worlds))] if worlds else []) + rest


def gold_results(folder: Path) -> list[dict[str, Any]]:
    """What `benchmarks gold` found, a file a world."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("gold-seed-*.json"))]


def _gold_line(found: Mapping[str, Any]) -> tuple[str, ...]:
    row = next(each for each in NOT_MEASURED if each.name == "gold")
    goal, ratio = (f"{row.least:g}", f"{row.aim:g}"), found["ratio"]
    if ratio is None:
        return (row.said, "CPU seconds", "never both", "", "", *goal, "missed", "", "", "")
    said = "aim met" if ratio >= row.aim else "met" if ratio >= row.least else "missed"
    between = f"{found['ratios'][0]:.2f} to {found['ratios'][-1]:.2f}"
    return (
        f"{row.said}, beside TRL 1.12, {found['n']} worlds", "CPU seconds", f"{ratio:.2f}", between, "", *goal, said,
        *(f"{found['seconds'][name]:.1f}" for name in ("trueup", "TRL")), "",
    )  # fmt: skip


def _lines(name: str, row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    target = row["target"]
    goal = (f"{target['at least']:g}", f"{target['aim']:g}")
    if "against" not in row:
        return [(row["said"], row["unit"], "failed", "", "", *goal, "", "", "", "")]
    return [_line(row, peer, goal) for peer in row["against"]]


def _line(row: Mapping[str, Any], peer: str, goal: tuple[str, str]) -> tuple[str, ...]:
    one, ours = row["against"][peer], next(iter(row["sides"].values()))
    theirs, ratio = row["sides"][peer], one["ratio"]
    said = "aim met" if one["aim_met"] else "met" if one["met"] else "missed"
    if not one["promised"]:
        goal, said = ("", ""), ""
    wall = f"{one['wall']['median']:.2f}" if "wall" in one else ""
    measured = [_figure(side) for side in (ours, theirs)]
    shares = f"{ours['floor_share']:.0%}, {theirs['floor_share']:.0%}" if "floor_share" in ours else ""
    checked, between = "" if row["ok"] else " (work differs)", f"{ratio['low']:.2f} to {ratio['high']:.2f}"
    return (
        f"{row['said']}, beside {peer}", row["unit"], f"{ratio['median']:.2f}", between, wall, *goal, said + checked,
        *measured, shares,
    )  # fmt: skip


def _figure(side: Mapping[str, Any]) -> str:
    """Work a second of the processor; or MiB beyond imports, and the raw peak."""
    if "a_cpu_second" in side:
        return f"{side['a_cpu_second']['median']:,.4g}"
    return f"{median(side['mib']):,.0f} ({median(side['raw_mib']):,.0f})"


def text(found: Mapping[str, Any]) -> str:
    table = [HEAD, *cells(found)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEAD))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
    return "\n".join([*lines, *_notes(found)])


def _notes(found: Mapping[str, Any]) -> list[str]:
    notes = []
    for name, row in found["rows"].items():
        for peer, each in row.get("checks", {}).items():
            if "loss_difference" in each:
                whole, worst = each["loss_difference"], each["loss_difference_of_a_row"]
                notes.append(f"{name}: the loss of the same rows differs by {whole:.1e}, of one by {worst:.1e} at most")
            for side, lengths in each.get("lengths", {}).items():
                shown = ", ".join(f"{span}: {n}" for span, n in lengths["histogram"].items())
                notes.append(f"{name}: lengths of {side}, beside {peer}: mean {lengths['mean']:.1f}; {shown}")
        notes += [f"{name}: NOT OK: {problem}" for problem in row["problems"]]
    return notes


def markdown(found: Mapping[str, Any]) -> str:
    lines = [HEAD, *cells(found)]
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    rows.insert(1, "|" + " --- |" * len(HEAD))
    machine = found["machine"]
    rates = f"{machine['float32'] / 1e9:.0f} GFLOP/s in fp32 and {machine['bfloat16'] / 1e9:.0f} in bf16 a core"
    about = (
        f"Shape {found['shape']}, {found['rounds']} rounds, {found['threads']} threads; a product of 2048 x 2048 "
        f"matrices reaches {rates}. torch {machine['torch']}; measured at {found['at']}."
    )
    return "\n".join([about, "", *rows])


def write_into(path: Path, found: Mapping[str, Any]) -> None:
    """Put the table between the two marks of a page."""
    page = path.read_text(encoding="utf-8")
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    path.write_text(f"{page[:start]}\n{markdown(found)}\n{page[end:]}", encoding="utf-8")
