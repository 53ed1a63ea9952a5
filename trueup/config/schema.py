"""Every setting of every stage, declared once. TOML keys, command-line flags, docs and validation all come from here.

Shared tables ([model], [sampling], [scoring], [optimizer], [value], [guard], [run]) are declared once and reused; a
stage's own table holds only what is its own. A field's `description` is its documentation.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Preset = Literal["none", "tiny", "tiny-lora", "100m-lora", "100m-full", "1b-lora", "1b-full", "7b-lora", "7b-full"]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSettings(Table):
    """How the base model is loaded and which of its weights are trained."""

    adapter: Literal["auto", "none", "lora"] = Field(
        "auto", description="what is trained: everything (none), LoRA adapters, or auto: LoRA above 100M parameters"
    )
    lora_rank: Count = Field(16, description="rank of the LoRA matrices, on every linear layer of the trunk")
    lora_alpha: Positive = Field(32.0, description="LoRA scale: the update is multiplied by alpha / rank")
    quantise: Literal["none", "int8", "nf4"] = Field(
        "none", description="the frozen base under LoRA in 8 or 4 bits; nf4 needs the extra 'quant'"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where to compute; auto takes a GPU if there is")
    dtype: Literal["auto", "float32", "bfloat16", "fastest"] = Field(
        "auto",
        description="compute type; auto is float32 on CPU, bfloat16 on a GPU that has it; fastest measures which of "
        "the two multiplies faster here, once, when the run begins. Weights that learn are kept in float32 beside",
    )
    trust_remote_code: bool = Field(False, description="run Python code shipped with a model; only for code you read")


class Architecture(Table):
    """The model that pretraining makes from scratch: a Llama, or a Qwen3, which is one that normalises attention."""

    hidden: Count = Field(128, description="width")
    layers: Count = Field(4, description="number of blocks")
    heads: Count = Field(4, description="attention heads")
    mlp: Count = Field(352, description="inner width of the MLP")
    vocabulary: Count = Field(1024, description="tokens of the byte-level BPE trained on the data")
    context: Count = Field(256, description="longest sequence, in tokens")
    qk_norm: bool = Field(False, description="normalise queries and keys, as Qwen3 does: steadier at high rates")


class PromptSettings(Table):
    """How messages become text. Chosen once, at SFT, and stored with the model: every later stage reads it there."""

    template: str = Field(
        "", description="Jinja2 chat template; empty takes the base model's own, else the plain 'Prompt: ... Answer:'"
    )
    system: str = Field("", description="system text put before every prompt that has none")
    stop: tuple[str, ...] = Field((), description="token strings that end a completion; the EOS token always does")


class Sampling(Table):
    """How completions are drawn."""

    max_new_tokens: Count = Field(64, description="length limit of a completion")
    min_new_tokens: Annotated[int, Field(ge=0)] = Field(
        0, description="no completion ends before so many tokens; must be 0 in RL rollouts"
    )
    temperature: Annotated[float, Field(ge=0)] = Field(1.0, description="0 is greedy")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="nucleus; must be 1 in RL rollouts")
    top_k: Annotated[int, Field(ge=0)] = Field(0, description="keep the k likeliest tokens, 0 for all; 0 in rollouts")
    batch_size: Count = Field(64, description="sequences decoded at once")


class Objective(Table):
    """One scorer, or one objective of a reward model, as it counts in the whole score."""

    name: str = Field(description="as the scorer was named, or as the reward model calls it")
    weight: float = Field(1.0, description="what it counts in the sum; 0 where only its floor counts")
    at_least: float | None = Field(
        None,
        description="a floor to keep, in the units of the score: standard deviations of the reference's samples where "
        "`normalise` is on; what a unit below it costs is said by `floor`",
    )


class Scoring(Table):
    """How several scorers, objectives or members become one number; with one of each nothing is to choose."""

    objectives: tuple[Objective, ...] = Field(
        (),
        description="what counts, each with a weight or a floor to keep; empty takes all with weight 1. A scorer "
        "without a name and without named objectives is called overall",
    )
    normalise: bool = Field(
        True,
        description="bring each objective to mean 0 and std 1 before it is weighed: by what a reward model has stored, "
        "of named scorers by what they say of the reference's samples",
    )
    ensemble: Literal["mean", "min", "penalised"] = Field(
        "mean", description="of the members: their mean, the lowest, or the mean minus `penalty` x their variance"
    )
    penalty: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the variance with ensemble = penalised")
    floor: Literal["price", "multiplier"] = Field(
        "price",
        description="while a policy learns, how floors are kept: ten for each unit below, or a Lagrange multiplier "
        "that adapts",
    )
    multiplier_rate: Positive = Field(
        0.1, description="how fast a multiplier moves in a step: this times the distance of the mean from its floor"
    )
    time_limit: Annotated[float, Field(ge=0)] = Field(
        60.0,
        description="seconds that a call of a Python function may take before it is ended and made again; 0 is none",
    )


class RemoteSettings(Table):
    """How a model is asked that stands behind a server, as http://127.0.0.1:8000/v1#MODEL (OpenAI's chat protocol)."""

    key: str = Field(
        "TRUEUP_API_KEY",
        description="environment variable that holds the server's key, sent to it and stored nowhere; empty sends none",
    )
    timeout: Positive = Field(60.0, description="seconds that one answer may take")
    tries: Count = Field(5, description="times a question is asked where the server is busy, broken or silent")
    at_once: Annotated[int, Field(ge=1, le=256)] = Field(8, description="questions that are open at the same time")


class AskSettings(Table):
    """How a language model is asked to judge: which of two completions is better (in both orders), or what one does."""

    guideline: str = Field("", description="by what it judges, as one would tell people; empty is correct and helpful")
    max_new_tokens: Count = Field(512, description="length limit of its answer, which ends with the verdict")
    temperature: Annotated[float, Field(ge=0)] = Field(0.0, description="0 is greedy")
    tries: Count = Field(3, description="times it is asked where its answer holds no verdict")
    missing: Fraction = Field(
        0.0, description="share of pairs that may stay without a verdict; with more the run fails, and can be resumed"
    )


class OptimizerSettings(Table):
    """One optimizer for every stage."""

    name: Literal["adamw", "muon"] = Field("adamw", description="muon: Muon on hidden matrices, AdamW on the rest")
    lr: Positive = Field(1e-4, description="peak learning rate of AdamW")
    muon_lr: Positive = Field(0.02, description="peak learning rate of Muon (only with name = muon)")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.95), description="Adam's decay rates")
    eps: Positive = Field(1e-5, description="Adam's epsilon; 1e-5 keeps early RL updates small")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="decoupled weight decay on matrices")
    grad_clip: Positive = Field(1.0, description="largest gradient norm")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="decay to `final_lr` of the peak")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="steps over which the rate rises from 0")
    final_lr: Fraction = Field(0.1, description="share of the peak rate left at the last step")


class RunSettings(Table):
    """What every run has: a seed, a pace, and how often it writes things down."""

    seed: Annotated[int, Field(ge=0)] = Field(0, description="decides everything random in the run")
    threads: Annotated[int, Field(ge=0)] = Field(
        0, description="CPU threads, 0 for all cores; part of bitwise equality"
    )
    checkpoint_every: Count = Field(50, description="steps between checkpoints (the last two and the best are kept)")
    evaluate_every: Count = Field(25, description="steps between evaluations on the held-out split")
    micro_batch: Annotated[int, Field(ge=0)] = Field(
        0, description="rows in one forward; 0 takes the whole batch. Halved by itself when memory runs out"
    )
    max_skipped: Count = Field(10, description="steps with a non-finite loss or gradient, after which a run stops")
    tensorboard: bool = Field(True, description="also write TensorBoard event files")
    trackers: tuple[Literal["wandb", "mlflow"], ...] = Field(
        (), description="also tell Weights & Biases or MLflow, where installed: metrics, and samples as a table"
    )
    keep_weights: bool = Field(
        False,
        description="keep the weights of every evaluation, not only of the last two checkpoints and the best: "
        "`trueup runs ship RUN@STEP` makes a model of any of them",
    )
    keep_logprobs: bool = Field(
        False,
        description="in RL and online DPO, keep each token of a rollout with its log-probabilities, beside text and "
        "score",
    )


class StageConfig(Table):
    """A stage's effective config: its own fields beside the shared tables. `stage` names it in runs and commands."""

    stage: ClassVar[str] = ""
    row_limit: ClassVar[str] = "max_tokens"  # the setting that decides how long a row may be
    model: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    run: RunSettings = RunSettings()


class PretrainConfig(StageConfig):
    """Train a Llama-style model and its tokenizer from scratch on demonstrations."""

    stage: ClassVar[str] = "pretrain"
    row_limit: ClassVar[str] = "architecture.context"
    optimizer: OptimizerSettings = OptimizerSettings(name="muon", lr=4e-3, warmup_steps=20, final_lr=0.05)
    architecture: Architecture = Architecture()
    prompt: PromptSettings = PromptSettings()
    steps: Count = Field(500, description="optimizer steps")
    batch_size: Count = Field(8, description="prompts a step, each with all its completions")
    completion_weight: Positive = Field(1.0, description="loss weight of completion tokens; prompt tokens weigh 1")
    heldout: Fraction = Field(0.02, description="share of prompts kept for the held-out loss")


class PresetConfig(StageConfig):
    """A stage that can start from the settings of a preset (trueup/config/presets)."""

    preset: Preset = Field("none", description="settings for a size of model, below everything else that is set")

    @model_validator(mode="after")
    def _read_with_its_values(self) -> Self:
        """Its values are laid below the others when settings are read; a config built directly would lack them."""
        if self.preset != "none" and not self.model_fields_set >= StageConfig.model_fields.keys():
            raise ValueError("a preset is read with the settings: give them by name, or use trueup.config.load")
        return self


class SftConfig(PresetConfig):
    """Fine-tune on demonstrations: cross-entropy on completion tokens only; ships the best held-out checkpoint."""

    stage: ClassVar[str] = "sft"
    prompt: PromptSettings = PromptSettings()
    steps: Annotated[int, Field(ge=0)] = Field(0, description="optimizer steps; 0 means `epochs` over the data")
    epochs: Positive = Field(1.0, description="passes over the data when `steps` is 0")
    batch_size: Count = Field(16, description="demonstrations a step")
    max_tokens: Annotated[int, Field(ge=0)] = Field(0, description="longest row; 0 takes the model's context")
    heldout: Fraction = Field(0.05, description="share of prompts kept for the held-out loss")


class RewardConfig(PresetConfig):
    """Train a reward model on judgements: -log sigmoid(score_better - score_worse), all pairs of a ranking."""

    stage: ClassVar[str] = "reward"
    kind: Literal["sequence", "features"] = Field(
        "sequence",
        description="sequence: head at the last real token, an ordinary sequence-classification checkpoint; "
        "features: pooled head plus likelihood features of the frozen base, trueup's own format",
    )
    objectives: tuple[str, ...] = Field(
        (),
        description="heads by name, each learning from judgements made on it or axes that were rated",
    )
    members: Count = Field(1, description="size of the ensemble: heads on one trunk, each with its own draw of prompts")
    loss: Literal["bradley-terry", "plackett-luce"] = Field(
        "bradley-terry", description="of a ranking: all its pairs, or the whole order at once"
    )
    strength: Literal["ignore", "small-margin", "large-margin", "weight"] = Field(
        "ignore", description="what how much better (1 to 3) does: a margin of a third of it, of all of it, or a weight"
    )
    wrong_share: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="share of judgements taken to be the wrong way round (label smoothing)"
    )
    unbiased: bool = Field(False, description="use wrong_share in the form whose expected loss has no such mistakes")
    centring: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of (score_i + score_j)^2, which keeps scores around 0; 0.01 is usual"
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="evaluations without a lower held-out loss after which the run ends; 0 never ends early"
    )
    steps: Annotated[int, Field(ge=0)] = Field(0, description="optimizer steps; 0 means `epochs` over the data")
    epochs: Positive = Field(1.0, description="passes over the data when `steps` is 0")
    batch_size: Count = Field(8, description="prompts a step, each with all its judged completions")
    max_tokens: Annotated[int, Field(ge=0)] = Field(0, description="longest row; 0 takes the model's context")
    head_lr: Annotated[float, Field(ge=0)] = Field(0.0, description="learning rate of the head; 0 is the optimizer's")


class GuardSettings(Table):
    """What watches a policy while it learns, on held-out prompts; every decision is an event of the run."""

    evaluation_prompts: Count = Field(64, description="held-out prompts an evaluation samples")
    rollback: bool = Field(
        True, description="go back to the best weights when an evaluation is worse than theirs beyond chance"
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        0.99, description="how sure it must be that an evaluation is worse, prompt by prompt"
    )
    remedy: Literal["lower-lr", "raise-kl"] = Field(
        "lower-lr", description="what changes after going back: half the learning rate, or twice the KL coefficient"
    )
    max_rollbacks: Annotated[int, Field(ge=0)] = Field(3, description="how often it goes back before it stops instead")
    max_repetition: Fraction = Field(
        0.5, description="share of repeated four-token runs in held-out completions that counts as collapse"
    )
    min_distinct: Fraction = Field(
        0.25,
        description="share of the start's distinct two-token runs, below which held-out completions count as collapsed",
    )
    max_length_factor: Annotated[float, Field(gt=1)] = Field(
        8.0, description="how many times longer or shorter held-out completions may become than at the start"
    )
    stop_gamed: bool = Field(
        True, description="with a judge: stop when its score fell beyond chance while the training score rose"
    )
    max_kl: Positive | None = Field(None, description="KL budget: stop above this held-out KL a completion, in nats")
    stop_score: float | None = Field(None, description="stop when the mean held-out score reaches this")
    max_approx_kl: Positive = Field(0.1, description="end the passes over a rollout early above this approximate KL")


class ValueSettings(Table):
    """The value model of PPO."""

    model: Literal["trunk", "reward", "own"] = Field(
        "trunk",
        description="a head on the policy's trunk, the reward model's trunk and head under an adapter of its own, or "
        "a model of its own that starts as the policy",
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="first steps, in which only the value learns")
    coefficient: Annotated[float, Field(ge=0)] = Field(0.1, description="weight of the value loss")
    clip: Annotated[float, Field(ge=0)] = Field(0.2, description="clip range of the value, 0 for none")
    lr: Annotated[float, Field(ge=0)] = Field(0.0, description="learning rate of the value; 0 is the optimizer's")


class RlConfig(PresetConfig):
    """Reinforcement learning against a scorer, with a KL penalty to the frozen reference."""

    stage: ClassVar[str] = "rl"
    row_limit: ClassVar[str] = "sampling.max_new_tokens"
    sampling: Sampling = Sampling()
    scoring: Scoring = Scoring()
    value: ValueSettings = ValueSettings()
    guard: GuardSettings = GuardSettings()
    estimator: Literal["ppo", "rloo", "reinforce++", "grpo"] = Field(
        "ppo",
        description="advantages from a value model (ppo), from the prompt's other completions (rloo, grpo), "
        "or from the whole rollout (reinforce++)",
    )
    steps: Count = Field(40, description="iterations: rollout, score, update")
    prompts_per_step: Count = Field(16, description="prompts a rollout")
    samples_per_prompt: Count = Field(8, description="completions a prompt")
    epochs: Count = Field(2, description="passes over each rollout")
    minibatches: Count = Field(2, description="optimizer steps a pass")
    kl_coefficient: Annotated[float, Field(ge=0)] = Field(0.1, description="weight of the KL to the reference")
    kl_in: Literal["reward", "loss"] = Field("reward", description="where the KL counts: a price on rewards, or a loss")
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        "k1", description="of a token's KL; in the reward k1 is unbiased, in the loss k2 has the right gradient"
    )
    kl_target: Positive | None = Field(
        None, description="nats a completion that the coefficient is adapted to keep; none leaves it fixed"
    )
    kl_horizon: Positive = Field(4.0, description="steps over which the coefficient is adapted to kl_target")
    reference_rate: Fraction = Field(
        0.0, description="share of the way to the policy that the reference goes after each step; 0 leaves it frozen"
    )
    clip: Positive = Field(0.2, description="clip range of the policy ratio")
    clip_high: Positive | None = Field(None, description="clip range above 1 where it differs, as 0.28; none is `clip`")
    gamma: Fraction = Field(1.0, description="discount")
    lam: Fraction = Field(0.95, description="lambda of generalised advantage estimation")
    prompt_baseline: bool = Field(
        False, description="with ppo: subtract from each score the mean score of the prompt's other completions"
    )
    group_std: bool = Field(True, description="with grpo: divide by the standard deviation of the prompt's scores")
    whiten: bool | None = Field(
        None, description="whiten advantages over all tokens of the rollout; none: ppo and reinforce++ do"
    )
    entropy_bonus: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of the policy's entropy, a token")
    sft_coefficient: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the loss on demonstrations that is mixed in (PPO-ptx)"
    )
    score_scale: Literal["reference", "running", "none"] = Field(
        "reference", description="mean 0, std 1 on samples of the reference, on all rollouts so far, or as they are"
    )
    score_clip: Positive | None = Field(None, description="scores beyond this many units of the scale are cut to it")
    missing_eos_score: float | None = Field(-1.0, description="score of a completion without EOS, none to keep its own")


class EvaluationConfig(Table):
    """What every evaluation has in which models answer prompts and somebody judges."""

    sampling: Sampling = Sampling()
    model: ModelSettings = ModelSettings()
    remote: RemoteSettings = RemoteSettings()
    asked: AskSettings = AskSettings()
    run: RunSettings = RunSettings()
    limit: Annotated[int, Field(ge=0)] = Field(0, description="how many of the prompts, the first ones; 0 for all")


class WinrateConfig(EvaluationConfig):
    """Models answer the same held-out prompts and somebody says which answer is better; ties count half."""

    stage: ClassVar[str] = "winrate"
    scoring: Scoring = Scoring()
    best_of: Count = Field(1, description="B sends its best of n by the reward model; A always sends one")
    temperature_b: Annotated[float, Field(ge=0)] | None = Field(
        None, description="temperature of B where it differs from sampling.temperature; 0 is greedy"
    )


class CompareConfig(EvaluationConfig):
    """Models on one table: win rate against the first, KL, length, variety, refusals, what was forgotten, cost."""

    stage: ClassVar[str] = "compare"
    scoring: Scoring = Scoring()
    text_limit: Annotated[int, Field(ge=0)] = Field(
        500, description="how many of the other texts are read for what was forgotten, the first ones; 0 for all"
    )


class SafetyConfig(EvaluationConfig):
    """How often a model refuses what it should, and what it should not, on prompts labelled safe or unsafe."""

    stage: ClassVar[str] = "safety"
    sampling: Sampling = Sampling(max_new_tokens=256)


class SampleConfig(Table):
    """Completions for a prompt set, stored as a completion set."""

    stage: ClassVar[str] = "sample"
    sampling: Sampling = Sampling()
    scoring: Scoring = Scoring()
    model: ModelSettings = ModelSettings()
    remote: RemoteSettings = RemoteSettings()
    run: RunSettings = RunSettings()
    per_prompt: Count = Field(1, description="completions a prompt")
    best_of: Count = Field(1, description="write n for each and keep the one with the highest score")
