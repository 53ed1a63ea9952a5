"""Was a score worth climbing? What people say of it: they compare what evaluations wrote with what the start wrote."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from test_winrate_by_people import crowd_of, prefers

from trueup import climbing
from trueup.cli.main import root
from trueup.errors import ConfigError
from trueup.loading import put_records
from trueup.records import Prompt
from trueup.runs import Run
from trueup.store import queue

PROMPTS = [Prompt.user(f"What of {i}?") for i in range(30)]
STEPS = (0, 10, 20, 30, 40, 50)
WRITTEN = {0: "fair", 10: "fair", 20: "good", 30: "good", 40: "poor", 50: "poor"}  # better first, then gamed


@pytest.fixture
def run(workspace):
    """The proxy goes up all the time; what is written gets better, then worse than it was."""
    asked = put_records(workspace, "prompts", [p.to_json() for p in PROMPTS], name="asked")
    made = Run.start(workspace, "rl", {}, {"prompts": asked}, seed=0)
    for step in STEPS:
        rows = [
            {"prompt": p.id, "text": f"{WRITTEN[step]} {i} at {step}", "finished": True, "length": 4,
             "score": step / 10 + i / 100, "kl": step / 10}
            for i, p in enumerate(PROMPTS)
        ]  # fmt: skip
        made.keep_samples(step, rows, heldout=True)
    made.finish({"best_step": 50})
    return made


def curve(found):
    return dict(zip(found["curves"]["people:worth"]["places"], found["curves"]["people:worth"]["mean"], strict=True))


def ask(run, **given):
    return climbing.overopt(run.workspace, run.id, judges=["people:worth"], **given)


def test_people_say_where_it_stopped_being_worth_it(run):
    ws = run.workspace
    first = ask(run, limit=20, guideline="Which is nicer?")
    told = first["people"]["people:worth"]
    assert told["steps"] == [10, 30, 50] or len(told["steps"]) == 4
    assert told["steps"][-1] == 50 and told["judgements"] == 0 and told["prompts"] == 20
    assert list(first["curves"]) == ["proxy"] and first["judge"] == "proxy"
    crowd = crowd_of(ws, "worth", 3)
    assert len(crowd.items) == 20 * len(told["steps"])
    assert {item.split for item in crowd.items} == {"heldout"}
    assert queue.guidelines(ws.database, crowd.desk.id)[-1]["text"] == "Which is nicer?"
    view = crowd.desk.next(crowd.people[0].id)
    assert "step" not in str(vars(view)).replace("steps", ""), "nobody is told which evaluation wrote it"

    crowd.work([prefers("good", "fair", "poor")] * 3)
    found = ask(run, limit=20)
    assert found["people"]["people:worth"]["judged"] == 20 and found["people"]["people:worth"]["needed"] == 0
    means = curve(found)
    at = {STEPS[place]: mean for place, mean in means.items()}
    assert at[0] == 0.5 and at[50] == 0.0
    assert all(at[step] == 1.0 for step in at if WRITTEN[step] == "good")
    assert WRITTEN[found["ship"]["step"]] == "good" and found["ship"]["fell"] and found["ship"]["gamed"]
    assert found["curves"]["people:worth"]["n"] == 20 and found["curves"]["people:worth"]["law"] is None
    assert found["curves"]["proxy"]["n"] == 30


def test_what_is_half_judged_counts_only_whole_prompts(run):
    ask(run, limit=10)
    crowd = crowd_of(run.workspace, "worth", 2)
    crowd.work([prefers("good", "fair", "poor")] * 2, most=9)
    found = ask(run, limit=10)
    told = found["people"]["people:worth"]
    assert 0 < told["judgements"] < 40 and told["needed"] > 0
    if "people:worth" in found["curves"]:
        assert found["curves"]["people:worth"]["n"] == told["judged"] < 10
    crowd.work([prefers("good", "fair", "poor")] * 2)
    assert ask(run, limit=10)["curves"]["people:worth"]["n"] == 10
    again = ask(run, limit=10)
    assert len(queue.items(run.workspace.database, crowd.desk.id)) == len(crowd.items)
    assert again == ask(run, limit=10), "the same votes tell the same"


def test_people_who_throw_coins_see_no_fall(workspace, run):
    """The planted fall is in the texts; these judges do not read them."""
    ask(run, limit=30)
    crowd = crowd_of(workspace, "worth", 2)
    chance = np.random.default_rng(0)
    crowd.work([lambda view, _: {"choice": int(chance.choice([-2, 2])), "active_ms": 9000}] * 2)
    found = ask(run, limit=30)["curves"]["people:worth"]
    far = 3.5 * (0.25 / 30) ** 0.5  # a coin's mean of 30 is further off in one of two thousand
    assert all(abs(mean - 0.5) < far for mean in found["mean"])
    assert all(0.2 < high - low < 0.5 for low, high in list(zip(found["low"], found["high"], strict=True))[1:])


def test_the_command_says_how_to_go_on(run):
    ask(run)
    command = ["--workspace", str(run.workspace.path), "eval", "overopt", run.id, "--judge", "people:worth"]
    told = CliRunner().invoke(root, command, standalone_mode=False)
    assert told.exception is None, told.output
    text = told.return_value.text
    assert "trueup label worth" in text and "0 of 30 prompts are judged whole" in text
    crowd_of(run.workspace, "worth").work([prefers("good", "fair", "poor")] * 2)
    text = CliRunner().invoke(root, command, standalone_mode=False).return_value.text
    assert "30 of 30 prompts" in text and "people:worth is highest there" in text and "being gamed" in text


def test_people_do_not_judge_the_best_of_n(workspace):
    rows = [
        {"prompt": p.to_json(), "completions": [{"text": "a", "finished": True}, {"text": "b", "finished": True}]}
        for p in PROMPTS
    ]
    put_records(workspace, "completions", rows, name="two")
    with pytest.raises(ConfigError, match="people judge what an RL run wrote"):
        climbing.overopt(workspace, "two", judges=["people:worth"], reward="anything")
