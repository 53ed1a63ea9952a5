"""What of the data a stage can use, said where some is left out; and its result as an artifact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .config import PretrainConfig, SftConfig
from .errors import TrueupError
from .inputs import FUNCTION
from .loading import rows_of
from .records import Demonstration, Judgement, Prompt
from .runs import Run
from .runs.left_out import LISTED, LeftOut
from .store import Artifact
from .text.formats import group_of, split_by_prompt

if TYPE_CHECKING:  # torch loads when a stage runs, not when this module does
    from .models.language_model import LanguageModel
    from .models.reward_model import RewardModel
    from .models.rows import Group
    from .text.chat import Encoder
    from .train.judged import Judged


def split_demonstrations(
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
    for prompt, answers in grouped(demonstrations):
        found = encoder.fit_with(prompt, answers, longest)
        if found is None:
            dropped += len(answers)
            long.append(prompt)
            continue
        fitted, replies = found
        side = split_by_prompt(group_of(prompt), config.heldout, config.run.seed)
        sides[side].append((encoder.prompt(fitted), replies))
    left_out = count_left_out(run, "data", "row", longest, dropped, len(demonstrations), long)
    held = sum(len(replies) for _, replies in sides["heldout"])
    require(run, sides["train"], f"no demonstration is left to train on: {held} held out", left_out, config)
    if config.heldout:
        say_if_none_held_out(run, sides["heldout"])
    return sides["train"], sides["heldout"][:256], dropped


def split_judgements(
    run: Run,
    model: LanguageModel | RewardModel,
    judgements: Sequence[Judgement],
    longest: int,
    config: Any,
    objectives: Sequence[str] = (),
) -> tuple[list[Judged], list[Judged], int]:
    """Judgements by prompt for training and for the held-out figures; and how many prompts were too long."""
    from .train.judged import judged

    (train, long), (heldout, long_heldout) = (
        judged(model.encoder, [j for j in judgements if j.split == split], longest, objectives)
        for split in ("train", "heldout")
    )
    long += long_heldout
    dropped, asked = len(long), {judgement.prompt.id for judgement in judgements}
    left_out = count_left_out(run, "data", "prompt", longest, dropped, len(asked), long)
    problem = "no judgement is left to train on" + (f": {len(heldout)} prompts are held out" if heldout else "")
    if objectives and not dropped and not heldout:
        problem = f"no judgement to train on speaks of {' or '.join(objectives)}"
    require(run, train, problem, left_out, config)
    say_if_none_held_out(run, heldout)
    return train, heldout, dropped


def grouped(demonstrations: Sequence[Demonstration]) -> list[tuple[Prompt, list[str]]]:
    """Demonstrations by prompt: the completions of one prompt share its row."""
    groups: dict[str, tuple[Prompt, list[str]]] = {}
    for demonstration in demonstrations:
        groups.setdefault(demonstration.prompt.id, (demonstration.prompt, []))[1].append(demonstration.completion)
    return list(groups.values())


def with_room(
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
    left_out = count_left_out(run, "prompts", "prompt", limit, len(long), len(prompts), long)
    require(run, fitting, f"no prompt leaves room for {room} new tokens", left_out, config, "sampling.max_new_tokens")
    return fitting, len(long)


def hold_out(run: Run, prompts: Sequence[Prompt], count: int, a_step: int) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to learn on, and up to `count` of them, a fifth at most, kept for evaluations."""
    held = sorted(prompts, key=lambda prompt: prompt.id)[: how_many_held_out(len(prompts), count)]
    apart = {prompt.id for prompt in held}
    say_if_none_held_out(run, held)
    train = [prompt for prompt in prompts if prompt.id not in apart]
    if (few := few_prompts(len(train), a_step)) and run.resume_folder is None:  # a resumed run has said so already
        run.tell("few prompts", few, prompts=len(train), a_step=a_step)
    return train, held


def how_many_held_out(prompts: int, most: int) -> int:
    return min(most, prompts // 5)


def few_prompts(prompts: int, a_step: int) -> str:
    """In words, empty if a step has prompts enough."""
    if prompts >= a_step:
        return ""
    return f"{prompts} prompts to learn on are fewer than the {a_step} of a step: it takes them over and over"


def check_strength(train: Sequence[Judged], strength: str) -> None:
    """A margin, or a weight, that nobody gave would change nothing, and be taken for tried."""
    if strength != "ignore" and not any(pair.strength for item in train for pair in item.pairs):
        raise TrueupError(
            f"strength = '{strength}', and no judgement to train on says how much better",
            "leave strength out, or collect judgements that say it: a `strength` of 1 to 3",
        )


def note_audits(run: Run) -> None:
    """Of every reward model that the run learns from."""
    for role, artifact in run.inputs.items():
        if role.partition(".")[0] == "reward" and artifact.kind != FUNCTION:
            _note_audit(run, artifact)


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


def count_left_out(
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


def finish_model(run: Run, model: LanguageModel, config: Any, best: int, dropped: int) -> Artifact:
    from .models.load import save_model

    artifact = put_model(run, "model", lambda folder: save_model(model, folder), model.adapter is not None)
    last = run.metrics()[-1] if run.metrics() else {}
    run.finish({"best_step": best, "dropped": dropped, **{k: v for k, v in last.items() if k != "step"}})
    return artifact


def put_model(run: Run, kind: str, save: Callable[[Path], None], is_adapter: bool, **meta: Any) -> Artifact:
    artifact = store_model(run, kind, save, is_adapter, **meta)
    run.output(kind, artifact)
    return artifact


def store_model(run: Run, kind: str, save: Callable[[Path], None], is_adapter: bool, **meta: Any) -> Artifact:
    """Parents are the run's inputs; `base` is what an adapter sits on."""
    parents = dict(run.inputs)
    if "policy" in parents:
        parents["base"] = parents.pop("policy")
    bits = run.config["model"].get("quantise", "none")
    if is_adapter and bits != "none":
        meta["quantised"] = bits  # what it sat on while it learnt
    with run.workspace.staging() as folder:
        save(folder)
        about = {"stage": run.stage, "adapter": is_adapter, **meta}
        return run.workspace.put(kind, folder, parents=parents, meta=about)


def fits(model: LanguageModel | RewardModel, judgement: Judgement, limit: int) -> bool:
    """Whether every completion of a judgement has room after its prompt."""
    encoder, prompt = model.encoder, judgement.prompt
    if encoder.too_long(prompt, judgement.completions, limit):
        return False
    longest = max(len(encoder.completion(prompt, text)) for text in judgement.completions)
    return len(encoder.prompt(prompt)) + longest <= limit


def say_if_none_held_out(run: Run, heldout: Sequence[Any]) -> None:
    if not heldout and run.resume_folder is None:  # a resumed run has said so already
        run.tell("no evaluation", "too little data to hold any out: the last step's weights are shipped")


def require(run: Run, rows: Sequence[Any], problem: str, left_out: LeftOut, config: Any, row_limit: str = "") -> None:
    """Something has to be left; what is left out beside it is said. `row_limit` names what decides the length."""
    if not rows:
        raise TrueupError(f"{problem}; {left_out}", _way_out(config, left_out, row_limit or config.row_limit))
    left_out.tell(run)


def _way_out(config: Any, left_out: LeftOut, row_limit: str) -> str:
    if not left_out.count:
        return "look at the data (trueup data show)" + (", or lower heldout" if hasattr(config, "heldout") else "")
    if row_limit == "sampling.max_new_tokens":
        return "lower sampling.max_new_tokens, or use shorter prompts"
    longer = "a model with a longer context" if row_limit == "max_tokens" else "shorter rows"
    return f"raise {row_limit}, or use {longer}"
