"""Artifacts as what stages are handed: records, models, samplers and scorers. And records as artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .config import ModelSettings
from .errors import ModelError, TrueupError
from .inputs import chain, stored_kind
from .records import Completion, Demonstration, Judgement, Prompt, by_prompt
from .runs import Run
from .store import JUDGED, Artifact, Workspace, read_jsonl, write_jsonl

if TYPE_CHECKING:  # torch loads when a model does, not when this module does
    from .engines.sampler import Sampler
    from .models.language_model import LanguageModel
    from .text.chat import Encoder

ROWS = "rows.jsonl"


# --- artifacts as records


def read_prompts(artifact: Artifact) -> list[Prompt]:
    """The prompts of a prompt set, or those that a set of demonstrations, judgements or completions is about."""
    rows = rows_of(artifact)
    prompts = [Prompt.from_json(row if artifact.kind == "prompts" else row["prompt"]) for row in rows]
    return list({prompt.id: prompt for prompt in prompts}.values())


def prompts_of(run: Run) -> dict[str, Prompt]:
    """The prompts of a run by their id; none where they are gone from the disk, for samples are worth showing still."""
    if "prompts" not in run.row.inputs:
        return {}
    try:
        return {prompt.id: prompt for prompt in read_prompts(run.inputs["prompts"])}
    except TrueupError:
        return {}


def read_demonstrations(artifact: Artifact) -> list[Demonstration]:
    expect_kind(artifact, "demonstrations")
    return [Demonstration.from_json(row) for row in rows_of(artifact)]


def read_judgements(artifact: Artifact) -> list[Judgement]:
    expect_kind(artifact, *JUDGED)
    return [Judgement.from_json(row) for row in rows_of(artifact)]


def read_completions(artifact: Artifact) -> list[Completion]:
    expect_kind(artifact, "completions")
    found = []
    for row in rows_of(artifact):
        prompt = Prompt.from_json(row["prompt"])
        found += [Completion.from_json(prompt, c) for c in row["completions"]]
    return found


def read_drafts(artifact: Artifact) -> list[Demonstration]:
    """A completion set to look at: each completion with its prompt."""
    return [Demonstration(completion.prompt, completion.text) for completion in read_completions(artifact)]


def stored_scores(completions: Sequence[Completion]) -> list[float]:
    """The scores that came with the completions, such as those of the best of n."""
    if lacking := sum(not isinstance(c.meta.get("score"), int | float) for c in completions):
        raise TrueupError(
            f"{lacking} of the {len(completions)} completions have no score stored with them",
            "name the reward model that is to score them: --reward",
        )
    return [float(completion.meta["score"]) for completion in completions]


def put_records(
    workspace: Workspace,
    kind: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str = "",
    parents: Mapping[str, Artifact] | None = None,
    **meta: Any,
) -> Artifact:
    with workspace.staging() as folder:
        write_jsonl(folder / ROWS, rows)
        return workspace.put(kind, folder, parents=parents or {}, meta={"rows": len(rows), **meta}, name=name)


def completion_rows(completions: Sequence[Completion]) -> list[dict[str, Any]]:
    return [
        {"prompt": group[0].prompt.to_json(), "completions": [c.to_json(logprobs=True) for c in group]}
        for group in by_prompt(completions)
    ]


# --- artifacts as models


def load_reader(folders: Sequence[str], settings: ModelSettings) -> tuple[Encoder, int]:
    """How the model in a chain of folders reads text, and how much of it at once. No weights are loaded."""
    from .models.language_model import context_of
    from .models.load import load_config, load_encoder
    from .models.reward_model import PARTS

    root = f"{folders[0]}/{PARTS[0]}" if stored_kind(folders[0]) == "features" else folders[0]
    return load_encoder(folders[-1], settings, None), context_of(load_config(root, settings))


def load_policy(run: Run, role: str, config: Any, *, trainable: bool = False, prompt: Any = None) -> LanguageModel:
    from .models.load import load_model

    artifact = run.inputs[role]
    bits = artifact.meta.get("quantised")
    if bits and run.resume_folder is None and (trainable or run.stage in ("sample", "winrate", "safety", "compare")):
        run.tell("folded", f"{artifact.id} learnt beside a base in {bits}; its adapter is folded into the whole base")
    return load_model(
        chain(run.workspace, artifact), config.model, prompt=prompt, source=artifact.id, trainable=trainable,
        seed=config.run.seed,
    )  # fmt: skip


@contextmanager
def sampler_of(model: LanguageModel, prompts: int) -> Iterator[Sampler]:
    from .engines.sampler import Sampler
    from .runs import track

    with track(prompts, "sample") as advance:
        yield Sampler(model, progress=advance)


def longest_row(asked: int, context: int) -> int:
    """The longest row, in tokens."""
    if asked > context:
        raise ModelError(f"max_tokens is {asked}, but the model's context is {context}", "lower it, or leave it out")
    return asked or context


# --- the built-in world


def require_gold(prompts: Sequence[Prompt]) -> None:
    if not in_world(prompts):
        raise TrueupError("these prompts have no gold score", "only the built-in world has one; name a reward model")


def in_world(prompts: Sequence[Prompt]) -> bool:
    return bool(prompts) and all("world" in prompt.meta for prompt in prompts)


# --- inside


def expect_kind(artifact: Artifact, *kinds: str) -> None:
    if artifact.kind not in kinds:
        raise TrueupError(
            f"artifact {artifact.id} is of kind '{artifact.kind}', not '{' or '.join(kinds)}'",
            "see `trueup artifacts list`",
        )


def rows_of(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """One after another: rows as they are in the file take more memory than the records made of them."""
    path = artifact.path / ROWS
    if not path.is_file():
        raise TrueupError(f"artifact {artifact.id} ({artifact.kind}) holds no rows", "see `trueup artifacts list`")
    return read_jsonl(path)
