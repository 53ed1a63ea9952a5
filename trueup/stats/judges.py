"""Is there something odd about one judge? One function a question: what it saw, how sure, and whether to warn.

A warning is a reason to look, never to delete: dropping weak judges has been seen to make reward models worse. Every
test warns at a chance of one in a hundred; `trueup/feedback/rehearsal.py` measures how often each warns, rightly and
wrongly, on simulated judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log, sqrt
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .agreement import Ints, Votes, numbered, one_each
from .binomial import at_most, drawn_at_least
from .intervals import Floats, wilson
from .winrate import sign_test

ALARM = 0.01  # the chance at which a judge with nothing wrong is warned about, by each test
GOOD = 0.84  # right answers of a judge in a collection where two judges agree on 73% of pairs
FASTEST = 10.0  # words a second: twice what fast readers read

_CELLS = 2**20  # shuffled answers at a time (8 MB)

Decision = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one question found about one judge. `value` is None where there is nothing to go by yet."""

    judge: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    warn: bool
    message: str

    def to_json(self) -> dict[str, Any]:
        names = ("judge", "value", "low", "high", "n", "warn", "message")
        return {name: getattr(self, name) for name in names}


def gold_accuracy(right: int, n: int, *, judge: str = "", expected: float = GOOD) -> Finding:
    """The share of golds answered as the key says. Warns where a judge who is right `expected` often would be so
    seldom this far below."""
    if n == 0:
        return _nothing(judge, "no golds answered yet")
    warn = at_most(right, n, expected) < ALARM
    return _share(judge, right, n, warn, f"{right} of {n} golds right, {expected:.0%} expected")


def sequential_decision(
    right: Sequence[bool], *, good: float = GOOD, bad: float = 0.6, false_fail: float = 0.05, false_pass: float = 0.05
) -> Decision:
    """Wald's sequential test over golds in the order they were answered: stops as soon as they are enough.

    Once decided, later answers change nothing.
    """
    assert 0 < bad < good < 1 and 0 < false_fail < 0.5 and 0 < false_pass < 0.5
    upper, lower = log((1 - false_fail) / false_pass), log(false_fail / (1 - false_pass))
    hit, miss = log(good / bad), log((1 - good) / (1 - bad))
    evidence = 0.0
    for answer in right:
        evidence += hit if answer else miss
        if evidence >= upper:
            return "pass"
        if evidence <= lower:
            return "fail"
    return "undecided"


def sequential_gold_test(
    right: Sequence[bool],
    *,
    judge: str = "",
    good: float = GOOD,
    bad: float = 0.6,
    false_fail: float = 0.05,
    false_pass: float = 0.05,
) -> Finding:
    """`sequential_decision` as a finding: warns when the golds say `bad` rather than `good`."""
    if not len(right):
        return _nothing(judge, "no golds answered yet")
    decision = sequential_decision(right, good=good, bad=bad, false_fail=false_fail, false_pass=false_pass)
    said = {
        "pass": f"the golds speak for {good:.0%} right rather than {bad:.0%}",
        "fail": f"the golds speak for {bad:.0%} right rather than {good:.0%}",
        "undecided": "not enough golds to tell",
    }[decision]
    return _share(judge, int(np.sum(np.asarray(right))), len(right), decision == "fail", said)


def leave_one_out_agreement(votes: Votes, names: Sequence[str] = ()) -> list[Finding]:
    """For each judge, how often their vote is what most of the item's other judges say.

    Items whose other judges are split evenly say nothing. The yardstick is the median judge: a few bad ones do not move
    it. `names[j]` is the name of judge j.
    """
    judges, agreed = _with_the_others(votes.latest())
    numbers, n_judges = numbered(judges)
    right = np.bincount(numbers, agreed, n_judges).astype(int).tolist()
    of = np.bincount(numbers, minlength=n_judges).tolist()
    found = list(zip(one_each(judges, numbers, n_judges).tolist(), right, of, strict=True))
    shares = [k / n for _, k, n in found]
    usual = float(np.median(shares)) if shares else 0.5
    return [
        _share(
            names[judge] if len(names) else str(judge),
            k,
            n,
            len(found) > 2 and at_most(k, n, usual) < ALARM,
            f"agrees with the other judges' majority on {k} of {n} items; the median judge does on {usual:.0%}",
        )
        for judge, k, n in found
    ]


def position_bias(first_chosen: int, n: int, *, judge: str = "", smallest: float = 0.05) -> Finding:
    """How often the completion shown first was preferred, of n choices that were no tie.

    Balanced display makes it one half for anybody who reads. A bias under `smallest` is not worth a warning, however
    sure it is.
    """
    if n == 0:
        return _nothing(judge, "no choices yet")
    warn = abs(first_chosen / n - 0.5) >= smallest and sign_test(first_chosen, n - first_chosen) < ALARM
    return _share(judge, first_chosen, n, warn, f"the first shown was preferred in {first_chosen} of {n} choices")


def length_bias(
    longer_chosen: int, n: int, others_longer: int, others_n: int, *, judge: str = "", smallest: float = 0.05
) -> Finding:
    """Whether a judge prefers the longer completion more often than the others do, of choices that were no tie.

    Longer completions are often better, so the yardstick is not one half but the other judges.
    """
    if n == 0 or others_n == 0:
        return _nothing(judge, "no choices to compare")
    mine, others = longer_chosen / n, others_longer / others_n
    pooled = (longer_chosen + others_longer) / (n + others_n)
    spread = sqrt(pooled * (1 - pooled) * (1 / n + 1 / others_n))
    z = (mine - others) / spread if spread else 0.0
    warn = mine - others >= smallest and z > NormalDist().inv_cdf(1 - ALARM)
    return _share(
        judge, longer_chosen, n, warn, f"preferred the longer in {mine:.0%} of {n}, the others in {others:.0%}"
    )


def speed(seconds: ArrayLike, words: ArrayLike, *, judge: str = "", fastest: float = FASTEST) -> Finding:
    """Median words a second over answers; warns when surely more than half of them were faster than anybody reads.

    The interval of the median comes from order statistics and assumes nothing about the distribution.
    """
    taken, read = np.asarray(seconds, dtype=float), np.asarray(words, dtype=float)
    assert taken.shape == read.shape and (taken >= 0).all() and (read >= 0).all()
    rate = np.sort(read / np.maximum(taken, 1e-3))
    n = len(rate)
    if n == 0:
        return _nothing(judge, "no answers yet")
    below = _median_margin(n, 0.025)
    low, high = (float(rate[below]), float(rate[n - 1 - below])) if below is not None else (None, None)
    strict = _median_margin(n, ALARM)
    warn = strict is not None and bool(rate[strict] > fastest)
    middle = float(np.median(rate))
    return Finding(judge, middle, low, high, n, warn, f"reads {middle:.1f} words a second (median of {n} answers)")


def longest_run(answers: Sequence[object], *, judge: str = "", chance: float = 0.5) -> Finding:
    """The longest run of one and the same key, in display positions and in order of work.

    `chance`: how often somebody who reads gives one answer at most; balanced display makes it one half for the two
    sides of a pair. Warns when a run that long would be so rare among n answers (an upper bound by the union over where
    it may begin).
    """
    assert 0 < chance < 1
    n, longest, run = len(answers), 0, 0
    for i, answer in enumerate(answers):
        run = run + 1 if i and answer == answers[i - 1] else 1
        longest = max(longest, run)
    if n == 0:
        return _nothing(judge, "no answers yet")
    rare = (1 + (n - longest) * (1 - chance)) * chance ** (longest - 1)
    message = f"the same key {longest} times in a row, of {n} answers"
    return Finding(judge, float(longest), None, None, n, rare < ALARM, message)


def self_consistency(same: int, n: int, *, judge: str = "", expected: float = 0.7) -> Finding:
    """How often a judge answers an item that comes again as before, with sides swapped and put back.

    `expected`: of a judge who is right 82% of the time, if the two answers are independent. Warns when theirs is surely
    lower.
    """
    if n == 0:
        return _nothing(judge, "nothing was shown again yet")
    warn = at_most(same, n, expected) < ALARM
    return _share(judge, same, n, warn, f"{same} of {n} repeated items answered as before, {expected:.0%} expected")


def skip_rate(
    skipped: int, judged: int, others_skipped: int, others_judged: int, *, judge: str = "", smallest: float = 0.05
) -> Finding:
    """Whether a judge skips a larger share of what they are handed than the others do, by five points at least.

    Skips are rare, so the test is Fisher's exact one: of all the skips there are, would so many be this judge's?
    """
    n, others = skipped + judged, others_skipped + others_judged
    if n == 0:
        return _nothing(judge, "nothing was handed out yet")
    if others == 0:
        return _share(judge, skipped, n, False, f"skipped {skipped} of {n}, and there is nobody to compare with")
    usual = others_skipped / others
    rare = drawn_at_least(skipped, n, skipped + others_skipped, n + others) < ALARM
    message = f"skipped {skipped} of {n} ({skipped / n:.0%}), the others {usual:.0%}"
    return _share(judge, skipped, n, rare and skipped / n - usual >= smallest, message)


def drift(agreed: Sequence[bool], *, judge: str = "", draws: int = 1999, seed: int = 0) -> Finding:
    """A cumulative sum over control pairs, in order of time: did agreement with their known answer fall at some point?

    The largest lead of early over late answers is compared with that of the same answers in random order, so the test
    needs no yardstick and holds its level exactly. `value` is the change after the likeliest moment.
    """
    hits = np.asarray(agreed, dtype=float)
    n = len(hits)
    if n < 2:
        return _nothing(judge, "too few control pairs yet")
    random = np.random.default_rng(seed)
    lead = _leads(hits[None])[0]
    as_large = 0
    for rows in _blocks(draws, n):
        shuffled = random.permuted(np.tile(hits, (rows, 1)), axis=1)
        as_large += int((_leads(shuffled).max(1) >= lead.max() - 1e-9).sum())
    seldom = (1 + as_large) / (1 + draws)
    at = int(lead.argmax()) + 1
    before, after = float(hits[:at].mean()), float(hits[at:].mean())
    low, high = _difference(after, n - at, before, at)
    message = f"agreement with control pairs went from {before:.0%} ({at}) to {after:.0%} ({n - at})"
    return Finding(judge, after - before, low, high, n, seldom < ALARM, message)


def _with_the_others(votes: Votes) -> tuple[Ints, NDArray[np.bool_]]:
    """The judge of every vote whose item's other judges have a majority, and whether the vote is that majority."""
    if not len(votes):
        return votes.judge, np.zeros(0, dtype=bool)
    numbers, n_items = numbered(votes.item)
    values, place = np.unique(votes.value, return_inverse=True)
    counts = np.bincount(numbers * len(values) + place, minlength=n_items * len(values)).reshape(n_items, -1)
    others = counts[numbers]
    rows = np.arange(len(place))
    others[rows, place] -= 1
    most = others.max(1)
    clear = (most > 0) & ((others == most[:, None]).sum(1) == 1)
    return votes.judge[clear], (others[rows, place] == most)[clear]


def _blocks(draws: int, n: int) -> Iterator[int]:
    """How many rows of n numbers to make at a time."""
    block = max(1, _CELLS // n)
    yield from (min(block, draws - start) for start in range(0, draws, block))


def _leads(hits: Floats) -> Floats:
    """After each answer but the last: how many more were right so far than the whole would let one expect."""
    n = hits.shape[1]
    sums = np.cumsum(hits, axis=1)
    leads: Floats = sums[:, :-1] - sums[:, -1:] * np.arange(1, n) / n
    return leads


def _difference(a: float, n_a: int, b: float, n_b: int) -> tuple[float, float]:
    """Newcombe's interval of a - b, from the two Wilson intervals."""
    (low_a, high_a), (low_b, high_b) = wilson(a * n_a, n_a), wilson(b * n_b, n_b)
    return a - b - sqrt((a - low_a) ** 2 + (high_b - b) ** 2), a - b + sqrt((high_a - a) ** 2 + (b - low_b) ** 2)


def _median_margin(n: int, chance: float) -> int | None:
    """How many of n values may lie below a bound that is under the median with all but this chance; None if n is too
    small for any."""
    low, high = -1, n  # the largest that fits lies in [low, high): the chance only grows
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at_most(middle, n, 0.5) <= chance else (low, middle)
    return low if low >= 0 else None


def _share(judge: str, k: int, n: int, warn: bool, message: str) -> Finding:
    low, high = wilson(k, n)
    return Finding(judge, k / n, low, high, n, warn, message)


def _nothing(judge: str, message: str) -> Finding:
    return Finding(judge, None, None, None, 0, False, message)
