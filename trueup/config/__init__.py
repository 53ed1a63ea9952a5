"""Typed settings: the only place one is declared (`schema`) and the way one is read (`load`)."""

from .audit import AuditConfig
from .collection import CONFIGS, Axis, CollectionConfig, TaskKind
from .describe import as_toml, reference
from .keys import flat
from .load import check, load
from .schema import (
    STAGES,
    Architecture,
    ModelSettings,
    Objective,
    OptimizerSettings,
    PretrainConfig,
    PromptSettings,
    RewardConfig,
    RlConfig,
    RunSettings,
    SampleConfig,
    Sampling,
    Scoring,
    SftConfig,
    StageConfig,
    Table,
    WinrateConfig,
)

__all__ = [
    "CONFIGS",
    "STAGES",
    "Architecture",
    "AuditConfig",
    "Axis",
    "CollectionConfig",
    "ModelSettings",
    "Objective",
    "OptimizerSettings",
    "PretrainConfig",
    "PromptSettings",
    "RewardConfig",
    "RlConfig",
    "RunSettings",
    "SampleConfig",
    "Sampling",
    "Scoring",
    "SftConfig",
    "StageConfig",
    "Table",
    "TaskKind",
    "WinrateConfig",
    "as_toml",
    "check",
    "flat",
    "load",
    "reference",
]
