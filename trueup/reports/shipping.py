"""Whether to ship what a report is about: what speaks for it, what speaks against it, and what nobody has looked at.

Sentences with their reasons, for somebody who has a minute. They are read off what stands further down on the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .contest import who_judged
from .headlines import headline
from .standings import names_in

Told = Mapping[str, Any]

LEARNS = ("pretrain", "sft", "rl", "dpo", "kto", "ilql")


def before_shipping(runs: Sequence[Told]) -> dict[str, list[str]]:
    """Of the last run that made a model: what speaks against shipping it, what is unknown, and what speaks for it.
    Empty where no run made one, or there is nothing to say."""
    learnt = [told for told in runs if told["stage"] in LEARNS]
    if not learnt:
        return {}
    last = learnt[-1]
    compared = [(told, won) for told in runs if (won := _verdict(told, last))]
    found = {"against": [*_against(last, compared)], "unknown": [*_unknown(last, compared)]}
    found["for"] = [_said(told) for told, won in compared if won == "won" and not _shaped(told)]
    return found if any(found.values()) else {}


def _against(last: Told, compared: Sequence[tuple[Told, str]]) -> Iterator[str]:
    if last["status"] not in ("done", "running"):
        yield f"The last run did not end: it is {last['status']}."
    for finding in last["findings"]:
        if finding["severity"] == "fault":
            yield finding["says"]
    yield from (_said(told) for told, won in compared if won == "lost")
    for model in last["reward_models"]:
        failed = [each["name"] for each in _conditions(model) if each["met"] is False]
        if failed:
            yield f"The reward model it learnt from failed its audit: {', '.join(failed)}."


def _unknown(last: Told, compared: Sequence[tuple[Told, str]]) -> Iterator[str]:
    if not compared:
        yield "Nobody compared it with another model: trueup eval winrate."
    yield from (_said(told) for told, won in compared if won == "undecided")
    if compared and all(_shaped(told) for told, _ in compared):
        yield "Only the score that it was trained or chosen by compared it with others: take another judge."
    if last["reward_models"] and not any(model["audit"] for model in last["reward_models"]):
        yield "The reward model it learnt from was not audited: trueup eval reward."
    judged = any(name.startswith("heldout_judge") or name.endswith("gold") for name in last["metrics"])
    if last["stage"] == "rl" and not judged and not compared:
        yield "Only the score it was trained on watched it: trueup eval overopt --judge."


def _verdict(told: Told, last: Told) -> str:
    """Whether the model that `last` made won, lost or neither; empty where it was not one of the two compared."""
    if told["stage"] != "winrate" or told["status"] != "done" or "verdict" not in told["result"]:
        return ""
    made = {one["id"] for one in last["outputs"]}
    ours = [one["role"] for one in told["inputs"] if one["role"] in "ab" and made & {one["id"], one["written_by"]}]
    if len(ours) != 1:
        return ""
    return {"undecided": "undecided", ours[0]: "won"}.get(told["result"]["verdict"], "lost")


def _said(told: Told) -> str:
    return f"{headline(told)} {who_judged(told['result']['judge'], names_in(told))}"


def _shaped(told: Told) -> bool:
    return bool((told["result"].get("judge") or {}).get("shaped"))


def _conditions(model: Told) -> Sequence[Told]:
    found: Sequence[Told] = model["audit"]["gate"]["conditions"] if model["audit"] else ()
    return found
