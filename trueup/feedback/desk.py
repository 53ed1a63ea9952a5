"""The desk: where a person is handed what to judge, and where an answer becomes a judgement.

It decides what comes next and keeps that to itself. Whatever leaves it for a browser is a `View`: the prompt, the texts
in the order in which this person sees them, and the question. Models, scores, roles and keys stay behind.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..config import CollectionConfig
from ..errors import DataError, NotFoundError
from ..records import Judgement
from ..store import Workspace, categories, queue
from ..store import people as people_store
from ..store.categories import category_of
from ..store.collections import plain_text
from ..store.items import Item, Role
from ..store.queue import Assignment
from .answers import FLAGS, Answer, agreement, read_answer, to_judgement
from .helping import helpers_for, noted, shown_help
from .order import display_order
from .schedule import Schedule
from .welfare import covered

DAY = 86_400.0
MOST_UNDONE = 20  # how far back undo goes
LONGEST_REASON = 500
PERSONAL = "personal data"
LIMIT_REACHED = "you put this aside, and have reached the most that one person may judge in a day"


@dataclass(frozen=True)
class View:
    """All that a browser ever gets of an item."""

    assignment: str
    kind: str
    question: str
    criteria: tuple[str, ...]
    axes: tuple[dict[str, Any], ...]  # {name, question, low, high, anchors: {"1": ...}}
    ties: bool
    both_bad: bool
    strength: bool
    rationale: str
    prompt: tuple[dict[str, str], ...]  # {role, content}; without the content where it is covered
    completions: tuple[str, ...]  # in the order of display; empty where covered
    help: tuple[dict[str, Any], ...]  # {helper, kind, text, places} of each output; texts are empty where covered
    help_open: bool
    covered: tuple[bool, ...]  # of prompt, completions and, if any, help: not sent before the person asks for it
    skippable: bool  # the qualification is not
    flags: tuple[str, ...]
    guideline: dict[str, Any]  # {id, number, seen}: unless seen, it has to be read before the answer counts
    draft: dict[str, Any] | None
    revises: str  # their own judgement that stands, where they change it
    warning: str
    mine: dict[str, int]  # {done, left}

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Receipt:
    """`gold_feedback` is the solution of a qualification item, in words; empty for everything else. `elsewhere`: they
    had answered it in another tab, which stands, and this answer is kept as a draft."""

    judgement: str
    surplus: bool
    again: bool
    gold_feedback: str
    done_today: int
    left: int
    elsewhere: bool = False

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Past:
    """Something a person judged: what they saw, what they said, whether they may still change it."""

    assignment: str
    prompt: tuple[dict[str, str], ...]  # {role, content} of each message; none while it is covered
    completions: tuple[str, ...]  # in the order of display; none while it is covered
    helped: tuple[str, ...]  # the helpers whose outputs stood beside it
    covered: bool  # something of it may be upsetting, and they have not asked to see it again
    answer: dict[str, Any]  # as they gave it, by places on the screen; without a text they wrote while it is covered
    submitted: float
    editable: bool


@dataclass(frozen=True)
class Progress:
    """`waiting` says why there is nothing to do, if somebody could know: "closed", "daily limit", "qualification", or
    "categories": what is left is of those that they chose not to be given."""

    done: int
    left: int
    today: int
    per_day: int
    waiting: str


class Desk:
    """One collection's desk. `secret` keeps orders and checks unforeseeable; a server gives its own."""

    def __init__(
        self, workspace: Workspace, collection: str, now: Callable[[], float] = time.time, *, secret: bytes = b""
    ) -> None:
        self.workspace, self.db, self.now, self.secret = workspace, workspace.database, now, secret
        found = queue.collection(self.db, collection)
        self.id, self.name = found.id, found.name
        self.config = CollectionConfig.model_validate(dict(found.config))
        self._numbers: dict[str, int] = {}  # person -> place among the people
        self._guidelines: dict[str, tuple[int, bool]] = {}  # version -> its number, whether it says anything
        self._qualified: set[str] = set()
        self._checks: dict[Role, Counter[str]] | None = None  # by category

    # What is handed out

    def next(self, person: str) -> View | None:
        """What the person holds, or the next thing for them; None when there is nothing now (`progress` says why)."""
        return self._next(person, self._schedule(person))

    def _next(self, person: str, schedule: Schedule) -> View | None:
        if self._over_limit(schedule):  # nothing new; what is being judged or revised may be finished
            held = queue.holding(self.db, self.id, person, self.now())
            return None if held is None else self._view(held, schedule)
        order, lease = self._order(person), self.config.lease_minutes * 60
        for turn in schedule.turns():
            found = queue.hand_out(
                self.db,
                self.id,
                person,
                now=self.now(),
                lease=lease,
                order=order,
                role=turn.role,
                repeat=turn.repeat,
                helped=lambda item, person: helpers_for(item, person, self.config),
            )
            if found is not None:
                return self._view(found, schedule)
        return None

    def view(self, assignment: str, person: str) -> View:
        """One of the person's own, as they see it."""
        return self._view(self._mine(assignment, person), self._schedule(person))

    def uncover(self, person: str, assignment: str, part: int) -> tuple[dict[str, str], ...]:
        """What stands under a cover, once it is asked for: part 0 is the prompt, then the completions as they are
        shown, then all that helpers say. As messages, which a completion has one of."""
        mine = self._mine(assignment, person)
        if part == 0:
            return _messages(mine.item)
        if part == len(mine.order) + 1 and mine.helped:
            help = shown_help(mine.item, mine.helped, mine.order)
            return tuple({"role": "assistant", "content": text} for text in _texts_of(help))
        if not 0 < part <= len(mine.order):
            raise NotFoundError(f"this item has no text {part}", "reload the page")
        return ({"role": "assistant", "content": mine.item.texts[mine.order[part - 1]]},)

    def undo(self, person: str) -> View | None:
        """Take the latest answer back, one further back each time; None when there is none. What they refuse by now
        is passed by: they may still change it, where they ask for that very one."""
        refused = categories.refused_in(self.db, self.id, person)
        for past in queue.own_work(self.db, self.id, person, MOST_UNDONE):
            if past.state == "done" and category_of(past.item.prompt) not in refused:
                return self.revise(person, past.id)
        return None

    def revise(self, person: str, assignment: str) -> View:
        """Take a given answer back to change it. It stands until another one is submitted."""
        self._check_editable(self._mine(assignment, person))
        found = queue.take_back(self.db, assignment, person, self.now(), self.config.lease_minutes * 60)
        return self._view(found, self._schedule(person))

    # What comes back

    def answer(
        self, person: str, assignment: str, key: str, payload: Mapping[str, Any], revises: str | None = None
    ) -> Receipt:
        """Store an answer. `key` is the browser's own for this answer: sent twice, it is stored once. `revises` is what
        the view said: it tells who changes an answer from who gives one in two tabs."""
        return self._answer(person, assignment, key, payload, revises)[0]

    def answer_and_next(
        self, person: str, assignment: str, key: str, payload: Mapping[str, Any], revises: str | None = None
    ) -> tuple[Receipt, View | None]:
        """`answer`, then `next`, which both need to know how far the person is: it is read once for the two."""
        receipt, schedule = self._answer(person, assignment, key, payload, revises)
        return receipt, self._next(person, schedule)

    def _answer(
        self, person: str, assignment: str, key: str, payload: Mapping[str, Any], revises: str | None
    ) -> tuple[Receipt, Schedule]:
        mine = self._mine(assignment, person)
        retry = bool(mine.judgement) and self._is_retry(mine, key)
        if mine.judgement and not retry and revises in (None, mine.judgement):
            self._check_editable(mine)
        if not self._guideline(mine, person)["seen"]:
            raise DataError("the guideline has to be read first", "open it and confirm that you have read it")
        answer = read_answer(self.config, len(mine.item.texts), payload)
        record = to_judgement(answer, mine, self._judge(person), self.now())
        record = replace(record, meta={**record.meta, "key": key, **noted(mine.item, mine.helped)})
        if not retry:
            self._check_limit(mine, payload)
            self._set_aside(mine.item, answer)
        stored = queue.submit(self.db, assignment, person, key=key, record=record, now=self.now(), revises=revises)
        schedule = self._schedule(person)
        feedback = "" if stored.elsewhere else _feedback(mine.item, record)
        today = schedule.standing.today
        return Receipt(**vars(stored), gold_feedback=feedback, done_today=today, left=schedule.left), schedule

    def draft(self, person: str, assignment: str, draft: Mapping[str, Any]) -> None:
        """Keep an unfinished answer, to come back as the `draft` of the view."""
        self._mine(assignment, person)
        if not isinstance(draft, Mapping):
            raise DataError("a draft is a JSON object", "reload the page")
        queue.save_draft(self.db, assignment, person, draft, self.now())

    def renew(self, person: str, assignment: str) -> bool:
        """Keep the lease alive; False when it has run out and somebody else has the item now. An answer still counts
        if it can, and is kept in any case."""
        self._mine(assignment, person)
        lease = self.config.lease_minutes * 60
        return queue.renew(self.db, assignment, person, self.now(), lease).state == "leased"

    def skip(self, person: str, assignment: str, reason: str) -> None:
        """Give an item up for good, with the reason."""
        if self._mine(assignment, person).item.role == "qualification":
            raise DataError("this one has to be judged before the work begins", "put it aside for later, or answer it")
        reason = plain_text(str(reason).strip(), "the reason")
        if not reason or len(reason) > LONGEST_REASON:
            raise DataError("a skip needs a reason", f"say in a few words why (at most {LONGEST_REASON} characters)")
        queue.skip(self.db, assignment, person, reason, self.now(), self.config.quarantine_after)

    def postpone(self, person: str, assignment: str) -> None:
        """Put an item aside; it comes again after the others."""
        self._mine(assignment, person)
        queue.postpone(self.db, assignment, person, self.now())

    # What a person may know of their own work

    def history(self, person: str, limit: int = 50, before: str | None = None, uncovered: str = "") -> list[Past]:
        """Newest first; `before` is the assignment that ended the page before, `uncovered` one that they ask to see
        although it may be upsetting."""
        work = queue.own_work(self.db, self.id, person, limit, before)
        said = {j.id: j for j in self.workspace.judgements([each.judgement for each in work])}
        refused = categories.refused_in(self.db, self.id, person)
        return [self._past(each, said[each.judgement], refused, each.id == uncovered) for each in work]

    def progress(self, person: str) -> Progress:
        schedule = self._schedule(person)
        waiting = ""
        if self._collection().status == "closed":
            waiting = "closed"
        elif self._over_limit(schedule):
            waiting = "daily limit"
        elif not schedule.qualified and self._tried(schedule):
            waiting = "qualification"
        elif schedule.standing.withheld or (schedule.standing.refused and not schedule.qualified):
            waiting = "categories"
        return Progress(schedule.done, schedule.left, schedule.standing.today, self.config.per_day, waiting)

    # Inside

    def _collection(self) -> queue.Collection:
        return queue.collection(self.db, self.id)

    def _mine(self, assignment: str, person: str) -> Assignment:
        found = queue.assignment(self.db, assignment, person)
        if found.collection != self.id:
            raise NotFoundError(f"no assignment '{assignment}'", "go back to the start page")
        return found

    def _judge(self, person: str) -> str:
        return people_store.person(self.db, person).judge

    def _view(self, mine: Assignment, schedule: Schedule) -> View:
        config, item = self.config, mine.item
        shown = tuple(item.texts[i] for i in mine.order)
        hidden, help = covered(config.sensitive, item.prompt, shown), shown_help(item, mine.helped, mine.order)
        upsetting = any(hidden) or any(covered(config.sensitive, item.prompt, _texts_of(help)))
        return View(
            assignment=mine.id,
            kind=config.task,
            question=config.question,
            criteria=config.criteria,
            axes=tuple(axis.model_dump(mode="json") for axis in config.scales),
            ties=config.ties,
            both_bad=config.both_bad,
            strength=config.strength,
            rationale=config.rationale,
            prompt=tuple(each | {"content": ""} if hidden[0] else each for each in _messages(item)),
            completions=tuple("" if hides else text for text, hides in zip(shown, hidden[1:], strict=True)),
            help=tuple(map(_emptied, help)) if upsetting else help,
            help_open=config.help_open,
            covered=(*hidden, upsetting) if help else hidden,
            skippable=item.role != "qualification",
            flags=FLAGS,
            guideline=self._guideline(mine, mine.person),
            draft=mine.draft,
            revises=mine.judgement,
            warning=config.warning,
            mine={"done": schedule.done, "left": schedule.left},
        )

    def _past(self, mine: Assignment, said: Judgement, refused: frozenset[str], asked: bool) -> Past:
        assert mine.submitted is not None
        shown = tuple(mine.item.texts[i] for i in mine.order)
        upsetting = category_of(mine.item.prompt) in refused
        hidden = not asked and (upsetting or any(covered(self.config.sensitive, mine.item.prompt, shown)))
        answer, editable = dict(said.meta["answer"]), self._why_fixed(mine) == ""
        helped = mine.helped or ()
        if hidden:  # a text that they wrote is made from one that is covered
            answer.pop("text", None)
            return Past(mine.id, (), (), helped, True, answer, mine.submitted, editable)
        return Past(mine.id, _messages(mine.item), shown, helped, False, answer, mine.submitted, editable)

    def _schedule(self, person: str) -> Schedule:
        now = self.now()
        standing = queue.standing(self.db, self.id, person, since=now - now % DAY)
        qualified = self._is_qualified(person, standing.done.get("qualification", 0))
        who = f"{self.id} {person}"
        checks = self._count_checks(standing.refused)
        found = Schedule(self.config, self.secret, who, checks, standing, qualified)
        if not found.repeat_place:
            return found
        last = queue.own_work(self.db, self.id, person, 1)
        return replace(found, repeated=bool(last) and last[0].round > 0)

    def _over_limit(self, schedule: Schedule) -> bool:
        return 0 < self.config.per_day <= schedule.standing.today

    def _order(self, person: str) -> Callable[[Item, str, int], tuple[int, ...]]:
        """Looked up before the queue calls it: it is called inside the transaction of a hand-out."""
        if person not in self._numbers:
            everybody = people_store.people(self.db)
            self._numbers = {each.id: number for number, each in enumerate(everybody)}
        number = self._numbers[person]
        return lambda item, _, round: display_order(self.secret, item, number, round)

    # Qualification and golds

    def _count_checks(self, refused: frozenset[str] = frozenset()) -> Mapping[Role, int]:
        """Those of no category that is refused. Counted once in the life of a desk: checks are put in before the work
        begins."""
        if self._checks is None:
            wanted: dict[Role, int] = {
                "qualification": self.config.qualification,
                "gold": self.config.gold_every,
                "control": self.config.control_every,
            }
            self._checks = {role: self._count(role) for role, asked in wanted.items() if asked}
        return {role: found.total() - sum(found[key] for key in refused) for role, found in self._checks.items()}

    def _count(self, role: Role) -> Counter[str]:
        found: Counter[str] = Counter()
        after = -1
        while page := queue.items(self.db, self.id, after, role=role):
            found.update(category_of(item.prompt) for item in page if item.state != "quarantined")
            after = page[-1].position
        return found

    def _is_qualified(self, person: str, tried: int) -> bool:
        """Whether enough of the latest answers to qualification items are right. More items are another try."""
        first = min(self.config.qualification, self._count_checks().get("qualification", 0))
        if first == 0 or person in self._qualified:
            return True
        if tried < first:
            return False
        work = queue.own_work(self.db, self.id, person, first, role="qualification")
        said = self.workspace.judgements([each.judgement for each in work])
        right = [agreement(_key(each.item), judgement) for each, judgement in zip(work, said, strict=True)]
        if sum(right) < self.config.qualification_pass * len(right):
            return False
        self._qualified.add(person)
        return True

    def _tried(self, schedule: Schedule) -> bool:
        return schedule.standing.done.get("qualification", 0) >= self._count_checks().get("qualification", 0)

    # Rules about answers

    def _guideline(self, mine: Assignment, person: str) -> dict[str, Any]:
        """The version an item was handed out under. To have read that one or the newest is enough."""
        if mine.guideline not in self._guidelines:
            versions = queue.guidelines(self.db, self.id)
            self._guidelines = {each["id"]: (each["number"], bool(each["text"].strip())) for each in versions}
        number, says_something = self._guidelines[mine.guideline]
        seen = not says_something or queue.acknowledged(self.db, person, mine.guideline)
        seen = seen or queue.acknowledged(self.db, person, self._collection().guideline)
        return {"id": mine.guideline, "number": number, "seen": seen}

    def _why_fixed(self, mine: Assignment) -> str:
        if self._collection().status == "closed":
            return "the collection is closed: answers can no longer be changed"
        if mine.item.role == "qualification":
            return "the solution of this one was shown: the answer stands"
        return ""

    def _check_editable(self, mine: Assignment) -> None:
        if why := self._why_fixed(mine):
            raise DataError(why, "go on with the next one")

    def _check_limit(self, mine: Assignment, payload: Mapping[str, Any]) -> None:
        """What was put aside is no longer begun: else a day's limit would end where somebody puts all aside first and
        answers it afterwards. What they said stays as the draft with which the item comes again."""
        if not self.config.per_day or mine.judgement or mine.state not in ("postponed", "skipped"):
            return
        held = queue.holding(self.db, self.id, mine.person, self.now())
        begun = held is not None and not held.judgement
        if self._schedule(mine.person).standing.today + begun >= self.config.per_day:
            queue.save_draft(self.db, mine.id, mine.person, payload, self.now())
            raise DataError(LIMIT_REACHED, "what you said is kept as a draft; submit it after midnight UTC")

    def _is_retry(self, mine: Assignment, key: str) -> bool:
        """The browser did not hear that its answer arrived."""
        (said,) = self.workspace.judgements([mine.judgement])
        return bool(said.meta.get("key") == key)

    def _set_aside(self, item: Item, answer: Answer) -> None:
        """Personal data goes nowhere until a manager has looked. Done before the answer is stored: were the server
        killed in between, a repeated answer would not come this way again. The qualification stays: it is in no export,
        and nobody gets in without it."""
        if PERSONAL in answer.flags and item.state != "quarantined" and item.role != "qualification":
            queue.quarantine(self.db, item.id, f"flagged: {PERSONAL}", self.now())


def _messages(item: Item) -> tuple[dict[str, str], ...]:
    return tuple({"role": message.role, "content": message.content} for message in item.prompt.messages)


def _texts_of(help: tuple[dict[str, Any], ...]) -> tuple[str, ...]:
    """One after another: of each output what it says of all, then of each completion."""
    return tuple(text for each in help for text in (each["text"], *each["places"]))


def _emptied(output: dict[str, Any]) -> dict[str, Any]:
    return {**output, "text": "", "places": [""] * len(output["places"])}


def _key(item: Item) -> tuple[int, ...]:
    assert item.key is not None, f"item {item.id} of role {item.role} has no key"
    return tuple(item.key["ranks"])


def _feedback(item: Item, said: Judgement) -> str:
    """Training only: of a hidden gold nobody may learn that it was one."""
    if item.role != "qualification" or item.key is None:
        return ""
    verdict = "Right." if agreement(_key(item), said) == 1 else "Another answer was expected."
    return f"{verdict} {item.key.get('why', '')}".strip()
