"""A set of votes: everything that was said in a collection, to a file; nothing that somebody flagged as personal."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections import Counter

import pytest
from crowd import open_collection, reader, worth

from trueup import api, asking
from trueup.errors import ConfigError, DataError, TrueupError
from trueup.feedback import adjudicate, votes
from trueup.feedback.freeze import Choice, freeze
from trueup.store import RunRow, Workspace, audit, people, queue, read_jsonl, schema
from trueup.text.streams import BATCH


def rows_of(frozen):
    return list(read_jsonl(frozen.artifact.path / "rows.jsonl"))


def everything_happened(workspace):
    """A collection in which somebody did each thing that can be done."""
    crowd = open_collection(
        workspace, items=6, golds=2, overlap=2, crowd=3, models=True, repeat_share=0.0, guideline="Be fair."
    )
    version = queue.collection(workspace.database, crowd.id).guideline
    for person in crowd.people:
        queue.acknowledge(workspace.database, person.id, version, crowd.clock())
    desk, (ada, bea, cea) = crowd.desk, crowd.people
    golds = [item.prompt.text for item in crowd.items if item.role == "gold"]
    while (late := desk.next(cea.id)).prompt[0]["content"] in golds:  # a gold is everybody's: no answer is surplus
        desk.answer(cea.id, late.assignment, "0", {"choice": 1})
    bad = desk.next(ada.id)
    desk.answer(ada.id, bad.assignment, "1", {"choice": "both bad"})
    again = desk.revise(ada.id, bad.assignment)
    flags = {"prompt": [], "completions": [["broken"], []]}
    desk.answer(ada.id, again.assignment, "2", {"choice": "both bad", "rationale": "neither", "flags": flags})
    left = desk.next(bea.id)
    crowd.clock.at += 30
    desk.skip(bea.id, left.assignment, "I cannot judge this")
    crowd.clock.at += 3600
    crowd.work([reader(), reader(0.0)])
    desk.answer(cea.id, late.assignment, "3", {"choice": 1})
    return crowd, {"both bad": bad.assignment, "skipped": left.assignment, "late": late.assignment}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    with Workspace.create(tmp_path_factory.mktemp("votes") / "workspace") as workspace:
        crowd, assignments = everything_happened(workspace)
        (first, second) = [each.item.id for each in adjudicate.disputed(workspace, crowd.id)[:2]]
        adjudicate.decide(workspace, crowd.id, first, "ambiguous", now=crowd.clock(), cause="a matter of taste")
        adjudicate.decide(workspace, crowd.id, second, "accept", ranks=(1, 2), now=crowd.clock(), person="somebody")
        frozen = freeze(workspace, "votes", Choice("votes"), name="all")
        yield crowd, assignments, frozen, rows_of(frozen), (first, second)


def test_every_judgement_that_is_stored_is_a_row(told):
    crowd, assignments, frozen, rows, _ = told
    table = schema.judgement
    with crowd.workspace.database.read() as connection:
        stored = set(
            connection.scalars(table.select().with_only_columns(table.c.id).where(table.c.collection == crowd.id))
        )
    said = [row for row in rows if row["what"] == "judgement"]
    assert {row["id"] for row in said} == stored and len(said) == len(stored) == frozen.votes
    assert {row["role"] for row in said} == {"main", "gold"} and any(row["surplus"] for row in said)
    assert all(list(row) == list(votes.COLUMNS) for row in rows)
    assert frozen.left_out == {} and frozen.artifact.kind == "votes" and frozen.people == 3
    assert frozen.artifact.meta["what"] == dict(Counter(row["what"] for row in rows))
    trained = {row["id"] for row in rows_of(freeze(crowd.workspace, "votes", Choice()))}
    assert len(trained & stored) < len(stored), "the sets that are trained on leave some of these out"


def test_a_row_says_who_when_in_which_order_and_under_what(told):
    crowd, assignments, _, rows, _ = told
    said = {row["id"]: row for row in rows if row["what"] == "judgement"}
    first, second = [row for row in said.values() if row["meta"]["assignment"] == assignments["both bad"]]
    assert (first["stands"], first["superseded_by"], first["supersedes"]) == (False, second["id"], None)
    assert (second["stands"], second["superseded_by"], second["supersedes"]) == (True, None, first["id"])
    assert second["answer"]["choice"] == "both bad" and second["rationale"] == "neither"
    assert sorted(second["flags"]["completions"]) == [[], ["broken"]] and second["guideline"] == 1
    (late,) = [row for row in said.values() if row["meta"]["assignment"] == assignments["late"]]
    assert late["surplus"] and late["stands"] and late["seconds"] >= 3600
    for row in said.values():
        (judgement,) = crowd.workspace.judgements([row["id"]])
        assert row["judge"] == judgement.judge and row["source"] == "human" and row["ranks"] == list(judgement.ranks)
        assert row["order"] == judgement.meta["order"] and row["completions"] == list(judgement.completions)
        assert sorted(row["models"]) == ["m0", "m1"] and row["finished"] == [True, True]
        assert row["completion_set"] == crowd.items[0].completions and row["submitted"].startswith("2023-11-")
    for row in said.values():
        best = [1 + (worth(text) < max(map(worth, row["completions"]))) for text in row["completions"]]
        assert row["expected"] == (best if row["role"] == "gold" else None)


def test_a_skip_is_a_row_with_its_reason(told):
    crowd, assignments, _, rows, _ = told
    (skip,) = [row for row in rows if row["what"] == "skip"]
    assert (skip["id"], skip["reason"]) == (assignments["skipped"], "I cannot judge this")
    assert skip["judge"] == crowd.people[1].judge and skip["seconds"] == 30 and sorted(skip["order"]) == [0, 1]
    assert skip["ranks"] is skip["answer"] is skip["stands"] is None and skip["completions"]


def test_what_was_decided_is_a_row_and_stands_beside_the_votes(told):
    crowd, _, _, rows, (ambiguous, accepted) = told
    decided = {row["item"]: row for row in rows if row["what"] == "decision"}
    assert set(decided) == {ambiguous, accepted}
    assert decided[ambiguous]["reason"] == "a matter of taste" and decided[ambiguous]["ranks"] is None
    assert decided[accepted]["ranks"] == [1, 2] and len(decided[accepted]["meta"]["votes"]) > 1
    verdicts = {row["item"]: row["decision"] for row in rows if row["decision"]}
    assert verdicts == {ambiguous: "ambiguous", accepted: "accept"}
    assert sum(row["item"] == ambiguous and row["what"] == "judgement" for row in rows) >= 2


def test_nobody_is_named_but_by_pseudonym(told):
    crowd, _, frozen, *_ = told
    text = (frozen.artifact.path / "rows.jsonl").read_text()
    for person in people.people(crowd.workspace.database):
        assert person.id not in text and f'"{person.name}"' not in text
    assert "somebody" not in text, "not even who decided"


def test_the_lineage_counts_judgements_and_neither_skips_nor_decisions(told):
    crowd, _, frozen, rows, _ = told
    assert freeze(crowd.workspace, crowd.id, Choice("votes")).artifact.id == frozen.artifact.id
    node = crowd.workspace.lineage("all").nodes[frozen.artifact.id]
    assert {each["judge"]: each["count"] for each in node.judgements} == frozen.artifact.meta["people"]
    listed = [id for each in node.judgements for id in each["ids"]]
    assert sorted(listed) == sorted(row["id"] for row in rows if row["what"] == "judgement")
    assert all(id in crowd.workspace.lineage("all").text(judgements=True) for id in listed)
    assert listed[0] not in crowd.workspace.lineage("all").text()


def test_eight_thumbs_are_eight_judgements_however_many_rows_they_make(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=8, k=3, overlap=1, crowd=1, task="thumbs")
        crowd.work([lambda view, chance: {"thumbs": ["up", "down", "up"]}])
        for rule in ("raw", "soft"):
            frozen = freeze(workspace, "votes", Choice("unpaired", rule))
            counts = {
                e["source"]: e["count"] for e in workspace.lineage(frozen.artifact).nodes[frozen.artifact.id].judgements
            }
            assert counts["human"] == 8 and frozen.rows == 24


def test_which_run_sampled_a_set_with_which_settings_and_seed(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=1, overlap=1, crowd=1)
        crowd.work([reader()])
        merged = crowd.items[0].completions
        about = {"completion_set": merged, "run": "r1", "model": "m", "seed": 7, "per_prompt": 4}
        assert rows_of(freeze(workspace, "votes", Choice("votes")))[0]["sampling"] == []
        model = workspace.put("model", {"w": b"1"})
        config = {"sampling": {"temperature": 0.7}, "per_prompt": 4}
        workspace.add_run(RunRow("r1", "sample", "done", config, 7, {}, inputs={"model": model.id}))
        workspace.add_run_output("r1", "completions", merged)
        (found,) = rows_of(freeze(workspace, "votes", Choice("votes")))[0]["sampling"]
        assert found == about | {"model": model.id, "settings": {"temperature": 0.7}}
        both = workspace.put("completions", {"rows.jsonl": b"{}\n"}, parents={"completions": merged})
        assert list(votes._sampling(workspace, both.id)) == [found]


def test_only_personal_data_stays_out_and_is_counted(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=4, overlap=1, crowd=1, quarantine_after=1)
        desk, (ada,) = crowd.desk, crowd.people
        private = desk.next(ada.id)
        flags = {"prompt": ["personal data"], "completions": [[], []]}
        desk.answer(ada.id, private.assignment, "1", {"choice": 1, "flags": flags})
        desk.skip(ada.id, desk.next(ada.id).assignment, "too unpleasant")
        crowd.work([reader()])
        frozen = freeze(workspace, "votes", Choice("votes"))
        rows = rows_of(frozen)
        assert private.prompt[0]["content"] not in json.dumps(rows) and frozen.left_out == {votes.PERSONAL_OUT: 1}
        assert [row["quarantined"] for row in rows if row["what"] == "skip"] == ["skipped: too unpleasant"]
        item = next(item.id for item in crowd.items if item.prompt.text == private.prompt[0]["content"])
        adjudicate.let_back(workspace, crowd.id, item, now=crowd.clock())
        assert freeze(workspace, "votes", Choice("votes")).votes == 3, "somebody has looked at it"


def test_personal_data_in_the_qualification_stays_out_too(tmp_path):
    """It is never set aside, because nobody gets in without it."""
    with Workspace.create(tmp_path / "workspace") as workspace:
        crowd = open_collection(workspace, items=2, overlap=1, crowd=1, qualification=1, qualification_pass=0)
        new, key = crowd.items[0], {"ranks": [1, 2]}
        queue.add_items(
            workspace.database,
            crowd.id,
            [queue.NewItem(new.prompt, new.texts, new.completions, new.finished, role="qualification", key=key)],
            crowd.clock(),
        )
        desk, (ada,) = crowd.desk, crowd.people
        flags = {"prompt": [], "completions": [["personal data"], []]}
        desk.answer(ada.id, desk.next(ada.id).assignment, "1", {"choice": 1, "flags": flags})
        crowd.work([reader()])
        frozen = freeze(workspace, "votes", Choice("votes"))
        assert frozen.left_out[votes.PERSONAL_OUT] == 2, "the prompt is that of an ordinary item as well"
        assert {row["prompt"]["messages"][0]["content"] for row in rows_of(frozen)} == {crowd.items[1].prompt.text}


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".parquet"])
def test_a_file_has_the_same_rows_in_every_form(told, tmp_path, ending):
    crowd, _, frozen, rows, _ = told
    path = tmp_path / f"all{ending}"
    report = api.export_data(crowd.workspace, "all", path)
    assert report.rows == len(rows)
    assert [plain(row) for row in read(path)] == [plain(row) for row in rows]
    entry = audit.entries(crowd.workspace.database)[-1]
    assert entry["details"]["format"] == "votes" and entry["about"] == crowd.id


def test_the_judges_of_a_file_can_be_numbered_and_a_side_chosen(told, tmp_path):
    crowd, _, _, rows, _ = told
    path = tmp_path / "numbered.jsonl"
    api.export_data(crowd.workspace, "all", path, number_judges=True)
    text = path.read_text()
    assert not any(person.judge in text for person in crowd.people) and '"judge-3"' in text
    assert api.export_data(crowd.workspace, "all", tmp_path / "held.jsonl", split="heldout").rows == 0


def read(path):
    if path.suffix == ".parquet":
        return __import__("pyarrow.parquet").parquet.read_table(path).to_pylist()
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


def plain(row):
    """What Parquet holds as JSON text, as what it is."""
    cells = dict(row)
    for name, kind in votes.COLUMNS.items():
        if kind == "json" and isinstance(cells[name], str):
            cells[name] = json.loads(cells[name])
    prompt = dict(cells["prompt"])
    if isinstance(prompt.get("meta"), str):
        prompt["meta"] = json.loads(prompt["meta"])
    return cells | {"prompt": {name: value for name, value in prompt.items() if value is not None}}


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_many_rows_are_written_without_being_held(told, tmp_path, ending):
    """Ten batches take no more memory than one and a bit."""
    *_, rows, _ = told
    used = []
    for batches in (1, 10):
        tracemalloc.start()
        many = (dict(row) for n in range(batches * BATCH) for row in [rows[n % len(rows)]])
        with (tmp_path / f"{batches}{ending}").open("wb") as file:
            assert votes.write_rows(file, tmp_path / f"x{ending}", many, votes.COLUMNS) == batches * BATCH
        used.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert used[1] < 1.5 * used[0] + 2_000_000


def test_what_makes_no_sense_is_refused(told, tmp_path):
    crowd, *_ = told
    for settings in ({"rule": "soft"}, {"heldout": 0.0}, {"heldout_judges": ("x",)}, {"judges": ("x",)}):
        with pytest.raises(ConfigError, match="votes are all that was said"):
            asking.freeze(crowd.workspace, "votes", kind="votes", **settings)
    for format, more in (("table", {}), ("trl-preference", {}), ("raw", {"conversational": True})):
        with pytest.raises(ConfigError, match="votes are written as they are"):
            api.export_data(crowd.workspace, "all", tmp_path / "x.jsonl", format, **more)
    for name in ("x.csv", "folder"):
        with pytest.raises(DataError, match="not written to files of this ending"):
            api.export_data(crowd.workspace, "all", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_nothing_said_is_nothing_to_freeze(tmp_path):
    with Workspace.create(tmp_path / "workspace") as workspace:
        open_collection(workspace, items=1)
        with pytest.raises(DataError, match="nobody has judged yet"):
            freeze(workspace, "votes", Choice("votes"))


def test_a_set_of_votes_is_shown_without_what_it_does_not_say(told):
    crowd, _, frozen, rows, _ = told
    shown = api.show_data(crowd.workspace, frozen.artifact, rows=2)
    assert (shown["kind"], shown["rows"], len(shown["shown"])) == ("votes", len(rows), 2)
    for row, whole in zip(shown["shown"], rows, strict=False):
        assert row == {name: value for name, value in whole.items() if value not in (None, "", [], {})}
    assert json.loads(shown["text"].partition("\n}\n")[0] + "}") == shown["shown"][0]
    with pytest.raises(TrueupError, match="no model is trained on these"):
        api.show_data(crowd.workspace, frozen.artifact, model="policy")
