"""Where a stage is handed its models and records (`loading`) and its result becomes an artifact.

`EXECUTE[stage](run, config)` does one stage from start to end, whether fresh or resumed; everything it needs stands in
the run's record, so resuming is calling it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .config import (
    PretrainConfig,
    RewardConfig,
    RlConfig,
    SampleConfig,
    Sampling,
    Scoring,
    SftConfig,
    Table,
    WinrateConfig,
)
from .errors import TrueupError
from .inputs import chain
from .loading import (
    ROWS,
    completion_rows,
    in_world,
    load_policy,
    load_reader,
    load_scorer,
    longest_row,
    put_records,
    read_completions,
    read_demonstrations,
    read_judgements,
    read_prompts,
    require_gold,
    rows_of,
    sampler_of,
)
from .records import Completion, Demonstration, Judgement, Prompt, by_prompt
from .runs import Run
from .runs.left_out import LISTED, LeftOut
from .store import Artifact, write_jsonl
from .text.formats import split_by_prompt
from .world import GoldScorer, p_true

if TYPE_CHECKING:  # torch loads when a stage runs, not when this module does
    from .models.language_model import LanguageModel
    from .models.reward_model import RewardModel
    from .models.rows import Group
    from .ports import Scorer
    from .text.chat import Encoder
    from .train.judged import Judged

REFERENCE_PROMPTS = 256  # enough to know a mean and a std by


# --- stages


def _pretrain(run: Run, config: PretrainConfig) -> Artifact:
    from .models.device import place
    from .models.load import new_model
    from .text.chat import prompt_format
    from .text.tokenizer import EOS, PAD, train_tokenizer
    from .train.pretrain import pretrain

    demonstrations = read_demonstrations(run.inputs["data"])
    texts = [text for prompt, answers in _grouped(demonstrations) for text in (prompt.text, *answers)]
    tokenizer = train_tokenizer(texts, config.architecture.vocabulary)
    format = prompt_format(tokenizer, config.prompt, eos=EOS, pad=PAD)
    model = new_model(config.architecture, tokenizer, format, config.run.seed, place(config.model))
    train, heldout, dropped = _split(run, model, demonstrations, config.architecture.context, config)
    best = pretrain(run, config, model, train, heldout)
    return _finish_model(run, model, config, best, dropped)


def _sft(run: Run, config: SftConfig) -> Artifact:
    from .train.sft import sft

    model = load_policy(run, "base", config, trainable=True, prompt=config.prompt)
    demonstrations = read_demonstrations(run.inputs["data"])
    longest = longest_row(config.max_tokens, model.context)
    train, heldout, dropped = _split(run, model, demonstrations, longest, config)
    best = sft(run, config, model, train, heldout)
    return _finish_model(run, model, config, best, dropped)


def _sample(run: Run, config: SampleConfig) -> Artifact:
    from .models.device import use_threads

    use_threads(config.run.threads)
    model = load_policy(run, "model", config)
    prompts, dropped = _with_room(run, read_prompts(run.inputs["prompts"]), [(model.encoder, model.context)], config)
    with sampler_of(model, len(prompts)) as sampler:
        completions = sampler.sample(prompts, config.sampling, seed=config.run.seed, n=config.per_prompt)
    artifact = put_records(run.workspace, "completions", completion_rows(completions), parents=run.inputs)
    run.output("completions", artifact)
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
    from .train.judged import judged
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
    (train, dropped), (heldout, dropped_heldout) = (
        judged(model.encoder, [j for j in judgements if j.split == split], longest, config.objectives)
        for split in ("train", "heldout")
    )
    dropped += dropped_heldout
    asked = {judgement.prompt.id for judgement in judgements}
    long = [j.prompt for j in judgements if not _fits(model, j, longest)] if dropped else []
    left_out = _left_out(run, "data", "prompt", longest, dropped, len(asked), long)
    _require(run, train, "no judgement is left to train on", left_out, config)
    _check_said(train, config.objectives)
    if config.loss == "plackett-luce" and any(judgement.targets for judgement in judgements):
        raise TrueupError(
            "these judgements have soft targets for their pairs, which loss = 'plackett-luce' would not read",
            "leave the loss out, or freeze the votes as they were given: --rule raw",
        )
    _say_if_none_held_out(run, heldout)
    reference = _reference(run, model, longest, config)
    best = reward(run, config, model, train, heldout, reference)
    simulated = all(j.source == "simulated" for j in judgements)
    kept = [j for j in judgements if j.split == "heldout" and _decided(j) and _fits(model, j, model.context)]
    result: dict[str, Any] = {"best_step": best, "dropped": dropped, "kind": config.kind}
    if config.objectives:
        speaking = [j for j in judgements if j.split == "heldout" and _fits(model, j, model.context)]
        scorer = RewardScorer(model, scoring=Scoring(normalise=False))
        result["objectives"] = evaluate_objectives(scorer, speaking, config.objectives)
    elif kept:
        gold = GoldScorer() if in_world([j.prompt for j in kept]) else None
        result |= evaluate_reward(RewardScorer(model), kept, gold, p_true if simulated else None)
    is_adapter = getattr(model, "adapter", None) is not None
    artifact = _put_model(run, "reward", lambda folder: save_reward(model, folder), is_adapter, scorer=config.kind)
    run.finish(result)
    return artifact


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
        texts = [(d.prompt, [encoder.completion(d.prompt, d.completion)]) for d in read_demonstrations(artifact)]
    else:
        texts = [
            (g[0].prompt, [encoder.completion(c.prompt, c.text, finished=c.finished) or (encoder.eos_id,) for c in g])
            for g in by_prompt(read_completions(artifact))
        ]
    fitting: list[Group] = []
    long: list[Prompt] = []
    for prompt, answers in texts:
        group: Group = (encoder.prompt(prompt), answers)
        if len(group[0]) + max(map(len, answers)) <= longest:
            fitting.append(group)
        else:
            long.append(prompt)
    unit: Literal["row", "prompt"] = "row" if artifact.kind == "demonstrations" else "prompt"
    left_out = _left_out(run, "reference", unit, longest, len(long), len(texts), long)
    _require(run, fitting, "no reference completion fits", left_out, config)
    return fitting[:REFERENCE_PROMPTS]


def _rl(run: Run, config: RlConfig) -> Artifact:
    from .engines.sampler import Sampler
    from .train.rl import rl

    inputs = run.inputs
    policy = load_policy(run, "policy", config, trainable=True)
    reference = None if policy.adapter is not None else load_policy(run, "policy", config)
    scorer = load_scorer(run, "reward", config)
    readers = [(reader.encoder, reader.context) for reader in (policy, scorer.model)]
    prompts, dropped = _with_room(run, read_prompts(inputs["prompts"]), readers, config, cut=True)
    held = sorted(prompts, key=lambda prompt: prompt.id)[: min(config.evaluation_prompts, len(prompts) // 5)]
    apart = {prompt.id for prompt in held}
    train = [prompt for prompt in prompts if prompt.id not in apart]
    _say_if_none_held_out(run, held)
    _note_audit(run, inputs["reward"])
    watched: dict[str, Scorer] = {"gold": GoldScorer()} if in_world(prompts) else {}
    best = rl(run, config, policy, reference, Sampler(policy), scorer, train, held, watched)
    if scorer.cut_short:
        run.tell("cut", f"{scorer.cut_short} completions were longer than the reward model reads and scored in part")
    return _finish_model(run, policy, config, best, dropped)


def _note_audit(run: Run, reward: Artifact) -> None:
    """Whether anybody looked at what is about to be climbed, and what they let pass, is part of the record."""
    from .auditing import latest_audit

    if run.resume_folder is not None:
        return
    found = latest_audit(run.workspace, reward)
    if found is None:
        run.event("gate", "the reward model was not audited: trueup eval reward", audit="")
        return
    gate = found["gate"]
    said = "passed" if not gate["failed"] else f"failed {', '.join(gate['failed'])}"
    said += f", with {', '.join(gate['overridden'])} overridden" if gate["overridden"] else ""
    run.event("gate", f"the audit {said}", audit=found["evaluation"], **{k: gate[k] for k in ("failed", "overridden")})


def _winrate(run: Run, config: WinrateConfig) -> Artifact:
    from .evals.compare import best_of, compare
    from .models.device import use_threads

    use_threads(config.run.threads)
    prompts = read_prompts(run.inputs["prompts"])
    prompts = prompts[: config.limit or len(prompts)]
    judge = load_scorer(run, "judge", config) if "judge" in run.inputs else GoldScorer()
    if "judge" not in run.inputs:
        require_gold(prompts)
    writers = [run.inputs[role] for role in ("a", "b") if run.inputs[role].kind != "completions"]
    readers = [load_reader(chain(run.workspace, writer), config.model) for writer in writers]
    prompts, dropped = _with_room(run, prompts, readers, config)
    a = _answers(run, "a", config, prompts, config.sampling, config.run.seed, 1)
    sampling_b = config.sampling
    if config.temperature_b is not None:
        sampling_b = sampling_b.model_copy(update={"temperature": config.temperature_b})
    b = _answers(run, "b", config, prompts, sampling_b, config.run.seed + 1, config.best_of)
    if config.best_of > 1:
        b = best_of(b, load_scorer(run, "reward", config))
    found = compare(a, b, judge)
    result = {**found.to_json(), "dropped": dropped}
    with run.workspace.staging() as folder:
        write_jsonl(folder / ROWS, found.rows)
        (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        artifact = run.workspace.put("evaluation", folder, parents=run.inputs, meta={"config": run.config})
    run.output("evaluation", artifact)
    run.finish(result)
    return artifact


def _answers(
    run: Run, role: str, config: WinrateConfig, prompts: Sequence[Prompt], sampling: Sampling, seed: int, each: int
) -> list[Completion]:
    """`each` completions a prompt: sampled from a model now, or the first ones of a completion set."""
    if run.inputs[role].kind != "completions":
        with sampler_of(load_policy(run, role, config), len(prompts)) as sampler:
            return sampler.sample(prompts, sampling, seed=seed, n=each)
    stored: dict[str, list[Completion]] = {}
    for completion in read_completions(run.inputs[role]):
        stored.setdefault(completion.prompt.id, []).append(completion)
    lacking = [prompt for prompt in prompts if len(stored.get(prompt.id, ())) < each]
    if lacking:
        raise TrueupError(
            f"completion set {run.inputs[role].id} has fewer than {each} completions for {len(lacking)} of the "
            f"{len(prompts)} prompts",
            "sample it again for these prompts, or name the model instead",
        )
    return [completion for prompt in prompts for completion in stored[prompt.id][:each]]


EXECUTE: dict[str, Callable[[Run, Any], Artifact]] = {
    "pretrain": _pretrain,
    "sft": _sft,
    "sample": _sample,
    "reward": _reward,
    "rl": _rl,
    "winrate": _winrate,
}


def execute(run: Run, config: Table) -> Artifact:
    with run:
        return EXECUTE[run.stage](run, config)


# --- inside


def _split(
    run: Run,
    model: LanguageModel,
    demonstrations: Sequence[Demonstration],
    longest: int,
    config: PretrainConfig | SftConfig,
) -> tuple[list[Group], list[Group], int]:
    """Token groups for training and for the held-out loss, split by prompt; and how many rows were too long."""
    sides: dict[str, list[Group]] = {"train": [], "heldout": []}
    dropped, encoder = 0, model.encoder
    long: list[Prompt] = []
    for prompt, answers in _grouped(demonstrations):
        replies = [encoder.completion(prompt, answer) for answer in answers]
        fitted = encoder.fit(prompt, longest - max(map(len, replies)))
        if fitted is None:
            dropped += len(answers)
            long.append(prompt)
            continue
        if fitted is not prompt:
            replies = [encoder.completion(fitted, answer) for answer in answers]
        side = split_by_prompt(prompt.id, config.heldout, config.run.seed)
        sides[side].append((encoder.prompt(fitted), replies))
    left_out = _left_out(run, "data", "row", longest, dropped, len(demonstrations), long)
    held = sum(len(replies) for _, replies in sides["heldout"])
    _require(run, sides["train"], f"no demonstration is left to train on: {held} held out", left_out, config)
    if config.heldout:
        _say_if_none_held_out(run, sides["heldout"])
    return sides["train"], sides["heldout"][:256], dropped


def _grouped(demonstrations: Sequence[Demonstration]) -> list[tuple[Prompt, list[str]]]:
    """Demonstrations by prompt: the completions of one prompt share its row."""
    groups: dict[str, tuple[Prompt, list[str]]] = {}
    for demonstration in demonstrations:
        groups.setdefault(demonstration.prompt.id, (demonstration.prompt, []))[1].append(demonstration.completion)
    return list(groups.values())


def _with_room(
    run: Run, prompts: Sequence[Prompt], readers: Sequence[tuple[Encoder, int]], config: Any, *, cut: bool = False
) -> tuple[list[Prompt], int]:
    """Prompts that leave room for a completion in the context of every model that reads them; how many do not.

    With `cut` a prompt may lose its oldest turns for that: it is only learnt from, and nobody looks for its answer.
    """
    room = config.sampling.max_new_tokens
    kept: list[Prompt | None] = list(prompts)
    for encoder, context in readers:
        kept = [prompt and encoder.fit(prompt, context - room) for prompt in kept]
    if not cut:
        kept = [prompt if prompt is fitted else None for prompt, fitted in zip(prompts, kept, strict=True)]
    fitting = [prompt for prompt in kept if prompt is not None]
    long = [prompt for prompt, fitted in zip(prompts, kept, strict=True) if fitted is None]
    limit = min((context for _, context in readers), default=0) - room
    left_out = _left_out(run, "prompts", "prompt", limit, len(long), len(prompts), long)
    _require(run, fitting, f"no prompt leaves room for {room} new tokens", left_out, config)
    return fitting, len(long)


def _left_out(
    run: Run, role: str, unit: Literal["row", "prompt"], limit: int, count: int, total: int, long: Sequence[Prompt]
) -> LeftOut:
    """`long` are the prompts that do not fit, in any order."""
    artifact = run.inputs[role]
    numbers: dict[str, int] = {}
    for number, row in enumerate(rows_of(artifact) if long else (), 1):
        prompt = Prompt.from_json(row if artifact.kind == "prompts" else row["prompt"])
        numbers.setdefault(prompt.id, number)
    first = {numbers[prompt.id]: prompt for prompt in long}
    return LeftOut(artifact, unit, limit, count, total, tuple(sorted(first.items())[:LISTED]))


def _finish_model(run: Run, model: LanguageModel, config: Any, best: int, dropped: int) -> Artifact:
    from .models.load import save_model

    artifact = _put_model(run, "model", lambda folder: save_model(model, folder), model.adapter is not None)
    last = run.metrics()[-1] if run.metrics() else {}
    run.finish({"best_step": best, "dropped": dropped, **{k: v for k, v in last.items() if k != "step"}})
    return artifact


def _put_model(run: Run, kind: str, save: Callable[[Path], None], is_adapter: bool, **meta: Any) -> Artifact:
    """Parents are the run's inputs; `base` is what an adapter sits on."""
    parents = dict(run.inputs)
    if "policy" in parents:
        parents["base"] = parents.pop("policy")
    with run.workspace.staging() as folder:
        save(folder)
        artifact = run.workspace.put(
            kind, folder, parents=parents, meta={"stage": run.stage, "adapter": is_adapter, **meta}
        )
    run.output(kind, artifact)
    return artifact


def _decided(judgement: Judgement) -> bool:
    return any(target != 0.5 for _, _, target in judgement.pairs())


def _fits(model: RewardModel, judgement: Judgement, limit: int) -> bool:
    """Whether every completion of a judgement has room after its prompt."""
    encoder, prompt = model.encoder, judgement.prompt
    longest = max(len(encoder.completion(prompt, text)) for text in judgement.completions)
    return len(encoder.prompt(prompt)) + longest <= limit


def _say_if_none_held_out(run: Run, heldout: Sequence[Any]) -> None:
    if not heldout and run.resume_folder is None:  # a resumed run has said so already
        run.tell("no evaluation", "too little data to hold any out: the last step's weights are shipped")


def _require(run: Run, rows: Sequence[Any], problem: str, left_out: LeftOut, config: Any) -> None:
    """Something has to be left; what is left out beside it is said."""
    if not rows:
        raise TrueupError(f"{problem}; {left_out}", _way_out(config, left_out))
    left_out.tell(run)


def _way_out(config: Any, left_out: LeftOut) -> str:
    if not left_out.count:
        return "look at the data (trueup data show)" + (", or lower heldout" if hasattr(config, "heldout") else "")
    if hasattr(config, "sampling"):
        return "lower sampling.max_new_tokens, or use shorter prompts"
    longer = "a model with a longer context" if config.row_limit == "max_tokens" else "shorter rows"
    return f"raise {config.row_limit}, or use {longer}"
