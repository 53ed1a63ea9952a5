"""trueup: the human-feedback loop of language models, from a base model to one tuned on people's preferences.

Importing this package is cheap: torch loads when a stage runs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
IMPORTED = time.time()

_EXPORTS = {
    **dict.fromkeys(
        ("pretrain", "sft", "sample", "reward", "rl", "dpo", "kto", "ilql", "winrate", "safety", "compare", "resume",
         "add_data", "join_data", "show_data", "export_data", "make_world", "simulate", "collect", "status", "retrain",
         "ensemble", "export", "plan", "environment", "demo"),
        "api",
    ),
    **dict.fromkeys(("audit", "compare_rewards", "score", "tradeoff"), "auditing"),
    "contrast_data": "contrasting",
    **dict.fromkeys(
        ("PretrainConfig", "SftConfig", "SampleConfig", "RewardConfig", "RlConfig", "DpoConfig", "KtoConfig",
         "IlqlConfig", "WinrateConfig", "SafetyConfig", "CompareConfig", "CollectionConfig",
         "AuditConfig", "TradeoffConfig", "ModelSettings", "Objective", "OptimizerSettings", "RunSettings",
         "PromptSettings", "Architecture", "Sampling", "Scoring"),
        "config",
    ),
    **dict.fromkeys(("Message", "Prompt", "Completion", "Demonstration", "Judgement", "Score"), "records"),
    **dict.fromkeys(("Engine", "Scorer", "Judge"), "ports"),
    **dict.fromkeys(("Artifact", "Workspace"), "store"),
    "reject": "rejecting",
    "doctor": "runs.doctor",
    "report": "reporting",
    "overopt": "climbing",
    "ship": "kept_models",
    "Run": "runs",
    "TrueupError": "errors",
}  # fmt: skip

if TYPE_CHECKING:
    from .api import (
        add_data,
        collect,
        compare,
        demo,
        dpo,
        ensemble,
        environment,
        export,
        export_data,
        ilql,
        join_data,
        kto,
        make_world,
        plan,
        pretrain,
        resume,
        retrain,
        reward,
        rl,
        safety,
        sample,
        sft,
        show_data,
        simulate,
        status,
        winrate,
    )
    from .auditing import audit, compare_rewards, score, tradeoff
    from .climbing import overopt
    from .config import (
        Architecture,
        AuditConfig,
        CollectionConfig,
        CompareConfig,
        DpoConfig,
        IlqlConfig,
        KtoConfig,
        ModelSettings,
        Objective,
        OptimizerSettings,
        PretrainConfig,
        PromptSettings,
        RewardConfig,
        RlConfig,
        RunSettings,
        SafetyConfig,
        SampleConfig,
        Sampling,
        Scoring,
        SftConfig,
        TradeoffConfig,
        WinrateConfig,
    )
    from .contrasting import contrast_data
    from .errors import TrueupError
    from .kept_models import ship
    from .ports import Engine, Judge, Scorer
    from .records import Completion, Demonstration, Judgement, Message, Prompt, Score
    from .rejecting import reject
    from .reporting import report
    from .runs import Run
    from .runs.doctor import doctor
    from .store import Artifact, Workspace

__all__ = [*sorted(_EXPORTS), "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'trueup' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    # A submodule called like its stage (`trueup.demo`) would otherwise hide the function after its first import.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
