"""Whether to ship: read off what a report holds, for somebody who has a minute."""

from __future__ import annotations

import re
from shutil import rmtree
from typing import Any

import pytest
from click.testing import CliRunner
from left_runs import rl_run

import trueup
from trueup import comparing, reporting
from trueup.cli.main import root
from trueup.loading import put_records, read_prompts
from trueup.records import Prompt
from trueup.reports import shipping as shipping_module
from trueup.reports.meetings import RELATED, Meeting, meetings
from trueup.reports.run_page import runs_page
from trueup.reports.shipping import before_shipping
from trueup.runs import Run
from trueup.store import Workspace

ONE = {"threads": 1}


@pytest.fixture
def ws(tmp_path):
    with Workspace.create(tmp_path / "ws") as workspace:
        yield workspace


@pytest.fixture(autouse=True)
def no_findings(monkeypatch):
    """Of made runs the doctor has its doubts, which is not what is looked at here."""
    monkeypatch.setattr(reporting, "_findings", lambda run: [])


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


def shipping(ws: Workspace, ref: str = "tuned") -> dict[str, Any]:
    return before_shipping(reporting.report(ws, [ref])["runs"])


@pytest.fixture
def asked(ws):
    return put_records(ws, "prompts", [Prompt.user(f"question {i}").to_json() for i in range(40)], name="asked")


def said(points: list[dict[str, Any]]) -> str:
    return " ".join(each["says"] for each in points)


def test_what_nobody_compared_is_to_be_looked_at(ws):
    tuned(ws)
    found = shipping(ws)
    assert not found["against"] and not found["compared"] and not found["known"]
    assert found["verdict"] == "Not yet: two things to settle first."
    first = said(found["first"])
    assert "Nobody compared it" in first and "Only the score it was trained on" in first


def test_runs_that_made_no_model_are_not_asked_about(ws, judge, asked):
    answers(ws, "one", "a"), answers(ws, "other", "b b")
    trueup.winrate(ws, a="one", b="other", prompts="asked", judge=judge, run=ONE)
    (row,) = ws.run_rows()
    assert before_shipping(reporting.report(ws, [row.id])["runs"]) == {}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("text", "verdict", "rate", "sentence"),
    [
        (
            "rather long an answer",
            "better",
            "100.0%",
            "It may be shipped, as far as scores can tell: no people judged it.",
        ),
        ("no", "worse", "0.0%", "Do not ship it as it is."),
        ("plain one", "undecided", "50.0%", "Not yet: one thing to settle first."),
    ],
)
def test_a_comparison_tells_how_the_model_did(ws, judge, asked, first, text, verdict, rate, sentence):
    """Whichever of the two it was, and by what it wrote."""
    run = tuned(ws)
    mine = answers(ws, "of-tuned", text, model=run.outputs["model"])
    other = answers(ws, "of-sft", "plain two")
    a, b = (mine, other) if first else (other, mine)
    trueup.winrate(ws, a=a.id, b=b.id, prompts="asked", judge=judge, run=ONE)
    found = shipping(ws)
    (row,) = found["compared"]
    assert (row["verdict"], row["rate"], row["n"], row["rival"]) == (verdict, rate, "40", "of-sft")
    low, high = (float(end.strip("%")) for end in row["ci"].split(" to "))
    assert low <= float(rate.strip("%")) <= high and row["judge"].startswith("score of")
    assert sentence == found["verdict"]
    assert ("of 40 pairs" in said(found["against"])) is (verdict == "worse")
    assert ("of 40 pairs" in said(found["first"])) is (verdict == "undecided")


def test_a_judge_that_made_it_is_no_stranger(ws, judge, asked):
    answers(ws, "of-sft", "plain two"), answers(ws, "of-others", "plain")
    trueup.winrate(ws, a="of-sft", b="of-others", prompts="asked", judge=judge, run=ONE)
    run = tuned(ws, reward=reporting.Run.load(ws, ws.run_rows()[0].id).inputs["judge"])
    answers(ws, "of-tuned", "a very long answer indeed", model=run.outputs["model"])
    trueup.winrate(ws, a="of-tuned", b="of-sft", prompts="asked", judge=judge, run=ONE)
    found = shipping(ws)
    assert [(row["verdict"], row["remark"]) for row in found["compared"]] == [("", "had a part in making it")]
    assert "take another judge" in said(found["first"])


@pytest.mark.parametrize(
    ("gold", "key", "words"),
    [
        ([2.0, 3.0, 4.0, 1.0], "against", "went from 2 up to 4 and down to 1"),
        ([2.0, 1.5, 1.2, 1.0], "against", "went from 2 down to 1"),
        ([2.0, 3.0, 4.0, 3.2], "first", "was at 4 on the way and ended at 3.2"),
        ([2.0, 3.0, 4.0, 3.9], "", ""),
    ],
)
def test_a_score_that_nothing_was_trained_on_is_heard_first(ws, gold, key, words):
    run = tuned(ws)
    told = reporting.report(ws, [run.id])["runs"]
    told[0]["metrics"]["gold"] = gold
    found = before_shipping(told)
    for each in ("against", "first", "known"):
        assert ("true score" in said(found[each]).lower()) is (each == key), (each, found[each])
    if key:
        assert words in found[key][0]["says"]
        assert (found["verdict"] == "Do not ship it as it is.") is (key == "against")


def test_the_page_says_it_before_everything_else(ws, judge, asked):
    run = tuned(ws)
    answers(ws, "of-tuned", "rather long an answer", model=run.outputs["model"]), answers(ws, "of-sft", "short")
    trueup.winrate(ws, a="of-tuned", b="of-sft", prompts="asked", judge=judge, run=ONE)
    page = runs_page(reporting.report(ws, ["tuned"]))
    assert "It may be shipped" in page.split("</header>")[0] and "It won 100.0%" in page.split("</header>")[0]
    assert page.index("Before it is shipped") < page.index("What the words mean") < page.index("The runs")
    assert page.index('id="run-0"') < page.index('id="run-1"'), "the run that made it is the first to be read"


def test_what_stands_at_the_top_is_not_said_twice(ws):
    run = tuned(ws)
    told = reporting.report(ws, [run.id])
    faults = [
        {"code": c, "severity": "fault", "says": f"It {c}.", "tries": [f"mend {c}"]} for c in ("collapsed", "fell")
    ]
    told["runs"][0]["findings"] = faults
    page = runs_page(told)
    assert page.count("It collapsed.") == page.count("Try: mend collapsed") == 2, "and once with its run"
    assert "Also against it" in page and page.index("It collapsed.") < page.index("Also against it") < page.index(
        "It fell."
    )
    told["runs"][0]["findings"] = faults[:1]
    assert "gainst it</h3>" not in runs_page(told)


def test_a_score_that_rose_is_no_headline_where_something_speaks_against_it(ws):
    run = tuned(ws)
    told = reporting.report(ws, [run.id])
    told["runs"][0]["findings"] = [{"code": "collapsed", "severity": "fault", "says": "It collapsed.", "tries": ["x"]}]
    assert re.search(
        r"Do not ship it as it is\.</p>\n<p class=.why.>It collapsed\.", runs_page(told).split("</header>")[0]
    )


def test_faults_and_a_run_that_did_not_end_speak_against_it(ws):
    run = rl_run(ws)
    run.fail("the disk is full")
    told = reporting.report(ws, [run.id])["runs"]
    told[0]["findings"] = [{"code": "collapsed", "severity": "fault", "says": "It collapsed.", "tries": ["stop"]}]
    told[0]["findings"] += [{"code": "short", "severity": "note", "says": "It is short.", "tries": []}]
    found = before_shipping(told)["against"]
    assert [each["says"] for each in found] == [
        "Its training did not end. Failed after step 12: the disk is full",
        "It collapsed.",
    ]
    assert "runs resume" in found[0]["tries"][0] and found[1]["tries"] == ["stop"]


def test_it_is_too_early_while_it_runs(ws):
    run = rl_run(ws)
    found = before_shipping(reporting.report(ws, [run.id])["runs"])
    assert found["verdict"].startswith("Too early") and found["reason"].startswith("The held-out score went")
    assert not found["first"], "nobody compares what goes on"
    told = reporting.report(ws, [run.id])["runs"]
    told[0]["findings"] = [{"code": "collapsed", "severity": "fault", "says": "It collapsed.", "tries": ["stop"]}]
    assert before_shipping(told)["reason"] == "It collapsed.", "what is wrong is said all the same"
    run.finish({})


def test_of_several_models_each_pair_with_it_counts(ws, judge, asked):
    run = tuned(ws)
    mine = answers(ws, "of-tuned", "middling one", model=run.outputs["model"])
    others = [answers(ws, "of-sft", "no"), answers(ws, "of-other", "the longest answer of all of them")]
    trueup.winrate(ws, a=others[0].id, b=mine.id, others=[others[1].id], prompts="asked", judge=judge, run=ONE)
    found = shipping(ws)
    assert {(row["rival"], row["verdict"]) for row in found["compared"]} == {
        ("of-sft", "better"),
        ("of-other", "worse"),
    }
    assert found["verdict"] == "Do not ship it as it is." and "against 'of-other'" in said(found["against"])


def test_one_table_counts_too_and_what_stands_out_there_is_looked_at(ws, judge, asked):
    run = tuned(ws)
    mine = answers(
        ws, "of-tuned", "again and again and again and again and again and again", model=run.outputs["model"]
    )
    first = answers(ws, "of-sft", "no")
    trueup.compare(ws, [first.id, mine.id], prompts="asked", judge=judge, run=ONE)
    found = shipping(ws)
    assert [(row["rival"], row["verdict"]) for row in found["compared"]] == [("of-sft", "better")]
    assert "times as much" in said(found["known"])
    assert "which is undecided" in said(found["first"])


PEOPLE = {"kind": "verdicts", "sources": {"human": 80}}
SCORE = {"kind": "scorer", "id": "a" * 16}


@pytest.mark.parametrize(
    ("met", "verdict", "to_settle", "to_know"),
    [
        ([(PEOPLE, (0.55, 0.75), ""), (SCORE, (0.4, 0.6), "")], "It may be shipped", 0, 1),
        ([(PEOPLE, (0.4, 0.6), ""), (SCORE, (0.8, 0.9), "")], "Not yet", 1, 0),  # no score overrules people
        ([(PEOPLE, (0.2, 0.4), ""), (SCORE, (0.8, 0.9), "")], "Do not ship", 0, 0),
        ([(SCORE, (0.8, 0.9), "")], "It may be shipped", 0, 0),
        ([(SCORE, (0.8, 0.9), RELATED["cousins"])], "Not yet", 1, 0),
        ([(SCORE, (0.8, 0.9), RELATED["shaped"])], "Not yet", 1, 0),
        ([(SCORE, (0.2, 0.4), RELATED["shaped"])], "Do not ship", 1, 0),
    ],
)
def test_the_most_trusted_judge_decides(ws, monkeypatch, met, verdict, to_settle, to_know):
    run = tuned(ws)
    told = reporting.report(ws, [run.id])["runs"]
    told[0]["measured_elsewhere"] = 0
    found = [Meeting("r" * 16, judge, sum(ci) / 2, ci, 80, None, None, False, related) for judge, ci, related in met]
    monkeypatch.setattr(shipping_module, "meetings", lambda told, made, start, learnt_on: iter(found))
    page = before_shipping(told)
    assert page["verdict"].startswith(verdict)
    assert (len(page["first"]), len(page["known"])) == (to_settle, to_know), page


@pytest.mark.parametrize(
    ("label", "ci", "key"),
    [("unsafe", [-0.4, -0.1], "against"), ("safe", [0.1, 0.3], "known"), ("unsafe", [-0.2, 0.1], "")],
)
def test_what_it_refuses_now_and_did_not_before(ws, label, ci, key):
    run = tuned(ws)
    told = reporting.report(ws, [run.id])["runs"]
    made = told[0]["outputs"][0]
    changed = {label: {"difference": sum(ci) / 2, "ci": ci, "n": 200}}
    told.append({**told[0], "stage": "safety", "inputs": [{**made, "role": "model"}], "result": {"changed": changed}})
    found = before_shipping(told)
    for each in ("against", "first", "known"):
        assert (f"{label} requests than before" in said(found[each])) is (each == key)


def test_what_was_measured_on_another_page_is_said(ws, judge, asked):
    run = tuned(ws)
    mine, other = answers(ws, "of-tuned", "long one", model=run.outputs["model"]), answers(ws, "of-sft", "no")
    trueup.winrate(ws, a=mine.id, b=other.id, prompts="asked", judge=judge, run=ONE)
    found = shipping(ws, run.id)
    assert "One evaluation of it: on another page" in said(found["first"]) and "Nobody compared" not in said(
        found["first"]
    )
    assert "trueup report" in found["first"][0]["tries"][0]


def test_what_it_was_tuned_from_is_what_it_must_beat(ws, judge, asked):
    """To be better than another model, such as its own worse end, shows nothing."""
    sft = ws.put("model", {"weights": b"sft"}, name="sft")
    run = tuned(ws, policy=sft)
    mine = answers(ws, "of-tuned", "middling one", model=run.outputs["model"])
    other = answers(ws, "of-other", "no", model=ws.put("model", {"weights": b"other"}))
    trueup.winrate(ws, a=mine.id, b=other.id, prompts="asked", judge=judge, run=ONE)
    found = shipping(ws)
    assert found["compared"][0]["verdict"] == "better" and found["verdict"].startswith("Not yet")
    assert "compared it with what it was tuned from: sft" in said(found["first"])
    start = answers(ws, "of-sft", "middling two", model=sft)
    trueup.winrate(ws, a=start.id, b=mine.id, prompts="asked", judge=judge, run=ONE)
    found = shipping(ws)
    assert found["verdict"].startswith("Not yet") and "against 'of-sft (texts of sft)'" in said(found["first"]), (
        "undecided"
    )
    short = answers(ws, "of-sft-too", "so", model=sft)
    trueup.winrate(ws, a=short.id, b=mine.id, prompts="asked", judge=judge, run=ONE)
    found = shipping(ws)
    assert found["verdict"].startswith("It may be shipped") and "against 'of-sft (texts of sft)'" in said(
        found["known"]
    )


@pytest.mark.parametrize(
    ("changed", "verdict", "words"),
    [
        ({}, "It may be shipped: people found it better than what it was tuned from", ""),
        ({"equal": 0.13, "equal_ci": (0.08, 0.2), "by_length": True}, "Do not ship", "which is the other way round"),
        ({"equal": 0.55, "equal_ci": (0.4, 0.7), "by_length": True}, "Not yet", "which is undecided"),
        ({"way": "best of 8"}, "Not yet", "Its best of 8 won"),
        ({"seen": True}, "Not yet", "on prompts that it was trained on"),
        (
            {"judge": {"kind": "verdicts", "sources": {"ai": 319, "human": 1}}},
            "It may be shipped, as far as scores",
            "",
        ),
        ({"related": RELATED["shaped"]}, "Not yet", "Only a score that had a part in making it"),
    ],
)
def test_what_only_looks_like_a_win_does_not_settle(ws, monkeypatch, changed, verdict, words):
    """Beside it another score's win over another model, which must not settle it either."""
    run = tuned(ws, policy=ws.put("model", {"weights": b"sft"}, name="sft"))
    told = reporting.report(ws, [run.id])["runs"]
    told[0]["measured_elsewhere"] = 0
    fine = {"rival": "s" * 16, "judge": PEOPLE, "value": 0.6, "ci": (0.55, 0.65), "n": 320, "equal": None,
            "equal_ci": None, "by_length": False, "related": "", "with_start": True}  # fmt: skip
    other = Meeting(**fine | {"rival": "o" * 16, "judge": SCORE, "with_start": False})
    monkeypatch.setattr(shipping_module, "meetings", lambda *args: iter([Meeting(**fine | changed), other]))
    found = before_shipping(told)
    assert found["verdict"].startswith(verdict) and words in said(found["against"] + found["first"])
    assert "no things" not in found["verdict"]


def test_how_it_answered_and_on_what_is_read_off_the_evaluation(ws, judge, asked):
    sft = ws.put("model", {"weights": b"sft"}, name="sft")
    run = tuned(ws, policy=sft, prompts=asked)
    mine = answers(ws, "of-tuned", "a very long answer", model=run.outputs["model"])
    chosen = answers(
        ws, "chosen", "a very long answer indeed", model=run.outputs["model"], reward=ws.put("reward", {"w": b""})
    )
    start = answers(ws, "of-sft", "no", model=sft)
    for one in (mine, chosen):
        trueup.winrate(ws, a=start.id, b=one.id, prompts="asked", judge=judge, run=ONE)
    made = {run.outputs["model"].id}
    known = reporting.report(ws, ["tuned"])["runs"]
    first, second = [met for told in known for met in meetings(told, made, sft.id, [asked.id])]
    assert (first.way, second.way) == ("", "best of several") and first.seen and first.with_start
    assert not any(met.seen for told in known for met in meetings(told, made, sft.id))
    assert not any(met.with_start for told in known for met in meetings(told, made)), "nothing is known of its start"


def test_texts_and_evaluations_of_an_earlier_step_are_about_that_step(ws, judge, asked):
    run = tuned(ws)
    early = ws.put("model", {"weights": b"early"})
    ws.add_run_output(run.id, "model@6", early.id)
    mine, other = answers(ws, "of-early", "rather long an answer", model=early), answers(ws, "of-sft", "plain")
    trueup.winrate(ws, a=mine.id, b=other.id, prompts="asked", judge=judge, run=ONE)
    evaluation = ws.run_rows()[-1].outputs["evaluation"]
    for ref in ("of-early", evaluation, early.id):
        made = next(each for each in reporting.report(ws, [ref])["runs"] if each["id"] == run.id)
        assert (made["asked"], made["step"]) == ([early.id], 6), ref


@pytest.mark.parametrize(
    ("gold", "key", "words"),
    [
        ([2.0] + [3.0] * 5 + [1.0] * 6, "", ""),
        ([2.0] + [1.0] * 5 + [3.0] * 6, "against", "went from 2 down to 1"),
    ],
)
def test_of_an_earlier_step_counts_what_was_logged_up_to_it(ws, gold, key, words):
    run = tuned(ws)
    early = ws.put("model", {"weights": b"early"}, name="early")
    ws.add_run_output(run.id, "model@6", early.id)
    told = reporting.report(ws, ["early"])["runs"]
    told[0]["metrics"]["gold"] = gold
    found = before_shipping(told)
    assert words in said(found["against"]) and bool(found["against"]) is bool(key)
    told[0]["overopt"] = {"ship": {"step": 3, "last": 12, "fell": True, "gamed": True}}
    assert "names step 3 of its run, not step 6" in said(before_shipping(told)["first"])


def test_a_page_about_an_earlier_checkpoint_judges_that_one(ws, judge, asked):
    """What its run did afterwards is no matter, nor how the model at its end fared; and the other way round."""
    run = tuned(ws)
    early = ws.put("model", {"weights": b"early"}, name="early")
    ws.add_run_output(run.id, "model@6", early.id)
    first = answers(ws, "of-early", "rather long an answer", model=early)
    last = answers(ws, "of-tuned", "no", model=run.outputs["model"])
    other = answers(ws, "of-sft", "plain")
    for mine in (first, last):
        trueup.winrate(ws, a=mine.id, b=other.id, prompts="asked", judge=judge, run=ONE)
    told = {ref: reporting.report(ws, [ref])["runs"] for ref in ("early", "tuned", run.id)}
    for runs in told.values():
        made = next(each for each in runs if each["id"] == run.id)
        made["findings"] = [{"code": "collapsed", "severity": "fault", "says": "It collapsed.", "tries": []}]
        made["metrics"]["gold"] = [2.0] + [4.0] * 10 + [1.0]
    of_early, of_tuned, of_run = (before_shipping(runs) for runs in told.values())
    assert of_early["verdict"].startswith("It may be shipped") and [row["rate"] for row in of_early["compared"]] == [
        "100.0%"
    ]
    assert "step 6 of its run" in said(of_early["known"])
    page = runs_page(reporting.report(ws, ["early"]))
    assert "dotted: step 6, the model" in page and "This model stands at the dotted line" in page
    assert "step 6, the model" in page and "step 12" not in re.sub(
        r"(?s)<svg.*?</svg>", "", page.split("The runs</h2>")[0]
    )
    of_end = runs_page(reporting.report(ws, ["tuned"]))
    assert "dotted: step 12, the model" in of_end and "step 12, the model" in of_end
    assert "This model stands at" not in of_end
    assert "It collapsed" in said(of_tuned["against"]) and [row["rate"] for row in of_tuned["compared"]] == ["0.0%"]
    assert "went from 2 up to 4" in said(of_run["against"]) and not of_run["compared"]
    assert "One evaluation of it: on another page" in said(of_run["first"])


def test_what_overopt_found_stands_on_the_page(ws):
    asked = put_records(ws, "prompts", [Prompt.user(f"question {i}").to_json() for i in range(30)], name="asked")
    run = rl_run(ws, inputs={"prompts": asked})
    for step, text in ((20, "worse"), (30, "bad " * 9)):
        rows = [
            {"prompt": p.id, "text": text, "finished": True, "length": 1, "score": float(step), "kl": step / 10}
            for p in read_prompts(asked)
        ]
        run.keep_samples(step, rows, heldout=True)
    for step in (0, 6, 12):
        (run.path / "samples" / f"heldout-{step:06d}.jsonl.gz").unlink()
    run.finish({"best_step": 30})
    (ws.path / "rules.py").write_text("def brief(prompt, completion): return -len(completion)\n")
    assert reporting.report(ws, [run.id])["runs"][0]["overopt"] is None
    trueup.overopt(ws, run.id, judges=[f"{ws.path}/rules.py:brief"])
    told = reporting.report(ws, [run.id])
    told["runs"][0]["findings"] = []
    page = runs_page(told)
    assert "Was the score worth climbing?" in page and "it is being gamed" in page
    assert re.search(
        r"Do not ship it as it is\.</p>\n<p class=.why.>Step 20 of 30 was better: ", page.split("</header>")[0]
    )


def test_what_is_missing_is_said_on_the_page_and_in_the_exit_code(ws, tmp_path):
    run = tuned(ws)
    command = ["--workspace", str(ws.path), "report", "tuned", "--out", str(tmp_path / "page.html")]
    assert CliRunner().invoke(root, command, standalone_mode=False).return_value.refused is None
    rmtree(run.outputs["model"].path)
    (run.path / "metrics.jsonl").unlink()
    result = CliRunner().invoke(root, command, standalone_mode=False).return_value
    assert "The files of model" in result.refused.message
    page = (tmp_path / "page.html").read_text()
    assert "are missing" in page and "Its metrics are missing" in page and "went from" not in page.split("</header>")[0]


@pytest.mark.parametrize("ends", ["fail", "_close"])
def test_a_crashed_run_is_said_in_the_exit_code(ws, tmp_path, ends):
    run = rl_run(ws)
    run.fail("the disk is full") if ends == "fail" else run._close()
    command = ["--workspace", str(ws.path), "report", run.id, "--out", str(tmp_path / "page.html")]
    result = CliRunner().invoke(root, command, standalone_mode=False).return_value
    assert f"run {run.id} is {'failed' if ends == 'fail' else 'dead'}" in result.refused.message
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_a_judge_that_learnt_from_the_same_votes_is_a_cousin(ws, asked):
    """By lineage: the score that the model was trained against and the judge read the same judgements."""
    votes = ws.put("preferences", {"rows.jsonl": b""})
    score, judge = (ws.put("reward", {"w": name.encode()}, parents={"data": votes}) for name in ("one", "two"))
    other = ws.put("reward", {"w": b"three"}, parents={"data": ws.put("preferences", {"rows.jsonl": b"", "y": b"y"})})
    mine = answers(ws, "mine", "a", reward=score)
    for who, expected in ((judge, {"shaped": [], "cousins": [mine.id]}), (score, {"shaped": [mine.id], "cousins": []}),
                          (other, {"shaped": [], "cousins": []})):  # fmt: skip
        run = Run.start(ws, "winrate", {}, {"a": mine, "b": answers(ws, "b", "b"), "judge": who}, seed=0)
        assert comparing._relations(run) == expected
        run.finish({})
