"""A workspace is made, found, opened and upgraded; whatever is none, or not of this version, is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from trueup.errors import WorkspaceError
from trueup.records import Judgement, Prompt
from trueup.store import (
    Workspace,
    audit,
    figures,
    migrations,
    people,
    queue,
    schema,
)

V1 = Path(__file__).parent / "fixtures" / "workspace-v1.sql"
V2 = Path(__file__).parent / "fixtures" / "workspace-v2.sql"


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace:
        yield workspace


# Finding and opening


def test_create_then_open_and_find(tmp_path, monkeypatch):
    made = Workspace.create(tmp_path / "a")
    below = made.path / "runs" / "deep"
    below.mkdir()
    monkeypatch.delenv("TRUEUP_WORKSPACE", raising=False)
    assert Workspace.open(tmp_path / "a").path == made.path
    assert Workspace.find(start=below).path == made.path
    monkeypatch.chdir(below)
    assert Workspace.find().path == made.path
    other = Workspace.create(tmp_path / "b")
    monkeypatch.setenv("TRUEUP_WORKSPACE", str(other.path))
    assert Workspace.find(start=below).path == other.path
    assert Workspace.find(made.path, start=other.path).path == made.path


def test_no_workspace_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.delenv("TRUEUP_WORKSPACE", raising=False)
    with pytest.raises(WorkspaceError) as caught:
        Workspace.find(start=tmp_path)
    assert "trueup init DIR" in caught.value.hint
    with pytest.raises(WorkspaceError, match="is not a workspace"):
        Workspace.open(tmp_path)


def test_create_refuses_what_is_there(ws, tmp_path):
    with pytest.raises(WorkspaceError, match="already"):
        Workspace.create(ws.path)
    (tmp_path / "mine" / "artifacts").mkdir(parents=True)
    (tmp_path / "mine" / "artifacts" / "thesis.doc").write_text("years of work")
    with pytest.raises(WorkspaceError, match="in the way"):
        Workspace.create(tmp_path / "mine")
    assert not (tmp_path / "mine" / "workspace.db").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot make"):
        Workspace.create(tmp_path / "file")


def test_files_that_are_no_workspace_database(tmp_path):
    (tmp_path / "workspace.db").write_bytes(b"not a database, certainly" * 100)
    with pytest.raises(WorkspaceError, match="no database"):
        Workspace.open(tmp_path)
    (tmp_path / "workspace.db").unlink()
    with closing(sqlite3.connect(tmp_path / "workspace.db")) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(WorkspaceError, match="not made by trueup"):
        Workspace.open(tmp_path)


def test_database_settings(ws):
    with ws.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "a commit is on disk"
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() >= 30_000
    with pytest.raises(WorkspaceError, match="no longer there"), ws.database.write() as connection:
        connection.execute(schema.name.insert().values(name="x", artifact="0" * 16))
    assert ws.names() == {}


# Schema and migrations


def tables_of(connection):
    inspector = sa.inspect(connection)
    return {
        table: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((f["constrained_columns"], f["referred_table"]) for f in inspector.get_foreign_keys(table)),
            sorted((tuple(i["column_names"]), only(i)) for i in inspector.get_indexes(table)),
            sorted(tuple(u["column_names"]) for u in inspector.get_unique_constraints(table)),
        )
        for table in inspector.get_table_names()
    }


def only(index):
    """The condition of a partial index; PostgreSQL writes it in its own way."""
    conditions = index.get("dialect_options", {})
    return [str(conditions[name]) for name in ("sqlite_where", "postgresql_where") if name in conditions]


def test_migrations_make_the_schema_the_code_sees(ws):
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        wanted = tables_of(connection)
    with ws.database.read() as connection:
        assert tables_of(connection) == wanted


def old_workspace(folder: Path, script: str) -> Path:
    for child in ("artifacts", "runs"):
        (folder / child).mkdir(parents=True)
    with closing(sqlite3.connect(folder / "workspace.db")) as connection:
        connection.executescript(script)
    return folder


def test_a_workspace_of_schema_1_is_upgraded_and_works_on(tmp_path):
    folder = old_workspace(tmp_path, V1.read_text())
    assert Workspace.upgrade(folder) == (1, migrations.newest())
    with Workspace.open(folder) as old:
        assert old.names() == {"policy": old.get("policy").id}
        assert [a.kind for a in old.artifacts()] == ["completions", "preferences", "policy"]
        assert old.get("policy").parents == {"preferences": old.artifacts("preferences")[0].id}
        assert [(j.judge, j.ranks) for j in old.judgements()] == [("ann", (0, 1)), ("bob", (1, 0))]
        (run,) = old.run_rows()
        assert (run.stage, run.status, run.seed, run.config) == ("rl", "done", 7, {"steps": 2})
        assert run.outputs == {"policy": old.get("policy").id}
        texts = ("short", "long")
        made = queue.create_collection(old.database, "again", {}, "Be fair.", 0.0)
        item = queue.NewItem(Prompt.user("post 1"), texts, old.artifacts("completions")[0].id, (True, True))
        assert queue.add_items(old.database, made.id, [item], 0.0) == 1
        assert old.unused() == []


def test_a_workspace_of_schema_2_is_upgraded_and_works_on(tmp_path):
    """With a queue in the middle of everything."""
    folder = old_workspace(tmp_path, V2.read_text())
    assert Workspace.upgrade(folder) == (2, migrations.newest())
    with Workspace.open(folder) as old:
        db = old.database
        (collection,) = queue.collections(db)
        assert (collection.name, collection.config) == ("helpful", {"task": "pair"})
        assert [i.state for i in queue.items(db, collection.id)] == ["full", "open", "quarantined", "open"]
        ((said, about),) = queue.current_judgements(db, collection.id)
        assert (said.completions, said.meta["answer"], about["person"]) == (("short", "long"), {"choice": 2}, "p1")
        assert len(list(old.judgements())) == 3
        held = queue.holding(db, collection.id, "p1", 50.0)
        assert held is not None and held.draft == {"rationale": "hm"}
        record = Judgement(held.item.prompt, held.item.texts, (1, 2), "human:aaaaaa", "human")
        assert not queue.submit(db, held.id, "p1", key="late", record=record, now=9999.0).surplus
        assert people.password_hash(db, "Ann") == (people.people(db)[0], "$argon2id$x")
        assert audit.verify(db) == [] and figures.latest(db, collection.id, "agreement") is not None


def test_older_is_refused_then_backed_up_and_migrated(tmp_path, monkeypatch):
    folder = old_workspace(tmp_path, V1.read_text())
    step = ("ALTER TABLE artifact ADD COLUMN colour TEXT",)
    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, step])
    with pytest.raises(WorkspaceError) as caught:
        Workspace.open(folder)
    assert "trueup upgrade" in caught.value.hint
    newest = migrations.newest()
    assert Workspace.upgrade(folder) == (1, newest)
    assert Workspace.upgrade(folder) == (newest, newest)
    with Workspace.open(folder) as workspace, workspace.database.read() as connection:
        assert "colour" in [c["name"] for c in sa.inspect(connection).get_columns("artifact")]
        assert len(workspace.artifacts()) == 3
    (backup,) = folder.glob("workspace-v1-*.db")
    with closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("SELECT MAX(version) FROM schema_version").fetchone() == (1,)
        assert copy.execute("SELECT COUNT(*) FROM judgement").fetchone() == (2,)
        assert "colour" not in [row[1] for row in copy.execute("PRAGMA table_info(artifact)")]


def test_a_failing_migration_changes_nothing(tmp_path, monkeypatch):
    folder = old_workspace(tmp_path, V1.read_text())
    step = ("ALTER TABLE artifact ADD COLUMN colour TEXT", "ALTER TABLE nonsense ADD COLUMN x TEXT")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, step])
        with pytest.raises(sa.exc.OperationalError):
            Workspace.upgrade(folder)
    with closing(sqlite3.connect(folder / "workspace.db")) as database:
        assert database.execute("SELECT MAX(version) FROM schema_version").fetchone() == (1,)
    assert Workspace.upgrade(folder) == (1, migrations.newest())
    with Workspace.open(folder) as workspace:
        assert len(workspace.artifacts()) == 3


def test_newer_is_refused_even_when_it_becomes_newer_while_open(ws):
    with ws.database.write() as connection:
        connection.exec_driver_sql("INSERT INTO schema_version VALUES (99, 'later')")
    for refused in (Workspace.open, Workspace.upgrade):
        with pytest.raises(WorkspaceError, match="made by a newer trueup"):
            refused(ws.path)
    with pytest.raises(WorkspaceError, match="upgraded by another trueup"):
        ws.put("data", {"a": b"1"})
    assert list((ws.path / "artifacts").iterdir()) == []


def test_a_creation_that_was_killed_is_schema_0(tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "workspace.db").touch()
    with pytest.raises(WorkspaceError, match="schema 0"):
        Workspace.open(tmp_path)
    assert Workspace.upgrade(tmp_path) == (0, migrations.newest())
    Workspace.open(tmp_path).put("data", {"a": b"1"})
