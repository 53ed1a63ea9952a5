"""Whatever people give that cannot work: one `error:` line that says where, one `hint:` line, exit 1, nothing left.

Every command goes through the command line's own entry point. `refused` looks at all of it each time: the lines, the
exit code, and that artifacts, names, runs and the staging folder are what they were before.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from small import SENTENCES

from trueup import api, inputs, loading
from trueup.cli import main as cli
from trueup.comparing import JUDGES
from trueup.config import RlConfig, Sampling, SftConfig
from trueup.errors import ConfigError, TrueupError
from trueup.inputs import INPUTS
from trueup.records import Completion, Demonstration, Judgement, Prompt
from trueup.runs import Run, runs
from trueup.store import Workspace

TRAIN = "--threads 1 --set run.tensorboard=false --set model.adapter=none"
TINY = " ".join(f"--set architecture.{size}" for size in ("hidden=16", "layers=1", "heads=2", "vocabulary=280"))
SHORT = "--threads 1 --set sampling.max_new_tokens=4"
RL = f"--set sampling.max_new_tokens=4 --steps 1 --prompts-per-step 2 --samples-per-prompt 2 --epochs 1 {TRAIN}"
PROMPTS = [Prompt.user(text) for text in SENTENCES[:8]]
LONG = Prompt.user(" ".join(SENTENCES * 3))  # far more than the 96 tokens that the model reads
KINDS = ("model", "external", "reward", "prompts", "demonstrations", "preferences", "completions", "evaluation")


def vote(prompt: Prompt, number: int, *, tie: bool = False, split: str = "") -> dict[str, Any]:
    ranks = (1, 1) if tie else (1, 2)
    split = split or ("heldout" if number % 3 == 0 else "train")
    return Judgement(prompt, ("the cat sat", "rain rain"), ranks, "ann", "human", str(number), split).to_json()


@pytest.fixture(scope="module")
def ws(tmp_path_factory, checkpoint, make_model) -> Iterator[Workspace]:
    """One artifact of every kind, named after it. All models are the same random Llama with a context of 96 tokens."""
    from trueup.config import ModelSettings
    from trueup.models.load import new_reward, save_model, save_reward

    with Workspace.create(tmp_path_factory.mktemp("bad") / "work") as made:
        with made.staging() as folder:
            save_model(make_model(), folder)
            model = made.put("model", folder, name="model", meta={"stage": "sft", "adapter": False})
        with made.staging() as folder:
            save_reward(new_reward("sequence", [str(model.path)], ModelSettings(adapter="none", device="cpu")), folder)
            made.put("reward", folder, name="reward", parents={"base": model}, meta={"scorer": "sequence"})
        made.set_name("external", inputs.resolve_model(made, str(checkpoint("Llama"))))
        rows: dict[str, list[dict[str, Any]]] = {
            "prompts": [p.to_json() for p in PROMPTS],
            "demonstrations": [Demonstration(p, "the red house").to_json() for p in PROMPTS],
            "preferences": [vote(p, i) for i, p in enumerate(PROMPTS)],
            "completions": loading.completion_rows([Completion(p, "rain") for p in PROMPTS]),
        }
        for kind, each in rows.items():
            loading.put_records(made, kind, each, name=kind)
        made.put("evaluation", {"rows.jsonl": b"{}\n", "result.json": b"{}"}, name="evaluation")
        yield made


@pytest.fixture
def put(ws) -> Callable[..., str]:
    """`put("prompts", [...])`: the id of a new data artifact."""

    def call(kind: str, rows: Sequence[dict[str, Any]]) -> str:
        return loading.put_records(ws, kind, rows).id

    return call


def state(ws: Workspace) -> tuple[object, ...]:
    staged = sorted(path.name for path in (ws.path / ".staging").iterdir())
    folders = sorted(path.name for place in ("artifacts", "runs") for path in (ws.path / place).iterdir())
    return [a.id for a in ws.artifacts()], [run.id for run in runs(ws)], ws.names(), folders, staged


def check_lines(err: str, says: str, hint: str) -> None:
    """`error: ...`, one line a mistake, `hint: ...`; nothing else."""
    *errors, last = err.splitlines()
    assert errors and all(line.startswith("error: ") and len(line) > 10 for line in errors), err
    assert last.startswith("hint: ") and len(last) > 10, err
    assert "this is a bug of trueup" not in err and "Traceback" not in err
    assert says in err.rpartition("hint: ")[0] and hint in last, err


@pytest.fixture
def refused(ws, capsys):
    """Run a command line that must be refused, before a run is recorded."""

    def call(line: str, *more: str, says: str, hint: str = "") -> None:
        before = state(ws)
        capsys.readouterr()
        code = cli.run(["--workspace", str(ws.path), *line.split(), *more])
        out, err = capsys.readouterr()
        assert (code, out) == (1, ""), (out, err)
        check_lines(err, says, hint)
        assert state(ws) == before

    return call


@pytest.fixture
def fails(ws, capsys):
    """Run a command line that can only be known to fail once its run has begun: the run says so and made nothing."""

    def call(line: str, *, says: str, hint: str = "") -> Run:
        artifacts, before, names, _, _ = state(ws)
        capsys.readouterr()
        code = cli.run(["--workspace", str(ws.path), *line.split()])
        out, err = capsys.readouterr()
        assert (code, out) == (1, ""), (out, err)
        check_lines(err, says, hint)
        run = runs(ws)[-1]
        assert [r.id for r in runs(ws)] == [*before, run.id]
        assert run.status == "failed" and says in run.row.error and not run.outputs
        assert (state(ws)[0], state(ws)[2], state(ws)[4]) == (artifacts, names, [])
        return run

    return call


@pytest.fixture
def works(ws, capsys):
    def call(line: str) -> Any:
        capsys.readouterr()
        code = cli.run(["--workspace", str(ws.path), *line.split(), "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return call


def last_run(ws: Workspace) -> Run:
    return runs(ws)[-1]


# Data files


GOOD = '{"prompt": "the cat", "completion": "sat"}\n'


@pytest.mark.parametrize(
    ("name", "content", "says", "hint"),
    [
        ("rows.jsonl", GOOD + "not json\n" + GOOD, "rows.jsonl:2: not JSON", "nothing was imported"),
        ("rows.jsonl", GOOD + '{"prompt": "cut', "rows.jsonl:2: not JSON", "one JSON object"),
        ("rows.jsonl", "[1, 2]\n", "rows.jsonl:1: a JSON list, not an object", "{...}"),
        ("rows.jsonl", GOOD.encode() + b'{"prompt": "caf\xe9"}\n', "rows.jsonl:2: bad encoding", "UTF-8"),
        ("rows.jsonl", "", "there are no rows in it", "data add --help"),
        ("rows.jsonl", '{"prompt": "the cat"}\n', "columns 'prompt' are not demonstrations", "--map completion=COLUMN"),
        ("rows.jsonl", '{"prompt": "a", "summary": "b"}\n', "are not demonstrations", "--map completion=summary"),
        ("rows.jsonl", '{"prompt": "a", "completion": " "}\n' * 3, "no usable row among 3: 3 x empty completion", ":1"),
        ("rows.json", '[{"prompt": "a"},\n{"prompt": }]', "rows.json:2: not JSON", "mend"),
        ("rows.json", '{"prompt": "a"}', "not an array", "[{...}"),
        ("rows.csv", "prompt,completion\na,b\nc,d,e\n", "rows.csv:3: more values than columns", "quote"),
        ("rows.jsonl.gz", gzip.compress(GOOD.encode() * 50, mtime=0)[:-20], "broken gzip", "again"),
        ("rows.parquet", b"PAR1 but not really", "not Parquet", "written to the end"),
        ("rows.xlsx", b"", "files ending in '.xlsx' are not read", "convert it"),
    ],
)
def test_a_data_file_that_cannot_be_used(name, content, says, hint, refused, tmp_path):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(f"data add {tmp_path / name} --kind demonstrations --name demos", says=says, hint=hint)


def test_a_data_file_that_is_not_there(refused, tmp_path):
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    refused(f"data add {tmp_path}/promts.jsonl --kind prompts", says="no such file (did you mean 'prompts.jsonl'?)")
    refused(f"data add {tmp_path} --kind prompts", says="a folder that datasets.save_to_disk did not write")


def test_a_mapping_to_what_is_not_there(refused, tmp_path):
    (tmp_path / "rows.jsonl").write_text(GOOD)
    line = f"data add {tmp_path}/rows.jsonl --kind demonstrations --map"
    refused(f"{line} prompt=promt", says="there is no column 'promt' (did you mean 'prompt'?)", hint="columns: ")
    refused(f"{line} chosen=prompt", says="demonstrations have no field 'chosen'", hint="fields: ")


def test_rows_that_are_no_use_are_left_out_counted_and_listed(works, tmp_path):
    rows = [
        {"prompt": "the cat", "completion": "sat"},
        {"prompt": "the cat", "completion": ""},
        {"prompt": "the cat"},
        {"prompt": "half \ud800 a pair", "completion": "sat"},
        {"prompt": "the cat", "completion": "sat \udc00"},
        {"prompt": {"messages": [{"role": "user", "content": "hi"}], "meta": {"tag": "\ud800"}}, "completion": "sat"},
        {"prompt": {"messages": [{"role": "user", "content": "hi"}], "meta": {"n": float("nan")}}, "completion": "x"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = works(f"data add {tmp_path}/rows.jsonl --kind demonstrations")
    assert found["rows"] == 1 and found["meta"]["skipped"] == 6
    assert [skipped["where"].rpartition(":")[2] for skipped in found["skipped"]] == [*"234567"]
    reasons = [skipped["reason"] for skipped in found["skipped"]]
    assert reasons[:2] == ["empty completion", "missing 'completion'"]
    assert all(reason.startswith("bad encoding: ") for reason in reasons[2:5])
    assert reasons[5].startswith("'meta' cannot be stored as JSON")


def test_half_characters_in_a_preference_row_are_left_out_wherever_they_are(works, tmp_path):
    fields = ("prompt", "chosen", "rejected", "judge", "id")
    good = {"prompt": "the cat", "chosen": "sat", "rejected": "ran", "judge": "ann", "id": 7}
    rows = [good, *({**good, field: "x\ud800"} for field in fields)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = works(f"data add {tmp_path}/rows.jsonl --kind preferences")
    assert found["rows"] == 1
    assert [s["reason"] for s in found["skipped"]] == [
        f"bad encoding: '{field}' has half a surrogate pair" for field in fields
    ]


# Too long for the model


def test_sft_leaves_out_what_is_too_long_and_counts_it(ws, put, works, fails):
    data = put("demonstrations", [Demonstration(p, "sat").to_json() for p in (*PROMPTS, LONG)])
    works(f"train sft --base model --data {data} --steps 1 --batch-size 2 {TRAIN}")
    assert last_run(ws).result["dropped"] == 1
    data = put("demonstrations", [Demonstration(LONG, "sat").to_json()])
    fails(
        f"train sft --base model --data {data} --steps 1 {TRAIN}",
        says=f"no demonstration is left to train on: 0 held out; 1 of 1 rows of {data} left out: longer than 96 tokens "
        f"(first: row 1, '{LONG.text[:60]}...')",
        hint="raise max_tokens, or use a model with a longer context",
    )


def test_a_row_longer_than_the_context_cannot_be_asked_for(refused):
    for stage, data in (("sft", "demonstrations"), ("reward", "preferences")):
        refused(
            f"train {stage} --base model --data {data} --max-tokens 97 --steps 1 {TRAIN}",
            says="max_tokens is 97, but the model's context is 96",
            hint="leave it out",
        )


def test_sampling_leaves_out_a_prompt_that_does_not_fit_and_says_so(ws, put, works, fails, capsys, monkeypatch):
    monkeypatch.setenv("TRUEUP_QUIET", "0")
    prompts = put("prompts", [p.to_json() for p in (*PROMPTS, LONG)])
    line = f"--workspace {ws.path} sample --model model --prompts {prompts} {SHORT}"
    said = f"1 of 9 prompts of {prompts} left out: longer than 92 tokens (first: row 9, '{LONG.text[:60]}...')"
    assert cli.run(line.split()) == 0
    assert f"note: sample: {said}\n" in capsys.readouterr().err
    assert last_run(ws).result["prompts"] == 8 and last_run(ws).result["dropped"] == 1
    (event,) = last_run(ws).events()
    assert event["reason"] == said
    assert event["rows"] == [{"row": 9, "prompt": LONG.id, "text": LONG.text[:60] + "..."}]
    fails(
        "sample --model model --prompts prompts --threads 1 --set sampling.max_new_tokens=96",
        says="no prompt leaves room for 96 new tokens; 8 of 8 prompts of",
        hint="lower sampling.max_new_tokens",
    )


def test_a_win_rate_is_over_the_prompts_that_both_sides_can_read(ws, put, works):
    prompts = put("prompts", [p.to_json() for p in (*PROMPTS, LONG)])
    found = works(f"eval winrate model model --prompts {prompts} --judge reward {SHORT}")
    assert found["n"] == 8 and found["dropped"] == 1 and last_run(ws).events()[0]["kind"] == "left out"


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("sft", "2 of 10 rows of {} left out: longer than 96 tokens (first: row 2, "),
        ("pretrain", "2 of 10 rows of {} left out: longer than 200 tokens (first: row 2, "),
        ("reward", "1 of 9 prompts of {} left out: longer than 96 tokens (first: row 2, "),
        ("rl", "1 of 9 prompts of {} left out: longer than 92 tokens (first: row 2, "),
    ],
)
def test_training_says_what_it_leaves_out_and_in_which_unit(stage, says, ws, put, capsys, monkeypatch):
    monkeypatch.setenv("TRUEUP_QUIET", "0")
    first, *others = PROMPTS
    asked = [first, LONG, *others]
    shown = [Demonstration(p, "sat").to_json() for p in (first, LONG, LONG, *others)]
    if stage == "rl":
        data = put("prompts", [p.to_json() for p in asked])
        line = f"train rl --policy model --reward reward --prompts {data} {RL}"
    elif stage == "reward":
        data = put("preferences", [vote(p, i) for i, p in enumerate(asked)])
        line = f"train reward --base model --data {data} --steps 1 {TRAIN}"
    else:
        data = put("demonstrations", shown)
        line = f"train {stage} --data {data} --steps 1 --batch-size 2 --threads 1 --set run.tensorboard=false "
        line += "--base model" if stage == "sft" else TINY + " --set architecture.context=200"
    assert cli.run(["--workspace", str(ws.path), *line.split()]) == 0
    said = says.format(data)
    (note,) = [n for n in capsys.readouterr().err.splitlines() if n.startswith("note: ") and "left out" in n]
    assert note.startswith(f"note: {stage}: {said}")
    (event,) = [event for event in last_run(ws).events() if event["kind"] == "left out"]
    assert event["rows"] == [{"row": 2, "prompt": LONG.id, "text": LONG.text[:60] + "..."}]
    assert last_run(ws).result["dropped"] == int(said[0])


def test_rl_leaves_out_what_is_too_long_and_counts_it_and_needs_something_left(ws, put, works, fails):
    prompts = put("prompts", [p.to_json() for p in (*PROMPTS, LONG)])
    works(f"train rl --policy model --reward reward --prompts {prompts} {RL}")
    assert last_run(ws).result["dropped"] == 1
    prompts = put("prompts", [LONG.to_json()])
    fails(
        f"train rl --policy model --reward reward --prompts {prompts} {RL}",
        says=f"no prompt leaves room for 4 new tokens; 1 of 1 prompts of {prompts} left out: longer than 92 tokens",
        hint="lower sampling.max_new_tokens",
    )


def test_rl_leaves_out_what_the_reward_model_could_not_read(ws, make_model, put, works):
    """Found out before the first step, not when such a prompt happens to be drawn."""
    from trueup.config import ModelSettings
    from trueup.models.load import new_reward, save_model, save_reward

    with ws.staging() as folder, ws.staging() as scores:
        save_model(make_model(max_position_embeddings=32), folder)
        save_reward(new_reward("sequence", [str(folder)], ModelSettings(adapter="none", device="cpu")), scores)
        short = ws.put("reward", scores, meta={"scorer": "sequence"}).id
    prompts = put("prompts", [p.to_json() for p in (Prompt.user("rain"), Prompt.user("birds sang"), *PROMPTS)])
    works(f"train rl --policy model --reward {short} --prompts {prompts} {RL}")
    assert last_run(ws).result["dropped"] == len(PROMPTS)


def test_reward_leaves_out_what_is_too_long_on_either_side_and_counts_it(ws, put, works):
    rows = [vote(p, i) for i, p in enumerate(PROMPTS)]
    rows += [vote(LONG, 90, split="train"), vote(Prompt.user(LONG.text + "!"), 91, split="heldout")]
    works(f"train reward --base model --data {put('preferences', rows)} --steps 1 {TRAIN}")
    assert last_run(ws).result["dropped"] == 2 and last_run(ws).result["n"] == 3


# Models


def test_a_model_that_is_not_there(refused):
    for line in ("train sft --data demonstrations --base", "sample --prompts prompts --model"):
        refused(f"{line} modell", says="no artifact 'modell' (near: model)", hint="artifacts list")
        refused(f"{line} gpt2", says="no artifact 'gpt2'", hint="a model on the hub is OWNER/NAME")
        for nowhere in ("./nowhere", "/no/such/dir", "~/nowhere"):
            refused(f"{line} {nowhere}", says=f"there is no folder {nowhere}", hint="check the path")
        refused(f"{line} nobody/nothing", says="cannot read the config of 'nobody/nothing'", hint="reachable or cached")
    refused("export nobody/nothing out", says="cannot read the config of 'nobody/nothing'")


@pytest.fixture
def folder(ws, tmp_path) -> Path:
    """A copy of a good model's folder, to be damaged."""
    shutil.copytree(ws.get("model").path, tmp_path / "folder", copy_function=shutil.copyfile)
    return tmp_path / "folder"


def test_a_folder_that_is_no_model(refused, folder):
    line = f"train sft --base {folder} --data demonstrations"
    (folder / "adapter_config.json").write_text("{}")
    refused(line, says="holds a PEFT adapter, not a whole model", hint="merge it")
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").write_text("{")
    refused(line, says=f"cannot read the config of '{folder}'")
    (folder / "config.json").unlink()
    refused(line, says=f"cannot read the config of '{folder}'", hint="config.json")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "cannot load a model from"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "cannot load a model from"),
        (lambda f: (f / "model.safetensors").write_bytes(b"garbage" * 9), "cannot load a model from"),
        (lambda f: (f / "tokenizer.json").unlink(), "cannot load a tokenizer from"),
    ],
    ids=["no weights", "pickled weights", "damaged weights", "no tokenizer"],
)
def test_a_model_that_cannot_be_loaded(ws, damage, says, folder, capsys):
    """Its config is good, so that only the run finds out; what it points to is noted, for the run names it."""
    damage(folder)
    before = {a.id for a in ws.artifacts()}
    capsys.readouterr()
    line = f"--workspace {ws.path} train sft --base {folder} --data demonstrations --steps 1 {TRAIN}"
    assert cli.run(line.split()) == 1
    check_lines(capsys.readouterr().err, says, "")
    (noted,) = [a for a in ws.artifacts() if a.id not in before]
    run = last_run(ws)
    assert noted.kind == "external" and run.row.inputs["base"] == noted.id and run.status == "failed"


def test_a_model_elsewhere_that_has_changed_since(refused, works, folder):
    works(f"train sft --base {folder} --data demonstrations --steps 1 --name tuned {TRAIN} --set model.adapter=lora")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x01\x02\x03\x04")
    line = f"sample --model tuned --prompts prompts {SHORT}"
    refused(line, says=f"the model in {folder} is not the one it was", hint="name the folder again")
    shutil.rmtree(folder)
    refused(line, says=f"the model in {folder} is not the one it was")


# The wrong thing in the right place


TABLE = ("prompts", "judge", "reference", "text", "measure")
ROLES = [(stage, role) for stage, roles in INPUTS.items() for role in roles if role not in ("asked", "verdicts")]


def line_of(stage: str, **changed: str) -> str:
    """A command line of a stage that would work, but for `changed`."""
    given = {role: next(kind for kind in KINDS if kind in kinds) for role, kinds in INPUTS[stage].items()} | changed
    if stage == "winrate":
        models = " ".join(given.pop(role) for role in ("a", "b", "other"))
        start = f"eval winrate {models} --best-of 2"
        given = {role: ref for role, ref in given.items() if role not in ("asked", "verdicts")}
    else:
        start = "sample --best-of 2" if stage == "sample" else f"train {stage}"
        start += " --kind features" if stage == "reward" else ""
    if stage == "compare":
        start = f"eval compare {given.pop('a')} {given.pop('other')}"
        given = {key: f"m={ref}" if key == "measure" else ref for key, ref in given.items() if key in TABLE}
    if stage == "safety":
        start = f"eval safety {given.pop('model')} {given.pop('before')}"
        given = {"prompts": given["prompts"]}
    if stage == "dpo":  # judgements, or rounds that make their own
        online = bool({"reward", "prompts", "judge"} & set(changed))
        start += " --online" if online else ""
        given = {role: ref for role, ref in given.items() if role == "policy" or (role == "data") != online}
    return " ".join([start, *(f"--{role} {ref}" for role, ref in given.items())])


@pytest.mark.parametrize(("stage", "role"), ROLES, ids=lambda part: part)
def test_an_input_of_the_wrong_kind_is_refused_before_there_is_a_run(stage, role, refused):
    able = JUDGES if role == "judge" and stage in ("winrate", "compare") else INPUTS[stage][role]
    wrong, called = (
        [kind for kind in KINDS if kind not in able],
        {"other": "other.1", "measure": "measure.m"}.get(role, role),
    )
    assert wrong
    for kind in wrong:
        refused(line_of(stage, **{role: kind}), says=f"'{kind}' is of kind '{kind}', but the input '{called}' takes ")


def test_a_reward_model_writes_nothing_and_a_policy_scores_nothing(ws, refused):
    reward, model = ws.get("reward").path, ws.get("model").path
    for line in (
        f"train sft --base {reward} --data demonstrations",
        f"train rl --policy {reward} --reward reward --prompts prompts",
        f"sample --model {reward} --prompts prompts",
    ):
        refused(line, says="it scores text and writes none", hint="causal language model")
    refused(f"train rl --policy model --reward {model} --prompts prompts", says="not a reward model", hint="reward")
    refused("train rl --policy model --reward external --prompts prompts", says="not a reward model")


def test_other_things_that_do_not_go_together(refused, ws):
    refused("feedback simulate prompts", says="is of kind 'prompts', not 'completions'")
    refused("feedback simulate completions", says="only judge posts of the built-in world", hint="data world")
    post = Prompt.user("a post", world={})
    alone = loading.put_records(ws, "completions", loading.completion_rows([Completion(post, "one")])).id
    refused(f"feedback simulate {alone}", says="1 of the 1 prompts have one completion only", hint="per_prompt of 2")
    assert not list(ws.judgements())
    refused("data show model", says="not data")
    refused(
        "data export completions out.csv --format trl-preference",
        says="completions cannot be written as trl-preference",
        hint="raw",
    )
    refused("export prompts out", says="is of kind 'prompts'")
    refused("eval winrate model model --prompts prompts --judge reward --best-of 4", says="needs a reward model")
    refused("eval winrate model model --prompts prompts --judge reward --reward reward", says="needs best_of above 1")
    refused(f"eval winrate model model --prompts prompts --judge gold {SHORT}", says="have no gold score", hint="name")


def test_a_bad_name_is_refused_before_the_work_and_not_after_it(refused, tmp_path):
    for line in (
        f"train sft --base model --data demonstrations {TRAIN}",
        "sample --model model --prompts prompts",
        "feedback simulate completions",
    ):
        refused(line, "--name", "my model", says="'my model' cannot be a name", hint="use letters")
    (tmp_path / "rows.jsonl").write_text(GOOD)
    refused(f"data add {tmp_path}/rows.jsonl --kind prompts --name ../x", says="cannot be a name")


# Settings


def test_every_mistake_in_the_settings_is_named_at_once(refused, tmp_path):
    (tmp_path / "rl.toml").write_text("cilp = 0.1\n[sampling]\ntop_p = 0.9\n[optimiser]\nlr = 1\n")
    line = "train rl --policy model --reward reward --prompts prompts"
    more = ["--config", str(tmp_path / "rl.toml"), "--steps", "many", "--set", "optimizer.lerning_rate=1"]
    for says in (
        "5 settings of stage 'rl' are wrong",
        "rl.toml:1: unknown key 'cilp' (did you mean 'clip'?)",
        "rl.toml:5: unknown key 'optimiser.lr' (it is 'optimizer.lr')",
        "--steps: steps must be an integer at least 1, not 'many'",
        "unknown key 'optimizer.lerning_rate' (did you mean 'optimizer.",
        "sampling.top_p must be 1 in RL",
    ):
        refused(line, *more, says=says, hint="docs/settings.md")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "x.toml: cannot be read"),
        ("steps = = 1", "x.toml:1: not valid TOML"),
        ("\xff", "x.toml: cannot be read: not UTF-8 text"),
    ],
)
def test_a_settings_file_that_cannot_be_read(content, says, refused, tmp_path):
    if content is not None:
        (tmp_path / "x.toml").write_bytes(content.encode("latin-1"))
    refused(f"train sft --base model --data demonstrations --config {tmp_path}/x.toml", says=says)


def test_a_config_object_is_checked_like_a_file(ws):
    before = state(ws)
    given = {"policy": "model", "reward": "reward", "prompts": "prompts"}
    with pytest.raises(ConfigError, match="top_p must be 1 in RL"):
        api.rl(ws, **given, config=RlConfig(sampling=Sampling(top_p=0.5)))
    with pytest.raises(ConfigError, match="takes a RlConfig, not a SftConfig"):
        api.rl(ws, **given, config=SftConfig())
    with pytest.raises(ConfigError, match="not both"):
        api.rl(ws, **given, config=RlConfig(), steps=3)
    with pytest.raises(ConfigError, match="only with kind = 'features'"):
        api.reward(ws, base="model", data="preferences", features="model")
    assert state(ws) == before


# Little data


def test_one_judge_is_enough(ws, works):
    works(f"train reward --base model --data preferences --steps 1 {TRAIN}")
    assert last_run(ws).result["n"] == 3


def test_ties_alone_teach_nothing(put, fails, ws, works):
    rows = [vote(p, i, tie=True) for i, p in enumerate(PROMPTS)]
    line = "train reward --base model --steps 1 --batch-size 4"
    fails(f"{line} --data {put('preferences', rows)} {TRAIN}", says="every judgement to train on is a tie", hint="data")
    decided = put("preferences", [*rows, vote(Prompt.user("rain"), 99, split="train")])
    works(f"{line} --data {decided} {TRAIN}")
    assert "accuracy" not in last_run(ws).result, "no held-out judgement has a better side"


def test_everything_held_out_leaves_nothing_to_train_on(put, fails):
    rows = [vote(p, i, split="heldout") for i, p in enumerate(PROMPTS)]
    fails(
        f"train reward --base model --data {put('preferences', rows)} {TRAIN}", says="no judgement is left to train on"
    )


def test_fewer_prompts_than_a_batch_and_too_few_to_hold_any_out(ws, put, works):
    prompts = put("prompts", [p.to_json() for p in PROMPTS[:3]])
    made = works(
        f"train rl --policy model --reward reward --prompts {prompts} --steps 2 --prompts-per-step 5 "
        f"--samples-per-prompt 2 --set sampling.max_new_tokens=4 {TRAIN}"
    )
    run = last_run(ws)
    assert run.outputs["model"].id == made["id"] and run.result["best_step"] == 2
    none_held, few = run.events()[:2]
    assert none_held["kind"] == "no evaluation" and few["kind"] == "few prompts"
    assert (few["prompts"], few["a_step"]) == (3, 5) and "3 prompts to learn on are fewer than the 5" in few["reason"]
    assert not any("heldout_score" in row for row in run.metrics())
    assert len(run.samples(1)) == 10


@pytest.mark.parametrize(("a_step", "says"), [(8, False), (9, True)])
def test_a_dry_run_says_that_prompts_are_fewer_than_a_batch(ws, put, capsys, monkeypatch, a_step, says):
    """Of ten prompts two are held out. Nothing else is said, and there is no run."""
    monkeypatch.delenv("TRUEUP_QUIET")
    prompts, before = put("prompts", [Prompt.user(f"rain {i}").to_json() for i in range(10)]), len(runs(ws))
    line = f"train rl --policy model --reward reward --prompts {prompts} --prompts-per-step {a_step} --dry-run --json"
    assert cli.run(["--workspace", str(ws.path), *line.split()]) == 0
    told = capsys.readouterr().err
    assert ("8 prompts to learn on are fewer than the 9 of a step" in told) == says and len(runs(ws)) == before


# Runs


def test_runs_that_cannot_be_taken_up(ws, refused, works):
    refused("runs resume nothing", says="no run 'nothing'")
    works(f"train sft --base model --data demonstrations --steps 1 {TRAIN}")
    refused(f"runs resume {last_run(ws).id}", says="is finished", hint="start a new run")


def test_a_python_caller_gets_the_same_message_and_hint(ws):
    with pytest.raises(TrueupError) as caught:
        api.sft(ws, base=ws.get("reward"), data="demonstrations")
    assert "but the input 'base' takes model or external" in caught.value.message and caught.value.hint


# In a process of its own


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("data add {bad} --kind prompts", "bad.jsonl:1: not JSON"),
        ("train sft --base nobody/nothing --data demonstrations", "nobody/nothing"),
    ],
)
def test_the_program_itself_exits_with_1_and_shows_two_lines(line, says, ws, tmp_path):
    (tmp_path / "bad.jsonl").write_text("nope\n")
    words = line.format(bad=tmp_path / "bad.jsonl").split()
    command = [sys.executable, "-m", "trueup", "--workspace", str(ws.path), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert (done.returncode, done.stdout) == (1, "")
    check_lines(done.stderr, says, "")
    assert len(done.stderr.splitlines()) == 2


def test_settings_for_a_judge_that_is_not_asked_are_not_ignored(ws, refused, tmp_path):
    (tmp_path / "g.md").write_text("Be kind.")
    prompts = "--prompts prompts"
    line = f"eval winrate completions model {prompts} --judge reward"
    refused(f"{line} --guideline {tmp_path}/g.md", says="asked has a meaning only with a language model as the judge")
    refused(f"{line} --set remote.tries=2", says="remote has a meaning only with a model behind a server")
    refused(f"sample --model model {prompts} --set remote.tries=2", says="remote has a meaning only with")
    refused(f"eval safety model {prompts} --set asked.tries=2", says="asked has a meaning only with a language model")
    refused(f"eval compare model completions {prompts} --set text_limit=5", says="text_limit has a meaning only with")
