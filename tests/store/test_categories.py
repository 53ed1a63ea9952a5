"""What items are about, and people who are not to be given some of it: on every database."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from people_at_work import LEASE, check_counts, collect, give, new_items, take
from test_queue import recorded

from trueup.records import Prompt
from trueup.store import Workspace, migrations, people, queue, schema
from trueup.store.categories import categories, key_of, names_of, refused_by, refused_names

V2 = (Path(__file__).parent.parent / "fixtures" / "workspace-v2.sql").read_text()
TAGGED = {"post 1": "Violence", "post 2": ["self  harm", "violence"], "post 4": "Violence"}
LONG = [f"a long name for category {i}" for i in range(40)]


@pytest.fixture
def ws(shared):
    with shared.database.write() as connection:
        connection.execute(schema.opt_out.delete())  # people are the same in all collections
    return shared


# An old workspace


@pytest.fixture(params=["sqlite", "postgres"])
def old(request, tmp_path) -> Path:
    """A workspace of schema 2, whose prompts have tags that its version knew nothing of."""
    script = V2
    for text, tags in (TAGGED | {"post 3": LONG}).items():
        before = json.dumps({"messages": [{"role": "user", "content": text}]})
        assert before in script
        script = script.replace(before, json.dumps(json.loads(before) | {"meta": {"category": tags}}))
    for folder in ("artifacts", "runs"):
        (tmp_path / folder).mkdir()
    if request.param == "sqlite":
        with closing(sqlite3.connect(tmp_path / "workspace.db")) as connection:
            connection.executescript(script)
    else:
        url = request.getfixturevalue("empty_postgres")
        fill_postgres(url, script)
        (tmp_path / "workspace.toml").write_text(f'database = "{url}"\n')
    return tmp_path


def fill_postgres(url: str, script: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, applied TEXT NOT NULL)")
        for statement in (*migrations.MIGRATIONS[0], *migrations.MIGRATIONS[1]):
            connection.execute(statement)
        connection.execute("SET session_replication_role = replica")  # the rows stand in the order of table names
        for line in script.splitlines():
            if line.startswith("INSERT INTO"):
                connection.execute(line)


def test_a_workspace_of_schema_2_learns_what_its_items_are_about(old):
    assert Workspace.upgrade(old, backed_up=True) == (2, migrations.newest())
    with Workspace.open(old) as ws:
        (collection,) = queue.collections(ws.database)
        with ws.database.read() as connection:
            rows = connection.execute(sa.select(schema.item.c.category).order_by(schema.item.c.position)).all()
        items = queue.items(ws.database, collection.id)
        assert [row.category for row in rows] == [key_of(names_of(item.prompt)) for item in items]
        found = {each.names: (each.size, each.wanted) for each in categories(ws.database, [collection.id])}
        assert found == {("violence",): (2, 1), ("self harm", "violence"): (1, 1), tuple(sorted(LONG)): (1, 0)}
        assert all(item.help is None for item in items)
        check_counts(ws, collection.id)


# Names


def test_a_category_has_one_spelling_whatever_the_tag_holds():
    def names(tag: object) -> tuple[str, ...]:
        return names_of(Prompt.user("?", category=tag))

    assert names(" Self\n HARM ") == names(["self harm", "Self harm", ""]) == ("self harm",)
    assert names(3) == ("3",) and names({"a": 1}) == names(None) == names([]) == ()
    assert names("a\u202eb\0c\ud800") == ("abc",)
    assert len(names("x" * 10_000)[0]) == 100
    assert names_of(Prompt.user("?")) == () and key_of(()) == ""
    assert len(key_of([f"name {i}" for i in range(1000)])) < 500


# Who refuses what


TAGS = ("a", "b", ["b", "c"], None, "d", ["c"])
PEOPLE = [f"judge{n}" for n in range(9)]


def about(held: queue.Assignment) -> set[str]:
    return set(names_of(held.item.prompt))


def refuse(ws: Workspace, person: str, *names: str, now: float = 0.0, among: str = "abcd") -> None:
    queue.opt_out(ws.database, person, {name: name in names for name in among}, now)


@pytest.mark.parametrize("seed", range(2))
def test_nobody_receives_what_they_refuse_and_all_that_somebody_takes_is_finished(ws, seed):
    """Nine judges who change their minds while they work, put aside, skip and let leases run out."""
    chance, overlap = random.Random(seed), 2
    collection = collect(ws, 24, overlap=overlap, tags=TAGS)
    queue.add_items(ws.database, collection, new_items(ws, 6, first=24, role="calibration", overlap=4, tags=TAGS), 0.0)
    refused: dict[str, set[str]] = {person: set() for person in PEOPLE}
    for now in range(0, 200, 2):
        person = chance.choice(PEOPLE)
        if now < 150 and chance.random() < 0.3:
            refused[person] = set(chance.sample("abcd", chance.choice((0, 1, 1, 2, 3))))
            refuse(ws, person, *refused[person], now=now)
        held = take(ws, collection, person, now, lease=30.0)
        assert held is None or not about(held) & refused[person]
        deed = chance.random()
        if held is not None and deed < 0.75:
            give(ws, held, now)
        elif held is not None and deed < 0.85:
            queue.postpone(ws.database, held.id, person, now)
    finish(ws, collection, refused)
    check_counts(ws, collection)
    votes = Counter(work["item"] for _, work in queue.current_judgements(ws.database, collection))
    for item in queue.items(ws.database, collection):
        takers = sum(not refused[person] & set(names_of(item.prompt)) for person in PEOPLE)
        voted = {
            work["person"] for _, work in queue.current_judgements(ws.database, collection) if work["item"] == item.id
        }
        before = sum(bool(refused[person] & set(names_of(item.prompt))) for person in voted)
        assert votes[item.id] == min(item.overlap, takers + before), item


def finish(ws: Workspace, collection: str, refused: dict[str, set[str]]) -> None:
    for person in PEOPLE:
        while (held := take(ws, collection, person, 1000.0)) is not None:
            assert not about(held) & refused[person]
            give(ws, held, 1000.0)


def test_what_is_held_goes_back_and_its_answer_is_kept_all_the_same(ws):
    db, collection = ws.database, collect(ws, 3, tags=("a", "b", "b"))
    held = take(ws, collection, "ann")
    queue.save_draft(db, held.id, "ann", {"choice": 1}, 0.0)
    refuse(ws, "ann", "a", now=1.0)
    assert about(take(ws, collection, "ann", 2.0)) == {"b"}
    give(ws, take(ws, collection, "bob", 2.0), 2.0)
    assert about(take(ws, collection, "bob", 2.0)) == {"a"}, "it is free again, behind the others"
    assert queue.renew(db, held.id, "ann", 3.0, LEASE).state == "expired", "an open page does not bring it back"
    assert queue.assignment(db, held.id, "ann").draft == {"choice": 1}
    assert give(ws, held, 4.0).surplus, "bob has it, and what ann said is kept"
    check_counts(ws, collection)
    refuse(ws, "ann", now=5.0)
    assert about(take(ws, collection, "ann", 5.0)) == {"b"}, "what was answered is released to nobody"


def test_an_answer_that_was_taken_back_stands_again(ws):
    db, collection = ws.database, collect(ws, 1, tags=("a",))
    given = give(ws, take(ws, collection, "ann"))
    (work,) = queue.own_work(db, collection, "ann", 5)
    queue.take_back(db, work.id, "ann", 2.0)
    refuse(ws, "ann", "a", now=3.0)
    assert take(ws, collection, "ann", 3.0) is None
    after = queue.assignment(db, work.id, "ann")
    assert (after.state, after.judgement) == ("done", given.judgement)
    assert queue.take_back(db, work.id, "ann", 4.0).state == "leased", "to change it they only have to ask for it"


def test_whoever_welcomes_it_again_finds_what_they_passed_by(ws):
    """And what was put aside; what they did stays done."""
    db, collection = ws.database, collect(ws, 6, overlap=2, tags=("a", "b", None))
    queue.postpone(db, take(ws, collection, "ann").id, "ann", 0.0)
    refuse(ws, "ann", "a", "b", now=1.0)
    while (held := take(ws, collection, "ann", 1.0)) is not None:
        give(ws, held)
    assert [each.item.position for each in queue.own_work(db, collection, "ann", 9)] in ([2, 5], [5, 2])
    refuse(ws, "ann", "b", now=2.0)
    came = []
    while (held := take(ws, collection, "ann", 2.0)) is not None:
        came.append(held.item.position)
        give(ws, held, 2.0)
    assert came == [3, 0], "new ones first, then what was put aside"
    check_counts(ws, collection)


def test_repeats_and_checks_are_refused_too(ws):
    db, collection = ws.database, collect(ws, 14, overlap=2, tags=("a",))
    queue.add_items(db, collection, new_items(ws, 2, first=20, role="gold", overlap=9, tags=("b", None)), 0.0)
    for now in range(14):
        give(ws, take(ws, collection, "ann", now), now)
    refuse(ws, "ann", "a", "b", now=20.0)
    assert take(ws, collection, "ann", 20.0, repeat=True) is None
    assert take(ws, collection, "ann", 20.0, role="gold").item.position == 15
    refuse(ws, "bob", "b", now=20.0)
    assert about(take(ws, collection, "bob", 20.0)) == {"a"}


def test_what_is_left_for_somebody_is_without_what_they_refuse(ws):
    db, collection = ws.database, collect(ws, 12, tags=("a", ["a", "b"], None))
    for now in range(4):
        give(ws, take(ws, collection, "ann", now), now)
    assert queue.standing(db, collection, "ann", 0.0).left == 8
    refuse(ws, "ann", "b", now=5.0)
    stands = queue.standing(db, collection, "ann", 0.0)
    assert (stands.left, stands.withheld, len(stands.refused)) == (5, True, 1)
    while (held := take(ws, collection, "ann", 6.0)) is not None:
        give(ws, held, 6.0)
    stands = queue.standing(db, collection, "ann", 0.0)
    assert (stands.left, stands.withheld) == (0, True)
    while (held := take(ws, collection, "bob", 7.0)) is not None:
        give(ws, held, 7.0)
    assert not queue.standing(db, collection, "ann", 0.0).withheld
    assert queue.standing(db, collection, "bob", 0.0).refused == frozenset()


def test_what_is_refused_is_passed_by_once(ws):
    """Not again with every item: a collection may be mostly about what somebody refuses."""
    collection = collect(ws, 40, tags=("a",))
    queue.add_items(ws.database, collection, new_items(ws, 2, first=40, role="calibration", tags=("b", "a")), 0.0)
    refuse(ws, "ann", "a")
    assert about(take(ws, collection, "ann")) == {"b"}
    with ws.database.read() as connection:
        mine = schema.standing.c.collection == collection
        passed = dict(connection.execute(sa.select(schema.standing.c.role, schema.standing.c.passed).where(mine)).all())
    assert passed == {"main": 39, "calibration": 40}
    refuse(ws, "bob", "a", "b")
    assert take(ws, collection, "bob") is None
    queue.add_items(ws.database, collection, new_items(ws, 1, first=50), 0.0)
    assert about(take(ws, collection, "bob")) == set(), "new work is found behind it"


def test_help_is_kept_with_the_item_and_what_is_forgotten_takes_choices_along(ws):
    db, collection = ws.database, collect(ws)
    help = ({"helper": "h", "kind": "score", "text": "t", "places": ["1", "2"]},)
    queue.add_items(db, collection, [*new_items(ws, 1, help=help), *new_items(ws, 1, first=1)], 0.0)
    assert [item.help for item in queue.items(db, collection)] == [help, None]
    ada = people.add_person(db, f"Ada {collection}", "annotator", 0.0)
    refuse(ws, ada.id, "a", "b")
    assert refused_by(db, ada.id) == refused_names(db)[ada.id] == {"a", "b"}
    people.anonymise(db, ada.id)
    assert refused_by(db, ada.id) == set()


def test_the_way_past_what_is_refused_needs_no_look_at_the_items(tmp_path):
    """The index that the queue is walked by holds the category: that no item is read to be passed by is what keeps it
    quick where a collection is mostly about what somebody refuses."""
    with Workspace.create(tmp_path / "sqlite") as ws:  # whose planner decides without statistics
        plans = plans_of_refusing(ws)
    assert not [plan for plan in plans.values() if any(step.startswith("SCAN item") for step in plan)]
    scans = [step for plan in plans.values() for step in plan if step.startswith("SCAN assignment")]
    assert set(scans) <= {"SCAN assignment USING INDEX assignment_leased"}, "what anybody holds is little"
    walks = [plan for statement, plan in plans.items() if "ORDER BY item.turn" in statement]
    assert walks and all("item_queue (collection=? AND role=? AND turn>?)" in " ".join(plan) for plan in walks)
    assert not [plan for plan in walks if "TEMP B-TREE" in " ".join(plan)]


def plans_of_refusing(ws: Workspace) -> dict[str, list[str]]:
    collection = collect(ws, 30, tags=("a", "b"))
    refuse(ws, "ann", "a")
    with recorded(ws) as statements:
        give(ws, take(ws, collection, "ann"))
        queue.standing(ws.database, collection, "ann", 0.0)
        take(ws, collection, "ann")
        refuse(ws, "ann", "b", now=1.0)
    with ws.database.read() as connection:
        return {
            statement: [row[3] for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)]
            for statement, parameters in statements.items()
            if "schema_version" not in statement
        }
