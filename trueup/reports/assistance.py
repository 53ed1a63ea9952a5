"""What help does to judges, in sentences: the same on the terminal, the quality page and the report card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import wording

TOO_FEW = "too few to tell: it takes 20 on each side, and 8 prompts"


def assistance_lines(found: Mapping[str, Any]) -> list[str]:
    """Of what `stats.assistance` found."""
    lines = [
        f"With help judges order {_share(found['assisted'])} of the pairs whose answer is known rightly, without it "
        f"{_share(found['alone'])}: {_difference(found)}."
    ]
    if found["opened"] < found["helped"]:
        lines.append(f"Of those who were offered help {found['opened'] / found['helped']:.0%} opened it.")
    for helper in found["helpers"]:
        lines += _reliance(helper)
    return lines


def _reliance(found: Mapping[str, Any]) -> Iterator[str]:
    name, wrong, right = found["helper"], found["when_wrong"], found["when_right"]
    yield f"'{name}' itself orders {_share(found['right'])} of them rightly."
    for about, when in ((right, "right"), (wrong, "wrong")):
        if about["assisted"]["n"] and about["alone"]["n"]:
            yield (
                f"Where '{name}' is {when}, {_share(about['assisted'])} of those who are shown it say the same, and "
                f"{_share(about['alone'])} of the others: {_difference(about)}."
            )
    if wrong["verdict"] == "higher":
        yield f"People follow '{name}' into its mistakes: tell them where it fails, or show it closed."


def _share(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "none (n = 0)"
    return f"{found['value']:.1%} ({wording.percent_range(found['ci'])}, n = {found['n']:,})"


def _difference(found: Mapping[str, Any]) -> str:
    about, verdict = found["difference"], found["verdict"]
    if about["value"] is None:
        return "nobody to compare with"
    low, high = (100 * end for end in about["ci"])
    text = f"{100 * about['value']:+.1f} points ({low:+.1f} to {high:+.1f})"
    if verdict == "too few":
        return f"{text}, {TOO_FEW}"
    return f"{text}, which may be luck" if verdict == "no difference seen" else text
