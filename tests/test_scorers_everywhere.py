"""One way to name what scores in every stage that scores; settings that would change nothing are refused at once."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from small import add_small_data, settings

import trueup
from trueup import rejecting
from trueup.cli.main import run as command_line
from trueup.config import ModelSettings, Objective, Scoring
from trueup.engines.combined import CombinedScorer
from trueup.engines.fake import FakeScorer
from trueup.engines.reward_scorer import RewardScorer
from trueup.errors import ConfigError, ModelError, NotFoundError
from trueup.inputs import ANY_SCORER, by_role, find_input
from trueup.loading import read_completions
from trueup.models.load import load_reward
from trueup.records import Completion, Prompt
from trueup.runs import runs
from trueup.scorers import Facts, check_scoring, facts_of, measured, open_scorer
from trueup.store import Workspace

ONE = {"threads": 1, "tensorboard": False}
PROMPT = Prompt.user("the cat")
TEXTS = [Completion(PROMPT, text) for text in ("rain", "the old town", "red house red", "a dog sat")]
RULES = """
def brief(prompt, completion): return -len(completion)
def es(completions): return [c.text.count("e") for c in completions]
"""


@pytest.fixture(scope="module")
def ws(tmp_path_factory, checkpoint):
    """Random policies and judges of every kind: one output, two objectives, two members."""
    folder = tmp_path_factory.mktemp("scorers")
    with Workspace.create(folder / "w") as made:
        add_small_data(made, folder, prompts=20)
        (folder / "rules.py").write_text(RULES)
        base = str(checkpoint("Llama"))
        trueup.sft(made, base=base, data="demonstrations", name="sft", steps=1, run=ONE)
        quick = {"base": "sft", "steps": 1, "run": ONE}
        trueup.reward(made, data="preferences", name="judge", **quick)
        trueup.reward(made, data="preferences", name="jury", members=2, optimizer={"lr": 1e-2}, **quick)
        rows = trueup.join_data(made, [("kind", "preferences"), ("true", "preferences")])
        trueup.reward(made, data=rows, name="two", objectives=("kind", "true"), **quick)
        yield made


@pytest.fixture(scope="module")
def rules(ws):
    return str(ws.path.parent / "rules.py")


QUICK = {"steps": 2, "samples_per_prompt": 2, "sampling": {"max_new_tokens": 5}, "guard": {"evaluation_prompts": 3}}
RL = QUICK | {"prompts_per_step": 3, "minibatches": 1, "run": ONE}
DPO = QUICK | {"online": True, "batch_size": 3, "run": ONE}


def objectives(*given):
    return tuple(Objective(**each) for each in given)


def opened(ws, scoring, **refs):
    """Scorers by name, `alone` for the one without."""
    items = {name.replace("alone", ""): find_input(ws, "reward", ref, ANY_SCORER) for name, ref in refs.items()}
    return open_scorer(items, scoring, ModelSettings())[0]


def values(scorer, completions=TEXTS):
    return torch.tensor([score.value for score in scorer.score(completions)], dtype=torch.float64)


# --- what is known before anything is loaded


def test_what_scoring_may_name_is_known_from_files(ws, rules):
    def facts(ref, name=""):
        return facts_of(find_input(ws, "reward", ref, ANY_SCORER), ModelSettings(), name)

    assert facts("judge") == Facts(("overall",)) and facts("judge", "help").parts == ("help",)
    assert facts("jury").parts == ("overall",) and facts("jury").members == 2
    assert facts("two").parts == ("kind", "true") and facts("two", "a").parts == ("a.kind", "a.true")
    found = facts(f"{rules}:brief")
    assert found.is_function and found.parts == ("overall",) and facts(f"{rules}:brief", "short").parts == ("short",)


@pytest.mark.parametrize("refs", [{"alone": "two"}, {"a": "two", "b": "jury", "c": "RULES:brief"}, {"x": "judge"}])
def test_parts_are_called_what_was_known(ws, rules, refs):
    refs = {name: ref.replace("RULES", rules) for name, ref in refs.items()}
    known = [
        part
        for name, ref in refs.items()
        for part in facts_of(find_input(ws, "m", ref, ANY_SCORER), ModelSettings(), name.replace("alone", "")).parts
    ]
    assert list(measured(opened(ws, Scoring(), **refs), TEXTS).score(TEXTS)[0].parts) == known


MODEL, JURY, FUNCTION = Facts(("overall",)), Facts(("help",), members=2), Facts(("overall",), is_function=True)
SHORT, LABELS = Facts(("short",), is_function=True, is_named=True), Facts(("a", "b"), unweighed=True)


@pytest.mark.parametrize(
    ("scoring", "chosen_by", "judges", "says"),
    [
        ({"objectives": objectives({"name": "shrt"})}, [JURY, SHORT], [], "names 'shrt', which no scorer has.*'short'"),
        ({"objectives": objectives({"name": "nosuch", "weight": -3})}, [FUNCTION], [], "names 'nosuch'"),
        ({"objectives": objectives({"name": "help"})}, [MODEL], [JURY], "names 'help'"),
        ({"ensemble": "min"}, [MODEL, FUNCTION], [JURY], "scoring.ensemble has no meaning here: no scorer is an ense"),
        ({"time_limit": 5.0}, [MODEL, JURY], [MODEL], "scoring.time_limit has no meaning here: no scorer is a Python"),
        ({"normalise": False}, [FUNCTION], [], "scoring.normalise has no meaning here: one function alone"),
        *[(each, [], [MODEL], "has no meaning here: nothing is scored")
          for each in ({"normalise": False}, {"objectives": objectives({"name": "overall"})})],
        ({}, [LABELS], [], "which of them count is not said"),
        ({"objectives": objectives({"name": "a"})}, [LABELS], [LABELS], "cannot be said of a judge"),
        ({}, [Facts(("std",)), SHORT], [], "cannot have a part called 'std'"),
    ],
)  # fmt: skip
def test_settings_that_would_change_nothing_are_refused(scoring, chosen_by, judges, says):
    with pytest.raises(ConfigError, match=says):
        check_scoring(Scoring(**scoring), chosen_by, judges)


@pytest.mark.parametrize(
    ("scoring", "chosen_by", "judges"),
    [
        ({"ensemble": "penalised", "penalty": 2.0, "normalise": False}, [JURY], []),
        ({"time_limit": 5.0}, [MODEL], [FUNCTION]),
        ({"normalise": False, "objectives": objectives({"name": "overall"})}, [FUNCTION], []),
        ({"normalise": False}, [SHORT], []),
        ({"normalise": False}, [MODEL], []),
        ({"objectives": objectives({"name": "b"})}, [LABELS], [FUNCTION]),
        ({}, [], []),
    ],
)
def test_settings_that_change_something_are_not(scoring, chosen_by, judges):
    check_scoring(Scoring(**scoring), chosen_by, judges)


@pytest.mark.parametrize("stage", ("rl", "dpo"))
def test_what_the_run_would_refuse_its_plan_refuses(ws, rules, stage):
    """And neither leaves a run behind."""
    before = len(runs(ws))
    refs = {"policy": "sft", "prompts": "prompts", "reward": {"help": "judge", "short": f"{rules}:brief"}}
    quick, run = {"rl": RL, "dpo": DPO}[stage], {"rl": trueup.rl, "dpo": trueup.dpo}[stage]
    zzz = {"scoring": {"objectives": [{"name": "zzz"}]}}
    for more, given, error, says in (
        ({}, zzz, ConfigError, "names 'zzz'"),
        ({"judge": f"{rules}:nosuch"}, {}, ModelError, "has no function 'nosuch'"),
        ({"reward": f"{rules}:nosuch"}, {}, ModelError, "has no function 'nosuch'"),
        ({"judge": "gold"}, {}, NotFoundError, "gold"),
    ):
        with pytest.raises(error, match=says):
            trueup.plan(ws, stage, by_role(refs | more), settings(stage, **(quick | given)))
        with pytest.raises(error, match=says):
            run(ws, **(refs | more), **(quick | given))
    plan = trueup.plan(ws, stage, by_role(refs | {"judge": "two"}), settings(stage, **quick))
    assert {"reward.help", "reward.short", "judge"} <= set(plan["inputs"]) and len(runs(ws)) == before


# --- one scorer, weighed


def test_weights_and_floors_of_one_scorer_count(ws, rules):
    plain = values(opened(ws, Scoring(), alone="judge"))
    scoring = Scoring(objectives=objectives({"name": "overall", "weight": -5, "at_least": 50}))
    wanted = -5 * plain - 10 * (50 - plain)
    torch.testing.assert_close(values(opened(ws, scoring, alone="judge")), wanted, rtol=1e-4, atol=1e-3)
    raw = values(opened(ws, Scoring(normalise=False), alone="judge"))
    model = load_reward([str(ws.get("judge").path)], ModelSettings())
    torch.testing.assert_close(plain, (raw - model.mean[0]) / model.std[0], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(plain, raw)
    asked = scoring.model_copy(update={"normalise": False})
    lengths = torch.tensor([-float(len(c.text)) for c in TEXTS], dtype=torch.float64)
    torch.testing.assert_close(values(opened(ws, asked, alone=f"{rules}:brief")), -5 * lengths - 10 * (50 - lengths))
    scaled = values(measured(opened(ws, Scoring(objectives=scoring.objectives[:1]), alone=f"{rules}:brief"), TEXTS))
    unit = (lengths - lengths.mean()) / lengths.std(correction=0)
    torch.testing.assert_close(scaled, -5 * unit - 10 * (50 - unit))


# --- ensembles among several


def by_member(ws):
    model = load_reward([str(ws.get("jury").path)], ModelSettings())
    return RewardScorer(model).by_member(TEXTS).double()


def test_ensembles_keep_their_setting_and_their_names_among_several(ws):
    """Two ensembles too, whose one objective both call overall."""
    each = by_member(ws)
    assert not torch.allclose(each.mean(1), each.amin(1)), "or it could not be seen"
    for ensemble, wanted in (
        ("mean", each.mean(1)),
        ("min", each.amin(1)),
        ("penalised", each.mean(1) - each.var(1, correction=0)),
    ):
        named = objectives({"name": "one", "weight": 2}, {"name": "other", "weight": 0.5})
        scoring = Scoring(ensemble=ensemble, normalise=False, objectives=named)
        raw = values(opened(ws, scoring.model_copy(update={"objectives": ()}), alone="jury"))
        found = opened(ws, scoring, one="jury", other="jury")
        torch.testing.assert_close(values(found), 2.5 * raw, rtol=1e-4, atol=1e-4)
        assert set(found.score(TEXTS)[0].parts) == {"one", "other"}
        alone = values(opened(ws, Scoring(ensemble=ensemble), alone="jury"))
        torch.testing.assert_close(alone, wanted, rtol=1e-4, atol=1e-4)


def test_the_lowest_of_several_is_that_of_the_ensembles_in_them(ws):
    scorer = opened(ws, Scoring(normalise=False), help="jury", long="judge")
    assert isinstance(scorer, CombinedScorer)
    raw = load_reward([str(ws.get("jury").path)], ModelSettings())
    members = RewardScorer(raw, scoring=Scoring(normalise=False)).by_member(TEXTS).double()
    judge = values(opened(ws, Scoring(normalise=False), alone="judge"))
    torch.testing.assert_close(values(scorer.lowest()), members.amin(1) + judge, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(values(scorer), members.mean(1) + judge, rtol=1e-4, atol=1e-4)


def test_a_combination_takes_any_scorer(ws):
    found = CombinedScorer({"long": FakeScorer(lambda c: len(c.text))}, Scoring(normalise=False))
    assert values(found).tolist() == [4, 12, 13, 9] and values(found.lowest()).tolist() == [4, 12, 13, 9]


# --- whole runs


@pytest.mark.parametrize("stage", ("rl", "dpo"))
def test_several_scorers_with_a_judge_that_is_scored_by_itself(ws, rules, stage):
    """Objectives, a floor and its multiplier are about what is learnt from; the judge knows nothing of them."""
    named = [{"name": "help"}, {"name": "short", "weight": 0.2, "at_least": 0.0}]
    scoring = {"objectives": named, "floor": "multiplier", "time_limit": 30.0}
    stages = {"rl": (trueup.rl, RL), "dpo": (trueup.dpo, DPO)}
    run, quick = stages[stage]
    refs = {"policy": "sft", "prompts": "prompts", "reward": {"help": "judge", "short": f"{rules}:brief"}}
    scale = {"score_scale": "running", "score_clip": 2.0, "missing_eos_score": None}
    quick = quick | scale | {"run": ONE | {"evaluate_every": 1, "keep_logprobs": True}}
    run(ws, **refs, judge=f"{rules}:es", scoring=scoring, **quick)
    done = runs(ws)[-1]
    rows = done.metrics()
    assert {"score_help", "score_short", "multiplier_short", "heldout_judge", "heldout_score_short"} <= set(rows[0])
    assert {"reward.help", "reward.short", "judge"} <= set(done.inputs)
    (sample, *_) = done.samples(1)
    assert len(sample["tokens"]) == len(sample["sampler_logprobs"]) == len(sample["reference_logprobs"]) > 0
    assert all(abs(row["score"]) <= 2.0 for row in done.samples(2))


@pytest.mark.parametrize("stage", ("rl", "dpo"))
@pytest.mark.parametrize(
    ("reward", "scoring", "judged"),
    [
        ("jury", {"normalise": True}, True),
        ({"help": "jury", "short": "RULES:brief"}, {"normalise": True}, True),
        ("jury", {"ensemble": "min"}, False),
        ("judge", {"normalise": True}, False),
    ],
)
def test_an_ensemble_is_judged_by_its_lowest_member(ws, rules, stage, reward, scoring, judged):
    """Alone or among several, in RL and in rounds; where the lowest is what is learnt from, it is no other opinion."""
    named = {k: v.replace("RULES", rules) for k, v in reward.items()} if isinstance(reward, dict) else reward
    run, quick = {"rl": (trueup.rl, RL), "dpo": (trueup.dpo, DPO)}[stage]
    run(ws, policy="sft", prompts="prompts", reward=named, scoring=scoring, **quick)
    last = runs(ws)[-1].metrics()[-1]
    assert ("heldout_judge" in last) == judged and math.isfinite(last["heldout_score"])


def test_the_lowest_member_of_a_runs_own_ensemble_says_how_far_to_climb(ws):
    trueup.rl(ws, policy="sft", prompts="prompts", reward="jury", **RL | {"run": {**ONE, "evaluate_every": 1}})
    run = runs(ws)[-1]
    found = trueup.overopt(ws, run.id, judges=["minimum", "jury"])
    least, whole = (np.array(found["curves"][name]["mean"]) for name in ("minimum", "jury"))
    assert found["judge"] == "minimum" and (least < whole).all(), "no member is content with less than the least"


def test_functions_and_several_scorers_choose_the_best_of_n(ws, rules):
    given = {
        "model": "sft",
        "prompts": "prompts",
        "best_of": 3,
        "sampling": {"max_new_tokens": 5},
        "run": {"threads": 1},
    }
    made = trueup.sample(ws, reward=f"{rules}:brief", **given)
    best = read_completions(made)
    assert all(c.meta["score"] == -len(c.text) == max(c.meta["scores"]) for c in best)
    made = trueup.sample(ws, reward={"help": "judge", "short": f"{rules}:brief"}, **given)
    assert set(made.parents) == {"model", "prompts", "reward.help", "reward.short"}
    every = [score for c in read_completions(made) for score in c.meta["scores"]]
    assert sum(every) / len(every) == pytest.approx(0, abs=1e-4), "each on the scale of what was written"
    assert all(c.meta["score"] == max(c.meta["scores"]) for c in read_completions(made))


def test_a_function_judges_and_rejects_and_teaches(ws, rules, capsys):
    drafts = trueup.sample(ws, model="sft", prompts="prompts", per_prompt=3, sampling={"max_new_tokens": 30},
                           name="drafts", run={"threads": 1})  # fmt: skip
    found = trueup.winrate(ws, a="drafts", b="sft", prompts="prompts", judge=f"{rules}:brief",
                           sampling={"max_new_tokens": 1}, run={"threads": 1})  # fmt: skip
    assert found["mean_a"] < found["mean_b"] < 0, "one token is briefer"
    trueup.ilql(ws, policy="sft", data=drafts, reward={"a": f"{rules}:brief", "b": f"{rules}:es"}, steps=1, run=ONE)
    written = read_completions(drafts)
    stored = json.loads((runs(ws)[-1].path / "scores.json").read_text())
    assert len(stored) == len({(c.prompt.id, c.text, c.finished) for c in written})
    command = ["--workspace", str(ws.path), "data", "reject", "drafts", "--threads", "1", "--name", "brief"]
    scored = ["--reward", f"short={rules}:brief", "--reward", f"es={rules}:es"]
    assert command_line([*command, *scored, "--set", 'scoring.objectives=[{name="short"}]', "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert {"completions", "reward.short", "reward.es"} == set(kept["parents"])
    shortest: dict[str, int] = {}
    for c in written:
        if c.finished and c.text.strip():
            shortest[c.prompt.id] = min(shortest.get(c.prompt.id, 10**6), len(c.text))
    rows = trueup.loading.read_demonstrations(ws.get("brief"))
    assert {row.prompt.id: len(row.completion) for row in rows} == shortest


def test_where_nothing_scores_settings_of_scoring_are_refused(ws, rules, capsys):
    with pytest.raises(ConfigError, match="scoring.objectives has no meaning here: nothing is scored"):
        trueup.sample(ws, model="sft", prompts="prompts", scoring={"objectives": [{"name": "overall"}]})
    with pytest.raises(ConfigError, match="scoring.normalise has no meaning here"):
        rejecting.reject(ws, completions=ws.artifacts("completions")[-1], scoring=Scoring(normalise=False))
    command = ["--workspace", str(ws.path), "score", "--prompt", "the cat", "--completion", "rain"]
    assert command_line([*command, f"{rules}:brief", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == -4
    assert command_line([*command, f"{rules}:brief", "--set", "scoring.normalise=false"]) == 1
    assert "a function by itself only has the time_limit" in capsys.readouterr().err
    assert command_line([*command, "judge", "--set", "scoring.ensemble=min"]) == 1
    assert "scoring.ensemble has no meaning here" in capsys.readouterr().err
