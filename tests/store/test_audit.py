"""The audit log shows every change to it; figures are kept with their age. On every database."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from people_at_work import collect

from trueup.errors import DataError
from trueup.store import audit, figures, schema


@pytest.fixture
def db(ws):
    db = ws.database
    for n in range(5):
        audit.note(db, n + 0.1, f"p{n}", "invite", "annotator", uses=n, share=0.1, names=["ä", "b"])
    return db


def test_entries_come_back_in_order_and_hold(db):
    found = audit.entries(db)
    assert [entry["number"] for entry in found] == [1, 2, 3, 4, 5]
    assert {k: found[2][k] for k in ("at", "person", "action", "about", "details")} == {
        "at": 2.1,
        "person": "p2",
        "action": "invite",
        "about": "annotator",
        "details": {"uses": 2, "share": 0.1, "names": ["ä", "b"]},
    }
    assert audit.entries(db, after=2, limit=2) == found[2:4]
    assert audit.verify(db) == []


def test_long_logs_are_verified_to_the_end(db, monkeypatch):
    monkeypatch.setattr(audit, "PAGE", 2)
    change(db, 5, about="owner")
    assert audit.verify(db) == ["entry 5 was changed, or one before it"]


@pytest.mark.parametrize(
    "column, value",
    [("at", 2.2), ("person", "eve"), ("action", "x"), ("about", "owner"), ("details", {}), ("hash", "0")],
)
def test_a_changed_entry_shows(db, column, value):
    change(db, 3, **{column: value})
    assert audit.verify(db)[0] == "entry 3 was changed, or one before it"


def change(db, entry: int, **columns) -> None:
    with db.write() as connection:
        connection.execute(schema.audit.update().where(schema.audit.c.number == entry).values(columns))


def test_a_missing_entry_shows(db):
    with db.write() as connection:
        connection.execute(schema.audit.delete().where(schema.audit.c.number.in_([2, 3])))
    assert audit.verify(db) == ["entries 2 to 3 are missing", "entry 4 was changed, or one before it"]


def test_swapped_entries_show(db):
    for before, after in ((2, 99), (3, 2), (99, 3)):
        change(db, before, number=after)
    assert "entry 2 was changed, or one before it" in audit.verify(db)


def test_an_entry_and_what_it_tells_of_happen_together(db):
    with pytest.raises(ZeroDivisionError), db.write() as connection:
        audit.note_within(connection, 9.0, "p1", "export", "all")
        1 / 0  # noqa: B018
    assert len(audit.entries(db)) == 5
    with db.write() as connection:
        audit.note_within(connection, 9.0, "p1", "export", "all")
        audit.note_within(connection, 9.0, "p1", "export", "all")
    assert len(audit.entries(db)) == 7 and audit.verify(db) == []
    with pytest.raises(DataError, match="audit"):
        audit.note(db, 9.0, "p1", "export", "all", what=object())


def test_the_newest_figure_of_a_kind_is_shown_with_its_n_and_time(ws):
    db, collection, other = ws.database, collect(ws), collect(ws)
    assert figures.latest(db, collection, "agreement") is None
    figures.keep(db, collection, "agreement", {"alpha": 0.4}, 100, 2.0)
    figures.keep(db, collection, "agreement", {"alpha": 0.5}, 50, 1.0)
    figures.keep(db, collection, "curve", {"points": [[1, 0.5]]}, 7, 9.0)
    figures.keep(db, other, "agreement", {"alpha": 0.6}, 1, 3.0)
    assert figures.latest(db, collection, "agreement") == {"value": {"alpha": 0.4}, "n": 100, "made": 2.0}
    figures.keep(db, collection, "agreement", {"alpha": 0.45}, 101, 2.0)
    assert figures.latest(db, collection, "agreement") == {"value": {"alpha": 0.45}, "n": 101, "made": 2.0}
    with pytest.raises(DataError):
        figures.keep(db, collection, "agreement", {"alpha": float("nan")}, 1, 4.0)
    with db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.figure)) == 4
