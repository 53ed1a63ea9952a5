"""What is special to PostgreSQL, and the workspace's own tests once more on it."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import psycopg
import pytest
import sqlalchemy as sa
from people_at_work import collect, give, positions, take
from test_store import (  # noqa: F401
    test_a_crash_in_put_registers_nothing_and_can_be_repeated,
    test_a_staged_folder_moves_and_another_is_copied,
    test_an_ambiguous_prefix_is_an_error,
    test_get_by_id_prefix_and_name,
    test_id_is_the_documented_hash,
    test_judgements_get_ids_once_and_keep_their_order,
    test_lineage_ends_when_runs_go_in_a_circle,
    test_lineage_of_a_policy_reaches_the_judges_and_the_data,
    test_meta_must_be_json,
    test_names_move_and_win_over_prefixes,
    test_staging_is_removed_on_failure,
    test_two_writers_lose_nothing,
    test_unused_is_what_nothing_needs,
    test_verify_names_what_differs,
)
from test_workspace import tables_of, test_newer_is_refused_even_when_it_becomes_newer_while_open  # noqa: F401

from benchmarks import clusters
from trueup.cli.main import run
from trueup.errors import WorkspaceError
from trueup.store import RunRow, Workspace, database, migrations, queue, schema


@pytest.fixture
def url(empty_postgres):
    return empty_postgres


@pytest.fixture
def ws(url, tmp_path):
    with Workspace.create(tmp_path / "ws", url) as made:
        yield made


# A workspace whose database is elsewhere


def test_a_workspace_on_postgres_is_found_opened_and_used(ws, url, monkeypatch):
    assert sorted(p.name for p in ws.path.iterdir()) == [".staging", "artifacts", "runs", "workspace.toml"]
    assert unquote((ws.path / "workspace.toml").read_text()).endswith(f'database = "{url}"\n')
    made = ws.put("data", {"a": b"1"}, name="posts")
    ws.add_run(RunRow("r1", "sft", "running", {"lr": 0.1}, 7, {}, inputs={"data": made.id}))
    ws.update_run("r1", status="done", result={"loss": 1.5})
    monkeypatch.delenv("TRUEUP_WORKSPACE", raising=False)
    with Workspace.find(start=ws.path / "runs") as found:
        assert found.get("posts") == made
        row = found.run_row("r1")
        assert (row.status, row.config, row.result, row.inputs) == (
            "done",
            {"lr": 0.1},
            {"loss": 1.5},
            {"data": made.id},
        )
    with pytest.raises(WorkspaceError, match="is a workspace already"):
        Workspace.create(ws.path)


def test_migrations_make_the_schema_the_code_sees_here_too(ws, new_postgres):
    fresh = database.Database(new_postgres())
    with fresh._writer.begin() as connection:
        schema.metadata.create_all(connection)
        wanted = tables_of(connection)
    fresh.close()
    with ws.database.read() as connection:
        assert tables_of(connection) == wanted


def test_one_database_holds_one_workspace(ws, url, tmp_path, new_postgres):
    with pytest.raises(WorkspaceError, match="holds a workspace already"):
        Workspace.create(tmp_path / "other", url)
    assert not (tmp_path / "other").exists()
    other = new_postgres()
    with psycopg.connect(other) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(WorkspaceError, match="not made by trueup"):
        Workspace.create(tmp_path / "other", other)


def test_a_password_is_never_written_down(url, tmp_path, monkeypatch):
    secret = url.replace("trueup@", "trueup:hunter2@")
    with Workspace.create(tmp_path / "ws", secret) as made:
        assert "hunter2" not in (made.path / "workspace.toml").read_text() + made.database.where
    monkeypatch.setenv("TRUEUP_DATABASE_PASSWORD", "hunter3")
    with Workspace.open(tmp_path / "ws") as opened:
        assert opened.database.url.password == "hunter3" and "hunter3" not in opened.database.where
    with pytest.raises(WorkspaceError, match="a password in the option"):
        Workspace.create(tmp_path / "b", url + "&password=hunter2")


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("postgresql://nobody@127.0.0.1:1/nothing", "127.0.0.1"),
        ("mysql://ann@host/name", "of kind 'mysql'"),
        ("what is this", "no database URL"),
    ],
)
def test_a_url_that_leads_nowhere_is_said_plainly(wrong, said, tmp_path):
    with pytest.raises(WorkspaceError, match=said) as caught:
        Workspace.create(tmp_path / "ws", wrong)
    assert caught.value.hint and not (tmp_path / "ws").exists()


def test_a_damaged_workspace_toml_is_named(ws):
    settings = ws.path / "workspace.toml"
    for text in ("", "database = ", "[database]\n", "\xff"):
        settings.write_bytes(text.encode("latin-1"))
        with pytest.raises(WorkspaceError) as caught:
            Workspace.open(ws.path)
        assert "workspace.toml" in caught.value.message + caught.value.hint


def test_roles_without_rights_are_told_so(ws, url):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        connection.execute(f"CREATE ROLE guest_{os.getpid()} LOGIN")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest_{os.getpid()}")
    guest = database.Database(url.replace("trueup@", f"guest_{os.getpid()}@"))
    with pytest.raises(WorkspaceError, match="may not do this"), guest.write() as connection:
        connection.execute(schema.name.insert().values(name="x", artifact="y"))
    guest.close()


# Upgrading


def test_upgrade_wants_to_hear_that_there_is_a_backup(ws, monkeypatch):
    ws.put("data", {"a": b"1"})
    step = ("ALTER TABLE artifact ADD COLUMN colour TEXT",)
    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, step])
    newest = migrations.newest()
    with pytest.raises(WorkspaceError, match=f"has schema {newest - 1}") as caught:
        Workspace.upgrade(ws.path)
    assert "pg_dump" in caught.value.hint
    assert Workspace.upgrade(ws.path, backed_up=True) == (newest - 1, newest)
    with Workspace.open(ws.path) as upgraded:
        assert len(upgraded.artifacts()) == 1


def test_a_failing_migration_changes_nothing_here_either(ws, monkeypatch):
    step = ("ALTER TABLE artifact ADD COLUMN colour TEXT", "ALTER TABLE nonsense ADD COLUMN x TEXT")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, step])
        with pytest.raises(sa.exc.ProgrammingError):
            Workspace.upgrade(ws.path, backed_up=True)
    with Workspace.open(ws.path) as opened, opened.database.read() as connection:
        assert "colour" not in [c["name"] for c in sa.inspect(connection).get_columns("artifact")]


def test_the_database_of_schema_1_is_upgraded(new_postgres, tmp_path):
    """As `trueup init` of the first release would have made it, had it known PostgreSQL."""
    url = new_postgres()
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, applied TEXT NOT NULL)")
        for statement in migrations.MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute("INSERT INTO schema_version VALUES (1, 'then')")
        connection.execute("INSERT INTO artifact VALUES ('a', 'completions', '{}', '{}', 'then')")
        record = {"id": "j", "prompt": {"messages": []}, "completions": ["a", "b"], "ranks": [0, 1], "judge": "ann"}
        row = ("j", 0, "a", "ann", "human", json.dumps(record | {"source": "human"}), "then")
        connection.execute("INSERT INTO judgement VALUES (%s, %s, %s, %s, %s, %s, %s)", row)
    for folder in ("artifacts", "runs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "workspace.toml").write_text(f'database = "{url}"\n')
    assert Workspace.upgrade(tmp_path, backed_up=True) == (1, migrations.newest())
    with Workspace.open(tmp_path) as ws:
        assert [j.judge for j in ws.judgements()] == ["ann"]
        collection = collect(ws, 1)
        assert not give(ws, take(ws, collection, "ann")).surplus


def test_the_command_line_makes_and_upgrades_one(url, tmp_path, capsys):
    assert run(["init", str(tmp_path / "ws"), "--database", url, "--json"]) == 0
    assert unquote(json.loads(capsys.readouterr().out)["database"]) == url
    assert run(["upgrade", str(tmp_path / "ws"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["before"] == migrations.newest()
    assert run(["init", str(tmp_path / "other"), "--database", url]) == 1
    assert "holds a workspace already" in capsys.readouterr().err


# Transactions


def test_a_reader_sees_one_moment_and_writes_nothing(ws):
    with ws.database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.name)) == 0
        ws.put("data", {"a": b"1"}, name="x")
        assert connection.scalar(sa.select(sa.func.count()).select_from(schema.name)) == 0
    assert list(ws.names()) == ["x"]
    with pytest.raises(sa.exc.InternalError, match="read-only"), ws.database.read() as connection:
        connection.execute(schema.name.delete())


def test_a_writer_that_waited_sees_what_was_written_before_it(ws):
    """Its snapshot must not date from before the wait, or both would write the same number."""
    other = Workspace.open(ws.path)
    entered, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with ws.database.write() as connection:
            entered.set()
            go_on.wait(10)
            connection.execute(schema.person.insert().values(**person(0)))

    def second() -> int:
        with other.database.write() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(schema.person))

    with ThreadPoolExecutor() as pool:
        one = pool.submit(first)
        assert entered.wait(10)
        two = pool.submit(second)
        time.sleep(0.3)
        assert not two.done(), "one writer at a time"
        go_on.set()
        one.result()
        assert two.result() == 1
    other.close()


def person(n: int) -> dict:
    row = {"id": f"p{n}", "name": f"p{n}", "role": "owner", "judge": f"human:{n}", "collection": "", "active": 1}
    return row | {"settings": {}, "password_hash": "", "created": ""}


def test_a_writer_that_never_ends_is_reported_here_too(ws, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    with ws.database.write(), Workspace.open(ws.path) as impatient:
        assert impatient.names() == {}, "readers do not wait"
        with pytest.raises(WorkspaceError, match="somebody else is writing"):
            impatient.put("data", {"a": b"1"})
    monkeypatch.undo()
    ws.put("data", {"a": b"1"})


def test_two_servers_share_a_queue(ws):
    """Each with a pool and threads of its own, as two processes behind one address would."""
    collection = collect(ws, 20, overlap=2)
    with Workspace.open(ws.path) as other, ThreadPoolExecutor(8) as pool:

        def judge(n: int) -> int:
            mine, given = (ws, other)[n % 2], 0
            while (held := take(mine, collection, f"p{n}", 1.0)) is not None:
                given += not give(mine, held).surplus
            return given

        assert sum(pool.map(judge, range(8))) == 40
    assert positions(take(ws, collection, "late", 1.0)) == [None]
    assert queue.counts(ws.database, collection)["needed"] == 0


def test_the_fixture_runs_on_a_socket_that_only_tests_know(postgres):
    folder = postgres.split("host=")[1]
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SELECT split_part(version(), ' ', 1)").fetchone() == ("PostgreSQL",)
    assert stat.S_ISDIR(os.stat(folder).st_mode)


def test_a_cluster_that_was_killed_comes_back_with_what_was_committed_and_leaves_nothing_behind(cluster):
    with clusters.temporary_cluster() as made:
        url = made.new_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        made.kill()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    assert not made.folder.exists()


def test_what_is_missing_is_said_with_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(clusters, "PLACES", ())
    with pytest.raises(clusters.NoPostgres, match="apt-get install postgresql"), clusters.temporary_cluster():
        raise AssertionError("there is no initdb")
