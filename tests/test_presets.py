"""Presets: every value is sound and says where it is from, other settings are stronger, and a run names its preset."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from trueup.config import CONFIGS, RlConfig, as_toml, flat, load, presets
from trueup.config.keys import value
from trueup.config.schema import Preset, PresetConfig
from trueup.demonstrate import Recipe
from trueup.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
NAMES = [name for name in get_args(Preset) if name != "none"]
STAGES = [stage for stage, cls in CONFIGS.items() if issubclass(cls, PresetConfig)]
ALL = [(name, stage) for name in NAMES for stage in STAGES]
MEASURED, PUBLISHED = "measured here: ", "from the literature: "
SOURCE = r"arXiv \d{4}\.\d{5}|[\w-]+/[\w-]+"  # a paper, or a repository


def test_there_is_a_file_for_every_name_and_the_package_ships_it():
    folder = ROOT / "trueup" / "config" / "presets"
    assert {path.stem for path in folder.glob("*.toml")} == set(NAMES)
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert data["trueup.config.presets"] == ["*.toml"]
    assert STAGES == ["sft", "reward", "rl", "dpo", "kto", "ilql"]


@pytest.mark.parametrize(("name", "stage"), ALL)
def test_each_preset_loads_and_nothing_in_it_is_idle_or_contradicts(name, stage):
    """As if somebody had set each of its values on purpose, where an idle one is an error."""
    found = presets.values(name, stage)
    assert found and load(stage, flags=found) == load(stage, flags={"preset": name}).model_copy(
        update={"preset": "none"}
    )
    config = load(stage, flags={"preset": name})
    assert {key: value(config, key) for key in found} == found and value(config, "preset") == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("estimator", get_args(RlConfig.model_fields["estimator"].annotation))
def test_every_preset_serves_every_estimator_and_keeps_the_size_of_a_rollout(name, estimator):
    config = load("rl", flags={"preset": name, "estimator": estimator})
    plain = load("rl", flags={"preset": name})
    assert config.estimator == estimator and config.samples_per_prompt >= (2 if estimator in ("rloo", "grpo") else 1)
    assert config.prompts_per_step * config.samples_per_prompt == plain.prompts_per_step * plain.samples_per_prompt
    assert (config.optimizer, config.model) == (plain.optimizer, plain.model)
    own = load("rl", flags={"preset": name, "estimator": estimator, "samples_per_prompt": 2, "epochs": 3})
    assert (own.samples_per_prompt, own.epochs) == (2, 3), "what is set is stronger than what the estimator wants"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ("dpo", {"online": True}), ("dpo", {"loss": "ipo"}), ("kto", {"sides_as_thumbs": True}),
        ("reward", {"kind": "features"}), ("reward", {"loss": "plackett-luce"}), ("sft", {"steps": 9}),
        ("ilql", {"steps": 9}), ("rl", {"kl_in": "loss", "kl_estimator": "k2"}), ("rl", {"value.model": "own"}),
        ("rl", {"epochs": 1, "minibatches": 1}), ("rl", {"value.coefficient": 0}),
    ],
)  # fmt: skip
def test_a_preset_serves_every_form_of_a_stage(name, stage, more):
    config = load(stage, flags={"preset": name, **more})
    assert {key: value(config, key) for key in more} == more


@pytest.mark.parametrize("name", NAMES)
def test_every_value_says_where_it_is_from(name):
    header, *_ = presets.text(name).partition("\n[")
    command = r"`(?:trueup|python -m benchmarks) [^`]*`"
    tags = dict(re.findall(rf'"([\w ]+)" is ({command}|{SOURCE})', " ".join(header.replace("#", "").split())))
    measured = "|".join(tag for tag, source in tags.items() if source.startswith("`"))
    lines = [line for line in presets.text(name).splitlines() if re.match(r"\w+ = ", line)]
    of_estimators = tomllib.loads(presets.text(name))["rl"].get("estimator", {})
    assert len(lines) == sum(len(presets.values(name, s)) for s in STAGES) + sum(map(len, of_estimators.values()))
    for line in lines:
        said = line.partition("  # ")[2]
        if said.startswith(MEASURED):
            assert name.startswith("tiny") and re.match(f"{MEASURED}({measured})", said), line
        else:
            known = "|".join([SOURCE, "ten times", *map(re.escape, tags)])
            assert re.match(f"{PUBLISHED}({known})", said), line


def test_tiny_is_what_the_benchmark_of_learning_found():
    """docs/learning.md and docs/offline.md hold the figures."""
    from benchmarks.learning import methods

    tuned = methods(Recipe())
    for stage in ("dpo", "kto"):
        given = flat(tuned[stage][1])
        assert {"optimizer.lr": given["optimizer.lr"], "beta": given["beta"]}.items() <= presets.values(
            "tiny", stage
        ).items()
    page = (ROOT / "docs" / "offline.md").read_text()
    assert "| 1 million parameters, all weights | `optimizer.lr=1e-3`, `beta=0.3` | measured here" in page
    assert all(figure in presets.text("tiny") and figure in page for figure in ("0.877", "0.874", "0.864", "0.823"))


def test_what_is_called_measured_is_what_the_demo_runs():
    recipe = Recipe()
    for stage, settings in (("sft", recipe.sft), ("reward", recipe.reward), ("rl", recipe.rl)):
        demo = load(stage, flags=flat(settings) | ({} if stage == "rl" else {"steps": settings["steps"]}))
        for key, given in presets.values("tiny", stage).items():
            if key not in ("epochs", "model.adapter") or stage == "rl":  # adapter: auto, which is none at that size
                assert key == "model.adapter" or value(demo, key) == given, (stage, key)
    assert recipe.sft["steps"] * 16 == pytest.approx(recipe.demonstrations, rel=0.1), "one pass"
    assert recipe.reward["steps"] * 8 == pytest.approx(0.75 * recipe.candidates, rel=0.1), "one pass"


@pytest.mark.parametrize("stage", STAGES)
def test_lora_is_lora_and_full_is_full_and_larger_models_learn_more_slowly(stage):
    rates: dict[str, list[float]] = {"lora": [], "full": []}
    assert load(stage, sets=["preset=tiny-lora"]).model.adapter == "lora"
    for name in NAMES[2:]:
        size, _, how = name.partition("-")
        config = load(stage, flags={"preset": name})
        assert config.model.adapter == {"lora": "lora", "full": "none"}[how]
        rates[how].append(config.optimizer.lr)
        assert config.optimizer.lr > load(stage, flags={"preset": f"{size}-full"}).optimizer.lr or how == "full"
    assert all(each == sorted(each, reverse=True) for each in rates.values()), rates


def test_an_unknown_name_is_told_all_the_names():
    with pytest.raises(ConfigError) as caught:
        load("rl", flags={"preset": "7b"})
    assert caught.value.message.startswith("--preset: preset must be 'none' or") and "not '7b'" in caught.value.message
    assert all(f"'{name}'" in caught.value.message for name in NAMES)
    with pytest.raises(
        ConfigError, match="unknown key 'preset' in stage 'pretrain' .it belongs to sft, reward, rl, dpo"
    ):
        load("pretrain", sets=["preset=tiny"])


def test_defaults_then_preset_then_file_then_set_then_flag(tmp_path):
    file = tmp_path / "rl.toml"
    file.write_text('preset = "7b-lora"\nepochs = 3\nkl_coefficient = 0.3\nkl_target = 3.0\n')
    found = load("rl", file, ["kl_coefficient=0.4", "kl_target=4"], {"kl_target": "5"})
    preset = presets.values("7b-lora", "rl")
    assert (found.kl_target, found.kl_coefficient, found.epochs) == (5, 0.4, 3)
    assert found.prompts_per_step == preset["prompts_per_step"] != RlConfig().prompts_per_step
    assert found.optimizer.lr == preset["optimizer.lr"] and found.clip == RlConfig().clip
    assert load("rl", file, (), {"preset": "tiny"}).optimizer.lr == presets.values("tiny", "rl")["optimizer.lr"]
    assert load("rl", file, ["preset=none"]).optimizer.lr == RlConfig().optimizer.lr


def test_a_preset_gives_way_to_what_leaves_its_values_without_meaning(tmp_path):
    """Own steps, another estimator, all weights: what the preset says of the rest is no mistake of the user."""
    short = load("sft", sets=["preset=tiny", "steps=4"])
    assert (short.steps, short.epochs, short.optimizer.warmup_steps, short.optimizer.lr) == (4, 1.0, 0, 1e-3)
    rloo = load("rl", sets=["preset=tiny", "estimator=rloo"])
    assert rloo.value == RlConfig().value and not rloo.prompt_baseline and rloo.kl_coefficient == 0.05
    assert load("rl", sets=["preset=7b-lora", "model.adapter=none"]).model.lora_rank == RlConfig().model.lora_rank
    for config in (short, rloo):
        file = tmp_path / "effective.toml"
        file.write_text(as_toml(config))
        assert load(config.stage, file) == config, "the effective config of a run can be run again"


def test_what_does_not_fit_a_preset_is_an_error_that_names_what_was_set():
    with pytest.raises(ConfigError, match=r"^--set prompts_per_step=1: prompts_per_step does not fit"):
        load("rl", sets=["preset=1b-lora", "prompts_per_step=1"])
    with pytest.raises(ConfigError, match=r"^--set model.quantise=int8: .*needs LoRA"):
        load("sft", sets=["preset=7b-full", "model.quantise=int8"])


def test_a_config_built_in_python_cannot_name_a_preset_whose_values_it_lacks():
    with pytest.raises(ValidationError, match="a preset is read with the settings"):
        RlConfig(preset="tiny", steps=3)
    config = load("rl", sets=["preset=tiny"])
    assert RlConfig.model_validate(config.model_dump(mode="json")) == config, "as a resumed run reads it"


def test_a_dry_run_and_the_run_name_the_preset_and_hold_its_values(workspace, checkpoint, tmp_path):
    from small import add_small_data

    from trueup import api
    from trueup.runs import runs

    add_small_data(workspace, tmp_path, prompts=12)
    inputs = {"base": str(checkpoint("Llama")), "data": "demonstrations"}
    plan = api.plan(workspace, "sft", inputs, load("sft", sets=["preset=tiny", "steps=2"]))
    quiet = {"threads": 1, "tensorboard": False}
    api.sft(workspace, **inputs, preset="tiny", steps=2, run=quiet)
    for config in (plan["config"], runs(workspace)[-1].config):
        assert config["preset"] == "tiny" and config["optimizer"]["lr"] == 1e-3 and config["steps"] == 2
