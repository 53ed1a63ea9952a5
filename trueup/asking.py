"""Trusting what people said and choosing what to ask them: quality, adjudication, freezing, coverage, learning curves.

What needs a model or a run is put together here; the rules themselves are in `trueup/feedback/`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from . import config as configs
from . import loading
from .config import CollectionConfig, ModelSettings, RewardConfig
from .errors import ConfigError, DataError, TrueupError
from .feedback import adjudicate as adjudication
from .feedback import choose as choosing
from .feedback import coverage as covering
from .feedback import freeze as freezing
from .feedback import learning as curves
from .feedback import quality as figures
from .feedback.collect import calibrated, merged, model_names, sides_of
from .feedback.leaks import LeakFinder
from .feedback.pooling import Rule
from .feedback.splits import Split, side_of
from .inputs import PROMPTS, SCORERS, Input, Ref, chain, find_input, find_inputs, note_inputs
from .records import Completion, Judgement, Prompt
from .runs import Run, track
from .stats import planning
from .store import Artifact, Workspace, audit, queue, read_jsonl
from .store.collections import new_id
from .store.figures import keep as keep_figures
from .store.items import ORDINARY, NewItem, bring_forward

GOLDS = 20  # fewer say too little: a rule that coins fail then rejects a third of good judges
DOUBTFUL = 0.7  # right answers of somebody whose work is worth little
Group = tuple[Completion, ...]


# --- before the work


def coverage(ws: Workspace, prompts: Ref, *, topics: int = 0, seed: int = 0) -> covering.Coverage:
    """What a prompt set covers: copies, lengths, topics, and where judgements are thin."""
    artifact = find_input(ws, "prompts", prompts, PROMPTS).artifact
    assert artifact is not None  # prompts are never taken from elsewhere
    if artifact.kind in ("prompts", "demonstrations"):
        found = list(_prompts(artifact))
    else:  # one row for each vote or draft: there a prompt that comes again is no copy
        found = loading.read_prompts(artifact)
    judged: Counter[str] = Counter(judgement.prompt.id for judgement in ws.judgements())
    for imported in ws.artifacts("preferences"):
        if "recognised" in imported.meta:  # a file that was added: its judgements are nowhere else
            judged.update(prompt.id for prompt in _prompts(imported))
    return covering.describe(found, judged, topics=topics, seed=seed)


def plan_collection(
    *,
    agreement: float,
    items: int = 0,
    overlap: int = 0,
    people: int = 5,
    calibration_share: float = 0.15,
    seconds: float = 60.0,
    heldout: float = 0.1,
    accuracy: float | None = None,
    width: float | None = None,
) -> dict[str, Any]:
    """Work, time and worth of a collection from an expected agreement of two people.

    `accuracy` of the labels chooses the overlap, `width` (half an interval) of the reward model's accuracy the items.
    """
    one = planning.accuracy_from_agreement(agreement)
    if accuracy is not None:
        found = planning.overlap_for(agreement, accuracy)
        if overlap or found is None:
            why = "give either overlap or accuracy" if overlap else f"no overlap reaches {accuracy:g}"
            raise ConfigError(why, "people have to agree more: write a better guideline, or train them on golds")
        overlap = found
    if width is not None:
        if items:
            raise ConfigError("give either items or the width of the interval")
        items = int(planning.items_for(width, one) / heldout + 0.999)
    made = planning.plan(
        agreement, items or 1000, overlap or 1, people, calibration_share=calibration_share, seconds=seconds,
        heldout=heldout,
    )  # fmt: skip
    needed = planning.golds_needed(GOLDS)
    assert needed is not None
    rule = {
        "golds": GOLDS,
        "needed": needed,
        "coin_passes": planning.gold_pass_rate(0.5, GOLDS, needed),
        "expected_passes": planning.gold_pass_rate(max(one, 0.5), GOLDS, needed),
        "doubtful_passes": planning.gold_pass_rate(DOUBTFUL, GOLDS, needed),
    }
    return made.to_json() | {"gold_rule": rule}


def choose(
    ws: Workspace,
    collection: str,
    *,
    completions: Sequence[Ref],
    n: int,
    strategy: choosing.Strategy = "random",
    rewards: Sequence[Ref] = (),
    random_share: float = choosing.RANDOM_SHARE,
    heldout: float = 0.1,
    first: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Put `n` of the candidates in completion sets into a collection, chosen by a strategy; how likely is noted. Of a
    set of judgements the candidates are what was judged in it, to be judged anew.

    With `first` they come before everything that waits already. A prompt that a collection asks about already keeps the
    side of the split that it is on; another's is decided by `heldout`.
    """
    found = queue.collection(ws.database, collection)
    config = CollectionConfig.model_validate(dict(found.config))
    source, groups = merged(ws, [ref if isinstance(ref, str) else ref.id for ref in completions])
    asked, highest = _asked(ws, found.id)
    options = [option for group in groups for option in _options(group, config.task, asked)]
    if not options:
        raise DataError(f"'{found.name}' has every candidate of these sets already", "sample more completions")
    sides = sides_of(ws, completions)
    candidates = [_candidate(option, side_of(option[0].prompt, sides, heldout)) for option in options]
    batch = _chosen(ws, options, candidates, n, strategy, rewards, random_share, seed)
    leaks = LeakFinder([*(name for name in ws.names() if len(name) > 3), *model_names(ws, groups)])
    priority = highest + 1 if first else 0
    items = [
        _new_item(options[pick.candidate], candidates[pick.candidate].heldout, source, leaks, pick.why | batch.about)
        for pick in batch.picks
    ]
    items = [replace(item, priority=priority, **_votes(item, config, seed)) for item in items]
    now = time.time()
    added = queue.add_items(ws.database, found.id, items, now)
    wrote = {"artifact": source.id, "models": sorted({model for item in items for model in item.models})}
    audit.note(ws.database, now, "", "chose items", found.id, **wrote, **batch.told, added=added)
    return {"collection": found.id} | batch.told | {"added": added}


def reorder(
    ws: Workspace,
    collection: str,
    *,
    n: int,
    strategy: choosing.Strategy = "random",
    rewards: Sequence[Ref] = (),
    random_share: float = choosing.RANDOM_SHARE,
    seed: int = 0,
) -> dict[str, Any]:
    """Let `n` of the items that wait, and that nobody has judged, come before the others, chosen by a strategy.

    Each notes, beside how it came into the collection, how it was chosen now and how likely that was.
    """
    found = queue.collection(ws.database, collection)
    waiting = [
        item
        for item in adjudication.every_item(ws, found.id)
        if item.role in ORDINARY and item.state == "open" and not item.done
    ]
    if not waiting:
        raise DataError(f"nothing waits in '{found.name}' that nobody has judged", "put more in: give completions")
    options = [tuple(Completion(item.prompt, text) for text in item.texts) for item in waiting]
    candidates = [_candidate(option, item.split) for option, item in zip(options, waiting, strict=True)]
    batch = _chosen(ws, options, candidates, n, strategy, rewards, random_share, seed)
    chosen = [(waiting[pick.candidate], pick.why | batch.about) for pick in batch.picks]
    moved = bring_forward(ws.database, found.id, {item.id: {**item.why, "reordered": why} for item, why in chosen})
    audit.note(ws.database, time.time(), "", "reordered items", found.id, **batch.told, moved=moved)
    return {"collection": found.id} | batch.told | {"moved": moved}


# --- after the work


def quality(ws: Workspace, collection: str, *, seed: int = 0) -> dict[str, Any]:
    """Compute every figure about a collection in a run of its own, and keep them for the pages that show them."""
    found = queue.collection(ws.database, collection)
    run = Run.start(ws, "quality", {"collection": found.id, "name": found.name}, {}, seed=seed)
    with run:
        value = figures.compute(ws, found.id, seed=seed)
        figures.keep(ws, found.id, value, now := time.time())
        adjudication.keep_differing(ws, found.id, value["n"], now)
        run.finish({"n": value["n"], "agreement": value["agreement"], "warnings": value["warnings"]})
    stored = figures.summary(ws, found.id, time.time())
    assert stored is not None
    return stored | {"collection": found.id, "name": found.name}


def freeze(
    ws: Workspace,
    collection: str,
    *,
    kind: freezing.Kind = "preferences",
    rule: Rule = "raw",
    heldout: float | None = None,
    heldout_judges: Sequence[str] = (),
    judges: Sequence[str] = (),
    assisted: freezing.Assisted = "",
    seed: int = 0,
    name: str = "",
) -> freezing.Frozen:
    """What people said as an artifact to train on. `heldout` None keeps the split of the collection, `judges` takes
    the votes of these people alone, those of `heldout_judges` only ever evaluate, and `assisted` takes the votes given
    with help ("only") or "without"."""
    if heldout is not None and not 0 <= heldout < 1:
        raise ConfigError(f"heldout is {heldout:g}", "give a share from 0 to below 1")
    choice = freezing.Choice(kind, rule, heldout, tuple(heldout_judges), seed, tuple(judges), assisted)
    frozen = freezing.freeze(ws, collection, choice, name=name)
    about = queue.collection(ws.database, collection).id
    audit.note(ws.database, time.time(), "", "froze", about, artifact=frozen.artifact.id, kind=kind, rule=rule)
    return frozen


def disputed(ws: Workspace, collection: str, *, below: float = 1.0, limit: int = 20) -> list[adjudication.Disputed]:
    """Items on which people disagree, the most disputed first."""
    return adjudication.disputed(ws, collection, below=below, limit=limit)


def adjudicate(
    ws: Workspace,
    collection: str,
    item: str,
    decision: adjudication.Verdict,
    *,
    ranks: Sequence[int] = (),
    more: int = 1,
    cause: str = "",
) -> adjudication.Decision:
    """Accept an answer for an item, ask more people, or call it ambiguous."""
    return adjudication.decide(ws, collection, item, decision, now=time.time(), ranks=ranks, more=more, cause=cause)


def learning(
    ws: Workspace,
    *,
    base: Ref,
    data: Ref,
    features: Ref | None = None,
    seeds: int = 3,
    seconds_each: float | None = None,
    config: RewardConfig | None = None,
    **settings: Any,
) -> curves.Learning:
    """Train the reward model on growing parts of a preference set and say whether more labelling is worth it.

    Each training is a run of stage `learning`, which keeps its figures and no model. `seconds_each` is what a judgement
    takes; without it, the times noted in the judgements.
    """
    chosen = config or configs.load("reward", flags=configs.flat(settings))
    assert isinstance(chosen, RewardConfig)
    refs = {"base": base, "data": data} | ({} if features is None else {"features": features})
    inputs = note_inputs(ws, find_inputs(ws, "reward", refs, chosen))
    judgements = loading.read_judgements(inputs["data"])
    heldout = [j for j in judgements if j.split == "heldout"]
    if not any(target != 0.5 for j in heldout for *_, target in j.pairs()):
        raise TrueupError(
            "no held-out judgement prefers anything: there is nothing to measure by", "freeze with a heldout share"
        )
    every = range(chosen.run.seed, chosen.run.seed + seeds)
    parts = [(seed, share, part) for seed in every for share, part in _parts(judgements, seed).items()]
    points = []
    with track(len(parts), "learning curve") as advance:
        for seed, share, part in parts:
            points.append(_trained(ws, chosen, inputs, part, share, heldout, seed))
            advance(1)
    if seconds_each is None:
        seconds_each = _seconds(judgements)
    found = curves.learning(points, seconds_each=seconds_each, seed=chosen.run.seed)
    if collection := inputs["data"].meta.get("collection"):  # frozen from one: its quality page shows the curve
        keep_figures(ws.database, collection, curves.KIND, found.to_json(), len(judgements), time.time())
    return found


# --- inside


def _prompts(artifact: Artifact) -> Iterator[Prompt]:
    for row in read_jsonl(artifact.path / loading.ROWS):
        yield Prompt.from_json(row if artifact.kind == "prompts" else row["prompt"])


def _asked(ws: Workspace, collection: str) -> tuple[set[tuple[str, ...]], int]:
    """What a collection asks already, and the highest priority of what still waits."""
    asked: set[tuple[str, ...]] = set()
    highest = 0
    for item in adjudication.every_item(ws, collection):
        asked.add((item.prompt.id, *sorted(item.texts)))
        if item.state == "open":
            highest = max(highest, item.priority)
    return asked, highest


def _options(group: Sequence[Completion], task: str, asked: set[tuple[str, ...]]) -> Iterator[Group]:
    """What could be asked about one prompt: every pair, or all its completions together."""
    different = list({c.text.strip(): c for c in reversed(group) if c.text.strip()}.values())[::-1]
    together: list[Group] = list(combinations(different, 2)) if task == "pair" else [tuple(different[:9])]
    for option in together:
        if len(option) > 1 and (option[0].prompt.id, *sorted(c.text for c in option)) not in asked:
            yield option


def _candidate(option: Group, side: Split) -> choosing.Candidate:
    return choosing.Candidate(option[0].prompt, tuple(c.text for c in option), side == "heldout")


@dataclass(frozen=True)
class _Batch:
    """What one call picked. `about` is noted with every item of it, `told` is for who called and for the audit log."""

    picks: list[choosing.Pick]
    about: dict[str, Any]
    told: dict[str, Any]


def _chosen(
    ws: Workspace,
    options: Sequence[Group],
    candidates: Sequence[choosing.Candidate],
    n: int,
    strategy: choosing.Strategy,
    rewards: Sequence[Ref],
    random_share: float,
    seed: int,
) -> _Batch:
    found = [find_input(ws, "reward", reward, SCORERS) for reward in rewards]
    # By the id of an artifact, to be found again: a model from elsewhere gets one that points to it.
    scorers = {note_inputs(ws, {"reward": each})["reward"].id: each for each in found}
    scores = [of_one for scorer in scorers.values() for of_one in _scores(scorer, options)]
    picks = choosing.choose(candidates, n, strategy, scores=scores, random_share=random_share, seed=seed)
    about = {"batch": new_id()} | ({"rewards": list(scorers)} if scorers else {})
    told = {
        "strategy": strategy,
        "candidates": len(candidates),
        "chosen": len(picks),
        "random": sum(pick.strategy == "random" for pick in picks),
        "heldout": sum(candidates[pick.candidate].heldout for pick in picks),
    }
    return _Batch(picks, about, told | about)


def _scores(found: Input, options: Sequence[Group]) -> list[list[list[float]]]:
    """By every member of a reward model, which is one unless it is an ensemble; each completion is scored once."""
    from .engines.reward_scorer import RewardScorer
    from .models.load import load_reward

    scorer = RewardScorer(load_reward(list(found.folders), ModelSettings(), source=found.name))
    every = {(c.prompt.id, c.text): c for option in options for c in option}
    members = scorer.by_member(list(every.values())).T.tolist()
    tables = [dict(zip(every, member, strict=True)) for member in members]
    return [[[table[c.prompt.id, c.text] for c in option] for option in options] for table in tables]


def _new_item(option: Group, heldout: bool, source: Artifact, leaks: LeakFinder, why: Mapping[str, Any]) -> NewItem:
    named = list(dict.fromkeys(word for completion in option for word in leaks(completion.text)))
    return NewItem(
        option[0].prompt,
        tuple(c.text for c in option),
        source.id,
        tuple(c.finished for c in option),
        tuple(c.model for c in option),
        why={**why, "leaks": named} if named else why,
        split="heldout" if heldout else "train",
    )


def _votes(item: NewItem, config: CollectionConfig, seed: int) -> dict[str, Any]:
    """What was drawn at random has its share of calibration items: agreement on what was picked would be another."""
    if item.why["strategy"] != "random":
        return {"overlap": config.overlap}
    role, overlap = calibrated(item.prompt.id, config, seed)
    return {"role": role, "overlap": overlap}


def _parts(judgements: Sequence[Judgement], seed: int) -> dict[float, list[Judgement]]:
    parts = curves.nested_parts(judgements, seed)
    if len({len(part) for part in parts.values()}) < len(parts):
        raise TrueupError(
            f"{len(parts[1.0])} training judgements are too few for a learning curve",
            "it needs at least eight prompts; label more first",
        )
    return parts


def _trained(
    ws: Workspace,
    config: RewardConfig,
    inputs: Mapping[str, Artifact],
    part: Sequence[Judgement],
    share: float,
    heldout: Sequence[Judgement],
    seed: int,
) -> curves.Point:
    """One training on a part of the judgements: its held-out scores, and no artifact."""
    from .engines.reward_scorer import RewardScorer
    from .evals.reward import as_completions
    from .models.load import new_reward
    from .train.judged import judged
    from .train.reward import reward

    settings = config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})})
    note = f"{len(part)} judgements"
    run = Run.start(ws, "learning", settings.model_dump(mode="json"), inputs, seed=seed, note=note)
    with run:
        model = new_reward(
            settings.kind,
            chain(ws, inputs["base"]),
            settings.model,
            features=chain(ws, inputs["features"]) if "features" in inputs else (),
            seed=seed,
        )
        longest = settings.max_tokens or model.context
        train, _ = judged(model.encoder, part, longest)
        kept = [j for j in heldout if judged(model.encoder, [j], longest)[0]]
        if not train or not kept:
            raise TrueupError("the judgements do not fit into the model", "raise max_tokens or use a longer context")
        reward(run, settings, model, train, judged(model.encoder, kept, longest)[0])
        scores = iter(RewardScorer(model).score([c for j in kept for c in as_completions(j)]))
        values = [[next(scores).value for _ in j.completions] for j in kept]
        point = curves.measure(kept, values, trained_on=len(part), share=share, seed=seed)
        run.finish(point.to_json())
    return point


def _seconds(judgements: Sequence[Judgement]) -> float | None:
    """The median time of a judgement, where times were noted."""
    noted = sorted(j.meta.get("active_seconds") or j.meta.get("seconds") or 0 for j in judgements)
    known = [seconds for seconds in noted if seconds > 0]
    return float(known[len(known) // 2]) if known else None
