"""Fakes of the three ports, for tests of what stands around a model: swap the model, keep everything else real."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

from ..config import Sampling
from ..records import Completion, Judgement, Prompt, Score


class FakeEngine:
    """Writes what `write(prompt, random)` says; every token has the same log-probability."""

    def __init__(self, write: Callable[[Prompt, Random], str] | None = None, logprob: float = -1.0) -> None:
        self.write = write or (lambda prompt, random: f"answer {random.randrange(100)}")
        self.logprob = logprob

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int, n: int = 1) -> list[Completion]:
        return [
            self._complete(prompt, Random(f"{seed}/{i}/{k}"), sampling)
            for i, prompt in enumerate(prompts)
            for k in range(n)
        ]

    def logprobs(self, completions: Sequence[Completion], temperature: float = 1.0) -> list[list[float]]:
        return [[self.logprob] * len(self._tokens(completion.text)) for completion in completions]

    def _complete(self, prompt: Prompt, random: Random, sampling: Sampling) -> Completion:
        text = self.write(prompt, random)
        tokens = self._tokens(text)
        kept = tokens[: sampling.max_new_tokens]
        cut = text.encode()[: len(kept)].decode(errors="ignore") if len(kept) < len(tokens) else text
        return Completion(prompt, cut, kept, (self.logprob,) * len(kept), len(kept) == len(tokens), "fake")

    @staticmethod
    def _tokens(text: str) -> tuple[int, ...]:
        return tuple(text.encode())


class FakeScorer:
    """Any function of a completion as a `Scorer`."""

    def __init__(self, value: Callable[[Completion], float]) -> None:
        self.value = value

    def score(self, completions: Sequence[Completion]) -> list[Score]:
        return [Score(float(self.value(completion))) for completion in completions]


class FakeJudge:
    """Ranks by a function of a completion, without noise; equal values tie."""

    def __init__(self, value: Callable[[Completion], float], name: str = "fake") -> None:
        self.value, self.name = value, name

    def judge(self, items: Iterable[Sequence[Completion]]) -> Iterator[Judgement]:
        for item in items:
            values = [self.value(completion) for completion in item]
            places = {value: place for place, value in enumerate(sorted(set(values), reverse=True), start=1)}
            yield Judgement(
                item[0].prompt, tuple(c.text for c in item), tuple(places[v] for v in values), self.name, "rule"
            )
