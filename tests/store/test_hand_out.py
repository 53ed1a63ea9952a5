"""Any sequence of events, beside a model simple enough to be seen right: the queue does exactly what the model does."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from people_at_work import check_counts, collect, give, new_items, take

from trueup.errors import DataError
from trueup.store import Workspace, items, queue, schema

PEOPLE = ("ann", "bob", "cid")
LEASE = 10.0
QUARANTINE_AFTER = 2


@dataclass
class Paper:
    """An assignment as the model sees it."""

    id: str
    item: str
    person: str
    state: str = "leased"
    counted: bool = True
    issued: float = 0.0
    expires: float = 0.0
    judged: bool = False
    said: dict[str, bool] = field(default_factory=dict)  # key -> surplus


@dataclass
class Question:
    """An item as the model sees it."""

    id: str
    priority: int
    overlap: int
    quarantined: bool = False
    cleared: float = -1.0
    over: bool = False  # more votes than it wants, because somebody lowered that number


class Model:
    """Everything in two dictionaries and one list, looked through from the start each time."""

    def __init__(self) -> None:
        self.questions: dict[str, Question] = {}
        self.papers: dict[str, Paper] = {}
        self.queue: list[str] = []  # free items, those that became free last at the end of their priority
        self.now = 0.0

    def taken(self, item: str) -> int:
        return sum(p.item == item and p.counted and p.state in ("leased", "done") for p in self.papers.values())

    def room(self, item: str) -> bool:
        return self.taken(item) < self.questions[item].overlap

    def settle(self, item: str) -> None:
        """Let an item enter or leave the queue."""
        question = self.questions[item]
        free = self.room(item) and not question.quarantined
        if free and item not in self.queue:
            self.queue.append(item)
            self.queue.sort(key=lambda each: -self.questions[each].priority)  # stable: the order of entry stays
        elif not free and item in self.queue:
            self.queue.remove(item)

    def lapse(self) -> None:
        over = [p for p in self.papers.values() if p.state == "leased" and p.expires <= self.now]
        for paper in sorted(over, key=lambda p: (p.expires, p.id)):
            paper.state = "done" if paper.judged else "expired"
            self.settle(paper.item)

    def of(self, person: str, state: str) -> list[Paper]:
        return [p for p in self.papers.values() if p.person == person and p.state == state]

    def lease(self, paper: Paper) -> str:
        paper.state, paper.counted, paper.issued, paper.expires = "leased", True, self.now, self.now + LEASE
        self.settle(paper.item)
        return paper.item

    def hand_out(self, person: str) -> tuple[str, Paper | None]:
        """Which item, and which assignment of it if there is one already."""
        self.lapse()
        if held := sorted(self.of(person, "leased"), key=lambda p: (-p.issued, p.id)):
            return held[0].item, held[0]
        for paper in sorted(self.of(person, "expired"), key=lambda p: (-p.expires, p.id)):
            if paper.item in self.queue:
                return self.lease(paper), paper
        known = {p.item for p in self.papers.values() if p.person == person}
        for item in self.queue:
            if item not in known:
                return item, None
        for paper in sorted(self.of(person, "postponed"), key=lambda p: (p.expires, p.id)):
            if paper.item in self.queue:
                return self.lease(paper), paper
        return "", None

    def submit(self, paper: Paper, key: str) -> tuple[bool, bool]:
        """(surplus, again)."""
        self.lapse()
        if key in paper.said:
            return paper.said[key], True
        if paper.state not in ("leased", "done"):
            paper.counted = self.room(paper.item)
        paper.state, paper.judged, paper.said[key] = "done", True, not paper.counted
        self.settle(paper.item)
        return paper.said[key], False

    def skips(self, item: str) -> int:
        cleared = self.questions[item].cleared
        skipped = [p for p in self.papers.values() if p.item == item and p.state == "skipped"]
        return sum(p.expires > cleared for p in skipped)


class Judging(RuleBasedStateMachine):
    ws: Workspace  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.keys = 0

    @initialize(n=st.integers(1, 4), overlap=st.integers(1, 3))
    def start(self, n, overlap):
        self.collection = collect(self.ws)
        self.n_items = 0
        self.add(n, overlap, 0)

    @rule(n=st.integers(1, 2), overlap=st.integers(1, 2), priority=st.sampled_from([0, 0, 1, -1]))
    def add(self, n, overlap, priority):
        self.sweep()
        items = new_items(self.ws, n, first=self.n_items, overlap=overlap, priority=priority)
        queue.add_items(self.ws.database, self.collection, items, self.model.now)
        for item in queue.items(self.ws.database, self.collection, after=self.n_items - 1):
            self.model.questions[item.id] = Question(item.id, priority, overlap)
            self.model.settle(item.id)
        self.n_items += n

    @rule(seconds=st.sampled_from([1.0, 4.0, 11.0]))
    def wait(self, seconds):
        self.model.now += seconds

    @rule(person=st.sampled_from(PEOPLE))
    def hand_out(self, person):
        wanted, known = self.model.hand_out(person)
        held = take(self.ws, self.collection, person, self.model.now, lease=LEASE)
        assert (held.item.id if held else "") == wanted
        if held and known:
            assert held.id == known.id
        elif held:
            paper = Paper(held.id, held.item.id, person)
            self.model.papers[held.id] = paper
            self.model.lease(paper)

    @rule(data=st.data(), again=st.booleans())
    def submit(self, data, again):
        if paper := self.some(data):
            self.keys += 1
            key = next(iter(paper.said)) if again and paper.said else f"k{self.keys}"
            wanted = self.model.submit(paper, key)
            done = give(self.ws, self.stored(paper), self.model.now, key)
            assert (done.surplus, done.again) == wanted

    @rule(data=st.data())
    def skip(self, data):
        if paper := self.some(data):
            self.model.lapse()
            act = lambda: queue.skip(  # noqa: E731
                self.ws.database, paper.id, paper.person, "no", self.model.now, QUARANTINE_AFTER
            )
            if paper.state == "done":
                self.refused(act)
                return
            act()
            if paper.state != "skipped":
                paper.state, paper.expires, paper.judged = "skipped", self.model.now, False
                self.model.settle(paper.item)
                if self.model.skips(paper.item) >= QUARANTINE_AFTER:
                    self.model.questions[paper.item].quarantined = True
                self.model.settle(paper.item)

    @rule(data=st.data())
    def postpone(self, data):
        if paper := self.some(data):
            self.model.lapse()
            act = lambda: queue.postpone(self.ws.database, paper.id, paper.person, self.model.now)  # noqa: E731
            if paper.state == "done":
                self.refused(act)
                return
            act()
            if paper.state not in ("postponed", "skipped"):
                paper.state, paper.expires = "done" if paper.judged else "postponed", self.model.now
                self.model.settle(paper.item)

    @rule(data=st.data())
    def take_back(self, data):
        if paper := self.some(data):
            self.model.lapse()
            act = lambda: queue.take_back(  # noqa: E731
                self.ws.database, paper.id, paper.person, self.model.now, LEASE
            )
            if paper.state == "done":
                act()
                paper.state, paper.issued, paper.expires = "leased", self.model.now, self.model.now + LEASE
            elif paper.state == "leased" and paper.judged:
                act()
            else:
                self.refused(act)

    @rule(data=st.data())
    def renew(self, data):
        if paper := self.some(data):
            self.model.lapse()
            if paper.state == "leased":
                paper.expires = self.model.now + LEASE
            elif paper.state == "expired" and paper.item in self.model.queue:
                paper.state, paper.counted, paper.expires = "leased", True, self.model.now + LEASE
                self.model.settle(paper.item)
            renewed = queue.renew(self.ws.database, paper.id, paper.person, self.model.now, LEASE)
            assert renewed.state == paper.state

    @rule(data=st.data(), overlap=st.integers(1, 4))
    def release(self, data, overlap):
        self.sweep()
        question = data.draw(st.sampled_from(sorted(self.model.questions.values(), key=lambda q: q.id)))
        queue.release(self.ws.database, question.id, overlap)
        question.overlap = overlap
        question.over = self.model.taken(question.id) > overlap
        self.model.settle(question.id)

    @rule(data=st.data(), clear=st.booleans())
    def quarantine(self, data, clear):
        self.sweep()
        question = data.draw(st.sampled_from(sorted(self.model.questions.values(), key=lambda q: q.id)))
        if clear:
            queue.clear(self.ws.database, question.id, self.model.now)
            question.quarantined, question.cleared = False, self.model.now
        else:
            queue.quarantine(self.ws.database, question.id, "odd", self.model.now)
            question.quarantined = True
        self.model.settle(question.id)

    @invariant()
    def votes_and_live_leases_never_exceed_the_overlap(self):
        for question in self.model.questions.values():
            assert question.over or self.model.taken(question.id) <= question.overlap

    def teardown(self):
        """Every row, at the end: the states, what stands, and the counts derived from rows."""
        if not self.model.questions:
            return
        self.sweep()
        db = self.ws.database
        for paper in self.model.papers.values():
            stored = queue.assignment(db, paper.id, paper.person)
            assert (stored.state, bool(stored.judgement)) == (paper.state, paper.judged)
        standing = {about["item"] + about["person"] for _, about in queue.current_judgements(db, self.collection)}
        assert standing == {p.item + p.person for p in self.model.papers.values() if p.judged}
        table = schema.judgement
        with db.read() as connection:
            stored = connection.scalars(sa.select(table.c.id).where(table.c.collection == self.collection)).all()
        assert len(stored) == sum(len(p.said) for p in self.model.papers.values()), "whatever was said is still there"
        check_counts(self.ws, self.collection)

    # Helpers

    def some(self, data) -> Paper | None:
        papers = list(self.model.papers.values())
        return data.draw(st.sampled_from(papers)) if papers else None

    def stored(self, paper: Paper) -> queue.Assignment:
        return queue.assignment(self.ws.database, paper.id, paper.person)

    def sweep(self) -> None:
        """End the leases that have run out, as whoever asks next would."""
        self.model.lapse()
        assert take(self.ws, self.collection, "nobody", self.model.now, role="gold") is None

    def refused(self, act) -> None:
        with pytest.raises(DataError):
            act()


def run(ws: Workspace, examples: int, steps: int) -> None:
    machine = type("Machine", (Judging,), {"ws": ws})
    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(machine, settings=profile)


IDS = itertools.count()


@pytest.fixture(autouse=True)
def ids_in_order(monkeypatch):
    """Ids decide between equals. Random ones would make two runs of one example differ."""
    for module in (queue, items):
        monkeypatch.setattr(module, "new_id", lambda: f"{next(IDS):016x}")


def test_the_queue_does_what_the_model_does(shared):
    run(shared, examples=20, steps=40)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_queue_does_what_the_model_does_for_long(shared):
    run(shared, examples=600, steps=60)
