"""Typed settings: the only place one is declared (`schema`) and the way one is read (`load`)."""

from .describe import as_toml, reference
from .keys import flat
from .load import check, load
from .schema import (
    STAGES,
    Architecture,
    ModelSettings,
    OptimizerSettings,
    PretrainConfig,
    PromptSettings,
    RewardConfig,
    RlConfig,
    RunSettings,
    SampleConfig,
    Sampling,
    SftConfig,
    StageConfig,
    Table,
    WinrateConfig,
)

__all__ = [
    "STAGES",
    "Architecture",
    "ModelSettings",
    "OptimizerSettings",
    "PretrainConfig",
    "PromptSettings",
    "RewardConfig",
    "RlConfig",
    "RunSettings",
    "SampleConfig",
    "Sampling",
    "SftConfig",
    "StageConfig",
    "Table",
    "WinrateConfig",
    "as_toml",
    "check",
    "flat",
    "load",
    "reference",
]
