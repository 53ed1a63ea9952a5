"""Where a stage is handed its models and records (`loading`) and its result becomes an artifact.

`EXECUTE[stage](run, config)` does one stage from start to end, whether fresh or resumed; everything it needs stands in
the run's record, so resuming is calling it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from . import comparing, measuring, offline_wiring, refusing
from .config import (
    PretrainConfig,
    RewardConfig,
    RlConfig,
    SampleConfig,
    Scoring,
    SftConfig,
    Table,
)
from .errors import ConfigError, TrueupError
from .inputs import REMOTE, chain
from .loading import (
    completion_rows,
    in_world,
    load_policy,
    load_reader,
    longest_row,
    put_records,
    read_completions,
    read_demonstrations,
    read_judgements,
    read_prompts,
)
from .preparing import (
    check_strength,
    count_left_out,
    finish_model,
    fits,
    grouped,
    hold_out,
    note_audits,
    put_model,
    require,
    split_demonstrations,
    split_judgements,
    with_room,
)
from .records import Demonstration, Judgement, Prompt, by_prompt
from .runs import Run
from .scorers import load_scorer, load_scorers, measured, read_by, scored_by
from .store import Artifact
from .world import GoldScorer, p_true
from .writing import forget, written

if TYPE_CHECKING:  # torch loads when a stage runs, not when this module does
    from .models.language_model import LanguageModel
    from .models.reward_model import RewardModel
    from .models.rows import Group
    from .models.value import ValueModel
    from .ports import Scorer
    from .text.chat import Encoder
    from .train.judged import Judged

REFERENCE_PROMPTS = 256  # enough to know a mean and a std by


# --- stages


def _pretrain(run: Run, config: PretrainConfig) -> Artifact:
    from .train.pretrain import pretrain

    demonstrations = read_demonstrations(run.inputs["data"])
    model = untrained(demonstrations, config)
    train, heldout, dropped = split_demonstrations(run, model, demonstrations, config.architecture.context, config)
    best = pretrain(run, config, model, train, heldout)
    return finish_model(run, model, config, best, dropped)


def _sft(run: Run, config: SftConfig) -> Artifact:
    from .train.sft import sft

    model = load_policy(run, "base", config, trainable=True, prompt=config.prompt)
    demonstrations = read_demonstrations(run.inputs["data"])
    longest = longest_row(config.max_tokens, model.context)
    train, heldout, dropped = split_demonstrations(run, model, demonstrations, longest, config)
    best = sft(run, config, model, train, heldout)
    return finish_model(run, model, config, best, dropped)


def _sample(run: Run, config: SampleConfig) -> Artifact:
    from .evals.compare import best_of
    from .models.device import use_threads

    use_threads(config.run.threads)
    is_here = run.inputs["model"].kind != REMOTE
    scorer, models = load_scorer(run, scored_by(run.inputs)[0], config) if config.best_of > 1 else (None, [])
    readers = [load_reader(chain(run.workspace, run.inputs["model"]), config.model)] if is_here else []
    prompts, dropped = with_room(run, read_prompts(run.inputs["prompts"]), [*readers, *read_by(models)], config)
    each = config.per_prompt * config.best_of
    completions = written(run, "model", config, prompts, config.sampling, config.run.seed, each)
    if scorer:
        completions = best_of(completions, measured(scorer, completions), config.best_of)
    artifact = put_records(run.workspace, "completions", completion_rows(completions), parents=run.inputs)
    run.output("completions", artifact)
    forget(run)
    run.finish(
        {
            "prompts": len(prompts),
            "completions": len(completions),
            "unfinished": sum(not c.finished for c in completions),
            "dropped": dropped,
        }
    )
    return artifact


def _reward(run: Run, config: RewardConfig) -> Artifact:
    from .engines.reward_scorer import RewardScorer
    from .evals.reward import evaluate_objectives, evaluate_reward
    from .models.load import new_reward, save_reward
    from .train.reward import reward

    inputs = run.inputs
    judgements = read_judgements(inputs["data"])
    model = new_reward(
        config.kind,
        chain(run.workspace, inputs["base"]),
        config.model,
        features=chain(run.workspace, inputs["features"]) if "features" in inputs else (),
        seed=config.run.seed,
        objectives=config.objectives,
        members=config.members,
    )
    longest = longest_row(config.max_tokens, model.context)
    train, heldout, dropped = split_judgements(run, model, judgements, longest, config, config.objectives)
    _check_said(train, config.objectives)
    check_strength(train, config.strength)
    _say_what_is_odd(run, judgements)
    if config.loss == "plackett-luce" and any(judgement.targets for judgement in judgements):
        raise TrueupError(
            "these judgements have soft targets for their pairs, which loss = 'plackett-luce' would not read",
            "leave the loss out, or freeze the votes as they were given: --rule raw",
        )
    reference = _reference(run, model, longest, config)
    simulated = all(j.source == "simulated" for j in judgements)
    tested = [j for j in judgements if j.split == "heldout" and fits(model, j, model.context)]
    del judgements  # what is learnt from is tokens by now, and its texts would take as much memory again
    best = reward(run, config, model, train, heldout, reference)
    result: dict[str, Any] = {"best_step": best, "dropped": dropped, "kind": config.kind}
    if config.objectives:
        scorer = RewardScorer(model, scoring=Scoring(normalise=False))
        result["objectives"] = evaluate_objectives(scorer, tested, config.objectives)
    elif kept := [j for j in tested if _decided(j)]:
        gold = GoldScorer() if in_world([j.prompt for j in kept]) else None
        result |= evaluate_reward(RewardScorer(model), kept, gold, p_true if simulated else None)
    is_adapter = getattr(model, "adapter", None) is not None
    artifact = put_model(run, "reward", lambda folder: save_reward(model, folder), is_adapter, scorer=config.kind)
    run.finish(result)
    return artifact


def _say_what_is_odd(run: Run, judgements: Sequence[Judgement]) -> None:
    """What can be learnt from all the same, but means less than it seems. A resumed run has said so already."""
    if run.resume_folder is not None:
        return
    texts = [list(zip(j.completions, j.meta.get("finished") or j.completions, strict=True)) for j in judgements]
    equal = sum(said[i] == said[k] for said, j in zip(texts, judgements, strict=True) for i, k, _ in j.pairs())
    if equal:
        run.tell("equal sides", f"pairs with two equal sides say nothing: {equal} left out")
    if len({j.prompt.id for j in judgements}) == 1:
        run.tell("one prompt", "all judgements are about one prompt: what is learnt may be worth nothing on others")
    alone = all(j.meta.get("judges", 1) == 1 for j in judgements)  # and not the votes of several, pooled by one rule
    if alone and len({j.judge for j in judgements}) == 1 and judgements[0].source != "imported":
        run.tell("one judge", "all judgements are one judge's: how far others would agree is unknown")


def _check_said(train: Sequence[Judged], objectives: Sequence[str]) -> None:
    """That there is something to learn, of every objective."""
    if not any(item.verdicts or any(pair.target != 0.5 for pair in item.pairs) for item in train):
        raise TrueupError(
            "every judgement to train on is a tie: there is nothing to learn from",
            "judgements that prefer one completion over another are needed; look at the data: trueup data show",
        )
    spoken_of = {p.objective for item in train for p in item.pairs} | {v.objective for i in train for v in i.verdicts}
    for number, name in enumerate(objectives):
        if number not in spoken_of:
            raise TrueupError(
                f"no judgement to train on speaks of the objective '{name}'",
                "a judgement speaks of its `objective` and of the axes it rates; look at them: trueup data show",
            )


def _reference(run: Run, model: RewardModel, longest: int, config: RewardConfig) -> list[Group]:
    """Completions, or demonstrations, that scores are to have mean 0 and std 1 on."""
    if "reference" not in run.inputs:
        return []
    artifact, encoder = run.inputs["reference"], model.encoder
    if artifact.kind == "demonstrations":
        texts = [(d.prompt, [(d.completion, True)]) for d in read_demonstrations(artifact)]
    else:
        sets = by_prompt(read_completions(artifact))
        texts = [(completions[0].prompt, [(c.text, c.finished) for c in completions]) for completions in sets]
    fitting: list[Group] = []
    long: list[Prompt] = []
    for prompt, said in texts:
        if encoder.too_long(prompt, [text for text, _ in said], longest):
            long.append(prompt)
            continue
        answers = [encoder.completion(prompt, text, finished=end) or (encoder.eos_id,) for text, end in said]
        group: Group = (encoder.prompt(prompt), answers)
        if len(group[0]) + max(map(len, answers)) <= longest:
            fitting.append(group)
        else:
            long.append(prompt)
    unit: Literal["row", "prompt"] = "row" if artifact.kind == "demonstrations" else "prompt"
    left_out = count_left_out(run, "reference", unit, longest, len(long), len(texts), long)
    require(run, fitting, "no reference completion fits", left_out, config)
    return fitting[:REFERENCE_PROMPTS]


def _rl(run: Run, config: RlConfig) -> Artifact:
    from .engines.sampler import Sampler
    from .train.rl import rl

    inputs = run.inputs
    policy = load_policy(run, "policy", config, trainable=True)
    if policy.adapter is not None and config.reference_rate:
        raise ConfigError(
            "reference_rate needs a reference of its own, but this model is trained by LoRA and its reference is the "
            "policy without the adapter",
            "give --set model.adapter=none, or leave reference_rate at 0",
        )
    reference = None if policy.adapter is not None else load_policy(run, "policy", config)
    scorers = load_scorers(run, config, policy)
    readers: list[tuple[Encoder, int]] = [(policy.encoder, policy.context), *scorers.readers]
    prompts, dropped = with_room(run, read_prompts(inputs["prompts"]), readers, config, cut=True)
    train, held = hold_out(run, prompts, config.guard.evaluation_prompts, config.prompts_per_step)
    note_audits(run)
    watched: dict[str, Scorer] = {"gold": GoldScorer()} if in_world(prompts) else {}
    mixed, value = _mixed(run, policy, config), _value(policy, scorers.scorer, config)
    best = rl(
        run, config, policy, reference, Sampler(policy), scorers.scorer, train, held, watched, scorers.judge, mixed,
        value,
    )  # fmt: skip
    scorers.tell_cut(run)
    return finish_model(run, policy, config, best, dropped)


def _value(policy: LanguageModel, scorer: Scorer, config: RlConfig) -> ValueModel | None:
    """The value model, where it is not a head on the policy's trunk, which the stage makes itself."""
    from .engines.reward_scorer import RewardScorer
    from .models.value import own_value, reward_value

    if config.value.model == "trunk":
        return None
    if config.value.model == "own":
        return own_value(policy, config.run.seed)
    reward = scorer.model if isinstance(scorer, RewardScorer) else None
    return reward_value(policy, reward, config.model, config.run.seed)


def _mixed(run: Run, policy: LanguageModel, config: RlConfig) -> list[Group]:
    """Demonstrations to learn beside the scores."""
    if "demonstrations" not in run.inputs:
        return []
    fitting: list[Group] = []
    demonstrations, long = read_demonstrations(run.inputs["demonstrations"]), []
    for prompt, answers in grouped(demonstrations):
        if policy.encoder.too_long(prompt, answers, policy.context):
            long.append(prompt)
            continue
        group: Group = (policy.encoder.prompt(prompt), [policy.encoder.completion(prompt, text) for text in answers])
        if len(group[0]) + max(map(len, group[1])) <= policy.context:
            fitting.append(group)
        else:
            long.append(prompt)
    left_out = count_left_out(run, "demonstrations", "row", policy.context, len(long), len(demonstrations), long)
    require(run, fitting, "no demonstration fits", left_out, config)
    return fitting


EXECUTE: dict[str, Callable[[Run, Any], Artifact]] = {
    "pretrain": _pretrain,
    "sft": _sft,
    "sample": _sample,
    "reward": _reward,
    "rl": _rl,
    "dpo": offline_wiring.dpo,
    "kto": offline_wiring.kto,
    "ilql": offline_wiring.ilql,
    "winrate": comparing.winrate,
    "safety": refusing.safety,
    "compare": measuring.compare,
}


def execute(run: Run, config: Table) -> Artifact:
    with run:
        return EXECUTE[run.stage](run, config)


def untrained(demonstrations: Sequence[Demonstration], config: PretrainConfig) -> LanguageModel:
    """What pretraining starts from: random weights, for a tokenizer that is made of the texts."""
    from .models.device import place
    from .models.load import new_model
    from .text.chat import prompt_format
    from .text.tokenizer import EOS, PAD, train_tokenizer

    texts = [text for prompt, answers in grouped(demonstrations) for text in (prompt.text, *answers)]
    tokenizer = train_tokenizer(texts, config.architecture.vocabulary)
    format = prompt_format(tokenizer, config.prompt, eos=EOS, pad=PAD)
    return new_model(config.architecture, tokenizer, format, config.run.seed, place(config.model))


# --- inside


def _decided(judgement: Judgement) -> bool:
    return any(target != 0.5 for _, _, target in judgement.pairs())
