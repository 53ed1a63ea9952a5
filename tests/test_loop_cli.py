"""The whole loop as people run it: one command after another, in a workspace of its own, at a size for tests.

What is looked at is that every command finds what the one before it made, says what it did as JSON, and that the last
policy can be followed back to the judgements it rests on.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from small import SENTENCES

from trueup.cli import main as cli
from trueup.errors import Interrupted
from trueup.store import Workspace

pytestmark = pytest.mark.timeout(400)

QUIET = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "TRUEUP_QUIET": "1",
    "TRUEUP_WORKSPACE": "",
    "TRUEUP_DEBUG": "",
}
POSTS, DRAFTS_EACH, PAIRS, HELDOUT = 24, 4, 3, 8
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'TL;DR: ' + m.content + eos_token }}"
    "{% else %}{{ 'POST: ' + m.content + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'TL;DR:' }}{% endif %}"
)


def trueup(*arguments: str, where: Path | None = None) -> Any:
    """What `trueup ... --json` printed, run as a process of its own."""
    place = ["--workspace", str(where)] if where else []
    command = [sys.executable, "-m", "trueup", *place, *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=QUIET)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@dataclass
class Loop:
    """A workspace after the whole loop, and what each command printed."""

    path: Path
    said: dict[str, Any] = field(default_factory=dict)

    def run(self, what: str, line: str, *more: str) -> Any:
        """In this process: to start twenty of them takes a minute, and those of the demo are started below."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.run(["--workspace", str(self.path), *line.split(), *more, "--json"])
        assert code == 0 and "Traceback" not in err.getvalue(), err.getvalue()
        self.said[what] = json.loads(out.getvalue())
        return self.said[what]


@pytest.fixture(scope="module")
def loop(tmp_path_factory) -> Loop:
    made = Loop(tmp_path_factory.mktemp("loop") / "work")
    trueup("init", str(made.path))
    made.run(
        "world",
        f"data world --seed 5 --pretraining 60 --demonstrations 40 --prompts {POSTS} --posts 20 --heldout {HELDOUT}",
    )
    made.run(
        "base",
        "train pretrain --data world-pretraining --name base --steps 6 --batch-size 4 --threads 1 "
        "--set architecture.hidden=32 --set architecture.layers=2 --set architecture.heads=2 "
        "--set architecture.mlp=48 --set architecture.vocabulary=400",
        *("--set", f"prompt.template={TEMPLATE}"),
    )
    made.run("sft", "train sft --base base --data world-demonstrations --name sft --steps 4 --batch-size 8 --threads 1")
    short = "--set sampling.max_new_tokens=10 --threads 1"
    made.run(
        "drafts", f"sample --model sft --prompts world-candidates --per-prompt {DRAFTS_EACH} --name drafts {short}"
    )
    made.run("votes", f"feedback simulate drafts --seed 2 --pairs-per-prompt {PAIRS} --heldout 0.3 --name votes")
    made.run("judge", "train reward --base sft --data votes --name judge --steps 3 --batch-size 4 --threads 1")
    made.run(
        "judge2",
        "train reward --base sft --data votes --kind features --features base --name judge2 --steps 3 "
        "--batch-size 4 --threads 1",
    )
    made.run(
        "tuned",
        "train rl --policy sft --reward judge2 --prompts world-posts --name tuned --steps 2 --prompts-per-step 4 "
        f"--samples-per-prompt 2 --set guard.evaluation_prompts=4 {short}",
    )
    made.run("gold", f"eval winrate tuned sft --prompts world-heldout --judge gold {short}")
    made.run(
        "best",
        "eval winrate tuned drafts --prompts world-candidates --judge judge --reward judge2 --best-of 4 --limit 5 "
        f"{short}",
    )
    return made


def test_each_command_says_what_it_made(loop):
    kinds = {what: said["kind"] for what, said in loop.said.items() if "kind" in said}
    assert kinds == {
        "base": "model", "sft": "model", "drafts": "completions", "votes": "preferences", "judge": "reward",
        "judge2": "reward", "tuned": "model",
    }  # fmt: skip
    assert all(said["names"] == [what] for what, said in loop.said.items() if "kind" in said)
    said = loop.said
    assert said["sft"]["parents"] == {"base": said["base"]["id"], "data": said["world"]["demonstrations"]["id"]}
    assert said["votes"]["parents"] == {"completions": said["drafts"]["id"]}
    assert said["votes"]["meta"]["rows"] == POSTS * PAIRS
    assert said["judge2"]["parents"]["features"] == said["base"]["id"]
    assert said["tuned"]["parents"]["base"] == said["sft"]["id"]
    assert said["tuned"]["parents"]["reward"] == said["judge2"]["id"]


def test_win_rates_have_an_interval_and_count_every_prompt(loop):
    for what, n in (("gold", HELDOUT), ("best", 5)):
        found = loop.said[what]
        low, high = found["ci"]
        assert 0 <= low <= found["value"] <= high <= 1 and found["n"] == n
        assert found["wins"] + found["ties"] + found["losses"] == n


def test_runs_are_listed_shown_and_compared(loop):
    runs = loop.run("runs", "runs list")
    assert [run["stage"] for run in runs] == [
        *("pretrain", "sft", "sample", "reward", "reward", "rl", "winrate", "winrate")
    ]
    assert {run["status"] for run in runs} == {"done"}
    rl = next(run for run in runs if run["stage"] == "rl")
    shown = loop.run("run", f"runs show {rl['id']}")
    assert shown["outputs"] == {"model": loop.said["tuned"]["id"]} and shown["seed"] == 0
    assert [row["step"] for row in shown["metrics"]] == [1, 2]
    assert {"score", "kl", "drift", "ratio_gap", "gold"} <= shown["metrics"][0].keys()
    assert shown["metrics"][0]["drift"] < 1e-4 and shown["metrics"][0]["ratio_gap"] < 1e-4
    assert {"trueup", "torch", "transformers"} <= shown["versions"].keys()
    assert shown["config"]["samples_per_prompt"] == 2
    first, second = (run["id"] for run in runs if run["stage"] == "reward")
    found = loop.run("diff", f"runs diff {first} {second}")["differences"]
    assert found["config"] == {"kind": ["sequence", "features"]}
    assert found["inputs"] == {"features": [None, loop.said["base"]["id"]]}
    samples = loop.run("samples", f"runs samples {rl['id']} --rows 3")
    assert samples["steps"] == [1, 2] and len(samples["samples"]) == 3


def test_the_policy_is_followed_back_to_who_judged_and_to_the_data(loop):
    found = loop.run("lineage", "lineage tuned")
    nodes = {node["id"]: node for node in found["nodes"]}
    assert found["root"] == loop.said["tuned"]["id"]
    stages = {nodes[loop.said[what]["id"]]["run"]["stage"] for what in ("base", "sft", "drafts", "judge2", "tuned")}
    assert stages == {"pretrain", "sft", "sample", "reward", "rl"}
    votes = nodes[loop.said["votes"]["id"]]
    assert {entry["source"] for entry in votes["judgements"]} == {"simulated"}
    assert sum(entry["count"] for entry in votes["judgements"]) == POSTS * PAIRS
    assert len({entry["judge"] for entry in votes["judgements"]}) == 5
    world = loop.said["world"]
    for what in ("pretraining", "demonstrations", "candidates", "posts"):
        assert "built-in world, seed 5" in nodes[world[what]["id"]]["meta"]["source"]
    assert world["heldout"]["id"] not in nodes, "what is held out must not have been learnt from"
    assert loop.said["judge"]["id"] not in nodes
    loose = [node["id"] for node in nodes.values() if not node["sources"]]
    assert set(loose) == {world[what]["id"] for what in ("pretraining", "demonstrations", "candidates", "posts")}


def test_artifacts_are_whole_and_nothing_is_left_over(loop):
    listed = loop.run("artifacts", "artifacts list")
    assert len(listed) == 5 + 7 + 2
    assert len(loop.run("verified", "artifacts verify")["verified"]) == len(listed)
    assert loop.run("shown", "artifacts show tuned")["files"]["model.safetensors"]["bytes"] > 10_000
    assert loop.run("gc", "gc") == {"deleted": False, "bytes": 0, "leftovers": []}
    assert not list((loop.path / ".staging").iterdir())


def test_data_is_shown_as_the_model_sees_it(loop):
    found = loop.run("show", "data show world-demonstrations --model sft --rows 2")
    (before, off), (after, on) = found["shown"][0]["segments"]
    assert (off, on) == (False, True)
    assert before.startswith("POST: ") and before.endswith("\nTL;DR:") and after.endswith("<eos>")
    assert found["rows"] == 40 and found["max_tokens"] == 256 and found["summary"]["share_dropped"] == 0


def test_a_completion_set_is_shown_and_exported(loop, tmp_path):
    found = loop.run("drafts shown", "data show drafts --rows 2")
    assert found["kind"] == "completions" and found["rows"] == POSTS * DRAFTS_EACH
    assert [set(row) for row in found["shown"]] == [{"prompt", "completion"}] * 2
    seen = loop.run("drafts seen", "data show drafts --rows 1 --model sft")
    (asked, _), (answered, _) = seen["shown"][0]["segments"]
    assert asked.startswith("POST: ") and answered.endswith("<eos>") and seen["summary"]["rows"] == found["rows"]
    loop.run("drafts out", f"data export drafts {tmp_path}/drafts.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "drafts.jsonl").read_text().splitlines()]
    assert len(rows) == POSTS and {len(row["completions"]) for row in rows} == {DRAFTS_EACH}
    assert rows[0]["prompt"] == found["shown"][0]["prompt"]
    assert rows[0]["completions"][0]["text"] == found["shown"][0]["completion"]
    assert {"text", "finished", "tokens", "logprobs"} <= rows[0]["completions"][0].keys(), "raw loses nothing"


def test_an_exported_policy_is_a_plain_transformers_model_with_equal_logits(loop, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trueup.config import ModelSettings
    from trueup.models.load import load_model
    from trueup.records import Prompt

    said = loop.run("export", f"export tuned {tmp_path / 'out'}")
    assert said == {"folder": str(tmp_path / "out"), "note": ""}
    assert "simulated" in (tmp_path / "out" / "README.md").read_text()
    network, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    ours = load_model([loop.said["tuned"]["path"]], ModelSettings(device="cpu"))
    chat = [{"role": "user", "content": "My sister broke my lamp and laughed."}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert tuple(ids) == tuple(ours.encoder.prompt(Prompt.user(chat[0]["content"])))
    with torch.no_grad():
        expected = ours.network(input_ids=torch.tensor([ids])).logits
        assert torch.equal(network(input_ids=torch.tensor([ids])).logits, expected)
    start = load_model([loop.said["sft"]["path"]], ModelSettings(device="cpu"))
    with torch.no_grad():
        assert not torch.equal(start.network(input_ids=torch.tensor([ids])).logits, expected), "RL changed nothing"


def test_reward_models_are_exported_and_the_one_that_others_cannot_open_says_so(loop, tmp_path):
    from transformers import AutoModelForSequenceClassification

    assert loop.run("plain", f"export judge {tmp_path / 'plain'}")["note"] == ""
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").config.num_labels == 1
    assert "only trueup opens it" in loop.run("own", f"export judge2 {tmp_path / 'own'}")["note"]


# People's own material


ROWS = [{"question": s, "answer": t} for s, t in zip(SENTENCES, SENTENCES[3:], strict=False)]
PAIRS_OF_PEOPLE = [
    {"question": s, "best": t, "worst": "rain rain rain", "who": who, "ignored": 1}
    for who in ("ann", "bob")
    for s, t in zip(SENTENCES, SENTENCES[3:], strict=False)
]


@pytest.fixture(scope="module")
def own(tmp_path_factory, checkpoint) -> Iterator[Loop]:
    """A folder of somebody else's model and three files; the same commands, in this process."""
    folder = tmp_path_factory.mktemp("own")
    made = Loop(folder / "work")
    for name, rows in (("questions", [{"question": r["question"]} for r in ROWS]), ("answers", ROWS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS_OF_PEOPLE))
    made.said["base"], made.said["folder"] = str(checkpoint("GPT2")), folder
    with Workspace.create(made.path):
        yield made


@pytest.fixture
def run(own, capsys):
    def call(line: str) -> Any:
        capsys.readouterr()
        code = cli.run(["--workspace", str(own.path), *line.split(), "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return call


def test_the_loop_on_ones_own_model_and_data_with_lora(own, run, tmp_path):
    folder, base = own.said["folder"], own.said["base"]
    questions = run(f"data add {folder}/questions.jsonl --kind prompts --map prompt=question --name questions")
    answers = run(
        f"data add {folder}/answers.jsonl --kind demonstrations --map prompt=question,completion=answer --name answers"
    )
    pairs = run(
        f"data add {folder}/pairs.jsonl --kind preferences --heldout 0.3 --name pairs "
        "--map prompt=question,chosen=best --map rejected=worst,judge=who"
    )
    assert questions["rows"] == len(ROWS) and answers["rows"] == len(ROWS) and pairs["rows"] == len(PAIRS_OF_PEOPLE)
    assert not (questions["skipped"] or answers["skipped"] or pairs["skipped"])

    shown = run(f"data show answers --model {base} --rows 1")
    (before, _), (after, trained) = shown["shown"][0]["segments"]
    assert before == f"Prompt: {ROWS[0]['question']}\n\nAnswer:" and after == f" {ROWS[0]['answer']}<eos>" and trained
    assert len(run("artifacts list")) == 3, "looking at data notes no model"

    lora = "--threads 1 --set model.adapter=lora --set model.lora_rank=2 --set run.tensorboard=false"
    sft = run(f"train sft --base {base} --data answers --name sft --steps 2 --lr 1e-3 --set optimizer.name=muon {lora}")
    assert sft["meta"]["adapter"] is True and (Path(sft["path"]) / "adapter_model.safetensors").is_file()
    judge = run(f"train reward --base sft --data pairs --name judge --steps 2 {lora}")
    assert judge["meta"] == {"stage": "reward", "adapter": True, "scorer": "sequence"}
    tuned = run(
        "train rl --policy sft --reward judge --prompts questions --name tuned --steps 2 --prompts-per-step 4 "
        f"--samples-per-prompt 2 --set guard.evaluation_prompts=2 --set sampling.max_new_tokens=6 --lr 1e-2 {lora}"
    )
    rate = run("eval winrate tuned sft --prompts questions --judge judge --threads 1 --set sampling.max_new_tokens=6")
    assert rate["n"] == len(ROWS)

    nodes = {node["id"]: node for node in run("lineage tuned")["nodes"]}
    judged = {entry["judge"]: entry["count"] for entry in nodes[pairs["id"]]["judgements"]}
    assert judged == {"ann": len(ROWS), "bob": len(ROWS)}
    assert nodes[pairs["id"]]["meta"]["source"] == "pairs.jsonl" and questions["id"] in nodes
    (outside,) = [node for node in nodes.values() if node["kind"] == "external"]
    assert json.loads((own.path / "artifacts" / outside["id"] / "source.json").read_text())["source"] == base
    assert_opens_elsewhere(run, base, tuned, tmp_path)


def assert_opens_elsewhere(run, base: str, tuned: dict[str, Any], tmp_path: Path) -> None:
    """As a PEFT adapter on the base it came from, and merged as a plain model: both compute what trueup computes."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from trueup.config import ModelSettings
    from trueup.inputs import chain
    from trueup.models.load import load_model

    run(f"export tuned {tmp_path / 'adapter'}")
    run(f"export tuned {tmp_path / 'merged'} --merge")
    with Workspace.find(Path(tuned["path"]).parents[1]) as ws:
        ours = load_model(chain(ws, ws.get(tuned["id"])), ModelSettings(device="cpu")).network
    adapter = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ids = torch.tensor([[5, 40, 41, 42, 7]])
    with torch.no_grad():
        expected, plain = ours(input_ids=ids).logits, AutoModelForCausalLM.from_pretrained(base)(input_ids=ids).logits
        torch.testing.assert_close(adapter(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(merged(input_ids=ids).logits, expected)
        assert not torch.allclose(plain, expected, atol=1e-3), "the adapter does nothing"


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(own, run, tmp_path):
    (tmp_path / "few.jsonl").write_text(json.dumps({"prompt": "the cat", "completion": "sat"}) + "\n")
    data = run(f"data add {tmp_path / 'few.jsonl'} --kind demonstrations")
    before = run("artifacts list"), run("runs list")
    plan = run(f"train sft --base {own.said['base']} --data {data['id']} --steps 3 --dry-run")
    assert plan["config"]["steps"] == 3 and plan["makes"][0]["kind"] == "model" and plan["memory_total"]["bytes"] > 0
    assert (run("artifacts list"), run("runs list")) == before


def test_pretraining_computes_where_and_in_which_type_it_is_told(own, run, tmp_path):
    from safetensors.torch import load_file

    rows = [{"prompt": row["question"], "completion": row["answer"]} for row in ROWS]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = run(f"data add {tmp_path / 'text.jsonl'} --kind demonstrations")["id"]
    tiny = "--set architecture.hidden=16 --set architecture.layers=1 --set architecture.heads=2 --threads 1"
    line = f"train pretrain --data {data} --steps 1 --batch-size 2 {tiny} --set architecture.vocabulary=280"
    for given, expected in (("auto", "torch.float32"), ("bfloat16", "torch.bfloat16")):
        made = run(f"{line} --set model.device=cpu --set model.dtype={given}")
        weights = load_file(Path(made["path"]) / "model.safetensors")
        assert {str(tensor.dtype) for tensor in weights.values()} == {expected}


# The demo


def check_rate(rate: dict[str, Any]) -> None:
    low, high = rate["ci"]
    assert 0 <= low <= rate["value"] <= high <= 1 and isinstance(rate["n"], int) and rate["n"] > 0


def check_rests_on_judgements(path: Path, found: dict[str, Any]) -> None:
    """From the demo's final policy over its reward model to what the simulated people said, and to the posts."""
    nodes = {node["id"]: node for node in found["nodes"]}
    policy = nodes[found["root"]]
    reward = nodes[policy["sources"]["reward"]]
    votes = nodes[reward["sources"]["data"]]
    drafts = nodes[votes["sources"]["completions"]]
    with Workspace.open(path) as ws:
        names = {identity: name for name, identity in ws.names().items()}
        stored = [judgement.id for judgement in ws.judgements()]
    assert [names[node["id"]] for node in (policy, reward, votes, drafts)] == [
        "rl", "reward", "judgements", "candidates"
    ]  # fmt: skip
    assert {entry["source"] for entry in votes["judgements"]} == {"simulated"}
    assert sum(entry["count"] for entry in votes["judgements"]) == len(stored) == len(set(stored)) > 0
    assert nodes[drafts["sources"]["model"]]["run"]["stage"] == "sft"
    posts = nodes[policy["sources"]["prompts"]], nodes[drafts["sources"]["prompts"]]
    assert [names[node["id"]] for node in posts] == ["world-posts", "world-candidates"]


def test_ctrl_c_in_the_demo_says_what_can_be_gone_on_with(monkeypatch, tmp_path, capsys):
    def stopped(*arguments: Any) -> None:
        raise Interrupted("stopped at step 3 of 350", "trueup --workspace demo runs resume x")

    monkeypatch.setattr("trueup.api.demo", stopped)
    assert cli.run(["demo", str(tmp_path / "demo")]) == 130
    assert capsys.readouterr().err.splitlines() == [
        "error: stopped at step 3 of 350",
        "hint: start a new demo; of this one only the run can go on: trueup --workspace demo runs resume x",
    ]


def test_the_demo_says_all_it_should_and_the_same_again(tmp_path):
    began = time.monotonic()
    first = trueup("demo", str(tmp_path / "one"), "--quick", "--seed", "3")
    wall = time.monotonic() - began
    assert first["seed"] == 3
    assert isinstance(first["seconds"], float) and isinstance(first["cpu_seconds"], float)
    spent = sum(stage["seconds"] for stage in first["stages"])
    assert 0 < spent < first["seconds"] <= wall + 0.2 and first["cpu_seconds"] > 1
    assert all(isinstance(s["name"], str) and s["data"] and s["result"] for s in first["stages"])
    names = [stage["name"] for stage in first["stages"]]
    assert [n for n in names if n in ("pretrain", "sft", "reward", "rl")] == ["pretrain", "sft", "reward", "rl"]

    model = first["reward_model"]
    assert 0 <= model["ci"][0] <= model["accuracy"] <= model["ci"][1] <= 1
    assert 0.5 < model["ceiling"] < 1 and 0 <= model["gold_accuracy"] <= 1 and model["n"] > 0
    assert first["win_rate"].keys() == {"rl_vs_sft", "rl_vs_sft_greedy", "rl_vs_best_of_n"}
    for rate in first["win_rate"].values():
        check_rate(rate)
    assert isinstance(first["kl"], float) and first["peak_memory_mib"] < 2048
    assert "simulated" in first["people"] and len(first["commands"]) == 3

    page = Path(first["report"])
    text = page.read_text(encoding="utf-8")
    assert page.parent == Path(first["workspace"]) == tmp_path / "one"
    assert "<svg" in text and "http://" not in text.replace("http://www.w3.org", "") and "simulated" in text
    assert trueup("runs", "list", where=tmp_path / "one")
    rl = next(stage for stage in first["stages"] if stage["name"] == "rl")
    assert rl["result"] == f"held-out KL {first['kl']:.2f} nats a summary", "one figure for one thing"
    check_rests_on_judgements(tmp_path / "one", trueup("lineage", "rl", where=tmp_path / "one"))

    # Elsewhere, and with the exhibit after it: everything before it must come out the same, to the last bit.
    again = trueup("demo", str(tmp_path / "two"), "--quick", "--seed", "3", "--overopt")
    assert again["over_optimisation"]["weak"]["gold"]
    for key in ("win_rate", "win_rates", "kl", "reward_model", "reward_models", "gold_scores", "samples", "curves"):
        assert again[key] == first[key], key
    with Workspace.open(tmp_path / "one") as one, Workspace.open(tmp_path / "two") as two:
        assert {"pretrain", "sft", "reward", "reward-plain", "rl"} <= one.names().keys()
        assert one.names().items() <= two.names().items()


def test_the_clock_of_the_demo_starts_with_its_process():
    code = "import time; time.sleep(0.7); from trueup.demonstrate import _seconds_since_start as s; print(s())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=QUIET)
    assert 0.7 <= float(done.stdout) < 60
