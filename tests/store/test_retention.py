"""What is deleted by itself, and what never is, on every database."""

from __future__ import annotations

import sqlalchemy as sa
from people_at_work import LEASE, collect, give, take

from trueup.store import audit, people, queue, retention, schema

DAY = 86_400.0


def rows(ws, table) -> list:
    with ws.database.read() as connection:
        return connection.execute(sa.select(table)).all()


def drafts(ws) -> dict[str, dict]:
    return {row.person: row.draft for row in rows(ws, schema.assignment) if row.draft is not None}


def test_what_has_ended_is_deleted_and_what_has_not_stays(ws):
    db = ws.database
    ann = people.add_person(db, "ann", "owner", 0.0)
    old, new = (people.new_session(db, ann.id, 0.0, seconds) for seconds in (100.0, 300.0))
    expired, good = (people.new_token(db, ann.id, "export", 0.0, seconds) for seconds in (100.0, 300.0))
    for seconds in (100.0, 300.0):
        people.new_invite(db, "viewer", ann.id, 0.0, seconds)
    assert retention.sweep(db, 100.0) == {"sessions": 1, "tokens": 1, "invitations": 0, "drafts": 0}
    assert people.session(db, old, 1.0) is None and people.session(db, new, 1.0) == ann
    assert people.token(db, expired, "export", 1.0) is None and people.token(db, good, "export", 1.0) == ann
    assert len(people.invites(db)) == 2, "that one ended can be seen for a while"
    assert retention.sweep(db, 100.0 + 30 * DAY)["invitations"] == 1 and len(people.invites(db)) == 1
    assert people.people(db) == [ann]


def test_drafts_go_when_their_collection_is_closed_and_nobody_was_at_them_for_a_day(ws):
    db = ws.database
    closed, still_open = collect(ws, 4), collect(ws, 4)
    held = {name: take(ws, closed, name) for name in ("lapsed", "put aside", "at work")}
    held["elsewhere"] = take(ws, still_open, "elsewhere")
    for name, each in held.items():
        queue.save_draft(db, each.id, name, {"choice": 1}, 1.0)
    queue.postpone(db, held["put aside"].id, "put aside", 2.0)
    queue.set_status(db, closed, "closed")
    assert retention.sweep(db, DAY + 2.0)["drafts"] == 1, "what was put aside at 2 s"
    assert set(drafts(ws)) == {"lapsed", "at work", "elsewhere"}
    queue.renew(db, held["at work"].id, "at work", LEASE + DAY, LEASE)
    assert retention.sweep(db, LEASE + DAY)["drafts"] == 1
    assert drafts(ws) == {"at work": {"choice": 1}, "elsewhere": {"choice": 1}}


def test_judgements_and_the_audit_log_stay_whatever_happens(ws):
    db = ws.database
    collection = collect(ws, 2)
    give(ws, take(ws, collection, "ann"))
    audit.note(db, 0.0, "ann", "signed in", "ann")
    queue.set_status(db, collection, "closed")
    kept = [rows(ws, table) for table in (schema.judgement, schema.assignment, schema.item, schema.audit)]
    retention.sweep(db, 1e10)
    assert [rows(ws, table) for table in (schema.judgement, schema.assignment, schema.item, schema.audit)] == kept
    assert audit.verify(db) == []


def test_many_drafts_are_deleted_in_short_transactions(ws, monkeypatch):
    monkeypatch.setattr("trueup.store.judgements.CHUNK", 2)
    db = ws.database
    collection = collect(ws, 5)
    for name in "abcde":
        queue.save_draft(db, take(ws, collection, name).id, name, {"choice": 1}, 1.0)
    queue.set_status(db, collection, "closed")
    assert retention.sweep(db, 2 * DAY)["drafts"] == 5 and drafts(ws) == {}
