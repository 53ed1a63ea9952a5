"""Typed settings: the only place one is declared (`schema`) and the way one is read (`load`)."""

from .audit import AuditConfig
from .collection import CONFIGS, Axis, CollectionConfig, TaskKind
from .describe import as_toml, reference
from .keys import flat
from .load import check, load
from .offline import DpoConfig, IlqlConfig, KtoConfig
from .schema import (
    Architecture,
    AskSettings,
    CompareConfig,
    GuardSettings,
    ModelSettings,
    Objective,
    OptimizerSettings,
    PretrainConfig,
    PromptSettings,
    RemoteSettings,
    RewardConfig,
    RlConfig,
    RunSettings,
    SafetyConfig,
    SampleConfig,
    Sampling,
    Scoring,
    SftConfig,
    StageConfig,
    Table,
    WinrateConfig,
)
from .stages import STAGES
from .tradeoff import TradeoffConfig

__all__ = [
    "CONFIGS",
    "STAGES",
    "Architecture",
    "AskSettings",
    "AuditConfig",
    "Axis",
    "CollectionConfig",
    "CompareConfig",
    "DpoConfig",
    "GuardSettings",
    "IlqlConfig",
    "KtoConfig",
    "ModelSettings",
    "Objective",
    "OptimizerSettings",
    "PretrainConfig",
    "PromptSettings",
    "RemoteSettings",
    "RewardConfig",
    "RlConfig",
    "RunSettings",
    "SafetyConfig",
    "SampleConfig",
    "Sampling",
    "Scoring",
    "SftConfig",
    "StageConfig",
    "Table",
    "TaskKind",
    "TradeoffConfig",
    "WinrateConfig",
    "as_toml",
    "check",
    "flat",
    "load",
    "reference",
]
