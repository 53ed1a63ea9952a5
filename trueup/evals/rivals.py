"""Two reward models on the same judgements: which foresees more, and on which pairs they part.

With a higher-level model as `b` (one that learnt from judges who had help), this checks the lower one: `opposed` are
the pairs that `b` orders the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ports import Scorer
from ..records import Judgement
from ..stats.comparing import compare_accuracy
from ..stats.intervals import Floats
from .scored import Advance, Pairs, pairs_of, score_all, values
from .slices import share

SHOWN = 10


def compare_scorers(
    a: Scorer,
    b: Scorer,
    judgements: Sequence[Judgement],
    *,
    advance: Advance = lambda n: None,
    seed: int = 0,
    shown: int = SHOWN,
) -> dict[str, Any]:
    """Accuracies and their difference by paired bootstrap over prompts, McNemar's test, and where they part most.

    `shown` is how many pairs are listed: of all (`apart`), and of those that the two order differently (`opposed`).
    """
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
        "apart": _listed(pairs, gap_a, gap_b, shown),
        "opposed": _opposed(pairs, gap_a, gap_b, seed, shown),
    }


def _opposed(pairs: Pairs, gap_a: Floats, gap_b: Floats, seed: int, shown: int) -> dict[str, Any]:
    """What the two order differently: how often B is the one that agrees with the judges, whether A goes by length,
    and the pairs themselves, those first on which the two are surest."""
    against = gap_a * gap_b < 0
    kept, a, b = pairs.where(against), gap_a[against], gap_b[against]
    right = (np.sign(b) == np.sign(kept.target - 0.5)).astype(float)
    length = np.array([len(completion.text) for completion in pairs.completions], dtype=float)
    longer = np.sign(kept.gap(length))
    uneven = longer != 0
    took_longer = (np.sign(a) == longer)[uneven].astype(float)
    return {
        "n": kept.n,
        "b_right": share(right, kept.prompt, seed=seed),
        "a_takes_longer": share(took_longer, kept.prompt[uneven], seed=seed),
        "pairs": _listed(kept, a, b, shown),
    }


def _listed(pairs: Pairs, gap_a: Floats, gap_b: Floats, shown: int) -> list[dict[str, Any]]:
    """The pairs on which two models are furthest apart."""
    order = np.argsort(-np.abs(gap_a - gap_b), kind="stable")
    return [_apart(pairs, int(row), gap_a, gap_b) for row in order[:shown]]


def _apart(pairs: Pairs, row: int, gap_a: Floats, gap_b: Floats) -> dict[str, Any]:
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
