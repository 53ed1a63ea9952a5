"""Several sets of judgements as one."""

from __future__ import annotations

import pytest

import trueup
from trueup.cli.main import root
from trueup.errors import ConfigError
from trueup.loading import put_records, read_judgements
from trueup.records import Judgement, Message, Prompt


def stored(ws, split: str, *prompts: str, kind: str = "preferences", judge: str = "ann"):
    rows = [Judgement(Prompt.user(p), ("a", "b"), (1, 2), judge, "human", split=split).to_json() for p in prompts]  # type: ignore[arg-type]
    return put_records(ws, kind, rows)


def test_each_judgement_says_on_what_it_was_made(workspace):
    helpful, harmless = stored(workspace, "train", "x", "y"), stored(workspace, "train", "z", judge="bob")
    both = trueup.join_data(workspace, [("helpful", helpful), ("harmless", harmless)], name="both")
    rows = read_judgements(both)
    assert [row.meta["objective"] for row in rows] == ["helpful", "helpful", "harmless"]
    assert [row.judge for row in rows] == ["ann", "ann", "bob"]
    assert set(both.parents.values()) == {helpful.id, harmless.id}


def test_a_prompt_held_out_in_one_is_held_out_in_all(workspace):
    joined = trueup.join_data(workspace, [stored(workspace, "train", "x", "y"), stored(workspace, "heldout", "x")])
    assert [(row.prompt.text, row.split) for row in read_judgements(joined)] == [
        ("x", "heldout"), ("y", "train"), ("x", "heldout"),
    ]  # fmt: skip


def test_a_conversation_held_out_in_one_is_held_out_at_every_length(workspace):
    said = [Message("user", "x"), Message("assistant", "well"), Message("user", "and now")]
    row = Judgement(Prompt(tuple(said)), ("a", "b"), (1, 2), "ann", "human", split="train").to_json()
    longer = put_records(workspace, "preferences", [row])
    joined = trueup.join_data(workspace, [longer, stored(workspace, "heldout", "x")])
    assert {each.split for each in read_judgements(joined)} == {"heldout"}


def test_what_cannot_be_joined(workspace):
    pairs, thumbs = stored(workspace, "train", "x"), stored(workspace, "train", "y", kind="unpaired")
    for sets in ([pairs], [pairs, thumbs]):
        with pytest.raises(ConfigError, match="cannot be joined"):
            trueup.join_data(workspace, sets)


def test_the_command_reads_objectives(workspace):
    from click.testing import CliRunner

    stored(workspace, "train", "x")
    one, two = stored(workspace, "train", "x"), stored(workspace, "train", "z")
    arguments = ["--workspace", str(workspace.path), "data", "join", f"kind={one.id}", two.id, "--name", "both"]
    assert CliRunner().invoke(root, arguments, catch_exceptions=False).exit_code == 0
    assert [row.meta.get("objective") for row in read_judgements(workspace.get("both"))] == ["kind", None]
