"""The stages by name, each with its config class."""

from __future__ import annotations

from .offline import DpoConfig, IlqlConfig, KtoConfig
from .schema import (
    CompareConfig,
    PretrainConfig,
    RewardConfig,
    RlConfig,
    SafetyConfig,
    SampleConfig,
    SftConfig,
    Table,
    WinrateConfig,
)

STAGES: dict[str, type[Table]] = {
    c.stage: c
    for c in (
        *(PretrainConfig, SftConfig, SampleConfig, RewardConfig, RlConfig),
        *(DpoConfig, KtoConfig, IlqlConfig, WinrateConfig, SafetyConfig, CompareConfig),
    )
}
