"""The conditions under which a reward model may be climbed, each with what was found and what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..config.audit import AuditConfig
from ..errors import ConfigError, nearest
from ..stats.assistance import FEWEST_PROMPTS

Found = Mapping[str, Any]
Verdict = tuple[bool | None, float | str | None, float | str | None, str]  # met, value, limit, why


def check_overrides(config: AuditConfig) -> None:
    """A misspelt name would let nothing pass, silently."""
    for name in config.overrides:
        if name not in CONDITIONS:
            raise ConfigError(
                f"overrides: there is no condition '{name}'{nearest(name, CONDITIONS)}",
                f"the conditions are {', '.join(CONDITIONS)}",
            )


def gate(found: Found, config: AuditConfig) -> dict[str, Any]:
    """Every condition with its verdict. What is unknown (`met` is None) does not fail, and is listed as unknown."""
    conditions = []
    for name, judge in CONDITIONS.items():
        met, value, limit, why = judge(found, config)
        allowed = name in config.overrides and met is False
        conditions.append({"name": name, "met": met, "value": value, "limit": limit, "why": why, "overridden": allowed})
    failed = [each["name"] for each in conditions if each["met"] is False]
    return {
        "passed": all(name in config.overrides for name in failed),
        "failed": [name for name in failed if name not in config.overrides],
        "overridden": [name for name in failed if name in config.overrides],
        "unknown": [each["name"] for each in conditions if each["met"] is None],
        "conditions": conditions,
    }


def _accuracy(found: Found, config: AuditConfig) -> Verdict:
    low = found["accuracy"]["ci"][0]
    length = found["length"]
    always = max(length["always_most"]["value"], length["always_least"]["value"])
    limit = max(always, 0.5) + config.above_length
    rule = "longer" if length["always_most"]["value"] >= 0.5 else "shorter"
    return low > limit, low, limit, (
        f"the lower bound of its accuracy, {low:.3f}, must be above {limit:.3f}: always preferring the {rule} one "
        f"foresees {always:.3f}"
    )  # fmt: skip


def _slices(found: Found, config: AuditConfig) -> Verdict:
    large = [each for each in found["slices"] if each["n"] >= config.slice_size]
    if not large:
        return None, None, 0.5, f"no slice has {config.slice_size} pairs"
    worst = min(large, key=lambda each: each["value"])
    why = (
        f"the worst of {len(large)} slices with {config.slice_size} pairs or more, {worst['kind']} {worst['name']}, "
        f"has {worst['value']:.3f}; a coin has 0.5"
    )
    return worst["value"] > 0.5, worst["value"], 0.5, why


def _length(found: Found, config: AuditConfig) -> Verdict:
    """The whole interval has to lie below the limit. Where it is too wide for that even around 0, nothing is known."""
    value, (low, high) = found["length"]["pearson"]["value"], found["length"]["pearson"]["ci"]
    limit = config.length_correlation
    if found["matched"] == found["pairs"] and (low, high) == (-1.0, 1.0):
        return None, None, limit, "no prompt has two completions whose scores could go by length"
    why = (
        f"score and length correlate by {value:+.2f} inside a prompt ({low:+.2f} to {high:+.2f}); the judges' choice "
        f"and length by {found['length']['judges']:+.2f}"
    )
    if found["prompts"] < FEWEST_PROMPTS or max(low, -high) < limit <= (high - low) / 2:
        return None, value, limit, f"{why}: too few pairs to tell whether it stays within {limit:g}"
    return max(high, -low) < limit, value, limit, why


def _calibration(found: Found, _: AuditConfig) -> Verdict:
    after = found["calibration"]["after"]
    why = (
        f"with temperature {found['calibration']['temperature']:.3g} its calibration error is {after['ece']:.3f}; a "
        f"perfect model would show at most {after['null']['high']:.3f} on so many pairs"
    )
    return not after["miscalibrated"], after["ece"], after["null"]["high"], why


def _leak(found: Found, config: AuditConfig) -> Verdict:
    leak, above = found["leakage"], found["above_ceiling"]
    if above:
        best = found["ceiling"]
        return False, found["accuracy"]["value"], best["ci"][1], (
            f"it foresees more than the judges' own noise allows ({best['ci'][1]:.3f} at most): it has seen the answers"
        )  # fmt: skip
    if leak is None:
        return None, None, config.leaked, "the training set is not known here; name it with --train"
    why = f"{leak['value']:.1%} of the judgements have their prompt or completions in the training set"
    return leak["value"] <= config.leaked, leak["value"], config.leaked, why


def _position(found: Found, config: AuditConfig) -> Verdict:
    place = found["position"]
    if place["value"] is None:
        return None, None, config.position, "the order in which completions were shown is not known"
    low, high = place["ci"]
    surely = max(low - 0.5, 0.5 - high, 0.0)
    why = f"what was shown first won {place['value']:.1%} of {place['n']} pairs: such judgements cannot test a model"
    if surely <= config.position:
        why = f"what was shown first won {place['value']:.1%} of {place['n']} pairs"
    return surely <= config.position, place["value"], config.position, why


def _base(found: Found, _: AuditConfig) -> Verdict:
    policy = found["policy"]
    if policy is None or policy.get("same_base") is None:
        return None, None, None, "the policy is not known here; name it with --policy"
    return policy["same_base"], policy["bases"], None, policy["why"]


def _prompts(found: Found, config: AuditConfig) -> Verdict:
    apart = found["prompt_shift"]
    if apart is None or apart["auc"] is None:
        return None, None, config.prompt_shift, "the policy's prompts are not known here; name them with --prompts"
    why = (
        f"words tell the prompts of these judgements from the policy's in {apart['auc']:.0%} of cases (50%: not at all)"
    )
    return apart["auc"] <= config.prompt_shift, apart["auc"], config.prompt_shift, why


CONDITIONS: dict[str, Callable[[Found, AuditConfig], Verdict]] = {
    "accuracy": _accuracy,
    "slices": _slices,
    "length": _length,
    "calibration": _calibration,
    "leak": _leak,
    "position": _position,
    "base": _base,
    "prompts": _prompts,
}
