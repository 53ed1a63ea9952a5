"""Models that answer in a process of their own: what they say, and what becomes of a process that is killed, hangs, is
idle or has no memory left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trueup import trying
from trueup.config import Sampling
from trueup.errors import ModelError, NotFoundError
from trueup.kept_models import Kept, load_kept
from trueup.records import Message, Prompt
from trueup.store import Workspace
from trueup.trying import Asked, Models, NoAnswer, Said, TryingSettings, Waiting
from trueup.trying_process import Held

GREEDY = Sampling(max_new_tokens=6, temperature=0.0)
SEEDS = (1, 2)

FAKE = """
import json, os, socket, sys, time
line = socket.socket(fileno=int(sys.argv[1])).makefile("rwb", buffering=0)
for question in line:
    asked = json.loads(question)
    words = asked["prompt"]["messages"][-1]["content"]
    if words == "hang":
        time.sleep(60)
    if words == "killed":
        os.kill(os.getpid(), 9)
    if words == "fails":
        sys.exit(3)
    if words == "ends":
        sys.exit(0)
    if words == "trickles":
        for _ in range(600):
            line.write(b" ")
            time.sleep(0.1)
    said = [{"text": f"{os.getpid()} {words}", "finished": True}] * 2
    answer = {"said": said}
    if words == "full":
        answer = {"error": "memory ran out", "hint": "ask smaller models", "ends": True}
    odd = {"list": b"[1]", "nothing": b"{}", "garbage": b"\\xff\\x00", "deep": b"[" * 100_000}
    line.write(odd.get(words, json.dumps(answer).encode()) + b"\\n")
"""


@pytest.fixture
def models(tmp_path, monkeypatch) -> Iterator[Models]:
    """Without models: who asks is what is tested."""
    monkeypatch.setattr(trying, "PROGRAM", FAKE)
    made = Models(tmp_path, TryingSettings(seconds=5.0))
    yield made
    made.close()


def ask(models: Models, words: str) -> str:
    return models.ask(["a", "b"], Prompt.user(words), GREEDY, SEEDS)[0].text


def gone(pid: int, within: float = 10.0) -> bool:
    """Ended; one that nobody has waited for counts too."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


# The process, and who asks


def test_one_process_answers_all_questions(models):
    assert ask(models, "one").split()[0] == ask(models, "two").split()[0] != str(os.getpid())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("killed", "ended (killed by SIGKILL): memory may have run out"),
        ("fails", "ended (exit code 3)"),
        ("ends", "does not start"),
        ("list", "is no answer"),
        ("nothing", "is no answer"),
        ("garbage", "is no answer"),
        ("deep", "is no answer"),
    ],
)
def test_a_process_that_fails_is_told_in_words_and_the_next_question_has_another(models, words, said):
    before = int(ask(models, "hello").split()[0])
    with pytest.raises(NoAnswer) as told:
        ask(models, words)
    assert said in told.value.message and told.value.hint and gone(before)
    assert int(ask(models, "hello").split()[0]) != before


def test_killed_between_two_questions_the_next_one_starts_it_anew(models):
    before = int(ask(models, "hello").split()[0])
    os.kill(before, signal.SIGKILL)
    assert gone(before) and int(ask(models, "hello").split()[0]) != before


def test_out_of_memory_is_an_error_and_frees_the_memory(models):
    before = int(ask(models, "hello").split()[0])
    with pytest.raises(ModelError, match="memory ran out"):
        ask(models, "full")
    assert gone(before) and ask(models, "hello")


@pytest.mark.parametrize("words", ("hang", "trickles"))
def test_what_takes_too_long_is_ended(tmp_path, monkeypatch, words):
    monkeypatch.setattr(trying, "PROGRAM", FAKE)
    models = Models(tmp_path, TryingSettings(seconds=1.0))
    before = int(ask(models, "hello").split()[0])
    began = time.monotonic()
    with pytest.raises(NoAnswer, match="no answer within 1 seconds: the models were stopped"):
        ask(models, words)
    assert time.monotonic() - began < 5 and gone(before)
    assert ask(models, "hello")
    models.close()


def test_one_question_at_a_time_and_few_may_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(trying, "PROGRAM", FAKE)
    models = Models(tmp_path, TryingSettings(seconds=1.5, waiting=1))
    told: list[str] = []

    def asks(words: str) -> None:
        try:
            told.append(ask(models, words))
        except NoAnswer as error:
            told.append(error.message)

    people = [threading.Thread(target=asks, args=[words]) for words in ("hang", "waits", "waits", "waits")]
    for person in people:
        person.start()
        time.sleep(0.1)
    for person in people:
        person.join()
    models.close()
    assert sum("too many people" in each for each in told) == 2
    assert sum("no answer within" in each for each in told) == 1
    waited = [each for each in told if "waits" in each or "still answering somebody else" in each]
    assert len(waited) == 1, "the one who waited has the next answer, or was told to come again"


SERVER = """
import sys, time
from trueup import trying
from trueup.config import Sampling
from trueup.records import Prompt
trying.PROGRAM = sys.argv[2] or trying.PROGRAM
models = trying.Models(sys.argv[1])
said = models.ask([sys.argv[3]] * 2, Prompt.user("hello"), Sampling(max_new_tokens=4), (1, 2))
assert len(said) == 2 and "torch" not in sys.modules, "torch stays in the other process"
print(models._process.id, flush=True)
time.sleep(60)
"""


def start_server(folder: Path, program: str, model: str) -> tuple[subprocess.Popen, int]:
    words = [sys.executable, "-c", SERVER, str(folder), program, model]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    assert line, "the server asked and was answered"
    return server, int(line)


def test_it_ends_with_a_server_that_ends(tmp_path):
    server, process = start_server(tmp_path, FAKE, "m")
    assert not gone(process, 0.2)
    server.send_signal(signal.SIGINT)
    server.wait()
    assert gone(process)


def test_the_web_app_loads_no_torch(tmp_path):
    words = "import sys, trueup.web.app, trueup.web.serve; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", words]).returncode == 0


def test_closed_while_somebody_waits_they_are_told_at_once_and_nothing_is_started_any_more(models):
    told: list[str] = []

    def asks() -> None:
        with pytest.raises(NoAnswer) as error:
            ask(models, "hang")
        told.append(error.value.message)

    people = [threading.Thread(target=asks) for _ in range(3)]
    for person in people:
        person.start()
    time.sleep(0.5)
    process, began = models._process.id, time.monotonic()
    models.close()
    for person in people:
        person.join()
    assert time.monotonic() - began < 3 and gone(process) and models._process.id == process
    assert len(told) == 3 and told.count("the server is ending") >= 2


def test_half_of_the_cores_unless_told_otherwise():
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert TryingSettings().cores == max(1, mine // 2) and TryingSettings(threads=3).cores == 3


# Real models


@pytest.fixture(scope="module")
def kept(tmp_path_factory, checkpoint):
    """A workspace with three models, and a process that holds two of them."""
    with Workspace.create(tmp_path_factory.mktemp("trying") / "work") as ws:
        ids = [ws.put("model", checkpoint("Llama", seed), meta={"adapter": False}).id for seed in (0, 1, 2)]
        models = Models(ws.path, TryingSettings())
        yield ws, ids, models
        models.close()


def test_real_models_say_what_they_would_say_here(kept):
    from trueup.engines.sampler import Sampler

    ws, ids, models = kept
    prompt = Prompt((Message("system", "the old town"), Message("user", "the cat")))
    said = models.ask(ids[:2], prompt, GREEDY, SEEDS)
    here = [Sampler(load_kept(ws, id, "cpu")).sample([prompt], GREEDY, seed=0)[0] for id in ids[:2]]
    assert [each.text for each in said] == [each.text for each in here] and said[0] != said[1]
    assert [each.finished for each in said] == [each.finished for each in here]
    hot = Sampling(max_new_tokens=12, temperature=1.0)
    one, two = models.ask([ids[0]] * 2, prompt, hot, SEEDS)
    assert one.text != two.text, "each has its own seed"
    assert models.ask([ids[0]] * 2, prompt, hot, SEEDS) == [one, two]
    process = models._process.id
    assert models.ask([ids[2], ids[0]], prompt, GREEDY, SEEDS)[1] == said[0]
    assert models._process.id == process, "one process for all of it"
    nice, adjusted = Path(f"/proc/{process}/stat"), Path(f"/proc/{process}/oom_score_adj")
    if nice.exists():
        assert int(nice.read_text().rpartition(")")[2].split()[16]) >= 5 and adjusted.read_text().strip() == "1000"


def test_what_real_models_cannot_do_is_an_error_in_words(kept):
    ws, ids, models = kept
    with pytest.raises(ModelError, match="does not fit into the 96 tokens"):
        models.ask(ids[:2], Prompt.user("x " * 400), GREEDY, SEEDS)
    with pytest.raises(ModelError, match="no artifact"):
        models.ask([ids[0], "nothing"], Prompt.user("x"), GREEDY, SEEDS)
    broken = ws.put("model", {"config.json": b"{}"})
    with pytest.raises(ModelError):
        models.ask([ids[0], broken.id], Prompt.user("x"), GREEDY, SEEDS)


def test_idle_it_ends_by_itself_and_is_started_again(kept):
    ws, ids, _ = kept
    models = Models(ws.path, TryingSettings(idle=0.5))
    said = models.ask(ids[:2], Prompt.user("the cat"), GREEDY, SEEDS)
    first = models._process.id
    assert gone(first)
    assert models.ask(ids[:2], Prompt.user("the cat"), GREEDY, SEEDS) == said and models._process.id != first
    models.close()


def test_it_ends_with_a_server_that_is_killed_and_the_server_has_no_torch(kept):
    ws, ids, _ = kept
    server, process = start_server(ws.path, "", ids[0])
    server.kill()
    server.wait()
    assert gone(process)


def test_at_most_two_models_are_held_and_the_one_longest_unused_goes(kept, monkeypatch):
    ws, _, _ = kept
    loaded: list[str] = []
    most = 0

    class Counting(Held):
        def _load(self, ref):
            nonlocal most
            most = max(most, len(self.speakers) + 1)
            loaded.append(ref)
            if ref == "huge":
                raise MemoryError
            if ref == "odd":
                raise OSError("broken\x00 file")
            return Fake()

    class Fake:
        def reply(self, prompt, sampling, seed):
            from trueup.records import Completion

            return Completion(prompt, "yes"), 0

    held = Counting(ws, 2, "cpu")

    def asked(*models):
        prompt = Prompt.user("x").to_json()
        return held.answer({"models": list(models), "prompt": prompt, "sampling": {}, "seeds": [1, 2]})

    for pair in (("a", "b"), ("b", "a"), ("a", "c"), ("a", "a"), ("c", "b"), ("b", "c")):
        assert len(asked(*pair)["said"]) == 2
    assert loaded == ["a", "b", "c", "b"] and most == 2
    assert asked("huge", "a") == {
        "error": "memory ran out",
        "hint": "ask smaller models, or one model twice",
        "ends": True,
    }
    said = asked("odd", "a")["error"]
    assert said == "the models cannot answer: OSError: broken\\x00 file"


# What waits for a vote


def asked(words: str = "x") -> Asked:
    both = Kept("m", "m", {}), Kept("run@3", "c", {})
    said = Said("one", True), Said("two", True)
    return Asked(Prompt.user(words), GREEDY, 0.0, ("m", "run@3"), both, said, SEEDS)


def test_replies_wait_for_who_asked_and_the_oldest_make_room():
    waiting = Waiting(most=5, a_person=3)
    ada = [waiting.add("ada", asked(str(i))) for i in range(4)]
    assert waiting.get("ada", ada[3]).prompt.text == "3" and len(set(ada)) == 4 and min(map(len, ada)) >= 32
    for person, token in (("ada", ada[0]), ("bob", ada[3]), ("ada", "x"), ("ada", "")):
        with pytest.raises(NotFoundError, match="no longer kept"):
            waiting.get(person, token)
    for _ in range(3):
        waiting.add("bob", asked())
    with pytest.raises(NotFoundError):
        waiting.get("ada", ada[1])
    assert waiting.get("ada", ada[2])


def test_a_judgement_knows_which_run_and_step_wrote_a_reply():
    model, run = asked().replies
    assert model.writer == "m" and "run" not in model.said.meta and model.said.meta["seed"] == 1
    assert run.said.model == "run@3" and (run.said.meta["run"], run.said.meta["step"]) == ("run", 3)
