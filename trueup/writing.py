"""What takes part in an evaluation answers: a model here, one behind a server, or a set of completions; and the result.

A run keeps its answers as they come, so that a resumed one asks nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from .config import Sampling
from .errors import ModelError, TrueupError
from .inputs import REMOTE, chain
from .loading import ROWS, load_policy, load_reader, read_completions, sampler_of
from .preparing import with_room
from .records import FAILED, Completion, Prompt
from .runs import Run, track
from .runs.streams import Stream, read_stream
from .store import Artifact, read_jsonl, remove, write_jsonl

ASKED = "asked.jsonl"  # in a run's folder, and beside its result: what a judge that was asked said


def is_here(run: Run, role: str) -> bool:
    """Whether this input is a model whose weights are at hand."""
    return run.inputs[role].kind not in ("completions", REMOTE)


def with_room_for(run: Run, roles: Sequence[str], prompts: Sequence[Prompt], config: Any) -> tuple[list[Prompt], int]:
    """The prompts that leave all of these models here room for an answer; how many do not."""
    here = [run.inputs[role] for role in roles if is_here(run, role)]
    return with_room(run, prompts, [load_reader(chain(run.workspace, each), config.model) for each in here], config)


def answered(
    run: Run, role: str, config: Any, prompts: Sequence[Prompt], sampling: Sampling, seed: int, each: int = 1
) -> list[Completion]:
    """`each` answers to a prompt: written now, or the first ones of a completion set."""
    if run.inputs[role].kind == "completions":
        return _stored(run.inputs[role], prompts, each)
    return written(run, role, config, prompts, sampling, seed, each)


def concluded(run: Run, rows: Iterable[Mapping[str, Any]], result: Mapping[str, Any]) -> Artifact:
    """The evaluation as an artifact, beside it all that a judge said; and the end of the run."""
    with run.workspace.staging() as folder:
        write_jsonl(folder / ROWS, rows)
        if (run.path / ASKED).is_file():
            said = {row["question"]: row for row in read_stream(run.path / ASKED)}
            write_jsonl(folder / ASKED, (said[question] for question in sorted(said)))  # whenever it was said
        (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        artifact = run.workspace.put("evaluation", folder, parents=run.inputs, meta={"config": run.config})
    run.output("evaluation", artifact)
    forget(run)
    run.finish(result)
    return artifact


def written(
    run: Run, role: str, config: Any, prompts: Sequence[Prompt], sampling: Sampling, seed: int, each: int
) -> list[Completion]:
    """`each` completions a prompt by the model in this input of the run, those of a prompt side by side."""
    if run.inputs[role].kind == REMOTE:
        return _from_server(run, role, config, prompts, sampling, seed, each)
    kept = run.path / f"answers-{role}.jsonl.gz"
    of = [prompt for prompt in prompts for _ in range(each)]
    if kept.is_file():
        return [Completion.from_json(prompt, row) for prompt, row in zip(of, read_jsonl(kept), strict=True)]
    with sampler_of(load_policy(run, role, config), len(prompts)) as sampler:
        completions = sampler.sample(prompts, sampling, seed=seed, n=each)
    write_jsonl(kept, (completion.to_json(logprobs=True) for completion in completions))
    return completions


def forget(run: Run) -> None:
    """Once they are in an artifact."""
    for kept in run.path.glob("answers-*.jsonl*"):
        remove(kept)


def source_of(run: Run, role: str) -> str:
    """Address and name of a model behind a server."""
    source: str = run.inputs[role].meta["source"]
    return source


def _stored(artifact: Artifact, prompts: Sequence[Prompt], each: int) -> list[Completion]:
    """With the prompts as they were asked: their tags and labels need not stand in the set."""
    found: dict[str, list[Completion]] = {}
    for completion in read_completions(artifact):
        found.setdefault(completion.prompt.id, []).append(completion)
    lacking = [prompt for prompt in prompts if len(found.get(prompt.id, ())) < each]
    if lacking:
        raise TrueupError(
            f"completion set {artifact.id} has fewer than {each} completions for {len(lacking)} of the "
            f"{len(prompts)} prompts",
            "sample it again for these prompts, or name the model instead",
        )
    return [replace(completion, prompt=prompt) for prompt in prompts for completion in found[prompt.id][:each]]


def _from_server(
    run: Run, role: str, config: Any, prompts: Sequence[Prompt], sampling: Sampling, seed: int, each: int
) -> list[Completion]:
    from .engines.remote import RemoteEngine

    kept = run.path / f"answers-{role}.jsonl"
    known = {row["place"]: row for row in read_stream(kept)}
    of = [prompt for prompt in prompts for _ in range(each)]
    todo = [place for place in range(len(of)) if place not in known]
    unanswered: dict[str, int] = {}
    with track(len(of), "ask", start=len(known)) as advance, closing(Stream(kept)) as stream:
        stream.cut_torn_line()
        engine = RemoteEngine(source_of(run, role), config.remote, progress=advance)
        # Each answer has the seed of its place, whichever of them are still to be asked for.
        answers = engine.each([of[place] for place in todo], sampling, [seed + place for place in todo])
        for place, completion in zip(todo, answers, strict=True):
            if why := completion.meta.get(FAILED):
                unanswered[why] = unanswered.get(why, 0) + 1
            else:
                known[place] = {"place": place, **completion.to_json()}
                stream.append(known[place])
        stream.sync()
    say_trouble(run, role, engine.trouble)
    if unanswered:
        raise ModelError(
            f"{sum(unanswered.values())} of {len(of)} answers are missing: {told(unanswered)}",
            f"ask again for these: {run.resume_command}",
        )
    return [Completion.from_json(prompt, known[place]) for place, prompt in enumerate(of)]


def say_trouble(run: Run, role: str, trouble: Mapping[str, int]) -> None:
    """What a server had to be asked again for: nothing is lost by it, but it is worth knowing."""
    if trouble:
        run.tell("asked again", f"the server of '{role}' had to be asked again: {told(trouble)}", **trouble)


def told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} x {why}" for why, n in sorted(counts.items(), key=lambda item: -item[1]))
