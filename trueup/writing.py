"""What a model answers, whether its weights are here or behind a server.

A run keeps its answers as they come, so that a resumed one asks nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from .config import Sampling
from .errors import ModelError
from .inputs import REMOTE
from .loading import load_policy, sampler_of
from .records import FAILED, Completion, Prompt
from .runs import Run, track
from .runs.streams import Stream, read_stream
from .store import read_jsonl, remove, write_jsonl


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
