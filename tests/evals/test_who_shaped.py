"""A score that a model was trained against, or chosen by, is no stranger to it: the result says so."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import trueup
from trueup.cli.main import root
from trueup.loading import put_records
from trueup.records import Prompt
from trueup.reports.standings import remarks
from trueup.runs import Run

PROMPTS = [Prompt.user(f"question {i}") for i in range(24)]
ONE = {"threads": 1}


@pytest.fixture
def judge(tmp_path, monkeypatch):
    (tmp_path / "rules.py").write_text("def brief(prompt, completion): return -len(completion)\n")
    monkeypatch.chdir(tmp_path)
    return "rules.py:brief"


def completions(ws, name, text, **parents):
    rows = [{"prompt": p.to_json(), "completions": [{"text": f"{text} {i}"}]} for i, p in enumerate(PROMPTS)]
    return put_records(ws, "completions", rows, name=name, parents=parents)


def test_a_judge_that_made_a_model_is_named(workspace, judge):
    put_records(workspace, "prompts", [p.to_json() for p in PROMPTS], name="asked")
    completions(workspace, "plain", "quite some words")
    completions(workspace, "other", "some words")
    given = {"prompts": "asked", "judge": judge, "run": ONE}
    strangers = trueup.winrate(workspace, a="plain", b="other", **given)
    assert strangers["judge"]["shaped"] == []
    (run,) = (Run.load(workspace, row.id) for row in workspace.run_rows())
    chosen = completions(workspace, "chosen", "few", reward=run.inputs["judge"])
    found = trueup.winrate(workspace, a="chosen", b="plain", **given)
    assert found["judge"]["shaped"] == [chosen.id]
    assert any("had a part in making chosen" in line for line in remarks(found, {chosen.id: "chosen"}))
    beside = trueup.compare(workspace, ["plain", "chosen"], prompts="asked", judge=judge, run=ONE)
    assert beside["judge"]["shaped"] == [chosen.id]
    command = ["--workspace", str(workspace.path), "eval", "winrate", "chosen", "plain", "--prompts", "asked"]
    told = CliRunner().invoke(root, [*command, "--judge", judge], standalone_mode=False)
    assert told.exception is None and "had a part in making chosen" in told.return_value.text
