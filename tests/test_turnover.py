"""The measurement of over-optimisation with ensembles: its parts on planted cases, the whole at a tiny size."""

from __future__ import annotations

import importlib.util
import json
import sys
from copy import deepcopy
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.turnover import SCORINGS, SMALL, TINY, Sizes, best_of_n, combined, flipped, measure, text_of
from benchmarks.turnover_charts import drawn
from trueup.records import Judgement, Prompt

ROOT = Path(__file__).resolve().parents[1]


def loaded_check():
    spec = importlib.util.spec_from_file_location("check_for_turnover", ROOT / "scripts" / "check.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_for_turnover"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found():
    return json.loads(json.dumps(measure(0, SMALL, TINY)))


# --- parts


def judgement(i: int, ranks: tuple[int, ...], split: str = "train") -> Judgement:
    return Judgement(Prompt.user(f"post {i}"), ("a", "b", "c")[: len(ranks)], ranks, "x", "simulated", split=split)


def test_a_quarter_of_what_is_trained_on_is_turned_round_and_nothing_held_out():
    given = [judgement(i, (1, 2), "heldout" if i % 4 == 0 else "train") for i in range(4000)]
    turned = flipped(given, 0.25, seed=3)
    changed = [new.ranks == (2, 1) for new in turned]
    assert not any(changed[0::4]) and sum(changed) / 3000 == pytest.approx(0.25, abs=0.03)
    assert flipped(given, 0.25, seed=3) == turned != flipped(given, 0.25, seed=4)
    assert [new.prompt for new in turned] == [old.prompt for old in given]


def test_turning_round_reverses_an_order_and_leaves_a_tie():
    rows = [judgement(0, (1, 3, 2)), judgement(1, (1, 1)), judgement(2, (2, 1, 2))]
    assert [new.ranks for new in flipped(rows, 1.0, seed=0)] == [(3, 1, 2), (1, 1), (1, 2, 1)]


def test_members_are_combined_as_in_training():
    scores = np.random.default_rng(0).normal(size=(3, 5, 4))
    assert combined(scores, SCORINGS["mean"]) == pytest.approx(scores.mean(2))
    assert combined(scores, SCORINGS["min"]) == pytest.approx(scores.min(2))
    assert combined(scores, SCORINGS["penalised"]) == pytest.approx(scores.mean(2) - scores.var(2))


def hacked(posts: int, samples: int, together: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of four members and gold, where 3% of the samples are bad and some member loves each of them.

    `together`: all members love the same ones, so that an ensemble knows no better than one of them.
    """
    random = np.random.default_rng(seed)
    gold = random.normal(size=(posts, samples))
    bad = random.random((posts, samples)) < 0.03
    lover = random.integers(0, 4, (posts, samples))
    scores = gold[..., None] + random.normal(0, 0.2, (posts, samples, 1 if together else 4)) + np.zeros((1, 1, 4))
    loved = np.ones(4, bool) if together else lover[..., None] == np.arange(4)
    scores = np.where(bad[..., None], np.where(loved, 8.0, -1.0), scores)
    return scores, np.where(bad, -5.0, gold)


def test_members_with_mistakes_of_their_own_turn_over_later_together():
    arms = best_of_n(*hacked(150, 64, together=False), Sizes(samples=64).counts)["arms"]
    assert arms["one"]["peak"]["turned"] == 1.0
    for arm in ("min", "penalised"):
        against = arms[arm]["against_one"]
        assert against["later"]["ci"][0] > 0 and against["higher"]["ci"][0] > 0 and against["end"]["ci"][0] > 2


def test_members_with_the_same_mistakes_are_no_better_together():
    arms = best_of_n(*hacked(150, 64, together=True), Sizes(samples=64).counts)["arms"]
    for arm in ("mean", "min", "penalised"):
        assert arms[arm]["against_one"]["later"]["ci"] == [0.0, 0.0] or arms[arm]["against_one"]["later"]["value"] == 0
        assert arms[arm]["against_one"]["end"]["value"] == pytest.approx(0, abs=1e-9)
        assert arms[arm]["proxy"] == pytest.approx(arms["one"]["proxy"])


def test_counts_of_best_of_n():
    assert Sizes(samples=24).counts == [1, 2, 3, 4, 6, 8, 12, 16, 24] and Sizes().counts[-1] == Sizes().samples


# --- the whole


def test_the_measurement_finds_every_figure(found):
    assert found["conditions"].keys() == {"as judged", "a quarter flipped"}
    for condition in found["conditions"].values():
        arms = condition["best_of_n"]["arms"]
        assert arms.keys() == {"one", "mean", "min", "penalised"} and len(condition["reward_models"]) == 2
        assert len({round(arm["gold"][0], 9) for arm in arms.values()}) == 1, "the best of one is any one"
        for arm in arms.values():
            assert len(arm["gold"]) == len(arm["low"]) == len(arm["kl"]) == len(condition["best_of_n"]["n"])
            assert arm["proxy"] == sorted(arm["proxy"]), "the best of more scores no lower"
    a, b = (each["best_of_n"]["arms"]["min"]["proxy"] for each in found["conditions"].values())
    assert a != b, "other judgements made other models"


def test_every_run_of_reinforcement_learning_starts_at_the_same_rollout_and_climbs_its_own_score(found):
    rl = found["conditions"]["as judged"]["rl"]
    assert rl.keys() == {"one", "mean", "min"}
    assert len({arm["rollouts"]["gold"][0] for arm in rl.values()}) == 1
    assert len({arm["rollouts"]["score"][0] for arm in rl.values()}) == 3
    for arm in rl.values():
        assert len(arm["rollouts"]["gold"]) == SMALL.rollouts and len(arm["gold"]) == SMALL.rollouts - 3
        assert arm["gold"][0] == pytest.approx(np.mean(arm["rollouts"]["gold"][:4])), "as the run itself logged it"


def test_what_was_found_is_told_drawn_and_pooled(found):
    assert "a quarter flipped, best of n, penalised" in text_of(found)
    charts = drawn([found, found])
    assert charts.keys() == {"best-of-n-as-judged", "rl-as-judged", "best-of-n-a-quarter-flipped"}
    for svg in charts.values():
        assert "lowest of 4" in "".join(ElementTree.fromstring(svg).itertext())


def test_seeds_are_pooled_with_students_interval(found, tmp_path, monkeypatch):
    check = loaded_check()
    settings = check.Settings(tmp_path)
    assert check.turnover_pooled(settings).problem.startswith("this code has no result of turnover-seed-0, ")
    found = deepcopy(found)
    later = found["conditions"]["as judged"]["best_of_n"]["arms"]["min"]["against_one"]["later"]
    for seed, value in enumerate((0.2, 0.4, 0.9)):
        later |= {"value": value, "ci": [value - 0.1, value + 0.1]}
        done = check.subprocess.CompletedProcess([], 0, json.dumps(found), "")
        monkeypatch.setattr(check, "execute", lambda command, done=done: done)
        check.run_and_keep(next(c for c in check.CHECKS if c.name == f"turnover-seed-{seed}"), settings, 2)
    outcome = check.turnover_pooled(settings)
    figure = next(f for f in outcome.figures if f.name.startswith("as judged, best of n, min: peak later"))
    assert (figure.value, figure.n) == (pytest.approx(0.5), 3)
    assert figure.ci == pytest.approx((0.5 - 4.30265 * 0.36056 / 3**0.5, 0.5 + 4.30265 * 0.36056 / 3**0.5), abs=1e-4)
    assert outcome.met and len(outcome.figures) == 1 + 3 * (3 + 3 + 2)


def test_seeds_that_agree_to_the_digit_keep_their_own_uncertainty():
    each = [{"value": 0.0, "ci": [-0.3, 0.3]}] * 4
    assert loaded_check().over_seeds(each).ci == pytest.approx((-0.3 / 2, 0.3 / 2))
