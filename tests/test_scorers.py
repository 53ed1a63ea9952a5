"""What may score in RL: Python functions, several scorers as one, floors with a multiplier, another tokenizer."""

from __future__ import annotations

import json
import textwrap
import time

import numpy as np
import pytest
from small import add_small_data, nouns_asked, settings

import trueup
from trueup.cli import main as cli
from trueup.config import Objective, Scoring
from trueup.engines.combined import CombinedScorer
from trueup.engines.fake import FakeScorer
from trueup.engines.functions import FunctionScorer, load_function
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


def function_file(folder, body):
    path = folder / "rules.py"
    path.write_text(textwrap.dedent(body))
    return path


def test_a_function_of_one_completion_and_one_of_many(tmp_path):
    path = function_file(tmp_path, """
        def each(prompt, completion): return len(completion) + (prompt == "the cat")
        def many(completions): return [len(c.text) for c in completions]
    """)  # fmt: skip
    assert values(FunctionScorer(load_function(f"{path}:each"), "each")) == [2, 3, 5]
    assert values(FunctionScorer(load_function(f"{path}:many"), "many")) == [1, 2, 4]
    assert FunctionScorer(load_function(f"{path}:each"), "each").score([]) == []


def test_it_is_tried_again_and_then_is_an_error():
    calls = []

    def shaky(completions):
        calls.append(1)
        if len(calls) < 3:
            raise OSError("no line")
        return [0.0] * len(completions)

    assert values(FunctionScorer(shaky, "shaky")) == [0, 0, 0] and len(calls) == 3

    def broken(completions):
        raise OSError("no line")

    with pytest.raises(RunError, match="broken failed 3 times in a row: OSError: no line"):
        FunctionScorer(broken, "broken").score(TEXTS)


def test_one_that_hangs_is_left_behind():
    def hangs(completions):
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(RunError, match=r"no answer within 0.05 s \(scoring.time_limit\)"):
        FunctionScorer(hangs, "hangs", time_limit=0.05).score(TEXTS)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("returned", "says"),
    [([1.0], "returned 1 numbers for 3 completions"), (None, "no numbers"), (["x", "y", "z"], "no numbers")],
)
def test_what_it_returns_is_checked(returned, says):
    with pytest.raises(RunError, match=says):
        FunctionScorer(lambda completions: returned, "odd").score(TEXTS)


def test_a_file_that_cannot_be_used_is_said(tmp_path):
    path = function_file(tmp_path, "def mine(completions): return []\nlimit = 3\n")
    with pytest.raises(ModelError, match="has no function 'yours'") as found:
        load_function(f"{path}:yours")
    assert "mine" in found.value.hint
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        load_function(f"{function_file(tmp_path, '1 / 0')}:mine")
    with pytest.raises(ModelError, match="takes 3 arguments"):
        load_function(f"{function_file(tmp_path, 'def three(a, b, c): pass')}:three")


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
