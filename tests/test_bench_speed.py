"""`benchmarks speed` without its peers: what is kept, what figures come to, and what both sides have to agree on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import speed_run
from benchmarks.floor import floor_seconds, looks, operations, passes
from benchmarks.lengths import Natural
from benchmarks.material import sizes_of
from benchmarks.speed import speed
from benchmarks.speed_rows import NOT_MEASURED, Row, Side, Size, rows
from benchmarks.speed_run import Failed, Plan, key, measured
from benchmarks.speed_table import BEGIN, END, cells, checks, gold_results, judged, markdown, text, write_into

OURS, PEER = Side("trueup", "speed_trueup", "sft"), Side("TRL 1.16", "speed_trl", "sft", "1.16.0")
ROW = Row("sft", "SFT", "real tokens", 1.4, 2, (OURS, PEER), {"steps": 4})
SHAPE = {"hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16, "vocab_size": 32}
RATES = {"float32": 1e6, "bfloat16": 2e6}


def line(work: float, seconds: float, **more) -> dict:
    tokens = {"prompt": 20, "completion": 10, "prompts": 2, "completions": 2}
    usual = {"mib": 100.0, "raw_mib": 500.0, "version": "v1", "dtype": "float32", "tokens": tokens}
    return {"work": work, "cpu_seconds": seconds, "wall_seconds": seconds / 2} | usual | more


def plan(folder: Path, **changed) -> Plan:
    return replace(Plan("tiny", 2, 1, (24, 40), 30.0, folder), **changed)


@pytest.fixture
def runs(monkeypatch):
    """Sides that say something at once, and which of them were asked."""
    asked: list[str] = []

    def run_side(side: Side, job: dict) -> dict:
        asked.append(side.name)
        if side.name == "broken":
            raise Failed("no line")
        return line(10, 2)

    monkeypatch.setattr(speed_run, "run_side", run_side)
    monkeypatch.setattr(speed_run, "told", lambda *_: {})
    return asked


def test_what_is_finished_is_not_done_again_and_the_sides_take_turns(runs, tmp_path):
    said: list[str] = []
    found = measured([ROW], plan(tmp_path), said.append)
    assert runs == ["trueup", "TRL 1.16", "TRL 1.16", "trueup"] and said[0] == "[1/4] round 1, sft: trueup"
    assert [sorted(each) for each in found["sft"]] == [["TRL 1.16", "trueup"]] * 2
    assert measured([ROW], plan(tmp_path), said.append) == found and len(runs) == 4
    measured([ROW], plan(tmp_path, rounds=3), said.append)
    assert len(runs) == 6, "only the new round"


def test_what_failed_is_said_and_tried_again_next_time(runs, tmp_path):
    row = replace(ROW, sides=(OURS, replace(PEER, name="broken")))
    found = measured([row], plan(tmp_path, rounds=1), lambda _: None)
    assert found["sft"][0]["broken"] == {"problem": "no line"}
    measured([row], plan(tmp_path, rounds=1), lambda _: None)
    assert runs == ["trueup", "broken", "broken"]
    result = judged(row, found["sft"], SHAPE, RATES)
    assert not result["ok"] and result["problems"] == ["broken: no line"] and "against" not in result


def test_a_line_is_kept_under_all_that_it_depends_on(tmp_path):
    plain = key(ROW, OURS, 0, plan(tmp_path), "source")
    others = [
        key(ROW, PEER, 0, plan(tmp_path), "source"),
        key(ROW, OURS, 1, plan(tmp_path), "source"),
        key(replace(ROW, settings={"steps": 5}), OURS, 0, plan(tmp_path), "source"),
        key(ROW, replace(OURS, settings={"dtype": "bfloat16"}), 0, plan(tmp_path), "source"),
        key(ROW, OURS, 0, plan(tmp_path, shape="5m"), "source"),
        key(ROW, OURS, 0, plan(tmp_path, threads=2), "source"),
        key(ROW, OURS, 0, plan(tmp_path, prompt_lengths=(24, 41)), "source"),
        key(ROW, OURS, 0, plan(tmp_path), "other source"),
    ]
    assert len({plain, *others}) == 9
    assert plain == key(ROW, OURS, 0, plan(tmp_path / "elsewhere", rounds=7), "source")


def test_ratios_are_taken_round_by_round_and_the_middle_one_counts():
    rounds = [
        {"trueup": line(100, 10), "TRL 1.16": line(50, 10)},
        {"trueup": line(100, 10), "TRL 1.16": line(100, 10)},
        {"trueup": line(100, 5), "TRL 1.16": line(50, 10)},
    ]
    found = judged(ROW, rounds, SHAPE, RATES)
    one = found["against"]["TRL 1.16"]
    assert one["ratio"] == {"median": 2.0, "low": 1.0, "high": 4.0, "all": [2.0, 1.0, 4.0]} == one["wall"]
    assert found["ok"] and one["met"] and one["aim_met"]
    assert not judged(replace(ROW, aim=2.5), rounds, SHAPE, RATES)["against"]["TRL 1.16"]["aim_met"]
    assert found["sides"]["trueup"]["a_cpu_second"]["median"] == 10


def test_of_memory_less_is_better():
    row = replace(ROW, unit="MiB", least=0.5, aim=0.35)
    rounds = [{"trueup": line(1, 1, mib=40.0), "TRL 1.16": line(1, 1, mib=100.0)}]
    one = judged(row, rounds, SHAPE, RATES)["against"]["TRL 1.16"]
    assert one["ratio"]["median"] == 0.4 and one["met"] and not one["aim_met"] and "wall" not in one


@pytest.mark.parametrize(
    ("theirs", "problem"),
    [
        ({"losses": [0.5, 0.70004], "lengths": [5, 9], "updates": 16}, "losses of the same rows differ by 2.0e-05"),
        ({"losses": [0.5, 0.7], "lengths": [5, 30], "updates": 16}, "lengths of completions differ"),
        ({"losses": [0.5, 0.7], "lengths": [5, 9], "updates": 4}, "16 optimizer steps against 4"),
    ],
)
def test_a_row_in_which_the_sides_did_different_work_is_not_ok(theirs, problem):
    mine = line(1, 1, losses=[0.5, 0.7], lengths=[5, 9], updates=16)
    rounds = [{"trueup": mine, "TRL 1.16": line(1, 1, **theirs)}]
    (said,) = checks(rounds, "trueup", "TRL 1.16")["problems"]
    assert said.startswith(problem) and not judged(ROW, rounds, SHAPE, RATES)["ok"]
    same = [{"trueup": mine, "TRL 1.16": dict(mine)}]
    assert checks(same, "trueup", "TRL 1.16")["problems"] == []


# --- the floor


def test_the_floor_is_what_a_hand_counts():
    """Two rows of ten prompt and five completion tokens; two layers of width 8 with an MLP of 16, and 32 words."""
    tokens = {"prompt": 20, "completion": 10, "prompts": 2, "completions": 2}
    assert looks(tokens) == 2 * 50 + 2 * (50 + 12.5), "prompts at themselves; completions at prompts and themselves"
    weights = 2 * (4 * 64 + 3 * 8 * 16)
    forward = 2 * weights * 30 + 4 * 2 * 8 * 225
    assert operations(SHAPE, tokens, 1, 0) == forward
    assert operations(SHAPE, tokens, 0, 1) == 2 * 8 * 32 * 10, "words are read at completion tokens alone"
    assert floor_seconds("sft", {}, SHAPE, tokens, 1e6) == pytest.approx(3 * (forward + 5120) / 1e6)


def test_passes_of_each_job():
    ppo = {"epochs": 4, "stage": {"estimator": "ppo"}}
    own = {"epochs": 4, "stage": {"value": {"model": "own"}}}
    assert passes("rl", ppo) == (4 + 12, 3 + 12), "sampled, scored, seen by policy and reference, learnt from"
    assert passes("rl", own) == (4 + 12 + 1 + 12, 3 + 12), "and all that again but sampling"
    assert passes("dpo", {}) == (4, 4) and passes("reward", {}) == (3, 0)


def test_each_side_is_measured_by_the_same_floor():
    rounds = [{"trueup": line(10, 2, dtype="bfloat16"), "TRL 1.16": line(30, 9)}]
    sides = judged(ROW, rounds, SHAPE, RATES)["sides"]
    floor = floor_seconds("sft", {}, SHAPE, line(1, 1)["tokens"], RATES["bfloat16"])
    assert sides["trueup"]["floor_share"] == pytest.approx(floor / 2)
    assert sides["TRL 1.16"]["floor_share"] == pytest.approx(floor / 10 * 30 / 9), "for three times the work"


# --- what is shown


def result(**rows_) -> dict:
    rounds = [{"trueup": line(100, 10, lengths=[5, 9]), "TRL 1.16": line(50, 10, lengths=[5, 9])}]
    machine = {**RATES, "torch": "2.13.0"}
    about = {"shape": "tiny", "rounds": 1, "threads": 2, "machine": machine, "at": "2026-01-02"}
    return about | {"rows": {"sft": judged(ROW, rounds, SHAPE, RATES)} | rows_}


def test_the_table_has_every_comparison_and_what_was_not_measured():
    lines = cells(result())
    assert lines[0][:8] == (
        "SFT, beside TRL 1.16",
        "real tokens",
        "2.00",
        "2.00 to 2.00",
        "2.00",
        "1.4",
        "2",
        "aim met",
    )
    assert [each[0] for each in lines[1:]] == [each.said for each in NOT_MEASURED]
    assert all(each[2] == "not measured" for each in lines[1:])
    assert "mean 7.0; 1-16: 2" in text(result())


def test_time_to_gold_stands_in_the_table_once_it_was_measured(tmp_path):
    def world(ratio):
        row = {"threshold": 0.7, "ratio": ratio, "trueup": {"seconds": 10.0}, "TRL": {"seconds": 10 * ratio}}
        return {"rounds": [{"decided": row}]}

    for seed, ratio in enumerate((7.5, 5.4, 6.3)):
        (tmp_path / f"gold-seed-{seed}.json").write_text(json.dumps(world(ratio)))
    lines = cells(result() | {"gold": gold_results(tmp_path)})
    (gold,) = [line for line in lines if line[0].startswith("time to a gold win rate")]
    assert gold[0].endswith("3 worlds") and gold[2:4] == ("6.30", "5.40 to 7.50")
    assert gold[5:10] == ("3", "5", "aim met", "10.0", "63.0")
    never = cells(result() | {"gold": [{"rounds": [{"decided": None}]}]})
    assert any(line[2] == "never both" and line[7] == "missed" for line in never)


def test_a_row_that_failed_stands_in_the_table():
    failed = judged(ROW, [{"trueup": {"problem": "out of memory"}, "TRL 1.16": line(1, 1)}], SHAPE, RATES)
    assert cells(result(dpo=failed))[1][2] == "failed" and "dpo: NOT OK: trueup: out of memory" in text(
        result(dpo=failed)
    )


def test_the_table_goes_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_into(page, result())
    write_into(page, result())
    assert page.read_text() == f"before\n{BEGIN}\n{markdown(result())}\n{END}\nafter\n"


# --- the command


def test_every_row_of_the_issue_is_there_with_its_target():
    named = {row.name: row for row in rows(Size(), Natural())}
    promised = {
        "ppo-equal": (1.4, 2), "ppo": (2, 3.5), "ppo-27m": (4, 6), "ppo-natural": (4, 6), "ppo-16x8": (4, 6),
        "rloo": (1.5, 2.5), "grpo": (1.5, 2.5), "reward": (2, 3), "dpo": (2, 3), "sft": (1.4, 2), "sampler": (2.5, 4),
        "memory-ppo-lora": (0.5, 0.35), "memory-rl-sft": (1.3, 1.15),
    }  # fmt: skip
    assert {name: (row.least, row.aim) for name, row in named.items()} == promised
    assert [side.promised for side in named["ppo-27m"].sides] == [True, True, False], "bf16 of TRL is shown, not asked"
    assert [side.name for side in named["ppo-27m"].sides] == ["trueup", "TRL 1.12 fp32", "TRL 1.12 bf16"]
    for row in named.values():
        assert row.memory or row.least < row.aim
        steps = row.settings.get("minibatches", 0) * row.settings.get("epochs", 0)
        assert "estimator" not in str(row.sides) or row.memory or steps in (8, 16)


def test_the_rows_can_be_listed_and_a_wrong_one_is_refused():
    listed = CliRunner().invoke(speed, ["--list", "--only", "dpo"])
    assert listed.exit_code == 0 and listed.output.startswith("dpo ") and "ppo-equal" not in listed.output
    wrong = CliRunner().invoke(speed, ["--only", "dop"])
    assert wrong.exit_code == 2 and "'dop' is none of ppo-equal, ppo," in wrong.output
    shape = CliRunner().invoke(speed, ["--shape", "100x2x2048", "--list"])
    assert shape.exit_code == 2 and "multiples of 16" in shape.output.replace("\n", " ")
    assert sizes_of("384x6x8192") == {
        "vocab_size": 8192, "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1088,
    }  # fmt: skip


def test_figures_are_kept_in_a_file(runs, tmp_path, monkeypatch):
    machine = {**RATES, "torch": "2.13.0"}
    monkeypatch.setattr("benchmarks.speed.run_side", lambda *_: machine)
    out = ["--only", "sft", "--quick", "--out", str(tmp_path / "results"), "--work", str(tmp_path)]
    done = CliRunner().invoke(speed, [*out, "--json"])
    assert done.exit_code == 0, done.output
    kept = json.loads((tmp_path / "results" / "speed.json").read_text())
    assert kept == json.loads(done.stdout) and kept["rows"]["sft"]["against"]["TRL 1.16"]["ratio"]["median"] == 1
