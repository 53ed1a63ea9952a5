"""Is one of two measured the same way lower than the other, or is it chance?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_DRAWS = 4000


def chance_of_falling(differences: ArrayLike, seed: int = 0) -> float:
    """The chance that a mean at least this low comes about if each difference may as well have the other sign.

    A sign-flip test: it asks nothing of how the differences are spread, and with few of them it can never be sure
    (4 differences: 1/16 at best).
    """
    found = np.asarray(differences, dtype=float)
    assert found.ndim == 1 and len(found) > 0
    if not np.isfinite(found).all():
        return 0.0  # what is no number is as low as it gets
    if len(found) <= 12:
        signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * len(found))).reshape(len(found), -1).T
        return float((signs @ found <= found.sum() + 1e-12 * np.abs(found).sum()).mean())
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(_DRAWS, len(found)))
    return float((1 + (signs @ found <= found.sum()).sum()) / (1 + _DRAWS))
