"""How often a reward model agrees with judgements it has not seen, and how often anything could."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..ports import Scorer
from ..records import Completion, Judgement
from ..stats.preference import accuracy, ceiling, judged_pairs


def evaluate_reward(
    scorer: Scorer,
    judgements: Sequence[Judgement],
    gold: Scorer | None = None,
    p_true: Callable[[Judgement], list[float]] | None = None,
) -> dict[str, Any]:
    """Accuracy on held-out judgements with an interval clustered by prompt.

    `ceiling` is the expected accuracy of the judges' true vote probability where that is known (simulated people),
    else None. `gold_accuracy` is agreement with the gold score on the same pairs, where there is one.
    """
    completions = [as_completions(judgement) for judgement in judgements]
    scores = _scores(scorer, completions)
    margins, targets, prompts = judged_pairs(judgements, scores)
    found = accuracy(margins, targets, prompts)
    result: dict[str, Any] = {"accuracy": found.value, "ci": list(found.ci), "n": found.n, "ceiling": None}
    if p_true is not None:
        chances = [p for judgement in judgements for p in p_true(judgement)]
        counted = [i for i, target in enumerate(targets) if target != 0.5]
        best = ceiling([chances[i] for i in counted], [prompts[i] for i in counted])
        result |= {"ceiling": best.value, "ceiling_ci": list(best.ci)}
    if gold is not None:
        truth, _, _ = judged_pairs(judgements, _scores(gold, completions))
        by_gold = accuracy(margins, (truth > 0) * 1.0 + (truth == 0) * 0.5, prompts)
        result |= {"gold_accuracy": by_gold.value, "gold_ci": list(by_gold.ci), "gold_n": by_gold.n}
    return result


def evaluate_objectives(
    scorer: Scorer, judgements: Sequence[Judgement], objectives: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Accuracy of each named objective on the judgements that speak of it; `parts` of a score hold the objectives."""
    speaking = [j for j in judgements if any(j.pairs_on(name) for name in objectives)]
    scores = iter(scorer.score([c for j in speaking for c in as_completions(j)]))
    parts = [[next(scores).parts for _ in j.completions] for j in speaking]
    found = {}
    for name in objectives:
        rows = [
            (part[i][name] - part[j][name], target, judgement.prompt.id)
            for judgement, part in zip(speaking, parts, strict=True)
            for i, j, target in judgement.pairs_on(name)
        ]
        margins, targets, prompts = zip(*rows, strict=True) if rows else ((), (), ())
        found[name] = accuracy(np.array(margins), np.array(targets), list(prompts)).to_json()
    return found


def as_completions(judgement: Judgement) -> list[Completion]:
    finished = judgement.meta.get("finished") or [True] * len(judgement.completions)
    return [
        Completion(judgement.prompt, text, finished=end)
        for text, end in zip(judgement.completions, finished, strict=True)
    ]


def _scores(scorer: Scorer, groups: Sequence[Sequence[Completion]]) -> list[list[float]]:
    scores = iter(scorer.score([completion for group in groups for completion in group]))
    return [[next(scores).value for _ in group] for group in groups]
