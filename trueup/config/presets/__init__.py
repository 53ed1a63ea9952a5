"""Settings for a size of model, to start from. Beside each value stands where it is from: measured here, or published.

One file a preset, one table a stage; `[rl.estimator.rloo]` holds what that estimator wants otherwise. `load` lays the
values below everything else that is set.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from ..keys import flat


def values(name: str, stage: str, estimator: str = "") -> Mapping[str, Any]:
    """What a preset sets in a stage, by dotted key."""
    found = tomllib.loads(text(name))[stage]
    by_estimator = found.pop("estimator", {})
    return flat(found) | flat(by_estimator.get(estimator, {}))


def text(name: str) -> str:
    """The file as it is shipped, with its sources."""
    return resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
