"""The command line: help without torch, exit codes, stdout and stderr, and the commands that need no model.

Commands that train are tested here as far as the library's functions: those are replaced by ones with the same
signature that remember what they were called with.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import create_autospec

import click
import pytest

from trueup import api
from trueup.cli import main as cli
from trueup.cli.command import Command
from trueup.cli.demo import free_folder
from trueup.cli.text import named, table, to_json
from trueup.config import STAGES, RewardConfig, RlConfig, SampleConfig, WinrateConfig, as_toml, load
from trueup.config.keys import settings
from trueup.errors import DataError, Interrupted
from trueup.records import Prompt
from trueup.runs import Run
from trueup.store import Workspace

ROOT = Path(__file__).resolve().parents[1]
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "TRUEUP_WORKSPACE": "", "TRUEUP_DEBUG": ""}


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


COMMANDS = dict(walk(cli.root))


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No workspace around, and no debugging."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRUEUP_WORKSPACE", raising=False)
    monkeypatch.delenv("TRUEUP_DEBUG", raising=False)


@pytest.fixture
def trueup(capsys):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUEUP_WORKSPACE", str(tmp_path / "work"))
    with Workspace.create(tmp_path / "work") as made:
        yield made


def python(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=QUIET, **options)


# Help


HELP_OF_ALL = """
import json, sys
from trueup.cli.main import run
for path in json.loads(sys.argv[1]):
    assert run([*path, "--help"]) == 0, path
heavy = {"torch", "transformers", "peft", "datasets", "pandas"} & set(sys.modules)
assert not heavy, heavy
"""


def test_every_help_page_is_there_without_importing_torch():
    done = python("-c", HELP_OF_ALL, json.dumps(list(COMMANDS)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: trueup") == len(COMMANDS)


@pytest.mark.parametrize("command", [("trueup", "--help"), ("trueup", "train", "rl", "--help")])
def test_help_takes_less_than_two_seconds(command):
    def seconds() -> float:
        start = time.monotonic()
        assert python("-m", *command).returncode == 0
        return time.monotonic() - start

    assert min(seconds() for _ in range(2)) < 2  # the better of two: the first may have to compile


def test_looking_at_runs_and_artifacts_needs_no_torch_either(ws):
    code = (
        "import sys; from trueup.cli.main import run; "
        "assert run(['runs', 'list']) + run(['artifacts', 'list']) + run(['gc']) == 0; "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**QUIET, "TRUEUP_WORKSPACE": str(ws.path)})
    assert done.returncode == 0


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_page_says_what_it_does_and_has_examples_that_parse(path, trueup):
    code, out, err = trueup(*path, "--help")
    assert code == 0 and err == ""
    command = COMMANDS[path]
    assert command.help and command.help.strip().splitlines()[0].endswith((".", ":")), "the first line is a sentence"
    examples = [line.strip() for line in out.partition("Examples:\n")[2].splitlines()]
    assert examples
    for example in examples:
        words = shlex.split(example.replace("--workspace work ", ""))
        assert words[0] == "trueup" and (not path or words[1 : 1 + len(path)] == list(path)), example
        assert_parses(words[1:])


def assert_parses(words: list[str]) -> None:
    """Every option and argument of an example is known to the command, and none that is required is missing."""
    command: click.Command = cli.root
    context = click.Context(cli.root, info_name="trueup")
    while isinstance(command, click.Group):
        context = command.make_context(context.info_name, words, parent=context.parent)
        name, child, words = command.resolve_command(context, [*context._protected_args, *context.args])
        command = child
        context = click.Context(command, parent=context, info_name=name)
    command.make_context(context.info_name, words, parent=context.parent)


@pytest.mark.parametrize("path", [path for path, c in COMMANDS.items() if not isinstance(c, click.Group)], ids=" ".join)
def test_every_command_can_print_json(path, trueup):
    assert isinstance(COMMANDS[path], Command)
    assert "--json" in trueup(*path, "--help")[1]


@pytest.mark.parametrize("page", ["commands.md", "settings.md"])
def test_the_generated_pages_are_up_to_date(page):
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.pages()[ROOT / "docs" / page]
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == text, f"docs/{page} is stale: `make docs` writes it"


def test_the_page_of_commands_has_every_command():
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    missing = [path for path in COMMANDS if f"## `{' '.join(('trueup', *path))}`\n" not in text]
    assert not missing


# Options made from the schema


@pytest.mark.parametrize(
    ("stage", "path"),
    [(s, ("train", s)) for s in ("pretrain", "sft", "reward", "rl", "dpo", "kto", "ilql")]
    + [("sample", ("sample",)), ("winrate", ("eval", "winrate"))],
)
def test_every_own_setting_of_a_stage_is_a_flag(stage, path):
    flags = {flag for param in COMMANDS[path].params for flag in param.opts}
    own = {s.name for s in settings(STAGES[stage]).values() if not s.table and not s.kind.is_list}
    assert {"--" + name.replace("_", "-") for name in own} <= flags
    assert {"--seed", "--threads", "--set", "--config", "--json"} <= flags
    assert ("--lr" in flags) == ("optimizer.lr" in settings(STAGES[stage]))


@pytest.fixture
def called(monkeypatch, ws):
    """Replaces a function of the library by one with its signature; returns the mock and the artifact it 'makes'."""
    artifact = ws.put("thing", {"file": b"content"})

    def replace(name: str, result: object = artifact):
        mock = create_autospec(getattr(api, name), return_value=result)
        monkeypatch.setattr(api, name, mock)
        return mock

    return replace


def test_flags_file_and_sets_reach_the_stage(called, trueup, tmp_path):
    mock = called("rl")
    (tmp_path / "rl.toml").write_text("clip = 0.3\nsteps = 9\n")
    code, out, _ = trueup(
        *("train", "rl", "--policy", "p", "--reward", "r", "--prompts", "q", "--name", "tuned", "--config", "rl.toml"),
        *("--set", "sampling.max_new_tokens=7", "--steps", "5", "--no-whiten", "--lr", "1e-3", "--seed", "4"),
        *("--missing-eos-score", "none"),
    )
    assert code == 0 and out.startswith("thing ") and out.endswith(" 'tuned'\n")
    given = mock.call_args.kwargs
    assert (given["policy"], given["reward"], given["prompts"], given["name"]) == ("p", "r", "q", "tuned")
    config: RlConfig = given["config"]
    assert (config.clip, config.steps, config.whiten, config.missing_eos_score) == (0.3, 5, False, None)
    assert (config.sampling.max_new_tokens, config.optimizer.lr, config.run.seed) == (7, 1e-3, 4)
    assert config.epochs == RlConfig().epochs


@pytest.mark.parametrize(
    ("line", "function", "inputs"),
    [
        ("train pretrain --data d", "pretrain", {"data": "d"}),
        ("train sft --base b --data d", "sft", {"base": "b", "data": "d"}),
        ("train reward --base b --data d", "reward", {"base": "b", "data": "d"}),
        (
            "train reward --base b --data d --kind features --features f",
            "reward",
            {"base": "b", "data": "d", "features": "f", "config": RewardConfig(kind="features")},
        ),
        ("train rl --policy p --reward r --prompts q", "rl", {"policy": "p", "reward": "r", "prompts": "q"}),
        (
            "sample --model m --prompts q --per-prompt 4",
            "sample",
            {"model": "m", "prompts": "q", "config": SampleConfig(per_prompt=4)},
        ),
        (
            "feedback simulate c --seed 3 --pairs-per-prompt 2 --heldout 0.5",
            "simulate",
            {"completions": "c", "seed": 3, "pairs_per_prompt": 2, "heldout": 0.5},
        ),
        ("runs resume some-run", "resume", {}),
    ],
)
def test_a_stage_gets_its_inputs_and_prints_what_it_made(line, function, inputs, called, trueup):
    mock = called(function)
    code, out, err = trueup(*line.split(), "--json")
    assert code == 0, err
    assert json.loads(out)["id"] == mock.return_value.id and json.loads(out)["kind"] == "thing"
    given = mock.call_args.kwargs
    assert {key: given[key] for key in inputs} == inputs
    if line.startswith("train"):
        assert given["config"] == inputs.get("config", load(function)) and given["name"] == ""


def test_winrate_passes_both_models_and_the_judge(called, trueup):
    rate = {"value": 0.75, "ci": [0.7, 0.8], "n": 300, "wins": 200, "ties": 50, "losses": 50, "p_value": 1e-21}
    rate |= {"words_a": 9.0, "words_b": 8.0, "verdict": "a", "slices": [], "models": ["a", "b, best of 8"]}
    mock = called("winrate", {**rate, "evaluation": "abc", "missing": {"status 503": 2}})
    code, out, err = trueup(*"eval winrate a b --prompts q --judge gold --best-of 8 --reward r".split())
    assert out == (
        "a won 75.0% of 300 pairs against b, best of 8 (95% interval 70.0 to 80.0%, ties half): a is better.\n\n"
        "wins 200, ties 50, losses 50; sign test p = 1e-21; words 9.0 and 8.0\n\n"
        "Two pairs without a verdict, left out: 2 status 503.\n\nevaluation abc\n"
    )
    assert code == 1 and "2 pairs have no verdict" in err, "what is missing is in the exit code, too"
    given = mock.call_args.kwargs
    assert (given["a"], given["b"], given["prompts"], given["judge"], given["reward"]) == ("a", "b", "q", "gold", "r")
    assert given["config"] == WinrateConfig(best_of=8)


def test_a_dry_run_plans_and_runs_nothing(called, trueup):
    plan, sft = called("plan", {"config": {"steps": 3}, "memory": {"weights": 12}}), called("sft")
    code, out, _ = trueup(*"train sft --base b --data d --steps 3 --dry-run".split())
    assert code == 0 and out == "config\n  steps  3\nmemory\n  weights  12\n"
    assert plan.call_args.args[1:3] == ("sft", {"base": "b", "data": "d"}) and plan.call_args.args[3].steps == 3
    assert not sft.called


def test_settings_are_checked_before_anything_else(called, trueup):
    mock = called("rl")
    code, out, err = trueup(
        *"train rl --policy p --reward r --prompts q --steps many --set sampling.top_p=0.9 --set cliip=1".split()
    )
    assert (code, out, mock.called) == (1, "", False)
    assert err.startswith("error: 3 settings of stage 'rl' are wrong:\nerror: ")
    assert all(line.startswith(("error: ", "hint: ")) for line in err.splitlines()), "each line stands on its own"
    assert "error: --steps: steps must be an integer at least 1, not 'many'" in err
    assert "sampling.top_p must be 1 in RL" in err and "did you mean 'clip'?" in err and "\nhint: " in err


def test_features_without_the_kind_that_reads_them_is_wrong_usage(called, trueup):
    mock = called("reward")
    assert trueup(*"train reward --base b --data d --features f".split())[0] == 2
    assert not mock.called


def test_a_config_printed_by_one_run_starts_another(called, trueup, tmp_path):
    mock = called("pretrain")
    config = load("pretrain", sets=["steps=3", "architecture.layers=2"])
    (tmp_path / "again.toml").write_text(as_toml(config))
    assert trueup("train", "pretrain", "--data", "d", "--config", "again.toml")[0] == 0
    assert mock.call_args.kwargs["config"] == config


# Exit codes


def test_wrong_usage_is_2_with_a_hint(trueup):
    for line in ("nonsense", "runs", "train sft --data d", "gc --yess", "runs list --stage", "data show x --rows -1"):
        code, out, err = trueup(*line.split())
        assert code == 2 and out == "" and err, line
    missing = trueup("data", "add", "rows.jsonl")[2].splitlines()
    assert len(missing) == 2 and missing[0].startswith("error: Missing option '--kind'. Choose from: prompts, ")
    assert trueup("rusn")[2] == "error: No such command 'rusn'. Did you mean 'runs'?\nhint: see `trueup --help`\n"


def test_an_error_of_ours_is_1_with_error_and_hint_and_no_traceback(trueup):
    code, out, err = trueup("artifacts", "list")
    assert (code, out) == (1, "")
    error, hint = err.splitlines()
    assert error.startswith("error: no workspace in ") and hint.startswith("hint: ")


def test_debug_adds_the_traceback(trueup, monkeypatch):
    monkeypatch.setenv("TRUEUP_DEBUG", "1")
    code, _, err = trueup("artifacts", "list")
    assert code == 1 and err.startswith("Traceback") and "\nerror: no workspace in " in err


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (
            DataError("a.jsonl line 3: not JSON", "one object a line"),
            1,
            "error: a.jsonl line 3: not JSON\nhint: one",
        ),
        (Interrupted("stopped at step 3", "trueup runs resume x"), 130, "error: stopped at step 3\nhint: trueup runs"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "/full/file"), 1, "error: /full/file: No space left on device\n"),
        (ZeroDivisionError("by zero"), 1, "error: ZeroDivisionError: by zero (workspaces.py line "),
    ],
)
def test_whatever_happens_becomes_an_exit_code_and_lines_not_a_traceback(raised, code, says, trueup, monkeypatch):
    def fail(path: str, database: str) -> None:
        raise raised

    monkeypatch.setattr(Workspace, "create", fail)
    found, out, err = trueup("init", "somewhere")
    assert (found, out) == (code, "")
    assert says in err and "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error():
    command = [sys.executable, "-m", "trueup", "train", "rl", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=QUIET)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait()


def test_a_reader_that_goes_away_while_a_result_is_printed_is_no_error(ws):
    for number in range(50):
        ws.put("thing", {"file": str(number).encode()}, meta={"long": "x" * 4000})
    command = [sys.executable, "-m", "trueup", "artifacts", "list", "--json"]
    environment = {**QUIET, "TRUEUP_WORKSPACE": str(ws.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == cli.PIPE_CLOSED


def test_version_and_module_are_the_same_program():
    assert python("-m", "trueup", "--version").stdout.split() == ["trueup", "0.1.0"]


# Workspaces, artifacts, runs


def test_init_makes_a_workspace_that_is_found_by_option_variable_and_folder(trueup, tmp_path, monkeypatch):
    code, out, _ = trueup("init", "work", "--json")
    assert code == 0 and json.loads(out) == {"workspace": str(tmp_path / "work")}
    assert trueup("--workspace", "work", "artifacts", "list")[:2] == (0, "no artifacts yet\n")
    assert trueup("runs", "list")[0] == 1
    monkeypatch.setenv("TRUEUP_WORKSPACE", "work")
    assert trueup("runs", "list")[:2] == (0, "no runs yet\n")
    monkeypatch.delenv("TRUEUP_WORKSPACE")
    monkeypatch.chdir(tmp_path / "work" / "artifacts")
    assert trueup("runs", "list")[:2] == (0, "no runs yet\n")
    code, _, err = trueup("init", "..")
    assert code == 1 and "is a workspace already" in err


def test_upgrade_says_when_there_is_nothing_to_do(trueup, ws):
    code, out, _ = trueup("upgrade", "--json")
    found = json.loads(out)
    assert code == 0 and found["before"] == found["after"] and found["workspace"] == str(ws.path)
    assert trueup("upgrade", "elsewhere")[0] == 1


def test_artifacts_are_listed_shown_named_and_verified(trueup, ws):
    base = ws.put("model", {"weights": b"12345"}, name="base")
    tuned = ws.put("policy", {"weights": b"67"}, parents={"base": base}, meta={"steps": 3})
    listed = json.loads(trueup("artifacts", "list", "--json")[1])
    assert [a["id"] for a in listed] == [base.id, tuned.id] and listed[0]["names"] == ["base"]
    assert [a["id"] for a in json.loads(trueup("artifacts", "list", "--kind", "policy", "--json")[1])] == [tuned.id]
    header, first, second = trueup("artifacts", "list")[1].splitlines()
    assert header.split() == ["ID", "KIND", "NAMES", "CREATED", "MADE", "FROM"]
    assert first.startswith(f"{base.id}  model ") and second.endswith(f"base {base.id}")

    shown = json.loads(trueup("artifacts", "show", tuned.id[:8], "--json")[1])
    assert shown["parents"] == {"base": base.id} and shown["files"]["weights"]["bytes"] == 2
    assert "weights  2 bytes" in trueup("artifacts", "show", tuned.id)[1]

    assert json.loads(trueup("artifacts", "name", tuned.id, "best", "--json")[1])["before"] is None
    assert trueup("artifacts", "name", base.id, "best")[1] == f"best is {base.id} (it stood for {tuned.id})\n"
    assert ws.names() == {"base": base.id, "best": base.id}

    assert trueup("artifacts", "verify")[:2] == (0, "2 artifacts as made\n")
    (tuned.path / "weights").chmod(0o644)
    (tuned.path / "weights").write_bytes(b"76")
    code, out, err = trueup("artifacts", "verify")
    assert (code, out) == (1, "") and f"1 of 2 artifacts changed since it was made:\nerror: {tuned.id}: " in err
    assert trueup("artifacts", "verify", "base")[0] == 0


def test_an_unknown_artifact_is_an_error(trueup, ws):
    code, _, err = trueup("artifacts", "show", "nothing")
    assert code == 1 and err.startswith("error: ") and "nothing" in err


def test_lineage_is_text_for_people_and_json_for_programs(trueup, ws):
    base = ws.put("model", {"weights": b"1"})
    tuned = ws.put("policy", {"weights": b"2"}, parents={"base": base})
    assert trueup("lineage", tuned.id)[1].splitlines()[0].startswith(f"policy {tuned.id}")
    found = json.loads(trueup("lineage", tuned.id, "--json")[1])
    assert found["root"] == tuned.id and {node["id"] for node in found["nodes"]} == {base.id, tuned.id}


def test_lineage_names_every_judgement_where_it_is_asked_to(trueup, ws):
    rows = [{"source": "human", "judge": who, "id": f"{who}-{n}"} for who in ("ann", "bob") for n in (0, 1, 1)]
    votes = ws.put("preferences", {"rows.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    ids = ["ann-0", "ann-1", "bob-0", "bob-1"]
    text = trueup("lineage", votes.id)[1]
    assert "judgements, human: 4 (ann 2, bob 2)" in text and not any(id in text for id in ids)
    named = trueup("lineage", votes.id, "--judgements")[1]
    assert [line.split()[-1] for line in named.splitlines() if line.split()[-1] in ids] == ids
    (node,) = json.loads(trueup("lineage", votes.id, "--json")[1])["nodes"]
    assert [id for each in node["judgements"] for id in each["ids"]] == ids


def test_gc_lists_first_and_deletes_only_when_told(trueup, ws):
    kept = ws.put("thing", {"file": b"kept"}, name="kept")
    loose = ws.put("thing", {"file": b"loose"})
    code, out, err = trueup("gc")
    assert code == 0 and loose.id in out and kept.id not in out and "`trueup gc --yes` deletes" in err
    assert loose.path.exists()
    found = json.loads(trueup("gc", "--yes", "--json")[1])
    assert found["deleted"] is True and [item["id"] for item in found["leftovers"]] == [loose.id]
    assert not loose.path.exists() and kept.path.exists()
    assert trueup("gc")[:2] == (0, "nothing to delete\n")


@pytest.fixture
def two_runs(ws):
    data = ws.put("prompts", {"rows.jsonl": json.dumps(Prompt.user("a post").to_json()).encode()}, name="posts")
    made = []
    for seed, lr in ((1, 0.1), (2, 0.2)):
        config = {"steps": 2, "optimizer": {"lr": lr}}
        with Run.start(ws, "rl", config, {"prompts": data}, seed=seed) as run:
            run.log(1, {"loss": 3.0, "score": 1.0})
            run.log(2, {"loss": 2.0})
            run.event("skip", "loss not finite", step=2)
            run.keep_samples(1, [{"prompt": "p", "text": "early", "score": 1.0}])
            run.keep_samples(2, [{"prompt": "p", "text": f"late {n}", "score": 2.0} for n in range(3)])
            run.finish({"score": float(seed)})
        made.append(run.id)
    return made


def test_runs_are_listed_and_shown(trueup, two_runs, ws):
    assert [run["id"] for run in json.loads(trueup("runs", "list", "--json")[1])] == two_runs
    assert trueup("runs", "list", "--stage", "sft")[1] == "no runs yet\n"
    assert trueup("runs", "list")[1].splitlines()[1].startswith(f"{two_runs[0]}  rl     done    1     ")
    shown = json.loads(trueup("runs", "show", two_runs[0], "--json")[1])
    assert shown["config"]["optimizer"]["lr"] == 0.1 and shown["result"] == {"score": 1.0}
    assert [row["loss"] for row in shown["metrics"]] == [3.0, 2.0] and shown["events"][0]["kind"] == "skip"
    text = trueup("runs", "show", two_runs[0])[1]
    assert "last metrics\n  step   2\n  loss   2\n  score  1\n" in text and "loss not finite" in text


def test_runs_are_compared(trueup, two_runs):
    found = json.loads(trueup("runs", "diff", *two_runs, "--json")[1])["differences"]
    assert found["config"] == {"optimizer.lr": [0.1, 0.2]} and found["result"] == {"score": [1.0, 2.0]}
    text = trueup("runs", "diff", *two_runs)[1]
    assert any(line.split() == ["config", "optimizer.lr", "0.1", "0.2"] for line in text.splitlines())
    assert trueup("runs", "diff", two_runs[0], two_runs[0])[1] == "no difference\n"


def test_samples_of_a_run(trueup, two_runs):
    found = json.loads(trueup("runs", "samples", two_runs[0], "--rows", "2", "--json")[1])
    assert found["steps"] == [1, 2] and [row["text"] for row in found["samples"]] == ["late 0", "late 1"]
    assert "early" in trueup("runs", "samples", two_runs[0], "--step", "1")[1]
    code, _, err = trueup("runs", "samples", two_runs[0], "--step", "9")
    assert code == 1 and "no samples of step 9" in err and "at steps 1, 2" in err


def test_an_unknown_run_is_an_error(trueup, ws):
    for line in ("runs show x", "runs diff x y", "runs samples x", "runs resume x"):
        code, _, err = trueup(*line.split())
        assert code == 1 and err.startswith("error: no run 'x'"), line


# Data


def test_data_is_added_with_a_report_of_what_was_left_out(trueup, ws, tmp_path):
    rows = [{"question": "why?", "answer": "because"}, {"question": "how?", "answer": ""}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = "data add rows.jsonl --kind demonstrations --map prompt=question,completion=answer --name demos"
    found = json.loads(trueup(*line.split(), "--json")[1])
    assert found["rows"] == 1 and len(found["skipped"]) == 1 and ws.names() == {"demos": found["id"]}
    text = trueup(*line.split())[1].splitlines()
    assert text[0] == f"demonstrations {found['id']} 'demos': 1 row, 1 skipped"
    assert text[2].startswith("  skipped ") and "empty completion" in text[2]
    code, out, _ = trueup("data", "show", "demos")
    assert code == 0 and "because" in out


def test_a_data_file_that_cannot_be_read_leaves_nothing_behind(trueup, ws, tmp_path):
    (tmp_path / "bad.jsonl").write_text("not json\n")
    for name in ("bad.jsonl", "missing.jsonl"):
        code, out, err = trueup("data", "add", name, "--kind", "prompts")
        assert (code, out) == (1, "") and err.startswith("error: ") and name in err and "Traceback" not in err
    assert ws.artifacts() == []


@pytest.mark.parametrize("mapping", ["prompt", "prompt=", "=question", "prompt=a,prompt=b", "prompt=a,,chosen=b"])
def test_a_mapping_that_cannot_be_read_is_wrong_usage(mapping, trueup, ws):
    code, _, err = trueup("data", "add", "x.jsonl", "--kind", "prompts", "--map", mapping)
    assert code == 2 and "--map" in err


def test_a_split_makes_sense_only_for_preferences(trueup, ws):
    code, _, err = trueup("data", "add", "x.jsonl", "--kind", "prompts", "--heldout", "0.2")
    assert code == 2 and "--heldout has a meaning only with --kind preferences" in err


def test_the_world_makes_its_data_sets(called, trueup, ws):
    made = {"posts": ws.put("prompts", {"rows": b""}), "heldout": ws.put("prompts", {"rows": b"1"})}
    mock = called("make_world", made)
    code, out, _ = trueup("data", "world", "--seed", "3", "--prompts", "40", "--json")
    assert code == 0 and {what: a["id"] for what, a in json.loads(out).items()} == {w: a.id for w, a in made.items()}
    assert mock.call_args.args[1:] == (3, 3000, 2000, 40, 300, None)


DEMO = {
    "seed": 7,
    "seconds": 1.0,
    "people": "All simulated.",
    "stages": [{"name": "rl", "seconds": 2.0, "data": "3 rollouts", "result": "KL 1"}],
    "win_rates": [{"name": "RL vs SFT", "value": 0.75, "ci": [0.7, 0.8], "n": 300}],
    "samples": [
        {
            "post": "A post.",
            "entries": [
                {"who": "SFT", "text": "two\nlines", "gold": -1.25},
                {"who": "after RL", "text": "bell \x07", "gold": 3.0},
            ],
        }
    ],
    "report": "x/demo.html",
    "commands": ["trueup lineage rl"],
}


def test_export_and_demo_pass_what_was_asked(called, trueup, tmp_path):
    export = called("export", tmp_path / "out")
    assert trueup("export", "tuned", "out", "--merge")[:2] == (0, f"{tmp_path / 'out'}\n")
    assert export.call_args.args[1:] == ("tuned", "out", True, "")
    assert trueup("export", "tuned", "out", "--base", "owner/name")[0] == 0
    assert export.call_args.args[1:] == ("tuned", "out", False, "owner/name")
    demo = called("demo", DEMO)
    assert json.loads(trueup("demo", "--seed", "7", "--quick", "--json")[1]) == DEMO
    assert demo.call_args.args == (Path("trueup-demo"), 7, False, True)
    text = trueup("demo")[1]
    assert "3 rollouts" in text and "RL beat SFT on 75.0%" in " ".join(text.split()) and "x/demo.html" in text
    assert "A post." in text and "bell" in text and "\x07" not in text
    assert "simulated" in text and "x/demo.html" in text and "  trueup lineage rl\n" in text


def test_the_demo_takes_a_new_folder_and_never_one_in_use(called, trueup, tmp_path):
    assert free_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert free_folder(tmp_path / "demo") == tmp_path / "demo-3"
    mock = called("demo", DEMO)
    (tmp_path / "demo" / "mine.txt").write_text("precious")
    code, _, err = trueup("demo", "demo")
    assert code == 1 and "is not empty" in err and not mock.called


# Text


def test_a_table_is_one_line_a_row_when_nobody_is_watching():
    text = table(["name", "value"], [["a\nb", 0.123456], [None, {"x": [1, True]}]])
    assert text.splitlines() == ["NAME  VALUE", "a b   0.1235", "-     x 1, yes"]


def test_a_table_on_a_terminal_takes_brackets_literally(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert "[bold]x" in table(["name"], [["[bold]x"]])


def test_named_values_are_nested_by_indentation():
    assert named({"a": 1, "b": {"c": 2.0, "d": []}, "e": [{"f": 1}, {"f": 2}]}) == "\n".join(
        ["a  1", "b", "  c  2", "  d", "e", "  f 1", "  f 2"]
    )


def test_json_has_no_numbers_that_are_not_finite():
    assert json.loads(to_json({"a": float("nan"), "b": (1, Path("x"))})) == {"a": None, "b": [1, "x"]}
