"""`trueup feedback token`: what lets a program in, made and revoked by whoever sits at the machine."""

from __future__ import annotations

import json
import time

import pytest

from trueup.cli.main import run
from trueup.store import audit, people, queue


@pytest.fixture
def trueup(workspace, capsys):
    """`trueup("list")`: (exit code, what --json printed, stderr)."""

    def call(line: str):
        code = run(["--workspace", str(workspace.path), "feedback", "token", *line.split(), "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out) if said.out else None, said.err

    return call


def test_a_token_is_made_shown_once_listed_and_revoked(trueup, workspace):
    db = workspace.database
    code, _, stderr = trueup("new --scope export")
    assert code == 1 and "there are 0" in stderr and "trueup label" in stderr
    olga = people.add_person(db, "Olga", "owner", 0.0)
    titles = queue.create_collection(db, "titles", {}, "", 0.0)
    code, made, _ = trueup("new --scope export --collection titles --days 90")
    assert code == 0 and made["path"] == "/api/export/titles"
    found = people.token(db, made["token"], "export", time.time() + 89 * 86_400)
    assert found is not None and (found.id, found.collection) == (olga.id, titles.id)
    assert people.token(db, made["token"], "export", time.time() + 91 * 86_400) is None
    (listed,) = trueup("list")[1]
    assert listed["scope"] == "export" and made["token"] not in json.dumps(listed)
    assert trueup(f"revoke {listed['id']}")[0] == 0 and trueup("list")[1] == []
    assert people.token(db, made["token"], "export", time.time()) is None
    code, _, stderr = trueup(f"revoke {listed['id']}")
    assert code == 1 and "no token" in stderr
    entries = audit.entries(db)
    assert [(each["action"], each["about"]) for each in entries] == [
        ("made a token", titles.id),
        ("revoked a token", listed["id"]),
    ]
    assert made["token"] not in json.dumps(entries)


def test_a_token_stands_for_an_owner(trueup, workspace):
    for name, role in (("Olga", "owner"), ("Otto", "owner"), ("Mo", "manager")):
        people.add_person(workspace.database, name, role, 0.0)
    code, _, stderr = trueup("new --scope status")
    assert code == 1 and "--owner" in stderr
    code, _, stderr = trueup("new --scope status --owner Mo")
    assert code == 1 and "manager" in stderr
    assert trueup("new --scope status --owner Otto")[0] == 0
    assert trueup("new --scope status --owner Otto --collection nothing")[0] == 1
    assert len(people.tokens(workspace.database)) == 1
