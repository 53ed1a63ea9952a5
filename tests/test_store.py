"""The workspace keeps what it is given, whole, once, and for several processes at a time."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from trueup.errors import DataError, NotFoundError, WorkspaceError
from trueup.records import Judgement, Prompt
from trueup.store import (
    Leftover,
    Lock,
    RunRow,
    Workspace,
    atomic_write,
    human_size,
    is_held,
    read_jsonl,
    schema,
    write_jsonl,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace:
        yield workspace


def judgement(number: int, judge: str = "ann", **meta) -> Judgement:
    return Judgement(Prompt.user(f"post {number}"), ("short", "long"), (0, 1), judge, "simulated", meta=meta)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# Artifacts


def test_same_content_is_the_same_artifact_anywhere(ws, tmp_path):
    base = ws.put("data", {"rows.jsonl": b"{}\n", "sub/more.txt": b"x"}, meta={"n": 1})
    again = ws.put("data", {"sub/more.txt": b"x", "rows.jsonl": b"{}\n"}, meta={"n": 1})
    assert again == base and len(ws.artifacts()) == 1
    other = Workspace.create(tmp_path / "other")
    assert other.put("data", {"rows.jsonl": b"{}\n", "sub/more.txt": b"x"}, meta={"n": 1}).id == base.id
    variants = [
        ws.put("data", {"rows.jsonl": b"{ }\n", "sub/more.txt": b"x"}, meta={"n": 1}),
        ws.put("data", {"rows2.jsonl": b"{}\n", "sub/more.txt": b"x"}, meta={"n": 1}),
        ws.put("data", {"rows.jsonl": b"{}\n", "sub/more.txt": b"x"}, meta={"n": 2}),
        ws.put("prompts", {"rows.jsonl": b"{}\n", "sub/more.txt": b"x"}, meta={"n": 1}),
        ws.put("data", {"rows.jsonl": b"{}\n", "sub/more.txt": b"x"}, meta={"n": 1}, parents={"of": base}),
        ws.put("data", {"rows.jsonl": b"{}\n", "sub/more.txt": b"x"}, meta={"n": 1}, parents={"from": base.id[:6]}),
    ]
    assert len({base.id, *(v.id for v in variants)}) == 7
    assert variants[-1].parents == {"from": base.id}
    assert list((ws.path / ".staging").iterdir()) == []


def test_id_is_the_documented_hash(ws):
    import hashlib

    made = ws.put("data", {"b": b"2", "a": b"1"}, meta={"n": 1})
    files = {name: hashlib.sha256(data).hexdigest() for name, data in (("a", b"1"), ("b", b"2"))}
    text = json.dumps(
        {"files": files, "kind": "data", "meta": {"n": 1}, "parents": {}}, separators=(",", ":"), sort_keys=True
    )
    assert made.id == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_staged_folder_moves_and_another_is_copied(ws, tmp_path):
    with ws.staging() as folder:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_bytes(b"w")
        moved = ws.put("policy", folder)
        assert not folder.exists()
    mine = tmp_path / "mine"
    (mine / "model").mkdir(parents=True)
    (tmp_path / "blob").write_bytes(b"w")
    (mine / "model" / "weights").symlink_to(tmp_path / "blob")  # as in a model cache
    assert ws.put("policy", mine) == moved
    assert (mine / "model" / "weights").is_symlink()
    assert not (moved.path / "model" / "weights").is_symlink()
    assert (moved.path / "model" / "weights").stat().st_mode & 0o777 == 0o444


def test_links_in_a_staged_folder_are_refused(ws, tmp_path):
    (tmp_path / "blob").write_bytes(b"w")
    with ws.staging() as folder, pytest.raises(WorkspaceError, match="is a link"):
        (folder / "weights").symlink_to(tmp_path / "blob")
        ws.put("policy", folder)
    assert (tmp_path / "blob").stat().st_mode & 0o200


def test_staging_is_removed_on_failure(ws):
    with pytest.raises(ZeroDivisionError), ws.staging() as folder:
        (folder / "half").write_text("half")
        assert ws.unused() == []  # somebody is at work in it
        1 / 0  # noqa: B018
    assert list((ws.path / ".staging").iterdir()) == []


def test_get_by_id_prefix_and_name(ws):
    made = ws.put("data", {"a": b"1"}, name="posts")
    assert ws.get(made) == ws.get(made.id) == ws.get(made.id[:4]) == ws.get("posts") == made
    for missing in ("post", made.id[:3], "ffff" if not made.id.startswith("ffff") else "0000"):
        with pytest.raises(NotFoundError):
            ws.get(missing)
    with pytest.raises(NotFoundError, match="near: posts"):
        ws.get("psots")


def test_an_ambiguous_prefix_is_an_error(ws):
    with ws.database.write() as connection:
        for tail in "12":
            row = {"id": f"abcd{tail}" + "0" * 11, "kind": "data", "meta": {}, "files": {}, "created": ""}
            connection.execute(schema.artifact.insert().values(row))
    with pytest.raises(NotFoundError, match="beginning of 2 ids"):
        ws.get("abcd")
    assert ws.get("abcd1").id.startswith("abcd1")


def test_names_move_and_win_over_prefixes(ws):
    one, two = ws.put("data", {"a": b"1"}), ws.put("data", {"a": b"2"})
    ws.set_name("best", one)
    ws.set_name("best", two.id)
    ws.set_name(one.id[:4], two)
    assert ws.names() == {"best": two.id, one.id[:4]: two.id}
    assert ws.get(one.id[:4]) == two and ws.get(one.id) == one
    for bad in ("", "a b", "a/b", "../x", "-x", one.id):
        with pytest.raises(WorkspaceError):
            ws.set_name(bad, one)
    with pytest.raises(WorkspaceError):
        ws.put("data", {"a": b"3"}, name="a b")
    assert len(ws.artifacts()) == 2


def test_meta_must_be_json(ws):
    assert ws.put("data", {"a": b"1"}, meta={"t": (1, 2), "u": "é"}).meta == {"t": [1, 2], "u": "é"}
    for bad in ({"x": float("nan")}, {"x": object()}, {"x": {1: 2}}, {"x": "\ud800"}):
        with pytest.raises(DataError, match="meta"):
            ws.put("data", {"a": b"1"}, meta=bad)


def test_verify_names_what_differs(ws):
    made = ws.put("data", {"a": b"1", "b": b"2", "c": b"3"})
    assert ws.verify(made) == []
    for name in "ab":
        (made.path / name).chmod(0o644)
    (made.path / "a").write_bytes(b"9")
    (made.path / "b").unlink()
    (made.path / "d").write_bytes(b"4")
    assert ws.verify(made.id) == ["b: missing", "a: changed", "d: added"]
    shutil.rmtree(made.path)
    assert ws.verify(made) == ["a: missing", "b: missing", "c: missing"]
    ws.put("data", {"a": b"1", "b": b"2", "c": b"3"})
    assert ws.verify(made) == []


@pytest.mark.parametrize("broken", ["os.fsync", "os.replace"])
def test_a_full_disk_leaves_nothing_half_written(ws, tmp_path, monkeypatch, broken):
    before = ws.put("data", {"a": b"1"}).id

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(broken, full)
        with pytest.raises(WorkspaceError, match="no space left") as caught:
            ws.put("data", {"a": b"2"}, name="x")
        assert "trueup gc" in caught.value.hint
        (tmp_path / "f.json").write_bytes(b"old")
        with pytest.raises(WorkspaceError, match="no space left"):
            atomic_write(tmp_path / "f.json", b"new")
    assert [a.id for a in ws.artifacts()] == [before]
    assert [p.name for p in (ws.path / "artifacts").iterdir()] == [before]
    assert list((ws.path / ".staging").iterdir()) == [] and ws.names() == {}
    assert (tmp_path / "f.json").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_a_full_disk_inside_staging_is_said_plainly(ws):
    with pytest.raises(WorkspaceError, match="no space left"), ws.staging():
        raise RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)")


def test_a_full_database_is_said_plainly(ws):
    with ws.database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # of the one connection that writes
    with pytest.raises(WorkspaceError, match="no space left"):
        for number in range(200):
            ws.add_judgements([judgement(number, note="x" * 500)], ws.put("completions", {"a": b"%d" % number}))


CRASH = """
import os, signal, sys
from trueup.store import Workspace, workspace, artifacts
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "row": artifacts.insert = die          # after the folder got its name, before its row
if sys.argv[2] == "move": workspace.os.replace = die     # before it got its name
Workspace.open(sys.argv[1]).put("data", {"a": b"1"})
"""


@pytest.mark.parametrize("moment, left", [("move", "staging"), ("row", "orphan")])
def test_a_crash_in_put_registers_nothing_and_can_be_repeated(ws, moment, left):
    assert python(CRASH, ws.path, moment).wait() == -9
    assert ws.artifacts() == []
    found = ws.unused()
    assert left in [item.what for item in found]
    for orphan in (ws.path / "artifacts").iterdir():
        (orphan / "a").chmod(0o644)
        (orphan / "a").write_bytes(b"damaged by the crash")
    repeated = ws.put("data", {"a": b"1"})
    assert ws.verify(repeated) == []
    ws.set_name("kept", repeated)
    ws.delete(found)
    assert ws.unused() == [] and ws.verify("kept") == []


# Judgements


def test_judgements_get_ids_once_and_keep_their_order(ws):
    posts = ws.put("completions", {"a": b"1"})
    other = ws.put("completions", {"a": b"2"})
    made = [judgement(n, judge) for n in range(600) for judge in ("ann", "bob")]
    stored = ws.add_judgements(iter(made), posts.id)
    assert len({j.id for j in stored}) == 1200 and all(len(j.id) == 16 for j in stored)
    assert ws.add_judgements([*made[:3], made[0]], posts) == [*stored[:3], stored[0]]
    assert ws.add_judgements(stored[:1], posts) == stored[:1]
    fresh = [judgement(1000), judgement(1000), judgement(1001)]
    stored += ws.add_judgements(fresh, posts)[1:]
    assert list(ws.judgements()) == stored
    elsewhere = ws.add_judgements(made[:2], other)
    assert {j.id for j in elsewhere}.isdisjoint(j.id for j in stored)
    assert list(ws.judgements(completions=other)) == elsewhere
    assert list(ws.judgements([stored[900].id, stored[3].id])) == [stored[900], stored[3]]
    again = ws.add_judgements([judgement(0, "ann", occasion=2)], posts)[0]
    assert again.id != stored[0].id and next(ws.judgements([again.id])).meta == {"occasion": 2}
    with pytest.raises(NotFoundError):
        list(ws.judgements(["nope"]))
    with pytest.raises(NotFoundError):
        ws.add_judgements(made[:1], "nowhere")


# Lineage


def preference_set(ws: Workspace):
    posts = ws.put("prompts", {"posts.jsonl": b'{"messages":[]}\n'}, meta={"source": "mine.csv"}, name="posts")
    completions = ws.put("completions", {"rows.jsonl": b"{}\n"}, parents={"prompts": posts})
    people = [judgement(n, judge) for n in range(4) for judge in ("ann", "bob")][:7]
    stored = ws.add_judgements(people, completions)
    with ws.staging() as folder:
        write_jsonl(folder / "judgements.jsonl.gz", [j.to_json() for j in stored])
        return posts, completions, ws.put("preferences", folder, parents={"completions": completions})


def test_lineage_of_a_policy_reaches_the_judges_and_the_data(ws):
    posts, completions, preferences = preference_set(ws)
    reward = ws.put("reward_model", {"w": b"r"}, parents={"preferences": preferences})
    policy = ws.put("policy", {"w": b"p"}, parents={"reward_model": reward}, name="final")
    ws.add_run(RunRow("r1", "rl", "done", {}, 7, {}, inputs={"reward_model": reward.id, "prompts": posts.id}))
    ws.add_run_output("r1", "policy", policy.id)
    lineage = ws.lineage("final")
    assert set(lineage.nodes) == {a.id for a in (posts, completions, preferences, reward, policy)}
    assert lineage.nodes[policy.id].sources == {"reward_model": reward.id, "prompts": posts.id}
    assert lineage.nodes[policy.id].run["id"] == "r1"
    counts = lineage.nodes[preferences.id].judgements
    assert [(each["source"], each["judge"], each["count"]) for each in counts] == [
        ("simulated", "ann", 4),
        ("simulated", "bob", 3),
    ]
    ids = {each["judge"]: each["ids"] for each in counts}
    assert {judge: [j.id for j in ws.judgements() if j.judge == judge] for judge in ids} == ids
    named = lineage.text(judgements=True).splitlines()
    assert [line.split()[-1] for line in named if line.startswith("│     │    ")] == ids["ann"] + ids["bob"]
    assert json.loads(json.dumps(lineage.to_json()))["root"] == policy.id
    assert lineage.text().splitlines() == [
        f"policy {policy.id} 'final'  <- run r1, seed 7",
        f"├─ reward_model: reward_model {reward.id}",
        f"│  └─ preferences: preferences {preferences.id}",
        "│     │  judgements, simulated: 7 (ann 4, bob 3)",
        f"│     └─ completions: completions {completions.id}",
        f"│        └─ prompts: prompts {posts.id} 'posts'",
        "│              from: mine.csv",
        "│              files: posts.jsonl (16 bytes)",
        f"└─ prompts: prompts {posts.id} (above)",
    ]


def test_lineage_ends_when_runs_go_in_a_circle(ws):
    one, two = ws.put("data", {"a": b"1"}), ws.put("data", {"a": b"2"})
    for run, read, wrote in (("r1", one, two), ("r2", two, one)):
        ws.add_run(RunRow(run, "sft", "done", {}, 0, {}, inputs={"data": read.id}))
        ws.add_run_output(run, "data", wrote.id)
    assert set(ws.lineage(one).nodes) == {one.id, two.id}
    assert "(above)" in ws.lineage(one).text()


# What may go


def test_unused_is_what_nothing_needs(ws):
    posts, completions, preferences = preference_set(ws)
    read = ws.put("data", {"a": b"read"})
    lone = ws.put("data", {"a": b"lone" * 100})
    child = ws.put("data", {"a": b"child"}, parents={"of": lone})
    ws.add_run(RunRow("r1", "sft", "done", {}, 0, {}, inputs={"data": read.id}))
    (ws.path / "artifacts" / "stray").mkdir()
    (ws.path / "artifacts" / "stray" / "f").write_bytes(b"12345")
    (ws.path / ".staging" / "gone").mkdir()
    found = ws.unused()
    assert [(item.what, item.artifact and item.artifact.id) for item in found] == [
        ("artifact", preferences.id),
        ("artifact", lone.id),
        ("artifact", child.id),
        ("orphan", None),
        ("staging", None),
    ]
    assert [item.bytes for item in found[1:4]] == [400, 5, 5]
    with pytest.raises(WorkspaceError, match="made from"):
        ws.delete([item for item in found if item.artifact == lone])
    ws.set_name("kept-after-all", child)
    ws.delete([*found, Leftover("artifact", read.path, 0, read)])
    assert {a.id for a in ws.artifacts()} == {posts.id, completions.id, read.id, lone.id, child.id}
    assert {p.name for p in (ws.path / "artifacts").iterdir()} == {a.id for a in ws.artifacts()}
    assert ws.unused() == [] and list((ws.path / ".staging").iterdir()) == []


# Several processes


def python(code: str, *arguments: object) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment)


HAMMER = """
import sys
from trueup.records import Judgement, Prompt
from trueup.store import Workspace
ws, me = Workspace.open(sys.argv[1]), sys.argv[2]
base = ws.get("base")
for i in range(25):
    same = ws.put("data", {"x": b"%d" % i}, meta={"i": i}, name="latest")
    mine = ws.put("data", {"x": me.encode()}, parents={"of": same}, name=f"{me}-{i}")
    ws.set_name("shared", mine)
    prompt = Prompt.user(f"post {i}")
    ws.add_judgements([Judgement(prompt, ("a", "b"), (0, 1), who, "simulated") for who in (me, "both")], base)
"""


def test_two_writers_lose_nothing(ws):
    base = ws.put("completions", {"x": b"base"}, name="base")
    writers = [python(HAMMER, ws.path, who) for who in ("ann", "bob")]
    assert [writer.wait() for writer in writers] == [0, 0]
    made = ws.artifacts()
    assert len(made) == 1 + 25 + 2 * 25 and all(ws.verify(a) == [] for a in made)
    assert {p.name for p in (ws.path / "artifacts").iterdir()} == {a.id for a in made}
    assert len(ws.names()) == 3 + 2 * 25
    judged = list(ws.judgements(completions=base))
    assert len(judged) == len({j.id for j in judged}) == 3 * 25
    assert list((ws.path / ".staging").iterdir()) == []


def test_a_writer_that_never_ends_is_reported(ws, monkeypatch):
    with closing(sqlite3.connect(ws.path / "workspace.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("trueup.store.database.BUSY_SECONDS", 0.05)
        with Workspace.open(ws.path) as impatient:
            assert impatient.names() == {}  # readers do not wait
            with pytest.raises(WorkspaceError, match="somebody else is writing"):
                impatient.put("data", {"a": b"1"})
    assert list((ws.path / "artifacts").iterdir()) == []


def test_lock(tmp_path):
    lock, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert not is_held(lock.path)
    assert lock.acquire() and is_held(lock.path)
    assert not other.acquire(patience=0)
    lock.release()
    assert not is_held(lock.path) and other.acquire(patience=0)


# Files


def test_jsonl_round_trip_is_bit_reproducible(tmp_path):
    rows = [{"text": "naïve ✓", "x": 0.1, "n": None}, {"b": [1, 2]}]
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert write_jsonl(tmp_path / name, rows) == 2
        assert list(read_jsonl(tmp_path / name)) == rows
    os.utime(tmp_path / "a.jsonl.gz", (0, 0))
    write_jsonl(tmp_path / "other.jsonl.gz", iter(rows))
    assert (tmp_path / "other.jsonl.gz").read_bytes() == (tmp_path / "a.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == (tmp_path / "a.jsonl").read_bytes()
    assert "naïve" in (tmp_path / "a.jsonl").read_text(encoding="utf-8")
    assert write_jsonl(tmp_path / "none.jsonl", []) == 0 and list(read_jsonl(tmp_path / "none.jsonl")) == []


@pytest.mark.parametrize("row", [{"x": float("nan")}, {"x": object()}, {"x": "\ud800"}])
def test_rows_that_are_no_json_leave_the_old_file(tmp_path, row):
    atomic_write(tmp_path / "a.jsonl", b'{"old":1}\n')
    with pytest.raises(DataError, match="row 2"):
        write_jsonl(tmp_path / "a.jsonl", [{"x": 1}, row])
    assert snapshot(tmp_path) == {"a.jsonl": b'{"old":1}\n'}


@pytest.mark.parametrize("line, said", [(b"{", "not JSON"), (b"[1]", "expected a JSON object"), (b"\xff", "not JSON")])
def test_a_bad_line_is_named(tmp_path, line, said):
    (tmp_path / "a.jsonl").write_bytes(b'{"x":1}\n\n' + line)
    with pytest.raises(DataError, match=said) as caught:
        list(read_jsonl(tmp_path / "a.jsonl"))
    assert "a.jsonl:3" in caught.value.message


def test_bad_files_are_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    write_jsonl(tmp_path / "a.jsonl.gz", [{"x": n} for n in range(1000)])
    for data in ((tmp_path / "a.jsonl.gz").read_bytes()[:-30], b"plain text"):
        (tmp_path / "b.jsonl.gz").write_bytes(data)
        with pytest.raises(DataError, match="not a complete gzip file"):
            list(read_jsonl(tmp_path / "b.jsonl.gz"))


def test_human_size():
    assert [human_size(n) for n in (0, 1023, 1536, 5 << 30, 3 << 40)] == [
        "0 bytes", "1023 bytes", "1.5 KiB", "5.0 GiB", "3.0 TiB",
    ]  # fmt: skip


def test_store_and_runs_do_not_load_torch():
    code = "import sys, trueup.store, trueup.runs; assert not {'torch', 'rich', 'tensorboardX'} & set(sys.modules)"
    assert python(code).wait() == 0
