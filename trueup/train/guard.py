"""What watches a policy while it learns: after each evaluation it goes on, goes back, or stops, and says why.

An evaluation is one completion for each held-out prompt, always from the same seed, so two evaluations differ by the
policy alone and are compared prompt by prompt. What is compared is the value: the held-out score minus the price of
its KL; with a judge (a reward model kept out of training, or the lowest member of an ensemble) the judge's score in
its place, since the training score is the one that is gamed. The best evaluation so far is the one to hold on to: its
weights are what the run goes back to, and what it ships. Text that all became one, or many times longer or shorter
than at the start, is worse whatever its score.

A prompt whose value is no number says nothing: two evaluations are compared on the prompts where both have one, and one
in which many more prompts lost theirs is worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..config import GuardSettings
from ..records import Completion
from ..stats.diversity import distinct, repetition
from ..stats.paired import chance_of_falling
from .run_loop import Loop

LOST = 0.1  # the share of the prompts that may lose their numbers before that alone is worse


@dataclass(frozen=True)
class Evaluation:
    """A policy on the held-out prompts, one number a prompt where it is a list."""

    step: int
    score: list[float]
    kl: list[float]
    judge: list[float]  # empty without a judge
    length: float
    repetition: float
    distinct: float

    @classmethod
    def of(
        cls, step: int, completions: Sequence[Completion], score: Sequence[float], kl: Sequence[float],
        judge: Sequence[float] = (),
    ) -> Evaluation:  # fmt: skip
        texts = [completion.tokens for completion in completions]
        return cls(
            step, list(score), list(kl), list(judge),
            length=_mean([len(tokens) for tokens in texts]),
            repetition=_mean([repetition(tokens) for tokens in texts]),
            distinct=distinct(texts),
        )  # fmt: skip

    def values(self, price: float) -> list[float]:
        return [score - price * kl for score, kl in zip(self.judge or self.score, self.kl, strict=True)]

    def metrics(self) -> dict[str, float]:
        judged = {"heldout_judge": _mean(self.judge)} if self.judge else {}
        return judged | {
            "heldout_score": _mean(self.score),
            "heldout_kl": _mean(self.kl),
            "heldout_length": self.length,
            "heldout_repetition": self.repetition,
            "heldout_distinct": self.distinct,
        }


class Guard:
    """Decides after each evaluation. What it remembers stands in the run's memory."""

    def __init__(self, settings: GuardSettings, price: float, loop: Loop) -> None:
        """`price` is what a nat of KL costs in the value: the same all through a run, whatever is adapted."""
        self.settings, self.price, self.loop = settings, price, loop

    def begin(self, start: Evaluation) -> None:
        """Before the first step: what the first evaluation is compared with, and what ships if none is better."""
        self.loop.memory["start"] = {"length": start.length, "distinct": start.distinct}
        self._say_if_unmeasured(start)
        self._say_if_blind(len(start.score))
        value = _mean(start.values(self.price))
        if math.isfinite(value):  # a start that cannot be measured is nothing to go back to
            self._hold(start, value)
            self.loop.keep_start(value)

    def look(self, now: Evaluation) -> None:
        """Go on, go back or stop; the step's checkpoint is a candidate for shipping unless something is wrong."""
        self.loop.log(**now.metrics())
        self._say_if_unmeasured(now)
        value, score = self._value(now), _mean(now.score)
        if gamed := self._gamed(now):
            self._stop("over-optimisation", gamed, now)
            return
        if wrong := self._wrong(now):
            if self.loop.memory.get("rollbacks", 0) >= self.settings.max_rollbacks:
                self._stop("worse", f"worse again after {self.settings.max_rollbacks} rollbacks: {wrong}", now)
            else:
                self._go_back(wrong, now)
            return
        if (limit := self.settings.max_kl) is not None and _mean(now.kl) > limit:
            self._stop("KL budget", f"the held-out KL {_mean(now.kl):.3g} is over guard.max_kl = {limit}", now)
            return
        self.loop.evaluated(value)
        if math.isfinite(value) and (self._held is None or value > self.loop.memory["good_value"]):
            self._hold(now, value)
        wanted = self.settings.stop_score
        if wanted is not None and score >= wanted:
            self.loop.stop(f"the held-out score {score:.3f} reached guard.stop_score = {wanted}")

    @property
    def _held(self) -> Evaluation | None:
        kept: Mapping[str, Any] | None = self.loop.memory.get("good")
        return None if kept is None else Evaluation(**kept)

    def _hold(self, evaluation: Evaluation, value: float) -> None:
        self.loop.memory |= {"good": asdict(evaluation), "good_value": value}

    def _value(self, now: Evaluation) -> float:
        """Its mean, as far from the held one's as on the prompts where both have a number: a mean over other prompts
        could be higher for leaving out the low ones."""
        good = self._held
        if good is None:
            return _mean(now.values(self.price))
        before, after = _both(good.values(self.price), now.values(self.price))
        value: float = self.loop.memory["good_value"] + (_mean(after) - _mean(before))
        return value

    def _gamed(self, now: Evaluation) -> str:
        """In words, that what is trained on rose while what is not fell: more of the same will not help."""
        good = self._held
        if not self.settings.stop_gamed or good is None or not now.judge or not good.judge:
            return ""
        before, after = _both(good.judge, now.judge)
        score_before, score = map(_mean, _both(good.score, now.score))
        chance = self._chance(before, after)
        if not score > score_before or chance >= 1 - self.settings.confidence:
            return ""
        return (
            f"the judge's score fell while the score rose: {_mean(after):.3f} after {_mean(before):.3f} at step "
            f"{good.step} (n = {len(after)} prompts, chance {chance:.2g}), the score {score:.3f} after "
            f"{score_before:.3f}"
        )

    def _wrong(self, now: Evaluation) -> str:
        """In words, empty if nothing is."""
        good = self._held
        if not self.settings.rollback or good is None:
            return ""
        before, after = _both(good.values(self.price), now.values(self.price))
        if not after:
            return "the value of the evaluation is no finite number"
        lost, prompts = self._unmeasured(now) - self._unmeasured(good), len(now.score)
        if lost > max(1, LOST * prompts):
            return (
                f"the value of {lost} more of {prompts} held-out prompts is no finite number than at step {good.step}"
            )
        chance = self._chance(before, after)
        if chance < 1 - self.settings.confidence:
            return (
                f"value {_mean(after):.3f} after {_mean(before):.3f} at step {good.step} "
                f"(n = {len(after)} prompts, chance {chance:.2g})"
            )
        return self._collapsed(now, good)

    def _collapsed(self, now: Evaluation, good: Evaluation) -> str:
        """Text that became another kind of text; what was so from the start is nobody's fault."""
        most, start = self.settings.max_repetition, self.loop.memory["start"]
        if now.repetition > most >= good.repetition:
            return f"repetition {now.repetition:.2f} of four-token runs, over guard.max_repetition = {most}"
        least = self.settings.min_distinct * start["distinct"]
        if now.distinct < least <= good.distinct:
            return (
                f"{now.distinct:.3f} of two-token runs are distinct, {start['distinct']:.3f} at the start: below "
                f"guard.min_distinct = {self.settings.min_distinct} of it"
            )
        most = self.settings.max_length_factor
        if _times(now.length, start["length"]) > most >= _times(good.length, start["length"]):
            return (
                f"{now.length:.1f} tokens a completion, {start['length']:.1f} at the start: more than "
                f"guard.max_length_factor = {most:g} times apart"
            )
        return ""

    def _chance(self, before: Sequence[float], after: Sequence[float]) -> float:
        """1 where there is nothing to compare."""
        differences = [b - a for a, b in zip(before, after, strict=True)]
        return chance_of_falling(differences, self.loop.config.run.seed) if differences else 1.0

    def _unmeasured(self, evaluation: Evaluation) -> int:
        return len(evaluation.score) - len(_finite(evaluation.values(self.price)))

    def _say_if_unmeasured(self, now: Evaluation) -> None:
        """Once a run: a scorer or judge that fails on a few texts is no reason to end it, but to look at them."""
        missing = self._unmeasured(now)
        if missing and "unmeasured" not in self.loop.memory:
            self.loop.memory["unmeasured"] = now.step
            self.loop.run.tell(
                "no number",
                f"the value of {missing} of {len(now.score)} held-out prompts at step {now.step} is no finite number: "
                "such prompts are left out of what is compared",
                step=now.step,
            )

    def _say_if_blind(self, prompts: int) -> None:
        """Of n prompts that all got worse, chance is still 1 in 2**n."""
        needed = math.floor(-math.log2(1 - self.settings.confidence)) + 1
        if self.settings.rollback and prompts < needed:
            self.loop.run.tell(
                "few",
                f"{prompts} held-out prompts can never show that a policy got worse at guard.confidence = "
                f"{self.settings.confidence}: that takes {needed}",
            )

    def _go_back(self, why: str, now: Evaluation) -> None:
        good, memory = self._held, self.loop.memory
        assert good is not None
        to = self.loop.roll_back()
        memory["rollbacks"] = memory.get("rollbacks", 0) + 1
        if self.settings.remedy == "raise-kl":
            memory["kl_coefficient"] = 2 * memory.get("kl_coefficient", self.price)
            change = f"KL coefficient now {memory['kl_coefficient']:.3g}"
        else:
            memory["lr_scale"] = memory.get("lr_scale", 1.0) / 2
            change = f"learning rate now {memory['lr_scale']:.3g} of its schedule"
        self.loop.run.tell(
            "rollback", f"step {now.step} is worse, back to the weights of step {to}: {why}; {change}",
            step=now.step, to=to, **now.metrics(),
        )  # fmt: skip

    def _stop(self, kind: str, why: str, now: Evaluation) -> None:
        self.loop.run.event(kind, why, step=now.step, **now.metrics())
        self.loop.stop(why)


def _times(a: float, b: float) -> float:
    """How many times as large the larger is."""
    return max(a, b) / max(min(a, b), 1e-9)


def _mean(values: Sequence[float]) -> float:
    """Of those that are numbers."""
    numbers = _finite(values)
    return sum(numbers) / len(numbers) if numbers else math.nan


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _both(before: Sequence[float], after: Sequence[float]) -> tuple[list[float], list[float]]:
    """Both, on the prompts where both are numbers."""
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if math.isfinite(a) and math.isfinite(b)]
    return [a for a, _ in pairs], [b for _, b in pairs]
