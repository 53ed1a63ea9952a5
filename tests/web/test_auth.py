"""Getting in and out: start link, password, invitation, cookie; and what the audit log says of it."""

from __future__ import annotations

import re
import time
from http.cookies import SimpleCookie

import pytest
import sqlalchemy as sa
from sites import PASSWORD, START_TOKEN, Client
from starlette.testclient import TestClient

from trueup.errors import DataError
from trueup.store import audit, people
from trueup.web import auth
from trueup.web.account import own_path

OWN = {"origin": "null", "sec-fetch-site": "same-origin"}
DAY = 86_400


@pytest.fixture
def ada(site_of_app):
    """An annotator with a password."""
    person = site_of_app.person("Ada Lovelace")
    people.set_password_hash(site_of_app.db, person.id, auth.hash_password(PASSWORD, person.name))
    return person


def cookie_of(answer):
    (header,) = answer.headers.get_list("set-cookie")
    ((name, morsel),) = SimpleCookie(header).items()
    return name, morsel


def actions(site):
    return [(entry["action"], entry["details"]) for entry in audit.entries(site.db)]


# The start link (S2)


def test_the_start_link_signs_the_owner_in_and_leaves_no_token_in_the_address(site_of_app):
    client = site_of_app.client(None)
    answer = client.get(f"/start?token={START_TOKEN}")
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    name, cookie = cookie_of(answer)
    assert name == site_of_app.cookie_name and START_TOKEN not in cookie.value
    assert client.get("/account").status_code == 200
    assert [each.role for each in people.people(site_of_app.db)] == ["owner"]
    assert actions(site_of_app) == [("signed in", {"way": "start link"})]


@pytest.mark.parametrize("token", ["", "x", START_TOKEN[:-1], START_TOKEN + "x", "é", START_TOKEN.upper()])
def test_a_wrong_start_token_is_refused(client, site_of_app, token):
    answer = client.get("/start", params={"token": token})
    assert answer.status_code == 403 and "set-cookie" not in answer.headers
    assert people.people(site_of_app.db) == []


def test_the_start_link_is_the_same_owner_each_time(site_of_app):
    for _ in range(3):
        site_of_app.client(None).get(f"/start?token={START_TOKEN}")
    assert len(people.people(site_of_app.db)) == 1


def test_without_a_start_token_no_token_fits(workspace):
    from trueup.web import create_app

    client = TestClient(create_app(workspace, token=None), base_url="http://127.0.0.1")
    for token in ("", "None", "null"):
        assert client.get("/start", params={"token": token}).status_code == 403


def test_where_a_sign_in_leads_is_a_path_of_ours():
    assert own_path("/c/abc-1/mine") == "/c/abc-1/mine"
    for path in ("//evil.example", "/\\evil.example", "https://evil.example", "/c/a?x=//e", "", "c", "/\n/e", "/é"):
        assert own_path(path) == "/", path


# The cookie (S5)


def test_the_cookie_is_out_of_reach_of_script_and_of_other_sites(client, site_of_app):
    _, cookie = cookie_of(client.get(f"/start?token={START_TOKEN}"))
    assert cookie["httponly"] and cookie["samesite"].lower() == "lax" and cookie["path"] == "/"
    assert not cookie["domain"] and not cookie["secure"]
    assert 0 < int(cookie["max-age"]) <= 7 * DAY


@pytest.mark.parametrize("how", ["by its connection", "as it was told"])
def test_under_tls_the_cookie_is_secure_and_bound_to_the_host(workspace, how):
    from trueup.web import create_app

    app = create_app(workspace, token=START_TOKEN, secure=how == "as it was told")
    scheme = "https" if how == "by its connection" else "http"
    client = TestClient(app, base_url=f"{scheme}://127.0.0.1", follow_redirects=False)
    name, cookie = cookie_of(client.get(f"/start?token={START_TOKEN}"))
    assert cookie["secure"] and name.startswith("__Host-")


def test_a_sign_in_replaces_whatever_session_the_browser_had(site_of_app, ada):
    planted = site_of_app.session(ada)
    client = site_of_app.client(None)
    client.plant(planted)
    client.get(f"/start?token={START_TOKEN}")
    assert client.cookie != planted
    assert people.session(site_of_app.db, planted, time.time()) is None


def test_signing_out_ends_the_session_on_the_server(site_of_app, ada):
    client = site_of_app.client(ada)
    stolen = client.cookie
    assert client.form("/logout").status_code == 303
    thief = site_of_app.client(None)
    thief.plant(stolen)
    assert thief.get("/account").status_code == 303
    assert actions(site_of_app)[-1][0] == "signed out"


def test_a_session_ends_by_itself(site_of_app, ada):
    client = Client(site_of_app, None)
    client.sign_in(ada.name, PASSWORD)
    assert client.get("/account").status_code == 200
    site_of_app.clock.offset = auth.SESSION_SECONDS + 1
    assert client.get("/account").status_code == 303


def test_a_changed_role_a_new_password_and_a_deactivation_end_sessions(site_of_app, ada):
    owner = site_of_app.client(site_of_app.person("owner", "owner"))
    for path, fields in (("role", {"role": "viewer"}), ("deactivate", {})):
        client = site_of_app.client(ada)
        assert owner.form(f"/people/{ada.id}/{path}", **fields).status_code == 303
        assert client.get("/account").status_code == 303, path


# Passwords (S4)


def test_a_password_signs_in(site_of_app, ada):
    client = site_of_app.client(None)
    answer = client.sign_in("  Ada   Lovelace ", PASSWORD)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert "Ada Lovelace" in client.get("/account").text
    assert actions(site_of_app) == [("signed in", {"way": "password"})]


def test_a_wrong_password_and_an_unknown_name_look_the_same(site_of_app, ada):
    pages = []
    for name in (ada.name, "Nobody Here"):
        answer = site_of_app.client(None).sign_in(name, "wrong password here")
        assert answer.status_code == 403
        pages.append(re.sub(r'(nonce|value)="[^"]*"', "", answer.text))
    assert pages[0] == pages[1]
    assert actions(site_of_app) == [("sign-in failed", {})], "of a name that nobody has nothing is kept"


def test_an_unknown_name_takes_as_long_as_a_wrong_password(site_of_app, ada, monkeypatch):
    checked = []
    real = auth._hasher

    class Watched:
        def verify(self, stored, password):
            checked.append(stored)
            return real.verify(stored, password)

    monkeypatch.setattr(auth, "_hasher", Watched())
    monkeypatch.setattr(type(site_of_app.db), "write", None)  # a write would take longer than no write
    for name in (ada.name, "Nobody Here"):
        assert auth.check_password(site_of_app.app.state.site, name, "wrong password here") is None
    assert len(checked) == 2 and checked[0] != checked[1]


def test_passwords_are_stored_as_argon2id():
    hashed = auth.hash_password(PASSWORD, "ada")
    assert hashed.startswith("$argon2id$") and "m=65536,t=3,p=4" in hashed
    assert auth.hash_password(PASSWORD, "ada") != hashed


@pytest.mark.parametrize("password", ["", "short", "a" * 20, "ababababababab", "ada lovelace 1815", "x" * 1001])
def test_passwords_that_can_be_guessed_are_refused(password):
    with pytest.raises(DataError):
        auth.hash_password(password, "Ada Lovelace")


def test_changing_a_password_needs_the_old_one_and_ends_the_other_sessions(site_of_app, ada):
    here, elsewhere = site_of_app.client(ada), site_of_app.client(ada)
    assert here.form("/account/password", old="wrong", new="another good passphrase").status_code == 403
    assert here.form("/account/password", old=PASSWORD, new="short").status_code == 400
    assert elsewhere.get("/account").status_code == 200
    before = here.cookie
    assert here.form("/account/password", old=PASSWORD, new="another good passphrase").status_code == 303
    assert here.cookie != before
    assert here.get("/account").status_code == 200 and elsewhere.get("/account").status_code == 303
    assert site_of_app.client(None).sign_in(ada.name, PASSWORD).status_code == 403
    assert "set a password" in [action for action, _ in actions(site_of_app)]


def test_the_first_password_needs_no_old_one(site_of_app):
    owner = site_of_app.person("owner", "owner")
    client = site_of_app.client(owner)
    assert client.form("/account/password", new=PASSWORD).status_code == 303
    assert site_of_app.client(None).sign_in("owner", PASSWORD).status_code == 303


# Invitations (S4, M3)


def invite(site, role="annotator", **fields):
    owner = site.client(
        next((p for p in people.people(site.db) if p.role == "owner"), None) or site.person("o", "owner")
    )
    answer = owner.form("/invites", **{"role": role, "collection": "", "days": "7", "uses": "1", **fields})
    assert answer.status_code == 200, answer.text
    return re.search(r"http://127\.0\.0\.1(/invite/[\w-]{43})", answer.text).group(1)


def accept(client, path, name="Grace", password=PASSWORD):
    client.get(path)
    return client.form(path, name=name, password=password)


def test_an_invitation_makes_one_person_of_its_role_and_signs_them_in(site_of_app):
    path = invite(site_of_app, "viewer")
    client = site_of_app.client(None)
    assert accept(client, path).status_code == 303
    (grace,) = [each for each in people.people(site_of_app.db) if each.name == "Grace"]
    assert grace.role == "viewer" and "Grace" in client.get("/account").text
    assert accept(site_of_app.client(None), path, "Mallory").status_code == 400
    assert [action for action, _ in actions(site_of_app)] == ["invited", "accepted an invitation", "signed in"]


def test_looking_at_an_invitation_does_not_use_it_up(site_of_app):
    path = invite(site_of_app)
    for _ in range(3):
        assert site_of_app.client(None).get(path).status_code == 200
    assert accept(site_of_app.client(None), path).status_code == 303


def test_expired_revoked_used_and_invented_invitations_look_the_same(site_of_app):
    expired, revoked, used = invite(site_of_app), invite(site_of_app), invite(site_of_app)
    owner = site_of_app.client(next(each for each in people.people(site_of_app.db) if each.role == "owner"))
    assert accept(site_of_app.client(None), used, "First").status_code == 303
    newest = {each["id"] for each in people.invites(site_of_app.db) if each["uses"]}
    for each in newest:
        assert owner.form(f"/invites/{each}/revoke").status_code == 303
    late = invite(site_of_app, days="1")
    site_of_app.clock.offset = 2 * DAY
    said = set()
    for path in (expired, revoked, used, late, "/invite/" + "x" * 43):
        page = site_of_app.client(None).get(path).text
        assert "If this link was used or has ended, it will not work." in page
        answer = accept(site_of_app.client(None), path, "Mallory")
        assert answer.status_code == 400
        said.add(re.search(r'role="alert">([^<]*)', answer.text).group(1))
    assert len(said) == 1 and "cannot be used" in said.pop()
    assert "Mallory" not in [each.name for each in people.people(site_of_app.db)]


def test_a_name_that_is_taken_costs_no_invitation(site_of_app, ada):
    path = invite(site_of_app)
    client = site_of_app.client(None)
    assert accept(client, path, ada.name).status_code == 400
    assert accept(client, path, "Grace").status_code == 303


def test_an_invitation_can_be_bound_to_a_collection(site_of_app):
    client = site_of_app.client(None)
    accept(client, invite(site_of_app, collection=site_of_app.collection))
    (grace,) = [each for each in people.people(site_of_app.db) if each.name == "Grace"]
    assert grace.collection == site_of_app.collection


def test_a_manager_invites_only_below(site_of_app):
    manager = site_of_app.client(site_of_app.person("m", "manager"))
    fields = {"collection": "", "days": "1", "uses": "1"}
    for role, status in (("owner", 403), ("manager", 403), ("annotator", 200), ("viewer", 200), ("root", 400)):
        assert manager.form("/invites", role=role, **fields).status_code == status, role
    page = manager.get("/people").text
    assert "<option selected>annotator" in page and "<option>manager" not in page


@pytest.mark.parametrize("fields", [{"uses": "0"}, {"uses": "101"}, {"uses": "1e3"}, {"days": "365"}, {"days": "٣"}])
def test_an_invitation_cannot_last_or_spread_without_end(site_of_app, fields):
    owner = site_of_app.client(site_of_app.person("o", "owner"))
    good = {"role": "annotator", "collection": "", "days": "1", "uses": "1"}
    assert owner.form("/invites", **{**good, **fields}).status_code == 400


def test_nobody_can_register(site_of_app):
    """Without an invitation there is no way to become a person: no such route, and nothing that answers to one."""
    client = site_of_app.client(None)
    for path in ("/register", "/signup", "/people", "/invites", "/user", "/api/users"):
        assert client.get(path).status_code in (303, 404, 405)
        client.get("/login")
        assert client.form(path, name="x", password=PASSWORD).status_code in (401, 404, 405), path
    assert people.people(site_of_app.db) == []


# What lies in the database (S4)


def test_a_copy_of_the_database_lets_nobody_in(site_of_app, ada):
    secrets = [invite(site_of_app).removeprefix("/invite/"), site_of_app.session(ada)]
    secrets.append(people.new_token(site_of_app.db, ada.id, "export", time.time(), 60))
    with site_of_app.db.read() as connection:
        tables = sa.inspect(connection).get_table_names()
        dump = repr([connection.execute(sa.text(f'SELECT * FROM "{table}"')).all() for table in tables])
    assert "session" in tables and len(dump) > 1000
    assert ada.name in dump
    for secret in [*secrets, PASSWORD, START_TOKEN, site_of_app.app.state.site.secret.hex()]:
        assert secret not in dump


def test_no_address_of_anybody_is_kept(site_of_app, ada, tmp_path):
    """S14: addresses live in memory for the length of a window and nowhere else."""
    client = TestClient(site_of_app.app, base_url="http://127.0.0.1", client=("203.0.113.77", 50000))
    client.get("/login")
    client.get(f"/start?token={START_TOKEN}")
    assert "203.0.113.77" in site_of_app.app.state.site.meter.known()
    for path in (tmp_path / "work").rglob("*"):
        if path.is_file():
            assert b"203.0.113.77" not in path.read_bytes(), path


# The audit log (S13)


def test_the_audit_log_shows_and_checks_itself(site_of_app, ada):
    owner_person = site_of_app.person("owner", "owner")
    owner = site_of_app.client(owner_person)
    owner.form(f"/people/{ada.id}/role", role="viewer")
    owner.form(f"/people/{ada.id}/deactivate")
    owner.form(f"/people/{ada.id}/anonymise")
    assert [action for action, _ in actions(site_of_app)] == ["changed a role", "deactivated", "anonymised"]
    assert actions(site_of_app)[0][1] == {"old": "annotator", "new": "viewer"}
    page = owner.get("/audit").text
    assert "changed a role" in page and "Ada" not in page, "an anonymised person has no name in the log either"
    assert "The log is whole" in owner.form("/audit/verify").text
    with site_of_app.db.write() as connection:
        connection.execute(sa.text("UPDATE audit SET action = 'nothing' WHERE number = 2"))
    assert "entry 2 was changed" in owner.form("/audit/verify").text


def test_the_last_owner_stays(site_of_app):
    person = site_of_app.person("owner", "owner")
    owner = site_of_app.client(person)
    for path, fields in (("role", {"role": "viewer"}), ("deactivate", {}), ("anonymise", {})):
        answer = owner.form(f"/people/{person.id}/{path}", **fields)
        assert answer.status_code == 409 and "last owner" in answer.text
    assert actions(site_of_app) == []


def test_nobody_owns_less_than_everything(site_of_app):
    owner = site_of_app.client(site_of_app.person("owner", "owner"))
    bound = site_of_app.person("bound", "manager", site_of_app.collection)
    assert owner.form(f"/people/{bound.id}/role", role="owner").status_code == 409
    fields = {"role": "owner", "collection": site_of_app.collection, "days": "1", "uses": "1"}
    assert owner.form("/invites", **fields).status_code == 400
    assert [each.role for each in people.people(site_of_app.db)] == ["owner", "manager"]


# What people tell about themselves (M4)


def test_demographics_are_counts_of_five_or_more_and_can_be_taken_back(site_of_app):
    empty = {"age": "", "gender": "", "education": "", "english": "", "region": ""}
    everybody = [site_of_app.client(site_of_app.person(f"p{index}")) for index in range(5)]
    for client in everybody:
        assert client.form("/account/demographics", **empty | {"english": "fluent"}).status_code == 303
    assert (
        everybody[0].form("/account/demographics", **empty | {"english": "fluent", "age": "25 to 34"}).status_code
        == 303
    )
    assert everybody[0].form("/account/demographics", **empty | {"age": "<script>"}).status_code == 400
    owner = site_of_app.client(site_of_app.person("owner", "owner"))
    kept_back = 'other answers</th><td class="number">kept back</td>'
    page = re.sub(r"\s+", " ", owner.get("/people").text)
    assert 'fluent</th><td class="number">5</td>' in page
    assert "25 to 34" not in page and page.count(kept_back) == 1
    everybody[0].form("/account/demographics/forget")
    page = re.sub(r"\s+", " ", owner.get("/people").text)
    assert "25 to 34" not in page and "fluent" not in page and page.count(kept_back) == 1
    for role in ("manager", "viewer"):
        page = site_of_app.client(site_of_app.person(role, role)).get("/people").text
        assert "kept back" not in page and "in numbers" not in page, "for owners only"
    with site_of_app.db.read() as connection:
        stored = repr(connection.execute(sa.text("SELECT * FROM demographic")).all())
    assert all(client.person.id not in stored for client in everybody)


def test_the_form_never_shows_what_was_told(site_of_app):
    """Whoever looks over a shoulder, or opens a session left open, learns nothing."""
    client = site_of_app.client(site_of_app.person("p"))
    before = client.get("/account/demographics").text
    client.form("/account/demographics", age="25 to 34", gender="", education="", english="", region="")
    clean = [re.sub(r'value="\w{64}"', "", text) for text in (before, client.get("/account/demographics").text)]
    assert clean[0] == clean[1]
