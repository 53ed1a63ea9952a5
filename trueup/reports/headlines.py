"""What came of a run, in a sentence with its numbers: never a share without its n and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import wording
from .besides import sentence as beside
from .refusals import sentence as refused
from .standings import names_in, order, sentence
from .wording import is_number

Told = Mapping[str, Any]


def headline(told: Told) -> str:
    if told["status"] in ("failed", "dead", "interrupted"):
        return _broken(told)
    if told["stage"] == "winrate":
        return _win_rate(told) or "Nothing could be compared."
    if told["stage"] == "compare" and "models" in told["result"]:
        return beside(told["result"], names_in(told))
    if told["stage"] == "safety" and "models" in told["result"]:
        return refused(told["result"], names_in(told))
    if told["stage"] == "reward" and told["result"].get("accuracy") is not None:
        return _reward(told["result"])
    return _learnt(told) or _made(told["result"]) or f"{status_words(told)}."


def status_words(told: Told) -> str:
    words = {"running": "still running", "dead": "dead: it ended without a word"}
    status: str = told["status"]
    return words.get(status, status)


def _broken(told: Told) -> str:
    steps = told["metrics"].get("step") or [0]
    why = f": {told['error']}" if told["error"] else "."
    return f"{wording.capital(told['status'])} after step {steps[-1]:,}{why}"


def _win_rate(told: Told) -> str:
    result, config = told["result"], told["config"]
    if result.get("ratings"):
        return order(result, names_in(told))
    if result.get("value") is None:
        return ""
    names = {one["role"]: one["names"][0] if one["names"] else one["id"][:8] for one in told["inputs"]}
    rival = names.get("b", "the second")
    if config.get("best_of", 1) > 1:
        rival += f", best of {config['best_of']}"
    elif config.get("temperature_b") == 0:
        rival += ", greedy"
    return sentence(result, names.get("a", "the first"), rival)


def _reward(result: Mapping[str, Any]) -> str:
    words = (
        f"It foresees {wording.percent(result['accuracy'])} of {result['n']:,} held-out judgements "
        f"(95% interval {wording.percent_range(result.get('ci'))})"
    )
    if result.get("ceiling") is not None:
        words += f"; one that knew every judge's mind would reach {wording.percent(result['ceiling'])}"
    return words + "."


def _learnt(told: Told) -> str:
    """The held-out score or loss from beginning to end, else that of training."""
    metrics, start = told["metrics"], told["start"]
    for name, words in (
        ("heldout_score", "The held-out score"), ("heldout_loss", "The held-out loss"),
        ("heldout_completion_loss", "The held-out loss of completions"), ("score", "The score"), ("loss", "The loss"),
    ):  # fmt: skip
        values = [value for value in [start.get(name), *metrics.get(name, [])] if is_number(value)]
        if metrics.get(name) and values:
            n = f" (n = {start['prompts']:,} prompts)" if name.startswith("heldout") and start.get("prompts") else ""
            return f"{words} went from {values[0]:.3g} to {values[-1]:.3g}{n}{_at_kl(metrics)}{_kept(told)}."
    return ""


def _at_kl(metrics: Mapping[str, Sequence[Any]]) -> str:
    kl = [value for value in metrics.get("heldout_kl") or metrics.get("kl") or [] if is_number(value)]
    return f" at a KL of {kl[-1]:.2f} nats a completion" if kl else ""


def _kept(told: Told) -> str:
    best, steps = told["result"].get("best_step"), told["metrics"].get("step") or []
    return f"; step {best:,} of {steps[-1]:,} is kept" if best is not None and steps else ""


def _made(result: Mapping[str, Any]) -> str:
    if result.get("completions"):
        return (
            f"{result['completions']:,} completions of {result.get('prompts', 0):,} prompts; "
            f"{result.get('unfinished', 0):,} did not end."
        )
    return ""
