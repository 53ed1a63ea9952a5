"""Auditing, comparing and scoring reward models as somebody types it, on a model of a few weights."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from small import add_small_data, settings

import trueup.auditing as auditing
from trueup import api
from trueup.cli.main import main
from trueup.config.audit import AuditConfig
from trueup.errors import DataError, TrueupError
from trueup.records import Completion, Prompt
from trueup.store import Workspace

ONE = AuditConfig(threads=1, probes=10)
SMALL = {"hidden": 32, "layers": 1, "heads": 2, "mlp": 48, "vocabulary": 320, "context": 96}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("rewards")
    with Workspace.create(path / "workspace") as ws:
        add_small_data(ws, path, prompts=60)
        base = settings("pretrain", steps=4, architecture=SMALL)
        api.pretrain(ws, data="demonstrations", name="base", config=base)
        for seed in (0, 1):
            config = settings("reward", steps=6, run={"seed": seed})
            api.reward(ws, base="base", data="preferences", name=f"judge{seed}", config=config)
    return path / "workspace"


@pytest.fixture
def ws(folder):
    with Workspace.open(folder) as opened:
        yield opened


@pytest.fixture
def say(folder, capsys):
    def call(*words: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--workspace", str(folder), *words])
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said.err
        return said.out, said.err

    return call


def test_an_audit_is_an_artifact_with_its_parents_and_can_be_found_again(ws, tmp_path):
    found = auditing.audit(ws, model="judge0", data="preferences", policy="base", prompts="prompts", config=ONE,
                           out=tmp_path / "out")  # fmt: skip
    artifact = ws.get(found["evaluation"])
    assert artifact.kind == "evaluation" and set(artifact.parents) == {"model", "data", "train", "policy", "prompts"}
    assert artifact.meta["stage"] == "audit" and artifact.meta["gate"]["failed"] == found["gate"]["failed"]
    heldout = [j for j in auditing.loading.read_judgements(ws.get("preferences")) if j.split == "heldout"]
    assert found["judgements"] == len(heldout) and found["split"] == "held-out judgements"
    assert found["policy"]["same_base"] is True and found["length"]["unit"] == "tokens"
    assert found["leakage"]["value"] == 0 and found["steady"]["alone"] < 1e-4 and found["steady"]["duplicates"] < 1e-4
    stored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (
        stored["accuracy"] == found["accuracy"] and "<h2>The gate</h2>" in (tmp_path / "out" / "card.html").read_text()
    )
    again = auditing.latest_audit(ws, "judge0")
    assert again["evaluation"] == found["evaluation"] and auditing.latest_audit(ws, "judge1") is None
    assert next(row for row in ws.run_rows() if row.stage == "audit").result["passed"] is found["gate"]["passed"]


def test_the_accuracy_is_what_training_reported(ws):
    found = auditing.audit(ws, model="judge1", data="preferences", config=ONE)
    row = next(row for row in ws.run_rows() if ws.get("judge1").id in row.outputs.values())
    assert found["accuracy"]["value"] == pytest.approx(row.result["accuracy"])


def test_calibration_is_in_the_logits_of_training(ws):
    """Scores are divided by the stored std; the audit has to take that back."""
    import torch

    scorer = auditing._scorer(auditing.find_input(ws, "m", "judge0", ("reward",)), ONE.model, ONE.scoring, 1)
    one, other = Completion(Prompt.user("the cat"), "sat"), Completion(Prompt.user("the cat"), "on a mat")
    raw = scorer.raw([one, other])[:, 0]
    scores = [score.value for score in scorer.score([one, other])]
    assert torch.allclose(raw[0] - raw[1], torch.tensor(auditing._scale(scorer) * (scores[0] - scores[1])), atol=1e-5)


def test_compare_and_score_from_python(ws):
    found = auditing.compare_rewards(ws, a="judge0", b="judge1", data="preferences", threads=1)
    assert found["difference"]["value"] == pytest.approx(found["a"]["value"] - found["b"]["value"])
    texts = [Completion(Prompt.user("the cat"), "sat on a mat"), Completion(Prompt.user("a dog"), "cat " * 400)]
    short, long = auditing.score(ws, model="judge0", completions=texts, threads=1)
    assert isinstance(short["value"], float) and long["value"] is None and "longer than the 96 tokens" in long["note"]


def test_a_model_audited_on_what_it_learnt_from_is_caught(ws):
    rows = [j.to_json() for j in auditing.loading.read_judgements(ws.get("preferences")) if j.split == "train"]
    auditing.loading.put_records(ws, "preferences", rows, name="again")
    found = auditing.audit(ws, model="judge0", data="again", config=ONE)
    assert found["leakage"]["same_prompt"]["value"] == 1.0 and "leak" in found["gate"]["failed"]
    assert "none is marked as held out" in found["split"]


def test_bad_input_is_refused_in_words(ws, tmp_path):
    with pytest.raises(TrueupError, match="is of kind 'model'"):
        auditing.audit(ws, model="base", data="preferences", config=ONE)
    with pytest.raises(TrueupError, match="is of kind 'prompts'"):
        auditing.audit(ws, model="judge0", data="prompts", config=ONE)
    for row, problem in (({"prompt": "q", "chosen": "a"}, "missing 'rejected'"), ({"chosen": "a"}, "missing 'prompt'")):
        (tmp_path / "bench.jsonl").write_text(json.dumps(row))
        with pytest.raises(DataError, match=f"bench.jsonl:1: {problem}"):
            auditing.read_bench(tmp_path / "bench.jsonl")
    assert not [row for row in ws.run_rows() if row.stage == "audit" and row.status != "done"]


def test_the_commands(say, tmp_path):
    bench = tmp_path / "bench.jsonl"
    rows = [{"prompt": f"the cat {i}", "chosen": "sat", "rejected": ["ran", "mat", "a dog"]} for i in range(4)]
    bench.write_text("\n".join(map(json.dumps, rows)))
    line = ["eval", "reward", "judge0", "preferences", "--threads", "1", "--probes", "10"]
    text, _ = say(*line, "--bench", str(bench), "--out", str(tmp_path / "out"))
    assert "judged pairs" in text and "CONDITION" in text and "best of several" in text
    assert str(tmp_path / "out" / "card.html") in text
    out, err = say(*line, "--gate", "--above-length", "1", "--json", code=1)
    found = json.loads(out)
    assert "accuracy" in found["gate"]["failed"] and f"fails {len(found['gate']['failed'])} of" in err
    assert "error: " in err and "hint: " in err and "accuracy: the lower bound" in err
    named = json.dumps(found["gate"]["failed"])
    out, _ = say(*line, "--gate", "--above-length", "1", "--json", "--set", f"overrides={named}")
    assert json.loads(out)["gate"]["overridden"] == found["gate"]["failed"]
    assert "no condition 'lenght'" in say(*line, "--set", 'overrides=["lenght"]', code=1)[1]
    text, _ = say("eval", "rewards", "judge0", "judge1", "preferences", "--threads", "1")
    assert "McNemar" in text and "difference" in text


def test_score_from_a_file_from_words_and_from_stdin(say, folder, tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "the cat", "completion": "sat"},
        {
            "prompt": [{"role": "user", "content": "the cat"}],
            "completions": ["sat", {"text": "ran", "finished": False}],
        },
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    out, _ = say("score", "judge0", str(file), "--threads", "1", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [each["row"] for each in found] == ["1", "2.1", "2.2"]
    assert found[0]["value"] == pytest.approx(found[1]["value"], abs=1e-5) and found[0]["completion"] == "sat"
    text, _ = say("score", "judge0", "--prompt", "the cat", "--completion", "sat", "--threads", "1")
    assert f"{found[0]['value']:+.4f}" in text
    piped = subprocess.run(
        [sys.executable, "-m", "trueup", "--workspace", str(folder), *"score judge0 - --json --threads 1".split()],
        input=file.read_bytes(), capture_output=True, timeout=120,
    )  # fmt: skip
    assert piped.stdout.decode() == out and piped.returncode == 0
    file.write_text('{"prompt": "x"}')
    assert "rows.jsonl:1: missing 'completion'" in say("score", "judge0", str(file), code=1)[1]
    assert "give a file" in say("score", "judge0", code=2)[1]


def test_an_empty_completion_has_one_score_however_it_is_given(say, tmp_path):
    """A policy may have nothing to say, and RL scores that too."""
    ways = [
        {"prompt": "the cat", "completion": ""},
        {"prompt": "the cat", "completions": ["", {"text": ""}]},
        {"prompt": "the cat", "completion": [{"role": "assistant", "content": ""}]},
    ]
    file = tmp_path / "empty.jsonl"
    file.write_text("\n".join(map(json.dumps, ways)))
    read = [json.loads(line) for line in say("score", "judge0", str(file), "--threads", "1", "--json")[0].splitlines()]
    typed = json.loads(say("score", "judge0", "--prompt", "the cat", "--completion", "", "--threads", "1", "--json")[0])
    assert [each["value"] for each in read] == pytest.approx([typed["value"]] * 4, abs=1e-5)
    for row, problem in (
        ({"prompt": " ", "completion": "a"}, "empty prompt"),
        ({"prompt": "a"}, "missing 'completion'"),
    ):
        file.write_text(json.dumps(row))
        assert problem in say("score", "judge0", str(file), code=1)[1]


def test_how_objectives_and_members_become_one_is_a_setting_of_every_command(ws, say, checkpoint, tmp_path):
    """A classifier made elsewhere says itself that its labels have to be named; it must be possible to name them."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names, where = {0: "hostile", 1: "kind"}, str(tmp_path / "classifier")
    folder = checkpoint("Qwen2")
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, id2label=names).save_pretrained(where)
    AutoTokenizer.from_pretrained(folder).save_pretrained(where)
    line = ["score", where, "--prompt", "the cat", "--completion", "sat", "--threads", "1"]
    assert "hint: name them: --set scoring.objectives=" in say(*line, code=1)[1]
    kind = ["--set", 'scoring.objectives=[{name = "kind"}]']
    found = json.loads(say(*line, *kind, "--json")[0])
    assert found["value"] == pytest.approx(found["parts"]["kind"])
    text, _ = say("eval", "rewards", where, where, "preferences", "--threads", "1", *kind)
    assert "the same order on 100.0%" in text


def test_rl_records_whether_its_reward_model_was_audited_and_what_was_let_pass(ws):
    """A gate that failed by name is in the record of the run that climbs the model all the same."""
    from trueup.runs import runs

    quick = {"steps": 1, "prompts_per_step": 2, "samples_per_prompt": 2, "run": {"threads": 1, "tensorboard": False}}
    quick |= {"sampling": {"max_new_tokens": 6}, "guard": {"evaluation_prompts": 2}}

    def noted(reward: str) -> dict:
        api.rl(ws, policy="base", reward=reward, prompts="prompts", **quick)
        climbed = ws.get(reward).id
        (run,) = [run for run in runs(ws) if run.stage == "rl" and run.inputs["reward"].id == climbed]
        return next(event for event in run.events() if event["kind"] == "gate")

    config = settings("reward", steps=2, run={"seed": 7})
    api.reward(ws, base="base", data="preferences", name="unseen", config=config)
    before = noted("unseen")
    assert before["audit"] == "" and "not audited" in before["reason"]
    let = AuditConfig(threads=1, probes=0, overrides=("accuracy", "slices", "calibration", "leak"))
    found = auditing.audit(ws, model="judge0", data="preferences", config=let)
    said = noted("judge0")
    assert said["audit"] == found["evaluation"]
    assert said["overridden"] == found["gate"]["overridden"] and said["failed"] == found["gate"]["failed"]
