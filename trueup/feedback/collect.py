"""Filling a collection: completion sets become items that people can be handed.

Everything here is a function of the sets, the settings and a seed, and the store takes the same item only once. So a
collection that was cut off is completed by asking for it again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import Any

from ..config import CollectionConfig, check
from ..errors import ConfigError, DataError, TrueupError, WorkspaceError
from ..records import Completion, Judgement, Prompt
from ..runs.progress import track
from ..store import JUDGED, Artifact, Workspace, audit, queue, read_jsonl, write_jsonl
from ..store.artifacts import check_name
from ..store.items import NewItem, Role
from ..text.formats import group_of
from .golds import MANY, too_few
from .leaks import LeakFinder
from .splits import Split, known_sides, side_of

MOST = 9  # completions of an item: a digit key each
ROWS = "rows.jsonl"


@dataclass(frozen=True)
class Filling:
    """How candidates become items. `per_item` 0 takes two for a pair and all, up to nine, for the other tasks."""

    items_per_prompt: int = 1
    per_item: int = 0
    heldout: float = 0.1
    limit: int = 0  # prompts, 0 for all
    drawn: float = 1.0  # share of the prompts that the candidates were sampled for
    seed: int = 0


@dataclass(frozen=True)
class Collected:
    """What became of the candidates: how many items there are, how many are new, what was left out and why."""

    collection: queue.Collection
    items: int
    added: int
    golds: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    leaks: int = 0  # items with a completion that names a model
    warning: str = ""  # what the settings will not do

    def to_json(self) -> dict[str, Any]:
        return {
            "collection": self.collection.id,
            "name": self.collection.name,
            "items": self.items,
            "added": self.added,
            "golds": self.golds,
            "left_out": dict(self.left_out),
            "leaks": self.leaks,
        } | ({"warning": self.warning} if self.warning else {})


def collect(
    workspace: Workspace,
    name: str,
    config: CollectionConfig,
    completions: Sequence[str | Artifact],
    *,
    now: float,
    guideline: str = "",
    golds: Sequence[NewItem] = (),
    filling: Filling = Filling(),  # noqa: B008 - frozen
) -> Collected:
    """Make the collection `name`, or go on with it, and put the candidates of these completion sets into its queue.

    A set of judgements is taken as what was judged in it, to be judged anew: of what was said of it nothing is shown.
    """
    check_question(workspace, name, config, golds, filling)
    source, candidates = merged(workspace, completions)
    collection = open_collection(workspace, name, config, guideline, now)
    left_out: Counter[str] = Counter()
    sides = sides_of(workspace, completions)
    items = fill(candidates, source, config, filling, left_out, model_names(workspace, candidates), sides)
    found = leaks = added = 0
    with track(min(filling.limit or len(candidates), len(candidates)), f"filling '{name}'") as advance:
        for page in _pages(items, advance):
            found += len(page)
            leaks += sum("leaks" in item.why for item in page)
            added += queue.add_items(workspace.database, collection.id, page, now)
    if not found:
        raise DataError(f"no prompt can be asked about: {_told(left_out)}", "sample more completions a prompt")
    checks = queue.add_items(workspace.database, collection.id, golds, now)
    if added or checks:
        about = {"artifact": source.id, "added": added, "checks": checks}
        audit.note(workspace.database, now, "", "filled a collection", collection.id, **about)
    return Collected(collection, found, added, len(golds), dict(left_out), leaks, too_few(config))


def check_question(
    workspace: Workspace, name: str, config: CollectionConfig, golds: Sequence[NewItem], filling: Filling
) -> None:
    """Whatever can be known to be wrong before anything is sampled."""
    check(config)
    check_name(name)
    least, most = (2, 2) if config.task == "pair" else (2, MOST) if config.task == "ranking" else (1, MOST)
    if filling.per_item and not least <= filling.per_item <= most:
        words = "exactly 2" if least == most else f"{least} to {most}"
        raise ConfigError(f"an item of a {config.task} task shows {words} completions, not {filling.per_item}")
    if filling.items_per_prompt < 1 or filling.limit < 0 or not 0 <= filling.heldout < 1:
        raise ConfigError("items_per_prompt is at least 1, limit at least 0, heldout from 0 to below 1")
    before = _known(workspace, name)
    settings = config.model_dump(mode="json")
    asked = CollectionConfig.model_validate(dict(before.config)).model_dump(mode="json") if before else settings
    if different := [key for key, value in settings.items() if asked[key] != value]:
        raise WorkspaceError(
            f"there is a collection '{name}' already, with another {', '.join(different)}",
            "what people were asked cannot change under them: give the new one another name",
        )
    if config.task == "edit" and (config.qualification or config.gold_every):
        raise ConfigError("nobody can know how a text ought to be rewritten", "qualification and gold_every need ranks")
    if (config.qualification or config.gold_every) and not golds and not (before and _has_golds(workspace, before.id)):
        raise DataError("qualification and gold_every need items with known answers", "give them with --golds")


def open_collection(
    workspace: Workspace, name: str, config: CollectionConfig, guideline: str, now: float
) -> queue.Collection:
    """The collection of this name, made if there is none. Another guideline text is a new version."""
    found = _known(workspace, name)
    if found is None:
        settings = config.model_dump(mode="json")
        found = queue.create_collection(workspace.database, name, settings, guideline, now)
        audit.note(workspace.database, now, "", "made a collection", found.id)
    elif guideline:
        queue.add_guideline(workspace.database, found.id, guideline, now)
    return queue.collection(workspace.database, found.id)


def first_prompts(prompts: Sequence[Prompt], limit: int, seed: int) -> list[Prompt]:
    """The prompts that are asked about first, in an order that the seed decides."""
    return sorted(prompts, key=lambda prompt: _digest(seed, "order", prompt.id))[: limit or None]


def merged(workspace: Workspace, refs: Sequence[str | Artifact]) -> tuple[Artifact, list[list[Completion]]]:
    """One completion set, and its completions by prompt. Several sets become one, in which a prompt has all its own."""
    if not refs:
        raise DataError("there is nothing to judge", "name a completion set, or prompts and a model")
    sets = [_completion_set(workspace, workspace.get(ref)) for ref in refs]
    prompts: dict[str, Prompt] = {}
    groups: dict[str, list[Completion]] = {}
    for artifact in sets:
        for prompt, rows in _rows(artifact):
            kept = prompts.setdefault(prompt.id, prompt)
            groups.setdefault(prompt.id, []).extend(_completion(kept, row, artifact) for row in rows)
    found = list(groups.values())
    return (sets[0] if len(sets) == 1 else _put_merged(workspace, sets, found)), found


def sides_of(workspace: Workspace, refs: Sequence[str | Artifact]) -> dict[str, Split]:
    """Group of prompts -> the side of the split that a collection has it on, else the side that it was judged on."""
    sides = known_sides(workspace)
    judged: dict[str, Split] = {}
    for artifact in map(workspace.get, refs):
        for row in read_jsonl(artifact.path / ROWS) if artifact.kind in JUDGED else ():
            group = group_of(Prompt.from_json(row["prompt"]))
            judged[group] = "heldout" if "heldout" in (row["split"], judged.get(group)) else "train"
    return judged | sides


def model_names(workspace: Workspace, groups: Sequence[Sequence[Completion]]) -> list[str]:
    """What the models of these completions are called: a text that says it names its writer."""
    ids = {completion.model for group in groups for completion in group}
    named = [name for name, artifact in workspace.names().items() if artifact in ids]
    return [name for name in (*named, *sorted(ids)) if len(name) > 3]


def fill(
    candidates: Sequence[Sequence[Completion]],
    source: Artifact,
    config: CollectionConfig,
    filling: Filling,
    left_out: Counter[str],
    model_names: Iterable[str] = (),
    sides: Mapping[str, Split] | None = None,
) -> Iterator[NewItem | None]:
    """The items of each prompt in an order that the seed decides; None after the last item of a prompt.

    `sides`: of the split, for prompts that are on one already.
    """
    find_leaks = LeakFinder(model_names)
    groups = {group[0].prompt.id: group for group in candidates}
    chosen = first_prompts([group[0].prompt for group in candidates], filling.limit, filling.seed)
    share = filling.drawn * len(chosen) / max(1, len(candidates))
    for group in (groups[prompt.id] for prompt in chosen):
        different = list({c.text.strip(): c for c in reversed(group) if c.text.strip()}.values())[::-1]
        left_out["completions that repeat another or are empty"] += len(group) - len(different)
        taken, chance = _taken(different, config, filling)
        if not taken:
            left_out["prompts with fewer than two different completions"] += 1
        for texts in taken:
            yield _item(texts, source, config, filling, chance * share, find_leaks, sides or {})
        yield None


def calibrated(prompt: str, config: CollectionConfig, seed: int) -> tuple[Role, int]:
    """Whether an item about this prompt (an id) is of the share that several people get, and how many get it."""
    shared = config.calibration_overlap > config.overlap
    if shared and _digest(seed, "calibration", prompt) < config.calibration_share * 2**64:
        return "calibration", config.calibration_overlap
    return "main", config.overlap


# Inside


def _taken(
    completions: Sequence[Completion], config: CollectionConfig, filling: Filling
) -> tuple[list[tuple[Completion, ...]], float]:
    """Groups of completions to be shown together, and the chance that each possible group had."""
    size = filling.per_item or (2 if config.task == "pair" else min(MOST, len(completions)))
    least = 2 if config.task in ("pair", "ranking") else 1
    if len(completions) < max(least, size if config.task == "pair" else least):
        return [], 0.0
    chance = Random(f"{filling.seed} {completions[0].prompt.id}")
    size = min(size, len(completions))
    if size == 2:
        every = list(combinations(completions, 2))
        chance.shuffle(every)
        # Models are compared with each other first; among pairs of the same kind the seed decides.
        every.sort(key=lambda pair: pair[0].model == pair[1].model)
        taken: list[tuple[Completion, ...]] = [_mixed(pair, chance) for pair in every[: filling.items_per_prompt]]
        return taken, min(1.0, filling.items_per_prompt / len(every))
    groups: dict[frozenset[str], tuple[Completion, ...]] = {}
    for _ in range(filling.items_per_prompt):
        group = tuple(chance.sample(completions, size))
        groups.setdefault(frozenset(c.text for c in group), group)
    return list(groups.values()), size / len(completions)


def _mixed(pair: tuple[Completion, ...], chance: Random) -> tuple[Completion, ...]:
    return tuple(chance.sample(pair, len(pair)))  # the first is not always the one that was sampled first


def _item(
    group: Sequence[Completion],
    source: Artifact,
    config: CollectionConfig,
    filling: Filling,
    probability: float,
    find_leaks: LeakFinder,
    sides: Mapping[str, Split],
) -> NewItem:
    prompt = group[0].prompt
    role, overlap = _role(prompt.id, config, filling.seed)
    why: dict[str, Any] = {"strategy": "random", "probability": round(probability, 8)}
    if found := [word for completion in group for word in find_leaks(completion.text)]:
        why["leaks"] = list(dict.fromkeys(found))
    return NewItem(
        prompt=prompt,
        texts=tuple(c.text for c in group),
        completions=source.id,
        finished=tuple(c.finished for c in group),
        models=tuple(c.model for c in group),
        role=role,
        overlap=overlap,
        why=why,
        split=side_of(prompt, sides, filling.heldout),
    )


def _role(prompt: str, config: CollectionConfig, seed: int) -> tuple[Role, int]:
    """What an item is for, and how many people it goes to. By the prompt's id, so that it never changes."""
    if config.control_every and _digest(seed, "control", prompt) < 2**64 / (config.control_every + 1):
        return "control", MANY
    return calibrated(prompt, config, seed)


def _digest(seed: int, purpose: str, value: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}:{value}".encode()).digest()[:8], "big")


def _completion_set(workspace: Workspace, artifact: Artifact) -> Artifact:
    """The set itself; of judgements, one of the texts that were judged, each once a prompt, that leads back to them."""
    if artifact.kind == "completions":
        return artifact
    if artifact.kind not in JUDGED:
        raise TrueupError(
            f"artifact {artifact.id} is of kind '{artifact.kind}', not 'completions'",
            "sample some: trueup sample; or add a file of them: trueup data add FILE --kind completions",
        )
    prompts: dict[str, Prompt] = {}
    texts: dict[str, dict[str, Completion]] = {}
    for row in read_jsonl(artifact.path / ROWS):
        judgement = Judgement.from_json(row)
        prompt = prompts.setdefault(judgement.prompt.id, judgement.prompt)
        for completion in _judged_texts(prompt, judgement):
            texts.setdefault(prompt.id, {}).setdefault(completion.text, completion)
    groups = [list(found.values()) for found in texts.values()]
    return _put(workspace, groups, {"texts": artifact}, source=f"what was judged in {artifact.id}")


def _judged_texts(prompt: Prompt, judgement: Judgement) -> Iterator[Completion]:
    """With what is noted of them where the judgement came from a collection or a data set."""
    finished, models = (_noted(judgement, name) for name in ("finished", "models"))
    for i, text in enumerate(judgement.completions):
        model = str(models[i] or "") if models else ""
        yield Completion(prompt, text, finished=bool(finished[i]) if finished else True, model=model)


def _noted(judgement: Judgement, name: str) -> Sequence[Any]:
    """What stands in `meta` for each completion; nothing where it does not fit."""
    noted = judgement.meta.get(name)
    return noted if isinstance(noted, list) and len(noted) == len(judgement.completions) else ()


def _rows(artifact: Artifact) -> Iterator[tuple[Prompt, Sequence[Mapping[str, Any]]]]:
    for row in read_jsonl(artifact.path / ROWS):
        yield Prompt.from_json(row["prompt"]), row["completions"]


def _completion(prompt: Prompt, row: Mapping[str, Any], artifact: Artifact) -> Completion:
    """Without tokens: nobody judges those."""
    return Completion(prompt, row["text"], finished=row.get("finished", True), model=row.get("model") or artifact.id)


def _put_merged(workspace: Workspace, sets: Sequence[Artifact], groups: Sequence[Sequence[Completion]]) -> Artifact:
    parents = {"completions" + (f" {i}" if i > 1 else ""): each for i, each in enumerate(sets, 1)}
    return _put(workspace, groups, parents)


def _put(
    workspace: Workspace, groups: Sequence[Sequence[Completion]], parents: Mapping[str, Artifact], **meta: Any
) -> Artifact:
    rows = ({"prompt": group[0].prompt.to_json(), "completions": [c.to_json() for c in group]} for group in groups)
    with workspace.staging() as folder:
        write_jsonl(folder / ROWS, rows)
        return workspace.put("completions", folder, parents=parents, meta={"rows": len(groups), **meta})


def _known(workspace: Workspace, name: str) -> queue.Collection | None:
    return next((each for each in queue.collections(workspace.database) if each.name == name), None)


def _has_golds(workspace: Workspace, collection: str) -> bool:
    roles: tuple[Role, ...] = ("gold", "qualification")
    return any(queue.items(workspace.database, collection, limit=1, role=role) for role in roles)


def _pages(items: Iterable[NewItem | None], advance: Any, size: int = 500) -> Iterator[list[NewItem]]:
    page: list[NewItem] = []
    for item in items:
        if item is None:
            advance(1)
        else:
            page.append(item)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


def _told(left_out: Mapping[str, int]) -> str:
    return "; ".join(f"{n:,} {why}" for why, n in left_out.items() if n) or "there are no prompts"
