"""Who gets in, who does not, and what is forgotten about them, on every database."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import sqlalchemy as sa
from people_at_work import collect, give, take

from trueup.errors import DataError, NotFoundError, WorkspaceError
from trueup.store import people, queue, schema


@pytest.fixture
def db(ws):
    return ws.database


def everything(db) -> str:
    """Every value of every table, as somebody with a copy of the database has it."""
    with db.read() as connection:
        return " ".join(repr(row) for t in schema.metadata.tables.values() for row in connection.execute(sa.select(t)))


def test_people_have_names_roles_and_pseudonyms(db):
    ann = people.add_person(db, "  Ann   Lee ", "owner", 1.0, "$argon2id$x")
    bob = people.add_person(db, "Bob", "annotator", 2.0, collection="c1")
    assert people.people(db) == [ann, bob] and people.person(db, ann.id) == ann
    assert (ann.name, ann.role, ann.active, ann.settings, ann.collection) == ("Ann Lee", "owner", True, {}, "")
    assert bob.collection == "c1" and ann.judge != bob.judge
    for each in (ann, bob):
        assert each.judge.startswith("human:") and len(each.judge) == 12 and each.name.lower() not in each.judge
    people.set_role(db, bob.id, "manager")
    people.set_settings(db, bob.id, {"theme": "dark"})
    assert (people.person(db, bob.id).role, people.person(db, bob.id).settings) == ("manager", {"theme": "dark"})
    with pytest.raises(DataError, match="already"):
        people.add_person(db, "Bob", "viewer", 3.0)
    with pytest.raises(NotFoundError):
        people.person(db, "nobody")
    with pytest.raises(DataError):
        people.set_settings(db, bob.id, {"x": float("nan")})


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "\ud800", "x" * 101, "human:abcdef", "a\u202eb", "a\x1bb"])
def test_what_cannot_be_a_name(db, name):
    with pytest.raises(DataError, match="name"):
        people.add_person(db, name, "viewer", 1.0)
    assert people.people(db) == []


def test_pseudonyms_do_not_repeat(db, monkeypatch):
    letters = itertools.chain("aaaaaaaaaaaabbbbbb", itertools.cycle("c"))
    monkeypatch.setattr(people.secrets, "choice", lambda _: next(letters))
    judges = [people.add_person(db, name, "viewer", 1.0).judge for name in ("a", "b")]
    assert judges == ["human:aaaaaa", "human:bbbbbb"]


def test_the_last_owner_stays(db):
    ann, bob = (people.add_person(db, name, "owner", 1.0) for name in ("ann", "bob"))
    people.deactivate(db, bob.id)
    for act in (
        lambda: people.set_role(db, ann.id, "viewer"),
        lambda: people.deactivate(db, ann.id),
        lambda: people.anonymise(db, ann.id),
    ):
        with pytest.raises(WorkspaceError, match="last owner"):
            act()
    assert people.person(db, ann.id) == ann


def test_sessions_end_in_every_way(db):
    ann = people.add_person(db, "ann", "owner", 0.0, "hash")
    bob = people.add_person(db, "bob", "owner", 0.0, "hash")

    def start() -> str:
        return people.new_session(db, ann.id, 100.0, 10.0)

    token = start()
    assert people.session(db, token, 109.9) == ann and people.session(db, token, 110.0) is None
    assert people.session(db, token + "x", 101.0) is None and people.session(db, "\ud800", 101.0) is None
    for end in (
        lambda token: people.end_session(db, token),
        lambda token: people.end_sessions(db, ann.id),
        lambda token: people.set_password_hash(db, ann.id, "new"),
        lambda token: people.deactivate(db, ann.id),
    ):
        token, other = start(), people.new_session(db, bob.id, 100.0, 10.0)
        assert people.session(db, token, 101.0) == ann
        end(token)
        assert people.session(db, token, 101.0) is None
        assert people.session(db, other, 101.0) == bob
    people.new_session(db, bob.id, 999.0, 10.0)
    with db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.session)) == 1, "old ones are swept away"


def test_passwords_are_of_active_people_who_have_one(db):
    ann = people.add_person(db, "ann", "owner", 0.0, "$argon2id$x")
    bob = people.add_person(db, "bob", "viewer", 0.0)
    assert people.password_hash(db, "ann") == (ann, "$argon2id$x")
    assert people.password_hash(db, "bob") is None and people.password_hash(db, "nobody") is None
    people.set_password_hash(db, bob.id, "$argon2id$y")
    assert people.password_hash(db, "bob") == (bob, "$argon2id$y")
    people.deactivate(db, bob.id)
    assert people.password_hash(db, "bob") is None


def test_an_invitation_is_used_as_often_as_it_says(db):
    ann = people.add_person(db, "ann", "owner", 0.0)
    one = people.new_invite(db, "annotator", ann.id, 0.0, 100.0, collection="c1")
    bob = people.accept_invite(db, one, "bob", 1.0, "$argon2id$x")
    assert (bob.role, bob.collection) == ("annotator", "c1") and people.password_hash(db, "bob")[0] == bob
    two = people.new_invite(db, "viewer", ann.id, 1.0, 100.0, uses=2)
    people.accept_invite(db, two, "cid", 1.0, "h")
    with pytest.raises(DataError, match="already"):
        people.accept_invite(db, two, "cid", 1.0, "h")
    people.accept_invite(db, two, "dot", 1.0, "h")
    late = people.new_invite(db, "viewer", ann.id, 1.0, 5.0)
    revoked = people.new_invite(db, "viewer", ann.id, 2.0, 100.0)
    people.revoke_invite(db, people.invites(db)[0]["id"])
    said = set()
    for token, now in ((one, 2.0), (two, 2.0), (late, 6.0), (revoked, 3.0), ("guess", 3.0)):
        with pytest.raises(DataError) as caught:
            people.accept_invite(db, token, "eve", now, "h")
        said.add((caught.value.message, caught.value.hint))
    assert len(said) == 1, "no difference between used, expired, revoked and unknown"
    assert "eve" not in [p.name for p in people.people(db)]
    left = sorted((i["role"], i["uses"], i["revoked"]) for i in people.invites(db))
    assert left == [("annotator", 0, False), ("viewer", 0, False), ("viewer", 1, False), ("viewer", 1, True)]
    assert all("hash" not in invite for invite in people.invites(db))
    with pytest.raises(NotFoundError):
        people.revoke_invite(db, "nothing")


def test_tokens_have_one_purpose_and_an_end(db):
    ann = people.add_person(db, "ann", "owner", 0.0)
    token = people.new_token(db, ann.id, "export", 0.0, 100.0)
    assert people.token(db, token, "export", 99.0) == ann
    assert people.token(db, token, "status", 99.0) is None and people.token(db, token, "export", 100.0) is None
    assert people.token(db, token.upper(), "export", 99.0) is None and people.token(db, "\ud800", "export", 1.0) is None
    (listed,) = people.tokens(db)
    assert listed == {"id": listed["id"], "person": ann.id, "scope": "export", "collection": "", "expires": 100.0}
    people.revoke_token(db, listed["id"])
    assert people.token(db, token, "export", 1.0) is None and people.tokens(db) == []
    with pytest.raises(NotFoundError):
        people.revoke_token(db, listed["id"])


def test_a_token_may_be_for_one_collection_and_ends_with_its_person(db):
    people.add_person(db, "boss", "owner", 0.0)
    ann = people.add_person(db, "ann", "owner", 0.0)
    token = people.new_token(db, ann.id, "status", 0.0, 100.0, "c1")
    assert people.token(db, token, "status", 1.0) == replace(ann, collection="c1")
    assert people.token(db, token, "export", 1.0) is None and people.token(db, token, "status:c1", 1.0) is None
    assert [(each["scope"], each["collection"]) for each in people.tokens(db)] == [("status", "c1")]
    people.deactivate(db, ann.id)
    assert people.token(db, token, "status", 1.0) is None and people.tokens(db) == []


def test_a_name_has_one_spelling(db):
    zoe = people.add_person(db, "Zoe\u0308", "annotator", 0.0, "hash")
    assert zoe.name == "Zo\u00eb"
    for typed in ("Zoe\u0308", "Zo\u00eb"):
        assert people.password_hash(db, typed) == (zoe, "hash")
        with pytest.raises(DataError, match="already"):
            people.add_person(db, typed, "annotator", 0.0)


def test_a_copy_of_the_database_lets_nobody_in(db):
    ann = people.add_person(db, "ann", "owner", 0.0)
    secrets = [
        people.new_session(db, ann.id, 0.0, 1e6),
        people.new_invite(db, "owner", ann.id, 0.0, 1e6),
        people.new_token(db, ann.id, "export", 0.0, 1e6),
    ]
    assert len(set(secrets)) == 3 and all(len(secret) >= 43 for secret in secrets), "256 bits each"
    stored = everything(db)
    assert ann.id in stored and not any(secret in stored for secret in secrets)


def test_who_is_deactivated_lets_go_and_who_is_anonymised_is_forgotten(ws, db):
    people.add_person(db, "boss", "owner", 0.0)
    ann = people.add_person(db, "Annabel", "annotator", 0.0, "$argon2id$x")
    people.set_settings(db, ann.id, {"greeting": "Annabel!"})
    collection = collect(ws, 2)
    give(ws, take(ws, collection, ann.id))
    held = take(ws, collection, ann.id, 1.0)
    assert take(ws, collection, "bob", 2.0) is None
    people.deactivate(db, ann.id)
    assert not people.person(db, ann.id).active
    assert take(ws, collection, "bob", 2.0).item == held.item, "what they held is free at once"
    people.anonymise(db, ann.id)
    assert "Annabel" not in everything(db)
    assert people.person(db, ann.id).name == people.person(db, ann.id).judge == ann.judge
    assert len(list(queue.current_judgements(db, collection))) == 1, "their judgements stay"


def test_demographics_are_counts_or_nothing(ws, db):
    def told(min_cell=people.MIN_CELL):
        found = people.demographics(db, min_cell)
        return {field: (dict(each.counts), each.others) for field, each in found.items()}

    ages = ["30-39"] * 6 + ["40-49"] * 7 + ["60-69"] * 5
    for n, age in enumerate(ages):
        people.set_demographics(db, b"secret", f"p{n}", {"age": age, "region": "North" if n < 4 else ""})
    people.set_demographics(db, b"secret", "p0", {"age": "30-39", "region": "North"})
    assert told() == {"age": ({"30-39": 6, "40-49": 7, "60-69": 5}, False), "region": ({}, True)}
    people.forget_demographics(db, b"secret", f"p{len(ages) - 1}")
    assert told()["age"] == ({"40-49": 7}, True), "with the 6 shown, the 4 would be what is missing to the total"
    assert told(min_cell=2)["age"] == ({"30-39": 6, "40-49": 7, "60-69": 4}, False)
    people.forget_demographics(db, b"another secret", "p1")
    assert told(1)["age"][0]["30-39"] == 6, "only the secret leads to a person's answers"
    with db.read() as connection:
        rows = connection.execute(sa.select(schema.demographic)).all()
    assert not any(f"p{n}" in repr(row) for n in range(len(ages)) for row in rows)
    with pytest.raises(DataError):
        people.set_demographics(db, b"secret", "p0", {"age": "a\0b"})


@pytest.mark.parametrize("answers", range(1, 5))
def test_what_is_kept_back_cannot_be_worked_out_from_the_total(answers):
    """Every way in which up to ten people each may have answered, and what the total less what is shown gives away."""
    for given in itertools.product(range(1, 11), repeat=answers):
        counts = dict(zip("abcd", given, strict=False))
        told = people._told(counts, 5)
        hidden = {value: n for value, n in counts.items() if value not in told.counts}
        assert all(n >= 5 and counts[value] == n for value, n in told.counts.items())
        assert told.others == bool(hidden)
        if hidden and told.counts:
            assert len(hidden) >= 2 and sum(hidden.values()) >= 5, counts
        assert bool(hidden) == (min(given) < 5), "nothing is kept back without need"
