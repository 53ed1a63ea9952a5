"""The settings of the stages that learn from judgements without a reward model in the loop: DPO, KTO, ILQL."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .schema import (
    Count,
    Fraction,
    GuardSettings,
    OptimizerSettings,
    Positive,
    PresetConfig,
    Sampling,
    Scoring,
)

_GENTLE = OptimizerSettings(lr=2e-5)


class DpoConfig(PresetConfig):
    """Direct preference optimisation: a policy from judgements of its completions, held near where it started."""

    stage: ClassVar[str] = "dpo"
    optimizer: OptimizerSettings = _GENTLE
    sampling: Sampling = Sampling()
    scoring: Scoring = Scoring()
    guard: GuardSettings = GuardSettings()
    loss: Literal["sigmoid", "ipo", "hinge"] = Field(
        "sigmoid",
        description="sigmoid: DPO; ipo: a gap to reach rather than one to widen for ever; hinge: until it is 1 / beta",
    )
    beta: Positive = Field(0.1, description="how strongly the policy is held to the reference; higher is nearer")
    wrong_share: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="share of judgements taken to be the wrong way round (conservative DPO)"
    )
    unbiased: bool = Field(
        False, description="use wrong_share in the form whose expected loss has no such mistakes (robust DPO)"
    )
    strength: Literal["ignore", "small-margin", "large-margin", "weight"] = Field(
        "ignore", description="what how much better (1 to 3) does: a margin of a third of it, of all of it, or a weight"
    )
    ties: Literal["skip", "half"] = Field("skip", description="leave ties out, or learn that neither is better")
    per_token: bool = Field(False, description="divide each log-ratio by its completion's length")
    sft_coefficient: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the better completion's own loss, a mean over its tokens; 1 is usual where used"
    )
    steps: Annotated[int, Field(ge=0)] = Field(0, description="optimizer steps; 0 means `epochs` over the data")
    epochs: Positive = Field(1.0, description="passes over the data when `steps` is 0")
    batch_size: Count = Field(16, description="prompts a step, each with all its judged completions")
    max_tokens: Annotated[int, Field(ge=0)] = Field(0, description="longest row; 0 takes the model's context")
    online: bool = Field(False, description="each step learn from new completions, scored as they come")
    samples_per_prompt: Annotated[int, Field(ge=2)] = Field(8, description="completions a prompt, in online rounds")
    pairs: Literal["extremes", "all"] = Field(
        "extremes", description="of a prompt's completions: the best against the worst, or every pair, in online rounds"
    )
    updates: Count = Field(1, description="optimizer steps on the completions of one online round")
    score_scale: Literal["reference", "running", "none"] = Field(
        "reference",
        description="mean 0, std 1 on samples of the reference, on all rounds so far, or scores as they are, in online "
        "rounds",
    )
    score_clip: Positive | None = Field(
        None, description="scores beyond this many units of the scale are cut to it, in online rounds"
    )
    missing_eos_score: float | None = Field(
        -1.0, description="score of a completion without EOS, none to keep its own, in online rounds"
    )


class KtoConfig(PresetConfig):
    """Kahneman-Tversky optimisation: a policy from thumbs, each on one completion by itself."""

    stage: ClassVar[str] = "kto"
    optimizer: OptimizerSettings = _GENTLE
    beta: Positive = Field(0.1, description="how strongly the policy is held to the reference; higher is nearer")
    up_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of a thumb up; 0 lets all ups weigh as much as all downs"
    )
    down_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of a thumb down; 0 lets all downs weigh as much as all ups"
    )
    sides_as_thumbs: bool = Field(
        False, description="read a comparison as a thumb up for its better side and one down for its worse side"
    )
    steps: Annotated[int, Field(ge=0)] = Field(0, description="optimizer steps; 0 means `epochs` over the data")
    epochs: Positive = Field(1.0, description="passes over the data when `steps` is 0")
    batch_size: Count = Field(16, description="prompts a step, each with all its judged completions")
    max_tokens: Annotated[int, Field(ge=0)] = Field(0, description="longest row; 0 takes the model's context")


class IlqlConfig(PresetConfig):
    """Implicit Q-learning on stored completions and their scores; the policy learns what its critic found better."""

    stage: ClassVar[str] = "ilql"
    optimizer: OptimizerSettings = _GENTLE
    scoring: Scoring = Scoring()
    gamma: Fraction = Field(1.0, description="discount of a token")
    lam: Fraction = Field(
        0.95, description="how far Q looks ahead: 0 to the value after the next token, 1 to the reward itself"
    )
    expectile: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        0.7, description="how near the value comes to the best of what was seen; 0.5 is the mean"
    )
    cql_coefficient: Annotated[float, Field(ge=0)] = Field(
        0.01, description="weight of the term that keeps Q low where no completion went"
    )
    polyak: Annotated[float, Field(gt=0, le=1)] = Field(
        0.05, description="how far the target of Q moves to the present Q in a step"
    )
    critic_coefficient: Positive = Field(1.0, description="weight of the critic's losses beside the policy's")
    critic_lr: Annotated[float, Field(ge=0)] = Field(
        5e-3, description="learning rate of the critic's heads; 0 is the optimizer's"
    )
    temperature: Positive = Field(
        0.15, description="of the weights exp(advantage / temperature): lower learns from less, the better part of it"
    )
    max_weight: Annotated[float, Field(ge=1)] = Field(20.0, description="largest of these weights")
    steps: Annotated[int, Field(ge=0)] = Field(0, description="optimizer steps; 0 means `epochs` over the data")
    epochs: Positive = Field(1.0, description="passes over the data when `steps` is 0")
    batch_size: Count = Field(16, description="prompts a step, each with all its completions")
    max_tokens: Annotated[int, Field(ge=0)] = Field(0, description="longest row; 0 takes the model's context")
    heldout: Fraction = Field(0.1, description="share of prompts kept for evaluation, where the data has no split")
