"""Numbers in words, the same on the page and in the terminal: never a share without its n and interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

SIMULATED = "The people are simulated and the headroom is designed in."


def percent(share: float | None) -> str:
    return "" if _absent(share) else f"{100 * share:.1f}%"  # type: ignore[operator]


def percent_range(ci: Sequence[float] | None) -> str:
    """`87.5 to 94.1%`; an interval that was not measured says so."""
    return f"{100 * ci[0]:.1f} to {100 * ci[1]:.1f}%" if ci else "no interval"


def number(value: object) -> str:
    """Three significant digits for what was measured, every digit for what was counted or set."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def points(value: float | None) -> str:
    """A gold score, as it stands beside a text."""
    return "" if _absent(value) else f"{value:.2f}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s"


def total_seconds(result: Mapping[str, Any]) -> float:
    """The wall time the run reported, else the sum of its stages."""
    return float(result.get("seconds") or sum(stage["seconds"] for stage in result.get("stages", ())))


def headline(result: Mapping[str, Any]) -> str:
    """What happened, in one sentence with numbers."""
    rates = [rate for rate in result.get("win_rates") or () if not _absent(rate["value"])]
    if not rates:
        return "The loop ran to its end, but no win rate was measured."
    first, rest = rates[0], rates[1:]
    winner, _, loser = first["name"].partition(" vs ")
    text = (
        f"{winner} beat {loser or 'its rival'} on {percent(first['value'])} of {first['n']:,} held-out posts "
        f"by gold score (95% interval {percent_range(first.get('ci'))})"
    )
    others = [
        f"{rate['name'].partition(' vs ')[2] or rate['name']} on {percent(rate['value'])} "
        f"({percent_range(rate.get('ci'))}, n = {rate['n']:,})"
        for rate in rest
    ]
    return text + (f"; {listed(others)}." if others else ".")


def counted(count: int, noun: str) -> str:
    """`five posts`"""
    small = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return f"{small[count] if count < len(small) else count} {noun}{'' if count == 1 else 's'}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def is_number(value: object) -> TypeGuard[float]:
    """Whether it was measured and is finite; of JSON, where a truth is no number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _absent(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
