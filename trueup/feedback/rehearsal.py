"""Simulated judges with known faults: how often each detector of `stats.judges` warns, rightly and wrongly.

    python -m trueup.feedback.rehearsal [--repeats 2000] [--seed 0]

prints the table of docs/quality.md. Every repeat is a collection of its own: nine judges, three on each item, of whom
the first has the fault and, in a second collection, has none.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..stats import judges as detectors
from ..stats.agreement import Votes
from ..stats.intervals import Interval, wilson
from ..stats.judges import Finding

JUDGES, OVERLAP = 9, 3
LONGER_IS_BETTER = 0.6  # the share of pairs; why the yardstick of length is the other judges
CLEARNESS = (0.6, 1.4)  # of pairs: unclear ones are unclear to all, so errors come together
WORDS = (60, 400)  # of what is read for one answer
PAUSES = 0.4  # standard deviation of the logarithm of the time for a word

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SimulatedJudge:
    """How somebody answers. Shares are of all answers; each overrides what stands before it."""

    accuracy: float = detectors.GOOD  # right answers on pairs of mean clearness
    spam: float = 0.0  # answers given by a coin
    fatigue: float = 0.0  # the same at the end of the work, growing evenly from none at its beginning
    position: float = 0.0  # answers that go to the completion shown first
    length: float = 0.0  # answers that go to the longer completion
    sticking: float = 0.0  # answers that repeat the key pressed before
    speed: float = 4.0  # words read a second
    skipping: float = 0.03  # of the items they are handed


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of completions 0 and 1: which is better, which longer, and how clearly."""

    better: Whole
    longer: Whole
    clearness: NDArray[np.float64]

    @classmethod
    def draw(cls, n: int, random: np.random.Generator) -> Pairs:
        better = random.integers(0, 2, n)
        longer = np.where(random.random(n) < LONGER_IS_BETTER, better, 1 - better)
        return cls(better, longer, random.uniform(*CLEARNESS, n))

    def take(self, rows: Whole) -> Pairs:
        return Pairs(self.better[rows], self.longer[rows], self.clearness[rows])


def answers(judge: SimulatedJudge, pairs: Pairs, first: Whole, random: np.random.Generator) -> Whole:
    """Which completion the judge chooses of each pair, in order of work; `first` is the one displayed first."""
    n = len(first)

    def some(share: float | NDArray[np.float64]) -> Mask:
        return random.random(n) < share

    right = some(0.5 + (judge.accuracy - 0.5) * pairs.clearness)
    chosen = np.where(right, pairs.better, 1 - pairs.better)
    by_coin = some(judge.spam + judge.fatigue * np.arange(n) / n)
    chosen = np.where(by_coin, random.integers(0, 2, n), chosen)
    chosen = np.where(some(judge.position), first, chosen)
    chosen = np.where(some(judge.length), pairs.longer, chosen)
    return _sticking(chosen, first, some(judge.sticking))


def _sticking(chosen: Whole, first: Whole, stuck: Mask) -> Whole:
    """Where stuck, the key of the answer before: the same side, whatever it shows."""
    fresh = np.maximum.accumulate(np.where(stuck, 0, np.arange(len(chosen))))
    left = (chosen == first)[fresh]
    return np.where(left, first, 1 - first)


@dataclass(frozen=True, slots=True)
class Work:
    """A collection judged by simulated judges: one row an answer, each judge's in order. Judge 0 is looked at."""

    item: Whole
    judge: Whole
    chosen: Whole
    first: Whole
    pairs: Pairs
    mine: slice  # the rows of judge 0
    again: Whole  # what judge 0 says when the items come again with sides swapped
    seconds: NDArray[np.float64]  # of judge 0
    words: Whole
    skipped: Whole  # by each judge, beside the n that they answered

    @property
    def right(self) -> Mask:
        right: Mask = self.chosen[self.mine] == self.pairs.better[self.mine]
        return right

    @property
    def took_first(self) -> Mask:
        took_first: Mask = self.chosen[self.mine] == self.first[self.mine]
        return took_first

    @property
    def longer(self) -> Mask:
        longer: Mask = self.chosen == self.pairs.longer
        return longer

    @property
    def same(self) -> Mask:
        same: Mask = self.chosen[self.mine] == self.again
        return same


def judged(judge: SimulatedJudge, n: int, random: np.random.Generator) -> Work:
    """n answers of every judge, all but the first of whom are as good as people usually are."""
    seats = JUDGES // OVERLAP  # items that one round of all judges covers
    turn = random.permuted(np.tile(np.arange(JUDGES), (n, 1)), axis=1)  # [round, place]: the judge
    round_, place = np.divmod(np.argsort(turn.ravel() * n + np.repeat(np.arange(n), JUDGES)), JUDGES)
    item = round_ * seats + place % seats
    pairs = Pairs.draw(n * seats, random).take(item)
    first = random.integers(0, 2, len(item))
    usual = SimulatedJudge()
    people = [judge, *[usual] * (JUDGES - 1)]
    rows = [np.arange(j * n, (j + 1) * n) for j in range(JUDGES)]
    chosen = [answers(p, pairs.take(r), first[r], random) for p, r in zip(people, rows, strict=True)]
    again = answers(judge, pairs.take(rows[0]), 1 - first[rows[0]], random)
    words = random.integers(*WORDS, n)
    seconds = words / judge.speed * np.exp(PAUSES * random.standard_normal(n))
    who = np.repeat(np.arange(JUDGES), n)
    skipping = np.array([each.skipping for each in people])
    skipped = random.spawn(1)[0].negative_binomial(n, 1 - skipping)  # items handed out until n are answered
    return Work(item, who, np.concatenate(chosen), first, pairs, slice(0, n), again, seconds, words, skipped)


# What is asked of judge 0


def _golds(work: Work) -> Finding:
    return detectors.gold_accuracy(int(work.right.sum()), len(work.right))


def _sequential(work: Work) -> Finding:
    return detectors.sequential_gold_test(work.right.tolist())


def _others(work: Work) -> Finding:
    found = detectors.leave_one_out_agreement(Votes.of(work.item, work.judge, work.chosen))
    return next(each for each in found if each.judge == "0")


def _position(work: Work) -> Finding:
    return detectors.position_bias(int(work.took_first.sum()), len(work.took_first))


def _length(work: Work) -> Finding:
    mine, everybody = work.longer[work.mine], work.longer
    others, n = int(everybody.sum() - mine.sum()), len(everybody) - len(mine)
    return detectors.length_bias(int(mine.sum()), len(mine), others, n)


def _speed(work: Work) -> Finding:
    return detectors.speed(work.seconds, work.words)


def _run(work: Work) -> Finding:
    return detectors.longest_run(work.took_first.tolist())


def _consistency(work: Work) -> Finding:
    return detectors.self_consistency(int(work.same.sum()), len(work.same))


def _drift(work: Work) -> Finding:
    return detectors.drift(work.right.tolist())


def _skips(work: Work) -> Finding:
    n, others = len(work.right), int(work.skipped[1:].sum())
    return detectors.skip_rate(int(work.skipped[0]), n, others, n * (JUDGES - 1))


def _any(work: Work) -> Finding:
    """Everything at once, as on the quality page: a fifth of the answers are golds, another are control pairs, and one
    in twenty comes again."""
    n = len(work.right)
    found = [
        detectors.gold_accuracy(int(work.right[::5].sum()), len(work.right[::5])),
        detectors.sequential_gold_test(work.right[::5].tolist(), false_fail=detectors.ALARM),
        detectors.drift(work.right[1::5].tolist()),
        detectors.self_consistency(int(work.same[::20].sum()), len(work.same[::20])),
        *(check(work) for check in (_others, _position, _length, _speed, _run, _skips)),
    ]
    warned = [each for each in found if each.warn]
    return Finding("0", float(len(warned)), None, None, n, bool(warned), f"{len(warned)} warnings")


@dataclass(frozen=True, slots=True)
class Case:
    """A detector, a fault it is for, and how many answers it is given."""

    detector: str
    fault: str
    judge: SimulatedJudge
    n: int
    check: Callable[[Work], Finding]


_COIN = SimulatedJudge(spam=1.0)

CASES: tuple[Case, ...] = (
    Case("gold_accuracy", "answers by a coin", _COIN, 10, _golds),
    Case("gold_accuracy", "answers by a coin", _COIN, 20, _golds),
    Case("gold_accuracy", "right on 70%", SimulatedJudge(accuracy=0.7), 20, _golds),
    Case("gold_accuracy", "right on 70%", SimulatedJudge(accuracy=0.7), 60, _golds),
    Case("sequential_gold_test", "answers by a coin", _COIN, 20, _sequential),
    Case("sequential_gold_test", "right on 60%", SimulatedJudge(accuracy=0.6), 40, _sequential),
    Case("leave_one_out_agreement", "answers by a coin", _COIN, 50, _others),
    Case("leave_one_out_agreement", "answers by a coin", _COIN, 150, _others),
    Case("leave_one_out_agreement", "half by a coin", SimulatedJudge(spam=0.5), 150, _others),
    Case("leave_one_out_agreement", "half by a coin", SimulatedJudge(spam=0.5), 400, _others),
    Case("position_bias", "20% to the first shown", SimulatedJudge(position=0.2), 100, _position),
    Case("position_bias", "20% to the first shown", SimulatedJudge(position=0.2), 300, _position),
    Case("position_bias", "40% to the first shown", SimulatedJudge(position=0.4), 100, _position),
    Case("length_bias", "20% to the longer", SimulatedJudge(length=0.2), 100, _length),
    Case("length_bias", "20% to the longer", SimulatedJudge(length=0.2), 400, _length),
    Case("length_bias", "40% to the longer", SimulatedJudge(length=0.4), 100, _length),
    Case("speed", "20 words a second", SimulatedJudge(speed=20), 10, _speed),
    Case("speed", "14 words a second", SimulatedJudge(speed=14), 30, _speed),
    Case("longest_run", "always one key", SimulatedJudge(sticking=1.0), 20, _run),
    Case("longest_run", "repeats 80% of keys", SimulatedJudge(sticking=0.8), 100, _run),
    Case("self_consistency", "answers by a coin", _COIN, 20, _consistency),
    Case("self_consistency", "answers by a coin", _COIN, 50, _consistency),
    Case("skip_rate", "skips 10%, the others 3%", SimulatedJudge(skipping=0.1), 100, _skips),
    Case("skip_rate", "skips 10%, the others 3%", SimulatedJudge(skipping=0.1), 200, _skips),
    Case("skip_rate", "skips 20%, the others 3%", SimulatedJudge(skipping=0.2), 50, _skips),
    Case("drift", "tires: from none to all by a coin", SimulatedJudge(fatigue=1.0), 60, _drift),
    Case("drift", "tires: from none to all by a coin", SimulatedJudge(fatigue=1.0), 150, _drift),
    Case("drift", "tires: from none to all by a coin", SimulatedJudge(fatigue=1.0), 400, _drift),
    Case("drift", "tires: from none to half by a coin", SimulatedJudge(fatigue=0.5), 400, _drift),
    Case("any of them at once", "answers by a coin", _COIN, 200, _any),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """How often a detector warned of a judge with the fault (power) and of one without (false alarms)."""

    case: Case
    repeats: int
    power: float
    power_ci: Interval
    false_alarms: float
    false_alarms_ci: Interval


def measure(case: Case, repeats: int, seed: int = 0) -> Measured:
    """Both rates over simulated collections; the same seed gives the same collections."""
    random = np.random.default_rng(seed)
    rightly = sum(case.check(judged(case.judge, case.n, random)).warn for _ in range(repeats))
    wrongly = sum(case.check(judged(SimulatedJudge(), case.n, random)).warn for _ in range(repeats))
    return Measured(
        case, repeats, rightly / repeats, wilson(rightly, repeats), wrongly / repeats, wilson(wrongly, repeats)
    )


def table(repeats: int, seed: int = 0, cases: Sequence[Case] = CASES) -> Iterator[Measured]:
    yield from (measure(case, repeats, seed) for case in cases)


def markdown(measured: Measured) -> str:
    """One row of the table in docs/quality.md."""
    case = measured.case
    name = f"`{case.detector}`" if hasattr(detectors, case.detector) else case.detector
    rates = _rate(measured.power, measured.power_ci), _rate(measured.false_alarms, measured.false_alarms_ci)
    return f"| {' | '.join([name, case.fault, str(case.n), *rates])} |"


def _rate(value: float, interval: Interval) -> str:
    low, high = (100 * end for end in interval)
    return f"{100 * value:.1f}% ({low:.1f} to {high:.1f})"


def main(words: Sequence[str] | None = None, cases: Sequence[Case] = CASES) -> None:
    parser = argparse.ArgumentParser(description="Power and false-alarm rate of every detector, on simulated judges.")
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    print("| detector | fault | answers | warned, with the fault | warned, without |\n|---|---|---|---|---|")
    for measured in table(arguments.repeats, arguments.seed, cases):
        print(markdown(measured), flush=True)


if __name__ == "__main__":
    main()
