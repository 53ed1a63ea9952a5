"""A language model that judges, in a run: its answers are kept as they come; a resumed run asks nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from .config import Sampling
from .errors import ModelError
from .evals.asked import Asked, Known, Question, ask
from .inputs import REMOTE
from .loading import load_policy
from .records import FAILED, Completion, Prompt
from .runs import Run, track
from .runs.streams import Stream, read_stream
from .writing import ASKED, say_trouble, source_of, told

if TYPE_CHECKING:
    from .ports import Engine
    from .text.chat import Encoder


def asked(run: Run, config: Any, questions: Mapping[str, Question], read: Callable[[str], str]) -> Known:
    """What the model in the input `asked` says to each question, as `read` understands it."""
    kept = {row["question"]: Asked.from_json(row) for row in read_stream(run.path / ASKED)}
    known = {question: kept[question] for question in questions if question in kept}
    engine, trouble = _who_is_asked(run, config), Counter[str]()
    with closing(Stream(run.path / ASKED)) as stream:
        stream.cut_torn_line()

        def keep(answers: Sequence[Asked]) -> None:
            for answer in answers:
                stream.append(answer.to_json())
            stream.sync()

        with track(len(questions), "judge", start=len(known)) as advance:
            found = ask(
                engine, questions, read, config.asked, known=known, keep=keep, at_once=2 * config.remote.at_once,
                seed=config.run.seed, advance=advance, trouble=trouble,
            )  # fmt: skip
    say_trouble(run, "asked", trouble + Counter(getattr(engine, "trouble", {})))
    return found


def check_missing(run: Run, config: Any, missing: Mapping[str, int], of: int, what: str) -> None:
    """More without a verdict than the settings allow for: the run fails, and keeps what was said."""
    count = sum(missing.values())
    if count > config.asked.missing * of:
        raise ModelError(
            f"{count} of {of} {what} have no verdict: {told(missing)}",
            f"ask again for these: {run.resume_command}; a new run may go without some: --set asked.missing=0.05",
        )


def who_was_asked(run: Run) -> dict[str, Any]:
    source = run.inputs["asked"]
    return {"kind": "model", "id": source.id, "model": source.meta.get("source", source.id)}


def _who_is_asked(run: Run, config: Any) -> Engine:
    if run.inputs["asked"].kind == REMOTE:
        from .engines.remote import RemoteEngine

        return RemoteEngine(source_of(run, "asked"), config.remote)
    from .engines.sampler import Sampler

    model = load_policy(run, "asked", config)
    return Fitting(Sampler(model), model.encoder, model.context)


class Fitting:
    """An engine that says of a prompt too long for it that it is, instead of ending the run over one of a thousand."""

    def __init__(self, engine: Engine, encoder: Encoder, context: int) -> None:
        self.engine, self.encoder, self.context = engine, encoder, context

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int, n: int = 1) -> list[Completion]:
        room = self.context - sampling.max_new_tokens
        fits = [self.encoder.fit(prompt, room) is prompt for prompt in prompts]
        asked = [prompt for prompt, yes in zip(prompts, fits, strict=True) if yes]
        answers = iter(self.engine.sample(asked, sampling, seed=seed, n=n) if asked else ())
        long = {FAILED: f"longer than its context of {self.context} tokens leaves room for"}
        return [
            next(answers) if yes else Completion(prompt, "", finished=False, meta=long)
            for prompt, yes in zip(prompts, fits, strict=True)
            for _ in range(n)
        ]

    def logprobs(self, completions: Sequence[Completion], temperature: float = 1.0) -> list[list[float]]:
        return self.engine.logprobs(completions, temperature)
