"""Which model is better, how it differs, what it refuses, from Python: `trueup eval winrate`, `compare`, `safety`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import comparing
from .config import RemoteSettings, Table
from .errors import ConfigError
from .inputs import Ref, by_role
from .loading import read_prompts, require_gold
from .running import check_best_of, config_of, run_stage
from .store import Artifact, Workspace


def winrate(
    ws: Workspace,
    *,
    a: Ref,
    b: Ref,
    prompts: Ref,
    others: Sequence[Ref] = (),
    judge: Ref = "gold",
    reward: Ref | Mapping[str, Ref] | None = None,
    guideline: str = "",
    config: Table | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """How often `a`'s answer beats `b`'s on the same prompts, ties half; with `others` every two of them, and ratings.

    Each is a model, one behind a server ("http://127.0.0.1:8000/v1#MODEL"), or a completion set. `judge` is a reward
    model kept out of training, a function, a language model that is asked (here or behind a server), judgements that
    are there already, "gold" in the built-in world, or "people:NAME": the first call puts the pairs into the collection
    NAME, under `guideline`, and every further one tells what has been said in it. `reward` chooses B's best of n.
    """
    chosen = config_of("winrate", config, settings)
    check_best_of(reward, chosen)
    models: list[Ref] = [a, b, *others]
    progress: dict[str, Any] = {}
    if isinstance(judge, str) and judge.startswith(comparing.PEOPLE):
        name = judge.removeprefix(comparing.PEOPLE)
        sets, votes, progress = comparing.before_people(ws, name, models, prompts, chosen, guideline)
        if votes is None:
            return {"waiting": progress}
        models, judge = list(sets), votes
        chosen = chosen.model_copy(update={"remote": RemoteSettings()})  # whoever is behind a server has answered
    elif guideline:
        raise ConfigError("a guideline is for people", "of a model that is asked it is the setting asked.guideline")
    optional = {} if reward is None else {"reward": reward}
    more = {f"other.{i}": model for i, model in enumerate(models[2:], 1)}
    refs = by_role(
        {"a": models[0], "b": models[1], **more, "prompts": prompts, **comparing.with_judge(ws, judge)} | optional
    )
    found = _result(run_stage(ws, "winrate", refs, chosen, {}, ""))
    return found | ({"waiting": progress} if progress else {})


def compare(
    ws: Workspace,
    models: Sequence[Ref],
    *,
    prompts: Ref,
    judge: Ref = "",
    reference: Ref | None = None,
    text: Ref | None = None,
    measures: Mapping[str, Ref] | None = None,
    config: Table | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Models on one table, each beside the first: who wins, how far each moved from `reference`, what it writes like,
    how much more demonstrations (`text`) surprise it, further scorers by name (`measures`), and what it cost.

    `judge` is as in `winrate`; without one nobody judges, but in the built-in world gold does.
    """
    if len(models) < 2:
        raise ConfigError("one model alone has nothing to be compared with", "name two or more")
    others = {f"other.{i}": model for i, model in enumerate(models[1:], 1)}
    refs: dict[str, Ref | Mapping[str, Ref]] = {"a": models[0], **others, "prompts": prompts}
    refs |= {role: ref for role, ref in (("reference", reference), ("text", text)) if ref is not None}
    refs |= {"measure": measures} if measures else {}
    refs |= comparing.with_judge(ws, judge) if judge else {}
    if judge == "gold":
        require_gold(read_prompts(ws.get(prompts)))
    return _result(run_stage(ws, "compare", by_role(refs), config, settings, ""))


def safety(
    ws: Workspace,
    *,
    model: Ref,
    prompts: Ref,
    before: Ref | None = None,
    judge: Ref = "rules",
    config: Table | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """How often `model` refuses unsafe prompts, and safe ones, of a set whose prompts are labelled; beside `before`.

    `judge` reads the answers: "rules", or a language model, here or behind a server ("http://127.0.0.1:8000/v1#MODEL").
    """
    refs: dict[str, Ref] = {"model": model, "prompts": prompts} | ({} if before is None else {"before": before})
    if judge != "rules":
        refs["asked"] = judge
    return _result(run_stage(ws, "safety", refs, config, settings, ""))


def _result(artifact: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((artifact.path / "result.json").read_text())
    return found | {"evaluation": artifact.id}
