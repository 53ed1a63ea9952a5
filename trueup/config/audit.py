"""The settings of a reward model's audit: the conditions of its gate, and what may fail; and those of scoring."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from .schema import Count, Fraction, ModelSettings, Scoring, Table


class ScoreConfig(Table):
    """What reward models say of texts, and which of two is better: how objectives and members become one number."""

    stage: ClassVar[str] = "score"
    model: ModelSettings = ModelSettings()
    scoring: Scoring = Scoring()
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads, 0 for all cores")


class AuditConfig(Table):
    """How far a reward model can be trusted, measured on judgements, and what it must reach to be climbed by RL."""

    stage: ClassVar[str] = "audit"
    model: ModelSettings = ModelSettings()
    scoring: Scoring = Scoring()
    above_length: Fraction = Field(
        0.03, description="the accuracy's lower bound must beat preferring the longer (or shorter) one by this much"
    )
    slice_size: Count = Field(
        200, description="a slice of so many pairs or more must be foreseen better than by a coin"
    )
    length_correlation: Fraction = Field(
        0.3, description="correlation of score and length among the completions of a prompt must surely stay below this"
    )
    leaked: Fraction = Field(
        0.01, description="share of the judgements that may have their prompt or completions in the training set"
    )
    position: Fraction = Field(
        0.05, description="how far the share of pairs won by what was shown first may surely be from a half"
    )
    prompt_shift: Annotated[float, Field(ge=0.5, le=1)] = Field(
        0.8, description="how well the words may tell these prompts from the policy's: 0.5 not at all, 1 always"
    )
    overrides: tuple[str, ...] = Field((), description="conditions that may fail, by name; the report says which did")
    probes: Annotated[int, Field(ge=0)] = Field(
        200, description="pairs that are changed a little and scored again; 0 leaves it out"
    )
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads, 0 for all cores")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="decides everything random: redraws, probes, typos")
