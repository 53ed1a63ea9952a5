"""`trueup train`: the stages that change weights. Inputs are options, settings come from the stage's config class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..config import RewardConfig, RlConfig, Table
from .command import Group, Result, reward_option, workspace
from .settings import Function, stage_settings
from .text import artifact_data, artifact_line, named


@click.group(
    cls=Group,
    examples="""
    trueup train sft --base HuggingFaceTB/SmolLM2-135M --data demos --name sft
    trueup train reward --base sft --data votes --name judge
    trueup train rl --policy sft --reward judge --prompts posts --dry-run
    trueup train dpo --policy sft --data votes --name tuned
    """,
)
def train() -> None:
    """Train models: from scratch, on demonstrations, on judgements, against a reward model."""


def _input(name: str, about: str) -> Callable[[Function], Function]:
    return click.option(f"--{name}", required=True, metavar="ID", help=about)


def _common(function: Function) -> Function:
    function = click.option("--name", default="", help="A name for the artifact, to use in place of its id.")(function)
    return click.option(
        "--dry-run", is_flag=True, help="Print the effective config, what would be made and its memory; train nothing."
    )(function)


def _train(stage: str, inputs: dict[str, Any], config: Table, name: str, dry_run: bool) -> Result:
    from .. import api
    from ..inputs import by_role

    with workspace() as ws:
        if dry_run:
            plan = api.plan(ws, stage, by_role(inputs), config)
            return Result(plan, named(plan))
        artifact = getattr(api, stage)(ws, **inputs, config=config, name=name)
        return Result(artifact_data(artifact, ws.names()), artifact_line(artifact, name))


@train.command(
    "pretrain",
    examples="""
    trueup train pretrain --data posts --name base
    trueup train pretrain --data posts --set architecture.layers=6 --steps 1000 --dry-run
    """,
)
@_input("data", "Demonstrations: their prompts and completions are both learnt.")
@_common
@stage_settings("pretrain")
def pretrain(data: str, config: Table, **rest: Any) -> Result:
    """Train a small Llama-style model and its tokenizer from scratch."""
    return _train("pretrain", {"data": data}, config, **rest)


@train.command(
    "sft",
    examples="""
    trueup train sft --base HuggingFaceTB/SmolLM2-135M --data demos --name sft
    trueup train sft --base ./my-model --data demos --epochs 2 --set model.adapter=lora
    """,
)
@_input("base", "The model to start from: an artifact, a folder or a hub id.")
@_input("data", "Demonstrations.")
@_common
@stage_settings("sft")
def sft(base: str, data: str, config: Table, **rest: Any) -> Result:
    """Fine-tune a model on demonstrations; the loss is on completions only."""
    return _train("sft", {"base": base, "data": data}, config, **rest)


@train.command(
    "reward",
    examples="""
    trueup train reward --base sft --data votes --name judge
    trueup train reward --base sft --data votes --kind features --epochs 2
    trueup train reward --base sft --data votes --members 4 --patience 3 --wrong-share 0.1
    trueup train reward --base sft --data rated --set objectives='["helpful", "harmless"]'
    """,
)
@_input("base", "The model to start from, usually the SFT policy.")
@_input("data", "Preferences.")
@click.option("--features", metavar="ID", help="With --kind features: whose likelihoods it reads; else the base's own.")
@click.option(
    "--reference", metavar="ID", help="Completions or demonstrations on which scores get mean 0, std 1; else the data."
)
@_common
@stage_settings("reward")
def reward(
    base: str, data: str, features: str | None, reference: str | None, config: RewardConfig, **rest: Any
) -> Result:
    """Train a reward model on judgements."""
    if features is not None and config.kind != "features":
        raise click.UsageError("--features has a meaning only with --kind features")
    optional = {"features": features, "reference": reference}
    inputs = {"base": base, "data": data} | {role: ref for role, ref in optional.items() if ref is not None}
    return _train("reward", inputs, config, **rest)


@train.command(
    "rl",
    examples="""
    trueup train rl --policy sft --reward judge --prompts posts --name tuned
    trueup train rl --policy sft --reward judge --prompts posts --config rl.toml --kl-coefficient 0.05
    trueup train rl --policy sft --reward judge --prompts posts --estimator rloo --judge other-judge
    trueup train rl --policy sft --reward ./rules.py:brevity --prompts posts
    trueup train rl --policy sft --reward help=judge --reward short=./rules.py:brevity --prompts posts
    """,
)
@_input("policy", "The policy to improve; a frozen copy of it is the reference.")
@reward_option("What scores completions", required=True)
@_input("prompts", "The prompts that the policy answers while it learns.")
@click.option("--judge", metavar="ID", help="A scorer kept out of training, to see whether the other is gamed.")
@click.option("--demonstrations", metavar="ID", help="Learnt beside the scores, with --sft-coefficient.")
@_common
@stage_settings("rl")
def rl(
    policy: str,
    reward: tuple[str, ...],
    prompts: str,
    judge: str | None,
    demonstrations: str | None,
    config: RlConfig,
    **rest: Any,
) -> Result:
    """Improve a policy against a reward model by reinforcement learning, held near the policy it started from."""
    from ..inputs import named_scorers

    optional = {"judge": judge, "demonstrations": demonstrations}
    inputs = {"policy": policy, "reward": named_scorers(reward), "prompts": prompts}
    inputs |= {role: ref for role, ref in optional.items() if ref is not None}
    return _train("rl", inputs, config, **rest)


@train.command(
    "dpo",
    examples="""
    trueup train dpo --policy sft --data votes --name tuned
    trueup train dpo --policy sft --data votes --loss ipo --beta 0.3
    trueup train dpo --policy sft --online --reward judge --prompts posts --steps 40
    trueup train dpo --policy sft --online --reward ./rules.py:brevity --prompts posts --judge other-judge
    """,
)
@_input("policy", "The policy to improve; what it is at the start is the reference.")
@click.option("--data", metavar="ID", help="Preferences; without --online.")
@reward_option("With --online, what scores completions")
@click.option("--prompts", metavar="ID", help="With --online: the prompts that the policy answers while it learns.")
@click.option("--judge", metavar="ID", help="With --online: a scorer kept out of training, to see whether it is gamed.")
@_common
@stage_settings("dpo")
def dpo(
    policy: str,
    data: str | None,
    reward: tuple[str, ...],
    prompts: str | None,
    judge: str | None,
    config: Table,
    **rest: Any,
) -> Result:
    """Improve a policy on judgements without a reward model (DPO), or on its own completions in online rounds."""
    from ..inputs import named_scorers

    optional = {"data": data, "reward": named_scorers(reward), "prompts": prompts, "judge": judge}
    inputs = {"policy": policy} | {role: ref for role, ref in optional.items() if ref is not None}
    return _train("dpo", inputs, config, **rest)


@train.command(
    "kto",
    examples="""
    trueup train kto --policy sft --data thumbs --name tuned
    trueup train kto --policy sft --data votes --sides-as-thumbs
    """,
)
@_input("policy", "The policy to improve; what it is at the start is the reference.")
@_input("data", "Thumbs, or preferences whose sides are read as thumbs.")
@_common
@stage_settings("kto")
def kto(policy: str, data: str, config: Table, **rest: Any) -> Result:
    """Improve a policy on thumbs, each given to one completion by itself (KTO)."""
    return _train("kto", {"policy": policy, "data": data}, config, **rest)


@train.command(
    "ilql",
    examples="""
    trueup train ilql --policy sft --data drafts --reward judge --name tuned
    trueup train ilql --policy sft --data votes
    """,
)
@_input("policy", "The policy to improve.")
@_input("data", "Completions, preferences or thumbs.")
@reward_option("What scores the data, once, where the data does not say it")
@_common
@stage_settings("ilql")
def ilql(policy: str, data: str, reward: tuple[str, ...], config: Table, **rest: Any) -> Result:
    """Improve a policy on stored completions and their scores, without sampling (implicit Q-learning)."""
    from ..inputs import named_scorers

    inputs = {"policy": policy, "data": data} | ({"reward": named_scorers(reward)} if reward else {})
    return _train("ilql", inputs, config, **rest)
