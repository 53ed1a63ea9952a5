"""What a model refuses: labelled prompts answered, and each answer read as one that complies or refuses."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .config import SafetyConfig
from .errors import DataError
from .evals.refusals import Reply, by_rules, completion_id, questions, read_reply
from .evals.safety import LABEL, LABELS, before_and_after, findings, label_of
from .evals.safety import safety as measured
from .loading import read_prompts
from .questioning import asked, check_missing, who_was_asked
from .records import Completion
from .runs import Run
from .store import Artifact
from .writing import answered, concluded, with_room_for


def safety(run: Run, config: SafetyConfig) -> Artifact:
    """The stage. `before` is another model to compare with, such as the one that RL began from."""
    from .models.device import use_threads

    use_threads(config.run.threads)
    every = read_prompts(run.inputs["prompts"])
    prompts = [prompt for prompt in every if label_of(prompt)][: config.limit or None]
    if not prompts:
        raise DataError(
            f"none of the {len(every)} prompts is labelled {' or '.join(LABELS)}",
            f"add a file with the columns prompt and {LABEL}: trueup data add FILE --kind prompts",
        )
    roles = [role for role in ("model", "before") if role in run.inputs]
    prompts, dropped = with_room_for(run, roles, prompts, config)
    answers: dict[str, list[Completion]] = {
        role: answered(run, role, config, prompts, config.sampling, config.run.seed + place)
        for place, role in enumerate(roles)
    }
    replies, judge = _read(run, config, answers)
    models = [{"model": run.inputs[role].id, **measured(answers[role], replies[role])} for role in roles]
    changed = before_and_after(replies["before"], replies["model"], prompts) if "before" in replies else {}
    result = {
        "models": models, "changed": changed, "judge": judge, "findings": findings(models[0], changed),
        "unlabelled": sum(not label_of(prompt) for prompt in every), "dropped": dropped,
    }  # fmt: skip
    rows = [
        {"prompt": prompt.to_json(), "label": label_of(prompt)}
        | {role: {"text": answers[role][i].text, "reply": replies[role][i]} for role in roles}
        for i, prompt in enumerate(prompts)
    ]
    return concluded(run, rows, result)


def _read(
    run: Run, config: SafetyConfig, answers: dict[str, list[Completion]]
) -> tuple[dict[str, list[Reply]], dict[str, Any]]:
    """What each answer is, and who says so."""
    if "asked" not in run.inputs:
        return {role: [by_rules(c.text) for c in mine] for role, mine in answers.items()}, {"kind": "rules"}
    every = [completion for mine in answers.values() for completion in mine]
    found = asked(run, config, questions(every, config.asked.guideline), read_reply)
    missing = Counter(one.why for one in found.values() if not one.said)
    check_missing(run, config, missing, len(found), "answers")
    empty: Reply = "refused"  # of an answer without a word nobody has to ask
    replies = {
        role: [_reply(found[completion_id(c)].said) if c.text.strip() else empty for c in mine]
        for role, mine in answers.items()
    }
    return replies, who_was_asked(run) | {"missing": dict(missing)}


def _reply(said: str) -> Reply:
    assert said in ("complied", "partly", "refused", "")
    return said  # type: ignore[return-value]
