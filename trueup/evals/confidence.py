"""Whether sigmoid(score difference) is the chance that a judge agrees, before and after one fitted temperature.

A pair has no first side by nature, so each is turned to the side that the scorer prefers: its confidence is 0.5 to 1,
and what it should foresee is how often judges agree with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..stats import calibration
from ..stats.intervals import Floats
from .scored import Pairs

SURE_OF_A_HALF = 0.5


def calibrate(pairs: Pairs, score: Floats, *, scale: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """`scale` times a score is in the logits that training made; scores may have been normalised since.

    The temperature of one half of the prompts is applied to the other, and the other way round, so what is reported
    after it was never fitted on the same pairs.
    """
    decided = pairs.decided
    logit = scale * score
    before = _measured(decided, logit, np.ones(decided.n), seed)
    half = np.random.default_rng(seed).permutation(int(decided.prompt.max()) + 1)[decided.prompt] % 2
    fitted = [_temperature(decided, logit, half == side) for side in (0, 1)]
    after = _measured(decided, logit, np.where(half == 0, fitted[1], fitted[0]), seed + 1)
    whole = _temperature(decided, logit, np.ones(decided.n, dtype=bool))
    return {
        "n": decided.n,
        **before,
        "coin": {"nll": float(np.log(2)), "brier": 0.25},
        "temperature": whole,
        "of_halves": fitted,
        "too": "confident" if whole > 1 else "timid",
        "after": after,
    }


def _temperature(pairs: Pairs, logit: Floats, rows: Any) -> float:
    """1 where there is nothing to fit it on: a half without prompts."""
    if not rows.any():
        return 1.0
    return calibration.fit_temperature(pairs.gap(logit)[rows], pairs.target[rows])


def _measured(pairs: Pairs, logit: Floats, temperature: Floats, seed: int) -> dict[str, Any]:
    margin = pairs.gap(logit) / temperature
    side = np.where(margin >= 0, 1.0, -1.0)
    sure = calibration.sigmoid(np.abs(margin))
    agreed = np.where(side > 0, pairs.target, 1 - pairs.target)
    agreed[margin == 0] = SURE_OF_A_HALF  # the scorer prefers no side: nothing was foreseen

    def draw(random: np.random.Generator) -> Floats:
        """Judges as the scorer sees them: Gumbel noise on every completion gives each pair its very probability, and
        the pairs of one ranking hang together as they do in rankings."""
        noise = random.gumbel(size=int(pairs.starts[-1]))
        won = margin + noise[pairs.first_slot] - noise[pairs.second_slot] > 0
        drawn = np.where(side > 0, won, ~won).astype(float)
        drawn[margin == 0] = SURE_OF_A_HALF
        return drawn

    found: dict[str, Any] = {
        "nll": calibration.nll(margin, pairs.target),
        "brier": calibration.brier(sure, agreed),
        "ece": calibration.ece(sure, agreed, low=SURE_OF_A_HALF),
    }
    null = calibration.null(sure, low=SURE_OF_A_HALF, seed=seed, draw=draw)
    bins = calibration.reliability(sure, agreed, low=SURE_OF_A_HALF)
    mass = calibration.null(sure, low=SURE_OF_A_HALF, mass=True, seed=seed, draw=draw)
    by_mass = calibration.ece(sure, agreed, low=SURE_OF_A_HALF, mass=True)
    return found | {
        "null": null.to_json(),
        "miscalibrated": bool(found["ece"] > null.high),
        "equal_mass": {"ece": by_mass, "null": mass.to_json(), "miscalibrated": bool(by_mass > mass.high)},
        "reliability": [{**each.to_json(), "null": list(band)} for each, band in zip(bins, null.bands, strict=True)],
    }
