"""How far a reward model can be trusted, which of two is better, what its objectives cost one another, and what it
says of a text.

Models and data are loaded here; the figures come from `trueup/evals/`, the page from `trueup/reports/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import loading
from .config import ModelSettings, Scoring
from .config.audit import AuditConfig
from .config.tradeoff import TradeoffConfig
from .ensembling import MEMBER
from .errors import ConfigError, DataError, TrueupError
from .evals import audit as audits
from .evals import tradeoff as tradeoffs
from .evals.bench import Question, questions_of
from .evals.disagreement import ByMember
from .evals.gate import check_overrides
from .evals.rivals import SHOWN, compare_scorers
from .evals.scored import in_parts, pairs_of
from .inputs import ANY_SCORER, FUNCTION, PROMPTS, SCORERS, Input, Ref, chain, find_input, note_inputs
from .records import Completion, Judgement, Prompt
from .reports.card import reward_card
from .reports.tradeoff import tradeoff_page
from .runs import Run, track
from .scorers import check_scoring, facts_of, open_scorer
from .store import JUDGED, Artifact, Workspace, saying_disk_full
from .text import columns
from .text.sources import read_rows
from .world import PERSONAS, GoldScorer, p_true

if TYPE_CHECKING:  # torch loads when something is scored, not when this module does
    from .engines.reward_scorer import RewardScorer
    from .ports import Scorer

STAGE, TRADEOFF = "audit", "tradeoff"
RESULT, CARD = "result.json", "card.html"
BATCH = 64  # completions of a stream that are scored together


def audit(
    ws: Workspace,
    *,
    model: Ref,
    data: Ref,
    train: Ref | None = None,
    policy: Ref | None = None,
    prompts: Ref | None = None,
    bench: str | Path | None = None,
    out: str | Path | None = None,
    config: AuditConfig | None = None,
) -> dict[str, Any]:
    """Audit a reward model on the held-out judgements of a set (on all where none is held out).

    `train` is the set it learnt from (by default what its lineage says), `policy` the model and `prompts` the prompts
    it is meant for. The result is an artifact of kind `evaluation` with `result.json` and `card.html`, both written to
    the folder `out` as well. `gate.passed` says whether it may be used for RL.
    """
    config = config or AuditConfig()
    check_overrides(config)
    questions = read_bench(bench) if bench else []
    found = {"model": find_input(ws, "model", model, SCORERS), "data": find_input(ws, "data", data, JUDGED)}
    optional = {"train": (train, JUDGED), "policy": (policy, ("model", "external")), "prompts": (prompts, PROMPTS)}
    found |= {role: find_input(ws, role, ref, kinds) for role, (ref, kinds) in optional.items() if ref is not None}
    if train is None and found["model"].artifact is not None:
        learnt = _learnt_from(ws, found["model"].artifact)
        found |= {f"train{i or ''}": Input(artifact.kind, artifact) for i, artifact in enumerate(learnt)}
    judgements, split = _heldout(_judgements(found["data"]))
    scorer = _scorer(found["model"], config.model, config.scoring, config.threads)
    fits = scorer.fits
    kept = [judgement for judgement in judgements if all(map(fits, _completions(judgement)))]
    if not kept:
        raise DataError(
            f"none of the {len(judgements)} judgements fits the context of {scorer.model.context} tokens",
            "audit on shorter completions, or use a reward model that reads more",
        )
    inputs = note_inputs(ws, found)
    run = Run.start(ws, STAGE, config.model_dump(mode="json"), inputs, seed=config.seed)
    with run:
        jury = scorer.model.members > 1
        with track(audits.completions_to_score(kept, config, members=jury), "score") as advance:
            result = audits.audit(
                scorer, kept, config, advance=advance, fits=fits, bench=questions, scale=_scale(scorer),
                level=_level(scorer), by_member=_members(scorer) if jury else None,
                train=_trained_on(inputs), policy=_bases(ws, inputs),
                prompts=loading.read_prompts(inputs["prompts"]) if "prompts" in inputs else None,
                length=_tokens(scorer), length_unit="tokens", **_truth(kept),
            )  # fmt: skip
        result |= {"split": split, "too_long": len(judgements) - len(kept)}
        artifact = _keep(run, result, reward_card(result, _name(model), _name(data)), *_verdict(result))
    return result | _written(artifact, out)


def latest_audit(ws: Workspace, model: Ref) -> dict[str, Any] | None:
    """What the last audit of a reward model found, with its artifact as `evaluation`; None where there is none."""
    identity = ws.get(model).id
    for artifact in reversed(ws.artifacts("evaluation")):
        if artifact.meta.get("stage") == STAGE and artifact.parents.get("model") == identity:
            found: dict[str, Any] = json.loads((artifact.path / RESULT).read_text(encoding="utf-8"))
            return found | {"evaluation": artifact.id}
    return None


def compare_rewards(
    ws: Workspace,
    *,
    a: Ref,
    b: Ref,
    data: Ref,
    scoring: Scoring = Scoring(),  # noqa: B008
    settings: ModelSettings | None = None,
    threads: int = 0,
    seed: int = 0,
    shown: int = SHOWN,
) -> dict[str, Any]:
    """How much more of the held-out judgements reward model `a` foresees than `b`, with a paired interval, and the
    pairs (`shown` of a kind) on which they part."""
    found = find_input(ws, "data", data, JUDGED)
    judgements, split = _heldout(_judgements(found))
    one, other = (
        _scorer(find_input(ws, role, ref, SCORERS), settings or ModelSettings(), scoring, threads)
        for role, ref in (("a", a), ("b", b))
    )
    readers = [scorer.fits for scorer in (one, other)]
    kept = [j for j in judgements if all(fits(c) for fits in readers for c in _completions(j))]
    if not kept:
        raise DataError("no judgement fits the context of both reward models", "compare them on shorter completions")
    with track(2 * len(pairs_of(kept).completions), "score") as advance:
        result = compare_scorers(one, other, kept, advance=advance, seed=seed, shown=shown)
    return result | {"split": split, "too_long": len(judgements) - len(kept)}


def tradeoff(
    ws: Workspace,
    *,
    model: Ref,
    data: Ref,
    out: str | Path | None = None,
    config: TradeoffConfig | None = None,
) -> dict[str, Any]:
    """What one objective of a reward model costs another when the best completion of each prompt is chosen.

    `data` is a completion set with several of each prompt, or judgements (the held-out ones, where there are such). The
    result is an artifact of kind `evaluation`, as that of an audit.
    """
    from .engines.reward_scorer import PRICE

    config = config or TradeoffConfig()
    kinds = ("completions", *JUDGED)
    found = {"model": find_input(ws, "model", model, SCORERS), "data": find_input(ws, "data", data, kinds)}
    given, taken = _written_by(found["data"])
    scorer = _scorer(found["model"], config.model, config.scoring, config.threads)
    kept = [completion for completion in given if scorer.fits(completion)]
    run = Run.start(ws, TRADEOFF, config.model_dump(mode="json"), note_inputs(ws, found), seed=config.seed)
    with run:
        with track(len(kept), "score") as advance:
            result = tradeoffs.tradeoff(scorer, kept, config, price=PRICE, advance=advance)
        result |= {"taken": taken, "too_long": len(given) - len(kept)}
        counts = {key: result[key] for key in ("prompts", "completions", "objectives")}
        artifact = _keep(run, result, tradeoff_page(result, _name(model), _name(data)), {}, counts)
    return result | _written(artifact, out)


def score(
    ws: Workspace,
    *,
    model: Ref,
    completions: Iterable[Completion],
    scoring: Scoring = Scoring(),  # noqa: B008
    settings: ModelSettings | None = None,
    threads: int = 0,
) -> Iterator[dict[str, Any]]:
    """Of each completion its value, its parts (objectives, the members' spread) and a note where it was not read.

    `model` is a reward model, or a Python function as "FILE.py:NAME". A stream: rows come out as they go in, `BATCH` at
    a time.
    """
    found = find_input(ws, "model", model, ANY_SCORER)
    scorer, models = _asked(found, settings or ModelSettings(), scoring, threads)
    for batch in in_parts(completions, BATCH):
        readable = [all(each.fits(completion) for each in models) for completion in batch]
        scores = iter(scorer.score([completion for completion, may in zip(batch, readable, strict=True) if may]))
        for may in readable:
            if not may:
                context = min(each.model.context for each in models)
                yield {"value": None, "parts": {}, "note": f"longer than the {context} tokens it reads"}
            else:
                said = next(scores)
                yield {"value": said.value, "parts": dict(said.parts)}


def read_bench(file: str | Path) -> list[Question]:
    """Rows with prompt, chosen (a text, or several), rejected (several, or one), and subset, category or section."""
    rows = list(read_rows(file))
    for _, row in rows:
        if isinstance(row, DataError):
            raise row
    return questions_of((where, _question(row)) for where, row in rows if not isinstance(row, DataError))


def completions_of(row: columns.Columns) -> list[Completion]:
    """The completions of a row with `prompt` and `completion` or `completions`. Raises `columns.Skip`.

    An empty one is a completion like any other: a policy may have nothing to say, and RL scores that too.
    """
    prompt = columns.prompt(row, "prompt")
    if "completions" not in row:
        return [Completion(prompt, columns.completion(row, "completion", prompt, empty=True), finished=_finished(row))]
    several = row["completions"]
    if not isinstance(several, list) or not several:
        raise columns.Skip("'completions' is not a list of texts")
    return [_listed(prompt, item) for item in several]


# --- inside


def _listed(prompt: Prompt, item: Any) -> Completion:
    row = item if isinstance(item, dict) else {"text": item}
    return Completion(prompt, columns.text(row, "text", empty=True), finished=_finished(row))


def _finished(row: columns.Columns) -> bool:
    return row.get("finished", True) is not False


def _question(row: columns.Columns) -> Question | str:
    try:
        prompt = columns.prompt(row, "prompt")
        right, wrong = _texts(row, "chosen"), _texts(row, "rejected")
        subset = columns.word(row, "subset") or columns.word(row, "category") or columns.word(row, "section") or "all"
        return Question(prompt, (*right, *wrong), len(right), subset, columns.word(row, "id"))
    except columns.Skip as problem:
        return str(problem)


def _texts(row: columns.Columns, field: str) -> list[str]:
    value = row.get(field)
    several = value if isinstance(value, list) and value else [value]
    return [columns.text({field: each}, field) for each in several]


def _judgements(found: Input) -> list[Judgement]:
    assert found.artifact is not None  # judgements are never taken from elsewhere
    return loading.read_judgements(found.artifact)


def _heldout(judgements: list[Judgement]) -> tuple[list[Judgement], str]:
    """Judgements kept for evaluation, where there are such; and in words which ones were taken."""
    kept = [judgement for judgement in judgements if judgement.split == "heldout"]
    return (kept, "held-out judgements") if kept else (judgements, "all judgements: none is marked as held out")


def _completions(judgement: Judgement) -> list[Completion]:
    from .evals.reward import as_completions

    return as_completions(judgement)


def _learnt_from(ws: Workspace, model: Artifact) -> list[Artifact]:
    """The sets that a reward model of this workspace was trained on; of an ensemble those of all its models."""
    found: dict[str, Artifact] = {}
    for role, parent in model.parents.items():
        artifact = ws.get(parent)
        if role == "data" and artifact.kind in JUDGED:
            found[artifact.id] = artifact
        elif role.startswith(MEMBER) and model.kind == "reward":
            found |= {each.id: each for each in _learnt_from(ws, artifact)}
    return list(found.values())


def _trained_on(inputs: dict[str, Artifact]) -> list[Judgement] | None:
    """The training side of the sets it learnt from; a set without one was learnt from as a whole."""
    learnt = [loading.read_judgements(artifact) for role, artifact in inputs.items() if role.startswith("train")]
    sides = [[each for each in judgements if each.split == "train"] or judgements for judgements in learnt]
    return [judgement for side in sides for judgement in side] if learnt else None


def _scorer(found: Input, settings: ModelSettings, scoring: Scoring, threads: int) -> RewardScorer:
    from .engines.reward_scorer import RewardScorer
    from .models.device import use_threads
    from .models.load import load_reward

    use_threads(threads)
    check_scoring(scoring, [facts_of(found, settings)])
    return RewardScorer(load_reward(list(found.folders), settings, source=found.name), scoring=scoring)


def _asked(found: Input, settings: ModelSettings, scoring: Scoring, threads: int) -> tuple[Scorer, list[RewardScorer]]:
    """What says something of a text, row by row: nothing is known of other rows, so a function has no scale."""
    from .models.device import use_threads

    if found.kind == FUNCTION and scoring != Scoring(time_limit=scoring.time_limit):
        raise ConfigError("of [scoring] a function by itself only has the time_limit", "leave the others out")
    check_scoring(scoring, [facts_of(found, settings)])
    use_threads(threads)
    return open_scorer({"": found}, scoring, settings)


def _tokens(scorer: RewardScorer) -> Callable[[Completion], int]:
    """Length as the reward model sees it."""
    encoder = scorer.model.encoder
    return lambda c: len(encoder.completion(c.prompt, c.text, finished=c.finished))


def _scale(scorer: RewardScorer) -> float:
    """What turns score differences back into the logits of training: they were divided by the stored std."""
    model = scorer.model
    if len(model.objectives) > 1 or scorer.scoring.objectives or not scorer.scoring.normalise:
        return 1.0
    return float(sum(model.std) / len(model.std))


def _members(scorer: RewardScorer) -> ByMember:
    """What each member says, without a tensor."""
    return lambda completions: scorer.by_member(completions).numpy()


def _level(scorer: RewardScorer) -> float | None:
    """What brings a score back to the zero of training, above which it means "right"; of weighed objectives none."""
    model = scorer.model
    if len(model.objectives) > 1 or scorer.scoring.objectives:
        return None
    return float(sum(model.mean) / len(model.mean)) if scorer.scoring.normalise else 0.0


def _truth(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """The gold score and the judges' true vote probabilities, where the built-in world knows them."""
    known = {f"simulated:{persona.name}" for persona in PERSONAS}
    in_world = all("world" in judgement.prompt.meta for judgement in judgements)
    simulated = in_world and all(judgement.judge in known for judgement in judgements)
    return {"gold": GoldScorer() if in_world else None, "p_true": p_true if simulated else None}


def _bases(ws: Workspace, inputs: dict[str, Artifact]) -> dict[str, Any] | None:
    """Whether policy and reward model grew from the same base, or at least from one family."""
    if "policy" not in inputs:
        return None
    roots = [_root(ws, inputs[role]) for role in ("model", "policy")]
    names = [str(root.meta.get("source") or root.id) for root in roots]
    if roots[0].id == roots[1].id or names[0] == names[1]:
        return {"same_base": True, "bases": names[0], "why": f"both grew from {names[0]}"}
    families = [_family(ws, root) for root in roots]
    same = families[0] == families[1] if None not in families else None
    words = " and ".join(f"{name} ({family})" for name, family in zip(names, families, strict=True))
    return {
        "same_base": same,
        "bases": " / ".join(names),
        "why": f"reward model and policy grew from {words}: {'one family' if same else 'different families'}",
    }


def _root(ws: Workspace, artifact: Artifact) -> Artifact:
    """What a model began as; of an ensemble, its first model's."""
    while parent := artifact.parents.get("base") or artifact.parents.get(f"{MEMBER}0"):
        artifact = ws.get(parent)
    return artifact


def _family(ws: Workspace, root: Artifact) -> str | None:
    path = Path(chain(ws, root)[0]) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kind, vocabulary = config.get("model_type"), config.get("vocab_size")
    return f"{kind}, {vocabulary:,} tokens" if kind and vocabulary else None


def _written_by(found: Input) -> tuple[list[Completion], str]:
    """The completions of a completion set, or the different ones that were judged; and in words which were taken."""
    assert found.artifact is not None  # data is never taken from elsewhere
    if found.artifact.kind == "completions":
        return loading.read_completions(found.artifact), "all completions"
    judgements, taken = _heldout(_judgements(found))
    return list(dict.fromkeys(c for judgement in judgements for c in _completions(judgement))), taken


def _verdict(result: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of an audit what its artifact notes, and what its run does."""
    gate = {key: result["gate"][key] for key in ("passed", "failed", "overridden")}
    accuracy = result["accuracy"]
    return {"gate": gate}, {"accuracy": accuracy["value"], "ci": accuracy["ci"], "n": accuracy["n"], **gate}


def _keep(run: Run, result: dict[str, Any], page: str, meta: dict[str, Any], summary: dict[str, Any]) -> Artifact:
    with run.workspace.staging() as folder:
        (folder / RESULT).write_text(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        (folder / CARD).write_text(page, "utf-8")
        meta = {"stage": run.stage, "config": run.config, **meta}
        artifact = run.workspace.put("evaluation", folder, parents=run.inputs, meta=meta)
    run.output("evaluation", artifact)
    run.finish(summary)
    return artifact


def _written(artifact: Artifact, out: str | Path | None) -> dict[str, str]:
    if out is not None:
        _copy(artifact, Path(out))
    return {"evaluation": artifact.id, "card": str(artifact.path / CARD)}


def _copy(artifact: Artifact, folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise TrueupError(f"{folder} is a file", "name a folder with --out")
    with saying_disk_full(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (RESULT, CARD):
            (folder / name).write_bytes((artifact.path / name).read_bytes())


def _name(ref: Ref) -> str:
    return ref if isinstance(ref, str) else ref.id
