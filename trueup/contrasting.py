"""`trueup data contrast`: demonstrations as data for a reward model, each preferred to a model's own completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ConfigError
from .inputs import Ref, find_input
from .loading import put_records, read_completions, read_demonstrations
from .records import Completion, Demonstration, Judgement, digest
from .store import Artifact, Workspace
from .text.formats import group_of, split_by_prompt

JUDGE = "demonstration preferred"  # the rule, under which its rows stand apart from what people said


@dataclass(frozen=True)
class Contrast:
    """The set that was made, and what could not be used: completions of prompts without a demonstration, demonstrations
    of prompts without a completion, and completions that are a demonstration of their prompt word for word."""

    artifact: Artifact
    judgements: int
    undemonstrated: int
    unanswered: int
    equal: int


def contrast_data(
    ws: Workspace, demonstrations: Ref, completions: Ref, *, heldout: float = 0.1, seed: int = 0, name: str = ""
) -> Contrast:
    """A preference set in which every demonstration is better than every completion of its prompt, by rule.

    Nobody compared the two: what is learnt is to tell the one writer from the other, by whatever tells them.
    """
    given = {
        "demonstrations": find_input(ws, "demonstrations", demonstrations, ("demonstrations",)).artifact,
        "completions": find_input(ws, "completions", completions, ("completions",)).artifact,
    }
    parents = {role: artifact for role, artifact in given.items() if artifact is not None}
    shown = _by_prompt(read_demonstrations(parents["demonstrations"]))
    written = read_completions(parents["completions"])
    answered = [(shown[completion.prompt.id], completion) for completion in written if completion.prompt.id in shown]
    worse = [(demos, c) for demos, c in answered if c.text not in {demo.completion for demo in demos}]
    different = {(demo, c.text, c.finished): c for demos, c in worse for demo in demos}
    rows = [_judgement(demo, completion, heldout, seed) for (demo, _, _), completion in different.items()]
    if not rows:
        raise ConfigError(
            f"none of the {len(shown)} demonstrated prompts has a completion that differs from its demonstrations",
            "let a model answer them first: trueup sample --model MODEL --prompts DEMONSTRATIONS",
        )
    found = {completion.prompt.id for completion in written}
    artifact = put_records(ws, "preferences", [row.to_json() for row in rows], name=name, parents=parents)
    return Contrast(
        artifact,
        len(rows),
        undemonstrated=len(written) - len(answered),
        unanswered=sum(len(demos) for prompt, demos in shown.items() if prompt not in found),
        equal=len(answered) - len(worse),
    )


def _by_prompt(demonstrations: Sequence[Demonstration]) -> dict[str, list[Demonstration]]:
    groups: dict[str, list[Demonstration]] = {}
    for demonstration in demonstrations:
        groups.setdefault(demonstration.prompt.id, []).append(demonstration)
    return groups


def _judgement(demo: Demonstration, completion: Completion, heldout: float, seed: int) -> Judgement:
    """Which of the two stands first is drawn from their text: an order that never changes would look like a bias."""
    sides = [(demo.completion, True, 1), (completion.text, completion.finished, 2)]
    if int(digest([demo.prompt.id, demo.completion, completion.text])[:8], 16) % 2:
        sides.reverse()
    texts, finished, ranks = zip(*sides, strict=True)
    split = split_by_prompt(group_of(demo.prompt), heldout, seed)
    meta = {"finished": list(finished)}
    return Judgement(demo.prompt, texts, ranks, JUDGE, "rule", split=split, meta=meta)
