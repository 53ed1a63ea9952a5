"""Two reward models on the same judgements: which foresees more, and on which pairs they part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ports import Scorer
from ..records import Judgement
from ..stats.comparing import compare_accuracy
from .scored import Advance, pairs_of, score_all, values
from .slices import share

SHOWN = 10


def compare_scorers(
    a: Scorer, b: Scorer, judgements: Sequence[Judgement], *, advance: Advance = lambda n: None, seed: int = 0
) -> dict[str, Any]:
    """Accuracies and their difference by paired bootstrap over prompts, McNemar's test, and where they part most."""
    pairs = pairs_of(judgements).decided
    score_a, score_b = (values(score_all(scorer, pairs.completions, advance)) for scorer in (a, b))
    gap_a, gap_b = (pairs.gap(score) / (float(score.std()) or 1.0) for score in (score_a, score_b))
    paired = compare_accuracy(gap_a, gap_b, pairs.target, pairs.prompt, seed=seed)
    same = np.sign(gap_a) == np.sign(gap_b)
    return {
        **paired.to_json(),
        "a": share(pairs.points(score_a), pairs.prompt, seed=seed),
        "b": share(pairs.points(score_b), pairs.prompt, seed=seed),
        "n": pairs.n,
        "same_order": float(same.mean()),
        "apart": [
            _apart(pairs, row, gap_a, gap_b) for row in np.argsort(-np.abs(gap_a - gap_b), kind="stable")[:SHOWN]
        ],
    }


def _apart(pairs: Any, row: int, gap_a: Any, gap_b: Any) -> dict[str, Any]:
    """One pair, its preferred completion first; margins in standard deviations of each model's scores."""
    better, worse = pairs.completions[pairs.better()[row]], pairs.completions[pairs.worse()[row]]
    sign = 1.0 if pairs.target[row] > 0.5 else -1.0
    return {
        "prompt": better.prompt.text,
        "chosen": better.text,
        "rejected": worse.text,
        "judge": pairs.judgements[pairs.of[row]].judge,
        "margin_a": float(sign * gap_a[row]),
        "margin_b": float(sign * gap_b[row]),
    }
