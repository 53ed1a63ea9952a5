"""What came of a comparison of models, in sentences with their numbers: the same on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import wording

Found = Mapping[str, Any]


def names_in(told: Found) -> dict[str, str]:
    """Of the inputs of a run that have one: id -> name."""
    return {one["id"]: one["names"][0] for one in told["inputs"] if one["names"]}


def called(model: str, names: Mapping[str, str]) -> str:
    """A model of a result, an id and how it answered, with its name in place of the id."""
    identity, comma, how = model.partition(",")
    return names.get(identity, identity[:8]) + comma + how


def sentence(found: Found, a: str, b: str) -> str:
    """Of two models."""
    better = {"a": f": {a} is better", "b": f": {b} is better", "undecided": ": undecided"}
    words = (
        f"{a} won {wording.percent(found['value'])} of {found['n']:,} pairs against {b} "
        f"(95% interval {wording.percent_range(found.get('ci'))}, ties half){better.get(found.get('verdict', ''), '')}"
    )
    equal = found.get("length_controlled") or {}
    if equal.get("value") is not None:
        words += f"; at equal length {wording.percent(equal['value'])} ({wording.percent_range(equal.get('ci'))})"
        words += f", {at_equal_length(equal['ci'])}" if only_by_length(found) else ""
    return words + "."


def only_by_length(found: Found) -> bool:
    """Whether one won, and at equal length would not surely have: the difference may be nothing but length."""
    ci = (found.get("length_controlled") or {}).get("ci")
    if ci is None or found.get("verdict") not in ("a", "b"):
        return False
    return bool(ci[0] <= 0.5 if found["verdict"] == "a" else ci[1] >= 0.5)


def at_equal_length(ci: Sequence[float]) -> str:
    """What that would be for whoever won."""
    return "which is undecided" if ci[0] <= 0.5 <= ci[1] else "which is the other way round"


def order(found: Found, names: Mapping[str, str]) -> str:
    """Of several: who is first, and who cannot be told from it."""
    rows = found["ratings"]
    first = [called(row["model"], names) for row in rows if row["rank"] == 1 and row["component"] == 0]
    sure = [called(row["model"], names) for row in rows if row["rank"] > 1 and row["component"] == 0]
    words = f"{wording.listed(first)} {'is' if len(first) == 1 else 'are'} first"
    if len(first) > 1:
        words += " and cannot be told apart"
    if sure:
        words += f", surely before {wording.listed(sure)}"
    if found["components"] > 1:
        words += f"; {found['components']} groups of models never met and have no common order"
    return words + "."


def remarks(found: Found, names: Mapping[str, str]) -> list[str]:
    """What one should know before one believes it: of the judge, and of what is missing."""
    said = [wording.capital(each) + "." for each in found.get("findings", ())]
    judge = found.get("judge") or {}
    if judge.get("cousins"):
        made = wording.listed([called(each, names) for each in judge["cousins"]])
        said.append(
            f"The judge learnt from judgements that the score behind {made} learnt from, too: it is no stranger."
        )
    if judge.get("shaped"):
        made = wording.listed([called(each, names) for each in judge["shaped"]])
        said.append(
            f"The judge had a part in making {made}, which does well before the score it was trained or chosen by."
        )
    if "order" in judge and not judge["order"]["by_place"] and judge["order"]["same"]["n"]:
        same, first = judge["order"]["same"], judge["order"]["first"]
        said.append(
            f"Both orders gave the same verdict in {wording.percent(same['value'])} of {same['n']:,} pairs; the "
            f"response that stood first won {wording.percent(first['value'])} of {first['n']:,} verdicts "
            f"({wording.percent_range(first['ci'])})."
        )
    if found.get("missing"):
        reasons = "; ".join(f"{n:,} {why}" for why, n in found["missing"].items())
        said.append(f"{_pairs(sum(found['missing'].values()))} without a verdict, left out: {reasons}.")
    if judge.get("waiting"):
        said.append(f"{_pairs(judge['waiting'])} nobody has judged yet, left out.")
    if judge.get("elsewhere"):
        said.append(f"Judgements about other texts, left out: {judge['elsewhere']:,}.")
    if found.get("dropped"):
        said.append(f"Prompts too long for one of the models, left out: {found['dropped']:,}.")
    more = found.get("pairs_to_settle")
    if more:
        said.append(f"About {more:,} more pairs would settle it, if the rate stays what it is.")
    return said


def _pairs(number: int) -> str:
    return wording.capital(wording.counted(number, "pair")) if number < 10 else f"{number:,} pairs"


def slice_rows(slices: Sequence[Found]) -> list[list[str]]:
    return [
        [
            each["kind"],
            each["name"],
            f"{each['n']:,}",
            wording.percent(each["value"]),
            wording.percent_range(each["ci"]),
        ]
        for each in slices
    ]


def rating_rows(found: Found, names: Mapping[str, str]) -> list[list[str]]:
    """Rank, model, rating, interval, votes."""
    rows = []
    for each in found["ratings"]:
        low, high = each["ci"]
        between = f"{low:,.0f} to {high:,.0f}" if low is not None else "no interval"
        rows.append(
            [str(each["rank"]), called(each["model"], names), f"{each['rating']:,.0f}", between, f"{each['n']:,}"]
        )
    return rows


def pair_rows(found: Found, names: Mapping[str, str]) -> list[list[str]]:
    """Of every two models: the rate, at equal length too, and who is better."""
    rows = []
    for each in found["pairs"]:
        a, b = called(each["a"], names), called(each["b"], names)
        equal = each["length_controlled"]
        rows.append(
            [
                f"{a} over {b}",
                f"{each['n']:,}",
                f"{wording.percent(each['value'])} ({wording.percent_range(each['ci'])})",
                f"{wording.percent(equal['value'])} ({wording.percent_range(equal['ci'])})",
                {"a": a, "b": b}.get(each["verdict"], "undecided"),
            ]
        )
    return rows
