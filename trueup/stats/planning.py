"""What agreement implies about labels, and how much labelling a purpose needs.

The model behind it: every judge of a pair is right with the same chance, independently. Real errors come together
(an unclear pair is unclear to all), so what it says about majorities is a bound, not a forecast.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil, comb, sqrt
from statistics import NormalDist
from typing import Any

from ..errors import ConfigError
from .binomial import at_least

_MOST_VOTES = 99


def accuracy_from_agreement(agreement: float) -> float:
    """The chance of one judge to be right, when two agree that often: a^2 + (1 - a)^2 = agreement.

    Below one half there is no such judge.
    """
    if not 0.5 <= agreement <= 1:
        raise ConfigError(
            f"an expected agreement of {agreement:g} is not one of two judges who are right more often than not",
            "give a share from 0.5 (coin flips) to 1; people usually agree on 0.63 to 0.77 of pairs",
        )
    return (1 + sqrt(2 * agreement - 1)) / 2


def kappa_from_agreement(agreement: float) -> float:
    """Cohen's kappa of two judges who choose each side equally often: chance alone makes half of them agree."""
    return 2 * agreement - 1


def majority_accuracy(accuracy: float, n: int) -> float:
    """The chance that most of n such judges are right; an even split is decided by a coin."""
    assert 0 <= accuracy <= 1 and n >= 1
    even = comb(n, n // 2) * (accuracy * (1 - accuracy)) ** (n // 2) / 2 if n % 2 == 0 else 0.0
    return at_least(n // 2 + 1, n, accuracy) + even


def gold_pass_rate(accuracy: float, golds: int, needed: int) -> float:
    """How often somebody who is right with this chance passes `golds` questions by `needed` right answers."""
    return at_least(needed, golds, accuracy)


def golds_needed(golds: int, false_pass: float = 0.05) -> int | None:
    """The least number of right answers that a coin reaches at most this often; None where no number does."""
    return next((k for k in range(golds + 1) if at_least(k, golds, 0.5) <= false_pass), None)


def half_width(share: float, n: int, level: float = 0.95) -> float:
    """Half the width of the usual interval of a share measured on n independent rows."""
    assert 0 <= share <= 1 and n >= 1
    return NormalDist().inv_cdf(0.5 + level / 2) * sqrt(share * (1 - share) / n)


def items_for(width: float, share: float = 0.7, level: float = 0.95) -> int:
    """How many independent items measure a share to plus or minus `width`."""
    if not 0 < width < 1:
        raise ConfigError(f"an interval of plus or minus {width:g} cannot be planned for", "give a share, such as 0.03")
    return ceil((NormalDist().inv_cdf(0.5 + level / 2) / width) ** 2 * share * (1 - share))


def overlap_for(agreement: float, accuracy: float) -> int | None:
    """The least odd number of judges an item whose majority is right that often; None where 99 are not enough."""
    one = accuracy_from_agreement(agreement)
    return next((n for n in range(1, _MOST_VOTES + 1, 2) if majority_accuracy(one, n) >= accuracy), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection will cost and what its labels will be worth."""

    agreement: float
    items: int
    overlap: int
    people: int
    judgements: int
    judgements_a_person: int
    hours: float
    hours_a_person: float
    kappa: float
    judge_accuracy: float  # also the most that a reward model can show when it is tested on single judgements
    label_accuracy: float  # of the majority of `overlap`
    heldout_items: int
    half_width: float  # of the reward model's accuracy on the held-out items
    agreement_half_width: float | None  # of the agreement itself; None where no item has two judges

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(
    agreement: float,
    items: int,
    overlap: int,
    people: int,
    *,
    calibration_share: float = 0.15,
    calibration_overlap: int = 3,
    seconds: float = 60.0,
    heldout: float = 0.1,
) -> Plan:
    """Count the work and say what comes out of it. A share of the items is seen by `calibration_overlap` judges."""
    _check(items, overlap, people, calibration_share, calibration_overlap, seconds, heldout)
    one = accuracy_from_agreement(agreement)
    common = round(items * calibration_share)
    judgements = (items - common) * overlap + common * max(overlap, calibration_overlap)
    measured = (items if overlap > 1 else common) if max(overlap, calibration_overlap) > 1 else 0
    kept = max(1, round(items * heldout))
    return Plan(
        agreement,
        items,
        overlap,
        people,
        judgements,
        ceil(judgements / people),
        judgements * seconds / 3600,
        judgements * seconds / 3600 / people,
        kappa_from_agreement(agreement),
        one,
        majority_accuracy(one, overlap),
        kept,
        half_width(one, kept),
        half_width(agreement, measured) if measured else None,
    )


def _check(
    items: int, overlap: int, people: int, share: float, calibration_overlap: int, seconds: float, heldout: float
) -> None:
    numbers = {"items": items, "overlap": overlap, "people": people, "calibration_overlap": calibration_overlap}
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{name} is {number}, and a plan needs at least 1")
    for name, part in {"calibration_share": share, "heldout": heldout}.items():
        if not 0 <= part <= 1:
            raise ConfigError(f"{name} is {part:g}", "give a share from 0 to 1")
    if seconds <= 0:
        raise ConfigError(f"seconds is {seconds:g}", "give the seconds that a judgement takes, more than 0")
    most = max(overlap, calibration_overlap if share else 1)
    if most > people:
        raise ConfigError(
            f"{most} judges an item are asked for, and there are {people}", "lower the overlap or invite more people"
        )
