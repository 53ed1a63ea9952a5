"""From what people said to a set that a model can be trained on: an artifact that never changes.

Preferences are rows of `Judgement`: every vote as it was given (`raw`), or one row an item whose `targets` several
votes were made into. Unpaired rows hold one completion with its thumb, demonstrations are what people wrote. What is
left out is counted with its reason, the votes behind a made row stand beside it in `votes.jsonl`, and the same votes
give the same artifact. A set of votes is not to train on: it has everything that was said (`votes`).
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import IO, Any, Literal, get_args

from ..errors import ConfigError, DataError, nearest
from ..records import Judgement
from ..store import Artifact, Workspace, queue, write_jsonl
from ..store.items import ORDINARY
from ..text.formats import group_of
from . import pooling, votes
from .adjudicate import Decision, decisions, every_item
from .answers import BOTH_BAD
from .desk import PERSONAL
from .pooling import OF_THUMBS, RULES, THUMB, Rule
from .splits import Split, known_sides, side_of

Kind = Literal["preferences", "unpaired", "demonstrations", "votes"]
Assisted = Literal["", "only", "without"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ROWS, VOTES = "rows.jsonl", "votes.jsonl"


@dataclass(frozen=True)
class Choice:
    """How to freeze. `heldout` None keeps the split that the collection gave its prompts; another share may hold out
    more of them, and never fewer. `judges` takes the votes of these people and of nobody else, `assisted` only those
    given with help, or without."""

    kind: Kind = "preferences"
    rule: Rule = "raw"
    heldout: float | None = None
    heldout_judges: tuple[str, ...] = ()
    seed: int = 0
    judges: tuple[str, ...] = ()
    assisted: Assisted = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"unknown kind '{self.kind}'{nearest(self.kind, KINDS)}", ", ".join(KINDS))
        if self.rule not in RULES:
            raise ConfigError(f"unknown rule '{self.rule}'{nearest(self.rule, RULES)}", ", ".join(RULES))
        if self.assisted not in get_args(Assisted):
            raise ConfigError(f"assisted is '{self.assisted}'", "only, or without")
        chosen = self.heldout is not None or self.heldout_judges or self.judges or self.assisted
        if self.kind == votes.KIND and (self.rule != "raw" or chosen):
            raise ConfigError(
                "votes are all that was said by everybody: nothing is pooled, held out or chosen",
                "leave out --rule, --heldout, --heldout-judge, --judge and --assisted, or freeze them as preferences",
            )
        if self.kind == "demonstrations" and self.rule != "raw":
            raise ConfigError("demonstrations are what people wrote: there is nothing to aggregate", "use rule 'raw'")
        if self.kind == "unpaired" and self.rule not in OF_THUMBS:
            raise ConfigError(f"'{self.rule}' compares, and a thumb compares nothing", ", ".join(OF_THUMBS))


@dataclass(frozen=True)
class Frozen:
    """What became of the votes of a collection."""

    artifact: Artifact
    rows: int
    votes: int
    people: int
    splits: Mapping[str, int]
    left_out: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.artifact.id,
            "kind": self.artifact.kind,
            "rows": self.rows,
            "votes": self.votes,
            "people": self.people,
            "splits": dict(self.splits),
            "left_out": dict(self.left_out),
        }


def freeze(workspace: Workspace, collection: str, choice: Choice, *, name: str = "") -> Frozen:
    """The votes that stand in a collection as an artifact. Judges in `heldout_judges` only ever evaluate."""
    found = queue.collection(workspace.database, collection)
    if choice.kind == votes.KIND:
        return _freeze_votes(workspace, found, choice, name)
    notes, sides = _notes(workspace, found.id), known_sides(workspace)
    decided = decisions(workspace, found.id)
    left_out: Counter[str] = Counter()
    with Spool() as spool:
        for judgement, about in queue.current_judgements(workspace.database, found.id):
            vote = _prepared(judgement, about["item"], notes, sides, choice)
            why = why_out(vote, about, notes[about["item"]], decided.get(about["item"]), choice)
            spool.add(vote, notes[about["item"]].position, why)
            left_out[why] += bool(why)
        for each in decided.values():
            if each.judgement is not None and _takes_decision(each, choice):
                vote = _prepared(each.judgement, each.item, notes, sides, choice)
                why = quarantined(notes[each.item])
                spool.add(vote, notes[each.item].position, why)
                left_out[why] += bool(why)
        _check_judges((*choice.heldout_judges, *choice.judges), spool.judges)
        if not len(spool):
            raise _nothing(found, choice, left_out)
        return _write(workspace, found, choice, spool, left_out, notes, name)


@dataclass(frozen=True)
class Note:
    """What freezing has to know of an item besides its votes."""

    position: int
    state: str
    reason: str
    flagged_beside: bool  # another item about the same prompt is set aside for personal data
    completions: str
    finished: tuple[bool, ...]
    models: tuple[str, ...]
    why: Mapping[str, Any]


def why_out(vote: Judgement, about: Mapping[str, Any], note: Note, decision: Decision | None, choice: Choice) -> str:
    """Why a vote takes no part, or an empty text."""
    if choice.judges and vote.judge not in choice.judges:
        return "by somebody else"
    if choice.assisted and bool(vote.meta.get("assisted")) != (choice.assisted == "only"):
        return "given without help" if choice.assisted == "only" else "given with help"
    if about["role"] not in ORDINARY:
        return f"a check ({about['role']})"
    if about["round"] > 0:
        return "shown again to the same person"
    if vote.meta.get("surplus"):
        return "surplus"
    if why := quarantined(note):
        return why
    if decision is not None and decision.decision == "ambiguous":
        return "ambiguous by adjudication"
    if decision is not None and decision.judgement is not None and _takes_decision(decision, choice):
        return "replaced by adjudication"
    if vote.judge in choice.heldout_judges and vote.split == "train":
        return "a held-out judge on a training prompt"
    return _no_use(vote, choice.kind)


def quarantined(note: Note) -> str:
    """Holds for what was decided about an item as for the votes on it."""
    if note.state != "quarantined":
        return f"its prompt is in quarantine: {PERSONAL}" if note.flagged_beside else ""
    return f"quarantined: {note.reason}" if note.reason else "quarantined"


def _takes_decision(decision: Decision, choice: Choice) -> bool:
    """An accepted answer stands for the votes, unless it is asked what certain people said, and it is not theirs. It is
    neither with help nor without: it was made from votes of both."""
    said = decision.judgement
    if said is None or choice.kind != "preferences" or choice.assisted:
        return False
    return not choice.judges or said.judge in choice.judges


def _no_use(vote: Judgement, kind: Kind) -> str:
    """Why a vote says nothing of the kind asked for."""
    answer = vote.meta.get("answer") or {}
    if kind == "demonstrations":
        return "" if "text" in answer else "no text was written"
    if kind == "unpaired":
        return "" if any(value in (0, 1) for value in vote.ratings.get(THUMB, ())) else "no thumb up or down"
    if answer.get("choice") == BOTH_BAD:
        return "both bad"
    return "" if len(set(vote.completions)) > 1 else "nothing to compare"


def _prepared(
    judgement: Judgement, item: str, notes: Mapping[str, Note], sides: Mapping[str, Split], choice: Choice
) -> Judgement:
    """A vote with its split, what is known of its completions, and how likely its item was chosen: to weight back."""
    split = sides.get(group_of(judgement.prompt), judgement.split)
    if split == "train" and choice.heldout is not None:
        split = side_of(judgement.prompt, {}, choice.heldout, choice.seed)
    note = notes[item]
    finished, models = votes.finished(judgement, note.finished), votes.models(judgement, note.models)
    known = {"finished": [] if all(finished) else finished, "models": models, "why": dict(note.why)}
    meta = {**judgement.meta, "item": item} | {key: value for key, value in known.items() if value}
    return replace(judgement, split=split, meta=meta)


# --- what is written


def _write(
    workspace: Workspace,
    collection: queue.Collection,
    choice: Choice,
    spool: Spool,
    left_out: Counter[str],
    notes: Mapping[str, Note],
    name: str,
) -> Frozen:
    splits: Counter[str] = Counter()
    with workspace.staging() as folder:
        write_jsonl(folder / ROWS, _counted(_rows(spool, choice, left_out), splits))
        if choice.rule != "raw":
            write_jsonl(folder / VOTES, (vote.to_json() for vote in spool.votes()))
        if not splits.total():
            raise _nothing(collection, choice, left_out)
        meta = {
            "rows": splits.total(),
            "source": f"collection '{collection.name}'",
            "collection": collection.id,
            "rule": choice.rule,
            "votes": len(spool),
            "people": dict(sorted(spool.kept.items())),
            "guidelines": _versions(workspace, collection.id, spool.guidelines),
            "splits": dict(sorted(splits.items())),
            "heldout_judges": sorted(choice.heldout_judges),
            "left_out": dict(sorted((why, count) for why, count in left_out.items() if why)),
        }
        meta |= {"judges": sorted(choice.judges)} if choice.judges else {}
        meta |= {"assisted": choice.assisted} if choice.assisted else {}
        parents = _parents({notes[item].completions for item in spool.items})
        artifact = workspace.put(choice.kind, folder, parents=parents, meta=meta, name=name)
    return Frozen(artifact, splits.total(), len(spool), len(spool.kept), dict(splits), +left_out)


def _freeze_votes(workspace: Workspace, collection: queue.Collection, choice: Choice, name: str) -> Frozen:
    """All that was said, as it comes from the database: only counts of it are held."""
    tally = votes.Tally()
    with workspace.staging() as folder:
        write_jsonl(folder / votes.ROWS, votes.everything(workspace, collection.id, tally))
        if not tally.rows.total():
            raise _nothing(collection, choice, tally.left_out)
        meta = {
            "rows": tally.rows.total(),
            "source": f"collection '{collection.name}'",
            "collection": collection.id,
            "what": dict(sorted(tally.rows.items())),
            "people": dict(sorted(tally.people.items())),
            "guidelines": dict(sorted(tally.guidelines.items())),
            "splits": dict(sorted(tally.splits.items())),
            "left_out": dict(sorted(tally.left_out.items())),
        }
        artifact = workspace.put(votes.KIND, folder, parents=_parents(tally.sets), meta=meta, name=name)
    said = tally.rows[votes.JUDGEMENT]
    return Frozen(artifact, tally.rows.total(), said, len(tally.people), dict(tally.splits), tally.left_out)


def _parents(sets: set[str]) -> dict[str, str]:
    return {"completions" + (f" {i}" if i > 1 else ""): each for i, each in enumerate(sorted(sets), 1)}


def _rows(spool: Spool, choice: Choice, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """All rows of one prompt side by side, prompts in the order in which they were put into the collection."""
    if choice.kind == "demonstrations":
        yield from map(_demonstration, spool.votes())
        return
    thumbs = choice.kind == "unpaired"
    expand = _thumbs if thumbs else _one
    everything = (each for vote in spool.votes() for each in expand(vote))
    known = pooling.learnt(everything, choice.rule, thumbs=thumbs)
    for group in spool.by_prompt():
        votes = [each for vote in group for each in expand(vote)]
        if choice.rule != "raw":
            pooled = pooling.pool_thumbs(votes, choice.rule, known)
            votes = list(pooled if thumbs else pooling.pool(votes, choice.rule, known, left_out))
        for vote in votes:
            if thumbs and pooling.thumb(vote) == 0.5:
                left_out["as many thumbs up as down"] += 1
            else:
                yield vote.to_json()


def _one(vote: Judgement) -> list[Judgement]:
    return [vote]


def _thumbs(vote: Judgement) -> list[Judgement]:
    """One judgement a completion that got a thumb; the unsure say nothing."""
    given = enumerate(vote.ratings[THUMB])
    return [
        replace(
            vote,
            completions=(vote.completions[i],),
            ranks=(1,),
            ratings={THUMB: (value,)},
            targets=(),
            meta={**vote.meta, **{key: [vote.meta[key][i]] for key in ("finished", "models") if key in vote.meta}},
        )
        for i, value in given
        if value in (0, 1)
    ]


def _demonstration(vote: Judgement) -> dict[str, Any]:
    """What a person wrote, with the vote it comes from: the lineage counts these."""
    said = {"judge": vote.judge, "source": vote.source, "id": vote.id, "split": vote.split}
    meta = {key: vote.meta[key] for key in ("models", "why") if key in vote.meta}
    row = {"prompt": vote.prompt.to_json(), "completion": vote.meta["answer"]["text"]} | said
    return row | ({"meta": meta} if meta else {})


def _counted(rows: Iterable[dict[str, Any]], splits: Counter[str]) -> Iterator[dict[str, Any]]:
    for row in rows:
        splits[row["split"]] += 1
        yield row


def _versions(workspace: Workspace, collection: str, seen: Mapping[str, int]) -> dict[str, int]:
    """Votes by the number of the guideline they were given under."""
    numbers = {each["id"]: str(each["number"]) for each in queue.guidelines(workspace.database, collection)}
    counts: Counter[str] = Counter()
    for version, count in seen.items():
        counts[numbers.get(version, "unknown")] += count
    return dict(sorted(counts.items()))


def _notes(workspace: Workspace, collection: str) -> dict[str, Note]:
    found: dict[str, Note] = {}
    prompts: dict[str, str] = {}
    personal: set[str] = set()
    for item in every_item(workspace, collection):
        kept = (item.position, item.state, item.reason, False, item.completions, item.finished, item.models, item.why)
        found[item.id], prompts[item.id] = Note(*kept), item.prompt.id
        if item.state == "quarantined" and PERSONAL in item.reason:
            personal.add(item.prompt.id)
    beside = (item for item, prompt in prompts.items() if prompt in personal)
    return found | {item: replace(found[item], flagged_beside=True) for item in beside}


def _check_judges(asked: Sequence[str], known: Mapping[str, int]) -> None:
    if strangers := [judge for judge in asked if judge not in known]:
        raise DataError(
            f"'{strangers[0]}' has judged nothing in this collection{nearest(strangers[0], known)}",
            "name judges as `trueup feedback quality` does",
        )


def _nothing(collection: queue.Collection, choice: Choice, left_out: Counter[str]) -> DataError:
    reasons = "; ".join(f"{count:,} {why}" for why, count in left_out.most_common(3) if why)
    return DataError(
        f"collection '{collection.name}' has no vote to freeze as {choice.kind}: {reasons or 'nobody has judged yet'}",
        "look at `trueup feedback status`, or freeze it as another kind",
    )


# --- votes on their way


@dataclass
class Spool:
    """Votes in a temporary file, read back by prompt: a million of them need not fit into memory."""

    judges: Counter[str] = field(default_factory=Counter)  # everybody who judged
    kept: Counter[str] = field(default_factory=Counter)  # those whose votes are in
    guidelines: Counter[str] = field(default_factory=Counter)
    items: set[str] = field(default_factory=set)
    _prompts: dict[str, int] = field(default_factory=dict)  # prompt -> position of its first item
    _rows: list[tuple[str, int, int]] = field(default_factory=list)  # prompt, position, offset

    def __enter__(self) -> Spool:
        self._file: IO[bytes] = tempfile.TemporaryFile()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, vote: Judgement, position: int, why_out: str) -> None:
        self.judges[vote.judge] += 1
        if why_out:
            return
        self.kept[vote.judge] += 1
        self.guidelines[str(vote.meta.get("guideline", ""))] += 1
        self.items.add(vote.meta["item"])
        prompt = vote.prompt.id
        self._prompts[prompt] = min(position, self._prompts.get(prompt, position))
        self._rows.append((prompt, position, self._file.tell()))
        self._file.write(json.dumps(vote.to_json(), ensure_ascii=False).encode() + b"\n")

    def by_prompt(self) -> Iterator[list[Judgement]]:
        """By prompt, within it by item, within that as they came."""
        ordered = sorted(self._rows, key=lambda row: (self._prompts[row[0]], row[0], row[1], row[2]))
        for _, rows in groupby(ordered, key=lambda row: row[0]):
            yield [self._read(offset) for _, _, offset in rows]

    def votes(self) -> Iterator[Judgement]:
        for group in self.by_prompt():
            yield from group

    def _read(self, offset: int) -> Judgement:
        end = self._file.tell()
        self._file.seek(offset)
        line = self._file.readline()
        self._file.seek(end)
        return Judgement.from_json(json.loads(line))
