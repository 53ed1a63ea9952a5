"""A workspace that is damaged, too new or on a full disk: said in two lines, and nothing half-written stays."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from contextlib import closing

import pytest
from test_bad_input import GOOD, TRAIN, check_lines, last_run, state, ws  # noqa: F401

from trueup.cli import main as cli
from trueup.store import Workspace, migrations


@pytest.fixture
def alone(tmp_path, ws) -> Workspace:  # noqa: F811
    """A copy of the workspace, to be damaged."""
    shutil.copytree(ws.path, tmp_path / "copy")
    with Workspace.open(tmp_path / "copy") as copy:
        yield copy


def test_a_workspace_of_a_newer_version(alone, capsys):
    with closing(sqlite3.connect(alone.path / "workspace.db")) as database:
        database.execute("INSERT INTO schema_version VALUES (99, 'tomorrow')")
        database.commit()
    content = (alone.path / "workspace.db").read_bytes()
    for line in ("artifacts list", "train sft --base model --data demonstrations", "gc --yes", "upgrade"):
        capsys.readouterr()
        assert cli.run(["--workspace", str(alone.path), *line.split()]) == 1
        known = f"was made by a newer trueup (schema 99, this one knows {migrations.newest()})"
        check_lines(capsys.readouterr().err, known, "update trueup")
    assert (alone.path / "workspace.db").read_bytes() == content, "nothing of it may change"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: (path / "workspace.db").unlink(), "is not a workspace"),
        (lambda path: (path / "workspace.db").write_bytes(b"not a database" * 99), "is no database, or damaged"),
    ],
)
def test_a_workspace_that_is_none(damage, says, tmp_path, capsys):
    Workspace.create(tmp_path / "work").close()
    damage(tmp_path / "work")
    assert cli.run(["--workspace", str(tmp_path / "work"), "artifacts", "list"]) == 1
    check_lines(capsys.readouterr().err, says, "")


@pytest.fixture
def full_disk(monkeypatch):
    """`full_disk(n)`: from the n-th time on that something is to reach the disk for good, there is no space left."""

    def fill(calls: int) -> None:
        real, left = os.fsync, [calls]

        def fsync(descriptor: int) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    yield fill


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_a_full_disk_while_data_comes_in(calls, alone, full_disk, monkeypatch, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text(GOOD)
    line = f"--workspace {alone.path} data add {tmp_path}/rows.jsonl --kind demonstrations --name new"
    before = state(alone)
    full_disk(calls)
    assert cli.run(line.split()) == 1
    check_lines(capsys.readouterr().err, "no space left on the disk", "free some space")
    monkeypatch.undo()
    assert state(alone)[:3] == before[:3] and not list((alone.path / ".staging").iterdir())
    assert cli.run(line.split()) == 0
    assert not alone.verify("new") and not [item for item in alone.unused() if item.what != "artifact"]


def test_a_full_disk_while_a_run_keeps_a_checkpoint_and_going_on_afterwards(alone, full_disk, monkeypatch, capsys):
    line = f"--workspace {alone.path} train sft --base model --data demonstrations --name new --batch-size 2 {TRAIN}"
    line += " --steps 3 --set run.checkpoint_every=1"
    before = state(alone)
    full_disk(9)
    assert cli.run(line.split()) == 1
    check_lines(capsys.readouterr().err, "no space left on the disk", "free some space")
    monkeypatch.undo()
    assert state(alone)[0] == before[0] and "new" not in alone.names()
    run = last_run(alone)
    assert run.status == "failed" and not run.outputs and not list((alone.path / ".staging").iterdir())
    assert not [path for _, path in run.checkpoints() if not (path / "checkpoint.json").is_file()]
    capsys.readouterr()
    assert cli.run(["--workspace", str(alone.path), "runs", "resume", run.id, "--json"]) == 0
    assert alone.get(json.loads(capsys.readouterr().out)["id"]).kind == "model" and last_run(alone).status == "done"


def test_a_full_disk_while_a_model_is_exported(alone, full_disk, monkeypatch, tmp_path, capsys):
    full_disk(0)
    assert cli.run(["--workspace", str(alone.path), "export", "model", str(tmp_path / "out")]) == 1
    check_lines(capsys.readouterr().err, "no space left on the disk", "free some space")
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_a_disk_too_small_for_the_checkpoints_is_noticed_before_there_is_a_run(alone, monkeypatch, capsys):
    usage = shutil.disk_usage(alone.path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    before = state(alone)
    line = f"--workspace {alone.path} train sft --base model --data demonstrations --steps 1 {TRAIN}"
    assert cli.run(line.split()) == 1
    check_lines(capsys.readouterr().err, "has 1000 bytes left", "free some space")
    assert state(alone) == before, "not even a run"


def test_files_of_the_workspace_that_were_tampered_with(alone, capsys):
    """No message of ours speaks of each of these; a hint there is all the same."""
    rows = alone.get("demonstrations").path / "rows.jsonl"
    rows.chmod(0o644)
    line = f"--workspace {alone.path} train sft --base model --data demonstrations --steps 1 {TRAIN}"
    for content, says in (
        (b"{", "rows.jsonl:1: not JSON"),
        (b"[1]", "expected a JSON object"),
        (None, "holds no rows"),
    ):
        rows.write_bytes(content) if content else rows.unlink()
        capsys.readouterr()
        assert cli.run(line.split()) == 1
        check_lines(capsys.readouterr().err, says, "")
    assert last_run(alone).status == "failed"
    capsys.readouterr()
    assert cli.run(["--workspace", str(alone.path), "artifacts", "verify"]) == 1
    check_lines(capsys.readouterr().err, "rows.jsonl: missing", "restore the files")
