"""Whether to ship: read off what a report holds, for somebody who has a minute."""

from __future__ import annotations

from typing import Any

import pytest
from left_runs import rl_run

import trueup
from trueup import reporting
from trueup.loading import put_records, read_prompts
from trueup.records import Prompt
from trueup.reports.run_page import runs_page
from trueup.reports.shipping import before_shipping
from trueup.store import Workspace

ONE = {"threads": 1}


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace:
        yield workspace


@pytest.fixture
def judge(tmp_path, monkeypatch) -> str:
    (tmp_path / "rules.py").write_text("def long(prompt, completion): return len(completion)\n")
    monkeypatch.chdir(tmp_path)
    return "rules.py:long"


def tuned(ws: Workspace, **inputs: Any) -> Any:
    """A run that made a model, as far as the store can tell."""
    run = rl_run(ws, inputs=inputs, name="tuned")
    run.output("model", ws.put("model", {"weights": repr(inputs).encode()}, name="tuned"))
    run.finish({"best_step": 12})
    return run


def answers(ws: Workspace, name: str, text: str, **parents: Any) -> Any:
    asked = read_prompts(ws.get("asked"))
    rows = [{"prompt": p.to_json(), "completions": [{"text": f"{text} {i}"}]} for i, p in enumerate(asked)]
    return put_records(ws, "completions", rows, name=name, parents=parents)


def shipping(ws: Workspace, ref: str = "tuned") -> dict[str, list[str]]:
    return before_shipping(reporting.report(ws, [ref])["runs"])


@pytest.fixture
def asked(ws):
    return put_records(ws, "prompts", [Prompt.user(f"question {i}").to_json() for i in range(40)], name="asked")


def test_what_nobody_compared_is_not_known(ws):
    tuned(ws)
    found = shipping(ws)
    assert found["for"] == [] and any("Nobody compared it" in each for each in found["unknown"])
    assert any("Only the score it was trained on" in each for each in found["unknown"])


def test_runs_that_made_no_model_are_not_asked_about(ws, judge, asked):
    answers(ws, "one", "a"), answers(ws, "other", "b b")
    trueup.winrate(ws, a="one", b="other", prompts="asked", judge=judge, run=ONE)
    (row,) = ws.run_rows()
    assert before_shipping(reporting.report(ws, [row.id])["runs"]) == {}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("text", "part"), [("rather long an answer", "for"), ("no", "against"), ("plain one", "unknown")]
)
def test_a_comparison_speaks_for_the_model_that_won_it(ws, judge, asked, first, text, part):
    """Whichever of the two it was, and by what it wrote."""
    run = tuned(ws)
    mine = answers(ws, "of-tuned", text, model=run.outputs["model"])
    other = answers(ws, "of-sft", "plain two")
    a, b = (mine, other) if first else (other, mine)
    trueup.winrate(ws, a=a.id, b=b.id, prompts="asked", judge=judge, run=ONE)
    found = shipping(ws)
    (said,) = [each for each in found[part] if "won" in each]
    assert "of 40 pairs" in said and "95% interval" in said and "Judged by the score of" in said
    assert all("of 40 pairs" not in each for key, lines in found.items() if key != part for each in lines)


def test_a_judge_that_made_it_speaks_for_nobody(ws, judge, asked):
    answers(ws, "of-sft", "plain two"), answers(ws, "of-others", "plain")
    trueup.winrate(ws, a="of-sft", b="of-others", prompts="asked", judge=judge, run=ONE)
    run = tuned(ws, reward=reporting.Run.load(ws, ws.run_rows()[0].id).inputs["judge"])
    answers(ws, "of-tuned", "a very long answer indeed", model=run.outputs["model"])
    trueup.winrate(ws, a="of-tuned", b="of-sft", prompts="asked", judge=judge, run=ONE)
    found = shipping(ws)
    assert found["for"] == [] and any("take another judge" in each for each in found["unknown"])


def test_the_page_says_it_before_everything_else(ws, judge, asked):
    run = tuned(ws)
    answers(ws, "of-tuned", "rather long an answer", model=run.outputs["model"]), answers(ws, "of-sft", "short")
    trueup.winrate(ws, a="of-tuned", b="of-sft", prompts="asked", judge=judge, run=ONE)
    page = runs_page(reporting.report(ws, ["tuned"]))
    assert page.index("Before it is shipped") < page.index("The runs") and "For it" in page


def test_faults_and_a_run_that_did_not_end_speak_against_it(ws):
    run = rl_run(ws)
    run.fail("the disk is full")
    told = reporting.report(ws, [run.id])["runs"]
    told[0]["findings"] = [{"code": "collapsed", "severity": "fault", "says": "It collapsed.", "tries": []}]
    told[0]["findings"] += [{"code": "short", "severity": "note", "says": "It is short.", "tries": []}]
    assert before_shipping(told)["against"] == ["The last run did not end: it is failed.", "It collapsed."]
