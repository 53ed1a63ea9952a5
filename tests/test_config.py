"""Settings: how they are merged, how every mistake is told, and that an effective config can be read back."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.config import (
    CONFIGS,
    STAGES,
    Axis,
    OptimizerSettings,
    PretrainConfig,
    RlConfig,
    SampleConfig,
    Sampling,
    SftConfig,
    as_toml,
    check,
    load,
    reference,
)
from trueup.config.describe import toml_value
from trueup.config.keys import settings, value
from trueup.config.rules import RULES
from trueup.errors import ConfigError


def wrong(stage: str, file: Path | None = None, sets: tuple[str, ...] = (), **flags: object) -> list[str]:
    """The lines of the one error that `load` raises."""
    with pytest.raises(ConfigError) as caught:
        load(stage, file, sets, flags)
    lines = caught.value.message.splitlines()
    return [line.strip() for line in (lines[1:] if len(lines) > 1 else lines)]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


# Merging


@pytest.mark.parametrize("stage", CONFIGS)
def test_without_anything_set_a_stage_has_its_defaults(stage):
    assert load(stage) == CONFIGS[stage]()


def test_a_partial_table_is_merged_over_the_defaults_of_the_stage_not_of_the_table(tmp_path):
    config = load("pretrain", written(tmp_path, "[optimizer]\nlr = 0.001\n"))
    assert config.optimizer == PretrainConfig().optimizer.model_copy(update={"lr": 0.001})
    assert config.optimizer.name == "muon" != OptimizerSettings().name


def test_file_then_set_then_flag_the_later_wins(tmp_path):
    file = written(tmp_path, "steps = 1\nepochs = 1\nclip = 0.1\n[run]\nseed = 1\n")
    config = load("rl", file, ["epochs=2", "steps=2", "run.seed=2"], {"steps": "3"})
    assert (config.clip, config.epochs, config.steps, config.run.seed) == (0.1, 2, 3, 2)


def test_values_of_set_are_typed_as_toml_types_them():
    config = load(
        "sft",
        sets=["optimizer.lr=1e-3", "optimizer.name=muon", "prompt.stop=['\\n\\n']", "run.tensorboard=false", "steps=5"],
    )
    assert config.optimizer.lr == 1e-3 and config.optimizer.name == "muon"
    assert config.prompt.stop == (r"\n\n",) and config.run.tensorboard is False and config.steps == 5


def test_text_stays_text_even_if_it_looks_like_a_number_or_a_table():
    assert load("sft", sets=["prompt.system=42"]).prompt.system == "42"
    assert load("sft", sets=["prompt.template={{ messages }}"]).prompt.template == "{{ messages }}"
    assert load("sft", sets=["prompt.system=a=b\nsteps=3"]).prompt.system == "a=b\nsteps=3"


def test_the_word_none_is_no_value_only_where_that_is_allowed():
    assert load("rl", sets=["missing_eos_score=none"]).missing_eos_score is None
    assert load("rl", sets=["missing_eos_score=-2"]).missing_eos_score == -2.0
    assert wrong("rl", sets=("clip=none",)) == ["--set clip=none: clip must be a number above 0, not 'none'"]


def test_an_empty_table_sets_nothing(tmp_path):
    assert load("rl", written(tmp_path, "[optimizer]\n[run]\n")) == RlConfig()


# Mistakes


def test_all_mistakes_of_all_sources_are_reported_at_once(tmp_path):
    file = written(tmp_path, "stepps = 3\nepochs = 1.5\n[optimizer]\nmuon_lr = 0.1\n")
    lines = wrong("rl", file, ("optimizer.lr=-1", "nonsense"), kl_coefficient="x")
    assert sorted(lines) == sorted(
        [
            f"{file}:1: unknown key 'stepps' (did you mean 'steps'?)",
            f"{file}:2: epochs must be an integer at least 1, not 1.5",
            f"{file}:4: optimizer.muon_lr has a meaning only with optimizer.name = 'muon'",
            "--set optimizer.lr=-1: optimizer.lr must be a number above 0, not -1",
            "--set nonsense: expected key=value, such as optimizer.lr=1e-4",
            "--kl-coefficient: kl_coefficient must be a number at least 0, not 'x'",
        ]
    )


@pytest.mark.parametrize(
    ("stage", "key", "says"),
    [
        ("rl", "stepps", "(did you mean 'steps'?)"),
        ("rl", "kl_coeficient", "(did you mean 'kl_coefficient'?)"),
        ("rl", "sampling.temprature", "(did you mean 'sampling.temperature'?)"),
        ("rl", "optimizer.learning_rate", "(did you mean 'optimizer.lr'?)"),
        ("rl", "optimiser.lr", "(it is 'optimizer.lr')"),
        ("rl", "seed", "(it is 'run.seed')"),
        ("rl", "optimizer.steps", "(it is 'steps')"),
        ("sft", "kl_coefficient", "(it belongs to rl)"),
        ("sft", "sampling.top_p", "(it belongs to sample, rl, dpo, winrate, safety, compare)"),
        ("rl", "optimizer.betas.first", "(did you mean 'optimizer.betas'?)"),
    ],
)
def test_an_unknown_key_names_the_nearest_or_where_it_belongs(stage, key, says):
    (line,) = wrong(stage, sets=(f"{key}=1",))
    assert line.startswith(f"--set {key}=1: unknown key '{key}'") and line.endswith(says)


def test_a_table_is_not_a_value():
    (line,) = wrong("rl", sets=("optimizer=adamw",))
    assert line == "--set optimizer=adamw: optimizer is a table: set one of its keys, such as optimizer.name"


@pytest.mark.parametrize(
    "pair",
    [
        "steps='40'",
        "steps=true",
        "steps=4.5",
        "steps=0",
        "steps=[1]",
        "whiten=1",
        "whiten=yes",
        "optimizer.lr=inf",
        "optimizer.lr=nan",
        "optimizer.lr=0",
        "optimizer.betas=[0.9]",
        "optimizer.betas=[0.9, 2]",
        "optimizer.betas=0.9",
        "optimizer.schedule=step",
        "model.adapter=qlora",
        "gamma=1.01",
        "guard.stop_score=inf",
        "clip=2026-01-01",
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_refused_with_its_key(pair):
    key = pair.partition("=")[0]
    (line,) = wrong("rl", sets=(pair,))
    assert line.startswith(f"--set {pair}: {key} must be ")


def test_a_mistake_in_a_file_names_its_line_however_it_is_written(tmp_path):
    text = (
        "# a comment\n\nsteps = 3\noptimizer.betaz = [\n  0.9,\n  0.95,\n]\n'clipp' = 1\n"
        'prompt = {templat = "x"}\n\n[ run ]\nnote = """\nseeed = 1\n"""\nseeed = 2\n[optimiser]\n'
    )
    file = written(tmp_path, text)
    places = {line.split("'")[1]: int(line.removeprefix(f"{file}:").partition(":")[0]) for line in wrong("rl", file)}
    assert places == {
        "optimizer.betaz": 4, "clipp": 8, "prompt.templat": 9, "run.note": 12, "run.seeed": 15, "optimiser": 16
    }  # fmt: skip


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path):
    missing = tmp_path / "missing.toml"
    assert wrong("rl", missing, ("stepps=1",))[0] == f"{missing}: cannot be read: No such file or directory"
    file = written(tmp_path, "steps = \n")
    (line,) = wrong("rl", file)
    assert line.startswith(f"{file}:1: not valid TOML: ")
    file.write_text("steps = 3\n\nclip = [\n")
    (line,) = wrong("rl", file)
    assert line.startswith(f"{file}:3: not valid TOML: ")
    file.write_bytes(b"\xff\xfe")
    assert wrong("rl", file) == [f"{file}: cannot be read: not UTF-8 text"]


def test_an_unknown_stage_is_refused():
    with pytest.raises(ConfigError, match="unknown stage 'rll' .did you mean 'rl'"):
        load("rll")


# Settings that contradict one another: for every rule, settings that break it and, just beside, settings that do not

BROKEN = {
    "optimizer.muon_lr": [("sft", ["optimizer.muon_lr=0.1"], ["optimizer.name=muon", "optimizer.muon_lr=0.1"])],
    "optimizer.final_lr": [
        ("rl", ["optimizer.schedule=constant", "optimizer.final_lr=0.2"], ["optimizer.final_lr=0.2"]),
    ],
    "model.lora_rank": [
        ("reward", ["kind=features", "model.lora_rank=4"], ["model.lora_rank=4"]),
        ("sft", ["model.adapter=none", "model.lora_rank=8"], ["model.lora_rank=8"]),
        ("pretrain", ["model.lora_rank=8"], []),
        ("sample", ["model.lora_rank=8"], []),
    ],
    "model.lora_alpha": [("reward", ["model.adapter=none", "model.lora_alpha=8"], ["model.lora_alpha=8"])],
    "model.adapter": [
        ("reward", ["kind=features", "model.adapter=lora"], ["model.adapter=lora"]),
        ("pretrain", ["model.adapter=lora"], ["model.adapter=none"]),
        ("winrate", ["model.adapter=lora"], []),
    ],
    "model.trust_remote_code": [("pretrain", ["model.trust_remote_code=true"], [])],
    "reference_rate": [("rl", ["model.adapter=lora", "reference_rate=0.1"], ["reference_rate=0.1"])],
    "run.checkpoint_every": [("sample", ["run.checkpoint_every=3"], ["run.seed=3"])],
    "run.micro_batch": [("winrate", ["run.micro_batch=3"], ["sampling.batch_size=3"])],
    "run.max_skipped": [("winrate", ["run.max_skipped=3"], [])],
    "run.trackers": [("winrate", ['run.trackers=["wandb"]'], [])],
    "run.tensorboard": [("sample", ["run.tensorboard=false"], [])],
    "run.keep_logprobs": [("sft", ["run.keep_logprobs=true"], []), ("sample", ["run.keep_logprobs=true"], [])],
    "run.evaluate_every": [
        ("sft", ["heldout=0", "run.evaluate_every=3"], ["heldout=0.1", "run.evaluate_every=3"]),
        ("ilql", ["heldout=0", "run.evaluate_every=3"], ["heldout=0.1", "run.evaluate_every=3"]),
        ("sample", ["run.evaluate_every=3"], []),
    ],
    "epochs": [
        ("sft", ["steps=10", "epochs=2"], ["steps=0", "epochs=2"]),
        ("reward", ["steps=10", "epochs=2"], ["epochs=2"]),
    ],
    "heldout": [("sft", ["heldout=1"], ["heldout=0.99"]), ("pretrain", ["heldout=1.0"], ["heldout=0"])],
    "architecture.hidden": [("pretrain", ["architecture.hidden=132"], ["architecture.hidden=136"])],
    "architecture.heads": [("pretrain", ["architecture.heads=3"], ["architecture.heads=8"])],
    "architecture.vocabulary": [("pretrain", ["architecture.vocabulary=271"], ["architecture.vocabulary=272"])],
    "sampling.temperature": [
        ("rl", ["sampling.temperature=0"], ["sampling.temperature=0.7"]),
        ("dpo", ["online=true", "sampling.temperature=0"], ["online=true", "sampling.temperature=0.7"]),
    ],
    "sampling.top_p": [
        ("rl", ["sampling.top_p=0.9"], ["sampling.top_p=1"]),
        ("dpo", ["online=true", "sampling.top_p=0.9"], ["online=true", "sampling.top_p=1"]),
        ("sample", ["sampling.temperature=0", "sampling.top_p=0.9"], ["sampling.top_p=0.9"]),
    ],
    "sampling.top_k": [
        ("rl", ["sampling.top_k=5"], ["sampling.top_k=0"]),
        ("winrate", ["sampling.temperature=0", "sampling.top_k=5"], ["sampling.top_k=5"]),
    ],
    "sampling.min_new_tokens": [
        ("rl", ["sampling.min_new_tokens=5"], ["sampling.min_new_tokens=0"]),
        ("dpo", ["online=true", "sampling.min_new_tokens=5"], ["online=true", "sampling.min_new_tokens=0"]),
        ("sample", ["sampling.min_new_tokens=65"], ["sampling.min_new_tokens=64"]),
    ],
    "value.clip": [
        ("rl", ["value.coefficient=0", "value.clip=0.1"], ["value.clip=0.1"]),
        ("rl", ["estimator=rloo", "value.clip=0.1"], ["value.clip=0.1"]),
        ("rl", ["epochs=1", "minibatches=1", "value.clip=0.1"], ["epochs=1", "value.clip=0.1"]),
    ],
    "value.model": [
        ("rl", ["estimator=rloo", "value.model=own"], ["value.model=own"]),
        ("rl", ["value.coefficient=0", "value.model=own"], ["value.coefficient=0", "value.model=reward"]),
    ],
    "value.warmup_steps": [
        ("rl", ["value.coefficient=0", "value.warmup_steps=2"], ["value.warmup_steps=2"]),
        ("rl", ["steps=5", "value.warmup_steps=5"], ["steps=5", "value.warmup_steps=4"]),
    ],
    "model.quantise": [
        ("sft", ["model.adapter=none", "model.quantise=int8"], ["model.adapter=lora", "model.quantise=int8"]),
        ("reward", ["kind=features", "model.quantise=nf4"], ["model.quantise=nf4"]),
        ("pretrain", ["model.quantise=int8"], []),
        ("winrate", ["model.quantise=int8"], []),
    ],
    "value.lr": [("rl", ["value.coefficient=0", "value.lr=0.1"], ["value.lr=0.1"])],
    "value.coefficient": [("rl", ["estimator=grpo", "value.coefficient=0.5"], ["value.coefficient=0.5"])],
    "lam": [("rl", ["estimator=reinforce++", "lam=0.9"], ["lam=0.9"])],
    "gamma": [("rl", ["estimator=rloo", "gamma=0.9"], ["estimator=reinforce++", "gamma=0.9"])],
    "group_std": [("rl", ["estimator=rloo", "group_std=false"], ["estimator=grpo", "group_std=false"])],
    "whiten": [("rl", ["estimator=reinforce++", "whiten=false"], ["estimator=rloo", "whiten=true"])],
    "estimator": [("rl", ["estimator=grpo", "samples_per_prompt=1"], ["estimator=grpo", "samples_per_prompt=2"])],
    "kl_in": [
        ("rl", ["kl_in=loss"], ["kl_in=loss", "kl_estimator=k2"]),
        ("rl", ["kl_in=loss", "kl_estimator=k2", "kl_coefficient=0"], ["kl_in=loss", "kl_estimator=k2"]),
    ],
    "kl_estimator": [("rl", ["kl_coefficient=0", "kl_estimator=k2"], ["kl_estimator=k2"])],
    "kl_horizon": [("rl", ["kl_horizon=2"], ["kl_horizon=2", "kl_target=3"])],
    "kl_target": [("rl", ["kl_target=3", "kl_coefficient=0"], ["kl_target=3"])],
    "kl_coefficient": [
        ("rl", ["kl_coefficient=0", "kl_target=3"], ["kl_coefficient=0.2", "kl_target=3"]),
        ("rl", ["kl_coefficient=0", "guard.remedy=raise-kl"], ["kl_coefficient=0"]),
    ],
    "guard.max_approx_kl": [
        ("dpo", ["online=true", "guard.max_approx_kl=1"], ["online=true"]),
        ("rl", ["epochs=1", "minibatches=1", "guard.max_approx_kl=1"], ["epochs=1", "guard.max_approx_kl=1"]),
    ],
    "clip": [("rl", ["epochs=1", "minibatches=1", "clip=0.1"], ["minibatches=1", "clip=0.1"])],
    "clip_high": [("rl", ["epochs=1", "minibatches=1", "clip_high=0.3"], ["epochs=1", "clip_high=0.3"])],
    "guard.remedy": [
        ("rl", ["guard.rollback=false", "guard.remedy=raise-kl"], ["guard.remedy=raise-kl"]),
        ("rl", ["guard.max_rollbacks=0", "guard.remedy=raise-kl"], ["guard.max_rollbacks=1", "guard.remedy=raise-kl"]),
        ("rl", ["guard.remedy=raise-kl", "kl_coefficient=0"], ["guard.remedy=lower-lr", "kl_coefficient=0"]),
    ],
    **{
        f"guard.{name}": [("rl", ["guard.rollback=false", f"guard.{name}={value}"], [f"guard.{name}={value}"])]
        for name, value in (
            *(("max_rollbacks", 1), ("max_repetition", 0.2)),
            *(("min_distinct", 0.1), ("max_length_factor", 3)),
        )
    },
    "guard.confidence": [
        (
            "rl",
            ["guard.rollback=false", "guard.stop_gamed=false", "guard.confidence=0.9"],
            ["guard.rollback=false", "guard.confidence=0.9"],
        )
    ],
    "optimizer.warmup_steps": [
        ("rl", ["steps=9", "optimizer.warmup_steps=9"], ["steps=9", "optimizer.warmup_steps=8"]),
        ("sft", ["steps=9", "optimizer.warmup_steps=10"], ["steps=0", "optimizer.warmup_steps=10"]),
    ],
    "prompt_baseline": [("rl", ["prompt_baseline=true", "samples_per_prompt=1"], ["prompt_baseline=true"])],
    "minibatches": [
        ("rl", ["minibatches=129"], ["minibatches=128"]),
        ("rl", ["prompts_per_step=1", "samples_per_prompt=1", "minibatches=2"], ["minibatches=2"]),
    ],
    "prompts_per_step": [("rl", ["prompts_per_step=1", "samples_per_prompt=1"], ["prompts_per_step=1"])],
    "samples_per_prompt": [("rl", ["prompts_per_step=1", "samples_per_prompt=1"], ["samples_per_prompt=1"])],
    "per_prompt": [("sample", ["sampling.temperature=0", "per_prompt=2"], ["sampling.temperature=0", "per_prompt=1"])],
    "best_of": [(stage, ["sampling.temperature=0", "best_of=2"], ["best_of=2"]) for stage in ("winrate", "sample")],
    **{
        key: [("dpo", [f"{key}={value}"], ["online=true", f"{key}={value}"])]
        for key, value in {
            "pairs": "all",
            "updates": 2,
            "guard.evaluation_prompts": 8,
            "guard.max_kl": 8,
            "guard.stop_score": 8,
            "guard.rollback": "false",
            "guard.stop_gamed": "false",
            "missing_eos_score": -2,
            "score_scale": "running",
            "score_clip": 3,
            "scoring.ensemble": "min",
            "sampling.max_new_tokens": 8,
            "sampling.batch_size": 8,
        }.items()
    },
    "max_tokens": [("dpo", ["online=true", "max_tokens=9"], ["max_tokens=9"])],
    "unbiased": [(stage, ["unbiased=true"], ["unbiased=true", "wrong_share=0.1"]) for stage in ("reward", "dpo")],
    "wrong_share": [("reward", ["loss=plackett-luce", "wrong_share=0.1"], ["wrong_share=0.1"])],
    "centring": [("reward", ["loss=plackett-luce", "centring=0.01"], ["centring=0.01"])],
    "objectives": [
        ("reward", ['objectives=["spread"]'], ['objectives=["kind"]']),
        ("reward", ['objectives=["a", "a"]'], ['objectives=["a", "b"]']),
        ("reward", ['objectives=[" "]'], ['objectives=["a"]']),
    ],
    "scoring.objectives": [
        (stage, [f"scoring.objectives={wrong}"], ['scoring.objectives=[{name="a"}, {name="b"}]'])
        for stage in ("rl", "winrate", "audit")
        for wrong in ('[{name="a"}, {name="a"}]', '[{name="a", weight=0.0}]')
    ],
    "scoring.normalise": [("dpo", ["scoring.normalise=false"], ["online=true", "scoring.normalise=false"])],
    "scoring.floor": [
        (
            "rl",
            ["scoring.floor=multiplier"],
            ["scoring.floor=multiplier", 'scoring.objectives=[{name="a", at_least=0.0}]'],
        ),
        *[(stage, ["scoring.floor=multiplier"], []) for stage in ("winrate", "audit")],
    ],
    "scoring.multiplier_rate": [
        (
            "rl",
            ["scoring.multiplier_rate=1"],
            ["scoring.multiplier_rate=1", "scoring.floor=multiplier", 'scoring.objectives=[{name="a", at_least=0.0}]'],
        )
    ],
    "scoring.time_limit": [("audit", ["scoring.time_limit=1"], [])],
    "scoring.penalty": [
        (stage, ["scoring.penalty=2"], ["scoring.ensemble=penalised", "scoring.penalty=2"])
        for stage in ("rl", "winrate", "audit")
    ],
    "axes": [
        ("collection", ['axes=[{name="a"}]'], ["task=rating", 'axes=[{name="a"}]']),
        ("collection", ["task=rating", 'axes=[{name="a"}, {name="a"}]'], ["task=rating", 'axes=[{name="a"}]']),
        ("collection", ["task=rating", 'axes=[{name="thumb"}]'], ["task=rating", 'axes=[{name="thumbs"}]']),
        ("collection", ["task=rating", 'axes=[{name="a", low=7}]'], ["task=rating", 'axes=[{name="a", low=6}]']),
        (
            "collection",
            ["task=rating", 'axes=[{name="a", anchors={8="perfect"}}]'],
            ["task=rating", 'axes=[{name="a", anchors={7="perfect"}}]'],
        ),
    ],
    "ties": [
        ("collection", ["task=thumbs", "ties=false"], ["task=ranking", "ties=false"]),
        ("dpo", ["online=true", "ties=half"], ["ties=half"]),
    ],
    "both_bad": [("collection", ["task=ranking", "both_bad=false"], ["both_bad=false"])],
    "strength": [
        ("collection", ["task=edit", "strength=false"], ["strength=false"]),
        ("reward", ["loss=plackett-luce", "strength=weight"], ["strength=weight"]),
        ("dpo", ["loss=ipo", "strength=small-margin"], ["loss=ipo", "strength=weight"]),
        ("dpo", ["online=true", "strength=weight"], ["strength=weight"]),
    ],
    "overlap": [("collection", ["overlap=6"], ["overlap=5"])],
    "max_overlap": [("collection", ["overlap=3", "max_overlap=2"], ["overlap=3", "max_overlap=3"])],
    "qualification_pass": [("collection", ["qualification_pass=0.9"], ["qualification=20", "qualification_pass=0.9"])],
    "question": [("collection", ["question=' '"], ["question=Which is shorter?"])],
}
CASES = [(key, *case) for key, cases in BROKEN.items() for case in cases]


def test_every_rule_has_a_case():
    assert {key for rule in RULES for key in rule.keys} == set(BROKEN)


@pytest.mark.parametrize(("key", "stage", "broken", "fine"), CASES)
def test_a_setting_without_meaning_for_what_was_chosen_is_an_error(key, stage, broken, fine):
    lines = wrong(stage, sets=tuple(broken))
    assert len(lines) == 1, lines
    assert key in lines[0] and lines[0].startswith("--set ")
    load(stage, sets=fine)


def test_a_config_built_in_python_is_checked_by_what_differs_from_the_default():
    check(RlConfig())
    check(SftConfig(optimizer=OptimizerSettings(name="muon", muon_lr=0.1)))
    with pytest.raises(ConfigError, match=r"2 settings.*\n.*temperature must be above 0.*\n.*top_p must be 1"):
        check(RlConfig(sampling=Sampling(temperature=0, top_p=0.9)))
    with pytest.raises(ConfigError, match="per_prompt must be 1"):
        check(SampleConfig(per_prompt=2, sampling=Sampling(temperature=0)))


# Text


@pytest.mark.parametrize("stage", CONFIGS)
def test_an_effective_config_is_read_back_equal(stage, tmp_path):
    config = load(stage)
    assert load(stage, written(tmp_path, as_toml(config))) == config


@pytest.mark.parametrize(
    ("stage", "sets"),
    [
        ("rl", ["missing_eos_score=none", "guard.stop_score=3", "optimizer.name=muon", "optimizer.muon_lr=1e-07"]),
        ("rl", ["value.coefficient=0", "optimizer.schedule=constant", "optimizer.eps=1e-20", "whiten=false"]),
        ("sft", ["steps=7", 'prompt.template={% for m in messages %}\t"{{ m.content }}"\n{% endfor %}\x7f\\']),
        ("sft", ["epochs=1e6", 'prompt.stop=["</s>", "é", "\\u0000"]', "heldout=0", "model.adapter=none"]),
        ("sample", ["sampling.temperature=0"]),
        ("pretrain", ["optimizer.name=adamw", "optimizer.betas=[0, 1]"]),
        ("collection", ["criteria=['true', 'a \"short\" one']", "per_day=3", "rationale='when strong or flagged'"]),
        (
            "collection",
            ["task=rating", "axes=[{name='a b', low=-1, high=1, anchors={-1='no', 1=\"it's\"}}, {name='b'}]"],
        ),
    ],
)
def test_an_effective_config_with_everything_unusual_is_read_back_equal(stage, sets, tmp_path):
    config = load(stage, sets=sets)
    assert config != load(stage)
    assert load(stage, written(tmp_path, as_toml(config))) == config


@given(
    st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False), st.integers(-9, 10**12))
)
def test_toml_values_are_read_back_by_a_toml_parser(item):
    assert tomllib.loads(f"x = {toml_value(item)}")["x"] == item


def test_what_has_no_effect_is_left_out_of_the_effective_config_with_the_reason():
    text = as_toml(RlConfig())
    assert "# muon_lr: has a meaning only with optimizer.name = 'muon'" in text
    assert "\nmuon_lr =" not in text


def test_a_value_that_was_changed_in_vain_is_not_hidden():
    config = RlConfig(optimizer=OptimizerSettings(muon_lr=0.5))
    assert "\nmuon_lr = 0.5\n" in as_toml(config)


def test_the_reference_names_every_setting_with_its_default_and_description():
    text = reference()
    assert all(f"## Stage `{stage}`" in text for stage in STAGES) and "## Collections" in text
    for stage, cls in {**CONFIGS, "axis": Axis}.items():
        for key, setting in settings(cls).items():
            assert setting.description, f"{stage}.{key} has no description"
            assert f"| `{setting.name}` |" in text and setting.description.replace("|", "\\|") in text
    assert "| `lr` | number | above 0 | `0.0001` |" in text
    assert "| `name` | text |  | required | as the scorer was named" in text and "Undefined" not in text
    assert "| `top_p` | number | above 0, at most 1 |" in text
    assert '`optimizer.name = "muon"`' in text.partition("## Stage `sft`")[0]


def test_settings_know_type_range_and_default():
    found = settings(RlConfig)
    assert found["steps"].type == "integer" and found["steps"].range == "at least 1"
    assert found["gamma"].range == "0 to 1" and found["guard.stop_score"].type == "number or none"
    assert found["optimizer.betas"].type == "list of 2 numbers" and found["optimizer.betas"].range == "0 to 1"
    assert found["optimizer.name"].type == "adamw or muon" and found["prompt_baseline"].type == "true or false"
    assert found["sampling.top_p"].range == "above 0, at most 1"
    assert settings(CONFIGS["reward"])["wrong_share"].range == "at least 0, below 0.5"
    assert all(value(RlConfig(), key) == setting.default for key, setting in found.items())
    assert sum(not setting.table for setting in found.values()) <= 25


def test_mistakes_in_a_collection_are_told_all_at_once_with_what_an_axis_has():
    lines = wrong("collection", None, ("task=rank", "overlap=9", 'axes=[{nam="a"}]', "epochs=3"))
    assert (
        len(lines) == 4
        and "unknown key 'epochs' in a collection (it belongs to sft, reward, rl, dpo, kto, ilql)" in lines[0]
    )
    assert "axes must be a list of tables with name, question, low, high, anchors" in "\n".join(lines)


def test_a_rating_without_axes_has_one_scale_and_other_tasks_none():
    assert [axis.name for axis in load("collection", sets=["task=rating"]).scales] == ["overall"]
    assert load("collection").scales == ()
