"""The settings of a trade-off: by which weights and floors completions are chosen, to see what objectives cost."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from .schema import ModelSettings, Scoring, Table


class TradeoffConfig(Table):
    """What one objective of a reward model costs another when the best completion of each prompt is chosen."""

    stage: ClassVar[str] = "tradeoff"
    model: ModelSettings = ModelSettings()
    scoring: Scoring = Scoring()
    weights: Annotated[int, Field(ge=2, le=101)] = Field(
        11, description="points of a frontier, evenly from one objective alone to the other alone"
    )
    floors: tuple[float, ...] = Field(
        (-1.0, -0.5, 0.0, 0.5, 1.0), description="floors to keep one objective above while the other decides"
    )
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads, 0 for all cores")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="decides the redraws of the intervals")
