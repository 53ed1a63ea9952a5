"""A plan on paper: its arithmetic by hand, its order, its advice, and what a real run then takes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from benchmarks.adapters_memory import ROWS, _rows
from benchmarks.material import make
from benchmarks.plan import MEMORY_WITHIN, beside, predicted
from trueup import Workspace, api
from trueup.config import ModelSettings, load
from trueup.errors import ConfigError, ModelError
from trueup.memory import SAMPLING, STEP, UPDATE, Lengths, Part, estimate, measure, peak
from trueup.models.device import Placement
from trueup.sizing import calibrate
from trueup.sizing.calibrate import Measured, this_machine
from trueup.sizing.durations import measured_on
from trueup.sizing.known import KNOWN, read_config
from trueup.sizing.machines import GPUS, REACHED_PRODUCTS, known_gpu
from trueup.sizing.passes import Rows, count_pass
from trueup.sizing.plan import Stage, Wish, plan

ROOT = Path(__file__).parents[1]
WIDTH, MLP, LAYERS, TOKENS = 32, 48, 3, 40
SMALL = transformers.LlamaConfig(
    vocab_size=300, hidden_size=WIDTH, intermediate_size=MLP, num_hidden_layers=LAYERS, num_attention_heads=4,
    max_position_embeddings=256, tie_word_embeddings=True,
)  # fmt: skip
SETTINGS = ModelSettings(device="cpu")
ON_GPU = Wish("qwen2.5-0.5b", method="ppo", gpu="l4", batch=8, prompt_tokens=64, completion_tokens=64, adapter="none")


def counted(rows: Rows, trains: str = "all", config=SMALL, settings: ModelSettings = SETTINGS):
    return count_pass(config, settings, torch.float32, rows, trains)


# What a pass takes


def test_products_of_a_pass_are_those_of_its_matrices():
    """Two operations for each weight and token forwards, twice that backwards; frozen weights need no gradient."""
    weights = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * MLP)
    forward = counted(Rows(2, TOKENS / 2), "nothing").products
    rotary = forward - 2 * weights * TOKENS  # angles of positions are a product too, by one number each
    assert 0 <= rotary < 0.01 * forward
    assert counted(Rows(2, TOKENS / 2)).products == pytest.approx(3 * (forward - rotary), rel=0.02)
    adapters = 2 * ModelSettings().lora_rank * LAYERS * (4 * 2 * WIDTH + 3 * (WIDTH + MLP)) * TOKENS
    lora = counted(Rows(2, TOKENS / 2), "lora").products
    assert 2 * (forward - rotary) + 2 * adapters < lora < 2 * forward + 3.1 * adapters


@pytest.mark.parametrize("packed", [False, True])
def test_a_pass_keeps_no_less_than_the_inputs_of_its_matrices(packed):
    """Of a token in a layer: what goes into q, k, v (one), o, gate and up (one) and down; and what attention reads."""
    least = TOKENS * LAYERS * 4 * ((1 + 1 + 1) * WIDTH + MLP + 4 * WIDTH)
    assert least < counted(Rows(2, TOKENS / 2, packed)).kept < 4 * least
    assert counted(Rows(2, TOKENS / 2, packed), "nothing").kept == 0


def test_attention_goes_with_the_square_of_a_row_and_everything_else_with_the_tokens():
    one, long = counted(Rows(4, 16)), counted(Rows(1, 64))
    assert long.attention == pytest.approx(4 * one.attention)
    assert long.products == pytest.approx(one.products, rel=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "opt", "qwen3", "gemma2"])
def test_other_families_are_counted_by_their_own_code(family):
    config = transformers.AutoConfig.for_model(family, num_hidden_layers=4)
    packed = family != "gemma2"
    few, more = (counted(Rows(n, 8, packed), config=config) for n in (2, 6))
    assert 0 < few.kept < more.kept and 0 < few.products < more.products and few.working > 0


def test_a_family_that_looks_at_its_numbers_is_planned_by_a_rule_that_says_so():
    """Which expert reads a token is known only with weights."""
    config = transformers.MixtralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, num_local_experts=4,
    )  # fmt: skip
    with pytest.raises(ModelError, match="cannot be counted without weights"):
        counted(Rows(2, 20), config=config)
    stage = load("sft", sets=["model.adapter=none", "model.device=cpu"])
    shape, placement = measure(config, SETTINGS), Placement(torch.device("cpu"), torch.float32, "")
    found = {part.name: part for part in estimate("sft", stage, placement, {"base": shape}, {}, Lengths(8, 8))}
    assert "roughly" in found["activations"].how and found["activations"].bytes > 0


def test_few_bits_add_work_and_no_products():
    whole, few = (counted(Rows(2, 20), "lora", settings=SETTINGS.model_copy(update={"quantise": q, "adapter": "lora"}))
                  for q in ("none", "int8"))  # fmt: skip
    assert few.products == pytest.approx(whole.products, rel=0.01)


# The peak of the phases


def test_what_is_not_there_at_once_is_not_added_up():
    parts = [
        Part("weights", 10, ""), Part("cache", 7, "", (SAMPLING,)), Part("activations", 5, "", (UPDATE,)),
        Part("gradients", 3, "", (UPDATE, STEP)),
    ]  # fmt: skip
    assert peak(parts) == (18, UPDATE)
    assert peak(parts[:2]) == (17, SAMPLING) and peak(parts[:1]) == (10, "")


@pytest.mark.parametrize(
    "larger",
    [
        {"prompt_tokens": 128}, {"completion_tokens": 128}, {"micro_batch": 4}, {"value": "own"},
        {"dtype": "float32"}, {"model": "qwen2.5-1.5b"}, {"samples": 4},
    ],
)  # fmt: skip
def test_more_of_anything_takes_more_memory(larger):
    wish = replace(ON_GPU, micro_batch=2)
    small, large = (Stage(each, "ppo") for each in (wish, replace(wish, **larger)))
    assert small.needs(small.wish.micro_batch) < large.needs(large.wish.micro_batch)


@pytest.mark.parametrize(
    "longer",
    [{"prompt_tokens": 128}, {"completion_tokens": 128}, {"passes": 2}, {"model": "qwen2.5-1.5b"}, {"batch": 16}],
)  # fmt: skip
def test_more_work_takes_more_time(longer):
    small, large = (sum(Stage(each, "ppo").seconds(4).values()) for each in (ON_GPU, replace(ON_GPU, **longer)))
    assert small < large


# Plans


def test_an_estimate_by_hand():
    """SFT of 7 billion parameters at 8 x 512 tokens: 6 operations for each weight and token, at the speed reached."""
    stage = Stage(Wish("llama-2-7b", "sft", "a100-80g", batch=8, adapter="none"), "sft")
    parts = {part.name: part.bytes for part in stage.parts(8)}
    assert stage.trained.parameters == 6_738_415_616
    assert parts["weights"] == 2 * 6_738_415_616 and parts["exact weights"] == 2 * parts["weights"]
    assert parts["optimizer"] == 8 * 6_738_415_616
    update = stage.seconds(8)["update"]
    least = 6 * (6_738_415_616 - 2 * 32000 * 4096) * 8 * 512 / (312e12 * REACHED_PRODUCTS)
    assert least < update < 1.6 * least


def test_the_loop_has_a_price_and_says_what_is_not_built():
    wish = replace(ON_GPU, method="all", count=2, price=3.0, rows=80)
    found = plan(wish)
    assert [stage["stage"] for stage in found["stages"]] == ["sft", "reward", "ppo"]
    assert found["hours"] == pytest.approx(sum(stage["hours"] for stage in found["stages"]))
    assert found["cost"] == pytest.approx(found["hours"] * 6) == pytest.approx(sum(s["cost"] for s in found["stages"]))
    assert "not built yet" in found["note"] and "note" not in plan(replace(wish, count=1))
    assert all(stage["steps"] == 10 and stage["fits"] for stage in found["stages"])
    json.dumps(found)


def test_the_largest_batch_fits_and_one_row_more_does_not():
    stage = Stage(Wish("llama-3-8b", "sft", "l4", batch=4096, adapter="lora", quantise="nf4"), "sft")
    largest = stage.largest()
    assert 1 <= largest < 4096
    assert stage.needs(largest) <= stage.machine.memory < stage.needs(largest + 1)


def test_what_does_not_fit_is_told_what_to_change_in_the_order_of_what_it_costs():
    (stage,) = plan(Wish("llama-3-8b", "sft", "rtx-4090", adapter="none"))["stages"]
    assert not stage["fits"] and stage["largest_batch"] == 0
    said = [change["change"] for change in stage["to_change"]]
    assert "LoRA" in said[0] and stage["to_change"][-1]["fits"]
    assert not any(change["fits"] for change in stage["to_change"][:-1])
    (larger,) = plan(Wish("llama-3-70b", "sft", "rtx-4090", adapter="none"))["stages"]
    said = [change["change"].split(":")[0] for change in larger["to_change"]]
    assert said[:4] == [
        "LoRA in place of all weights", "the base in 8 bits", "the base in 4 bits", "completions of half the length",
    ] and larger["to_change"][-1]["fits"]  # fmt: skip
    needs = [change["needs"]["bytes"] for change in larger["to_change"]]
    assert needs == sorted(needs, reverse=True), "each on top of those before it"


def test_sharded_weights_are_divided_and_gathered_to_sample():
    one, parts = (
        {part.name: part.bytes for part in Stage(replace(ON_GPU, count=4, sharded=s), "ppo").parts(1)}
        for s in (False, True)
    )
    assert parts["optimizer"] == one["optimizer"] / 4 and parts["gathered weights"] == one["weights"]


def test_mistakes_are_named_with_what_is_known():
    with pytest.raises(ConfigError, match="no GPU called 'h10' is known") as caught:
        known_gpu("h10", "bfloat16")
    assert "h100" in caught.value.message + caught.value.hint
    with pytest.raises(ModelError) as caught:
        read_config("./nowhere")
    assert "check the path" in caught.value.hint


def test_known_models_have_as_many_parameters_as_their_names_say():
    billions = {"opt-13b": 12.85, "llama-3-8b": 8.03, "qwen2.5-0.5b": 0.494, "mistral-7b": 7.25, "opt-350m": 0.331}
    for name, count in billions.items():
        stage = Stage(Wish(name, "sft", "h100"), "sft")
        assert stage.trained.parameters / 1e9 == pytest.approx(count, rel=0.005), name
    assert set(billions) <= set(KNOWN) and all(gpu.memory * gpu.bandwidth for gpu in GPUS.values())


# This machine


def test_a_measurement_is_kept_for_the_machine_the_type_and_the_shapes(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path))
    monkeypatch.setattr(calibrate, "LEAST", 0.002)
    shapes = Measured(((32, 32), (32, 48)), 32, 4, 16)
    threads = torch.get_num_threads()
    machine = this_machine(shapes, SETTINGS, threads=1)
    assert torch.get_num_threads() == threads, "as it was"
    assert min(machine.products, machine.decoding, machine.attention, machine.bandwidth, machine.call) > 0
    assert this_machine(shapes, SETTINGS, threads=1) == machine, "read, not measured again"
    assert len(list(tmp_path.iterdir())) == 1
    this_machine(replace(shapes, row=32), SETTINGS, threads=1)
    this_machine(shapes, SETTINGS.model_copy(update={"dtype": "bfloat16"}), threads=1)
    assert len(list(tmp_path.iterdir())) == 3
    stored = json.loads(sorted(tmp_path.iterdir())[0].read_text())
    assert stored["of"]["threads"] == 1 and stored["of"]["name"]


def test_a_model_is_measured_at_its_own_shapes():
    stage = Stage(Wish("llama-2-7b", "sft", "h100", prompt_tokens=100, completion_tokens=28), "sft")
    found = measured_on(stage.trained, stage.lengths)
    assert found == Measured(((4096, 4096), (4096, 11008), (11008, 4096)), 4096, 32, 128)


# Beside a real run


@pytest.fixture
def prepared(tmp_path) -> tuple[str, str]:
    """A workspace with demonstrations of one length, and a model for them."""
    made = make(tmp_path, "5m", ROWS)
    lines = (json.dumps(row) + "\n" for row in _rows(made.language_model, made.pairs))
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    with Workspace.create(tmp_path / "w") as ws:
        api.add_data(ws, str(tmp_path / "rows.jsonl"), "demonstrations", name="rows")
    return str(tmp_path / "w"), str(made.language_model)


def test_a_real_run_takes_the_memory_that_was_planned(prepared, tmp_path, monkeypatch):
    """SFT of 5 million parameters in a process of its own, by the operating system's count."""
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "machines"))
    monkeypatch.setattr(calibrate, "LEAST", 0.002)
    command = [sys.executable, "-m", "benchmarks.plan", "measured", "SFT", *prepared]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    was, said = json.loads(done.stdout.splitlines()[-1]), predicted("SFT", *prepared)
    assert said["mib"] == pytest.approx(was["mib"], rel=MEMORY_WITHIN)


def test_what_decides_is_the_furthest_row():
    row = {"row": "SFT", "measured": {"mib": 100.0, "seconds": 1.0}}
    near, far = ({**row, "predicted": {"mib": m, "seconds": s}} for m, s in ((110.0, 0.8), (116.0, 1.0)))
    assert beside([near])["ok"] and not beside([near, far])["ok"]
    assert beside([near, far])["furthest"]["mib"] == pytest.approx(0.16)


# The command


def test_the_command_prints_a_plan_and_json():
    line = ["plan", "--model", "qwen2.5-0.5b", "--method", "sft", "--gpu", "l4", "--rows", "100", "--price", "2"]
    done = subprocess.run([sys.executable, "-m", "trueup", *line, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["stages"][0]["fits"] and found["cost"] > 0 and found["machine"]["name"] == "l4"


def test_the_estimate_of_deepspeed_chats_run_is_the_one_on_the_page():
    """13B and 6.7B on 8 A100, with the numbers that docs/plan.md sets beside the published ones."""
    page = (Path(__file__).parents[1] / "docs" / "plan.md").read_text()
    for model, hours in (("opt-13b", 6.6), ("opt-6.7b", 3.3)):
        line = (
            f"plan --model {model} --reward-model opt-350m --method ppo --adapter none --gpu a100-80g --count 8 "
            "--sharded --rows 264292 --batch 1024 --micro-batch 16 --price 4 --json"
        )
        command = [sys.executable, "-m", "trueup", *line.split()]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["hours"] == pytest.approx(hours, abs=0.06), found["hours"]
        assert f"| OPT-{model[4:].upper()}, 8 A100-80G | {hours} hours |" in page
