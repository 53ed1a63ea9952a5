"""The settings of a collection: what people are asked about completions, and the rules of hand-out."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .audit import AuditConfig, ScoreConfig
from .schema import Count, Fraction, Table
from .stages import STAGES
from .tradeoff import TradeoffConfig

TaskKind = Literal["pair", "ranking", "rating", "thumbs", "edit"]
Rationale = Literal["no", "optional", "required", "when strong or flagged"]
NonNegative = Annotated[int, Field(ge=0)]
THUMB = "thumb"  # the axis under which thumbs are stored
MOST_LEVELS = 100
SHARED = 3  # people on a calibration item: with fewer, nobody has a consensus of others to be compared with


class Axis(Table):
    """One scale of a rating: every completion gets a whole number from `low` to `high` on it."""

    name: str = Field("", description="short name, such as helpfulness; every axis needs one of its own")
    question: str = Field("", description="what is asked, beside the name")
    low: int = Field(1, description="lowest number")
    high: int = Field(7, description="highest number")
    anchors: dict[int, str] = Field({}, description="what a number means: 1 = 'useless', 7 = 'perfect'")


class CollectionConfig(Table):
    """What people are asked, and who is handed what. A judgement is a vote on one item: a prompt with completions."""

    stage: ClassVar[str] = "collection"
    task: TaskKind = Field("pair", description="what people do with the completions of a prompt")
    question: str = Field("Which answer is better?", description="the question above them")
    criteria: tuple[str, ...] = Field((), description="what to look at, one line each")
    axes: tuple[Axis, ...] = Field(
        (), description="the scales of a rating, as [[axes]] tables; none: one, overall, from 1 to 7"
    )
    ties: bool = Field(True, description="equally good is an answer (pair and ranking)")
    both_bad: bool = Field(True, description="both bad is an answer; it makes no training pair (pair)")
    strength: bool = Field(True, description="how much better, from 1 to 3, not only which (pair)")
    rationale: Rationale = Field("optional", description="whether to ask for the reason, in words")
    overlap: Count = Field(1, description="people who judge each item")
    calibration_share: Fraction = Field(
        0.15, description=f"share of items that go to at least {SHARED} people (within max_overlap): agreement needs it"
    )
    max_overlap: Count = Field(5, description="most people an item may be topped up to when it stays undecided")
    lease_minutes: Count = Field(30, description="how long an item is kept for whoever opened it")
    gold_every: NonNegative = Field(0, description="about one hidden gold in so many items, at random places; 0: none")
    control_every: NonNegative = Field(
        0, description="about one control in so many items: everybody judges the same ones, to notice drift; 0: none"
    )
    qualification: NonNegative = Field(0, description="items with known answers before any work is given; 0: none")
    qualification_pass: Fraction = Field(0.75, description="share of them to get right; of the last ones, if repeated")
    repeat_share: Fraction = Field(0.02, description="share of own items shown again later with sides swapped")
    quarantine_after: Count = Field(3, description="people who have to skip an item before nobody gets it any more")
    warning: str = Field("", description="content warning, shown before the work begins")
    sensitive: tuple[str, ...] = Field(
        (), description="words and categories of prompts; what has one stays covered until the person asks to see it"
    )
    per_day: NonNegative = Field(0, description="most judgements of a person in a day (UTC); 0: no limit")
    help_share: Fraction = Field(
        0.5,
        description="of the judgements of items that helpers say something about, the share for which it is shown; "
        "chance decides, once for each item and person, and those without help are what the others are compared with",
    )
    help_open: bool = Field(True, description="what helpers say stands open below the texts; else a person opens it")

    @property
    def scales(self) -> tuple[Axis, ...]:
        """What a rating asks: the axes, or the one that stands for none. Empty for the other tasks."""
        return (self.axes or (Axis(name="overall"),)) if self.task == "rating" else ()

    @property
    def calibration_overlap(self) -> int:
        return max(self.overlap, min(SHARED, self.max_overlap))


CONFIGS: dict[str, type[Table]] = {
    **STAGES, AuditConfig.stage: AuditConfig, TradeoffConfig.stage: TradeoffConfig, ScoreConfig.stage: ScoreConfig,
    CollectionConfig.stage: CollectionConfig,
}  # fmt: skip


def sound_axes(config: CollectionConfig) -> bool:
    """Names of their own, levels upwards and not too many, anchors on levels that exist."""
    names = {axis.name.strip() for axis in config.axes} - {"", THUMB}
    return len(names) == len(config.axes) and all(
        0 < axis.high - axis.low < MOST_LEVELS and all(axis.low <= level <= axis.high for level in axis.anchors)
        for axis in config.axes
    )
