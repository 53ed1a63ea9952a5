"""What may score in RL: Python functions, several scorers as one, floors with a multiplier, another tokenizer."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small import add_small_data, nouns_asked, settings

import trueup
from trueup.cli import main as cli
from trueup.config import Objective, Scoring
from trueup.engines.combined import CombinedScorer
from trueup.engines.fake import FakeScorer
from trueup.engines.function_process import numbers
from trueup.engines.functions import FunctionScorer, check_function
from trueup.engines.sampler import Sampler
from trueup.errors import ConfigError, ModelError, NotFoundError, RunError
from trueup.inputs import by_role, named_scorers
from trueup.records import Completion, Prompt
from trueup.runs import Run, runs
from trueup.train.rl import rl

PROMPT = Prompt.user("the cat")
TEXTS = [Completion(PROMPT, text) for text in ("a", "bb", "cccc")]
LENGTH, ES = FakeScorer(lambda c: len(c.text)), FakeScorer(lambda c: c.text.count("e"))


def values(scorer, completions=TEXTS):
    return [score.value for score in scorer.score(completions)]


# --- functions


def function_file(folder, body, name="rules.py"):
    path = folder / name
    path.write_text(textwrap.dedent(body))
    return path


@pytest.fixture
def rule(tmp_path):
    """`rule("f", body)`: a scorer that asks the function `f` of a file with this body."""

    def make(name, body, time_limit=30.0):
        return FunctionScorer(f"{function_file(tmp_path, body)}:{name}", time_limit)

    return make


def test_a_function_of_one_completion_and_one_of_many(rule):
    body = """
        def each(prompt, completion): return len(completion) + (prompt == "the cat")
        def many(completions): return [len(c.text) for c in completions]
    """
    each = rule("each", body)
    assert values(each) == [2, 3, 5] and each.score([]) == []
    assert values(rule("many", body)) == [1, 2, 4]


def test_it_is_asked_again_and_then_is_an_error(rule):
    """Without being started anew: what it remembers, it has."""
    body = """
        calls = []
        def shaky(completions):
            calls.append(1)
            if len(calls) < 3: raise OSError("no line")
            return [len(calls)] * len(completions)
        def broken(completions): raise OSError("no line")
    """
    assert values(rule("shaky", body)) == [3, 3, 3]
    with pytest.raises(RunError, match="broken failed 3 times in a row: OSError: no line"):
        rule("broken", body).score(TEXTS)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("sys.exit()", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("os._exit(7)", "its process ended, with exit code 7"),
        ("os.kill(os.getpid(), 9)", "its process ended, with exit code -9"),
    ],
)
def test_one_that_ends_its_program_ends_no_run(rule, how, says):
    with pytest.raises(RunError, match=f"failed 3 times in a row: {says}"):
        rule("ends", f"import os, sys\ndef ends(completions): {how}").score(TEXTS)


def test_a_call_that_hangs_is_ended_before_the_next(rule, tmp_path):
    """With whatever it started; the next process runs the file as it read at first."""
    scorer = rule("hangs", f"""
        import os, subprocess, time
        def note(pid):
            with open({str(tmp_path / "pids")!r}, "a") as file: file.write(f"{{pid}}\\n")
        note(os.getpid())
        def hangs(completions):
            note(subprocess.Popen(["sleep", "60"]).pid)
            time.sleep(60)
    """, time_limit=1.0)  # fmt: skip
    function_file(tmp_path, "def hangs(completions): return [0] * len(completions)")
    began = time.monotonic()
    with pytest.raises(RunError, match=r"no answer within 1 s"):
        scorer.score(TEXTS)
    assert time.monotonic() - began < 30
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(set(pids)) == 6, "a process and what it started, three times"
    wait_until(lambda: not any(is_alive(pid) for pid in pids))  # the system takes a moment to end what was killed


def is_alive(pid):
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_time_limit_is_for_one_call(rule):
    """Of a function that is asked about one completion at a time, each is a call."""
    body = """
        import time
        def each(prompt, completion): time.sleep(0.2); return len(completion)
        def many(completions): time.sleep(0.2 * len(completions)); return [0] * len(completions)
    """
    assert values(rule("each", body, 0.8), TEXTS * 2) == [1, 2, 4] * 2
    with pytest.raises(RunError, match="no answer within 0.8 s"):
        rule("many", body, 0.8).score(TEXTS * 2)


def test_what_it_does_to_its_process_does_not_reach_the_run(rule, capfd):
    scorer = rule("rude", """
        import os, random, signal, sys
        import numpy, torch
        print("loud", file=sys.stdout)
        def rude(completions):
            print("louder")
            torch.set_num_threads(3), torch.set_default_dtype(torch.float64), torch.set_grad_enabled(False)
            torch.manual_seed(1), random.seed(1), numpy.random.seed(1), os.chdir("/"), os.environ.clear()
            signal.signal(signal.SIGINT, signal.SIG_IGN), sys.path.clear()
            found = [len(c.text) for c in completions]
            completions.clear()
            return found
    """)  # fmt: skip
    given = list(TEXTS)
    before = process_state()
    assert values(scorer, given) == [1, 2, 4] == values(scorer, given)
    assert process_state() == before and given == TEXTS
    assert capfd.readouterr().out == "", "the result stands there, and nothing else"


def process_state():
    torch_state = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.initial_seed()
    drawn = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    return torch_state, drawn, os.getcwd(), dict(os.environ), signal.getsignal(signal.SIGINT), list(sys.path)


def test_its_process_ends_with_the_scorer_and_with_who_asks(tmp_path, rule):
    body = "import os\ndef pid(completions): return [os.getpid()] * len(completions)"
    scorer = rule("pid", body)
    (pid, *_) = map(int, values(scorer))
    assert is_alive(pid)
    del scorer
    assert not is_alive(pid)
    mark = tmp_path / "pid"
    body = f"import os, time\ndef hangs(c): open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    asks = [sys.executable, "-c", ASKS.format(f"{function_file(tmp_path, body)}:hangs")]
    with subprocess.Popen(asks) as asking:
        wait_until(lambda: mark.exists() and mark.read_text())
        asking.kill()
    wait_until(lambda: not is_alive(int(mark.read_text())))


ASKS = """
from trueup.engines.functions import FunctionScorer
from trueup.records import Completion, Prompt
FunctionScorer({!r}, 0.0).score([Completion(Prompt.user("a"), "b")])
"""


def wait_until(happened):
    until = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_numbers_of_any_kind_are_numbers():
    mixed = [True, np.float32(0.5), torch.tensor(2.0), 3, float("nan")]
    assert str(numbers(mixed, 5, "mixed")) == "[1.0, 0.5, 2.0, 3.0, nan]"
    assert numbers(np.array([1, 2]), 2, "array") == numbers(iter((1, 2)), 2, "iterator") == [1.0, 2.0]


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ([1.0], "returned 1 numbers for 3 completions"),
        ([1.0] * 4, "returned 4 numbers for 3 completions"),
        *[(wrong, "no numbers") for wrong in (None, 1.0, "123", ["1", "2", "3"], [None] * 3, {0: 1, 1: 2, 2: 3})],
        ([[1.0, 2.0]] * 3, "no numbers"),
        (np.ones((3, 2)), "no numbers"),
    ],
)
def test_what_it_returns_is_checked(returned, says):
    with pytest.raises(RunError, match=says):
        numbers(returned, 3, "odd")


def test_what_it_returns_is_checked_where_it_is_asked(rule):
    body = "def short(completions): return [1.0]\ndef none(prompt, completion): pass"
    with pytest.raises(RunError, match=r"rules.py:short returned 1 numbers for 3 completions"):
        rule("short", body).score(TEXTS)
    with pytest.raises(RunError, match="returned no numbers: TypeError"):
        rule("none", body).score(TEXTS)


def test_a_file_that_cannot_be_used_is_said(tmp_path):
    path = function_file(tmp_path, "def mine(completions): return []\ndef three(a, b, c): pass\nlimit = 3\n")
    with pytest.raises(ModelError, match="has no function 'yours'") as found:
        check_function(f"{path}:yours")
    assert "mine" in found.value.hint
    with pytest.raises(ModelError, match="takes 3 arguments"):
        check_function(f"{path}:three")
    for body, says in (
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(2)", "SystemExit: 2"),
        ("f(", "SyntaxError"),
    ):
        with pytest.raises(ModelError, match=f"could not be run: {says}"):
            check_function(f"{function_file(tmp_path, body)}:mine")
    function_file(tmp_path, "def mine(completions): return []", "beside.py")
    check_function(f"{function_file(tmp_path, 'from beside import mine')}:mine")


# --- several as one


def test_each_part_is_brought_to_one_scale_and_weighed():
    weighed = Scoring(objectives=(Objective(name="long", weight=2.0), Objective(name="es", weight=-1.0)))
    scorer = CombinedScorer({"long": LENGTH, "es": ES, "unused": LENGTH}, weighed)
    texts = [Completion(PROMPT, text) for text in ("e", "ee", "abcdxf", "abe")]
    scorer.measure(texts)
    long, es = np.array([1.0, 2, 6, 3]), np.array([1.0, 2, 0, 1])
    expected = 2 * (long - long.mean()) / long.std() - (es - es.mean()) / es.std()
    assert values(scorer, texts) == pytest.approx(expected)
    assert set(scorer.score(texts)[0].parts) == {"long", "es", "unused"}
    raw = CombinedScorer({"long": LENGTH, "es": ES}, weighed.model_copy(update={"normalise": False}))
    raw.measure(texts)
    assert values(raw, texts) == pytest.approx(2 * long - es)


def test_a_floor_is_a_price_or_a_multiplier():
    objectives = (Objective(name="long"), Objective(name="es", weight=0.0, at_least=1.0))
    texts = [Completion(PROMPT, text) for text in ("aaa", "eee", "ae")]
    priced = CombinedScorer({"long": LENGTH, "es": ES}, Scoring(objectives=objectives, normalise=False))
    priced.measure(texts)
    assert values(priced, texts) == [3 - 10, 3, 2]
    scoring = Scoring(objectives=objectives, normalise=False, floor="multiplier", multiplier_rate=0.5)
    adaptive = CombinedScorer({"long": LENGTH, "es": ES}, scoring)
    adaptive.measure(texts)
    assert values(adaptive, texts[:1]) == [3], "the multiplier starts at 0"
    assert adaptive.adapt() == {"es": 0.5}
    assert values(adaptive, texts) == [3, 3 + 0.5 * 3, 2 + 0.5]
    assert adaptive.adapt() == {"es": pytest.approx(0.5 - 0.5 / 3)}, "above the floor on the whole: it falls"
    for _ in range(9):
        values(adaptive, texts[1:2])
        adaptive.adapt()
    assert adaptive.adapt() == {"es": 0.0}, "and never below nothing"


def test_a_name_nobody_has_is_an_error():
    scorer = CombinedScorer({"long": LENGTH}, Scoring(objectives=(Objective(name="lung"),)))
    with pytest.raises(ConfigError, match="names 'lung'.*did you mean 'long'"):
        scorer.measure(TEXTS)


def test_scorers_on_the_command_line():
    assert named_scorers(["judge"]) == "judge"
    named = named_scorers(["a=judge", "b=./x.py:f"])
    assert by_role({"policy": "p", "reward": named}) == {
        "policy": "p", "reward.a": "judge", "reward.b": "./x.py:f",
    }  # fmt: skip
    for wrong in (["judge", "other"], ["a=x", "a=y"], ["a b=x"], ["a="]):
        with pytest.raises(ConfigError, match="no scorer with a name of its own"):
            named_scorers(wrong)


def test_a_multiplier_finds_the_price_that_keeps_the_floor(talker, train):
    """Paid for length, to say at least as many e as the reference: without the floor they would go."""
    scorers = {"long": LENGTH, "few": FakeScorer(lambda c: -c.text.count("e"))}

    def run(scoring):
        policy = talker()
        config = settings(
            "rl", steps=40, estimator="rloo", prompts_per_step=8, samples_per_prompt=8, kl_coefficient=0.02,
            missing_eos_score=None, optimizer={"lr": 2e-3, "schedule": "constant"}, sampling={"max_new_tokens": 8},
        )  # fmt: skip
        scorer = CombinedScorer(scorers, scoring)
        return train(rl, config, policy, talker(), Sampler(policy), scorer, nouns_asked(), []).metrics()

    free = run(Scoring(objectives=(Objective(name="long"),)))
    objectives = (Objective(name="long"), Objective(name="few", weight=0.0, at_least=0.0))
    held = run(Scoring(objectives=objectives, floor="multiplier", multiplier_rate=0.5))
    late = {name: np.mean([row["score_few"] for row in rows[-10:]]) for name, rows in (("free", free), ("held", held))}
    assert late["free"] < -0.5 < late["held"]
    assert held[0]["multiplier_few"] == 0 and max(row["multiplier_few"] for row in held) > 0.2


# --- whole runs


QUICK = {
    "steps": 2, "prompts_per_step": 4, "samples_per_prompt": 2, "run.threads": 1, "run.tensorboard": False,
    "sampling.max_new_tokens": 6, "guard.evaluation_prompts": 2,
}  # fmt: skip


@pytest.fixture
def ready(workspace, tmp_path, checkpoint):
    add_small_data(workspace, tmp_path)
    base = str(checkpoint("Llama"))
    trueup.reward(workspace, base=base, data="preferences", name="judge", steps=2, run={"threads": 1})
    return workspace, base


def test_a_model_and_a_function_in_one_run(ready, tmp_path, monkeypatch, capsys):
    """Through the command line: named, weighed, logged apart, in the lineage; resumed only with the same function."""
    workspace, base = ready
    path = function_file(tmp_path, "def brevity(prompt, completion): return -len(completion)\n")
    flags = [word for key, value in QUICK.items() for word in ("--set", f"{key}={str(value).lower()}")]
    words = ["--workspace", str(workspace.path), "train", "rl", "--policy", base, "--prompts", "prompts", *flags]
    words += ["--reward", "help=judge", "--reward", f"short={path}:brevity"]
    words += ["--set", 'scoring.objectives=[{name="help"}, {name="short", weight=0.2}]']
    assert cli.run([*words, "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["kind"] == "model"
    run = runs(workspace)[-1]
    assert {"reward.help", "reward.short"} <= set(run.row.inputs)
    assert {"score_help", "score_short"} <= set(run.metrics()[0])
    assert run.inputs["reward.short"].meta["source"] == f"{path}:brevity"
    assert any(event["kind"] == "gate" for event in run.events())
    assert cli.run([*words, "--dry-run", "--json"]) == 0
    assert "reward model" in capsys.readouterr().out


def test_a_scorer_that_breaks_leaves_a_checkpoint_to_go_on_from(ready, tmp_path):
    """Mended outside its file's text: what it asks was away for a while."""
    workspace, base = ready
    gate = tmp_path / "open"
    path = function_file(tmp_path, f"""
        from pathlib import Path
        calls = []
        def asks(completions):
            calls.append(1)
            if len(calls) > 4 and not Path({str(gate)!r}).exists():
                raise OSError("away")
            return [len(c.text) for c in completions]
    """)  # fmt: skip
    long = QUICK | {"steps": 5}
    with pytest.raises(RunError, match="failed 3 times in a row: OSError: away"):
        trueup.rl(workspace, policy=base, reward=f"{path}:asks", prompts="prompts", **long)
    run = runs(workspace)[-1]
    kept = [step for step, _ in run.checkpoints()]
    assert run.status == "failed" and kept[-1] == len(run.metrics()) > 0
    gate.touch()
    resumed = trueup.resume(workspace, run.id)
    undisturbed = trueup.rl(workspace, policy=base, reward=f"{path}:asks", prompts="prompts", **long)
    assert resumed.id == undisturbed.id, "as if nothing had happened"


def test_a_function_that_changed_in_between_is_not_resumed(ready, tmp_path):
    workspace, base = ready
    path = function_file(tmp_path, "def gone(completions): raise OSError('away')\n")
    with pytest.raises(RunError, match="away"):
        trueup.rl(workspace, policy=base, reward=f"{path}:gone", prompts="prompts", **QUICK)
    path.write_text("def gone(completions): return [0] * len(completions)\n")
    with pytest.raises(ModelError, match="rules.py is not what it was when the run was started"):
        trueup.resume(workspace, Run.load(workspace, runs(workspace)[-1].id).id)


def test_a_function_that_is_not_there_is_refused_before_a_run_is_recorded(ready, tmp_path):
    workspace, base = ready
    before = len(runs(workspace))
    with pytest.raises(NotFoundError, match="there is no file .*nowhere.py"):
        trueup.rl(workspace, policy=base, reward=f"{tmp_path}/nowhere.py:f", prompts="prompts", **QUICK)
    assert len(runs(workspace)) == before


def test_a_reward_model_with_another_tokenizer_reads_the_text(ready, tmp_path):
    """Its special tokens, and so its template, are its own; only a system text has to be the same."""
    from trueup.config import Architecture, PromptSettings
    from trueup.models.load import new_model, new_reward, save_model, save_reward
    from trueup.text.chat import prompt_format
    from trueup.text.tokenizer import EOS, PAD, train_tokenizer

    workspace, base = ready
    tokenizer = train_tokenizer(["quite other words than those"] * 9, 290)
    shape = Architecture(hidden=16, layers=1, heads=2, mlp=32, vocabulary=290, context=128)
    own = prompt_format(tokenizer, PromptSettings(), eos=EOS, pad=PAD)
    save_model(new_model(shape, tokenizer, own, 1), tmp_path / "other")
    (tmp_path / "judge").mkdir()
    save_reward(new_reward("sequence", [str(tmp_path / "other")], settings("reward").model), tmp_path / "judge")
    made = trueup.rl(workspace, policy=base, reward=str(tmp_path / "judge"), prompts="prompts", **QUICK)
    assert made.kind == "model"
