"""Models behind servers, as writers and as judges: what is asked, what is asked again, and what is never lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from random import Random

import pytest
from chat_server import chat_server

import trueup
from trueup.comparing import with_judge
from trueup.config import RemoteSettings, Sampling
from trueup.engines.remote import RemoteEngine, address
from trueup.errors import ConfigError, ModelError
from trueup.loading import put_records, read_completions
from trueup.records import FAILED, Message, Prompt
from trueup.runs import Run, runs

PROMPTS = [Prompt.user(f"question {i}") for i in range(30)]
ONE = {"threads": 1}
SHOWN = re.compile(r"<response \d ([0-9a-f]{8})>\n(.*?)\n</response \d \1>", re.DOTALL)
FAST = {"timeout": 5.0, "tries": 4}


def worth(text):
    return int(re.search(r"worth (\d+)", text)[1])


def by_worth(question, number=0):
    first, second = (worth(text) for _, text in SHOWN.findall(question))
    return f"Verdict: {'1' if first > second else '2' if second > first else 'tie'}"


def texts(seed):
    random = Random(seed)
    return [f"answer worth {random.randint(0, 99)} by {seed}" for _ in PROMPTS]


@pytest.fixture
def ws(workspace):
    put_records(workspace, "prompts", [p.to_json() for p in PROMPTS], name="asked")
    for seed, name in enumerate(("one", "two", "three")):
        rows = [
            {"prompt": p.to_json(), "completions": [{"text": text, "finished": True}]}
            for p, text in zip(PROMPTS, texts(seed), strict=True)
        ]
        put_records(workspace, "completions", rows, name=name)
    return workspace


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Waits of a tenth of a millisecond, each noted."""
    waits = []
    monkeypatch.setattr("trueup.engines.remote.PAUSE", lambda stopped, seconds: waits.append(seconds))
    return waits


def engine(server, **settings):
    return RemoteEngine(server.url, RemoteSettings(**(FAST | settings)))


def rate(ws, server, *models, **given):
    a, b, *others = models or ("one", "two")
    settings = {"run": ONE, "remote": FAST | given.pop("remote", {})} | given
    return trueup.winrate(ws, a=a, b=b, others=others, prompts="asked", judge=server.url, **settings)


TRUE_WINS = sum(worth(a) > worth(b) for a, b in zip(texts(0), texts(1), strict=True))


# --- the engine


def test_answers_come_in_the_order_of_the_prompts_and_each_has_a_seed_of_its_own():
    def slow_first(question, number):
        time.sleep(0.05 if question == "question 0" else 0)
        return f"about {question}"

    with chat_server(slow_first) as server:
        prompt = Prompt((Message("system", "be brief"), Message("user", "question x")))
        found = engine(server).sample([*PROMPTS[:3], prompt], Sampling(max_new_tokens=7, top_p=0.9), seed=5, n=2)
    assert [c.text for c in found[:6:2]] == ["about question 0", "about question 1", "about question 2"]
    assert all(c.finished and not c.tokens for c in found)
    assert sorted(body["seed"] for body in server.bodies) == list(range(5, 13))
    last = next(body for body in server.bodies if len(body["messages"]) == 2)
    assert last["messages"][0] == {"role": "system", "content": "be brief"} and last["path"] == "/v1/chat/completions"
    assert (last["model"], last["max_tokens"], last["top_p"], last["temperature"]) == ("judge", 7, 0.9, 1.0)


def test_a_busy_server_is_asked_again_and_waited_for_as_it_says(impatient):
    def busy(question, number):
        return (429, "slow down", {"Retry-After": "7"}) if number == 0 else "yes"

    with chat_server(busy) as server:
        asked = engine(server)
        assert [c.text for c in asked.sample(PROMPTS[:1], Sampling(), seed=0)] == ["yes"]
    assert impatient == [7.0] and asked.trouble == {"status 429": 1}


@pytest.mark.parametrize(
    ("failure", "why"),
    [((500, "broken"), "status 500"), (None, "no connection"), ((503, "x" * 100), "status 503")],
)
def test_what_never_answers_says_why(failure, why):
    with chat_server(lambda question, number: failure) as server:
        (found,) = engine(server).sample(PROMPTS[:1], Sampling(), seed=0)
    assert found.text == "" and not found.finished and why in found.meta[FAILED] and len(server.questions) == 4


def test_a_server_that_is_silent_or_talks_nonsense_is_asked_again(monkeypatch):
    def odd(question, number):
        time.sleep(0.3 if number == 0 else 0)
        return "late"

    with chat_server(odd) as server:
        asked = engine(server, timeout=0.1)
        assert [c.text for c in asked.sample(PROMPTS[:1], Sampling(), seed=0)] == ["late"]
    assert asked.trouble == {"no answer in time": 1}
    monkeypatch.setattr("chat_server.json.dumps", lambda value: "[]")
    with chat_server(lambda question, number: "x") as server:
        monkeypatch.setattr("trueup.engines.remote._read", lambda sent: None)
        (found,) = engine(server).sample(PROMPTS[:1], Sampling(), seed=0)
    assert found.meta[FAILED] == "an answer that is no chat completion"


def test_a_server_that_is_gone_is_not_asked_a_thousand_times():
    with chat_server(lambda question, number: (503, "")) as server:
        many = [Prompt.user(str(i)) for i in range(1000)]
        with pytest.raises(ModelError, match="left 6 questions running unanswered: status 503"):
            engine(server, at_once=2, tries=2).sample(many, Sampling(), seed=0)
    assert len(server.questions) < 40


@pytest.mark.parametrize(("status", "said", "hint"), [(401, "no such key", "TRUEUP_API_KEY"), (404, "no model", "#")])
def test_a_wrong_key_or_name_ends_it_at_once(status, said, hint):
    refused = pytest.raises(ModelError, match=f"refused the model 'judge' with status {status}: {said}")
    with chat_server(lambda question, number: (status, said)) as server, refused as caught:
        engine(server).sample(PROMPTS, Sampling(), seed=0)
    assert hint in caught.value.hint


def test_the_key_comes_from_its_own_variable_and_goes_nowhere_else(ws, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "other-secret")
    with chat_server(by_worth) as server:
        monkeypatch.setenv("TRUEUP_API_KEY", "my-secret")
        rate(ws, server)
    assert {headers["authorization"] for headers in server.headers} == {"Bearer my-secret"}
    stored = [path.read_bytes() for path in ws.path.rglob("*") if path.is_file()]
    assert not any(b"my-secret" in each or b"other-secret" in each for each in stored)


def test_a_key_does_not_cross_the_network_unencrypted(monkeypatch):
    monkeypatch.setenv("TRUEUP_API_KEY", "my-secret")
    with pytest.raises(ConfigError, match="the key in TRUEUP_API_KEY would cross the network unencrypted"):
        RemoteEngine("http://example.invalid/v1#m").sample(PROMPTS[:1], Sampling(), seed=0)


def test_an_error_does_not_wait_for_those_who_wait(monkeypatch):
    """One is refused for good while another waits to be asked again for a minute."""
    monkeypatch.undo()

    def answer(question, number):
        return (429, "", {"Retry-After": "60"}) if question == "question 0" else (401, "no")

    began = time.monotonic()
    with chat_server(answer) as server, pytest.raises(ModelError, match="status 401"):
        engine(server, at_once=2).sample([PROMPTS[1]] * 3 + PROMPTS[:1], Sampling(), seed=0)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("wrong", ["http://host/v1", "http://#m", "http://u:p@host/v1#m", "http://host/v1?key=x#m"])
def test_addresses_that_name_no_model_or_hold_a_secret_are_refused(wrong):
    with pytest.raises(ConfigError):
        address(wrong)


def test_an_address_is_read_as_server_and_name():
    assert address("http://127.0.0.1:8000/v1/#org/name") == ("http://127.0.0.1:8000/v1", "org/name")


# --- a model behind a server writes


def test_a_server_may_answer_and_a_reward_may_judge(ws, tmp_path):
    rules = tmp_path / "rules.py"
    rules.write_text("def worth(prompt, completion):\n    return float(completion.split()[2])\n")
    with chat_server(lambda question, number: f"answer worth 50 to {question}") as server:
        found = trueup.winrate(
            ws, a=server.url, b="one", prompts="asked", judge=f"{rules}:worth", run=ONE, remote=FAST, limit=20
        )
    assert found["wins"] == sum(worth(text) < 50 for text in texts(0)[:20]) and found["n"] == 20
    remote = ws.get(ws.get(found["evaluation"]).parents["a"])
    assert remote.kind == "remote" and remote.meta["source"] == server.url


def test_sampling_from_a_server_goes_on_where_answers_are_missing(ws):
    down = {"question 3", "question 7"}

    def answer(question, number):
        return (503, "") if question in down else f"about {question}"

    with chat_server(answer) as server:
        with pytest.raises(ModelError, match=r"2 of 30 answers are missing: 2 x status 503") as caught:
            trueup.sample(ws, model=server.url, prompts="asked", run=ONE, remote=FAST)
        assert "runs resume" in caught.value.hint
        before, (run,) = len(server.questions), [run for run in runs(ws) if run.stage == "sample"]
        assert run.status == "failed"
        down.clear()
        made = trueup.resume(ws, run.id)
        assert sorted(server.questions[before:]) == ["question 3", "question 7"], "nothing is asked twice"
    assert [c.text for c in read_completions(made)] == [f"about {p.text}" for p in PROMPTS]
    assert not [path for path in Run.load(ws, run.id).path.iterdir() if path.name.startswith("answers")]


# --- a model behind a server judges


def test_every_pair_is_asked_about_in_both_orders(ws):
    with chat_server(by_worth) as server:
        found = rate(ws, server)
    assert len(server.questions) == 60 and (found["wins"], found["n"]) == (TRUE_WINS, 30)
    assert found["judge"]["order"]["first"]["value"] == pytest.approx(0.5) and found["findings"] == []
    folder = ws.get(found["evaluation"]).path
    assert len((folder / "asked.jsonl").read_text().splitlines()) == 60
    assert json.loads((folder / "result.json").read_text())["judge"]["model"] == server.url


def test_a_server_that_fails_one_call_in_five_gives_the_same_result(ws):
    random = Random(1)

    def flaky(question, number):
        if random.random() < 0.2:
            return random.choice([(500, "oops"), (429, "busy"), None, "I would rather not say"])
        return by_worth(question)

    with chat_server(by_worth) as server:
        calm = rate(ws, server)
    with chat_server(flaky) as server:
        found = rate(ws, server, remote={"tries": 8}, asked={"tries": 6})
    assert len(server.questions) > 60
    same = ("value", "ci", "wins", "ties", "losses", "missing", "length_controlled", "slices")
    assert {key: found[key] for key in same} == {key: calm[key] for key in same}
    run = next(run for run in runs(ws) if run.outputs["evaluation"].id == found["evaluation"])
    told = [event for event in run.events() if event["kind"] == "asked again"]
    assert told and "status 500" in told[0]["reason"], "what it took is told"


def test_pairs_without_a_verdict_fail_the_run_and_a_resumed_one_asks_for_these_alone(ws):
    stubborn = {PROMPTS[i].text for i in (2, 4)}

    def answer(question, number):
        if any(f"\n{text}\n" in question for text in stubborn):
            return "who am I to judge"
        return by_worth(question)

    with chat_server(answer) as server:
        with pytest.raises(
            ModelError, match="2 of 30 pairs have no verdict: 2 x an answer without a verdict"
        ) as caught:
            rate(ws, server)
        run = runs(ws)[-1]
        assert f"runs resume {run.id}" in caught.value.hint and run.status == "failed"
        stubborn.clear()
        before = len(server.questions)
        made = trueup.resume(ws, run.id)
        assert len(server.questions) - before == 4
    result = json.loads((made.path / "result.json").read_text())
    assert result["wins"] == TRUE_WINS and result["missing"] == {}


def test_a_share_may_stay_without_a_verdict_and_is_counted(ws):
    def answer(question, number):
        return "no" if "\nquestion 2\n" in question else by_worth(question)

    with chat_server(answer) as server:
        found = rate(ws, server, asked={"missing": 0.05})
    assert found["missing"] == {"an answer without a verdict": 1} and found["n"] == 29


def test_several_models_are_rated(ws):
    with chat_server(by_worth) as server:
        found = rate(ws, server, "one", "two", "three")
    assert len(server.questions) == 180 and len(found["pairs"]) == 3 and found["components"] == 1
    assert {row["n"] for row in found["ratings"]} == {60}


def test_killed_and_resumed_it_asks_nothing_twice_and_ends_with_the_same_artifact(ws, tmp_path):
    """SIGKILL while a server is being asked. What was said before is kept; a question that was open is asked again."""

    def slowly(question, number):
        time.sleep(0.05)
        return by_worth(question)

    with chat_server(slowly) as server:
        whole = rate(ws, server)
        first = len(server.questions)
        command = [
            *(sys.executable, "-m", "trueup", "--workspace", str(ws.path), "eval", "winrate", "one", "two"),
            *("--prompts", "asked", "--judge", server.url, "--threads", "1", "--set", "remote.at_once=2"),
            *("--set", "remote.timeout=5.0", "--set", "remote.tries=4", "--seed", "1"),
        ]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "TRUEUP_QUIET": "1"})
        end = time.monotonic() + 60
        while len(server.questions) < first + 20 and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        (dead,) = (run for run in runs(ws) if run.status == "dead")
        said = len((dead.path / "asked.jsonl").read_text().splitlines())
        assert 0 < said < 60
        before = len(server.questions)
        made = trueup.resume(ws, dead.id)
        assert len(server.questions) - before == 60 - said
    assert (made.path / "asked.jsonl").read_bytes() == (ws.get(whole["evaluation"]).path / "asked.jsonl").read_bytes()
    assert (made.path / "rows.jsonl").read_bytes() == (ws.get(whole["evaluation"]).path / "rows.jsonl").read_bytes()


def test_a_model_from_here_may_be_asked_and_what_it_cannot_read_is_counted(ws, checkpoint):
    """Its context is too short for any question: that is said of each, and nothing is made up."""
    with pytest.raises(ModelError, match="30 of 30 pairs have no verdict: 30 x longer than its context of 96 tokens"):
        trueup.winrate(
            ws, a="one", b="two", prompts="asked", judge=str(checkpoint("Llama")), run=ONE, asked={"max_new_tokens": 4}
        )


@pytest.mark.parametrize("family", ["GPT2", "Qwen2"])
def test_a_language_model_of_any_family_is_asked_and_not_taken_for_a_scorer(ws, checkpoint, family):
    assert with_judge(ws, folder := str(checkpoint(family))) == {"asked": folder}


def test_only_one_can_judge(ws):
    from trueup.config import load
    from trueup.inputs import find_inputs

    refs = {"a": "one", "b": "two", "prompts": "asked", "asked": "http://h/v1#m", "verdicts": "votes"}
    with pytest.raises(ConfigError, match="only one can judge, not asked and verdicts"):
        find_inputs(ws, "winrate", refs, load("winrate"))
