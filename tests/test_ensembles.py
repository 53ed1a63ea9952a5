"""Ensembles of reward models: scored like each of them alone, on one trunk where they are adapters."""

from __future__ import annotations

import json

import pytest
import torch
from small import add_small_data

import trueup
from trueup.cli.main import main
from trueup.config import ModelSettings, Scoring
from trueup.engines.reward_scorer import RewardScorer
from trueup.errors import ConfigError, ModelError, TrueupError
from trueup.inputs import chain
from trueup.loading import put_records
from trueup.models.load import load_reward
from trueup.records import Completion, Judgement, Prompt
from trueup.runs import runs

QUICK = {"steps": 4, "run.threads": 1, "run.tensorboard": False, "run.evaluate_every": 4}
COMPLETIONS = [Completion(Prompt.user("the cat"), text) for text in ("old rain", "the red house", "a")]


@pytest.fixture
def data(workspace, tmp_path):
    return add_small_data(workspace, tmp_path)


def trained(workspace, data, checkpoint, adapter: str, seeds=(0, 1, 2), **given):
    settings = QUICK | {"model.adapter": adapter, "optimizer.lr": 1e-2} | given
    return [
        trueup.reward(workspace, base=str(checkpoint("Llama")), data=data["preferences"], **settings, **{"run.seed": s})
        for s in seeds
    ]


def load(workspace, artifact):
    return load_reward(chain(workspace, artifact), ModelSettings())


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_each_member_scores_as_it_does_alone(workspace, data, checkpoint, adapter):
    models = trained(workspace, data, checkpoint, adapter)
    together = load(workspace, trueup.ensemble(workspace, models, name="jury"))
    alone = [load(workspace, model) for model in models]
    assert together.members == 3 and together.mean == [m.mean[0] for m in alone]
    raw = RewardScorer(together).raw(COMPLETIONS)
    for column, model in zip(raw.T, alone, strict=True):
        torch.testing.assert_close(column, RewardScorer(model).raw(COMPLETIONS)[:, 0], rtol=1e-4, atol=1e-5)
    each = torch.tensor([[s.value for s in RewardScorer(model).score(COMPLETIONS)] for model in alone])
    scores = RewardScorer(together).score(COMPLETIONS)
    assert [s.value for s in scores] == pytest.approx(each.mean(0).tolist(), abs=1e-4)
    assert [s.parts["spread"] for s in scores] == pytest.approx(each.std(0, correction=0).tolist(), abs=1e-4)
    lowest = RewardScorer(together, scoring=Scoring(ensemble="min")).score(COMPLETIONS)
    assert [s.value for s in lowest] == pytest.approx(each.amin(0).tolist(), abs=1e-4)


def test_adapters_share_one_trunk(workspace, data, checkpoint):
    models = trained(workspace, data, checkpoint, "lora", **{"model.lora_rank": 2})
    together = load(workspace, trueup.ensemble(workspace, models))
    one = sum(p.numel() for p in load(workspace, models[0]).parameters())
    assert sum(p.numel() for p in together.parameters()) < 1.5 * one, "three trunks would be three times as much"
    assert not any(p.requires_grad for p in together.parameters())


def test_lineage_and_space(workspace, data, checkpoint):
    """It keeps its models alive, points to them, and copies none of their weights."""
    models = trained(workspace, data, checkpoint, "none", seeds=(0, 1))
    made = trueup.ensemble(workspace, models, name="jury")
    assert set(made.parents.values()) == {model.id for model in models}
    assert not list(made.path.glob("*.safetensors"))
    with pytest.raises(ModelError, match="no weights of its own"):
        trueup.export(workspace, "jury", workspace.path / "out")


def test_rl_takes_the_most_cautious_member(workspace, data, checkpoint, tmp_path):
    models = trained(workspace, data, checkpoint, "lora", seeds=(0, 1))
    trueup.ensemble(workspace, models, name="jury")
    settings = {key: value for key, value in QUICK.items() if key != "steps"} | {
        "steps": 1, "prompts_per_step": 4, "samples_per_prompt": 2, "guard": {"evaluation_prompts": 2},
        "sampling.max_new_tokens": 6, "scoring.ensemble": "min", "model.adapter": "lora",
    }  # fmt: skip
    made = trueup.rl(workspace, policy=str(checkpoint("Llama")), reward="jury", prompts=data["prompts"], **settings)
    assert made.kind == "model"


@pytest.mark.parametrize(
    "pick, error, says",
    [
        (lambda m: m[:1], ConfigError, "at least two"),
        (lambda m: [m[0], m[0]], ConfigError, "twice"),
    ],
)
def test_what_is_no_ensemble(workspace, data, checkpoint, pick, error, says):
    models = trained(workspace, data, checkpoint, "none", seeds=(0, 1))
    with pytest.raises(error, match=says):
        trueup.ensemble(workspace, pick(models))


def test_a_member_does_not_hide_in_an_ensemble(workspace, data, checkpoint):
    models = trained(workspace, data, checkpoint, "none", seeds=(0, 1))
    jury = trueup.ensemble(workspace, models)
    with pytest.raises(ConfigError, match="twice"):
        trueup.ensemble(workspace, [jury, models[0]])


def test_models_that_read_differently_do_not_mix(workspace, data, checkpoint):
    (one,) = trained(workspace, data, checkpoint, "none", seeds=(0,))
    settings = QUICK | {"members": 2, "model.adapter": "none"}
    two = trueup.reward(workspace, base=str(checkpoint("Llama")), data=data["preferences"], **settings)
    assert load(workspace, trueup.ensemble(workspace, [one, two])).members == 3, "an ensemble may hold another's heads"
    other = trueup.reward(workspace, base=str(checkpoint("Llama")), data=put_rated(workspace), **rated_settings())
    with pytest.raises(ModelError, match="same objectives"):
        trueup.ensemble(workspace, [one, other])


def rated_settings():
    return QUICK | {"model.adapter": "none", "objectives": ("true", "short")}


def put_rated(workspace):
    rows = [
        Judgement(
            Prompt.user(f"the cat {i}"), ("old rain", "red"), (1, 1), "ann", "human",
            split="heldout" if i % 5 == 0 else "train", ratings={"true": (float(i % 3), 1.0), "short": (1.0, 2.0)},
        ).to_json()
        for i in range(30)
    ]  # fmt: skip
    return put_records(workspace, "preferences", rows)


def test_each_objective_is_measured_on_what_speaks_of_it(workspace, checkpoint):
    made = trueup.reward(workspace, base=str(checkpoint("Llama")), data=put_rated(workspace), **rated_settings())
    (run,) = [run for run in runs(workspace) if run.outputs.get("reward", made).id == made.id]
    assert {name: each["n"] for name, each in run.result["objectives"].items()} == {"true": 4, "short": 6}


def test_soft_targets_are_not_passed_over_in_silence(workspace, checkpoint):
    """A whole order has no place for them."""
    rows = [
        Judgement(Prompt.user(f"the cat {i}"), ("old rain", "red"), (1, 2), "all", "human", targets=(0.8,)).to_json()
        for i in range(8)
    ]
    data = put_records(workspace, "preferences", rows)
    settings = QUICK | {"model.adapter": "none", "loss": "plackett-luce"}
    with pytest.raises(TrueupError, match="soft targets"):
        trueup.reward(workspace, base=str(checkpoint("Llama")), data=data, **settings)


def test_an_objective_nobody_speaks_of_is_refused(workspace, checkpoint):
    settings = rated_settings() | {"objectives": ("true", "kind")}
    with pytest.raises(TrueupError, match="speaks of the objective 'kind'"):
        trueup.reward(workspace, base=str(checkpoint("Llama")), data=put_rated(workspace), **settings)
    settings |= {"objectives": ("kind", "brief")}
    with pytest.raises(TrueupError, match="speaks of kind or brief"):
        trueup.reward(workspace, base=str(checkpoint("Llama")), data=put_rated(workspace), **settings)


def test_the_command(workspace, data, checkpoint, capsys):
    models = trained(workspace, data, checkpoint, "none", seeds=(0, 1))
    arguments = ["--workspace", str(workspace.path), "ensemble", *(m.id for m in models), "--name", "jury", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    made = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0 and made["kind"] == "reward" and "jury" in str(made)


def test_an_ensemble_is_enough_to_disagree(workspace, data, checkpoint):
    """What its members differ on is what is asked next."""
    from trueup.asking import _scores
    from trueup.inputs import SCORERS, find_input

    models = trained(workspace, data, checkpoint, "lora")
    jury = trueup.ensemble(workspace, models, name="jury")
    scores = _scores(find_input(workspace, "reward", "jury", SCORERS), [COMPLETIONS[:2], COMPLETIONS[1:]])
    each = [[s.value for s in RewardScorer(load(workspace, model)).score(COMPLETIONS)] for model in models]
    expected = [[[a, b], [b, c]] for a, b, c in each]
    for found, wanted in zip(scores, expected, strict=True):
        assert found == [pytest.approx(row, abs=1e-4) for row in wanted]
    assert jury.meta["models"] == len(scores) == 3
